//! A disk in memory that behaves as badly as real ones do, from a seed.
//!
//! It remembers for every file what a sync has made safe and what was only written. [`SimDisk::crash`]
//! keeps of the unsynced writes a random part, sector by sector, and of the unsynced names a random
//! prefix. It can also be full, fail its syncs, and flip bits.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::io::Errno;

use crate::dice::Dice;
use crate::disk::{Disk, File};

/// What a device writes as a whole or not at all.
pub const SECTOR: usize = 512;

/// A simulated disk; clones share it.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

struct State {
    dice: Dice,
    names: BTreeMap<PathBuf, usize>,
    safe_names: BTreeMap<PathBuf, usize>,
    /// Changes of names since the last sync of the directory, oldest first.
    unsynced_names: Vec<Rename>,
    contents: Vec<Content>,
    capacity: u64,
    failing_syncs: bool,
    lying: bool,
    /// Files that cannot be read.
    unreadable: Vec<usize>,
    /// Writes to let through before one fails half way; `None` is never.
    failing_write: Option<u64>,
    /// Grows at a crash; handles of an older life are dead.
    life: u64,
    syncs: u64,
}

#[derive(Clone)]
enum Rename {
    Set(PathBuf, usize),
    Gone(PathBuf),
}

#[derive(Default)]
struct Content {
    now: Vec<u8>,
    safe: Vec<u8>,
    /// Ranges written since the last sync.
    dirty: Vec<(usize, usize)>,
}

impl State {
    fn used(&self) -> u64 {
        self.names.values().map(|&id| self.contents[id].now.len() as u64).sum()
    }
}

impl SimDisk {
    /// An empty disk without a limit.
    pub fn new(seed: u64) -> Self {
        let state = State {
            dice: Dice::new(seed),
            names: BTreeMap::new(),
            safe_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
            contents: Vec::new(),
            capacity: u64::MAX,
            failing_syncs: false,
            lying: false,
            unreadable: Vec::new(),
            failing_write: None,
            life: 0,
            syncs: 0,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The power fails: files opened before are dead, unsynced writes survive in part.
    pub fn crash(&self) {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.life += 1;
        state.failing_syncs = false;
        state.failing_write = None;
        let lied = std::mem::take(&mut state.lying);
        if lied {
            state.unsynced_names.clear();
            for content in &mut state.contents {
                content.now = content.safe.clone();
                content.dirty.clear();
            }
        }
        let kept = state.dice.below(state.unsynced_names.len() as u64 + 1) as usize;
        for change in state.unsynced_names.drain(..).take(kept) {
            match change {
                Rename::Set(path, id) => drop(state.safe_names.insert(path, id)),
                Rename::Gone(path) => drop(state.safe_names.remove(&path)),
            }
        }
        state.names = state.safe_names.clone();
        for content in &mut state.contents {
            content.lose_unsynced(&mut state.dice);
        }
    }

    /// The process is killed: the kernel keeps what was written, files opened before are dead.
    pub fn kill(&self) {
        self.lock().life += 1;
    }

    /// Limits the bytes all files together may hold.
    pub fn set_capacity(&self, bytes: u64) {
        self.lock().capacity = bytes;
    }

    /// Bytes all files hold.
    pub fn used_bytes(&self) -> u64 {
        self.lock().used()
    }

    /// Makes every sync fail until the next crash.
    pub fn fail_syncs(&self) {
        self.lock().failing_syncs = true;
    }

    /// From now on until the next crash syncs do nothing and say that they did; the crash then takes
    /// everything since. It shows that a test would find out.
    pub fn lie_about_syncs(&self) {
        self.lock().lying = true;
    }

    /// Makes one write fail for lack of room, after some have gone through: the half of it that
    /// was written stays. Copy-on-write file systems do that even inside a preallocated file.
    pub fn fail_write_after(&self, writes: u64) {
        self.lock().failing_write = Some(writes);
    }

    /// How many syncs of files have succeeded.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// The names and lengths of all files.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let state = self.lock();
        let len = |id: &usize| state.contents[*id].now.len() as u64;
        state.names.iter().map(|(path, id)| (path.clone(), len(id))).collect()
    }

    /// What a file holds.
    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.lock();
        state.names.get(path).map(|&id| state.contents[id].now.clone())
    }

    /// Makes every read of a file fail, as a medium does that is worn out.
    pub fn fail_reads(&self, path: &Path) {
        let mut state = self.lock();
        let id = state.names.get(path).copied();
        state.unreadable.extend(id);
    }

    /// Flips one bit of a file, as a medium does that rots.
    pub fn flip(&self, path: &Path, offset: u64, bit: u8) {
        let mut state = self.lock();
        let Some(&id) = state.names.get(path) else { return };
        let content = &mut state.contents[id];
        for bytes in [&mut content.now, &mut content.safe] {
            if let Some(byte) = bytes.get_mut(offset as usize) {
                *byte ^= 1 << (bit & 7);
            }
        }
    }
}

impl Content {
    /// Each unsynced sector is kept or lost; often a prefix survives, as devices write in order.
    fn lose_unsynced(&mut self, dice: &mut Dice) {
        let in_order = dice.one_in(2);
        let mut left = if in_order { dice.below(1 + self.dirty_sectors()) } else { u64::MAX };
        let mut after = std::mem::take(&mut self.safe);
        // The new length reaches the disk with the journal or does not.
        if after.len() < self.now.len() || dice.one_in(2) {
            after.resize(self.now.len(), 0);
        }
        for (start, end) in std::mem::take(&mut self.dirty) {
            let mut at = start;
            while at < end {
                let to = ((at / SECTOR + 1) * SECTOR).min(end);
                let keep = left > 0 && (in_order || dice.one_in(2));
                left = left.saturating_sub(1);
                if keep && to <= after.len() {
                    after[at..to].copy_from_slice(&self.now[at..to]);
                }
                at = to;
            }
        }
        self.now = after.clone();
        self.safe = after;
    }

    fn dirty_sectors(&self) -> u64 {
        let sectors =
            |&(start, end): &(usize, usize)| (end.div_ceil(SECTOR) - start / SECTOR) as u64;
        self.dirty.iter().map(sectors).sum()
    }
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(ErrorKind::NotFound, format!("{} does not exist", path.display()))
}

impl SimDisk {
    fn file(&self, state: &State, id: usize) -> Arc<dyn File> {
        Arc::new(SimFile { disk: self.clone(), id, life: state.life })
    }
}

impl Disk for SimDisk {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let state = self.lock();
        let id = *state.names.get(path).ok_or_else(|| not_found(path))?;
        Ok(self.file(&state, id))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut state = self.lock();
        let id = state.contents.len();
        state.contents.push(Content::default());
        state.names.insert(path.to_owned(), id);
        state.unsynced_names.push(Rename::Set(path.to_owned(), id));
        Ok(self.file(&state, id))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.lock();
        let inside = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        let id = state.names.remove(from).ok_or_else(|| not_found(from))?;
        state.names.insert(to.to_owned(), id);
        state.unsynced_names.push(Rename::Gone(from.to_owned()));
        state.unsynced_names.push(Rename::Set(to.to_owned(), id));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.names.remove(path).ok_or_else(|| not_found(path))?;
        state.unsynced_names.push(Rename::Gone(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let mut state = self.lock();
        if state.failing_syncs {
            return Err(io::Error::other("simulated sync failure"));
        }
        if state.lying {
            return Ok(());
        }
        state.unsynced_names.clear();
        state.safe_names = state.names.clone();
        Ok(())
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        let state = self.lock();
        Ok(state.capacity.saturating_sub(state.used()))
    }
}

struct SimFile {
    disk: SimDisk,
    id: usize,
    life: u64,
}

impl SimFile {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.lock();
        if state.life != self.life {
            return Err(io::Error::other("the machine of this file has crashed"));
        }
        act(&mut state)
    }
}

impl File for SimFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.with(|state| {
            let start = offset as usize;
            let len = state.contents[self.id].now.len();
            let room = state.capacity.saturating_sub(state.used()) as usize;
            let mut end = (start + bytes.len()).min(len.saturating_add(room).max(start));
            state.failing_write = match state.failing_write {
                Some(0) => {
                    end = start + state.dice.below(bytes.len() as u64) as usize;
                    None
                }
                left => left.map(|left| left - 1),
            };
            let content = &mut state.contents[self.id];
            if content.now.len() < end {
                content.now.resize(end, 0);
            }
            content.now[start.min(end)..end].copy_from_slice(&bytes[..end - start.min(end)]);
            content.dirty.push((start, end));
            if end < start + bytes.len() {
                return Err(ErrorKind::StorageFull.into());
            }
            Ok(())
        })
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.with(|state| {
            if state.unreadable.contains(&self.id) {
                return Err(Errno::IO.into());
            }
            let now = &state.contents[self.id].now;
            let start = (offset as usize).min(now.len());
            let count = buffer.len().min(now.len() - start);
            buffer[..count].copy_from_slice(&now[start..start + count]);
            Ok(count)
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|state| Ok(state.contents[self.id].now.len() as u64))
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        self.with(|state| {
            let now = state.contents[self.id].now.len() as u64;
            if len > now && len - now > state.capacity.saturating_sub(state.used()) {
                return Err(ErrorKind::StorageFull.into());
            }
            state.contents[self.id].now.resize(len.max(now) as usize, 0);
            Ok(())
        })
    }

    fn cut(&self, len: u64) -> io::Result<()> {
        self.with(|state| {
            let len = len as usize;
            let content = &mut state.contents[self.id];
            content.now.truncate(len);
            content.dirty.iter_mut().for_each(|range| range.1 = range.1.min(len));
            content.dirty.retain(|range| range.0 < range.1);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|state| {
            if state.failing_syncs {
                return Err(io::Error::other("simulated sync failure"));
            }
            state.syncs += 1;
            if state.lying {
                return Ok(());
            }
            let content = &mut state.contents[self.id];
            let len = content.now.len();
            content.safe.resize(len, 0);
            for (start, end) in content.dirty.drain(..) {
                content.safe[start..end].copy_from_slice(&content.now[start..end]);
            }
            Ok(())
        })
    }
}
