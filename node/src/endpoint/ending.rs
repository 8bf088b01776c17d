//! How the delivery side of a connection ends: somebody dooms it, the actor says the last word, and what
//! is left is dropped.

use std::collections::VecDeque;

use mqtt::{QoS, Reason};

use super::Endpoint;
use crate::outbox::{Outbox, Pool};

/// Whether a connection that ends for this reason does not say first what it has still to say: its
/// principal may not receive that any more, or its client waits for its next connection.
pub fn is_urgent(reason: Reason) -> bool {
    matches!(reason, Reason::NotAuthorized | Reason::SessionTakenOver)
}

impl Endpoint {
    /// Asks the connection to end; it tells a version 5 client why. What is urgent is so although it was
    /// to end for another reason already.
    pub fn doom(&self, reason: Reason) {
        let mut state = self.state.borrow_mut();
        if state.doom.is_none_or(|before| is_urgent(reason) && !is_urgent(before)) {
            state.doom = Some(reason);
        }
        self.wake(&mut state);
    }

    /// Why the connection has to end, if it has to.
    pub fn doomed(&self) -> Option<Reason> {
        self.state.borrow().doom
    }

    /// Drops what waits in the outbox behind the packet that is half written.
    pub fn cut(&self, pool: &mut Pool) {
        self.state.borrow_mut().outbox.cut(pool);
    }

    /// Nothing follows what is in the outbox now.
    pub fn end(&self) {
        self.state.borrow_mut().ending = true;
    }

    /// Whether it, or its queue, takes publications of a QoS. One that was asked to end has until then to
    /// have what it was sent acknowledged, and is given no more of that kind.
    pub fn takes(&self, qos: QoS) -> bool {
        let is_acknowledged = qos != QoS::AtMostOnce;
        let state = self.state.borrow();
        let is_ending = state.closed || state.ending || is_acknowledged && state.doom.is_some();
        self.queues(qos) || !is_ending
    }

    /// Whether publications of a QoS get to it through its session's queue.
    pub fn queues(&self, qos: QoS) -> bool {
        qos != QoS::AtMostOnce && self.profile.persistent && self.profile.record.is_some()
    }

    /// Whether the connection is over.
    pub fn is_closed(&self) -> bool {
        let state = self.state.borrow();
        state.closed || state.ending
    }

    /// The connection is over: nothing more is taken and nobody waits for it.
    pub fn close(&self, pool: &mut Pool) {
        let mut state = self.state.borrow_mut();
        state.closed = true;
        state.waker = None;
        pool.release(state.outbox.len() + state.pending_bytes);
        state.outbox = Outbox::default();
        state.pending = VecDeque::new();
        state.pending_bytes = 0;
        state.wake_waiters();
    }
}
