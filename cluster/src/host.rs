//! The node's side of the raft thread: it hears what the groups decided.

use std::collections::BTreeMap;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use thiserror::Error;

use crate::error::Error;
use crate::machine::{GroupId, StateMachine};

/// Why a command has no outcome. It was certainly not applied and never will be, unless the reason says
/// otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum Refusal {
    /// More waits for the raft thread than its inbox may hold.
    #[error("the raft inbox is full")]
    Busy,
    /// The disk has no room for the log to grow.
    #[error("the disk is full")]
    DiskFull,
    /// The command is larger than an entry may be.
    #[error("the command is too large")]
    TooLarge,
    /// No node leads the group, as far as this one can see: too few of its members are up, or this
    /// node does not reach them.
    #[error("no node leads the group, as far as this one can see")]
    NoLeader,
    /// The command was on its way to the group's leader for long: it may have been applied, it may
    /// still be, or, if this node ends before, never.
    #[error("it is not known whether the command was applied; it still may be")]
    Unknown,
    /// The command was applied, and this node has not seen what came of it: a snapshot has brought it.
    #[error("the command was applied, but what came of it is not known")]
    Unseen,
    /// No such group on this node.
    #[error("no such group")]
    UnknownGroup,
    /// The node stops, or its log failed; a command that was taken before may still be found
    /// committed by the next start.
    #[error("the node is stopping")]
    Stopping,
}

impl Refusal {
    /// The reason as a metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::DiskFull => "disk_full",
            Self::TooLarge => "too_large",
            Self::NoLeader => "no_leader",
            Self::Unknown => "unknown",
            Self::Unseen => "unseen",
            Self::UnknownGroup => "unknown_group",
            Self::Stopping => "stopping",
        }
    }
}

/// Why the groups take no commands for now, and what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Blocked {
    /// The disk has too little room for the log and for the checkpoint that follows.
    #[error("the disk has too little room for the log: make room on the disk of the data folder")]
    Disk,
    /// The disk had no room for the state store to write its last checkpoint.
    #[error(
        "the state store has no room for its checkpoint: make room on the disk of the data folder"
    )]
    Checkpoint,
    /// The log has reached [`crate::Config::max_log_bytes`]: the state store does not keep up.
    #[error(
        "the log is as long as it may be, because the state store does not keep up: look for \
         failed checkpoints in the node's output"
    )]
    LogBound,
}

/// How a group stands, as far as this node knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// This node leads it, and has applied everything that was committed before it did.
    pub leads: bool,
    /// The node that leads it, if one is known and this node has lately heard what it has for it.
    pub leader: Option<u64>,
    /// Raft's term.
    pub term: u64,
    /// The last entry this node had applied when its role, or a tick, was last looked at.
    pub applied: u64,
    /// This node is a member no more, and hears nothing new.
    pub removed: bool,
    /// This node has lost something of the group: it neither votes nor leads nor knows anything new
    /// until the others have brought it up to date.
    pub damaged: bool,
    /// The nodes that decide.
    pub voters: Vec<u64>,
    /// The nodes that only follow, for now.
    pub learners: Vec<u64>,
    /// The members that were asked for, while there are others, or both decide together.
    pub wanted: Option<Wanted>,
}

/// Members that were asked for, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The nodes that shall decide.
    pub voters: Vec<u64>,
    /// The nodes that shall only follow.
    pub learners: Vec<u64>,
}

impl Wanted {
    pub(crate) fn new(voters: &[u64], learners: &[u64]) -> Self {
        let sorted = |ids: &[u64]| {
            let mut ids = ids.to_vec();
            ids.sort_unstable();
            ids
        };
        Self { voters: sorted(voters), learners: sorted(learners) }
    }
}

/// The machines of all groups, lent to the host between two turns.
pub struct GroupsView<'a, M> {
    pub(crate) machines: &'a mut FxHashMap<GroupId, M>,
    pub(crate) statuses: &'a FxHashMap<GroupId, Status>,
    pub(crate) room: &'a Room,
}

/// Who has room on its disk, and who should lead nothing.
pub(crate) struct Room {
    /// What the last look at this node's disk and log has found.
    pub(crate) own: Result<(), Blocked>,
    /// Whether this node was told to lead nothing.
    pub(crate) leaves: bool,
    /// Whether it has lost something of a group.
    pub(crate) damaged: bool,
    /// The other nodes that should lead nothing, and the ticks since they said so.
    pub(crate) abstaining: BTreeMap<u64, usize>,
}

impl Room {
    /// Whether this node should lead nothing.
    pub(crate) fn abstains(&self) -> bool {
        self.leaves || self.damaged || matches!(self.own, Err(Blocked::Disk | Blocked::Checkpoint))
    }
}

impl<M> GroupsView<'_, M> {
    /// The machine of a group.
    pub fn get(&self, group: GroupId) -> Option<&M> {
        self.machines.get(&group)
    }

    /// The machine of a group, for node-local bookkeeping it keeps beside its replicated state.
    pub fn get_mut(&mut self, group: GroupId) -> Option<&mut M> {
        self.machines.get_mut(&group)
    }

    /// Whether this node leads the group: true between [`Host::led`] and [`Host::lost`]. What it
    /// then reads is complete up to when it became leader; that no other node leads by now, only a
    /// command or a confirmed read can tell.
    pub fn leads(&self, group: GroupId) -> bool {
        self.statuses.get(&group).is_some_and(|status| status.leads)
    }

    /// How a group stands.
    pub fn status(&self, group: GroupId) -> Option<&Status> {
        self.statuses.get(&group)
    }

    /// Whether a command of any size would be taken now, and if not, why.
    pub fn accepting(&self) -> Result<(), Blocked> {
        self.room.own
    }

    /// Whether this node should lead nothing: its disk has no room, or is damaged, or it was told so
    /// ([`crate::Order::Abstain`]).
    pub fn abstains(&self) -> bool {
        self.room.abstains()
    }

    /// Whether another node has said so of itself lately.
    pub fn abstains_at(&self, node: u64) -> bool {
        self.room.abstaining.contains_key(&node)
    }

    /// The groups of this node, in order.
    pub fn ids(&self) -> Vec<GroupId> {
        let mut ids: Vec<_> = self.machines.keys().copied().collect();
        ids.sort_unstable();
        ids
    }
}

/// What the node does with what its groups decided. Runs on the raft thread and must not block.
///
/// A host that has something to propose with a reply keeps a clone of [`crate::Groups`] and uses
/// `try_propose`; the proposal is taken in the next turn.
pub trait Host<M: StateMachine>: Send + 'static {
    /// Travels with a proposal and comes back with its outcome.
    type Reply: Send + 'static;
    /// A node-local message that needs no log: attach, credits, a read.
    type Signal: Send + 'static;

    /// A command was applied, on this replica as on every other. `reply` is `None` for a replayed
    /// command, for one that another node, or [`Host::ticked`], proposed, and for one whose reply was
    /// refused with [`Refusal::Unknown`].
    fn applied(
        &mut self,
        group: GroupId,
        machine: &mut M,
        reply: Option<Self::Reply>,
        outcome: M::Outcome,
    );

    /// This node leads the group from now on, and the machine has all that was committed before.
    fn led(&mut self, _group: GroupId, _machine: &mut M) {}

    /// This node leads the group no more. What it had proposed is offered to the next leader.
    fn lost(&mut self, _group: GroupId) {}

    /// A snapshot has brought a follower's machine up to date: it is another one, and commands in
    /// between were not heard of.
    fn replaced(&mut self, _group: GroupId, _machine: &mut M) {}

    /// A proposal has no outcome.
    fn refused(&mut self, reply: Self::Reply, why: Refusal);

    /// A signal arrived. Signals keep their order among themselves, and so do proposals. On a node
    /// that has no peers, proposals that were sent before a signal are applied before it, unless the
    /// disk is full.
    fn signal(&mut self, groups: &mut GroupsView<'_, M>, signal: Self::Signal);

    /// A signal that should have seen a group as it is ([`crate::Groups::read`]) is not shown it: no
    /// leader has confirmed in time what there is to see.
    fn unread(&mut self, _signal: Self::Signal, _why: Refusal) {}

    /// Time has passed, at least [`crate::Config::tick`] since the last call: what timers propose.
    /// A full disk refuses it and nobody is told, so what is still due is named again each time.
    fn ticked(&mut self, groups: &mut GroupsView<'_, M>, now_ms: u64) -> Vec<(GroupId, Bytes)>;

    /// The turn is over: flush what was batched per core.
    fn turn_ended(&mut self);

    /// State is loaded and the log replayed as far as it is known to be committed; called once,
    /// before any group is led and before the first signal.
    fn started(&mut self, _groups: &mut GroupsView<'_, M>) {}

    /// The raft thread ends: after a graceful stop, or because the log or the store failed.
    fn stopped(&mut self, _error: Option<&Error>) {}
}
