//! Where each group's entries are.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::format::{Place, Record};
use super::{Group, HardState};

/// Where an entry's record stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) term: u64,
    pub(super) segment: u64,
    pub(super) offset: u32,
    /// Bytes of the record, header included.
    pub(super) len: u32,
    /// The first byte of its data, 0 without any.
    pub(super) tag: u8,
}

/// One group's part of the log.
#[derive(Debug, Default)]
pub(super) struct GroupIndex {
    pub(super) hard_state: HardState,
    pub(super) compacted: (u64, u64),
    /// The last index; entries past `base - 1 + slots.len()` never exist.
    pub(super) last: u64,
    /// The index of the first slot. More than `compacted.0 + 1` only while old segments are read.
    base: u64,
    slots: VecDeque<Slot>,
    /// The newest entries' data; the first one's index is `last + 1 - recent.len()`.
    recent: VecDeque<Bytes>,
}

impl GroupIndex {
    pub(super) fn slot(&self, index: u64) -> Option<&Slot> {
        self.slots.get(usize::try_from(index.checked_sub(self.base)?).ok()?)
    }

    /// The data of an entry if it is still in memory.
    pub(super) fn recent(&self, index: u64) -> Option<&Bytes> {
        let first = self.last + 1 - self.recent.len() as u64;
        self.recent.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }

    /// Drops the data of entries up to `through` from memory.
    pub(super) fn forget(&mut self, through: u64) {
        let first = self.last + 1 - self.recent.len() as u64;
        let count = (through + 1).saturating_sub(first).min(self.recent.len() as u64);
        self.recent.drain(..count as usize);
        if self.recent.is_empty() && self.recent.capacity() > 1024 {
            self.recent = VecDeque::new();
        }
    }

    fn append(&mut self, index: u64, slot: Slot, data: Option<Bytes>) -> Result<(), String> {
        if index <= self.compacted.0 || index > self.last + 1 {
            let (compacted, last) = (self.compacted.0, self.last);
            return Err(format!(
                "entry {index} does not follow a log compacted to {compacted} that ends at {last}"
            ));
        }
        if index <= self.last {
            self.recent
                .truncate(self.recent.len().saturating_sub((self.last + 1 - index) as usize));
            self.slots.truncate(index.saturating_sub(self.base) as usize);
            self.base = self.base.min(index);
        }
        if self.slots.is_empty() {
            self.base = index;
        }
        self.slots.push_back(slot);
        self.last = index;
        match data {
            Some(data) => self.recent.push_back(data),
            None => self.recent.clear(),
        }
        Ok(())
    }

    fn compact(&mut self, index: u64, term: u64) -> Result<(), String> {
        if index < self.compacted.0 {
            return Err(format!("compaction goes back from {} to {index}", self.compacted.0));
        }
        self.compacted = (index, term);
        if index >= self.last {
            self.slots.clear();
            self.recent.clear();
            self.last = index;
            self.base = index + 1;
        } else if index >= self.base {
            self.slots.drain(..(index + 1 - self.base) as usize);
            self.base = index + 1;
            let keep = (self.last - index) as usize;
            self.recent.drain(..self.recent.len().saturating_sub(keep));
        }
        Ok(())
    }

    /// Entries that should be there and are not.
    pub(super) fn hole(&self) -> Option<(u64, u64)> {
        let first_missing = self.compacted.0 + 1;
        let base = if self.slots.is_empty() { self.last + 1 } else { self.base };
        (first_missing < base).then_some((first_missing, base - 1))
    }
}

/// All groups' parts of the log, in order of their numbers.
#[derive(Debug, Default)]
pub(super) struct Index {
    groups: BTreeMap<Group, GroupIndex>,
}

impl Index {
    pub(super) fn get(&self, group: Group) -> Option<&GroupIndex> {
        self.groups.get(&group)
    }

    pub(super) fn get_mut(&mut self, group: Group) -> Option<&mut GroupIndex> {
        self.groups.get_mut(&group)
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = Group> {
        self.groups.keys().copied()
    }

    pub(super) fn compacted(&self, group: Group) -> u64 {
        self.groups.get(&group).map_or(0, |group| group.compacted.0)
    }

    /// Takes in one record that stands in the log. `keep` holds an entry's data in memory.
    pub(super) fn take(
        &mut self,
        group: Group,
        record: Record,
        segment: u64,
        offset: u32,
        keep: bool,
    ) -> Result<(), String> {
        let len = record.len() as u32;
        match record {
            Record::Entry(entry) => {
                let tag = entry.data.first().copied().unwrap_or(0);
                let slot = Slot { term: entry.term, segment, offset, len, tag };
                let data = keep.then_some(entry.data);
                self.groups.entry(group).or_default().append(entry.index, slot, data)
            }
            Record::HardState(state) => {
                self.groups.entry(group).or_default().hard_state = state;
                Ok(())
            }
            Record::Compact { index: 0, .. } => {
                let group = self.groups.entry(group).or_default();
                *group = GroupIndex { hard_state: group.hard_state, base: 1, ..Default::default() };
                Ok(())
            }
            Record::Compact { index, term } => {
                self.groups.entry(group).or_default().compact(index, term)
            }
            Record::Checkpoint(places) => self.check(&places),
        }
        .map_err(|what| format!("group {group}: {what}"))
    }

    /// The oldest segment's checkpoint says where all groups are; later ones must agree.
    fn check(&mut self, places: &[Place]) -> Result<(), String> {
        if self.groups.is_empty() {
            for place in places {
                let index = GroupIndex {
                    hard_state: place.hard_state,
                    compacted: place.compacted,
                    last: place.last,
                    base: place.last + 1,
                    ..GroupIndex::default()
                };
                self.groups.insert(place.group, index);
            }
            return Ok(());
        }
        let mut before = self.places();
        before.resize(places.len().max(before.len()), Place::default());
        for (before, place) in before.iter().zip(places) {
            // More may be compacted: what said so was dropped with damage that was accepted.
            let moved = Place { compacted: place.compacted, ..*before };
            if moved != *place || place.compacted.0 < before.compacted.0 {
                return Err("the segment does not continue the one before".into());
            }
            if let Some(index) = self.groups.get_mut(&place.group) {
                index.compact(place.compacted.0, place.compacted.1)?;
            }
        }
        if before.len() == places.len() {
            return Ok(());
        }
        Err("the segment does not know all groups".into())
    }

    pub(super) fn places(&self) -> Vec<Place> {
        let place = |(&group, index): (&Group, &GroupIndex)| Place {
            group,
            hard_state: index.hard_state,
            compacted: index.compacted,
            last: index.last,
        };
        self.groups.iter().map(place).collect()
    }

    /// Takes missing entries for compacted. They were, if the record that said so was dropped with
    /// the damage behind it; whoever opens the log compares with its state.
    pub(super) fn close_holes(&mut self) {
        for group in self.groups.values_mut() {
            if let Some((_, to)) = group.hole() {
                group.compacted =
                    (to, group.slots.front().map_or(group.hard_state.term, |slot| slot.term));
            }
        }
    }

    /// A group whose entries are not all there, and which are missing.
    pub(super) fn hole(&self) -> Option<(Group, u64, u64)> {
        self.groups
            .iter()
            .find_map(|(&group, index)| index.hole().map(|(from, to)| (group, from, to)))
    }
}
