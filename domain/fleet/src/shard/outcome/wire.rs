//! Outcomes on their way to the node that proposed the command: protobuf by tags, as commands.

use bytes::Bytes;
use prost::Message;

use super::{Connected, Outcome, Published, ShadowAnswer, Subscribed};
use crate::shard::command::{CommandError, Subscription};

#[derive(Clone, PartialEq, Message)]
struct WireOutcome {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
    #[prost(message, tag = "1")]
    Connected(WireConnected),
    #[prost(bool, tag = "2")]
    Disconnected(bool),
    #[prost(message, tag = "3")]
    Subscribed(WireSubscribed),
    #[prost(message, tag = "4")]
    Unsubscribed(WireBools),
    #[prost(message, tag = "5")]
    Published(WirePublished),
    #[prost(bool, tag = "6")]
    Received(bool),
    #[prost(bool, tag = "7")]
    Released(bool),
    #[prost(uint32, tag = "8")]
    Acknowledged(u32),
    #[prost(message, tag = "9")]
    PubrecRecorded(WireBools),
    #[prost(bool, tag = "10")]
    Due(bool),
    #[prost(message, tag = "11")]
    Shadow(WireShadow),
    /// One of those that say nothing more.
    #[prost(enumeration = "Bare", tag = "12")]
    Bare(i32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum Bare {
    Invalid = 0,
    Repeated = 1,
    Trimmed = 2,
    Forgotten = 3,
    Stale = 4,
}

#[derive(Clone, PartialEq, Message)]
struct WireConnected {
    #[prost(bool, tag = "1")]
    session_present: bool,
    #[prost(uint64, tag = "2")]
    session: u64,
    #[prost(uint64, tag = "3")]
    epoch: u64,
    #[prost(message, repeated, tag = "4")]
    subscriptions: Vec<Subscription>,
    #[prost(uint32, repeated, tag = "5")]
    inbound: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct WireSubscribed {
    /// 0 new, 1 replaced, 2 invalid.
    #[prost(uint32, repeated, tag = "1")]
    filters: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct WireBools {
    #[prost(bool, repeated, tag = "1")]
    each: Vec<bool>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct WirePublished {
    #[prost(uint32, tag = "1")]
    queued: u32,
    #[prost(uint32, tag = "2")]
    dropped: u32,
    #[prost(uint32, tag = "3")]
    gone: u32,
}

#[derive(Clone, PartialEq, Message)]
struct WireShadow {
    #[prost(uint32, tag = "1")]
    code: u32,
    #[prost(bytes = "bytes", tag = "2")]
    body: Bytes,
}

impl Outcome {
    /// The bytes for the node that proposed the command.
    pub fn encoded(&self) -> Bytes {
        let bools = |each: &[bool]| WireBools { each: each.to_vec() };
        let bare = |bare: Bare| Kind::Bare(bare.into());
        let kind = match self {
            Self::Connected(connected) => Kind::Connected(WireConnected {
                session_present: connected.session_present,
                session: connected.session,
                epoch: connected.epoch,
                subscriptions: connected.subscriptions.clone(),
                inbound: connected.inbound.iter().map(|&id| id.into()).collect(),
            }),
            Self::Disconnected { removed } => Kind::Disconnected(*removed),
            Self::Subscribed(filters) => {
                let filters = filters.iter().map(|each| match each {
                    Subscribed::New => 0,
                    Subscribed::Replaced => 1,
                    Subscribed::Invalid => 2,
                });
                Kind::Subscribed(WireSubscribed { filters: filters.collect() })
            }
            Self::Unsubscribed(each) => Kind::Unsubscribed(bools(each)),
            Self::Published(Published { queued, dropped, gone }) => {
                Kind::Published(WirePublished { queued: *queued, dropped: *dropped, gone: *gone })
            }
            Self::Received { duplicate } => Kind::Received(*duplicate),
            Self::Released { known } => Kind::Released(*known),
            Self::Acknowledged { removed } => Kind::Acknowledged(*removed),
            Self::PubrecRecorded(each) => Kind::PubrecRecorded(bools(each)),
            Self::Due(done) => Kind::Due(*done),
            Self::Shadow(ShadowAnswer { code, body }) => {
                Kind::Shadow(WireShadow { code: (*code).into(), body: body.clone() })
            }
            Self::Repeated => bare(Bare::Repeated),
            Self::Trimmed => bare(Bare::Trimmed),
            Self::Forgotten => bare(Bare::Forgotten),
            Self::Stale => bare(Bare::Stale),
            Self::Invalid => bare(Bare::Invalid),
        };
        Bytes::from(WireOutcome { kind: Some(kind) }.encode_to_vec())
    }

    /// What another node has encoded.
    pub fn decode(bytes: Bytes) -> Result<Self, CommandError> {
        let WireOutcome { kind } = WireOutcome::decode(bytes)?;
        Ok(match kind.ok_or(CommandError::Kind)? {
            Kind::Connected(connected) => Self::Connected(Connected {
                session_present: connected.session_present,
                session: connected.session,
                epoch: connected.epoch,
                subscriptions: connected.subscriptions,
                inbound: connected.inbound.into_iter().map(|id| id as u16).collect(),
            }),
            Kind::Disconnected(removed) => Self::Disconnected { removed },
            Kind::Subscribed(WireSubscribed { filters }) => {
                let filters = filters.into_iter().map(|each| match each {
                    0 => Subscribed::New,
                    1 => Subscribed::Replaced,
                    _ => Subscribed::Invalid,
                });
                Self::Subscribed(filters.collect())
            }
            Kind::Unsubscribed(WireBools { each }) => Self::Unsubscribed(each),
            Kind::Published(WirePublished { queued, dropped, gone }) => {
                Self::Published(Published { queued, dropped, gone })
            }
            Kind::Received(duplicate) => Self::Received { duplicate },
            Kind::Released(known) => Self::Released { known },
            Kind::Acknowledged(removed) => Self::Acknowledged { removed },
            Kind::PubrecRecorded(WireBools { each }) => Self::PubrecRecorded(each),
            Kind::Due(done) => Self::Due(done),
            Kind::Shadow(WireShadow { code, body }) => {
                let code = u16::try_from(code).unwrap_or(500);
                Self::Shadow(ShadowAnswer { code, body })
            }
            Kind::Bare(bare) => match Bare::try_from(bare).map_err(|_| CommandError::Kind)? {
                Bare::Invalid => Self::Invalid,
                Bare::Repeated => Self::Repeated,
                Bare::Trimmed => Self::Trimmed,
                Bare::Forgotten => Self::Forgotten,
                Bare::Stale => Self::Stale,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::Options;

    #[test]
    fn outcomes_arrive_as_they_were() {
        let options = Options { qos: 2, subscription_id: 9, ..Options::default() };
        let connected = Connected {
            session_present: true,
            session: 7,
            epoch: u64::MAX,
            subscriptions: vec![Subscription { filter: "a/+".into(), options }],
            inbound: vec![1, u16::MAX],
        };
        for outcome in [
            Outcome::Connected(Connected::default()),
            Outcome::Connected(connected),
            Outcome::Disconnected { removed: true },
            Outcome::Subscribed(vec![Subscribed::New, Subscribed::Replaced, Subscribed::Invalid]),
            Outcome::Unsubscribed(vec![true, false]),
            Outcome::Published(Published { queued: 1, dropped: 2, gone: 3 }),
            Outcome::Received { duplicate: true },
            Outcome::Released { known: false },
            Outcome::Acknowledged { removed: 4 },
            Outcome::PubrecRecorded(Vec::new()),
            Outcome::Due(false),
            Outcome::Shadow(ShadowAnswer { code: 409, body: Bytes::from_static(b"{}") }),
            Outcome::Repeated,
            Outcome::Trimmed,
            Outcome::Forgotten,
            Outcome::Stale,
            Outcome::Invalid,
        ] {
            assert_eq!(Outcome::decode(outcome.encoded()), Ok(outcome));
        }
    }

    #[test]
    fn what_is_no_outcome_is_refused() {
        for bytes in [&b""[..], b"\xff", &[12 << 3, 99]] {
            assert!(Outcome::decode(Bytes::from_static(bytes)).is_err(), "{bytes:?}");
        }
    }
}
