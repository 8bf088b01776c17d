//! What the client publishes: aliases, duplicates and the receive window.

use rustc_hash::FxHashMap;
use thiserror::Error;

use crate::{PacketId, Publish, QoS, Reason};

/// Bytes of topics that one connection may have aliases for.
const ALIAS_BYTES: usize = 128 * 1024;

/// What the broker told the client in CONNACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboundLimits {
    /// Unacknowledged QoS 1 and 2 publications from the client.
    pub receive_maximum: u16,
    /// Highest topic alias; 0 for none.
    pub topic_alias_maximum: u16,
    /// Highest QoS of a publication.
    pub maximum_qos: QoS,
}

/// Why a publication ends the connection.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Violation {
    /// [v5 MQTT-3.3.2-8, MQTT-3.3.2-9]
    #[error("topic alias {0} is outside 1 to {1}")]
    AliasOutOfRange(u16, u16),
    /// An empty topic needs an alias that was set before on this connection.
    #[error("topic alias {0} was never set")]
    AliasUnknown(u16),
    /// The topics behind the aliases take too much memory.
    #[error("the topics of the aliases are longer than {ALIAS_BYTES} bytes together")]
    AliasBytes,
    /// [v5 MQTT-3.3.4-7]
    #[error("more than {0} publications are unacknowledged")]
    ReceiveMaximum(u16),
    /// [v5 MQTT-3.2.2-11]
    #[error("QoS {0} is more than the maximum")]
    Qos(u8),
    /// A topic name is at least one character [v5 MQTT-4.7.3-1].
    #[error("the topic name is empty")]
    NoTopic,
}

impl Violation {
    /// What the client is told before its connection closes.
    pub fn reason(self) -> Reason {
        match self {
            Self::AliasOutOfRange(..) => Reason::TopicAliasInvalid,
            Self::AliasUnknown(_) | Self::NoTopic => Reason::ProtocolError,
            Self::AliasBytes => Reason::QuotaExceeded,
            Self::ReceiveMaximum(_) => Reason::ReceiveMaximumExceeded,
            Self::Qos(_) => Reason::QoSNotSupported,
        }
    }
}

/// What a PUBLISH means to the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// A publication to route.
    New,
    /// A QoS 2 publication that the broker has already: PUBREC again, nothing is routed
    /// [v5 MQTT-4.3.3-10].
    Again,
}

/// The client's half of the session on one connection.
#[derive(Debug)]
pub struct Inbound {
    limits: InboundLimits,
    /// QoS 1 and 2 publications without their last acknowledgement.
    unacknowledged: u16,
    /// Apart, because most connections never have any of it.
    kept: Option<Box<Kept>>,
}

/// What is kept of publications for later ones.
#[derive(Debug, Default)]
struct Kept {
    aliases: FxHashMap<u16, Box<str>>,
    alias_bytes: usize,
    /// QoS 2 identifiers between PUBLISH and PUBREL; small, so a list.
    unreleased: Vec<PacketId>,
}

impl Inbound {
    /// Starts a connection; `unreleased` is what a resumed session remembers.
    pub fn new(limits: InboundLimits, unreleased: Vec<PacketId>) -> Self {
        // A new connection has its whole quota [v5 4.9].
        let resumed = !unreleased.is_empty();
        let kept = resumed.then(|| Box::new(Kept { unreleased, ..Kept::default() }));
        Self { limits, unacknowledged: 0, kept }
    }

    /// Judges a PUBLISH. After `Ok(Receipt::New)` the topic is [`Inbound::topic`] of it.
    pub fn publish(&mut self, publish: &Publish<'_>) -> Result<Receipt, Violation> {
        if publish.qos > self.limits.maximum_qos {
            return Err(Violation::Qos(publish.qos as u8));
        }
        if let Some(alias) = publish.alias {
            self.learn(alias, publish.topic)?;
        } else if publish.topic.is_empty() {
            return Err(Violation::NoTopic);
        }
        let Some(id) = publish.packet_id else { return Ok(Receipt::New) };
        let is_open = |kept: &Kept| kept.unreleased.contains(&id);
        if publish.qos == QoS::ExactlyOnce && self.kept.as_deref().is_some_and(is_open) {
            return Ok(Receipt::Again);
        }
        if self.unacknowledged >= self.limits.receive_maximum {
            return Err(Violation::ReceiveMaximum(self.limits.receive_maximum));
        }
        self.unacknowledged += 1;
        if publish.qos == QoS::ExactlyOnce {
            self.kept.get_or_insert_default().unreleased.push(id);
        }
        Ok(Receipt::New)
    }

    /// The topic name of a publication that [`Inbound::publish`] accepted.
    pub fn topic<'a>(&'a self, publish: &Publish<'a>) -> &'a str {
        match publish.alias {
            Some(alias) if publish.topic.is_empty() => {
                let known = self.kept.as_ref().and_then(|kept| kept.aliases.get(&alias));
                known.map_or("", |topic| topic)
            }
            _ => publish.topic,
        }
    }

    /// The last acknowledgement of an exchange left: PUBACK, PUBCOMP, or PUBREC with an error.
    pub fn acknowledged(&mut self) {
        self.unacknowledged = self.unacknowledged.saturating_sub(1);
    }

    /// PUBREL: whether its exchange was open; its identifier is free again.
    pub fn release(&mut self, id: PacketId) -> bool {
        let Some(kept) = &mut self.kept else { return false };
        let Some(at) = kept.unreleased.iter().position(|&open| open == id) else { return false };
        kept.unreleased.swap_remove(at);
        true
    }

    /// Publications that wait for their last acknowledgement.
    pub fn unacknowledged(&self) -> u16 {
        self.unacknowledged
    }

    fn learn(&mut self, alias: u16, topic: &str) -> Result<(), Violation> {
        let maximum = self.limits.topic_alias_maximum;
        if alias == 0 || alias > maximum {
            return Err(Violation::AliasOutOfRange(alias, maximum));
        }
        let kept = self.kept.get_or_insert_default();
        if !topic.is_empty() {
            kept.alias_bytes += topic.len();
            if let Some(old) = kept.aliases.insert(alias, topic.into()) {
                kept.alias_bytes -= old.len();
            }
            if kept.alias_bytes > ALIAS_BYTES {
                return Err(Violation::AliasBytes);
            }
        } else if !kept.aliases.contains_key(&alias) {
            return Err(Violation::AliasUnknown(alias));
        }
        Ok(())
    }
}
