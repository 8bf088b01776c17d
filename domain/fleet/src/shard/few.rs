//! An ordered map that is one small vector for as long as it has few keys.
//!
//! Most sessions have a handful of subscriptions and most filters one subscriber; a tree node for
//! each would outweigh what it holds, and a single key needs no allocation. The few that have many
//! get a tree.

use std::borrow::Borrow;
use std::collections::{BTreeMap, btree_map};
use std::slice;

use smallvec::SmallVec;

/// Keys that one vector may hold: about what a binary search and a move touch in two cache lines.
const FEW: usize = 32;

pub(super) enum Few<K, V> {
    Few(SmallVec<[(K, V); 1]>),
    Many(BTreeMap<K, V>),
}

impl<K: Ord, V> Few<K, V> {
    pub(super) fn new() -> Self {
        Self::Few(SmallVec::new())
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Few(few) => few.len(),
            Self::Many(many) => many.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        match self {
            Self::Few(few) => few
                .binary_search_by(|(other, _)| other.borrow().cmp(key))
                .ok()
                .map(|place| &few[place].1),
            Self::Many(many) => many.get(key),
        }
    }

    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self {
            Self::Few(few) => match few.binary_search_by(|(other, _)| other.cmp(&key)) {
                Ok(place) => Some(std::mem::replace(&mut few[place].1, value)),
                Err(place) if few.len() < FEW => {
                    few.insert(place, (key, value));
                    None
                }
                Err(_) => {
                    let mut many: BTreeMap<_, _> = std::mem::take(few).into_iter().collect();
                    many.insert(key, value);
                    *self = Self::Many(many);
                    None
                }
            },
            Self::Many(many) => many.insert(key, value),
        }
    }

    pub(super) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        match self {
            Self::Few(few) => {
                let place = few.binary_search_by(|(other, _)| other.borrow().cmp(key)).ok()?;
                Some(few.remove(place).1)
            }
            Self::Many(many) => many.remove(key),
        }
    }

    pub(super) fn iter(&self) -> Iter<'_, K, V> {
        match self {
            Self::Few(few) => Iter::Few(few.iter()),
            Self::Many(many) => Iter::Many(many.iter()),
        }
    }
}

impl<K: Ord, V> Default for Few<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

/// In the order of the keys.
pub(super) enum Iter<'a, K, V> {
    Few(slice::Iter<'a, (K, V)>),
    Many(btree_map::Iter<'a, K, V>),
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Few(few) => few.next().map(|(key, value)| (key, value)),
            Self::Many(many) => many.next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_and_many_behave_alike() {
        let mut few = Few::new();
        let mut model = BTreeMap::new();
        for step in 0..400_u32 {
            let key = step.wrapping_mul(2_654_435_761) % 97;
            if step % 3 == 2 {
                assert_eq!(few.remove(&key), model.remove(&key));
            } else {
                assert_eq!(few.insert(key, step), model.insert(key, step));
            }
            assert_eq!(few.get(&key), model.get(&key));
            assert_eq!(few.len(), model.len());
            assert!(few.iter().eq(model.iter()));
        }
    }
}
