//! Publishes numbers on topics of its own, from whatever node; resends what was not acknowledged.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use mqtt::{AckKind, Outgoing, PacketId, QoS, Reason, Version};

use super::roamer::Roamer;
use super::{Place, link::Link};
use crate::history::Mark;
use crate::record::What;
use crate::{Dice, End, Received};

/// Publications that may be unacknowledged at once.
const WINDOW: usize = 8;

/// See the module.
pub(super) struct Publisher {
    pub(super) roamer: Roamer,
    /// Its topics, in turn, with the next number of each.
    topics: VecDeque<(String, u64)>,
    qos: QoS,
    /// How long what it publishes may last, in seconds: any of these, where there are some.
    pub(super) intervals: &'static [u32],
    /// From one publication to the next.
    pub(super) pace: Duration,
    published: Instant,
    pending: VecDeque<Pending>,
    last_id: u16,
}

/// A publication on its way to the broker.
struct Pending {
    id: PacketId,
    topic: String,
    mark: Mark,
    /// Its message expiry interval, the same however often it is sent.
    interval: Option<u32>,
    /// PUBREC has come: from now on only PUBREL is sent.
    released: bool,
}

impl Publisher {
    /// A publisher on these topics; there is at least one.
    pub(super) fn new(
        topics: impl IntoIterator<Item = String>,
        version: Version,
        qos: QoS,
        dice: &mut Dice,
    ) -> Self {
        let topics: VecDeque<_> = topics.into_iter().map(|topic| (topic, 0)).collect();
        let client_id = format!("publisher of {}", topics[0].0);
        Self {
            roamer: Roamer::new(&client_id, version, false, dice),
            topics,
            qos,
            intervals: &[],
            // The machine has more to do.
            pace: Duration::from_millis(8),
            published: Instant::now(),
            pending: VecDeque::new(),
            last_id: 0,
        }
    }

    pub(super) fn live(&mut self, place: &Place<'_>) {
        while !place.is_over() && (!place.is_finishing() || !self.pending.is_empty()) {
            let Some((link, is_new)) = self.roamer.link(place) else { continue };
            if is_new {
                let resumed = resume(place, &mut self.pending, link, self.qos);
                if self.roamer.judge(place, resumed).is_none() {
                    continue;
                }
            }
            let due = self.published.elapsed() >= self.pace && self.pending.len() < WINDOW;
            if due && !place.is_finishing() {
                self.published = Instant::now();
                self.publish(place);
            }
            if let Some(received) = self.roamer.next(place, self.pace) {
                let taken = self.take(place, &received);
                if let Some(Some(release)) = self.roamer.judge(place, taken) {
                    self.roamer
                        .attempt(place, |link| link.client.acknowledge(AckKind::PubRel, release));
                }
            }
        }
    }

    fn publish(&mut self, place: &Place<'_>) {
        let id = self.new_id();
        let (topic, number) = self.topics.pop_front().expect("there is at least one");
        self.topics.push_back((topic.clone(), number + 1));
        let (qos, mark) = (self.qos, Mark { number, attempt: 0 });
        let interval = match self.intervals {
            [] => None,
            some => Some(self.roamer.dice.pick(some)),
        };
        let pending = Pending { id, topic: topic.clone(), mark, interval, released: false };
        // First the note, then the deed: what may have been sent counts as sent.
        pending.note_interval(place);
        place.recorder.note(What::Published { topic, number, qos });
        self.roamer.attempt(place, |link| send(link, qos, &pending));
        self.pending.push_back(pending);
    }

    fn new_id(&mut self) -> PacketId {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            let id = PacketId::new(self.last_id).expect("it is never zero");
            if self.pending.iter().all(|pending| pending.id != id) {
                return id;
            }
        }
    }

    /// What came; gives what is to be released.
    fn take(&mut self, place: &Place<'_>, got: &Received) -> Result<Option<PacketId>, End> {
        let unexpected = || End::fault(format!("unexpected {got:?}"));
        let &Received::Ack { kind, id, reason } = got else { return unexpected() };
        // Acknowledgements come in the order of what they acknowledge [v5 MQTT-4.6.0-2].
        let first = match (kind, self.qos) {
            (AckKind::PubAck, QoS::AtLeastOnce) | (AckKind::PubComp, QoS::ExactlyOnce) => 0,
            (AckKind::PubRec, QoS::ExactlyOnce) => {
                self.pending.iter().take_while(|pending| pending.released).count()
            }
            _ => return unexpected(),
        };
        let Some(pending) = self.pending.get_mut(first).filter(|pending| pending.id == id) else {
            let waiting: Vec<_> = self.pending.iter().map(|it| (it.id, it.released)).collect();
            return End::fault(format!("unexpected {got:?} while waiting for {waiting:?}"));
        };
        let (topic, number) = (pending.topic.clone(), pending.mark.number);
        if kind == AckKind::PubComp {
            // A release that is repeated may find that it was done before.
            let done = reason == Reason::PacketIdentifierNotFound;
            if !pending.released || (reason.is_error() && !done) {
                return unexpected();
            }
            self.pending.remove(first);
            return Ok(None);
        }
        if reason.is_error() {
            place.recorder.note(What::Refused { topic, number });
            self.pending.remove(first);
            return Ok(None);
        }
        place.recorder.note(What::Acknowledged { topic, number });
        if kind == AckKind::PubRec {
            pending.released = true;
            return Ok(Some(id));
        }
        self.pending.remove(first);
        Ok(None)
    }
}

impl Pending {
    fn note_interval(&self, place: &Place<'_>) {
        if let Some(interval) = self.interval {
            let (topic, Mark { number, attempt }) = (self.topic.clone(), self.mark);
            place.recorder.note(What::Expiring { topic, number, attempt, interval });
        }
    }
}

/// Sends again what was not acknowledged, in its order [v5 MQTT-4.4.0-1].
fn resume(
    place: &Place<'_>,
    pending: &mut VecDeque<Pending>,
    link: &mut Link,
    qos: QoS,
) -> Result<(), End> {
    for it in pending {
        if it.released {
            link.client.acknowledge(AckKind::PubRel, it.id)?;
        } else {
            it.mark.attempt += 1;
            it.note_interval(place);
            send(link, qos, it)?;
        }
    }
    Ok(())
}

fn send(link: &mut Link, qos: QoS, pending: &Pending) -> Result<(), End> {
    let payload = pending.mark.payload(60);
    let (packet_id, dup) = (Some(pending.id), pending.mark.attempt > 0);
    let expiry = pending.interval;
    let publish =
        Outgoing { packet_id, qos, dup, expiry, ..Outgoing::new(&pending.topic, &payload) };
    link.client.publish(&publish)
}
