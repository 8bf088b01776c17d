//! What comes from other nodes, and what goes to them.

use std::collections::BTreeMap;

use raft::prelude::{Message, MessageType};
use tracing::{debug, warn};

use super::Engine;
use super::group::Group;
use crate::error::Error;
use crate::host::Host;
use crate::input::OnFull;
use crate::machine::{GroupId, StateMachine};
use crate::metrics;
use crate::peers::{Letter, PeerMessage, Peers};

/// What is on its way to other nodes: handed over once per node at the end of a turn, and once
/// before its sync, so that followers need not wait for that.
pub(super) struct Outgoing {
    peers: Box<dyn Peers>,
    /// In order of nodes, so that a seed gives one history.
    batches: BTreeMap<u64, Vec<(GroupId, Vec<u8>)>>,
}

impl Outgoing {
    pub(super) fn new(peers: impl Peers) -> Self {
        Self { peers: Box::new(peers), batches: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, to: u64, group: GroupId, letter: &Letter) {
        self.batches.entry(to).or_default().push((group, letter.encode()));
    }

    pub(super) fn hand_over(&mut self) {
        for (&to, batch) in &mut self.batches {
            if !batch.is_empty() {
                self.peers.send(to, std::mem::take(batch));
            }
        }
    }
}

impl<R, S> Group<R, S> {
    /// Whether a leader shows other entries than those that are committed here. Raft rules that out as
    /// long as no voter forgets; the library would take the entries of one side for those of the other.
    fn contradicted_by(&self, message: &Message) -> Option<Error> {
        let raft = &self.raft.raft;
        if message.term < raft.term {
            return None;
        }
        let snapshot = message.get_snapshot().get_metadata();
        let shown = match message.get_msg_type() {
            MessageType::MsgAppend => (message.index, message.log_term),
            MessageType::MsgSnapshot => (snapshot.index, snapshot.term),
            _ => return None,
        };
        let log = &raft.raft_log;
        if shown.0 > log.committed {
            return None;
        }
        // Of entries that are compacted it is known that their terms are no later.
        let compacted = log.first_index() - 1;
        let compacted_term = log.term(compacted).ok()?;
        let entries = message.entries.iter().map(|entry| (entry.index, entry.term));
        let shown = std::iter::once(shown).chain(entries);
        let committed = shown.take_while(|it| it.0 <= log.committed);
        let mut terms = committed.filter_map(|(index, there)| {
            let here = if index < compacted { compacted_term } else { log.term(index).ok()? };
            let differs = if index < compacted { there > here } else { there != here };
            differs.then_some((index, here, there))
        });
        let (index, here, there) = terms.next()?;
        Some(Error::Contradicted { group: self.id, index, here, leader: message.from, there })
    }
}

impl<M: StateMachine, H: Host<M>> Engine<M, H> {
    /// Puts what a group's Raft has to say on its way.
    pub(super) fn dispatch(&mut self, place: usize, messages: Vec<Message>) {
        for message in messages {
            if message.get_msg_type() == MessageType::MsgSnapshot {
                self.send_snapshot(place, &message);
            } else {
                self.outgoing.add(message.to, self.groups[place].id, &Letter::Raft(message));
            }
        }
    }

    /// Takes in what other nodes say.
    pub(super) fn receive(&mut self, messages: &mut Vec<PeerMessage>) -> Result<(), Error> {
        if messages.is_empty() {
            return Ok(());
        }
        if self.held.is_some() {
            // Raft must not move before what it gave out is durable; others will say it again.
            messages.clear();
            return Ok(());
        }
        self.roles_changed = true;
        let bytes = messages.iter().map(|message| message.message.len()).sum();
        let room = self.has_room(bytes, OnFull::Wait)?;
        for PeerMessage { from, group, message } in messages.drain(..) {
            let Some(&place) = self.places.get(&group) else {
                debug!(from, %group, "a message for a group that is not here");
                continue;
            };
            match Letter::decode(&message) {
                Ok(Letter::Raft(message)) if message.from == from => {
                    if room || message.entries.is_empty() {
                        self.step(place, message)?;
                    } else {
                        self.groups[place].starves = true;
                        metrics::messages_dropped();
                    }
                }
                Ok(Letter::Raft(message)) => {
                    warn!(from, claims = message.from, "a message in another node's name");
                }
                Ok(Letter::Chunk(chunk)) => self.take_chunk(from, place, chunk)?,
                Ok(Letter::Taken { snapshot, taken }) => {
                    self.snapshot_taken(from, place, snapshot, taken);
                }
                Ok(Letter::Asking { applied }) => self.tell_member(from, place, applied),
                Ok(Letter::Removed { applied }) => self.hear_removed(place, applied),
                Ok(Letter::Proposing(run)) if run.source.map(|it| it.node) != Some(from) => {
                    warn!(from, "commands in another node's name");
                }
                Ok(Letter::Proposing(run)) if room => self.groups[place].take_foreign(run),
                // It will be offered again.
                Ok(Letter::Proposing(_)) => metrics::messages_dropped(),
                Ok(Letter::Damaged { number }) if room => self.hear_damaged(from, place, number),
                // It will be said again.
                Ok(Letter::Damaged { .. }) => metrics::messages_dropped(),
                Ok(Letter::Fence { number, term, index }) => {
                    self.hear_fence(from, place, number, (term, index));
                }
                Ok(Letter::Abstaining) => self.hear_abstaining(from),
                Ok(Letter::Looking { number }) => self.hear_looking(from, place, number),
                Ok(Letter::LookAt { number, index }) => self.hear_look_at(place, number, index),
                Ok(Letter::Unfounded) => self.groups[place].owe_snapshot(from),
                Err(error) => warn!(from, %group, %error, "a message that cannot be read"),
            }
        }
        Ok(())
    }

    pub(super) fn step(&mut self, place: usize, message: Message) -> Result<(), Error> {
        let group = &mut self.groups[place];
        let forwarded = [MessageType::MsgPropose, MessageType::MsgReadIndex];
        // Nobody hands these on; see `Group::propose`.
        if forwarded.contains(&message.get_msg_type()) || group.stands_still {
            return Ok(());
        }
        if group.mending.is_some() {
            self.tell_damaged(place, message);
            return Ok(());
        }
        let shall_lead = message.get_msg_type() == MessageType::MsgTimeoutNow;
        if shall_lead && (group.removed || self.room.abstains()) {
            return Ok(());
        }
        if !group.members.are_founded() && message.get_msg_type() != MessageType::MsgHeartbeat {
            if message.get_msg_type() == MessageType::MsgAppend {
                self.outgoing.add(message.from, group.id, &Letter::Unfounded);
            }
            return Ok(());
        }
        if group.removed
            && [MessageType::MsgAppend, MessageType::MsgHeartbeat].contains(&message.get_msg_type())
        {
            // It has joined again.
            group.removed = false;
            self.roles_changed = true;
        }
        // A leader tells of no more than what this node has said it has.
        let last = group.raft.raft.raft_log.last_index();
        if message.get_msg_type() == MessageType::MsgHeartbeat
            && message.commit > last
            && message.term >= group.raft.raft.term
        {
            let forgotten = Error::Forgotten { group: group.id, last, known: message.commit };
            return self.note_damage(place, forgotten);
        }
        if let Some(contradicted) = group.contradicted_by(&message) {
            return Err(contradicted);
        }
        let (from, kind, behind) = (message.from, message.get_msg_type(), message.index);
        if let Err(error) = group.raft.step(message) {
            debug!(group = %group.id, %error, "a message is not taken");
        }
        let is_of_leader = [MessageType::MsgAppend, MessageType::MsgHeartbeat].contains(&kind)
            && group.raft.raft.leader_id == from;
        if kind == MessageType::MsgAppend && group.raft.raft.raft_log.last_index() >= behind {
            group.starves = false;
        }
        if is_of_leader && !group.starves {
            group.leaderless_ticks = 0;
        }
        Ok(())
    }
}
