//! How single values are read, with errors that show what is expected.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use humantime_serde::re::humantime;
use ipnet::IpNet;
use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// `IP:port`.
pub(super) fn address<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(from)?;
    match text.parse() {
        Ok(address) => Ok(Some(address)),
        Err(_) => Err(D::Error::custom(format_args!(
            "address {text:?} is not IP:port like \"0.0.0.0:8883\" or \"[::]:8883\": {}",
            why_no_address(&text)
        ))),
    }
}

fn why_no_address(text: &str) -> String {
    if text.parse::<IpAddr>().is_ok() {
        return "the port is missing".into();
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return match text.parse::<u16>() {
            Ok(_) => "the IP is missing".into(),
            Err(_) => "there is no port".into(),
        };
    };
    let host_is_ip = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.parse::<std::net::Ipv4Addr>().is_ok(),
    };
    match (host, host_is_ip, port.parse::<u16>()) {
        ("", ..) => "the IP is missing".into(),
        (_, false, _) => format!("{host:?} is not an IP, and names are not looked up"),
        (_, true, _) => format!("{port:?} is not a port from 0 to 65535"),
    }
}

/// Networks like `10.0.0.0/8`, and single hosts like `10.0.0.1`.
pub(super) fn networks<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    let network = |text: String| {
        let host = text.parse::<IpAddr>().map(IpNet::from);
        text.parse::<IpNet>().ok().or(host.ok()).ok_or_else(|| {
            D::Error::custom(format_args!(
                "proxy_from {text:?} is neither a network like \"10.0.0.0/8\" nor an IP like \
                 \"10.0.0.1\""
            ))
        })
    };
    texts.into_iter().map(network).collect()
}

/// Numbers of nodes; 3 is `[1, 2, 3]`.
pub(super) fn founders<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(
        untagged,
        expecting = "founders are how many, like 3, or their numbers, like [1, 2, 3]"
    )]
    enum Value {
        First(u16),
        These(Vec<u64>),
    }
    Ok(match Value::deserialize(from)? {
        Value::First(count) => (1..=count.into()).collect(),
        Value::These(numbers) => numbers,
    })
}

/// A number with a unit.
pub(super) fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    /// What a file may hold; numbers only to say what is wrong with them.
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a duration is text like \"10s\", \"5m\" or \"7days\"")]
    enum Value {
        Text(String),
        Number(i64),
    }
    let text = match Value::deserialize(from)? {
        Value::Text(text) => text,
        Value::Number(number) => number.to_string(),
    };
    humantime::parse_duration(&text).map_err(|_| {
        D::Error::custom(format_args!(
            "{text:?} is not a duration: it needs a number and a unit, like \"10s\", \"5m\" or \
             \"7days\""
        ))
    })
}

/// The same for a key that may be absent.
pub(super) fn optional_duration<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Duration>, D::Error> {
    duration(from).map(Some)
}
