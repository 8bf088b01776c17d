//! How fast a client may publish.

use std::time::{Duration, Instant};

/// A leaky bucket that holds one second's worth of publications.
#[derive(Debug)]
pub(super) struct Rate {
    each: Duration,
    /// When everything counted so far will have leaked out.
    empty: Instant,
    paused_until: Option<Instant>,
    /// Whether somebody will look again then.
    watched: bool,
}

const BURST: Duration = Duration::from_secs(1);

impl Rate {
    /// A bucket for this many publications per second.
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        let each = BURST / per_second.max(1);
        Self { each, empty: now, paused_until: None, watched: false }
    }

    /// Counts one; true when that begins a pause.
    pub(super) fn count(&mut self, now: Instant) -> bool {
        self.empty = self.empty.max(now) + self.each;
        let paused = self.paused_until.is_some_and(|until| until > now);
        self.paused_until = (self.empty > now + BURST).then(|| self.empty - BURST);
        self.paused_until.is_some() && !paused
    }

    /// Whether nothing is to be read now.
    pub(super) fn is_paused(&self, now: Instant) -> bool {
        self.paused_until.is_some_and(|until| now < until)
    }

    /// When to look again, if nobody was told yet.
    pub(super) fn watch(&mut self) -> Option<Instant> {
        let until = self.paused_until.filter(|_| !self.watched)?;
        self.watched = true;
        Some(until)
    }

    /// Somebody looks.
    pub(super) fn looked(&mut self) {
        self.watched = false;
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
            assert!(!rate.count(start));
        }
        assert!(rate.count(start));
        assert!(!rate.count(start), "it is paused already");
        assert_eq!(rate.watch(), Some(start + Duration::from_millis(200)));
        assert_eq!(rate.watch(), None, "once is enough");
        assert!(!rate.count(start));
        rate.looked();
        assert!(rate.is_paused(start + Duration::from_millis(250)));
        assert_eq!(rate.watch(), Some(start + Duration::from_millis(300)), "it has moved on");
        let later = start + Duration::from_secs(5);
        assert!(!rate.count(later));
        assert!(!rate.is_paused(later));
    }
}
