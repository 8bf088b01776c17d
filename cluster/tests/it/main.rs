//! The groups of one node, over simulated and real disks.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod chronicle;
mod kill;
mod recorded;
mod simulation;
mod thread;
