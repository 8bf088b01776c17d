//! Sessions and their queues, retained messages, shadows and the outbox of one group.
//!
//! A [`Shard`] is told what was committed, as bytes, and answers with an [`Outcome`] for whoever
//! proposed it and [`Effects`] for the node. It reads no clock: times come in commands. What it has
//! to be told to do later is in [`Shard::due`].
//!
//! Invariant: two shards that applied the same commands are equal ([`Shard::digest`]), also when
//! one of them was loaded from a checkpoint on the way.

use std::sync::Arc;

use bytes::Bytes;

mod command;
pub mod delivery;
mod outcome;

pub use command::{
    Acknowledge, Command, Connect, DeleteShadow, Directed, Disconnect, Expire, FireWill, Kind,
    NEVER, Options, Origin, Publication, Publish, PubrecReceived, ReceiveQos2, ReleaseQos2,
    Subscribe, Subscription, TrimOutbox, Unsubscribe, UpdateShadow, Will, WillAction,
};
pub use outcome::{
    Connected, Effects, Interest, Member, Outcome, Published, Removed, ShadowAnswer, Subscribed,
};

/// Why stored bytes are not part of a shard.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct LoadError(pub String);

/// A publication that the shard itself makes: wills, QoS 2 publications, shadow notifications.
#[derive(Clone, Debug, PartialEq)]
pub struct OutboxEntry {
    /// Its place; grows by one.
    pub seq: u64,
    /// What is published.
    pub publication: Arc<Publication>,
    /// Whether it becomes the retained message of its topic.
    pub store_retained: bool,
    /// Whether it goes to subscribers.
    pub route: bool,
}

/// A message in a session's queue.
#[derive(Clone, Copy, Debug)]
pub struct Queued<'a> {
    /// Its place in the queue.
    pub seq: u64,
    /// Quality of service of this copy: 1 or 2.
    pub qos: u8,
    /// RETAIN of this copy.
    pub retain: bool,
    /// Subscription identifiers it carries.
    pub subscription_ids: &'a [u32],
    /// None once PUBREC has come: only PUBREL is owed.
    pub publication: Option<&'a Arc<Publication>>,
}

/// The packet identifier of a queue entry: the same on every connection.
pub fn packet_id(seq: u64) -> u16 {
    (seq % 65_535) as u16 + 1
}

/// Sizes, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sessions.
    pub sessions: usize,
    /// Sessions that have a connection.
    pub connected: usize,
    /// Plain and shared subscriptions.
    pub subscriptions: usize,
    /// Queue entries of all sessions.
    pub queued: usize,
    /// Messages that queues hold, each counted once.
    pub messages: usize,
    /// Their bytes, each counted once.
    pub message_bytes: usize,
    /// Retained messages.
    pub retained: usize,
    /// Their bytes.
    pub retained_bytes: usize,
    /// Shadows, without tombstones.
    pub shadows: usize,
    /// Outbox entries.
    pub outbox: usize,
}

/// The state machine of one shard.
#[derive(Default)]
pub struct Shard {}

/// One session.
pub struct Session {}

impl Session {
    /// Session id.
    pub fn id(&self) -> u64 {
        0
    }
    /// Client id.
    pub fn client(&self) -> &Bytes {
        unimplemented!()
    }
    /// Fencing token of its latest connection.
    pub fn epoch(&self) -> u64 {
        0
    }
    /// MQTT protocol level.
    pub fn version(&self) -> u32 {
        0
    }
    /// Session expiry in seconds.
    pub fn expiry_secs(&self) -> u32 {
        0
    }
    /// Whether a connection holds it.
    pub fn connected(&self) -> bool {
        false
    }
    /// Node of its latest connection.
    pub fn node(&self) -> u64 {
        0
    }
    /// When its latest connection began.
    pub fn connected_at(&self) -> u64 {
        0
    }
    /// When its latest connection ended; none while connected.
    pub fn disconnected_at(&self) -> Option<u64> {
        None
    }
    /// Its will.
    pub fn will(&self) -> Option<&Will> {
        None
    }
    /// Its subscriptions, ordered by filter.
    pub fn subscriptions(&self) -> impl Iterator<Item = (&str, &Options)> {
        std::iter::empty()
    }
    /// Entries in its queue.
    pub fn queued(&self) -> usize {
        0
    }
    /// Bytes in its queue.
    pub fn queued_bytes(&self) -> u64 {
        0
    }
}

#[allow(unused_variables)]
impl Shard {
    /// An empty shard.
    pub fn new() -> Self {
        Self::default()
    }
    /// Applies the next committed command.
    pub fn apply(&mut self, command: Bytes) -> Outcome {
        Outcome::Invalid
    }
    /// Hands over what the commands since the last call mean for the node: `into` is emptied and
    /// swapped, so its buffers are used again.
    pub fn drain_effects(&mut self, into: &mut Effects) {
        into.clear();
    }
    /// All that this shard wants from publishers now; said once after loading.
    pub fn interests(&self) -> Vec<Interest> {
        Vec::new()
    }
    /// The session of a client.
    pub fn session(&self, client: &[u8]) -> Option<&Session> {
        None
    }
    /// A session by its id.
    pub fn session_by_id(&self, session: u64) -> Option<&Session> {
        None
    }
    /// The entries of a session's queue from a place on, in order.
    pub fn queue(&self, session: u64, from: u64) -> impl Iterator<Item = Queued<'_>> {
        std::iter::empty()
    }
    /// The retained message of a topic; may be past its expiry.
    pub fn retained(&self, topic: &str) -> Option<&Arc<Publication>> {
        None
    }
    /// The retained messages that a plain filter matches; may be past their expiry.
    pub fn for_each_retained(&self, filter: &str, visit: impl FnMut(&Arc<Publication>)) {}
    /// Retained messages in topic order, after a topic.
    pub fn retained_after(&self, after: Option<&str>, limit: usize) -> Vec<&Arc<Publication>> {
        Vec::new()
    }
    /// The document of a shadow request `get`, or its error.
    pub fn get_shadow(
        &self,
        thing: &str,
        name: Option<&str>,
        payload: &[u8],
        at: u64,
    ) -> ShadowAnswer {
        unimplemented!()
    }
    /// Names of a thing's named shadows, ordered, after a name.
    pub fn named_shadows(&self, thing: &str, after: Option<&str>, limit: usize) -> Vec<&str> {
        Vec::new()
    }
    /// Outbox entries from a place on.
    pub fn outbox(&self, from: u64) -> impl Iterator<Item = &OutboxEntry> {
        std::iter::empty()
    }
    /// Sizes.
    pub fn stats(&self) -> Stats {
        Stats::default()
    }
    /// Commands whose time has come, at most `limit`, earliest first. They are named again until
    /// they were applied, so ask when the last answer has been.
    pub fn due(&self, now: u64, limit: usize) -> Vec<Command> {
        Vec::new()
    }
    /// When [`Shard::due`] will next have something.
    pub fn next_deadline(&self) -> Option<u64> {
        None
    }
    /// What a node proposes after its restart: the end of every connection that it held, with the
    /// wills published [v5 MQTT-3.1.2-8].
    pub fn after_restart(&self, node: u64, now: u64) -> Vec<Command> {
        Vec::new()
    }
    /// What changed since the last call: key and value, none when deleted.
    pub fn checkpoint(&mut self) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        Vec::new()
    }
    /// The whole state as pairs, ordered by key: for a snapshot to a peer.
    pub fn dump(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        Vec::new()
    }
    /// Gives back one stored pair, before any command.
    pub fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), LoadError> {
        Ok(())
    }
    /// After the last [`Shard::load`], before the log is replayed.
    pub fn loaded(&mut self) -> Result<(), LoadError> {
        Ok(())
    }
    /// A fingerprint of the state, equal for equal states.
    pub fn digest(&self) -> u64 {
        0
    }
}
