//! Snapshots on their way to followers that need what the log has no more.
//!
//! Raft asks for one and is told to wait until the store has been read; then its message is kept
//! here and goes with the first chunk. One group's snapshot is held at a time. A receiver says how
//! far it is; what it does not say is sent again, and in the end Raft is told that it failed.

use bytes::Bytes;
use protobuf::Message as _;
use raft::prelude::{Message, SnapshotStatus};
use raft::{ProgressState, StateRole};
use tracing::{debug, info};

use super::leadership::{ELECTION_TICKS, HEARTBEAT_TICKS};
use super::{Engine, Now};
use crate::checkpoint::Task;
use crate::host::Host;
use crate::machine::{GroupId, StateMachine};
use crate::members::Members;
use crate::peers::{Letter, Taken};
use crate::snapshot::{Captured, Chunk};
use crate::view::Offer;

/// Ticks without a word of the receiver after which chunks are sent again.
const AGAIN_TICKS: usize = ELECTION_TICKS / 2;
/// Ticks without progress after which a snapshot has failed.
const GIVE_UP_TICKS: usize = 6 * ELECTION_TICKS;
/// Ticks that a snapshot is kept for others who want it.
const KEEP_TICKS: usize = 2 * ELECTION_TICKS;
/// Ticks that it is kept while one of another group is wanted: who wants it asks again by then.
const YIELD_TICKS: usize = 2 * HEARTBEAT_TICKS;

/// What is being sent.
#[derive(Default)]
pub(super) struct Sending {
    /// The group whose pairs are being read.
    reading: Option<GroupId>,
    held: Option<Held>,
    /// Bytes that may leave now. A chunk that is larger is owed for, and the next ones wait.
    allowance: i64,
}

struct Held {
    place: usize,
    captured: Box<Captured>,
    transfers: Vec<Transfer>,
    idle_ticks: usize,
}

struct Transfer {
    to: u64,
    snapshot: u64,
    /// Raft's own message.
    message: Bytes,
    /// Chunks that the receiver has, and that were sent.
    taken: u32,
    sent: u32,
    /// Ticks since the last progress, while the receiver has something to say.
    stalled: usize,
    /// The receiver does not answer: until it does, it gets no more than one chunk at a time.
    probing: bool,
}

impl Transfer {
    /// Whether the next word is the receiver's.
    fn is_waiting(&self, of: u32) -> bool {
        self.sent > self.taken || self.taken == of
    }

    fn may_send(&self, of: u32) -> bool {
        self.sent < of && !(self.probing && self.is_waiting(of))
    }
}

impl Sending {
    /// Whether a group is being read out of the store.
    pub(super) fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    /// A group is, for a backup.
    pub(super) fn begin_reading(&mut self, group: GroupId) {
        self.reading = Some(group);
    }
}

impl Held {
    fn flying(&self) -> usize {
        let bytes = |it: &Transfer| {
            let chunks = &self.captured.chunks[it.taken as usize..it.sent as usize];
            chunks.iter().map(Bytes::len).sum::<usize>()
        };
        self.transfers.iter().map(bytes).sum()
    }
}

impl<M: StateMachine, H: Host<M>> Engine<M, H> {
    /// Up to where a group's log must stay for those who get a snapshot of it.
    pub(super) fn kept_for_snapshots(&self, place: usize) -> u64 {
        let held = self.sending.held.as_ref();
        let held = held.filter(|it| it.place == place);
        held.map_or(u64::MAX, |it| it.captured.applied.index)
    }

    /// Raft has a snapshot for a node.
    pub(super) fn send_snapshot(&mut self, place: usize, message: &Message) {
        let Some(held) = self.sending.held.as_mut().filter(|it| it.place == place) else {
            // It was let go between Raft's asking and its message: it asks again.
            self.groups[place].raft.report_snapshot(message.to, SnapshotStatus::Failure);
            return;
        };
        held.transfers.retain(|it| it.to != message.to);
        held.transfers.push(Transfer {
            to: message.to,
            snapshot: self.dice.bits(),
            message: message.write_to_bytes().expect("a vector takes what is written").into(),
            taken: 0,
            sent: 0,
            stalled: 0,
            probing: false,
        });
        let group = self.groups[place].id;
        info!(%group, to = message.to, chunks = held.captured.chunks.len(), "snapshot is sent");
        self.send_chunks();
    }

    /// Sends what the window and the rate have room for, to all receivers in turn.
    fn send_chunks(&mut self) {
        let Sending { held: Some(held), allowance, .. } = &mut self.sending else { return };
        let mut flying = held.flying();
        let group = self.groups[held.place].id;
        let of = held.captured.chunks.len() as u32;
        let mut passed = 0;
        while passed < held.transfers.len()
            && flying < self.config.snapshot_window_bytes
            && *allowance > 0
        {
            passed += 1;
            held.transfers.rotate_left(1);
            let transfer = held.transfers.last_mut().expect("there is one that was not passed");
            if !transfer.may_send(of) {
                continue;
            }
            passed = 0;
            let number = transfer.sent;
            let body = held.captured.chunks[number as usize].clone();
            flying += body.len();
            *allowance -= body.len() as i64;
            transfer.sent += 1;
            let message = if number == 0 { transfer.message.clone() } else { Bytes::new() };
            let chunk = Chunk { snapshot: transfer.snapshot, number, of, message, body };
            self.outgoing.add(transfer.to, group, &Letter::Chunk(chunk));
        }
    }

    /// What may leave until the next tick. One that is late brings no more: the link has other things
    /// to catch up with. What one chunk owes is forgiven before its receiver takes the sender for gone;
    /// and the rate ends where the log grows out of what it keeps for those who get snapshots, for they
    /// would need another one.
    fn allow(&mut self) {
        let rate = self.config.snapshot_bytes_per_second as f64;
        let more = (rate * self.config.raft_tick.as_secs_f64()).ceil() as i64;
        let is_pressing = self.log.borrow().bytes() > self.config.max_log_bytes / 4;
        self.sending.allowance = match is_pressing {
            true => i64::MAX,
            false => {
                let owed = self.sending.allowance.max(-more * ELECTION_TICKS as i64);
                owed.saturating_add(more).min(more)
            }
        };
    }

    /// A receiver says how far it is.
    pub(super) fn snapshot_taken(&mut self, from: u64, place: usize, snapshot: u64, taken: Taken) {
        let Some(held) = self.sending.held.as_mut().filter(|it| it.place == place) else { return };
        let is_it = |it: &Transfer| it.to == from && it.snapshot == snapshot;
        let Some(at) = held.transfers.iter().position(is_it) else { return };
        let of = held.captured.chunks.len() as u32;
        let transfer = &mut held.transfers[at];
        match taken {
            Taken::Done => {
                held.transfers.remove(at);
                self.groups[place].raft.report_snapshot(from, SnapshotStatus::Finish);
            }
            // It has forgotten what it had. Each chunk that is under way says so again, and must not
            // bring all of them once more.
            Taken::Chunks(0) if transfer.taken > 0 => (transfer.taken, transfer.sent) = (0, 0),
            Taken::Chunks(count) if count > transfer.taken && count <= of => {
                (transfer.taken, transfer.stalled) = (count, 0);
                transfer.sent = transfer.sent.max(count);
                transfer.probing = false;
            }
            Taken::Chunks(_) => {}
        }
        self.send_chunks();
    }

    /// Has snapshots read that are wanted, sends again what was not taken, and lets go what nobody
    /// wants.
    pub(super) fn tick_snapshots(&mut self, now: Now) {
        if let Some(held) = &mut self.sending.held {
            let wants = |group: &super::Group<_, _>| *group.raft.store().wanted.borrow();
            let others = self.groups.iter().enumerate().filter(|(place, _)| *place != held.place);
            let keep = match others.into_iter().any(|(_, group)| wants(group)) {
                true => YIELD_TICKS,
                false => KEEP_TICKS,
            };
            let group = &mut self.groups[held.place];
            let of = held.captured.chunks.len() as u32;
            let raft = &mut group.raft;
            held.transfers.retain_mut(|transfer| {
                let progress = raft.raft.prs().get(transfer.to);
                let leads = raft.raft.state == StateRole::Leader;
                if !leads || progress.is_none_or(|it| it.state != ProgressState::Snapshot) {
                    return false;
                }
                if !transfer.is_waiting(of) {
                    return true;
                }
                transfer.stalled += 1;
                if transfer.stalled > GIVE_UP_TICKS {
                    debug!(to = transfer.to, "snapshot is given up");
                    raft.report_snapshot(transfer.to, SnapshotStatus::Failure);
                    return false;
                }
                if transfer.stalled % AGAIN_TICKS == 0 {
                    // The last one also asks whether it is installed.
                    transfer.sent = transfer.taken.min(of - 1);
                    transfer.taken = transfer.sent;
                    transfer.probing = true;
                }
                true
            });
            held.idle_ticks = if held.transfers.is_empty() { held.idle_ticks + 1 } else { 0 };
            let wanted = *group.raft.store().wanted.borrow();
            // One that is wanted though this one is offered must be newer.
            if held.idle_ticks > keep || held.transfers.is_empty() && wanted {
                *group.raft.store().offer.borrow_mut() = None;
                self.sending.held = None;
            }
        }
        self.allow();
        self.send_chunks();
        self.read_wanted(now);
    }

    fn read_wanted(&mut self, now: Now) {
        if self.sending.reading.is_some() || self.sending.held.is_some() {
            return;
        }
        let wants = |it: &super::Group<H::Reply, H::Signal>| {
            std::mem::take(&mut *it.raft.store().wanted.borrow_mut())
        };
        let Some(group) = self.groups.iter().find(|group| wants(group)) else { return };
        // A fence that is not committed may need somebody else's snapshot first.
        let applied = group.applied.index;
        let fences = group.fences.values().map(|fence| fence.index).filter(|it| *it <= applied);
        if fences.chain([group.reconfigured]).max() > Some(group.stored.index) {
            // The snapshot would not know those who joined, or be too old. They ask again.
            self.begin_checkpoint(now);
            return;
        }
        self.sending.reading = Some(group.id);
        let bytes = self.config.snapshot_chunk_bytes;
        self.rounds.worker().begin(Task::Capture(group.id, bytes));
    }

    /// The store has been read.
    pub(super) fn captured(&mut self, group: GroupId, captured: Option<Box<Captured>>) {
        self.sending.reading = None;
        let captured = self.take_capture(group, captured);
        let Some(captured) = captured.filter(|it| it.applied.index > 0) else { return };
        let place = self.places[&group];
        let initial = || Members::initial(&self.config.groups[place].voters);
        let members = captured.members.clone().unwrap_or_else(initial);
        let offer = Offer { applied: captured.applied, members };
        *self.groups[place].raft.store().offer.borrow_mut() = Some(offer);
        self.sending.held = Some(Held { place, captured, transfers: Vec::new(), idle_ticks: 0 });
    }
}
