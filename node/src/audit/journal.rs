//! The file of the audit log: one JSON object per line, each with the hash of the line before.
//!
//! A full file is renamed to `FILE.NUMBER`, where the number is that of its first record, and another
//! one is begun, whose first line has the hash of the last line of the former. A write that fails leaves
//! nothing behind: what was written of it is cut off before anything else is written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use api::audit::Entry;
use fleet::registry::Timestamp;
use rustix::fs::{Access, FlockOperation, access, flock};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::macros::format_description;
use tracing::{error, info, warn};

use crate::config::{Audit as Config, Findings};

/// The version of the format.
pub(super) const FORMAT: u8 = 1;
/// What the first record has instead of a hash.
pub(super) const NOTHING: [u8; 32] = [0; 32];
/// How much is read back when the log is opened.
const LONGEST: u64 = 16 << 20;
/// The longest line that is written: the last whole one is found whatever was begun after it. Only what has
/// changed can make a line so long, and is left out of such a one.
pub(super) const LONGEST_LINE: usize = LONGEST as usize / 2;

/// What every line has besides what is recorded.
#[derive(Serialize)]
struct Line<'a> {
    v: u8,
    seq: u64,
    previous: String,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<u64>,
    #[serde(flatten)]
    entry: &'a Entry,
    /// How many changes are not in it, where they would make it too long.
    #[serde(skip_serializing_if = "Option::is_none")]
    changes_left_out: Option<usize>,
}

/// What is read back of a line.
#[derive(Deserialize)]
pub(super) struct Head {
    /// [`FORMAT`].
    pub(super) v: u8,
    /// Its number; the first is 1.
    pub(super) seq: u64,
    /// The SHA-256 of the line before, in hex.
    pub(super) previous: String,
}

/// The hash of a line, without its end.
pub(super) fn hash(line: &[u8]) -> [u8; 32] {
    Sha256::digest(line).into()
}

/// The log, open for appending.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    max_bytes: u64,
    keep: u32,
    node: Option<u64>,
    file: File,
    /// Bytes of it that are whole records.
    bytes: u64,
    /// Whether there may be more than that.
    is_dirty: bool,
    /// The number of its first record.
    first: u64,
    last: u64,
    hash: [u8; 32],
}

impl Journal {
    /// Opens the file of a configuration, or begins it; gives the bytes of an unfinished record that
    /// were cut off.
    pub fn open(config: &Config, node: Option<u64>) -> anyhow::Result<(Self, u64)> {
        let path = config.file.clone().context("no file is named")?;
        let mut file = open(&path)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!("another process writes it");
        }
        let length = file.metadata()?.len();
        let (bytes, line) = last_line(&mut file, length)?;
        if bytes < length {
            file.set_len(bytes).context("cannot cut off its unfinished end")?;
        }
        let (first, last, hash) = match line {
            Some(line) => (first_of(&file)?.context("it is empty")?, read(&line)?.seq, hash(&line)),
            None => {
                let (last, hash) = last_of_full(&path)?;
                (last + 1, last, hash)
            }
        };
        let Config { max_bytes, keep, .. } = *config;
        let is_dirty = false;
        let journal =
            Self { path, max_bytes, keep, node, file, bytes, is_dirty, first, last, hash };
        Ok((journal, length - bytes))
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.path
    }

    /// The number of the last record.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Appends records and flushes them: all, or none.
    pub fn append(&mut self, entries: &[&Entry]) -> io::Result<()> {
        let mut buffer = Vec::new();
        let (mut last, mut hash) = (self.last, self.hash);
        for entry in entries {
            last += 1;
            let start = buffer.len();
            let (node, time) = (self.node, written(entry.at));
            let (previous, changes_left_out) = (hex::encode(hash), None);
            let line = Line { v: FORMAT, seq: last, previous, time, node, entry, changes_left_out };
            serde_json::to_writer(&mut buffer, &line)?;
            if buffer.len() - start >= LONGEST_LINE {
                let (bytes, request) = (buffer.len() - start, &entry.request);
                warn!(
                    request,
                    bytes, "a record of the audit log is too long: its changes are left out"
                );
                buffer.truncate(start);
                let short = entry.without_changes();
                let changes_left_out = Some(entry.changes.len());
                serde_json::to_writer(
                    &mut buffer,
                    &Line { entry: &short, changes_left_out, ..line },
                )?;
            }
            hash = self::hash(&buffer[start..]);
            buffer.push(b'\n');
        }
        if self.is_dirty {
            // A shorter one was shortened by somebody: it would be made longer here.
            if self.file.metadata()?.len() > self.bytes {
                self.file.set_len(self.bytes)?;
            }
            self.is_dirty = false;
        }
        if !is_present(&self.path, &self.file)? {
            self.begin_anew()?;
        } else if self.file.metadata()?.len() != self.bytes {
            let file = self.path.display().to_string();
            error!(
                file,
                "somebody else has written into the audit log or shortened it: it stays as it is, and \
                another file is begun; `skein audit verify` says what is missing"
            );
            self.rotate()?;
        }
        if self.bytes > 0 && self.bytes + buffer.len() as u64 > self.max_bytes {
            self.rotate()?;
        }
        self.is_dirty = true;
        self.file.write_all(&buffer)?;
        self.file.sync_data()?;
        self.is_dirty = false;
        self.bytes += buffer.len() as u64;
        (self.last, self.hash) = (last, hash);
        Ok(())
    }

    /// As after a write that has failed.
    #[cfg(test)]
    pub(super) fn fail(&mut self) {
        self.is_dirty = true;
    }

    /// Begins another file because somebody has moved the present one away, or deleted it.
    fn begin_anew(&mut self) -> io::Result<()> {
        let file = open_locked(&self.path)?;
        if file.metadata()?.len() > 0 {
            return Err(io::Error::other("another file was put into its place: move it away"));
        }
        let file_name = self.path.display().to_string();
        warn!(file = file_name, "the audit log was moved away: another file is begun");
        self.file = file;
        (self.bytes, self.first) = (0, self.last + 1);
        Ok(())
    }

    /// Begins another file: the present one is full, or somebody has spoilt it.
    fn rotate(&mut self) -> io::Result<()> {
        let full = numbered(&self.path, self.first);
        fs::rename(&self.path, &full)?;
        match open_locked(&self.path) {
            Ok(file) => self.file = file,
            Err(error) => {
                // Else the next start would find two files that go on from the same record.
                fs::rename(&full, &self.path)?;
                return Err(error);
            }
        }
        (self.bytes, self.first) = (0, self.last + 1);
        info!(file = %full.display(), "another file of the audit log is begun");
        if self.keep > 0 {
            let all = rotated(&self.path)?;
            for (_, old) in &all[..all.len().saturating_sub(self.keep as usize)] {
                if let Err(error) = fs::remove_file(old) {
                    warn!(file = %old.display(), %error, "an old file of the audit log stays");
                }
            }
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).open(path)
}

fn open_locked(path: &Path) -> io::Result<File> {
    let file = open(path)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

/// Whether a file is still the one of that name.
pub(super) fn is_present(path: &Path, file: &File) -> io::Result<bool> {
    let here = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (here.dev(), here.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether records could be written there; nothing is changed.
pub fn check(config: &Config, found: &mut Findings) {
    let Some(path) = &config.file else { return };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let problem = if !folder.is_dir() {
        format!("the folder {} is not there", folder.display())
    } else if path.is_dir() {
        format!("{} is a folder, not a file", path.display())
    } else if let Err(error) = access(folder, Access::WRITE_OK | Access::EXEC_OK) {
        format!("cannot write into the folder {}: {error}", folder.display())
    } else {
        match OpenOptions::new().append(true).open(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                format!("cannot write {}: {error}", path.display())
            }
            _ => return,
        }
    };
    found.problem("audit.file", problem);
}

/// The name of a full file.
pub(super) fn numbered(path: &Path, first: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{first:020}"));
    name.into()
}

/// The full files of a log with the numbers of their first records, in order.
pub(super) fn rotated(path: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let other = entry.file_name();
        let number = other.to_str().and_then(|it| it.strip_prefix(name)?.strip_prefix('.'));
        let number = number.filter(|it| it.len() == 20 && it.bytes().all(|it| it.is_ascii_digit()));
        if let Some(number) = number.and_then(|it| it.parse().ok()) {
            found.push((number, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// The number of the last record of the full files, and the hash of its line. Those that somebody has
/// emptied had at least one: its number is not given again.
fn last_of_full(path: &Path) -> anyhow::Result<(u64, [u8; 32])> {
    let mut emptied = 0;
    for (first, full) in rotated(path)?.into_iter().rev() {
        let mut file = File::open(&full)?;
        let length = file.metadata()?.len();
        let (_, line) = last_line(&mut file, length)?;
        let full = full.display();
        match line {
            Some(line) => {
                let last = read(&line).with_context(|| full.to_string())?.seq;
                return Ok((last.max(emptied), hash(&line)));
            }
            None => {
                warn!(file = %full, "a file of the audit log has no records: what it had is gone");
                emptied = emptied.max(first);
            }
        }
    }
    Ok((emptied, NOTHING))
}

/// The number of the first record of a file; none of one without records.
pub(super) fn first_of(mut file: &File) -> anyhow::Result<Option<u64>> {
    let mut line = Vec::new();
    file.rewind()?;
    BufReader::new(file.take(LONGEST)).read_until(b'\n', &mut line)?;
    file.rewind()?;
    match line.pop() {
        Some(b'\n') => Ok(Some(read(&line)?.seq)),
        _ => Ok(None),
    }
}

/// Where the last whole line of a file ends, and that line.
fn last_line(file: &mut File, length: u64) -> anyhow::Result<(u64, Option<Vec<u8>>)> {
    let from = length.saturating_sub(LONGEST);
    file.seek(SeekFrom::Start(from))?;
    let mut end = Vec::new();
    file.read_to_end(&mut end)?;
    let Some(newline) = end.iter().rposition(|byte| *byte == b'\n') else {
        if from > 0 {
            bail!("its end is no record of an audit log: move it away");
        }
        return Ok((0, None));
    };
    end.truncate(newline);
    let start = end.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    Ok((from + newline as u64 + 1, Some(end.split_off(start))))
}

/// Reads what the log itself needs of a line.
pub(super) fn read(line: &[u8]) -> anyhow::Result<Head> {
    let head: Head = serde_json::from_slice(line)
        .context("a line is no record of an audit log: move the file away")?;
    if head.v != FORMAT {
        bail!("a record has format {}, this version knows {FORMAT}", head.v);
    }
    Ok(head)
}

fn written(at: Timestamp) -> String {
    let nanos = i128::from(at.0) * 1_000_000;
    let shape =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok();
    time.and_then(|time| time.format(&shape).ok()).unwrap_or_else(|| at.0.to_string())
}
