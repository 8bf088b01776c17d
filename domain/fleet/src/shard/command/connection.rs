//! Connections and the sessions behind them: how they begin and end.

use bytes::Bytes;
use prost::Message;

use super::{Presence, Publication};

/// What a connection leaves behind when it ends without a goodbye.
#[derive(Clone, PartialEq, Message)]
pub struct Will {
    /// What is published. `published_at` and `expires_at` are set when that happens.
    #[prost(message, required, tag = "1")]
    pub publication: Publication,
    /// Seconds between the end of the connection and the publication.
    #[prost(uint32, tag = "2")]
    pub delay_secs: u32,
    /// Message expiry interval, counted from the publication.
    #[prost(uint32, optional, tag = "3")]
    pub message_expiry_secs: Option<u32>,
    /// The certificate of its client, whose policies must allow it when it is published.
    #[prost(string, optional, tag = "4")]
    pub certificate: Option<String>,
    /// Where the client connected from, for those policies.
    #[prost(string, optional, tag = "5")]
    pub source_ip: Option<String>,
    /// The custom authorizer that has let its client in, and must stand when it is published.
    #[prost(message, optional, boxed, tag = "6")]
    pub admitted: Option<Box<Admitted>>,
    /// The name that the client has asked for, for its certificate's policies.
    #[prost(message, optional, boxed, tag = "7")]
    pub asked: Option<Box<Asked>>,
}

/// What a client has asked for when it connected. On its own to keep a will small that has none.
#[derive(Clone, PartialEq, Message)]
pub struct Asked {
    /// The name of the server.
    #[prost(string, tag = "1")]
    pub domain_name: String,
}

/// The custom authorizer that has let a client in.
#[derive(Clone, PartialEq, Message)]
pub struct Admitted {
    /// Its name.
    #[prost(string, tag = "1")]
    pub authorizer: String,
    /// Which one of that name.
    #[prost(bytes = "bytes", tag = "2")]
    pub generation: Bytes,
}

/// Why a connection has ended, as lifecycle events tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum DisconnectReason {
    /// The node failed it, or died.
    ServerError = 0,
    /// DISCONNECT, or a proper end of the WebSocket.
    ClientInitiatedDisconnect = 1,
    /// The network failed, or the client closed the socket without a word.
    ConnectionLost = 2,
    /// The client id is used by a newer connection.
    DuplicateClientid = 3,
    /// Nothing was heard for too long.
    MqttKeepAliveTimeout = 4,
    /// The client has broken the protocol.
    ClientError = 5,
    /// It published where it may not.
    ForbiddenAccess = 6,
    /// It may not be connected any more.
    AuthError = 7,
    /// The node stops.
    ServerInitiatedDisconnect = 8,
    /// An operator wanted it.
    ApiInitiatedDisconnect = 9,
    /// It asked for more than it may have.
    Throttled = 10,
    /// What a custom authorizer gave it has ended.
    CustomauthTtlExpiration = 11,
}

/// Claims a client id: resumes its session or starts a new one.
#[derive(Clone, PartialEq, Message)]
pub struct Connect {
    /// Client id.
    #[prost(bytes = "bytes", tag = "1")]
    pub client: Bytes,
    /// Clean Start (5) or clean session (3.1.1).
    #[prost(bool, tag = "2")]
    pub clean_start: bool,
    /// Session expiry: 0 ends it with the connection, [`NEVER`](super::NEVER) keeps it.
    #[prost(uint32, tag = "3")]
    pub expiry_secs: u32,
    /// Protocol level: 4 or 5.
    #[prost(uint32, tag = "4")]
    pub version: u32,
    /// When.
    #[prost(uint64, tag = "5")]
    pub at: u64,
    /// The will of this connection.
    #[prost(message, optional, tag = "6")]
    pub will: Option<Will>,
    /// Bytes the session's queue may hold. There is no default: 0 queues nothing.
    #[prost(uint64, tag = "7")]
    pub queue_limit_bytes: u64,
    /// Messages the session's queue may hold. There is no default: 0 queues nothing.
    #[prost(uint32, tag = "8")]
    pub queue_limit_messages: u32,
    /// Who holds the connection: an [`Instance`](crate::shard::Instance).
    #[prost(uint64, tag = "9")]
    pub node: u64,
    /// Who it is; none where there are no lifecycle events.
    #[prost(message, optional, tag = "10")]
    pub presence: Option<Presence>,
    /// Whether somebody listens for the client's presence.
    #[prost(bool, tag = "11")]
    pub heard: bool,
}

/// What happens to the will when a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum WillAction {
    /// The client said goodbye: it is forgotten.
    Discard = 0,
    /// It is published, after its delay.
    Publish = 1,
}

/// Ends the connection of a session; also changes or ends a session that has none.
#[derive(Clone, PartialEq, Message)]
pub struct Disconnect {
    /// Client id.
    #[prost(bytes = "bytes", tag = "1")]
    pub client: Bytes,
    /// Fencing token of the connection that ends.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// When.
    #[prost(uint64, tag = "3")]
    pub at: u64,
    /// A new session expiry.
    #[prost(uint32, optional, tag = "4")]
    pub expiry_secs: Option<u32>,
    /// What happens to the will.
    #[prost(enumeration = "WillAction", tag = "5")]
    pub will: i32,
    /// Who says so, if that is who held the connection: it knows that the connection is gone.
    #[prost(uint64, tag = "6")]
    pub by: u64,
    /// Why the connection has ended.
    #[prost(enumeration = "DisconnectReason", tag = "7")]
    pub reason: i32,
    /// Whether somebody listens for the client's presence.
    #[prost(bool, tag = "8")]
    pub heard: bool,
}

/// Asks the node that holds a client's connection to end it, because an operator wants that. What
/// becomes of the session, that node says as it does whenever a connection ends.
#[derive(Clone, PartialEq, Message)]
pub struct EndConnection {
    /// Client id.
    #[prost(bytes = "bytes", tag = "1")]
    pub client: Bytes,
    /// Fencing token of the connection that is meant.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// The session ends with it.
    #[prost(bool, tag = "3")]
    pub clean_session: bool,
    /// The will is not published.
    #[prost(bool, tag = "4")]
    pub prevent_will: bool,
}

/// Removes a session whose time is over.
#[derive(Clone, PartialEq, Message)]
pub struct Expire {
    /// Client id.
    #[prost(bytes = "bytes", tag = "1")]
    pub client: Bytes,
    /// Fencing token of its last connection.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// When.
    #[prost(uint64, tag = "3")]
    pub at: u64,
    /// A will that it still has is not allowed any more.
    #[prost(bool, tag = "4")]
    pub discard_will: bool,
}

/// Publishes a delayed will whose time has come.
#[derive(Clone, PartialEq, Message)]
pub struct FireWill {
    /// Client id.
    #[prost(bytes = "bytes", tag = "1")]
    pub client: Bytes,
    /// Fencing token of its last connection.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// When.
    #[prost(uint64, tag = "3")]
    pub at: u64,
    /// It is not allowed any more: it is forgotten.
    #[prost(bool, tag = "4")]
    pub discard: bool,
}
