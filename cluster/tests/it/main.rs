//! The groups of one node, over simulated and real disks.

mod chronicle;
mod simulation;
mod thread;
