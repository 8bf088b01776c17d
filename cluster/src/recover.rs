//! The way out when a majority never returns: this node's replicas go on alone.
//!
//! Each group's members become this node and nobody else. The log keeps everything that it has, also what
//! was never committed; only changes of members in it are void from now on. Whatever this node did not
//! have yet is lost, and others that still have it must never be started again.

use std::path::Path;
use std::sync::Arc;

use storage::data::DataDir;
use storage::disk::{Disk, RealDisk};
use storage::log::{Batch, Log, OnDamage, Options};
use storage::store::Store;
use tracing::warn;

use crate::config::{Config, GroupConfig};
use crate::error::Error;
use crate::machine::GroupId;
use crate::members::{self, Members};
use crate::thread::open_store;

/// What a group was before its recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The group.
    pub group: GroupId,
    /// Who decided in it, as far as this node knew.
    pub voters: Vec<u64>,
    /// The last entry that this node has.
    pub last: u64,
}

/// Makes this node the only member of its groups, on its data directory. Nothing is changed unless it has
/// something of every group. Done twice it is as done once.
pub fn recover(config: &Config, data: &DataDir) -> Result<Vec<Recovered>, Error> {
    data.check_log()?;
    let mut store = open_store(config, data)?;
    recover_in(config, Arc::new(RealDisk), &data.log(), &mut store)
}

/// [`recover`] with the log in `dir` of a disk, and a store.
pub fn recover_in(
    config: &Config,
    disk: Arc<dyn Disk>,
    dir: &Path,
    store: &mut dyn Store,
) -> Result<Vec<Recovered>, Error> {
    // What cannot be read is lost, and that is accepted.
    let (segment_bytes, on_damage) = (config.segment_bytes, OnDamage::Truncate);
    let mut log = Log::open(disk, dir, &Options { segment_bytes, on_damage, seed: None })?;
    let mut found = Vec::new();
    for GroupConfig { id, voters } in &config.groups {
        let mut stored = None;
        let mut visit = |key: &[u8], value: &[u8]| {
            if key == members::KEY {
                stored = Some(Members::decode(value)?);
            }
            Ok(())
        };
        let applied = store.load(id.0, &mut visit)?;
        let members = stored.unwrap_or_else(|| Members::initial(voters));
        if !members.are_founded() {
            return Err(Error::Unfounded { group: *id });
        }
        found.push((*id, applied, members));
    }
    let (mut recovered, mut batch) = (Vec::new(), Batch::new());
    for (group, applied, members) in found {
        let last = log.last_index(group.0).max(applied.index);
        if log.last_index(group.0) < applied.index {
            batch.compact(group.0, applied.index, applied.term);
        }
        let voters = members.conf.voters.clone();
        warn!(%group, ?voters, last, "this node goes on alone");
        let alone = Members { void_until: last, ..Members::initial(&[config.node]) };
        let (installed, sources) = (members.installed, members.sources);
        let value = Members { installed, sources, ..alone }.encode();
        let changes = vec![(members::KEY.to_vec(), Some(value))];
        store.apply(group.0, applied.index, applied, changes)?;
        recovered.push(Recovered { group, voters, last });
    }
    store.flush()?;
    if !batch.is_empty() {
        log.append(&mut batch)?;
    }
    log.seal()?;
    Ok(recovered)
}
