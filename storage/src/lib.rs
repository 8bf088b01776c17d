//! Bytes that survive a crash: a log shared by all groups, and a store for their state.
//!
//! [`log::Log`] makes a batch durable with one sync; [`store::Store`] keeps the state that the log
//! led to, so that the log can be trimmed. Both reach files through [`disk::Disk`], so that a
//! simulation can lose writes, flip bits and fill up. No type of a domain and none of Raft is known
//! here.

pub mod data;
pub mod dice;
pub mod disk;
pub mod log;
pub mod sim;
pub mod store;
