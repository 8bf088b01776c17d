//! Which sessions want which publications: the shard's own filter trie of plain subscriptions.
//!
//! Shared subscriptions are not matched here. The publisher's router chooses a member among all
//! shards and cores, so it is only told who is one.

use topic::FilterTrie;

use super::command::Options;
use super::few::Few;

/// The subscribers of one filter.
#[derive(Default)]
struct Subscribers {
    sessions: Few<u64, Options>,
    /// How many of them want more than QoS 0.
    queueing: u32,
}

/// What a subscription changed for publishers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Demand {
    Same,
    Arose,
    Ended,
}

#[derive(Default)]
pub(super) struct Index {
    filters: FilterTrie<Subscribers>,
    candidates: Vec<Candidate>,
}

/// A subscription that matches a publication.
#[derive(Clone, Copy)]
struct Candidate {
    session: u64,
    options: Options,
}

/// What the matching subscriptions of one session come to.
pub(super) struct Match<'a> {
    pub(super) session: u64,
    /// The greatest of their QoS [v5 MQTT-3.3.4-2].
    pub(super) qos: u32,
    pub(super) retain_as_published: bool,
    candidates: &'a [Candidate],
}

impl Match<'_> {
    /// The identifiers of all of them [v5 MQTT-3.3.4-4], ordered.
    pub(super) fn ids(&self) -> impl Iterator<Item = u32> {
        self.candidates.iter().map(|each| each.options.subscription_id).filter(|&id| id != 0)
    }
}

impl Index {
    pub(super) fn insert(&mut self, filter: &str, session: u64, options: Options) -> Demand {
        let subscribers = self.filters.entry(filter);
        let before = subscribers.queueing;
        let old = subscribers.sessions.insert(session, options);
        subscribers.queueing += u32::from(options.qos > 0);
        subscribers.queueing -= u32::from(old.is_some_and(|old| old.qos > 0));
        Demand::between(before, subscribers.queueing)
    }

    pub(super) fn remove(&mut self, filter: &str, session: u64) -> Demand {
        let Some(subscribers) = self.filters.get_mut(filter) else { return Demand::Same };
        let before = subscribers.queueing;
        let old = subscribers.sessions.remove(&session);
        subscribers.queueing -= u32::from(old.is_some_and(|old| old.qos > 0));
        let demand = Demand::between(before, subscribers.queueing);
        if subscribers.sessions.is_empty() {
            self.filters.remove(filter);
        }
        demand
    }

    /// Plain filters that publishers must serve.
    pub(super) fn wanted(&self) -> Vec<String> {
        let wanted = self.filters.iter().filter(|(_, subscribers)| subscribers.queueing > 0);
        let mut wanted: Vec<_> = wanted.map(|(filter, _)| filter).collect();
        wanted.sort_unstable();
        wanted
    }

    /// Calls `take` once per session with a matching subscription, ordered by session. `own` says
    /// whether a session is the publisher's.
    pub(super) fn matches(
        &mut self,
        name: &str,
        own: impl Fn(u64) -> bool,
        mut take: impl FnMut(Match<'_>),
    ) {
        let candidates = &mut self.candidates;
        candidates.clear();
        self.filters.for_each_match(name, |subscribers| {
            for (&session, &options) in subscribers.sessions.iter() {
                if !(options.no_local && own(session)) {
                    candidates.push(Candidate { session, options });
                }
            }
        });
        if candidates.len() > 1 {
            candidates.sort_unstable_by_key(|each| (each.session, each.options.subscription_id));
        }
        for candidates in candidates.chunk_by(|one, next| one.session == next.session) {
            take(Match::of(candidates));
        }
    }
}

impl<'a> Match<'a> {
    fn of(candidates: &'a [Candidate]) -> Self {
        let (mut qos, mut retain_as_published) = (0, false);
        for Candidate { options, .. } in candidates {
            qos = qos.max(options.qos);
            retain_as_published |= options.retain_as_published;
        }
        Self { session: candidates[0].session, qos, retain_as_published, candidates }
    }
}

impl Demand {
    fn between(before: u32, after: u32) -> Self {
        match (before, after) {
            (0, 1..) => Self::Arose,
            (1.., 0) => Self::Ended,
            _ => Self::Same,
        }
    }
}
