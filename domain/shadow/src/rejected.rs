//! Refusals of the shadow service, with AWS's codes and texts.

use serde::Serialize;

/// Why a shadow request was refused: what goes to the `rejected` topic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code} {message}")]
pub struct Rejected {
    /// An HTTP status.
    pub code: u16,
    /// AWS's text for it.
    pub message: String,
    /// The request's token, if it could be read.
    pub client_token: Option<String>,
}

impl Rejected {
    /// A refusal without a token; see [`Rejected::with_token`].
    pub fn new(code: u16, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), client_token: None }
    }

    /// Says which request is meant.
    #[must_use]
    pub fn with_token(self, client_token: Option<&str>) -> Self {
        Self { client_token: client_token.map(str::to_owned), ..self }
    }

    /// 401: who asks is not known.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized")
    }

    /// 403: who asks may not.
    pub fn forbidden() -> Self {
        Self::new(403, "Forbidden")
    }

    /// 404: for operations that need the thing itself.
    pub fn thing_not_found() -> Self {
        Self::new(404, "Thing not found")
    }

    /// 404: `label` is the shadow's name, or the thing's for the classic shadow.
    pub fn no_shadow(label: &str) -> Self {
        Self::new(404, format!("No shadow exists with name: '{label}'"))
    }

    /// 413: the payload, or the document that would come of it, is too large.
    pub fn too_large() -> Self {
        Self::new(413, "The payload exceeds the maximum size allowed")
    }

    /// 429: too many requests per second, or too many unanswered ones.
    pub fn too_many_requests() -> Self {
        Self::new(429, "Too many requests")
    }

    /// 500: not the requester's fault.
    pub fn internal() -> Self {
        Self::new(500, "Internal service failure")
    }

    pub(crate) fn version_conflict() -> Self {
        Self::new(409, "Version conflict")
    }

    /// The payload for the `rejected` topic.
    pub fn to_json(&self, now_secs: u64) -> Vec<u8> {
        self.write(Some(now_secs), self.client_token.as_deref())
    }

    /// The body of a REST error: code and message.
    pub fn to_rest_json(&self) -> Vec<u8> {
        self.write(None, None)
    }

    fn write(&self, timestamp: Option<u64>, client_token: Option<&str>) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Body<'a> {
            code: u16,
            message: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            timestamp: Option<u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            client_token: Option<&'a str>,
        }
        let body = Body { code: self.code, message: &self.message, timestamp, client_token };
        serde_json::to_vec(&body).expect("strings and numbers serialise")
    }
}
