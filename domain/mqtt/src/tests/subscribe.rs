//! SUBSCRIBE, UNSUBSCRIBE and their acknowledgements.

use super::*;
use crate::{
    PacketType, PropertyId, QoS, RetainHandling, Subscribe, SubscribeOptions, Unsubscribe,
    encode_suback, encode_subscribe, encode_unsuback, encode_unsubscribe,
};

const ALL: SubscribeOptions = SubscribeOptions {
    qos: QoS::ExactlyOnce,
    no_local: true,
    retain_as_published: true,
    retain_handling: RetainHandling::Never,
};

fn subscribe(version: Version, text: &str) -> Subscribe<'static> {
    match from_client(version, text) {
        Ok(Packet::Subscribe(subscribe)) => subscribe,
        other => panic!("{text}: {other:?}"),
    }
}

fn unsubscribe(version: Version, text: &str) -> Unsubscribe<'static> {
    match from_client(version, text) {
        Ok(Packet::Unsubscribe(unsubscribe)) => unsubscribe,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn subscribes_survive_the_wire() {
    let [q0, q1, q2] =
        [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce].map(SubscribeOptions::at);
    for (version, text, subscription_id, filters) in [
        (V311, "82 08 0001 0003 612f62 01", None, &[("a/b", q1)][..]),
        (
            V311,
            "82: ffff s'#' 00 s'+/b' 01 s'$share/g/c' 02",
            None,
            &[("#", q0), ("+/b", q1), ("$share/g/c", q2)],
        ),
        (V5, "82 09 0001 00 0003 612f62 01", None, &[("a/b", q1)]),
        (V5, "82: 0001 00 s'a' 2e s'b' 00", None, &[("a", ALL), ("b", q0)]),
        (V5, "82: 0001 ( 0b ffffff7f ) s'a' 00", Some(268_435_455), &[("a", q0)]),
        (V5, "82: 0001 00 s'$share/g/c' 01", None, &[("$share/g/c", q1)]),
        (
            V5,
            "82: 0001 00 s'a' 14",
            None,
            &[(
                "a",
                SubscribeOptions {
                    no_local: true,
                    retain_handling: RetainHandling::OnNewSubscription,
                    ..q0
                },
            )],
        ),
        // A bad filter is for the SUBACK to refuse, not for the codec.
        (V5, "82: 0001 00 0000 00 s'a#' 00", None, &[("", q0), ("a#", q0)]),
    ] {
        let decoded = subscribe(version, text);
        let id = id(u16::from_be_bytes([wire(text)[2], wire(text)[3]]));
        assert_eq!(decoded.packet_id, id, "{text}");
        assert_eq!(decoded.subscription_id, subscription_id, "{text}");
        assert_eq!(decoded.filters().collect::<Vec<_>>(), filters, "{text}");
        let out = encoded(|out| encode_subscribe(version, id, subscription_id, filters, out));
        assert_eq!(out, wire(text), "{text}");
    }
    let text = "82: 0001 ( 26 s'k' s'v' 0b 05 26 s'k' s'v' ) s'a' 00";
    assert_eq!(subscribe(V5, text).subscription_id, Some(5));
}

/// Every option byte, in both versions [v3 MQTT-3.8.3-4, v5 MQTT-3.8.3-5].
#[test]
fn option_bytes_are_strict() {
    for byte in 0..=u8::MAX {
        let v311 = SubscribeOptions::from_byte(byte, V311);
        let v5 = SubscribeOptions::from_byte(byte, V5);
        match byte {
            0..=2 => assert_eq!(v311.map(|options| options.to_byte(V311)), Ok(byte)),
            3 => assert_eq!(v311, Err(DecodeError::SubscriptionQoS(byte))),
            _ => assert_eq!(v311, Err(DecodeError::SubscriptionOptions(byte))),
        }
        match byte {
            0x40.. => assert_eq!(v5, Err(DecodeError::SubscriptionOptions(byte))),
            _ if byte & 3 == 3 => assert_eq!(v5, Err(DecodeError::SubscriptionQoS(byte))),
            0x30.. => assert_eq!(v5, Err(DecodeError::RetainHandling(byte))),
            _ => assert_eq!(v5.map(|options| options.to_byte(V5)), Ok(byte)),
        }
    }
    assert_eq!(ALL.to_byte(V311), 2, "3.1.1 keeps the QoS alone");
}

/// [v3 MQTT-2.3.1-1, MQTT-3.8.1-1, MQTT-3.8.3-1, MQTT-3.8.3-3, MQTT-3.8.3-4, v5 MQTT-2.2.1-3,
/// MQTT-3.8.1-1, MQTT-3.8.3-1, MQTT-3.8.3-2, MQTT-3.8.3-4, MQTT-3.8.3-5]
#[test]
fn subscribes_are_strict() {
    let packet = PacketType::Subscribe;
    let malformed = Reason::MalformedPacket;
    let protocol = Reason::ProtocolError;
    for version in BOTH {
        // The property block that only one of the versions has.
        let p = if version == V5 { "00" } else { "" };
        for (rest, error, reason) in [
            ("".to_owned(), DecodeError::Truncated("packet identifier"), malformed),
            (format!("0000 {p} s'a' 00"), DecodeError::PacketIdZero, protocol),
            (format!("0001 {p}"), DecodeError::NoFilters(packet), protocol),
            (format!("0001 {p} s'a'"), DecodeError::Truncated("subscription options"), malformed),
            (format!("0001 {p} 00"), DecodeError::Truncated("topic filter"), malformed),
            (format!("0001 {p} 0002 'a'"), DecodeError::Truncated("topic filter"), malformed),
            (format!("0001 {p} s'a' 00 00"), DecodeError::Truncated("topic filter"), malformed),
            (format!("0001 {p} 0001 80 00"), DecodeError::Utf8("topic filter"), malformed),
            (format!("0001 {p} 0003 eda080 00"), DecodeError::Utf8("topic filter"), malformed),
            (format!("0001 {p} 0001 00 00"), DecodeError::NullCharacter("topic filter"), malformed),
            (format!("0001 {p} s'a' 03"), DecodeError::SubscriptionQoS(3), protocol),
            (format!("0001 {p} s'a' 00 s'b' 03"), DecodeError::SubscriptionQoS(3), protocol),
            (format!("0001 {p} s'a' 44"), DecodeError::SubscriptionOptions(0x44), malformed),
            (format!("0001 {p} s'a' 80"), DecodeError::SubscriptionOptions(0x80), malformed),
        ] {
            refused_from_client(version, &[(&format!("82: {rest}"), error, reason)]);
        }
        for flags in [0u8, 1, 3, 8] {
            let text = format!("8{flags:x}: 0001 {p} s'a' 00");
            refused_from_client(
                version,
                &[(&text, DecodeError::Flags { packet, flags }, malformed)],
            );
        }
    }
    // What MQTT 5 put into bits that 3.1.1 reserves.
    for byte in [0x04, 0x08, 0x10, 0x20] {
        let error = DecodeError::SubscriptionOptions(byte);
        refused_from_client(V311, &[(&format!("82: 0001 s'a' {byte:02x}"), error, malformed)]);
        assert!(from_client(V5, &format!("82: 0001 00 s'a' {byte:02x}")).is_ok());
    }
    use PropertyId::*;
    refused_from_client(
        V5,
        &[
            ("82: 0001 00 s'a' 30", DecodeError::RetainHandling(0x30), protocol),
            ("82: 0001 00 s'$share/g/a' 04", DecodeError::NoLocalShared, protocol),
            (
                "82: 0001 ( 0b 00 ) s'a' 00",
                DecodeError::PropertyValue { property: SubscriptionIdentifier, value: 0 },
                protocol,
            ),
            (
                "82: 0001 ( 0b 01 0b 01 ) s'a' 00",
                DecodeError::RepeatedProperty(SubscriptionIdentifier),
                protocol,
            ),
            (
                "82: 0001 ( 0b ffffffff01 ) s'a' 00",
                DecodeError::VarIntTooLong("property value"),
                malformed,
            ),
            (
                "82: 0001 ( 1f s'x' ) s'a' 00",
                DecodeError::PropertyNotAllowed { property: ReasonString, packet },
                malformed,
            ),
            ("82: 0001", DecodeError::Truncated("property length"), malformed),
            ("82: 0001 7f s'a' 00", DecodeError::Truncated("properties"), malformed),
        ],
    );
}

#[test]
fn unsubscribes_survive_the_wire() {
    for (version, text, filters) in [
        (V311, "a2 07 0001 0003 612f62", &["a/b"][..]),
        (V311, "a2: 0001 s'#' s'+/b'", &["#", "+/b"]),
        (V5, "a2 08 0001 00 0003 612f62", &["a/b"]),
        (V5, "a2: 0001 00 s'a' 0000 s'$share/g/c'", &["a", "", "$share/g/c"]),
    ] {
        let decoded = unsubscribe(version, text);
        assert_eq!(decoded.packet_id, id(1), "{text}");
        assert_eq!(decoded.filters().collect::<Vec<_>>(), filters, "{text}");
        let out = encoded(|out| encode_unsubscribe(version, id(1), filters, out));
        assert_eq!(out, wire(text), "{text}");
    }
    assert_eq!(unsubscribe(V5, "a2: 0001 ( 26 s'k' s'v' ) s'a'").filters().count(), 1);
}

/// [v3 MQTT-3.10.1-1, MQTT-3.10.3-1, MQTT-3.10.3-2, v5 MQTT-3.10.1-1, MQTT-3.10.3-1,
/// MQTT-3.10.3-2]
#[test]
fn unsubscribes_are_strict() {
    let packet = PacketType::Unsubscribe;
    let malformed = Reason::MalformedPacket;
    let protocol = Reason::ProtocolError;
    for version in BOTH {
        let p = if version == V5 { "00" } else { "" };
        for (rest, error, reason) in [
            ("00".to_owned(), DecodeError::Truncated("packet identifier"), malformed),
            (format!("0000 {p} s'a'"), DecodeError::PacketIdZero, protocol),
            (format!("0001 {p}"), DecodeError::NoFilters(packet), protocol),
            (format!("0001 {p} 0002 'a'"), DecodeError::Truncated("topic filter"), malformed),
            (format!("0001 {p} s'a' 00"), DecodeError::Truncated("topic filter"), malformed),
            (format!("0001 {p} 0001 c3"), DecodeError::Utf8("topic filter"), malformed),
            (format!("0001 {p} 0001 00"), DecodeError::NullCharacter("topic filter"), malformed),
        ] {
            refused_from_client(version, &[(&format!("a2: {rest}"), error, reason)]);
        }
        let text = format!("a0: 0001 {p} s'a'");
        let error = DecodeError::Flags { packet, flags: 0 };
        refused_from_client(version, &[(&text, error, malformed)]);
    }
    let property = PropertyId::SubscriptionIdentifier;
    let foreign = DecodeError::PropertyNotAllowed { property, packet };
    refused_from_client(V5, &[("a2: 0001 ( 0b 01 ) s'a'", foreign, malformed)]);
}

#[test]
fn subacks_survive_the_wire() {
    use Reason::*;
    for (version, text, reasons, reason_string) in [
        (
            V311,
            "90 06 0001 00 01 02 80",
            &[Success, GrantedQoS1, GrantedQoS2, UnspecifiedError][..],
            None,
        ),
        (
            V5,
            "90 07 0001 00 00 01 02 87",
            &[Success, GrantedQoS1, GrantedQoS2, NotAuthorized],
            None,
        ),
        (V5, "90: 0001 ( 1f s'no' ) 8f", &[TopicFilterInvalid], Some("no")),
    ] {
        let out = encoded(|out| encode_suback(version, id(1), reasons, reason_string, out));
        assert_eq!(out, wire(text), "{text}");
        let Ok(ServerPacket::SubAck(suback)) = from_server(version, text) else { panic!("{text}") };
        assert_eq!(suback.packet_id, id(1));
        assert_eq!(suback.reason_string, reason_string);
        assert_eq!(suback.reasons().collect::<Vec<_>>(), reasons, "{text}");
    }
    // 3.1.1 has one code for every refusal [v3 MQTT-3.9.3-2].
    let out = encoded(|out| {
        encode_suback(V311, id(1), &[NotAuthorized, GrantedQoS1, QuotaExceeded], Some("no"), out);
    });
    assert_eq!(out, wire("90 05 0001 80 01 80"));
}

#[test]
fn unsubacks_survive_the_wire() {
    use Reason::*;
    for (version, text, reasons, reason_string) in [
        (V311, "b0 02 0001", &[][..], None),
        (V5, "b0 06 0001 00 00 11 87", &[Success, NoSubscriptionExisted, NotAuthorized], None),
        (V5, "b0: 0001 ( 1f s'no' ) 8f", &[TopicFilterInvalid], Some("no")),
    ] {
        let out = encoded(|out| encode_unsuback(version, id(1), reasons, reason_string, out));
        assert_eq!(out, wire(text), "{text}");
        let Ok(ServerPacket::UnsubAck(ack)) = from_server(version, text) else { panic!("{text}") };
        assert_eq!(ack.packet_id, id(1));
        assert_eq!(ack.reason_string, reason_string);
        assert_eq!(ack.reasons().collect::<Vec<_>>(), reasons, "{text}");
    }
    let out = encoded(|out| encode_unsuback(V311, id(1), &[Success, NotAuthorized], None, out));
    assert_eq!(out, wire("b0 02 0001"));
}

/// [v3 MQTT-3.9.3-2, v5 MQTT-3.9.3-2, MQTT-3.11.3-2]
#[test]
fn acknowledgements_of_subscriptions_are_strict() {
    let code = |packet, code| DecodeError::ReasonCode { packet, code };
    let (sub, unsub) = (PacketType::SubAck, PacketType::UnsubAck);
    refused_from_server(
        V311,
        &[
            ("90: 0001", DecodeError::NoCodes),
            ("90: 0001 03", code(sub, 3)),
            ("90: 0001 87", code(sub, 0x87)),
            ("90: 0000 00", DecodeError::PacketIdZero),
            ("b0: 0001 00", DecodeError::Trailing { packet: unsub, bytes: 1 }),
        ],
    );
    refused_from_server(
        V5,
        &[
            ("90: 0001 00", DecodeError::NoCodes),
            ("90: 0001 00 03", code(sub, 3)),
            ("90: 0001 00 00 11", code(sub, 0x11)),
            ("b0: 0001 00", DecodeError::NoCodes),
            ("b0: 0001 00 01", code(unsub, 1)),
            (
                "b0: 0001 ( 0b 01 ) 00",
                DecodeError::PropertyNotAllowed {
                    property: PropertyId::SubscriptionIdentifier,
                    packet: unsub,
                },
            ),
        ],
    );
}
