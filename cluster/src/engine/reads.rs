//! Looks at a group that must see it as it is.
//!
//! A replica may be behind, and a leader may have been replaced without knowing. So all looks of a
//! turn wait until the leader has said up to where entries are committed, which it does once a quorum
//! has answered a heartbeat that was sent after it was asked; and then until all of that is applied
//! here. Clocks have no part in it.

use std::collections::VecDeque;

use raft::ReadState;

use super::group::Group;
use super::leadership::ELECTION_TICKS;
use super::{Engine, view};
use crate::host::{Host, Refusal};
use crate::machine::{GroupId, StateMachine};
use crate::peers::Letter;

/// Ticks after which a look that is not confirmed is given up.
const PATIENCE_TICKS: usize = 5 * ELECTION_TICKS;
/// Ticks after which the leader, perhaps another one, is asked again.
const AGAIN_TICKS: usize = ELECTION_TICKS / 2;

/// The looks at a group that wait, in order.
pub(super) struct Reads<S> {
    waiting: VecDeque<Asked<S>>,
    next: u64,
}

/// The looks of one turn, or what another node wants to know.
struct Asked<S> {
    number: u64,
    who: Who<S>,
    /// What must be applied before, once it is confirmed.
    index: u64,
    confirmed: bool,
    ticks: usize,
}

enum Who<S> {
    Here(Vec<S>),
    /// A node, and its number for it.
    Node(u64, u64),
}

impl<S> Reads<S> {
    /// Numbers of an earlier life are never used again, since answers to it may still come.
    pub(super) fn new(incarnation: u64) -> Self {
        Self { waiting: VecDeque::new(), next: incarnation << 22 }
    }

    /// Adds who wants to look; gives the number to confirm.
    fn add(&mut self, who: Who<S>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.waiting.push_back(Asked { number, who, index: 0, confirmed: false, ticks: 0 });
        number
    }

    fn confirm_one(&mut self, number: u64, index: u64) {
        if let Some(asked) = self.waiting.iter_mut().find(|asked| asked.number == number) {
            asked.confirmed = true;
            asked.index = asked.index.max(index);
        }
    }

    /// Raft says that this node led when it was asked.
    pub(super) fn confirm(&mut self, states: Vec<ReadState>) {
        for state in states {
            if let Ok(number) = state.request_ctx[..].try_into() {
                self.confirm_one(u64::from_le_bytes(number), state.index);
            }
        }
    }

    /// Takes out all that waits here.
    pub(super) fn give_up(&mut self) -> impl Iterator<Item = S> + use<S> {
        std::mem::take(&mut self.waiting).into_iter().flat_map(|asked| asked.who.here())
    }
}

impl<S> Who<S> {
    fn here(self) -> Vec<S> {
        match self {
            Self::Here(signals) => signals,
            Self::Node(..) => Vec::new(),
        }
    }
}

impl<R, S> Group<R, S> {
    /// Has the leader asked what is committed: by Raft, if that is this node, or else by the letter
    /// that is given back.
    fn ask_leader(&mut self, number: u64) -> Option<(u64, Letter)> {
        if self.led.is_none() {
            return Some((self.leader()?, Letter::Looking { number }));
        }
        self.raft.read_index(number.to_le_bytes().to_vec());
        None
    }
}

impl<M: StateMachine, H: Host<M>> Engine<M, H> {
    /// Asks for the looks of this turn.
    pub(super) fn ask_reads(&mut self, reads: &mut Vec<(GroupId, H::Signal)>) {
        let mut by_group: Vec<(usize, Vec<H::Signal>)> = Vec::new();
        for (id, signal) in reads.drain(..) {
            let Some(&place) = self.places.get(&id) else {
                self.host.unread(signal, Refusal::UnknownGroup);
                continue;
            };
            if self.groups[place].is_given_up() {
                self.host.unread(signal, Refusal::NoLeader);
                continue;
            }
            match by_group.iter_mut().find(|(other, _)| *other == place) {
                Some((_, signals)) => signals.push(signal),
                None => by_group.push((place, vec![signal])),
            }
        }
        for (place, signals) in by_group {
            let number = self.groups[place].reads.add(Who::Here(signals));
            self.ask_leader(place, number);
        }
    }

    /// Another node wants to look at a group that this one leads.
    pub(super) fn hear_looking(&mut self, from: u64, place: usize, number: u64) {
        if self.groups[place].led.is_some() {
            let number = self.groups[place].reads.add(Who::Node(from, number));
            self.ask_leader(place, number);
        }
    }

    /// The leader says up to where a look must see.
    pub(super) fn hear_look_at(&mut self, place: usize, number: u64, index: u64) {
        self.groups[place].reads.confirm_one(number, index);
    }

    fn ask_leader(&mut self, place: usize, number: u64) {
        // A full disk may not be looked past: Raft must not move.
        if self.held.is_some() {
            return;
        }
        let group = &mut self.groups[place];
        if let Some((leader, letter)) = group.ask_leader(number) {
            self.outgoing.add(leader, group.id, &letter);
        }
    }

    /// Lets those look that are confirmed.
    pub(super) fn answer_reads(&mut self) {
        for group in &mut self.groups {
            let applied = group.applied.index;
            let ready = |it: &mut Asked<_>| {
                it.confirmed && (it.index <= applied || matches!(it.who, Who::Node(..)))
            };
            while let Some(Asked { who, index, .. }) = group.reads.waiting.pop_front_if(ready) {
                match who {
                    Who::Here(signals) => {
                        for signal in signals {
                            let mut groups = view(&mut self.machines, &self.statuses, &self.room);
                            self.host.signal(&mut groups, signal);
                        }
                    }
                    Who::Node(node, number) => {
                        self.outgoing.add(node, group.id, &Letter::LookAt { number, index });
                    }
                }
            }
        }
    }

    /// Asks again for what is not confirmed, and in the end gives it up.
    pub(super) fn tick_reads(&mut self) {
        for place in 0..self.groups.len() {
            let group = &mut self.groups[place];
            group.reads.waiting.iter_mut().for_each(|asked| asked.ticks += 1);
            let old = |it: &mut Asked<_>| it.ticks > PATIENCE_TICKS;
            while let Some(asked) = group.reads.waiting.pop_front_if(old) {
                for signal in asked.who.here() {
                    self.host.unread(signal, Refusal::NoLeader);
                }
            }
            let late = group
                .reads
                .waiting
                .iter()
                .filter(|asked| !asked.confirmed && asked.ticks.is_multiple_of(AGAIN_TICKS));
            let late: Vec<_> = late.map(|asked| asked.number).collect();
            for number in late {
                self.ask_leader(place, number);
            }
        }
    }
}
