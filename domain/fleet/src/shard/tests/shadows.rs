use super::*;

fn update(probe: &mut Probe, name: Option<&str>, payload: &'static str, at: u64) -> Outcome {
    let (thing, name) = ("lamp".to_owned(), name.map(String::from));
    let payload = Bytes::from_static(payload.as_bytes());
    probe.told(UpdateShadow { thing, name, payload, at, reply: true, ..Default::default() })
}

fn delete(probe: &mut Probe, reply: bool, at: u64) -> Outcome {
    let (thing, name, payload) = ("lamp".to_owned(), None, Bytes::new());
    probe.told(DeleteShadow { thing, name, payload, at, reply, origin: None })
}

fn code(outcome: Outcome) -> u16 {
    match outcome {
        Outcome::Shadow(answer) => {
            assert_eq!(answer.accepted(), answer.code == 200);
            answer.code
        }
        other => panic!("{other:?}"),
    }
}

/// The replies to each request, by the end of their topic.
#[test]
fn requests_are_answered_through_the_outbox() {
    let mut probe = Probe::default();
    let accepted = ["update/accepted", "update/delta", "update/documents"];
    for (request, expected_code, topics) in [
        (r#"{"state":{"desired":{"on":true}}}"#, 200, &accepted[..]),
        (r#"{"state":{"reported":{"on":true}}}"#, 200, &["update/accepted", "update/documents"]),
        (r#"{"state":{"reported":{"on":true}},"version":1}"#, 409, &["update/rejected"]),
        ("nonsense", 400, &["update/rejected"]),
        (" ".repeat(shadow::MAX_REQUEST_BYTES + 1).leak(), 413, &["update/rejected"]),
    ] {
        assert_eq!(code(update(&mut probe, None, request, 5_000)), expected_code, "{request}");
        assert!(probe.effects.outbox_grew);
        let published: Vec<_> = probe.outbox_of().into_iter().map(|(topic, _)| topic).collect();
        let expected = topics.iter().map(|topic| format!("$aws/things/lamp/shadow/{topic}"));
        assert_eq!(published, expected.collect::<Vec<_>>(), "{request}");
        assert!(probe.outbox(0).all(|each| !each.store_retained));
        assert!(probe.outbox(0).all(|each| each.publication.qos == 1));
        probe.told(TrimOutbox { upto: u64::MAX, ..TrimOutbox::default() });
    }
    assert_eq!(code(delete(&mut probe, true, 6_000)), 200);
    assert_eq!(code(delete(&mut probe, false, 6_000)), 404);
    let topics: Vec<_> = probe.outbox_of().into_iter().map(|(topic, _)| topic).collect();
    assert_eq!(topics, ["$aws/things/lamp/shadow/delete/accepted"], "REST is not told on MQTT");
    assert_eq!(code(delete(&mut probe, true, 6_000)), 404);
    assert_eq!(probe.outbox_of().len(), 2);
    assert_eq!(probe.stats().shadows, 0);
}

#[test]
fn versions_go_on_after_a_deletion_until_it_is_forgotten() {
    const DAY: u64 = 86_400_000;
    for (pause, version) in [(DAY, 2), (3 * DAY, 1)] {
        let mut probe = Probe::default();
        update(&mut probe, None, r#"{"state":{"desired":{"on":true}}}"#, 0);
        delete(&mut probe, true, 0);
        assert_eq!(probe.stats().shadows, 0);
        // Another shadow's command clears what is forgotten.
        update(&mut probe, Some("other"), r#"{"state":{"desired":{"on":true}}}"#, pause);
        update(&mut probe, None, r#"{"state":{"desired":{"on":true}}}"#, pause);
        let document = text(&probe.get_shadow("lamp", None, None, pause).unwrap());
        assert!(document.contains(&format!(r#""version":{version}"#)), "{document}");
        assert_eq!(probe.stats().shadows, 2);
    }
}

#[test]
fn named_shadows_are_listed_in_pages() {
    let mut probe = Probe::default();
    for name in [Some("b"), None, Some("a"), Some("c"), Some("aa")] {
        assert_eq!(code(update(&mut probe, name, r#"{"state":{"desired":{"a":1}}}"#, 0)), 200);
    }
    assert_eq!(probe.named_shadows("lamp", None, 9), ["a", "aa", "b", "c"]);
    assert_eq!(probe.named_shadows("lamp", None, 2), ["a", "aa"]);
    assert_eq!(probe.named_shadows("lamp", Some("aa"), 9), ["b", "c"]);
    assert_eq!(probe.named_shadows("lam", None, 9), [""; 0]);
    assert_eq!(probe.get_shadow("lamp", Some("x"), None, 0).unwrap_err().code, 404);
}

#[test]
fn names_that_are_no_topic_level_are_refused() {
    let mut probe = Probe::default();
    for (thing, name) in
        [("", None), ("a/b", None), ("a", Some("")), ("a", Some("+")), ("#", None), ("a\0", None)]
    {
        let (thing, name) = (thing.to_owned(), name.map(String::from));
        let payload = Bytes::from_static(br#"{"state":{"desired":{"a":1}}}"#);
        let command = UpdateShadow { thing, name, payload, reply: true, ..Default::default() };
        assert_eq!(probe.told(command.clone()), Outcome::Invalid, "{command:?}");
    }
    assert_eq!(probe.digest(), Shard::new().digest());
}

/// Nodes that know only version 1 of the data decide about commands without it as they always have.
#[test]
fn what_is_empty_is_taken_when_the_command_says_so() {
    let before = r#"{"desired":{"b":1},"delta":{"b":1}}"#;
    let with_empty = r#"{"desired":{"a":{},"b":1},"delta":{"a":{},"b":1}}"#;
    for (takes_empty, state, expected_code, expected) in [
        (true, r#"{"desired":{"a":{}}}"#, 200, with_empty),
        (false, r#"{"desired":{"a":{}}}"#, 200, before),
        (true, "null", 200, "{}"),
        (false, "null", 400, before),
    ] {
        let mut probe = Probe::default();
        update(&mut probe, None, r#"{"state":{"desired":{"b":1}}}"#, 0);
        let payload = Bytes::from(format!(r#"{{"state":{state}}}"#));
        let thing = "lamp".to_owned();
        let command = UpdateShadow { thing, payload, takes_empty, ..Default::default() };
        assert_eq!(code(probe.told(command)), expected_code, "{takes_empty} {state}");
        let document = text(&probe.get_shadow("lamp", None, None, 0).unwrap());
        let expected = format!(r#"{{"state":{expected},"metadata""#);
        assert!(document.starts_with(&expected), "{takes_empty} {state}: {document}");
    }
}

#[test]
fn limits_come_with_the_command() {
    for (limit_bytes, limit_depth, expected) in [(0, 0, 200), (10, 0, 413), (0, 1, 400)] {
        let mut probe = Probe::default();
        let payload = Bytes::from_static(br#"{"state":{"desired":{"a":{"b":12345}}}}"#);
        let thing = "lamp".to_owned();
        let command =
            UpdateShadow { thing, payload, limit_bytes, limit_depth, ..Default::default() };
        assert_eq!(code(probe.told(command)), expected, "{limit_bytes} {limit_depth}");
    }
}
