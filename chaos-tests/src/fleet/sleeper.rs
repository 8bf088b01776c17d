//! One whose session lasts for seconds: it comes back in time, or long after.

use std::thread;
use std::time::{Duration, Instant};

use mqtt::{Connect, Version};

use super::Place;
use crate::check::LATEST_END;
use crate::record::What;
use crate::{Client, Dice};

/// How long its session lasts without a connection.
const KEPT: Duration = Duration::from_secs(3);

/// See the module.
pub(super) struct Sleeper {
    client_id: String,
    dice: Dice,
}

impl Sleeper {
    pub(super) fn new(number: usize, dice: &mut Dice) -> Self {
        Self { client_id: format!("sleeper {number}"), dice: dice.split() }
    }

    pub(super) fn live(&mut self, place: &Place<'_>) {
        while !place.is_finishing() && !place.is_over() {
            let Some((client, _)) = self.connect(place) else { continue };
            // From when its session counts is not known before the connection has ended.
            let left = place.recorder.now();
            if client.disconnect().is_err() {
                continue;
            }
            let wakes = match self.dice.one_in(2) {
                true => self.dice.millis(0..2_000),
                false => KEPT + LATEST_END + self.dice.millis(500..5_000),
            };
            if !self.sleep(place, wakes) {
                return;
            }
            let asked = place.recorder.now();
            if let Some((_, present)) = self.connect(place) {
                let client = self.client_id.clone();
                place.recorder.note(What::Woke { client, left, asked, kept: KEPT, present });
            }
        }
    }

    /// Sleeps; false when the story is over before.
    fn sleep(&self, place: &Place<'_>, length: Duration) -> bool {
        let since = Instant::now();
        while since.elapsed() < length {
            if place.is_finishing() || place.is_over() {
                return false;
            }
            thread::sleep(Duration::from_millis(20));
        }
        true
    }

    /// A connection to any node, and whether the session was there; `None` when it cannot be had now.
    fn connect(&mut self, place: &Place<'_>) -> Option<(Client, bool)> {
        let connect = Connect {
            clean_start: false,
            session_expiry: Some(KEPT.as_secs() as u32),
            ..Connect::new(Version::V5, &self.client_id)
        };
        let client = place.open(&connect, &mut self.dice)?;
        let present = client.session_present;
        Some((client, present))
    }
}
