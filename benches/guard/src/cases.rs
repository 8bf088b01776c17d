//! The paths that are counted. Each case does one operation at a time, and as often as is asked.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use fleet::shard::delivery::Dispatcher;
use fleet::shard::{
    Acknowledge, Command, Connect, Options, Outcome, Publication, Publish, Shard, Subscribe,
    Subscription,
};
use mqtt::session::{Inbound, InboundLimits, Receipt, Window};
use mqtt::{
    AckKind, MAX_PACKET_SIZE, Outgoing, Packet, PacketId, QoS, Reason, Version, decode, encode_ack,
    encode_publish, frame,
};
use policy::{Action, Arns, Compiled, Document, Request, Variables};
use topic::FilterTrie;

const TOPIC: &str = "fleet/truck-0042/telemetry";
const PAYLOAD: [u8; 256] = [b'x'; 256];
/// How many filters a publication is matched with.
const FILTERS: usize = 10_000;
/// How many sessions a shard has.
const SESSIONS: usize = 100;

/// Does an operation once.
type Operation = Box<dyn FnMut()>;

/// A path: its name, and what makes it ready.
type Case = (&'static str, fn() -> Operation);

/// All of them.
pub(crate) const CASES: &[Case] = &[
    ("decode_publish_qos1", decode_publish),
    ("encode_publish_qos1", encode),
    ("encode_puback", acknowledge),
    ("match_exact", || matching(exact)),
    ("match_wildcard", || matching(wildcard)),
    ("decide_publish", decide),
    ("session_inbound_qos1", inbound),
    ("session_inbound_qos2", inbound_exactly_once),
    ("session_outbound_qos1", outbound),
    ("dispatch_qos1", dispatch),
];

fn publication(qos: QoS) -> Outgoing<'static> {
    let packet_id = (qos != QoS::AtMostOnce).then_some(PacketId::MIN);
    Outgoing { qos, packet_id, ..Outgoing::new(TOPIC, &PAYLOAD) }
}

fn packet(qos: QoS) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_publish(Version::V5, &publication(qos), &mut bytes);
    bytes
}

fn decode_publish() -> Operation {
    let bytes = packet(QoS::AtLeastOnce);
    Box::new(move || {
        let length = frame(black_box(&bytes), MAX_PACKET_SIZE);
        assert!(matches!(length, Ok(Some(length)) if length == bytes.len()));
        assert!(matches!(decode(black_box(&bytes), Version::V5), Ok(Packet::Publish(_))));
    })
}

fn encode() -> Operation {
    let mut out = Vec::with_capacity(1024);
    Box::new(move || {
        out.clear();
        encode_publish(Version::V5, black_box(&publication(QoS::AtLeastOnce)), &mut out);
        black_box(&out);
    })
}

fn acknowledge() -> Operation {
    let mut out = Vec::with_capacity(64);
    Box::new(move || {
        out.clear();
        let (kind, id) = black_box((AckKind::PubAck, PacketId::MIN));
        encode_ack(Version::V5, kind, id, Reason::Success, None, &mut out);
        black_box(&out);
    })
}

/// A device's filter, and a name that it matches.
fn exact(device: usize) -> (String, String) {
    let name = format!("things/device-{device:07}/commands");
    (name.clone(), name)
}

/// The same, in each form with wildcards that fleets use.
fn wildcard(device: usize) -> (String, String) {
    match device % 3 {
        0 => (
            format!("things/device-{device:07}/events/#"),
            format!("things/device-{device:07}/events/door/open"),
        ),
        1 => (
            format!("things/device-{device:07}/+/state"),
            format!("things/device-{device:07}/lamp/state"),
        ),
        _ => (
            format!("+/site-{}/device-{device:07}/+", device % 512),
            format!("region-7/site-{}/device-{device:07}/temperature", device % 512),
        ),
    }
}

fn matching(of: fn(usize) -> (String, String)) -> Operation {
    let mut trie = FilterTrie::<u32>::new();
    let mut names = Vec::new();
    for device in 0..FILTERS {
        let (filter, name) = of(device);
        *trie.entry(filter.as_str()) += 1;
        names.push(name);
    }
    let mut next = 0;
    Box::new(move || {
        let mut found = 0;
        // In an order that follows none.
        next = (next + 7_919) % FILTERS;
        trie.for_each_match(black_box(&names[next]), |value| found += value);
        assert_eq!(found, 1);
    })
}

/// What a device that speaks of itself only may do.
fn decide() -> Operation {
    let allow = |(action, resource): (&str, &str)| {
        let arn = "arn:aws:iot:us-east-1:123456789012";
        format!(r#"{{"Effect":"Allow","Action":"{action}","Resource":"{arn}:{resource}"}}"#)
    };
    let statements = [
        ("iot:Connect", "client/${iot:ClientId}"),
        ("iot:Publish", "topic/fleet/${iot:ClientId}/*"),
        ("iot:Receive", "topic/fleet/${iot:ClientId}/*"),
        ("iot:Subscribe", "topicfilter/fleet/${iot:ClientId}/*"),
    ]
    .map(allow)
    .join(",");
    let json = format!(r#"{{"Version":"2012-10-17","Statement":[{statements}]}}"#);
    let document = Arc::new(Document::parse(&json).expect("it is a policy"));
    let arns = Arns {
        partition: "aws".to_owned(),
        region: "us-east-1".to_owned(),
        account: "123456789012".to_owned(),
    };
    let client_id = Some("truck-0042".to_owned());
    let compiled =
        Compiled::new(&[document], &arns, &Variables { client_id, ..Variables::default() });
    let request = Request { now_secs: Some(1_775_053_230), ..Request::default() };
    Box::new(move || {
        let decision = compiled.decide_topic(Action::Publish, black_box(TOPIC), &request);
        assert!(decision.is_allowed());
    })
}

fn session() -> Inbound {
    let limits = InboundLimits {
        receive_maximum: 100,
        topic_alias_maximum: 10,
        maximum_qos: QoS::ExactlyOnce,
    };
    Inbound::new(limits, Vec::new())
}

fn inbound() -> Operation {
    let (mut session, bytes) = (session(), packet(QoS::AtLeastOnce));
    Box::new(move || {
        let Ok(Packet::Publish(publish)) = decode(black_box(&bytes), Version::V5) else {
            panic!("it is a publication");
        };
        assert!(matches!(session.publish(&publish), Ok(Receipt::New)));
        assert_eq!(session.topic(&publish), TOPIC);
        session.acknowledged();
    })
}

fn inbound_exactly_once() -> Operation {
    let (mut session, bytes) = (session(), packet(QoS::ExactlyOnce));
    Box::new(move || {
        let Ok(Packet::Publish(publish)) = decode(black_box(&bytes), Version::V5) else {
            panic!("it is a publication");
        };
        assert!(matches!(session.publish(&publish), Ok(Receipt::New)));
        assert!(session.release(PacketId::MIN));
        session.acknowledged();
    })
}

fn outbound() -> Operation {
    let mut window = Window::new(100);
    Box::new(move || {
        assert!(window.has_room());
        let id = window.open_next(QoS::AtLeastOnce);
        black_box(window.puback(id));
    })
}

/// What the log brings of a publication of QoS 1 to one persistent session of many: it is queued, handed
/// out and acknowledged. The commands are encoded and decoded, as the log has them.
fn dispatch() -> Operation {
    const READS: &str = "this version has written it";
    let topic = |session: usize| format!("fleet/truck-{session:04}/commands");
    let (mut shard, mut dispatcher) = (Shard::new(), Dispatcher::new());
    let mut sessions = Vec::new();
    for n in 0..SESSIONS {
        let client = Bytes::from(format!("truck-{n:04}"));
        let connect = Connect {
            client: client.clone(),
            expiry_secs: 3_600,
            version: 5,
            queue_limit_bytes: 1 << 30,
            queue_limit_messages: 1 << 20,
            ..Connect::default()
        };
        let outcome = shard.apply(Command::from(connect).encoded()).expect(READS);
        let Outcome::Connected(connected) = outcome else { panic!("it is the first") };
        let (session, epoch) = (connected.session, connected.epoch);
        let options = Options { qos: 1, ..Options::default() };
        let filters = vec![Subscription { filter: topic(n), options }];
        let subscribe = Subscribe { client: client.clone(), epoch, filters };
        shard.apply(Command::from(subscribe).encoded()).expect(READS);
        assert!(dispatcher.attach(&shard, session, epoch, 100, n));
        let publication = Publication {
            topic: topic(n).into(),
            payload: Bytes::from_static(&PAYLOAD),
            qos: 1,
            publisher: Bytes::from_static(b"dispatcher-0001"),
            published_at: 1_700_000_000_000,
            ..Publication::default()
        };
        let publish = Publish { publication, enqueue: true, ..Publish::default() };
        sessions.push((session, client, epoch, publish, 0));
    }
    let mut next = 0;
    Box::new(move || {
        let (session, client, epoch, publish, seq) = &mut sessions[next];
        shard.apply(Command::from(publish.clone()).encoded()).expect(READS);
        let mut handed_out = 0;
        dispatcher.pump(&shard, *session, 0, &mut |_, delivery| {
            black_box(delivery);
            handed_out += 1;
        });
        assert_eq!(handed_out, 1);
        *seq += 1;
        dispatcher.acknowledged(*session, *seq);
        let acknowledge = Acknowledge {
            client: client.clone(),
            epoch: *epoch,
            seqs: vec![*seq],
            refused: vec![],
        };
        shard.apply(Command::from(acknowledge).encoded()).expect(READS);
        next = (next + 1) % SESSIONS;
    })
}
