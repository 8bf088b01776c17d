//! What follows from committed entries.

use raft::prelude::Entry;
use storage::store::Applied;

use super::group::{Decided, Group};
use super::{Engine, Now, refuse};
use crate::error::Error;
use crate::host::{Host, Refusal};
use crate::machine::{StateMachine, Unreadable};
use crate::pack::Run;
use crate::sources::Source;

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
        if entries.is_empty() || self.groups[place].mending.is_some() {
            return Ok(());
        }
        for entry in entries {
            let group = &mut self.groups[place];
            let id = group.id;
            let read = || Ok(self.log.borrow().entry(id.0, entry.index)?.data);
            let decided = match group.decide(&entry, read) {
                Err(error @ Error::Read(_)) => {
                    self.note_damage(place, error)?;
                    break;
                }
                decided => decided?,
            };
            match decided {
                Decided::Commands(runs) => {
                    for run in runs {
                        self.apply_run(place, entry.index, run, now)?;
                    }
                }
                Decided::Members(_) if entry.index <= group.members.void_until => {}
                Decided::Members(change) => {
                    group.change_members(&change);
                    group.reconfigured = entry.index;
                    self.roles_changed = true;
                }
            }
            let applied = Applied { index: entry.index, term: entry.term };
            self.groups[place].applied = applied;
        }
        let group = &mut self.groups[place];
        self.roles_changed |= group.led.is_none();
        self.log.borrow_mut().forget(group.id.0, group.applied.index);
        Ok(())
    }

    fn apply_run(&mut self, place: usize, index: u64, run: Run, now: Now) -> Result<(), Error> {
        let group = &mut self.groups[place];
        let id = group.id;
        let machine = self.machines.get_mut(&id).expect("every group has a machine");
        if !self.started {
            self.replay.step(id, run.commands.len());
        }
        group.dirty = true;
        group.members_changed |= run.source.is_some();
        let own = group.proposals.source();
        let is_own = run.source == Some(own);
        let outlives = |it: &Source| it.node == own.node && it.incarnation > own.incarnation;
        if let Some(Source { node, incarnation: life }) = run.source.filter(outlives) {
            return Err(Error::Outlived { group: id, node, life });
        }
        for (number, bytes) in (run.first..).zip(run.commands) {
            if run.source.is_some_and(|source| !group.members.sources.admit(source, number)) {
                continue;
            }
            let own = if is_own {
                let doubled = Error::Doubled { group: id, node: self.config.node };
                Some(group.proposals.applied(number).ok_or(doubled)?)
            } else {
                None
            };
            if let Some(command) = &own {
                let until = now.monotonic + self.synced;
                self.metrics.commit_seconds.record(until.saturating_sub(command.at));
            }
            let reply = own.and_then(|command| command.reply);
            match machine.apply(bytes) {
                Ok(outcome) => self.host.applied(id, machine, reply, outcome),
                Err(Unreadable(reason)) => {
                    refuse(&mut self.host, reply, Refusal::Stopping);
                    return Err(Error::Entry { group: id, index, reason });
                }
            }
        }
        Ok(())
    }
}
