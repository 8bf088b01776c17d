//! Where the lines of a registration are read from and its reports are written: a folder, or an
//! S3-compatible store.
//!
//! An object is read bit by bit, however long it is. In a folder no key leads out of it: a key is walked
//! part by part, and no symbolic link is followed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use object_store::aws::AmazonS3;
use object_store::{Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::config::{self, S3};
use crate::s3::{self, said};

/// Bytes that are read at a time.
const READ_BYTES: u64 = 1 << 20;

/// How the names of files end that are being written.
const PARTIAL: &str = "partial";

/// See the module.
pub(super) enum Place {
    Folder(PathBuf),
    Store(AmazonS3, object_store::path::Path),
}

/// An object that is read.
pub(super) struct Object {
    /// Bytes that it had when it was opened.
    pub(super) size: u64,
    /// Tells it from another one of the same key.
    pub(super) version: String,
    from: From,
}

enum From {
    File(Arc<File>),
    Store { store: AmazonS3, path: object_store::path::Path, tag: Option<String> },
}

impl Place {
    /// The place of a configuration. Nobody is asked; files with credentials are read.
    pub(super) fn open(at: &Path, s3: &S3) -> anyhow::Result<Self> {
        if !config::is_url(at) {
            return Ok(Self::Folder(at.to_owned()));
        }
        let Some((bucket, prefix)) = config::bucket(at) else {
            bail!("{} names no bucket: s3://bucket/prefix does", at.display())
        };
        let store = s3::open(bucket, s3, std::env::vars());
        let store = store.with_context(|| format!("cannot use {}", at.display()))?;
        Ok(Self::Store(store, object_store::path::Path::parse(prefix)?))
    }

    /// Opens the object of a key that has been checked.
    pub(super) async fn object(&self, key: &str) -> anyhow::Result<Object> {
        match self {
            Self::Folder(folder) => {
                let (folder, key) = (folder.clone(), key.to_owned());
                blocking(move || {
                    let file = beneath(&folder, &key)?;
                    let metadata = file.metadata()?;
                    ensure!(metadata.is_file(), "it is not a file");
                    let (size, seconds) = (metadata.len(), metadata.mtime());
                    let version = format!("{size} {seconds}.{:09}", metadata.mtime_nsec());
                    Ok(Object { size, version, from: From::File(Arc::new(file)) })
                })
                .await
            }
            Self::Store(store, prefix) => {
                let path = object_store::path::Path::parse(format!("{prefix}/{key}"))?;
                let meta = store.head(&path).await.map_err(|error| said(&error))?;
                let version = meta.e_tag.clone().unwrap_or_else(|| meta.last_modified.to_string());
                let from = From::Store { store: store.clone(), path, tag: meta.e_tag };
                Ok(Object { size: meta.size, version, from })
            }
        }
    }

    /// Writes a file durably, in place of one of the same name if there is one.
    pub(super) async fn write(&self, name: &str, content: Bytes) -> anyhow::Result<()> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(name);
                blocking(move || {
                    let folder = path.parent().context("it has no folder")?;
                    fs::create_dir_all(folder)?;
                    // One of its own: whoever led before may be writing still.
                    let partial = format!("{:016x}.{PARTIAL}", rand::random::<u64>());
                    let partial = path.with_extension(partial);
                    let mut file = File::create(&partial)?;
                    file.write_all(&content)?;
                    file.sync_all()?;
                    fs::rename(&partial, &path)?;
                    Ok(File::open(folder)?.sync_all()?)
                })
                .await
            }
            Self::Store(store, prefix) => {
                let path = object_store::path::Path::parse(format!("{prefix}/{name}"))?;
                store.put(&path, content.into()).await.map_err(|error| said(&error))?;
                Ok(())
            }
        }
    }

    /// Reads a file that this has written; none when it is not there.
    pub(super) async fn read(&self, name: &str) -> anyhow::Result<Option<Bytes>> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(name);
                blocking(move || match fs::read(path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    read => Ok(Some(read?.into())),
                })
                .await
            }
            Self::Store(store, prefix) => {
                let path = object_store::path::Path::parse(format!("{prefix}/{name}"))?;
                let got = async { store.get(&path).await?.bytes().await };
                match got.await {
                    Err(Error::NotFound { .. }) => Ok(None),
                    got => Ok(Some(got.map_err(|error| said(&error))?)),
                }
            }
        }
    }

    /// Removes a folder of which every file was removed, with what is left of files that were not
    /// written to their end. A store has no folders.
    pub(super) async fn remove_folder(&self, name: &str) -> anyhow::Result<()> {
        let Self::Folder(folder) = self else { return Ok(()) };
        let folder = folder.join(name);
        blocking(move || {
            let entries = match fs::read_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                entries => entries?,
            };
            for entry in entries {
                let path = entry?.path();
                if path.extension().is_some_and(|it| it == PARTIAL) {
                    fs::remove_file(path)?;
                }
            }
            Ok(fs::remove_dir(&folder)?)
        })
        .await
    }

    /// Removes a file that this has written, if it is there.
    pub(super) async fn remove(&self, name: &str) -> anyhow::Result<()> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(name);
                blocking(move || {
                    match fs::remove_file(&path) {
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                        removed => removed?,
                    }
                    Ok(())
                })
                .await
            }
            Self::Store(store, prefix) => {
                let path = object_store::path::Path::parse(format!("{prefix}/{name}"))?;
                match store.delete(&path).await {
                    Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
                    Err(error) => Err(said(&error).into()),
                }
            }
        }
    }
}

impl Object {
    /// Some bytes from there on; none at the end.
    pub(super) async fn read(&self, at: u64) -> anyhow::Result<Bytes> {
        let end = self.size.min(at.saturating_add(READ_BYTES));
        if at >= end {
            return Ok(Bytes::new());
        }
        match &self.from {
            From::File(file) => {
                let file = Arc::clone(file);
                blocking(move || {
                    let mut bytes = vec![0; usize::try_from(end - at)?];
                    file.read_exact_at(&mut bytes, at).context("the file has become shorter")?;
                    Ok(bytes.into())
                })
                .await
            }
            From::Store { store, path, tag } => {
                let range = Some(GetRange::Bounded(at..end));
                let if_match = tag.clone();
                let options = GetOptions { range, if_match, ..GetOptions::default() };
                let got = async { store.get_opts(path, options).await?.bytes().await };
                Ok(got.await.map_err(|error| said(&error))?)
            }
        }
    }
}

/// Opens a file of a folder for reading, below which it is whatever the key says: no part of it is
/// followed that is a link.
fn beneath(folder: &Path, key: &str) -> anyhow::Result<File> {
    let open = OFlags::RDONLY | OFlags::CLOEXEC;
    let cannot = |error: Errno| match error {
        Errno::NOENT => anyhow::anyhow!("there is no such object"),
        Errno::LOOP | Errno::NOTDIR => {
            anyhow::anyhow!("no folder: a part of the key is a file or a symbolic link")
        }
        error => io::Error::from(error).into(),
    };
    let root = openat(CWD, folder, open | OFlags::DIRECTORY, Mode::empty());
    let mut at = root
        .map_err(io::Error::from)
        .with_context(|| format!("cannot use the folder {}", folder.display()))?;
    let mut parts = key.split('/').peekable();
    while let Some(part) = parts.next() {
        ensure!(!matches!(part, "" | "." | ".."), "the key has {part:?} between its slashes");
        // Nobody waits for a pipe that nobody writes.
        let is_last = parts.peek().is_none();
        let kind = if is_last { OFlags::NONBLOCK } else { OFlags::DIRECTORY };
        at = openat(&at, part, open | kind | OFlags::NOFOLLOW, Mode::empty()).map_err(cannot)?;
    }
    Ok(at.into())
}

/// Waits for disks without keeping anybody else from going on.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await?
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_outside_of_a_folder_is_opened() {
        let around = tempfile::tempdir().unwrap();
        let folder = around.path().join("bucket");
        fs::create_dir_all(folder.join("2026/x")).unwrap();
        fs::create_dir(around.path().join("other")).unwrap();
        for file in ["bucket/a", "bucket/2026/x/b", "secret", "other/c"] {
            fs::write(around.path().join(file), file).unwrap();
        }
        symlink(around.path().join("secret"), folder.join("link")).unwrap();
        symlink("a", folder.join("inner")).unwrap();
        symlink(around.path().join("other"), folder.join("to-other")).unwrap();
        symlink("..", folder.join("up")).unwrap();
        for (key, expected) in [
            ("a", Ok("bucket/a")),
            ("2026/x/b", Ok("bucket/2026/x/b")),
            ("b", Err("no such object")),
            ("x/b", Err("no such object")),
            ("link", Err("symbolic link")),
            ("inner", Err("symbolic link")),
            ("to-other/c", Err("symbolic link")),
            ("up/secret", Err("symbolic link")),
            ("a/b", Err("symbolic link")),
            ("../secret", Err("between its slashes")),
            ("2026/../../secret", Err("between its slashes")),
            ("/secret", Err("between its slashes")),
            ("", Err("between its slashes")),
        ] {
            match (beneath(&folder, key), expected) {
                (Ok(mut file), Ok(expected)) => {
                    let mut found = String::new();
                    file.read_to_string(&mut found).unwrap();
                    assert_eq!(found, expected, "{key}");
                }
                (Err(error), Err(part)) => {
                    let error = format!("{error:#}");
                    assert!(error.contains(part), "{key}: {error}, not {part}");
                }
                (found, _) => panic!("{key}: {found:?}"),
            }
        }
        let none = beneath(&around.path().join("none"), "a").unwrap_err();
        assert!(format!("{none:#}").contains("cannot use the folder"), "{none:#}");
    }

    #[tokio::test]
    async fn an_object_is_read_to_its_end_and_only_a_file_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..3_000_000_u32).map(|number| number as u8).collect();
        fs::write(folder.path().join("long"), &content).unwrap();
        fs::write(folder.path().join("empty"), "").unwrap();
        fs::create_dir(folder.path().join("folder")).unwrap();
        let place = Place::open(folder.path(), &S3::default()).unwrap();
        for (key, expected) in [("long", &content[..]), ("empty", b"")] {
            let object = place.object(key).await.unwrap();
            let mut found = Vec::new();
            loop {
                let bytes = object.read(found.len() as u64).await.unwrap();
                if bytes.is_empty() {
                    break;
                }
                found.extend_from_slice(&bytes);
            }
            assert!(found == expected, "{key}");
        }
        let object = place.object("long").await.unwrap();
        fs::write(folder.path().join("long"), "short").unwrap();
        let error = object.read(0).await.unwrap_err();
        assert!(format!("{error:#}").contains("shorter"), "{error:#}");
        assert_ne!(place.object("long").await.unwrap().version, object.version);
        let Err(error) = place.object("folder").await else { panic!("a folder is no object") };
        assert!(format!("{error:#}").contains("not a file"), "{error:#}");
    }

    #[tokio::test]
    async fn what_is_written_is_there_until_it_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::open(&folder.path().join("reports"), &S3::default()).unwrap();
        assert_eq!(place.read("task/a").await.unwrap(), None);
        for content in ["one", "another"] {
            place.write("task/a", Bytes::from(content)).await.unwrap();
            assert_eq!(place.read("task/a").await.unwrap().unwrap(), content);
        }
        place.write("task/b", Bytes::new()).await.unwrap();
        for file in ["task/a", "task/a", "task/b"] {
            place.remove(file).await.unwrap();
            assert_eq!(place.read(file).await.unwrap(), None);
        }
        fs::write(folder.path().join("reports/task/c.0.partial"), "not all of").unwrap();
        for _ in 0..2 {
            place.remove_folder("task").await.unwrap();
            assert!(!folder.path().join("reports/task").exists());
        }
        place.write("task/a", Bytes::new()).await.unwrap();
        assert!(place.remove_folder("task").await.is_err(), "nothing is removed that was written");
        assert!(place.read("task/a").await.unwrap().is_some());
    }

    #[tokio::test]
    async fn two_that_write_the_same_file_do_not_mix_it() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::open(folder.path(), &S3::default()).unwrap();
        for _ in 0..20 {
            let write = |byte| place.write("task/a.json", Bytes::from(vec![byte; 1 << 20]));
            let (one, other) = tokio::join!(write(b'1'), write(b'2'));
            one.and(other).unwrap();
            let found = place.read("task/a.json").await.unwrap().unwrap();
            assert!(found.len() == 1 << 20 && found.iter().all(|byte| *byte == found[0]));
        }
        assert_eq!(fs::read_dir(folder.path().join("task")).unwrap().count(), 1);
    }
}
