//! Sessions and their queues, retained messages, shadows and the outbox of one group.
//!
//! A [`Shard`] is told what was committed, as bytes, and answers with an [`Outcome`] for whoever
//! proposed it and [`Effects`] for the node. It reads no clock: times come in commands. What it has
//! to be told to do later is in [`Shard::due`].
//!
//! Invariant: two shards that applied the same commands are equal ([`Shard::digest`]), also when
//! one of them was loaded from a checkpoint on the way.

mod absences;
mod apply;
mod backup;
mod checkpoint;
mod command;
pub mod delivery;
mod few;
mod instance;
mod lifecycle;
mod load;
mod messages;
mod outbox;
mod outcome;
mod queue;
mod retained;
mod session;
mod shadows;
mod shares;
mod stored;
mod subscribers;
#[cfg(test)]
mod tests;
mod timers;

pub use backup::{forget_later_entries, put_back_outbox};
pub use command::{
    Acknowledge, Admitted, Announce, Asked, AssignShared, BeginShared, Command, CommandError,
    Connect, DeleteShadow, Directed, Disconnect, DisconnectReason, EndConnection, EnqueueShared,
    Event, Expire, FireWill, ForgetOrigin, ForgetShared, Kind, NEVER, Options, Origin, Presence,
    Publication, Publish, PubrecReceived, ReceiveQos2, ReleaseQos2, ReleaseShared, SharedCopy,
    Subscribe, Subscription, TrimOutbox, Unsubscribe, UpdateShadow, Will, WillAction,
};
pub use instance::Instance;
pub use outbox::OutboxEntry;
pub use outcome::{
    Connected, Deletion, Effects, Held, Interest, Member, Outcome, Published, Removed,
    ShadowAnswer, Subscribed, Vacated,
};
pub use session::Session;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use rustc_hash::FxHashMap;

use self::absences::Absences;
use self::checkpoint::Changes;
use self::load::Loading;
use self::messages::Messages;
use self::outbox::Outbox;
use self::retained::Retained;
use self::shadows::Shadows;
use self::shares::Shares;
use self::subscribers::Index;
use self::timers::{Timer, Timers};

/// Why stored bytes are not part of a shard.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct LoadError(pub String);

/// A message in a session's queue.
#[derive(Clone, Copy, Debug)]
pub struct Queued<'a> {
    /// Its place in the queue.
    pub seq: u64,
    /// Quality of service of this copy: 1 or 2.
    pub qos: u8,
    /// RETAIN of this copy.
    pub retain: bool,
    /// Subscription identifiers it carries.
    pub subscription_ids: &'a [u32],
    /// None once PUBREC has come: only PUBREL is owed.
    pub publication: Option<&'a Arc<Publication>>,
}

/// The packet identifier of a queue entry: the same on every connection.
pub fn packet_id(seq: u64) -> u16 {
    (seq % 65_535) as u16 + 1
}

/// Sizes, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sessions.
    pub sessions: usize,
    /// Sessions that have a connection.
    pub connected: usize,
    /// Plain and shared subscriptions.
    pub subscriptions: usize,
    /// Queue entries of all sessions.
    pub queued: usize,
    /// Messages that queues hold, each counted once.
    pub messages: usize,
    /// Their bytes, each counted once.
    pub message_bytes: usize,
    /// Retained messages.
    pub retained: usize,
    /// Their bytes.
    pub retained_bytes: usize,
    /// Shadows, without tombstones.
    pub shadows: usize,
    /// Messages that wait for shared subscriptions.
    pub shared: usize,
    /// Outbox entries.
    pub outbox: usize,
    /// Their bytes.
    pub outbox_bytes: usize,
}

/// The state machine of one shard.
pub struct Shard {
    sessions: FxHashMap<u64, Box<Session>>,
    /// Session of each client id. Clients choose these keys, so their hash is seeded.
    clients: HashMap<Bytes, u64>,
    index: Index,
    messages: Messages,
    retained: Retained,
    shadows: Shadows,
    absences: Absences,
    outbox: Outbox,
    shares: Shares,
    /// Sessions whose queue has something of a shared subscription; a few that had may be among them.
    holding: BTreeSet<u64>,
    /// The last sequence seen of each group's outbox, and the part.
    watermarks: BTreeMap<u64, (u64, u32)>,
    timers: Timers,
    /// Counts sessions; starts at 1.
    next_session: u64,
    /// Counts claims of client ids, of all clients together, so that a token outlives its session.
    next_epoch: u64,
    connected: usize,
    subscriptions: usize,
    queued: usize,
    effects: Effects,
    changes: Changes,
    loading: Option<Box<Loading>>,
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            sessions: FxHashMap::default(),
            clients: HashMap::new(),
            index: Index::default(),
            messages: Messages::default(),
            retained: Retained::default(),
            shadows: Shadows::default(),
            absences: Absences::default(),
            outbox: Outbox::default(),
            shares: Shares::default(),
            holding: BTreeSet::new(),
            watermarks: BTreeMap::new(),
            timers: Timers::default(),
            next_session: 1,
            next_epoch: 1,
            connected: 0,
            subscriptions: 0,
            queued: 0,
            effects: Effects::default(),
            changes: Changes::default(),
            loading: None,
        }
    }
}

impl Shard {
    /// An empty shard.
    pub fn new() -> Self {
        Self::default()
    }

    /// Hands over what the commands since the last call mean for the node: `into` is emptied and
    /// swapped, so its buffers are used again.
    pub fn drain_effects(&mut self, into: &mut Effects) {
        into.clear();
        std::mem::swap(&mut self.effects, into);
    }

    /// All that this shard wants from publishers now; said once after loading.
    pub fn interests(&self) -> Vec<Interest> {
        let wanted = self.index.wanted().into_iter();
        let mut interests: Vec<_> = wanted.map(|filter| Interest::Wanted { filter }).collect();
        for id in self.sorted(|session| session.shared > 0) {
            interests.extend(self.sessions[&id].memberships().map(Interest::Joined));
        }
        interests
    }

    /// The session of a client.
    pub fn session(&self, client: &[u8]) -> Option<&Session> {
        self.session_by_id(*self.clients.get(client)?)
    }

    /// All sessions, in no order.
    pub fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.sessions.values().map(AsRef::as_ref)
    }

    /// A session by its id.
    pub fn session_by_id(&self, session: u64) -> Option<&Session> {
        self.sessions.get(&session).map(AsRef::as_ref)
    }

    /// The entries of a session's queue from a place on, in order.
    pub fn queue(&self, session: u64, from: u64) -> impl Iterator<Item = Queued<'_>> {
        let session = self.sessions.get(&session).into_iter();
        session.flat_map(move |session| session.queue.from(from)).map(|entry| Queued {
            seq: entry.seq,
            qos: entry.qos,
            retain: entry.retain,
            subscription_ids: &entry.ids,
            publication: self.messages.get(entry.message),
        })
    }

    /// The retained message of a topic; may be past its expiry.
    pub fn retained(&self, topic: &str) -> Option<&Arc<Publication>> {
        self.retained.topics().get(topic)
    }

    /// The retained messages that a valid plain filter matches, in topic order, after a topic; they
    /// may be past their expiry. Looks at no more than `visits` topics, of which any number may match:
    /// [`topic::Matching::stopped_at`] says where to go on.
    pub fn retained_matching<'a, 'f>(
        &'a self,
        filter: &'f str,
        after: Option<&str>,
        visits: usize,
    ) -> topic::Matching<'a, 'f, Arc<Publication>> {
        self.retained.topics().matching_within(filter, after, visits)
    }

    /// All retained messages in topic order, after a topic; they may be past their expiry.
    pub fn retained_after(&self, after: Option<&str>) -> impl Iterator<Item = &Arc<Publication>> {
        // No topic is empty, so this is where all of them are.
        let all = self.retained.topics().iter_after(after.unwrap_or_default());
        all.map(|(_, publication)| publication)
    }

    /// The payload of `get/accepted` for a shadow, or why not; `token` is the request's.
    pub fn get_shadow(
        &self,
        thing: &str,
        name: Option<&str>,
        token: Option<&str>,
        at: u64,
    ) -> Result<Vec<u8>, shadow::Rejected> {
        let record = self.shadows.get(&shadows::key(thing, name));
        shadow::get(record, name.unwrap_or(thing), token, at / 1000)
    }

    /// Names of a thing's named shadows, ordered, after a name.
    pub fn named_shadows(&self, thing: &str, after: Option<&str>, limit: usize) -> Vec<&str> {
        self.shadows.names(thing, after, limit)
    }

    /// Where the outbox begins: its first entry, or the next one.
    pub fn outbox_begins(&self) -> u64 {
        self.outbox.first_seq()
    }

    /// The sequence that the next outbox entry gets.
    pub fn outbox_ends(&self) -> u64 {
        self.outbox.next_seq
    }

    /// The last outbox entry of a group that was seen here; 0 for none.
    pub fn seen_of(&self, group: u64) -> u64 {
        self.watermarks.get(&group).map_or(0, |(seq, _)| *seq)
    }

    /// Outbox entries from a place on.
    pub fn outbox(&self, from: u64) -> impl Iterator<Item = &OutboxEntry> {
        self.outbox.from(from)
    }

    /// Shared subscriptions for which messages wait, how many, and the bytes of the next one; ordered,
    /// after one of them.
    pub fn waiting_after(&self, filter: &str) -> impl Iterator<Item = (&str, usize, usize)> {
        self.shares.after(filter).map(|(filter, queue)| {
            let next = queue.first().and_then(|message| self.messages.get(message));
            (filter, queue.len(), next.map_or(0, |next| next.bytes()))
        })
    }

    /// Messages on their way from here to members of a shared subscription.
    pub fn assigned(&self, filter: &str) -> usize {
        self.outbox.assigned(filter)
    }

    /// Sessions without a connection whose queue has something of a shared subscription, ordered by id,
    /// after one of them.
    pub fn holding_after(&self, session: u64) -> impl Iterator<Item = &Session> {
        let after = self.holding.range(session.saturating_add(1)..);
        let sessions = after.filter_map(|id| self.session_by_id(*id));
        sessions.filter(|session| !session.connected())
    }

    /// Sizes.
    pub fn stats(&self) -> Stats {
        Stats {
            sessions: self.sessions.len(),
            connected: self.connected,
            subscriptions: self.subscriptions,
            queued: self.queued,
            messages: self.messages.len(),
            message_bytes: self.messages.bytes,
            retained: self.retained.topics().len(),
            retained_bytes: self.retained.bytes,
            shadows: self.shadows.len(),
            shared: self.shares.len(),
            outbox: self.outbox.len(),
            outbox_bytes: self.outbox.bytes,
        }
    }

    /// Commands whose time has come, at most `limit`, earliest first. They are named again until
    /// they were applied, so ask when the last answer has been.
    pub fn due(&self, now: u64, limit: usize) -> Vec<Command> {
        let due = self.timers.iter().take_while(|&(at, ..)| at <= now).take(limit);
        due.map(|(_, id, timer)| {
            let session = &self.sessions[&id];
            let (client, epoch) = (session.client.clone(), session.epoch);
            match timer {
                Timer::Will => FireWill { client, epoch, at: now, discard: false }.into(),
                Timer::Expiry => Expire { client, epoch, at: now, discard_will: false }.into(),
            }
        })
        .collect()
    }

    /// When [`Shard::due`] will next have something.
    pub fn next_deadline(&self) -> Option<u64> {
        self.timers.iter().next().map(|(at, ..)| at)
    }

    /// What is proposed when nodes are gone, or live anew: the end of every connection that they held,
    /// with the wills published [v5 MQTT-3.1.2-8]. `is_heard` says of a client whether somebody listens
    /// for its presence.
    pub fn ends_of(
        &self,
        is_gone: impl Fn(Instance) -> bool,
        is_heard: impl Fn(&[u8]) -> bool,
        now: u64,
    ) -> Vec<Command> {
        let lost = self.sorted(|session| session.connected() && is_gone(session.holder()));
        let commands = lost.into_iter().map(|id| {
            let session = &self.sessions[&id];
            let (client, epoch) = (session.client.clone(), session.epoch);
            let (heard, will) = (is_heard(&client), WillAction::Publish.into());
            Disconnect { client, epoch, at: now, will, heard, ..Disconnect::default() }.into()
        });
        commands.collect()
    }

    /// Ids of the sessions that pass, in order.
    fn sorted(&self, pass: impl Fn(&Session) -> bool) -> Vec<u64> {
        let passing = self.sessions.values().filter(|session| pass(session));
        let mut ids: Vec<_> = passing.map(|session| session.id).collect();
        ids.sort_unstable();
        ids
    }
}
