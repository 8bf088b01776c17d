//! The API over a node in memory.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod credentials;
mod data_plane;
mod devices;
mod doors;
mod limits;
mod memory;
mod people;
mod signed;
