//! The store on sled 0.34, contained: versioned and checksummed values, panics caught, a real sync
//! behind each flush.
//!
//! What cannot be read makes way for a new store in the same place, beside which it stays.
//!
//! sled's own flush uses `sync_file_range`, which tells a disk's write cache nothing, and leaves
//! its blob files unsynced; [`Store::flush`] here adds both. One tree holds one group: key `00` its
//! applied index, count and digest, keys `01…` its pairs.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use tracing::{debug, warn};

use super::{Applied, Changes, Store, StoreError, Sum, Visit, last_of_each, pair_crc};
use crate::disk::{is_damage, is_full};
use crate::log::Group;

const VERSION: u8 = 1;
const STATUS_KEY: &[u8] = &[0];
const PAIR: u8 = 1;
const FRAME: usize = 5;

/// A store in a directory of sled files.
pub struct SledStore {
    path: PathBuf,
    cache_bytes: u64,
    /// `None` after a failure, until it is opened again.
    db: Option<sled::Db>,
    /// The newest blob file that is known to be synced; their names only grow.
    synced_blob: Option<i64>,
}

/// A group's first pair: up to where the others hold, and what they amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Status {
    applied: Applied,
    sum: Sum,
}

impl Status {
    fn encode(&self) -> Vec<u8> {
        let numbers = [self.applied.index, self.applied.term, self.sum.pairs, self.sum.digest];
        frame(STATUS_KEY, &numbers.map(u64::to_le_bytes).concat())
    }

    fn decode(framed: &[u8]) -> Result<Self, String> {
        let bytes = unframe(STATUS_KEY, framed)?;
        if bytes.len() != 32 {
            return Err(format!("its status has {} bytes", bytes.len()));
        }
        let number = |at: usize| {
            u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes are eight bytes"))
        };
        Ok(Self {
            applied: Applied { index: number(0), term: number(8) },
            sum: Sum { pairs: number(16), digest: number(24) },
        })
    }
}

fn frame(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(FRAME + value.len());
    framed.push(VERSION);
    framed.extend_from_slice(&pair_crc(key, value).to_le_bytes());
    framed.extend_from_slice(value);
    framed
}

fn unframe<'a>(key: &[u8], framed: &'a [u8]) -> Result<&'a [u8], String> {
    let name = || key.escape_ascii();
    match framed {
        [VERSION, a, b, c, d, value @ ..] => {
            if pair_crc(key, value) != u32::from_le_bytes([*a, *b, *c, *d]) {
                return Err(format!("the checksum of key \"{}\" is wrong", name()));
            }
            Ok(value)
        }
        [version, ..] => Err(format!("key \"{}\" has the unknown version {version}", name())),
        [] => Err(format!("key \"{}\" has no value", name())),
    }
}

/// How long sled's own threads may keep the lock of a store that was closed: the data folder's lock says that
/// no other process has it.
const RELEASED_WITHIN: Duration = Duration::from_secs(5);
/// How often that is looked at.
const LOOKS: Duration = Duration::from_millis(10);

/// Whether somebody has the lock of a store. sled has no other word for it than the text.
fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(error) if error.to_string().starts_with("could not acquire lock"))
}

impl SledStore {
    /// Opens the store in a directory, or starts one; sled may cache about `cache_bytes`.
    pub fn open(path: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        let new = new_of(path);
        let finished = match path.exists() {
            // One that was being made, and may not be whole.
            true => remove_if_there(&new),
            // A crash came between the two steps of a swap.
            false if new.exists() => take_place(&new, path),
            false => Ok(()),
        };
        finished.map_err(|error| StoreError::Failed {
            path: path.to_owned(),
            action: "finish to begin anew",
            reason: error.to_string(),
        })?;
        let mut store = Self { path: path.to_owned(), cache_bytes, db: None, synced_blob: None };
        store.db()?;
        Ok(store)
    }

    fn db(&mut self) -> Result<&sled::Db, StoreError> {
        if self.db.is_none() {
            let mut opened = self.open_db();
            if let Err((Failure { reason, .. }, true)) = &opened {
                // Its snapshots only spare sled a scan. That the result is whole, we check.
                if self.remove_snapshots("") > 0 {
                    warn!(path = %self.path.display(), %reason, "sled is opened without snapshots");
                    opened = self.open_db();
                }
            }
            let path = self.path.clone();
            let opened = opened.map_err(|(failure, _)| match failure {
                Failure { full: true, reason, .. } => {
                    StoreError::Full { path, action: "open", reason }
                }
                Failure { reason, damaged, .. } => StoreError::Open { path, reason, damaged },
            });
            self.db = Some(opened?);
        }
        Ok(self.db.as_ref().expect("it was just opened"))
    }

    /// Puts a store that does not open aside, and begins one without anything.
    pub fn replace_unreadable(path: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        let failed = |error: io::Error| StoreError::Failed {
            path: path.to_owned(),
            action: "set aside what is damaged",
            reason: error.to_string(),
        };
        // What was cut off earlier must not be taken for a whole one.
        remove_if_there(&new_of(path)).map_err(failed)?;
        set_aside(path).map_err(failed)?;
        Self::open(path, cache_bytes)
    }

    /// The error says why, and whether something is damaged.
    fn open_db(&self) -> Result<sled::Db, (Failure, bool)> {
        let config = sled::Config::new()
            .path(&self.path)
            .cache_capacity(self.cache_bytes)
            .flush_every_ms(None);
        let mut damaged = true;
        let begun = Instant::now();
        let opened = caught(|| {
            loop {
                self.remove_snapshots(".generating");
                let opened = config.open();
                damaged = !matches!(opened, Err(sled::Error::Io(_)));
                match opened {
                    Err(error) if is_locked(&error) && begun.elapsed() < RELEASED_WITHIN => {
                        debug!(path = %self.path.display(), "sled has not let go of the store yet");
                        thread::sleep(LOOKS);
                    }
                    opened => return opened,
                }
            }
        });
        opened.map_err(|failure| (failure, damaged))
    }

    /// Removes sled's snapshot files whose names end so. A crash or a full disk can leave an
    /// unfinished one behind, named `….generating`, which sled then takes for a damaged one.
    fn remove_snapshots(&self, suffix: &str) -> usize {
        let Ok(entries) = fs::read_dir(&self.path) else { return 0 };
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        let snapshots = names.filter(|name| name.starts_with("snap.") && name.ends_with(suffix));
        snapshots.filter(|name| fs::remove_file(self.path.join(name)).is_ok()).count()
    }

    /// Runs an operation on a group's tree; after a failure sled is opened afresh the next time.
    fn with<T>(
        &mut self,
        group: Group,
        action: &'static str,
        act: impl FnOnce(&sled::Tree) -> sled::Result<T>,
    ) -> Result<T, StoreError> {
        let db = self.db()?;
        let result = caught(|| act(&db.open_tree(format!("group-{group}"))?));
        result.map_err(|failure| self.failed(action, failure))
    }

    fn failed(&mut self, action: &'static str, failure: Failure) -> StoreError {
        let broken = self.db.take();
        // Dropping flushes, which may fail or panic once more.
        let _ = caught(|| {
            drop(broken);
            Ok(())
        });
        let (path, Failure { reason, full, .. }) = (self.path.clone(), failure);
        if full {
            StoreError::Full { path, action, reason }
        } else {
            StoreError::Failed { path, action, reason }
        }
    }

    /// What was to be read is damaged, unless something else is in the way.
    fn unread(&mut self, group: Group, failure: Failure) -> StoreError {
        let damaged = failure.damaged.then(|| failure.reason.clone());
        let failed = self.failed("read", failure);
        match damaged {
            Some(what) => self.damaged(group, what),
            None => failed,
        }
    }

    fn damaged(&self, group: Group, what: String) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), group, what }
    }

    fn status(&mut self, group: Group) -> Result<Option<Status>, StoreError> {
        let Some(framed) = self.with(group, "read", |tree| tree.get(STATUS_KEY))? else {
            return Ok(None);
        };
        Status::decode(&framed).map(Some).map_err(|what| self.damaged(group, what))
    }

    /// Syncs what sled wrote without telling the disk.
    fn sync_files(&mut self) -> io::Result<()> {
        let blobs = self.path.join("blobs");
        let mut newest = self.synced_blob;
        if blobs.exists() {
            for entry in fs::read_dir(&blobs)? {
                let entry = entry?;
                let id = entry.file_name().to_str().and_then(|name| name.parse::<i64>().ok());
                if id.is_some() && id <= self.synced_blob {
                    continue;
                }
                match File::open(entry.path()) {
                    Ok(file) => file.sync_all()?,
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
                newest = newest.max(id);
            }
            File::open(&blobs)?.sync_all()?;
        }
        File::open(self.path.join("db"))?.sync_all()?;
        File::open(&self.path)?.sync_all()?;
        self.synced_blob = newest;
        Ok(())
    }
}

/// Runs something of sled's, which panics where others return errors.
fn caught<T>(act: impl FnOnce() -> sled::Result<T>) -> Result<T, Failure> {
    match catch_unwind(AssertUnwindSafe(act)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(error))) => Err(error.into()),
        // Not what is on the disk but what reads it may be to blame, on all nodes alike.
        Ok(Err(error @ (sled::Error::Unsupported(_) | sled::Error::ReportableBug(_)))) => {
            Err(Failure { damaged: false, ..Failure::told(error.to_string()) })
        }
        Ok(Err(error)) => Err(Failure::told(error.to_string())),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(Failure::told(format!("sled panicked: {}", text.unwrap_or("no reason given"))))
        }
    }
}

/// Why something of sled's did not work.
struct Failure {
    reason: String,
    /// Whether that is for lack of room.
    full: bool,
    /// Whether what is on the disk is to blame.
    damaged: bool,
}

impl Failure {
    /// Of a panic and of some errors there are only words, which quote the system's.
    fn told(reason: String) -> Self {
        let full = [Errno::NOSPC, Errno::DQUOT]
            .map(|errno| io::Error::from(errno).to_string())
            .iter()
            .any(|words| reason.contains(words.split(" (").next().unwrap_or(words)));
        Self { reason, full, damaged: !full }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let (full, damaged) = (is_full(&error), is_damage(&error));
        Self { reason: error.to_string(), full, damaged }
    }
}

/// Names that stand beside a store's.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Where a store is made that shall take another's place.
fn new_of(path: &Path) -> PathBuf {
    beside(path, ".new")
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    if path.exists() { fs::remove_dir_all(path) } else { Ok(()) }
}

/// Gives a store that is whole the name of one that was set aside.
fn take_place(new: &Path, path: &Path) -> io::Result<()> {
    fs::rename(new, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// Gives a store another name, that of no store which was set aside before.
fn set_aside(path: &Path) -> io::Result<()> {
    let numbered = (2..).map(|number| beside(path, &format!(".damaged.{number}")));
    let mut names = std::iter::once(beside(path, ".damaged")).chain(numbered);
    let aside = names.find(|name| !name.exists()).expect("there is always another number");
    fs::rename(path, &aside)?;
    warn!(path = %aside.display(), "the damaged state store is kept there");
    Ok(())
}

impl Store for SledStore {
    fn applied(&mut self, group: Group) -> Result<Applied, StoreError> {
        Ok(self.status(group)?.unwrap_or_default().applied)
    }

    fn load(&mut self, group: Group, visit: &mut Visit<'_>) -> Result<Applied, StoreError> {
        let db = self.db()?;
        let read = caught(|| {
            let tree = db.open_tree(format!("group-{group}"))?;
            Ok((tree.get(STATUS_KEY)?, tree.range([PAIR]..)))
        });
        let (status, iter) = read.map_err(|failure| self.unread(group, failure))?;
        let status = status.map(|framed| Status::decode(&framed)).transpose();
        let status = status.map_err(|what| self.damaged(group, what))?.unwrap_or_default();
        let mut sum = Sum::default();
        let mut iter = AssertUnwindSafe(iter);
        loop {
            let next = caught(|| iter.next().transpose());
            let Some((key, framed)) = next.map_err(|failure| self.unread(group, failure))? else {
                break;
            };
            let key = &key[1..];
            let value = unframe(key, &framed).map_err(|what| self.damaged(group, what))?;
            sum.add(key, value);
            visit(key, value).map_err(|reason| StoreError::Refused { group, reason })?;
        }
        if sum != status.sum {
            let (found, expected) = (sum.pairs, status.sum.pairs);
            let what = if found == expected {
                format!("its {found} pairs are not the ones that were stored")
            } else {
                format!("it has {found} pairs instead of {expected}")
            };
            return Err(self.damaged(group, what));
        }
        Ok(status.applied)
    }

    fn apply(
        &mut self,
        group: Group,
        from: u64,
        to: Applied,
        changes: Changes,
    ) -> Result<(), StoreError> {
        let status = self.status(group)?.unwrap_or_default();
        if ![from, to.index].contains(&status.applied.index) {
            let what = format!("it holds up to {} instead of {from}", status.applied.index);
            return Err(self.damaged(group, what));
        }
        let mut sum = status.sum;
        let mut batch = sled::Batch::default();
        let mut stored_key = vec![PAIR];
        for (key, value) in last_of_each(changes) {
            stored_key.truncate(1);
            stored_key.extend_from_slice(&key);
            if let Some(framed) = self.with(group, "read", |tree| tree.get(&stored_key))? {
                let old = unframe(&key, &framed).map_err(|what| self.damaged(group, what))?;
                sum.remove(&key, old);
            }
            match value {
                Some(value) => {
                    sum.add(&key, &value);
                    batch.insert(stored_key.as_slice(), frame(&key, &value));
                }
                None => batch.remove(stored_key.as_slice()),
            }
        }
        batch.insert(STATUS_KEY, Status { applied: to, sum }.encode());
        self.with(group, "write", |tree| tree.apply_batch(batch))
    }

    fn replace(
        &mut self,
        group: Group,
        to: Applied,
        pairs: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        let stored = self.with(group, "read", |tree| {
            tree.range([PAIR]..).keys().collect::<sled::Result<Vec<_>>>()
        });
        for key in stored? {
            batch.remove(key);
        }
        let mut sum = Sum::default();
        let mut stored_key = vec![PAIR];
        for (key, value) in pairs {
            stored_key.truncate(1);
            stored_key.extend_from_slice(key);
            sum.add(key, value);
            batch.insert(stored_key.as_slice(), frame(key, value));
        }
        batch.insert(STATUS_KEY, Status { applied: to, sum }.encode());
        self.with(group, "replace", |tree| tree.apply_batch(batch))
    }

    fn begin_anew(&mut self, keep: &[Group]) -> Result<(), StoreError> {
        let new = new_of(&self.path);
        let action = "begin anew";
        // Of a time before that was cut off.
        remove_if_there(&new).map_err(|error| self.failed(action, error.into()))?;
        let mut other = Self::open(&new, self.cache_bytes)?;
        for &group in keep {
            let mut pairs = Vec::new();
            let applied = self.load(group, &mut |key, value| {
                pairs.push((key.to_vec(), value.to_vec()));
                Ok(())
            })?;
            other.replace(group, applied, &pairs)?;
        }
        other.flush()?;
        drop(other);
        self.db = None;
        self.synced_blob = None;
        let swapped = set_aside(&self.path).and_then(|()| take_place(&new, &self.path));
        swapped.map_err(|error| self.failed(action, error.into()))?;
        self.db().map(drop)
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        let db = self.db()?;
        caught(|| db.flush()).map_err(|failure| self.failed("flush", failure))?;
        self.sync_files().map_err(|error| self.failed("sync", error.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(store: &mut SledStore, group: Group) -> Result<Vec<(String, String)>, StoreError> {
        let mut pairs = Vec::new();
        store.load(group, &mut |key, value| {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            pairs.push((text(key), text(value)));
            Ok(())
        })?;
        Ok(pairs)
    }

    fn changes(of: &[(&str, Option<&str>)]) -> Changes {
        let change = |(key, value): &(&str, Option<&str>)| {
            (key.as_bytes().to_vec(), value.map(|value| value.as_bytes().to_vec()))
        };
        of.iter().map(change).collect()
    }

    #[test]
    fn what_was_flushed_is_loaded_in_key_order() {
        let dir = tempfile::tempdir().unwrap();
        let at = |index| Applied { index, term: 2 };
        {
            let mut store = SledStore::open(dir.path(), 1 << 20).unwrap();
            let first = changes(&[("b", Some("2")), ("a", Some("1")), ("", Some("0"))]);
            store.apply(3, 0, at(10), first).unwrap();
            let second = changes(&[("b", None), ("c", Some("x")), ("c", Some("3"))]);
            store.apply(3, 10, at(20), second.clone()).unwrap();
            // Once more, as after a failure.
            store.apply(3, 10, at(20), second).unwrap();
            let gap = store.apply(3, 30, at(40), Changes::new()).unwrap_err();
            assert!(matches!(gap, StoreError::Damaged { group: 3, .. }), "{gap}");
            store.flush().unwrap();
        }
        let mut store = SledStore::open(dir.path(), 1 << 20).unwrap();
        assert_eq!(store.applied(3).unwrap(), at(20));
        assert_eq!(store.applied(4).unwrap(), Applied::default());
        let text = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let expected = [text("", "0"), text("a", "1"), text("c", "3")];
        assert_eq!(pairs(&mut store, 3).unwrap(), expected);
    }

    #[test]
    fn a_store_that_was_just_closed_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let store = SledStore::open(dir.path(), 1 << 20).unwrap();
        let held = store.db.clone();
        drop(store);
        thread::scope(|scope| {
            scope.spawn(move || {
                thread::sleep(LOOKS * 5);
                drop(held);
            });
            SledStore::open(dir.path(), 1 << 20).unwrap();
        });
    }

    #[test]
    fn replaced_pairs_are_gone_and_damage_among_them_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let at = |index| Applied { index, term: 2 };
        let mut store = SledStore::open(dir.path(), 1 << 20).unwrap();
        store.apply(3, 0, at(10), changes(&[("a", Some("1")), ("b", Some("2"))])).unwrap();
        store.with(3, "harm", |tree| tree.insert(b"\x01a", b"harm".to_vec())).unwrap();
        let pair = |key: &str, value: &str| (key.as_bytes().to_vec(), value.as_bytes().to_vec());
        store.replace(3, at(30), &[pair("b", "4"), pair("c", "5")]).unwrap();
        store.flush().unwrap();
        drop(store);
        let mut store = SledStore::open(dir.path(), 1 << 20).unwrap();
        assert_eq!(store.applied(3).unwrap(), at(30));
        let text = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(pairs(&mut store, 3).unwrap(), [text("b", "4"), text("c", "5")]);
    }

    #[test]
    fn a_changed_or_lost_pair_is_found_out() {
        type Harm = fn(&sled::Tree);
        let harms: [(Harm, &str); 4] = [
            (|tree| drop(tree.insert(b"\x01a", b"\x01....1".to_vec()).unwrap()), "key \"a\""),
            (|tree| drop(tree.insert(b"\x01a", b"\x07".to_vec()).unwrap()), "version 7"),
            (|tree| drop(tree.remove(b"\x01a").unwrap()), "1 pairs instead of 2"),
            (|tree| drop(tree.insert(b"\x01a", frame(b"a", b"old")).unwrap()), "not the ones"),
        ];
        for (harm, wanted) in harms {
            let dir = tempfile::tempdir().unwrap();
            let mut store = SledStore::open(dir.path(), 1 << 20).unwrap();
            let to = Applied { index: 1, term: 1 };
            store.apply(0, 0, to, changes(&[("a", Some("1")), ("b", Some("2"))])).unwrap();
            let harmed = store.with(0, "harm", |tree| {
                harm(tree);
                Ok(())
            });
            harmed.unwrap();
            let error = pairs(&mut store, 0).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn an_unfinished_or_damaged_snapshot_does_not_keep_it_from_opening() {
        for name in ["snap.0000000000000FFF.generating", "snap.0000000000000FFF"] {
            let dir = tempfile::tempdir().unwrap();
            let to = Applied { index: 1, term: 1 };
            {
                let mut store = SledStore::open(dir.path(), 1 << 20).unwrap();
                store.apply(0, 0, to, changes(&[("a", Some("1"))])).unwrap();
                store.flush().unwrap();
            }
            fs::write(dir.path().join(name), b"half").unwrap();
            let mut store = SledStore::open(dir.path(), 1 << 20).unwrap();
            assert_eq!(store.applied(0).unwrap(), to, "{name}");
            assert_eq!(pairs(&mut store, 0).unwrap().len(), 1, "{name}");
        }
    }

    #[test]
    fn a_damaged_file_is_an_error_or_an_older_state_and_never_a_panic() {
        let dir = tempfile::tempdir().unwrap();
        let big = "x".repeat(3000);
        {
            let mut store = SledStore::open(dir.path(), 1 << 20).unwrap();
            for index in 0..200 {
                let to = Applied { index: index + 1, term: 1 };
                let key = format!("key {index}");
                store.apply(0, index, to, changes(&[(&key, Some(&big))])).unwrap();
            }
            store.flush().unwrap();
        }
        let file = dir.path().join("db");
        let whole = fs::read(&file).unwrap();
        for at in (0..whole.len()).step_by(whole.len() / 40) {
            let mut bytes = whole.clone();
            bytes[at..].iter_mut().take(600).for_each(|byte| *byte ^= 0x55);
            fs::write(&file, &bytes).unwrap();
            let loaded = SledStore::open(dir.path(), 1 << 20)
                .and_then(|mut store| Ok((pairs(&mut store, 0)?.len(), store.applied(0)?)));
            // sled drops what it finds damaged and falls back to an older state, which the caller
            // tells from its log.
            if let Ok((pairs, applied)) = loaded {
                assert_eq!(pairs as u64, applied.index, "at {at}");
            }
        }
    }

    #[test]
    fn what_can_be_read_is_kept_when_a_store_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let at = |index| Applied { index, term: 2 };
        let mut store = SledStore::open(&path, 1 << 20).unwrap();
        for round in 1..=2 {
            for group in 3..6 {
                store.replace(group, at(10), &[(b"a".to_vec(), vec![round])]).unwrap();
            }
            store.with(4, "harm", |tree| tree.insert(b"\x01a", b"harm".to_vec())).unwrap();
            store.flush().unwrap();
            assert!(pairs(&mut store, 4).unwrap_err().is_damage());
            store.begin_anew(&[3, 5]).unwrap();
            for group in [3, 5] {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                let expected = [("a".to_owned(), text(&[round]))];
                assert_eq!(pairs(&mut store, group).unwrap(), expected, "group {group}");
                assert_eq!(store.applied(group).unwrap(), at(10));
            }
            assert_eq!(store.applied(4).unwrap(), Applied::default());
            // Each is kept.
            let aside =
                dir.path().join(["state.damaged", "state.damaged.2"][usize::from(round) - 1]);
            let mut aside = SledStore::open(&aside, 1 << 20).unwrap();
            assert!(pairs(&mut aside, 4).unwrap_err().is_damage());
        }
    }

    #[test]
    fn a_store_that_does_not_open_makes_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("conf"), "this is none of sled's").unwrap();
        assert!(SledStore::open(&path, 1 << 20).is_err_and(|error| error.is_damage()));
        let mut store = SledStore::replace_unreadable(&path, 1 << 20).unwrap();
        assert_eq!(store.applied(1).unwrap(), Applied::default());
        assert!(dir.path().join("state.damaged/conf").exists());
    }

    #[test]
    fn a_swap_that_a_crash_cut_off_is_finished_and_what_was_never_whole_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let (path, new) = (dir.path().join("state"), dir.path().join("state.new"));
        let at = Applied { index: 3, term: 1 };
        let begun = |path: &Path| {
            let mut store = SledStore::open(path, 1 << 20).unwrap();
            store.replace(1, at, &[(b"a".to_vec(), b"b".to_vec())]).unwrap();
            store.flush().unwrap();
        };
        begun(&new);
        let mut store = SledStore::open(&path, 1 << 20).unwrap();
        assert_eq!(store.applied(1).unwrap(), at);
        assert!(!new.exists());
        drop(store);

        begun(&new);
        drop(SledStore::open(&path, 1 << 20).unwrap());
        assert!(!new.exists());

        begun(&new);
        let mut store = SledStore::replace_unreadable(&path, 1 << 20).unwrap();
        assert_eq!(store.applied(1).unwrap(), Applied::default());
    }
}
