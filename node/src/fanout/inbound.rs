//! What one core of a peer has sent: each batch is taken once and in order, and answered when
//! everybody here has it.
//!
//! Answers are cumulative: a later one makes up for one that was lost with its stream. Bounded by what
//! the peer may have under way.

use std::collections::VecDeque;

use links::proto::{Placed, Unplaced};

/// What is done with a batch that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the next one.
    Take,
    /// It was taken before: only the answer is repeated.
    Again,
    /// One before it is missing, and will be sent again with everything behind it.
    Gap,
}

#[derive(Debug)]
struct Open {
    sequence: u64,
    placed: bool,
    released: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Inbound {
    next: u64,
    /// Batches that are not placed or not released, and those behind them.
    open: VecDeque<Open>,
    placed: u64,
    released: u64,
    /// What could not be placed, until the peer has heard it.
    unplaced: Vec<Unplaced>,
    /// An answer found no way out.
    pub(super) unsaid: bool,
}

impl Default for Inbound {
    fn default() -> Self {
        let (open, unplaced) = (VecDeque::new(), Vec::new());
        Self { next: 1, open, placed: 0, released: 0, unplaced, unsaid: false }
    }
}

impl Inbound {
    /// A batch has come; `first` is the first one that the peer may send again.
    pub(super) fn accept(&mut self, sequence: u64, first: u64) -> Verdict {
        self.unplaced.retain(|unplaced| unplaced.sequence >= first);
        // What the peer has given up never comes.
        self.next = self.next.max(first);
        if sequence < self.next {
            return Verdict::Again;
        }
        if sequence > self.next {
            return Verdict::Gap;
        }
        self.next += 1;
        self.open.push_back(Open { sequence, placed: false, released: false });
        Verdict::Take
    }

    /// A batch is placed, but for these parcels; true when there is something new to say.
    pub(super) fn placed(&mut self, sequence: u64, unplaced: Vec<Unplaced>) -> bool {
        self.unplaced.extend(unplaced);
        self.mark(sequence, |open| open.placed = true)
    }

    /// Nobody is behind with a batch; true when there is something new to say.
    pub(super) fn released(&mut self, sequence: u64) -> bool {
        // Together with its being placed.
        self.mark(sequence, |open| open.released = true)
    }

    fn mark(&mut self, sequence: u64, mark: impl FnOnce(&mut Open)) -> bool {
        let Ok(at) = self.open.binary_search_by_key(&sequence, |open| open.sequence) else {
            return false;
        };
        mark(&mut self.open[at]);
        let before = (self.placed, self.released);
        for open in &self.open {
            if !open.placed {
                break;
            }
            self.placed = self.placed.max(open.sequence);
        }
        while self.open.front().is_some_and(|front| front.placed && front.released) {
            self.released = self.open.pop_front().map_or(self.released, |open| open.sequence);
        }
        before != (self.placed, self.released)
    }

    /// How far it has got.
    pub(super) fn answer(&self, core: u16) -> Placed {
        let said = self.unplaced.iter().filter(|unplaced| unplaced.sequence <= self.placed);
        Placed {
            core: core.into(),
            upto: self.placed,
            released_upto: self.released,
            unplaced: said.copied().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(inbound: &Inbound) -> (u64, u64) {
        let answer = inbound.answer(0);
        (answer.upto, answer.released_upto)
    }

    #[test]
    fn each_batch_is_taken_once_and_in_order() {
        let mut inbound = Inbound::default();
        for (sequence, first, verdict) in [
            (1, 1, Verdict::Take),
            (3, 1, Verdict::Gap),
            (2, 1, Verdict::Take),
            (1, 1, Verdict::Again),
            (2, 2, Verdict::Again),
            (3, 2, Verdict::Take),
            // The peer has given up 4 to 7.
            (9, 8, Verdict::Gap),
            (8, 8, Verdict::Take),
        ] {
            assert_eq!(inbound.accept(sequence, first), verdict, "{sequence} from {first}");
        }
    }

    #[test]
    fn an_answer_is_for_everything_before_it() {
        let mut inbound = Inbound::default();
        (1..=3).for_each(|sequence| assert_eq!(inbound.accept(sequence, 1), Verdict::Take));
        assert!(!inbound.released(1), "said with its being placed");
        assert!(!inbound.placed(2, Vec::new()));
        assert!(inbound.placed(1, Vec::new()));
        assert_eq!(said(&inbound), (2, 1));
        assert!(!inbound.released(3));
        assert!(inbound.placed(3, Vec::new()));
        assert_eq!(said(&inbound), (3, 1), "somebody is behind with 2");
        assert!(inbound.released(2));
        assert_eq!(said(&inbound), (3, 3));
        assert!(!inbound.released(2) && !inbound.placed(7, Vec::new()));
    }

    #[test]
    fn what_was_not_placed_is_said_until_it_was_heard() {
        let mut inbound = Inbound::default();
        let unplaced = |sequence| Unplaced { sequence, parcel: 4, reason: 0 };
        inbound.accept(1, 1);
        inbound.accept(2, 1);
        inbound.placed(2, vec![unplaced(2)]);
        assert_eq!(inbound.answer(0).unplaced, []);
        inbound.placed(1, vec![unplaced(1)]);
        assert_eq!(inbound.answer(0).unplaced, [unplaced(2), unplaced(1)]);
        inbound.accept(3, 2);
        assert_eq!(inbound.answer(0).unplaced, [unplaced(2)]);
    }
}
