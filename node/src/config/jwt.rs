//! Issuers of JSON Web Tokens.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Findings;
use crate::jwks::Place;

/// Somebody whose tokens let clients in: custom authorizers name it by `jwt:` and its name.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct JwtIssuer {
    /// What authorizers call it.
    pub name: String,
    /// What `iss` has to be.
    pub issuer: String,
    /// What `aud` has to be, or to have.
    pub audience: String,
    /// Its public keys, a JSON Web Key Set: an address or a file.
    pub jwks: String,
    /// CAs in PEM that its HTTPS is trusted by, beside those of the machine.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// The claim that says who a client is.
    #[serde(default = "subject")]
    pub principal_claim: String,
    /// What clients may do: an IoT policy document, with claims as variables like `${jwt:sub}`.
    pub policy: String,
}

impl JwtIssuer {
    /// The file with its keys; none when they are fetched.
    pub fn jwks_file(&self) -> Option<&Path> {
        file_of(&self.jwks)
    }

    /// Where they are.
    pub fn place(&self) -> Place {
        match self.jwks_file() {
            Some(file) => Place::File(file.to_owned()),
            None => Place::Address(self.jwks.clone()),
        }
    }
}

/// The file that somebody names who may also name an address.
pub(super) fn file_of(jwks: &str) -> Option<&Path> {
    let is_address = jwks.starts_with("https://") || jwks.starts_with("http://");
    (!is_address && !jwks.is_empty()).then(|| Path::new(jwks))
}

/// Finds CAs that nobody is asked with.
pub(super) fn check_ca(ca: Option<&Path>, keys: Option<&Path>, key: String, found: &mut Findings) {
    match ca {
        Some(file) if file.as_os_str().is_empty() => {
            found.problem(key, "is empty; leave it out to trust the CAs of the machine alone");
        }
        Some(_) if keys.is_some() => {
            found.warning(key, "is not used: the keys are in a file");
        }
        _ => {}
    }
}

/// Whether it is a name that needs no quotes anywhere.
pub(super) fn is_plain_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    (1..=128).contains(&name.len()) && name.bytes().all(is_plain)
}

fn subject() -> String {
    "sub".into()
}

/// Finds what cannot be.
pub(super) fn check(issuers: &[JwtIssuer], found: &mut Findings) {
    let mut names = HashSet::new();
    for (number, issuer) in issuers.iter().enumerate() {
        let place = |field: &str| format!("jwt_issuers[{number}].{field}");
        let name = &issuer.name;
        if !is_plain_name(name) {
            let text = format!("{name:?} is not 1 to 128 of A-Z, a-z, 0-9, _ and -");
            found.problem(place("name"), text);
        } else if !names.insert(name) {
            found.problem(place("name"), format!("{name:?} is there twice"));
        }
        for (field, text) in [
            ("issuer", &issuer.issuer),
            ("audience", &issuer.audience),
            ("jwks", &issuer.jwks),
            ("principal_claim", &issuer.principal_claim),
        ] {
            if text.is_empty() {
                found.problem(place(field), "is empty");
            }
        }
        check_ca(issuer.ca.as_deref(), issuer.jwks_file(), place("ca"), found);
        if issuer.jwks.starts_with("http://") {
            found.warning(place("jwks"), "without TLS the keys can be replaced on the way");
        }
        if let Err(error) = policy::Document::parse(&issuer.policy) {
            found.problem(place("policy"), error.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> JwtIssuer {
        JwtIssuer {
            name: "fleet".into(),
            issuer: "https://id.example/".into(),
            audience: "skein".into(),
            jwks: "/etc/skein/keys.json".into(),
            ca: None,
            principal_claim: "sub".into(),
            policy:
                r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iot:Connect",
                "Resource":"*"}}"#
                    .into(),
        }
    }

    #[test]
    fn an_issuer_that_cannot_be_is_found() {
        let found = |issuers: &[JwtIssuer]| {
            let mut found = Findings::default();
            check(issuers, &mut found);
            let keys = |found: Vec<super::super::Finding>| {
                found.into_iter().map(|it| it.key).collect::<Vec<_>>().join(" ")
            };
            (keys(found.problems), keys(found.warnings))
        };
        assert_eq!(found(&[good()]), (String::new(), String::new()));
        for (issuer, problem) in [
            (JwtIssuer { name: String::new(), ..good() }, "name"),
            (JwtIssuer { name: "a b".into(), ..good() }, "name"),
            (JwtIssuer { issuer: String::new(), ..good() }, "issuer"),
            (JwtIssuer { audience: String::new(), ..good() }, "audience"),
            (JwtIssuer { jwks: String::new(), ..good() }, "jwks"),
            (JwtIssuer { principal_claim: String::new(), ..good() }, "principal_claim"),
            (JwtIssuer { policy: "{}".into(), ..good() }, "policy"),
        ] {
            assert_eq!(found(&[issuer]).0, format!("jwt_issuers[0].{problem}"));
        }
        assert_eq!(found(&[good(), good()]).0, "jwt_issuers[1].name");
        let plain = JwtIssuer { jwks: "http://id.example/keys".into(), ..good() };
        assert_eq!(found(&[plain]).1, "jwt_issuers[0].jwks");
    }
}
