//! SUBACK and UNSUBACK: one code per topic filter.

use crate::codec::{Reader, put_packet, put_properties, put_u16};
use crate::property::PropertyReader;
use crate::reason::Sender;
use crate::{DecodeError, PacketId, PacketType, PropertyId, Reason, Version};

/// What came of a SUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// Of the SUBSCRIBE it answers.
    pub packet_id: PacketId,
    /// The codes in words, for people.
    pub reason_string: Option<&'a str>,
    codes: &'a [u8],
}

/// What came of an UNSUBSCRIBE; in 3.1.1 there are no codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsubAck<'a> {
    /// Of the UNSUBSCRIBE it answers.
    pub packet_id: PacketId,
    /// The codes in words, for people.
    pub reason_string: Option<&'a str>,
    codes: &'a [u8],
}

/// Iterates over the codes of a [`SubAck`] or [`UnsubAck`].
#[derive(Clone, Debug)]
pub struct Codes<'a>(std::slice::Iter<'a, u8>);

impl Iterator for Codes<'_> {
    type Item = Reason;

    fn next(&mut self) -> Option<Reason> {
        // Checked when decoded.
        Reason::try_from(*self.0.next()?).ok()
    }
}

impl<'a> SubAck<'a> {
    /// One per topic filter, in the order of the SUBSCRIBE.
    pub fn reasons(&self) -> Codes<'a> {
        Codes(self.codes.iter())
    }

    pub(crate) fn decode(body: &mut Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let packet = PacketType::SubAck;
        let packet_id = body.packet_id()?;
        let reason_string = reason_string(body, packet, version)?;
        let codes = codes(body, packet)?;
        if version == Version::V311
            && let Some(&code) = codes.iter().find(|code| !matches!(code, 0..=2 | 0x80))
        {
            return Err(DecodeError::ReasonCode { packet, code });
        }
        Ok(Self { packet_id, reason_string, codes })
    }
}

impl<'a> UnsubAck<'a> {
    /// One per topic filter, in the order of the UNSUBSCRIBE.
    pub fn reasons(&self) -> Codes<'a> {
        Codes(self.codes.iter())
    }

    pub(crate) fn decode(body: &mut Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let packet = PacketType::UnsubAck;
        let packet_id = body.packet_id()?;
        let reason_string = reason_string(body, packet, version)?;
        let codes = match version {
            Version::V311 => &[][..],
            Version::V5 => codes(body, packet)?,
        };
        Ok(Self { packet_id, reason_string, codes })
    }
}

fn reason_string<'a>(
    body: &mut Reader<'a>,
    packet: PacketType,
    version: Version,
) -> Result<Option<&'a str>, DecodeError> {
    let mut reason_string = None;
    if version == Version::V5 {
        let mut properties = PropertyReader::of_packet(body, packet)?;
        while let Some(found) = properties.next()? {
            if found.id == PropertyId::ReasonString {
                reason_string = Some(found.value.text());
            }
        }
    }
    Ok(reason_string)
}

fn codes<'a>(body: &mut Reader<'a>, packet: PacketType) -> Result<&'a [u8], DecodeError> {
    let codes = body.all();
    let mut unchecked = Reader::new(codes);
    if unchecked.is_empty() {
        return Err(DecodeError::NoCodes);
    }
    while !unchecked.is_empty() {
        unchecked.reason(packet, Sender::Server)?;
    }
    Ok(codes)
}

/// Appends a SUBACK. 3.1.1 knows a single code for every refusal.
pub fn encode_suback(
    version: Version,
    packet_id: PacketId,
    reasons: &[Reason],
    reason_string: Option<&str>,
    out: &mut Vec<u8>,
) {
    put_packet(out, PacketType::SubAck.first_byte(), |out| {
        put_u16(out, packet_id.get());
        put_properties(out, version, |p| p.text(PropertyId::ReasonString, reason_string));
        out.extend(reasons.iter().map(|reason| match version {
            Version::V311 if reason.is_error() => Reason::UnspecifiedError.code(),
            _ => reason.code(),
        }));
    });
}

/// Appends an UNSUBACK; in 3.1.1 it carries no codes.
pub fn encode_unsuback(
    version: Version,
    packet_id: PacketId,
    reasons: &[Reason],
    reason_string: Option<&str>,
    out: &mut Vec<u8>,
) {
    put_packet(out, PacketType::UnsubAck.first_byte(), |out| {
        put_u16(out, packet_id.get());
        put_properties(out, version, |p| p.text(PropertyId::ReasonString, reason_string));
        if version == Version::V5 {
            out.extend(reasons.iter().map(|reason| reason.code()));
        }
    });
}
