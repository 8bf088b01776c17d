//! How many commands a second are committed, next to a bare loop that writes and syncs the same
//! bytes: `cargo run --release -p cluster --example commit_rate -- [DIRECTORY]`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster::{
    Config, DataDir, GroupId, Groups, GroupsView, Host, LoadError, NoPeers, OnFull, Pairs,
    Proposal, Refusal, StateMachine, Unreadable, start,
};

const SHARDS: u32 = 16;
const COMMAND_BYTES: usize = 256;
const SECONDS: f64 = 3.0;

/// Keeps the last command of each of a thousand keys, so that checkpoints have something to do.
#[derive(Default)]
struct Keys {
    applied: u64,
    changed: std::collections::BTreeMap<u64, Bytes>,
}

impl StateMachine for Keys {
    type Outcome = ();

    fn apply(&mut self, command: Bytes) -> Result<(), Unreadable> {
        self.applied += 1;
        self.changed.insert(self.applied % 1000, command);
        Ok(())
    }

    fn checkpoint(&mut self) -> Pairs {
        let changed = std::mem::take(&mut self.changed);
        let pair = |(key, value): (u64, Bytes)| (key.to_be_bytes().to_vec(), Some(value.to_vec()));
        changed.into_iter().map(pair).collect()
    }

    fn load(&mut self, _: &[u8], _: &[u8]) -> Result<(), LoadError> {
        Ok(())
    }

    fn loaded(&mut self) -> Result<(), LoadError> {
        Ok(())
    }
}

/// Gives each turn's answers back at once, as it would to a core.
struct Answers {
    turn: Vec<Instant>,
    to: Sender<Vec<Instant>>,
}

impl Host<Keys> for Answers {
    type Reply = Instant;
    type Signal = ();

    fn applied(&mut self, _: GroupId, _: &mut Keys, reply: Option<Instant>, (): ()) {
        self.turn.extend(reply);
    }

    fn refused(&mut self, _: Instant, why: Refusal) {
        panic!("refused: {why}");
    }

    fn signal(&mut self, _: &mut GroupsView<'_, Keys>, (): ()) {}

    fn ticked(&mut self, _: &mut GroupsView<'_, Keys>, _: u64) -> Vec<(GroupId, Bytes)> {
        Vec::new()
    }

    fn turn_ended(&mut self) {
        if !self.turn.is_empty() {
            let _ = self.to.send(std::mem::take(&mut self.turn));
        }
    }
}

/// What one run came to.
struct Rate {
    commands: f64,
    per_turn: f64,
    p50: Duration,
    p99: Duration,
}

fn committed(dir: &Path, in_flight: usize) -> Rate {
    let config = Config::new(dir.join(format!("groups-{in_flight}")), SHARDS);
    let (groups, inbox) = Groups::new(&config);
    let (to, answers) = channel();
    let host = Answers { turn: Vec::new(), to };
    let data = DataDir::open(&config.data).expect("a fresh directory");
    let mut running =
        start(config, data, inbox, |_| Keys::default(), host, NoPeers).expect("a fresh directory");
    running.wait_started().expect("a fresh directory");
    let command = Bytes::from(vec![7; COMMAND_BYTES]);
    let mut next = 0;
    let mut propose = |count: usize| {
        let now = Instant::now();
        let proposals = (0..count).map(|_| {
            next += 1;
            let group = GroupId(1 + next % SHARDS);
            Proposal { group, command: command.clone(), reply: Some(now), on_full: OnFull::Refuse }
        });
        groups.try_propose_all(proposals.collect()).expect("the inbox is larger");
    };
    propose(in_flight);
    let (mut count, mut turns, mut latencies) = (0, 0, Vec::new());
    let started = Instant::now();
    while started.elapsed().as_secs_f64() < SECONDS {
        let turn = answers.recv().expect("the raft thread runs");
        propose(turn.len());
        count += turn.len();
        turns += 1;
        latencies.push(turn[0].elapsed());
    }
    let seconds = started.elapsed().as_secs_f64();
    running.stop().expect("the disk works");
    latencies.sort_unstable();
    let at = |part: f64| latencies[(latencies.len() as f64 * part) as usize];
    Rate {
        commands: count as f64 / seconds,
        per_turn: count as f64 / f64::from(turns),
        p50: at(0.5),
        p99: at(0.99),
    }
}

/// Writes and syncs of `bytes` a second, in a file that has all its blocks.
fn bare(dir: &Path, bytes: usize) -> f64 {
    const LEN: u64 = 64 << 20;
    let file = File::create(dir.join("bare")).expect("the directory is writable");
    for at in (0..LEN).step_by(1 << 20) {
        file.write_all_at(&vec![0; 1 << 20], at).expect("the disk has room");
    }
    file.sync_all().expect("the disk works");
    let buffer = vec![7; bytes];
    let (mut at, mut count) = (0, 0);
    let started = Instant::now();
    while started.elapsed().as_secs_f64() < SECONDS {
        if at + bytes as u64 > LEN {
            at = 0;
        }
        file.write_all_at(&buffer, at).expect("the disk has room");
        file.sync_data().expect("the disk works");
        at += (bytes as u64).next_multiple_of(512);
        count += 1;
    }
    f64::from(count) / started.elapsed().as_secs_f64()
}

fn main() {
    let dir = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = dir.join(format!("commit-rate-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("the directory is writable");
    println!("in flight  commands/s  per turn  p50 µs  p99 µs  bare commands/s  of bare");
    for in_flight in [1, 16, 256, 4096] {
        let rate = committed(&dir, in_flight);
        let ceiling = bare(&dir, (rate.per_turn * COMMAND_BYTES as f64) as usize) * rate.per_turn;
        println!(
            "{in_flight:>9}  {:>10.0}  {:>8.1}  {:>6}  {:>6}  {ceiling:>15.0}  {:>6.2}",
            rate.commands,
            rate.per_turn,
            rate.p50.as_micros(),
            rate.p99.as_micros(),
            rate.commands / ceiling,
        );
    }
    let _ = std::fs::remove_dir_all(&dir);
}
