//! Whose commands a group has applied, and how many of them.
//!
//! A node numbers what it proposes to a group from 1 on, anew in each of its lives. A command is
//! applied only if its number comes next, on every replica alike. So a command that is offered again,
//! to whichever leader, is applied once, and none before those that were proposed before it.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut};

/// A node in one of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) node: u64,
    /// Greater in each life than in all before.
    pub(crate) incarnation: u64,
}

/// See the module. The last number applied of each node's last life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sources(BTreeMap<u64, (u64, u64)>);

impl Sources {
    /// Whether a command comes next; if so, it is applied from now on.
    pub(crate) fn admit(&mut self, source: Source, number: u64) -> bool {
        let comes_next = self.last(source) == Some(number - 1);
        if comes_next {
            self.0.insert(source.node, (source.incarnation, number));
        }
        comes_next
    }

    /// The last number applied of a source, 0 before the first; none if the node has had a later life.
    pub(crate) fn last(&self, source: Source) -> Option<u64> {
        match self.0.get(&source.node) {
            Some(&(incarnation, _)) if incarnation > source.incarnation => None,
            Some(&(incarnation, last)) if incarnation == source.incarnation => Some(last),
            _ => Some(0),
        }
    }

    /// The same where `appended` is not applied yet, but will be.
    pub(crate) fn last_with(&self, source: Source, appended: &Self) -> Option<u64> {
        Some(self.last(source)?.max(appended.last(source)?))
    }

    /// The later life that the node of a source has had, if any.
    pub(crate) fn outlived_by(&self, source: Source) -> Option<u64> {
        let life = self.0.get(&source.node).map(|&(incarnation, _)| incarnation);
        life.filter(|life| *life > source.incarnation)
    }

    /// Notes that all commands up to a number are there.
    pub(crate) fn note(&mut self, source: Source, last: u64) {
        self.0.insert(source.node, (source.incarnation, last));
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn encode(&self, bytes: &mut Vec<u8>) {
        for (node, (incarnation, last)) in &self.0 {
            [node, incarnation, last].into_iter().for_each(|part| bytes.put_u64_le(*part));
        }
    }

    pub(crate) fn decode(mut bytes: &[u8]) -> Result<Self, String> {
        let mut sources = BTreeMap::new();
        while !bytes.is_empty() {
            let mut part = || bytes.try_get_u64_le().map_err(|_| "a source is cut off");
            sources.insert(part()?, (part()?, part()?));
        }
        Ok(Self(sources))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_applied_once_and_in_order() {
        let mut sources = Sources::default();
        let in_life = |incarnation| Source { node: 7, incarnation };
        for (incarnation, number, admitted) in [
            (5, 2, false),
            (5, 1, true),
            (5, 1, false),
            (5, 3, false),
            (5, 2, true),
            // A later life begins anew, and the earlier one is over.
            (6, 2, false),
            (6, 1, true),
            (5, 3, false),
            (6, 2, true),
        ] {
            let found = sources.admit(in_life(incarnation), number);
            assert_eq!(found, admitted, "{number} of life {incarnation}");
        }
        assert_eq!(sources.last(in_life(5)), None);
        assert_eq!(sources.last(in_life(6)), Some(2));
        assert_eq!(sources.last(in_life(7)), Some(0));
        let outlived_by = [5, 6, 7].map(|life| sources.outlived_by(in_life(life)));
        assert_eq!(outlived_by, [Some(6), None, None]);
        let mut bytes = Vec::new();
        sources.encode(&mut bytes);
        assert_eq!(Sources::decode(&bytes), Ok(sources));
        assert!(Sources::decode(&bytes[1..]).is_err());
    }
}
