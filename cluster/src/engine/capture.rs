//! Groups' states for a backup: each as the store has it, once that includes all that was applied when
//! the backup was asked for. One group at a time is in memory, and none is read before the last was taken.

use std::sync::mpsc::{SyncSender, TrySendError};

use super::{Engine, Now};
use crate::backup::GroupBackup;
use crate::checkpoint::Task;
use crate::host::Host;
use crate::machine::{GroupId, StateMachine};
use crate::snapshot::Captured;

/// A backup that is under way.
pub(super) struct Capture {
    taker: SyncSender<GroupBackup>,
    /// What each group must include at least.
    wanted: Vec<u64>,
    /// The place of the group that comes next.
    next: usize,
    is_reading: bool,
    ready: Option<GroupBackup>,
}

impl<M: StateMachine, H: Host<M>> Engine<M, H> {
    /// Begins to read all groups. Whoever asks while that is under way finds the channel closed.
    pub(super) fn begin_captures(&mut self, takers: &mut Vec<SyncSender<GroupBackup>>) {
        for taker in takers.drain(..) {
            if self.capture.is_none() {
                let wanted = self.groups.iter().map(|group| group.applied.index).collect();
                let (next, is_reading, ready) = (0, false, None);
                self.capture = Some(Capture { taker, wanted, next, is_reading, ready });
            }
        }
    }

    /// Hands over what was read, and has the next group read.
    pub(super) fn tick_capture(&mut self, now: Now) {
        let Some(capture) = &mut self.capture else { return };
        if let Some(ready) = capture.ready.take() {
            match capture.taker.try_send(ready) {
                Ok(()) => capture.next += 1,
                Err(TrySendError::Full(ready)) => {
                    capture.ready = Some(ready);
                    return;
                }
                Err(TrySendError::Disconnected(_)) => {
                    self.capture = None;
                    return;
                }
            }
        }
        let Some(group) = self.groups.get(capture.next) else {
            // The channel closes: that was all.
            self.capture = None;
            return;
        };
        if capture.is_reading || self.sending.is_reading() {
            return;
        }
        if group.stored.index < capture.wanted[capture.next] {
            self.begin_checkpoint(now);
            return;
        }
        capture.is_reading = true;
        self.sending.begin_reading(group.id);
        let bytes = self.config.snapshot_chunk_bytes;
        self.rounds.worker().begin(Task::Capture(group.id, bytes));
    }

    /// A group was read; gives back what was read for somebody else.
    pub(super) fn take_capture(
        &mut self,
        group: GroupId,
        captured: Option<Box<Captured>>,
    ) -> Option<Box<Captured>> {
        let Some(capture) = self.capture.as_mut().filter(|it| it.is_reading) else {
            return captured;
        };
        capture.is_reading = false;
        capture.ready = captured.map(|captured| {
            let applied = (captured.applied.index, captured.applied.term);
            GroupBackup { group, applied, chunks: captured.chunks }
        });
        None
    }
}
