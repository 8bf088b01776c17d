//! What one core has under way to one peer: numbered batches, kept until they are placed.
//!
//! The peer takes each number once and in order ([`super::inbound`]), so everything that is not known
//! to be placed may be sent again on the next stream. Credit comes back by number too, so what an
//! answer says twice counts once. Who puts what there bounds it ([`super::send`]).

use std::collections::VecDeque;

use bytes::Bytes;

/// A batch.
#[derive(Debug)]
struct Sealed<W> {
    sequence: u64,
    parcels: Bytes,
    count: u64,
    waiting: Vec<W>,
    /// It may be there, though nothing says so.
    was_sent: bool,
}

/// A batch that is to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unsent {
    /// Its number.
    pub(super) sequence: u64,
    /// The first that is not settled.
    pub(super) first: u64,
    /// What it carries.
    pub(super) parcels: Bytes,
    /// How many those are.
    pub(super) count: u64,
}

/// See the module. `W` is whoever waits for a parcel.
#[derive(Debug)]
pub(super) struct Window<W> {
    next: u64,
    unplaced: VecDeque<Sealed<W>>,
    /// How many of them, from the front, were sent on the present stream.
    sent: usize,
    /// Number and cost.
    unreleased: VecDeque<(u64, usize)>,
    under_way: usize,
}

impl<W> Default for Window<W> {
    fn default() -> Self {
        Self {
            next: 1,
            unplaced: VecDeque::new(),
            sent: 0,
            unreleased: VecDeque::new(),
            under_way: 0,
        }
    }
}

impl<W> Window<W> {
    /// Bytes that were not released.
    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Everybody who waits.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &W> {
        self.unplaced.iter().flat_map(|batch| &batch.waiting)
    }

    /// Adds a batch of `count` parcels that is charged with `cost` bytes.
    pub(super) fn seal(&mut self, parcels: Bytes, count: u64, cost: usize, waiting: Vec<W>) {
        let sequence = self.next;
        self.next += 1;
        self.under_way += cost;
        self.unreleased.push_back((sequence, cost));
        self.unplaced.push_back(Sealed { sequence, parcels, count, waiting, was_sent: false });
    }

    /// The next batch to send.
    pub(super) fn unsent(&self) -> Option<Unsent> {
        let batch = self.unplaced.get(self.sent)?;
        let first = self.unplaced.front().map_or(self.next, |front| front.sequence);
        let (parcels, count) = (batch.parcels.clone(), batch.count);
        Some(Unsent { sequence: batch.sequence, first, parcels, count })
    }

    /// It was sent.
    pub(super) fn sent(&mut self) {
        if let Some(batch) = self.unplaced.get_mut(self.sent) {
            batch.was_sent = true;
        }
        self.sent += 1;
    }

    /// There is another stream, or none: everything is to be sent again.
    pub(super) fn rewind(&mut self) {
        self.sent = 0;
    }

    /// The stream has ended. Batches that have nothing to be kept lose what they carry, and keep their
    /// number; gives back how many parcels that were.
    pub(super) fn drop_unless(&mut self, is_kept: impl Fn(&W) -> bool) -> u64 {
        let mut dropped = 0;
        for batch in &mut self.unplaced {
            if batch.waiting.iter().any(&is_kept) {
                continue;
            }
            dropped += std::mem::take(&mut batch.count);
            batch.parcels = Bytes::new();
            batch.waiting = Vec::new();
            let at = self.unreleased.binary_search_by_key(&batch.sequence, |(number, _)| *number);
            if let Ok(at) = at {
                self.under_way -= std::mem::take(&mut self.unreleased[at].1);
            }
        }
        dropped
    }

    /// Every batch up to this one is placed; gives back who waited, by batch.
    pub(super) fn placed(&mut self, upto: u64) -> Vec<(u64, Vec<W>)> {
        let mut placed = Vec::new();
        while self.unplaced.front().is_some_and(|front| front.sequence <= upto) {
            let Some(batch) = self.unplaced.pop_front() else { break };
            self.sent = self.sent.saturating_sub(1);
            placed.push((batch.sequence, batch.waiting));
        }
        placed
    }

    /// Every batch up to this one is released; true when that was news.
    pub(super) fn released(&mut self, upto: u64) -> bool {
        let mut news = false;
        while self.unreleased.front().is_some_and(|(sequence, _)| *sequence <= upto) {
            if let Some((_, cost)) = self.unreleased.pop_front() {
                self.under_way -= cost;
                news = true;
            }
        }
        news
    }

    /// Gives up whatever is under way; gives back who waited, and for each whether it may be there.
    pub(super) fn give_up(&mut self) -> Vec<(W, bool)> {
        self.sent = 0;
        self.under_way = 0;
        self.unreleased.clear();
        let of =
            |Sealed { waiting, was_sent, .. }| waiting.into_iter().map(move |it| (it, was_sent));
        self.unplaced.drain(..).flat_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(costs: &[usize]) -> Window<u32> {
        let mut window = Window::default();
        for (number, cost) in costs.iter().enumerate() {
            window.seal(Bytes::from_static(b"parcels"), 1, *cost, vec![number as u32 + 1]);
        }
        window
    }

    /// Sends everything there is, as (number, first).
    fn send(window: &mut Window<u32>) -> Vec<(u64, u64)> {
        let mut sent = Vec::new();
        while let Some(unsent) = window.unsent() {
            sent.push((unsent.sequence, unsent.first));
            window.sent();
        }
        sent
    }

    #[test]
    fn what_is_not_placed_is_sent_again_in_order() {
        let mut window = window(&[10, 20, 30]);
        assert_eq!(send(&mut window), [(1, 1), (2, 1), (3, 1)]);
        assert_eq!(window.placed(1), [(1, vec![1])]);
        assert_eq!(send(&mut window), []);
        window.rewind();
        window.seal(Bytes::new(), 0, 5, Vec::new());
        assert_eq!(send(&mut window), [(2, 2), (3, 2), (4, 2)]);
        assert_eq!(window.placed(1), [], "said twice");
        assert_eq!(window.placed(9), [(2, vec![2]), (3, vec![3]), (4, vec![])]);
        assert!(window.unsent().is_none());
    }

    #[test]
    fn what_was_ever_sent_may_be_there() {
        let mut window = window(&[10, 20]);
        window.unsent();
        window.sent();
        window.rewind();
        assert_eq!(window.give_up(), [(1, true), (2, false)]);
    }

    #[test]
    fn credit_comes_back_once() {
        let mut window = window(&[10, 20, 30]);
        assert_eq!(window.under_way(), 60);
        window.placed(3);
        assert_eq!(window.under_way(), 60, "placed with a session that is behind");
        assert!(window.released(2));
        assert!(!window.released(2));
        assert!(!window.released(1));
        assert_eq!(window.under_way(), 30);
        assert_eq!(window.give_up(), Vec::new());
        assert_eq!(window.under_way(), 0);
        assert!(!window.released(3));
    }

    #[test]
    fn what_nobody_waits_for_is_dropped_with_its_stream() {
        let mut window = window(&[10, 20, 30]);
        send(&mut window);
        assert_eq!(window.drop_unless(|waiting| *waiting == 2), 2);
        assert_eq!(window.drop_unless(|waiting| *waiting == 2), 0);
        assert_eq!(window.under_way(), 20);
        window.rewind();
        assert_eq!(send(&mut window), [(1, 1), (2, 1), (3, 1)], "the numbers have no gap");
        assert!(window.released(3));
        assert_eq!(window.under_way(), 0);
        assert_eq!(window.give_up(), [(2, true)]);
        window.seal(Bytes::new(), 0, 1, vec![4]);
        assert_eq!(send(&mut window), [(4, 4)], "what was given up is not sent again");
    }
}
