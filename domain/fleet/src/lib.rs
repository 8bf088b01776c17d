//! The replicated state of a Skein cluster, as pure state machines: what is committed goes in, what
//! came of it comes out.
//!
//! [`registry`] is the state of the `meta` group (things, types, certificates, policies, what is
//! attached to what, and the nodes of the cluster); [`placement`] says which of these decide in a
//! group; [`shard`] is the state of every other group (sessions and their queues, retained messages,
//! shadows, and the outbox of what the state itself publishes).
//!
//! Invariant: `apply` sees only its input and the state; a rejected command changes nothing.

pub mod placement;
pub mod registry;
pub mod shard;
