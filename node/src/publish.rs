//! The way of a publication through a core: to its own sessions, to other cores, to groups.

mod share;

use std::rc::Rc;
use std::sync::Arc;

use cluster::OnFull;
use fleet::shard::{self, Directed, Origin};
use mqtt::QoS;
use smallvec::SmallVec;

use crate::core::{Batch, Core, Parcel, Publisher, Ticket, ToCore, ToMember, Uses};
use crate::endpoint::{Delivered, DropReason, Endpoint, Terms};
use crate::host::{Failure, Handout, HandoutKind, Proposal, Reply};
use crate::interest::{Wants, Without};
use crate::metrics::Asked;
use crate::pending::Asker;
use crate::publication::{Kept, KeptTopic, Publication};
use crate::route::{Route, Target};

/// What became of a publication so far.
#[derive(Debug, Default)]
pub struct Published {
    /// Takers that will report to the ticket.
    pub waiting: u16,
    /// Whether anybody wanted it.
    pub reached: bool,
    /// A session that has fallen behind: the publisher waits for it.
    pub pressed: Option<Rc<Endpoint>>,
    /// The destinations it went to.
    pub uses: Uses,
    /// Whether it has become a command for a group already.
    pub proposed: bool,
}

/// What one publication asks of one group; an outbox entry must not ask twice.
#[derive(Default)]
struct GroupShare {
    group: u16,
    store_retained: bool,
    enqueue: bool,
    directed: Vec<Directed>,
    /// Shared subscriptions whose queue is to have it.
    queues: Vec<String>,
}

/// Which members of a shared subscription may have a publication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Among {
    /// All of them.
    #[default]
    All,
    /// Those that keep no queue: the subscription's has given it away while no other was connected, and gets
    /// it back if none of them can have it.
    Brief,
    /// Those that are connected here: a peer has chosen this node, and sees to all others.
    Here,
}

/// What belongs to a publication besides itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Errand {
    /// Who wants to hear when it is safe.
    pub ticket: Option<Ticket>,
    /// The outbox it comes from.
    pub origin: Option<Origin>,
    /// It comes from an outbox, perhaps by way of another core, or from a member of a shared subscription that
    /// has left: it must not be refused.
    pub owed: bool,
    /// A member of a shared subscription had it, or it has waited for one.
    pub returned: bool,
    /// Which members of shared subscriptions may have it.
    pub among: Among,
    /// Who publishes, and waits for those who fall behind.
    pub by: Option<Publisher>,
}

impl Errand {
    /// Whether a shared subscription's copy may go to nobody that keeps a queue. The peer that owes it
    /// proposes that itself: what this node says of a proposal is lost with it.
    fn is_for_brief(&self) -> bool {
        match self.among {
            Among::All => false,
            Among::Brief => true,
            Among::Here => self.owed,
        }
    }

    /// What a full disk does to a command that comes of it: what an outbox holds was accepted when
    /// it got there, everybody else hears that it was refused. All commands of an outbox entry become
    /// durable together; `follows` says that this is not the first.
    pub fn on_full(&self, follows: bool) -> OnFull {
        match (self.owed, follows) {
            (false, _) => OnFull::Refuse,
            (true, false) => OnFull::Wait,
            (true, true) => OnFull::Follow,
        }
    }
}

impl Core {
    /// What a topic leads to.
    pub fn route(&self, topic: &str) -> Rc<Route> {
        let endpoints = self.endpoints.borrow();
        let mut routes = self.routes.borrow_mut();
        routes.resolve(self.id, topic, &self.shared.interest, &endpoints, self.clock())
    }

    /// What a topic leads to, if this core knows it without looking.
    pub fn known_route(&self, topic: &str) -> Option<Rc<Route>> {
        self.routes.borrow().known(topic, &self.shared.interest)
    }

    /// Routes a publication: delivers it here and adds it to the batches of the other destinations.
    pub fn publish(
        self: &Rc<Self>,
        publication: &Publication<'_>,
        route: &Route,
        errand: Errand,
    ) -> Published {
        let mut published = Published::default();
        if let Some(request) = route.shadow_request() {
            self.serve_shadow(&request, publication, errand, &mut published);
        }
        for target in &route.targets {
            self.deliver_to(target, publication, &mut published);
        }
        let wants_it = |(_, wants): &&(u16, Wants)| wants.includes(publication.qos);
        let mut kept = None;
        for (core, _) in route.cores.iter().filter(wants_it) {
            let kept = kept.get_or_insert_with(|| Arc::new(publication.keep()));
            self.hand_over_to(*core, Arc::clone(kept), None, errand, &mut published);
        }
        for (node, _) in route.nodes.iter().filter(wants_it) {
            self.hand_over_to_node(*node, publication, None, errand, &mut published);
        }
        let acknowledged = publication.qos != QoS::AtMostOnce;
        let queued = acknowledged && !route.groups.is_empty();
        if !(publication.retain || queued || !route.shares.is_empty()) {
            return published;
        }
        let mut groups: SmallVec<[GroupShare; 2]> = SmallVec::new();
        if publication.retain {
            group_share(&mut groups, self.shared.group_of(publication.topic)).store_retained = true;
        }
        if acknowledged {
            for group in &route.groups {
                group_share(&mut groups, *group).enqueue = true;
            }
        }
        for share in &route.shares {
            // Where what an outbox holds went is not known to its next leader, and the group of another member
            // would take it for something that it has seen if it has seen what comes after it.
            if errand.origin.is_some() && acknowledged && self.has_queue(share) {
                self.keep_for(&share.subscribed, &mut groups);
                continue;
            }
            let without = Without::new();
            self.deliver_to_one(share, without, publication, errand, &mut groups, &mut published);
        }
        self.propose_to_groups(groups, publication, errand, &mut published);
        published
    }

    fn propose_to_groups(
        &self,
        groups: SmallVec<[GroupShare; 2]>,
        publication: &Publication<'_>,
        errand: Errand,
        published: &mut Published,
    ) {
        if groups.is_empty() {
            return;
        }
        let mut kept = publication.keep();
        // Larger ones of QoS 1 and 2 are refused (`Connection::publish`). Of QoS 0, what cannot be
        // stored must not leave an older one in its place [v3.1.1 MQTT-3.3.1-7].
        if publication.qos == QoS::AtMostOnce && publication.bytes() > self.shared.publication_bytes
        {
            kept = Kept { topic: kept.topic, retain: true, ..Kept::default() };
            self.metrics.too_large();
        }
        for share in groups {
            let GroupShare { group, store_retained, enqueue, directed, queues } = share;
            published.reached |= enqueue || !directed.is_empty() || !queues.is_empty();
            if store_retained || enqueue || !directed.is_empty() {
                let (publication, origin) = (kept.clone(), errand.origin.map(Origin::publication));
                let command =
                    shard::Publish { publication, store_retained, enqueue, directed, origin };
                self.propose_publication(group, command.into(), &kept, errand, published);
            }
            if !queues.is_empty() {
                let limits = &self.shared.limits;
                let command = shard::EnqueueShared {
                    publication: kept.clone(),
                    filters: queues,
                    returned: errand.returned,
                    limit_bytes: limits.session_queue_bytes,
                    limit_messages: limits.session_queue_messages,
                    origin: errand.origin.map(Origin::shared),
                };
                self.propose_publication(group, command.into(), &kept, errand, published);
            }
        }
    }

    fn propose_publication(
        &self,
        group: u16,
        command: shard::Command,
        kept: &Kept,
        errand: Errand,
        published: &mut Published,
    ) {
        // An outbox entry is trimmed only when it is safe, whatever its QoS.
        let ticket = errand.ticket.filter(|_| errand.origin.is_some() || kept.qos > 0);
        published.waiting += u16::from(ticket.is_some());
        let on_full = errand.on_full(published.proposed);
        published.proposed = true;
        published.uses.groups = true;
        self.propose(Proposal {
            group: group.into(),
            command: command.encoded(),
            reply: ticket.map(Reply::Ticket),
            on_full,
        });
    }

    pub(crate) fn deliver_to(
        &self,
        target: &Target,
        publication: &Publication<'_>,
        published: &mut Published,
    ) {
        let endpoint = &target.endpoint;
        if target.no_local && *endpoint.profile.client == *publication.publisher {
            let endpoints = self.endpoints.borrow();
            let slot = endpoint.profile.live.slot;
            let own =
                self.routes.borrow().own_target(publication.topic, &endpoints, slot, self.clock());
            drop(endpoints);
            if let Some(own) = own {
                let qos = own.qos.min(publication.qos);
                if !(qos != QoS::AtMostOnce && endpoint.profile.persistent) {
                    let retain = publication.retain && own.retain_as_published;
                    let subscription_ids = &own.subscription_ids;
                    let terms = Terms { qos, retain, subscription_ids, share: None };
                    self.deliver(endpoint, publication, terms, published);
                }
            }
            return;
        }
        let qos = target.qos.min(publication.qos);
        if qos != QoS::AtMostOnce && endpoint.profile.persistent {
            // Its group queues it: see `Destination::Group`.
            return;
        }
        let retain = publication.retain && target.retain_as_published;
        let terms = Terms { qos, retain, subscription_ids: &target.subscription_ids, share: None };
        self.deliver(endpoint, publication, terms, published);
    }

    fn deliver(
        &self,
        endpoint: &Rc<Endpoint>,
        publication: &Publication<'_>,
        terms: Terms<'_>,
        published: &mut Published,
    ) {
        if publication.retain {
            endpoint.note_fresh(publication.topic);
        }
        let clock = self.clock();
        if endpoint.depends_on_time() && !endpoint.may_receive(publication.topic, clock) {
            self.metrics.decided(Asked::Receive, false);
            return;
        }
        let delivered = endpoint.deliver(publication, terms, clock, &mut self.pool.borrow_mut());
        match delivered {
            Delivered::Taken => {
                published.reached = true;
                self.metrics.sent(terms.qos, publication.payload().len());
            }
            Delivered::Pressed => {
                published.reached = true;
                self.metrics.sent(terms.qos, publication.payload().len());
                self.note_pressed(endpoint);
                published.pressed = Some(Rc::clone(endpoint));
            }
            Delivered::Dropped(reason) => {
                published.reached |= reason != DropReason::Gone;
                self.metrics.dropped(reason);
            }
        }
    }

    fn note_pressed(&self, endpoint: &Rc<Endpoint>) {
        let pressed = &mut self.routes.borrow_mut().pressed;
        if !pressed.iter().any(|other| Rc::ptr_eq(other, endpoint)) {
            pressed.push(Rc::clone(endpoint));
        }
    }

    fn hand_over_to(
        &self,
        core: u16,
        publication: Arc<Kept>,
        to: Option<Box<ToMember>>,
        errand: Errand,
        published: &mut Published,
    ) {
        published.reached = true;
        published.uses.add_core(core);
        let ticket = errand.ticket.filter(|_| publication.qos > 0);
        published.waiting += u16::from(ticket.is_some());
        self.hand_over(core, Parcel { publication, to, ticket, by: errand.by });
    }

    /// Places what another core sent.
    pub fn deliver_batch(self: &Rc<Self>, batch: Batch) {
        let mut results = Vec::new();
        let mut pressed = Pressed::default();
        let mut uses = Uses::default();
        for parcel in &batch.parcels {
            let publication = Publication::kept(&parcel.publication);
            let mut published = Published::default();
            match &parcel.to {
                Some(to) => {
                    let asker = (parcel.ticket, parcel.by);
                    self.deliver_to_member(to, &publication, asker, &mut published);
                }
                None => {
                    for target in &self.route(parcel.publication.topic()).targets {
                        self.deliver_to(target, &publication, &mut published);
                    }
                }
            }
            let has_no_member = parcel.to.is_some() && !published.reached;
            let taken = if has_no_member { Err(Failure::NoMember) } else { Ok(()) };
            // Whoever took it instead reports.
            match parcel.ticket.filter(|_| published.waiting == 0) {
                Some(ticket) if ticket.core() == batch.from => results.push((ticket, taken)),
                // It came by way of a core whose member could not take it.
                Some(ticket) => {
                    let results = vec![(ticket, taken)];
                    self.shared.send(ticket.core(), ToCore::Taken { results, credit: None });
                }
                None => {}
            }
            // Not its cores: two that pass shares on to each other must not wait for each other.
            uses.groups |= published.uses.groups;
            if let Some(endpoint) = published.pressed {
                pressed.add(endpoint, parcel.by);
            }
        }
        self.hold_publishers(pressed);
        let (from, credit) = (batch.from, Some((self.id, batch.bytes)));
        if !self.is_behind(uses) {
            self.shared.send(from, ToCore::Taken { results, credit });
            return;
        }
        self.shared.send(from, ToCore::Taken { results, credit: None });
        let core = Rc::clone(self);
        actix_rt::spawn(async move {
            core.caught_up(uses).await;
            core.shared.send(from, ToCore::Taken { results: Vec::new(), credit });
        });
    }

    /// Has those who publish to connections that have fallen behind wait for them; nobody else on
    /// their cores does.
    fn hold_publishers(self: &Rc<Self>, pressed: Pressed) {
        let Pressed { endpoints, publishers } = pressed;
        if publishers.is_empty() {
            return;
        }
        let core = Rc::clone(self);
        let tell = move |holds: bool| {
            for &publisher in &publishers {
                core.shared.send(publisher.core(&core.shared), ToCore::Hold { publisher, holds });
            }
        };
        tell(true);
        actix_rt::spawn(async move {
            for endpoint in endpoints {
                endpoint.room().await;
            }
            tell(false);
        });
    }

    /// Gives connections what their sessions' queues hand out.
    pub fn hand_out(self: &Rc<Self>, queued: Vec<Handout>) {
        let clock = self.clock();
        for handout in queued {
            let Some(endpoint) = self.endpoint(handout.live) else { continue };
            if endpoint.doomed().is_some() {
                // It stays in the queue: what the session may receive is decided when it resumes.
                continue;
            }
            let mut pool = self.pool.borrow_mut();
            let HandoutKind::Publish { qos, dup, retain, subscription_ids, publication } =
                handout.kind
            else {
                endpoint.release_queued(handout.seq, &mut pool);
                continue;
            };
            let terms = Terms { qos, retain, subscription_ids: &subscription_ids, share: None };
            let kept = Publication::kept(&publication);
            let allowed = endpoint.may_receive(kept.topic, clock);
            let delivered = allowed
                .then(|| endpoint.deliver_queued(&kept, terms, handout.seq, dup, clock, &mut pool));
            drop(pool);
            match delivered {
                Some(Delivered::Dropped(DropReason::Gone)) => {}
                Some(Delivered::Dropped(reason)) => {
                    self.metrics.dropped(reason);
                    self.acknowledge_queued(&endpoint, handout.seq);
                }
                None => {
                    self.metrics.decided(Asked::Receive, false);
                    self.refuse_queued(&endpoint, handout.seq, qos, dup);
                }
                Some(_) => self.metrics.sent(qos, kept.payload().len()),
            }
        }
    }

    /// Publishes on behalf of a REST request.
    pub fn publish_for(
        self: &Rc<Self>,
        kept: &Kept,
        answer: tokio::sync::oneshot::Sender<Result<(), Failure>>,
    ) {
        let number = self.pendings.borrow_mut().open(Asker::Request(answer));
        let ticket = Some(Ticket::Core { core: self.id, number });
        let publication = Publication::kept(kept);
        let route = self.route(publication.topic);
        let published = self.publish(&publication, &route, Errand { ticket, ..Errand::default() });
        self.pending_sent(number, published.waiting);
    }
}

/// Connections that a batch has pressed, and who published to them.
#[derive(Default)]
struct Pressed {
    endpoints: Vec<Rc<Endpoint>>,
    publishers: Vec<Publisher>,
}

impl Pressed {
    fn add(&mut self, endpoint: Rc<Endpoint>, by: Option<Publisher>) {
        if !self.endpoints.iter().any(|other| Rc::ptr_eq(other, &endpoint)) {
            self.endpoints.push(endpoint);
        }
        if let Some(by) = by.filter(|by| !self.publishers.contains(by)) {
            self.publishers.push(by);
        }
    }
}

fn group_share(groups: &mut SmallVec<[GroupShare; 2]>, group: u16) -> &mut GroupShare {
    let at = groups.iter().position(|share| share.group == group).unwrap_or_else(|| {
        groups.push(GroupShare { group, ..GroupShare::default() });
        groups.len() - 1
    });
    &mut groups[at]
}
