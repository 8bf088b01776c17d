//! AUTH: a step of enhanced authentication, MQTT 5 only.

use crate::codec::{Reader, put_packet, put_properties};
use crate::property::PropertyReader;
use crate::reason::Sender;
use crate::{DecodeError, PacketType, PropertyId, Reason, Version};

/// One step of an authentication exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Success, continue, or re-authenticate.
    pub reason: Reason,
    /// The name of the method; `None` only in the two-byte form, which says no more than success.
    pub method: Option<&'a str>,
    /// What the method exchanges.
    pub data: Option<&'a [u8]>,
    /// The reason in words, for people.
    pub reason_string: Option<&'a str>,
}

impl<'a> Auth<'a> {
    pub(crate) fn decode(body: &mut Reader<'a>, sender: Sender) -> Result<Self, DecodeError> {
        let packet = PacketType::Auth;
        let mut auth =
            Self { reason: Reason::Success, method: None, data: None, reason_string: None };
        if body.is_empty() {
            // Stands for success, which only a server can say [v5 MQTT-3.15.2-1].
            return if Reason::Success.allowed(packet, sender) {
                Ok(auth)
            } else {
                Err(DecodeError::ReasonCode { packet, code: 0 })
            };
        }
        auth.reason = body.reason(packet, sender)?;
        let mut properties = PropertyReader::of_packet(body, packet)?;
        while let Some(found) = properties.next()? {
            match found.id {
                PropertyId::AuthenticationMethod => auth.method = Some(found.value.text()),
                PropertyId::AuthenticationData => auth.data = Some(found.value.bytes()),
                PropertyId::ReasonString => auth.reason_string = Some(found.value.text()),
                _ => {}
            }
        }
        if auth.method.is_none() {
            return Err(DecodeError::AuthenticationMethodMissing);
        }
        Ok(auth)
    }
}

/// Appends an AUTH.
pub fn encode_auth(auth: &Auth<'_>, out: &mut Vec<u8>) {
    put_packet(out, PacketType::Auth.first_byte(), |out| {
        if auth.reason == Reason::Success && auth.method.is_none() {
            return;
        }
        out.push(auth.reason.code());
        put_properties(out, Version::V5, |p| {
            p.text(PropertyId::AuthenticationMethod, auth.method);
            p.bytes(PropertyId::AuthenticationData, auth.data);
            p.text(PropertyId::ReasonString, auth.reason_string);
        });
    });
}
