use super::*;

#[test]
fn filters_are_new_replaced_or_refused() {
    let mut probe = Probe::default();
    probe.connected(client("c"));
    for (filter, expected) in [
        ("a/b", Subscribed::New),
        ("a/b", Subscribed::Replaced),
        ("$share/g/a/b", Subscribed::New),
        ("$share/g/a/b", Subscribed::Replaced),
        ("a/#", Subscribed::New),
        ("a/#/b", Subscribed::Invalid),
        ("$share/g", Subscribed::Invalid),
        ("", Subscribed::Invalid),
    ] {
        assert_eq!(probe.subscribed("c", filter, qos(1)), expected, "{filter}");
    }
    let (client, epoch) = probe.fence("c");
    let filters = ["a/b", "a/b", "x", "$share/g/a/b", "a/#/b", "a/#"].map(String::from).to_vec();
    let outcome = probe.told(Unsubscribe { client, epoch, filters, sent_below: 0 });
    assert_eq!(outcome, Outcome::Unsubscribed(vec![true, false, false, true, false, true]));
    assert_eq!(probe.stats().subscriptions, 0);
    assert_eq!(probe.interests(), []);
}

/// Publishers hear of the first subscriber that queues and of the last one that leaves.
#[test]
fn interest_begins_and_ends_once() {
    let mut probe = Probe::default();
    probe.connected(client("one"));
    probe.connected(client("two"));
    for (client, change, expected) in [
        ("one", Some(0), None),
        ("one", Some(1), Some(true)),
        ("two", Some(2), None),
        ("one", Some(2), None),
        ("one", None, None),
        ("two", Some(0), Some(false)),
        ("two", Some(1), Some(true)),
        ("two", None, Some(false)),
        ("two", None, None),
    ] {
        match change {
            Some(maximum) => drop(probe.subscribed(client, "a/+", qos(maximum))),
            None => {
                let (client, epoch) = probe.fence(client);
                probe.told(Unsubscribe {
                    client,
                    epoch,
                    filters: vec!["a/+".into()],
                    sent_below: 0,
                });
            }
        }
        let filter = "a/+".to_owned();
        let expected = expected.map(|begins| match begins {
            true => Interest::Wanted { filter },
            false => Interest::Unwanted { filter },
        });
        assert_eq!(probe.effects.interest, Vec::from_iter(expected), "{client} {change:?}");
    }
}

#[test]
fn members_of_shares_are_told_one_by_one() {
    let mut probe = Probe::default();
    let session = probe.connected(client("c")).session;
    let member = |connected, maximum| {
        Interest::Joined(Member {
            share: "g".into(),
            filter: "a/#".into(),
            session,
            client: client("c").client,
            connected,
            options: qos(maximum),
        })
    };
    probe.subscribed("c", "$share/g/a/#", qos(0));
    assert_eq!(probe.effects.interest, [member(true, 0)]);
    probe.subscribed("c", "$share/g/a/#", qos(1));
    assert_eq!(probe.effects.interest, [member(true, 1)]);
    probe.disconnect("c", 0, WillAction::Discard);
    assert_eq!(probe.effects.interest, [member(false, 1)]);
    probe.connected(client("c"));
    assert_eq!(probe.effects.interest, [member(true, 1)]);
    assert_eq!(probe.interests(), [member(true, 1)]);
    let (c, epoch) = probe.fence("c");
    probe.told(Unsubscribe {
        client: c,
        epoch,
        filters: vec!["$share/g/a/#".into()],
        sent_below: 0,
    });
    let (share, filter) = ("g".to_owned(), "a/#".to_owned());
    assert_eq!(probe.effects.interest, [Interest::Left { share, filter, session }]);
    // What is shared is not matched here.
    assert_eq!(probe.published(publication("a/b", "1", 1)).queued, 0);
}

/// Overlapping subscriptions of one session come to one copy.
#[test]
fn matching_subscriptions_are_one_copy() {
    let options = |qos, no_local, retain_as_published, subscription_id| Options {
        qos,
        no_local,
        retain_as_published,
        retain_handling: 0,
        subscription_id,
    };
    for (case, subscriptions, published_qos, expected) in [
        ("none", vec![], 1, None),
        ("one", vec![("a/b", options(1, false, false, 0))], 1, Some((1, false, vec![]))),
        (
            "QoS of the publication",
            vec![("a/b", options(2, false, false, 7))],
            1,
            Some((1, false, vec![7])),
        ),
        (
            "QoS of the subscription",
            vec![("a/b", options(1, false, true, 7))],
            2,
            Some((1, true, vec![7])),
        ),
        ("QoS 0 subscription", vec![("a/b", options(0, false, false, 7))], 2, None),
        ("QoS 0 publication", vec![("a/b", options(2, false, false, 7))], 0, None),
        (
            "greatest QoS, all identifiers",
            vec![
                ("#", options(0, false, false, 9)),
                ("a/+", options(2, false, false, 3)),
                ("a/b", options(1, false, true, 0)),
                ("a/b/#", options(1, false, false, 268_435_455)),
                ("+/+/c", options(1, false, false, 5)),
            ],
            2,
            Some((2, true, vec![3, 9, 268_435_455])),
        ),
        ("no local", vec![("a/b", options(1, true, false, 0))], 1, None),
        (
            "no local on one of two",
            vec![("a/b", options(2, true, true, 1)), ("a/+", options(1, false, false, 2))],
            2,
            Some((1, false, vec![2])),
        ),
    ] {
        let mut probe = Probe::default();
        let session = probe.connected(client("c")).session;
        for (filter, options) in subscriptions {
            probe.subscribed("c", filter, options);
        }
        let publication = Publication {
            publisher: client("c").client,
            retain: true,
            ..publication("a/b", "p", published_qos)
        };
        let published = probe.published(publication);
        assert_eq!(published.queued, u32::from(expected.is_some()), "{case}");
        assert_eq!(
            probe.effects.grown,
            Vec::from_iter(expected.as_ref().map(|_| session)),
            "{case}"
        );
        let queued: Vec<_> = probe
            .queue(session, 0)
            .map(|each| (each.qos, each.retain, each.subscription_ids.to_vec()))
            .collect();
        assert_eq!(queued, Vec::from_iter(expected), "{case}");
    }
}
