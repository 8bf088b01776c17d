//! What users are promised, checked on real processes. See the crate's documentation.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod checkpoint;
mod cluster;
mod damage;
mod drain;
mod full;
mod kill;
mod shadows;
mod takeover;
mod wills;
