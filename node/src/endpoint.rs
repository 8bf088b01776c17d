//! The delivery side of a connection: where its core's router puts publications.
//!
//! An endpoint belongs to one core and is shared between that core's router and the connection's
//! actor, which writes the outbox to the socket. Nothing here waits.
//!
//! Bounds: the outbox takes [`Budget::outbox`] bytes; beyond half of it publishers stop reading
//! their sockets until it drains, or until the endpoint counts as slow: it has made no progress for
//! [`Budget::patience`], or has stayed behind for five times as long, whatever progress it made.
//! Nobody waits for itself, and who is waited for does not wait for other endpoints: its
//! acknowledgements are needed. A slow endpoint loses QoS 0 publications beyond the bound; a session
//! that is not persistent and has more than [`Budget::pending`] bytes of QoS 1 and 2 waiting is closed. When
//! the connections of a core together hold their budget, those that have fallen behind are treated as
//! if they were over their own.

mod ending;
mod lookups;
mod pressure;
mod shared;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use fleet::registry::ThingName;
use mqtt::session::{Acks, OutboundAliases, Owed, Settled, Turn, Window};
use mqtt::{AckKind, Outgoing, PacketId, QoS, Reason, Version};
use policy::{Action, Compiled, Variables};
use smallvec::SmallVec;

use crate::clock::Clock;
use crate::decisions::Watch;
use crate::denial::Denial;
use crate::interest::ShareGroup;
use crate::outbox::{Outbox, Pool};
use crate::propagated::Propagated;
use crate::publication::{Kept, Publication};

pub use ending::is_urgent;
use lookups::Fresh;
pub use lookups::{Lookup, Suback};
use shared::Unacknowledged;

/// What the principal of a connection may do: of many connections, where that cannot change.
pub type Permissions = Arc<ArcSwap<Compiled>>;

/// Subscription identifiers of one delivery.
pub type SubscriptionIds = SmallVec<[u32; 2]>;

/// How much may wait for one connection.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Bytes in the outbox.
    pub outbox: usize,
    /// Bytes of QoS 1 and 2 publications that wait for room in the client's receive window.
    pub pending: usize,
    /// How long publishers wait for a subscriber that makes no progress.
    pub patience: Duration,
}

/// How a subscription wants a publication.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// The lower of the publisher's QoS and the granted one.
    pub qos: QoS,
    /// RETAIN flag of the delivery.
    pub retain: bool,
    /// All subscriptions that match [v5 MQTT-3.3.4-3].
    pub subscription_ids: &'a [u32],
    /// The shared subscription that it comes by: others may have it instead.
    pub share: Option<&'a Arc<ShareGroup>>,
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// In the outbox or waiting for the receive window.
    Taken,
    /// Taken, but the connection has fallen behind: the publisher should wait.
    Pressed,
    /// Not taken, for good.
    Dropped(DropReason),
}

/// Why a publication did not reach a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// Its expiry has passed.
    Expired,
    /// The client's Maximum Packet Size is smaller [v5 MQTT-3.1.2-25].
    TooLarge,
    /// The connection does not keep up.
    Slow,
    /// The connection has ended.
    Gone,
}

/// What is fixed for the life of a connection.
#[derive(Debug)]
pub struct Profile {
    /// Client id.
    pub client: Arc<str>,
    /// Protocol version.
    pub version: Version,
    /// Whether QoS 1 and 2 publications reach it through its session's queue: the session is to
    /// outlive this connection, or has outlived an earlier one.
    pub persistent: bool,
    /// The session's record in its group: in a cluster, of a persistent session, of one with a will, or
    /// of one that somebody listens for.
    pub record: Option<Record>,
    /// Whether CONNECT asked for a session that outlives the connection.
    pub persistent_connect: bool,
    /// Its will.
    pub will: Option<Box<WillTopic>>,
    /// Who speaks.
    pub principal: crate::identity::Principal,
    /// The thing that its certificate is exclusively attached to. Few have one.
    pub thing: Option<Box<ThingName>>,
    /// Where it connects from.
    pub source_ip: Option<std::net::IpAddr>,
    /// The port there.
    pub source_port: u16,
    /// The name that it has asked for: see [`DomainNames`](crate::domain_names::DomainNames).
    pub domain_name: Option<Rc<String>>,
    /// Keep alive in seconds; 0 for none.
    pub keep_alive: u16,
    /// Milliseconds of the epoch.
    pub connected_at_ms: u64,
    /// The largest packet the client takes.
    pub maximum_packet_size: u32,
    /// Its place: core, slot, generation.
    pub live: crate::interest::Live,
}

impl Profile {
    /// What the connection brings to its policies beside who it is.
    pub fn variables(&self) -> Variables {
        Variables {
            client_id: Some(self.client.to_string()),
            source_ip: self.source_ip,
            domain_name: self.domain_name.as_deref().cloned(),
            ..Variables::default()
        }
    }
}

/// Where a will goes: what policies are asked about.
#[derive(Debug)]
pub struct WillTopic {
    /// The topic.
    pub topic: Box<str>,
    /// Whether it is to be retained.
    pub retain: bool,
}

/// Names a session in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// The group.
    pub group: u16,
    /// The session.
    pub session: u64,
    /// Fencing token of this connection.
    pub epoch: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Endpoint {
    /// What is fixed.
    pub profile: Profile,
    /// What its principal may do; replaced when policies change.
    permissions: Permissions,
    depends_on_time: Cell<bool>,
    /// Set when the policy no longer allows its will.
    pub will_denied: Cell<bool>,
    budget: Arc<Budget>,
    woken: Cell<bool>,
    /// Whether somebody wants to know what is decided.
    is_watched: Cell<bool>,
    /// Whether something is added to its publications.
    propagates: Cell<bool>,
    state: RefCell<State>,
}

const _: () =
    assert!(size_of::<Endpoint>() <= 432, "with its counts 448 bytes, a size of the allocator");

#[derive(Debug)]
struct State {
    outbox: Outbox,
    waker: Option<Waker>,
    window: Window,
    pending: VecDeque<Pending>,
    pending_bytes: usize,
    aliases: Option<Box<OutboundAliases>>,
    acks: Acks,
    /// What few connections have.
    rare: Option<Box<Rare>>,
    slow: bool,
    /// While retained messages are looked up: topics of which something newer was delivered.
    fresh: Option<Box<Fresh>>,
    /// Set when the connection has to end; the actor acts on it.
    doom: Option<Reason>,
    /// The last packet is in the outbox: nothing may follow it [v5 MQTT-3.14.4-1].
    ending: bool,
    closed: bool,
}

/// How far it has fallen behind.
#[derive(Debug, Default)]
struct Pressure {
    /// Since when it has made no progress.
    since: Option<Instant>,
    /// Since when it has been behind, whatever progress it made.
    behind_since: Option<Instant>,
    /// Publishers that wait for it.
    waiters: Vec<Waker>,
}

#[derive(Debug, Default)]
struct Rare {
    pressure: Pressure,
    /// What was sent of shared subscriptions, where no queue has it.
    shared: Unacknowledged,
    /// Notes what is decided.
    watch: Option<Arc<Watch>>,
    /// What the type of its thing adds to its publications.
    propagated: Option<Propagated>,
}

/// What a client may no longer receive, or has expired, of what waited for it.
#[derive(Debug, Default)]
pub struct NotSent {
    /// How many publications it may not receive.
    pub count: usize,
    /// Those that come from its session's queue and have to leave it: place, QoS, DUP.
    pub queued: Vec<(u64, QoS, bool)>,
    /// What has to leave the queue because it has expired meanwhile.
    pub expired: Vec<u64>,
    /// Those of shared subscriptions, for other members.
    pub shared: Vec<(Kept, Arc<ShareGroup>)>,
}

#[derive(Debug)]
struct Pending {
    publication: Kept,
    qos: QoS,
    retain: bool,
    subscription_ids: SubscriptionIds,
    /// Its place in the session's queue, and whether it may have been sent before.
    queued: Option<(u64, bool)>,
    /// The shared subscription that it comes by.
    share: Option<Arc<ShareGroup>>,
}

impl Pending {
    /// What it adds to memory: the content of a queued one belongs to the queue.
    fn bytes(&self) -> usize {
        let publication = &self.publication;
        if self.queued.is_some() {
            return 128;
        }
        publication.topic.len() + publication.payload.len() + publication.properties.len() + 128
    }
}

impl Endpoint {
    /// An endpoint that takes `receive_maximum` unacknowledged publications.
    pub fn new(
        profile: Profile,
        permissions: Permissions,
        budget: Arc<Budget>,
        receive_maximum: u16,
        topic_alias_maximum: u16,
    ) -> Self {
        let aliases =
            (topic_alias_maximum > 0).then(|| Box::new(OutboundAliases::new(topic_alias_maximum)));
        let state = State {
            outbox: Outbox::default(),
            waker: None,
            window: Window::new(receive_maximum),
            pending: VecDeque::new(),
            pending_bytes: 0,
            aliases,
            acks: Acks::default(),
            rare: None,
            slow: false,
            fresh: None,
            doom: None,
            ending: false,
            closed: false,
        };
        let state = RefCell::new(state);
        let (will_denied, woken) = (Cell::new(false), Cell::new(false));
        let depends_on_time = Cell::new(permissions.load().depends_on_time());
        let (is_watched, propagates) = (Cell::new(false), Cell::new(false));
        Self {
            profile,
            permissions,
            depends_on_time,
            will_denied,
            budget,
            woken,
            is_watched,
            propagates,
            state,
        }
    }

    /// What its principal may do.
    pub fn policy(&self) -> Guard<Arc<Compiled>> {
        self.permissions.load()
    }

    /// Policies have changed: from now on this counts.
    pub fn set_policy(&self, policy: Compiled) {
        self.depends_on_time.set(policy.depends_on_time());
        self.permissions.store(Arc::new(policy));
    }

    /// What the type of its thing adds to its publications from now on.
    pub fn set_propagated(&self, propagated: Option<Propagated>) {
        if propagated.is_some() || self.propagates.get() {
            self.propagates.set(propagated.is_some());
            self.state.borrow_mut().rare.get_or_insert_default().propagated = propagated;
        }
    }

    /// Looks at what is added to its publications, where something is.
    pub fn propagate<T>(&self, look: impl FnOnce(&Propagated) -> T) -> Option<T> {
        if !self.propagates.get() {
            return None;
        }
        self.state.borrow().rare.as_ref()?.propagated.as_ref().map(look)
    }

    /// What its principal may do, for other cores to ask.
    pub fn permissions(&self) -> Permissions {
        Arc::clone(&self.permissions)
    }

    /// Whether a decision of its policy may be another one at another time.
    pub fn depends_on_time(&self) -> bool {
        self.depends_on_time.get()
    }

    /// Has what is decided noted from now on.
    pub fn watch(&self, watch: Arc<Watch>) {
        watch.saw(&self.profile.principal, self.profile.variables());
        self.state.borrow_mut().rare.get_or_insert_default().watch = Some(watch);
        self.is_watched.set(true);
    }

    /// Notes what is decided, where somebody wants to know.
    pub fn note(&self, action: Action, name: &str, request: &policy::Request<'_>) {
        if !self.is_watched.get() {
            return;
        }
        // Taken while what waits is sent: that was decided about before.
        let Ok(state) = self.state.try_borrow() else { return };
        if let Some(watch) = state.rare.as_ref().and_then(|rare| rare.watch.as_ref()) {
            watch.note(&self.policy(), action, name, request);
        }
    }

    /// Whether its principal may receive from a topic; the log tells of it when it may not.
    pub fn may_receive(&self, topic: &str, clock: Clock) -> bool {
        let decision = self.policy().decide_topic(Action::Receive, topic, &clock.request());
        self.note(Action::Receive, topic, &clock.request());
        if let Err(denial) = Denial::check(Action::Receive, topic, decision) {
            denial.tell(&self.profile, clock.now);
        }
        decision.is_allowed()
    }

    /// Delivers a publication on the given terms.
    pub fn deliver(
        &self,
        publication: &Publication<'_>,
        terms: Terms<'_>,
        clock: Clock,
        pool: &mut Pool,
    ) -> Delivered {
        let mut state = self.state.borrow_mut();
        if state.closed || state.ending {
            return Delivered::Dropped(DropReason::Gone);
        }
        if publication.remaining(clock.epoch_ms) == Some(None) {
            return Delivered::Dropped(DropReason::Expired);
        }
        if terms.qos != QoS::AtMostOnce {
            return self.deliver_acknowledged(&mut state, publication, terms, clock, pool);
        }
        let behind = !state.outbox.is_empty();
        if state.outbox.len() >= self.budget.outbox || behind && pool.is_full() {
            return Delivered::Dropped(DropReason::Slow);
        }
        let sent = self.send(&mut state, publication, terms, None, clock, pool);
        self.after(&mut state, sent, clock)
    }

    fn deliver_acknowledged(
        &self,
        state: &mut State,
        publication: &Publication<'_>,
        terms: Terms<'_>,
        clock: Clock,
        pool: &mut Pool,
    ) -> Delivered {
        if state.doom.is_some() {
            return Delivered::Dropped(DropReason::Gone);
        }
        if state.pending.is_empty() && state.window.has_room() && self.has_space(state, pool) {
            if !self.fits(publication, terms) {
                return Delivered::Dropped(DropReason::TooLarge);
            }
            let id = state.window.open_next(terms.qos);
            if let Some(share) = terms.share {
                let sent = (id, terms.qos);
                state.keep_shared(sent, share, self.budget.pending, pool, publication);
            }
            let sent = self.send(state, publication, terms, Some(id), clock, pool);
            return self.after(state, sent, clock);
        }
        let pending = Pending {
            publication: publication.keep(),
            qos: terms.qos,
            retain: terms.retain,
            subscription_ids: terms.subscription_ids.into(),
            queued: None,
            share: terms.share.cloned(),
        };
        state.pending_bytes += pending.bytes();
        pool.hold(pending.bytes());
        state.pending.push_back(pending);
        if state.pending_bytes > self.budget.pending || pool.is_full() {
            state.doom = Some(Reason::QuotaExceeded);
            self.wake(state);
            return Delivered::Dropped(DropReason::Slow);
        }
        self.after(state, true, clock)
    }

    /// Whether the outbox takes one more QoS 1 or 2 publication.
    fn has_space(&self, state: &State, pool: &Pool) -> bool {
        state.outbox.len() < self.budget.outbox / 2 && (state.outbox.is_empty() || !pool.is_full())
    }

    /// Whether the client takes a packet of this size, with so many bytes more.
    fn fits_with(&self, publication: &Publication<'_>, terms: Terms<'_>, more: usize) -> bool {
        if self.profile.maximum_packet_size == u32::MAX {
            return true;
        }
        // Every identifier and every expiry has the same size.
        let id = (terms.qos != QoS::AtMostOnce).then(|| Window::packet_id(0));
        let expiry = publication.expires_at.map(|_| 0);
        let out = outgoing(publication, terms, id, None, expiry);
        let size = mqtt::publish_size(self.profile.version, &out) + more;
        size <= self.profile.maximum_packet_size as usize
    }

    /// Whether the client takes a packet of this size.
    fn fits(&self, publication: &Publication<'_>, terms: Terms<'_>) -> bool {
        self.fits_with(publication, terms, 0)
    }

    fn send(
        &self,
        state: &mut State,
        publication: &Publication<'_>,
        terms: Terms<'_>,
        id: Option<PacketId>,
        clock: Clock,
        pool: &mut Pool,
    ) -> bool {
        self.send_again(state, publication, terms, id, false, clock, pool)
    }

    #[expect(clippy::too_many_arguments, reason = "one call per packet, nothing to group")]
    fn send_again(
        &self,
        state: &mut State,
        publication: &Publication<'_>,
        terms: Terms<'_>,
        id: Option<PacketId>,
        dup: bool,
        clock: Clock,
        pool: &mut Pool,
    ) -> bool {
        if id.is_none() && !self.fits(publication, terms) {
            return false;
        }
        // The alias itself, and the length of the properties that may take a byte more.
        const ALIAS: usize = 4;
        let aliases = state.aliases.as_mut().filter(|_| self.fits_with(publication, terms, ALIAS));
        let alias = aliases.and_then(|aliases| aliases.alias(publication.topic));
        // Only an exchange of QoS 2 that was begun in time goes on when nothing is left.
        let expiry = publication.remaining(clock.epoch_ms).map(Option::unwrap_or_default);
        let mut out = outgoing(publication, terms, id, alias, expiry);
        out.dup = dup;
        let version = self.profile.version;
        match publication.large_payload() {
            Some(payload) => {
                let encode = |bytes: &mut Vec<u8>| mqtt::encode_publish_head(version, &out, bytes);
                state.outbox.append_shared(pool, encode, payload);
            }
            None => state.outbox.append(pool, |bytes| mqtt::encode_publish(version, &out, bytes)),
        }
        self.wake(state);
        true
    }

    /// Delivers what the session's queue holds next, with the sequence number it has there.
    pub fn deliver_queued(
        &self,
        publication: &Publication<'_>,
        terms: Terms<'_>,
        seq: u64,
        dup: bool,
        clock: Clock,
        pool: &mut Pool,
    ) -> Delivered {
        let mut state = self.state.borrow_mut();
        if state.closed || state.ending {
            return Delivered::Dropped(DropReason::Gone);
        }
        if is_too_late(publication, terms.qos, dup, clock) {
            return Delivered::Dropped(DropReason::Expired);
        }
        if !self.fits(publication, terms) {
            return Delivered::Dropped(DropReason::TooLarge);
        }
        if publication.retain && !terms.retain {
            state.note_fresh(publication.topic);
        }
        // Opened even when it has to wait: numbers only grow, and a release may overtake it.
        let id = state.window.open_at(seq, terms.qos);
        if !state.pending.is_empty() || !self.has_space(&state, pool) {
            // Bounded by the window that the group keeps to.
            let pending = Pending {
                publication: publication.keep(),
                qos: terms.qos,
                retain: terms.retain,
                subscription_ids: terms.subscription_ids.into(),
                queued: Some((seq, dup)),
                share: None,
            };
            state.pending_bytes += pending.bytes();
            pool.hold(pending.bytes());
            state.pending.push_back(pending);
            return Delivered::Taken;
        }
        self.send_again(&mut state, publication, terms, Some(id), dup, clock, pool);
        Delivered::Taken
    }

    /// Sends PUBREL for a queued QoS 2 publication, on a resumed session or after its release is
    /// committed. Does nothing when the client has ended the exchange meanwhile.
    pub fn release_queued(&self, seq: u64, pool: &mut Pool) {
        let mut state = self.state.borrow_mut();
        let Some(id) = state.window.release_at(seq) else { return };
        self.put_ack(&mut state, AckKind::PubRel, id, Reason::Success, pool);
    }

    /// An acknowledgement from the client. Makes room for [`Endpoint::refill`].
    pub fn settle(&self, kind: AckKind, id: PacketId, reason: Reason, pool: &mut Pool) -> Settled {
        let mut state = self.state.borrow_mut();
        let settled = match kind {
            AckKind::PubAck => {
                state.forget_shared(id, pool);
                state.window.puback(id)
            }
            AckKind::PubRec => state.window.pubrec(id, reason.is_error()),
            AckKind::PubComp | AckKind::PubRel => state.window.pubcomp(id),
        };
        match settled {
            // A persistent session answers when the release is committed.
            Settled::Received(_) if !self.profile.persistent => {
                self.put_ack(&mut state, AckKind::PubRel, id, Reason::Success, pool);
            }
            Settled::ReceivedAgain(_) if !self.profile.persistent => {
                self.put_ack(&mut state, AckKind::PubRel, id, Reason::Success, pool);
            }
            // [v5 MQTT-4.3.3-7]: PUBREL follows PUBREC, here to say that there is nothing to release.
            Settled::Unknown if kind == AckKind::PubRec => {
                self.put_ack(
                    &mut state,
                    AckKind::PubRel,
                    id,
                    Reason::PacketIdentifierNotFound,
                    pool,
                );
            }
            _ => {}
        }
        settled
    }

    /// Moves what waits into the outbox as far as that has room. Gives back what the client may no
    /// longer receive.
    #[must_use]
    pub fn refill(&self, clock: Clock, pool: &mut Pool) -> NotSent {
        let mut denied = NotSent::default();
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        while self.has_space(state, pool) && !state.ending {
            let next = state.pending.front();
            if !next.is_some_and(|next| next.queued.is_some() || state.window.has_room()) {
                break;
            }
            let Some(pending) = state.pending.pop_front() else { break };
            state.pending_bytes -= pending.bytes();
            pool.release(pending.bytes());
            let publication = Publication::kept(&pending.publication);
            let terms = Terms {
                qos: pending.qos,
                retain: pending.retain,
                subscription_ids: &pending.subscription_ids,
                share: pending.share.as_ref(),
            };
            let allowed = self.may_receive(publication.topic, clock);
            denied.count += usize::from(!allowed);
            if let Some((seq, dup)) = pending.queued {
                let id = Window::packet_id(seq);
                let is_too_late = is_too_late(&publication, pending.qos, dup, clock);
                if allowed && !is_too_late {
                    self.send_again(state, &publication, terms, Some(id), dup, clock, pool);
                    continue;
                }
                // It was opened when it was handed out.
                match pending.qos {
                    QoS::ExactlyOnce => state.window.pubrec(id, true),
                    _ => state.window.puback(id),
                };
                match allowed {
                    true => denied.expired.push(seq),
                    false => denied.queued.push((seq, pending.qos, dup)),
                }
                continue;
            }
            let is_expired = publication.remaining(clock.epoch_ms) == Some(None);
            if !allowed && !is_expired {
                denied.shared.extend(pending.share.map(|share| (pending.publication, share)));
                continue;
            }
            if is_expired || !self.fits(&publication, terms) {
                continue;
            }
            let id = state.window.open_next(pending.qos);
            if let Some(share) = &pending.share {
                let sent = (id, pending.qos);
                state.keep_shared(sent, share, self.budget.pending, pool, &publication);
            }
            self.send(state, &publication, terms, Some(id), clock, pool);
        }
        denied
    }

    /// Whether something waits that [`Endpoint::refill`] could move now.
    pub fn has_more(&self) -> bool {
        let state = self.state.borrow();
        let sendable = |next: &Pending| next.queued.is_some() || state.window.has_room();
        !state.ending && state.outbox.is_empty() && state.pending.front().is_some_and(sendable)
    }

    /// The client will get this acknowledgement once `owed.waiting` takers have reported.
    pub fn owe(&self, owed: Owed) -> u32 {
        self.state.borrow_mut().acks.push(owed)
    }

    /// A publication of this client went to `takers` that will report.
    pub fn sent(&self, number: u32, takers: u16, nobody_wants_it: bool) {
        let reason = nobody_wants_it.then_some(Reason::NoMatchingSubscribers);
        self.state.borrow_mut().acks.sent(number, takers, reason);
    }

    /// The place of the session's queue after the last one that was sent.
    pub fn sent_below(&self) -> u64 {
        self.state.borrow().window.next_seq()
    }

    /// The client's Receive Maximum.
    pub fn receive_maximum(&self) -> u16 {
        self.state.borrow().window.limit()
    }

    /// Acknowledgements owed and not sent.
    pub fn owed(&self) -> usize {
        self.state.borrow().acks.len()
    }

    /// A taker has a publication of this client safe.
    pub fn taken(&self, number: u32) {
        let mut state = self.state.borrow_mut();
        state.acks.taken(number);
        self.wake(&mut state);
    }

    /// A taker has not, or nobody knows.
    pub fn failed(&self, number: u32, reason: Reason) {
        let is_v5 = self.profile.version == Version::V5;
        let can_be_said = |kind| match kind {
            _ if !is_v5 => false,
            // Trouble of the cluster is no answer to a publication: nobody may know whether it is taken
            // after all, and an answer ends the exchange [v5 4.3.2, 4.3.3]. The session would have its
            // packet identifier for ever, or the client would not send it again.
            AckKind::PubAck | AckKind::PubRec => reason == Reason::QuotaExceeded,
            AckKind::PubRel | AckKind::PubComp => reason == Reason::PacketIdentifierNotFound,
        };
        let mut state = self.state.borrow_mut();
        state.acks.failed(number, reason, can_be_said);
        self.wake(&mut state);
    }

    /// Whether the connection ends as soon as what came before something is acknowledged of which the
    /// protocol cannot say what became of it. The client will send that again, so nothing that it has
    /// sent after that may be taken: it would come before it.
    pub fn takes_no_more(&self) -> bool {
        self.state.borrow().acks.is_ending()
    }

    /// Sends the acknowledgements that are ready and tells of each.
    pub fn acknowledge(&self, pool: &mut Pool, mut sent: impl FnMut(Owed)) {
        let mut state = self.state.borrow_mut();
        while let Some(turn) = state.acks.turn() {
            match turn {
                Turn::Send(owed) => {
                    self.put_ack(&mut state, owed.kind, owed.id, owed.reason, pool);
                    sent(owed);
                }
                Turn::End(reason) => {
                    if state.doom.is_none() {
                        state.doom = Some(reason);
                        self.wake(&mut state);
                    }
                    return;
                }
            }
        }
    }

    fn put_ack(
        &self,
        state: &mut State,
        kind: AckKind,
        id: PacketId,
        reason: Reason,
        pool: &mut Pool,
    ) {
        if state.ending {
            return;
        }
        let version = self.profile.version;
        state.outbox.append(pool, |out| mqtt::encode_ack(version, kind, id, reason, None, out));
        self.wake(state);
    }

    /// Puts any other packet into the outbox.
    pub fn put(&self, pool: &mut Pool, encode: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state.borrow_mut();
        if state.ending {
            return;
        }
        state.outbox.append(pool, encode);
        self.wake(&mut state);
    }

    fn wake(&self, state: &mut State) {
        if !self.woken.replace(true)
            && let Some(waker) = &state.waker
        {
            waker.wake_by_ref();
        }
    }
}

/// Whether a publication of a queue has expired. An exchange of QoS 2 that may have begun is ended properly,
/// or its packet identifier would stay taken at the client.
fn is_too_late(publication: &Publication<'_>, qos: QoS, dup: bool, clock: Clock) -> bool {
    let is_begun = dup && qos == QoS::ExactlyOnce;
    !is_begun && publication.remaining(clock.epoch_ms) == Some(None)
}

fn outgoing<'a>(
    publication: &Publication<'a>,
    terms: Terms<'a>,
    packet_id: Option<PacketId>,
    alias: Option<(u16, bool)>,
    expiry: Option<u32>,
) -> Outgoing<'a> {
    let known = alias.is_some_and(|(_, known)| known);
    Outgoing {
        topic: if known { "" } else { publication.topic },
        alias: alias.map(|(alias, _)| alias),
        packet_id,
        qos: terms.qos,
        dup: false,
        retain: terms.retain,
        properties: publication.properties,
        expiry,
        subscription_ids: terms.subscription_ids,
        payload: publication.payload(),
    }
}

#[cfg(test)]
mod tests;
