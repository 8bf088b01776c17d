//! A group's state outside of any node: taken from a running one, kept in a file, and put into an empty
//! data directory.
//!
//! A file is a head (the group, the last entry that the state includes, how many chunks follow) and
//! the chunks of a snapshot ([`crate::snapshot`]), each behind its length; head and chunks have
//! checksums, those of chunks include their place.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use storage::disk::RealDisk;
use storage::log::{Batch, Log, Options};
use storage::store::{Applied, SledStore, Store, StoreError};
use thiserror::Error;

use crate::config::Config;
use crate::engine::begin_behind;
use crate::error::Error;
use crate::machine::GroupId;
use crate::members::{self, Members};
use crate::snapshot::{Pair, pairs, put_pair};

const MAGIC: &[u8; 8] = b"skeinbk1";
/// Bytes of a head behind the magic.
const HEAD: usize = 28;
/// About how large a chunk is.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks are far smaller, but for a pair that is larger.
const MAX_CHUNK: u32 = 1 << 30;

/// Why a backup of a group cannot be read.
#[derive(Debug, Error)]
pub enum BackupError {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not what was written.
    #[error("{0}")]
    Damaged(String),
}

/// A group's state as its store had it at one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupBackup {
    /// The group.
    pub group: GroupId,
    /// The last entry that is included, and its term.
    pub applied: (u64, u64),
    /// At least one.
    pub(crate) chunks: Vec<Bytes>,
}

impl GroupBackup {
    /// Of a group's pairs, in the order of their keys, as they are after an entry of a term.
    pub fn of(group: GroupId, applied: (u64, u64), pairs: impl IntoIterator<Item = Pair>) -> Self {
        let (mut chunks, mut chunk) = (Vec::new(), Vec::new());
        for (key, value) in pairs {
            put_pair(&mut chunk, &key, &value);
            if chunk.len() >= CHUNK_BYTES {
                chunks.push(std::mem::take(&mut chunk).into());
            }
        }
        chunks.push(chunk.into());
        Self { group, applied, chunks }
    }

    /// Writes it; gives the bytes that takes.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<u64> {
        let mut head = Vec::with_capacity(MAGIC.len() + HEAD);
        head.extend_from_slice(MAGIC);
        head.put_u32_le(self.group.0);
        head.put_u64_le(self.applied.0);
        head.put_u64_le(self.applied.1);
        head.put_u32_le(self.chunks.len() as u32);
        head.put_u32_le(crc32c::crc32c(&head));
        out.write_all(&head)?;
        let mut bytes = head.len() as u64;
        for (number, chunk) in self.chunks.iter().enumerate() {
            let mut frame = Vec::with_capacity(8);
            frame.put_u32_le(chunk.len() as u32);
            frame.put_u32_le(chunk_crc(number, chunk));
            out.write_all(&frame)?;
            out.write_all(chunk)?;
            bytes += (frame.len() + chunk.len()) as u64;
        }
        Ok(bytes)
    }

    /// Reads it back, to the end of the input.
    pub fn read(input: &mut dyn Read) -> Result<Self, BackupError> {
        let damaged = |what: &str| BackupError::Damaged(what.into());
        let mut head = [0; MAGIC.len() + HEAD];
        exactly(input, &mut head)?;
        if !head.starts_with(MAGIC) {
            return Err(damaged("it is no backup of a group, or of a version not known here"));
        }
        let (said, mut crc) = head.split_at(MAGIC.len() + HEAD - 4);
        if crc.get_u32_le() != crc32c::crc32c(said) {
            return Err(damaged("the checksum of its head is wrong"));
        }
        let mut said = &said[MAGIC.len()..];
        let group = GroupId(said.get_u32_le());
        let (applied, count) = ((said.get_u64_le(), said.get_u64_le()), said.get_u32_le());
        let mut chunks = Vec::new();
        for number in 0..count as usize {
            let mut frame = [0; 8];
            exactly(input, &mut frame)?;
            let mut frame = &frame[..];
            let (len, crc) = (frame.get_u32_le(), frame.get_u32_le());
            if len > MAX_CHUNK {
                return Err(damaged("the length of a chunk is wrong"));
            }
            // Grows with what there is, not with what a damaged length says.
            let mut chunk = Vec::new();
            input.take(len.into()).read_to_end(&mut chunk)?;
            if chunk.len() < len as usize {
                return Err(damaged("it is cut off"));
            }
            if chunk_crc(number, &chunk) != crc {
                return Err(BackupError::Damaged(format!(
                    "the checksum of chunk {number} is wrong"
                )));
            }
            chunks.push(chunk.into());
        }
        if input.read(&mut [0])? > 0 {
            return Err(damaged("there is something behind its end"));
        }
        Ok(Self { group, applied, chunks })
    }

    /// Its pairs, in the order of their keys.
    pub fn pairs(&self) -> Result<Vec<Pair>, BackupError> {
        let mut all = Vec::new();
        for chunk in &self.chunks {
            all.append(&mut pairs(chunk.clone()).map_err(BackupError::Damaged)?);
        }
        Ok(all)
    }
}

fn exactly(input: &mut dyn Read, buffer: &mut [u8]) -> Result<(), BackupError> {
    input.read_exact(buffer).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => BackupError::Damaged("it is cut off".into()),
        _ => error.into(),
    })
}

fn chunk_crc(number: usize, chunk: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&(number as u64).to_le_bytes()), chunk)
}

/// Puts groups' states into an empty data directory, as those with which a cluster begins.
pub struct Restoration {
    config: Config,
    store: SledStore,
    log: Log,
    batch: Batch,
    _data: crate::DataDir,
}

impl Restoration {
    /// Opens the directory; refuses one that holds anything of a group.
    pub fn begin(config: &Config) -> Result<Self, Error> {
        let data = crate::DataDir::open(&config.data)?;
        data.check_log()?;
        let store = SledStore::open(&data.state(), config.store_cache_bytes)?;
        let options = Options { segment_bytes: config.segment_bytes, ..Options::default() };
        let log = Log::open(Arc::new(RealDisk), &data.log(), &options)?;
        let mut restoration =
            Self { config: config.clone(), store, log, batch: Batch::new(), _data: data };
        for group in &config.groups {
            if restoration.store.applied(group.id.0)? != Applied::default()
                || restoration.log.last_index(group.id.0) > 0
            {
                return Err(refused(group.id, &config.data, "there is state of it already"));
            }
        }
        Ok(restoration)
    }

    /// Stores a group's pairs, which hold up to an entry.
    pub fn put(
        &mut self,
        group: GroupId,
        (index, term): (u64, u64),
        mut pairs: Vec<Pair>,
    ) -> Result<(), Error> {
        let known = self.config.groups.iter().find(|it| it.id == group);
        let founders = known.ok_or_else(|| refused(group, &self.config.data, "no such group"))?;
        let at = Applied { index, term };
        pairs.push((members::KEY.to_vec(), Members::initial(&founders.voters).encode()));
        self.store.replace(group.0, at, &pairs)?;
        let state = storage::log::HardState { term, vote: 0, commit: index };
        self.batch.hard_state(group.0, state);
        begin_behind(&mut self.batch, &self.log, group, at);
        Ok(())
    }

    /// Makes everything durable. Before that, the directory is as good as empty.
    pub fn finish(mut self) -> Result<(), Error> {
        self.store.flush()?;
        self.log.append(&mut self.batch)?;
        self._data.mark_used()?;
        self.log.seal()?;
        Ok(())
    }
}

fn refused(group: GroupId, data: &Path, why: &str) -> Error {
    let reason = format!("{why} in {}", data.display());
    Error::Store(StoreError::Refused { group: group.0, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup() -> GroupBackup {
        let chunk = |key: &[u8], value: &[u8]| {
            let mut chunk = Vec::new();
            put_pair(&mut chunk, key, value);
            Bytes::from(chunk)
        };
        let chunks = vec![chunk(b"a", b"1"), chunk(b"b", &[7; 300]), chunk(b"c", b"")];
        GroupBackup { group: GroupId(3), applied: (17, 2), chunks }
    }

    #[test]
    fn a_backup_is_read_as_it_was_written() {
        let mut file = Vec::new();
        let bytes = backup().write(&mut file).unwrap();
        assert_eq!(bytes, file.len() as u64);
        let read = GroupBackup::read(&mut &file[..]).unwrap();
        assert_eq!(read, backup());
        let keys: Vec<_> = read.pairs().unwrap().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, [b"a", b"b", b"c"]);
        let same = GroupBackup::of(read.group, read.applied, read.pairs().unwrap());
        assert_eq!(same.pairs().unwrap(), read.pairs().unwrap());
    }

    #[test]
    fn damage_to_a_backup_is_found() {
        let mut file = Vec::new();
        backup().write(&mut file).unwrap();
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 0x10;
            assert!(GroupBackup::read(&mut &damaged[..]).is_err(), "byte {at}");
            assert!(GroupBackup::read(&mut &file[..at]).is_err(), "cut at {at}");
        }
        file.push(0);
        assert!(GroupBackup::read(&mut &file[..]).is_err());
    }
}
