//! AWS IoT policy documents: variables, conditions, evaluation.
//!
//! A [`Document`] is parsed once, [`Compiled`] with what is known of a connection ([`Variables`]),
//! and then asked per publication. Which documents a principal has, and what a refusal does on the
//! wire, is decided elsewhere.
//!
//! Invariant: whatever cannot be decided (a variable without a value, a key that is missing, a value
//! of the wrong type) makes its statement not match, so it never allows anything.

mod action;
mod compiled;
mod condition;
mod date;
mod document;
mod explain;
mod glob;
mod json;
mod key;
mod template;
mod variables;

#[cfg(test)]
mod tests;

pub use action::Action;
pub use compiled::{Arns, Compiled, Decision, Request};
pub use document::{Document, MAX_DOCUMENT_CHARS, MalformedPolicy, check_length};
pub use explain::Spoken;
pub use variables::{CertificateVariables, ThingVariables, Variables, domain_name};
