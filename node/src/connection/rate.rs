//! How fast a client may publish.

use std::time::{Duration, Instant};

/// A leaky bucket that holds one second's worth of publications.
#[derive(Debug)]
pub(super) struct Rate {
    each: Duration,
    /// When everything counted so far will have leaked out.
    empty: Instant,
    paused_until: Option<Instant>,
}

const BURST: Duration = Duration::from_secs(1);

impl Rate {
    /// A bucket for this many publications per second.
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        let each = BURST / per_second.max(1);
        Self { each, empty: now, paused_until: None }
    }

    /// Counts one; until when to pause, when that is new.
    pub(super) fn count(&mut self, now: Instant) -> Option<Instant> {
        self.empty = self.empty.max(now) + self.each;
        let paused = self.paused_until.is_some_and(|until| until > now);
        self.paused_until = (self.empty > now + BURST).then(|| self.empty - BURST);
        self.paused_until.filter(|_| !paused)
    }

    /// Until when nothing is read.
    pub(super) fn paused_until(&self) -> Option<Instant> {
        self.paused_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_a_flood_waits() {
        let start = Instant::now();
        let mut rate = Rate::new(10, start);
        for _ in 0..10 {
            assert_eq!(rate.count(start), None);
        }
        assert_eq!(rate.count(start), Some(start + Duration::from_millis(100)));
        assert_eq!(rate.count(start), None, "it is paused already");
        assert_eq!(rate.paused_until(), Some(start + Duration::from_millis(200)));
        let later = start + Duration::from_secs(5);
        assert_eq!(rate.count(later), None);
        assert_eq!(rate.paused_until(), None);
    }
}
