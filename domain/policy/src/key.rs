//! Names of policy variables and condition keys, and where their values come from.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::Variables;

/// More items of a certificate's list than this are not seen.
const MAX_ITEMS: usize = 5;
/// A certificate's value with more characters than this is not seen.
const MAX_CHARS: usize = 1024;

/// The attributes of a subject or issuer that have a variable.
const NAME_ATTRIBUTES: [&str; 18] = [
    "DistinguishedNameQualifier",
    "Country",
    "Organization",
    "OrganizationalUnit",
    "State",
    "CommonName",
    "SerialNumber",
    "Title",
    "Surname",
    "GivenName",
    "Initials",
    "Pseudonym",
    "GenerationQualifier",
    "AlternativeName.RFC822Name",
    "AlternativeName.DNSName",
    "AlternativeName.DirectoryName",
    "AlternativeName.UniformResourceIdentifier",
    "AlternativeName.IPAddress",
];

/// One of the things that a policy can ask about. Names are not case-sensitive, attributes of things are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Key {
    ClientId,
    SourceIp,
    DomainName,
    ThingName,
    ThingTypeName,
    ThingIsAttached,
    ThingAttribute(String),
    CertificateId,
    CertificateSerialNumber,
    CertificateAvailableKeys,
    CertificateName {
        party: Party,
        attribute: &'static str,
        item: Item,
    },
    PerRequest(PerRequest),
    /// Looked up in [`Variables::others`]; as it is written.
    Other(String),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Party {
    Subject,
    Issuer,
}

/// Which of an attribute's values: without an index the first, `.1` is the second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Item {
    Nth(usize),
    List,
}

/// Keys whose values a connection does not know yet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum PerRequest {
    ConnectAttributes,
    LastWillTopic,
    CurrentTime,
    EpochTime,
}

impl Key {
    pub(crate) fn parse(name: &str) -> Self {
        let lower = name.to_ascii_lowercase();
        match lower.as_str() {
            "iot:clientid" => Self::ClientId,
            "aws:sourceip" => Self::SourceIp,
            "iot:domainname" => Self::DomainName,
            "iot:connection.thing.thingname" => Self::ThingName,
            "iot:connection.thing.thingtypename" => Self::ThingTypeName,
            "iot:connection.thing.isattached" => Self::ThingIsAttached,
            "iot:certificateid" => Self::CertificateId,
            "iot:certificate.serialnumber" => Self::CertificateSerialNumber,
            "iot:certificate.availablekeys" => Self::CertificateAvailableKeys,
            "iot:connectattributes" => Self::PerRequest(PerRequest::ConnectAttributes),
            "iot:lastwilltopic" => Self::PerRequest(PerRequest::LastWillTopic),
            "aws:currenttime" => Self::PerRequest(PerRequest::CurrentTime),
            "aws:epochtime" => Self::PerRequest(PerRequest::EpochTime),
            _ => {
                Self::parse_attribute(name, &lower).unwrap_or_else(|| Self::Other(name.to_owned()))
            }
        }
    }

    fn parse_attribute(name: &str, lower: &str) -> Option<Self> {
        const THING: &str = "iot:connection.thing.attributes[";
        if lower.starts_with(THING) {
            return Some(Self::ThingAttribute(name[THING.len()..].strip_suffix(']')?.to_owned()));
        }
        let rest = lower.strip_prefix("iot:certificate.")?;
        let (party, rest) = match rest.strip_prefix("subject.") {
            Some(rest) => (Party::Subject, rest),
            None => (Party::Issuer, rest.strip_prefix("issuer.")?),
        };
        let (attribute, item) = match rest.rsplit_once('.') {
            Some((attribute, "list")) => (attribute, Item::List),
            Some((attribute, index)) if index.bytes().all(|byte| byte.is_ascii_digit()) => {
                (attribute, Item::Nth(index.parse().ok()?))
            }
            _ => (rest, Item::Nth(0)),
        };
        let known = |known: &&&str| known.eq_ignore_ascii_case(attribute);
        let attribute = NAME_ATTRIBUTES.iter().find(known)?;
        Some(Self::CertificateName { party, attribute, item })
    }

    /// What it is called.
    pub(crate) fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed(match self {
            Self::ClientId => "iot:ClientId",
            Self::SourceIp => "aws:SourceIp",
            Self::DomainName => "iot:DomainName",
            Self::ThingName => "iot:Connection.Thing.ThingName",
            Self::ThingTypeName => "iot:Connection.Thing.ThingTypeName",
            Self::ThingIsAttached => "iot:Connection.Thing.IsAttached",
            Self::ThingAttribute(name) => {
                return Cow::Owned(format!("iot:Connection.Thing.Attributes[{name}]"));
            }
            Self::CertificateId => "iot:CertificateId",
            Self::CertificateSerialNumber => "iot:Certificate.SerialNumber",
            Self::CertificateAvailableKeys => "iot:Certificate.AvailableKeys",
            Self::CertificateName { party, attribute, item } => {
                let item = match item {
                    Item::Nth(0) => String::new(),
                    Item::Nth(index) => format!(".{index}"),
                    Item::List => ".List".to_owned(),
                };
                return Cow::Owned(format!("iot:Certificate.{party:?}.{attribute}{item}"));
            }
            Self::PerRequest(PerRequest::ConnectAttributes) => "iot:ConnectAttributes",
            Self::PerRequest(PerRequest::LastWillTopic) => "iot:LastWillTopic",
            Self::PerRequest(PerRequest::CurrentTime) => "aws:CurrentTime",
            Self::PerRequest(PerRequest::EpochTime) => "aws:EpochTime",
            Self::Other(name) => name,
        })
    }

    /// The one value that takes a variable's place in a text. Values that could be read as part of a
    /// pattern, and empty ones, which would widen what stands around them, do not.
    pub(crate) fn substitute<'a>(&self, variables: &'a Variables) -> Option<Cow<'a, str>> {
        let is_list = matches!(
            self,
            Self::CertificateAvailableKeys | Self::CertificateName { item: Item::List, .. }
        );
        let mut values = self.values(variables);
        let value = values.pop().filter(|_| values.is_empty() && !is_list)?;
        (!value.is_empty() && !value.contains(['*', '$', '+', '?', '#'])).then_some(value)
    }

    /// All values, for conditions; none for what is missing or known only per request.
    pub(crate) fn values<'a>(&self, variables: &'a Variables) -> Vec<Cow<'a, str>> {
        let certificate = variables.certificate.as_ref();
        let thing = variables.thing.as_ref();
        let one = |value: Option<&'a str>| value.map(Cow::Borrowed).into_iter().collect();
        match self {
            Self::ClientId => one(variables.client_id.as_deref()),
            Self::SourceIp => {
                let address = variables.source_ip.map(|address| address.to_canonical());
                address.map(|address| Cow::Owned(address.to_string())).into_iter().collect()
            }
            Self::DomainName => one(variables.domain_name.as_deref()),
            Self::ThingName => one(thing.map(|thing| thing.name.as_str())),
            Self::ThingTypeName => one(thing.and_then(|thing| thing.type_name.as_deref())),
            Self::ThingIsAttached => {
                one(thing.map(|thing| if thing.is_attached { "true" } else { "false" }))
            }
            Self::ThingAttribute(name) => {
                one(thing.and_then(|thing| thing.attributes.get(name)).map(String::as_str))
            }
            Self::CertificateId => one(certificate.map(|certificate| certificate.id.as_str())),
            Self::CertificateSerialNumber => {
                one(certificate.and_then(|certificate| certificate.serial_number.as_deref()))
            }
            Self::CertificateAvailableKeys => {
                available_keys(variables).into_iter().map(Cow::Owned).collect()
            }
            Self::CertificateName { party, attribute, item } => {
                let values = names(variables, *party).and_then(|names| names.get(*attribute));
                let mut seen = values.into_iter().flat_map(|values| seen(values));
                match item {
                    Item::Nth(index) => one(seen.nth(*index).flatten()),
                    Item::List => seen.flatten().map(Cow::Borrowed).collect(),
                }
            }
            Self::PerRequest(_) => Vec::new(),
            Self::Other(name) => {
                let found = variables.others.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.into_iter().flat_map(|(_, values)| values).map(Cow::from).collect()
            }
        }
    }
}

fn names(variables: &Variables, party: Party) -> Option<&BTreeMap<String, Vec<String>>> {
    variables.certificate.as_ref().map(|certificate| match party {
        Party::Subject => &certificate.subject,
        Party::Issuer => &certificate.issuer,
    })
}

/// The values within the limits; one that is too long keeps its place.
fn seen(values: &[String]) -> impl Iterator<Item = Option<&str>> {
    let fits = |value: &&str| value.len() <= MAX_CHARS || value.chars().count() <= MAX_CHARS;
    values.iter().take(MAX_ITEMS).map(move |value| Some(value.as_str()).filter(fits))
}

/// The names of the certificate's variables that have a value.
fn available_keys(variables: &Variables) -> Vec<String> {
    let mut keys = Vec::new();
    for (party, name) in [(Party::Subject, "Subject"), (Party::Issuer, "Issuer")] {
        for attribute in NAME_ATTRIBUTES {
            let values = names(variables, party).and_then(|names| names.get(attribute));
            let count = values.map_or(0, |values| seen(values).flatten().count());
            let plain = format!("iot:Certificate.{name}.{attribute}");
            if count > 1 {
                keys.extend((1..count).map(|index| format!("{plain}.{index}")));
                keys.push(format!("{plain}.List"));
            }
            if count > 0 {
                keys.push(plain);
            }
        }
    }
    let certificate = variables.certificate.as_ref();
    if certificate.is_some_and(|certificate| certificate.serial_number.is_some()) {
        keys.push("iot:Certificate.SerialNumber".to_owned());
    }
    keys
}
