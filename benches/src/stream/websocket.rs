//! A client's WebSocket, RFC 6455: each write is one binary message.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use anyhow::{Result, bail, ensure};

use super::Bytes;

/// Bytes that are read at once.
const READ_BYTES: usize = 64 << 10;

/// Bytes of the answer to the upgrade, at most.
const ANSWER_BYTES: usize = 8 << 10;

/// FIN, and a binary message.
const BINARY: u8 = 0x82;
/// FIN, and a pong.
const PONG: u8 = 0x8A;

#[derive(Debug)]
pub(super) struct WebSocket {
    /// What was read, from `start` to `end` not used yet.
    raw: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes of the message whose front was read that are still to come.
    left: u64,
    /// What the stream below did not take.
    unsent: Vec<u8>,
}

impl WebSocket {
    /// Asks for MQTT at `/mqtt`.
    pub(super) fn open(bytes: &mut Bytes, address: SocketAddr) -> Result<Self> {
        let request = format!(
            "GET /mqtt HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c2tlaW4gc2tlaW4gc2tlaQ==\r\n\
             Sec-WebSocket-Protocol: mqtt\r\n\r\n"
        );
        bytes.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            ensure!(answer.len() < ANSWER_BYTES, "the answer to the upgrade does not end");
            let mut byte = [0];
            bytes.read_exact(&mut byte)?;
            answer.push(byte[0]);
        }
        if !answer.starts_with(b"HTTP/1.1 101 ") {
            let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
            bail!("no WebSocket: {}", String::from_utf8_lossy(line));
        }
        Ok(Self { raw: Vec::new(), start: 0, end: 0, left: 0, unsent: Vec::new() })
    }

    pub(super) fn is_behind(&self) -> bool {
        !self.unsent.is_empty()
    }

    pub(super) fn read(&mut self, bytes: &mut Bytes, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let there = &self.raw[self.start..self.end];
            if self.left > 0 && !there.is_empty() {
                let length = there.len().min(buffer.len());
                let length = length.min(usize::try_from(self.left).unwrap_or(usize::MAX));
                buffer[..length].copy_from_slice(&there[..length]);
                self.start += length;
                self.left -= length as u64;
                return Ok(length);
            }
            if self.left == 0 && self.next_message(bytes)? {
                continue;
            }
            self.raw.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.raw.len() < self.end + READ_BYTES {
                self.raw.resize(self.end + READ_BYTES, 0);
            }
            match bytes.read(&mut self.raw[self.end..])? {
                0 => return Ok(0),
                length => self.end += length,
            }
        }
    }

    /// Reads the front of a message, or a control message whole; false if more bytes are needed.
    fn next_message(&mut self, bytes: &mut Bytes) -> io::Result<bool> {
        let there = &self.raw[self.start..self.end];
        let Some((opcode, front, length)) = front(there) else { return Ok(false) };
        match opcode {
            0x0 | 0x2 => {
                self.left = length;
                self.start += front;
                Ok(true)
            }
            0x8 => Err(ErrorKind::ConnectionAborted.into()),
            _ => {
                let Some(payload) = there.get(front..front + length as usize) else {
                    return Ok(false);
                };
                let payload = payload.to_vec();
                self.start += front + payload.len();
                if opcode == 0x9 {
                    self.push(PONG, &payload);
                    self.flush(bytes)?;
                }
                Ok(true)
            }
        }
    }

    pub(super) fn write(&mut self, bytes: &mut Bytes, buffer: &[u8]) -> io::Result<usize> {
        self.flush(bytes)?;
        if self.is_behind() {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.push(BINARY, buffer);
        self.flush(bytes)?;
        Ok(buffer.len())
    }

    pub(super) fn flush(&mut self, bytes: &mut Bytes) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match bytes.write(&self.unsent) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                written => drop(self.unsent.drain(..written?)),
            }
        }
        Ok(())
    }

    /// Masked with zeros: what a mask is for does not matter here.
    fn push(&mut self, first: u8, payload: &[u8]) {
        const MASKED: u8 = 0x80;
        self.unsent.push(first);
        match payload.len() {
            length @ ..126 => self.unsent.push(MASKED | length as u8),
            length @ 126..=0xFFFF => {
                self.unsent.push(MASKED | 126);
                self.unsent.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                self.unsent.push(MASKED | 127);
                self.unsent.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        self.unsent.extend_from_slice(&[0; 4]);
        self.unsent.extend_from_slice(payload);
    }
}

/// A message's opcode, the bytes before its payload, and those of the payload, once they can be known.
fn front(bytes: &[u8]) -> Option<(u8, usize, u64)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (front, length) = match second & 0x7F {
        126 => (4, u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)),
        length => (2, u64::from(length)),
    };
    Some((first & 0x0F, front, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fronts() {
        for (bytes, expected) in [
            (&b"\x82"[..], None),
            (b"\x82\x05", Some((2, 2, 5))),
            (b"\x82\x7E\x01", None),
            (b"\x82\x7E\x01\x02", Some((2, 4, 258))),
            (b"\x82\x7F\0\0\0\0\0\x01\0\0", Some((2, 10, 65_536))),
            (b"\x89\0", Some((9, 2, 0))),
        ] {
            assert_eq!(front(bytes), expected, "{bytes:x?}");
        }
    }
}
