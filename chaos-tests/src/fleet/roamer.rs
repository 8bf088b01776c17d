//! A client id that wanders from node to node, and does not always say goodbye.

use std::thread;
use std::time::{Duration, Instant};

use mqtt::{Connect, Version};

use super::Place;
use super::link::Link;
use crate::client::lasting;
use crate::record::What;
use crate::{Dice, End, Received};

/// How long a left connection is watched.
const WATCHED: Duration = Duration::from_secs(30);

/// See the module.
pub(super) struct Roamer {
    pub(super) client_id: String,
    pub(super) version: Version,
    /// Without a session that lasts.
    pub(super) clean: bool,
    /// How long it stays on a node, in milliseconds.
    pub(super) stay: std::ops::Range<u64>,
    /// How long it is connected to none between two stays, in milliseconds.
    pub(super) away: std::ops::Range<u64>,
    pub(super) dice: Dice,
    link: Option<Link>,
    /// Connections that were left without a word, and must end.
    left: Vec<(Link, Instant)>,
    moves_at: Instant,
    returns_at: Instant,
}

impl Roamer {
    pub(super) fn new(client_id: &str, version: Version, clean: bool, dice: &mut Dice) -> Self {
        Self {
            client_id: client_id.to_owned(),
            version,
            clean,
            stay: 500..5_000,
            away: 0..0,
            dice: dice.split(),
            link: None,
            left: Vec::new(),
            moves_at: Instant::now(),
            returns_at: Instant::now(),
        }
    }

    /// The connection, and whether it is a new one: when there was none, or it was time to move.
    /// `None` when it cannot be had now.
    pub(super) fn link(&mut self, place: &Place<'_>) -> Option<(&mut Link, bool)> {
        let restless = self.moves_at <= Instant::now();
        if self.link.is_some() && !restless {
            return self.link.as_mut().map(|link| (link, false));
        }
        self.leave();
        if self.returns_at > Instant::now() && !place.is_finishing() {
            thread::sleep(Duration::from_millis(30));
            return None;
        }
        let node = self.dice.within(0..place.addresses.len() as u64);
        let connect = match self.clean {
            true => Connect::new(self.version, &self.client_id),
            false => lasting(self.version, &self.client_id),
        };
        let address = place.addresses[node as usize];
        match Link::open(place.recorder, node + 1, address, &connect) {
            Ok(link) => {
                self.moves_at = Instant::now() + self.dice.millis(self.stay.clone());
                self.link = Some(link);
            }
            // It is tried again, on whichever node: nobody else may be there to wait for.
            Err(_) => thread::sleep(Duration::from_millis(30)),
        }
        self.link.as_mut().map(|link| (link, true))
    }

    /// A third each: closes the link, says goodbye, or lets the broker find out.
    fn leave(&mut self) {
        let Some(link) = self.link.take() else { return };
        match self.dice.within(0..3) {
            0 => drop(link),
            1 => drop(link.client.leave()),
            _ => self.left.push((link, Instant::now())),
        }
        if !self.away.is_empty() {
            self.returns_at = Instant::now() + self.dice.millis(self.away.clone());
        }
    }

    /// Does something with the connection; when that fails it is gone.
    pub(super) fn attempt<T>(
        &mut self,
        place: &Place<'_>,
        what: impl FnOnce(&mut Link) -> Result<T, End>,
    ) -> Option<T> {
        let outcome = what(self.link.as_mut()?);
        self.judge(place, outcome)
    }

    /// What an outcome means for the connection.
    pub(super) fn judge<T>(&mut self, place: &Place<'_>, outcome: Result<T, End>) -> Option<T> {
        match outcome {
            Ok(value) => return Some(value),
            Err(End::Closed(_)) => {}
            Err(End::Fault(text)) => {
                place.recorder.note(What::Broken { client: self.client_id.clone(), text });
            }
        }
        self.link = None;
        None
    }

    /// The next packet; also watches what was left behind, where everything but a sign of life is
    /// as good as lost.
    pub(super) fn next(&mut self, place: &Place<'_>, timeout: Duration) -> Option<Received> {
        let moment = Duration::from_millis(1);
        self.left.retain_mut(|(link, since)| {
            since.elapsed() < WATCHED && link.next(place.recorder, moment).is_ok()
        });
        self.attempt(place, |link| link.next(place.recorder, timeout)).flatten()
    }
}
