//! Clients of a cluster: they wander from node to node, take their client ids from each other, and
//! write down what they see.

mod duellist;
mod link;
mod mortal;
mod outcast;
mod publisher;
mod retained;
mod roamer;
mod shadows;
mod sleeper;
mod subscriber;
mod swarm;
mod warden;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::Duration;

use mqtt::QoS::{AtLeastOnce, ExactlyOnce};
use mqtt::Version::{V5, V311};
use mqtt::{Connect, Version};

use crate::record::Recorder;
use crate::{Client, Dice};

use duellist::Duellist;
use mortal::Mortal;
use outcast::Outcast;
use publisher::Publisher;
use retained::Keeper;
use shadows::Shadower;
use sleeper::Sleeper;
use subscriber::Subscriber;
pub(crate) use swarm::Swarm;
use warden::{Desk, Warden};

/// Where clients live, and how far the story has come.
pub(crate) struct Place<'a> {
    pub(crate) recorder: &'a Recorder,
    pub(crate) addresses: &'a [SocketAddr],
    phase: AtomicU8,
}

const FINISHING: u8 = 1;
const OVER: u8 = 2;

impl<'a> Place<'a> {
    pub(crate) fn new(recorder: &'a Recorder, addresses: &'a [SocketAddr]) -> Self {
        Self { recorder, addresses, phase: AtomicU8::new(0) }
    }

    /// Nothing new is begun; what was begun is brought to its end.
    pub(crate) fn finish(&self) {
        self.phase.store(FINISHING, Ordering::SeqCst);
    }

    /// Everybody goes.
    pub(crate) fn end(&self) {
        self.phase.store(OVER, Ordering::SeqCst);
    }

    fn is_finishing(&self) -> bool {
        self.phase.load(Ordering::SeqCst) == FINISHING
    }

    fn is_over(&self) -> bool {
        self.phase.load(Ordering::SeqCst) == OVER
    }

    /// Any node, and where it listens on another port.
    fn any(&self, port: u16, dice: &mut Dice) -> (u64, SocketAddr) {
        let node = dice.within(0..self.addresses.len() as u64);
        (node + 1, (self.addresses[node as usize].ip(), port).into())
    }

    /// A connection without a session, to any node; `None` when it cannot be had now.
    fn brief(&self, client_id: &str, dice: &mut Dice) -> Option<Client> {
        self.open(&Connect::new(Version::V5, client_id), dice)
    }

    /// A connection to any node; `None` when it cannot be had now.
    fn open(&self, connect: &Connect<'_>, dice: &mut Dice) -> Option<Client> {
        let client = Client::open_within(dice.pick(self.addresses), connect, link::PATIENCE);
        if client.is_err() {
            thread::sleep(Duration::from_millis(30));
        }
        client.ok()
    }
}

/// Everybody.
pub(crate) struct Fleet {
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    duellists: Vec<Duellist>,
    keepers: Vec<Keeper>,
    shadowers: Vec<Shadower>,
    mortals: Vec<Mortal>,
    sleepers: Vec<Sleeper>,
    outcasts: Vec<Outcast>,
    warden: Warden,
}

/// What is running: who comes to an end by itself, and who goes on until the end.
#[derive(Default)]
pub(crate) struct Running<'scope> {
    finite: Vec<ScopedJoinHandle<'scope, ()>>,
}

impl Running<'_> {
    /// Whether all have come to their end who can.
    pub(crate) fn has_finished(&self) -> bool {
        self.finite.iter().all(ScopedJoinHandle::is_finished)
    }
}

impl Fleet {
    /// Everybody. Where clocks go wrong nobody relies on when a session ends or a
    /// publication expires. The authority has signed
    /// the certificates of the nodes.
    pub(crate) fn new(clocks_are_right: bool, authority: String, dice: &mut Dice) -> Self {
        let topics = [
            ("t/a", V5, AtLeastOnce),
            ("t/b", V311, AtLeastOnce),
            ("t/c", V5, ExactlyOnce),
            ("t/d", V311, ExactlyOnce),
        ];
        let sessions = [
            ("all", V5, ExactlyOnce, "t/"),
            ("old", V311, ExactlyOnce, "t/"),
            ("modest", V5, AtLeastOnce, "t/"),
            ("few", V5, ExactlyOnce, "t/c"),
            ("versions", V5, AtLeastOnce, shadows::PREFIX),
        ];
        let publisher = |(topic, version, qos): (&str, _, _)| {
            Publisher::new([topic.to_owned()], version, qos, dice)
        };
        let mut publishers: Vec<_> = topics.into_iter().map(publisher).collect();
        let subscriber =
            |(id, version, qos, prefix)| Subscriber::new(id, version, qos, prefix, dice);
        let mut subscribers: Vec<_> = sessions.into_iter().map(subscriber).collect();
        if clocks_are_right {
            // What expires, and sessions that are away for as long.
            for (topic, qos) in [("e/a", AtLeastOnce), ("e/b", ExactlyOnce)] {
                let mut publisher = Publisher::new([topic.to_owned()], V5, qos, dice);
                publisher.intervals = &[1, 2, 5, 10, 3600];
                publisher.pace = Duration::from_millis(50);
                publishers.push(publisher);
            }
            for (id, qos) in [("guest", AtLeastOnce), ("visitor", ExactlyOnce)] {
                let mut subscriber = Subscriber::new(id, V5, qos, "e/", dice);
                subscriber.roamer.away = 0..8_000;
                subscribers.push(subscriber);
            }
        }
        let duellists = [("duel", V5), ("duel", V5), ("duel", V311)];
        let duellist = |(id, version)| Duellist::new(id, version, dice);
        let duellists = duellists.into_iter().map(duellist).collect();
        let keepers = (0..3).map(|number| Keeper::new(number, dice)).collect();
        let shadowers = (0..2).map(|number| Shadower::new(number, dice)).collect();
        let mortals = [("t/w", V5), ("t/x", V311)];
        let mortals = mortals.into_iter().map(|(topic, version)| Mortal::new(topic, version, dice));
        let mortals = mortals.collect();
        let sleepers = if clocks_are_right { 4 } else { 0 };
        let sleepers = (0..sleepers).map(|number| Sleeper::new(number, dice)).collect();
        let desk = Arc::new(Desk::default());
        // What one publishes goes to sessions, what the other does to nobody.
        let outcasts = [("t/o", V5), ("o/p", V311)];
        let outcast = |(topic, version)| Outcast::new(topic, version, &desk, dice);
        let outcasts = outcasts.into_iter().map(outcast).collect();
        let warden = Warden::new(authority, desk, dice);
        Self {
            publishers,
            subscribers,
            duellists,
            keepers,
            shadowers,
            mortals,
            sleepers,
            outcasts,
            warden,
        }
    }

    /// Lets the sessions subscribe, then everybody live until the place says that it is over.
    pub(crate) fn live<'scope, 'env>(
        &'env mut self,
        place: &'env Place<'env>,
        scope: &'scope Scope<'scope, 'env>,
    ) -> Running<'scope> {
        thread::scope(|scope| {
            for it in &mut self.subscribers {
                scope.spawn(|| it.subscribe(place));
            }
        });
        let mut finite = Vec::new();
        for it in &mut self.subscribers {
            scope.spawn(|| it.live(place));
        }
        for it in &mut self.publishers {
            finite.push(scope.spawn(|| it.live(place)));
        }
        for it in &mut self.duellists {
            finite.push(scope.spawn(|| it.live(place)));
        }
        for it in &mut self.keepers {
            finite.push(scope.spawn(|| it.live(place)));
        }
        for it in &mut self.shadowers {
            finite.push(scope.spawn(|| it.live(place)));
        }
        for it in &mut self.mortals {
            finite.push(scope.spawn(|| it.live(place)));
        }
        for it in &mut self.sleepers {
            finite.push(scope.spawn(|| it.live(place)));
        }
        for it in &mut self.outcasts {
            finite.push(scope.spawn(|| it.live(place)));
        }
        let warden = &mut self.warden;
        finite.push(scope.spawn(|| warden.live(place)));
        Running { finite }
    }
}
