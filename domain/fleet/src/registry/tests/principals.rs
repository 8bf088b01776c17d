//! Certificates, policies, what is attached to what, and what follows for decisions.

use super::*;

#[test]
fn certificates_change_their_status_as_the_table_says() {
    use CertificateStatus::{Active, Inactive, PendingActivation, PendingTransfer, Revoked};
    for (from, to, is_allowed) in [
        (Inactive, Active, true),
        (Active, Inactive, true),
        (Active, Revoked, true),
        (PendingActivation, Active, true),
        (PendingActivation, Revoked, true),
        (Active, PendingTransfer, false),
        (Inactive, PendingActivation, false),
    ] {
        let mut registry = after([register(1, from)]);
        let at = Timestamp(DAY.0 * 2);
        let command = Command::UpdateCertificate { certificate: certificate(1), status: to, at };
        if is_allowed {
            registry.apply(command).unwrap();
            let found = registry.certificate(certificate(1).as_str()).unwrap();
            assert_eq!((found.status, found.modified, found.customer_version), (to, at, 2));
        } else {
            refuse(&mut registry, command);
        }
    }
}

#[test]
fn a_certificate_goes_when_nothing_needs_it() {
    let delete = |force| Command::DeleteCertificate { certificate: certificate(1), force };
    let status =
        |status| Command::UpdateCertificate { certificate: certificate(1), status, at: DAY };
    let mut registry = after([
        register(1, CertificateStatus::Active),
        create("lamp", None, &[]),
        create_policy("p"),
        attach("p", 1),
        attach_thing("lamp", 1, ThingPrincipalType::NonExclusiveThing),
    ]);
    let rejection = refuse(&mut registry, delete(true));
    assert_eq!(rejection, Rejection::CertificateActive(certificate(1)));
    registry.apply(status(CertificateStatus::Revoked)).unwrap();
    let rejection = refuse(&mut registry, delete(true));
    assert_eq!(rejection, Rejection::CertificateHasThings(certificate(1)));
    let detach = Command::DetachThingPrincipal { thing: thing("lamp"), principal: principal(1) };
    registry.apply(detach).unwrap();
    let rejection = refuse(&mut registry, delete(false));
    assert_eq!(rejection, Rejection::CertificateHasPolicies(certificate(1)));
    registry.apply(delete(true)).unwrap();
    registry.apply(Command::DeletePolicy { policy: policy("p") }).unwrap();
    let gone = Command::DeleteThing { thing: thing("lamp"), expected_version: None };
    registry.apply(gone).unwrap();
    registry.take_changes();
    registry.checkpoint();
    assert_eq!(registry, Registry::default());
}

#[test]
fn policy_versions_are_counted_and_limited() {
    let mut registry = after([create_policy("p")]);
    let version = |set_as_default| Command::CreatePolicyVersion {
        policy: policy("p"),
        document: ALLOW.replace("iot:*", "iot:Connect"),
        set_as_default,
        at: DAY,
    };
    let remove = |version| Command::DeletePolicyVersion { policy: policy("p"), version, at: DAY };
    for number in 2..=5 {
        let outcome = registry.apply(version(number == 3));
        let expected = Outcome::PolicyVersion { version: number, is_default: number == 3 };
        assert_eq!(outcome, Ok(expected));
    }
    assert!(registry.policy("p").unwrap().default_document().contains("Connect"));
    let limit = Rejection::PolicyVersionLimit { policy: policy("p"), limit: 5 };
    assert_eq!(refuse(&mut registry, version(false)), limit);
    assert_eq!(refuse(&mut registry, remove(3)), Rejection::PolicyVersionIsDefault(policy("p")));
    registry.apply(remove(5)).unwrap();
    let outcome = registry.apply(version(false));
    assert_eq!(outcome, Ok(Outcome::PolicyVersion { version: 6, is_default: false }));
    let missing = Rejection::PolicyVersionNotFound { policy: policy("p"), version: 5 };
    assert_eq!(refuse(&mut registry, remove(5)), missing);
    let delete = Command::DeletePolicy { policy: policy("p") };
    assert_eq!(refuse(&mut registry, delete), Rejection::PolicyHasVersions(policy("p")));
}

#[test]
fn a_principal_has_ten_policies() {
    let names: Vec<_> = (0..11).map(|number| format!("p{number}")).collect();
    let mut registry = after(
        std::iter::once(register(1, CertificateStatus::Active))
            .chain(names.iter().map(|name| create_policy(name)))
            .chain(names[..10].iter().map(|name| attach(name, 1))),
    );
    assert_eq!(registry.apply(attach("p0", 1)), Ok(Outcome::Done));
    let limit = Rejection::PolicyLimit { principal: principal(1), limit: 10 };
    assert_eq!(refuse(&mut registry, attach("p10", 1)), limit);
    let delete = Command::DeletePolicy { policy: policy("p0") };
    assert_eq!(refuse(&mut registry, delete), Rejection::PolicyAttached(policy("p0")));
    let missing = Rejection::CertificateNotFound(certificate(2));
    assert_eq!(refuse(&mut registry, attach("p0", 2)), missing);
}

#[test]
fn an_exclusive_thing_is_the_only_one() {
    use ThingPrincipalType::{ExclusiveThing, NonExclusiveThing};
    for (first, second, is_allowed) in [
        (("a", NonExclusiveThing), ("a", NonExclusiveThing), true),
        (("a", NonExclusiveThing), ("b", NonExclusiveThing), true),
        (("a", NonExclusiveThing), ("b", ExclusiveThing), false),
        (("a", NonExclusiveThing), ("a", ExclusiveThing), false),
        (("a", ExclusiveThing), ("a", ExclusiveThing), true),
        (("a", ExclusiveThing), ("b", ExclusiveThing), false),
        (("a", ExclusiveThing), ("b", NonExclusiveThing), false),
        (("a", ExclusiveThing), ("a", NonExclusiveThing), false),
    ] {
        let mut registry = after([
            register(1, CertificateStatus::Active),
            create("a", None, &[]),
            create("b", None, &[]),
            attach_thing(first.0, 1, first.1),
        ]);
        let command = attach_thing(second.0, 1, second.1);
        if is_allowed {
            assert_eq!(registry.apply(command), Ok(Outcome::Done), "{first:?} {second:?}");
        } else {
            refuse(&mut registry, command);
        }
    }
}

#[test]
fn an_identity_is_what_decides() {
    let mut registry = after([
        register(1, CertificateStatus::Active),
        create_policy("p"),
        create_policy("q"),
        attach("q", 1),
        attach("p", 1),
        create("lamp", None, &[("a", "1")]),
        create("other", None, &[]),
        attach_thing("lamp", 1, ThingPrincipalType::NonExclusiveThing),
    ]);
    let id = certificate(1);
    let identity = registry.identity(id.as_str(), None).unwrap();
    assert!(identity.may_connect(DAY));
    let names: Vec<_> = identity.policies.iter().map(|named| named.policy.as_str()).collect();
    assert_eq!(names, ["p", "q"]);
    assert_eq!(identity.thing, None);
    // A document is parsed once and shared.
    let again = registry.identity(id.as_str(), None).unwrap();
    assert!(Arc::ptr_eq(&identity.policies[0].document, &again.policies[0].document));

    for (client, certificate, expected) in [
        ("lamp", Some(id.as_str()), Some(("lamp", true))),
        ("other", Some(id.as_str()), Some(("other", false))),
        ("lamp", None, Some(("lamp", false))),
        ("nothing", Some(id.as_str()), None),
    ] {
        let found = registry.thing_of_connection(certificate, Some(client));
        let found = found.map(|thing| (thing.name.to_string(), thing.attached));
        assert_eq!(found, expected.map(|(name, attached)| (name.to_owned(), attached)));
    }

    let detach = Command::DetachThingPrincipal { thing: thing("lamp"), principal: principal(1) };
    registry.apply(detach).unwrap();
    registry.apply(attach_thing("lamp", 1, ThingPrincipalType::ExclusiveThing)).unwrap();
    let found = registry.thing_of_connection(Some(id.as_str()), Some("other")).unwrap();
    assert_eq!((found.name.as_str(), found.attached), ("lamp", true));
    let exclusive = registry.identity(id.as_str(), None).unwrap().thing.unwrap();
    assert_eq!(exclusive.attributes["a"], "1");
    assert_eq!(registry.identity("unknown", None).map(|identity| identity.status), None);
}

#[test]
fn a_type_adds_what_its_attached_thing_and_the_connection_have() {
    let of_thing = |key: &str, name: &str| added(key, PropagatedFrom::ThingAttribute(name.into()));
    let of_connection =
        |key: &str, name: &str| added(key, PropagatedFrom::ConnectionAttribute(name.into()));
    let all = vec![
        of_thing("site", "s"),
        of_thing("none", "missing"),
        of_connection("id", "iot:ClientId"),
        of_connection("thing", "iot:Thing.ThingName"),
        of_thing("again", "s"),
    ];
    let expected = |id| vec![("site", "north"), ("id", id), ("thing", "lamp"), ("again", "north")];
    let (many, one) = (ThingPrincipalType::NonExclusiveThing, ThingPrincipalType::ExclusiveThing);
    for (what, properties, of_type, attached, client, expected) in [
        ("named like the client", all.clone(), Some("t"), Some(many), "lamp", expected("lamp")),
        ("exclusive", all.clone(), Some("t"), Some(one), "other", expected("other")),
        ("of another client", all.clone(), Some("t"), Some(many), "other", vec![]),
        ("of another certificate", all.clone(), Some("t"), None, "lamp", vec![]),
        ("without a type", all, None, Some(many), "lamp", vec![]),
        ("of a type that adds nothing", vec![], Some("t"), Some(many), "lamp", vec![]),
    ] {
        let mut registry = after([
            register(1, CertificateStatus::Active),
            create_type("t"),
            propagate("t", properties),
            create("lamp", of_type, &[("s", "north"), ("secret", "1")]),
        ]);
        if let Some(kind) = attached {
            registry.apply(attach_thing("lamp", 1, kind)).unwrap();
        }
        let id = certificate(1);
        let found = registry.thing_of_connection(Some(id.as_str()), Some(client));
        let found = found.map(|thing| registry.propagated(&thing, client)).unwrap_or_default();
        let found: Vec<_> = found.iter().map(|(key, value)| (key.as_str(), &**value)).collect();
        assert_eq!(found, expected, "{what}");
    }
}

fn added(key: &str, source: PropagatedFrom) -> PropagatingAttribute {
    PropagatingAttribute { user_property_key: key.into(), source }
}

fn propagate(name: &str, attributes: Vec<PropagatingAttribute>) -> Command {
    let patch = ThingTypePatch { propagating_attributes: Some(attributes), ..Default::default() };
    Command::UpdateThingType { thing_type: thing_type(name), patch }
}

#[test]
fn whose_decisions_change_is_told() {
    let described = |name| Command::UpdateThingType {
        thing_type: thing_type(name),
        patch: ThingTypePatch { description: Some("text".into()), ..Default::default() },
    };
    let thing_name =
        || vec![added("thing", PropagatedFrom::ConnectionAttribute("iot:Thing.ThingName".into()))];
    let setup = [
        register(1, CertificateStatus::Active),
        register(2, CertificateStatus::Active),
        create_policy("p"),
        create_policy("unused"),
        create("lamp", None, &[]),
        create_type("t"),
        attach("p", 1),
        attach_thing("lamp", 1, ThingPrincipalType::NonExclusiveThing),
        create_type("typed"),
        create("typed", Some("typed"), &[]),
        attach_thing("typed", 2, ThingPrincipalType::NonExclusiveThing),
    ];
    let cognito = Principal::Cognito(CognitoIdentity::new("us-east-1:1").unwrap());
    let new_default = |name| Command::CreatePolicyVersion {
        policy: policy(name),
        document: ALLOW.into(),
        set_as_default: true,
        at: DAY,
    };
    for (command, certificates, others, things) in [
        (attach("p", 2), &[2][..], 0, &[][..]),
        (attach("p", 1), &[], 0, &[]),
        (Command::DetachPolicy { policy: policy("p"), target: principal(1) }, &[1], 0, &[]),
        (Command::DetachPolicy { policy: policy("p"), target: principal(2) }, &[], 0, &[]),
        (Command::AttachPolicy { policy: policy("p"), target: cognito }, &[], 1, &[]),
        (new_default("p"), &[1], 0, &[]),
        (new_default("unused"), &[], 0, &[]),
        (update("lamp"), &[1], 0, &["lamp"]),
        (create("new", None, &[]), &[], 0, &["new"]),
        (
            Command::DetachThingPrincipal { thing: thing("lamp"), principal: principal(1) },
            &[1],
            0,
            &["lamp"],
        ),
        (
            Command::UpdateCertificate {
                certificate: certificate(2),
                status: CertificateStatus::Revoked,
                at: DAY,
            },
            &[2],
            0,
            &[],
        ),
        (deprecate("t", false), &[], 0, &[]),
        (propagate("typed", thing_name()), &[2], 0, &["typed"]),
        (propagate("t", thing_name()), &[], 0, &[]),
        (propagate("typed", Vec::new()), &[], 0, &[]),
        (described("typed"), &[], 0, &[]),
    ] {
        let mut registry = after(setup.clone());
        registry.take_changes();
        let shown = format!("{command:?}");
        registry.apply(command).unwrap();
        let changes = registry.take_changes();
        let expected: BTreeSet<_> =
            certificates.iter().map(|number| certificate(*number)).collect();
        assert_eq!(changes.certificates, expected, "{shown}");
        assert_eq!(changes.others.len(), others, "{shown}");
        let expected: BTreeSet<_> = things.iter().map(|name| thing(name)).collect();
        assert_eq!(changes.things, expected, "{shown}");
        assert!(registry.take_changes().is_empty());
    }
}

#[test]
fn a_policy_of_very_many_changes_for_all() {
    let mut registry = after([create_policy("p")]);
    for number in 0..10_001 {
        let identity = CognitoIdentity::new(&format!("us-east-1:{number}")).unwrap();
        let target = Principal::Cognito(identity);
        registry.apply(Command::AttachPolicy { policy: policy("p"), target }).unwrap();
    }
    assert!(registry.take_changes().all);
    let version = Command::SetDefaultPolicyVersion { policy: policy("p"), version: 1, at: DAY };
    registry.apply(version).unwrap();
    assert!(registry.take_changes().is_empty());
}
