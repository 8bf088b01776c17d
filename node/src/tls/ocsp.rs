//! What a responder says of the node's certificate (OCSP, RFC 6960), which handshakes show with it: clients
//! then need not ask by themselves.
//!
//! Who fetches it is the operator's business; here it is read from a file. Where the chain of the node has
//! the certificate's issuer, as it has where an intermediate CA is the issuer, it is looked whether the
//! response comes from there; else only clients can judge that.

use std::fs;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use aws_lc_rs::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384, SHA512};
use der::Decode;
use der::asn1::ObjectIdentifier;
use rustls::pki_types::CertificateDer;
use x509_ocsp::{BasicOcspResponse, CertId, CertStatus, OcspResponse, OcspResponseStatus};
use x509_parser::asn1_rs::{Any, BitString, FromDer, Sequence};
use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;
use x509_parser::verify::verify_signature;
use x509_parser::x509::AlgorithmIdentifier;

/// The functions that a response may name an issuer with.
const DIGESTS: [(ObjectIdentifier, &digest::Algorithm); 4] = [
    (ObjectIdentifier::new_unwrap("1.3.14.3.2.26"), &SHA1_FOR_LEGACY_USE_ONLY),
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1"), &SHA256),
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2"), &SHA384),
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3"), &SHA512),
];

/// A response that can be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Staple {
    /// In DER.
    pub(super) response: Vec<u8>,
    /// The second of the epoch from which on it is outdated.
    pub(super) until: i64,
}

/// Reads the response for the first certificate of a chain that a file has.
pub(super) fn read(file: &Path, chain: &[CertificateDer<'_>], now: i64) -> anyhow::Result<Staple> {
    let place = || file.display().to_string();
    let response = fs::read(file).with_context(place)?;
    let until = judge(&response, chain, now).with_context(place)?;
    Ok(Staple { response, until })
}

/// Until when a response says that the first certificate of a chain is good.
pub(super) fn judge(
    response: &[u8],
    chain: &[CertificateDer<'_>],
    now: i64,
) -> anyhow::Result<i64> {
    let response = OcspResponse::from_der(response)
        .map_err(|error| anyhow!("it is no OCSP response in DER: {error}"))?;
    if response.response_status != OcspResponseStatus::Successful {
        bail!("the responder has answered {:?}", response.response_status);
    }
    let bytes = response.response_bytes.context("the response is empty")?;
    let basic = BasicOcspResponse::from_der(bytes.response.as_bytes())
        .map_err(|error| anyhow!("the response is not a basic one: {error}"))?;
    let chain = chain.iter().map(|der| Ok(x509_parser::parse_x509_certificate(der)?.1));
    let chain: Vec<_> = chain.collect::<anyhow::Result<_>>().context("the node's certificate")?;
    let leaf = chain.first().context("the node has no certificate")?;
    let issuer = issuer_of(leaf, &chain);
    let mut why = "the serial number is another one";
    let answer = basic.tbs_response_data.responses.iter().find(|answer| {
        match is_about(&answer.cert_id, leaf, issuer) {
            Ok(is_it) => is_it,
            Err(other) => {
                why = other;
                false
            }
        }
    });
    let answer = answer
        .with_context(|| format!("the response is not about the node's certificate: {why}"))?;
    if let Some(issuer) = issuer {
        check_signer(bytes.response.as_bytes(), issuer, now)?;
    }
    match answer.cert_status {
        CertStatus::Good(_) => {}
        CertStatus::Revoked(_) => bail!("the responder says that the certificate is revoked"),
        CertStatus::Unknown(_) => bail!("the responder does not know the certificate"),
    }
    let seconds = |time: &x509_ocsp::OcspGeneralizedTime| {
        i64::try_from(time.0.to_unix_duration().as_secs()).unwrap_or(i64::MAX)
    };
    if seconds(&answer.this_update) > now {
        bail!("the response is not valid yet");
    }
    // Nobody could tell when one without an end is outdated.
    let until = answer.next_update.as_ref().map(seconds);
    let until = until.context("the response does not say when there is a newer one")?;
    if until <= now {
        bail!("the response is outdated since second {until} of the epoch: fetch a new one");
    }
    Ok(until)
}

/// The certificate of a chain that has signed another one.
fn issuer_of<'a, 'b>(
    leaf: &X509Certificate<'_>,
    chain: &'b [X509Certificate<'a>],
) -> Option<&'b X509Certificate<'a>> {
    chain.iter().find(|candidate| {
        candidate.subject().as_raw() == leaf.issuer().as_raw()
            && is_signed(leaf.verify_signature(Some(candidate.public_key())))
    })
}

/// Whether a response names this certificate: false where the serial number is another one, an error
/// where only that is right.
fn is_about(
    named: &CertId,
    leaf: &X509Certificate<'_>,
    issuer: Option<&X509Certificate<'_>>,
) -> Result<bool, &'static str> {
    if trimmed(named.serial_number.as_bytes()) != trimmed(leaf.raw_serial()) {
        return Ok(false);
    }
    let function = DIGESTS.iter().find(|(oid, _)| *oid == named.hash_algorithm.oid);
    let (_, function) = function.ok_or("it names the issuer by a hash that is not known here")?;
    let is = |hash: &[u8], of: &[u8]| digest::digest(function, of).as_ref() == hash;
    if !is(named.issuer_name_hash.as_bytes(), leaf.issuer().as_raw()) {
        return Err("the issuer has another name");
    }
    let is_of_key = issuer.is_none_or(|issuer| {
        is(named.issuer_key_hash.as_bytes(), &issuer.public_key().subject_public_key.data)
    });
    if is_of_key { Ok(true) } else { Err("the issuer has another key") }
}

/// Whether an issuer has signed a response, or a responder that it has made one by a certificate which
/// comes with it.
fn check_signer(basic: &[u8], issuer: &X509Certificate<'_>, now: i64) -> anyhow::Result<()> {
    let (_, whole) = Sequence::from_der(basic)?;
    let content: &[u8] = &whole.content;
    let (rest, _) = Any::from_der(content)?;
    let signed = &content[..content.len() - rest.len()];
    let (rest, algorithm) = AlgorithmIdentifier::from_der(rest)?;
    let (rest, signature) = BitString::from_der(rest)?;
    let is_by = |signer: &X509Certificate<'_>| {
        is_signed(verify_signature(signer.public_key(), &algorithm, &signature, signed))
    };
    if is_by(issuer) {
        return Ok(());
    }
    let mut why = "neither the issuer of the node's certificate has signed the response, nor a \
                   responder whose certificate comes with it";
    if !rest.is_empty() {
        let (_, tagged) = Any::from_der(rest)?;
        let (_, list) = Sequence::from_der(tagged.data)?;
        let mut rest: &[u8] = &list.content;
        while !rest.is_empty() {
            let (after, responder) = X509Certificate::from_der(rest)?;
            rest = after;
            if !is_by(&responder) {
                continue;
            }
            match trust(&responder, issuer, now) {
                Ok(()) => return Ok(()),
                Err(other) => why = other,
            }
        }
    }
    bail!("{why}")
}

/// Whether an issuer lets a responder speak for it.
fn trust(
    responder: &X509Certificate<'_>,
    issuer: &X509Certificate<'_>,
    now: i64,
) -> Result<(), &'static str> {
    let usage = responder.extended_key_usage().ok().flatten();
    if responder.issuer().as_raw() != issuer.subject().as_raw()
        || !is_signed(responder.verify_signature(Some(issuer.public_key())))
    {
        return Err("the responder's certificate is not of the issuer of the node's certificate");
    }
    if !usage.is_some_and(|usage| usage.value.ocsp_signing) {
        return Err("the responder's certificate is not for signing OCSP responses");
    }
    let validity = responder.validity();
    if !(validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now) {
        return Err("the responder's certificate is not valid now");
    }
    Ok(())
}

/// What cannot be checked here, such as Ed448, clients may be able to.
fn is_signed(checked: Result<(), X509Error>) -> bool {
    matches!(checked, Ok(()) | Err(X509Error::SignatureUnsupportedAlgorithm))
}

fn trimmed(serial: &[u8]) -> &[u8] {
    &serial[serial.iter().take_while(|&&byte| byte == 0).count()..]
}
