//! The data directory of a node: one process at a time, in a format this version knows.

mod incarnation;

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::Access;
use thiserror::Error;

use crate::disk::{Disk, RealDisk};

pub use incarnation::{Incarnation, LIVES_KEPT};

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
