//! Shadow updates over MQTT under kill -9: what was acknowledged is in the document, versions grow
//! by one, and a persistent subscriber is told of each.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chaos_tests::{Arrival, Client, Dice, End, Node, PATIENCE, Received, rounds};
use mqtt::QoS::AtLeastOnce;
use mqtt::Version::V5;
use mqtt::{AckKind, Outgoing, PacketId, Reason};
use serde_json::{Value, json};

const WINDOW: usize = 4;

/// Updates one shadow with ever greater numbers, and resends what was not acknowledged.
struct Updater {
    thing: String,
    next: u64,
    pending: VecDeque<(PacketId, u64)>,
    acknowledged: Vec<u64>,
    last_id: u16,
    client: Option<Client>,
}

impl Updater {
    fn prefix(&self) -> String {
        format!("$aws/things/{}/shadow", self.thing)
    }

    fn send(&mut self, id: PacketId, number: u64, dup: bool) -> Result<(), End> {
        let topic = format!("{}/update", self.prefix());
        let update =
            json!({"state": {"desired": {"n": number}}, "clientToken": number.to_string()});
        let payload = update.to_string();
        let client = self.client.as_mut().expect("it is connected");
        let (packet_id, qos) = (Some(id), AtLeastOnce);
        client.publish(&Outgoing {
            packet_id,
            qos,
            dup,
            ..Outgoing::new(&topic, payload.as_bytes())
        })
    }

    /// Until the link breaks, or until everything is acknowledged when no more is wanted.
    fn live(&mut self, address: SocketAddr, enough: &AtomicBool) -> Result<(), End> {
        self.client = Some(Client::resume(address, V5, &format!("updater of {}", self.thing))?);
        for (id, number) in self.pending.clone() {
            self.send(id, number, true)?;
        }
        let mut heard = Instant::now();
        loop {
            while self.pending.len() < WINDOW && !enough.load(Ordering::SeqCst) {
                self.last_id = self.last_id.checked_add(1).unwrap_or(1);
                let id = PacketId::new(self.last_id).expect("it is never zero");
                let number = self.next;
                self.next += 1;
                self.pending.push_back((id, number));
                self.send(id, number, false)?;
            }
            let Some(&(id, number)) = self.pending.front() else { return Ok(()) };
            let client = self.client.as_mut().expect("it is connected");
            match client.next(Duration::from_millis(50))? {
                Some(Received::Ack { kind: AckKind::PubAck, id: of, reason })
                    if of == id
                        && matches!(reason, Reason::Success | Reason::NoMatchingSubscribers) =>
                {
                    self.pending.pop_front();
                    self.acknowledged.push(number);
                    heard = Instant::now();
                }
                None if heard.elapsed() < PATIENCE => {}
                other => return End::fault(format!("{other:?} instead of the PUBACK of {id}")),
            }
        }
    }
}

/// What the subscriber was told of one thing: version -> number.
#[derive(Debug, Default)]
struct Told {
    accepted: BTreeMap<u64, u64>,
    delta: BTreeMap<u64, u64>,
    rejected: Vec<String>,
}

impl Told {
    /// Notes one document; a version that says two things is a fault.
    fn note(&mut self, arrival: &Arrival) -> Result<(), String> {
        let text = String::from_utf8_lossy(&arrival.payload);
        let said: Value =
            serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
        let (notes, number) = match arrival.topic.rsplit('/').next() {
            Some("accepted") => (&mut self.accepted, &said["state"]["desired"]["n"]),
            Some("delta") => (&mut self.delta, &said["state"]["n"]),
            _ => {
                self.rejected.push(text.into_owned());
                return Ok(());
            }
        };
        let (Some(version), Some(number)) = (said["version"].as_u64(), number.as_u64()) else {
            return Err(format!("{}: {text}", arrival.topic));
        };
        match notes.insert(version, number) {
            Some(before) if before != number => {
                Err(format!("{}: version {version} says {before} and {number}", arrival.topic))
            }
            _ => Ok(()),
        }
    }
}

fn document(node: &Node, updater: &Updater) -> Value {
    let mut client = Client::brief(node.address(), "reader").unwrap();
    let prefix = updater.prefix();
    client.subscribe(&[&format!("{prefix}/get/accepted")], AtLeastOnce).unwrap();
    client.publish(&Outgoing::new(&format!("{prefix}/get"), b"")).unwrap();
    let got = client.next_arrival(PATIENCE).unwrap().expect("an answer to get");
    serde_json::from_slice(&got.payload).unwrap()
}

/// Takes what there is for the listener until it is quiet.
fn listen(node: &Node, told: &mut BTreeMap<String, Told>, faults: &mut Vec<String>) {
    let mut client = Client::resume(node.address(), V5, "listener").unwrap();
    assert!(client.session_present, "the listener's session is gone");
    while let Some(arrival) = client.next_arrival(Duration::from_millis(500)).unwrap() {
        let thing = arrival.topic.split('/').nth(2).unwrap_or_default().to_owned();
        faults.extend(told.entry(thing).or_default().note(&arrival).err());
        client.acknowledge(AckKind::PubAck, arrival.id.expect("QoS 1 has an id")).unwrap();
    }
    client.disconnect().unwrap();
}

#[test]
fn acknowledged_updates_survive_and_are_told() {
    let mut dice = Dice::of("shadows");
    let mut node = Node::started(&mut dice);
    let mut updaters: Vec<_> = (0..3)
        .map(|number| Updater {
            thing: format!("lamp-{number}"),
            next: 1,
            pending: VecDeque::new(),
            acknowledged: Vec::new(),
            last_id: 0,
            client: None,
        })
        .collect();
    let mut listener = Client::resume(node.address(), V5, "listener").unwrap();
    for updater in &updaters {
        let topics = ["accepted", "delta", "rejected"]
            .map(|topic| format!("{}/update/{topic}", updater.prefix()));
        listener.subscribe(&topics.each_ref().map(String::as_str), AtLeastOnce).unwrap();
    }
    drop(listener);
    let (mut told, mut faults) = (BTreeMap::new(), Vec::new());
    let enough = AtomicBool::new(false);
    for round in 0..rounds(4) {
        let address = node.address();
        let ends = thread::scope(|scope| {
            let enough = &enough;
            let parties: Vec<_> = updaters
                .iter_mut()
                .map(|updater| scope.spawn(move || updater.live(address, enough)))
                .collect();
            thread::sleep(dice.millis(20..300));
            node.kill9();
            parties.into_iter().map(|party| party.join().unwrap()).collect::<Vec<_>>()
        });
        let wrong: Vec<_> = ends.iter().filter(|end| **end != Err(End::Closed(None))).collect();
        assert!(wrong.is_empty(), "round {round}: {wrong:?}\n{}", node.said());
        node.start();
        // The listener is there every other time: what it missed waits for it.
        if round % 2 == 1 {
            listen(&node, &mut told, &mut faults);
        }
        for updater in updaters.iter().filter(|updater| !updater.acknowledged.is_empty()) {
            let found = document(&node, updater)["state"]["desired"]["n"].as_u64();
            let (least, most) = (updater.acknowledged.last().copied(), updater.next);
            if found < least || found >= Some(most) {
                let thing = &updater.thing;
                faults.push(format!("round {round}, {thing}: {found:?}, acknowledged {least:?}"));
            }
        }
    }
    enough.store(true, Ordering::SeqCst);
    for updater in &mut updaters {
        updater.live(node.address(), &enough).unwrap();
        updater.client = None;
    }
    listen(&node, &mut told, &mut faults);
    for updater in &updaters {
        faults.extend(faults_of(updater, &document(&node, updater), &told[&updater.thing]));
    }
    assert!(faults.is_empty(), "SEED={}\n  {}\n{}", dice.seed(), faults.join("\n  "), node.said());
}

fn faults_of(updater: &Updater, document: &Value, told: &Told) -> Vec<String> {
    let mut faults = Vec::new();
    let thing = &updater.thing;
    println!(
        "{thing}: {} acknowledged, {} versions",
        updater.acknowledged.len(),
        told.accepted.len()
    );
    let version = document["version"].as_u64().unwrap_or(0);
    let gaps: Vec<_> = (1..=version).filter(|it| !told.accepted.contains_key(it)).collect();
    if !gaps.is_empty() {
        faults.push(format!("{thing}: version {version}, accepted was not told of {gaps:?}"));
    }
    let last = told.accepted.last_key_value().map(|(version, number)| (*version, *number));
    let found = document["state"]["desired"]["n"].as_u64().map(|number| (version, number));
    if last != found {
        faults.push(format!("{thing}: version and number are {found:?}, last told was {last:?}"));
    }
    for (name, notes) in [("accepted", &told.accepted), ("delta", &told.delta)] {
        let untold: Vec<_> = updater
            .acknowledged
            .iter()
            .filter(|number| !notes.values().any(|it| it == *number))
            .collect();
        if !untold.is_empty() {
            faults.push(format!("{thing}: acknowledged, and {name} was not told of {untold:?}"));
        }
    }
    if !told.rejected.is_empty() {
        faults.push(format!("{thing}: rejected {:?}", told.rejected));
    }
    faults
}
