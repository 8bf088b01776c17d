//! Many clients that lose their connections at the same moment, and come back at once: how soon all are
//! served, whether the broker says that it is well meanwhile, and whether what was published to them while
//! they were away arrives.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use super::{Target, run_name};
use crate::client::check_connack;
use crate::engine::{Engine, Flow, Receivers};
use crate::frame::{self, Connect, Numbering, Qos, Shape, acknowledgement};
use crate::histogram::Histogram;
use crate::report::{Meter, Report};
use crate::scan::{self, Packet};
use crate::stream::Stream;

/// How many connect at the same time before the storm.
const OPENERS: usize = 16;
/// Bytes of each publication.
const PAYLOAD: usize = 64;
/// How long nothing may move before those who are not served are given up.
const IDLE: Duration = Duration::from_secs(20);
/// A client whose connection fails tries again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How often the broker is asked whether it is well.
const PROBED_EVERY: Duration = Duration::from_millis(100);
/// How long that may take.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);

/// A storm of clients that have sessions.
#[derive(Clone, Debug)]
pub struct Reconnect {
    /// How many.
    pub clients: usize,
    /// The broker's listener that says at `/readyz` whether it is well.
    pub probe: Option<SocketAddr>,
}

/// A client that comes back.
struct Returning {
    /// None until it may try again.
    stream: Option<Stream>,
    outbox: Vec<u8>,
    inbox: Vec<u8>,
    is_connected: bool,
    has_message: bool,
}

#[derive(Default)]
struct Probed {
    failed: u64,
    slowest: Duration,
}

impl Reconnect {
    /// Opens the sessions, cuts them off, publishes to each, and has all come back.
    pub fn run(&self, target: &Target) -> Result<Report> {
        ensure!(self.clients > 0, "nobody to come back");
        let run = run_name();
        let prefix = format!("load/{run}/");
        let names: Vec<_> = (0..self.clients).map(|index| format!("s{index}.{run}")).collect();
        let mut report = Report::new(format!(
            "{} sessions come back at once, {:?} over {}",
            self.clients,
            target.version,
            target.transport.name()
        ));
        drop(self.open(target, &prefix, &names)?);
        self.publish(target, &run, &prefix)?;
        let over = AtomicBool::new(false);
        let (returned, probed) = thread::scope(|scope| {
            let over = &over;
            let probing = self.probe.map(|probe| scope.spawn(move || watch(probe, over)));
            let returned = self.come_back(target, &names, &mut report);
            over.store(true, Ordering::Relaxed);
            (returned, probing.map(|probing| probing.join().expect("it does not panic")))
        });
        let clients = returned?;
        let missing = clients.iter().filter(|client| !client.is_connected).count();
        if missing > 0 {
            report.failures.push(format!("{missing} clients were not served"));
        }
        report.lost = clients.iter().filter(|client| !client.has_message).count() as u64;
        if report.lost > 0 {
            report.failures.push(format!("{} publications lost at QoS 1", report.lost));
        }
        if let Some(Probed { failed, slowest }) = probed {
            report.add("slowest probe ms", slowest.as_secs_f64() * 1e3);
            if failed > 0 {
                report.failures.push(format!("{failed} probes failed"));
            }
        }
        drop(clients);
        names.iter().try_for_each(|name| target.forget(name))?;
        Ok(report)
    }

    /// Sessions that wait for one topic each.
    fn open(&self, target: &Target, prefix: &str, names: &[String]) -> Result<Vec<Stream>> {
        let share = self.clients.div_ceil(OPENERS);
        let open = |first: usize, names: &[String]| {
            let open = |(index, name): (usize, &String)| {
                let mut client = target.connect(name, false)?;
                client.subscribe(&[frame::topic(prefix, (first + index) as u64)], Qos::One)?;
                Ok(client.stream)
            };
            names.iter().enumerate().map(open).collect::<Result<Vec<_>>>()
        };
        thread::scope(|scope| {
            let opening = names.chunks(share).enumerate();
            let opening = opening.map(|(at, names)| scope.spawn(move || open(at * share, names)));
            let opening: Vec<_> = opening.collect();
            let mut streams = Vec::with_capacity(self.clients);
            for opened in opening {
                streams.extend(opened.join().expect("it does not panic").context("connecting")?);
            }
            Ok(streams)
        })
    }

    /// One publication to each session.
    fn publish(&self, target: &Target, run: &str, prefix: &str) -> Result<()> {
        let shape = Shape {
            prefix,
            numbering: Numbering::BySequence { span: self.clients as u64 },
            qos: Qos::One,
            retain: false,
            payload: PAYLOAD,
            version: target.version,
        };
        let flow = Flow {
            shape,
            receivers: Receivers::None,
            window: 256,
            backlog: u64::MAX,
            limit: Some(self.clients as u64),
            rate: None,
            shares_cores: false,
        };
        let publisher = target.connect(&format!("p.{run}"), true)?;
        let (all, _) = Engine::new(flow, vec![publisher], Vec::new())?.run_out()?;
        ensure!(all, "the broker does not acknowledge what is published to sessions");
        Ok(())
    }

    /// All dial at the same time; who fails dials again.
    fn come_back(
        &self,
        target: &Target,
        names: &[String],
        report: &mut Report,
    ) -> Result<Vec<Returning>> {
        let mut poll = Poll::new()?;
        let mut events = Events::with_capacity(4_096);
        let mut clients: Vec<_> = names.iter().map(|_| Returning::new()).collect();
        let meter = Meter::start(&target.pids)?;
        let start = Instant::now();
        let mut waiting: VecDeque<_> = (0..clients.len()).map(|index| (start, index)).collect();
        let (mut latencies, mut failed, mut moved) = (Histogram::default(), 0_u64, start);
        while clients.iter().any(|client| !client.is_done()) {
            let now = Instant::now();
            if now - moved > IDLE {
                break;
            }
            while let Some((_, index)) = waiting.front().filter(|(at, _)| *at <= now).copied() {
                waiting.pop_front();
                if clients[index].dial(target, &names[index], &poll, Token(index)).is_err() {
                    failed += 1;
                    waiting.push_back((now + AGAIN_AFTER, index));
                }
            }
            match poll.poll(&mut events, Some(Duration::from_millis(20))) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in events.iter() {
                let index = event.token().0;
                let client = &mut clients[index];
                let was_connected = client.is_connected;
                if client.go_on(target, index as u64).is_err() {
                    client.stream = None;
                    failed += 1;
                    waiting.push_back((Instant::now() + AGAIN_AFTER, index));
                }
                if client.is_connected && !was_connected {
                    latencies.record(start.elapsed().as_nanos() as u64);
                }
                moved = Instant::now();
            }
        }
        meter.stop_at(moved, clients.iter().filter(|it| it.is_connected).count() as u64, report)?;
        report.add_quantiles(&latencies);
        report.add("tries that failed", failed as f64);
        Ok(clients)
    }
}

impl Returning {
    fn new() -> Self {
        let (outbox, inbox) = (Vec::new(), Vec::new());
        Self { stream: None, outbox, inbox, is_connected: false, has_message: false }
    }

    fn is_done(&self) -> bool {
        self.is_connected && self.has_message
    }

    fn dial(&mut self, target: &Target, client_id: &str, poll: &Poll, token: Token) -> Result<()> {
        let stream = target.transport.begin(target.address)?;
        let socket = stream.as_fd().as_raw_fd();
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut SourceFd(&socket), token, interest)?;
        let version = target.version;
        let connect = Connect { client_id, version, keep_alive: 0, clean: false };
        self.outbox = frame::connect(&connect);
        self.inbox.clear();
        self.is_connected = false;
        self.stream = Some(stream);
        Ok(())
    }

    /// Writes and reads what can be.
    fn go_on(&mut self, target: &Target, number: u64) -> Result<()> {
        let Some(mut stream) = self.stream.take() else { return Ok(()) };
        self.send(&mut stream)?;
        let mut buffer = [0; 4 << 10];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => bail!("the broker has closed the connection"),
                Ok(length) => self.inbox.extend_from_slice(&buffer[..length]),
                Err(error) if is_later(error.kind()) => break,
                Err(error) => return Err(error.into()),
            }
        }
        let inbox = std::mem::take(&mut self.inbox);
        let mut rest = &inbox[..];
        while let Some(packet) = scan::next(&mut rest, target.version)? {
            match packet {
                Packet::Other { first, body } => {
                    let accepted = check_connack(first, body, target.version)?;
                    ensure!(accepted.session_present, "a session was not kept");
                    self.is_connected = true;
                }
                Packet::Publish(publication) => {
                    self.has_message |= publication.sequence == number;
                    self.outbox.extend_from_slice(&acknowledgement(0x40, publication.id));
                }
                Packet::Acknowledgement { .. } => {}
            }
        }
        self.inbox = rest.to_vec();
        self.send(&mut stream)?;
        self.stream = Some(stream);
        Ok(())
    }

    fn send(&mut self, stream: &mut Stream) -> Result<()> {
        while !self.outbox.is_empty() {
            match stream.write(&self.outbox) {
                Ok(length) => drop(self.outbox.drain(..length)),
                Err(error) if is_later(error.kind()) => break,
                Err(error) => return Err(error.into()),
            }
        }
        match stream.flush() {
            Err(error) if !is_later(error.kind()) => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Whether it may succeed later: also a connection that is not there yet is none.
fn is_later(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::NotConnected)
}

/// Asks a broker again and again whether it is well.
fn watch(probe: SocketAddr, over: &AtomicBool) -> Probed {
    let mut probed = Probed::default();
    while !over.load(Ordering::Relaxed) {
        let start = Instant::now();
        probed.failed += u64::from(!is_well(probe).unwrap_or(false));
        probed.slowest = probed.slowest.max(start.elapsed());
        thread::sleep(PROBED_EVERY.saturating_sub(start.elapsed()));
    }
    probed
}

fn is_well(probe: SocketAddr) -> Result<bool> {
    let mut socket = TcpStream::connect_timeout(&probe, PROBE_PATIENCE)?;
    socket.set_read_timeout(Some(PROBE_PATIENCE))?;
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {probe}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    Ok(answer.starts_with(b"HTTP/1.1 200 "))
}
