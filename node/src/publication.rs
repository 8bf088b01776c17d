//! A publication on its way through a core: borrowed from where it was read, shared only when
//! something has to keep it.

use std::cell::OnceCell;

use bytes::Bytes;
use mqtt::QoS;

use crate::outbox::SHARE_FROM;

/// One application message with what routing needs to know of it.
#[derive(Debug)]
pub struct Publication<'a> {
    /// Topic name, resolved from its alias.
    pub topic: &'a str,
    payload: &'a [u8],
    shared: OnceCell<Bytes>,
    /// The MQTT 5 properties that travel unaltered, as encoded.
    pub properties: &'a [u8],
    /// QoS of the publisher.
    pub qos: QoS,
    /// RETAIN flag of the publisher.
    pub retain: bool,
    /// When it loses its meaning, in milliseconds of the epoch.
    pub expires_at: Option<u64>,
    /// Client id of the publisher; empty for the broker itself and for REST.
    pub publisher: &'a str,
    /// Milliseconds of the epoch.
    pub published_at: u64,
}

impl<'a> Publication<'a> {
    /// A publication whose payload lies in a buffer that will be used again.
    pub fn borrowed(topic: &'a str, payload: &'a [u8], qos: QoS, retain: bool) -> Self {
        Self {
            topic,
            payload,
            shared: OnceCell::new(),
            properties: &[],
            qos,
            retain,
            expires_at: None,
            publisher: "",
            published_at: 0,
        }
    }

    /// A publication that something else keeps already.
    pub fn kept(kept: &'a Kept) -> Self {
        let shared = OnceCell::from(kept.payload.clone());
        Self {
            topic: kept.topic(),
            payload: &kept.payload,
            shared,
            properties: &kept.properties,
            qos: qos_of(kept.qos),
            retain: kept.retain,
            expires_at: kept.expires_at,
            publisher: std::str::from_utf8(&kept.publisher).unwrap_or_default(),
            published_at: kept.published_at,
        }
    }

    /// A publication in a batch that a peer has sent.
    pub fn from_peer(of: &links::Publication<'a>) -> Self {
        Self {
            topic: std::str::from_utf8(of.topic).unwrap_or_default(),
            payload: of.payload,
            shared: OnceCell::new(),
            properties: of.properties,
            qos: qos_of(of.qos),
            retain: of.retain,
            expires_at: of.expires_at,
            publisher: std::str::from_utf8(of.publisher).unwrap_or_default(),
            published_at: of.published_at,
        }
    }

    /// What a batch for a peer has of it.
    pub fn to_peer(&self) -> links::Publication<'a> {
        links::Publication {
            topic: self.topic.as_bytes(),
            payload: self.payload,
            properties: self.properties,
            qos: self.qos as u32,
            retain: self.retain,
            expires_at: self.expires_at,
            publisher: self.publisher.as_bytes(),
            published_at: self.published_at,
        }
    }

    /// The payload.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Its size in bytes, as a command to a group counts it.
    pub fn bytes(&self) -> usize {
        self.topic.len() + self.payload.len() + self.properties.len()
    }

    /// The payload as bytes that sockets share, when it is large enough to be worth it.
    pub fn large_payload(&self) -> Option<Bytes> {
        (self.payload.len() >= SHARE_FROM).then(|| self.shared_payload())
    }

    /// The payload, copied at most once however many takers keep it.
    pub fn shared_payload(&self) -> Bytes {
        self.shared.get_or_init(|| Bytes::copy_from_slice(self.payload)).clone()
    }

    /// Something that can be kept, queued and sent elsewhere.
    pub fn keep(&self) -> Kept {
        Kept {
            topic: Bytes::copy_from_slice(self.topic.as_bytes()),
            payload: self.shared_payload(),
            properties: Bytes::copy_from_slice(self.properties),
            qos: self.qos as u32,
            retain: self.retain,
            expires_at: self.expires_at,
            publisher: Bytes::copy_from_slice(self.publisher.as_bytes()),
            published_at: self.published_at,
        }
    }

    /// Whole seconds it has left at `now_ms`: `None` when it never expires, `Some(None)` when it has
    /// [v5 MQTT-3.3.2-5, MQTT-3.3.2-6].
    pub fn remaining(&self, now_ms: u64) -> Option<Option<u32>> {
        self.expires_at.map(|at| {
            let left = at.checked_sub(now_ms).filter(|left| *left > 0)?;
            Some(u32::try_from(left.div_ceil(1000)).unwrap_or(u32::MAX))
        })
    }
}

/// The QoS that a stored or sent number means; it was written from one.
pub fn qos_of(qos: u32) -> QoS {
    u8::try_from(qos).ok().and_then(|qos| QoS::try_from(qos).ok()).unwrap_or_default()
}

/// A publication that is kept: the form the replicated state uses too.
pub type Kept = fleet::shard::Publication;

/// The topic of a kept publication as text.
pub trait KeptTopic {
    /// Topic name; it was validated when it came in.
    fn topic(&self) -> &str;
}

impl KeptTopic for Kept {
    fn topic(&self) -> &str {
        std::str::from_utf8(&self.topic).unwrap_or_default()
    }
}
