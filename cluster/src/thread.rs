//! The raft thread: starts it, waits for it, ends it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use storage::data::DataDir;
use storage::disk::RealDisk;
use storage::log::{Log, OnDamage, Options};
use storage::store::{SledStore, StoreError};
use tracing::{error, info, warn};

use crate::checkpoint::Worker;
use crate::config::Config;
use crate::engine::{Engine, Now, Opened};
use crate::error::Error;
use crate::groups::Inbox;
use crate::host::{Host, Refusal};
use crate::input::Input;
use crate::machine::{GroupId, StateMachine};
use crate::metrics;
use crate::peers::Peers;

/// A store that cannot take the last checkpoint keeps the node from ending no longer than this;
/// the log has everything.
const LAST_CHECKPOINT: Duration = Duration::from_secs(30);
/// How long what was proposed last may be on its way to other nodes that lead.
const LAST_PROPOSALS: Duration = Duration::from_secs(3);

/// The raft thread of a node.
pub struct Running {
    close: Box<dyn Fn() + Send + Sync>,
    started: Receiver<()>,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

impl Running {
    /// Blocks until the state is loaded and the log replayed, or the start has failed.
    pub fn wait_started(&mut self) -> Result<(), Error> {
        match self.started.recv() {
            Ok(()) => Ok(()),
            Err(_) => self.join(),
        }
    }

    /// Asks for a graceful end: what waits is committed, a last checkpoint written, the log sealed.
    /// [`Host::stopped`] tells when it is done.
    pub fn request_stop(&self) {
        (self.close)();
    }

    /// Asks for a graceful end and blocks until it is done.
    pub fn stop(mut self) -> Result<(), Error> {
        self.request_stop();
        self.join()
    }

    fn join(&mut self) -> Result<(), Error> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(panic)) => Err(Error::Panicked(text_of(panic.as_ref()))),
            None => Ok(()),
        }
    }
}

impl Drop for Running {
    /// Dropping it ends the thread gracefully, so that no data directory is left in use.
    fn drop(&mut self) {
        self.request_stop();
        if let Err(error) = self.join() {
            error!(%error, "the raft thread has failed");
        }
    }
}

/// Starts the raft thread `skein-raft` on a data directory, that of `config`, and holds it. Each group's machine is made by
/// `machine` on that thread, so it need not be `Send`. What the groups have to say to other nodes
/// goes to `peers`; what those say comes through [`crate::Groups::receive`].
pub fn start<M, H>(
    config: Config,
    data: DataDir,
    inbox: Inbox<H::Reply, H::Signal>,
    machine: impl FnMut(GroupId) -> M + Send + 'static,
    host: H,
    peers: impl Peers + Send,
) -> Result<Running, Error>
where
    M: StateMachine,
    H: Host<M>,
{
    let closer = inbox.share();
    let (up, started) = channel();
    let run = move || run(config, data, &inbox, machine, host, peers, up);
    let thread = thread::Builder::new().name("skein-raft".into()).spawn(run);
    let thread = Some(thread.map_err(Error::Thread)?);
    Ok(Running { close: Box::new(move || closer.close()), started, thread })
}

fn run<M, H>(
    mut config: Config,
    data: DataDir,
    inbox: &Inbox<H::Reply, H::Signal>,
    machine: impl FnMut(GroupId) -> M + 'static,
    mut host: H,
    peers: impl Peers,
    up: Sender<()>,
) -> Result<(), Error>
where
    M: StateMachine,
    H: Host<M>,
{
    let clock = Clock::new();
    if config.incarnation == 0 {
        let next = data.next_incarnation();
        config.incarnation = match next.and_then(|life| life.begin().map(|()| life.number())) {
            Ok(number) => number,
            Err(error) => return failed(inbox, &mut host, error.into()),
        };
    }
    let opened = caught(|| open(&config, &data, machine, inbox));
    let (opened, worker) = match opened {
        Ok(opened) => opened,
        Err(error) => return failed(inbox, &mut host, error),
    };
    let mut engine = Engine::new(config, opened, worker, host, peers, clock.now());
    let result = caught(|| {
        drive(&mut engine, inbox, &clock, up)?;
        finish(&mut engine, inbox, &clock)
    });
    inbox.close();
    refuse_waiting(engine.host(), inbox);
    if let Err(error) = &result {
        error!(%error, "the raft thread ends");
        if let Error::Outlived { life, .. } = error
            && let Err(error) = data.begin_after(*life)
        {
            error!(%error, "the next life of this node may be too early again");
        }
    }
    let result = engine.end(result);
    drop(data);
    result
}

/// Opens log and store, and loads the machines.
fn open<M: StateMachine, R: Send + 'static, S: Send + 'static>(
    config: &Config,
    data: &DataDir,
    machine: impl FnMut(GroupId) -> M + 'static,
    inbox: &Inbox<R, S>,
) -> Result<(Opened<M>, Worker), Error> {
    if !has_peers(config) {
        data.check_log()?;
    }
    let mut store = match open_store(config, data) {
        Err(Error::Store(why)) if why.is_damage() && has_peers(config) => {
            metrics::damage_found("state");
            error!(%why, "the state store is damaged and set aside; others have to bring all state");
            SledStore::replace_unreadable(&data.state(), config.store_cache_bytes)?
        }
        opened => opened?,
    };
    let (disk, log) = (Arc::new(RealDisk), data.log());
    let opened = Opened::load(config, disk, (&log, data.is_begun()), None, &mut store, machine)?;
    data.mark_used()?;
    let nudger = inbox.share();
    let worker = Worker::thread(Box::new(store), move || nudger.nudge())?;
    Ok((opened, worker))
}

/// Whether any group began with other nodes, who may have what this one has lost.
fn has_peers(config: &Config) -> bool {
    config.groups.iter().any(|group| group.voters != [config.node])
}

/// Opens the state store. It must come to that on a full disk, too, for which the log has room to give.
pub(crate) fn open_store(config: &Config, data: &DataDir) -> Result<SledStore, Error> {
    let open = || SledStore::open(&data.state(), config.store_cache_bytes);
    match open() {
        Err(error @ StoreError::Full { .. }) => {
            warn!(%error, "the disk is full: the log gives back what it does not need");
            let on_damage = match (config.accept_log_loss, has_peers(config)) {
                (true, _) => OnDamage::Truncate,
                (false, true) => OnDamage::Leave { begun: false },
                (false, false) => OnDamage::Refuse,
            };
            let options = Options { segment_bytes: config.segment_bytes, on_damage, seed: None };
            Log::give_back(Arc::new(RealDisk), &data.log(), &options)?;
            Ok(open()?)
        }
        opened => Ok(opened?),
    }
}

/// Takes turns until the inbox is closed and empty.
fn drive<M: StateMachine, H: Host<M>>(
    engine: &mut Engine<M, H>,
    inbox: &Inbox<H::Reply, H::Signal>,
    clock: &Clock,
    up: Sender<()>,
) -> Result<(), Error> {
    let mut input = Input::default();
    while !engine.is_started() {
        engine.turn(&mut input, clock.now())?;
    }
    // Nobody has to wait for it.
    let _ = up.send(());
    let mut stopping = false;
    let mut ends_by = None;
    loop {
        // What still waits when the end is near is bounded by the inbox.
        let allowance = match stopping {
            true => usize::MAX,
            false => engine.allowance(clock.now()),
        };
        let mut timeout = Duration::ZERO;
        if !engine.is_busy() {
            engine.idle();
            timeout = engine.next_turn().saturating_sub(clock.now().monotonic);
        }
        let taken = inbox.take(&mut input, allowance, timeout);
        engine.taken(taken.bytes);
        stopping = taken.stopping;
        // Only then everything that waited was taken.
        let last = stopping && allowance == usize::MAX;
        engine.turn(&mut input, clock.now())?;
        if last {
            let now = clock.now().monotonic;
            let ends_by = *ends_by.get_or_insert(now + LAST_PROPOSALS);
            if !engine.has_proposals() || now >= ends_by {
                return Ok(());
            }
        }
    }
}

/// Writes a last checkpoint, so that the next start has nothing to replay.
fn finish<M: StateMachine, H: Host<M>>(
    engine: &mut Engine<M, H>,
    inbox: &Inbox<H::Reply, H::Signal>,
    clock: &Clock,
) -> Result<(), Error> {
    let mut input = Input::default();
    let started = clock.now().monotonic;
    while !engine.is_stored() {
        let now = clock.now();
        if now.monotonic - started > LAST_CHECKPOINT {
            warn!("the last checkpoint does not get done; the next start replays the log");
            break;
        }
        engine.begin_checkpoint(now);
        engine.turn(&mut input, now)?;
        if !engine.is_busy() && !engine.is_stored() {
            // The worker nudges when it is done; nothing is let in any more.
            let timeout = engine.next_turn().saturating_sub(clock.now().monotonic);
            inbox.take(&mut input, 0, timeout);
        }
    }
    info!("groups have stopped");
    Ok(())
}

fn failed<M: StateMachine, H: Host<M>>(
    inbox: &Inbox<H::Reply, H::Signal>,
    host: &mut H,
    error: Error,
) -> Result<(), Error> {
    inbox.close();
    refuse_waiting(host, inbox);
    host.stopped(Some(&error));
    Err(error)
}

/// What came in after the last turn gets an answer too.
fn refuse_waiting<M: StateMachine, H: Host<M>>(host: &mut H, inbox: &Inbox<H::Reply, H::Signal>) {
    let mut input = Input::default();
    inbox.take(&mut input, usize::MAX, Duration::ZERO);
    for reply in input.proposals.into_iter().filter_map(|proposal| proposal.reply) {
        host.refused(reply, Refusal::Stopping);
    }
}

/// Turns a panic into an error, so that the node hears of it.
fn caught<T>(act: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(act))
        .unwrap_or_else(|panic| Err(Error::Panicked(text_of(panic.as_ref()))))
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given").to_owned()
}

/// The clocks of the raft thread.
struct Clock(Instant);

impl Clock {
    fn new() -> Self {
        Self(Instant::now())
    }

    fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { monotonic: self.0.elapsed(), unix_ms: unix.as_millis() as u64 }
    }
}
