//! One section of a document: values and, at each leaf, when it was last mentioned.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// An object of a section. Ordered, so that every replica writes the same bytes; shared, so that the
/// document after an update costs no more than the branches that the update touches.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Tree(Arc<BTreeMap<String, Node>>);

/// Stored as an object for a branch and as `[timestamp, value]` for a leaf.
#[derive(Clone, Debug, PartialEq)]
enum Node {
    Branch(Tree),
    Leaf(Leaf),
}

/// A scalar, or an array, which is always replaced whole.
#[derive(Clone, Debug, PartialEq)]
struct Leaf {
    timestamp: u64,
    value: Value,
}

impl Tree {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts a request's values in: `null` deletes, objects merge, anything else replaces.
    pub(crate) fn merge(&mut self, patch: &Map<String, Value>, now_secs: u64, takes_empty: bool) {
        if !patch.is_empty() {
            let entries = Arc::make_mut(&mut self.0);
            for (key, value) in patch {
                merge_entry(entries, key, value, now_secs, takes_empty);
            }
        }
    }

    /// Appends the values as JSON.
    pub(crate) fn write_state(&self, out: &mut Vec<u8>) {
        write_object(out, &*self.0, |out, node| node.write_state(out));
    }

    /// Appends the timestamps as JSON, in the shape of the values.
    pub(crate) fn write_metadata(&self, out: &mut Vec<u8>) {
        write_object(out, &*self.0, |out, node| node.write_metadata(out));
    }

    /// What is desired and not reported.
    pub(crate) fn delta<'a>(&'a self, reported: &Tree) -> Delta<'a> {
        let mut differing = Vec::new();
        for (key, desired) in &*self.0 {
            match (desired, reported.0.get(key)) {
                (Node::Branch(desired), Some(Node::Branch(reported))) => {
                    let delta = desired.delta(reported);
                    if !delta.is_empty() {
                        differing.push((key.as_str(), Difference::Within(delta)));
                    }
                }
                (Node::Leaf(desired), Some(Node::Leaf(reported)))
                    if desired.value == reported.value => {}
                _ => differing.push((key.as_str(), Difference::Whole(desired))),
            }
        }
        Delta(differing)
    }
}

fn merge_entry(
    entries: &mut BTreeMap<String, Node>,
    key: &str,
    value: &Value,
    now_secs: u64,
    takes_empty: bool,
) {
    // What came empty is meant so; what deletions have emptied is not.
    let stays =
        |branch: &Tree, patch: &Map<_, _>| !branch.is_empty() || takes_empty && patch.is_empty();
    let node = match (value, entries.get_mut(key)) {
        (Value::Null, _) => None,
        (Value::Object(patch), Some(Node::Branch(branch))) => {
            branch.merge(patch, now_secs, takes_empty);
            if stays(branch, patch) {
                return;
            }
            None
        }
        (Value::Object(patch), _) => {
            let mut branch = Tree::default();
            branch.merge(patch, now_secs, takes_empty);
            stays(&branch, patch).then_some(Node::Branch(branch))
        }
        (value, _) => Some(Node::Leaf(Leaf { timestamp: now_secs, value: value.clone() })),
    };
    match (node, entries.get_mut(key)) {
        (Some(node), Some(place)) => *place = node,
        (Some(node), None) => drop(entries.insert(key.to_owned(), node)),
        // An object in which deletions leave nothing disappears too.
        (None, _) => drop(entries.remove(key)),
    }
}

impl Node {
    fn write_state(&self, out: &mut Vec<u8>) {
        match self {
            Self::Branch(tree) => tree.write_state(out),
            Self::Leaf(leaf) => write_value(out, &leaf.value),
        }
    }

    fn write_metadata(&self, out: &mut Vec<u8>) {
        match self {
            Self::Branch(tree) => tree.write_metadata(out),
            Self::Leaf(leaf) => write_timestamps(out, &leaf.value, leaf.timestamp),
        }
    }
}

/// The part of a section that differs; borrows it.
pub(crate) struct Delta<'a>(Vec<(&'a str, Difference<'a>)>);

enum Difference<'a> {
    Whole(&'a Node),
    Within(Delta<'a>),
}

impl<'a> Delta<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn entries(&self) -> impl Iterator<Item = (&'a str, &Difference<'a>)> {
        self.0.iter().map(|(key, difference)| (*key, difference))
    }

    pub(crate) fn write_state(&self, out: &mut Vec<u8>) {
        write_object(out, self.entries(), |out, difference| match difference {
            Difference::Whole(node) => node.write_state(out),
            Difference::Within(delta) => delta.write_state(out),
        });
    }

    pub(crate) fn write_metadata(&self, out: &mut Vec<u8>) {
        write_object(out, self.entries(), |out, difference| match difference {
            Difference::Whole(node) => node.write_metadata(out),
            Difference::Within(delta) => delta.write_metadata(out),
        });
    }
}

/// Timestamps in the shape of `value`: one for each scalar and for each element of an array.
pub(crate) fn write_timestamps(out: &mut Vec<u8>, value: &Value, timestamp: u64) {
    match value {
        Value::Object(entries) => write_object(out, entries, |out, value| {
            write_timestamps(out, value, timestamp);
        }),
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_timestamps(out, item, timestamp);
            }
            out.push(b']');
        }
        _ => {
            out.extend_from_slice(b"{\"timestamp\":");
            write_json(out, &timestamp);
            out.push(b'}');
        }
    }
}

fn write_object<K: AsRef<str>, V>(
    out: &mut Vec<u8>,
    entries: impl IntoIterator<Item = (K, V)>,
    write: impl Fn(&mut Vec<u8>, V),
) {
    out.push(b'{');
    for (index, (key, value)) in entries.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_text(out, key.as_ref());
        out.push(b':');
        write(out, value);
    }
    out.push(b'}');
}

fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::String(text) => write_text(out, text),
        value => write_json(out, value),
    }
}

/// Appends a string; nearly all of them need no escaping.
fn write_text(out: &mut Vec<u8>, text: &str) {
    let is_plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    if !text.bytes().all(is_plain) {
        return write_json(out, text);
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

/// Appends a value as compact JSON.
pub(crate) fn write_json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("JSON serialises into memory");
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Branch(tree) => tree.serialize(serializer),
            Self::Leaf(leaf) => (leaf.timestamp, &leaf.value).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NodeVisitor;

        impl<'de> Visitor<'de> for NodeVisitor {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object or [timestamp, value]")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some((key, node)) = map.next_entry()? {
                    entries.insert(key, node);
                }
                Ok(Node::Branch(Tree(Arc::new(entries))))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
                let missing = |index| serde::de::Error::invalid_length(index, &self);
                let timestamp = seq.next_element()?.ok_or_else(|| missing(0))?;
                let value = seq.next_element()?.ok_or_else(|| missing(1))?;
                Ok(Node::Leaf(Leaf { timestamp, value }))
            }
        }

        deserializer.deserialize_any(NodeVisitor)
    }
}
