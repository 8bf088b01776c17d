//! Thing groups, billing groups and tags.

use super::*;

/// `root` with `left` and `right`, `leaf` below `left`, and another root.
fn tree() -> Vec<Command> {
    vec![
        create_group("root", None),
        create_group("left", Some("root")),
        create_group("right", Some("root")),
        create_group("leaf", Some("left")),
        create_group("other", None),
        create("lamp", None, &[]),
    ]
}

fn with_tree(commands: impl IntoIterator<Item = Command>) -> Registry {
    after(tree().into_iter().chain(commands))
}

fn groups_of(registry: &Registry, name: &str) -> Vec<String> {
    let page = registry.groups_of(name, &Paging::ascending(None, 250));
    page.items.iter().map(ToString::to_string).collect()
}

fn things_of(registry: &Registry, name: &str, recursive: bool) -> Vec<String> {
    let (mut found, mut paging) = (Vec::new(), Paging::ascending(None, 1));
    loop {
        let page = registry.things_of_group(&group(name), recursive, &paging);
        found.extend(page.items.iter().map(ToString::to_string));
        paging.after = page.next;
        if paging.after.is_none() {
            return found;
        }
    }
}

#[test]
fn creating_a_group_again_is_the_same_group() {
    let mut registry = with_tree([]);
    let again = Command::ThingGroup(ThingGroupCommand::Create {
        group: group("left"),
        id: uuid(9),
        parent: Some(group("root")),
        properties: GroupProperties { attributes: attributes(&[("gone", "")]), description: None },
        tags: attributes(&[("k", "v")]),
        at: DAY,
    });
    assert_eq!(registry.apply(again), Ok(Outcome::Group { id: uuid(5), version: 1 }));
    let rejection = refuse(&mut registry, create_group("left", None));
    assert_eq!(rejection, Rejection::ThingGroupExists { group: group("left"), id: uuid(5) });
}

#[test]
fn a_tree_is_neither_too_deep_nor_too_wide() {
    let level = |number: usize| format!("l{number}");
    let chain = (1..=7).map(|number| {
        let parent = (number > 1).then(|| level(number - 1));
        create_group(&level(number), parent.as_deref())
    });
    let mut registry = after(chain);
    let rejection = refuse(&mut registry, create_group("l8", Some("l7")));
    assert_eq!(rejection, Rejection::ThingGroupTooDeep { parent: group("l7"), limit: 7 });
    let rejection = refuse(&mut registry, create_group("l8", Some("nobody")));
    assert_eq!(rejection, Rejection::ThingGroupNotFound(group("nobody")));
    for number in 0..99 {
        registry.apply(create_group(&format!("c{number}"), Some("l1"))).unwrap();
    }
    let rejection = refuse(&mut registry, create_group("c99", Some("l1")));
    assert_eq!(rejection, Rejection::ThingGroupHasManyChildren { parent: group("l1"), limit: 100 });
}

#[test]
fn a_thing_is_in_one_group_of_a_tree() {
    let mut registry = with_tree([move_thing("lamp", &[], &["leaf", "other"])]);
    assert_eq!(groups_of(&registry, "lamp"), ["leaf", "other"]);
    for (command, rejection) in [
        (
            move_thing("lamp", &[], &["right"]),
            Rejection::ThingInTree {
                thing: thing("lamp"),
                group: group("right"),
                other: group("leaf"),
            },
        ),
        (
            move_thing("lamp", &[], &["root"]),
            Rejection::ThingInTree {
                thing: thing("lamp"),
                group: group("root"),
                other: group("leaf"),
            },
        ),
        (move_thing("lamp", &[], &["x"]), Rejection::ThingGroupNotFound(group("x"))),
        (move_thing("lamp", &["x"], &[]), Rejection::ThingGroupNotFound(group("x"))),
        (move_thing("x", &[], &["root"]), Rejection::ThingNotFound(thing("x"))),
    ] {
        assert_eq!(refuse(&mut registry, command), rejection);
    }
    // Again, and from one to another of a tree at once.
    registry.apply(move_thing("lamp", &[], &["leaf"])).unwrap();
    registry.apply(move_thing("lamp", &["leaf"], &["right"])).unwrap();
    assert_eq!(groups_of(&registry, "lamp"), ["other", "right"]);
    assert_eq!(things_of(&registry, "leaf", true), [""; 0]);
    registry.apply(move_thing("lamp", &["other", "leaf"], &[])).unwrap();
    assert_eq!(groups_of(&registry, "lamp"), ["right"]);
}

#[test]
fn a_thing_is_in_ten_groups_at_most() {
    let names: Vec<_> = (0..11).map(|number| format!("g{number}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let mut registry =
        after(names.iter().map(|name| create_group(name, None)).chain([create("lamp", None, &[])]));
    registry.apply(move_thing("lamp", &[], &names[..10])).unwrap();
    let rejection = refuse(&mut registry, move_thing("lamp", &[], &names[10..]));
    assert_eq!(rejection, Rejection::ThingInManyGroups { thing: thing("lamp"), limit: 10 });
    registry.apply(move_thing("lamp", &names[..1], &names[10..])).unwrap();
}

#[test]
fn what_is_deleted_is_in_nothing() {
    let mut registry = with_tree([
        move_thing("lamp", &[], &["leaf"]),
        create_policy("p"),
        attach_to_group("p", "leaf"),
    ]);
    assert_eq!(
        refuse(&mut registry, delete_group("left")).to_string(),
        "Cannot delete thing group : left when there are still child groups attached to it."
    );
    registry.apply(delete_group("leaf")).unwrap();
    assert_eq!(groups_of(&registry, "lamp"), [""; 0]);
    registry.apply(Command::DeletePolicy { policy: policy("p") }).expect("its target is gone");
    registry.apply(delete_group("leaf")).expect("what is gone can be deleted");
    registry.apply(delete_group("left")).unwrap();

    registry.apply(move_thing("lamp", &[], &["right"])).unwrap();
    registry.apply(Command::DeleteThing { thing: thing("lamp"), expected_version: None }).unwrap();
    assert_eq!(things_of(&registry, "root", true), [""; 0]);
}

#[test]
fn groups_are_updated_and_locked_as_things_are() {
    let mut registry = with_tree([]);
    let update = |description: Option<&str>, merge, pairs, expected_version| {
        Command::ThingGroup(ThingGroupCommand::Update {
            group: group("leaf"),
            description: description.map(Into::into),
            attributes: Some(AttributePatch { attributes: attributes(pairs), merge }),
            expected_version,
        })
    };
    let outcome = registry.apply(update(Some("d"), false, &[("a", "1")], Some(1)));
    assert_eq!(outcome, Ok(Outcome::Group { id: uuid(5), version: 2 }));
    registry.apply(update(None, true, &[("b", "2"), ("a", "")], None)).unwrap();
    let properties = &registry.thing_group("leaf").unwrap().properties;
    assert_eq!(properties.description.as_deref(), Some("d"));
    assert_eq!(properties.attributes, attributes(&[("b", "2")]));
    let rejection = refuse(&mut registry, update(None, true, &[], Some(2)));
    assert_eq!(rejection, Rejection::VersionConflict { expected: 2, current: 3 });
    let many: Vec<_> = (0..51).map(|number| format!("a{number}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), "1")).collect();
    let rejection = refuse(&mut registry, update(None, false, &many, None));
    assert_eq!(rejection, Rejection::GroupHasManyAttributes { limit: 50, count: 51 });
    assert!(matches!(
        refuse(&mut registry, update(Some("\n"), false, &[], None)),
        Rejection::Name(_)
    ));
}

#[test]
fn lists_of_groups_have_filters() {
    let registry = with_tree([
        create("bulb", None, &[]),
        move_thing("lamp", &[], &["leaf"]),
        move_thing("bulb", &[], &["root"]),
    ]);
    let list = |parent: Option<&str>, is_recursive, prefix: &str| {
        let parent = parent.map(group);
        let filter = ThingGroupFilter { parent, is_recursive, prefix: prefix.into() };
        let (mut found, mut paging) = (Vec::new(), Paging::ascending(None, 1));
        loop {
            let page = registry.thing_groups(&filter, &paging);
            found.extend(page.items.iter().map(|group| group.name.to_string()));
            paging.after = page.next;
            if paging.after.is_none() {
                return found.join(" ");
            }
        }
    };
    for (parent, is_recursive, prefix, expected) in [
        (None, false, "", "leaf left other right root"),
        (None, false, "le", "leaf left"),
        (None, false, "z", ""),
        (Some("root"), false, "", "left right"),
        (Some("root"), true, "", "leaf left right"),
        (Some("root"), true, "le", "leaf left"),
        (Some("leaf"), true, "", ""),
    ] {
        assert_eq!(list(parent, is_recursive, prefix), expected, "{parent:?} {prefix}");
    }
    assert_eq!(things_of(&registry, "root", false), ["bulb"]);
    assert_eq!(things_of(&registry, "root", true), ["lamp", "bulb"]);
    assert_eq!(things_of(&registry, "left", true), ["lamp"]);
}

#[test]
fn policies_of_groups_decide_for_what_is_attached_to_their_things() {
    let mut registry = with_tree([
        create_policy("own"),
        create_policy("leafs"),
        create_policy("roots"),
        create_policy("others"),
        register(1, CertificateStatus::Active),
        register(2, CertificateStatus::Active),
        attach("own", 1),
        attach_thing("lamp", 1, ThingPrincipalType::NonExclusiveThing),
        move_thing("lamp", &[], &["leaf"]),
        attach_to_group("leafs", "leaf"),
        attach_to_group("own", "left"),
        attach_to_group("roots", "root"),
        attach_to_group("others", "right"),
    ]);
    let policies = |registry: &Registry, number, client: Option<&str>| {
        let identity = registry.identity(certificate(number).as_str(), client).unwrap();
        identity.policies.iter().map(|it| it.policy.to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(policies(&registry, 1, Some("lamp")), "own leafs roots");
    assert_eq!(policies(&registry, 1, Some("bulb")), "own");
    assert_eq!(policies(&registry, 1, None), "own");
    assert_eq!(policies(&registry, 2, Some("lamp")), "", "a client id gives no rights");
    registry.apply(attach_thing("lamp", 2, ThingPrincipalType::ExclusiveThing)).unwrap();
    assert_eq!(policies(&registry, 2, Some("any")), "leafs own roots");
    assert_eq!(policies(&registry, 2, None), "leafs own roots");

    // What changes for the things of a group is decided again for them.
    let affects = |registry: &mut Registry, command: Command| {
        registry.take_changes();
        let shown = format!("{command:?}");
        registry.apply(command).unwrap_or_else(|rejection| panic!("{shown}: {rejection}"));
        let changes = registry.take_changes();
        assert_eq!(changes.things.contains("lamp"), !changes.certificates.is_empty(), "{shown}");
        changes.things.contains("lamp")
    };
    let version = |name: &str| Command::CreatePolicyVersion {
        policy: policy(name),
        document: ALLOW.into(),
        set_as_default: true,
        at: DAY,
    };
    assert!(affects(&mut registry, version("roots")));
    assert!(!affects(&mut registry, version("others")));
    let detach = |name: &str, target: &str| Command::DetachPolicy {
        policy: policy(name),
        target: Principal::ThingGroup(group(target)),
    };
    assert!(affects(&mut registry, detach("roots", "root")));
    assert!(affects(&mut registry, attach_to_group("roots", "root")));
    assert!(affects(&mut registry, move_thing("lamp", &["leaf"], &["right"])));
    assert_eq!(policies(&registry, 1, Some("lamp")), "own others roots");
    assert!(affects(&mut registry, delete_group("right")));
}

#[test]
fn a_group_has_two_policies_and_no_things_as_a_principal() {
    let mut registry = with_tree([
        create_policy("a"),
        create_policy("b"),
        create_policy("c"),
        attach_to_group("a", "leaf"),
        attach_to_group("b", "leaf"),
        attach_to_group("b", "leaf"),
    ]);
    let principal = Principal::ThingGroup(group("leaf"));
    assert_eq!(
        refuse(&mut registry, attach_to_group("c", "leaf")),
        Rejection::PolicyLimit { principal: principal.clone(), limit: 2 }
    );
    assert_eq!(
        refuse(&mut registry, attach_to_group("c", "nobody")),
        Rejection::ThingGroupNotFound(group("nobody"))
    );
    let kind = ThingPrincipalType::NonExclusiveThing;
    let command = Command::AttachThingPrincipal { thing: thing("lamp"), principal, kind };
    assert_eq!(refuse(&mut registry, command), Rejection::GroupIsNoPrincipal(group("leaf")));
}

#[test]
fn a_thing_is_in_one_billing_group() {
    let mut registry = after([
        create("lamp", None, &[]),
        create_billing("b"),
        create_billing("c"),
        create_billing("b"),
        bill("lamp", "b"),
        bill("lamp", "b"),
    ]);
    assert_eq!(
        refuse(&mut registry, bill("lamp", "c")),
        Rejection::ThingInBillingGroup { thing: thing("lamp"), group: billing("b") }
    );
    assert_eq!(
        refuse(&mut registry, bill("lamp", "x")),
        Rejection::BillingGroupNotFound(billing("x"))
    );
    assert_eq!(refuse(&mut registry, bill("x", "b")), Rejection::ThingNotFound(thing("x")));
    let made = |registry: &mut Registry, name: &str, to: &str| {
        registry.apply(Command::CreateThing {
            thing: thing(name),
            id: uuid(8),
            thing_type: None,
            attributes: Attributes::new(),
            billing_group: Some(billing(to)),
            at: DAY,
        })
    };
    assert_eq!(
        made(&mut registry, "bulb", "x"),
        Err(Rejection::BillingGroupNotFound(billing("x")))
    );
    made(&mut registry, "bulb", "b").unwrap();
    let things = |registry: &Registry, name: &str| {
        let page = registry.things_of_billing_group(name, &Paging::ascending(None, 250));
        page.items.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(things(&registry, "b"), ["bulb", "lamp"]);
    let remove = |thing_name: &str, from: &str| {
        let group = billing(from);
        Command::BillingGroup(BillingGroupCommand::Remove { group, thing: thing(thing_name) })
    };
    registry.apply(remove("lamp", "c")).expect("it is not in it");
    registry.apply(remove("lamp", "b")).unwrap();
    registry.apply(bill("lamp", "c")).unwrap();
    let delete = |name: &str, expected_version| {
        let group = billing(name);
        Command::BillingGroup(BillingGroupCommand::Delete { group, expected_version })
    };
    assert_eq!(
        refuse(&mut registry, delete("b", Some(2))),
        Rejection::VersionConflict { expected: 2, current: 1 }
    );
    registry.apply(delete("b", Some(1))).unwrap();
    assert_eq!(registry.thing("bulb").unwrap().billing_group, None);
    registry.apply(Command::DeleteThing { thing: thing("lamp"), expected_version: None }).unwrap();
    assert_eq!(things(&registry, "c"), [""; 0]);
}

#[test]
fn tags_are_set_and_taken_away() {
    let mut registry = with_tree([
        create_policy("p"),
        create_type("t"),
        create_billing("b"),
        role_aliases::create_alias("a", 1),
        authorizers::create_authorizer("z", true),
    ]);
    for resource in [
        Resource::ThingGroup(group("leaf")),
        Resource::BillingGroup(billing("b")),
        Resource::Policy(policy("p")),
        Resource::ThingType(thing_type("t")),
        Resource::RoleAlias(RoleAliasName::new("a").unwrap()),
        Resource::Authorizer(AuthorizerName::new("z").unwrap()),
    ] {
        let tag = |tags| Command::Tag { resource: resource.clone(), tags };
        registry.apply(tag(attributes(&[("a", "1"), ("b", "2")]))).unwrap();
        registry.apply(tag(attributes(&[("a", "3")]))).unwrap();
        let keys = ["b".to_owned(), "x".to_owned()].into();
        registry.apply(Command::Untag { resource: resource.clone(), keys }).unwrap();
        assert_eq!(registry.tags_of(&resource), Some(&attributes(&[("a", "3")])));
        let many = (0..50).map(|number| (format!("k{number}"), String::new())).collect();
        let rejection = refuse(&mut registry, tag(many));
        assert_eq!(rejection, Rejection::TooManyTags { limit: 50, count: 51 });
    }
    let resource = Resource::Policy(policy("x"));
    assert_eq!(registry.tags_of(&resource), None);
    let command = Command::Tag { resource, tags: BTreeMap::new() };
    assert_eq!(refuse(&mut registry, command), Rejection::PolicyNotFound(policy("x")));
}
