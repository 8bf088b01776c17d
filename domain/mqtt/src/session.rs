//! The MQTT session: what a client and the broker have agreed on while a connection is open.
//!
//! [`Inbound`] judges what the client sends, [`Window`] keeps the packet identifiers of what was sent
//! to it, [`Acks`] keeps acknowledgements in order, and [`OutboundAliases`] saves topic bytes. None of
//! them owns a socket, a clock or a message body: a connection actor, a simulation and a unit test
//! drive them alike.
//!
//! Invariant: a packet identifier is not assigned again until the acknowledgement that ends its
//! exchange has arrived [v5 MQTT-2.2.1-4].

mod acks;
mod alias;
mod inbound;
mod window;

pub use acks::{Acks, Owed, Turn};
pub use alias::OutboundAliases;
pub use inbound::{Inbound, InboundLimits, Receipt, Violation};
pub use window::{Settled, Window};
