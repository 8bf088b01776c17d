//! Provisioning templates: what a new device gets, from what it says of itself.
//!
//! A [`Template`] is read once and checked, then evaluated with the parameters of each device to a
//! [`Plan`], which the registry carries out. Nothing is issued, read or written here.
//!
//! Invariant: what an evaluation makes is bounded, whatever its parameters are, and no parameter says
//! what a policy allows beyond the place that the template has for it.

mod bulk;
mod document;
mod error;
mod expression;
mod fields;
mod json;
mod resources;
mod scope;
mod template;

#[cfg(test)]
mod tests;

pub use bulk::{Line, LineError, Lines, MAX_LINE_BYTES, check_object_key};
pub use error::TemplateError;
pub use expression::certificate_parameters;
pub use resources::CertificateSource;
pub use template::{MAX_TEMPLATE_BYTES, Parameters, Plan, Purpose, Template, check_given};
