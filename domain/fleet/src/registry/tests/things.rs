//! Things and thing types.

use super::*;

#[test]
fn creating_a_thing_again_is_the_same_thing() {
    let mut registry = after([create("lamp", None, &[("a", "1"), ("empty", "")])]);
    let again = Command::CreateThing {
        thing: thing("lamp"),
        id: uuid(9),
        thing_type: None,
        attributes: attributes(&[("a", "1")]),
        billing_group: None,
        at: DAY,
    };
    assert_eq!(registry.apply(again), Ok(Outcome::Thing { id: uuid(1), version: 1 }));
    let rejection = refuse(&mut registry, create("lamp", None, &[("a", "2")]));
    assert_eq!(rejection, Rejection::ThingExists { thing: thing("lamp"), id: uuid(1) });
}

#[test]
fn updates_of_a_thing_replace_or_merge() {
    for (merge, patch, expected) in [
        (false, &[("c", "3")][..], &[("c", "3")][..]),
        (false, &[], &[]),
        (false, &[("a", "")], &[]),
        (true, &[("c", "3")], &[("a", "1"), ("b", "2"), ("c", "3")]),
        (true, &[("a", "")], &[("b", "2")]),
        (true, &[("a", "9")], &[("a", "9"), ("b", "2")]),
    ] {
        let mut registry = after([create("lamp", None, &[("a", "1"), ("b", "2")])]);
        let command = Command::UpdateThing {
            thing: thing("lamp"),
            attributes: Some(AttributePatch { attributes: attributes(patch), merge }),
            thing_type: None,
            remove_thing_type: false,
            expected_version: Some(1),
        };
        let outcome = registry.apply(command);
        assert_eq!(outcome, Ok(Outcome::Thing { id: uuid(1), version: 2 }));
        let found = &registry.thing("lamp").unwrap().attributes;
        assert_eq!(**found, attributes(expected), "{merge} {patch:?}");
    }
}

#[test]
fn what_a_thing_cannot_be_is_refused() {
    let many: Vec<_> = (0..51).map(|number| (format!("a{number}"), "1".to_owned())).collect();
    let many: Vec<_> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let setup = || {
        after([
            create_type("old"),
            create_type("new"),
            create("typed", Some("old"), &[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]),
            deprecate("old", false),
            register(1, CertificateStatus::Active),
            create("held", None, &[]),
            attach_thing("held", 1, ThingPrincipalType::NonExclusiveThing),
        ])
    };
    let changed = |change: fn(&mut Command)| {
        let mut command = update("typed");
        change(&mut command);
        command
    };
    for (command, message) in [
        (create("x", None, &many[..4]), "3 without a thing type"),
        (create("x", Some("new"), &many), "50 with one"),
        (create("x", None, &[("a b", "1")]), "attribute name 'a b'"),
        (create("x", None, &[("a", "b c")]), "attribute value 'b c'"),
        (create("x", Some("none"), &[]), "Thing type none not found"),
        (create("x", Some("old"), &[]), "Thing type old is deprecated"),
        (update("none"), "Thing none not found"),
        (
            changed(|command| {
                if let Command::UpdateThing { expected_version, .. } = command {
                    *expected_version = Some(2);
                }
            }),
            "The version is 1, not 2",
        ),
        (
            changed(|command| {
                if let Command::UpdateThing { remove_thing_type, .. } = command {
                    *remove_thing_type = true;
                }
            }),
            "A thing can have 3 attributes",
        ),
        (
            changed(|command| {
                if let Command::UpdateThing { remove_thing_type, thing_type, .. } = command {
                    *remove_thing_type = true;
                    *thing_type = Some(super::thing_type("new"));
                }
            }),
            "cannot be used together",
        ),
        (
            Command::DeleteThing { thing: thing("held"), expected_version: Some(7) },
            "The version is 1, not 7",
        ),
        (
            Command::DeleteThing { thing: thing("held"), expected_version: None },
            "still attached to one or more principals",
        ),
    ] {
        let rejection = refuse(&mut setup(), command).to_string();
        assert!(rejection.contains(message), "{rejection}");
    }
}

#[test]
fn a_thing_keeps_a_type_that_was_deprecated() {
    let mut registry =
        after([create_type("t"), create("lamp", Some("t"), &[]), deprecate("t", false)]);
    let command = Command::UpdateThing {
        thing: thing("lamp"),
        attributes: None,
        thing_type: Some(thing_type("t")),
        remove_thing_type: false,
        expected_version: None,
    };
    assert_eq!(registry.apply(command), Ok(Outcome::Thing { id: uuid(1), version: 2 }));
}

#[test]
fn a_thing_type_is_deleted_five_minutes_after_its_deprecation() {
    let delete = |seconds: u64| Command::DeleteThingType {
        thing_type: thing_type("t"),
        deprecated_for_ms: None,
        at: Timestamp(DAY.0 + seconds * 1000),
    };
    let mut registry = after([create_type("t"), create("lamp", Some("t"), &[])]);
    let rejection = refuse(&mut registry, delete(999));
    assert_eq!(rejection, Rejection::ThingTypeNotDeprecated(thing_type("t")));
    registry.apply(deprecate("t", false)).unwrap();
    let rejection = refuse(&mut registry, delete(999));
    assert_eq!(rejection, Rejection::ThingTypeInUse(thing_type("t")));
    let gone = Command::DeleteThing { thing: thing("lamp"), expected_version: None };
    registry.apply(gone).unwrap();
    let rejection = refuse(&mut registry, delete(299));
    let expected =
        Rejection::ThingTypeDeprecatedRecently { thing_type: thing_type("t"), seconds: 1 };
    assert_eq!(rejection, expected);
    registry.apply(deprecate("t", true)).unwrap();
    refuse(&mut registry, delete(300));
    registry.apply(deprecate("t", false)).unwrap();
    assert_eq!(registry.apply(delete(300)), Ok(Outcome::Done));
    assert_eq!(registry.thing_type("t"), None);
}

#[test]
fn a_thing_type_is_deleted_as_long_after_its_deprecation_as_is_said() {
    let delete = |seconds: u64, deprecated_for_ms| Command::DeleteThingType {
        thing_type: thing_type("t"),
        deprecated_for_ms,
        at: Timestamp(DAY.0 + seconds * 1000),
    };
    let mut registry = after([create_type("t"), deprecate("t", false)]);
    for (seconds, least, left) in [(299, None, 1), (300, Some(600_000), 300), (0, Some(1), 1)] {
        let rejection = refuse(&mut registry, delete(seconds, least));
        let (thing_type, seconds) = (thing_type("t"), left);
        assert_eq!(rejection, Rejection::ThingTypeDeprecatedRecently { thing_type, seconds });
    }
    assert_eq!(registry.apply(delete(0, Some(0))), Ok(Outcome::Done));
    assert_eq!((delete(0, None).since(), delete(0, Some(0)).since()), (1, 2));
}
