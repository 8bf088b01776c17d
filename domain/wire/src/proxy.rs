//! The PROXY header, versions 1 and 2: who is really at the other end of a load balancer's connection.
//!
//! Only a listener that trusts its peer reads it. The addresses are kept, extensions (TLV) are skipped.
//! Parsing is strict: bytes that are neither version end the connection rather than pass as MQTT.

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use thiserror::Error;

/// The longest header of version 1, with its line end.
pub const MAX_V1_BYTES: usize = 107;
/// The longest header of version 2 that is read, with its extensions.
pub const MAX_V2_BYTES: usize = 4096;

const V1_PREFIX: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family and transport, length.
const V2_FIXED_BYTES: usize = 16;

/// What a PROXY header says. Both are `None` where the proxy speaks for itself (a health check) or
/// does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Where the connection comes from.
    pub source: Option<SocketAddr>,
    /// What it was opened to.
    pub destination: Option<SocketAddr>,
}

/// Why bytes are not a PROXY header.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ParseError {
    /// They begin like neither version.
    #[error("connection does not begin with a PROXY header")]
    Missing,
    /// A line of version 1 that does not end in time, or not with CR LF.
    #[error("PROXY line does not end")]
    Unterminated,
    /// A protocol that is none of `TCP4`, `TCP6` and `UNKNOWN`.
    #[error("PROXY line names no known protocol")]
    Protocol,
    /// Addresses or ports that are missing, superfluous or not written as they have to be.
    #[error("PROXY line has malformed addresses")]
    Addresses,
    /// A version that is not 2 behind the signature of version 2.
    #[error("PROXY header has version {0}")]
    Version(u8),
    /// A command that is neither LOCAL nor PROXY.
    #[error("PROXY header has command {0}")]
    Command(u8),
    /// A family or transport that is not specified.
    #[error("PROXY header has family and transport {0:#04x}")]
    Family(u8),
    /// A length that its addresses and extensions do not add up to.
    #[error("PROXY header has a length that does not fit its content")]
    Length,
    /// More than [`MAX_V2_BYTES`].
    #[error("PROXY header of {bytes} bytes exceeds {MAX_V2_BYTES}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// Whether what has arrived begins with a header, be it correct or not.
pub fn is_begun(bytes: &[u8]) -> bool {
    bytes.starts_with(V1_PREFIX) || bytes.starts_with(V2_SIGNATURE)
}

/// Reads the header at the front of what has arrived, and says how many bytes it takes. `None` means
/// that more have to arrive.
pub fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, ParseError> {
    if bytes.starts_with(V1_PREFIX) {
        parse_v1(bytes)
    } else if bytes.starts_with(V2_SIGNATURE) {
        parse_v2(bytes)
    } else if V1_PREFIX.starts_with(bytes) || V2_SIGNATURE.starts_with(bytes) {
        Ok(None)
    } else {
        Err(ParseError::Missing)
    }
}

fn parse_v1(bytes: &[u8]) -> Result<Option<(Header, usize)>, ParseError> {
    let window = &bytes[..bytes.len().min(MAX_V1_BYTES)];
    let Some(end) = window.iter().position(|byte| *byte == b'\r') else {
        return if window.len() < MAX_V1_BYTES { Ok(None) } else { Err(ParseError::Unterminated) };
    };
    match window.get(end + 1) {
        Some(b'\n') => {}
        None if window.len() < MAX_V1_BYTES => return Ok(None),
        _ => return Err(ParseError::Unterminated),
    }
    let line = std::str::from_utf8(&window[V1_PREFIX.len()..end]);
    let line = line.map_err(|_| ParseError::Addresses)?;
    let header = match line.split_once(' ') {
        Some(("TCP4", addresses)) => parse_line::<Ipv4Addr>(addresses)?,
        Some(("TCP6", addresses)) => parse_line::<Ipv6Addr>(addresses)?,
        // What follows is to be ignored.
        Some(("UNKNOWN", _)) => Header::default(),
        None if line == "UNKNOWN" => Header::default(),
        _ => return Err(ParseError::Protocol),
    };
    Ok(Some((header, end + 2)))
}

/// `source destination source-port destination-port`, with one space between.
fn parse_line<A: FromStr + Into<IpAddr>>(addresses: &str) -> Result<Header, ParseError> {
    let mut words = addresses.split(' ');
    let mut word = || words.next().ok_or(ParseError::Addresses);
    let (source, destination) = (word()?, word()?);
    let (source_port, destination_port) = (port(word()?)?, port(word()?)?);
    if words.next().is_some() {
        return Err(ParseError::Addresses);
    }
    let ip = |text: &str| text.parse::<A>().map(Into::into).map_err(|_| ParseError::Addresses);
    Ok(Header {
        source: Some(SocketAddr::new(ip(source)?, source_port)),
        destination: Some(SocketAddr::new(ip(destination)?, destination_port)),
    })
}

/// A port in decimal digits without leading zeros.
fn port(text: &str) -> Result<u16, ParseError> {
    if text.starts_with('+') || (text.starts_with('0') && text != "0") {
        return Err(ParseError::Addresses);
    }
    text.parse().map_err(|_| ParseError::Addresses)
}

fn parse_v2(bytes: &[u8]) -> Result<Option<(Header, usize)>, ParseError> {
    let Some(&[version_command, family, high, low]) = bytes[V2_SIGNATURE.len()..].first_chunk()
    else {
        return Ok(None);
    };
    let (version, command) = (version_command >> 4, version_command & 0x0f);
    if version != 2 {
        return Err(ParseError::Version(version));
    }
    if command > 1 {
        return Err(ParseError::Command(command));
    }
    let size = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if size > MAX_V2_BYTES {
        return Err(ParseError::TooLarge { bytes: size });
    }
    let Some(content) = bytes.get(V2_FIXED_BYTES..size) else { return Ok(None) };
    let header = if command == 0 { Header::default() } else { parse_content(family, content)? };
    Ok(Some((header, size)))
}

/// The addresses and extensions of a proxied connection. Only streams over IP have addresses we use;
/// other specified families count as unknown.
fn parse_content(family: u8, content: &[u8]) -> Result<Header, ParseError> {
    let (addresses, header): (usize, fn(&[u8]) -> Header) = match family {
        0x00 => return Ok(Header::default()),
        0x11 => (12, addresses::<4, Ipv4Addr>),
        0x21 => (36, addresses::<16, Ipv6Addr>),
        0x12 => (12, |_| Header::default()),
        0x22 => (36, |_| Header::default()),
        0x31 | 0x32 => (216, |_| Header::default()),
        _ => return Err(ParseError::Family(family)),
    };
    let (addresses, mut extensions) =
        content.split_at_checked(addresses).ok_or(ParseError::Length)?;
    while let [_type, high, low, rest @ ..] = extensions {
        let size = u16::from_be_bytes([*high, *low]).into();
        extensions = rest.get(size..).ok_or(ParseError::Length)?;
    }
    if !extensions.is_empty() {
        return Err(ParseError::Length);
    }
    Ok(header(addresses))
}

/// Source, destination and their ports, for addresses of `N` bytes.
fn addresses<const N: usize, A: From<[u8; N]> + Into<IpAddr>>(bytes: &[u8]) -> Header {
    let (ips, ports) = bytes.split_at(2 * N);
    let at = |ip: usize| {
        let mut octets = [0; N];
        octets.copy_from_slice(&ips[ip * N..][..N]);
        let port = u16::from_be_bytes([ports[2 * ip], ports[2 * ip + 1]]);
        SocketAddr::new(A::from(octets).into(), port)
    };
    Header { source: Some(at(0)), destination: Some(at(1)) }
}
