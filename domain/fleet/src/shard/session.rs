//! What the shard knows of one client.

use bytes::Bytes;

use super::command::{NEVER, Options, Will};
use super::few::Few;
use super::instance::Instance;
use super::lifecycle::Who;
use super::outcome::Held;
use super::queue::Queue;

/// One session. It outlives connections for as long as its expiry says.
pub struct Session {
    pub(super) id: u64,
    pub(super) client: Bytes,
    pub(super) epoch: u64,
    /// That of the connection which ended last; 0 while that is not known, for it is not stored.
    pub(super) ended_epoch: u64,
    pub(super) node: u64,
    pub(super) connected_at: u64,
    pub(super) disconnected_at: Option<u64>,
    pub(super) expiry_secs: u32,
    pub(super) version: u32,
    pub(super) queue_limit_messages: u32,
    pub(super) queue_limit_bytes: u64,
    pub(super) will: Option<Box<Will>>,
    /// Its latest connection for those who listen for it; none where there are no lifecycle events.
    pub(super) presence: Option<Box<Present>>,
    pub(super) subscriptions: Few<Box<str>, Options>,
    /// How many of them are shared.
    pub(super) shared: u32,
    /// Packet identifiers of unfinished QoS 2 publications from the client, ordered.
    pub(super) inbound: Vec<u16>,
    pub(super) queue: Queue,
    /// Whether the next checkpoint writes the record.
    pub(super) record_changed: bool,
    /// Whether the next checkpoint writes the position and new entries.
    pub(super) position_changed: bool,
}

/// A connection as lifecycle events tell of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Present {
    pub(super) who: Who,
    /// Which of the client's connections it is: `versionNumber`.
    pub(super) number: u64,
    /// Whether anybody was told of the client, so that the number must not be used again.
    pub(super) told: bool,
}

impl Session {
    /// Session id.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Client id.
    pub fn client(&self) -> &Bytes {
        &self.client
    }

    /// Fencing token of its latest connection.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// MQTT protocol level.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Session expiry in seconds.
    pub fn expiry_secs(&self) -> u32 {
        self.expiry_secs
    }

    /// Whether a connection holds it.
    pub fn connected(&self) -> bool {
        self.disconnected_at.is_none()
    }

    /// Who holds its latest connection.
    pub fn holder(&self) -> Instance {
        Instance(self.node)
    }

    /// As whoever has to end its connection, or has to hear that it has ended, is told.
    pub(super) fn held(&self) -> Held {
        Held { client: self.client.clone(), epoch: self.epoch, holder: self.holder() }
    }

    /// When its latest connection began.
    pub fn connected_at(&self) -> u64 {
        self.connected_at
    }

    /// When its latest connection ended; none while connected.
    pub fn disconnected_at(&self) -> Option<u64> {
        self.disconnected_at
    }

    /// Its will, until it is published or discarded.
    pub fn will(&self) -> Option<&Will> {
        self.will.as_deref()
    }

    /// Its subscriptions, ordered by filter.
    pub fn subscriptions(&self) -> impl Iterator<Item = (&str, &Options)> {
        self.subscriptions.iter().map(|(filter, options)| (&**filter, options))
    }

    /// Entries in its queue.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Bytes in its queue.
    pub fn queued_bytes(&self) -> u64 {
        self.queue.bytes
    }

    /// When it ends if nobody connects; none while connected or when it never does.
    pub fn expires_at(&self) -> Option<u64> {
        let end = self.disconnected_at?;
        (self.expiry_secs != NEVER).then(|| later(end, self.expiry_secs))
    }

    /// When its will is published if nobody connects; none while connected. A session that ends
    /// takes its will along, whatever the delay [v5 MQTT-3.1.3.2.2].
    pub fn will_due(&self) -> Option<u64> {
        let end = self.disconnected_at?;
        let delay = self.will.as_ref()?.delay_secs.min(self.expiry_secs);
        Some(later(end, delay))
    }

    /// Messages and bytes that its queue has room for.
    pub fn room(&self) -> (usize, u64) {
        let messages = (self.queue_limit_messages as usize).saturating_sub(self.queue.len());
        (messages, self.queue_limit_bytes.saturating_sub(self.queue.bytes))
    }

    /// The shared subscriptions that messages in its queue come by.
    pub fn holds_of(&self) -> impl Iterator<Item = &str> {
        self.queue.shares()
    }

    /// Whether its queue has something of a shared subscription that another member may have.
    pub fn may_return(&self, filter: &str) -> bool {
        let mut entries = self.queue.from(0);
        entries.any(|entry| entry.share.as_deref() == Some(filter) && self.queue.may_return(entry))
    }

    /// Whether `bytes` more fit into its queue.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.queue.len() < self.queue_limit_messages as usize
            && self.queue.bytes.saturating_add(bytes) <= self.queue_limit_bytes
    }
}

/// `secs` seconds after a time in milliseconds.
pub(super) fn later(at: u64, secs: u32) -> u64 {
    at.saturating_add(u64::from(secs) * 1000)
}
