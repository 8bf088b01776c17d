//! What frames MQTT on its way: WebSocket frames and the PROXY header of a load balancer.
//!
//! Everything here turns bytes into values and back. It holds no socket, so the gateway, a test and a
//! fuzzer feed it alike.
//!
//! Invariant: a result never depends on how the network cut the bytes into pieces, and no input makes
//! a parser hold more than the limits written beside it.

pub mod proxy;
pub mod websocket;
