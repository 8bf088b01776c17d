//! A real process on a real disk, killed at any moment: the log and sled as they ship.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use cluster::{Config, DataDir, GroupId, Groups, NoPeers, start};
use storage::dice::Dice;

use crate::chronicle::{Chronicle, Ledger, command};

const DIR: &str = "SKEIN_KILL_DIR";
const GROUPS: u32 = 3;

fn config(dir: &Path) -> Config {
    Config {
        segment_bytes: 256 << 10,
        checkpoint_bytes: 128 << 10,
        min_free_bytes: 0,
        ..Config::new(dir, GROUPS - 1)
    }
}

/// The child: says what each machine holds, then proposes without end and says each outcome.
#[test]
#[ignore = "the child of `acknowledged_commands_survive_kill_9`"]
fn child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let config = config(Path::new(&dir));
    let (groups, inbox) = Groups::new(&config);
    let (told, hear) = channel();
    let host = Ledger { told: Some(told), held: Some(Vec::new()), ..Ledger::default() };
    let data = DataDir::open(&config.data).unwrap();
    let mut running = start(config, data, inbox, |_| Chronicle::default(), host, NoPeers).unwrap();
    running.wait_started().unwrap();
    let mut out = std::io::stdout().lock();
    groups.signal(0).unwrap();
    let mut last = 0;
    let held = hear.recv().unwrap().unwrap();
    for _ in 0..held {
        let number = hear.recv().unwrap().unwrap();
        last = last.max(number);
        writeln!(out, "held {number}").unwrap();
    }
    writeln!(out, "running").unwrap();
    let mut waiting = 0;
    loop {
        while waiting < 64 {
            last += 1;
            waiting += 1;
            let group = GroupId(last as u32 % GROUPS);
            groups.try_propose(group, command(last, last as usize % 400), last).unwrap();
        }
        let number = hear.recv().unwrap().unwrap();
        waiting -= 1;
        writeln!(out, "acknowledged {number}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn acknowledged_commands_survive_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut dice = Dice::new(1);
    let mut acknowledged = 0;
    for life in 0..8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::child", "--ignored", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut held = Vec::new();
        let mut number_after = |word: &str| loop {
            let line = lines.next().map(Result::unwrap)?;
            if line.ends_with("running") {
                return None;
            }
            if let Some((_, number)) = line.split_once(word) {
                return number.trim().parse::<u64>().ok();
            }
        };
        while let Some(number) = number_after("held ") {
            held.push(number);
        }
        // Proposals are numbered without a gap, so what is there must be too.
        held.sort_unstable();
        let count = held.len() as u64;
        assert!(held.iter().copied().eq(1..=count), "life {life}: lost or doubled: {held:?}");
        assert!(count >= acknowledged, "life {life}: {count} of {acknowledged} acknowledged");
        acknowledged = count;
        let until = Instant::now() + Duration::from_millis(100 + dice.below(500));
        while Instant::now() < until {
            acknowledged = acknowledged.max(number_after("acknowledged ").unwrap());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        while let Some(number) = number_after("acknowledged ") {
            acknowledged = acknowledged.max(number);
        }
    }
    assert!(acknowledged > 0);
}
