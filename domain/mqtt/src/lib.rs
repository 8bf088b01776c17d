//! MQTT 3.1.1 and 5 as pure values: packets, their codec, and the session.
//!
//! [`frame`] finds the end of a packet in a buffer, [`decode`] reads what a client may send without
//! copying it, and the `encode_*` functions append what a server answers to a `Vec<u8>`. The other
//! direction ([`decode_server`], [`encode_connect`], …) serves the load generator and the tests.
//!
//! The codec is strict: a packet that it returns obeys every rule that can be checked without
//! knowing the session. It leaves out the syntax of topic filters (crate `topic`), because a bad
//! filter is answered with a reason code of its own, and everything about limits and permissions.

mod codec;
mod error;
mod packet;
pub mod properties;
mod property;
mod reason;
pub mod session;

pub use codec::{MAX_PACKET_SIZE, decode, decode_connect, decode_server, frame};
pub use error::{ConnectError, DecodeError};
pub use packet::*;
pub use property::PropertyId;
pub use reason::{Reason, UnknownReason};

#[cfg(test)]
mod tests;
