//! Brings the state store up to the log, so that the log can be compacted.
//!
//! A round collects every group's changed pairs, one group per turn, and is then applied and
//! flushed elsewhere while commands go on. At most one round is under way. A round that fails is
//! tried again as a whole, since a store that fails may have forgotten what was not flushed.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use storage::store::{Applied, Changes, Store, StoreError};
use tracing::{debug, warn};

use crate::error::Error;
use crate::machine::GroupId;
use crate::metrics::RaftMetrics;

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

/// What a worker has to say of a round.
pub(crate) enum Report {
    /// It is done.
    Stored(Stored),
    /// The disk had no room for it; it will be tried again.
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
    rounds: Option<Sender<Vec<Job>>>,
    reports: Receiver<Result<Report, StoreError>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for ThreadWorker {
    /// Waits for the thread, so that the store is closed before the data directory is let go.
    fn drop(&mut self) {
        self.rounds = None;
        if let Some(thread) = self.thread.take() {
            // Its panic has been reported by the hook, and nothing waits for it.
            let _ = thread.join();
        }
    }
}

/// See [`Worker::Inline`].
pub struct InlineWorker {
    store: Box<dyn Store>,
    round: Option<Vec<Job>>,
}

impl Worker {
    /// A worker without a thread.
    pub fn inline(store: Box<dyn Store>) -> Self {
        Self::Inline(InlineWorker { store, round: None })
    }

    /// A thread that applies rounds, and calls `nudge` when one is done.
    pub(crate) fn thread(
        store: Box<dyn Store>,
        nudge: impl Fn() + Send + 'static,
    ) -> Result<Self, Error> {
        let (rounds, to_do) = channel();
        let (reporter, reports) = channel();
        let work = move || work(store, &to_do, &reporter, nudge);
        let spawned = thread::Builder::new().name("skein-state".into()).spawn(work);
        let thread = Some(spawned.map_err(Error::Thread)?);
        Ok(Self::Thread(ThreadWorker { rounds: Some(rounds), reports, thread }))
    }

    /// Hands over a round; only when none is under way.
    pub(crate) fn begin(&mut self, round: Vec<Job>) {
        match self {
            Self::Thread(worker) => {
                // That a worker is gone, the next poll tells.
                let _ = worker.rounds.as_ref().map(|rounds| rounds.send(round));
            }
            Self::Inline(worker) => worker.round = Some(round),
        }
    }

    /// What has come of the round since the last call.
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
                let Some(round) = worker.round.take() else { return Ok(None) };
                match apply(worker.store.as_mut(), &round) {
                    Ok(stored) => Ok(Some(Report::Stored(stored))),
                    Err(error) => {
                        debug!(%error, "checkpoint failed");
                        worker.round = Some(round);
                        match error {
                            StoreError::Damaged { .. } => Err(error),
                            StoreError::Full { .. } => Ok(Some(Report::NoRoom)),
                            _ => Ok(None),
                        }
                    }
                }
            }
        }
    }
}

fn apply(store: &mut dyn Store, round: &[Job]) -> Result<Stored, StoreError> {
    for job in round {
        store.apply(job.group.0, job.from, job.to, job.changes.clone())?;
    }
    store.flush()?;
    Ok(round.iter().map(|job| (job.group, job.to)).collect())
}

/// The worker's thread: a round that fails is tried again until the node ends.
fn work(
    mut store: Box<dyn Store>,
    rounds: &Receiver<Vec<Job>>,
    reporter: &Sender<Result<Report, StoreError>>,
    nudge: impl Fn(),
) {
    let metrics = RaftMetrics::register();
    while let Ok(round) = rounds.recv() {
        let started = Instant::now();
        let mut pause = Duration::from_millis(100);
        let stored = loop {
            match apply(store.as_mut(), &round) {
                Err(error) if !matches!(error, StoreError::Damaged { .. }) => {
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
            // No other round comes before this one is done, so this only waits, or hears of the end.
            if let Err(RecvTimeoutError::Disconnected) = rounds.recv_timeout(pause) {
                return;
            }
            pause = (pause * 2).min(Duration::from_secs(5));
        };
        metrics.checkpoint_seconds.record(started.elapsed());
        let _ = reporter.send(stored.map(Report::Stored));
        nudge();
    }
}
