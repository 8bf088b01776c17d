//! A network that loses, delays, doubles and reorders, and can be cut in any direction.

use std::collections::{BTreeMap, BTreeSet};

use cluster::{GroupId, PeerMessage};
use storage::dice::Dice;

/// How bad it is.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Of a thousand messages so many are lost,
    pub lost: u64,
    /// so many come twice,
    pub doubled: u64,
    /// and so many overtake others.
    pub overtaking: u64,
    /// A message takes between one and so many milliseconds.
    pub delay: u64,
}

impl Weather {
    /// Nothing is lost, and little late.
    pub const FINE: Self = Self { lost: 0, doubled: 0, overtaking: 0, delay: 3 };
}

/// See the module.
pub struct Network {
    /// How bad it is now.
    pub weather: Weather,
    /// Whether nodes talk over streams, as they do: where nothing comes back, nothing goes. Raft can do
    /// without that.
    pub streams: bool,
    /// From whom to whom nothing goes.
    cuts: BTreeSet<(u64, u64)>,
    /// From whom to whom there is no stream: what would be sent is lost, but what has arrived is there.
    pub closed: BTreeSet<(u64, u64)>,
    /// By arrival; the second number tells messages of one millisecond apart.
    flying: BTreeMap<(u64, u64), (u64, PeerMessage)>,
    sent: u64,
    /// Messages that begin like this are kept, and go no further.
    pub trap: Option<u8>,
    /// Those, and where they were to go.
    pub trapped: Vec<(u64, PeerMessage)>,
    /// When the last message in order arrives.
    last: BTreeMap<(u64, u64), u64>,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            weather: Weather::FINE,
            streams: false,
            cuts: BTreeSet::new(),
            closed: BTreeSet::new(),
            flying: BTreeMap::new(),
            sent: 0,
            trap: None,
            trapped: Vec::new(),
            last: BTreeMap::new(),
        }
    }
}

impl Network {
    /// Takes what one node has for another.
    pub fn send(
        &mut self,
        dice: &mut Dice,
        now: u64,
        (from, to): (u64, u64),
        batch: Vec<(GroupId, Vec<u8>)>,
    ) {
        for (group, message) in batch {
            if self.is_cut(from, to)
                || self.closed.contains(&(from, to))
                || dice.below(1000) < self.weather.lost
            {
                continue;
            }
            let copies = if dice.below(1000) < self.weather.doubled { 2 } else { 1 };
            let message = PeerMessage { from, group, message: message.into() };
            if self.trap.is_some() && self.trap == message.message.first().copied() {
                self.trapped.push((to, message));
                continue;
            }
            for _ in 0..copies {
                let mut arrival = now + 1 + dice.below(self.weather.delay);
                if dice.below(1000) >= self.weather.overtaking {
                    let last = self.last.entry((from, to)).or_default();
                    arrival = arrival.max(*last);
                    *last = arrival;
                }
                self.sent += 1;
                self.flying.insert((arrival, self.sent), (to, message.clone()));
            }
        }
    }

    /// What has arrived by now, and where.
    pub fn arrived(&mut self, now: u64) -> Vec<(u64, PeerMessage)> {
        let later = self.flying.split_off(&(now + 1, 0));
        let arrived = std::mem::replace(&mut self.flying, later).into_values();
        arrived.filter(|(to, message)| !self.is_cut(message.from, *to)).collect()
    }

    /// Whether what one node sends does not reach another.
    pub fn is_cut(&self, from: u64, to: u64) -> bool {
        self.cuts.contains(&(from, to)) || self.streams && self.cuts.contains(&(to, from))
    }

    /// All is well again.
    pub fn heal(&mut self) {
        self.weather = Weather::FINE;
        self.cuts.clear();
    }

    /// Cuts the nodes into parts that do not hear each other; `parts` says which is in which.
    pub fn split(&mut self, parts: &BTreeMap<u64, u64>) {
        self.cuts.clear();
        for (&a, part) in parts {
            self.cuts.extend(parts.iter().filter(|(_, of)| *of != part).map(|(&b, _)| (a, b)));
        }
    }

    /// Nothing goes from one node to another any more, but back it does.
    pub fn cut(&mut self, from: u64, to: u64) {
        self.cuts.insert((from, to));
    }
}
