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
}

impl Chain {
    /// The next line, without its end.
    fn link(&mut self, line: &[u8]) -> Result<(), String> {
        let head = journal::read(line).map_err(|error| format!("{error:#}"))?;
        let before = match self.last {
            Some((last, _)) if head.seq != last + 1 => {
                return Err(format!("record {} follows record {last}", head.seq));
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
        Ok(())
    }
}

/// Checks a log: the file with the full ones beside it, or only this full one.
pub fn verify(file: &Path) -> anyhow::Result<Verified> {
    let mut files: Vec<PathBuf> = journal::rotated(file)?.into_iter().map(|(_, it)| it).collect();
    files.push(file.to_owned());
    let mut chain = Chain::default();
    let mut is_unfinished = false;
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
                Some(b'\n') => chain.link(&line).map_err(broken)?,
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
