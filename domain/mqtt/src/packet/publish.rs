//! PUBLISH in both directions: the hot path of the codec.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::codec::{
    Reader, check_response_topic, put_string, put_u16, put_u32, put_varint, varint_len, written_len,
};
use crate::property::{Gathered, PropertyReader};
use crate::{DecodeError, PacketId, PacketType, PropertyId, QoS, Version};

/// A publication on the wire, borrowed from the packet it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Sent before, perhaps.
    pub dup: bool,
    /// How surely it arrives.
    pub qos: QoS,
    /// To be kept for later subscribers; to a client: was kept.
    pub retain: bool,
    /// The topic name; empty when `alias` stands for it.
    pub topic: &'a str,
    /// Present exactly when the QoS is above 0.
    pub packet_id: Option<PacketId>,
    /// Stands for the topic name, or will from now on.
    pub alias: Option<u16>,
    /// Message expiry interval in seconds.
    pub expiry: Option<u32>,
    /// What goes to subscribers unaltered and in order [v5 MQTT-3.3.2-18]: payload format,
    /// content type, response topic, correlation data and user properties, encoded as on the
    /// wire without the length prefix. [`crate::properties`] reads them.
    pub properties: Cow<'a, [u8]>,
    /// The application's bytes.
    pub payload: &'a [u8],
}

/// A PUBLISH that a server sends: it may name the subscriptions that asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery<'a> {
    /// The publication.
    pub publish: Publish<'a>,
    /// The identifiers of the subscriptions that matched.
    pub subscription_ids: SmallVec<[u32; 4]>,
}

const ADDRESSED: &str = "topic name";

impl<'a> Publish<'a> {
    /// Decodes what a client sends.
    #[inline]
    pub(crate) fn decode(
        flags: u8,
        body: &mut Reader<'a>,
        version: Version,
    ) -> Result<Self, DecodeError> {
        // A client names no subscriptions [v5 MQTT-3.3.4-6].
        Self::from(flags, body, version, None)
    }

    #[inline]
    fn from(
        flags: u8,
        body: &mut Reader<'a>,
        version: Version,
        subscription_ids: Option<&mut SmallVec<[u32; 4]>>,
    ) -> Result<Self, DecodeError> {
        let qos = match flags & 0b0110 {
            0b0000 => QoS::AtMostOnce,
            0b0010 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        };
        let topic = body.topic(ADDRESSED)?;
        let packet_id = if qos == QoS::AtMostOnce { None } else { Some(body.packet_id()?) };
        let properties = match version {
            Version::V311 => Properties::NONE,
            Version::V5 if body.skip_zero() => Properties::NONE,
            Version::V5 => Properties::decode(body, subscription_ids)?,
        };
        if topic.is_empty() && properties.alias.is_none() {
            return Err(match version {
                Version::V311 => DecodeError::TopicEmpty(ADDRESSED),
                Version::V5 => DecodeError::TopicMissing,
            });
        }
        Ok(Self {
            dup: flags & 0b1000 != 0,
            qos,
            retain: flags & 0b0001 != 0,
            topic,
            packet_id,
            alias: properties.alias,
            expiry: properties.expiry,
            properties: properties.forwarded,
            payload: body.all(),
        })
    }
}

/// What the properties of a PUBLISH say.
struct Properties<'a> {
    alias: Option<u16>,
    expiry: Option<u32>,
    forwarded: Cow<'a, [u8]>,
}

impl<'a> Properties<'a> {
    const NONE: Self = Self { alias: None, expiry: None, forwarded: Cow::Borrowed(&[]) };

    fn decode(
        body: &mut Reader<'a>,
        mut subscription_ids: Option<&mut SmallVec<[u32; 4]>>,
    ) -> Result<Self, DecodeError> {
        let packet = PacketType::Publish;
        let mut properties = PropertyReader::of_packet(body, packet)?;
        if subscription_ids.is_some() {
            properties = properties.allow_many_subscriptions();
        }
        let (mut alias, mut expiry) = (None, None);
        let mut forwarded = Gathered::from(&properties);
        while let Some(found) = properties.next()? {
            match found.id {
                PropertyId::TopicAlias => alias = Some(found.value.short()),
                PropertyId::MessageExpiryInterval => expiry = Some(found.value.number()),
                PropertyId::SubscriptionIdentifier => match &mut subscription_ids {
                    Some(ids) => ids.push(found.value.number()),
                    None => {
                        let property = found.id;
                        return Err(DecodeError::PropertyFromWrongSide { property, packet });
                    }
                },
                PropertyId::ResponseTopic => {
                    check_response_topic(found.value.text())?;
                    forwarded.keep(&found);
                }
                _ => forwarded.keep(&found),
            }
        }
        Ok(Self { alias, expiry, forwarded: forwarded.finish() })
    }
}

impl<'a> Delivery<'a> {
    /// Decodes what a server sends.
    pub(crate) fn decode(
        flags: u8,
        body: &mut Reader<'a>,
        version: Version,
    ) -> Result<Self, DecodeError> {
        let mut subscription_ids = SmallVec::new();
        let publish = Publish::from(flags, body, version, Some(&mut subscription_ids))?;
        Ok(Self { publish, subscription_ids })
    }
}

/// A PUBLISH to be encoded. What 3.1.1 does not have is left out for that version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing<'a> {
    /// The topic name; empty when `alias` stands for it.
    pub topic: &'a str,
    /// Stands for the topic name, or will from now on.
    pub alias: Option<u16>,
    /// Needed when the QoS is above 0, ignored when it is 0 [v5 MQTT-2.2.1-2].
    pub packet_id: Option<PacketId>,
    /// How surely it arrives.
    pub qos: QoS,
    /// Sent before; ignored when the QoS is 0 [v5 MQTT-3.3.1-2].
    pub dup: bool,
    /// Was kept, or is to be.
    pub retain: bool,
    /// Encoded properties, as [`Publish::properties`] has them.
    pub properties: &'a [u8],
    /// What is left of the message expiry interval, in seconds.
    pub expiry: Option<u32>,
    /// The identifiers of the subscriptions that matched.
    pub subscription_ids: &'a [u32],
    /// The application's bytes.
    pub payload: &'a [u8],
}

impl<'a> Outgoing<'a> {
    /// A QoS 0 publication without any extras, for `..` to build on.
    pub const fn new(topic: &'a str, payload: &'a [u8]) -> Self {
        Self {
            topic,
            alias: None,
            packet_id: None,
            qos: QoS::AtMostOnce,
            dup: false,
            retain: false,
            properties: &[],
            expiry: None,
            subscription_ids: &[],
            payload,
        }
    }

    fn first_byte(&self) -> u8 {
        let dup = u8::from(self.dup && self.qos != QoS::AtMostOnce);
        PacketType::Publish.first_byte() | dup << 3 | (self.qos as u8) << 1 | u8::from(self.retain)
    }

    /// The identifier to write: none for QoS 0 whatever the caller left in the field.
    fn written_id(&self) -> Option<PacketId> {
        debug_assert!(
            self.qos == QoS::AtMostOnce || self.packet_id.is_some(),
            "QoS above 0 needs a packet identifier"
        );
        self.packet_id.filter(|_| self.qos != QoS::AtMostOnce)
    }

    /// Bytes of properties, without their length prefix.
    fn properties_size(&self) -> usize {
        let ids: usize = self.subscription_ids.iter().map(|id| 1 + varint_len(*id as usize)).sum();
        let alias = if self.alias.is_some() { 3 } else { 0 };
        let expiry = if self.expiry.is_some() { 5 } else { 0 };
        alias + expiry + ids + self.properties.len()
    }

    /// The remaining length, and the size of the properties in it.
    fn sizes(&self, version: Version) -> (usize, usize) {
        let properties = self.properties_size();
        let counted = match version {
            Version::V311 => 0,
            Version::V5 => varint_len(properties) + properties,
        };
        let id = if self.written_id().is_some() { 2 } else { 0 };
        (2 + written_len(self.topic) + id + counted + self.payload.len(), properties)
    }
}

/// How many bytes [`encode_publish`] appends: what a client's Maximum Packet Size bounds. Without
/// one, [`crate::MAX_PACKET_SIZE`] does; a larger publication cannot be encoded.
pub fn publish_size(version: Version, publish: &Outgoing<'_>) -> usize {
    let (remaining, _) = publish.sizes(version);
    1 + varint_len(remaining) + remaining
}

/// Appends a PUBLISH.
pub fn encode_publish(version: Version, publish: &Outgoing<'_>, out: &mut Vec<u8>) {
    encode(version, publish, publish.payload, out);
}

/// Appends a PUBLISH up to its payload, which is counted and left for the caller to send.
pub fn encode_publish_head(version: Version, publish: &Outgoing<'_>, out: &mut Vec<u8>) {
    encode(version, publish, &[], out);
}

fn encode(version: Version, publish: &Outgoing<'_>, written: &[u8], out: &mut Vec<u8>) {
    let (remaining, properties) = publish.sizes(version);
    out.reserve(5 + remaining - publish.payload.len() + written.len());
    out.push(publish.first_byte());
    put_varint(out, remaining);
    put_string(out, publish.topic);
    if let Some(id) = publish.written_id() {
        put_u16(out, id.get());
    }
    if version == Version::V5 {
        put_varint(out, properties);
        put_publish_properties(publish, out);
    }
    out.extend_from_slice(written);
}

fn put_publish_properties(publish: &Outgoing<'_>, out: &mut Vec<u8>) {
    if let Some(alias) = publish.alias {
        out.push(PropertyId::TopicAlias as u8);
        put_u16(out, alias);
    }
    if let Some(expiry) = publish.expiry {
        out.push(PropertyId::MessageExpiryInterval as u8);
        put_u32(out, expiry);
    }
    for id in publish.subscription_ids {
        out.push(PropertyId::SubscriptionIdentifier as u8);
        put_varint(out, *id as usize);
    }
    out.extend_from_slice(publish.properties);
}
