//! Links between nodes of one process: loopback, real TLS, real certificates.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod cut;
mod delivery;
mod handshake;
mod names;
mod support;
