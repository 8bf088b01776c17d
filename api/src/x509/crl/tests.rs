//! Lists byte by byte: which are taken, and what is said of the others.

use rcgen::{
    CertificateParams, CertificateRevocationListParams, DnType, Issuer, KeyIdMethod,
    KeyUsagePurpose, SerialNumber,
};

use super::super::der::{INTEGER, OCTET_STRING, context, extension, tagged};
use super::*;

/// 2026-01-01T00:00:00Z
const NOW: Timestamp = Timestamp(1_767_225_600_000);
const ECDSA_SHA256: &[u8] = &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
const ECDSA_SHA1: &[u8] = &[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1];
const TIMES: [&str; 2] = ["251231000000Z", "260201000000Z"];

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tagged(SEQUENCE, parts)
}

/// An extension of `id-ce`.
fn id_ce(number: u8, is_critical: bool, value: &[u8]) -> Vec<u8> {
    extension(&[6, 3, 0x55, 0x1d, number], is_critical, value)
}

fn entry(serial: &[u8], extensions: &[&[u8]]) -> Vec<u8> {
    let extensions = match extensions {
        [] => vec![],
        some => sequence(some),
    };
    sequence(&[&tagged(INTEGER, &[serial]), &time(TIMES[0]), &extensions])
}

fn time(utc: &str) -> Vec<u8> {
    tagged(super::super::der::UTC_TIME, &[utc.as_bytes()])
}

/// The parts of a list that a test may want otherwise.
struct Written {
    version: Vec<u8>,
    algorithms: [&'static [u8]; 2],
    times: Vec<&'static str>,
    entries: Vec<Vec<u8>>,
    extensions: Vec<Vec<u8>>,
}

impl Default for Written {
    fn default() -> Self {
        Self {
            version: tagged(INTEGER, &[&[1]]),
            algorithms: [ECDSA_SHA256; 2],
            times: TIMES.to_vec(),
            entries: vec![entry(&[5], &[])],
            extensions: vec![],
        }
    }
}

impl Written {
    fn extended(extension: Vec<u8>) -> Self {
        Self { extensions: vec![extension], ..Self::default() }
    }

    fn with(entry: Vec<u8>) -> Self {
        Self { entries: vec![entry], ..Self::default() }
    }

    fn der(&self) -> Vec<u8> {
        let joined = |all: &[Vec<u8>]| sequence(&all.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let [own, outer] = self.algorithms.map(|oid| sequence(&[oid]));
        let name = sequence(&[&tagged(
            0x31,
            &[&sequence(&[&[6, 3, 0x55, 4, 3], &tagged(0x0c, &[b"a CA"])])],
        )]);
        let times: Vec<_> = self.times.iter().flat_map(|it| time(it)).collect();
        let entries = if self.entries.is_empty() { vec![] } else { joined(&self.entries) };
        let extensions = match &*self.extensions {
            [] => vec![],
            some => tagged(context(0), &[&joined(some)]),
        };
        let signed = sequence(&[&self.version, &own, &name, &times, &entries, &extensions]);
        sequence(&[&signed, &outer, &[3, 2, 0, 1]])
    }

    fn inspect(&self) -> Result<InspectedList, ListError> {
        inspect_list(&self.der(), NOW)
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

#[test]
fn a_complete_list_is_read() {
    let reason = id_ce(21, false, &[0x0a, 1, 6]);
    let invalid = id_ce(24, false, &[&[0x18, 15][..], b"20251230000000Z"].concat());
    let written = Written {
        entries: vec![
            entry(&[0x7f; 20], &[&reason, &invalid]),
            entry(&[0, 0xff, 1], &[]),
            entry(&[5], &[]),
            entry(&[5], &[&reason]),
        ],
        extensions: vec![
            id_ce(20, false, &[2, 2, 0x10, 0]),
            id_ce(28, true, &ONLY_USERS),
            id_ce(35, true, &sequence(&[&[0x80, 1, 9]])),
            id_ce(46, false, &[5, 0]),
        ],
        ..Written::default()
    };
    let found = written.inspect().unwrap();
    assert_eq!(found.issuer_name, "CN=a CA");
    let list = &found.list;
    assert_eq!((utc(list.issued), list.imported), ("2025-12-31T00:00:00Z".into(), NOW));
    assert_eq!(list.next_update.map(utc).as_deref(), Some("2026-02-01T00:00:00Z"));
    assert_eq!((list.number.as_deref(), list.serials.len()), (Some("1000"), 3));
    for serial in [&[0x7f; 20][..], &[0xff, 1], &[5]] {
        assert!(list.serials.contains(serial), "{serial:?}");
    }
    let again = inspect_list(pem("X509 CRL", &written.der()).as_bytes(), NOW).unwrap();
    assert_eq!(again, found);
    // Of the first version of lists, as `openssl ca -gencrl` makes them by default; and an empty one.
    for written in [
        Written { version: vec![], ..Written::default() },
        Written { entries: vec![], ..Written::default() },
        Written { times: vec![TIMES[0]], ..Written::default() },
    ] {
        let found = written.inspect().unwrap();
        assert_eq!(found.list.serials.len(), written.entries.len());
        assert_eq!(found.list.next_update.is_some(), written.times.len() == 2);
    }
}

#[test]
fn what_is_not_understood_or_not_complete_is_refused() {
    let distribution_point = [0xa0, 9, 0xa0, 7, 0x86, 5, b'h', b't', b't', b'p', b':'];
    let removed = id_ce(21, false, &[0x0a, 1, 8]);
    let issuer = id_ce(29, true, &sequence(&[&[0x82, 1, b'a']]));
    let unknown = extension(&[6, 3, 0x2a, 3, 4], true, &[5, 0]);
    // Its own length is more than there is.
    let broken = tagged(SEQUENCE, &[&[6, 3, 0x55, 0x1d, 21], &tagged(OCTET_STRING, &[])[..1]]);
    for (written, expected) in [
        (Written::extended(id_ce(27, true, &[2, 1, 1])), "delta CRL"),
        (Written::extended(id_ce(28, true, &sequence(&[&[0x84, 1, 0xff]]))), "indirect CRL"),
        (Written::extended(id_ce(28, true, &sequence(&[&distribution_point]))), "only some"),
        (Written::extended(id_ce(28, true, &sequence(&[&[0x82, 1, 0xff]]))), "only some"),
        (Written::extended(id_ce(28, true, &sequence(&[&[0x83, 2, 1, 2]]))), "only some"),
        (Written::extended(id_ce(28, true, &[])), "only some"),
        (Written::extended(unknown.clone()), "critical extension 1.2.3.4"),
        (Written::extended(id_ce(20, false, &[4, 1, 1])), "CRL number"),
        (Written::extended(id_ce(20, false, &[&[2, 21, 1], &[1; 20][..]].concat())), "CRL number"),
        (Written::extended(vec![4, 1, 1]), "not valid DER"),
        (
            Written { extensions: vec![id_ce(20, false, &[2, 1, 1]); 2], ..Written::default() },
            "occurs twice",
        ),
        (Written::with(entry(&[0xab], &[&removed])), "certificate ab has the reason removeFromCRL"),
        (Written::with(entry(&[5], &[&issuer])), "indirect CRL"),
        (Written::with(entry(&[5], &[&unknown])), "critical extension 1.2.3.4"),
        (Written::with(entry(&[5], &[&id_ce(21, false, &[4, 1, 8])])), "reason of 05"),
        (Written::with(entry(&[5], &[&broken])), "entry 1"),
        (Written::with(entry(&[5], &[&[5, 0]])), "entry 1"),
        (
            Written {
                entries: vec![entry(&[5], &[]), sequence(&[&[2, 1, 1]])],
                ..Written::default()
            },
            "not valid DER",
        ),
        (
            Written::with(sequence(&[&[2, 1, 5], &time(TIMES[0]), &sequence(&[]), &[5, 0]])),
            "entry 1",
        ),
        (Written::with(entry(&[], &[])), "serial number"),
        (Written::with(entry(&[1; 21], &[])), "longer than the 20 bytes"),
        (Written { version: tagged(INTEGER, &[&[2]]), ..Written::default() }, "version"),
        (
            Written { algorithms: [ECDSA_SHA256, ECDSA_SHA1], ..Written::default() },
            "1.2.840.10045.4.1",
        ),
        (
            Written { algorithms: [ECDSA_SHA1, ECDSA_SHA256], ..Written::default() },
            "another algorithm",
        ),
        (Written { times: vec!["260101000501Z", TIMES[1]], ..Written::default() }, "not yet"),
        (
            Written { times: vec![TIMES[0], "260101000000Z"], ..Written::default() },
            "outdated since 2026-01-01T00:00:00Z",
        ),
    ] {
        let refused = written.inspect().map_err(|error| error.to_string());
        let text = refused.expect_err(expected);
        assert!(text.contains(expected), "{expected}: {text}");
    }
    // A clock may be a little ahead.
    Written { times: vec!["260101000459Z", TIMES[1]], ..Written::default() }.inspect().unwrap();
}

#[test]
fn a_file_is_one_list() {
    let der = Written::default().der();
    let two = pem("X509 CRL", &der).repeat(2);
    let with_more = [&der[..], &[0]].concat();
    for (file, expected) in [
        (&b"nonsense"[..], "cannot be read"),
        (&[], "cannot be read"),
        (&der[..der.len() - 1], "cannot be read"),
        (&with_more, "1 bytes follow it"),
        (two.as_bytes(), "exactly one X509 CRL, not 2 blocks"),
        (pem("CERTIFICATE", &der).as_bytes(), "exactly one X509 CRL, not CERTIFICATE"),
        (&vec![0; LONGEST_LIST + 1], "too many for a revocation list"),
    ] {
        let refused = inspect_list(file, NOW).unwrap_err().to_string();
        assert!(refused.contains(expected), "{expected}: {refused}");
    }
}

#[test]
fn serial_numbers_are_bounded() {
    let entries = |count: u32| {
        let serial = |number: u32| [&[1], &number.to_be_bytes()[..]].concat();
        let entries = (0..count).map(|number| entry(&serial(number), &[])).collect();
        Written { entries, ..Written::default() }
    };
    assert_eq!(entries(MOST_SERIALS as u32).inspect().unwrap().list.serials.len(), MOST_SERIALS);
    let refused = entries(MOST_SERIALS as u32 + 1).inspect().unwrap_err();
    let (count, limit) = (MOST_SERIALS + 1, MOST_SERIALS);
    assert_eq!(refused, ListError::TooManySerials { count, limit });
}

/// A certificate of an authority, and a list that it has signed.
fn signed(name: &str, key: &rcgen::KeyPair, usages: &[KeyUsagePurpose]) -> (String, Vec<u8>) {
    let mut params = CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = usages.to_vec();
    let pem = params.self_signed(key).unwrap().pem();
    params.key_usages.clear();
    let at = |day| rcgen::date_time_ymd(2025, 12, day);
    let list = CertificateRevocationListParams {
        this_update: at(1),
        next_update: at(1) + time::Duration::days(90),
        crl_number: SerialNumber::from(7),
        issuing_distribution_point: None,
        revoked_certs: vec![],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    (pem, list.signed_by(&Issuer::new(params, key)).unwrap().der().to_vec())
}

#[test]
fn a_list_is_its_authoritys_own() {
    let (one, other) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
    let (pem, list) = signed("CA", &one, &[]);
    let (both, _) = signed("CA", &one, &[KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign]);
    let (forger, _) = signed("CA", &other, &[]);
    let (renamed, _) = signed("another CA", &one, &[]);
    let (lacking, _) = signed("CA", &one, &[KeyUsagePurpose::KeyCertSign]);
    let found = inspect_list(&list, NOW).unwrap();
    assert_eq!(found.list.number.as_deref(), Some("7"));
    for (authority, expected) in [(&pem, true), (&both, true), (&forger, false), (&renamed, false)]
    {
        assert_eq!(is_list_signed_by(&list, authority), Ok(expected), "{authority}");
    }
    let subject = super::super::inspect_authority(&pem).unwrap().subject;
    assert_eq!(found.issuer, subject);
    let refused = is_list_signed_by(&list, &lacking).unwrap_err().to_string();
    assert!(refused.contains("lacks cRLSign"), "{refused}");
    let mut altered = list;
    let last = altered.len() - 80;
    altered[last] ^= 1;
    assert_ne!(is_list_signed_by(&altered, &pem), Ok(true));
}
