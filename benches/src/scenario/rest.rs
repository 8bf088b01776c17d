//! Signed requests to the control plane over one connection of HTTP/1.1: no more of either than
//! scenarios need.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use hmac::{Hmac, Mac};
use serde_json::Value;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// An access key, and the region it signs for.
#[derive(Clone)]
pub struct Key {
    /// Its id.
    pub id: String,
    /// What it signs with.
    pub secret: String,
    /// Such as `us-east-1`.
    pub region: String,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A connection to the API of the control plane.
pub(super) struct Connection {
    stream: BufReader<TcpStream>,
    host: String,
    key: Key,
}

impl Connection {
    pub(super) fn dial(address: SocketAddr, key: Key) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("dialling {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream), host: address.to_string(), key })
    }

    /// Asks, and reads the answer, null if it has no body. The query has to be encoded, and in the
    /// order of its names.
    pub(super) fn ask(
        &mut self,
        method: &str,
        path: &str,
        query: &str,
        body: &str,
    ) -> Result<Value> {
        let (date, authorization) = self.sign(method, path, query, body)?;
        let mark = if query.is_empty() { "" } else { "?" };
        let request = format!(
            "{method} {path}{mark}{query} HTTP/1.1\r\nhost: {}\r\nx-amz-date: {date}\r\n\
             authorization: {authorization}\r\ncontent-length: {}\r\n\r\n{body}",
            self.host,
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes())?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        let mut next = |stream: &mut BufReader<TcpStream>| -> Result<String> {
            line.clear();
            ensure!(stream.read_line(&mut line)? > 0, "the connection was closed");
            Ok(line.trim_end().to_ascii_lowercase())
        };
        let status = next(&mut self.stream)?;
        let mut length = 0;
        loop {
            let header = next(&mut self.stream)?;
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        ensure!(status.contains(" 200 "), "{status}: {}", String::from_utf8_lossy(&body));
        if body.is_empty() {
            return Ok(Value::Null);
        }
        Ok(serde_json::from_slice(&body)?)
    }

    /// The date and the authorization of a request, by AWS Signature Version 4.
    fn sign(&self, method: &str, path: &str, query: &str, body: &str) -> Result<(String, String)> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let now = OffsetDateTime::from_unix_timestamp(i64::try_from(now)?)?;
        let day = format!("{:04}{:02}{:02}", now.year(), u8::from(now.month()), now.day());
        let date = format!("{day}T{:02}{:02}{:02}Z", now.hour(), now.minute(), now.second());
        let Key { id, secret, region } = &self.key;
        let scope = format!("{day}/{region}/iot/aws4_request");
        let canonical = format!(
            "{method}\n{path}\n{query}\nhost:{}\nx-amz-date:{date}\n\nhost;x-amz-date\n{}",
            self.host,
            hex::encode(Sha256::digest(body))
        );
        let digest = hex::encode(Sha256::digest(canonical));
        let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{digest}");
        let mut signature = format!("AWS4{secret}").into_bytes();
        for part in [&day, region, "iot", "aws4_request", &text] {
            let mut mac = Hmac::<Sha256>::new_from_slice(&signature)?;
            mac.update(part.as_bytes());
            signature = mac.finalize().into_bytes().to_vec();
        }
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders=host;x-amz-date, Signature={}",
            hex::encode(signature)
        );
        Ok((date, authorization))
    }
}

/// A value of a query, percent-encoded.
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_encoded() {
        assert_eq!(encoded("a+/=Z9"), "a%2B%2F%3DZ9");
    }
}
