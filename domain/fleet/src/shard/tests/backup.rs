use std::collections::BTreeMap;

use super::checkpoint::{furnished, load};
use super::*;

#[test]
fn outbox_entries_that_were_trimmed_meanwhile_are_put_back() {
    let mut probe = furnished();
    let recorded: Vec<_> = probe.outbox(0).cloned().collect();
    let before = probe.outbox_of();
    assert!(before.len() > 2);
    probe.told(TrimOutbox { upto: 2, ..TrimOutbox::default() });
    let mut pairs: BTreeMap<_, _> = probe.dump().into_iter().collect();
    // Entries that came after the pairs were read are not of them.
    let later = OutboxEntry { seq: probe.outbox_ends(), ..recorded[0].clone() };
    let next = put_back_outbox(&mut pairs, recorded.iter().chain([&later])).unwrap();
    assert_eq!(next, probe.outbox_ends());
    let shard = load(&pairs).unwrap();
    assert_eq!(shard.outbox_ends(), probe.outbox_ends());
    let text =
        |entry: &OutboxEntry| (text(&entry.publication.topic), text(&entry.publication.payload));
    assert_eq!(shard.outbox(0).map(text).collect::<Vec<_>>(), before);
}

#[test]
fn what_a_queue_had_back_meanwhile_is_there_once() {
    let mut probe = Probe::default();
    let filter = "$share/g/t".to_owned();
    for payload in ["one", "two"] {
        let (publication, filters) = (publication("t", payload, 2), vec![filter.clone()]);
        probe.told(EnqueueShared { publication, filters, returned: true, ..Default::default() });
    }
    probe.told(AssignShared { filter, most: 2, most_bytes: 99, ..AssignShared::default() });
    let recorded: Vec<_> = probe.outbox(0).cloned().collect();
    probe.told(TrimOutbox { upto: 1, returned: vec![1] });
    let mut pairs: BTreeMap<_, _> = probe.dump().into_iter().collect();
    put_back_outbox(&mut pairs, &recorded).unwrap();
    let shard = load(&pairs).unwrap();
    assert_eq!(shard.stats().shared, 1);
    let expired = shard.outbox(0).map(|entry| entry.publication.expired(1)).collect::<Vec<_>>();
    assert_eq!(expired, [true, false]);
}

#[test]
fn entries_that_their_group_does_not_know_are_forgotten() {
    // It has seen the ninth entry of group 3.
    let pairs: BTreeMap<_, _> = furnished().dump().into_iter().collect();
    for (end, seen) in [(7, 6), (9, 8), (10, 9), (100, 9)] {
        let mut pairs = pairs.clone();
        forget_later_entries(&mut pairs, &BTreeMap::from([(3, end), (4, 1)])).unwrap();
        assert_eq!(load(&pairs).unwrap().seen_of(3), seen, "{end}");
    }
}
