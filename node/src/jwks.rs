//! The public keys of those who issue JSON Web Tokens, as they are now.
//!
//! Keys are fetched when they are first needed, again when they are older than ten minutes, and when a
//! token names one that is not known: at most once a minute. Who shows a token with a known key does not
//! wait for that. Keys that could not be fetched anew for an hour count no more, and then everybody waits.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use authorizer::jwt::{Claims, InvalidToken, Keys};
use serde::Deserialize;
use thiserror::Error;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::warn;

use crate::fetch;

/// How long keys are used without looking whether there are others.
const FRESH_FOR: Duration = Duration::from_secs(10 * 60);
/// How long they are used when others cannot be fetched.
const GOOD_FOR: Duration = Duration::from_secs(60 * 60);
/// How often is looked for others at most.
const TRIES_EVERY: Duration = Duration::from_secs(60);
/// How often while there are none.
const TRIES_AT_FIRST_EVERY: Duration = Duration::from_secs(5);
/// Where an issuer says where everything is, below its own address.
const DISCOVERY: &str = ".well-known/openid-configuration";

/// Where keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a file.
    File(PathBuf),
    /// At an address.
    Address(String),
    /// Where the issuer says, whose address this is.
    Discovered(String),
}

/// Why a token is not verified.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Unverified {
    /// It is not a good one.
    #[error(transparent)]
    Token(#[from] InvalidToken),
    /// There are no keys to check it with.
    #[error("the keys of the issuer cannot be had")]
    NoKeys,
}

/// The keys of an issuer.
pub struct KeySource {
    /// As the log calls the issuer.
    name: String,
    place: Place,
    /// Of CAs that are trusted for it, beside those of the machine.
    ca: Option<PathBuf>,
    known: ArcSwapOption<Known>,
    /// When keys were last looked for; held while they are.
    tried: Arc<Mutex<Option<Instant>>>,
}

struct Known {
    keys: Keys,
    since: Instant,
}

impl KeySource {
    /// Keys that are fetched when they are needed.
    pub fn new(name: String, place: Place, ca: Option<PathBuf>) -> Arc<Self> {
        Arc::new(Self { name, place, ca, known: ArcSwapOption::empty(), tried: Arc::default() })
    }

    /// Checks the signature of a token.
    ///
    /// # Errors
    /// When none of the keys has signed it, or there are none.
    pub async fn verify(self: &Arc<Self>, token: &str) -> Result<Claims, Unverified> {
        let known = match self.known.load_full().filter(|it| it.since.elapsed() < GOOD_FOR) {
            Some(known) => {
                if known.since.elapsed() >= FRESH_FOR {
                    self.look_meanwhile();
                }
                known
            }
            None => self.look(None).await?,
        };
        match Claims::verify(token, &known.keys) {
            Err(InvalidToken::UnknownKey) => {
                let others = self.look(Some(&known)).await?;
                Ok(Claims::verify(token, &others.keys)?)
            }
            verified => Ok(verified?),
        }
    }

    /// Looks for keys other than these, if that was not just done, and gives what there is then.
    async fn look(&self, than: Option<&Arc<Known>>) -> Result<Arc<Known>, Unverified> {
        let mut tried = self.tried.lock().await;
        let known = self.known.load_full();
        let is_fresh = known.as_ref().is_some_and(|it| match than {
            Some(than) => !Arc::ptr_eq(it, than),
            None => it.since.elapsed() < FRESH_FOR,
        });
        let every = if known.is_some() { TRIES_EVERY } else { TRIES_AT_FIRST_EVERY };
        if !is_fresh && tried.is_none_or(|at| at.elapsed() >= every) {
            self.try_to_fetch(&mut tried).await;
        }
        let known = self.known.load_full().filter(|it| it.since.elapsed() < GOOD_FOR);
        known.ok_or(Unverified::NoKeys)
    }

    /// Looks for other keys without anybody who waits for it, if that was not just done.
    fn look_meanwhile(self: &Arc<Self>) {
        // Held by somebody who looks already.
        let Ok(mut tried) = Arc::clone(&self.tried).try_lock_owned() else { return };
        if tried.is_none_or(|at| at.elapsed() >= TRIES_EVERY) {
            let source = Arc::clone(self);
            tokio::spawn(async move { source.try_to_fetch(&mut tried).await });
        }
    }

    async fn try_to_fetch(&self, tried: &mut Option<Instant>) {
        // Also when nobody waits for the end of it.
        *tried = Some(Instant::now());
        match self.fetch().await {
            Ok(keys) => self.known.store(Some(Arc::new(Known { keys, since: Instant::now() }))),
            Err(error) => {
                warn!(issuer = self.name, %error, "the keys of an issuer cannot be had: see its jwks");
            }
        }
        // Who has waited meanwhile does not begin anew.
        *tried = Some(Instant::now());
    }

    async fn fetch(&self) -> Result<Keys, String> {
        // Read anew each time: it may have been replaced.
        let client = match &self.ca {
            Some(file) => {
                let unusable = |error| format!("ca {}: {error}", file.display());
                let pem = read(file).await.map_err(unusable)?;
                Some(fetch::trusting(&pem).map_err(unusable)?)
            }
            None => None,
        };
        let get = async |address: &str| {
            fetch::get(client.as_ref(), address).await.map_err(|it| it.to_string())
        };
        let bytes = match &self.place {
            Place::Address(address) => get(address).await?,
            Place::Discovered(issuer) => {
                let address = discovery(issuer);
                let document =
                    get(&address).await.map_err(|error| format!("{address}: {error}"))?;
                get(&Metadata::parse(&document, issuer)?.jwks_uri).await?
            }
            Place::File(file) => read(file).await?,
        };
        Keys::parse(&bytes).map_err(|error| error.to_string())
    }
}

async fn read(file: &Path) -> Result<Vec<u8>, String> {
    let file = file.to_owned();
    let read = tokio::task::spawn_blocking(move || std::fs::read(file)).await;
    read.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// Where an issuer describes itself.
pub fn discovery(issuer: &str) -> String {
    format!("{}/{DISCOVERY}", issuer.trim_end_matches('/'))
}

/// What an issuer says of itself, as far as it is needed.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Metadata {
    issuer: String,
    /// Where its keys are.
    pub jwks_uri: String,
    /// Where people are sent to log in.
    pub authorization_endpoint: Option<String>,
    /// Where tokens are given for codes.
    pub token_endpoint: Option<String>,
    /// Where devices ask for codes that people enter elsewhere.
    pub device_authorization_endpoint: Option<String>,
}

impl Metadata {
    /// Reads what is said where an issuer describes itself.
    ///
    /// # Errors
    /// When it is not of that issuer, or leads from TLS to where there is none.
    pub fn parse(document: &[u8], issuer: &str) -> Result<Self, String> {
        let metadata: Self = serde_json::from_slice(document)
            .map_err(|error| format!("what the issuer says of itself cannot be read: {error}"))?;
        if metadata.issuer != issuer {
            let other = &metadata.issuer;
            return Err(format!("the issuer calls itself {other:?}, not {issuer:?}"));
        }
        match metadata.plain_address() {
            Some(plain) if issuer.starts_with("https://") => {
                Err(format!("the issuer leads to {plain:?}, which is not https"))
            }
            _ => Ok(metadata),
        }
    }

    /// The first of its addresses that is not https.
    fn plain_address(&self) -> Option<&str> {
        let others = [
            &self.authorization_endpoint,
            &self.token_endpoint,
            &self.device_authorization_endpoint,
        ];
        let mut all = others.into_iter().flatten().chain([&self.jwks_uri]);
        all.find(|address| !address.starts_with("https://")).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn an_issuer_describes_itself() {
        for issuer in ["https://id.example/realms/a", "https://id.example/realms/a/"] {
            let address = "https://id.example/realms/a/.well-known/openid-configuration";
            assert_eq!(discovery(issuer), address);
        }
        let good = || json!({ "issuer": "https://id", "jwks_uri": "https://id/keys", "x": 1 });
        let with = |name: &str, value: Value| {
            let mut document = good();
            document[name] = value;
            document
        };
        let parse =
            |document: &Value| Metadata::parse(document.to_string().as_bytes(), "https://id");
        assert_eq!(parse(&good()).unwrap().jwks_uri, "https://id/keys");
        for (document, said) in [
            (with("issuer", "https://id/".into()), "calls itself"),
            (with("issuer", Value::Null), "cannot be read"),
            (with("jwks_uri", Value::Null), "cannot be read"),
            (with("jwks_uri", "http://id/keys".into()), "not https"),
            (with("jwks_uri", "file:///etc/passwd".into()), "not https"),
            (with("token_endpoint", "http://id/token".into()), "not https"),
            (with("authorization_endpoint", "http://id/auth".into()), "not https"),
            (with("device_authorization_endpoint", "http://id/device".into()), "not https"),
            (json!([]), "cannot be read"),
        ] {
            let error = parse(&document).unwrap_err();
            assert!(error.contains(said), "{document}: {error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_keys_that_are_looked_for_while_there_are_good_ones() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("jwks.json");
        std::fs::write(&file, r#"{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}"#).unwrap();
        let source = KeySource::new("id".into(), Place::File(file.clone()), None);
        let known = Known { keys: Keys::default(), since: Instant::now() };
        source.known.store(Some(Arc::new(known)));
        let is_bad = |found: Result<Claims, Unverified>| matches!(found, Err(Unverified::Token(_)));
        tokio::time::advance(FRESH_FOR).await;
        let held = Arc::clone(&source.tried).lock_owned().await;
        let found = tokio::time::timeout(TRIES_EVERY, source.verify("no token")).await;
        assert!(is_bad(found.expect("waits")));
        drop(held);
        let before = source.known.load_full().unwrap();
        assert!(is_bad(source.verify("no token").await));
        // Held by who looks, until that has ended.
        drop(source.tried.lock().await);
        let now = source.known.load_full().unwrap();
        assert!(!Arc::ptr_eq(&before, &now), "no other keys were fetched");
        // Keys that are too old are no keys.
        std::fs::remove_file(&file).unwrap();
        tokio::time::advance(GOOD_FOR).await;
        assert_eq!(source.verify("no token").await.err(), Some(Unverified::NoKeys));
    }
}
