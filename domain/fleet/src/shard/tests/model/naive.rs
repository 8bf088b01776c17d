//! The rules of a shard, each written the way it is said.

use std::collections::{BTreeMap, BTreeSet};

use ::shadow::topic::{Operation, Reply, reply};
use ::shadow::{Limits, Record};

use super::{Seen, SessionSeen, steps};
use crate::shard::tests::*;

struct Entry {
    seq: u64,
    qos: u8,
    retain: bool,
    ids: Vec<u32>,
    /// Number and content; none when released.
    message: Option<(u64, Publication)>,
    /// The shared subscription that it comes by.
    share: Option<String>,
}

struct Known {
    id: u64,
    epoch: u64,
    connect: Connect,
    disconnected_at: Option<u64>,
    ended_at: Option<u64>,
    subscriptions: BTreeMap<String, Options>,
    inbound: BTreeSet<u16>,
    queue: Vec<Entry>,
    next_seq: u64,
    sent_below: u64,
    begun_below: u64,
}

/// An outbox entry: its place, what is published, whether it is to be retained.
type Emitted = (u64, Publication, bool, Option<SharedCopy>);

#[derive(Default)]
pub(super) struct Model {
    sessions: BTreeMap<String, Known>,
    begun: u64,
    claims: u64,
    messages: u64,
    retained: BTreeMap<String, Publication>,
    outbox: Vec<Emitted>,
    /// By shared subscription: what was returned, and what nobody had.
    waiting: BTreeMap<String, [Vec<(u64, Publication)>; 2]>,
    emitted: u64,
    seen_of: BTreeMap<u64, (u64, u32)>,
    shadows: BTreeMap<(String, Option<String>), Record>,
}

fn after(at: u64, secs: u32) -> u64 {
    at + u64::from(secs) * 1000
}

impl Known {
    fn expires_at(&self) -> Option<u64> {
        let end = self.disconnected_at?;
        (self.connect.expiry_secs != NEVER).then(|| after(end, self.connect.expiry_secs))
    }

    fn will_due(&self) -> Option<u64> {
        let will = self.connect.will.as_ref()?;
        Some(after(self.disconnected_at?, will.delay_secs.min(self.connect.expiry_secs)))
    }

    fn end_connection(&mut self, at: u64) {
        if self.disconnected_at.is_none() {
            self.disconnected_at = Some(at);
            self.sent_below = self.next_seq;
        }
    }

    fn bytes(&self) -> u64 {
        let messages = self.queue.iter().filter_map(|entry| entry.message.as_ref());
        messages.map(|(_, message)| message.bytes() as u64).sum()
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.queue.len() < self.connect.queue_limit_messages as usize
            && self.bytes() + bytes as u64 <= self.connect.queue_limit_bytes
    }

    fn offer(
        &mut self,
        number: u64,
        message: &Publication,
        qos: u32,
        retain: bool,
        ids: Vec<u32>,
        share: Option<String>,
    ) -> bool {
        if !self.has_room(message.bytes()) && self.disconnected_at.is_some() {
            let sent_below = self.sent_below;
            self.queue.retain(|entry| {
                let message_of = entry.message.as_ref().map(|(_, message)| message);
                let over = message_of.is_some_and(|it| it.expired(message.published_at));
                entry.seq < sent_below || !over
            });
        }
        if !self.has_room(message.bytes()) {
            return false;
        }
        let (seq, message) = (self.next_seq, Some((number, message.clone())));
        self.next_seq += 1;
        self.queue.push(Entry { seq, qos: qos as u8, retain, ids, message, share });
        true
    }
}

impl Model {
    pub(super) fn tell(&mut self, command: Command) -> Outcome {
        match command.kind.unwrap() {
            Kind::Connect(command) => self.connect(command),
            Kind::Disconnect(Disconnect { client, epoch, at, expiry_secs, will, .. }) => {
                self.with(&client, epoch, |model, session| {
                    session.end_connection(at);
                    session.connect.expiry_secs =
                        expiry_secs.unwrap_or(session.connect.expiry_secs);
                    if will == i32::from(WillAction::Discard) {
                        session.connect.will = None;
                    }
                    model.fire(session, at);
                    let removed = session.connect.expiry_secs == 0;
                    session.ended_at = removed.then_some(at);
                    Outcome::Disconnected { removed }
                })
            }
            Kind::Subscribe(Subscribe { client, epoch, filters }) => {
                self.with(&client, epoch, |_, session| {
                    let answers = filters.iter().map(|Subscription { filter, options }| {
                        if topic::parse_subscription(filter).is_err() {
                            return Subscribed::Invalid;
                        }
                        let options = Options { qos: options.qos.min(2), ..*options };
                        match session.subscriptions.insert(filter.clone(), options) {
                            Some(_) => Subscribed::Replaced,
                            None => Subscribed::New,
                        }
                    });
                    Outcome::Subscribed(answers.collect())
                })
            }
            Kind::Unsubscribe(Unsubscribe { client, epoch, filters, sent_below }) => {
                self.with(&client, epoch, |model, session| {
                    let mut removed = Vec::new();
                    for filter in &filters {
                        removed.push(session.subscriptions.remove(filter).is_some());
                        model.take_back(session, Some(filter), sent_below, usize::MAX);
                    }
                    Outcome::Unsubscribed(removed)
                })
            }
            Kind::EnqueueShared(command) => self.enqueue_shared(command),
            Kind::AssignShared(AssignShared { filter, member, at, most, .. }) => {
                let mut assigned = 0;
                while assigned < most {
                    let [returned, fresh] = self.waiting.entry(filter.clone()).or_default();
                    let lane = if returned.is_empty() { fresh } else { returned };
                    if lane.is_empty() {
                        break;
                    }
                    let (_, message) = lane.remove(0);
                    if message.expired(at) {
                        continue;
                    }
                    assigned += 1;
                    let (filter, member) = (filter.clone(), member.clone());
                    let copy = SharedCopy { filter, assigned: true, member, returned: true };
                    self.pass_on(message, copy);
                }
                Outcome::Assigned(assigned)
            }
            Kind::ReleaseShared(ReleaseShared { client, epoch, filter, most, .. }) => {
                self.with(&client, epoch, |model, session| match session.disconnected_at {
                    None => Outcome::Stale,
                    Some(_) => {
                        let count = model.take_back(session, Some(&filter), 0, most as usize);
                        Outcome::TakenBack(count as u32)
                    }
                })
            }
            Kind::BeginShared(BeginShared { client, epoch, below }) => {
                self.with(&client, epoch, |_, session| {
                    session.begun_below = session.begun_below.max(below.min(session.next_seq));
                    Outcome::Begun
                })
            }
            Kind::ForgetShared(ForgetShared { filter }) => {
                self.waiting.remove(&filter);
                Outcome::Forgotten
            }
            Kind::Publish(command) => self.publish(command),
            Kind::ReceiveQos2(command) => {
                let ReceiveQos2 { client, epoch, packet_id, publication, store_retained } = command;
                self.with(&client, epoch, |model, session| {
                    if packet_id == 0 {
                        return Outcome::Invalid;
                    }
                    let duplicate = !session.inbound.insert(packet_id as u16);
                    if !duplicate {
                        model.emit(publication, store_retained);
                    }
                    Outcome::Received { duplicate }
                })
            }
            Kind::ReleaseQos2(ReleaseQos2 { client, epoch, packet_id }) => {
                self.with(&client, epoch, |_, session| {
                    let known = session.inbound.remove(&(packet_id as u16));
                    Outcome::Released { known }
                })
            }
            Kind::Acknowledge(Acknowledge { client, epoch, seqs, .. }) => {
                self.with(&client, epoch, |_, session| {
                    let before = session.queue.len();
                    session.queue.retain(|entry| !seqs.contains(&entry.seq));
                    Outcome::Acknowledged { removed: (before - session.queue.len()) as u32 }
                })
            }
            Kind::PubrecReceived(PubrecReceived { client, epoch, seqs }) => {
                self.with(&client, epoch, |_, session| {
                    let owed = seqs.iter().map(|&seq| {
                        let found = session.queue.iter_mut().find(|entry| entry.seq == seq);
                        let Some(entry) = found.filter(|entry| entry.qos == 2) else {
                            return false;
                        };
                        let (retain, ids, share) = (false, Vec::new(), entry.share.take());
                        *entry = Entry { seq, qos: 2, retain, ids, message: None, share };
                        true
                    });
                    Outcome::PubrecRecorded(owed.collect())
                })
            }
            Kind::Expire(Expire { client, epoch, at, .. }) => {
                self.with(&client, epoch, |_, session| {
                    let due = session.expires_at().is_some_and(|end| end <= at);
                    session.ended_at = due.then_some(at);
                    Outcome::Due(due)
                })
            }
            Kind::FireWill(FireWill { client, epoch, at, .. }) => {
                self.with(&client, epoch, |model, session| Outcome::Due(model.fire(session, at)))
            }
            Kind::UpdateShadow(command) => self.update_shadow(command),
            Kind::DeleteShadow(command) => self.delete_shadow(command),
            Kind::TrimOutbox(TrimOutbox { upto, returned }) => {
                let is_trimmed = |entry: &mut Emitted| entry.0 <= upto;
                for (seq, message, _, share) in self.outbox.extract_if(.., is_trimmed) {
                    let given = share.filter(|copy| copy.assigned && copy.member.is_none());
                    if let Some(copy) = given.filter(|_| returned.contains(&seq)) {
                        self.messages += 1;
                        let [lane, _] = self.waiting.entry(copy.filter).or_default();
                        lane.push((self.messages, message));
                    }
                }
                Outcome::Trimmed
            }
            Kind::ForgetOrigin(ForgetOrigin { group, from }) => {
                if let Some(seen) = self.seen_of.get_mut(&group) {
                    *seen = (*seen).min((from - 1, u32::MAX));
                }
                Outcome::Forgotten
            }
            Kind::Announce(_) | Kind::EndConnection(_) => {
                unreachable!("what changes no state has tests of its own")
            }
        }
    }

    /// What the present connection of a client asks for.
    fn with(
        &mut self,
        client: &[u8],
        epoch: u64,
        act: impl FnOnce(&mut Self, &mut Known) -> Outcome,
    ) -> Outcome {
        let name = text(client);
        if self.sessions.get(&name).is_none_or(|session| session.epoch != epoch) {
            return Outcome::Stale;
        }
        let mut session = self.sessions.remove(&name).unwrap();
        let outcome = act(self, &mut session);
        match session.ended_at {
            Some(at) => {
                self.take_back(&mut session, None, 0, usize::MAX);
                self.publish_will(&mut session, at);
            }
            None => drop(self.sessions.insert(name, session)),
        }
        outcome
    }

    fn connect(&mut self, connect: Connect) -> Outcome {
        self.claims += 1;
        let (name, epoch) = (text(&connect.client), self.claims);
        let mut known = None;
        if let Some(mut session) = self.sessions.remove(&name) {
            let lives = match session.disconnected_at {
                None => session.connect.expiry_secs != 0,
                Some(_) => session.expires_at().is_none_or(|end| connect.at < end),
            };
            if lives && !connect.clean_start {
                session.end_connection(connect.at);
                self.fire(&mut session, connect.at);
                known = Some(session);
            } else {
                self.take_back(&mut session, None, 0, usize::MAX);
                self.publish_will(&mut session, connect.at);
            }
        }
        let session_present = known.is_some();
        self.begun += u64::from(!session_present);
        let mut session = known.unwrap_or_else(|| Known {
            id: self.begun,
            epoch,
            connect: connect.clone(),
            disconnected_at: None,
            ended_at: None,
            subscriptions: BTreeMap::new(),
            inbound: BTreeSet::new(),
            queue: Vec::new(),
            next_seq: 1,
            sent_below: 1,
            begun_below: 1,
        });
        (session.epoch, session.connect, session.disconnected_at) = (epoch, connect, None);
        let subscription = |(filter, options): (&String, &Options)| Subscription {
            filter: filter.clone(),
            options: *options,
        };
        let connected = Connected {
            session_present,
            session: session.id,
            epoch,
            subscriptions: session.subscriptions.iter().map(subscription).collect(),
            inbound: session.inbound.iter().copied().collect(),
        };
        self.sessions.insert(name, session);
        Outcome::Connected(connected)
    }

    /// Publishes the will if it is due.
    fn fire(&mut self, session: &mut Known, at: u64) -> bool {
        let due = session.will_due().is_some_and(|due| due <= at);
        if due {
            self.publish_will(session, at);
        }
        due
    }

    fn publish_will(&mut self, session: &mut Known, at: u64) {
        if let Some(will) = session.connect.will.take() {
            let expires_at = will.message_expiry_secs.map(|secs| after(at, secs));
            let retain = will.publication.retain;
            let publication = Publication { published_at: at, expires_at, ..will.publication };
            self.emit(publication, retain);
        }
    }

    fn publish(&mut self, command: Publish) -> Outcome {
        let message = &command.publication;
        if self.is_repeated(command.origin) {
            return Outcome::Repeated;
        }
        if command.store_retained {
            match message.payload.is_empty() {
                true => self.retained.remove(&text(&message.topic)),
                false => self.retained.insert(text(&message.topic), message.clone()),
            };
        }
        let mut published = Published::default();
        let mut copies = Vec::new();
        for (name, session) in &self.sessions {
            let own = message.publisher == session.connect.client;
            let matching: Vec<_> = session
                .subscriptions
                .iter()
                .filter(|(filter, _)| !filter.starts_with("$share/"))
                .filter(|(filter, _)| topic::matches(filter, &text(&message.topic)))
                .map(|(_, options)| options)
                .filter(|options| !(options.no_local && own))
                .collect();
            let qos = matching.iter().map(|each| each.qos).max().unwrap_or(0);
            let retain = matching.iter().any(|each| each.retain_as_published) && message.retain;
            let ids = matching.iter().map(|each| each.subscription_id).filter(|&id| id != 0);
            let mut ids: Vec<_> = ids.collect();
            ids.sort();
            if command.enqueue {
                copies.push((name.clone(), qos, retain, ids, None));
            }
        }
        for copy in &command.directed {
            let Directed { client, qos, retain, subscription_ids, share, assigned } = copy.clone();
            let share = (!share.is_empty()).then_some((share, assigned));
            copies.push((text(&client), qos, retain, subscription_ids, share));
        }
        self.messages += 1;
        let mut passed_on = Vec::new();
        for (name, qos, retain, ids, share) in copies {
            let qos = qos.min(message.qos);
            let is_member = |session: &&mut Known| {
                share.as_ref().is_none_or(|(share, _)| session.subscriptions.contains_key(share))
            };
            let session = self.sessions.get_mut(&name).filter(is_member);
            let filter = share.clone().map(|(filter, _)| filter);
            let taken = session.map(|session| {
                qos == 0 || session.offer(self.messages, message, qos, retain, ids, filter)
            });
            match (taken, share) {
                (Some(true), _) => published.queued += u32::from(qos > 0),
                (_, Some((filter, returned))) => {
                    published.passed_on += 1;
                    passed_on.push(SharedCopy { filter, returned, ..SharedCopy::default() });
                }
                (Some(false), None) => published.dropped += 1,
                (None, None) => published.gone += 1,
            }
        }
        for copy in passed_on {
            self.pass_on(message.clone(), copy);
        }
        Outcome::Published(published)
    }

    fn enqueue_shared(&mut self, command: EnqueueShared) -> Outcome {
        let message = &command.publication;
        if message.qos == 0 {
            return Outcome::Invalid;
        }
        if self.is_repeated(command.origin) {
            return Outcome::Repeated;
        }
        self.messages += 1;
        let mut published = Published::default();
        for filter in &command.filters {
            let lanes = self.waiting.entry(filter.clone()).or_default();
            let has_room = |lanes: &[Vec<(u64, Publication)>; 2]| {
                let held: Vec<_> = lanes.iter().flatten().collect();
                let bytes: usize = held.iter().map(|(_, message)| message.bytes()).sum();
                held.len() < command.limit_messages as usize
                    && (bytes + message.bytes()) as u64 <= command.limit_bytes
            };
            if !command.returned && !has_room(lanes) {
                for lane in &mut *lanes {
                    lane.retain(|(_, it)| !it.expired(message.published_at));
                }
                if !has_room(lanes) {
                    published.dropped += 1;
                    continue;
                }
            }
            lanes[usize::from(!command.returned)].push((self.messages, message.clone()));
            published.queued += 1;
        }
        Outcome::Published(published)
    }

    /// What others may have of a session's queue goes to the subscription's.
    fn take_back(
        &mut self,
        session: &mut Known,
        filter: Option<&str>,
        from: u64,
        most: usize,
    ) -> usize {
        let begun_below = session.begun_below;
        let (mut left, mut taken) = (Vec::new(), 0);
        for entry in session.queue.drain(..) {
            let wanted = entry.share.as_deref().filter(|it| filter.is_none_or(|of| of == *it));
            let begun = entry.qos == 2 && entry.seq < begun_below;
            match (wanted, &entry.message) {
                (Some(share), Some((_, message)))
                    if !begun && entry.seq >= from && taken < most =>
                {
                    taken += 1;
                    let (filter, returned) = (share.to_owned(), true);
                    let copy = SharedCopy { filter, returned, ..SharedCopy::default() };
                    self.pass_on(message.clone(), copy);
                }
                _ => left.push(entry),
            }
        }
        session.queue = left;
        taken
    }

    fn pass_on(&mut self, publication: Publication, copy: SharedCopy) {
        self.emitted += 1;
        self.outbox.push((self.emitted, publication, false, Some(copy)));
    }

    fn is_repeated(&mut self, origin: Option<Origin>) -> bool {
        let Some(Origin { group, seq, part }) = origin else { return false };
        let place = (seq, part.unwrap_or(1));
        if self.seen_of.get(&group).is_some_and(|&seen| place <= seen) {
            return true;
        }
        self.seen_of.insert(group, place);
        false
    }

    fn update_shadow(&mut self, command: UpdateShadow) -> Outcome {
        if self.is_repeated(command.origin) {
            return Outcome::Repeated;
        }
        let now = command.at / 1000;
        let limits = Limits { takes_empty: command.takes_empty, ..Limits::default() };
        let key = (command.thing.clone(), command.name.clone());
        self.forget(now);
        let change = ::shadow::parse_update(&command.payload, &limits)
            .and_then(|update| ::shadow::update(self.shadows.get(&key), &update, now, &limits));
        match change {
            Ok(change) => {
                self.say(&key, Reply::Accepted(Operation::Update), &change.accepted, command.at);
                if let Some(delta) = &change.delta {
                    self.say(&key, Reply::Delta, delta, command.at);
                }
                self.say(&key, Reply::Documents, &change.documents, command.at);
                self.shadows.insert(key, Record::Present(change.document));
                answer(200, change.accepted)
            }
            Err(rejected) => {
                if command.reply {
                    let kind = Reply::Rejected(Operation::Update);
                    self.say(&key, kind, &rejected.to_json(now), command.at);
                }
                answer(rejected.code, rejected.to_rest_json())
            }
        }
    }

    fn delete_shadow(&mut self, command: DeleteShadow) -> Outcome {
        if self.is_repeated(command.origin) {
            return Outcome::Repeated;
        }
        let now = command.at / 1000;
        let key = (command.thing.clone(), command.name.clone());
        let label = command.name.as_deref().unwrap_or(&command.thing);
        self.forget(now);
        match ::shadow::delete(self.shadows.get(&key), label, None, now) {
            Ok(deletion) => {
                let kind = Reply::Accepted(Operation::Delete);
                self.say(&key, kind, &deletion.accepted, command.at);
                self.shadows.insert(key, Record::Deleted(deletion.tombstone));
                answer(200, deletion.accepted)
            }
            Err(rejected) => {
                if command.reply {
                    let kind = Reply::Rejected(Operation::Delete);
                    self.say(&key, kind, &rejected.to_json(now), command.at);
                }
                answer(rejected.code, rejected.to_rest_json())
            }
        }
    }

    fn forget(&mut self, now: u64) {
        self.shadows.retain(|_, record| !record.is_forgotten(now));
    }

    fn say(&mut self, key: &(String, Option<String>), kind: Reply, payload: &[u8], at: u64) {
        let publication = Publication {
            topic: reply(&key.0, key.1.as_deref(), kind).into(),
            payload: Bytes::copy_from_slice(payload),
            qos: 1,
            published_at: at,
            ..Publication::default()
        };
        self.emit(publication, false);
    }

    fn emit(&mut self, publication: Publication, store_retained: bool) {
        self.emitted += 1;
        self.outbox.push((self.emitted, publication, store_retained, None));
    }

    pub(super) fn seen(&self, now: u64) -> Seen {
        let mut wanted = BTreeSet::new();
        let mut members = BTreeMap::new();
        for session in self.sessions.values() {
            for (filter, &options) in &session.subscriptions {
                match topic::parse_subscription(filter).unwrap() {
                    topic::Subscription::Plain(_) if options.qos == 0 => {}
                    topic::Subscription::Plain(_) => drop(wanted.insert(filter.clone())),
                    topic::Subscription::Shared(share) => {
                        let key = (share.name.to_owned(), share.filter.to_owned(), session.id);
                        members.insert(key, (session.disconnected_at.is_none(), options));
                    }
                }
            }
        }
        let timers = self.sessions.values().flat_map(|it| [it.will_due(), it.expires_at()]);
        let retained = self.retained.values().filter(|each| !each.expired(now));
        Seen {
            sessions: self.sessions.iter().map(|(name, it)| (name.clone(), it.seen())).collect(),
            retained: retained.cloned().collect(),
            outbox: self.outbox.clone(),
            waiting: self.waiting().map(|(filter, (_, it))| (filter.clone(), it.clone())).collect(),
            shadows: steps::THINGS
                .iter()
                .map(|it| (it.to_string(), self.documents(it, now)))
                .collect(),
            wanted,
            members,
            stats: self.stats(),
            deadline: timers.flatten().min(),
        }
    }

    fn waiting(&self) -> impl Iterator<Item = (&String, &(u64, Publication))> {
        let queues = self.waiting.iter();
        queues.flat_map(|(filter, lanes)| lanes.iter().flatten().map(move |each| (filter, each)))
    }

    fn documents(&self, thing: &str, now: u64) -> Vec<String> {
        let of_thing = self.shadows.iter().filter(|((of, _), _)| of == thing);
        let documents = of_thing.filter_map(|((thing, name), record)| {
            ::shadow::get(Some(record), name.as_ref().unwrap_or(thing), None, now / 1000).ok()
        });
        documents.map(|document| text(&document)).collect()
    }

    fn stats(&self) -> Stats {
        let entries = self.sessions.values().flat_map(|session| &session.queue);
        let messages: BTreeMap<_, _> = entries
            .filter_map(|entry| entry.message.as_ref())
            .chain(self.waiting().map(|(_, message)| message))
            .map(|(number, message)| (number, message.bytes()))
            .collect();
        let present = self.shadows.values().filter(|it| matches!(it, Record::Present(_)));
        let count = |of: fn(&Known) -> usize| self.sessions.values().map(of).sum();
        Stats {
            sessions: self.sessions.len(),
            connected: count(|session| usize::from(session.disconnected_at.is_none())),
            subscriptions: count(|session| session.subscriptions.len()),
            queued: count(|session| session.queue.len()),
            messages: messages.len(),
            message_bytes: messages.values().sum(),
            retained: 0,
            retained_bytes: 0,
            shadows: present.count(),
            shared: self.waiting().count(),
            outbox: self.outbox.len(),
            outbox_bytes: self.outbox.iter().map(|(_, message, ..)| message.bytes()).sum(),
        }
    }
}

impl Known {
    fn seen(&self) -> SessionSeen {
        let queue = self.queue.iter().map(|Entry { seq, qos, retain, ids, message, .. }| {
            let message = message.as_ref().map(|(_, message)| message.clone());
            (*seq, *qos, *retain, ids.clone(), message)
        });
        SessionSeen {
            id: self.id,
            epoch: self.epoch,
            version: self.connect.version,
            node: self.connect.node,
            expiry_secs: self.connect.expiry_secs,
            connected_at: self.connect.at,
            disconnected_at: self.disconnected_at,
            will: self.connect.will.clone(),
            subscriptions: self.subscriptions.iter().map(|(it, of)| (it.clone(), *of)).collect(),
            queue: queue.collect(),
            bytes: self.bytes(),
        }
    }
}

fn answer(code: u16, body: Vec<u8>) -> Outcome {
    Outcome::Shadow(ShadowAnswer { code, body: body.into() })
}
