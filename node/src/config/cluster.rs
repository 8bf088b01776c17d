//! The cluster that a node is part of.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::{Findings, values};

/// What stands in `dns` for the number of a node.
const PLACEHOLDER: &str = "{node}";

/// The largest number a node may have.
pub(super) const MAX_NODE: u64 = 0xFFFF;

/// The slowest that snapshots may leave, in bytes per second: at this rate a gigabyte takes a quarter of an
/// hour, and the cluster writes on meanwhile.
const MIN_SNAPSHOT_RATE: u64 = 1 << 20;

/// Which cluster, which of its nodes this is, and where the others are.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// The name of the cluster: nodes of others are refused.
    pub id: String,
    /// The number of this node, from 1 on; never given to another one.
    pub node: u64,
    /// Where this node listens for the others.
    pub listen: SocketAddr,
    /// Where others dial this node, when that is neither in `peers` nor what it listens on.
    pub address: Option<String>,
    /// The nodes that it knows from the start; this one may be among them.
    pub peers: Vec<Peer>,
    /// Instead of `peers`, a name and a port where the founders are: of each one where `{node}` stands for
    /// its number, of all otherwise.
    pub dns: Option<String>,
    /// The nodes with which the cluster began, when these are not all `peers`: the same on every one of
    /// them, for all time. In a file 3 is `[1, 2, 3]`.
    #[serde(deserialize_with = "values::founders")]
    pub founders: Vec<u64>,
    /// This node is none of the founders: it joins when it is added.
    pub join: bool,
    /// The backup that the cluster began with, if it did: the same on every node, for all time.
    pub restored_from: Option<String>,
    /// The certificate of this node for the others, valid for `node-<number>.skein`.
    pub certificate: PathBuf,
    /// Its private key.
    pub private_key: PathBuf,
    /// The CA that signs nodes, and nothing else.
    pub ca: PathBuf,
    /// How long a node that stops waits, not ready, until load balancers have noticed.
    #[serde(deserialize_with = "values::duration")]
    pub drain_delay: Duration,
    /// Connections that a node which stops ends per second.
    pub drain_rate: u32,
    /// Bytes of snapshots that this node sends to others per second: what is left of the network and of
    /// their disks is for what clients do.
    pub snapshot_bytes_per_second: u64,
}

/// Where a node is.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its number.
    pub node: u64,
    /// `host:port`; a name is resolved anew at every attempt.
    pub address: String,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            id: String::new(),
            node: 0,
            listen: (Ipv4Addr::UNSPECIFIED, 7400).into(),
            address: None,
            peers: Vec::new(),
            dns: None,
            founders: Vec::new(),
            join: false,
            restored_from: None,
            certificate: PathBuf::new(),
            private_key: PathBuf::new(),
            ca: PathBuf::new(),
            drain_delay: Duration::from_secs(5),
            drain_rate: 2000,
            snapshot_bytes_per_second: 32 << 20,
        }
    }
}

impl Cluster {
    /// Where others dial this node, as far as it knows; empty otherwise.
    pub fn advertised(&self) -> String {
        let in_peers = || self.peers.iter().find(|peer| peer.node == self.node);
        match (&self.address, &self.dns) {
            (Some(address), _) => address.clone(),
            (None, Some(dns)) => of_node(dns, self.node),
            (None, None) => match in_peers() {
                Some(own) => own.address.clone(),
                None if self.listen.ip().is_unspecified() => String::new(),
                None => self.listen.to_string(),
            },
        }
    }

    /// The nodes that it is told of, and where they are.
    pub fn known(&self) -> BTreeMap<u64, String> {
        match &self.dns {
            Some(dns) => self.founders.iter().map(|node| (*node, of_node(dns, *node))).collect(),
            None => self.peers.iter().map(|it| (it.node, it.address.clone())).collect(),
        }
    }

    /// Whether this node is none of the founders.
    pub fn joins(&self) -> bool {
        self.join || self.dns.is_some() && !self.founders.contains(&self.node)
    }

    /// The nodes with which the cluster begins, in order; none on a node that joins, which does not
    /// know them.
    pub fn founders(&self) -> Vec<u64> {
        if self.joins() {
            return Vec::new();
        }
        let all: BTreeSet<u64> = match self.founders.is_empty() {
            true => self.peers.iter().map(|peer| peer.node).chain([self.node]).collect(),
            false => self.founders.iter().copied().collect(),
        };
        all.into_iter().collect()
    }

    /// The files it names.
    pub fn files(&mut self) -> [&mut PathBuf; 3] {
        [&mut self.certificate, &mut self.private_key, &mut self.ca]
    }

    /// The same with their keys.
    pub fn keyed_files(&self) -> [(&'static str, &Path); 3] {
        [
            ("cluster.certificate", &self.certificate),
            ("cluster.private_key", &self.private_key),
            ("cluster.ca", &self.ca),
        ]
    }

    pub(super) fn check(&self, found: &mut Findings) {
        let is_node = |node: u64| (1..=MAX_NODE).contains(&node);
        if self.id.is_empty() {
            found.problem("cluster.id", "is missing: the name of the cluster");
        }
        if !is_node(self.node) {
            let text = format!("{} is not a number from 1 to {MAX_NODE}", self.node);
            found.problem("cluster.node", text);
        }
        if self.drain_rate == 0 {
            found.problem("cluster.drain_rate", "0 connections per second would never end");
        }
        if self.snapshot_bytes_per_second < MIN_SNAPSHOT_RATE {
            let rate = self.snapshot_bytes_per_second;
            let text =
                format!("{rate} is less than {MIN_SNAPSHOT_RATE}: nodes would never catch up");
            found.problem("cluster.snapshot_bytes_per_second", text);
        }
        let mut known = BTreeSet::new();
        for (place, peer) in self.peers.iter().enumerate() {
            let key = |field: &str| format!("cluster.peers[{place}].{field}");
            if !is_node(peer.node) {
                let text = format!("{} is not a number from 1 to {MAX_NODE}", peer.node);
                found.problem(key("node"), text);
            } else if !known.insert(peer.node) {
                found.problem(key("node"), format!("node {} is there twice", peer.node));
            }
            check_address(&key("address"), &peer.address, found);
            // A name may lead to several nodes.
            let is_of_one = peer.address.parse::<SocketAddr>().is_ok();
            let earlier = self.peers[..place].iter().find(|it| it.address == peer.address);
            if let Some(earlier) = earlier.filter(|it| is_of_one && it.node != peer.node) {
                let (address, node) = (&peer.address, earlier.node);
                found.problem(key("address"), format!("{address} is the address of node {node}"));
            }
        }
        if let Some(address) = &self.address {
            check_address("cluster.address", address, found);
        }
        for node in self.founders.iter().filter(|node| !is_node(**node)) {
            let text = format!("{node} is not a number from 1 to {MAX_NODE}");
            found.problem("cluster.founders", text);
        }
        if let Some(dns) = &self.dns {
            self.check_dns(dns, found);
            known = self.founders.iter().copied().collect();
        } else if self.join && !self.founders.is_empty() {
            found.problem("cluster.founders", "a node that joins does not say who they are");
        }
        if !self.joins() && !self.founders().contains(&self.node) {
            let text = format!(
                "node {} is none of them: it belongs to the cluster only if its data folder says so; a new \
                 one says `join = true`",
                self.node
            );
            found.warning("cluster.founders", text);
        }
        if self.join && self.advertised().is_empty() {
            let text = "is missing: others are told where a node is that joins";
            found.problem("cluster.address", text);
        }
        let unknown = self.founders.iter().filter(|it| !known.contains(*it) && **it != self.node);
        for node in unknown {
            let text = format!(
                "node {node} is none of the peers: where it is, this node learns from others alone"
            );
            found.warning("cluster.founders", text);
        }
        let said_already = self.dns.is_some() && known.is_empty();
        if !said_already && known.iter().all(|node| *node == self.node) {
            let text = "names no other node: a node that is alone needs no [cluster]";
            match self.join {
                true => found.problem("cluster.peers", "names no node of the cluster to join"),
                false => found.warning("cluster.peers", text),
            }
        }
        for (key, file) in self.keyed_files() {
            if file.as_os_str().is_empty() {
                found.problem(key, "is missing, and the links between nodes need it");
            }
        }
    }
}

impl Cluster {
    fn check_dns(&self, dns: &str, found: &mut Findings) {
        let host = dns.rsplit_once(':').map_or(dns, |(host, _)| host).replacen(PLACEHOLDER, "1", 1);
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        if host.is_empty() || !host.bytes().all(is_plain) || !is_address(dns) {
            let text = format!(
                "{dns:?} is not a name and a port, like \"skein-{PLACEHOLDER}.skein:7400\" or \
                 \"skein.example.com:7400\""
            );
            found.problem("cluster.dns", text);
        }
        if !self.peers.is_empty() {
            found.problem("cluster.dns", "nodes are found in one way, and there are cluster.peers");
        }
        if self.founders.is_empty() {
            let text = "is missing: how many nodes the cluster begins with, like 3, or their numbers. \
                        What a name resolves to at a moment does not say: two halves could found two \
                        clusters";
            found.problem("cluster.founders", text);
        }
    }
}

/// Where a node is, by a name that may hold its number.
fn of_node(dns: &str, node: u64) -> String {
    dns.replacen(PLACEHOLDER, &node.to_string(), 1)
}

/// Whether a text is `host:port`.
pub fn is_address(text: &str) -> bool {
    let port = text.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    matches!(port, Some(Ok(1..)))
}

fn check_address(key: &str, address: &str, found: &mut Findings) {
    if !is_address(address) {
        found.problem(key, format!("{address:?} is not `host:port`, like \"10.0.0.2:7400\""));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_known_and_who_begins() {
        let peers = "[[peers]]\nnode = 1\naddress = 'a:1'\n[[peers]]\nnode = 2\naddress = 'b:1'\n";
        let numbered = "dns = 's-{node}.s:1'\nfounders = 2\n";
        let plain = "dns = 's:1'\nfounders = [2, 1]\n";
        for (text, known, advertised, founders) in [
            (format!("node = 1\n{peers}"), "1 a:1, 2 b:1", "a:1", &[1, 2][..]),
            (format!("node = 3\njoin = true\n{peers}"), "1 a:1, 2 b:1", "", &[]),
            (format!("node = 2\n{numbered}"), "1 s-1.s:1, 2 s-2.s:1", "s-2.s:1", &[1, 2]),
            // None of those who begin, so it joins, whether or not it is told to.
            (format!("node = 3\n{numbered}"), "1 s-1.s:1, 2 s-2.s:1", "s-3.s:1", &[]),
            // It has lost its data.
            (format!("node = 2\njoin = true\n{numbered}"), "1 s-1.s:1, 2 s-2.s:1", "s-2.s:1", &[]),
            (format!("node = 1\n{plain}"), "1 s:1, 2 s:1", "s:1", &[1, 2]),
            (format!("node = 1\naddress = 'x:1'\n{plain}"), "1 s:1, 2 s:1", "x:1", &[1, 2]),
        ] {
            let cluster: Cluster = toml::from_str(&text).unwrap();
            let said: Vec<_> =
                cluster.known().iter().map(|(it, at)| format!("{it} {at}")).collect();
            assert_eq!(said.join(", "), known, "{text}");
            assert_eq!(cluster.advertised(), advertised, "{text}");
            assert_eq!(cluster.founders(), founders, "{text}");
            assert_eq!(cluster.joins(), founders.is_empty(), "{text}");
        }
    }
}
