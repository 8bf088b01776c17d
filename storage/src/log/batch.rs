//! What shall become durable together.

use bytes::Bytes;

use super::format::Record;
use super::{Entry, Group, HardState};

/// Changes of many groups that one sync makes durable: after a crash all of them are there or none.
///
/// An entry at an index that the group's log already has replaces that entry and drops all after it.
#[derive(Debug, Default)]
pub struct Batch {
    pub(super) records: Vec<(Group, Record)>,
    pub(super) bytes: usize,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an entry of a group. Its index is at most one past the group's last.
    pub fn entry(&mut self, group: Group, index: u64, term: u64, data: Bytes) {
        self.push(group, Record::Entry(Entry { index, term, data }));
    }

    /// Adds a group's hard state.
    pub fn hard_state(&mut self, group: Group, state: HardState) {
        self.push(group, Record::HardState(state));
    }

    /// Adds that a group's entries up to `index`, of `term`, are needed no more. Past the group's
    /// last index it drops all entries, and the next one follows `index`.
    pub fn compact(&mut self, group: Group, index: u64, term: u64) {
        self.push(group, Record::Compact { index, term });
    }

    /// Adds that a group's log is empty and begins with entry 1: whatever it had is of no use.
    pub fn begin_anew(&mut self, group: Group) {
        self.compact(group, 0, 0);
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes the batch will take in the log, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes everything out, keeping the memory.
    pub fn clear(&mut self) {
        self.records.clear();
        self.bytes = 0;
    }

    fn push(&mut self, group: Group, record: Record) {
        self.bytes += record.len();
        self.records.push((group, record));
    }
}
