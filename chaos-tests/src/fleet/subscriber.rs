//! A lasting session that wanders and takes what is its due.

use std::time::Duration;

use mqtt::{QoS, Version};

use super::Place;
use super::roamer::Roamer;
use super::shadows;
use crate::record::What;
use crate::{Dice, End, Inbox, Received};

/// See the module.
pub(super) struct Subscriber {
    pub(super) roamer: Roamer,
    prefix: String,
    qos: QoS,
    /// Acknowledges several together, some time later.
    lazy: bool,
    is_subscribed: bool,
    inbox: Inbox,
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
            inbox: Inbox::new(id),
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
                self.inbox.reconnected();
            }
            let got = self.roamer.next(place, Duration::from_millis(20));
            let nothing = got.is_none();
            if let Some(got) = got {
                let taken = self.take(place, &got);
                self.roamer.judge(place, taken);
            }
            if !self.lazy || nothing || self.roamer.dice.one_in(8) {
                let inbox = &mut self.inbox;
                self.roamer.attempt(place, |link| inbox.pay(&mut link.client));
            }
        }
    }

    fn take(&mut self, place: &Place<'_>, got: &Received) -> Result<(), End> {
        match got {
            Received::Publish(arrival) if self.prefix == shadows::PREFIX => {
                self.inbox.acknowledge(arrival);
                let told = shadows::told(&self.inbox.client_id, arrival);
                told.map(|told| place.recorder.note(told))
            }
            got => {
                if let Some(delivered) = self.inbox.take(got)? {
                    place.recorder.note(delivered);
                }
                Ok(())
            }
        }
    }
}
