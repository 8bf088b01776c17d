//! What nodes say to each other about their groups, and who carries it.
//!
//! A message is its kind, which is its version too, and then what it says. Any of them may be lost,
//! late, doubled or out of order: whoever sent it asks again.

use bytes::{Buf, BufMut, Bytes};
use protobuf::{CodedInputStream, Message as _};
use raft::prelude::Message;

use crate::machine::GroupId;
use crate::pack::{self, Run};
use crate::snapshot::Chunk;

const RAFT: u8 = 1;
const CHUNK: u8 = 2;
const TAKEN: u8 = 3;
const ASKING: u8 = 4;
const REMOVED: u8 = 5;
const PROPOSING: u8 = 6;
const LOOKING: u8 = 7;
const LOOK_AT: u8 = 8;
const ABSTAINING: u8 = 9;
const UNFOUNDED: u8 = 10;
const DAMAGED: u8 = 11;
const FENCE: u8 = 12;

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
    /// A piece of a snapshot.
    Chunk(Chunk),
    /// What has become of a snapshot.
    Taken { snapshot: u64, taken: Taken },
    /// Whether the sender is still a member; it hears no leader and knows this much.
    Asking { applied: u64 },
    /// The receiver is no member, as of an entry.
    Removed { applied: u64 },
    /// Commands for the leader.
    Proposing(Run),
    /// What is committed? The leader is asked by a number.
    Looking { number: u64 },
    /// The leader's answer: everything up to this entry.
    LookAt { number: u64, index: u64 },
    /// The sender does not even know who was there at the beginning: entries are nothing to it, it
    /// needs a snapshot.
    Unfounded,
    /// The sender has lost something that it had promised to keep: it needs a snapshot that is newer
    /// than this call. The number is of this damage alone.
    Damaged { number: u64 },
    /// The leader's answer: a snapshot that it sends in this term and that has this entry is newer.
    Fence { number: u64, term: u64, index: u64 },
    /// The sender should lead nothing, whatever the group: its disk has no room, or it leaves.
    Abstaining,
}

/// How far a receiver of a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It has the first so many chunks.
    Chunks(u32),
    /// It wants no more of it: it is installed, or not needed.
    Done,
}

/// Stands for [`Taken::Done`]; no snapshot has as many chunks.
const DONE: u32 = u32::MAX;

impl Letter {
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Raft(message) => {
                let mut bytes = Vec::with_capacity(1 + message.compute_size() as usize);
                bytes.push(RAFT);
                message.write_to_vec(&mut bytes).expect("a vector takes what is written");
                bytes
            }
            Self::Chunk(chunk) => {
                let mut bytes = vec![CHUNK];
                chunk.encode(&mut bytes);
                bytes
            }
            Self::Taken { snapshot, taken } => {
                let mut bytes = vec![TAKEN];
                bytes.put_u64_le(*snapshot);
                bytes.put_u32_le(match taken {
                    Taken::Chunks(count) => *count,
                    Taken::Done => DONE,
                });
                bytes
            }
            Self::Asking { applied } => numbered(ASKING, *applied),
            Self::Removed { applied } => numbered(REMOVED, *applied),
            Self::Proposing(run) => {
                let mut bytes = vec![PROPOSING];
                bytes.append(&mut pack::pack(std::slice::from_ref(run)));
                bytes
            }
            Self::Looking { number } => numbered(LOOKING, *number),
            Self::LookAt { number, index } => {
                let mut bytes = numbered(LOOK_AT, *number);
                bytes.put_u64_le(*index);
                bytes
            }
            Self::Damaged { number } => numbered(DAMAGED, *number),
            Self::Fence { number, term, index } => {
                let mut bytes = numbered(FENCE, *number);
                bytes.put_u64_le(*term);
                bytes.put_u64_le(*index);
                bytes
            }
            Self::Unfounded => vec![UNFOUNDED],
            Self::Abstaining => vec![ABSTAINING],
        }
    }

    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, String> {
        match bytes.first() {
            Some(&RAFT) => Ok(Self::Raft(raft_message(&bytes.slice(1..))?)),
            Some(&CHUNK) => Ok(Self::Chunk(Chunk::decode(bytes.slice(1..))?)),
            Some(&TAKEN) if bytes.len() == 13 => {
                let mut rest = bytes.slice(1..);
                let (snapshot, count) = (rest.get_u64_le(), rest.get_u32_le());
                let taken = if count == DONE { Taken::Done } else { Taken::Chunks(count) };
                Ok(Self::Taken { snapshot, taken })
            }
            Some(kind @ (&ASKING | &REMOVED | &LOOKING | &DAMAGED)) if bytes.len() == 9 => {
                let number = bytes.slice(1..).get_u64_le();
                Ok(match *kind {
                    ASKING => Self::Asking { applied: number },
                    REMOVED => Self::Removed { applied: number },
                    DAMAGED => Self::Damaged { number },
                    _ => Self::Looking { number },
                })
            }
            Some(&PROPOSING) => {
                let run = pack::unpack(bytes.slice(1..))?.pop();
                let run = run.filter(|run| run.source.is_some());
                Ok(Self::Proposing(run.ok_or("commands of nobody")?))
            }
            Some(&LOOK_AT) if bytes.len() == 17 => {
                let mut rest = bytes.slice(1..);
                Ok(Self::LookAt { number: rest.get_u64_le(), index: rest.get_u64_le() })
            }
            Some(&FENCE) if bytes.len() == 25 => {
                let mut rest = bytes.slice(1..);
                let (number, term) = (rest.get_u64_le(), rest.get_u64_le());
                Ok(Self::Fence { number, term, index: rest.get_u64_le() })
            }
            Some(&UNFOUNDED) if bytes.len() == 1 => Ok(Self::Unfounded),
            Some(&ABSTAINING) if bytes.len() == 1 => Ok(Self::Abstaining),
            Some(kind) => Err(format!("message kind {kind} is not known to this version")),
            None => Err("an empty message".into()),
        }
    }
}

fn numbered(kind: u8, number: u64) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.put_u64_le(number);
    bytes
}

/// A message of Raft's own.
pub(crate) fn raft_message(bytes: &Bytes) -> Result<Message, String> {
    let mut message = Message::default();
    let mut input = CodedInputStream::from_carllerche_bytes(bytes);
    message.merge_from(&mut input).map_err(|error| error.to_string())?;
    Ok(message)
}
