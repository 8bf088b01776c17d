//! Writes and reads retained publications, from whatever node.

use std::time::{Duration, Instant};

use mqtt::QoS;

use super::{Place, link};
use crate::record::What;
use crate::{Client, Dice, End};

/// What all of them share.
pub(super) const KEYS: &[&str] = &["kept/a", "kept/b"];

/// One who writes and reads.
pub(super) struct Keeper {
    client_id: String,
    /// The upper half of all its values; 0 stands for nothing.
    number: u64,
    count: u64,
    dice: Dice,
    client: Option<Client>,
}

impl Keeper {
    pub(super) fn new(number: u64, dice: &mut Dice) -> Self {
        let client_id = format!("keeper {number}");
        Self { client_id, number, count: 0, dice: dice.split(), client: None }
    }

    pub(super) fn live(&mut self, place: &Place<'_>) {
        while !place.is_over() {
            let Some(mut client) = self.connection(place) else { continue };
            let key = self.dice.pick(KEYS);
            let finishing = place.is_finishing();
            let write = self.dice.one_in(3);
            let outcome = match finishing {
                true => KEYS.iter().try_for_each(|key| read(place, &mut client, key)),
                false if write => self.write(place, &mut client, key),
                false => read(place, &mut client, key),
            };
            if outcome.is_ok() && finishing {
                return;
            }
            // Now and then it moves on; and whoever hears nothing does, too.
            self.client = (outcome.is_ok() && !self.dice.one_in(20)).then_some(client);
        }
    }

    /// Its own connection; a new one is for a while.
    fn connection(&mut self, place: &Place<'_>) -> Option<Client> {
        let client = self.client.take();
        client.or_else(|| place.brief(&self.client_id, &mut self.dice))
    }

    /// Nobody sends it again: what was not acknowledged may be there or not.
    fn write(&mut self, place: &Place<'_>, client: &mut Client, key: &str) -> Result<(), End> {
        self.count += 1;
        let value = (self.number << 32) | self.count;
        let asked = place.recorder.now();
        let outcome = client.publish_acknowledged(key, value.to_string().as_bytes(), true);
        let (key, acknowledged) = (key.to_owned(), outcome.is_ok());
        place.recorder.note(What::Wrote { key, value, asked, acknowledged, version: None });
        outcome
    }
}

/// A subscription is told what is kept, also when it was there before.
fn read(place: &Place<'_>, client: &mut Client, key: &str) -> Result<(), End> {
    // What others write meanwhile comes too, and is not marked as kept.
    while client.next_arrival(Duration::from_millis(10))?.is_some() {}
    let asked = place.recorder.now();
    client.subscribe(&[key], QoS::AtMostOnce)?;
    let since = Instant::now();
    while let Some(arrival) = client.next_arrival(link::PATIENCE.saturating_sub(since.elapsed()))? {
        if arrival.topic != key {
            continue;
        }
        if !arrival.retain {
            // What is newer comes instead of what was kept, and is perhaps not kept yet.
            return End::fault("it is being written");
        }
        let text = String::from_utf8_lossy(&arrival.payload);
        let Ok(value) = text.parse() else {
            return End::fault(format!("{key} is {text}"));
        };
        let key = key.to_owned();
        place.recorder.note(What::Read { key, value, asked, version: None });
        return Ok(());
    }
    // Only an answer says that there is nothing: what is kept comes before it.
    client.ping()?;
    place.recorder.note(What::Read { key: key.to_owned(), value: 0, asked, version: None });
    Ok(())
}
