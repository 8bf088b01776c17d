//! The knobs of the raft thread.

use std::path::PathBuf;
use std::time::Duration;

use crate::machine::GroupId;

/// A group, and who was in it when the cluster was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// Its number.
    pub id: GroupId,
    /// The nodes that agreed on its first entry, the same on every node for all time; later changes
    /// of its members are in its log. None on a node that joins: it takes nothing but a snapshot of
    /// the group, which says who is in it.
    pub voters: Vec<u64>,
}

/// How the groups of a node are run. Defaults are fit for production.
#[derive(Clone, Debug)]
pub struct Config {
    /// The data directory; the log lives in `log`, the state in `state`.
    pub data: PathBuf,
    /// This node's Raft id, never 0.
    pub node: u64,
    /// Which life of this node this is: a greater number at every start. With 0 [`crate::start`] takes
    /// the next one of the data directory.
    pub incarnation: u64,
    /// The groups to run.
    pub groups: Vec<GroupConfig>,
    /// How often [`crate::Host::ticked`] is called.
    pub tick: Duration,
    /// Raft's unit of time: a leader is heard of every two, and missed after ten to twenty.
    pub raft_tick: Duration,
    /// Bytes of commands that may wait in the inbox.
    pub inbox_bytes: usize,
    /// Commands, and separately signals that may be refused, that may wait in the inbox.
    pub inbox_count: usize,
    /// The largest command, and about the largest packed entry, in bytes.
    pub max_command_bytes: usize,
    /// Length of a log segment file in bytes.
    pub segment_bytes: u64,
    /// A checkpoint starts when the log has grown by this many bytes since the last one.
    pub checkpoint_bytes: u64,
    /// A checkpoint starts this long after the last one if anything changed.
    pub checkpoint_interval: Duration,
    /// Beyond this log size no proposal is taken until a checkpoint has finished.
    pub max_log_bytes: u64,
    /// The log leaves at least this many bytes of the disk to the state store, besides as many as
    /// its next checkpoints bring over: without room to finish one, nothing lets the log shrink.
    /// Beyond that proposals are refused.
    pub min_free_bytes: u64,
    /// While the log takes fewer bytes, a leader keeps the entries that a follower lacks; one that
    /// lags further is sent a snapshot.
    pub lag_bytes: u64,
    /// About how many bytes of a snapshot are one message.
    pub snapshot_chunk_bytes: usize,
    /// So many bytes of snapshots may be on their way to others at a time.
    pub snapshot_window_bytes: usize,
    /// And so many leave in a second: what is left of network and disks is the log's.
    pub snapshot_bytes_per_second: u64,
    /// Memory the state store may use as cache, in bytes.
    pub store_cache_bytes: u64,
    /// Opens a damaged log by dropping everything from the damage on. Loses acknowledged data.
    pub accept_log_loss: bool,
}

impl Config {
    /// The defaults for a cluster of one, node 1, that keeps its data in `data` and runs `meta` and
    /// `shards` shards.
    pub fn new(data: impl Into<PathBuf>, shards: u32) -> Self {
        let alone = |id| GroupConfig { id: GroupId(id), voters: vec![1] };
        Self {
            data: data.into(),
            node: 1,
            incarnation: 0,
            groups: (0..=shards).map(alone).collect(),
            tick: Duration::from_millis(100),
            raft_tick: Duration::from_millis(100),
            inbox_bytes: 64 << 20,
            inbox_count: 1 << 20,
            max_command_bytes: 16 << 20,
            segment_bytes: 64 << 20,
            checkpoint_bytes: 32 << 20,
            checkpoint_interval: Duration::from_secs(15),
            max_log_bytes: 1 << 30,
            min_free_bytes: 64 << 20,
            lag_bytes: 256 << 20,
            snapshot_chunk_bytes: 256 << 10,
            snapshot_window_bytes: 4 << 20,
            snapshot_bytes_per_second: 32 << 20,
            store_cache_bytes: 64 << 20,
            accept_log_loss: false,
        }
    }
}
