//! What operators watch on the raft thread.

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};

use crate::host::Refusal;

/// The raft thread's metrics. Labels are bounded: never a group, never a client.
pub(crate) struct RaftMetrics {
    /// From the turn that took a command to its being applied.
    pub(crate) commit_seconds: Histogram,
    pub(crate) fsync_seconds: Histogram,
    pub(crate) log_bytes: Gauge,
    pub(crate) written_bytes: Counter,
    pub(crate) accepting: Gauge,
    pub(crate) slowing: Gauge,
    pub(crate) accepted: Counter,
    pub(crate) entries_per_batch: Histogram,
    pub(crate) commands_per_batch: Histogram,
    pub(crate) checkpoint_seconds: Histogram,
    pub(crate) checkpoint_failures: Counter,
    pub(crate) damaged_groups: Gauge,
}

impl RaftMetrics {
    pub(crate) fn register() -> Self {
        describe_histogram!(
            "raft_commit_seconds",
            Unit::Seconds,
            "From a command's being taken to its being applied"
        );
        describe_histogram!("storage_fsync_seconds", Unit::Seconds, "One sync of the log");
        describe_gauge!("storage_log_bytes", Unit::Bytes, "Bytes the log takes on disk");
        describe_counter!(
            "storage_log_written_bytes_total",
            Unit::Bytes,
            "Bytes written to the log"
        );
        describe_gauge!(
            "storage_accepting",
            Unit::Count,
            "1 while there is room for what must be stored, 0 while it is refused"
        );
        describe_gauge!(
            "storage_slowing",
            Unit::Count,
            "1 while commands are taken only as fast as the state store takes down what they change"
        );
        describe_counter!("raft_proposals_total", Unit::Count, "Commands offered, by result");
        describe_counter!(
            "raft_messages_dropped_total",
            Unit::Count,
            "Messages of other nodes that there was no room for"
        );
        describe_histogram!(
            "raft_entries_per_batch",
            Unit::Count,
            "Entries made durable by a sync"
        );
        describe_histogram!("raft_commands_per_batch", Unit::Count, "Commands taken in a turn");
        describe_histogram!(
            "storage_checkpoint_seconds",
            Unit::Seconds,
            "Bringing the state store up to the log"
        );
        describe_counter!(
            "storage_checkpoint_failures_total",
            Unit::Count,
            "Attempts to bring the state store up to the log that failed"
        );
        describe_counter!(
            "storage_damages_total",
            Unit::Count,
            "Damaged files or records that were found, by where: log or state"
        );
        describe_gauge!(
            "raft_damaged_groups",
            Unit::Count,
            "Groups of which this node has lost something, until others have brought it up to date"
        );
        Self {
            commit_seconds: histogram!("raft_commit_seconds"),
            fsync_seconds: histogram!("storage_fsync_seconds"),
            log_bytes: gauge!("storage_log_bytes"),
            written_bytes: counter!("storage_log_written_bytes_total"),
            accepting: gauge!("storage_accepting"),
            slowing: gauge!("storage_slowing"),
            accepted: counter!("raft_proposals_total", "result" => "accepted"),
            entries_per_batch: histogram!("raft_entries_per_batch"),
            commands_per_batch: histogram!("raft_commands_per_batch"),
            checkpoint_seconds: histogram!("storage_checkpoint_seconds"),
            checkpoint_failures: counter!("storage_checkpoint_failures_total"),
            damaged_groups: gauge!("raft_damaged_groups"),
        }
    }
}

/// Counts a message of another node that was dropped.
pub(crate) fn messages_dropped() {
    counter!("raft_messages_dropped_total").increment(1);
}

/// Counts a damage.
pub(crate) fn damage_found(place: &'static str) {
    counter!("storage_damages_total", "where" => place).increment(1);
}

/// Counts commands that were not taken.
pub(crate) fn refused(why: Refusal, count: u64) {
    counter!("raft_proposals_total", "result" => why.label()).increment(count);
}
