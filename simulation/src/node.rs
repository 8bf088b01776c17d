//! A node of a simulated cluster: its engine, its disk, its clock.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use cluster::{
    Config, Engine, Error, GroupId, Host, Input, Now, Opened, PeerMessage, Peers, StateMachine,
    Worker,
};
use storage::dice::Dice;
use storage::disk::Disk;
use storage::sim::SimDisk;
use storage::store::MemStore;

/// What a turn has for one other node.
type Batch = (u64, Vec<(GroupId, Vec<u8>)>);

/// Keeps what a turn sends.
#[derive(Clone, Default)]
struct Sent(Rc<RefCell<Vec<Batch>>>);

impl Peers for Sent {
    fn send(&mut self, to: u64, batch: Vec<(GroupId, Vec<u8>)>) {
        self.0.borrow_mut().push((to, batch));
    }
}

/// See the module.
pub struct SimNode<M: StateMachine, H: Host<M>> {
    /// Its number.
    pub id: u64,
    /// The disk of its log.
    pub disk: SimDisk,
    /// The store of its state.
    pub store: MemStore,
    /// How it runs from its next start on.
    pub config: Config,
    /// Its groups, while it is up.
    pub engine: Option<Engine<M, H>>,
    sent: Sent,
    /// What its next turn takes in.
    pub input: Input<H::Reply, H::Signal>,
    /// Milliseconds a sync takes.
    pub sync_ms: u64,
    /// Whether its disk may have no room.
    pub is_full: bool,
    /// By how many milliseconds its wall clock is wrong.
    pub clock_off_ms: i64,
    /// Its thread waits for the disk until then, and what it sent leaves only then.
    pub busy_until: u64,
    /// That, and to whom.
    pub unsent: Vec<Batch>,
    /// Whether it has begun a log.
    has_begun: bool,
    /// How often it was started.
    pub lives: u64,
    /// When a node that is down comes up again.
    pub up_at: u64,
    /// Its process executes nothing until then.
    pub still_until: u64,
    /// Bytes that wait for a process that stands still.
    unread: usize,
}

/// Bytes of what other nodes say that wait for a process that stands still; more finds no room.
const SOCKET_BYTES: usize = 256 << 10;

impl<M: StateMachine, H: Host<M>> SimNode<M, H> {
    /// A node that was never started.
    pub fn new(id: u64, seed: u64, config: Config) -> Self {
        Self {
            id,
            disk: SimDisk::new(seed.wrapping_mul(31).wrapping_add(id)),
            store: MemStore::new(),
            config,
            engine: None,
            sent: Sent::default(),
            input: Input::default(),
            sync_ms: 0,
            is_full: false,
            clock_off_ms: 0,
            busy_until: 0,
            unsent: Vec::new(),
            has_begun: false,
            lives: 0,
            up_at: 0,
            still_until: 0,
            unread: 0,
        }
    }

    /// Whether its process executes nothing now.
    pub fn stands_still(&self, millis: u64) -> bool {
        self.still_until > millis
    }

    /// Takes what another node says, if its process runs or there is room until it does.
    pub fn hear(&mut self, message: PeerMessage, millis: u64) {
        if self.engine.is_none() {
            return;
        }
        self.unread = match self.stands_still(millis) {
            true => self.unread + message.message.len(),
            false => 0,
        };
        if self.unread <= SOCKET_BYTES {
            self.input.messages.push(message);
        }
    }

    /// Opens its log and its store, and begins its next life with the machines and the host that are
    /// made for it.
    pub fn start(
        &mut self,
        seed: u64,
        now: Now,
        machine: impl FnMut(GroupId) -> M + 'static,
        host: impl FnOnce(&Config) -> H,
    ) -> Result<(), Error> {
        self.lives += 1;
        self.config.incarnation = self.lives;
        let mut store = self.store.clone();
        let disk = Arc::new(self.disk.clone());
        let dir = (Path::new("/data/log"), self.has_begun);
        let opened = Opened::load(&self.config, disk, dir, Some(seed), &mut store, machine)?;
        self.has_begun = true;
        let worker = Worker::inline(Box::new(store));
        let (host, sent) = (host(&self.config), self.sent.clone());
        let mut engine = Engine::new(self.config.clone(), opened, worker, host, sent, now);
        while !engine.is_started() {
            engine.turn(&mut Input::default(), now)?;
        }
        self.engine = Some(engine);
        Ok(())
    }

    /// Makes it go on alone, while it is down.
    pub fn recover(&mut self) -> Result<(), Error> {
        let (disk, dir) = (Arc::new(self.disk.clone()), Path::new("/data/log"));
        cluster::recover_in(&self.config, disk, dir, &mut self.store.clone()).map(drop)
    }

    /// Loses what it had in memory, and some of what it had not synced.
    pub fn crash(&mut self, dice: &mut Dice, up_at: u64) {
        self.engine = None;
        self.sent.0.borrow_mut().clear();
        self.disk.crash();
        let kept = dice.below(self.store.unflushed() as u64 + 1) as usize;
        self.store.crash(kept);
        self.input = Input::default();
        self.unsent.clear();
        (self.busy_until, self.up_at, self.still_until) = (0, up_at, 0);
    }

    fn segments(&self) -> Vec<(PathBuf, u64)> {
        let files = self.disk.files().into_iter();
        files.filter(|(path, _)| path.extension().is_some_and(|it| it == "log")).collect()
    }

    /// All of its log is gone.
    pub fn lose_log(&mut self) {
        self.segments()
            .iter()
            .for_each(|(path, _)| self.disk.remove(path).expect("it was just there"));
    }

    /// All that stands in its log is wrong, but for what each segment begins with.
    pub fn harm_log(&mut self) {
        for (path, len) in self.segments() {
            (1024..len).step_by(32).for_each(|at| self.disk.flip(&path, at, 1));
        }
    }

    /// While it is down its disk rots: a bit flips, a file is lost or cannot be read, in the log or in
    /// the store. Never in the last batch alone, which may look as if it was never finished.
    pub fn rot(&mut self, dice: &mut Dice) {
        let logs = self.segments();
        if logs.is_empty() || dice.one_in(3) {
            self.store.damage(dice.below(self.config.groups.len() as u64) as u32);
            return;
        }
        let at = dice.below(logs.len() as u64) as usize;
        let (path, len) = &logs[at];
        match dice.below(3) {
            0 => self.disk.remove(path).expect("it was just there"),
            1 => self.disk.fail_reads(path),
            _ if at + 1 == logs.len() => self.disk.flip(path, dice.below(52), 1),
            _ => self.disk.flip(path, dice.below(*len), dice.below(8) as u8),
        }
    }

    /// Takes a turn if there is a reason to; tells whether it did.
    pub fn turn(&mut self, millis: u64, now: Now) -> Result<bool, Error> {
        let Some(engine) = &mut self.engine else { return Ok(false) };
        let idle = self.input.messages.is_empty()
            && self.input.signals.is_empty()
            && self.input.proposals.is_empty()
            && self.input.reads.is_empty()
            && self.input.orders.is_empty()
            && !engine.is_busy()
            && engine.next_turn() > now.monotonic;
        if idle || self.busy_until > millis {
            return Ok(false);
        }
        let syncs = self.disk.syncs();
        engine.turn(&mut self.input, now)?;
        self.unsent.append(&mut self.sent.0.borrow_mut());
        self.busy_until = millis + self.sync_ms * (self.disk.syncs() - syncs);
        Ok(true)
    }
}
