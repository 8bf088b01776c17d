//! What publishers and subscribers wrote down, and the judgement over it.
//!
//! Every publication carries its number and how often its publisher had sent it before, so a copy
//! that the broker made can be told from one that the publisher sent. The number decides all the
//! other bytes, so a copy that was damaged is seen too.

use std::collections::{BTreeMap, HashSet};

use mqtt::QoS;

/// Which publication of a topic this is, and which sending of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// Counts from 0 on each topic.
    pub number: u64,
    /// 0 for the first sending.
    pub attempt: u32,
}

const MARK_BYTES: usize = 12;

impl Mark {
    /// A payload of so many bytes that carries the mark.
    pub fn payload(self, bytes: usize) -> Vec<u8> {
        let mut payload = Vec::with_capacity(bytes.max(MARK_BYTES));
        payload.extend_from_slice(&self.number.to_be_bytes());
        payload.extend_from_slice(&self.attempt.to_be_bytes());
        payload.resize(bytes.max(MARK_BYTES), self.filling());
        payload
    }

    /// Reads the mark of a payload back; `None` when the payload was altered.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let (number, rest) = payload.split_first_chunk()?;
        let (attempt, filling) = rest.split_first_chunk()?;
        let number = u64::from_be_bytes(*number);
        let mark = Self { number, attempt: u32::from_be_bytes(*attempt) };
        filling.iter().all(|byte| *byte == mark.filling()).then_some(mark)
    }

    fn filling(self) -> u8 {
        (self.number as u8) ^ 0x5A
    }
}

/// What was published on one topic, by one publisher.
#[derive(Clone, Debug)]
pub struct Published {
    /// The topic name.
    pub topic: String,
    /// The QoS of all of it.
    pub qos: QoS,
    /// Numbers below this were sent.
    pub sent: u64,
    /// What the broker took over (PUBACK or PUBREC), and in which life of the node.
    pub acknowledged: BTreeMap<u64, u32>,
}

impl Published {
    /// Nothing yet.
    pub fn new(topic: String, qos: QoS) -> Self {
        Self { topic, qos, sent: 0, acknowledged: BTreeMap::new() }
    }
}

/// A copy that a subscriber was given and did not recognise as one it holds already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    /// What it says.
    pub mark: Mark,
    /// The broker says it has sent it before.
    pub dup: bool,
    /// In which life of the node.
    pub life: u32,
}

/// What one subscriber was given, by topic, in order.
#[derive(Clone, Debug, Default)]
pub struct Delivered(BTreeMap<String, Vec<Copy>>);

/// No more than this of each kind is told.
const TOLD: usize = 5;

impl Delivered {
    /// Notes a copy.
    pub fn note(&mut self, topic: &str, copy: Copy) {
        match self.0.get_mut(topic) {
            Some(copies) => copies.push(copy),
            None => drop(self.0.insert(topic.to_owned(), vec![copy])),
        }
    }

    /// How many copies there are.
    pub fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn on(&self, topic: &str) -> &[Copy] {
        self.0.get(topic).map(Vec::as_slice).unwrap_or_default()
    }

    /// What is wrong with it, for a session that subscribed with QoS `granted` before the first
    /// publication; empty when every promise was kept.
    pub fn faults(&self, published: &[Published], granted: QoS) -> Vec<String> {
        let mut faults = Vec::new();
        for of in published {
            let copies = self.on(&of.topic);
            let mut tell = |what: &str, cases: Vec<String>| {
                if !cases.is_empty() {
                    let (count, first) = (cases.len(), &cases[..cases.len().min(TOLD)]);
                    faults.push(format!("{}: {count} {what}: {}", of.topic, first.join("; ")));
                }
            };
            tell("acknowledged and never delivered", lost(of, copies));
            tell("delivered and never published", invented(of, copies));
            tell("delivered in the wrong order", disordered(copies));
            if of.qos.min(granted) == QoS::ExactlyOnce {
                tell("delivered twice with QoS 2", repeated(copies));
            } else {
                tell("given twice as if new", renewed(copies));
            }
        }
        faults
    }
}

fn lost(of: &Published, copies: &[Copy]) -> Vec<String> {
    let seen: HashSet<u64> = copies.iter().map(|copy| copy.mark.number).collect();
    let lost = of.acknowledged.iter().filter(|(number, _)| !seen.contains(number));
    lost.map(|(number, life)| format!("{number}, acknowledged in life {life}")).collect()
}

fn invented(of: &Published, copies: &[Copy]) -> Vec<String> {
    let invented = copies.iter().filter(|copy| copy.mark.number >= of.sent);
    invented.map(|copy| format!("{copy:?}, sent were {}", of.sent)).collect()
}

/// The first copies of each number must come in the order of the numbers [v5 MQTT-4.6.0-5].
fn disordered(copies: &[Copy]) -> Vec<String> {
    let mut seen = HashSet::new();
    let mut highest: Option<Copy> = None;
    let mut found = Vec::new();
    for copy in copies.iter().filter(|copy| seen.insert(copy.mark.number)) {
        match highest {
            Some(before) if before.mark.number > copy.mark.number => {
                found.push(format!("{copy:?} after {before:?}"));
            }
            _ => highest = Some(*copy),
        }
    }
    found
}

fn repeated(copies: &[Copy]) -> Vec<String> {
    let mut seen = BTreeMap::new();
    let again = |copy: &Copy| Some((seen.insert(copy.mark.number, *copy)?, *copy));
    copies.iter().filter_map(again).map(|(first, copy)| format!("{first:?} and {copy:?}")).collect()
}

/// Of one sending, only one copy may come without DUP: the broker must know what it has sent.
fn renewed(copies: &[Copy]) -> Vec<String> {
    let mut seen = BTreeMap::new();
    let fresh = copies.iter().filter(|copy| !copy.dup);
    let again = |copy: &Copy| Some((seen.insert(copy.mark, *copy)?, *copy));
    fresh.filter_map(again).map(|(first, copy)| format!("{first:?} and {copy:?}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Copies as `number`, `number'` for a second sending, `~` in front for DUP.
    fn delivered(text: &str) -> Delivered {
        let mut delivered = Delivered::default();
        for word in text.split_whitespace() {
            let (word, dup) = word.strip_prefix('~').map_or((word, false), |word| (word, true));
            let (word, attempt) = word.strip_suffix('\'').map_or((word, 0), |word| (word, 1));
            let mark = Mark { number: word.parse().unwrap(), attempt };
            delivered.note("t", Copy { mark, dup, life: 1 });
        }
        delivered
    }

    #[test]
    fn faults_are_found() {
        // Published were 0 to 3, acknowledged 0 to 2.
        let mut published = Published::new("t".into(), QoS::ExactlyOnce);
        published.sent = 4;
        published.acknowledged.extend([(0, 1), (1, 1), (2, 1)]);
        let table = [
            (1, "0 1 2", None),
            (1, "0 1 2 3", None),
            (1, "0 1 ~0 ~1 2", None),
            (1, "0 1 0' 1' 2", None),
            (1, "~0 1 2", None),
            (1, "0 1", Some("never delivered")),
            (1, "", Some("never delivered")),
            (1, "0 1 2 4", Some("never published")),
            (1, "0 2 1", Some("wrong order")),
            (1, "0 1 1 2", Some("as if new")),
            (2, "0 1 2 3", None),
            (2, "0 1' 2", None),
            (2, "0 1 ~1 2", Some("twice with QoS 2")),
            (2, "0 1 1' 2", Some("twice with QoS 2")),
            (2, "0 1", Some("never delivered")),
        ];
        for (qos, copies, expected) in table {
            let granted = QoS::try_from(qos).unwrap();
            let faults = delivered(copies).faults(std::slice::from_ref(&published), granted);
            match expected {
                None => assert!(faults.is_empty(), "{copies}: {faults:?}"),
                Some(part) => {
                    assert!(
                        faults.iter().any(|fault| fault.contains(part)),
                        "{copies}: {faults:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn marks_are_read_back_and_alterations_are_seen() {
        let mark = Mark { number: 700, attempt: 3 };
        for bytes in [0, 12, 13, 500] {
            assert_eq!(Mark::read(&mark.payload(bytes)), Some(mark));
        }
        let mut payload = mark.payload(100);
        payload[60] ^= 1;
        assert_eq!(Mark::read(&payload), None);
        assert_eq!(Mark::read(b"short"), None);
    }
}
