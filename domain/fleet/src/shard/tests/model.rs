//! Random histories against a model that is as plain as the rules: no trie, no reference counts, no
//! timers, nothing shared. After every command both must say and hold the same; at the end a shard
//! loaded from the last checkpoint must catch up by the commands since.

mod naive;
mod steps;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::checkpoint::{load, write};
use super::*;
use naive::Model;
use steps::{Step, step};

/// Seq, QoS, RETAIN, identifiers, and the message unless it is released.
type EntrySeen = (u64, u8, bool, Vec<u32>, Option<Publication>);

/// What can be seen of one session.
#[derive(Debug, PartialEq)]
struct SessionSeen {
    id: u64,
    epoch: u64,
    version: u32,
    node: u64,
    expiry_secs: u32,
    connected_at: u64,
    disconnected_at: Option<u64>,
    will: Option<Will>,
    subscriptions: Vec<(String, Options)>,
    queue: Vec<EntrySeen>,
    bytes: u64,
}

/// What can be seen of a shard at a time.
#[derive(Debug, PartialEq)]
struct Seen {
    sessions: BTreeMap<String, SessionSeen>,
    retained: Vec<Publication>,
    outbox: Vec<(u64, Publication, bool, Option<SharedCopy>)>,
    /// What waits for shared subscriptions, in the order in which it leaves.
    waiting: Vec<(String, Publication)>,
    shadows: BTreeMap<String, Vec<String>>,
    wanted: BTreeSet<String>,
    members: BTreeMap<(String, String, u64), (bool, Options)>,
    stats: Stats,
    deadline: Option<u64>,
}

/// What is wanted from publishers, as one who heard every change knows it.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    wanted: BTreeSet<String>,
    members: BTreeMap<(String, String, u64), (bool, Options)>,
}

impl Heard {
    fn hear(&mut self, interests: &[Interest]) {
        for interest in interests {
            match interest.clone() {
                Interest::Wanted { filter } => assert!(self.wanted.insert(filter)),
                Interest::Unwanted { filter } => assert!(self.wanted.remove(&filter)),
                Interest::Joined(Member { share, filter, session, connected, options, .. }) => {
                    self.members.insert((share, filter, session), (connected, options));
                }
                Interest::PassedOver { .. } => {}
                Interest::Left { share, filter, session } => {
                    assert!(self.members.remove(&(share, filter, session)).is_some());
                }
            }
        }
    }
}

/// The shard and the model side by side.
struct World {
    probe: Probe,
    model: Model,
    heard: Heard,
    now: u64,
    store: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Commands since the store was written.
    log: Vec<Bytes>,
}

impl World {
    fn new() -> Self {
        let (probe, model, heard) = (Probe::default(), Model::default(), Heard::default());
        let (store, log) = (BTreeMap::new(), Vec::new());
        let mut world = Self { probe, model, heard, now: 1_000_000, store, log };
        world.checkpoint();
        world
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Wait(time) => self.now += time,
            Step::Checkpoint => self.checkpoint(),
            Step::Reload => {
                self.checkpoint();
                self.probe.shard = load(&self.store).unwrap();
            }
            Step::Due => {
                for command in self.probe.due(self.now, 3) {
                    self.tell(command);
                }
            }
            Step::Restart(node) => {
                let ends = self.probe.ends_of(|holder| holder.0 == node, |_| false, self.now);
                for command in ends {
                    self.tell(command);
                }
            }
            step => {
                let command = step.command(&self.probe, self.now);
                self.tell(command);
            }
        }
    }

    fn tell(&mut self, command: Command) {
        let bytes = command.encoded();
        self.log.push(bytes.clone());
        let said = self.probe.shard.apply(bytes).unwrap();
        self.probe.shard.drain_effects(&mut self.probe.effects);
        let expected = self.model.tell(command.clone());
        assert_eq!(said, expected, "{command:#?}");
        self.heard.hear(&self.probe.effects.interest);
        assert_eq!(self.seen(), self.model.seen(self.now), "after {command:#?}");
    }

    fn checkpoint(&mut self) {
        write(&mut self.store, self.probe.checkpoint());
        assert_eq!(self.store, self.probe.dump().into_iter().collect());
        self.log.clear();
    }

    /// A shard that was away since the last checkpoint.
    fn catch_up(&self) -> Shard {
        let mut shard = load(&self.store).unwrap();
        for command in &self.log {
            shard.apply(command.clone()).unwrap();
        }
        shard
    }

    fn seen(&self) -> Seen {
        let shard = &self.probe.shard;
        let mut told = Heard::default();
        told.hear(&shard.interests());
        assert_eq!(told, self.heard);
        let sessions = steps::CLIENTS.iter().filter_map(|&name| {
            let session = shard.session(name.as_bytes())?;
            Some((name.to_owned(), session_seen(shard, session)))
        });
        let alive = |each: &&Arc<Publication>| !each.expired(self.now);
        let outbox = shard.outbox(0).map(|each| {
            let share = each.share.as_deref().cloned();
            (each.seq, each.publication.as_ref().clone(), each.store_retained, share)
        });
        let waiting = shard.shares.iter().map(|(filter, waiting, _)| {
            let publication = shard.messages.get(waiting.message).unwrap();
            (filter.to_owned(), publication.as_ref().clone())
        });
        let shadows = steps::THINGS.iter().map(|&thing| {
            let mut documents = shard.named_shadows(thing, None, 99);
            let documents: Vec<_> = [None]
                .into_iter()
                .chain(documents.drain(..).map(Some))
                .filter_map(|name| shard.get_shadow(thing, name, None, self.now).ok())
                .map(|document| text(&document))
                .collect();
            (thing.to_owned(), documents)
        });
        let stats = shard.stats();
        Seen {
            sessions: sessions.collect(),
            retained: shard
                .retained_after(None)
                .filter(alive)
                .map(|it| it.as_ref().clone())
                .collect(),
            outbox: outbox.collect(),
            waiting: waiting.collect(),
            shadows: shadows.collect(),
            wanted: told.wanted,
            members: told.members,
            // Expired messages may lie around.
            stats: Stats { retained: 0, retained_bytes: 0, ..stats },
            deadline: shard.next_deadline(),
        }
    }
}

fn session_seen(shard: &Shard, session: &Session) -> SessionSeen {
    let subscriptions = session.subscriptions();
    let queue = shard.queue(session.id(), 0).map(|each| {
        let publication = each.publication.map(|publication| publication.as_ref().clone());
        (each.seq, each.qos, each.retain, each.subscription_ids.to_vec(), publication)
    });
    SessionSeen {
        id: session.id(),
        epoch: session.epoch(),
        version: session.version(),
        node: session.holder().0,
        expiry_secs: session.expiry_secs(),
        connected_at: session.connected_at(),
        disconnected_at: session.disconnected_at(),
        will: session.will().cloned(),
        subscriptions: subscriptions.map(|(filter, options)| (filter.into(), *options)).collect(),
        queue: queue.collect(),
        bytes: session.queued_bytes(),
    }
}

proptest! {
    #[test]
    fn the_shard_does_as_the_model(steps in prop::collection::vec(step(), 1..150)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        let caught_up = world.catch_up();
        prop_assert_eq!(caught_up.digest(), world.probe.digest());
        prop_assert_eq!(caught_up.stats(), world.probe.stats());
        prop_assert_eq!(caught_up.interests(), world.probe.interests());
        prop_assert_eq!(
            caught_up.messages.references(),
            world.probe.shard.messages.references()
        );
    }
}
