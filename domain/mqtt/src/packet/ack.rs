//! PUBACK, PUBREC, PUBREL and PUBCOMP, which share one shape.

use crate::codec::{Reader, put_packet, put_properties, put_u16};
use crate::property::PropertyReader;
use crate::reason::Sender;
use crate::{DecodeError, PacketId, PacketType, PropertyId, Reason, Version};

/// Which of the four acknowledgements a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the specification's own names")]
pub enum AckKind {
    PubAck,
    PubRec,
    PubRel,
    PubComp,
}

impl From<AckKind> for PacketType {
    fn from(kind: AckKind) -> Self {
        match kind {
            AckKind::PubAck => Self::PubAck,
            AckKind::PubRec => Self::PubRec,
            AckKind::PubRel => Self::PubRel,
            AckKind::PubComp => Self::PubComp,
        }
    }
}

/// The content of an acknowledgement. In 3.1.1 the reason is always success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// The exchange it belongs to.
    pub packet_id: PacketId,
    /// What came of the packet it answers.
    pub reason: Reason,
    /// The reason in words, for people.
    pub reason_string: Option<&'a str>,
}

impl<'a> Ack<'a> {
    pub(crate) fn decode(
        kind: AckKind,
        body: &mut Reader<'a>,
        version: Version,
    ) -> Result<Self, DecodeError> {
        let packet = PacketType::from(kind);
        let packet_id = body.packet_id()?;
        let mut ack = Self { packet_id, reason: Reason::Success, reason_string: None };
        if version == Version::V311 || body.is_empty() {
            return Ok(ack);
        }
        // Either side may send any of the four, and the codes are the same for both.
        ack.reason = body.reason(packet, Sender::Client)?;
        if body.is_empty() {
            return Ok(ack);
        }
        let mut properties = PropertyReader::of_packet(body, packet)?;
        while let Some(found) = properties.next()? {
            if found.id == PropertyId::ReasonString {
                ack.reason_string = Some(found.value.text());
            }
        }
        Ok(ack)
    }
}

/// Appends an acknowledgement in its shortest form.
#[inline]
pub fn encode_ack(
    version: Version,
    kind: AckKind,
    packet_id: PacketId,
    reason: Reason,
    reason_string: Option<&str>,
    out: &mut Vec<u8>,
) {
    let first_byte = PacketType::from(kind).first_byte();
    let [high, low] = packet_id.get().to_be_bytes();
    if version == Version::V311 || reason == Reason::Success && reason_string.is_none() {
        out.extend_from_slice(&[first_byte, 2, high, low]);
    } else if reason_string.is_none() {
        out.extend_from_slice(&[first_byte, 3, high, low, reason.code()]);
    } else {
        encode_with_reason(version, first_byte, (packet_id, reason, reason_string), out);
    }
}

/// Seldom, and apart so that the common forms are written where they are asked for.
#[cold]
fn encode_with_reason(
    version: Version,
    first_byte: u8,
    (packet_id, reason, reason_string): (PacketId, Reason, Option<&str>),
    out: &mut Vec<u8>,
) {
    put_packet(out, first_byte, |out| {
        put_u16(out, packet_id.get());
        out.push(reason.code());
        put_properties(out, version, |p| p.text(PropertyId::ReasonString, reason_string));
    });
}
