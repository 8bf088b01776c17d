//! Finds packet boundaries in received bytes and reads the few fields a generator looks at.
//!
//! Everything else in a frame is skipped unread, which is what lets one core receive millions of
//! publications a second.

use crate::frame::{STAMP_BYTES, Version};

/// A received packet, as far as the generator cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// A PUBLISH.
    Publish(Publication),
    /// PUBACK, PUBREC, PUBREL or PUBCOMP: the packet type, identifier and reason code.
    Acknowledgement {
        /// The packet type, 4 to 7.
        kind: u8,
        /// The packet identifier.
        id: u16,
        /// The reason code, 0 where absent.
        reason: u8,
    },
    /// Any other packet: its first byte and its body.
    Other {
        /// Type and flags.
        first: u8,
        /// What follows the remaining length.
        body: &'a [u8],
    },
}

/// What is read of a PUBLISH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publication {
    /// 0, 1 or 2.
    pub qos: u8,
    /// Whether the broker says that it sent it before.
    pub dup: bool,
    /// The packet identifier, 0 at QoS 0.
    pub id: u16,
    /// Bytes of payload.
    pub payload: usize,
    /// Who published it.
    pub publisher: u32,
    /// Its place among that publisher's publications.
    pub sequence: u64,
    /// When it was due, in nanoseconds since the engine's start.
    pub due: u64,
}

/// The bytes are not a packet that a broker may send here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("received bytes that are no MQTT packet of this run")
    }
}

impl std::error::Error for Malformed {}

/// Length of the header and of the whole packet at the front of `bytes`, once known.
#[inline]
pub fn extent(bytes: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let mut length = 0;
    for at in 1..=4 {
        let Some(&byte) = bytes.get(at) else { return Ok(None) };
        length |= usize::from(byte & 0x7F) << (7 * (at - 1));
        if byte & 0x80 == 0 {
            return Ok(Some((at + 1, at + 1 + length)));
        }
    }
    Err(Malformed)
}

/// Takes the next complete packet off the front of `bytes`.
#[inline]
pub fn next<'a>(bytes: &mut &'a [u8], version: Version) -> Result<Option<Packet<'a>>, Malformed> {
    let Some((header, end)) = extent(bytes)? else { return Ok(None) };
    if bytes.len() < end {
        return Ok(None);
    }
    let (packet, rest) = bytes.split_at(end);
    *bytes = rest;
    let (first, body) = (packet[0], &packet[header..]);
    match first >> 4 {
        3 => publication(first, body, version).map(|p| Some(Packet::Publish(p))),
        kind @ 4..=7 => {
            let &[high, low, ref rest @ ..] = body else { return Err(Malformed) };
            let reason = rest.first().copied().unwrap_or(0);
            Ok(Some(Packet::Acknowledgement { kind, id: u16::from_be_bytes([high, low]), reason }))
        }
        _ => Ok(Some(Packet::Other { first, body })),
    }
}

/// Reads a PUBLISH from its first byte and what follows the remaining length.
#[inline]
pub fn publication(first: u8, body: &[u8], version: Version) -> Result<Publication, Malformed> {
    let qos = first >> 1 & 3;
    let (topic, rest) = body.split_first_chunk::<2>().ok_or(Malformed)?;
    let mut rest = rest.get(usize::from(u16::from_be_bytes(*topic))..).ok_or(Malformed)?;
    let mut id = 0;
    if qos > 0 {
        let (bytes, after) = rest.split_first_chunk::<2>().ok_or(Malformed)?;
        (id, rest) = (u16::from_be_bytes(*bytes), after);
    }
    if version == Version::V5 {
        // A property block has the same length prefix as a packet has after its first byte.
        let mut length = 0;
        let mut at = 0;
        loop {
            let byte = *rest.get(at).ok_or(Malformed)?;
            length |= usize::from(byte & 0x7F) << (7 * at);
            at += 1;
            if byte & 0x80 == 0 {
                break;
            }
            if at == 4 {
                return Err(Malformed);
            }
        }
        rest = rest.get(at + length..).ok_or(Malformed)?;
    }
    let stamp = rest.first_chunk::<STAMP_BYTES>().ok_or(Malformed)?;
    Ok(Publication {
        qos,
        dup: first & 8 != 0,
        id,
        payload: rest.len(),
        publisher: u32::from_be_bytes(*stamp.first_chunk().expect("20 bytes")),
        sequence: u64::from_be_bytes(*stamp[4..].first_chunk().expect("16 bytes")),
        due: u64::from_be_bytes(*stamp[12..].first_chunk().expect("8 bytes")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Numbering, Pace, Qos, Shape, Stamper};

    #[test]
    fn stamped_frames_are_read_back() {
        for version in [Version::V3, Version::V5] {
            for qos in [Qos::Zero, Qos::One, Qos::Two] {
                let shape = Shape {
                    prefix: "some/topic/",
                    numbering: Numbering::BySequence { span: 10 },
                    qos,
                    retain: false,
                    payload: 256,
                    version,
                };
                let mut stamper = Stamper::new(&shape, 8);
                let pace = Pace { start: 100, interval: 2.0, publishers: 4 };
                let mut bytes = stamper.stamp(3, 5, 8, Some(&pace));
                for sequence in 5..13 {
                    let Ok(Some(Packet::Publish(read))) = next(&mut bytes, version) else {
                        panic!("no publication {sequence}");
                    };
                    assert_eq!((read.publisher, read.sequence), (3, sequence));
                    assert_eq!((read.qos, read.payload), (qos as u8, 256));
                    assert_eq!(read.due, 100 + 2 * (sequence * 4 + 3));
                }
                assert!(bytes.is_empty());
            }
        }
    }

    #[test]
    fn incomplete_and_foreign_bytes() {
        for (bytes, expected) in [
            (&b""[..], Ok(None)),
            (b"\x40", Ok(None)),
            (b"\x40\x02\0", Ok(None)),
            (b"\x40\x02\0\x07", Ok(Some(Packet::Acknowledgement { kind: 4, id: 7, reason: 0 }))),
            (b"\x50\x03\0\x07\x97", {
                Ok(Some(Packet::Acknowledgement { kind: 5, id: 7, reason: 0x97 }))
            }),
            (b"\xD0\0", Ok(Some(Packet::Other { first: 0xD0, body: b"" }))),
            (b"\x40\x01\0", Err(Malformed)),
            (b"\x30\x05\0\x01axx", Err(Malformed)),
            (b"\x30\xFF\xFF\xFF\xFF\x01", Err(Malformed)),
        ] {
            assert_eq!(next(&mut { bytes }, Version::V3), expected, "{bytes:x?}");
        }
    }
}
