//! Provisioning: who may, once only, and what goes when its time is over.

use super::*;

fn carry_out(provision: Provision) -> Command {
    Command::Provisioning(ProvisioningCommand::Provision(Box::new(provision)))
}

fn sweep(at: u64) -> Command {
    Command::Provisioning(ProvisioningCommand::Sweep { at: Timestamp(at) })
}

#[test]
fn a_device_shows_that_the_certificate_is_its_own_and_in_time_and_once() {
    let expires = Timestamp(DAY.0 + 10);
    let mut registry =
        after([register(9, CertificateStatus::Active), offer(1, unclaimed("token"), expires)]);
    let shows = |shown: Ownership, at: u64| {
        carry_out(Provision {
            check: Check { shown: Some(shown), ..Check::default() },
            thing: Some(plan("lamp")),
            at: Timestamp(DAY.0 + at),
            ..provision(1)
        })
    };
    let thief = Ownership { claimed_by: principal(8), ..shown("token") };
    for command in [shows(shown("other"), 0), shows(thief, 0), shows(shown("token"), 10)] {
        assert_eq!(refuse(&mut registry, command), Rejection::NotTheOwner);
    }
    registry.apply(shows(shown("token"), 9)).unwrap();
    let found = registry.certificate(certificate(1).as_str()).unwrap();
    assert_eq!((found.status, &found.provisional), (CertificateStatus::Active, &None));
    assert_eq!(refuse(&mut registry, shows(shown("token"), 9)), Rejection::NotTheOwner);
    registry.apply(sweep(u64::MAX)).unwrap();
    assert!(registry.certificate(certificate(1).as_str()).is_some(), "it is kept for good");
}

#[test]
fn what_nobody_keeps_goes_with_all_that_is_attached_to_it() {
    let at = |after: u64| Timestamp(DAY.0 + after);
    let mut registry = after([
        create_template("fleet", 1),
        create("lamp", None, &[]),
        create_policy("p"),
        offer(1, claim("fleet"), at(5)),
        offer(2, unclaimed("token"), at(7)),
        attach("p", 2),
        attach_thing("lamp", 2, ThingPrincipalType::NonExclusiveThing),
    ]);
    assert_eq!(registry.next_sweep(), Some(at(5)));
    registry.apply(sweep(DAY.0 + 6)).unwrap();
    assert!(registry.certificate(certificate(1).as_str()).is_none());
    assert_eq!(registry.next_sweep(), Some(at(7)));
    registry.apply(sweep(DAY.0 + 7)).unwrap();
    assert!(registry.certificate(certificate(2).as_str()).is_none());
    assert_eq!(registry.next_sweep(), None);
    registry.apply(Command::DeletePolicy { policy: policy("p") }).unwrap();
    registry.apply(Command::DeleteThing { thing: thing("lamp"), expected_version: None }).unwrap();
}

#[test]
fn somebody_who_decides_about_a_certificate_keeps_it() {
    let mut registry = after([offer(1, unclaimed("token"), DAY)]);
    let activate = Command::UpdateCertificate {
        certificate: certificate(1),
        status: CertificateStatus::Active,
        at: DAY,
    };
    registry.apply(activate).unwrap();
    assert_eq!(registry.next_sweep(), None);
    let shows = carry_out(Provision {
        check: Check { shown: Some(shown("token")), ..Check::default() },
        ..provision(1)
    });
    assert_eq!(refuse(&mut registry, shows), Rejection::NotTheOwner);
}

#[test]
fn a_claim_is_in_no_list_and_lets_a_device_do_one_thing() {
    let registry = after([
        create_template("fleet", 1),
        offer(1, claim("fleet"), DAY),
        register(2, CertificateStatus::Active),
    ]);
    let listed = registry.certificates(&Paging::ascending(None, 10));
    let listed: Vec<_> = listed.items.iter().map(|it| it.id.clone()).collect();
    assert_eq!(listed, [certificate(2)]);
    let identity = registry.identity(certificate(1).as_str(), Some("client")).unwrap();
    let documents = identity.documents();
    assert_eq!(documents.len(), 1);
    assert_eq!(registry.identity(certificate(2).as_str(), None).unwrap().documents().len(), 0);
}

#[test]
fn a_claim_stays_one() {
    let mut registry = after([create_template("fleet", 1), offer(1, claim("fleet"), DAY)]);
    let rejection = refuse(&mut registry, carry_out(provision(1)));
    assert_eq!(rejection, Rejection::CertificateNotFound(certificate(1)));
    let revoke = Command::UpdateCertificate {
        certificate: certificate(1),
        status: CertificateStatus::Revoked,
        at: DAY,
    };
    registry.apply(revoke).unwrap();
    assert!(registry.certificate(certificate(1).as_str()).unwrap().is_claim());
    assert_eq!(registry.next_sweep(), Some(DAY));
}

#[test]
fn a_claim_needs_its_template() {
    let mut registry = Registry::default();
    let rejection = refuse(&mut registry, offer(1, claim("fleet"), DAY));
    assert_eq!(rejection, Rejection::TemplateNotFound(template("fleet")));
}

#[test]
fn a_certificate_that_is_in_use_keeps_its_status_unless_the_template_says_otherwise() {
    use CertificateStatus::{Active, Inactive, PendingActivation, Revoked};
    for (before, on_status, after_it) in [
        (PendingActivation, Disposition::DoNothing, Some(Active)),
        (Inactive, Disposition::DoNothing, Some(Inactive)),
        (Revoked, Disposition::DoNothing, Some(Revoked)),
        (Revoked, Disposition::Replace, Some(Active)),
        (Inactive, Disposition::Fail, None),
        (Active, Disposition::Fail, Some(Active)),
    ] {
        let first = if before == Revoked { Active } else { before };
        let mut registry = after([register(1, first)]);
        if before == Revoked {
            let revoke = Command::UpdateCertificate {
                certificate: certificate(1),
                status: Revoked,
                at: DAY,
            };
            registry.apply(revoke).unwrap();
        }
        let command = carry_out(Provision { on_status, ..provision(1) });
        match after_it {
            Some(status) => {
                registry.apply(command).unwrap();
                let found = registry.certificate(certificate(1).as_str()).unwrap();
                assert_eq!(found.status, status, "{before:?} {on_status:?}");
            }
            None => {
                let rejection = refuse(&mut registry, command);
                assert!(matches!(rejection, Rejection::ResourceConflict { .. }));
            }
        }
    }
}

#[test]
fn all_policies_have_to_fit() {
    let mut commands = vec![register(1, CertificateStatus::Active)];
    for number in 0..9 {
        commands.push(create_policy(&number.to_string()));
        commands.push(attach(&number.to_string(), 1));
    }
    let mut registry = after(commands);
    let with = |names: &[&str]| {
        let policies = names
            .iter()
            .map(|name| AttachedPolicy { name: policy(name), document: Some(ALLOW.into()) });
        carry_out(Provision { policies: policies.collect(), ..provision(1) })
    };
    let rejection = refuse(&mut registry, with(&["x", "y"]));
    assert!(matches!(rejection, Rejection::PolicyLimit { limit: 10, .. }), "{rejection}");
    registry.apply(with(&["x", "3"])).unwrap();
    assert!(registry.policy("x").is_some());
}

#[test]
fn what_was_looked_at_has_to_be_so_still() {
    let mut registry = after([
        register(9, CertificateStatus::Active),
        create_template("fleet", 1),
        offer(1, unclaimed("token"), Timestamp(DAY.0 + 10)),
    ]);
    let in_use = TemplateInUse::of(registry.template("fleet").unwrap());
    let checked = carry_out(Provision {
        check: Check {
            shown: Some(shown("token")),
            template: Some(in_use),
            only_pending: true,
            line: None,
        },
        ..provision(1)
    });
    let disable = Command::Template(TemplateCommand::Update {
        template: template("fleet"),
        description: None,
        enabled: Some(false),
        default_version: None,
        role_arn: None,
        hook: None,
        at: Timestamp(DAY.0 + 1),
    });
    let mut disabled = registry.clone();
    disabled.apply(disable).unwrap();
    let rejection = refuse(&mut disabled, checked.clone());
    assert_eq!(rejection, Rejection::TemplateChanged(template("fleet")));
    let revoke = |number| Command::UpdateCertificate {
        certificate: certificate(number),
        status: CertificateStatus::Revoked,
        at: DAY,
    };
    for number in [1, 9] {
        let mut revoked = registry.clone();
        revoked.apply(revoke(number)).unwrap();
        assert_eq!(refuse(&mut revoked, checked.clone()), Rejection::NotTheOwner, "{number}");
    }
    registry.apply(checked).unwrap();
}

#[test]
fn a_thing_that_has_the_certificate_to_itself_is_provisioned_again() {
    let mut registry = after([
        register(1, CertificateStatus::Active),
        create("lamp", None, &[]),
        attach_thing("lamp", 1, ThingPrincipalType::ExclusiveThing),
    ]);
    let of = |name| carry_out(Provision { thing: Some(plan(name)), ..provision(1) });
    registry.apply(of("lamp")).unwrap();
    let rejection = refuse(&mut registry, of("door"));
    assert!(matches!(rejection, Rejection::AttachedExclusively { .. }), "{rejection}");
}

#[test]
fn a_claim_that_has_leaked_hinders_no_others_and_takes_what_it_made_with_it() {
    let id = |number: u32| CertificateId::new(&format!("{number:064x}")).unwrap();
    let offer = |number: u32, by: u8| {
        let owner = Ownership { token: "token".into(), claimed_by: principal(by) };
        let role = ProvisionalRole::Unclaimed(owner);
        let provisional = Provisional { role, expires: DAY };
        let certificate = Certificate { id: id(number), ..record(1, Some(provisional)) };
        let certificate = Box::new(certificate);
        Command::Provisioning(ProvisioningCommand::Offer { certificate })
    };
    let mut registry =
        after([register(8, CertificateStatus::Active), register(9, CertificateStatus::Active)]);
    for number in 0..1_000 {
        registry.apply(offer(number, 9)).unwrap();
    }
    let rejection = refuse(&mut registry, offer(1_000, 9));
    assert_eq!(rejection, Rejection::ManyUnclaimedCertificates { limit: 1_000 });
    registry.apply(offer(2_000, 8)).unwrap();
    let revoke = Command::UpdateCertificate {
        certificate: certificate(9),
        status: CertificateStatus::Revoked,
        at: DAY,
    };
    registry.apply(revoke).unwrap();
    assert!(registry.certificate(id(0).as_str()).is_none());
    assert!(registry.certificate(id(2_000).as_str()).is_some());
    assert_eq!(registry.certificates(&Paging::ascending(None, 10)).items.len(), 3);
}
