//! Where backups are kept: a folder, or an S3-compatible store. What is in them is for
//! [`super::file`].

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tokio::runtime::Handle;

use super::bucket::Bucket;
use crate::config;

/// Names what makes the files of a place a backup.
pub(super) const MANIFEST: &str = "backup.json";

/// Writes the content of a file, and gives its bytes.
pub(super) type Content<'a> = &'a dyn Fn(&mut dyn Write) -> io::Result<u64>;

/// One backup where it is kept, as files by their names. All of this waits for disks and networks.
pub(super) trait Place: Display + Send + Sync {
    /// Writes a file of a backup that is not complete yet, durably.
    fn write(&self, file: &str, content: Content<'_>) -> io::Result<u64>;

    /// Makes what was written a backup, with its manifest: before, nobody takes it for one.
    fn complete(&self, manifest: &[u8]) -> io::Result<()>;

    /// Removes what was written of a backup that will not be complete.
    fn discard(&self) -> io::Result<()>;

    /// Reads a file of a complete backup.
    fn read(&self, file: &str) -> io::Result<Box<dyn Read + '_>>;
}

/// The backup in a folder, or at a URL `s3://…`; whether there is one is not looked at.
pub(super) fn open(at: &Path, s3: &config::S3, runtime: &Handle) -> anyhow::Result<Box<dyn Place>> {
    if at.to_str().is_none_or(|at| !at.starts_with(config::S3_SCHEME)) {
        return Ok(Box::new(Folder(at.to_owned())));
    }
    let Some((bucket, prefix)) = config::bucket(at) else {
        bail!("{} names no bucket: s3://bucket/prefix does", at.display())
    };
    let opened = Bucket::open(bucket, prefix, s3, std::env::vars(), runtime.clone());
    Ok(Box::new(opened.with_context(|| format!("cannot use {}", at.display()))?))
}

/// A folder on this machine. What is not complete is in another one beside it.
struct Folder(PathBuf);

impl Folder {
    fn partial(&self) -> PathBuf {
        self.0.with_file_name(match self.0.file_name() {
            Some(name) => format!("{}.partial", name.to_string_lossy()),
            None => ".partial".into(),
        })
    }
}

impl Display for Folder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.display().fmt(f)
    }
}

impl Place for Folder {
    fn write(&self, file: &str, content: Content<'_>) -> io::Result<u64> {
        let partial = self.partial();
        fs::create_dir_all(&partial)?;
        let mut out = BufWriter::new(File::create_new(partial.join(file))?);
        let bytes = content(&mut out)?;
        out.flush()?;
        out.get_ref().sync_all()?;
        Ok(bytes)
    }

    fn complete(&self, manifest: &[u8]) -> io::Result<()> {
        self.write(MANIFEST, &|out| out.write_all(manifest).map(|()| manifest.len() as u64))?;
        File::open(self.partial())?.sync_all()?;
        fs::rename(self.partial(), &self.0)?;
        self.0.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    }

    fn discard(&self) -> io::Result<()> {
        match fs::remove_dir_all(self.partial()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    fn read(&self, file: &str) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(BufReader::new(File::open(self.0.join(file))?)))
    }
}
