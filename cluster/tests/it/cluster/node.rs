//! A node of a simulated cluster: its engine, its disk, and what its host hears.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use cluster::{
    Config, Engine, Error, GroupId, GroupsView, Host, Input, Now, Opened, Peers, Refusal, Worker,
};
use storage::dice::Dice;
use storage::disk::Disk;
use storage::sim::SimDisk;
use storage::store::MemStore;

use crate::chronicle::Chronicle;

/// What a host hears, in order.
#[derive(Debug)]
pub(super) enum Heard {
    Led(GroupId, usize),
    Lost(GroupId),
    Applied(GroupId, u64),
    Refused(u64, Refusal),
    /// A look at a group found so many commands, where there were so many acknowledged before.
    Seen(GroupId, usize, usize),
    Unseen,
    Replaced,
}

/// A look at a group: so many commands must be there.
pub(super) type Look = (GroupId, usize);

/// A host that remembers.
#[derive(Default)]
pub(super) struct Witness {
    pub(super) heard: Vec<Heard>,
}

impl Host<Chronicle> for Witness {
    type Reply = u64;
    type Signal = Look;

    fn applied(&mut self, group: GroupId, _: &mut Chronicle, reply: Option<u64>, outcome: u64) {
        if let Some(number) = reply {
            assert_eq!(number, outcome, "the reply of another command");
            self.heard.push(Heard::Applied(group, number));
        }
    }

    fn led(&mut self, group: GroupId, machine: &mut Chronicle) {
        self.heard.push(Heard::Led(group, machine.numbers.len()));
    }

    fn lost(&mut self, group: GroupId) {
        self.heard.push(Heard::Lost(group));
    }

    fn refused(&mut self, reply: u64, why: Refusal) {
        self.heard.push(Heard::Refused(reply, why));
    }

    fn signal(&mut self, groups: &mut GroupsView<'_, Chronicle>, (group, acknowledged): Look) {
        let found = groups.get(group).expect("every group has a machine").numbers.len();
        self.heard.push(Heard::Seen(group, found, acknowledged));
    }

    fn unread(&mut self, _: Look, _: Refusal) {
        self.heard.push(Heard::Unseen);
    }

    fn replaced(&mut self, _: GroupId, _: &mut Chronicle) {
        self.heard.push(Heard::Replaced);
    }

    fn ticked(&mut self, _: &mut GroupsView<'_, Chronicle>, _: u64) -> Vec<(GroupId, Bytes)> {
        Vec::new()
    }

    fn turn_ended(&mut self) {}
}

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

pub(super) struct SimNode {
    pub(super) id: u64,
    pub(super) disk: SimDisk,
    pub(super) store: MemStore,
    config: Config,
    pub(super) engine: Option<Engine<Chronicle, Witness>>,
    sent: Sent,
    pub(super) input: Input<u64, Look>,
    /// Milliseconds a sync takes.
    pub(super) sync_ms: u64,
    /// Whether its disk may have no room.
    pub(super) is_full: bool,
    /// Whether it was a member of all groups after its last turn: within one that can change.
    pub(super) was_member: bool,
    /// Its thread waits for the disk until then, and what it sent leaves only then.
    pub(super) busy_until: u64,
    pub(super) unsent: Vec<Batch>,
    /// Whether it has begun a log.
    has_begun: bool,
    /// How often it was started.
    pub(super) lives: u64,
    /// When a node that is down comes up again.
    pub(super) up_at: u64,
    /// How many commands of each group were seen in its present life.
    pub(super) seen: Vec<usize>,
    /// Which groups it leads, by what its host heard.
    pub(super) leads: Vec<bool>,
}

impl SimNode {
    pub(super) fn new(id: u64, seed: u64, config: Config) -> Self {
        let groups = config.groups.len();
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
            was_member: false,
            busy_until: 0,
            unsent: Vec::new(),
            has_begun: false,
            lives: 0,
            up_at: 0,
            seen: vec![0; groups],
            leads: vec![false; groups],
        }
    }

    pub(super) fn start(&mut self, seed: u64, now: Now) -> Result<(), Error> {
        self.lives += 1;
        self.config.incarnation = self.lives;
        let mut store = self.store.clone();
        let disk = Arc::new(self.disk.clone());
        let dir = (Path::new("/data/log"), self.has_begun);
        let opened = Opened::load(&self.config, disk, dir, Some(seed), &mut store, |_| {
            Chronicle::default()
        })?;
        self.has_begun = true;
        let worker = Worker::inline(Box::new(store));
        let (host, sent) = (Witness::default(), self.sent.clone());
        let mut engine = Engine::new(self.config.clone(), opened, worker, host, sent, now);
        while !engine.is_started() {
            engine.turn(&mut Input::default(), now)?;
        }
        self.engine = Some(engine);
        Ok(())
    }

    /// Makes it go on alone, while it is down.
    pub(super) fn recover(&mut self) -> Result<(), Error> {
        let (disk, dir) = (Arc::new(self.disk.clone()), Path::new("/data/log"));
        cluster::recover_in(&self.config, disk, dir, &mut self.store.clone()).map(drop)
    }

    /// Loses what it had in memory, and some of what it had not synced.
    pub(super) fn crash(&mut self, dice: &mut Dice, up_at: u64) {
        self.engine = None;
        self.sent.0.borrow_mut().clear();
        self.disk.crash();
        let kept = dice.below(self.store.unflushed() as u64 + 1) as usize;
        self.store.crash(kept);
        self.input = Input::default();
        self.unsent.clear();
        (self.busy_until, self.up_at) = (0, up_at);
        self.seen.fill(0);
        self.leads.fill(false);
    }

    fn segments(&self) -> Vec<(PathBuf, u64)> {
        let files = self.disk.files().into_iter();
        files.filter(|(path, _)| path.extension().is_some_and(|it| it == "log")).collect()
    }

    /// All of its log is gone.
    pub(super) fn lose_log(&mut self) {
        self.segments().iter().for_each(|(path, _)| self.disk.remove(path).unwrap());
    }

    /// All that stands in its log is wrong, but for what each segment begins with.
    pub(super) fn harm_log(&mut self) {
        for (path, len) in self.segments() {
            (1024..len).step_by(32).for_each(|at| self.disk.flip(&path, at, 1));
        }
    }

    /// While it is down its disk rots: a bit flips, a file is lost or cannot be read, in the log or in
    /// the store. Never in the last batch alone, which may look as if it was never finished.
    pub(super) fn rot(&mut self, dice: &mut Dice) {
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
    pub(super) fn turn(&mut self, millis: u64, now: Now) -> Result<bool, Error> {
        let Some(engine) = &mut self.engine else { return Ok(false) };
        let idle = self.input.messages.is_empty()
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
