//! Why a request is not taken to come from the owner of a key.

use thiserror::Error;
use time::OffsetDateTime;
use time::macros::format_description;

/// A request that is not signed, or not well. The messages are for the client; none of them tells
/// what a right signature would have been.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[allow(missing_docs, reason = "the messages say what each variant and value means")]
pub enum AuthError {
    #[error("Missing Authentication Token")]
    Missing,
    #[error("the signature's algorithm is not AWS4-HMAC-SHA256")]
    Algorithm,
    #[error("the signature has no usable {0}")]
    Incomplete(&'static str),
    #[error("the credential '{0}' is not <key>/<yyyymmdd>/<region>/<service>/aws4_request")]
    Scope(String),
    #[error("'host' must be a signed header")]
    HostNotSigned,
    #[error("X-Amz-Expires '{0}' is not a number of seconds from 1 to 604800")]
    Expires(String),
    #[error("X-Amz-Date '{0}' is not of the form yyyymmddThhmmssZ")]
    Date(String),
    #[error(
        "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP"
    )]
    ScopeDate,
    #[error(
        "Signature expired: {timestamp} is now earlier than {} ({} - {})",
        iso(.now_secs.saturating_sub(*.valid_secs)), iso(*.now_secs), length(*.valid_secs)
    )]
    Expired { timestamp: String, now_secs: u64, valid_secs: u64 },
    #[error(
        "Signature not yet current: {timestamp} is still later than {} ({} + {})",
        iso(.now_secs.saturating_add(*.skew_secs)), iso(*.now_secs), length(*.skew_secs)
    )]
    NotYet { timestamp: String, now_secs: u64, skew_secs: u64 },
    #[error("Credential should be scoped to a valid region, not '{given}'; here it is '{valid}'")]
    Region { given: String, valid: String },
    #[error("Credential should be scoped to correct service, not '{0}'")]
    Service(String),
    #[error(
        "Credential should be scoped to correct service, not '{0}': the control plane is on listeners.http, not here"
    )]
    ControlPlane(String),
    #[error("The security token included in the request is invalid: no access key '{0}'")]
    UnknownKey(String),
    #[error("The security token included in the request is invalid")]
    Token,
    #[error(
        "The security token included in the request is invalid: the session has ended, or is of another \
         installation; log in again with `skein login --renew`"
    )]
    EndedSession,
    #[error("The security token included in the request is expired")]
    ExpiredToken,
    #[error("the body does not have the SHA-256 that x-amz-content-sha256 says")]
    BodyHash,
    #[error(
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details."
    )]
    Signature,
}

impl AuthError {
    /// The name AWS gives the error; its status is 403.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing => "MissingAuthenticationTokenException",
            Self::UnknownKey(_) | Self::Token | Self::EndedSession => "UnrecognizedClientException",
            Self::ExpiredToken => "ExpiredTokenException",
            Self::Algorithm
            | Self::Incomplete(_)
            | Self::Scope(_)
            | Self::HostNotSigned
            | Self::Expires(_)
            | Self::Date(_) => "IncompleteSignatureException",
            _ => "InvalidSignatureException",
        }
    }
}

/// A time as requests have it.
fn iso(secs: u64) -> String {
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    let date = i64::try_from(secs).ok().and_then(|it| OffsetDateTime::from_unix_timestamp(it).ok());
    let written = date.and_then(|date| date.format(format).ok());
    written.unwrap_or_else(|| format!("{secs} s after 1970"))
}

/// A length of time as AWS writes it.
fn length(secs: u64) -> String {
    match secs % 60 {
        0 => format!("{} min.", secs / 60),
        _ => format!("{secs} s."),
    }
}
