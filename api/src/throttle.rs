//! How often somebody may ask: pure, and told the time.
//!
//! Everybody who is told apart has a [`Due`] of their own. [`Dues`] keep as many as there is room for and
//! forget whoever may ask as often as at first again; those whom there is no room for share one.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use fleet::registry::Timestamp;

/// Callers of one plane that are told apart. A second after its last request any may be forgotten, so
/// only more within one second would have to share.
const CALLERS: usize = 65_536;

/// Between two looks for whom to forget: each goes through all, while others wait.
const LOOKS_EVERY_NS: u64 = 100 * NANOS_PER_MS;

const NANOS_PER_MS: u64 = 1_000_000;
const NANOS_PER_SEC: u64 = 1_000_000_000;

/// So many in a second, and so many at once after a pause.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    every_ns: u64,
    at_once: u64,
}

impl Rate {
    pub(crate) const fn new(per_second: u32, at_once: u32) -> Self {
        Self { every_ns: NANOS_PER_SEC / per_second as u64, at_once: at_once as u64 }
    }
}

/// When the next one would be due if they came evenly, in nanoseconds (GCRA).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Due(u64);

impl Due {
    pub(crate) fn admit(&mut self, rate: Rate, now: Timestamp) -> bool {
        let now_ns = nanos(now);
        let ahead_ns = rate.every_ns * (rate.at_once - 1);
        // A clock that is set back keeps nobody out for longer than that.
        let due = self.0.clamp(now_ns, now_ns.saturating_add(ahead_ns + rate.every_ns));
        let is_admitted = due - now_ns <= ahead_ns;
        self.0 = if is_admitted { due.saturating_add(rate.every_ns) } else { due };
        is_admitted
    }
}

fn nanos(at: Timestamp) -> u64 {
    at.0.saturating_mul(NANOS_PER_MS)
}

/// What is due for each of many.
#[derive(Debug)]
pub(crate) struct Dues<K> {
    room: usize,
    known: HashMap<K, Due>,
    /// When it was last looked for whom to forget.
    looked_ns: Option<u64>,
    others: Due,
}

impl<K: Eq + Hash> Dues<K> {
    pub(crate) fn new(room: usize) -> Self {
        Self { room, known: HashMap::new(), looked_ns: None, others: Due::default() }
    }

    /// What is due for this one; without a name, for those who are not told apart.
    pub(crate) fn of(&mut self, who: Option<K>, now: Timestamp) -> &mut Due {
        let Some(who) = who else { return &mut self.others };
        if self.known.len() >= self.room && !self.known.contains_key(&who) {
            self.forget(nanos(now));
            if self.known.len() >= self.room {
                return &mut self.others;
            }
        }
        self.known.entry(who).or_default()
    }

    /// Forgets whoever may ask as often as at first again, unless it was looked just now.
    fn forget(&mut self, now_ns: u64) {
        let since = self.looked_ns.and_then(|looked| now_ns.checked_sub(looked));
        if since.is_none_or(|since| since >= LOOKS_EVERY_NS) {
            self.looked_ns = Some(now_ns);
            self.known.retain(|_, due| due.0 > now_ns);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }
}

/// How often each caller may ask for something. All clones of one count together.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    control: Option<Arc<Limiter>>,
    data: Option<Arc<Limiter>>,
}

impl Rates {
    /// Requests in a second that one caller may make of the control plane and of the data plane; as many as
    /// it likes without a number.
    pub fn new(control: Option<NonZeroU32>, data: Option<NonZeroU32>) -> Self {
        let limiter = |rate: NonZeroU32| Arc::new(Limiter::new(rate.get()));
        Self { control: control.map(limiter), data: data.map(limiter) }
    }

    pub(crate) fn admit_control(&self, caller: impl Hash, now: Timestamp) -> bool {
        self.control.as_ref().is_none_or(|it| it.admit(caller, now))
    }

    pub(crate) fn admit_data(&self, caller: impl Hash, now: Timestamp) -> bool {
        self.data.as_ref().is_none_or(|it| it.admit(caller, now))
    }
}

/// The callers of one plane.
struct Limiter {
    rate: Rate,
    /// Callers are kept as hashes: each takes the same room, whatever it is called, and nobody outside
    /// knows whose are alike.
    hasher: RandomState,
    callers: Mutex<Dues<u64>>,
}

impl Limiter {
    fn new(per_second: u32) -> Self {
        Self {
            rate: Rate::new(per_second, per_second),
            hasher: RandomState::new(),
            callers: Mutex::new(Dues::new(CALLERS)),
        }
    }

    fn admit(&self, caller: impl Hash, now: Timestamp) -> bool {
        let caller = self.hasher.hash_one(caller);
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        callers.of(Some(caller), now).admit(self.rate, now)
    }
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter").field("rate", &self.rate).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(control: u32, data: u32) -> Rates {
        Rates::new(NonZeroU32::new(control), NonZeroU32::new(data))
    }

    /// How many of a thousand at once are admitted.
    fn admitted(rates: &Rates, caller: &str, now_ms: u64) -> usize {
        (0..1000).filter(|_| rates.admit_control(caller, Timestamp(now_ms))).count()
    }

    #[test]
    fn a_caller_has_its_rate() {
        let rates = rates(5, 0);
        for (caller, now_ms, expected) in [
            ("a", 1_000_000, 5),
            ("a", 1_000_199, 0),
            ("a", 1_000_200, 1),
            ("b", 1_000_200, 5),
            ("a", 1_000_600, 2),
            ("a", 1_009_000, 5),
            // The clock was set back.
            ("a", 1_000, 0),
            ("a", 1_200, 1),
        ] {
            assert_eq!(admitted(&rates, caller, now_ms), expected, "{caller} {now_ms}");
        }
    }

    #[test]
    fn a_clock_read_a_little_earlier_forgives_no_more_than_that() {
        let rates = rates(5, 0);
        for (now_ms, expected) in [
            (1_000_000, 5),
            // Whoever has read the clock before somebody else may ask after it.
            (999_990, 0),
            (1_000_000, 0),
            (1_000_189, 0),
            (1_000_190, 1),
            (1_000_180, 0),
        ] {
            assert_eq!(admitted(&rates, "a", now_ms), expected, "{now_ms}");
        }
    }

    #[test]
    fn any_number_is_a_rate() {
        for (rate, expected) in [(0, 1000), (1, 1), (3, 3), (999, 999), (u32::MAX, 1000)] {
            assert_eq!(admitted(&rates(rate, 1), "a", 1_000_000), expected, "{rate}");
        }
        assert!(rates(1, 0).admit_control("a", Timestamp(u64::MAX)));
    }

    #[test]
    fn clones_count_together_and_planes_apart() {
        let one = rates(2, 1);
        let other = one.clone();
        assert_eq!(admitted(&one, "a", 1_000_000), 2);
        assert_eq!(admitted(&other, "a", 1_000_000), 0);
        assert!(one.admit_data("a", Timestamp(1_000_000)));
        assert!(!other.admit_data("a", Timestamp(1_000_000)));
    }

    #[test]
    fn it_is_looked_now_and_then_for_whom_to_forget() {
        let mut dues = Dues::new(1);
        for (who, now_ms, has_own) in [
            ("a", 1_000, true),
            ("b", 1_005, false),
            // `a` may be forgotten, and was not when it was looked just before.
            ("b", 1_104, false),
            ("b", 1_105, true),
            // The clock was set back.
            ("c", 10, false),
            ("c", 110, false),
            ("d", 2_000, true),
        ] {
            let now = Timestamp(now_ms);
            dues.of(Some(who), now).admit(Rate::new(100, 1), now);
            assert_eq!(dues.known.contains_key(who), has_own, "{who} {now_ms}");
        }
    }

    #[test]
    fn who_is_not_told_apart_shares_one() {
        let rate = Rate::new(1, 1);
        let mut dues = Dues::new(2);
        for (who, now_ms, is_admitted) in [
            (Some("a"), 1_000, true),
            (Some("b"), 1_100, true),
            (Some("c"), 1_200, true),
            (Some("d"), 1_300, false),
            (None, 1_300, false),
            (Some("a"), 1_900, false),
            // `a` may ask as at first again, and is forgotten for `d`.
            (Some("d"), 2_000, true),
            (Some("b"), 2_050, false),
            (Some("d"), 2_050, false),
        ] {
            let now = Timestamp(now_ms);
            assert_eq!(dues.of(who, now).admit(rate, now), is_admitted, "{who:?} {now_ms}");
            assert!(dues.len() <= 2);
        }
    }
}
