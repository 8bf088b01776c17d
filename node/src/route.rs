//! The subscriptions of a core, and what its recent topics resolve to.
//!
//! A [`Route`] is everything one topic leads to: sessions here, other cores, groups, shared
//! subscriptions. It is computed once and kept until a subscription or a policy changes.

use std::rc::Rc;
use std::sync::Arc;

use mqtt::{QoS, SubscribeOptions};
use rustc_hash::FxHasher;
use slab::Slab;
use smallvec::SmallVec;
use std::hash::{Hash, Hasher};
use topic::FilterTrie;

use crate::clock::Clock;
use crate::endpoint::{Endpoint, SubscriptionIds};
use crate::interest::{Destination, InterestIndex, ShareGroup, Wants};

/// Recent topics that a core remembers.
const REMEMBERED: usize = 8192;

/// A subscription as its core keeps it: 12 bytes.
#[derive(Clone, Copy, Debug)]
struct Subscriber {
    slot: u32,
    subscription_id: u32,
    qos: QoS,
    no_local: bool,
    retain_as_published: bool,
    /// Its group queues what has a QoS for it.
    is_queued: bool,
}

type Subscribers = SmallVec<[Subscriber; 1]>;

/// A session on this core that wants a topic, with all its matching subscriptions in one.
#[derive(Debug)]
pub struct Target {
    /// Where to put it.
    pub endpoint: Rc<Endpoint>,
    /// The highest granted QoS [v5 MQTT-3.3.4-2].
    pub qos: QoS,
    /// Keep the publisher's RETAIN flag.
    pub retain_as_published: bool,
    /// At least one of the subscriptions is No Local.
    pub no_local: bool,
    /// Subscription identifiers of all of them.
    pub subscription_ids: SubscriptionIds,
}

/// What a topic leads to.
#[derive(Debug)]
pub struct Route {
    /// Differs between any two routes of a core, ever.
    pub id: u64,
    /// The topic.
    pub topic: Box<str>,
    /// Sessions on this core.
    pub targets: Vec<Target>,
    /// Other cores that have subscribers, each once.
    pub cores: Places,
    /// Groups with persistent sessions that want it.
    pub groups: SmallVec<[u16; 4]>,
    /// Other nodes that have connected subscribers, each once.
    pub nodes: Places,
    /// Shared subscriptions.
    pub shares: Vec<Arc<ShareGroup>>,
    generation: (u64, u64),
}

/// Cores or nodes, with what they want.
pub type Places = SmallVec<[(u16, Wants); 4]>;

/// Adds what a place wants for one more filter.
pub fn add_place(places: &mut Places, place: u16, wants: Wants) {
    match places.iter_mut().find(|(other, _)| *other == place) {
        Some((_, known)) => *known = wants.max(*known),
        None => places.push((place, wants)),
    }
}

/// Bytes of routes that a core remembers at most.
const WEIGHT: usize = 32 << 20;

fn place(name: &str) -> usize {
    let mut hasher = FxHasher::default();
    name.hash(&mut hasher);
    (hasher.finish() >> 20) as usize % REMEMBERED
}

impl Route {
    fn weight(&self) -> usize {
        self.topic.len() + self.targets.len() * size_of::<Target>() + size_of::<Self>()
    }

    /// Whether a publication of QoS 1 or 2 may be kept in a queue.
    pub fn is_for_queues(&self) -> bool {
        !self.groups.is_empty() || self.shares.iter().any(|share| share.keeps_queues())
    }

    /// The shadow request that a publication on this topic is, if it is one.
    pub fn shadow_request(&self) -> Option<shadow::topic::Target<'_>> {
        self.topic.starts_with('$').then(|| shadow::topic::parse(&self.topic))?
    }
}

/// See the module.
pub struct Routes {
    trie: FilterTrie<Subscribers>,
    generation: u64,
    next_id: u64,
    recent: Vec<Option<Rc<Route>>>,
    /// About how many bytes the remembered routes hold.
    weight: usize,
    /// The generation that [`Routes::drop_stale`] has seen.
    seen: (u64, u64),
    /// How often a session was not allowed, or was allowed, to receive what it subscribes to.
    decided: [metrics::Counter; 2],
    /// Connections that have fallen behind and whose publishers wait.
    pub pressed: Vec<Rc<Endpoint>>,
}

impl Default for Routes {
    fn default() -> Self {
        let recent = (0..REMEMBERED).map(|_| None).collect();
        Self {
            trie: FilterTrie::new(),
            generation: 0,
            next_id: 1,
            recent,
            weight: 0,
            seen: (0, 0),
            decided: ["denied", "allowed"].map(|decision| {
                let labels = [("action", "receive"), ("decision", decision)];
                metrics::counter!("gateway_decisions_total", &labels)
            }),
            pressed: Vec::new(),
        }
    }
}

impl Routes {
    /// Forgets what topics resolve to: permissions have changed.
    pub fn forget(&mut self) {
        self.generation += 1;
    }

    /// Subscribes a session, in place of the subscription that it may have had. A shared string is kept as
    /// it is.
    pub fn subscribe(
        &mut self,
        filter: impl Into<Arc<str>> + AsRef<str>,
        (slot, is_persistent): (u32, bool),
        options: SubscribeOptions,
        subscription_id: u32,
    ) -> Changed {
        self.generation += 1;
        let subscriber = Subscriber {
            slot,
            subscription_id,
            qos: options.qos,
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            is_queued: is_persistent && options.qos != QoS::AtMostOnce,
        };
        let subscribers = self.trie.entry(filter);
        let before = wanted(subscribers);
        match subscribers.iter_mut().find(|other| other.slot == slot) {
            Some(existing) => *existing = subscriber,
            None => subscribers.push(subscriber),
        }
        Changed { before, now: wanted(subscribers) }
    }

    /// Ends a subscription.
    pub fn unsubscribe(&mut self, filter: &str, slot: u32) -> Changed {
        self.generation += 1;
        let Some(subscribers) = self.trie.get_mut(filter) else { return Changed::default() };
        let before = wanted(subscribers);
        if let Some(at) = subscribers.iter().position(|other| other.slot == slot) {
            subscribers.swap_remove(at);
        }
        let now = wanted(subscribers);
        if now.is_none() {
            self.trie.remove(filter);
        }
        Changed { before, now }
    }

    /// What a topic leads to.
    pub fn resolve(
        &mut self,
        core: u16,
        name: &str,
        index: &InterestIndex,
        endpoints: &Slab<Rc<Endpoint>>,
        clock: Clock,
    ) -> Rc<Route> {
        if let Some(route) = self.known(name, index) {
            return route;
        }
        let generation = (self.generation, index.generation());
        let route = Rc::new(self.compute(core, name, generation, index, endpoints, clock));
        self.remember(Rc::clone(&route));
        route
    }

    /// What a topic leads to, if that is remembered and still true.
    pub fn known(&self, name: &str, index: &InterestIndex) -> Option<Rc<Route>> {
        let route = self.recent[place(name)].as_ref()?;
        let generation = (self.generation, index.generation());
        (route.generation == generation && *route.topic == *name).then(|| Rc::clone(route))
    }

    fn remember(&mut self, route: Rc<Route>) {
        let weight = route.weight();
        if weight > WEIGHT / 16 {
            return;
        }
        if self.weight + weight > WEIGHT {
            self.recent.fill(None);
            self.weight = 0;
        }
        let place = place(&route.topic);
        self.weight += weight;
        if let Some(old) = self.recent[place].replace(route) {
            self.weight = self.weight.saturating_sub(old.weight());
        }
    }

    /// Drops what is no longer true, and with it the connections that have ended. Called at every
    /// tick; does something only when subscriptions or permissions have changed since.
    pub fn drop_stale(&mut self, index: u64) {
        let generation = (self.generation, index);
        if self.seen == generation {
            return;
        }
        self.seen = generation;
        for recent in &mut self.recent {
            if let Some(old) = recent.take_if(|route| route.generation != generation) {
                self.weight = self.weight.saturating_sub(old.weight());
            }
        }
    }

    fn compute(
        &mut self,
        core: u16,
        name: &str,
        generation: (u64, u64),
        index: &InterestIndex,
        endpoints: &Slab<Rc<Endpoint>>,
        clock: Clock,
    ) -> Route {
        let id = self.next_id;
        self.next_id += 1;
        let mut route = Route {
            id,
            topic: name.into(),
            targets: self.targets(name, endpoints, None, clock),
            cores: SmallVec::new(),
            groups: SmallVec::new(),
            nodes: SmallVec::new(),
            shares: Vec::new(),
            generation,
        };
        index.resolve(name, |interest| {
            for (destination, wants) in &interest.destinations {
                match *destination {
                    Destination::Core(other) if other != core => {
                        add_place(&mut route.cores, other, *wants);
                    }
                    Destination::Group(group) if !route.groups.contains(&group) => {
                        route.groups.push(group);
                    }
                    Destination::Node(node) => add_place(&mut route.nodes, node, *wants),
                    _ => {}
                }
            }
            route.shares.extend(interest.shares.iter().cloned());
        });
        route
    }

    /// Sessions here that want a topic, each once. For the publisher's own session `except_local`
    /// leaves out subscriptions that are No Local.
    fn targets(
        &self,
        name: &str,
        endpoints: &Slab<Rc<Endpoint>>,
        except_local: Option<u32>,
        clock: Clock,
    ) -> Vec<Target> {
        let mut found: Vec<Subscriber> = Vec::new();
        self.trie.for_each_match(name, |subscribers| found.extend(subscribers.iter()));
        if let Some(slot) = except_local {
            found.retain(|subscriber| subscriber.slot == slot && !subscriber.no_local);
        }
        found.sort_by_key(|subscriber| subscriber.slot);
        let mut targets: Vec<Target> = Vec::with_capacity(found.len());
        for same in found.chunk_by(|a, b| a.slot == b.slot) {
            let Some(endpoint) = endpoints.get(same[0].slot as usize) else { continue };
            // A permission that depends on the time is asked for again at each delivery.
            let allowed = endpoint.may_receive(name, clock);
            self.decided[usize::from(allowed)].increment(1);
            if !allowed && !endpoint.depends_on_time() {
                continue;
            }
            targets.push(Target {
                endpoint: Rc::clone(endpoint),
                qos: same.iter().map(|subscriber| subscriber.qos).max().unwrap_or_default(),
                retain_as_published: same.iter().any(|subscriber| subscriber.retain_as_published),
                no_local: same.iter().any(|subscriber| subscriber.no_local),
                subscription_ids: same
                    .iter()
                    .map(|subscriber| subscriber.subscription_id)
                    .filter(|id| *id != 0)
                    .collect(),
            });
        }
        targets
    }

    /// How a publisher's own session wants its publication, when one of its subscriptions is No
    /// Local [v5 MQTT-3.8.3-3].
    pub fn own_target(
        &self,
        name: &str,
        endpoints: &Slab<Rc<Endpoint>>,
        slot: u32,
        clock: Clock,
    ) -> Option<Target> {
        self.targets(name, endpoints, Some(slot), clock).pop()
    }
}

/// What a core wanted of a filter, and what it wants now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Before.
    pub before: Option<Wants>,
    /// Now.
    pub now: Option<Wants>,
}

fn wanted(subscribers: &[Subscriber]) -> Option<Wants> {
    let wants = |it: &Subscriber| if it.is_queued { Wants::QosZero } else { Wants::Everything };
    subscribers.iter().map(wants).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_wants_what_queues_do_not_hold() {
        let options = |qos| SubscribeOptions { qos, ..SubscribeOptions::default() };
        let mut routes = Routes::default();
        let mut subscribe =
            |slot, persistent, qos| routes.subscribe("a", (slot, persistent), options(qos), 0).now;
        use Wants::{Everything, QosZero};
        for (slot, persistent, qos, wants) in [
            (1, true, QoS::AtLeastOnce, QosZero),
            (2, true, QoS::AtMostOnce, Everything),
            (2, true, QoS::ExactlyOnce, QosZero),
            (3, false, QoS::AtLeastOnce, Everything),
        ] {
            assert_eq!(subscribe(slot, persistent, qos), Some(wants), "{slot} {qos:?}");
        }
        for (slot, before, now) in [
            (3, Some(Everything), Some(QosZero)),
            (2, Some(QosZero), Some(QosZero)),
            (1, Some(QosZero), None),
            (1, None, None),
        ] {
            assert_eq!(routes.unsubscribe("a", slot), Changed { before, now }, "{slot}");
        }
    }
}
