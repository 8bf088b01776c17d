//! The server side of WebSocket, RFC 6455, as far as MQTT needs it: binary messages without extensions.
//!
//! [`Upgrade`] reads the HTTP request that opens a connection, [`Decoder`] takes frames from a client
//! apart, [`frame_header`] and [`write_frame`] make frames for it. MQTT packets may begin and end
//! anywhere in a message [v5 MQTT-6.0.0-2], so payload is handed on as a stream of bytes.

mod decoder;
mod encoder;
mod handshake;
mod mask;

pub use decoder::{Decoder, FrameError, Step};
pub use encoder::{Opcode, frame_header, write_close, write_frame};
pub use handshake::{Refusal, Upgrade, UpgradeError};

/// Why a connection closes, in the numbers that close frames carry (RFC 6455 section 7.4.1).
pub mod close {
    /// Its purpose is fulfilled.
    pub const NORMAL: u16 = 1000;
    /// The server stops.
    pub const GOING_AWAY: u16 = 1001;
    /// The peer broke a rule of the protocol.
    pub const PROTOCOL: u16 = 1002;
    /// The peer sent text; MQTT is binary [v5 MQTT-6.0.0-1].
    pub const UNSUPPORTED: u16 = 1003;
    /// The reason in a close frame is not UTF-8.
    pub const INVALID: u16 = 1007;
    /// The peer did what it must not do.
    pub const POLICY: u16 = 1008;
    /// A message is larger than the server takes.
    pub const TOO_LARGE: u16 = 1009;
    /// The server cannot go on.
    pub const INTERNAL: u16 = 1011;
}
