//! One group's part of the shared log, as the Raft library wants to see it.

use std::cell::RefCell;
use std::rc::Rc;

use raft::prelude::{Entry, EntryType, HardState, Snapshot, SnapshotMetadata};
use raft::{GetEntriesContext, RaftState, StorageError};
use storage::log::{Log, ReadError};
use storage::store::Applied;

use crate::machine::GroupId;
use crate::members::{CHANGE, Members, from_log};

/// The log all groups share; they live on one thread.
pub(crate) type SharedLog = Rc<RefCell<Log>>;

/// A group's view of the log.
pub(crate) struct View {
    pub(crate) log: SharedLog,
    pub(crate) group: GroupId,
    /// The members when it started.
    pub(crate) members: Members,
    /// What was applied before the start; it was committed, whatever the last hard state says.
    pub(crate) applied: Applied,
    /// The snapshot that can be had, and whether one is wanted that cannot.
    pub(crate) offer: RefCell<Option<Offer>>,
    pub(crate) wanted: RefCell<bool>,
    /// An entry that another node needs could not be read.
    pub(crate) unreadable: RefCell<Option<ReadError>>,
}

/// A snapshot that can be sent.
pub(crate) struct Offer {
    pub(crate) applied: Applied,
    pub(crate) members: Members,
}

impl raft::Storage for View {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let state = self.log.borrow().hard_state(self.group.0);
        let mut hard_state = HardState::default();
        hard_state.set_term(state.term.max(self.applied.term));
        hard_state.set_vote(state.vote);
        hard_state.set_commit(state.commit.max(self.applied.index));
        Ok(RaftState::new(hard_state, self.members.conf.clone()))
    }

    /// Only entries to send to a peer carry their data. Others come with their type alone: to apply
    /// them, [`Log::entry`] or the proposer's own copy gives it.
    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let log = self.log.borrow();
        let group = self.group.0;
        if low <= log.compacted(group).0 {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let max_size = max_size.into().unwrap_or(u64::MAX);
        let mut size = 0;
        let mut entries = Vec::with_capacity((high - low) as usize);
        for index in low..high {
            let Some(term) = log.term(group, index) else {
                return Err(raft::Error::Store(StorageError::Unavailable));
            };
            size += log.entry_bytes(group, index);
            if size > max_size && index > low {
                break;
            }
            let mut entry = Entry::default();
            entry.set_index(index);
            entry.set_term(term);
            if context.can_async() {
                match log.entry(group, index) {
                    Ok(read) => from_log(&mut entry, read.data),
                    Err(error) => {
                        *self.unreadable.borrow_mut() = Some(error);
                        return Err(raft::Error::Store(StorageError::Compacted));
                    }
                }
            } else if log.tag(group, index) == CHANGE {
                entry.set_entry_type(EntryType::EntryConfChangeV2);
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let log = self.log.borrow();
        log.term(self.group.0, index).ok_or_else(|| {
            let compacted = index < log.compacted(self.group.0).0;
            let why = if compacted { StorageError::Compacted } else { StorageError::Unavailable };
            raft::Error::Store(why)
        })
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.log.borrow().compacted(self.group.0).0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.log.borrow().last_index(self.group.0))
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let offer = self.offer.borrow();
        let fits = |it: &&Offer| it.applied.index >= request_index && it.members.contain(to);
        let Some(offer) = offer.as_ref().filter(fits) else {
            *self.wanted.borrow_mut() = true;
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        };
        let mut metadata = SnapshotMetadata::default();
        (metadata.index, metadata.term) = (offer.applied.index, offer.applied.term);
        metadata.set_conf_state(offer.members.conf.clone());
        let data = offer.members.encode().into();
        let mut snapshot = Snapshot { data, ..Snapshot::default() };
        snapshot.set_metadata(metadata);
        Ok(snapshot)
    }
}
