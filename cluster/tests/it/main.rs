//! The groups of one node and of several, over simulated and real disks.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod chronicle;
mod cluster;
mod kill;
mod recorded;
mod simulation;
mod thread;
