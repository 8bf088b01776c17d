//! What the state itself publishes, in order, until every taker has it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::command::{Publication, SharedCopy};

/// A publication that the shard itself makes: wills, QoS 2 publications, shadow notifications; or a copy
/// of one for a shared subscription.
#[derive(Clone, Debug, PartialEq)]
pub struct OutboxEntry {
    /// Its place; grows by one.
    pub seq: u64,
    /// What is published.
    pub publication: Arc<Publication>,
    /// Whether it becomes the retained message of its topic.
    pub store_retained: bool,
    /// It is a copy for one member of a shared subscription and nobody else.
    pub share: Option<Box<SharedCopy>>,
}

impl OutboxEntry {
    /// Whether the queue of a shared subscription has given it to whoever is connected and keeps no queue.
    pub fn is_for_anybody(&self) -> bool {
        self.share.as_ref().is_some_and(|copy| copy.assigned && copy.member.is_none())
    }
}

pub(super) struct Outbox {
    entries: VecDeque<OutboxEntry>,
    /// Bytes of content.
    pub(super) bytes: usize,
    /// Seq of the next entry; starts at 1.
    pub(super) next_seq: u64,
    /// Entries from it on are in no checkpoint yet.
    settled_below: u64,
    /// Settled entries that are gone since the last checkpoint.
    removed: Vec<u64>,
    /// Copies on their way to members, by the shared subscription.
    assigned: BTreeMap<Box<str>, usize>,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            bytes: 0,
            next_seq: 1,
            settled_below: 1,
            removed: Vec::new(),
            assigned: BTreeMap::new(),
        }
    }
}

impl Outbox {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn push(&mut self, publication: Publication, store_retained: bool) {
        self.append(Arc::new(publication), store_retained, None);
    }

    /// Appends a copy for a shared subscription.
    pub(super) fn push_copy(&mut self, publication: Arc<Publication>, copy: SharedCopy) {
        self.append(publication, false, Some(Box::new(copy)));
    }

    fn append(
        &mut self,
        publication: Arc<Publication>,
        store_retained: bool,
        share: Option<Box<SharedCopy>>,
    ) {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.restore(OutboxEntry { seq, publication, store_retained, share });
    }

    /// Copies on their way to members of a shared subscription.
    pub(super) fn assigned(&self, filter: &str) -> usize {
        self.assigned.get(filter).copied().unwrap_or(0)
    }

    pub(super) fn from(&self, seq: u64) -> impl Iterator<Item = &OutboxEntry> {
        let skipped = usize::try_from(seq.saturating_sub(self.first_seq())).unwrap_or(usize::MAX);
        self.entries.range(skipped.min(self.entries.len())..)
    }

    /// The first entry that is not trimmed, or the next.
    pub(super) fn first_seq(&self) -> u64 {
        self.entries.front().map_or(self.next_seq, |entry| entry.seq)
    }

    /// Takes out the first entry, if it is one of those up to `upto`.
    pub(super) fn trim(&mut self, upto: u64) -> Option<OutboxEntry> {
        let entry = self.entries.pop_front_if(|entry| entry.seq <= upto)?;
        self.bytes -= entry.publication.bytes();
        if let Some(copy) = entry.share.as_ref().filter(|copy| copy.assigned)
            && let Some(count) = self.assigned.get_mut(&*copy.filter)
        {
            *count -= 1;
            if *count == 0 {
                self.assigned.remove(&*copy.filter);
            }
        }
        if entry.seq < self.settled_below {
            self.removed.push(entry.seq);
        }
        Some(entry)
    }

    /// What changed since the last checkpoint: present or gone. What stays gets bytes of its own.
    pub(super) fn settle(&mut self, mut change: impl FnMut(u64, Option<&OutboxEntry>)) {
        for seq in std::mem::take(&mut self.removed) {
            change(seq, None);
        }
        let fresh = self.entries.partition_point(|entry| entry.seq < self.settled_below);
        for entry in self.entries.range_mut(fresh..) {
            entry.publication = Arc::new(entry.publication.detached());
            change(entry.seq, Some(entry));
        }
        self.settled_below = self.next_seq;
    }

    /// Puts back what a checkpoint held; in order and without gaps.
    pub(super) fn restore(&mut self, entry: OutboxEntry) -> bool {
        let fits = self.entries.back().is_none_or(|last| last.seq + 1 == entry.seq);
        self.bytes += entry.publication.bytes();
        if let Some(copy) = entry.share.as_ref().filter(|copy| copy.assigned) {
            match self.assigned.get_mut(&*copy.filter) {
                Some(count) => *count += 1,
                None => drop(self.assigned.insert(copy.filter.as_str().into(), 1)),
            }
        }
        self.entries.push_back(entry);
        fits
    }

    /// After the last `restore`: whether the entries end where the counter says.
    pub(super) fn restored(&mut self, next_seq: u64) -> bool {
        self.next_seq = next_seq;
        self.settled_below = next_seq;
        self.entries.back().is_none_or(|last| last.seq + 1 == next_seq)
    }
}
