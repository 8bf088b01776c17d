//! The authorizer that is built in: JSON Web Tokens of issuers that the configuration names.
//!
//! Keys are fetched when they are first needed, again when they are older than [`FRESH_FOR`], and when a
//! token names one that is not known: at most once in [`TRIES_EVERY`]. Who shows a token with a known
//! key does not wait for that. Keys that could not be fetched anew for [`GOOD_FOR`] count no more, and
//! then everybody waits.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use authorizer::jwt::{Claims, InvalidToken, Issuer, Keys};
use authorizer::{Grant, Refusal};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::warn;

use super::Failed;
use crate::config::JwtIssuer;
use crate::fetch;

/// How long keys are used without looking whether there are others.
const FRESH_FOR: Duration = Duration::from_secs(10 * 60);
/// How long they are used when others cannot be fetched.
const GOOD_FOR: Duration = Duration::from_secs(60 * 60);
/// How often is looked for others at most.
const TRIES_EVERY: Duration = Duration::from_secs(60);
/// How often while there are none.
const TRIES_AT_FIRST_EVERY: Duration = Duration::from_secs(5);

/// The issuers of the configuration.
#[derive(Default)]
pub(super) struct Issuers(Vec<Arc<Served>>);

struct Served {
    name: String,
    issuer: Issuer,
    /// An address or a file.
    jwks: String,
    /// Where its keys are read from; they are fetched otherwise.
    file: Option<PathBuf>,
    known: ArcSwapOption<Known>,
    /// When keys were last looked for; held while they are.
    tried: Arc<Mutex<Option<Instant>>>,
}

struct Known {
    keys: Keys,
    since: Instant,
}

impl Issuers {
    /// The issuers whose policy is one, as the check of the configuration has made sure.
    pub(super) fn new(config: &[JwtIssuer]) -> Self {
        let served = config.iter().filter_map(|it| {
            let document = policy::Document::parse(&it.policy).ok()?;
            Some(Arc::new(Served {
                name: it.name.clone(),
                issuer: Issuer {
                    issuer: it.issuer.clone(),
                    audience: it.audience.clone(),
                    principal_claim: it.principal_claim.clone(),
                    document: Arc::new(document),
                    text: it.policy.clone(),
                },
                jwks: it.jwks.clone(),
                file: it.jwks_file().map(Path::to_owned),
                known: ArcSwapOption::empty(),
                tried: Arc::default(),
            }))
        });
        Self(served.collect())
    }

    /// What a token gives now, by the issuer with this name.
    pub(super) async fn grant(
        &self,
        name: &str,
        token: Option<&str>,
        now_secs: u64,
    ) -> Result<Grant, Failed> {
        let served = self.0.iter().find(|it| it.name == name).ok_or(Refusal::NotConfigured)?;
        let token = token.ok_or(Refusal::NoToken)?;
        let claims = served.verify(token).await?;
        claims.grant(&served.issuer, now_secs).map_err(invalid)
    }
}

fn invalid(error: InvalidToken) -> Failed {
    Failed { refusal: Refusal::InvalidToken, detail: error.to_string() }
}

impl Served {
    async fn verify(self: &Arc<Self>, token: &str) -> Result<Claims, Failed> {
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
                Claims::verify(token, &others.keys).map_err(invalid)
            }
            verified => verified.map_err(invalid),
        }
    }

    /// Looks for keys other than these, if that was not just done, and gives what there is then.
    async fn look(&self, than: Option<&Arc<Known>>) -> Result<Arc<Known>, Failed> {
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
        known.ok_or(Refusal::NoKeys.into())
    }

    /// Looks for other keys without anybody who waits for it, if that was not just done.
    fn look_meanwhile(self: &Arc<Self>) {
        // Held by somebody who looks already.
        let Ok(mut tried) = Arc::clone(&self.tried).try_lock_owned() else { return };
        if tried.is_none_or(|at| at.elapsed() >= TRIES_EVERY) {
            let served = Arc::clone(self);
            tokio::spawn(async move { served.try_to_fetch(&mut tried).await });
        }
    }

    async fn try_to_fetch(&self, tried: &mut Option<Instant>) {
        *tried = Some(Instant::now());
        match self.fetch().await {
            Ok(keys) => self.known.store(Some(Arc::new(Known { keys, since: Instant::now() }))),
            Err(error) => {
                warn!(issuer = self.name, %error, "the keys of an issuer cannot be had: see its jwks");
            }
        }
    }

    async fn fetch(&self) -> Result<Keys, String> {
        let bytes = match &self.file {
            None => fetch::get(&self.jwks).await.map_err(|error| error.to_string())?,
            Some(file) => {
                let file = file.clone();
                let read = tokio::task::spawn_blocking(move || std::fs::read(file)).await;
                read.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?
            }
        };
        Keys::parse(&bytes).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An issuer whose keys are in a file, and were fetched just now.
    fn served(file: &Path) -> Arc<Served> {
        let policy = r#"{"Version": "2012-10-17", "Statement":
            {"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"}}"#;
        let served = Served {
            name: "id".into(),
            issuer: Issuer {
                issuer: "https://id.example/".into(),
                audience: "skein".into(),
                principal_claim: "sub".into(),
                document: Arc::new(policy::Document::parse(policy).unwrap()),
                text: policy.into(),
            },
            jwks: String::new(),
            file: Some(file.to_owned()),
            known: ArcSwapOption::empty(),
            tried: Arc::default(),
        };
        let known = Known { keys: Keys::default(), since: Instant::now() };
        served.known.store(Some(Arc::new(known)));
        Arc::new(served)
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_keys_that_are_looked_for_while_there_are_good_ones() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("jwks.json");
        std::fs::write(&file, r#"{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}"#).unwrap();
        let served = served(&file);
        let refused = |found: Result<Claims, Failed>| found.err().map(|it| it.refusal);
        tokio::time::advance(FRESH_FOR).await;
        let held = Arc::clone(&served.tried).lock_owned().await;
        let found = tokio::time::timeout(TRIES_EVERY, served.verify("no token")).await;
        assert_eq!(refused(found.expect("waits")), Some(Refusal::InvalidToken));
        drop(held);
        let before = served.known.load_full().unwrap();
        assert_eq!(refused(served.verify("no token").await), Some(Refusal::InvalidToken));
        let mut looks = 0;
        while Arc::ptr_eq(&before, &served.known.load_full().unwrap()) {
            assert!(looks < 5000, "no other keys were fetched");
            looks += 1;
            std::thread::sleep(Duration::from_millis(1));
            tokio::task::yield_now().await;
        }
        // Keys that are too old are no keys.
        std::fs::remove_file(&file).unwrap();
        tokio::time::advance(GOOD_FOR).await;
        assert_eq!(refused(served.verify("no token").await), Some(Refusal::NoKeys));
    }
}
