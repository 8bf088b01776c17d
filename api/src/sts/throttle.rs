//! How often somebody may try who has proved nothing: pure, and told the time.
//!
//! Each source (an IPv4 address, or an IPv6 /64) has its own measure, and all have one together. Sources
//! beyond [`SOURCES`] that have tried just now share one, as do those that are not known.

use std::collections::HashMap;
use std::net::IpAddr;

/// One source: ten a second, and fifty at once.
const OF_SOURCE: Rate = Rate { every_ms: 100, at_once: 50 };
/// All of them: two hundred a second.
const OF_ALL: Rate = Rate { every_ms: 5, at_once: 200 };
/// Sources that are told apart.
const SOURCES: usize = 4096;

struct Rate {
    every_ms: u64,
    at_once: u64,
}

/// When the next one would be due if they came evenly (GCRA).
#[derive(Clone, Copy, Default)]
struct Due(u64);

impl Due {
    fn admit(&mut self, rate: &Rate, now_ms: u64) -> bool {
        let ahead_ms = rate.every_ms * (rate.at_once - 1);
        // A clock that is set back keeps nobody out for longer than that.
        let due = self.0.clamp(now_ms, now_ms + ahead_ms + rate.every_ms);
        let is_admitted = due - now_ms <= ahead_ms;
        self.0 = if is_admitted { due + rate.every_ms } else { due };
        is_admitted
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Throttle {
    sources: HashMap<u128, Due>,
    others: Due,
    all: Due,
}

impl Throttle {
    /// Whether another one may try now.
    pub(super) fn admit(&mut self, source: Option<IpAddr>, now_ms: u64) -> bool {
        self.due_of(source, now_ms).admit(&OF_SOURCE, now_ms) && self.all.admit(&OF_ALL, now_ms)
    }

    fn due_of(&mut self, source: Option<IpAddr>, now_ms: u64) -> &mut Due {
        let Some(source) = source.map(network) else { return &mut self.others };
        if self.sources.len() >= SOURCES && !self.sources.contains_key(&source) {
            self.sources.retain(|_, due| due.0 > now_ms);
            if self.sources.len() >= SOURCES {
                return &mut self.others;
            }
        }
        self.sources.entry(source).or_default()
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
        (0..500).filter(|_| throttle.admit(source, now_ms)).count()
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
            throttle.admit(Some(IpAddr::V4(number.into())), 1_000_000 + u64::from(number));
            assert!(throttle.sources.len() <= SOURCES);
        }
        // Those that tried long ago are forgotten.
        assert!(throttle.admit(ip("10.0.0.1"), 2_000_000));
    }

    #[test]
    fn a_clock_that_is_set_back_keeps_nobody_out_for_long() {
        let mut throttle = Throttle::default();
        admitted(&mut throttle, ip("10.0.0.1"), 1_000_000_000);
        assert!(!throttle.admit(ip("10.0.0.1"), 1_000));
        assert!((1_100..1_300).step_by(50).any(|now_ms| throttle.admit(ip("10.0.0.1"), now_ms)));
    }
}
