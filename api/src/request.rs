//! A request that has been matched and authenticated, as the operations read it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use axum::http::HeaderMap;
use bytes::Bytes;
use fleet::registry::{RoleSession, Timestamp};
use percent_encoding::percent_decode_str;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::Error;
use crate::audit::{Actor, Way};
use crate::backend::{AuthorizedCaller, CertificateCaller};
use crate::openapi;
use crate::people::PersonSession;
use crate::rights::{Rights, Role};
use crate::routes::Operation;
use crate::sigv4;

/// On whose behalf a request is made.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// The holder of an access key, who may do this.
    AccessKey(String, Arc<Rights>),
    /// Somebody who has logged in, who may do what the session says.
    Person(Arc<PersonSession>),
    /// A device, which may do what its policies allow.
    Certificate(CertificateCaller),
    /// A client that a custom authorizer has let in, which may do what that says.
    Authorized(AuthorizedCaller),
}

/// Who a caller is, however it has proved that, and in however many sessions.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) enum Identity<'a> {
    AccessKey(&'a str),
    Person { issuer: &'a str, subject: &'a str },
    Certificate(&'a str),
    Authorized { authorizer: &'a str, principal_id: &'a str },
}

impl Caller {
    /// Whom its requests count for.
    pub(crate) fn identity(&self) -> Identity<'_> {
        match self {
            Self::AccessKey(id, _) => Identity::AccessKey(id),
            Self::Person(session) => {
                Identity::Person { issuer: &session.issuer, subject: &session.subject }
            }
            Self::Certificate(device) => Identity::Certificate(device.certificate.as_str()),
            Self::Authorized(client) => Identity::Authorized {
                authorizer: &client.authorizer,
                principal_id: &client.principal_id,
            },
        }
    }

    /// A device that has signed with temporary credentials.
    pub(crate) fn of_session(
        session: Arc<RoleSession>,
        source_ip: Option<IpAddr>,
        domain_name: Option<String>,
    ) -> Self {
        let certificate = session.certificate.clone();
        let session = Some(session);
        Self::Certificate(CertificateCaller { certificate, source_ip, domain_name, session })
    }

    /// What a role gives it; none of who acts by policies.
    pub(crate) fn rights(&self) -> Option<&Rights> {
        match self {
            Self::AccessKey(_, rights) => Some(rights),
            Self::Person(session) => Some(&session.rights),
            Self::Certificate(_) | Self::Authorized(_) => None,
        }
    }

    /// Whether it is not for what an address has behind its path, which may be a secret of who is asked
    /// there.
    pub(crate) fn only_looks(&self) -> bool {
        self.rights().is_some_and(|rights| rights.role == Role::ReadOnly)
    }

    /// As it is recorded.
    pub(crate) fn actor(&self) -> Actor {
        match self {
            Self::AccessKey(id, rights) => {
                Actor::AccessKey { id: id.clone(), role: rights.role.as_str() }
            }
            Self::Person(session) => Actor::of_person(session),
            Self::Certificate(CertificateCaller { session: Some(session), .. }) => {
                Actor::TemporaryCredentials {
                    certificate: session.certificate.to_string(),
                    role_alias: session.alias.to_string(),
                }
            }
            Self::Certificate(device) => Actor::Device {
                certificate: device.certificate.to_string(),
                client_id: None,
                by: Way::Https,
            },
            Self::Authorized(client) => Actor::Authorized {
                authorizer: client.authorizer.clone(),
                principal_id: client.principal_id.clone(),
            },
        }
    }

    /// Where it asks from, if it says so itself.
    pub(crate) fn source(&self) -> Option<IpAddr> {
        match self {
            Self::AccessKey(..) | Self::Person(_) | Self::Authorized(_) => None,
            Self::Certificate(device) => device.source_ip,
        }
    }
}

/// A request to carry out.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) operation: Operation,
    pub(crate) labels: Vec<String>,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) caller: Caller,
    pub(crate) now: Timestamp,
    /// Tells this request from all others, in the answer and in the log.
    pub(crate) trace: String,
}

impl Call {
    /// The label at this place of the path.
    pub(crate) fn label(&self, place: usize) -> &str {
        &self.labels[place]
    }

    /// A parameter of the query; an empty one is as good as none.
    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        debug_assert!(
            openapi::asks(self.operation, name),
            "{:?} is not described to ask for {name}",
            self.operation
        );
        let (_, value) = self.query.iter().find(|(found, _)| found == name)?;
        Some(value.as_str()).filter(|value| !value.is_empty())
    }

    /// A parameter that has to be there.
    pub(crate) fn required_query(&self, name: &str) -> Result<&str, Error> {
        self.query(name).ok_or_else(|| Error::Invalid(format!("the parameter {name} is missing")))
    }

    /// `true` or `false`; absent is false.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, Error> {
        match self.query(name) {
            None => Ok(false),
            Some(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Some(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            Some(text) => {
                Err(Error::Invalid(format!("{name} must be true or false, not '{text}'")))
            }
        }
    }

    /// A number in a range.
    pub(crate) fn number(
        &self,
        name: &str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<u64>, Error> {
        let Some(text) = self.query(name) else {
            return Ok(None);
        };
        match text.parse() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(Error::Invalid(format!(
                "{name} must be a number from {} to {}, not '{text}'",
                range.start(),
                range.end()
            ))),
        }
    }

    /// A header.
    pub(crate) fn header(&self, name: &str) -> Result<Option<&str>, Error> {
        let Some(value) = self.headers.get(name) else {
            return Ok(None);
        };
        let text = std::str::from_utf8(value.as_bytes())
            .map_err(|_| Error::Invalid(format!("the header {name} is not UTF-8")))?;
        Ok(Some(text.trim()).filter(|text| !text.is_empty()))
    }

    /// A header that has to be there.
    pub(crate) fn required_header(&self, name: &str) -> Result<&str, Error> {
        self.header(name)?.ok_or_else(|| Error::Invalid(format!("the header {name} is missing")))
    }

    /// The members of the body; none when there is no body.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let body = match self.body.trim_ascii() {
            [] => b"{}",
            // Serde would take one for the members in their order.
            [b'[', ..] => {
                let text = "the body cannot be read: it is a list, not an object";
                return Err(Error::Invalid(text.into()));
            }
            body => body,
        };
        serde_json::from_slice(body)
            .map_err(|error| Error::Invalid(format!("the body cannot be read: {error}")))
    }
}

/// An address without its query.
pub(crate) fn without_query(address: &str) -> String {
    match address.split_once('?') {
        Some((path, _)) => format!("{path}?redacted"),
        None => address.to_owned(),
    }
}

/// The parameters of a query. A plus is a plus, as in a signature.
pub(crate) fn parameters(query: &str) -> Result<Vec<(String, String)>, Error> {
    let pairs = sigv4::pairs(query).map(|(name, value)| {
        let decode = |text| percent_decode_str(text).decode_utf8().map(Cow::into_owned);
        let invalid = |_| Error::Invalid(format!("the parameter {name} of the query is not UTF-8"));
        Ok((decode(name).map_err(invalid)?, decode(value).map_err(invalid)?))
    });
    pairs.collect()
}

/// A tag as AWS writes it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Tag {
    key: String,
    value: Option<String>,
}

/// How many tags a resource can have.
const MOST_TAGS: usize = 50;

/// Tags that are added to those of a resource: one that has as many as it can gets no more, however they
/// come.
pub(crate) fn more_tags(more: Vec<Tag>) -> Result<BTreeMap<String, String>, Error> {
    match more.len() {
        0..=MOST_TAGS => tags(more),
        count => Err(Error::LimitExceeded(too_many_tags(count))),
    }
}

fn too_many_tags(count: usize) -> String {
    format!("a resource can have {MOST_TAGS} tags, not {count}")
}

/// The tags of a resource, checked against their limits.
pub(crate) fn tags(tags: Vec<Tag>) -> Result<BTreeMap<String, String>, Error> {
    if tags.len() > MOST_TAGS {
        return Err(Error::Invalid(too_many_tags(tags.len())));
    }
    let mut map = BTreeMap::new();
    for Tag { key, value } in tags {
        let value = value.unwrap_or_default();
        if !(1..=128).contains(&key.chars().count()) || value.chars().count() > 256 {
            return Err(Error::Invalid(format!(
                "the key of tag '{key}' must have 1 to 128 characters and its value at most 256"
            )));
        }
        if let Some(_twice) = map.insert(key.clone(), value) {
            return Err(Error::Invalid(format!("the tag '{key}' is there twice")));
        }
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_utf8() {
        let read = |query| parameters(query).map_err(|error| error.to_string());
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        for (query, expected) in [
            ("", vec![]),
            ("&a=1&&b", vec![pair("a", "1"), pair("b", "")]),
            ("a%3D=%C3%A4+%2B&a%3D=%zz", vec![pair("a=", "ä++"), pair("a=", "%zz")]),
        ] {
            assert_eq!(read(query), Ok(expected), "{query}");
        }
        for (query, name) in
            [("a=1&contentType=%FF", "contentType"), ("%C3=1", "%C3"), ("b=%ED%A0%80", "b")]
        {
            let text = format!("the parameter {name} of the query is not UTF-8");
            assert_eq!(read(query), Err(text), "{query}");
        }
    }
}
