//! Damaged logs: a torn tail is dropped with a warning, damage to what was acknowledged is refused
//! with the file, the offset and the remedy, and nothing else is harmed.

use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use chaos_tests::segment::{Batch, batches, segments};
use chaos_tests::{Client, Dice, Node, eventually};
use mqtt::QoS::AtLeastOnce;

const COUNT: usize = 60;

/// A node with retained publications in its log, acknowledged one after the other, then killed.
struct Killed {
    node: Node,
    dice: Dice,
}

impl Killed {
    fn new(test: &str) -> Self {
        let mut dice = Dice::of(test);
        let node = Node::started(&mut dice);
        let mut killed = Self { node, dice };
        killed.publish(0..COUNT);
        killed.node.kill9();
        killed
    }

    fn publish(&mut self, numbers: Range<usize>) {
        let mut client = Client::brief(self.node.address(), "publisher").unwrap();
        for number in numbers {
            let (topic, payload) = (format!("kept/{number}"), format!("payload {number}"));
            client.publish_acknowledged(&topic, payload.as_bytes(), true).unwrap();
        }
    }

    /// The newest segment, its bytes, and its batches of data.
    fn newest(&self) -> (PathBuf, Vec<u8>, Vec<Batch>) {
        let path = segments(&self.node.log_dir()).pop().expect("there is a log");
        let bytes = fs::read(&path).unwrap();
        let found = batches(&bytes).into_iter().filter(|batch| batch.kind == 1).collect();
        (path, bytes, found)
    }

    /// Which of the publications are there; each as it was published.
    fn found(&self) -> Vec<usize> {
        let mut client = Client::brief(self.node.address(), "reader").unwrap();
        client.subscribe(&["kept/#"], AtLeastOnce).unwrap();
        let mut found = Vec::new();
        while let Some(got) = client.next_arrival(Duration::from_millis(300)).unwrap() {
            let number = got.topic.strip_prefix("kept/").unwrap().parse().unwrap();
            assert_eq!(got.payload, format!("payload {number}").as_bytes());
            client.acknowledge(mqtt::AckKind::PubAck, got.id.unwrap()).unwrap();
            found.push(number);
        }
        found.sort_unstable();
        found
    }

    /// Starts, and says which publications are there and whether it warned of a torn tail.
    fn start(&mut self) -> (Vec<usize>, bool) {
        self.node.start();
        let said = self.node.said();
        let warned = said.lines().any(|line| line.contains("WARN") && line.contains("dropped"));
        (self.found(), warned)
    }
}

fn all() -> Vec<usize> {
    (0..COUNT).collect()
}

#[test]
fn what_stands_behind_the_last_batch_is_dropped_with_a_warning() {
    let mut killed = Killed::new("garbage");
    // Each tail lies in the segment that the start before it made.
    for case in 0..4 {
        let (path, mut bytes, found) = killed.newest();
        let (first, last) = (found[0], *found.last().unwrap());
        let tail: Vec<u8> = match case {
            0 => (0..3000).map(|_| killed.dice.bits() as u8 | 1).collect(),
            // Less than a sector.
            1 => (0..300).map(|_| killed.dice.bits() as u8 | 1).collect(),
            // The front of an earlier batch, as if the disk had mixed them up.
            2 => bytes[first.at..first.at + 100].to_vec(),
            // A batch that was there before, whole: it is not the next one.
            _ => bytes[last.at..last.next()].to_vec(),
        };
        bytes.truncate(last.next());
        bytes.extend_from_slice(&tail);
        fs::write(&path, &bytes).unwrap();
        let (found, warned) = killed.start();
        assert_eq!(found, all(), "case {case}\n{}", killed.node.said());
        assert!(warned, "case {case}: no warning\n{}", killed.node.said());
        killed.node.kill9();
    }
}

/// Cuts the last batch off somewhere: everything before it is there, and the node goes on.
fn cut_the_last_batch(test: &str, leave: impl FnOnce(&mut Vec<u8>, Batch)) {
    let mut killed = Killed::new(test);
    let (path, mut bytes, found) = killed.newest();
    let last = *found.last().unwrap();
    let cut = killed.dice.within(1..last.len as u64) as usize;
    bytes.truncate(last.end() - cut);
    leave(&mut bytes, last);
    fs::write(&path, &bytes).unwrap();
    let (found, warned) = killed.start();
    // The last batch holds the last publication, or only what followed from it.
    assert!(found == all() || found == all()[..COUNT - 1], "{found:?}\n{}", killed.node.said());
    assert!(warned, "no warning, {cut} of {last:?} were cut\n{}", killed.node.said());
    killed.publish(COUNT - 1..COUNT);
    killed.node.restart();
    assert_eq!(killed.found(), all());
}

#[test]
fn a_last_batch_that_was_half_written_is_dropped_with_a_warning() {
    // Room was taken on the disk ahead, as zeros.
    cut_the_last_batch("half written", |bytes, last| bytes.resize(last.next() + 4096, 0));
}

#[test]
fn a_file_that_ends_within_its_last_batch_is_cut_with_a_warning() {
    cut_the_last_batch("short file", |_, _| {});
}

/// Flips a bit and expects a refusal that names the place; repaired, everything is there.
fn refused_and_repaired(killed: &mut Killed, path: &PathBuf, at: usize, batch: Batch) {
    let before: Vec<_> = listing(killed);
    let mut bytes = fs::read(path).unwrap();
    let bit = 1 << killed.dice.within(0..8);
    bytes[at] ^= bit;
    fs::write(path, &bytes).unwrap();
    let said = killed.node.refuses_to_start();
    let offset = format!("offset {}", batch.at);
    for part in [path.to_str().unwrap(), &offset, "--accept-log-loss", "backup"] {
        assert!(said.contains(part), "{part} is not named, damaged was byte {at}:\n{said}");
    }
    assert_eq!(fs::read(path).unwrap(), bytes, "the evidence was changed");
    assert_eq!(listing(killed), before, "files were made or removed");
    bytes[at] ^= bit;
    fs::write(path, &bytes).unwrap();
}

fn listing(killed: &Killed) -> Vec<PathBuf> {
    segments(&killed.node.log_dir())
}

#[test]
fn a_flipped_bit_in_the_middle_is_refused() {
    let mut killed = Killed::new("flip");
    let (path, _, found) = killed.newest();
    let batch = found[found.len() / 2];
    let at = killed.dice.within(batch.at as u64..batch.end() as u64) as usize;
    refused_and_repaired(&mut killed, &path, at, batch);
    assert_eq!(killed.start().0, all());
}

#[test]
fn a_flipped_bit_in_an_older_segment_is_refused() {
    let mut killed = Killed::new("older");
    let (path, _, found) = killed.newest();
    // A new start writes to a new segment.
    killed.node.start();
    killed.publish(0..5);
    killed.node.kill9();
    assert_ne!(killed.newest().0, path);
    // Even the last batch, which would be taken for torn in the newest segment.
    for batch in [found[found.len() / 2], *found.last().unwrap()] {
        let at = killed.dice.within(batch.at as u64..batch.end() as u64) as usize;
        refused_and_repaired(&mut killed, &path, at, batch);
    }
    assert_eq!(killed.start().0, all());
}

#[test]
fn a_flipped_bit_in_the_last_batch_of_an_idle_log_is_refused() {
    let mut killed = Killed::new("idle");
    killed.node.start();
    killed.publish(0..3);
    // Once nothing is going on, the log notes that all of it was synced.
    let (path, batch) = eventually("the idle log is marked", || {
        let path = segments(&killed.node.log_dir()).pop().unwrap();
        let found = batches(&fs::read(&path).unwrap());
        match found[..] {
            [.., data, Batch { kind: 2, .. }] => Some((path, data)),
            _ => None,
        }
    });
    killed.node.kill9();
    let at = killed.dice.within(batch.at as u64..batch.end() as u64) as usize;
    refused_and_repaired(&mut killed, &path, at, batch);
    assert_eq!(killed.start().0, all());
}
