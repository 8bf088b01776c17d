//! The pre-provisioning hook: an address that is asked, by HTTP, whether a device may be provisioned.

use provisioning::Parameters;
use serde::Deserialize;
use serde_json::Value;

use crate::fetch;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    allow_provisioning: bool,
    #[serde(default)]
    parameter_overrides: Option<Parameters>,
}

/// Asks; the answer is what the parameters become, or nothing if the device may not be provisioned.
///
/// # Errors
/// A text that says why there is no answer that can be used.
pub(super) async fn ask(target: &str, question: &Value) -> Result<Option<Parameters>, String> {
    let answered = fetch::post(target, question.to_string()).await;
    let body = answered.map_err(|error| error.to_string())?;
    let answer: Answer = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    Ok(answer.allow_provisioning.then(|| answer.parameter_overrides.unwrap_or_default()))
}
