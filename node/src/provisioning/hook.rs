//! The pre-provisioning hook: an address that is asked, by HTTP, whether a device may be provisioned.

use std::sync::LazyLock;
use std::time::Duration;

use provisioning::Parameters;
use serde::Deserialize;
use serde_json::Value;

/// How long the answer may take, as with AWS.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of the answer.
const ANSWER_BYTES: usize = 64 * 1024;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    allow_provisioning: bool,
    #[serde(default)]
    parameter_overrides: Option<Parameters>,
}

/// Keeps connections to hooks open between devices. An address that sends elsewhere is not followed.
static CLIENT: LazyLock<Result<reqwest::Client, String>> = LazyLock::new(|| {
    let client =
        reqwest::Client::builder().timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none());
    client.build().map_err(|error| error.to_string())
});

/// Asks; the answer is what the parameters become, or nothing if the device may not be provisioned.
///
/// # Errors
/// A text that says why there is no answer that can be used.
pub(super) async fn ask(target: &str, question: &Value) -> Result<Option<Parameters>, String> {
    let client = CLIENT.as_ref().map_err(Clone::clone)?;
    let request = client.post(target).header("content-type", "application/json");
    let sent = request.body(question.to_string()).send().await;
    // An address may have a secret in it.
    let mut response = sent.map_err(|error| causes(&error.without_url()))?;
    if !response.status().is_success() {
        return Err(format!("status {}", response.status()));
    }
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|error| causes(&error.without_url()))? {
        if body.len() + part.len() > ANSWER_BYTES {
            return Err(format!("an answer of more than {ANSWER_BYTES} bytes"));
        }
        body.extend_from_slice(&part);
    }
    let answer: Answer = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    Ok(answer.allow_provisioning.then(|| answer.parameter_overrides.unwrap_or_default()))
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
