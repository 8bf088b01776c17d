//! Looks at a group that must see it as it is.
//!
//! A leader may have been replaced without knowing. So all looks of a turn wait until a quorum has
//! answered a heartbeat that was sent after they came, and until everything is applied that was
//! committed or proposed here by then. Clocks have no part in it.

use std::collections::VecDeque;

use raft::ReadState;

use super::leadership::ELECTION_TICKS;
use super::{Engine, view};
use crate::host::{Host, Refusal};
use crate::machine::{GroupId, StateMachine};

/// Ticks after which a look that is not confirmed is given up.
const PATIENCE_TICKS: usize = 2 * ELECTION_TICKS;

/// The looks at a group that wait, in order.
pub(super) struct Reads<S> {
    waiting: VecDeque<Asked<S>>,
    next: u64,
}

/// The looks of one turn.
struct Asked<S> {
    number: u64,
    signals: Vec<S>,
    /// What must be applied before.
    index: u64,
    confirmed: bool,
    ticks: usize,
}

impl<S> Default for Reads<S> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), next: 0 }
    }
}

impl<S> Reads<S> {
    /// Adds a look; tells whether it is the first of its turn, with the number to confirm.
    fn add(&mut self, signal: S, index: u64, first: bool) {
        match self.waiting.back_mut().filter(|_| !first) {
            Some(asked) => asked.signals.push(signal),
            None => {
                let (number, signals) = (self.next, vec![signal]);
                self.next += 1;
                self.waiting.push_back(Asked {
                    number,
                    signals,
                    index,
                    confirmed: false,
                    ticks: 0,
                });
            }
        }
    }

    /// Raft says that this node led when it was asked.
    pub(super) fn confirm(&mut self, states: Vec<ReadState>) {
        for state in states {
            let is_it = |asked: &&mut Asked<S>| asked.number.to_le_bytes()[..] == state.request_ctx;
            if let Some(asked) = self.waiting.iter_mut().find(is_it) {
                asked.confirmed = true;
                asked.index = asked.index.max(state.index);
            }
        }
    }

    /// Takes out all that waits.
    pub(super) fn give_up(&mut self) -> impl Iterator<Item = S> + use<S> {
        std::mem::take(&mut self.waiting).into_iter().flat_map(|asked| asked.signals)
    }
}

impl<M: StateMachine, H: Host<M>> Engine<M, H> {
    /// Has Raft find out whether this node still leads the groups that are to be looked at.
    pub(super) fn ask_reads(&mut self, reads: &mut Vec<(GroupId, H::Signal)>) {
        let mut asked = Vec::new();
        for (id, signal) in reads.drain(..) {
            let Some(&place) = self.places.get(&id) else {
                self.host.unread(signal, Refusal::UnknownGroup);
                continue;
            };
            let group = &mut self.groups[place];
            if group.led.is_none() || self.held.is_some() {
                self.host.unread(signal, Refusal::NotLeader);
                continue;
            }
            let first = !asked.contains(&place);
            if first {
                asked.push(place);
            }
            group.reads.add(signal, group.raft.raft.raft_log.last_index(), first);
        }
        for place in asked {
            let group = &mut self.groups[place];
            let number = group.reads.waiting.back().expect("one was just added").number;
            group.raft.read_index(number.to_le_bytes().to_vec());
        }
    }

    /// Lets those look that are confirmed.
    pub(super) fn answer_reads(&mut self) {
        for group in &mut self.groups {
            let ready =
                |it: &mut super::reads::Asked<_>| it.confirmed && it.index <= group.applied.index;
            while let Some(asked) = group.reads.waiting.pop_front_if(ready) {
                for signal in asked.signals {
                    let mut groups = view(&mut self.machines, &self.statuses, self.accepting);
                    self.host.signal(&mut groups, signal);
                }
            }
        }
    }

    /// Gives up what was not confirmed for long.
    pub(super) fn tick_reads(&mut self) {
        for group in &mut self.groups {
            group.reads.waiting.iter_mut().for_each(|asked| asked.ticks += 1);
            let old = |it: &mut Asked<_>| it.ticks > PATIENCE_TICKS;
            while let Some(asked) = group.reads.waiting.pop_front_if(old) {
                for signal in asked.signals {
                    self.host.unread(signal, Refusal::NotLeader);
                }
            }
        }
    }
}
