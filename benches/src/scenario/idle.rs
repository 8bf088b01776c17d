//! Connections that do nothing but stay: what each costs the broker's memory.

use std::io::Write;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Target, run_name};
use crate::client::{Client, read_packet};
use crate::frame::{Connect, PINGREQ};
use crate::live::Live;
use crate::process;
use crate::report::{BYTES_EACH, Meter, Report};

/// How long the broker gets to come to rest before its memory is read.
const REST: Duration = Duration::from_secs(2);

/// Connections that come before the memory is first read.
const FIRST: usize = 16;

/// How many connections, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Idle {
    /// How many.
    pub connections: usize,
    /// Their keep-alive in seconds.
    pub keep_alive: u16,
    /// In this time each connection sends one PINGREQ.
    pub hold: Duration,
}

impl Idle {
    /// Connects, pings each connection once, and reads the broker's memory before and after.
    pub fn run(&self, target: &Target) -> Result<Report> {
        let pid = target.pid().context("memory is read by process id: name it with --pid")?;
        let run = run_name();
        let mut report = Report::new(format!(
            "{} idle connections, keep-alive {} s, {:?}",
            self.connections, self.keep_alive, target.version
        ));
        // What the broker does once, after its start and for its first clients, is no connection's cost.
        let first = (0..FIRST).map(|index| self.connect(target, &format!("f{index}.{run}")));
        let mut first = first.collect::<Result<Vec<_>>>()?;
        let mut unanswered = first.iter_mut().map(|it| usize::from(!answers(it))).sum::<usize>();
        sleep(REST);
        let before = process::resident_bytes(pid)?;
        let meter = Meter::start(&target.pids)?;
        let mut live = Live::new("connections");
        let clients = (0..self.connections).map(|index| {
            live.show(Instant::now(), index as u64);
            self.connect(target, &format!("i{index}.{run}"))
        });
        let mut clients = clients.collect::<Result<Vec<_>>>()?;
        drop(live);
        meter.stop(self.connections as u64, &mut report)?;
        sleep(REST);
        let quiet = process::resident_bytes(pid)?;
        unanswered += self.ping(&mut clients);
        sleep(REST);
        let after = process::resident_bytes(pid)?;
        let each = |rss: u64| (rss as f64 - before as f64) / self.connections as f64;
        report.figures.insert(0, crate::report::Figure { name: BYTES_EACH, value: each(after) });
        report.add("before pings", each(quiet));
        report.add("rss bytes before", before as f64);
        report.add("rss bytes after", after as f64);
        if unanswered > 0 {
            report.failures.push(format!("{unanswered} connections did not answer PINGREQ"));
        }
        Ok(report)
    }

    fn connect(&self, target: &Target, client_id: &str) -> Result<Client> {
        let (version, keep_alive) = (target.version, self.keep_alive);
        let connect = Connect { client_id, version, keep_alive, clean: true };
        Client::connect(&target.transport, target.address, &connect)
            .with_context(|| format!("client {client_id}"))
    }

    /// Pings one connection after the other, evenly over the time; returns how many fail.
    fn ping(&self, clients: &mut [Client]) -> usize {
        let start = Instant::now();
        let unanswered = clients.iter_mut().enumerate().map(|(index, client)| {
            let due = self.hold.mul_f64(index as f64 / self.connections as f64);
            sleep(due.saturating_sub(start.elapsed()));
            usize::from(!answers(client))
        });
        unanswered.sum()
    }
}

/// Whether a client gets an answer to PINGREQ.
fn answers(Client { stream, .. }: &mut Client) -> bool {
    let sent = stream.write_all(&PINGREQ).is_ok();
    sent && read_packet(stream).is_ok_and(|(first, _)| first == 0xD0)
}
