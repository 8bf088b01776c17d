//! What a group replicates: a state that only its committed commands change.

use bytes::Bytes;
use thiserror::Error;

/// The number of a Raft group on this cluster: 0 is `meta`, the shards follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub u32);

impl GroupId {
    /// The group that holds the registry and the cluster's settings.
    pub const META: GroupId = GroupId(0);
}

impl From<u16> for GroupId {
    fn from(number: u16) -> Self {
        Self(number.into())
    }
}

impl std::fmt::Display for GroupId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Changed pairs of a machine's state: the new value, or `None` where the key is gone.
pub type Pairs = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// Stored state that a machine could not take back; says which pair and why.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct LoadError(pub String);

/// A committed command that this version cannot read; says why.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Unreadable(pub String);

/// One replicated state. Deterministic: it sees only commands, never a clock or chance, so every
/// replica that applied the same commands is the same.
pub trait StateMachine: 'static {
    /// What came of a command.
    type Outcome;

    /// Applies the next committed command. A command that asks for what may not be is an outcome;
    /// bytes that are no command are an error and change nothing. That error ends the node: to skip
    /// what others have applied would make this replica another state than theirs.
    fn apply(&mut self, command: Bytes) -> Result<Self::Outcome, Unreadable>;

    /// What changed since the last call. Called between two commands; coalesces, so that a pair
    /// appears once with its last value.
    fn checkpoint(&mut self) -> Pairs;

    /// Takes back one stored pair, in key order, before any command is applied.
    fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), LoadError>;

    /// Called after the last stored pair and before the log is replayed.
    fn loaded(&mut self) -> Result<(), LoadError>;
}
