//! What nodes say to each other about their groups, and who carries it.
//!
//! A message is its kind, which is its version too, and then what it says. Any of them may be lost,
//! late, doubled or out of order: whoever sent it asks again.

use bytes::Bytes;
use protobuf::{CodedInputStream, Message as _};
use raft::prelude::Message;

use crate::machine::GroupId;

const RAFT: u8 = 1;

/// Carries messages to other nodes.
pub trait Peers: 'static {
    /// Takes what one turn has for one node, in order. It must not block: what it has no room for,
    /// it drops.
    fn send(&mut self, to: u64, batch: Vec<(GroupId, Vec<u8>)>);
}

/// The peers of a node that has none.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPeers;

impl Peers for NoPeers {
    fn send(&mut self, _to: u64, _batch: Vec<(GroupId, Vec<u8>)>) {}
}

/// A message from another node, as [`Peers::send`] was given it there.
#[derive(Clone, Debug)]
pub struct PeerMessage {
    /// The node that sent it, as the link knows it.
    pub from: u64,
    /// The group it is about.
    pub group: GroupId,
    /// What it says.
    pub message: Bytes,
}

/// What a message says.
pub(crate) enum Letter {
    /// Something of Raft's own.
    Raft(Message),
}

impl Letter {
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Raft(message) => {
                let mut bytes = Vec::with_capacity(1 + message.compute_size() as usize);
                bytes.push(RAFT);
                message.write_to_vec(&mut bytes).expect("a vector takes what is written");
                bytes
            }
        }
    }

    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, String> {
        match bytes.first() {
            Some(&RAFT) => {
                let body = bytes.slice(1..);
                let mut input = CodedInputStream::from_carllerche_bytes(&body);
                let mut message = Message::default();
                message.merge_from(&mut input).map_err(|error| error.to_string())?;
                Ok(Self::Raft(message))
            }
            Some(kind) => Err(format!("message kind {kind} is not known to this version")),
            None => Err("an empty message".into()),
        }
    }
}
