//! The control packets, one file each, and the vocabulary they share.

mod ack;
mod auth;
mod connack;
mod connect;
mod disconnect;
mod ping;
mod publish;
mod suback;
mod subscribe;
mod unsubscribe;

use std::fmt;
use std::num::NonZeroU16;

pub use ack::{Ack, AckKind, encode_ack};
pub use auth::{Auth, encode_auth};
pub use connack::{ConnAck, encode_connack};
pub use connect::{Connect, Will, encode_connect};
pub use disconnect::{Disconnect, encode_disconnect};
pub use ping::{encode_pingreq, encode_pingresp};
pub use publish::{Delivery, Outgoing, Publish, encode_publish, encode_publish_head, publish_size};
pub use suback::{Codes, SubAck, UnsubAck, encode_suback, encode_unsuback};
pub use subscribe::{Filters, RetainHandling, Subscribe, SubscribeOptions, encode_subscribe};
pub use unsubscribe::{Unsubscribe, UnsubscribeFilters, encode_unsubscribe};

/// Identifies an exchange of packets within one session and direction; never zero.
pub type PacketId = NonZeroU16;

/// Protocol versions that are spoken here; the value is the protocol level in CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Version {
    /// MQTT 3.1.1.
    V311 = 4,
    /// MQTT 5.
    V5 = 5,
}

/// How surely a publication arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum QoS {
    /// QoS 0: sent once, never acknowledged.
    #[default]
    AtMostOnce = 0,
    /// QoS 1: acknowledged with PUBACK, may arrive twice.
    AtLeastOnce = 1,
    /// QoS 2: arrives once, after a four-way exchange.
    ExactlyOnce = 2,
}

/// A number above 2 where a QoS belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a QoS")]
pub struct UnknownQoS(pub u8);

impl TryFrom<u8> for QoS {
    type Error = UnknownQoS;

    fn try_from(level: u8) -> Result<Self, UnknownQoS> {
        match level {
            0 => Ok(Self::AtMostOnce),
            1 => Ok(Self::AtLeastOnce),
            2 => Ok(Self::ExactlyOnce),
            _ => Err(UnknownQoS(level)),
        }
    }
}

/// The control packet types, with the value they have in the fixed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the specification's own names")]
pub enum PacketType {
    Connect = 1,
    ConnAck = 2,
    Publish = 3,
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
    Subscribe = 8,
    SubAck = 9,
    Unsubscribe = 10,
    UnsubAck = 11,
    PingReq = 12,
    PingResp = 13,
    Disconnect = 14,
    Auth = 15,
}

impl PacketType {
    /// The type in the upper half of a packet's first byte; `None` for 0, which is forbidden.
    pub const fn of(first_byte: u8) -> Option<Self> {
        Some(match first_byte >> 4 {
            1 => Self::Connect,
            2 => Self::ConnAck,
            3 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }

    /// The first byte of a packet of this type whose flags are fixed.
    pub(crate) const fn first_byte(self) -> u8 {
        (self as u8) << 4 | self.fixed_flags()
    }

    /// The flags every type but PUBLISH must carry.
    pub(crate) const fn fixed_flags(self) -> u8 {
        match self {
            Self::PubRel | Self::Subscribe | Self::Unsubscribe => 0b0010,
            _ => 0,
        }
    }
}

impl fmt::Display for PacketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "CONNECT",
            Self::ConnAck => "CONNACK",
            Self::Publish => "PUBLISH",
            Self::PubAck => "PUBACK",
            Self::PubRec => "PUBREC",
            Self::PubRel => "PUBREL",
            Self::PubComp => "PUBCOMP",
            Self::Subscribe => "SUBSCRIBE",
            Self::SubAck => "SUBACK",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::UnsubAck => "UNSUBACK",
            Self::PingReq => "PINGREQ",
            Self::PingResp => "PINGRESP",
            Self::Disconnect => "DISCONNECT",
            Self::Auth => "AUTH",
        })
    }
}

/// What a client sends, borrowed from the bytes it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the specification's own names")]
pub enum Packet<'a> {
    Publish(Publish<'a>),
    PubAck(Ack<'a>),
    PubRec(Ack<'a>),
    PubRel(Ack<'a>),
    PubComp(Ack<'a>),
    Subscribe(Subscribe<'a>),
    Unsubscribe(Unsubscribe<'a>),
    PingReq,
    Disconnect(Disconnect<'a>),
    Auth(Auth<'a>),
    Connect(Box<Connect<'a>>),
}

/// What a server sends, borrowed from the bytes it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the specification's own names")]
pub enum ServerPacket<'a> {
    ConnAck(Box<ConnAck<'a>>),
    Publish(Delivery<'a>),
    PubAck(Ack<'a>),
    PubRec(Ack<'a>),
    PubRel(Ack<'a>),
    PubComp(Ack<'a>),
    SubAck(SubAck<'a>),
    UnsubAck(UnsubAck<'a>),
    PingResp,
    Disconnect(Disconnect<'a>),
    Auth(Auth<'a>),
}
