//! Why the raft thread could not start or had to end.

use thiserror::Error;

use crate::machine::{GroupId, LoadError};

/// What stops the groups of a node.
#[derive(Debug, Error)]
pub enum Error {
    /// The stored state of a group could not be taken back.
    #[error("group {group}: stored state cannot be loaded: {source}")]
    Load {
        /// The group.
        group: GroupId,
        /// Which pair and why.
        source: LoadError,
    },
    /// The Raft library refused what the log holds; an invariant is broken.
    #[error("group {group}: raft: {reason}")]
    Raft {
        /// The group.
        group: GroupId,
        /// What it said.
        reason: String,
    },
    /// The raft thread panicked.
    #[error("the raft thread panicked: {0}")]
    Panicked(String),
    /// The operating system gave no thread.
    #[error("cannot start the raft thread: {0}")]
    Thread(#[source] std::io::Error),
}
