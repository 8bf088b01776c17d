//! Hands the entries of queues to connections, as far as their windows allow.
//!
//! Lives beside the shard on its leader and is not replicated: after a change of leader a new
//! [`Dispatcher`] starts from what the shard knows. It remembers how far the connections of its own
//! time were served, so DUP is set on what may have been sent and, but for the first connection of a
//! session after such a change, on nothing else.
//!
//! Invariant: a connection never has more entries in flight than its window, and never two with one
//! packet identifier.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::queue::RELEASED;
use super::{Publication, Shard, packet_id};

/// Places of a queue that may be in flight at once: as many as there are packet identifiers.
const SPAN: u64 = 65_535;

/// An entry on its way to a connection.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// Session id.
    pub session: u64,
    /// Its place in the queue: what [`Acknowledge`](super::Acknowledge) names.
    pub seq: u64,
    /// Packet identifier.
    pub packet_id: u16,
    /// What is sent.
    pub content: Content<'a>,
}

/// What is sent for an entry.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// PUBLISH.
    Publish {
        /// Effective quality of service: 1 or 2.
        qos: u8,
        /// May have been sent on an earlier connection.
        dup: bool,
        /// RETAIN.
        retain: bool,
        /// Subscription identifiers.
        subscription_ids: &'a [u32],
        /// The message.
        publication: &'a Arc<Publication>,
    },
    /// PUBREL again, on a resumed session.
    Release,
}

/// What is to be done about entries that were not handed out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pumped {
    /// Entries that were skipped because they are expired: acknowledge them.
    pub expired: Vec<u64>,
    /// The next entry is one of a shared subscription, of QoS 2: that it begins, and with it all before
    /// this place, has to be known before it is sent ([`BeginShared`](super::BeginShared)).
    pub begin_below: Option<u64>,
}

/// The connections of one shard's sessions; `T` is how the node reaches one.
pub struct Dispatcher<T> {
    attached: FxHashMap<u64, Attachment<T>>,
    /// Sessions that had a connection here before: its epoch, and that entries below were offered.
    served: FxHashMap<u64, (u64, u64)>,
}

/// One session that has a connection.
struct Attachment<T> {
    epoch: u64,
    target: T,
    window: usize,
    /// Entries below may have been sent on an earlier connection.
    dup_below: u64,
    /// The next entry to look at.
    cursor: u64,
    flight: Flight,
}

impl<T> Default for Dispatcher<T> {
    fn default() -> Self {
        Self { attached: FxHashMap::default(), served: FxHashMap::default() }
    }
}

impl<T> Dispatcher<T> {
    /// No connections.
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves a session from its first unacknowledged entry on; `window` is the client's receive
    /// maximum. False, and nothing happens, when the epoch is not the session's present one.
    pub fn attach(
        &mut self,
        shard: &Shard,
        session: u64,
        epoch: u64,
        window: u16,
        target: T,
    ) -> bool {
        let Some(state) = shard.session_by_id(session).filter(|state| state.epoch == epoch) else {
            return false;
        };
        if let Some(older) = self.attached.remove(&session) {
            self.served.insert(session, older.served());
        }
        // What another node has offered since is not known here.
        let here = self.served.get(&session).filter(|(epoch, _)| *epoch == state.ended_epoch);
        let dup_below = here.map_or(state.queue.sent_below, |(_, below)| *below);
        let (window, flight) = (usize::from(window), Flight::default());
        let attachment = Attachment { epoch, target, window, dup_below, cursor: 0, flight };
        self.attached.insert(session, attachment);
        true
    }

    /// Ends what [`Dispatcher::attach`] began, unless another epoch is attached.
    pub fn detach(&mut self, session: u64, epoch: u64) -> Option<T> {
        let Entry::Occupied(entry) = self.attached.entry(session) else { return None };
        if entry.get().epoch != epoch {
            return None;
        }
        let attachment = entry.remove();
        self.served.insert(session, attachment.served());
        Some(attachment.target)
    }

    /// Sessions that have a connection, in no order.
    pub fn attached(&self) -> impl Iterator<Item = u64> {
        self.attached.keys().copied()
    }

    /// The session is gone ([`Effects::removed`](super::Effects::removed)).
    pub fn forget(&mut self, session: u64) -> Option<T> {
        self.served.remove(&session);
        self.attached.remove(&session).map(|attachment| attachment.target)
    }

    /// Hands out what the window allows.
    pub fn pump(
        &mut self,
        shard: &Shard,
        session: u64,
        now: u64,
        emit: &mut impl FnMut(&T, Delivery<'_>),
    ) -> Pumped {
        let mut pumped = Pumped::default();
        let Some(attachment) = self.attached.get_mut(&session) else { return pumped };
        let Some(state) = shard.session_by_id(session) else { return pumped };
        if state.epoch != attachment.epoch || !state.connected() || !attachment.has_room() {
            return pumped;
        }
        for entry in state.queue.from(attachment.cursor) {
            let seq = entry.seq;
            if !attachment.has_room() || !attachment.flight.reaches(seq) {
                break;
            }
            let content = if entry.message == RELEASED {
                Content::Release
            } else {
                let Some(publication) = shard.messages.get(entry.message) else { continue };
                let dup = seq < attachment.dup_below;
                // A QoS 2 exchange that has begun is ended properly, or its packet identifier would
                // stay taken at the client.
                if publication.expired(now) && !(dup && entry.qos == 2) {
                    attachment.cursor = seq + 1;
                    pumped.expired.push(seq);
                    continue;
                }
                if entry.qos == 2 && state.queue.may_return(entry) {
                    let room = attachment.window - attachment.flight.len;
                    let last = state.queue.from(seq).take(room).last();
                    pumped.begin_below = last.map(|last| last.seq + 1);
                    break;
                }
                let (qos, retain, subscription_ids) = (entry.qos, entry.retain, &*entry.ids);
                Content::Publish { qos, dup, retain, subscription_ids, publication }
            };
            attachment.cursor = seq + 1;
            attachment.flight.depart(seq);
            let packet_id = packet_id(seq);
            emit(&attachment.target, Delivery { session, seq, packet_id, content });
        }
        pumped
    }

    /// An entry is done: its place in the window is free at once. Pump afterwards. False when it
    /// was not in flight.
    pub fn acknowledged(&mut self, session: u64, seq: u64) -> bool {
        let attachment = self.attached.get_mut(&session);
        attachment.is_some_and(|attachment| attachment.flight.arrive(seq))
    }

    /// Which entry a client means by a packet identifier; none when there is none in flight.
    pub fn in_flight(&self, session: u64, packet_id: u16) -> Option<u64> {
        self.attached.get(&session)?.flight.find(packet_id)
    }

    /// Whether more could be handed out: false while the client's window is full.
    pub fn has_room(&self, session: u64) -> bool {
        self.attached.get(&session).is_some_and(Attachment::has_room)
    }

    /// How the node reaches the connection of a session.
    pub fn target(&self, session: u64) -> Option<&T> {
        self.attached.get(&session).map(|attachment| &attachment.target)
    }
}

impl<T> Attachment<T> {
    fn has_room(&self) -> bool {
        self.flight.len < self.window
    }

    fn served(&self) -> (u64, u64) {
        (self.epoch, self.dup_below.max(self.cursor))
    }
}

/// Which places of a queue are in flight: a bitmap that starts at the oldest of them.
#[derive(Default)]
struct Flight {
    base: u64,
    places: VecDeque<bool>,
    len: usize,
}

impl Flight {
    /// Whether the entry's packet identifier cannot be in use.
    fn reaches(&self, seq: u64) -> bool {
        self.places.is_empty() || seq.saturating_sub(self.base) < SPAN
    }

    /// `seq` is behind everything that departed before.
    fn depart(&mut self, seq: u64) {
        if self.places.is_empty() {
            self.base = seq;
        }
        self.places.resize((seq - self.base) as usize, false);
        self.places.push_back(true);
        self.len += 1;
    }

    fn arrive(&mut self, seq: u64) -> bool {
        let Some(place) = seq.checked_sub(self.base) else { return false };
        let Some(flying @ true) = self.places.get_mut(place as usize) else { return false };
        *flying = false;
        self.len -= 1;
        while let Some(false) = self.places.front() {
            self.places.pop_front();
            self.base += 1;
        }
        true
    }

    fn find(&self, packet_id: u16) -> Option<u64> {
        let wanted = u64::from(packet_id.checked_sub(1)?);
        let distance = (wanted + SPAN - self.base % SPAN) % SPAN;
        let flying = self.places.get(distance as usize).copied().unwrap_or_default();
        (packet_id != 0 && flying).then_some(self.base + distance)
    }
}
