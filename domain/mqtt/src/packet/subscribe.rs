//! SUBSCRIBE: topic filters and how each wants to be served.

use crate::codec::{Reader, put_packet, put_properties, put_string, put_u16};
use crate::property::PropertyReader;
use crate::{DecodeError, PacketId, PacketType, PropertyId, QoS, Version};

/// When retained publications are sent for a subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RetainHandling {
    /// On every SUBSCRIBE.
    #[default]
    OnSubscribe = 0,
    /// Only when the subscription did not exist before.
    OnNewSubscription = 1,
    /// Never.
    Never = 2,
}

/// How one topic filter wants to be served. In 3.1.1 there is only the QoS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SubscribeOptions {
    /// The highest QoS to send with.
    pub qos: QoS,
    /// Leave out what this client publishes itself.
    pub no_local: bool,
    /// Keep the RETAIN flag as the publisher set it.
    pub retain_as_published: bool,
    /// When to send retained publications.
    pub retain_handling: RetainHandling,
}

impl SubscribeOptions {
    /// Options that are no more than a QoS.
    pub const fn at(qos: QoS) -> Self {
        Self {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::OnSubscribe,
        }
    }

    /// The option byte, as in SUBSCRIBE of `version`; also good for keeping options compactly.
    pub const fn to_byte(self, version: Version) -> u8 {
        match version {
            Version::V311 => self.qos as u8,
            Version::V5 => {
                self.qos as u8
                    | (self.no_local as u8) << 2
                    | (self.retain_as_published as u8) << 3
                    | (self.retain_handling as u8) << 4
            }
        }
    }

    /// Reads an option byte of `version`.
    pub fn from_byte(byte: u8, version: Version) -> Result<Self, DecodeError> {
        let reserved = match version {
            Version::V311 => 0b1111_1100,
            Version::V5 => 0b1100_0000,
        };
        if byte & reserved != 0 {
            return Err(DecodeError::SubscriptionOptions(byte));
        }
        let qos = QoS::try_from(byte & 0b11).map_err(|_| DecodeError::SubscriptionQoS(byte))?;
        let retain_handling = match byte >> 4 {
            0 => RetainHandling::OnSubscribe,
            1 => RetainHandling::OnNewSubscription,
            2 => RetainHandling::Never,
            _ => return Err(DecodeError::RetainHandling(byte)),
        };
        Ok(Self {
            qos,
            no_local: byte & 0b0100 != 0,
            retain_as_published: byte & 0b1000 != 0,
            retain_handling,
        })
    }
}

/// A request for subscriptions. Filters are UTF-8 with valid options; whether a filter is a valid
/// topic filter is for the crate `topic` to say, one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// What SUBACK will repeat.
    pub packet_id: PacketId,
    /// To be sent along with every publication these subscriptions match.
    pub subscription_id: Option<u32>,
    /// Filters and option bytes, checked when decoded.
    filters: &'a [u8],
    version: Version,
}

impl<'a> Subscribe<'a> {
    pub(crate) fn decode(body: &mut Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let packet = PacketType::Subscribe;
        let packet_id = body.packet_id()?;
        let mut subscription_id = None;
        if version == Version::V5 {
            let mut properties = PropertyReader::of_packet(body, packet)?;
            while let Some(found) = properties.next()? {
                if found.id == PropertyId::SubscriptionIdentifier {
                    subscription_id = Some(found.value.number());
                }
            }
        }
        if body.is_empty() {
            return Err(DecodeError::NoFilters(packet));
        }
        let filters = body.all();
        let mut unchecked = Reader::new(filters);
        while !unchecked.is_empty() {
            next(&mut unchecked, version)?;
        }
        Ok(Self { packet_id, subscription_id, filters, version })
    }

    /// The topic filters in the order of the packet, each with its options.
    pub fn filters(&self) -> Filters<'a> {
        Filters { rest: Reader::new(self.filters), version: self.version }
    }
}

/// Iterates over the filters of a [`Subscribe`].
#[derive(Clone, Debug)]
pub struct Filters<'a> {
    rest: Reader<'a>,
    version: Version,
}

impl<'a> Iterator for Filters<'a> {
    type Item = (&'a str, SubscribeOptions);

    fn next(&mut self) -> Option<Self::Item> {
        // Decoding has walked the same bytes, so an error here only means the end.
        next(&mut self.rest, self.version).ok()
    }
}

fn next<'a>(
    rest: &mut Reader<'a>,
    version: Version,
) -> Result<(&'a str, SubscribeOptions), DecodeError> {
    let filter = rest.string("topic filter")?;
    let options = SubscribeOptions::from_byte(rest.u8("subscription options")?, version)?;
    if options.no_local && filter.starts_with("$share/") {
        return Err(DecodeError::NoLocalShared);
    }
    Ok((filter, options))
}

/// Appends a SUBSCRIBE.
pub fn encode_subscribe(
    version: Version,
    packet_id: PacketId,
    subscription_id: Option<u32>,
    filters: &[(&str, SubscribeOptions)],
    out: &mut Vec<u8>,
) {
    put_packet(out, PacketType::Subscribe.first_byte(), |out| {
        put_u16(out, packet_id.get());
        put_properties(out, version, |p| {
            p.varint(PropertyId::SubscriptionIdentifier, subscription_id);
        });
        for (filter, options) in filters {
            put_string(out, filter);
            out.push(options.to_byte(version));
        }
    });
}
