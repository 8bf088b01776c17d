//! The canonical request: the text both sides derive from a request and the client signs.

use std::fmt::Write;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::{Request, Statement};

/// What RFC 3986 leaves unreserved.
const ENCODED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// The same, with the separator of segments.
const ENCODED_PATH: AsciiSet = ENCODED.remove(b'/');

/// The names and values of a query, decoded. A plus is a plus: clients that sign write a space
/// as `%20`.
pub(crate) fn decoded_query(query: &str) -> Vec<(String, String)> {
    let decode = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
    pairs(query).map(|(name, value)| (decode(name), decode(value))).collect()
}

/// The pairs of a query as they were sent.
pub(crate) fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// The canonical requests that clients are known to derive from this one: a session token may be
/// covered by the signature or added after signing (as the device SDKs do for WebSocket).
///
/// The path counts as it was sent, because that is what is routed. AWS takes out `.`, `..` and empty
/// segments first; then one signature would stand for several paths, and topics may have such levels.
/// Clients encode them, but for `.` and `..`, which the API refuses.
pub(super) fn requests<'a>(
    request: &'a Request<'a>,
    statement: &'a Statement,
    payload: &'a str,
) -> impl Iterator<Item = String> + 'a {
    let path = path(request.path);
    let with_token = query(request.query, true);
    let without_token = statement
        .is_presigned
        .then(|| query(request.query, false))
        .filter(|query| *query != with_token);
    let headers = headers(request, statement);
    [Some(with_token), without_token].into_iter().flatten().map(move |query| {
        let method = request.method;
        let signed = &statement.signed_headers;
        format!("{method}\n{path}\n{query}\n{headers}\n{signed}\n{payload}")
    })
}

/// The path as sent, each segment encoded once more.
fn path(path: &str) -> String {
    if path.is_empty() {
        return "/".into();
    }
    utf8_percent_encode(path, &ENCODED_PATH).to_string()
}

/// Encoded anew, sorted, and without the signature itself.
fn query(query: &str, keep_token: bool) -> String {
    let mut pairs: Vec<(String, String)> = decoded_pairs(query)
        .filter(|(name, _)| {
            name != "X-Amz-Signature" && (keep_token || name != "X-Amz-Security-Token")
        })
        .collect();
    pairs.sort();
    let mut canonical = String::with_capacity(query.len());
    for (name, value) in pairs {
        let separator = if canonical.is_empty() { "" } else { "&" };
        let _ = write!(canonical, "{separator}{name}={value}");
    }
    canonical
}

/// The pairs of a query, each name and value in its canonical encoding; bytes that are not UTF-8
/// stay what they are.
fn decoded_pairs(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    let encode = |text: &str| {
        let bytes: Vec<u8> = percent_decode_str(text).collect();
        percent_encoding::percent_encode(&bytes, &ENCODED).to_string()
    };
    pairs(query).map(move |(name, value)| (encode(name), encode(value)))
}

/// The signed headers, each on its line. One that the request lacks is as good as empty: the
/// signature will not match unless it was signed so.
fn headers(request: &Request<'_>, statement: &Statement) -> String {
    let mut lines = String::new();
    for name in statement.signed_headers.split(';') {
        let values: Vec<String> = request
            .headers
            .iter()
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| collapsed(&String::from_utf8_lossy(value)))
            .collect();
        let _ = writeln!(lines, "{name}:{}", values.join(","));
    }
    lines
}

/// Trimmed, and inner runs of spaces as one.
fn collapsed(value: &str) -> String {
    value.split([' ', '\t']).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}
