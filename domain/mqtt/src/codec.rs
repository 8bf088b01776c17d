//! Bytes to packets: framing, and the table that says who decodes what.
//!
//! Every decoder takes one whole packet, borrows from it, and reads it to its last byte.

mod reader;
mod writer;

pub(crate) use reader::{Reader, check_response_topic};
pub(crate) use writer::*;

use crate::packet::*;
use crate::reason::Sender;
use crate::{Connect, ConnectError, DecodeError, Packet, PacketType, ServerPacket, Version};

/// The largest packet the protocol can express: five bytes of fixed header and the greatest
/// remaining length.
pub const MAX_PACKET_SIZE: u32 = 5 + MAX_VARINT;

/// The length of the first packet in `buf`, fixed header included, once that header is there.
///
/// The first byte is judged as soon as it arrives: its type and flags must exist. A packet of more
/// than `limit` bytes is refused before its body arrives.
pub fn frame(buf: &[u8], limit: u32) -> Result<Option<usize>, DecodeError> {
    let Some((&first, rest)) = buf.split_first() else {
        return Ok(None);
    };
    check_first_byte(first)?;
    let mut remaining = 0;
    for (i, &byte) in rest.iter().take(4).enumerate() {
        remaining |= u32::from(byte & 0x7F) << (7 * i);
        if byte & 0x80 == 0 {
            let size = remaining + i as u32 + 2;
            return if size > limit {
                Err(DecodeError::TooLarge { size, limit })
            } else {
                Ok(Some(size as usize))
            };
        }
    }
    if rest.len() >= 4 { Err(DecodeError::VarIntTooLong("remaining length")) } else { Ok(None) }
}

/// Refuses types and flags that no packet has, and tells the type.
fn check_first_byte(first: u8) -> Result<PacketType, DecodeError> {
    let packet = PacketType::of(first).ok_or(DecodeError::PacketTypeZero)?;
    let flags = first & 0x0F;
    match packet {
        PacketType::Publish if flags & 0b0110 == 0b0110 => Err(DecodeError::PublishQoS),
        PacketType::Publish if flags & 0b1110 == 0b1000 => Err(DecodeError::DuplicateQoS0),
        PacketType::Publish => Ok(packet),
        _ if flags == packet.fixed_flags() => Ok(packet),
        _ => Err(DecodeError::Flags { packet, flags }),
    }
}

/// Takes the fixed header off one whole packet: its type, its first byte, the rest.
fn open(packet: &[u8], version: Version) -> Result<(PacketType, u8, Reader<'_>), DecodeError> {
    let mut body = Reader::new(packet);
    let first = body.u8("fixed header")?;
    let kind = check_first_byte(first)?;
    let stated = body.remaining_length(version)? as usize;
    if stated != body.len() {
        return Err(DecodeError::Length { stated, actual: body.len() });
    }
    if kind == PacketType::Auth && version == Version::V311 {
        return Err(DecodeError::NotInV311(kind));
    }
    Ok((kind, first & 0x0F, body))
}

/// Decodes one whole packet that a client may send.
pub fn decode(packet: &[u8], version: Version) -> Result<Packet<'_>, DecodeError> {
    let (kind, flags, mut body) = open(packet, version)?;
    let body = &mut body;
    let decoded = match kind {
        PacketType::Publish => Packet::Publish(Publish::decode(flags, body, version)?),
        PacketType::PubAck => Packet::PubAck(Ack::decode(AckKind::PubAck, body, version)?),
        PacketType::PubRec => Packet::PubRec(Ack::decode(AckKind::PubRec, body, version)?),
        PacketType::PubRel => Packet::PubRel(Ack::decode(AckKind::PubRel, body, version)?),
        PacketType::PubComp => Packet::PubComp(Ack::decode(AckKind::PubComp, body, version)?),
        PacketType::Subscribe => Packet::Subscribe(Subscribe::decode(body, version)?),
        PacketType::Unsubscribe => Packet::Unsubscribe(Unsubscribe::decode(body, version)?),
        PacketType::PingReq => Packet::PingReq,
        PacketType::Disconnect => {
            Packet::Disconnect(Disconnect::decode(body, version, Sender::Client)?)
        }
        PacketType::Auth => Packet::Auth(Auth::decode(body, Sender::Client)?),
        PacketType::Connect => {
            Packet::Connect(Box::new(Connect::decode(body).map_err(|refused| refused.error)?))
        }
        PacketType::ConnAck | PacketType::SubAck | PacketType::UnsubAck | PacketType::PingResp => {
            return Err(DecodeError::Unexpected(kind));
        }
    };
    body.finish(kind)?;
    Ok(decoded)
}

/// Decodes the packet that opens a connection; it brings its own version.
pub fn decode_connect(packet: &[u8]) -> Result<Connect<'_>, ConnectError> {
    let unversioned = |error| ConnectError { version: None, error };
    // The version is not known yet: the laxer one opens the packet, the real one is asked later.
    let (kind, _, mut body) = open(packet, Version::V311).map_err(unversioned)?;
    if kind != PacketType::Connect {
        return Err(unversioned(DecodeError::Unexpected(kind)));
    }
    let connect = Connect::decode(&mut body)?;
    body.finish(kind)
        .and_then(|()| open(packet, connect.version))
        .map_err(|error| ConnectError { version: Some(connect.version), error })?;
    Ok(connect)
}

/// Decodes one whole packet that a server may send: the client's side of the codec.
pub fn decode_server(packet: &[u8], version: Version) -> Result<ServerPacket<'_>, DecodeError> {
    let (kind, flags, mut body) = open(packet, version)?;
    let body = &mut body;
    let decoded = match kind {
        PacketType::ConnAck => ServerPacket::ConnAck(Box::new(ConnAck::decode(body, version)?)),
        PacketType::Publish => ServerPacket::Publish(Delivery::decode(flags, body, version)?),
        PacketType::PubAck => ServerPacket::PubAck(Ack::decode(AckKind::PubAck, body, version)?),
        PacketType::PubRec => ServerPacket::PubRec(Ack::decode(AckKind::PubRec, body, version)?),
        PacketType::PubRel => ServerPacket::PubRel(Ack::decode(AckKind::PubRel, body, version)?),
        PacketType::PubComp => ServerPacket::PubComp(Ack::decode(AckKind::PubComp, body, version)?),
        PacketType::SubAck => ServerPacket::SubAck(SubAck::decode(body, version)?),
        PacketType::UnsubAck => ServerPacket::UnsubAck(UnsubAck::decode(body, version)?),
        PacketType::PingResp => ServerPacket::PingResp,
        PacketType::Disconnect => {
            ServerPacket::Disconnect(Disconnect::decode(body, version, Sender::Server)?)
        }
        PacketType::Auth => ServerPacket::Auth(Auth::decode(body, Sender::Server)?),
        PacketType::Connect
        | PacketType::Subscribe
        | PacketType::Unsubscribe
        | PacketType::PingReq => return Err(DecodeError::Unexpected(kind)),
    };
    body.finish(kind)?;
    Ok(decoded)
}
