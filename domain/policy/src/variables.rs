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
    /// `iot:DomainName`.
    pub domain_name: Option<String>,
    /// `iot:CertificateId` and `iot:Certificate.…`.
    pub certificate: Option<CertificateVariables>,
    /// `iot:Connection.Thing.…`; MQTT only.
    pub thing: Option<ThingVariables>,
    /// Further keys by their full name, such as `cognito-identity.amazonaws.com:sub`.
    pub others: BTreeMap<String, Vec<String>>,
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
