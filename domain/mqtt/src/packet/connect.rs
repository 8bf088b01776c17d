//! CONNECT: who is there, how it wants to be served, and its will.

use std::borrow::Cow;

use crate::codec::{
    Reader, check_response_topic, put_binary, put_packet, put_properties, put_string, put_u16,
};
use crate::property::{Gathered, PropertyReader, WILL};
use crate::{ConnectError, DecodeError, PacketType, PropertyId, QoS, Version};

/// The first packet of a connection. Fields that 3.1.1 does not have hold their defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The protocol the client speaks.
    pub version: Version,
    /// Forget an earlier session; 3.1.1 calls it clean session, and there it also says that
    /// the session ends with the connection.
    pub clean_start: bool,
    /// Seconds after which silence is suspicious; 0 is never.
    pub keep_alive: u16,
    /// Empty when the server is to choose one.
    pub client_id: &'a str,
    /// The user name.
    pub username: Option<&'a str>,
    /// The password.
    pub password: Option<&'a [u8]>,
    /// What is published when the connection ends badly.
    pub will: Option<Will<'a>>,
    /// Seconds the session outlives the connection; `u32::MAX` is for ever, absent is 0.
    pub session_expiry: Option<u32>,
    /// QoS 1 and 2 publications the client takes at once.
    pub receive_maximum: u16,
    /// The largest packet the client takes, in bytes.
    pub maximum_packet_size: Option<u32>,
    /// The highest topic alias the client takes.
    pub topic_alias_maximum: u16,
    /// Whether CONNACK may carry response information.
    pub request_response_information: bool,
    /// Whether packets other than PUBLISH, CONNACK and DISCONNECT may carry a reason string
    /// [v5 MQTT-3.1.2-29].
    pub request_problem_information: bool,
    /// The method of enhanced authentication.
    pub authentication_method: Option<&'a str>,
    /// What that method exchanges.
    pub authentication_data: Option<&'a [u8]>,
    /// User properties, encoded as on the wire; [`crate::properties`] reads them.
    pub user_properties: Cow<'a, [u8]>,
}

/// What the server publishes on the client's behalf when the connection ends badly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    /// The topic name.
    pub topic: &'a str,
    /// The application's bytes.
    pub payload: &'a [u8],
    /// The QoS it is published with.
    pub qos: QoS,
    /// To be kept for later subscribers.
    pub retain: bool,
    /// Seconds to wait, while the session lives.
    pub delay: u32,
    /// Message expiry interval in seconds.
    pub expiry: Option<u32>,
    /// As [`crate::Publish::properties`].
    pub properties: Cow<'a, [u8]>,
}

const RESERVED: u8 = 0b0000_0001;
const CLEAN_START: u8 = 0b0000_0010;
const WILL_FLAG: u8 = 0b0000_0100;
const WILL_QOS: u8 = 0b0001_1000;
const WILL_RETAIN: u8 = 0b0010_0000;
const PASSWORD: u8 = 0b0100_0000;
const USER_NAME: u8 = 0b1000_0000;

impl<'a> Connect<'a> {
    /// A CONNECT with a clean start and defaults for all the rest, for `..` to build on.
    pub const fn new(version: Version, client_id: &'a str) -> Self {
        Self {
            version,
            clean_start: true,
            keep_alive: 0,
            client_id,
            username: None,
            password: None,
            will: None,
            session_expiry: None,
            receive_maximum: u16::MAX,
            maximum_packet_size: None,
            topic_alias_maximum: 0,
            request_response_information: false,
            request_problem_information: true,
            authentication_method: None,
            authentication_data: None,
            user_properties: Cow::Borrowed(&[]),
        }
    }

    pub(crate) fn decode(body: &mut Reader<'a>) -> Result<Self, ConnectError> {
        let version = version(body).map_err(|error| ConnectError { version: None, error })?;
        Self::versioned(body, version)
            .map_err(|error| ConnectError { version: Some(version), error })
    }

    /// What follows the protocol level.
    fn versioned(body: &mut Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let flags = body.u8("connect flags")?;
        let will_qos = check_flags(flags, version)?;
        let mut connect = Self {
            clean_start: flags & CLEAN_START != 0,
            keep_alive: body.u16("keep alive")?,
            ..Connect::new(version, "")
        };
        if version == Version::V5 {
            connect.take_properties(body)?;
        }
        connect.client_id = body.string("client identifier")?;
        if flags & WILL_FLAG != 0 {
            let retain = flags & WILL_RETAIN != 0;
            connect.will = Some(Will::decode(body, version, will_qos, retain)?);
        }
        if flags & USER_NAME != 0 {
            connect.username = Some(body.string("user name")?);
        }
        if flags & PASSWORD != 0 {
            connect.password = Some(body.binary("password")?);
        }
        // A session that outlives the connection needs a name [v3 MQTT-3.1.3-8].
        if version == Version::V311 && connect.client_id.is_empty() && !connect.clean_start {
            return Err(DecodeError::ClientIdMissing);
        }
        Ok(connect)
    }

    fn take_properties(&mut self, body: &mut Reader<'a>) -> Result<(), DecodeError> {
        let mut properties = PropertyReader::of_packet(body, PacketType::Connect)?;
        let mut user = Gathered::from(&properties);
        while let Some(found) = properties.next()? {
            let value = found.value;
            match found.id {
                PropertyId::SessionExpiryInterval => self.session_expiry = Some(value.number()),
                PropertyId::ReceiveMaximum => self.receive_maximum = value.short(),
                PropertyId::MaximumPacketSize => self.maximum_packet_size = Some(value.number()),
                PropertyId::TopicAliasMaximum => self.topic_alias_maximum = value.short(),
                PropertyId::RequestResponseInformation => {
                    self.request_response_information = value.flag();
                }
                PropertyId::RequestProblemInformation => {
                    self.request_problem_information = value.flag();
                }
                PropertyId::AuthenticationMethod => {
                    self.authentication_method = Some(value.text());
                }
                PropertyId::AuthenticationData => self.authentication_data = Some(value.bytes()),
                _ => user.keep(&found),
            }
        }
        if self.authentication_data.is_some() && self.authentication_method.is_none() {
            return Err(DecodeError::AuthenticationDataAlone);
        }
        self.user_properties = user.finish();
        Ok(())
    }

    fn flags(&self) -> u8 {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        let will = self
            .will
            .as_ref()
            .map_or(0, |will| WILL_FLAG | (will.qos as u8) << 3 | bit(will.retain, WILL_RETAIN));
        will | bit(self.clean_start, CLEAN_START)
            | bit(self.password.is_some(), PASSWORD)
            | bit(self.username.is_some(), USER_NAME)
    }

    fn put(&self, out: &mut Vec<u8>) {
        let version = self.version;
        put_string(out, "MQTT");
        out.extend_from_slice(&[version as u8, self.flags()]);
        put_u16(out, self.keep_alive);
        put_properties(out, version, |p| {
            p.long(PropertyId::SessionExpiryInterval, self.session_expiry);
            let unusual = Some(self.receive_maximum).filter(|maximum| *maximum != u16::MAX);
            p.short(PropertyId::ReceiveMaximum, unusual);
            p.long(PropertyId::MaximumPacketSize, self.maximum_packet_size);
            let unusual = Some(self.topic_alias_maximum).filter(|maximum| *maximum != 0);
            p.short(PropertyId::TopicAliasMaximum, unusual);
            let unusual = self.request_response_information.then_some(true);
            p.flag(PropertyId::RequestResponseInformation, unusual);
            let unusual = (!self.request_problem_information).then_some(false);
            p.flag(PropertyId::RequestProblemInformation, unusual);
            p.text(PropertyId::AuthenticationMethod, self.authentication_method);
            p.bytes(PropertyId::AuthenticationData, self.authentication_data);
            p.raw(&self.user_properties);
        });
        put_string(out, self.client_id);
        if let Some(will) = &self.will {
            will.put(version, out);
        }
        if let Some(username) = self.username {
            put_string(out, username);
        }
        if let Some(password) = self.password {
            put_binary(out, password);
        }
    }
}

/// Protocol name and level.
fn version(body: &mut Reader<'_>) -> Result<Version, DecodeError> {
    let name = body.binary("protocol name")?;
    let level = body.u8("protocol level")?;
    match (name, level) {
        (b"MQTT", 4) => Ok(Version::V311),
        (b"MQTT", 5) => Ok(Version::V5),
        // The name that MQTT 3.1 went by.
        (b"MQTT" | b"MQIsdp", level) => Err(DecodeError::ProtocolLevel(level)),
        _ => Err(DecodeError::ProtocolName),
    }
}

/// Refuses flags that contradict each other, and tells the QoS of the will.
fn check_flags(flags: u8, version: Version) -> Result<QoS, DecodeError> {
    if flags & RESERVED != 0 {
        return Err(DecodeError::ConnectFlags(flags));
    }
    if flags & WILL_FLAG == 0 && flags & (WILL_QOS | WILL_RETAIN) != 0 {
        return Err(DecodeError::WillFlags(flags));
    }
    if version == Version::V311 && flags & (USER_NAME | PASSWORD) == PASSWORD {
        return Err(DecodeError::PasswordAlone(flags));
    }
    QoS::try_from((flags & WILL_QOS) >> 3).map_err(|_| DecodeError::WillQoS(flags))
}

impl<'a> Will<'a> {
    fn decode(
        body: &mut Reader<'a>,
        version: Version,
        qos: QoS,
        retain: bool,
    ) -> Result<Self, DecodeError> {
        let (mut delay, mut expiry, mut properties) = (0, None, Cow::Borrowed(&[][..]));
        if version == Version::V5 {
            let mut block = PropertyReader::open(body, PacketType::Connect, WILL)?;
            let mut forwarded = Gathered::from(&block);
            while let Some(found) = block.next()? {
                match found.id {
                    PropertyId::WillDelayInterval => delay = found.value.number(),
                    PropertyId::MessageExpiryInterval => expiry = Some(found.value.number()),
                    PropertyId::ResponseTopic => {
                        check_response_topic(found.value.text())?;
                        forwarded.keep(&found);
                    }
                    _ => forwarded.keep(&found),
                }
            }
            properties = forwarded.finish();
        }
        let topic = body.topic("will topic")?;
        if topic.is_empty() {
            return Err(DecodeError::TopicEmpty("will topic"));
        }
        let payload = body.binary("will payload")?;
        Ok(Self { topic, payload, qos, retain, delay, expiry, properties })
    }

    fn put(&self, version: Version, out: &mut Vec<u8>) {
        put_properties(out, version, |p| {
            p.long(PropertyId::WillDelayInterval, Some(self.delay).filter(|delay| *delay != 0));
            p.long(PropertyId::MessageExpiryInterval, self.expiry);
            p.raw(&self.properties);
        });
        put_string(out, self.topic);
        put_binary(out, self.payload);
    }
}

/// Appends a CONNECT of the version it names.
pub fn encode_connect(connect: &Connect<'_>, out: &mut Vec<u8>) {
    put_packet(out, PacketType::Connect.first_byte(), |out| connect.put(out));
}
