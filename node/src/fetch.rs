//! HTTP to addresses that operators have given: pre-provisioning hooks, custom authorizers, keys of
//! issuers.
//!
//! Bounds: an answer has five seconds and so many bytes. How many are asked at once is up to who asks.

use std::sync::LazyLock;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use thiserror::Error;

/// What every question carries: who has a node ask an address must not reach by it what trusts its
/// network, such as the admin listeners of nodes.
pub const ASKED_BY: HeaderName = HeaderName::from_static("x-skein-asked-by");

/// How long an answer may take, as with AWS.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of an answer.
const ANSWER_BYTES: usize = 64 * 1024;

/// Keeps connections open between questions. An address that sends elsewhere is not followed.
static CLIENT: LazyLock<Result<reqwest::Client, String>> =
    LazyLock::new(|| client().build().map_err(|error| error.to_string()));

fn client() -> reqwest::ClientBuilder {
    let says = HeaderMap::from_iter([(ASKED_BY, HeaderValue::from_static("function"))]);
    let client = reqwest::Client::builder().default_headers(says).timeout(TIMEOUT);
    client.redirect(reqwest::redirect::Policy::none())
}

/// A client that also trusts these CAs, in PEM, beside those of the machine.
///
/// # Errors
/// When they cannot be read, or there are none.
pub fn trusting(pem: &[u8]) -> Result<reqwest::Client, String> {
    let trusted = reqwest::Certificate::from_pem_bundle(pem).map_err(|error| causes(&error))?;
    if trusted.is_empty() {
        return Err("there is no certificate in PEM".into());
    }
    client().tls_certs_merge(trusted).build().map_err(|error| causes(&error))
}

/// Why there is no answer. Never says what was sent, nor the address, which may have a secret in it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NoAnswer {
    /// It took too long.
    #[error("no answer within {} seconds", TIMEOUT.as_secs())]
    Timeout,
    /// It is an error.
    #[error("status {0}")]
    Status(u16),
    /// It is too long.
    #[error("an answer of more than {ANSWER_BYTES} bytes")]
    TooLarge,
    /// Nobody could be asked.
    #[error("{0}")]
    Failed(String),
}

impl From<reqwest::Error> for NoAnswer {
    fn from(error: reqwest::Error) -> Self {
        if error.is_timeout() { Self::Timeout } else { Self::Failed(causes(&error.without_url())) }
    }
}

/// Sends JSON and gives the body of the answer.
pub async fn post(target: &str, question: String) -> Result<Vec<u8>, NoAnswer> {
    let client = CLIENT.as_ref().map_err(|error| NoAnswer::Failed(error.clone()))?;
    let request = client.post(target).header("content-type", "application/json");
    read(request.body(question).send().await?).await
}

/// Asks for what is there, with a client of one's own, if there is one.
pub async fn get(client: Option<&reqwest::Client>, target: &str) -> Result<Vec<u8>, NoAnswer> {
    let client = match client {
        Some(client) => client,
        None => CLIENT.as_ref().map_err(|error| NoAnswer::Failed(error.clone()))?,
    };
    read(client.get(target).send().await?).await
}

async fn read(response: reqwest::Response) -> Result<Vec<u8>, NoAnswer> {
    match response.status().is_success() {
        true => body(response).await,
        false => Err(NoAnswer::Status(response.status().as_u16())),
    }
}

/// What an answer says, whatever its status.
pub async fn body(mut response: reqwest::Response) -> Result<Vec<u8>, NoAnswer> {
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await? {
        if body.len() + part.len() > ANSWER_BYTES {
            return Err(NoAnswer::TooLarge);
        }
        body.extend_from_slice(&part);
    }
    Ok(body)
}

/// An error and what caused it: the outermost says little.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
