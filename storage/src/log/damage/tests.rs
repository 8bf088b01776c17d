//! Each kind of damage, and what is left.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::tests::{DIR, Model, Models, last_segment, open, options, random_changes};
use super::super::*;
use super::{DAMAGED, KEPT};
use crate::dice::seeds;
use crate::sim::SimDisk;

fn open_damaged(disk: &SimDisk, seed: u64) -> Log {
    let options = Options { on_damage: OnDamage::Leave { begun: true }, ..options(seed) };
    let opened = Log::open(Arc::new(disk.clone()), Path::new(DIR), &options);
    opened.unwrap_or_else(|error| panic!("seed {seed}: {error}"))
}

fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    let files = disk.files().into_iter().map(|(path, _)| path);
    files.filter(|path| path.extension().is_some_and(|it| it == "log")).collect()
}

/// A log of two groups in several segments: group 0 has needed nothing of the first two for long, group 1
/// everything.
fn two_groups() -> SimDisk {
    let disk = SimDisk::new(7);
    let mut log = open(&disk, 7).unwrap();
    let mut batch = Batch::new();
    for index in 1..=100 {
        batch.entry(0, index, 1, Bytes::from(vec![0; 200]));
        batch.entry(1, index, 1, Bytes::from(vec![1; 200]));
        batch.hard_state(0, HardState { term: 1, vote: 2, commit: index });
        log.append(&mut batch).unwrap();
    }
    batch.compact(0, 80, 1);
    log.append(&mut batch).unwrap();
    disk
}

#[test]
fn what_stands_behind_the_damage_is_left() {
    type Harm = fn(&SimDisk, &[PathBuf]);
    let cases: [(&str, Harm, &str, [Option<Lost>; 2]); 8] = [
        ("nothing", |_, _| {}, "", [None, None]),
        (
            "a flipped bit in the middle of a segment",
            |disk, files| disk.flip(&files[1], 9316, 3),
            "02.log",
            [None, Some(Lost::Entries { from: 1, to: 28 })],
        ),
        (
            "a segment's header",
            |disk, files| disk.flip(&files[1], 20, 3),
            "02.log",
            [None, Some(Lost::Entries { from: 1, to: 28 })],
        ),
        (
            "a segment that cannot be read",
            |disk, files| disk.fail_reads(&files[1]),
            "02.log",
            [None, Some(Lost::Entries { from: 1, to: 28 })],
        ),
        (
            "a missing segment",
            |disk, files| disk.remove(&files[1]).unwrap(),
            "02.log",
            [None, Some(Lost::Entries { from: 1, to: 28 })],
        ),
        (
            "the first segment is missing",
            |disk, files| disk.remove(&files[0]).unwrap(),
            "log",
            [None, Some(Lost::Entries { from: 1, to: 14 })],
        ),
        (
            "the last segment is missing",
            |disk, files| disk.remove(files.last().unwrap()).unwrap(),
            ".log",
            [Some(Lost::Everything); 2],
        ),
        (
            "all segments are missing",
            |disk, files| files.iter().for_each(|file| disk.remove(file).unwrap()),
            "log",
            [Some(Lost::Everything); 2],
        ),
    ];
    for (case, harm, named, lost) in cases {
        let disk = two_groups();
        harm(&disk, &segments(&disk));
        // The verdict stays until what is lost is known elsewhere.
        for _ in 0..3 {
            let log = open_damaged(&disk, 7);
            let damages: Vec<_> = log.damages().iter().collect();
            assert_eq!(damages.is_empty(), named.is_empty(), "{case}: {damages:?}");
            let says = |it: &&Damage| it.path.to_str().is_some_and(|path| path.ends_with(named));
            assert!(named.is_empty() || damages.iter().any(says), "{case}: {damages:?}");
            assert_eq!([log.lost(0), log.lost(1)], lost, "{case}");
            if lost[0].is_none() {
                assert_eq!(log.hard_state(0).vote, 2, "{case}");
                assert_eq!(log.entry(0, 100).unwrap().index, 100, "{case}");
            }
        }
    }
}

#[test]
fn whatever_rots_no_group_is_wrong_and_silent() {
    let (mut lost, mut kept) = (0, 0);
    for seed in seeds(400) {
        let mut dice = Dice::new(seed);
        let disk = SimDisk::new(seed);
        let mut log = open(&disk, seed).unwrap();
        let (mut batch, mut models) = (Batch::new(), Models::new());
        for _ in 0..20 + dice.below(100) {
            random_changes(&mut dice, &mut batch, &mut models);
            log.append(&mut batch).unwrap();
            if dice.one_in(40) {
                drop(log);
                log = open(&disk, seed).unwrap();
            }
        }
        drop(log);
        disk.kill();
        let files = segments(&disk);
        let file = &files[dice.below(files.len() as u64) as usize];
        match dice.below(3) {
            0 => disk.remove(file).unwrap(),
            // Damage to the last batch alone may look as if that was never finished.
            _ if *file == last_segment(&disk) => disk.flip(file, dice.below(52), 1),
            1 => disk.flip(file, dice.below(16 << 10), 1),
            _ => disk.fail_reads(file),
        }
        for _ in 0..2 {
            let log = open_damaged(&disk, seed);
            for (&group, model) in &models {
                match log.lost(group) {
                    None => assert_eq!(held_of(&log, group), *model, "seed {seed} group {group}"),
                    Some(Lost::Entries { from, to }) => {
                        assert_eq!(log.hard_state(group), model.hard_state, "seed {seed}");
                        assert!(from > model.compacted.0 && to <= model.last(), "seed {seed}");
                    }
                    Some(Lost::Everything) => {}
                }
            }
        }
        let mut log = open_damaged(&disk, seed);
        for group in 0..3 {
            if log.lost(group).is_some() {
                lost += 1;
                batch.begin_anew(group);
                batch.compact(group, 7, 1);
                let hard_state = log.hard_state(group);
                models.insert(group, Model { hard_state, compacted: (7, 1), entries: vec![] });
            } else {
                kept += 1;
            }
        }
        if !batch.is_empty() {
            log.append(&mut batch).unwrap();
        }
        log.set_aside().unwrap();
        drop(log);
        // Nothing of it is left to find, and what was not lost is as it was.
        let log = open(&disk, seed).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        for (&group, model) in &models {
            assert_eq!(held_of(&log, group), *model, "seed {seed} group {group}");
        }
    }
    println!("{lost} groups lost something, {kept} did not");
    assert!(lost > 0 && kept > 0);
}

fn held_of(log: &Log, group: Group) -> Model {
    let range = log.compacted(group).0 + 1..=log.last_index(group);
    let entries = range.map(|index| log.entry(group, index).unwrap()).collect();
    Model { hard_state: log.hard_state(group), compacted: log.compacted(group), entries }
}

#[test]
fn what_is_set_aside_is_kept_within_bounds() {
    let disk = SimDisk::new(3);
    let mut log = open(&disk, 3).unwrap();
    let mut batch = Batch::new();
    for index in 1..=300 {
        batch.entry(0, index, 1, Bytes::from(vec![0; 700]));
        log.append(&mut batch).unwrap();
    }
    drop(log);
    let files = segments(&disk);
    assert!(files.len() > KEPT + 2, "{files:?}");
    disk.flip(&files[files.len() - 2], 9316, 1);
    let aside = open_damaged(&disk, 3).set_aside().unwrap();
    assert_eq!(aside.len(), KEPT);
    let left = disk.files();
    let damaged: Vec<_> =
        left.iter().filter(|(path, _)| path.to_str().unwrap().ends_with(DAMAGED)).collect();
    assert_eq!(damaged.len(), KEPT);
    assert!(disk.read(&aside[0]).is_some());
}
