//! One device's network link, from CONNACK to its end.
//!
//! The actor reads everything one readiness brings into its core's shared buffer, decodes it packet
//! by packet, lets [`mqtt::session`] judge and the core route, and writes its endpoint's outbox once
//! per turn. Publications never pass through its mailbox. While it waits it holds no buffer.

mod acknowledge;
mod end;
pub mod handshake;
mod rate;
mod read;
mod refusal;
mod seeded;
mod subscribe;
pub mod transport;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use actix::fut::ActorFuture;
use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message, MessageResult, Running};
use cluster::OnFull;
use hashbrown::HashMap;
use mqtt::session::{Inbound, Owed, Receipt};
use mqtt::{AckKind, Packet, Publish, QoS, Reason, Version};
use policy::Action;

pub use end::End;
use rate::Rate;
use seeded::Seeded;
use transport::Transport;

use crate::authorizers::Step;
use crate::claims::Claim;
use crate::core::{Core, Publisher, Ticket, Timer, Uses};
use crate::denial::Denial;
use crate::endpoint::{Endpoint, Record};
use crate::gateway::Place;
use crate::identity::{self, Principal};
use crate::metrics::Asked;
use crate::propagated;
use crate::provisioning;
use crate::publication::Publication;
use crate::publish::{Errand, Published};
use crate::route::Route;
use crate::telemetry;

/// See the module.
pub struct Connection {
    core: Rc<Core>,
    endpoint: Rc<Endpoint>,
    transport: Transport,
    inbound: Inbound,
    /// Bytes that were read and not handled: of a packet that is not complete, mostly.
    partial: Vec<u8>,
    /// Bytes of `partial` that the core's budget counts.
    partial_held: usize,
    /// Whether `partial` may hold whole packets.
    unhandled: bool,
    /// The route this client was last allowed to publish to.
    allowed_route: u64,
    /// Apart, because a connection that only publishes has none of it.
    subscribed: Option<Box<Subscribed>>,
    /// Seconds the session outlives the connection.
    expiry: u32,
    /// A subscriber that has fallen behind: nothing is read until it has caught up.
    pressed: Option<Rc<Endpoint>>,
    /// Where its publications went since it last had to wait.
    uses: Uses,
    /// Whether it is read for its acknowledgements although an outbox may be long.
    only_acks: bool,
    /// Whether `partial` begins with a PUBLISH that such an outbox is too long for.
    at_publish: bool,
    /// Whether the client is not read although it may have sent something.
    withheld: bool,
    /// Whether it is its own outbox that has to become shorter first.
    crowded: bool,
    /// Whether the client has taken anything since its keep alive was last looked at.
    took: bool,
    /// When it last completed a packet, began one, or got on with one.
    heard: Instant,
    rate: Option<Box<Rate>>,
    end: Option<Box<End>>,
    claim: Claim,
    _place: Place,
}

/// Topic filters and the QoS they were granted. The core and the node keep the same strings.
type Filters = HashMap<Arc<str>, QoS, Seeded>;

/// What a connection is subscribed to.
#[derive(Default)]
struct Subscribed {
    filters: Filters,
    /// Shared by those who wait to send a SUBACK.
    subscribing: Rc<()>,
}

/// With its context and its task 640 bytes; the allocator's next step is 128 bytes further.
const _: () = assert!(size_of::<Connection>() <= 240 && size_of::<Context<Connection>>() <= 168);

/// What a connection starts with.
pub struct Start {
    /// Its core.
    pub core: Rc<Core>,
    /// Its delivery side.
    pub endpoint: Rc<Endpoint>,
    /// Its socket.
    pub transport: Transport,
    /// The client's half of the session.
    pub inbound: Inbound,
    /// What came after CONNECT already.
    pub partial: Vec<u8>,
    /// Seconds the session outlives the connection.
    pub expiry: u32,
    /// Its hold on the client id.
    pub claim: Claim,
    /// Its place among the connections of its listener.
    pub place: Place,
}

impl Connection {
    /// A connection whose CONNACK is in the outbox.
    pub fn new(start: Start) -> Self {
        let now = start.core.read_clock().now;
        let rate = start.core.shared.limits.publish_rate.map(|rate| Box::new(Rate::new(rate, now)));
        Self {
            core: start.core,
            endpoint: start.endpoint,
            transport: start.transport,
            inbound: start.inbound,
            partial_held: 0,
            unhandled: !start.partial.is_empty(),
            partial: start.partial,
            allowed_route: 0,
            subscribed: None,
            expiry: start.expiry,
            pressed: None,
            uses: Uses::default(),
            only_acks: false,
            at_publish: false,
            withheld: false,
            crowded: false,
            took: false,
            heard: now,
            rate,
            end: None,
            claim: start.claim,
            _place: start.place,
        }
    }

    /// Adds a subscription of a resumed session.
    pub fn restore(&mut self, filter: &str, options: mqtt::SubscribeOptions, id: u32) {
        self.add_subscription(filter, options, id);
    }

    /// Its delivery side.
    pub fn endpoint(&self) -> &Rc<Endpoint> {
        &self.endpoint
    }

    fn version(&self) -> Version {
        self.endpoint.profile.version
    }

    fn poll(&mut self, ctx: &mut Context<Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        self.acknowledge();
        let doomed = self.endpoint.doomed();
        // Acknowledgements that have arrived spare whoever takes over a repetition.
        if self.end.is_none() && matches!(doomed, None | Some(Reason::SessionTakenOver)) {
            self.read(cx);
        }
        if let Some(reason) = doomed {
            self.act_on_doom(reason, cx);
        }
        self.acknowledge();
        self.flush(ctx, cx)
    }

    /// Handles one packet of the client.
    fn packet(&mut self, packet: Packet<'_>) -> Result<(), End> {
        match packet {
            Packet::Publish(publish) => self.publish(&publish),
            Packet::PubAck(ack) => self.settle(AckKind::PubAck, ack),
            Packet::PubRec(ack) => self.settle(AckKind::PubRec, ack),
            Packet::PubComp(ack) => self.settle(AckKind::PubComp, ack),
            Packet::PubRel(ack) => self.release(ack),
            Packet::Subscribe(subscribe) => self.subscribe(&subscribe),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(&unsubscribe),
            Packet::PingReq => {
                self.endpoint.put(&mut self.core.pool.borrow_mut(), mqtt::encode_pingresp);
                Ok(())
            }
            Packet::Disconnect(disconnect) => self.disconnect(&disconnect),
            // No authentication method was agreed on [v5 MQTT-4.12.0-6], and a second CONNECT is a
            // violation [v5 MQTT-3.1.0-2].
            Packet::Auth(_) | Packet::Connect(_) => Err(End::protocol_error()),
        }
    }

    fn publish(&mut self, publish: &Publish<'_>) -> Result<(), End> {
        let receipt = self.inbound.publish(publish).map_err(|error| End::violation(&error))?;
        self.core.metrics.publish(publish.qos);
        self.count_publish();
        if receipt == Receipt::Again {
            self.owe(AckKind::PubRec, publish, Reason::Success, 0);
            return Ok(());
        }
        let core = Rc::clone(&self.core);
        let clock = core.clock();
        let expires_at =
            publish.expiry.map(|seconds| clock.epoch_ms + u64::from(seconds.max(1)) * 1000);
        let topic = self.inbound.topic(publish);
        let endpoint = Rc::clone(&self.endpoint);
        let client = &endpoint.profile.client;
        let properties;
        let mut publication =
            Publication::borrowed(topic, publish.payload, publish.qos, publish.retain);
        publication.properties = &publish.properties;
        publication.expires_at = expires_at;
        publication.publisher = client;
        publication.published_at = clock.epoch_ms;
        // Only a topic that may be published to is worth remembering.
        let known = core.known_route(topic).filter(|route| route.id == self.allowed_route);
        let checked = known.is_some() && !publish.retain;
        if !checked && let Err(denial) = self.may_publish(topic, publish.retain) {
            core.metrics.decided(Asked::Publish, false);
            denial.tell(&self.endpoint.profile, clock.now);
            return self.refuse(publish, Reason::NotAuthorized);
        }
        if !checked {
            core.metrics.decided(Asked::Publish, true);
            if provisioning::parse(topic).is_some() {
                core.serve_provisioning(self.endpoint.profile.live, topic, publish.payload);
                self.taken(publish);
                return Ok(());
            }
        }
        let route = known.unwrap_or_else(|| core.route(topic));
        if !publish.retain && !self.endpoint.depends_on_time() {
            self.allowed_route = route.id;
        }
        if let Some(enriched) = self.enriched(&publication) {
            properties = enriched;
            publication.properties = &properties;
        }
        if publish.qos != QoS::AtMostOnce && self.is_too_large(&publication, &route) {
            core.metrics.too_large();
            return self.refuse(publish, Reason::QuotaExceeded);
        }
        if publish.qos != QoS::AtMostOnce
            && core.shared.queues_full.load(Ordering::Relaxed)
            && route.is_for_queues()
        {
            core.metrics.queues_full();
            return self.refuse(publish, Reason::QuotaExceeded);
        }
        if publish.qos == QoS::ExactlyOnce
            && let Some(record) = self.persistent_record()
        {
            let command = fleet::shard::ReceiveQos2 {
                client: bytes::Bytes::copy_from_slice(client.as_bytes()),
                epoch: record.epoch,
                packet_id: publish.packet_id.map_or(0, |id| id.get().into()),
                publication: publication.keep(),
                store_retained: publish.retain,
            };
            let group = record.group;
            let number = self.owe(AckKind::PubRec, publish, Reason::Success, 1);
            self.propose(group, command.into(), number, OnFull::Refuse);
            self.uses.add_outbox(group);
            return Ok(());
        }
        let traces = core.shared.traces.as_ref();
        let span = traces.and_then(|traces| {
            let count = core.metrics.published();
            traces.publication(count, publication.properties, topic, publish.qos)
        });
        let live = self.endpoint.profile.live;
        let by = Some(Publisher::Connection(live));
        let Some(id) = publish.packet_id else {
            let errand = Errand { by, ..Errand::default() };
            let published = core.publish(&publication, &route, errand);
            telemetry::end_span(span, published.waiting, published.reached);
            self.note(published);
            return Ok(());
        };
        // Whether takers have to be waited for is known afterwards; until then count one more.
        let kind = if publish.qos == QoS::ExactlyOnce { AckKind::PubRec } else { AckKind::PubAck };
        let owed = Owed { kind, id, reason: Reason::Success, waiting: 1 };
        let number = self.endpoint.owe(owed);
        let ticket = Some(Ticket::Connection { live, number });
        let errand = Errand { ticket, by, ..Errand::default() };
        let published = core.publish(&publication, &route, errand);
        telemetry::end_span(span, published.waiting, published.reached);
        let nobody = !published.reached && published.waiting == 0;
        self.endpoint.sent(number, published.waiting, nobody);
        self.note(published);
        Ok(())
    }

    /// Remembers whom to wait for before more is read. Not itself: what it has not acknowledged becomes
    /// less only by what it sends.
    fn note(&mut self, published: Published) {
        self.uses.add(published.uses);
        let others = published.pressed.filter(|pressed| !Rc::ptr_eq(pressed, &self.endpoint));
        self.pressed = others.or(self.pressed.take());
    }

    /// Slows a client down that publishes faster than it may: what it has sent is routed, and then
    /// it is not read until its rate is back to the limit.
    fn count_publish(&mut self) {
        let now = self.core.clock().now;
        if self.rate.as_mut().is_some_and(|rate| rate.count(now)) {
            self.core.metrics.throttled();
        }
    }

    /// The record of a session that outlives its connection.
    fn persistent_record(&self) -> Option<Record> {
        self.endpoint.profile.record.filter(|_| self.endpoint.profile.persistent)
    }

    fn may_publish<'a>(&self, topic: &'a str, retain: bool) -> Result<(), Denial<'a>> {
        if topic.starts_with('$')
            && !crate::reserved::may_publish(topic)
            && provisioning::parse(topic).is_none()
        {
            return Err(Denial::reserved(Action::Publish, topic));
        }
        let (policy, request) = (self.endpoint.policy(), self.core.clock().request());
        self.endpoint.note(Action::Publish, topic, &request);
        if retain {
            self.endpoint.note(Action::RetainPublish, topic, &request);
        }
        identity::may_publish(&policy, topic, retain, &request)
    }

    /// The properties of a publication with what the type of the client's thing adds to them, if it adds
    /// anything and there is room.
    fn enriched(&self, publication: &Publication<'_>) -> Option<Vec<u8>> {
        self.endpoint.propagate(|propagated| {
            let shared = &self.core.shared;
            let packet = shared.limits.maximum_packet_size as usize;
            let room = propagated::room(publication.bytes(), shared.publication_bytes, packet);
            let enriched = propagated.after(publication.properties, room);
            if enriched.is_none() {
                self.core.metrics.not_enriched();
            }
            enriched
        })?
    }

    /// Whether a group has to keep a publication that is larger than a command can be.
    fn is_too_large(&self, publication: &Publication<'_>, route: &Route) -> bool {
        let exactly_once = publication.qos == QoS::ExactlyOnce;
        publication.bytes() > self.core.shared.publication_bytes
            && (publication.retain
                || !route.groups.is_empty()
                || !route.nodes.is_empty()
                || !route.shares.is_empty()
                || exactly_once && self.persistent_record().is_some())
    }

    /// Acknowledges a publication that nobody has to be waited for.
    fn taken(&mut self, publish: &Publish<'_>) {
        match publish.qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => drop(self.owe(AckKind::PubAck, publish, Reason::Success, 0)),
            QoS::ExactlyOnce => drop(self.owe(AckKind::PubRec, publish, Reason::Success, 0)),
        }
    }

    /// Answers a publication that is not taken: with a reason where the protocol has one, by
    /// closing where it has not.
    fn refuse(&mut self, publish: &Publish<'_>, reason: Reason) -> Result<(), End> {
        if self.version() == Version::V311 || publish.qos == QoS::AtMostOnce {
            return Err(End::refused(reason));
        }
        let kind = match publish.qos {
            QoS::ExactlyOnce => AckKind::PubRec,
            _ => AckKind::PubAck,
        };
        self.owe(kind, publish, reason, 0);
        Ok(())
    }

    fn owe(&self, kind: AckKind, publish: &Publish<'_>, reason: Reason, waiting: u16) -> u32 {
        let id = publish.packet_id.expect("a QoS 1 or 2 PUBLISH has an identifier");
        self.endpoint.owe(Owed { kind, id, reason, waiting })
    }

    /// Writes what waits until the socket takes no more.
    fn write(&mut self, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        loop {
            self.refill();
            let (transport, core, took) = (&mut self.transport, &self.core, &mut self.took);
            let written = self.endpoint.flush(cx.waker(), |outbox| {
                let before = outbox.len();
                let written = transport.poll_write(cx, outbox, &mut core.pool.borrow_mut());
                *took |= outbox.len() < before;
                written
            });
            let drained = matches!(written, Poll::Ready(Ok(())));
            if !drained || !self.endpoint.has_more() {
                return written;
            }
        }
    }

    fn flush(&mut self, ctx: &mut Context<Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let written = self.write(cx);
        if self.crowded && !self.endpoint.is_crowded() && self.end.is_none() {
            self.crowded = false;
            cx.waker().wake_by_ref();
        }
        match written {
            Poll::Ready(Err(error)) => {
                self.end.get_or_insert_with(|| Box::new(End::lost(&error)));
                ctx.stop();
                return Poll::Ready(());
            }
            // Nothing is left to say.
            Poll::Ready(Ok(()))
                if self.end.is_some() && self.transport.poll_shutdown(cx).is_ready() =>
            {
                ctx.stop();
                return Poll::Ready(());
            }
            _ => {}
        }
        let last_word_by = self.end.as_ref().and_then(|end| end.last_word_by);
        if last_word_by.is_some_and(|by| self.core.read_clock().now >= by) {
            ctx.stop();
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// When one and a half keep alive times will have passed without a packet [v5 MQTT-3.1.2-22].
    fn silent_by(&self) -> Instant {
        let keep_alive = self.endpoint.profile.keep_alive;
        self.heard + Duration::from_secs(keep_alive.into()).mul_f32(1.5)
    }
}

impl Actor for Connection {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let live = self.endpoint.profile.live;
        self.claim.established(&self.core, live, &ctx.address());
        self.core.metrics.connected();
        if self.endpoint.profile.keep_alive > 0 {
            self.core.wheel.borrow_mut().set(self.silent_by(), Timer::KeepAlive(live));
        }
        self.mind_expiry();
        self.attach();
        ctx.spawn(Io);
    }

    fn stopping(&mut self, _: &mut Self::Context) -> Running {
        self.clean_up();
        Running::Stop
    }
}

/// Drives a connection's socket; the actor's only future.
struct Io;

impl ActorFuture<Connection> for Io {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        connection: &mut Connection,
        ctx: &mut Context<Connection>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<()> {
        connection.poll(ctx, cx)
    }
}

/// Looks whether the client has been silent for too long [v5 MQTT-3.1.2-22], may be read again, or has
/// credentials that have expired.
#[derive(Message)]
#[rtype(result = "()")]
pub struct LookAtTime(pub Timer);

impl Handler<LookAtTime> for Connection {
    type Result = ();

    fn handle(&mut self, LookAtTime(timer): LookAtTime, _: &mut Self::Context) {
        // The actor's future is polled after every message, so it acts on what is set here.
        if self.end.is_some() {
            return;
        }
        match timer {
            Timer::KeepAlive(_) => self.mind_silence(),
            Timer::Expiry(_) => self.mind_expiry(),
            Timer::Resume(_) => {
                if let Some(rate) = &mut self.rate {
                    rate.looked();
                }
            }
        }
    }
}

impl Connection {
    /// Ends the connection when its client has been silent for too long.
    fn mind_silence(&mut self) {
        let now = self.core.clock().now;
        let took = std::mem::take(&mut self.took);
        let is_ending = self.endpoint.takes_no_more();
        if self.withheld && !is_ending && (took || !self.crowded) {
            // It is not the client that is silent. One that takes nothing of what it is sent is.
            self.heard = now;
        }
        let deadline = self.silent_by();
        if now >= deadline {
            self.finish(End::keep_alive());
        } else {
            let timer = Timer::KeepAlive(self.endpoint.profile.live);
            self.core.wheel.borrow_mut().set(deadline, timer);
        }
    }

    /// Ends the connection when the temporary credentials that it was made with have expired, or what
    /// a custom authorizer gave it; asks that again when it is time.
    fn mind_expiry(&mut self) {
        let profile = &self.endpoint.profile;
        let (live, clock) = (profile.live, self.core.clock());
        let next = match &profile.principal {
            Principal::Session(session) => session.next_look(clock),
            Principal::Person(person) => person.next_look(clock),
            Principal::Authorized(authorized) => match authorized.next_step(clock) {
                Step::Wait(wait) => Some(clock.now + wait),
                Step::Refresh => return self.renew(),
                Step::End => return self.finish(End::authorization_over()),
            },
            _ => return,
        };
        match next {
            Some(next) => self.core.wheel.borrow_mut().set(next, Timer::Expiry(live)),
            None => self.endpoint.doom(Reason::NotAuthorized),
        }
    }

    /// Asks its custom authorizer again, and looks at the time afterwards.
    fn renew(&self) {
        let (core, endpoint) = (Rc::clone(&self.core), Rc::clone(&self.endpoint));
        actix_rt::spawn(async move {
            core.renew(&endpoint).await;
            let timer = Timer::Expiry(endpoint.profile.live);
            core.wheel.borrow_mut().set(core.read_clock().now, timer);
        });
    }
}

/// Ends the connection because an operator wants it.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Delete {
    /// What happens to its session and its will.
    pub ending: api::backend::Ending,
}

impl Handler<Delete> for Connection {
    type Result = ();

    fn handle(&mut self, Delete { ending }: Delete, _: &mut Self::Context) {
        if ending.clean_session {
            self.expiry = 0;
        }
        let end = End::by_server(Reason::AdministrativeAction);
        self.finish(End { will: !ending.prevent_will, ..end });
    }
}

/// Asks for the address of this node that the client is connected to, if it came by a network. The socket
/// knows: what is kept for each connection stays small.
#[derive(Message)]
#[rtype(result = "Option<SocketAddr>")]
pub struct Target;

impl Handler<Target> for Connection {
    type Result = Option<SocketAddr>;

    fn handle(&mut self, _: Target, _: &mut Self::Context) -> Self::Result {
        self.transport.local_addr()
    }
}

/// Asks for the topic filters of the connection, with the QoS of each.
#[derive(Message)]
#[rtype(result = "Vec<(String, u8)>")]
pub struct Subscriptions;

impl Handler<Subscriptions> for Connection {
    type Result = MessageResult<Subscriptions>;

    fn handle(&mut self, _: Subscriptions, _: &mut Self::Context) -> Self::Result {
        let filters = self.subscribed.iter().flat_map(|subscribed| &subscribed.filters);
        MessageResult(filters.map(|(filter, qos)| (filter.to_string(), *qos as u8)).collect())
    }
}
