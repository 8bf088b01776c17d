//! The codec against the specifications, packet by packet.
//!
//! Packets are written as text, see [`wire`]. A row is one case; what it shows about a clause of a
//! specification stands beside it.

mod acks;
mod connack;
mod connect;
mod framing;
mod properties;
mod publish;
mod reasons;
mod round_trip;
mod subscribe;

use crate::Version::{self, V5, V311};
use crate::{DecodeError, Packet, PacketId, Reason, ServerPacket, decode, decode_server};

/// Bytes from a notation close to the specification's tables, kept for ever so that packets can
/// borrow from them.
///
/// Tokens are separated by blanks: `0a1b` is hex, `'abc'` is text, `s'abc'` is text with its two-byte
/// length, `( … )` is a block preceded by its length as a variable byte integer. A first token like
/// `30:` is the first byte of a packet whose remaining length is filled in.
fn wire(text: &str) -> &'static [u8] {
    let mut blocks = vec![Vec::new()];
    let mut first = None;
    for token in text.split_whitespace() {
        match token {
            "(" => blocks.push(Vec::new()),
            ")" => close(&mut blocks),
            _ if let Some(byte) = token.strip_suffix(':') => {
                first = Some(hex::decode(byte).expect(text)[0]);
            }
            _ => blocks.last_mut().expect("a block is open").extend(bytes_of(token, text)),
        }
    }
    if let Some(first) = first {
        blocks.insert(0, vec![first]);
        close(&mut blocks);
    }
    assert_eq!(blocks.len(), 1, "unbalanced block in {text}");
    blocks.remove(0).leak()
}

fn close(blocks: &mut Vec<Vec<u8>>) {
    let block = blocks.pop().expect("a block is open");
    let outer = blocks.last_mut().expect("a block surrounds it");
    crate::codec::put_varint(outer, block.len());
    outer.extend(block);
}

fn bytes_of(token: &str, text: &str) -> Vec<u8> {
    let quoted = |token: &str| token.strip_prefix('\'')?.strip_suffix('\'').map(str::to_owned);
    if let Some(string) = token.strip_prefix('s').and_then(quoted) {
        let mut bytes = (string.len() as u16).to_be_bytes().to_vec();
        bytes.extend(string.into_bytes());
        bytes
    } else if let Some(string) = quoted(token) {
        string.into_bytes()
    } else {
        hex::decode(token).unwrap_or_else(|error| panic!("{token} in {text}: {error}"))
    }
}

fn id(id: u16) -> PacketId {
    PacketId::new(id).unwrap()
}

/// What a server makes of bytes from a client.
fn from_client(version: Version, text: &str) -> Result<Packet<'static>, DecodeError> {
    decode(wire(text), version)
}

/// What a client makes of bytes from a server.
fn from_server(version: Version, text: &str) -> Result<ServerPacket<'static>, DecodeError> {
    decode_server(wire(text), version)
}

/// What an encoder appends, after checking that it leaves alone what was there before.
fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = b"before".to_vec();
    encode(&mut out);
    out.split_off(6)
}

/// Each row is refused with its error, which is also the reason the client hears.
#[track_caller]
fn refused_from_client(version: Version, rows: &[(&str, DecodeError, Reason)]) {
    for (text, error, reason) in rows {
        assert_eq!(from_client(version, text), Err(*error), "{version:?} {text}");
        assert_eq!(error.reason(), *reason, "{version:?} {text}");
    }
}

/// Each row is refused with its error.
#[track_caller]
fn refused_from_server(version: Version, rows: &[(&str, DecodeError)]) {
    for (text, error) in rows {
        assert_eq!(from_server(version, text), Err(*error), "{version:?} {text}");
    }
}

const BOTH: [Version; 2] = [V311, V5];

#[test]
fn the_notation_means_what_it_says() {
    assert_eq!(wire("30: s'a' ( 23 0001 ) 'hi'"), b"\x30\x09\0\x01a\x03\x23\0\x01hi");
    assert_eq!(wire("c0 00"), b"\xc0\0");
}
