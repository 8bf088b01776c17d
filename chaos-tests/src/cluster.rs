//! Three real `skein serve` processes that are one cluster, on a network that can be broken.

mod member;
mod network;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::binary;
use member::Member;
pub(crate) use member::{HTTP, MQTTS, POLICY};
use network::Network;

/// How many nodes there are.
pub const NODES: u64 = 3;
/// How long a node may take to serve, or to end. Generous: machines are shared.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// What a disk of its own holds.
const DISK_BYTES: u64 = 2 << 30;

/// What the nodes have beside their network.
#[derive(Clone, Debug, Default)]
pub struct Equipment {
    /// What they run until [`Cluster::upgrade`]; none for the binary under test.
    pub first_program: Option<PathBuf>,
    /// A small file system each, which can be filled.
    pub disks: bool,
    /// A clock each, which can be set.
    pub clocks: bool,
}

/// See the module. Nodes have the numbers from 1 to [`NODES`].
pub struct Cluster {
    // Processes end before their network goes.
    members: Vec<Mutex<Member>>,
    addresses: Vec<SocketAddr>,
    network: Network,
    folder: Option<TempDir>,
}

impl Cluster {
    /// A cluster that serves. `None`, and it says why, where network namespaces cannot be had.
    pub fn start(equipment: Equipment) -> Result<Option<Self>> {
        let network = match Network::new(NODES as u8) {
            Ok(network) => network,
            Err(error) => {
                eprintln!("skipped: there are no network namespaces here; run as root: {error:#}");
                return Ok(None);
            }
        };
        let folder = tempfile::Builder::new().prefix("skein-chaos-").tempdir()?;
        let keys = folder.path().join("keys");
        let status = Command::new(binary())
            .args(["cluster", "keys", "--out"])
            .arg(&keys)
            .args((1..=NODES).map(|node| node.to_string()))
            .stdout(Stdio::null())
            .status()?;
        ensure!(status.success(), "no keys for the nodes");
        let nodes: Vec<_> = (1..=NODES).map(|node| (node, network.address(node))).collect();
        let mut members = Vec::new();
        for (node, address) in &nodes {
            let path = folder.path().join(format!("node-{node}"));
            let mut member = Member::new(*node, network.space(*node), *address, path);
            member.configure(&keys, &nodes)?;
            if let Some(program) = &equipment.first_program {
                member.program.clone_from(program);
            }
            if equipment.disks {
                member.mount(DISK_BYTES)?;
            }
            if equipment.clocks {
                member.own_clock()?;
            }
            member.spawn()?;
            members.push(member);
        }
        let addresses = members.iter().map(Member::mqtt).collect();
        let members = members.into_iter().map(Mutex::new).collect();
        let cluster = Self { members, addresses, network, folder: Some(folder) };
        cluster.wait_ready()?;
        Ok(Some(cluster))
    }

    fn member(&self, node: u64) -> std::sync::MutexGuard<'_, Member> {
        self.members[node as usize - 1].lock().expect("no thread panics with it")
    }

    /// Where MQTT is spoken, of each node.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Who has signed the certificates of the nodes, in PEM.
    pub fn authority(&self) -> Result<String> {
        Ok(fs::read_to_string(self.folder().join("keys").join("ca.pem"))?)
    }

    /// The node that leads the group which all others depend on, as somebody says who knows.
    pub fn leader(&self) -> Option<u64> {
        self.leaders().first().copied().flatten()
    }

    /// Who leads each group.
    pub fn leaders(&self) -> Vec<Option<u64>> {
        let running = (1..=NODES).filter(|node| {
            let member = self.member(*node);
            member.runs() && !member.stopped
        });
        let mut said = running.filter_map(|node| self.member(node).leaders().ok());
        said.find(|leaders| leaders.iter().all(Option::is_some)).unwrap_or_default()
    }

    /// Waits until every node that runs serves.
    pub fn wait_ready(&self) -> Result<()> {
        (1..=NODES).try_for_each(|node| self.wait_node_ready(node))
    }

    /// Waits until a node serves.
    pub fn wait_node_ready(&self, node: u64) -> Result<()> {
        self.wait(&format!("node {node} is ready"), || self.member(node).is_ready())
    }

    /// Waits until every group has all its voters, as `skein cluster status` says it.
    pub fn wait_settled(&self) -> Result<()> {
        let admin = self.member(1).admin().to_string();
        self.wait("all is well", || {
            let mut asking = Command::new(binary());
            asking.args(["cluster", "status", "--admin", &admin]);
            Ok(asking.output()?.status.success())
        })
    }

    fn wait(&self, what: &str, mut ask: impl FnMut() -> Result<bool>) -> Result<()> {
        let asked = Instant::now();
        while !ask()? {
            if asked.elapsed() > PATIENCE {
                bail!("{what}: not within {PATIENCE:?}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// kill -9.
    pub fn kill9(&self, node: u64) -> Result<()> {
        self.member(node).kill9()
    }

    /// Starts a node that is down; it need not serve yet.
    pub fn spawn(&self, node: u64) -> Result<()> {
        self.member(node).spawn()
    }

    /// A node that is down runs the binary under test from its next start on.
    pub fn upgrade(&self, node: u64) {
        self.member(node).program = binary().to_owned();
    }

    /// kill -9, and a start with an empty disk once another node has been told and says so.
    pub fn replace(&self, node: u64, asked: u64) -> Result<()> {
        self.kill9(node)?;
        self.member(node).lose_data()?;
        let admin = self.member(asked).admin().to_string();
        // Refused until the others have noticed that it is gone.
        self.wait(&format!("node {node} is replaced"), || {
            let mut replacing = Command::new(binary())
                .args(["cluster", "replace", &node.to_string(), "--admin", &admin])
                .args(["--timeout", &PATIENCE.as_secs().to_string()])
                .stdout(Stdio::piped())
                .spawn()?;
            let said = BufReader::new(replacing.stdout.take().context("it is piped")?);
            for line in said.lines() {
                if line?.starts_with("start node") {
                    self.spawn(node)?;
                }
            }
            Ok(replacing.wait()?.success())
        })
    }

    /// SIGSTOP: the process stands still, its connections stay.
    pub fn stop(&self, node: u64) -> Result<()> {
        self.member(node).signal(Signal::STOP)
    }

    /// SIGCONT.
    pub fn go_on(&self, node: u64) -> Result<()> {
        self.member(node).signal(Signal::CONT)
    }

    /// SIGTERM, until the process has ended well.
    pub fn terminate(&self, node: u64) -> Result<()> {
        self.member(node).signal(Signal::TERM)?;
        self.wait(&format!("node {node} ends"), || self.member(node).has_ended())
    }

    /// Nothing arrives any more that one node sends to the other.
    pub fn cut(&self, from: u64, to: u64) -> Result<()> {
        self.network.cut(from, to)
    }

    /// A node gets no more than so many bytes a second.
    pub fn slow(&self, node: u64, bytes: u32) -> Result<()> {
        self.network.slow(node, bytes)
    }

    /// All links are whole and fast.
    pub fn heal(&self) {
        self.network.heal(NODES);
    }

    /// Leaves the disk of a node so many bytes.
    pub fn fill_disk(&self, node: u64, left: u64) -> Result<()> {
        self.member(node).leave_free(left)
    }

    /// Gives the disk of a node its room back.
    pub fn empty_disk(&self, node: u64) -> Result<()> {
        self.member(node).make_room(DISK_BYTES)
    }

    /// Sets the clock of a node: so many seconds before or after the others'.
    pub fn set_clock(&self, node: u64, seconds: i64) -> Result<()> {
        self.member(node).set_clock(seconds)
    }

    /// What the nodes said last.
    pub fn said(&self, lines: usize) -> String {
        let said = (1..=NODES).map(|node| {
            let said = self.member(node).said(lines);
            format!("--- node {node}\n{said}\n")
        });
        said.collect()
    }

    /// Times that a node panicked.
    pub fn panics(&self) -> usize {
        (1..=NODES).map(|node| self.member(node).panics()).sum()
    }

    /// Where configurations, data and output are.
    pub fn folder(&self) -> &Path {
        self.folder.as_ref().expect("it is kept only at the end").path()
    }

    /// Ends everything, and keeps data and output for whoever looks; gives where.
    pub fn keep(mut self) -> Result<PathBuf> {
        let path = self.folder.take().context("it is kept once")?.keep();
        fs::remove_dir_all(path.join("keys"))?;
        Ok(path)
    }
}
