//! One whose will is all that it publishes: each of its connections has another, and mostly ends
//! badly.

use std::borrow::Cow;
use std::thread;
use std::time::{Duration, Instant};

use mqtt::{Connect, QoS, Version, Will};

use super::Place;
use super::link::Link;
use crate::history::Mark;
use crate::record::What;
use crate::{Dice, End};

/// See the module.
pub(super) struct Mortal {
    client_id: String,
    version: Version,
    topic: String,
    /// The number of the next will.
    next: u64,
    dice: Dice,
}

impl Mortal {
    /// One whose wills are published on this topic.
    pub(super) fn new(topic: &str, version: Version, dice: &mut Dice) -> Self {
        let client_id = format!("mortal of {topic}");
        Self { client_id, version, topic: topic.to_owned(), next: 0, dice: dice.split() }
    }

    pub(super) fn live(&mut self, place: &Place<'_>) {
        while !place.is_finishing() && !place.is_over() {
            self.live_once(place);
            thread::sleep(self.dice.millis(0..800));
        }
    }

    /// A connection, and its end. Whether there was one is known only once CONNACK has come, so a
    /// will may be published that is not owed.
    fn live_once(&mut self, place: &Place<'_>) {
        let (topic, number, qos) = (self.topic.clone(), self.next, QoS::ExactlyOnce);
        self.next += 1;
        let payload = Mark { number, attempt: 0 }.payload(60);
        let will = Will {
            topic: &topic,
            payload: &payload,
            qos,
            retain: false,
            delay: 0,
            expiry: None,
            properties: Cow::Borrowed(&[]),
        };
        let connect = Connect { will: Some(will), ..Connect::new(self.version, &self.client_id) };
        let node = self.dice.within(0..place.addresses.len() as u64);
        place.recorder.note(What::Published { topic: topic.clone(), number, qos });
        let address = place.addresses[node as usize];
        let Ok(mut link) = Link::open(place.recorder, node + 1, address, &connect) else {
            // A process that stood still may read CONNECT much later.
            place.recorder.note(What::Abandoned { topic, number });
            return;
        };
        let dies_at = Instant::now() + self.dice.millis(0..2_000);
        while Instant::now() < dies_at {
            match link.next(place.recorder, Duration::from_millis(20)) {
                Ok(_) => {}
                Err(End::Closed(_)) => break,
                Err(End::Fault(text)) => {
                    place.recorder.note(What::Broken { client: self.client_id.clone(), text });
                    break;
                }
            }
        }
        if self.dice.one_in(4) {
            // The broker may have ended the connection before, and then it is published.
            drop(link.client.leave());
            return;
        }
        drop(link);
        place.recorder.note(What::Acknowledged { topic, number });
    }
}
