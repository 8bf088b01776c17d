//! Who was revoked is heard no more: nothing that it begins later than a second after the revocation
//! was acknowledged comes to anything, be it CONNECT, PUBLISH or PINGREQ.
//!
//! A node that does not hear the others finds out when it has had no leader for some seconds, and one
//! that stood still after it goes on: while something is done to the cluster that is the bound.

use std::collections::HashMap;
use std::time::Duration;

use super::troubles::{Troubles, between};
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

/// From when on a revocation counts for what began then.
fn counts_from(troubles: &Troubles, revoked: At, begun: At) -> At {
    if between(&troubles.times, revoked, begun).next().is_none() {
        return revoked + SOON;
    }
    let stops = between(&troubles.stops, revoked, begun);
    stops.map(|stop| stop.1).fold(revoked, At::max) + CUT_OFF
}

/// Something that a client asked for.
struct Attempt<'a> {
    principal: &'a str,
    begun: At,
    at: At,
    /// What it got.
    got: Option<String>,
}

pub(super) fn check(history: &[Event], verdict: &mut Verdict) {
    let revocations = revocations(history);
    let troubles = Troubles::of(history);
    let attempts = attempts(history);
    let mut judged = 0;
    for Revocation { principal, since, until } in revocations {
        let (mut found, mut by_the_second) = (Vec::new(), false);
        let own = attempts.iter().filter(|it| it.principal == principal);
        for Attempt { begun, at, got, .. } in own.filter(|it| it.begun > since && it.at < until) {
            let counts_from = counts_from(&troubles, since, *begun);
            if *begun > counts_from {
                by_the_second |= counts_from == since + SOON;
                found.extend(got.as_ref().map(|it| format!("{it} at {at:?}, begun at {begun:?}")));
            }
        }
        judged += usize::from(by_the_second);
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

/// What those asked for who have certificates.
fn attempts(history: &[Event]) -> Vec<Attempt<'_>> {
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
                let got = Some(format!("{client} is connected to node {node}"));
                all.push(Attempt { principal, begun: *asked, at, got });
            }
            What::Unconnected { client, asked } => {
                let Some(&principal) = clients.get(client) else { continue };
                all.push(Attempt { principal, begun: *asked, at, got: None });
            }
            What::Pinged { connection, asked } => {
                let Some(&principal) = connections.get(connection) else { continue };
                let got = Some(format!("connection {connection} answers a ping"));
                all.push(Attempt { principal, begun: *asked, at, got });
            }
            What::Published { topic, number, .. } => {
                let Some(&principal) = topics.get(topic) else { continue };
                published.insert((topic, number), (principal, at));
                all.push(Attempt { principal, begun: at, at, got: None });
            }
            What::Acknowledged { topic, number } => {
                let Some(&(principal, begun)) = published.get(&(topic, number)) else { continue };
                let got = Some(format!("{number} on {topic} is acknowledged"));
                all.push(Attempt { principal, begun, at, got });
            }
            _ => {}
        }
    }
    all
}
