//! Fixed headers: packet types, flags, remaining length; and the data types below the packets.

use super::*;
use crate::codec::{put_string, put_varint, varint_len};
use crate::{AckKind, MAX_PACKET_SIZE, PacketType, encode_pingreq, encode_pingresp, frame};

#[test]
fn frame_tells_the_length_of_the_first_packet() {
    for (text, length) in [
        ("", None),
        ("30", None),
        ("30 80", None),
        ("30 ffffff", None),
        ("c0 00", Some(2)),
        ("c0 00 c0", Some(2)),
        ("30 7f", Some(129)),
        ("30 8001", Some(131)),
        ("30 ff7f", Some(16_386)),
        ("30 808001", Some(16_388)),
        ("30 ffff7f", Some(2_097_155)),
        ("30 80808001", Some(2_097_157)),
        ("30 ffffff7f", Some(268_435_460)),
        // Four bytes for a small number: some clients reserve the space and fill it in later.
        ("30 85808000", Some(10)),
    ] {
        assert_eq!(frame(wire(text), MAX_PACKET_SIZE), Ok(length), "{text}");
    }
}

#[test]
fn frame_refuses_oversized_packets_before_their_body() {
    for (text, limit, size) in
        [("30 7f", 128, 129), ("30 8001", 130, 131), ("10 ffffff7f", 0, 268_435_460)]
    {
        assert_eq!(frame(wire(text), limit), Err(DecodeError::TooLarge { size, limit }));
        assert_eq!(frame(wire(text), size), Ok(Some(size as usize)));
    }
    assert_eq!(DecodeError::TooLarge { size: 2, limit: 1 }.reason(), Reason::PacketTooLarge);
}

/// [v5 MQTT-1.5.5-1, v3 section 2.2.3]: the fourth byte is the last.
#[test]
fn a_remaining_length_ends_with_its_fourth_byte() {
    let error = DecodeError::VarIntTooLong("remaining length");
    for text in ["30 80808080", "30 ffffffff", "30 ffffffff7f"] {
        assert_eq!(frame(wire(text), u32::MAX), Err(error), "{text}");
    }
    for version in BOTH {
        assert_eq!(from_client(version, "30 8080808000"), Err(error));
    }
    assert_eq!(error.reason(), Reason::MalformedPacket);
}

/// [v3 MQTT-2.2.2-1, MQTT-2.2.2-2, v5 MQTT-2.1.3-1]: of 256 first bytes only these start a packet.
#[test]
fn types_and_flags_are_judged_by_the_first_byte() {
    let valid = [
        0x10, 0x20, 0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x3a, 0x3b, 0x3c, 0x3d, 0x40, 0x50, 0x62,
        0x70, 0x82, 0x90, 0xa2, 0xb0, 0xc0, 0xd0, 0xe0, 0xf0,
    ];
    for first in 0..=u8::MAX {
        let packet = PacketType::of(first);
        let expected = match first {
            _ if valid.contains(&first) => Ok(None),
            0x00..=0x0f => Err(DecodeError::PacketTypeZero),
            0x36 | 0x37 | 0x3e | 0x3f => Err(DecodeError::PublishQoS),
            0x38 | 0x39 => Err(DecodeError::DuplicateQoS0),
            _ => Err(DecodeError::Flags { packet: packet.unwrap(), flags: first & 0x0f }),
        };
        assert_eq!(frame(&[first], MAX_PACKET_SIZE), expected, "{first:#04x}");
        if let Err(error) = expected {
            assert_eq!(error.reason(), Reason::MalformedPacket, "{first:#04x}");
            for version in BOTH {
                assert_eq!(decode(&[first, 0], version), Err(error));
                assert_eq!(decode_server(&[first, 0], version), Err(error));
            }
        }
    }
}

/// [v5 MQTT-1.5.5-1]: 3.1.1 does not ask for the shortest form.
#[test]
fn mqtt_5_wants_integers_in_the_fewest_bytes() {
    for text in ["c0 8000", "c0 808000", "c0 80808000"] {
        let error = DecodeError::VarIntNotMinimal("remaining length");
        assert_eq!(from_client(V311, text), Ok(Packet::PingReq));
        assert_eq!(from_client(V5, text), Err(error), "{text}");
        assert_eq!(error.reason(), Reason::MalformedPacket);
    }
    let error = DecodeError::VarIntNotMinimal("property length");
    assert_eq!(from_client(V5, "30: s'a' 8000"), Err(error));
    let error = DecodeError::VarIntNotMinimal("property identifier");
    assert_eq!(from_client(V5, "30: s'a' ( a30000 01 )"), Err(error));
    let error = DecodeError::VarIntNotMinimal("property value");
    assert_eq!(from_client(V5, "82: 0001 ( 0b 8100 ) s'a' 00"), Err(error));
}

/// [v5 MQTT-1.5.5-1]
#[test]
fn variable_byte_integers_are_written_in_the_fewest_bytes() {
    for (value, bytes) in [
        (0, "00"),
        (127, "7f"),
        (128, "8001"),
        (16_383, "ff7f"),
        (16_384, "808001"),
        (2_097_151, "ffff7f"),
        (2_097_152, "80808001"),
        (268_435_455, "ffffff7f"),
    ] {
        assert_eq!(encoded(|out| put_varint(out, value)), wire(bytes), "{value}");
        assert_eq!(varint_len(value), wire(bytes).len(), "{value}");
    }
}

#[test]
fn strings_beyond_their_length_prefix_are_cut_between_characters() {
    let text = "ä".repeat(40_000);
    let out = encoded(|out| put_string(out, &text));
    assert_eq!(out.len(), 2 + 65_534);
    assert_eq!(&out[..2], b"\xff\xfe");
    assert!(std::str::from_utf8(&out[2..]).is_ok());
}

#[test]
fn decoding_wants_exactly_one_packet() {
    for version in BOTH {
        for (text, stated, actual) in [("c0 01", 1, 0), ("c0 00 00", 0, 1), ("30 06 s'a'", 6, 3)] {
            let error = DecodeError::Length { stated, actual };
            assert_eq!(from_client(version, text), Err(error), "{text}");
        }
        for text in ["", "30", "30 80"] {
            assert!(matches!(from_client(version, text), Err(DecodeError::Truncated(_))));
        }
    }
}

/// A packet cut anywhere is refused, unless what is left is a shorter packet by the rules; then it
/// says less. None panics.
#[test]
fn every_packet_cut_short_is_refused() {
    for text in [
        "10: s'MQTT' 05 ee 003c ( 11 00000001 ) s'c' ( 18 00000001 ) s'w' s'x' s'u' s'p'",
        "32: s'a/b' 0001 ( 01 01 26 s'k' s'v' )",
        "82: 0001 ( 0b 01 ) s'a' 01",
        "a2: 0001 ( 26 s'k' s'v' ) s'a'",
        "40: 0001 00 ( 1f s'ok' )",
        "e0: 00 ( 11 00000001 )",
        "f0: 18 ( 15 s'm' 16 0001 00 )",
    ] {
        assert!(from_client(V5, text).is_ok(), "{text}");
        let whole = wire(text);
        for end in 2..whole.len() {
            let mut cut = whole[..end].to_vec();
            cut[1] = (end - 2) as u8;
            let shorter_form = matches!((whole[0], end), (0x40, 4 | 5) | (0xe0, 2 | 3));
            assert_eq!(decode(&cut, V5).is_ok(), shorter_form, "{text} cut at {end}");
        }
    }
}

#[test]
fn pings_are_empty() {
    assert_eq!(encoded(encode_pingreq), wire("c0 00"));
    assert_eq!(encoded(encode_pingresp), wire("d0 00"));
    for version in BOTH {
        assert_eq!(from_client(version, "c0 00"), Ok(Packet::PingReq));
        assert_eq!(from_server(version, "d0 00"), Ok(ServerPacket::PingResp));
        let error = DecodeError::Trailing { packet: PacketType::PingReq, bytes: 1 };
        refused_from_client(version, &[("c0 01 00", error, Reason::MalformedPacket)]);
        let error = DecodeError::Trailing { packet: PacketType::PingResp, bytes: 2 };
        refused_from_server(version, &[("d0 02 0000", error)]);
    }
}

/// Table 2.1 of both versions says who sends what.
#[test]
fn packets_of_the_other_side_are_not_expected() {
    for version in BOTH {
        for text in ["20: 00 00", "90: 0001 00", "b0: 0001", "d0 00"] {
            let packet = PacketType::of(wire(text)[0]).unwrap();
            let row = (text, DecodeError::Unexpected(packet), Reason::ProtocolError);
            refused_from_client(version, &[row]);
        }
        for text in ["10: 00", "82: 0001", "a2: 0001", "c0 00"] {
            let packet = PacketType::of(wire(text)[0]).unwrap();
            refused_from_server(version, &[(text, DecodeError::Unexpected(packet))]);
        }
    }
    let auth = DecodeError::NotInV311(PacketType::Auth);
    refused_from_client(V311, &[("f0 00", auth, Reason::MalformedPacket)]);
    refused_from_server(V311, &[("f0 00", auth)]);
    refused_from_server(V311, &[("e0 00", DecodeError::Unexpected(PacketType::Disconnect))]);
}

#[test]
fn first_bytes_agree_with_packet_types() {
    for kind in [AckKind::PubAck, AckKind::PubRec, AckKind::PubRel, AckKind::PubComp] {
        let packet = PacketType::from(kind);
        assert_eq!(PacketType::of(packet.first_byte()), Some(packet));
    }
    assert_eq!(PacketType::PubRel.first_byte(), 0x62);
}
