//! Runs scenarios against several brokers in the same run and says how they compare.
//!
//! Rounds interleave the brokers, each run has a fresh broker, and ratios are taken within a round,
//! so what else the machine does falls on all of them alike. The median over the rounds counts.

mod machine;
mod table;
mod trial;

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Error, Result, ensure};
use serde::Serialize;

pub use self::trial::{NAMES, Trial, named};
use crate::broker::Recipe;
use crate::frame::Version;
use crate::process;
use crate::report::{GENERATOR_CPU, Report};

/// Above this part of a core, the generator may be what was measured.
const GENERATOR_LIMIT: f64 = 0.95;

/// What to compare, and how.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The brokers; the first is the subject.
    pub brokers: Vec<Recipe>,
    /// What to run.
    pub trials: Vec<Trial>,
    /// How often.
    pub rounds: usize,
    /// Seconds for small counts instead of minutes for real ones; speed is not judged.
    pub quick: bool,
    /// The protocol version to speak.
    pub version: Version,
    /// The core of the brokers.
    pub broker_core: usize,
    /// The core of this process.
    pub generator_core: usize,
    /// Where brokers keep their data; a durable broker's figures depend on this disk.
    pub root: PathBuf,
}

/// One run: which round, broker and scenario, and what came out.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// The name of the scenario.
    pub scenario: &'static str,
    /// The name of the broker.
    pub broker: String,
    /// The round.
    pub round: usize,
    /// What came out.
    pub report: Report,
}

/// All runs of a comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// In the order they were made.
    pub runs: Vec<Run>,
    /// What was not as promised.
    pub failures: Vec<String>,
    /// All of it for people, in Markdown: on what it ran, medians and ranges, and what was not as promised.
    #[serde(skip)]
    pub document: String,
}

impl Comparison {
    /// Runs everything and prints progress and the table.
    pub fn run(&self) -> Result<Results> {
        ensure!(!self.brokers.is_empty(), "no broker to compare");
        self.brokers.iter().try_for_each(Recipe::check)?;
        process::pin(self.generator_core)?;
        let mut results =
            Results { runs: Vec::new(), failures: Vec::new(), document: String::new() };
        for round in 1..=self.rounds {
            for trial in &self.trials {
                for broker in self.brokers.iter().filter(|broker| trial.suits(broker)) {
                    let run = match self.run_one(round, trial, broker) {
                        Ok(run) => run,
                        // A broker that cannot do this may do the rest.
                        Err(error) => self.failed(round, trial, broker, &error),
                    };
                    self.note(&run, &mut results.failures);
                    results.runs.push(run);
                }
            }
        }
        let rows = table::rows(self, &results.runs);
        print!("{}", table::render(self, &rows));
        if !self.quick {
            let missed = rows.iter().filter(|row| row.passed == Some(false));
            results.failures.extend(missed.map(|row| format!("{}: below the bar", row.scenario)));
        }
        results.document = self.document(&rows, &results.failures);
        Ok(results)
    }

    fn document(&self, rows: &[table::Row], failures: &[String]) -> String {
        let mut text = format!("# Brokers compared\n\n{}.\n\n", machine::described());
        for recipe in &self.brokers {
            let _ = writeln!(text, "- {}: {}", recipe.name, recipe.version());
        }
        let _ = write!(
            text,
            "\nMedians of {} rounds, and in brackets the least and the most; ratios are taken within a \
             round. Each broker had core {} to itself, the generator core {}. MQTT {}.\n\n{}",
            self.rounds,
            self.broker_core,
            self.generator_core,
            self.version,
            table::markdown(self, rows)
        );
        if !failures.is_empty() {
            let _ = write!(text, "\nNot as promised:\n\n");
            failures.iter().for_each(|failure| {
                let _ = writeln!(text, "- {failure}");
            });
        }
        text
    }

    fn run_one(&self, round: usize, trial: &Trial, recipe: &Recipe) -> Result<Run> {
        eprintln!("round {round} of {}: {} on {}", self.rounds, trial.name, recipe.name);
        let broker = recipe.start(self.broker_core, self.version, &self.root)?;
        let report = trial.run(&broker, self.quick)?;
        eprint!("{report}");
        Ok(Run { scenario: trial.name, broker: recipe.name.clone(), round, report })
    }

    fn failed(&self, round: usize, trial: &Trial, recipe: &Recipe, error: &Error) -> Run {
        eprintln!("  {error:#}");
        let failures = vec![format!("{error:#}")];
        let report = Report { title: trial.name.into(), failures, ..Report::default() };
        Run { scenario: trial.name, broker: recipe.name.clone(), round, report }
    }

    /// Remembers what was wrong with the subject, and says what is wrong with the others. Floods
    /// stay within backpressure, so the subject may not even lose at QoS 0.
    fn note(&self, run: &Run, failures: &mut Vec<String>) {
        let Run { scenario, broker, report, .. } = run;
        let busy = report.figure(GENERATOR_CPU).unwrap_or(0.0);
        let relay = self.brokers.iter().any(|recipe| recipe.is_relay() && recipe.name == *broker);
        if busy > GENERATOR_LIMIT && !relay && !self.quick && !trial::spins(scenario) {
            eprintln!("  the generator was busy for {busy:.2} of the time: a lower bound");
        }
        if *broker != self.brokers[0].name {
            return;
        }
        let tell = |failure: &String| format!("{scenario} on {broker}: {failure}");
        failures.extend(report.failures.iter().map(tell));
        if report.lost > 0 && report.passed() {
            failures.push(tell(&format!("{} publications lost", report.lost)));
        }
    }
}
