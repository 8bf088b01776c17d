//! OpenID Connect providers that people log in with.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::people::{MAX_THINGS_BYTES, Provider, Rule};
use api::{Rights, Role};
use fleet::registry::LONGEST_SESSION_SECS;
use serde::Deserialize;

use super::check::check_things;
use super::jwt::{JwtIssuer, check_ca, file_of, is_plain_name};
use super::{Findings, values};
use crate::jwks::Place;

/// The shortest session, in seconds.
const SHORTEST_SESSION_SECS: u64 = 900;
/// Characters of an issuer: it travels in session tokens.
const ISSUER_CHARS: usize = 256;

/// Somebody whose tokens say who people are, and what gives them roles.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct OidcProvider {
    /// What `iss` has to be, and where the provider describes itself.
    pub issuer: String,
    /// What `aud` has to be, or to have: the client id.
    pub audience: String,
    /// Its public keys, a JSON Web Key Set: an address or a file; where it says itself when absent.
    #[serde(default)]
    pub jwks: Option<String>,
    /// CAs in PEM that its HTTPS is trusted by, beside those of the machine.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// The longest time that credentials last.
    #[serde(default = "an_hour", deserialize_with = "values::duration")]
    pub max_session: Duration,
    /// Which claims give which role.
    #[serde(default)]
    pub roles: Vec<RoleRule>,
}

/// What a claim gives.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct RoleRule {
    /// Its name; `a.b` is also `b` in the object `a`.
    pub claim: String,
    /// What it has to be, or to have.
    pub value: String,
    /// `admin`, `operator` or `read-only`.
    pub role: Role,
    /// With which things: names, or `start*`. Everything, when it is left out.
    #[serde(default, deserialize_with = "super::some_things")]
    pub things: Vec<String>,
}

fn an_hour() -> Duration {
    Duration::from_secs(3600)
}

impl OidcProvider {
    /// The file with its keys; none when they are fetched.
    pub fn jwks_file(&self) -> Option<&Path> {
        self.jwks.as_deref().and_then(file_of)
    }

    /// Where its keys are.
    pub fn place(&self) -> Place {
        match (self.jwks_file(), &self.jwks) {
            (Some(file), _) => Place::File(file.to_owned()),
            (None, Some(address)) => Place::Address(address.clone()),
            (None, None) => Place::Discovered(self.issuer.clone()),
        }
    }

    /// As the API knows it.
    pub fn provider(&self, name: &str) -> Provider {
        let rule = |rule: &RoleRule| Rule {
            claim: rule.claim.clone(),
            value: rule.value.clone(),
            rights: Rights { role: rule.role, things: rule.things.clone() },
        };
        Provider {
            name: name.to_owned(),
            issuer: self.issuer.clone(),
            audience: self.audience.clone(),
            max_session_secs: u32::try_from(self.max_session.as_secs())
                .unwrap_or(u32::MAX)
                .min(LONGEST_SESSION_SECS),
            rules: self.roles.iter().map(rule).collect(),
        }
    }
}

/// Finds what cannot be.
pub(super) fn check(
    providers: &BTreeMap<String, OidcProvider>,
    of_devices: &[JwtIssuer],
    found: &mut Findings,
) {
    let mut parties = HashSet::new();
    for (name, provider) in providers {
        let place = |field: &str| format!("oidc.{name}.{field}");
        if !is_plain_name(name) {
            let text = "the name is not 1 to 128 of A-Z, a-z, 0-9, _ and -";
            found.problem(format!("oidc.{name}"), text);
        }
        check_issuer(provider, &place("issuer"), found);
        if provider.audience.is_empty() {
            found.problem(place("audience"), "is empty: it is the client id of Skein there");
        } else if !parties.insert((&provider.issuer, &provider.audience)) {
            let text = "there is another provider with this issuer and audience";
            found.problem(place("audience"), text);
        }
        let is_same =
            |it: &&JwtIssuer| it.issuer == provider.issuer && it.audience == provider.audience;
        if let Some(same) = of_devices.iter().find(is_same) {
            let name = &same.name;
            let text = format!(
                "jwt_issuers has it, too, with this issuer, as {name:?}: people are devices with their \
                 tokens, and devices people"
            );
            found.warning(place("audience"), text);
        }
        match &provider.jwks {
            Some(jwks) if jwks.is_empty() => {
                found.problem(place("jwks"), "is empty; leave it out to have it discovered");
            }
            Some(jwks) if jwks.starts_with("http://") => {
                found.warning(place("jwks"), "without TLS the keys can be replaced on the way");
            }
            _ => {}
        }
        check_ca(provider.ca.as_deref(), provider.jwks_file(), place("ca"), found);
        let secs = provider.max_session.as_secs();
        if !(SHORTEST_SESSION_SECS..=LONGEST_SESSION_SECS.into()).contains(&secs) {
            found.problem(place("max_session"), format!("{secs}s is not in 15m..=12h"));
        }
        if provider.roles.is_empty() {
            let text = "there are none: nobody gets in; each is like [[oidc.NAME.roles]] with claim, \
                        value and role";
            found.warning(place("roles"), text);
        }
        check_rules(&provider.roles, &place("roles"), found);
    }
}

fn check_issuer(provider: &OidcProvider, place: &str, found: &mut Findings) {
    let issuer = &provider.issuer;
    let url = issuer.parse::<axum::http::Uri>().ok();
    let has_host = url.as_ref().and_then(|it| it.host()).is_some_and(|host| !host.is_empty());
    let is_http = issuer.starts_with("http://");
    if !has_host || !(is_http || issuer.starts_with("https://")) {
        let text = format!("{issuer:?} is not a URL like \"https://id.example.com/realms/staff\"");
        found.problem(place, text);
    } else if issuer.contains(['?', '#']) {
        found.problem(place, format!("{issuer:?} has a query or a fragment"));
    } else if issuer.len() > ISSUER_CHARS {
        found.problem(place, format!("it is longer than {ISSUER_CHARS} characters"));
    } else if is_http && provider.jwks.is_none() {
        found.warning(place, "without TLS the keys can be replaced on the way");
    }
}

fn check_rules(rules: &[RoleRule], place: &str, found: &mut Findings) {
    let mut bytes: HashMap<&str, usize> = HashMap::new();
    for (number, rule) in rules.iter().enumerate() {
        let field = |field: &str| format!("{place}[{number}].{field}");
        for (name, text) in [("claim", &rule.claim), ("value", &rule.value)] {
            if text.is_empty() {
                found.problem(field(name), "is empty");
            }
        }
        check_things(&rule.things, &field("things"), found);
        // As they are written in session tokens.
        let length: usize = rule.things.iter().map(|thing| thing.len() + 3).sum();
        let sum = bytes.entry(rule.role.as_str()).or_default();
        *sum += length;
        if *sum > MAX_THINGS_BYTES && *sum - length <= MAX_THINGS_BYTES {
            let text = format!(
                "the things of the role {} have more than {MAX_THINGS_BYTES} bytes together, which \
                 travel in each session token: name more of them by START*",
                rule.role.as_str()
            );
            found.problem(field("things"), text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> RoleRule {
        let (claim, value) = ("groups".into(), "iot".into());
        RoleRule { claim, value, role: Role::Operator, things: vec!["lamp-*".into()] }
    }

    fn good() -> OidcProvider {
        OidcProvider {
            issuer: "https://id.example/realms/staff".into(),
            audience: "skein".into(),
            jwks: None,
            ca: None,
            max_session: an_hour(),
            roles: vec![rule()],
        }
    }

    fn found(providers: &[(&str, OidcProvider)]) -> (String, String) {
        found_beside(&[], providers)
    }

    fn found_beside(
        of_devices: &[JwtIssuer],
        providers: &[(&str, OidcProvider)],
    ) -> (String, String) {
        let providers = providers.iter().map(|(name, it)| (name.to_string(), it.clone()));
        let mut found = Findings::default();
        check(&providers.collect(), of_devices, &mut found);
        let keys = |found: Vec<super::super::Finding>| {
            found.into_iter().map(|it| it.key).collect::<Vec<_>>().join(" ")
        };
        (keys(found.problems), keys(found.warnings))
    }

    #[test]
    fn a_provider_that_cannot_be_is_found() {
        let with_rule = |rule: RoleRule| OidcProvider { roles: vec![rule], ..good() };
        let issuer = |issuer: &str| OidcProvider { issuer: issuer.into(), ..good() };
        let lasting = |secs| OidcProvider { max_session: Duration::from_secs(secs), ..good() };
        let many = || (0..20).map(|number| format!("{number}{}", "t".repeat(110))).collect();
        for (provider, problems, warnings) in [
            (good(), "", ""),
            (lasting(900), "", ""),
            (lasting(43_200), "", ""),
            (OidcProvider { jwks: Some("keys.json".into()), ..issuer("http://id") }, "", ""),
            (issuer(""), "issuer", ""),
            (issuer("id.example"), "issuer", ""),
            (issuer("https://"), "issuer", ""),
            (issuer("ftp://id.example"), "issuer", ""),
            (issuer("https://id.example/?a=b"), "issuer", ""),
            (issuer("https://id.example/#a"), "issuer", ""),
            (issuer(&format!("https://id/{}", "x".repeat(256))), "issuer", ""),
            (issuer("http://id.example"), "", "issuer"),
            (OidcProvider { audience: String::new(), ..good() }, "audience", ""),
            (OidcProvider { jwks: Some(String::new()), ..good() }, "jwks", ""),
            (OidcProvider { jwks: Some("http://id/keys".into()), ..good() }, "", "jwks"),
            (OidcProvider { ca: Some("ca.pem".into()), ..good() }, "", ""),
            (OidcProvider { ca: Some("".into()), ..good() }, "ca", ""),
            (
                OidcProvider {
                    ca: Some("ca.pem".into()),
                    jwks: Some("keys.json".into()),
                    ..good()
                },
                "",
                "ca",
            ),
            (lasting(899), "max_session", ""),
            (lasting(43_201), "max_session", ""),
            (OidcProvider { roles: Vec::new(), ..good() }, "", "roles"),
            (with_rule(RoleRule { claim: String::new(), ..rule() }), "roles[0].claim", ""),
            (with_rule(RoleRule { value: String::new(), ..rule() }), "roles[0].value", ""),
            (with_rule(RoleRule { things: vec!["a*b".into()], ..rule() }), "roles[0].things", ""),
            (with_rule(RoleRule { things: many(), ..rule() }), "roles[0].things", ""),
        ] {
            let key = |field: &str| match field {
                "" => String::new(),
                field => format!("oidc.staff.{field}"),
            };
            let expected = (key(problems), key(warnings));
            assert_eq!(found(&[("staff", provider.clone())]), expected, "{provider:?}");
        }
        assert_eq!(found(&[("a b", good())]).0, "oidc.a b");
        assert_eq!(found(&[("a", good()), ("b", good())]).0, "oidc.b.audience");
        let other = OidcProvider { audience: "other".into(), ..good() };
        assert_eq!(found(&[("a", good()), ("b", other)]).0, "");
    }

    #[test]
    fn tokens_that_mean_devices_and_people_are_found() {
        let of_devices = |audience: &str| JwtIssuer {
            name: "fleet".into(),
            issuer: good().issuer,
            audience: audience.into(),
            jwks: "keys.json".into(),
            ca: None,
            principal_claim: "sub".into(),
            policy: String::new(),
        };
        for (audience, warning) in [("skein", "oidc.staff.audience"), ("devices", "")] {
            let found = found_beside(&[of_devices(audience)], &[("staff", good())]);
            assert_eq!(found, (String::new(), warning.into()), "{audience}");
        }
    }

    #[test]
    fn keys_are_where_it_is_said() {
        let with = |jwks: &str| OidcProvider { jwks: Some(jwks.into()), ..good() };
        for (provider, place) in [
            (good(), Place::Discovered("https://id.example/realms/staff".into())),
            (with("https://id/keys"), Place::Address("https://id/keys".into())),
            (with("/etc/keys.json"), Place::File("/etc/keys.json".into())),
        ] {
            assert_eq!(provider.place(), place);
        }
    }
}
