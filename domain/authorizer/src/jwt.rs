//! JSON Web Tokens of an issuer that an operator trusts: RS256 and ES256, and nothing else.
//!
//! Which algorithm is used follows from the key, not only from the token: a token that names another
//! one than its key is made for is refused, and so are `none` and all symmetric ones. A token without an
//! end is refused.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::Grant;

/// Bytes of a token.
const TOKEN_BYTES: usize = 16 * 1024;
/// Keys of a set that are looked at.
const KEYS: usize = 100;
/// How far the clock of the issuer may be ahead, in seconds.
const AHEAD_SECS: u64 = 60;
/// The longest that a connection lasts, whatever its token says, in seconds: as with AWS.
const LONGEST_SECS: u64 = 86_400;
/// How far the clocks of an issuer may be from ours where its tokens are of people, in seconds.
const LEEWAY_SECS: u64 = 60;
/// Characters of who a client is.
const PRINCIPAL_CHARS: usize = 128;
/// Characters of the subject of a person, as OpenID Connect bounds it.
const SUBJECT_CHARS: usize = 255;
/// Characters of what a person is called.
const NAME_CHARS: usize = 128;
/// Claims with more characters are no policy variables.
const CLAIM_CHARS: usize = 1024;

/// Why a token lets nobody in.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InvalidToken {
    /// It does not have the form of one.
    #[error("{0}")]
    Malformed(&'static str),
    /// It is signed in a way that is not taken.
    #[error("alg is not RS256 or ES256")]
    Algorithm,
    /// No key of the set is meant.
    #[error("no key of the issuer has this kid, or the alg is not that of the key")]
    UnknownKey,
    /// The key has not signed it.
    #[error("the signature is wrong")]
    Signature,
    /// A claim is missing, or not what it has to be.
    #[error("the claim {0} is missing, or not the one that is expected")]
    Claim(String),
    /// It is over.
    #[error("it has expired")]
    Expired,
    /// It is not valid yet.
    #[error("it is not valid yet")]
    NotYet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Rs256,
    Es256,
}

/// Public keys of an issuer: a JSON Web Key Set.
#[derive(Clone, Debug, Default)]
pub struct Keys(Vec<Key>);

#[derive(Clone, Debug)]
struct Key {
    id: Option<String>,
    public: Public,
}

#[derive(Clone, Debug)]
enum Public {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// Of P-256, as a point that is not compressed.
    Ec(Vec<u8>),
}

/// Why bytes are no key set.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("is no JSON Web Key Set with a key for RS256 or ES256")]
pub struct InvalidKeys;

impl Keys {
    /// Reads a key set. Keys for other purposes and algorithms are left out.
    pub fn parse(json: &[u8]) -> Result<Self, InvalidKeys> {
        let set: Value = serde_json::from_slice(json).map_err(|_| InvalidKeys)?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or(InvalidKeys)?;
        let keys: Vec<Key> = keys.iter().take(KEYS).filter_map(Key::read).collect();
        if keys.is_empty() { Err(InvalidKeys) } else { Ok(Self(keys)) }
    }

    /// The key that a token names; without a name, the only one there is for its algorithm.
    fn find(&self, algorithm: Algorithm, id: Option<&str>) -> Result<&Key, InvalidToken> {
        let of_algorithm = self.0.iter().filter(|key| key.public.algorithm() == algorithm);
        let mut meant = of_algorithm.filter(|key| id.is_none() || key.id.as_deref() == id);
        match (meant.next(), meant.next()) {
            (Some(key), None) => Ok(key),
            _ => Err(InvalidToken::UnknownKey),
        }
    }
}

impl Key {
    fn read(key: &Value) -> Option<Self> {
        let text = |name: &str| key.get(name).and_then(Value::as_str);
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        if text("use").is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let public = match (text("kty")?, text("alg")) {
            ("RSA", None | Some("RS256")) => Public::Rsa { n: bytes("n")?, e: bytes("e")? },
            ("EC", None | Some("ES256")) if text("crv") == Some("P-256") => {
                let (x, y) = (bytes("x")?, bytes("y")?);
                Public::Ec([&[4], &x[..], &y[..]].concat())
            }
            _ => return None,
        };
        Some(Self { id: text("kid").map(ToOwned::to_owned), public })
    }
}

impl Public {
    fn algorithm(&self) -> Algorithm {
        match self {
            Self::Rsa { .. } => Algorithm::Rs256,
            Self::Ec(_) => Algorithm::Es256,
        }
    }

    /// Keys that are too short are refused here.
    fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Rsa { n, e } => {
                let key = RsaPublicKeyComponents { n, e };
                key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok()
            }
            Self::Ec(point) => {
                let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
                key.verify(message, signature).is_ok()
            }
        }
    }
}

/// An issuer, and what its tokens give.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// What `iss` has to be.
    pub issuer: String,
    /// What `aud` has to be, or to have among others.
    pub audience: String,
    /// The claim that says who the client is.
    pub principal_claim: String,
    /// What clients may do, with claims as variables: `${jwt:sub}`.
    pub document: Arc<policy::Document>,
    /// The same as text.
    pub text: String,
}

/// Who a token is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// Whom the issuer means: never somebody else.
    pub subject: String,
    /// What people call that person: the e-mail address, or another name. It may change.
    pub name: Option<String>,
}

/// What a token claims before its signature is checked: whose keys it is to be checked with. Nothing of
/// it is proved. Not shown by `Debug`.
pub struct Claimed(Map<String, Value>);

impl fmt::Debug for Claimed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claimed")
    }
}

impl Claimed {
    /// Reads a token.
    pub fn read(token: &str) -> Result<Self, InvalidToken> {
        let (_, body, _) = parts(token)?;
        object(body).map(Self).ok_or(NO_CLAIMS)
    }

    /// A claim that is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        text(&self.0, name)
    }

    /// Whether it is for this audience, maybe among others.
    pub fn is_for(&self, audience: &str) -> bool {
        is_for(&self.0, audience)
    }
}

/// A token whose signature is good. Not shown by `Debug`.
#[derive(Clone, PartialEq)]
pub struct Claims {
    members: Map<String, Value>,
    /// What kind of token its header says that it is.
    kind: Option<String>,
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claims")
    }
}

impl Claims {
    /// Checks the signature of a token.
    pub fn verify(token: &str, keys: &Keys) -> Result<Self, InvalidToken> {
        let malformed = InvalidToken::Malformed;
        let (head, body, signature) = parts(token)?;
        let message = &token[..head.len() + 1 + body.len()];
        let head = object(head).ok_or(malformed("its header is no JSON object in base64url"))?;
        let algorithm = match head.get("alg").and_then(Value::as_str) {
            Some("RS256") => Algorithm::Rs256,
            Some("ES256") => Algorithm::Es256,
            _ => return Err(InvalidToken::Algorithm),
        };
        // What has to be understood is not understood.
        if head.contains_key("crit") {
            return Err(malformed("its header has crit"));
        }
        let id = match head.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.as_str()),
            Some(_) => return Err(malformed("its kid is no text")),
        };
        let key = keys.find(algorithm, id)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| InvalidToken::Signature)?;
        if !key.public.has_signed(message.as_bytes(), &signature) {
            return Err(InvalidToken::Signature);
        }
        let kind = head.get("typ").map(|kind| kind.as_str().unwrap_or_default().to_owned());
        object(body).map(|members| Self { members, kind }).ok_or(NO_CLAIMS)
    }

    /// Whether it is of this issuer and for this audience.
    fn check_parties(&self, issuer: &str, audience: &str) -> Result<(), InvalidToken> {
        if text(&self.members, "iss") != Some(issuer) {
            return Err(claim("iss"));
        }
        if is_for(&self.members, audience) { Ok(()) } else { Err(claim("aud")) }
    }

    /// Who it is of, if it is for us and of this time.
    pub fn person(
        &self,
        issuer: &str,
        audience: &str,
        now_secs: u64,
    ) -> Result<Person, InvalidToken> {
        self.check_parties(issuer, audience)?;
        // Only the party that it was issued to may use it, and it says which one where there are several.
        let is_shared =
            matches!(self.members.get("aud"), Some(Value::Array(many)) if many.len() > 1);
        if is_shared && !self.members.contains_key("azp") {
            return Err(claim("azp"));
        }
        for party in ["azp", "client_id"] {
            if self.members.get(party).is_some_and(|it| it.as_str() != Some(audience)) {
                return Err(claim(party));
            }
        }
        // Access tokens (RFC 9068, 2.1) and those that end a session (OpenID Connect Back-Channel Logout
        // 1.0, 2.4) say so in their header; some issuers say it in a claim.
        if self.kind.as_ref().is_some_and(|kind| !kind.eq_ignore_ascii_case("JWT"))
            || self.members.get("typ").is_some_and(|it| it.as_str() != Some("ID"))
        {
            return Err(claim("typ"));
        }
        if self.members.contains_key("events") {
            return Err(claim("events"));
        }
        let ends = self.seconds("exp")?.ok_or(claim("exp"))?;
        if now_secs >= ends.saturating_add(LEEWAY_SECS) {
            return Err(InvalidToken::Expired);
        }
        let issued = self.seconds("iat")?.ok_or(claim("iat"))?;
        let begins = self.seconds("nbf")?.unwrap_or(issued).max(issued);
        if begins > now_secs + LEEWAY_SECS {
            return Err(InvalidToken::NotYet);
        }
        let subject = text(&self.members, "sub").filter(|it| {
            let is_plain = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
            (1..=SUBJECT_CHARS).contains(&it.len()) && it.bytes().all(is_plain)
        });
        let subject = subject.ok_or(claim("sub"))?.to_owned();
        Ok(Person { subject, name: self.name() })
    }

    /// Whether the issuer has made sure that the address is the person's, if it says.
    fn is_email_verified(&self) -> Option<bool> {
        match self.members.get("email_verified") {
            Some(Value::Bool(verified)) => Some(*verified),
            // Some issuers write it as a text.
            Some(Value::String(verified)) => Some(verified == "true"),
            _ => None,
        }
    }

    /// What a person is called; an address that is not theirs for sure names nobody.
    fn name(&self) -> Option<String> {
        let email =
            text(&self.members, "email").filter(|_| self.is_email_verified() != Some(false));
        let names = [email, text(&self.members, "preferred_username"), text(&self.members, "name")];
        let fits = |name: &&str| {
            let length = name.chars().count();
            (1..=NAME_CHARS).contains(&length) && !name.chars().any(char::is_control)
        };
        names.into_iter().flatten().find(fits).map(ToOwned::to_owned)
    }

    /// Whether a claim is this text, or a list with it. A name that is no claim, with points in it, is
    /// the way to one in objects: `realm_access.roles`. An address counts only if the issuer says that it
    /// is verified: else people may have chosen it.
    pub fn has(&self, name: &str, value: &str) -> bool {
        if name == "email" && self.is_email_verified() != Some(true) {
            return false;
        }
        let found = self.members.get(name).or_else(|| {
            let (first, rest) = name.split_once('.')?;
            rest.split('.').try_fold(self.members.get(first)?, |within, name| within.get(name))
        });
        match found {
            Some(Value::String(one)) => one == value,
            Some(Value::Array(many)) => many.iter().any(|one| one.as_str() == Some(value)),
            _ => false,
        }
    }

    /// What it gives who presents it now, if it is for us and of this time.
    pub fn grant(&self, by: &Issuer, now_secs: u64) -> Result<Grant, InvalidToken> {
        self.check_parties(&by.issuer, &by.audience)?;
        let ends = self.seconds("exp")?.ok_or(claim("exp"))?;
        if now_secs >= ends {
            return Err(InvalidToken::Expired);
        }
        if self.seconds("nbf")?.is_some_and(|begins| begins > now_secs + AHEAD_SECS) {
            return Err(InvalidToken::NotYet);
        }
        let principal = self.members.get(&by.principal_claim).and_then(Value::as_str);
        let principal = principal.filter(|it| {
            (1..=PRINCIPAL_CHARS).contains(&it.len()) && it.bytes().all(|it| it.is_ascii_graphic())
        });
        Ok(Grant {
            principal_id: principal.ok_or(claim(&by.principal_claim))?.to_owned(),
            documents: vec![Arc::clone(&by.document)],
            texts: vec![by.text.clone()],
            variables: self.variables(),
            disconnect_after_secs: (ends - now_secs).min(LONGEST_SECS),
            refresh_after_secs: None,
        })
    }

    /// A time; absent is none, and anything but a number that is not negative is an error.
    fn seconds(&self, name: &str) -> Result<Option<u64>, InvalidToken> {
        let Some(value) = self.members.get(name) else { return Ok(None) };
        let whole = value.as_u64();
        let rounded = || value.as_f64().filter(|it| (0.0..1e15).contains(it)).map(|it| it as u64);
        let seconds = whole.or_else(rounded);
        seconds.map(Some).ok_or_else(|| InvalidToken::Claim(name.to_owned()))
    }

    /// Claims that are texts, numbers, truth values, or lists of texts. Of those whose names differ only in
    /// case the one in lower case counts, if there is one, and no other.
    fn variables(&self) -> BTreeMap<String, Vec<String>> {
        let values = |value: &Value| match value {
            Value::String(text) => Some(vec![text.clone()]),
            Value::Number(_) | Value::Bool(_) => Some(vec![value.to_string()]),
            Value::Array(many) => {
                many.iter().map(|one| one.as_str().map(ToOwned::to_owned)).collect()
            }
            _ => None,
        };
        // Names of policy variables are not case-sensitive.
        let mut namesakes: BTreeMap<String, usize> = BTreeMap::new();
        for name in self.members.keys() {
            *namesakes.entry(name.to_ascii_lowercase()).or_default() += 1;
        }
        let named = self.members.iter().filter_map(|(name, value)| {
            let lower = name.to_ascii_lowercase();
            if lower != *name && namesakes[&lower] > 1 {
                return None;
            }
            let values: Vec<String> = values(value)?;
            let fits = values.iter().map(String::len).sum::<usize>() <= CLAIM_CHARS;
            fits.then(|| (format!("jwt:{lower}"), values))
        });
        named.collect()
    }
}

const NO_CLAIMS: InvalidToken =
    InvalidToken::Malformed("its claims are no JSON object in base64url");

/// The header of a token, its claims and its signature.
fn parts(token: &str) -> Result<(&str, &str, &str), InvalidToken> {
    let malformed = InvalidToken::Malformed;
    if token.len() > TOKEN_BYTES {
        return Err(malformed("it is too long"));
    }
    let (message, signature) = token.rsplit_once('.').ok_or(malformed("it has no parts"))?;
    let (head, body) = message.split_once('.').ok_or(malformed("it has not three parts"))?;
    Ok((head, body, signature))
}

fn claim(name: &str) -> InvalidToken {
    InvalidToken::Claim(name.to_owned())
}

fn text<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    claims.get(name).and_then(Value::as_str)
}

fn is_for(claims: &Map<String, Value>, audience: &str) -> bool {
    match claims.get("aud") {
        Some(Value::String(one)) => one == audience,
        Some(Value::Array(many)) => many.iter().any(|one| one.as_str() == Some(audience)),
        _ => false,
    }
}

fn object(text: &str) -> Option<Map<String, Value>> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(object)) => Some(object),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
