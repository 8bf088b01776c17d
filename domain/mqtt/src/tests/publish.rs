//! PUBLISH, both directions.

use std::borrow::Cow;

use super::*;
use crate::{
    Delivery, Outgoing, PacketType, PropertyId, Publish, QoS, encode_publish, encode_publish_head,
    publish_size,
};

const PLAIN: Publish<'static> = Publish {
    dup: false,
    qos: QoS::AtMostOnce,
    retain: false,
    topic: "a/b",
    packet_id: None,
    alias: None,
    expiry: None,
    properties: Cow::Borrowed(&[]),
    payload: b"hi",
};

/// What [`Outgoing`] would be sent to pass `publish` on as it is.
fn outgoing<'a>(publish: &'a Publish<'_>, subscription_ids: &'a [u32]) -> Outgoing<'a> {
    Outgoing {
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
    }
}

#[track_caller]
fn assert_encodes(version: Version, outgoing: &Outgoing<'_>, text: &str) {
    assert_eq!(encoded(|out| encode_publish(version, outgoing, out)), wire(text), "{outgoing:?}");
    assert_eq!(publish_size(version, outgoing), wire(text).len(), "{outgoing:?}");
    let mut head = encoded(|out| encode_publish_head(version, outgoing, out));
    head.extend_from_slice(outgoing.payload);
    assert_eq!(head, wire(text), "{outgoing:?}");
}

/// [v3 MQTT-2.3.1-5, v5 MQTT-2.2.1-2]: QoS 0 has no packet identifier.
#[test]
fn publishes_survive_the_wire() {
    let id7 = Some(id(7));
    for (v311, v5, publish) in [
        ("30 07 0003 612f62 6869", "30 08 0003 612f62 00 6869", PLAIN),
        ("31: s'a/b' 'hi'", "31: s'a/b' 00 'hi'", Publish { retain: true, ..PLAIN }),
        (
            "32: s'a/b' 0007 'hi'",
            "32: s'a/b' 0007 00 'hi'",
            Publish { qos: QoS::AtLeastOnce, packet_id: id7, ..PLAIN },
        ),
        (
            "3b: s'a/b' 0007 'hi'",
            "3b: s'a/b' 0007 00 'hi'",
            Publish { qos: QoS::AtLeastOnce, packet_id: id7, dup: true, retain: true, ..PLAIN },
        ),
        (
            "34: s'a/b' ffff 'hi'",
            "34: s'a/b' ffff 00 'hi'",
            Publish { qos: QoS::ExactlyOnce, packet_id: Some(id(0xffff)), ..PLAIN },
        ),
        ("30: s'a/b'", "30: s'a/b' 00", Publish { payload: b"", ..PLAIN }),
        ("30: s'/' 00ff", "30: s'/' 00 00ff", Publish { topic: "/", payload: b"\0\xff", ..PLAIN }),
    ] {
        for (version, text) in [(V311, v311), (V5, v5)] {
            assert_eq!(from_client(version, text), Ok(Packet::Publish(publish.clone())), "{text}");
            let delivery =
                Delivery { publish: publish.clone(), subscription_ids: Default::default() };
            assert_eq!(from_server(version, text), Ok(ServerPacket::Publish(delivery)), "{text}");
            assert_encodes(version, &outgoing(&publish, &[]), text);
        }
    }
}

#[test]
fn properties_of_a_publish_survive_the_wire() {
    let kept = "01 01 03 s'text/plain' 08 s'r/t' 09 0002 beef 26 s'k' s'1' 26 s'k' s'2'";
    let raw = wire(kept);
    for (text, publish) in [
        (format!("30: s'a/b' ( {kept} ) 'hi'"), PLAIN),
        (format!("30: s'a/b' ( 23 0008 {kept} ) 'hi'"), Publish { alias: Some(8), ..PLAIN }),
        (
            format!("30: 0000 ( 23 ffff {kept} )"),
            Publish { topic: "", alias: Some(0xffff), payload: b"", ..PLAIN },
        ),
        (
            format!("30: s'a/b' ( 02 00000e10 {kept} ) 'hi'"),
            Publish { expiry: Some(3600), ..PLAIN },
        ),
        (
            format!("30: s'a/b' ( 23 0001 02 ffffffff {kept} ) 'hi'"),
            Publish { alias: Some(1), expiry: Some(u32::MAX), ..PLAIN },
        ),
    ] {
        let publish = Publish { properties: Cow::Borrowed(raw), ..publish };
        assert_eq!(from_client(V5, &text), Ok(Packet::Publish(publish.clone())), "{text}");
        assert_encodes(V5, &outgoing(&publish, &[]), &text);
    }
}

/// [v5 MQTT-3.3.2-4, MQTT-3.3.2-15, MQTT-3.3.2-16, MQTT-3.3.2-17, MQTT-3.3.2-18, MQTT-3.3.2-20]:
/// what is passed on is unaltered and in order, wherever the other properties stood.
#[test]
fn forwarded_properties_are_borrowed_while_they_lie_together() {
    for (block, kept, borrowed) in [
        ("", "", true),
        ("23 0001", "", true),
        ("01 01 26 s'a' s'b'", "01 01 26 s'a' s'b'", true),
        ("23 0001 01 01 26 s'a' s'b' 02 00000001", "01 01 26 s'a' s'b'", true),
        ("01 01 23 0001 26 s'a' s'b' 26 s'c' s'd'", "01 01 26 s'a' s'b' 26 s'c' s'd'", false),
        (
            "26 s'z' s'1' 02 00000001 26 s'a' s'2' 23 0001 26 s'z' s'3'",
            "26 s'z' s'1' 26 s'a' s'2' 26 s'z' s'3'",
            false,
        ),
    ] {
        let Ok(Packet::Publish(publish)) = from_client(V5, &format!("30: s'a' ( {block} )")) else {
            panic!("{block}");
        };
        assert_eq!(&*publish.properties, wire(kept), "{block}");
        assert_eq!(matches!(publish.properties, Cow::Borrowed(_)), borrowed, "{block}");
    }
}

/// [v5 MQTT-3.3.4-3, MQTT-3.3.4-4]
#[test]
fn subscription_identifiers_go_to_clients() {
    let text = "30: s'a/b' ( 0b 01 0b 8001 0b ffffff7f ) 'hi'";
    let ids = [1, 128, 268_435_455];
    let delivery = Delivery { publish: PLAIN, subscription_ids: ids.into_iter().collect() };
    assert_eq!(from_server(V5, text), Ok(ServerPacket::Publish(delivery)));
    assert_encodes(V5, &outgoing(&PLAIN, &ids), text);
    // 3.1.1 has no room for them.
    assert_encodes(V311, &outgoing(&PLAIN, &ids), "30: s'a/b' 'hi'");
}

#[test]
fn mqtt_5_extras_vanish_for_mqtt_3() {
    let publish = Outgoing {
        alias: Some(3),
        expiry: Some(9),
        properties: wire("01 01"),
        ..Outgoing::new("a", b"x")
    };
    assert_encodes(V5, &publish, "30: s'a' ( 23 0003 02 00000009 01 01 ) 'x'");
    assert_encodes(V311, &publish, "30: s'a' 'x'");
}

/// [v3 MQTT-2.3.1-5, MQTT-3.3.1-2, v5 MQTT-2.2.1-2, MQTT-3.3.1-2]
#[test]
fn qos_0_is_encoded_without_identifier_and_dup() {
    let publish = Outgoing { packet_id: Some(id(1)), dup: true, ..Outgoing::new("a", b"x") };
    assert_encodes(V311, &publish, "30: s'a' 'x'");
}

#[test]
fn the_head_counts_a_payload_it_does_not_hold() {
    let payload = vec![b'x'; 200_000];
    let publish = Outgoing::new("a/b", &payload);
    let head = encoded(|out| encode_publish_head(V5, &publish, out));
    assert_eq!(head, wire("30 c69a0c s'a/b' 00"));
    assert_eq!(publish_size(V5, &publish), head.len() + payload.len());
}

/// [v3 MQTT-3.3.1-4, v5 MQTT-3.3.1-4]
#[test]
fn qos_3_is_refused() {
    for version in BOTH {
        let row = |text| (text, DecodeError::PublishQoS, Reason::MalformedPacket);
        refused_from_client(version, &[row("36: s'a' 0001 00"), row("3f: s'a' 0001 00")]);
    }
}

/// [v3 MQTT-3.3.1-2, v5 MQTT-3.3.1-2]
#[test]
fn qos_0_is_never_a_duplicate() {
    for version in BOTH {
        let row = |text| (text, DecodeError::DuplicateQoS0, Reason::MalformedPacket);
        refused_from_client(version, &[row("38: s'a' 00"), row("39: s'a' 00")]);
    }
}

/// [v3 MQTT-2.3.1-1, v5 MQTT-2.2.1-3]
#[test]
fn packet_identifier_0_is_refused() {
    for version in BOTH {
        let row = |text| (text, DecodeError::PacketIdZero, Reason::ProtocolError);
        refused_from_client(version, &[row("32: s'a' 0000 00"), row("34: s'a' 0000 00")]);
    }
}

/// [v3 MQTT-3.3.2-1, MQTT-3.3.2-2, MQTT-4.7.1-1, MQTT-4.7.3-1, MQTT-4.7.3-2, MQTT-1.5.3-1,
/// MQTT-1.5.3-2, v5 MQTT-3.3.2-1, MQTT-3.3.2-2, MQTT-4.7.0-1, MQTT-4.7.3-2, MQTT-1.5.4-1,
/// MQTT-1.5.4-2]
#[test]
fn topic_names_are_strict() {
    let wildcard = DecodeError::TopicWildcard("topic name");
    let utf8 = DecodeError::Utf8("topic name");
    let null = DecodeError::NullCharacter("topic name");
    let cut = DecodeError::Truncated("topic name");
    for version in BOTH {
        refused_from_client(
            version,
            &[
                ("30: s'a/#' 00", wildcard, Reason::TopicNameInvalid),
                ("30: s'+' 00", wildcard, Reason::TopicNameInvalid),
                ("30: s'a+b' 00", wildcard, Reason::TopicNameInvalid),
                ("30: 0003 61 00 62 00", null, Reason::MalformedPacket),
                ("30: 0001 00 00", null, Reason::MalformedPacket),
                // A lone continuation byte, an overlong slash, half a character.
                ("30: 0001 80 00", utf8, Reason::MalformedPacket),
                ("30: 0002 c0af 00", utf8, Reason::MalformedPacket),
                ("30: 0002 e282 00", utf8, Reason::MalformedPacket),
                // U+D800, U+DFFF, beyond U+10FFFF, and a byte that is never used.
                ("30: 0003 eda080 00", utf8, Reason::MalformedPacket),
                ("30: 0003 edbfbf 00", utf8, Reason::MalformedPacket),
                ("30: 0004 f4908080 00", utf8, Reason::MalformedPacket),
                ("30: 0001 ff 00", utf8, Reason::MalformedPacket),
                ("30: 0005 'abc'", cut, Reason::MalformedPacket),
                ("30: 00", cut, Reason::MalformedPacket),
                ("30:", cut, Reason::MalformedPacket),
            ],
        );
    }
    let empty = DecodeError::TopicEmpty("topic name");
    refused_from_client(V311, &[("30: 0000", empty, Reason::TopicNameInvalid)]);
    let missing = DecodeError::TopicMissing;
    refused_from_client(V5, &[("30: 0000 00", missing, Reason::ProtocolError)]);
    refused_from_client(V5, &[("30: 0000 ( 01 00 ) 'x'", missing, Reason::ProtocolError)]);
}

/// [v3 MQTT-1.5.3-3, MQTT-4.7.3-4, v5 MQTT-1.5.4-3]: nothing is normalised, and a byte order mark is
/// a character like any other.
#[test]
fn topic_names_come_through_unchanged() {
    for topic in ["\u{feff}a", "a\u{feff}b", "A/a/ä/日本/😀", " ", "//", "$SYS/x", "\u{1}\u{7f}"]
    {
        for version in BOTH {
            let out = encoded(|out| encode_publish(version, &Outgoing::new(topic, b""), out));
            let packet = decode(&out, version).unwrap();
            assert!(matches!(packet, Packet::Publish(publish) if publish.topic == topic));
        }
    }
}

#[test]
fn packets_end_inside_their_identifier() {
    let cut = DecodeError::Truncated("packet identifier");
    for version in BOTH {
        let row = |text| (text, cut, Reason::MalformedPacket);
        refused_from_client(version, &[row("32: s'a'"), row("32: s'a' 00")]);
    }
}

/// [v5 MQTT-1.5.7-1, MQTT-3.3.2-8, MQTT-3.3.2-13, MQTT-3.3.2-14, MQTT-3.3.2-19, MQTT-3.3.4-6]
#[test]
fn properties_of_a_publish_are_strict() {
    use PropertyId::*;
    let malformed = Reason::MalformedPacket;
    let protocol = Reason::ProtocolError;
    let alias_0 = DecodeError::PropertyValue { property: TopicAlias, value: 0 };
    let format_2 = DecodeError::PropertyValue { property: PayloadFormatIndicator, value: 2 };
    let from_client = DecodeError::PropertyFromWrongSide {
        property: SubscriptionIdentifier,
        packet: PacketType::Publish,
    };
    let foreign = DecodeError::PropertyNotAllowed {
        property: SessionExpiryInterval,
        packet: PacketType::Publish,
    };
    refused_from_client(
        V5,
        &[
            ("30: s'a'", DecodeError::Truncated("property length"), malformed),
            ("30: s'a' 01", DecodeError::Truncated("properties"), malformed),
            ("30: s'a' 80", DecodeError::Truncated("property length"), malformed),
            ("30: s'a' ffffffff01", DecodeError::VarIntTooLong("property length"), malformed),
            ("30: s'a' ( 23 00 )", DecodeError::Truncated("property value"), malformed),
            ("30: s'a' ( 02 000000 )", DecodeError::Truncated("property value"), malformed),
            ("30: s'a' ( 01 )", DecodeError::Truncated("property value"), malformed),
            ("30: s'a' ( 09 0002 00 )", DecodeError::Truncated("property value"), malformed),
            ("30: s'a' ( 26 s'k' )", DecodeError::Truncated("user property value"), malformed),
            ("30: s'a' ( 26 0009 )", DecodeError::Truncated("user property name"), malformed),
            ("30: s'a' ( 03 0001 ff )", DecodeError::Utf8("property value"), malformed),
            ("30: s'a' ( 08 0001 ff )", DecodeError::Utf8("property value"), malformed),
            ("30: s'a' ( 03 0001 00 )", DecodeError::NullCharacter("property value"), malformed),
            ("30: s'a' ( 26 0001 ff s'v' )", DecodeError::Utf8("user property name"), malformed),
            ("30: s'a' ( 26 s'k' 0001 80 )", DecodeError::Utf8("user property value"), malformed),
            ("30: s'a' ( 00 )", DecodeError::UnknownProperty(0), malformed),
            ("30: s'a' ( 04 )", DecodeError::UnknownProperty(4), malformed),
            ("30: s'a' ( 2b )", DecodeError::UnknownProperty(0x2b), malformed),
            ("30: s'a' ( 8101 )", DecodeError::UnknownProperty(0x81), malformed),
            ("30: s'a' ( 11 00000000 )", foreign, malformed),
            ("30: s'a' ( 01 02 )", format_2, protocol),
            ("30: s'a' ( 23 0000 )", alias_0, Reason::TopicAliasInvalid),
            ("30: s'a' ( 0b 01 )", from_client, protocol),
            ("30: s'a' ( 08 s'a/#' )", DecodeError::ResponseTopicWildcard, protocol),
            ("30: s'a' ( 08 s'+/a' )", DecodeError::ResponseTopicWildcard, protocol),
            ("30: s'a' ( 23 0001 23 0001 )", DecodeError::RepeatedProperty(TopicAlias), protocol),
            (
                "30: s'a' ( 03 s'x' 01 00 03 s'x' )",
                DecodeError::RepeatedProperty(ContentType),
                protocol,
            ),
        ],
    );
    let zero = DecodeError::PropertyValue { property: SubscriptionIdentifier, value: 0 };
    refused_from_server(V5, &[("30: s'a' ( 0b 00 )", zero)]);
}
