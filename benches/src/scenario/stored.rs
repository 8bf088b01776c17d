//! Publications that the broker keeps: retained ones, and queues of sessions that are offline.

use std::io::Write;
use std::time::Instant;

use anyhow::{Result, ensure};

use super::{Target, run_name};
use crate::client::Client;
use crate::engine::{Engine, Flow, Receivers};
use crate::frame::{self, Numbering, Qos, Shape};
use crate::process;
use crate::report::{Meter, Report};

/// What is stored.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    /// Publications, all publishers together.
    pub messages: u64,
    /// How many publish; each has its own topics or its own offline session.
    pub publishers: usize,
    /// Of publications and subscriptions.
    pub qos: Qos,
    /// Payload bytes.
    pub payload: usize,
    /// Unacknowledged publications per publisher.
    pub window: u64,
}

impl Stored {
    /// Stores retained publications, one topic each, then receives them all by one wildcard. They
    /// stay with the broker.
    pub fn retained(&self, target: &Target) -> Result<Report> {
        let run = run_name();
        let prefix = format!("load/{run}/");
        let shape = Shape {
            numbering: Numbering::BySequence { span: self.each() },
            retain: true,
            ..self.shape(target, &prefix)
        };
        let mut report = self.report("retained", target);
        self.store(target, &run, shape, "retained/s", &mut report)?;
        let mut client = target.connect(&format!("s.{run}"), true)?;
        let meter = Meter::start(&target.pids)?;
        // The engine reads what follows: publications may come before SUBACK.
        let filter = [format!("{prefix}#")];
        client.stream.write_all(&frame::subscribe(1, &filter, self.qos, target.version))?;
        let receivers = Receivers::Shared { publishers: self.publishers, members: 1 };
        self.receive(shape, receivers, vec![client], &meter, &mut report)?;
        Ok(report)
    }

    /// Fills the queues of persistent sessions that are offline, then resumes the sessions.
    pub fn offline(&self, target: &Target) -> Result<Report> {
        ensure!(self.qos > Qos::Zero, "publications at QoS 0 are not queued for offline sessions");
        let run = run_name();
        let prefix = format!("load/{run}/");
        let shape = self.shape(target, &prefix);
        let names: Vec<_> = (0..self.publishers).map(|index| format!("s{index}.{run}")).collect();
        for (index, name) in names.iter().enumerate() {
            let mut client = target.connect(name, false)?;
            client.subscribe(&[frame::topic(&prefix, index as u64)], self.qos)?;
            client.disconnect()?;
        }
        let mut report = self.report("queued for offline sessions", target);
        self.store(target, &run, shape, "queued/s", &mut report)?;
        let meter = Meter::start(&target.pids)?;
        let resume = |name: &String| {
            let client = target.connect(name, false)?;
            ensure!(client.accepted.session_present, "the session of {name} was not kept");
            Ok(client)
        };
        let clients = names.iter().map(resume).collect::<Result<Vec<_>>>()?;
        let receivers = Receivers::Pairs { pairs: self.publishers };
        self.receive(shape, receivers, clients, &meter, &mut report)?;
        names.iter().try_for_each(|name| target.forget(name))?;
        Ok(report)
    }

    fn each(&self) -> u64 {
        (self.messages / self.publishers as u64).max(1)
    }

    fn shape<'a>(&self, target: &Target, prefix: &'a str) -> Shape<'a> {
        Shape {
            prefix,
            numbering: Numbering::ByPublisher,
            qos: self.qos,
            retain: false,
            payload: self.payload,
            version: target.version,
        }
    }

    fn report(&self, what: &str, target: &Target) -> Report {
        let Self { publishers, qos, payload, .. } = self;
        let messages = self.each() * *publishers as u64;
        let version = target.version;
        Report::new(format!(
            "{messages} publications of {publishers} publishers {what}, \
             QoS {qos}, {payload} B, {version:?}"
        ))
    }

    fn flow<'a>(&self, shape: Shape<'a>, receivers: Receivers) -> Flow<'a> {
        let (window, limit) = (self.window, Some(self.each()));
        Flow { shape, receivers, window, backlog: u64::MAX, limit, rate: None, shares_cores: false }
    }

    fn store(
        &self,
        target: &Target,
        run: &str,
        shape: Shape<'_>,
        figure: &'static str,
        report: &mut Report,
    ) -> Result<()> {
        let publisher = |index| target.connect(&format!("p{index}.{run}"), true);
        let publishers = (0..self.publishers).map(publisher).collect::<Result<Vec<_>>>()?;
        let before = target.pid().map(process::resident_bytes).transpose()?;
        let mut engine = Engine::new(self.flow(shape, Receivers::None), publishers, Vec::new())?;
        let start = Instant::now();
        let (_, end) = engine.run_out()?;
        let sent = engine.sent();
        let count = sent.iter().sum::<u64>() as f64;
        report.add(figure, count / (end - start).as_secs_f64());
        if let (Some(pid), Some(before)) = (target.pid(), before) {
            let grown = process::resident_bytes(pid)? as f64 - before as f64;
            report.add("rss bytes per message", grown / count);
        }
        report.judge(engine.verdict(&sent), self.qos);
        Ok(())
    }

    fn receive(
        &self,
        shape: Shape<'_>,
        receivers: Receivers,
        clients: Vec<Client>,
        meter: &Meter,
        report: &mut Report,
    ) -> Result<()> {
        let mut engine = Engine::new(self.flow(shape, receivers), Vec::new(), clients)?;
        let (_, end) = engine.run_out()?;
        meter.stop_at(end, engine.counters().received, report)?;
        let mut verdict = engine.verdict(&vec![self.each(); self.publishers]);
        if shape.retain {
            // Order is promised within a topic, and here each publication has its own.
            verdict.faults.reordered = 0;
        }
        report.judge(verdict, self.qos);
        Ok(())
    }
}
