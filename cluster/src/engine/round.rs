//! When a checkpoint begins, what it collects, and what follows from it.

use std::time::Duration;

use super::group::Group;
use super::{Engine, Now};
use crate::checkpoint::{Job, Report, Task, Worker};
use crate::error::Error;
use crate::host::Host;
use crate::machine::{GroupId, StateMachine};
use crate::members;

/// The checkpoint that is under way, if one is.
pub(super) struct Rounds {
    worker: Worker,
    state: State,
    /// When the last one began, and what the log had written then.
    began: Duration,
    written: u64,
    /// What the log had written when the last one that is stored began.
    stored: u64,
    /// Bytes that the log had before, of which the store lacks some.
    replayed: u64,
    /// Whether the disk had no room for the one that is under way.
    lacks_room: bool,
    /// Whether the log may have entries that are stored.
    compactable: bool,
    /// Whether the next one must not wait.
    hurried: bool,
}

enum State {
    Idle,
    /// The groups from `next` on are still to be asked.
    Collecting {
        next: usize,
        jobs: Vec<Job>,
    },
    Storing,
}

impl Rounds {
    pub(super) fn new(worker: Worker) -> Self {
        Self {
            worker,
            state: State::Idle,
            began: Duration::ZERO,
            written: 0,
            stored: 0,
            replayed: 0,
            lacks_room: false,
            compactable: false,
            hurried: false,
        }
    }

    /// The groups are up; of the log the store lacks some of the first `replayed` bytes.
    pub(super) fn start(&mut self, now: Duration, written: u64, replayed: u64) {
        self.began = now;
        (self.written, self.stored) = (written, written);
        self.replayed = replayed;
    }

    /// Bytes of the log that the next checkpoints bring to the store, at most, when it has written
    /// this many.
    pub(super) fn unstored(&self, written: u64) -> u64 {
        self.replayed + (written - self.stored)
    }

    /// The next checkpoint is due.
    pub(super) fn hurry(&mut self) {
        self.hurried = true;
    }

    /// Whether the disk had no room for the checkpoint that is under way.
    pub(super) fn lacks_room(&self) -> bool {
        self.lacks_room
    }

    /// Who works for the store.
    pub(super) fn worker(&mut self) -> &mut Worker {
        &mut self.worker
    }

    /// Takes a group whose state is replaced out of what is not yet handed over.
    pub(super) fn leave_out(&mut self, group: GroupId) {
        if let State::Collecting { jobs, .. } = &mut self.state {
            jobs.retain(|job| job.group != group);
        }
    }

    pub(super) fn is_collecting(&self) -> bool {
        matches!(self.state, State::Collecting { .. })
    }

    fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle) && !self.compactable
    }
}

impl<M: StateMachine, H: Host<M>> Engine<M, H> {
    /// Takes the next step of a checkpoint.
    pub(super) fn checkpoint(&mut self, now: Now) -> Result<(), Error> {
        while let Some(report) = self.rounds.worker.poll()? {
            self.heard(report, now);
            if self.rounds.lacks_room {
                break;
            }
        }
        self.compact()?;
        if self.rounds.is_idle() && self.is_checkpoint_due(now) {
            self.begin_checkpoint(now);
        }
        self.collect_pairs();
        Ok(())
    }

    fn heard(&mut self, report: Report, now: Now) {
        match report {
            Report::Stored(stored) => {
                for (id, applied) in stored {
                    self.groups[self.places[&id]].stored = applied;
                }
                let rounds = &mut self.rounds;
                let took = now.monotonic.saturating_sub(rounds.began);
                self.pace.stored(rounds.written - rounds.stored, took);
                rounds.state = State::Idle;
                rounds.compactable = true;
                (rounds.stored, rounds.replayed) = (rounds.written, 0);
                rounds.lacks_room = false;
            }
            Report::Captured(group, captured) => self.captured(group, captured),
            Report::Installed => {
                self.rounds.lacks_room = false;
                self.staged_is_stored();
            }
            Report::NoRoom => self.rounds.lacks_room = true,
        }
    }

    /// Begins a checkpoint of everything that is not stored. False if there is nothing, or one is
    /// under way.
    pub fn begin_checkpoint(&mut self, now: Now) -> bool {
        if !self.rounds.is_idle() || self.is_stored() {
            return false;
        }
        self.rounds.hurried = false;
        self.rounds.began = now.monotonic;
        self.rounds.written = self.log.borrow().written();
        self.rounds.state = State::Collecting { next: 0, jobs: Vec::new() };
        true
    }

    /// Whether the store holds all that is applied, and the log needs to keep nothing of it here.
    pub fn is_stored(&self) -> bool {
        let is_stored = |it: &Group<_, _>| it.stored == it.applied && !it.members_changed;
        self.rounds.is_idle() && self.groups.iter().all(is_stored)
    }

    fn is_checkpoint_due(&self, now: Now) -> bool {
        let grown = self.log.borrow().written() - self.rounds.written;
        let rested = now.monotonic.saturating_sub(self.rounds.began);
        // Without room one may help at once: it lets the log shrink.
        let hurries = self.rounds.hurried || self.room.own.is_err();
        let is_time = rested >= self.config.checkpoint_interval || hurries;
        grown >= self.config.checkpoint_bytes || (is_time && self.groups.iter().any(|it| it.dirty))
    }

    /// Asks one group per turn for its changed pairs, so that no turn is long.
    fn collect_pairs(&mut self) {
        let State::Collecting { next, jobs } = &mut self.rounds.state else { return };
        while let Some(group) = self.groups.get_mut(*next) {
            *next += 1;
            let is_collected = group.applied == group.collected && !group.members_changed;
            if is_collected || group.stands_still {
                continue;
            }
            let machine = self.machines.get_mut(&group.id).expect("every group has a machine");
            let mut changes = machine.checkpoint();
            if std::mem::take(&mut group.members_changed) {
                changes.push((members::KEY.to_vec(), Some(group.members.encode())));
            }
            let from = group.collected.index;
            jobs.push(Job { group: group.id, from, to: group.applied, changes });
            group.collected = group.applied;
            group.dirty = false;
            return;
        }
        let jobs = std::mem::take(jobs);
        self.rounds.state = State::Storing;
        self.rounds.worker.begin(Task::Round(jobs));
    }

    /// Tells the log what is stored, so that it can drop it.
    fn compact(&mut self) -> Result<(), Error> {
        if !self.rounds.compactable || self.held.is_some() {
            return Ok(());
        }
        let bytes = self.log.borrow().bytes();
        for (place, group) in self.groups.iter().enumerate() {
            let log = self.log.borrow();
            let mut to = group.stored.index;
            if bytes < self.config.lag_bytes {
                to = to.min(group.last_of_all());
            }
            if bytes < self.config.max_log_bytes / 2 {
                to = to.min(self.kept_for_snapshots(place));
            }
            if to <= log.compacted(group.id.0).0 {
                continue;
            }
            let term = log.term(group.id.0, to).expect("what is stored and not compacted is there");
            drop(log);
            self.batch.compact(group.id.0, to, term);
        }
        if !self.append()? {
            // Only what Raft gave out must be kept; this comes again.
            self.batch.clear();
            return Ok(());
        }
        self.rounds.compactable = false;
        Ok(())
    }
}
