//! Revocation lists: which is newer, whom they revoke, and who does not get in because of them.

use super::authorities::{authority, delete_authority, register_authority, update_authority};
use super::*;

use CertificateStatus::{Active, Inactive, PendingActivation, Revoked};

fn known(authority: Authority) -> Command {
    register_authority(Authority { mode: CertificateMode::SniOnly, ..authority }, None)
}

fn list(issued: u64, number: Option<&str>, serials: &[&str]) -> RevocationList {
    let serials: Vec<_> = serials.iter().map(|serial| hex::decode(serial).unwrap()).collect();
    RevocationList {
        issued: Timestamp(issued),
        next_update: Some(Timestamp(issued + 100)),
        number: number.map(Into::into),
        serials: serials.iter().map(Vec::as_slice).collect(),
        imported: Timestamp(DAY.0 + issued),
    }
}

fn import(by: u8, list: RevocationList) -> Command {
    let (authority, list) = (certificate(by), Box::new(list));
    Command::Authority(AuthorityCommand::Revoke { authority, list })
}

/// A certificate whose serial number is given in hex.
fn signed(number: u8, serial: &str, by: Option<u8>, status: CertificateStatus) -> Command {
    let names = CertificateNames { serial_number: Some(serial.into()), ..Default::default() };
    Command::RegisterCertificate {
        certificate: certificate(number),
        pem: "pem".into(),
        status,
        mode: CertificateMode::Default,
        authority: by.map(certificate),
        summary: CertificateSummary { names: names.into(), ..Default::default() },
        generation: uuid(3),
        at: DAY,
    }
}

fn set(number: u8, status: CertificateStatus) -> Command {
    Command::UpdateCertificate { certificate: certificate(number), status, at: DAY }
}

fn delete(number: u8) -> Command {
    Command::DeleteCertificate { certificate: certificate(number), force: true }
}

fn status(registry: &Registry, number: u8) -> CertificateStatus {
    registry.certificate(certificate(number).as_str()).unwrap().status
}

fn revoked(certificates: u64) -> Result<Outcome, Rejection> {
    Ok(Outcome::Revoked { certificates })
}

#[test]
fn serial_numbers_are_found_by_all_their_bytes() {
    let given: Vec<Vec<u8>> = vec![vec![1], vec![255], vec![1, 0], vec![0x7f; 20], vec![1], vec![]];
    let serials: SerialNumbers = given.iter().map(Vec::as_slice).collect();
    assert_eq!(serials.len(), 4);
    for (serial, expected) in [
        (&[1][..], true),
        (&[255], true),
        (&[1, 0], true),
        (&[0x7f; 20], true),
        (&[2], false),
        (&[0, 1], false),
        (&[1, 0, 0], false),
        (&[0x7f; 19], false),
        (&[], false),
    ] {
        assert_eq!(serials.contains(serial), expected, "{serial:?}");
    }
    let many: Vec<_> = (0..3000_u16).filter(|it| it % 3 == 0).map(u16::to_be_bytes).collect();
    let serials: SerialNumbers = many.iter().map(|it| &it[..]).collect();
    for number in 0..3000_u16 {
        assert_eq!(serials.contains(&number.to_be_bytes()), number % 3 == 0, "{number}");
    }
    let stored = serde_json::to_string(&serials).unwrap();
    assert_eq!(serde_json::from_str::<SerialNumbers>(&stored).unwrap(), serials);
    assert!(SerialNumbers::default().is_empty() && !serials.is_empty());
}

#[test]
fn an_older_list_does_not_replace_a_newer_one() {
    for (present, new, is_taken) in [
        ((10, None), (11, None), true),
        // Once more the same.
        ((10, None), (10, None), true),
        ((10, None), (9, None), false),
        ((10, Some("9")), (9, Some("a")), true),
        ((10, Some("9")), (11, Some("8")), false),
        ((10, Some("ff")), (10, Some("100")), true),
        ((10, Some("100")), (10, Some("ff")), false),
        ((10, Some("9")), (10, Some("9")), true),
        ((10, Some("9")), (9, Some("9")), false),
        // One of them has none.
        ((10, Some("9")), (11, None), true),
        ((10, None), (9, Some("9")), false),
    ] {
        let mut registry = after([known(authority(1)), import(1, list(present.0, present.1, &[]))]);
        let found = registry.apply(import(1, list(new.0, new.1, &["01"])));
        let older = Rejection::RevocationListOlder {
            issued: Timestamp(present.0),
            number: present.1.map(Into::into),
        };
        assert_eq!(found, if is_taken { revoked(0) } else { Err(older) }, "{present:?} {new:?}");
        let kept = registry.revocation_list(certificate(1).as_str()).unwrap();
        assert_eq!(kept.serials.len(), usize::from(is_taken), "{present:?} {new:?}");
    }
}

#[test]
fn a_list_revokes_what_is_registered_under_its_authority() {
    let renewed = Authority { not_after: Timestamp(1), ..authority(2) };
    let other = Authority { key: "other".into(), ..authority(3) };
    let mut registry = after([
        known(authority(1)),
        known(renewed),
        known(other),
        signed(10, "aa", Some(1), Active),
        signed(11, "ab", Some(1), PendingActivation),
        signed(12, "ac", Some(1), Active),
        // Of the same key, of another one, and of nobody here.
        signed(13, "aa", Some(2), Inactive),
        signed(14, "aa", Some(3), Active),
        signed(15, "aa", None, Active),
        register(16, Active),
    ]);
    registry.take_changes();
    assert_eq!(registry.apply(import(1, list(10, None, &["aa", "ab", "ad"]))), revoked(3));
    let expected = [Revoked, Revoked, Active, Revoked, Active, Active, Active];
    for (number, expected) in (10..).zip(expected) {
        assert_eq!(status(&registry, number), expected, "{number}");
    }
    let found = registry.certificate(certificate(10).as_str()).unwrap();
    assert_eq!((found.modified, found.customer_version), (Timestamp(DAY.0 + 10), 2));
    let changed = registry.take_changes().certificates;
    assert_eq!(changed, [10, 11, 13].map(certificate).into());
    assert_eq!(registry.apply(import(2, list(10, None, &["aa", "ab", "ad"]))), revoked(0));
    assert_eq!(
        refuse(&mut registry, import(9, list(10, None, &[]))),
        Rejection::AuthorityNotFound(certificate(9))
    );
}

#[test]
fn what_is_on_a_list_is_neither_registered_nor_activated() {
    let mut registry = after([
        known(authority(1)),
        known(Authority { key: "other".into(), ..authority(3) }),
        signed(10, "aa", Some(1), Active),
        import(1, list(10, None, &["aa", "bb"])),
    ]);
    let is_revoked = |number| Rejection::CertificateRevoked(certificate(number));
    for status in [Active, Inactive, PendingActivation] {
        assert_eq!(refuse(&mut registry, signed(20, "bb", Some(1), status)), is_revoked(20));
    }
    assert_eq!(refuse(&mut registry, set(10, Active)), is_revoked(10));
    let provision = |number, registers| {
        let on_status = Disposition::Replace;
        let provision = Provision { on_status, registers, ..provision(number) };
        Command::Provisioning(ProvisioningCommand::Provision(Box::new(provision)))
    };
    assert_eq!(refuse(&mut registry, provision(10, None)), is_revoked(10));
    let names = CertificateNames { serial_number: Some("bb".into()), ..Default::default() };
    let new = Certificate {
        authority: Some(certificate(1)),
        summary: CertificateSummary { names: names.into(), ..Default::default() },
        ..record(20, None)
    };
    assert_eq!(refuse(&mut registry, provision(20, Some(Box::new(new)))), is_revoked(20));

    registry.apply(set(10, Inactive)).unwrap();
    assert_eq!(refuse(&mut registry, provision(10, None)), is_revoked(10));
    registry.apply(signed(21, "bb", Some(3), Active)).unwrap();
    registry.apply(signed(22, "bb", None, Active)).unwrap();

    // The next list has it no more: it stays revoked, until somebody decides otherwise.
    registry.apply(import(1, list(11, None, &["aa"]))).unwrap();
    registry.apply(signed(20, "bb", Some(1), Active)).unwrap();
    assert_eq!(status(&registry, 10), Revoked);
    registry.apply(import(1, list(12, None, &[]))).unwrap();
    assert_eq!(status(&registry, 10), Revoked);
    registry.apply(set(10, Active)).unwrap();
}

#[test]
fn a_list_is_stored_and_goes_with_the_last_of_its_authorities() {
    let mut registry = after([
        known(authority(1)),
        known(authority(2)),
        known(Authority { key: "other".into(), ..authority(3) }),
        import(3, list(5, Some("1"), &[])),
        import(1, list(10, None, &["aa"])),
    ]);
    assert_eq!(registry.next_revocation_list(), Some(Timestamp(105)));
    let mut loaded = Registry::default();
    for (key, value) in registry.checkpoint() {
        loaded.load(&key, &value.unwrap()).unwrap();
    }
    loaded.loaded().unwrap();
    loaded.take_changes();
    registry.take_changes();
    assert_eq!(loaded, registry);
    for number in [1, 2, 3] {
        registry.apply(update_authority(number, false)).unwrap();
        registry.apply(delete_authority(number)).unwrap();
        let lists = registry.checkpoint().iter().filter(|(key, _)| key[0] == b'x').count();
        assert_eq!(lists, usize::from(number > 1), "{number}");
    }
    assert_eq!(registry.next_revocation_list(), None);
    registry.apply(known(authority(1))).unwrap();
    assert!(registry.revocation_list(certificate(1).as_str()).is_none());
}

#[test]
fn a_revocation_list_is_for_nodes_of_the_second_format() {
    let command = import(1, list(10, Some("9"), &["aa", "abcd"]));
    assert_eq!(command.since(), 2);
    assert_eq!(Command::decode(&command.encode()).unwrap(), command);
}

#[test]
fn a_list_names_certificates_of_an_authority_that_has_gone() {
    let renewed = Authority { not_after: Timestamp(1), ..authority(2) };
    let mut registry = after([
        known(authority(1)),
        known(renewed),
        signed(10, "aa", Some(1), Active),
        signed(11, "ab", Some(1), Active),
        signed(12, "ac", Some(1), Active),
        update_authority(1, false),
        delete_authority(1),
    ]);
    assert_eq!(registry.apply(import(2, list(10, None, &["aa"]))), revoked(1));
    assert_eq!(
        refuse(&mut registry, set(10, Active)),
        Rejection::CertificateRevoked(certificate(10))
    );
    // It is known after a restart, too.
    let mut again = Registry::default();
    for (key, value) in registry.checkpoint() {
        if let Some(value) = value {
            again.load(&key, &value).unwrap();
        }
    }
    assert_eq!(again.apply(import(2, list(11, None, &["aa", "ab"]))), revoked(1));
    assert_eq!(refuse(&mut again, set(11, Active)), Rejection::CertificateRevoked(certificate(11)));
    // With its last certificate it is forgotten.
    again.checkpoint();
    for number in 10..=12 {
        again.apply(set(number, Inactive)).unwrap();
        again.apply(delete(number)).unwrap();
    }
    let forgotten = again.checkpoint().into_iter().filter(|(key, _)| key.starts_with(b"f"));
    let expected = format!("f{}", certificate(1)).into_bytes();
    assert_eq!(forgotten.collect::<Vec<_>>(), [(expected, None)]);
}

#[test]
fn an_authority_that_is_registered_again_has_gone_no_more() {
    let mut registry = after([
        known(authority(1)),
        signed(10, "aa", Some(1), Active),
        update_authority(1, false),
        delete_authority(1),
        known(authority(1)),
    ]);
    assert!(registry.checkpoint().iter().all(|(key, value)| key[0] != b'f' || value.is_none()));
    assert_eq!(registry.apply(import(1, list(10, None, &["aa"]))), revoked(1));
}
