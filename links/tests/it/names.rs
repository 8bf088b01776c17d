//! Peers that are known by a name: what it leads to changes, and may be several nodes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use links::{Config, PeerAddress, Resolve, Trouble};
use parking_lot::Mutex;
use tokio::net::TcpSocket;
use tokio::time::timeout;

use crate::support::{Authority, Event, HANG, Node, at, config, outgoing};

/// Name servers of which a test is the master.
#[derive(Default)]
struct Names(Mutex<Option<Vec<SocketAddr>>>);

impl Names {
    fn lead_to(&self, places: &[SocketAddr]) {
        *self.0.lock() = Some(places.into());
    }
}

impl Resolve for Names {
    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        assert_eq!(address, "skein:7400");
        let known = self.0.lock().clone();
        ready(known.ok_or_else(|| io::Error::other("no such name"))).boxed()
    }
}

/// Dials node 2 by its name.
fn by_name(authority: &Authority, names: &Arc<Names>) -> Config {
    let mut config = config(authority, 1);
    config.resolver = Arc::clone(names) as Arc<dyn Resolve>;
    config.peers = vec![PeerAddress { node: 2, address: "skein:7400".into() }];
    config
}

/// Waits until a node says why it cannot link node 2.
async fn until_troubled(node: &Node, why: &str) {
    let troubled = async {
        let says = |(peer, trouble): &(u64, Trouble)| {
            *peer == 2 && matches!(trouble, Trouble::NotLinked(said) if said.contains(why))
        };
        while !node.links.troubles().iter().any(says) {
            tokio::task::yield_now().await;
        }
    };
    let found = timeout(HANG, troubled).await;
    found.unwrap_or_else(|_| panic!("{:?}, not {why}", node.links.troubles()));
}

#[tokio::test]
async fn a_peer_is_found_behind_a_name_of_several_and_when_it_has_moved() {
    let (authority, names) = (Authority::new(), Arc::new(Names::default()));
    let mut one = Node::start(by_name(&authority, &names));
    let address = one.links.address();
    let two = |incarnation| {
        let mut config = config(&authority, 2);
        config.incarnation = incarnation;
        config.peers = at(1, address);
        Node::start(config)
    };
    let [third, fourth] = [3, 4].map(|node| Node::start(config(&authority, node)));
    let (third, fourth) = (third.links.address(), fourth.links.address());
    until_troubled(&one, "skein:7400: cannot resolve its name: no such name").await;

    names.lead_to(&[third, fourth]);
    until_troubled(&one, "none of 2 addresses is this peer's").await;

    // Where nobody listens, another node may have been: nothing is known of node 2.
    let silent = TcpSocket::new_v4().unwrap();
    silent.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let gone = silent.local_addr().unwrap();
    names.lead_to(&[gone, third]);
    until_troubled(&one, "Connection refused").await;

    let first = two(1);
    names.lead_to(&[gone, third, first.links.address()]);
    one.until_linked(2).await;
    assert_eq!((one.links.troubles(), one.refusals.len()), (vec![], 0));

    // Nobody listens where its name leads now, and it goes on where it was.
    names.lead_to(&[gone]);
    first.links.set_peers(vec![]);
    one.until(Event::Lost(outgoing(2))).await;
    until_troubled(&one, "skein:7400: cannot connect: Connection refused").await;
    names.lead_to(&[gone, third, first.links.address()]);
    first.links.set_peers(at(1, address));
    one.until_linked(2).await;
    assert_eq!(one.refusals.len(), 0);

    // Nobody listens any more where it was: it has ended.
    first.links.stop().await;
    one.until(Event::Refused(2, "skein:7400".to_owned())).await;

    let second = two(2);
    names.lead_to(&[third, second.links.address()]);
    one.until_linked(2).await;
    assert_eq!(one.links.troubles(), vec![]);
}

#[tokio::test]
async fn a_peer_is_found_at_any_of_its_addresses() {
    let authority = Authority::new();
    let other = Node::start(config(&authority, 3));
    let silent = TcpSocket::new_v4().unwrap();
    silent.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let gone = silent.local_addr().unwrap();
    let places = |addresses: [SocketAddr; 2]| addresses.map(|it| at(2, it)).concat();
    let mut own = config(&authority, 1);
    own.peers = places([other.links.address(), gone]);
    let mut one = Node::start(own);
    until_troubled(&one, &format!("; {gone}: cannot connect: Connection refused")).await;

    let mut dialling = config(&authority, 2);
    dialling.peers = at(1, one.links.address());
    let two = Node::start(dialling);
    one.links.set_peers(places([other.links.address(), two.links.address()]));
    one.until_linked(2).await;
    assert_eq!(one.links.troubles(), vec![]);
    assert!(one.refusals.iter().all(|address| *address == gone.to_string()));

    // It goes on where it was, whoever else has gone.
    let found = two.links.address();
    one.links.set_peers(places([gone, found]));
    two.links.set_peers(vec![]);
    one.until(Event::Lost(outgoing(2))).await;
    until_troubled(&one, &format!("{gone}: cannot connect: Connection refused")).await;
    two.links.set_peers(at(1, one.links.address()));
    one.until_linked(2).await;
    assert_eq!(one.links.troubles(), vec![]);
    assert!(one.refusals.iter().all(|address| *address == gone.to_string()));

    two.links.stop().await;
    one.until(Event::Refused(2, found.to_string())).await;
}
