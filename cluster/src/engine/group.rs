//! One Raft group: what a leader appends to it, and what an entry of it says.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use raft::prelude::{ConfChangeV2, ConfState, Entry};
use raft::{RawNode, StateRole};
use storage::store::Applied;

use super::mending::{Fence, Mending};
use super::proposals::Proposals;
use super::reads::Reads;
use crate::error::Error;
use crate::machine::GroupId;
use crate::members::{Members, change_in};
use crate::pack::{Run, pack, packed_len, unpack};
use crate::sources::Sources;
use crate::view::View;

/// An entry that this node has appended as a leader.
struct Appended {
    index: u64,
    term: u64,
    runs: Vec<Run>,
}

/// A Raft group on this node.
pub(super) struct Group<R, S> {
    pub(super) id: GroupId,
    pub(super) raft: RawNode<View>,
    /// Who is in it after what is applied.
    pub(super) members: Members,
    /// Whether the state store knows less of the members, or of their commands.
    pub(super) members_changed: bool,
    /// The last entry that said who is in it.
    pub(super) reconfigured: u64,
    pub(super) proposals: Proposals<R>,
    /// What other nodes have for the leader.
    foreign: Vec<Run>,
    appended: VecDeque<Appended>,
    /// Whose commands this node has appended, since it leads, and how many of them.
    appended_of: Sources,
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
    /// Ticks since this node led, or heard what a leader has for it.
    pub(super) leaderless_ticks: usize,
    /// Whether the disk has had no room for what a leader had for it last.
    pub(super) starves: bool,
    /// What it waits for if this replica is damaged.
    pub(super) mending: Option<Mending>,
    /// What damaged replicas wait for, while this node leads.
    pub(super) fences: BTreeMap<u64, Fence>,
}

/// What to apply of one entry.
pub(super) enum Decided {
    /// Commands.
    Commands(Vec<Run>),
    /// Other members.
    Members(ConfChangeV2),
}

impl<R, S> Group<R, S> {
    pub(super) fn new(
        id: GroupId,
        raft: RawNode<View>,
        members: Members,
        stored: Applied,
        proposals: Proposals<R>,
    ) -> Self {
        let reads = Reads::new(proposals.source().incarnation);
        Self {
            id,
            raft,
            members,
            members_changed: false,
            reconfigured: 0,
            proposals,
            foreign: Vec::new(),
            appended: VecDeque::new(),
            appended_of: Sources::default(),
            applied: stored,
            collected: stored,
            stored,
            dirty: false,
            led: None,
            patience: 0,
            asked: None,
            removed: false,
            reads,
            stands_still: false,
            installed: None,
            leaderless_ticks: 0,
            starves: false,
            mending: None,
            fences: BTreeMap::new(),
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
        if self.mending.is_some() {
            return true;
        }
        let log = &self.raft.raft.raft_log;
        let known = if self.is_alone() { log.last_index() } else { log.committed };
        self.applied.index == known && (self.is_leader() || !self.is_alone())
    }

    /// The node that leads, if this one can hand it something.
    pub(super) fn leader(&self) -> Option<u64> {
        let raft = &self.raft.raft;
        match self.led {
            Some(_) => Some(raft.id),
            None => Some(raft.leader_id).filter(|&id| id != raft::INVALID_ID && id != raft.id),
        }
    }

    /// Whether another node leads it, as far as this one knows.
    pub(super) fn is_led_elsewhere(&self) -> bool {
        self.led.is_none() && self.leader().is_some()
    }

    /// What another node is to be offered of what this node has proposed.
    pub(super) fn offer_leader(&mut self) -> Option<(u64, Run)> {
        let leader = self.leader().filter(|_| self.is_led_elsewhere())?;
        Some((leader, self.proposals.offer(leader, self.raft.raft.term)?))
    }

    /// Takes commands that another node has for the leader.
    pub(super) fn take_foreign(&mut self, run: Run) {
        if self.led.is_some() {
            self.foreign.push(run);
        }
    }

    /// Whether there is more to append than the last time has.
    pub(super) fn has_more(&self) -> bool {
        self.led.is_some() && !self.stands_still && self.proposals.has_more()
    }

    /// Appends what this and other nodes have proposed to this leader, in entries of about `max_bytes`;
    /// gives the bytes that takes.
    pub(super) fn append(&mut self, max_bytes: usize) -> usize {
        if self.led.is_none() || self.stands_still {
            self.foreign.clear();
            return 0;
        }
        let mut runs = std::mem::take(&mut self.foreign);
        runs.extend(self.proposals.offer(self.raft.raft.id, self.raft.raft.term));
        runs.retain_mut(|run| self.is_new(run));
        let mut bytes = 0;
        for entry in entries(runs, max_bytes) {
            let packed = pack(&entry);
            bytes += packed.len();
            if self.raft.propose(Vec::new(), packed).is_err() {
                // It hands over the lead. What is appended twice is applied once.
                self.appended_of.clear();
                self.proposals.offer_again();
                return bytes;
            }
            let (index, term) = (self.raft.raft.raft_log.last_index(), self.raft.raft.term);
            self.appended.push_back(Appended { index, term, runs: entry });
        }
        bytes
    }

    /// Leaves of a run what this leader has not appended; false if that is nothing, or if something
    /// before it is missing.
    fn is_new(&mut self, run: &mut Run) -> bool {
        let source = run.source.expect("only entries of earlier versions have none");
        let Some(last) = self.members.sources.last_with(source, &self.appended_of) else {
            return false;
        };
        let known = (last + 1).saturating_sub(run.first) as usize;
        if run.first > last + 1 || known >= run.commands.len() {
            return false;
        }
        run.commands.drain(..known);
        run.first += known as u64;
        self.appended_of.note(source, last + run.commands.len() as u64);
        true
    }

    /// This node leads no more.
    pub(super) fn lose(&mut self) {
        self.led = None;
        self.fences.clear();
        self.appended_of.clear();
        self.foreign.clear();
    }

    /// What a committed entry says. `read` gives its data, unless this node has it at hand because it
    /// has appended it.
    pub(super) fn decide(
        &mut self,
        entry: &Entry,
        read: impl FnOnce() -> Result<Bytes, Error>,
    ) -> Result<Decided, Error> {
        // What lost its place to it, or is of a leader before, will never be committed.
        let is_over = |it: &mut Appended| it.index <= entry.index || it.term < entry.term;
        while let Some(appended) = self.appended.pop_front_if(is_over) {
            if (appended.index, appended.term) == (entry.index, entry.term) {
                return Ok(Decided::Commands(appended.runs));
            }
        }
        let unknown = |reason| Error::Entry { group: self.id, index: entry.index, reason };
        let data = read()?;
        if let Some(change) = change_in(&data) {
            return Ok(Decided::Members(change.map_err(unknown)?));
        }
        Ok(Decided::Commands(unpack(data).map_err(unknown)?))
    }

    /// A command of this node's later life shows that this is not its last one.
    pub(super) fn check_life(&self) -> Result<(), Error> {
        let own = self.proposals.source();
        match self.members.sources.outlived_by(own) {
            None => Ok(()),
            Some(life) => Err(Error::Outlived { group: self.id, node: own.node, life }),
        }
    }

    /// What a snapshot has brought is decided, and nobody here saw how: takes out the replies.
    pub(super) fn passed(&mut self) -> Vec<R> {
        self.appended.clear();
        let last = self.members.sources.last(self.proposals.source());
        last.map_or_else(Vec::new, |last| self.proposals.passed(last))
    }
}

/// Cuts runs into entries of about `max_bytes`.
fn entries(runs: Vec<Run>, max_bytes: usize) -> Vec<Vec<Run>> {
    let (mut entries, mut bytes) = (Vec::<Vec<Run>>::new(), usize::MAX);
    for Run { source, mut first, commands } in runs {
        let mut is_begun = false;
        for command in commands {
            let len = packed_len(&command);
            if bytes.saturating_add(len) > max_bytes {
                entries.push(Vec::new());
                (bytes, is_begun) = (0, false);
            }
            let entry = entries.last_mut().expect("the first command begins one");
            if !std::mem::replace(&mut is_begun, true) {
                let run = Run { source, first, commands: Vec::new() };
                bytes += run.packed_len();
                entry.push(run);
            }
            bytes += len;
            entry.last_mut().expect("it was just begun").commands.push(command);
            first += 1;
        }
    }
    entries
}
