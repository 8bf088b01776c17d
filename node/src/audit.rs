//! The audit log: a thread takes the records of the node's changes and appends them to a file.
//!
//! Bounds: the [`Ledger`]'s queue, and `KEPT` records while the file cannot be written; of what is
//! beyond only the number is recorded. Records are stored in the order in which they came, several with
//! one write and one flush.

mod follow;
mod journal;
mod verify;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use api::audit::{Actor, Change, Entry, Ledger, Outcome, Submission};
use fleet::registry::Timestamp;
use metrics::{counter, describe_counter, describe_gauge, gauge};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, oneshot, watch};
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::clock::now_ms;
use crate::config::{Audit as Config, OnFailure};

pub use follow::stream;
pub use journal::{Journal, check};
pub use verify::{Broken, Verified, verify};

/// Records that are kept in memory while the file cannot be written.
const KEPT: usize = 1024;
/// Records of one write.
const AT_ONCE: usize = 256;
/// How long until it is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Clients that are told of records at a time.
const FOLLOWERS: usize = 16;

/// The audit log of a node.
#[derive(Debug)]
pub struct Audit {
    /// The way of records into it.
    pub ledger: Ledger,
    config: Config,
    /// The number of the last record that is stored.
    stored: watch::Receiver<u64>,
    followers: Arc<Semaphore>,
}

impl Audit {
    /// Opens the log that a configuration names, if it does, and records that the node starts.
    pub fn start(
        config: &Config,
        arns: &policy::Arns,
        node: Option<u64>,
    ) -> anyhow::Result<Option<Self>> {
        let Some(file) = &config.file else { return Ok(None) };
        describe_counter!("audit_records_total", metrics::Unit::Count, "Records of changes stored");
        describe_counter!("audit_lost_total", metrics::Unit::Count, "Records of changes lost");
        describe_gauge!("audit_failing", metrics::Unit::Count, "1 while no record can be stored");
        counter!("audit_records_total").increment(0);
        counter!("audit_lost_total").increment(0);
        gauge!("audit_failing").set(0);
        let (journal, cut) = Journal::open(config, node)
            .with_context(|| format!("audit.file: cannot use {}", file.display()))?;
        let is_strict = config.on_failure == OnFailure::Refuse;
        let (ledger, receiver) = Ledger::new(arns, is_strict);
        let (head, stored) = watch::channel(journal.last());
        let writer =
            Writer { journal, ledger: ledger.clone(), head, kept: VecDeque::new(), again_at: None };
        thread::Builder::new()
            .name("skein-audit".into())
            .spawn(move || writer.run(&receiver))
            .context("cannot start a thread")?;
        let mut after = json!({ "version": env!("CARGO_PKG_VERSION") });
        if cut > 0 {
            warn!(file = %file.display(), bytes = cut, "the audit log ended within a record, which was cut off");
            after["cutBytes"] = cut.into();
        }
        ledger.note(of_node("StartNode", "node", after));
        let followers = Arc::new(Semaphore::new(FOLLOWERS));
        Ok(Some(Self { ledger, config: config.clone(), stored, followers }))
    }

    /// What is wrong while no record can be stored, and what that means for changes.
    pub fn trouble(&self) -> Option<&'static str> {
        self.ledger.is_failing().then_some(match self.config.on_failure {
            OnFailure::Refuse => "the audit log cannot be written: changes are refused here",
            OnFailure::Count => "the audit log cannot be written: changes are not recorded",
        })
    }

    /// Records that the node ends, and waits until everything is stored or cannot be.
    pub fn stop(&self) {
        let (stored, is_stored) = oneshot::channel();
        let entry = of_node("StopNode", "node", Value::Null);
        if self.ledger.submit(entry, Some(stored)).is_ok() {
            // What cannot be stored is said by the writer.
            let _ = is_stored.blocking_recv();
        }
    }
}

/// A record of what the node does by itself.
fn of_node(operation: &str, resource: &str, after: Value) -> Entry {
    let after = (!after.is_null()).then_some(after);
    let change = Change { resource: resource.into(), before: Value::Null, after };
    Entry {
        at: Timestamp(now_ms()),
        request: Uuid::new_v4().to_string(),
        actor: Actor::Node,
        source: None,
        operation: operation.into(),
        resource: Some(resource.into()),
        outcome: Outcome::Done,
        error: None,
        changes: if change.after.is_none() { Vec::new() } else { vec![change] },
    }
}

/// What writes the log, on a thread of its own.
struct Writer {
    journal: Journal,
    ledger: Ledger,
    head: watch::Sender<u64>,
    /// What is not stored yet, in order.
    kept: VecDeque<Submission>,
    /// When it is tried again, while the file cannot be written.
    again_at: Option<Instant>,
}

impl Writer {
    /// Ends with the last ledger.
    fn run(mut self, receiver: &Receiver<Submission>) {
        loop {
            let next = match (self.kept.is_empty(), self.again_at) {
                (true, _) => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
                (false, Some(at)) => {
                    receiver.recv_timeout(at.saturating_duration_since(Instant::now()))
                }
                (false, None) => Err(RecvTimeoutError::Timeout),
            };
            match next {
                Ok(next) => self.keep(next),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            while (self.kept.len() < AT_ONCE || self.again_at.is_some())
                && let Ok(next) = receiver.try_recv()
            {
                self.keep(next);
            }
            if self.again_at.is_none_or(|at| at <= Instant::now()) {
                self.write();
            }
        }
    }

    fn keep(&mut self, mut next: Submission) {
        if self.again_at.is_some() {
            // Nobody waits until there is room: what is kept is recorded when it can be.
            next.stored = None;
        }
        match self.kept.len() < KEPT {
            true => self.kept.push_back(next),
            false => self.ledger.lose(1),
        }
    }

    fn write(&mut self) {
        let count = self.kept.len().min(AT_ONCE);
        let mut entries: Vec<&Entry> = self.kept.iter().take(count).map(|it| &it.entry).collect();
        let lost = self.ledger.take_lost();
        let loss = (lost > 0).then(|| of_node("LoseRecords", "audit-log", json!({ "lost": lost })));
        entries.extend(&loss);
        match self.journal.append(&entries) {
            Ok(()) => {
                counter!("audit_records_total").increment(entries.len() as u64);
                self.head.send_replace(self.journal.last());
                for submission in self.kept.drain(..count) {
                    // Whoever asked may have gone away.
                    let _ = submission.stored.map(|stored| stored.send(()));
                }
                self.set_failing(None);
            }
            Err(error) => {
                self.ledger.restore_lost(lost);
                self.kept.iter_mut().for_each(|it| it.stored = None);
                self.set_failing(Some(&error));
            }
        }
    }

    fn set_failing(&mut self, error: Option<&std::io::Error>) {
        let was_failing = self.again_at.is_some();
        self.again_at = error.map(|_| Instant::now() + AGAIN_AFTER);
        if was_failing == error.is_some() {
            return;
        }
        self.ledger.set_failing(error.is_some());
        gauge!("audit_failing").set(u8::from(error.is_some()));
        let file = self.journal.file().display().to_string();
        match error {
            Some(error) => error!(file, %error, "the audit log cannot be written"),
            None => info!(file, "the audit log is written again"),
        }
    }
}

#[cfg(test)]
mod tests;
