//! Shadow documents by thing and name, with the tombstones of deleted ones.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use shadow::Record;

/// How many forgotten tombstones one command clears away, so that none pays for all.
const CLEARED: usize = 4;

/// Thing and name of a shadow as bytes that sort by thing, the classic shadow first.
///
/// Names hold no NUL, so the one behind the thing cannot be part of it.
pub(super) fn key(thing: &str, name: Option<&str>) -> Vec<u8> {
    let mut key = Vec::with_capacity(thing.len() + 2 + name.map_or(0, str::len));
    key.extend_from_slice(thing.as_bytes());
    key.push(0);
    if let Some(name) = name {
        key.push(1);
        key.extend_from_slice(name.as_bytes());
    }
    key
}

#[derive(Default)]
pub(super) struct Shadows {
    records: BTreeMap<Box<[u8]>, Record>,
    /// When and what was deleted.
    tombstones: BTreeSet<(u64, Box<[u8]>)>,
    /// Keys whose record is not what the last checkpoint holds.
    changed: BTreeSet<Box<[u8]>>,
}

impl Shadows {
    /// Shadows that exist.
    pub(super) fn len(&self) -> usize {
        self.records.len() - self.tombstones.len()
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&Record> {
        self.records.get(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &Record)> {
        self.records.iter().map(|(key, record)| (&**key, record))
    }

    /// Names of the named shadows of a thing, ordered, after a name.
    pub(super) fn names(&self, thing: &str, after: Option<&str>, limit: usize) -> Vec<&str> {
        let prefix = key(thing, Some(""));
        let after = after.map_or(Bound::Included(prefix.clone()), |name| {
            Bound::Excluded(key(thing, Some(name)))
        });
        self.records
            .range::<[u8], _>((after.as_ref().map(Vec::as_slice), Bound::Unbounded))
            .map_while(|(key, record)| Some((key.strip_prefix(&*prefix)?, record)))
            .filter(|(_, record)| matches!(record, Record::Present(_)))
            .filter_map(|(name, _)| std::str::from_utf8(name).ok())
            .take(limit)
            .collect()
    }

    pub(super) fn put(&mut self, key: &[u8], record: Record, now_secs: u64) {
        self.clear_forgotten(now_secs);
        self.changed.insert(key.into());
        self.restore(key, record);
    }

    /// Puts a record in its place without noting a change.
    pub(super) fn restore(&mut self, key: &[u8], record: Record) {
        let deleted = deleted_at(&record);
        let old = self.records.insert(key.into(), record);
        if let Some(at) = old.as_ref().and_then(deleted_at) {
            self.tombstones.remove(&(at, key.into()));
        }
        if let Some(at) = deleted {
            self.tombstones.insert((at, key.into()));
        }
    }

    /// What changed since the last checkpoint, ordered by key.
    pub(super) fn settle(&mut self, mut change: impl FnMut(&[u8], Option<&Record>)) {
        for key in std::mem::take(&mut self.changed) {
            change(&key, self.records.get(&key));
        }
    }

    fn clear_forgotten(&mut self, now_secs: u64) {
        for _ in 0..CLEARED {
            let Some((_, key)) = self.tombstones.first() else { break };
            if !self.records.get(key).is_some_and(|record| record.is_forgotten(now_secs)) {
                break;
            }
            let Some((_, key)) = self.tombstones.pop_first() else { break };
            self.records.remove(&key);
            self.changed.insert(key);
        }
    }
}

fn deleted_at(record: &Record) -> Option<u64> {
    match record {
        Record::Present(_) => None,
        Record::Deleted(tombstone) => Some(tombstone.deleted_at),
    }
}
