//! Values with versions: a version is one value for everybody, grows by one with each write, and
//! follows the order in which operations happened.

use std::collections::{BTreeMap, BTreeSet};

use super::{Promise, Verdict};
use crate::record::{At, Event, What};

/// An operation that was answered with a version.
struct Operation {
    asked: At,
    end: At,
    version: u64,
    value: u64,
    is_write: bool,
}

#[derive(Default)]
struct Key<'a> {
    operations: Vec<Operation>,
    told: BTreeMap<&'a str, Vec<(u64, u64)>>,
}

pub(super) fn check(history: &[Event], verdict: &mut Verdict) {
    let mut keys: BTreeMap<&str, Key<'_>> = BTreeMap::new();
    for Event { at, what } in history {
        match what {
            What::Wrote { key, value, asked, version: Some(version), .. } => {
                keys.entry(key).or_default().note(*asked, *at, *version, *value, true);
            }
            What::Read { key, value, asked, version: Some(version) } => {
                keys.entry(key).or_default().note(*asked, *at, *version, *value, false);
            }
            What::Told { client, key, value, version } => {
                let told = &mut keys.entry(key).or_default().told;
                told.entry(client).or_default().push((*version, *value));
            }
            _ => {}
        }
    }
    for (name, mut key) in keys {
        verdict.tell(Promise::Versions, name, &key.ambiguous());
        verdict.tell(Promise::Latest, name, &key.stale());
        verdict.tell(Promise::Versions, name, &key.untold());
    }
}

impl Key<'_> {
    fn note(&mut self, asked: At, end: At, version: u64, value: u64, is_write: bool) {
        self.operations.push(Operation { asked, end, version, value, is_write });
    }

    /// A version that is two values, and a value that is two versions.
    fn ambiguous(&self) -> Vec<String> {
        let (mut values, mut versions) = (BTreeMap::new(), BTreeMap::new());
        let mut found = Vec::new();
        let operations = self.operations.iter().map(|it| (it.version, it.value));
        for (version, value) in operations.chain(self.told.values().flatten().copied()) {
            let before = *values.entry(version).or_insert(value);
            if before != value {
                found.push(format!("version {version} is {before} and {value}"));
            }
            let before = *versions.entry(value).or_insert(version);
            if before != version {
                found.push(format!("{value} is version {before} and {version}"));
            }
        }
        found.sort();
        found.dedup();
        found
    }

    /// What began after another was over has a greater version if it wrote, and no lesser one if
    /// it read.
    fn stale(&mut self) -> Vec<String> {
        self.operations.sort_by_key(|it| it.asked);
        let mut by_end: Vec<(At, u64)> =
            self.operations.iter().map(|it| (it.end, it.version)).collect();
        by_end.sort();
        let mut over = by_end.into_iter().peekable();
        let mut newest = 0;
        let mut found = Vec::new();
        for it in &self.operations {
            while let Some((_, version)) = over.next_if(|(end, _)| *end < it.asked) {
                newest = newest.max(version);
            }
            if it.version < newest + u64::from(it.is_write) {
                let done = if it.is_write { "written" } else { "read" };
                found.push(format!(
                    "version {} was {done} at {:?}, when {newest} was there",
                    it.version, it.asked
                ));
            }
        }
        found
    }

    /// Sessions are told of every version from the first to the last, in order.
    fn untold(&self) -> Vec<String> {
        let last = self.operations.iter().map(|it| it.version).max().unwrap_or(0);
        let mut found = Vec::new();
        for (client, told) in &self.told {
            let seen: BTreeSet<u64> = told.iter().map(|(version, _)| *version).collect();
            let last = last.max(seen.last().copied().unwrap_or(0));
            let missing = (1..=last).filter(|version| !seen.contains(version));
            found.extend(missing.map(|version| format!("{client} was not told of {version}")));
            let mut highest = 0;
            let mut fresh = BTreeSet::new();
            for (version, _) in told.iter().filter(|(version, _)| fresh.insert(*version)) {
                if *version < highest {
                    found.push(format!("{client} was told of {version} after {highest}"));
                }
                highest = highest.max(*version);
            }
        }
        found
    }
}
