//! Fuzzes the codec: no input panics, and what decodes is encoded and decoded again to the same.

#[path = "../../fuzz.rs"]
mod fuzz;

use mqtt::{
    Ack, AckKind, ConnAck, DecodeError, Outgoing, Packet, Publish, ServerPacket, Version, decode,
    decode_connect, decode_server, encode_ack, encode_auth, encode_connack, encode_connect,
    encode_disconnect, encode_pingreq, encode_pingresp, encode_publish, encode_suback,
    encode_subscribe, encode_unsuback, encode_unsubscribe, frame, properties, publish_size,
};

macro_rules! corpus {
    ($target:literal) => {
        concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/", $target)
    };
}

/// One packet of every kind and version, for mutation to start from.
const SEEDS: &[&[u8]] = &[
    b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01c",
    b"\x10\x1d\0\x04MQTT\x04\xee\0\x3c\0\x01c\0\x03w/x\0\x03bye\0\x01u\0\x01p",
    b"\x10\x36\0\x04MQTT\x05\xee\0\x3c\x0d\x11\0\0\0\x0a\x21\0\x64\x26\0\x00\0\x00\0\x01c\x0a\x18\0\0\0\x05\x02\0\0\0\x09\0\x03w/x\0\x03bye\0\x01u\0\x01p",
    b"\x20\x02\x01\x00",
    b"\x20\x0b\x00\x00\x08\x21\0\x64\x13\0\x1e\x24\x01",
    b"\x30\x07\0\x03a/bhi",
    b"\x32\x09\0\x03a/b\0\x07hi",
    b"\x35\x1b\0\x03a/b\0\x07\x11\x23\0\x01\x02\0\0\0\x09\x01\x01\x26\0\x01k\0\x01vhi",
    b"\x30\x0c\0\x03a/b\x04\x0b\x01\x0b\x02hi",
    b"\x40\x02\0\x07",
    b"\x50\x03\0\x07\x87",
    b"\x62\x07\0\x07\x92\x03\x1f\0\0",
    b"\x70\x02\0\x07",
    b"\x82\x08\0\x01\0\x03a/b\x01",
    b"\x82\x0b\0\x01\x02\x0b\x05\0\x03a/b\x2e",
    b"\x90\x03\0\x01\x01",
    b"\x90\x05\0\x01\0\x01\x87",
    b"\xa2\x07\0\x01\0\x03a/b",
    b"\xa2\x08\0\x01\0\0\x03a/b",
    b"\xb0\x02\0\x01",
    b"\xb0\x05\0\x01\0\0\x11",
    b"\xc0\0",
    b"\xd0\0",
    b"\xe0\0",
    b"\xe0\x0b\x04\x09\x11\0\0\0\x05\x1f\0\x01x",
    b"\xf0\x0a\x18\x08\x15\0\x01m\x16\0\x01d",
];

/// Mutations rarely keep the remaining length right, so it is made right.
fn mended(input: &[u8]) -> Vec<u8> {
    let Some((&first, rest)) = input.split_first() else { return Vec::new() };
    let header =
        rest.iter().take(4).position(|byte| byte & 0x80 == 0).map_or(rest.len(), |at| at + 1);
    let body = &rest[header.min(rest.len())..];
    let mut packet = vec![first];
    let mut length = body.len();
    while length > 0x7f {
        packet.push(length as u8 | 0x80);
        length >>= 7;
    }
    packet.push(length as u8);
    packet.extend_from_slice(body);
    packet
}

fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out);
    out
}

fn put_ack(version: Version, kind: AckKind, ack: &Ack<'_>, out: &mut Vec<u8>) {
    encode_ack(version, kind, ack.packet_id, ack.reason, ack.reason_string, out);
}

fn put_publish(
    version: Version,
    publish: &Publish<'_>,
    subscription_ids: &[u32],
    out: &mut Vec<u8>,
) {
    assert!(properties::is_valid(&publish.properties), "unreadable properties");
    let outgoing = Outgoing {
        topic: publish.topic,
        alias: publish.alias,
        packet_id: publish.packet_id,
        qos: publish.qos,
        dup: publish.dup,
        retain: publish.retain,
        properties: &publish.properties,
        expiry: publish.expiry,
        subscription_ids,
        payload: publish.payload,
    };
    encode_publish(version, &outgoing, out);
    assert_eq!(out.len(), publish_size(version, &outgoing));
}

fn put_client_packet(version: Version, packet: &Packet<'_>, out: &mut Vec<u8>) {
    match packet {
        Packet::Publish(publish) => put_publish(version, publish, &[], out),
        Packet::PubAck(ack) => put_ack(version, AckKind::PubAck, ack, out),
        Packet::PubRec(ack) => put_ack(version, AckKind::PubRec, ack, out),
        Packet::PubRel(ack) => put_ack(version, AckKind::PubRel, ack, out),
        Packet::PubComp(ack) => put_ack(version, AckKind::PubComp, ack, out),
        Packet::Subscribe(s) => {
            let filters: Vec<_> = s.filters().collect();
            encode_subscribe(version, s.packet_id, s.subscription_id, &filters, out);
        }
        Packet::Unsubscribe(u) => {
            let filters: Vec<_> = u.filters().collect();
            encode_unsubscribe(version, u.packet_id, &filters, out);
        }
        Packet::PingReq => encode_pingreq(out),
        Packet::Disconnect(disconnect) => encode_disconnect(version, disconnect, out),
        Packet::Auth(auth) => encode_auth(auth, out),
        Packet::Connect(connect) => encode_connect(connect, out),
    }
}

fn put_server_packet(version: Version, packet: &ServerPacket<'_>, out: &mut Vec<u8>) {
    match packet {
        ServerPacket::ConnAck(connack) => encode_connack(version, connack, out),
        ServerPacket::Publish(delivery) => {
            put_publish(version, &delivery.publish, &delivery.subscription_ids, out);
        }
        ServerPacket::PubAck(ack) => put_ack(version, AckKind::PubAck, ack, out),
        ServerPacket::PubRec(ack) => put_ack(version, AckKind::PubRec, ack, out),
        ServerPacket::PubRel(ack) => put_ack(version, AckKind::PubRel, ack, out),
        ServerPacket::PubComp(ack) => put_ack(version, AckKind::PubComp, ack, out),
        ServerPacket::SubAck(ack) => {
            let reasons: Vec<_> = ack.reasons().collect();
            encode_suback(version, ack.packet_id, &reasons, ack.reason_string, out);
        }
        ServerPacket::UnsubAck(ack) => {
            let reasons: Vec<_> = ack.reasons().collect();
            encode_unsuback(version, ack.packet_id, &reasons, ack.reason_string, out);
        }
        ServerPacket::PingResp => encode_pingresp(out),
        ServerPacket::Disconnect(disconnect) => encode_disconnect(version, disconnect, out),
        ServerPacket::Auth(auth) => encode_auth(auth, out),
    }
}

fn client_packets(version: Version, input: &[u8]) {
    let Ok(packet) = decode(input, version) else { return };
    let once = encoded(|out| put_client_packet(version, &packet, out));
    assert_eq!(frame(&once, u32::MAX), Ok(Some(once.len())), "{packet:?}");
    assert_eq!(decode(&once, version).as_ref(), Ok(&packet), "encoded as {once:02x?}");
}

fn server_packets(version: Version, input: &[u8]) {
    let Ok(packet) = decode_server(input, version) else { return };
    let once = encoded(|out| put_server_packet(version, &packet, out));
    assert_eq!(frame(&once, u32::MAX), Ok(Some(once.len())), "{packet:?}");
    assert_eq!(decode_server(&once, version).as_ref(), Ok(&packet), "encoded as {once:02x?}");
}

fn connects(input: &[u8]) {
    match decode_connect(input) {
        Ok(connect) => {
            let once = encoded(|out| encode_connect(&connect, out));
            assert_eq!(decode_connect(&once).as_ref(), Ok(&connect), "encoded as {once:02x?}");
        }
        // An answer to a refused client is itself a packet that the client understands.
        Err(refusal) => {
            let Some((version, reason)) = refusal.answer() else { return };
            let connack = ConnAck::new(reason);
            let out = encoded(|out| encode_connack(version, &connack, out));
            assert!(decode_server(&out, version).is_ok(), "{refusal}");
        }
    }
}

/// More bytes never change what fewer bytes have said, and what is framed is decoded by its length.
fn frames(input: &[u8]) {
    let limit = 1000;
    let whole = frame(input, limit);
    for end in 0..input.len().min(8) {
        match frame(&input[..end], limit) {
            Ok(None) => {}
            early => assert_eq!(early, whole, "after {end} bytes"),
        }
    }
    if let Ok(Some(length)) = whole {
        assert!(length >= 2 && length <= limit as usize);
        for version in [Version::V311, Version::V5] {
            if let Some(packet) = input.get(..length) {
                let wrong_length =
                    matches!(decode(packet, version), Err(DecodeError::Length { .. }));
                assert!(!wrong_length, "framed and refused for its length");
            }
        }
    }
}

#[test]
fn packets_of_clients_of_mqtt_3() {
    fuzz::run("client_v3", corpus!("client_v3"), SEEDS, |input| {
        client_packets(Version::V311, input);
        client_packets(Version::V311, &mended(input));
    });
}

#[test]
fn packets_of_clients_of_mqtt_5() {
    fuzz::run("client_v5", corpus!("client_v5"), SEEDS, |input| {
        client_packets(Version::V5, input);
        client_packets(Version::V5, &mended(input));
    });
}

#[test]
fn packets_of_servers() {
    fuzz::run("server", corpus!("server"), SEEDS, |input| {
        for version in [Version::V311, Version::V5] {
            server_packets(version, input);
            server_packets(version, &mended(input));
        }
    });
}

#[test]
fn first_packets() {
    fuzz::run("connect", corpus!("connect"), SEEDS, |input| {
        connects(input);
        connects(&mended(input));
    });
}

#[test]
fn framing() {
    fuzz::run("frame", corpus!("frame"), SEEDS, frames);
}

/// The seeds are what they claim to be; mutating nonsense finds nothing.
#[test]
fn seeds_are_packets() {
    for seed in SEEDS {
        let known = [Version::V311, Version::V5]
            .iter()
            .any(|version| decode(seed, *version).is_ok() || decode_server(seed, *version).is_ok());
        assert!(known, "{seed:02x?}");
    }
}
