//! The time as the node's shells see it. What decides is told the time.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The time, read once per batch.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// For durations.
    pub now: Instant,
    /// For expiry: milliseconds of the epoch.
    pub epoch_ms: u64,
}

impl Clock {
    /// Reads the time.
    pub fn read() -> Self {
        Self { now: Instant::now(), epoch_ms: now_ms() }
    }

    /// A question to a policy at this time.
    pub fn request(&self) -> policy::Request<'static> {
        policy::Request { now_secs: Some(self.epoch_ms / 1000), ..policy::Request::default() }
    }
}

/// Milliseconds of the epoch.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
