//! What the raft thread takes in with a turn.

use std::sync::mpsc::SyncSender;

use bytes::Bytes;

use crate::backup::GroupBackup;
use crate::machine::GroupId;
use crate::peers::PeerMessage;

/// What a turn takes in.
#[derive(Debug)]
pub struct Input<R, S> {
    /// Commands for groups.
    pub proposals: Vec<Proposal<R>>,
    /// Messages to the host.
    pub signals: Vec<S>,
    /// Messages to the host that must see a group as it is.
    pub reads: Vec<(GroupId, S)>,
    /// What other nodes say.
    pub messages: Vec<PeerMessage>,
    /// What operators want.
    pub orders: Vec<Order>,
    /// Who wants the states of all groups, for a backup.
    pub captures: Vec<SyncSender<GroupBackup>>,
}

/// What an operator wants, mostly of a group. The node that leads it obeys, others do not; what became of it,
/// the group's [`crate::Status`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Other members. Nodes that join first learn what there is.
    ChangeMembers {
        /// The group.
        group: GroupId,
        /// The nodes that shall decide, at least one.
        voters: Vec<u64>,
        /// The nodes that shall follow.
        learners: Vec<u64>,
    },
    /// Another leader, which must be a voter.
    Transfer {
        /// The group.
        group: GroupId,
        /// The node that shall lead it.
        to: u64,
    },
    /// This node, whatever it leads, shall be led by others from now on, or may lead again: it tells the
    /// others, takes no lead that is handed to it, and stands for election last.
    Abstain(bool),
}

impl<R, S> Default for Input<R, S> {
    fn default() -> Self {
        Self {
            proposals: Vec::new(),
            signals: Vec::new(),
            reads: Vec::new(),
            messages: Vec::new(),
            orders: Vec::new(),
            captures: Vec::new(),
        }
    }
}

/// A command on its way to a group.
#[derive(Debug)]
pub struct Proposal<R> {
    /// The group that shall apply it.
    pub group: GroupId,
    /// The encoded command.
    pub command: Bytes,
    /// Comes back with the outcome.
    pub reply: Option<R>,
    /// What happens to it while the disk is full.
    pub on_full: OnFull,
}

/// What happens to a proposal while the disk has no room for the log to grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFull {
    /// It is refused with [`crate::Refusal::DiskFull`]: whoever asked is told, and may ask again.
    Refuse,
    /// It waits for room, in order and before everything that comes later; it is refused only when
    /// the node stops. No bound is kept on what waits, so this is for nothing but what the node
    /// owes for state it already has: what ends or shrinks that state (acknowledgements,
    /// disconnects, trims), and what an outbox holds on its way to other groups. Each can be owed
    /// once, so together they are bounded by the sessions, queues and outboxes that are stored, and
    /// a full disk lets those grow no further.
    Wait,
    /// As `Wait`, and never parted from the proposal before it: both are in one turn, so they become
    /// durable together or not at all, whatever their groups.
    Follow,
}

impl<R> Proposal<R> {
    /// What somebody asks for who hears what came of it, also when it is refused.
    pub fn asked(group: GroupId, command: Bytes, reply: R) -> Self {
        Self { group, command, reply: Some(reply), on_full: OnFull::Refuse }
    }

    /// What the node owes, and nobody waits for.
    pub fn owed(group: GroupId, command: Bytes) -> Self {
        Self { group, command, reply: None, on_full: OnFull::Wait }
    }
}
