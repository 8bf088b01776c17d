//! `skein-load`: loads an MQTT broker and says what it did.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use benches::broker::Recipe;
use benches::cluster;
use benches::compare::{self, Comparison};
use benches::engine::Receivers;
use benches::frame::{Qos, Version};
use benches::process;
use benches::relay;
use benches::report::Report;
use benches::scenario::Target;
use benches::scenario::idle::Idle;
use benches::scenario::reconnect::Reconnect;
use benches::scenario::registry::Registry;
use benches::scenario::rest::Key;
use benches::scenario::rights::Rights;
use benches::scenario::stored::Stored;
use benches::scenario::storm::Storm;
use benches::scenario::subscriptions::Subscriptions;
use benches::scenario::traffic::Traffic;
use benches::stream::{Carrier, mutual_tls};
use clap::{Args, Parser, Subcommand};
use serde::Serialize;

/// Loads an MQTT broker and reports what it did, and whether every message arrived as promised.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Keep this process on one core.
    #[arg(long, global = true)]
    core: Option<usize>,
    /// Also write the results to this file as JSON.
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
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
    /// Connections that only stay: memory of each.
    Idle {
        #[arg(long, default_value_t = 10_000)]
        connections: usize,
        /// Seconds.
        #[arg(long, default_value_t = 60)]
        keep_alive: u16,
        /// Seconds in which each connection pings once.
        #[arg(long, default_value = "10", value_parser = seconds)]
        duration: Duration,
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Connects and disconnects, as fast as the broker takes clients in.
    Storm {
        /// How many connect at the same time.
        #[arg(long, default_value_t = 32)]
        concurrency: usize,
        /// Seconds.
        #[arg(long, default_value = "8", value_parser = seconds)]
        duration: Duration,
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Cuts off many clients with sessions, publishes to each, and has all come back at once.
    Reconnect {
        #[arg(long, default_value_t = 10_000)]
        clients: usize,
        /// The broker's listener for /readyz, which is asked meanwhile.
        #[arg(long)]
        probe: Option<SocketAddr>,
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Many exact subscriptions over a few connections: memory of each, and whether it works.
    Subscriptions {
        #[arg(long, default_value_t = 200_000)]
        subscriptions: usize,
        #[arg(long, default_value_t = 100)]
        connections: usize,
        /// Filters per SUBSCRIBE.
        #[arg(long, default_value_t = 8)]
        batch: usize,
        /// Their quality of service.
        #[arg(long, default_value = "0", value_parser = qos)]
        qos: Qos,
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Stores retained messages, one topic each, then receives them all by one wildcard.
    Retained(StoredArgs),
    /// Queues messages for sessions that are offline, then resumes the sessions.
    Offline(StoredArgs),
    /// Creates things over REST, reads some and lists all. The access key is that of the environment:
    /// AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION.
    Registry(RegistryArgs),
    /// Takes rights from connections that are open, all of one certificate that it has made: how long
    /// until none has them any more. The access key is that of the environment.
    Rights(RightsArgs),
    /// Copies bytes from publishers to subscribers: the ceiling that brokers are compared with.
    Relay {
        #[arg(long, default_value = "127.0.0.1:1883")]
        address: SocketAddr,
        /// Where handshakes are made and CONNECT is answered, and nothing else.
        #[arg(long, requires = "pki")]
        tls_address: Option<SocketAddr>,
        /// A directory with ca.pem, server.pem and server.key.
        #[arg(long)]
        pki: Option<PathBuf>,
    },
    /// Starts brokers one after the other, runs scenarios against each, and prints the ratios.
    Compare(CompareArgs),
    /// Starts a cluster of three nodes on this machine and measures what is claimed of it.
    Cluster(ClusterArgs),
}

#[derive(Args)]
struct ClusterArgs {
    /// The program to start.
    #[arg(long, default_value = "target/release/skein")]
    program: PathBuf,
    /// How often everything runs.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Small counts and half a second each: judges correctness, never speed.
    #[arg(long)]
    quick: bool,
    /// Where the nodes keep their data [default: the system's directory for temporary files].
    #[arg(long)]
    data: Option<PathBuf>,
}

#[derive(Args)]
struct StoredArgs {
    /// How many, all publishers together.
    #[arg(long, default_value_t = 100_000)]
    messages: u64,
    #[arg(long, default_value_t = 10)]
    publishers: usize,
    /// Quality of service of publications and subscriptions.
    #[arg(long, default_value = "1", value_parser = qos)]
    qos: Qos,
    /// Payload bytes.
    #[arg(long, default_value_t = 256, value_parser = payload)]
    payload: usize,
    /// Unacknowledged messages per publisher.
    #[arg(long, default_value_t = 32)]
    window: u64,
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Args)]
struct RegistryArgs {
    #[arg(long, default_value_t = 100_000)]
    things: u64,
    /// How many are created at the same time.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// How many are read.
    #[arg(long, default_value_t = 20_000)]
    reads: u64,
    /// The broker's process, to measure its CPU time and memory.
    #[arg(long)]
    pid: Option<u32>,
    #[command(flatten)]
    rest: RestArgs,
}

#[derive(Args)]
struct RightsArgs {
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// The broker's TLS listener.
    #[arg(long, default_value = "127.0.0.1:8883")]
    tls_address: SocketAddr,
    /// Certificate authority of the broker's certificate (PEM).
    #[arg(long)]
    ca: PathBuf,
    #[command(flatten)]
    rest: RestArgs,
}

/// The control plane, and how requests to it are signed.
#[derive(Args)]
struct RestArgs {
    /// The broker's listener for HTTP.
    #[arg(long, default_value = "127.0.0.1:8080")]
    address: SocketAddr,
    #[arg(long, env = "AWS_ACCESS_KEY_ID")]
    key_id: String,
    #[arg(long, env = "AWS_SECRET_ACCESS_KEY", hide_env_values = true)]
    secret: String,
    #[arg(long, env = "AWS_REGION", default_value = "us-east-1")]
    region: String,
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
    /// The brokers' core [default: the first; the generator's, --core, is the last].
    #[arg(long)]
    broker_core: Option<usize>,
    /// Where brokers keep their data [default: the system's directory for temporary files].
    #[arg(long)]
    data: Option<PathBuf>,
    /// A file for the results in Markdown: the machine, the brokers' versions, medians and ranges.
    #[arg(long)]
    markdown: Option<PathBuf>,
}

#[derive(Args)]
struct TargetArgs {
    /// What carries packets.
    #[arg(long, value_enum, default_value_t = Carrier::Tcp)]
    transport: Carrier,
    /// The broker's listener for that [default: where `skein dev` listens].
    #[arg(long)]
    address: Option<SocketAddr>,
    /// With TLS: the certificate authority of the broker's certificate (PEM).
    #[arg(long)]
    ca: Option<PathBuf>,
    /// With TLS: the certificate to show (PEM).
    #[arg(long)]
    cert: Option<PathBuf>,
    /// With TLS: its private key (PEM).
    #[arg(long)]
    key: Option<PathBuf>,
    /// The listeners of the other nodes of its cluster: publishers and subscribers are spread over all,
    /// each pair over two.
    #[arg(long, value_delimiter = ',')]
    others: Vec<SocketAddr>,
    /// The broker's processes, to measure their CPU time, and the memory of the first.
    #[arg(long = "pid", value_delimiter = ',')]
    pids: Vec<u32>,
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
    fn target(&self) -> Result<Target> {
        let port = self.transport.port();
        let address = self.address.unwrap_or((Ipv4Addr::LOCALHOST, port).into());
        let tls = || {
            let files = (self.ca.as_ref(), self.cert.as_ref(), self.key.as_ref());
            let (Some(ca), Some(cert), Some(key)) = files else {
                bail!("this transport needs --ca, --cert and --key");
            };
            mutual_tls(ca, cert, key)
        };
        Ok(Target {
            transport: self.transport.transport(tls)?,
            address,
            others: self.others.clone(),
            pids: self.pids.clone(),
            version: self.version,
        })
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
        traffic.run(&self.target.target()?)
    }
}

impl StoredArgs {
    fn stored(&self) -> Stored {
        let Self { messages, publishers, qos, payload, window, .. } = *self;
        Stored { messages, publishers, qos, payload, window }
    }
}

impl RegistryArgs {
    fn registry(self) -> Registry {
        let Self { things, connections, reads, pid, rest } = self;
        Registry {
            address: rest.address,
            pid,
            key: rest.key(),
            things: things.max(1),
            connections: connections.max(1),
            reads,
        }
    }
}

impl RestArgs {
    fn key(self) -> Key {
        Key { id: self.key_id, secret: self.secret, region: self.region }
    }
}

impl RightsArgs {
    fn rights(self) -> Rights {
        let Self { connections, tls_address, ca, rest } = self;
        Rights { connections, tls_address, ca, address: rest.address, key: rest.key() }
    }
}

impl CompareArgs {
    fn run(self, core: Option<usize>, json: Option<PathBuf>) -> Result<bool> {
        let cores = process::cores()?;
        let (first, last) = (cores[0], cores[cores.len() - 1]);
        let (broker_core, generator_core) =
            (self.broker_core.unwrap_or(first), core.unwrap_or(last));
        if broker_core == generator_core {
            eprintln!(
                "broker and generator share a core: no figure here says anything about speed"
            );
        }
        let default = ["skein", "mosquitto", "relay"].map(|name| name.parse().expect("known"));
        let comparison = Comparison {
            brokers: if self.brokers.is_empty() { default.into() } else { self.brokers },
            trials: compare::named(&self.scenarios),
            rounds: if self.quick { 1 } else { self.rounds },
            quick: self.quick,
            version: self.version,
            broker_core,
            generator_core,
            root: self.data.unwrap_or_else(std::env::temp_dir),
        };
        let results = comparison.run()?;
        write_json(json, &results)?;
        if let Some(path) = self.markdown {
            let place = || format!("writing {}", path.display());
            fs::write(&path, &results.document).with_context(place)?;
        }
        results.failures.iter().for_each(|failure| println!("FAILED: {failure}"));
        Ok(results.failures.is_empty())
    }
}

impl ClusterArgs {
    fn run(self, json: Option<PathBuf>) -> Result<bool> {
        let measurement = cluster::Measurement {
            program: self.program,
            rounds: if self.quick { 1 } else { self.rounds.max(1) },
            quick: self.quick,
            root: self.data.unwrap_or_else(std::env::temp_dir),
        };
        let results = measurement.run()?;
        write_json(json, &results)?;
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
            Self::Idle { connections, keep_alive, duration, target } => {
                Idle { connections, keep_alive, hold: duration }.run(&target.target()?)
            }
            Self::Storm { concurrency, duration, target } => {
                Storm { concurrency, duration }.run(&target.target()?)
            }
            Self::Reconnect { clients, probe, target } => {
                Reconnect { clients, probe }.run(&target.target()?)
            }
            Self::Subscriptions { subscriptions, connections, batch, qos, target } => {
                Subscriptions { subscriptions, connections, batch, qos }.run(&target.target()?)
            }
            Self::Retained(stored) => stored.stored().retained(&stored.target.target()?),
            Self::Offline(stored) => stored.stored().offline(&stored.target.target()?),
            Self::Registry(arguments) => arguments.registry().run(),
            Self::Rights(arguments) => arguments.rights().run(),
            Self::Relay { address, tls_address, pki } => {
                match relay::run(address, tls_address.zip(pki))? {}
            }
            Self::Compare(_) | Self::Cluster(_) => unreachable!("have their own results"),
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
        return arguments.run(cli.core, cli.json);
    }
    if let Some(core) = cli.core {
        process::pin(core)?;
    }
    if let Command::Cluster(arguments) = cli.command {
        return arguments.run(cli.json);
    }
    let report = cli.command.run()?;
    print!("{report}");
    write_json(cli.json, &report)?;
    Ok(report.passed())
}

fn write_json(path: Option<PathBuf>, results: &impl Serialize) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    fs::write(&path, serde_json::to_vec_pretty(results)?)
        .with_context(|| format!("writing {}", path.display()))
}
