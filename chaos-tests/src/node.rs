//! A broker process and the data directory that outlives it.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{Dice, PATIENCE, admin, binary, disk, eventually};

const MQTT: u16 = 1883;
const ADMIN: u16 = 9464;
const PORTS: [u16; 7] = [MQTT, 8883, 8083, 8443, 8080, ADMIN, 7400];

/// A broker that is started, killed and started again on the same data. When a test fails, the
/// data and the output stay for whoever looks.
pub struct Node {
    folder: Option<TempDir>,
    path: PathBuf,
    offset: u16,
    child: Option<Child>,
    starts: u32,
    /// Whether the data directory is a file system of its own.
    mounted: bool,
}

impl Node {
    /// A node that serves.
    ///
    /// # Panics
    /// When it does not get ready.
    pub fn started(dice: &mut Dice) -> Self {
        let mut node = Self::new(dice);
        node.start();
        node
    }

    /// A node that is not started yet.
    pub fn new(dice: &mut Dice) -> Self {
        let folder = tempfile::Builder::new().prefix("skein-chaos-").tempdir();
        let folder = folder.expect("a temporary directory");
        let path = folder.path().to_owned();
        Self {
            folder: Some(folder),
            path,
            offset: free_offset(dice),
            child: None,
            starts: 0,
            mounted: false,
        }
    }

    /// A node that is not started yet, whose data directory is a file system of `bytes`. `None`, and
    /// it says so, where none can be mounted: that takes root.
    pub fn on_small_disk(dice: &mut Dice, bytes: u64) -> Option<Self> {
        let mut node = Self::new(dice);
        fs::create_dir(node.data()).expect("the directory is new");
        node.mounted = disk::mount(&node.data(), &format!("size={bytes}"));
        if !node.mounted {
            eprintln!("skipped: a small file system cannot be mounted here; run as root");
            return None;
        }
        Some(node)
    }

    /// Makes its disk so large that `bytes` are free, all at once.
    ///
    /// # Panics
    /// When it has no disk of its own.
    pub fn leave_free(&self, bytes: u64) {
        assert!(self.mounted, "the disk is not its own");
        eventually("the disk has another size", || {
            disk::leave_free(&self.data(), bytes).then_some(())
        });
    }

    /// Where MQTT is spoken without TLS.
    pub fn address(&self) -> SocketAddr {
        self.on(MQTT)
    }

    /// The directory of the log's segments.
    pub fn log_dir(&self) -> PathBuf {
        self.data().join("log")
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// How often the process was started.
    pub fn starts(&self) -> u32 {
        self.starts
    }

    fn on(&self, port: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, port + self.offset).into()
    }

    fn output(&self) -> PathBuf {
        self.path.join("output")
    }

    /// What the process has said since it was last started.
    pub fn said(&self) -> String {
        let all = fs::read(self.output()).unwrap_or_default();
        let all = String::from_utf8_lossy(&all);
        all.rsplit(MARK).next().unwrap_or_default().to_owned()
    }

    /// Starts the process and returns at once.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        self.starts += 1;
        let mut output = append(&self.output());
        writeln!(output, "{MARK}{}", self.starts).expect("output can be written");
        let child = Command::new(binary())
            .args(["dev", "--port-offset", &self.offset.to_string(), "--data"])
            .arg(self.data())
            .env("RUST_BACKTRACE", "1")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .spawn();
        self.child = Some(child.unwrap_or_else(|error| panic!("{}: {error}", binary().display())));
    }

    /// Starts the process and waits until it serves.
    ///
    /// # Panics
    /// When it ends before, or takes too long.
    pub fn start(&mut self) {
        self.spawn();
        if let Err(error) = self.wait_ready() {
            panic!("start {} of the node: {error:#}\n{}", self.starts, self.said());
        }
    }

    /// Waits until the node serves.
    pub fn wait_ready(&mut self) -> Result<()> {
        let asked = Instant::now();
        while asked.elapsed() < PATIENCE {
            let child = self.child.as_mut().context("it was not started")?;
            if let Some(status) = child.try_wait()? {
                self.child = None;
                bail!("it ended before it was ready: {status}");
            }
            if self.is_ready() && TcpStream::connect(self.address()).is_ok() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(5));
        }
        bail!("not ready within {PATIENCE:?}")
    }

    /// Why the node says that it does not serve, if it does.
    pub fn not_ready(&self) -> Option<String> {
        let answer = admin::get(self.on(ADMIN), "/readyz");
        answer.err().map(|error| error.to_string()).filter(|answer| answer.contains(" 503 "))
    }

    /// Whether the node says that it serves.
    pub fn is_ready(&self) -> bool {
        admin::is_ready(self.on(ADMIN))
    }

    /// Starts it where it must not start; gives what it said.
    ///
    /// # Panics
    /// When it starts nevertheless, or ends as if all were well, or panics.
    pub fn refuses_to_start(&mut self) -> String {
        self.spawn();
        let mut child = self.child.take().expect("it was just started");
        let admin = self.on(ADMIN);
        let status = eventually("the refusal", || {
            if admin::is_ready(admin) {
                return Some(None);
            }
            child.try_wait().expect("a child can be waited for").map(Some)
        });
        let Some(status) = status else {
            self.child = Some(child);
            panic!("it started\n{}", self.said());
        };
        let said = self.said();
        assert!(!status.success(), "it ended with {status}\n{said}");
        assert!(!said.contains("panicked"), "it panicked\n{said}");
        said
    }

    /// Ends the process as a power cut would, as far as a process can tell.
    pub fn kill9(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("it can be killed");
        child.wait().expect("a child can be waited for");
    }

    /// Asks the process to end.
    pub fn sigterm(&self) {
        let child = self.child.as_ref().expect("it runs");
        let pid = Pid::from_child(child);
        kill_process(pid, Signal::TERM).expect("it can be signalled");
    }

    /// Waits until the process has ended.
    ///
    /// # Panics
    /// When it does not end.
    pub fn wait_ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        let asked = Instant::now();
        while asked.elapsed() < PATIENCE {
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                return status;
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.child = Some(child);
        panic!("the node does not end\n{}", self.said());
    }

    /// kill -9, and a start on the same data.
    pub fn restart(&mut self) {
        self.kill9();
        self.start();
    }

    /// A metric, summed over its labels; 0 while there is none.
    pub fn metric(&self, name: &str) -> f64 {
        let answer = admin::get(self.on(ADMIN), "/metrics");
        answer.map_or(0.0, |text| admin::metric(&text, name))
    }
}

/// Stands in the output where a start begins.
const MARK: &str = "=== start ";

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Nothing is left to be done when it has ended on its own.
            let _ = child.kill();
            let _ = child.wait();
        }
        if self.mounted && !thread::panicking() {
            // What is left behind otherwise is a mount that nobody uses.
            let _ = Command::new("umount").arg(self.data()).status();
        }
        if thread::panicking()
            && let Some(folder) = self.folder.take()
        {
            eprintln!("data and output of the node are kept in {}", folder.keep().display());
        }
    }
}

fn append(path: &Path) -> File {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A port offset at which nobody listens, below the range that outgoing connections use.
fn free_offset(dice: &mut Dice) -> u16 {
    let is_free = |offset: u16| {
        PORTS.iter().all(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port + offset)).is_ok())
    };
    // Tests with the same seed run side by side, so the process and the time have their say.
    let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |now| u64::from(now.subsec_nanos()));
    let start = dice.clone().bits() ^ (u64::from(std::process::id()) << 32) ^ now;
    (0..2_000_u64)
        .map(|step| 8_000 + ((start >> 8).wrapping_add(step * 97) % 14_000) as u16)
        .find(|offset| is_free(*offset))
        .expect("some ports are free")
}
