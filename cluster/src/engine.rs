//! The turn of the raft thread, without the thread: a simulation can drive it as well.
//!
//! [`Engine::turn`] takes in what other nodes say, packs what was proposed into one entry per group,
//! makes all groups' entries durable with one sync, applies what is committed, tells other nodes,
//! hands signals to the host and collects checkpoints. It reads no clock and blocks on nothing but
//! the log's sync.
//!
//! Invariant: what a follower answers leaves only after what it answers for is durable.

mod apply;
mod capture;
mod group;
mod install;
mod leadership;
mod members;
mod mending;
mod messages;
mod offer;
mod open;
mod pace;
mod proposals;
mod reads;
mod room;
mod round;
mod salvage;
mod sending;

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use raft::Ready;
use rustc_hash::FxHashMap;
use storage::dice::Dice;
use storage::log::{AppendError, Batch, HardState};
use storage::store::Applied;
use tracing::{debug, info};

use crate::config::Config;
use crate::error::Error;
use crate::host::{GroupsView, Host, Refusal, Room, Status};
use crate::input::{Input, OnFull, Proposal};
use crate::machine::{GroupId, StateMachine};
use crate::members::to_log;
use crate::metrics::{self, RaftMetrics};
use crate::view::SharedLog;
use capture::Capture;
use group::Group;
use install::Staging;
pub(crate) use install::begin_behind;
use messages::Outgoing;
pub use open::Opened;
use open::Progress;
use pace::Pace;
use round::Rounds;
use sending::Sending;

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
    groups: Vec<Group<H::Reply, H::Signal>>,
    /// Where in `groups` a group is.
    places: FxHashMap<GroupId, usize>,
    machines: FxHashMap<GroupId, M>,
    statuses: FxHashMap<GroupId, Status>,
    host: H,
    /// Makes the machine that a snapshot is loaded into.
    factory: Box<dyn FnMut(GroupId) -> M>,
    staging: Option<Staging<M>>,
    sending: Sending,
    outgoing: Outgoing,
    /// Decides how long a group waits for a leader.
    dice: Dice,
    rounds: Rounds,
    capture: Option<Capture>,
    batch: Batch,
    /// What a full disk keeps from being appended: it is tried again each turn.
    held: Option<Vec<(usize, Ready)>>,
    /// What a full disk keeps from being proposed and must not be refused, in order. See
    /// [`OnFull::Wait`] for why it ends.
    waiting: VecDeque<Proposal<H::Reply>>,
    next_tick: Duration,
    next_raft_tick: Duration,
    next_look: Duration,
    /// Bytes the disk had when it was last asked.
    free: u64,
    room: Room,
    started: bool,
    /// Whether a group may have another leader, term or members than its status says.
    roles_changed: bool,
    /// What the log's syncs have taken of this turn: nothing else in it takes long.
    synced: Duration,
    replay: Progress,
    pace: Pace,
    metrics: RaftMetrics,
}

impl<M: StateMachine, H: Host<M>> Engine<M, H> {
    /// Takes one turn: everything in the input is taken out of it.
    pub fn turn(&mut self, input: &mut Input<H::Reply, H::Signal>, now: Now) -> Result<(), Error> {
        self.synced = Duration::ZERO;
        if !self.started {
            return self.turn_unstarted(now);
        }
        self.look(now);
        self.show_staged()?;
        self.receive(&mut input.messages)?;
        self.tick_groups(now)?;
        self.note_lost();
        if now.monotonic >= self.next_tick {
            self.next_tick = now.monotonic + self.config.tick;
            let mut groups = view(&mut self.machines, &self.statuses, &self.room);
            let commands = self.host.ticked(&mut groups, now.unix_ms);
            for (group, command) in commands {
                // Named again at each tick, so it need not wait.
                let on_full = OnFull::Refuse;
                input.proposals.push(Proposal { group, command, reply: None, on_full });
            }
        }
        self.propose(&mut input.proposals, now)?;
        if self.held.is_none() {
            self.hand_on();
        }
        self.obey(&mut input.orders);
        self.begin_captures(&mut input.captures);
        self.ask_reads(&mut input.reads);
        self.settle(now)?;
        self.note_led();
        // After the commands that came with them, so that a look at the state sees what was
        // proposed before it.
        for signal in input.signals.drain(..) {
            self.host.signal(&mut view(&mut self.machines, &self.statuses, &self.room), signal);
        }
        self.answer_reads();
        self.checkpoint(now)?;
        self.host.turn_ended();
        self.outgoing.hand_over();
        Ok(())
    }

    /// Whether there is more to do even if nothing arrives.
    pub fn is_busy(&self) -> bool {
        !self.started
            || self.rounds.is_collecting()
            || self.is_installing()
            || self.held.is_none() && self.groups.iter().any(Group::has_more)
    }

    /// Whether proposals may be taken: not while the log has outgrown its bound.
    pub fn is_accepting(&self) -> bool {
        self.started && self.log.borrow().bytes() < self.config.max_log_bytes
    }

    /// How many bytes of commands the next turn may take, so that the state store keeps up with the
    /// log; 0 for none.
    pub fn allowance(&mut self, now: Now) -> usize {
        if !self.started {
            return 0;
        }
        self.pace.allowance(now.monotonic, self.log.borrow().bytes(), self.config.max_log_bytes)
    }

    /// The next turn takes so many bytes of commands.
    pub fn taken(&mut self, bytes: usize) {
        self.pace.taken(bytes);
    }

    /// Whether something that was proposed here is not applied.
    pub fn has_proposals(&self) -> bool {
        self.groups.iter().any(|group| !group.proposals.is_empty())
    }

    /// When the next turn is due if nothing arrives.
    pub fn next_turn(&self) -> Duration {
        self.next_tick.min(self.next_raft_tick)
    }

    /// Whether state is loaded and the log replayed as far as it is known to be committed.
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

    /// How a group stands.
    pub fn status(&self, group: GroupId) -> Option<Status> {
        Some(self.groups[*self.places.get(&group)?].status())
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
            refuse(&mut self.host, group.proposals.give_up(), Refusal::Stopping);
            group.reads.give_up().for_each(|read| self.host.unread(read, Refusal::Stopping));
        }
        for proposal in self.waiting.drain(..) {
            refuse(&mut self.host, proposal.reply, Refusal::Stopping);
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
        self.groups.iter().try_for_each(Group::check_life)?;
        self.stand_alone()?;
        self.settle(now)?;
        if self.held.is_none() && self.groups.iter().all(Group::is_caught_up) {
            self.started = true;
            self.next_tick = now.monotonic;
            let log = self.log.borrow();
            let replayed = if self.groups.iter().any(|it| it.dirty) { log.bytes() } else { 0 };
            self.rounds.start(now.monotonic, log.written(), replayed);
            drop(log);
            self.look(now);
            info!(groups = self.groups.len(), "groups are up");
            self.host.started(&mut view(&mut self.machines, &self.statuses, &self.room));
            self.note_led();
        }
        self.host.turn_ended();
        self.outgoing.hand_over();
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
            for (place, mut ready) in readies {
                if !ready.snapshot().is_empty() {
                    self.install(place, ready.snapshot())?;
                }
                self.dispatch(place, ready.take_persisted_messages());
                let mut light = self.groups[place].raft.advance_append(ready);
                self.dispatch(place, light.take_messages());
                self.apply(place, light.take_committed_entries(), now)?;
                let group = &mut self.groups[place];
                // Only now: Raft may append to its log when it hears of it.
                group.raft.advance_apply_to(group.applied.index);
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
            self.roles_changed |= ready.ss().is_some();
            let id = self.groups[place].id;
            self.dispatch(place, ready.take_messages());
            self.apply(place, ready.take_committed_entries(), now)?;
            self.groups[place].reads.confirm(ready.take_read_states());
            let entries = ready.take_entries();
            // A new commit index alone is worth no sync; entries take it along. They must: who has an
            // entry of new members and forgets that those are in force would elect with the old ones.
            let alone = self.groups[place].is_alone();
            if ready.must_sync() && (ready.hs().is_some() || !alone) {
                let HardStateOf(state) = (&self.groups[place].raft.raft.hard_state()).into();
                self.batch.hard_state(id.0, state);
            }
            if !ready.snapshot().is_empty() {
                let metadata = ready.snapshot().get_metadata();
                let end = Applied { index: metadata.index, term: metadata.term };
                install::begin_behind(&mut self.batch, &self.log.borrow(), id, end);
            }
            count += entries.len();
            for mut entry in entries {
                self.groups[place].check_free(entry.index)?;
                let data = to_log(&mut entry);
                self.batch.entry(id.0, entry.index, entry.term, data);
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
        // What a leader says may leave before its own sync, so that followers sync at the same time.
        self.outgoing.hand_over();
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
}

fn view<'a, M>(
    machines: &'a mut FxHashMap<GroupId, M>,
    statuses: &'a FxHashMap<GroupId, Status>,
    room: &'a Room,
) -> GroupsView<'a, M> {
    GroupsView { machines, statuses, room }
}

fn refuse<M: StateMachine, H: Host<M>>(
    host: &mut H,
    replies: impl IntoIterator<Item = H::Reply>,
    why: Refusal,
) {
    for reply in replies {
        metrics::refused(why, 1);
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
