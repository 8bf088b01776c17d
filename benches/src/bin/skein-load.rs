//! `skein-load`: loads an MQTT broker and says what it did.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use benches::broker::Recipe;
use benches::compare::{self, Comparison};
use benches::engine::Receivers;
use benches::frame::{Qos, Version};
use benches::process;
use benches::relay;
use benches::report::Report;
use benches::scenario::Target;
use benches::scenario::traffic::Traffic;
use clap::{Args, Parser, Subcommand};

/// Loads an MQTT broker and reports what it did, and whether every message arrived as promised.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Keep this process on one core.
    #[arg(long, global = true)]
    core: Option<usize>,
    /// Print the report as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Pairs of one publisher and one subscriber flood the broker.
    P2p {
        #[arg(long, default_value_t = 100)]
        pairs: usize,
        #[command(flatten)]
        load: LoadArgs,
    },
    /// Every subscriber receives what every publisher sends.
    Fanout {
        #[arg(long, default_value_t = 5)]
        publishers: usize,
        #[arg(long, default_value_t = 500)]
        subscribers: usize,
        #[command(flatten)]
        load: LoadArgs,
    },
    /// Many publishers, whose messages the members of one shared subscription divide.
    Fanin {
        #[arg(long, default_value_t = 100)]
        publishers: usize,
        #[arg(long, default_value_t = 4)]
        subscribers: usize,
        #[command(flatten)]
        load: LoadArgs,
    },
    /// Pairs exchange messages at a fixed rate, whatever the broker does, and time them.
    Latency {
        #[arg(long, default_value_t = 100)]
        pairs: usize,
        /// Messages per second, all pairs together.
        #[arg(long, default_value_t = 10_000.0)]
        rate: f64,
        #[command(flatten)]
        load: LoadArgs,
    },
    /// Copies bytes from publishers to subscribers: the ceiling that brokers are compared with.
    Relay {
        #[arg(long, default_value = "127.0.0.1:1883")]
        address: SocketAddr,
    },
    /// Starts brokers one after the other, runs scenarios against each, and prints the ratios.
    Compare(CompareArgs),
}

#[derive(Args)]
struct CompareArgs {
    /// What to run [default: everything].
    #[arg(long, value_delimiter = ',', value_parser = compare::NAMES)]
    scenarios: Vec<String>,
    /// skein[=PROGRAM], mosquitto[=PROGRAM], relay or NAME=PROGRAM:CONFIG; the first is the subject
    /// [default: skein, mosquitto, relay].
    #[arg(long = "broker", value_delimiter = ',')]
    brokers: Vec<Recipe>,
    /// How often everything runs.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Small counts and a second each: judges correctness, never speed.
    #[arg(long)]
    quick: bool,
    /// Protocol version: 3 (meaning 3.1.1) or 5.
    #[arg(long, default_value = "3", value_parser = version)]
    version: Version,
    /// The brokers' core.
    #[arg(long, default_value_t = 0)]
    broker_core: usize,
    /// Where brokers keep their data [default: the system's directory for temporary files].
    #[arg(long)]
    data: Option<PathBuf>,
    /// Write all runs to this file as JSON.
    #[arg(long = "out")]
    out: Option<PathBuf>,
}

#[derive(Args)]
struct TargetArgs {
    /// The broker's plain listener.
    #[arg(long, default_value = "127.0.0.1:1883")]
    address: SocketAddr,
    /// The broker's process, to measure its CPU time and memory.
    #[arg(long)]
    pid: Option<u32>,
    /// Protocol version: 3 (meaning 3.1.1) or 5.
    #[arg(long, default_value = "3", value_parser = version)]
    version: Version,
}

#[derive(Args)]
struct LoadArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Quality of service of publications and subscriptions.
    #[arg(long, default_value = "0", value_parser = qos)]
    qos: Qos,
    /// Payload bytes.
    #[arg(long, default_value_t = 256, value_parser = payload)]
    payload: usize,
    /// Unacknowledged messages per publisher at QoS 1 and 2.
    #[arg(long, default_value_t = 32)]
    window: u64,
    /// Messages per publisher on their way to subscribers [default: by number of connections].
    #[arg(long)]
    backlog: Option<u64>,
    /// Subscribers' sessions outlive their connections.
    #[arg(long)]
    persistent: bool,
    /// Seconds before measuring.
    #[arg(long, default_value = "2", value_parser = seconds)]
    warmup: Duration,
    /// Seconds of measuring.
    #[arg(long, default_value = "8", value_parser = seconds)]
    duration: Duration,
}

fn version(text: &str) -> Result<Version, String> {
    match text {
        "3" => Ok(Version::V3),
        "5" => Ok(Version::V5),
        _ => Err("expected 3 or 5".into()),
    }
}

fn qos(text: &str) -> Result<Qos, String> {
    match text {
        "0" => Ok(Qos::Zero),
        "1" => Ok(Qos::One),
        "2" => Ok(Qos::Two),
        _ => Err("expected 0, 1 or 2".into()),
    }
}

fn payload(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes @ 20..=1_000_000) => Ok(bytes),
        _ => Err("expected 20 to 1000000 bytes".into()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| "expected seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

impl TargetArgs {
    fn target(&self) -> Target {
        Target { address: self.address, pid: self.pid, version: self.version }
    }
}

impl LoadArgs {
    fn run(&self, receivers: Receivers, rate: Option<f64>) -> Result<Report> {
        let traffic = Traffic {
            receivers,
            qos: self.qos,
            payload: self.payload,
            window: self.window,
            backlog: self.backlog,
            persistent: self.persistent,
            rate,
            warmup: self.warmup,
            duration: self.duration,
        };
        traffic.run(&self.target.target())
    }
}

impl CompareArgs {
    fn run(self, core: Option<usize>) -> Result<bool> {
        let default = ["skein", "mosquitto", "relay"].map(|name| name.parse().expect("known"));
        let comparison = Comparison {
            brokers: if self.brokers.is_empty() { default.into() } else { self.brokers },
            trials: compare::named(&self.scenarios),
            rounds: if self.quick { 1 } else { self.rounds },
            quick: self.quick,
            version: self.version,
            broker_core: self.broker_core,
            generator_core: core.unwrap_or(1),
            root: self.data.unwrap_or_else(std::env::temp_dir),
        };
        let results = comparison.run()?;
        if let Some(path) = self.out {
            fs::write(path, serde_json::to_vec_pretty(&results)?)?;
        }
        results.failures.iter().for_each(|failure| println!("FAILED: {failure}"));
        Ok(results.failures.is_empty())
    }
}

impl Command {
    fn run(self) -> Result<Report> {
        match self {
            Self::P2p { pairs, load } => load.run(Receivers::Pairs { pairs }, None),
            Self::Fanout { publishers, subscribers, load } => {
                load.run(Receivers::All { publishers, subscribers }, None)
            }
            Self::Fanin { publishers, subscribers, load } => {
                load.run(Receivers::Shared { publishers, members: subscribers }, None)
            }
            Self::Latency { pairs, rate, load } => load.run(Receivers::Pairs { pairs }, Some(rate)),
            Self::Relay { address } => match relay::run(address)? {},
            Self::Compare(_) => unreachable!("has its own results"),
        }
    }
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(passed) => ExitCode::from(u8::from(!passed)),
        Err(error) => {
            eprintln!("skein-load: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: Cli) -> Result<bool> {
    if let Command::Compare(arguments) = cli.command {
        return arguments.run(cli.core);
    }
    if let Some(core) = cli.core {
        process::pin(core)?;
    }
    let report = cli.command.run()?;
    if cli.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(report.passed())
}
