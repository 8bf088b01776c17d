//! What the tests share: certificates, a receiver that remembers, a proxy that can be cut.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use links::proto::GroupMessage;
use links::{
    Batch, Certainty, Config, Denied, Direction, Identity, Introduction, Links, Message,
    PeerAddress, Purpose, Receiver, Stream, certificate_name,
};
use metrics_util::debugging::{DebugValue, Snapshotter};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// The cluster that nodes of these tests belong to.
pub(crate) const CLUSTER: [u8; 16] = [7; 16];

/// The folder of a node that is denied for good.
pub(crate) const LOST: &str = "lost";
/// The folder of a node that nobody is sure about.
pub(crate) const UNSURE: &str = "unsure";

/// Nothing here takes this long unless it never happens.
pub(crate) const HANG: Duration = Duration::from_secs(20);

/// A CA for nodes.
pub(crate) struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn identity(&self, node: u64) -> Identity {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([certificate_name(node)]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity {
            ca: self.pem.clone().into_bytes(),
            certificate: certificate.pem().into_bytes(),
            private_key: key.serialize_pem().into_bytes(),
        }
    }
}

/// A configuration for tests: impatient, on a port of the system's choice.
pub(crate) fn config(authority: &Authority, node: u64) -> Config {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = Config::new(node, 1, CLUSTER, listen, authority.identity(node));
    config.backoff_min = Duration::from_millis(5);
    config.backoff_max = Duration::from_millis(50);
    config
}

pub(crate) fn at(node: u64, address: SocketAddr) -> Vec<PeerAddress> {
    vec![PeerAddress { node, address: address.to_string() }]
}

pub(crate) fn raft(number: u32) -> Message {
    Message::Raft(GroupMessage { group: number, message: vec![number as u8; 256].into() })
}

pub(crate) const fn outgoing(peer: u64) -> Stream {
    Stream { peer, purpose: Purpose::Raft, direction: Direction::Outgoing }
}

pub(crate) const fn incoming(peer: u64) -> Stream {
    Stream { peer, purpose: Purpose::Raft, direction: Direction::Incoming }
}

/// What a receiver has heard.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    Connected(Stream, u64),
    Lost(Stream),
    /// The groups of the messages.
    Received(u64, Vec<u32>),
    Denied(u64, String),
    Doubted(u64),
    Lived(u64, Vec<u64>),
    /// Where, and in which life.
    Found(u64, String, u64),
    /// Where.
    Refused(u64, String),
    /// Where a peer says that others are.
    Told(u64, Vec<PeerAddress>),
}

struct Remembering(mpsc::UnboundedSender<Event>);

impl Receiver for Remembering {
    fn connected(&self, stream: Stream, incarnation: u64) {
        let _ = self.0.send(Event::Connected(stream, incarnation));
    }

    fn others(&self) -> Vec<PeerAddress> {
        [1, 2, 3].map(|node| PeerAddress { node, address: format!("host-{node}:7400") }).into()
    }

    fn admit(&self, peer: Introduction<'_>) -> Result<(), Denied> {
        if !peer.others.is_empty() {
            let _ = self.0.send(Event::Told(peer.node, peer.others.to_vec()));
        }
        if !peer.found.is_empty() {
            let found = peer.found.to_owned();
            let _ = self.0.send(Event::Found(peer.node, found, peer.incarnation));
        }
        if !peer.lives.is_empty() {
            let _ = self.0.send(Event::Lived(peer.node, peer.lives.to_vec()));
        }
        match peer.folder {
            LOST => Err(Denied { why: "is denied".into(), certainty: Certainty::ForGood }),
            UNSURE => Err(Denied { why: "may be one".into(), certainty: Certainty::Unsure }),
            _ => Ok(()),
        }
    }

    fn denied(&self, peer: u64, why: &str) {
        let _ = self.0.send(Event::Denied(peer, why.to_owned()));
    }

    fn doubted(&self, peer: u64) {
        let _ = self.0.send(Event::Doubted(peer));
    }

    fn refused(&self, peer: u64, address: &str, _: Option<u64>) {
        let _ = self.0.send(Event::Refused(peer, address.to_owned()));
    }

    fn found(&self, peer: u64, address: &str, incarnation: u64) {
        let _ = self.0.send(Event::Found(peer, address.to_owned(), incarnation));
    }

    fn lost(&self, stream: Stream) {
        let _ = self.0.send(Event::Lost(stream));
    }

    fn received(&self, peer: u64, batch: Batch) {
        let Batch::Raft(messages) = batch else { panic!("nothing else is sent: {batch:?}") };
        for message in &messages {
            assert_eq!(message.message, vec![message.group as u8; message.message.len()]);
        }
        let groups = messages.into_iter().map(|message| message.group).collect();
        let _ = self.0.send(Event::Received(peer, groups));
    }
}

/// A node's links and what they have told.
pub(crate) struct Node {
    pub(crate) links: Links,
    /// The streams that are open.
    pub(crate) open: HashSet<Stream>,
    pub(crate) denials: usize,
    /// How often nobody listened where a peer should be.
    pub(crate) refusals: Vec<String>,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Node {
    pub(crate) fn start(config: Config) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Handle::current();
        let links = Links::start(config, Remembering(sender), &runtime).unwrap();
        Self { links, open: HashSet::new(), denials: 0, refusals: Vec::new(), events }
    }

    /// The next event, which must be one that may follow on those before it.
    pub(crate) async fn next(&mut self) -> Event {
        let event = timeout(HANG, self.events.recv()).await.expect("nothing more happens");
        let event = event.expect("the links hold the receiver");
        match &event {
            Event::Connected(stream, _) => assert!(self.open.insert(*stream), "{stream:?} is open"),
            Event::Lost(stream) => assert!(self.open.remove(stream), "{stream:?} is not open"),
            Event::Denied(..) => self.denials += 1,
            Event::Doubted(_) | Event::Lived(..) | Event::Found(..) | Event::Told(..) => {}
            Event::Refused(_, at) => self.refusals.push(at.clone()),
            Event::Received(peer, _) => assert!(self.open.contains(&incoming(*peer))),
        }
        event
    }

    pub(crate) async fn until(&mut self, wanted: Event) {
        while self.next().await != wanted {}
    }

    /// Waits until streams for all purposes are open in both directions.
    pub(crate) async fn until_linked(&mut self, peer: u64) {
        let open = |node: &Self| node.open.iter().filter(|stream| stream.peer == peer).count();
        while open(self) < 2 * Purpose::ALL.len() {
            self.next().await;
        }
    }
}

/// Two nodes that know each other: 1 and 2.
pub(crate) async fn pair() -> [Node; 2] {
    let authority = Authority::new();
    let [mut one, mut two] = [1, 2].map(|node| Node::start(config(&authority, node)));
    one.links.set_peers(at(2, two.links.address()));
    two.links.set_peers(at(1, one.links.address()));
    one.until_linked(2).await;
    two.until_linked(1).await;
    [one, two]
}

/// Waits until a counter that some task counts has a value.
pub(crate) async fn until_counted(snapshotter: &Snapshotter, name: &str, labels: &str) {
    // A snapshot takes what was counted since the one before.
    let counted = async {
        loop {
            if counters(snapshotter).get(&format!("{name} {labels}")).is_some_and(|n| *n > 0) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(HANG, counted).await.unwrap_or_else(|_| panic!("{name} {labels} is never counted"));
}

fn counters(snapshotter: &Snapshotter) -> HashMap<String, u64> {
    let mut counters = HashMap::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let key = key.key();
        let labels: Vec<_> = key.labels().map(|label| label.value()).collect();
        if let DebugValue::Counter(value) = value {
            counters.insert(format!("{} {}", key.name(), labels.join(" ")), value);
        }
    }
    counters
}

/// What a proxy does with the connections through it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Forward,
    /// Open, but nothing passes.
    Silent,
}

/// Forwards TCP connections, until it is told not to.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    mode: watch::Sender<Mode>,
    cuts: Arc<watch::Sender<u64>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mode = watch::Sender::new(Mode::Forward);
        let cuts = Arc::new(watch::Sender::new(0));
        let mut tasks = JoinSet::new();
        let (modes, cutter) = (mode.subscribe(), cuts.clone());
        tasks.spawn(async move {
            let mut links = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                links.spawn(forward(socket, target, modes.clone(), cutter.subscribe()));
            }
        });
        Self { address, mode, cuts, _tasks: tasks }
    }

    /// Closes every connection.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Connections stay open, but nothing passes from now on, also of new ones.
    pub(crate) fn silence(&self) {
        self.mode.send_replace(Mode::Silent);
    }

    /// New connections are forwarded again, and old ones go on.
    pub(crate) fn heal(&self) {
        self.mode.send_replace(Mode::Forward);
    }
}

async fn forward(
    mut socket: TcpStream,
    target: SocketAddr,
    mut mode: watch::Receiver<Mode>,
    mut cuts: watch::Receiver<u64>,
) {
    let Ok(mut onward) = TcpStream::connect(target).await else { return };
    loop {
        let _ = mode.wait_for(|mode| *mode == Mode::Forward).await;
        tokio::select! {
            _ = copy_bidirectional(&mut socket, &mut onward) => return,
            _ = cuts.changed() => return,
            _ = mode.wait_for(|mode| *mode == Mode::Silent) => {}
        }
    }
}
