//! Who is in a group, as the state store keeps it beside the group's pairs.

use std::collections::BTreeSet;

use bytes::{Buf, BufMut, Bytes};
use protobuf::Message as _;
use raft::prelude::{ConfChangeV2, ConfState, Entry, EntryType};
use storage::store::Applied;

use crate::sources::Sources;

/// The key of a group's members among its pairs; no machine has a key without bytes.
pub(crate) const KEY: &[u8] = &[];
const VERSION: u8 = 2;
/// With an index up to which changes are void, in front of everything.
const RECOVERED: u8 = 3;
/// In front of everything, also of another version: the replica is damaged.
const DAMAGED: u8 = 4;
/// Without the length of the target, and without sources.
const WITHOUT_SOURCES: u8 = 1;

/// Marks an entry that changes members; commands are marked by the version of their packing.
pub(crate) const CHANGE: u8 = 2;

/// The members of a group after some entry, and whose commands it has applied.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Members {
    pub(crate) conf: ConfState,
    /// The voters and learners that were asked for, while there are others.
    pub(crate) target: Option<ConfState>,
    /// The snapshot that brought them, if one did. While the store is at its index and the log does
    /// not begin there, a crash has cut off its installation.
    pub(crate) installed: Applied,
    /// Changes of members up to this entry are void: it was in the log when one node alone was made to
    /// go on.
    pub(crate) void_until: u64,
    pub(crate) sources: Sources,
    /// Whether this replica has lost something that it had promised to keep. Set until a snapshot takes
    /// the place of all it has; see `engine::mending`.
    pub(crate) damaged: bool,
}

impl Members {
    /// The members a group begins with.
    pub(crate) fn initial(voters: &[u64]) -> Self {
        let mut conf = ConfState::default();
        conf.set_voters(voters.to_vec());
        Self { conf, ..Self::default() }
    }

    /// Whether they are what was asked for.
    pub(crate) fn are_as_asked(&self) -> bool {
        let sorted = |ids: &[u64]| BTreeSet::from_iter(ids.iter().copied());
        self.target.as_ref().is_some_and(|target| {
            self.conf.voters_outgoing.is_empty()
                && sorted(&target.voters) == sorted(&self.conf.voters)
                && sorted(&target.learners) == sorted(&self.conf.learners)
        })
    }

    /// The nodes that take part, those that are about to leave included.
    pub(crate) fn all(&self) -> impl Iterator<Item = u64> {
        let ConfState { voters, learners, voters_outgoing, .. } = &self.conf;
        let all: BTreeSet<_> = voters.iter().chain(learners).chain(voters_outgoing).collect();
        all.into_iter().copied()
    }

    /// Whether a node takes part.
    pub(crate) fn contain(&self, node: u64) -> bool {
        self.all().any(|id| id == node)
    }

    /// Whether anything is known of them: a replica that joins learns it from a snapshot.
    pub(crate) fn are_founded(&self) -> bool {
        !self.conf.voters.is_empty()
    }

    /// Whether a node is all there is.
    pub(crate) fn are_only(&self, node: u64) -> bool {
        self.conf.voters == [node] && self.conf.voters_outgoing.is_empty()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = if self.damaged { vec![DAMAGED] } else { Vec::new() };
        bytes.push(if self.void_until > 0 { RECOVERED } else { VERSION });
        if self.void_until > 0 {
            bytes.put_u64_le(self.void_until);
        }
        bytes.put_u64_le(self.installed.index);
        bytes.put_u64_le(self.installed.term);
        for part in [Some(&self.conf), self.target.as_ref()] {
            bytes.put_u32_le(part.map_or(0, |part| part.compute_size()));
            if let Some(part) = part {
                part.write_to_vec(&mut bytes).expect("a vector takes what is written");
            }
        }
        self.sources.encode(&mut bytes);
        bytes
    }

    pub(crate) fn decode(mut bytes: &[u8]) -> Result<Self, String> {
        let damaged = bytes.first() == Some(&DAMAGED);
        bytes = &bytes[usize::from(damaged)..];
        let version = match bytes.try_get_u8() {
            Ok(version @ (VERSION | WITHOUT_SOURCES)) if bytes.len() >= 20 => version,
            Ok(RECOVERED) if bytes.len() >= 28 => RECOVERED,
            other => return Err(format!("members of the unknown version {other:?}")),
        };
        let void_until = if version == RECOVERED { bytes.get_u64_le() } else { 0 };
        let installed = Applied { index: bytes.get_u64_le(), term: bytes.get_u64_le() };
        let read = |part| ConfState::parse_from_bytes(part).map_err(|error| error.to_string());
        let conf = read(part(&mut bytes)?)?;
        let target = match version {
            VERSION | RECOVERED => part(&mut bytes)?,
            _ => std::mem::take(&mut bytes),
        };
        let target = if target.is_empty() { None } else { Some(read(target)?) };
        let sources = Sources::decode(bytes)?;
        Ok(Self { conf, target, installed, void_until, sources, damaged })
    }
}

/// Takes a part off the front, which stands behind its length.
fn part<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], String> {
    let cut_off = || "members are cut off".to_owned();
    let len = bytes.try_get_u32_le().map_err(|_| cut_off())? as usize;
    bytes.split_off(..len).ok_or_else(cut_off)
}

/// An entry's data as the log keeps it, which tells changes of members from commands.
pub(crate) fn to_log(entry: &mut Entry) -> Bytes {
    let data = std::mem::take(&mut entry.data);
    match entry.get_entry_type() {
        EntryType::EntryNormal => data,
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
            let mut marked = Vec::with_capacity(1 + data.len());
            marked.push(CHANGE);
            marked.extend_from_slice(&data);
            marked.into()
        }
    }
}

/// Gives an entry what the log keeps of it.
pub(crate) fn from_log(entry: &mut Entry, mut data: Bytes) {
    if data.first() == Some(&CHANGE) {
        entry.set_entry_type(EntryType::EntryConfChangeV2);
        data.advance(1);
    }
    entry.data = data;
}

/// The change an entry's data, as the log keeps it, makes.
pub(crate) fn change_in(data: &[u8]) -> Option<Result<ConfChangeV2, String>> {
    let change = data.strip_prefix(&[CHANGE])?;
    Some(ConfChangeV2::parse_from_bytes(change).map_err(|error| error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::Source;

    #[test]
    fn members_survive_storing() {
        let installed = Applied { index: 7, term: 3 };
        let target = Some(Members::initial(&[2, 3, 4]).conf);
        let plain = Members::initial(&[1, 2, 3]);
        let mut sources = Sources::default();
        sources.note(Source { node: 2, incarnation: 9 }, 4);
        for members in [
            plain.clone(),
            Members { sources: sources.clone(), ..plain.clone() },
            Members { void_until: 9, ..plain.clone() },
            Members { void_until: 9, damaged: true, ..plain.clone() },
            Members { damaged: true, ..Members::default() },
            Members { installed, target, sources, ..plain },
        ] {
            let bytes = members.encode();
            assert_eq!(Members::decode(&bytes).unwrap(), members);
            assert!(Members::decode(&bytes[..10]).is_err());
        }
        assert!(Members::decode(&[9; 30]).is_err());
    }

    #[test]
    fn members_of_the_first_version_are_read() {
        let (members, target) = (Members::initial(&[1, 2]), Members::initial(&[3]).conf);
        for target in [None, Some(target)] {
            let mut bytes = vec![WITHOUT_SOURCES];
            bytes.extend([0; 16]);
            bytes.put_u32_le(members.conf.compute_size());
            members.conf.write_to_vec(&mut bytes).unwrap();
            target.iter().for_each(|target| target.write_to_vec(&mut bytes).unwrap());
            let expected = Members { target, ..members.clone() };
            assert_eq!(Members::decode(&bytes).unwrap(), expected);
        }
    }
}
