//! Topic names with a value each, found by a filter that matches them: retained messages.
//!
//! The names lie in one ordered map. A filter is answered by leaping over it: at a name that does not
//! match, the filter says which name could be the next, and the search continues there. Order makes
//! answers the same on every node, and lets them be given page by page.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, btree_map};
use std::iter::FusedIterator;
use std::ops::Bound;

use crate::{is_reserved, level_end};

/// A map from valid topic names to values, ordered by the bytes of the names.
#[derive(Clone, Debug)]
pub struct TopicTree<V> {
    names: BTreeMap<Box<str>, V>,
}

impl<V> TopicTree<V> {
    /// An empty tree, which allocates nothing yet.
    pub fn new() -> Self {
        Self { names: BTreeMap::new() }
    }

    /// How many names have a value.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Says whether no name has a value.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Gives a name a value and returns the one it had.
    pub fn insert(&mut self, name: &str, value: V) -> Option<V> {
        match self.names.get_mut(name) {
            Some(old) => Some(std::mem::replace(old, value)),
            None => self.names.insert(name.into(), value),
        }
    }

    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&V> {
        self.names.get(name)
    }

    /// The value of a name, to change it.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut V> {
        self.names.get_mut(name)
    }

    /// Removes a name and returns the value it had.
    pub fn remove(&mut self, name: &str) -> Option<V> {
        self.names.remove(name)
    }

    /// Calls `f` with every name that matches a valid filter, in order.
    pub fn for_each_match<'a>(&'a self, filter: &str, mut f: impl FnMut(&'a str, &'a V)) {
        self.matching(filter).for_each(|(name, value)| f(name, value));
    }

    /// The names that match a valid filter, in order.
    pub fn matching<'a, 'f>(&'a self, filter: &'f str) -> Matching<'a, 'f, V> {
        self.matching_from(filter, Bound::Unbounded)
    }

    /// As [`Self::matching`], but looks at no more than `visits` names, matching or not, and only at those
    /// behind `last`, which need not exist any more: see [`Matching::stopped_at`].
    pub fn matching_within<'a, 'f>(
        &'a self,
        filter: &'f str,
        last: Option<&str>,
        visits: usize,
    ) -> Matching<'a, 'f, V> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        Matching { visits, ..self.matching_from(filter, from) }
    }

    /// Every name, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &V)> {
        self.names.iter().map(|(name, value)| (&**name, value))
    }

    /// The next page of [`Self::iter`]: the names behind `last`, which need not exist any more.
    pub fn iter_after(&self, last: &str) -> impl Iterator<Item = (&str, &V)> {
        let behind = (Bound::Excluded(last), Bound::Unbounded);
        self.names.range::<str, _>(behind).map(|(name, value)| (&**name, value))
    }

    fn matching_from<'a, 'f>(&'a self, filter: &'f str, from: Bound<&str>) -> Matching<'a, 'f, V> {
        // `a/#` matches `a` as well, which comes before everything that begins with `a/`.
        let first = match filter.find(['+', '#']) {
            Some(wildcard) => filter[..wildcard].trim_end_matches('/'),
            None => filter,
        };
        let from = match from {
            Bound::Excluded(last) if last >= first => Bound::Excluded(last),
            _ => Bound::Included(first),
        };
        let range = self.names.range::<str, _>((from, Bound::Unbounded));
        let (target, visits, visited) = (String::new(), usize::MAX, None);
        Matching { names: &self.names, range, filter, target, visits, visited }
    }
}

impl<V> Default for TopicTree<V> {
    fn default() -> Self {
        Self::new()
    }
}

/// The names that match a filter, in order. Made by [`TopicTree::matching`].
#[derive(Clone, Debug)]
pub struct Matching<'a, 'f, V> {
    names: &'a BTreeMap<Box<str>, V>,
    range: btree_map::Range<'a, Box<str>, V>,
    filter: &'f str,
    /// Where to leap; kept for its memory.
    target: String,
    /// Names that may still be looked at.
    visits: usize,
    /// The last that was, unless none behind it matches.
    visited: Option<&'a str>,
}

/// Greater than the separator, with nothing in between.
const AFTER_SEPARATOR: &str = "0";
/// Greater than every name that begins with `$`.
const AFTER_RESERVED: &str = "%";

/// What a filter makes of a name, and with it of the names behind.
enum Verdict {
    Match,
    /// No, and the names right behind may match.
    Next,
    /// No, and neither does any name before the target.
    Leap,
    /// No, and neither does any name behind.
    End,
}

impl<'a, V> Iterator for Matching<'a, '_, V> {
    type Item = (&'a str, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.visits == 0 {
                return None;
            }
            let Some((name, value)) = self.range.next() else {
                self.visited = None;
                return None;
            };
            self.visits -= 1;
            self.visited = Some(name);
            match self.judge(name) {
                Verdict::Match => return Some((name, value)),
                Verdict::Next => {}
                Verdict::Leap => self.leap(),
                Verdict::End => {
                    self.visited = None;
                    self.range = btree_map::Range::default();
                    return None;
                }
            }
        }
    }
}

impl<V> FusedIterator for Matching<'_, '_, V> {}

impl<'a, V> Matching<'a, '_, V> {
    /// The name that the search stopped at when its visits were used up; more may match behind it.
    pub fn stopped_at(&self) -> Option<&'a str> {
        self.visited.filter(|_| self.visits == 0)
    }

    /// How many names more may be looked at.
    pub fn visits_left(&self) -> usize {
        self.visits
    }

    /// Names to pass one by one before searching from the root of the map again.
    const STEPS: usize = 4;

    fn leap(&mut self) {
        for _ in 0..Self::STEPS {
            match self.range.clone().next() {
                Some((name, _)) if **name < *self.target => drop(self.range.next()),
                _ => return,
            }
        }
        let target = Bound::Included(&*self.target);
        self.range = self.names.range::<str, _>((target, Bound::Unbounded));
    }

    /// Compares a name with the filter and, where it does not match, finds the next that could.
    fn judge(&mut self, name: &str) -> Verdict {
        if is_reserved(name) && self.filter.starts_with(['+', '#']) {
            return self.leap_to("", AFTER_RESERVED);
        }
        // The last level that a `+` matched: when the levels behind it are exhausted, it moves on.
        let mut plus = None;
        let (mut wanted_at, mut at) = (0, 0);
        loop {
            let wanted_end = level_end(self.filter, wanted_at);
            let end = level_end(name, at);
            let wanted = &self.filter[wanted_at..wanted_end];
            match wanted {
                "#" => return Verdict::Match,
                "+" => plus = Some(end),
                _ if wanted != &name[at..end] => {
                    let more = wanted_end < self.filter.len();
                    return self.mismatch(
                        name,
                        at,
                        &self.filter[wanted_at..wanted_end + usize::from(more)],
                        plus,
                    );
                }
                _ => {}
            }
            match (wanted_end == self.filter.len(), end == name.len()) {
                (true, true) => return Verdict::Match,
                (false, true) if &self.filter[wanted_end..] == "/#" => return Verdict::Match,
                // `name/…` may match, and lies behind.
                (false, true) => return Verdict::Next,
                (true, false) => return self.leap_behind(&name[..end]),
                (false, false) => (wanted_at, at) = (wanted_end + 1, end + 1),
            }
        }
    }
    /// The name differs from the filter in the level at `at`, whose text in the filter is `wanted`,
    /// with the separator when more must follow.
    fn mismatch(&mut self, name: &str, at: usize, wanted: &str, plus: Option<usize>) -> Verdict {
        let level = wanted.trim_end_matches('/');
        match plus {
            _ if *level > name[at..] => self.leap_to(&name[..at], level),
            // Behind `b` there may be `b!` before `b/c`.
            _ if *wanted > name[at..] => self.leap_to(&name[..at], wanted),
            Some(end) => self.leap_behind(&name[..end]),
            None => Verdict::End,
        }
    }

    /// Passes every name that continues `prefix` with another level.
    fn leap_behind(&mut self, prefix: &str) -> Verdict {
        self.leap_to(prefix, AFTER_SEPARATOR)
    }

    fn leap_to(&mut self, prefix: &str, rest: &str) -> Verdict {
        self.target.clear();
        self.target.push_str(prefix);
        self.target.push_str(rest);
        Verdict::Leap
    }
}
