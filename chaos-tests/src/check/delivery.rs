//! What was acknowledged is delivered: all of it, in order, and once where that is promised.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use mqtt::QoS;

use super::freshness::Freshness;
use super::{Promise, Verdict};
use crate::record::{At, Event, What};

/// How far apart refusals may be that have one cause: a group without a leader, a disk without room.
const REFUSED_TOGETHER: Duration = Duration::from_secs(3);

/// What was published on one topic.
struct Topic {
    qos: QoS,
    sent: HashMap<u64, At>,
    acknowledged: Vec<u64>,
    withdrawn: HashSet<u64>,
    /// What has no place in the order: the broker said that it does not take it, or nothing at all.
    unplaced: HashSet<u64>,
}

/// What one session is owed and was given.
#[derive(Default)]
struct Session<'a> {
    subscriptions: Vec<(&'a str, QoS, At)>,
    copies: BTreeMap<&'a str, Vec<Copy>>,
    connected: bool,
    gone: Vec<String>,
    /// Its members have their copies from several queues, in no order that could be told.
    is_shared: bool,
}

struct Copy {
    at: At,
    number: u64,
    attempt: u32,
    qos: QoS,
    dup: bool,
}

pub(super) fn check(history: &[Event], freshness: &Freshness<'_>, verdict: &mut Verdict) {
    let mut topics: BTreeMap<&str, Topic> = BTreeMap::new();
    let mut sessions: BTreeMap<&str, Session<'_>> = BTreeMap::new();
    let mut refusals = Vec::new();
    for Event { at, what } in history {
        match what {
            What::Published { topic, number, qos } => {
                let new = || Topic {
                    qos: *qos,
                    sent: HashMap::new(),
                    acknowledged: Vec::new(),
                    withdrawn: HashSet::new(),
                    unplaced: HashSet::new(),
                };
                topics.entry(topic).or_insert_with(new).sent.insert(*number, *at);
            }
            What::Acknowledged { topic, number } => {
                if let Some(topic) = topics.get_mut(topic.as_str()) {
                    topic.acknowledged.push(*number);
                }
            }
            What::Refused { topic, number } | What::Abandoned { topic, number } => {
                refusals.push(*at);
                if let Some(topic) = topics.get_mut(topic.as_str()) {
                    topic.unplaced.insert(*number);
                }
            }
            What::Subscribed { client, prefix, qos } => {
                sessions.entry(client).or_default().subscriptions.push((prefix, *qos, *at));
            }
            What::Delivered { client, topic, number, attempt, qos, dup, .. } => {
                let copy =
                    Copy { at: *at, number: *number, attempt: *attempt, qos: *qos, dup: *dup };
                sessions.entry(client).or_default().copies.entry(topic).or_default().push(copy);
            }
            What::Connected { client, clean, present, node, .. } => {
                let session = sessions.entry(client).or_default();
                if *clean == *present && (*clean || session.connected) {
                    session.gone.push(format!("{at:?}, node {node}: present is {present}"));
                }
                session.connected |= !clean;
            }
            What::Shared { share, topic, number } => {
                let session = sessions.entry(share).or_default();
                session.is_shared = true;
                let copy =
                    Copy { at: *at, number: *number, attempt: 0, qos: QoS::AtLeastOnce, dup: true };
                session.copies.entry(topic).or_default().push(copy);
            }
            What::Withdrawn { topic, number } => {
                if let Some(topic) = topics.get_mut(topic.as_str()) {
                    topic.withdrawn.insert(*number);
                }
            }
            _ => {}
        }
    }
    for (client, session) in &sessions {
        verdict.tell(Promise::Present, client, &session.gone);
        for (name, topic) in &topics {
            session.judge(client, (name, topic), freshness, &refusals, verdict);
        }
        for name in session.copies.keys().filter(|name| !topics.contains_key(*name)) {
            verdict.tell(Promise::Sent, client, &[format!("{name} has no publisher")]);
        }
    }
}

impl Session<'_> {
    fn judge(
        &self,
        client: &str,
        (name, topic): (&str, &Topic),
        freshness: &Freshness<'_>,
        refusals: &[At],
        verdict: &mut Verdict,
    ) {
        let none = Vec::new();
        let copies = self.copies.get(name).unwrap_or(&none);
        let who = format!("{client} of {name}");
        let subscription = self.subscriptions.iter().find(|(prefix, ..)| name.starts_with(prefix));
        if let Some((_, _, since)) = subscription {
            let seen: HashSet<u64> = copies.iter().map(|copy| copy.number).collect();
            let owed = topic.acknowledged.iter().filter(|number| topic.sent[number] >= *since);
            let mut count = |what| *verdict.counts.entry(what).or_default() += 1;
            let owed = owed.filter(|number| {
                if !freshness.may_expire(name, **number) {
                    return true;
                }
                let is_due = freshness.is_due(client, name, **number);
                match (is_due, seen.contains(number)) {
                    (true, _) => count("due before they expire"),
                    (false, true) => count("given before they expire"),
                    (false, false) => count("expired"),
                }
                is_due
            });
            let lost = owed.filter(|number| !seen.contains(number));
            let lost: Vec<_> =
                lost.map(|number| format!("{number}, sent at {:?}", topic.sent[number])).collect();
            verdict.tell(Promise::Delivered, &who, &lost);
        }
        let invented = |copy: &&Copy| topic.sent.get(&copy.number).is_none_or(|at| *at > copy.at);
        let invented: Vec<_> = copies.iter().filter(invented).map(Copy::told).collect();
        verdict.tell(Promise::Sent, &who, &invented);
        let withdrawn = copies.iter().filter(|copy| topic.withdrawn.contains(&copy.number));
        verdict.tell(Promise::Withdrawn, &who, &withdrawn.map(Copy::told).collect::<Vec<_>>());
        if self.is_shared {
            return;
        }
        // Nor is the place of what the session did not ask for yet when it was sent, or of what comes
        // when an earlier sending of it may have expired.
        let mut unplaced = topic.unplaced.clone();
        if let Some((_, _, since)) = subscription {
            let before = topic.sent.iter().filter(|(_, at)| *at < since);
            unplaced.extend(before.map(|(number, _)| *number));
        }
        let numbers = copies.iter().map(|copy| copy.number);
        unplaced.extend(numbers.filter(|number| freshness.may_be_renewed(name, *number)));
        // Nor of what was sent again, if publications were refused about when it was first sent: it may
        // have been one of them, and its client gone before it heard that.
        let may_be_refused = |copy: &&Copy| {
            let sent = topic.sent.get(&copy.number).copied().unwrap_or_default();
            copy.attempt > 0 && refusals.iter().any(|at| at.abs_diff(sent) < REFUSED_TOGETHER)
        };
        unplaced.extend(copies.iter().filter(may_be_refused).map(|copy| copy.number));
        verdict.tell(Promise::Ordered, &who, &disordered(copies, unplaced));
        let granted = subscription.map_or(QoS::AtMostOnce, |(_, qos, _)| *qos);
        match topic.qos.min(granted) {
            QoS::ExactlyOnce => verdict.tell(Promise::Once, &who, &repeated(copies)),
            QoS::AtLeastOnce => verdict.tell(Promise::Marked, &who, &unmarked(copies)),
            QoS::AtMostOnce => {}
        }
    }
}

impl Copy {
    fn told(&self) -> String {
        let Self { at, number, attempt, qos, dup } = self;
        format!("{number} (sending {attempt}, {qos:?}, dup {dup}) at {at:?}")
    }
}

/// The first copies of each number come in the order of the numbers [v5 MQTT-4.6.0-5].
fn disordered(copies: &[Copy], unplaced: HashSet<u64>) -> Vec<String> {
    let mut seen = unplaced;
    let mut highest: Option<&Copy> = None;
    let mut found = Vec::new();
    for copy in copies.iter().filter(|copy| seen.insert(copy.number)) {
        match highest {
            Some(before) if before.number > copy.number => {
                found.push(format!("{} after {}", copy.told(), before.told()));
            }
            _ => highest = Some(copy),
        }
    }
    found
}

fn repeated(copies: &[Copy]) -> Vec<String> {
    let mut seen = HashMap::new();
    let again = |copy: &'_ Copy| seen.insert(copy.number, copy.at).zip(Some(copy.told()));
    let again = copies.iter().filter_map(again);
    again.map(|(first, copy)| format!("{copy}, and at {first:?}")).collect()
}

/// Of one sending, only one copy comes without DUP.
fn unmarked(copies: &[Copy]) -> Vec<String> {
    let mut seen = HashMap::new();
    let again =
        |copy: &'_ Copy| seen.insert((copy.number, copy.attempt), copy.at).zip(Some(copy.told()));
    let fresh = copies.iter().filter(|copy| !copy.dup);
    fresh.filter_map(again).map(|(first, copy)| format!("{copy}, and at {first:?}")).collect()
}
