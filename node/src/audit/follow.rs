//! The audit log as a stream: `GET /admin/audit`.
//!
//! It is read from the files, so a client that was away goes on where it was. It is told only of what is
//! stored. Bounds: so many clients at a time, and for each the lines of one look at the files.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{Response, StatusCode, header};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tracing::warn;

use super::journal;
use crate::shared::Shared;

/// Bytes after which a look at the files ends.
const AT_ONCE: usize = 256 << 10;

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Only records with larger numbers.
    pub(super) after: u64,
    /// Whether those that come later are wanted, too.
    pub(super) follow: bool,
}

impl Wanted {
    /// Reads the parameters of a query; else says what is wrong with which.
    pub(super) fn read(query: &[(String, String)]) -> Result<Self, String> {
        let mut wanted = Self::default();
        for (number, (name, value)) in query.iter().enumerate() {
            let wrong =
                |expected| format!("the parameter {name} must be {expected}, not {value:?}");
            if query[..number].iter().any(|(earlier, _)| earlier == name) {
                return Err(format!("the parameter {name:?} is there twice"));
            }
            match name.as_str() {
                "after" => {
                    wanted.after = value.parse().map_err(|_| wrong("the number of a record"))?;
                }
                "follow" => wanted.follow = value.parse().map_err(|_| wrong("true or false"))?,
                _ => {
                    return Err(format!(
                        "there is no parameter {name:?}: there are after, the number of a record, \
                         and follow, true or false"
                    ));
                }
            }
        }
        Ok(wanted)
    }
}

/// Answers with the records that are wanted, a line each.
pub async fn stream(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Response<Body>, (StatusCode, String)> {
    let wanted =
        Wanted::read(&query).map_err(|why| (StatusCode::BAD_REQUEST, format!("{why}\n")))?;
    let Some(audit) = &shared.audit else {
        let why = "this node keeps no audit log: set audit.file in its configuration\n";
        return Err((StatusCode::NOT_FOUND, why.into()));
    };
    let Ok(place) = Arc::clone(&audit.followers).try_acquire_owned() else {
        let why = "too many clients read the audit log\n";
        return Err((StatusCode::SERVICE_UNAVAILABLE, why.into()));
    };
    let Some(path) = audit.config.file.clone() else {
        return Err((StatusCode::NOT_FOUND, "there is no file\n".into()));
    };
    let reader = Reader::new(path, wanted.after);
    let follower =
        Follower { reader, stored: audit.stored.clone(), follows: wanted.follow, _place: place };
    let lines = stream::unfold(follower, |mut follower| async move {
        let lines = follower.next().await?;
        Some((Ok::<_, Infallible>(lines), follower))
    });
    let mut response = Response::new(Body::from_stream(lines));
    let kind = header::HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

/// A client that reads the log.
struct Follower {
    reader: Reader,
    stored: watch::Receiver<u64>,
    follows: bool,
    _place: OwnedSemaphorePermit,
}

impl Follower {
    /// The next lines; none at the end.
    async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let stored = *self.stored.borrow_and_update();
            let mut reader = std::mem::take(&mut self.reader);
            let reading = tokio::task::spawn_blocking(move || {
                let lines = reader.next(stored);
                (reader, lines)
            });
            let (reader, lines) = reading.await.ok()?;
            self.reader = reader;
            match lines {
                Ok(lines) if !lines.is_empty() => return Some(lines),
                Ok(_) if !self.follows => return None,
                // The writer has ended where it cannot be waited for any more.
                Ok(_) => self.stored.changed().await.ok()?,
                Err(error) => {
                    warn!(error = format!("{error:#}"), "the audit log cannot be read");
                    return None;
                }
            }
        }
    }
}

/// Reads a log in the order of its records. Where some are missing it goes on behind them.
#[derive(Default)]
pub(super) struct Reader {
    path: PathBuf,
    /// The number of the last record that was given.
    last: u64,
    open: Option<Open>,
}

/// A file that is being read.
struct Open {
    /// The number of its first record, by which files are in order.
    first: u64,
    file: BufReader<File>,
}

impl Reader {
    /// Of the log whose present file that is, behind a record.
    pub(super) fn new(path: PathBuf, last: u64) -> Self {
        Self { path, last, open: None }
    }

    /// More lines, up to a record that is stored.
    pub(super) fn next(&mut self, stored: u64) -> anyhow::Result<Vec<u8>> {
        let mut lines = Vec::new();
        let mut exhausted = None;
        while self.last < stored && lines.len() < AT_ONCE {
            let mut open = match self.open.take() {
                Some(open) => open,
                None => match self.find(exhausted)? {
                    Some(open) => open,
                    None => break,
                },
            };
            let start = lines.len();
            open.file.read_until(b'\n', &mut lines)?;
            if lines.last() != Some(&b'\n') || lines.len() == start {
                // The end of a file: there is another one if this is not the present one any more.
                lines.truncate(start);
                if journal::is_present(&self.path, open.file.get_ref())? {
                    break;
                }
                exhausted = Some(open.first);
                continue;
            }
            let number = match journal::read(&lines[start..lines.len() - 1]) {
                Ok(record) => record.seq,
                Err(error) => {
                    // What others have written there keeps no record from anybody.
                    warn!(%error, "a line of the audit log is no record: see `skein audit verify`");
                    lines.truncate(start);
                    self.open = Some(open);
                    continue;
                }
            };
            if number > stored {
                lines.truncate(start);
                break;
            }
            if number <= self.last {
                lines.truncate(start);
            } else {
                self.last = number;
            }
            self.open = Some(open);
        }
        Ok(lines)
    }

    /// The file behind one that has ended; without such a one, the file that the next record is in, or
    /// the first one where it is gone.
    fn find(&self, exhausted: Option<u64>) -> anyhow::Result<Option<Open>> {
        // Opened before the others are listed: if it becomes a full one meanwhile it is seen twice, and
        // not never.
        let present = match File::open(&self.path) {
            Ok(file) => journal::first_of(&file)?.map(|first| (first, file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        let full = journal::rotated(&self.path)?;
        let mut firsts: Vec<u64> = full.iter().map(|(first, _)| *first).collect();
        firsts.extend(present.iter().map(|(first, _)| *first));
        firsts.sort_unstable();
        let place = match exhausted {
            Some(first) => firsts.partition_point(|it| *it <= first),
            None => firsts.partition_point(|it| *it <= self.last + 1).saturating_sub(1),
        };
        let Some(&first) = firsts.get(place) else { return Ok(None) };
        let file = match (present, full.into_iter().find(|(it, _)| *it == first)) {
            (Some((it, file)), _) if it == first => file,
            (_, Some((_, path))) => File::open(path)?,
            _ => return Ok(None),
        };
        Ok(Some(Open { first, file: BufReader::new(file) }))
    }
}
