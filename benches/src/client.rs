//! Opens connections: the handshakes are blocking, one after the other, and read not one byte past
//! the packet they wait for, so a resumed session's first publications stay in the stream.

use std::io::{Read, Write};
use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};

use crate::frame::{self, Connect, Qos, Version};
use crate::stream::{Stream, Transport};

/// A connection that the broker has accepted.
#[derive(Debug)]
pub struct Client {
    /// What carries its packets, still blocking.
    pub stream: Stream,
    /// What the broker said to it.
    pub accepted: Accepted,
    version: Version,
}

/// What a CONNACK that accepts a connection says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Whether the broker resumed a session.
    pub session_present: bool,
    /// How many publications above QoS 0 the broker lets be in flight.
    pub receive_maximum: u16,
}

impl Client {
    /// Connects and waits for the broker's consent.
    pub fn connect(
        transport: &Transport,
        address: SocketAddr,
        connect: &Connect<'_>,
    ) -> Result<Self> {
        let mut stream = transport.dial(address)?;
        stream.write_all(&frame::connect(connect))?;
        let (first, body) = read_packet(&mut stream).context("waiting for CONNACK")?;
        let accepted = check_connack(first, &body, connect.version)?;
        Ok(Self { stream, accepted, version: connect.version })
    }

    /// Subscribes to some filters in one packet and waits until they are granted.
    pub fn subscribe(&mut self, filters: &[String], qos: Qos) -> Result<()> {
        self.stream.write_all(&frame::subscribe(1, filters, qos, self.version))?;
        let (first, body) = read_packet(&mut self.stream).context("waiting for SUBACK")?;
        check_suback(first, &body, filters.len(), qos, self.version)
    }

    /// Ends the connection in good order.
    pub fn disconnect(mut self) -> Result<()> {
        self.stream.write_all(&frame::DISCONNECT)?;
        self.stream.shutdown()?;
        // Until the broker has closed too, its state of this client is not settled.
        self.stream.read_to_end(&mut Vec::new())?;
        Ok(())
    }
}

/// Reads exactly one packet.
pub fn read_packet(stream: &mut impl Read) -> Result<(u8, Vec<u8>)> {
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    let first = byte[0];
    let mut length = 0;
    for place in 0.. {
        ensure!(place < 4, "remaining length runs past four bytes");
        stream.read_exact(&mut byte)?;
        length |= usize::from(byte[0] & 0x7F) << (7 * place);
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((first, body))
}

/// Reads a CONNACK; a refusal is an error.
pub fn check_connack(first: u8, body: &[u8], version: Version) -> Result<Accepted> {
    let &[flags, reason, ref properties @ ..] = body else {
        bail!("expected CONNACK, got a packet of type {}", first >> 4)
    };
    ensure!(first == 0x20, "expected CONNACK, got a packet of type {}", first >> 4);
    ensure!(reason == 0, "connection refused with code {reason:#x}");
    let receive_maximum = match version {
        Version::V3 => u16::MAX,
        Version::V5 => receive_maximum(properties).unwrap_or(u16::MAX),
    };
    Ok(Accepted { session_present: flags & 1 == 1, receive_maximum })
}

/// Finds Receive Maximum among CONNACK's properties.
fn receive_maximum(properties: &[u8]) -> Option<u16> {
    // CONNACK's properties here are short, so their length takes one byte or two.
    let skip = if properties.first()? & 0x80 == 0 { 1 } else { 2 };
    let mut rest = properties.get(skip..)?;
    let word = |bytes: &[u8]| Some(u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?]));
    while let Some((&id, value)) = rest.split_first() {
        let length = match id {
            0x21 => return word(value),
            0x24 | 0x25 | 0x28 | 0x29 | 0x2A => 1,
            0x13 | 0x22 => 2,
            0x11 | 0x27 => 4,
            0x26 => {
                let name = 2 + usize::from(word(value)?);
                name + 2 + usize::from(word(value.get(name..)?)?)
            }
            _ => 2 + usize::from(word(value)?),
        };
        rest = value.get(length..)?;
    }
    None
}

/// Checks that a SUBACK grants every filter its quality of service.
pub fn check_suback(
    first: u8,
    body: &[u8],
    filters: usize,
    qos: Qos,
    version: Version,
) -> Result<()> {
    ensure!(first == 0x90, "expected SUBACK, got a packet of type {}", first >> 4);
    let skip = match version {
        Version::V3 => 2,
        Version::V5 => 3 + usize::from(*body.get(2).context("SUBACK is too short")?),
    };
    let granted = body.get(skip..).context("SUBACK is too short")?;
    ensure!(granted.len() == filters, "SUBACK answers {} of {filters} filters", granted.len());
    for code in granted {
        ensure!(*code == qos as u8, "subscription at QoS {qos} answered with code {code:#x}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connacks() {
        let accepted =
            |session_present, receive_maximum| Some(Accepted { session_present, receive_maximum });
        for (first, body, version, expected) in [
            (0x20, &b"\0\0"[..], Version::V3, accepted(false, 65_535)),
            (0x20, b"\x01\0", Version::V3, accepted(true, 65_535)),
            (0x20, b"\0\0\0", Version::V5, accepted(false, 65_535)),
            (0x20, b"\0\0\x03\x21\0\x14", Version::V5, accepted(false, 20)),
            (0x20, b"\0\0\x0B\x22\0\x0A\x12\0\x02id\x21\0\x14", Version::V5, accepted(false, 20)),
            (0x20, b"\0\x05", Version::V3, None),
            (0x90, b"\0\0", Version::V3, None),
            (0x20, b"", Version::V3, None),
        ] {
            assert_eq!(check_connack(first, body, version).ok(), expected, "{body:x?}");
        }
    }

    #[test]
    fn subacks() {
        for (body, version, granted) in [
            (&b"\0\x01\x01\x01"[..], Version::V3, true),
            (b"\0\x01\0\x01\x01", Version::V5, true),
            (b"\0\x01\x01\0", Version::V3, false),
            (b"\0\x01\x01\x80", Version::V3, false),
            (b"\0\x01\x01", Version::V3, false),
        ] {
            assert_eq!(
                check_suback(0x90, body, 2, Qos::One, version).is_ok(),
                granted,
                "{body:x?}"
            );
        }
    }
}
