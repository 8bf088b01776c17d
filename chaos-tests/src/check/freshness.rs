//! What has expired is not sent any more, and what is sent says how long it lasts [v5 3.3.2.3.3].
//!
//! The interval counts from when a node has the publication: not before it is sent, nor after it is
//! acknowledged. A copy is sent after the CONNECT of the connection that it comes with. One with DUP
//! may have been begun in time; so may one of an earlier sending than the one that was acknowledged,
//! which a node can have had at any time. Who is given what expires speaks MQTT 5.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::troubles::{Troubles, between};
use super::{Promise, Verdict};
use crate::record::{At, Event, What};

/// Intervals are whole seconds, and what is left of one is rounded up.
const ROUNDING: Duration = Duration::from_secs(1);
/// How much later than it is sent a client has read a copy, unless a process stands still.
const READ_WITHIN: Duration = Duration::from_secs(5);
/// How long a session has to be connected while all is well to be owed what would expire.
const GIVEN_WITHIN: Duration = Duration::from_secs(3);

/// A publication with an interval.
struct Expiring {
    sent: At,
    interval: Duration,
    /// The last sending.
    attempt: u32,
    /// When it was acknowledged, and which sending of it.
    acknowledged: Option<(At, u32)>,
}

/// A connection of a session.
struct Connection {
    asked: At,
    since: At,
    /// When it was last seen to live.
    alive: At,
}

/// What is to be known of a history for it.
pub(super) struct Freshness<'a> {
    publications: HashMap<(&'a str, u64), Expiring>,
    connections: HashMap<&'a str, Vec<Connection>>,
    troubles: Troubles,
    end: At,
}

impl<'a> Freshness<'a> {
    pub(super) fn of(history: &'a [Event]) -> Self {
        let troubles = Troubles::of(history);
        let end = history.last().map_or(At::ZERO, |event| event.at);
        let (publications, connections) = (HashMap::new(), HashMap::new());
        let mut all = Self { publications, connections, troubles, end };
        // Whose a connection is, and which of its owner's.
        let mut owners: HashMap<u64, (&str, usize)> = HashMap::new();
        for Event { at, what } in history {
            match what {
                What::Expiring { topic, number, attempt, interval } => {
                    let interval = Duration::from_secs(u64::from(*interval));
                    let first = Expiring { sent: *at, interval, attempt: 0, acknowledged: None };
                    all.publications.entry((topic, *number)).or_insert(first).attempt = *attempt;
                }
                What::Acknowledged { topic, number } => {
                    if let Some(it) = all.publications.get_mut(&(topic.as_str(), *number)) {
                        it.acknowledged.get_or_insert((*at, it.attempt));
                    }
                }
                What::Connected { client, connection, asked, .. } => {
                    let own = all.connections.entry(client).or_default();
                    owners.insert(*connection, (client, own.len()));
                    own.push(Connection { asked: *asked, since: *at, alive: *at });
                }
                What::Pinged { connection, asked } => {
                    let Some(&(client, at)) = owners.get(connection) else { continue };
                    all.connections.entry(client).or_default()[at].alive = *asked;
                }
                _ => {}
            }
        }
        all
    }

    /// Whether a publication may expire before the history ends.
    pub(super) fn may_expire(&self, topic: &str, number: u64) -> bool {
        self.publications.get(&(topic, number)).is_some_and(|it| it.sent + it.interval < self.end)
    }

    /// Whether a later sending of a publication may be the first that does not expire.
    pub(super) fn may_be_renewed(&self, topic: &str, number: u64) -> bool {
        self.publications.get(&(topic, number)).is_some_and(|it| it.attempt > 0)
    }

    /// Whether a session must have been given a publication that may expire: it was connected long
    /// enough while all was well.
    pub(super) fn is_due(&self, client: &str, topic: &str, number: u64) -> bool {
        let Some(it) = self.publications.get(&(topic, number)) else { return true };
        let (Some((acknowledged, _)), Some(own)) = (it.acknowledged, self.connections.get(client))
        else {
            return false;
        };
        let next = own.iter().skip(1).map(|next| next.asked).chain([At::MAX]);
        own.iter().zip(next).any(|(connection, next)| {
            let until = (it.sent + it.interval).min(connection.alive).min(next);
            let from = acknowledged.max(connection.since);
            let from = between(&self.troubles.times, from, until).fold(from, |at, it| at.max(it.1));
            until >= from + GIVEN_WITHIN
        })
    }

    /// When the copy that has come can have been sent at the earliest.
    fn sent_after(&self, asked: At, come: At) -> At {
        let sent = come.saturating_sub(READ_WITHIN);
        match between(&self.troubles.stops, sent, come).next() {
            Some(_) => asked,
            None => asked.max(sent),
        }
    }
}

/// Judges copies; what is lacking is judged with [everything else](super::delivery).
pub(super) fn check(history: &[Event], freshness: &Freshness<'_>, verdict: &mut Verdict) {
    let mut found: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for Event { at, what } in history {
        let What::Delivered { client, topic, number, attempt, dup, interval, .. } = what else {
            continue;
        };
        let left = interval.map(|secs| Duration::from_secs(u64::from(secs)));
        let connections = freshness.connections.get(client.as_str());
        // The last one before it came.
        let asked = connections.and_then(|own| {
            let count = own.partition_point(|it| it.since <= *at);
            Some(own[..count].last()?.asked)
        });
        let sent = freshness.sent_after(asked.unwrap_or_default(), *at);
        let fault = match freshness.publications.get(&(topic.as_str(), *number)) {
            None => left.map(|left| format!("it carries {left:?} and was given no interval")),
            Some(publication) => publication.fault(*attempt, *dup, left, sent),
        };
        if let Some(fault) = fault {
            let text = format!("{number} of {topic} (sending {attempt}) at {at:?}: {fault}");
            found.entry(client).or_default().push(text);
        }
    }
    for (client, cases) in found {
        verdict.tell(Promise::Fresh, client, &cases);
    }
}

impl Expiring {
    /// What is wrong with a copy that carries so much and was sent at this time or later.
    fn fault(&self, attempt: u32, dup: bool, left: Option<Duration>, sent: At) -> Option<String> {
        let interval = self.interval;
        let since = self.acknowledged.filter(|(_, of)| attempt >= *of);
        // How long it has waited at least.
        let waited = since.map_or(Duration::ZERO, |(at, _)| sent.saturating_sub(at));
        if !dup && waited > interval + ROUNDING {
            return Some(format!("it was to expire after {interval:?} and has waited {waited:?}"));
        }
        match left {
            None => Some(format!("it does not say what is left of {interval:?}")),
            Some(Duration::ZERO) => None,
            Some(left) if left + waited <= interval + ROUNDING && left <= interval => None,
            Some(left) => Some(format!("it carries {left:?} of {interval:?} after {waited:?}")),
        }
    }
}
