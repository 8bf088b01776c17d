//! What policies have decided for clients that an operator looks at: kept for a while, to be decided
//! again by another version of a policy.
//!
//! A connection that nobody looks at holds nothing of this. One that somebody does has its permissions
//! forgotten once, so that each topic is decided about again; what is decided once and remembered by
//! routes is noted once.
//!
//! Bounds: `CLIENTS` clients at a time, and for each the decisions of a [`Record`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use policy::{Action, Compiled, Decision, Request, Variables};

use crate::identity::Principal;

/// Clients that are looked at by one node.
const CLIENTS: usize = 64;
/// Different decisions that are kept of a client.
const DECISIONS: usize = 1000;
/// Bytes of what they are about.
const BYTES: usize = 256 << 10;
/// How long decisions stay after the last one was noted, in seconds.
const STAY_SECS: u64 = 3600;

/// What is looked at on this node.
#[derive(Debug, Default)]
pub struct Watches {
    clients: Mutex<HashMap<Box<str>, Arc<Watch>>>,
    /// How many those are, for whoever only asks whether there is one.
    count: AtomicUsize,
}

/// A client that is looked at.
#[derive(Debug, Default)]
pub struct Watch(Mutex<Record>);

/// The decisions about a client.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Until when they are noted, in seconds since 1970.
    pub until_secs: u64,
    /// Who it was, and what else it brought to its policies, when it was last seen.
    pub who: Option<(Principal, Variables)>,
    /// By what was asked.
    decisions: BTreeMap<(Action, Box<str>), Noted>,
    bytes: usize,
    /// Decisions for which there was no room.
    pub left_out: u64,
}

/// A decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// What was decided last.
    pub decision: Decision,
    /// How often it was decided.
    pub count: u64,
    /// When last, in seconds since 1970.
    pub last_secs: u64,
    /// Of a CONNECT: see [`Request`].
    pub persistent_connect: bool,
    /// Of a CONNECT: the topic of its will.
    pub last_will_topic: Option<Box<str>>,
}

impl Noted {
    /// The request as it was.
    pub fn request(&self) -> Request<'_> {
        Request {
            persistent_connect: self.persistent_connect,
            last_will_topic: self.last_will_topic.as_deref(),
            now_secs: Some(self.last_secs),
        }
    }
}

impl Record {
    fn note(&mut self, action: Action, name: &str, decision: Decision, request: &Request<'_>) {
        let now = request.now_secs.unwrap_or_default();
        if now >= self.until_secs {
            return;
        }
        let key = (action, Box::from(name));
        let is_known = self.decisions.contains_key(&key);
        if !is_known && (self.decisions.len() >= DECISIONS || self.bytes + name.len() > BYTES) {
            self.left_out += 1;
            return;
        }
        if !is_known {
            self.bytes += name.len();
        }
        let count = self.decisions.get(&key).map_or(0, |noted| noted.count);
        self.decisions.insert(
            key,
            Noted {
                decision,
                count: count + 1,
                last_secs: now,
                persistent_connect: request.persistent_connect,
                last_will_topic: request.last_will_topic.map(Into::into),
            },
        );
    }

    /// The decisions, in the order of actions and names.
    pub fn decisions(&self) -> impl Iterator<Item = (Action, &str, &Noted)> {
        self.decisions.iter().map(|((action, name), noted)| (*action, &**name, noted))
    }
}

impl Watch {
    /// Notes what a policy says.
    pub fn note(&self, policy: &Compiled, action: Action, name: &str, request: &Request<'_>) {
        let decision = policy.decide_name(action, name, request);
        self.0.lock().note(action, name, decision, request);
    }

    /// Notes who it is.
    pub fn saw(&self, principal: &Principal, variables: Variables) {
        self.0.lock().who = Some((principal.clone(), variables));
    }

    /// The decisions as they are now.
    pub fn record(&self) -> Record {
        self.0.lock().clone()
    }
}

impl Watches {
    /// Begins to look at a client, or looks longer; what was noted of it before is forgotten. None when
    /// too many are looked at.
    pub fn begin(&self, client: &str, now_secs: u64, until_secs: u64) -> Option<Arc<Watch>> {
        let mut clients = self.clients.lock();
        clients.retain(|_, watch| watch.0.lock().until_secs + STAY_SECS > now_secs);
        if !clients.contains_key(client) && clients.len() >= CLIENTS {
            self.count.store(clients.len(), Ordering::Relaxed);
            return None;
        }
        let watch = Arc::clone(clients.entry(client.into()).or_default());
        let who = watch.0.lock().who.clone();
        *watch.0.lock() = Record { until_secs, who, ..Record::default() };
        self.count.store(clients.len(), Ordering::Relaxed);
        Some(watch)
    }

    /// Stops looking at a client and forgets what was noted; false when nobody looks at it.
    pub fn end(&self, client: &str) -> bool {
        let mut clients = self.clients.lock();
        let ended = clients.remove(client);
        self.count.store(clients.len(), Ordering::Relaxed);
        // The connection holds it until it ends.
        if let Some(watch) = &ended {
            *watch.0.lock() = Record::default();
        }
        ended.is_some()
    }

    /// A client, if it is looked at.
    pub fn of(&self, client: &str) -> Option<Arc<Watch>> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.clients.lock().get(client).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(now_secs: u64) -> Request<'static> {
        Request { now_secs: Some(now_secs), ..Request::default() }
    }

    #[test]
    fn decisions_are_counted_until_the_end() {
        let watches = Watches::default();
        assert!(watches.of("lamp").is_none());
        let watch = watches.begin("lamp", 0, 100).unwrap();
        assert!(watches.of("lamp").is_some() && watches.of("door").is_none());
        let all = Compiled::allow_all();
        for (action, name, now) in [
            (Action::Publish, "a", 1),
            (Action::Publish, "a", 2),
            (Action::Receive, "a", 3),
            (Action::Publish, "b", 99),
            (Action::Publish, "b", 100),
        ] {
            watch.note(&all, action, name, &at(now));
        }
        let record = watch.record();
        let found: Vec<_> = record
            .decisions()
            .map(|(action, name, it)| (action, name, it.count, it.last_secs))
            .collect();
        assert_eq!(
            found,
            [
                (Action::Publish, "a", 2, 2),
                (Action::Publish, "b", 1, 99),
                (Action::Receive, "a", 1, 3),
            ]
        );
        assert!(record.decisions().all(|(.., it)| it.decision == Decision::Allowed));
        assert!(watches.end("lamp") && !watches.end("lamp") && watches.of("lamp").is_none());
        assert_eq!(watch.record().decisions().count(), 0);
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let watches = Watches::default();
        let watch = watches.begin("lamp", 0, 100).unwrap();
        let all = Compiled::allow_all();
        for number in 0..DECISIONS + 7 {
            watch.note(&all, Action::Publish, &number.to_string(), &at(1));
        }
        // What is known is counted on.
        watch.note(&all, Action::Publish, "0", &at(2));
        let record = watch.record();
        assert_eq!((record.decisions().count(), record.left_out), (DECISIONS, 7));
        assert_eq!(record.decisions().next().unwrap().2.count, 2);

        let watch = watches.begin("lamp", 0, 100).unwrap();
        let name = "x".repeat(60_000);
        for number in 0..10 {
            watch.note(&all, Action::Publish, &format!("{number}{name}"), &at(1));
        }
        let record = watch.record();
        assert_eq!((record.decisions().count(), record.left_out), (4, 6));

        for number in 1..CLIENTS {
            assert!(watches.begin(&format!("client-{number}"), 0, 100).is_some());
        }
        assert!(watches.begin("one more", 100 + STAY_SECS - 1, 200).is_none());
        assert!(watches.begin("lamp", 0, 100).is_some(), "it is among them");
        assert!(watches.begin("one more", 100 + STAY_SECS, 9999).is_some(), "their time is over");
    }
}
