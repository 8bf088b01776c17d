//! The HTTP request that turns a connection into a WebSocket, and the answer to it.
//!
//! Reading the head is apart from accepting it, so that an ordinary request on the same port can be
//! told from an upgrade, and so that who asks can be authenticated in between.

#[cfg(test)]
mod tests;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sha1::{Digest, Sha1};
use thiserror::Error;

/// What RFC 6455 section 1.3 appends to a key.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The head of an HTTP request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    method: String,
    path: String,
    query: String,
    /// The minor of HTTP/1.
    version: u8,
    headers: Vec<(String, String)>,
}

/// Why bytes are not the head of a request that is read here.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum UpgradeError {
    /// It is longer than [`Upgrade::MAX_BYTES`].
    #[error("request head exceeds {} bytes", Upgrade::MAX_BYTES)]
    TooLarge,
    /// It has more than [`Upgrade::MAX_HEADERS`] headers.
    #[error("request has more than {} headers", Upgrade::MAX_HEADERS)]
    TooManyHeaders,
    /// It is not HTTP/1.
    #[error("request is malformed: {0}")]
    Malformed(httparse::Error),
    /// A header's value is not UTF-8.
    #[error("header is not UTF-8")]
    Utf8,
}

/// Why a request is refused before anything else answers it, in terms of HTTP and of AWS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status code.
    pub status: u16,
    /// What AWS calls the error.
    pub code: &'static str,
    /// What is said to a person who reads the answer.
    pub message: String,
}

impl Upgrade {
    /// The longest head that is read.
    pub const MAX_BYTES: usize = 8 * 1024;
    /// The most headers that are read.
    pub const MAX_HEADERS: usize = 64;

    /// Whether the beginning of a request asks for a WebSocket, as far as it goes: by its path, or by a
    /// header.
    pub fn is_asked(head: &[u8], path: &[u8]) -> bool {
        let mut lines = head.split(|byte| *byte == b'\n');
        let target = lines.next().and_then(|line| line.split(|byte| *byte == b' ').nth(1));
        let rest = target.and_then(|target| target.strip_prefix(path));
        if rest.is_some_and(|rest| rest.first().is_none_or(|byte| *byte == b'?')) {
            return true;
        }
        let begins = |line: &[u8], name: &[u8]| {
            line.get(..name.len()).is_some_and(|line| line.eq_ignore_ascii_case(name))
        };
        lines
            .take_while(|line| !line.trim_ascii_end().is_empty())
            .any(|line| begins(line, b"upgrade:") || begins(line, b"sec-websocket-"))
    }

    /// Reads the head at the front of what has arrived, and says how many bytes it takes. `None` means
    /// that more have to arrive.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, UpgradeError> {
        let mut headers = [httparse::EMPTY_HEADER; Self::MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let size = match request.parse(&bytes[..bytes.len().min(Self::MAX_BYTES)]) {
            Ok(httparse::Status::Complete(size)) => size,
            Ok(httparse::Status::Partial) if bytes.len() < Self::MAX_BYTES => return Ok(None),
            Ok(httparse::Status::Partial) => return Err(UpgradeError::TooLarge),
            Err(httparse::Error::TooManyHeaders) => return Err(UpgradeError::TooManyHeaders),
            Err(error) => return Err(UpgradeError::Malformed(error)),
        };
        let owned = |header: &httparse::Header<'_>| {
            let value = std::str::from_utf8(header.value).map_err(|_| UpgradeError::Utf8)?;
            Ok((header.name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
        };
        let (path, query) = split_target(request.path.unwrap_or_default());
        let upgrade = Self {
            method: request.method.unwrap_or_default().to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            version: request.version.unwrap_or_default(),
            headers: request.headers.iter().map(owned).collect::<Result<_, _>>()?,
        };
        Ok(Some((upgrade, size)))
    }

    /// Its method, as sent.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Its path, still percent-encoded.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What follows the question mark, still percent-encoded; empty without one.
    pub fn query(&self) -> &str {
        &self.query
    }

    /// The value of a header, whatever the case of its name; the first where it is repeated.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.header_values(name).next()
    }

    /// Every value of a header, in the order sent.
    pub fn header_values(&self, name: &str) -> impl Iterator<Item = &str> {
        let named = self.headers.iter().filter(move |(it, _)| it.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str())
    }

    /// Every header, in the order sent.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The subprotocols the client offers, those it likes best first.
    pub fn protocols(&self) -> impl Iterator<Item = &str> {
        self.list("sec-websocket-protocol")
    }

    /// Says whether the client asks for a WebSocket, be it correctly or not.
    pub fn is_websocket(&self) -> bool {
        self.list("upgrade").any(|protocol| protocol.eq_ignore_ascii_case("websocket"))
    }

    /// The answer that makes the connection a WebSocket for the first of `subprotocols` that the client
    /// offers, if the request is correct and its path is one of `paths`.
    pub fn accept(&self, paths: &[&str], subprotocols: &[&str]) -> Result<Vec<u8>, Refusal> {
        if !paths.contains(&self.path()) {
            return Err(Refusal::new(404, "there is nothing at this path"));
        }
        if self.method != "GET" {
            return Err(Refusal::new(405, "a WebSocket is opened with GET"));
        }
        if !self.is_websocket() || self.version < 1 {
            return Err(Refusal::new(400, "this path takes WebSocket connections"));
        }
        if !self.list("connection").any(|option| option.eq_ignore_ascii_case("upgrade")) {
            return Err(Refusal::new(400, "Connection does not name Upgrade"));
        }
        if self.header("host").is_none() {
            return Err(Refusal::new(400, "Host is missing"));
        }
        if self.header("sec-websocket-version") != Some("13") {
            return Err(Refusal::new(426, "the WebSocket version is 13"));
        }
        let key = self.key().ok_or_else(|| Refusal::new(400, "Sec-WebSocket-Key is malformed"))?;
        let offered = |ours: &&&str| self.protocols().any(|it| it == **ours);
        let Some(subprotocol) = subprotocols.iter().find(offered) else {
            let ours = subprotocols.join(", ");
            return Err(Refusal::new(400, &format!("no subprotocol of these is offered: {ours}")));
        };
        Ok(switching(&accept_key(key), subprotocol))
    }

    /// The one key, if it is the base64 of 16 bytes.
    fn key(&self) -> Option<&str> {
        let mut keys = self.header_values("sec-websocket-key");
        let (key, None) = (keys.next()?, keys.next()) else { return None };
        (STANDARD.decode(key).ok()?.len() == 16).then_some(key)
    }

    /// The members of a header whose value is a list, also over several lines.
    fn list(&self, name: &str) -> impl Iterator<Item = &str> {
        let members = self.header_values(name).flat_map(|value| value.split(','));
        members.map(|member| member.trim_matches([' ', '\t'])).filter(|member| !member.is_empty())
    }
}

impl UpgradeError {
    /// What the client is told before its connection closes.
    pub fn refusal(&self) -> Refusal {
        let status = match self {
            Self::TooLarge | Self::TooManyHeaders => 431,
            Self::Malformed(_) | Self::Utf8 => 400,
        };
        Refusal::new(status, &self.to_string())
    }
}

impl Refusal {
    /// A refusal with a status code and what is said to a person.
    pub fn new(status: u16, message: &str) -> Self {
        let code = match status {
            403 => "ForbiddenException",
            404 => "UnknownOperationException",
            405 => "MethodNotAllowedException",
            414 => "RequestUriTooLongException",
            431 => "RequestHeaderFieldsTooLargeException",
            503 => "ServiceUnavailableException",
            _ => "InvalidRequestException",
        };
        Self { status, code, message: message.to_owned() }
    }

    /// The whole answer, after which the connection closes.
    pub fn response(&self) -> Vec<u8> {
        let Self { status, code, message } = self;
        let (reason, extra) = match status {
            400 => ("Bad Request", ""),
            403 => ("Forbidden", ""),
            404 => ("Not Found", ""),
            405 => ("Method Not Allowed", "allow: GET\r\n"),
            414 => ("URI Too Long", ""),
            426 => ("Upgrade Required", "sec-websocket-version: 13\r\nupgrade: websocket\r\n"),
            431 => ("Request Header Fields Too Large", ""),
            503 => ("Service Unavailable", ""),
            _ => ("Error", ""),
        };
        let connection = if *status == 426 { "close, upgrade" } else { "close" };
        let body = json!({ "message": message }).to_string();
        format!(
            "HTTP/1.1 {status} {reason}\r\nconnection: {connection}\r\n{extra}\
             content-type: application/json\r\nx-amzn-errortype: {code}\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }
}

/// The path and the query of a request's target; `http://host/path` is as good as `/path`.
fn split_target(target: &str) -> (&str, &str) {
    let target = match target.split_once("://") {
        Some(("http" | "https" | "ws" | "wss", rest)) => match rest.find(['/', '?']) {
            Some(path) => &rest[path..],
            None => "/",
        },
        _ => target,
    };
    match target.split_once('?') {
        Some(("", query)) => ("/", query),
        Some(parts) => parts,
        None => (target, ""),
    }
}

/// The proof that the server has read the key.
fn accept_key(key: &str) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

fn switching(accept: &str, subprotocol: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
    )
    .into_bytes()
}
