//! A store in memory, for simulations: it forgets what was not flushed when it crashes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Applied, Changes, Store, StoreError, Visit};
use crate::log::Group;

/// A store in memory; clones share it.
#[derive(Clone, Default)]
pub struct MemStore {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    flushed: BTreeMap<Group, Pairs>,
    now: BTreeMap<Group, Pairs>,
    /// What was applied since the last flush, in order.
    unflushed: Vec<(Group, Applied, Changes)>,
    failing: Failing,
    damaged: BTreeSet<Group>,
}

/// What keeps a store from being written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failing {
    /// Nothing does.
    #[default]
    No,
    /// Something that may pass.
    Yes,
    /// The disk has no room.
    Full,
}

#[derive(Clone, Default)]
struct Pairs {
    applied: Applied,
    pairs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Pairs {
    fn apply(&mut self, to: Applied, changes: Changes) {
        self.applied = to;
        for (key, value) in changes {
            match value {
                Some(value) => drop(self.pairs.insert(key, value)),
                None => drop(self.pairs.remove(&key)),
            }
        }
    }
}

impl MemStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The power fails: of what was applied since the last flush only the first `kept` survive.
    pub fn crash(&self, kept: usize) {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.failing = Failing::No;
        for (group, to, changes) in state.unflushed.drain(..).take(kept) {
            state.flushed.entry(group).or_default().apply(to, changes);
        }
        state.now = state.flushed.clone();
    }

    /// How many batches were applied since the last flush.
    pub fn unflushed(&self) -> usize {
        self.lock().unflushed.len()
    }

    /// Makes what a group has unreadable.
    pub fn damage(&self, group: Group) {
        self.lock().damaged.insert(group);
    }

    /// Makes every write fail, or work again.
    pub fn set_failing(&self, failing: Failing) {
        self.lock().failing = failing;
    }
}

impl Failing {
    fn check(self, action: &'static str) -> Result<(), StoreError> {
        let (path, reason) = (PathBuf::from("memory"), "simulated failure".to_owned());
        match self {
            Self::No => Ok(()),
            Self::Yes => Err(StoreError::Failed { path, action, reason }),
            Self::Full => Err(StoreError::Full { path, action, reason }),
        }
    }
}

impl Store for MemStore {
    fn applied(&mut self, group: Group) -> Result<Applied, StoreError> {
        Ok(self.lock().now.get(&group).map(|pairs| pairs.applied).unwrap_or_default())
    }

    fn load(&mut self, group: Group, visit: &mut Visit<'_>) -> Result<Applied, StoreError> {
        let state = self.lock();
        if state.damaged.contains(&group) {
            let what = "simulated damage".to_owned();
            return Err(StoreError::Damaged { path: PathBuf::from("memory"), group, what });
        }
        let Some(of) = state.now.get(&group) else { return Ok(Applied::default()) };
        for (key, value) in &of.pairs {
            visit(key, value).map_err(|reason| StoreError::Refused { group, reason })?;
        }
        Ok(of.applied)
    }

    fn apply(
        &mut self,
        group: Group,
        from: u64,
        to: Applied,
        changes: Changes,
    ) -> Result<(), StoreError> {
        let mut state = self.lock();
        state.failing.check("apply")?;
        let of = state.now.entry(group).or_default();
        if ![from, to.index].contains(&of.applied.index) {
            let what = format!("it holds up to {} instead of {from}", of.applied.index);
            return Err(StoreError::Damaged { path: PathBuf::from("memory"), group, what });
        }
        of.apply(to, changes.clone());
        state.unflushed.push((group, to, changes));
        Ok(())
    }

    fn replace(
        &mut self,
        group: Group,
        to: Applied,
        pairs: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<(), StoreError> {
        let mut state = self.lock();
        state.failing.check("replace")?;
        let of = state.now.entry(group).or_default();
        let old = of.pairs.keys().map(|key| (key.clone(), None));
        let new = pairs.iter().map(|(key, value)| (key.clone(), Some(value.clone())));
        let changes: Changes = old.chain(new).collect();
        of.apply(to, changes.clone());
        state.unflushed.push((group, to, changes));
        Ok(())
    }

    fn begin_anew(&mut self, keep: &[Group]) -> Result<(), StoreError> {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.failing.check("begin anew")?;
        state.unflushed.clear();
        state.damaged.clear();
        state.now.retain(|group, _| keep.contains(group));
        state.flushed = state.now.clone();
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        let mut state = self.lock();
        state.failing.check("flush")?;
        state.unflushed.clear();
        state.flushed = state.now.clone();
        Ok(())
    }
}
