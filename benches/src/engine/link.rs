//! One non-blocking connection: what it could not write yet, and what it has read of a packet.
//!
//! A connection that fails only notes so; the run goes on, and its verdict will say what was lost.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};

use anyhow::Result;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::stream::Stream;

#[derive(Debug)]
pub(super) struct Link {
    stream: Stream,
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
    pub(super) fn register(stream: Stream, registry: &Registry, token: Token) -> Result<Self> {
        stream.set_nonblocking()?;
        let socket = stream.as_fd().as_raw_fd();
        registry.register(
            &mut SourceFd(&socket),
            token,
            Interest::READABLE | Interest::WRITABLE,
        )?;
        let (carry, outbox) = (Vec::new(), Vec::new());
        Ok(Self { stream, carry, outbox, blocked: false, ending: false, closed: false })
    }

    /// Writes what the stream takes; less than everything means that it is blocked.
    pub(super) fn write(&mut self, bytes: &[u8]) -> usize {
        // A broken connection is noticed by its reader.
        let written = self.stream.write(bytes).unwrap_or(0);
        self.blocked = written < bytes.len() || self.stream.is_behind();
        written
    }

    /// Writes what is left of before; returns whether nothing is.
    pub(super) fn flush(&mut self) -> bool {
        if self.blocked {
            return false;
        }
        if self.stream.is_behind() {
            self.blocked = self.stream.flush().is_err() || self.stream.is_behind();
        }
        if self.outbox.is_empty() || self.blocked {
            return self.outbox.is_empty() && !self.blocked;
        }
        let outbox = std::mem::take(&mut self.outbox);
        let written = self.write(&outbox);
        self.outbox = outbox;
        self.outbox.drain(..written);
        self.outbox.is_empty()
    }

    /// Whether a read of so many bytes has left nothing to read.
    pub(super) fn is_drained(&self, length: usize, buffer: usize) -> bool {
        length < buffer && !self.ending && self.stream.is_drained_by_short_reads()
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
