//! Acknowledgements owed to the client, in the order its publications came.

use std::collections::VecDeque;

use crate::{AckKind, PacketId, Reason};

/// One acknowledgement that the client is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owed {
    /// PUBACK, PUBREC or PUBCOMP.
    pub kind: AckKind,
    /// Of the packet that is acknowledged.
    pub id: PacketId,
    /// What the client is told.
    pub reason: Reason,
    /// Takers that have not said yet that they have the publication safe.
    pub waiting: u16,
}

/// What happens when it is an acknowledgement's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It leaves.
    Send(Owed),
    /// There is no packet that says what happened: the connection ends for this reason instead.
    End(Reason),
}

/// Keeps acknowledgements until everything before them is ready too: PUBACK and PUBREC leave in the
/// order the publications came [v5 MQTT-4.6.0-2, MQTT-4.6.0-3].
///
/// Bounded by the Receive Maximum: [`super::Inbound`] refuses, or the connection stops reading.
#[derive(Debug, Default)]
pub struct Acks {
    first: u32,
    /// Whether one of them cannot be said.
    is_ending: bool,
    owed: VecDeque<Entry>,
}

#[derive(Debug)]
struct Entry {
    owed: Owed,
    /// It stays, so that nothing behind it is acknowledged: what it is for would be sent again alone, and
    /// come after that.
    cannot_be_said: bool,
}

impl Acks {
    /// Acknowledgements that cannot leave yet.
    pub fn len(&self) -> usize {
        self.owed.len()
    }

    /// Whether nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.owed.is_empty()
    }

    /// Adds one; the number names it in [`Acks::taken`].
    pub fn push(&mut self, owed: Owed) -> u32 {
        let number = self.first.wrapping_add(u32::try_from(self.owed.len()).expect("bounded"));
        self.owed.push_back(Entry { owed, cannot_be_said: false });
        number
    }

    /// It is known how many takers a publication has: until then it was kept waiting by one.
    pub fn sent(&mut self, number: u32, takers: u16, reason: Option<Reason>) {
        if let Some(Entry { owed, .. }) = self.get_mut(number) {
            owed.waiting = owed.waiting + takers - 1;
            owed.reason = reason.unwrap_or(owed.reason);
        }
    }

    /// One taker has the publication safe.
    pub fn taken(&mut self, number: u32) {
        if let Some(Entry { owed, .. }) = self.get_mut(number) {
            owed.waiting = owed.waiting.saturating_sub(1);
        }
    }

    /// One taker has not, or nobody knows: the client is told `reason` if `can_be_said` of what it is
    /// owed, or its connection ends when everything before is acknowledged.
    pub fn failed(
        &mut self,
        number: u32,
        reason: Reason,
        can_be_said: impl FnOnce(AckKind) -> bool,
    ) {
        let Some(entry) = self.get_mut(number) else { return };
        entry.owed.waiting = entry.owed.waiting.saturating_sub(1);
        entry.owed.reason = reason;
        entry.cannot_be_said |= !can_be_said(entry.owed.kind);
        self.is_ending |= entry.cannot_be_said;
    }

    fn get_mut(&mut self, number: u32) -> Option<&mut Entry> {
        self.owed.get_mut(number.wrapping_sub(self.first) as usize)
    }

    /// Whether the connection is to end because of something that cannot be said.
    pub fn is_ending(&self) -> bool {
        self.is_ending
    }

    /// Whose turn it is: what leaves is taken out.
    pub fn turn(&mut self) -> Option<Turn> {
        let &Entry { owed, cannot_be_said } = self.owed.front()?;
        if owed.waiting > 0 {
            return None;
        }
        if cannot_be_said {
            return Some(Turn::End(owed.reason));
        }
        self.first = self.first.wrapping_add(1);
        self.owed.pop_front();
        if self.owed.is_empty() {
            self.owed.shrink_to(64);
        }
        Some(Turn::Send(owed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owed(id: u16, waiting: u16) -> Owed {
        let id = PacketId::new(id).unwrap();
        Owed { kind: AckKind::PubAck, id, reason: Reason::Success, waiting }
    }

    fn sent(acks: &mut Acks) -> Vec<(u16, Reason)> {
        let next = || match acks.turn()? {
            Turn::Send(owed) => Some((owed.id.get(), owed.reason)),
            Turn::End(_) => None,
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn acknowledgements_leave_in_order() {
        let mut acks = Acks::default();
        let first = acks.push(owed(1, 2));
        let second = acks.push(owed(2, 1));
        acks.push(owed(3, 0));
        acks.taken(second);
        assert_eq!(sent(&mut acks), []);
        acks.taken(first);
        assert_eq!(sent(&mut acks), []);
        acks.failed(first, Reason::QuotaExceeded, |_| true);
        assert_eq!(
            sent(&mut acks),
            [(1, Reason::QuotaExceeded), (2, Reason::Success), (3, Reason::Success)]
        );
        acks.taken(first);
        acks.failed(first, Reason::QuotaExceeded, |_| false);
        assert!(acks.is_empty() && !acks.is_ending(), "late words of what is gone change nothing");
    }

    #[test]
    fn what_cannot_be_said_is_waited_for_and_ends_the_connection() {
        let mut acks = Acks::default();
        let numbers: Vec<_> = (1..=4).map(|id| acks.push(owed(id, 1))).collect();
        acks.failed(numbers[3], Reason::QuotaExceeded, |_| false);
        acks.failed(numbers[1], Reason::UnspecifiedError, |kind| kind != AckKind::PubAck);
        acks.failed(numbers[2], Reason::QuotaExceeded, |_| false);
        assert!(acks.is_ending());
        assert_eq!(acks.turn(), None, "the first one is still on its way");
        acks.taken(numbers[0]);
        assert_eq!(sent(&mut acks), [(1, Reason::Success)]);
        for _ in 0..2 {
            assert_eq!(acks.turn(), Some(Turn::End(Reason::UnspecifiedError)));
        }
    }
}
