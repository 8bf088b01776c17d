//! Log segments on disk, as far as damaging them needs: where batches stand.

use std::fs;
use std::path::{Path, PathBuf};

const SECTOR: usize = 512;
const HEADER_BYTES: usize = 40;

/// A batch of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Where it starts.
    pub at: usize,
    /// 1 data, 2 mark, 3 seal.
    pub kind: u8,
    /// Bytes with its header, without the padding behind.
    pub len: usize,
}

impl Batch {
    /// Where its last byte ends.
    pub fn end(&self) -> usize {
        self.at + self.len
    }

    /// Where the next batch starts.
    pub fn next(&self) -> usize {
        self.end().next_multiple_of(SECTOR)
    }
}

/// The segments in a directory, the oldest first.
pub fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let paths = entries.map(|entry| entry.expect("a directory can be listed").path());
    let mut paths: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|it| it == "log")).collect();
    paths.sort();
    paths
}

/// The batches of a segment, in order, marks and seals included.
pub fn batches(bytes: &[u8]) -> Vec<Batch> {
    let mut found = Vec::new();
    let mut at = SECTOR;
    while bytes.len() >= at + HEADER_BYTES && &bytes[at..at + 4] == b"SKB1" {
        let body = u32::from_le_bytes(bytes[at + 16..at + 20].try_into().expect("four bytes"));
        let batch = Batch { at, kind: bytes[at + 4], len: HEADER_BYTES + body as usize };
        found.push(batch);
        at = batch.next();
    }
    found
}
