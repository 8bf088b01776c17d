//! A replica that has lost something it had promised to keep, until it has everything again.
//!
//! It may have voted, and may have acknowledged entries, and know nothing of it. So it is silent: it
//! neither votes nor leads nor acknowledges anything, for its word would count. When it hears a leader
//! it calls for a snapshot that is newer than its call: the leader appends an entry of its own, the
//! fence, and answers with its place. That can only be committed by others. A snapshot of this leader
//! with the fence in it has everything that the replica could have acknowledged, and nobody without
//! the fence can be elected any more, whatever the replica had voted for; the argument is in
//! `docs/adr/0016-a-damaged-replica-is-silent.md`.

use raft::prelude::{Message, MessageType};
use raft::{INVALID_ID, ProgressState};
use storage::log::HardState;
use tracing::{info, warn};

use super::Engine;
use super::group::Group;
use super::leadership::ELECTION_TICKS;
use super::salvage::tell_loss;
use crate::error::Error;
use crate::host::Host;
use crate::machine::StateMachine;
use crate::metrics;
use crate::peers::Letter;

/// Ticks between two complaints that no leader is heard of.
const COMPLAINT_TICKS: usize = 300;

/// What a damaged replica waits for.
pub(super) struct Mending {
    /// No other damage of any life of this node has it.
    number: u64,
    /// Who has answered, in which term, and where its fence is.
    answer: Option<(u64, u64, u64)>,
    /// Ticks since a leader was heard of.
    waited: usize,
}

/// What a leader has promised a damaged replica.
pub(super) struct Fence {
    number: u64,
    /// The entry that a snapshot must have.
    pub(super) index: u64,
}

impl Mending {
    pub(super) fn new(number: u64) -> Self {
        Self { number, answer: None, waited: 0 }
    }

    /// Whether a snapshot is new enough. What is `kept` in the log must say that this replica stands
    /// by the leader: the mark of the damage is gone as soon as the store has the snapshot.
    pub(super) fn is_mended_by(&self, message: &Message, kept: HardState) -> bool {
        self.answer.is_some_and(|(leader, term, index)| {
            (message.from, message.term) == (leader, term)
                && message.get_snapshot().get_metadata().index >= index
                && (kept.term, kept.vote) == (term, leader)
        })
    }
}

impl<R, S> Group<R, S> {
    /// Whether another replica is damaged, as far as this leader knows.
    pub(super) fn is_damaged(&self, node: u64) -> bool {
        let progress = self.raft.raft.prs().get(node);
        let has = |index| progress.is_none_or(|it| it.matched >= index);
        self.fences.get(&node).is_some_and(|fence| !has(fence.index))
    }

    /// Whether voters have a majority of those that are not damaged.
    pub(super) fn decide_without_damaged(&self, voters: &[u64]) -> bool {
        voters.iter().filter(|&&id| !self.is_damaged(id)).count() > voters.len() / 2
    }

    /// A damaged replica calls: gives it a fence, and sends it a snapshot as soon as there is one.
    fn fence(&mut self, to: u64, number: u64) -> Option<Letter> {
        let leads = self.is_leader() && self.led == Some(self.raft.raft.term);
        let raft = &mut self.raft;
        let matched = raft.raft.prs().get(to)?.matched;
        // It may have been deposed by what came just before: then it has nothing to promise.
        if !leads || self.stands_still {
            return None;
        }
        let index = match self.fences.get(&to).filter(|it| it.number == number) {
            // It has called before it was mended.
            Some(fence) if matched >= fence.index => return None,
            Some(fence) => fence.index,
            None => {
                // Refused while it hands over; the replica calls again.
                raft.propose(Vec::new(), Vec::new()).ok()?;
                let index = raft.raft.raft_log.last_index();
                info!(group = %self.id, node = to, index, "a damaged replica is to be mended");
                self.fences.insert(to, Fence { number, index });
                // What is on its way to it is too old.
                let progress = raft.raft.mut_prs().get_mut(to)?;
                progress.snapshot_failure();
                progress.become_probe();
                index
            }
        };
        let progress = raft.raft.mut_prs().get_mut(to)?;
        if progress.state != ProgressState::Snapshot {
            progress.become_probe();
            progress.pending_request_snapshot = index;
            // Nobody else gets a snapshot; but for a quorum it does not count as one that is heard of.
            progress.recent_active = true;
            raft.raft.send_append(to);
            raft.raft.mut_prs().get_mut(to)?.recent_active = false;
        }
        Some(Letter::Fence { number, term: raft.raft.term, index })
    }
}

impl<M: StateMachine, H: Host<M>> Engine<M, H> {
    /// This node finds out while it runs that it has lost something of a group. One that has nobody to
    /// be mended by cannot go on.
    pub(super) fn note_damage(&mut self, place: usize, why: Error) -> Result<(), Error> {
        let number = self.dice.bits().wrapping_add(self.config.incarnation);
        if self.groups[place].is_alone() {
            return Err(why);
        }
        if self.groups[place].mending.is_some() {
            return Ok(());
        }
        // A snapshot that comes in was sent before its leader knew.
        self.forget_staged(place);
        let group = &mut self.groups[place];
        metrics::damage_found("log");
        tell_loss(group.id, &why);
        group.mending = Some(Mending::new(number));
        group.members.damaged = true;
        // With a checkpoint it is stored, at once: a start need not find the same.
        (group.members_changed, group.dirty) = (true, true);
        self.rounds.hurry();
        let term = group.raft.raft.term;
        group.raft.raft.become_follower(term, INVALID_ID);
        self.roles_changed = true;
        Ok(())
    }

    /// Somebody has something for a damaged replica of this node.
    pub(super) fn tell_damaged(&mut self, place: usize, message: Message) {
        let group = &mut self.groups[place];
        let kind = message.get_msg_type();
        let Some(mending) = &group.mending else { return };
        if ![MessageType::MsgAppend, MessageType::MsgHeartbeat].contains(&kind) {
            return;
        }
        if std::mem::take(&mut group.removed) {
            // It has joined again.
            self.roles_changed = true;
        }
        if message.term < group.raft.raft.term {
            // It leads no more, and Raft tells it so.
            let _ = group.raft.step(message);
            return;
        }
        let letter = Letter::Damaged { number: mending.number };
        self.outgoing.add(message.from, group.id, &letter);
    }

    /// A replica of another node is damaged.
    pub(super) fn hear_damaged(&mut self, from: u64, place: usize, number: u64) {
        self.hear_abstaining(from);
        let group = &mut self.groups[place];
        if let Some(letter) = group.fence(from, number) {
            self.outgoing.add(from, group.id, &letter);
        }
    }

    /// The leader has answered a damaged replica of this node: from now on it stands by that leader,
    /// as if it had just voted for it.
    pub(super) fn hear_fence(
        &mut self,
        from: u64,
        place: usize,
        number: u64,
        (term, index): (u64, u64),
    ) {
        let group = &mut self.groups[place];
        let raft = &mut group.raft.raft;
        let mending = group.mending.as_mut().filter(|it| it.number == number);
        let Some(mending) = mending.filter(|_| !group.stands_still && term >= raft.term) else {
            return;
        };
        mending.waited = 0;
        if (raft.term, raft.leader_id) != (term, from) {
            raft.become_follower(term, from);
            self.roles_changed = true;
        }
        raft.vote = from;
        mending.answer = Some((from, term, index));
    }

    /// Takes note of what could not be read, and says now and then that a replica waits in vain.
    pub(super) fn tick_mending(&mut self) -> Result<(), Error> {
        for place in 0..self.groups.len() {
            let unreadable = self.groups[place].raft.store().unreadable.take();
            if let Some(error) = unreadable {
                self.note_damage(place, error.into())?;
            }
        }
        let mut count = 0;
        for place in 0..self.groups.len() {
            let Some(mending) = &mut self.groups[place].mending else { continue };
            count += 1;
            mending.waited += 1;
            let waited = mending.waited;
            if waited % ELECTION_TICKS == 0 {
                self.ask_whether_removed(place);
            }
            if waited % COMPLAINT_TICKS == 0 {
                warn!(
                    group = %self.groups[place].id,
                    "a damaged replica waits for a leader, which the other voters elect without this \
                     node. If most of them are damaged, too, or lost, none will come: see `skein cluster \
                     recover` and `skein cluster restore`"
                );
            }
        }
        self.room.damaged = count > 0;
        self.metrics.damaged_groups.set(f64::from(count));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_snapshot_of_the_leader_behind_its_fence_mends() {
        let kept = HardState { term: 5, vote: 2, commit: 0 };
        let answer = Some((2, 5, 10));
        let cases = [
            ("it is", answer, (2, 5, 10), kept, true),
            ("nobody has answered", None, (2, 5, 10), kept, false),
            ("another sends it", answer, (3, 5, 10), kept, false),
            ("of another term", answer, (2, 6, 10), kept, false),
            ("from before the fence", answer, (2, 5, 9), kept, false),
            ("the term is not safe", answer, (2, 5, 10), HardState { term: 4, ..kept }, false),
            ("the vote is not safe", answer, (2, 5, 10), HardState { vote: 3, ..kept }, false),
        ];
        for (case, answer, (from, term, index), kept, is_mended) in cases {
            let mending = Mending { answer, ..Mending::new(1) };
            let mut message = Message { from, term, ..Message::default() };
            message.mut_snapshot().mut_metadata().index = index;
            assert_eq!(mending.is_mended_by(&message, kept), is_mended, "{case}");
        }
    }
}
