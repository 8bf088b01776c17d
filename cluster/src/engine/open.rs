//! From what is on disk to running groups.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use raft::RawNode;
use rustc_hash::FxHashMap;
use storage::dice::Dice;
use storage::disk::Disk;
use storage::log::{Batch, Log};
use storage::store::{Applied, Store, StoreError};
use tracing::{info, warn};

use super::group::Group;
use super::install::begin_behind;
use super::leadership::{ELECTION_TICKS, HEARTBEAT_TICKS};
use super::mending::Mending;
use super::messages::Outgoing;
use super::pace::Pace;
use super::proposals::Proposals;
use super::round::Rounds;
use super::salvage::{Stored, compare, load_all, open_log};
use super::sending::Sending;
use super::{Engine, Now};
use crate::checkpoint::Worker;
use crate::config::Config;
use crate::error::Error;
use crate::host::{Host, Room};
use crate::logger::logger;
use crate::machine::{GroupId, StateMachine};
use crate::members::{self, Members};
use crate::metrics::RaftMetrics;
use crate::peers::Peers;
use crate::sources::Source;
use crate::view::{SharedLog, View};

/// A start that takes longer than this says how far it is.
const SLOW: Duration = Duration::from_secs(2);
/// A long log is replayed in pieces of about this size.
const REPLAY_BYTES: u64 = 16 << 20;

/// State and log of a node, opened and compared, before its groups run.
pub struct Opened<M> {
    log: SharedLog,
    machines: FxHashMap<GroupId, M>,
    groups: Vec<(GroupId, RawNode<View>, Members, Applied)>,
    dice: Dice,
    factory: Box<dyn FnMut(GroupId) -> M>,
}

impl<M: StateMachine> Opened<M> {
    /// Opens the log in a directory, which says whether one was begun there, and loads every group's
    /// machine from the store.
    pub fn load(
        config: &Config,
        disk: Arc<dyn Disk>,
        dir: (&Path, bool),
        seed: Option<u64>,
        store: &mut dyn Store,
        machine: impl FnMut(GroupId) -> M + 'static,
    ) -> Result<Self, Error> {
        let mut factory: Box<dyn FnMut(GroupId) -> M> = Box::new(machine);
        let stored = load_all(config, store, &mut factory)?;
        let mut log = open_log(config, disk, dir, seed, &stored)?;
        let note = match log.found().clean {
            true => "log opened",
            false => "log opened; the last stop was not orderly, so its end is looked at closely",
        };
        info!(bytes = log.bytes(), clean = log.found().clean, "{note}");
        let members = compare(config, &mut log, store, &stored)?;
        let mut opened = Vec::new();
        let mut machines = FxHashMap::default();
        for (Stored { group, machine, applied, .. }, members) in stored.into_iter().zip(members) {
            machines.insert(group, machine);
            opened.push((group, applied, members));
        }
        let log = Rc::new(RefCell::new(log));
        let groups = opened.into_iter().map(|(group, applied, members)| {
            let raft = follower(config, &log, group, applied, &members);
            let failed = |e: raft::Error| Error::Raft { group, reason: e.to_string() };
            Ok((group, raft.map_err(failed)?, members, applied))
        });
        let seed = seed.unwrap_or_else(|| RandomState::new().hash_one(config.node));
        // Nodes that are given one seed still wait differently.
        let dice = Dice::new(Dice::new(seed).bits() ^ config.node);
        Ok(Self { groups: groups.collect::<Result<_, Error>>()?, log, machines, dice, factory })
    }
}

/// Gives a machine its stored state back, and tells who was in its group then, if that is stored.
pub(super) fn load<M: StateMachine>(
    group: GroupId,
    machine: &mut M,
    store: &mut dyn Store,
    progress: &mut Progress,
) -> Result<(Applied, Option<Members>), Error> {
    let mut members = None;
    let mut visit = |key: &[u8], value: &[u8]| {
        if key == members::KEY {
            members = Some(Members::decode(value)?);
            return Ok(());
        }
        progress.step(group, 1);
        machine.load(key, value).map_err(|error| format!("key \"{}\": {error}", key.escape_ascii()))
    };
    let applied = store.load(group.0, &mut visit)?;
    machine.loaded().map_err(|error| {
        Error::Store(StoreError::Refused { group: group.0, reason: error.to_string() })
    })?;
    Ok((applied, members))
}

/// The log must go on where the stored state ends.
pub(super) fn reconcile(
    config: &Config,
    log: &mut Log,
    group: GroupId,
    applied: Applied,
    members: &Members,
) -> Result<(), Error> {
    let (compacted, last) = (log.compacted(group.0).0, log.last_index(group.0));
    let stored = applied.index;
    if stored > compacted && members.installed == applied {
        warn!(%group, stored, "the installation of a snapshot was cut off and is finished");
        let mut batch = Batch::new();
        begin_behind(&mut batch, log, group, applied);
        log.append(&mut batch)?;
        return Ok(());
    }
    if stored < compacted {
        return Err(Error::StateLost { group, stored, compacted });
    }
    if stored > last {
        if !config.accept_log_loss {
            return Err(Error::LogLost { group, last, stored });
        }
        warn!(%group, last, stored, "the log has lost its end, the stored state is kept as asked");
        let mut batch = Batch::new();
        batch.compact(group.0, applied.index, applied.term);
        log.append(&mut batch)?;
    }
    Ok(())
}

/// Says how a slow start gets on.
pub(super) struct Progress {
    what: &'static str,
    count: usize,
    asked: usize,
    said: Instant,
}

impl Progress {
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, count: 0, asked: 0, said: Instant::now() }
    }

    pub(super) fn step(&mut self, group: GroupId, count: usize) {
        self.count += count;
        // The clock is not worth reading for each.
        if self.count - self.asked < 1024 {
            return;
        }
        self.asked = self.count;
        if self.said.elapsed() > SLOW {
            self.said = Instant::now();
            info!(%group, count = self.count, "{}", self.what);
        }
    }
}

/// The Raft of a group, at first without a leader.
fn follower(
    config: &Config,
    log: &SharedLog,
    group: GroupId,
    applied: Applied,
    members: &Members,
) -> raft::Result<RawNode<View>> {
    let settings = raft::Config {
        id: config.node,
        applied: applied.index,
        election_tick: ELECTION_TICKS,
        heartbeat_tick: HEARTBEAT_TICKS,
        // The engine's own patience ends before; see `leadership`.
        min_election_tick: usize::MAX - 1,
        max_election_tick: usize::MAX,
        pre_vote: true,
        check_quorum: true,
        max_size_per_msg: 1 << 20,
        max_inflight_msgs: 64,
        max_committed_size_per_ready: REPLAY_BYTES,
        ..raft::Config::default()
    };
    let view = View {
        log: Rc::clone(log),
        group,
        members: members.clone(),
        applied,
        offer: RefCell::default(),
        wanted: RefCell::default(),
        unreadable: RefCell::default(),
    };
    RawNode::new(&settings, view, &logger())
}

impl<M: StateMachine, H: Host<M>> Engine<M, H> {
    /// Makes the groups. Turns replay the log until [`Engine::is_started`].
    pub fn new(
        config: Config,
        opened: Opened<M>,
        worker: Worker,
        host: H,
        peers: impl Peers,
        now: Now,
    ) -> Self {
        let Opened { log, machines, groups, mut dice, factory } = opened;
        let Config { node, incarnation, .. } = config;
        let groups = groups.into_iter().map(|(id, raft, members, stored)| {
            let proposals = Proposals::new(Source { node, incarnation });
            let mut group = Group::new(id, raft, members, stored, proposals);
            group.draw_patience(&mut dice);
            let number = dice.bits().wrapping_add(incarnation);
            group.mending = group.members.damaged.then(|| Mending::new(number));
            group
        });
        let groups: Vec<_> = groups.collect();
        Self {
            places: groups.iter().enumerate().map(|(place, group)| (group.id, place)).collect(),
            statuses: groups.iter().map(|group| (group.id, group.status())).collect(),
            rounds: Rounds::new(worker),
            config,
            log,
            groups,
            machines,
            host,
            factory,
            staging: None,
            sending: Sending::default(),
            outgoing: Outgoing::new(peers),
            dice,
            capture: None,
            batch: Batch::new(),
            held: None,
            waiting: VecDeque::new(),
            next_tick: now.monotonic,
            next_raft_tick: now.monotonic,
            next_look: now.monotonic,
            free: u64::MAX,
            room: Room { own: Ok(()), leaves: false, damaged: false, abstaining: BTreeMap::new() },
            started: false,
            roles_changed: true,
            synced: Duration::ZERO,
            replay: Progress::new("replaying the log"),
            pace: Pace::default(),
            metrics: RaftMetrics::register(),
        }
    }
}
