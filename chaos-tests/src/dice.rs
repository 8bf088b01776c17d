//! Chance from a seed.

use std::env;
use std::ops::Range;
use std::time::Duration;

/// A generator of numbers that repeats itself for the same seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Dice {
    state: u64,
    seed: u64,
}

impl Dice {
    /// Dice for one test: the seed is `SEED`, or 1, mixed with the test's name.
    pub fn of(test: &str) -> Self {
        Self::seeded(test, number("SEED").unwrap_or(1))
    }

    /// Dice of this seed.
    pub fn seeded(test: &str, seed: u64) -> Self {
        let name = test.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31) + u64::from(byte));
        Self { state: seed ^ name.rotate_left(32), seed }
    }

    /// What `SEED` must be for the same numbers.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    /// A number in the range, which must not be empty.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.bits() % (range.end - range.start)
    }

    /// A duration of so many milliseconds.
    pub fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.within(range))
    }

    /// True once in so many times.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.bits().is_multiple_of(times)
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.within(0..from.len() as u64) as usize]
    }

    /// Dice of their own for a party of the story, so that threads do not share one.
    pub fn split(&mut self) -> Self {
        Self { state: self.bits(), seed: self.seed }
    }
}

/// How often a node is killed: `CHAOS_ROUNDS`, or what the test finds enough for every day.
pub fn rounds(usual: u64) -> u64 {
    number("CHAOS_ROUNDS").unwrap_or(usual)
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}
