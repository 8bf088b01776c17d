//! Chance from a seed, so that one seed gives one history.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// A seeded generator (splitmix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The generator of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.bits() % bound
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// The seeds a simulation shall run: `usual` many that are always the same and a twentieth of that
/// which nobody has run before, or as many as the variable `SEEDS` says, or the one that `SEED` names,
/// to replay a failure.
pub fn seeds(usual: u64) -> Vec<u64> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    match number("SEED") {
        Some(seed) => vec![seed],
        None => match number("SEEDS") {
            Some(count) => (0..count).collect(),
            None => (0..usual).chain((0..usual / 20).map(fresh)).collect(),
        },
    }
}

/// A seed that is none of those that are always run.
fn fresh(number: u64) -> u64 {
    RandomState::new().hash_one(number) | 1 << 63
}
