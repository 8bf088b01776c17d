//! Whole nodes in one thread.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod sessions;
