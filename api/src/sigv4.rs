//! AWS Signature Version 4, the verifying side: pure, told the time, and told the body only by its
//! hash.
//!
//! [`Verifier::begin`] checks everything that needs no body (is the key known, the date near, the
//! scope right), so that bodies of strangers are never read; [`Claim::finish`] recomputes the
//! signature and compares it in constant time. Whose temporary credentials are used, somebody else
//! has to know ([`Claim::session_token`]).

mod canonical;
mod error;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use axum::http::request;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use time::PrimitiveDateTime;
use time::macros::format_description;

use crate::Rights;

pub(crate) use canonical::{decoded_query, pairs};
pub use error::AuthError;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// How far the clock of a client may be from ours.
const SKEW_SECS: u64 = 5 * 60;
/// The longest validity of a presigned URL.
const LONGEST_EXPIRY_SECS: u64 = 604_800;
/// A client signs this in place of a hash when it does not want its body covered.
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// A key that requests can be signed with.
#[derive(Clone)]
pub struct AccessKey {
    /// Its public name.
    pub id: String,
    /// What only its owner and this node know.
    pub secret: String,
    /// What its owner may do.
    pub rights: Arc<Rights>,
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A request as it came over the wire.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its path, percent-encoded as it came.
    pub path: &'a str,
    /// Its query without the question mark, as it came; empty when there is none.
    pub query: &'a str,
    /// Its headers in their order.
    pub headers: &'a [(&'a str, &'a [u8])],
}

impl<'a> Request<'a> {
    /// What a signature is checked on of a request that HTTP has read, with its [`headers`].
    pub(crate) fn of(parts: &'a request::Parts, headers: &'a [(&'a str, &'a [u8])]) -> Self {
        let (method, path) = (parts.method.as_str(), parts.uri.path());
        Self { method, path, query: parts.uri.query().unwrap_or_default(), headers }
    }
}

/// The headers of a request in their order.
pub(crate) fn headers(parts: &request::Parts) -> Vec<(&str, &[u8])> {
    parts.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
}

/// The SHA-256 of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyHash([u8; 32]);

impl BodyHash {
    /// Hashes a body.
    pub fn of(body: &[u8]) -> Self {
        Self(Sha256::digest(body).into())
    }
}

/// Who signed a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// The id of the access key.
    pub access_key: String,
    /// The service the request was signed for.
    pub service: String,
}

/// Knows the keys and what they may be scoped to.
#[derive(Clone, Debug)]
pub struct Verifier {
    keys: BTreeMap<String, AccessKey>,
    region: Option<String>,
    presigned_default_secs: u64,
}

impl Verifier {
    /// A verifier for these keys. Without a region, requests for every region are accepted.
    pub fn new(keys: impl IntoIterator<Item = AccessKey>, region: Option<String>) -> Self {
        let keys = keys.into_iter().map(|key| (key.id.clone(), key)).collect();
        Self { keys, region, presigned_default_secs: SKEW_SECS }
    }

    /// How long a presigned URL that does not say so is valid: the SDKs' WebSocket URLs do not.
    #[must_use]
    pub fn with_presigned_default_secs(mut self, seconds: u64) -> Self {
        self.presigned_default_secs = seconds;
        self
    }

    /// What the holder of an access key may do.
    pub fn rights(&self, access_key: &str) -> Option<Arc<Rights>> {
        self.keys.get(access_key).map(|key| Arc::clone(&key.rights))
    }

    /// Checks all but the signature itself: that the request is signed for one of these services,
    /// not too long ago, with a key that is known.
    pub fn begin(
        &self,
        request: &Request<'_>,
        services: &[&str],
        now_secs: u64,
    ) -> Result<Claim<'_>, AuthError> {
        let statement = Statement::read(request)?;
        statement.check_date(now_secs, self.presigned_default_secs)?;
        if let Some(valid) = self.region.as_ref().filter(|region| **region != statement.region) {
            return Err(AuthError::Region { given: statement.region, valid: valid.clone() });
        }
        if !services.contains(&statement.service.as_str()) {
            return Err(AuthError::Service(statement.service));
        }
        let key = self.keys.get(&statement.access_key);
        match (key, &statement.session_token) {
            (None, None) => return Err(AuthError::UnknownKey(statement.access_key)),
            // It is of other credentials: whoever sends it means to be somebody else.
            (Some(_), Some(_)) => return Err(AuthError::Token),
            _ => {}
        }
        Ok(Claim { statement, secret: key.map(|key| Cow::Borrowed(key.secret.as_str())) })
    }
}

/// A request that says who signed it; the signature is still to be checked.
pub struct Claim<'v> {
    statement: Statement,
    /// Not known yet of temporary credentials.
    secret: Option<Cow<'v, str>>,
}

impl fmt::Debug for Claim<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim")
            .field("access_key", &self.statement.access_key)
            .finish_non_exhaustive()
    }
}

impl Claim<'_> {
    /// The service the request is said to be signed for.
    pub fn service(&self) -> &str {
        &self.statement.service
    }

    /// The id of the access key that is said to be used.
    pub fn access_key(&self) -> &str {
        &self.statement.access_key
    }

    /// The token of the temporary credentials that are said to be used, while their secret is not
    /// known.
    pub fn session_token(&self) -> Option<&str> {
        self.statement.session_token.as_deref().filter(|_| self.secret.is_none())
    }

    /// The same, with the secret of the temporary credentials.
    #[must_use]
    pub fn with_secret(self, secret: String) -> Self {
        Self { secret: Some(Cow::Owned(secret)), ..self }
    }

    /// Checks the signature over the request and its body.
    pub fn finish(self, request: &Request<'_>, body: BodyHash) -> Result<Signer, AuthError> {
        let Self { statement, secret } = self;
        let secret = secret.ok_or(AuthError::Token)?;
        let payload = payload_hash(request, body)?;
        let signing_key = statement.signing_key(&secret);
        let is_signed = canonical::requests(request, &statement, &payload)
            .any(|canonical| statement.is_signature_of(&canonical, &signing_key));
        if !is_signed {
            return Err(AuthError::Signature);
        }
        Ok(Signer { access_key: statement.access_key, service: statement.service })
    }
}

/// What a request says about its signature.
#[derive(Debug)]
struct Statement {
    access_key: String,
    /// `yyyymmdd`
    date: String,
    region: String,
    service: String,
    /// `yyyymmddThhmmssZ`
    timestamp: String,
    signed_headers: String,
    signature: [u8; 32],
    is_presigned: bool,
    expires_secs: Option<u64>,
    session_token: Option<String>,
}

impl Statement {
    fn read(request: &Request<'_>) -> Result<Self, AuthError> {
        if let Some(authorization) = request.header("authorization") {
            return Self::from_header(request, authorization);
        }
        let parameters = canonical::decoded_query(request.query);
        let parameter = |name: &str| {
            parameters.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
        };
        match parameter("X-Amz-Algorithm") {
            None => Err(AuthError::Missing),
            Some(ALGORITHM) => Self::from_parts(Parts {
                credential: parameter("X-Amz-Credential"),
                timestamp: parameter("X-Amz-Date"),
                signed_headers: parameter("X-Amz-SignedHeaders"),
                signature: parameter("X-Amz-Signature"),
                is_presigned: true,
                expires: parameter("X-Amz-Expires"),
                session_token: parameter("X-Amz-Security-Token"),
            }),
            Some(_) => Err(AuthError::Algorithm),
        }
    }

    fn from_header(request: &Request<'_>, authorization: &str) -> Result<Self, AuthError> {
        let fields = authorization.strip_prefix(ALGORITHM).ok_or(AuthError::Algorithm)?;
        if !fields.starts_with(' ') {
            return Err(AuthError::Algorithm);
        }
        let field = |name: &str| {
            fields.split(',').find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='))
        };
        Self::from_parts(Parts {
            credential: field("Credential"),
            timestamp: request.header("x-amz-date"),
            signed_headers: field("SignedHeaders"),
            signature: field("Signature"),
            is_presigned: false,
            expires: None,
            session_token: request.header("x-amz-security-token"),
        })
    }

    fn from_parts(parts: Parts<'_>) -> Result<Self, AuthError> {
        let missing = AuthError::Incomplete;
        let credential = parts.credential.ok_or(missing("Credential"))?;
        let timestamp = parts.timestamp.ok_or(missing("X-Amz-Date"))?;
        let signed_headers = parts.signed_headers.ok_or(missing("SignedHeaders"))?;
        let signature = parts.signature.ok_or(missing("Signature"))?;
        let scope: Vec<&str> = credential.split('/').collect();
        // A key id never contains a slash, so the scope is the last four of exactly five parts.
        let [access_key, date, region, service, "aws4_request"] = scope[..] else {
            return Err(AuthError::Scope(credential.into()));
        };
        let names: Vec<&str> = signed_headers.split(';').collect();
        if !names.contains(&"host") {
            return Err(AuthError::HostNotSigned);
        }
        let is_canonical =
            |name: &&str| !name.is_empty() && !name.bytes().any(|byte| byte.is_ascii_uppercase());
        if !names.is_sorted() || !names.iter().all(is_canonical) {
            return Err(AuthError::Incomplete("SignedHeaders"));
        }
        let expires_secs = match parts.expires {
            None => None,
            Some(text) => match text.parse() {
                Ok(seconds @ 1..=LONGEST_EXPIRY_SECS) => Some(seconds),
                _ => return Err(AuthError::Expires(text.into())),
            },
        };
        let mut bytes = [0; 32];
        hex::decode_to_slice(signature, &mut bytes).map_err(|_| AuthError::Signature)?;
        Ok(Self {
            access_key: access_key.into(),
            date: date.into(),
            region: region.into(),
            service: service.into(),
            timestamp: timestamp.into(),
            signed_headers: signed_headers.into(),
            signature: bytes,
            is_presigned: parts.is_presigned,
            expires_secs,
            session_token: parts.session_token.filter(|token| !token.is_empty()).map(Into::into),
        })
    }

    fn check_date(&self, now_secs: u64, presigned_default_secs: u64) -> Result<(), AuthError> {
        let format = format_description!("[year][month][day]T[hour][minute][second]Z");
        let signed_at = PrimitiveDateTime::parse(&self.timestamp, format)
            .ok()
            .and_then(|date| u64::try_from(date.assume_utc().unix_timestamp()).ok())
            .ok_or_else(|| AuthError::Date(self.timestamp.clone()))?;
        if self.timestamp.get(..8) != Some(&self.date) {
            return Err(AuthError::ScopeDate);
        }
        if signed_at > now_secs + SKEW_SECS {
            let timestamp = self.timestamp.clone();
            return Err(AuthError::NotYet { timestamp, now_secs, skew_secs: SKEW_SECS });
        }
        let valid_secs = match (self.is_presigned, self.expires_secs) {
            (false, _) => SKEW_SECS,
            (true, Some(seconds)) => seconds,
            (true, None) => presigned_default_secs,
        };
        if now_secs > signed_at + valid_secs {
            let timestamp = self.timestamp.clone();
            return Err(AuthError::Expired { timestamp, now_secs, valid_secs });
        }
        Ok(())
    }

    fn signing_key(&self, secret: &str) -> [u8; 32] {
        let secret = format!("AWS4{secret}");
        let date = hmac(secret.as_bytes(), self.date.as_bytes());
        let region = hmac(&date, self.region.as_bytes());
        let service = hmac(&region, self.service.as_bytes());
        hmac(&service, b"aws4_request")
    }

    fn is_signature_of(&self, canonical_request: &str, signing_key: &[u8; 32]) -> bool {
        let Self { timestamp, date, region, service, .. } = self;
        let hash = hex::encode(Sha256::digest(canonical_request));
        let text =
            format!("{ALGORITHM}\n{timestamp}\n{date}/{region}/{service}/aws4_request\n{hash}");
        hmac(signing_key, text.as_bytes()).ct_eq(&self.signature).into()
    }
}

/// The parts of a signature, wherever they were.
struct Parts<'a> {
    credential: Option<&'a str>,
    timestamp: Option<&'a str>,
    signed_headers: Option<&'a str>,
    signature: Option<&'a str>,
    is_presigned: bool,
    expires: Option<&'a str>,
    session_token: Option<&'a str>,
}

impl<'a> Request<'a> {
    /// Whether it claims to be signed at all.
    pub fn is_signed(&self) -> bool {
        self.header("authorization").is_some() || self.query.contains("X-Amz-Algorithm=")
    }

    /// Whether it claims to be signed with SigV4: an `authorization` header may also be a token.
    pub(crate) fn is_signed_by_key(&self) -> bool {
        let is_of_sigv4 = |value: &str| value.starts_with("AWS4-");
        self.header("authorization").is_some_and(is_of_sigv4)
            || self.query.contains("X-Amz-Algorithm=")
    }

    /// The first header of this lower-case name.
    fn header(&self, name: &str) -> Option<&'a str> {
        let (_, value) = self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok().map(str::trim)
    }
}

/// What stands for the body in the canonical request: its hash, or what the client says of it.
fn payload_hash(request: &Request<'_>, body: BodyHash) -> Result<String, AuthError> {
    let actual = hex::encode(body.0);
    match request.header("x-amz-content-sha256") {
        Some(UNSIGNED) => Ok(UNSIGNED.into()),
        Some(said) if said != actual => Err(AuthError::BodyHash),
        _ => Ok(actual),
    }
}

pub(crate) fn hmac(key: &[u8], data: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(data);
    mac.finalize().into_bytes().into()
}
