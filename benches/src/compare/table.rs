//! Medians over the rounds, side by side.

use std::fmt::Write;

use super::trial::Bar;
use super::{Comparison, Run, Trial};
use crate::report::{CPU_RATE, number};

/// One scenario's line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) scenario: &'static str,
    figure: &'static str,
    /// Per broker, in their order.
    medians: Vec<Option<f64>>,
    to_mosquitto: Option<f64>,
    /// The same by the brokers' CPU time.
    cpu_to_mosquitto: Option<f64>,
    to_relay: Option<f64>,
    bar: Bar,
    /// Whether the bar was reached, where there is one.
    pub(super) passed: Option<bool>,
}

pub(super) fn rows(comparison: &Comparison, runs: &[Run]) -> Vec<Row> {
    comparison.trials.iter().map(|trial| row(comparison, trial, runs)).collect()
}

fn row(comparison: &Comparison, trial: &Trial, runs: &[Run]) -> Row {
    let find = |round: usize, broker: &str, figure: &str| {
        let run = runs.iter().find(|run| {
            (run.scenario, run.round, run.broker.as_str()) == (trial.name, round, broker)
        });
        run?.report.figure(figure)
    };
    let rounds = || 1..=comparison.rounds;
    let subject = &comparison.brokers[0].name;
    let ratio = |other: &str, figure: &'static str| {
        let in_round = |round| {
            let ours = find(round, subject, figure)?;
            Some(ours / find(round, other, figure)?)
        };
        if other == subject { None } else { median(rounds().filter_map(in_round).collect()) }
    };
    let medians = comparison.brokers.iter().map(|broker| {
        median(rounds().filter_map(|round| find(round, &broker.name, trial.figure)).collect())
    });
    let medians: Vec<_> = medians.collect();
    let to_mosquitto = ratio("mosquitto", trial.figure);
    let passed = match trial.bar {
        Bar::TimesMosquitto(times) => to_mosquitto.map(|ratio| ratio >= times),
        Bar::AtMost(limit) => medians[0].map(|figure| figure <= limit),
        Bar::None => None,
    };
    Row {
        scenario: trial.name,
        figure: trial.figure,
        medians,
        to_mosquitto,
        cpu_to_mosquitto: ratio("mosquitto", CPU_RATE),
        to_relay: ratio("relay", trial.figure),
        bar: trial.bar,
        passed,
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        length if length % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// Renders the table.
pub(super) fn render(comparison: &Comparison, rows: &[Row]) -> String {
    let names = comparison.brokers.iter().map(|broker| broker.name.as_str());
    let header = ["scenario", "figure"].into_iter().chain(names).chain([
        "to mosquitto",
        "by cpu time",
        "to relay",
        "bar",
        "pass",
    ]);
    let mut lines = vec![header.map(String::from).collect::<Vec<_>>()];
    lines.extend(rows.iter().map(|row| cells(row, comparison.quick)));
    let columns = 0..lines[0].len();
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
    let widths: Vec<_> = columns.map(width).collect();
    let mut text = String::new();
    for line in &lines {
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let _ = match column {
                0 | 1 => write!(text, "{cell:<width$}  "),
                _ => write!(text, "{cell:>width$}  "),
            };
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

fn cells(row: &Row, quick: bool) -> Vec<String> {
    let or_dash = |value: Option<f64>| value.map_or("-".into(), number);
    let times = |value: Option<f64>| value.map_or("-".into(), |ratio| format!("{ratio:.2}x"));
    let bar = match row.bar {
        Bar::TimesMosquitto(ratio) => format!(">= {ratio}x"),
        Bar::AtMost(limit) => format!("<= {}", number(limit)),
        Bar::None => "-".into(),
    };
    let passed = match row.passed {
        Some(true) if !quick => "yes",
        Some(false) if !quick => "NO",
        _ => "-",
    };
    let mut cells = vec![row.scenario.to_string(), row.figure.to_string()];
    cells.extend(row.medians.iter().copied().map(or_dash));
    cells.extend([
        times(row.to_mosquitto),
        times(row.cpu_to_mosquitto),
        times(row.to_relay),
        bar,
        passed.into(),
    ]);
    cells
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::compare::named;
    use crate::frame::Version;
    use crate::report::{RATE, Report};

    fn run(broker: &str, round: usize, rate: f64) -> Run {
        let mut report = Report::default();
        report.add(RATE, rate);
        Run { scenario: "p2p-qos0", broker: broker.into(), round, report }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let comparison = Comparison {
            brokers: vec!["skein".parse().unwrap(), "mosquitto".parse().unwrap()],
            trials: named(&["p2p-qos0".into()]),
            rounds: 3,
            quick: false,
            version: Version::V3,
            broker_core: 0,
            generator_core: 1,
            root: PathBuf::new(),
        };
        let runs: Vec<_> = [(60.0, 10.0), (700.0, 100.0), (65.0, 10.0)]
            .iter()
            .zip(1..)
            .flat_map(|(&(ours, theirs), round)| {
                [run("skein", round, ours), run("mosquitto", round, theirs)]
            })
            .collect();
        let row = &rows(&comparison, &runs)[0];
        assert_eq!(row.medians, [Some(65.0), Some(10.0)]);
        assert_eq!((row.to_mosquitto, row.passed), (Some(6.5), Some(true)));
        assert_eq!(row.to_relay, None);
        assert!(render(&comparison, std::slice::from_ref(row)).contains("6.50x"));
    }
}
