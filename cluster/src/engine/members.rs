//! Who is in a group, and how that changes.

use raft::prelude::ConfChangeV2;

use super::group::Group;
use crate::error::Error;

impl<R> Group<R> {
    /// A change of members is committed.
    pub(super) fn change_members(&mut self, change: &ConfChangeV2) -> Result<(), Error> {
        let failed = |e: raft::Error| Error::Raft { group: self.id, reason: e.to_string() };
        self.members.conf = self.raft.apply_conf_change(change).map_err(failed)?;
        self.members_changed = true;
        self.dirty = true;
        if self.raft.raft.prs().get(self.raft.raft.id).is_none() && self.is_leader() {
            // Who is no member must not lead; the others elect one.
            let term = self.raft.raft.term;
            self.raft.raft.become_follower(term, raft::INVALID_ID);
        }
        Ok(())
    }

    /// The last entry that every member has, as far as a leader knows.
    pub(super) fn last_of_all(&self) -> u64 {
        if !self.is_leader() {
            return u64::MAX;
        }
        let raft = &self.raft.raft;
        let others = raft.prs().iter().filter(|(id, _)| **id != raft.id);
        others.map(|(_, progress)| progress.matched).min().unwrap_or(u64::MAX)
    }
}
