//! What is sent arrives: in order, once, within bounds, wherever the peer is.

use links::proto::GroupMessage;
use links::{MAX_MESSAGE_BYTES, Message, Refused};

use crate::support::{Authority, Event, Node, Proxy, at, config, incoming, outgoing, pair, raft};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_arrive_in_order_both_ways() {
    let [mut one, mut two] = pair().await;
    assert!(one.links.reachable(2) && two.links.reachable(1));
    for number in 0..10_000 {
        one.links.send(2, raft(number)).unwrap();
        two.links.send(1, raft(number)).unwrap();
    }
    for (node, peer) in [(&mut two, 1), (&mut one, 2)] {
        let mut groups = Vec::new();
        while groups.len() < 10_000 {
            if let Event::Received(from, batch) = node.next().await {
                assert_eq!(from, peer);
                groups.extend(batch);
            }
        }
        assert!(groups.into_iter().eq(0..10_000));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_loses_nothing_until_it_is_lost() {
    let authority = Authority::new();
    let mut two = Node::start(config(&authority, 2));
    let proxy = Proxy::to(two.links.address()).await;
    let mut one = Node::start(config(&authority, 1));
    two.links.set_peers(at(1, one.links.address()));
    one.links.set_peers(at(2, proxy.address));

    let mut number = 0;
    for _ in 0..5 {
        one.until(Event::Connected(outgoing(2), 1)).await;
        // The stream breaks somewhere in the middle of what is sent, and another may follow on it
        // before all is sent.
        for sent in 0..10_000 {
            if sent == 5_000 {
                proxy.cut();
            }
            if sent % 50 == 0 {
                tokio::task::yield_now().await;
            }
            number += u32::from(one.links.send(2, raft(number)).is_ok());
        }
        one.until(Event::Lost(outgoing(2))).await;
    }
    one.until(Event::Connected(outgoing(2), 1)).await;
    one.links.send(2, raft(number)).unwrap();

    let (mut next, mut streams, mut fresh) = (0, 0, false);
    while next <= number {
        match two.next().await {
            Event::Connected(stream, _) if stream == incoming(1) => {
                streams += 1;
                fresh = true;
            }
            Event::Received(1, groups) => {
                for (place, group) in groups.into_iter().enumerate() {
                    // The first batch of a stream may leave a gap behind the one before.
                    let follows = group == next || (group > next && place == 0 && fresh);
                    assert!(follows, "{group} where {next} is due, place {place} of a batch");
                    next = group + 1;
                }
                fresh = false;
            }
            _ => {}
        }
    }
    assert!(streams > 1, "the stream did not break");
}

#[tokio::test]
async fn the_longest_message_arrives() {
    let [one, mut two] = pair().await;
    let of = |bytes| Message::Raft(GroupMessage { group: 5, message: vec![5; bytes].into() });
    assert_eq!(one.links.send(2, of(MAX_MESSAGE_BYTES + 1)), Err(Refused::TooLarge));
    one.links.send(2, of(MAX_MESSAGE_BYTES)).unwrap();
    two.until(Event::Received(1, vec![5])).await;
}

#[tokio::test]
async fn no_more_waits_than_may() {
    let authority = Authority::new();
    let mut two = Node::start(config(&authority, 2));
    let mut limited = config(&authority, 1);
    limited.queue_bytes.raft = 100 * (256 + 64);
    limited.peers = at(2, two.links.address());
    let mut one = Node::start(limited);
    two.links.set_peers(at(1, one.links.address()));
    assert_eq!(one.links.send(2, raft(0)), Err(Refused::Unreachable));
    assert_eq!(one.links.send(3, raft(0)), Err(Refused::Unreachable));
    one.until(Event::Connected(outgoing(2), 1)).await;

    // Nothing is written while this task does not wait.
    for number in 0..100 {
        one.links.send(2, raft(number)).unwrap();
    }
    for _ in 0..100 {
        assert_eq!(one.links.send(2, raft(100)), Err(Refused::Full));
    }
    let all = Event::Received(1, (0..100).collect());
    two.until(all).await;
    one.links.send(2, raft(101)).unwrap();
    assert_eq!(two.next().await, Event::Received(1, vec![101]));
}

#[tokio::test]
async fn a_peer_that_moved_is_found() {
    let authority = Authority::new();
    let mut one = Node::start(config(&authority, 1));
    let mut first = config(&authority, 2);
    first.peers = at(1, one.links.address());
    let first = Node::start(first);
    one.links.set_peers(at(2, first.links.address()));
    one.until_linked(2).await;

    let old = first.links.address();
    first.links.stop().await;
    one.until(Event::Lost(outgoing(2))).await;
    // The old port stays taken, by somebody who is no node.
    let _taken = std::net::TcpListener::bind(old).unwrap();
    let mut second = config(&authority, 2);
    second.incarnation = 2;
    second.peers = at(1, one.links.address());
    let mut second = Node::start(second);
    one.links.set_peers(at(2, second.links.address()));
    one.until(Event::Connected(outgoing(2), 2)).await;
    one.links.send(2, raft(9)).unwrap();
    second.until(Event::Received(1, vec![9])).await;
}

#[tokio::test]
async fn a_peer_that_is_not_listed_any_more_is_lost_and_may_come_back() {
    let [mut one, mut two] = pair().await;
    let addresses = [at(2, two.links.address()), at(1, one.links.address())];
    one.links.set_peers(Vec::new());
    one.until(Event::Lost(outgoing(2))).await;
    two.until(Event::Lost(outgoing(1))).await;
    assert!(!one.links.reachable(2));
    assert_eq!(one.links.send(2, raft(1)), Err(Refused::Unreachable));

    one.links.set_peers(addresses[0].clone());
    one.until(Event::Connected(incoming(2), 1)).await;
    two.until(Event::Connected(outgoing(1), 1)).await;
    two.links.send(1, raft(2)).unwrap();
    one.until(Event::Received(2, vec![2])).await;
}

#[tokio::test]
async fn the_end_is_told_to_both_sides() {
    let [mut one, mut two] = pair().await;
    one.links.stop().await;
    while !one.open.is_empty() {
        one.next().await;
    }
    two.until(Event::Lost(outgoing(1))).await;
    assert_eq!(one.links.send(2, raft(1)), Err(Refused::Unreachable));
    assert!(!one.links.reachable(2));
}
