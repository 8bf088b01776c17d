//! The log against a model, over disks that crash, rot, fill up and refuse to sync.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::*;
use crate::dice::seeds;
use crate::sim::SimDisk;

const DIR: &str = "/log";

/// What a group's log should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    hard_state: HardState,
    compacted: (u64, u64),
    entries: Vec<Entry>,
}

impl Model {
    fn last(&self) -> u64 {
        self.entries.last().map_or(self.compacted.0, |entry| entry.index)
    }
}

type Models = BTreeMap<Group, Model>;

fn options(seed: u64) -> Options {
    Options { segment_bytes: 16 << 10, truncate_at_corruption: false, seed: Some(seed) }
}

fn open(disk: &SimDisk, seed: u64) -> Result<Log, OpenError> {
    Log::open(Arc::new(disk.clone()), Path::new(DIR), &options(seed))
}

fn held(log: &Log) -> Models {
    let mut models = Models::new();
    for group in log.groups() {
        let compacted = log.compacted(group);
        let range = compacted.0 + 1..=log.last_index(group);
        let entries = range.map(|index| log.entry(group, index).unwrap()).collect();
        let hard_state = log.hard_state(group);
        models.insert(group, Model { hard_state, compacted, entries });
    }
    models
}

/// Adds random changes to a batch and to the models.
fn random_changes(dice: &mut Dice, batch: &mut Batch, models: &mut Models) {
    for _ in 0..1 + dice.below(4) {
        let group = dice.below(3) as Group;
        let model = models.entry(group).or_default();
        match dice.below(10) {
            0..7 => {
                let overwrite = dice.one_in(8) && !model.entries.is_empty();
                if overwrite {
                    let keep = dice.below(model.entries.len() as u64) as usize;
                    model.entries.truncate(keep);
                    model.hard_state.term += 1;
                    batch.hard_state(group, model.hard_state);
                }
                for _ in 0..1 + dice.below(3) {
                    let len = if dice.one_in(20) { 9000 } else { dice.below(700) };
                    let data = Bytes::from(vec![dice.bits() as u8; len as usize]);
                    let term = model.hard_state.term;
                    let entry = Entry { index: model.last() + 1, term, data };
                    batch.entry(group, entry.index, entry.term, entry.data.clone());
                    model.entries.push(entry);
                }
            }
            7 => {
                let state = HardState {
                    term: model.hard_state.term + dice.below(2),
                    vote: 1,
                    commit: model.last(),
                };
                batch.hard_state(group, state);
                model.hard_state = state;
            }
            _ => {
                let count = dice.below(model.entries.len() as u64 + 1) as usize;
                if let Some(entry) = model.entries[..count].last() {
                    model.compacted = (entry.index, entry.term);
                    batch.compact(group, entry.index, entry.term);
                    model.entries.drain(..count);
                } else if dice.one_in(30) {
                    model.compacted = (model.last() + 5, model.hard_state.term);
                    batch.compact(group, model.compacted.0, model.compacted.1);
                    model.entries.clear();
                }
            }
        }
    }
}

/// Compacts everything that is old, so that segments go.
fn compact_all(batch: &mut Batch, models: &mut Models) {
    for (&group, model) in models {
        if let Some(entry) = model.entries.pop() {
            model.compacted = (entry.index, entry.term);
            model.entries.clear();
            batch.compact(group, entry.index, entry.term);
        }
    }
}

fn same(found: &Models, expected: &Models) -> bool {
    let default = Model::default();
    (0..3).all(|group| {
        found.get(&group).unwrap_or(&default) == expected.get(&group).unwrap_or(&default)
    })
}

/// The same, but that more may be compacted: what was dropped may have said so.
fn same_but_compacted(found: &Models, expected: &Models) -> bool {
    let default = Model::default();
    (0..3).all(|group| {
        let found = found.get(&group).unwrap_or(&default);
        let expected = expected.get(&group).unwrap_or(&default);
        found.hard_state == expected.hard_state
            && found.last() == expected.last()
            && expected.entries.ends_with(&found.entries)
    })
}

/// The last segment's file.
fn last_segment(disk: &SimDisk) -> PathBuf {
    let files = disk.files();
    let logs = files.iter().filter(|(path, _)| path.extension().is_some_and(|ext| ext == "log"));
    logs.map(|(path, _)| path.clone()).max().unwrap()
}

#[test]
fn what_was_appended_is_found_after_any_crash() {
    for seed in seeds(400) {
        let mut dice = Dice::new(seed);
        let disk = SimDisk::new(seed);
        let mut acknowledged = Models::new();
        for life in 0..6 {
            let mut log = open(&disk, seed).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            let found = held(&log);
            assert!(same(&found, &acknowledged), "seed {seed} life {life}: {found:?}");
            let mut batch = Batch::new();
            for _ in 0..dice.below(40) {
                let mut after = acknowledged.clone();
                random_changes(&mut dice, &mut batch, &mut after);
                if dice.one_in(10) {
                    compact_all(&mut batch, &mut after);
                }
                log.append(&mut batch).unwrap();
                acknowledged = after;
                if dice.one_in(5) {
                    log.mark();
                }
                let group = dice.below(3) as Group;
                log.forget(group, dice.below(log.last_index(group) + 1));
            }
            assert!(same(&held(&log), &acknowledged), "seed {seed} life {life} before the crash");
            match dice.below(3) {
                0 => log.seal().unwrap(),
                1 => disk.kill(),
                // A batch that is written and never synced.
                _ => {
                    let mut after = acknowledged.clone();
                    random_changes(&mut dice, &mut batch, &mut after);
                    disk.fail_syncs();
                    let failed = log.append(&mut batch);
                    assert!(matches!(failed, Err(AppendError::Failed(_))), "seed {seed}");
                    let again = log.append(&mut batch);
                    assert!(matches!(again, Err(AppendError::Failed(_))), "seed {seed}");
                    disk.crash();
                    let log = open(&disk, seed).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
                    let found = held(&log);
                    if same(&found, &after) {
                        acknowledged = after;
                    }
                    assert!(same(&found, &acknowledged), "seed {seed}: half a batch");
                }
            }
            disk.crash();
        }
    }
}

#[test]
fn a_flipped_bit_is_never_taken_for_data() {
    let (mut refused, mut harmless, mut last_batch) = (0, 0, 0);
    for seed in seeds(400) {
        let mut dice = Dice::new(seed);
        let disk = SimDisk::new(seed);
        let mut log = open(&disk, seed).unwrap();
        let mut batch = Batch::new();
        let (mut models, mut before) = (Models::new(), Models::new());
        for _ in 0..1 + dice.below(30) {
            before = models.clone();
            random_changes(&mut dice, &mut batch, &mut models);
            log.append(&mut batch).unwrap();
        }
        let proven = match dice.below(3) {
            0 => {
                log.mark();
                disk.kill();
                true
            }
            1 => {
                log.seal().unwrap();
                true
            }
            _ => {
                disk.crash();
                false
            }
        };
        let mut files = disk.files();
        files.retain(|(path, _)| segment_id_of(path).is_some());
        let (path, len) = &files[dice.below(files.len() as u64) as usize];
        disk.flip(path, dice.below(*len), dice.below(8) as u8);
        match open(&disk, seed) {
            Err(OpenError::Corrupt { path: named, .. }) => {
                assert_eq!(&named, path, "seed {seed}");
                refused += 1;
            }
            Err(error) => panic!("seed {seed}: {error}"),
            Ok(log) if same(&held(&log), &models) => harmless += 1,
            Ok(log) => {
                assert!(same(&held(&log), &before), "seed {seed}: wrong data");
                assert!(!proven, "seed {seed}: the last batch was dropped though it was synced");
                assert!(log.found().torn_bytes > 0, "seed {seed}: dropped in silence");
                last_batch += 1;
            }
        }
    }
    println!("refused {refused}, harmless {harmless}, last batch dropped {last_batch}");
}

#[test]
fn a_damaged_log_opens_when_the_loss_is_accepted() {
    let mut lossy = 0;
    for seed in seeds(200) {
        let mut dice = Dice::new(seed);
        let disk = SimDisk::new(seed);
        let mut log = open(&disk, seed).unwrap();
        let mut batch = Batch::new();
        let mut history = vec![Models::new()];
        for _ in 0..1 + dice.below(60) {
            let mut models = history.last().unwrap().clone();
            random_changes(&mut dice, &mut batch, &mut models);
            log.append(&mut batch).unwrap();
            history.push(models);
        }
        log.seal().unwrap();
        let files = disk.files();
        let logs: Vec<_> = files.iter().filter(|(path, _)| segment_id_of(path).is_some()).collect();
        let (path, len) = logs[dice.below(logs.len() as u64) as usize];
        for _ in 0..3 {
            disk.flip(path, dice.below(*len), dice.below(8) as u8);
        }
        let damaged = matches!(open(&disk, seed), Err(OpenError::Corrupt { .. }));
        lossy += usize::from(damaged);
        let lenient = Options { truncate_at_corruption: true, ..options(seed) };
        let dir = Path::new(DIR);
        let mut log = match Log::open(Arc::new(disk.clone()), dir, &lenient) {
            Ok(log) => log,
            Err(error) => panic!("seed {seed}: {error}"),
        };
        assert_eq!(damaged, log.found().lost_bytes > 0, "seed {seed}");
        let found = held(&log);
        let known = history.iter().any(|models| same_but_compacted(&found, models));
        assert!(known, "seed {seed}: no such state");
        let mut models = found;
        // It goes on from there, and what was dropped never comes back.
        for _ in 0..20 {
            random_changes(&mut dice, &mut batch, &mut models);
            log.append(&mut batch).unwrap();
        }
        disk.crash();
        assert!(same(&held(&open(&disk, seed).unwrap()), &models), "seed {seed}");
    }
    println!("{lossy} with loss");
}

fn segment_id_of(path: &Path) -> Option<u64> {
    segment::segment_id(path.file_name()?.to_str()?)
}

#[test]
fn a_full_disk_refuses_cleanly_and_recovers() {
    let mut refusals = 0;
    for seed in seeds(200) {
        let mut dice = Dice::new(seed);
        let disk = SimDisk::new(seed);
        let mut log = open(&disk, seed).unwrap();
        let mut models = Models::new();
        for _ in 0..60 {
            match dice.below(12) {
                0 => disk.set_capacity(disk.used_bytes() + dice.below(8 << 10)),
                1 => disk.fail_write_after(dice.below(3)),
                2..5 => disk.set_capacity(u64::MAX),
                _ => {}
            }
            let mut batch = Batch::new();
            let mut after = models.clone();
            random_changes(&mut dice, &mut batch, &mut after);
            if dice.one_in(6) {
                compact_all(&mut batch, &mut after);
            }
            let (growth, used) = (log.growth(batch.bytes()), disk.used_bytes());
            let reserved = dice.one_in(2).then(|| log.reserve(batch.bytes()));
            if let Some(Ok(())) = reserved {
                let grown = disk.used_bytes() - used;
                assert_eq!(grown, growth, "seed {seed}: not what was announced");
            }
            match log.append(&mut batch) {
                Ok(_) => models = after,
                Err(AppendError::Full(_)) => refusals += 1,
                // The disk failed where the log cannot go back, which it says.
                Err(AppendError::Failed(_)) if reserved.is_none_or(|it| it.is_err()) => {
                    disk.crash();
                    disk.set_capacity(u64::MAX);
                    log = open(&disk, seed).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
                }
                Err(error) => panic!("seed {seed}: {error}"),
            }
            assert!(same(&held(&log), &models), "seed {seed}");
        }
        disk.crash();
        disk.set_capacity(u64::MAX);
        let log = open(&disk, seed).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        assert!(same(&held(&log), &models), "seed {seed}: a refused batch was found");
    }
    println!("{refusals} refusals");
}

#[test]
fn a_start_needs_no_room_on_the_disk() {
    let options = Options { segment_bytes: 1 << 20, ..options(3) };
    let disk = SimDisk::new(3);
    let start = || Log::open(Arc::new(disk.clone()), Path::new(DIR), &options);
    let mut log = start().unwrap();
    let mut batch = Batch::new();
    batch.entry(7, 1, 1, Bytes::from(vec![1; 100_000]));
    log.append(&mut batch).unwrap();
    let before = held(&log);
    for _ in 0..3 {
        drop(log);
        disk.crash();
        disk.set_capacity(disk.used_bytes());
        log = start().unwrap();
        assert!(same(&held(&log), &before));
        batch.entry(7, 2, 1, Bytes::from(vec![2; 1 << 20]));
        assert!(matches!(log.append(&mut batch), Err(AppendError::Full(_))));
        batch.clear();
    }
    disk.set_capacity(u64::MAX);
    batch.entry(7, 2, 1, Bytes::from(vec![2; 1 << 20]));
    log.append(&mut batch).unwrap();
    let after = held(&log);
    drop(log);
    disk.crash();
    assert!(same(&held(&start().unwrap()), &after));
}

/// Also what an orderly stop has left is found so, however many starts have failed since.
#[test]
fn what_the_log_does_not_need_is_given_back() {
    let options = Options { segment_bytes: 1 << 20, ..options(4) };
    let disk = SimDisk::new(4);
    let start = || Log::open(Arc::new(disk.clone()), Path::new(DIR), &options);
    let give_back = || Log::give_back(Arc::new(disk.clone()), Path::new(DIR), &options);
    let mut batch = Batch::new();
    for (orderly, compacted) in [(false, 0), (true, 0), (true, 30), (false, 60)] {
        let mut log = start().unwrap();
        for _ in 0..30 {
            let index = log.last_index(7) + 1;
            batch.entry(7, index, 1, Bytes::from(vec![1; 100_000]));
            log.append(&mut batch).unwrap();
        }
        if compacted > 0 {
            batch.compact(7, compacted, 1);
            log.append(&mut batch).unwrap();
        }
        let before = held(&log);
        match orderly {
            true => log.seal().unwrap(),
            false => drop(log),
        }
        disk.crash();
        for _ in 0..2 {
            give_back().unwrap();
            let bytes: usize = before[&7].entries.iter().map(|entry| entry.data.len()).sum();
            // Of the oldest segment some is compacted.
            assert!(disk.used_bytes() < bytes as u64 + (1 << 20) + (64 << 10));
        }
        disk.set_capacity(0);
        start().map(drop).unwrap_err();
        disk.set_capacity(u64::MAX);
        let log = start().unwrap();
        assert_eq!(log.found().clean, orderly, "{compacted}");
        assert!(same(&held(&log), &before));
    }
}

#[test]
fn compacted_segments_go_and_are_used_again() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk, 1).unwrap();
    let mut batch = Batch::new();
    for index in 1..=2000 {
        batch.entry(7, index, 1, Bytes::from(vec![index as u8; 300]));
        if index % 20 == 0 {
            batch.compact(7, index - 10, 1);
        }
        log.append(&mut batch).unwrap();
    }
    assert!(disk.files().len() <= 5, "{:?}", disk.files());
    assert!(log.bytes() < 64 << 10, "{}", log.bytes());
    assert_eq!(log.term(7, 1990), Some(1));
    assert_eq!(log.term(7, 1989), None);
    assert!(matches!(log.entry(7, 1989), Err(ReadError::Absent { .. })));
    assert_eq!(log.entry(7, 1991).unwrap().data[0], 1991_u64 as u8);
}

#[test]
fn a_missing_segment_is_missed() {
    for (which, name) in [(0, "0000000000000001.log"), (1, "0000000000000002.log")] {
        let disk = SimDisk::new(which);
        let mut log = open(&disk, which).unwrap();
        let mut batch = Batch::new();
        for index in 1..=100 {
            batch.entry(0, index, 1, Bytes::from(vec![0; 400]));
            log.append(&mut batch).unwrap();
        }
        assert!(disk.files().len() > 3);
        drop(log);
        disk.remove(&Path::new(DIR).join(name)).unwrap();
        let error = open(&disk, which).err().unwrap().to_string();
        assert!(error.contains("missing"), "{error}");
    }
}

#[test]
fn an_entry_that_rots_while_the_log_is_open_is_found_out() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk, 1).unwrap();
    let mut batch = Batch::new();
    batch.entry(3, 1, 1, Bytes::from(vec![5; 4000]));
    log.append(&mut batch).unwrap();
    log.forget(3, 1);
    disk.flip(&last_segment(&disk), 2000, 3);
    let error = log.entry(3, 1).unwrap_err();
    assert!(matches!(error, ReadError::Corrupt { group: 3, index: 1, .. }), "{error}");
}

#[test]
fn a_payload_that_looks_like_a_batch_is_not_one() {
    let disk = SimDisk::new(4);
    let mut log = open(&disk, 4).unwrap();
    let mut batch = Batch::new();
    // What an attacker would send who knows everything but the salt.
    let header = BatchHeader {
        kind: BatchKind::Data,
        sequence: 1000,
        body_len: 0,
        count: 0,
        synced: 999,
        body_crc: 0,
    };
    let sector: Vec<u8> = header.encode(0).into_iter().chain([0; 512 - BATCH_HEADER]).collect();
    batch.entry(0, 1, 1, Bytes::from(vec![1; 100]));
    log.append(&mut batch).unwrap();
    let padding = 512 - (BATCH_HEADER + format::RECORD_HEADER + 16);
    let data: Vec<u8> = vec![0; padding].into_iter().chain(sector.repeat(8)).collect();
    batch.entry(0, 2, 1, Bytes::from(data));
    log.append(&mut batch).unwrap();
    let path = last_segment(&disk);
    drop(log);
    disk.flip(&path, 512 + 512 + 512 + 60, 0);
    let log = open(&disk, 4).unwrap();
    assert_eq!(log.last_index(0), 1, "the torn batch is dropped, not taken for damage");
}

#[test]
fn overwritten_entries_are_gone_from_memory_and_from_disk_after_any_crash() {
    for seed in seeds(100) {
        let disk = SimDisk::new(seed);
        let mut dice = Dice::new(seed);
        let mut log = open(&disk, seed).unwrap();
        let data = |term: u64, index: u64| Bytes::from(format!("{term}.{index}").repeat(40));
        let mut expected: Vec<Entry> = Vec::new();
        for term in 1..12 {
            // The next leader keeps what is applied, and cuts the rest anywhere.
            let applied = expected.len() / 2;
            let kept = applied + dice.below((expected.len() - applied) as u64 + 1) as usize;
            let after: Vec<_> = (kept as u64 + 1..kept as u64 + 2 + dice.below(30))
                .map(|index| Entry { index, term, data: data(term, index) })
                .collect();
            let mut batch = Batch::new();
            for Entry { index, term, data } in after.clone() {
                batch.entry(1, index, term, data);
            }
            let mut cut = expected.clone();
            cut.truncate(kept);
            cut.extend(after);
            log.forget(1, applied as u64);
            let torn = dice.one_in(3);
            if torn {
                disk.fail_syncs();
                log.append(&mut batch).unwrap_err();
            } else {
                log.append(&mut batch).unwrap();
                let found: Vec<_> =
                    (1..=log.last_index(1)).map(|index| log.entry(1, index).unwrap()).collect();
                assert_eq!(found, cut, "seed {seed}: memory");
                expected = cut.clone();
            }
            if torn || dice.one_in(4) {
                drop(log);
                disk.crash();
                log = open(&disk, seed).unwrap();
                let found: Vec<_> =
                    (1..=log.last_index(1)).map(|index| log.entry(1, index).unwrap()).collect();
                // What was not synced may be there, but only as a whole.
                assert!(found == expected || torn && found == cut, "seed {seed}: disk");
                expected = found;
            }
            assert!(expected.iter().all(|it| log.tag(1, it.index) == it.data[0]), "seed {seed}");
        }
    }
}
