//! From stored pairs back to a shard.
//!
//! Pairs come in any order and say less than the state holds: what is derived (the filter trie,
//! reference counts, deadlines, sums) is rebuilt at the end. Pairs that contradict each other are an
//! error, never a panic: the store is damaged and the state must come from a peer.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::absences::Absence;
use super::command::{Options, Publication};
use super::few::Few;
use super::lifecycle::Who;
use super::queue::{Entry, Queue, RELEASED};
use super::session::{Present, Session};
use super::shares::Waiting;
use super::stored::{
    COUNTER_LIMIT, Key, StoredAbsence, StoredCounters, StoredEntry, StoredOutboxEntry,
    StoredPosition, StoredSession, StoredWaiting, StoredWatermark, content, options_valid, read,
    read_outbox,
};
use super::{LoadError, OutboxEntry, Shard};

/// Pairs that make sense only together.
#[derive(Default)]
pub(super) struct Loading {
    counters: Option<StoredCounters>,
    sessions: BTreeMap<u64, StoredSession>,
    positions: BTreeMap<u64, StoredPosition>,
    subscriptions: BTreeMap<(u64, Box<str>), Options>,
    entries: BTreeMap<(u64, u64), StoredEntry>,
    messages: BTreeMap<u64, (Publication, u32)>,
    outbox: BTreeMap<u64, StoredOutboxEntry>,
    waiting: BTreeMap<u64, StoredWaiting>,
}

impl Shard {
    /// Gives back one stored pair, before any command.
    pub fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), LoadError> {
        let unknown = || LoadError(format!("key of {} bytes names nothing", key.len()));
        let loading = self.loading.get_or_insert_default();
        match Key::parse(key).ok_or_else(unknown)? {
            Key::Counters => loading.counters = Some(read(value)?),
            Key::Session(id) => drop(loading.sessions.insert(id, read(value)?)),
            Key::Position(id) => drop(loading.positions.insert(id, read(value)?)),
            Key::Subscription(id, filter) => {
                loading.subscriptions.insert((id, filter.into()), read(value)?);
            }
            Key::Entry(id, seq) => drop(loading.entries.insert((id, seq), read(value)?)),
            Key::Message(id) => drop(loading.messages.insert(id, (publication(value)?, 0))),
            Key::Outbox(seq) => drop(loading.outbox.insert(seq, read_outbox(value)?)),
            Key::Waiting(place) => drop(loading.waiting.insert(place, read(value)?)),
            Key::Watermark(group) => {
                let StoredWatermark { seq, part } = read(value)?;
                self.watermarks.insert(group, (seq, part.unwrap_or(u32::MAX)));
            }
            Key::Retained(topic) => self.load_retained(topic, value)?,
            Key::Shadow(key) => {
                let record = shadow::Record::from_bytes(content(value)?);
                let record = record.map_err(|error| LoadError(error.to_string()))?;
                self.shadows.restore(key, record);
            }
            Key::Absence(client) => {
                let StoredAbsence { number, since } = read(value)?;
                below(number, COUNTER_LIMIT, "connection")?;
                self.absences.restore(Bytes::copy_from_slice(client), Absence { number, since });
            }
        }
        Ok(())
    }

    /// After the last [`Shard::load`], before the log is replayed.
    pub fn loaded(&mut self) -> Result<(), LoadError> {
        let Some(mut loading) = self.loading.take() else { return Ok(()) };
        let counters = loading.checked_counters()?;
        self.next_session = counters.next_session;
        self.next_epoch = counters.next_epoch;
        for (id, stored) in std::mem::take(&mut loading.sessions) {
            let session = loading.session(id, stored, &counters)?;
            self.restore_session(session)?;
        }
        loading.nothing_left()?;
        self.restore_shares(&mut loading, counters.next_waiting.max(1))?;
        for (id, (publication, references)) in loading.messages {
            below(id, counters.next_message, "message")?;
            match references {
                0 => self.messages.orphan(id),
                _ => self.messages.restore(id, publication, references),
            }
        }
        self.messages.restored(counters.next_message);
        self.restore_outbox(loading.outbox, counters.next_outbox)?;
        self.changes.sessions_below = counters.next_session;
        self.changes.counters = Some(counters);
        Ok(())
    }

    fn load_retained(&mut self, topic: &[u8], value: &[u8]) -> Result<(), LoadError> {
        let publication = publication(value)?;
        if publication.topic != topic {
            return Err(LoadError("retained message of another topic".into()));
        }
        let name = publication.topic.clone();
        let name = std::str::from_utf8(&name).map_err(|error| LoadError(error.to_string()))?;
        self.retained.restore(name, Arc::new(publication));
        Ok(())
    }

    fn restore_session(&mut self, mut session: Session) -> Result<(), LoadError> {
        let id = session.id;
        for (filter, &options) in session.subscriptions.iter() {
            match topic::parse_subscription(filter) {
                Ok(topic::Subscription::Plain(filter)) => {
                    self.index.insert(filter, id, options);
                }
                Ok(topic::Subscription::Shared(_)) => session.shared += 1,
                Err(error) => return Err(LoadError(format!("session {id}: {error}"))),
            }
        }
        self.subscriptions += session.subscriptions.len();
        self.queued += session.queue.len();
        self.connected += usize::from(session.connected());
        self.timers.arm(&session);
        if session.queue.holds_shared() {
            self.holding.insert(id);
        }
        if self.clients.insert(session.client.clone(), id).is_some() {
            return Err(LoadError(format!("session {id}: another has its client id")));
        }
        self.sessions.insert(id, Box::new(session));
        Ok(())
    }

    fn restore_shares(&mut self, loading: &mut Loading, next: u64) -> Result<(), LoadError> {
        for (place, stored) in std::mem::take(&mut loading.waiting) {
            let StoredWaiting { filter, message, returned } = stored;
            below(place, next, "message of a shared subscription")?;
            let lost = || LoadError(format!("message {message} of a shared subscription is lost"));
            let (publication, references) = loading.messages.get_mut(&message).ok_or_else(lost)?;
            *references += 1;
            let (bytes, expiry) = (publication.bytes() as u64, publication.expires_at);
            self.shares.restore(&filter, Waiting { place, message }, returned, bytes, expiry);
        }
        self.shares.restored(next);
        Ok(())
    }

    fn restore_outbox(
        &mut self,
        entries: BTreeMap<u64, StoredOutboxEntry>,
        next_seq: u64,
    ) -> Result<(), LoadError> {
        for (seq, StoredOutboxEntry { publication, store_retained, share }) in entries {
            below(seq, next_seq, "outbox entry")?;
            named(&publication)?;
            let publication = Arc::new(publication);
            let share = share.map(Box::new);
            if !self.outbox.restore(OutboxEntry { seq, publication, store_retained, share }) {
                return Err(LoadError(format!("gap before outbox entry {seq}")));
            }
        }
        match self.outbox.restored(next_seq) {
            true => Ok(()),
            false => Err(LoadError("gap at the end of the outbox".into())),
        }
    }
}

impl Loading {
    fn checked_counters(&self) -> Result<StoredCounters, LoadError> {
        let counters = self.counters.clone().unwrap_or(StoredCounters {
            next_session: 1,
            next_epoch: 1,
            next_message: 1,
            next_outbox: 1,
            next_waiting: 0,
        });
        let StoredCounters { next_session, next_epoch, next_message, next_outbox, next_waiting } =
            counters;
        below(next_waiting, COUNTER_LIMIT, "counter")?;
        for next in [next_session, next_epoch, next_message, next_outbox] {
            if next == 0 {
                return Err(LoadError("counter at zero".into()));
            }
            below(next, COUNTER_LIMIT, "counter")?;
        }
        Ok(counters)
    }

    /// Puts a session together from its record, position, subscriptions and entries.
    fn session(
        &mut self,
        id: u64,
        stored: StoredSession,
        counters: &StoredCounters,
    ) -> Result<Session, LoadError> {
        below(id, counters.next_session, "session")?;
        below(stored.epoch, counters.next_epoch, "epoch")?;
        let missing = || LoadError(format!("session {id} has no position"));
        let position = self.positions.remove(&id).ok_or_else(missing)?;
        below(position.next_seq, COUNTER_LIMIT, "queue position")?;
        let mut inbound = Vec::with_capacity(position.inbound.len());
        for &packet_id in &position.inbound {
            inbound.push(u16::try_from(packet_id).map_err(|error| LoadError(error.to_string()))?);
        }
        if !inbound.is_sorted_by(|one, next| one < next) {
            return Err(LoadError(format!("session {id}: packet identifiers out of order")));
        }
        if let Some(will) = &stored.will {
            named(&will.publication)?;
        }
        below(stored.number, COUNTER_LIMIT, "connection")?;
        let (number, told) = (stored.number, stored.told);
        let who = stored.presence.as_ref().and_then(Who::new);
        let present = who.map(|who| Box::new(Present { who, number, told }));
        let mut session = Session {
            id,
            client: stored.client,
            epoch: stored.epoch,
            ended_epoch: 0,
            node: stored.node,
            connected_at: stored.connected_at,
            disconnected_at: stored.disconnected_at,
            expiry_secs: stored.expiry_secs,
            version: stored.version,
            queue_limit_messages: stored.queue_limit_messages,
            queue_limit_bytes: stored.queue_limit_bytes,
            will: stored.will.map(Box::new),
            presence: present,
            subscriptions: self.subscriptions_of(id)?,
            shared: 0,
            inbound,
            queue: Queue::restored(
                position.next_seq,
                position.sent_below,
                position.begun_below.max(1),
                position.earliest_expiry,
            ),
            record_changed: false,
            position_changed: false,
        };
        self.fill(&mut session)?;
        Ok(session)
    }

    fn subscriptions_of(&mut self, id: u64) -> Result<Few<Box<str>, Options>, LoadError> {
        let mut subscriptions = Few::new();
        while let Some(first) = self.subscriptions.first_entry()
            && first.key().0 <= id
        {
            let ((owner, filter), options) = first.remove_entry();
            if owner != id || !options_valid(&options) {
                return Err(LoadError(format!("session {id}: subscription out of range")));
            }
            subscriptions.insert(filter, options);
        }
        Ok(subscriptions)
    }

    fn fill(&mut self, session: &mut Session) -> Result<(), LoadError> {
        let id = session.id;
        while let Some(first) = self.entries.first_entry()
            && first.key().0 <= id
        {
            let ((owner, seq), stored) = first.remove_entry();
            if owner != id {
                return Err(LoadError(format!("entry of session {owner}, which is not there")));
            }
            below(seq, session.queue.next_seq, "queue entry")?;
            if !stored.is_valid() {
                return Err(LoadError(format!("session {id}: entry {seq} out of range")));
            }
            let bytes = match stored.message {
                RELEASED => 0,
                message => {
                    let missing = || LoadError(format!("session {id}: entry {seq} lost message"));
                    let (publication, references) =
                        self.messages.get_mut(&message).ok_or_else(missing)?;
                    *references += 1;
                    publication.bytes() as u64
                }
            };
            let qos = stored.qos as u8;
            let entry = Entry::new(seq, stored.message, qos, stored.retain, stored.ids.into());
            let share = Some(stored.share.as_str()).filter(|share| !share.is_empty());
            session.queue.restore(entry, share, bytes);
        }
        Ok(())
    }

    /// What names a session must have found it.
    fn nothing_left(&self) -> Result<(), LoadError> {
        let left = self.positions.len() + self.subscriptions.len() + self.entries.len();
        match left {
            0 => Ok(()),
            _ => Err(LoadError(format!("{left} pairs of sessions that are not there"))),
        }
    }
}

fn publication(value: &[u8]) -> Result<Publication, LoadError> {
    let publication = read(value)?;
    named(&publication)?;
    Ok(publication)
}

/// Whoever reads the state relies on topic names being text.
fn named(publication: &Publication) -> Result<(), LoadError> {
    match publication.topic_name() {
        Some(_) => Ok(()),
        None => Err(LoadError("topic is not UTF-8".into())),
    }
}

fn below(number: u64, limit: u64, what: &str) -> Result<(), LoadError> {
    match number < limit {
        true => Ok(()),
        false => Err(LoadError(format!("{what} {number} is not below {limit}"))),
    }
}
