//! Hands the entries of queues to connections, as far as their windows allow.
//!
//! Lives beside the shard on its leader and is not replicated: after a change of leader a new
//! [`Dispatcher`] starts from what the shard knows. It remembers, per session, how far an earlier
//! connection of its time was served, so DUP is set on what may have been sent and on nothing else.
//!
//! Invariant: a connection never has more entries in flight than its window, and never two with
//! one packet identifier.

use std::sync::Arc;

use super::{Publication, Shard};

/// An entry on its way to a connection.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// Session id.
    pub session: u64,
    /// Its place in the queue: what [`Acknowledge`](super::Acknowledge) names.
    pub seq: u64,
    /// Packet identifier.
    pub packet_id: u16,
    /// What is sent.
    pub content: Content<'a>,
}

/// What is sent for an entry.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// PUBLISH.
    Publish {
        /// Effective quality of service: 1 or 2.
        qos: u8,
        /// May have been sent on an earlier connection.
        dup: bool,
        /// RETAIN.
        retain: bool,
        /// Subscription identifiers.
        subscription_ids: &'a [u32],
        /// The message.
        publication: &'a Arc<Publication>,
    },
    /// PUBREL again, on a resumed session.
    Release,
}

/// The connections of one shard's sessions; `T` is how the node reaches one.
pub struct Dispatcher<T> {
    target: Option<T>,
}

impl<T> Default for Dispatcher<T> {
    fn default() -> Self {
        Self { target: None }
    }
}

#[allow(unused_variables)]
impl<T> Dispatcher<T> {
    /// No connections.
    pub fn new() -> Self {
        Self::default()
    }
    /// Serves a session from its first unacknowledged entry on; `window` is the client's receive
    /// maximum. False, and nothing happens, when the epoch is not the session's present one.
    pub fn attach(
        &mut self,
        shard: &Shard,
        session: u64,
        epoch: u64,
        window: u16,
        target: T,
    ) -> bool {
        self.target = Some(target);
        false
    }
    /// Ends what [`Dispatcher::attach`] began, unless a newer epoch is attached already.
    pub fn detach(&mut self, session: u64, epoch: u64) -> Option<T> {
        None
    }
    /// The session is gone ([`Effects::removed`](super::Effects::removed)).
    pub fn forget(&mut self, session: u64) {}
    /// Hands out what the window allows. Returns the entries that were skipped because they are
    /// expired: acknowledge them.
    pub fn pump(
        &mut self,
        shard: &Shard,
        session: u64,
        now: u64,
        emit: &mut impl FnMut(&T, Delivery<'_>),
    ) -> Vec<u64> {
        Vec::new()
    }
    /// An entry is done: its place in the window is free at once. Pump afterwards.
    pub fn acknowledged(&mut self, session: u64, seq: u64) {}
    /// How the node reaches the connection of a session.
    pub fn target(&self, session: u64) -> Option<&T> {
        self.target.as_ref()
    }
}
