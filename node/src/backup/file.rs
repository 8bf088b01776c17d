//! What a backup's folder holds.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use cluster::{GroupBackup, GroupId, StateMachine};
use serde::{Deserialize, Serialize};

use crate::host::Machine;

const NAME: &str = "backup.json";

/// What a backup is of. Written last: a folder without it is no backup.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Manifest {
    /// [`Manifest::FORMAT`], or that of another version.
    pub format: u32,
    /// Tells backups apart.
    pub id: String,
    /// The cluster; none of a node that is alone.
    pub cluster: Option<String>,
    /// When it was begun, in RFC 3339.
    pub taken: String,
    /// The version of Skein that took it.
    pub version: String,
    /// Account and region, which ARNs in its policies name.
    pub account: String,
    /// How many groups there are besides `meta`.
    pub shards: u16,
    /// The groups.
    pub groups: Vec<GroupFile>,
}

/// A group of a backup.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct GroupFile {
    /// Its number.
    pub group: u32,
    /// The name of its file.
    pub file: String,
    /// The last entry that is included, and its term.
    pub index: u64,
    /// See `index`.
    pub term: u64,
    /// Length of the file.
    pub bytes: u64,
    /// The sequence that the next entry of its outbox would have.
    pub outbox_end: u64,
}

impl Manifest {
    /// The version of the format that is written here.
    pub const FORMAT: u32 = 1;

    /// Writes it into the folder of its backup.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let path = folder.join(NAME);
        let text = serde_json::to_vec_pretty(self)?;
        fs::write(&path, text)
            .and_then(|()| File::open(&path)?.sync_all())
            .and_then(|()| File::open(folder)?.sync_all())
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads that of a backup.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(NAME);
        let text = fs::read(&path)
            .with_context(|| format!("{} is no backup: cannot read {NAME}", folder.display()))?;
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let damaged = || format!("{} is damaged", path.display());
        let Format { format } = serde_json::from_slice(&text).with_context(damaged)?;
        if format != Self::FORMAT {
            bail!("{} has format {format}, this version reads {}", path.display(), Self::FORMAT);
        }
        let manifest: Self = serde_json::from_slice(&text).with_context(damaged)?;
        let numbers = manifest.groups.iter().map(|group| group.group);
        ensure!(
            numbers.eq(0..=u32::from(manifest.shards)),
            "{} does not name each group once",
            path.display()
        );
        Ok(manifest)
    }
}

impl GroupFile {
    /// Reads the group, and makes sure that it is what a node can take back.
    pub fn read(&self, folder: &Path) -> anyhow::Result<GroupBackup> {
        let path = folder.join(&self.file);
        let read = || -> anyhow::Result<GroupBackup> {
            let backup = GroupBackup::read(&mut BufReader::new(File::open(&path)?))?;
            ensure!(
                (backup.group.0, backup.applied) == (self.group, (self.index, self.term)),
                "it is of another group or another backup"
            );
            let mut machine = Machine::new(GroupId(self.group));
            for (key, value) in backup.pairs()? {
                machine.load(&key, &value)?;
            }
            machine.loaded()?;
            Ok(backup)
        };
        read().with_context(|| format!("{} cannot be used", path.display()))
    }
}

/// Makes sure that a backup could be restored; `said` hears of each group.
pub fn check(folder: &Path, mut said: impl FnMut(&GroupFile)) -> anyhow::Result<Manifest> {
    let manifest = Manifest::read(folder)?;
    for group in &manifest.groups {
        group.read(folder)?;
        said(group);
    }
    Ok(manifest)
}
