//! Updates and reads shadows, from whatever node.

use std::time::{Duration, Instant};

use mqtt::{Outgoing, QoS};
use serde_json::{Value, json};

use super::{Place, link};
use crate::record::What;
use crate::{Arrival, Client, Dice, End};

/// How the topics of all shadows begin.
pub(super) const PREFIX: &str = "$aws/things/";
/// Where everybody is told of new versions.
pub(super) const ACCEPTED: &str = "$aws/things/+/shadow/update/accepted";

const THINGS: &[&str] = &["lamp", "door"];

/// One who updates and reads.
pub(super) struct Shadower {
    client_id: String,
    /// The upper half of all its values.
    number: u64,
    count: u64,
    dice: Dice,
    client: Option<Client>,
}

impl Shadower {
    pub(super) fn new(number: u64, dice: &mut Dice) -> Self {
        let client_id = format!("shadower {number}");
        Self { client_id, number, count: 0, dice: dice.split(), client: None }
    }

    pub(super) fn live(&mut self, place: &Place<'_>) {
        while !place.is_finishing() && !place.is_over() {
            let Some(mut client) = self.connection(place) else { continue };
            let thing = self.dice.pick(THINGS);
            self.count += 1;
            let value = (self.number << 32) | self.count;
            let outcome = match self.dice.one_in(3) {
                true => update(place, &mut client, thing, value),
                false => read(place, &mut client, thing, value),
            };
            self.client = (outcome.is_ok() && !self.dice.one_in(20)).then_some(client);
        }
    }

    fn connection(&mut self, place: &Place<'_>) -> Option<Client> {
        if let Some(client) = self.client.take() {
            return Some(client);
        }
        let mut client = place.brief(&self.client_id, &mut self.dice)?;
        let mut filters = Vec::new();
        for way in ["update", "get"] {
            for answer in ["accepted", "rejected"] {
                filters.push(format!("$aws/things/+/shadow/{way}/{answer}"));
            }
        }
        let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
        client.subscribe(&filters, QoS::AtMostOnce).ok()?;
        Some(client)
    }
}

fn update(place: &Place<'_>, client: &mut Client, thing: &str, value: u64) -> Result<(), End> {
    let asked = place.recorder.now();
    let body = json!({"state": {"desired": {"n": value}}, "clientToken": value.to_string()});
    let answer = ask(client, thing, "update", &body);
    let version = answer.as_ref().ok().and_then(|answer| answer["version"].as_u64());
    let (key, acknowledged) = (thing.to_owned(), version.is_some());
    place.recorder.note(What::Wrote { key, value, asked, acknowledged, version });
    answer.map(drop)
}

fn read(place: &Place<'_>, client: &mut Client, thing: &str, token: u64) -> Result<(), End> {
    let asked = place.recorder.now();
    let answer = ask(client, thing, "get", &json!({"clientToken": token.to_string()}))?;
    let value = answer["state"]["desired"]["n"].as_u64();
    if let (Some(value), Some(version)) = (value, answer["version"].as_u64()) {
        let (key, version) = (thing.to_owned(), Some(version));
        place.recorder.note(What::Read { key, value, asked, version });
    }
    Ok(())
}

/// The answer to a request, which names its token.
fn ask(client: &mut Client, thing: &str, way: &str, body: &Value) -> Result<Value, End> {
    let topic = format!("{PREFIX}{thing}/shadow/{way}");
    let payload = body.to_string();
    let (packet_id, qos) = (Some(client.new_id()), QoS::AtLeastOnce);
    client.publish(&Outgoing { packet_id, qos, ..Outgoing::new(&topic, payload.as_bytes()) })?;
    let since = Instant::now();
    let left = || link::PATIENCE.saturating_sub(since.elapsed()).max(Duration::from_millis(1));
    while let Some(arrival) = client.next_arrival(left())? {
        let answer: Value = serde_json::from_slice(&arrival.payload)
            .map_err(|error| End::Fault(format!("{}: {error}", arrival.topic)))?;
        let its_own = answer["clientToken"] == body["clientToken"];
        if its_own && arrival.topic.starts_with(&topic) {
            return Ok(answer);
        }
        if since.elapsed() > link::PATIENCE {
            break;
        }
    }
    End::fault("no answer")
}

/// What a lasting session is told by `accepted`.
pub(super) fn told(client: &str, arrival: &Arrival) -> Result<What, End> {
    let said: Value = serde_json::from_slice(&arrival.payload)
        .map_err(|error| End::Fault(format!("{}: {error}", arrival.topic)))?;
    let key = arrival.topic.strip_prefix(PREFIX).and_then(|rest| rest.split('/').next());
    let value = said["state"]["desired"]["n"].as_u64();
    match (key, value, said["version"].as_u64()) {
        (Some(key), Some(value), Some(version)) => {
            Ok(What::Told { client: client.to_owned(), key: key.to_owned(), value, version })
        }
        _ => End::fault(format!("{} says {said}", arrival.topic)),
    }
}
