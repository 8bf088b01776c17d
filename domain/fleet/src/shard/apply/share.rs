//! What shared subscriptions hold: kept, given to members, taken back.

use std::sync::Arc;

use super::valid_topic;
use crate::shard::command::{
    AssignShared, BeginShared, EnqueueShared, ForgetShared, Publication, ReleaseShared, SharedCopy,
};
use crate::shard::{Outcome, Published, Shard};

impl Shard {
    pub(super) fn enqueue_shared(&mut self, command: EnqueueShared) -> Outcome {
        let EnqueueShared { publication, filters, returned, limit_bytes, limit_messages, origin } =
            command;
        let is_shared = |filter: &String| {
            matches!(topic::parse_subscription(filter), Ok(topic::Subscription::Shared(_)))
        };
        if valid_topic(&publication).is_none()
            || publication.qos == 0
            || !filters.iter().all(is_shared)
        {
            return Outcome::Invalid;
        }
        if origin.is_some_and(|origin| !self.first_sight(origin)) {
            return Outcome::Repeated;
        }
        let (bytes, mut published) = (publication.bytes() as u64, Published::default());
        for filter in &filters {
            if !returned && !self.has_room_shared(filter, bytes, limit_messages, limit_bytes) {
                self.drop_expired_shared(filter, publication.published_at);
                if !self.has_room_shared(filter, bytes, limit_messages, limit_bytes) {
                    published.dropped += 1;
                    continue;
                }
            }
            let message = self.messages.next_id;
            self.shares.push(filter, message, returned, bytes, publication.expires_at);
            published.queued += 1;
        }
        if published.queued > 0 {
            self.messages.insert(publication, published.queued);
        }
        self.effects.dropped += u64::from(published.dropped);
        Outcome::Published(published)
    }

    pub(super) fn assign_shared(&mut self, command: AssignShared) -> Outcome {
        let AssignShared { filter, member, at, most, most_bytes } = command;
        let copy = SharedCopy { filter, assigned: true, member, returned: true };
        let (mut assigned, mut given) = (0, 0_u64);
        while assigned < most && (assigned == 0 || given < most_bytes) {
            let Some(message) = self.shares.pop(&copy.filter) else { break };
            let publication = self.messages.get(message).cloned();
            let bytes = self.messages.release(message) as u64;
            self.shares.freed(&copy.filter, bytes);
            let Some(publication) = publication else { continue };
            if publication.expired(at) {
                self.effects.expired += 1;
                continue;
            }
            assigned += 1;
            given += bytes;
            self.pass_on(publication, copy.clone());
        }
        Outcome::Assigned(assigned)
    }

    pub(super) fn release_shared(&mut self, command: ReleaseShared) -> Outcome {
        let Some(id) = self.fenced(&command.client, command.epoch) else { return Outcome::Stale };
        if self.sessions[&id].connected() {
            return Outcome::Stale;
        }
        let ReleaseShared { filter, most, most_bytes, .. } = command;
        Outcome::TakenBack(self.take_back(id, Some(&filter), 0, most, most_bytes))
    }

    pub(super) fn begin_shared(&mut self, command: BeginShared) -> Outcome {
        let Some(id) = self.fenced(&command.client, command.epoch) else { return Outcome::Stale };
        let Some(session) = self.sessions.get_mut(&id) else { return Outcome::Stale };
        let queue = &mut session.queue;
        queue.begin(command.below.min(queue.next_seq));
        self.changes.position(session);
        // There is more that may be handed out.
        self.effects.grown.push(id);
        Outcome::Begun
    }

    pub(super) fn forget_shared(&mut self, command: ForgetShared) -> Outcome {
        while let Some(message) = self.shares.pop(&command.filter) {
            let bytes = self.messages.release(message) as u64;
            self.shares.freed(&command.filter, bytes);
            self.effects.dropped += 1;
        }
        Outcome::Forgotten
    }

    /// Takes out of a session's queue what it has of a shared subscription, or of any, and others may
    /// have, from a place on; it goes to the subscription's queue. Returns how many messages that were.
    pub(super) fn take_back(
        &mut self,
        id: u64,
        filter: Option<&str>,
        from: u64,
        most: u32,
        most_bytes: u64,
    ) -> u32 {
        let Some(session) = self.sessions.get_mut(&id) else { return 0 };
        let ours = |share: &Arc<str>| filter.is_none_or(|filter| **share == *filter);
        let entries = session.queue.from(from).filter(|entry| session.queue.may_return(entry));
        let entries = entries.filter_map(|entry| {
            let share = entry.share.clone().filter(&ours)?;
            Some((entry.seq, entry.message, share))
        });
        let (mut taken, mut bytes) = (Vec::new(), 0);
        for entry in entries.take(most as usize) {
            if bytes >= most_bytes && !taken.is_empty() {
                break;
            }
            bytes += self.messages.get(entry.1).map_or(0, |message| message.bytes() as u64);
            taken.push(entry);
        }
        let mut passed = Vec::with_capacity(taken.len());
        for (seq, message, share) in taken {
            self.changes.entry(session, seq);
            session.queue.remove(seq);
            let publication = self.messages.get(message).cloned();
            session.queue.bytes -= self.messages.release(message) as u64;
            passed.extend(publication.map(|publication| (publication, share)));
        }
        if !session.queue.holds_shared() {
            self.holding.remove(&id);
        }
        self.queued -= passed.len();
        let count = passed.len() as u32;
        for (publication, share) in passed {
            self.pass_on(publication, SharedCopy::returned(&share));
        }
        count
    }

    /// Leaves a copy for a shared subscription in the outbox.
    pub(super) fn pass_on(&mut self, publication: Arc<Publication>, copy: SharedCopy) {
        self.outbox.push_copy(publication, copy);
        self.effects.outbox_grew = true;
    }

    /// Puts a message that nobody could have into the queue of its shared subscription, which had it.
    pub(super) fn put_back(&mut self, filter: &str, publication: Arc<Publication>) {
        let (message, bytes) = (self.messages.next_id, publication.bytes() as u64);
        self.shares.push(filter, message, true, bytes, publication.expires_at);
        self.messages.insert(Arc::unwrap_or_clone(publication), 1);
    }

    fn has_room_shared(&self, filter: &str, bytes: u64, messages: u32, limit_bytes: u64) -> bool {
        match self.shares.queue(filter) {
            Some(queue) => queue.has_room(bytes, messages, limit_bytes),
            None => messages > 0 && bytes <= limit_bytes,
        }
    }

    fn drop_expired_shared(&mut self, filter: &str, now: u64) {
        let messages = std::cell::RefCell::new(&mut self.messages);
        let mut expired = 0;
        self.shares.drop_expired(
            filter,
            now,
            |message| messages.borrow().get(message)?.expires_at,
            |message| {
                expired += 1;
                messages.borrow_mut().release(message) as u64
            },
        );
        self.effects.expired += expired;
    }
}

impl SharedCopy {
    /// A copy that a member had and does not keep.
    fn returned(filter: &str) -> Self {
        Self { filter: filter.to_owned(), returned: true, ..Self::default() }
    }
}
