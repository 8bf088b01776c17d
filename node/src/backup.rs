//! Backups of the whole state: taken from a running node into a folder, checked, and restored into the
//! empty data folders of a cluster of any size.
//!
//! A backup has everything that was acknowledged anywhere before it was begun. Of what happens while it
//! is taken it may have some and lack some; what it has twice, groups know for a repetition.

mod file;
mod restore;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
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
use tokio::sync::oneshot;
use tracing::{error, info};

pub use file::{GroupFile, Manifest, check};
pub use restore::restore;

use crate::config::Config;
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
        /// Its folder.
        folder: PathBuf,
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
    /// The configuration names no folder.
    #[error("this node has no place for backups: set backup.folder in its configuration")]
    NoFolder,
    /// Another one is being taken.
    #[error("a backup is being taken already")]
    Running,
}

/// The backups of a node: one at a time.
#[derive(Debug)]
pub struct Backups {
    folder: Option<PathBuf>,
    /// What the manifest says of the node.
    account: String,
    cluster: Option<String>,
    standing: Mutex<Standing>,
}

impl Backups {
    /// None yet.
    pub fn new(config: &Config) -> Self {
        Self {
            folder: config.backup.folder.clone(),
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
        let folder = backups.folder.clone().ok_or(NotBegun::NoFolder)?;
        let of = usize::from(shared.shards) + 1;
        let mut standing = backups.standing.lock();
        if let Standing::Running { .. } = *standing {
            return Err(NotBegun::Running);
        }
        *standing = Standing::Running { groups: 0, of };
        drop(standing);
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            let taken = take(&shared, &folder).await;
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
async fn take(shared: &Arc<Shared>, folder: &Path) -> anyhow::Result<Standing> {
    let started = Instant::now();
    let now = OffsetDateTime::now_utc();
    let id = uuid::Uuid::new_v4().simple().to_string();
    let stamp = format_description!("[year][month][day]T[hour][minute][second]Z");
    let cluster = shared.backups.cluster.as_deref().unwrap_or("alone");
    let name = format!("{cluster}-{}-{}", now.format(&stamp)?, &id[..8]);
    let (whole, partial) = (folder.join(&name), folder.join(format!("{name}.partial")));
    fs::create_dir_all(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
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
        let manifest = write_groups(shared, &partial, manifest).await?;
        manifest.write(&partial)?;
        fs::rename(&partial, &whole).and_then(|()| File::open(folder)?.sync_all())?;
        anyhow::Ok(manifest.groups.iter().map(|group| group.bytes).sum())
    };
    let bytes = written.await.inspect_err(|_| {
        // The error before says more than another one here.
        let _ = fs::remove_dir_all(&partial);
    })?;
    info!(folder = %whole.display(), bytes, took = ?started.elapsed(), "backup taken");
    metrics::gauge!("backup_last_success_timestamp_seconds").set(now.unix_timestamp() as f64);
    Ok(Standing::Done { folder: whole, id, bytes })
}

async fn write_groups(
    shared: &Arc<Shared>,
    folder: &Path,
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
        let folder = folder.to_owned();
        let written = tokio::task::spawn_blocking(move || write_group(&folder, &backup, &recorded));
        manifest.groups.push(written.await??);
        *shared.backups.standing.lock() = Standing::Running { groups: number + 1, of };
    }
    Ok(manifest)
}

type Taken = Receiver<GroupBackup>;

/// The next group, where waiting for it keeps nobody else from going on.
async fn next(taken: Taken) -> anyhow::Result<(Taken, Option<GroupBackup>)> {
    let next = tokio::task::spawn_blocking(move || {
        let next = taken.recv().ok();
        (taken, next)
    });
    Ok(next.await?)
}

fn write_group(
    folder: &Path,
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
    let path = folder.join(&file);
    let write = || -> io::Result<u64> {
        let mut out = BufWriter::new(File::create_new(&path)?);
        let bytes = whole.write(&mut out)?;
        out.flush()?;
        out.get_ref().sync_all()?;
        Ok(bytes)
    };
    let bytes = write().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(GroupFile { group: group.0, file, index: applied.0, term: applied.1, bytes, outbox_end })
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
