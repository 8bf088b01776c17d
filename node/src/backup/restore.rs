//! From a backup to the data folder of a node that has not started yet.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{bail, ensure};
use cluster::{GroupId, Restoration};
use tokio::runtime::Handle;

use super::file::{GroupFile, Manifest, check};
use super::place;
use crate::config::Config;
use crate::kept::{self, Restored};
use crate::node::raft_config;

/// Puts the backup in a folder or at a URL into the empty data folder of a node; `said` hears of each group that is checked, and
/// then of each that is written. Every founder of the new cluster needs the same.
pub fn restore(
    config: &Config,
    from: &Path,
    runtime: &Handle,
    mut said: impl FnMut(&str, &GroupFile),
) -> anyhow::Result<Manifest> {
    let from = &*place::open(from, &config.backup.s3, runtime)?;
    let manifest = Manifest::read(from)?;
    refuse_other(config, &manifest)?;
    // All of it, before anything is written.
    check(from, |group| said("checked", group))?;
    let mut restoration = Restoration::begin(&raft_config(config))?;
    let outbox_ends: BTreeMap<_, _> =
        manifest.groups.iter().map(|it| (it.group, it.outbox_end)).collect();
    let restored = Restored { backup: manifest.id.clone(), outbox_ends: outbox_ends.clone() };
    kept::keep_restored(&config.data, &restored)?;
    for group in &manifest.groups {
        let (backup, id) = (group.read(from)?, GroupId(group.group));
        let mut pairs = backup.pairs()?.into_iter().collect();
        match id {
            GroupId::META => fleet::registry::forget_members(&mut pairs),
            _ => fleet::shard::forget_later_entries(&mut pairs, &outbox_ends)?,
        }
        restoration.put(id, backup.applied, pairs.into_iter().collect())?;
        said("written", group);
    }
    restoration.finish()?;
    kept::keep(config)?;
    Ok(manifest)
}

/// Refuses a configuration that does not go with a backup.
fn refuse_other(config: &Config, manifest: &Manifest) -> anyhow::Result<()> {
    let Manifest { id, shards, account, .. } = manifest;
    ensure!(
        config.shards == *shards,
        "the backup has {shards} shards, the configuration {}: set shards = {shards}",
        config.shards
    );
    let configured = kept::named(&config.account);
    ensure!(
        configured == *account,
        "the ARNs in the backup's policies name \"{account}\", the configuration \"{configured}\""
    );
    let Some(cluster) = &config.cluster else { return Ok(()) };
    if cluster.restored_from.as_ref() != Some(id) {
        bail!(
            "set restored_from = \"{id}\" in [cluster], on every node: one that has forgotten \
             everything must not take part in what begins with a backup"
        );
    }
    ensure!(
        cluster.founders().contains(&cluster.node),
        "node {} is no founder: it gets everything from the others when it is added",
        cluster.node
    );
    Ok(())
}
