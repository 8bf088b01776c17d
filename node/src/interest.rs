//! Who on this node wants which topic: filter → destinations, read by every core.
//!
//! A destination is a core (it has connected subscribers) or a group (it has persistent sessions).
//! Only the first subscriber and the last unsubscriber of a filter at a destination change the index.
//! Readers take a shard's read lock for the time of one match, and cores remember the result per
//! topic until [`InterestIndex::generation`] moves; writers hold a lock for one insertion.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::RwLock;
use rustc_hash::FxHasher;
use smallvec::SmallVec;
use std::hash::{Hash, Hasher};
use topic::FilterTrie;

use mqtt::QoS;
use policy::Action;

use crate::clock::Clock;
use crate::endpoint::Permissions;

/// Where a publication has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Destination {
    /// A core of this node.
    Core(u16),
    /// A Raft group, for its persistent sessions.
    Group(u16),
}

/// What is known of one filter.
#[derive(Debug, Default)]
pub struct Interest {
    /// Each destination once.
    pub destinations: SmallVec<[Destination; 2]>,
    /// Shared subscriptions on this filter, by share name.
    pub shares: Vec<Arc<ShareGroup>>,
}

/// The members of one shared subscription.
#[derive(Debug)]
pub struct ShareGroup {
    /// The share name.
    pub name: Box<str>,
    members: RwLock<Vec<Member>>,
    turn: AtomicUsize,
}

/// One session in a shared subscription.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its client id.
    pub client: Arc<str>,
    /// Granted QoS.
    pub qos: QoS,
    /// Deliver with the publisher's RETAIN flag.
    pub retain_as_published: bool,
    /// Subscription identifier, if it has one.
    pub subscription_ids: SmallVec<[u32; 1]>,
    /// Where its connection is, while it has one.
    pub live: Option<Live>,
    /// What its principal may do, while it has a connection.
    pub permissions: Option<Permissions>,
    /// The group that holds its queue, when the session is persistent.
    pub group: Option<u16>,
}

/// A connection, named so that a later one in the same place is not mistaken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Live {
    /// The core it belongs to.
    pub core: u16,
    /// Its place on that core.
    pub slot: u32,
    /// Which of the connections that used this place.
    pub generation: u32,
}

impl Member {
    /// Whether it may receive from a topic. Of one that is away this is asked when it comes back.
    pub fn may_receive(&self, topic: &str, clock: Clock) -> bool {
        self.permissions.as_ref().is_none_or(|permissions| {
            permissions.load().decide_topic(Action::Receive, topic, &clock.request()).is_allowed()
        })
    }
}

/// Client ids of members that cannot take a publication.
pub type Without = SmallVec<[Arc<str>; 2]>;

impl ShareGroup {
    /// The member whose turn it is, without those that cannot take this publication: connected
    /// ones first, then persistent ones that are away.
    pub fn choose(&self, without: &[Arc<str>]) -> Option<Member> {
        let members = self.members.read();
        if members.is_empty() {
            return None;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let in_turn = || {
            let in_turn = (0..members.len()).map(|step| &members[(turn + step) % members.len()]);
            in_turn.filter(|member| !without.contains(&member.client))
        };
        in_turn().find(|member| member.live.is_some()).or_else(|| in_turn().next()).cloned()
    }
}

const SHARDS: usize = 64;

/// The index; one per node.
#[derive(Debug)]
pub struct InterestIndex {
    /// By the first level of the filter; the last one holds filters that start with a wildcard.
    shards: Vec<RwLock<FilterTrie<Interest>>>,
    generation: AtomicU64,
}

impl Default for InterestIndex {
    fn default() -> Self {
        let shards = (0..=SHARDS).map(|_| RwLock::new(FilterTrie::new())).collect();
        Self { shards, generation: AtomicU64::new(0) }
    }
}

impl InterestIndex {
    /// Moves with every change that could alter what a topic resolves to.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// A destination has its first subscriber of a filter.
    pub fn add(&self, filter: &str, destination: Destination) {
        let mut trie = self.shard(filter).write();
        let interest = trie.entry(filter);
        if !interest.destinations.contains(&destination) {
            interest.destinations.push(destination);
        }
        drop(trie);
        self.changed();
    }

    /// A destination has lost its last subscriber of a filter.
    pub fn remove(&self, filter: &str, destination: Destination) {
        let mut trie = self.shard(filter).write();
        let Some(interest) = trie.get_mut(filter) else { return };
        interest.destinations.retain(|other| *other != destination);
        Self::prune(&mut trie, filter);
        drop(trie);
        self.changed();
    }

    /// Changes one member of a shared subscription; a member that is neither connected nor
    /// persistent afterwards is gone. Returns whether the member is new.
    pub fn share(
        &self,
        share: topic::Share<'_>,
        client: &str,
        change: impl FnOnce(&mut Member),
    ) -> bool {
        let mut trie = self.shard(share.filter).write();
        let interest = trie.entry(share.filter);
        let group = match interest.shares.iter().find(|group| *group.name == *share.name) {
            Some(group) => Arc::clone(group),
            None => {
                let group = Arc::new(ShareGroup {
                    name: share.name.into(),
                    members: RwLock::default(),
                    turn: AtomicUsize::new(0),
                });
                interest.shares.push(Arc::clone(&group));
                group
            }
        };
        let is_new = group.change(client, change);
        if group.members.read().is_empty() {
            interest.shares.retain(|other| !Arc::ptr_eq(other, &group));
            Self::prune(&mut trie, share.filter);
        }
        drop(trie);
        self.changed();
        is_new
    }

    /// Everything that wants a topic.
    pub fn resolve(&self, name: &str, mut found: impl FnMut(&Interest)) {
        self.shard(name).read().for_each_match(name, &mut found);
        self.shards[SHARDS].read().for_each_match(name, &mut found);
    }

    fn changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    fn shard(&self, filter: &str) -> &RwLock<FilterTrie<Interest>> {
        let first = filter.split('/').next().unwrap_or_default();
        if first == "+" || first == "#" {
            return &self.shards[SHARDS];
        }
        let mut hasher = FxHasher::default();
        first.hash(&mut hasher);
        &self.shards[(hasher.finish() >> 32) as usize % SHARDS]
    }

    fn prune(trie: &mut FilterTrie<Interest>, filter: &str) {
        let empty = trie
            .get(filter)
            .is_some_and(|interest| interest.destinations.is_empty() && interest.shares.is_empty());
        if empty {
            trie.remove(filter);
        }
    }
}

impl ShareGroup {
    fn change(&self, client: &str, change: impl FnOnce(&mut Member)) -> bool {
        let mut members = self.members.write();
        let at = members.iter().position(|member| &*member.client == client);
        let at = at.unwrap_or_else(|| {
            members.push(Member {
                client: client.into(),
                qos: QoS::AtMostOnce,
                retain_as_published: false,
                subscription_ids: SmallVec::new(),
                live: None,
                permissions: None,
                group: None,
            });
            members.len() - 1
        });
        let was_new = members[at].live.is_none() && members[at].group.is_none();
        change(&mut members[at]);
        if members[at].live.is_none() && members[at].group.is_none() {
            members.remove(at);
        }
        was_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destinations(index: &InterestIndex, name: &str) -> Vec<Destination> {
        let mut all = Vec::new();
        index.resolve(name, |interest| all.extend(interest.destinations.iter().copied()));
        all.sort();
        all.dedup();
        all
    }

    #[test]
    fn a_topic_finds_every_destination_once() {
        use Destination::{Core, Group};
        let index = InterestIndex::default();
        index.add("a/+", Core(0));
        index.add("a/b", Group(3));
        index.add("#", Core(1));
        index.add("+/b", Core(0));
        assert_eq!(destinations(&index, "a/b"), [Core(0), Core(1), Group(3)]);
        let before = index.generation();
        index.remove("#", Core(1));
        index.remove("+/b", Core(0));
        index.remove("a/+", Core(0));
        assert!(index.generation() > before);
        assert_eq!(destinations(&index, "a/b"), [Group(3)]);
    }

    #[test]
    fn a_share_prefers_who_is_connected() {
        let index = InterestIndex::default();
        let share = topic::Share { name: "g", filter: "a/#" };
        let live = Live { core: 0, slot: 1, generation: 1 };
        index.share(share, "away", |member| member.group = Some(2));
        index.share(share, "here", |member| member.live = Some(live));
        let choose = || {
            let mut chosen = None;
            index.resolve("a/b", |interest| chosen = interest.shares[0].choose(&[]));
            chosen.map(|member| member.client.to_string())
        };
        assert_eq!(choose().as_deref(), Some("here"));
        assert_eq!(choose().as_deref(), Some("here"));
        index.share(share, "here", |member| member.live = None);
        assert_eq!(choose().as_deref(), Some("away"));
        index.share(share, "away", |member| member.group = None);
        let mut left = 0;
        index.resolve("a/b", |_| left += 1);
        assert_eq!(left, 0, "an empty share leaves nothing behind");
    }
}
