//! What the tests of the shard share: a shard that remembers its effects, and short ways to say
//! commands.

mod backup;
mod checkpoint;
mod connections;
mod delivery;
mod events;
mod messages;
mod model;
mod robustness;
mod shadows;
mod shares;
mod subscriptions;

use std::ops::{Deref, DerefMut};

use bytes::Bytes;

use super::*;

/// A shard with the effects of its latest command.
#[derive(Default)]
struct Probe {
    shard: Shard,
    effects: Effects,
}

impl Deref for Probe {
    type Target = Shard;

    fn deref(&self) -> &Shard {
        &self.shard
    }
}

impl DerefMut for Probe {
    fn deref_mut(&mut self) -> &mut Shard {
        &mut self.shard
    }
}

impl Probe {
    fn told(&mut self, command: impl Into<Command>) -> Outcome {
        let outcome = self.shard.apply(command.into().encoded()).unwrap();
        self.shard.drain_effects(&mut self.effects);
        outcome
    }

    fn connected(&mut self, command: Connect) -> Connected {
        match self.told(command) {
            Outcome::Connected(connected) => connected,
            other => panic!("{other:?}"),
        }
    }

    fn subscribed(&mut self, client: &str, filter: &str, options: Options) -> Subscribed {
        let filters = vec![Subscription { filter: filter.into(), options }];
        let (client, epoch) = self.fence(client);
        match self.told(Subscribe { client, epoch, filters }) {
            Outcome::Subscribed(subscribed) => subscribed[0],
            other => panic!("{other:?}"),
        }
    }

    fn published(&mut self, publication: Publication) -> Published {
        match self.told(enqueued(publication)) {
            Outcome::Published(published) => published,
            other => panic!("{other:?}"),
        }
    }

    fn disconnect(&mut self, client: &str, at: u64, will: WillAction) -> Outcome {
        let (client, epoch) = self.fence(client);
        self.told(Disconnect { client, epoch, at, will: will.into(), ..Disconnect::default() })
    }

    fn acknowledge(&mut self, client: &str, seqs: &[u64]) -> Outcome {
        let (client, epoch) = self.fence(client);
        self.told(Acknowledge { client, epoch, seqs: seqs.to_vec(), refused: vec![] })
    }

    fn pubrec(&mut self, client: &str, seqs: &[u64]) -> Outcome {
        let (client, epoch) = self.fence(client);
        self.told(PubrecReceived { client, epoch, seqs: seqs.to_vec() })
    }

    /// A client with its present token.
    fn fence(&self, client: &str) -> (Bytes, u64) {
        let epoch = self.session(client.as_bytes()).map_or(0, Session::epoch);
        (Bytes::copy_from_slice(client.as_bytes()), epoch)
    }

    /// Seq, QoS and payload of what a client's queue holds; no payload when released.
    fn queue_of(&self, client: &str) -> Vec<(u64, u8, String)> {
        let Some(session) = self.session(client.as_bytes()) else { return Vec::new() };
        self.queue(session.id(), 0)
            .map(|each| {
                (each.seq, each.qos, each.publication.map_or("".into(), |it| text(&it.payload)))
            })
            .collect()
    }

    /// Topic and payload of what the outbox holds.
    fn outbox_of(&self) -> Vec<(String, String)> {
        self.outbox(0)
            .map(|each| (text(&each.publication.topic), text(&each.publication.payload)))
            .collect()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A persistent client of version 5 at time 0.
fn client(client: &str) -> Connect {
    Connect {
        client: Bytes::copy_from_slice(client.as_bytes()),
        clean_start: false,
        expiry_secs: 100,
        version: 5,
        at: 0,
        will: None,
        queue_limit_bytes: 1 << 20,
        queue_limit_messages: 1000,
        node: 1,
        ..Connect::default()
    }
}

fn publication(topic: &str, payload: &str, qos: u32) -> Publication {
    Publication {
        topic: Bytes::copy_from_slice(topic.as_bytes()),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        qos,
        ..Publication::default()
    }
}

fn will(payload: &str, delay_secs: u32) -> Option<Will> {
    let publication = publication("will", payload, 1);
    Some(Will { publication, delay_secs, ..Will::default() })
}

fn enqueued(publication: Publication) -> Publish {
    Publish { publication, enqueue: true, ..Publish::default() }
}

fn qos(qos: u32) -> Options {
    Options { qos, ..Options::default() }
}
