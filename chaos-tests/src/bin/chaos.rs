//! Troubles a cluster of three for a while and judges what its clients saw.
//!
//! `cargo run --release -p chaos-tests --bin chaos -- --minutes 10 --seed 7 --faults kill,stop,cut`

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use chaos_tests::{Dice, Fault, Story};
use clap::Parser;

/// Troubles a cluster of three nodes and judges what its clients saw. Needs root.
#[derive(Parser)]
struct Arguments {
    /// How long.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// What chance is drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What is done: kill, stop, cut, slow, full, term.
    #[arg(long, value_delimiter = ',', default_values_t = Fault::ALL)]
    faults: Vec<Fault>,
    /// Keep history, data and output also when all was well.
    #[arg(long)]
    keep: bool,
}

fn main() -> Result<ExitCode> {
    let Arguments { minutes, seed, faults, keep } = Arguments::parse();
    let length = Duration::from_secs_f64(minutes * 60.0);
    let story = Story { dice: Dice::seeded("chaos", seed), length, faults, keep };
    let Some(report) = story.tell()? else { return Ok(ExitCode::SUCCESS) };
    print!("{report}");
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
