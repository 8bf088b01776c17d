//! Why bytes are not an acceptable packet, and what the client is told about it.

use thiserror::Error;

use crate::{PacketType, PropertyId, Reason, Version};

/// Why bytes are not an MQTT packet.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[expect(missing_docs, reason = "the message says what each variant means")]
pub enum DecodeError {
    #[error("packet of {size} bytes exceeds the limit of {limit}")]
    TooLarge { size: u32, limit: u32 },
    #[error("{0} is a variable byte integer of more than four bytes")]
    VarIntTooLong(&'static str),
    #[error("{0} is not encoded in the fewest bytes")]
    VarIntNotMinimal(&'static str),
    #[error("packet type 0 is forbidden")]
    PacketTypeZero,
    #[error("{packet} with flags {flags:#06b}")]
    Flags { packet: PacketType, flags: u8 },
    #[error("PUBLISH with QoS 3")]
    PublishQoS,
    #[error("PUBLISH of QoS 0 marked as a duplicate")]
    DuplicateQoS0,
    #[error("{0} is not expected from this side")]
    Unexpected(PacketType),
    #[error("{0} does not exist in MQTT 3.1.1")]
    NotInV311(PacketType),
    #[error("remaining length {stated} where {actual} bytes follow")]
    Length { stated: usize, actual: usize },
    #[error("packet ends inside its {0}")]
    Truncated(&'static str),
    #[error("{bytes} bytes after the end of {packet}")]
    Trailing { packet: PacketType, bytes: usize },
    #[error("{0} is not UTF-8")]
    Utf8(&'static str),
    #[error("{0} contains U+0000")]
    NullCharacter(&'static str),
    #[error("packet identifier 0")]
    PacketIdZero,
    #[error("PUBLISH with neither topic name nor alias")]
    TopicMissing,
    #[error("{0} contains a wildcard")]
    TopicWildcard(&'static str),
    #[error("response topic contains a wildcard")]
    ResponseTopicWildcard,
    #[error("{0} is empty")]
    TopicEmpty(&'static str),
    #[error("unknown property {0:#04x}")]
    UnknownProperty(u32),
    #[error("{property} does not belong into {packet}")]
    PropertyNotAllowed { property: PropertyId, packet: PacketType },
    #[error("{0} appears more than once")]
    RepeatedProperty(PropertyId),
    #[error("{property} of {value}")]
    PropertyValue { property: PropertyId, value: u32 },
    #[error("{property} does not belong into {packet} from this side")]
    PropertyFromWrongSide { property: PropertyId, packet: PacketType },
    #[error("authentication data without an authentication method")]
    AuthenticationDataAlone,
    #[error("AUTH without an authentication method")]
    AuthenticationMethodMissing,
    #[error("reason code {code:#04x} does not belong into {packet}")]
    ReasonCode { packet: PacketType, code: u8 },
    #[error("{0} without a topic filter")]
    NoFilters(PacketType),
    #[error("SUBACK or UNSUBACK without a code")]
    NoCodes,
    #[error("subscription option byte {0:#04x} has reserved bits set")]
    SubscriptionOptions(u8),
    #[error("subscription option byte {0:#04x} asks for QoS 3")]
    SubscriptionQoS(u8),
    #[error("subscription option byte {0:#04x} has retain handling 3")]
    RetainHandling(u8),
    #[error("no local on a shared subscription")]
    NoLocalShared,
    #[error("CONNECT flags {0:#04x} have the reserved bit set")]
    ConnectFlags(u8),
    #[error("CONNECT flags {0:#04x} describe a will without announcing one")]
    WillFlags(u8),
    #[error("CONNECT flags {0:#04x} give the will QoS 3")]
    WillQoS(u8),
    #[error("CONNECT flags {0:#04x} announce a password without a user name")]
    PasswordAlone(u8),
    #[error("CONNACK flags {0:#04x} have reserved bits set")]
    ConnAckFlags(u8),
    #[error("CONNACK refuses the connection and claims a session")]
    SessionPresent,
    #[error("CONNECT for protocol level {0}, which is not spoken here")]
    ProtocolLevel(u8),
    #[error("CONNECT for a protocol that is not MQTT")]
    ProtocolName,
    #[error("empty client identifier without a clean session")]
    ClientIdMissing,
}

impl DecodeError {
    /// What the client is told before its connection closes.
    pub fn reason(&self) -> Reason {
        match self {
            Self::TooLarge { .. } => Reason::PacketTooLarge,
            Self::TopicWildcard(_) | Self::TopicEmpty(_) => Reason::TopicNameInvalid,
            Self::PropertyValue { property: PropertyId::TopicAlias, .. } => {
                Reason::TopicAliasInvalid
            }
            Self::ProtocolLevel(_) | Self::ProtocolName => Reason::UnsupportedProtocolVersion,
            Self::ClientIdMissing => Reason::ClientIdentifierNotValid,
            Self::Unexpected(_)
            | Self::PacketIdZero
            | Self::TopicMissing
            | Self::ResponseTopicWildcard
            | Self::RepeatedProperty(_)
            | Self::PropertyValue { .. }
            | Self::PropertyFromWrongSide { .. }
            | Self::AuthenticationDataAlone
            | Self::AuthenticationMethodMissing
            | Self::ReasonCode { .. }
            | Self::NoFilters(_)
            | Self::NoCodes
            | Self::SubscriptionQoS(_)
            | Self::RetainHandling(_)
            | Self::NoLocalShared
            | Self::SessionPresent => Reason::ProtocolError,
            _ => Reason::MalformedPacket,
        }
    }
}

/// Why a connection's first packet is not an acceptable CONNECT.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("{error}")]
pub struct ConnectError {
    /// The version that CONNECT asks for, once that is known and spoken here.
    pub version: Option<Version>,
    /// What is wrong.
    pub error: DecodeError,
}

impl ConnectError {
    /// The CONNACK that tells the client, and in which version; `None` where the connection
    /// closes without an answer because the peer may not speak MQTT at all, or because 3.1.1 has
    /// no return code for it [v3 MQTT-3.1.4-1].
    pub fn answer(&self) -> Option<(Version, Reason)> {
        let reason = self.error.reason();
        match (self.version, self.error) {
            // Bridges set the upper bit of the level they speak.
            (None, DecodeError::ProtocolLevel(level)) => match level & 0x7F {
                0..=4 => Some((Version::V311, reason)),
                _ => Some((Version::V5, reason)),
            },
            (Some(Version::V311), DecodeError::ClientIdMissing) => Some((Version::V311, reason)),
            (Some(Version::V5), _) => Some((Version::V5, reason)),
            _ => None,
        }
    }
}

const _: () = assert!(size_of::<DecodeError>() <= 24, "errors travel in every result");
