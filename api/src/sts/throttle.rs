//! How often somebody may try who has proved nothing: pure, and told the time.
//!
//! Each source (an IPv4 address, or an IPv6 /64) has its own measure, and all have one together. Sources
//! beyond [`SOURCES`] that have tried just now share one, as do those that are not known.

use std::net::IpAddr;

use fleet::registry::Timestamp;

use crate::throttle::{Due, Dues, Rate};

/// One source: ten a second, and fifty at once.
const OF_SOURCE: Rate = Rate::new(10, 50);
/// All of them: two hundred a second.
const OF_ALL: Rate = Rate::new(200, 200);
/// Sources that are told apart.
const SOURCES: usize = 4096;

/// See the module.
#[derive(Debug)]
pub(super) struct Throttle {
    sources: Dues<u128>,
    all: Due,
}

impl Default for Throttle {
    fn default() -> Self {
        Self { sources: Dues::new(SOURCES), all: Due::default() }
    }
}

impl Throttle {
    /// Whether another one may try now.
    pub(super) fn admit(&mut self, source: Option<IpAddr>, now: Timestamp) -> bool {
        self.sources.of(source.map(network), now).admit(OF_SOURCE, now)
            && self.all.admit(OF_ALL, now)
    }
}

fn network(ip: IpAddr) -> u128 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits() >> 64 << 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    /// How many of so many at once are admitted.
    fn admitted(throttle: &mut Throttle, source: Option<IpAddr>, now_ms: u64) -> usize {
        (0..500).filter(|_| throttle.admit(source, Timestamp(now_ms))).count()
    }

    #[test]
    fn a_source_has_its_measure() {
        let mut throttle = Throttle::default();
        for (source, now_ms, expected) in [
            ("10.0.0.1", 1_000_000, 50),
            ("10.0.0.1", 1_000_099, 0),
            ("::ffff:10.0.0.1", 1_000_100, 1),
            ("10.0.0.2", 1_000_100, 50),
            ("2001:db8::1", 1_000_100, 50),
            ("2001:db8::ffff:2", 1_000_100, 0),
            ("10.0.0.1", 1_010_000, 50),
        ] {
            assert_eq!(admitted(&mut throttle, ip(source), now_ms), expected, "{source} {now_ms}");
        }
        assert_eq!(admitted(&mut throttle, None, 1_010_000), 50);
    }

    #[test]
    fn all_have_one_together() {
        let mut throttle = Throttle::default();
        let sources = (0..100).map(|it| ip(&format!("10.0.1.{it}")));
        let count: usize = sources.map(|it| admitted(&mut throttle, it, 1_000_000)).sum();
        assert_eq!(count, 200);
    }

    #[test]
    fn many_sources_are_bounded() {
        let mut throttle = Throttle::default();
        for number in 0..10_000_u32 {
            let now = Timestamp(1_000_000 + u64::from(number));
            throttle.admit(Some(IpAddr::V4(number.into())), now);
            assert!(throttle.sources.len() <= SOURCES);
        }
        // Those that tried long ago are forgotten.
        assert!(throttle.admit(ip("10.0.0.1"), Timestamp(2_000_000)));
    }

    #[test]
    fn a_clock_that_is_set_back_keeps_nobody_out_for_long() {
        let mut throttle = Throttle::default();
        admitted(&mut throttle, ip("10.0.0.1"), 1_000_000_000);
        assert!(!throttle.admit(ip("10.0.0.1"), Timestamp(1_000)));
        let mut later = (1_100..1_300).step_by(50).map(Timestamp);
        assert!(later.any(|now| throttle.admit(ip("10.0.0.1"), now)));
    }
}
