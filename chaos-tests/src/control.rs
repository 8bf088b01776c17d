//! The control plane, as far as a fleet asks it: one signed request per connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use hmac::{Hmac, Mac};
use serde_json::Value;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::macros::format_description;

/// The key that nodes of a cluster know.
pub(crate) const ACCESS_KEY: &str = "AKIACHAOS";
/// Its secret.
pub(crate) const SECRET: &str = "no secret to anybody";
const REGION: &str = "us-east-1";
const TIMEOUT: Duration = Duration::from_secs(4);

/// The answer to a request; an error when there is none, or when it is one. Words in the target must
/// need no escape, and it has one parameter at most.
pub(crate) fn ask(
    address: SocketAddr,
    method: &str,
    target: &str,
    body: &Value,
) -> io::Result<Value> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let host = address.to_string();
    let stamp = format_description!("[year][month][day]T[hour][minute][second]Z");
    let date = OffsetDateTime::now_utc().format(&stamp).map_err(io::Error::other)?;
    let authorization = authorization(&host, &date, method, target, &body);
    let length = body.len();
    write!(
        stream,
        "{method} {target} HTTP/1.1\r\nHost: {host}\r\nX-Amz-Date: {date}\r\n\
         Authorization: {authorization}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n\
         {body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, "")) if head.starts_with("HTTP/1.1 200") => Ok(Value::Null),
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(serde_json::from_str(body)?),
        _ => Err(io::Error::other(answer)),
    }
}

/// Signature Version 4 of the host and the date.
fn authorization(host: &str, date: &str, method: &str, target: &str, body: &str) -> String {
    const SIGNED: &str = "host;x-amz-date";
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let body = hex::encode(Sha256::digest(body));
    let request =
        format!("{method}\n{path}\n{query}\nhost:{host}\nx-amz-date:{date}\n\n{SIGNED}\n{body}");
    let (day, _) = date.split_once('T').expect("a date has a time");
    let scope = format!("{day}/{REGION}/iot/aws4_request");
    let request = hex::encode(Sha256::digest(request));
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{request}");
    let key = [day, REGION, "iot", "aws4_request"]
        .iter()
        .fold(format!("AWS4{SECRET}").into_bytes(), |key, part| hmac(&key, part));
    let signature = hex::encode(hmac(&key, &text));
    format!(
        "AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{scope}, SignedHeaders={SIGNED}, Signature={signature}"
    )
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length will do");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}
