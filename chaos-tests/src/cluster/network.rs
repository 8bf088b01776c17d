//! A network of its own for a cluster: every node in a network namespace, a router between them
//! that can be told to drop what one sends to the other.
//!
//! What is dropped vanishes without a word, as on a cut cable; the clients are in the namespace of
//! the tests and reach every node all the time. Needs root. The names carry the number of the
//! process, so what a killed run has left behind is found and removed by the next one.

use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result, ensure};

const PREFIX: &str = "skc";

/// See the module.
pub(super) struct Network {
    /// Names begin with this.
    name: String,
    /// The first three numbers of all addresses.
    net: [u8; 3],
}

impl Network {
    /// A network for nodes `1..=nodes`.
    pub(super) fn new(nodes: u8) -> Result<Self> {
        static COUNT: AtomicU16 = AtomicU16::new(0);
        sweep();
        let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let [.., high, low] =
            (process.wrapping_mul(41).wrapping_add(u32::from(count))).to_be_bytes();
        // Benchmarking addresses (RFC 2544), which nobody else is likely to use here.
        let net = [198, 18 + (high & 1), low];
        let network = Self { name: format!("{PREFIX}{process:x}-{count:x}"), net };
        network.make(nodes)?;
        Ok(network)
    }

    fn make(&self, nodes: u8) -> Result<()> {
        let router = self.router();
        ip(&format!("netns add {router}"))?;
        forward(&router)?;
        let host = self.end("h");
        // Place 0 is for the tests.
        self.cable(0, &host, None)?;
        let [a, b, c] = self.net;
        ip(&format!("route add {a}.{b}.{c}.0/24 via {} dev {host}", self.gateway(0)))?;
        for node in 1..=nodes {
            let space = self.space(u64::from(node));
            ip(&format!("netns add {space}"))?;
            self.cable(node, &self.end(&format!("n{node}")), Some(&space))?;
            ip(&format!(
                "-n {space} link set lo up\n-n {space} route add default via {}",
                self.gateway(node)
            ))?;
        }
        Ok(())
    }

    /// A cable from the router to a place.
    fn cable(&self, place: u8, far: &str, space: Option<&str>) -> Result<()> {
        let (router, near) = (self.router(), self.end(&format!("r{place}")));
        ip(&format!("link add {near} type veth peer name {far}\nlink set {near} netns {router}"))?;
        ip(&format!(
            "-n {router} addr add {}/30 dev {near}\n-n {router} link set {near} up",
            self.gateway(place)
        ))?;
        let within = match space {
            Some(space) => {
                ip(&format!("link set {far} netns {space}"))?;
                format!("-n {space} ")
            }
            None => String::new(),
        };
        let address = self.place(place);
        ip(&format!("{within}addr add {address}/30 dev {far}\n{within}link set {far} up"))
    }

    fn router(&self) -> String {
        format!("{}r", self.name)
    }

    /// Names of interfaces have fifteen letters at most.
    fn end(&self, what: &str) -> String {
        format!("{}{what}", self.name)
    }

    /// The namespace of a node.
    pub(super) fn space(&self, node: u64) -> String {
        format!("{}n{node}", self.name)
    }

    fn gateway(&self, place: u8) -> Ipv4Addr {
        let [a, b, c] = self.net;
        Ipv4Addr::new(a, b, c, 4 * place + 1)
    }

    fn place(&self, place: u8) -> Ipv4Addr {
        let [a, b, c] = self.net;
        Ipv4Addr::new(a, b, c, 4 * place + 2)
    }

    /// The address of a node.
    pub(super) fn address(&self, node: u64) -> Ipv4Addr {
        self.place(u8::try_from(node).expect("few nodes"))
    }

    /// From now on nothing arrives that one sends to the other.
    pub(super) fn cut(&self, from: u64, to: u64) -> Result<()> {
        let (router, from, to) = (self.router(), self.address(from), self.address(to));
        ip(&format!("-n {router} rule add from {from} to {to} blackhole"))
    }

    /// From now on a node gets no more than so many bytes a second, and waits for them.
    pub(super) fn slow(&self, node: u64, bytes: u32) -> Result<()> {
        let (router, end) = (self.router(), self.end(&format!("r{node}")));
        let bits = bytes * 8;
        let words = format!("-n {router} qdisc replace dev {end} root tbf");
        tool("tc", &format!("{words} rate {bits}bit burst 16kb latency 300ms"))
    }

    /// Everything arrives again, at once. Says nothing of what was not cut.
    pub(super) fn heal(&self, nodes: u64) {
        let router = self.router();
        let rule = |from, to| {
            let (from, to) = (self.address(from), self.address(to));
            format!("-n {router} rule del from {from} to {to} blackhole")
        };
        for from in 1..=nodes {
            for to in (1..=nodes).filter(|to| *to != from) {
                while ip(&rule(from, to)).is_ok() {}
            }
            let end = self.end(&format!("r{from}"));
            // Fails where nothing was slowed.
            drop(tool("tc", &format!("-n {router} qdisc del dev {end} root")));
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

fn forward(space: &str) -> Result<()> {
    let status = Command::new("ip")
        .args(["netns", "exec", space, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])
        .status()?;
    ensure!(status.success(), "the router cannot forward");
    Ok(())
}

/// Commands for `ip`, one a line.
fn ip(commands: &str) -> Result<()> {
    for line in commands.lines() {
        tool("ip", line)?;
    }
    Ok(())
}

fn tool(name: &str, words: &str) -> Result<()> {
    let output = Command::new(name)
        .args(words.split_whitespace())
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{name} cannot be run"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} {words}: {}", said.trim());
    Ok(())
}

/// Removes what processes have left behind that are no more.
fn sweep() {
    let names = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    for name in names {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let Some((process, _)) = rest.split_once('-') else { continue };
        let Ok(process) = u32::from_str_radix(process, 16) else { continue };
        if !Path::new(&format!("/proc/{process}")).exists() {
            // The cables go with either end.
            drop(tool("ip", &format!("netns del {name}")));
        }
    }
}

/// Removes the namespaces whose names begin so.
fn remove(name: &str) {
    let names = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    for found in names.filter(|found| found.starts_with(name)) {
        if let Err(error) = tool("ip", &format!("netns del {found}")) {
            // Nothing can be done about it here, and the next run tries again.
            let _ = writeln!(std::io::stderr(), "a namespace is left behind: {error:#}");
        }
    }
    drop(tool("ip", &format!("link del {name}h")));
}
