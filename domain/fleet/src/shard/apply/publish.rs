//! Publications come in: into queues, into the retained messages, or through the outbox.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::valid_topic;
use crate::shard::checkpoint::Changes;
use crate::shard::command::{
    Directed, ForgetOrigin, Origin, Publication, Publish, ReceiveQos2, ReleaseQos2, SharedCopy,
    TrimOutbox,
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
            holding: &mut self.holding,
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
                let terms = Terms { qos: each.qos, retain, share: None };
                if intake.offer(each.session, terms, || each.ids().collect()) == Offered::Full {
                    intake.published.dropped += 1;
                }
            });
        }
        let mut passed_on = Vec::new();
        for copy in &command.directed {
            let session = self.clients.get(&copy.client).copied();
            passed_on.extend(intake.direct(session, copy));
        }
        let Intake { expired, published, .. } = intake;
        if !passed_on.is_empty() {
            let publication = Arc::new(command.publication.clone());
            for copy in passed_on {
                self.pass_on(Arc::clone(&publication), copy);
            }
        }
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
        let TrimOutbox { upto, returned } = command;
        while let Some(entry) = self.outbox.trim(upto) {
            self.effects.outbox_trimmed = true;
            if entry.is_for_anybody()
                && returned.binary_search(&entry.seq).is_ok()
                && let Some(copy) = entry.share
            {
                self.put_back(&copy.filter, entry.publication);
            }
        }
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
    holding: &'a mut BTreeSet<u64>,
    publication: &'a Publication,
    bytes: u64,
    /// Entries that made room.
    expired: usize,
    published: Published,
}

/// How a session wants a publication.
struct Terms<'a> {
    qos: u32,
    retain: bool,
    /// The shared subscription that it comes by.
    share: Option<&'a str>,
}

/// What became of an offer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Offered {
    Taken,
    /// There is no room.
    Full,
    /// The session is gone, or does not queue it.
    Unwanted,
}

impl Intake<'_> {
    /// A copy for one session. One for a member of a shared subscription that cannot keep it, or is
    /// none any more, is given back for another.
    fn direct(&mut self, session: Option<u64>, copy: &Directed) -> Option<SharedCopy> {
        let share = Some(&*copy.share).filter(|share| !share.is_empty());
        let is_member = |id: &u64| {
            let session = self.sessions.get(id);
            session.is_some_and(|it| share.is_none_or(|it_| it.subscriptions.get(it_).is_some()))
        };
        let terms = Terms { qos: copy.qos, retain: copy.retain, share };
        let offered = session
            .filter(is_member)
            .map(|session| self.offer(session, terms, || Ids::from_slice(&copy.subscription_ids)));
        match (offered, share) {
            (Some(Offered::Taken | Offered::Unwanted), _) => None,
            (_, Some(share)) => {
                self.published.passed_on += 1;
                let (filter, returned) = (share.to_owned(), copy.assigned);
                Some(SharedCopy { filter, returned, ..SharedCopy::default() })
            }
            (Some(Offered::Full), None) => {
                self.published.dropped += 1;
                None
            }
            (None, None) => {
                self.published.gone += 1;
                None
            }
        }
    }

    fn offer(&mut self, id: u64, terms: Terms<'_>, ids: impl FnOnce() -> Ids) -> Offered {
        let Terms { qos, retain, share } = terms;
        let qos = qos.min(self.publication.qos);
        let Some(session) = self.sessions.get_mut(&id) else { return Offered::Unwanted };
        if qos == 0 {
            return Offered::Unwanted;
        }
        if !session.has_room(self.bytes) {
            let now = self.publication.published_at;
            self.expired += session.drop_expired(now, self.messages, self.changes);
            if !session.has_room(self.bytes) {
                return Offered::Full;
            }
        }
        let queue = &mut session.queue;
        queue.push(self.messages.next_id, qos as u8, retain, ids(), share, self.bytes);
        let expiry = self.publication.expires_at.unwrap_or(u64::MAX);
        queue.earliest_expiry = queue.earliest_expiry.min(expiry);
        self.changes.position(session);
        self.published.queued += 1;
        if self.effects.grown.last() != Some(&id) {
            self.effects.grown.push(id);
        }
        if share.is_some() {
            self.holding.insert(id);
        }
        Offered::Taken
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
