//! Publishes with a certificate that is revoked now and then, and tries to go on all the same.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use mqtt::{AckKind, Connect, Outgoing, PacketId, QoS, Version};

use super::Place;
use super::link::{Link, PATIENCE};
use super::warden::{Desk, Identity};
use crate::cluster::MQTTS;
use crate::history::Mark;
use crate::record::What;
use crate::{Client, Dice, End, Received};

/// From one publication to the next.
const PACE: Duration = Duration::from_millis(100);
/// Publications that may be unacknowledged at once.
const WINDOW: usize = 40;

/// See the module.
pub(super) struct Outcast {
    client_id: String,
    version: Version,
    topic: String,
    /// The number of the next publication.
    next: u64,
    /// What is not acknowledged; it is not sent again.
    pending: VecDeque<(PacketId, u64)>,
    /// Something was acknowledged after the last certificate was restored.
    is_restored: bool,
    desk: Arc<Desk>,
    dice: Dice,
}

impl Outcast {
    pub(super) fn new(topic: &str, version: Version, desk: &Arc<Desk>, dice: &mut Dice) -> Self {
        Self {
            client_id: format!("outcast on {topic}"),
            version,
            topic: topic.to_owned(),
            next: 0,
            pending: VecDeque::new(),
            is_restored: false,
            desk: Arc::clone(desk),
            dice: dice.split(),
        }
    }

    pub(super) fn live(&mut self, place: &Place<'_>) {
        let mut known: Option<Arc<Identity>> = None;
        while !place.is_over() && !self.is_restored {
            match self.desk.identity() {
                Some(identity) => {
                    if known.as_ref().is_none_or(|it| it.principal != identity.principal) {
                        place.recorder.note(What::Identified {
                            client: self.client_id.clone(),
                            topic: self.topic.clone(),
                            principal: identity.principal.clone(),
                        });
                    }
                    self.live_once(place, &identity);
                    known = Some(identity);
                }
                None => thread::sleep(PACE),
            }
        }
    }

    /// A connection to some node, while it lasts.
    fn live_once(&mut self, place: &Place<'_>, identity: &Identity) {
        let (client_id, version) = (self.client_id.clone(), self.version);
        let connect = Connect::new(version, &client_id);
        let (node, address) = place.any(MQTTS, &mut self.dice);
        let credentials = &identity.credentials;
        let open = || Client::open_as(credentials, (node, address), &connect, PATIENCE);
        let asked = place.recorder.now();
        let Ok(mut link) = Link::begin(place.recorder, node, &connect, open) else {
            place.recorder.note(What::Unconnected { client: client_id, asked });
            thread::sleep(PACE);
            return;
        };
        match self.stay(place, &mut link, identity) {
            Ok(()) | Err(End::Closed(_)) => {}
            Err(End::Fault(text)) => {
                place.recorder.note(What::Broken { client: client_id, text });
            }
        }
        for (_, number) in self.pending.drain(..) {
            place.recorder.note(What::Abandoned { topic: self.topic.clone(), number });
        }
    }

    /// Until the certificate is not the one to be used any more, or it is time to go elsewhere.
    fn stay(&mut self, place: &Place<'_>, link: &mut Link, identity: &Identity) -> Result<(), End> {
        let moves_at = Instant::now() + self.dice.millis(500..15_000);
        let mut published = Instant::now();
        let is_over = |it: &Self| place.is_over() || it.is_restored || !it.desk.has(identity);
        while Instant::now() < moves_at && !is_over(self) {
            if published.elapsed() >= PACE && self.pending.len() < WINDOW {
                published = Instant::now();
                self.publish(place, link)?;
            }
            if let Some(got) = link.next(place.recorder, Duration::from_millis(20))? {
                self.take(place, &got)?;
            }
        }
        Ok(())
    }

    fn publish(&mut self, place: &Place<'_>, link: &mut Link) -> Result<(), End> {
        let (id, number, qos) = (link.client.new_id(), self.next, QoS::AtLeastOnce);
        self.next += 1;
        place.recorder.note(What::Published { topic: self.topic.clone(), number, qos });
        self.pending.push_back((id, number));
        let payload = Mark { number, attempt: 0 }.payload(60);
        let packet_id = Some(id);
        link.client.publish(&Outgoing { packet_id, qos, ..Outgoing::new(&self.topic, &payload) })
    }

    fn take(&mut self, place: &Place<'_>, got: &Received) -> Result<(), End> {
        let &Received::Ack { kind: AckKind::PubAck, id, reason } = got else {
            return End::fault(format!("unexpected {got:?}"));
        };
        let (topic, pending) = (self.topic.clone(), self.pending.pop_front());
        let Some((_, number)) = pending.filter(|(of, _)| *of == id) else {
            return End::fault(format!("unexpected {got:?} while waiting for {pending:?}"));
        };
        if reason.is_error() {
            place.recorder.note(What::Refused { topic, number });
            return Ok(());
        }
        place.recorder.note(What::Acknowledged { topic, number });
        self.is_restored = self.desk.is_closed();
        Ok(())
    }
}
