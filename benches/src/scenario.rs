//! What the connections do, one module per kind of load.

pub mod idle;
pub mod stored;
pub mod storm;
pub mod subscriptions;
pub mod traffic;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;

use crate::client::Client;
use crate::frame::{Connect, Version};

/// The broker that is loaded.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its plain listener.
    pub address: SocketAddr,
    /// Its process, where CPU time and memory are wanted.
    pub pid: Option<u32>,
    /// The protocol version to speak.
    pub version: Version,
}

/// A name for one run, so that runs against one broker share neither sessions nor topics.
pub fn run_name() -> String {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    format!("{:x}.{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed))
}

impl Target {
    /// Connects a client without keep-alive.
    pub fn connect(&self, client_id: &str, clean: bool) -> Result<Client> {
        let version = self.version;
        Client::connect(self.address, &Connect { client_id, version, keep_alive: 0, clean })
    }

    /// Ends a persistent session.
    pub fn forget(&self, client_id: &str) -> Result<()> {
        self.connect(client_id, true)?.disconnect()
    }
}
