//! Reads the log back: what was synced is found, what was not finished is dropped, and damage to
//! what was acknowledged is reported.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use tracing::{debug, error, warn};

use super::error::{AppendError, OpenError};
use super::format::{
    BATCH_HEADER, BatchHeader, BatchKind, HEADER_BYTES, Record, SECTOR, SegmentHeader, body_crc,
};
use super::index::Index;
use super::segment::{Files, Segment, damaged_path, segment_id, segment_path};
use super::{Damage, Found, Log, OnDamage, Options, batch_space};
use crate::dice::Dice;
use crate::disk::{Disk, is_damage, is_full};

/// A segment as it was read.
struct Read {
    header: SegmentHeader,
    segment: Segment,
    bytes: Bytes,
}

/// How reading a segment ended.
struct End {
    /// Where its last good batch ends.
    offset: u64,
    sealed: bool,
    /// What is wrong behind, if anything is.
    flaw: Option<Flaw>,
}

struct Flaw {
    what: String,
    /// Bytes of a batch that was never finished; `None` if it was acknowledged.
    torn: Option<u64>,
}

pub(super) fn open(disk: Arc<dyn Disk>, dir: &Path, options: &Options) -> Result<Log, OpenError> {
    let (mut log, highest) = read_all(disk, dir, options)?;
    start(&mut log, highest)?;
    Ok(log)
}

/// Gives the disk back what is kept for the log and holds nothing of it.
pub(super) fn give_back(
    disk: Arc<dyn Disk>,
    dir: &Path,
    options: &Options,
) -> Result<(), OpenError> {
    let (mut log, _) = read_all(disk, dir, options)?;
    for spare in std::mem::take(&mut log.files.spares) {
        log.files.disk.remove(&spare).map_err(failed("remove", &spare))?;
    }
    cut(&mut log)
}

/// The log as it was found, and the highest id of its segments.
fn read_all(disk: Arc<dyn Disk>, dir: &Path, options: &Options) -> Result<(Log, u64), OpenError> {
    disk.create_dir(dir).map_err(failed("create", dir))?;
    let mut log = Log {
        files: Files {
            disk,
            dir: dir.to_owned(),
            segment_bytes: options.segment_bytes,
            spares: Vec::new(),
        },
        segments: VecDeque::new(),
        index: Index::default(),
        dice: Dice::new(0),
        next: 1,
        written: 0,
        marked: false,
        failed: None,
        buffer: Vec::new(),
        found: Found { clean: true, ..Found::default() },
        damages: Vec::new(),
        useless: Vec::new(),
    };
    let ids = list(&mut log.files)?;
    let highest = ids.last().copied().unwrap_or(0);
    let seed = options.seed.unwrap_or_else(|| RandomState::new().hash_one(dir));
    // Ids only grow, so that even a given seed never yields a salt twice.
    log.dice = Dice::new(seed.wrapping_add(highest));
    let torn = read_segments(&mut log, &ids, options)?;
    if options.on_damage == OnDamage::Truncate {
        log.index.close_holes();
    }
    if let Some((group, from, to)) = log.index.hole() {
        match (options.on_damage, torn) {
            // Segments went after a batch that said they may: so it was synced, and not torn.
            (OnDamage::Leave { .. }, Some(damage)) => log.leave(damage),
            (_, Some(damage)) => return Err(corrupt(damage)),
            (OnDamage::Leave { .. }, None) => {}
            (_, None) => return Err(OpenError::Missing { dir: dir.to_owned(), group, from, to }),
        }
    }
    let is_gone = matches!(options.on_damage, OnDamage::Leave { begun: true }) && ids.is_empty();
    if is_gone || log.damages.is_empty() && log.index.hole().is_some() {
        let what = "a segment file is missing".into();
        log.damages.push(Damage { path: dir.to_owned(), offset: 0, what });
    }
    // One that begins behind nothing says so for as long as it is there.
    Ok((log, if is_gone { 1 } else { highest }))
}

fn corrupt(Damage { path, offset, what }: Damage) -> OpenError {
    OpenError::Corrupt { path, offset, what }
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> OpenError + 'a {
    move |source| OpenError::Io { action, path: path.to_owned(), source }
}

/// The ids of the segments; clears away what an interrupted start has left.
fn list(files: &mut Files) -> Result<Vec<u64>, OpenError> {
    let mut ids = Vec::new();
    for name in files.disk.list(&files.dir).map_err(failed("list", &files.dir))? {
        let path = files.dir.join(&name);
        if let Some(id) = segment_id(&name) {
            ids.push(id);
        } else if name.ends_with(".spare") && is_usual(files, &path) {
            files.spares.push(path);
        } else if name.ends_with(".spare") || name.ends_with(".tmp") {
            files.disk.remove(&path).map_err(failed("remove", &path))?;
        }
    }
    Ok(ids)
}

fn is_usual(files: &Files, path: &Path) -> bool {
    let len = files.disk.open(path).and_then(|file| file.len());
    len.is_ok_and(|len| len == files.segment_bytes)
}

/// Reads all segments in order; gives where an unfinished batch was dropped, and why.
fn read_segments(
    log: &mut Log,
    ids: &[u64],
    options: &Options,
) -> Result<Option<Damage>, OpenError> {
    let mut unfinished = None;
    let mut following = headers(log, ids, options)?.into_iter().peekable();
    while let Some((id, header)) = following.next() {
        let path = log.files.path(id);
        let header = match header {
            Ok(header) => header,
            Err(damage) => {
                log.found.clean = false;
                log.leave(damage);
                log.useless.extend(log.files.disk.open(&path).is_ok().then_some(id));
                continue;
            }
        };
        if leaves(options) && log.damages.is_empty() && header.begins_anew() {
            let what = "what stood before it was lost".into();
            log.leave(Damage { path: path.clone(), offset: 0, what });
        }
        let successor = following.peek().and_then(|(_, header)| header.as_ref().ok()).copied();
        let is_last = following.peek().is_none();
        if log.segments.is_empty() {
            log.next = header.first;
        }
        let mut read = match read(log, &path, header) {
            Err(OpenError::Io { source, .. }) if leaves(options) && is_damage(&source) => {
                log.found.clean = false;
                log.leave(Damage { path, offset: 0, what: source.to_string() });
                log.useless.push(id);
                continue;
            }
            read => read?,
        };
        let end = scan(log, &mut read, successor.as_ref())?;
        read.segment.end = end.offset;
        if is_last {
            log.found.clean = end.sealed;
        }
        let len = read.segment.len;
        log.segments.push_back(read.segment);
        match end.flaw {
            None => {}
            // What follows cannot be read, so that nothing of this one can be relied on either.
            Some(_) if !is_last && successor.is_none() => {}
            Some(Flaw { what, torn: Some(bytes) }) => {
                log.found.torn_bytes = bytes;
                warn!(
                    file = %path.display(), offset = end.offset, bytes, %what,
                    "the last batch of the log was never finished and is dropped"
                );
                unfinished = Some(Damage { path, offset: end.offset, what });
            }
            Some(Flaw { what, torn: None }) => {
                let damage = Damage { path, offset: end.offset, what };
                log.found.clean = false;
                match options.on_damage {
                    OnDamage::Refuse => return Err(corrupt(damage)),
                    OnDamage::Leave { .. } => log.leave(damage),
                    OnDamage::Truncate => {
                        let later: Vec<_> = following.map(|(id, _)| id).collect();
                        log.found.lost_bytes = len - end.offset + drop_segments(log, &later)?;
                        let Damage { path, offset, what } = damage;
                        error!(
                            file = %path.display(), offset, %what,
                            bytes = log.found.lost_bytes, segments = later.len(),
                            "acknowledged data is damaged; everything from there on is dropped as asked"
                        );
                        break;
                    }
                }
            }
        }
    }
    Ok(unfinished)
}

fn leaves(options: &Options) -> bool {
    matches!(options.on_damage, OnDamage::Leave { .. })
}

/// A segment's id, and what its header says or what is wrong with it.
type Headed = (u64, Result<SegmentHeader, Damage>);

/// Reads all headers first: each says where the segment before it ended. A segment that is missing
/// in between is a damaged one where damage is left.
fn headers(log: &mut Log, ids: &[u64], options: &Options) -> Result<Vec<Headed>, OpenError> {
    let mut headers: Vec<Headed> = Vec::with_capacity(ids.len());
    for (at, &id) in ids.iter().enumerate() {
        let path = log.files.path(id);
        let file = log.files.disk.open(&path).map_err(failed("open", &path))?;
        let mut sector = [0; HEADER_BYTES as usize];
        let header = match file.read_at(0, &mut sector) {
            Ok(read) => SegmentHeader::decode(&sector[..read]),
            Err(error) if leaves(options) && is_damage(&error) => Err(error.to_string()),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        let header = match header {
            Ok(header) if header.id != id => Err(format!("this is segment {}", header.id)),
            header => header,
        };
        let before = headers.last().map(|(id, _)| *id);
        let gap = |header: &SegmentHeader| before.is_some_and(|it| it != header.previous);
        let missing = header.as_ref().ok().filter(|header| gap(header)).map(|it| it.previous);
        let header = match (header, missing) {
            (Ok(header), Some(previous)) if leaves(options) => {
                let (path, what) = (log.files.path(previous), "the file is missing".into());
                headers.push((previous, Err(Damage { path, offset: 0, what })));
                Ok(header)
            }
            (Ok(_), Some(previous)) => Err(format!("segment {previous} before it is missing")),
            (header, _) => header,
        };
        match (header, options.on_damage) {
            (Ok(header), _) => headers.push((id, Ok(header))),
            (Err(what), OnDamage::Refuse) => {
                return Err(corrupt(Damage { path, offset: 0, what }));
            }
            (Err(what), OnDamage::Leave { .. }) => {
                headers.push((id, Err(Damage { path, offset: 0, what })));
            }
            (Err(what), OnDamage::Truncate) => {
                log.found.lost_bytes += drop_segments(log, &ids[at..])?;
                error!(file = %path.display(), %what, "log segments are dropped as asked");
                break;
            }
        }
    }
    Ok(headers)
}

/// Takes segments out of the log, the newest first, so that a crash on the way leaves one without a gap.
/// They stay under other names: somebody may want to look at what is in them.
fn drop_segments(log: &mut Log, ids: &[u64]) -> Result<u64, OpenError> {
    let mut bytes = 0;
    for &id in ids.iter().rev() {
        let path = log.files.path(id);
        let len = log.files.disk.open(&path).and_then(|file| file.len());
        bytes += len.map_err(failed("open", &path))?;
        let aside = damaged_path(&log.files.dir, id);
        log.files.disk.rename(&path, &aside).map_err(failed("rename", &path))?;
        log.files.disk.sync_dir(&log.files.dir).map_err(failed("sync", &log.files.dir))?;
    }
    Ok(bytes)
}

fn read(log: &Log, path: &Path, header: SegmentHeader) -> Result<Read, OpenError> {
    let file = log.files.disk.open(path).map_err(failed("open", path))?;
    let len = file.len().map_err(failed("read", path))?;
    let mut bytes = vec![0; len as usize];
    let read = file.read_at(0, &mut bytes).map_err(failed("read", path))?;
    bytes.truncate(read);
    let segment = Segment {
        id: header.id,
        salt: header.salt,
        first: header.first,
        file,
        end: HEADER_BYTES,
        len,
        zeroed: len,
        highest: FxHashMap::default(),
    };
    Ok(Read { header, segment, bytes: bytes.into() })
}

/// Takes in a segment's batches in order, and judges what ends them.
fn scan(
    log: &mut Log,
    read: &mut Read,
    successor: Option<&SegmentHeader>,
) -> Result<End, OpenError> {
    let salt = read.header.salt;
    let mut at = HEADER_BYTES;
    if read.header.first != log.next {
        let what = format!("it starts at batch {} instead of {}", read.header.first, log.next);
        return Ok(End { offset: at, sealed: false, flaw: Some(Flaw { what, torn: None }) });
    }
    loop {
        if successor.is_some_and(|successor| successor.previous_end == at) {
            return Ok(End { offset: at, sealed: false, flaw: None });
        }
        let rest = read.bytes.slice((at as usize).min(read.bytes.len())..);
        let header = BatchHeader::decode(&rest, salt).filter(|header| header.sequence == log.next);
        let bad = match header {
            Some(BatchHeader { kind: BatchKind::Mark | BatchKind::Seal, .. })
                if successor.is_some() =>
            {
                Bad { what: "the segment ends too early".into(), whole: true }
            }
            Some(BatchHeader { kind: BatchKind::Mark, .. }) => {
                return Ok(End { offset: at, sealed: false, flaw: None });
            }
            Some(BatchHeader { kind: BatchKind::Seal, .. }) => {
                return Ok(End { offset: at, sealed: true, flaw: None });
            }
            Some(BatchHeader { kind: BatchKind::Continued, .. }) => {
                Bad { what: "the segment that follows is missing".into(), whole: true }
            }
            Some(header) => match take_batch(log, read, &header, &rest, at) {
                Ok(()) => {
                    log.next += 1;
                    at += header.len().next_multiple_of(SECTOR);
                    continue;
                }
                Err(bad) => bad,
            },
            None => Bad { what: "no valid batch stands here".into(), whole: false },
        };
        return Ok(judge(log, read, at, header, successor, bad));
    }
}

/// Why a batch was not taken in.
struct Bad {
    what: String,
    /// All its bytes are there, so it was not torn.
    whole: bool,
}

fn take_batch(
    log: &mut Log,
    read: &mut Read,
    header: &BatchHeader,
    rest: &Bytes,
    at: u64,
) -> Result<(), Bad> {
    let torn = |what: &str| Bad { what: what.into(), whole: false };
    if (rest.len() as u64) < header.len() {
        return Err(torn("the batch is longer than the file"));
    }
    let mut body = rest.slice(BATCH_HEADER..header.len() as usize);
    if body_crc(read.header.salt, &body) != header.body_crc {
        return Err(torn("the checksum of the batch is wrong"));
    }
    let whole = |what| Bad { what, whole: true };
    let mut records = Vec::with_capacity(header.count as usize);
    let mut offset = at + BATCH_HEADER as u64;
    for _ in 0..header.count {
        let (group, record, len) =
            Record::decode(&body, read.header.salt, offset).map_err(whole)?;
        records.push((group, record, offset));
        body = body.slice(len..);
        offset += len as u64;
    }
    if !body.is_empty() {
        return Err(whole("the batch holds more than its records".into()));
    }
    for (group, record, offset) in records {
        read.segment.note(group, &record);
        log.index.take(group, record, read.header.id, offset as u32, false).map_err(whole)?;
    }
    Ok(())
}

/// The batch at `at` is no good. Only the very last one of the log may be unfinished; anything
/// valid behind it proves that it was synced once.
fn judge(
    log: &Log,
    read: &Read,
    at: u64,
    header: Option<BatchHeader>,
    successor: Option<&SegmentHeader>,
    bad: Bad,
) -> End {
    let Bad { what, whole } = bad;
    let acknowledged = |what| Flaw { what, torn: None };
    let rest = &read.bytes[(at as usize).min(read.bytes.len())..];
    let flaw = if let Some(successor) = successor {
        let end = successor.previous_end;
        Some(acknowledged(format!("{what}, and the segment's batches end at {end}")))
    } else if let Some(later) = later_batch(rest, read.header.salt, log.next) {
        let offset = at + later;
        Some(acknowledged(format!("{what}, and a later batch stands at offset {offset}")))
    } else if whole {
        Some(acknowledged(what))
    } else if rest.iter().take(SECTOR as usize).all(|&byte| byte == 0) {
        None
    } else {
        let torn = header.map_or(SECTOR, |header| header.len().min(rest.len() as u64));
        Some(Flaw { what, torn: Some(torn) })
    };
    debug!(segment = read.header.id, at, flawed = flaw.is_some(), "end of the log");
    End { offset: at, sealed: false, flaw }
}

/// Where behind the front of `bytes` a batch stands that was written after batch `sequence`.
fn later_batch(bytes: &[u8], salt: u64, sequence: u64) -> Option<u64> {
    (SECTOR as usize..bytes.len()).step_by(SECTOR as usize).find_map(|at| {
        let header = BatchHeader::decode(&bytes[at..], salt)?;
        (header.sequence > sequence).then_some(at as u64)
    })
}

/// Cuts the last segment behind its end. A sector stays, for what will say that another segment follows;
/// until then it has the seal of an orderly stop, which the next start is to find if this one fails.
fn cut(log: &mut Log) -> Result<(), OpenError> {
    let Some(last) = log.segments.back_mut() else { return Ok(()) };
    let path = segment_path(&log.files.dir, last.id);
    last.len = (last.end + batch_space(0)).min(last.len);
    last.file.cut(last.len).map_err(failed("truncate", &path))?;
    if !log.found.clean {
        let rest = vec![0; last.len.saturating_sub(last.end) as usize];
        last.file.write_at(last.end, &rest).map_err(failed("write", &path))?;
    }
    last.file.sync_data().map_err(failed("sync", &path))
}

/// Cuts the last segment and starts the next, so that nothing is ever appended behind remains of an
/// earlier life.
fn start(log: &mut Log, highest: u64) -> Result<(), OpenError> {
    cut(log)?;
    // With nothing that can be relied on before it, it ends nowhere.
    let end = log.segments.back().map(|last| (last.id, last.end));
    let (previous, previous_end) = end.unwrap_or((highest, 0));
    let places = Record::Checkpoint(log.index.places());
    let header = SegmentHeader {
        id: highest + 1,
        salt: log.dice.bits(),
        previous,
        previous_end,
        first: log.next,
    };
    let path: PathBuf = log.files.path(header.id);
    let space = batch_space(places.len());
    // A full disk has room for little more than was cut off: the node must be able to start on it to
    // say so, and to give back what it can.
    let mut usual = log.files.segment_bytes;
    let started = loop {
        match log.start_segment(&header, usual, space, places.clone()) {
            Err(AppendError::Full(_)) if usual > space => usual /= 2,
            started => break started,
        }
    };
    match started {
        Ok(()) => {}
        Err(AppendError::Full(source)) => return Err(failed("write", &path)(source)),
        Err(AppendError::Failed(why)) => return Err(failed("write", &path)(io::Error::other(why))),
    }
    if let Err(error) = log.note_successor()
        && !is_full(&error)
    {
        return Err(failed("write", &path)(error));
    }
    // The one that says that nothing stood before it is kept until what is lost is known elsewhere.
    if log.damages.is_empty() {
        log.release();
    }
    Ok(())
}
