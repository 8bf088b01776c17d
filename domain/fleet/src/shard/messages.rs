//! The messages that queues hold, each stored once however many sessions want it.
//!
//! What came since the last checkpoint lies apart from what a checkpoint has: most messages live so
//! shortly that they pass without ever being written to the store.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::command::Publication;

pub(super) struct Message {
    pub(super) publication: Arc<Publication>,
    references: u32,
}

pub(super) struct Messages {
    fresh: FxHashMap<u64, Message>,
    settled: FxHashMap<u64, Message>,
    /// Id of the next message; starts at 1.
    pub(super) next_id: u64,
    /// Messages from it on are in no checkpoint yet.
    settled_below: u64,
    /// Settled messages that are gone since the last checkpoint.
    removed: Vec<u64>,
    /// Content of all of them.
    pub(super) bytes: usize,
}

impl Default for Messages {
    fn default() -> Self {
        Self {
            fresh: FxHashMap::default(),
            settled: FxHashMap::default(),
            next_id: 1,
            settled_below: 1,
            removed: Vec::new(),
            bytes: 0,
        }
    }
}

impl Messages {
    pub(super) fn len(&self) -> usize {
        self.fresh.len() + self.settled.len()
    }

    /// Stores a message under the next id; `references` entries hold it.
    pub(super) fn insert(&mut self, publication: Publication, references: u32) {
        self.bytes += publication.bytes();
        let publication = Arc::new(publication);
        self.fresh.insert(self.next_id, Message { publication, references });
        self.next_id += 1;
    }

    pub(super) fn get(&self, id: u64) -> Option<&Arc<Publication>> {
        let map = if id < self.settled_below { &self.settled } else { &self.fresh };
        map.get(&id).map(|message| &message.publication)
    }

    /// One entry less holds it. Returns the bytes of its content.
    pub(super) fn release(&mut self, id: u64) -> usize {
        let settled = id < self.settled_below;
        let map = if settled { &mut self.settled } else { &mut self.fresh };
        let Entry::Occupied(mut entry) = map.entry(id) else { return 0 };
        let bytes = entry.get().publication.bytes();
        entry.get_mut().references -= 1;
        if entry.get().references == 0 {
            entry.remove();
            self.bytes -= bytes;
            if settled {
                self.removed.push(id);
            }
        }
        bytes
    }

    /// All of them, ordered by id.
    pub(super) fn sorted(&self) -> Vec<(u64, &Publication)> {
        let both = self.settled.iter().chain(&self.fresh);
        let mut sorted: Vec<_> =
            both.map(|(&id, message)| (id, message.publication.as_ref())).collect();
        sorted.sort_unstable_by_key(|&(id, _)| id);
        sorted
    }

    /// What changed since the last checkpoint: present or gone, ordered by id.
    ///
    /// A message that stays gets bytes of its own here, so that it no longer keeps the log entry in
    /// memory that it came in.
    pub(super) fn settle(&mut self, mut change: impl FnMut(u64, Option<&Publication>)) {
        let mut removed = std::mem::take(&mut self.removed);
        removed.sort_unstable();
        for id in removed {
            change(id, None);
        }
        let mut ids: Vec<_> = self.fresh.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let Some(mut message) = self.fresh.remove(&id) else { continue };
            message.publication = Arc::new(message.publication.detached());
            change(id, Some(&message.publication));
            self.settled.insert(id, message);
        }
        self.settled_below = self.next_id;
    }

    /// Puts back what a checkpoint held.
    pub(super) fn restore(&mut self, id: u64, publication: Publication, references: u32) {
        self.bytes += publication.bytes();
        self.settled.insert(id, Message { publication: Arc::new(publication), references });
    }

    /// After the last `restore`.
    pub(super) fn restored(&mut self, next_id: u64) {
        self.next_id = next_id;
        self.settled_below = next_id;
    }

    /// A stored message that no entry holds: the next checkpoint deletes it.
    pub(super) fn orphan(&mut self, id: u64) {
        self.removed.push(id);
    }

    #[cfg(test)]
    pub(super) fn references(&self) -> std::collections::BTreeMap<u64, u32> {
        let both = self.settled.iter().chain(&self.fresh);
        both.map(|(&id, message)| (id, message.references)).collect()
    }
}
