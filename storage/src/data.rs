//! The data directory of a node: one process at a time, in a format this version knows.

use std::fs::{self, File, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::Access;
use thiserror::Error;

use crate::disk::{Disk, RealDisk, is_full};

const FORMAT: &str = "skein data 1";
/// How long a process that was killed may hold its lock while the kernel takes its memory back: whoever
/// starts another at once need not know of that.
const HANDOVER: Duration = Duration::from_secs(2);

/// Why a data directory cannot be used.
#[derive(Debug, Error)]
pub enum DataError {
    /// Another process uses it.
    #[error("{} is in use by process {pid}: stop it, or choose another data folder", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other process, or what is known of it.
        pid: String,
    },
    /// It was written by a version this one does not know.
    #[error("{} holds {found:?}, this version reads {FORMAT:?}", path.display())]
    Format {
        /// The file that names the format.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// It holds a log and no word of its format.
    #[error("{} is missing, though there is a log beside it", path.display())]
    NoFormat {
        /// The file that names the format.
        path: PathBuf,
    },
    /// A node has run on it, and its log is gone.
    #[error(
        "{} holds no log, though a node has run here: restore it from a backup or a peer; to go on \
         with what the state store has, and lose what was acknowledged since its last checkpoint, \
         remove {}",
        log.display(), mark.display()
    )]
    NoLog {
        /// Where the log should be.
        log: PathBuf,
        /// What says that there was one.
        mark: PathBuf,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A data directory that this process holds until the value is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// The kernel gives the lock back however the process ends.
    _lock: File,
}

/// A data directory remembers so many of the lives that were begun on it.
pub const LIVES_KEPT: usize = 64;

/// A life of a node on a data directory: from one start to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incarnation {
    /// It and those before it, by their numbers, the oldest first: at most [`LIVES_KEPT`], at least it.
    /// Each is greater than those before it.
    pub lives: Vec<u64>,
}

impl Incarnation {
    /// Its own number.
    pub fn number(&self) -> u64 {
        *self.lives.last().expect("it is one of them")
    }
}

impl DataDir {
    /// Whether this process could open the directory, or make it, without trying. Gives back the
    /// mode of one that everybody gets into.
    pub fn check(path: &Path) -> Result<Option<u32>, DataError> {
        let there = path.ancestors().find(|it| it.as_os_str().is_empty() || it.exists());
        let there = match there {
            Some(there) if !there.as_os_str().is_empty() => there,
            _ => Path::new("."),
        };
        let found = fs::metadata(there).map_err(failed("read", there))?;
        if !found.is_dir() {
            return Err(failed("use", path)(io::ErrorKind::NotADirectory.into()));
        }
        let action = if there == path { "write to" } else { "create" };
        rustix::fs::access(there, Access::WRITE_OK | Access::EXEC_OK)
            .map_err(|error| failed(action, path)(error.into()))?;
        let mode = found.permissions().mode() & 0o7777;
        Ok(Some(mode).filter(|mode| there == path && mode & 0o007 != 0))
    }

    /// Begins another life of a node on this directory. Its number is about the time in milliseconds, so
    /// that it grows also where an older directory was brought back. Needs no room on the disk but at the
    /// first start.
    pub fn next_incarnation(&self) -> Result<Incarnation, DataError> {
        let path = &self.path;
        let (file, new) = (path.join("incarnation"), path.join("incarnation.new"));
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(failed("read", &file)(error)),
        };
        let mut lives = numbers(&text).ok_or_else(|| {
            failed("read", &file)(io::Error::new(io::ErrorKind::InvalidData, "it is damaged"))
        })?;
        let last = lives.last().copied();
        lives.push(next_after(last.unwrap_or_default()));
        lives.drain(..lives.len().saturating_sub(LIVES_KEPT));
        let life = Incarnation { lives };
        let write = || {
            let mut begun = File::create(&new)?;
            life.lives.iter().try_for_each(|life| writeln!(begun, "{life}"))?;
            begun.sync_all()?;
            fs::rename(&new, &file)?;
            File::open(path)?.sync_all()
        };
        // There is room behind the end of a short file.
        let append = || {
            let mut old = File::options().append(true).open(&file)?;
            let begin = if text.ends_with('\n') { "" } else { "\n" };
            old.write_all(format!("{begin}{}\n", life.number()).as_bytes())?;
            old.sync_all()
        };
        let written = write().or_else(|error| match is_full(&error) {
            true if last.is_some() => append(),
            _ => Err(error),
        });
        written.map_err(failed("write", &file))?;
        Ok(life)
    }

    /// Makes the directory if need be, locks it and checks its format.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        RealDisk.create_dir(path).map_err(failed("create", path))?;
        let lock = lock(path)?;
        check_format(path)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Refuses a directory where a log was begun and is gone.
    pub fn check_log(&self) -> Result<(), DataError> {
        let (log, mark) = (self.log(), self.mark());
        let is_segment =
            |file: &fs::DirEntry| file.path().extension().is_some_and(|it| it == "log");
        let has_log =
            fs::read_dir(&log).is_ok_and(|files| files.flatten().any(|it| is_segment(&it)));
        match mark.exists() && !has_log {
            true => Err(DataError::NoLog { log, mark }),
            false => Ok(()),
        }
    }

    /// Remembers that a log was begun here, so that its loss is noticed.
    pub fn mark_used(&self) -> Result<(), DataError> {
        let mark = self.mark();
        if mark.exists() {
            return Ok(());
        }
        let write = || {
            File::create(&mark)?.sync_all()?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(failed("write", &mark))
    }

    /// Whether a log was begun here.
    pub fn is_begun(&self) -> bool {
        self.mark().exists()
    }

    fn mark(&self) -> PathBuf {
        self.path.join("used")
    }

    /// Whether a log was begun in a directory.
    pub fn is_used(path: &Path) -> bool {
        path.join("used").exists()
    }

    /// Where the log lives.
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Where the state store lives.
    pub fn state(&self) -> PathBuf {
        self.path.join("state")
    }
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> DataError + 'a {
    move |source| DataError::Io { action, path: path.to_owned(), source }
}

fn lock(dir: &Path) -> Result<File, DataError> {
    let path = dir.join("lock");
    let mut options = File::options();
    let open = options.read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = open.map_err(failed("open", &path))?;
    let asked = Instant::now();
    let mut locked = file.try_lock();
    while matches!(locked, Err(TryLockError::WouldBlock)) && asked.elapsed() < HANDOVER {
        thread::sleep(HANDOVER / 40);
        locked = file.try_lock();
    }
    match locked {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let pid = fs::read_to_string(&path).unwrap_or_default();
            let pid = if pid.trim().is_empty() { "unknown" } else { pid.trim() };
            return Err(DataError::InUse { path: dir.to_owned(), pid: pid.to_owned() });
        }
        Err(TryLockError::Error(source)) => return Err(failed("lock", &path)(source)),
    }
    // The number only helps people; a full disk must not keep the node from starting for it.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

fn check_format(dir: &Path) -> Result<(), DataError> {
    let path = dir.join("format");
    match fs::read_to_string(&path) {
        Ok(found) if found.trim() == FORMAT => Ok(()),
        Ok(found) => Err(DataError::Format { path, found: found.trim().to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if dir.join("log").exists() {
                return Err(DataError::NoFormat { path });
            }
            write_format(dir, &path).map_err(failed("write", &path))
        }
        Err(source) => Err(failed("read", &path)(source)),
    }
}

/// The numbers in a text, one in each line; none if it holds something else. What follows on the last end
/// of a line was never finished, but for the one number that a version before had there.
fn numbers(text: &str) -> Option<Vec<u64>> {
    let whole = text.rsplit_once('\n').map_or(text, |(whole, _)| whole);
    whole.lines().map(|line| line.parse().ok()).collect()
}

/// Copies of one directory must not begin lives of the same number where the clock is behind.
fn next_after(last: u64) -> u64 {
    const SPREAD: u64 = 1 << 20;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = now.as_millis() as u64;
    let chance = || RandomState::new().hash_one(last) % SPREAD;
    if now > last { now } else { last.saturating_add(1 + chance()) }
}

fn write_format(dir: &Path, path: &Path) -> io::Result<()> {
    let fresh = dir.join("format.tmp");
    let mut file = File::create(&fresh)?;
    writeln!(file, "{FORMAT}")?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_life_is_greater_and_knows_those_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let next = || data.next_incarnation().unwrap();
        let mut told: Vec<_> = (0..LIVES_KEPT + 2).map(|_| next().number()).collect();
        assert!(told.is_sorted_by(|one, next| one < next));
        let life = next();
        told.push(life.number());
        assert_eq!(life.lives, told[3..]);
    }

    #[test]
    fn lives_go_on_from_what_the_file_says() {
        const AHEAD: u64 = 1 << 60;
        let ahead = AHEAD.to_string();
        for (text, before) in [
            // Of a version that kept one; the clock has been set back since.
            (ahead.clone(), Some(vec![AHEAD])),
            (format!("5\n{ahead}\n"), Some(vec![5, AHEAD])),
            (format!("{ahead}\n12"), Some(vec![AHEAD])),
            (String::new(), Some(vec![])),
            ("five\n".into(), None),
            (format!("{ahead}\n\0\0\0\n"), None),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let data = DataDir::open(dir.path()).unwrap();
            let [one, other] = [(); 2].map(|()| {
                fs::write(dir.path().join("incarnation"), &text).unwrap();
                data.next_incarnation()
            });
            let Some(before) = before else {
                let error = one.unwrap_err().to_string();
                assert!(error.contains("incarnation") && error.contains("damaged"), "{error}");
                continue;
            };
            let (one, other) = (one.unwrap(), other.unwrap());
            assert_eq!(one.lives[..one.lives.len() - 1], before, "{text:?}");
            assert!(one.lives.is_sorted());
            if before.last() == Some(&AHEAD) {
                assert_ne!(one.number(), other.number(), "two copies begin another life each");
            }
        }
    }

    #[test]
    fn a_second_process_is_told_who_holds_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let held = DataDir::open(dir.path()).unwrap();
        let error = DataDir::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
        drop(held);
        DataDir::open(dir.path()).unwrap();
    }

    #[test]
    fn an_unknown_format_is_refused() {
        for (format, log, wanted) in [
            (Some("skein data 2\n"), false, "\"skein data 2\""),
            (None, true, "is missing"),
            (Some(FORMAT), true, ""),
        ] {
            let dir = tempfile::tempdir().unwrap();
            if let Some(format) = format {
                fs::write(dir.path().join("format"), format).unwrap();
            }
            if log {
                fs::create_dir(dir.path().join("log")).unwrap();
            }
            match DataDir::open(dir.path()) {
                Ok(_) => assert_eq!(wanted, ""),
                Err(error) => assert!(error.to_string().contains(wanted), "{error}"),
            }
        }
    }

    #[test]
    fn a_check_makes_nothing_and_sees_what_is_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let new = dir.path().join("a").join("b");
        assert!(matches!(DataDir::check(&new), Ok(None)));
        assert!(!new.exists());
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        for path in [&file, &file.join("data")] {
            let error = DataDir::check(path).unwrap_err().to_string();
            assert!(error.contains("not a directory"), "{error}");
        }
        for (mode, said) in [(0o700, None), (0o770, None), (0o755, Some(0o755))] {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(DataDir::check(dir.path()).unwrap(), said);
        }
    }
}
