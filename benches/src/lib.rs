//! The load generator: floods, fixed rates, crowds of connections, and what a broker costs them.
//!
//! [`engine`] drives connections on one thread, [`scenario`] says what they do, [`compare`] runs
//! scenarios against several brokers in turn, [`cluster`] against three nodes that are one. Nothing here
//! depends on the broker's own crates, so a figure or a verdict never rests on the code that it judges.

pub mod broker;
pub mod client;
pub mod cluster;
pub mod compare;
pub mod engine;
pub mod frame;
pub mod histogram;
pub mod live;
pub mod process;
pub mod relay;
pub mod report;
pub mod scan;
pub mod scenario;
pub mod stream;
pub mod tally;
