//! Ordered streams between the nodes of a cluster: gRPC over mutual TLS, as `proto/` says.
//!
//! A node dials one stream per peer and [`Purpose`] for what it has to say; the other direction
//! only keeps the stream open. So every stream has one owner who dials it again, nodes that dial
//! each other at the same time need no tie-break, and the side that cannot send is the side that
//! notices. A stream has a TCP connection of its own: no fan-out delays a heartbeat.
//!
//! Invariant: what arrives on a stream is a prefix of what was sent on it, in order and once. What
//! was under way when a stream ended may be lost; [`Receiver`] hears of it on both sides.

mod accept;
mod config;
mod dial;
mod handshake;
mod message;
mod metrics;
mod outbox;
mod parcel;
mod peers;
mod resolve;
mod tls;

/// The contract between nodes, generated from `proto/skein/peer/v1/peer.proto`.
#[allow(missing_docs, clippy::all)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/skein.peer.v1.rs"));
}

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::peers::{Peer, Shared, Wanted};
use crate::tls::Tls;

pub use config::{Config, PeerAddress, QueueBytes};
pub use handshake::{MIN_VERSION, VERSION};
pub use message::{Batch, Direction, MAX_MESSAGE_BYTES, Message, Purpose, Stream};
pub use outbox::Refused;
pub use parcel::{Member, Parcel, Publication, Unreadable, encode_parcel, encoded_parcels};
pub use peers::Trouble;
pub use resolve::{Resolve, System};
pub use tls::{Identity, Part, Unfit, certificate_name};

/// What a peer says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Introduction<'a> {
    /// Its id.
    pub node: u64,
    /// Which life of it this is.
    pub incarnation: u64,
    /// The name of its data folder; empty if it has none.
    pub folder: &'a str,
    /// This life and those before it on that folder, the oldest first; none if it does not say.
    pub lives: &'a [u64],
    /// Where it wants to be dialled; empty if it does not know.
    pub address: &'a str,
    /// Where it was dialled; empty if it has dialled this node.
    pub found: &'a str,
    /// Whether it is none of the founders.
    pub joins: bool,
    /// Where it knows other nodes to be. It says so to one that joins alone.
    pub others: &'a [PeerAddress],
}

/// Why a peer is not wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// In words that follow on the peer's name.
    pub why: String,
    /// How certain that is.
    pub certainty: Certainty,
}

/// How certain it is that a peer is not wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// Something has to happen first: the node that says so loads its state, another process ends, or an
    /// operator does something.
    ForNow,
    /// As far as the node knows that says so, which may not know enough.
    Unsure,
    /// It is not, and has to stop: it lacks what the node with its number has promised.
    ForGood,
}

/// What the node does with what happens on its links. Runs on the runtime of the links, must not
/// block, and keeps what it takes within bounds of its own.
///
/// Calls for one [`Stream`] come one after the other: `connected`, then, of an incoming one,
/// `received` for each batch, then `lost`; then `connected` again. Calls for different streams may
/// come at the same time.
pub trait Receiver: Send + Sync + 'static {
    /// A stream is there: the handshake is done. On an outgoing one [`Links::send`] takes messages
    /// from just before this call on. `incarnation` says which life of the peer this is.
    fn connected(&self, stream: Stream, incarnation: u64);

    /// The stream has ended: whatever was under way on it may not have arrived. Another one is
    /// being dialled, unless the peer was taken out of the list.
    fn lost(&self, stream: Stream);

    /// Whether a peer is wanted that is who it says it is; asked for each stream, in either direction,
    /// before [`Receiver::connected`]. For a life of it that was not let in before this may wait for the
    /// disk.
    fn admit(&self, _peer: Introduction<'_>) -> Result<(), Denied> {
        Ok(())
    }

    /// Where other nodes are, for a peer that joins and may not know.
    fn others(&self) -> Vec<PeerAddress> {
        Vec::new()
    }

    /// A peer does not want this node, and never will.
    fn denied(&self, _peer: u64, _why: &str) {}

    /// A peer does not want this node, but may know too little of it.
    fn doubted(&self, _peer: u64) {}

    /// Nobody listens at an address of the peer, as its machine says, or a firewall that speaks for it: whatever
    /// life of it was there has ended. Where a name leads to several places that is known of one life alone.
    fn refused(&self, _peer: u64, _address: &str, _life: Option<u64>) {}

    /// A life of the peer is at this address, and does not want this node.
    fn found(&self, _peer: u64, _address: &str, _incarnation: u64) {}

    /// The peer has sent these, in this order. They share the memory of what was read from the
    /// socket, up to some hundred kilobytes: what keeps one for long should copy it.
    fn received(&self, peer: u64, batch: Batch);
}

/// Why the links could not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        #[source]
        error: std::io::Error,
    },
    /// Nobody would believe that this is the node.
    #[error(transparent)]
    Identity(#[from] Unfit),
}

/// The links of this node. A clone is another handle to the same links; they end with
/// [`Links::stop`] or when the last handle is gone.
#[derive(Clone)]
pub struct Links {
    shared: Arc<Shared>,
    wanted: Arc<watch::Sender<Wanted>>,
    address: SocketAddr,
}

impl Links {
    /// Listens, and dials the configured peers, on `runtime`.
    pub fn start(
        config: Config,
        receiver: impl Receiver,
        runtime: &Handle,
    ) -> Result<Self, StartError> {
        let listen = config.listen;
        let failed = |error| StartError::Listen { address: listen, error };
        let listener = std::net::TcpListener::bind(listen).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let _inside = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;

        metrics::describe();
        let (wanted, changes) = watch::channel(Some(config.peers.clone()));
        let tls = Tls::new(config.node, &config.identity)?;
        let (receiver, peers, refused) = (Box::new(receiver), RwLock::default(), Mutex::default());
        let shared = Arc::new(Shared { config, tls, receiver, peers, refused });
        runtime.spawn(peers::supervise(shared.clone(), listener, changes));
        Ok(Self { shared, wanted: Arc::new(wanted), address })
    }

    /// Where this node listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Hands over a message for a peer, and never waits. What waits is sent as one batch. The
    /// sender of a Raft message may forget a refused one, since Raft sends again; everybody else
    /// decides what to do with it.
    pub fn send(&self, peer: u64, message: Message) -> Result<(), Refused> {
        let purpose = message.purpose();
        let sent = match self.shared.peers.read().get(&peer) {
            Some(peer) => peer.outgoing[purpose as usize].push(message),
            None => Err(Refused::Unreachable),
        };
        sent.inspect_err(|refused| metrics::dropped(purpose, refused.label()).increment(1))
    }

    /// As [`Self::send`] for much that can be sent later as well: it leaves half of what may wait to
    /// messages that cannot, and is asked again when it is refused.
    pub fn send_patient(&self, peer: u64, message: Message) -> Result<(), Refused> {
        match self.shared.peers.read().get(&peer) {
            Some(peer) => peer.outgoing[message.purpose() as usize].push_patient(message),
            None => Err(Refused::Unreachable),
        }
    }

    /// Whether the peer can be sent to for every purpose: a handshake has been made on each of the
    /// streams to it, and none of them is known to have ended.
    pub fn reachable(&self, peer: u64) -> bool {
        let peers = self.shared.peers.read();
        peers.get(&peer).is_some_and(|peer| peer.outgoing.iter().all(|outbox| outbox.is_open()))
    }

    /// What is wrong with the links that this node dials, in the order of the peers' ids.
    pub fn troubles(&self) -> Vec<(u64, Trouble)> {
        let peers = self.shared.peers.read();
        let trouble =
            |(node, peer): (&u64, &Arc<Peer>)| Some((*node, peer.trouble.lock().clone()?));
        let mut troubles: Vec<_> = peers.iter().filter_map(trouble).collect();
        troubles.sort();
        troubles
    }

    /// The peers are these from now on; this node itself may be among them. Streams of peers that
    /// are not listed any more end. A new address of a peer is used when its streams are dialled
    /// the next time. A peer may be listed with several addresses, of which the first should be its: they are
    /// dialled in turn, mostly first where it was last.
    pub fn set_peers(&self, peers: Vec<PeerAddress>) {
        self.wanted.send_if_modified(|wanted| match wanted {
            Some(wanted) => {
                *wanted = peers;
                true
            }
            None => false,
        });
    }

    /// Ends every stream, telling the receiver, and stops listening; returns when that is done.
    pub async fn stop(&self) {
        self.wanted.send_replace(None);
        self.wanted.closed().await;
    }
}
