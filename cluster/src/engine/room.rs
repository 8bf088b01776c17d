//! Whether the disk and the log have room for more commands.
//!
//! The store must always be able to finish a checkpoint, since nothing else lets the log shrink. So
//! the log leaves it [`Config::min_free_bytes`](crate::Config::min_free_bytes) and as much again as
//! checkpoints have still to bring over, also when it starts a segment. What the node owes
//! ([`OnFull::Wait`]) is small and lets state shrink: it may use half of that, so that a node which
//! takes nothing new goes on delivering what it has.

use std::time::Duration;

use storage::log::AppendError;
use tracing::{info, warn};

use super::leadership::ELECTION_TICKS;
use super::{Engine, Now};
use crate::error::Error;
use crate::host::{Blocked, Host};
use crate::input::OnFull;
use crate::machine::StateMachine;
use crate::peers::Letter;

/// How often the disk is asked for its free bytes.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

impl<M: StateMachine, H: Host<M>> Engine<M, H> {
    /// Finds out now and then whether commands can be taken, also when none comes.
    pub(super) fn look(&mut self, now: Now) {
        if now.monotonic < self.next_look {
            return;
        }
        self.next_look = now.monotonic + LOOK_INTERVAL;
        self.ask_free();
        let found = self.find();
        self.metrics.accepting.set(if found.is_ok() { 1.0 } else { 0.0 });
        self.metrics.slowing.set(if self.pace.is_slowing() { 1.0 } else { 0.0 });
        if found != self.room.own {
            match found {
                Ok(()) => info!(free = self.free, "commands are taken again"),
                Err(why) => warn!(free = self.free, %why, "commands are refused"),
            }
            self.room.own = found;
        }
    }

    fn find(&mut self) -> Result<(), Blocked> {
        let largest = self.bytes_with(self.config.max_command_bytes);
        if self.rounds.lacks_room() {
            Err(Blocked::Checkpoint)
        } else if self.held.is_some() || !self.leaves_room(largest, OnFull::Refuse) {
            Err(Blocked::Disk)
        } else if !self.is_accepting() {
            Err(Blocked::LogBound)
        } else {
            Ok(())
        }
    }

    /// Whether the disk has room for `commands` bytes in this turn. Asked before they are proposed,
    /// since what Raft has once taken cannot be given back.
    pub(super) fn has_room(&mut self, commands: usize, of: OnFull) -> Result<bool, Error> {
        let bytes = self.bytes_with(commands);
        if self.held.is_some() || self.rounds.lacks_room() || !self.leaves_room(bytes, of) {
            return Ok(false);
        }
        match self.log.borrow_mut().reserve(bytes) {
            Ok(()) => Ok(true),
            Err(AppendError::Full(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Bytes of commands with what surrounds them, and with the compaction that must find room
    /// after them.
    fn bytes_with(&self, commands: usize) -> usize {
        commands + self.groups.len() * 512
    }

    /// Whether the store keeps its room when the log takes `bytes` more.
    fn leaves_room(&mut self, bytes: usize, of: OnFull) -> bool {
        let growth = self.log.borrow().growth(bytes);
        if growth > 0 {
            // Rare, and much at once.
            self.ask_free();
        }
        let unstored = self.rounds.unstored(self.log.borrow().written());
        let share = if of == OnFull::Wait { 2 } else { 1 };
        let kept = self.config.min_free_bytes.saturating_add(unstored) / share;
        self.free >= kept.saturating_add(growth)
    }

    /// Tells the other nodes when this one should lead nothing, and forgets who has not said so of
    /// itself for long.
    pub(super) fn tick_room(&mut self) {
        self.room.abstaining.retain(|_, ticks| {
            *ticks += 1;
            *ticks <= ELECTION_TICKS
        });
        if !self.room.abstains() {
            return;
        }
        let own = self.config.node;
        // A damaged one may know nobody.
        if let Some(group) = self.groups.iter().max_by_key(|it| it.members.all().count()) {
            for other in group.members.all().filter(|&id| id != own) {
                self.outgoing.add(other, group.id, &Letter::Abstaining);
            }
        }
    }

    /// Another node should lead nothing.
    pub(super) fn hear_abstaining(&mut self, from: u64) {
        self.room.abstaining.insert(from, 0);
    }

    fn ask_free(&mut self) {
        self.free = self.log.borrow().free_bytes().unwrap_or(u64::MAX);
    }
}
