//! What one peer wants, as it has said so far.
//!
//! Changes apply at once. A snapshot names everything anew, changes among it; at its end, what was not
//! named since its begin is gone. Bounded by what the peer's clients may subscribe to.

use rustc_hash::FxHashMap;

use crate::interest::Wants;

/// A member of a shared subscription.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct MemberName {
    /// The share name.
    pub(super) share: Box<str>,
    /// The filter.
    pub(super) filter: Box<str>,
    /// The client id.
    pub(super) client: Box<str>,
}

/// What is wanted no more.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Gone {
    /// Filters.
    pub(super) filters: Vec<Box<str>>,
    /// Members of shared subscriptions.
    pub(super) members: Vec<MemberName>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct RouteTable {
    /// Moves with every snapshot.
    mark: u64,
    /// The snapshot that is under way.
    snapshot: Option<u64>,
    /// Whether one has ended.
    is_whole: bool,
    /// With the mark at which each was named last.
    filters: FxHashMap<Box<str>, (u64, Wants)>,
    members: FxHashMap<MemberName, u64>,
}

impl RouteTable {
    /// Whether everything that the peer wanted when it was linked is known.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// A snapshot begins; one that has not ended never will.
    pub(super) fn begin(&mut self, epoch: u64) {
        self.mark += 1;
        self.snapshot = Some(epoch);
    }

    /// A filter is wanted; true when that is new.
    pub(super) fn add(&mut self, filter: &str, wants: Wants) -> bool {
        let now = (self.mark, wants);
        match self.filters.get_mut(filter) {
            Some(known) => std::mem::replace(known, now).1 != wants,
            None => self.filters.insert(filter.into(), now).is_none(),
        }
    }

    /// A filter is wanted no more; true when it was.
    pub(super) fn remove(&mut self, filter: &str) -> bool {
        self.filters.remove(filter).is_some()
    }

    /// A member is there.
    pub(super) fn join(&mut self, member: MemberName) {
        self.members.insert(member, self.mark);
    }

    /// A member has gone; true when it was known.
    pub(super) fn leave(&mut self, member: &MemberName) -> bool {
        self.members.remove(member).is_some()
    }

    /// A snapshot ends: what it did not name is gone.
    pub(super) fn end(&mut self, epoch: u64) -> Gone {
        if self.snapshot != Some(epoch) {
            return Gone::default();
        }
        (self.snapshot, self.is_whole) = (None, true);
        let mark = self.mark;
        Gone {
            filters: self.filters.extract_if(|_, (at, _)| *at != mark).map(|(it, _)| it).collect(),
            members: self.members.extract_if(|_, at| *at != mark).map(|(it, _)| it).collect(),
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) -> Gone {
        (self.snapshot, self.is_whole) = (None, false);
        Gone {
            filters: self.filters.drain().map(|(it, _)| it).collect(),
            members: self.members.drain().map(|(it, _)| it).collect(),
        }
    }

    /// Filters and members.
    pub(super) fn len(&self) -> usize {
        self.filters.len() + self.members.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Wants = Wants::Everything;

    fn member(client: &str) -> MemberName {
        MemberName { share: "s".into(), filter: "a/#".into(), client: client.into() }
    }

    fn sorted(mut gone: Gone) -> Gone {
        gone.filters.sort();
        gone.members.sort();
        gone
    }

    #[test]
    fn a_snapshot_replaces_what_it_does_not_name() {
        let mut table = RouteTable::default();
        table.begin(1);
        assert!(table.add("a", ALL) && table.add("b", ALL) && table.add("c", ALL));
        assert!(!table.is_whole());
        assert!(!table.add("a", ALL), "once");
        assert!(table.add("c", Wants::QosZero) && !table.add("c", Wants::QosZero));
        table.join(member("x"));
        table.join(member("y"));
        assert_eq!(table.end(1), Gone::default());
        assert_eq!(table.len(), 5);

        table.begin(2);
        assert!(!table.add("a", ALL));
        // A change among it.
        assert!(table.add("d", ALL) && table.remove("b"));
        table.join(member("y"));
        assert_eq!(table.end(1), Gone::default(), "another snapshot's end");
        assert!(table.is_whole(), "it knows what was wanted when the peer was linked");
        let gone = Gone { filters: vec!["c".into()], members: vec![member("x")] };
        assert_eq!(table.end(2), gone);
        assert_eq!(table.len(), 3);
        assert!(!table.leave(&member("x")) && table.leave(&member("y")));
        let gone = Gone { filters: vec!["a".into(), "d".into()], members: Vec::new() };
        assert_eq!(sorted(table.clear()), gone);
        assert!(!table.is_whole());
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn a_snapshot_that_is_cut_off_takes_nothing_away() {
        let mut table = RouteTable::default();
        table.add("a", ALL);
        table.begin(1);
        table.add("b", ALL);
        table.begin(2);
        table.add("a", ALL);
        let gone = Gone { filters: vec!["b".into()], members: Vec::new() };
        assert_eq!(table.end(2), gone);
    }
}
