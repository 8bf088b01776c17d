//! What a responder says of the node's certificate (OCSP, RFC 6960), which handshakes show with it: clients
//! then need not ask by themselves.
//!
//! Who fetches it is the operator's business; here it is read from a file. Nobody but clients can judge who
//! signed it.

use std::fs;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use der::Decode;
use rustls::pki_types::CertificateDer;
use x509_ocsp::{BasicOcspResponse, CertStatus, OcspResponse, OcspResponseStatus};

/// A response that can be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Staple {
    /// In DER.
    pub(super) response: Vec<u8>,
    /// The second of the epoch from which on it is outdated.
    pub(super) until: i64,
}

/// Reads the response for a certificate that a file has.
pub(super) fn read(file: &Path, leaf: &CertificateDer<'_>, now: i64) -> anyhow::Result<Staple> {
    let place = || file.display().to_string();
    let response = fs::read(file).with_context(place)?;
    let until = judge(&response, leaf, now).with_context(place)?;
    Ok(Staple { response, until })
}

/// Until when a response says that a certificate is good.
pub(super) fn judge(response: &[u8], leaf: &CertificateDer<'_>, now: i64) -> anyhow::Result<i64> {
    let response = OcspResponse::from_der(response)
        .map_err(|error| anyhow!("it is no OCSP response in DER: {error}"))?;
    if response.response_status != OcspResponseStatus::Successful {
        bail!("the responder has answered {:?}", response.response_status);
    }
    let bytes = response.response_bytes.context("the response is empty")?;
    let basic = BasicOcspResponse::from_der(bytes.response.as_bytes())
        .map_err(|error| anyhow!("the response is not a basic one: {error}"))?;
    let (_, leaf) = x509_parser::parse_x509_certificate(leaf).context("the node's certificate")?;
    let is_it = |serial: &[u8]| trimmed(serial) == trimmed(leaf.raw_serial());
    let mut answers = basic.tbs_response_data.responses.iter();
    let answer = answers.find(|answer| is_it(answer.cert_id.serial_number.as_bytes()));
    let answer = answer.context("the response is not about the node's certificate")?;
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

fn trimmed(serial: &[u8]) -> &[u8] {
    &serial[serial.iter().take_while(|&&byte| byte == 0).count()..]
}
