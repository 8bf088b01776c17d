//! Certificate authorities and what is registered under them.

use super::*;

pub(super) fn authority(number: u8) -> Authority {
    Authority {
        id: certificate(number),
        pem: "pem".into(),
        active: true,
        auto_registration: false,
        mode: CertificateMode::Default,
        registration: RegistrationConfig::default(),
        not_before: Timestamp(0),
        not_after: Timestamp(u64::MAX),
        subject: "subject".into(),
        key: "key".into(),
        tags: BTreeMap::new(),
        created: Timestamp(DAY.0 + u64::from(number)),
        modified: DAY,
        customer_version: 1,
        generation: uuid(3),
    }
}

fn code(code: &str) -> Command {
    Command::Authority(AuthorityCommand::MakeCode { code: code.into() })
}

pub(super) fn register_authority(authority: Authority, proof: Option<&str>) -> Command {
    let (authority, proof) = (Box::new(authority), proof.map(Into::into));
    Command::Authority(AuthorityCommand::Register { authority, proof })
}

pub(super) fn update_authority(number: u8, active: bool) -> Command {
    Command::Authority(AuthorityCommand::Update {
        authority: certificate(number),
        active: Some(active),
        auto_registration: None,
        registration: None,
        at: DAY,
    })
}

pub(super) fn delete_authority(number: u8) -> Command {
    Command::Authority(AuthorityCommand::Delete { authority: certificate(number) })
}

fn signed_by(number: u8, by: u8) -> Command {
    let Command::RegisterCertificate {
        certificate,
        pem,
        status,
        mode,
        summary,
        generation,
        at,
        ..
    } = register(number, CertificateStatus::Active)
    else {
        unreachable!()
    };
    let authority = Some(super::certificate(by));
    Command::RegisterCertificate {
        certificate,
        pem,
        status,
        mode,
        authority,
        summary,
        generation,
        at,
    }
}

#[test]
fn a_registration_code_stays_until_it_is_deleted() {
    let mut registry = Registry::default();
    let delete = || Command::Authority(AuthorityCommand::DeleteCode);
    assert_eq!(refuse(&mut registry, delete()), Rejection::RegistrationCodeNotFound);
    assert_eq!(registry.apply(code("one")), Ok(Outcome::RegistrationCode("one".into())));
    assert_eq!(registry.apply(code("two")), Ok(Outcome::RegistrationCode("one".into())));
    registry.apply(delete()).unwrap();
    assert_eq!(registry.registration_code(), None);
    assert_eq!(registry.apply(code("two")), Ok(Outcome::RegistrationCode("two".into())));
}

#[test]
fn an_authority_needs_the_proof_that_its_mode_asks_for() {
    let mut registry = Registry::default();
    let without = |registry: &mut Registry, proof| {
        assert_eq!(
            refuse(registry, register_authority(authority(1), proof)),
            Rejection::RegistrationCodeIsAnother
        );
    };
    without(&mut registry, None);
    registry.apply(code("one")).unwrap();
    without(&mut registry, None);
    without(&mut registry, Some("two"));
    registry.apply(register_authority(authority(1), Some("one"))).unwrap();
    assert_eq!(
        refuse(&mut registry, register_authority(authority(1), Some("one"))),
        Rejection::AuthorityExists(certificate(1))
    );
    let open = Authority { mode: CertificateMode::SniOnly, ..authority(2) };
    registry.apply(register_authority(open, None)).unwrap();
    for number in 3..=10 {
        registry.apply(register_authority(authority(number), Some("one"))).unwrap();
    }
    assert_eq!(
        refuse(&mut registry, register_authority(authority(11), Some("one"))),
        Rejection::TooManyAuthorities { limit: 10 }
    );
    let other = Authority { key: "other".into(), ..authority(11) };
    registry.apply(register_authority(other, Some("one"))).unwrap();
    assert_eq!(registry.authorities_of_subject("subject").count(), 11);
}

#[test]
fn certificates_are_registered_under_active_authorities() {
    let mut registry = after([code("one"), register_authority(authority(1), Some("one"))]);
    assert_eq!(
        refuse(&mut registry, signed_by(9, 2)),
        Rejection::AuthorityNotFound(certificate(2))
    );
    registry.apply(signed_by(8, 1)).unwrap();
    registry.apply(signed_by(9, 1)).unwrap();
    assert_eq!(
        refuse(&mut registry, delete_authority(1)),
        Rejection::AuthorityActive(certificate(1))
    );
    registry.apply(update_authority(1, false)).unwrap();
    assert_eq!(
        refuse(&mut registry, signed_by(7, 1)),
        Rejection::AuthorityInactive(certificate(1))
    );
    let paging = Paging::ascending(None, 1);
    let page = registry.certificates_of_authority(certificate(1).as_str(), &paging);
    assert_eq!((page.items[0].id.clone(), page.next.is_some()), (certificate(8), true));
    assert_eq!(registry.authorities(None, &paging).items.len(), 1);
    assert_eq!(registry.authorities(Some("t"), &paging).items.len(), 0);
    // What it signed goes on without it.
    registry.apply(delete_authority(1)).unwrap();
    let identity = registry.identity(certificate(8).as_str(), None).unwrap();
    assert_eq!(identity.status, CertificateStatus::Active);
    assert_eq!(
        refuse(&mut registry, update_authority(1, true)),
        Rejection::AuthorityNotFound(certificate(1))
    );
}

#[test]
fn an_authority_that_is_stored_is_the_same() {
    let mut registry = after([
        code("one"),
        register_authority(authority(1), Some("one")),
        register_authority(authority(2), Some("one")),
        signed_by(8, 1),
        update_authority(2, false),
    ]);
    let mut loaded = Registry::default();
    for (key, value) in registry.checkpoint() {
        loaded.load(&key, &value.unwrap()).unwrap();
    }
    loaded.loaded().unwrap();
    loaded.take_changes();
    registry.take_changes();
    assert_eq!(loaded, registry);
    registry.apply(delete_authority(2)).unwrap();
    registry.apply(Command::Authority(AuthorityCommand::DeleteCode)).unwrap();
    let gone = registry.checkpoint();
    assert!(gone.len() == 2 && gone.iter().all(|(_, value)| value.is_none()));
}
