//! People who log in with an OpenID Connect provider: which claims of their tokens give which role, and
//! what is sealed in the session tokens that they get for them.
//!
//! A session stands for as long as the configuration has its provider, and a rule there that gives what
//! the session has: whether the person still has the claims is seen when the session has expired.

use std::collections::BTreeSet;

use authorizer::jwt::{Claims, InvalidToken};
use fleet::registry::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::rights::{Rights, Role};

/// Bytes that the things of the rules for one role may have together: they travel in session tokens.
pub const MAX_THINGS_BYTES: usize = 2048;

/// Somebody whose tokens say who people are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Its name in the configuration.
    pub name: String,
    /// What `iss` has to be.
    pub issuer: String,
    /// What `aud` has to be, or to have.
    pub audience: String,
    /// The longest session, in seconds.
    pub max_session_secs: u32,
    /// What claims give.
    pub rules: Vec<Rule>,
}

/// What a claim gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name, or the way to it.
    pub claim: String,
    /// What it has to be, or to have.
    pub value: String,
    /// What it gives.
    pub rights: Rights,
}

impl Provider {
    /// What a person with these claims may do who asks for this role: what all rules that match give
    /// together. None when no rule gives it.
    pub fn rights(&self, claims: &Claims, role: Role) -> Option<Rights> {
        let matching =
            |rule: &&Rule| rule.rights.role == role && claims.has(&rule.claim, &rule.value);
        let matching: Vec<&Rule> = self.rules.iter().filter(matching).collect();
        let is_for_all = matching.iter().any(|rule| rule.rights.things.is_empty());
        let things = matching.iter().flat_map(|rule| &rule.rights.things);
        let things: BTreeSet<&String> = things.filter(|_| !is_for_all).collect();
        let things = things.into_iter().cloned().collect();
        (!matching.is_empty()).then_some(Rights { role, things })
    }

    /// Whether rules still give these rights to anybody.
    fn gives(&self, rights: &Rights) -> bool {
        let of_role = || self.rules.iter().map(|it| &it.rights).filter(|it| it.role == rights.role);
        let gives = |thing: &String| of_role().any(|it| it.things.contains(thing));
        of_role().any(|it| it.things.is_empty())
            || !rights.things.is_empty() && rights.things.iter().all(gives)
    }
}

/// Why a token says nothing about a person.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Unidentified {
    /// The configuration has no provider for it.
    #[error("No OpenIDConnect provider found in your account for {0}")]
    NoProvider(String),
    /// It is not a good one.
    #[error(transparent)]
    Token(#[from] InvalidToken),
    /// The keys of its provider are not known.
    #[error("the keys of the provider cannot be had")]
    NoKeys,
}

/// Who temporary credentials are of, and what they were given for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonSession {
    /// The provider that has said so.
    pub provider: String,
    /// Its issuer then.
    pub issuer: String,
    /// Whom it means.
    pub subject: String,
    /// What people call that person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the person calls the session.
    pub session: String,
    /// What the person may do.
    pub rights: Rights,
    /// From when on they are good for nothing.
    pub expires: Timestamp,
}

impl PersonSession {
    /// Whether what it was given for is still there.
    pub fn stands<'a>(&self, providers: impl IntoIterator<Item = &'a Provider>) -> bool {
        let is_of = |it: &&Provider| it.name == self.provider && it.issuer == self.issuer;
        providers.into_iter().find(is_of).is_some_and(|it| it.gives(&self.rights))
    }
}

#[cfg(test)]
mod tests {
    use authorizer::jwt::Keys;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::{Value, json};

    use super::*;

    /// Of a token that somebody has signed: there are no others.
    fn claims(value: &Value) -> Claims {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let point = key.public_key().as_ref();
        let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
        let keys = json!({ "keys": [{ "kty": "EC", "crv": "P-256", "x": x, "y": y }] });
        let keys = Keys::parse(keys.to_string().as_bytes()).unwrap();
        let head = encode(br#"{"alg":"ES256"}"#);
        let message = format!("{head}.{}", encode(value.to_string().as_bytes()));
        let signature = key.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        Claims::verify(&format!("{message}.{}", encode(signature.as_ref())), &keys).unwrap()
    }

    fn rights(role: Role, things: &[&str]) -> Rights {
        Rights { role, things: things.iter().map(ToString::to_string).collect() }
    }

    fn provider() -> Provider {
        let rule = |claim: &str, value: &str, role, things: &[&str]| Rule {
            claim: claim.into(),
            value: value.into(),
            rights: rights(role, things),
        };
        Provider {
            name: "staff".into(),
            issuer: "https://id.example".into(),
            audience: "skein".into(),
            max_session_secs: 3600,
            rules: vec![
                rule("groups", "iot-admins", Role::Admin, &[]),
                rule("groups", "lamps", Role::Operator, &["lamp-*", "door"]),
                rule("groups", "gates", Role::Operator, &["door", "gate"]),
                rule("realm_access.roles", "operators", Role::Operator, &[]),
                rule("email", "guest@example.com", Role::ReadOnly, &[]),
            ],
        }
    }

    #[test]
    fn claims_give_roles() {
        use Role::{Admin, Operator, ReadOnly};
        for (given, role, expected) in [
            (json!({ "groups": ["x", "iot-admins"] }), Admin, Some(&[][..])),
            (json!({ "groups": "iot-admins" }), Admin, Some(&[])),
            (json!({ "groups": ["iot-admins"] }), Operator, None),
            (json!({ "groups": ["iot-admins"] }), ReadOnly, None),
            (json!({ "groups": ["IOT-ADMINS", "iot-admin", "iot-admins2"] }), Admin, None),
            (json!({ "groups": "x iot-admins" }), Admin, None),
            (json!({ "Groups": ["iot-admins"] }), Admin, None),
            (json!({ "groups": { "iot-admins": true } }), Admin, None),
            (json!({ "groups": ["lamps"] }), Operator, Some(&["door", "lamp-*"])),
            (json!({ "groups": ["lamps", "gates"] }), Operator, Some(&["door", "gate", "lamp-*"])),
            (json!({ "groups": ["lamps"] }), Admin, None),
            (
                json!({ "groups": ["lamps"], "realm_access": { "roles": ["operators"] } }),
                Operator,
                Some(&[]),
            ),
            (json!({ "realm_access": { "roles": ["operators"] } }), Admin, None),
            (json!({ "email": "guest@example.com", "email_verified": true }), ReadOnly, Some(&[])),
            (json!({ "email": "guest@example.com" }), ReadOnly, None),
            (json!({ "email": "guest@example.com", "email_verified": false }), ReadOnly, None),
            (json!({ "email": "x@example.com", "email_verified": true }), ReadOnly, None),
            (json!({}), ReadOnly, None),
        ] {
            let found = provider().rights(&claims(&given), role);
            assert_eq!(found, expected.map(|things| rights(role, things)), "{given} {role:?}");
        }
    }

    #[test]
    fn a_session_stands_while_a_rule_gives_what_it_has() {
        use Role::{Admin, Operator, ReadOnly};
        let session = |role, things: &[&str]| PersonSession {
            provider: "staff".into(),
            issuer: "https://id.example".into(),
            subject: "s".into(),
            name: None,
            session: "x".into(),
            rights: rights(role, things),
            expires: Timestamp(1),
        };
        let with = |change: fn(&mut Provider)| {
            let mut provider = provider();
            change(&mut provider);
            vec![provider]
        };
        let all = with(|_| ());
        let no_general = with(|it| it.rules.retain(|rule| rule.claim == "groups"));
        for (session, providers, stands) in [
            (session(Admin, &[]), &all, true),
            (session(ReadOnly, &[]), &all, true),
            (session(Operator, &["door"]), &all, true),
            (session(Operator, &["door", "gate"]), &no_general, true),
            (session(Operator, &["door", "other"]), &no_general, false),
            (session(Operator, &[]), &no_general, false),
            (session(ReadOnly, &[]), &no_general, false),
            (
                session(Admin, &["door"]),
                &with(|it| it.rules[0].rights.things = vec!["d".into()]),
                false,
            ),
            (session(Admin, &[]), &with(|it| it.name = "other".into()), false),
            (session(Admin, &[]), &with(|it| it.issuer = "https://evil".into()), false),
            (session(Admin, &[]), &Vec::new(), false),
        ] {
            assert_eq!(session.stands(providers), stands, "{session:?} {providers:?}");
        }
    }
}
