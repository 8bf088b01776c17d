//! The API over a node in memory.

mod data_plane;
mod devices;
mod doors;
mod limits;
mod memory;
mod signed;
