//! Which peers there are, and the tasks that keep up the links with them.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::RwLock;
use rustc_hash::FxHashMap;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tracing::info;

use crate::config::{Config, PeerAddress};
use crate::handshake::Refusal;
use crate::message::{Direction, Purpose, Stream};
use crate::outbox::Outbox;
use crate::proto::Hello;
use crate::tls::Tls;
use crate::{Receiver, accept, dial, metrics};

/// The peers there should be; `None` ends the links.
pub(crate) type Wanted = Option<Vec<PeerAddress>>;

/// What every task of the links uses.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) tls: Tls,
    pub(crate) receiver: Box<dyn Receiver>,
    pub(crate) peers: RwLock<FxHashMap<u64, Arc<Peer>>>,
    /// The peers that were refused lately, and when that was said.
    pub(crate) refused: parking_lot::Mutex<Vec<(Refusal, Instant)>>,
}

/// A node that this one is linked with. Both have a place for each purpose.
pub(crate) struct Peer {
    pub(crate) outgoing: [Arc<Outbox>; 3],
    /// What reads the stream that the peer has dialled: at most one task, so a newer stream is read
    /// when the older one, which may be half dead, is read no more. `None` once the peer was taken
    /// out of the list.
    pub(crate) incoming: [Mutex<Option<JoinSet<()>>>; 3],
    /// What is wrong with the links that are dialled.
    pub(crate) trouble: Troubled,
}

/// What the last of the tasks that dial a peer has come upon; none if all is well.
pub(crate) type Troubled = Arc<parking_lot::Mutex<Option<Trouble>>>;

/// What is wrong with the links that are dialled to a peer, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// One of them cannot be had.
    NotLinked(String),
    /// It was not found where it says that it is, but elsewhere.
    Elsewhere(String),
}

/// A stream after its handshake, as the receiver sees it. Dropping it is its end, in whichever way
/// the task that holds it ends.
pub(crate) struct Open {
    shared: Arc<Shared>,
    stream: Stream,
    /// Of an outgoing one.
    outbox: Option<Arc<Outbox>>,
}

impl Open {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        stream: Stream,
        hello: &Hello,
        outbox: Option<Arc<Outbox>>,
    ) -> Self {
        let Stream { peer, purpose, direction } = stream;
        info!(peer, purpose = purpose.label(), direction = direction.label(), "link up");
        if let Some(outbox) = &outbox {
            outbox.open(hello.version);
        }
        metrics::connected(stream).increment(1);
        shared.receiver.connected(stream, hello.incarnation);
        Self { shared: shared.clone(), stream, outbox }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(outbox) = &self.outbox {
            outbox.close();
        }
        metrics::connected(self.stream).decrement(1);
        self.shared.receiver.lost(self.stream);
    }
}

/// The tasks that dial a peer, and where they hear of its addresses.
struct Dialling {
    addresses: watch::Sender<Vec<String>>,
    tasks: JoinSet<()>,
}

/// Keeps up links with the peers that are wanted, until none are any more.
pub(crate) async fn supervise(
    shared: Arc<Shared>,
    listener: TcpListener,
    mut changes: watch::Receiver<Wanted>,
) {
    let mut accepting = JoinSet::new();
    accepting.spawn(accept::listen(shared.clone(), listener));
    let mut dialling: FxHashMap<u64, Dialling> = FxHashMap::default();
    let mut ended = false;
    while !ended {
        let list = changes.borrow_and_update().clone();
        ended = list.is_none();
        if ended {
            accepting.shutdown().await;
        }
        let mut wanted: FxHashMap<u64, Vec<String>> = FxHashMap::default();
        for peer in list.into_iter().flatten() {
            wanted.entry(peer.node).or_default().push(peer.address);
        }
        wanted.remove(&shared.config.node);
        for (node, gone) in dialling.extract_if(|node, _| !wanted.contains_key(node)) {
            remove(&shared, node, gone).await;
        }
        for (node, addresses) in wanted {
            let dialled = dialling.entry(node).or_insert_with(|| add(&shared, node, &addresses));
            dialled.addresses.send_if_modified(|known| {
                let changed = *known != addresses;
                *known = addresses;
                changed
            });
        }
        // Without a handle nobody is left who would like to hear of the end.
        ended = ended || changes.changed().await.is_err();
    }
}

fn add(shared: &Arc<Shared>, node: u64, addresses: &[String]) -> Dialling {
    let outbox = |purpose| Arc::new(Outbox::new(purpose, shared.config.queue_bytes.of(purpose)));
    let outgoing = Purpose::ALL.map(outbox);
    let (addresses, changes) = watch::channel(addresses.to_owned());
    let trouble = Troubled::default();
    let mut tasks = JoinSet::new();
    for (purpose, outbox) in Purpose::ALL.into_iter().zip(&outgoing) {
        let stream = Stream { peer: node, purpose, direction: Direction::Outgoing };
        let (outbox, trouble) = (outbox.clone(), trouble.clone());
        tasks.spawn(dial::run(shared.clone(), stream, outbox, changes.clone(), trouble));
    }
    let incoming = Purpose::ALL.map(|_| Mutex::new(Some(JoinSet::new())));
    shared.peers.write().insert(node, Arc::new(Peer { outgoing, incoming, trouble }));
    Dialling { addresses, tasks }
}

/// Returns when the receiver has heard of everything that it will hear of this peer, so that a peer
/// of the same id can be added again.
async fn remove(shared: &Shared, node: u64, mut gone: Dialling) {
    info!(peer = node, "peer taken out of the list");
    let peer = shared.peers.write().remove(&node);
    gone.tasks.shutdown().await;
    for incoming in peer.iter().flat_map(|peer| &peer.incoming) {
        if let Some(mut reading) = incoming.lock().await.take() {
            reading.shutdown().await;
        }
    }
}
