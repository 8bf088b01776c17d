//! What a run found: figures, and whether every publication arrived as promised.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use crate::engine::Verdict;
use crate::frame::Qos;
use crate::histogram::Histogram;
use crate::process;

/// What the scenario counts, per second: publications at their receivers, or connections.
pub const RATE: &str = "per second";
/// The same per second of the broker's CPU time, which a busy machine disturbs least.
pub const CPU_RATE: &str = "per broker cpu second";
/// CPU time of the broker per second.
pub const BROKER_CPU: &str = "broker cpu";
/// CPU time of the generator per second; near 1, the generator may be what is measured.
pub const GENERATOR_CPU: &str = "generator cpu";
/// Resident bytes that each connection or subscription adds to the broker.
pub const BYTES_EACH: &str = "rss bytes each";

const P50: &str = "p50 us";
const P90: &str = "p90 us";
/// The 99th percentile of latencies.
pub const P99: &str = "p99 us";
const P999: &str = "p99.9 us";

/// The outcome of one run of one scenario.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Which scenario, with the options that matter.
    pub title: String,
    /// What was measured, in the order of interest.
    pub figures: Vec<Figure>,
    /// Publications that never came.
    pub lost: u64,
    /// Publications that came twice.
    pub duplicated: u64,
    /// Publications that came after a later one.
    pub reordered: u64,
    /// Why the run is not correct.
    pub failures: Vec<String>,
}

/// One measured value.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What it is, with its unit.
    pub name: &'static str,
    /// The value.
    pub value: f64,
}

impl Report {
    /// An empty report.
    pub fn new(title: String) -> Self {
        Self { title, ..Self::default() }
    }

    /// Adds a figure.
    pub fn add(&mut self, name: &'static str, value: f64) {
        self.figures.push(Figure { name, value });
    }

    /// Adds the quantiles of some durations, in microseconds.
    pub fn add_quantiles(&mut self, durations: &Histogram) {
        let microseconds = |duration: Duration| duration.as_secs_f64() * 1e6;
        for (name, part) in [(P50, 0.5), (P90, 0.9), (P99, 0.99), (P999, 0.999)] {
            self.add(name, microseconds(durations.quantile(part)));
        }
        self.add("max us", microseconds(durations.max()));
    }

    /// Finds a figure.
    pub fn figure(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.name == name).map(|figure| figure.value)
    }

    /// Takes in the end of a run. What QoS 0 loses and what QoS 1 repeats is only counted.
    pub fn judge(&mut self, verdict: Verdict, qos: Qos) {
        let faults = verdict.faults;
        self.lost += faults.lost;
        self.duplicated += faults.duplicated;
        self.reordered += faults.reordered;
        self.failures.extend(verdict.failures);
        for (wrong, count, what) in [
            (qos > Qos::Zero, faults.lost, "lost"),
            (qos != Qos::One, faults.duplicated, "duplicated"),
            (true, faults.reordered, "reordered"),
        ] {
            if wrong && count > 0 {
                self.failures.push(format!("{count} publications {what} at QoS {qos}"));
            }
        }
    }

    /// Whether nothing was wrong.
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.title)?;
        for Figure { name, value } in &self.figures {
            writeln!(f, "  {name:<26} {:>14}", number(*value))?;
        }
        let Self { lost, duplicated, reordered, .. } = self;
        writeln!(f, "  lost {lost}, duplicated {duplicated}, reordered {reordered}")?;
        self.failures.iter().try_for_each(|failure| writeln!(f, "  FAILED: {failure}"))
    }
}

/// A value with as many digits as mean something, thousands apart.
pub fn number(value: f64) -> String {
    if value.abs() < 100.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Measures time and CPU time between two moments.
#[derive(Debug)]
pub struct Meter {
    start: Instant,
    brokers: Vec<u32>,
    before: Duration,
    generator: Duration,
}

impl Meter {
    /// Starts now; without the broker's process ids its CPU time stays unknown.
    pub fn start(brokers: &[u32]) -> Result<Self> {
        Ok(Self {
            brokers: brokers.to_vec(),
            before: process::cpu_times(brokers)?,
            generator: process::cpu_time(std::process::id())?,
            start: Instant::now(),
        })
    }

    /// Adds the rates of `count` things since the start to a report.
    pub fn stop(&self, count: u64, report: &mut Report) -> Result<Duration> {
        self.stop_at(Instant::now(), count, report)
    }

    /// The same, when the last message came earlier than now.
    pub fn stop_at(&self, end: Instant, count: u64, report: &mut Report) -> Result<Duration> {
        let elapsed = end.saturating_duration_since(self.start).max(Duration::from_nanos(1));
        report.add(RATE, count as f64 / elapsed.as_secs_f64());
        if !self.brokers.is_empty() {
            let used = process::cpu_times(&self.brokers)? - self.before;
            let used = used.as_secs_f64().max(0.01);
            report.add(CPU_RATE, count as f64 / used);
            report.add(BROKER_CPU, used / elapsed.as_secs_f64());
        }
        let used = process::cpu_time(std::process::id())? - self.generator;
        report.add(GENERATOR_CPU, used.as_secs_f64() / elapsed.as_secs_f64());
        Ok(elapsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::Faults;

    #[test]
    fn numbers_are_readable() {
        for (value, text) in [
            (0.5, "0.50"),
            (99.994, "99.99"),
            (100.0, "100"),
            (1234.5, "1,234"),
            (1_234_567.0, "1,234,567"),
            (-1000.0, "-1,000"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn promises_depend_on_qos() {
        for (qos, lost, duplicated, reordered, passed) in [
            (Qos::Zero, 1, 0, 0, true),
            (Qos::Zero, 0, 1, 0, false),
            (Qos::One, 0, 1, 0, true),
            (Qos::One, 1, 0, 0, false),
            (Qos::Two, 0, 1, 0, false),
            (Qos::Two, 0, 0, 1, false),
            (Qos::Two, 0, 0, 0, true),
        ] {
            let mut report = Report::default();
            let faults = Faults { lost, duplicated, reordered };
            report.judge(Verdict { faults, failures: Vec::new() }, qos);
            assert_eq!(report.passed(), passed, "{report}");
        }
    }
}
