//! Finding the wildcard filters that match a name.

use super::wildcards::{Literals, NONE, Node, ROOT, Wildcards};
use crate::{MAX_BYTES, is_reserved, level_end};

/// A depth-first walk over the branches that agree with a name. At every node the literal child is
/// taken first and `+` on the way back, so where the walk came from says what is left to try, and
/// neither a stack nor a list of levels is needed.
pub(super) struct Walk<'a, 'n, V> {
    trie: &'a Wildcards<V>,
    name: &'n str,
    node: u32,
    /// Where the next level of the name begins; one past the name's end when all are consumed.
    at: usize,
    long: LongLevels,
}

impl<'a, 'n, V> Walk<'a, 'n, V> {
    pub(super) fn new(trie: &'a Wildcards<V>, name: &'n str) -> Self {
        Self { trie, name, node: ROOT, at: 0, long: LongLevels::default() }
    }

    pub(super) fn run(mut self, mut f: impl FnMut(&'a V)) {
        loop {
            self.visit(&mut f);
            if !self.descend() && !self.backtrack() {
                return;
            }
        }
    }

    /// Reports the values that the current node gives the name.
    fn visit(&self, f: &mut impl FnMut(&'a V)) {
        let node = self.here();
        if node.rest != NONE && self.may_begin_with_wildcard() {
            self.trie.node(node.rest).value.iter().for_each(&mut *f);
        }
        if self.is_at_end() {
            node.value.iter().for_each(f);
        }
    }

    /// Steps to a child that agrees with the next level, and says whether there was one.
    fn descend(&mut self) -> bool {
        let node = self.here();
        if self.is_at_end() || (node.literals == Literals::NONE && node.plus == NONE) {
            return false;
        }
        let level = self.next_level();
        let bytes = &self.name.as_bytes()[level.start..level.end];
        let hash = || level.hash.unwrap_or_else(|| self.trie.level_hash(bytes));
        let mut child = self.trie.literal(self.node, bytes, hash);
        if child == NONE && self.may_begin_with_wildcard() {
            child = node.plus;
        }
        if child == NONE {
            return false;
        }
        (self.node, self.at) = (child, level.end + 1);
        true
    }

    /// Climbs until there is a `+` not yet tried, steps there, and says whether there was one.
    fn backtrack(&mut self) -> bool {
        while self.node != ROOT {
            let from = self.node;
            self.node = self.here().parent;
            let plus = self.here().plus;
            if plus != NONE && plus != from && self.may_begin_with_wildcard() {
                // A sibling of where we come from, so as much of the name is consumed there.
                self.node = plus;
                return true;
            }
            self.at = self.previous_level_start();
        }
        false
    }

    fn next_level(&mut self) -> Level {
        let start = self.at;
        if let Some(level) = self.long.find(|level| level.start == start) {
            return level;
        }
        let end = level_end(self.name, start);
        let mut level = Level { start, end, hash: None };
        if end - start >= LongLevels::LONG {
            level.hash = Some(self.trie.level_hash(&self.name.as_bytes()[start..end]));
            self.long.remember(level);
        }
        level
    }

    fn previous_level_start(&self) -> usize {
        let end = self.at - 1;
        match self.long.find(|level| level.end == end) {
            Some(level) => level.start,
            None => self.name[..end].rfind('/').map_or(0, |slash| slash + 1),
        }
    }

    fn here(&self) -> &'a Node<V> {
        self.trie.node(self.node)
    }

    fn is_at_end(&self) -> bool {
        self.at > self.name.len()
    }

    /// Says whether a wildcard child of the current node may match the next level.
    fn may_begin_with_wildcard(&self) -> bool {
        self.node != ROOT || !is_reserved(self.name)
    }
}

#[derive(Clone, Copy, Default)]
struct Level {
    start: usize,
    end: usize,
    /// Known in advance where it is long.
    hash: Option<u64>,
}

/// The long levels of a name that the walk has met.
///
/// Branches come back to the same level, and without this a client could have thousands of them
/// scan and hash the same 64 KiB for one publication.
#[derive(Default)]
struct LongLevels {
    known: [Level; Self::MOST],
    len: usize,
}

impl LongLevels {
    /// What a branch may scan and hash anew.
    const LONG: usize = 8192;
    /// A name has room for no more.
    const MOST: usize = MAX_BYTES / Self::LONG + 1;

    fn find(&self, is_wanted: impl Fn(&Level) -> bool) -> Option<Level> {
        self.known[..self.len].iter().copied().find(is_wanted)
    }

    fn remember(&mut self, level: Level) {
        if let Some(slot) = self.known.get_mut(self.len) {
            *slot = level;
            self.len += 1;
        }
    }
}
