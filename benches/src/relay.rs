//! The ceiling: a relay that does to bytes what a broker must at least do.
//!
//! It answers CONNECT and SUBSCRIBE with canned packets, reads from a publisher's first PUBLISH
//! whose topic name that is, and from then on copies bytes from the publisher to the subscribers of
//! that name and acknowledgements the other way, one thread, one epoll. It decodes nothing else:
//! between a pair it does not even look for packet boundaries. It is no broker: filters are names,
//! subscribers come first, and acknowledgements only work between pairs.

mod greeter;

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::scan;

const LISTENER: Token = Token(usize::MAX);
const BUFFER_BYTES: usize = 128 * 1024;

#[derive(Debug, PartialEq)]
enum Role {
    /// Has sent nothing that tells.
    Unknown,
    /// Its bytes go to these connections.
    Publisher(Vec<usize>),
    /// Receives the bytes of these connections.
    Subscriber(Vec<usize>),
}

struct Peer {
    stream: TcpStream,
    role: Role,
    v5: bool,
    /// More may be read.
    readable: bool,
    /// Its end has been sent: reading goes on until it is found.
    ending: bool,
    queued: bool,
    /// The front of a packet whose rest has not arrived.
    carry: Vec<u8>,
    /// What the socket did not take.
    pending: Vec<u8>,
}

/// Runs until the process is ended. With an address for TLS, and certificates, there is a loop for
/// handshakes, too.
pub fn run(address: SocketAddr, tls: Option<(SocketAddr, PathBuf)>) -> Result<Infallible> {
    if let Some((address, pki)) = tls {
        std::thread::spawn(move || {
            let Err(error) = greeter::run(address, &pki);
            eprintln!("skein-load: {error:#}");
        });
    }
    let mut relay = Relay::bind(address)?;
    loop {
        relay.turn()?;
    }
}

struct Relay {
    poll: Poll,
    events: Option<Events>,
    listener: TcpListener,
    /// Never reused: a relay lives for one run.
    peers: Vec<Option<Peer>>,
    subscribers: HashMap<Vec<u8>, Vec<usize>>,
    runnable: VecDeque<usize>,
    buffer: Vec<u8>,
}

impl Relay {
    fn bind(address: SocketAddr) -> Result<Self> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind(address).with_context(|| format!("at {address}"))?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            events: Some(Events::with_capacity(1_024)),
            listener,
            peers: Vec::new(),
            subscribers: HashMap::new(),
            runnable: VecDeque::new(),
            buffer: vec![0; BUFFER_BYTES],
        })
    }

    fn turn(&mut self) -> Result<()> {
        let timeout = (!self.runnable.is_empty()).then_some(std::time::Duration::ZERO);
        let mut events = self.events.take().expect("put back below");
        match self.poll.poll(&mut events, timeout) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in events.iter() {
            if event.token() == LISTENER {
                self.accept()?;
                continue;
            }
            let index = event.token().0;
            if event.is_writable() {
                self.flush(index);
            }
            if event.is_readable() {
                if let Some(peer) = &mut self.peers[index] {
                    peer.readable = true;
                    peer.ending |= event.is_read_closed();
                }
                self.enqueue(index);
            }
        }
        self.events = Some(events);
        for _ in 0..self.runnable.len() {
            let index = self.runnable.pop_front().expect("counted");
            let Some(peer) = &mut self.peers[index] else { continue };
            peer.queued = false;
            if self.read(index).is_err() {
                self.peers[index] = None;
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            stream.set_nodelay(true)?;
            let token = Token(self.peers.len());
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, token, interest)?;
            self.peers.push(Some(Peer {
                stream,
                role: Role::Unknown,
                v5: false,
                readable: false,
                ending: false,
                queued: false,
                carry: Vec::new(),
                pending: Vec::new(),
            }));
        }
    }

    fn enqueue(&mut self, index: usize) {
        if let Some(peer) = &mut self.peers[index]
            && !peer.queued
        {
            peer.queued = true;
            self.runnable.push_back(index);
        }
    }

    /// Writes to a connection, keeping what it does not take.
    fn write(&mut self, index: usize, bytes: &[u8]) {
        let Some(peer) = &mut self.peers[index] else { return };
        let written = match peer.pending.is_empty() {
            true => peer.stream.write(bytes).unwrap_or(0),
            false => 0,
        };
        peer.pending.extend_from_slice(&bytes[written..]);
    }

    /// Writes what is pending; when nothing is left, those who wait for it may go on.
    fn flush(&mut self, index: usize) {
        let Some(peer) = &mut self.peers[index] else { return };
        if peer.pending.is_empty() {
            return;
        }
        let written = peer.stream.write(&peer.pending).unwrap_or(0);
        peer.pending.drain(..written);
        if !peer.pending.is_empty() {
            return;
        }
        let sources = match &peer.role {
            Role::Subscriber(sources) => sources.clone(),
            _ => Vec::new(),
        };
        sources.into_iter().for_each(|source| self.enqueue(source));
    }

    fn has_pending(&self, index: usize) -> bool {
        self.peers[index].as_ref().is_some_and(|peer| !peer.pending.is_empty())
    }

    /// Reads once and passes the bytes on, unless a receiver has not taken the last ones yet.
    fn read(&mut self, index: usize) -> Result<()> {
        let Some(peer) = &self.peers[index] else { return Ok(()) };
        if !peer.readable {
            return Ok(());
        }
        if let Role::Publisher(targets) = &peer.role
            && targets.iter().any(|&target| self.has_pending(target))
        {
            return Ok(());
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = self.read_into(index, &mut buffer);
        self.buffer = buffer;
        result
    }

    fn read_into(&mut self, index: usize, buffer: &mut [u8]) -> Result<()> {
        let peer = self.peers[index].as_mut().expect("checked by the caller");
        let kept = peer.carry.len();
        buffer[..kept].copy_from_slice(&peer.carry);
        let length = match peer.stream.read(&mut buffer[kept..]) {
            Ok(0) => bail!("closed"),
            Ok(length) => kept + length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                peer.readable = false;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        peer.carry.clear();
        peer.readable = length == buffer.len() || peer.ending;
        if peer.readable {
            self.enqueue(index);
        }
        self.pass(index, &buffer[..length])
    }

    fn pass(&mut self, index: usize, bytes: &[u8]) -> Result<()> {
        let Some(peer) = &mut self.peers[index] else { return Ok(()) };
        match std::mem::replace(&mut peer.role, Role::Unknown) {
            Role::Unknown => self.introduce(index, bytes),
            Role::Publisher(targets) => {
                self.publish(index, &targets, bytes)?;
                self.set_role(index, Role::Publisher(targets));
                Ok(())
            }
            Role::Subscriber(sources) => {
                if let [source] = sources[..] {
                    self.write(source, bytes);
                }
                self.set_role(index, Role::Subscriber(sources));
                Ok(())
            }
        }
    }

    fn set_role(&mut self, index: usize, role: Role) {
        if let Some(peer) = &mut self.peers[index] {
            peer.role = role;
        }
    }

    fn publish(&mut self, index: usize, targets: &[usize], bytes: &[u8]) -> Result<()> {
        let mut end = bytes.len();
        // Where several publishers meet at one subscriber, packets must stay whole; in a fan-out also
        // those of the first publisher, since the others may come amid one of its packets.
        if targets.len() > 1 || targets.iter().any(|&target| self.has_several_sources(target)) {
            end = 0;
            while let Some((_, length)) = scan::extent(&bytes[end..])? {
                if end + length > bytes.len() {
                    break;
                }
                end += length;
            }
            if let Some(peer) = &mut self.peers[index] {
                peer.carry.extend_from_slice(&bytes[end..]);
            }
        }
        targets.iter().for_each(|&target| self.write(target, &bytes[..end]));
        Ok(())
    }

    fn has_several_sources(&self, index: usize) -> bool {
        self.peers[index].as_ref().is_some_and(|peer| match &peer.role {
            Role::Subscriber(sources) => sources.len() > 1,
            _ => false,
        })
    }

    /// Handles packets until one says whether this is a publisher or a subscriber.
    fn introduce(&mut self, index: usize, mut bytes: &[u8]) -> Result<()> {
        while let Some((header, end)) = scan::extent(bytes)? {
            if bytes.len() < end {
                break;
            }
            let (first, body) = (bytes[0], &bytes[header..end]);
            match first >> 4 {
                1 => {
                    let v5 = body.get(6) == Some(&5);
                    self.peers[index].as_mut().expect("it has just been read").v5 = v5;
                    let answer: &[u8] = if v5 { &[0x20, 3, 0, 0, 0] } else { &[0x20, 2, 0, 0] };
                    self.write(index, answer);
                }
                8 => self.subscribe(index, body)?,
                12 => self.write(index, &[0xD0, 0]),
                3 => {
                    let (name, _) = text(body)?;
                    let targets = self.subscribers.get(name).cloned().unwrap_or_default();
                    for &target in &targets {
                        if let Some(Peer { role: Role::Subscriber(sources), .. }) =
                            &mut self.peers[target]
                        {
                            sources.push(index);
                        }
                    }
                    self.set_role(index, Role::Publisher(targets));
                    return self.pass(index, bytes);
                }
                _ => {}
            }
            bytes = &bytes[end..];
        }
        if let Some(peer) = &mut self.peers[index] {
            peer.carry.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn subscribe(&mut self, index: usize, body: &[u8]) -> Result<()> {
        let v5 = self.peers[index].as_ref().is_some_and(|peer| peer.v5);
        let id = body.get(..2).context("SUBSCRIBE is too short")?;
        let mut rest = body.get(if v5 { 3 } else { 2 }..).context("SUBSCRIBE is too short")?;
        let mut answer = [id, if v5 { &[0][..] } else { &[] }].concat();
        while !rest.is_empty() {
            let (filter, after) = text(rest)?;
            let (&options, after) = after.split_first().context("SUBSCRIBE is too short")?;
            self.subscribers.entry(filter.to_vec()).or_default().push(index);
            answer.push(options & 3);
            rest = after;
        }
        let length = u8::try_from(answer.len()).context("too many filters in one SUBSCRIBE")?;
        answer.splice(0..0, [0x90, length]);
        self.write(index, &answer);
        self.set_role(index, Role::Subscriber(Vec::new()));
        Ok(())
    }
}

/// Splits a length-prefixed string off the front.
fn text(bytes: &[u8]) -> Result<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>().context("no string")?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).context("string is cut off")
}
