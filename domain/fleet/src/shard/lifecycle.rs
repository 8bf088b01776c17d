//! Lifecycle events: what `$aws/events/presence/…` and `$aws/events/subscriptions/…` say.

use serde::Serialize;
use uuid::Uuid;

use super::command::{DisconnectReason, Event, Presence, Publication};

/// Bytes of a topic name, at most [MQTT-4.7.3-3].
const TOPIC_BYTES: usize = 65_535;

impl Event {
    /// The topic of such an event of a client; none where there cannot be one.
    pub fn topic(self, client: &str) -> Option<String> {
        let topic = format!("$aws/events/{}/{}/{client}", self.family(), self.name());
        (topic.len() <= TOPIC_BYTES && !client.contains(['#', '+'])).then_some(topic)
    }

    fn family(self) -> &'static str {
        match self {
            Self::Connected | Self::Disconnected | Self::ConnectFailed => "presence",
            Self::Subscribed | Self::Unsubscribed => "subscriptions",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::Subscribed => "subscribed",
            Self::Unsubscribed => "unsubscribed",
            Self::ConnectFailed => "connect_failed",
        }
    }
}

impl DisconnectReason {
    /// As events name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ServerError => "SERVER_ERROR",
            Self::ClientInitiatedDisconnect => "CLIENT_INITIATED_DISCONNECT",
            Self::ConnectionLost => "CONNECTION_LOST",
            Self::DuplicateClientid => "DUPLICATE_CLIENTID",
            Self::MqttKeepAliveTimeout => "MQTT_KEEP_ALIVE_TIMEOUT",
            Self::ClientError => "CLIENT_ERROR",
            Self::ForbiddenAccess => "FORBIDDEN_ACCESS",
            Self::AuthError => "AUTH_ERROR",
            Self::ServerInitiatedDisconnect => "SERVER_INITIATED_DISCONNECT",
            Self::ApiInitiatedDisconnect => "API_INITIATED_DISCONNECT",
            Self::Throttled => "THROTTLED",
            Self::CustomauthTtlExpiration => "CUSTOMAUTH_TTL_EXPIRATION",
        }
    }
}

/// Who a connection is, as it is kept with its session.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Who {
    pub(super) session: Uuid,
    pub(super) principal: Box<str>,
    pub(super) thing: Option<Box<str>>,
}

impl Who {
    /// None when the session's identifier is no UUID.
    pub(super) fn new(presence: &Presence) -> Option<Self> {
        Some(Self {
            session: Uuid::from_slice(&presence.session).ok()?,
            principal: presence.principal.as_str().into(),
            thing: presence.thing.as_deref().map(Into::into),
        })
    }

    /// As it is stored.
    pub(super) fn presence(&self) -> Presence {
        Presence {
            session: self.session.as_bytes().to_vec().into(),
            principal: self.principal.to_string(),
            thing: self.thing.as_ref().map(ToString::to_string),
            ip: None,
        }
    }
}

/// What one event says beside who it is about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Told<'a> {
    /// `versionNumber` and from where.
    Connected(u64, Option<&'a str>),
    /// `versionNumber` and why.
    Disconnected(u64, DisconnectReason),
    Subscribed(&'a [String]),
    Unsubscribed(&'a [String]),
    /// From where.
    ConnectFailed(Option<&'a str>),
}

impl Told<'_> {
    fn event(self) -> Event {
        match self {
            Self::Connected(..) => Event::Connected,
            Self::Disconnected(..) => Event::Disconnected,
            Self::Subscribed(_) => Event::Subscribed,
            Self::Unsubscribed(_) => Event::Unsubscribed,
            Self::ConnectFailed(_) => Event::ConnectFailed,
        }
    }
}

/// In the order of AWS's examples.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    client_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    thing_name: Option<&'a str>,
    timestamp: u64,
    event_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_failure_reason: Option<&'static str>,
    session_identifier: Uuid,
    principal_identifier: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip_address: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_initiated_disconnect: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disconnect_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topics: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_number: Option<u64>,
}

/// The event as it is published; none of a client whose events have no topic.
pub(super) fn publication(
    client: &[u8],
    who: &Who,
    told: Told<'_>,
    at: u64,
) -> Option<Publication> {
    let client = std::str::from_utf8(client).ok()?;
    let topic = told.event().topic(client)?;
    let body = Body {
        client_id: client,
        thing_name: who.thing.as_deref(),
        timestamp: at,
        event_type: told.event().name(),
        session_identifier: who.session,
        principal_identifier: &who.principal,
        ..Body::default()
    };
    let body = match told {
        Told::Connected(number, ip) => {
            Body { ip_address: ip, version_number: Some(number), ..body }
        }
        Told::Disconnected(number, reason) => Body {
            client_initiated_disconnect: Some(
                reason == DisconnectReason::ClientInitiatedDisconnect,
            ),
            disconnect_reason: Some(reason.name()),
            version_number: Some(number),
            ..body
        },
        Told::Subscribed(topics) | Told::Unsubscribed(topics) => {
            Body { thing_name: None, topics: Some(topics), ..body }
        }
        Told::ConnectFailed(ip) => Body {
            thing_name: None,
            connect_failure_reason: Some("AUTHORIZATION_FAILED"),
            ip_address: ip,
            ..body
        },
    };
    Some(Publication {
        topic: topic.into(),
        payload: serde_json::to_vec(&body).ok()?.into(),
        qos: 1,
        published_at: at,
        ..Publication::default()
    })
}
