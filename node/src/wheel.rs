//! Timers of a core: coarse, cheap, a few bytes each.

use std::time::{Duration, Instant};

/// How exact the wheel is: a timer fires up to this much late, never early.
pub const TICK: Duration = Duration::from_millis(250);

const BUCKETS: u64 = 1024;

/// A timer wheel. An entry is never cancelled: whoever set it looks, when it fires, whether it still
/// means anything and sets it again when the deadline has moved.
#[derive(Debug)]
pub struct Wheel<T> {
    start: Instant,
    tick: u64,
    buckets: Vec<Vec<(u64, T)>>,
}

impl<T> Wheel<T> {
    /// A wheel that starts to turn at `now`.
    pub fn new(now: Instant) -> Self {
        Self { start: now, tick: 0, buckets: (0..BUCKETS).map(|_| Vec::new()).collect() }
    }

    /// Fires `what` at `deadline` or up to one tick later.
    pub fn set(&mut self, deadline: Instant, what: T) {
        let at = self.tick_of(deadline + TICK).max(self.tick + 1);
        self.buckets[(at % BUCKETS) as usize].push((at, what));
    }

    /// Turns the wheel to `now` and takes what is due.
    pub fn turn(&mut self, now: Instant, due: &mut Vec<T>) {
        let until = self.tick_of(now);
        while self.tick < until {
            self.tick += 1;
            let bucket = &mut self.buckets[(self.tick % BUCKETS) as usize];
            let tick = self.tick;
            due.extend(bucket.extract_if(.., |(at, _)| *at <= tick).map(|(_, what)| what));
            if bucket.is_empty() {
                bucket.shrink_to(16);
            }
        }
    }

    fn tick_of(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.start).as_millis() / TICK.as_millis();
        u64::try_from(since).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_fires_after_its_deadline_and_within_a_tick() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        for millis in [0u64, 1, 249, 250, 1_000, 300_000, 1_000_000] {
            wheel.set(start + Duration::from_millis(millis), millis);
        }
        let mut fired = Vec::new();
        for step in 0..4_100u64 {
            let now = step * 250;
            let mut due = Vec::new();
            wheel.turn(start + Duration::from_millis(now), &mut due);
            for millis in due {
                assert!(now >= millis && now <= millis + 500, "{millis} fired at {now}");
                fired.push(millis);
            }
        }
        assert_eq!(fired, [0, 1, 249, 250, 1_000, 300_000, 1_000_000]);
    }
}
