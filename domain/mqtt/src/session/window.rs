//! Packet identifiers of publications on their way to the client.

use std::collections::VecDeque;

use crate::{PacketId, QoS};

/// Identifiers in use span less than this, so that each names one exchange.
const CYCLE: u64 = 65_535;

/// One exchange as the broker sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// QoS 1, waits for PUBACK.
    Once,
    /// QoS 2, waits for PUBREC.
    Twice,
    /// QoS 2, PUBREL sent or about to be, waits for PUBCOMP.
    Released,
    Done,
}

/// What an acknowledgement from the client brought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The exchange with this sequence number is over and its identifier is free.
    Ended(u64),
    /// The client has the QoS 2 publication with this sequence number: PUBREL is next.
    Received(u64),
    /// PUBREC came again: PUBREL goes out again.
    ReceivedAgain(u64),
    /// No exchange with that identifier waits for this packet.
    Unknown,
}

/// The exchanges that are open towards one client, by sequence number.
///
/// The identifier of an exchange is `seq % 65535 + 1`: a session that is resumed after a crash uses
/// the same identifiers again without having stored them.
#[derive(Debug)]
pub struct Window {
    base: u64,
    states: VecDeque<State>,
    open: u16,
    limit: u16,
}

impl Window {
    /// A window for a client that takes `limit` unacknowledged publications [v5 MQTT-3.3.4-9].
    pub fn new(limit: u16) -> Self {
        Self { base: 0, states: VecDeque::new(), open: 0, limit }
    }

    /// The packet identifier of a sequence number.
    pub fn packet_id(seq: u64) -> PacketId {
        let id = u16::try_from(seq % CYCLE + 1).expect("one to 65535");
        PacketId::new(id).expect("at least one")
    }

    /// The most unacknowledged publications the client takes.
    pub fn limit(&self) -> u16 {
        self.limit
    }

    /// Exchanges that the client has not ended yet.
    pub fn open(&self) -> u16 {
        self.open
    }

    /// Whether the client takes one more publication.
    pub fn has_room(&self) -> bool {
        self.open < self.limit && (self.states.len() as u64) < CYCLE
    }

    /// Opens the next exchange.
    pub fn open_next(&mut self, qos: QoS) -> PacketId {
        self.open_at(self.next_seq(), qos)
    }

    /// Opens the exchange of a sequence number that someone else assigned; numbers only grow.
    pub fn open_at(&mut self, seq: u64, qos: QoS) -> PacketId {
        let state = if qos == QoS::ExactlyOnce { State::Twice } else { State::Once };
        self.open_as(seq, state);
        Self::packet_id(seq)
    }

    /// The identifier that PUBREL carries for a sequence number, on a resumed session or once the
    /// release is safe. `None` when the client has ended that exchange: opened again, nothing would
    /// end it.
    pub fn release_at(&mut self, seq: u64) -> Option<PacketId> {
        if seq >= self.next_seq() {
            self.open_as(seq, State::Released);
            return Some(Self::packet_id(seq));
        }
        let at = usize::try_from(seq.checked_sub(self.base)?).ok()?;
        (self.states.get(at) == Some(&State::Released)).then(|| Self::packet_id(seq))
    }

    /// The number after the last one that was opened.
    pub fn next_seq(&self) -> u64 {
        self.base + self.states.len() as u64
    }

    fn open_as(&mut self, seq: u64, state: State) {
        if self.states.is_empty() {
            self.base = seq;
        } else if seq < self.next_seq() {
            return;
        }
        while self.next_seq() < seq {
            self.states.push_back(State::Done);
        }
        self.states.push_back(state);
        self.open += 1;
    }

    /// PUBACK ends a QoS 1 exchange.
    pub fn puback(&mut self, id: PacketId) -> Settled {
        self.end(id, State::Once)
    }

    /// PUBREC: the client has the publication. With an error code it ends the exchange at once.
    pub fn pubrec(&mut self, id: PacketId, refused: bool) -> Settled {
        let Some((seq, state)) = self.find(id) else { return Settled::Unknown };
        match (*state, refused) {
            (State::Twice, true) => self.end(id, State::Twice),
            (State::Twice, false) => {
                *state = State::Released;
                Settled::Received(seq)
            }
            (State::Released, _) => Settled::ReceivedAgain(seq),
            _ => Settled::Unknown,
        }
    }

    /// PUBCOMP ends a QoS 2 exchange.
    pub fn pubcomp(&mut self, id: PacketId) -> Settled {
        self.end(id, State::Released)
    }

    fn end(&mut self, id: PacketId, from: State) -> Settled {
        let Some((seq, state)) = self.find(id) else { return Settled::Unknown };
        if *state != from {
            return Settled::Unknown;
        }
        *state = State::Done;
        self.open -= 1;
        while self.states.front() == Some(&State::Done) {
            self.states.pop_front();
            self.base += 1;
        }
        if self.states.is_empty() {
            self.states.shrink_to(64);
        }
        Settled::Ended(seq)
    }

    fn find(&mut self, id: PacketId) -> Option<(u64, &mut State)> {
        let offset = (u64::from(id.get()) - 1 + CYCLE - self.base % CYCLE) % CYCLE;
        let state = self.states.get_mut(usize::try_from(offset).ok()?)?;
        Some((self.base + offset, state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u16) -> PacketId {
        PacketId::new(n).unwrap()
    }

    #[test]
    fn identifiers_are_not_reused_before_their_exchange_ends() {
        let mut window = Window::new(u16::MAX);
        let first = window.open_next(QoS::AtLeastOnce);
        for _ in 1..65_535 {
            assert!(window.has_room());
            let next = window.open_next(QoS::AtLeastOnce);
            assert_ne!(next, first);
            assert_eq!(
                window.puback(next),
                Settled::Ended(window.base + u64::from(next.get()) - 1)
            );
        }
        assert!(!window.has_room(), "the oldest exchange holds its identifier");
        assert_eq!(window.puback(first), Settled::Ended(0));
        assert!(window.has_room());
        assert_eq!(window.open_next(QoS::AtLeastOnce), first);
    }

    #[test]
    fn only_the_expected_acknowledgement_ends_an_exchange() {
        let mut window = Window::new(10);
        let one = window.open_next(QoS::AtLeastOnce);
        let two = window.open_next(QoS::ExactlyOnce);
        assert_eq!(window.pubcomp(one), Settled::Unknown);
        assert_eq!(window.pubrec(one, false), Settled::Unknown);
        assert_eq!(window.puback(two), Settled::Unknown);
        assert_eq!(window.pubcomp(two), Settled::Unknown);
        assert_eq!(window.pubrec(two, false), Settled::Received(1));
        assert_eq!(window.pubrec(two, false), Settled::ReceivedAgain(1));
        assert_eq!(window.pubcomp(two), Settled::Ended(1));
        assert_eq!(window.pubcomp(two), Settled::Unknown);
        assert_eq!(window.puback(id(500)), Settled::Unknown);
        assert_eq!(window.puback(one), Settled::Ended(0));
        assert_eq!(window.open(), 0);
    }

    #[test]
    fn a_refused_qos_2_publication_is_over() {
        let mut window = Window::new(1);
        let two = window.open_next(QoS::ExactlyOnce);
        assert!(!window.has_room());
        assert_eq!(window.pubrec(two, true), Settled::Ended(0));
        assert!(window.has_room());
    }

    #[test]
    fn a_resumed_session_keeps_its_numbers() {
        let mut window = Window::new(10);
        assert_eq!(window.release_at(65_534), Some(id(65_535)));
        assert_eq!(window.open_at(65_537, QoS::AtLeastOnce), id(3));
        assert_eq!(window.open(), 2);
        assert_eq!(window.puback(id(1)), Settled::Unknown, "a gap is no exchange");
        assert_eq!(window.puback(id(3)), Settled::Ended(65_537));
        assert_eq!(window.pubcomp(id(65_535)), Settled::Ended(65_534));
        assert_eq!(window.open(), 0);
    }

    #[test]
    fn only_an_open_exchange_is_released() {
        let mut window = Window::new(10);
        for (seq, qos) in [(3, QoS::ExactlyOnce), (4, QoS::AtLeastOnce), (5, QoS::ExactlyOnce)] {
            window.open_at(seq, qos);
        }
        window.pubrec(id(4), false);
        for (seq, expected) in [(2, None), (3, Some(id(4))), (4, None), (5, None), (6, Some(id(7)))]
        {
            assert_eq!(window.release_at(seq), expected, "{seq}");
        }
        for settled in [window.pubcomp(id(4)), window.pubcomp(id(7)), window.puback(id(5))] {
            assert!(matches!(settled, Settled::Ended(_)));
        }
        assert_eq!(window.pubrec(id(6), true), Settled::Ended(5));
        assert_eq!(window.release_at(6), None);
        assert_eq!(window.open(), 0);
    }
}
