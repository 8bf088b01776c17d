use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::shard::delivery::{Content, Delivery, Dispatcher};

/// A shard with one client and the dispatcher that serves it.
#[derive(Default)]
struct Served {
    probe: Probe,
    dispatcher: Dispatcher<&'static str>,
    session: u64,
    epoch: u64,
    /// What the last pump said must begin first.
    begin_below: Option<u64>,
}

/// One delivery as a test says it: `seq`, `seq dup`, or `seq release`.
fn said(delivery: &Delivery<'_>) -> String {
    assert_eq!(delivery.packet_id, packet_id(delivery.seq));
    match delivery.content {
        Content::Publish { dup: false, .. } => delivery.seq.to_string(),
        Content::Publish { dup: true, .. } => format!("{} dup", delivery.seq),
        Content::Release => format!("{} release", delivery.seq),
    }
}

impl Served {
    fn connect(window: u16) -> Self {
        let mut served = Self::default();
        served.reconnect(window);
        served.probe.subscribed("c", "t", qos(2));
        served
    }

    fn reconnect(&mut self, window: u16) {
        let connected = self.probe.connected(client("c"));
        (self.session, self.epoch) = (connected.session, connected.epoch);
        let Self { probe, dispatcher, session, epoch, .. } = self;
        assert!(dispatcher.attach(probe, *session, *epoch, window, "link"));
    }

    fn disconnect(&mut self) {
        assert_eq!(self.dispatcher.detach(self.session, self.epoch), Some("link"));
        self.probe.disconnect("c", 0, WillAction::Discard);
    }

    fn publish(&mut self, count: usize, qos: u32) {
        for _ in 0..count {
            self.probe.published(publication("t", "p", qos));
        }
    }

    fn pump(&mut self, now: u64) -> (Vec<String>, Vec<u64>) {
        let mut out = Vec::new();
        let pumped = self.dispatcher.pump(&self.probe, self.session, now, &mut |target, each| {
            assert_eq!(*target, "link");
            out.push(said(&each));
        });
        self.begin_below = pumped.begin_below;
        (out, pumped.expired)
    }

    fn pumped(&mut self) -> Vec<String> {
        let (out, expired) = self.pump(0);
        assert!(expired.is_empty());
        out
    }

    fn acknowledge(&mut self, seqs: &[u64]) {
        for &seq in seqs {
            assert!(self.dispatcher.acknowledged(self.session, seq), "{seq}");
        }
        self.probe.acknowledge("c", seqs);
    }
}

#[test]
fn the_window_is_never_exceeded() {
    let mut served = Served::connect(3);
    served.publish(6, 1);
    assert_eq!(served.pumped(), ["1", "2", "3"]);
    assert_eq!(served.pumped(), [""; 0]);
    assert!(!served.dispatcher.has_room(served.session));
    // Credit comes back before the acknowledgement commits.
    assert!(served.dispatcher.acknowledged(served.session, 2));
    assert!(!served.dispatcher.acknowledged(served.session, 2));
    assert!(!served.dispatcher.acknowledged(served.session, 4));
    assert!(!served.dispatcher.acknowledged(served.session, 0));
    assert_eq!(served.pumped(), ["4"]);
    served.probe.acknowledge("c", &[2]);
    served.acknowledge(&[1, 3, 4]);
    assert_eq!(served.pumped(), ["5", "6"]);
    served.publish(1, 2);
    assert_eq!(served.pumped(), ["7"]);
    served.acknowledge(&[6, 5, 7]);
    assert_eq!(served.probe.stats().queued, 0);
}

/// Two of five were sent and one of these acknowledged; a sixth came while the client was away.
#[test]
fn dup_is_set_on_what_may_have_been_sent() {
    for (case, new_leader, expected) in [
        ("who sent them knows", false, ["2 dup", "3", "4", "5", "6"]),
        ("another must assume", true, ["2 dup", "3 dup", "4 dup", "5 dup", "6"]),
    ] {
        let mut served = Served::connect(2);
        served.publish(5, 1);
        served.pumped();
        served.acknowledge(&[1]);
        served.disconnect();
        served.publish(1, 1);
        if new_leader {
            served.dispatcher = Dispatcher::new();
        }
        served.reconnect(100);
        assert_eq!(served.pumped(), expected, "{case}");
        // A takeover: the older connection is not detached first.
        served.reconnect(1);
        assert_eq!(served.pumped(), ["2 dup"], "{case}");
        served.publish(1, 1);
        served.reconnect(100);
        let expected = ["2 dup", "3 dup", "4 dup", "5 dup", "6 dup", "7"];
        assert_eq!(served.pumped(), expected, "{case}");
    }
}

/// What it had sent before it knows; what the other node has sent it does not.
#[test]
fn dup_is_set_on_what_another_node_may_have_sent() {
    let mut here = Served::connect(100);
    here.publish(1, 1);
    assert_eq!(here.pumped(), ["1"]);
    let other = std::mem::take(&mut here.dispatcher);
    let mut there = here;
    there.reconnect(100);
    there.publish(2, 1);
    assert_eq!(there.pumped(), ["1 dup", "2", "3"]);
    let mut here = Served { dispatcher: other, ..there };
    here.reconnect(100);
    here.publish(1, 1);
    assert_eq!(here.pumped(), ["1 dup", "2 dup", "3 dup", "4"]);
}

/// Its node was taken for lost, and does not know it yet: what it sent now, nobody would send again as such.
#[test]
fn a_connection_that_counts_as_ended_is_given_nothing() {
    let mut served = Served::connect(100);
    served.publish(1, 1);
    assert_eq!(served.pumped(), ["1"]);
    served.probe.disconnect("c", 0, WillAction::Discard);
    served.publish(1, 1);
    assert_eq!(served.pumped(), [""; 0]);
    served.dispatcher = Dispatcher::new();
    served.reconnect(100);
    assert_eq!(served.pumped(), ["1 dup", "2"]);
}

#[test]
fn a_released_entry_is_released_again_on_resume() {
    let mut served = Served::connect(10);
    served.publish(3, 2);
    assert_eq!(served.pumped(), ["1", "2", "3"]);
    served.probe.pubrec("c", &[2]);
    assert_eq!(served.pumped(), [""; 0]);
    served.disconnect();
    served.reconnect(10);
    assert_eq!(served.pumped(), ["1 dup", "2 release", "3 dup"]);
    served.acknowledge(&[2]);
    served.reconnect(10);
    assert_eq!(served.pumped(), ["1 dup", "3 dup"]);
}

/// What other members may have instead must not be sent before it is known to have begun.
#[test]
fn qos_2_of_a_shared_subscription_begins_before_it_is_sent() {
    let mut served = Served::connect(3);
    served.probe.subscribed("c", "$share/g/s", qos(2));
    let direct = |served: &mut Served, qos| {
        let share = "$share/g/s".into();
        let directed = vec![Directed { client: "c".into(), qos, share, ..Directed::default() }];
        let publication = publication("s", "p", 2);
        served.probe.told(Publish { publication, directed, ..Publish::default() });
    };
    for qos in [1, 2, 1, 2, 2] {
        direct(&mut served, qos);
    }
    served.publish(1, 2);
    assert_eq!((served.pumped(), served.begin_below), (vec!["1".into()], Some(4)));
    assert_eq!((served.pumped(), served.begin_below), (vec![], Some(4)));
    let (client, epoch) = served.probe.fence("c");
    served.probe.told(BeginShared { client, epoch, below: 4 });
    assert_eq!(served.probe.effects.grown, [served.session]);
    let sent = ["2", "3"].map(String::from).to_vec();
    assert_eq!((served.pumped(), served.begin_below), (sent, None));
    served.acknowledge(&[1, 2, 3]);
    assert_eq!((served.pumped(), served.begin_below), (vec![], Some(7)));
}

#[test]
fn expired_messages_are_skipped_unless_an_exchange_has_begun() {
    let mut served = Served::connect(2);
    let publish = |served: &mut Served, qos, expires_at| {
        served.probe.published(Publication { expires_at, ..publication("t", "p", qos) });
    };
    for (qos, expires_at) in [(2, Some(5)), (1, Some(5)), (2, Some(5)), (1, None), (2, Some(6))] {
        publish(&mut served, qos, expires_at);
    }
    assert_eq!(served.pump(4), (vec!["1".into(), "2".into()], vec![]));
    served.disconnect();
    served.reconnect(10);
    let sent = ["1 dup", "4", "5"].map(String::from).to_vec();
    assert_eq!(served.pump(5), (sent, vec![2, 3]));
    assert_eq!(served.pump(5), (vec![], vec![]));
}

#[test]
fn packet_identifiers_never_meet() {
    let mut served = Served::connect(u16::MAX);
    served.disconnect();
    let connect = Connect { queue_limit_messages: 200_000, ..client("c") };
    let connected = served.probe.connected(connect);
    served.epoch = connected.epoch;
    let (session, epoch) = (served.session, served.epoch);
    assert!(served.dispatcher.attach(&served.probe, session, epoch, u16::MAX, "link"));
    served.publish(140_000, 1);
    let first = served.pumped().len();
    assert_eq!(first, 65_535);
    // The oldest stays, so only as many go out as there are identifiers.
    let others: Vec<_> = (2..=65_535).collect();
    served.acknowledge(&others);
    assert_eq!(served.pumped(), [""; 0]);
    assert_eq!(served.dispatcher.in_flight(session, packet_id(1)), Some(1));
    assert_eq!(served.dispatcher.in_flight(session, packet_id(2)), None);
    served.acknowledge(&[1]);
    assert_eq!(served.pumped().len(), 65_535);
    assert_eq!(served.dispatcher.in_flight(session, packet_id(1)), Some(65_536));
    assert_eq!(served.dispatcher.in_flight(session, packet_id(0)), Some(131_070 - 65_535 + 65_535));
}

#[test]
fn only_the_present_connection_is_served() {
    let mut served = Served::connect(10);
    let (session, old) = (served.session, served.epoch);
    served.publish(1, 1);
    let epoch = served.probe.connected(client("c")).epoch;
    assert_eq!(served.pumped(), [""; 0], "the shard knows of a newer one");
    assert!(!served.dispatcher.attach(&served.probe, session, old, 1, "late"));
    assert!(served.dispatcher.attach(&served.probe, session, epoch, 1, "link"));
    assert_eq!(served.dispatcher.detach(session, old), None);
    assert_eq!(served.dispatcher.target(session), Some(&"link"));
    assert_eq!(served.pumped(), ["1"]);
    assert_eq!(served.dispatcher.forget(session), Some("link"));
    assert_eq!(served.dispatcher.target(session), None);
    assert_eq!(served.pumped(), [""; 0]);
    assert!(!served.dispatcher.attach(&served.probe, 77, epoch, 1, "nobody"));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Publish(u32),
    Pump,
    Acknowledge(usize),
    Pubrec(usize),
    Reconnect(u16),
    NewLeader(u16),
    Reload(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..3_u32).prop_map(Step::Publish),
        3 => Just(Step::Pump),
        3 => any::<usize>().prop_map(Step::Acknowledge),
        2 => any::<usize>().prop_map(Step::Pubrec),
        1 => (1..8_u16).prop_map(Step::Reconnect),
        1 => (1..8_u16).prop_map(Step::NewLeader),
        1 => (1..8_u16).prop_map(Step::Reload),
    ]
}

proptest! {
    /// Whatever happens, a connection sees entries in order, each once, within its window; DUP on
    /// all that was sent before; and nothing that was published is missed in the end.
    #[test]
    fn every_entry_is_delivered(steps in prop::collection::vec(step(), 1..200)) {
        let mut served = Served::connect(4);
        let mut window = 4;
        let mut flight = BTreeSet::new();
        let mut waiting = BTreeMap::new();
        let mut sent = BTreeSet::new();
        let mut last = 0;
        let mut next = 1;
        for step in steps.into_iter().chain([Step::Reconnect(1000), Step::Pump]) {
            match step {
                Step::Publish(qos) => {
                    served.publish(1, qos);
                    waiting.insert(next, qos);
                    next += 1;
                }
                Step::Pump => for text in served.pumped() {
                    let mut words = text.split(' ');
                    let seq: u64 = words.next().unwrap().parse().unwrap();
                    prop_assert!(seq > last && waiting.contains_key(&seq));
                    last = seq;
                    flight.insert(seq);
                    prop_assert!(flight.len() <= window);
                    let again = !sent.insert(seq);
                    match words.next() {
                        None => prop_assert!(!again),
                        Some("release") => prop_assert_eq!(waiting[&seq], 3),
                        Some(_) => {}
                    }
                }
                Step::Acknowledge(pick) => {
                    if let Some(&seq) = flight.iter().nth(pick % flight.len().max(1)) {
                        served.acknowledge(&[seq]);
                        flight.remove(&seq);
                        waiting.remove(&seq);
                    }
                }
                Step::Pubrec(pick) => {
                    if let Some(&seq) = flight.iter().nth(pick % flight.len().max(1)) {
                        let qos = waiting[&seq];
                        let outcome = served.probe.pubrec("c", &[seq]);
                        prop_assert_eq!(outcome, Outcome::PubrecRecorded(vec![qos > 1]));
                        if qos > 1 {
                            waiting.insert(seq, 3);
                        }
                    }
                }
                Step::Reconnect(wide) | Step::NewLeader(wide) | Step::Reload(wide) => {
                    match step {
                        Step::NewLeader(_) => served.dispatcher = Dispatcher::new(),
                        Step::Reload(_) => {
                            served.dispatcher = Dispatcher::new();
                            served.probe.shard = super::checkpoint::reloaded(&served.probe);
                        }
                        _ => served.disconnect(),
                    }
                    served.reconnect(wide);
                    (window, last) = (usize::from(wide), 0);
                    flight.clear();
                }
            }
        }
        prop_assert!(waiting.keys().all(|seq| flight.contains(seq)));
    }
}
