//! kill -9 under load, many times over the same data: nothing acknowledged is lost, QoS 2 is
//! exactly once on both sides, order holds, sessions and packet identifiers stay.

use std::path::Path;
use std::{fs, thread};

use chaos_tests::history::Mark;
use chaos_tests::{Client, Crowd, Dice, Node, Publisher, Subscriber, rounds};
use mqtt::QoS::{AtLeastOnce, ExactlyOnce};
use mqtt::Version::{V5, V311};

/// Publishers of all kinds, and subscribers of which the last is never connected.
pub(crate) fn crowd(dice: &mut Dice) -> Crowd {
    let publisher = |topic: &str, version, qos| {
        let mut publisher = Publisher::new(&format!("crowd/{topic}"), version, qos);
        publisher.per_life = 500;
        publisher
    };
    let brief = |topic, version, qos| {
        let mut publisher = publisher(topic, version, qos);
        publisher.is_persistent = false;
        publisher
    };
    let mut keeper = publisher("kept", V5, AtLeastOnce);
    keeper.retain = true;
    let mut subscriber =
        |id: &str, version, qos| Subscriber::new(id, version, qos, "crowd/#", dice);
    Crowd {
        publishers: vec![
            publisher("a", V5, AtLeastOnce),
            publisher("b", V5, ExactlyOnce),
            publisher("c", V311, ExactlyOnce),
            brief("d", V5, AtLeastOnce),
            brief("e", V311, ExactlyOnce),
            keeper,
        ],
        subscribers: vec![
            subscriber("always here", V5, ExactlyOnce),
            subscriber("now and then", V311, ExactlyOnce),
            subscriber("modest", V5, AtLeastOnce),
            subscriber("never here", V5, ExactlyOnce),
        ],
        ..Crowd::default()
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_doubled() {
    let mut dice = Dice::of("kill");
    let mut node = Node::started(&mut dice);
    let mut crowd = crowd(&mut dice);
    crowd.subscribe(node.address());
    for _ in 0..rounds(6) {
        crowd.live_and_die(&mut node, &mut dice);
        if dice.one_in(3) {
            // Killed again while it reads its log, or before it has opened it.
            node.spawn();
            thread::sleep(dice.millis(0..200));
            node.kill9();
        }
        node.start();
        crowd.faults.extend(retained_faults(&node, &crowd));
    }
    crowd.finish(&mut node);
    crowd.check(&node, &dice);
}

/// The tests are tested: a node that is given an old copy of its data must be found out.
#[test]
fn a_node_that_forgets_is_caught() {
    let mut dice = Dice::of("forgets");
    let mut node = Node::started(&mut dice);
    let mut crowd = crowd(&mut dice);
    crowd.subscribe(node.address());
    crowd.live_and_die(&mut node, &mut dice);
    let (log, copy) = (node.log_dir(), node.data().join("copy"));
    copy_files(&log, &copy);
    node.start();
    crowd.live_and_die(&mut node, &mut dice);
    fs::remove_dir_all(&log).unwrap();
    fs::rename(&copy, &log).unwrap();
    node.start();
    // Whoever was here waits in vain for what the node has forgotten; this one only counts.
    crowd.subscribers.retain(|subscriber| subscriber.client_id == "never here");
    crowd.finish(&mut node);
    let faults = crowd.judge();
    assert!(faults.iter().any(|fault| fault.contains("never delivered")), "{faults:?}");
}

fn copy_files(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// What is kept must be no older than what was acknowledged, and no newer than what was sent.
fn retained_faults(node: &Node, crowd: &Crowd) -> Option<String> {
    let of = &crowd.publishers.iter().find(|publisher| publisher.retain)?.published;
    let mut client = Client::brief(node.address(), "reader").unwrap();
    client.subscribe(&[&of.topic], AtLeastOnce).unwrap();
    let wait = std::time::Duration::from_secs(1);
    let kept = client.next_arrival(wait).unwrap().map(|kept| Mark::read(&kept.payload));
    let kept = kept.map(|mark| mark.expect("the payload was altered").number);
    let acknowledged = of.acknowledged.last_key_value().map(|(number, _)| *number);
    // `None`, nothing kept, is older than all.
    let is_right = kept >= acknowledged && kept.is_none_or(|kept| kept < of.sent);
    (!is_right).then(|| {
        format!(
            "life {}: {kept:?} is kept, acknowledged up to {acknowledged:?}, sent below {}",
            node.starts(),
            of.sent
        )
    })
}
