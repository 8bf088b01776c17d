//! Temporary credentials: who signs with them is sealed in their session token, with a key that all
//! nodes have. So any node recognises what another has given, and none keeps anything.
//!
//! A token is a version, a nonce and the sealed [`RoleSession`], in base64 that URLs take as it is. The
//! id of the access key and its secret follow from the token, the secret with another key. What a
//! session may do, and whether it still stands, is decided where it is used ([`Backend::authorize`]).

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use fleet::registry::{RoleSession, SessionKey, Timestamp};
use sha2::{Digest, Sha256};

use crate::sigv4::{AuthError, Claim, hmac};
use crate::{Backend, Error};

/// The version of tokens.
const VERSION: u8 = 1;
/// A longer text is no token.
const LONGEST: usize = 1024;

/// What a device signs requests with until they expire.
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
) -> Result<(Claim<'v>, Option<RoleSession>), Error> {
    let Some(token) = claim.session_token() else { return Ok((claim, None)) };
    let sealed = unpacked(token).ok_or(AuthError::Token)?;
    if access_key_id(token) != claim.access_key() {
        return Err(AuthError::Token.into());
    }
    let keys = backend
        .registry_read(move |registry| registry.opening_keys(now).cloned().collect::<Vec<_>>())
        .await?;
    let opened = keys.iter().find_map(|key| Some((open(sealed.clone(), key)?, key)));
    let (session, key) = opened.ok_or(AuthError::Token)?;
    if now >= session.expires {
        return Err(AuthError::ExpiredToken.into());
    }
    let secret = secret_access_key(token, key);
    Ok((claim.with_secret(secret), Some(session)))
}

/// Makes credentials for a session. None if it could not be sealed, which does not happen.
pub(crate) fn seal(
    session: &RoleSession,
    key: &SessionKey,
    nonce: [u8; NONCE_LEN],
) -> Option<Credentials> {
    let mut sealed = serde_json::to_vec(session).ok()?;
    let cipher = cipher(key)?;
    let given = Nonce::assume_unique_for_key(nonce);
    cipher.seal_in_place_append_tag(given, Aad::from([VERSION]), &mut sealed).ok()?;
    let session_token = URL_SAFE_NO_PAD.encode([&[VERSION][..], &nonce[..], &sealed[..]].concat());
    Some(Credentials {
        access_key_id: access_key_id(&session_token),
        secret_access_key: secret_access_key(&session_token, key),
        session_token,
    })
}

/// The nonce of a token, and what is sealed.
fn unpacked(token: &str) -> Option<([u8; NONCE_LEN], Vec<u8>)> {
    if token.len() > LONGEST {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (nonce, sealed) = bytes.strip_prefix(&[VERSION])?.split_first_chunk()?;
    Some((*nonce, sealed.to_vec()))
}

fn open((nonce, mut sealed): ([u8; NONCE_LEN], Vec<u8>), key: &SessionKey) -> Option<RoleSession> {
    let nonce = Nonce::assume_unique_for_key(nonce);
    let opened = cipher(key)?.open_in_place(nonce, Aad::from([VERSION]), &mut sealed).ok()?;
    serde_json::from_slice(opened).ok()
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

    fn key(secret: u8) -> SessionKey {
        SessionKey { secret: SessionSecret([secret; 32]), created: Timestamp(1) }
    }

    fn session() -> RoleSession {
        RoleSession {
            certificate: CertificateId::new(&"0a".repeat(32)).unwrap(),
            alias: RoleAliasName::new(&"a".repeat(128)).unwrap(),
            generation: Uuid::from_u128(7),
            thing: Some(ThingName::new(&"t".repeat(128)).unwrap()),
            expires: Timestamp(u64::MAX),
        }
    }

    fn opened(token: &str, key: &SessionKey) -> Option<RoleSession> {
        open(unpacked(token)?, key)
    }

    #[test]
    fn what_was_sealed_is_opened_with_the_same_key() {
        let made = seal(&session(), &key(1), [9; NONCE_LEN]).unwrap();
        assert_eq!(opened(&made.session_token, &key(1)), Some(session()));
        assert_eq!(opened(&made.session_token, &key(2)), None);
        assert_eq!((made.access_key_id.len(), made.secret_access_key.len()), (20, 40));
        assert!(made.access_key_id.starts_with("ASIA"));
        let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        assert!(made.session_token.bytes().all(safe), "{}", made.session_token);
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
