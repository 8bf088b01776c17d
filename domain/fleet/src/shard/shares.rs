//! What waits for shared subscriptions: messages for which no member was connected, and what members
//! that went away had not acknowledged.
//!
//! The queue of a shared subscription lies in the shard of its filter, whatever the shards of its
//! members are. Messages leave it for a member through the outbox
//! ([`AssignShared`](super::AssignShared)) and are that member's from then on; they come back the same
//! way, or, if they were for whoever is connected and nobody could have them, with the command that trims
//! the outbox ([`TrimOutbox`](super::TrimOutbox)). What was returned goes before what nobody had, each in its order.
//!
//! Bounds: what is new is dropped beyond the limits that its command names. What comes back was taken
//! before, and is no more than the members' queues could hold.

use std::collections::{BTreeMap, VecDeque};

/// A message that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    /// Counts what has waited in the shard; names it in the store.
    pub(super) place: u64,
    /// Id in [`Messages`](super::messages::Messages).
    pub(super) message: u64,
}

/// What waits for one shared subscription.
#[derive(Default)]
pub(super) struct ShareQueue {
    returned: VecDeque<Waiting>,
    fresh: VecDeque<Waiting>,
    /// Content of its messages.
    pub(super) bytes: u64,
    /// No message expires before this time.
    pub(super) earliest_expiry: u64,
}

impl ShareQueue {
    pub(super) fn len(&self) -> usize {
        self.returned.len() + self.fresh.len()
    }

    /// The next message.
    pub(super) fn first(&self) -> Option<u64> {
        self.iter().next().map(|(waiting, _)| waiting.message)
    }

    pub(super) fn has_room(&self, bytes: u64, limit_messages: u32, limit_bytes: u64) -> bool {
        self.len() < limit_messages as usize && self.bytes.saturating_add(bytes) <= limit_bytes
    }

    /// In the order in which they leave, and whether they were returned.
    fn iter(&self) -> impl Iterator<Item = (Waiting, bool)> {
        let returned = self.returned.iter().map(|&each| (each, true));
        returned.chain(self.fresh.iter().map(|&each| (each, false)))
    }

    fn lane(&mut self, returned: bool) -> &mut VecDeque<Waiting> {
        if returned { &mut self.returned } else { &mut self.fresh }
    }
}

pub(super) struct Shares {
    queues: BTreeMap<Box<str>, ShareQueue>,
    /// Messages that wait.
    len: usize,
    /// Place of the next message; starts at 1.
    pub(super) next_place: u64,
    /// Messages from it on are in no checkpoint yet.
    stored_below: u64,
    /// Places of the last checkpoint that are empty.
    removed: Vec<u64>,
}

impl Default for Shares {
    fn default() -> Self {
        let (queues, removed) = (BTreeMap::new(), Vec::new());
        Self { queues, len: 0, next_place: 1, stored_below: 1, removed }
    }
}

impl Shares {
    /// Messages that wait.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn queue(&self, filter: &str) -> Option<&ShareQueue> {
        self.queues.get(filter)
    }

    /// Subscriptions for which something waits, ordered, after one of them.
    pub(super) fn after(&self, filter: &str) -> impl Iterator<Item = (&str, &ShareQueue)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let queues = self.queues.range::<str, _>((Excluded(filter), Unbounded));
        queues.map(|(filter, queue)| (&**filter, queue))
    }

    /// Appends a message of `bytes` content.
    pub(super) fn push(
        &mut self,
        filter: &str,
        message: u64,
        returned: bool,
        bytes: u64,
        expiry: Option<u64>,
    ) {
        let place = self.next_place;
        self.next_place += 1;
        self.restore(filter, Waiting { place, message }, returned, bytes, expiry);
    }

    /// Puts a message in its place, in order, without noting a change.
    pub(super) fn restore(
        &mut self,
        filter: &str,
        waiting: Waiting,
        returned: bool,
        bytes: u64,
        expiry: Option<u64>,
    ) {
        if !self.queues.contains_key(filter) {
            let queue = ShareQueue { earliest_expiry: u64::MAX, ..ShareQueue::default() };
            self.queues.insert(filter.into(), queue);
        }
        let Some(queue) = self.queues.get_mut(filter) else { return };
        queue.bytes += bytes;
        queue.earliest_expiry = queue.earliest_expiry.min(expiry.unwrap_or(u64::MAX));
        queue.lane(returned).push_back(waiting);
        self.len += 1;
    }

    /// Takes the next message out; the caller says its bytes by [`Shares::freed`].
    pub(super) fn pop(&mut self, filter: &str) -> Option<u64> {
        let queue = self.queues.get_mut(filter)?;
        let waiting = queue.returned.pop_front().or_else(|| queue.fresh.pop_front())?;
        self.left(waiting);
        Some(waiting.message)
    }

    /// A message that was taken out had so many bytes.
    pub(super) fn freed(&mut self, filter: &str, bytes: u64) {
        let Some(queue) = self.queues.get_mut(filter) else { return };
        queue.bytes -= bytes;
        if queue.len() == 0 {
            self.queues.remove(filter);
        }
    }

    /// Takes out what has expired: `expiry` tells when a message does, `release` its bytes.
    pub(super) fn drop_expired(
        &mut self,
        filter: &str,
        now: u64,
        expiry: impl Fn(u64) -> Option<u64>,
        mut release: impl FnMut(u64) -> u64,
    ) {
        let Some(queue) = self.queues.get_mut(filter).filter(|it| it.earliest_expiry <= now) else {
            return;
        };
        let (mut earliest, mut gone) = (u64::MAX, Vec::new());
        for lane in [&mut queue.returned, &mut queue.fresh] {
            lane.retain(|waiting| {
                let at = expiry(waiting.message).unwrap_or(u64::MAX);
                let stays = at > now;
                if stays {
                    earliest = earliest.min(at);
                } else {
                    gone.push(*waiting);
                }
                stays
            });
        }
        queue.earliest_expiry = earliest;
        for waiting in gone {
            self.left(waiting);
            self.freed(filter, release(waiting.message));
        }
    }

    fn left(&mut self, waiting: Waiting) {
        self.len -= 1;
        if waiting.place < self.stored_below {
            self.removed.push(waiting.place);
        }
    }

    /// All of it: the subscription, the message, whether it was returned.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, Waiting, bool)> {
        self.queues.iter().flat_map(|(filter, queue)| {
            queue.iter().map(|(waiting, returned)| (&**filter, waiting, returned))
        })
    }

    /// What changed since the last checkpoint: present or gone.
    pub(super) fn settle(&mut self, mut change: impl FnMut(u64, Option<(&str, Waiting, bool)>)) {
        for place in std::mem::take(&mut self.removed) {
            change(place, None);
        }
        for (filter, queue) in &self.queues {
            for (lane, returned) in [(&queue.returned, true), (&queue.fresh, false)] {
                let fresh = lane.partition_point(|it| it.place < self.stored_below);
                for &waiting in lane.range(fresh..) {
                    change(waiting.place, Some((filter, waiting, returned)));
                }
            }
        }
        self.stored_below = self.next_place;
    }

    /// After the last `restore`.
    pub(super) fn restored(&mut self, next_place: u64) {
        self.next_place = next_place;
        self.stored_below = next_place;
    }
}
