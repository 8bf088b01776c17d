//! Brings the state store up to the log, so that the log can be compacted.
//!
//! A round collects every group's changed pairs, one group per turn, and is then applied and
//! flushed elsewhere while commands go on. At most one round is under way. A round that fails is
//! tried again as a whole, since a store that fails may have forgotten what was not flushed.
//! Snapshots are taken from the store and put into it in the same place, in order with the rounds.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use storage::store::{Applied, Changes, Store, StoreError};
use tracing::{debug, warn};

use crate::error::Error;
use crate::machine::GroupId;
use crate::metrics::RaftMetrics;
use crate::snapshot::{Captured, Pair};

/// One group's part of a round.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) group: GroupId,
    pub(crate) from: u64,
    pub(crate) to: Applied,
    pub(crate) changes: Changes,
}

/// Up to where each group of a finished round is stored.
pub(crate) type Stored = Vec<(GroupId, Applied)>;

/// What a worker is to do.
pub(crate) enum Task {
    /// Store a round.
    Round(Vec<Job>),
    /// Take a snapshot of a group, in chunks of about so many bytes.
    Capture(GroupId, usize),
    /// Put a snapshot in the place of what a group has.
    Install(GroupId, Applied, Vec<Pair>),
}

/// What a worker has to say.
pub(crate) enum Report {
    /// A round is stored.
    Stored(Stored),
    /// A snapshot of a group, or none if the store cannot be read now.
    Captured(GroupId, Option<Box<Captured>>),
    /// A snapshot is in its place.
    Installed,
    /// The disk had no room for what is under way; it will be tried again.
    NoRoom,
}

/// Who applies rounds to the store.
pub enum Worker {
    /// A thread of its own.
    Thread(ThreadWorker),
    /// The caller, one turn after a round was handed over: for simulations.
    Inline(InlineWorker),
}

/// See [`Worker::Thread`].
pub struct ThreadWorker {
    tasks: Option<Sender<Task>>,
    reports: Receiver<Result<Report, StoreError>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for ThreadWorker {
    /// Waits for the thread, so that the store is closed before the data directory is let go.
    fn drop(&mut self) {
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            // Its panic has been reported by the hook, and nothing waits for it.
            let _ = thread.join();
        }
    }
}

/// See [`Worker::Inline`].
pub struct InlineWorker {
    store: Box<dyn Store>,
    tasks: VecDeque<Task>,
}

impl Worker {
    /// A worker without a thread.
    pub fn inline(store: Box<dyn Store>) -> Self {
        Self::Inline(InlineWorker { store, tasks: VecDeque::new() })
    }

    /// A thread that applies rounds, and calls `nudge` when one is done.
    pub(crate) fn thread(
        store: Box<dyn Store>,
        nudge: impl Fn() + Send + 'static,
    ) -> Result<Self, Error> {
        let (tasks, to_do) = channel();
        let (reporter, reports) = channel();
        let work = move || work(store, &to_do, &reporter, nudge);
        let spawned = thread::Builder::new().name("skein-state".into()).spawn(work);
        let thread = Some(spawned.map_err(Error::Thread)?);
        Ok(Self::Thread(ThreadWorker { tasks: Some(tasks), reports, thread }))
    }

    /// Hands over a task; it comes after those handed over before.
    pub(crate) fn begin(&mut self, task: Task) {
        match self {
            Self::Thread(worker) => {
                // That a worker is gone, the next poll tells.
                let _ = worker.tasks.as_ref().map(|tasks| tasks.send(task));
            }
            Self::Inline(worker) => worker.tasks.push_back(task),
        }
    }

    /// What it has to say since the last call.
    pub(crate) fn poll(&mut self) -> Result<Option<Report>, StoreError> {
        match self {
            Self::Thread(worker) => match worker.reports.try_recv() {
                Ok(report) => report.map(Some),
                Err(TryRecvError::Empty) => Ok(None),
                Err(TryRecvError::Disconnected) => Err(StoreError::Failed {
                    path: Default::default(),
                    action: "work",
                    reason: "its thread has ended".into(),
                }),
            },
            Self::Inline(worker) => {
                let Some(task) = worker.tasks.front() else { return Ok(None) };
                match perform(worker.store.as_mut(), task) {
                    Ok(report) => {
                        worker.tasks.pop_front();
                        Ok(Some(report))
                    }
                    Err(error) => {
                        debug!(%error, "checkpoint failed");
                        match error {
                            error if error.is_damage() => Err(error),
                            StoreError::Full { .. } => Ok(Some(Report::NoRoom)),
                            _ => Ok(None),
                        }
                    }
                }
            }
        }
    }
}

fn perform(store: &mut dyn Store, task: &Task) -> Result<Report, StoreError> {
    match task {
        Task::Round(round) => {
            for job in round {
                store.apply(job.group.0, job.from, job.to, job.changes.clone())?;
            }
            store.flush()?;
            Ok(Report::Stored(round.iter().map(|job| (job.group, job.to)).collect()))
        }
        Task::Capture(group, chunk_bytes) => match Captured::take(store, *group, *chunk_bytes) {
            Ok(captured) => Ok(Report::Captured(*group, Some(Box::new(captured)))),
            Err(error) if error.is_damage() => Err(error),
            Err(error) => {
                warn!(%group, %error, "no snapshot");
                Ok(Report::Captured(*group, None))
            }
        },
        Task::Install(group, to, pairs) => {
            store.replace(group.0, *to, pairs)?;
            store.flush()?;
            Ok(Report::Installed)
        }
    }
}

/// The worker's thread: what fails is tried again until the node ends.
fn work(
    mut store: Box<dyn Store>,
    tasks: &Receiver<Task>,
    reporter: &Sender<Result<Report, StoreError>>,
    nudge: impl Fn(),
) {
    let metrics = RaftMetrics::register();
    let mut later = VecDeque::new();
    loop {
        let Some(task) = later.pop_front().or_else(|| tasks.recv().ok()) else { return };
        let started = Instant::now();
        let mut pause = Duration::from_millis(100);
        let report = loop {
            match perform(store.as_mut(), &task) {
                Err(error) if !error.is_damage() => {
                    metrics.checkpoint_failures.increment(1);
                    warn!(%error, "checkpoint failed, will be tried again");
                    if let StoreError::Full { .. } = error {
                        // When nobody hears it the node ends.
                        let _ = reporter.send(Ok(Report::NoRoom));
                        nudge();
                    }
                }
                finished => break finished,
            }
            match tasks.recv_timeout(pause) {
                Ok(task) => later.push_back(task),
                Err(RecvTimeoutError::Timeout) => pause = (pause * 2).min(Duration::from_secs(5)),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        };
        if let Task::Round(_) = task {
            metrics.checkpoint_seconds.record(started.elapsed());
        }
        let _ = reporter.send(report);
        nudge();
    }
}
