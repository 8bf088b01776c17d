//! The trie of the filters that contain wildcards.
//!
//! Nodes lie in one arena and know their parent; a node with many literal children has them in one hash
//! table for all. So a node needs no container, a walk finds its way back without a stack, and dropping
//! the deepest trie is dropping two vectors.
//!
//! Invariant: every node but the root has a value or a child.

use std::hash::BuildHasher;

use hashbrown::DefaultHashBuilder;

use super::edges::Edges;
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
    pub(super) literals: Literals,
    /// The child for `+`.
    pub(super) plus: u32,
    /// The child for `#`.
    pub(super) rest: u32,
    pub(super) value: Option<V>,
}

/// The children behind literal levels, packed into 32 bits: levels below a device's own are mostly
/// only children, and those cost no look into the hash table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Literals(u32);

/// What [`Literals`] hold.
pub(super) enum Children {
    None,
    Only(u32),
    /// So many, all in the hash table.
    Many(u32),
}

impl Literals {
    pub(super) const NONE: Self = Self(NONE);
    const MANY: u32 = 1 << 31;

    fn only(child: u32) -> Self {
        Self(child)
    }

    fn many(count: u32) -> Self {
        Self(if count == 0 { NONE } else { Self::MANY | count })
    }

    pub(super) fn get(self) -> Children {
        match self.0 {
            NONE => Children::None,
            many if many & Self::MANY != 0 => Children::Many(many & !Self::MANY),
            child => Children::Only(child),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Wildcards<V> {
    nodes: Vec<Node<V>>,
    free: u32,
    edges: Edges,
    /// Seeded: filters come from clients, who must not be able to choose what collides.
    hasher: DefaultHashBuilder,
    len: usize,
}

impl<V> Wildcards<V> {
    pub(super) fn new() -> Self {
        let (edges, hasher) = (Edges::default(), DefaultHashBuilder::default());
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
            (self.nodes, self.edges, self.free) = (Vec::new(), Edges::default(), NONE);
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
            _ => {
                let level = level.as_bytes();
                self.literal(node, level, || self.level_hash(level))
            }
        }
    }

    /// The child behind a literal level, whose hash is asked for when it is needed.
    pub(super) fn literal(&self, node: u32, level: &[u8], hash: impl FnOnce() -> u64) -> u32 {
        match self.node(node).literals.get() {
            Children::None => NONE,
            Children::Only(child) if self.node(child).label.as_bytes() == level => child,
            Children::Only(_) => NONE,
            Children::Many(_) => {
                let found = self.edges.find(self.edge_hash(node, hash()), |child| {
                    let child = self.node(child);
                    child.parent == node && child.label.as_bytes() == level
                });
                found.unwrap_or(NONE)
            }
        }
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
            _ => self.link(node, child),
        }
        child
    }

    /// Adds a literal child.
    fn link(&mut self, parent: u32, child: u32) {
        let literals = match self.node(parent).literals.get() {
            Children::None => Literals::only(child),
            Children::Only(first) => {
                self.edges.insert(self.hash_of(first), first);
                self.edges.insert(self.hash_of(child), child);
                Literals::many(2)
            }
            Children::Many(count) => {
                self.edges.insert(self.hash_of(child), child);
                Literals::many(count + 1)
            }
        };
        self.nodes[parent as usize].literals = literals;
    }

    fn hash_of(&self, child: u32) -> u32 {
        let child = self.node(child);
        self.edge_hash(child.parent, self.level_hash(child.label.as_bytes()))
    }

    fn allocate(&mut self, level: &str, parent: u32) -> u32 {
        let label = Label::new(level);
        let node =
            Node { label, parent, literals: Literals::NONE, plus: NONE, rest: NONE, value: None };
        if self.free == NONE {
            self.nodes.push(node);
            let index = u32::try_from(self.nodes.len() - 1).ok();
            let index = index.filter(|index| index & Literals::MANY == 0);
            return index.expect("memory ends before 2^31 nodes");
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
    }

    fn unlink(&mut self, parent: u32, child: u32) {
        let hash = self.hash_of(child);
        let parent = &mut self.nodes[parent as usize];
        if parent.plus == child {
            parent.plus = NONE;
        } else if parent.rest == child {
            parent.rest = NONE;
        } else if let Children::Many(count) = parent.literals.get() {
            parent.literals = Literals::many(count - 1);
            self.edges.remove(hash, child);
        } else {
            parent.literals = Literals::NONE;
        }
    }
}

impl<V> Node<V> {
    fn leads_nowhere(&self) -> bool {
        let Self { literals, plus, rest, value, .. } = self;
        value.is_none() && *literals == Literals::NONE && *plus == NONE && *rest == NONE
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
