//! What a lasting session holds at the client: exchanges that are not finished, and
//! acknowledgements that are still to be sent.

use std::collections::{BTreeMap, VecDeque};

use mqtt::{AckKind, PacketId, QoS};

use crate::history::Mark;
use crate::record::What;
use crate::{Arrival, Client, End, Received};

/// See the module.
pub struct Inbox {
    /// Its client id.
    pub client_id: String,
    /// Exchanges of QoS 2 that are not finished: what came with the identifier.
    open: BTreeMap<PacketId, (String, Mark)>,
    /// Acknowledgements not sent yet; they leave in order [v5 MQTT-4.6.0-2].
    owed: VecDeque<(AckKind, PacketId)>,
}

impl Inbox {
    /// Holds nothing.
    pub fn new(client_id: &str) -> Self {
        Self { client_id: client_id.to_owned(), open: BTreeMap::new(), owed: VecDeque::new() }
    }

    /// On a new connection whatever was not acknowledged comes again.
    pub fn reconnected(&mut self) {
        self.owed.clear();
    }

    /// Takes out the acknowledgements that are to be sent now.
    pub fn due(&mut self) -> impl Iterator<Item = (AckKind, PacketId)> + '_ {
        self.owed.drain(..)
    }

    /// Sends the acknowledgements that are due.
    pub(crate) fn pay(&mut self, client: &mut Client) -> Result<(), End> {
        self.due().try_for_each(|(kind, id)| client.acknowledge(kind, id))
    }

    /// Takes what came; gives the publication that is new to the client, to be noted.
    pub fn take(&mut self, got: &Received) -> Result<Option<What>, End> {
        match got {
            Received::Publish(arrival) => self.take_arrival(arrival),
            Received::Ack { kind: AckKind::PubRel, id, .. } => {
                self.open.remove(id);
                self.owed.push_back((AckKind::PubComp, *id));
                Ok(None)
            }
            other => End::fault(format!("unexpected {other:?}")),
        }
    }

    /// Only acknowledges what came.
    pub(crate) fn acknowledge(&mut self, arrival: &Arrival) {
        if let Some(id) = arrival.id {
            self.owed.push_back((AckKind::PubAck, id));
        }
    }

    fn take_arrival(&mut self, arrival: &Arrival) -> Result<Option<What>, End> {
        let Arrival { topic, payload, qos, dup, id, interval, .. } = arrival;
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
                Some((of, held)) if of == topic && held.number == mark.number => return Ok(None),
                Some(held) => {
                    return End::fault(format!("{} of {mark:?} while {held:?} is open", told()));
                }
                None => drop(self.open.insert(id, (topic.clone(), mark))),
            }
        } else {
            self.owed.push_back((AckKind::PubAck, id));
        }
        Ok(Some(What::Delivered {
            client: self.client_id.clone(),
            topic: topic.clone(),
            number: mark.number,
            attempt: mark.attempt,
            qos: *qos,
            dup: *dup,
            interval: *interval,
        }))
    }
}
