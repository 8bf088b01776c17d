//! Two who believe that a client id is theirs: each takes it from the other again and again.

use std::time::Duration;

use mqtt::Version;

use super::Place;
use super::roamer::Roamer;
use crate::Dice;

/// One of them.
pub(super) struct Duellist(Roamer);

impl Duellist {
    pub(super) fn new(client_id: &str, version: Version, dice: &mut Dice) -> Self {
        let mut roamer = Roamer::new(client_id, version, true, dice);
        roamer.stay = 50..1_500;
        Self(roamer)
    }

    pub(super) fn live(&mut self, place: &Place<'_>) {
        while !place.is_finishing() && !place.is_over() {
            if self.0.link(place).is_some() {
                self.0.next(place, Duration::from_millis(20));
            }
        }
    }
}
