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

/// Keeps acknowledgements until everything before them is ready too: PUBACK and PUBREC leave in the
/// order the publications came [v5 MQTT-4.6.0-2, MQTT-4.6.0-3].
///
/// Bounded by the Receive Maximum: [`super::Inbound`] refuses, or the connection stops reading.
#[derive(Debug, Default)]
pub struct Acks {
    first: u32,
    owed: VecDeque<Owed>,
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
        self.owed.push_back(owed);
        number
    }

    /// It is known how many takers a publication has: until then it was kept waiting by one.
    pub fn sent(&mut self, number: u32, takers: u16, reason: Option<Reason>) {
        if let Some(owed) = self.owed.get_mut(number.wrapping_sub(self.first) as usize) {
            owed.waiting = owed.waiting + takers - 1;
            owed.reason = reason.unwrap_or(owed.reason);
        }
    }

    /// One taker has the publication safe; `reason` replaces success when it is an error.
    pub fn taken(&mut self, number: u32, reason: Option<Reason>) {
        let Some(owed) = self.owed.get_mut(number.wrapping_sub(self.first) as usize) else {
            return;
        };
        owed.waiting = owed.waiting.saturating_sub(1);
        if let Some(reason) = reason {
            owed.reason = reason;
        }
    }

    /// The next acknowledgement that may leave now.
    pub fn ready(&self) -> Option<Owed> {
        self.owed.front().filter(|owed| owed.waiting == 0).copied()
    }

    /// Takes it out.
    pub fn pop_ready(&mut self) -> Option<Owed> {
        self.ready()?;
        self.first = self.first.wrapping_add(1);
        let owed = self.owed.pop_front();
        if self.owed.is_empty() {
            self.owed.shrink_to(64);
        }
        owed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owed(id: u16, waiting: u16) -> Owed {
        let id = PacketId::new(id).unwrap();
        Owed { kind: AckKind::PubAck, id, reason: Reason::Success, waiting }
    }

    #[test]
    fn acknowledgements_leave_in_order() {
        let mut acks = Acks::default();
        let first = acks.push(owed(1, 2));
        let second = acks.push(owed(2, 1));
        acks.push(owed(3, 0));
        acks.taken(second, None);
        assert_eq!(acks.pop_ready(), None);
        acks.taken(first, None);
        assert_eq!(acks.pop_ready(), None);
        acks.taken(first, Some(Reason::QuotaExceeded));
        assert_eq!(acks.pop_ready().map(|owed| owed.reason), Some(Reason::QuotaExceeded));
        assert_eq!(acks.pop_ready().map(|owed| owed.id.get()), Some(2));
        assert_eq!(acks.pop_ready().map(|owed| owed.id.get()), Some(3));
        assert_eq!(acks.pop_ready(), None);
        acks.taken(first, None);
        assert!(acks.is_empty(), "a late word about something gone changes nothing");
    }
}
