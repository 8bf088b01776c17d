//! Who on this node wants which topic: filter → destinations, read by every core.
//!
//! A destination is a core (it has connected subscribers), a group (it has persistent sessions) or
//! another node (it has connected subscribers, as it says itself).
//! Only the first subscriber and the last unsubscriber of a filter at a destination change the index.
//! Readers take a shard's read lock for the time of one match, and cores remember the result per
//! topic until [`InterestIndex::generation`] moves; writers hold a lock for one insertion.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use links::proto::Routes;
use parking_lot::RwLock;
use rustc_hash::{FxBuildHasher, FxHasher};
use smallvec::SmallVec;
use std::hash::{BuildHasher, Hash, Hasher};
use tokio::time::Instant;
use topic::FilterTrie;

use mqtt::QoS;
use policy::Action;

use crate::clock::Clock;
use crate::endpoint::Permissions;
use crate::fanout::{Announcer, add_route, share_member};

/// For so long others come before a member that could not have what it was to be given. Then that may
/// be otherwise.
const PASSED_OVER: Duration = Duration::from_secs(30);

/// Topics that a member may be passed over for at a time; with one more, others come before it for all.
const REFUSED_TOPICS: usize = 8;

/// What a destination wants of the topics that match a filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wants {
    /// QoS 0: all its sessions there have queues, where their groups put the rest.
    QosZero,
    /// Everything.
    #[default]
    Everything,
}

impl Wants {
    /// Whether a publication of this QoS is wanted.
    pub fn includes(self, qos: QoS) -> bool {
        self == Self::Everything || qos == QoS::AtMostOnce
    }
}

/// Where a publication has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Destination {
    /// A core of this node.
    Core(u16),
    /// A Raft group, for its persistent sessions.
    Group(u16),
    /// Another node, for the sessions connected there.
    Node(u16),
}

/// What is known of one filter.
#[derive(Debug, Default)]
pub struct Interest {
    /// Each destination once.
    pub destinations: SmallVec<[(Destination, Wants); 2]>,
    /// Shared subscriptions on this filter, by share name.
    pub shares: Vec<Arc<ShareGroup>>,
}

impl Interest {
    /// What the cores want together.
    fn wanted_here(&self) -> Option<Wants> {
        let is_core = |(destination, _): &&_| matches!(destination, Destination::Core(_));
        self.destinations.iter().filter(is_core).map(|(_, wants)| *wants).max()
    }
}

/// The members of one shared subscription.
#[derive(Debug)]
pub struct ShareGroup {
    /// The share name.
    pub name: Box<str>,
    /// The filter.
    pub filter: Box<str>,
    /// Both, as members subscribe to it.
    pub subscribed: Box<str>,
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
    /// Whether it has a connection on any node, as its group says.
    pub connected: bool,
    /// What its principal may do, while it has a connection here.
    pub permissions: Option<Permissions>,
    /// The group that holds its queue, when the session is persistent.
    pub group: Option<u16>,
    /// Another node that it is connected to, as that one says.
    pub node: Option<u16>,
    /// What it could not have that it was to be given.
    pub refused: Refused,
}

/// What a member could not have of late, mostly because it may not receive it.
#[derive(Clone, Debug, Default)]
pub struct Refused(Vec<(u64, Instant)>);

impl Refused {
    fn add(&mut self, topic: &str) {
        let topic = FxBuildHasher.hash_one(topic);
        self.0.retain(|(other, since)| *other != topic && since.elapsed() < PASSED_OVER);
        if self.0.len() > REFUSED_TOPICS {
            self.0.remove(0);
        }
        self.0.push((topic, Instant::now()));
    }

    /// Whether there was anything.
    fn is_any(&self) -> bool {
        self.0.iter().any(|(_, since)| since.elapsed() < PASSED_OVER)
    }

    /// Whether a topic was among it, or so many that any may be.
    fn is(&self, topic: &str) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let topic = FxBuildHasher.hash_one(topic);
        let mut count = 0;
        self.0.iter().filter(|(_, since)| since.elapsed() < PASSED_OVER).any(|(other, _)| {
            count += 1;
            *other == topic || count > REFUSED_TOPICS
        })
    }
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
    /// Whether it has a connection anywhere.
    pub fn is_connected(&self) -> bool {
        self.live.is_some() || self.node.is_some() || self.connected
    }

    /// Whether it acknowledges what it gets.
    pub fn acknowledges(&self) -> bool {
        self.qos != QoS::AtMostOnce
    }

    /// Whether it is connected and worth giving messages to, whatever their topics.
    fn takes_any(&self) -> bool {
        self.is_connected() && !self.refused.is_any()
    }

    /// Whether it is connected and worth giving messages on a topic to.
    fn takes(&self, topic: &str) -> bool {
        self.is_connected() && !self.refused.is(topic)
    }

    /// Whether a publication of a QoS gets to it by way of another node, where it is connected, and not by way
    /// of its queue.
    pub fn is_elsewhere(&self, node: u16, qos: QoS) -> bool {
        self.live.is_none() && self.node == Some(node) && !self.queues(qos)
    }

    /// Whether nothing of a publication of a QoS gets to it, as it is away or nobody knows where.
    pub fn is_out_of_reach(&self, qos: QoS) -> bool {
        self.live.is_none() && self.node.is_none() && !self.queues(qos)
    }

    /// Whether what it gets of a publication of a QoS goes to its queue.
    pub fn queues(&self, qos: QoS) -> bool {
        self.group.is_some() && self.qos.min(qos) != QoS::AtMostOnce
    }

    fn is_gone(&self) -> bool {
        self.live.is_none() && self.group.is_none() && self.node.is_none()
    }

    /// What peers are told of it.
    fn announced(&self) -> Option<(QoS, bool, SmallVec<[u32; 1]>)> {
        self.live?;
        Some((self.qos, self.retain_as_published, self.subscription_ids.clone()))
    }

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
    /// The member whose turn it is, of those that are not out, as they cannot take this publication: connected
    /// ones first, of them those that could not have another on its topic last, then persistent ones that
    /// are away.
    pub fn choose(&self, topic: &str, is_out: impl Fn(&Member) -> bool) -> Option<Member> {
        let members = self.members.read();
        if members.is_empty() {
            return None;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let in_turn = || {
            let in_turn = (0..members.len()).map(|step| &members[(turn + step) % members.len()]);
            in_turn.filter(|member| !is_out(member))
        };
        let passed_over = || in_turn().find(|member| member.is_connected());
        let found = in_turn().find(|member| member.takes(topic)).or_else(passed_over);
        found.or_else(|| in_turn().next()).cloned()
    }

    /// Its members that what waits may be given to.
    pub fn takers(&self) -> Vec<Member> {
        takers(&self.members.read()).cloned().collect()
    }

    /// Whether a member acknowledges what it gets.
    pub fn has_acknowledging(&self) -> bool {
        self.members.read().iter().any(Member::acknowledges)
    }

    /// A member cannot have what it was to be given on a topic: others come first for a while.
    pub fn pass_over(&self, client: &str, topic: &str) {
        let mut members = self.members.write();
        if let Some(member) = members.iter_mut().find(|member| *member.client == *client) {
            member.refused.add(topic);
        }
    }

    /// Whether a member's session may outlive its connection.
    pub fn keeps_queues(&self) -> bool {
        self.members.read().iter().any(|member| member.group.is_some())
    }

    /// Whether what waits may be given to a member that keeps no queue.
    pub fn has_brief_taker(&self) -> bool {
        takers(&self.members.read()).any(|member| member.group.is_none())
    }

    /// Whether what waits may be given to a member other than this client.
    pub fn has_taker_beside(&self, client: &[u8]) -> bool {
        takers(&self.members.read()).any(|member| member.client.as_bytes() != client)
    }

    /// The member that a peer has chosen, or else another one that is connected here and is not out.
    pub fn here(&self, client: &str, is_out: impl Fn(&Member) -> bool) -> Option<Member> {
        let members = self.members.read();
        let mut here = members.iter().filter(|it| it.live.is_some() && !is_out(it));
        let named = here.clone().find(|member| *member.client == *client);
        named.or_else(|| here.next()).cloned()
    }

    /// Members to which a publication of a QoS gets by way of another node.
    pub fn elsewhere(&self, node: u16, qos: QoS) -> Without {
        let members = self.members.read();
        let elsewhere = members.iter().filter(|member| member.is_elsewhere(node, qos));
        elsewhere.map(|member| Arc::clone(&member.client)).collect()
    }

    /// None of them could have what it was to be given on a topic.
    pub fn pass_over_elsewhere(&self, node: u16, qos: QoS, topic: &str) {
        let mut members = self.members.write();
        let elsewhere = members.iter_mut().filter(|member| member.is_elsewhere(node, qos));
        elsewhere.for_each(|member| member.refused.add(topic));
    }
}

/// The members that have a connection that can be reached and are not passed over for any topic. While one
/// acknowledges what it gets, those do not count that do not: what was stored would end with their sockets.
fn takers(members: &[Member]) -> impl Iterator<Item = &Member> {
    let all = !members.iter().any(Member::acknowledges);
    members.iter().filter(move |member| {
        member.takes_any()
            && !member.is_out_of_reach(QoS::ExactlyOnce)
            && (all || member.acknowledges())
    })
}

const SHARDS: usize = 64;

/// The index; one per node.
pub struct InterestIndex {
    /// By the first level of the filter; the last one holds filters that start with a wildcard.
    shards: Vec<RwLock<FilterTrie<Interest>>>,
    generation: AtomicU64,
    /// Tells peers what the cores want; called under the lock of the shard, so that what is said of a
    /// filter is said in order.
    announcer: OnceLock<Arc<Announcer>>,
}

impl Default for InterestIndex {
    fn default() -> Self {
        let shards = (0..=SHARDS).map(|_| RwLock::new(FilterTrie::new())).collect();
        Self { shards, generation: AtomicU64::new(0), announcer: OnceLock::new() }
    }
}

impl InterestIndex {
    /// From now on peers hear of what the cores want.
    pub fn announce_to(&self, announcer: Arc<Announcer>) {
        let _ = self.announcer.set(announcer);
    }

    /// Moves with every change that could alter what a topic resolves to.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// What a destination wants of a filter from now on; `None` when it has lost its last subscriber. A
    /// shared string is kept as it is.
    pub fn set(
        &self,
        filter: impl Into<Arc<str>> + AsRef<str>,
        destination: Destination,
        wants: Option<Wants>,
    ) {
        let mut trie = self.shard(filter.as_ref()).write();
        if wants.is_none() && trie.get(filter.as_ref()).is_none() {
            return;
        }
        let filter: Arc<str> = filter.into();
        let interest = trie.entry(Arc::clone(&filter));
        let before = interest.wanted_here();
        interest.destinations.retain(|(other, _)| *other != destination);
        interest.destinations.extend(wants.map(|wants| (destination, wants)));
        let now = interest.wanted_here();
        if let Some(announcer) = self.announcer.get().filter(|_| now != before) {
            announcer.wants(&filter, now);
        }
        Self::prune(&mut trie, &filter);
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
                    filter: share.filter.into(),
                    subscribed: format!("$share/{}/{}", share.name, share.filter).into(),
                    members: RwLock::default(),
                    turn: AtomicUsize::new(0),
                });
                interest.shares.push(Arc::clone(&group));
                group
            }
        };
        let announcer = self.announcer.get().map(|announcer| (&**announcer, share));
        let is_new = group.change(client, announcer, change);
        if group.members.read().is_empty() {
            interest.shares.retain(|other| !Arc::ptr_eq(other, &group));
            Self::prune(&mut trie, share.filter);
        }
        drop(trie);
        self.changed();
        is_new
    }

    /// Forgets what a group wants.
    pub fn forget_group(&self, group: u16) {
        let destination = Destination::Group(group);
        for trie in &self.shards {
            let mut trie = trie.write();
            let filters: Vec<String> = trie.iter().map(|(filter, _)| filter).collect();
            for filter in filters {
                let Some(interest) = trie.get_mut(&filter) else { continue };
                interest.destinations.retain(|(other, _)| *other != destination);
                interest.shares.retain(|share| share.forget_group(group));
                Self::prune(&mut trie, &filter);
            }
        }
        self.changed();
    }

    /// A shared subscription.
    pub fn share_group(&self, share: topic::Share<'_>) -> Option<Arc<ShareGroup>> {
        let trie = self.shard(share.filter).read();
        let shares = &trie.get(share.filter)?.shares;
        shares.iter().find(|group| *group.name == *share.name).cloned()
    }

    /// Tells what the cores want of a shard, in messages of about `bytes`; `None` after the last
    /// shard. Nothing in it changes meanwhile.
    pub fn tell_shard(
        &self,
        shard: usize,
        bytes: usize,
        tell: impl FnOnce(Option<Vec<Routes>>) -> bool,
    ) -> bool {
        let Some(trie) = self.shards.get(shard) else { return tell(None) };
        let trie = trie.read();
        let (mut all, mut routes, mut size) = (Vec::new(), Routes::default(), 0);
        for (filter, interest) in trie.iter() {
            for share in &interest.shares {
                let members = share.members.read();
                for member in members.iter().filter(|member| member.live.is_some()) {
                    size += share.name.len() + filter.len() + member.client.len();
                    routes.joined.push(share_member(&share.name, &filter, member));
                }
            }
            if let Some(wants) = interest.wanted_here() {
                size += filter.len();
                add_route(&mut routes, filter, wants);
            }
            if size >= bytes {
                all.push(std::mem::take(&mut routes));
                size = 0;
            }
        }
        all.push(routes);
        tell(Some(all))
    }

    /// Everything that wants a topic.
    pub fn resolve(&self, name: &str, mut found: impl FnMut(&Interest)) {
        self.shard(name).read().for_each_match(name, &mut found);
        self.shards[SHARDS].read().for_each_match(name, &mut found);
    }

    /// Whether anybody wants a topic.
    pub fn is_wanted(&self, name: &str) -> bool {
        let mut wanted = false;
        self.resolve(name, |interest| {
            wanted |= !interest.destinations.is_empty() || !interest.shares.is_empty();
        });
        wanted
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
    /// Forgets members as far as their group knows them; false if none is left.
    fn forget_group(&self, group: u16) -> bool {
        let mut members = self.members.write();
        for member in members.iter_mut().filter(|member| member.group == Some(group)) {
            (member.group, member.connected) = (None, false);
        }
        members.retain(|member| !member.is_gone());
        !members.is_empty()
    }

    fn change(
        &self,
        client: &str,
        announcer: Option<(&Announcer, topic::Share<'_>)>,
        change: impl FnOnce(&mut Member),
    ) -> bool {
        let mut members = self.members.write();
        let at = members.iter().position(|member| &*member.client == client);
        let at = at.unwrap_or_else(|| {
            members.push(Member {
                client: client.into(),
                qos: QoS::AtMostOnce,
                retain_as_published: false,
                subscription_ids: SmallVec::new(),
                live: None,
                connected: false,
                permissions: None,
                group: None,
                node: None,
                refused: Refused::default(),
            });
            members.len() - 1
        });
        let member = &mut members[at];
        let was_new = member.is_gone();
        let before = announcer.and_then(|_| member.announced());
        let (connected_before, group_before) = (member.is_connected(), member.group);
        change(member);
        // What could not be given to it while its queue was not known can be now.
        if !connected_before || group_before.is_none() && member.group.is_some() {
            member.refused = Refused::default();
        }
        if let Some((announcer, share)) = announcer {
            match (before, member.announced()) {
                (before, now) if before == now => {}
                (_, Some(_)) => announcer.joined(share, member),
                (_, None) => announcer.left(share, client),
            }
        }
        if member.is_gone() {
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
        index.resolve(name, |interest| all.extend(interest.destinations.iter().map(|it| it.0)));
        all.sort();
        all.dedup();
        all
    }

    #[test]
    fn a_topic_finds_every_destination_once() {
        use Destination::{Core, Group};
        let index = InterestIndex::default();
        let all = Some(Wants::Everything);
        index.set("a/+", Core(0), all);
        index.set("a/b", Group(3), all);
        index.set("#", Core(1), all);
        index.set("+/b", Core(0), all);
        index.set("+/b", Core(0), Some(Wants::QosZero));
        assert_eq!(destinations(&index, "a/b"), [Core(0), Core(1), Group(3)]);
        let before = index.generation();
        index.set("#", Core(1), None);
        index.set("+/b", Core(0), None);
        index.set("a/+", Core(0), None);
        index.set("c", Core(0), None);
        assert!(index.generation() > before);
        assert_eq!(destinations(&index, "a/b"), [Group(3)]);
        assert!(index.is_wanted("a/b") && !index.is_wanted("a/c"));
    }

    #[test]
    fn a_share_takes_who_is_connected_anywhere_before_who_is_away() {
        let index = InterestIndex::default();
        let share = topic::Share { name: "g", filter: "a/#" };
        let live = Live { core: 0, slot: 1, generation: 1 };
        index.share(share, "away", |member| member.group = Some(2));
        index.share(share, "there", |member| member.node = Some(3));
        index.share(share, "here", |member| member.live = Some(live));
        let group = index.share_group(share).unwrap();
        let choose = |without: &[Arc<str>]| {
            let chosen = group.choose("a/b", |member| without.contains(&member.client));
            chosen.map(|it| it.client.to_string())
        };
        let turns: std::collections::BTreeSet<_> = (0..4).filter_map(|_| choose(&[])).collect();
        assert_eq!(turns.into_iter().collect::<Vec<_>>(), ["here", "there"]);

        let elsewhere = |node| group.elsewhere(node, QoS::AtLeastOnce);
        assert_eq!(elsewhere(4).len(), 0);
        let mut without = elsewhere(3);
        assert_eq!(choose(&without).as_deref(), Some("here"));
        without.push("here".into());
        assert_eq!(choose(&without).as_deref(), Some("away"));
        without.push("away".into());
        assert_eq!(choose(&without), None);

        index.share(share, "there", |member| {
            (member.group, member.qos) = (Some(2), QoS::AtLeastOnce);
        });
        assert_eq!(elsewhere(3).len(), 0, "its queue is reached otherwise");
        assert_eq!(group.elsewhere(3, QoS::AtMostOnce).as_slice(), ["there".into()]);

        let here = |client| group.here(client, |_| false).map(|it| it.client.to_string());
        assert_eq!(here("here").as_deref(), Some("here"));
        assert_eq!(here("there").as_deref(), Some("here"), "somebody else of this node");
        index.share(share, "here", |member| member.live = None);
        assert_eq!(here("there"), None);
    }

    #[test]
    fn a_share_passes_over_who_could_not_have_another() {
        let index = InterestIndex::default();
        let share = topic::Share { name: "g", filter: "a/#" };
        let live = |slot| Some(Live { core: 0, slot, generation: 1 });
        for (client, slot) in [("one", 1), ("two", 2)] {
            index.share(share, client, |member| member.live = live(slot));
        }
        let group = index.share_group(share).unwrap();
        let takers = || group.takers().iter().map(|it| it.client.to_string()).collect::<Vec<_>>();
        group.pass_over("one", "a/b");
        assert_eq!(takers(), ["two"]);
        assert!(!group.has_taker_beside(b"two"));
        let chosen = |topic| {
            let choose = |_| group.choose(topic, |_| false).unwrap().client.to_string();
            (0..4).map(choose).collect::<std::collections::BTreeSet<_>>().into_iter().collect()
        };
        let (two, both): (Vec<_>, Vec<_>) = (chosen("a/b"), chosen("a/c"));
        assert_eq!(
            (two.as_slice(), both.as_slice()),
            (&["two".into()][..], &["one".into(), "two".into()][..])
        );
        for number in 1..REFUSED_TOPICS {
            group.pass_over("one", &format!("a/{number}"));
        }
        assert_eq!(chosen("a/c"), both);
        for number in 0..2 {
            group.pass_over("one", &format!("a/d/{number}"));
            assert_eq!(chosen("a/c"), two, "so many that any may be among them");
        }
        group.pass_over("two", "a/b");
        assert!(group.choose("a/b", |_| false).is_some(), "better than nobody");
        index.share(share, "one", |member| member.retain_as_published = true);
        assert_eq!(takers(), Vec::<String>::new());
        index.share(share, "one", |member| member.group = Some(1));
        assert_eq!(takers(), ["one"], "its queue is known");
        group.pass_over("one", "a/b");
        index.share(share, "one", |member| member.group = Some(1));
        assert_eq!(takers(), Vec::<String>::new());
        for live in [None, live(3)] {
            index.share(share, "one", |member| member.live = live);
        }
        assert_eq!(takers(), ["one"], "it has connected again");
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
            index.resolve("a/b", |interest| chosen = interest.shares[0].choose("a/b", |_| false));
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
