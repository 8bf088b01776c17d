//! What all clients share: the clock, the nodes they can reach, and what they have seen.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use chaos_tests::Dice;
use chaos_tests::record::{At, Event, What};
use tokio::io::DuplexStream;
use tokio::time::Instant;

use super::life::Entrance;

/// How far the story is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Act {
    /// Nodes fail, clients come and go.
    Trouble,
    /// The nodes are well: what is begun is brought to its end.
    Calm,
    /// Hours have passed by all clocks.
    Later,
}

/// See the module.
pub(super) struct Stage {
    begun: Instant,
    /// Whether a node that says nothing may go on before long.
    pub(super) is_patient: bool,
    pub(super) act: Cell<Act>,
    /// Time that has passed all at once.
    pub(super) skipped: Cell<Duration>,
    pub(super) entrances: RefCell<BTreeMap<u64, Entrance>>,
    /// Nodes that there were at any time.
    pub(super) nodes: Cell<u64>,
    history: RefCell<Vec<Event>>,
    connections: Cell<u64>,
    /// Clients that still publish.
    pub(super) publishing: Cell<usize>,
    /// Clients that have not yet done all they do before hours pass.
    pub(super) acting: RefCell<Vec<String>>,
}

impl Stage {
    pub(super) fn new(nodes: u64, is_patient: bool) -> Self {
        Self {
            begun: Instant::now(),
            is_patient,
            act: Cell::new(Act::Trouble),
            skipped: Cell::default(),
            entrances: RefCell::default(),
            nodes: Cell::new(nodes),
            history: RefCell::default(),
            connections: Cell::new(0),
            publishing: Cell::new(0),
            acting: RefCell::default(),
        }
    }

    pub(super) fn now(&self) -> At {
        self.begun.elapsed() + self.skipped.get()
    }

    pub(super) fn at(&self, millis: u64) -> Instant {
        self.begun + Duration::from_millis(millis)
    }

    pub(super) fn note(&self, what: What) {
        self.history.borrow_mut().push(Event { at: self.now(), what });
    }

    pub(super) fn history(&self) -> Vec<Event> {
        self.history.borrow().clone()
    }

    /// A number for a connection.
    pub(super) fn connection(&self) -> u64 {
        self.connections.replace(self.connections.get() + 1)
    }

    /// Any node, and a connection to it if it is up.
    pub(super) fn dial(&self, dice: &mut Dice) -> Option<(u64, DuplexStream)> {
        let node = 1 + dice.within(0..self.nodes.get());
        let stream = self.entrances.borrow().get(&node)?.enter(dice)?;
        Some((node, stream))
    }

    /// Somebody has done all that.
    pub(super) fn done(&self, client: &str) {
        let mut acting = self.acting.borrow_mut();
        let at = acting.iter().position(|it| it == client).expect("it was acting");
        acting.swap_remove(at);
    }

    /// Whether whoever publishes shall come to an end.
    pub(super) fn is_calm(&self) -> bool {
        self.act.get() >= Act::Calm
    }

    /// Whether nobody publishes any more.
    pub(super) fn is_quiet(&self) -> bool {
        self.is_calm() && self.publishing.get() == 0
    }
}
