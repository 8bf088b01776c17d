//! A publisher that keeps what MQTT asks a client to keep over its connections.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mqtt::{AckKind, Connect, Outgoing, PacketId, QoS, Reason, Version};

use crate::client::lasting;
use crate::history::{Mark, Published};
use crate::{Client, End, Life, PATIENCE, Received};

/// Publishes numbers on a topic of its own, and resends what was not acknowledged.
pub struct Publisher {
    /// Its name to the broker.
    pub client_id: String,
    /// The protocol spoken.
    pub version: Version,
    /// Whether its session outlives its connections. If not, what is unacknowledged is given up.
    pub is_persistent: bool,
    /// Whether what it publishes is to be kept.
    pub retain: bool,
    /// Bytes of a payload.
    pub payload_bytes: usize,
    /// Publications that may be unacknowledged at once.
    pub window: usize,
    /// Publications in one life of the node; then it falls silent.
    pub per_life: u64,
    /// What it has published.
    pub published: Published,
    pending: VecDeque<Pending>,
    /// A CONNACK was seen, so the session must be there from then on.
    established: bool,
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
    /// A persistent publisher of small publications.
    pub fn new(topic: &str, version: Version, qos: QoS) -> Self {
        Self {
            client_id: format!("publisher of {topic}"),
            version,
            is_persistent: true,
            retain: false,
            payload_bytes: 100,
            window: 16,
            per_life: u64::MAX,
            published: Published::new(topic.to_owned(), qos),
            pending: VecDeque::new(),
            established: false,
            last_id: 0,
        }
    }

    /// Publishes until the node is gone, or until all is acknowledged when the life is finishing.
    pub(crate) fn live(&mut self, address: SocketAddr, life: &Life) -> Result<(), End> {
        let mut client = self.connect(address)?;
        self.resume(&mut client)?;
        let until = self.published.sent.saturating_add(self.per_life);
        let mut heard = Instant::now();
        loop {
            while !life.is_finishing()
                && self.pending.len() < self.window
                && self.published.sent < until
            {
                self.publish_next(&mut client)?;
            }
            if self.pending.is_empty() {
                if life.is_finishing() {
                    return client.disconnect();
                }
                heard = Instant::now();
            }
            if let Some(received) = client.next(Duration::from_millis(20))? {
                self.take(&mut client, &received, life)?;
                heard = Instant::now();
            } else if heard.elapsed() > PATIENCE {
                let waiting = self.pending.front().map(|it| (it.id, it.mark, it.released));
                return End::fault(format!("{waiting:?} is not acknowledged"));
            }
        }
    }

    fn connect(&mut self, address: SocketAddr) -> Result<Client, End> {
        if !self.is_persistent {
            self.pending.clear();
            let client = Client::open(address, &Connect::new(self.version, &self.client_id))?;
            return match client.session_present {
                false => Ok(client),
                true => End::fault("a clean start found a session"),
            };
        }
        let client = Client::open(address, &lasting(self.version, &self.client_id))?;
        if self.established && !client.session_present {
            return End::fault("the session is gone");
        }
        self.established = true;
        Ok(client)
    }

    /// Sends again what was not acknowledged, in its order [v5 MQTT-4.4.0-1].
    fn resume(&mut self, client: &mut Client) -> Result<(), End> {
        for at in 0..self.pending.len() {
            let pending = &mut self.pending[at];
            if pending.released {
                client.acknowledge(AckKind::PubRel, pending.id)?;
            } else {
                pending.mark.attempt += 1;
                let (id, mark) = (pending.id, pending.mark);
                self.send(client, id, mark)?;
            }
        }
        Ok(())
    }

    fn publish_next(&mut self, client: &mut Client) -> Result<(), End> {
        let id = self.new_id();
        let mark = Mark { number: self.published.sent, attempt: 0 };
        // First the note, then the deed: what may have been sent counts as sent.
        self.published.sent += 1;
        self.pending.push_back(Pending { id, mark, released: false });
        self.send(client, id, mark)
    }

    fn send(&self, client: &mut Client, id: PacketId, mark: Mark) -> Result<(), End> {
        let payload = mark.payload(self.payload_bytes);
        client.publish(&Outgoing {
            packet_id: Some(id),
            qos: self.published.qos,
            dup: mark.attempt > 0,
            retain: self.retain,
            ..Outgoing::new(&self.published.topic, &payload)
        })
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

    fn take(&mut self, client: &mut Client, got: &Received, life: &Life) -> Result<(), End> {
        let unexpected = || End::fault(format!("unexpected {got:?}"));
        let &Received::Ack { kind, id, reason } = got else { return unexpected() };
        // Acknowledgements come in the order of what they acknowledge [v5 MQTT-4.6.0-2].
        let first = match (kind, self.published.qos) {
            (AckKind::PubAck, QoS::AtLeastOnce) => 0,
            (AckKind::PubRec, QoS::ExactlyOnce) => {
                self.pending.iter().take_while(|pending| pending.released).count()
            }
            (AckKind::PubComp, QoS::ExactlyOnce) => 0,
            _ => return unexpected(),
        };
        let Some(pending) = self.pending.get_mut(first).filter(|pending| pending.id == id) else {
            let waiting: Vec<_> = self.pending.iter().map(|it| (it.id, it.released)).collect();
            return End::fault(format!("unexpected {got:?} while waiting for {waiting:?}"));
        };
        // A release that is repeated may find that it was done before.
        let done = kind == AckKind::PubComp && reason == Reason::PacketIdentifierNotFound;
        if reason != Reason::Success && !done {
            return unexpected();
        }
        if kind == AckKind::PubComp && !pending.released {
            return unexpected();
        }
        if kind != AckKind::PubComp {
            self.published.acknowledged.insert(pending.mark.number, life.number());
        }
        if kind == AckKind::PubRec {
            pending.released = true;
            return client.acknowledge(AckKind::PubRel, id);
        }
        self.pending.remove(first);
        Ok(())
    }
}
