//! Who was revoked is heard no more: nothing that it begins later than a second after the revocation
//! was acknowledged comes to anything, be it CONNECT, PUBLISH or PINGREQ.
//!
//! A node that does not hear the others finds out when it has had no leader for some seconds, and one
//! that stood still after it goes on: while something is done to the cluster that is the bound.

use std::collections::HashMap;
use std::time::Duration;

use super::{Promise, Verdict};
use crate::record::{At, Event, What};

/// How soon a revocation counts on every node while all is well.
const SOON: Duration = Duration::from_secs(1);
/// How soon it counts on a node that is cut off: it notices within two seconds that it has no leader,
/// ends its connections three later (ADR 10), and has a second for that.
const CUT_OFF: Duration = Duration::from_secs(6);

/// A time in which a certificate was not active.
struct Revocation<'a> {
    principal: &'a str,
    since: At,
    /// When it might be active again.
    until: At,
}

/// When nodes may have known less than others.
#[derive(Default)]
struct Troubles {
    /// Something was done to the cluster.
    times: Vec<(At, At)>,
    /// A process stood still.
    stops: Vec<(At, At)>,
}

impl Troubles {
    /// From when on a revocation counts for what began then.
    fn counts_from(&self, revoked: At, begun: At) -> At {
        let meanwhile = |(since, until): &&(At, At)| *since < begun && *until > revoked;
        if !self.times.iter().any(|time| meanwhile(&time)) {
            return revoked + SOON;
        }
        let stops = self.stops.iter().filter(meanwhile);
        stops.map(|stop| stop.1).fold(revoked, At::max) + CUT_OFF
    }
}

/// Something that a client asked for and got.
struct Answered<'a> {
    principal: &'a str,
    begun: At,
    at: At,
    what: String,
}

pub(super) fn check(history: &[Event], verdict: &mut Verdict) {
    let revocations = revocations(history);
    let mut troubles = Troubles::default();
    for Event { at, what } in history {
        match what {
            What::Troubled { since } => troubles.times.push((*since, *at)),
            What::Stopped { since, .. } => troubles.stops.push((*since, *at)),
            _ => {}
        }
    }
    let answered = answered(history);
    let mut judged = 0;
    for Revocation { principal, since, until } in revocations {
        // With time for something to begin too late.
        let seen = since + 2 * SOON;
        judged += usize::from(until >= seen && troubles.counts_from(since, seen) < seen);
        let found: Vec<String> = answered
            .iter()
            .filter(|it| it.principal == principal && it.at < until && it.begun > since)
            .filter(|it| it.begun > troubles.counts_from(since, it.begun))
            .map(|it| format!("{} at {:?}, begun at {:?}", it.what, it.at, it.begun))
            .collect();
        verdict.tell(Promise::Silent, &format!("{principal}, revoked at {since:?}"), &found);
    }
    if judged > 0 {
        verdict.counts.insert("revocations judged by the second", judged);
    }
}

fn revocations(history: &[Event]) -> Vec<Revocation<'_>> {
    let mut all: Vec<Revocation<'_>> = Vec::new();
    for Event { at, what } in history {
        match what {
            What::Revoked { principal } => {
                all.push(Revocation { principal, since: *at, until: At::MAX });
            }
            What::Restoring { principal } => {
                let before = all.iter_mut().filter(|it| it.principal == principal);
                before.for_each(|it| it.until = it.until.min(*at));
            }
            _ => {}
        }
    }
    all
}

/// What those got who have certificates.
fn answered(history: &[Event]) -> Vec<Answered<'_>> {
    let (mut clients, mut topics) = (HashMap::new(), HashMap::new());
    let (mut connections, mut published) = (HashMap::new(), HashMap::new());
    let mut all = Vec::new();
    for Event { at, what } in history {
        let at = *at;
        match what {
            What::Identified { client, topic, principal } => {
                clients.insert(client, principal.as_str());
                topics.insert(topic, principal.as_str());
            }
            What::Connected { client, connection, node, asked, .. } => {
                let Some(&principal) = clients.get(client) else { continue };
                connections.insert(connection, principal);
                let what = format!("{client} is connected to node {node}");
                all.push(Answered { principal, begun: *asked, at, what });
            }
            What::Pinged { connection, asked } => {
                let Some(&principal) = connections.get(connection) else { continue };
                let what = format!("connection {connection} answers a ping");
                all.push(Answered { principal, begun: *asked, at, what });
            }
            What::Published { topic, number, .. } => {
                let Some(&principal) = topics.get(topic) else { continue };
                published.insert((topic, number), (principal, at));
            }
            What::Acknowledged { topic, number } => {
                let Some(&(principal, begun)) = published.get(&(topic, number)) else { continue };
                let what = format!("{number} on {topic} is acknowledged");
                all.push(Answered { principal, begun, at, what });
            }
            _ => {}
        }
    }
    all
}
