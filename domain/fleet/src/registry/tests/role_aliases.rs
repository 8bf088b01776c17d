//! Role aliases, what was given for them, and the keys.

use super::*;

const HOUR: u64 = 60 * 60 * 1000;

fn alias(name: &str) -> RoleAliasName {
    RoleAliasName::new(name).unwrap()
}

pub(super) fn create_alias(name: &str, generation: u128) -> Command {
    Command::RoleAlias(RoleAliasCommand::Create {
        alias: Box::new(RoleAlias {
            name: alias(name),
            role_arn: "arn:aws:iam::000000000000:role/r".into(),
            duration_secs: 3600,
            tags: BTreeMap::new(),
            created: DAY,
            modified: DAY,
            generation: uuid(generation),
        }),
    })
}

pub(super) fn update_alias(name: &str, duration_secs: u32) -> Command {
    Command::RoleAlias(RoleAliasCommand::Update {
        alias: alias(name),
        role_arn: None,
        duration_secs: Some(duration_secs),
        at: Timestamp(DAY.0 + 1),
    })
}

pub(super) fn delete_alias(name: &str) -> Command {
    Command::RoleAlias(RoleAliasCommand::Delete { alias: alias(name) })
}

/// A key that was made so many hours after the first day.
pub(super) fn make_key(secret: u8, hours: u64) -> Command {
    Command::RoleAlias(RoleAliasCommand::MakeKey {
        key: SessionKey {
            secret: SessionSecret([secret; 32]),
            created: Timestamp(DAY.0 + hours * HOUR),
        },
    })
}

#[test]
fn a_role_alias_is_there_once_and_changes() {
    let mut registry = after([create_alias("a", 1)]);
    assert_eq!(refuse(&mut registry, create_alias("a", 2)), Rejection::RoleAliasExists(alias("a")));
    registry.apply(update_alias("a", 900)).unwrap();
    let found = registry.role_alias("a").unwrap();
    assert_eq!((found.duration_secs, found.created, found.modified.0), (900, DAY, DAY.0 + 1));
    assert!(found.role_arn.ends_with("role/r"));
    registry.apply(delete_alias("a")).unwrap();
    assert_eq!(registry.take_changes().role_aliases, [alias("a")].into());
    for command in [delete_alias("a"), update_alias("a", 900)] {
        assert_eq!(refuse(&mut registry, command), Rejection::RoleAliasNotFound(alias("a")));
    }
    assert_eq!(create_alias("a", 1).since(), 2);
}

#[test]
fn there_are_a_hundred_role_aliases_at_most() {
    let mut registry = after((0..100).map(|number| create_alias(&format!("a{number}"), 1)));
    assert_eq!(
        refuse(&mut registry, create_alias("one-more", 1)),
        Rejection::TooManyRoleAliases { limit: 100 }
    );
    let paging = Paging { after: None, limit: 60, order: Order::Descending };
    let first = registry.role_aliases(&paging);
    let rest = registry.role_aliases(&Paging { after: first.next, ..paging });
    assert_eq!((first.items.len(), rest.items.len(), rest.next), (60, 40, None));
}

#[test]
fn a_session_is_over_when_what_it_was_given_for_is() {
    let mut registry = after([
        create_type("truck"),
        create("lamp", Some("truck"), &[]),
        register(1, CertificateStatus::Active),
        attach_thing("lamp", 1, ThingPrincipalType::NonExclusiveThing),
        create_alias("a", 1),
    ]);
    let plain = RoleSession {
        certificate: certificate(1),
        alias: alias("a"),
        generation: uuid(1),
        thing: None,
        expires: Timestamp(DAY.0 + HOUR),
    };
    let named = RoleSession { thing: Some(thing("lamp")), ..plain.clone() };
    let variables = |registry: &Registry, session: &RoleSession| {
        let variables = registry.session_variables(session, DAY)?;
        let shown = variables.into_iter().map(|(name, values)| format!("{name}={}", values[0]));
        Some(shown.collect::<Vec<_>>().join(" "))
    };
    let of_certificate = format!("credentials-iot:AwsCertificateId={}", certificate(1));
    assert_eq!(variables(&registry, &plain), Some(of_certificate.clone()));
    assert_eq!(
        variables(&registry, &named),
        Some(format!(
            "{of_certificate} credentials-iot:ThingName=lamp credentials-iot:ThingTypeName=truck"
        ))
    );
    assert!(registry.session_variables(&plain, Timestamp(plain.expires.0 - 1)).is_some());
    assert_eq!(registry.session_variables(&plain, plain.expires), None);
    for other in [
        RoleSession { generation: uuid(2), ..plain.clone() },
        RoleSession { alias: alias("b"), ..plain.clone() },
        RoleSession { thing: Some(thing("other")), ..plain.clone() },
        RoleSession { certificate: certificate(2), ..named.clone() },
    ] {
        assert_eq!(variables(&registry, &other), None, "{other:?}");
    }
    let detach = Command::DetachThingPrincipal { thing: thing("lamp"), principal: principal(1) };
    registry.apply(detach).unwrap();
    assert_eq!(variables(&registry, &named), None);
    assert!(variables(&registry, &plain).is_some());
    // Another one under the same name is another one.
    registry.apply(delete_alias("a")).unwrap();
    assert_eq!(variables(&registry, &plain), None);
    registry.apply(create_alias("a", 2)).unwrap();
    assert_eq!(variables(&registry, &plain), None);
}

#[test]
fn a_key_seals_for_a_day_and_opens_until_what_it_sealed_is_over() {
    let at = |hours: u64| Timestamp(DAY.0 + hours * HOUR);
    let mut registry = Registry::default();
    let sealing =
        |registry: &Registry, hours| registry.sealing_key(at(hours)).map(|key| key.secret.0[0]);
    let opening = |registry: &Registry, hours| {
        registry.opening_keys(at(hours)).map(|key| key.secret.0[0]).collect::<Vec<_>>()
    };
    assert_eq!((sealing(&registry, 0), opening(&registry, 0)), (None, vec![]));
    registry.apply(make_key(1, 0)).unwrap();
    // Two made one at the same time.
    registry.apply(make_key(2, 0)).unwrap();
    assert_eq!((sealing(&registry, 23), sealing(&registry, 24)), (Some(1), None));
    assert_eq!((opening(&registry, 35), opening(&registry, 36)), (vec![1], vec![]));
    registry.apply(make_key(3, 24)).unwrap();
    assert_eq!((sealing(&registry, 24), opening(&registry, 24)), (Some(3), vec![3, 1]));
    assert_eq!(opening(&registry, 36), [3]);
    // A clock that is a little behind sees a key from the future; one that is far ahead makes none.
    let behind = Timestamp(at(24).0 - 4 * 60 * 1000);
    assert_eq!(registry.sealing_key(behind).map(|key| key.secret.0[0]), Some(3));
    assert_eq!((sealing(&registry, 23), opening(&registry, 23)), (None, vec![1]));
    registry.apply(make_key(4, 100)).unwrap();
    assert_eq!(registry.session_keys.len(), 2);
}

#[test]
fn a_key_is_not_shown() {
    let shown = format!("{:?} {:?}", make_key(0xAB, 0), after([make_key(0xAB, 0)]));
    assert!(!shown.contains("171") && !shown.to_lowercase().contains("abab"), "{shown}");
}

#[test]
fn role_aliases_that_are_stored_are_the_same() {
    let mut registry =
        after([create_alias("a", 1), create_alias("b", 2), make_key(1, 0), update_alias("b", 900)]);
    let mut loaded = Registry::default();
    for (key, value) in registry.checkpoint() {
        assert_eq!(key[0], b'k');
        loaded.load(&key, &value.unwrap()).unwrap();
    }
    loaded.loaded().unwrap();
    loaded.take_changes();
    registry.take_changes();
    assert_eq!(loaded, registry);
    registry.apply(delete_alias("a")).unwrap();
    assert!(matches!(&registry.checkpoint()[..], [(key, None)] if key == b"ka"));
}
