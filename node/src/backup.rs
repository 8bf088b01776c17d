//! Backups of the whole state: taken from a running node into a folder or an S3-compatible store, checked,
//! and restored into the empty data folders of a cluster of any size.
//!
//! A backup has everything that was acknowledged anywhere before it was begun. Of what happens while it
//! is taken it may have some and lack some; what it has twice, groups know for a repetition.

mod bucket;
mod file;
mod place;
mod restore;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use cluster::{GroupBackup, GroupId};
use fleet::shard::OutboxEntry;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::macros::format_description;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracing::{error, info, warn};

pub use file::{GroupFile, Manifest};
pub use restore::restore;

use self::place::Place;
use crate::config::{self, Config};
use crate::host::Signal;
use crate::shared::Shared;
use crate::{identity, kept};

/// Between two questions how a backup gets on.
const POLL: Duration = Duration::from_millis(200);

/// How a node's backup stands.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Standing {
    /// None was taken since the node has started.
    #[default]
    None,
    /// One is being taken.
    Running {
        /// Groups that are written.
        groups: usize,
        /// Groups there are.
        of: usize,
    },
    /// The last one is complete.
    Done {
        /// Its folder or its URL.
        place: String,
        /// Its name for [`crate::config::Cluster::restored_from`].
        id: String,
        /// Bytes of its files.
        bytes: u64,
    },
    /// The last one was not completed, and nothing is left of it.
    Failed {
        /// What was in the way.
        why: String,
    },
}

/// Why no backup is begun.
#[derive(Debug, thiserror::Error)]
pub enum NotBegun {
    /// The configuration names none.
    #[error(
        "this node has no place for backups: set backup.folder or backup.url in its configuration"
    )]
    NoPlace,
    /// Another one is being taken.
    #[error("a backup is being taken already")]
    Running,
}

/// The backups of a node: one at a time.
#[derive(Debug)]
pub struct Backups {
    /// Where they go.
    to: config::Backup,
    /// What the manifest says of the node.
    account: String,
    cluster: Option<String>,
    standing: Mutex<Standing>,
}

impl Backups {
    /// None yet.
    pub fn new(config: &Config) -> Self {
        Self {
            to: config.backup.clone(),
            account: kept::named(&config.account),
            cluster: config.cluster.as_ref().map(|cluster| cluster.id.clone()),
            standing: Mutex::default(),
        }
    }

    /// How the last one stands.
    pub fn standing(&self) -> Standing {
        self.standing.lock().clone()
    }

    /// Begins one on the runtime that this is called on.
    pub fn begin(shared: &Arc<Shared>) -> Result<(), NotBegun> {
        let backups = &shared.backups;
        let above = backups.to.place().ok_or(NotBegun::NoPlace)?;
        let of = usize::from(shared.shards) + 1;
        let mut standing = backups.standing.lock();
        if let Standing::Running { .. } = *standing {
            return Err(NotBegun::Running);
        }
        *standing = Standing::Running { groups: 0, of };
        drop(standing);
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            let taken = take(&shared, &above).await;
            // Where nobody hears it, the node is stopping.
            let _ = shared.groups.signal(Signal::Record(false));
            let (standing, result) = match taken {
                Ok(done) => (done, "success"),
                Err(error) => {
                    error!(error = format!("{error:#}"), "no backup was taken");
                    (Standing::Failed { why: format!("{error:#}") }, "failure")
                }
            };
            metrics::counter!("backup_total", "result" => result).increment(1);
            *shared.backups.standing.lock() = standing;
        });
        Ok(())
    }
}

/// Takes a backup; on an error nothing is left of it.
async fn take(shared: &Arc<Shared>, above: &Path) -> anyhow::Result<Standing> {
    let started = Instant::now();
    let now = OffsetDateTime::now_utc();
    let id = uuid::Uuid::new_v4().simple().to_string();
    let stamp = format_description!("[year][month][day]T[hour][minute][second]Z");
    let cluster = shared.backups.cluster.as_deref().unwrap_or("alone");
    let at = above.join(format!("{cluster}-{}-{}", now.format(&stamp)?, &id[..8]));
    let s3 = shared.backups.to.s3.clone();
    let runtime = Handle::current();
    // Reads files.
    let place = blocking(move || place::open(&at, &s3, &runtime)).await?;
    let place: Arc<dyn Place> = place.into();
    let manifest = Manifest {
        format: Manifest::FORMAT,
        id: id.clone(),
        cluster: shared.backups.cluster.clone(),
        taken: now
            .format(&format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z"))?,
        version: env!("CARGO_PKG_VERSION").into(),
        account: shared.backups.account.clone(),
        shards: shared.shards,
        groups: Vec::new(),
    };
    let written = async {
        let manifest = write_groups(shared, &place, manifest).await?;
        let bytes = manifest.groups.iter().map(|group| group.bytes).sum();
        let place = Arc::clone(&place);
        blocking(move || manifest.write(&*place)).await?;
        anyhow::Ok(bytes)
    };
    let bytes = match written.await {
        Ok(bytes) => bytes,
        Err(error) => {
            discard(&place).await;
            return Err(error);
        }
    };
    let place = place.to_string();
    info!(place, bytes, took = ?started.elapsed(), "backup taken");
    metrics::gauge!("backup_last_success_timestamp_seconds").set(now.unix_timestamp() as f64);
    Ok(Standing::Done { place, id, bytes })
}

/// Removes what was written before an error.
async fn discard(place: &Arc<dyn Place>) {
    let of = Arc::clone(place);
    if let Err(error) = blocking(move || Ok(of.discard()?)).await {
        let (place, error) = (place.to_string(), format!("{error:#}"));
        warn!(place, error, "what was written of a backup is left behind: remove it by hand");
    }
}

/// Waits for disks and networks without keeping anybody else from going on.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await?
}

async fn write_groups(
    shared: &Arc<Shared>,
    place: &Arc<dyn Place>,
    mut manifest: Manifest,
) -> anyhow::Result<Manifest> {
    let stopping = || anyhow!("the node is stopping");
    shared.groups.signal(Signal::Record(true)).map_err(|_| stopping())?;
    // What is recorded from now on is completed by what was acknowledged before.
    let groups = (0..=u32::from(shared.shards)).map(GroupId);
    identity::read_all(shared, groups, |_| ())
        .await
        .context("not every group has a leader that says what a backup must have")?;
    let of = usize::from(shared.shards) + 1;
    let (taker, mut taken) = sync_channel(1);
    shared.groups.capture(taker);
    for number in 0..of {
        let backup;
        (taken, backup) = next(taken).await?;
        let backup = backup.ok_or_else(stopping)?;
        let (answer, recorded) = oneshot::channel();
        let signal = Signal::Recorded { group: backup.group, answer };
        shared.groups.signal(signal).map_err(|_| stopping())?;
        let recorded = recorded.await.map_err(|_| stopping())?;
        let recorded = recorded.context(
            "the outboxes could not be followed, because too much was published or this node fell \
             behind: try again, with a node that keeps up",
        )?;
        let place = Arc::clone(place);
        manifest.groups.push(blocking(move || write_group(&*place, &backup, &recorded)).await?);
        *shared.backups.standing.lock() = Standing::Running { groups: number + 1, of };
    }
    Ok(manifest)
}

type Taken = Receiver<GroupBackup>;

/// The next group, where waiting for it keeps nobody else from going on.
async fn next(taken: Taken) -> anyhow::Result<(Taken, Option<GroupBackup>)> {
    blocking(move || {
        let next = taken.recv().ok();
        Ok((taken, next))
    })
    .await
}

fn write_group(
    place: &dyn Place,
    backup: &GroupBackup,
    recorded: &[OutboxEntry],
) -> anyhow::Result<GroupFile> {
    let GroupBackup { group, applied, .. } = *backup;
    let mut pairs = backup.pairs()?.into_iter().collect();
    let outbox_end = match group {
        GroupId::META => 1,
        _ => fleet::shard::put_back_outbox(&mut pairs, recorded)?,
    };
    let whole = GroupBackup::of(group, applied, pairs);
    let file = format!("group-{group}.skein");
    let written = place.write(&file, &|out| whole.write(out));
    let bytes = written.with_context(|| format!("cannot write {file} to {place}"))?;
    Ok(GroupFile { group: group.0, file, index: applied.0, term: applied.1, bytes, outbox_end })
}

/// Makes sure that the backup in a folder or at a URL could be restored; `said` hears of each group.
pub fn check(
    at: &Path,
    s3: &config::S3,
    runtime: &Handle,
    said: impl FnMut(&GroupFile),
) -> anyhow::Result<Manifest> {
    file::check(&*place::open(at, s3, runtime)?, said)
}

/// Whether the place that a configuration names for backups can be asked; nobody is asked.
pub fn check_place(config: &config::Backup) -> anyhow::Result<()> {
    let Some(place) = config.place() else { return Ok(()) };
    // Only what is sent needs one.
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    place::open(&place, &config.s3, runtime.handle()).map(drop)
}

/// Has a node take a backup, by its admin listener, and says how it gets on; gives what came of it.
pub fn order(admin: &str, mut said: impl FnMut(&Standing)) -> anyhow::Result<Standing> {
    let standing = |body: String| {
        serde_json::from_str(&body).with_context(|| format!("{admin} is no node of this version"))
    };
    let mut now: Standing = standing(crate::admin::ask(admin, "POST", "/admin/backup", "")?)?;
    loop {
        said(&now);
        match &now {
            Standing::Running { .. } => {}
            Standing::Done { .. } => return Ok(now),
            Standing::Failed { why } => bail!("no backup was taken: {why}"),
            Standing::None => bail!("the node has started anew: no backup was taken"),
        }
        thread::sleep(POLL);
        now = standing(crate::admin::ask(admin, "GET", "/admin/backup", "")?)?;
    }
}
