//! What can go wrong with the log, and what to do about it.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::Group;

/// Why the log could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// A file could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Data that was acknowledged is damaged.
    #[error(
        "{} is damaged at offset {offset}: {what}; acknowledged data follows, so the log is not \
         opened: restore the file from a backup or a peer, or accept the loss of everything from \
         there on with --accept-log-loss",
        path.display()
    )]
    Corrupt {
        /// The segment.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// A segment's file is gone.
    #[error(
        "entries {from} to {to} of group {group} are missing from the log in {}: a segment file is \
         lost; restore it from a backup or a peer",
        dir.display()
    )]
    Missing {
        /// The log's directory.
        dir: PathBuf,
        /// The group.
        group: Group,
        /// The first missing index.
        from: u64,
        /// The last missing index.
        to: u64,
    },
}

/// Why a batch was not made durable.
#[derive(Debug, Error)]
pub enum AppendError {
    /// The disk is full. Nothing of the batch will be found later; the log goes on when there is
    /// room.
    #[error("no room for the log: {0}")]
    Full(#[source] io::Error),
    /// The log failed and takes nothing more; whether the last batch is there, only the next start
    /// will tell.
    #[error("the log failed: {0}")]
    Failed(String),
}

/// Why an entry could not be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The file could not be read.
    #[error("cannot read entry {index} of group {group} from {}: {source}", path.display())]
    Io {
        /// The group.
        group: Group,
        /// The entry.
        index: u64,
        /// The segment.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The entry is damaged.
    #[error("entry {index} of group {group} is damaged in {} at offset {offset}: {what}", path.display())]
    Corrupt {
        /// The group.
        group: Group,
        /// The entry.
        index: u64,
        /// The segment.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// The log does not hold the entry, or no longer.
    #[error("the log does not hold entry {index} of group {group}")]
    Absent {
        /// The group.
        group: Group,
        /// The entry.
        index: u64,
    },
}
