//! What is issued reads back, and what should not be registered is refused.

use super::*;
use fleet::registry::Timestamp;

/// 2026-01-01T00:00:00Z
const NOW: Timestamp = Timestamp(1_767_225_600_000);

fn authority(key: &rcgen::KeyPair) -> (String, Issuer) {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = params.self_signed(key).unwrap().pem();
    let issuer = Issuer::from_pem(&pem, &key.serialize_pem()).unwrap();
    (pem, issuer)
}

fn issuer() -> Issuer {
    authority(&rcgen::KeyPair::generate().unwrap()).1
}

#[test]
fn an_issued_certificate_reads_back() {
    let authorities = [
        rcgen::KeyPair::generate().unwrap(),
        rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap(),
        rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)
            .unwrap(),
    ];
    let device = KeyPair::generate().unwrap();
    for key in authorities {
        let (authority_pem, issuer) = authority(&key);
        let issued = issuer.issue(&device, NOW).unwrap();
        let inspected = inspect(&issued.pem).unwrap();
        assert_eq!((inspected.id, &inspected.summary), (issued.id, &issued.summary));
        let names = &issued.summary.names;
        assert_eq!(names.subject["CommonName"], ["AWS IoT Certificate"]);
        assert_eq!(names.issuer["CommonName"], ["rcgen self signed cert"]);
        assert_eq!(issued.summary.not_before, Timestamp(NOW.0 - 120_000));
        assert_eq!(issued.summary.not_after, Timestamp(2_524_607_999_000));

        let der = inspect::only_block(&authority_pem, "CERTIFICATE", &["CERTIFICATE"]).unwrap();
        let authority = inspect::parse(&der).unwrap();
        let certificate = inspect::parse(&inspected.der).unwrap();
        assert!(certificate.verify_signature(Some(authority.public_key())).is_ok());
    }
}

#[test]
fn a_request_keeps_its_subject_and_loses_its_extensions() {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(["host.example.com".into()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "truck 7");
    params.distinguished_name.push(rcgen::DnType::CountryName, "DE");
    let request = params.serialize_request(&key).unwrap().pem().unwrap();
    let issued = issuer().issue_for_request(&request, NOW).unwrap();
    let subject = &issued.summary.names.subject;
    assert_eq!((&subject["CommonName"][0][..], &subject["Country"][0][..]), ("truck 7", "DE"));
    assert_eq!(subject.len(), 2);
}

#[test]
fn a_request_without_a_subject_gets_one() {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let request = params.serialize_request(&key).unwrap().pem().unwrap();
    let issued = issuer().issue_for_request(&request, NOW).unwrap();
    assert_eq!(issued.summary.names.subject["CommonName"], ["AWS IoT Certificate"]);
}

#[test]
fn alternative_names_become_variables() {
    let key = rcgen::KeyPair::generate().unwrap();
    let names = ["a.example.com".into(), "b.example.com".into(), "10.0.0.1".into(), "::1".into()];
    let params = rcgen::CertificateParams::new(names).unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    let subject = inspect(&pem).unwrap().summary.names.subject.clone();
    assert_eq!(subject["AlternativeName.DNSName"], ["a.example.com", "b.example.com"]);
    assert_eq!(subject["AlternativeName.IPAddress"], ["10.0.0.1", "::1"]);
}

#[test]
fn an_authority_needs_its_own_key_and_the_right_to_sign() {
    let key = rcgen::KeyPair::generate().unwrap();
    let (pem, _) = authority(&key);
    let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
    assert_eq!(Issuer::from_pem(&pem, &other).unwrap_err(), CertificateError::KeyMismatch);
    let params = rcgen::CertificateParams::default();
    let pem = params.self_signed(&key).unwrap().pem();
    let error = Issuer::from_pem(&pem, &key.serialize_pem()).unwrap_err();
    assert_eq!(error, CertificateError::NotAnAuthority);
}

#[test]
fn damaged_certificates_are_refused_and_harm_nothing() {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    let der = certificate.der();
    for length in 0..der.len() {
        assert!(inspect::parse(&der[..length]).is_err(), "{length}");
    }
    for at in 0..der.len() {
        let mut damaged = der.to_vec();
        damaged[at] ^= 0x55;
        // Whatever comes of it, reading it ends.
        let _ = inspect::parse(&damaged).map(|certificate| inspect::summary(&certificate));
    }
    for (pem, blocks) in [("", "0 blocks"), ("hello", "0 blocks")] {
        let error = inspect(pem).unwrap_err();
        let expected =
            CertificateError::PemBlocks { expected: "CERTIFICATE", found: blocks.into() };
        assert_eq!(error, expected);
    }
}

#[test]
fn a_text_with_a_certificate_has_an_end() {
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
    let around = |bytes: usize| format!("{}\n{pem}", "x".repeat(bytes - pem.len() - 1));
    for (bytes, is_read) in [(65_536, true), (65_537, false)] {
        let too_long = CertificateError::TooLong { bytes, limit: 65_536 };
        let error = inspect(&around(bytes)).err();
        assert_eq!(error, (!is_read).then_some(too_long), "{bytes}");
    }
}
