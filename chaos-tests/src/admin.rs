//! The admin port, as far as a test asks it: one GET per connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Whether the node says that it serves; known as soon as it says so.
pub(crate) fn is_ready(address: SocketAddr) -> bool {
    let mut status = [0; "HTTP/1.1 200".len()];
    let read = |mut stream: TcpStream| stream.read_exact(&mut status);
    ask(address, "/readyz").and_then(read).is_ok() && status.ends_with(b" 200")
}

/// The body of an answer.
pub(crate) fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut answer = String::new();
    ask(address, path)?.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        _ => Err(io::Error::other(answer)),
    }
}

fn ask(address: SocketAddr, path: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    Ok(stream)
}

/// A metric in Prometheus' text format, summed over its labels.
pub(crate) fn metric(text: &str, name: &str) -> f64 {
    let value = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = rest.rsplit_once(' ')?;
        let is_it = labels.is_empty() || labels.starts_with('{');
        is_it.then(|| value.parse::<f64>().ok()).flatten()
    };
    text.lines().filter_map(value).sum()
}

#[test]
fn sums_a_metric_over_its_labels() {
    let text = "# TYPE a counter\na{x=\"1\"} 2\na{x=\"y z\"} 3\na_total 7\n";
    assert_eq!([metric(text, "a"), metric(text, "a_total"), metric(text, "b")], [5.0, 7.0, 0.0]);
}
