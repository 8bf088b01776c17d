//! What is known of a damaged log, and what becomes of its files.
//!
//! All groups share the files, and whose records stood in what cannot be read nobody can tell. But each
//! segment begins with the places of all groups, so what stands behind the first of them after the
//! damage can be relied on, and a group that needs nothing from before has lost nothing.

#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

use tracing::warn;

use super::index::Index;
use super::segment::{DAMAGED, damaged_path};
use super::{Group, Log};

/// How many files are kept that damage has made useless.
const KEPT: usize = 8;

/// What [`Log::open`] does about damage to what was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDamage {
    /// It fails.
    Refuse,
    /// It drops everything from the damage on. Loses acknowledged data.
    Truncate,
    /// It opens what can be relied on; [`Log::lost`] tells which groups may have lost something.
    Leave {
        /// Whether there was a log before, so that it is damage if there is none.
        begun: bool,
    },
}

/// A place where the log cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment.
    pub path: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// What is wrong there.
    pub what: String,
}

/// What a group may have lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// These entries.
    Entries {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// Everything, also what it had voted.
    Everything,
}

impl Log {
    /// Where the log was damaged when it was opened.
    pub fn damages(&self) -> &[Damage] {
        &self.damages
    }

    /// What a group may have lost by that.
    pub fn lost(&self, group: Group) -> Option<Lost> {
        match self.index.get(group) {
            Some(index) => index.hole().map(|(from, to)| Lost::Entries { from, to }),
            None if self.damages.is_empty() => None,
            None => Some(Lost::Everything),
        }
    }

    /// Gives the files that damage has made useless other names, once it is safe elsewhere what was
    /// lost: until then each start finds it anew. The newest eight such files are kept.
    pub fn set_aside(&mut self) -> io::Result<Vec<PathBuf>> {
        let (disk, dir) = (&self.files.disk, &self.files.dir);
        let mut aside = Vec::new();
        for id in self.useless.drain(..) {
            let to = damaged_path(dir, id);
            disk.rename(&self.files.path(id), &to)?;
            aside.push(to);
        }
        if aside.is_empty() {
            return Ok(aside);
        }
        let names = disk.list(dir)?.into_iter().rev();
        for name in names.filter(|name| name.ends_with(DAMAGED)).skip(KEPT) {
            let file = dir.join(name);
            warn!(file = %file.display(), "a file that damage had made useless is removed");
            disk.remove(&file)?;
            aside.retain(|kept| *kept != file);
        }
        disk.sync_dir(dir)?;
        Ok(aside)
    }

    /// Nothing that was read until now can be relied on.
    pub(super) fn leave(&mut self, damage: Damage) {
        self.useless.extend(self.segments.drain(..).map(|segment| segment.id));
        self.index = Index::default();
        self.damages.push(damage);
    }
}
