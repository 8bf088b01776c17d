//! The raft thread on a real disk.

use std::sync::mpsc::{Receiver, channel, sync_channel};
use std::time::Duration;

use cluster::{
    Config, DataDir, Error, GroupBackup, GroupId, Groups, NoPeers, Refusal, Restoration, Running,
    start,
};

use crate::chronicle::{Chronicle, Ledger, command};

type Told = Receiver<Result<u64, Refusal>>;

fn run(config: &Config) -> (Groups<u64, u64>, Running, Told) {
    try_run(config).unwrap()
}

fn try_run(config: &Config) -> Result<(Groups<u64, u64>, Running, Told), Error> {
    let (groups, inbox) = Groups::new(config);
    let (told, hear) = channel();
    let host = Ledger { told: Some(told), ..Ledger::default() };
    let data = DataDir::open(&config.data).unwrap();
    let mut running = start(config.clone(), data, inbox, |_| Chronicle::default(), host, NoPeers)?;
    running.wait_started()?;
    Ok((groups, running, hear))
}

fn hear(told: &Told) -> Result<u64, Refusal> {
    told.recv_timeout(Duration::from_secs(20)).unwrap()
}

#[test]
fn commands_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { segment_bytes: 1 << 20, min_free_bytes: 0, ..Config::new(dir.path(), 4) };
    let mut number = 0;
    for life in 0..4 {
        let (groups, running, told) = run(&config);
        for _ in 0..50 {
            number += 1;
            groups.try_propose(GroupId(number as u32 % 5), command(number, 100), number).unwrap();
        }
        for _ in 0..50 {
            hear(&told).unwrap();
        }
        groups.signal(life).unwrap();
        running.stop().unwrap();
        let late = groups.try_propose(GroupId(0), command(0, 1), 0).unwrap_err();
        assert_eq!(late.why, Refusal::Stopping);
    }
}

#[test]
fn a_life_that_is_too_early_ends_and_the_next_is_not() {
    const AHEAD: u64 = 1 << 60;
    let dir = tempfile::tempdir().unwrap();
    let config = Config { segment_bytes: 1 << 20, ..Config::new(dir.path(), 1) };
    let (groups, running, told) = run(&Config { incarnation: AHEAD, ..config.clone() });
    groups.try_propose(GroupId(0), command(1, 10), 1).unwrap();
    hear(&told).unwrap();
    running.stop().unwrap();
    let error = try_run(&config).err().unwrap();
    assert!(matches!(error, Error::Outlived { node: 1, life: AHEAD, .. }), "{error}");
    let (groups, running, told) = run(&config);
    groups.try_propose(GroupId(0), command(2, 10), 2).unwrap();
    assert_eq!(hear(&told), Ok(2));
    running.stop().unwrap();
}

#[test]
fn a_second_node_on_the_same_data_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { segment_bytes: 1 << 20, ..Config::new(dir.path(), 1) };
    let (_groups, running, _told) = run(&config);
    let error = DataDir::open(&config.data).unwrap_err();
    assert!(error.to_string().contains("in use by process"), "{error}");
    running.stop().unwrap();
    DataDir::open(&config.data).unwrap();
}

#[test]
fn what_does_not_fit_is_refused_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        segment_bytes: 1 << 20,
        max_command_bytes: 1000,
        min_free_bytes: 0,
        ..Config::new(dir.path(), 1)
    };
    let (groups, running, told) = run(&config);
    let large = groups.try_propose(GroupId(0), command(1, 1000), 1).unwrap_err();
    assert_eq!(large.why, Refusal::TooLarge);
    groups.try_propose(GroupId(9), command(2, 10), 2).unwrap();
    assert_eq!(hear(&told), Err(Refusal::UnknownGroup));
    running.stop().unwrap();
    let full = Config { min_free_bytes: u64::MAX, ..config };
    let (groups, running, told) = run(&full);
    groups.try_propose(GroupId(0), command(3, 10), 3).unwrap();
    assert_eq!(hear(&told), Err(Refusal::DiskFull));
    running.stop().unwrap();
}

fn capture(groups: &Groups<u64, u64>) -> Vec<GroupBackup> {
    let (taker, taken) = sync_channel(1);
    groups.capture(taker);
    taken.iter().collect()
}

#[test]
fn another_cluster_goes_on_from_a_backup() {
    let old = tempfile::tempdir().unwrap();
    let small = |config| Config { segment_bytes: 1 << 20, min_free_bytes: 0, ..config };
    let (groups, running, told) = run(&small(Config::new(old.path(), 2)));
    for number in 1..=20 {
        groups.try_propose(GroupId(number as u32 % 3), command(number, 100), number).unwrap();
        hear(&told).unwrap();
    }
    let backup = capture(&groups);
    running.stop().unwrap();
    assert_eq!(backup.iter().map(|it| it.group.0).collect::<Vec<_>>(), [0, 1, 2]);

    let new = tempfile::tempdir().unwrap();
    let mut config = small(Config { node: 7, ..Config::new(new.path(), 2) });
    config.groups.iter_mut().for_each(|group| group.voters = vec![7]);
    let mut restoration = Restoration::begin(&config).unwrap();
    for group in &backup {
        restoration.put(group.group, group.applied, group.pairs().unwrap()).unwrap();
    }
    restoration.finish().unwrap();
    let again = Restoration::begin(&config).err().unwrap().to_string();
    assert!(again.contains("there is state of it already"), "{again}");

    let (groups, running, told) = run(&config);
    let restored = capture(&groups);
    for (old, new) in backup.iter().zip(&restored) {
        assert_eq!(old.pairs().unwrap(), new.pairs().unwrap());
        assert!(new.applied > old.applied);
    }
    groups.try_propose(GroupId(1), command(21, 10), 21).unwrap();
    assert_eq!(hear(&told), Ok(21));
    running.stop().unwrap();
    let (_, running, _told) = run(&config);
    running.stop().unwrap();
}
