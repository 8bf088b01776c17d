use super::*;

/// What a second CONNECT finds, given how the first one was and how it ended.
#[test]
fn sessions_are_resumed_or_begun() {
    let clean = |connect: Connect| Connect { clean_start: true, ..connect };
    let old = |connect: Connect| Connect { version: 4, ..connect };
    let brief = |connect: Connect| Connect { expiry_secs: 0, ..connect };
    let forever = |connect: Connect| Connect { expiry_secs: NEVER, ..connect };
    let at = |at, connect: Connect| Connect { at, ..connect };
    let one = || client("c");
    for (case, first, ended_at, second, present) in [
        ("in time", one(), Some(1_000), at(100_999, one()), true),
        ("at its expiry", one(), Some(1_000), at(101_000, one()), false),
        ("long after, but it never expires", forever(one()), Some(1), at(u64::MAX, one()), true),
        ("clean start", one(), Some(1_000), clean(at(2_000, one())), false),
        ("with an older version", one(), Some(1_000), old(at(2_000, one())), true),
        ("with a newer version", old(one()), Some(1_000), at(2_000, one()), true),
        ("takeover", one(), None, at(2_000, one()), true),
        ("takeover long after", one(), None, at(2_000_000, one()), true),
        ("takeover with a clean start", one(), None, clean(at(2_000, one())), false),
        ("takeover of what ends with its connection", brief(one()), None, at(2_000, one()), false),
        ("it ended with its connection", brief(one()), Some(1_000), at(2_000, one()), false),
    ] {
        let mut probe = Probe::default();
        let before = probe.connected(first);
        assert!(!before.session_present);
        probe.subscribed("c", "a", qos(1));
        if let Some(at) = ended_at {
            probe.disconnect("c", at, WillAction::Discard);
        }
        let after = probe.connected(second);
        assert_eq!(after.session_present, present, "{case}");
        assert_eq!(after.session == before.session, present, "{case}");
        assert_eq!(after.subscriptions.len(), usize::from(present), "{case}");
        assert!(after.epoch > before.epoch, "{case}");
        assert_eq!(probe.stats().sessions, 1, "{case}");
        assert_eq!(probe.stats().connected, 1, "{case}");
        assert_eq!(probe.interests().len(), usize::from(present), "{case}");
    }
}

#[test]
fn a_resumed_session_brings_its_state() {
    let mut probe = Probe::default();
    probe.connected(client("c"));
    for filter in ["b/+", "$share/g/x", "a"] {
        probe.subscribed("c", filter, qos(2));
    }
    for packet_id in [9, 3, 65_535, 4] {
        let (client, epoch) = probe.fence("c");
        let publication = publication("t", "p", 2);
        let store_retained = false;
        probe.told(ReceiveQos2 { client, epoch, packet_id, publication, store_retained });
    }
    let (c, epoch) = probe.fence("c");
    probe.told(ReleaseQos2 { client: c, epoch, packet_id: 9 });
    let resumed = probe.connected(client("c"));
    let filters: Vec<_> = resumed.subscriptions.iter().map(|each| each.filter.as_str()).collect();
    assert_eq!(filters, ["$share/g/x", "a", "b/+"]);
    assert_eq!(resumed.inbound, [3, 4, 65_535]);
}

/// A token stays behind for good, also when the session of its time is gone.
#[test]
fn an_older_connection_changes_nothing() {
    let mut probe = Probe::default();
    let old = probe.connected(client("c"));
    probe.connected(Connect { clean_start: true, ..client("c") });
    probe.subscribed("c", "a", qos(1));
    probe.published(publication("a", "1", 1));
    let digest = probe.digest();
    let (c, epoch) = (client("c").client, old.epoch);
    let publication = publication("t", "p", 2);
    let options = qos(1);
    let filters = vec![Subscription { filter: "a/b".into(), options }];
    let (client, at, expiry_secs, will) = (c, 9, Some(0), 1);
    let (store_retained, packet_id) = (true, 1);
    let seqs = vec![1];
    let commands: [Command; 9] = [
        Disconnect {
            client: client.clone(),
            epoch,
            at,
            expiry_secs,
            will,
            ..Disconnect::default()
        }
        .into(),
        Subscribe { client: client.clone(), epoch, filters }.into(),
        Unsubscribe { client: client.clone(), epoch, filters: vec!["a".into()], sent_below: 0 }
            .into(),
        ReceiveQos2 { client: client.clone(), epoch, packet_id, publication, store_retained }
            .into(),
        ReleaseQos2 { client: client.clone(), epoch, packet_id }.into(),
        Acknowledge { client: client.clone(), epoch, seqs: seqs.clone(), refused: vec![] }.into(),
        PubrecReceived { client: client.clone(), epoch, seqs }.into(),
        Expire { client: client.clone(), epoch, at: u64::MAX, ..Expire::default() }.into(),
        FireWill { client, epoch, at: u64::MAX, ..FireWill::default() }.into(),
    ];
    for command in commands {
        assert_eq!(probe.told(command.clone()), Outcome::Stale, "{command:?}");
        assert!(probe.effects.is_empty(), "{command:?}");
    }
    assert_eq!(probe.digest(), digest);
}

/// When the will of a connection is published: the steps that follow the connection, and the time
/// at which the outbox first has it.
#[test]
fn wills_are_published_once_or_not_at_all() {
    enum Step {
        End(u64, WillAction),
        EndWithExpiry(u64, u32),
        Back(u64, bool),
        Fire(u64),
        Expire(u64),
    }
    use Step::*;
    use WillAction::{Discard, Publish};
    for (case, delay, expiry, steps, published) in [
        ("goodbye", 0, 100, vec![End(1_000, Discard)], None),
        ("lost", 0, 100, vec![End(1_000, Publish)], Some(1_000)),
        ("lost, session ends too", 0, 0, vec![End(1_000, Publish)], Some(1_000)),
        ("lost, session ends before the delay", 9, 0, vec![End(1_000, Publish)], Some(1_000)),
        ("goodbye, session ends too", 0, 0, vec![End(1_000, Discard)], None),
        ("delayed", 10, 100, vec![End(1_000, Publish), Fire(10_999)], None),
        ("delay over", 10, 100, vec![End(1_000, Publish), Fire(11_000)], Some(11_000)),
        ("back in time", 10, 100, vec![End(1_000, Publish), Back(5_000, false)], None),
        ("back, clean", 10, 100, vec![End(1_000, Publish), Back(5_000, true)], Some(5_000)),
        ("back late", 10, 100, vec![End(1_000, Publish), Back(12_000, false)], Some(12_000)),
        ("expiry first", 999, 10, vec![End(1_000, Publish), Expire(11_000)], Some(11_000)),
        ("expiry not due", 999, 10, vec![End(1_000, Publish), Expire(10_999)], None),
        ("ended by an operator", 10, 100, vec![End(1, Publish), EndWithExpiry(3, 0)], Some(3)),
        ("forgotten by an operator", 10, 100, vec![End(1, Publish), End(3, Discard)], None),
        ("takeover", 0, 100, vec![Back(2_000, false)], Some(2_000)),
        ("takeover, delayed", 10, 100, vec![Back(2_000, false)], None),
        ("takeover, delayed, clean", 10, 100, vec![Back(2_000, true)], Some(2_000)),
        ("DISCONNECT changes expiry", 10, 100, vec![EndWithExpiry(1_000, 0)], Some(1_000)),
        (
            "DISCONNECT changes expiry, delay longer",
            10,
            100,
            vec![EndWithExpiry(1_000, 5), Expire(6_000)],
            Some(6_000),
        ),
    ] {
        let mut probe = Probe::default();
        let will = will("gone", delay);
        probe.connected(Connect { will, expiry_secs: expiry, ..client("c") });
        for step in steps {
            let (c, epoch) = probe.fence("c");
            match step {
                End(at, action) => drop(probe.disconnect("c", at, action)),
                EndWithExpiry(at, secs) => {
                    let (expiry_secs, will) = (Some(secs), Publish.into());
                    probe.told(Disconnect {
                        client: c,
                        epoch,
                        at,
                        expiry_secs,
                        will,
                        ..Disconnect::default()
                    });
                }
                Back(at, clean_start) => {
                    probe.connected(Connect { at, clean_start, ..client("c") });
                }
                Fire(at) => drop(probe.told(FireWill { client: c, epoch, at, discard: false })),
                Expire(at) => {
                    drop(probe.told(super::Expire { client: c, epoch, at, discard_will: false }))
                }
            }
        }
        let outbox: Vec<_> = probe.outbox(0).map(|each| each.publication.published_at).collect();
        assert_eq!(outbox, published.into_iter().collect::<Vec<_>>(), "{case}");
        assert_eq!(probe.effects.outbox_grew, published.is_some(), "{case}");
    }
}

#[test]
fn a_will_brings_its_flags_and_its_expiry() {
    for (retain, message_expiry_secs, expires_at) in
        [(false, None, None), (true, Some(7), Some(12_000)), (true, Some(0), Some(5_000))]
    {
        let mut probe = Probe::default();
        let publication = Publication { retain, ..publication("t", "p", 2) };
        let will = Some(Will { publication, message_expiry_secs, ..Will::default() });
        probe.connected(Connect { will, ..client("c") });
        probe.disconnect("c", 5_000, WillAction::Publish);
        let entry = probe.outbox(0).next().unwrap();
        assert_eq!(entry.store_retained, retain);
        assert_eq!(entry.publication.expires_at, expires_at);
        assert_eq!(entry.publication.qos, 2);
    }
}

/// The timers of a session after its connection ended at second 1: what is due, when.
#[test]
fn deadlines_become_commands() {
    for (will_delay, expiry, deadlines) in [
        (None, 100, &[101_000][..]),
        (None, NEVER, &[]),
        (Some(10), 100, &[11_000, 101_000]),
        (Some(10), NEVER, &[11_000]),
        (Some(100), 100, &[101_000]),
        (Some(NEVER), 100, &[101_000]),
        (Some(NEVER), NEVER, &[4_294_967_296_000]),
    ] {
        let case = format!("will {will_delay:?} expiry {expiry}");
        let mut probe = Probe::default();
        let will = will_delay.and_then(|delay| will("gone", delay));
        probe.connected(Connect { will, expiry_secs: expiry, ..client("c") });
        assert_eq!(probe.next_deadline(), None, "{case}");
        probe.disconnect("c", 1_000, WillAction::Publish);
        for &at in deadlines {
            assert_eq!(probe.next_deadline(), Some(at), "{case}");
            assert_eq!(probe.due(at - 1, 9), [], "{case}");
            for command in probe.due(at, 9) {
                assert_eq!(probe.told(command), Outcome::Due(true), "{case}");
            }
        }
        assert_eq!(probe.next_deadline(), None, "{case}");
        assert_eq!(probe.stats().sessions, usize::from(expiry == NEVER), "{case}");
        assert_eq!(probe.outbox_of().len(), usize::from(will_delay.is_some()), "{case}");
    }
}

#[test]
fn due_commands_come_earliest_first_and_in_portions() {
    let mut probe = Probe::default();
    for (name, expiry_secs) in [("c", 30), ("a", 10), ("b", 20)] {
        probe.connected(Connect { expiry_secs, ..client(name) });
        probe.disconnect(name, 0, WillAction::Publish);
    }
    let names = |commands: Vec<Command>| -> String {
        commands
            .iter()
            .map(|each| match &each.kind {
                Some(Kind::Expire(expire)) => text(&expire.client),
                other => panic!("{other:?}"),
            })
            .collect()
    };
    assert_eq!(names(probe.due(99_000, 2)), "ab");
    assert_eq!(names(probe.due(20_000, 9)), "ab");
    assert_eq!(names(probe.due(99_000, 9)), "abc");
}

#[test]
fn a_restarted_node_ends_the_connections_it_held() {
    let mut probe = Probe::default();
    for (name, node) in [("a", 1), ("b", 2), ("c", 1), ("d", 1)] {
        probe.connected(Connect { will: will(name, 0), node, ..client(name) });
    }
    probe.disconnect("d", 1, WillAction::Discard);
    for command in probe.ends_of(|holder| holder.0 == 1, |_| false, 5_000) {
        assert_eq!(probe.told(command), Outcome::Disconnected { removed: false });
    }
    let payloads: Vec<_> = probe.outbox_of().into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(payloads, ["a", "c"]);
    assert_eq!(probe.stats().connected, 1);
    assert_eq!(probe.ends_of(|holder| holder.0 == 1, |_| false, 5_000), []);
}

#[test]
fn a_session_that_ends_takes_everything_along() {
    let mut probe = Probe::default();
    let session = probe.connected(client("c")).session;
    for filter in ["a", "$share/g/a", "q0"] {
        probe.subscribed("c", filter, qos(u32::from(filter != "q0")));
    }
    probe.published(publication("a", "1", 1));
    probe.disconnect("c", 0, WillAction::Discard);
    let (c, epoch) = probe.fence("c");
    assert_eq!(
        probe.told(Expire { client: c.clone(), epoch, at: 100_000, discard_will: false }),
        Outcome::Due(true)
    );
    assert_eq!(probe.effects.removed, [Removed { session, client: c }]);
    let (share, filter) = ("g".to_owned(), "a".to_owned());
    let left = Interest::Left { share, filter: filter.clone(), session };
    assert_eq!(probe.effects.interest, [left, Interest::Unwanted { filter }]);
    assert_eq!(probe.stats(), Stats::default());
    assert_eq!(probe.interests(), []);
}

#[test]
fn a_session_without_a_queue_is_small() {
    // Beside the record: its two map entries and the client id.
    assert!(size_of::<Session>() <= 300, "{} bytes", size_of::<Session>());
}

#[test]
fn a_will_that_is_not_allowed_any_more_is_forgotten() {
    for fires in [true, false] {
        let mut probe = Probe::default();
        probe.connected(Connect { will: will("gone", 30), ..client("c") });
        probe.disconnect("c", 1_000, WillAction::Publish);
        let (client, epoch) = probe.fence("c");
        let due = match fires {
            true => probe.told(FireWill { client, epoch, at: u64::MAX, discard: true }),
            false => probe.told(Expire { client, epoch, at: u64::MAX, discard_will: true }),
        };
        assert_eq!(due, Outcome::Due(true));
        assert_eq!(probe.outbox(0).count(), 0);
        assert!(probe.session(b"c").is_none_or(|session| session.will().is_none()));
    }
}

/// Who holds a connection, who wants one, and whether it gets one.
#[test]
fn a_client_id_is_taken_over_from_another_node_only_when_that_has_let_go() {
    let instance = |node| Instance::new(node, 7);
    let from = |holder: Instance| Connect { node: holder.0, ..client("c") };
    for (case, holder, wants, free) in [
        ("another node", instance(1), instance(2), false),
        ("the same node", instance(1), instance(1), true),
        ("a later life of it", instance(1), Instance::new(1, 8), true),
        ("a node that was alone before", Instance(1), instance(2), true),
    ] {
        let mut probe = Probe::default();
        let epoch = probe.connected(from(holder)).epoch;
        let held = Held { client: Bytes::from_static(b"c"), epoch, holder };
        if free {
            assert!(probe.connected(from(wants)).session_present, "{case}");
            assert_eq!(probe.effects.vacated, [Vacated { held, by_holder: false }], "{case}");
            continue;
        }
        assert_eq!(probe.told(from(wants)), Outcome::Occupied, "{case}");
        assert_eq!(probe.effects.contested, std::slice::from_ref(&held), "{case}");
        let (client, will) = (held.client.clone(), WillAction::Publish.into());
        let by = holder.0;
        probe.told(Disconnect { client, epoch, at: 5, will, by, ..Disconnect::default() });
        assert_eq!(probe.effects.vacated, [Vacated { held, by_holder: true }], "{case}");
        assert!(probe.connected(from(wants)).session_present, "{case}");
    }
}

/// An operator's wish is the holder's to fulfil: until that has said so, nothing has changed.
#[test]
fn who_holds_a_connection_is_told_that_it_has_to_end() {
    let mut probe = Probe::default();
    let holder = Instance::new(3, 7);
    let epoch = probe.connected(Connect { node: holder.0, ..client("c") }).epoch;
    let wish = |epoch| EndConnection {
        client: Bytes::from_static(b"c"),
        epoch,
        clean_session: true,
        prevent_will: false,
    };
    assert_eq!(probe.told(wish(epoch + 1)), Outcome::Stale);
    assert_eq!(probe.effects.deletions, []);
    assert_eq!(probe.told(wish(epoch)), Outcome::Due(true));
    let held = Held { client: Bytes::from_static(b"c"), epoch, holder };
    let deletion = Deletion { held, clean_session: true, prevent_will: false };
    assert_eq!(probe.effects.deletions, [deletion]);
    let client = Bytes::from_static(b"c");
    probe.told(Disconnect { client, epoch, at: 5, by: holder.0, ..Disconnect::default() });
    assert_eq!(probe.told(wish(epoch)), Outcome::Due(false));
    assert_eq!(probe.effects.deletions, []);
}
