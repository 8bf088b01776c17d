//! A histogram of nanoseconds with a bounded relative error, in the manner of HdrHistogram.
//!
//! Each power of two is cut into 64 equal buckets, so a quantile is at most 1.6 % too high.

use std::time::Duration;

const SLICE_BITS: u32 = 6;
const SLICES: u64 = 1 << SLICE_BITS;

/// Counts of durations by size.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; (65 - SLICE_BITS as usize) << SLICE_BITS], total: 0, max: 0 }
    }
}

impl Histogram {
    /// Counts one value.
    #[inline]
    pub fn record(&mut self, nanoseconds: u64) {
        self.counts[bucket(nanoseconds)] += 1;
        self.total += 1;
        self.max = self.max.max(nanoseconds);
    }

    /// Takes in all values of another histogram.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// How many values were counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The largest value.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    /// The value that this part of all values does not exceed.
    pub fn quantile(&self, part: f64) -> Duration {
        let rank = ((self.total as f64 * part).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_nanos(upper(index).min(self.max));
            }
        }
        self.max()
    }
}

/// The bucket of a value: values below `SLICES` have one each.
fn bucket(value: u64) -> usize {
    if value < SLICES {
        return value as usize;
    }
    let shift = value.ilog2() - SLICE_BITS;
    (u64::from(shift) * SLICES + (value >> shift)) as usize
}

/// The largest value of a bucket.
fn upper(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * SLICES {
        return bucket;
    }
    let shift = bucket / SLICES - 1;
    let slice = u128::from(bucket % SLICES + SLICES + 1);
    u64::try_from((slice << shift) - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_bound_the_error() {
        for value in [0, 1, 63, 64, 65, 127, 128, 129, 1_000, 123_456_789, u64::MAX / 2, u64::MAX] {
            let upper = upper(bucket(value));
            assert!(upper >= value, "{value}: {upper}");
            assert!(upper - value <= value / 64, "{value}: {upper}");
        }
    }

    #[test]
    fn quantiles() {
        let mut histogram = Histogram::default();
        let mut half = Histogram::default();
        (1..=500).for_each(|us| histogram.record(us * 1_000));
        (501..=1_000).for_each(|us| half.record(us * 1_000));
        histogram.merge(&half);
        assert_eq!(histogram.total(), 1_000);
        for (part, us) in [(0.5, 500.0), (0.9, 900.0), (0.99, 990.0), (1.0, 1_000.0)] {
            let found = histogram.quantile(part).as_secs_f64() * 1e6;
            assert!(found >= us && found <= us * 1.017, "{part}: {found}");
        }
        assert_eq!(histogram.max(), Duration::from_millis(1));
    }
}
