//! Topic names and topic filters: what is valid, what matches, and two collections that answer at scale.
//!
//! [`FilterTrie`] finds the filters that match a name (who wants this publication?), [`TopicTree`]
//! finds the names that match a filter (which retained messages does this subscription see?).
//!
//! Invariant: [`FilterTrie`], [`TopicTree`] and [`matches()`] agree on every valid pair. No length or
//! depth of a name, a filter or a collection overflows the stack.

mod filter;
mod name;
mod tree;
mod trie;

pub use filter::{
    FilterError, Share, Subscription, is_wildcard, matches, parse_subscription, validate_filter,
};
pub use name::{NameError, validate_name};
pub use tree::{Matching, TopicTree};
pub use trie::FilterTrie;

/// The longest topic name or filter, in bytes: what an MQTT string can hold [v5 MQTT-1.5.4].
pub const MAX_BYTES: usize = 65_535;

/// Names that begin with `$` are the broker's own: a filter that begins with a wildcard does not
/// match them [v5 MQTT-4.7.2-1].
fn is_reserved(name: &str) -> bool {
    name.starts_with('$')
}

/// Where the level that begins at `start` ends: at the next separator or at the end of the text.
fn level_end(text: &str, start: usize) -> usize {
    text[start..].find('/').map_or(text.len(), |length| start + length)
}
