//! Filters with a value each, found by the names they match.
//!
//! Most filters in a fleet spell one name (`things/lamp-7/commands`), so those live in one hash table
//! and cost one lookup; only filters with wildcards are spread over a trie of levels.
//!
//! Invariant: a filter without a value occupies no memory that another filter could not use.

mod edges;
mod label;
mod names;
mod pages;
#[cfg(test)]
mod tests;
mod walk;
mod wildcards;

use std::sync::Arc;

use crate::is_wildcard;
use names::Names;
use wildcards::Wildcards;

/// A map from valid topic filters to values that answers which of them match a name.
#[derive(Clone, Debug)]
pub struct FilterTrie<V> {
    exact: Names<V>,
    wildcards: Wildcards<V>,
}

impl<V> FilterTrie<V> {
    /// An empty trie, which allocates nothing yet.
    pub fn new() -> Self {
        Self { exact: Names::new(), wildcards: Wildcards::new() }
    }

    /// How many filters have a value.
    pub fn len(&self) -> usize {
        self.exact.len() + self.wildcards.len()
    }

    /// Says whether no filter has a value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of exactly this filter.
    pub fn get(&self, filter: &str) -> Option<&V> {
        if is_wildcard(filter) { self.wildcards.get(filter) } else { self.exact.get(filter) }
    }

    /// The value of exactly this filter, to change it.
    pub fn get_mut(&mut self, filter: &str) -> Option<&mut V> {
        if is_wildcard(filter) {
            self.wildcards.get_mut(filter)
        } else {
            self.exact.get_mut(filter)
        }
    }

    /// The value of this filter, which is inserted with its default when absent. Of a filter without
    /// wildcards a shared string is kept as it is.
    pub fn entry(&mut self, filter: impl Into<Arc<str>> + AsRef<str>) -> &mut V
    where
        V: Default,
    {
        if is_wildcard(filter.as_ref()) {
            self.wildcards.entry(filter.as_ref())
        } else {
            self.exact.entry(filter)
        }
    }

    /// Removes a filter, and the branches that led only to it.
    pub fn remove(&mut self, filter: &str) -> Option<V> {
        if is_wildcard(filter) { self.wildcards.remove(filter) } else { self.exact.remove(filter) }
    }

    /// Calls `f` with the value of every filter that matches a valid name, in no particular order.
    ///
    /// Allocates nothing and does not recurse. Its work is bounded by the branches that agree with the
    /// name: each is walked once, however many wildcards lead there.
    pub fn for_each_match<'a>(&'a self, name: &str, mut f: impl FnMut(&'a V)) {
        self.exact.get(name).into_iter().for_each(&mut f);
        self.wildcards.for_each_match(name, f);
    }

    /// Every filter and its value, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (String, &V)> {
        let exact = self.exact.iter().map(|(filter, value)| (filter.to_string(), value));
        exact.chain(self.wildcards.iter())
    }
}

impl<V> Default for FilterTrie<V> {
    fn default() -> Self {
        Self::new()
    }
}
