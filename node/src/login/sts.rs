//! The node's STS, which gives credentials for a token.

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::{Options, post, printable, say};

/// Credentials as a `credential_process` prints them.
#[derive(Clone, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(Debug))]
#[serde(rename_all = "PascalCase")]
pub(super) struct Credentials {
    pub(super) version: u32,
    pub(super) access_key_id: String,
    pub(super) secret_access_key: String,
    pub(super) session_token: String,
    pub(super) expiration: String,
}

impl Credentials {
    fn read(xml: &str) -> Option<Self> {
        Some(Self {
            version: 1,
            access_key_id: element(xml, "AccessKeyId")?,
            secret_access_key: element(xml, "SecretAccessKey")?,
            session_token: element(xml, "SessionToken")?,
            expiration: element(xml, "Expiration")?,
        })
    }
}

pub(super) async fn assume_role(
    client: &reqwest::Client,
    options: &Options,
    session: &str,
    token: &str,
) -> anyhow::Result<Credentials> {
    let endpoint = &options.endpoint;
    if is_open_on_the_way(endpoint) {
        say(&format!("skein: {endpoint} is not encrypted: the credentials can be read on the way"));
    }
    let (role, duration) = (options.role_arn(), options.duration.map(|secs| secs.to_string()));
    let mut fields = vec![
        ("Action", "AssumeRoleWithWebIdentity"),
        ("Version", "2011-06-15"),
        ("RoleArn", &role),
        ("RoleSessionName", session),
        ("WebIdentityToken", token),
    ];
    fields.extend(duration.as_deref().map(|secs| ("DurationSeconds", secs)));
    let address = format!("{}/", endpoint.trim_end_matches('/'));
    let (status, body) = post(client, &address, &fields)
        .await
        .with_context(|| format!("cannot ask {address} for credentials"))?;
    let xml = String::from_utf8_lossy(&body);
    if status != 200 {
        let (code, message) = (element(&xml, "Code"), element(&xml, "Message"));
        let code = code.unwrap_or_else(|| format!("status {status}"));
        let message = message.map(|it| format!(": {}", printable(&it))).unwrap_or_default();
        bail!("{address} gives no credentials: {}{message}", printable(&code));
    }
    Credentials::read(&xml).with_context(|| format!("{address} answers with no credentials"))
}

/// Whether others may read what is sent there.
fn is_open_on_the_way(endpoint: &str) -> bool {
    let url = endpoint.parse::<axum::http::Uri>();
    url.is_ok_and(|url| {
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
        let is_here = host == "localhost"
            || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        url.scheme_str() == Some("http") && !is_here
    })
}

/// The text of the first element of this name.
fn element(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    let entities =
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    Some(entities.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_in_xml() {
        let xml = "<R><Credentials><AccessKeyId>A</AccessKeyId><SecretAccessKey>s/+</SecretAccessKey>\
                   <SessionToken>t</SessionToken><Expiration>e</Expiration></Credentials></R>";
        let read = Credentials::read(xml).unwrap();
        assert_eq!((read.version, &*read.secret_access_key), (1, "s/+"));
        for name in ["AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration"] {
            assert_eq!(Credentials::read(&xml.replace(name, "Other")), None, "{name}");
        }
        assert_eq!(element("<M>a&lt;b&amp;lt;</M>", "M").as_deref(), Some("a<b&lt;"));
        assert_eq!(element("<M>a", "M"), None);
    }

    #[test]
    fn what_is_not_encrypted_is_told() {
        for (endpoint, is_open) in [
            ("https://iot.example.com:8443", false),
            ("http://iot.example.com:8080", true),
            ("http://10.0.0.1:8080", true),
            ("http://127.0.0.1:8080", false),
            ("http://[::1]:8080", false),
            ("http://localhost:8080/", false),
        ] {
            assert_eq!(is_open_on_the_way(endpoint), is_open, "{endpoint}");
        }
    }
}
