//! The properties of MQTT 5: what each is called, how it is encoded, which packets may carry it,
//! and a reader that holds packets to that table.

use std::borrow::Cow;
use std::fmt;

use crate::codec::Reader;
use crate::{DecodeError, PacketType};

/// What may carry properties: the packets, and the will inside CONNECT. A bit per place.
pub(crate) const WILL: u16 = 1;

const fn bits(types: &[PacketType]) -> u16 {
    let mut bits = 0;
    let mut i = 0;
    while i < types.len() {
        bits |= 1 << types[i] as u16;
        i += 1;
    }
    bits
}

/// How a property's value is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    /// A byte that can only be 0 or 1.
    Flag,
    TwoBytes,
    FourBytes,
    VarInt,
    String,
    Binary,
    Pair,
}

macro_rules! properties {
    ($($name:ident = $id:literal, $encoding:ident, $places:expr;)+) => {
        /// The properties of MQTT 5 [v5 table 2-4]; the value is the identifier.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        #[expect(missing_docs, reason = "the specification's own names")]
        pub enum PropertyId {
            $($name = $id),+
        }

        impl PropertyId {
            fn of(id: u32) -> Option<Self> {
                match id {
                    $($id => Some(Self::$name),)+
                    _ => None,
                }
            }

            fn encoding(self) -> Encoding {
                match self {
                    $(Self::$name => Encoding::$encoding),+
                }
            }

            fn places(self) -> u16 {
                use PacketType::*;
                match self {
                    $(Self::$name => $places),+
                }
            }
        }

        impl fmt::Display for PropertyId {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$name => stringify!($name)),+
                })
            }
        }
    };
}

properties! {
    PayloadFormatIndicator = 0x01, Flag, bits(&[Publish]) | WILL;
    MessageExpiryInterval = 0x02, FourBytes, bits(&[Publish]) | WILL;
    ContentType = 0x03, String, bits(&[Publish]) | WILL;
    ResponseTopic = 0x08, String, bits(&[Publish]) | WILL;
    CorrelationData = 0x09, Binary, bits(&[Publish]) | WILL;
    SubscriptionIdentifier = 0x0B, VarInt, bits(&[Publish, Subscribe]);
    SessionExpiryInterval = 0x11, FourBytes, bits(&[Connect, ConnAck, Disconnect]);
    AssignedClientIdentifier = 0x12, String, bits(&[ConnAck]);
    ServerKeepAlive = 0x13, TwoBytes, bits(&[ConnAck]);
    AuthenticationMethod = 0x15, String, bits(&[Connect, ConnAck, Auth]);
    AuthenticationData = 0x16, Binary, bits(&[Connect, ConnAck, Auth]);
    RequestProblemInformation = 0x17, Flag, bits(&[Connect]);
    WillDelayInterval = 0x18, FourBytes, WILL;
    RequestResponseInformation = 0x19, Flag, bits(&[Connect]);
    ResponseInformation = 0x1A, String, bits(&[ConnAck]);
    ServerReference = 0x1C, String, bits(&[ConnAck, Disconnect]);
    ReasonString = 0x1F, String,
        bits(&[ConnAck, PubAck, PubRec, PubRel, PubComp, SubAck, UnsubAck, Disconnect, Auth]);
    ReceiveMaximum = 0x21, TwoBytes, bits(&[Connect, ConnAck]);
    TopicAliasMaximum = 0x22, TwoBytes, bits(&[Connect, ConnAck]);
    TopicAlias = 0x23, TwoBytes, bits(&[Publish]);
    MaximumQoS = 0x24, Flag, bits(&[ConnAck]);
    RetainAvailable = 0x25, Flag, bits(&[ConnAck]);
    UserProperty = 0x26, Pair, u16::MAX;
    MaximumPacketSize = 0x27, FourBytes, bits(&[Connect, ConnAck]);
    WildcardSubscriptionAvailable = 0x28, Flag, bits(&[ConnAck]);
    SubscriptionIdentifierAvailable = 0x29, Flag, bits(&[ConnAck]);
    SharedSubscriptionAvailable = 0x2A, Flag, bits(&[ConnAck]);
}

/// A property's value as the table says it is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Number(u32),
    Text(&'a str),
    Bytes(&'a [u8]),
    Pair(&'a str, &'a str),
}

impl<'a> Value<'a> {
    /// The number the table promises; the other accessors likewise.
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Number(number) => number,
            _ => 0,
        }
    }

    pub(crate) fn flag(self) -> bool {
        self.number() != 0
    }

    /// Lossless for properties that are encoded in two bytes.
    pub(crate) fn short(self) -> u16 {
        self.number() as u16
    }

    pub(crate) fn text(self) -> &'a str {
        match self {
            Self::Text(text) => text,
            _ => "",
        }
    }

    pub(crate) fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            _ => &[],
        }
    }
}

/// Walks one block of properties and refuses what the specification's table forbids.
pub(crate) struct PropertyReader<'a> {
    block: &'a [u8],
    reader: Reader<'a>,
    packet: PacketType,
    place: u16,
    repeatable: u64,
    seen: u64,
}

/// One property, and where in the block its encoding lies.
pub(crate) struct Found<'a> {
    pub(crate) id: PropertyId,
    pub(crate) value: Value<'a>,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

const fn bit(id: PropertyId) -> u64 {
    1 << id as u8
}

impl<'a> PropertyReader<'a> {
    /// Takes the length-prefixed block off the front of `body`.
    pub(crate) fn open(
        body: &mut Reader<'a>,
        packet: PacketType,
        place: u16,
    ) -> Result<Self, DecodeError> {
        let length = body.varint("property length")?;
        let block = body.take(length as usize, "properties")?;
        Ok(Self::over(block, packet, place))
    }

    /// Takes the properties of a packet that is not the will.
    pub(crate) fn of_packet(
        body: &mut Reader<'a>,
        packet: PacketType,
    ) -> Result<Self, DecodeError> {
        Self::open(body, packet, bits(&[packet]))
    }

    /// Walks a block whose length prefix is already gone.
    pub(crate) fn over(block: &'a [u8], packet: PacketType, place: u16) -> Self {
        let repeatable = bit(PropertyId::UserProperty);
        Self { block, reader: Reader::new(block), packet, place, repeatable, seen: 0 }
    }

    /// Lets the subscription identifier appear once per subscription that matched.
    pub(crate) fn allow_many_subscriptions(mut self) -> Self {
        self.repeatable |= bit(PropertyId::SubscriptionIdentifier);
        self
    }

    pub(crate) fn next(&mut self) -> Result<Option<Found<'a>>, DecodeError> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        let start = self.block.len() - self.reader.len();
        let number = self.reader.varint("property identifier")?;
        let id = PropertyId::of(number).ok_or(DecodeError::UnknownProperty(number))?;
        if id.places() & self.place == 0 {
            return Err(DecodeError::PropertyNotAllowed { property: id, packet: self.packet });
        }
        if self.seen & bit(id) & !self.repeatable != 0 {
            return Err(DecodeError::RepeatedProperty(id));
        }
        self.seen |= bit(id);
        let value = self.value(id)?;
        Ok(Some(Found { id, value, start, end: self.block.len() - self.reader.len() }))
    }

    fn value(&mut self, id: PropertyId) -> Result<Value<'a>, DecodeError> {
        let reader = &mut self.reader;
        let number = match id.encoding() {
            Encoding::String => return Ok(Value::Text(reader.string("property value")?)),
            Encoding::Binary => return Ok(Value::Bytes(reader.binary("property value")?)),
            Encoding::Pair => {
                let name = reader.string("user property name")?;
                return Ok(Value::Pair(name, reader.string("user property value")?));
            }
            Encoding::Flag => u32::from(reader.u8("property value")?),
            Encoding::TwoBytes => u32::from(reader.u16("property value")?),
            Encoding::FourBytes => reader.u32("property value")?,
            Encoding::VarInt => reader.varint("property value")?,
        };
        if in_range(id, number) {
            Ok(Value::Number(number))
        } else {
            Err(DecodeError::PropertyValue { property: id, value: number })
        }
    }
}

/// The values that a property's type could hold and its definition forbids.
fn in_range(id: PropertyId, value: u32) -> bool {
    use PropertyId::*;
    match id {
        ReceiveMaximum | MaximumPacketSize | SubscriptionIdentifier | TopicAlias => value != 0,
        id if id.encoding() == Encoding::Flag => value <= 1,
        _ => true,
    }
}

/// Collects the properties of a block that are kept, without copying while they lie side by side.
pub(crate) struct Gathered<'a> {
    block: &'a [u8],
    kept: Cow<'a, [u8]>,
    end: usize,
}

impl<'a> Gathered<'a> {
    pub(crate) fn from(properties: &PropertyReader<'a>) -> Self {
        Self { block: properties.block, kept: Cow::Borrowed(&[]), end: 0 }
    }

    pub(crate) fn keep(&mut self, found: &Found<'a>) {
        match &mut self.kept {
            Cow::Borrowed(kept) if kept.is_empty() => *kept = &self.block[found.start..found.end],
            Cow::Borrowed(kept) if self.end == found.start => {
                *kept = &self.block[found.start - kept.len()..found.end];
            }
            kept => kept.to_mut().extend_from_slice(&self.block[found.start..found.end]),
        }
        self.end = found.end;
    }

    pub(crate) fn finish(self) -> Cow<'a, [u8]> {
        self.kept
    }
}
