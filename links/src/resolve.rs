//! From the address of a peer, which may be a name, to sockets.

use std::io;
use std::net::SocketAddr;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

/// Finds what `host:port` stands for; asked anew at every attempt to reach a peer.
pub trait Resolve: Send + Sync {
    /// All that it stands for now.
    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>>;
}

/// Asks as the machine is configured to: its hosts file, its name servers. Nothing is kept.
pub struct System;

impl Resolve for System {
    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        async move { Ok(tokio::net::lookup_host(address).await?.collect()) }.boxed()
    }
}

/// In which order sockets are tried, each once: first that where the peer was found before, if it is
/// still there.
pub(crate) fn order(mut found: Vec<SocketAddr>, before: Option<SocketAddr>) -> Vec<SocketAddr> {
    let mut seen = rustc_hash::FxHashSet::default();
    found.retain(|address| seen.insert(*address));
    found.sort_by_key(|address| Some(*address) != before);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_peer_was_is_tried_first() {
        let all = |ports: &[u16]| -> Vec<SocketAddr> {
            ports.iter().map(|port| ([127, 0, 0, 1], *port).into()).collect()
        };
        for (found, before, expected) in [
            (&[3, 1, 2][..], None, &[3, 1, 2][..]),
            (&[3, 1, 2], Some(2), &[2, 3, 1]),
            (&[3, 1, 2], Some(9), &[3, 1, 2]),
            (&[3, 3, 1], Some(1), &[1, 3]),
            (&[], Some(1), &[]),
        ] {
            let before = before.map(|port| all(&[port])[0]);
            assert_eq!(order(all(found), before), all(expected));
        }
    }
}
