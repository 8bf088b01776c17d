//! What a start makes of a damaged log or store.
//!
//! A group that this node decides alone has nobody who could help: the start fails and says what to do.
//! Others go on: what may have lost something is marked in the store first, then its log begins anew
//! behind what is stored, and at last the damaged files get out of the way. A crash in between is as a
//! start that finds the damage. What is stored stays until a snapshot takes its place: it may be the
//! best that is left.

use std::path::Path;
use std::sync::Arc;

use storage::disk::Disk;
use storage::log::{Batch, Damage, HardState, Log, Lost, OnDamage, Options};
use storage::store::{Applied, Store};
use tracing::{error, warn};

use super::open::{Progress, load, reconcile};
use crate::config::{Config, GroupConfig};
use crate::error::Error;
use crate::machine::{GroupId, StateMachine};
use crate::members::{self, Members};
use crate::metrics;

/// What the store has of a group.
pub(super) struct Stored<M> {
    pub(super) group: GroupId,
    pub(super) machine: M,
    pub(super) applied: Applied,
    /// None before anything is stored.
    pub(super) members: Option<Members>,
}

impl<M> Stored<M> {
    /// Whether this node decides alone, as far as it knows.
    fn is_alone(&self, config: &Config) -> bool {
        match &self.members {
            Some(members) => members.are_only(config.node),
            None => founders(config, self.group) == [config.node],
        }
    }
}

/// The voters that a group began with.
fn founders(config: &Config, group: GroupId) -> &[u64] {
    let of = config.groups.iter().find(|it| it.id == group);
    of.map_or(&[], |it| it.voters.as_slice())
}

/// Loads every group's machine. What the store cannot give back is left out of it.
pub(super) fn load_all<M: StateMachine>(
    config: &Config,
    store: &mut dyn Store,
    factory: &mut dyn FnMut(GroupId) -> M,
) -> Result<Vec<Stored<M>>, Error> {
    let mut progress = Progress::new("loading stored state");
    let mut load_one = |store: &mut dyn Store, group| {
        let mut machine = factory(group);
        let (applied, members) = load(group, &mut machine, store, &mut progress)?;
        Ok(Stored { group, machine, applied, members })
    };
    let (mut whole, mut damaged) = (Vec::new(), Vec::new());
    for GroupConfig { id, voters } in &config.groups {
        match load_one(store, *id) {
            Ok(stored) => whole.push(stored),
            Err(Error::Store(why)) if why.is_damage() && voters != &[config.node] => {
                damaged.push((*id, why));
            }
            Err(other) => return Err(other),
        }
    }
    if damaged.is_empty() {
        return Ok(whole);
    }
    if whole.iter().any(|stored| stored.is_alone(config)) {
        return Err(damaged.swap_remove(0).1.into());
    }
    for (group, why) in &damaged {
        metrics::damage_found("state");
        error!(%group, %why, "the stored state of a group is damaged and left out");
    }
    let keep: Vec<_> = whole.iter().map(|stored| stored.group.0).collect();
    store.begin_anew(&keep)?;
    config.groups.iter().map(|group| load_one(store, group.id)).collect()
}

/// Opens the log. Damage is left for others to mend, if there are others.
pub(super) fn open_log<M>(
    config: &Config,
    disk: Arc<dyn Disk>,
    (dir, begun): (&Path, bool),
    seed: Option<u64>,
    stored: &[Stored<M>],
) -> Result<Log, Error> {
    let on_damage = if config.accept_log_loss {
        OnDamage::Truncate
    } else if stored.iter().all(|it| it.is_alone(config)) {
        OnDamage::Refuse
    } else {
        OnDamage::Leave { begun }
    };
    let log =
        Log::open(disk, dir, &Options { segment_bytes: config.segment_bytes, on_damage, seed })?;
    if on_damage == OnDamage::Refuse && begun && log.groups().is_empty() {
        let group = stored.first().map_or(GroupId::META, |it| it.group);
        let what = "there is no log any more".into();
        let damage = Damage { path: dir.to_owned(), offset: 0, what };
        return Err(Error::Lost { group, damage, lost: Lost::Everything });
    }
    for damage in log.damages() {
        metrics::damage_found("log");
        error!(
            file = %damage.path.display(), offset = damage.offset, what = damage.what,
            "the log is damaged"
        );
    }
    Ok(log)
}

/// Compares log and store; marks what has lost something. Gives each group's members.
pub(super) fn compare<M>(
    config: &Config,
    log: &mut Log,
    store: &mut dyn Store,
    stored: &[Stored<M>],
) -> Result<Vec<Members>, Error> {
    let (mut batch, mut all) = (Batch::new(), Vec::new());
    // One that has nothing was begun anew by this very start.
    let mut is_store_whole = stored.iter().any(|it| it.applied.index > 0);
    for it in stored {
        let (group, applied) = (it.group, it.applied);
        let known = it.members.clone();
        let members = known.unwrap_or_else(|| Members::initial(founders(config, group)));
        let is_consistent = |log: &Log| {
            let (compacted, last) = (log.compacted(group.0).0, log.last_index(group.0));
            log.lost(group.0).is_none() && compacted == applied.index && last == applied.index
        };
        if members.damaged {
            if !is_consistent(log) {
                begin_anew(&mut batch, log, group, applied);
            }
            all.push(members);
            continue;
        }
        let found = match log.lost(group.0) {
            Some(lost) => Err(Error::Lost { group, lost, damage: log.damages()[0].clone() }),
            None => reconcile(config, log, group, applied, &members),
        };
        let why = match found {
            Ok(()) => {
                all.push(members);
                continue;
            }
            Err(why) if why.is_loss() && !it.is_alone(config) => why,
            Err(why) => return Err(why),
        };
        tell_loss(group, &why);
        if matches!(why, Error::StateLost { .. }) && std::mem::take(&mut is_store_whole) {
            // It opens, and has fallen back to something older: its files are damaged all the same.
            metrics::damage_found("state");
            let groups: Vec<_> = stored.iter().map(|it| it.group.0).collect();
            store.begin_anew(&groups)?;
        }
        // Without any state nothing is known of them either.
        let known = if applied.index > 0 { members } else { Members::default() };
        let marked = Members { damaged: true, ..known };
        let changes = vec![(members::KEY.to_vec(), Some(marked.encode()))];
        store.apply(group.0, applied.index, applied, changes)?;
        begin_anew(&mut batch, log, group, applied);
        all.push(marked);
    }
    if !batch.is_empty() {
        store.flush()?;
        log.append(&mut batch)?;
    }
    match log.set_aside() {
        Ok(aside) => {
            for file in aside {
                warn!(file = %file.display(), "a damaged file of the log is kept there");
            }
        }
        Err(error) => {
            warn!(%error, "damaged files of the log cannot be renamed; the next start tries again")
        }
    }
    Ok(all)
}

/// Tells the operator that others have to bring a group up to date.
pub(super) fn tell_loss(group: GroupId, why: &Error) {
    error!(
        %group, %why,
        "this node has lost something of a group, and takes no part in it until others have brought \
         it up to date"
    );
}

/// A group's log begins behind what is stored. What it has voted, as far as that is known, it keeps.
fn begin_anew(batch: &mut Batch, log: &Log, group: GroupId, applied: Applied) {
    batch.begin_anew(group.0);
    if applied.index > 0 {
        batch.compact(group.0, applied.index, applied.term);
    }
    let known = log.hard_state(group.0);
    batch.hard_state(group.0, HardState { commit: applied.index, ..known });
}
