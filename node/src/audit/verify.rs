//! Whether the files of an audit log are whole: nothing changed, nothing taken out.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::Context;
use thiserror::Error;

use super::journal::{self, NOTHING, hash};

/// A log that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The numbers of its first and its last record.
    pub records: Option<(u64, u64)>,
    /// The hash of the last one, in hex.
    pub hash: String,
    /// Whether it ends within a record: it is being written, or the node was cut off.
    pub is_unfinished: bool,
}

/// The first place where a log is not whole.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{}, line {line}: {why}", file.display())]
pub struct Broken {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub why: String,
}

/// Checks the records of a log one after the other.
#[derive(Debug, Default)]
struct Chain {
    first: Option<u64>,
    last: Option<(u64, [u8; 32])>,
    /// The file of the last one.
    file: PathBuf,
}

impl Chain {
    /// The next line of a log, without its end, in the file that has it.
    fn link(&mut self, line: &[u8], file: &Path, log: &Path) -> Result<(), String> {
        let head = journal::read(line).map_err(|error| format!("{error:#}"))?;
        let before = match self.last {
            Some((last, _)) if head.seq <= last => {
                return Err(format!(
                    "record {} follows record {last}: lines were moved or are there twice",
                    head.seq
                ));
            }
            Some((last, _)) if head.seq > last + 1 => {
                return Err(self.missing(last + 1, head.seq - 1, file, log));
            }
            Some((_, before)) => Some(before),
            None => (head.seq == 1).then_some(NOTHING),
        };
        if before.is_some_and(|before| head.previous != hex::encode(before)) {
            return Err(format!(
                "record {} does not go on from the line before: that one, or this one, was changed",
                head.seq
            ));
        }
        self.first.get_or_insert(head.seq);
        self.last = Some((head.seq, hash(line)));
        if self.file != file {
            file.clone_into(&mut self.file);
        }
        Ok(())
    }

    /// What is said of records that are not there, and where they were.
    fn missing(&self, first: u64, last: u64, file: &Path, log: &Path) -> String {
        let what = match first == last {
            true => format!("record {first} is missing"),
            false => format!("records {first} to {last} are missing"),
        };
        let (before, after) = (first - 1, last + 1);
        if self.file == file {
            return format!("{what}: record {after} follows record {before} in this file");
        }
        format!(
            "{what}: record {after} follows record {before}, the last one in {}; that file was \
             shortened, or {} is not there",
            self.file.display(),
            journal::numbered(log, first).display()
        )
    }
}

/// Checks a log: the file with the full ones beside it, or only this full one.
pub fn verify(file: &Path) -> anyhow::Result<Verified> {
    let mut files: Vec<PathBuf> = journal::rotated(file)?.into_iter().map(|(_, it)| it).collect();
    files.push(file.to_owned());
    let mut chain = Chain::default();
    let mut is_unfinished = false;
    let log = file;
    for file in files {
        let opened =
            File::open(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let mut lines = BufReader::new(opened);
        for number in 1.. {
            let mut line = Vec::new();
            lines.read_until(b'\n', &mut line)?;
            let broken = |why| Broken { file: file.clone(), line: number, why };
            match line.pop() {
                None => break,
                Some(b'\n') if is_unfinished => {
                    return Err(broken("the file before ends within a record".into()).into());
                }
                Some(b'\n') => chain.link(&line, &file, log).map_err(broken)?,
                Some(_) => is_unfinished = true,
            }
        }
    }
    let (records, hash) = match (chain.first, chain.last) {
        (Some(first), Some((last, hash))) => (Some((first, last)), hash),
        _ => (None, NOTHING),
    };
    Ok(Verified { records, hash: hex::encode(hash), is_unfinished })
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, last)) = self.records else { return writeln!(f, "no records") };
        writeln!(f, "records {first} to {last} are whole")?;
        if first > 1 {
            writeln!(f, "the records before {first} are not there: older files were deleted")?;
        }
        if self.is_unfinished {
            writeln!(f, "the log ends within a record that is not counted")?;
        }
        writeln!(f, "SHA-256 of record {last}: {}", self.hash)
    }
}
