//! Reason codes and what becomes of them in 3.1.1.

use super::*;
use crate::QoS;

#[test]
fn reason_codes_are_what_the_specification_lists() {
    let codes: Vec<u8> = Reason::ALL.iter().map(|reason| reason.code()).collect();
    let mut listed = wire("00 01 02 04 10 11 18 19").to_vec();
    listed.extend(0x80..=0xa2);
    assert_eq!(codes, listed);
    for code in 0..=u8::MAX {
        assert_eq!(Reason::try_from(code).is_ok(), listed.contains(&code), "{code:#04x}");
    }
    assert_eq!(Reason::try_from(0x03).unwrap_err().to_string(), "0x03 is not a reason code");
}

/// [v3 table 3.1]: 3.1.1 knows five refusals.
#[test]
fn connack_return_codes_of_mqtt_3() {
    use Reason::*;
    for reason in Reason::ALL {
        let code = match reason {
            UnsupportedProtocolVersion => 1,
            ClientIdentifierNotValid => 2,
            BadUserNameOrPassword | BadAuthenticationMethod => 4,
            NotAuthorized | Banned | TopicNameInvalid => 5,
            reason if reason.is_error() => 3,
            _ => 0,
        };
        assert_eq!(reason.connack_v311(), code, "{reason:?}");
    }
}

#[test]
fn granted_codes_are_the_qos() {
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        assert_eq!(Reason::granted(qos).code(), qos as u8);
        assert_eq!(QoS::try_from(qos as u8), Ok(qos));
    }
    assert_eq!(QoS::try_from(3).unwrap_err().to_string(), "3 is not a QoS");
    assert!(QoS::AtMostOnce < QoS::AtLeastOnce && QoS::AtLeastOnce < QoS::ExactlyOnce);
}

#[test]
fn errors_name_what_was_wrong() {
    use crate::{PacketType, PropertyId};
    for (error, message) in [
        (DecodeError::TooLarge { size: 2, limit: 1 }, "packet of 2 bytes exceeds the limit of 1"),
        (
            DecodeError::SubscriptionOptions(0x44),
            "subscription option byte 0x44 has reserved bits set",
        ),
        (DecodeError::Flags { packet: PacketType::PubRel, flags: 0 }, "PUBREL with flags 0b0000"),
        (
            DecodeError::Trailing { packet: PacketType::PingReq, bytes: 3 },
            "3 bytes after the end of PINGREQ",
        ),
        (
            DecodeError::ReasonCode { packet: PacketType::PubAck, code: 1 },
            "reason code 0x01 does not belong into PUBACK",
        ),
        (
            DecodeError::PropertyValue { property: PropertyId::ReceiveMaximum, value: 0 },
            "ReceiveMaximum of 0",
        ),
        (
            DecodeError::RepeatedProperty(PropertyId::TopicAlias),
            "TopicAlias appears more than once",
        ),
    ] {
        assert_eq!(error.to_string(), message);
    }
}
