//! The registry over REST: things created, read one by one, and listed.
//!
//! Threads, as for a [`storm`](super::storm): a request waits for its answer. Requests are signed as
//! AWS's tools sign them, so that the broker's check of the signature is part of what is measured.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, ensure};
use serde_json::Value;

use super::rest::{self, Connection, Key};
use super::run_name;
use crate::histogram::Histogram;
use crate::process::resident_bytes;
use crate::report::{BYTES_EACH, Meter, Report};

/// Things on a page.
const PAGE: usize = 250;
/// Connections that read at the same time.
const READERS: usize = 4;

/// What is created, and how it is looked at.
#[derive(Clone, Debug)]
pub struct Registry {
    /// The broker's listener for HTTP.
    pub address: SocketAddr,
    /// The broker's process, where CPU time and memory are wanted.
    pub pid: Option<u32>,
    /// Signs the requests.
    pub key: Key,
    /// How many things are created, each with three attributes.
    pub things: u64,
    /// How many are created at the same time.
    pub connections: usize,
    /// How many of them are read.
    pub reads: u64,
}

impl Registry {
    /// Creates the things, reads some, and lists all.
    pub fn run(&self) -> Result<Report> {
        let run = run_name().replace('.', "-");
        let mut report = Report::new(format!(
            "registry: {} things created, {} at a time",
            self.things, self.connections
        ));
        let before = self.pid.map(resident_bytes).transpose()?;
        let pids: Vec<u32> = self.pid.into_iter().collect();
        let meter = Meter::start(&pids)?;
        let created = self.each(self.things, self.connections, |connection, number| {
            let path = format!("/things/{run}-{number}");
            let body = format!(
                r#"{{"attributePayload":{{"attributes":{{"serial":"{number}","site":"site-{}","model":"m{}"}}}}}}"#,
                number % 1000,
                number % 7
            );
            connection.ask("POST", &path, "", &body).map(drop)
        })?;
        meter.stop(created.total(), &mut report)?;
        report.add_quantiles(&created);
        if let (Some(pid), Some(before)) = (self.pid, before) {
            let grown = resident_bytes(pid)?.saturating_sub(before);
            report.add(BYTES_EACH, grown as f64 / self.things.max(1) as f64);
        }

        let read = self.each(self.reads, READERS, |connection, number| {
            // Far from each other, as those that an operator asks for.
            let number = number.wrapping_mul(0x9E37_79B1) % self.things;
            let thing = connection.ask("GET", &format!("/things/{run}-{number}"), "", "")?;
            let serial = thing["attributes"]["serial"].as_str();
            ensure!(serial == Some(&number.to_string()), "thing {number} has serial {serial:?}");
            Ok(())
        })?;
        report.add("read p50 us", micros(read.quantile(0.5)));
        report.add("read p99 us", micros(read.quantile(0.99)));

        let (pages, listed) = self.list(&format!("{run}-"))?;
        report.add("page p50 us", micros(pages.quantile(0.5)));
        report.add("page p99 us", micros(pages.quantile(0.99)));
        if listed != self.things {
            report.failures.push(format!("{listed} of {} things are listed", self.things));
        }
        Ok(report)
    }

    /// Does something as often as said, with several connections, and times it.
    fn each(
        &self,
        times: u64,
        connections: usize,
        ask: impl Fn(&mut Connection, u64) -> Result<()> + Sync,
    ) -> Result<Histogram> {
        let next = AtomicU64::new(0);
        let (total, failure) = (Mutex::new(Histogram::default()), Mutex::new(None::<Error>));
        let work = || -> Result<()> {
            let mut connection = Connection::dial(self.address, self.key.clone())?;
            let mut durations = Histogram::default();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= times {
                    break;
                }
                let start = Instant::now();
                ask(&mut connection, number).with_context(|| format!("request {number}"))?;
                let nanoseconds = start.elapsed().as_nanos();
                durations.record(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
            }
            total.lock().expect("no worker panics").merge(&durations);
            Ok(())
        };
        thread::scope(|scope| {
            for _ in 0..connections {
                scope.spawn(|| {
                    if let Err(error) = work() {
                        failure.lock().expect("no worker panics").get_or_insert(error);
                    }
                });
            }
        });
        match failure.into_inner().expect("no worker panics") {
            Some(error) => Err(error),
            None => Ok(total.into_inner().expect("no worker panics")),
        }
    }

    /// Lists all things page by page; says how many of this run there were.
    fn list(&self, prefix: &str) -> Result<(Histogram, u64)> {
        let mut connection = Connection::dial(self.address, self.key.clone())?;
        let (mut durations, mut listed) = (Histogram::default(), 0);
        let mut query = format!("maxResults={PAGE}");
        loop {
            let start = Instant::now();
            let page = connection.ask("GET", "/things", &query, "")?;
            durations.record(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
            let things = page["things"].as_array().context("a page without things")?;
            let is_ours = |thing: &&Value| {
                thing["thingName"].as_str().is_some_and(|name| name.starts_with(prefix))
            };
            listed += things.iter().filter(is_ours).count() as u64;
            let Some(token) = page["nextToken"].as_str() else { return Ok((durations, listed)) };
            query = format!("maxResults={PAGE}&nextToken={}", rest::encoded(token));
        }
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
