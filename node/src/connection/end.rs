//! How a connection ends, and what it leaves behind.

use std::io;
use std::task::Context;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster::GroupId;
use fleet::shard::{self, DisconnectReason, WillAction};
use mqtt::session::Violation;
use mqtt::{DecodeError, Disconnect, Reason, Version};
use tracing::debug;

use super::Connection;
use crate::core::Timer;
use crate::endpoint;
use crate::host::{Proposal, Signal};
use crate::identity;
use crate::interest::Destination;

/// How long a connection that ends tries to say its last word.
const LAST_WORD: Duration = Duration::from_secs(5);
/// How long where that is urgent: with the ticks of the wheel less than a second.
const LAST_WORD_IF_URGENT: Duration = Duration::from_millis(250);

/// Why a connection ends.
#[derive(Clone, Debug)]
pub struct End {
    /// What a version 5 client is told in DISCONNECT.
    pub tell: Option<Reason>,
    /// Whether the will is published.
    pub will: bool,
    /// The cause as a metric label.
    pub cause: &'static str,
    /// The cause as lifecycle events tell it.
    pub reason: DisconnectReason,
    /// The cause in words.
    pub detail: String,
    /// Until when its last packets are tried, once it has begun to end.
    pub last_word_by: Option<Instant>,
}

impl End {
    fn new(
        tell: Option<Reason>,
        cause: &'static str,
        reason: DisconnectReason,
        detail: impl ToString,
    ) -> Self {
        Self { tell, will: true, cause, reason, detail: detail.to_string(), last_word_by: None }
    }

    /// The client said goodbye.
    pub fn by_client(will: bool) -> Self {
        let reason = DisconnectReason::ClientInitiatedDisconnect;
        Self { will, ..Self::new(None, "client", reason, "") }
    }

    /// The client closed its socket without a DISCONNECT.
    pub fn closed() -> Self {
        let detail = "the client closed the connection without DISCONNECT";
        Self::new(None, "lost", DisconnectReason::ConnectionLost, detail)
    }

    /// The network failed.
    pub fn lost(error: &io::Error) -> Self {
        Self::new(None, "lost", DisconnectReason::ConnectionLost, error)
    }

    /// The broker ends it.
    pub fn by_server(reason: Reason) -> Self {
        let (cause, told) = match reason {
            Reason::SessionTakenOver => ("taken_over", DisconnectReason::DuplicateClientid),
            Reason::NotAuthorized => ("not_authorized", DisconnectReason::AuthError),
            // Than the client itself has said that it takes.
            Reason::PacketTooLarge => ("protocol", DisconnectReason::ClientError),
            Reason::QuotaExceeded => ("quota", DisconnectReason::Throttled),
            Reason::ServerShuttingDown | Reason::UseAnotherServer => {
                ("shutdown", DisconnectReason::ServerInitiatedDisconnect)
            }
            Reason::AdministrativeAction => {
                ("administrative", DisconnectReason::ApiInitiatedDisconnect)
            }
            _ => ("server", DisconnectReason::ServerError),
        };
        Self::new(Some(reason), cause, told, reason.name())
    }

    /// A publication is refused, and the protocol has no other way to say so.
    pub fn refused(reason: Reason) -> Self {
        let end = Self::by_server(reason);
        match reason {
            Reason::NotAuthorized => Self { reason: DisconnectReason::ForbiddenAccess, ..end },
            _ => end,
        }
    }

    /// What a custom authorizer gave it has ended.
    pub fn authorization_over() -> Self {
        let reason = DisconnectReason::CustomauthTtlExpiration;
        Self { reason, ..Self::by_server(Reason::NotAuthorized) }
    }

    /// Nothing was heard for one and a half keep alive times.
    pub fn keep_alive() -> Self {
        let detail = "nothing was heard for too long";
        let reason = DisconnectReason::MqttKeepAliveTimeout;
        Self::new(Some(Reason::KeepAliveTimeout), "keep_alive", reason, detail)
    }

    /// The bytes are not MQTT.
    pub fn violated(error: &DecodeError) -> Self {
        Self::new(Some(error.reason()), "protocol", DisconnectReason::ClientError, error)
    }

    /// The packet is not allowed now.
    pub fn violation(error: &Violation) -> Self {
        Self::new(Some(error.reason()), "protocol", DisconnectReason::ClientError, error)
    }

    /// The packet is not allowed at all here.
    pub fn protocol_error() -> Self {
        let (reason, detail) = (DisconnectReason::ClientError, "a packet that is not allowed here");
        Self::new(Some(Reason::ProtocolError), "protocol", reason, detail)
    }
}

impl Connection {
    /// Somebody wants the connection to end.
    pub(super) fn act_on_doom(&mut self, reason: Reason, cx: &mut Context<'_>) {
        let urgent = endpoint::is_urgent(reason);
        if urgent && self.end.is_none() {
            // What the socket does not take at once is not waited for. An error shows again.
            let _ = self.write(cx);
            self.endpoint.cut(&mut self.core.pool.borrow_mut());
        }
        self.finish(End::by_server(reason));
        if urgent {
            self.last_word_by(self.core.clock().now + LAST_WORD_IF_URGENT);
        }
    }

    /// Starts to end: the last packets are flushed, then the actor stops.
    pub(super) fn finish(&mut self, end: End) {
        if self.end.is_some() {
            return;
        }
        self.acknowledge();
        if let Some(reason) = end.tell
            && self.version() == Version::V5
        {
            let elsewhere = self.core.shared.public_host.as_deref();
            let server_reference = elsewhere.filter(|_| reason == Reason::UseAnotherServer);
            let disconnect = mqtt::Disconnect { server_reference, ..mqtt::Disconnect::new(reason) };
            self.endpoint.put(&mut self.core.pool.borrow_mut(), |out| {
                mqtt::encode_disconnect(Version::V5, &disconnect, out);
            });
        }
        self.endpoint.end();
        self.end = Some(Box::new(end));
        self.last_word_by(self.core.clock().now + LAST_WORD);
    }

    /// Says until when it may try to say its last word, unless that is earlier already.
    fn last_word_by(&mut self, by: Instant) {
        let Some(end) = &mut self.end else { return };
        if end.last_word_by.is_none_or(|before| by < before) {
            end.last_word_by = Some(by);
            let timer = Timer::Resume(self.endpoint.profile.live);
            self.core.wheel.borrow_mut().set(by, timer);
        }
    }

    /// DISCONNECT from the client.
    pub(super) fn disconnect(&mut self, disconnect: &Disconnect<'_>) -> Result<(), End> {
        if let Some(expiry) = disconnect.session_expiry {
            // [v5 3.14.2.2.2]: a session that was to end with its connection cannot be kept.
            if expiry > 0 && self.expiry == 0 {
                return Err(End::protocol_error());
            }
            let limit = self.core.shared.limits.maximum_session_expiry_secs();
            self.expiry = expiry.min(limit);
        }
        // Only a normal disconnection discards the will [v5 MQTT-3.14.4-3].
        Err(End::by_client(disconnect.reason != Reason::NORMAL_DISCONNECTION))
    }

    /// Tells the group that its queue can be served here.
    pub(super) fn attach(&self) {
        let Some(record) = self.persistent_record() else { return };
        let signal = Signal::Attach {
            group: record.group.into(),
            session: record.session,
            epoch: record.epoch,
            window: self.endpoint.receive_maximum(),
            live: self.endpoint.profile.live,
        };
        // When the groups have ended, so does the node.
        let _ = self.core.shared.groups.signal(signal);
    }

    /// Leaves nothing of this connection on its core and tells its group how it ended.
    pub(super) fn clean_up(&mut self) {
        let end = self.end.take().map_or_else(End::closed, |end| *end);
        let profile = &self.endpoint.profile;
        debug!(
            client = &*profile.client,
            principal = profile.principal.name(),
            ip = profile.source_ip.map(tracing::field::display),
            cause = end.cause,
            detail = end.detail,
            "disconnected"
        );
        let mut pool = self.core.pool.borrow_mut();
        let left = self.endpoint.take_shared(None, &mut pool);
        self.endpoint.close(&mut pool);
        pool.release_inbound(self.partial_held);
        drop(pool);
        let subscribed = self.subscribed.take().unwrap_or_default();
        for filter in subscribed.filters.keys() {
            self.remove_subscription(filter);
        }
        self.core.pass_on(left, &profile.client);
        self.core.vacate(profile.live);
        // By the wall clock, which all have for other things: an instant is 16 bytes of each connection.
        let passed = self.core.clock().epoch_ms.saturating_sub(profile.connected_at_ms);
        self.core.metrics.disconnected(end.cause, Duration::from_millis(passed));
        let Some(record) = profile.record else {
            self.core.announce_end(profile, end.reason);
            self.core.flush();
            return;
        };
        let group = GroupId::from(record.group);
        let (session, epoch) = (record.session, record.epoch);
        let _ = self.core.shared.groups.signal(Signal::Detach { group, session, epoch });
        let will = if end.will && self.will_is_allowed() {
            WillAction::Publish
        } else {
            WillAction::Discard
        };
        let command = shard::Disconnect {
            client: Bytes::copy_from_slice(profile.client.as_bytes()),
            epoch,
            at: self.core.read_clock().epoch_ms,
            expiry_secs: Some(self.expiry),
            will: will.into(),
            by: self.core.shared.mesh.own.0,
            reason: end.reason.into(),
            heard: self.core.shared.hears_presence(&profile.client),
        };
        let command = shard::Command::from(command).encoded();
        self.core.propose_acknowledged();
        self.core.propose(Proposal::owed(group, command));
        self.core.flush();
    }

    /// Whether there is a will and the policy lets it be published now.
    fn will_is_allowed(&self) -> bool {
        let profile = &self.endpoint.profile;
        let Some(will) = &profile.will else { return false };
        let policy = self.endpoint.policy();
        if !policy.depends_on_time() {
            return !self.endpoint.will_denied.get();
        }
        let request = identity::connect_request(profile, self.core.read_clock());
        identity::may_publish(&policy, &will.topic, will.retain, &request).is_ok()
    }

    /// Takes a filter off this core, and off the node's index when it was the last.
    pub(super) fn remove_subscription(&self, filter: &str) {
        let profile = &self.endpoint.profile;
        let index = &self.core.shared.interest;
        match topic::parse_subscription(filter) {
            Ok(topic::Subscription::Shared(share)) => {
                index.share(share, &profile.client, |member| {
                    (member.live, member.permissions) = (None, None);
                });
            }
            _ => {
                let changed = self.core.routes.borrow_mut().unsubscribe(filter, profile.live.slot);
                if changed.now != changed.before {
                    index.set(filter, Destination::Core(self.core.id), changed.now);
                }
            }
        }
    }
}
