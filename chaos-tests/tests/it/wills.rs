//! Wills of clients whose node dies with them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chaos_tests::client::lasting;
use chaos_tests::{Client, Dice, Node, PATIENCE};
use mqtt::Version::{self, V5, V311};
use mqtt::{AckKind, Connect, QoS, Will};

/// A client with a will whose node is killed.
struct Case {
    name: &'static str,
    version: Version,
    /// Seconds its session stays; `None`: it ends with the connection.
    session: Option<u32>,
    delay: u32,
    /// How it goes on: gone with the node, back after it, or gone in good order before.
    then: Then,
    /// How often the will is published.
    expected: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Then {
    Stays,
    Returns,
    LeavesBefore,
}

/// Longer than a start takes on a busy machine.
const DELAY: u32 = 8;

const CASES: &[Case] = &[
    Case {
        name: "clean 3.1.1",
        version: V311,
        session: None,
        delay: 0,
        then: Then::Stays,
        expected: 1,
    },
    Case {
        name: "lasting 3.1.1",
        version: V311,
        session: Some(0),
        delay: 0,
        then: Then::Stays,
        expected: 1,
    },
    Case { name: "clean", version: V5, session: None, delay: 0, then: Then::Stays, expected: 1 },
    Case {
        name: "lasting",
        version: V5,
        session: Some(3600),
        delay: 0,
        then: Then::Stays,
        expected: 1,
    },
    Case {
        name: "back, no delay",
        version: V5,
        session: Some(3600),
        delay: 0,
        then: Then::Returns,
        expected: 1,
    },
    Case {
        name: "left",
        version: V5,
        session: Some(3600),
        delay: 0,
        then: Then::LeavesBefore,
        expected: 0,
    },
    Case {
        name: "delayed",
        version: V5,
        session: Some(3600),
        delay: DELAY,
        then: Then::Stays,
        expected: 1,
    },
    Case {
        name: "back in time",
        version: V5,
        session: Some(3600),
        delay: DELAY,
        then: Then::Returns,
        expected: 0,
    },
    // The end of the session comes before the end of the delay [v5 MQTT-3.1.3-9].
    Case {
        name: "session ends",
        version: V5,
        session: Some(1),
        delay: 600,
        then: Then::Stays,
        expected: 1,
    },
    Case {
        name: "long delay",
        version: V5,
        session: Some(3600),
        delay: 600,
        then: Then::Stays,
        expected: 0,
    },
];

fn connect(case: &Case, node: &Node, with_will: bool) -> Client {
    let topic = format!("wills/{}", case.name);
    let will = Will {
        topic: &topic,
        payload: b"gone",
        qos: QoS::AtLeastOnce,
        retain: false,
        delay: case.delay,
        expiry: None,
        properties: Default::default(),
    };
    let connect = Connect {
        clean_start: case.session.is_none(),
        session_expiry: case.session.filter(|_| case.version == V5),
        will: with_will.then_some(will),
        ..Connect::new(case.version, case.name)
    };
    Client::open(node.address(), &connect).unwrap()
}

#[test]
fn wills_outlive_the_node() {
    let mut dice = Dice::of("wills");
    let mut node = Node::started(&mut dice);
    let mut listener = Client::resume(node.address(), V5, "listener").unwrap();
    listener.subscribe(&["wills/#"], QoS::AtLeastOnce).unwrap();
    let mut clients = Vec::new();
    for case in CASES {
        let client = connect(case, &node, true);
        match case.then {
            Then::LeavesBefore => client.disconnect().unwrap(),
            _ => clients.push(client),
        }
    }
    node.restart();
    drop(clients);
    let returned: Vec<_> = CASES
        .iter()
        .filter(|case| case.then == Then::Returns)
        .map(|it| connect(it, &node, false))
        .collect();
    let mut listener = Client::open(node.address(), &lasting(V5, "listener")).unwrap();
    assert!(listener.session_present);
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let started = Instant::now();
    let mut quiet_since = Instant::now();
    // The delayed will closes the story: one that was called off would have come beside it.
    while !seen.contains_key("wills/delayed") || quiet_since.elapsed() < Duration::from_secs(1) {
        if let Some(arrival) = listener.next_arrival(Duration::from_millis(200)).unwrap() {
            assert_eq!(arrival.payload, b"gone");
            *seen.entry(arrival.topic).or_default() += 1;
            listener.acknowledge(AckKind::PubAck, arrival.id.unwrap()).unwrap();
            quiet_since = Instant::now();
        }
        assert!(started.elapsed() < PATIENCE, "no delayed will; seen {seen:?}\n{}", node.said());
    }
    drop(returned);
    let wrong: Vec<_> = CASES
        .iter()
        .map(|case| (case, seen.get(&format!("wills/{}", case.name)).copied().unwrap_or(0)))
        .filter(|(case, count)| *count != case.expected)
        .map(|(case, count)| format!("{}: {count} instead of {}", case.name, case.expected))
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}\n{}", node.said());
}
