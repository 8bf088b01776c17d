//! What operators watch on the fan-out between nodes. Labels are bounded: never a peer.

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};

/// Why a publication did not get to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// There was no stream to it.
    Unreachable,
    /// Its stream ended while it was under way.
    Lost,
    /// It is larger than nodes send each other.
    TooLarge,
}

const DROPPED: [&str; 3] = ["unreachable", "lost", "too_large"];

/// See the module.
pub struct Metrics {
    /// Publications to peers, once for each stream they were sent on, and from them.
    pub parcels: [Counter; 2],
    /// Their bytes.
    pub bytes: [Counter; 2],
    /// Filters and members of shared subscriptions that peers want.
    pub routes: Gauge,
    /// How long SUBACK had to wait for peers.
    pub sync_seconds: Histogram,
    dropped: [Counter; 3],
}

/// The places in [`Metrics::parcels`] and [`Metrics::bytes`].
pub(super) const OUT: usize = 0;
/// See [`OUT`].
pub(super) const IN: usize = 1;

impl Default for Metrics {
    fn default() -> Self {
        let both = |name: &'static str| {
            ["out", "in"].map(|direction| counter!(name, "direction" => direction))
        };
        Self {
            parcels: both("fanout_parcels_total"),
            bytes: both("fanout_bytes_total"),
            routes: gauge!("fanout_routes"),
            sync_seconds: histogram!("fanout_sync_seconds"),
            dropped: DROPPED.map(|reason| counter!("fanout_dropped_total", "reason" => reason)),
        }
    }
}

impl Metrics {
    /// Publications did not get to a peer.
    pub fn dropped(&self, reason: Dropped, count: u64) {
        self.dropped[reason as usize].increment(count);
    }
}

/// Describes them; once per process.
pub fn describe() {
    describe_counter!("fanout_parcels_total", Unit::Count, "Publications between nodes");
    describe_counter!("fanout_bytes_total", Unit::Bytes, "Bytes of publications between nodes");
    describe_counter!(
        "fanout_dropped_total",
        Unit::Count,
        "Publications that did not get to another node, by reason"
    );
    describe_gauge!("fanout_routes", Unit::Count, "Filters and share members of other nodes");
    describe_histogram!(
        "fanout_sync_seconds",
        Unit::Seconds,
        "How long SUBACK waited until other nodes knew of the subscription"
    );
}
