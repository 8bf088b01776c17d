//! Whatever is proposed: a rejected command changes nothing, and a registry that was stored and
//! loaded on the way is the one that never stopped.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn any_disposition(number: u64) -> Disposition {
    [Disposition::DoNothing, Disposition::Replace, Disposition::Merge, Disposition::Fail]
        [usize::try_from(number % 4).unwrap()]
}

/// Commands about so few names that they meet.
fn any_command() -> impl Strategy<Value = Command> {
    let name = prop::sample::select(vec!["a", "b", "c"]);
    let number = 1_u8..4;
    let flag = any::<bool>();
    (0_u8..51, name.clone(), name, number, flag, 0_u64..4).prop_map(
        |(kind, name, other, number, flag, count)| {
            let at = Timestamp(DAY.0 + count * 400_000);
            let status = [
                CertificateStatus::Active,
                CertificateStatus::Inactive,
                CertificateStatus::Revoked,
                CertificateStatus::PendingActivation,
            ][usize::try_from(count).unwrap()];
            let kind_of_thing = if flag {
                ThingPrincipalType::ExclusiveThing
            } else {
                ThingPrincipalType::NonExclusiveThing
            };
            match kind {
                0 => create(name, flag.then_some(other), &[("k", other)]),
                1 => Command::UpdateThing {
                    thing: thing(name),
                    attributes: Some(AttributePatch {
                        attributes: attributes(&[(other, if flag { "" } else { "v" })]),
                        merge: count > 1,
                    }),
                    thing_type: (count == 1).then(|| thing_type(other)),
                    remove_thing_type: count == 2,
                    expected_version: flag.then_some(count),
                },
                2 => Command::DeleteThing { thing: thing(name), expected_version: None },
                3 => create_type(name),
                4 => Command::UpdateThingType {
                    thing_type: thing_type(name),
                    patch: ThingTypePatch {
                        description: Some(other.into()),
                        ..ThingTypePatch::default()
                    },
                },
                5 => Command::DeprecateThingType { thing_type: thing_type(name), undo: flag, at },
                6 => Command::DeleteThingType {
                    thing_type: thing_type(name),
                    deprecated_for_ms: None,
                    at,
                },
                7 => register(number, status),
                8 => Command::UpdateCertificate { certificate: certificate(number), status, at },
                9 => Command::DeleteCertificate { certificate: certificate(number), force: flag },
                10 => create_policy(name),
                11 => Command::CreatePolicyVersion {
                    policy: policy(name),
                    document: if flag { ALLOW.into() } else { "{}".into() },
                    set_as_default: count == 1,
                    at,
                },
                12 => Command::SetDefaultPolicyVersion { policy: policy(name), version: count, at },
                13 => Command::DeletePolicyVersion { policy: policy(name), version: count, at },
                14 => Command::DeletePolicy { policy: policy(name) },
                15 => attach(name, number),
                16 => Command::DetachPolicy { policy: policy(name), target: principal(number) },
                17 => attach_thing(name, number, kind_of_thing),
                18 => Command::DetachThingPrincipal {
                    thing: thing(name),
                    principal: principal(number),
                },
                19 => create_group(name, flag.then_some(other)),
                20 => delete_group(name),
                21 => move_thing(name, if flag { &["a", "b"] } else { &[] }, &[other]),
                22 => attach_to_group(name, other),
                23 => Command::DetachPolicy {
                    policy: policy(name),
                    target: Principal::ThingGroup(group(other)),
                },
                24 => create_billing(name),
                25 => bill(name, other),
                26 => Command::BillingGroup(BillingGroupCommand::Delete {
                    group: billing(name),
                    expected_version: flag.then_some(count),
                }),
                27 => Command::Tag {
                    resource: Resource::ThingGroup(group(name)),
                    tags: attributes(&[(other, "1")]),
                },
                28 => Command::Untag {
                    resource: Resource::ThingGroup(group(name)),
                    keys: [other.to_owned()].into(),
                },
                37 => role_aliases::create_alias(name, count.into()),
                38 => role_aliases::update_alias(name, 900),
                39 => role_aliases::delete_alias(name),
                40 => role_aliases::make_key(number, count * 12),
                42 => registration_tasks::start(name, at.0),
                43 => registration_tasks::advance(name, count, count + 1),
                44 => match flag {
                    true => registration_tasks::stop(name),
                    false => registration_tasks::forget(name),
                },
                45 => registration_tasks::end(
                    name,
                    count,
                    RegistrationStatus::ALL[usize::try_from(count).unwrap()],
                    at.0,
                ),
                46 => authorizers::create_authorizer(name, flag),
                47 => authorizers::update_authorizer(name, flag),
                48 => authorizers::delete_authorizer(name),
                49 => authorizers::set_default(name),
                50 => Command::Authorizer(AuthorizerCommand::ClearDefault),
                29 => create_template(name, 1),
                30 => Command::Template(TemplateCommand::CreateVersion {
                    template: template(name),
                    body: "{}".into(),
                    set_as_default: flag,
                    at,
                }),
                31 => Command::Template(TemplateCommand::DeleteVersion {
                    template: template(name),
                    version: u32::from(number),
                    at,
                }),
                32 => Command::Template(TemplateCommand::Delete { template: template(name) }),
                33 => offer(number, if flag { claim(name) } else { unclaimed("token") }, at),
                35 => Command::Event(EventCommand::Configure {
                    enabled: EventType::ALL.map(|kind| (kind, count > 0)).into(),
                    at,
                }),
                36 => Command::Event(EventCommand::Published {
                    numbers: (0..count * 7).step_by(2).collect(),
                }),
                34 => Command::Provisioning(ProvisioningCommand::Sweep { at }),
                _ => Command::Provisioning(ProvisioningCommand::Provision(Box::new(Provision {
                    registers: flag.then(|| Box::new(record(number, None))),
                    status,
                    on_status: any_disposition(count),
                    thing: (count > 0).then(|| ThingPlan {
                        attributes: attributes(&[("k", other)]),
                        thing_type: flag.then(|| thing_type(other)),
                        groups: [group(other)].into(),
                        billing_group: flag.then(|| billing(other)),
                        on_attributes: any_disposition(count),
                        on_type: any_disposition(count + 1),
                        on_groups: any_disposition(count + 2),
                        ..plan(name)
                    }),
                    policies: vec![
                        AttachedPolicy { name: policy(name), document: None },
                        AttachedPolicy { name: policy(other), document: Some(ALLOW.into()) },
                    ],
                    check: Check {
                        shown: (count == 3).then(|| shown("token")),
                        only_pending: count == 2,
                        template: None,
                        line: (count == 1).then(|| registration_tasks::line(other, 1)),
                    },
                    ..provision(number)
                }))),
            }
        },
    )
}

proptest! {
    #[test]
    fn a_stored_registry_is_the_same(
        commands in prop::collection::vec((any_command(), 0_u8..8), 1..200),
    ) {
        let mut registry = Registry::default();
        let mut stored = BTreeMap::new();
        for (command, then) in commands {
            let before = registry.clone();
            if registry.apply(command).is_err() {
                prop_assert_eq!(&registry, &before);
            }
            if then == 0 {
                for (key, value) in registry.checkpoint() {
                    match value {
                        Some(value) => drop(stored.insert(key, value)),
                        None => drop(stored.remove(&key)),
                    }
                }
                let mut loaded = Registry::default();
                for (key, value) in &stored {
                    loaded.load(key, value).unwrap();
                }
                loaded.loaded().unwrap();
                prop_assert!(loaded.take_changes().all);
                registry.take_changes();
                prop_assert_eq!(&loaded, &registry);
                registry = loaded;
            }
        }
    }
}
