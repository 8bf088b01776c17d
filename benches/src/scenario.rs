//! What the connections do, one module per kind of load.

pub mod idle;
pub mod reconnect;
pub mod registry;
pub mod rest;
pub mod rights;
pub mod stored;
pub mod storm;
pub mod subscriptions;
pub mod traffic;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;

use crate::client::Client;
use crate::frame::{Connect, Version};
use crate::stream::Transport;

/// The broker that is loaded.
#[derive(Clone, Debug)]
pub struct Target {
    /// How clients reach it.
    pub transport: Transport,
    /// Its listener for that.
    pub address: SocketAddr,
    /// Those of the other nodes of its cluster: traffic is spread over all.
    pub others: Vec<SocketAddr>,
    /// Its processes, where CPU time and memory are wanted.
    pub pids: Vec<u32>,
    /// The protocol version to speak.
    pub version: Version,
}

/// A name for one run, so that runs against one broker share neither sessions nor topics.
pub fn run_name() -> String {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    format!("{:x}.{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed))
}

impl Target {
    /// A node, each as often as another: what goes on from one number to the next crosses nodes.
    pub fn node(&self, number: usize) -> Self {
        let address = match number % (1 + self.others.len()) {
            0 => self.address,
            other => self.others[other - 1],
        };
        Self { address, ..self.clone() }
    }

    /// The process whose memory is read.
    pub fn pid(&self) -> Option<u32> {
        self.pids.first().copied()
    }

    /// Connects a client without keep-alive.
    pub fn connect(&self, client_id: &str, clean: bool) -> Result<Client> {
        let version = self.version;
        let connect = Connect { client_id, version, keep_alive: 0, clean };
        Client::connect(&self.transport, self.address, &connect)
    }

    /// Ends a persistent session.
    pub fn forget(&self, client_id: &str) -> Result<()> {
        self.connect(client_id, true)?.disconnect()
    }
}
