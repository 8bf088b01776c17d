//! The pairs of a checkpoint: what their keys and values look like.
//!
//! A key is a letter and what names the thing, numbers big-endian so that keys sort as they count.
//! A value is a version byte and a protobuf message (a shadow: its own record format).

use bytes::Bytes;
use prost::Message;

use super::LoadError;
use super::command::{Options, Presence, Publication, SharedCopy, Will};

/// Version of every value, but for [`WITH_SHARES`].
const VERSION: u8 = 1;

/// Version of an outbox entry that is a copy for a shared subscription: whoever does not know of those
/// must not take it for a publication.
const WITH_SHARES: u8 = 2;

/// Counters stay below this, so that adding to them never overflows.
pub(super) const COUNTER_LIMIT: u64 = 1 << 62;

/// What a key names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key<'a> {
    Counters,
    Session(u64),
    Position(u64),
    Subscription(u64, &'a str),
    Entry(u64, u64),
    Message(u64),
    Outbox(u64),
    Watermark(u64),
    Retained(&'a [u8]),
    Shadow(&'a [u8]),
    Absence(&'a [u8]),
    Waiting(u64),
}

impl<'a> Key<'a> {
    pub(super) fn bytes(&self) -> Vec<u8> {
        match *self {
            Self::Counters => vec![b'c'],
            Self::Session(id) => joined(b's', id, &[]),
            Self::Position(id) => joined(b'p', id, &[]),
            Self::Subscription(id, filter) => joined(b'f', id, filter.as_bytes()),
            Self::Entry(id, seq) => joined(b'q', id, &seq.to_be_bytes()),
            Self::Message(id) => joined(b'm', id, &[]),
            Self::Outbox(seq) => joined(b'o', seq, &[]),
            Self::Watermark(group) => joined(b'w', group, &[]),
            Self::Retained(topic) => [&b"r"[..], topic].concat(),
            Self::Shadow(key) => [&b"h"[..], key].concat(),
            Self::Absence(client) => [&b"a"[..], client].concat(),
            Self::Waiting(place) => joined(b'g', place, &[]),
        }
    }

    pub(super) fn parse(key: &'a [u8]) -> Option<Self> {
        let (&kind, rest) = key.split_first()?;
        let number = || Some(u64::from_be_bytes(rest.try_into().ok()?));
        let first = || rest.split_first_chunk().map(|(id, rest)| (u64::from_be_bytes(*id), rest));
        Some(match kind {
            b'c' if rest.is_empty() => Self::Counters,
            b's' => Self::Session(number()?),
            b'p' => Self::Position(number()?),
            b'f' => {
                let (id, filter) = first()?;
                Self::Subscription(id, std::str::from_utf8(filter).ok()?)
            }
            b'q' => {
                let (id, seq) = first()?;
                Self::Entry(id, u64::from_be_bytes(seq.try_into().ok()?))
            }
            b'm' => Self::Message(number()?),
            b'o' => Self::Outbox(number()?),
            b'w' => Self::Watermark(number()?),
            b'r' => Self::Retained(rest),
            b'h' => Self::Shadow(rest),
            b'a' => Self::Absence(rest),
            b'g' => Self::Waiting(number()?),
            _ => return None,
        })
    }
}

fn joined(kind: u8, number: u64, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(9 + rest.len());
    key.push(kind);
    key.extend_from_slice(&number.to_be_bytes());
    key.extend_from_slice(rest);
    key
}

/// What comes next of everything that is counted.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StoredCounters {
    #[prost(uint64, tag = "1")]
    pub(super) next_session: u64,
    #[prost(uint64, tag = "2")]
    pub(super) next_epoch: u64,
    #[prost(uint64, tag = "3")]
    pub(super) next_message: u64,
    #[prost(uint64, tag = "4")]
    pub(super) next_outbox: u64,
    /// 0 while nothing has waited for a shared subscription.
    #[prost(uint64, tag = "5")]
    pub(super) next_waiting: u64,
}

/// What changes with connections.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StoredSession {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) client: Bytes,
    #[prost(uint64, tag = "2")]
    pub(super) epoch: u64,
    #[prost(uint64, tag = "3")]
    pub(super) node: u64,
    #[prost(uint64, tag = "4")]
    pub(super) connected_at: u64,
    #[prost(uint64, optional, tag = "5")]
    pub(super) disconnected_at: Option<u64>,
    #[prost(uint32, tag = "6")]
    pub(super) expiry_secs: u32,
    #[prost(uint32, tag = "7")]
    pub(super) version: u32,
    #[prost(uint64, tag = "8")]
    pub(super) queue_limit_bytes: u64,
    #[prost(uint32, tag = "9")]
    pub(super) queue_limit_messages: u32,
    #[prost(message, optional, tag = "10")]
    pub(super) will: Option<Will>,
    /// None before there were lifecycle events, or where there are none.
    #[prost(message, optional, tag = "11")]
    pub(super) presence: Option<Presence>,
    /// The number of its connection and whether anybody was told of the client; with `presence`.
    #[prost(uint64, tag = "12")]
    pub(super) number: u64,
    #[prost(bool, tag = "13")]
    pub(super) told: bool,
}

/// The last connection of a client that has no session.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct StoredAbsence {
    #[prost(uint64, tag = "1")]
    pub(super) number: u64,
    #[prost(uint64, tag = "2")]
    pub(super) since: u64,
}

/// What changes with messages.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StoredPosition {
    #[prost(uint64, tag = "1")]
    pub(super) next_seq: u64,
    #[prost(uint64, tag = "2")]
    pub(super) sent_below: u64,
    #[prost(uint32, repeated, tag = "3")]
    pub(super) inbound: Vec<u32>,
    #[prost(uint64, tag = "4")]
    pub(super) earliest_expiry: u64,
    /// 0 while no QoS 2 message of a shared subscription has begun.
    #[prost(uint64, tag = "5")]
    pub(super) begun_below: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StoredEntry {
    /// 0 when released.
    #[prost(uint64, tag = "1")]
    pub(super) message: u64,
    #[prost(uint32, tag = "2")]
    pub(super) qos: u32,
    #[prost(bool, tag = "3")]
    pub(super) retain: bool,
    #[prost(uint32, repeated, tag = "4")]
    pub(super) ids: Vec<u32>,
    /// The shared subscription that it comes by; empty for none.
    #[prost(string, tag = "5")]
    pub(super) share: String,
}

/// A message that waits for a shared subscription.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StoredWaiting {
    #[prost(string, tag = "1")]
    pub(super) filter: String,
    #[prost(uint64, tag = "2")]
    pub(super) message: u64,
    #[prost(bool, tag = "3")]
    pub(super) returned: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StoredOutboxEntry {
    #[prost(message, required, tag = "1")]
    pub(super) publication: Publication,
    #[prost(bool, tag = "2")]
    pub(super) store_retained: bool,
    #[prost(message, optional, tag = "3")]
    pub(super) share: Option<SharedCopy>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct StoredWatermark {
    #[prost(uint64, tag = "1")]
    pub(super) seq: u64,
    /// None before there were parts.
    #[prost(uint32, optional, tag = "2")]
    pub(super) part: Option<u32>,
}

pub(super) fn value(message: &impl Message) -> Vec<u8> {
    versioned(VERSION, message)
}

/// The value of an outbox entry.
pub(super) fn outbox_value(entry: &StoredOutboxEntry) -> Vec<u8> {
    versioned(if entry.share.is_some() { WITH_SHARES } else { VERSION }, entry)
}

/// The outbox entry of a value.
pub(super) fn read_outbox(value: &[u8]) -> Result<StoredOutboxEntry, LoadError> {
    match value.split_first() {
        Some((&WITH_SHARES, content)) => decode(content),
        _ => read(value),
    }
}

fn versioned(version: u8, message: &impl Message) -> Vec<u8> {
    let mut value = Vec::with_capacity(1 + message.encoded_len());
    value.push(version);
    // A vector grows as it must, so there is always room.
    let _ = message.encode(&mut value);
    value
}

/// A value that is not a protobuf message, behind the version byte.
pub(super) fn opaque(bytes: &[u8]) -> Vec<u8> {
    [&[VERSION][..], bytes].concat()
}

/// What is behind the version byte.
pub(super) fn content(value: &[u8]) -> Result<&[u8], LoadError> {
    match value.split_first() {
        Some((&VERSION, content)) => Ok(content),
        Some((version, _)) => Err(LoadError(format!("value of version {version}"))),
        None => Err(LoadError("empty value".into())),
    }
}

pub(super) fn read<M: Message + Default>(value: &[u8]) -> Result<M, LoadError> {
    decode(content(value)?)
}

fn decode<M: Message + Default>(content: &[u8]) -> Result<M, LoadError> {
    M::decode(Bytes::copy_from_slice(content)).map_err(|error| LoadError(error.to_string()))
}

impl StoredEntry {
    pub(super) fn is_valid(&self) -> bool {
        (1..=2).contains(&self.qos) && (self.message != 0 || self.qos == 2)
    }
}

pub(super) fn options_valid(options: &Options) -> bool {
    options.qos <= 2
}
