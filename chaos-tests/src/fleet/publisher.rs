//! Publishes numbers on a topic of its own, from whatever node; resends what was not acknowledged.

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
/// From one publication to the next: the machine has more to do.
const PACE: Duration = Duration::from_millis(8);

/// See the module.
pub(super) struct Publisher {
    roamer: Roamer,
    topic: String,
    qos: QoS,
    published: Instant,
    next: u64,
    pending: VecDeque<Pending>,
    last_id: u16,
}

/// A publication on its way to the broker.
struct Pending {
    id: PacketId,
    mark: Mark,
    /// PUBREC has come: from now on only PUBREL is sent.
    released: bool,
}

impl Publisher {
    pub(super) fn new(topic: &str, version: Version, qos: QoS, dice: &mut Dice) -> Self {
        let roamer = Roamer::new(&format!("publisher of {topic}"), version, false, dice);
        let (topic, published) = (topic.to_owned(), Instant::now());
        let pending = VecDeque::new();
        Self { roamer, topic, qos, published, next: 0, pending, last_id: 0 }
    }

    pub(super) fn live(&mut self, place: &Place<'_>) {
        while !place.is_over() && (!place.is_finishing() || !self.pending.is_empty()) {
            let Some((link, is_new)) = self.roamer.link(place) else { continue };
            if is_new {
                let resumed = resume(&mut self.pending, link, &self.topic, self.qos);
                if self.roamer.judge(place, resumed).is_none() {
                    continue;
                }
            }
            let due = self.published.elapsed() >= PACE && self.pending.len() < WINDOW;
            if due && !place.is_finishing() {
                self.published = Instant::now();
                self.publish(place);
            }
            if let Some(received) = self.roamer.next(place, PACE) {
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
        let mark = Mark { number: self.next, attempt: 0 };
        self.next += 1;
        self.pending.push_back(Pending { id, mark, released: false });
        // First the note, then the deed: what may have been sent counts as sent.
        let (topic, number, qos) = (self.topic.clone(), mark.number, self.qos);
        place.recorder.note(What::Published { topic, number, qos });
        self.roamer.attempt(place, |link| send(link, &self.topic, self.qos, id, mark));
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
        let (topic, number) = (self.topic.clone(), pending.mark.number);
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

/// Sends again what was not acknowledged, in its order [v5 MQTT-4.4.0-1].
fn resume(
    pending: &mut VecDeque<Pending>,
    link: &mut Link,
    topic: &str,
    qos: QoS,
) -> Result<(), End> {
    for it in pending {
        if it.released {
            link.client.acknowledge(AckKind::PubRel, it.id)?;
        } else {
            it.mark.attempt += 1;
            send(link, topic, qos, it.id, it.mark)?;
        }
    }
    Ok(())
}

fn send(link: &mut Link, topic: &str, qos: QoS, id: PacketId, mark: Mark) -> Result<(), End> {
    let payload = mark.payload(60);
    let dup = mark.attempt > 0;
    let packet_id = Some(id);
    link.client.publish(&Outgoing { packet_id, qos, dup, ..Outgoing::new(topic, &payload) })
}
