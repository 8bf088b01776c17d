//! Reading a certificate that is to be registered.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use fleet::registry::{CertificateId, CertificateNames, CertificateSummary, Timestamp};
use sha2::{Digest, Sha256};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::time::ASN1Time;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Name};

use super::signature::verify;
use super::{CertificateError, certificate_id};

/// The longest PEM text of a certificate, as with AWS: it is kept as it is given, with what stands around
/// the block.
const CERTIFICATE_BYTES: usize = 65_536;

/// A certificate that may be registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// Its id.
    pub id: CertificateId,
    /// Its DER form.
    pub der: Vec<u8>,
    /// What the registry keeps of its contents.
    pub summary: CertificateSummary,
}

/// Reads the one certificate in a PEM text and checks its key and its signature's algorithm.
pub fn inspect(pem: &str) -> Result<Inspected, CertificateError> {
    let (bytes, limit) = (pem.len(), CERTIFICATE_BYTES);
    if bytes > limit {
        return Err(CertificateError::TooLong { bytes, limit });
    }
    inspect_der(only_block(pem, "CERTIFICATE", &["CERTIFICATE", "X509 CERTIFICATE"])?)
}

/// As [`inspect`], of its DER form.
pub fn inspect_der(der: Vec<u8>) -> Result<Inspected, CertificateError> {
    let certificate = parse(&der)?;
    check_key(certificate.public_key())?;
    check_signature_algorithm(&certificate.signature_algorithm.algorithm.to_id_string())?;
    let summary = summary(&certificate);
    Ok(Inspected { id: certificate_id(&der), summary, der })
}

/// An authority that may be registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InspectedAuthority {
    /// Its id.
    pub id: CertificateId,
    /// First moment of its validity.
    pub not_before: Timestamp,
    /// Last moment of its validity.
    pub not_after: Timestamp,
    /// The SHA-256 of its subject, in hex.
    pub subject: String,
    /// The SHA-256 of its public key, in hex.
    pub key: String,
}

/// Reads the one certificate in a PEM text, which must be that of an authority.
pub fn inspect_authority(pem: &str) -> Result<InspectedAuthority, CertificateError> {
    let Inspected { id, der, summary } = inspect(pem)?;
    let certificate = parse(&der)?;
    if !certificate.is_ca() {
        return Err(CertificateError::NotAnAuthority);
    }
    Ok(InspectedAuthority {
        id,
        not_before: summary.not_before,
        not_after: summary.not_after,
        subject: fingerprint(certificate.subject().as_raw()),
        key: fingerprint(certificate.public_key().raw),
    })
}

/// The SHA-256, in hex, of the name of who signed a certificate.
pub fn issuer_of(der: &[u8]) -> Result<String, CertificateError> {
    Ok(fingerprint(parse(der)?.issuer().as_raw()))
}

/// Whether a certificate is signed with the key of an authority, and names it as its issuer.
pub fn is_signed_by(der: &[u8], authority_pem: &str) -> Result<bool, CertificateError> {
    let authority = only_block(authority_pem, "CERTIFICATE", &["CERTIFICATE", "X509 CERTIFICATE"])?;
    let (certificate, authority) = (parse(der)?, parse(&authority)?);
    let is_named = certificate.issuer().as_raw() == authority.subject().as_raw();
    let signed = certificate.tbs_certificate.as_ref();
    let (algorithm, signature) = (&certificate.signature_algorithm, &certificate.signature_value);
    Ok(is_named && verify(authority.public_key(), algorithm, signature, signed).is_ok())
}

pub(super) fn fingerprint(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The contents of the one block of a PEM text. A private key that somebody pasted along is an
/// error too, not silently dropped.
pub(super) fn only_block(
    pem: &str,
    expected: &'static str,
    labels: &[&str],
) -> Result<Vec<u8>, CertificateError> {
    let pem = without_mark(pem);
    let blocks = Pem::iter_from_buffer(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let blocks = blocks.map_err(|error| CertificateError::Pem(error.to_string()))?;
    match <[Pem; 1]>::try_from(blocks) {
        Ok([block]) if labels.contains(&block.label.as_str()) => Ok(block.contents),
        Ok([block]) => Err(CertificateError::PemBlocks { expected, found: block.label }),
        Err(blocks) => {
            let found = format!("{} blocks", blocks.len());
            Err(CertificateError::PemBlocks { expected, found })
        }
    }
}

/// A text without the mark that some editors put before UTF-8.
pub fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

pub(super) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    let what = "certificate";
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok((rest, _)) => {
            let reason = format!("{} bytes follow it", rest.len());
            Err(CertificateError::Der { what, reason })
        }
        Err(error) => Err(CertificateError::Der { what, reason: error.to_string() }),
    }
}

/// RSA of at least 2048 bits, or one of the NIST curves.
pub(super) fn check_key(key: &SubjectPublicKeyInfo<'_>) -> Result<(), CertificateError> {
    let kind = key.algorithm.algorithm.to_id_string();
    match key.parsed() {
        Ok(PublicKey::RSA(rsa)) => {
            let bits = rsa.key_size();
            if bits < 2048 { Err(CertificateError::RsaBits { bits }) } else { Ok(()) }
        }
        Ok(PublicKey::EC(_)) => {
            let curve = key.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
            match curve.map(|oid| oid.to_id_string()).as_deref() {
                Some("1.2.840.10045.3.1.7" | "1.3.132.0.34" | "1.3.132.0.35") => Ok(()),
                curve => Err(CertificateError::Key(curve.map_or("EC".into(), named))),
            }
        }
        Ok(_) => Err(CertificateError::Key(named(&kind))),
        Err(error) => Err(CertificateError::Der { what: "public key", reason: error.to_string() }),
    }
}

pub(super) fn check_signature_algorithm(oid: &str) -> Result<(), CertificateError> {
    match oid {
        // sha256/384/512WithRSAEncryption
        "1.2.840.113549.1.1.11" | "1.2.840.113549.1.1.12" | "1.2.840.113549.1.1.13"
        // dsa-with-sha256
        | "2.16.840.1.101.3.4.3.2"
        // ecdsa-with-SHA256/384/512
        | "1.2.840.10045.4.3.2" | "1.2.840.10045.4.3.3" | "1.2.840.10045.4.3.4" => Ok(()),
        other => Err(CertificateError::Signature(named(other))),
    }
}

/// An algorithm or a curve that is not taken, by its name, if it has one that people know.
pub(super) fn named(oid: &str) -> String {
    let name = match oid {
        "1.2.840.113549.1.1.2" => "MD2 with RSA",
        "1.2.840.113549.1.1.4" => "MD5 with RSA",
        "1.2.840.113549.1.1.5" | "1.3.14.3.2.29" => "SHA-1 with RSA",
        "1.2.840.113549.1.1.14" => "SHA-224 with RSA",
        "1.2.840.113549.1.1.10" => "RSA-PSS",
        "1.2.840.10040.4.1" => "DSA",
        "1.2.840.10040.4.3" => "SHA-1 with DSA",
        "1.2.840.10045.4.1" => "SHA-1 with ECDSA",
        "1.2.840.10045.4.3.1" => "SHA-224 with ECDSA",
        "1.3.101.110" => "X25519",
        "1.3.101.112" => "Ed25519",
        "1.3.101.113" => "Ed448",
        "1.3.132.0.10" => "secp256k1",
        "1.3.132.0.33" => "P-224",
        "1.2.840.10045.3.1.1" => "P-192",
        _ => return oid.to_owned(),
    };
    format!("{name} ({oid})")
}

pub(super) fn summary(certificate: &X509Certificate<'_>) -> CertificateSummary {
    let validity = certificate.validity();
    let mut names = CertificateNames {
        serial_number: Some(hex::encode(unsigned(certificate.raw_serial()))),
        subject: attributes(certificate.subject()),
        issuer: attributes(certificate.issuer()),
    };
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names_of) => {
                add_alternatives(&mut names.subject, &names_of.general_names);
            }
            ParsedExtension::IssuerAlternativeName(names_of) => {
                add_alternatives(&mut names.issuer, &names_of.general_names);
            }
            _ => {}
        }
    }
    CertificateSummary {
        not_before: timestamp(validity.not_before),
        not_after: timestamp(validity.not_after),
        names: Arc::new(names),
    }
}

/// A number without the zero in front that DER needs to keep it positive.
pub(super) fn unsigned(number: &[u8]) -> &[u8] {
    match number {
        [0, rest @ ..] if !rest.is_empty() => rest,
        number => number,
    }
}

pub(super) fn timestamp(time: ASN1Time) -> Timestamp {
    Timestamp(u64::try_from(time.timestamp()).unwrap_or(0).saturating_mul(1000))
}

/// The attributes of a name that policies know, in their order.
fn attributes(name: &X509Name<'_>) -> BTreeMap<String, Vec<String>> {
    let mut attributes = BTreeMap::<String, Vec<String>>::new();
    for attribute in name.iter_attributes() {
        let variable = match attribute.attr_type().to_id_string().as_str() {
            "2.5.4.3" => "CommonName",
            "2.5.4.4" => "Surname",
            "2.5.4.5" => "SerialNumber",
            "2.5.4.6" => "Country",
            "2.5.4.8" => "State",
            "2.5.4.10" => "Organization",
            "2.5.4.11" => "OrganizationalUnit",
            "2.5.4.12" => "Title",
            "2.5.4.42" => "GivenName",
            "2.5.4.43" => "Initials",
            "2.5.4.44" => "GenerationQualifier",
            "2.5.4.46" => "DistinguishedNameQualifier",
            "2.5.4.65" => "Pseudonym",
            _ => continue,
        };
        let value = attribute.as_str().map_or_else(
            |_| String::from_utf8_lossy(attribute.attr_value().data).into_owned(),
            ToOwned::to_owned,
        );
        attributes.entry(variable.to_owned()).or_default().push(value);
    }
    attributes
}

fn add_alternatives(names: &mut BTreeMap<String, Vec<String>>, found: &[GeneralName<'_>]) {
    for name in found {
        let (variable, value) = match name {
            GeneralName::RFC822Name(text) => ("RFC822Name", (*text).to_owned()),
            GeneralName::DNSName(text) => ("DNSName", (*text).to_owned()),
            GeneralName::DirectoryName(name) => ("DirectoryName", name.to_string()),
            GeneralName::URI(text) => ("UniformResourceIdentifier", (*text).to_owned()),
            GeneralName::IPAddress(bytes) => match ip_address(bytes) {
                Some(address) => ("IPAddress", address),
                None => continue,
            },
            _ => continue,
        };
        names.entry(format!("AlternativeName.{variable}")).or_default().push(value);
    }
}

fn ip_address(bytes: &[u8]) -> Option<String> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(bytes).to_string());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|bytes| Ipv6Addr::from(bytes).to_string())
}
