//! The table of properties, and the encoded form in which publications carry theirs.

use super::*;
use crate::properties::{self, Builder, Property};

/// A valid encoding of every property, and the packets that may carry it [v5 table 2-4].
const TABLE: [(&str, &str); 27] = [
    ("01 01", "publish will"),
    ("02 00000001", "publish will"),
    ("03 s'x'", "publish will"),
    ("08 s'x'", "publish will"),
    ("09 0001 00", "publish will"),
    ("0b 01", "publish subscribe"),
    ("11 00000001", "connect connack disconnect"),
    ("12 s'x'", "connack"),
    ("13 0001", "connack"),
    ("15 s'x'", "connect connack auth"),
    ("16 0001 00", "connect connack auth"),
    ("17 01", "connect"),
    ("18 00000001", "will"),
    ("19 01", "connect"),
    ("1a s'x'", "connack"),
    ("1c s'x'", "connack disconnect"),
    ("1f s'x'", "connack puback pubrec pubrel pubcomp suback unsuback disconnect auth"),
    ("21 0001", "connect connack"),
    ("22 0001", "connect connack"),
    ("23 0001", "publish"),
    ("24 01", "connack"),
    ("25 01", "connack"),
    (
        "26 s'k' s'v'",
        "connect connack publish will puback pubrec pubrel pubcomp subscribe suback unsubscribe unsuback disconnect auth",
    ),
    ("27 00000001", "connect connack"),
    ("28 01", "connack"),
    ("29 01", "connack"),
    ("2a 01", "connack"),
];

/// A packet of each kind with `@` where its properties go.
const PLACES: [(&str, &str); 14] = [
    ("connect", "10: s'MQTT' 05 02 0000 ( @ ) s'c'"),
    ("will", "10: s'MQTT' 05 06 0000 00 s'c' ( @ ) s'w' s'x'"),
    ("connack", "20: 00 00 ( @ )"),
    ("publish", "30: s'a' ( @ )"),
    ("puback", "40: 0001 00 ( @ )"),
    ("pubrec", "50: 0001 00 ( @ )"),
    ("pubrel", "62: 0001 00 ( @ )"),
    ("pubcomp", "70: 0001 00 ( @ )"),
    ("subscribe", "82: 0001 ( @ ) s'a' 00"),
    ("suback", "90: 0001 ( @ ) 00"),
    ("unsubscribe", "a2: 0001 ( @ ) s'a'"),
    ("unsuback", "b0: 0001 ( @ ) 00"),
    ("disconnect", "e0: 00 ( @ )"),
    ("auth", "f0: 18 ( @ )"),
];

/// What either side makes of a packet: some belong to one side only.
fn verdict(text: &str) -> Result<(), DecodeError> {
    match (from_client(V5, text), from_server(V5, text)) {
        (Ok(_), _) | (_, Ok(_)) => Ok(()),
        (
            Err(DecodeError::Unexpected(_) | DecodeError::PropertyFromWrongSide { .. }),
            Err(error),
        )
        | (Err(error), _) => Err(error),
    }
}

/// [v5 section 2.2.2.2]: all 27 properties in all 14 places, once and twice.
#[test]
fn every_property_belongs_where_the_table_says() {
    for (place, packet) in PLACES {
        for (property, places) in TABLE {
            let allowed = places.split(' ').any(|allowed| allowed == place);
            // Alone these would break another rule, so the method they need comes along.
            let companion = match (place, &property[..2]) {
                ("connect", "16") | ("auth", _) if &property[..2] != "15" => "15 s'm'",
                _ => "",
            };
            let once = packet.replace('@', &format!("{companion} {property}"));
            match verdict(&once) {
                Ok(()) => assert!(allowed, "{once}"),
                Err(DecodeError::PropertyNotAllowed { .. }) => assert!(!allowed, "{once}"),
                Err(error) => panic!("{once}: {error}"),
            }
            if allowed {
                let twice = packet.replace('@', &format!("{companion} {property} {property}"));
                let repeatable = matches!(&property[..2], "26" | "0b" if place != "subscribe" || &property[..2] == "26");
                match verdict(&twice) {
                    Ok(()) => assert!(repeatable, "{twice}"),
                    Err(DecodeError::RepeatedProperty(_)) => assert!(!repeatable, "{twice}"),
                    Err(error) => panic!("{twice}: {error}"),
                }
            }
        }
    }
}

/// [v5 section 2.2.2.2]
#[test]
fn unknown_properties_are_refused_everywhere() {
    for (place, packet) in PLACES {
        for id in (0..=0x7f_u32)
            .filter(|id| TABLE.iter().all(|(property, _)| property[..2] != format!("{id:02x}")))
        {
            let text = packet.replace('@', &format!("{id:02x} 00"));
            assert_eq!(verdict(&text), Err(DecodeError::UnknownProperty(id)), "{place}");
        }
    }
}

/// [v5 sections 3.1.2.11.6, 3.1.2.11.7, 3.2.2.3]: bytes that say yes or no say nothing else.
#[test]
fn flags_are_0_or_1() {
    for (id, place) in [
        ("01", "publish"),
        ("01", "will"),
        ("17", "connect"),
        ("19", "connect"),
        ("24", "connack"),
        ("25", "connack"),
        ("28", "connack"),
        ("29", "connack"),
        ("2a", "connack"),
    ] {
        let (_, packet) = PLACES.into_iter().find(|(name, _)| *name == place).unwrap();
        for value in 0..=u8::MAX {
            let text = packet.replace('@', &format!("{id} {value:02x}"));
            match verdict(&text) {
                Ok(()) => assert!(value <= 1, "{text}"),
                Err(DecodeError::PropertyValue { .. }) => assert!(value > 1, "{text}"),
                Err(error) => panic!("{text}: {error}"),
            }
        }
    }
}

fn all() -> Vec<Property<'static>> {
    vec![
        Property::User("first", "1"),
        Property::PayloadFormat(true),
        Property::ContentType("application/json"),
        Property::ResponseTopic("r/t"),
        Property::CorrelationData(b"\0\xff"),
        Property::User("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        Property::User("first", "2"),
        Property::User("", ""),
    ]
}

fn build(properties: &[Property<'_>]) -> Vec<u8> {
    let mut builder = Builder::new();
    for property in properties {
        builder.add(*property).unwrap();
    }
    builder.finish()
}

#[test]
fn properties_are_built_and_read_in_order() {
    let raw = build(&all());
    assert_eq!(properties::iter(&raw).collect::<Vec<_>>(), all());
    assert!(properties::is_valid(&raw));
    assert_eq!(
        build(&[Property::PayloadFormat(false), Property::User("k", "v")]),
        wire("01 00 26 s'k' s'v'")
    );
    assert_eq!(build(&[]), b"");
    assert!(properties::is_valid(b""));
}

#[test]
fn user_properties_are_found_by_name() {
    let raw = build(&all());
    assert_eq!(properties::user(&raw, "first"), Some("1"));
    assert_eq!(properties::user(&raw, ""), Some(""));
    assert_eq!(properties::user(&raw, "Traceparent"), None);
    assert!(properties::traceparent(&raw).is_some_and(|parent| parent.starts_with("00-4bf9")));
    assert_eq!(properties::traceparent(b""), None);
}

#[test]
fn foreign_bytes_are_not_properties_of_a_publication() {
    for (text, readable) in [
        ("23 0001", 0),
        ("0b 01", 0),
        ("02 00000001", 0),
        ("18 00000001", 0),
        ("08 s'a/#'", 1),
        ("01 01 ff", 1),
        ("01 01 03", 1),
        ("01 01 01 01", 1),
        ("26 s'k' s'v' 26 s'k'", 1),
    ] {
        assert_eq!(properties::iter(wire(text)).count(), readable, "{text}");
        assert!(!properties::is_valid(wire(text)), "{text}");
    }
}

#[test]
fn properties_that_do_not_fit_are_refused_whole() {
    let long = "x".repeat(65_536);
    let mut builder = Builder::new();
    for property in [
        Property::ContentType(&long),
        Property::ResponseTopic(&long),
        Property::CorrelationData(long.as_bytes()),
        Property::User(&long, ""),
        Property::User("", &long),
    ] {
        let error = builder.add(property).unwrap_err();
        assert_eq!(error.to_string(), "property of 65536 bytes exceeds 65535");
    }
    assert_eq!(builder.clone().finish(), b"");
    builder.add(Property::ContentType(&long[1..])).unwrap();
    assert_eq!(builder.finish().len(), 3 + 65_535);
}
