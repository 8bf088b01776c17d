//! Who shall receive what, and what each has received.

use crate::tally::{Faults, Shares, Stream};

/// Who receives the publications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receivers {
    /// Nobody is connected.
    None,
    /// Each publisher has one subscriber of its own.
    Pairs {
        /// Publishers, and subscribers.
        pairs: usize,
    },
    /// Each subscriber receives everything.
    All {
        /// How many publish.
        publishers: usize,
        /// How many subscribe.
        subscribers: usize,
    },
    /// The members of a shared subscription receive everything once.
    Shared {
        /// How many publish.
        publishers: usize,
        /// How many share.
        members: usize,
    },
}

#[derive(Debug)]
pub(super) struct Ledger {
    receivers: Receivers,
    streams: Vec<Stream>,
    shares: Vec<Shares>,
}

impl Ledger {
    pub(super) fn new(receivers: Receivers) -> Self {
        let (streams, shares, members) = match receivers {
            Receivers::None => (0, 0, 0),
            Receivers::Pairs { pairs } => (pairs, 0, 0),
            Receivers::All { publishers, subscribers } => (publishers * subscribers, 0, 0),
            Receivers::Shared { publishers, members } => (0, publishers, members),
        };
        Self {
            receivers,
            streams: vec![Stream::default(); streams],
            shares: vec![Shares::new(members); shares],
        }
    }

    /// How often each publication is to be received.
    pub(super) fn receivers_of_each(&self) -> u64 {
        match self.receivers {
            Receivers::None => 0,
            Receivers::Pairs { .. } | Receivers::Shared { .. } => 1,
            Receivers::All { subscribers, .. } => subscribers as u64,
        }
    }

    /// How many sequences are received in all.
    pub(super) fn streams(&self) -> u64 {
        (self.streams.len() + self.shares.len()) as u64
    }

    /// Takes in one publication; returns by how far it advances the publisher's deliveries, or
    /// nothing when this subscriber should not have got it.
    #[inline]
    pub(super) fn receive(
        &mut self,
        subscriber: usize,
        publisher: usize,
        sequence: u64,
    ) -> Option<u64> {
        match self.receivers {
            Receivers::None => None,
            Receivers::Pairs { pairs } if publisher == subscriber && publisher < pairs => {
                Some(self.streams[subscriber].receive(sequence))
            }
            Receivers::Pairs { .. } => None,
            Receivers::All { publishers, .. } if publisher < publishers => {
                Some(self.streams[subscriber * publishers + publisher].receive(sequence))
            }
            Receivers::All { .. } => None,
            Receivers::Shared { .. } => {
                Some(self.shares.get_mut(publisher)?.receive(subscriber, sequence))
            }
        }
    }

    pub(super) fn faults(&self, sent: &[u64]) -> Faults {
        let mut faults = Faults::default();
        for (stream, &sent) in self.streams.iter().zip(sent.iter().cycle()) {
            faults += stream.faults(sent);
        }
        for (shares, &sent) in self.shares.iter().zip(sent) {
            faults += shares.faults(sent);
        }
        faults
    }
}
