//! Publishers and subscribers that live with a node, from one kill to the next.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{net::SocketAddr, thread};

use mqtt::{Reason, Version};

use crate::history::{Mark, Published};
use crate::{Acks, Client, Dice, End, Node, Publisher, Subscriber};

/// One life of the node, as its clients see it.
#[derive(Debug)]
pub struct Life {
    number: u32,
    /// The node is being ended: connections may break.
    ending: AtomicBool,
    finishing: AtomicBool,
    farewells: Mutex<Vec<(Version, Option<Reason>)>>,
}

impl Life {
    fn of(node: &Node) -> Self {
        Self {
            number: node.starts(),
            ending: AtomicBool::new(false),
            finishing: AtomicBool::new(false),
            farewells: Mutex::default(),
        }
    }

    /// Which start of the node this is.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Says that the node is about to be ended.
    pub fn end(&self) {
        self.ending.store(true, Ordering::SeqCst);
    }

    /// Whether nothing new is published any more.
    pub(crate) fn is_finishing(&self) -> bool {
        self.finishing.load(Ordering::SeqCst)
    }

    /// Judges how a client's life ended.
    fn judge(&self, who: &str, version: Version, outcome: Result<(), End>) -> Option<String> {
        match outcome {
            Ok(()) => None,
            Err(End::Closed(reason)) if self.ending.load(Ordering::SeqCst) => {
                self.farewells.lock().expect("no thread panics with it").push((version, reason));
                None
            }
            Err(End::Closed(reason)) => {
                Some(format!("{who}: the broker closed the connection, reason {reason:?}"))
            }
            Err(End::Fault(what)) => Some(format!("{who}: {what}")),
        }
    }
}

/// The publication after which nothing is expected.
const LAST_TOPIC: &str = "crowd/last";

/// See the module.
#[derive(Default)]
pub struct Crowd {
    /// Who publishes.
    pub publishers: Vec<Publisher>,
    /// Who listens.
    pub subscribers: Vec<Subscriber>,
    /// What went wrong so far.
    pub faults: Vec<String>,
}

impl Crowd {
    /// Makes the sessions of the subscribers, so that everything published later is for them.
    ///
    /// # Panics
    /// When the node does not let them.
    pub fn subscribe(&mut self, address: SocketAddr) {
        for subscriber in &mut self.subscribers {
            subscriber.last_topic = LAST_TOPIC.into();
            subscriber.subscribe(address).expect("a node that serves takes subscriptions");
        }
    }

    /// Everybody publishes, and `present` listen, while `meanwhile` runs; it ends the node, after
    /// it has told the life so. Gives the DISCONNECT that each connection ended with, if any.
    pub fn live(
        &mut self,
        node: &mut Node,
        present: &[bool],
        meanwhile: impl FnOnce(&mut Node, &Life),
    ) -> Vec<(Version, Option<Reason>)> {
        let address = node.address();
        let life = Life::of(node);
        let mut faults = thread::scope(|scope| {
            let life = &life;
            let mut parties = Vec::new();
            for it in &mut self.publishers {
                parties.push(scope.spawn(move || {
                    let outcome = it.live(address, life);
                    life.judge(&it.client_id, it.version, outcome)
                }));
            }
            let present = self.subscribers.iter_mut().zip(present).filter(|(_, present)| **present);
            for (it, _) in present {
                parties.push(scope.spawn(move || {
                    let outcome = it.live(address, life);
                    life.judge(&it.client_id, it.version, outcome)
                }));
            }
            meanwhile(node, life);
            let joined = parties.into_iter().map(|party| party.join().expect("no party panics"));
            joined.flatten().collect::<Vec<_>>()
        });
        faults.iter_mut().for_each(|fault| *fault = format!("life {}: {fault}", life.number));
        self.faults.append(&mut faults);
        life.farewells.into_inner().expect("no thread panics with it")
    }

    /// As [`Self::live`], ended by kill -9 after a while, with subscribers that come and go and
    /// acknowledge as they like; the last one stays away.
    pub fn live_and_die(&mut self, node: &mut Node, dice: &mut Dice) {
        let count = self.subscribers.len();
        let present: Vec<bool> =
            (0..count).map(|at| at + 1 < count && (at == 0 || !dice.one_in(3))).collect();
        for subscriber in &mut self.subscribers {
            subscriber.acks = dice.pick(&[Acks::Prompt, Acks::Lazy, Acks::Lazy, Acks::Never]);
        }
        let moment = dice.millis(5..400);
        self.live(node, &present, |node, life| {
            thread::sleep(moment);
            life.end();
            node.kill9();
        });
    }

    /// The last life: publishers finish what they have begun, subscribers take all that is theirs.
    pub fn finish(&mut self, node: &mut Node) {
        let address = node.address();
        let life = Life::of(node);
        life.finishing.store(true, Ordering::SeqCst);
        for it in &mut self.publishers {
            let outcome = it.live(address, &life);
            self.faults.extend(life.judge(&it.client_id, it.version, outcome));
        }
        let published = Client::brief(address, "last").and_then(|mut client| {
            let mark = Mark { number: 0, attempt: 0 };
            client.publish_acknowledged(LAST_TOPIC, &mark.payload(0), false)
        });
        if let Err(end) = published {
            self.faults.push(format!("the last publication: {end:?}"));
        }
        let faults = thread::scope(|scope| {
            let life = &life;
            let parties: Vec<_> = self
                .subscribers
                .iter_mut()
                .map(|it| {
                    scope.spawn(move || {
                        let outcome = it.live(address, life);
                        life.judge(&it.client_id, it.version, outcome)
                    })
                })
                .collect();
            let joined = parties.into_iter().map(|party| party.join().expect("no party panics"));
            joined.flatten().collect::<Vec<_>>()
        });
        self.faults.extend(faults);
    }

    /// Judges the whole history: everything that went wrong.
    pub fn judge(&self) -> Vec<String> {
        let published: Vec<Published> =
            self.publishers.iter().map(|publisher| publisher.published.clone()).collect();
        let mut faults = self.faults.clone();
        for it in &self.subscribers {
            let found = it.delivered.faults(&published, it.qos);
            faults.extend(found.into_iter().map(|fault| format!("{}: {fault}", it.client_id)));
        }
        for it in &published {
            println!("{}: {} sent, {} acknowledged", it.topic, it.sent, it.acknowledged.len());
        }
        faults
    }

    /// As [`Self::judge`], for a node that keeps its promises.
    ///
    /// # Panics
    /// When a promise was broken, with what was seen.
    pub fn check(&self, node: &Node, dice: &Dice) {
        let faults = self.judge().join("\n  ");
        let (seed, lives) = (dice.seed(), node.starts());
        assert!(faults.is_empty(), "SEED={seed}, {lives} lives:\n  {faults}\n{}", node.said());
    }
}
