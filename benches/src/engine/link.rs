//! One non-blocking connection: what it could not write yet, and what it has read of a packet.
//!
//! A connection that fails only notes so; the run goes on, and its verdict will say what was lost.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream as Blocking;

use anyhow::Result;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

#[derive(Debug)]
pub(super) struct Link {
    stream: TcpStream,
    /// The front of a packet whose rest has not arrived.
    pub(super) carry: Vec<u8>,
    /// Bytes that go out before anything else.
    pub(super) outbox: Vec<u8>,
    /// The socket takes no more until epoll says so.
    pub(super) blocked: bool,
    /// The broker's end has been sent: reading goes on until it is found.
    pub(super) ending: bool,
    /// The broker has closed the connection.
    pub(super) closed: bool,
}

impl Link {
    pub(super) fn register(stream: Blocking, registry: &Registry, token: Token) -> Result<Self> {
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        let (carry, outbox) = (Vec::new(), Vec::new());
        Ok(Self { stream, carry, outbox, blocked: false, ending: false, closed: false })
    }

    /// Writes what the socket takes; less than everything means that it is blocked.
    pub(super) fn write(&mut self, bytes: &[u8]) -> usize {
        // A broken connection is noticed by its reader.
        let written = self.stream.write(bytes).unwrap_or(0);
        self.blocked = written < bytes.len();
        written
    }

    /// Writes the outbox; returns whether it is empty.
    pub(super) fn flush(&mut self) -> bool {
        if self.outbox.is_empty() {
            return true;
        }
        if self.blocked {
            return false;
        }
        let outbox = std::mem::take(&mut self.outbox);
        let written = self.write(&outbox);
        self.outbox = outbox;
        self.outbox.drain(..written);
        self.outbox.is_empty()
    }

    /// Reads behind what was carried over; returns the length of both, or nothing when there is
    /// nothing to read.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Option<usize> {
        if self.closed {
            return None;
        }
        let kept = self.carry.len();
        buffer[..kept].copy_from_slice(&self.carry);
        match self.stream.read(&mut buffer[kept..]) {
            Ok(0) => self.closed = true,
            Ok(length) => {
                self.carry.clear();
                return Some(kept + length);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.closed = true,
        }
        None
    }
}
