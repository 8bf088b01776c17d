//! Nodes of a cluster in one thread: real engines and logs; time, network, disks, clocks and crashes
//! from a seed.
//!
//! What the groups replicate and what their hosts do with it, tests bring: the same troubles befall
//! the bare agreement and the whole node. One seed gives one history.

mod cluster;
mod network;
mod node;

pub use cluster::{Cluster, Turned, small};
pub use network::{Network, Weather};
pub use node::SimNode;
