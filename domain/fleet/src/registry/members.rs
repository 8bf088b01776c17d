//! The nodes of the cluster: where each is, whether it takes part, and which data folder is its.
//!
//! A node is known by its number; its address may change. What it has promised other nodes lies in its
//! data folder, so a node that comes with another folder is another replica: it is refused until
//! somebody has taken the lost one out of every group. A folder that was taken out never counts again.
//!
//! Invariant: a member that is [`MemberStatus::Removed`] is in no group.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::store::Key;
use super::{Outcome, Registry, Rejection};

/// Whether a node takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberStatus {
    /// It learns and serves nobody yet.
    Joining,
    /// It serves, and may decide in groups.
    Active,
    /// It goes: groups do without it as soon as it is drained, or at once when it is dead.
    Leaving,
    /// It is gone, and refused when it comes back.
    Removed,
}

/// Whether a node serves clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Drain {
    /// It does.
    #[default]
    No,
    /// It shall not.
    Wanted,
    /// It does not any more.
    Done,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// `host:port` for other nodes; empty while nobody has said it.
    pub address: String,
    /// Whether it takes part.
    pub status: MemberStatus,
    /// Whether it serves clients.
    #[serde(default)]
    pub drain: Drain,
    /// Whether it leaves without being asked: it never returns.
    #[serde(default)]
    pub dead: bool,
    /// Its data folder, once it has said which one it is.
    #[serde(default)]
    pub folder: Option<String>,
    /// Folders that this node had before it was taken out.
    #[serde(default)]
    pub former_folders: Vec<String>,
    /// The version of the data that it writes.
    #[serde(default)]
    pub data_version: u32,
}

/// Why a folder is not the one of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotMember {
    /// The node was taken out of the cluster.
    #[error("was removed from the cluster")]
    Removed,
    /// The node was taken out with this folder and has another one now.
    #[error("was removed from the cluster with this data folder, and another one has its place")]
    Former,
    /// The node's data are elsewhere, or lost.
    #[error("is known with another data folder: what it has promised is not in this one")]
    Folder,
}

impl Member {
    fn new(address: String, status: MemberStatus) -> Self {
        let (drain, dead, folder, former_folders) = (Drain::No, false, None, Vec::new());
        Self { address, status, drain, dead, folder, former_folders, data_version: 0 }
    }

    /// Whether groups have a replica on it: until it is drained a node that leaves stays where it is.
    pub fn is_placed(&self) -> bool {
        match self.status {
            MemberStatus::Joining | MemberStatus::Active => true,
            MemberStatus::Leaving => !self.dead && self.drain != Drain::Done,
            MemberStatus::Removed => false,
        }
    }

    /// Whether it may decide in groups.
    pub fn may_vote(&self) -> bool {
        self.is_placed() && self.status != MemberStatus::Joining
    }

    /// Whether it may lead groups.
    pub fn may_lead(&self) -> bool {
        self.status == MemberStatus::Active && self.drain == Drain::No
    }

    /// Whether a replica in a data folder is this member's. A folder without a name is of a version
    /// that did not give them any.
    pub fn admits(&self, folder: &str) -> Result<(), NotMember> {
        if self.status == MemberStatus::Removed {
            return Err(NotMember::Removed);
        }
        if self.former_folders.iter().any(|former| former == folder) {
            return Err(NotMember::Former);
        }
        match &self.folder {
            Some(known) if known != folder => Err(NotMember::Folder),
            _ => Ok(()),
        }
    }
}

impl Registry {
    /// The nodes by their number; none before the cluster has noted its founders.
    pub fn members(&self) -> &BTreeMap<u64, Member> {
        &self.members
    }

    /// The nodes that shall lead groups, where somebody has said so.
    pub fn preferred_leaders(&self) -> &BTreeMap<u32, u64> {
        &self.preferred_leaders
    }

    /// Notes the nodes with which the cluster began. Whoever comes second changes nothing.
    pub(super) fn found_cluster(
        &mut self,
        nodes: BTreeMap<u64, String>,
    ) -> Result<Outcome, Rejection> {
        if self.members.is_empty() {
            for (node, address) in nodes {
                self.put_member(node, Member::new(address, MemberStatus::Active));
            }
        }
        Ok(Outcome::Done)
    }

    pub(super) fn add_member(&mut self, node: u64, address: String) -> Result<Outcome, Rejection> {
        let mut member = Member::new(address, MemberStatus::Joining);
        match self.members.get(&node) {
            Some(known) if known.status != MemberStatus::Removed => {
                return Err(Rejection::MemberExists(node));
            }
            Some(known) => {
                member.former_folders.clone_from(&known.former_folders);
                member.former_folders.extend(known.folder.clone());
            }
            None => {}
        }
        self.put_member(node, member);
        Ok(Outcome::Done)
    }

    /// A node says where it is, which folder it has and what it writes.
    pub(super) fn announce_member(
        &mut self,
        node: u64,
        folder: String,
        address: String,
        data_version: u32,
    ) -> Result<Outcome, Rejection> {
        let member = self.member(node)?;
        member.admits(&folder).map_err(|why| Rejection::MemberRefused { node, why })?;
        let mut member = member.clone();
        (member.folder, member.data_version) = (Some(folder), data_version);
        if !address.is_empty() {
            member.address = address;
        }
        self.put_member(node, member);
        Ok(Outcome::Done)
    }

    /// A node that joins has all there is.
    pub(super) fn activate_member(&mut self, node: u64) -> Result<Outcome, Rejection> {
        let mut member = self.member(node)?.clone();
        if member.status == MemberStatus::Joining {
            member.status = MemberStatus::Active;
            self.put_member(node, member);
        }
        Ok(Outcome::Done)
    }

    pub(super) fn drain_member(&mut self, node: u64, drain: Drain) -> Result<Outcome, Rejection> {
        let mut member = self.member(node)?.clone();
        match (member.drain, drain) {
            (_, Drain::No) if member.status == MemberStatus::Leaving => {
                return Err(Rejection::MemberLeaving(node));
            }
            // It says so of a wish that was taken back, or again.
            (Drain::No, Drain::Done) | (Drain::Done, Drain::Wanted) => return Ok(Outcome::Done),
            _ => {}
        }
        member.drain = drain;
        self.put_member(node, member);
        Ok(Outcome::Done)
    }

    /// A node shall go.
    pub(super) fn remove_member(&mut self, node: u64, dead: bool) -> Result<Outcome, Rejection> {
        let mut member = self.member(node)?.clone();
        let stays = |(id, it): (&u64, &Member)| *id != node && it.status == MemberStatus::Active;
        if !self.members.iter().any(stays) {
            return Err(Rejection::LastMember(node));
        }
        if member.status == MemberStatus::Joining {
            // It serves nobody, so there is nothing to wait for, and it is never asked to decide.
            member.drain = Drain::Done;
        }
        member.status = MemberStatus::Leaving;
        member.dead |= dead;
        if member.drain == Drain::No {
            member.drain = Drain::Wanted;
        }
        self.put_member(node, member);
        Ok(Outcome::Done)
    }

    /// A node that leaves is in no group any more.
    pub(super) fn retire_member(&mut self, node: u64) -> Result<Outcome, Rejection> {
        let mut member = self.member(node)?.clone();
        if member.status == MemberStatus::Leaving && !member.is_placed() {
            member.status = MemberStatus::Removed;
            self.put_member(node, member);
            let led = |(_, leader): &(&u32, &u64)| **leader == node;
            let groups: Vec<_> =
                self.preferred_leaders.iter().filter(led).map(|(group, _)| *group).collect();
            groups.into_iter().for_each(|group| self.put_leader(group, None));
        }
        Ok(Outcome::Done)
    }

    /// A majority never returns and one node goes on alone: nobody else is a member any more.
    pub(super) fn recover_member(
        &mut self,
        survivor: u64,
        folder: String,
        address: String,
    ) -> Result<Outcome, Rejection> {
        for (node, mut member) in self.members.clone() {
            if node != survivor {
                member.status = MemberStatus::Removed;
                member.dead = true;
                self.put_member(node, member);
            }
        }
        let mut member = Member::new(address, MemberStatus::Active);
        if let Some(known) = self.members.get(&survivor) {
            member.former_folders.clone_from(&known.former_folders);
        }
        member.folder = Some(folder);
        self.put_member(survivor, member);
        for group in self.preferred_leaders.keys().copied().collect::<Vec<_>>() {
            self.put_leader(group, None);
        }
        Ok(Outcome::Done)
    }

    pub(super) fn prefer_leader(
        &mut self,
        group: u32,
        node: Option<u64>,
    ) -> Result<Outcome, Rejection> {
        if let Some(node) = node
            && self.member(node)?.status != MemberStatus::Active
        {
            return Err(Rejection::MemberNotActive(node));
        }
        self.put_leader(group, node);
        Ok(Outcome::Done)
    }

    fn member(&self, node: u64) -> Result<&Member, Rejection> {
        match self.members.get(&node) {
            None => Err(Rejection::MemberNotFound(node)),
            Some(it) if it.status == MemberStatus::Removed => Err(Rejection::MemberRemoved(node)),
            Some(it) => Ok(it),
        }
    }

    fn put_member(&mut self, node: u64, member: Member) {
        self.dirty.insert(Key::Member(node));
        self.members.insert(node, member);
    }

    fn put_leader(&mut self, group: u32, node: Option<u64>) {
        self.dirty.insert(Key::PreferredLeader(group));
        match node {
            Some(node) => self.preferred_leaders.insert(group, node),
            None => self.preferred_leaders.remove(&group),
        };
    }
}
