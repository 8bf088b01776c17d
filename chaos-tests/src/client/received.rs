//! What came from the broker, owned.

use mqtt::{AckKind, MAX_PACKET_SIZE, PacketId, QoS, Reason, ServerPacket, Version};

use super::End;

/// A packet from the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the specification's own names")]
pub enum Received {
    ConnAck { session_present: bool, reason: Reason },
    Publish(Arrival),
    Ack { kind: AckKind, id: PacketId, reason: Reason },
    SubAck { id: PacketId, reasons: Vec<Reason> },
    UnsubAck { id: PacketId },
    PingResp,
    Disconnect(Reason),
    Auth,
}

/// A publication as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The topic name.
    pub topic: String,
    /// The application's bytes.
    pub payload: Vec<u8>,
    /// With what QoS it was delivered.
    pub qos: QoS,
    /// The broker has sent it before.
    pub dup: bool,
    /// It was kept.
    pub retain: bool,
    /// What is left of the message expiry interval, in seconds.
    pub interval: Option<u32>,
    /// Present when the QoS is above 0.
    pub id: Option<PacketId>,
}

impl Received {
    /// Takes a whole packet out of what was read, if there is one.
    pub fn take(bytes: &mut Vec<u8>, version: Version) -> Result<Option<Self>, End> {
        let malformed = |error| End::Fault(format!("malformed packet: {error}"));
        let Some(size) = mqtt::frame(bytes, MAX_PACKET_SIZE).map_err(malformed)? else {
            return Ok(None);
        };
        if bytes.len() < size {
            return Ok(None);
        }
        let received = Self::from(mqtt::decode_server(&bytes[..size], version).map_err(malformed)?);
        bytes.drain(..size);
        Ok(Some(received))
    }
}

impl From<ServerPacket<'_>> for Received {
    fn from(packet: ServerPacket<'_>) -> Self {
        let ack =
            |kind, ack: mqtt::Ack<'_>| Self::Ack { kind, id: ack.packet_id, reason: ack.reason };
        match packet {
            ServerPacket::ConnAck(it) => {
                Self::ConnAck { session_present: it.session_present, reason: it.reason }
            }
            ServerPacket::Publish(it) => Self::Publish(Arrival {
                topic: it.publish.topic.to_owned(),
                payload: it.publish.payload.to_vec(),
                qos: it.publish.qos,
                dup: it.publish.dup,
                retain: it.publish.retain,
                interval: it.publish.expiry,
                id: it.publish.packet_id,
            }),
            ServerPacket::PubAck(it) => ack(AckKind::PubAck, it),
            ServerPacket::PubRec(it) => ack(AckKind::PubRec, it),
            ServerPacket::PubRel(it) => ack(AckKind::PubRel, it),
            ServerPacket::PubComp(it) => ack(AckKind::PubComp, it),
            ServerPacket::SubAck(it) => {
                Self::SubAck { id: it.packet_id, reasons: it.reasons().collect() }
            }
            ServerPacket::UnsubAck(it) => Self::UnsubAck { id: it.packet_id },
            ServerPacket::PingResp => Self::PingResp,
            ServerPacket::Disconnect(it) => Self::Disconnect(it.reason),
            ServerPacket::Auth(_) => Self::Auth,
        }
    }
}
