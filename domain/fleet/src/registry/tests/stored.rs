//! Lists, stored pairs and stored commands.

use super::*;

#[test]
fn lists_go_page_by_page_in_both_directions() {
    let registry = after((1..=5).map(|number| register(number, CertificateStatus::Active)));
    for (order, expected) in
        [(Order::Ascending, [1, 2, 3, 4, 5]), (Order::Descending, [5, 4, 3, 2, 1])]
    {
        for limit in 1..=6 {
            let mut paging = Paging { after: None, limit, order };
            let mut found = Vec::new();
            loop {
                let page = registry.certificates(&paging);
                assert!(page.items.len() <= limit && !page.items.is_empty());
                found.extend(page.items.iter().map(|item| item.id.clone()));
                match page.next {
                    Some(next) => paging.after = Some(next),
                    None => break,
                }
            }
            assert_eq!(found, expected.map(certificate), "{order:?} {limit}");
        }
    }
}

#[test]
fn a_page_looks_at_a_bounded_number_of_things() {
    let mut registry = Registry::default();
    for number in 0..10_001 {
        let name = format!("t{number:05}");
        let of_type: &[(&str, &str)] = if number == 10_000 { &[("a", "1")] } else { &[] };
        registry.apply(create(&name, None, of_type)).unwrap();
    }
    let filter = ThingFilter { attribute_name: Some("a".into()), ..Default::default() };
    let page = registry.things(&filter, &Paging::ascending(None, 10));
    assert_eq!((page.items.len(), page.next.as_deref()), (0, Some("t09999")));
    let page = registry.things(&filter, &Paging::ascending(page.next, 10));
    assert_eq!((page.items.len(), page.next), (1, None));
}

#[test]
fn stored_pairs_that_are_damaged_are_named() {
    let id = certificate(1);
    for (key, value, message) in [
        (&b"zlamp"[..], &b"\x01{}"[..], "no key"),
        (b"", b"\x01{}", "no key"),
        (b"ta b", b"\x01{}", "thingName 'a b'"),
        (b"tlamp", b"", "format"),
        (b"tlamp", b"\x02{}", "format"),
        (b"tlamp", b"\x01{", "damaged"),
        (b"aclamp", b"\x01null", "no key"),
        (b"ax\0p", b"\x01null", "no key"),
        (b"\xff", b"\x01null", "no key"),
        (b"xsubject", b"\x01null", "no key"),
        (
            b"xsubject\0key",
            b"\x01{\"issued\":1,\"serials\":{\"2\":\"AQI\"},\"imported\":1}",
            "damaged",
        ),
        (
            b"xsubject\0key",
            b"\x01{\"issued\":1,\"serials\":{\"0\":\"\"},\"imported\":1}",
            "in order",
        ),
        (
            b"xsubject\0key",
            b"\x01{\"issued\":1,\"serials\":{\"2\":\"AQID\"},\"imported\":1}",
            "in order",
        ),
        (
            b"xsubject\0key",
            b"\x01{\"issued\":1,\"serials\":{\"1\":\"AgE=\"},\"imported\":1}",
            "in order",
        ),
    ] {
        let error = Registry::default().load(key, value).unwrap_err().to_string();
        assert!(error.contains(message), "{key:?}: {error}");
    }
    let mut registry = after([create_policy("p")]);
    let [(key, Some(value))] = &registry.checkpoint()[..] else {
        panic!("one policy is one pair");
    };
    let text = String::from_utf8(value.clone()).unwrap().replace(r#"version":1"#, r#"version":9"#);
    let mut loaded = Registry::default();
    loaded.load(key, text.as_bytes()).unwrap();
    assert!(loaded.loaded().unwrap_err().to_string().contains("policy p"));
    assert_eq!(registry.identity(id.as_str(), None).map(|identity| identity.status), None);
}

#[test]
fn an_old_command_still_reads() {
    for (json, expected) in [
        (
            r#"{"delete_thing":{"thing":"lamp"}}"#,
            Command::DeleteThing { thing: thing("lamp"), expected_version: None },
        ),
        (r#"{"update_thing":{"thing":"lamp","later":1}}"#, update("lamp")),
    ] {
        let bytes = [b"\x01", json.as_bytes()].concat();
        assert_eq!(Command::decode(&bytes).unwrap(), expected);
        assert_eq!(Command::decode(&expected.encode()).unwrap(), expected);
    }
    for damaged in [&b""[..], b"\x02{}", b"\x01", b"\x01{}", b"\x01\"delete_thing\""] {
        assert!(Command::decode(damaged).is_err(), "{damaged:?}");
    }
}
