//! PUBACK, PUBREC, PUBREL, PUBCOMP, DISCONNECT and AUTH.

use super::*;
use crate::{
    Ack, AckKind, Auth, Disconnect, PacketType, PropertyId, encode_ack, encode_auth,
    encode_disconnect,
};

const KINDS: [(AckKind, &str); 4] = [
    (AckKind::PubAck, "40"),
    (AckKind::PubRec, "50"),
    (AckKind::PubRel, "62"),
    (AckKind::PubComp, "70"),
];

fn client_packet(kind: AckKind, ack: Ack<'_>) -> Packet<'_> {
    match kind {
        AckKind::PubAck => Packet::PubAck(ack),
        AckKind::PubRec => Packet::PubRec(ack),
        AckKind::PubRel => Packet::PubRel(ack),
        AckKind::PubComp => Packet::PubComp(ack),
    }
}

fn server_packet(kind: AckKind, ack: Ack<'_>) -> ServerPacket<'_> {
    match kind {
        AckKind::PubAck => ServerPacket::PubAck(ack),
        AckKind::PubRec => ServerPacket::PubRec(ack),
        AckKind::PubRel => ServerPacket::PubRel(ack),
        AckKind::PubComp => ServerPacket::PubComp(ack),
    }
}

/// [v5 3.4.2.1, 3.5.2.1, 3.6.2.1, 3.7.2.1]: a success needs no reason, a bare reason no properties.
#[test]
fn acknowledgements_survive_the_wire() {
    for (kind, first) in KINDS {
        let ack = Ack { packet_id: id(7), reason: Reason::Success, reason_string: None };
        let refusal = Reason::PacketIdentifierNotFound;
        let refusal = if matches!(kind, AckKind::PubRel | AckKind::PubComp) {
            refusal
        } else {
            Reason::NotAuthorized
        };
        let code = refusal.code();
        for (version, text, ack, shortest) in [
            (V311, format!("{first} 02 0007"), ack, true),
            (V5, format!("{first} 02 0007"), ack, true),
            (V5, format!("{first} 03 0007 00"), ack, false),
            (V5, format!("{first} 04 0007 00 00"), ack, false),
            (V5, format!("{first}: 0007 00 ( 26 s'k' s'v' 26 s'k' s'v' )"), ack, false),
            (V5, format!("{first} 03 0007 {code:02x}"), Ack { reason: refusal, ..ack }, true),
            (
                V5,
                format!("{first} 08 0007 {code:02x} 04 1f 0001 78"),
                Ack { reason: refusal, reason_string: Some("x"), ..ack },
                true,
            ),
            (
                V5,
                format!("{first}: 0007 00 ( 1f s'ok' )"),
                Ack { reason_string: Some("ok"), ..ack },
                true,
            ),
        ] {
            assert_eq!(from_client(version, &text), Ok(client_packet(kind, ack)), "{text}");
            assert_eq!(from_server(version, &text), Ok(server_packet(kind, ack)), "{text}");
            if shortest {
                let Ack { packet_id, reason, reason_string } = ack;
                let out =
                    encoded(|out| encode_ack(version, kind, packet_id, reason, reason_string, out));
                assert_eq!(out, wire(&text), "{text}");
            }
        }
    }
}

#[test]
fn mqtt_3_acknowledges_without_a_reason() {
    let out = encoded(|out| {
        encode_ack(V311, AckKind::PubAck, id(7), Reason::NotAuthorized, Some("no"), out);
    });
    assert_eq!(out, wire("40 02 0007"));
}

/// [v5 MQTT-3.4.2-1, MQTT-3.5.2-1, MQTT-3.6.2-1, MQTT-3.7.2-1; v3 sections 3.4 to 3.7]
#[test]
fn acknowledgements_are_strict() {
    let malformed = Reason::MalformedPacket;
    for (kind, first) in KINDS {
        let packet = PacketType::from(kind);
        let foreign =
            DecodeError::PropertyNotAllowed { property: PropertyId::ServerReference, packet };
        let repeated = DecodeError::RepeatedProperty(PropertyId::ReasonString);
        let reason = |code| DecodeError::ReasonCode { packet, code };
        let text = |rest: &str| format!("{first}: {rest}");
        for version in BOTH {
            let cut = DecodeError::Truncated("packet identifier");
            refused_from_client(version, &[(&text(""), cut, malformed)]);
            refused_from_client(version, &[(&text("00"), cut, malformed)]);
            let zero = DecodeError::PacketIdZero;
            refused_from_client(version, &[(&text("0000"), zero, Reason::ProtocolError)]);
        }
        let trailing = DecodeError::Trailing { packet, bytes: 1 };
        for (version, rest, error) in [
            (V311, "0001 00", trailing),
            (V5, "0001 00 00 00", trailing),
            (V5, "0001 01", reason(0x01)),
            (V5, "0001 81", reason(0x81)),
            (V5, "0001 ff", reason(0xff)),
            (V5, "0001 00 01", DecodeError::Truncated("properties")),
            (V5, "0001 00 80", DecodeError::Truncated("property length")),
            (V5, "0001 00 ( 1c s'x' )", foreign),
            (V5, "0001 00 ( 1f s'x' 1f s'x' )", repeated),
            (V5, "0001 00 ( 1f 0001 ff )", DecodeError::Utf8("property value")),
        ] {
            refused_from_client(version, &[(&text(rest), error, error.reason())]);
            refused_from_server(version, &[(&text(rest), error)]);
        }
        assert_eq!(reason(0xff).reason(), Reason::ProtocolError);
    }
    // Flags of PUBREL [v3 MQTT-3.6.1-1, v5 MQTT-3.6.1-1].
    for (text, packet, flags) in [
        ("60: 0001", PacketType::PubRel, 0),
        ("63: 0001", PacketType::PubRel, 3),
        ("42: 0001", PacketType::PubAck, 2),
        ("51: 0001", PacketType::PubRec, 1),
        ("78: 0001", PacketType::PubComp, 8),
    ] {
        for version in BOTH {
            refused_from_client(
                version,
                &[(text, DecodeError::Flags { packet, flags }, malformed)],
            );
        }
    }
}

/// [v5 3.14.2.1]: less than two bytes stand for the defaults.
#[test]
fn disconnects_survive_the_wire() {
    use Reason::*;
    for (version, text, disconnect, shortest) in [
        (V311, "e0 00", Disconnect::new(Success), true),
        (V5, "e0 00", Disconnect::new(Success), true),
        (V5, "e0 01 00", Disconnect::new(Success), false),
        (V5, "e0 02 00 00", Disconnect::new(Success), false),
        (V5, "e0 01 04", Disconnect::new(DisconnectWithWill), true),
        (
            V5,
            "e0: 04 ( 11 0000000a 1f s'bye' )",
            Disconnect {
                session_expiry: Some(10),
                reason_string: Some("bye"),
                ..Disconnect::new(DisconnectWithWill)
            },
            true,
        ),
        (
            V5,
            "e0: 00 ( 26 s'k' s'v' 11 00000000 )",
            Disconnect { session_expiry: Some(0), ..Disconnect::new(Success) },
            false,
        ),
    ] {
        assert_eq!(from_client(version, text), Ok(Packet::Disconnect(disconnect)), "{text}");
        if shortest {
            let out = encoded(|out| encode_disconnect(version, &disconnect, out));
            assert_eq!(out, wire(text), "{text}");
        }
    }
    for (text, disconnect) in [
        ("e0 01 8e", Disconnect::new(SessionTakenOver)),
        (
            "e0: 9d ( 1f s'moved' 1c s'b:1883' )",
            Disconnect {
                reason_string: Some("moved"),
                server_reference: Some("b:1883"),
                ..Disconnect::new(ServerMoved)
            },
        ),
    ] {
        assert_eq!(from_server(V5, text), Ok(ServerPacket::Disconnect(disconnect)), "{text}");
        assert_eq!(encoded(|out| encode_disconnect(V5, &disconnect, out)), wire(text), "{text}");
    }
}

/// [v3 MQTT-3.14.1-1, v5 MQTT-3.14.1-1, MQTT-3.14.2-1, MQTT-3.14.2-2]
#[test]
fn disconnects_are_strict() {
    let packet = PacketType::Disconnect;
    let malformed = Reason::MalformedPacket;
    let protocol = Reason::ProtocolError;
    let wrong_side = |property| DecodeError::PropertyFromWrongSide { property, packet };
    let code = |code| DecodeError::ReasonCode { packet, code };
    refused_from_client(
        V311,
        &[("e0 01 00", DecodeError::Trailing { packet, bytes: 1 }, malformed)],
    );
    refused_from_client(
        V5,
        &[
            ("e1 00", DecodeError::Flags { packet, flags: 1 }, malformed),
            ("e0: 05", code(0x05), protocol),
            // Only a server says that a session was taken over or that it shuts down.
            ("e0: 8e", code(0x8e), protocol),
            ("e0: 8b 00", code(0x8b), protocol),
            ("e0: 00 ( 1c s'x' )", wrong_side(PropertyId::ServerReference), protocol),
            ("e0: 00 ( 11 000000 )", DecodeError::Truncated("property value"), malformed),
            (
                "e0: 00 ( 11 00000000 11 00000000 )",
                DecodeError::RepeatedProperty(PropertyId::SessionExpiryInterval),
                protocol,
            ),
            (
                "e0: 00 ( 21 0001 )",
                DecodeError::PropertyNotAllowed { property: PropertyId::ReceiveMaximum, packet },
                malformed,
            ),
            ("e0: 00 00 00", DecodeError::Trailing { packet, bytes: 1 }, malformed),
            ("e0: 00 05", DecodeError::Truncated("properties"), malformed),
        ],
    );
    refused_from_server(
        V5,
        &[
            ("e0: 04", code(0x04)),
            ("e0: 00 ( 11 00000000 )", wrong_side(PropertyId::SessionExpiryInterval)),
        ],
    );
}

#[test]
fn auths_survive_the_wire() {
    let auth = Auth {
        reason: Reason::ContinueAuthentication,
        method: Some("m"),
        data: Some(b"\x01\x02"),
        reason_string: None,
    };
    for (text, auth) in [
        ("f0: 18 ( 15 s'm' 16 0002 0102 )", auth),
        ("f0: 19 ( 15 s'm' )", Auth { reason: Reason::ReAuthenticate, data: None, ..auth }),
        (
            "f0: 18 ( 15 0000 1f s'why' )",
            Auth { method: Some(""), data: None, reason_string: Some("why"), ..auth },
        ),
    ] {
        assert_eq!(from_client(V5, text), Ok(Packet::Auth(auth)), "{text}");
        assert_eq!(encoded(|out| encode_auth(&auth, out)), wire(text), "{text}");
    }
    let success = Auth { reason: Reason::Success, method: None, data: None, reason_string: None };
    for (text, auth) in [
        ("f0 00", success),
        ("f0: 00 ( 15 s'm' )", Auth { method: Some("m"), ..success }),
        ("f0: 18 ( 15 s'm' 16 0000 )", Auth { data: Some(b""), ..auth }),
    ] {
        assert_eq!(from_server(V5, text), Ok(ServerPacket::Auth(auth)), "{text}");
        assert_eq!(encoded(|out| encode_auth(&auth, out)), wire(text), "{text}");
    }
}

/// [v5 MQTT-3.15.1-1, MQTT-3.15.2-1]
#[test]
fn auths_are_strict() {
    let packet = PacketType::Auth;
    let malformed = Reason::MalformedPacket;
    let protocol = Reason::ProtocolError;
    let code = |code| DecodeError::ReasonCode { packet, code };
    refused_from_client(
        V5,
        &[
            ("f1 00", DecodeError::Flags { packet, flags: 1 }, malformed),
            ("f0 00", code(0), protocol),
            ("f0: 00 ( 15 s'm' )", code(0), protocol),
            ("f0: 1a ( 15 s'm' )", code(0x1a), protocol),
            ("f0: 18", DecodeError::Truncated("property length"), malformed),
            ("f0: 18 00", DecodeError::AuthenticationMethodMissing, protocol),
            ("f0: 18 ( 16 0000 )", DecodeError::AuthenticationMethodMissing, protocol),
            (
                "f0: 18 ( 15 s'm' 15 s'm' )",
                DecodeError::RepeatedProperty(PropertyId::AuthenticationMethod),
                protocol,
            ),
            ("f0: 18 ( 15 s'm' ) 00", DecodeError::Trailing { packet, bytes: 1 }, malformed),
            (
                "f0: 18 ( 11 00000000 )",
                DecodeError::PropertyNotAllowed {
                    property: PropertyId::SessionExpiryInterval,
                    packet,
                },
                malformed,
            ),
        ],
    );
    refused_from_server(V5, &[("f0: 19 ( 15 s'm' )", code(0x19))]);
}
