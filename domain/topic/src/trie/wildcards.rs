//! The trie of the filters that contain wildcards.
//!
//! Nodes lie in one arena and know their parent; one hash table holds all edges that a literal level
//! labels. So a node needs no container of children, a walk finds its way back without a stack, and
//! dropping the deepest trie is dropping two vectors.
//!
//! Invariant: every node but the root has a value or a child.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::label::Label;
use super::walk::Walk;

pub(super) const ROOT: u32 = 0;
/// No node: the root is nobody's child.
pub(super) const NONE: u32 = ROOT;

#[derive(Clone, Debug)]
pub(super) struct Node<V> {
    label: Label,
    /// The next free node while this one is free.
    pub(super) parent: u32,
    /// How many edges with literal levels begin here.
    pub(super) literals: u32,
    /// The child for `+`.
    pub(super) plus: u32,
    /// The child for `#`.
    pub(super) rest: u32,
    pub(super) value: Option<V>,
}

/// An edge in the hash table: a part of its hash, so that growing the table looks at no node.
#[derive(Clone, Copy, Debug)]
struct Edge {
    hash: u32,
    child: u32,
}

impl Edge {
    /// Hash tables look at both ends of 64 bits; an odd factor spreads the 32 over them.
    fn spread(hash: u32) -> u64 {
        u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Wildcards<V> {
    nodes: Vec<Node<V>>,
    free: u32,
    edges: HashTable<Edge>,
    /// Seeded: filters come from clients, who must not be able to choose what collides.
    hasher: DefaultHashBuilder,
    len: usize,
}

impl<V> Wildcards<V> {
    pub(super) fn new() -> Self {
        let (edges, hasher) = (HashTable::new(), DefaultHashBuilder::default());
        Self { nodes: Vec::new(), free: NONE, edges, hasher, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, filter: &str) -> Option<&V> {
        self.node(self.find(filter)?).value.as_ref()
    }

    pub(super) fn get_mut(&mut self, filter: &str) -> Option<&mut V> {
        let node = self.find(filter)?;
        self.nodes[node as usize].value.as_mut()
    }

    pub(super) fn entry(&mut self, filter: &str) -> &mut V
    where
        V: Default,
    {
        if self.nodes.is_empty() {
            self.allocate("", NONE);
        }
        let node = filter.split('/').fold(ROOT, |node, level| self.child_or_insert(node, level));
        let value = &mut self.nodes[node as usize].value;
        self.len += usize::from(value.is_none());
        value.get_or_insert_default()
    }

    pub(super) fn remove(&mut self, filter: &str) -> Option<V> {
        let node = self.find(filter)?;
        let removed = self.nodes[node as usize].value.take()?;
        self.len -= 1;
        if self.len == 0 {
            (self.nodes, self.edges, self.free) = (Vec::new(), HashTable::new(), NONE);
        } else {
            self.prune(node);
        }
        Some(removed)
    }

    pub(super) fn for_each_match<'a>(&'a self, name: &str, f: impl FnMut(&'a V)) {
        if self.len > 0 {
            Walk::new(self, name).run(f);
        }
    }

    pub(super) fn node(&self, node: u32) -> &Node<V> {
        &self.nodes[node as usize]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (String, &V)> {
        let nodes = (ROOT..).zip(&self.nodes);
        let valued = nodes.filter_map(|(node, it)| Some((node, it.value.as_ref()?)));
        valued.map(|(node, value)| (self.filter(node), value))
    }

    /// The filter that leads to a node.
    fn filter(&self, mut node: u32) -> String {
        let mut levels = Vec::new();
        while node != ROOT {
            let it = self.node(node);
            levels.push(it.label.as_bytes());
            node = it.parent;
        }
        levels.reverse();
        String::from_utf8(levels.join(&b'/')).expect("levels are cut from valid filters")
    }

    fn find(&self, filter: &str) -> Option<u32> {
        if self.nodes.is_empty() {
            return None;
        }
        filter.split('/').try_fold(ROOT, |node, level| match self.child(node, level) {
            NONE => None,
            child => Some(child),
        })
    }

    fn child(&self, node: u32, level: &str) -> u32 {
        match level {
            "+" => self.node(node).plus,
            "#" => self.node(node).rest,
            _ => self.literal(node, level.as_bytes(), self.level_hash(level.as_bytes())),
        }
    }

    /// The child behind a literal level, given the level's hash.
    pub(super) fn literal(&self, node: u32, level: &[u8], level_hash: u64) -> u32 {
        let hash = self.edge_hash(node, level_hash);
        let found = self.edges.find(Edge::spread(hash), |edge| {
            let child = self.node(edge.child);
            edge.hash == hash && child.parent == node && child.label.as_bytes() == level
        });
        found.map_or(NONE, |edge| edge.child)
    }

    /// Apart from [`Self::edge_hash`], so that a walk hashes a long level once.
    pub(super) fn level_hash(&self, level: &[u8]) -> u64 {
        self.hasher.hash_one(level)
    }

    fn edge_hash(&self, parent: u32, level_hash: u64) -> u32 {
        self.hasher.hash_one((parent, level_hash)) as u32
    }

    fn child_or_insert(&mut self, node: u32, level: &str) -> u32 {
        let found = self.child(node, level);
        if found != NONE {
            return found;
        }
        let child = self.allocate(level, node);
        let parent = &mut self.nodes[node as usize];
        match level {
            "+" => parent.plus = child,
            "#" => parent.rest = child,
            _ => {
                parent.literals += 1;
                let hash = self.edge_hash(node, self.level_hash(level.as_bytes()));
                let rehash = |edge: &Edge| Edge::spread(edge.hash);
                self.edges.insert_unique(Edge::spread(hash), Edge { hash, child }, rehash);
            }
        }
        child
    }

    fn allocate(&mut self, level: &str, parent: u32) -> u32 {
        let label = Label::new(level);
        let node = Node { label, parent, literals: 0, plus: NONE, rest: NONE, value: None };
        if self.free == NONE {
            self.nodes.push(node);
            return u32::try_from(self.nodes.len() - 1).expect("memory ends before 2^32 nodes");
        }
        let index = self.free;
        let slot = &mut self.nodes[index as usize];
        self.free = slot.parent;
        *slot = node;
        index
    }

    /// Frees a node that leads nowhere any more, and the ancestors that led only to it.
    fn prune(&mut self, mut node: u32) {
        while node != ROOT && self.node(node).leads_nowhere() {
            let parent = self.node(node).parent;
            self.unlink(parent, node);
            let slot = &mut self.nodes[node as usize];
            slot.label = Label::new("");
            slot.parent = self.free;
            self.free = node;
            node = parent;
        }
        if self.edges.len() < self.edges.capacity() / 8 {
            let most = 2 * self.edges.len();
            self.edges.shrink_to(most, |edge| Edge::spread(edge.hash));
        }
    }

    fn unlink(&mut self, parent: u32, child: u32) {
        let it = &mut self.nodes[parent as usize];
        if it.plus == child {
            it.plus = NONE;
        } else if it.rest == child {
            it.rest = NONE;
        } else {
            it.literals -= 1;
            let label = self.node(child).label.as_bytes();
            let hash = Edge::spread(self.edge_hash(parent, self.level_hash(label)));
            let edge = self.edges.find_entry(hash, |edge| edge.child == child);
            edge.expect("a literal child has its edge").remove();
        }
    }
}

impl<V> Node<V> {
    fn leads_nowhere(&self) -> bool {
        self.value.is_none() && self.literals == 0 && self.plus == NONE && self.rest == NONE
    }
}

#[cfg(test)]
impl<V> Wildcards<V> {
    pub(super) fn slots(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn edges(&self) -> usize {
        self.edges.len()
    }
}
