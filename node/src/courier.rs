//! Carries what the groups' outboxes hold to its takers: in order, and no faster than they take it.
//!
//! Each group's outbox is one core's business. The group hands out a window of entries
//! ([`WINDOW`]); the core routes them one after the other, waits while a taker is behind (but not for
//! long for connections that stay behind, since many clients share an outbox: `Patience`), and
//! proposes to trim the outbox up to where every entry is safe with every taker. What a full disk
//! keeps out waits for room. When the node stops before, the entry and everything behind it stay in
//! the outbox for the next start; groups know repetitions by [`Origin`].

use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::Refusal;
use fleet::shard::{Origin, OutboxEntry, TrimOutbox};
use rustc_hash::FxHashMap;
use tracing::error;

use crate::core::{Core, Publisher, Ticket};
use crate::endpoint::Endpoint;
use crate::host::Failure;
use crate::pending::Asker;
use crate::publication::Publication;
use crate::publish::{Errand, Published};

/// Entries of one outbox that its core has and that are not trimmed.
pub const WINDOW: u64 = 4096;

/// Entries that are routed before others have their turn.
const AT_ONCE: usize = 512;

/// The outbox of one group.
#[derive(Debug)]
struct Courier {
    /// Handed out and not routed; at most [`WINDOW`].
    waiting: VecDeque<OutboxEntry>,
    /// A task waits for a taker and goes on when there is room.
    is_paused: bool,
    patience: Patience,
    /// The first entry that is not safe with every taker.
    unsafe_from: u64,
    /// Entries behind it that are.
    safe: BTreeSet<u64>,
    /// Of those that are safe and not trimmed, what nobody could have: a shared subscription's queue gave
    /// it and gets it back.
    returned: BTreeSet<u64>,
    /// Everything before this is trimmed, or will be.
    trimmed: u64,
}

/// How long an outbox may still wait for connections that do not catch up. Waiting for one that does
/// costs nothing.
#[derive(Debug)]
struct Patience {
    left: Duration,
    /// When that was so.
    at: Option<Instant>,
}

impl Default for Patience {
    fn default() -> Self {
        Self { left: Self::MOST, at: None }
    }
}

impl Patience {
    const MOST: Duration = Duration::from_millis(800);
    /// Of the time that passes, this part comes back.
    const SHARE: u32 = 10;

    fn left(&mut self, now: Instant) -> Duration {
        let passed = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.left = (self.left + passed / Self::SHARE).min(Self::MOST);
        self.at = Some(now);
        self.left
    }

    fn spend(&mut self, waited: Duration) {
        self.left = self.left.saturating_sub(waited);
    }
}

/// The outboxes that are this core's business.
#[derive(Debug, Default)]
pub struct Couriers {
    groups: FxHashMap<u16, Courier>,
}

impl Couriers {
    /// Adds entries, of which there is at least one; false while somebody is waited for.
    fn add(&mut self, group: u16, entries: Vec<OutboxEntry>) -> bool {
        let first = entries.first().map_or(1, |entry| entry.seq);
        let courier = self.groups.entry(group).or_insert_with(|| Courier {
            waiting: VecDeque::new(),
            is_paused: false,
            patience: Patience::default(),
            unsafe_from: first,
            safe: BTreeSet::new(),
            returned: BTreeSet::new(),
            trimmed: first,
        });
        courier.waiting.extend(entries);
        !courier.is_paused
    }

    /// This node carries the outbox no more; the next leader begins at its first entry.
    pub fn forget(&mut self, group: u16) {
        self.groups.remove(&group);
    }

    fn next(&mut self, group: u16) -> Option<OutboxEntry> {
        self.groups.get_mut(&group)?.waiting.pop_front()
    }

    fn pause(&mut self, group: u16) {
        if let Some(courier) = self.groups.get_mut(&group) {
            courier.is_paused = true;
        }
    }

    /// Goes on, after having waited in vain for so long.
    fn resume(&mut self, group: u16, in_vain: Duration) {
        if let Some(courier) = self.groups.get_mut(&group) {
            courier.is_paused = false;
            courier.patience.spend(in_vain);
        }
    }

    fn patience(&mut self, group: u16, now: Instant) -> Duration {
        self.groups.get_mut(&group).map_or(Duration::ZERO, |courier| courier.patience.left(now))
    }

    fn safe(&mut self, group: u16, seq: u64) {
        let Some(courier) = self.groups.get_mut(&group) else { return };
        courier.safe.insert(seq);
        while courier.safe.remove(&courier.unsafe_from) {
            courier.unsafe_from += 1;
        }
    }

    /// Nobody could have what a shared subscription's queue has given.
    fn unwanted(&mut self, group: u16, seq: u64) {
        let Some(courier) = self.groups.get_mut(&group) else { return };
        courier.returned.insert(seq);
        self.safe(group, seq);
    }

    /// Per group what of its outbox may be trimmed, where that has become more.
    pub fn trims(&mut self) -> impl Iterator<Item = (u16, TrimOutbox)> {
        let moved =
            self.groups.iter_mut().filter(|(_, courier)| courier.trimmed < courier.unsafe_from);
        moved.map(|(group, courier)| {
            courier.trimmed = courier.unsafe_from;
            let later = courier.returned.split_off(&courier.unsafe_from);
            let returned = std::mem::replace(&mut courier.returned, later).into_iter().collect();
            (*group, TrimOutbox { upto: courier.unsafe_from - 1, returned })
        })
    }
}

impl Core {
    /// A group hands out the next entries of its outbox.
    pub fn take_outbox(self: &Rc<Self>, group: u16, entries: Vec<OutboxEntry>) {
        if self.couriers.borrow_mut().add(group, entries) {
            self.route_outbox(group);
        }
    }

    /// Routes what waits until there is no more, a taker is behind or others shall have their turn.
    fn route_outbox(self: &Rc<Self>, group: u16) {
        for _ in 0..AT_ONCE {
            let Some(entry) = self.couriers.borrow_mut().next(group) else { return };
            let published = self.route_entry(group, entry);
            if self.has_much_to_propose() {
                self.flush();
            }
            let held = self.is_held(Publisher::Outbox(group));
            if published.pressed.is_some() || held || self.is_behind(published.uses) {
                return self.route_later(group, published);
            }
        }
        self.route_later(group, Published::default());
    }

    /// Goes on when the takers of what was routed last have room.
    fn route_later(self: &Rc<Self>, group: u16, last: Published) {
        self.couriers.borrow_mut().pause(group);
        let core = Rc::clone(self);
        actix_rt::spawn(async move {
            tokio::task::yield_now().await;
            let in_vain = core.wait_for_takers(group, last.pressed).await;
            core.caught_up(last.uses).await;
            core.read_clock();
            core.couriers.borrow_mut().resume(group, in_vain);
            core.route_outbox(group);
            core.flush();
        });
    }

    /// Waits for connections here and on other cores that have fallen behind, as long as the outbox
    /// has patience; gives how long that was in vain.
    async fn wait_for_takers(&self, group: u16, pressed: Option<Rc<Endpoint>>) -> Duration {
        let since = self.read_clock().now;
        let patience = self.couriers.borrow_mut().patience(group, since);
        let waiting = tokio::time::timeout(patience, async {
            if let Some(endpoint) = &pressed {
                endpoint.room().await;
            }
            self.is_free(Publisher::Outbox(group)).await;
        });
        let caught_up = waiting.await.is_ok() && pressed.is_none_or(|it| !it.is_slow());
        if caught_up { Duration::ZERO } else { self.read_clock().now.duration_since(since) }
    }

    /// Routes an entry as if the broker had published it.
    fn route_entry(self: &Rc<Self>, group: u16, entry: OutboxEntry) -> Published {
        let is_given = entry.is_for_anybody();
        let asker = Asker::Outbox { group, seq: entry.seq, is_given };
        let number = self.pendings.borrow_mut().open(asker);
        let ticket = Some(Ticket::Core { core: self.id, number });
        let origin = Origin { group: group.into(), seq: entry.seq, part: None };
        let by = Publisher::Outbox(group);
        let mut kept = Arc::unwrap_or_clone(entry.publication);
        if let Some(copy) = entry.share {
            let mut published = self.route_copy(&kept, *copy, (ticket, origin, by));
            if is_given && !published.reached {
                published.waiting += 1;
                self.pending_taken(number, Err(Failure::NoMember));
            }
            self.pending_sent(number, published.waiting);
            return published;
        }
        kept.retain = entry.store_retained;
        let publication = Publication::kept(&kept);
        let route = self.route(publication.topic);
        let (origin, by) = (Some(origin), Some(by));
        let errand = Errand { ticket, origin, owed: true, by, ..Errand::default() };
        let published = self.publish(&publication, &route, errand);
        self.pending_sent(number, published.waiting);
        published
    }

    /// What became of an entry with all its takers.
    pub fn outbox_entry_done(&self, group: u16, seq: u64, failure: Option<Failure>) {
        match failure {
            // No later attempt can succeed, and what comes after it must not wait for ever.
            Some(Failure::Refused(why @ Refusal::TooLarge)) => {
                error!(group, seq, %why, "a publication of the outbox is lost: lower \
                    limits.maximum_packet_size");
                metrics::counter!("outbox_lost_total").increment(1);
            }
            Some(Failure::Refused(Refusal::Unseen)) => {}
            // The node is stopping: nothing that an outbox holds is refused for less.
            Some(Failure::Refused(_)) => return,
            Some(Failure::NoMember) => return self.couriers.borrow_mut().unwanted(group, seq),
            Some(Failure::Outcome(_)) | None => {}
        }
        self.couriers.borrow_mut().safe(group, seq);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(seqs: std::ops::Range<u64>) -> Vec<OutboxEntry> {
        seqs.map(|seq| OutboxEntry {
            seq,
            publication: Arc::default(),
            store_retained: false,
            share: None,
        })
        .collect()
    }

    fn trims(couriers: &mut Couriers) -> Vec<(u16, u64)> {
        couriers.trims().map(|(group, trim)| (group, trim.upto)).collect()
    }

    #[test]
    fn an_outbox_is_trimmed_up_to_what_is_not_safe() {
        let mut couriers = Couriers::default();
        assert!(couriers.add(1, entries(5..9)));
        assert_eq!(trims(&mut couriers), []);
        couriers.safe(1, 6);
        assert_eq!(trims(&mut couriers), []);
        couriers.safe(1, 5);
        couriers.safe(1, 8);
        assert_eq!(trims(&mut couriers), [(1, 6)]);
        assert_eq!(trims(&mut couriers), []);
        couriers.safe(1, 7);
        assert_eq!(trims(&mut couriers), [(1, 8)]);
    }

    #[test]
    fn what_nobody_could_have_is_said_with_the_entries_around_it() {
        let mut couriers = Couriers::default();
        couriers.add(1, entries(5..9));
        couriers.unwanted(1, 6);
        couriers.unwanted(1, 8);
        assert_eq!(trims(&mut couriers), []);
        couriers.safe(1, 5);
        let said = couriers.trims().collect::<Vec<_>>();
        assert_eq!(said, [(1, TrimOutbox { upto: 6, returned: vec![6] })]);
        couriers.unwanted(1, 7);
        let said = couriers.trims().collect::<Vec<_>>();
        assert_eq!(said, [(1, TrimOutbox { upto: 8, returned: vec![7, 8] })]);
    }

    #[test]
    fn what_comes_while_a_taker_is_behind_waits_in_order() {
        let mut couriers = Couriers::default();
        assert!(couriers.add(1, entries(1..3)));
        couriers.pause(1);
        assert!(!couriers.add(1, entries(3..5)));
        assert!(couriers.add(2, entries(1..2)), "another outbox goes on");
        couriers.resume(1, Duration::ZERO);
        let next = std::iter::from_fn(|| couriers.next(1).map(|entry| entry.seq));
        assert_eq!(next.collect::<Vec<_>>(), [1, 2, 3, 4]);
    }

    #[test]
    fn an_outbox_loses_its_patience_with_those_who_stay_behind_and_regains_it_slowly() {
        let (mut patience, start) = (Patience::default(), Instant::now());
        assert_eq!(patience.left(start), Patience::MOST);
        patience.spend(Patience::MOST * 2);
        assert_eq!(patience.left(start), Duration::ZERO);
        let later = start + Patience::MOST;
        assert_eq!(patience.left(later), Patience::MOST / Patience::SHARE);
        assert_eq!(patience.left(later + Patience::MOST * 100), Patience::MOST);
    }
}
