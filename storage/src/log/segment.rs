//! One file of the log, and how files come and go.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::Group;
use super::format::{HEADER_BYTES, Record, SECTOR, SegmentHeader};
use super::index::Index;
use crate::disk::{Disk, File};

/// Zeros are written this far ahead of small batches, so that their syncs need not record that
/// blocks were written for the first time. A large batch is faster without.
const ZEROS: u64 = 1 << 20;
const SMALL: u64 = 256 << 10;
/// What is written ends with zeros up to a page, so that the kernel never reads before it writes.
const PAGE: u64 = 4096;
/// Used files kept for the next segments.
const SPARES: usize = 2;

/// A file of the log.
pub(super) struct Segment {
    pub(super) id: u64,
    pub(super) salt: u64,
    pub(super) file: Arc<dyn File>,
    /// Where the last batch ends, a sector's start.
    pub(super) end: u64,
    pub(super) len: u64,
    /// How far the file has been written, so that a sync there records no new blocks.
    pub(super) zeroed: u64,
    /// The highest entry of each group in this segment.
    pub(super) highest: FxHashMap<Group, u64>,
}

impl Segment {
    /// Notes what a record in this segment needs it for.
    pub(super) fn note(&mut self, group: Group, record: &Record) {
        if let Record::Entry(entry) = record {
            // An overwritten suffix may leave this too high, which only keeps the file longer.
            let highest = self.highest.entry(group).or_default();
            *highest = entry.index.max(*highest);
        }
    }

    /// Whether every entry in it is compacted.
    pub(super) fn is_spent(&self, index: &Index) -> bool {
        self.highest.iter().all(|(&group, &highest)| highest <= index.compacted(group))
    }

    /// Prepares the file for a batch of `space` bytes behind the last one.
    pub(super) fn prepare(&mut self, space: u64) -> io::Result<()> {
        let end = self.end + space;
        let end = (end + self.padding(end)).min(self.len);
        if space > SMALL {
            self.zeroed = self.zeroed.max(end);
        }
        while self.zeroed < end {
            let upto = (self.zeroed + ZEROS).min(self.len);
            self.file.write_at(self.zeroed, &vec![0; (upto - self.zeroed) as usize])?;
            self.zeroed = upto;
        }
        Ok(())
    }

    /// What must follow `end` as zeros: at least a sector, so that the end is seen as one in a
    /// recycled file, and then up to a page.
    pub(super) fn padding(&self, end: u64) -> u64 {
        ((end + SECTOR).next_multiple_of(PAGE)).min(self.len.max(end)) - end
    }
}

/// The directory of the log: names, creation, recycling.
pub(super) struct Files {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    /// The usual length of a segment.
    pub(super) segment_bytes: u64,
    pub(super) spares: Vec<PathBuf>,
}

impl Files {
    pub(super) fn path(&self, id: u64) -> PathBuf {
        segment_path(&self.dir, id)
    }

    /// The length of a new segment of the `usual` one, or of at least `bytes`.
    fn len_for(usual: u64, bytes: u64) -> u64 {
        usual.max(HEADER_BYTES + bytes + SECTOR).next_multiple_of(PAGE)
    }

    /// What [`Files::create`] would take from the disk.
    pub(super) fn growth(&self, bytes: u64) -> u64 {
        let len = Self::len_for(self.segment_bytes, bytes);
        if len == self.segment_bytes && !self.spares.is_empty() { 0 } else { len }
    }

    /// A new segment of the `usual` length, or of at least `bytes`; it has its name only once its header is safe.
    pub(super) fn create(
        &mut self,
        header: &SegmentHeader,
        usual: u64,
        bytes: u64,
    ) -> io::Result<Segment> {
        let len = Self::len_for(usual, bytes);
        let recycled = if len == self.segment_bytes { self.spares.pop() } else { None };
        let (path, fresh) = match recycled {
            Some(path) => (path, false),
            None => (self.dir.join("new.tmp"), true),
        };
        let made = self.make(header, &path, fresh, len);
        match &made {
            Err(_) if fresh => {
                // What it got of a full disk is given back; the next start would remove it too.
                let _ = self.disk.remove(&path);
            }
            Err(_) => self.spares.push(path),
            Ok(_) => {}
        }
        made
    }

    fn make(
        &self,
        header: &SegmentHeader,
        path: &Path,
        fresh: bool,
        len: u64,
    ) -> io::Result<Segment> {
        let file = if fresh { self.disk.create(path)? } else { self.disk.open(path)? };
        let len = if fresh { len } else { file.len()? };
        if fresh {
            file.reserve(len)?;
        }
        let mut segment = Segment {
            id: header.id,
            salt: header.salt,
            file,
            end: HEADER_BYTES,
            len,
            zeroed: if fresh { 0 } else { len },
            highest: FxHashMap::default(),
        };
        let mut first = header.encode();
        first.resize((HEADER_BYTES + segment.padding(HEADER_BYTES)) as usize, 0);
        segment.file.write_at(0, &first)?;
        segment.zeroed = segment.zeroed.max(first.len() as u64);
        segment.file.sync_data()?;
        self.disk.rename(path, &self.path(header.id))?;
        self.disk.sync_dir(&self.dir)?;
        Ok(segment)
    }

    /// Takes away a segment that is not needed: kept for later when it is a usual one.
    pub(super) fn retire(&mut self, id: u64, len: u64) -> io::Result<()> {
        let path = self.path(id);
        if len == self.segment_bytes && self.spares.len() < SPARES {
            let spare = self.dir.join(format!("{id:016x}.spare"));
            match self.disk.rename(&path, &spare) {
                Ok(()) => self.spares.push(spare),
                Err(_) => self.disk.remove(&path)?,
            }
        } else {
            self.disk.remove(&path)?;
        }
        // In order, each before the next, so that a crash leaves no gap in the middle.
        self.disk.sync_dir(&self.dir)
    }
}

pub(super) fn segment_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016x}.log"))
}

/// The id in a segment's name.
pub(super) fn segment_id(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}
