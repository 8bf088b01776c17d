//! What the log tells of clients: what they are not allowed to do, who is refused, who speaks something
//! else than the listener, who is taken over, whose certificate has not introduced itself.
//!
//! Bounds: a core, which is a thread, writes at most `PER_SECOND` lines of each kind in a second, and the
//! next line says how many it left out. Texts are made only for lines that are written. Names that
//! clients choose are cut to `NAME` bytes; payloads are never written.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt::Display;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use mqtt::Reason;
use policy::{Action, Decision};
use tracing::{info, warn};

use crate::endpoint::Profile;

/// Lines of one core and kind in a second.
const PER_SECOND: u32 = 10;

/// Bytes of a client id or a resource in a line.
const NAME: usize = 256;

/// That somebody may not do something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial<'a> {
    action: Action,
    /// A topic name, a topic filter or a client id.
    name: Cow<'a, str>,
    why: &'static str,
}

impl<'a> Denial<'a> {
    /// What a policy says about an action on a topic name, a topic filter or a client id.
    pub fn check(action: Action, name: &'a str, decision: Decision) -> Result<(), Self> {
        let why = match decision {
            Decision::Allowed => return Ok(()),
            Decision::ExplicitDeny => "a statement of a policy denies it",
            Decision::ImplicitDeny => "no statement of a policy allows it",
        };
        Err(Self { action, name: name.into(), why })
    }

    /// That the name is the broker's own, whatever policies say.
    pub fn reserved(action: Action, name: &'a str) -> Self {
        Self { action, name: name.into(), why: "the topic is reserved" }
    }

    /// As much of it as a line says.
    pub fn kept(&self) -> Denial<'static> {
        let name = Cow::Owned(shortened(&self.name).to_owned());
        Denial { action: self.action, name, why: self.why }
    }

    /// As policies name it, like `topic/a/b`.
    fn resource(&self) -> String {
        self.action.resource(shortened(&self.name))
    }

    /// Tells of what an open connection may not do.
    pub fn tell(&self, profile: &Profile, now: Instant) {
        let Some(left_out) = admit(Kind::Denied, now) else { return };
        info!(
            client = shortened(&profile.client),
            principal = profile.principal.name(),
            ip = profile.source_ip.map(display),
            action = self.action.name(),
            resource = self.resource(),
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
    denial: Option<&Denial<'_>>,
    cause: Option<&dyn Display>,
    now: Instant,
) {
    let Some(left_out) = admit(Kind::Refused, now) else { return };
    let why = denial.map(|denial| denial.why.to_owned()).or(cause.map(|cause| cause.to_string()));
    info!(
        client = shortened(newcomer.client),
        principal = newcomer.principal,
        ip = newcomer.ip.map(display),
        reason = reason.name(),
        action = denial.map(|denial| denial.action.name()),
        resource = denial.map(Denial::resource),
        why,
        left_out,
        "connection refused"
    );
}

/// Tells of a client that a custom authorizer does not let in, or not again, by the name of that, what
/// becomes of it and what would help.
pub fn tell_unauthorized(
    authorizer: Option<&str>,
    refusal: authorizer::Refusal,
    detail: &str,
    outcome: &'static str,
    now: Instant,
) {
    let Some(left_out) = admit(Kind::Unauthorized, now) else { return };
    info!(
        authorizer = authorizer.map(shortened),
        why = %refusal,
        detail = (!detail.is_empty()).then_some(detail),
        remedy = refusal.remedy(),
        outcome,
        left_out,
        "a custom authorizer did not allow a client"
    );
}

/// Tells of a certificate that has not registered itself, as its authority would have it.
pub fn tell_unregistered(certificate: &str, authority: &str, why: &dyn Display, now: Instant) {
    let Some(left_out) = admit(Kind::Unregistered, now) else { return };
    info!(certificate, authority, %why, left_out, "a certificate did not register itself");
}

/// Tells of a device that the template of its authority was not carried out for.
pub fn tell_unprovisioned(certificate: &str, authority: &str, why: &dyn Display, now: Instant) {
    let Some(left_out) = admit(Kind::Unprovisioned, now) else { return };
    warn!(
        certificate,
        authority,
        %why,
        left_out,
        "a device was not provisioned just in time: its certificate waits for activation, and it is tried \
         again when the device connects"
    );
}

/// Tells of somebody who does not speak what a listener is for, and what would help.
pub fn tell_mistaken(
    listener: &str,
    ip: IpAddr,
    why: &dyn Display,
    remedy: Option<&str>,
    now: Instant,
) {
    let Some(left_out) = admit(Kind::Mistaken, now) else { return };
    info!(listener, %ip, %why, remedy, left_out, "no connection");
}

/// Tells of a connection that ends because its client id has connected again.
pub fn tell_taken_over(profile: &Profile, now: Instant) {
    let Some(left_out) = admit(Kind::TakenOver, now) else { return };
    info!(
        client = shortened(&profile.client),
        principal = profile.principal.name(),
        ip = profile.source_ip.map(display),
        left_out,
        "taken over: its client id has connected again"
    );
}

/// The beginning of a name.
pub fn shortened(name: &str) -> &str {
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

/// What is told of; each has its lines, so that nobody drowns the others.
#[derive(Clone, Copy)]
enum Kind {
    Denied,
    Refused,
    Mistaken,
    TakenOver,
    Unauthorized,
    Unregistered,
    Unprovisioned,
}

const KINDS: usize = 7;

fn admit(kind: Kind, now: Instant) -> Option<Option<u64>> {
    thread_local!(static SAID: Cell<[Said; KINDS]> = const { Cell::new([Said::NOTHING; KINDS]) });
    let mut said = SAID.get();
    let admitted = said[kind as usize].admit(now);
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
        let name = format!("x{}", "ä".repeat(NAME));
        let denial = Denial::reserved(Action::Publish, &name);
        assert_eq!(denial.resource().len(), "topic/".len() + NAME - 1);
        assert_eq!(denial.kept().resource(), denial.resource());
    }

    #[test]
    fn denials_leave_lines_to_refusals() {
        let now = Instant::now();
        while admit(Kind::Denied, now).is_some() {}
        assert_eq!(admit(Kind::Refused, now), Some(None));
    }
}
