//! Held by whoever has still something to do for a batch of a peer; dropping the last one says that it
//! is done.

use std::fmt;
use std::sync::Arc;

use links::proto::Unplaced;
use parking_lot::Mutex;

use super::Peer;
use crate::shared::Shared;

/// A batch that a peer has sent.
#[derive(Clone)]
pub struct Origin {
    /// What this node's threads share.
    pub shared: Arc<Shared>,
    /// Who has sent it.
    pub peer: Arc<Peer>,
    /// In which of its lives.
    pub incarnation: u64,
    /// From which of its cores.
    pub core: u16,
    /// Its number.
    pub sequence: u64,
}

/// Somebody has still to place a part of a batch.
pub struct Placing {
    origin: Origin,
    unplaced: Mutex<Vec<Unplaced>>,
}

/// Somebody is behind with a part of a batch.
pub(super) struct Releasing(pub(super) Origin);

impl Placing {
    /// Nothing of the batch is placed.
    pub fn new(origin: Origin) -> Self {
        Self { origin, unplaced: Mutex::default() }
    }

    /// A parcel cannot be placed here; with `reason` 0 the peer may choose another member.
    pub fn unplaced(&self, parcel: u32, reason: u32) {
        let sequence = self.origin.sequence;
        self.unplaced.lock().push(Unplaced { sequence, parcel, reason });
    }
}

impl Drop for Placing {
    fn drop(&mut self) {
        let unplaced = std::mem::take(self.unplaced.get_mut());
        let sequence = self.origin.sequence;
        self.origin.peer.report(&self.origin, |inbound| inbound.placed(sequence, unplaced));
    }
}

impl Drop for Releasing {
    fn drop(&mut self) {
        let sequence = self.0.sequence;
        self.0.peer.report(&self.0, |inbound| inbound.released(sequence));
    }
}

impl fmt::Debug for Placing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Placing")
            .field("core", &self.origin.core)
            .field("sequence", &self.origin.sequence)
            .finish_non_exhaustive()
    }
}
