//! Connects, and connects again: how fast a broker takes clients in, plain or by mutual TLS.
//!
//! Threads instead of the engine: a handshake is a conversation, and with TLS both sides spend
//! their time in cryptography. TLS sessions are never resumed, as after an outage.

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Target, run_name};
use crate::client::Client;
use crate::frame::{Connect, DISCONNECT};
use crate::histogram::Histogram;
use crate::live::Live;
use crate::report::{Meter, Report};

/// How often the line on the terminal is looked after.
const LOOKS: Duration = Duration::from_millis(50);

/// A storm of connections.
#[derive(Clone, Debug)]
pub struct Storm {
    /// How many connect at the same time.
    pub concurrency: usize,
    /// For how long.
    pub duration: Duration,
}

#[derive(Default)]
struct Tally {
    failed: u64,
    error: Option<anyhow::Error>,
    latencies: Histogram,
}

impl Storm {
    /// Connects and disconnects for the whole time.
    pub fn run(&self, target: &Target) -> Result<Report> {
        let run = run_name();
        let kind = target.transport.name();
        let (concurrency, version) = (self.concurrency, target.version);
        let mut report = Report::new(format!(
            "storm of {kind} connections, {concurrency} at a time, {version:?}"
        ));
        let total = Mutex::new(Tally::default());
        let connected = AtomicU64::new(0);
        let mut live = Live::new("connections");
        let meter = Meter::start(&target.pids)?;
        let deadline = Instant::now() + self.duration;
        thread::scope(|scope| {
            for worker in 0..concurrency {
                let (run, total, connected) = (&run, &total, &connected);
                scope.spawn(move || {
                    let id = format!("c{worker}.{run}");
                    let tally = self.work(target, &id, deadline, connected);
                    total.lock().expect("no worker panics").add(tally);
                });
            }
            while Instant::now() < deadline {
                live.show(Instant::now(), connected.load(Ordering::Relaxed));
                thread::sleep(LOOKS);
            }
        });
        drop(live);
        let total = total.into_inner().expect("no worker panics");
        meter.stop(connected.into_inner(), &mut report)?;
        report.add_quantiles(&total.latencies);
        if let Some(error) = total.error {
            report.failures.push(format!("{} connects failed, e.g.: {error:#}", total.failed));
        }
        Ok(report)
    }

    fn work(
        &self,
        target: &Target,
        client_id: &str,
        deadline: Instant,
        connected: &AtomicU64,
    ) -> Tally {
        let mut tally = Tally::default();
        loop {
            let start = Instant::now();
            if start > deadline {
                return tally;
            }
            match connect_once(target, client_id) {
                Ok(()) => {
                    connected.fetch_add(1, Ordering::Relaxed);
                    tally.latencies.record(start.elapsed().as_nanos() as u64);
                }
                Err(error) => {
                    tally.failed += 1;
                    tally.error.get_or_insert(error);
                }
            }
        }
    }
}

/// CONNECT, CONNACK, DISCONNECT.
fn connect_once(target: &Target, client_id: &str) -> Result<()> {
    let version = target.version;
    let connect = Connect { client_id, version, keep_alive: 30, clean: true };
    let mut client = Client::connect(&target.transport, target.address, &connect)?;
    client.stream.write_all(&DISCONNECT)?;
    // DISCONNECT is sent: a broker that has closed already did nothing wrong.
    let _ = client.stream.shutdown();
    Ok(())
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.failed += other.failed;
        self.error = self.error.take().or(other.error);
        self.latencies.merge(&other.latencies);
    }
}
