//! The time as the node's shells see it. What decides is told the time.

use std::cell::Cell;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

thread_local! {
    static SIMULATED_MS: Cell<Option<u64>> = const { Cell::new(None) };
}

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
        // Tokio's, which a simulation moves on by itself.
        Self { now: tokio::time::Instant::now().into_std(), epoch_ms: now_ms() }
    }

    /// A question to a policy at this time.
    pub fn request(&self) -> policy::Request<'static> {
        policy::Request { now_secs: Some(self.epoch_ms / 1000), ..policy::Request::default() }
    }
}

/// Milliseconds of the epoch.
pub fn now_ms() -> u64 {
    if let Some(simulated) = SIMULATED_MS.get() {
        return simulated;
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Says what the wall clock shows on this thread from now on: a simulation runs nodes there whose
/// clocks differ and jump.
pub fn simulate(epoch_ms: u64) {
    SIMULATED_MS.set(Some(epoch_ms));
}
