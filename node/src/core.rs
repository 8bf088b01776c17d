//! A core: one arbiter with its connections, its part of the subscriptions and its timers.
//!
//! Everything here belongs to one thread. Other threads reach a core through its inbox
//! ([`ToCore`]); batches travel, never single publications.
//!
//! Bounds: what another core has sent and this one has not placed yet is at most
//! [`CREDIT`] bytes per pair of cores; what comes from the groups is bounded by what was proposed, by
//! the receive windows of the sessions and by the windows of the outboxes that this core routes
//! ([`crate::courier::WINDOW`] entries each); control closures by the connections that ask for them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use actix::{Addr, WeakAddr};
use arc_swap::ArcSwap;
use cluster::{Refusal, Refused};
use fleet::shard;
use slab::Slab;
use tokio::sync::mpsc;

use crate::acknowledged::Acknowledged;
use crate::claims::Claims;
use crate::clock::Clock;
use crate::connection::{Connection, LookAtTime};
use crate::courier::Couriers;
use crate::domain_names::DomainNames;
use crate::endpoint::{Endpoint, Permissions};
use crate::fanout::{FromPeer, ToPeer};
use crate::host::{Failure, Proposal};
use crate::interest::{Live, Member, ShareGroup, Without};
use crate::metrics::CoreMetrics;
use crate::outbox::Pool;
use crate::publication::Kept;
use crate::publish::Among;
use crate::route::Routes;
use crate::shared::Shared;
use crate::wheel::{TICK, Wheel};

/// Bytes one core may have under way to another.
pub const CREDIT: usize = 4 << 20;

/// The size of the buffer that all connections of a core read into.
pub const READ_BUFFER: usize = 128 * 1024;

/// A loop that is later than this takes no new connections.
const OVERLOADED: Duration = Duration::from_millis(250);

/// Something rare that another thread wants done on a core.
pub type Control = Box<dyn FnOnce(&Rc<Core>) + Send>;

/// What reaches a core from other threads.
pub enum ToCore {
    /// Publications from another core.
    Deliver(Batch),
    /// What this core's publications waited for, and credit that came back.
    Taken {
        /// Per ticket what came of it.
        results: Vec<(Ticket, Result<(), Failure>)>,
        /// The core that has placed this many bytes.
        credit: Option<(u16, usize)>,
    },
    /// Publications from another node.
    FromPeer(FromPeer),
    /// How far another node has got with what this core has sent it.
    Placed {
        /// The node.
        node: u16,
        /// What it says.
        placed: links::proto::Placed,
    },
    /// A publisher of this core has to wait for a connection of another one, or need not any more.
    Hold {
        /// Who.
        publisher: Publisher,
        /// Whether it has to; each time that is said, it is taken back once.
        holds: bool,
    },
    /// The groups answer: tickets, and what sessions' queues hand out.
    FromGroups {
        /// Per ticket what came of it.
        results: Vec<(Ticket, Result<(), Failure>)>,
        /// Queue entries for connections of this core.
        queued: Vec<crate::host::Handout>,
        /// Per group what its outbox hands out.
        outboxes: Vec<(u16, Vec<shard::OutboxEntry>)>,
    },
    /// Control: rare, so a closure.
    Run(Control),
}

/// What one read brought for another core.
#[derive(Debug, Default)]
pub struct Batch {
    /// The core it comes from.
    pub from: u16,
    /// Its size in bytes.
    pub bytes: usize,
    /// The publications, in order.
    pub parcels: Vec<Parcel>,
}

/// One publication for another core.
#[derive(Debug)]
pub struct Parcel {
    /// What was published.
    pub publication: Arc<Kept>,
    /// A member of a shared subscription; without it everybody on the core who subscribed.
    pub to: Option<Box<ToMember>>,
    /// Who waits to hear that it is placed.
    pub ticket: Option<Ticket>,
    /// Who publishes it, and waits for connections that fall behind.
    pub by: Option<Publisher>,
}

/// Who can be made to publish more slowly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Publisher {
    /// A client.
    Connection(Live),
    /// The outbox of a group.
    Outbox(u16),
}

impl Publisher {
    /// The core that it is on.
    pub fn core(self, shared: &Shared) -> u16 {
        match self {
            Self::Connection(live) => live.core,
            Self::Outbox(group) => shared.courier_of(group),
        }
    }
}

/// The member of a shared subscription that is to have a publication.
#[derive(Debug)]
pub struct ToMember {
    /// The member.
    pub member: Member,
    /// The subscription, for when this member cannot take it.
    pub share: Arc<ShareGroup>,
    /// Members that could not.
    pub without: Without,
    /// It must not be refused: see [`crate::publish::Errand::owed`].
    pub owed: bool,
    /// Which others may have it.
    pub among: Among,
}

/// Names who waits for a publication to be safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ticket {
    /// A connection's acknowledgement.
    Connection {
        /// The connection.
        live: Live,
        /// The number in its [`mqtt::session::Acks`].
        number: u32,
    },
    /// The core's own list: outbox entries and REST requests.
    Core {
        /// The core.
        core: u16,
        /// The number in [`crate::pending::Pendings`].
        number: u32,
    },
}

impl Ticket {
    /// The core that waits.
    pub fn core(&self) -> u16 {
        match self {
            Self::Connection { live, .. } => live.core,
            Self::Core { core, .. } => *core,
        }
    }
}

/// The destinations that a publisher has used lately.
#[derive(Clone, Copy, Debug, Default)]
pub struct Uses {
    /// Cores, a bit each; those from the 32nd on share the last.
    cores: u32,
    /// Other nodes, a bit each; some share bits.
    peers: u64,
    /// Raft groups.
    pub groups: bool,
    /// Groups whose outbox it may have made longer, a bit each; those from the 64th on share bits.
    outboxes: u64,
}

impl Uses {
    fn bit(core: u16) -> u32 {
        1 << core.min(31)
    }

    /// Whether a core is among them.
    pub fn core(self, core: u16) -> bool {
        self.cores & Self::bit(core) != 0
    }

    /// Adds a core.
    pub fn add_core(&mut self, core: u16) {
        self.cores |= Self::bit(core);
    }

    /// Whether a node is among them.
    pub fn peer(self, node: u16) -> bool {
        self.peers & 1 << (node % 64) != 0
    }

    /// Adds a node.
    pub fn add_peer(&mut self, node: u16) {
        self.peers |= 1 << (node % 64);
    }

    /// The bit of a group in [`Shared::long_outboxes`].
    pub fn outbox_bit(group: u16) -> u64 {
        1 << (group % 64)
    }

    /// Adds a group that it may leave something in the outbox of.
    pub fn add_outbox(&mut self, group: u16) {
        self.groups = true;
        self.outboxes |= Self::outbox_bit(group);
    }

    /// The bits of its outboxes in [`Shared::long_outboxes`].
    pub fn outboxes(self) -> u64 {
        self.outboxes
    }

    /// Its outboxes and nothing else.
    #[must_use]
    pub fn only_outboxes(self) -> Self {
        Self { outboxes: self.outboxes, ..Self::default() }
    }

    /// The same without outboxes.
    #[must_use]
    pub fn without_outboxes(self) -> Self {
        Self { outboxes: 0, ..self }
    }

    /// Adds what another publication used.
    pub fn add(&mut self, other: Self) {
        self.cores |= other.cores;
        self.peers |= other.peers;
        self.groups |= other.groups;
        self.outboxes |= other.outboxes;
    }
}

/// What a timer of the wheel is for.
#[derive(Clone, Copy, Debug)]
pub enum Timer {
    /// A connection looks whether its client has been silent for too long; sets itself again.
    KeepAlive(Live),
    /// A connection goes on: after a pause, or to its end.
    Resume(Live),
    /// A connection looks whether its temporary credentials have expired; sets itself again.
    Expiry(Live),
}

impl Timer {
    /// The connection that is to look.
    pub fn of(self) -> Live {
        let (Self::KeepAlive(live) | Self::Resume(live) | Self::Expiry(live)) = self;
        live
    }
}

/// See the module.
pub struct Core {
    /// Its number.
    pub id: u16,
    /// What the whole node shares.
    pub shared: Arc<Shared>,
    /// Its connections.
    pub endpoints: RefCell<Slab<Rc<Endpoint>>>,
    /// The actors of its connections by slot, for control messages. Weak: an address takes room of its own.
    actors: RefCell<Vec<Option<WeakAddr<Connection>>>>,
    generation: Cell<u32>,
    /// Who is subscribed to what here.
    pub routes: RefCell<Routes>,
    /// The slots of connections whose request to be provisioned is being served.
    pub provisioning: RefCell<rustc_hash::FxHashSet<u32>>,
    /// Buffers nobody uses now.
    pub pool: RefCell<Pool>,
    /// The buffer that connections read into.
    pub read_buffer: Cell<Vec<u8>>,
    /// Timers.
    pub wheel: RefCell<Wheel<Timer>>,
    /// Client ids whose home this core is.
    pub claims: RefCell<Claims>,
    /// Publications of the core itself that wait to be safe.
    pub pendings: RefCell<crate::pending::Pendings>,
    /// Outboxes that this core routes.
    pub couriers: RefCell<Couriers>,
    /// How often [`Core::principals_changed`] was called.
    pub registry_changes: Cell<u64>,
    /// What connections have asked for.
    pub domain_names: DomainNames,
    anonymous: RefCell<Vec<(Arc<policy::Document>, Permissions)>>,
    /// Counters.
    pub metrics: CoreMetrics,
    /// What goes to the groups of sessions.
    pub(crate) acknowledged: Acknowledged,
    outgoing: RefCell<Vec<Batch>>,
    in_flight: RefCell<Vec<usize>>,
    /// What goes to other nodes.
    pub(crate) to_peers: RefCell<Vec<ToPeer>>,
    pub(crate) credit_waiters: RefCell<Vec<Waker>>,
    /// Publishers that wait for connections of other cores, and for how many.
    held: RefCell<rustc_hash::FxHashMap<Publisher, usize>>,
    proposals: RefCell<Vec<Proposal>>,
    /// Their bytes.
    proposals_bytes: Cell<usize>,
    /// What is given up of what was on its way to peers, and has not been given to others yet.
    pub(crate) unsettled: Cell<usize>,
    proposing: Cell<bool>,
    clock: Cell<Clock>,
    loop_delay: Cell<Duration>,
}

impl Core {
    /// The core with this number.
    pub fn new(id: u16, shared: Arc<Shared>, metrics: CoreMetrics) -> Rc<Self> {
        let cores = shared.cores.len();
        let budget = shared.limits.core_bytes;
        let clock = Clock::read();
        let batch = |_| Batch { from: id, ..Batch::default() };
        Rc::new(Self {
            id,
            shared,
            endpoints: RefCell::default(),
            actors: RefCell::default(),
            generation: Cell::new(0),
            routes: RefCell::default(),
            provisioning: RefCell::default(),
            pool: RefCell::new(Pool::new(budget)),
            read_buffer: Cell::new(vec![0; READ_BUFFER]),
            wheel: RefCell::new(Wheel::new(clock.now)),
            claims: RefCell::default(),
            pendings: RefCell::default(),
            couriers: RefCell::default(),
            registry_changes: Cell::default(),
            domain_names: DomainNames::default(),
            anonymous: RefCell::default(),
            metrics,
            acknowledged: Acknowledged::default(),
            outgoing: RefCell::new((0..cores).map(batch).collect()),
            in_flight: RefCell::new(vec![0; cores]),
            to_peers: RefCell::default(),
            credit_waiters: RefCell::default(),
            held: RefCell::default(),
            proposals: RefCell::default(),
            proposals_bytes: Cell::default(),
            unsettled: Cell::default(),
            proposing: Cell::new(false),
            clock: Cell::new(clock),
            loop_delay: Cell::default(),
        })
    }

    /// The time, read anew.
    pub fn read_clock(&self) -> Clock {
        let clock = Clock::read();
        self.clock.set(clock);
        clock
    }

    /// The time as last read: at the start of the present batch.
    pub fn clock(&self) -> Clock {
        self.clock.get()
    }

    /// What anonymous clients of a listener may do, compiled once for all of them; `None` when that
    /// depends on the client.
    pub fn anonymous_policy(&self, document: &Arc<policy::Document>) -> Option<Permissions> {
        if document.uses_variables() {
            return None;
        }
        let mut known = self.anonymous.borrow_mut();
        if let Some((_, compiled)) = known.iter().find(|(known, _)| Arc::ptr_eq(known, document)) {
            return Some(Arc::clone(compiled));
        }
        let (documents, variables) = ([Arc::clone(document)], policy::Variables::default());
        let compiled = policy::Compiled::new(&documents, &self.shared.arns, &variables);
        let compiled = Arc::new(ArcSwap::from_pointee(compiled));
        known.push((Arc::clone(document), Arc::clone(&compiled)));
        Some(compiled)
    }

    /// Whether the core is so late that newcomers have to wait for those who are connected.
    pub fn is_overloaded(&self) -> bool {
        self.loop_delay.get() > OVERLOADED
    }

    /// Has some connections end that are not about to; tells how many are left that were not told.
    pub fn end_some(&self, reason: mqtt::Reason, most: usize) -> usize {
        let endpoints = self.endpoints.borrow();
        let mut left = endpoints.iter().filter(|(_, endpoint)| endpoint.doomed().is_none());
        left.by_ref().take(most).for_each(|(_, endpoint)| endpoint.doom(reason));
        left.count()
    }

    /// A place for a new connection.
    pub fn place(&self, make: impl FnOnce(Live) -> Rc<Endpoint>) -> Rc<Endpoint> {
        let generation = self.generation.get().wrapping_add(1);
        self.generation.set(generation);
        let mut endpoints = self.endpoints.borrow_mut();
        let entry = endpoints.vacant_entry();
        let slot = u32::try_from(entry.key()).expect("fewer connections than file descriptors");
        let endpoint = make(Live { core: self.id, slot, generation });
        entry.insert(Rc::clone(&endpoint));
        endpoint
    }

    /// A connection runs now, and can be reached.
    pub fn started(&self, live: Live, actor: &Addr<Connection>) {
        let mut actors = self.actors.borrow_mut();
        let slot = live.slot as usize;
        if actors.len() <= slot {
            actors.resize(slot + 1, None);
        }
        actors[slot] = Some(actor.downgrade());
    }

    /// A connection has ended: its place is free.
    pub fn vacate(&self, live: Live) {
        self.endpoints.borrow_mut().remove(live.slot as usize);
        if let Some(actor) = self.actors.borrow_mut().get_mut(live.slot as usize) {
            *actor = None;
        }
    }

    /// The actor of a connection that runs.
    pub fn actor(&self, live: Live) -> Option<Addr<Connection>> {
        self.endpoint(live)?;
        self.actors.borrow().get(live.slot as usize)?.as_ref()?.upgrade()
    }

    /// The connection with this name, if it is still there.
    pub fn endpoint(&self, live: Live) -> Option<Rc<Endpoint>> {
        let endpoints = self.endpoints.borrow();
        let endpoint = endpoints.get(live.slot as usize)?;
        (endpoint.profile.live == live).then(|| Rc::clone(endpoint))
    }

    /// Runs something on another core, or here at once.
    pub fn run_on(self: &Rc<Self>, core: u16, run: impl FnOnce(&Rc<Core>) + Send + 'static) {
        if core == self.id {
            run(self);
        } else {
            self.shared.send(core, ToCore::Run(Box::new(run)));
        }
    }

    /// Adds a publication to the batch for another core.
    pub fn hand_over(&self, core: u16, parcel: Parcel) {
        let mut outgoing = self.outgoing.borrow_mut();
        let batch = &mut outgoing[usize::from(core)];
        batch.bytes += parcel.publication.bytes() + 64;
        batch.parcels.push(parcel);
    }

    /// Adds a command for a group to what is proposed at the end of the batch.
    pub fn propose(&self, proposal: Proposal) {
        self.proposals_bytes.update(|bytes| bytes + proposal.command.len());
        self.proposals.borrow_mut().push(proposal);
    }

    /// Tells the groups what of their outboxes is safe.
    fn flush_trims(&self) {
        for (group, trim) in self.couriers.borrow_mut().trims() {
            let command = shard::Command::from(trim).encoded();
            self.propose(Proposal::owed(group.into(), command));
        }
    }

    /// Sends what the present batch collected: each destination is woken once.
    pub fn flush(self: &Rc<Self>) {
        self.flush_acknowledged();
        self.flush_trims();
        for (core, batch) in self.outgoing.borrow_mut().iter_mut().enumerate() {
            if batch.parcels.is_empty() {
                continue;
            }
            self.in_flight.borrow_mut()[core] += batch.bytes;
            let next = Batch { from: self.id, ..Batch::default() };
            let batch = std::mem::replace(batch, next);
            self.shared.send(core as u16, ToCore::Deliver(batch));
        }
        if !self.to_peers.borrow().is_empty() {
            self.flush_peers();
        }
        if !self.proposing.get() && !self.proposals.borrow().is_empty() {
            self.flush_proposals();
        }
    }

    /// Commands that wait for the inbox of the groups.
    pub fn unproposed(&self) -> usize {
        self.proposals.borrow().len() + usize::from(self.proposing.get())
    }

    /// Whether what waits to be proposed is worth a flush of its own.
    pub fn has_much_to_propose(&self) -> bool {
        const MUCH: usize = 1 << 20;
        self.proposals_bytes.get() > MUCH
    }

    fn take_proposals(&self) -> Vec<Proposal> {
        self.proposals_bytes.set(0);
        std::mem::take(&mut *self.proposals.borrow_mut())
    }

    fn flush_proposals(self: &Rc<Self>) {
        let proposals = self.take_proposals();
        let Err(refused) = self.shared.groups.try_propose_all(proposals) else { return };
        // Publishers stop reading (see `must_wait`) until a full inbox has taken this batch, and
        // what is answered here must not be answered in the midst of whoever flushes.
        self.proposing.set(true);
        let core = Rc::clone(self);
        actix_rt::spawn(async move {
            let groups = &core.shared.groups;
            let mut taken = Err(refused);
            loop {
                if let Err(Refused { what, why: Refusal::Busy }) = taken {
                    taken = groups.propose_all(what).await;
                }
                if let Err(Refused { what, why }) = taken {
                    crate::host::refuse(&core, what, why);
                }
                let proposals = core.take_proposals();
                if proposals.is_empty() {
                    break;
                }
                taken = groups.propose_all(proposals).await;
            }
            core.proposing.set(false);
            core.wake_publishers();
        });
    }

    /// Whether one of these destinations has more to take than it should.
    pub fn is_behind(&self, uses: Uses) -> bool {
        let (in_flight, outgoing) = (self.in_flight.borrow(), self.outgoing.borrow());
        let behind =
            |core: usize| uses.core(core as u16) && in_flight[core] + outgoing[core].bytes > CREDIT;
        let peer_behind = uses.peers != 0 && self.is_peer_behind(uses);
        peer_behind || self.proposing.get() && uses.groups || (0..in_flight.len()).any(behind)
    }

    /// Resolves when none of these destinations is behind.
    pub async fn caught_up(&self, uses: Uses) {
        std::future::poll_fn(|context| match self.is_behind(uses) {
            true => {
                self.credit_waiters.borrow_mut().push(context.waker().clone());
                std::task::Poll::Pending
            }
            false => std::task::Poll::Ready(()),
        })
        .await;
    }

    /// Whether a publisher has to wait before it reads more, because a destination that it uses is
    /// behind, an outbox that it fills is long, or it is named and a connection of another core holds
    /// it. `waker` is called when it may go on.
    pub fn must_wait(&self, publisher: Option<Publisher>, uses: Uses, waker: &Waker) -> bool {
        let waits = self.is_behind(uses)
            || self.shared.is_long(uses.outboxes)
            || publisher.is_some_and(|publisher| self.is_held(publisher));
        if waits {
            self.credit_waiters.borrow_mut().push(waker.clone());
        }
        waits
    }

    /// Whether a publisher has to wait for a connection of another core.
    pub fn is_held(&self, publisher: Publisher) -> bool {
        self.held.borrow().contains_key(&publisher)
    }

    /// Resolves when an outbox need not wait for connections of other cores.
    pub async fn is_free(&self, publisher: Publisher) {
        std::future::poll_fn(|context| match self.is_held(publisher) {
            true => {
                self.credit_waiters.borrow_mut().push(context.waker().clone());
                std::task::Poll::Pending
            }
            false => std::task::Poll::Ready(()),
        })
        .await;
    }

    fn hold(&self, publisher: Publisher, holds: bool) {
        let mut held = self.held.borrow_mut();
        if holds {
            *held.entry(publisher).or_default() += 1;
            return;
        }
        if let Some(count) = held.get_mut(&publisher) {
            *count -= 1;
            if *count == 0 {
                held.remove(&publisher);
                drop(held);
                self.wake_publishers();
            }
        }
    }

    /// Lets publishers look again whether they have to wait.
    pub fn wake_publishers(&self) {
        for waker in std::mem::take(&mut *self.credit_waiters.borrow_mut()) {
            waker.wake();
        }
    }

    /// Serves the inbox until the node stops.
    pub async fn run(self: Rc<Self>, mut inbox: mpsc::UnboundedReceiver<ToCore>) {
        while let Some(message) = inbox.recv().await {
            self.read_clock();
            self.receive(message);
            while let Ok(message) = inbox.try_recv() {
                self.receive(message);
            }
            self.flush();
        }
    }

    fn receive(self: &Rc<Self>, message: ToCore) {
        match message {
            ToCore::Deliver(batch) => self.deliver_batch(batch),
            ToCore::Taken { results, credit } => {
                self.settle(results);
                if let Some((core, bytes)) = credit {
                    self.in_flight.borrow_mut()[usize::from(core)] -= bytes;
                    self.wake_publishers();
                }
            }
            ToCore::FromPeer(batch) => self.deliver_from_peer(batch),
            ToCore::Placed { node, placed } => self.peer_placed(node, &placed),
            ToCore::Hold { publisher, holds } => self.hold(publisher, holds),
            ToCore::FromGroups { results, queued, outboxes } => {
                self.settle(results);
                self.hand_out(queued);
                for (group, entries) in outboxes {
                    self.take_outbox(group, entries);
                }
            }
            ToCore::Run(run) => run(self),
        }
    }

    /// Tells whoever holds the tickets that a taker has their publication safe.
    pub fn settle(&self, results: Vec<(Ticket, Result<(), Failure>)>) {
        for (ticket, taken) in results {
            match ticket {
                Ticket::Connection { live, number } => {
                    let Some(endpoint) = self.endpoint(live) else { continue };
                    match taken {
                        Ok(()) | Err(Failure::NoMember) => endpoint.taken(number),
                        Err(failure) => endpoint.failed(number, failure.reason()),
                    }
                }
                Ticket::Core { number, .. } => self.pending_taken(number, taken),
            }
        }
    }

    /// Turns the timer wheel and measures how late the loop is.
    pub async fn keep_time(self: Rc<Self>) {
        let mut due = Vec::new();
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let planned = interval.tick().await;
            let now = self.read_clock().now;
            let delay = now.saturating_duration_since(planned.into_std());
            self.metrics.loop_delay.record(delay);
            self.loop_delay.set(delay);
            self.wheel.borrow_mut().turn(now, &mut due);
            for timer in due.drain(..) {
                let Some(actor) = self.actor(timer.of()) else { continue };
                actor.do_send(LookAtTime(timer));
            }
            self.check_pressed();
            self.mind_the_registry();
            self.stay_current();
            if !self.to_peers.borrow().is_empty() {
                // What the links had no room for.
                self.flush_peers();
            }
            self.routes.borrow_mut().drop_stale(self.shared.interest.generation());
            self.metrics.flush(self.pool.borrow().held());
        }
    }

    fn check_pressed(&self) {
        let now = self.clock().now;
        let mut routes = self.routes.borrow_mut();
        routes.pressed.retain(|endpoint| endpoint.check_patience(now));
    }
}
