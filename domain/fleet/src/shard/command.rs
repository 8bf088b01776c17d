//! What can be asked of a shard, as it lies in the log.
//!
//! Protobuf by tags, so that fields can be added and a node of the version before reads what this
//! one writes. Every byte field is a slice of the entry it came in: decoding copies no payload.
//! Times are milliseconds since the epoch, filled in by whoever proposes.

mod connection;
mod share;

pub use connection::{
    Admitted, Asked, Connect, Disconnect, DisconnectReason, EndConnection, Expire, FireWill, Will,
    WillAction,
};
pub use share::{
    AssignShared, BeginShared, EnqueueShared, ForgetShared, ReleaseShared, SharedCopy,
};

use bytes::Bytes;
use prost::Message;
use thiserror::Error;

/// A session expiry that never comes [v5 MQTT-3.1.2.11.2].
pub const NEVER: u32 = u32::MAX;

/// One application message on its way.
#[derive(Clone, PartialEq, Message)]
pub struct Publication {
    /// Topic name, UTF-8.
    #[prost(bytes = "bytes", tag = "1")]
    pub topic: Bytes,
    /// Payload as the publisher sent it.
    #[prost(bytes = "bytes", tag = "2")]
    pub payload: Bytes,
    /// The MQTT 5 properties that are forwarded, encoded as on the wire.
    #[prost(bytes = "bytes", tag = "3")]
    pub properties: Bytes,
    /// Quality of service it was published with.
    #[prost(uint32, tag = "4")]
    pub qos: u32,
    /// RETAIN as published.
    #[prost(bool, tag = "5")]
    pub retain: bool,
    /// When it stops being worth delivering.
    #[prost(uint64, optional, tag = "6")]
    pub expires_at: Option<u64>,
    /// Client id of the publisher, for No Local; empty when no client published it.
    #[prost(bytes = "bytes", tag = "7")]
    pub publisher: Bytes,
    /// When the broker took it.
    #[prost(uint64, tag = "8")]
    pub published_at: u64,
}

impl Publication {
    /// Bytes of content, the measure of every queue limit.
    pub fn bytes(&self) -> usize {
        self.topic.len() + self.payload.len() + self.properties.len()
    }

    /// The topic name. Publications that a shard hands out were checked when they came in.
    pub fn topic_name(&self) -> Option<&str> {
        std::str::from_utf8(&self.topic).ok()
    }

    /// Whether it is past its expiry.
    pub fn expired(&self, now: u64) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// A copy that owns its bytes, so that a stored message does not keep a whole log entry alive.
    pub(super) fn detached(&self) -> Self {
        let mut whole = Vec::with_capacity(self.bytes() + self.publisher.len());
        let mut ends = [0; 4];
        let parts = [&self.topic, &self.payload, &self.properties, &self.publisher];
        for (part, end) in parts.into_iter().zip(&mut ends) {
            whole.extend_from_slice(part);
            *end = whole.len();
        }
        let whole = Bytes::from(whole);
        Self {
            topic: whole.slice(..ends[0]),
            payload: whole.slice(ends[0]..ends[1]),
            properties: whole.slice(ends[1]..ends[2]),
            publisher: whole.slice(ends[2]..ends[3]),
            ..*self
        }
    }
}

/// Who a connection is, as lifecycle events tell it.
#[derive(Clone, PartialEq, Message)]
pub struct Presence {
    /// `sessionIdentifier`: the bytes of a UUID that no other session has. One that is resumed keeps the
    /// one it began with.
    #[prost(bytes = "bytes", tag = "1")]
    pub session: Bytes,
    /// `principalIdentifier`.
    #[prost(string, tag = "2")]
    pub principal: String,
    /// The thing that its certificate is exclusively attached to.
    #[prost(string, optional, tag = "3")]
    pub thing: Option<String>,
    /// Where it comes from.
    #[prost(string, optional, tag = "4")]
    pub ip: Option<String>,
}

/// What a lifecycle event tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Event {
    /// A connection has begun.
    Connected = 0,
    /// It has ended.
    Disconnected = 1,
    /// The client has subscribed.
    Subscribed = 2,
    /// The client has unsubscribed.
    Unsubscribed = 3,
    /// A policy has refused the connection.
    ConnectFailed = 4,
}

/// Tells those who listen what a client has done that changes no session here.
#[derive(Clone, PartialEq, Message)]
pub struct Announce {
    /// Client id.
    #[prost(bytes = "bytes", tag = "1")]
    pub client: Bytes,
    /// Fencing token of the connection; without meaning where `presence` says who it is.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// When.
    #[prost(uint64, tag = "3")]
    pub at: u64,
    /// Who it is, of a connection that has no session here.
    #[prost(message, optional, tag = "4")]
    pub presence: Option<Presence>,
    /// What it has done.
    #[prost(enumeration = "Event", tag = "5")]
    pub event: i32,
    /// Why it has ended, if that is what it has done.
    #[prost(enumeration = "DisconnectReason", tag = "6")]
    pub reason: i32,
    /// What it has subscribed to, or unsubscribed from.
    #[prost(string, repeated, tag = "7")]
    pub topics: Vec<String>,
}

/// Options of a subscription.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Options {
    /// Maximum quality of service.
    #[prost(uint32, tag = "1")]
    pub qos: u32,
    /// The client's own publications are not sent back to it.
    #[prost(bool, tag = "2")]
    pub no_local: bool,
    /// RETAIN is forwarded as published.
    #[prost(bool, tag = "3")]
    pub retain_as_published: bool,
    /// 0, 1 or 2: when retained messages are sent.
    #[prost(uint32, tag = "4")]
    pub retain_handling: u32,
    /// 0 when the client gave none.
    #[prost(uint32, tag = "5")]
    pub subscription_id: u32,
}

/// A filter with its options.
#[derive(Clone, PartialEq, Message)]
pub struct Subscription {
    /// Topic filter, `$share/…` included.
    #[prost(string, tag = "1")]
    pub filter: String,
    /// Options.
    #[prost(message, required, tag = "2")]
    pub options: Options,
}

/// Adds or replaces subscriptions.
#[derive(Clone, PartialEq, Message)]
pub struct Subscribe {
    /// Client id.
    #[prost(bytes = "bytes", tag = "1")]
    pub client: Bytes,
    /// Fencing token.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// What to subscribe to, in order.
    #[prost(message, repeated, tag = "3")]
    pub filters: Vec<Subscription>,
}

/// Removes subscriptions.
#[derive(Clone, PartialEq, Message)]
pub struct Unsubscribe {
    /// Client id.
    #[prost(bytes = "bytes", tag = "1")]
    pub client: Bytes,
    /// Fencing token.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// Filters as they were subscribed.
    #[prost(string, repeated, tag = "3")]
    pub filters: Vec<String>,
    /// Entries of the session's queue before this place have been sent and stay; what else it has of a
    /// shared subscription goes to other members.
    #[prost(uint64, tag = "4")]
    pub sent_below: u64,
}

/// A copy for one session that the router chose: a member of a shared subscription, or the
/// retained message of a new subscription.
#[derive(Clone, PartialEq, Message)]
pub struct Directed {
    /// Client id of the session.
    #[prost(bytes = "bytes", tag = "1")]
    pub client: Bytes,
    /// Maximum quality of service of the subscription.
    #[prost(uint32, tag = "2")]
    pub qos: u32,
    /// RETAIN as it will be sent.
    #[prost(bool, tag = "3")]
    pub retain: bool,
    /// Subscription identifiers it will carry.
    #[prost(uint32, repeated, tag = "4")]
    pub subscription_ids: Vec<u32>,
    /// The filter of the shared subscription that the session is a member of, so that another member
    /// may have it when this one goes. Empty for a copy that is this session's alone.
    #[prost(string, tag = "5")]
    pub share: String,
    /// It has waited in the queue of that subscription, and goes back there if there is no room.
    #[prost(bool, tag = "6")]
    pub assigned: bool,
}

/// Which outbox entry a command comes from, so that a repetition is recognised.
///
/// Commands of one group must be proposed to one shard in the order of their sequence, and what one
/// entry asks of one shard in the order of its parts.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Origin {
    /// The group whose outbox it is.
    #[prost(uint64, tag = "1")]
    pub group: u64,
    /// Its place there.
    #[prost(uint64, tag = "2")]
    pub seq: u64,
    /// What of the entry: 0 the shadow request that it is, 1 its publication, 2 its publication for
    /// queues of shared subscriptions. The version before parts
    /// wrote none, for shadow requests as well: those are read as publications, so what the same entry
    /// asks of the same shard afterwards is taken for a repetition, as that version took it.
    #[prost(uint32, optional, tag = "3")]
    pub part: Option<u32>,
}

impl Origin {
    /// As the part that is a shadow request.
    #[must_use]
    pub fn shadow_request(self) -> Self {
        Self { part: Some(0), ..self }
    }

    /// As the part that is a publication.
    #[must_use]
    pub fn publication(self) -> Self {
        Self { part: Some(1), ..self }
    }

    /// As the part that is a publication for queues of shared subscriptions.
    #[must_use]
    pub fn shared(self) -> Self {
        Self { part: Some(2), ..self }
    }

    /// Where it stands among all commands that come from the group's outbox.
    pub(super) fn place(&self) -> (u64, u32) {
        (self.seq, self.part.unwrap_or(1))
    }
}

/// Stores a publication for the sessions of this shard and, if asked, as the retained message.
#[derive(Clone, PartialEq, Message)]
pub struct Publish {
    /// What is published.
    #[prost(message, required, tag = "1")]
    pub publication: Publication,
    /// Whether this shard keeps the retained message of its topic.
    #[prost(bool, tag = "2")]
    pub store_retained: bool,
    /// Whether it is queued for the sessions whose plain subscriptions match.
    #[prost(bool, tag = "3")]
    pub enqueue: bool,
    /// Further copies for single sessions.
    #[prost(message, repeated, tag = "4")]
    pub directed: Vec<Directed>,
    /// Set when it comes from an outbox.
    #[prost(message, optional, tag = "5")]
    pub origin: Option<Origin>,
}

/// Takes a QoS 2 publication of a persistent session: its packet identifier and its content, once.
#[derive(Clone, PartialEq, Message)]
pub struct ReceiveQos2 {
    /// Client id.
    #[prost(bytes = "bytes", tag = "1")]
    pub client: Bytes,
    /// Fencing token.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// Packet identifier of the PUBLISH.
    #[prost(uint32, tag = "3")]
    pub packet_id: u32,
    /// What is published.
    #[prost(message, required, tag = "4")]
    pub publication: Publication,
    /// Whether it becomes the retained message of its topic.
    #[prost(bool, tag = "5")]
    pub store_retained: bool,
}

/// PUBREL from the client: its packet identifier is free again.
#[derive(Clone, PartialEq, Message)]
pub struct ReleaseQos2 {
    /// Client id.
    #[prost(bytes = "bytes", tag = "1")]
    pub client: Bytes,
    /// Fencing token.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// Packet identifier.
    #[prost(uint32, tag = "3")]
    pub packet_id: u32,
}

/// Entries are done: PUBACK, PUBCOMP, refused by the client, or expired.
#[derive(Clone, PartialEq, Message)]
pub struct Acknowledge {
    /// Client id.
    #[prost(bytes = "bytes", tag = "1")]
    pub client: Bytes,
    /// Fencing token.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// Places in the session's queue.
    #[prost(uint64, repeated, tag = "3")]
    pub seqs: Vec<u64>,
    /// Places of those that the client may not receive, and that were not sent: what came by a shared
    /// subscription goes to other members.
    #[prost(uint64, repeated, tag = "4")]
    pub refused: Vec<u64>,
}

/// PUBREC from the client: only PUBREL is owed any more.
#[derive(Clone, PartialEq, Message)]
pub struct PubrecReceived {
    /// Client id.
    #[prost(bytes = "bytes", tag = "1")]
    pub client: Bytes,
    /// Fencing token.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// Places in the session's queue.
    #[prost(uint64, repeated, tag = "3")]
    pub seqs: Vec<u64>,
}

/// Merges an update into a shadow.
#[derive(Clone, PartialEq, Message)]
pub struct UpdateShadow {
    /// Thing name.
    #[prost(string, tag = "1")]
    pub thing: String,
    /// Shadow name; none is the classic shadow.
    #[prost(string, optional, tag = "2")]
    pub name: Option<String>,
    /// The request document.
    #[prost(bytes = "bytes", tag = "3")]
    pub payload: Bytes,
    /// When.
    #[prost(uint64, tag = "4")]
    pub at: u64,
    /// Whether it came over MQTT, so that a rejection is published too.
    #[prost(bool, tag = "5")]
    pub reply: bool,
    /// Largest state in bytes; 0 is the default of [`shadow::Limits`].
    #[prost(uint32, tag = "6")]
    pub limit_bytes: u32,
    /// Deepest state in levels; 0 is the default of [`shadow::Limits`].
    #[prost(uint32, tag = "7")]
    pub limit_depth: u32,
    /// Set when it comes from an outbox.
    #[prost(message, optional, tag = "8")]
    pub origin: Option<Origin>,
    /// [`shadow::Limits::takes_empty`]; before version 2 of the data nobody knew of it, so it must not
    /// be set before all nodes read that.
    #[prost(bool, tag = "9")]
    pub takes_empty: bool,
}

/// Deletes a shadow.
#[derive(Clone, PartialEq, Message)]
pub struct DeleteShadow {
    /// Thing name.
    #[prost(string, tag = "1")]
    pub thing: String,
    /// Shadow name; none is the classic shadow.
    #[prost(string, optional, tag = "2")]
    pub name: Option<String>,
    /// The request document: empty, or with a client token.
    #[prost(bytes = "bytes", tag = "3")]
    pub payload: Bytes,
    /// When.
    #[prost(uint64, tag = "4")]
    pub at: u64,
    /// Whether it came over MQTT, so that a rejection is published too.
    #[prost(bool, tag = "5")]
    pub reply: bool,
    /// Set when it comes from an outbox.
    #[prost(message, optional, tag = "6")]
    pub origin: Option<Origin>,
}

/// Forgets outbox entries that every taker has safe.
#[derive(Clone, PartialEq, Message)]
pub struct TrimOutbox {
    /// The last sequence to forget.
    #[prost(uint64, tag = "1")]
    pub upto: u64,
    /// Copies among them that a shared subscription's queue has given and nobody could have: they go back
    /// there. Ascending.
    #[prost(uint64, repeated, tag = "2")]
    pub returned: Vec<u64>,
}

/// Forgets that outbox entries of a group were seen: the group has lost them, and will give their
/// numbers to others.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct ForgetOrigin {
    /// The group that lost the end of its log.
    #[prost(uint64, tag = "1")]
    pub group: u64,
    /// The first sequence it has lost.
    #[prost(uint64, tag = "2")]
    pub from: u64,
}

/// One command of a shard.
#[derive(Clone, PartialEq, Message)]
pub struct Command {
    /// What it asks. A kind that this version does not know decodes as none.
    #[prost(
        oneof = "Kind",
        tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, \
                22"
    )]
    pub kind: Option<Kind>,
}

/// The kinds of commands.
#[derive(Clone, PartialEq, prost::Oneof)]
#[allow(missing_docs)]
pub enum Kind {
    #[prost(message, tag = "1")]
    Connect(Connect),
    #[prost(message, tag = "2")]
    Disconnect(Disconnect),
    #[prost(message, tag = "3")]
    Subscribe(Subscribe),
    #[prost(message, tag = "4")]
    Unsubscribe(Unsubscribe),
    #[prost(message, tag = "5")]
    Publish(Publish),
    #[prost(message, tag = "6")]
    ReceiveQos2(ReceiveQos2),
    #[prost(message, tag = "7")]
    ReleaseQos2(ReleaseQos2),
    #[prost(message, tag = "8")]
    Acknowledge(Acknowledge),
    #[prost(message, tag = "9")]
    PubrecReceived(PubrecReceived),
    #[prost(message, tag = "10")]
    Expire(Expire),
    #[prost(message, tag = "11")]
    FireWill(FireWill),
    #[prost(message, tag = "12")]
    UpdateShadow(UpdateShadow),
    #[prost(message, tag = "13")]
    DeleteShadow(DeleteShadow),
    #[prost(message, tag = "14")]
    TrimOutbox(TrimOutbox),
    #[prost(message, tag = "15")]
    ForgetOrigin(ForgetOrigin),
    #[prost(message, tag = "16")]
    Announce(Announce),
    #[prost(message, tag = "17")]
    EnqueueShared(EnqueueShared),
    #[prost(message, tag = "18")]
    AssignShared(AssignShared),
    #[prost(message, tag = "19")]
    ReleaseShared(ReleaseShared),
    #[prost(message, tag = "20")]
    BeginShared(BeginShared),
    #[prost(message, tag = "21")]
    ForgetShared(ForgetShared),
    #[prost(message, tag = "22")]
    EndConnection(EndConnection),
}

/// Why bytes are not a command, or not what came of one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CommandError {
    /// It was written by a later version of Skein.
    #[error("a kind of command or outcome that this version does not know")]
    Kind,
    /// It is not what any version writes.
    #[error("a command or outcome that is not valid: {0}")]
    Protobuf(#[from] prost::DecodeError),
}

impl Command {
    /// The bytes to propose.
    pub fn encoded(&self) -> Bytes {
        Bytes::from(self.encode_to_vec())
    }
}

impl Kind {
    /// The command of this kind, as the bytes to propose.
    pub fn encoded(self) -> Bytes {
        Command::from(self).encoded()
    }
}

impl From<Kind> for Command {
    fn from(kind: Kind) -> Self {
        Self { kind: Some(kind) }
    }
}

/// Every kind becomes a command by `into`.
macro_rules! commands {
    ($($name:ident),* $(,)?) => {$(
        impl From<$name> for Command {
            fn from(command: $name) -> Self {
                Kind::$name(command).into()
            }
        }
    )*};
}

commands!(
    Connect,
    Disconnect,
    Subscribe,
    Unsubscribe,
    Publish,
    ReceiveQos2,
    ReleaseQos2,
    Acknowledge,
    PubrecReceived,
    Expire,
    FireWill,
    UpdateShadow,
    DeleteShadow,
    TrimOutbox,
    ForgetOrigin,
    Announce,
    EnqueueShared,
    AssignShared,
    ReleaseShared,
    BeginShared,
    ForgetShared,
    EndConnection,
);
