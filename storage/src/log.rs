//! The log all groups of a node share: one write and one sync make a batch of many groups durable.
//!
//! It is a row of segment files. Each batch carries a sequence number, its length and checksums,
//! and is written only after the one before was synced, so after a crash nothing but the last batch
//! can be unfinished: that one is dropped, while damage with anything valid behind it is reported
//! and never skipped (see `docs/adr/0001-own-log.md`). Every segment starts with all groups' hard
//! states and places, so a segment is deleted once all entries in it are compacted.
//!
//! Invariant: what [`Log::append`] has returned from is found by the next [`Log::open`], or open
//! fails.

mod batch;
mod error;
mod format;
mod index;
mod recover;
mod segment;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tracing::{debug, error};

pub use batch::Batch;
pub use error::{AppendError, OpenError, ReadError};

use crate::dice::Dice;
use crate::disk::{Disk, is_full};
use format::{BATCH_HEADER, BatchHeader, BatchKind, Record, SECTOR, SegmentHeader};
use index::Index;
use segment::{Files, Segment};

/// The number of a group.
pub type Group = u32;

/// One entry of a group's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the group's log; the first is 1.
    pub index: u64,
    /// The term it was proposed in.
    pub term: u64,
    /// What it carries.
    pub data: Bytes,
}

/// What a group must remember besides its entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The current term.
    pub term: u64,
    /// Whom the group's replica here voted for in it, 0 for none.
    pub vote: u64,
    /// The last index known to be committed.
    pub commit: u64,
}

/// How the log is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// Length of a segment file.
    pub segment_bytes: u64,
    /// Opens a damaged log by dropping everything from the damage on. Loses acknowledged data.
    pub truncate_at_corruption: bool,
    /// Where salts come from; `None` draws from the system. Simulations give a seed.
    pub seed: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, truncate_at_corruption: false, seed: None }
    }
}

/// How the log was found when it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// It was sealed by a clean stop, or there was none.
    pub clean: bool,
    /// Bytes of an unfinished last batch that were dropped.
    pub torn_bytes: u64,
    /// Bytes dropped because of `truncate_at_corruption`.
    pub lost_bytes: u64,
}

/// A batch that is durable.
#[derive(Clone, Copy, Debug)]
pub struct Appended {
    /// Bytes written.
    pub bytes: u64,
    /// How long the sync took.
    pub sync: Duration,
}

/// The log. See the module.
pub struct Log {
    files: Files,
    segments: VecDeque<Segment>,
    index: Index,
    dice: Dice,
    /// The sequence number of the next batch.
    next: u64,
    written: u64,
    marked: bool,
    failed: Option<String>,
    buffer: Vec<u8>,
    found: Found,
}

/// Batches are far smaller; what the format can say is not reached.
const MAX_BATCH: usize = 1 << 30;

impl Log {
    /// Opens the log in a directory, or starts one.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, options: &Options) -> Result<Self, OpenError> {
        recover::open(disk, dir, options)
    }

    /// Gives the disk back what is kept in a directory for the log and holds nothing of it, where something
    /// else needs the room for a start.
    pub fn give_back(disk: Arc<dyn Disk>, dir: &Path, options: &Options) -> Result<(), OpenError> {
        recover::give_back(disk, dir, options)
    }

    /// How the log was found.
    pub fn found(&self) -> Found {
        self.found
    }

    /// The groups the log knows, in order.
    pub fn groups(&self) -> Vec<Group> {
        self.index.groups().collect()
    }

    /// A group's hard state.
    pub fn hard_state(&self, group: Group) -> HardState {
        self.index.get(group).map(|index| index.hard_state).unwrap_or_default()
    }

    /// Index and term of the last entry that is compacted away, zeros for none.
    pub fn compacted(&self, group: Group) -> (u64, u64) {
        self.index.get(group).map(|index| index.compacted).unwrap_or_default()
    }

    /// The last index of a group, 0 for none.
    pub fn last_index(&self, group: Group) -> u64 {
        self.index.get(group).map_or(0, |index| index.last)
    }

    /// The term of an entry, or of the last compacted one.
    pub fn term(&self, group: Group, index: u64) -> Option<u64> {
        match self.index.get(group) {
            None => (index == 0).then_some(0),
            Some(of) if of.compacted.0 == index => Some(of.compacted.1),
            Some(of) => of.slot(index).map(|slot| slot.term),
        }
    }

    /// Bytes of an entry in the log, about; 0 if it is not there.
    pub fn entry_bytes(&self, group: Group, index: u64) -> u64 {
        let slot = self.index.get(group).and_then(|of| of.slot(index));
        slot.map_or(0, |slot| u64::from(slot.len))
    }

    /// The first byte of an entry's data, known without reading it; 0 if it has none or is not there.
    pub fn tag(&self, group: Group, index: u64) -> u8 {
        let slot = self.index.get(group).and_then(|of| of.slot(index));
        slot.map_or(0, |slot| slot.tag)
    }

    /// An entry, from memory if it is recent, else from disk with its checksum verified.
    pub fn entry(&self, group: Group, index: u64) -> Result<Entry, ReadError> {
        let absent = ReadError::Absent { group, index };
        let Some(of) = self.index.get(group) else { return Err(absent) };
        let Some(slot) = of.slot(index) else { return Err(absent) };
        if let Some(data) = of.recent(index) {
            return Ok(Entry { index, term: slot.term, data: data.clone() });
        }
        let at = self.segments.partition_point(|segment| segment.id < slot.segment);
        let segment = &self.segments[at];
        let path = self.files.path(segment.id);
        let mut bytes = vec![0; slot.len as usize];
        let read = match segment.file.read_at(u64::from(slot.offset), &mut bytes) {
            Ok(read) => read,
            Err(source) => return Err(ReadError::Io { group, index, path, source }),
        };
        bytes.truncate(read);
        let offset = u64::from(slot.offset);
        let what = match Record::decode(&Bytes::from(bytes), segment.salt, offset) {
            Ok((of, Record::Entry(entry), _)) if (of, entry.index) == (group, index) => {
                return Ok(entry);
            }
            Ok(_) => "another record stands there".into(),
            Err(what) => what,
        };
        Err(ReadError::Corrupt { group, index, path, offset, what })
    }

    /// Drops a group's entries up to `through` from memory; they stay on disk until compacted.
    pub fn forget(&mut self, group: Group, through: u64) {
        if let Some(index) = self.index.get_mut(group) {
            index.forget(through);
        }
    }

    /// Bytes the log takes on disk, without what is preallocated.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.end).sum()
    }

    /// Bytes written since the log was opened.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Bytes an unprivileged process can still write to the log's disk.
    pub fn free_bytes(&self) -> io::Result<u64> {
        self.files.disk.free_bytes(&self.files.dir)
    }

    /// Bytes that [`Log::reserve`] would take from the disk: a whole segment, or none while the batch
    /// fits into what the log has already.
    pub fn growth(&self, bytes: usize) -> u64 {
        let space = batch_space(bytes);
        if self.fits(space) {
            return 0;
        }
        let places = Record::Checkpoint(self.index.places());
        self.files.growth(batch_space(places.len()) + space)
    }

    /// Takes room on the disk for a batch of about `bytes`, so that its append will not find the
    /// disk full.
    pub fn reserve(&mut self, bytes: usize) -> Result<(), AppendError> {
        self.check_failed()?;
        self.make_room(batch_space(bytes))
    }

    /// Writes a batch and syncs it. When this returns, the batch is durable; when it returns
    /// [`AppendError::Full`], nothing of it is.
    pub fn append(&mut self, batch: &mut Batch) -> Result<Appended, AppendError> {
        self.check_failed()?;
        assert!(batch.bytes <= MAX_BATCH, "a batch of {} bytes is too large", batch.bytes);
        let space = batch_space(batch.bytes);
        self.make_room(space)?;
        let sync = self.write(BatchKind::Data, &batch.records)?;
        let segment = self.segments.back_mut().expect("there is always a segment");
        let mut offset = segment.end + BATCH_HEADER as u64;
        let mut compacted = false;
        for (group, record) in batch.records.drain(..) {
            segment.note(group, &record);
            compacted |= matches!(record, Record::Compact { .. });
            let len = record.len() as u64;
            if let Err(what) = self.index.take(group, record, segment.id, offset as u32, true) {
                // The records are on disk and make no sense: a fault of the caller.
                return Err(self.fail(what));
            }
            offset += len;
        }
        segment.end += space;
        batch.bytes = 0;
        self.next += 1;
        self.written += space;
        self.marked = false;
        if compacted {
            self.release();
        }
        Ok(Appended { bytes: space, sync })
    }

    /// Notes, without a sync, that everything so far is synced. Called when the log falls idle, it
    /// lets the next start tell damage to the last batch from a batch that was never finished.
    pub fn mark(&mut self) {
        if self.marked || self.failed.is_some() {
            return;
        }
        self.marked = true;
        let segment = self.segments.back().expect("there is always a segment");
        let mut sector = self.empty_batch(BatchKind::Mark).to_vec();
        sector.resize(SECTOR as usize, 0);
        if let Err(error) = segment.file.write_at(segment.end, &sector) {
            debug!(%error, "log not marked as synced");
        }
    }

    /// Closes the log in good order: the next start knows that nothing is missing.
    pub fn seal(mut self) -> Result<(), AppendError> {
        self.check_failed()?;
        self.write(BatchKind::Seal, &[])?;
        Ok(())
    }

    fn check_failed(&self) -> Result<(), AppendError> {
        match &self.failed {
            Some(why) => Err(AppendError::Failed(why.clone())),
            None => Ok(()),
        }
    }

    /// From now on nothing is taken: after a failed sync nobody knows what the disk holds.
    fn fail(&mut self, why: impl ToString) -> AppendError {
        let why = why.to_string();
        self.failed = Some(why.clone());
        AppendError::Failed(why)
    }

    fn empty_batch(&self, kind: BatchKind) -> [u8; BATCH_HEADER] {
        let salt = self.segments.back().expect("there is always a segment").salt;
        let synced = self.next - 1;
        let body_crc = format::body_crc(salt, &[]);
        BatchHeader { kind, sequence: self.next, body_len: 0, count: 0, synced, body_crc }
            .encode(salt)
    }

    /// Whether `space` bytes fit behind the last batch.
    fn fits(&self, space: u64) -> bool {
        let segment = self.segments.back().expect("there is always a segment");
        // A sector is always left for the mark or the seal.
        segment.end + space + SECTOR <= segment.len
    }

    /// Makes sure that `space` bytes fit behind the last batch, in a new segment if need be.
    fn make_room(&mut self, space: u64) -> Result<(), AppendError> {
        if !self.fits(space) {
            self.roll(space)?;
        }
        let segment = self.segments.back_mut().expect("there is always a segment");
        match segment.prepare(space) {
            Ok(()) => Ok(()),
            Err(error) if is_full(&error) => Err(AppendError::Full(error)),
            Err(error) => Err(self.fail(error)),
        }
    }

    /// Starts the next segment, with all groups' places as its first batch.
    fn roll(&mut self, space: u64) -> Result<(), AppendError> {
        let places = Record::Checkpoint(self.index.places());
        let first = batch_space(places.len());
        let (previous, previous_end) =
            self.segments.back().map_or((0, 0), |segment| (segment.id, segment.end));
        let header = SegmentHeader {
            id: self.segments.back().map_or(1, |segment| segment.id + 1),
            salt: self.dice.bits(),
            previous,
            previous_end,
            first: self.next,
        };
        self.start_segment(&header, self.files.segment_bytes, first + space, places)
    }

    /// Starts a segment of the `usual` length, or longer where it must have more `space`.
    fn start_segment(
        &mut self,
        header: &SegmentHeader,
        usual: u64,
        space: u64,
        places: Record,
    ) -> Result<(), AppendError> {
        let mut segment = match self.files.create(header, usual, space) {
            Ok(segment) => segment,
            Err(error) if is_full(&error) => return Err(AppendError::Full(error)),
            Err(error) => return Err(self.fail(error)),
        };
        // From here on the file has its name: it must not be left without its first batch.
        let first = batch_space(places.len());
        if let Err(error) = segment.prepare(first) {
            let full = is_full(&error);
            let removed = self.files.disk.remove(&self.files.path(header.id));
            let synced = self.files.disk.sync_dir(&self.files.dir);
            return match (full, removed.and(synced)) {
                (true, Ok(())) => Err(AppendError::Full(error)),
                _ => Err(self.fail(error)),
            };
        }
        self.segments.push_back(segment);
        match self.write(BatchKind::Data, &[(0, places)]) {
            Ok(_) => {}
            Err(AppendError::Full(error)) => return Err(self.fail(error)),
            Err(failed) => return Err(failed),
        }
        let segment = self.segments.back_mut().expect("it was just added");
        segment.end += first;
        self.next += 1;
        self.written += first;
        debug!(segment = header.id, "log segment started");
        Ok(())
    }

    /// Writes one batch at the end of the last segment and syncs; gives how long the sync took.
    fn write(
        &mut self,
        kind: BatchKind,
        records: &[(Group, Record)],
    ) -> Result<Duration, AppendError> {
        let segment = self.segments.back().expect("there is always a segment");
        let (file, start, salt) = (Arc::clone(&segment.file), segment.end, segment.salt);
        let mut out = std::mem::take(&mut self.buffer);
        out.clear();
        out.resize(BATCH_HEADER, 0);
        for (group, record) in records {
            record.encode(*group, salt, start + out.len() as u64, &mut out);
        }
        let body = &out[BATCH_HEADER..];
        let header = BatchHeader {
            kind,
            sequence: self.next,
            body_len: body.len() as u32,
            count: records.len() as u32,
            synced: self.next - 1,
            body_crc: format::body_crc(salt, body),
        };
        out[..BATCH_HEADER].copy_from_slice(&header.encode(salt));
        let end = start + (out.len() as u64).next_multiple_of(SECTOR);
        out.resize((end - start + segment.padding(end)) as usize, 0);
        let written = file.write_at(start, &out);
        if out.capacity() <= 4 << 20 {
            self.buffer = out;
        }
        if let Err(error) = written {
            // The half that may be there must not be found later: without its header it is nothing.
            let undone = file.write_at(start, &[0; SECTOR as usize]);
            return match undone {
                Ok(()) if is_full(&error) => Err(AppendError::Full(error)),
                _ => Err(self.fail(error)),
            };
        }
        let started = Instant::now();
        match file.sync_data() {
            Ok(()) => Ok(started.elapsed()),
            Err(error) => Err(self.fail(format!("sync: {error}"))),
        }
    }

    /// Gives back the oldest segments in which every entry is compacted.
    fn release(&mut self) {
        while self.segments.len() > 1 && self.segments[0].is_spent(&self.index) {
            let (id, len) = (self.segments[0].id, self.segments[0].len);
            if let Err(error) = self.files.retire(id, len) {
                // What was appended is safe; but a directory that cannot be changed bodes ill.
                error!(segment = id, %error, "old log segment not removed");
                self.fail(error);
                return;
            }
            self.segments.pop_front();
        }
    }
}

/// Bytes a batch with a body of `bytes` takes in a segment.
fn batch_space(bytes: usize) -> u64 {
    ((BATCH_HEADER + bytes) as u64).next_multiple_of(SECTOR)
}
