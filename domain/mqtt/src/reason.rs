//! Reason codes: how MQTT 5 says what came of a packet, and what is left of them in 3.1.1.

use crate::{PacketType, QoS};

/// A byte that is no MQTT 5 reason code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:#04x} is not a reason code")]
pub struct UnknownReason(pub u8);

/// Who sends a packet: some reason codes belong to one side only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    Client,
    Server,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal),+ $(,)?) => {
        /// Every reason code of MQTT 5 [v5 section 2.4]. Names follow the specification.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[$doc])* $name = $code),+
        }

        impl TryFrom<u8> for Reason {
            type Error = UnknownReason;

            fn try_from(code: u8) -> Result<Self, UnknownReason> {
                match code {
                    $($code => Ok(Self::$name),)+
                    _ => Err(UnknownReason(code)),
                }
            }
        }

        impl Reason {
            /// Every reason code, ascending.
            pub const ALL: &[Reason] = &[$(Self::$name),+];
        }
    };
}

reasons! {
    /// Success; in DISCONNECT "normal disconnection", in SUBACK "granted QoS 0".
    Success = 0x00,
    /// SUBACK: QoS 1 is the most that will be sent.
    GrantedQoS1 = 0x01,
    /// SUBACK: QoS 2 is the most that will be sent.
    GrantedQoS2 = 0x02,
    /// DISCONNECT by a client that wants its will published all the same.
    DisconnectWithWill = 0x04,
    /// PUBACK and PUBREC: accepted, but nobody subscribes.
    NoMatchingSubscribers = 0x10,
    /// UNSUBACK: there was no such subscription.
    NoSubscriptionExisted = 0x11,
    /// AUTH: go on with the exchange.
    ContinueAuthentication = 0x18,
    /// AUTH: the client starts over.
    ReAuthenticate = 0x19,
    /// No more precise code may or can be given.
    UnspecifiedError = 0x80,
    /// The packet cannot be parsed.
    MalformedPacket = 0x81,
    /// The packet holds or does what the protocol does not allow.
    ProtocolError = 0x82,
    /// Valid, but not accepted here.
    ImplementationSpecificError = 0x83,
    /// CONNACK: this protocol name or level is not spoken here.
    UnsupportedProtocolVersion = 0x84,
    /// CONNACK: well formed, but not an acceptable client identifier.
    ClientIdentifierNotValid = 0x85,
    /// CONNACK: the credentials are wrong.
    BadUserNameOrPassword = 0x86,
    /// The principal may not do this.
    NotAuthorized = 0x87,
    /// CONNACK: not available.
    ServerUnavailable = 0x88,
    /// Too busy; try again later.
    ServerBusy = 0x89,
    /// CONNACK: barred by an administrator.
    Banned = 0x8A,
    /// DISCONNECT: this node is going away.
    ServerShuttingDown = 0x8B,
    /// The authentication method is not supported or does not match the one in use.
    BadAuthenticationMethod = 0x8C,
    /// DISCONNECT: nothing was heard for one and a half keep alive times.
    KeepAliveTimeout = 0x8D,
    /// DISCONNECT: another connection uses the client identifier now.
    SessionTakenOver = 0x8E,
    /// The topic filter is not acceptable.
    TopicFilterInvalid = 0x8F,
    /// The topic name is not acceptable.
    TopicNameInvalid = 0x90,
    /// The packet identifier is in use.
    PacketIdentifierInUse = 0x91,
    /// PUBREL and PUBCOMP: the packet identifier is not known.
    PacketIdentifierNotFound = 0x92,
    /// More unacknowledged publications than the receiver allows.
    ReceiveMaximumExceeded = 0x93,
    /// A topic alias that is zero, above the maximum, or unknown.
    TopicAliasInvalid = 0x94,
    /// Larger than the receiver's maximum packet size.
    PacketTooLarge = 0x95,
    /// Publishing too fast.
    MessageRateTooHigh = 0x96,
    /// A limit has been reached.
    QuotaExceeded = 0x97,
    /// Closed by an administrator.
    AdministrativeAction = 0x98,
    /// The payload is not what its format indicator says.
    PayloadFormatInvalid = 0x99,
    /// Retained publications are not supported.
    RetainNotSupported = 0x9A,
    /// This QoS is not supported.
    QoSNotSupported = 0x9B,
    /// Try another server for now.
    UseAnotherServer = 0x9C,
    /// Use another server for good.
    ServerMoved = 0x9D,
    /// Shared subscriptions are not supported.
    SharedSubscriptionsNotSupported = 0x9E,
    /// Connecting too fast.
    ConnectionRateExceeded = 0x9F,
    /// DISCONNECT: the connection has lasted as long as it may.
    MaximumConnectTime = 0xA0,
    /// Subscription identifiers are not supported.
    SubscriptionIdentifiersNotSupported = 0xA1,
    /// Wildcard subscriptions are not supported.
    WildcardSubscriptionsNotSupported = 0xA2,
}

impl Reason {
    /// DISCONNECT without fault; the will is discarded.
    pub const NORMAL_DISCONNECTION: Self = Self::Success;
    /// SUBACK: QoS 0 is the most that will be sent.
    pub const GRANTED_QOS_0: Self = Self::Success;

    /// The SUBACK code that grants `qos`.
    pub const fn granted(qos: QoS) -> Self {
        match qos {
            QoS::AtMostOnce => Self::GRANTED_QOS_0,
            QoS::AtLeastOnce => Self::GrantedQoS1,
            QoS::ExactlyOnce => Self::GrantedQoS2,
        }
    }

    /// Its name in the standard [v5 table 2-6]; 0x00 has others in DISCONNECT and SUBACK.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "Success",
            Self::GrantedQoS1 => "Granted QoS 1",
            Self::GrantedQoS2 => "Granted QoS 2",
            Self::DisconnectWithWill => "Disconnect with Will Message",
            Self::NoMatchingSubscribers => "No matching subscribers",
            Self::NoSubscriptionExisted => "No subscription existed",
            Self::ContinueAuthentication => "Continue authentication",
            Self::ReAuthenticate => "Re-authenticate",
            Self::UnspecifiedError => "Unspecified error",
            Self::MalformedPacket => "Malformed Packet",
            Self::ProtocolError => "Protocol Error",
            Self::ImplementationSpecificError => "Implementation specific error",
            Self::UnsupportedProtocolVersion => "Unsupported Protocol Version",
            Self::ClientIdentifierNotValid => "Client Identifier not valid",
            Self::BadUserNameOrPassword => "Bad User Name or Password",
            Self::NotAuthorized => "Not authorized",
            Self::ServerUnavailable => "Server unavailable",
            Self::ServerBusy => "Server busy",
            Self::Banned => "Banned",
            Self::ServerShuttingDown => "Server shutting down",
            Self::BadAuthenticationMethod => "Bad authentication method",
            Self::KeepAliveTimeout => "Keep Alive timeout",
            Self::SessionTakenOver => "Session taken over",
            Self::TopicFilterInvalid => "Topic Filter invalid",
            Self::TopicNameInvalid => "Topic Name invalid",
            Self::PacketIdentifierInUse => "Packet Identifier in use",
            Self::PacketIdentifierNotFound => "Packet Identifier not found",
            Self::ReceiveMaximumExceeded => "Receive Maximum exceeded",
            Self::TopicAliasInvalid => "Topic Alias invalid",
            Self::PacketTooLarge => "Packet too large",
            Self::MessageRateTooHigh => "Message rate too high",
            Self::QuotaExceeded => "Quota exceeded",
            Self::AdministrativeAction => "Administrative action",
            Self::PayloadFormatInvalid => "Payload format invalid",
            Self::RetainNotSupported => "Retain not supported",
            Self::QoSNotSupported => "QoS not supported",
            Self::UseAnotherServer => "Use another server",
            Self::ServerMoved => "Server moved",
            Self::SharedSubscriptionsNotSupported => "Shared Subscriptions not supported",
            Self::ConnectionRateExceeded => "Connection rate exceeded",
            Self::MaximumConnectTime => "Maximum connect time",
            Self::SubscriptionIdentifiersNotSupported => "Subscription Identifiers not supported",
            Self::WildcardSubscriptionsNotSupported => "Wildcard Subscriptions not supported",
        }
    }

    /// The byte on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Whether the operation failed: codes from 0x80 on.
    pub const fn is_error(self) -> bool {
        self.code() >= 0x80
    }

    /// The CONNACK return code that comes nearest in 3.1.1, which knows five of them.
    pub const fn connack_v311(self) -> u8 {
        match self {
            Self::UnsupportedProtocolVersion => 1,
            Self::ClientIdentifierNotValid => 2,
            Self::BadUserNameOrPassword | Self::BadAuthenticationMethod => 4,
            // The topic of its will is reserved: another try is of no use.
            Self::NotAuthorized | Self::Banned | Self::TopicNameInvalid => 5,
            reason if reason.is_error() => 3,
            _ => 0,
        }
    }

    /// What a CONNACK return code of 3.1.1 says in the words of MQTT 5.
    pub(crate) const fn from_connack_v311(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Success),
            1 => Some(Self::UnsupportedProtocolVersion),
            2 => Some(Self::ClientIdentifierNotValid),
            3 => Some(Self::ServerUnavailable),
            4 => Some(Self::BadUserNameOrPassword),
            5 => Some(Self::NotAuthorized),
            _ => None,
        }
    }

    /// Whether `sender` may put this code into a packet of this type [v5 table 2-6].
    pub(crate) const fn allowed(self, packet: PacketType, sender: Sender) -> bool {
        let code = self.code();
        match (packet, sender) {
            (PacketType::ConnAck, Sender::Server) => matches!(
                code,
                0x00 | 0x80..=0x8A | 0x8C | 0x90 | 0x95 | 0x97 | 0x99..=0x9D | 0x9F
            ),
            (PacketType::PubAck | PacketType::PubRec, _) => {
                matches!(code, 0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99)
            }
            (PacketType::PubRel | PacketType::PubComp, _) => matches!(code, 0x00 | 0x92),
            (PacketType::SubAck, Sender::Server) => matches!(
                code,
                0x00..=0x02 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91 | 0x97 | 0x9E | 0xA1 | 0xA2
            ),
            (PacketType::UnsubAck, Sender::Server) => {
                matches!(code, 0x00 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91)
            }
            (PacketType::Disconnect, Sender::Client) => {
                matches!(code, 0x00 | 0x04 | 0x80..=0x83 | 0x90 | 0x93..=0x99)
            }
            (PacketType::Disconnect, Sender::Server) => matches!(
                code,
                0x00 | 0x80..=0x83 | 0x87 | 0x89 | 0x8B | 0x8D..=0x90 | 0x93..=0xA2
            ),
            (PacketType::Auth, Sender::Client) => matches!(code, 0x18 | 0x19),
            (PacketType::Auth, Sender::Server) => matches!(code, 0x00 | 0x18),
            _ => false,
        }
    }
}
