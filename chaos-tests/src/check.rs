//! Judges the history of a cluster's clients: what no user may ever see.
//!
//! Pure: a history in, a [`Verdict`] out. It assumes that every client sees in its own order, that
//! each topic has one publisher which numbers what it sends, and that no value is written twice.
//! What was neither acknowledged nor refused may have happened at any time later, or never.

mod alone;
mod delivery;
mod expiry;
mod freshness;
mod register;
mod silence;
#[cfg(test)]
mod tests;
mod troubles;
mod version;

use std::collections::BTreeMap;
use std::fmt;

use crate::record::{Event, What};

pub(crate) use expiry::LATEST_END;
use freshness::Freshness;

/// A promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// An acknowledged publication reaches every lasting session that is subscribed; and a session
    /// that is said to be present lacks nothing.
    Delivered,
    /// QoS 2 is delivered once.
    Once,
    /// What a publisher sends on a topic arrives in that order.
    Ordered,
    /// Nothing arrives that was not sent.
    Sent,
    /// A repetition of QoS 1 is marked as one.
    Marked,
    /// A session that lasts is there.
    Present,
    /// The will of a client that left in good order is not published.
    Withdrawn,
    /// A session ends when its time is over, and not before.
    Expired,
    /// What has expired is not sent, and what is sent says how long it lasts.
    Fresh,
    /// At most one connection of a client id is alive.
    Alone,
    /// Whoever reads gets what was written last.
    Latest,
    /// Versions grow by one, and lasting sessions are told of each.
    Versions,
    /// Who was revoked is heard no more.
    Silent,
    /// The protocol is kept.
    Protocol,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub promise: Promise,
    /// How.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.promise, self.text)
    }
}

/// What is to be said of a history.
#[derive(Debug, Default)]
pub struct Verdict {
    /// What must not be.
    pub violations: Vec<Violation>,
    /// Connections that answered once more after they were replaced, because their node's process
    /// had stood still for longer than its leases: known, and harmless for sessions.
    pub revenants: usize,
    /// How much was seen of each kind.
    pub counts: BTreeMap<&'static str, usize>,
}

/// No more than this of each kind and party is told.
const TOLD: usize = 5;

impl Verdict {
    fn tell(&mut self, promise: Promise, who: &str, cases: &[String]) {
        if let Some(first) = cases.chunks(TOLD).next() {
            let text = format!("{who}: {}: {}", cases.len(), first.join("; "));
            self.violations.push(Violation { promise, text });
        }
    }
}

/// Judges a history, which is in the order of its times.
pub fn check(history: &[Event]) -> Verdict {
    let mut verdict = Verdict::default();
    for event in history {
        *verdict.counts.entry(name(&event.what)).or_default() += 1;
        if let What::Broken { client, text } = &event.what {
            verdict.tell(Promise::Protocol, client, std::slice::from_ref(text));
        }
    }
    let freshness = Freshness::of(history);
    delivery::check(history, &freshness, &mut verdict);
    freshness::check(history, &freshness, &mut verdict);
    alone::check(history, &mut verdict);
    expiry::check(history, &mut verdict);
    register::check(history, &mut verdict);
    silence::check(history, &mut verdict);
    version::check(history, &mut verdict);
    verdict
}

fn name(what: &What) -> &'static str {
    match what {
        What::Fault(_) => "faults",
        What::Stopped { .. } => "stops",
        What::Troubled { .. } => "times of trouble",
        What::Identified { .. } => "certificates taken up",
        What::Revoked { .. } => "certificates revoked",
        What::Restoring { .. } => "certificates restored",
        What::Connected { .. } => "connections",
        What::Unconnected { .. } => "connections that were not to be had",
        What::Pinged { .. } => "pings answered",
        What::Subscribed { .. } => "subscriptions",
        What::Published { .. } => "published",
        What::Expiring { .. } => "sent with an expiry interval",
        What::Acknowledged { .. } => "acknowledged",
        What::Refused { .. } => "refused",
        What::Abandoned { .. } => "abandoned",
        What::Delivered { .. } => "delivered",
        What::Shared { .. } => "shared",
        What::Withdrawn { .. } => "wills withdrawn",
        What::Wrote { acknowledged: true, .. } => "written",
        What::Wrote { .. } => "perhaps written",
        What::Read { .. } => "read",
        What::Told { .. } => "versions told",
        What::Woke { present: true, .. } => "woken in time",
        What::Woke { .. } => "woken too late",
        What::Broken { .. } => "broken",
    }
}
