//! Values without versions: every read and write of a key happened at one moment between question
//! and answer, and a read got what was written last (Gibbons and Korach, for unique values).
//!
//! 0 is what is there before the first write.
//!
//! A value was current from the first moment at which some operation on it must be over to the last
//! at which one had not begun. Where these overlap for two values no order of them explains it.

use std::collections::BTreeMap;

use super::{Promise, Verdict};
use crate::record::{At, Event, What};

/// All operations on one value.
struct Value {
    value: u64,
    /// When its write was sent; `None` while only reads of it were seen.
    written: Option<At>,
    /// The first end of an operation on it.
    first_end: At,
    /// The last beginning of an operation on it.
    last_begin: At,
}

pub(super) fn check(history: &[Event], verdict: &mut Verdict) {
    let mut keys: BTreeMap<&str, BTreeMap<u64, Value>> = BTreeMap::new();
    for Event { at, what } in history {
        let (key, value, asked, end, is_write) = match what {
            What::Wrote { key, value, asked, acknowledged, version: None } => {
                (key, *value, *asked, if *acknowledged { *at } else { At::MAX }, true)
            }
            What::Read { key, value, asked, version: None } => (key, *value, *asked, *at, false),
            _ => continue,
        };
        let new = Value { value, written: None, first_end: end, last_begin: asked };
        let nothing = || {
            let (value, written) = (0, Some(At::ZERO));
            let nothing = Value { value, written, first_end: At::ZERO, last_begin: At::ZERO };
            BTreeMap::from([(0, nothing)])
        };
        let of = keys.entry(key).or_insert_with(nothing).entry(value).or_insert(new);
        of.first_end = of.first_end.min(end);
        of.last_begin = of.last_begin.max(asked);
        if is_write {
            of.written = Some(asked);
        }
    }
    for (key, values) in keys {
        let mut values: Vec<Value> = values.into_values().collect();
        let invented = values.iter().filter(|it| it.written.is_none_or(|at| at > it.first_end));
        let invented: Vec<_> =
            invented.map(|it| format!("{} was read before it was written", it.value)).collect();
        verdict.tell(Promise::Latest, key, &invented);
        // What nobody saw may never have happened.
        values.retain(|it| it.first_end != At::MAX);
        verdict.tell(Promise::Latest, key, &overlaps(&values));
    }
}

fn overlaps(values: &[Value]) -> Vec<String> {
    // Current for sure from the first end to the last beginning.
    let mut sure: Vec<&Value> = values.iter().filter(|it| it.first_end < it.last_begin).collect();
    sure.sort_by_key(|it| it.first_end);
    let mut found = Vec::new();
    let mut latest: Option<&Value> = None;
    for it in &sure {
        if let Some(before) = latest
            && before.last_begin > it.first_end
        {
            found.push(format!("{} while {}", it.told(), before.told()));
        }
        if latest.is_none_or(|before| before.last_begin < it.last_begin) {
            latest = Some(it);
        }
    }
    // All operations at once, at a moment within the last beginning and the first end.
    for it in values.iter().filter(|it| it.first_end >= it.last_begin) {
        let after = sure.partition_point(|other| other.first_end < it.last_begin);
        let within = sure[..after].iter().find(|other| it.first_end < other.last_begin);
        found.extend(within.map(|other| format!("{} while {}", it.told(), other.told())));
    }
    found
}

impl Value {
    fn told(&self) -> String {
        format!("{} was there at {:?}, at {:?}", self.value, self.first_end, self.last_begin)
    }
}
