//! Custom authorizers, for clients that show no certificate and sign nothing.
//!
//! What a client has sent is [`Presented`]; from it follow which authorizer is meant and the [`Token`],
//! whose signature is checked before anybody is asked. [`question`] is what the authorizer is told,
//! [`Answer`] what it says, read strictly. [`jwt`] decides without a function. Which authorizers there
//! are and how they are reached is decided elsewhere.
//!
//! Invariant: what cannot be read, or does not say that the client is authenticated, lets nobody in.

mod answer;
pub mod jwt;
mod presented;
mod refusal;
mod signature;

pub use answer::{Answer, Grant, InvalidAnswer, TIMES_SECS};
pub use presented::{Http, MAX_BYTES, Mqtt, Presented, Tls, Token, question};
pub use refusal::Refusal;
pub use signature::{InvalidKey, SigningKey};
