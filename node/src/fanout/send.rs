//! The sending side of a core: publications for peers, batched per turn and encoded once.
//!
//! Bounds: at most [`CREDIT`] bytes under way per core and peer, and one turn; publishers that use a peer
//! that has more wait. What nobody waits for is dropped while there is no stream to the peer; the rest is
//! kept until the peer has placed it, is back in another life, or its lease has ended. So is what members
//! that have left had not acknowledged, whoever publishes: until that comes to [`OWED_BYTES`].

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use links::proto::fanout_message::Kind;
use links::proto::{self, Deliver, Placed};
use links::{Parcel, encode_parcel};
use mqtt::{QoS, Reason};

use super::Peer;
use super::metrics::{Dropped, OUT};
use super::window::Window;
use crate::core::{CREDIT, Core, Ticket, ToCore, Uses};
use crate::host::Failure;
use crate::interest::{Member, ShareGroup, Without};
use crate::publication::{Kept, Publication, qos_of};
use crate::publish::{Among, Errand, Published};

/// A batch is closed once it is this large.
const BATCH_BYTES: usize = 256 << 10;

/// While there is no stream nothing is added for a member that has left if there is more under way.
const OWED_BYTES: usize = 16 * CREDIT;

/// What a parcel costs beside its publication.
const OVERHEAD: usize = 64;

/// What a shared subscription has given to a member on another node.
#[derive(Debug)]
pub struct Copy {
    /// The member.
    pub member: Member,
    /// The subscription, for when no member there can take it.
    pub share: Arc<ShareGroup>,
    /// Members that could not.
    pub without: Without,
    /// What was published.
    pub publication: Kept,
    /// It comes from an outbox, or from a member that has left: whoever published it was told that it is
    /// taken.
    pub owed: bool,
    /// Which others may have it.
    pub among: Among,
}

impl Copy {
    /// What the member is sent it with.
    fn qos(&self) -> QoS {
        self.member.qos.min(qos_of(self.publication.qos))
    }
}

/// Who waits for a parcel.
#[derive(Debug)]
struct Waiting {
    /// Its place in the batch.
    parcel: u32,
    ticket: Option<Ticket>,
    copy: Option<Box<Copy>>,
}

impl Waiting {
    /// Whether a member that has left had it, and its publisher has its acknowledgement.
    fn is_owed(&self) -> bool {
        self.ticket.is_none() && is_owed(self.copy.as_deref())
    }
}

fn is_owed(copy: Option<&Copy>) -> bool {
    copy.is_some_and(|copy| copy.owed && copy.qos() != QoS::AtMostOnce)
}

/// What a core has for one peer.
pub struct ToPeer {
    peer: Arc<Peer>,
    life: u64,
    stream: u64,
    /// Encoded, and how many they are.
    parcels: Vec<u8>,
    count: u32,
    waiting: Vec<Waiting>,
    /// What they are charged with.
    bytes: usize,
    window: Window<Waiting>,
    /// Who waited for what was given up.
    given_up: Vec<Waiting>,
    /// Parcels that were lost with their stream.
    lost: u64,
}

impl ToPeer {
    fn new(peer: Arc<Peer>) -> Self {
        Self {
            life: peer.life.load(Ordering::Acquire),
            stream: peer.stream.load(Ordering::Acquire),
            peer,
            parcels: Vec::new(),
            count: 0,
            waiting: Vec::new(),
            bytes: 0,
            window: Window::default(),
            given_up: Vec::new(),
            lost: 0,
        }
    }

    /// Acts on what has happened to the peer and its stream since the last look.
    fn look(&mut self) {
        let life = self.peer.life.load(Ordering::Acquire);
        if life != self.life {
            self.life = life;
            let may_be_there = |(mut waiting, was_sent): (Waiting, bool)| {
                // Once more is not more often than at least once.
                waiting.copy.take_if(|copy| was_sent && copy.qos() != QoS::AtLeastOnce);
                waiting
            };
            self.given_up.extend(self.window.give_up().into_iter().map(may_be_there));
            self.given_up.append(&mut self.waiting);
            self.parcels.clear();
            (self.count, self.bytes) = (0, 0);
        }
        let stream = self.peer.stream.load(Ordering::Acquire);
        if stream != self.stream {
            self.stream = stream;
            self.window.rewind();
            if stream == 0 {
                self.lost += self.window.drop_unless(|it| it.ticket.is_some() || it.is_owed());
            }
        }
    }

    /// Adds a parcel to the batch; gives back its place in it.
    fn add(&mut self, parcel: &Parcel<'_>, bytes: usize) -> u32 {
        encode_parcel(parcel, &mut self.parcels);
        self.count += 1;
        self.bytes += bytes;
        self.count - 1
    }

    fn seal(&mut self) {
        if self.count > 0 {
            // The next batch is likely as large as this one.
            let next = Vec::with_capacity(self.parcels.len().min(BATCH_BYTES));
            let parcels = std::mem::replace(&mut self.parcels, next).into();
            let waiting = std::mem::take(&mut self.waiting);
            let (count, bytes) = (std::mem::take(&mut self.count), std::mem::take(&mut self.bytes));
            self.window.seal(parcels, count.into(), bytes, waiting);
        }
    }

    fn held(&self) -> usize {
        self.window.under_way() + self.bytes
    }

    fn is_behind(&self) -> bool {
        self.held() > CREDIT
    }
}

impl Core {
    /// Adds a publication to the batch for another node; `copy` says which member of a shared
    /// subscription it is for, everybody there who subscribed without it.
    pub(crate) fn hand_over_to_node(
        &self,
        node: u16,
        publication: &Publication<'_>,
        copy: Option<Box<Copy>>,
        errand: Errand,
        published: &mut Published,
    ) {
        let metrics = &self.shared.fanout.metrics;
        if publication.bytes() > self.shared.publication_bytes {
            metrics.dropped(Dropped::TooLarge, 1);
            published.reached = true;
            return;
        }
        let mut to_peers = self.to_peers.borrow_mut();
        let at = to_peers.iter().position(|to_peer| to_peer.peer.node == node);
        let at = at.or_else(|| {
            to_peers.push(ToPeer::new(self.shared.fanout.peer(node)?));
            Some(to_peers.len() - 1)
        });
        let Some(to_peer) = at.map(|at| &mut to_peers[at]) else { return };
        to_peer.look();
        let ticket = errand.ticket.filter(|_| publication.qos != QoS::AtMostOnce);
        let is_over = to_peer.peer.is_over.load(Ordering::Acquire);
        let is_kept = ticket.is_some() || is_owed(copy.as_deref()) && to_peer.held() <= OWED_BYTES;
        if to_peer.stream == 0 && (!is_kept || is_over) {
            metrics.dropped(Dropped::Unreachable, 1);
            return;
        }
        published.reached = true;
        published.uses.add_peer(node);
        published.waiting += u16::from(ticket.is_some());
        let parcel = Parcel {
            publication: publication.to_peer(),
            member: copy.as_ref().map(|copy| links::Member {
                share: &copy.share.name,
                filter: &copy.share.filter,
                client: &copy.member.client,
            }),
            asks: ticket.is_some() || is_owed(copy.as_deref()),
            owed: errand.owed,
        };
        let place = to_peer.add(&parcel, publication.bytes() + OVERHEAD);
        if ticket.is_some() || copy.is_some() {
            to_peer.waiting.push(Waiting { parcel: place, ticket, copy });
        }
        if to_peer.bytes >= BATCH_BYTES {
            to_peer.seal();
        }
    }

    /// Whether one of these peers has more to take than it should.
    pub(crate) fn is_peer_behind(&self, uses: Uses) -> bool {
        let to_peers = self.to_peers.borrow();
        to_peers.iter().any(|to_peer| uses.peer(to_peer.peer.node) && to_peer.is_behind())
    }

    /// How much of what members that have left had not acknowledged is on its way to other nodes.
    pub(crate) fn owed_to_peers(&self) -> usize {
        let to_peers = self.to_peers.borrow();
        let waiting = to_peers
            .iter()
            .flat_map(|it| it.waiting.iter().chain(it.window.waiting()).chain(&it.given_up));
        waiting.filter(|waiting| waiting.is_owed()).count() + self.unsettled.get()
    }

    /// Something has happened to a peer or to its stream.
    pub fn look_at_peers(self: &Rc<Self>) {
        self.flush_peers();
        self.wake_publishers();
    }

    /// Sends what the present batch has for peers, and what could not be sent before.
    pub(crate) fn flush_peers(self: &Rc<Self>) {
        let fanout = &self.shared.fanout;
        let mut given_up = Vec::new();
        for to_peer in self.to_peers.borrow_mut().iter_mut() {
            to_peer.look();
            to_peer.seal();
            let node = to_peer.peer.node;
            while to_peer.stream != 0
                && let Some(unsent) = to_peer.window.unsent()
            {
                let (count, bytes) = (unsent.count, unsent.parcels.len());
                let deliver = Deliver {
                    core: self.id.into(),
                    sequence: unsent.sequence,
                    first: unsent.first,
                    parcels: unsent.parcels,
                };
                if !fanout.announcer.send(node, Kind::Deliver(deliver)) {
                    break;
                }
                fanout.metrics.parcels[OUT].increment(count);
                fanout.metrics.bytes[OUT].increment(bytes as u64);
                to_peer.window.sent();
            }
            fanout.metrics.dropped(Dropped::Lost, std::mem::take(&mut to_peer.lost));
            given_up.extend(std::mem::take(&mut to_peer.given_up).into_iter().map(|it| (node, it)));
        }
        if !given_up.is_empty() {
            let core = Rc::clone(self);
            let count = given_up.len();
            self.unsettled.update(|unsettled| unsettled + count);
            // Not in the midst of whoever flushes.
            actix_rt::spawn(async move {
                core.settle_given_up(given_up);
                core.unsettled.update(|unsettled| unsettled - count);
            });
        }
    }

    /// Answers for sessions that are gone with their node, or cannot be reached for too long.
    fn settle_given_up(self: &Rc<Self>, given_up: Vec<(u16, Waiting)>) {
        self.read_clock();
        for (node, waiting) in given_up {
            match waiting.copy {
                Some(copy) => self.choose_again(node, *copy, waiting.ticket),
                None => self.settle_anywhere(waiting.ticket, Ok(())),
            }
        }
        self.wake_publishers();
        self.flush();
    }

    /// A peer says how far it has got with what this core has sent.
    pub(crate) fn peer_placed(self: &Rc<Self>, node: u16, placed: &Placed) {
        let mut to_peers = self.to_peers.borrow_mut();
        let Some(to_peer) = to_peers.iter_mut().find(|to_peer| to_peer.peer.node == node) else {
            return;
        };
        to_peer.look();
        let settled = to_peer.window.placed(placed.upto);
        let is_free = to_peer.window.released(placed.released_upto);
        drop(to_peers);
        let place = |it: &proto::Unplaced| ((it.sequence, it.parcel), it.reason);
        let unplaced: HashMap<_, _> = placed.unplaced.iter().map(place).collect();
        for (sequence, waiting) in settled {
            for Waiting { parcel, ticket, copy } in waiting {
                match (unplaced.get(&(sequence, parcel)), copy) {
                    (Some(0), Some(copy)) => self.choose_again(node, *copy, ticket),
                    (Some(0) | None, _) => self.settle_anywhere(ticket, Ok(())),
                    (Some(reason), _) => {
                        let reason = u8::try_from(*reason).ok().map(Reason::try_from);
                        let reason =
                            reason.and_then(Result::ok).unwrap_or(Reason::UnspecifiedError);
                        self.settle_anywhere(ticket, Err(Failure::Outcome(reason)));
                    }
                }
            }
        }
        if is_free {
            self.wake_publishers();
        }
    }

    /// Tells whoever holds a ticket, on whichever core, what a taker has made of it.
    pub(crate) fn settle_anywhere(&self, ticket: Option<Ticket>, taken: Result<(), Failure>) {
        let Some(ticket) = ticket else { return };
        let results = vec![(ticket, taken)];
        if ticket.core() == self.id {
            self.settle(results);
        } else {
            self.shared.send(ticket.core(), ToCore::Taken { results, credit: None });
        }
    }
}
