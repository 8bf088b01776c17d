//! A lasting session that wanders, takes what is its due and keeps what MQTT asks a client to keep.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use mqtt::{AckKind, PacketId, QoS, Version};

use super::Place;
use super::roamer::Roamer;
use super::shadows;
use crate::history::Mark;
use crate::record::What;
use crate::{Arrival, Dice, End, Received};

/// See the module.
pub(super) struct Subscriber {
    roamer: Roamer,
    prefix: String,
    qos: QoS,
    /// Acknowledges several together, some time later.
    lazy: bool,
    is_subscribed: bool,
    /// Exchanges of QoS 2 that are not finished: what came with the identifier.
    open: BTreeMap<PacketId, (String, Mark)>,
    /// Acknowledgements not sent yet; they leave in order [v5 MQTT-4.6.0-2].
    owed: VecDeque<(AckKind, PacketId)>,
}

impl Subscriber {
    /// Subscribes to everything below a prefix.
    pub(super) fn new(id: &str, version: Version, qos: QoS, prefix: &str, dice: &mut Dice) -> Self {
        Self {
            roamer: Roamer::new(id, version, false, dice),
            prefix: prefix.to_owned(),
            qos,
            lazy: dice.one_in(2),
            is_subscribed: false,
            open: BTreeMap::new(),
            owed: VecDeque::new(),
        }
    }

    /// Makes the session and its subscription.
    pub(super) fn subscribe(&mut self, place: &Place<'_>) {
        while !self.is_subscribed && !place.is_over() {
            let filter = match self.prefix.as_str() {
                shadows::PREFIX => shadows::ACCEPTED.to_owned(),
                prefix if prefix.ends_with('/') => format!("{prefix}#"),
                topic => topic.to_owned(),
            };
            if self.roamer.link(place).is_none() {
                continue;
            }
            let qos = self.qos;
            let done = self.roamer.attempt(place, |link| link.client.subscribe(&[&filter], qos));
            if done.is_some() {
                let (client, prefix) = (self.roamer.client_id.clone(), self.prefix.clone());
                place.recorder.note(What::Subscribed { client, prefix, qos });
                self.is_subscribed = true;
            }
        }
    }

    pub(super) fn live(&mut self, place: &Place<'_>) {
        while !place.is_over() {
            let Some((_, is_new)) = self.roamer.link(place) else { continue };
            if is_new {
                // Whatever was not acknowledged comes again.
                self.owed.clear();
            }
            let got = self.roamer.next(place, Duration::from_millis(20));
            let nothing = got.is_none();
            if let Some(got) = got {
                let taken = self.take(place, &got);
                self.roamer.judge(place, taken);
            }
            if !self.lazy || nothing || self.roamer.dice.one_in(8) {
                let owed = &mut self.owed;
                self.roamer.attempt(place, |link| {
                    let mut owed = owed.drain(..);
                    owed.try_for_each(|(kind, id)| link.client.acknowledge(kind, id))
                });
            }
        }
    }

    fn take(&mut self, place: &Place<'_>, got: &Received) -> Result<(), End> {
        match got {
            Received::Publish(arrival) if self.prefix == shadows::PREFIX => {
                if let Some(id) = arrival.id {
                    self.owed.push_back((AckKind::PubAck, id));
                }
                let told = shadows::told(&self.roamer.client_id, arrival);
                told.map(|told| place.recorder.note(told))
            }
            Received::Publish(arrival) => self.take_arrival(place, arrival),
            Received::Ack { kind: AckKind::PubRel, id, .. } => {
                self.open.remove(id);
                self.owed.push_back((AckKind::PubComp, *id));
                Ok(())
            }
            other => End::fault(format!("unexpected {other:?}")),
        }
    }

    fn take_arrival(&mut self, place: &Place<'_>, arrival: &Arrival) -> Result<(), End> {
        let Arrival { topic, payload, qos, dup, id, .. } = arrival;
        let told = || format!("{topic} {qos:?} dup {dup} id {id:?}");
        let Some(mark) = Mark::read(payload) else {
            return End::fault(format!("{}: the payload was altered", told()));
        };
        let Some(id) = *id else {
            return End::fault(format!("{}: QoS 0 of {mark:?}", told()));
        };
        if *qos == QoS::ExactlyOnce {
            self.owed.push_back((AckKind::PubRec, id));
            match self.open.get(&id) {
                Some((of, held)) if of == topic && held.number == mark.number => return Ok(()),
                Some(held) => {
                    return End::fault(format!("{} of {mark:?} while {held:?} is open", told()));
                }
                None => drop(self.open.insert(id, (topic.clone(), mark))),
            }
        } else {
            self.owed.push_back((AckKind::PubAck, id));
        }
        place.recorder.note(What::Delivered {
            client: self.roamer.client_id.clone(),
            topic: topic.clone(),
            number: mark.number,
            attempt: mark.attempt,
            qos: *qos,
            dup: *dup,
        });
        Ok(())
    }
}
