//! Agreement between nodes: many Raft groups over one log, driven by one thread.
//!
//! A [`StateMachine`] per group is changed by nothing but its committed commands. The node reaches
//! the groups through [`Groups`], and hears what they decided through its [`Host`], which lives on
//! the raft thread. One turn of the thread takes everything that waits in the inbox, writes it for
//! all groups with one sync, applies it, and tells the host.
//!
//! Invariant: a command is applied, and its proposer answered, only after it is on disk.

mod backup;
mod checkpoint;
mod config;
mod engine;
mod error;
mod groups;
mod host;
mod input;
mod logger;
mod machine;
mod members;
mod metrics;
mod pack;
mod peers;
mod recover;
mod snapshot;
mod sources;
mod thread;
mod view;

pub use backup::{BackupError, GroupBackup, Restoration};
pub use checkpoint::Worker;
pub use config::{Config, GroupConfig};
pub use engine::{Engine, Now, Opened};
pub use error::Error;
pub use groups::{Groups, Inbox, Refused};
pub use host::{Blocked, GroupsView, Host, Refusal, Status, Wanted};
pub use input::{Input, OnFull, Order, Proposal};
pub use machine::{GroupId, LoadError, Pairs, StateMachine, Unreadable};
pub use peers::{NoPeers, PeerMessage, Peers};
pub use recover::{Recovered, recover, recover_in};
pub use snapshot::Pair;
pub use storage::data::{DataDir, Incarnation};
pub use thread::{Running, start};
