//! How fast commands are taken while the state store does not keep up with the log.
//!
//! At [`Config::max_log_bytes`](crate::Config::max_log_bytes) nothing is taken until a checkpoint lets
//! the log shrink, which may last most of a minute, and whoever asks for something meanwhile asks in
//! vain. So from half of that on commands are taken about as fast as the store takes down what they
//! change, and the slower the nearer the bound is: whoever proposes much waits, nobody for long.

use std::time::Duration;

/// Commands are taken in pieces of at least so many bytes, or this part of what the log may have.
const PIECE: f64 = (1 << 20) as f64;
const PIECES_OF_LOG: f64 = 256.0;
/// What is not taken is kept for so long.
const KEPT: Duration = Duration::from_millis(250);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Bytes of log per second that the store has brought over lately.
    rate: Option<f64>,
    /// Bytes that may be taken, as of `at`.
    credit: f64,
    at: Duration,
    is_slowing: bool,
}

impl Pace {
    /// The store has brought over `bytes` of the log in this time. What is little says nothing of how
    /// fast it is with much.
    pub(super) fn stored(&mut self, bytes: u64, took: Duration) {
        if (bytes as f64) < PIECE {
            return;
        }
        let rate = bytes as f64 / took.as_secs_f64().max(0.001);
        self.rate = Some(self.rate.map_or(rate, |before| (before + rate) / 2.0));
    }

    /// How many bytes of commands may be taken now that the log has so many and may have `max`.
    pub(super) fn allowance(&mut self, now: Duration, log_bytes: u64, max: u64) -> usize {
        self.is_slowing = false;
        let passed = now.saturating_sub(std::mem::replace(&mut self.at, now));
        if log_bytes >= max {
            self.credit = 0.0;
            return 0;
        }
        let room = (max - log_bytes) as f64 / (max as f64 / 2.0);
        let Some(rate) = self.rate.filter(|_| room <= 1.0) else {
            self.credit = 0.0;
            return usize::MAX;
        };
        self.is_slowing = true;
        let rate = rate * 2.0 * room;
        let piece = PIECE.min(max as f64 / PIECES_OF_LOG);
        let most = (rate * KEPT.as_secs_f64()).max(piece);
        self.credit = (self.credit + rate * passed.as_secs_f64()).min(most);
        if self.credit < piece { 0 } else { self.credit as usize }
    }

    /// Whether commands are taken more slowly than they may come.
    pub(super) fn is_slowing(&self) -> bool {
        self.is_slowing
    }

    /// So many bytes were taken.
    pub(super) fn taken(&mut self, bytes: usize) {
        self.credit -= bytes as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const MAX: u64 = 1000 * MIB;

    /// MiB that are taken in ten seconds by somebody who takes all he may, in turns of 10 ms, with so
    /// many MiB of log all the time, after the store has brought over 20 MiB in a second.
    fn taken(log: u64) -> f64 {
        let mut pace = Pace::default();
        pace.stored(20 * MIB, Duration::from_secs(1));
        pace.allowance(Duration::ZERO, log * MIB, MAX);
        let mut sum = 0;
        for turn in 1..=1000 {
            let some = pace.allowance(Duration::from_millis(10) * turn, log * MIB, MAX);
            pace.taken(some);
            sum += some;
        }
        sum as f64 / MIB as f64
    }

    #[test]
    fn the_nearer_the_bound_the_slower() {
        for (log, at_least, at_most) in
            [(500, 395.0, 400.0), (750, 195.0, 200.0), (990, 3.0, 8.0), (1000, 0.0, 0.0)]
        {
            let taken = taken(log);
            assert!((at_least..=at_most).contains(&taken), "{log} MiB of log: {taken} MiB");
        }
    }

    #[test]
    fn nobody_waits_before_half_of_it_or_without_a_measure() {
        let mut pace = Pace::default();
        assert_eq!(pace.allowance(Duration::ZERO, 900 * MIB, MAX), usize::MAX);
        pace.stored(MIB, Duration::from_secs(1));
        assert_eq!(pace.allowance(Duration::ZERO, 499 * MIB, MAX), usize::MAX);
        assert_eq!(pace.allowance(Duration::ZERO, 501 * MIB, MAX), 0, "it begins with nothing");
    }

    #[test]
    fn what_was_taken_too_much_is_waited_for() {
        let mut pace = Pace::default();
        pace.stored(10 * MIB, Duration::from_secs(1));
        pace.allowance(Duration::ZERO, 750 * MIB, MAX);
        pace.taken(10 * MIB as usize);
        let at = |pace: &mut Pace, ms| pace.allowance(Duration::from_millis(ms), 750 * MIB, MAX);
        assert_eq!(at(&mut pace, 1000), 0);
        assert_eq!(at(&mut pace, 1050), 0);
        assert!(at(&mut pace, 1101) >= MIB as usize);
    }
}
