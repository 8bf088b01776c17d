//! What a connection brings to its policies.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// What the variables and condition keys of a policy stand for, for one connection or HTTP request.
/// What is absent does not match.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Variables {
    /// `iot:ClientId`; MQTT only.
    pub client_id: Option<String>,
    /// `aws:SourceIp`.
    pub source_ip: Option<IpAddr>,
    /// `iot:DomainName`: see [`domain_name`].
    pub domain_name: Option<String>,
    /// `iot:CertificateId` and `iot:Certificate.…`.
    pub certificate: Option<CertificateVariables>,
    /// `iot:Connection.Thing.…`; MQTT only.
    pub thing: Option<ThingVariables>,
    /// Further keys by their full name, such as `cognito-identity.amazonaws.com:sub`.
    pub others: BTreeMap<String, Vec<String>>,
}

/// The `iot:DomainName` of who asks for this name, in TLS or in the header `Host`: in lower case, without
/// a port and without the dot at its end. None where it is no name.
pub fn domain_name(asked: &str) -> Option<String> {
    const LONGEST: usize = 253;
    let name = match asked.strip_prefix('[') {
        Some(literal) => literal.split_once(']')?.0,
        None => asked.split_once(':').map_or(asked, |(name, _)| name),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let belongs = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    let is_name = (1..=LONGEST).contains(&name.len()) && name.bytes().all(belongs);
    is_name.then(|| name.to_ascii_lowercase())
}

/// The certificate that the connection was made with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CertificateVariables {
    /// 64 hexadecimal digits.
    pub id: String,
    /// `iot:Certificate.SerialNumber`.
    pub serial_number: Option<String>,
    /// By name (`CommonName`, `Country`, `AlternativeName.DNSName`, …), the values in their order.
    pub subject: BTreeMap<String, Vec<String>>,
    /// As `subject`.
    pub issuer: BTreeMap<String, Vec<String>>,
}

/// The thing that the connection stands for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ThingVariables {
    /// Its name.
    pub name: String,
    /// The name of its type.
    pub type_name: Option<String>,
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
    /// Whether the connection's principal is attached to it.
    pub is_attached: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domain_names_are_told_from_what_is_asked_for() {
        let longest = format!("{}.com", "a".repeat(249));
        for (asked, name) in [
            ("iot.example.com", Some("iot.example.com")),
            ("IoT.Example.com:8443", Some("iot.example.com")),
            ("iot.example.com.", Some("iot.example.com")),
            ("iot.example.com.:443", Some("iot.example.com")),
            ("my_host", Some("my_host")),
            ("127.0.0.1:8083", Some("127.0.0.1")),
            ("[::1]:8083", Some("::1")),
            (&*longest, Some(&*longest)),
            ("", None),
            (":443", None),
            (".", None),
            ("[::1", None),
            ("a b", None),
            ("a*", None),
            ("${x}", None),
            ("m\u{fc}ller.de", None),
            (&*format!("a{longest}"), None),
        ] {
            assert_eq!(domain_name(asked).as_deref(), name, "{asked:?}");
        }
    }
}
