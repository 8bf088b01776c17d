//! Counts what was received, and what was lost, duplicated or out of order.
//!
//! A [`Stream`] watches one publisher's publications at one receiver, in constant space as long as
//! they arrive in order. [`Shares`] watches one publisher's publications at a group of receivers
//! that share them.

use std::collections::BTreeMap;

/// What went wrong, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Publications that never came.
    pub lost: u64,
    /// Publications that came again.
    pub duplicated: u64,
    /// Publications that came after a later one.
    pub reordered: u64,
}

impl std::ops::AddAssign for Faults {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
    }
}

/// One publisher's publications at one receiver.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    next: u64,
    /// Gaps below `next`: start to end, exclusive.
    missing: BTreeMap<u64, u64>,
    duplicated: u64,
    reordered: u64,
}

impl Stream {
    /// Takes in one sequence number; returns by how far the stream advanced.
    #[inline]
    pub fn receive(&mut self, sequence: u64) -> u64 {
        if sequence == self.next {
            self.next += 1;
            return 1;
        }
        self.receive_unexpected(sequence)
    }

    #[cold]
    fn receive_unexpected(&mut self, sequence: u64) -> u64 {
        if sequence > self.next {
            let advance = sequence + 1 - self.next;
            self.missing.insert(self.next, sequence);
            self.next = sequence + 1;
            return advance;
        }
        let gap = self.missing.range(..=sequence).next_back().map(|(&start, &end)| (start, end));
        match gap {
            Some((start, end)) if sequence < end => {
                self.missing.remove(&start);
                if start < sequence {
                    self.missing.insert(start, sequence);
                }
                if sequence + 1 < end {
                    self.missing.insert(sequence + 1, end);
                }
                self.reordered += 1;
            }
            _ => self.duplicated += 1,
        }
        0
    }

    /// One past the highest sequence number seen.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The verdict once `sent` publications should have arrived.
    pub fn faults(&self, sent: u64) -> Faults {
        let gaps: u64 = self.missing.iter().map(|(start, end)| end - start).sum();
        Faults {
            lost: gaps + sent.saturating_sub(self.next),
            duplicated: self.duplicated,
            reordered: self.reordered,
        }
    }
}

/// One publisher's publications at the members of a shared subscription: each belongs to exactly
/// one member, and each member gets its part in order.
#[derive(Clone, Debug)]
pub struct Shares {
    seen: Vec<u64>,
    received: u64,
    duplicated: u64,
    reordered: u64,
    /// One past the highest sequence number seen, per member.
    next: Vec<u64>,
}

impl Shares {
    /// Nothing received yet, by `members` members.
    pub fn new(members: usize) -> Self {
        let next = vec![0; members];
        Self { seen: Vec::new(), received: 0, duplicated: 0, reordered: 0, next }
    }

    /// Takes in one sequence number; returns 1 if it is new.
    #[inline]
    pub fn receive(&mut self, member: usize, sequence: u64) -> u64 {
        let (word, bit) = ((sequence / 64) as usize, 1 << (sequence % 64));
        if word >= self.seen.len() {
            self.seen.resize(word + 1024, 0);
        }
        if self.seen[word] & bit != 0 {
            self.duplicated += 1;
            return 0;
        }
        self.seen[word] |= bit;
        self.received += 1;
        if sequence < self.next[member] {
            self.reordered += 1;
        } else {
            self.next[member] = sequence + 1;
        }
        1
    }

    /// The verdict once `sent` publications should have arrived.
    pub fn faults(&self, sent: u64) -> Faults {
        Faults {
            lost: sent.saturating_sub(self.received),
            duplicated: self.duplicated,
            reordered: self.reordered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_tell_loss_from_repetition_and_disorder() {
        for (received, sent, (lost, duplicated, reordered)) in [
            (&[0, 1, 2][..], 3, (0, 0, 0)),
            (&[0, 1, 2], 5, (2, 0, 0)),
            (&[0, 2, 4], 5, (2, 0, 0)),
            (&[0, 1, 1, 2, 0], 3, (0, 2, 0)),
            (&[0, 3, 1, 2], 4, (0, 0, 2)),
            (&[0, 4, 2, 2], 5, (2, 1, 1)),
            (&[], 2, (2, 0, 0)),
        ] {
            let mut stream = Stream::default();
            let advanced: u64 = received.iter().map(|&sequence| stream.receive(sequence)).sum();
            assert_eq!(stream.faults(sent), Faults { lost, duplicated, reordered }, "{received:?}");
            assert_eq!(advanced, stream.next());
        }
    }

    #[test]
    fn members_share_a_stream() {
        for (received, sent, (lost, duplicated, reordered)) in [
            (&[(0, 0), (1, 1), (0, 2)][..], 3, (0, 0, 0)),
            (&[(0, 1), (1, 0)], 2, (0, 0, 0)),
            (&[(0, 1), (0, 0)], 2, (0, 0, 1)),
            (&[(0, 0), (1, 0)], 2, (1, 1, 0)),
        ] {
            let mut shares = Shares::new(2);
            for &(member, sequence) in received {
                shares.receive(member, sequence);
            }
            assert_eq!(shares.faults(sent), Faults { lost, duplicated, reordered }, "{received:?}");
        }
    }
}
