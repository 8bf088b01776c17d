//! Publications for connected subscribers on other nodes: who wants what, and the way there.
//!
//! Each node tells its peers the filters that any of its cores wants (`announcer`), keeps what they
//! want (`table`) in its interest index, and sends each publication once to each node that wants it
//! (`send`); there it goes to the cores that want it and never further (`receive`). What groups
//! hold is none of this: every node has a replica of them.
//!
//! A peer's routes outlive its stream for [`LEASE`], and are gone when it comes back in another life.
//! As long, publications that somebody waits for, or that a member of a shared subscription has left, are
//! kept for it. A node that is alone has no peers here, and pays for none.

mod announcer;
mod inbound;
mod metrics;
mod receipt;
mod receive;
mod send;
mod table;
mod window;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ::cluster::{GroupId, GroupsView};
use ::links::proto::fanout_message::Kind;
use ::links::proto::{Routes, Synced};
use ::links::{Direction, Message, Stream};
use mqtt::QoS;
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::host::Machine;
use crate::identity;
use crate::interest::{Destination, InterestIndex, Wants};
use crate::shared::Shared;

use inbound::Inbound;
use receipt::Origin;
use table::{Gone, MemberName, RouteTable};

pub use announcer::{Announcer, Urgency, add_route, share_member};
pub use metrics::describe;
pub use receipt::Placing;
pub use receive::FromPeer;
pub use send::{Copy, ToPeer};

/// How long a peer that cannot be heard of, or told, counts as there.
pub const LEASE: Duration = Duration::from_secs(10);

/// How often leases are looked at, and what found no way out is tried again.
const TICK: Duration = Duration::from_millis(250);

/// How often a node that starts looks whether it knows what its peers want.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Cores that a peer may have; what comes from others is ignored.
const MAX_CORES: u32 = 4096;

/// See the module.
#[derive(Default)]
pub struct Fanout {
    announcer: Arc<Announcer>,
    peers: RwLock<BTreeMap<u16, Arc<Peer>>>,
    metrics: metrics::Metrics,
}

/// Whether publications get to a node, soonest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// There is a stream to it.
    Linked,
    /// There is none, and what must get there is kept.
    Lost,
    /// There has been none for so long that nothing is kept for it.
    Over,
}

/// One of the streams between this node and a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Up,
    /// Since when.
    Down(Instant),
    /// Its peer's process has ended: nothing is to be waited for.
    Dead,
    /// For so long that the lease is over.
    Over,
}

impl Link {
    fn lost(&mut self) {
        if *self == Self::Up {
            *self = Self::Down(Instant::now());
        }
    }

    fn died(&mut self) {
        if let Self::Down(_) = *self {
            *self = Self::Dead;
        }
    }

    /// True once, when the lease ends.
    fn ends(&mut self) -> bool {
        let ends = match *self {
            Self::Down(since) => since.elapsed() >= LEASE,
            Self::Dead => true,
            Self::Up | Self::Over => false,
        };
        if ends {
            *self = Self::Over;
        }
        ends
    }
}

/// What is known of a peer.
pub struct Peer {
    node: u16,
    /// Moves when what is under way to it is given up.
    life: AtomicU64,
    /// The number of the stream to it; 0 while there is none.
    stream: AtomicU64,
    /// There has been none for so long that nothing is kept for it.
    is_over: AtomicBool,
    state: Mutex<State>,
}

struct State {
    /// The life that a stream last told of.
    incarnation: Option<u64>,
    /// The life that the routes and batches are from; what comes is ignored while there is none.
    heard: Option<u64>,
    incoming: Link,
    outgoing: Link,
    streams: u64,
    table: RouteTable,
    /// By core of the peer.
    inbound: BTreeMap<u16, Inbound>,
    /// Answers that found no way out.
    unsaid: Vec<u64>,
}

impl State {
    /// Nobody listens where a life was; false if it goes on all the same, or a later one does.
    fn end(&mut self, life: u64) -> bool {
        let is_of_before = self.incarnation.is_some_and(|incarnation| incarnation > life);
        let is_heard = self.incoming == Link::Up && self.heard == Some(life);
        if is_of_before || is_heard {
            return false;
        }
        self.incoming.died();
        self.outgoing.died();
        true
    }
}

impl Peer {
    fn new(node: u16) -> Self {
        Self {
            node,
            life: AtomicU64::new(0),
            stream: AtomicU64::new(0),
            is_over: AtomicBool::new(true),
            state: Mutex::new(State {
                incarnation: None,
                heard: None,
                incoming: Link::Over,
                outgoing: Link::Over,
                streams: 0,
                table: RouteTable::default(),
                inbound: BTreeMap::new(),
                unsaid: Vec::new(),
            }),
        }
    }

    /// Notes what became of a batch, and tells the peer if that is news.
    fn report(&self, origin: &Origin, note: impl FnOnce(&mut Inbound) -> bool) {
        let mut state = self.state.lock();
        if state.heard != Some(origin.incarnation) {
            return;
        }
        let Some(inbound) = state.inbound.get_mut(&origin.core) else { return };
        if note(inbound) {
            self.answer(&origin.shared.fanout.announcer, origin.core, inbound);
        }
    }

    fn answer(&self, announcer: &Announcer, core: u16, inbound: &mut Inbound) {
        inbound.unsaid = !announcer.send(self.node, Kind::Placed(inbound.answer(core)));
    }

    /// Says again how far everything has got, or only what found no way out.
    fn answer_all(&self, announcer: &Announcer, again: bool) {
        let mut state = self.state.lock();
        for (core, inbound) in &mut state.inbound {
            if again || inbound.unsaid {
                self.answer(announcer, *core, inbound);
            }
        }
        let synced =
            |token: &u64| announcer.send(self.node, Kind::Synced(Synced { token: *token }));
        state.unsaid.retain(|token| !synced(token));
    }
}

impl Fanout {
    /// From now on there are links, and this sends on them; false when that is not possible now.
    pub fn start(&self, send: impl Fn(u64, Message, Urgency) -> bool + Send + Sync + 'static) {
        self.announcer.start(Box::new(send));
    }

    /// Tells the peers what is in the index.
    pub fn announcer(&self) -> Arc<Announcer> {
        Arc::clone(&self.announcer)
    }

    /// See [`Announcer::sync`].
    pub fn sync(&self, group: Option<u16>) -> Option<impl Future<Output = ()> + use<>> {
        self.announcer.sync(group, &self.metrics)
    }

    fn peer(&self, node: u16) -> Option<Arc<Peer>> {
        self.peers.read().get(&node).cloned()
    }

    /// Whether publications can be sent to a node.
    pub fn reach(&self, node: u16) -> Reach {
        match self.peers.read().get(&node) {
            Some(peer) if peer.stream.load(Ordering::Acquire) != 0 => Reach::Linked,
            Some(peer) if !peer.is_over.load(Ordering::Acquire) => Reach::Lost,
            _ => Reach::Over,
        }
    }

    /// Whether a node can be heard of now.
    pub fn hears(&self, node: u16) -> bool {
        self.peer(node).is_some_and(|peer| peer.state.lock().incoming == Link::Up)
    }

    /// Whether everything is known that the peers want which can be reached now.
    fn knows_routes(&self) -> bool {
        self.peers.read().values().all(|peer| {
            let state = peer.state.lock();
            state.outgoing != Link::Up || state.heard.is_some() && state.table.is_whole()
        })
    }

    /// A stream is there.
    pub fn connected(&self, shared: &Arc<Shared>, stream: Stream, incarnation: u64) {
        let Ok(node) = u16::try_from(stream.peer) else { return };
        let new = || Arc::new(Peer::new(node));
        let peer = Arc::clone(self.peers.write().entry(node).or_insert_with(new));
        let mut state = peer.state.lock();
        // Of two streams to different lives, the one to the earlier is about to end.
        let is_of_before = match stream.direction {
            Direction::Incoming => state.heard != Some(incarnation),
            Direction::Outgoing => state.heard.is_some_and(|heard| heard < incarnation),
        };
        if is_of_before {
            self.forget_routes(&shared.interest, &mut state, node);
            state.inbound.clear();
            state.unsaid.clear();
            state.heard = None;
        }
        if state.incarnation.is_some_and(|known| known != incarnation) {
            info!(peer = node, "a peer is back in another life");
            // Before any of its new routes is known, so that whoever uses those has seen this.
            peer.life.fetch_add(1, Ordering::AcqRel);
        }
        state.incarnation = Some(incarnation);
        match stream.direction {
            Direction::Incoming => {
                state.incoming = Link::Up;
                state.heard = Some(incarnation);
                drop(state);
                self.announcer.ask_again(node);
            }
            Direction::Outgoing => {
                state.outgoing = Link::Up;
                state.streams += 1;
                peer.stream.store(state.streams, Ordering::Release);
                peer.is_over.store(false, Ordering::Release);
                drop(state);
                self.announcer.connected(node);
                peer.answer_all(&self.announcer, true);
            }
        }
        shared.on_every_core(|core| core.look_at_peers());
    }

    /// A stream has ended.
    pub fn lost(&self, shared: &Arc<Shared>, stream: Stream) {
        let Some(peer) = u16::try_from(stream.peer).ok().and_then(|node| self.peer(node)) else {
            return;
        };
        let mut state = peer.state.lock();
        if stream.direction == Direction::Incoming {
            state.incoming.lost();
            return;
        }
        state.outgoing.lost();
        peer.stream.store(0, Ordering::Release);
        drop(state);
        self.announcer.lost(peer.node);
        shared.on_every_core(|core| core.look_at_peers());
    }

    /// Nobody listens any more where a life of a peer did: what its streams had a lease for is over, unless
    /// they are of a later one, or it is heard all the same.
    pub fn ended(&self, shared: &Arc<Shared>, node: u64, life: u64) {
        let Some(peer) = u16::try_from(node).ok().and_then(|node| self.peer(node)) else { return };
        if peer.state.lock().end(life) {
            self.end_leases(shared, &peer);
        }
    }

    /// Waits until this node knows what is wanted on the others, so that nobody publishes past their
    /// clients: until it has heard of a leader of the registry, of whom it also knows who else is there,
    /// and every peer that it reaches has told it all. Not for longer than a lease: what is wanted
    /// without a quorum may not delay what can be done without one.
    pub async fn routes_restored(shared: &Shared) {
        let has_leader =
            |groups: &mut GroupsView<'_, Machine>| groups.status(GroupId::META)?.leader.map(drop);
        let restored = async {
            while identity::look(shared, has_leader).await.flatten().is_none()
                || !shared.fanout.knows_routes()
            {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        if tokio::time::timeout(LEASE, restored).await.is_err() {
            warn!(
                "clients are let in before it is known what is wanted on all other nodes: no leader \
                of group 0 is heard of, or a peer that is linked has not told all it wants"
            );
        }
    }

    /// Looks at leases, tells snapshots and says again what found no way out, as long as the node runs.
    pub async fn run(shared: Arc<Shared>) {
        let fanout = &shared.fanout;
        loop {
            // Nobody minds when a tick is late.
            let _ = tokio::time::timeout(TICK, fanout.announcer.due.notified()).await;
            while fanout.announcer.advance(&shared.interest) {
                tokio::task::yield_now().await;
            }
            let peers: Vec<_> = fanout.peers.read().values().cloned().collect();
            for peer in peers {
                peer.answer_all(&fanout.announcer, false);
                fanout.end_leases(&shared, &peer);
            }
        }
    }

    fn end_leases(&self, shared: &Arc<Shared>, peer: &Peer) {
        let mut state = peer.state.lock();
        if state.incoming.ends() {
            info!(peer = peer.node, routes = state.table.len(), "the lease of a peer has ended");
            self.forget_routes(&shared.interest, &mut state, peer.node);
            self.announcer.forget(peer.node);
        }
        if state.outgoing.ends() {
            peer.is_over.store(true, Ordering::Release);
            peer.life.fetch_add(1, Ordering::AcqRel);
            drop(state);
            shared.on_every_core(|core| core.look_at_peers());
        }
    }

    fn forget_routes(&self, index: &InterestIndex, state: &mut State, node: u16) {
        self.metrics.routes.decrement(state.table.len() as f64);
        let gone = state.table.clear();
        take_away(index, node, gone);
    }

    /// A peer wants something, or does not want it any more.
    fn change_routes(&self, index: &InterestIndex, state: &mut State, node: u16, routes: Routes) {
        let before = state.table.len();
        let added = routes.added.iter().map(|filter| (filter, Wants::Everything));
        let qos_zero = routes.added_qos0.iter().map(|filter| (filter, Wants::QosZero));
        for (filter, wants) in added.chain(qos_zero) {
            if state.table.add(filter, wants) {
                index.set(filter.as_str(), Destination::Node(node), Some(wants));
            }
        }
        let removed = routes.removed.iter().filter(|filter| state.table.remove(filter));
        removed.for_each(|filter| index.set(filter.as_str(), Destination::Node(node), None));
        for member in routes.joined {
            let share = topic::Share { name: &member.share, filter: &member.filter };
            let qos = u8::try_from(member.qos).ok().and_then(|qos| QoS::try_from(qos).ok());
            index.share(share, &member.client, |known| {
                known.node = Some(node);
                known.qos = qos.unwrap_or_default();
                known.retain_as_published = member.retain_as_published;
                known.subscription_ids = member.subscription_ids.as_slice().into();
            });
            state.table.join(MemberName {
                share: member.share.into(),
                filter: member.filter.into(),
                client: member.client.into(),
            });
        }
        for member in routes.left {
            let name = MemberName {
                share: member.share.into(),
                filter: member.filter.into(),
                client: member.client.into(),
            };
            if state.table.leave(&name) {
                take_away(index, node, Gone { filters: Vec::new(), members: vec![name] });
            }
        }
        self.metrics.routes.increment(state.table.len() as f64 - before as f64);
    }
}

fn take_away(index: &InterestIndex, node: u16, gone: Gone) {
    for filter in gone.filters {
        index.set(filter, Destination::Node(node), None);
    }
    for member in gone.members {
        let share = topic::Share { name: &member.share, filter: &member.filter };
        index.share(share, &member.client, |known| {
            // Another node may have it by now.
            known.node = known.node.filter(|other| *other != node);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interest::Without;

    #[test]
    fn a_lease_ends_once_and_only_of_a_stream_that_is_lost() {
        let mut link = Link::Up;
        assert!(!link.ends());
        link.died();
        assert_eq!(link, Link::Up, "the refusal was of the life before");
        link.lost();
        assert!(!link.ends(), "it has just begun");
        let long_ago = Instant::now().checked_sub(LEASE).expect("the machine has run for longer");
        link = Link::Down(long_ago);
        link.lost();
        assert_eq!(link, Link::Down(long_ago), "it does not begin anew");
        assert!(link.ends());
        assert!(!link.ends());
        link = Link::Down(Instant::now());
        link.died();
        assert!(link.ends() && !link.ends());
    }

    #[test]
    fn a_life_ends_where_nobody_listens_unless_it_is_heard_or_a_later_one_is() {
        let peer = Peer::new(2);
        let mut state = peer.state.lock();
        (state.incarnation, state.heard) = (Some(5), Some(5));
        (state.incoming, state.outgoing) = (Link::Up, Link::Down(Instant::now()));
        assert!(!state.end(5), "it is heard");
        assert!(!state.outgoing.ends());
        state.incoming.lost();
        assert!(!state.end(4), "that was the one before");
        assert!(!state.outgoing.ends());
        assert!(state.end(5));
        assert!(state.incoming.ends() && state.outgoing.ends());
    }

    #[test]
    fn a_member_that_is_on_another_node_by_now_stays() {
        let index = InterestIndex::default();
        let share = topic::Share { name: "s", filter: "a/#" };
        index.share(share, "moved", |member| member.node = Some(1));
        index.share(share, "moved", |member| member.node = Some(2));
        index.share(share, "stayed", |member| member.node = Some(1));
        let name = |client: &str| MemberName {
            share: share.name.into(),
            filter: share.filter.into(),
            client: client.into(),
        };
        let members = vec![name("moved"), name("stayed")];
        take_away(&index, 1, Gone { filters: Vec::new(), members });
        let left = index.share_group(share).unwrap();
        let left = [1, 2].map(|node| left.elsewhere(node, QoS::AtMostOnce));
        assert_eq!(left, [Without::new(), Without::from_iter(["moved".into()])]);
    }
}
