//! Many connections with one client id at once: only one lives, and the others are told.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chaos_tests::client::lasting;
use chaos_tests::{Client, Dice, End, Node, PATIENCE, Received, eventually};
use mqtt::QoS::{AtLeastOnce, AtMostOnce};
use mqtt::Version::V5;
use mqtt::{AckKind, Connect, Outgoing, Reason};

const TOPIC: &str = "storm/numbers";
const CONNECTIONS: usize = 24;

/// What one connection saw.
struct Seen {
    /// Numbers with their DUP flag.
    numbers: Vec<(u64, bool)>,
    end: Option<End>,
}

/// What all connections have to say together.
#[derive(Default)]
struct Storm {
    /// Connections that have ended.
    ended: AtomicUsize,
    /// How many numbers there are up to the highest that any of them has received.
    newest: AtomicU64,
    over: AtomicBool,
}

/// Connects and listens until it is over.
fn take_part(connect: &Connect<'_>, node: &Node, storm: &Storm) -> Seen {
    let mut seen = Seen { numbers: Vec::new(), end: None };
    let mut listen = || -> Result<(), End> {
        let mut client = Client::open(node.address(), connect)?;
        if connect.clean_start {
            client.subscribe(&[TOPIC], AtMostOnce)?;
        }
        while !storm.over.load(Ordering::SeqCst) {
            if let Some(Received::Publish(got)) = client.next(Duration::from_millis(20))? {
                let number = u64::from_be_bytes(got.payload[..].try_into().unwrap());
                seen.numbers.push((number, got.dup));
                storm.newest.fetch_max(number + 1, Ordering::SeqCst);
                if let Some(id) = got.id {
                    client.acknowledge(AckKind::PubAck, id)?;
                }
            }
        }
        // Whoever is left must really be served.
        client.ping()
    };
    let end = listen().err();
    storm.ended.fetch_add(usize::from(end.is_some()), Ordering::SeqCst);
    seen.end = end;
    seen
}

fn storm(connect: Connect<'_>) {
    let mut dice = Dice::of(connect.client_id);
    let node = Node::started(&mut dice);
    if !connect.clean_start {
        let mut first = Client::open(node.address(), &connect).unwrap();
        first.subscribe(&[TOPIC], AtLeastOnce).unwrap();
    }
    let storm = Storm::default();
    let delays: Vec<_> = (0..CONNECTIONS).map(|_| dice.millis(0..300)).collect();
    let (seen, published) = thread::scope(|scope| {
        let parties: Vec<_> = delays
            .iter()
            .map(|delay| {
                let (connect, node, storm) = (&connect, &node, &storm);
                scope.spawn(move || {
                    thread::sleep(*delay);
                    take_part(connect, node, storm)
                })
            })
            .collect();
        let mut publisher = Client::brief(node.address(), "publisher").unwrap();
        let started = Instant::now();
        let mut number = 0_u64;
        let qos = if connect.clean_start { AtMostOnce } else { AtLeastOnce };
        let mut publish = || {
            let packet_id = (qos == AtLeastOnce).then(|| publisher.new_id());
            let payload = number.to_be_bytes();
            let publish = Outgoing { packet_id, qos, ..Outgoing::new(TOPIC, &payload) };
            publisher.publish(&publish).unwrap();
            if qos == AtLeastOnce {
                let acknowledged = publisher.next(PATIENCE).unwrap();
                assert!(matches!(acknowledged, Some(Received::Ack { .. })), "{acknowledged:?}");
            }
            number += 1;
            number
        };
        while started.elapsed() < Duration::from_millis(900) {
            publish();
            thread::sleep(Duration::from_millis(1));
        }
        let newest = |least| (storm.newest.load(Ordering::SeqCst) >= least).then_some(());
        eventually("one is left", || {
            (storm.ended.load(Ordering::SeqCst) >= CONNECTIONS - 1).then_some(())
        });
        // It may only be about to subscribe.
        let before = publish();
        let mut last = before;
        eventually("the one that is left receives", || {
            last = publish();
            newest(before)
        });
        eventually("what is on its way arrives", || newest(last));
        storm.over.store(true, Ordering::SeqCst);
        let seen: Vec<_> = parties.into_iter().map(|party| party.join().unwrap()).collect();
        (seen, number)
    });
    check(&seen, published, &connect, &node);
}

fn check(seen: &[Seen], published: u64, connect: &Connect<'_>, node: &Node) {
    let context = || format!("{}\n{}", connect.client_id, node.said());
    let ends: Vec<_> = seen.iter().map(|seen| &seen.end).collect();
    let alive = ends.iter().filter(|end| end.is_none()).count();
    assert_eq!(alive, 1, "connections left: {ends:?} {}", context());
    let told = Some(End::Closed(Some(Reason::SessionTakenOver)));
    let wrong: Vec<_> = ends.iter().filter(|end| end.is_some() && ***end != told).collect();
    assert!(wrong.is_empty(), "{} not told: {wrong:?} {}", wrong.len(), context());
    // New numbers in their order: each receiver has one stretch of them for itself.
    let mut owners: Vec<(u64, usize)> = seen
        .iter()
        .enumerate()
        .flat_map(|(at, seen)| {
            seen.numbers.iter().filter(|(_, dup)| !dup).map(move |it| (it.0, at))
        })
        .collect();
    owners.sort_unstable();
    assert!(owners.is_sorted_by(|a, b| a.0 < b.0), "received by two: {owners:?} {}", context());
    let mut stretches: Vec<usize> = owners.iter().map(|(_, owner)| *owner).collect();
    stretches.dedup();
    let count = stretches.len();
    stretches.sort_unstable();
    stretches.dedup();
    assert_eq!(count, stretches.len(), "two lived at once: {owners:?} {}", context());
    if !connect.clean_start {
        let mut all: Vec<u64> = seen.iter().flat_map(|seen| &seen.numbers).map(|it| it.0).collect();
        all.sort_unstable();
        all.dedup();
        let lost: Vec<_> = (0..published).filter(|it| all.binary_search(it).is_err()).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?} of {published} {}", context());
    }
}

#[test]
fn one_lives_with_a_session() {
    storm(lasting(V5, "lasting storm"));
}

#[test]
fn one_lives_without_a_session() {
    storm(Connect::new(V5, "clean storm"));
}
