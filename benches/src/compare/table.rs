//! Medians over the rounds, side by side: for a terminal, and as Markdown.

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
    found: Vec<Option<Spread>>,
    /// How the first broker compares with each of the others.
    ratios: Vec<Option<f64>>,
    /// With mosquitto by the brokers' CPU time.
    cpu_to_mosquitto: Option<f64>,
    bars: &'static [Bar],
    /// Whether the bars were reached that could be judged, where there are any.
    pub(super) passed: Option<bool>,
}

/// What the rounds found.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            1 => values[middle],
            _ => (values[middle - 1] + values[middle]) / 2.0,
        };
        Some(Self { least, median, most })
    }
}

pub(super) fn rows(comparison: &Comparison, runs: &[Run]) -> Vec<Row> {
    comparison.trials.iter().map(|trial| row(comparison, trial, runs)).collect()
}

fn row(comparison: &Comparison, trial: &Trial, runs: &[Run]) -> Row {
    let find_in = |scenario: &str, round: usize, broker: &str, figure: &str| {
        let run = runs.iter().find(|run| {
            (run.scenario, run.round, run.broker.as_str()) == (scenario, round, broker)
        });
        run?.report.figure(figure)
    };
    let find = |round, broker: &str, figure: &str| find_in(trial.name, round, broker, figure);
    let rounds = || 1..=comparison.rounds;
    let subject = &comparison.brokers[0].name;
    let ratio = |other: &str, figure: &'static str| {
        let in_round = |round| {
            let ours = find(round, subject, figure)?;
            Some(ours / find(round, other, figure)?)
        };
        let spread = Spread::of(rounds().filter_map(in_round).collect())?;
        (other != subject).then_some(spread.median)
    };
    let found = comparison.brokers.iter().map(|broker| {
        Spread::of(rounds().filter_map(|round| find(round, &broker.name, trial.figure)).collect())
    });
    let found: Vec<_> = found.collect();
    let reached = |bar: &Bar| match *bar {
        Bar::Times(other, times) => ratio(other, trial.figure).map(|ratio| ratio >= times),
        Bar::NoMoreThan(other, times) => ratio(other, trial.figure).map(|ratio| ratio <= times),
        Bar::PartOf(scenario, part) => {
            let in_round = |round| {
                let whole = find_in(scenario, round, subject, trial.figure)?;
                Some(find(round, subject, trial.figure)? / whole)
            };
            Spread::of(rounds().filter_map(in_round).collect()).map(|found| found.median >= part)
        }
        Bar::AtMost(limit) => found[0].map(|figure| figure.median <= limit),
    };
    let judged = trial.bars.iter().filter_map(reached);
    let passed = judged.reduce(|one, other| one && other);
    let others = comparison.brokers[1..].iter();
    let ratios = others.map(|other| ratio(&other.name, trial.figure)).collect();
    Row {
        scenario: trial.name,
        figure: trial.figure,
        found,
        ratios,
        cpu_to_mosquitto: ratio("mosquitto", CPU_RATE),
        bars: trial.bars,
        passed,
    }
}

/// The table's lines: first what stands above each column, and a broker's figures as `tell` has them.
fn lines(
    comparison: &Comparison,
    rows: &[Row],
    tell: impl Fn(Spread) -> String,
) -> Vec<Vec<String>> {
    let names = comparison.brokers.iter().map(|broker| broker.name.as_str());
    let mut header = vec!["scenario".to_owned(), "figure".to_owned()];
    header.extend(names.clone().map(String::from));
    header.extend(names.skip(1).map(|name| format!("to {name}")));
    header.extend(["to mosquitto by cpu time", "bar", "pass"].map(String::from));
    let mut lines = vec![header];
    lines.extend(rows.iter().map(|row| cells(row, comparison.quick, &tell)));
    lines
}

/// Renders the table for a terminal.
pub(super) fn render(comparison: &Comparison, rows: &[Row]) -> String {
    let lines = lines(comparison, rows, |found| number(found.median));
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

/// Renders the table as Markdown: medians, with the least and the most beside them.
pub(super) fn markdown(comparison: &Comparison, rows: &[Row]) -> String {
    let spread = |Spread { least, median, most }| {
        format!("{} ({} to {})", number(median), number(least), number(most))
    };
    let mut text = String::new();
    for (at, line) in lines(comparison, rows, spread).iter().enumerate() {
        let _ = writeln!(text, "| {} |", line.join(" | "));
        if at == 0 {
            let _ = writeln!(text, "|---|---|{}", "---:|".repeat(line.len() - 2));
        }
    }
    text
}

fn cells(row: &Row, quick: bool, tell: impl Fn(Spread) -> String) -> Vec<String> {
    let or_dash = |found: Option<Spread>| found.map_or("-".into(), &tell);
    let times = |value: Option<f64>| value.map_or("-".into(), |ratio| format!("{ratio:.2}x"));
    let bar = |bar: &Bar| match bar {
        Bar::Times(other, times) => format!(">= {times}x {other}"),
        Bar::NoMoreThan(other, times) => format!("<= {times}x {other}"),
        Bar::PartOf(scenario, part) => format!(">= {:.0} % of {scenario}", 100.0 * part),
        Bar::AtMost(limit) => format!("<= {}", number(*limit)),
    };
    let bars: Vec<_> = row.bars.iter().map(bar).collect();
    let bars = if bars.is_empty() { "-".to_owned() } else { bars.join(", ") };
    let passed = match row.passed {
        Some(true) if !quick => "yes",
        Some(false) if !quick => "NO",
        _ => "-",
    };
    let mut cells = vec![row.scenario.to_string(), row.figure.to_string()];
    cells.extend(row.found.iter().copied().map(or_dash));
    cells.extend(row.ratios.iter().copied().map(times));
    cells.extend([times(row.cpu_to_mosquitto), bars, passed.into()]);
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
        let runs: Vec<_> = [(150.0, 10.0), (1_700.0, 100.0), (165.0, 10.0)]
            .iter()
            .zip(1..)
            .flat_map(|(&(ours, theirs), round)| {
                [run("skein", round, ours), run("mosquitto", round, theirs)]
            })
            .collect();
        let row = &rows(&comparison, &runs)[0];
        let spread = |least, median, most| Some(Spread { least, median, most });
        assert_eq!(row.found, [spread(150.0, 165.0, 1_700.0), spread(10.0, 10.0, 100.0)]);
        // The relay takes no part, so its bar is not judged.
        assert_eq!((&*row.ratios, row.passed), (&[Some(16.5)][..], Some(true)));
        let row = std::slice::from_ref(row);
        assert!(render(&comparison, row).contains("16.50x"));
        let markdown = markdown(&comparison, row);
        let lines: Vec<_> = markdown.lines().collect();
        assert_eq!(lines.len(), 3);
        let found = " | 165 (150 to 1,700) | 10.00 (10.00 to 100) | 16.50x | ";
        assert!(lines[2].contains(found), "{markdown}");
        let columns = lines.iter().map(|line| line.matches('|').count());
        assert_eq!(columns.collect::<Vec<_>>(), [9, 9, 9]);
    }
}
