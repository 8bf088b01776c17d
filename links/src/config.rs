//! The knobs of the links.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::message::Purpose;
use crate::resolve::{Resolve, System};
use crate::tls::Identity;

/// How a node is linked with its peers. Defaults are fit for production.
#[derive(Clone)]
pub struct Config {
    /// This node's id, never 0.
    pub node: u64,
    /// Which life of this node this is: another number after every start.
    pub incarnation: u64,
    /// The name of this node's data folder; empty if it has none.
    pub folder: String,
    /// This life and those before it on the same data folder, the oldest first.
    pub lives: Vec<u64>,
    /// Where peers dial this node; empty if that is not known.
    pub address: String,
    /// Whether this node is none of the founders.
    pub joins: bool,
    /// Drawn when the cluster was founded; peers of another cluster are refused.
    pub cluster_id: [u8; 16],
    /// Where peers reach this node.
    pub listen: SocketAddr,
    /// The other nodes at the start. Nodes that are not listed are refused.
    pub peers: Vec<PeerAddress>,
    /// Who this node is, and which CA it believes.
    pub identity: Identity,
    /// What finds the addresses of peers.
    pub resolver: Arc<dyn Resolve>,
    /// Bytes that may wait.
    pub queue_bytes: QueueBytes,
    /// The wait before the first attempt to dial again; it doubles with each that fails.
    pub backoff_min: Duration,
    /// The longest wait between two attempts.
    pub backoff_max: Duration,
    /// A link on which nothing has arrived for this long is pinged.
    pub ping_interval: Duration,
    /// A link whose ping is not answered within this time is given up.
    pub ping_timeout: Duration,
    /// To resolve a peer's address; and from dialling or accepting to the handshake's being done.
    pub handshake_timeout: Duration,
}

impl Config {
    /// The defaults for a node that knows no peer yet.
    pub fn new(
        node: u64,
        incarnation: u64,
        cluster_id: [u8; 16],
        listen: SocketAddr,
        identity: Identity,
    ) -> Self {
        Self {
            node,
            incarnation,
            folder: String::new(),
            lives: Vec::new(),
            address: String::new(),
            joins: false,
            cluster_id,
            listen,
            peers: Vec::new(),
            identity,
            resolver: Arc::new(System),
            queue_bytes: QueueBytes::default(),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(2),
            ping_interval: Duration::from_secs(2),
            ping_timeout: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(5),
        }
    }
}

/// Where a peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// Its id.
    pub node: u64,
    /// `host:port`; a name is resolved anew at every attempt. Where it stands for several, the peer is
    /// the one that has its certificate.
    pub address: String,
}

/// Bytes of messages that may wait for one peer, by purpose. Up to a batch and the send buffer of
/// HTTP/2, about 1.5 MB, are under way beyond that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueBytes {
    /// Of Raft groups.
    pub raft: usize,
    /// Of the fan-out.
    pub fanout: usize,
    /// Of questions and answers.
    pub control: usize,
}

impl QueueBytes {
    pub(crate) fn of(&self, purpose: Purpose) -> usize {
        match purpose {
            Purpose::Raft => self.raft,
            Purpose::Fanout => self.fanout,
            Purpose::Control => self.control,
        }
    }
}

impl Default for QueueBytes {
    fn default() -> Self {
        Self { raft: 64 << 20, fanout: 64 << 20, control: 16 << 20 }
    }
}
