//! Three nodes on this machine that are one cluster, and what is claimed of them.
//!
//! Nodes and generator share all cores, and machines differ: so all is compared with something else
//! in the same round. What the cluster makes durable, with what mosquitto keeps in memory, alone on
//! this machine; what crosses nodes, with what does not, by CPU time of all nodes.

mod limit;

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Error, Result, ensure};
use serde::Serialize;
use tempfile::TempDir;

use crate::broker::{Recipe, wait_until_ready};
use crate::engine::Receivers;
use crate::frame::{Qos, Version};
use crate::process::cores;
use crate::report::{CPU_RATE, P99, RATE, Report, number};
use crate::scenario::Target;
use crate::scenario::traffic::Traffic;
use crate::stream::Transport;

const NODES: usize = 3;
/// Bytes of a publication.
const PAYLOAD: usize = 256;
/// How long the cluster may take until all nodes serve, and then until its leads are spread.
const START: Duration = Duration::from_secs(60);
const SPREAD: Duration = Duration::from_secs(10);

/// QoS 1 publications per second that mosquitto passes on the machine that the bars are for.
const YARDSTICK: f64 = 98_000.0;
/// What is claimed of that machine: publications per second, and a third of that for latency.
const CLAIMED_RATE: f64 = 60_000.0;
const LATENCY_RATE: f64 = CLAIMED_RATE / 3.0;

/// What is claimed: its name, and in which direction it may not be missed.
const BARS: [(&str, Bar); 3] = [
    (QUORUM, Bar::AtLeast(100.0 * CLAIMED_RATE / YARDSTICK)),
    (LATENCY, Bar::AtMost(30_000.0)),
    (CROSSING, Bar::AtLeast(60.0)),
];
const QUORUM: &str = "quorum-fsynced QoS 1, % of mosquitto's QoS 1 in memory";
const LATENCY: &str = "p99 at a third of the claimed rate, us of that machine";
const LIMIT: &str = "what a bare TLS connection would leave of same-node, %";
const UNCONVERTED: &str = "p99 at 20,000 a second, us here";
const CROSSING: &str = "QoS 0 across nodes, % of same-node per cpu second";

#[derive(Clone, Copy)]
enum Bar {
    AtLeast(f64),
    AtMost(f64),
}

/// How its claims are measured.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// The `skein` to start.
    pub program: PathBuf,
    /// How often everything runs.
    pub rounds: usize,
    /// Small counts and a second each: judges correctness, never speed.
    pub quick: bool,
    /// Where the nodes keep their data.
    pub root: PathBuf,
}

/// What was found.
#[derive(Debug, Default, Serialize)]
pub struct Results {
    /// Every run.
    pub reports: Vec<Report>,
    /// What was wrong, and bars that were missed.
    pub failures: Vec<String>,
}

impl Measurement {
    /// Runs everything against one cluster, and prints it.
    pub fn run(&self) -> Result<Results> {
        let cluster = Cluster::start(&self.program, &self.root)?;
        if !self.quick {
            sleep(SPREAD);
        }
        let mut results = Results::default();
        let mut values: [Vec<f64>; BARS.len()] = Default::default();
        let (mut limits, mut unconverted) = (Vec::new(), Vec::new());
        let mosquitto: Recipe = "mosquitto".parse().map_err(Error::msg)?;
        for round in 1..=self.rounds {
            println!("round {round} of {}", self.rounds);
            let mut run = |traffic: Traffic, target: &Target| -> Result<Report> {
                let report = traffic.run(target)?;
                println!("{report}");
                results.failures.extend(report.failures.iter().cloned());
                results.reports.push(report.clone());
                Ok(report)
            };
            let everywhere = cluster.target();
            let one = Target { others: Vec::new(), ..everywhere.clone() };
            let figure = |report: &Report, name| report.figure(name).unwrap_or(f64::NAN);
            let yardstick = {
                let broker = mosquitto.start(cores()?[0], Version::V3, &self.root)?;
                let in_memory = Traffic { persistent: false, ..self.traffic(100, Qos::One, None) };
                figure(&run(in_memory, &broker.target)?, RATE)
            };
            let quorum = run(self.traffic(100, Qos::One, None), &everywhere)?;
            // As much for this machine as the claimed rate is for the one that mosquitto was fast on.
            let rate = LATENCY_RATE * yardstick / YARDSTICK;
            let latency = run(self.traffic(100, Qos::One, Some(rate.round())), &everywhere)?;
            let claimed = run(self.traffic(100, Qos::One, Some(LATENCY_RATE)), &everywhere)?;
            unconverted.push(figure(&claimed, P99));
            let across = run(self.traffic(10, Qos::Zero, None), &everywhere)?;
            let same = run(self.traffic(10, Qos::Zero, None), &one)?;
            values[0].push(100.0 * figure(&quorum, RATE) / yardstick);
            // Whatever is so much slower takes as much longer.
            values[1].push(figure(&latency, P99) * yardstick / YARDSTICK);
            values[2].push(100.0 * figure(&across, CPU_RATE) / figure(&same, CPU_RATE));
            let length = Duration::from_secs_f64(if self.quick { 0.2 } else { 3.0 });
            let tls = limit::cpu_per_publication(PAYLOAD, length, &self.root)?;
            let same = figure(&same, CPU_RATE).recip();
            limits.push(100.0 * same / (same + tls));
        }
        for (name, values) in [(LIMIT, &mut limits), (UNCONVERTED, &mut unconverted)] {
            values.sort_by(f64::total_cmp);
            println!("{name:<60} {:>9}", number(values[values.len() / 2]));
        }
        for ((name, bar), values) in BARS.iter().zip(&mut values) {
            values.sort_by(f64::total_cmp);
            let (least, median) = (values[0], values[values.len() / 2]);
            let most = values[values.len() - 1];
            let (missed, bar) = match *bar {
                Bar::AtLeast(bar) => (median < bar, format!(">= {}", number(bar))),
                Bar::AtMost(bar) => (median > bar, format!("<= {}", number(bar))),
            };
            let median = number(median);
            println!("{name:<60} {median:>9} ({} to {}), bar {bar}", number(least), number(most));
            if missed && !self.quick {
                results.failures.push(format!("{name}: {median}, bar {bar}"));
            }
        }
        Ok(results)
    }

    fn traffic(&self, pairs: usize, qos: Qos, rate: Option<f64>) -> Traffic {
        let seconds = |seconds| Duration::from_secs_f64(if self.quick { 0.5 } else { seconds });
        Traffic {
            receivers: Receivers::Pairs { pairs: if self.quick { 6 } else { pairs } },
            qos,
            payload: PAYLOAD,
            window: 32,
            backlog: None,
            persistent: qos != Qos::Zero,
            rate: rate.map(|rate| if self.quick { 200.0 } else { rate }),
            warmup: seconds(2.0),
            duration: seconds(8.0),
        }
    }
}

/// Dropping it ends the nodes.
struct Cluster {
    nodes: Vec<Child>,
    addresses: Vec<SocketAddr>,
    folder: TempDir,
}

impl Cluster {
    fn start(program: &Path, root: &Path) -> Result<Self> {
        ensure!(program.exists(), "{}: no such program; build it first", program.display());
        let folder = TempDir::with_prefix_in("load-cluster-", root)?;
        let keys = folder.path().join("keys");
        let status = Command::new(program)
            .args(["cluster", "keys", "--out"])
            .arg(&keys)
            .args((1..=NODES).map(|node| node.to_string()))
            .stdout(Stdio::null())
            .status()?;
        ensure!(status.success(), "no keys for the nodes");
        let [mqtt, admin, peer] = [free_ports()?, free_ports()?, free_ports()?];
        let mut cluster = Self { nodes: Vec::new(), addresses: mqtt.clone(), folder };
        let path = cluster.folder.path().to_owned();
        for at in 0..NODES {
            let file = path.join(format!("node-{}.toml", at + 1));
            let data = path.join(format!("node-{}", at + 1));
            let text = configuration(at, &data, &keys, (mqtt[at], admin[at]), &peer);
            fs::write(&file, text)?;
            let output = File::create(path.join(format!("node-{}.log", at + 1)))?;
            let child = Command::new(program)
                .args(["serve", "--config"])
                .arg(&file)
                .stdin(Stdio::null())
                .stdout(output.try_clone()?)
                .stderr(output)
                .spawn()?;
            cluster.nodes.push(child);
        }
        cluster.wait_until_ready(&path)?;
        Ok(cluster)
    }

    fn target(&self) -> Target {
        Target {
            transport: Transport::Tcp,
            address: self.addresses[0],
            others: self.addresses[1..].to_vec(),
            pids: self.nodes.iter().map(Child::id).collect(),
            version: Version::V3,
        }
    }

    fn wait_until_ready(&mut self, path: &Path) -> Result<()> {
        for at in 0..NODES {
            let target = self.target().node(at);
            wait_until_ready(&mut self.nodes[at], &target, START).with_context(|| {
                let log = path.join(format!("node-{}.log", at + 1));
                let output = fs::read_to_string(log).unwrap_or_default();
                format!("node {} did not start; it says:\n{output}", at + 1)
            })?;
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            // Their data goes with them.
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

fn configuration(
    at: usize,
    data: &Path,
    keys: &Path,
    (mqtt, admin): (SocketAddr, SocketAddr),
    peers: &[SocketAddr],
) -> String {
    let (node, data, keys) = (at + 1, data.display(), keys.display());
    let mut text = format!(
        r#"data = "{data}"
cores = 2
[listeners.mqtt]
address = "{mqtt}"
anonymous_policy = '{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":"iot:*","Resource":"*"}}]}}'
[listeners.admin]
address = "{admin}"
[tls]
issuer_certificate = "{keys}/ca.pem"
issuer_private_key = "{keys}/ca.key"
[cluster]
id = "load"
node = {node}
listen = "{}"
certificate = "{keys}/node-{node}.pem"
private_key = "{keys}/node-{node}.key"
ca = "{keys}/ca.pem"
"#,
        peers[at]
    );
    for (at, peer) in peers.iter().enumerate() {
        text += &format!("[[cluster.peers]]\nnode = {}\naddress = \"{peer}\"\n", at + 1);
    }
    text
}

fn free_ports() -> Result<Vec<SocketAddr>> {
    // All at once, so that each is another one.
    let listeners: Result<Vec<_>, _> =
        (0..NODES).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect();
    Ok(listeners?.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?)
}
