//! AWS-IoT-compatible REST: control plane and data plane.
//!
//! A request is matched to its operation, its signature is checked ([`sigv4`]), its parameters are
//! read, the node carries it out ([`Backend`]), and the answer or [`Error`] goes back in the shape
//! the AWS SDKs expect. Whether a change is allowed by the state is decided in `fleet`, never here.

mod arn;
pub mod audit;
mod authorities;
pub mod authorizers;
pub mod backend;
mod billing_groups;
mod certificates;
mod config;
mod connections;
mod credentials;
mod dynamic_groups;
mod effective;
mod endpoint;
mod error;
mod events;
mod metrics;
pub mod openapi;
mod paging;
pub mod people;
mod policies;
mod principals;
mod properties;
pub mod provisioning;
mod publish;
pub mod registration_tasks;
mod request;
mod retained;
mod rights;
mod role_aliases;
mod routes;
mod service;
pub mod sessions;
mod shadows;
pub mod sigv4;
mod sts;
mod tagging;
mod templates;
mod thing_groups;
mod thing_types;
mod things;
mod throttle;
mod transfers;
pub mod x509;

pub use backend::{AuthorizedCaller, Backend, CertificateCaller, ServerName, Source, Unidentified};
pub use config::{Clock, Config, Endpoints};
pub use error::Error;
pub use properties::{Properties, PropertyError};
pub use rights::{Rights, Role};
pub use routes::DATA_SERVICES;
pub use service::{data_plane, router};
pub use throttle::Rates;
