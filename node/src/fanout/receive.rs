//! The receiving side: what a peer says, and its publications on their way to the cores that want them.
//!
//! Runs on the runtime of the links and waits for nothing. The inboxes of the cores are bounded by the
//! credit of the senders: it is given back when no session is behind.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster::GroupId;
use links::proto::fanout_message::Kind;
use links::proto::{Deliver, FanoutMessage, Sync, Synced};
use links::{Parcel, Unreadable, encoded_parcels};
use mqtt::QoS;
use tracing::warn;

use super::inbound::Verdict;
use super::metrics::IN;
use super::receipt::{Origin, Placing, Releasing};
use super::{Fanout, Link, MAX_CORES, Peer};
use crate::core::{Core, Ticket, ToCore, ToMember};
use crate::endpoint::Endpoint;
use crate::identity;
use crate::interest::{Destination, Member, Without};
use crate::pending::Asker;
use crate::publication::{Publication, qos_of};
use crate::publish::{Among, Published};
use crate::route::{Places, add_place};
use crate::shared::Shared;

/// How long to wait before a group that has no leader is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// What a peer has sent for one core.
pub struct FromPeer {
    /// The peer's batch, in the memory of what was read from the socket.
    batch: Bytes,
    parcels: Vec<Received>,
    placing: Arc<Placing>,
    releasing: Arc<Releasing>,
}

/// One publication of it.
struct Received {
    /// Where it lies in the batch.
    at: Range<u32>,
    /// Its place among the batch's parcels.
    parcel: u32,
    to: Option<Box<ToMember>>,
    asks: bool,
}

impl Fanout {
    /// A peer has sent these, in this order.
    pub fn received(&self, shared: &Arc<Shared>, peer: u64, messages: Vec<FanoutMessage>) {
        let Some(peer) = u16::try_from(peer).ok().and_then(|node| self.peer(node)) else { return };
        if peer.state.lock().heard.is_none() {
            // It is of a life that is over.
            return;
        }
        let index = &shared.interest;
        for kind in messages.into_iter().filter_map(|message| message.kind) {
            match kind {
                Kind::SnapshotBegin(begin) => peer.state.lock().table.begin(begin.epoch),
                Kind::Routes(routes) => {
                    self.change_routes(index, &mut peer.state.lock(), peer.node, routes);
                }
                Kind::SnapshotEnd(end) => {
                    let gone = peer.state.lock().table.end(end.epoch);
                    let count = gone.filters.len() + gone.members.len();
                    self.metrics.routes.decrement(count as f64);
                    super::take_away(index, peer.node, gone);
                }
                Kind::Sync(sync) => self.answer_sync(shared, &peer, sync),
                Kind::Synced(synced) => self.announcer.synced(peer.node, synced.token),
                Kind::Deliver(deliver) => self.deliver(shared, &peer, deliver),
                Kind::Placed(placed) => match u16::try_from(placed.core) {
                    Ok(core) if usize::from(core) < shared.cores.len() => {
                        shared.send(core, ToCore::Placed { node: peer.node, placed });
                    }
                    _ => {}
                },
            }
        }
    }

    /// Answers once everything that was said before is known here, and of a group what was committed.
    fn answer_sync(&self, shared: &Arc<Shared>, peer: &Arc<Peer>, sync: Sync) {
        let token = sync.token;
        let Some(group) = sync.group.map(GroupId) else { return self.say_synced(peer, token) };
        let (shared, peer) = (Arc::clone(shared), Arc::clone(peer));
        // One for each SUBSCRIBE that waits on the peer.
        tokio::spawn(async move {
            // What this node knows of how far it has got may be late, so that an index is no help yet.
            while identity::read(&shared, group, |_| ()).await.is_none() {
                if shared.draining() || peer.state.lock().incoming != Link::Up {
                    return;
                }
                tokio::time::sleep(ASK_AGAIN).await;
            }
            shared.fanout.say_synced(&peer, token);
        });
    }

    fn say_synced(&self, peer: &Peer, token: u64) {
        if !self.announcer.send(peer.node, Kind::Synced(Synced { token })) {
            peer.state.lock().unsaid.push(token);
        }
    }

    fn deliver(&self, shared: &Arc<Shared>, peer: &Arc<Peer>, deliver: Deliver) {
        let Some(core) = u16::try_from(deliver.core).ok().filter(|_| deliver.core < MAX_CORES)
        else {
            return;
        };
        let mut state = peer.state.lock();
        let Some(incarnation) = state.heard else { return };
        let inbound = state.inbound.entry(core).or_default();
        match inbound.accept(deliver.sequence, deliver.first) {
            Verdict::Take => {}
            Verdict::Again => return peer.answer(&self.announcer, core, inbound),
            Verdict::Gap => return,
        }
        drop(state);
        let (shared_, peer_) = (Arc::clone(shared), Arc::clone(peer));
        let sequence = deliver.sequence;
        let origin = Origin { shared: shared_, peer: peer_, incarnation, core, sequence };
        let releasing = Arc::new(Releasing(origin.clone()));
        let placing = Arc::new(Placing::new(origin));
        self.metrics.bytes[IN].increment(deliver.parcels.len() as u64);
        let Ok(Sorted { count, for_cores }) = sort(shared, &deliver.parcels, &placing) else {
            warn!(peer = peer.node, "a batch of publications cannot be read");
            return;
        };
        self.metrics.parcels[IN].increment(count);
        for (core, parcels) in for_cores.into_iter().enumerate() {
            if parcels.is_empty() {
                continue;
            }
            let batch = deliver.parcels.clone();
            let (placing, releasing) = (Arc::clone(&placing), Arc::clone(&releasing));
            let batch = FromPeer { batch, parcels, placing, releasing };
            shared.send(core as u16, ToCore::FromPeer(batch));
        }
        // Said together, where nobody wants any of it.
        drop(releasing);
    }
}

/// Which cores get what of a batch.
struct Sorted {
    /// How many parcels it has.
    count: u64,
    for_cores: Vec<Vec<Received>>,
}

fn sort(shared: &Shared, batch: &[u8], placing: &Placing) -> Result<Sorted, Unreadable> {
    let mut for_cores: Vec<Vec<Received>> = shared.cores.iter().map(|_| Vec::new()).collect();
    // Of the publication before; one topic often follows itself.
    let mut cores = Places::new();
    let mut of = None;
    let mut count = 0;
    for (parcel, at) in (0..).zip(encoded_parcels(batch)) {
        let at = at?;
        let Parcel { publication, member, asks, owed } = Parcel::decode(&batch[at.clone()])?;
        let at = at.start as u32..at.end as u32;
        count += 1;
        if let Some(member) = member {
            let share = topic::Share { name: member.share, filter: member.filter };
            let share = shared.interest.share_group(share);
            let qos = qos_of(publication.qos);
            let here = share.and_then(|share| {
                // The one that the peer has named is as it wants it.
                let must_acknowledge = owed && qos != QoS::AtMostOnce && share.has_acknowledging();
                let is_out = |it: &Member| {
                    let is_named = *it.client == *member.client;
                    owed && it.queues(qos) || must_acknowledge && !is_named && !it.acknowledges()
                };
                Some((share.here(member.client, is_out)?, share))
            });
            let Some((member, share)) = here else {
                placing.unplaced(parcel, 0);
                continue;
            };
            let Some(live) = member.live else { continue };
            let (without, among) = (Without::new(), Among::Here);
            let to = Some(Box::new(ToMember { member, share, without, owed, among }));
            for_cores[usize::from(live.core)].push(Received { at, parcel, to, asks });
            continue;
        }
        if of != Some(publication.topic) {
            of = Some(publication.topic);
            cores.clear();
            let topic = std::str::from_utf8(publication.topic).unwrap_or_default();
            shared.interest.resolve(topic, |interest| {
                for (destination, wants) in &interest.destinations {
                    if let Destination::Core(core) = destination {
                        add_place(&mut cores, *core, *wants);
                    }
                }
            });
        }
        let qos = qos_of(publication.qos);
        for (core, _) in cores.iter().filter(|(_, wants)| wants.includes(qos)) {
            let received = Received { at: at.clone(), parcel, to: None, asks };
            for_cores[usize::from(*core)].push(received);
        }
    }
    Ok(Sorted { count, for_cores })
}

impl Core {
    /// Places what a peer has sent.
    pub(crate) fn deliver_from_peer(self: &Rc<Self>, batch: FromPeer) {
        let FromPeer { batch, parcels, placing, releasing } = batch;
        let mut pressed: Vec<Rc<Endpoint>> = Vec::new();
        let mut uses = crate::core::Uses::default();
        for received in &parcels {
            let at = received.at.start as usize..received.at.end as usize;
            let Ok(parcel) = Parcel::decode(&batch[at]) else { continue };
            let publication = Publication::from_peer(&parcel.publication);
            let mut published = Published::default();
            match &received.to {
                Some(to) => {
                    self.deliver_to_own(to, &publication, received, &placing, &mut published);
                }
                None => {
                    for target in &self.route(publication.topic).targets {
                        self.deliver_to(target, &publication, &mut published);
                    }
                }
            }
            uses.groups |= published.uses.groups;
            if let Some(endpoint) = published.pressed
                && !pressed.iter().any(|other| Rc::ptr_eq(other, &endpoint))
            {
                pressed.push(endpoint);
            }
        }
        if pressed.is_empty() && !self.is_behind(uses) {
            // Before the other, so that both are said at once.
            drop(releasing);
            drop(placing);
            return;
        }
        drop(placing);
        let core = Rc::clone(self);
        actix_rt::spawn(async move {
            for endpoint in pressed {
                endpoint.room().await;
            }
            core.caught_up(uses).await;
            drop(releasing);
        });
    }

    /// Delivers to a member of a shared subscription here: the one that the peer has chosen, or
    /// another one.
    fn deliver_to_own(
        &self,
        to: &ToMember,
        publication: &Publication<'_>,
        received: &Received,
        placing: &Arc<Placing>,
        published: &mut Published,
    ) {
        let ticket = received.asks.then(|| {
            let asker = Asker::Peer(Arc::clone(placing), received.parcel);
            let number = self.pendings.borrow_mut().open(asker);
            Ticket::Core { core: self.id, number }
        });
        self.deliver_to_member(to, publication, (ticket, None), published);
        if !published.reached && published.waiting == 0 {
            placing.unplaced(received.parcel, 0);
        }
        if let Some(Ticket::Core { number, .. }) = ticket {
            self.pending_sent(number, published.waiting);
        }
    }
}
