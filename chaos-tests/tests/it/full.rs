//! A full disk: what must be stored is refused, the node says why, and it goes on by itself when
//! there is room.

use std::collections::BTreeSet;

use chaos_tests::{Client, Dice, End, Node, PATIENCE, eventually};
use mqtt::QoS::AtLeastOnce;

/// What the store is left, and a piece of the log.
const PIECE: u64 = 64 << 20;

fn publish(client: &mut Client, number: usize, bytes: usize) -> Result<(), End> {
    client.publish_acknowledged(&format!("kept/{number}"), &vec![number as u8; bytes], true)
}

/// Reads so many retained messages, and that nothing follows them.
fn expect_kept(node: &Node, count: usize) {
    let mut client = Client::brief(node.address(), "reader").unwrap();
    client.subscribe(&["kept/#"], AtLeastOnce).unwrap();
    let mut next = || {
        let got = client.next_arrival(PATIENCE).unwrap().expect("another publication");
        client.acknowledge(mqtt::AckKind::PubAck, got.id.unwrap()).unwrap();
        got.topic
    };
    let kept: BTreeSet<_> = (0..count).map(|_| next()).collect();
    assert_eq!(kept, (0..count).map(|number| format!("kept/{number}")).collect());
    // Whatever was on its way would come before this.
    client.subscribe(&["mark"], AtLeastOnce).unwrap();
    client.publish_acknowledged("mark", b"", false).unwrap();
    assert_eq!(client.next_arrival(PATIENCE).unwrap().expect("the mark").topic, "mark");
}

#[test]
fn a_node_on_a_full_disk_refuses_says_why_and_recovers_by_itself() {
    let mut dice = Dice::of("full");
    let Some(mut node) = Node::on_small_disk(&mut dice, 5 * PIECE) else { return };
    node.start();
    let mut client = Client::brief(node.address(), "publisher").unwrap();
    publish(&mut client, 0, 10).unwrap();

    // Less is left than the store may need.
    node.leave_free(PIECE / 2);
    let why = eventually("not ready", || node.not_ready());
    assert!(why.contains("too little room for the log"), "{why}");
    let refused = publish(&mut client, 1, 10).unwrap_err();
    assert!(matches!(&refused, End::Fault(why) if why.contains("QuotaExceeded")), "{refused:?}");
    client.ping().unwrap();
    node.leave_free(4 * PIECE);
    eventually("ready", || node.is_ready().then_some(()));

    // Next to nothing is left, and much is still to be written down.
    for number in 1..=60 {
        publish(&mut client, number, 100 << 10).unwrap();
    }
    node.leave_free(64 << 10);
    let failures = || node.metric("storage_checkpoint_failures_total");
    eventually("a checkpoint fails", || (failures() > 0.0).then_some(()));
    let why = eventually("not ready", || {
        node.not_ready().filter(|why| why.contains("no room for its checkpoint"))
    });
    assert!(why.contains("make room"), "{why}");
    publish(&mut client, 61, 10).unwrap_err();
    assert_eq!(node.metric("storage_accepting"), 0.0);
    node.leave_free(4 * PIECE);
    eventually("ready", || node.is_ready().then_some(()));
    publish(&mut client, 61, 10).unwrap();
    expect_kept(&node, 62);
    node.restart();
    expect_kept(&node, 62);
}
