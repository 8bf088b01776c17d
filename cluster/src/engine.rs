//! The turn of the raft thread, without the thread: a simulation can drive it as well.
//!
//! [`Engine::turn`] hands signals to the host, packs what was proposed into one entry per group,
//! makes all groups' entries durable with one sync, applies what is committed and collects
//! checkpoints. It reads no clock and blocks on nothing but the log's sync.

mod group;
mod offer;
mod open;
mod room;
mod round;

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use raft::Ready;
use raft::prelude::Entry;
use rustc_hash::FxHashMap;
use storage::log::{AppendError, Batch, HardState};
use storage::store::Applied;
use tracing::{debug, info};

use crate::config::Config;
use crate::error::Error;
use crate::groups::{OnFull, Proposal};
use crate::host::{Blocked, GroupsView, Host, Refusal};
use crate::machine::{GroupId, StateMachine, Unreadable};
use crate::metrics::{self, RaftMetrics};
use crate::view::SharedLog;
use group::{Command, Group};
pub use open::Opened;
use open::Progress;
use round::Rounds;

/// The time of a turn, read by whoever drives it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// Since some fixed moment; never goes back.
    pub monotonic: Duration,
    /// Wall clock, in milliseconds since 1970.
    pub unix_ms: u64,
}

/// All groups of a node.
pub struct Engine<M: StateMachine, H: Host<M>> {
    config: Config,
    log: SharedLog,
    groups: Vec<Group<H::Reply>>,
    /// Where in `groups` a group is.
    places: FxHashMap<GroupId, usize>,
    machines: FxHashMap<GroupId, M>,
    leaders: FxHashMap<GroupId, bool>,
    host: H,
    rounds: Rounds,
    batch: Batch,
    /// What a full disk keeps from being appended: it is tried again each turn.
    held: Option<Vec<(usize, Ready)>>,
    /// What a full disk keeps from being proposed and must not be refused, in order. See
    /// [`OnFull::Wait`] for why it ends.
    waiting: VecDeque<Proposal<H::Reply>>,
    next_tick: Duration,
    next_look: Duration,
    /// Bytes the disk had when it was last asked.
    free: u64,
    /// What the last look at the disk and the log has found.
    accepting: Result<(), Blocked>,
    started: bool,
    /// What the log's syncs have taken of this turn: nothing else in it takes long.
    synced: Duration,
    replay: Progress,
    metrics: RaftMetrics,
}

impl<M: StateMachine, H: Host<M>> Engine<M, H> {
    /// Takes one turn: everything in the two vectors is taken out of them.
    pub fn turn(
        &mut self,
        proposals: &mut Vec<Proposal<H::Reply>>,
        signals: &mut Vec<H::Signal>,
        now: Now,
    ) -> Result<(), Error> {
        self.synced = Duration::ZERO;
        if !self.started {
            return self.turn_unstarted(now);
        }
        self.look(now);
        if now.monotonic >= self.next_tick {
            self.next_tick = now.monotonic + self.config.tick;
            let mut groups = view(&mut self.machines, &self.leaders, self.accepting);
            let commands = self.host.ticked(&mut groups, now.unix_ms);
            for (group, command) in commands {
                // Named again at each tick, so it need not wait.
                let on_full = OnFull::Refuse;
                proposals.push(Proposal { group, command, reply: None, on_full });
            }
        }
        self.propose(proposals, now)?;
        self.settle(now)?;
        // After the commands that came with them, so that a look at the state sees what was
        // proposed before it.
        for signal in signals.drain(..) {
            self.host.signal(&mut view(&mut self.machines, &self.leaders, self.accepting), signal);
        }
        self.checkpoint(now)?;
        self.host.turn_ended();
        Ok(())
    }

    /// Whether there is more to do even if nothing arrives.
    pub fn is_busy(&self) -> bool {
        !self.started || self.rounds.is_collecting()
    }

    /// Whether proposals may be taken: not while the log has outgrown its bound.
    pub fn is_accepting(&self) -> bool {
        self.started && self.log.borrow().bytes() < self.config.max_log_bytes
    }

    /// When the next turn is due if nothing arrives.
    pub fn next_turn(&self) -> Duration {
        self.next_tick
    }

    /// Whether state is loaded and the log replayed.
    pub fn is_started(&self) -> bool {
        self.started
    }

    /// The host.
    pub fn host(&mut self) -> &mut H {
        &mut self.host
    }

    /// The machine of a group.
    pub fn machine(&self, group: GroupId) -> Option<&M> {
        self.machines.get(&group)
    }

    /// Bytes the log takes on disk.
    pub fn log_bytes(&self) -> u64 {
        self.log.borrow().bytes()
    }

    /// Notes that there is nothing to do.
    pub fn idle(&mut self) {
        if self.held.is_none() {
            self.log.borrow_mut().mark();
        }
    }

    /// Ends the groups: refuses everything that is not decided, closes the log in good order if all
    /// went well, and tells the host.
    pub fn end(mut self, result: Result<(), Error>) -> Result<(), Error> {
        for group in &mut self.groups {
            refuse(&mut self.host, group.undecided(), Refusal::Stopping);
        }
        for proposal in self.waiting.drain(..) {
            refuse_one(&mut self.host, proposal.reply, Refusal::Stopping);
        }
        self.host.turn_ended();
        let Self { log, groups, mut host, .. } = self;
        drop(groups);
        let log = Rc::into_inner(log).expect("only the groups share the log").into_inner();
        let result = result.and_then(|()| Ok(log.seal()?));
        host.stopped(result.as_ref().err());
        result
    }

    fn turn_unstarted(&mut self, now: Now) -> Result<(), Error> {
        self.settle(now)?;
        if self.held.is_none() && self.groups.iter().all(|it| it.leads() && it.is_caught_up()) {
            self.started = true;
            self.next_tick = now.monotonic;
            let log = self.log.borrow();
            let replayed = if self.groups.iter().any(|it| it.dirty) { log.bytes() } else { 0 };
            self.rounds.start(now.monotonic, log.written(), replayed);
            drop(log);
            self.look(now);
            info!(groups = self.groups.len(), "groups are up");
            self.host.started(&mut view(&mut self.machines, &self.leaders, self.accepting));
        }
        self.host.turn_ended();
        Ok(())
    }

    /// Makes durable and applies until no group has anything ready.
    fn settle(&mut self, now: Now) -> Result<(), Error> {
        loop {
            let readies = match self.held.take() {
                Some(held) => held,
                None => self.collect(now)?,
            };
            if readies.is_empty() && self.batch.is_empty() {
                return Ok(());
            }
            if !self.append()? {
                self.held = Some(readies);
                return Ok(());
            }
            for (place, ready) in readies {
                let mut light = self.groups[place].raft.advance_append(ready);
                self.apply(place, light.take_committed_entries(), now)?;
                let group = &mut self.groups[place];
                if let Some(leads) = self.leaders.get_mut(&group.id) {
                    *leads = group.leads();
                }
            }
        }
    }

    /// Puts what every group has ready into the batch.
    fn collect(&mut self, now: Now) -> Result<Vec<(usize, Ready)>, Error> {
        let (mut readies, mut count) = (Vec::new(), 0);
        for place in 0..self.groups.len() {
            if !self.groups[place].raft.has_ready() {
                continue;
            }
            let mut ready = self.groups[place].raft.ready();
            self.apply(place, ready.take_committed_entries(), now)?;
            let id = self.groups[place].id;
            let entries = ready.take_entries();
            if let Some(state) = ready.hs() {
                // A new commit index alone is worth no sync; the next entries take it along.
                if ready.must_sync() {
                    let HardStateOf(state) = state.into();
                    self.batch.hard_state(id.0, state);
                }
            }
            count += entries.len();
            for entry in entries {
                self.batch.entry(id.0, entry.index, entry.term, entry.data);
            }
            readies.push((place, ready));
        }
        if count > 0 {
            self.metrics.entries_per_batch.record(count as f64);
        }
        Ok(readies)
    }

    /// Makes the batch durable. False if the disk is full; the batch is kept.
    fn append(&mut self) -> Result<bool, Error> {
        if self.batch.is_empty() {
            return Ok(true);
        }
        let mut log = self.log.borrow_mut();
        match log.append(&mut self.batch) {
            Ok(appended) => {
                self.synced += appended.sync;
                self.metrics.fsync_seconds.record(appended.sync);
                self.metrics.written_bytes.increment(appended.bytes);
                self.metrics.log_bytes.set(log.bytes() as f64);
                Ok(true)
            }
            Err(AppendError::Full(error)) => {
                debug!(%error, "the disk is full, the log waits");
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Applies committed entries of a group and tells the host.
    fn apply(&mut self, place: usize, entries: Vec<Entry>, now: Now) -> Result<(), Error> {
        let Some(last) = entries.last() else { return Ok(()) };
        let to = Applied { index: last.index, term: last.term };
        let group = &mut self.groups[place];
        let id = group.id;
        let machine = self.machines.get_mut(&id).expect("every group has a machine");
        let mut lost = Vec::new();
        for entry in entries {
            let read = || Ok(self.log.borrow().entry(id.0, entry.index)?.data);
            let decided = group.decide(&entry, read, &mut lost)?;
            if let Some(at) = decided.proposed_at {
                let until = now.monotonic + self.synced;
                self.metrics.commit_seconds.record(until.saturating_sub(at));
            }
            if !self.started {
                self.replay.step(id, decided.commands.len());
            }
            group.dirty |= !decided.commands.is_empty();
            let mut commands = decided.commands.into_iter();
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
        group.raft.advance_apply_to(to.index);
        self.log.borrow_mut().forget(id.0, to.index);
        refuse(&mut self.host, lost.into_iter(), Refusal::NotLeader);
        Ok(())
    }
}

fn view<'a, M>(
    machines: &'a mut FxHashMap<GroupId, M>,
    leaders: &'a FxHashMap<GroupId, bool>,
    accepting: Result<(), Blocked>,
) -> GroupsView<'a, M> {
    GroupsView { machines, leaders, accepting }
}

fn refuse<M: StateMachine, H: Host<M>>(
    host: &mut H,
    commands: impl Iterator<Item = Command<H::Reply>>,
    why: Refusal,
) {
    commands.for_each(|command| refuse_one(host, command.reply, why));
}

fn refuse_one<M: StateMachine, H: Host<M>>(host: &mut H, reply: Option<H::Reply>, why: Refusal) {
    metrics::refused(why, 1);
    if let Some(reply) = reply {
        host.refused(reply, why);
    }
}

/// Raft's hard state as the log wants it.
struct HardStateOf(HardState);

impl From<&raft::prelude::HardState> for HardStateOf {
    fn from(state: &raft::prelude::HardState) -> Self {
        Self(HardState { term: state.term, vote: state.vote, commit: state.commit })
    }
}
