//! The state of all groups, as pairs, behind the log.
//!
//! A store is not written before each acknowledgement: the log carries durability, the store is
//! brought up by checkpoints, and the log is compacted only behind a finished flush. Each group's
//! pairs change together with the index up to which they hold. A store counts and sums up a group's
//! pairs, so that a lost or stale pair is found out when the group is loaded.

mod memory;
mod sled;

use std::collections::BTreeMap;
use std::path::PathBuf;

use thiserror::Error;

pub use self::memory::{Failing, MemStore};
pub use self::sled::SledStore;
use crate::log::Group;

/// Changed pairs: the new value, or `None` where the key is gone. Of a key that appears twice the
/// last counts.
pub type Changes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// Up to where in a group's log its stored pairs hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Index of the last entry they include, 0 for none.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
}

/// Why the store could not be opened, read or written.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The store does not open.
    #[error(
        "the state store in {} does not open: {reason}; restore the data directory from a backup \
         or a peer",
        path.display()
    )]
    Open {
        /// Where it is.
        path: PathBuf,
        /// What it said.
        reason: String,
        /// Whether what is on the disk is to blame.
        damaged: bool,
    },
    /// An operation failed; it may be tried again.
    #[error("the state store in {} cannot {action}: {reason}", path.display())]
    Failed {
        /// Where it is.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What it said.
        reason: String,
    },
    /// The disk has no room for an operation; it may be tried again when there is.
    #[error("the state store in {} has no room to {action}: {reason}", path.display())]
    Full {
        /// Where it is.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What it said.
        reason: String,
    },
    /// What is stored is not what was written.
    #[error(
        "the state of group {group} in {} is damaged: {what}; with peers it is mended when the node is \
         started again, else restore the data directory from a backup",
        path.display()
    )]
    Damaged {
        /// Where it is.
        path: PathBuf,
        /// The group.
        group: Group,
        /// Which key, and what is wrong.
        what: String,
    },
    /// The reader of [`Store::load`] did not take a pair.
    #[error("group {group}: {reason}")]
    Refused {
        /// The group.
        group: Group,
        /// What the reader said.
        reason: String,
    },
}

impl StoreError {
    /// Whether what is on the disk is not what was written, or cannot be read.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Open { damaged: true, .. })
    }
}

/// Takes back one stored pair, or says why not.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), String> + 'a;

/// Keeps the groups' state. An operation that failed may be tried again, after which everything
/// since the last successful [`Store::flush`] must be applied again, in order.
pub trait Store: Send + 'static {
    /// Up to where a group's pairs hold; zeros for a group never stored.
    fn applied(&mut self, group: Group) -> Result<Applied, StoreError>;

    /// Gives back all pairs of a group in key order, verified, and up to where they hold.
    fn load(&mut self, group: Group, visit: &mut Visit<'_>) -> Result<Applied, StoreError>;

    /// Changes a group's pairs and its applied index together. `from` is the applied index that
    /// the changes follow; it is an error if the store is neither there nor at `to` already.
    fn apply(
        &mut self,
        group: Group,
        from: u64,
        to: Applied,
        changes: Changes,
    ) -> Result<(), StoreError>;

    /// Puts other pairs in the place of all that a group has, together with its applied index: after
    /// a crash there are the old ones or the new ones. No key appears twice.
    fn replace(
        &mut self,
        group: Group,
        to: Applied,
        pairs: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<(), StoreError>;

    /// Begins anew with what these groups have, and keeps what there was before aside until the next
    /// time.
    fn begin_anew(&mut self, keep: &[Group]) -> Result<(), StoreError>;

    /// Makes everything applied so far safe.
    fn flush(&mut self) -> Result<(), StoreError>;
}

/// What a group's pairs amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    pairs: u64,
    /// Sum of all pairs' checksums, whatever their order.
    digest: u64,
}

impl Sum {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.pairs = self.pairs.wrapping_add(1);
        self.digest = self.digest.wrapping_add(digest(key, value));
    }

    fn remove(&mut self, key: &[u8], value: &[u8]) {
        self.pairs = self.pairs.wrapping_sub(1);
        self.digest = self.digest.wrapping_sub(digest(key, value));
    }
}

fn digest(key: &[u8], value: &[u8]) -> u64 {
    let crc = pair_crc(key, value);
    crate::dice::Dice::new(u64::from(crc) | (key.len() as u64) << 32).bits()
}

/// The checksum of a pair; the key's length keeps a byte from moving between the two unseen.
fn pair_crc(key: &[u8], value: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&(key.len() as u32).to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, key), value)
}

/// Changes without repeated keys, in key order.
fn last_of_each(changes: Changes) -> BTreeMap<Vec<u8>, Option<Vec<u8>>> {
    changes.into_iter().collect()
}
