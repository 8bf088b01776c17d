//! The few MQTT packets a load generator sends, written by hand.
//!
//! Deliberately not the broker's own codec: a generator that shared it would agree with its
//! mistakes. Publications are stamped into one scratch buffer of identical frames, so a batch of
//! hundreds costs a few stores each and one write.

use std::fmt;

/// Bytes at the front of every payload: publisher (4), sequence (8), due time in ns (8).
pub const STAMP_BYTES: usize = 20;

/// Digits of the number that ends every generated topic name.
const DIGITS: usize = 8;

/// The protocol version that a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1.
    V3,
    /// MQTT 5.
    V5,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V3 => "3.1.1",
            Self::V5 => "5",
        })
    }
}

/// The quality of service of a publication or a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Qos {
    /// At most once.
    Zero,
    /// At least once.
    One,
    /// Exactly once.
    Two,
}

impl fmt::Display for Qos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", *self as u8)
    }
}

/// What a CONNECT asks for.
#[derive(Clone, Copy, Debug)]
pub struct Connect<'a> {
    /// The client identifier.
    pub client_id: &'a str,
    /// The protocol version.
    pub version: Version,
    /// Seconds between packets, 0 for none.
    pub keep_alive: u16,
    /// False resumes a session and keeps it after the connection.
    pub clean: bool,
}

/// Encodes a CONNECT packet.
pub fn connect(connect: &Connect<'_>) -> Vec<u8> {
    let mut body = Vec::with_capacity(32 + connect.client_id.len());
    string(&mut body, "MQTT");
    body.push(if connect.version == Version::V3 { 4 } else { 5 });
    body.push(if connect.clean { 2 } else { 0 });
    body.extend_from_slice(&connect.keep_alive.to_be_bytes());
    match (connect.version, connect.clean) {
        (Version::V3, _) => {}
        (Version::V5, true) => body.push(0),
        // Session expiry interval: an hour.
        (Version::V5, false) => body.extend_from_slice(&[5, 0x11, 0, 0, 0x0E, 0x10]),
    }
    string(&mut body, connect.client_id);
    packet(0x10, &body)
}

/// Encodes a SUBSCRIBE packet for some filters at one quality of service.
pub fn subscribe(id: u16, filters: &[String], qos: Qos, version: Version) -> Vec<u8> {
    let mut body = Vec::with_capacity(64);
    body.extend_from_slice(&id.to_be_bytes());
    if version == Version::V5 {
        body.push(0);
    }
    for filter in filters {
        string(&mut body, filter);
        body.push(qos as u8);
    }
    packet(0x82, &body)
}

/// Encodes a PUBLISH of MQTT 5 at QoS 1 without payload.
pub fn empty_publish(id: u16, topic: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(32 + topic.len());
    string(&mut body, topic);
    body.extend_from_slice(&id.to_be_bytes());
    body.push(0);
    packet(0x32, &body)
}

/// A DISCONNECT packet, the same bytes in both versions.
pub const DISCONNECT: [u8; 2] = [0xE0, 0];

/// A PINGREQ packet.
pub const PINGREQ: [u8; 2] = [0xC0, 0];

/// The shortest form of an acknowledgement; `kind` is the whole first byte.
pub fn acknowledgement(kind: u8, id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [kind, 2, high, low]
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    variable(&mut bytes, body.len());
    bytes.extend_from_slice(body);
    bytes
}

fn string(out: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).expect("generated strings are short");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn variable(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let low = (value % 128) as u8;
        value /= 128;
        out.push(if value == 0 { low } else { low | 0x80 });
        if value == 0 {
            return;
        }
    }
}

/// The topic name with number `index` under a prefix.
pub fn topic(prefix: &str, index: u64) -> String {
    format!("{prefix}{index:0width$}", width = DIGITS)
}

/// The packet identifier that the publication with this sequence number carries.
pub fn packet_id(sequence: u64) -> u16 {
    (sequence % 65_535) as u16 + 1
}

/// What numbers a publisher's topic names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbering {
    /// One topic per publisher.
    ByPublisher,
    /// A new topic for each publication; the publisher's share of the numbers starts at
    /// `publisher * span`.
    BySequence {
        /// Topics per publisher.
        span: u64,
    },
}

/// When a publication is due, in nanoseconds since the engine's start.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// When number 0 of publisher 0 is due.
    pub start: u64,
    /// Nanoseconds between two publications of all publishers together.
    pub interval: f64,
    /// How many publishers share the schedule.
    pub publishers: u64,
}

impl Pace {
    /// When this publication is due.
    pub fn due(&self, publisher: u32, sequence: u64) -> u64 {
        let index = sequence * self.publishers + u64::from(publisher);
        self.start + (index as f64 * self.interval) as u64
    }
}

/// What all publications of a run have in common.
#[derive(Clone, Copy, Debug)]
pub struct Shape<'a> {
    /// What their topic names begin with.
    pub prefix: &'a str,
    /// What ends their topic names.
    pub numbering: Numbering,
    /// Their quality of service.
    pub qos: Qos,
    /// Whether the broker shall retain them.
    pub retain: bool,
    /// Payload bytes, at least [`STAMP_BYTES`].
    pub payload: usize,
    /// The version they are encoded for.
    pub version: Version,
}

/// A scratch buffer of identical PUBLISH frames that are stamped in place before each write.
#[derive(Debug)]
pub struct Stamper {
    frames: Vec<u8>,
    frame_bytes: usize,
    number_at: usize,
    id_at: Option<usize>,
    stamp_at: usize,
    numbering: Numbering,
}

impl Stamper {
    /// Prepares up to `batch` frames of this shape.
    pub fn new(shape: &Shape<'_>, batch: usize) -> Self {
        let mut body = Vec::with_capacity(shape.payload + 64);
        string(&mut body, &topic(shape.prefix, 0));
        let mut number_at = body.len() - DIGITS;
        let mut id_at = (shape.qos > Qos::Zero).then_some(body.len());
        if id_at.is_some() {
            body.extend_from_slice(&[0, 0]);
        }
        if shape.version == Version::V5 {
            body.push(0);
        }
        let mut stamp_at = body.len();
        body.resize(body.len() + shape.payload.max(STAMP_BYTES), b'.');
        let frame = packet(0x30 | (shape.qos as u8) << 1 | u8::from(shape.retain), &body);
        let header = frame.len() - body.len();
        number_at += header;
        stamp_at += header;
        id_at = id_at.map(|at| at + header);
        Self {
            frame_bytes: frame.len(),
            frames: frame.repeat(batch),
            number_at,
            id_at,
            stamp_at,
            numbering: shape.numbering,
        }
    }

    /// Bytes of one frame.
    pub fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }

    /// How many frames fit a batch.
    pub fn batch(&self) -> usize {
        self.frames.len() / self.frame_bytes
    }

    /// Stamps the frames of a publisher's next `count` publications and returns their bytes.
    pub fn stamp(
        &mut self,
        publisher: u32,
        first: u64,
        count: usize,
        pace: Option<&Pace>,
    ) -> &[u8] {
        let end = count * self.frame_bytes;
        let fixed = digits(u64::from(publisher));
        let frames = self.frames[..end].chunks_exact_mut(self.frame_bytes);
        for (sequence, frame) in (first..).zip(frames) {
            let number = match self.numbering {
                Numbering::ByPublisher => fixed,
                Numbering::BySequence { span } => digits(u64::from(publisher) * span + sequence),
            };
            frame[self.number_at..self.number_at + DIGITS].copy_from_slice(&number);
            if let Some(at) = self.id_at {
                frame[at..at + 2].copy_from_slice(&packet_id(sequence).to_be_bytes());
            }
            let due = pace.map_or(0, |pace| pace.due(publisher, sequence));
            let stamp = &mut frame[self.stamp_at..self.stamp_at + STAMP_BYTES];
            stamp[..4].copy_from_slice(&publisher.to_be_bytes());
            stamp[4..12].copy_from_slice(&sequence.to_be_bytes());
            stamp[12..20].copy_from_slice(&due.to_be_bytes());
        }
        &self.frames[..end]
    }
}

fn digits(mut number: u64) -> [u8; DIGITS] {
    let mut digits = [b'0'; DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_what_the_standard_says() {
        let id = "c";
        for (bytes, expected) in [
            (
                connect(&Connect {
                    client_id: id,
                    version: Version::V3,
                    keep_alive: 30,
                    clean: true,
                }),
                &b"\x10\x0D\0\x04MQTT\x04\x02\0\x1E\0\x01c"[..],
            ),
            (
                connect(&Connect {
                    client_id: id,
                    version: Version::V5,
                    keep_alive: 0,
                    clean: false,
                }),
                b"\x10\x13\0\x04MQTT\x05\0\0\0\x05\x11\0\0\x0E\x10\0\x01c",
            ),
            (subscribe(1, &["a/b".into()], Qos::One, Version::V3), b"\x82\x08\0\x01\0\x03a/b\x01"),
            (
                subscribe(1, &["a/b".into()], Qos::Two, Version::V5),
                b"\x82\x09\0\x01\0\0\x03a/b\x02",
            ),
        ] {
            assert_eq!(bytes, expected);
        }
    }

    #[test]
    fn stamped_frames_carry_publisher_and_sequence() {
        let shape = Shape {
            prefix: "t/",
            numbering: Numbering::ByPublisher,
            qos: Qos::One,
            retain: false,
            payload: STAMP_BYTES,
            version: Version::V5,
        };
        let mut stamper = Stamper::new(&shape, 4);
        let bytes = stamper.stamp(7, 65_535, 2, None).to_vec();
        assert_eq!(bytes.len(), 2 * stamper.frame_bytes());
        let second = &bytes[stamper.frame_bytes()..];
        assert_eq!(&second[..2], b"\x32\x23");
        assert_eq!(&second[2..17], b"\0\x0At/00000007\0\x02\0");
        assert_eq!(&second[17..29], b"\0\0\0\x07\0\0\0\0\0\x01\0\0");
    }
}
