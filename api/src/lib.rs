//! AWS-IoT-compatible REST: control plane and data plane.
//!
//! Requests are checked here (signature, route, parameters), carried out by the node through
//! [`Backend`], and answered in the shapes the AWS SDKs expect.

pub mod backend;

pub use backend::Backend;
