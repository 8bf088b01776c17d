//! What comes in on its way to the groups, and what a full disk does to it.

use super::group::Command;
use super::{Engine, Now, refuse, refuse_one};
use crate::error::Error;
use crate::host::{Host, Refusal};
use crate::input::{OnFull, Proposal};
use crate::machine::StateMachine;

/// Bytes a proposal takes in the log, about.
fn bytes_of<R>(proposal: &Proposal<R>) -> usize {
    16 + proposal.command.len()
}

impl<M: StateMachine, H: Host<M>> Engine<M, H> {
    /// Proposes what came in, after what waited. Without room for all of it, it refuses what may be
    /// refused and keeps the rest.
    pub(super) fn propose(
        &mut self,
        proposals: &mut Vec<Proposal<H::Reply>>,
        now: Now,
    ) -> Result<(), Error> {
        let waited = !self.waiting.is_empty();
        let room = self.has_room_for(proposals, now).inspect_err(|_| {
            // The end of the engine answers them.
            self.waiting.extend(proposals.drain(..));
        })?;
        if room {
            self.offer(proposals.drain(..), now);
            return Ok(());
        }
        for proposal in proposals.drain(..) {
            match proposal.on_full {
                OnFull::Refuse => refuse_one(&mut self.host, proposal.reply, Refusal::DiskFull),
                OnFull::Wait | OnFull::Follow => self.waiting.push_back(proposal),
            }
        }
        if !waited {
            self.propose_waiting(now)?;
        }
        Ok(())
    }

    /// Whether these may be proposed now; what waited goes before them.
    fn has_room_for(&mut self, proposals: &[Proposal<H::Reply>], now: Now) -> Result<bool, Error> {
        let before = self.propose_waiting(now)?;
        if proposals.is_empty() || !self.waiting.is_empty() {
            return Ok(false);
        }
        self.has_room(before + proposals.iter().map(bytes_of).sum::<usize>(), OnFull::Refuse)
    }

    /// Proposes the first of what waits if there is room again; gives its bytes. One piece a turn,
    /// so that what has gathered makes no endless batch.
    fn propose_waiting(&mut self, now: Now) -> Result<usize, Error> {
        if self.waiting.is_empty() || !self.is_accepting() {
            return Ok(0);
        }
        let (mut count, mut bytes) = (0, 0);
        for proposal in &self.waiting {
            let more = bytes + bytes_of(proposal);
            let may_part = count > 0 && proposal.on_full != OnFull::Follow;
            if may_part && more > self.config.max_command_bytes {
                break;
            }
            (count, bytes) = (count + 1, more);
        }
        if !self.has_room(bytes, OnFull::Wait)? {
            return Ok(0);
        }
        let mut waiting = std::mem::take(&mut self.waiting);
        self.offer(waiting.drain(..count), now);
        self.waiting = waiting;
        Ok(bytes)
    }

    /// Gives proposals to their groups.
    fn offer(&mut self, proposals: impl ExactSizeIterator<Item = Proposal<H::Reply>>, now: Now) {
        let count = proposals.len();
        self.metrics.commands_per_batch.record(count as f64);
        let mut unknown = 0;
        for Proposal { group, command, reply, .. } in proposals {
            match self.places.get(&group) {
                Some(&place) => self.groups[place].incoming.push(Command { bytes: command, reply }),
                None => {
                    unknown += 1;
                    refuse_one(&mut self.host, reply, Refusal::UnknownGroup);
                }
            }
        }
        self.metrics.accepted.increment(count as u64 - unknown);
        for group in &mut self.groups {
            if !group.incoming.is_empty() {
                let (entry, undecided) = (self.config.max_command_bytes, self.config.inbox_bytes);
                let (back, why) = group.propose(entry, undecided, now.monotonic);
                refuse(&mut self.host, back.into_iter(), why);
            }
        }
    }
}
