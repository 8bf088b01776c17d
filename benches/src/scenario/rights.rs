//! Rights that are taken from many open connections at once, and how soon none has them any more.
//!
//! All connections show one certificate. First its policy gets a default version that allows no
//! publication: each connection publishes until it is refused. Then the certificate is made inactive: each
//! connection has to end. Times are counted from the answer to the request that took the right.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::rest::{Connection, Key};
use super::run_name;
use crate::client::{Client, read_packet};
use crate::frame::{self, Connect, Version};
use crate::report::Report;
use crate::stream::{Transport, mutual_tls_of};

/// Threads among which the connections are divided.
const WORKERS: usize = 8;
/// How long a right may outlive its end before the run is given up.
const PATIENCE: Duration = Duration::from_secs(20);

/// What rights are taken from.
#[derive(Clone, Debug)]
pub struct Rights {
    /// How many connections.
    pub connections: usize,
    /// The broker's listener for mutual TLS.
    pub tls_address: SocketAddr,
    /// The authority of the broker's certificate, a PEM file.
    pub ca: PathBuf,
    /// The broker's listener for HTTP.
    pub address: SocketAddr,
    /// Signs the requests to it.
    pub key: Key,
}

/// Where the workers and who takes the rights wait for each other, and when a right was taken.
struct Stage {
    barrier: Barrier,
    taken: Mutex<Instant>,
}

impl Stage {
    fn wait(&self) -> Instant {
        self.barrier.wait();
        *self.taken.lock().expect("no worker panics")
    }
}

/// How long rights outlived their end, at the most.
#[derive(Clone, Copy, Debug, Default)]
struct Outlived {
    /// When the last publication was begun that was still taken; none was taken if zero.
    accepted: Duration,
    /// How many were taken.
    accepted_count: u64,
    /// When the last connection was seen to publish no more.
    refused: Duration,
    /// When the last connection was seen to have ended.
    closed: Duration,
}

impl Rights {
    /// Opens the connections and takes their rights.
    pub fn run(&self) -> Result<Report> {
        let run = run_name().replace('.', "-");
        // Each over a connection of its own: none is kept while nobody asks.
        let ask = |method: &str, path: &str, query: &str, body: &str| {
            Connection::dial(self.address, self.key.clone())?.ask(method, path, query, body)
        };
        let made = ask("POST", "/keys-and-certificate", "setAsActive=true", "")?;
        let text = |value: &Value, what: &str| {
            value
                .as_str()
                .map(str::to_owned)
                .with_context(|| format!("a certificate has no {what}"))
        };
        let id = text(&made["certificateId"], "id")?;
        let target = text(&made["certificateArn"], "ARN")?;
        let certificate = text(&made["certificatePem"], "PEM")?;
        let private_key = text(&made["keyPair"]["PrivateKey"], "private key")?;
        let policy = format!("rights-{run}");
        let document = |actions: &[&str]| {
            let statement = json!({"Effect": "Allow", "Action": actions, "Resource": "*"});
            let document = json!({"Version": "2012-10-17", "Statement": [statement]}).to_string();
            json!({"policyDocument": document}).to_string()
        };
        let allowed = document(&["iot:Connect", "iot:Publish"]);
        ask("POST", &format!("/policies/{policy}"), "", &allowed)?;
        let attach = json!({"target": target}).to_string();
        ask("PUT", &format!("/target-policies/{policy}"), "", &attach)?;

        let ca = fs::read(&self.ca).with_context(|| format!("reading {}", self.ca.display()))?;
        let tls = mutual_tls_of(&ca, certificate.as_bytes(), private_key.as_bytes())?;
        let transport = Transport::Tls(Arc::new(tls));
        let stage = Stage { barrier: Barrier::new(WORKERS + 1), taken: Mutex::new(Instant::now()) };
        let outlived = thread::scope(|scope| {
            let (stage, run, transport) = (&stage, &run, &transport);
            let workers = (0..WORKERS).map(|worker| {
                scope.spawn(move || {
                    let numbers = (worker..self.connections).step_by(WORKERS);
                    self.work(stage, transport, numbers.map(|number| format!("r{number}.{run}")))
                })
            });
            let workers: Vec<_> = workers.collect();
            let mut asked = Vec::new();
            for (method, path, query, body) in [
                (
                    "POST",
                    format!("/policies/{policy}/version"),
                    "setAsDefault=true",
                    document(&["iot:Connect"]),
                ),
                ("PUT", format!("/certificates/{id}"), "newStatus=INACTIVE", String::new()),
            ] {
                stage.wait();
                asked.push(ask(method, &path, query, &body));
                *stage.taken.lock().expect("no worker panics") = Instant::now();
                stage.wait();
            }
            asked.into_iter().collect::<Result<Vec<_>>>()?;
            let mut all = Outlived::default();
            for worker in workers {
                let one = worker.join().expect("no worker panics")?;
                all = Outlived {
                    accepted: all.accepted.max(one.accepted),
                    accepted_count: all.accepted_count + one.accepted_count,
                    refused: all.refused.max(one.refused),
                    closed: all.closed.max(one.closed),
                };
            }
            Ok::<_, anyhow::Error>(all)
        })?;

        let mut report = Report::new(format!("rights taken from {} connections", self.connections));
        let millis = |duration: Duration| duration.as_secs_f64() * 1e3;
        report.add("taken after change", outlived.accepted_count as f64);
        report.add("last of them begun ms", millis(outlived.accepted));
        report.add("all refused ms", millis(outlived.refused));
        report.add("all closed ms", millis(outlived.closed));
        Ok(report)
    }

    /// One worker's part. Whatever fails, it comes to each meeting: the others wait there.
    fn work(
        &self,
        stage: &Stage,
        transport: &Transport,
        clients: impl Iterator<Item = String>,
    ) -> Result<Outlived> {
        let mut outlived = Outlived::default();
        let opened: Result<Vec<Client>> =
            clients.map(|client| self.open(transport, &client)).collect();
        stage.wait();
        let taken = stage.wait();
        let refused = opened.and_then(|mut devices| {
            for device in &mut devices {
                until_refused(device, taken, &mut outlived)?;
            }
            outlived.refused = taken.elapsed();
            Ok(devices)
        });
        stage.wait();
        let taken = stage.wait();
        for mut device in refused? {
            // What is read until then may be a DISCONNECT.
            while read_packet(&mut device.stream).is_ok() {}
            ensure!(taken.elapsed() < PATIENCE, "a connection outlives its certificate");
            outlived.closed = taken.elapsed();
        }
        Ok(outlived)
    }

    /// Opens a connection, and sees that it may publish.
    fn open(&self, transport: &Transport, client_id: &str) -> Result<Client> {
        let connect = Connect { client_id, version: Version::V5, keep_alive: 0, clean: true };
        let device = Client::connect(transport, self.tls_address, &connect);
        let mut device = device.with_context(|| format!("client {client_id}"))?;
        ensure!(may_publish(&mut device)?, "client {client_id} may not publish at first");
        Ok(device)
    }
}

/// Publishes until that is refused.
fn until_refused(device: &mut Client, taken: Instant, outlived: &mut Outlived) -> Result<()> {
    loop {
        let begun = taken.elapsed();
        if !may_publish(device)? {
            return Ok(());
        }
        ensure!(begun < PATIENCE, "a connection may publish what its policy does not allow");
        outlived.accepted = outlived.accepted.max(begun);
        outlived.accepted_count += 1;
    }
}

/// Publishes to nobody; whether that is taken.
fn may_publish(device: &mut Client) -> Result<bool> {
    device.stream.write_all(&frame::empty_publish(1, "rights"))?;
    match read_packet(&mut device.stream)? {
        (0x40, body) => Ok(body.get(2).is_none_or(|reason| *reason < 0x80)),
        (first, _) => bail!("expected PUBACK, got a packet of type {}", first >> 4),
    }
}
