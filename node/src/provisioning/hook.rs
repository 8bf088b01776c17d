//! The pre-provisioning hook: an address that is asked, by HTTP, whether a device may be provisioned.

use provisioning::Parameters;
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use crate::fetch::{self, NoAnswer};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    allow_provisioning: bool,
    #[serde(default)]
    parameter_overrides: Option<Parameters>,
}

/// Why there is no answer that can be used. Says nothing of what it is about.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(super) enum Unusable {
    /// There is none.
    #[error("{0}")]
    None(NoAnswer),
    /// It cannot be read.
    #[error("the answer cannot be read, see its line {line}, column {column}")]
    Invalid {
        /// Where it cannot be read any more.
        line: usize,
        /// The same, in bytes.
        column: usize,
    },
}

impl Unusable {
    /// As a metric label, and in the words of a device.
    pub(super) fn told(&self) -> (&'static str, &'static str) {
        match self {
            Self::None(NoAnswer::Timeout) => {
                ("timeout", "the pre-provisioning hook did not answer in time")
            }
            Self::None(NoAnswer::Status(_) | NoAnswer::Failed(_)) => {
                ("failed", "the pre-provisioning hook could not be asked, or failed")
            }
            Self::None(NoAnswer::TooLarge) | Self::Invalid { .. } => {
                ("invalid_answer", "the pre-provisioning hook gave an answer that cannot be used")
            }
        }
    }
}

/// Asks; the answer is what the parameters become, or nothing if the device may not be provisioned.
///
/// # Errors
/// When there is no answer that can be used.
pub(super) async fn ask(target: &str, question: &Value) -> Result<Option<Parameters>, Unusable> {
    let body = fetch::post(target, question.to_string()).await.map_err(Unusable::None)?;
    let answer: Answer =
        // What the reader says of it would repeat parts of it.
        serde_json::from_slice(&body).map_err(|error| Unusable::Invalid {
            line: error.line(),
            column: error.column(),
        })?;
    Ok(answer.allow_provisioning.then(|| answer.parameter_overrides.unwrap_or_default()))
}
