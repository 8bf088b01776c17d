//! The handshake: what both sides say first, and whether the other one is who it must be.

use thiserror::Error;

use crate::config::{Config, PeerAddress};
use crate::message::Purpose;
use crate::proto::{Frame, Hello, Whereabouts, frame::Kind};
use crate::{Denied, Introduction, Receiver};

/// The version of the contract that this node speaks.
pub const VERSION: u32 = 2;

/// The oldest version that this node still understands.
pub const MIN_VERSION: u32 = 1;

/// Under this key a node that refuses a peer says in which life it is itself.
pub(crate) const INCARNATION: &str = "skein-incarnation";

/// Why a link with a node is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Refusal {
    /// It presents no certificate.
    #[error("no certificate is presented")]
    NoCertificate,
    /// Its certificate is none of this cluster's CA, or not valid now.
    #[error("the certificate is not accepted: {0}")]
    Certificate(String),
    /// No version is understood by both.
    #[error(
        "the peer speaks version {version} and understands none before {min_version}, this node \
         speaks {VERSION} and understands none before {MIN_VERSION}"
    )]
    Version {
        /// What it speaks.
        version: u32,
        /// The oldest it understands.
        min_version: u32,
    },
    /// It is a node of another cluster.
    #[error("it is of another cluster: cluster.id, shards or cluster.restored_from differ")]
    Cluster,
    /// Its certificate, or what it says, names another node.
    #[error("the peer is not node {0}")]
    Node(u64),
    /// It is none of the peers this node knows.
    #[error("node {0} is none of the peers")]
    UnknownPeer(u64),
    /// The node does not want it.
    #[error("node {node} {}", denied.why)]
    Denied {
        /// Who.
        node: u64,
        /// Why.
        denied: Denied,
    },
    /// It does not keep to the contract.
    #[error("the peer breaks the contract: {0}")]
    Contract(&'static str),
}

impl Refusal {
    /// The reason as a metric label.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::Certificate(_) => "certificate",
            Self::Version { .. } => "version",
            Self::Cluster => "cluster",
            Self::Node(_) => "node",
            Self::UnknownPeer(_) => "unknown_peer",
            Self::Denied { .. } => "denied",
            Self::Contract(_) => "contract",
        }
    }
}

/// The first frame of this node on a stream that it dials.
pub(crate) fn hello(config: &Config, purpose: Purpose) -> Frame {
    framed(introduction(config, purpose))
}

/// The answer to the first frame of a peer.
pub(crate) fn answer(
    config: &Config,
    purpose: Purpose,
    receiver: &dyn Receiver,
    peer: &Hello,
) -> Frame {
    let others = if peer.joins { receiver.others() } else { Vec::new() };
    let others = others.into_iter().filter(|other| other.node != peer.node);
    let others = others.map(|PeerAddress { node, address }| Whereabouts { node, address });
    framed(Hello { others: others.collect(), ..introduction(config, purpose) })
}

fn framed(hello: Hello) -> Frame {
    Frame { kind: Some(Kind::Hello(hello)) }
}

fn introduction(config: &Config, purpose: Purpose) -> Hello {
    Hello {
        version: VERSION,
        min_version: MIN_VERSION,
        cluster_id: config.cluster_id.to_vec().into(),
        node: config.node,
        incarnation: config.incarnation,
        purpose: purpose.number(),
        folder: config.folder.clone(),
        address: config.address.clone(),
        joins: config.joins,
        others: Vec::new(),
        lives: config.lives.clone(),
    }
}

/// Asks the node whether it wants a peer that is who it says it is.
pub(crate) fn admit(receiver: &dyn Receiver, hello: &Hello, found: &str) -> Result<(), Refusal> {
    let Hello { node, incarnation, folder, lives, address, joins, .. } = hello;
    let (node, incarnation, joins) = (*node, *incarnation, *joins);
    let others = hello.others.iter().cloned();
    let others: Vec<_> =
        others.map(|Whereabouts { node, address }| PeerAddress { node, address }).collect();
    let others = &others;
    let peer = Introduction { node, incarnation, folder, lives, address, found, joins, others };
    let admitted = receiver.admit(peer);
    admitted.map_err(|denied| Refusal::Denied { node, denied })
}

/// Judges everything about a peer's first frame but which node it comes from.
pub(crate) fn judge(config: &Config, first: Option<Frame>) -> Result<(Hello, Purpose), Refusal> {
    let Some(Kind::Hello(hello)) = first.and_then(|frame| frame.kind) else {
        return Err(Refusal::Contract("its first frame is not Hello"));
    };
    let (version, min_version) = (hello.version, hello.min_version);
    if version < MIN_VERSION || VERSION < min_version {
        return Err(Refusal::Version { version, min_version });
    }
    if hello.cluster_id != config.cluster_id[..] {
        return Err(Refusal::Cluster);
    }
    let purpose = Purpose::ALL.into_iter().find(|purpose| purpose.number() == hello.purpose);
    Ok((hello, purpose.ok_or(Refusal::Contract("its purpose is unknown"))?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::Identity;

    #[test]
    fn judges_what_is_said_first() {
        let identity = Identity { ca: vec![], certificate: vec![], private_key: vec![] };
        let local = Config::new(1, 7, [1; 16], ([127, 0, 0, 1], 0).into(), identity);
        let good = Hello {
            version: 1,
            min_version: 1,
            cluster_id: vec![1; 16].into(),
            node: 2,
            incarnation: 9,
            purpose: 2,
            ..Hello::default()
        };
        let table = [
            (good.clone(), Ok(Purpose::Fanout)),
            (Hello { version: 5, ..good.clone() }, Ok(Purpose::Fanout)),
            (Hello { version: 2, min_version: 2, ..good.clone() }, Ok(Purpose::Fanout)),
            (Hello { version: 0, min_version: 0, ..good.clone() }, Err("version")),
            (Hello { version: 3, min_version: 3, ..good.clone() }, Err("version")),
            (Hello { cluster_id: vec![2; 16].into(), ..good.clone() }, Err("cluster")),
            (Hello { cluster_id: vec![1; 15].into(), ..good.clone() }, Err("cluster")),
            (Hello { purpose: 0, ..good.clone() }, Err("contract")),
            (Hello { purpose: 4, ..good }, Err("contract")),
        ];
        for (hello, expected) in table {
            let frame = Frame { kind: Some(Kind::Hello(hello.clone())) };
            let verdict = judge(&local, Some(frame)).map(|(_, purpose)| purpose);
            assert_eq!(verdict.map_err(|refusal| refusal.label()), expected, "{hello:?}");
        }
        for frame in [None, Some(Frame { kind: None })] {
            assert_eq!(judge(&local, frame).map_err(|refusal| refusal.label()), Err("contract"));
        }
    }
}
