//! What a data folder was made with and stays with: the number of shards, the account and the region
//! that ARNs in its policies name, its place in a cluster, and its name.
//!
//! Each is a small file beside the state. A folder of a version that did not write one takes what it
//! is started with first.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::config::{Account, Config, Findings};
use crate::roster::Lives;

const SHARDS: &str = "shards";
const ACCOUNT: &str = "account";
const CLUSTER: &str = "cluster";
/// The name of the folder itself: with another folder a node is another replica.
const FOLDER: &str = "folder";
/// There while a node goes on alone and its cluster does not know it yet.
const RECOVERED: &str = "recovered";
/// The lives of other nodes that this one has let in, as JSON.
const LIVES: &str = "lives";
const RESTORED: &str = "restored";
/// The place of a node that has no cluster.
const ALONE: &str = "alone";

/// Finds what the folder was made with and the configuration has otherwise. Writes nothing.
pub fn check(config: &Config, found: &mut Findings) {
    let data = config.data.display();
    match read(&config.data, SHARDS) {
        Ok(Some(kept)) if kept != config.shards.to_string() => {
            let text = format!(
                "it is {}, but the state in {data} was made with {kept}; the number cannot be changed",
                config.shards
            );
            found.problem("shards", text);
        }
        Ok(_) => {}
        Err(error) => found.problem("data", format!("{error:#}")),
    }
    check_cluster(config, found);
    check_restored(config, found);
    match account(&config.data) {
        Ok(Some(kept)) if kept != named(&config.account) => {
            let text = format!(
                "it is \"{}\", but the state in {data} was made with \"{kept}\", which the ARNs in \
                 its policies name; use that, or another data folder",
                named(&config.account)
            );
            found.problem("account", text);
        }
        Ok(_) => {}
        Err(error) => found.problem("data", format!("{error:#}")),
    }
}

/// Finds a place in a cluster that the folder was not made for: its members are part of the state.
fn check_cluster(config: &Config, found: &mut Findings) {
    let data = config.data.display();
    match place_kept(config) {
        Ok(Some(kept)) if kept != place(config) && kept != place(&otherwise(config)) => {
            let text = format!(
                "it is \"{}\", but the state in {data} was made as \"{kept}\"; a node keeps its cluster, \
                 its number and the founders for all time: use those, or another data folder",
                place(config)
            );
            found.problem("cluster", text);
        }
        Ok(_) => {}
        Err(error) => found.problem("data", format!("{error:#}")),
    }
}

/// The cluster, the node's number in it, and the nodes with which it began.
fn place(config: &Config) -> String {
    let Some(cluster) = &config.cluster else { return ALONE.into() };
    let founders: Vec<_> = cluster.founders().iter().map(u64::to_string).collect();
    let beginning =
        if cluster.joins() { "joined" } else { &format!("founders {}", founders.join(" ")) };
    let place = format!("{} node {} {beginning}", cluster.id, cluster.node);
    match &cluster.restored_from {
        Some(backup) => format!("{place} restored from {backup}"),
        None => place,
    }
}

/// A configuration that says otherwise whether its node joins.
fn otherwise(config: &Config) -> Config {
    let mut config = config.clone();
    if let Some(cluster) = &mut config.cluster {
        cluster.join = !cluster.joins();
    }
    config
}

/// A configuration for the node of its folder. Whether a node joins is asked of an empty folder; any
/// other remembers, so that one configuration can do for nodes that have joined and those that began.
pub fn settled(config: &Config) -> anyhow::Result<Config> {
    let otherwise = otherwise(config);
    let kept = place_kept(config)?.filter(|kept| *kept != place(config));
    let is_otherwise = kept.is_some_and(|kept| kept == place(&otherwise));
    Ok(if is_otherwise { otherwise } else { config.clone() })
}

/// Whether a node has started on the folder.
pub fn has_state(data: &Path) -> anyhow::Result<bool> {
    Ok(read(data, SHARDS)?.is_some())
}

/// What the folder says; one with state that says nothing is of a version without clusters.
fn place_kept(config: &Config) -> anyhow::Result<Option<String>> {
    let kept = read(&config.data, CLUSTER)?;
    let has_state = has_state(&config.data)?;
    Ok(kept.or_else(|| has_state.then(|| ALONE.into())))
}

/// Remembers what the folder does not say yet, and refuses what it says otherwise.
pub fn keep(config: &Config) -> anyhow::Result<()> {
    let mut found = Findings::default();
    check(config, &mut found);
    found.refuse_problems()?;
    // The number of shards last: with it the folder has everything.
    for (name, text) in [
        (CLUSTER, place(config)),
        (ACCOUNT, named(&config.account)),
        (FOLDER, uuid::Uuid::new_v4().simple().to_string()),
        (SHARDS, config.shards.to_string()),
    ] {
        if read(&config.data, name)?.is_none() {
            write(&config.data, name, &text)?;
        }
    }
    Ok(())
}

/// The name of a folder that a node has started on.
pub fn folder(data: &Path) -> anyhow::Result<String> {
    read(data, FOLDER)?.context("the data folder has no name")
}

/// Notes that the node of this folder is to go on alone.
pub fn note_recovery(data: &Path) -> anyhow::Result<()> {
    write(data, RECOVERED, "this node is the only member of its cluster")
}

/// The lives of other nodes that were let in, which are kept in the folder.
pub fn lives(data: &Path) -> anyhow::Result<Lives> {
    let kept = read(data, LIVES)?;
    let folder = data.to_owned();
    let lives = Lives::remember(kept.as_deref(), move |text| write(&folder, LIVES, text));
    lives.with_context(|| {
        let path = data.join(LIVES);
        format!(
            "{} is damaged; without it copies of other nodes' folders may be let in",
            path.display()
        )
    })
}

/// Where it is noted that the node of this folder goes on alone, if it is.
pub fn recovery(data: &Path) -> Option<PathBuf> {
    Some(data.join(RECOVERED)).filter(|path| path.exists())
}

/// What a folder was restored from.
#[derive(Debug, Deserialize, Serialize)]
pub struct Restored {
    /// The backup.
    pub backup: String,
    /// The sequence that the next entry of each group's outbox had.
    pub outbox_ends: BTreeMap<u32, u64>,
}

/// What the folder was restored from, if it was.
pub fn restored(data: &Path) -> anyhow::Result<Option<Restored>> {
    let Some(text) = read(data, RESTORED)? else { return Ok(None) };
    let path = data.join(RESTORED);
    serde_json::from_str(&text).map(Some).with_context(|| format!("{} is damaged", path.display()))
}

/// Remembers what the folder is being restored from.
pub fn keep_restored(data: &Path, restored: &Restored) -> anyhow::Result<()> {
    write(data, RESTORED, &serde_json::to_string(restored)?)
}

/// Finds a folder that should have been restored and was not, or not to the end: with others like it,
/// it would begin a cluster that has forgotten everything.
fn check_restored(config: &Config, found: &mut Findings) {
    let data = config.data.display();
    let restored = match restored(&config.data) {
        Ok(restored) => restored,
        Err(error) => return found.problem("data", format!("{error:#}")),
    };
    if restored.is_some() && !cluster::DataDir::is_used(&config.data) {
        let text =
            format!("the restoration of {data} was cut off: empty the folder and restore it again");
        found.problem("data", text);
    }
    let Some(cluster) = &config.cluster else { return };
    let Some(wanted) = &cluster.restored_from else { return };
    let is_founder = cluster.founders().contains(&cluster.node);
    if is_founder && restored.as_ref().is_none_or(|it| it.backup != *wanted) {
        let text = format!(
            "names backup {wanted}, and {data} was not restored from it: run `skein cluster restore` \
             first"
        );
        found.problem("cluster.restored_from", text);
    }
}

/// The account that a folder was made with, as [`named`] says it.
pub fn account(data: &Path) -> anyhow::Result<Option<String>> {
    read(data, ACCOUNT)
}

/// Account and region, and the partition where it is not the usual one.
pub fn named(account: &Account) -> String {
    let Account { id, region, partition, .. } = account;
    match partition.as_str() {
        "aws" => format!("{id} {region}"),
        partition => format!("{id} {region} {partition}"),
    }
}

fn read(data: &Path, name: &str) -> anyhow::Result<Option<String>> {
    let path = data.join(name);
    match fs::read_to_string(&path) {
        Ok(kept) => Ok(Some(kept.trim().to_owned())),
        // Whether the folder is one is for `DataDir` to say.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn write(data: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let path = data.join(name);
    let new = path.with_extension("new");
    fs::create_dir_all(data)
        .and_then(|()| fs::write(&new, text))
        .and_then(|()| fs::File::open(&new)?.sync_all())
        .and_then(|()| fs::rename(&new, &path))
        .and_then(|()| fs::File::open(data)?.sync_all())
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(data: &Path, text: &str) -> Config {
        let config: Config = toml::from_str(text).unwrap();
        Config { data: data.into(), ..config }
    }

    #[test]
    fn a_folder_stays_with_what_it_was_made_with() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let first = config(&data, "shards = 4\n[account]\nid = '123456789012'");
        keep(&first).unwrap();
        for (text, refused) in [
            ("shards = 4\n[account]\nid = '123456789012'", &[][..]),
            ("shards = 8\n[account]\nid = '123456789012'", &["shards"]),
            ("shards = 4", &["account"]),
            ("shards = 4\n[account]\nid = '123456789012'\nregion = 'eu-west-1'", &["account"]),
            ("shards = 4\n[account]\nid = '123456789012'\npartition = 'aws-cn'", &["account"]),
            ("shards = 8", &["shards", "account"]),
        ] {
            let again = config(&data, text);
            let mut found = Findings::default();
            check(&again, &mut found);
            let keys: Vec<_> = found.problems.iter().map(|problem| &*problem.key).collect();
            assert_eq!(keys, refused, "{text:?}");
            assert_eq!(keep(&again).is_err(), !refused.is_empty(), "{text:?}");
        }
    }

    #[test]
    fn a_folder_stays_in_its_cluster() {
        let cluster = |id: &str, node: u64, peers: &str| {
            format!("[cluster]\nid = '{id}'\nnode = {node}\nfounders = [{peers}]")
        };
        let first = cluster("c", 1, "1, 2, 3");
        for (made, again, refused) in [
            (first.clone(), first.clone(), false),
            (first.clone(), cluster("c", 1, "3, 2, 1"), false),
            (first.clone(), cluster("d", 1, "1, 2, 3"), true),
            (first.clone(), cluster("c", 2, "1, 2, 3"), true),
            (first.clone(), cluster("c", 1, "1, 2, 3, 4"), true),
            (first.clone(), String::new(), true),
            (first.clone(), "[cluster]\nid = 'c'\nnode = 1\njoin = true".into(), true),
            (String::new(), first.clone(), true),
        ] {
            let folder = tempfile::tempdir().unwrap();
            keep(&config(folder.path(), &made)).unwrap();
            let kept = keep(&config(folder.path(), &again));
            assert_eq!(kept.is_err(), refused, "{made:?}, then {again:?}");
        }
        // Whether it joins counts for an empty folder only.
        let named = "[cluster]\nid = 'c'\nnode = 1\ndns = 's-{node}.s:1'\nfounders = [1, 2, 3]";
        let joins = format!("{named}\njoin = true");
        for (made, again, founders) in [(named, &*joins, &[1, 2, 3][..]), (&*joins, named, &[])] {
            let folder = tempfile::tempdir().unwrap();
            keep(&config(folder.path(), made)).unwrap();
            for text in [made, again] {
                let settled = settled(&config(folder.path(), text)).unwrap();
                keep(&settled).unwrap();
                assert_eq!(
                    settled.cluster.unwrap().founders(),
                    founders,
                    "{made:?}, then {text:?}"
                );
            }
        }
        // Of a version without clusters.
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(SHARDS), "16\n").unwrap();
        assert!(keep(&config(folder.path(), &first)).is_err());
        keep(&config(folder.path(), "")).unwrap();
    }

    #[test]
    fn a_folder_that_says_nothing_takes_what_it_is_started_with() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(SHARDS), "16\n").unwrap();
        keep(&config(folder.path(), "[account]\nid = '123456789012'")).unwrap();
        assert_eq!(account(folder.path()).unwrap().as_deref(), Some("123456789012 us-east-1"));
        assert!(keep(&config(folder.path(), "")).is_err());
    }
}
