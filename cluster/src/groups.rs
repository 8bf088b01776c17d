//! The node's handle to its groups, and the bounded inbox behind it.

use std::sync::Arc;

use bytes::Bytes;

use crate::config::Config;
use crate::host::Refusal;
use crate::machine::GroupId;

/// A command on its way to a group.
#[derive(Debug)]
pub struct Proposal<R> {
    /// The group that shall apply it.
    pub group: GroupId,
    /// The encoded command.
    pub command: Bytes,
    /// Comes back with the outcome.
    pub reply: Option<R>,
}

/// What was not taken, given back with the reason.
#[derive(Debug)]
pub struct Refused<T> {
    /// What was offered.
    pub what: T,
    /// Why it was not taken.
    pub why: Refusal,
}

/// Handle to the groups of this node; cheap to clone. `R` travels with a proposal, `S` is the
/// host's signal.
pub struct Groups<R, S> {
    shared: Arc<std::marker::PhantomData<fn(R, S)>>,
}

impl<R, S> Clone for Groups<R, S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

/// The receiving end, given to [`crate::start`].
pub struct Inbox<R, S> {
    #[expect(dead_code)]
    shared: Arc<std::marker::PhantomData<fn(R, S)>>,
}

impl<R: Send + 'static, S: Send + 'static> Groups<R, S> {
    /// A handle and its inbox, so that the host can be made with the handle in it.
    pub fn new(_config: &Config) -> (Self, Inbox<R, S>) {
        let shared = Arc::new(std::marker::PhantomData);
        (Self { shared: Arc::clone(&shared) }, Inbox { shared })
    }

    /// Offers a command; refused at once when the inbox is full.
    pub fn try_propose(
        &self,
        group: GroupId,
        command: Bytes,
        reply: R,
    ) -> Result<(), Refused<Proposal<R>>> {
        Err(Refused {
            what: Proposal { group, command, reply: Some(reply) },
            why: Refusal::Stopping,
        })
    }

    /// Offers many commands with one wake-up; all are taken, in order, or none.
    pub fn try_propose_all(
        &self,
        proposals: Vec<Proposal<R>>,
    ) -> Result<(), Refused<Vec<Proposal<R>>>> {
        Err(Refused { what: proposals, why: Refusal::Stopping })
    }

    /// Offers a command and waits while the inbox is full; never refused with [`Refusal::Busy`].
    pub async fn propose(
        &self,
        group: GroupId,
        command: Bytes,
        reply: R,
    ) -> Result<(), Refused<Proposal<R>>> {
        self.try_propose(group, command, reply)
    }

    /// Offers many commands and waits while the inbox is full.
    pub async fn propose_all(
        &self,
        proposals: Vec<Proposal<R>>,
    ) -> Result<(), Refused<Vec<Proposal<R>>>> {
        self.try_propose_all(proposals)
    }

    /// Sends the host a node-local message.
    pub fn signal(&self, signal: S) -> Result<(), Refused<S>> {
        Err(Refused { what: signal, why: Refusal::Stopping })
    }
}
