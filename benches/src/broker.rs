//! Starts brokers as children: each on its own core, in its own directory, on its own ports.
//!
//! A broker is ready when it accepts an MQTT connection. Dropping a [`Broker`] ends it.

pub(crate) mod pki;

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use rustls::ClientConfig;
use tempfile::TempDir;

use crate::frame::Version;
use crate::scenario::Target;
use crate::stream::{Carrier, Transport, mutual_tls};

/// Ports that `skein dev` opens, before its offset.
const PORTS: [u16; 7] = [1883, 8883, 8083, 8443, 8080, 9464, 7400];

/// Keeps every listener below the range of ephemeral ports.
const OFFSETS: std::ops::Range<u16> = 20_000..23_000;

/// Where certificates are, below a broker's folder: `skein dev` makes its own there.
const PKI: &str = "data/pki";

/// How long a broker may take to start, and to stop before it is killed.
const START: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(5);

/// How to start a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// What it is called in the results.
    pub name: String,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Skein(PathBuf),
    Mosquitto(PathBuf),
    Relay,
    /// Started as `PROGRAM -c CONFIG`; `{port}`, `{tls_port}`, `{ws_port}` and `{data}` in its file are
    /// filled in.
    Other {
        program: PathBuf,
        config: PathBuf,
    },
}

impl FromStr for Recipe {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = match text.split_once('=') {
            Some((name, path)) => (name, Some(path)),
            None => (text, None),
        };
        let kind = match (name, path) {
            ("skein", path) => Kind::Skein(path.unwrap_or("target/release/skein").into()),
            ("relay", None) => Kind::Relay,
            ("mosquitto", None) => Kind::Mosquitto("mosquitto".into()),
            (_, Some(path)) => match path.split_once(':') {
                Some((program, config)) => {
                    Kind::Other { program: program.into(), config: config.into() }
                }
                None if name == "mosquitto" => Kind::Mosquitto(path.into()),
                None => return Err(format!("expected {name}=PROGRAM:CONFIG")),
            },
            _ => return Err("expected skein, mosquitto, relay or NAME=PROGRAM:CONFIG".into()),
        };
        Ok(Self { name: name.into(), kind })
    }
}

impl Recipe {
    /// Whether this is Skein.
    pub fn is_skein(&self) -> bool {
        matches!(self.kind, Kind::Skein(_))
    }

    /// Whether this is the raw relay, which knows pairs and fan-out only.
    pub fn is_relay(&self) -> bool {
        self.kind == Kind::Relay
    }

    /// Fails early if the program is not there.
    pub fn check(&self) -> Result<()> {
        let (Kind::Skein(program) | Kind::Other { program, .. }) = &self.kind else {
            return Ok(());
        };
        ensure!(
            program.exists(),
            "{}: no such program; build it, or name it with --broker",
            program.display()
        );
        Ok(())
    }

    /// Which version it is, as its program says; `?` where that says nothing.
    pub fn version(&self) -> String {
        let (program, word) = match &self.kind {
            Kind::Skein(program) | Kind::Other { program, .. } => (program.as_path(), "--version"),
            Kind::Mosquitto(program) => (program.as_path(), "-h"),
            Kind::Relay => return "the raw relay of this generator".into(),
        };
        let said = Command::new(program).arg(word).stdin(Stdio::null()).output();
        let said = said.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let line = said.ok().and_then(|said| said.lines().next().map(str::to_owned));
        line.filter(|line| !line.is_empty()).unwrap_or_else(|| "?".into())
    }

    /// Starts the broker on a core and waits until it accepts connections.
    pub fn start(&self, core: usize, version: Version, root: &Path) -> Result<Broker> {
        let directory = TempDir::with_prefix_in(format!("load-{}-", self.name), root)?;
        let offset = free_offset()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1883 + offset));
        let arguments = self.arguments(directory.path(), offset)?;
        let log = directory.path().join("output.log");
        let output = File::create(&log)?;
        let child = Command::new("taskset")
            .args(["-c", &core.to_string()])
            .args(&arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("starting taskset")?;
        // taskset becomes the broker, so the child's id is the broker's.
        let (transport, pids) = (Transport::Tcp, vec![child.id()]);
        let target = Target { transport, address, others: Vec::new(), pids, version };
        let mut broker = Broker { child, target, offset, directory };
        broker.wait_until_ready().with_context(|| {
            let output = fs::read_to_string(&log).unwrap_or_default();
            format!("{} did not start; it says:\n{output}", self.name)
        })?;
        Ok(broker)
    }

    fn arguments(&self, directory: &Path, offset: u16) -> Result<Vec<PathBuf>> {
        let config = directory.join("broker.conf");
        Ok(match &self.kind {
            Kind::Skein(program) => vec![
                program.clone(),
                "dev".into(),
                "--data".into(),
                directory.join("data"),
                "--port-offset".into(),
                offset.to_string().into(),
            ],
            Kind::Mosquitto(program) => {
                let pki = directory.join(PKI);
                pki::write(&pki)?;
                fs::write(&config, mosquitto_config(offset, &pki))?;
                vec![program.clone(), "-c".into(), config]
            }
            Kind::Relay => {
                let pki = directory.join(PKI);
                pki::write(&pki)?;
                let at = |port: u16| PathBuf::from(format!("127.0.0.1:{}", port + offset));
                let mut arguments = vec![std::env::current_exe()?, "relay".into()];
                arguments.extend(["--address".into(), at(1883), "--tls-address".into(), at(8883)]);
                arguments.extend(["--pki".into(), pki]);
                arguments
            }
            Kind::Other { program, config: template } => {
                let text = fs::read_to_string(template)
                    .with_context(|| format!("reading {}", template.display()))?;
                let text = text
                    .replace("{port}", &(1883 + offset).to_string())
                    .replace("{ws_port}", &(8083 + offset).to_string())
                    .replace("{tls_port}", &(8883 + offset).to_string())
                    .replace("{data}", &directory.to_string_lossy());
                pki::write(&directory.join(PKI))?;
                fs::write(&config, text)?;
                vec![program.clone(), "-c".into(), config]
            }
        })
    }
}

/// Mosquitto at its best: everything in memory, nothing limited, nothing logged.
fn mosquitto_config(offset: u16, pki: &Path) -> String {
    let (plain, tls, websocket) = (1883 + offset, 8883 + offset, 8083 + offset);
    let pki = pki.display();
    format!(
        "allow_anonymous true\n\
         persistence false\n\
         max_queued_messages 0\n\
         max_inflight_messages 0\n\
         set_tcp_nodelay true\n\
         log_dest none\n\
         listener {plain} 127.0.0.1\n\
         listener {tls} 127.0.0.1\n\
         cafile {pki}/ca.pem\n\
         certfile {pki}/server.pem\n\
         keyfile {pki}/server.key\n\
         require_certificate true\n\
         listener {websocket} 127.0.0.1\n\
         protocol websockets\n"
    )
}

/// Finds an offset at which all ports of a broker are free: not one that this process has found just before,
/// whose broker may not listen yet.
fn free_offset() -> Result<u16> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let offsets: Vec<u16> = OFFSETS.step_by(13).collect();
    let mut tries = (0..offsets.len()).map(|_| NEXT.fetch_add(1, Ordering::Relaxed));
    tries
        .find_map(|number| {
            let offset = offsets[number % offsets.len()];
            PORTS.iter().all(|port| free(port + offset)).then_some(offset)
        })
        .context("no free ports on the loopback interface")
}

/// A running broker.
#[derive(Debug)]
pub struct Broker {
    child: Child,
    /// How to reach it by TCP.
    pub target: Target,
    /// Of all its ports.
    offset: u16,
    directory: TempDir,
}

impl Broker {
    /// How to reach it otherwise, where it can be.
    pub fn target_over(&self, carrier: Carrier) -> Result<Target> {
        let transport = carrier.transport(|| self.tls_client())?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, carrier.port() + self.offset));
        Ok(Target { transport, address, ..self.target.clone() })
    }

    /// A TLS client that this broker accepts.
    fn tls_client(&self) -> Result<ClientConfig> {
        let pki = self.directory.path().join(PKI);
        let [ca, device, key] = ["ca.pem", "device.pem", "device.key"].map(|name| pki.join(name));
        mutual_tls(&ca, &device, &key)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        wait_until_ready(&mut self.child, &self.target, START)
    }

    fn stop(&mut self) -> Result<()> {
        if let Some(pid) = Pid::from_raw(i32::try_from(self.child.id())?) {
            kill_process(pid, Signal::TERM)?;
        }
        let start = Instant::now();
        while self.child.try_wait()?.is_none() {
            if start.elapsed() > STOP {
                self.child.kill()?;
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// Waits until a broker that was started accepts connections.
pub(crate) fn wait_until_ready(
    child: &mut Child,
    target: &Target,
    patience: Duration,
) -> Result<()> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            bail!("ended with {status}");
        }
        match target.connect("load.ready", true) {
            Ok(client) => return client.disconnect(),
            Err(error) if start.elapsed() > patience => return Err(error),
            Err(_) => sleep(Duration::from_millis(50)),
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Nothing depends on how it ends; a child that is left over is the worst that can happen.
        let _ = self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes() {
        let other = |program: &str, config: &str| {
            Some(Kind::Other { program: program.into(), config: config.into() })
        };
        for (text, expected) in [
            ("skein", Some(Kind::Skein("target/release/skein".into()))),
            ("skein=/x/skein", Some(Kind::Skein("/x/skein".into()))),
            ("mosquitto", Some(Kind::Mosquitto("mosquitto".into()))),
            ("mosquitto=/x/m", Some(Kind::Mosquitto("/x/m".into()))),
            ("relay", Some(Kind::Relay)),
            ("tuned=/x/m:/x/m.conf", other("/x/m", "/x/m.conf")),
            ("tuned=/x/m", None),
            ("tuned", None),
        ] {
            assert_eq!(text.parse::<Recipe>().ok().map(|recipe| recipe.kind), expected, "{text}");
        }
    }
}
