//! What comes in on its way to the groups, and what a full disk does to it.

use super::proposals::Command;
use super::{Engine, Now, refuse};
use crate::error::Error;
use crate::host::{Host, Refusal};
use crate::input::{OnFull, Proposal};
use crate::machine::StateMachine;
use crate::peers::Letter;

/// Bytes after which a turn appends no more groups' commands: the rest is for the next.
const TURN_BYTES: usize = 256 << 20;

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
                OnFull::Refuse => refuse(&mut self.host, proposal.reply, Refusal::DiskFull),
                OnFull::Wait | OnFull::Follow => self.waiting.push_back(proposal),
            }
        }
        if !waited {
            self.propose_waiting(now)?;
        }
        self.hand_on_waiting(now);
        Ok(())
    }

    /// Of what waits, other nodes get what is for groups that they lead: they may have room.
    fn hand_on_waiting(&mut self, now: Now) {
        let is_led_elsewhere = |group| {
            let place = self.places.get(&group);
            place.is_some_and(|&place| self.groups[place].is_led_elsewhere())
        };
        if self.held.is_some() || !self.waiting.iter().any(|it| is_led_elsewhere(it.group)) {
            return;
        }
        let (there, here): (Vec<_>, Vec<_>) =
            self.waiting.drain(..).partition(|it| is_led_elsewhere(it.group));
        self.waiting = here.into();
        self.offer(there.into_iter(), now);
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

    /// Gives proposals to their groups, which hand them on.
    fn offer(&mut self, proposals: impl ExactSizeIterator<Item = Proposal<H::Reply>>, now: Now) {
        let count = proposals.len() as u64;
        if count > 0 {
            self.metrics.commands_per_batch.record(count as f64);
        }
        let mut refused = 0;
        for Proposal { group, command, reply, on_full } in proposals {
            let group = self.places.get(&group).map(|&place| &mut self.groups[place]);
            let Some(group) = group else {
                refused += 1;
                refuse(&mut self.host, reply, Refusal::UnknownGroup);
                continue;
            };
            let why = match on_full {
                OnFull::Refuse if group.is_given_up() => Some(Refusal::NoLeader),
                OnFull::Refuse if group.proposals.bytes() > self.config.inbox_bytes => {
                    Some(Refusal::Busy)
                }
                _ => None,
            };
            match why {
                Some(why) => {
                    refused += 1;
                    refuse(&mut self.host, reply, why);
                }
                None => {
                    let owed = on_full != OnFull::Refuse;
                    let command = Command { bytes: command, reply, owed, at: now.monotonic };
                    group.proposals.add(command);
                }
            }
        }
        self.metrics.accepted.increment(count - refused);
    }

    /// Appends what is proposed to the groups that this node leads, and hands the leaders of the
    /// others what is for them.
    pub(super) fn hand_on(&mut self) {
        let mut room = TURN_BYTES;
        for group in &mut self.groups {
            if room > 0 {
                let bytes = group.append(self.config.max_command_bytes);
                room = room.saturating_sub(bytes);
            }
            if let Some((leader, run)) = group.offer_leader() {
                self.outgoing.add(leader, group.id, &Letter::Proposing(run));
            }
        }
    }
}
