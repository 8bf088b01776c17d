//! X.509: reading certificates before they are registered and lists of those that were revoked, and issuing
//! new ones.
//!
//! The registry never parses a certificate; it is given the [`Inspected`] summary.

mod crl;
mod der;
mod inspect;
mod issuer;
mod signature;

#[cfg(test)]
mod tests;

use fleet::registry::CertificateId;
use sha2::{Digest, Sha256};
use thiserror::Error;

pub use crl::{InspectedList, LONGEST_LIST, ListError, inspect_list, is_list_signed_by, utc};
pub use inspect::{
    Inspected, InspectedAuthority, inspect, inspect_authority, inspect_der, is_signed_by,
    issuer_of, without_mark,
};
pub use issuer::{AuthorityKey, Issued, Issuer, KeyPair, PROBE, Scheme, Unsigned, certificate_pem};

/// Why a certificate, a request or an authority cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[allow(missing_docs, reason = "the messages say what each variant and value means")]
pub enum CertificateError {
    #[error("{bytes} bytes are too many; it can have {limit}")]
    TooLong { bytes: usize, limit: usize },
    #[error("the PEM text cannot be read: {0}")]
    Pem(String),
    #[error("the PEM text must hold exactly one {expected}, not {found}")]
    PemBlocks { expected: &'static str, found: String },
    #[error("the {what} is not valid DER: {reason}")]
    Der { what: &'static str, reason: String },
    #[error("{bits} bits are too few for an RSA key; at least 2048 are needed")]
    RsaBits { bits: usize },
    #[error("keys of the kind {0} are not supported; RSA, P-256, P-384 and P-521 are")]
    Key(String),
    #[error(
        "signatures of the kind {0} are not supported; SHA-256, SHA-384 and SHA-512 with RSA or ECDSA are"
    )]
    Signature(String),
    #[error("the request is not signed by its own key")]
    RequestSignature,
    #[error("an authority with a key of the kind {0} cannot sign here; RSA, P-256 and P-384 can")]
    AuthorityKey(String),
    #[error("the certificate is not one of a certificate authority")]
    NotAnAuthority,
    #[error("the private key is not usable: {0}")]
    PrivateKey(String),
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    #[error("signing failed: {0}")]
    Signing(Unsigned),
}

impl CertificateError {
    /// Whether what went wrong is not what was given.
    pub fn is_ours(&self) -> bool {
        matches!(self, Self::PrivateKey(_) | Self::KeyMismatch | Self::Signing(_))
    }
}

/// The id of a certificate: the SHA-256 of its DER form.
pub fn certificate_id(der: &[u8]) -> CertificateId {
    CertificateId::new(&hex::encode(Sha256::digest(der)))
        .expect("a SHA-256 in hex is a certificate id")
}
