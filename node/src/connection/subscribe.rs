//! SUBSCRIBE and UNSUBSCRIBE, and the retained messages that follow.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use cluster::GroupId;
use fleet::shard::{self, Directed, Event};
use mqtt::{PacketId, QoS, Reason, RetainHandling, Subscribe, SubscribeOptions, Unsubscribe};
use policy::Action;
use smallvec::SmallVec;
use tokio::sync::oneshot;
use topic::Subscription;

use super::{Connection, End};
use crate::core::Core;
use crate::denial::Denial;
use crate::endpoint::{Delivered, DropReason, Endpoint, Lookup, Suback, Terms};
use crate::host::{Outcome, Proposal, Reply};
use crate::identity;
use crate::interest::Destination;
use crate::metrics::Asked;
use crate::publication::{Kept, Publication};

/// Comes when a command is safe or refused; fails when the node stops.
type Answer = oneshot::Receiver<Result<Outcome, cluster::Refusal>>;

impl Connection {
    pub(super) fn subscribe(&mut self, subscribe: &Subscribe<'_>) -> Result<(), End> {
        let id = subscribe.subscription_id.unwrap_or(0);
        let mut reasons: SmallVec<[Reason; 8]> = SmallVec::new();
        let mut granted = Vec::new();
        let mut retained = Vec::new();
        for (filter, options) in subscribe.filters() {
            let refusal = self.refusal(filter, options)?;
            reasons.push(refusal.unwrap_or(Reason::granted(options.qos)));
            if refusal.is_some() {
                continue;
            }
            let is_new = self.add_subscription(filter, options, id);
            granted.push(shard::Subscription {
                filter: filter.to_owned(),
                options: stored_options(options, id),
            });
            let wanted = match options.retain_handling {
                RetainHandling::OnSubscribe => true,
                RetainHandling::OnNewSubscription => is_new,
                RetainHandling::Never => false,
            };
            if wanted && !filter.starts_with("$share/") {
                let filter = filter.to_owned();
                let qos = options.qos;
                retained.push(Lookup { filter, qos, subscription_id: id, suback: None });
            }
        }
        self.core.metrics.subscribed(granted.len());
        let is_granted = !granted.is_empty();
        let names = granted.iter().map(|subscription| &*subscription.filter);
        let events = self.core.announce_filters(&self.endpoint.profile, Event::Subscribed, names);
        let safe = match self.persistent_record() {
            Some(record) if !granted.is_empty() => {
                let (group, epoch) = (record.group, record.epoch);
                let client = Bytes::copy_from_slice(self.endpoint.profile.client.as_bytes());
                let command = shard::Subscribe { client, epoch, filters: granted };
                self.uses.groups = true;
                Some(self.ask(group, command.into()))
            }
            _ => None,
        };
        let told = self.tell(events);
        let (core, endpoint) = (Rc::clone(&self.core), Rc::clone(&self.endpoint));
        let packet_id = subscribe.packet_id;
        let group = safe.as_ref().and(self.endpoint.profile.record).map(|record| record.group);
        let sync = match safe.is_none() && is_granted {
            true => core.shared.fanout.sync(None),
            false => None,
        };
        if safe.is_none() && sync.is_none() && told.is_empty() {
            answer(&core, &endpoint, packet_id, reasons, retained);
            return Ok(());
        }
        self.core.flush();
        let owed = Rc::clone(&self.subscribed.get_or_insert_default().subscribing);
        actix_rt::spawn(async move {
            let mut sync = sync;
            if let Some(safe) = safe {
                let Ok(Ok(Outcome::Shard(shard::Outcome::Subscribed(_)))) = safe.await else {
                    endpoint.doom(Reason::ImplementationSpecificError);
                    return;
                };
                sync = core.shared.fanout.sync(group);
            }
            if !all_are_safe(told).await {
                endpoint.doom(Reason::ImplementationSpecificError);
                return;
            }
            // Whoever publishes on another node after SUBACK reaches this client.
            if let Some(synced) = sync {
                synced.await;
            }
            drop(owed);
            answer(&core, &endpoint, packet_id, reasons, retained);
        });
        Ok(())
    }

    /// Why a filter is not granted; an error when asking for it is a violation.
    fn refusal(&self, filter: &str, options: SubscribeOptions) -> Result<Option<Reason>, End> {
        let Ok(subscription) = topic::parse_subscription(filter) else {
            return Ok(Some(Reason::TopicFilterInvalid));
        };
        let limits = &self.core.shared.limits;
        let plain = match subscription {
            // [v5 MQTT-3.8.3-4]
            Subscription::Shared(_) if options.no_local => return Err(End::protocol_error()),
            Subscription::Shared(share) => share.filter,
            Subscription::Plain(filter) => filter,
        };
        let filters = self.subscribed.as_ref().map(|subscribed| &subscribed.filters);
        let is_known = filters.is_some_and(|filters| filters.contains_key(filter));
        let count = filters.map_or(0, |filters| filters.len());
        let too_many = !is_known && count >= limits.subscriptions_per_connection;
        let levels = plain.split('/').count();
        if too_many || topic::is_wildcard(plain) && levels > limits.filter_levels {
            return Ok(Some(Reason::QuotaExceeded));
        }
        let policy = self.endpoint.policy();
        let request = self.core.clock().request();
        let decision = policy.decide_name(Action::Subscribe, filter, &request);
        self.endpoint.note(Action::Subscribe, filter, &request);
        let allowed = match crate::reserved::may_subscribe(plain) {
            true => Denial::check(Action::Subscribe, filter, decision),
            false => Err(Denial::reserved(Action::Subscribe, filter)),
        };
        self.core.metrics.decided(Asked::Subscribe, allowed.is_ok());
        if let Err(denial) = allowed {
            denial.tell(&self.endpoint.profile, self.core.clock().now);
            return Ok(Some(Reason::NotAuthorized));
        }
        Ok(None)
    }

    /// Makes a granted subscription known on this core and to publishers on others. True when the
    /// session did not have it.
    pub(super) fn add_subscription(
        &mut self,
        filter: &str,
        options: SubscribeOptions,
        subscription_id: u32,
    ) -> bool {
        let profile = &self.endpoint.profile;
        let index = &self.core.shared.interest;
        let filters = &mut self.subscribed.get_or_insert_default().filters;
        let kept = filters.get_key_value(filter).map(|(kept, _)| Arc::clone(kept));
        let filter = kept.unwrap_or_else(|| filter.into());
        if let Ok(Subscription::Shared(share)) = topic::parse_subscription(&filter) {
            index.share(share, &profile.client, |member| {
                member.live = Some(profile.live);
                member.permissions = Some(self.endpoint.permissions());
                member.qos = options.qos;
                member.retain_as_published = options.retain_as_published;
                member.subscription_ids =
                    Some(subscription_id).filter(|id| *id != 0).into_iter().collect();
            });
        } else {
            let mut routes = self.core.routes.borrow_mut();
            let session = (profile.live.slot, profile.persistent);
            let changed = routes.subscribe(Arc::clone(&filter), session, options, subscription_id);
            drop(routes);
            if changed.now != changed.before {
                index.set(Arc::clone(&filter), Destination::Core(self.core.id), changed.now);
            }
        }
        filters.insert(filter, options.qos).is_none()
    }

    pub(super) fn unsubscribe(&mut self, unsubscribe: &Unsubscribe<'_>) -> Result<(), End> {
        let mut reasons: SmallVec<[Reason; 8]> = SmallVec::new();
        let mut filters = Vec::new();
        for filter in unsubscribe.filters() {
            let known =
                self.subscribed.as_mut().is_some_and(|it| it.filters.remove(filter).is_some());
            reasons.push(match (known, topic::parse_subscription(filter)) {
                (true, _) => Reason::Success,
                (false, Ok(_)) => Reason::NoSubscriptionExisted,
                (false, Err(_)) => Reason::TopicFilterInvalid,
            });
            if known {
                self.remove_subscription(filter);
                let of = Some(filter);
                let left = self.endpoint.take_shared(of, &mut self.core.pool.borrow_mut());
                self.core.pass_on(left, &self.endpoint.profile.client);
                filters.push(filter.to_owned());
            }
        }
        let (core, endpoint) = (Rc::clone(&self.core), Rc::clone(&self.endpoint));
        let (packet_id, version) = (unsubscribe.packet_id, self.version());
        let answer = move |core: &Core, endpoint: &Endpoint| {
            send_answer(core, endpoint, |out| {
                mqtt::encode_unsuback(version, packet_id, &reasons, None, out);
            });
        };
        let names = filters.iter().map(String::as_str);
        let events = core.announce_filters(&endpoint.profile, Event::Unsubscribed, names);
        let mut safe = Vec::new();
        if let Some(record) = self.persistent_record().filter(|_| !filters.is_empty()) {
            let client = Bytes::copy_from_slice(endpoint.profile.client.as_bytes());
            let (epoch, sent_below) = (record.epoch, endpoint.sent_below());
            let command = shard::Unsubscribe { client, epoch, filters, sent_below };
            self.uses.groups = true;
            safe.push(self.ask(record.group, command.into()));
        }
        safe.extend(self.tell(events));
        if safe.is_empty() {
            answer(&core, &endpoint);
            return Ok(());
        }
        self.core.flush();
        actix_rt::spawn(async move {
            match all_are_safe(safe).await {
                true => answer(&core, &endpoint),
                false => endpoint.doom(Reason::ImplementationSpecificError),
            }
        });
        Ok(())
    }

    /// Proposes what those who listen are told.
    fn tell(&mut self, events: Vec<shard::Command>) -> Vec<Answer> {
        let group = self.core.shared.group_of(&self.endpoint.profile.client);
        if !events.is_empty() {
            self.uses.add_outbox(group);
        }
        events.into_iter().map(|event| self.ask(group, event)).collect()
    }

    /// Proposes a command whose outcome is waited for.
    fn ask(&self, group: u16, command: shard::Command) -> Answer {
        let (answer, outcome) = oneshot::channel();
        let reply = Reply::Once(answer);
        self.core.propose(Proposal::asked(group.into(), command.encoded(), reply));
        outcome
    }
}

/// Whether everything that was proposed is in the log.
async fn all_are_safe(answers: Vec<Answer>) -> bool {
    for answer in answers {
        if !matches!(answer.await, Ok(Ok(_))) {
            return false;
        }
    }
    true
}

fn send_suback(core: &Core, endpoint: &Endpoint, id: PacketId, reasons: &[Reason]) {
    let version = endpoint.profile.version;
    send_answer(core, endpoint, |out| mqtt::encode_suback(version, id, reasons, None, out));
}

/// Sends an answer that cannot be shortened, and ends the connection of a client that does not take
/// packets of its size [v5 MQTT-3.1.2-24].
fn send_answer(core: &Core, endpoint: &Endpoint, encode: impl FnOnce(&mut Vec<u8>)) {
    let mut packet = Vec::new();
    encode(&mut packet);
    if packet.len() > endpoint.profile.maximum_packet_size as usize {
        endpoint.doom(Reason::PacketTooLarge);
        return;
    }
    endpoint.put(&mut core.pool.borrow_mut(), |out| out.extend_from_slice(&packet));
}

fn stored_options(options: SubscribeOptions, subscription_id: u32) -> shard::Options {
    shard::Options {
        qos: options.qos as u32,
        no_local: options.no_local,
        retain_as_published: options.retain_as_published,
        retain_handling: options.retain_handling as u32,
        subscription_id,
    }
}

/// The options of a subscription that a group gives back.
pub(super) fn restored_options(options: &shard::Options) -> SubscribeOptions {
    let retain_handling = match options.retain_handling {
        1 => RetainHandling::OnNewSubscription,
        2 => RetainHandling::Never,
        _ => RetainHandling::OnSubscribe,
    };
    SubscribeOptions {
        qos: u8::try_from(options.qos).ok().and_then(|q| QoS::try_from(q).ok()).unwrap_or_default(),
        no_local: options.no_local,
        retain_as_published: options.retain_as_published,
        retain_handling,
    }
}

/// Sends SUBACK, together with the first retained messages where there may be some, so that what is
/// published after SUBACK comes after them.
fn answer(
    core: &Rc<Core>,
    endpoint: &Rc<Endpoint>,
    id: PacketId,
    reasons: SmallVec<[Reason; 8]>,
    mut retained: Vec<Lookup>,
) {
    match retained.first_mut() {
        None => send_suback(core, endpoint, id, &reasons),
        Some(first) => {
            first.suback = Some(Box::new(Suback { id, reasons }));
            send_retained(core, endpoint, retained);
        }
    }
}

/// Topics that one look at the groups passes, whether they match or not: their thread has more to do.
const VISITS: usize = 1024;

/// Sends the retained messages that new subscriptions match [v5 MQTT-3.3.1-9]: one lookup at a time
/// per connection, as fast as the client takes them.
fn send_retained(core: &Rc<Core>, endpoint: &Rc<Endpoint>, lookups: Vec<Lookup>) {
    if lookups.is_empty() || !endpoint.look_up(lookups) {
        return;
    }
    let (core, endpoint) = (Rc::clone(core), Rc::clone(endpoint));
    actix_rt::spawn(async move {
        while let Some(mut lookup) = endpoint.next_lookup() {
            let mut suback = lookup.suback.take();
            // The groups that have more, and after which topic.
            let mut places: Vec<(GroupId, Option<String>)> =
                match topic::is_wildcard(&lookup.filter) {
                    true => (1..=core.shared.shards).map(|id| (GroupId::from(id), None)).collect(),
                    false => vec![(core.shared.group_of(&lookup.filter).into(), None)],
                };
            let groups = places.iter().map(|(group, _)| *group);
            if identity::catch_up(&core.shared, groups).await.is_none() {
                // SUBACK would say that nothing is kept; elsewhere it may be known.
                return endpoint.doom(Reason::ServerBusy);
            }
            while !places.is_empty() && !endpoint.is_closed() {
                let found = find_retained(&core, lookup.filter.clone(), places).await;
                let Some(found) = found else { return endpoint.doom(Reason::ServerBusy) };
                places = found.places;
                if !endpoint.profile.persistent {
                    send_waiting_suback(&core, &endpoint, &mut suback);
                }
                let mut queued = Vec::new();
                for kept in found.publications {
                    queued.extend(send_one_retained(&core, &endpoint, &lookup, &kept).await);
                }
                for answer in queued {
                    if !matches!(answer.await, Ok(Ok(_))) {
                        // SUBACK would say that it comes.
                        endpoint.doom(Reason::ImplementationSpecificError);
                    }
                }
                if endpoint.doomed().is_some() {
                    return;
                }
                // A persistent session's are in its queue now.
                send_waiting_suback(&core, &endpoint, &mut suback);
            }
            send_waiting_suback(&core, &endpoint, &mut suback);
        }
    });
}

fn send_waiting_suback(core: &Core, endpoint: &Endpoint, suback: &mut Option<Box<Suback>>) {
    if let Some(suback) = suback.take() {
        send_suback(core, endpoint, suback.id, &suback.reasons);
        endpoint.answered();
    }
}

#[derive(Default)]
struct Found {
    publications: Vec<Arc<Kept>>,
    places: Vec<(GroupId, Option<String>)>,
}

/// `None` when it cannot be found out now.
async fn find_retained(
    core: &Core,
    filter: String,
    places: Vec<(GroupId, Option<String>)>,
) -> Option<Found> {
    let found = identity::look(&core.shared, move |groups| {
        let mut found = Found::default();
        let mut visits = VISITS;
        for (group, after) in places {
            let Some(shard) = groups.get(group).and_then(crate::host::Machine::shard) else {
                continue;
            };
            if visits == 0 {
                found.places.push((group, after));
                continue;
            }
            let mut matching = shard.retained_matching(&filter, after.as_deref(), visits);
            found.publications.extend(matching.by_ref().map(|(_, kept)| Arc::clone(kept)));
            found.places.extend(matching.stopped_at().map(|last| (group, Some(last.to_owned()))));
            visits = matching.visits_left();
        }
        found
    });
    found.await
}

/// Delivers a retained message, or gives back what tells whether the session's queue has it.
async fn send_one_retained(
    core: &Rc<Core>,
    endpoint: &Rc<Endpoint>,
    lookup: &Lookup,
    kept: &Kept,
) -> Option<Answer> {
    let publication = Publication::kept(kept);
    let clock = core.read_clock();
    let topic = publication.topic;
    if endpoint.has_fresher(topic) || !endpoint.may_receive(topic, clock) {
        return None;
    }
    let ids: SmallVec<[u32; 1]> =
        Some(lookup.subscription_id).filter(|id| *id != 0).into_iter().collect();
    let qos = lookup.qos.min(publication.qos);
    if qos != QoS::AtMostOnce
        && let Some(record) = endpoint.profile.record.filter(|_| endpoint.profile.persistent)
    {
        let directed = Directed {
            client: Bytes::copy_from_slice(endpoint.profile.client.as_bytes()),
            qos: qos as u32,
            retain: true,
            subscription_ids: ids.to_vec(),
            ..Directed::default()
        };
        let command = shard::Publish {
            publication: kept.clone(),
            store_retained: false,
            enqueue: false,
            directed: vec![directed],
            origin: None,
        };
        let command = shard::Command::from(command).encoded();
        let (answer, queued) = oneshot::channel();
        let proposal = Proposal::asked(record.group.into(), command, Reply::Once(answer));
        match core.shared.groups.propose_all(vec![proposal]).await {
            Ok(()) => return Some(queued),
            // With the client's name around it, it no longer fits into a command.
            Err(refused) if refused.why == cluster::Refusal::TooLarge => {
                core.metrics.dropped(DropReason::TooLarge);
            }
            Err(_) => endpoint.doom(Reason::ImplementationSpecificError),
        }
        return None;
    }
    let terms = Terms { qos, retain: true, subscription_ids: &ids, share: None };
    let delivered = endpoint.deliver(&publication, terms, clock, &mut core.pool.borrow_mut());
    match delivered {
        Delivered::Pressed => {
            endpoint.room().await;
        }
        Delivered::Taken => core.metrics.sent(qos, publication.payload().len()),
        Delivered::Dropped(reason) => core.metrics.dropped(reason),
    }
    None
}
