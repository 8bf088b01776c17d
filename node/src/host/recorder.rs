//! Remembers what outboxes hold while a backup is taken: see [`fleet::shard::put_back_outbox`].

use cluster::{GroupId, GroupsView};
use fleet::shard::{OutboxEntry, Shard};
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;
use tracing::warn;

use super::{Machine, NodeHost};

/// Bytes of publications that are remembered; beyond that the backup fails.
const MAX_BYTES: usize = 256 << 20;

/// See the module.
#[derive(Default)]
pub(super) struct Recorder {
    groups: FxHashMap<GroupId, Vec<OutboxEntry>>,
    bytes: usize,
}

impl Recorder {
    /// Adds what a group's outbox has behind what was recorded of it; false when that is too much.
    fn add(&mut self, group: GroupId, shard: &Shard) -> bool {
        let Some(entries) = self.groups.get_mut(&group) else { return true };
        let next = entries.last().map_or(0, |entry| entry.seq + 1);
        for entry in shard.outbox(next) {
            self.bytes += entry.publication.bytes();
            entries.push(entry.clone());
        }
        self.bytes <= MAX_BYTES
    }
}

impl NodeHost {
    /// Begins to record all outboxes, or ends it.
    pub(super) fn record_outboxes(&mut self, begins: Option<&GroupsView<'_, Machine>>) {
        self.recorder = begins.map(|_| Recorder::default());
        let Some(groups) = begins else { return };
        for id in groups.ids() {
            if let Some(recorder) = &mut self.recorder {
                recorder.groups.insert(id, Vec::new());
            }
            if let Some(shard) = groups.get(id).and_then(Machine::shard) {
                self.record_outbox(id, shard);
            }
        }
    }

    /// Records what has come to a group's outbox.
    pub(super) fn record_outbox(&mut self, group: GroupId, shard: &Shard) {
        let Some(recorder) = &mut self.recorder else { return };
        if !recorder.add(group, shard) {
            warn!(bytes = recorder.bytes, "too much is published for this backup: it will fail");
            self.recorder = None;
        }
    }

    /// Tells what was recorded of a group, and forgets it.
    pub(super) fn tell_recorded(
        &mut self,
        group: GroupId,
        answer: oneshot::Sender<Option<Vec<OutboxEntry>>>,
    ) {
        let entries = self.recorder.as_mut().and_then(|it| it.groups.remove(&group));
        if let (Some(recorder), Some(entries)) = (&mut self.recorder, &entries) {
            let bytes: usize = entries.iter().map(|entry| entry.publication.bytes()).sum();
            recorder.bytes -= bytes;
        }
        // Whoever asked may have gone away.
        let _ = answer.send(entries);
    }
}
