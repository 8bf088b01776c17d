//! Connects, and connects again: how fast a broker takes clients in, plain or by mutual TLS.
//!
//! Threads instead of the engine: a handshake is a conversation, and with TLS both sides spend
//! their time in cryptography. TLS sessions are never resumed, as after an outage.

use std::fs;
use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, Stream};

use super::{Target, run_name};
use crate::client::{check_connack, dial, read_packet};
use crate::frame::{self, Connect, DISCONNECT, Version};
use crate::histogram::Histogram;
use crate::report::{Meter, Report};

/// A storm of connections.
#[derive(Clone, Debug)]
pub struct Storm {
    /// How many connect at the same time.
    pub concurrency: usize,
    /// For how long.
    pub duration: Duration,
    /// The TLS listener and how to speak to it; plain if `None`.
    pub tls: Option<(SocketAddr, Arc<ClientConfig>)>,
}

#[derive(Default)]
struct Tally {
    connected: u64,
    failed: u64,
    error: Option<anyhow::Error>,
    latencies: Histogram,
}

/// A client that trusts one authority and shows one certificate, from PEM files.
pub fn mutual_tls(ca: &Path, certificate: &Path, key: &Path) -> Result<ClientConfig> {
    let [ca, certificate, key] = [ca, certificate, key]
        .map(|path| fs::read(path).with_context(|| format!("reading {}", path.display())));
    mutual_tls_of(&ca?, &certificate?, &key?)
}

/// The same from PEM.
pub fn mutual_tls_of(ca: &[u8], certificate: &[u8], key: &[u8]) -> Result<ClientConfig> {
    let certificates = |pem| CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let mut roots = RootCertStore::empty();
    for authority in certificates(ca).context("the certificate authority")? {
        roots.add(authority)?;
    }
    let certificate = certificates(certificate).context("the certificate")?;
    let key = PrivateKeyDer::from_pem_slice(key).context("the private key")?;
    let mut config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificate, key)?;
    config.resumption = Resumption::disabled();
    Ok(config)
}

impl Storm {
    /// Connects and disconnects for the whole time.
    pub fn run(&self, target: &Target) -> Result<Report> {
        let run = run_name();
        let kind = if self.tls.is_some() { "mutual TLS" } else { "plain" };
        let (concurrency, version) = (self.concurrency, target.version);
        let mut report = Report::new(format!(
            "storm of {kind} connections, {concurrency} at a time, {version:?}"
        ));
        let total = Mutex::new(Tally::default());
        let meter = Meter::start(&target.pids)?;
        let deadline = Instant::now() + self.duration;
        thread::scope(|scope| {
            for worker in 0..concurrency {
                let (run, total) = (&run, &total);
                scope.spawn(move || {
                    let tally = self.work(target, &format!("c{worker}.{run}"), deadline);
                    total.lock().expect("no worker panics").add(tally);
                });
            }
        });
        let total = total.into_inner().expect("no worker panics");
        meter.stop(total.connected, &mut report)?;
        report.add_quantiles(&total.latencies);
        if let Some(error) = total.error {
            report.failures.push(format!("{} connects failed, e.g.: {error:#}", total.failed));
        }
        Ok(report)
    }

    fn work(&self, target: &Target, client_id: &str, deadline: Instant) -> Tally {
        let mut tally = Tally::default();
        loop {
            let start = Instant::now();
            if start > deadline {
                return tally;
            }
            match self.connect_once(target, client_id) {
                Ok(()) => {
                    tally.connected += 1;
                    tally.latencies.record(start.elapsed().as_nanos() as u64);
                }
                Err(error) => {
                    tally.failed += 1;
                    tally.error.get_or_insert(error);
                }
            }
        }
    }

    fn connect_once(&self, target: &Target, client_id: &str) -> Result<()> {
        let version = target.version;
        match &self.tls {
            None => {
                let mut socket = dial(target.address)?;
                exchange(&mut socket, client_id, version)
            }
            Some((address, config)) => {
                let mut socket = dial(*address)?;
                let name = ServerName::from(address.ip());
                let mut tls = ClientConnection::new(Arc::clone(config), name)?;
                let mut stream = Stream::new(&mut tls, &mut socket);
                exchange(&mut stream, client_id, version)?;
                tls.send_close_notify();
                // DISCONNECT is sent: a broker that has closed already did nothing wrong.
                let _ = tls.write_tls(&mut socket).and_then(|_| socket.shutdown(Shutdown::Write));
                Ok(())
            }
        }
    }
}

/// CONNECT, CONNACK, DISCONNECT.
fn exchange(stream: &mut (impl Read + Write), client_id: &str, version: Version) -> Result<()> {
    let connect = Connect { client_id, version, keep_alive: 30, clean: true };
    stream.write_all(&frame::connect(&connect))?;
    // Nothing follows CONNACK, so one read may take what there is.
    let (first, body) = read_packet(&mut BufReader::with_capacity(256, &mut *stream))?;
    check_connack(first, &body, version)?;
    stream.write_all(&DISCONNECT)?;
    Ok(())
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.connected += other.connected;
        self.failed += other.failed;
        self.error = self.error.take().or(other.error);
        self.latencies.merge(&other.latencies);
    }
}
