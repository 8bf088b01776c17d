//! What came of a command, and what the node has to do about it.

use bytes::Bytes;

use super::command::{Options, Subscription};
use super::instance::Instance;

/// What came of a command, for whoever proposed it.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Of `Connect`.
    Connected(Connected),
    /// Of `Connect`: another node holds a connection of the client. It is told to end it; ask again
    /// when it has ([`Effects::vacated`]). Nothing changed.
    Occupied,
    /// Of `Disconnect`: whether the session ended with its connection.
    Disconnected {
        /// The session is gone.
        removed: bool,
    },
    /// Of `Subscribe`: one answer per filter.
    Subscribed(Vec<Subscribed>),
    /// Of `Unsubscribe`: per filter, whether it existed.
    Unsubscribed(Vec<bool>),
    /// Of `Publish` and `EnqueueShared`.
    Published(Published),
    /// Of `ReceiveQos2`.
    Received {
        /// The packet identifier was taken before; nothing was published again.
        duplicate: bool,
    },
    /// Of `ReleaseQos2`: whether the packet identifier was taken.
    Released {
        /// False is answered with PUBCOMP 0x92.
        known: bool,
    },
    /// Of `Acknowledge`: how many entries left the queue.
    Acknowledged {
        /// Entries that left.
        removed: u32,
    },
    /// Of `PubrecReceived`: per seq, whether a PUBREL is owed; send it now. Unknown entries are
    /// answered with PUBREL 0x92.
    PubrecRecorded(Vec<bool>),
    /// Of `Expire` and `FireWill`: whether it was due and done. Of `EndConnection`: whether there is one.
    Due(bool),
    /// Of `UpdateShadow` and `DeleteShadow`.
    Shadow(ShadowAnswer),
    /// Of any command with an origin: seen before, nothing changed.
    Repeated,
    /// Of `TrimOutbox`.
    Trimmed,
    /// Of `ForgetOrigin` and `ForgetShared`.
    Forgotten,
    /// Of `AssignShared`: how many messages are on their way to the member.
    Assigned(u32),
    /// Of `ReleaseShared`: how many messages are on their way back to the subscription's queue.
    TakenBack(u32),
    /// Of `BeginShared`.
    Begun,
    /// Of `Announce`.
    Announced,
    /// The command is of a connection that lost its client id to a newer one, or of a session that
    /// is gone. Nothing changed.
    Stale,
    /// The command says what no client may ask for, like a publication without a topic. Nothing
    /// changed.
    Invalid,
}

/// A claimed client id.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Connected {
    /// The session existed and goes on.
    pub session_present: bool,
    /// Session id: never used again in this shard.
    pub session: u64,
    /// Fencing token of this connection: greater than every earlier one of the shard.
    pub epoch: u64,
    /// The subscriptions of a resumed session, ordered by filter.
    pub subscriptions: Vec<Subscription>,
    /// Packet identifiers of unfinished QoS 2 publications from the client, ordered.
    pub inbound: Vec<u16>,
}

/// What came of one filter of a `Subscribe`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscribed {
    /// There was none.
    New,
    /// Options were replaced.
    Replaced,
    /// Not a topic filter.
    Invalid,
}

/// What came of a `Publish` or an `EnqueueShared`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Queues that got an entry.
    pub queued: u32,
    /// Queues that were full.
    pub dropped: u32,
    /// Directed copies whose session is gone.
    pub gone: u32,
    /// Copies for a member of a shared subscription that could not keep it: another one gets them.
    pub passed_on: u32,
}

/// The answer to a shadow request as REST gives it. What MQTT clients see of an update or a deletion
/// goes through the outbox.
#[derive(Clone, Debug, PartialEq)]
pub struct ShadowAnswer {
    /// 200, or the code of the error.
    pub code: u16,
    /// JSON: what `accepted` says, or the error as REST says it.
    pub body: Bytes,
}

impl ShadowAnswer {
    /// Whether the request was accepted.
    pub fn accepted(&self) -> bool {
        self.code == 200
    }
}

/// What the commands applied since the last drain mean for the node. None of it is state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effects {
    /// Sessions whose queue grew; one may be named more than once.
    pub grown: Vec<u64>,
    /// Sessions with entries that PUBREC has turned into owed PUBRELs.
    pub released: Vec<u64>,
    /// Changes of what this shard wants from publishers, in order.
    pub interest: Vec<Interest>,
    /// Sessions that ended.
    pub removed: Vec<Removed>,
    /// Connections that have to end, because their client connects elsewhere.
    pub contested: Vec<Held>,
    /// Connections that have to end, because an operator wants it.
    pub deletions: Vec<Deletion>,
    /// Sessions that have no connection any more.
    pub vacated: Vec<Vacated>,
    /// The outbox has new entries.
    pub outbox_grew: bool,
    /// The outbox has lost entries.
    pub outbox_trimmed: bool,
    /// Messages not queued because a session was over its limit.
    pub dropped: u64,
    /// Messages that left a queue because their time was over.
    pub expired: u64,
}

impl Effects {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.grown.is_empty()
            && self.released.is_empty()
            && self.interest.is_empty()
            && self.removed.is_empty()
            && self.contested.is_empty()
            && self.deletions.is_empty()
            && self.vacated.is_empty()
            && !self.outbox_grew
            && !self.outbox_trimmed
            && self.dropped == 0
            && self.expired == 0
    }

    /// Forgets everything and keeps the buffers.
    pub fn clear(&mut self) {
        self.grown.clear();
        self.released.clear();
        self.interest.clear();
        self.removed.clear();
        self.contested.clear();
        self.deletions.clear();
        self.vacated.clear();
        self.outbox_grew = false;
        self.outbox_trimmed = false;
        self.dropped = 0;
        self.expired = 0;
    }
}

/// A connection, as a shard knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Client id.
    pub client: Bytes,
    /// Fencing token.
    pub epoch: u64,
    /// Who holds it.
    pub holder: Instance,
}

/// A connection that an operator wants to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// The connection.
    pub held: Held,
    /// The session ends with it.
    pub clean_session: bool,
    /// The will is not published.
    pub prevent_will: bool,
}

/// A connection that a shard does not know any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vacated {
    /// The connection.
    pub held: Held,
    /// Whether its holder has said that it has ended; else it may still be there.
    pub by_holder: bool,
}

/// A session that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Session id.
    pub session: u64,
    /// Its client id.
    pub client: Bytes,
}

/// What a shard wants from publishers. Subscriptions of QoS 0 are not its business: connected
/// sessions get those from their core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interest {
    /// The first session has subscribed to this plain filter.
    Wanted {
        /// Topic filter.
        filter: String,
    },
    /// The last session has unsubscribed from it.
    Unwanted {
        /// Topic filter.
        filter: String,
    },
    /// A session is a member of a shared subscription; said again when its options or its
    /// connection change.
    Joined(Member),
    /// It is no member any more.
    Left {
        /// Share name.
        share: String,
        /// Topic filter without the share.
        filter: String,
        /// Session id.
        session: u64,
    },
    /// A member may not receive what it was given of a shared subscription: as long as nothing changes
    /// it should be given no more on that topic.
    PassedOver {
        /// The subscription, as it is subscribed to.
        share: String,
        /// Session id.
        session: u64,
        /// Topic name.
        topic: Bytes,
    },
}

/// A member of a shared subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Share name.
    pub share: String,
    /// Topic filter without the share.
    pub filter: String,
    /// Session id.
    pub session: u64,
    /// Its client id, for [`Directed`](super::Directed).
    pub client: Bytes,
    /// Whether it has a connection; members that have one come first.
    pub connected: bool,
    /// Its options.
    pub options: Options,
}
