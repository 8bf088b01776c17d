use serde_json::{Value, json};

use super::checkpoint::{load, reloaded};
use super::*;

const HOUR: u64 = 3_600_000;

fn session(number: u64) -> Bytes {
    u128::from(number).to_be_bytes().to_vec().into()
}

/// A client that ends with its connection, at a time, heard or not.
fn visit(at: u64, heard: bool) -> Connect {
    let presence = Some(Presence {
        session: session(at),
        principal: "p".into(),
        thing: None,
        ip: Some("192.0.2.1".into()),
    });
    Connect { expiry_secs: 0, at, presence, heard, ..client("c") }
}

fn lasting(connect: Connect) -> Connect {
    Connect { expiry_secs: NEVER, ..connect }
}

/// What the outbox tells, shortly: event, number, session and reason.
fn told(probe: &Probe) -> Vec<String> {
    let bodies = probe.outbox_of().into_iter().map(|(topic, payload)| {
        let body: Value = serde_json::from_str(&payload).unwrap();
        let kind = body["eventType"].as_str().unwrap();
        assert!(topic.ends_with(&format!("/{kind}/c")), "{topic}");
        let number = body["versionNumber"].as_u64().map_or("-".into(), |number| number.to_string());
        let reason = body["disconnectReason"].as_str().unwrap_or_default();
        let session: uuid::Uuid = body["sessionIdentifier"].as_str().unwrap().parse().unwrap();
        let session = session.as_u128();
        format!("{kind} {number} s{session} {reason}").trim_end().to_owned()
    });
    bodies.collect()
}

enum Step {
    /// At a time, heard or not.
    Connect(u64, bool),
    /// Of a session that lasts.
    Lasting(u64),
    End(u64, DisconnectReason, bool),
    /// The end of a connection that the shard has not heard of before.
    Stranger(u64),
    Expire(u64),
    Reload,
}

#[test]
fn connections_are_told_and_numbered() {
    use DisconnectReason::{ClientInitiatedDisconnect, ConnectionLost};
    use Step::{Connect, End, Expire, Lasting, Reload, Stranger};
    let end = |at| End(at, ConnectionLost, true);
    let unheard = |at| End(at, ConnectionLost, false);
    for (case, steps, expected) in [
        (
            "each connection has the next number",
            vec![Connect(1, true), end(2), Connect(3, true), end(4)],
            &[
                "connected 0 s1",
                "disconnected 0 s1 CONNECTION_LOST",
                "connected 1 s3",
                "disconnected 1 s3 CONNECTION_LOST",
            ][..],
        ),
        (
            "a goodbye",
            vec![Connect(1, true), End(2, ClientInitiatedDisconnect, true)],
            &["connected 0 s1", "disconnected 0 s1 CLIENT_INITIATED_DISCONNECT"],
        ),
        (
            "who began to listen in between hears the end",
            vec![Connect(1, false), end(2), Connect(3, true)],
            &["disconnected 0 s1 CONNECTION_LOST", "connected 1 s3"],
        ),
        (
            "nobody was told of the first, so it does not count",
            vec![Connect(1, false), unheard(2), Connect(3, true)],
            &["connected 0 s3"],
        ),
        (
            "what was told once is counted on although nobody listens",
            vec![Connect(1, true), unheard(2), Connect(3, false), unheard(4), Connect(5, true)],
            &["connected 0 s1", "connected 2 s5"],
        ),
        (
            "a takeover ends the older one",
            vec![Connect(1, true), Connect(2, true), end(3)],
            &[
                "connected 0 s1",
                "disconnected 0 s1 DUPLICATE_CLIENTID",
                "connected 1 s2",
                "disconnected 1 s2 CONNECTION_LOST",
            ],
        ),
        (
            "a session that goes on keeps its identifier, also when it is taken over",
            vec![Lasting(1), end(2), Lasting(3), Lasting(4)],
            &[
                "connected 0 s1",
                "disconnected 0 s1 CONNECTION_LOST",
                "connected 1 s1",
                "disconnected 1 s1 DUPLICATE_CLIENTID",
                "connected 2 s1",
            ],
        ),
        (
            "an hour later it begins again",
            vec![Connect(1, true), end(2), Connect(2 + HOUR, true)],
            &["connected 0 s1", "disconnected 0 s1 CONNECTION_LOST", "connected 0 s3600002"],
        ),
        (
            "but a session that lasts counts on",
            vec![Lasting(1), end(2), Lasting(2 + HOUR)],
            &["connected 0 s1", "disconnected 0 s1 CONNECTION_LOST", "connected 1 s1"],
        ),
        (
            "a connection that is heard of at its end",
            vec![Stranger(1), Stranger(2), Connect(3, true)],
            &[
                "disconnected 0 s9 CONNECTION_LOST",
                "disconnected 1 s9 CONNECTION_LOST",
                "connected 2 s3",
            ],
        ),
        (
            "the end of a session keeps the number for the rest of the hour",
            vec![Connect(1, true), end(2), Reload, Connect(HOUR, true)],
            &["connected 0 s1", "disconnected 0 s1 CONNECTION_LOST", "connected 1 s3600000"],
        ),
        ("an end without a beginning", vec![end(1), unheard(2), Expire(3)], &[]),
    ] {
        for reload in [false, true] {
            let mut probe = Probe::default();
            for step in &steps {
                let (client, epoch) = probe.fence("c");
                match step {
                    &Connect(at, heard) => drop(probe.connected(visit(at, heard))),
                    &Lasting(at) => drop(probe.connected(lasting(visit(at, true)))),
                    &End(at, reason, heard) => {
                        let reason = reason.into();
                        let end =
                            Disconnect { client, epoch, at, reason, heard, ..Default::default() };
                        probe.told(end);
                    }
                    &Stranger(at) => {
                        let presence = Presence { session: session(9), ..Presence::default() };
                        let (event, reason) = (Event::Disconnected.into(), ConnectionLost.into());
                        let presence = Some(presence);
                        let told =
                            Announce { client, at, presence, event, reason, ..Default::default() };
                        assert_eq!(probe.told(told), Outcome::Announced);
                    }
                    &Expire(at) => {
                        probe.told(super::Expire { client, epoch, at, discard_will: false });
                    }
                    Reload => probe.shard = reloaded(&probe.shard),
                }
                if reload {
                    probe.shard = reloaded(&probe.shard);
                }
            }
            assert_eq!(told(&probe), expected, "{case}");
        }
    }
}

#[test]
fn an_end_is_told_once() {
    let mut probe = Probe::default();
    let epoch = probe.connected(lasting(visit(1, true))).epoch;
    let client = Bytes::from_static(b"c");
    let end = Disconnect { client, epoch, at: 2, heard: true, ..Disconnect::default() };
    probe.told(end.clone());
    probe.told(end);
    assert_eq!(told(&probe), ["connected 0 s1", "disconnected 0 s1 SERVER_ERROR"]);
}

#[test]
fn a_node_that_dies_is_told_by_whoever_leads() {
    let mut probe = Probe::default();
    probe.connected(visit(1, false));
    probe.connected(Connect { client: Bytes::from_static(b"unheard"), ..visit(1, false) });
    for command in probe.ends_of(|_| true, |client| client == b"c", 9) {
        probe.told(command);
    }
    assert_eq!(told(&probe), ["disconnected 0 s1 SERVER_ERROR"]);
}

/// The topics and bodies as they are on the wire.
#[test]
fn events_say_what_aws_says() {
    let mut probe = Probe::default();
    let at = 1_573_002_230_757;
    let thing = Some("lamp".to_owned());
    let presence = Presence { thing, ..visit(at, true).presence.unwrap() };
    let id = uuid::Uuid::from_slice(&presence.session).unwrap().to_string();
    probe.connected(Connect { presence: Some(presence.clone()), ..visit(at, true) });
    let (client, epoch) = probe.fence("c");
    for event in [Event::Subscribed, Event::Unsubscribed] {
        let (event, topics) = (event.into(), vec!["a/b".into(), "c/#".into()]);
        let client = client.clone();
        probe.told(Announce { client, epoch, at, event, topics, ..Announce::default() });
    }
    probe.told(Disconnect { client: client.clone(), epoch, at, heard: true, ..Default::default() });
    let event = Event::ConnectFailed.into();
    probe.told(Announce { client, at, presence: Some(presence), event, ..Announce::default() });
    let prefix = "$aws/events";
    let expected = [
        (
            format!("{prefix}/presence/connected/c"),
            json!({"clientId": "c", "thingName": "lamp", "timestamp": at, "eventType": "connected",
                "sessionIdentifier": id, "principalIdentifier": "p", "ipAddress": "192.0.2.1",
                "versionNumber": 0}),
        ),
        (
            format!("{prefix}/subscriptions/subscribed/c"),
            json!({"clientId": "c", "timestamp": at, "eventType": "subscribed",
                "sessionIdentifier": id, "principalIdentifier": "p", "topics": ["a/b", "c/#"]}),
        ),
        (
            format!("{prefix}/subscriptions/unsubscribed/c"),
            json!({"clientId": "c", "timestamp": at, "eventType": "unsubscribed",
                "sessionIdentifier": id, "principalIdentifier": "p", "topics": ["a/b", "c/#"]}),
        ),
        (
            format!("{prefix}/presence/disconnected/c"),
            json!({"clientId": "c", "thingName": "lamp", "timestamp": at,
                "eventType": "disconnected", "sessionIdentifier": id, "principalIdentifier": "p",
                "clientInitiatedDisconnect": false, "disconnectReason": "SERVER_ERROR",
                "versionNumber": 0}),
        ),
        (
            format!("{prefix}/presence/connect_failed/c"),
            json!({"clientId": "c", "timestamp": at, "eventType": "connect_failed",
                "connectFailureReason": "AUTHORIZATION_FAILED", "sessionIdentifier": id,
                "principalIdentifier": "p", "ipAddress": "192.0.2.1"}),
        ),
    ];
    let said = probe.outbox_of().into_iter();
    let said = said.map(|(topic, body)| (topic, serde_json::from_str::<Value>(&body).unwrap()));
    assert_eq!(said.collect::<Vec<_>>(), expected);
}

#[test]
fn clients_whose_names_are_filters_have_no_events() {
    for (client, topic) in [
        ("a", Some("$aws/events/presence/connected/a")),
        ("a/b", Some("$aws/events/presence/connected/a/b")),
        ("a+", None),
        ("#", None),
    ] {
        assert_eq!(Event::Connected.topic(client).as_deref(), topic);
    }
    assert_eq!(Event::Subscribed.topic(&"x".repeat(65_535)), None);
}

/// What is said of a connection that is not the session's present one.
#[test]
fn nothing_is_told_of_strangers() {
    let mut probe = Probe::default();
    probe.connected(client("c"));
    let (client, epoch) = probe.fence("c");
    let event = Event::Subscribed.into();
    let of = |epoch, event| {
        let client = client.clone();
        Announce { client, epoch, event, ..Announce::default() }
    };
    for (case, command, outcome) in [
        ("an older connection", of(epoch - 1, event), Outcome::Stale),
        ("a session without presence", of(epoch, event), Outcome::Stale),
        ("an event of a later version", of(epoch, 99), Outcome::Invalid),
        ("what only a session can tell", of(epoch, Event::Connected.into()), Outcome::Stale),
    ] {
        assert_eq!(probe.told(command), outcome, "{case}");
        assert!(probe.effects.is_empty(), "{case}");
    }
}

/// What the version before lifecycle events has written of a session.
#[derive(Clone, PartialEq, prost::Message)]
struct SessionBefore {
    #[prost(bytes = "bytes", tag = "1")]
    client: Bytes,
    #[prost(uint64, tag = "2")]
    epoch: u64,
    #[prost(uint64, tag = "3")]
    node: u64,
    #[prost(uint32, tag = "6")]
    expiry_secs: u32,
    #[prost(uint32, tag = "7")]
    version: u32,
}

#[test]
fn sessions_of_the_version_before_are_read_and_end_unheard() {
    let mut probe = Probe::default();
    probe.connected(lasting(Connect { node: 9, ..client("c") }));
    let mut store: std::collections::BTreeMap<_, _> = probe.dump().into_iter().collect();
    let before = SessionBefore {
        client: Bytes::from_static(b"c"),
        epoch: 1,
        node: 9,
        expiry_secs: NEVER,
        version: 5,
    };
    let key = store.keys().find(|key| key[0] == b's').unwrap().clone();
    store.insert(key, [&[1][..], &prost::Message::encode_to_vec(&before)].concat());
    probe.shard = load(&store).unwrap();
    let (client, epoch) = probe.fence("c");
    probe.told(Disconnect { client, epoch, at: 5, heard: true, ..Disconnect::default() });
    assert_eq!(told(&probe), [""; 0]);
    assert!(probe.connected(lasting(visit(6, true))).session_present);
    assert_eq!(told(&probe), ["connected 0 s6"]);
}
