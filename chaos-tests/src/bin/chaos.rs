//! Troubles a cluster of three for a while and judges what its clients saw, or measures it.
//!
//! `cargo run --release -p chaos-tests --bin chaos -- --minutes 10 --seed 7 --faults kill,stop,cut`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use chaos_tests::measure::{failover, rolling};
use chaos_tests::{Dice, Fault, Story};
use clap::{Parser, Subcommand};

/// Troubles a cluster of three nodes and judges what its clients saw. Needs root.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    measure: Option<Measure>,
    /// How long.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// What chance is drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What is done: kill, stop, cut, slow, full, term, clock, power, replace.
    #[arg(long, value_delimiter = ',', default_values_t = Fault::ALL)]
    faults: Vec<Fault>,
    /// Keep history, data and output also when all was well.
    #[arg(long)]
    keep: bool,
}

/// What can be measured instead.
#[derive(Subcommand)]
enum Measure {
    /// How long after kill -9 of a node that leads its sessions are served elsewhere.
    Failover {
        /// How often.
        #[arg(long, default_value_t = 50)]
        kills: usize,
        /// What chance is drawn from.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// What many sessions see of a rolling restart under load.
    Rolling {
        /// How many.
        #[arg(long, default_value_t = 5_000)]
        sessions: usize,
        /// Publications a second.
        #[arg(long, default_value_t = 500)]
        rate: u32,
        /// Another build of skein that the nodes run first: the restart is an upgrade.
        #[arg(long)]
        from: Option<PathBuf>,
        /// What chance is drawn from.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let is_good = match arguments.measure {
        None => tell(arguments)?,
        Some(Measure::Failover { kills, seed }) => {
            let measured = failover(kills, &mut Dice::seeded("failover", seed))?;
            measured.iter().for_each(|measured| print!("{measured}"));
            true
        }
        Some(Measure::Rolling { sessions, rate, from, seed }) => {
            let measured = rolling(sessions, rate, from, &mut Dice::seeded("rolling", seed))?;
            measured.iter().for_each(|measured| print!("{measured}"));
            measured.is_none_or(|measured| measured.is_good())
        }
    };
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell(arguments: Arguments) -> Result<bool> {
    let Arguments { minutes, seed, faults, keep, .. } = arguments;
    let length = Duration::from_secs_f64(minutes * 60.0);
    let story = Story { dice: Dice::seeded("chaos", seed), length, faults, keep };
    let Some(report) = story.tell()? else { return Ok(true) };
    print!("{report}");
    Ok(report.is_good())
}
