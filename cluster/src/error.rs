//! Why the raft thread could not start or had to end.

use storage::data::DataError;
use storage::log::{AppendError, Damage, Lost, OpenError, ReadError};
use storage::store::StoreError;
use thiserror::Error;

use crate::machine::GroupId;

/// What stops the groups of a node.
#[derive(Debug, Error)]
pub enum Error {
    /// The data directory cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The log does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The log takes nothing more.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The state store failed, or a machine did not take back what was stored.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stored state is older than what the log still holds: the store has lost data.
    #[error(
        "group {group}: the state store holds the state up to entry {stored}, but the log starts \
         only after {compacted}; restore the data directory from a backup or a peer"
    )]
    StateLost {
        /// The group.
        group: GroupId,
        /// What the store holds.
        stored: u64,
        /// What the log has dropped because the store held it.
        compacted: u64,
    },
    /// The log ends before the stored state: the log has lost data.
    #[error(
        "group {group}: the log ends at entry {last}, but the state store holds the state up to \
         {stored}; restore the log from a backup or a peer, or go on from the stored state with \
         --accept-log-loss"
    )]
    LogLost {
        /// The group.
        group: GroupId,
        /// Where the log ends.
        last: u64,
        /// What the store holds.
        stored: u64,
    },
    /// The log is damaged where it may have held something of a group.
    #[error(
        "group {group}: {} is damaged at offset {}: {}; {}; restore the data directory from a backup",
        damage.path.display(), damage.offset, damage.what, said(lost)
    )]
    Lost {
        /// The group.
        group: GroupId,
        /// The first damage.
        damage: Damage,
        /// What the group may have lost.
        lost: Lost,
    },
    /// Other nodes were told of entries that the log does not have: it has lost acknowledged data.
    #[error(
        "group {group}: the log ends at entry {last}, but the other nodes were told that it has \
         everything up to {known}: it has lost its end"
    )]
    Forgotten {
        /// The group.
        group: GroupId,
        /// Where the log ends.
        last: u64,
        /// What others know of.
        known: u64,
    },
    /// A leader lacks what is committed here: a node that elected it has lost what it had promised.
    #[error(
        "group {group}: entry {index} is committed here in term {here}, but node {leader}, which leads, \
         has it in term {there}: other nodes have lost what they had acknowledged, as when a data folder \
         or a disk of theirs was set back to an earlier state. This node stops, so that what it has is \
         kept: docs/runbook.md says how to go on with either history"
    )]
    Contradicted {
        /// The group.
        group: GroupId,
        /// The entry.
        index: u64,
        /// Its term here.
        here: u64,
        /// Who leads.
        leader: u64,
        /// Its term there.
        there: u64,
    },
    /// Another process, or an earlier one, has proposed under this node's number and incarnation.
    #[error(
        "group {group}: there are commands of node {node} that this process has not proposed: make \
         sure that no other process runs as node {node}"
    )]
    Doubled {
        /// The group.
        group: GroupId,
        /// This node.
        node: u64,
    },
    /// This node has joined and was never given anything of a group.
    #[error("group {group}: this node has nothing of it that it could go on with")]
    Unfounded {
        /// The group.
        group: GroupId,
    },
    /// A later life of this node has proposed something.
    #[error(
        "group {group}: there are commands of a later life of node {node}: make sure that no other \
         process runs as node {node}; then start it again, it begins one that is later still"
    )]
    Outlived {
        /// The group.
        group: GroupId,
        /// This node.
        node: u64,
        /// That life's number.
        life: u64,
    },
    /// The Raft library refused what the log holds; an invariant is broken.
    #[error("group {group}: raft: {reason}")]
    Raft {
        /// The group.
        group: GroupId,
        /// What it said.
        reason: String,
    },
    /// A committed entry is none this version can read.
    #[error(
        "group {group}: entry {index} of the log is committed and cannot be read: {reason}; if a \
         newer version has run on this data directory, run that one again, else the log is \
         damaged: restore the data directory from a backup or a peer"
    )]
    Entry {
        /// The group.
        group: GroupId,
        /// The entry.
        index: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The raft thread panicked.
    #[error("the raft thread panicked: {0}")]
    Panicked(String),
    /// The operating system gave no thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
}

impl Error {
    /// Whether log or store has lost something of a group, which other nodes may still have.
    pub(crate) fn is_loss(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::StateLost { .. } | Self::LogLost { .. })
    }
}

fn said(lost: &Lost) -> String {
    match lost {
        Lost::Entries { from, to } => format!("entries {from} to {to} are lost"),
        Lost::Everything => "all its entries and its vote may be lost".into(),
    }
}
