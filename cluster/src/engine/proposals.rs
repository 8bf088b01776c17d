//! What this node has proposed to a group and has not seen applied: in order, and each applied once
//! ([`crate::sources`]), wherever the group is led.
//!
//! It is offered to the leader, which may be this node; after a change of the lead, or when nothing
//! moves for long, again from the oldest on. Outcomes come from this node's own replica, so whoever
//! hears one also finds it in the machine.
//!
//! Bounded by [`crate::Config::inbox_bytes`] for what may be refused, and by what [`crate::OnFull::Wait`]
//! says for the rest. What may not be refused is not given up either, as long as this node is a member.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::leadership::ELECTION_TICKS;
use crate::pack::{Run, packed_len};
use crate::sources::Source;

/// Ticks without progress after which everything is offered again.
const AGAIN_TICKS: usize = ELECTION_TICKS;
/// Ticks without progress after which nobody is kept waiting for an answer.
const PATIENCE_TICKS: usize = 5 * ELECTION_TICKS;
/// Bytes that are offered and not applied: as much as another node can take in, or a batch of all
/// groups.
const WINDOW_BYTES: usize = 8 << 20;

/// A command with the reply that is owed for it.
pub(super) struct Command<R> {
    pub(super) bytes: Bytes,
    pub(super) reply: Option<R>,
    /// Whether it may not be refused.
    pub(super) owed: bool,
    /// When its turn took it.
    pub(super) at: Duration,
}

/// See the module.
pub(super) struct Proposals<R> {
    source: Source,
    open: VecDeque<Command<R>>,
    bytes: usize,
    /// The number that the next command gets.
    next: u64,
    /// The present leader was offered what has a lower number, and so many bytes of it are open.
    offered: u64,
    offered_bytes: usize,
    /// The leader, and its term.
    to: Option<(u64, u64)>,
    stalled_ticks: usize,
}

impl<R> Proposals<R> {
    pub(super) fn new(source: Source) -> Self {
        Self {
            source,
            open: VecDeque::new(),
            bytes: 0,
            next: 1,
            offered: 1,
            offered_bytes: 0,
            to: None,
            stalled_ticks: 0,
        }
    }

    pub(super) fn source(&self) -> Source {
        self.source
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn first(&self) -> u64 {
        self.next - self.open.len() as u64
    }

    pub(super) fn add(&mut self, command: Command<R>) {
        if self.open.is_empty() {
            self.stalled_ticks = 0;
        }
        self.bytes += packed_len(&command.bytes);
        self.next += 1;
        self.open.push_back(command);
    }

    /// Whether there is more to offer to whom it was offered before.
    pub(super) fn has_more(&self) -> bool {
        let next = self.open.get((self.offered - self.first()) as usize);
        next.is_some_and(|command| self.fits(packed_len(&command.bytes)))
    }

    fn fits(&self, bytes: usize) -> bool {
        self.offered_bytes == 0 || self.offered_bytes + bytes <= WINDOW_BYTES
    }

    /// What the leader of a term is to be offered now, if anything.
    pub(super) fn offer(&mut self, leader: u64, term: u64) -> Option<Run> {
        if self.to != Some((leader, term)) {
            self.to = Some((leader, term));
            self.offer_again();
        }
        let (first, mut commands) = (self.offered, Vec::new());
        for command in self.open.iter().skip((first - self.first()) as usize) {
            let bytes = packed_len(&command.bytes);
            if !self.fits(bytes) {
                break;
            }
            self.offered_bytes += bytes;
            commands.push(command.bytes.clone());
        }
        self.offered += commands.len() as u64;
        let source = Some(self.source);
        (!commands.is_empty()).then_some(Run { source, first, commands })
    }

    /// What was offered may be lost.
    pub(super) fn offer_again(&mut self) {
        (self.offered, self.offered_bytes) = (self.first(), 0);
    }

    /// The command with this number, which must be the first open one, is applied.
    pub(super) fn applied(&mut self, number: u64) -> Option<Command<R>> {
        if number != self.first() {
            return None;
        }
        let command = self.open.pop_front()?;
        let bytes = packed_len(&command.bytes);
        self.bytes -= bytes;
        if self.offered > number {
            self.offered_bytes -= bytes;
        }
        self.offered = self.offered.max(number + 1);
        self.stalled_ticks = 0;
        Some(command)
    }

    /// All commands up to this number are applied, and nobody saw what came of them: takes out their
    /// replies.
    pub(super) fn passed(&mut self, last: u64) -> Vec<R> {
        let mut replies = Vec::new();
        while !self.open.is_empty() && self.first() <= last {
            replies.extend(self.applied(self.first()).and_then(|command| command.reply));
        }
        replies
    }

    /// A unit of Raft's time has passed. Gives the replies of those that have waited for too long; the
    /// commands stay, since they may be on their way.
    pub(super) fn tick(&mut self, is_member: bool) -> Vec<R> {
        if self.open.is_empty() {
            return Vec::new();
        }
        self.stalled_ticks += 1;
        if self.stalled_ticks.is_multiple_of(AGAIN_TICKS) {
            self.offer_again();
        }
        if self.stalled_ticks < PATIENCE_TICKS {
            return Vec::new();
        }
        let asked = self.open.iter_mut().filter(|command| !(command.owed && is_member));
        asked.filter_map(|command| command.reply.take()).collect()
    }

    /// Takes out all replies.
    pub(super) fn give_up(&mut self) -> Vec<R> {
        self.open.iter_mut().filter_map(|command| command.reply.take()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SELF: u64 = 1;

    fn proposals(count: u64, len: usize) -> Proposals<u64> {
        let mut proposals = Proposals::new(Source { node: SELF, incarnation: 1 });
        (1..=count).for_each(|number| add(&mut proposals, number, len));
        proposals
    }

    fn add(proposals: &mut Proposals<u64>, reply: u64, len: usize) {
        let (bytes, reply) = (vec![0; len].into(), Some(reply));
        proposals.add(Command { bytes, reply, owed: false, at: Duration::ZERO });
    }

    /// The numbers that are offered.
    fn offer(proposals: &mut Proposals<u64>, leader: u64, term: u64) -> std::ops::Range<u64> {
        let run = proposals.offer(leader, term);
        run.map_or(0..0, |run| run.first..run.first + run.commands.len() as u64)
    }

    #[test]
    fn each_leader_is_offered_everything_once() {
        let mut proposals = proposals(3, 10);
        assert_eq!(offer(&mut proposals, 2, 1), 1..4);
        assert_eq!(offer(&mut proposals, 2, 1), 0..0);
        add(&mut proposals, 4, 10);
        assert_eq!(offer(&mut proposals, 2, 1), 4..5);
        assert_eq!(proposals.applied(1).unwrap().reply, Some(1));
        for (leader, term) in [(3, 2), (2, 3), (2, 4)] {
            assert_eq!(offer(&mut proposals, leader, term), 2..5, "{leader} in term {term}");
        }
        assert_eq!(proposals.passed(3), [2, 3]);
        assert_eq!(offer(&mut proposals, 3, 5), 4..5);
        assert_eq!(proposals.passed(9), [4]);
        assert_eq!(proposals.bytes(), 0);
    }

    #[test]
    fn a_leader_is_offered_no_more_than_it_can_take_in() {
        let mut proposals = proposals(10, WINDOW_BYTES / 3);
        assert_eq!(offer(&mut proposals, 2, 1), 1..3);
        assert!(!proposals.has_more());
        assert_eq!(offer(&mut proposals, 2, 1), 0..0);
        proposals.applied(1);
        assert!(proposals.has_more());
        assert_eq!(offer(&mut proposals, 2, 1), 3..4);
        assert_eq!(offer(&mut proposals, SELF, 2), 2..4);
        let mut large = self::proposals(2, WINDOW_BYTES + 1);
        assert_eq!(offer(&mut large, 2, 1), 1..2);
    }

    #[test]
    fn what_does_not_move_is_offered_again_and_nobody_waits_for_ever() {
        let mut proposals = proposals(2, 10);
        assert_eq!(offer(&mut proposals, 2, 1), 1..3);
        for tick in 1..PATIENCE_TICKS {
            assert!(proposals.tick(true).is_empty(), "at tick {tick}");
            let again = if tick.is_multiple_of(AGAIN_TICKS) { 1..3 } else { 0..0 };
            assert_eq!(offer(&mut proposals, 2, 1), again, "at tick {tick}");
        }
        let (bytes, reply) = (Bytes::new(), Some(3));
        proposals.add(Command { bytes, reply, owed: true, at: Duration::ZERO });
        assert_eq!(proposals.tick(true), [1, 2]);
        assert!(proposals.tick(true).is_empty());
        assert_eq!(proposals.tick(false), [3], "what is owed is given up by nobody else");
        assert!(proposals.applied(1).unwrap().reply.is_none());
    }
}
