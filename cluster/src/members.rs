//! Who is in a group, as the state store keeps it beside the group's pairs.

use bytes::{Buf, BufMut, Bytes};
use protobuf::Message as _;
use raft::prelude::{ConfChangeV2, ConfState, Entry, EntryType};
use storage::store::Applied;

/// The key of a group's members among its pairs; no machine has a key without bytes.
pub(crate) const KEY: &[u8] = &[];
const VERSION: u8 = 1;

/// Marks an entry that changes members; commands are marked by the version of their packing.
pub(crate) const CHANGE: u8 = 2;

/// The members of a group after some entry.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Members {
    pub(crate) conf: ConfState,
    /// The snapshot that brought them, if one did. While the store is at its index and the log does
    /// not begin there, a crash has cut off its installation.
    pub(crate) installed: Applied,
}

impl Members {
    /// The members a group begins with.
    pub(crate) fn initial(voters: &[u64]) -> Self {
        let mut conf = ConfState::default();
        conf.set_voters(voters.to_vec());
        Self { conf, installed: Applied::default() }
    }

    /// Whether a node takes part.
    pub(crate) fn contain(&self, node: u64) -> bool {
        let ConfState { voters, learners, voters_outgoing, .. } = &self.conf;
        [voters, learners, voters_outgoing].iter().any(|part| part.contains(&node))
    }

    /// Whether a node is all there is.
    pub(crate) fn are_only(&self, node: u64) -> bool {
        self.conf.voters == [node] && self.conf.voters_outgoing.is_empty()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.put_u64_le(self.installed.index);
        bytes.put_u64_le(self.installed.term);
        self.conf.write_to_vec(&mut bytes).expect("a vector takes what is written");
        bytes
    }

    pub(crate) fn decode(mut bytes: &[u8]) -> Result<Self, String> {
        match bytes.try_get_u8() {
            Ok(VERSION) if bytes.len() >= 16 => {}
            other => return Err(format!("members of the unknown version {other:?}")),
        }
        let installed = Applied { index: bytes.get_u64_le(), term: bytes.get_u64_le() };
        let conf = ConfState::parse_from_bytes(bytes).map_err(|error| error.to_string())?;
        Ok(Self { conf, installed })
    }
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
