//! The engine over a disk that crashes, fills up and fails, from seeds.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use cluster::{
    Blocked, Config, Engine, Error, GroupId, Input, NoPeers, Now, OnFull, Opened, Proposal,
    Refusal, Worker,
};
use storage::dice::{Dice, seeds};
use storage::sim::SimDisk;
use storage::store::{Failing, MemStore};

use crate::chronicle::{Chronicle, Ledger, command};
use crate::recorded::Recorded;

const GROUPS: u32 = 3;

/// One node over many lives, and what its clients were told.
struct Simulation {
    seed: u64,
    dice: Dice,
    disk: SimDisk,
    store: MemStore,
    config: Config,
    now: Now,
    next_number: u64,
    /// What each group's machine must hold, in order.
    expected: BTreeMap<GroupId, Vec<u64>>,
    /// Of the turn that a crash cut off: all of it may be there, or nothing.
    unsure: BTreeMap<GroupId, Vec<u64>>,
    refusals: u64,
}

type Node = Engine<Chronicle, Ledger>;

fn offering(proposals: Vec<Proposal<u64>>) -> Input<u64, u64> {
    Input { proposals, ..Input::default() }
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let config = Config {
            segment_bytes: 16 << 10,
            checkpoint_bytes: 24 << 10,
            checkpoint_interval: Duration::from_millis(500),
            max_log_bytes: 256 << 10,
            max_command_bytes: 4 << 10,
            min_free_bytes: 0,
            ..Config::new("/data", GROUPS - 1)
        };
        Self {
            seed,
            dice: Dice::new(seed),
            disk: SimDisk::new(seed),
            store: MemStore::new(),
            config,
            now: Now::default(),
            next_number: 1,
            expected: BTreeMap::new(),
            unsure: BTreeMap::new(),
            refusals: 0,
        }
    }

    fn open(&mut self) -> Result<Node, Error> {
        self.config.incarnation += 1;
        let mut store = self.store.clone();
        let disk = Arc::new(self.disk.clone());
        let dir = (Path::new("/data/log"), false);
        let opened = Opened::load(&self.config, disk, dir, Some(self.seed), &mut store, |_| {
            Chronicle::default()
        })?;
        let worker = Worker::inline(Box::new(store));
        let mut node =
            Engine::new(self.config.clone(), opened, worker, Ledger::default(), NoPeers, self.now);
        while !node.is_started() {
            node.turn(&mut Input::default(), self.now)?;
        }
        self.check(&node);
        Ok(node)
    }

    /// Every acknowledged command is there once and in order, and no turn is there by half.
    fn check(&mut self, node: &Node) {
        let held = |group| &node.machine(GroupId(group)).unwrap().numbers;
        let with_unsure = |group| {
            let of =
                |all: &BTreeMap<_, Vec<u64>>| all.get(&GroupId(group)).cloned().unwrap_or_default();
            [of(&self.expected), of(&self.unsure)].concat()
        };
        if (0..GROUPS).all(|group| *held(group) == with_unsure(group)) {
            self.expected = (0..GROUPS).map(|group| (GroupId(group), with_unsure(group))).collect();
        }
        self.unsure.clear();
        for group in 0..GROUPS {
            let expected = self.expected.entry(GroupId(group)).or_default();
            assert_eq!(held(group), expected, "seed {} group {group}", self.seed);
        }
    }

    fn proposals(&mut self) -> Vec<Proposal<u64>> {
        let count = if self.dice.one_in(3) { 0 } else { self.dice.below(12) };
        let mut proposals = Vec::new();
        for _ in 0..count {
            let number = self.next_number;
            self.next_number += 1;
            let group = GroupId(self.dice.below(u64::from(GROUPS)) as u32);
            let len = if self.dice.one_in(30) { 3000 } else { self.dice.below(300) };
            self.unsure.entry(group).or_default().push(number);
            let command = command(number, len as usize);
            let on_full = if self.dice.one_in(4) { OnFull::Wait } else { OnFull::Refuse };
            proposals.push(Proposal { group, command, reply: Some(number), on_full });
        }
        proposals
    }

    /// One turn; what the host was told becomes what must be there.
    fn turn(&mut self, node: &mut Node) -> Result<(), Error> {
        let millis = self.dice.below(40);
        self.now.monotonic += Duration::from_millis(millis);
        self.now.unix_ms += millis;
        let proposals = if node.is_accepting() { self.proposals() } else { Vec::new() };
        node.turn(&mut Input { signals: vec![7], ..offering(proposals) }, self.now)?;
        if self.dice.one_in(4) {
            node.idle();
        }
        self.settle(node);
        Ok(())
    }

    fn settle(&mut self, node: &mut Node) {
        let ledger = node.host();
        // What waits overtakes what is refused, so that comes out first.
        for (number, why) in std::mem::take(&mut ledger.refused) {
            assert_eq!(why, Refusal::DiskFull, "seed {}", self.seed);
            self.refusals += 1;
            for numbers in self.unsure.values_mut() {
                numbers.retain(|&unsure| unsure != number);
            }
        }
        for (group, numbers) in std::mem::take(&mut ledger.acknowledged) {
            let unsure = self.unsure.entry(group).or_default();
            for number in numbers {
                assert_eq!(unsure.remove(0), number, "seed {}: out of order", self.seed);
                self.expected.entry(group).or_default().push(number);
            }
        }
        self.unsure.retain(|_, numbers| !numbers.is_empty());
    }

    fn crash(&mut self) {
        self.disk.crash();
        let kept = self.dice.below(self.store.unflushed() as u64 + 1) as usize;
        self.store.crash(kept);
    }

    /// Stops in good order: everything is stored.
    fn stop(&mut self, mut node: Node) {
        for _ in 0..100 {
            node.begin_checkpoint(self.now);
            node.turn(&mut Input::default(), self.now).unwrap();
        }
        self.settle(&mut node);
        assert!(node.is_stored() && self.unsure.is_empty(), "seed {}", self.seed);
        node.end(Ok(())).unwrap();
    }
}

#[test]
fn what_was_acknowledged_survives_crashes_once_and_in_order() {
    let mut commands = 0;
    for seed in seeds(200) {
        let mut simulation = Simulation::new(seed);
        for _ in 0..5 {
            let mut node = simulation.open().unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            for _ in 0..simulation.dice.below(60) {
                simulation.turn(&mut node).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
                assert!(simulation.unsure.is_empty(), "seed {seed}: a turn without an answer");
            }
            match simulation.dice.below(4) {
                0 => simulation.stop(node),
                1 => {
                    drop(node);
                    simulation.disk.kill();
                }
                _ => {
                    simulation.disk.fail_syncs();
                    // The log is dead, whatever is tried: nothing is acknowledged any more.
                    let mut failed = false;
                    for _ in 0..5 {
                        failed |= simulation.turn(&mut node).is_err();
                        if failed {
                            break;
                        }
                    }
                    assert!(failed || simulation.unsure.is_empty(), "seed {seed}");
                    drop(node);
                }
            }
            simulation.crash();
        }
        drop(simulation.open().unwrap_or_else(|e| panic!("seed {seed}: {e}")));
        commands += simulation.expected.values().map(Vec::len).sum::<usize>();
    }
    println!("{commands} commands");
}

#[test]
fn a_full_disk_refuses_and_what_was_taken_is_kept() {
    let mut refusals = 0;
    for seed in seeds(100) {
        let mut simulation = Simulation::new(seed);
        for _ in 0..3 {
            let mut node = simulation.open().unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            for _ in 0..80 {
                match simulation.dice.below(15) {
                    0 => {
                        let room = simulation.dice.below(20 << 10);
                        simulation.disk.set_capacity(simulation.disk.used_bytes() + room);
                    }
                    1 => simulation.store.set_failing(Failing::Yes),
                    2 => simulation.store.set_failing(Failing::No),
                    3..6 => simulation.disk.set_capacity(u64::MAX),
                    _ => {}
                }
                simulation.turn(&mut node).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            }
            simulation.disk.set_capacity(u64::MAX);
            simulation.store.set_failing(Failing::No);
            for _ in 0..50 {
                simulation.turn(&mut node).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            }
            assert!(simulation.unsure.is_empty(), "seed {seed}: something never got an answer");
            drop(node);
            simulation.crash();
        }
        drop(simulation.open().unwrap_or_else(|e| panic!("seed {seed}: {e}")));
        refusals += simulation.refusals;
    }
    println!("{refusals} refusals");
}

#[test]
fn a_commit_takes_as_long_as_the_syncs_before_it() {
    let mut simulation = Simulation::new(1);
    let recorded = Recorded::default();
    let mut node = metrics::with_local_recorder(&recorded, || simulation.open().unwrap());
    for turn in 0..20 {
        recorded.take("storage_fsync_seconds");
        let proposals = vec![proposal(turn, OnFull::Refuse)];
        node.turn(&mut offering(proposals), simulation.now).unwrap();
        // The first sync is that of the entry; the simulation's clock stands still in a turn.
        let synced = recorded.take("storage_fsync_seconds");
        let committed = recorded.take("raft_commit_seconds");
        assert_eq!(committed, synced[..1], "turn {turn}");
    }
}

/// A proposal to group 0.
fn proposal(number: u64, on_full: OnFull) -> Proposal<u64> {
    Proposal { group: GroupId(0), command: command(number, 50), reply: Some(number), on_full }
}

#[test]
fn what_must_not_be_refused_waits_for_room_in_order() {
    let mut simulation = Simulation::new(1);
    simulation.config.min_free_bytes = 2;
    // A piece at a time: two of these commands are more than one.
    simulation.config.max_command_bytes = 100;
    let mut node = simulation.open().unwrap();
    let mut turn = |node: &mut Node, proposals: &[(u64, OnFull)]| {
        simulation.now.monotonic += Duration::from_secs(1);
        let proposals =
            proposals.iter().map(|&(number, on_full)| proposal(number, on_full)).collect();
        let mut input = offering(proposals);
        node.turn(&mut input, simulation.now).unwrap();
        assert!(input.proposals.is_empty());
        let acknowledged = node.host().acknowledged.remove(&GroupId(0)).unwrap_or_default();
        (acknowledged, std::mem::take(&mut node.host().refused))
    };
    let disk = simulation.disk.clone();
    disk.set_capacity(disk.used_bytes());
    let full = |number| (number, Refusal::DiskFull);
    let first = [(1, OnFull::Wait), (2, OnFull::Refuse), (3, OnFull::Wait)];
    assert_eq!(turn(&mut node, &first), (vec![], vec![full(2)]));
    assert_eq!(turn(&mut node, &[]), (vec![], vec![]));
    let second = [(4, OnFull::Refuse), (5, OnFull::Wait)];
    assert_eq!(turn(&mut node, &second), (vec![], vec![full(4)]));

    disk.set_capacity(u64::MAX);
    // What comes while others still wait goes behind them.
    assert_eq!(turn(&mut node, &[(6, OnFull::Wait)]), (vec![1], vec![]));
    assert_eq!(turn(&mut node, &[]), (vec![3], vec![]));
    assert_eq!(turn(&mut node, &[]), (vec![5], vec![]));
    assert_eq!(turn(&mut node, &[(7, OnFull::Refuse)]), (vec![6, 7], vec![]));
    assert_eq!(node.machine(GroupId(0)).unwrap().numbers, [1, 3, 5, 6, 7]);

    disk.set_capacity(disk.used_bytes());
    let together = [(8, OnFull::Wait), (9, OnFull::Follow), (10, OnFull::Follow)];
    assert_eq!(turn(&mut node, &together), (vec![], vec![]));
    assert_eq!(turn(&mut node, &[(11, OnFull::Wait)]), (vec![], vec![]));
    disk.set_capacity(u64::MAX);
    assert_eq!(turn(&mut node, &[]), (vec![8, 9, 10], vec![]));
    assert_eq!(turn(&mut node, &[]), (vec![11], vec![]));
}

#[test]
fn what_waits_for_room_is_refused_when_the_node_stops() {
    let mut simulation = Simulation::new(1);
    simulation.config.min_free_bytes = 2;
    let mut node = simulation.open().unwrap();
    let (told, hear) = channel();
    node.host().told = Some(told);
    simulation.disk.set_capacity(simulation.disk.used_bytes());
    simulation.now.monotonic += Duration::from_secs(1);
    let proposals = vec![proposal(1, OnFull::Wait), proposal(2, OnFull::Wait)];
    node.turn(&mut offering(proposals), simulation.now).unwrap();
    assert!(hear.try_recv().is_err(), "told too early");
    node.end(Ok(())).unwrap();
    let stopping = Err(Refusal::Stopping);
    assert_eq!(hear.try_iter().collect::<Vec<_>>(), [stopping, stopping]);
}

#[test]
fn a_log_that_fails_before_a_command_is_proposed_ends_the_engine_and_everybody_hears() {
    let mut simulation = Simulation::new(1);
    let mut node = simulation.open().unwrap();
    let (told, hear) = channel();
    node.host().told = Some(told);
    simulation.disk.fail_syncs();
    // Too large for the present segment, so that the next one has to be started.
    let large = command(1, 20 << 10);
    let refuse = OnFull::Refuse;
    let first = Proposal { group: GroupId(0), command: large, reply: Some(1), on_full: refuse };
    let proposals = vec![first, proposal(2, OnFull::Wait)];
    let failed = node.turn(&mut offering(proposals), simulation.now);
    assert!(matches!(failed, Err(Error::Append(_))), "{failed:?}");
    assert!(node.end(failed).is_err());
    let stopping = Err(Refusal::Stopping);
    assert_eq!(hear.try_iter().collect::<Vec<_>>(), [stopping, stopping]);
}

#[test]
fn a_committed_command_that_cannot_be_read_ends_the_engine_now_and_at_the_next_start() {
    let mut simulation = Simulation::new(1);
    let mut node = simulation.open().unwrap();
    let (told, hear) = channel();
    node.host().told = Some(told);
    let unreadable = Proposal { command: "?".into(), ..proposal(2, OnFull::Refuse) };
    let proposals = vec![proposal(1, OnFull::Refuse), unreadable, proposal(3, OnFull::Refuse)];
    let failed = node.turn(&mut offering(proposals), simulation.now);
    let is_it = |error: &Error| {
        let text = error.to_string();
        let names = text.contains("1 bytes are no number") && text.contains("newer version");
        names && matches!(error, Error::Entry { group: GroupId(0), index: 2, .. })
    };
    assert!(failed.as_ref().is_err_and(is_it), "{failed:?}");
    assert!(node.end(failed).is_err());
    let stopping = Err(Refusal::Stopping);
    assert_eq!(hear.try_iter().collect::<Vec<_>>(), [Ok(1), stopping, stopping]);
    let again = simulation.open().err().unwrap();
    assert!(is_it(&again), "{again}");
}

#[test]
fn the_log_leaves_the_store_its_room() {
    let mut blocked = 0;
    for seed in seeds(50) {
        let mut simulation = Simulation::new(seed);
        simulation.config.min_free_bytes = 32 << 10;
        let mut node = simulation.open().unwrap();
        let disk = simulation.disk.clone();
        let capacity = disk.used_bytes() + (32 << 10) + simulation.dice.below(200 << 10);
        disk.set_capacity(capacity);
        for number in 0..300 {
            let failing = if number % 100 < 80 { Failing::Yes } else { Failing::No };
            simulation.store.set_failing(failing);
            simulation.turn(&mut node).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            let free = capacity - disk.used_bytes();
            // What waits may use half of it.
            let kept = simulation.config.min_free_bytes / 2;
            assert!(free >= kept, "seed {seed}: {free} bytes free");
            blocked += usize::from(node.host().blocked == Some(Blocked::Disk));
        }
        simulation.store.set_failing(Failing::No);
        disk.set_capacity(u64::MAX);
        for _ in 0..50 {
            simulation.turn(&mut node).unwrap();
        }
        assert_eq!(node.host().blocked, None, "seed {seed}");
    }
    assert!(blocked > 0, "the disk was never full");
}

#[test]
fn a_checkpoint_without_room_refuses_commands_until_one_succeeds() {
    let mut simulation = Simulation::new(1);
    let mut node = simulation.open().unwrap();
    let mut turn = |node: &mut Node, number| {
        simulation.now.monotonic += Duration::from_secs(1);
        let proposals = vec![proposal(number, OnFull::Refuse)];
        let mut input = Input { signals: vec![7], ..offering(proposals) };
        node.turn(&mut input, simulation.now).unwrap();
        std::mem::take(&mut node.host().refused)
    };
    simulation.store.set_failing(Failing::Full);
    assert_eq!(turn(&mut node, 1), []);
    // A turn for each group's part, and one that hands it over.
    let refused = (2..10).find(|&number| !turn(&mut node, number).is_empty());
    let number = refused.expect("a checkpoint was due long ago") + 1;
    assert_eq!(turn(&mut node, number), [(number, Refusal::DiskFull)]);
    assert_eq!(node.host().blocked, Some(Blocked::Checkpoint));

    simulation.store.set_failing(Failing::No);
    turn(&mut node, number + 1);
    assert_eq!(turn(&mut node, number + 2), []);
    assert_eq!(node.host().blocked, None);
}

#[test]
fn the_log_stays_within_its_bound() {
    for seed in seeds(10) {
        let mut simulation = Simulation::new(seed);
        let mut node = simulation.open().unwrap();
        simulation.store.set_failing(Failing::Yes);
        let mut waited = false;
        for _ in 0..1500 {
            simulation.turn(&mut node).unwrap();
            waited |= !node.is_accepting();
        }
        assert!(waited, "seed {seed}");
        assert_eq!(node.host().blocked, Some(Blocked::LogBound), "seed {seed}");
        assert!(node.log_bytes() < simulation.config.max_log_bytes + (32 << 10), "seed {seed}");
        simulation.store.set_failing(Failing::No);
        for _ in 0..20 {
            simulation.turn(&mut node).unwrap();
        }
        assert!(node.is_accepting(), "seed {seed}");
        assert!(node.log_bytes() < 128 << 10, "seed {seed}: {}", node.log_bytes());
    }
}

#[test]
fn a_store_that_lost_state_is_not_believed() {
    let mut simulation = Simulation::new(1);
    let mut node = simulation.open().unwrap();
    for _ in 0..200 {
        simulation.turn(&mut node).unwrap();
    }
    simulation.stop(node);
    simulation.store = MemStore::new();
    let error = simulation.open().err().unwrap();
    assert!(matches!(error, Error::StateLost { stored: 0, .. }), "{error}");
}

#[test]
fn a_log_that_lost_its_end_is_told_and_the_stored_state_can_go_on() {
    let mut simulation = Simulation::new(1);
    let mut node = simulation.open().unwrap();
    for _ in 0..200 {
        simulation.turn(&mut node).unwrap();
    }
    simulation.stop(node);
    simulation.disk = SimDisk::new(2);
    let error = simulation.open().err().unwrap();
    assert!(matches!(error, Error::LogLost { last: 0, .. }), "{error}");
    simulation.config.accept_log_loss = true;
    let mut node = simulation.open().unwrap();
    for _ in 0..50 {
        simulation.turn(&mut node).unwrap();
    }
    drop(node);
    simulation.crash();
    simulation.config.accept_log_loss = false;
    drop(simulation.open().unwrap());
}

#[test]
fn one_seed_gives_one_history() {
    let run = |seed| {
        let mut simulation = Simulation::new(seed);
        for _ in 0..3 {
            let mut node = simulation.open().unwrap();
            for _ in 0..50 {
                simulation.turn(&mut node).unwrap();
            }
            drop(node);
            simulation.crash();
        }
        let files = simulation.disk.files();
        let bytes: Vec<_> = files.iter().map(|(path, _)| simulation.disk.read(path)).collect();
        (simulation.expected, files, bytes)
    };
    for seed in seeds(10) {
        assert!(run(seed) == run(seed), "seed {seed}");
    }
}
