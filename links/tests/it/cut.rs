//! A link that is cut without a word.

use std::time::Duration;

use links::Config;

use crate::support::{Authority, Event, Node, Proxy, at, config, incoming, outgoing, raft};

fn impatient(mut config: Config) -> Config {
    config.ping_interval = Duration::from_millis(50);
    config.ping_timeout = Duration::from_millis(200);
    config.handshake_timeout = Duration::from_millis(500);
    config
}

#[tokio::test]
async fn a_silent_cut_is_noticed_by_both_sides() {
    let authority = Authority::new();
    let mut two = Node::start(impatient(config(&authority, 2)));
    let proxy = Proxy::to(two.links.address()).await;
    let mut one = Node::start(impatient(config(&authority, 1)));
    two.links.set_peers(at(1, one.links.address()));
    one.links.set_peers(at(2, proxy.address));
    one.until(Event::Connected(outgoing(2), 1)).await;
    two.until(Event::Connected(incoming(1), 1)).await;

    proxy.silence();
    one.until(Event::Lost(outgoing(2))).await;
    two.until(Event::Lost(incoming(1))).await;
    assert!(!one.links.reachable(2));

    proxy.heal();
    one.until(Event::Connected(outgoing(2), 1)).await;
    one.links.send(2, raft(1)).unwrap();
    two.until(Event::Received(1, vec![1])).await;
}

/// The peer that is dialled has not noticed the cut when the one that dials is back by another way.
#[tokio::test]
async fn a_new_stream_replaces_one_that_is_half_dead() {
    let authority = Authority::new();
    let mut patient = config(&authority, 2);
    patient.ping_interval = Duration::from_secs(3600);
    let mut two = Node::start(patient);
    let proxy = Proxy::to(two.links.address()).await;
    let mut one = Node::start(impatient(config(&authority, 1)));
    two.links.set_peers(at(1, one.links.address()));
    one.links.set_peers(at(2, proxy.address));
    one.until(Event::Connected(outgoing(2), 1)).await;
    two.until(Event::Connected(incoming(1), 1)).await;

    proxy.silence();
    one.until(Event::Lost(outgoing(2))).await;
    one.links.set_peers(at(2, two.links.address()));
    two.until(Event::Lost(incoming(1))).await;
    two.until(Event::Connected(incoming(1), 1)).await;
    one.until(Event::Connected(outgoing(2), 1)).await;
    one.links.send(2, raft(1)).unwrap();
    two.until(Event::Received(1, vec![1])).await;
}
