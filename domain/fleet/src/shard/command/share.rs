//! Commands for what shared subscriptions hold: see [`Shares`](super::super::shares).

use bytes::Bytes;
use prost::Message;

use super::{Directed, Origin, Publication};

/// Keeps a publication for shared subscriptions that have no connected member, or whose member could
/// not keep it. The shard is that of the subscription's filter.
#[derive(Clone, PartialEq, Message)]
pub struct EnqueueShared {
    /// What is published.
    #[prost(message, required, tag = "1")]
    pub publication: Publication,
    /// Who it is for: filters as they were subscribed, each once.
    #[prost(string, repeated, tag = "2")]
    pub filters: Vec<String>,
    /// A member had it: it goes before what nobody had, and is taken whatever the limits say.
    #[prost(bool, tag = "3")]
    pub returned: bool,
    /// Bytes that each of their queues may hold.
    #[prost(uint64, tag = "4")]
    pub limit_bytes: u64,
    /// Messages that each of their queues may hold.
    #[prost(uint32, tag = "5")]
    pub limit_messages: u32,
    /// Set when it comes from an outbox.
    #[prost(message, optional, tag = "6")]
    pub origin: Option<Origin>,
}

/// Gives a member the next messages that wait for a shared subscription. They go through the outbox.
#[derive(Clone, PartialEq, Message)]
pub struct AssignShared {
    /// The subscription's filter.
    #[prost(string, tag = "1")]
    pub filter: String,
    /// Who gets them; none for whoever is connected, one that keeps no queue among them.
    #[prost(message, optional, tag = "2")]
    pub member: Option<Directed>,
    /// When.
    #[prost(uint64, tag = "3")]
    pub at: u64,
    /// How many messages.
    #[prost(uint32, tag = "4")]
    pub most: u32,
    /// And how many bytes; one message is given whatever its size.
    #[prost(uint64, tag = "5")]
    pub most_bytes: u64,
}

/// Takes from a session without a connection what it has of a shared subscription and others may have.
#[derive(Clone, PartialEq, Message)]
pub struct ReleaseShared {
    /// Client id.
    #[prost(bytes = "bytes", tag = "1")]
    pub client: Bytes,
    /// Fencing token of its last connection.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// The subscription's filter.
    #[prost(string, tag = "3")]
    pub filter: String,
    /// How many messages.
    #[prost(uint32, tag = "4")]
    pub most: u32,
    /// And how many bytes; one message is taken whatever its size.
    #[prost(uint64, tag = "5")]
    pub most_bytes: u64,
}

/// QoS 2 messages of shared subscriptions are about to be sent: from now on they are this session's
/// alone [v5 MQTT-4.8.2-5].
#[derive(Clone, PartialEq, Message)]
pub struct BeginShared {
    /// Client id.
    #[prost(bytes = "bytes", tag = "1")]
    pub client: Bytes,
    /// Fencing token.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// Those before this place of the session's queue.
    #[prost(uint64, tag = "3")]
    pub below: u64,
}

/// Drops what waits for a shared subscription that has no members any more.
#[derive(Clone, PartialEq, Message)]
pub struct ForgetShared {
    /// The subscription's filter.
    #[prost(string, tag = "1")]
    pub filter: String,
}

/// A copy of a publication for one member of a shared subscription, on its way in an outbox.
#[derive(Clone, PartialEq, Message)]
pub struct SharedCopy {
    /// The subscription's filter.
    #[prost(string, tag = "1")]
    pub filter: String,
    /// Whether it goes to a member; else to the subscription's queue.
    #[prost(bool, tag = "2")]
    pub assigned: bool,
    /// The member, if it is one that keeps a queue.
    #[prost(message, optional, tag = "3")]
    pub member: Option<Directed>,
    /// As in [`EnqueueShared`].
    #[prost(bool, tag = "4")]
    pub returned: bool,
}
