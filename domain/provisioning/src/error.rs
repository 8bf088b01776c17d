//! What is wrong with a template, or with what it was given, and where.

use serde_json::Value;

/// Why a text is no template, or why it cannot be carried out with these parameters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{location}: {problem}")]
pub struct TemplateError {
    /// Such as `Resources.thing.Properties.ThingName`.
    pub location: String,
    /// Such as `parameter "SerialNumber" has no value and no default`.
    pub problem: String,
}

pub(crate) fn wrong(location: &str, problem: impl Into<String>) -> TemplateError {
    TemplateError { location: location.to_owned(), problem: problem.into() }
}

pub(crate) fn expected(location: &str, what: &str, found: &Value) -> TemplateError {
    let found = match found {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        // Templates are short; a parameter of a device may not be.
        scalar => scalar.to_string().chars().take(64).collect(),
    };
    wrong(location, format!("expected {what}, found {found}"))
}
