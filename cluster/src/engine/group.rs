//! One Raft group: what is proposed to it, and whose command an entry is.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use raft::prelude::{ConfChangeV2, ConfState, Entry};
use raft::{RawNode, StateRole};
use storage::store::Applied;

use super::reads::Reads;
use crate::error::Error;
use crate::host::Refusal;
use crate::machine::GroupId;
use crate::members::{Members, change_in};
use crate::pack::{pack, packed_len, unpack};
use crate::view::View;

/// A command with the reply that is owed for it.
pub(super) struct Command<R> {
    pub(super) bytes: Bytes,
    pub(super) reply: Option<R>,
}

/// The commands of one entry that this node has proposed.
struct Proposed<R> {
    index: u64,
    term: u64,
    commands: Vec<Command<R>>,
    bytes: usize,
    /// When its turn took them.
    at: Duration,
}

/// A Raft group on this node.
pub(super) struct Group<R, S> {
    pub(super) id: GroupId,
    pub(super) raft: RawNode<View>,
    /// Who is in it after what is applied.
    pub(super) members: Members,
    /// Whether the state store has other members.
    pub(super) members_changed: bool,
    /// What this turn brought.
    pub(super) incoming: Vec<Command<R>>,
    proposed: VecDeque<Proposed<R>>,
    proposed_bytes: usize,
    pub(super) applied: Applied,
    /// Up to where a checkpoint has been collected, and up to where one is stored.
    pub(super) collected: Applied,
    pub(super) stored: Applied,
    /// Whether commands were applied since the last checkpoint.
    pub(super) dirty: bool,
    /// The term for which the host was told that this node leads.
    pub(super) led: Option<u64>,
    /// Ticks without a leader after which this node stands for election.
    pub(super) patience: usize,
    /// What an operator has asked for and no entry says yet.
    pub(super) asked: Option<ConfState>,
    /// Whether this node is a member no more.
    pub(super) removed: bool,
    pub(super) reads: Reads<S>,
    /// Whether its state is being replaced: Raft must not move until it is.
    pub(super) stands_still: bool,
    /// The last snapshot that was installed.
    pub(super) installed: Option<u64>,
    /// Ticks since this node lost the lead, while what it had proposed then is not decided.
    pub(super) unsure_for: usize,
}

/// What to apply of one entry.
pub(super) enum Decided<R> {
    /// Commands.
    Commands {
        commands: Vec<Command<R>>,
        /// When the entry was proposed, if by this node.
        proposed_at: Option<Duration>,
    },
    /// Other members.
    Members(ConfChangeV2),
}

impl<R, S> Group<R, S> {
    pub(super) fn new(id: GroupId, raft: RawNode<View>, members: Members, stored: Applied) -> Self {
        Self {
            id,
            raft,
            members,
            members_changed: false,
            incoming: Vec::new(),
            proposed: VecDeque::new(),
            proposed_bytes: 0,
            applied: stored,
            collected: stored,
            stored,
            dirty: false,
            led: None,
            patience: 0,
            asked: None,
            removed: false,
            reads: Reads::default(),
            stands_still: false,
            installed: None,
            unsure_for: 0,
        }
    }

    pub(super) fn is_leader(&self) -> bool {
        self.raft.raft.state == StateRole::Leader
    }

    /// Whether this node decides alone.
    pub(super) fn is_alone(&self) -> bool {
        self.members.are_only(self.raft.raft.id)
    }

    /// Whether everything that is known to be committed is applied; who decides alone knows it of
    /// its whole log, once it leads.
    pub(super) fn is_caught_up(&self) -> bool {
        let log = &self.raft.raft.raft_log;
        let known = if self.is_alone() { log.last_index() } else { log.committed };
        self.applied.index == known && (self.is_leader() || !self.is_alone())
    }

    /// Packs what came in into entries of about `max_bytes` and proposes them; gives back what was
    /// not taken, and why. At most `max_proposed` bytes wait for being decided.
    pub(super) fn propose(
        &mut self,
        max_bytes: usize,
        max_proposed: usize,
        now: Duration,
    ) -> (Vec<Command<R>>, Refusal) {
        let mut incoming = std::mem::take(&mut self.incoming).into_iter().peekable();
        if !self.is_leader() || self.stands_still {
            // Raft would hand them on, and this node would never hear what became of them.
            return (incoming.collect(), Refusal::NotLeader);
        }
        while incoming.peek().is_some() {
            if self.proposed_bytes > max_proposed {
                return (incoming.collect(), Refusal::Busy);
            }
            let mut commands = Vec::new();
            let mut bytes = 0;
            while let Some(command) = incoming.next_if(|command| {
                commands.is_empty() || bytes + packed_len(&command.bytes) <= max_bytes
            }) {
                bytes += packed_len(&command.bytes);
                commands.push(command);
            }
            let data = pack(commands.iter().map(|command| &command.bytes));
            if self.raft.propose(Vec::new(), data).is_err() {
                commands.extend(incoming);
                return (commands, Refusal::NotLeader);
            }
            let index = self.raft.raft.raft_log.last_index();
            let term = self.raft.raft.term;
            self.proposed_bytes += bytes;
            self.proposed.push_back(Proposed { index, term, commands, bytes, at: now });
        }
        (Vec::new(), Refusal::NotLeader)
    }

    /// What a committed entry says: commands with their replies if this node proposed them, or other
    /// members. What was proposed and has lost its place to it will never be applied: those commands
    /// go to `lost`. That is what should stand in its place or before; and everything of an older
    /// term, since every later leader has this entry, and behind it none of an older term.
    pub(super) fn decide(
        &mut self,
        entry: &Entry,
        read: impl FnOnce() -> Result<Bytes, Error>,
        lost: &mut Vec<Command<R>>,
    ) -> Result<Decided<R>, Error> {
        let is_over = |it: &mut Proposed<R>| it.index <= entry.index || it.term < entry.term;
        while let Some(proposed) = self.proposed.pop_front_if(is_over) {
            self.proposed_bytes -= proposed.bytes;
            if (proposed.index, proposed.term) == (entry.index, entry.term) {
                let proposed_at = Some(proposed.at);
                return Ok(Decided::Commands { commands: proposed.commands, proposed_at });
            }
            lost.extend(proposed.commands);
        }
        let unknown = |reason| Error::Entry { group: self.id, index: entry.index, reason };
        let data = read()?;
        if let Some(change) = change_in(&data) {
            return Ok(Decided::Members(change.map_err(unknown)?));
        }
        let commands = unpack(data).map_err(unknown)?.into_iter();
        let foreign = commands.map(|bytes| Command { bytes, reply: None });
        Ok(Decided::Commands { commands: foreign.collect(), proposed_at: None })
    }

    /// Whether something that was proposed is not decided.
    pub(super) fn is_undecided(&self) -> bool {
        !self.proposed.is_empty()
    }

    /// Takes out what was proposed and not decided.
    pub(super) fn give_up(&mut self) -> impl Iterator<Item = Command<R>> + use<R, S> {
        self.proposed_bytes = 0;
        std::mem::take(&mut self.proposed).into_iter().flat_map(|proposed| proposed.commands)
    }

    /// Takes out everything that was proposed and not decided, or not yet proposed.
    pub(super) fn undecided(&mut self) -> impl Iterator<Item = Command<R>> + use<R, S> {
        let incoming = std::mem::take(&mut self.incoming);
        self.give_up().chain(incoming)
    }
}
