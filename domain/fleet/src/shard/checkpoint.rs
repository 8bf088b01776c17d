//! What of the state goes to the store: changes since the last time, or all of it.
//!
//! Changes are noted as names and read from the state at the end, so whatever happened in between
//! is one pair; what was made and removed in between is none.

use std::collections::BTreeSet;

use super::absences::Absence;
use super::queue::Entry;
use super::session::Session;
use super::shares::Waiting;
use super::stored::{
    Key, StoredAbsence, StoredCounters, StoredEntry, StoredOutboxEntry, StoredPosition,
    StoredSession, StoredWaiting, StoredWatermark, opaque, outbox_value, value,
};
use super::{OutboxEntry, Shard};

/// Key and value of a change; no value when it is gone.
pub(super) type Change = (Vec<u8>, Option<Vec<u8>>);

/// What changed since the last checkpoint and is not noted where it lives.
#[derive(Default)]
pub(super) struct Changes {
    /// Sessions whose record or position changed.
    pub(super) sessions: Vec<u64>,
    /// Sessions of the last checkpoint that are gone.
    removed: Vec<u64>,
    /// Entries of the last checkpoint that changed or are gone.
    pub(super) entries: Vec<(u64, u64)>,
    pub(super) subscriptions: BTreeSet<(u64, Box<str>)>,
    pub(super) watermarks: BTreeSet<u64>,
    /// Sessions from it on are in no checkpoint yet.
    pub(super) sessions_below: u64,
    pub(super) counters: Option<StoredCounters>,
}

impl Changes {
    pub(super) fn record(&mut self, session: &mut Session) {
        self.touch(session);
        session.record_changed = true;
    }

    pub(super) fn position(&mut self, session: &mut Session) {
        self.touch(session);
        session.position_changed = true;
    }

    fn touch(&mut self, session: &Session) {
        if !session.record_changed && !session.position_changed {
            self.sessions.push(session.id);
        }
    }

    /// An entry changed or left; of the ones that no checkpoint holds it need not be known.
    pub(super) fn entry(&mut self, session: &Session, seq: u64) {
        if seq < session.queue.stored_below {
            self.entries.push((session.id, seq));
        }
    }

    pub(super) fn removed(&mut self, session: &Session) {
        if session.id < self.sessions_below {
            self.removed.push(session.id);
        }
        let stored =
            session.queue.from(0).take_while(|entry| entry.seq < session.queue.stored_below);
        self.entries.extend(stored.map(|entry| (session.id, entry.seq)));
    }
}

impl Shard {
    /// What changed since the last call: key and value, none when deleted.
    pub fn checkpoint(&mut self) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let mut pairs = Vec::new();
        self.settle_sessions(&mut pairs);
        self.settle_subscriptions(&mut pairs);
        self.settle_messages(&mut pairs);
        self.settle_rest(&mut pairs);
        pairs
    }

    /// The whole state as pairs, ordered by key: for a snapshot to a peer.
    pub fn dump(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut pairs = vec![(Key::Counters.bytes(), value(&self.counters()))];
        for session in self.sessions.values() {
            pairs.push((Key::Session(session.id).bytes(), record(session)));
            pairs.push((Key::Position(session.id).bytes(), position(session)));
            pairs.extend(session.subscriptions().map(|(filter, options)| {
                (Key::Subscription(session.id, filter).bytes(), value(options))
            }));
            let entries = session.queue.from(0);
            pairs.extend(
                entries.map(|each| (Key::Entry(session.id, each.seq).bytes(), entry(each))),
            );
        }
        let messages = self.messages.sorted().into_iter();
        pairs.extend(messages.map(|(id, each)| (Key::Message(id).bytes(), value(each))));
        let retained = self.retained.topics().iter();
        pairs.extend(
            retained.map(|(topic, each)| {
                (Key::Retained(topic.as_bytes()).bytes(), value(each.as_ref()))
            }),
        );
        let shadows = self.shadows.iter();
        pairs.extend(
            shadows.map(|(key, each)| (Key::Shadow(key).bytes(), opaque(&each.to_bytes()))),
        );
        let absences = self.absences.iter();
        pairs.extend(absences.map(|(client, each)| (Key::Absence(client).bytes(), absence(each))));
        let shares = self.shares.iter();
        pairs.extend(shares.map(|each| (Key::Waiting(each.1.place).bytes(), waiting(each))));
        pairs.extend(self.outbox.from(0).map(|each| (Key::Outbox(each.seq).bytes(), outbox(each))));
        pairs.extend(self.watermarks.iter().map(|(&group, &(seq, part))| {
            (Key::Watermark(group).bytes(), value(&StoredWatermark { seq, part: Some(part) }))
        }));
        pairs.sort_unstable();
        pairs
    }

    /// A fingerprint of the state (FNV-1a over [`Shard::dump`]), equal for equal states.
    pub fn digest(&self) -> u64 {
        let mut digest = 0xcbf2_9ce4_8422_2325;
        let mut add = |bytes: &[u8]| {
            for &byte in bytes.len().to_be_bytes().iter().chain(bytes) {
                digest = (digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        };
        for (key, value) in self.dump() {
            add(&key);
            add(&value);
        }
        digest
    }

    pub(super) fn counters(&self) -> StoredCounters {
        StoredCounters {
            next_session: self.next_session,
            next_epoch: self.next_epoch,
            next_message: self.messages.next_id,
            next_outbox: self.outbox.next_seq,
            // As it was written before there was any.
            next_waiting: Some(self.shares.next_place).filter(|&next| next > 1).unwrap_or(0),
        }
    }

    fn settle_sessions(&mut self, pairs: &mut Vec<Change>) {
        for id in std::mem::take(&mut self.changes.removed) {
            pairs.push((Key::Session(id).bytes(), None));
            pairs.push((Key::Position(id).bytes(), None));
        }
        // Before new entries are settled: those of this list are older.
        let mut entries = std::mem::take(&mut self.changes.entries);
        entries.sort_unstable();
        entries.dedup();
        for (id, seq) in entries {
            let present = self.sessions.get(&id).and_then(|session| session.queue.get(seq));
            pairs.push((Key::Entry(id, seq).bytes(), present.map(entry)));
        }
        let mut sessions = std::mem::take(&mut self.changes.sessions);
        sessions.sort_unstable();
        for id in sessions {
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            if std::mem::take(&mut session.record_changed) {
                pairs.push((Key::Session(id).bytes(), Some(record(session))));
            }
            if std::mem::take(&mut session.position_changed) {
                pairs.push((Key::Position(id).bytes(), Some(position(session))));
                let fresh = session.queue.from(session.queue.stored_below);
                pairs.extend(
                    fresh.map(|each| (Key::Entry(id, each.seq).bytes(), Some(entry(each)))),
                );
                session.queue.stored_below = session.queue.next_seq;
            }
        }
    }

    fn settle_subscriptions(&mut self, pairs: &mut Vec<Change>) {
        for (id, filter) in std::mem::take(&mut self.changes.subscriptions) {
            let options = self.sessions.get(&id).and_then(|each| each.subscriptions.get(&*filter));
            if options.is_some() || id < self.changes.sessions_below {
                pairs.push((Key::Subscription(id, &filter).bytes(), options.map(value)));
            }
        }
        self.changes.sessions_below = self.next_session;
    }

    fn settle_messages(&mut self, pairs: &mut Vec<Change>) {
        self.messages.settle(|id, each| pairs.push((Key::Message(id).bytes(), each.map(value))));
        self.outbox.settle(|seq, each| pairs.push((Key::Outbox(seq).bytes(), each.map(outbox))));
        self.shares.settle(|place, each| {
            pairs.push((Key::Waiting(place).bytes(), each.map(waiting)));
        });
    }

    fn settle_rest(&mut self, pairs: &mut Vec<Change>) {
        self.retained.settle(|topic, each| {
            pairs.push((Key::Retained(topic).bytes(), each.map(value)));
        });
        self.shadows.settle(|key, each| {
            let value = each.map(|record| opaque(&record.to_bytes()));
            pairs.push((Key::Shadow(key).bytes(), value));
        });
        self.absences.settle(|client, each| {
            pairs.push((Key::Absence(client).bytes(), each.map(absence)));
        });
        for group in std::mem::take(&mut self.changes.watermarks) {
            let seen = self.watermarks.get(&group);
            let value = seen.map(|&(seq, part)| value(&StoredWatermark { seq, part: Some(part) }));
            pairs.push((Key::Watermark(group).bytes(), value));
        }
        let counters = self.counters();
        if self.changes.counters.as_ref() != Some(&counters) {
            pairs.push((Key::Counters.bytes(), Some(value(&counters))));
            self.changes.counters = Some(counters);
        }
    }
}

fn record(session: &Session) -> Vec<u8> {
    let presence = session.presence.as_deref();
    value(&StoredSession {
        client: session.client.clone(),
        epoch: session.epoch,
        node: session.node,
        connected_at: session.connected_at,
        disconnected_at: session.disconnected_at,
        expiry_secs: session.expiry_secs,
        version: session.version,
        queue_limit_bytes: session.queue_limit_bytes,
        queue_limit_messages: session.queue_limit_messages,
        will: session.will.as_deref().cloned(),
        presence: presence.map(|present| present.who.presence()),
        number: presence.map_or(0, |present| present.number),
        told: presence.is_some_and(|present| present.told),
    })
}

fn absence(absence: &Absence) -> Vec<u8> {
    value(&StoredAbsence { number: absence.number, since: absence.since })
}

fn position(session: &Session) -> Vec<u8> {
    value(&StoredPosition {
        next_seq: session.queue.next_seq,
        sent_below: session.queue.sent_below,
        inbound: session.inbound.iter().copied().map(u32::from).collect(),
        earliest_expiry: session.queue.earliest_expiry,
        // As it was written before there was any.
        begun_below: Some(session.queue.begun_below()).filter(|&below| below > 1).unwrap_or(0),
    })
}

fn entry(entry: &Entry) -> Vec<u8> {
    value(&StoredEntry {
        message: entry.message,
        qos: u32::from(entry.qos),
        retain: entry.retain,
        ids: entry.ids.to_vec(),
        share: entry.share.as_deref().unwrap_or_default().to_owned(),
    })
}

fn waiting((filter, waiting, returned): (&str, Waiting, bool)) -> Vec<u8> {
    value(&StoredWaiting { filter: filter.to_owned(), message: waiting.message, returned })
}

pub(super) fn outbox(entry: &OutboxEntry) -> Vec<u8> {
    outbox_value(&StoredOutboxEntry {
        publication: entry.publication.as_ref().clone(),
        store_retained: entry.store_retained,
        share: entry.share.as_deref().cloned(),
    })
}
