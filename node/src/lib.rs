//! The Skein process: listeners, connections, routing, and the wiring of everything below.
//!
//! [`node::Node`] starts the raft thread, one [`core::Core`] per processor and the control runtime;
//! the rest of the modules are the rooms of a core ([`connection`], [`endpoint`], [`route`],
//! [`publish`]) and what cores share ([`interest`], [`shared`], [`host`]).

pub mod acknowledged;
pub mod admin;
pub mod authorizers;
pub mod backend;
pub mod backup;
pub mod claims;
pub mod clock;
pub mod config;
pub mod connection;
pub mod core;
pub mod courier;
pub mod current;
pub mod denial;
pub mod dev;
pub mod drain;
pub mod endpoint;
pub mod fanout;
pub mod fetch;
pub mod freshness;
pub mod gateway;
pub mod host;
pub mod http;
pub mod identity;
pub mod inquiry;
pub mod interest;
pub mod just_in_time;
pub mod kept;
mod lifecycle;
pub mod mesh;
pub mod metrics;
pub mod node;
pub mod outbox;
pub mod pending;
pub mod pki;
pub mod preflight;
pub mod process;
pub mod provisioning;
pub mod publication;
pub mod publish;
pub mod recover;
pub mod registry_events;
pub mod reserved;
pub mod roster;
pub mod route;
pub mod run;
pub mod shared;
pub mod telemetry;
pub mod tls;
pub mod websocket;
pub mod wheel;
