//! Three nodes on this machine that are one cluster, and what is claimed of them.
//!
//! Nodes and generator share all cores: three nodes on two of them say nothing of a node's limit, so
//! what crosses nodes is compared with what does not, in the same round, by CPU time of all nodes.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tempfile::TempDir;

use crate::broker::wait_until_ready;
use crate::engine::Receivers;
use crate::frame::{Qos, Version};
use crate::report::{CPU_RATE, P99, RATE, Report, number};
use crate::scenario::Target;
use crate::scenario::traffic::Traffic;

const NODES: usize = 3;
/// How long the cluster may take until all nodes serve, and then until its leads are spread.
const START: Duration = Duration::from_secs(60);
const SPREAD: Duration = Duration::from_secs(10);

/// Publications per second of the latency run: a third of the bar for throughput.
const LATENCY_RATE: f64 = 20_000.0;

/// What is claimed: its name, and in which direction it may not be missed.
const BARS: [(&str, Bar); 3] = [
    (QUORUM, Bar::AtLeast(60_000.0)),
    (LATENCY, Bar::AtMost(30_000.0)),
    (CROSSING, Bar::AtLeast(60.0)),
];
const QUORUM: &str = "quorum-fsynced QoS 1, per second";
const LATENCY: &str = "p99 at a third of 60,000/s, us";
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
            let quorum = run(self.traffic(100, Qos::One, None), &everywhere)?;
            let latency = run(self.traffic(100, Qos::One, Some(LATENCY_RATE)), &everywhere)?;
            let across = run(self.traffic(10, Qos::Zero, None), &everywhere)?;
            let same = run(self.traffic(10, Qos::Zero, None), &one)?;
            let figure = |report: &Report, name| report.figure(name).unwrap_or(f64::NAN);
            values[0].push(figure(&quorum, RATE));
            values[1].push(figure(&latency, P99));
            values[2].push(100.0 * figure(&across, CPU_RATE) / figure(&same, CPU_RATE));
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
            println!("{name:<52} {median:>9} ({} to {}), bar {bar}", number(least), number(most));
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
            payload: 256,
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
