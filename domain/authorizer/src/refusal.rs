//! Why a client is not let in.

use thiserror::Error;

/// What keeps a client out. Each has a label for metrics, and a remedy for the log where somebody
/// other than the client has to mend something.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// There is none with the name that the client gives.
    #[error("there is no such authorizer")]
    NotFound,
    /// It exists, but is not to be asked.
    #[error("the authorizer is not active")]
    Inactive,
    /// It is not there any more, or not active any more.
    #[error("the authorizer that let it in is not active any more")]
    Withdrawn,
    /// The client has presented no token.
    #[error("no token is presented")]
    NoToken,
    /// The client has presented a token without a signature.
    #[error("the token has no signature")]
    NoSignature,
    /// No key of the authorizer has made the signature.
    #[error("no key of the authorizer has signed the token")]
    BadSignature,
    /// What the client presents is no text, or too large.
    #[error("what is presented cannot be read, or is too large")]
    Unreadable,
    /// As many clients wait for authorizers as may.
    #[error("too many clients wait for authorizers")]
    Busy,
    /// It did not answer in time.
    #[error("the authorizer did not answer in time")]
    Timeout,
    /// It could not be asked, or answered with an error.
    #[error("the authorizer could not be asked")]
    Failed,
    /// Its answer is not one.
    #[error("the answer of the authorizer is not valid")]
    InvalidAnswer,
    /// It does not know the client.
    #[error("the authorizer did not authenticate the client")]
    NotAuthenticated,
    /// What it shows is no token that an issuer has given it, or not of this time.
    #[error("the token is not valid")]
    InvalidToken,
    /// The keys of the issuer are not known.
    #[error("the keys of the issuer cannot be had")]
    NoKeys,
    /// This node knows no issuer with the name that the authorizer gives.
    #[error("the issuer is not in the configuration of this node")]
    NotConfigured,
    /// The registry cannot be read now.
    #[error("the registry cannot be read now")]
    Unavailable,
}

impl Refusal {
    /// Every one, for metrics that are there from the start.
    pub const ALL: [Self; 16] = [
        Self::NotFound,
        Self::Inactive,
        Self::Withdrawn,
        Self::NoToken,
        Self::NoSignature,
        Self::BadSignature,
        Self::Unreadable,
        Self::Busy,
        Self::Timeout,
        Self::Failed,
        Self::InvalidAnswer,
        Self::NotAuthenticated,
        Self::InvalidToken,
        Self::NoKeys,
        Self::NotConfigured,
        Self::Unavailable,
    ];

    /// As a metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Inactive => "inactive",
            Self::Withdrawn => "withdrawn",
            Self::NoToken => "no_token",
            Self::NoSignature => "no_signature",
            Self::BadSignature => "bad_signature",
            Self::Unreadable => "unreadable",
            Self::Busy => "busy",
            Self::Timeout => "timeout",
            Self::Failed => "failed",
            Self::InvalidAnswer => "invalid_answer",
            Self::NotAuthenticated => "not_authenticated",
            Self::InvalidToken => "invalid_token",
            Self::NoKeys => "no_keys",
            Self::NotConfigured => "not_configured",
            Self::Unavailable => "unavailable",
        }
    }

    /// Whether the client may try again as it is, and be let in.
    pub fn is_passing(self) -> bool {
        matches!(self, Self::Busy | Self::Unavailable)
    }

    /// Whether nobody has decided about the client, because the authorizer could not be asked or did not
    /// answer.
    pub fn is_undecided(self) -> bool {
        matches!(self, Self::Busy | Self::Timeout | Self::Failed | Self::Unavailable)
    }

    /// What helps, in the words of who operates the node.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::NotFound => "create the authorizer, or correct x-amz-customauthorizer-name",
            Self::Inactive | Self::Withdrawn => "set its status to ACTIVE with UpdateAuthorizer",
            Self::NoToken => "present the token under the authorizer's tokenKeyName",
            Self::NoSignature => "present x-amz-customauthorizer-signature beside the token",
            Self::BadSignature => {
                "sign with RSA-SHA256 and a key of tokenSigningPublicKeys; encode it for URLs"
            }
            Self::Unreadable => "send less, and texts in UTF-8",
            Self::Busy => "is the authorizer slow? give its function more room",
            Self::Timeout => "the function has 5 seconds: is it reachable, is it slow?",
            Self::Failed => "see detail; is authorizerFunctionArn right, does it answer 200?",
            Self::InvalidAnswer => "mend the function; TestInvokeAuthorizer shows what is wrong",
            Self::NotAuthenticated => "the client needs other credentials",
            Self::InvalidToken => "see detail; the client needs another token of the issuer",
            Self::NoKeys => "is jwks of the issuer right, and reachable from this node?",
            Self::NotConfigured => "add it to jwt_issuers on every node, and restart",
            Self::Unavailable => "the registry has no leader now",
        }
    }
}
