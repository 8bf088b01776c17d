//! UNSUBSCRIBE: topic filters that are no longer wanted.

use crate::codec::{Reader, put_packet, put_properties, put_string, put_u16};
use crate::property::PropertyReader;
use crate::{DecodeError, PacketId, PacketType, Version};

/// A request to end subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// What UNSUBACK will repeat.
    pub packet_id: PacketId,
    /// Strings, checked when decoded.
    filters: &'a [u8],
}

impl<'a> Unsubscribe<'a> {
    pub(crate) fn decode(body: &mut Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let packet = PacketType::Unsubscribe;
        let packet_id = body.packet_id()?;
        if version == Version::V5 {
            // User properties, which say nothing to a broker; still they must be well formed.
            let mut properties = PropertyReader::of_packet(body, packet)?;
            while properties.next()?.is_some() {}
        }
        if body.is_empty() {
            return Err(DecodeError::NoFilters(packet));
        }
        let filters = body.all();
        let mut unchecked = Reader::new(filters);
        while !unchecked.is_empty() {
            unchecked.string("topic filter")?;
        }
        Ok(Self { packet_id, filters })
    }

    /// The topic filters in the order of the packet.
    pub fn filters(&self) -> UnsubscribeFilters<'a> {
        UnsubscribeFilters { rest: Reader::new(self.filters) }
    }
}

/// Iterates over the filters of an [`Unsubscribe`].
#[derive(Clone, Debug)]
pub struct UnsubscribeFilters<'a> {
    rest: Reader<'a>,
}

impl<'a> Iterator for UnsubscribeFilters<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.rest.string("topic filter").ok()
    }
}

/// Appends an UNSUBSCRIBE.
pub fn encode_unsubscribe(
    version: Version,
    packet_id: PacketId,
    filters: &[&str],
    out: &mut Vec<u8>,
) {
    put_packet(out, PacketType::Unsubscribe.first_byte(), |out| {
        put_u16(out, packet_id.get());
        put_properties(out, version, |_| {});
        for filter in filters {
            put_string(out, filter);
        }
    });
}
