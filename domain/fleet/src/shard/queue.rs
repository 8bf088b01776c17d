//! The entries of one session's queue, and what the session remembers about numbering them.
//!
//! Entries are appended at the back and mostly leave at the front. One that leaves from the middle
//! stays as a dead slot until it reaches the front or dead slots are the majority, so finding an
//! entry by its seq is one subtraction in the common case and never more than a binary search.

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

/// Subscription identifiers of an entry; four fit without an allocation.
pub(super) type Ids = SmallVec<[u32; 4]>;

/// No message: PUBREC has come and only PUBREL is owed.
pub(super) const RELEASED: u64 = 0;

/// Slots above which an empty queue gives its memory back.
const KEPT: usize = 16;

/// One message for one session.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) seq: u64,
    /// Id in [`Messages`](super::messages::Messages), or [`RELEASED`].
    pub(super) message: u64,
    pub(super) qos: u8,
    pub(super) retain: bool,
    dead: bool,
    pub(super) ids: Ids,
    /// The shared subscription that it comes by: another member may have it, unless it has begun.
    pub(super) share: Option<Arc<str>>,
}

impl Entry {
    pub(super) fn new(seq: u64, message: u64, qos: u8, retain: bool, ids: Ids) -> Self {
        Self { seq, message, qos, retain, dead: false, ids, share: None }
    }
}

#[derive(Debug)]
pub(super) struct Queue {
    slots: VecDeque<Entry>,
    dead: usize,
    /// Seq of the next entry; starts at 1.
    pub(super) next_seq: u64,
    /// Entries before it may have been sent on a connection that has ended.
    pub(super) sent_below: u64,
    /// Entries from it on are in no checkpoint yet.
    pub(super) stored_below: u64,
    /// Content of its messages.
    pub(super) bytes: u64,
    /// No entry that was never sent expires before this time.
    pub(super) earliest_expiry: u64,
    /// Boxed, because few sessions are members of shared subscriptions.
    shared: Option<Box<Shared>>,
}

/// What a queue knows of shared subscriptions.
#[derive(Debug)]
struct Shared {
    /// QoS 2 entries before it may have been sent, on whatever connection.
    begun_below: u64,
    /// The subscriptions that entries come by, and how many.
    counts: Vec<(Arc<str>, u32)>,
}

impl Default for Shared {
    fn default() -> Self {
        Self { begun_below: 1, counts: Vec::new() }
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            slots: VecDeque::new(),
            dead: 0,
            next_seq: 1,
            sent_below: 1,
            stored_below: 1,
            bytes: 0,
            earliest_expiry: u64::MAX,
            shared: None,
        }
    }
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.dead
    }

    /// Appends an entry of `bytes` content and returns its seq.
    pub(super) fn push(
        &mut self,
        message: u64,
        qos: u8,
        retain: bool,
        ids: Ids,
        share: Option<&str>,
        bytes: u64,
    ) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.restore(Entry::new(seq, message, qos, retain, ids), share, bytes);
        seq
    }

    /// The queue that a checkpoint held, before its entries.
    pub(super) fn restored(
        next_seq: u64,
        sent_below: u64,
        begun_below: u64,
        earliest_expiry: u64,
    ) -> Self {
        let stored_below = next_seq;
        let mut queue =
            Self { next_seq, sent_below, stored_below, earliest_expiry, ..Self::default() };
        queue.begin(begun_below);
        queue
    }

    /// Puts back an entry that a checkpoint held; in order.
    pub(super) fn restore(&mut self, entry: Entry, share: Option<&str>, bytes: u64) {
        self.bytes += bytes;
        let share = share.map(|share| self.come_by(share));
        self.slots.push_back(Entry { share, ..entry });
    }

    /// Counts an entry of a shared subscription; its name is kept once per queue.
    fn come_by(&mut self, share: &str) -> Arc<str> {
        let counts = &mut self.shared.get_or_insert_default().counts;
        if let Some((known, count)) = counts.iter_mut().find(|(known, _)| **known == *share) {
            *count += 1;
            return Arc::clone(known);
        }
        let share: Arc<str> = share.into();
        counts.push((Arc::clone(&share), 1));
        share
    }

    /// The shared subscriptions that entries come by.
    pub(super) fn shares(&self) -> impl Iterator<Item = &str> {
        self.shared.iter().flat_map(|shared| &shared.counts).map(|(share, _)| &**share)
    }

    /// Whether any entry comes by a shared subscription.
    pub(super) fn holds_shared(&self) -> bool {
        self.shares().next().is_some()
    }

    /// QoS 2 entries of shared subscriptions before it may have been sent.
    pub(super) fn begun_below(&self) -> u64 {
        self.shared.as_ref().map_or(1, |shared| shared.begun_below)
    }

    /// QoS 2 entries of shared subscriptions before a place are about to be sent.
    pub(super) fn begin(&mut self, below: u64) {
        if below > self.begun_below() {
            self.shared.get_or_insert_default().begun_below = below;
        }
    }

    /// Whether another member of its shared subscription may have an entry instead: QoS 2 only while
    /// the exchange has not begun [v5 MQTT-4.8.2-5].
    pub(super) fn may_return(&self, entry: &Entry) -> bool {
        let begun = entry.qos == 2 && entry.seq < self.begun_below();
        entry.share.is_some() && entry.message != RELEASED && !begun
    }

    pub(super) fn get(&self, seq: u64) -> Option<&Entry> {
        self.place(seq).map(|place| &self.slots[place])
    }

    pub(super) fn get_mut(&mut self, seq: u64) -> Option<&mut Entry> {
        self.place(seq).map(|place| &mut self.slots[place])
    }

    /// Takes an entry out and returns its message. The caller corrects `bytes`.
    pub(super) fn remove(&mut self, seq: u64) -> Option<u64> {
        let place = self.place(seq)?;
        let slot = &mut self.slots[place];
        let message = slot.message;
        slot.dead = true;
        slot.ids = Ids::new();
        if let (Some(share), Some(shared)) = (slot.share.take(), &mut self.shared)
            && let Some(at) = shared.counts.iter().position(|(known, _)| *known == share)
        {
            shared.counts[at].1 -= 1;
            if shared.counts[at].1 == 0 {
                shared.counts.swap_remove(at);
            }
        }
        self.dead += 1;
        self.sweep();
        Some(message)
    }

    /// Entries from a seq on, in order.
    pub(super) fn from(&self, seq: u64) -> impl Iterator<Item = &Entry> {
        self.slots.range(self.first_from(seq)..).filter(|slot| !slot.dead)
    }

    fn sweep(&mut self) {
        while self.slots.front().is_some_and(|slot| slot.dead) {
            self.slots.pop_front();
            self.dead -= 1;
        }
        if self.dead > KEPT && self.dead > self.slots.len() / 2 {
            self.slots.retain(|slot| !slot.dead);
            self.dead = 0;
        }
        if self.slots.is_empty() && self.slots.capacity() > KEPT {
            self.slots = VecDeque::new();
        }
    }

    fn place(&self, seq: u64) -> Option<usize> {
        let place = self.first_from(seq);
        self.slots.get(place).filter(|slot| slot.seq == seq && !slot.dead).map(|_| place)
    }

    /// Place of the first slot whose seq is not below.
    fn first_from(&self, seq: u64) -> usize {
        let Some(front) = self.slots.front() else { return 0 };
        let distance = usize::try_from(seq.saturating_sub(front.seq)).unwrap_or(usize::MAX);
        match self.slots.get(distance) {
            Some(slot) if slot.seq == seq => distance,
            // Slots that were swept away only make it come earlier.
            _ => self.slots.partition_point(|slot| slot.seq < seq),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn entries_are_found_in_whatever_order_others_leave() {
        for stride in [1, 7, 13, 101] {
            let mut queue = Queue::default();
            let mut model = BTreeMap::new();
            for message in 1..=500 {
                model.insert(queue.push(message, 1, false, Ids::new(), None, 1), message);
            }
            for step in 0..500 {
                let seq = step * stride % 500 + 1;
                assert_eq!(queue.remove(seq), model.remove(&seq), "stride {stride} seq {seq}");
                assert_eq!(queue.remove(seq), None);
                assert_eq!(queue.len(), model.len());
                let left: Vec<_> =
                    queue.from(seq).map(|entry| (entry.seq, entry.message)).collect();
                let expected: Vec<_> = model.range(seq..).map(|(&seq, &id)| (seq, id)).collect();
                assert_eq!(left, expected);
                assert!(queue.slots.len() <= 2 * queue.len() + KEPT + 1, "dead slots pile up");
            }
        }
    }
}
