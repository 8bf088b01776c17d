//! CONNACK: whether the connection stands, and what this server offers on it.

use crate::codec::{Reader, put_packet, put_properties};
use crate::property::PropertyReader;
use crate::reason::Sender;
use crate::{DecodeError, PacketType, PropertyId, QoS, Reason, Version};

/// The answer to CONNECT. `None` leaves a property out, which stands for the specification's
/// default; 3.1.1 has only the first two fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// The session existed before. Never sent along with a refusal [v5 MQTT-3.2.2-6].
    pub session_present: bool,
    /// Whether the connection stands.
    pub reason: Reason,
    /// Seconds the session outlives the connection, when not what the client asked for.
    pub session_expiry: Option<u32>,
    /// QoS 1 and 2 publications the server takes at once; default 65 535.
    pub receive_maximum: Option<u16>,
    /// The highest QoS the server takes, when that is not 2.
    pub maximum_qos: Option<QoS>,
    /// Whether retained publications are supported; default yes.
    pub retain_available: Option<bool>,
    /// The largest packet the server takes, in bytes.
    pub maximum_packet_size: Option<u32>,
    /// The identifier the server chose for a client that sent none.
    pub assigned_client_id: Option<&'a str>,
    /// The highest topic alias the server takes; default 0.
    pub topic_alias_maximum: Option<u16>,
    /// The reason in words, for people.
    pub reason_string: Option<&'a str>,
    /// User properties, encoded as on the wire.
    pub user_properties: &'a [u8],
    /// Whether filters may contain wildcards; default yes.
    pub wildcard_available: Option<bool>,
    /// Whether subscription identifiers are supported; default yes.
    pub subscription_ids_available: Option<bool>,
    /// Whether shared subscriptions are supported; default yes.
    pub shared_available: Option<bool>,
    /// The keep alive in force, in seconds, when not what the client asked for.
    pub server_keep_alive: Option<u16>,
    /// The prefix of response topics.
    pub response_information: Option<&'a str>,
    /// Another server to use.
    pub server_reference: Option<&'a str>,
    /// The method of enhanced authentication.
    pub authentication_method: Option<&'a str>,
    /// What that method exchanges.
    pub authentication_data: Option<&'a [u8]>,
}

impl ConnAck<'_> {
    /// A CONNACK without properties, for `..` to build on.
    pub const fn new(reason: Reason) -> Self {
        Self {
            session_present: false,
            reason,
            session_expiry: None,
            receive_maximum: None,
            maximum_qos: None,
            retain_available: None,
            maximum_packet_size: None,
            assigned_client_id: None,
            topic_alias_maximum: None,
            reason_string: None,
            user_properties: &[],
            wildcard_available: None,
            subscription_ids_available: None,
            shared_available: None,
            server_keep_alive: None,
            response_information: None,
            server_reference: None,
            authentication_method: None,
            authentication_data: None,
        }
    }
}

impl<'a> ConnAck<'a> {
    pub(crate) fn decode(body: &mut Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let packet = PacketType::ConnAck;
        let flags = body.u8("acknowledge flags")?;
        if flags > 1 {
            return Err(DecodeError::ConnAckFlags(flags));
        }
        let reason = match version {
            Version::V5 => body.reason(packet, Sender::Server)?,
            Version::V311 => {
                let code = body.u8("return code")?;
                Reason::from_connack_v311(code).ok_or(DecodeError::ReasonCode { packet, code })?
            }
        };
        if flags == 1 && reason.is_error() {
            return Err(DecodeError::SessionPresent);
        }
        let mut connack = Self { session_present: flags == 1, ..ConnAck::new(reason) };
        if version == Version::V5 {
            connack.take_properties(body)?;
        }
        Ok(connack)
    }

    fn take_properties(&mut self, body: &mut Reader<'a>) -> Result<(), DecodeError> {
        let mut properties = PropertyReader::of_packet(body, PacketType::ConnAck)?;
        while let Some(found) = properties.next()? {
            let value = found.value;
            match found.id {
                PropertyId::SessionExpiryInterval => self.session_expiry = Some(value.number()),
                PropertyId::ReceiveMaximum => self.receive_maximum = Some(value.short()),
                PropertyId::MaximumQoS => {
                    let qos = if value.flag() { QoS::AtLeastOnce } else { QoS::AtMostOnce };
                    self.maximum_qos = Some(qos);
                }
                PropertyId::RetainAvailable => self.retain_available = Some(value.flag()),
                PropertyId::MaximumPacketSize => self.maximum_packet_size = Some(value.number()),
                PropertyId::AssignedClientIdentifier => {
                    self.assigned_client_id = Some(value.text());
                }
                PropertyId::TopicAliasMaximum => self.topic_alias_maximum = Some(value.short()),
                PropertyId::ReasonString => self.reason_string = Some(value.text()),
                PropertyId::WildcardSubscriptionAvailable => {
                    self.wildcard_available = Some(value.flag());
                }
                PropertyId::SubscriptionIdentifierAvailable => {
                    self.subscription_ids_available = Some(value.flag());
                }
                PropertyId::SharedSubscriptionAvailable => {
                    self.shared_available = Some(value.flag());
                }
                PropertyId::ServerKeepAlive => self.server_keep_alive = Some(value.short()),
                PropertyId::ResponseInformation => self.response_information = Some(value.text()),
                PropertyId::ServerReference => self.server_reference = Some(value.text()),
                PropertyId::AuthenticationMethod => {
                    self.authentication_method = Some(value.text());
                }
                PropertyId::AuthenticationData => self.authentication_data = Some(value.bytes()),
                _ => {}
            }
        }
        Ok(())
    }

    fn put(&self, version: Version, out: &mut Vec<u8>) {
        out.push(u8::from(self.session_present && !self.reason.is_error()));
        out.push(match version {
            Version::V311 => self.reason.connack_v311(),
            Version::V5 => self.reason.code(),
        });
        put_properties(out, version, |p| {
            p.long(PropertyId::SessionExpiryInterval, self.session_expiry);
            p.short(PropertyId::ReceiveMaximum, self.receive_maximum);
            // QoS 2 is said by leaving the property out [v5 3.2.2.3.4].
            let below = self.maximum_qos.filter(|qos| *qos != QoS::ExactlyOnce);
            p.flag(PropertyId::MaximumQoS, below.map(|qos| qos == QoS::AtLeastOnce));
            p.flag(PropertyId::RetainAvailable, self.retain_available);
            p.long(PropertyId::MaximumPacketSize, self.maximum_packet_size);
            p.text(PropertyId::AssignedClientIdentifier, self.assigned_client_id);
            p.short(PropertyId::TopicAliasMaximum, self.topic_alias_maximum);
            p.text(PropertyId::ReasonString, self.reason_string);
            p.flag(PropertyId::WildcardSubscriptionAvailable, self.wildcard_available);
            p.flag(PropertyId::SubscriptionIdentifierAvailable, self.subscription_ids_available);
            p.flag(PropertyId::SharedSubscriptionAvailable, self.shared_available);
            p.short(PropertyId::ServerKeepAlive, self.server_keep_alive);
            p.text(PropertyId::ResponseInformation, self.response_information);
            p.text(PropertyId::ServerReference, self.server_reference);
            p.text(PropertyId::AuthenticationMethod, self.authentication_method);
            p.bytes(PropertyId::AuthenticationData, self.authentication_data);
            p.raw(self.user_properties);
        });
    }
}

/// Appends a CONNACK.
pub fn encode_connack(version: Version, connack: &ConnAck<'_>, out: &mut Vec<u8>) {
    put_packet(out, PacketType::ConnAck.first_byte(), |out| connack.put(version, out));
}
