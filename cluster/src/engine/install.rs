//! A snapshot that comes in: taken chunk by chunk into a fresh machine, stored, and only then shown
//! to Raft.
//!
//! The store changes first, in one step; then the log begins anew behind the snapshot, and the
//! machine takes its place. A crash in between is mended by the next start. One snapshot is taken at
//! a time. Until it is stored its group stands still, so that Raft's mind does not change.

use raft::StateRole;
use raft::prelude::{Message, MessageType, Snapshot};
use storage::log::{Batch, Log};
use storage::store::Applied;
use tracing::{info, warn};

use super::group::Group;
use super::leadership::ELECTION_TICKS;
use super::{Engine, refuse};
use crate::checkpoint::Task;
use crate::error::Error;
use crate::host::{Host, Refusal};
use crate::machine::{GroupId, StateMachine};
use crate::members::{self, Members};
use crate::peers::{Letter, Taken, raft_message};
use crate::snapshot::{Chunk, Pair, pairs};

/// Ticks without a chunk after which its sender is taken for gone.
const QUIET_TICKS: usize = 4 * ELECTION_TICKS;

/// A snapshot that comes in.
pub(super) struct Staging<M> {
    place: usize,
    from: u64,
    snapshot: u64,
    message: Message,
    next: u32,
    of: u32,
    pairs: Vec<Pair>,
    machine: M,
    quiet_ticks: usize,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Chunks are still missing.
    Taking,
    /// The store takes it.
    Storing,
    /// The store has it.
    Stored,
}

/// Index and term of the last entry in it.
fn end_of(snapshot: &Snapshot) -> Applied {
    let metadata = snapshot.get_metadata();
    Applied { index: metadata.index, term: metadata.term }
}

/// Has a group's log begin behind an entry that it need not have.
pub(crate) fn begin_behind(batch: &mut Batch, log: &Log, group: GroupId, at: Applied) {
    if at.index <= log.last_index(group.0) {
        // Another entry in this place drops all that follow.
        batch.entry(group.0, at.index, at.term, Default::default());
    }
    batch.compact(group.0, at.index, at.term);
}

impl<R, S> Group<R, S> {
    /// Whether Raft would put a snapshot in the place of its log.
    fn needs(&self, end: Applied) -> bool {
        let log = &self.raft.raft.raft_log;
        end.index > log.committed && !log.match_term(end.index, end.term)
    }
}

impl<M: StateMachine, H: Host<M>> Engine<M, H> {
    /// Takes a piece of a snapshot.
    pub(super) fn take_chunk(
        &mut self,
        from: u64,
        place: usize,
        chunk: Chunk,
    ) -> Result<(), Error> {
        let snapshot = chunk.snapshot;
        let taken = if self.groups[place].installed == Some(snapshot) {
            Some(Taken::Done)
        } else {
            match &self.staging {
                Some(staging) if staging.snapshot == snapshot => self.take_next(chunk),
                // It has been forgotten here.
                None if chunk.number > 0 => Some(Taken::Chunks(0)),
                Some(staging) if staging.place != place || staging.phase != Phase::Taking => None,
                _ if chunk.number > 0 => None,
                _ => self.take_first(from, place, chunk)?,
            }
        };
        if let Some(taken) = taken {
            let group = self.groups[place].id;
            self.outgoing.add(from, group, &Letter::Taken { snapshot, taken });
        }
        Ok(())
    }

    fn take_first(
        &mut self,
        from: u64,
        place: usize,
        chunk: Chunk,
    ) -> Result<Option<Taken>, Error> {
        let node = self.config.node;
        let message = raft_message(&chunk.message).ok().filter(|message| {
            let conf = message.get_snapshot().get_metadata().get_conf_state().clone();
            message.get_msg_type() == MessageType::MsgSnapshot
                && (message.from, message.to) == (from, node)
                && Members { conf, ..Members::default() }.contain(node)
        });
        let Some(message) = message else { return Ok(None) };
        let kept = self.log.borrow().hard_state(self.groups[place].id.0);
        let group = &mut self.groups[place];
        if group.mending.as_ref().is_some_and(|it| !it.is_mended_by(&message, kept)) {
            return Ok(None);
        }
        if message.term < group.raft.raft.term {
            return Ok(Some(Taken::Done));
        }
        if !group.needs(end_of(message.get_snapshot())) {
            self.step(place, message)?;
            return Ok(Some(Taken::Done));
        }
        let raft = &mut group.raft.raft;
        if message.term > raft.term || raft.state != StateRole::Follower {
            // Who sends a snapshot leads.
            raft.become_follower(message.term, from);
        }
        info!(group = %group.id, from, chunks = chunk.of, "snapshot comes in");
        self.staging = Some(Staging {
            place,
            from,
            snapshot: chunk.snapshot,
            message,
            next: 0,
            of: chunk.of,
            pairs: Vec::new(),
            machine: (self.factory)(group.id),
            quiet_ticks: 0,
            phase: Phase::Taking,
        });
        Ok(self.take_next(chunk))
    }

    fn take_next(&mut self, chunk: Chunk) -> Option<Taken> {
        let staging = self.staging.as_mut().filter(|it| it.phase == Phase::Taking)?;
        if (chunk.number, chunk.of) != (staging.next, staging.of) {
            return Some(Taken::Chunks(staging.next));
        }
        (staging.quiet_ticks, staging.next) = (0, staging.next + 1);
        let loaded = pairs(chunk.body).and_then(|pairs| {
            for (key, value) in &pairs {
                staging.machine.load(key, value).map_err(|error| error.to_string())?;
            }
            staging.pairs.extend(pairs);
            match staging.next == staging.of {
                true => staging.machine.loaded().map_err(|error| error.to_string()),
                false => Ok(()),
            }
        });
        let taken = Taken::Chunks(staging.next);
        if let Err(error) = loaded {
            warn!(group = %self.groups[staging.place].id, %error, "a snapshot cannot be loaded");
            self.staging = None;
            return None;
        }
        if staging.next == staging.of && !self.store_staged() {
            return Some(Taken::Done);
        }
        Some(taken)
    }

    /// All chunks are there: the store is to take them. False if they are not needed any more.
    fn store_staged(&mut self) -> bool {
        let staging = self.staging.as_mut().expect("only a whole snapshot is stored");
        let group = &mut self.groups[staging.place];
        let end = end_of(staging.message.get_snapshot());
        if staging.message.term < group.raft.raft.term || !group.needs(end) {
            self.staging = None;
            return false;
        }
        staging.phase = Phase::Storing;
        let members = members_in(&staging.message);
        let mut pairs = std::mem::take(&mut staging.pairs);
        pairs.push((members::KEY.to_vec(), members.encode()));
        group.stands_still = true;
        self.rounds.leave_out(group.id);
        self.rounds.worker().begin(Task::Install(group.id, end, pairs));
        true
    }

    /// The store has the snapshot.
    pub(super) fn staged_is_stored(&mut self) {
        if let Some(staging) = &mut self.staging {
            staging.phase = Phase::Stored;
        }
    }

    /// Whether a stored snapshot is yet to be shown to Raft.
    pub(super) fn is_installing(&self) -> bool {
        let stored = self.staging.as_ref().filter(|it| it.phase == Phase::Stored);
        stored.is_some_and(|it| self.groups[it.place].stands_still) && self.held.is_none()
    }

    /// Shows Raft a snapshot that is stored: its next readiness brings it back.
    pub(super) fn show_staged(&mut self) -> Result<(), Error> {
        if !self.is_installing() {
            return Ok(());
        }
        let staging = self.staging.as_ref().expect("it was just there");
        let group = &mut self.groups[staging.place];
        group.stands_still = false;
        let failed = |reason| Error::Raft { group: group.id, reason };
        let taken = group.raft.step(staging.message.clone());
        taken.map_err(|error| failed(error.to_string()))?;
        match group.raft.snap() {
            Some(_) => Ok(()),
            None => Err(failed("it does not want the snapshot that is stored".into())),
        }
    }

    /// The log begins behind the snapshot: its machine takes the place of the old one.
    pub(super) fn install(&mut self, place: usize, snapshot: &Snapshot) -> Result<(), Error> {
        let staging = self.staging.take().expect("Raft is shown what is staged");
        let group = &mut self.groups[place];
        let end = end_of(snapshot);
        group.members = members_in(&staging.message);
        (group.applied, group.collected, group.stored) = (end, end, end);
        (group.members_changed, group.dirty) = (false, false);
        group.installed = Some(staging.snapshot);
        (group.removed, group.starves) = (false, false);
        if group.mending.take().is_some() {
            info!(group = %group.id, index = end.index, "the group is whole again on this node");
        }
        self.roles_changed = true;
        group.check_life()?;
        refuse(&mut self.host, group.passed(), Refusal::Unseen);
        info!(group = %group.id, index = end.index, "snapshot is installed");
        self.machines.insert(group.id, staging.machine);
        let machine = self.machines.get_mut(&group.id).expect("it was just put there");
        self.host.replaced(group.id, machine);
        let letter = Letter::Taken { snapshot: staging.snapshot, taken: Taken::Done };
        self.outgoing.add(staging.from, group.id, &letter);
        Ok(())
    }

    /// Forgets a group's snapshot that is not yet all there.
    pub(super) fn forget_staged(&mut self, place: usize) {
        self.staging.take_if(|it| it.place == place && it.phase == Phase::Taking);
    }

    /// Forgets a snapshot whose sender is silent.
    pub(super) fn tick_staging(&mut self) {
        if let Some(staging) = self.staging.as_mut().filter(|it| it.phase == Phase::Taking) {
            staging.quiet_ticks += 1;
            if staging.quiet_ticks > QUIET_TICKS {
                self.staging = None;
            }
        }
    }
}

/// The members a snapshot brings.
fn members_in(message: &Message) -> Members {
    let snapshot = message.get_snapshot();
    let conf = snapshot.get_metadata().get_conf_state().clone();
    let kept = Members::decode(&snapshot.data).unwrap_or_default();
    Members { conf, installed: end_of(snapshot), damaged: false, ..kept }
}
