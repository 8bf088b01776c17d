//! The hash table of a trie's edges.
//!
//! Open addressing in one array, so that finding an edge among millions costs one miss of the cache
//! where a general hash table costs two: most of what a match costs is such misses.
//!
//! Invariant: from where an edge's hash points to where the edge lies, no slot is empty.

use super::wildcards::NONE;

/// A child, with its hash so that growing the table looks at no node.
#[derive(Clone, Copy, Debug)]
struct Edge {
    hash: u32,
    /// [`NONE`] in an empty slot.
    child: u32,
}

const EMPTY: Edge = Edge { hash: 0, child: NONE };

/// Children found by a hash of their parent and label.
#[derive(Clone, Debug, Default)]
pub(super) struct Edges {
    /// A power of two of slots, or none.
    slots: Vec<Edge>,
    len: usize,
}

impl Edges {
    const LEAST_SLOTS: usize = 8;

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The child with this hash that is wanted.
    pub(super) fn find(&self, hash: u32, is_wanted: impl Fn(u32) -> bool) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let mut at = self.home(hash);
        loop {
            let edge = self.slots[at];
            match edge.child {
                NONE => return None,
                child if edge.hash == hash && is_wanted(child) => return Some(child),
                _ => at = self.next(at),
            }
        }
    }

    /// Adds a child that is not in the table.
    pub(super) fn insert(&mut self, hash: u32, child: u32) {
        // With a third of the slots empty, runs of full ones rarely leave a cache line.
        if self.slots.len() * 2 <= self.len * 3 {
            self.resize((self.slots.len() * 2).max(Self::LEAST_SLOTS));
        }
        self.place(Edge { hash, child });
        self.len += 1;
    }

    /// Removes a child that is in the table.
    pub(super) fn remove(&mut self, hash: u32, child: u32) {
        let mut hole = self.home(hash);
        while self.slots[hole].child != child {
            assert!(self.slots[hole].child != NONE, "a child among many has its edge");
            hole = self.next(hole);
        }
        // Move up what the hole would otherwise cut off from where its hash points.
        let mut at = hole;
        loop {
            at = self.next(at);
            let edge = self.slots[at];
            if edge.child == NONE {
                break;
            }
            if self.distance(self.home(edge.hash), at) >= self.distance(hole, at) {
                self.slots[hole] = edge;
                hole = at;
            }
        }
        self.slots[hole] = EMPTY;
        self.len -= 1;
        if self.slots.len() > Self::LEAST_SLOTS && self.len < self.slots.len() / 8 {
            self.resize(self.slots.len() / 4);
        }
    }

    fn resize(&mut self, slots: usize) {
        let old = std::mem::replace(&mut self.slots, vec![EMPTY; slots]);
        old.into_iter().filter(|edge| edge.child != NONE).for_each(|edge| self.place(edge));
    }

    fn place(&mut self, edge: Edge) {
        let mut at = self.home(edge.hash);
        while self.slots[at].child != NONE {
            at = self.next(at);
        }
        self.slots[at] = edge;
    }

    fn home(&self, hash: u32) -> usize {
        hash as usize & (self.slots.len() - 1)
    }

    fn next(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }

    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & (self.slots.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Few hashes, many of them neighbours, so that runs collide, wrap around and are cut.
        #[test]
        fn edges_are_found_until_removed(
            steps in prop::collection::vec((1u32..60, 0u32..24, any::<bool>()), 1..200),
        ) {
            let (mut edges, mut model) = (Edges::default(), BTreeMap::new());
            for (child, low, insert) in steps {
                let hash = low % 6 + 0x7fff_fff8 + (low / 6);
                match (model.get(&child), insert) {
                    (None, true) => {
                        edges.insert(hash, child);
                        model.insert(child, hash);
                    }
                    (Some(&hash), false) => {
                        edges.remove(hash, child);
                        model.remove(&child);
                    }
                    _ => {}
                }
                prop_assert_eq!(edges.len(), model.len());
                for child in 1..60 {
                    let found = |hash| edges.find(hash, |it| it == child);
                    match model.get(&child) {
                        Some(hash) => prop_assert_eq!(found(*hash), Some(child)),
                        None => prop_assert_eq!(found(hash), None),
                    }
                }
            }
        }
    }
}
