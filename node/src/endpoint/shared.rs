//! What a connection that keeps no queue has of shared subscriptions: kept until its client has
//! acknowledged it, so that another member gets it when the connection ends first.
//!
//! QoS 2 is kept only until it is sent: from then on it is this client's alone [v5 MQTT-4.8.2-5].
//! Bound: [`Budget::pending`](super::Budget) bytes that were sent; what is more is not passed on.

use std::collections::VecDeque;
use std::sync::Arc;

use mqtt::{PacketId, QoS};

use super::{Endpoint, Pending, State};
use crate::copies::{Copies, Place};
use crate::interest::ShareGroup;
use crate::outbox::Pool;
use crate::publication::{Kept, Publication};

/// What was sent and is not acknowledged.
#[derive(Debug, Default)]
pub(super) struct Unacknowledged {
    sent: VecDeque<(PacketId, Sent, Arc<ShareGroup>)>,
    copies: Copies,
    /// Bytes of the large ones.
    large: usize,
}

/// A publication that was sent.
#[derive(Debug)]
enum Sent {
    Small(Place),
    /// Its payload is shared with sockets.
    Large(Box<Kept>),
}

fn bytes_of(kept: &Kept) -> usize {
    kept.bytes() + 128
}

impl Unacknowledged {
    /// Whether another one adds nothing to what is held, or that is below a bound.
    fn has_room(&self, publication: &Publication<'_>, budget: usize) -> bool {
        let is_small = publication.large_payload().is_none();
        self.copies.held() + self.large < budget || is_small && self.copies.has_room(publication)
    }

    fn add(&mut self, publication: &Publication<'_>, pool: &mut Pool) -> Sent {
        if publication.large_payload().is_none() {
            return Sent::Small(self.copies.add(publication, pool));
        }
        let kept = Box::new(publication.keep());
        self.large += bytes_of(&kept);
        pool.hold(bytes_of(&kept));
        Sent::Large(kept)
    }

    fn remove(&mut self, sent: Sent, pool: &mut Pool) {
        match sent {
            Sent::Small(place) => self.copies.remove(place, pool),
            Sent::Large(kept) => {
                self.large -= bytes_of(&kept);
                pool.release(bytes_of(&kept));
            }
        }
    }

    /// What was sent, in order.
    fn take(&mut self, pool: &mut Pool) -> Vec<(Kept, Arc<ShareGroup>)> {
        let mut taken = Vec::with_capacity(self.sent.len());
        for (_, sent, share) in std::mem::take(&mut self.sent) {
            let kept = match &sent {
                Sent::Small(place) => self.copies.get(place).map(|copy| copy.keep()),
                // Its content is shared.
                Sent::Large(kept) => Some(Kept::clone(kept)),
            };
            self.remove(sent, pool);
            taken.extend(kept.map(|kept| (kept, share)));
        }
        taken
    }
}

impl Endpoint {
    /// Takes what others may have now: of all shared subscriptions at the end of the connection, of one
    /// that it has unsubscribed from what was not sent; in order.
    pub fn take_shared(&self, of: Option<&str>, pool: &mut Pool) -> Vec<(Kept, Arc<ShareGroup>)> {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let mut taken = Vec::new();
        if of.is_none()
            && let Some(rare) = &mut state.rare
        {
            taken = rare.shared.take(pool);
        }
        let is_taken = |pending: &Pending| {
            let share = pending.share.as_ref();
            share.is_some_and(|share| of.is_none_or(|of| *share.subscribed == *of))
        };
        if !state.pending.iter().any(is_taken) {
            return taken;
        }
        let (passed, left) = std::mem::take(&mut state.pending).into_iter().partition(is_taken);
        state.pending = left;
        let passed: VecDeque<Pending> = passed;
        for pending in passed {
            state.pending_bytes -= pending.bytes();
            pool.release(pending.bytes());
            taken.extend(pending.share.map(|share| (pending.publication, share)));
        }
        taken
    }
}

impl State {
    /// A publication of a shared subscription was sent.
    pub(super) fn keep_shared(
        &mut self,
        (id, qos): (PacketId, QoS),
        share: &Arc<ShareGroup>,
        budget: usize,
        pool: &mut Pool,
        publication: &Publication<'_>,
    ) {
        if qos != QoS::AtLeastOnce {
            return;
        }
        let unacknowledged = &mut self.rare.get_or_insert_default().shared;
        if !unacknowledged.has_room(publication, budget) {
            return;
        }
        let sent = unacknowledged.add(publication, pool);
        unacknowledged.sent.push_back((id, sent, Arc::clone(share)));
    }

    /// The client has acknowledged a publication.
    pub(super) fn forget_shared(&mut self, id: PacketId, pool: &mut Pool) {
        let Some(rare) = &mut self.rare else { return };
        let unacknowledged = &mut rare.shared;
        let at = unacknowledged.sent.iter().position(|(sent, ..)| *sent == id);
        if let Some((_, sent, _)) = at.and_then(|at| unacknowledged.sent.remove(at)) {
            unacknowledged.remove(sent, pool);
        }
    }
}
