//! Many exact subscriptions over a few connections: what each costs, and whether it is served.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Target, run_name};
use crate::client::{Client, read_packet};
use crate::frame::{self, Numbering, Qos, STAMP_BYTES, Shape, Stamper};
use crate::process;
use crate::report::{BYTES_EACH, Figure, Meter, Report};
use crate::scan;

/// How many subscriptions are tried with a publication.
const SAMPLES: usize = 1_000;

/// How many subscriptions, and how they are made.
#[derive(Clone, Copy, Debug)]
pub struct Subscriptions {
    /// How many, all connections together.
    pub subscriptions: usize,
    /// Over how many connections.
    pub connections: usize,
    /// Filters per SUBSCRIBE.
    pub batch: usize,
    /// Their quality of service.
    pub qos: Qos,
}

impl Subscriptions {
    /// Subscribes, reads the broker's memory before and after, and tries a sample.
    pub fn run(&self, target: &Target) -> Result<Report> {
        let pid = target.pid().context("memory is read by process id: name it with --pid")?;
        let run = run_name();
        let prefix = format!("load/{run}/device/");
        let mut report = Report::new(format!(
            "{} exact subscriptions over {} connections, {:?}",
            self.subscriptions, self.connections, target.version
        ));
        let connect = |index| target.connect(&format!("s{index}.{run}"), true);
        let mut clients = (0..self.connections).map(connect).collect::<Result<Vec<_>>>()?;
        std::thread::sleep(Duration::from_secs(1));
        let before = process::resident_bytes(pid)?;
        let meter = Meter::start(&target.pids)?;
        let numbers: Vec<usize> = (0..self.subscriptions).collect();
        for (turn, batch) in numbers.chunks(self.batch).enumerate() {
            let filters: Vec<_> =
                batch.iter().map(|&number| frame::topic(&prefix, number as u64)).collect();
            clients[turn % self.connections].subscribe(&filters, self.qos)?;
        }
        meter.stop(self.subscriptions as u64, &mut report)?;
        std::thread::sleep(Duration::from_secs(1));
        let after = process::resident_bytes(pid)?;
        let each = (after as f64 - before as f64) / self.subscriptions as f64;
        report.figures.insert(0, Figure { name: BYTES_EACH, value: each });
        report.add("rss bytes before", before as f64);
        report.add("rss bytes after", after as f64);
        let mut publisher = target.connect(&format!("p.{run}"), true)?;
        self.try_sample(target, &prefix, &mut publisher, &mut clients, &mut report)?;
        Ok(report)
    }

    /// Publishes to some of the topics; each publication must reach the one connection it is for.
    fn try_sample(
        &self,
        target: &Target,
        prefix: &str,
        publisher: &mut Client,
        clients: &mut [Client],
        report: &mut Report,
    ) -> Result<()> {
        let version = target.version;
        let shape = Shape {
            prefix,
            numbering: Numbering::BySequence { span: 0 },
            qos: Qos::Zero,
            retain: false,
            payload: STAMP_BYTES,
            version,
        };
        let mut stamper = Stamper::new(&shape, 1);
        for number in (0..self.subscriptions).step_by((self.subscriptions / SAMPLES).max(1)) {
            publisher.stream.write_all(stamper.stamp(0, number as u64, 1, None))?;
            let client = &mut clients[number / self.batch % self.connections];
            client.stream.set_read_timeout(Duration::from_secs(2))?;
            let received = read_packet(&mut client.stream)
                .ok()
                .and_then(|(first, body)| scan::publication(first, &body, version).ok())
                .is_some_and(|publication| publication.sequence == number as u64);
            if !received {
                report.lost += 1;
                report.failures.push(format!("subscription {number} was not served"));
                // One is enough to know; each further one would cost its timeout.
                break;
            }
        }
        Ok(())
    }
}
