//! How long sessions wait for what they had not acknowledged when their node was killed.

use std::fmt;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use mqtt::QoS::AtLeastOnce;
use mqtt::Version::V5;

use super::percentile;
use crate::client::lasting;
use crate::cluster::{Cluster, Equipment, NODES};
use crate::{Client, Dice, End};

const SESSIONS: usize = 16;
/// Longer than anything that is measured.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was measured.
#[derive(Debug)]
pub struct Failover {
    kills: usize,
    /// From each kill to the first publication that any session was given again.
    first: Vec<Duration>,
    /// The same for each session.
    each: Vec<Duration>,
    /// From each kill until a publication to each session was acknowledged on a node that lives.
    published: Vec<Duration>,
}

impl fmt::Display for Failover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} kills of a node that leads, {SESSIONS} sessions on it", self.kills)?;
        for (name, values) in [
            ("first redelivery of a kill", &self.first),
            ("first redelivery of a session", &self.each),
            ("PUBACK of a new publication", &self.published),
        ] {
            let [p50, p99, most] =
                [50, 99, 100].map(|percent| percentile(&mut values.clone(), percent).as_millis());
            writeln!(f, "{name:<32} p50 {p50:>6} ms  p99 {p99:>6} ms  most {most:>6} ms")?;
        }
        Ok(())
    }
}

fn failed(end: End) -> anyhow::Error {
    anyhow!("{end:?}")
}

/// Kills a node that leads so many times. `None` where there can be no cluster.
pub fn failover(kills: usize, dice: &mut Dice) -> Result<Option<Failover>> {
    let Some(cluster) = Cluster::start(Equipment::default())? else { return Ok(None) };
    let mut measured =
        Failover { kills, first: Vec::new(), each: Vec::new(), published: Vec::new() };
    for number in 0..SESSIONS {
        let (id, topic) = names(number);
        let mut client = Client::resume(cluster.addresses()[0], V5, &id).map_err(failed)?;
        client.subscribe(&[&topic], AtLeastOnce).map_err(failed)?;
    }
    for kill in 0..kills {
        let victim = leader(&cluster, dice)?;
        let alive: Vec<SocketAddr> = (1..=NODES)
            .filter(|node| *node != victim)
            .map(|node| cluster.addresses()[node as usize - 1])
            .collect();
        let sessions = wait_for_something(&cluster, victim, alive[0])?;
        cluster.kill9(victim)?;
        let killed = Instant::now();
        drop(sessions);
        let (each, published) = thread::scope(|scope| {
            let alive = &alive;
            let sessions: Vec<_> = (0..SESSIONS)
                .map(|number| scope.spawn(move || resume(number, alive, killed)))
                .collect();
            let publishers: Vec<_> = (0..SESSIONS)
                .map(|number| scope.spawn(move || publish(number, alive, killed)))
                .collect();
            let join = |all: Vec<thread::ScopedJoinHandle<'_, Result<Duration>>>| {
                let joined = all.into_iter().map(|it| it.join().expect("no party panics"));
                joined.collect::<Result<Vec<Duration>>>()
            };
            (join(sessions), join(publishers))
        });
        let each = each?;
        measured.first.push(each.iter().copied().min().context("there are sessions")?);
        measured.each.extend(each);
        measured.published.extend(published?);
        eprintln!("kill {}: node {victim}, {:?}", kill + 1, measured.first.last());
        cluster.spawn(victim)?;
        cluster.wait_ready()?;
    }
    Ok(Some(measured))
}

fn names(number: usize) -> (String, String) {
    (format!("session {number}"), format!("failover/{number}"))
}

/// A node that leads at least one group.
fn leader(cluster: &Cluster, dice: &mut Dice) -> Result<u64> {
    let asked = Instant::now();
    loop {
        let leaders: Vec<u64> = cluster.leaders().into_iter().flatten().collect();
        if !leaders.is_empty() {
            return Ok(dice.pick(&leaders));
        }
        ensure!(asked.elapsed() < PATIENCE, "nobody leads");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Sessions on the node, each with a publication that it has not acknowledged.
fn wait_for_something(cluster: &Cluster, node: u64, elsewhere: SocketAddr) -> Result<Vec<Client>> {
    let address = cluster.addresses()[node as usize - 1];
    let mut publisher = Client::brief(elsewhere, "publisher").map_err(failed)?;
    let mut sessions = Vec::new();
    for number in 0..SESSIONS {
        let (id, topic) = names(number);
        let mut client = Client::resume(address, V5, &id).map_err(failed)?;
        ensure!(client.session_present, "{id} is gone");
        publisher.publish_acknowledged(&topic, b"before", false).map_err(failed)?;
        let arrival = client.next_arrival(PATIENCE).map_err(failed)?;
        ensure!(arrival.is_some(), "{id} is given nothing");
        sessions.push(client);
    }
    Ok(sessions)
}

/// Goes from node to node until the session is given something; then takes all there is.
fn resume(number: usize, alive: &[SocketAddr], killed: Instant) -> Result<Duration> {
    let (id, _) = names(number);
    for address in alive.iter().cycle() {
        ensure!(killed.elapsed() < PATIENCE, "{id} is given nothing");
        let patience = Duration::from_secs(10);
        let Ok(mut client) = Client::open_within(*address, &lasting(V5, &id), patience) else {
            thread::sleep(Duration::from_millis(20));
            continue;
        };
        let Ok(Some(first)) = client.next_arrival(patience) else { continue };
        let waited = killed.elapsed();
        let mut next = Some(first);
        while let Some(arrival) = next {
            let id = arrival.id.context("it has QoS 1")?;
            client.acknowledge(mqtt::AckKind::PubAck, id).map_err(failed)?;
            // What is published meanwhile is acknowledged by the next one who waits.
            next = client.next_arrival(Duration::from_millis(200)).map_err(failed)?;
        }
        return Ok(waited);
    }
    unreachable!("it never ends")
}

/// Tries until something new is acknowledged.
fn publish(number: usize, alive: &[SocketAddr], killed: Instant) -> Result<Duration> {
    let (id, topic) = names(number);
    for address in alive.iter().cycle() {
        ensure!(killed.elapsed() < PATIENCE, "nothing is taken for {id}");
        let client = Client::brief(*address, &format!("publisher to {id}"));
        let published =
            client.and_then(|mut client| client.publish_acknowledged(&topic, b"new", false));
        if published.is_ok() {
            return Ok(killed.elapsed());
        }
        thread::sleep(Duration::from_millis(20));
    }
    unreachable!("it never ends")
}
