//! The replicated state as the node runs it: the registry in group 0, a shard in every other.

use bytes::Bytes;
use cluster::{GroupId, LoadError, Pairs, StateMachine, Unreadable};
use fleet::registry::{self, Registry};
use fleet::shard::{self, Shard};

/// The state of a group.
pub enum Machine {
    /// Group 0.
    Meta(Box<Registry>),
    /// Every other group.
    Shard(Box<Shard>),
}

/// What came of a command.
#[derive(Debug)]
pub enum Outcome {
    /// Of the registry.
    Registry(Result<registry::Outcome, registry::Rejection>),
    /// Of a shard.
    Shard(shard::Outcome),
}

impl Machine {
    /// The machine of a group.
    pub fn new(group: GroupId) -> Self {
        if group == GroupId::META {
            Self::Meta(Box::default())
        } else {
            Self::Shard(Box::default())
        }
    }

    /// The shard, if this is one.
    pub fn shard(&self) -> Option<&Shard> {
        match self {
            Self::Shard(shard) => Some(shard),
            Self::Meta(_) => None,
        }
    }

    /// The registry, if this is it.
    pub fn registry(&self) -> Option<&Registry> {
        match self {
            Self::Meta(registry) => Some(registry),
            Self::Shard(_) => None,
        }
    }
}

impl StateMachine for Machine {
    type Outcome = Outcome;

    fn apply(&mut self, command: Bytes) -> Result<Outcome, Unreadable> {
        match self {
            Self::Shard(shard) => {
                let outcome = shard.apply(command);
                outcome.map(Outcome::Shard).map_err(|error| Unreadable(error.to_string()))
            }
            Self::Meta(registry) => match registry::Command::decode(&command) {
                Ok(command) => Ok(Outcome::Registry(registry.apply(command))),
                Err(error) => Err(Unreadable(error.to_string())),
            },
        }
    }

    fn checkpoint(&mut self) -> Pairs {
        match self {
            Self::Shard(shard) => shard.checkpoint(),
            Self::Meta(registry) => registry.checkpoint(),
        }
    }

    fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), LoadError> {
        match self {
            Self::Shard(shard) => shard.load(key, value).map_err(|error| LoadError(error.0)),
            Self::Meta(registry) => {
                registry.load(key, value).map_err(|error| LoadError(error.to_string()))
            }
        }
    }

    fn loaded(&mut self) -> Result<(), LoadError> {
        match self {
            Self::Shard(shard) => shard.loaded().map_err(|error| LoadError(error.0)),
            Self::Meta(registry) => registry.loaded().map_err(|error| LoadError(error.to_string())),
        }
    }
}
