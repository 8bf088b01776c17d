//! One node of a cluster: a process in its own network namespace, and the data that outlives it.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::control::{ACCESS_KEY, SECRET};
use crate::{admin, binary, disk};

pub(super) const MQTT: u16 = 1883;
/// Where MQTT is spoken over TLS.
pub(crate) const MQTTS: u16 = 8883;
/// Where the control plane is.
pub(crate) const HTTP: u16 = 8080;
pub(super) const ADMIN: u16 = 9464;
pub(super) const PEER: u16 = 7400;

/// See the module.
pub(super) struct Member {
    /// Its number.
    pub(super) number: u64,
    space: String,
    address: Ipv4Addr,
    folder: PathBuf,
    /// What it runs.
    pub(super) program: PathBuf,
    child: Option<Child>,
    starts: u32,
    /// Whether its process stands still.
    pub(super) stopped: bool,
    mounted: bool,
    /// What fakes its clock, when that can be set.
    clock: Option<PathBuf>,
}

/// What everybody may do.
pub(crate) const POLICY: &str =
    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}"#;

/// How often a disk that a node writes to is measured again.
const TRIES: u32 = 50;

impl Member {
    pub(super) fn new(number: u64, space: String, address: Ipv4Addr, folder: PathBuf) -> Self {
        let (child, starts, stopped, mounted, clock) = (None, 0, false, false, None);
        let program = binary().to_owned();
        Self { number, space, address, folder, program, child, starts, stopped, mounted, clock }
    }

    /// Writes its configuration.
    pub(super) fn configure(&self, keys: &Path, nodes: &[(u64, Ipv4Addr)]) -> Result<()> {
        fs::create_dir_all(self.data())?;
        let (number, address, keys) = (self.number, self.address, keys.display());
        let data = self.data().display().to_string();
        let peers = nodes.iter().map(|(node, address)| {
            format!("[[cluster.peers]]\nnode = {node}\naddress = \"{address}:{PEER}\"\n")
        });
        let peers: String = peers.collect();
        let text = format!(
            "data = \"{data}\"\nshards = 4\ncores = 2\n\
             [listeners.mqtt]\naddress = \"{address}:{MQTT}\"\nanonymous_policy = '{POLICY}'\n\
             [listeners.mqtts]\naddress = \"{address}:{MQTTS}\"\n\
             [listeners.http]\naddress = \"{address}:{HTTP}\"\n\
             [tls]\ncertificate = \"{keys}/node-{number}.pem\"\n\
             private_key = \"{keys}/node-{number}.key\"\n\
             issuer_certificate = \"{keys}/ca.pem\"\nissuer_private_key = \"{keys}/ca.key\"\n\
             [[access_keys]]\nid = \"{ACCESS_KEY}\"\nsecret = \"{SECRET}\"\n\
             [listeners.admin]\naddress = \"{address}:{ADMIN}\"\n\
             [log]\nformat = \"human\"\n\
             [cluster]\nid = \"chaos\"\nnode = {number}\nlisten = \"{address}:{PEER}\"\n\
             certificate = \"{keys}/node-{number}.pem\"\nprivate_key = \"{keys}/node-{number}.key\"\n\
             ca = \"{keys}/ca.pem\"\ndrain_delay = \"200ms\"\n{peers}"
        );
        fs::write(self.configuration(), text).context("the configuration cannot be written")
    }

    fn configuration(&self) -> PathBuf {
        self.folder.join("skein.toml")
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn output(&self) -> Result<File> {
        Ok(OpenOptions::new().create(true).append(true).open(self.folder.join("output"))?)
    }

    pub(super) fn mqtt(&self) -> SocketAddr {
        (self.address, MQTT).into()
    }

    pub(super) fn admin(&self) -> SocketAddr {
        (self.address, ADMIN).into()
    }

    pub(super) fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Starts the process and returns at once.
    pub(super) fn spawn(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "node {} runs already", self.number);
        self.starts += 1;
        let mut output = self.output()?;
        writeln!(output, "=== start {}", self.starts)?;
        let mut command = Command::new("ip");
        if let Some(library) = &self.clock {
            command
                .env("LD_PRELOAD", library)
                .env("FAKETIME_TIMESTAMP_FILE", self.clock_file())
                .env("FAKETIME_CACHE_DURATION", "1")
                // What runs on is no clock that somebody sets.
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
                .env("DONT_FAKE_MONOTONIC", "1");
        }
        let child = command
            .args(["netns", "exec", &self.space])
            .arg(&self.program)
            .args(["serve", "--config"])
            .arg(self.configuration())
            .env("RUST_BACKTRACE", "1")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// Whether it serves. A process that has ended never will.
    pub(super) fn is_ready(&mut self) -> Result<bool> {
        let child = self.child.as_mut().with_context(|| format!("node {} is down", self.number))?;
        if let Some(status) = child.try_wait()? {
            self.child = None;
            anyhow::bail!("node {} ended on its own: {status}", self.number);
        }
        Ok(admin::is_ready(self.admin()))
    }

    /// The leaders of all groups, as this node knows them.
    pub(super) fn leaders(&self) -> Result<Vec<Option<u64>>> {
        let standing: Value = serde_json::from_str(&admin::get(self.admin(), "/admin/cluster")?)?;
        let groups = standing["groups"].as_object().context("no groups")?;
        Ok(groups.values().map(|group| group["leader"].as_u64()).collect())
    }

    pub(super) fn signal(&mut self, signal: Signal) -> Result<()> {
        let child = self.child.as_ref().with_context(|| format!("node {} is down", self.number))?;
        // `ip netns exec` becomes what it is told to run.
        kill_process(Pid::from_child(child), signal)?;
        self.stopped = match signal {
            Signal::STOP => true,
            Signal::CONT => false,
            _ => self.stopped,
        };
        Ok(())
    }

    /// Ends the process as a power cut would, as far as a process can tell.
    pub(super) fn kill9(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.stopped = false;
        self.child.take().expect("it was signalled").wait()?;
        Ok(())
    }

    /// Whether a process that was asked to end has ended, and well.
    pub(super) fn has_ended(&mut self) -> Result<bool> {
        let Some(child) = self.child.as_mut() else { return Ok(true) };
        let Some(status) = child.try_wait()? else { return Ok(false) };
        self.child = None;
        ensure!(status.success(), "node {} ended with {status}", self.number);
        Ok(true)
    }

    /// Loses its data: it has to join again, and its configuration says so from now on.
    pub(super) fn lose_data(&self) -> Result<()> {
        for file in fs::read_dir(self.data())? {
            let path = file?.path();
            if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
        }
        let text = fs::read_to_string(self.configuration())?;
        if !text.contains("join = true") {
            fs::write(
                self.configuration(),
                text.replace("[cluster]\n", "[cluster]\njoin = true\n"),
            )?;
        }
        Ok(())
    }

    /// Puts its data on a file system of its own, before the first start.
    pub(super) fn mount(&mut self, bytes: u64) -> Result<()> {
        self.resize(&format!("size={bytes}"))?;
        self.mounted = true;
        Ok(())
    }

    /// Leaves its disk so many bytes.
    pub(super) fn leave_free(&self, bytes: u64) -> Result<()> {
        let left = (0..TRIES).any(|_| disk::leave_free(&self.data(), bytes));
        ensure!(left, "the disk cannot be left {bytes} bytes");
        Ok(())
    }

    /// Makes its disk so large.
    pub(super) fn make_room(&self, bytes: u64) -> Result<()> {
        self.resize(&format!("remount,size={bytes}"))
    }

    fn resize(&self, options: &str) -> Result<()> {
        ensure!(disk::mount(&self.data(), options), "mount {options}");
        Ok(())
    }

    fn clock_file(&self) -> PathBuf {
        self.folder.join("clock")
    }

    /// Gives it a clock that can be set, from its next start on.
    pub(super) fn own_clock(&mut self) -> Result<()> {
        let library = faketime().context("there is no libfaketime: `cargo xtask setup`")?;
        self.clock = Some(library);
        self.set_clock(0)
    }

    /// Sets its clock so many seconds before or after that of this machine.
    pub(super) fn set_clock(&self, seconds: i64) -> Result<()> {
        let new = self.folder.join("clock.new");
        fs::write(&new, format!("{seconds:+}s\n"))?;
        Ok(fs::rename(new, self.clock_file())?)
    }

    /// The last lines of what it said.
    pub(super) fn said(&self, lines: usize) -> String {
        let all = fs::read(self.folder.join("output")).unwrap_or_default();
        let all = String::from_utf8_lossy(&all).into_owned();
        let all: Vec<&str> = all.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Times that it panicked.
    pub(super) fn panics(&self) -> usize {
        let all = fs::read(self.folder.join("output")).unwrap_or_default();
        String::from_utf8_lossy(&all).matches("panicked at").count()
    }
}

/// The library that fakes clocks, of Debian's package `libfaketime`.
fn faketime() -> Option<PathBuf> {
    let places = fs::read_dir("/usr/lib").ok()?.flatten();
    let libraries = places.map(|place| place.path().join("faketime/libfaketimeMT.so.1"));
    libraries.into_iter().find(|library| library.is_file())
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Nothing is left to be done when it has ended on its own.
            let _ = child.kill();
            let _ = child.wait();
        }
        if self.mounted {
            let _ = Command::new("umount").arg(self.data()).status();
        }
    }
}
