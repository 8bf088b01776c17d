//! Publications on their way: pairs, fan-out, fan-in, and latency at a fixed rate.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Target, run_name};
use crate::client::Client;
use crate::engine::{Engine, Flow, Receivers};
use crate::frame::{self, Numbering, Qos, Shape};
use crate::report::{Meter, Report};

/// Deliveries on their way at any time, all connections together.
const BACKLOG: u64 = 100_000;

/// What flows, and for how long.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// Who publishes to whom.
    pub receivers: Receivers,
    /// Of publications and subscriptions.
    pub qos: Qos,
    /// Payload bytes.
    pub payload: usize,
    /// Unacknowledged publications per publisher at QoS 1 and 2.
    pub window: u64,
    /// Publications per publisher on their way; chosen by the number of deliveries if `None`.
    pub backlog: Option<u64>,
    /// Whether the subscribers' sessions outlive their connections.
    pub persistent: bool,
    /// Publications per second of all publishers: an open loop that measures latency.
    pub rate: Option<f64>,
    /// Before anything is measured.
    pub warmup: Duration,
    /// While it is measured.
    pub duration: Duration,
}

impl Traffic {
    /// A title for the report.
    fn title(&self, target: &Target) -> String {
        let receivers = match self.receivers {
            Receivers::None => "nobody".into(),
            Receivers::Pairs { pairs } => format!("{pairs} pairs"),
            Receivers::All { publishers, subscribers } => {
                format!("{publishers} publishers to each of {subscribers} subscribers")
            }
            Receivers::Shared { publishers, members } => {
                format!("{publishers} publishers to {members} members of a shared subscription")
            }
        };
        let Self { qos, payload, persistent, .. } = self;
        let sessions = if *persistent { ", persistent sessions" } else { "" };
        let rate = self.rate.map_or("flood".into(), |rate| format!("{rate:.0} messages/s"));
        let version = target.version;
        let over = target.transport.name();
        format!("{receivers}, {rate}, QoS {qos}, {payload} B, {version:?} over {over}{sessions}")
    }

    fn publishers(&self) -> usize {
        match self.receivers {
            Receivers::None => 0,
            Receivers::Pairs { pairs } => pairs,
            Receivers::All { publishers, .. } | Receivers::Shared { publishers, .. } => publishers,
        }
    }

    fn subscribers(&self) -> usize {
        match self.receivers {
            Receivers::None => 0,
            Receivers::Pairs { pairs } => pairs,
            Receivers::All { subscribers, .. } => subscribers,
            Receivers::Shared { members, .. } => members,
        }
    }

    /// What subscriber number `index` subscribes to.
    fn filters(&self, prefix: &str, index: usize) -> Vec<String> {
        match self.receivers {
            Receivers::None => Vec::new(),
            Receivers::Pairs { .. } => vec![frame::topic(prefix, index as u64)],
            Receivers::All { publishers, .. } => {
                (0..publishers as u64).map(|publisher| frame::topic(prefix, publisher)).collect()
            }
            Receivers::Shared { .. } => vec![format!("$share/g/{prefix}+")],
        }
    }

    fn deliveries_of_each(&self) -> u64 {
        match self.receivers {
            Receivers::All { subscribers, .. } => subscribers as u64,
            _ => 1,
        }
    }

    /// Runs warm-up, measurement and drain.
    pub fn run(&self, target: &Target) -> Result<Report> {
        let run = run_name();
        let prefix = format!("load/{run}/");
        let streams = (self.publishers() as u64 * self.deliveries_of_each()).max(1);
        let backlog = self.backlog.unwrap_or((BACKLOG / streams).clamp(8, 1_000));
        let subscribers = self.connect_subscribers(target, &run, &prefix)?;
        // A pair's publisher is on another node than its subscriber, where there are several.
        let publisher = |index| target.node(index + 1).connect(&format!("p{index}.{run}"), true);
        let publishers = (0..self.publishers()).map(publisher);
        let publishers = publishers.collect::<Result<Vec<_>>>().context("connecting publishers")?;
        let flow = Flow {
            shape: Shape {
                prefix: &prefix,
                numbering: Numbering::ByPublisher,
                qos: self.qos,
                retain: false,
                payload: self.payload,
                version: target.version,
            },
            receivers: self.receivers,
            window: self.window,
            backlog,
            limit: None,
            rate: self.rate,
            shares_cores: !target.others.is_empty(),
        };
        let mut engine = Engine::new(flow, publishers, subscribers)?;
        let report = self.measure(target, &mut engine)?;
        let report = finish(engine, report, self.qos)?;
        if self.persistent {
            (0..self.subscribers())
                .try_for_each(|index| target.forget(&format!("s{index}.{run}")))?;
        }
        Ok(report)
    }

    fn connect_subscribers(&self, target: &Target, run: &str, prefix: &str) -> Result<Vec<Client>> {
        let subscriber = |index| {
            let target = target.node(index);
            let mut client = target.connect(&format!("s{index}.{run}"), !self.persistent)?;
            client.subscribe(&self.filters(prefix, index), self.qos)?;
            Ok(client)
        };
        (0..self.subscribers()).map(subscriber).collect::<Result<_>>().context("subscribing")
    }

    fn measure(&self, target: &Target, engine: &mut Engine<'_>) -> Result<Report> {
        let mut report = Report::new(self.title(target));
        engine.run_for(self.warmup)?;
        if self.rate.is_some() {
            engine.record_latencies();
        }
        let (before, meter) = (engine.counters(), Meter::start(&target.pids)?);
        engine.run_for(self.duration)?;
        let after = engine.counters();
        let elapsed = meter.stop(after.received - before.received, &mut report)?;
        if self.qos > Qos::Zero {
            let acknowledged = (after.acknowledged - before.acknowledged) as f64;
            report.add("acknowledged/s", acknowledged / elapsed.as_secs_f64());
        }
        if let Some(latencies) = engine.take_latencies() {
            report.add_quantiles(&latencies);
        }
        Ok(report)
    }
}

/// Drains, and judges what arrived.
fn finish(mut engine: Engine<'_>, mut report: Report, qos: Qos) -> Result<Report> {
    let start = Instant::now();
    let (_, moved) = engine.drain()?;
    report.add("drain s", moved.saturating_duration_since(start).as_secs_f64());
    let sent = engine.sent();
    report.add("sent", sent.iter().sum::<u64>() as f64);
    report.judge(engine.verdict(&sent), qos);
    Ok(report)
}
