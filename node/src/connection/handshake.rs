//! From a byte stream to a running connection: CONNECT, who it is, what it may do, its session.

use std::fmt::Display;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::Actor;
use arc_swap::ArcSwap;
use authorizer::{Mqtt, Presented};
use bytes::Bytes;
use cluster::GroupId;
use fleet::registry::ThingName;
use fleet::shard::{self, Connected, Presence};
use mqtt::session::{Inbound, InboundLimits};
use mqtt::{ConnAck, Connect, PacketId, QoS, Reason, Version};
use policy::{Action, Compiled, Variables};
use rustls_pki_types::CertificateDer;
use thiserror::Error;
use tokio::sync::oneshot;

use super::refusal::{Cause, Refusal};
use super::subscribe::restored_options;
use super::transport::Transport;
use super::{Connection, Start};
use crate::authorizers;
use crate::claims::{self, Claim};
use crate::config::Limits;
use crate::core::Core;
use crate::decisions::Watch;
use crate::denial::{self, Denial, Newcomer};
use crate::endpoint::{Endpoint, Permissions, Profile, Record, WillTopic};
use crate::gateway::Place;
use crate::host::{Machine, Outcome, Proposal, Reply, Signal};
use crate::identity::{self, Principal, Refused};
use crate::just_in_time;
use crate::metrics::Asked;
use crate::outbox::{Outbox, Pool};
use crate::propagated::Propagated;
use crate::publication::Publication;
use crate::tls::certificate_id;

/// The first byte of CONNECT.
pub const CONNECT: u8 = 0x10;

/// The first byte of a TLS handshake.
const TLS: u8 = 0x16;

/// Who is at the other end of a stream.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Who it has proved to be.
    pub principal: Principal,
    /// The certificate that it has shown, if it has.
    pub certificate: Option<CertificateDer<'static>>,
    /// Its address, from the PROXY header where one is believed.
    pub ip: Option<IpAddr>,
    /// Its port.
    pub port: u16,
    /// The name that it has asked for, in TLS or without TLS in HTTP.
    pub domain_name: Option<String>,
    /// What it has said so far, where custom authorizers are asked about who has proved nothing.
    pub presented: Option<Box<Presented>>,
}

impl Peer {
    /// Somebody who has shown no certificate, and is this principal.
    pub fn nobody(principal: Principal, ip: Option<IpAddr>, port: u16) -> Self {
        Self { principal, certificate: None, ip, port, domain_name: None, presented: None }
    }

    /// The same, who has asked for this name.
    pub fn asking(self, domain_name: Option<String>) -> Self {
        Self { domain_name, ..self }
    }

    /// What it brings to its policies beside who it is; without a client id over HTTP.
    pub fn variables(&self, client_id: Option<&str>) -> Variables {
        Variables {
            client_id: client_id.map(ToOwned::to_owned),
            source_ip: self.ip,
            domain_name: self.domain_name.clone(),
            ..Variables::default()
        }
    }

    /// The same, about whom custom authorizers are asked unless it has shown a certificate.
    pub fn presenting(self, presented: Presented) -> Self {
        let presented = self.principal.is_nobody().then(|| Box::new(presented));
        Self { presented, ..self }
    }

    /// Who has shown this certificate, or without one is that principal.
    pub fn of(
        certificate: Option<CertificateDer<'static>>,
        otherwise: impl FnOnce() -> Principal,
        ip: Option<IpAddr>,
        port: u16,
    ) -> Self {
        let known = |leaf: &CertificateDer<'_>| Principal::Certificate(certificate_id(leaf));
        let principal = certificate.as_ref().map_or_else(otherwise, known);
        Self { principal, certificate, ip, port, domain_name: None, presented: None }
    }
}

/// Why a stream did not become a connection. The label is bounded.
#[derive(Debug, Error)]
pub enum Failure {
    /// The stream ended or failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The first packet is not CONNECT [v5 MQTT-3.1.0-1].
    #[error("the first packet is not CONNECT")]
    NotConnect,
    /// The client speaks something else than the listener; the text says what would do.
    #[error("{0}")]
    Mistaken(&'static str),
    /// The listener expects a PROXY header, and this is none.
    #[error("{0}")]
    Proxy(wire::proxy::ParseError),
    /// CONNECT breaks the protocol; the client was told if there is a way to.
    #[error("{0}")]
    Malformed(mqtt::DecodeError),
    /// The HTTP request was refused.
    #[error("{0}")]
    Http(String),
    /// Too many sockets of its source wait for their handshake.
    #[error("too many handshakes of one source")]
    Source,
    /// The listener has as many connections as it may.
    #[error("the listener has no place for another connection")]
    Full,
    /// The client was refused.
    #[error("refused: {}", .0.name())]
    Refused(Reason),
}

impl Failure {
    /// The failure as a metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Io(_) => "lost",
            Self::Http(_) => "http",
            Self::Source => "too_many_of_source",
            Self::Full => "too_many",
            Self::NotConnect | Self::Mistaken(_) | Self::Proxy(_) | Self::Malformed(_) => {
                "protocol"
            }
            Self::Refused(Reason::NotAuthorized) => "not_authorized",
            Self::Refused(Reason::ServerUnavailable | Reason::ServerBusy) => "unavailable",
            Self::Refused(_) => "refused",
        }
    }
}

/// Reads CONNECT and answers it. On success the connection's actor runs.
pub async fn connect(
    core: &Rc<Core>,
    mut transport: Transport,
    mut peer: Peer,
    place: Place,
) -> Result<(), Failure> {
    let (buffer, length) = read_connect(core, &mut transport).await?;
    let connect = match mqtt::decode_connect(&buffer[..length]) {
        Ok(connect) => connect,
        Err(error) => {
            if let Some((version, reason)) = error.answer() {
                say(&mut transport, version, &ConnAck::new(reason)).await;
            }
            return Err(Failure::Malformed(error.error));
        }
    };
    let version = connect.version;
    let accepted =
        tokio::time::timeout(place.answer_within(), accept(core, &connect, &mut peer)).await;
    match accepted.unwrap_or_else(|_| Err(Cause::Late.into())) {
        Ok(accepted) => {
            let rest = buffer[length..].to_vec();
            start(core, &connect, peer, accepted, (transport, place), rest);
            Ok(())
        }
        Err(Refusal { reason, denial, cause }) => {
            let is_unknown = cause.as_ref().is_some_and(Cause::is_unknown);
            if let Some(certificate) = peer.certificate.as_ref().filter(|_| is_unknown) {
                just_in_time::introduce(&core.shared, certificate, peer.ip);
            }
            let principal = peer.principal.name();
            let newcomer = Newcomer { client: connect.client_id, principal, ip: peer.ip };
            let now = core.read_clock().now;
            if denial.is_some() {
                core.announce_refused(connect.client_id, || presence_of(&peer, None));
                core.flush();
            }
            let why = cause.as_ref().map(|cause| cause as &dyn Display);
            denial::tell_refused(newcomer, reason, denial.as_ref(), why, now);
            let connack = ConnAck::new(reason);
            if takes(&connect, &connack) {
                say(&mut transport, version, &connack).await;
            }
            Err(Failure::Refused(reason))
        }
    }
}

/// Reads until CONNECT is complete; gives back what was read and the length of CONNECT.
async fn read_connect(core: &Core, transport: &mut Transport) -> Result<(Vec<u8>, usize), Failure> {
    let limit = core.shared.limits.connect_packet_size;
    let mut buffer = Vec::new();
    loop {
        let filled = buffer.len();
        buffer.resize(filled + 2048, 0);
        let read = poll_fn(|cx| transport.poll_read(cx, &mut buffer[filled..])).await?;
        buffer.truncate(filled + read);
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        match buffer[0] {
            CONNECT => {}
            TLS => return Err(Failure::Mistaken("looks like TLS: use listeners.mqtts")),
            _ if wire::proxy::is_begun(&buffer) => {
                let why =
                    "a PROXY header is read from the addresses in proxy_from of the listener only";
                return Err(Failure::Mistaken(why));
            }
            _ => return Err(Failure::NotConnect),
        }
        if let Some(length) = mqtt::frame(&buffer, limit).map_err(Failure::Malformed)?
            && buffer.len() >= length
        {
            return Ok((buffer, length));
        }
    }
}

/// How long a client may take to take a refusal: over QUIC it says that it has.
const SAID_WITHIN: Duration = Duration::from_secs(2);

/// Sends one CONNACK and ends the stream. Whether it arrives, changes nothing.
async fn say(transport: &mut Transport, version: Version, connack: &ConnAck<'_>) {
    let (mut outbox, mut pool) = (Outbox::default(), Pool::new(usize::MAX));
    outbox.append(&mut pool, |out| mqtt::encode_connack(version, connack, out));
    let saying = async {
        poll_fn(|cx| transport.poll_write(cx, &mut outbox, &mut pool)).await?;
        poll_fn(|cx| transport.poll_shutdown(cx)).await
    };
    let _ = tokio::time::timeout(SAID_WITHIN, saying).await;
}

/// What was decided about a CONNECT.
struct Accepted {
    client: Arc<str>,
    assigned: bool,
    permissions: Permissions,
    /// The thing that its certificate is exclusively attached to.
    thing: Option<ThingName>,
    /// What the type of its thing adds to its publications.
    propagated: Option<Propagated>,
    expiry: u32,
    keep_alive: u16,
    claim: Claim,
    session: Option<Connected>,
    /// What [`Core::registry_changes`] was when the policy was asked for.
    registry_changes: u64,
}

async fn accept(
    core: &Rc<Core>,
    connect: &Connect<'_>,
    peer: &mut Peer,
) -> Result<Accepted, Refusal> {
    let limits = &core.shared.limits;
    if core.shared.draining() {
        return Err(Cause::Draining.into());
    }
    if !core.shared.currency.is_current() {
        return Err(Cause::Behind.into());
    }
    if core.shared.is_resting() {
        return Err(Reason::UseAnotherServer.into());
    }
    if connect.authentication_method.is_some() {
        return Err(Reason::BadAuthenticationMethod.into());
    }
    if connect.client_id.len() > limits.client_id_bytes {
        return Err(Reason::ClientIdentifierNotValid.into());
    }
    let assigned = connect.client_id.is_empty();
    let client: Arc<str> = match assigned {
        true => format!("auto-{}", uuid::Uuid::new_v4().simple()).into(),
        false => connect.client_id.into(),
    };
    let expiry = match (connect.version, connect.clean_start) {
        (Version::V311, true) => 0,
        (Version::V311, false) => limits.v311_session_expiry_secs(),
        (Version::V5, _) => {
            connect.session_expiry.unwrap_or(0).min(limits.maximum_session_expiry_secs())
        }
    };
    ask_authorizer(core, connect, &client, peer).await?;
    let shared = match &peer.principal {
        Principal::Anonymous(document) => core.anonymous_policy(document),
        _ => None,
    };
    let registry_changes = core.registry_changes.get();
    let (permissions, thing, propagated) = match shared {
        Some(shared) => (shared, None, None),
        None => {
            let variables = peer.variables(Some(&client));
            let decided = identity::decide(&core.shared, &peer.principal, variables).await?;
            let permissions = Arc::new(ArcSwap::from_pointee(decided.policy));
            (permissions, decided.thing, decided.propagated)
        }
    };
    let request = policy::Request {
        persistent_connect: expiry > 0,
        last_will_topic: connect.will.as_ref().map(|will| will.topic),
        ..core.read_clock().request()
    };
    let checked = check_policy(&permissions.load(), connect, &client, &request);
    if let Some(watch) = core.shared.watches.of(&client) {
        note_connect(&watch, &permissions.load(), (connect, peer), &client, &request);
    }
    core.metrics.decided(Asked::Connect, checked.is_ok());
    checked?;
    let keep_alive = match (limits.maximum_keep_alive_secs, connect.keep_alive) {
        (0, asked) => asked,
        (maximum, 0) => maximum,
        (maximum, asked) => asked.min(maximum),
    };
    let assigned_client_id = assigned.then_some(&*client);
    if !takes(connect, &offer(limits, connect, assigned_client_id, expiry, keep_alive)) {
        return Err(Reason::PacketTooLarge.into());
    }
    let claim = Claim::take(core, Arc::clone(&client)).await.ok_or(Cause::Undecided)?;
    let session = open_session(core, connect, (peer, thing.as_ref()), &client, expiry).await?;
    Ok(Accepted {
        client,
        assigned,
        permissions,
        thing,
        propagated,
        expiry,
        keep_alive,
        claim,
        session,
        registry_changes,
    })
}

/// Has a custom authorizer say who a client is that has proved nothing. Where a policy of the listener
/// decides for such clients, only if the client names one.
async fn ask_authorizer(
    core: &Rc<Core>,
    connect: &Connect<'_>,
    client: &str,
    peer: &mut Peer,
) -> Result<(), Refused> {
    let Some(presented) = peer.presented.take() else { return Ok(()) };
    let mqtt = Mqtt {
        username: connect.username.map(ToOwned::to_owned),
        password: connect.password.map(ToOwned::to_owned),
        client_id: client.to_owned(),
    };
    let presented = Presented { mqtt: Some(mqtt), ..*presented };
    let only_if_named = matches!(peer.principal, Principal::Anonymous(_));
    let admitted = authorizers::admit(&core.shared, presented, only_if_named).await;
    if let Some(authorized) = admitted.map_err(Refused::Authorizer)? {
        peer.principal = Principal::Authorized(Arc::new(authorized));
    }
    Ok(())
}

/// Who a client is, as lifecycle events tell it.
fn presence_of(peer: &Peer, thing: Option<&ThingName>) -> Presence {
    Presence {
        session: Bytes::copy_from_slice(uuid::Uuid::new_v4().as_bytes()),
        principal: peer.principal.name().to_owned(),
        thing: thing.map(ToString::to_string),
        ip: peer.ip.map(|ip| ip.to_string()),
    }
}

/// The CONNACK of a connection that stands; only what differs from the defaults is said.
fn offer<'a>(
    limits: &Limits,
    connect: &Connect<'_>,
    assigned_client_id: Option<&'a str>,
    expiry: u32,
    keep_alive: u16,
) -> ConnAck<'a> {
    let receive_maximum = receive_maximum(limits, connect.version);
    ConnAck {
        session_expiry: (connect.session_expiry.unwrap_or(0) != expiry).then_some(expiry),
        receive_maximum: (receive_maximum < u16::MAX).then_some(receive_maximum),
        maximum_packet_size: (limits.maximum_packet_size < 268_435_460)
            .then_some(limits.maximum_packet_size),
        assigned_client_id,
        topic_alias_maximum: Some(limits.topic_alias_maximum).filter(|maximum| *maximum > 0),
        server_keep_alive: (keep_alive != connect.keep_alive).then_some(keep_alive),
        ..ConnAck::new(Reason::Success)
    }
}

fn receive_maximum(limits: &Limits, version: Version) -> u16 {
    match version {
        Version::V311 => u16::MAX,
        Version::V5 => limits.receive_maximum,
    }
}

/// Whether a CONNACK is within the client's Maximum Packet Size [v5 MQTT-3.1.2-24]. Nothing else
/// that a client must be told without asking is larger.
fn takes(connect: &Connect<'_>, connack: &ConnAck<'_>) -> bool {
    let Some(most) = connect.maximum_packet_size else { return true };
    let mut packet = Vec::new();
    mqtt::encode_connack(connect.version, connack, &mut packet);
    packet.len() <= most as usize
}

/// Whether the principal may connect like this, and publish its will.
fn check_policy(
    policy: &Compiled,
    connect: &Connect<'_>,
    client: &str,
    request: &policy::Request<'_>,
) -> Result<(), Refusal> {
    identity::may_connect(policy, client, request)?;
    let Some(will) = &connect.will else { return Ok(()) };
    if will.topic.starts_with('$') {
        let denial = Denial::reserved(Action::Publish, will.topic);
        return Err(Refusal { reason: Reason::TopicNameInvalid, ..denial.into() });
    }
    Ok(identity::may_publish(policy, will.topic, will.retain, request)?)
}

/// Notes what was decided about a CONNECT that somebody wants to know about.
fn note_connect(
    watch: &Watch,
    policy: &Compiled,
    (connect, peer): (&Connect<'_>, &Peer),
    client: &str,
    request: &policy::Request<'_>,
) {
    watch.saw(&peer.principal, peer.variables(Some(client)));
    watch.note(policy, Action::Connect, client, request);
    if let Some(will) = connect.will.as_ref().filter(|will| !will.topic.starts_with('$')) {
        watch.note(policy, Action::Publish, will.topic, request);
        if will.retain {
            watch.note(policy, Action::RetainPublish, will.topic, request);
        }
    }
}

/// Opens the session in its group, when it has to be known there: because it is persistent, because
/// an earlier one has to end, because of its will, or because somebody listens for it.
async fn open_session(
    core: &Rc<Core>,
    connect: &Connect<'_>,
    (peer, thing): (&Peer, Option<&ThingName>),
    client: &Arc<str>,
    expiry: u32,
) -> Result<Option<Connected>, Cause> {
    let group = GroupId::from(core.shared.group_of(client));
    let heard = core.shared.hears_presence(client);
    if heard {
        core.outbox_has_room(core.shared.group_of(client)).await;
    }
    // In a cluster, only its group knows whether another node holds the client id.
    let is_brief = expiry == 0 && connect.will.is_none();
    if is_brief && !heard && !core.shared.mesh.has_peers() {
        let name = Bytes::copy_from_slice(client.as_bytes());
        let known = identity::look(&core.shared, move |groups| {
            let shard = groups.get(group).and_then(Machine::shard);
            shard.is_some_and(|shard| shard.session(&name).is_some())
        });
        if !known.await.ok_or(Cause::Undecided)? {
            return Ok(None);
        }
    }
    let limits = &core.shared.limits;
    let keeps_name = core.shared.keeps_names_with_wills();
    let asked = if keeps_name { asked_for_will(peer) } else { None };
    let command = shard::Connect {
        client: Bytes::copy_from_slice(client.as_bytes()),
        clean_start: connect.clean_start,
        expiry_secs: expiry,
        version: connect.version as u32,
        at: core.read_clock().epoch_ms,
        will: connect.will.as_ref().map(|will| will_of(client, peer, asked, will)),
        queue_limit_bytes: limits.session_queue_bytes,
        queue_limit_messages: limits.session_queue_messages,
        node: core.shared.mesh.own.0,
        presence: core.shared.lifecycle_events.then(|| presence_of(peer, thing)),
        heard,
    };
    let (answer, opened) = oneshot::channel();
    let command = shard::Command::from(command).encoded();
    // On its own, because the handshake may run out of time while the group decides.
    actix_rt::spawn(propose_session(Rc::clone(core), group, command, Arc::clone(client), answer));
    let opened = opened.await.map_err(|_| Cause::Undecided)?;
    Ok(opened.into_connection())
}

/// Has a session opened for whoever holds the other end of `answer`; drops it when that fails.
async fn propose_session(
    core: Rc<Core>,
    group: GroupId,
    command: Bytes,
    client: Arc<str>,
    mut answer: oneshot::Sender<Opened>,
) {
    loop {
        let (reply, outcome) = oneshot::channel();
        let proposal = Proposal::asked(group, command.clone(), Reply::Once(reply));
        let proposed = tokio::select! {
            // Nothing is proposed any more: by now the client id may be another connection's.
            biased;
            () = answer.closed() => return,
            proposed = core.shared.groups.propose_all(vec![proposal]) => proposed,
        };
        if proposed.is_err() {
            return;
        }
        match outcome.await {
            Ok(Ok(Outcome::Shard(shard::Outcome::Connected(connected)))) => {
                // Comes back, and is closed by that, when nobody waits any more.
                let _ = answer.send(Opened { core, client, connected: Some(connected) });
                return;
            }
            Ok(Ok(Outcome::Shard(shard::Outcome::Occupied))) => {}
            Ok(Err(cluster::Refusal::Unseen)) => {
                return disown_unseen(&core, group, client, &answer).await;
            }
            _ => return,
        }
        let (vacant, vacancy) = oneshot::channel();
        let client = Bytes::copy_from_slice(client.as_bytes());
        // When it is not taken, the node is stopping.
        let _ = core.shared.groups.signal(Signal::AwaitVacancy { group, client, vacant });
        tokio::select! {
            biased;
            () = answer.closed() => return,
            vacancy = vacancy => if vacancy.is_err() { return },
        }
    }
}

/// Ends the session that a CONNECT may have opened without anybody here having seen it.
async fn disown_unseen(
    core: &Rc<Core>,
    group: GroupId,
    client: Arc<str>,
    answer: &oneshot::Sender<Opened>,
) {
    let (name, own) = (client.to_string(), core.shared.mesh.own);
    let opened = identity::look(&core.shared, move |groups| {
        let session = groups.get(group)?.shard()?.session(name.as_bytes())?;
        (session.connected() && session.holder() == own).then(|| session.epoch())
    });
    let Some(epoch) = opened.await.flatten() else { return };
    if !answer.is_closed() {
        core.disown(&client, shard::Disconnect { epoch, ..claims::lost() });
        return;
    }
    // The handshake has ended, and its claim with it: what was found may be a newcomer's.
    let name = client.to_string();
    core.run_on(core.shared.home_of(&client), move |home| home.end_unclaimed(&name, epoch));
}

/// A session that its group takes for connected. Says that it is not when no connection takes it.
struct Opened {
    core: Rc<Core>,
    client: Arc<str>,
    connected: Option<Connected>,
}

impl Opened {
    fn into_connection(mut self) -> Option<Connected> {
        self.connected.take()
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(connected) = &self.connected {
            let how = shard::Disconnect { epoch: connected.epoch, ..claims::lost() };
            self.core.disown(&self.client, how);
        }
    }
}

/// What a client has asked for, where policies are asked again when its will is published.
fn asked_for_will(peer: &Peer) -> Option<Box<shard::Asked>> {
    let domain_name = peer.principal.certificate().and(peer.domain_name.clone())?;
    Some(Box::new(shard::Asked { domain_name }))
}

fn will_of(
    client: &str,
    peer: &Peer,
    asked: Option<Box<shard::Asked>>,
    will: &mqtt::Will<'_>,
) -> shard::Will {
    let certificate = peer.principal.certificate().map(ToOwned::to_owned);
    let mut publication = Publication::borrowed(will.topic, will.payload, will.qos, will.retain);
    publication.properties = &will.properties;
    publication.publisher = client;
    shard::Will {
        publication: publication.keep(),
        delay_secs: will.delay,
        message_expiry_secs: will.expiry,
        certificate,
        source_ip: peer.ip.map(|ip| ip.to_string()),
        admitted: match &peer.principal {
            Principal::Authorized(authorized) => Some(Box::new(authorized.admitted())),
            _ => None,
        },
        asked,
    }
}

/// Makes the connection known on its core and starts its actor.
fn start(
    core: &Rc<Core>,
    connect: &Connect<'_>,
    peer: Peer,
    accepted: Accepted,
    (transport, place): (Transport, Place),
    partial: Vec<u8>,
) {
    let limits = &core.shared.limits;
    let Accepted {
        client,
        assigned,
        permissions,
        thing,
        propagated,
        expiry,
        keep_alive,
        claim,
        session,
        registry_changes,
    } = accepted;
    let record = session.as_ref().map(|session| Record {
        group: core.shared.group_of(&client),
        session: session.session,
        epoch: session.epoch,
    });
    let session_present = session.as_ref().is_some_and(|session| session.session_present);
    let session = session.unwrap_or_default();
    let endpoint = core.place(|live| {
        let profile = Profile {
            client: Arc::clone(&client),
            version: connect.version,
            // A resumed session that is to end with this connection still has its queue.
            persistent: expiry > 0 || session_present,
            record,
            persistent_connect: expiry > 0,
            will: connect
                .will
                .as_ref()
                .map(|will| Box::new(WillTopic { topic: will.topic.into(), retain: will.retain })),
            principal: peer.principal,
            thing: thing.map(Box::new),
            source_ip: peer.ip,
            source_port: peer.port,
            domain_name: peer.domain_name.map(|name| core.domain_names.share(name)),
            keep_alive,
            connected_at_ms: core.clock().epoch_ms,
            maximum_packet_size: connect.maximum_packet_size.unwrap_or(u32::MAX),
            live,
        };
        let alias_maximum = connect.topic_alias_maximum.min(limits.topic_alias_maximum);
        Rc::new(Endpoint::new(
            profile,
            permissions,
            Arc::clone(&core.shared.budget),
            connect.receive_maximum,
            alias_maximum,
        ))
    });
    endpoint.set_propagated(propagated);
    if let Some(watch) = core.shared.watches.of(&client) {
        endpoint.watch(watch);
    }
    // Who was told of the change did not see this connection.
    if registry_changes != core.registry_changes.get()
        && endpoint.profile.principal.follows_registry()
    {
        let (core, endpoint) = (Rc::clone(core), Rc::clone(&endpoint));
        actix_rt::spawn(async move { core.decide_again(&endpoint).await });
    }
    let connack = ConnAck {
        session_present,
        ..offer(limits, connect, assigned.then_some(&*client), expiry, keep_alive)
    };
    endpoint.put(&mut core.pool.borrow_mut(), |out| {
        mqtt::encode_connack(connect.version, &connack, out);
    });
    let inbound_limits = InboundLimits {
        receive_maximum: receive_maximum(limits, connect.version),
        topic_alias_maximum: limits.topic_alias_maximum,
        maximum_qos: QoS::ExactlyOnce,
    };
    let unreleased = session.inbound.iter().filter_map(|id| PacketId::new(*id)).collect();
    let mut connection = Connection::new(Start {
        core: Rc::clone(core),
        endpoint,
        transport,
        inbound: Inbound::new(inbound_limits, unreleased),
        partial,
        expiry,
        claim,
        place,
    });
    for restored in &session.subscriptions {
        let options = restored_options(&restored.options);
        connection.restore(&restored.filter, options, restored.options.subscription_id);
    }
    let endpoint = Rc::clone(connection.endpoint());
    connection.start();
    if core.shared.draining() || core.shared.is_resting() {
        // The drain may have looked before this connection had its place.
        endpoint.doom(match core.shared.mesh.has_peers() {
            true => Reason::UseAnotherServer,
            false => Reason::ServerShuttingDown,
        });
    }
}

#[cfg(test)]
mod tests {
    use api::Role;

    use super::*;

    #[test]
    fn a_name_is_kept_for_the_policies_of_a_certificate_only() {
        let certificate = || Principal::Certificate("0a".repeat(32).into());
        for (principal, name, is_kept) in [
            (certificate(), Some("iot.example.com"), true),
            (certificate(), None, false),
            (Principal::AccessKey("KEY".into(), Role::Admin), Some("iot.example.com"), false),
            (Principal::Unidentified, Some("iot.example.com"), false),
        ] {
            let shown = format!("{principal:?} {name:?}");
            let peer = Peer::nobody(principal, None, 1).asking(name.map(ToOwned::to_owned));
            let kept = asked_for_will(&peer).map(|asked| asked.domain_name);
            assert_eq!(kept.as_deref(), name.filter(|_| is_kept), "{shown}");
        }
    }
}
