//! The bytes of a segment: header, batches, records.
//!
//! ```text
//! segment  one sector of header, then batches, each at a sector's start
//! header   "SKEINLOG" version:u32 id:u64 salt:u64 previous:u64 previous_end:u64 first:u64 crc:u32
//! batch    "SKB1" kind:u8 0:u8*3 sequence:u64 body_len:u32 count:u32 synced:u64 body_crc:u32 crc:u32
//! record   len:u32 crc:u32 kind:u8 version:u8 0:u16 group:u32 payload
//! ```
//!
//! Numbers are little-endian. Checksums of batches and records start from the segment's secret
//! salt, so neither what a recycled file held before nor a payload made to look like a batch is
//! ever taken for one.

use bytes::{BufMut, Bytes};

use super::{Entry, Group, HardState};

pub(super) const SECTOR: u64 = 512;
pub(super) const HEADER_BYTES: u64 = SECTOR;
pub(super) const BATCH_HEADER: usize = 40;
pub(super) const RECORD_HEADER: usize = 16;
const SEGMENT_MAGIC: &[u8; 8] = b"SKEINLOG";
const SEGMENT_HEADER: usize = 52;
const BATCH_MAGIC: &[u8; 4] = b"SKB1";
const FORMAT: u32 = 1;
const RECORD_VERSION: u8 = 1;

/// What the first sector of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) id: u64,
    pub(super) salt: u64,
    /// The segment before this one, 0 for none, and where its last batch ended.
    pub(super) previous: u64,
    pub(super) previous_end: u64,
    /// The sequence number of the first batch.
    pub(super) first: u64,
}

impl SegmentHeader {
    /// Whether there was something before it that could not be relied on.
    pub(super) fn begins_anew(&self) -> bool {
        self.previous != 0 && self.previous_end == 0
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES as usize);
        out.put_slice(SEGMENT_MAGIC);
        out.put_u32_le(FORMAT);
        for number in [self.id, self.salt, self.previous, self.previous_end, self.first] {
            out.put_u64_le(number);
        }
        out.put_u32_le(crc32c::crc32c(&out));
        out.resize(HEADER_BYTES as usize, 0);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() < SEGMENT_HEADER + 4 || &bytes[..8] != SEGMENT_MAGIC {
            return Err("this is not a log segment".into());
        }
        let crc = crc32c::crc32c(&bytes[..SEGMENT_HEADER]);
        if crc != u32_at(bytes, SEGMENT_HEADER) {
            return Err("the checksum of the segment's header is wrong".into());
        }
        let format = u32_at(bytes, 8);
        if format != FORMAT {
            return Err(format!("log format {format} is not known to this version"));
        }
        let [id, salt, previous, previous_end, first] =
            [12, 20, 28, 36, 44].map(|at| u64_at(bytes, at));
        Ok(Self { id, salt, previous, previous_end, first })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BatchKind {
    /// Records.
    Data,
    /// Everything before was synced; written when the log falls idle, overwritten by what follows.
    Mark,
    /// The log was closed in good order.
    Seal,
    /// The log goes on in the next segment.
    Continued,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchHeader {
    pub(super) kind: BatchKind,
    pub(super) sequence: u64,
    pub(super) body_len: u32,
    pub(super) count: u32,
    /// The last batch known to be synced when this one was written.
    pub(super) synced: u64,
    pub(super) body_crc: u32,
}

impl BatchHeader {
    pub(super) fn encode(&self, salt: u64) -> [u8; BATCH_HEADER] {
        let mut bytes = [0; BATCH_HEADER];
        let mut out = &mut bytes[..];
        out.put_slice(BATCH_MAGIC);
        let kind = match self.kind {
            BatchKind::Data => 1,
            BatchKind::Mark => 2,
            BatchKind::Seal => 3,
            BatchKind::Continued => 4,
        };
        out.put_u32_le(kind);
        out.put_u64_le(self.sequence);
        out.put_u32_le(self.body_len);
        out.put_u32_le(self.count);
        out.put_u64_le(self.synced);
        out.put_u32_le(self.body_crc);
        let crc = crc32c::crc32c_append(seed(salt, 0), &bytes[..BATCH_HEADER - 4]);
        bytes[BATCH_HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header at the front of `bytes`, if a valid one is there.
    pub(super) fn decode(bytes: &[u8], salt: u64) -> Option<Self> {
        if bytes.len() < BATCH_HEADER || &bytes[..4] != BATCH_MAGIC {
            return None;
        }
        let crc = crc32c::crc32c_append(seed(salt, 0), &bytes[..BATCH_HEADER - 4]);
        if crc != u32_at(bytes, BATCH_HEADER - 4) {
            return None;
        }
        let kind = match u32_at(bytes, 4) {
            1 => BatchKind::Data,
            2 => BatchKind::Mark,
            3 => BatchKind::Seal,
            4 => BatchKind::Continued,
            _ => return None,
        };
        Some(Self {
            kind,
            sequence: u64_at(bytes, 8),
            body_len: u32_at(bytes, 16),
            count: u32_at(bytes, 20),
            synced: u64_at(bytes, 24),
            body_crc: u32_at(bytes, 32),
        })
    }

    /// Bytes the batch takes, header included, without the rest of its last sector.
    pub(super) fn len(&self) -> u64 {
        BATCH_HEADER as u64 + u64::from(self.body_len)
    }
}

/// The checksum of a batch's body.
pub(super) fn body_crc(salt: u64, body: &[u8]) -> u32 {
    crc32c::crc32c_append(seed(salt, 1), body)
}

/// One group's place in the log, as each segment's first batch repeats it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) group: Group,
    pub(super) hard_state: HardState,
    /// Index and term of the last compacted entry.
    pub(super) compacted: (u64, u64),
    pub(super) last: u64,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Entry(Entry),
    HardState(HardState),
    Compact { index: u64, term: u64 },
    Checkpoint(Vec<Place>),
}

const ENTRY: u8 = 1;
const HARD_STATE: u8 = 2;
const COMPACT: u8 = 3;
const CHECKPOINT: u8 = 4;
const PLACE_BYTES: usize = 52;

impl Record {
    /// Bytes the record takes, header included.
    pub(super) fn len(&self) -> usize {
        RECORD_HEADER
            + match self {
                Self::Entry(entry) => 16 + entry.data.len(),
                Self::HardState(_) => 24,
                Self::Compact { .. } => 16,
                Self::Checkpoint(places) => places.len() * PLACE_BYTES,
            }
    }

    /// Appends the record; `offset` is where in the segment it will stand.
    pub(super) fn encode(&self, group: Group, salt: u64, offset: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_u32_le((self.len() - RECORD_HEADER) as u32);
        out.put_u32_le(0);
        let kind = match self {
            Self::Entry(_) => ENTRY,
            Self::HardState(_) => HARD_STATE,
            Self::Compact { .. } => COMPACT,
            Self::Checkpoint(_) => CHECKPOINT,
        };
        out.put_slice(&[kind, RECORD_VERSION, 0, 0]);
        out.put_u32_le(group);
        match self {
            Self::Entry(entry) => {
                out.put_u64_le(entry.index);
                out.put_u64_le(entry.term);
                out.put_slice(&entry.data);
            }
            Self::HardState(state) => put_hard_state(out, state),
            Self::Compact { index, term } => {
                out.put_u64_le(*index);
                out.put_u64_le(*term);
            }
            Self::Checkpoint(places) => {
                for place in places {
                    out.put_u32_le(place.group);
                    put_hard_state(out, &place.hard_state);
                    out.put_u64_le(place.compacted.0);
                    out.put_u64_le(place.compacted.1);
                    out.put_u64_le(place.last);
                }
            }
        }
        let crc = crc32c::crc32c_append(seed(salt, offset), &out[start + 8..]);
        out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    }

    /// The record that starts at the front of `bytes`, standing at `offset` in its segment, and
    /// how many bytes it takes.
    pub(super) fn decode(
        bytes: &Bytes,
        salt: u64,
        offset: u64,
    ) -> Result<(Group, Self, usize), String> {
        if bytes.len() < RECORD_HEADER {
            return Err("a record is cut off".into());
        }
        let len = RECORD_HEADER + u32_at(bytes, 0) as usize;
        if bytes.len() < len {
            return Err("a record is longer than its batch".into());
        }
        if crc32c::crc32c_append(seed(salt, offset), &bytes[8..len]) != u32_at(bytes, 4) {
            return Err("the checksum of a record is wrong".into());
        }
        let (kind, version, group) = (bytes[8], bytes[9], u32_at(bytes, 12));
        if version != RECORD_VERSION {
            return Err(format!("record version {version} is not known to this version"));
        }
        let payload = &bytes[RECORD_HEADER..len];
        let record = match (kind, payload.len()) {
            (ENTRY, 16..) => Self::Entry(Entry {
                index: u64_at(payload, 0),
                term: u64_at(payload, 8),
                data: bytes.slice(RECORD_HEADER + 16..len),
            }),
            (HARD_STATE, 24) => Self::HardState(hard_state_at(payload, 0)),
            (COMPACT, 16) => Self::Compact { index: u64_at(payload, 0), term: u64_at(payload, 8) },
            (CHECKPOINT, size) if size % PLACE_BYTES == 0 => {
                Self::Checkpoint(payload.chunks_exact(PLACE_BYTES).map(place).collect())
            }
            _ => return Err(format!("record kind {kind} of {} bytes is not known", payload.len())),
        };
        Ok((group, record, len))
    }
}

fn place(bytes: &[u8]) -> Place {
    Place {
        group: u32_at(bytes, 0),
        hard_state: hard_state_at(bytes, 4),
        compacted: (u64_at(bytes, 28), u64_at(bytes, 36)),
        last: u64_at(bytes, 44),
    }
}

fn put_hard_state(out: &mut Vec<u8>, state: &HardState) {
    for number in [state.term, state.vote, state.commit] {
        out.put_u64_le(number);
    }
}

fn hard_state_at(bytes: &[u8], at: usize) -> HardState {
    let [term, vote, commit] = [0, 8, 16].map(|field| u64_at(bytes, at + field));
    HardState { term, vote, commit }
}

/// Where a checksum starts: bound to the segment's life and to a place in it.
fn seed(salt: u64, place: u64) -> u32 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&salt.to_le_bytes());
    bytes[8..].copy_from_slice(&place.to_le_bytes());
    crc32c::crc32c(&bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes are four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes are eight bytes"))
}
