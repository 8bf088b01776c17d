use super::*;

#[test]
fn a_message_is_stored_once_for_all() {
    let mut probe = Probe::default();
    for name in ["a", "b", "c"] {
        probe.connected(client(name));
        probe.subscribed(name, "t", qos(1));
    }
    assert_eq!(probe.published(publication("t", "12345", 1)).queued, 3);
    for (left, name) in [(1, "a"), (1, "b"), (0, "c")] {
        assert_eq!(probe.stats().message_bytes, 6);
        assert_eq!(probe.session(name.as_bytes()).unwrap().queued_bytes(), 6);
        assert_eq!(probe.acknowledge(name, &[1, 1, 7]), Outcome::Acknowledged { removed: 1 });
        assert_eq!(probe.stats().messages, left);
        assert_eq!(probe.session(name.as_bytes()).unwrap().queued_bytes(), 0);
    }
    assert_eq!((probe.stats().message_bytes, probe.stats().queued), (0, 0));
}

/// A queue of at most 3 messages and 30 bytes (each message is its payload and one byte of topic).
#[test]
fn a_full_queue_drops_what_is_new() {
    for (case, payloads, kept) in [
        ("count", &["1", "2", "3", "4"][..], &["1", "2", "3"][..]),
        (
            "bytes",
            &["1234567890", "123456789012345678", "x"],
            &["1234567890", "123456789012345678"],
        ),
        (
            "a small one fits where a large did not",
            &["123456789012345", "123456789012345", "1"],
            &["123456789012345", "1"],
        ),
        ("too large ever", &["123456789012345678901234567890"], &[]),
    ] {
        let mut probe = Probe::default();
        let (queue_limit_messages, queue_limit_bytes) = (3, 30);
        probe.connected(Connect { queue_limit_messages, queue_limit_bytes, ..client("c") });
        probe.connected(client("other"));
        probe.subscribed("c", "t", qos(1));
        probe.subscribed("other", "t", qos(1));
        let mut dropped = 0;
        for payload in payloads {
            let published = probe.published(publication("t", payload, 1));
            assert_eq!(probe.effects.dropped, u64::from(published.dropped), "{case}");
            dropped += published.dropped as usize;
        }
        let queue: Vec<_> = probe.queue_of("c").into_iter().map(|(.., payload)| payload).collect();
        assert_eq!(queue, kept, "{case}");
        assert_eq!(dropped, payloads.len() - kept.len(), "{case}");
        assert_eq!(probe.queue_of("other").len(), payloads.len(), "{case}");
    }
}

/// What is over makes room, unless it may have been sent already.
#[test]
fn expired_messages_make_room_while_the_client_is_away() {
    let mut probe = Probe::default();
    probe.connected(Connect { queue_limit_messages: 3, ..client("c") });
    probe.subscribed("c", "t", qos(1));
    let message = |payload, published_at, expires_at| Publication {
        published_at,
        expires_at,
        ..publication("t", payload, 1)
    };
    probe.published(message("sent", 0, Some(10)));
    probe.disconnect("c", 0, WillAction::Discard);
    probe.published(message("brief", 0, Some(10)));
    probe.published(message("long", 0, Some(100)));
    assert_eq!(probe.published(message("early", 9, None)).dropped, 1);
    assert_eq!(probe.published(message("late", 10, None)).dropped, 0);
    assert_eq!(probe.effects.expired, 1);
    assert_eq!(probe.published(message("too late", 99, None)).dropped, 1);
    let queue: Vec<_> = probe.queue_of("c").into_iter().map(|(.., payload)| payload).collect();
    assert_eq!(queue, ["sent", "long", "late"]);
    assert_eq!((probe.stats().queued, probe.stats().messages), (3, 3));
}

#[test]
fn directed_copies_reach_their_session() {
    let mut probe = Probe::default();
    let session = probe.connected(client("c")).session;
    probe.subscribed("c", "t", qos(1));
    let directed = |client: &'static str, qos, retain, subscription_ids| Directed {
        client: Bytes::from_static(client.as_bytes()),
        qos,
        retain,
        subscription_ids,
        ..Directed::default()
    };
    let outcome = probe.told(Publish {
        publication: publication("t", "p", 2),
        enqueue: true,
        directed: vec![
            directed("c", 2, true, vec![4, 5]),
            directed("nobody", 1, false, vec![]),
            directed("c", 0, false, vec![]),
        ],
        ..Publish::default()
    });
    let expected = Published { queued: 2, gone: 1, ..Published::default() };
    assert_eq!(outcome, Outcome::Published(expected));
    let queue: Vec<_> = probe
        .queue(session, 0)
        .map(|each| (each.seq, each.qos, each.retain, each.subscription_ids.to_vec()))
        .collect();
    assert_eq!(queue, [(1, 1, false, vec![]), (2, 2, true, vec![4, 5])]);
    assert_eq!(probe.stats().messages, 1);
}

#[test]
fn an_outbox_entry_is_taken_once() {
    let mut probe = Probe::default();
    probe.connected(client("c"));
    probe.subscribed("c", "t", qos(1));
    for (group, seq, fresh) in [
        (1, 1, true),
        (1, 1, false),
        (2, 1, true),
        (1, 5, true),
        (1, 4, false),
        (1, 6, true),
        (2, u64::MAX, true),
        (2, u64::MAX, false),
    ] {
        let before = probe.digest();
        let origin = Some(Origin { group, seq, part: Some(1) });
        let publication = publication("t", "p", 1);
        let (enqueue, store_retained, directed) = (true, true, vec![]);
        let command = Publish { publication, origin, enqueue, store_retained, directed };
        let taken = Published { queued: 1, ..Published::default() };
        let expected = if fresh { Outcome::Published(taken) } else { Outcome::Repeated };
        assert_eq!(probe.told(command), expected, "{group} {seq}");
        assert_eq!(probe.digest() != before, fresh, "{group} {seq}");
    }
}

/// A shadow request and its publication are two commands for what may be one shard.
#[test]
fn both_parts_of_an_outbox_entry_are_taken_once() {
    let mut probe = Probe::default();
    probe.connected(client("c"));
    probe.subscribed("c", "#", qos(1));
    let origin = |seq| Origin { group: 1, seq, part: None };
    let update = |seq| UpdateShadow {
        thing: "lamp".into(),
        payload: Bytes::from_static(br#"{"state":{"desired":{"a":1}}}"#),
        origin: Some(origin(seq).shadow_request()),
        ..UpdateShadow::default()
    };
    let publish = |seq| Publish {
        origin: Some(origin(seq).publication()),
        ..enqueued(publication("t", "", 1))
    };
    let delete = DeleteShadow {
        thing: "lamp".into(),
        origin: Some(origin(3).shadow_request()),
        ..DeleteShadow::default()
    };
    for (command, fresh) in [
        (Command::from(update(1)), true),
        (update(1).into(), false),
        (publish(1).into(), true),
        (update(1).into(), false),
        (publish(1).into(), false),
        (publish(2).into(), true),
        (update(2).into(), false),
        (delete.clone().into(), true),
        (delete.into(), false),
    ] {
        let before = probe.digest();
        assert_eq!(probe.told(command.clone()) != Outcome::Repeated, fresh, "{command:?}");
        assert_eq!(probe.digest() != before, fresh, "{command:?}");
    }
    assert_eq!(probe.queue_of("c").len(), 2);
}

/// A group that lost the end of its log gives the numbers of lost entries to others.
#[test]
fn what_a_group_has_lost_is_not_taken_for_what_it_says_next() {
    let mut probe = Probe::default();
    let publish = |probe: &mut Probe, group, seq| {
        let origin = Some(Origin { group, seq, part: Some(1) });
        probe.told(Publish { origin, ..enqueued(publication("t", "", 1)) }) != Outcome::Repeated
    };
    for group in [1, 2] {
        assert!(publish(&mut probe, group, 9));
    }
    for (from, seen) in [(12, 9), (10, 9), (7, 6), (8, 6)] {
        assert_eq!(probe.told(ForgetOrigin { group: 1, from }), Outcome::Forgotten);
        assert_eq!((probe.seen_of(1), probe.seen_of(2)), (seen, 9), "{from}");
    }
    assert_eq!(probe.told(ForgetOrigin { group: 3, from: 1 }), Outcome::Forgotten);
    assert_eq!(probe.seen_of(3), 0);
    assert!(!publish(&mut probe, 1, 6));
    assert!(publish(&mut probe, 1, 7));
    assert!(!publish(&mut probe, 2, 9));
}

#[test]
fn retained_messages_are_stored_replaced_and_deleted() {
    let mut probe = Probe::default();
    let mut keep = |topic: &str, payload: &str, published_at, expires_at| {
        let publication = Publication {
            retain: true,
            published_at,
            expires_at,
            properties: Bytes::from_static(b"\x01\x01"),
            ..publication(topic, payload, 0)
        };
        probe.told(Publish { publication, store_retained: true, ..Publish::default() });
    };
    keep("a/1", "one", 1, None);
    keep("a/2", "two", 2, Some(50));
    keep("a/2", "new", 3, Some(60));
    keep("a/3", "gone", 4, None);
    keep("a/3", "", 5, None);
    keep("b", "late", 6, Some(60));
    let payloads = |probe: &Probe, filter: &str, after| -> Vec<_> {
        let matching = probe.retained_matching(filter, after, 9);
        matching.map(|(_, each)| text(&each.payload)).collect()
    };
    assert_eq!(payloads(&probe, "#", None), ["one", "new", "late"]);
    assert_eq!(payloads(&probe, "a/+", Some("a/1")), ["new"]);
    assert_eq!(probe.retained_after(None).count(), 3);
    assert_eq!(probe.retained_after(Some("a/1")).count(), 2);
    assert_eq!(probe.retained("a/3"), None);
    let kept = probe.retained("a/2").unwrap();
    assert_eq!((kept.published_at, kept.expires_at), (3, Some(60)));
    assert_eq!(kept.properties, b"\x01\x01"[..]);
    assert_eq!(probe.stats().retained_bytes, 8 + 8 + 7);
    let publication = Publication { published_at: 60, ..publication("c", "now", 0) };
    probe.told(Publish { publication, store_retained: true, ..Publish::default() });
    assert_eq!(payloads(&probe, "#", None), ["one", "now"]);
    assert_eq!(probe.stats().retained_bytes, 8 + 4);
}

#[test]
fn a_qos_2_publication_is_taken_once() {
    let mut probe = Probe::default();
    probe.connected(client("c"));
    let receive = |probe: &mut Probe, packet_id, store_retained| {
        let (client, epoch) = probe.fence("c");
        let publication = publication("t", "p", 2);
        probe.told(ReceiveQos2 { client, epoch, packet_id, publication, store_retained })
    };
    let release = |probe: &mut Probe, packet_id| {
        let (client, epoch) = probe.fence("c");
        probe.told(ReleaseQos2 { client, epoch, packet_id })
    };
    let taken = |duplicate| Outcome::Received { duplicate };
    assert_eq!(receive(&mut probe, 7, false), taken(false));
    assert_eq!(receive(&mut probe, 7, false), taken(true));
    assert!(!probe.effects.outbox_grew);
    assert_eq!(receive(&mut probe, 8, true), taken(false));
    assert_eq!(receive(&mut probe, 9, false), taken(false));
    assert_eq!(receive(&mut probe, 0, false), Outcome::Invalid);
    assert_eq!(receive(&mut probe, 65_536, false), Outcome::Invalid);
    assert_eq!(release(&mut probe, 7), Outcome::Released { known: true });
    assert_eq!(release(&mut probe, 7), Outcome::Released { known: false });
    assert_eq!(receive(&mut probe, 7, false), taken(false));
    let outbox: Vec<_> = probe.outbox(0).map(|each| (each.seq, each.store_retained)).collect();
    assert_eq!(outbox, [(1, false), (2, true), (3, false), (4, false)]);
    assert_eq!(probe.told(TrimOutbox { upto: 2, ..TrimOutbox::default() }), Outcome::Trimmed);
    assert_eq!(probe.outbox(0).map(|each| each.seq).collect::<Vec<_>>(), [3, 4]);
    assert_eq!(probe.outbox(5).count(), 0);
    assert_eq!(
        probe.told(TrimOutbox { upto: u64::MAX, ..TrimOutbox::default() }),
        Outcome::Trimmed
    );
    assert_eq!(probe.stats().outbox, 0);
}

#[test]
fn pubrec_leaves_only_a_pubrel_owed() {
    let mut probe = Probe::default();
    let session = probe.connected(client("c")).session;
    probe.subscribed("c", "t", qos(2));
    probe.published(publication("t", "one", 2));
    probe.published(publication("t", "two", 1));
    let outcome = probe.pubrec("c", &[1, 2, 3]);
    assert_eq!(outcome, Outcome::PubrecRecorded(vec![true, false, false]));
    assert_eq!(probe.effects.released, [session]);
    assert_eq!(probe.queue_of("c"), [(1, 2, "".into()), (2, 1, "two".into())]);
    assert_eq!((probe.stats().messages, probe.stats().queued), (1, 2));
    assert_eq!(probe.pubrec("c", &[1]), Outcome::PubrecRecorded(vec![true]));
    assert_eq!(probe.acknowledge("c", &[1]), Outcome::Acknowledged { removed: 1 });
    assert_eq!(probe.pubrec("c", &[1]), Outcome::PubrecRecorded(vec![false]));
    assert!(probe.effects.is_empty());
}

/// Decoding must not copy what it could share, and storing must not keep what it could free.
#[test]
fn payloads_are_shared_until_a_checkpoint_and_owned_after() {
    let mut shard = Shard::new();
    shard.apply(Command::from(client("c")).encoded()).unwrap();
    let filters = vec![Subscription { filter: "t".into(), options: qos(1) }];
    let client = client("c").client;
    shard.apply(Command::from(Subscribe { client, epoch: 1, filters }).encoded()).unwrap();
    let command = Command::from(enqueued(publication("t", "payload", 1))).encoded();
    let range = command.as_ptr_range();
    shard.apply(command.clone()).unwrap();
    let payload = |shard: &Shard| {
        let queued = shard.queue(1, 0).next().unwrap();
        queued.publication.unwrap().payload.as_ptr()
    };
    assert!(range.contains(&payload(&shard)));
    shard.checkpoint();
    assert!(!range.contains(&payload(&shard)));
    assert!(command.is_unique());
}
