//! When a checkpoint begins, what it collects, and what follows from it.

use std::time::Duration;

use super::{Engine, Now};
use crate::checkpoint::{Job, Stored, Worker};
use crate::error::Error;
use crate::host::Host;
use crate::machine::StateMachine;

/// The checkpoint that is under way, if one is.
pub(super) struct Rounds {
    worker: Worker,
    state: State,
    /// When the last one began, and what the log had written then.
    began: Duration,
    written: u64,
    /// Stored, and not yet compacted away in the log.
    compactable: Stored,
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
            compactable: Stored::new(),
        }
    }

    pub(super) fn start(&mut self, now: Duration, written: u64) {
        self.began = now;
        self.written = written;
    }

    pub(super) fn is_collecting(&self) -> bool {
        matches!(self.state, State::Collecting { .. })
    }

    fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle) && self.compactable.is_empty()
    }
}

impl<M: StateMachine, H: Host<M>> Engine<M, H> {
    /// Takes the next step of a checkpoint.
    pub(super) fn checkpoint(&mut self, now: Now) -> Result<(), Error> {
        if let Some(stored) = self.rounds.worker.poll()? {
            self.rounds.state = State::Idle;
            self.rounds.compactable = stored;
        }
        self.compact()?;
        if self.rounds.is_idle() && self.is_checkpoint_due(now) {
            self.begin_checkpoint(now);
        }
        self.collect_pairs();
        Ok(())
    }

    /// Begins a checkpoint of everything that is not stored. False if there is nothing, or one is
    /// under way.
    pub fn begin_checkpoint(&mut self, now: Now) -> bool {
        if !self.rounds.is_idle() || self.is_stored() {
            return false;
        }
        self.rounds.start(now.monotonic, self.log.borrow().written());
        self.rounds.state = State::Collecting { next: 0, jobs: Vec::new() };
        true
    }

    /// Whether the store holds all that is applied, and the log is compacted to there.
    pub fn is_stored(&self) -> bool {
        self.rounds.is_idle() && self.groups.iter().all(|it| it.stored == it.applied)
    }

    fn is_checkpoint_due(&self, now: Now) -> bool {
        let grown = self.log.borrow().written() - self.rounds.written;
        let rested = now.monotonic.saturating_sub(self.rounds.began);
        grown >= self.config.checkpoint_bytes
            || (rested >= self.config.checkpoint_interval && self.groups.iter().any(|it| it.dirty))
    }

    /// Asks one group per turn for its changed pairs, so that no turn is long.
    fn collect_pairs(&mut self) {
        let State::Collecting { next, jobs } = &mut self.rounds.state else { return };
        while let Some(group) = self.groups.get_mut(*next) {
            *next += 1;
            if group.applied == group.collected {
                continue;
            }
            let machine = self.machines.get_mut(&group.id).expect("every group has a machine");
            let changes = machine.checkpoint();
            let from = group.collected.index;
            jobs.push(Job { group: group.id, from, to: group.applied, changes });
            group.collected = group.applied;
            group.dirty = false;
            return;
        }
        let jobs = std::mem::take(jobs);
        self.rounds.state = State::Storing;
        self.rounds.worker.begin(jobs);
    }

    /// Tells the log what is stored, so that it can drop it.
    fn compact(&mut self) -> Result<(), Error> {
        if self.rounds.compactable.is_empty() || self.held.is_some() {
            return Ok(());
        }
        for (id, applied) in &self.rounds.compactable {
            self.batch.compact(id.0, applied.index, applied.term);
        }
        if !self.append()? {
            // Only what Raft gave out must be kept; this comes again.
            self.batch.clear();
            return Ok(());
        }
        for (id, applied) in self.rounds.compactable.drain(..) {
            self.groups[self.places[&id]].stored = applied;
        }
        Ok(())
    }
}
