//! One Raft group: what is proposed to it, and whose command an entry is.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use raft::prelude::{Entry, EntryType};
use raft::{RawNode, StateRole};
use storage::store::Applied;

use crate::error::Error;
use crate::machine::GroupId;
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
    /// When its turn took them.
    at: Duration,
}

/// A Raft group on this node.
pub(super) struct Group<R> {
    pub(super) id: GroupId,
    pub(super) raft: RawNode<View>,
    /// What this turn brought.
    pub(super) incoming: Vec<Command<R>>,
    proposed: VecDeque<Proposed<R>>,
    pub(super) applied: Applied,
    /// Up to where a checkpoint has been collected, and up to where one is stored.
    pub(super) collected: Applied,
    pub(super) stored: Applied,
    /// Whether commands were applied since the last checkpoint.
    pub(super) dirty: bool,
}

/// What to apply of one entry.
pub(super) struct Decided<R> {
    pub(super) commands: Vec<Command<R>>,
    /// When the entry was proposed, if by this node.
    pub(super) proposed_at: Option<Duration>,
}

impl<R> Group<R> {
    pub(super) fn new(id: GroupId, raft: RawNode<View>, stored: Applied) -> Self {
        Self {
            id,
            raft,
            incoming: Vec::new(),
            proposed: VecDeque::new(),
            applied: stored,
            collected: stored,
            stored,
            dirty: false,
        }
    }

    pub(super) fn leads(&self) -> bool {
        self.raft.raft.state == StateRole::Leader
    }

    /// Whether everything in its log is applied.
    pub(super) fn is_caught_up(&self) -> bool {
        self.applied.index == self.raft.raft.raft_log.last_index()
    }

    /// Packs what came in into entries of about `max_bytes` and proposes them; gives back what was
    /// not taken.
    pub(super) fn propose(&mut self, max_bytes: usize, now: Duration) -> Vec<Command<R>> {
        let mut incoming = std::mem::take(&mut self.incoming).into_iter().peekable();
        while incoming.peek().is_some() {
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
                return commands;
            }
            let index = self.raft.raft.raft_log.last_index();
            let term = self.raft.raft.term;
            self.proposed.push_back(Proposed { index, term, commands, at: now });
        }
        Vec::new()
    }

    /// The commands of a committed entry, with their replies if this node proposed it; and the
    /// replies of entries that lost their place to it.
    pub(super) fn decide(
        &mut self,
        entry: &Entry,
        read: impl FnOnce() -> Result<Bytes, Error>,
        lost: &mut Vec<Command<R>>,
    ) -> Result<Decided<R>, Error> {
        while let Some(proposed) = self.proposed.pop_front_if(|it| it.index <= entry.index) {
            if (proposed.index, proposed.term) == (entry.index, entry.term) {
                let proposed_at = Some(proposed.at);
                return Ok(Decided { commands: proposed.commands, proposed_at });
            }
            lost.extend(proposed.commands);
        }
        let unknown = |reason| Error::Entry { group: self.id, index: entry.index, reason };
        if entry.get_entry_type() != EntryType::EntryNormal {
            return Err(unknown("it changes the group's members".into()));
        }
        let commands = unpack(read()?).map_err(unknown)?;
        let foreign = commands.into_iter().map(|bytes| Command { bytes, reply: None });
        Ok(Decided { commands: foreign.collect(), proposed_at: None })
    }

    /// Everything that was proposed and not decided.
    pub(super) fn undecided(&mut self) -> impl Iterator<Item = Command<R>> {
        let proposed = std::mem::take(&mut self.proposed);
        let incoming = std::mem::take(&mut self.incoming);
        proposed.into_iter().flat_map(|proposed| proposed.commands).chain(incoming)
    }
}
