//! The state of a group on its way to a node that is too far behind for the log.
//!
//! A snapshot is a group's pairs as the state store has them at one applied index, cut into chunks:
//! keys and values in turn, each behind its length as a varint. A chunk has a checksum and says to
//! which snapshot it belongs and where in it; see `docs/adr/0007-snapshots-in-chunks.md`.

use bytes::{Buf, BufMut, Bytes};
use storage::store::{Applied, Store, StoreError};

use crate::machine::GroupId;
use crate::members::{self, Members};
use crate::pack::{put_varint, varint};

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// A snapshot, ready to be sent.
pub(crate) struct Captured {
    pub(crate) applied: Applied,
    /// The members at that index, if the store has any: a group's first ones are configured.
    pub(crate) members: Option<Members>,
    /// At least one.
    pub(crate) chunks: Vec<Bytes>,
}

impl Captured {
    /// Reads a group's pairs out of the store.
    pub(crate) fn take(
        store: &mut dyn Store,
        group: GroupId,
        chunk_bytes: usize,
    ) -> Result<Self, StoreError> {
        let (mut members, mut chunks, mut chunk) = (None, Vec::new(), Vec::new());
        let applied = store.load(group.0, &mut |key, value| {
            if key == members::KEY {
                members = Some(Members::decode(value)?);
                return Ok(());
            }
            put_pair(&mut chunk, key, value);
            if chunk.len() >= chunk_bytes {
                chunks.push(std::mem::take(&mut chunk).into());
            }
            Ok(())
        })?;
        if !chunk.is_empty() || chunks.is_empty() {
            chunks.push(chunk.into());
        }
        Ok(Self { applied, members, chunks })
    }
}

/// Adds a pair to a chunk.
pub(crate) fn put_pair(chunk: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    for part in [key, value] {
        put_varint(chunk, part.len() as u64);
        chunk.extend_from_slice(part);
    }
}

/// The pairs in a chunk.
pub(crate) fn pairs(mut body: Bytes) -> Result<Vec<Pair>, String> {
    let mut part = || -> Result<Option<Vec<u8>>, String> {
        if body.is_empty() {
            return Ok(None);
        }
        let len = varint(&mut body).ok_or("a length in a snapshot is cut off")?;
        if len > body.len() as u64 {
            return Err("a snapshot's chunk ends too early".into());
        }
        Ok(Some(body.split_to(len as usize).to_vec()))
    };
    let mut pairs = Vec::new();
    while let Some(key) = part()? {
        let value = part()?.ok_or("a key in a snapshot has no value")?;
        pairs.push((key, value));
    }
    Ok(pairs)
}

/// A piece of a snapshot on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// Tells snapshots apart; drawn by the sender.
    pub(crate) snapshot: u64,
    /// Which chunk this is, from 0, and how many there are.
    pub(crate) number: u32,
    pub(crate) of: u32,
    /// Raft's own message that goes with the snapshot, encoded; only in the first chunk.
    pub(crate) message: Bytes,
    pub(crate) body: Bytes,
}

const HEADER: usize = 24;

impl Chunk {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_u32_le(0);
        out.put_u64_le(self.snapshot);
        out.put_u32_le(self.number);
        out.put_u32_le(self.of);
        out.put_u32_le(self.message.len() as u32);
        out.extend_from_slice(&self.message);
        out.extend_from_slice(&self.body);
        let crc = crc32c::crc32c(&out[start + 4..]);
        out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    }

    pub(crate) fn decode(mut bytes: Bytes) -> Result<Self, String> {
        if bytes.len() < HEADER {
            return Err("a snapshot's chunk is cut off".into());
        }
        if bytes.get_u32_le() != crc32c::crc32c(&bytes) {
            return Err("the checksum of a snapshot's chunk is wrong".into());
        }
        let snapshot = bytes.get_u64_le();
        let (number, of, message) = (bytes.get_u32_le(), bytes.get_u32_le(), bytes.get_u32_le());
        if message as usize > bytes.len() || number >= of {
            return Err("a snapshot's chunk makes no sense".into());
        }
        let message = bytes.split_to(message as usize);
        Ok(Self { snapshot, number, of, message, body: bytes })
    }
}

#[cfg(test)]
mod tests {
    use storage::store::MemStore;

    use super::*;

    #[test]
    fn chunks_carry_all_pairs_in_order_and_damage_is_found_out() {
        let mut store = MemStore::new();
        let to = Applied { index: 7, term: 2 };
        let pair = |at: u8| (vec![at; 3], vec![at; usize::from(at)]);
        let members = Members::initial(&[1, 2]);
        let mut stored: Vec<_> = (1..200).map(pair).collect();
        stored.push((members::KEY.to_vec(), members.encode()));
        store.replace(4, to, &stored).unwrap();
        let captured = Captured::take(&mut store, GroupId(4), 1000).unwrap();
        assert_eq!((captured.applied, captured.members), (to, Some(members)));
        assert!(captured.chunks.len() > 10);
        let mut found = Vec::new();
        for (number, body) in captured.chunks.iter().enumerate() {
            let (number, of) = (number as u32, captured.chunks.len() as u32);
            let message = Bytes::from_static(b"message");
            let chunk = Chunk { snapshot: 9, number, of, message, body: body.clone() };
            let mut bytes = Vec::new();
            chunk.encode(&mut bytes);
            assert_eq!(Chunk::decode(bytes.clone().into()).unwrap(), chunk);
            let at = bytes.len() / 2;
            bytes[at] ^= 1;
            assert!(Chunk::decode(bytes.into()).is_err());
            found.extend(pairs(chunk.body).unwrap());
        }
        assert_eq!(found, (1..200).map(pair).collect::<Vec<_>>());
        let mut empty = MemStore::new();
        assert_eq!(Captured::take(&mut empty, GroupId(1), 1000).unwrap().chunks.len(), 1);
    }
}
