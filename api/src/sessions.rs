//! Temporary credentials: who signs with them is sealed in their session token, with a key that all
//! nodes have. So any node recognises what another has given, and none keeps anything.
//!
//! A token is a version, a nonce and the sealed [`Session`], in base64 that URLs take as it is. The
//! version is one of devices or one of people, and sealed with it. The id of the access key and its
//! secret follow from the token, the secret with another key. What a device's session may do, and whether
//! it still stands, is decided where it is used ([`Backend::authorize`]); a person's has to stand here.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use fleet::registry::{RoleSession, SessionKey, Timestamp};
use sha2::{Digest, Sha256};

use crate::people::PersonSession;
use crate::sigv4::{AuthError, Claim, hmac};
use crate::{Backend, Error};

/// The version of tokens of devices.
const OF_DEVICES: u8 = 1;
/// The version of tokens of people.
const OF_PEOPLE: u8 = 2;
/// A longer text is no token: what people may have of things travels in it.
const LONGEST: usize = 8 * 1024;

/// Who temporary credentials are of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Session {
    /// A device, which has shown its certificate.
    Device(Arc<RoleSession>),
    /// Somebody who has logged in.
    Person(Arc<PersonSession>),
}

impl Session {
    /// The version of its token, and what is sealed there.
    fn written(&self) -> Option<(u8, Vec<u8>)> {
        let (version, json) = match self {
            Self::Device(session) => (OF_DEVICES, serde_json::to_vec(session)),
            Self::Person(session) => (OF_PEOPLE, serde_json::to_vec(session)),
        };
        Some((version, json.ok()?))
    }

    fn read(version: u8, json: &[u8]) -> Option<Self> {
        match version {
            OF_DEVICES => serde_json::from_slice(json).ok().map(Self::Device),
            OF_PEOPLE => serde_json::from_slice(json).ok().map(Self::Person),
            _ => None,
        }
    }

    /// From when on it is good for nothing.
    fn expires(&self) -> Timestamp {
        match self {
            Self::Device(session) => session.expires,
            Self::Person(session) => session.expires,
        }
    }
}

/// What somebody signs requests with until they expire.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
    pub(crate) session_token: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// Recognises who signs with temporary credentials: the claim can be finished then. Without a session
/// it is signed with a key of this node's configuration, and comes back as it was.
pub async fn resolve<'v, B: Backend>(
    backend: &B,
    claim: Claim<'v>,
    now: Timestamp,
) -> Result<(Claim<'v>, Option<Session>), Error> {
    let Some(token) = claim.session_token() else { return Ok((claim, None)) };
    let sealed = unpacked(token).ok_or(AuthError::Token)?;
    if access_key_id(token) != claim.access_key() {
        return Err(AuthError::Token.into());
    }
    let keys = backend
        .registry_read(move |registry| registry.opening_keys(now).cloned().collect::<Vec<_>>())
        .await?;
    let opened = keys.iter().find_map(|key| Some((open(sealed.clone(), key)?, key)));
    let (session, key) = opened.ok_or(match sealed.version {
        OF_PEOPLE => AuthError::EndedSession,
        _ => AuthError::Token,
    })?;
    if now >= session.expires() {
        return Err(AuthError::ExpiredToken.into());
    }
    if let Session::Person(person) = &session
        && !backend.person_stands(person)
    {
        return Err(AuthError::EndedSession.into());
    }
    let secret = secret_access_key(token, key);
    Ok((claim.with_secret(secret), Some(session)))
}

/// Makes credentials for a session. None if it could not be sealed, or if nobody would take it for a
/// token: neither happens.
pub(crate) fn seal(
    session: &Session,
    key: &SessionKey,
    nonce: [u8; NONCE_LEN],
) -> Option<Credentials> {
    let (version, mut sealed) = session.written()?;
    let cipher = cipher(key)?;
    let given = Nonce::assume_unique_for_key(nonce);
    cipher.seal_in_place_append_tag(given, Aad::from([version]), &mut sealed).ok()?;
    let session_token = URL_SAFE_NO_PAD.encode([&[version][..], &nonce[..], &sealed[..]].concat());
    (session_token.len() <= LONGEST).then(|| Credentials {
        access_key_id: access_key_id(&session_token),
        secret_access_key: secret_access_key(&session_token, key),
        session_token,
    })
}

/// What a token consists of.
#[derive(Clone)]
struct Sealed {
    version: u8,
    nonce: [u8; NONCE_LEN],
    sealed: Vec<u8>,
}

fn unpacked(token: &str) -> Option<Sealed> {
    if token.len() > LONGEST {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (version, rest) = bytes.split_first()?;
    let (nonce, sealed) = rest.split_first_chunk()?;
    Some(Sealed { version: *version, nonce: *nonce, sealed: sealed.to_vec() })
}

fn open(mut token: Sealed, key: &SessionKey) -> Option<Session> {
    let nonce = Nonce::assume_unique_for_key(token.nonce);
    let version = Aad::from([token.version]);
    let opened = cipher(key)?.open_in_place(nonce, version, &mut token.sealed).ok()?;
    Session::read(token.version, opened)
}

fn cipher(key: &SessionKey) -> Option<LessSafeKey> {
    let derived = hmac(&key.secret.0, b"session token");
    UnboundKey::new(&AES_256_GCM, &derived).ok().map(LessSafeKey::new)
}

/// Looks as AWS's do: `ASIA` and sixteen characters.
fn access_key_id(token: &str) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let hash = Sha256::digest(token);
    let letters = hash.iter().take(16).map(|byte| char::from(ALPHABET[usize::from(byte % 32)]));
    "ASIA".chars().chain(letters).collect()
}

/// Forty characters.
fn secret_access_key(token: &str, key: &SessionKey) -> String {
    let derived = hmac(&key.secret.0, b"secret access key");
    STANDARD.encode(&hmac(&derived, token.as_bytes())[..30])
}

#[cfg(test)]
mod tests {
    use fleet::registry::{CertificateId, RoleAliasName, SessionSecret, ThingName};
    use uuid::Uuid;

    use super::*;
    use crate::people::MAX_THINGS_BYTES;
    use crate::rights::{Rights, Role};

    fn key(secret: u8) -> SessionKey {
        SessionKey { secret: SessionSecret([secret; 32]), created: Timestamp(1) }
    }

    fn session() -> Session {
        Session::Device(Arc::new(RoleSession {
            certificate: CertificateId::new(&"0a".repeat(32)).unwrap(),
            alias: RoleAliasName::new(&"a".repeat(128)).unwrap(),
            generation: Uuid::from_u128(7),
            thing: Some(ThingName::new(&"t".repeat(128)).unwrap()),
            expires: Timestamp(u64::MAX),
        }))
    }

    /// Of as many bytes as there can be.
    fn person() -> Session {
        let things = vec!["\\".repeat(128); MAX_THINGS_BYTES / 128];
        Session::Person(Arc::new(PersonSession {
            provider: "p".repeat(128),
            issuer: "i".repeat(256),
            subject: "\"".repeat(255),
            name: Some("\u{1f4a1}".repeat(128)),
            session: "s".repeat(64),
            rights: Rights { role: Role::Operator, things },
            expires: Timestamp(u64::MAX),
        }))
    }

    fn opened(token: &str, key: &SessionKey) -> Option<Session> {
        open(unpacked(token)?, key)
    }

    #[test]
    fn what_was_sealed_is_opened_with_the_same_key() {
        for session in [session(), person()] {
            let made = seal(&session, &key(1), [9; NONCE_LEN]).unwrap();
            assert_eq!(opened(&made.session_token, &key(1)), Some(session));
            assert_eq!(opened(&made.session_token, &key(2)), None);
            assert_eq!((made.access_key_id.len(), made.secret_access_key.len()), (20, 40));
            assert!(made.access_key_id.starts_with("ASIA"));
            let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
            assert!(made.session_token.bytes().all(safe), "{}", made.session_token);
        }
    }

    #[test]
    fn a_token_of_a_device_is_none_of_a_person() {
        for (session, other) in [(session(), OF_PEOPLE), (person(), OF_DEVICES), (person(), 3)] {
            let made = seal(&session, &key(1), [9; NONCE_LEN]).unwrap();
            let mut bytes = URL_SAFE_NO_PAD.decode(&made.session_token).unwrap();
            bytes[0] = other;
            assert_eq!(opened(&URL_SAFE_NO_PAD.encode(bytes), &key(1)), None, "{session:?}");
        }
    }

    #[test]
    fn what_nobody_would_take_is_not_made() {
        let Session::Person(person) = person() else { panic!("no person") };
        let rights = Rights { things: vec!["t".repeat(LONGEST)], ..person.rights.clone() };
        let session = Session::Person(Arc::new(PersonSession { rights, ..(*person).clone() }));
        assert_eq!(seal(&session, &key(1), [9; NONCE_LEN]), None);
    }

    #[test]
    fn what_follows_from_a_token_is_its_own() {
        let made = seal(&session(), &key(1), [9; NONCE_LEN]).unwrap();
        assert_eq!(seal(&session(), &key(1), [9; NONCE_LEN]).unwrap(), made);
        for other in [
            seal(&session(), &key(1), [8; NONCE_LEN]).unwrap(),
            seal(&session(), &key(2), [9; NONCE_LEN]).unwrap(),
        ] {
            assert_ne!(other.session_token, made.session_token);
            assert_ne!(other.access_key_id, made.access_key_id);
            assert_ne!(other.secret_access_key, made.secret_access_key);
        }
        assert_ne!(secret_access_key(&made.session_token, &key(2)), made.secret_access_key);
    }

    #[test]
    fn a_token_that_was_changed_does_not_open() {
        let made = seal(&session(), &key(1), [9; NONCE_LEN]).unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(&made.session_token).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(opened(&URL_SAFE_NO_PAD.encode(changed), &key(1)), None, "{at}");
        }
        for cut in [0, 1, 12, 13, 28, 29, bytes.len() - 1] {
            assert_eq!(opened(&URL_SAFE_NO_PAD.encode(&bytes[..cut]), &key(1)), None, "{cut}");
        }
        let long = "A".repeat(LONGEST + 1);
        for text in ["", "x", "not base64 at all", &long, &format!("{}=", made.session_token)] {
            assert_eq!(opened(text, &key(1)), None, "{text}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let made = seal(&session(), &key(1), [9; NONCE_LEN]).unwrap();
        let shown = format!("{made:?}");
        assert!(shown.contains(&made.access_key_id));
        assert!(!shown.contains(&made.secret_access_key) && !shown.contains(&made.session_token));
    }
}
