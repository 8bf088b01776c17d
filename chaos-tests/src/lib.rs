//! Real `skein` processes under real clients, killed, stopped and damaged; only what users are
//! promised is checked.
//!
//! A [`Node`] is a process on a data directory that outlives it. A [`Crowd`] of [`Publisher`]s and
//! [`Subscriber`]s talks to it life after life, each keeping the state that MQTT asks of a client,
//! and [`history`] judges what they wrote down. What happens when is drawn from a [`Dice`], so a
//! seed tells the story again as far as a real machine repeats itself.
//!
//! A [`Story`] is told of a [`Cluster`] of three nodes, each in a network namespace of its own: its
//! clients wander from node to node and write a history, which [`check`] judges.
//!
//! `SKEIN_BIN` names the binary, `SEED` the dice, `CHAOS_ROUNDS` how often the node is killed.

pub mod check;
pub mod client;
pub mod cluster;
pub mod history;
pub mod measure;
pub mod record;
pub mod segment;

mod admin;
mod binary;
mod control;
mod crowd;
mod dice;
mod disk;
mod faults;
mod fleet;
mod inbox;
mod node;
mod publisher;
mod story;
mod subscriber;

pub use binary::binary;
pub use client::{Arrival, Client, End, Received};
pub use cluster::Cluster;
pub use crowd::{Crowd, Life};
pub use dice::{Dice, rounds};
pub use faults::Fault;
pub use inbox::Inbox;
pub use node::Node;
pub use publisher::Publisher;
pub use story::{Report, Story};
pub use subscriber::{Acks, Subscriber};

use std::time::{Duration, Instant};

/// How long anything may take that must happen at all. Generous: machines are shared.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Polls until there is an answer.
///
/// # Panics
/// When there is none within [`PATIENCE`].
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let asked = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(asked.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
