//! What is measured of a cluster rather than only judged.

mod failover;
mod rolling;

pub use failover::{Failover, failover};
pub use rolling::{Rolling, rolling};

use std::time::Duration;

/// The value below which so many of a hundred are; values in any order, at least one.
fn percentile(values: &mut [Duration], percent: usize) -> Duration {
    values.sort();
    values[(values.len() * percent).div_ceil(100).max(1) - 1]
}

#[test]
fn percentiles_are_found() {
    let mut values: Vec<_> = (1..=200).rev().map(Duration::from_millis).collect();
    let found = [50, 99, 100].map(|percent| percentile(&mut values, percent).as_millis());
    assert_eq!(found, [100, 198, 200]);
    assert_eq!(percentile(&mut [Duration::ZERO], 99), Duration::ZERO);
}
