use super::*;

const SHARE: &str = "$share/g/t";

fn shared_copy(client: &str, payload: &str, qos: u32) -> Publish {
    let (client, share) = (Bytes::copy_from_slice(client.as_bytes()), SHARE.into());
    let directed = vec![Directed { client, qos, share, ..Directed::default() }];
    Publish { publication: publication("t", payload, qos), directed, ..Publish::default() }
}

fn member(probe: &mut Probe, name: &str) {
    probe.connected(client(name));
    probe.subscribed(name, SHARE, qos(2));
}

impl Probe {
    /// Payloads of what the outbox has for shared subscriptions, `>` before those for members and `<`
    /// before what was returned.
    fn copies(&self) -> Vec<String> {
        let copies = self.outbox(0).filter_map(|entry| Some((entry, entry.share.as_deref()?)));
        let copies = copies.map(|(entry, copy)| {
            assert_eq!(copy.filter, SHARE);
            let mark = match (copy.assigned, copy.returned) {
                (true, _) => ">",
                (false, true) => "<",
                (false, false) => "",
            };
            format!("{mark}{}", text(&entry.publication.payload))
        });
        copies.collect()
    }

    fn waiting(&self) -> Vec<String> {
        let waiting = self.shard.shares.iter();
        let waiting = waiting.map(|(_, it, _)| self.shard.messages.get(it.message).unwrap());
        waiting.map(|publication| text(&publication.payload)).collect()
    }

    fn release(&mut self, name: &str, most: u32) -> Outcome {
        let (client, epoch) = self.fence(name);
        let (filter, most_bytes) = (SHARE.into(), u64::MAX);
        self.told(ReleaseShared { client, epoch, filter, most, most_bytes })
    }
}

/// What a member has when it goes, and what of it others get.
#[test]
fn what_a_member_leaves_goes_to_others_unless_it_has_begun() {
    type Leave = fn(&mut Probe);
    let leave: [(&str, Leave, &[&str]); 6] = [
        ("it is connected", |probe| assert_eq!(probe.release("c", 9), Outcome::Stale), &[]),
        (
            "it is away and another one is there",
            |probe| {
                probe.disconnect("c", 1, WillAction::Discard);
                assert_eq!(probe.release("c", 9), Outcome::TakenBack(3));
            },
            &["<one", "<two", "<four"],
        ),
        (
            "a little at a time",
            |probe| {
                probe.disconnect("c", 1, WillAction::Discard);
                assert_eq!(probe.release("c", 2), Outcome::TakenBack(2));
            },
            &["<one", "<two"],
        ),
        (
            "its session ends",
            |probe| {
                let (client, epoch) = probe.fence("c");
                let expiry_secs = Some(0);
                probe.told(Disconnect { client, epoch, expiry_secs, ..Disconnect::default() });
            },
            &["<one", "<two", "<four"],
        ),
        (
            "it begins anew",
            |probe| drop(probe.connected(Connect { clean_start: true, ..client("c") })),
            &["<one", "<two", "<four"],
        ),
        (
            "it unsubscribes, and has been sent two",
            |probe| {
                let (client, epoch) = probe.fence("c");
                let (filters, sent_below) = (vec![SHARE.into()], 3);
                probe.told(Unsubscribe { client, epoch, filters, sent_below });
            },
            &["<four"],
        ),
    ];
    for (case, leave, expected) in leave {
        let mut probe = Probe::default();
        member(&mut probe, "c");
        probe.subscribed("c", "t", qos(1));
        for (payload, qos) in [("one", 1), ("two", 1), ("three", 2), ("four", 2)] {
            probe.told(shared_copy("c", payload, qos));
        }
        probe.published(publication("t", "its own", 1));
        let (client, epoch) = probe.fence("c");
        probe.told(BeginShared { client, epoch, below: 4 });
        leave(&mut probe);
        assert_eq!(probe.copies(), expected, "{case}");
        if probe.session(b"c").is_some_and(|it| it.queued() > 0) {
            let own = probe.queue_of("c").into_iter().map(|(.., payload)| payload);
            let own: Vec<_> = own.filter(|it| it == "its own" || it == "three").collect();
            assert_eq!(own, ["three", "its own"], "{case}");
        }
        assert_eq!(
            probe.holding_after(0).count(),
            usize::from(case.contains("away") || case.contains("little")),
            "{case}"
        );
    }
}

#[test]
fn what_a_member_may_not_receive_goes_to_others() {
    let mut probe = Probe::default();
    member(&mut probe, "c");
    probe.subscribed("c", "t", qos(1));
    for (payload, qos) in [("one", 1), ("two", 2), ("three", 1)] {
        probe.told(shared_copy("c", payload, qos));
    }
    probe.published(publication("t", "its own", 1));
    let (client, epoch) = probe.fence("c");
    let session = probe.session(b"c").unwrap().id();
    let (seqs, refused) = (vec![3], vec![1, 2, 4, 9]);
    let outcome = probe.told(Acknowledge { client, epoch, seqs, refused });
    assert_eq!(outcome, Outcome::Acknowledged { removed: 4 });
    assert_eq!(probe.copies(), ["one", "two"]);
    let passed_over = Interest::PassedOver { share: SHARE.into(), session, topic: "t".into() };
    assert_eq!(probe.effects.interest, [passed_over]);
    assert_eq!(probe.session(b"c").unwrap().queued(), 0);
}

#[test]
fn who_cannot_keep_a_copy_passes_it_on() {
    let mut probe = Probe::default();
    probe.connected(Connect { queue_limit_messages: 1, ..client("full") });
    probe.connected(client("stranger"));
    probe.subscribed("full", SHARE, qos(1));
    assert_eq!(probe.told(shared_copy("full", "fits", 1)), queued(1));
    let passed_on = Outcome::Published(Published { passed_on: 1, ..Published::default() });
    for name in ["full", "stranger", "nobody"] {
        assert_eq!(probe.told(shared_copy(name, name, 1)), passed_on);
    }
    assert_eq!(probe.copies(), ["full", "stranger", "nobody"]);
    let mut command = shared_copy("nobody", "waited", 1);
    command.directed[0].assigned = true;
    probe.told(command);
    assert_eq!(probe.copies().last().map(String::as_str), Some("<waited"));
}

fn queued(queued: u32) -> Outcome {
    Outcome::Published(Published { queued, ..Published::default() })
}

#[test]
fn what_was_returned_goes_first_and_finds_room() {
    let mut probe = Probe::default();
    let mut enqueue = |payload: &str, returned, expires_at| {
        let publication = Publication { expires_at, ..publication("t", payload, 1) };
        let (limit_bytes, limit_messages, filters) = (1000, 2, vec![SHARE.into()]);
        let command = EnqueueShared {
            publication,
            filters,
            returned,
            limit_bytes,
            limit_messages,
            origin: None,
        };
        probe.told(command)
    };
    let dropped = Outcome::Published(Published { dropped: 1, ..Published::default() });
    assert_eq!(enqueue("one", false, None), queued(1));
    assert_eq!(enqueue("two", false, Some(5)), queued(1));
    assert_eq!(enqueue("three", false, None), dropped);
    assert_eq!(enqueue("had", true, None), queued(1));
    assert_eq!(enqueue("had too", true, None), queued(1));
    assert_eq!(probe.waiting(), ["had", "had too", "one", "two"]);
    let assign = |probe: &mut Probe, most, at| {
        let (filter, most_bytes) = (SHARE.into(), 1000);
        probe.told(AssignShared { filter, most, most_bytes, at, ..AssignShared::default() })
    };
    assert_eq!(assign(&mut probe, 1, 0), Outcome::Assigned(1));
    assert_eq!(probe.assigned(SHARE), 1);
    assert_eq!(assign(&mut probe, 9, 5), Outcome::Assigned(2), "one has expired");
    assert_eq!(probe.effects.expired, 1);
    assert_eq!(probe.copies(), [">had", ">had too", ">one"]);
    assert_eq!((probe.assigned(SHARE), probe.stats().shared, probe.stats().messages), (3, 0, 0));
    probe.told(TrimOutbox { upto: 2, ..TrimOutbox::default() });
    assert_eq!(probe.assigned(SHARE), 1);
}

#[test]
fn what_nobody_could_have_goes_back_when_it_leaves_the_outbox() {
    let mut probe = Probe::default();
    for payload in ["one", "two", "three", "four"] {
        let (publication, filters) = (publication("t", payload, 2), vec![SHARE.into()]);
        probe.told(EnqueueShared { publication, filters, returned: true, ..Default::default() });
    }
    let assign = |member: Option<Directed>, most| AssignShared {
        filter: SHARE.into(),
        member,
        most,
        most_bytes: 1000,
        ..AssignShared::default()
    };
    probe.told(assign(None, 3));
    probe.told(assign(Some(Directed::default()), 1));
    assert_eq!(probe.copies(), [">one", ">two", ">three", ">four"]);
    let trim = |upto, returned: &[u64]| TrimOutbox { upto, returned: returned.to_vec() };
    assert_eq!(probe.told(trim(2, &[1, 3])), Outcome::Trimmed);
    assert_eq!((probe.waiting(), probe.assigned(SHARE)), (vec!["one".to_owned()], 2));
    probe.told(trim(2, &[1]));
    probe.told(trim(4, &[1, 3, 4]));
    assert_eq!(probe.waiting(), ["one", "three"], "what was for one member goes its own way back");
    assert_eq!((probe.copies().len(), probe.stats().shared, probe.stats().messages), (0, 2, 2));
}
