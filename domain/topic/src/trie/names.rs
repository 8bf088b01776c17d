//! Names with a value each, in a hash table that grows by one place at a time.
//!
//! A node may have a million filters without wildcards; a table that doubles would have half of it empty
//! just after it grew, and move all of it at once. This one is a linear hash table (Litwin, 1980): it has as
//! many chains as entries, a new entry splits one chain in two, and one less joins two.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::DefaultHashBuilder;

use super::pages::Pages;

/// The end of a chain. There are never as many entries: their memory would not fit into a machine.
const NONE: u32 = u32::MAX;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Names<V> {
    entries: Pages<Entry<V>>,
    /// The first entry of each chain; as many as there are entries.
    heads: Pages<u32>,
    /// Drawn by chance: nobody can choose names that collide.
    hasher: DefaultHashBuilder,
}

#[derive(Clone, Debug)]
struct Entry<V> {
    name: Arc<str>,
    value: V,
    hash: u32,
    /// The next one of its chain.
    next: u32,
}

/// The chain of a hash among `count`: the low bits that `count` needs, or one less where it has no such
/// chain yet.
fn chain(hash: u32, count: usize) -> usize {
    let mask = count.next_power_of_two() - 1;
    let chain = hash as usize & mask;
    if chain < count { chain } else { chain & (mask >> 1) }
}

/// The chain that chain `at` was split off, and joins again.
fn origin(at: usize) -> usize {
    at & !(1 << at.ilog2())
}

impl<V> Names<V> {
    pub(super) fn new() -> Self {
        let hasher = DefaultHashBuilder::default();
        Self { entries: Pages::new(), heads: Pages::new(), hasher }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn get(&self, name: &str) -> Option<&V> {
        Some(&self.entries[self.find(name, self.hash(name))?].value)
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut V> {
        let at = self.find(name, self.hash(name))?;
        Some(&mut self.entries[at].value)
    }

    /// The value of a name, which is inserted with its default when absent.
    pub(super) fn entry(&mut self, name: impl Into<Arc<str>> + AsRef<str>) -> &mut V
    where
        V: Default,
    {
        let hash = self.hash(name.as_ref());
        let at = match self.find(name.as_ref(), hash) {
            Some(at) => at,
            None => self.insert(name.into(), V::default(), hash),
        };
        &mut self.entries[at].value
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<V> {
        let at = self.find(name, self.hash(name))?;
        self.relink(at, self.entries[at].next);
        let last = self.len() - 1;
        if at != last {
            self.relink(last, index(at));
        }
        let removed = self.entries.swap_remove(at)?.value;
        self.join();
        Some(removed)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &V)> {
        self.entries.iter().map(|entry| (&entry.name, &entry.value))
    }

    fn hash(&self, name: &str) -> u32 {
        let hash = self.hasher.hash_one(name);
        (hash ^ (hash >> 32)) as u32
    }

    fn find(&self, name: &str, hash: u32) -> Option<usize> {
        if self.len() == 0 {
            return None;
        }
        let mut at = self.heads[chain(hash, self.len())];
        while at != NONE {
            let entry = &self.entries[at as usize];
            if entry.hash == hash && *entry.name == *name {
                return Some(at as usize);
            }
            at = entry.next;
        }
        None
    }

    fn insert(&mut self, name: Arc<str>, value: V, hash: u32) -> usize {
        self.split();
        let at = self.len();
        let head = &mut self.heads[chain(hash, at + 1)];
        let next = std::mem::replace(head, index(at));
        self.entries.push(Entry { name, value, hash, next });
        at
    }

    /// Makes one more chain, of the entries that belong there.
    fn split(&mut self) {
        let new = self.heads.len();
        if new == 0 {
            return self.heads.push(NONE);
        }
        let (mut kept, mut moved) = (NONE, NONE);
        let mut at = self.heads[origin(new)];
        while at != NONE {
            let entry = &mut self.entries[at as usize];
            let side = if chain(entry.hash, new + 1) == new { &mut moved } else { &mut kept };
            let next = std::mem::replace(&mut entry.next, *side);
            *side = at;
            at = next;
        }
        self.heads[origin(new)] = kept;
        self.heads.push(moved);
    }

    /// Makes one chain less: the last one is joined to the one that it was split off.
    fn join(&mut self) {
        let Some(mut at) = self.heads.pop() else { return };
        let joined = self.heads.len();
        while at != NONE {
            let head = &mut self.heads[origin(joined)];
            let next = std::mem::replace(&mut self.entries[at as usize].next, *head);
            *head = at;
            at = next;
        }
    }

    /// Has what leads to an entry lead elsewhere.
    fn relink(&mut self, entry: usize, to: u32) {
        let from = index(entry);
        let chain = chain(self.entries[entry].hash, self.len());
        let mut at = self.heads[chain];
        if at == from {
            self.heads[chain] = to;
            return;
        }
        while at != NONE {
            let next = &mut self.entries[at as usize].next;
            if *next == from {
                *next = to;
                return;
            }
            at = *next;
        }
    }
}

fn index(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(NONE)
}
