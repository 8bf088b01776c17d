//! A subscriber that keeps what MQTT asks a client to keep over its connections, and notices when
//! the broker does not.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mqtt::{AckKind, PacketId, QoS, Version};

use crate::client::lasting;
use crate::history::{Copy, Delivered, Mark};
use crate::{Arrival, Client, Dice, End, Life, PATIENCE, Received};

/// When a subscriber acknowledges what it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// At once.
    Prompt,
    /// Some time later, several together.
    Lazy,
    /// Not in this life of the node.
    Never,
}

/// A persistent session that writes down what it is given.
pub struct Subscriber {
    /// Its name to the broker.
    pub client_id: String,
    /// The protocol spoken.
    pub version: Version,
    /// The highest QoS it asks for.
    pub qos: QoS,
    /// What it subscribes to.
    pub filter: String,
    /// Receive Maximum, for MQTT 5.
    pub receive_maximum: u16,
    /// When it acknowledges, until it is told otherwise.
    pub acks: Acks,
    /// What it was given.
    pub delivered: Delivered,
    /// Topic of the publication after which nothing is expected.
    pub last_topic: String,
    dice: Dice,
    /// Exchanges that are not finished: what came with the identifier.
    open: BTreeMap<PacketId, Exchange>,
    /// Acknowledgements not sent yet; they leave in order [v5 MQTT-4.6.0-2].
    owed: VecDeque<(AckKind, PacketId)>,
    connection: u32,
    is_subscribed: bool,
    saw_last: bool,
}

/// A delivery that was not acknowledged to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Exchange {
    topic: String,
    mark: Mark,
    qos: QoS,
    /// On which connection it last came.
    connection: u32,
    /// PUBREC was sent.
    answered: bool,
}

impl Subscriber {
    /// A prompt subscriber.
    pub fn new(client_id: &str, version: Version, qos: QoS, filter: &str, dice: &mut Dice) -> Self {
        Self {
            client_id: client_id.to_owned(),
            version,
            qos,
            filter: filter.to_owned(),
            receive_maximum: 40,
            acks: Acks::Prompt,
            delivered: Delivered::default(),
            last_topic: String::new(),
            dice: dice.split(),
            open: BTreeMap::new(),
            owed: VecDeque::new(),
            connection: 0,
            is_subscribed: false,
            saw_last: false,
        }
    }

    /// Makes the session and its subscription, and goes away again.
    pub fn subscribe(&mut self, address: SocketAddr) -> Result<(), End> {
        let mut client = self.connect(address)?;
        client.subscribe(&[&self.filter], self.qos)?;
        self.is_subscribed = true;
        client.disconnect()
    }

    fn connect(&mut self, address: SocketAddr) -> Result<Client, End> {
        let receive_maximum = match self.version {
            Version::V311 => u16::MAX,
            Version::V5 => self.receive_maximum,
        };
        let connect = mqtt::Connect { receive_maximum, ..lasting(self.version, &self.client_id) };
        let client = Client::open(address, &connect)?;
        if self.is_subscribed && !client.session_present {
            return End::fault("the session is gone");
        }
        self.connection += 1;
        self.owed.clear();
        Ok(client)
    }

    /// Takes what comes until the node is gone, or, when the life is finishing, until all is there
    /// and acknowledged.
    pub(crate) fn live(&mut self, address: SocketAddr, life: &Life) -> Result<(), End> {
        let mut client = self.connect(address)?;
        let mut heard = Instant::now();
        loop {
            let got = client.next(Duration::from_millis(20))?;
            let nothing = got.is_none();
            if let Some(got) = got {
                heard = Instant::now();
                self.take(&got, life)?;
            }
            let due = match self.acks {
                Acks::Prompt => true,
                Acks::Lazy => nothing || self.dice.one_in(8),
                Acks::Never => false,
            };
            if due || life.is_finishing() {
                self.pay(&mut client)?;
            }
            if life.is_finishing() && self.saw_last && self.open.is_empty() && nothing {
                return client.disconnect();
            }
            if life.is_finishing() && heard.elapsed() > PATIENCE {
                let (open, saw_last) = (self.open.iter().next(), self.saw_last);
                return End::fault(format!(
                    "nothing comes any more; unfinished: {open:?}, end seen: {saw_last}"
                ));
            }
        }
    }

    fn pay(&mut self, client: &mut Client) -> Result<(), End> {
        while let Some((kind, id)) = self.owed.pop_front() {
            match kind {
                AckKind::PubAck => drop(self.open.remove(&id)),
                AckKind::PubRec => {
                    if let Some(exchange) = self.open.get_mut(&id) {
                        exchange.answered = true;
                    }
                }
                _ => {}
            }
            client.acknowledge(kind, id)?;
        }
        Ok(())
    }

    fn take(&mut self, got: &Received, life: &Life) -> Result<(), End> {
        match got {
            Received::Publish(arrival) => self.take_arrival(arrival, life),
            Received::Ack { kind: AckKind::PubRel, id, .. } => {
                match self.open.get(id) {
                    Some(Exchange { answered: false, .. }) => {
                        return End::fault(format!("PUBREL {id} before its PUBREC"));
                    }
                    // The PUBCOMP of an earlier connection may have been lost.
                    Some(_) | None => drop(self.open.remove(id)),
                }
                self.owed.push_back((AckKind::PubComp, *id));
                Ok(())
            }
            other => End::fault(format!("unexpected {other:?}")),
        }
    }

    fn take_arrival(&mut self, arrival: &Arrival, life: &Life) -> Result<(), End> {
        let Arrival { topic, payload, qos, dup, id, .. } = arrival;
        let told = || format!("{topic} {qos:?} dup {dup} id {id:?}");
        let Some(mark) = Mark::read(payload) else {
            return End::fault(format!("{}: the payload was altered", told()));
        };
        let Some(id) = *id else {
            return End::fault(format!("{}: QoS 0 of {mark:?}", told()));
        };
        let copy = Copy { mark, dup: *dup, life: life.number() };
        let exchange = Exchange {
            topic: topic.clone(),
            mark,
            qos: *qos,
            connection: self.connection,
            answered: false,
        };
        if let Some(before) = self.open.get_mut(&id) {
            // An identifier in use stands for the same publication, sent again after a reconnect.
            let same =
                Exchange { connection: before.connection, answered: before.answered, ..exchange };
            if same != *before || !dup || before.connection == self.connection {
                return End::fault(format!(
                    "{} of {mark:?} came while {before:?} is unfinished on connection {}",
                    told(),
                    self.connection
                ));
            }
            before.connection = self.connection;
            before.answered = false;
            if *qos == QoS::AtLeastOnce {
                self.delivered.note(topic, copy);
            }
        } else {
            // What was not acknowledged keeps its identifier.
            let twin = self.open.iter().find(|(_, it)| (&it.topic, it.mark) == (topic, mark));
            if let Some((old, twin)) = twin {
                return End::fault(format!("{} of {mark:?} had the id {old}: {twin:?}", told()));
            }
            self.open.insert(id, exchange);
            self.delivered.note(topic, copy);
        }
        if self.version == Version::V5 && self.unfinished() > usize::from(self.receive_maximum) {
            let open = self.unfinished();
            return End::fault(format!("{}: {open} unfinished, over the receive maximum", told()));
        }
        self.saw_last |= *topic == self.last_topic;
        let kind = if *qos == QoS::AtLeastOnce { AckKind::PubAck } else { AckKind::PubRec };
        self.owed.push_back((kind, id));
        Ok(())
    }

    /// Exchanges that the broker has to count on this connection.
    fn unfinished(&self) -> usize {
        let here = self.open.values().filter(|it| it.connection == self.connection).count();
        here + self.owed.iter().filter(|(kind, _)| *kind == AckKind::PubComp).count()
    }
}
