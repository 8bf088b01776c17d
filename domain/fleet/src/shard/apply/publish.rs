//! Publications come in: into queues, into the retained messages, or through the outbox.

use rustc_hash::FxHashMap;

use super::valid_topic;
use crate::shard::checkpoint::Changes;
use crate::shard::command::{
    ForgetOrigin, Origin, Publication, Publish, ReceiveQos2, ReleaseQos2, TrimOutbox,
};
use crate::shard::messages::Messages;
use crate::shard::queue::{Ids, RELEASED};
use crate::shard::session::Session;
use crate::shard::{Effects, Outcome, Published, Shard};

impl Shard {
    pub(super) fn publish(&mut self, command: Publish) -> Outcome {
        let Some(name) = valid_topic(&command.publication) else { return Outcome::Invalid };
        if command.origin.is_some_and(|origin| !self.first_sight(origin)) {
            return Outcome::Repeated;
        }
        if command.store_retained {
            self.retained.store(name, &command.publication);
        }
        let mut intake = Intake {
            sessions: &mut self.sessions,
            messages: &mut self.messages,
            effects: &mut self.effects,
            changes: &mut self.changes,
            publication: &command.publication,
            bytes: command.publication.bytes() as u64,
            expired: 0,
            published: Published::default(),
        };
        if command.enqueue && command.publication.qos > 0 {
            let (clients, publisher) = (&self.clients, &command.publication.publisher);
            let own = |session| clients.get(publisher) == Some(&session);
            self.index.matches(name, own, |each| {
                let retain = each.retain_as_published && command.publication.retain;
                intake.offer(each.session, each.qos, retain, || each.ids().collect());
            });
        }
        for copy in &command.directed {
            match self.clients.get(&copy.client) {
                Some(&session) => intake.offer(session, copy.qos, copy.retain, || {
                    Ids::from_slice(&copy.subscription_ids)
                }),
                None => intake.published.gone += 1,
            }
        }
        let Intake { expired, published, .. } = intake;
        self.queued = self.queued + published.queued as usize - expired;
        self.effects.expired += expired as u64;
        self.effects.dropped += u64::from(published.dropped);
        if published.queued > 0 {
            self.messages.insert(command.publication, published.queued);
        }
        Outcome::Published(published)
    }

    pub(super) fn receive_qos2(&mut self, command: ReceiveQos2) -> Outcome {
        let Some(id) = self.fenced(&command.client, command.epoch) else { return Outcome::Stale };
        let packet_id = u16::try_from(command.packet_id).unwrap_or_default();
        if packet_id == 0 || valid_topic(&command.publication).is_none() {
            return Outcome::Invalid;
        }
        let Some(session) = self.sessions.get_mut(&id) else { return Outcome::Stale };
        let Err(place) = session.inbound.binary_search(&packet_id) else {
            return Outcome::Received { duplicate: true };
        };
        session.inbound.insert(place, packet_id);
        self.changes.position(session);
        self.emit(command.publication, command.store_retained);
        Outcome::Received { duplicate: false }
    }

    pub(super) fn release_qos2(&mut self, command: ReleaseQos2) -> Outcome {
        let Some(id) = self.fenced(&command.client, command.epoch) else { return Outcome::Stale };
        let Some(session) = self.sessions.get_mut(&id) else { return Outcome::Stale };
        let packet_id = u16::try_from(command.packet_id).unwrap_or_default();
        let place = session.inbound.binary_search(&packet_id);
        if let Ok(place) = place {
            session.inbound.remove(place);
            self.changes.position(session);
        }
        Outcome::Released { known: place.is_ok() }
    }

    pub(super) fn trim_outbox(&mut self, command: TrimOutbox) -> Outcome {
        self.effects.outbox_trimmed |= self.outbox.trim(command.upto);
        Outcome::Trimmed
    }

    pub(super) fn forget_origin(&mut self, command: ForgetOrigin) -> Outcome {
        let ForgetOrigin { group, from } = command;
        let kept = (from.saturating_sub(1), u32::MAX);
        if let Some(seen) = self.watermarks.get_mut(&group).filter(|seen| **seen > kept) {
            *seen = kept;
            self.changes.watermarks.insert(group);
        }
        Outcome::Forgotten
    }

    /// Whether an outbox entry has not been seen; it has now.
    pub(super) fn first_sight(&mut self, origin: Origin) -> bool {
        let (group, place) = (origin.group, origin.place());
        if self.watermarks.get(&group).is_some_and(|&seen| place <= seen) {
            return false;
        }
        self.watermarks.insert(group, place);
        self.changes.watermarks.insert(group);
        true
    }
}

/// One publication on its way into queues. It is stored at the end, once, if any took it.
struct Intake<'a> {
    sessions: &'a mut FxHashMap<u64, Box<Session>>,
    messages: &'a mut Messages,
    effects: &'a mut Effects,
    changes: &'a mut Changes,
    publication: &'a Publication,
    bytes: u64,
    /// Entries that made room.
    expired: usize,
    published: Published,
}

impl Intake<'_> {
    fn offer(&mut self, id: u64, qos: u32, retain: bool, ids: impl FnOnce() -> Ids) {
        let qos = qos.min(self.publication.qos);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if qos == 0 {
            return;
        }
        if !session.has_room(self.bytes) {
            let now = self.publication.published_at;
            self.expired += session.drop_expired(now, self.messages, self.changes);
            if !session.has_room(self.bytes) {
                self.published.dropped += 1;
                return;
            }
        }
        let queue = &mut session.queue;
        queue.push(self.messages.next_id, qos as u8, retain, ids(), self.bytes);
        let expiry = self.publication.expires_at.unwrap_or(u64::MAX);
        queue.earliest_expiry = queue.earliest_expiry.min(expiry);
        self.changes.position(session);
        self.published.queued += 1;
        if self.effects.grown.last() != Some(&id) {
            self.effects.grown.push(id);
        }
    }
}

impl Session {
    /// Makes room in the queue of a client that is away: messages whose time is over and that were
    /// never sent [v5 MQTT-3.3.2-5]. What may have been sent stays, for its packet identifier is in
    /// use. Returns how many left.
    fn drop_expired(&mut self, now: u64, messages: &mut Messages, changes: &mut Changes) -> usize {
        if self.connected() || self.queue.earliest_expiry > now {
            return 0;
        }
        let (mut expired, mut earliest) = (Vec::new(), u64::MAX);
        for entry in self.queue.from(self.queue.sent_below) {
            match messages.get(entry.message).and_then(|each| each.expires_at) {
                Some(at) if at <= now => expired.push(entry.seq),
                Some(at) => earliest = earliest.min(at),
                None => {}
            }
        }
        for &seq in &expired {
            changes.entry(self, seq);
            if let Some(message) = self.queue.remove(seq)
                && message != RELEASED
            {
                self.queue.bytes -= messages.release(message) as u64;
            }
        }
        self.queue.earliest_expiry = earliest;
        changes.position(self);
        expired.len()
    }
}
