//! Makes a node whose cluster has lost its majority for good the only member of it.
//!
//! The folder is marked first: from then on the node lets nobody in until its own members say that it is
//! alone, however far this got.

use std::fmt::Write as _;

use anyhow::{Context, bail};
use cluster::DataDir;

use crate::config::Config;
use crate::kept;
use crate::node::raft_config;
use crate::preflight;

/// Does it if the loss is accepted, and tells what was done.
pub fn recover(config: &Config, accepts_loss: bool) -> anyhow::Result<String> {
    preflight::check(config).refuse_problems()?;
    let config = &kept::settled(config)?;
    let Some(cluster) = &config.cluster else {
        bail!("this node has no cluster: there is nothing to recover");
    };
    let data = config.data.display();
    kept::folder(&config.data).with_context(|| format!("no node has run on {data}"))?;
    // A node that runs is not marked.
    let folder = DataDir::open(&config.data)?;
    let node = cluster.node;
    if !accepts_loss {
        bail!(
            "this would make node {node} the only member of cluster {:?}. What other nodes have \
             acknowledged and node {node} does not have in {data} is lost; some of what nobody acknowledged \
             may be there. Choose the node that has applied most (`skein cluster status` of each). The others \
             must never be started again with their data folders. To do it, say --accept-loss",
            cluster.id
        );
    }
    let raft = raft_config(config);
    kept::note_recovery(&config.data)?;
    let recovered =
        cluster::recover(&raft, &folder).with_context(|| format!("cannot recover {data}"))?;
    let mut text = String::new();
    for cluster::Recovered { group, voters, last } in recovered {
        let voters: Vec<_> = voters.iter().map(u64::to_string).collect();
        let voters = voters.join(" ");
        // Writing to a string cannot fail.
        let _ = writeln!(text, "group {group}: up to entry {last}; decided by {voters} before");
    }
    text += &format!(
        "node {node} is the only member. Start it, delete the data folders of the others, and add them \
         anew: `skein cluster add`, with `join = true`"
    );
    Ok(text)
}
