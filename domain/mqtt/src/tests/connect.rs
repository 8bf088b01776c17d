//! CONNECT, and what a client hears when its CONNECT is not acceptable.

use std::borrow::Cow;

use super::*;
use crate::{
    Connect, ConnectError, PacketType, PropertyId, QoS, Will, decode_connect, encode_connect,
};

const WILL: Will<'static> = Will {
    topic: "w",
    payload: b"bye",
    qos: QoS::AtMostOnce,
    retain: false,
    delay: 0,
    expiry: None,
    properties: Cow::Borrowed(&[]),
};

#[track_caller]
fn refused(text: &str, error: DecodeError, answer: Option<(Version, Reason)>) {
    let refusal = decode_connect(wire(text)).expect_err(text);
    assert_eq!(refusal.error, error, "{text}");
    assert_eq!(refusal.answer(), answer, "{text}");
    assert_eq!(from_client(V5, text), Err(error), "{text}");
}

#[track_caller]
fn refused_v311(rows: &[(&str, DecodeError)]) {
    for (text, error) in rows {
        refused(text, *error, None);
    }
}

/// MQTT 5 names the reason in a CONNACK [v5 MQTT-3.1.4-1].
#[track_caller]
fn refused_v5(rows: &[(&str, DecodeError, Reason)]) {
    for (text, error, reason) in rows {
        refused(text, *error, Some((V5, *reason)));
    }
}

#[test]
fn connects_survive_the_wire() {
    let v311 = Connect::new(V311, "c");
    let v5 = Connect::new(V5, "c");
    let raw = |text| Cow::Borrowed(wire(text));
    for (text, connect) in [
        ("10 0d 0004 4d515454 04 02 003c 0001 63", Connect { keep_alive: 60, ..v311.clone() }),
        ("10: s'MQTT' 04 00 0000 s'c'", Connect { clean_start: false, ..v311.clone() }),
        ("10: s'MQTT' 04 02 0000 0000", Connect { client_id: "", ..v311.clone() }),
        (
            "10: s'MQTT' 04 82 ffff s'c' s'u'",
            Connect { username: Some("u"), keep_alive: u16::MAX, ..v311.clone() },
        ),
        (
            "10: s'MQTT' 04 c2 0000 s'c' 0000 0003 00ff00",
            Connect { username: Some(""), password: Some(b"\0\xff\0"), ..v311.clone() },
        ),
        ("10: s'MQTT' 04 06 0000 s'c' s'w' s'bye'", Connect { will: Some(WILL), ..v311.clone() }),
        (
            "10: s'MQTT' 04 f6 000a s'c' s'w/x' 0000 s'u' s'p'",
            Connect {
                keep_alive: 10,
                will: Some(Will {
                    topic: "w/x",
                    payload: b"",
                    qos: QoS::ExactlyOnce,
                    retain: true,
                    ..WILL
                }),
                username: Some("u"),
                password: Some(b"p"),
                ..v311
            },
        ),
        ("10 0e 0004 4d515454 05 02 0000 00 0001 63", v5.clone()),
        (
            "10: s'MQTT' 05 00 0000 00 0000",
            Connect { clean_start: false, client_id: "", ..v5.clone() },
        ),
        // [v5 3.1.2.9]: unlike 3.1.1, a password may stand alone.
        (
            "10: s'MQTT' 05 42 0000 00 s'c' s'token'",
            Connect { password: Some(b"token"), ..v5.clone() },
        ),
        (
            "10: s'MQTT' 05 02 0000 ( 11 ffffffff 21 0001 27 00000001 22 ffff 19 01 17 00 15 s'm' 16 0001 00 26 s'k' s'v' 26 s'k' s'w' ) s'c'",
            Connect {
                session_expiry: Some(u32::MAX),
                receive_maximum: 1,
                maximum_packet_size: Some(1),
                topic_alias_maximum: u16::MAX,
                request_response_information: true,
                request_problem_information: false,
                authentication_method: Some("m"),
                authentication_data: Some(b"\0"),
                user_properties: raw("26 s'k' s'v' 26 s'k' s'w'"),
                ..v5.clone()
            },
        ),
        (
            "10: s'MQTT' 05 0e 0000 00 s'c' 00 s'w' s'bye'",
            Connect { will: Some(Will { qos: QoS::AtLeastOnce, ..WILL }), ..v5.clone() },
        ),
        (
            "10: s'MQTT' 05 26 0000 00 s'c' ( 18 00000005 02 0000000a 01 01 03 s't' 08 s'r' 09 0000 26 s'k' s'v' ) s'w' s'bye'",
            Connect {
                will: Some(Will {
                    retain: true,
                    delay: 5,
                    expiry: Some(10),
                    properties: raw("01 01 03 s't' 08 s'r' 09 0000 26 s'k' s'v'"),
                    ..WILL
                }),
                ..v5
            },
        ),
    ] {
        assert_eq!(decode_connect(wire(text)), Ok(connect.clone()), "{text}");
        assert_eq!(
            from_client(V311, text),
            Ok(Packet::Connect(Box::new(connect.clone()))),
            "{text}"
        );
        assert_eq!(encoded(|out| encode_connect(&connect, out)), wire(text), "{text}");
    }
}

/// Said outright, the defaults are what they are when nothing is said.
#[test]
fn defaults_may_be_spelled_out() {
    let text = "10: s'MQTT' 05 02 0000 ( 21 ffff 22 0000 19 00 17 01 ) s'c'";
    assert_eq!(decode_connect(wire(text)), Ok(Connect::new(V5, "c")));
}

#[test]
fn user_properties_are_gathered_from_between_others() {
    let text = "10: s'MQTT' 05 02 0000 ( 26 s'a' s'1' 21 0009 26 s'b' s'2' ) s'c'";
    let connect = decode_connect(wire(text)).unwrap();
    assert_eq!(&*connect.user_properties, wire("26 s'a' s'1' 26 s'b' s'2'"));
    assert_eq!(connect.receive_maximum, 9);
}

/// [v3 MQTT-3.1.2-1, MQTT-3.1.2-2, v5 MQTT-3.1.2-1, MQTT-3.1.2-2]: a client of another version
/// learns so in the version nearest to its own; what is not MQTT gets no answer.
#[test]
fn other_protocols_are_told_apart() {
    let reason = Reason::UnsupportedProtocolVersion;
    for (text, error, answer) in [
        ("10: s'MQIsdp' 03 02 003c s'c'", DecodeError::ProtocolLevel(3), Some(V311)),
        ("10: s'MQTT' 03 02 003c s'c'", DecodeError::ProtocolLevel(3), Some(V311)),
        ("10: s'MQTT' 00 02 003c s'c'", DecodeError::ProtocolLevel(0), Some(V311)),
        ("10: s'MQTT' 06 02 003c 00 s'c'", DecodeError::ProtocolLevel(6), Some(V5)),
        ("10: s'MQTT' 7f 02 003c 00 s'c'", DecodeError::ProtocolLevel(0x7f), Some(V5)),
        // Bridges ask with the upper bit set, and without it when that is refused.
        ("10: s'MQTT' 84 02 003c s'c'", DecodeError::ProtocolLevel(0x84), Some(V311)),
        ("10: s'MQTT' 85 02 003c 00 s'c'", DecodeError::ProtocolLevel(0x85), Some(V5)),
        ("10: s'MQTX' 04 02 003c s'c'", DecodeError::ProtocolName, None),
        ("10: s'mqtt' 04 02 003c s'c'", DecodeError::ProtocolName, None),
        ("10: 0000 04 02 003c s'c'", DecodeError::ProtocolName, None),
    ] {
        refused(text, error, answer.map(|version| (version, reason)));
        assert_eq!(error.reason(), reason);
    }
}

/// [v3 MQTT-3.1.0-1, v5 MQTT-3.1.0-1]
#[test]
fn the_first_packet_is_connect() {
    for text in ["30: s'a' 00", "c0 00", "e0 00", "20: 00 00", "f0 00"] {
        let refusal = decode_connect(wire(text)).unwrap_err();
        assert!(matches!(refusal.error, DecodeError::Unexpected(_) | DecodeError::NotInV311(_)));
        assert_eq!(refusal.answer(), None, "{text}");
    }
    assert_eq!(
        decode_connect(b"GET / HTTP/1.1\r\n\r\n").unwrap_err(),
        ConnectError {
            version: None,
            error: DecodeError::Flags { packet: PacketType::PubAck, flags: 7 }
        }
    );
}

#[test]
fn connects_end_before_their_protocol_is_known() {
    for (text, error) in [
        ("10:", DecodeError::Truncated("protocol name")),
        ("10: 00", DecodeError::Truncated("protocol name")),
        ("10: 0004 'MQT'", DecodeError::Truncated("protocol name")),
        ("10: s'MQTT'", DecodeError::Truncated("protocol level")),
        (
            "12: s'MQTT' 04 02 0000 s'c'",
            DecodeError::Flags { packet: PacketType::Connect, flags: 2 },
        ),
    ] {
        refused(text, error, None);
    }
}

/// [v3 MQTT-3.1.2-3, MQTT-3.1.2-11, MQTT-3.1.2-13, MQTT-3.1.2-14, MQTT-3.1.2-15, MQTT-3.1.2-22,
/// MQTT-3.1.3-8]: 3.1.1 closes without a word, save for the client identifier.
#[test]
fn connects_of_mqtt_3_are_strict() {
    let trailing = |bytes| DecodeError::Trailing { packet: PacketType::Connect, bytes };
    refused_v311(&[
        ("10: s'MQTT' 04 03 0000 s'c'", DecodeError::ConnectFlags(3)),
        ("10: s'MQTT' 04 0a 0000 s'c'", DecodeError::WillFlags(0x0a)),
        ("10: s'MQTT' 04 12 0000 s'c'", DecodeError::WillFlags(0x12)),
        ("10: s'MQTT' 04 22 0000 s'c'", DecodeError::WillFlags(0x22)),
        ("10: s'MQTT' 04 1e 0000 s'c' s'w' s'x'", DecodeError::WillQoS(0x1e)),
        ("10: s'MQTT' 04 42 0000 s'c' s'p'", DecodeError::PasswordAlone(0x42)),
        ("10: s'MQTT' 04", DecodeError::Truncated("connect flags")),
        ("10: s'MQTT' 04 02 00", DecodeError::Truncated("keep alive")),
        ("10: s'MQTT' 04 02 0000", DecodeError::Truncated("client identifier")),
        ("10: s'MQTT' 04 02 0000 0002 'c'", DecodeError::Truncated("client identifier")),
        ("10: s'MQTT' 04 02 0000 0001 ff", DecodeError::Utf8("client identifier")),
        ("10: s'MQTT' 04 02 0000 0001 00", DecodeError::NullCharacter("client identifier")),
        ("10: s'MQTT' 04 06 0000 s'c'", DecodeError::Truncated("will topic")),
        ("10: s'MQTT' 04 06 0000 s'c' s'w'", DecodeError::Truncated("will payload")),
        ("10: s'MQTT' 04 06 0000 s'c' s'w/#' s'x'", DecodeError::TopicWildcard("will topic")),
        ("10: s'MQTT' 04 06 0000 s'c' 0000 s'x'", DecodeError::TopicEmpty("will topic")),
        ("10: s'MQTT' 04 06 0000 s'c' 0001 80 s'x'", DecodeError::Utf8("will topic")),
        ("10: s'MQTT' 04 82 0000 s'c'", DecodeError::Truncated("user name")),
        ("10: s'MQTT' 04 82 0000 s'c' 0002 c328", DecodeError::Utf8("user name")),
        ("10: s'MQTT' 04 82 0000 s'c' 0001 00", DecodeError::NullCharacter("user name")),
        ("10: s'MQTT' 04 c2 0000 s'c' s'u'", DecodeError::Truncated("password")),
        ("10: s'MQTT' 04 c2 0000 s'c' s'u' 0002 00", DecodeError::Truncated("password")),
        ("10: s'MQTT' 04 02 0000 s'c' 00", trailing(1)),
        ("10: s'MQTT' 04 02 0000 s'c' s'u'", trailing(3)),
    ]);
    let answer = Some((V311, Reason::ClientIdentifierNotValid));
    refused("10: s'MQTT' 04 00 0000 0000", DecodeError::ClientIdMissing, answer);
}

/// [v5 MQTT-3.1.2-3, MQTT-3.1.2-9, MQTT-3.1.2-11 to MQTT-3.1.2-13, MQTT-3.1.2-16 to MQTT-3.1.2-19,
/// MQTT-3.1.3-3, MQTT-3.1.3-4, MQTT-3.1.3-11, MQTT-3.1.3-12]
#[test]
fn connects_of_mqtt_5_are_strict() {
    let malformed = Reason::MalformedPacket;
    let topic = Reason::TopicNameInvalid;
    let trailing = DecodeError::Trailing { packet: PacketType::Connect, bytes: 1 };
    refused_v5(&[
        ("10: s'MQTT' 05 03 0000 00 s'c'", DecodeError::ConnectFlags(3), malformed),
        ("10: s'MQTT' 05 0a 0000 00 s'c'", DecodeError::WillFlags(0x0a), malformed),
        ("10: s'MQTT' 05 22 0000 00 s'c'", DecodeError::WillFlags(0x22), malformed),
        ("10: s'MQTT' 05 1e 0000 00 s'c' 00 s'w' s'x'", DecodeError::WillQoS(0x1e), malformed),
        ("10: s'MQTT' 05 02 0000", DecodeError::Truncated("property length"), malformed),
        ("10: s'MQTT' 05 02 0000 09 s'c'", DecodeError::Truncated("properties"), malformed),
        ("10: s'MQTT' 05 02 0000 00", DecodeError::Truncated("client identifier"), malformed),
        ("10: s'MQTT' 05 02 0000 00 0001 ff", DecodeError::Utf8("client identifier"), malformed),
        ("10: s'MQTT' 05 06 0000 00 s'c'", DecodeError::Truncated("property length"), malformed),
        (
            "10: s'MQTT' 05 06 0000 00 s'c' 00 s'w'",
            DecodeError::Truncated("will payload"),
            malformed,
        ),
        (
            "10: s'MQTT' 05 06 0000 00 s'c' 00 0001 80 s'x'",
            DecodeError::Utf8("will topic"),
            malformed,
        ),
        ("10: s'MQTT' 05 82 0000 00 s'c'", DecodeError::Truncated("user name"), malformed),
        ("10: s'MQTT' 05 82 0000 00 s'c' 0001 ff", DecodeError::Utf8("user name"), malformed),
        ("10: s'MQTT' 05 42 0000 00 s'c'", DecodeError::Truncated("password"), malformed),
        (
            "10: s'MQTT' 05 02 0000 00 s'c' s'u'",
            DecodeError::Trailing { packet: PacketType::Connect, bytes: 3 },
            malformed,
        ),
        (
            "10: s'MQTT' 05 06 0000 00 s'c' 00 s'+' s'x'",
            DecodeError::TopicWildcard("will topic"),
            topic,
        ),
        (
            "10: s'MQTT' 05 06 0000 00 s'c' 00 0000 s'x'",
            DecodeError::TopicEmpty("will topic"),
            topic,
        ),
        ("10: s'MQTT' 05 02 0000 00 s'c' 00", trailing, malformed),
        (
            "10 8e00 0004 4d515454 05 02 0000 00 0001 63",
            DecodeError::VarIntNotMinimal("remaining length"),
            malformed,
        ),
    ]);
}

/// [v5 sections 3.1.2.11 and 3.1.3.2]
#[test]
fn properties_of_a_connect_are_strict() {
    use PropertyId::*;
    let foreign = |property| {
        (
            DecodeError::PropertyNotAllowed { property, packet: PacketType::Connect },
            Reason::MalformedPacket,
        )
    };
    let value =
        |property, value| (DecodeError::PropertyValue { property, value }, Reason::ProtocolError);
    let repeated = |property| (DecodeError::RepeatedProperty(property), Reason::ProtocolError);
    for (block, (error, reason)) in [
        ("21 0000", value(ReceiveMaximum, 0)),
        ("27 00000000", value(MaximumPacketSize, 0)),
        ("17 02", value(RequestProblemInformation, 2)),
        ("19 ff", value(RequestResponseInformation, 255)),
        ("11 00000001 11 00000001", repeated(SessionExpiryInterval)),
        ("21 0001 21 0002", repeated(ReceiveMaximum)),
        ("22 0001 22 0001", repeated(TopicAliasMaximum)),
        ("15 s'a' 15 s'b'", repeated(AuthenticationMethod)),
        ("18 00000001", foreign(WillDelayInterval)),
        ("01 01", foreign(PayloadFormatIndicator)),
        ("1f s'x'", foreign(ReasonString)),
        ("24 01", foreign(MaximumQoS)),
        ("16 0001 00", (DecodeError::AuthenticationDataAlone, Reason::ProtocolError)),
        ("11 0000", (DecodeError::Truncated("property value"), Reason::MalformedPacket)),
    ] {
        refused_v5(&[(&format!("10: s'MQTT' 05 02 0000 ( {block} ) s'c'"), error, reason)]);
    }
    for (block, (error, reason)) in [
        ("18 00000001 18 00000001", repeated(WillDelayInterval)),
        ("01 02", value(PayloadFormatIndicator, 2)),
        ("23 0001", foreign(TopicAlias)),
        ("11 00000001", foreign(SessionExpiryInterval)),
        ("0b 01", foreign(SubscriptionIdentifier)),
        ("08 s'a/#'", (DecodeError::ResponseTopicWildcard, Reason::ProtocolError)),
    ] {
        refused_v5(&[(
            &format!("10: s'MQTT' 05 06 0000 00 s'c' ( {block} ) s'w' s'x'"),
            error,
            reason,
        )]);
    }
}

#[test]
fn a_refusal_reads_as_its_cause() {
    let refusal = decode_connect(wire("10: s'MQTT' 04 03 0000 s'c'")).unwrap_err();
    assert_eq!(refusal.to_string(), "CONNECT flags 0x03 have the reserved bit set");
    assert_eq!(refusal.version, Some(V311));
}
