//! CONNACK.

use super::*;
use crate::{ConnAck, PacketType, PropertyId, QoS, encode_connack};

#[test]
fn connacks_of_mqtt_3_survive_the_wire() {
    use Reason::*;
    for (text, present, reason) in [
        ("20 02 00 00", false, Success),
        ("20 02 01 00", true, Success),
        ("20 02 00 01", false, UnsupportedProtocolVersion),
        ("20 02 00 02", false, ClientIdentifierNotValid),
        ("20 02 00 03", false, ServerUnavailable),
        ("20 02 00 04", false, BadUserNameOrPassword),
        ("20 02 00 05", false, NotAuthorized),
    ] {
        let connack = ConnAck { session_present: present, ..ConnAck::new(reason) };
        assert_eq!(from_server(V311, text), Ok(ServerPacket::ConnAck(Box::new(connack))), "{text}");
        assert_eq!(encoded(|out| encode_connack(V311, &connack, out)), wire(text), "{text}");
    }
}

#[test]
fn connacks_of_mqtt_5_survive_the_wire() {
    let bare = ConnAck::new(Reason::Success);
    for (text, connack) in [
        ("20 03 00 00 00", bare),
        ("20 03 01 00 00", ConnAck { session_present: true, ..bare }),
        ("20 03 00 87 00", ConnAck::new(Reason::NotAuthorized)),
        ("20: 00 00 ( 24 00 )", ConnAck { maximum_qos: Some(QoS::AtMostOnce), ..bare }),
        (
            "20: 00 00 ( 11 00000e10 21 0064 24 01 25 01 27 00024800 12 s'id' 22 0008 1f s'ok' 28 01 29 00 2a 01 13 001e 1a s'r' 1c s's' 15 s'm' 16 0001 09 26 s'k' s'v' )",
            ConnAck {
                session_expiry: Some(3600),
                receive_maximum: Some(100),
                maximum_qos: Some(QoS::AtLeastOnce),
                retain_available: Some(true),
                maximum_packet_size: Some(149_504),
                assigned_client_id: Some("id"),
                topic_alias_maximum: Some(8),
                reason_string: Some("ok"),
                wildcard_available: Some(true),
                subscription_ids_available: Some(false),
                shared_available: Some(true),
                server_keep_alive: Some(30),
                response_information: Some("r"),
                server_reference: Some("s"),
                authentication_method: Some("m"),
                authentication_data: Some(b"\x09"),
                user_properties: wire("26 s'k' s'v'"),
                ..bare
            },
        ),
    ] {
        assert_eq!(encoded(|out| encode_connack(V5, &connack, out)), wire(text), "{text}");
        let decoded = ConnAck { user_properties: &[], ..connack };
        assert_eq!(from_server(V5, text), Ok(ServerPacket::ConnAck(Box::new(decoded))), "{text}");
    }
}

/// Properties of more than 127 bytes need a longer length, which is made room for afterwards.
#[test]
fn long_connacks_make_room_for_their_lengths() {
    for size in [100, 121, 122, 123, 124, 125, 126, 127, 128, 129, 16_380, 16_381, 16_390, 65_535] {
        let reason_string = "x".repeat(size);
        let connack =
            ConnAck { reason_string: Some(&reason_string), ..ConnAck::new(Reason::Banned) };
        let text = format!("20: 00 8a ( 1f {:04x} '{reason_string}' )", size);
        let out = encoded(|out| encode_connack(V5, &connack, out));
        assert_eq!(out, wire(&text), "{size}");
        assert_eq!(decode_server(&out, V5), Ok(ServerPacket::ConnAck(Box::new(connack))));
    }
}

/// [v3 MQTT-3.2.2-4, v5 MQTT-3.2.2-6]
#[test]
fn a_refusal_never_claims_a_session() {
    let connack = ConnAck { session_present: true, ..ConnAck::new(Reason::NotAuthorized) };
    assert_eq!(encoded(|out| encode_connack(V311, &connack, out)), wire("20 02 00 05"));
    assert_eq!(encoded(|out| encode_connack(V5, &connack, out)), wire("20 03 00 87 00"));
}

/// [v5 3.2.2.3.4]: the property has no way to say 2.
#[test]
fn qos_2_is_said_by_silence() {
    let connack = ConnAck { maximum_qos: Some(QoS::ExactlyOnce), ..ConnAck::new(Reason::Success) };
    assert_eq!(encoded(|out| encode_connack(V5, &connack, out)), wire("20 03 00 00 00"));
}

#[test]
fn connacks_are_strict() {
    let packet = PacketType::ConnAck;
    let code = |code| DecodeError::ReasonCode { packet, code };
    let repeated = DecodeError::RepeatedProperty(PropertyId::ServerKeepAlive);
    refused_from_server(
        V311,
        &[
            ("20 00", DecodeError::Truncated("acknowledge flags")),
            ("20 01 00", DecodeError::Truncated("return code")),
            ("20 02 02 00", DecodeError::ConnAckFlags(2)),
            ("20 02 00 06", code(6)),
            ("20 02 01 05", DecodeError::SessionPresent),
            ("20 03 00 00 00", DecodeError::Trailing { packet, bytes: 1 }),
            ("22 02 00 00", DecodeError::Flags { packet, flags: 2 }),
        ],
    );
    refused_from_server(
        V5,
        &[
            ("20: 80 00 00", DecodeError::ConnAckFlags(0x80)),
            ("20: 00 01 00", code(1)),
            ("20: 00 8b 00", code(0x8b)),
            ("20: 00 03 00", code(3)),
            ("20: 01 80 00", DecodeError::SessionPresent),
            ("20: 00 00", DecodeError::Truncated("property length")),
            ("20: 00 00 ( 13 0001 13 0001 )", repeated),
            (
                "20: 00 00 ( 24 02 )",
                DecodeError::PropertyValue { property: PropertyId::MaximumQoS, value: 2 },
            ),
            (
                "20: 00 00 ( 21 0000 )",
                DecodeError::PropertyValue { property: PropertyId::ReceiveMaximum, value: 0 },
            ),
            (
                "20: 00 00 ( 17 01 )",
                DecodeError::PropertyNotAllowed {
                    property: PropertyId::RequestProblemInformation,
                    packet,
                },
            ),
        ],
    );
}
