//! Whatever is encoded decodes to the same, for packets nobody thought of.

use std::borrow::Cow;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::properties::{Builder, Property};
use crate::{
    Ack, AckKind, Connect, Delivery, Disconnect, Outgoing, PacketType, Publish, QoS,
    RetainHandling, SubscribeOptions, Will, decode_connect, encode_ack, encode_connect,
    encode_disconnect, encode_publish, encode_suback, encode_subscribe, encode_unsubscribe, frame,
    publish_size,
};

fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(V311), Just(V5)]
}

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)]
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(id)
}

fn text() -> impl Strategy<Value = String> {
    "[^\0]{0,40}"
}

fn topic() -> impl Strategy<Value = String> {
    "[^\0+#]{1,40}"
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..200)
}

prop_compose! {
    fn user_properties()(pairs in vec((text(), text()), 0..4)) -> Vec<u8> {
        let mut builder = Builder::new();
        for (name, value) in &pairs {
            builder.add(Property::User(name, value)).unwrap();
        }
        builder.finish()
    }
}

prop_compose! {
    fn raw_properties()(
        format in option::of(any::<bool>()),
        content_type in option::of(text()),
        response_topic in option::of(topic()),
        correlation in option::of(bytes()),
        user in user_properties(),
    ) -> Vec<u8> {
        let mut builder = Builder::new();
        format.map(|text| builder.add(Property::PayloadFormat(text)).map(drop));
        content_type.map(|text| builder.add(Property::ContentType(&text)).map(drop));
        response_topic.map(|topic| builder.add(Property::ResponseTopic(&topic)).map(drop));
        correlation.map(|data| builder.add(Property::CorrelationData(&data)).map(drop));
        let mut raw = builder.finish();
        raw.extend(user);
        raw
    }
}

prop_compose! {
    fn options()(
        qos in qos(),
        no_local: bool,
        retain_as_published: bool,
        retain_handling in prop_oneof![
            Just(RetainHandling::OnSubscribe),
            Just(RetainHandling::OnNewSubscription),
            Just(RetainHandling::Never),
        ],
    ) -> SubscribeOptions {
        SubscribeOptions { qos, no_local, retain_as_published, retain_handling }
    }
}

/// What is left of options in a version.
fn in_version(options: SubscribeOptions, version: Version) -> SubscribeOptions {
    if version == V5 { options } else { SubscribeOptions::at(options.qos) }
}

proptest! {
    #[test]
    fn publishes(
        version in version(),
        topic in topic(),
        alias in option::of(1..=u16::MAX),
        expiry in option::of(any::<u32>()),
        packet_id in packet_id(),
        qos in qos(),
        dup: bool,
        retain: bool,
        properties in raw_properties(),
        ids in vec(1..=268_435_455u32, 0..5),
        payload in bytes(),
    ) {
        let above_0 = qos != QoS::AtMostOnce;
        let outgoing = Outgoing {
            topic: &topic, alias, packet_id: Some(packet_id), qos, dup, retain,
            properties: &properties, expiry, subscription_ids: &ids, payload: &payload,
        };
        let out = encoded(|out| encode_publish(version, &outgoing, out));
        prop_assert_eq!(out.len(), publish_size(version, &outgoing));
        prop_assert_eq!(frame(&out, u32::MAX), Ok(Some(out.len())));
        let v5 = version == V5;
        let publish = Publish {
            dup: dup && above_0, qos, retain, topic: &topic, packet_id: above_0.then_some(packet_id),
            alias: alias.filter(|_| v5), expiry: expiry.filter(|_| v5),
            properties: Cow::Borrowed(if v5 { &properties } else { &[] }), payload: &payload,
        };
        let subscription_ids = if v5 { ids.iter().copied().collect() } else { Default::default() };
        prop_assert_eq!(
            decode_server(&out, version),
            Ok(ServerPacket::Publish(Delivery { publish: publish.clone(), subscription_ids }))
        );
        if ids.is_empty() || !v5 {
            prop_assert_eq!(decode(&out, version), Ok(Packet::Publish(publish)));
        }
    }

    #[test]
    fn connects(
        version in version(),
        clean_start: bool,
        keep_alive: u16,
        client_id in "[^\0]{1,23}",
        username in option::of(text()),
        password in option::of(bytes()),
        will in option::of((topic(), bytes(), qos(), any::<bool>(), any::<u32>(), option::of(any::<u32>()), raw_properties())),
        session_expiry in option::of(any::<u32>()),
        receive_maximum in 1..=u16::MAX,
        maximum_packet_size in option::of(1..=u32::MAX),
        topic_alias_maximum: u16,
        user in user_properties(),
    ) {
        let v5 = version == V5;
        let password = password.filter(|_| v5 || username.is_some());
        let mut connect = Connect {
            clean_start, keep_alive, username: username.as_deref(), password: password.as_deref(),
            will: will.as_ref().map(|(topic, payload, qos, retain, delay, expiry, properties)| Will {
                topic, payload, qos: *qos, retain: *retain, delay: *delay, expiry: *expiry,
                properties: Cow::Borrowed(properties),
            }),
            ..Connect::new(version, &client_id)
        };
        if v5 {
            connect.session_expiry = session_expiry;
            connect.receive_maximum = receive_maximum;
            connect.maximum_packet_size = maximum_packet_size;
            connect.topic_alias_maximum = topic_alias_maximum;
            connect.user_properties = Cow::Borrowed(&user);
        } else if let Some(will) = &mut connect.will {
            (will.delay, will.expiry, will.properties) = (0, None, Cow::Borrowed(&[][..]));
        }
        let out = encoded(|out| encode_connect(&connect, out));
        prop_assert_eq!(frame(&out, u32::MAX), Ok(Some(out.len())));
        prop_assert_eq!(decode_connect(&out), Ok(connect));
    }

    #[test]
    fn subscribes(
        version in version(),
        packet_id in packet_id(),
        subscription_id in option::of(1..=268_435_455u32),
        filters in vec((text(), options()), 1..9),
    ) {
        let filters: Vec<_> = filters
            .iter()
            .filter(|(filter, options)| !(filter.starts_with("$share/") && options.no_local))
            .map(|(filter, options)| (filter.as_str(), *options))
            .collect();
        prop_assume!(!filters.is_empty());
        let out = encoded(|out| encode_subscribe(version, packet_id, subscription_id, &filters, out));
        let Ok(Packet::Subscribe(subscribe)) = decode(&out, version) else {
            return Err(TestCaseError::fail("not a SUBSCRIBE"));
        };
        prop_assert_eq!(subscribe.packet_id, packet_id);
        prop_assert_eq!(subscribe.subscription_id, subscription_id.filter(|_| version == V5));
        let expected: Vec<_> =
            filters.iter().map(|(filter, options)| (*filter, in_version(*options, version))).collect();
        prop_assert_eq!(subscribe.filters().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn unsubscribes(version in version(), packet_id in packet_id(), filters in vec(text(), 1..9)) {
        let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
        let out = encoded(|out| encode_unsubscribe(version, packet_id, &filters, out));
        let Ok(Packet::Unsubscribe(unsubscribe)) = decode(&out, version) else {
            return Err(TestCaseError::fail("not an UNSUBSCRIBE"));
        };
        prop_assert_eq!(unsubscribe.filters().collect::<Vec<_>>(), filters);
    }

    #[test]
    fn subacks(packet_id in packet_id(), codes in vec(0usize..3, 1..9), text in option::of(text())) {
        let reasons: Vec<_> = codes
            .iter()
            .map(|code| [Reason::GRANTED_QOS_0, Reason::GrantedQoS1, Reason::NotAuthorized][*code])
            .collect();
        let out = encoded(|out| encode_suback(V5, packet_id, &reasons, text.as_deref(), out));
        let Ok(ServerPacket::SubAck(suback)) = decode_server(&out, V5) else {
            return Err(TestCaseError::fail("not a SUBACK"));
        };
        prop_assert_eq!(suback.reason_string, text.as_deref());
        prop_assert_eq!(suback.reasons().collect::<Vec<_>>(), reasons);
    }

    #[test]
    fn acks(packet_id in packet_id(), refused: bool, text in option::of(text())) {
        let reason = if refused { Reason::QuotaExceeded } else { Reason::Success };
        let ack = Ack { packet_id, reason, reason_string: text.as_deref() };
        let out = encoded(|out| {
            encode_ack(V5, AckKind::PubAck, packet_id, reason, text.as_deref(), out);
        });
        prop_assert_eq!(decode(&out, V5), Ok(Packet::PubAck(ack)));
    }

    #[test]
    fn disconnects(code in 0x80u8..=0x83, expiry in option::of(any::<u32>()), text in option::of(text())) {
        let disconnect = Disconnect {
            session_expiry: expiry,
            reason_string: text.as_deref(),
            ..Disconnect::new(Reason::try_from(code).unwrap())
        };
        let out = encoded(|out| encode_disconnect(V5, &disconnect, out));
        prop_assert_eq!(decode(&out, V5), Ok(Packet::Disconnect(disconnect)));
    }

    /// Random bytes after a random first byte: an error or a packet, never a panic.
    #[test]
    fn nothing_panics(first: u8, body in bytes(), version in version()) {
        let mut packet = vec![first];
        crate::codec::put_varint(&mut packet, body.len());
        packet.extend(body);
        let _ = decode(&packet, version);
        let _ = decode_server(&packet, version);
        let _ = decode_connect(&packet);
        prop_assert_eq!(PacketType::of(first).is_none(), first < 0x10);
    }
}
