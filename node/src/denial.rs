//! What clients are not allowed to do, as the log tells it.
//!
//! Bounds: a core, which is a thread, writes at most `PER_SECOND` lines in a second, and the next
//! line says how many it left out. Names that clients choose are cut to `NAME` bytes; payloads are
//! never written.

use std::cell::Cell;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use mqtt::Reason;
use policy::{Action, Decision};
use tracing::info;

use crate::endpoint::Profile;

/// Lines of one core in a second.
const PER_SECOND: u32 = 10;

/// Bytes of a client id or a resource in a line.
const NAME: usize = 256;

/// That somebody may not do something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    action: Action,
    /// As policies name it, like `topic/a/b`.
    resource: Box<str>,
    why: &'static str,
}

impl Denial {
    /// What a policy says about an action on a topic name, a topic filter or a client id.
    pub fn check(action: Action, name: &str, decision: Decision) -> Result<(), Self> {
        let why = match decision {
            Decision::Allowed => return Ok(()),
            Decision::ExplicitDeny => "a statement of a policy denies it",
            Decision::ImplicitDeny => "no statement of a policy allows it",
        };
        Err(Self::new(action, name, why))
    }

    /// That the name is the broker's own, whatever policies say.
    pub fn reserved(action: Action, name: &str) -> Self {
        Self::new(action, name, "the topic is reserved")
    }

    fn new(action: Action, name: &str, why: &'static str) -> Self {
        let kind = match action {
            Action::Connect => "client",
            Action::Subscribe => "topicfilter",
            _ => "topic",
        };
        Self { action, resource: format!("{kind}/{}", shortened(name)).into(), why }
    }

    /// Tells of what an open connection may not do.
    pub fn tell(&self, profile: &Profile, now: Instant) {
        let Some(left_out) = admit(now) else { return };
        info!(
            client = shortened(&profile.client),
            principal = profile.principal.name(),
            ip = profile.source_ip.map(display),
            action = self.action.name(),
            resource = &*self.resource,
            why = self.why,
            left_out,
            "denied"
        );
    }
}

/// Somebody whose CONNECT is refused.
#[derive(Clone, Copy, Debug)]
pub struct Newcomer<'a> {
    /// The client id.
    pub client: &'a str,
    /// Who it is.
    pub principal: &'a str,
    /// Its address.
    pub ip: Option<IpAddr>,
}

/// Tells of a CONNECT that is refused: with the denial where a policy has decided, otherwise with
/// the cause where one is known beside the reason.
pub fn tell_refused(
    newcomer: Newcomer<'_>,
    reason: Reason,
    denial: Option<&Denial>,
    cause: Option<String>,
    now: Instant,
) {
    let Some(left_out) = admit(now) else { return };
    let why = denial.map(|denial| denial.why).or(cause.as_deref());
    info!(
        client = shortened(newcomer.client),
        principal = newcomer.principal,
        ip = newcomer.ip.map(display),
        reason = reason.name(),
        action = denial.map(|denial| denial.action.name()),
        resource = denial.map(|denial| &*denial.resource),
        why,
        left_out,
        "connection refused"
    );
}

/// The beginning of a name.
fn shortened(name: &str) -> &str {
    &name[..name.floor_char_boundary(NAME)]
}

/// How much a core has said in this second.
#[derive(Clone, Copy)]
struct Said {
    since: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl Said {
    const NOTHING: Self = Self { since: None, lines: 0, left_out: 0 };

    /// Whether one more line may be written. `Some(Some(n))`: it is the first after `n` that were
    /// left out.
    fn admit(&mut self, now: Instant) -> Option<Option<u64>> {
        let second = Duration::from_secs(1);
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= second) {
            (self.since, self.lines) = (Some(now), 0);
        }
        if self.lines >= PER_SECOND {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(Some(std::mem::take(&mut self.left_out)).filter(|left_out| *left_out > 0))
    }
}

fn admit(now: Instant) -> Option<Option<u64>> {
    thread_local!(static SAID: Cell<Said> = const { Cell::new(Said::NOTHING) });
    let mut said = SAID.get();
    let admitted = said.admit(now);
    SAID.set(said);
    admitted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_so_many_lines_and_the_next_counts_the_rest() {
        let (mut said, start) = (Said::NOTHING, Instant::now());
        for _ in 0..PER_SECOND {
            assert_eq!(said.admit(start), Some(None));
        }
        for _ in 0..3 {
            assert_eq!(said.admit(start + Duration::from_millis(999)), None);
        }
        assert_eq!(said.admit(start + Duration::from_secs(1)), Some(Some(3)));
        assert_eq!(said.admit(start + Duration::from_secs(1)), Some(None));
    }

    #[test]
    fn names_are_cut_between_characters() {
        let name = "ä".repeat(NAME);
        let denial = Denial::reserved(Action::Publish, &format!("x{name}"));
        assert_eq!(denial.resource.len(), "topic/".len() + NAME - 1);
    }
}
