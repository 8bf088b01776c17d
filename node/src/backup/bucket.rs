//! A backup in an S3-compatible store: objects under a prefix, the manifest last.
//!
//! Files are uploaded in parts and read in ranges, so memory is bounded whatever their size. It needs
//! nothing but to put, to get and to delete objects, and to abort an upload.

use std::fmt::{self, Display};
use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use object_store::buffered::BufWriter;
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::runtime::Handle;

use super::place::{Content, MANIFEST, Place};
use crate::config;
use crate::s3::{self, code, said};

/// Bytes of a part of an upload, and of a range that is read: S3 takes at most 10,000 parts of at least
/// 5 MiB.
const PART_BYTES: usize = 16 << 20;
/// Parts of an upload that are under way at once, each in memory.
const PARTS_AT_ONCE: usize = 2;

/// See the module.
pub(super) struct Bucket {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    url: String,
    runtime: Handle,
    /// What was begun to be written.
    begun: Mutex<Vec<Path>>,
}

impl Bucket {
    /// Asks nobody yet.
    pub(super) fn open(
        bucket: &str,
        prefix: &str,
        s3: &config::S3,
        environment: impl Iterator<Item = (String, String)>,
        runtime: Handle,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            store: Arc::new(s3::open(bucket, s3, environment)?),
            prefix: Path::parse(prefix)?,
            url: format!("s3://{bucket}/{prefix}"),
            runtime,
            begun: Mutex::default(),
        })
    }

    fn path(&self, file: &str) -> Path {
        self.prefix.clone().join(file)
    }
}

impl Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl Place for Bucket {
    fn write(&self, file: &str, content: Content<'_>) -> io::Result<u64> {
        let path = self.path(file);
        self.begun.lock().push(path.clone());
        let writer = BufWriter::with_capacity(Arc::clone(&self.store), path, PART_BYTES);
        let writer = writer.with_max_concurrency(PARTS_AT_ONCE);
        let mut upload = Upload { writer, runtime: &self.runtime };
        let bytes = content(&mut upload).inspect_err(|_| {
            // The error before says more than another one here.
            let _ = self.runtime.block_on(upload.writer.abort());
        })?;
        // Aborts by itself when it fails.
        self.runtime.block_on(upload.writer.shutdown()).map_err(plainly)?;
        Ok(bytes)
    }

    fn complete(&self, manifest: &[u8]) -> io::Result<()> {
        let content = Bytes::copy_from_slice(manifest).into();
        let path = self.path(MANIFEST);
        self.begun.lock().push(path.clone());
        self.runtime.block_on(self.store.put(&path, content)).map_err(|error| said(&error))?;
        Ok(())
    }

    fn discard(&self) -> io::Result<()> {
        // The manifest first, should it be there.
        for path in self.begun.lock().drain(..).rev() {
            match self.runtime.block_on(self.store.delete(&path)) {
                Ok(()) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(said(&error)),
            }
        }
        Ok(())
    }

    fn read(&self, file: &str) -> io::Result<Box<dyn Read + '_>> {
        let path = self.path(file);
        let mut object = Object { bucket: self, path, at: 0, of: None, held: Bytes::new() };
        object.fetch()?;
        Ok(Box::new(object))
    }
}

/// An object that is written.
struct Upload<'a> {
    writer: BufWriter,
    runtime: &'a Handle,
}

impl Write for Upload<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.runtime.block_on(self.writer.write(bytes)).map_err(plainly)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An object that is read.
struct Object<'a> {
    bucket: &'a Bucket,
    path: Path,
    /// Where the next range begins.
    at: u64,
    /// How long it is, once that is known, and which version of it.
    of: Option<(u64, Option<String>)>,
    held: Bytes,
}

impl Object<'_> {
    /// Gets the next range.
    fn fetch(&mut self) -> io::Result<()> {
        let range = GetRange::Bounded(self.at..self.at + PART_BYTES as u64);
        let if_match = self.of.as_ref().and_then(|(_, tag)| tag.clone());
        let options = GetOptions { range: Some(range), if_match, ..GetOptions::default() };
        let got = self.bucket.runtime.block_on(async {
            let got = self.bucket.store.get_opts(&self.path, options).await?;
            let of = (got.meta.size, got.meta.e_tag.clone());
            Ok((of, got.bytes().await?))
        });
        let (of, bytes) = got.or_else(|error: Error| match code(&error.to_string()) {
            // An empty one has no range.
            Some("InvalidRange") => Ok(((self.at, None), Bytes::new())),
            _ => Err(said(&error)),
        })?;
        self.at += bytes.len() as u64;
        (self.of, self.held) = (Some(of), bytes);
        Ok(())
    }
}

impl Read for Object<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.held.is_empty() && self.of.as_ref().is_some_and(|(size, _)| self.at < *size) {
            self.fetch()?;
        }
        let count = into.len().min(self.held.len());
        self.held.split_to(count).copy_to_slice(&mut into[..count]);
        Ok(count)
    }
}

fn plainly(error: io::Error) -> io::Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(error) => said(error),
        None => error,
    }
}
