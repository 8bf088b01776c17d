//! Reading a certificate revocation list (RFC 5280, section 5) that is to be imported.
//!
//! Only a list that says all about the certificates of the one who has signed it is taken: what is not
//! understood of it could be what matters.

use fleet::registry::{LONGEST_SERIAL, RevocationList, SerialNumbers, Timestamp};
use thiserror::Error;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::error::X509Error;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::{CertificateRevocationList, RevokedCertificate};
use x509_parser::x509::{ReasonCode, X509Version};

use super::CertificateError;
use super::der::{SEQUENCE, split};
use super::inspect::{
    check_signature_algorithm, fingerprint, named, only_block, parse, timestamp, unsigned,
};
use super::signature::verify;

/// The most serial numbers of a list.
const MOST_SERIALS: usize = 200_000;
/// The longest file: so many serial numbers, each with its date and its reason, in PEM.
pub const LONGEST_LIST: usize = 20 << 20;
/// How far the clock of an authority may be ahead.
const CLOCKS_DIFFER_MS: u64 = 5 * 60 * 1000;
/// `onlyContainsUserCerts` alone, and devices are users: nothing is left out that matters here.
const ONLY_USERS: [u8; 5] = [0x30, 0x03, 0x81, 0x01, 0xff];

/// Why a revocation list is not taken.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[allow(missing_docs, reason = "the messages say what each variant and value means")]
pub enum ListError {
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("{bytes} bytes are too many for a revocation list; it can have {limit}")]
    TooLong { bytes: usize, limit: usize },
    #[error("the file is text in UTF-16: save it as UTF-8, or as DER")]
    Utf16,
    #[error("the list has {count} serial numbers; it can have {limit}")]
    TooManySerials { count: usize, limit: usize },
    #[error("the serial number {0} is longer than the {LONGEST_SERIAL} bytes that it can have")]
    Serial(String),
    #[error("the CRL number is none, or longer than {LONGEST_SERIAL} bytes")]
    Number,
    #[error("the list is signed by another algorithm than it says")]
    Algorithms,
    #[error("an extension occurs twice")]
    Twice,
    #[error("it is a delta CRL, which says only what has changed: import the complete one")]
    Delta,
    #[error(
        "the certificate {0} has the reason removeFromCRL, which only delta CRLs have: import the \
         complete one"
    )]
    Removed(String),
    #[error("it is an indirect CRL: it has certificates of other CAs than the one that signed it")]
    Indirect,
    #[error(
        "it covers only some of the CA's certificates or reasons, as its issuingDistributionPoint \
         says: import a complete one"
    )]
    Partial,
    #[error(
        "the critical extension {0} is not known here, so it cannot be said what the list means"
    )]
    Critical(String),
    #[error("it was issued at {}, which is not yet: is a clock wrong?", utc(*.0))]
    NotYet(Timestamp),
    #[error("it is outdated since {}: import the newer one", utc(*.0))]
    Outdated(Timestamp),
    #[error("the key usage of the CA certificate {0} lacks cRLSign: it may not sign lists")]
    MayNotSign(String),
}

/// A revocation list that may be imported if a registered authority has signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InspectedList {
    /// Its DER form.
    pub der: Vec<u8>,
    /// The SHA-256 of the name of its issuer, in hex.
    pub issuer: String,
    /// The same name, for people.
    pub issuer_name: String,
    /// What the registry keeps of it.
    pub list: RevocationList,
}

/// Reads a list in PEM or in DER, which must be one that counts at this time.
pub fn inspect_list(file: &[u8], now: Timestamp) -> Result<InspectedList, ListError> {
    if file.len() > LONGEST_LIST {
        return Err(ListError::TooLong { bytes: file.len(), limit: LONGEST_LIST });
    }
    if file.starts_with(&[0xff, 0xfe]) || file.starts_with(&[0xfe, 0xff]) {
        return Err(ListError::Utf16);
    }
    let der = match std::str::from_utf8(file) {
        Ok(pem) if pem.contains("-----BEGIN ") => only_block(pem, "X509 CRL", &["X509 CRL"])?,
        _ => file.to_vec(),
    };
    // Before they are read: they take some room then.
    let entries = entries(&der)?;
    let read = read(&der)?;
    if read.version().is_some_and(|version| version != X509Version::V2) {
        return Err(malformed("version"));
    }
    check_signature_algorithm(&read.signature_algorithm.algorithm.to_id_string())?;
    if read.signature_algorithm != read.tbs_cert_list.signature {
        return Err(ListError::Algorithms);
    }
    let number = check_extensions(&read)?;
    let issued = timestamp(read.last_update());
    let next_update = read.next_update().map(timestamp);
    if issued.0 > now.0.saturating_add(CLOCKS_DIFFER_MS) {
        return Err(ListError::NotYet(issued));
    }
    if let Some(outdated) = next_update.filter(|at| *at <= now) {
        return Err(ListError::Outdated(outdated));
    }
    let found = &read.tbs_cert_list.revoked_certificates;
    if found.len() != entries.len() {
        return Err(malformed("list of entries"));
    }
    for (number, (entry, read)) in entries.iter().zip(found).enumerate() {
        if !is_whole(entry, read) {
            return Err(malformed(&format!("entry {}", number + 1)));
        }
        check_entry(read)?;
    }
    let serials = read.iter_revoked_certificates().map(|entry| unsigned(entry.raw_serial()));
    let serials = SerialNumbers::from_iter(serials);
    let list = RevocationList { issued, next_update, number, serials, imported: now };
    let issuer = read.issuer();
    let (issuer, issuer_name) = (fingerprint(issuer.as_raw()), issuer.to_string());
    Ok(InspectedList { issuer, issuer_name, list, der })
}

/// Whether a list is signed with the key of an authority, and names it as its issuer.
pub fn is_list_signed_by(der: &[u8], authority_pem: &str) -> Result<bool, ListError> {
    let pem = only_block(authority_pem, "CERTIFICATE", &["CERTIFICATE", "X509 CERTIFICATE"])?;
    let (list, authority) = (read(der)?, parse(&pem)?);
    if list.issuer().as_raw() != authority.subject().as_raw() {
        return Ok(false);
    }
    let signed = list.tbs_cert_list.as_ref();
    match verify(authority.public_key(), &list.signature_algorithm, &list.signature_value, signed) {
        Ok(()) => {}
        Err(X509Error::SignatureUnsupportedAlgorithm) => {
            let kind = named(&list.signature_algorithm.algorithm.to_id_string());
            return Err(CertificateError::Signature(kind).into());
        }
        Err(_) => return Ok(false),
    }
    // Who says nothing about the use of its key may do everything with it.
    let usage = authority.key_usage().map_err(|_| malformed("key usage"))?;
    match usage.is_none_or(|usage| usage.value.crl_sign()) {
        true => Ok(true),
        false => Err(ListError::MayNotSign(super::certificate_id(&pem).to_string())),
    }
}

fn read(der: &[u8]) -> Result<CertificateRevocationList<'_>, ListError> {
    let what = "revocation list";
    match CertificateRevocationList::from_der(der) {
        Ok(([], list)) => Ok(list),
        Ok((rest, _)) => {
            let reason = format!("{} bytes follow it", rest.len());
            Err(CertificateError::Der { what, reason }.into())
        }
        Err(error) => Err(CertificateError::Der { what, reason: error.to_string() }.into()),
    }
}

fn malformed(what: &str) -> ListError {
    let reason = format!("the {what} cannot be read");
    CertificateError::Der { what: "revocation list", reason }.into()
}

/// The values one after another; none at the end of what is not DER.
fn parts(mut der: &[u8]) -> impl Iterator<Item = Option<(u8, &[u8])>> {
    std::iter::from_fn(move || {
        if der.is_empty() {
            return None;
        }
        let found = split(der);
        der = found.map_or(&[], |(_, _, rest)| rest);
        Some(found.map(|(tag, contents, _)| (tag, contents)))
    })
}

/// The entries of a list, as many as there may be.
fn entries(der: &[u8]) -> Result<Vec<&[u8]>, ListError> {
    let signed = split(der).and_then(|(_, list, _)| split(list));
    let (_, signed, _) = signed.ok_or_else(|| malformed("signed part"))?;
    // The algorithm and the issuer come first.
    let revoked = parts(signed).flatten().filter(|(tag, _)| *tag == SEQUENCE).nth(2);
    let Some((_, revoked)) = revoked else { return Ok(Vec::new()) };
    let count = parts(revoked).count();
    if count > MOST_SERIALS {
        return Err(ListError::TooManySerials { count, limit: MOST_SERIALS });
    }
    let entry = |part: Option<(u8, _)>| part.map(|(_, contents)| contents);
    parts(revoked).map(entry).collect::<Option<_>>().ok_or_else(|| malformed("list of entries"))
}

/// Whether all of an entry was read: the parser takes one whose extensions it cannot read for one without.
fn is_whole(entry: &[u8], read: &RevokedCertificate<'_>) -> bool {
    let mut extensions = parts(entry).skip(2);
    match extensions.next() {
        None => read.extensions().is_empty(),
        Some(Some((SEQUENCE, of))) => {
            extensions.next().is_none() && parts(of).count() == read.extensions().len()
        }
        Some(_) => false,
    }
}

/// The extensions of a list are such that it is complete; gives its number.
fn check_extensions(list: &CertificateRevocationList<'_>) -> Result<Option<Box<str>>, ListError> {
    list.tbs_cert_list.extensions_map().map_err(|_| ListError::Twice)?;
    let mut number = None;
    for extension in list.extensions() {
        match (extension.oid.to_id_string().as_str(), extension.parsed_extension()) {
            ("2.5.29.20", ParsedExtension::CRLNumber(found))
                if found.to_bytes_be().len() <= LONGEST_SERIAL =>
            {
                number = Some(found.to_str_radix(16).into());
            }
            ("2.5.29.20", _) => return Err(ListError::Number),
            ("2.5.29.27", _) => return Err(ListError::Delta),
            ("2.5.29.28", _) if extension.value == ONLY_USERS => {}
            ("2.5.29.28", ParsedExtension::IssuingDistributionPoint(it)) if it.indirect_crl => {
                return Err(ListError::Indirect);
            }
            ("2.5.29.28", _) => return Err(ListError::Partial),
            // Whose key has signed it is found by trying.
            ("2.5.29.35", _) => {}
            (oid, _) if extension.critical => return Err(ListError::Critical(oid.to_owned())),
            _ => {}
        }
    }
    Ok(number)
}

fn check_entry(entry: &RevokedCertificate<'_>) -> Result<(), ListError> {
    let serial = unsigned(entry.raw_serial());
    let named = || hex::encode(serial);
    if serial.is_empty() {
        return Err(malformed("serial number"));
    }
    if serial.len() > LONGEST_SERIAL {
        return Err(ListError::Serial(named()));
    }
    for extension in entry.extensions() {
        match (extension.oid.to_id_string().as_str(), extension.parsed_extension()) {
            ("2.5.29.21", ParsedExtension::ReasonCode(ReasonCode::RemoveFromCRL)) => {
                return Err(ListError::Removed(named()));
            }
            ("2.5.29.21", ParsedExtension::ReasonCode(_)) => {}
            ("2.5.29.21", _) => return Err(malformed(&format!("reason of {}", named()))),
            ("2.5.29.24", _) => {}
            ("2.5.29.29", _) => return Err(ListError::Indirect),
            (oid, _) if extension.critical => return Err(ListError::Critical(oid.to_owned())),
            _ => {}
        }
    }
    Ok(())
}

/// A time as people and programs read it.
pub fn utc(at: Timestamp) -> String {
    let seconds = i64::try_from(at.0 / 1000).ok();
    let date = seconds.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    let written = date.and_then(|date| date.format(&Rfc3339).ok());
    written.unwrap_or_else(|| format!("{} ms after 1970", at.0))
}

#[cfg(test)]
mod tests;
