//! The node's own authority for device certificates.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fleet::registry::{CertificateId, CertificateSummary, Timestamp};
use rcgen::{PublicKeyData, RsaKeySize};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::macros::format_description;
use x509_parser::asn1_rs::BitString;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo};

use super::der::{self, BIT_STRING, INTEGER, OCTET_STRING, SEQUENCE, SET, UTC_TIME, UTF8_STRING};
use super::signature::verify;
use super::{CertificateError, certificate_id, inspect};

/// AWS lets its certificates begin a little earlier, for devices whose clock is behind.
const BACKDATED_MS: u64 = 2 * 60 * 1000;
const NOT_AFTER: &[u8] = b"491231235959Z";
/// A certificate signing request in PEM: what it says is kept.
const REQUEST_BYTES: usize = 16 * 1024;
const COMMON_NAME: &[u8] = b"AWS IoT Certificate";

const OID_COMMON_NAME: &[u8] = &[0x06, 3, 0x55, 4, 3];
const OID_SUBJECT_KEY_IDENTIFIER: &[u8] = &[0x06, 3, 0x55, 29, 14];
const OID_KEY_USAGE: &[u8] = &[0x06, 3, 0x55, 29, 15];
const OID_BASIC_CONSTRAINTS: &[u8] = &[0x06, 3, 0x55, 29, 19];
const OID_AUTHORITY_KEY_IDENTIFIER: &[u8] = &[0x06, 3, 0x55, 29, 35];
/// keyUsage with nothing but digitalSignature.
const DIGITAL_SIGNATURE: &[u8] = &[BIT_STRING, 2, 7, 0x80];

const ECDSA_SHA256: &[u8] = &[SEQUENCE, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
const ECDSA_SHA384: &[u8] = &[SEQUENCE, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3];
const RSA_SHA256: &[u8] = &[SEQUENCE, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11, 5, 0];
const P256: &str = "1.2.840.10045.3.1.7";
const P384: &str = "1.3.132.0.34";
/// What a key signs to show that it belongs to a certificate.
pub const PROBE: &[u8] = b"the key of an authority";

/// How an authority signs: its kind of key says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// P-256.
    EcdsaSha256,
    /// P-384.
    EcdsaSha384,
    /// RSASSA-PKCS1-v1_5.
    RsaSha256,
}

impl Scheme {
    fn of(public: &SubjectPublicKeyInfo<'_>) -> Result<Self, CertificateError> {
        inspect::check_key(public)?;
        let curve = public.algorithm.parameters.as_ref().and_then(|it| it.as_oid().ok());
        match (public.parsed(), curve.map(|oid| oid.to_id_string()).as_deref()) {
            (Ok(PublicKey::EC(_)), Some(P256)) => Ok(Self::EcdsaSha256),
            (Ok(PublicKey::EC(_)), Some(P384)) => Ok(Self::EcdsaSha384),
            (Ok(PublicKey::RSA(_)), _) => Ok(Self::RsaSha256),
            (_, kind) => Err(CertificateError::AuthorityKey(kind.unwrap_or("other").to_owned())),
        }
    }

    /// The AlgorithmIdentifier, in DER.
    fn algorithm(self) -> &'static [u8] {
        match self {
            Self::EcdsaSha256 => ECDSA_SHA256,
            Self::EcdsaSha384 => ECDSA_SHA384,
            Self::RsaSha256 => RSA_SHA256,
        }
    }
}

/// The private key of an authority, which may be somewhere that never gives it away.
pub trait AuthorityKey: Send + Sync + 'static {
    /// Signs as X.509 has it: of ECDSA, `r` and `s` in DER. May take as long as a device of its own needs.
    ///
    /// # Errors
    /// Why not.
    fn sign(&self, scheme: Scheme, message: &[u8]) -> Result<Vec<u8>, Unsigned>;

    /// Told whether what it has signed shows that it belongs to the certificate of the authority.
    fn signed(&self, is_own: bool);
}

/// Why nothing is signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Unsigned {
    /// In words.
    pub why: String,
    /// Whether it stays so until somebody changes something.
    pub lasts: bool,
}

impl AuthorityKey for rcgen::KeyPair {
    fn sign(&self, _: Scheme, message: &[u8]) -> Result<Vec<u8>, Unsigned> {
        let failed = |error: rcgen::Error| Unsigned { why: error.to_string(), lasts: true };
        rcgen::SigningKey::sign(self, message).map_err(failed)
    }

    /// Whoever made the issuer is told.
    fn signed(&self, _: bool) {}
}

/// Signs device certificates with the key of an authority. Clones share the key.
#[derive(Clone)]
pub struct Issuer(Arc<Authority>);

struct Authority {
    key: Box<dyn AuthorityKey>,
    scheme: Scheme,
    /// The public key, in DER.
    public: Vec<u8>,
    /// The subject of the authority, byte for byte.
    name: Vec<u8>,
    key_identifier: Vec<u8>,
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Issuer")
    }
}

/// A certificate that was just signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// Its id.
    pub id: CertificateId,
    /// Its PEM form.
    pub pem: String,
    /// What the registry keeps of its contents.
    pub summary: CertificateSummary,
}

/// A new RSA key pair, for a device that cannot make its own.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// `BEGIN PUBLIC KEY`
    pub public_pem: String,
    /// `BEGIN RSA PRIVATE KEY`
    pub private_pem: String,
    public_der: Vec<u8>,
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").field("public_pem", &self.public_pem).finish_non_exhaustive()
    }
}

impl KeyPair {
    /// Makes a key pair of 2048 bits. Takes a good part of a second.
    pub fn generate() -> Result<Self, CertificateError> {
        let failed = |error: rcgen::Error| CertificateError::PrivateKey(error.to_string());
        let key = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)
            .map_err(failed)?;
        let pkcs8 = key.serialize_der();
        let pkcs1 = inner_key(&pkcs8)
            .ok_or_else(|| CertificateError::PrivateKey("not in PKCS #8".into()))?;
        Ok(Self {
            public_pem: key.public_key_pem(),
            private_pem: pem("RSA PRIVATE KEY", pkcs1),
            public_der: key.subject_public_key_info(),
        })
    }
}

impl Issuer {
    /// Takes the certificate and the private key of an authority.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, CertificateError> {
        let key = rcgen::KeyPair::from_pem(key_pem)
            .map_err(|error| CertificateError::PrivateKey(error.to_string()))?;
        let issuer = Self::new(certificate_pem, Box::new(key))?;
        issuer.prove(PROBE)?;
        Ok(issuer)
    }

    /// The same with a key that is elsewhere. Whether it belongs to the certificate shows with each
    /// signature.
    pub fn new(
        certificate_pem: &str,
        key: Box<dyn AuthorityKey>,
    ) -> Result<Self, CertificateError> {
        let der = inspect::only_block(certificate_pem, "CERTIFICATE", &["CERTIFICATE"])?;
        let certificate = inspect::parse(&der)?;
        if !certificate.is_ca() {
            return Err(CertificateError::NotAnAuthority);
        }
        let scheme = Scheme::of(certificate.public_key())?;
        let said = certificate.extensions().iter().find_map(|extension| {
            match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier.0.to_vec()),
                _ => None,
            }
        });
        let key_identifier = said.unwrap_or_else(|| key_identifier(certificate.public_key()));
        let name = certificate.subject().as_raw().to_vec();
        let public = certificate.public_key().raw.to_vec();
        Ok(Self(Arc::new(Authority { key, scheme, public, name, key_identifier })))
    }

    /// Has something signed, and looks whether that is by the key of the certificate.
    pub fn prove(&self, message: &[u8]) -> Result<Vec<u8>, CertificateError> {
        let Authority { key, scheme, public, .. } = &*self.0;
        let signature = key.sign(*scheme, message).map_err(CertificateError::Signing)?;
        let is_own = is_signature(public, *scheme, message, &signature);
        key.signed(is_own);
        if is_own { Ok(signature) } else { Err(CertificateError::KeyMismatch) }
    }

    /// Signs a certificate for a new key pair.
    pub fn issue(&self, key: &KeyPair, now: Timestamp) -> Result<Issued, CertificateError> {
        self.issue_until(key, now, NOT_AFTER)
    }

    /// The same, for so many milliseconds.
    pub(crate) fn issue_for(
        &self,
        key: &KeyPair,
        now: Timestamp,
        lasts_ms: u64,
    ) -> Result<Issued, CertificateError> {
        self.issue_until(key, now, &utc_time(now.0.saturating_add(lasts_ms)))
    }

    fn issue_until(
        &self,
        key: &KeyPair,
        now: Timestamp,
        not_after: &[u8],
    ) -> Result<Issued, CertificateError> {
        let (_, public) = SubjectPublicKeyInfo::from_der(&key.public_der)
            .map_err(|error| unreadable("public key", error))?;
        self.sign(&default_subject(), &public, now, not_after)
    }

    /// Signs a certificate for the key and the subject of a signing request; extensions that the
    /// request asks for are not taken over.
    pub fn issue_for_request(
        &self,
        request_pem: &str,
        now: Timestamp,
    ) -> Result<Issued, CertificateError> {
        let labels = &["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"];
        if request_pem.len() > REQUEST_BYTES {
            return Err(CertificateError::TooLong {
                bytes: request_pem.len(),
                limit: REQUEST_BYTES,
            });
        }
        let der = inspect::only_block(request_pem, "CERTIFICATE REQUEST", labels)?;
        let (_, request) = X509CertificationRequest::from_der(&der)
            .map_err(|error| unreadable("certificate request", error))?;
        let info = &request.certification_request_info;
        inspect::check_key(&info.subject_pki)?;
        verify(&info.subject_pki, &request.signature_algorithm, &request.signature_value, info.raw)
            .map_err(|_| CertificateError::RequestSignature)?;
        // A certificate without a subject would need a critical alternative name to be valid.
        if info.subject.iter().next().is_none() {
            return self.sign(&default_subject(), &info.subject_pki, now, NOT_AFTER);
        }
        self.sign(info.subject.as_raw(), &info.subject_pki, now, NOT_AFTER)
    }

    fn sign(
        &self,
        subject: &[u8],
        public: &SubjectPublicKeyInfo<'_>,
        now: Timestamp,
        not_after: &[u8],
    ) -> Result<Issued, CertificateError> {
        let authority = &*self.0;
        let version = der::tagged(der::context(0), &[&[INTEGER, 1, 2]]);
        let serial = der::tagged(INTEGER, &[&serial_number()]);
        let not_before = der::tagged(UTC_TIME, &[&utc_time(now.0.saturating_sub(BACKDATED_MS))]);
        let validity = der::tagged(SEQUENCE, &[&not_before, &der::tagged(UTC_TIME, &[not_after])]);
        let extensions = der::tagged(
            SEQUENCE,
            &[
                &der::extension(OID_BASIC_CONSTRAINTS, true, &der::tagged(SEQUENCE, &[])),
                &der::extension(OID_KEY_USAGE, true, DIGITAL_SIGNATURE),
                &der::extension(
                    OID_SUBJECT_KEY_IDENTIFIER,
                    false,
                    &der::tagged(OCTET_STRING, &[&key_identifier(public)]),
                ),
                &der::extension(
                    OID_AUTHORITY_KEY_IDENTIFIER,
                    false,
                    &der::tagged(SEQUENCE, &[&der::tagged(0x80, &[&authority.key_identifier])]),
                ),
            ],
        );
        let extensions = der::tagged(der::context(3), &[&extensions]);
        let contents = der::tagged(
            SEQUENCE,
            &[
                &version,
                &serial,
                authority.scheme.algorithm(),
                &authority.name,
                &validity,
                subject,
                public.raw,
                &extensions,
            ],
        );
        let signature = self.prove(&contents)?;
        let algorithm = authority.scheme.algorithm();
        let der = der::tagged(SEQUENCE, &[&contents, algorithm, &der::bits(&signature)]);
        let summary = inspect::summary(&inspect::parse(&der)?);
        Ok(Issued { id: certificate_id(&der), pem: pem("CERTIFICATE", &der), summary })
    }
}

fn is_signature(public: &[u8], scheme: Scheme, message: &[u8], signature: &[u8]) -> bool {
    let Ok((_, public)) = SubjectPublicKeyInfo::from_der(public) else { return false };
    let (_, algorithm) = AlgorithmIdentifier::from_der(scheme.algorithm()).expect("a constant");
    let signature = BitString::new(0, signature);
    verify(&public, &algorithm, &signature, message).is_ok()
}

/// `CN=AWS IoT Certificate`
fn default_subject() -> Vec<u8> {
    let name = [OID_COMMON_NAME, &der::tagged(UTF8_STRING, &[COMMON_NAME])];
    der::tagged(SEQUENCE, &[&der::tagged(SET, &[&der::tagged(SEQUENCE, &name)])])
}

fn unreadable(what: &'static str, error: impl fmt::Display) -> CertificateError {
    CertificateError::Der { what, reason: error.to_string() }
}

/// RFC 7093, method 1: the first 160 bits of the SHA-256 of the key.
fn key_identifier(public: &SubjectPublicKeyInfo<'_>) -> Vec<u8> {
    Sha256::digest(&public.subject_public_key.data)[..20].to_vec()
}

/// Random, positive, and without leading zeros.
fn serial_number() -> [u8; 16] {
    let mut serial: [u8; 16] = rand::random();
    serial[0] = serial[0] & 0x7f | 0x40;
    serial
}

fn utc_time(ms: u64) -> Vec<u8> {
    let format = format_description!("[year repr:last_two][month][day][hour][minute][second]Z");
    let seconds = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
    let time = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    time.format(format).expect("the format fits every date").into_bytes()
}

/// The RSAPrivateKey inside a PKCS #8 structure, as AWS hands out private keys.
fn inner_key(pkcs8: &[u8]) -> Option<&[u8]> {
    let (SEQUENCE, contents, []) = der::split(pkcs8)? else {
        return None;
    };
    let (_version, _, rest) = der::split(contents)?;
    let (_algorithm, _, rest) = der::split(rest)?;
    match der::split(rest)? {
        (OCTET_STRING, key, _) => Some(key),
        _ => None,
    }
}

/// A certificate in PEM.
pub fn certificate_pem(der: &[u8]) -> String {
    pem("CERTIFICATE", der)
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        pem.push('\n');
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}
