//! DISCONNECT: the last packet of a connection.

use crate::codec::{Reader, put_packet, put_properties};
use crate::property::PropertyReader;
use crate::reason::Sender;
use crate::{DecodeError, PacketType, PropertyId, Reason, Version};

/// Why a connection ends. In 3.1.1 only a client sends it, and it is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Why.
    pub reason: Reason,
    /// A client's last word on how long its session lives, in seconds.
    pub session_expiry: Option<u32>,
    /// The reason in words, for people.
    pub reason_string: Option<&'a str>,
    /// Where a server sends the client to.
    pub server_reference: Option<&'a str>,
}

impl Disconnect<'_> {
    /// A DISCONNECT that says no more than its reason.
    pub const fn new(reason: Reason) -> Self {
        Self { reason, session_expiry: None, reason_string: None, server_reference: None }
    }
}

impl<'a> Disconnect<'a> {
    pub(crate) fn decode(
        body: &mut Reader<'a>,
        version: Version,
        sender: Sender,
    ) -> Result<Self, DecodeError> {
        let packet = PacketType::Disconnect;
        if version == Version::V311 && sender == Sender::Server {
            return Err(DecodeError::Unexpected(packet));
        }
        let mut disconnect = Self::new(Reason::NORMAL_DISCONNECTION);
        if version == Version::V311 || body.is_empty() {
            return Ok(disconnect);
        }
        disconnect.reason = body.reason(packet, sender)?;
        if body.is_empty() {
            return Ok(disconnect);
        }
        let mut properties = PropertyReader::of_packet(body, packet)?;
        while let Some(found) = properties.next()? {
            match (found.id, sender) {
                (PropertyId::SessionExpiryInterval, Sender::Client) => {
                    disconnect.session_expiry = Some(found.value.number());
                }
                (PropertyId::ServerReference, Sender::Server) => {
                    disconnect.server_reference = Some(found.value.text());
                }
                (PropertyId::ReasonString, _) => {
                    disconnect.reason_string = Some(found.value.text());
                }
                (PropertyId::UserProperty, _) => {}
                (property, _) => {
                    return Err(DecodeError::PropertyFromWrongSide { property, packet });
                }
            }
        }
        Ok(disconnect)
    }
}

/// Appends a DISCONNECT in its shortest form.
pub fn encode_disconnect(version: Version, disconnect: &Disconnect<'_>, out: &mut Vec<u8>) {
    let bare = *disconnect == Disconnect::new(disconnect.reason);
    put_packet(out, PacketType::Disconnect.first_byte(), |out| {
        if version == Version::V311 || bare && disconnect.reason == Reason::NORMAL_DISCONNECTION {
            return;
        }
        out.push(disconnect.reason.code());
        if bare {
            return;
        }
        put_properties(out, version, |p| {
            p.long(PropertyId::SessionExpiryInterval, disconnect.session_expiry);
            p.text(PropertyId::ReasonString, disconnect.reason_string);
            p.text(PropertyId::ServerReference, disconnect.server_reference);
        });
    });
}
