//! What follows from committed entries.

use raft::prelude::Entry;
use storage::store::Applied;

use super::group::{Command, Decided, Group};
use super::{Engine, Now, refuse, refuse_one};
use crate::error::Error;
use crate::host::{Host, Refusal};
use crate::machine::{StateMachine, Unreadable};

impl<R, S> Group<R, S> {
    /// An entry may take the place of another, but never of one that is applied.
    pub(super) fn check_free(&self, index: u64) -> Result<(), Error> {
        if index > self.applied.index {
            return Ok(());
        }
        let reason = format!("entry {index} comes again, applied is {}", self.applied.index);
        Err(Error::Raft { group: self.id, reason })
    }
}

impl<M: StateMachine, H: Host<M>> Engine<M, H> {
    /// Applies committed entries of a group and tells the host.
    pub(super) fn apply(
        &mut self,
        place: usize,
        entries: Vec<Entry>,
        now: Now,
    ) -> Result<(), Error> {
        let Some(last) = entries.last() else { return Ok(()) };
        let to = Applied { index: last.index, term: last.term };
        let group = &mut self.groups[place];
        let id = group.id;
        let machine = self.machines.get_mut(&id).expect("every group has a machine");
        let mut lost = Vec::new();
        for entry in entries {
            let read = || Ok(self.log.borrow().entry(id.0, entry.index)?.data);
            let (commands, proposed_at) = match group.decide(&entry, read, &mut lost)? {
                Decided::Commands { commands, proposed_at } => (commands, proposed_at),
                Decided::Members(change) => {
                    group.change_members(&change);
                    self.roles_changed = true;
                    continue;
                }
            };
            if let Some(at) = proposed_at {
                let until = now.monotonic + self.synced;
                self.metrics.commit_seconds.record(until.saturating_sub(at));
            }
            if !self.started {
                self.replay.step(id, commands.len());
            }
            group.dirty |= !commands.is_empty();
            let mut commands = commands.into_iter();
            while let Some(Command { bytes, reply }) = commands.next() {
                match machine.apply(bytes) {
                    Ok(outcome) => self.host.applied(id, machine, reply, outcome),
                    Err(Unreadable(reason)) => {
                        refuse_one(&mut self.host, reply, Refusal::Stopping);
                        refuse(&mut self.host, commands.chain(lost), Refusal::Stopping);
                        return Err(Error::Entry { group: id, index: entry.index, reason });
                    }
                }
            }
        }
        group.applied = to;
        self.roles_changed |= group.led.is_none();
        self.log.borrow_mut().forget(id.0, to.index);
        refuse(&mut self.host, lost.into_iter(), Refusal::NotLeader);
        Ok(())
    }
}
