use proptest::prelude::*;

use super::checkpoint::furnished;
use super::*;

#[test]
fn what_cannot_be_read_is_an_error_and_changes_nothing() {
    let mut probe = furnished();
    let digest = probe.digest();
    for later in [&b""[..], b"\xfa\x07\x00"] {
        let error = probe.shard.apply(Bytes::from_static(later)).unwrap_err();
        assert_eq!(error, CommandError::Kind, "{later:?}");
    }
    for damaged in [&b"\xff\xff\xff"[..], b"\x0a\x05\x01"] {
        let error = probe.shard.apply(Bytes::from_static(damaged)).unwrap_err();
        assert!(matches!(error, CommandError::Protobuf(_)), "{damaged:?}: {error}");
    }
    assert_eq!(probe.digest(), digest);
}

#[test]
fn what_breaks_a_rule_is_invalid_and_changes_nothing() {
    let mut probe = furnished();
    let digest = probe.digest();
    let bad_topic = Publication { topic: Bytes::from_static(b"\xff"), ..Publication::default() };
    let commands: [Bytes; 6] = [
        Command::from(enqueued(publication("", "p", 1))).encoded(),
        Command::from(enqueued(publication("t", "p", 3))).encoded(),
        Command::from(enqueued(bad_topic.clone())).encoded(),
        Command::from(client("")).encoded(),
        Command::from(Connect {
            will: Some(Will { publication: bad_topic, ..Will::default() }),
            ..client("a")
        })
        .encoded(),
        {
            let (client, epoch) = probe.fence("a");
            let (at, expiry_secs, will) = (0, Some(0), 9);
            Command::from(Disconnect {
                client,
                epoch,
                at,
                expiry_secs,
                will,
                ..Disconnect::default()
            })
            .encoded()
        },
    ];
    for command in commands {
        assert_eq!(probe.shard.apply(command.clone()), Ok(Outcome::Invalid), "{command:?}");
    }
    assert_eq!(probe.digest(), digest);
    probe.shard.drain_effects(&mut Effects::default());
}

/// Numbers at the ends of their range.
#[test]
fn extreme_numbers_are_only_numbers() {
    let mut probe = Probe::default();
    let at = u64::MAX;
    let will =
        Some(Will { message_expiry_secs: Some(u32::MAX), ..will("w", u32::MAX - 1).unwrap() });
    let queue_limit_bytes = u64::MAX;
    let (queue_limit_messages, expiry_secs) = (u32::MAX, u32::MAX - 1);
    probe.connected(Connect {
        at,
        will,
        queue_limit_bytes,
        queue_limit_messages,
        expiry_secs,
        ..client("c")
    });
    probe.subscribed("c", "t", Options { qos: 9, subscription_id: u32::MAX, ..qos(1) });
    let published_at = u64::MAX;
    let expires_at = Some(u64::MAX);
    probe.published(Publication { published_at, expires_at, ..publication("t", "p", 2) });
    probe.pubrec("c", &[0, u64::MAX]);
    probe.acknowledge("c", &[0, u64::MAX]);
    probe.disconnect("c", u64::MAX, WillAction::Publish);
    for command in probe.due(u64::MAX, usize::MAX) {
        probe.told(command);
    }
    assert_eq!(probe.queue(1, u64::MAX).count(), 0);
    assert_eq!(probe.outbox(u64::MAX).count(), 0);
}

proptest! {
    #[test]
    fn arbitrary_commands_do_not_panic(commands in prop::collection::vec(any::<Vec<u8>>(), 1..8)) {
        let mut probe = furnished();
        for command in commands {
            let _ = probe.shard.apply(command.into());
        }
        probe.shard.checkpoint();
    }

    /// Real commands with bytes changed get further.
    #[test]
    fn damaged_commands_do_not_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), pick in 0..8_usize) {
        let mut probe = furnished();
        let (client, epoch) = probe.fence("a");
        let commands: [Command; 8] = [
            EnqueueShared { publication: publication("t", "p", 2), filters: vec!["$share/g/t/#".into()], limit_bytes: 99, limit_messages: 9, ..Default::default() }.into(),
            AssignShared { filter: "$share/g/t/#".into(), at: 5, most: 3, most_bytes: 99, ..Default::default() }.into(),
            Connect { will: will("w", 1), ..super::client("a") }.into(),
            enqueued(publication("t", "payload", 2)).into(),
            Publish { publication: publication("t", "kept", 2), store_retained: true, origin: Some(Origin { group: 3, seq: 10, part: Some(1) }), directed: vec![Directed { client: client.clone(), qos: 1, retain: true, subscription_ids: vec![7], share: "$share/g/t/#".into(), assigned: true }], enqueue: true }.into(),
            Acknowledge { client: client.clone(), epoch, seqs: vec![1, 2, 3], refused: vec![4] }.into(),
            ReceiveQos2 { client: client.clone(), epoch, packet_id: 5, publication: publication("t", "p", 2), store_retained: true }.into(),
            Subscribe { client, epoch, filters: vec![Subscription { filter: "a/+".into(), options: qos(1) }] }.into(),
        ];
        let mut bytes = commands[pick].encoded().to_vec();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let _ = probe.shard.apply(bytes.into());
        let dump = probe.dump();
        let loaded = super::checkpoint::load(&dump.into_iter().collect());
        prop_assert_eq!(loaded.map(|loaded| loaded.digest()), Ok(probe.digest()));
    }

    #[test]
    fn arbitrary_pairs_do_not_panic(pairs in prop::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>()), 1..8)) {
        let mut shard = Shard::new();
        for (key, value) in pairs {
            let _ = shard.load(&key, &value);
        }
        let _ = shard.loaded();
        shard.checkpoint();
    }

    /// A store with bytes changed is refused, or is the store of some shard that works.
    #[test]
    fn damaged_pairs_do_not_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut pairs = furnished().dump();
        for (pair, place, byte) in changes {
            let pair = pair.index(pairs.len());
            let (key, value) = &mut pairs[pair];
            let place = place.index(key.len() + value.len());
            match place.checked_sub(key.len()) {
                None => key[place] = byte,
                Some(place) => value[place] = byte,
            }
        }
        let mut probe = Probe::default();
        if pairs.iter().all(|(key, value)| probe.shard.load(key, value).is_ok())
            && probe.shard.loaded().is_ok()
        {
            probe.told(AssignShared { filter: "$share/g/t/#".into(), most: 9, most_bytes: 99, ..Default::default() });
            probe.acknowledge("a", &[1, 2, 3, 4]);
            probe.pubrec("a", &[1, 2, 3, 4]);
            probe.published(publication("t", "p", 2));
            probe.connected(Connect { clean_start: true, ..client("a") });
            probe.connected(Connect { clean_start: true, ..client("b") });
            for command in probe.due(u64::MAX, 9) {
                probe.told(command);
            }
            probe.checkpoint();
        }
    }
}
