//! Custom authorizers at work: which one is asked about a client, what it says, and until when.
//!
//! A connection keeps what its client has presented if it is to ask again with that. Everything that fails keeps the
//! client out, and is counted and told.
//!
//! Bounds: so many questions at once (`AT_ONCE`), one more is refused; as many about connections that
//! are open already, which wait for each other and for nobody else. What is presented has at most
//! [`authorizer::MAX_BYTES`]; answers for later HTTP requests are `CACHED` at most, beyond that
//! nothing is added until some have expired.

mod jwt;

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use api::authorizers::JWT;
use api::backend::{AuthorizedCaller, NoAnswer};
use arc_swap::{ArcSwap, Guard};
use authorizer::{Answer, Grant, MAX_BYTES, Presented, Refusal, SigningKey, Token, question};
use bytes::Bytes;
use fleet::registry::{Authorizer, AuthorizerName, AuthorizerStatus};
use fleet::shard::Admitted;
use hashbrown::HashMap;
use parking_lot::Mutex;
use policy::{Compiled, Variables};
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, SemaphorePermit};
use uuid::Uuid;

use crate::clock::{Clock, now_ms};
use crate::config::JwtIssuer;
use crate::denial;
use crate::fetch;
use crate::identity::read_registry;
use crate::metrics;
use crate::shared::Shared;

/// Questions that are asked at once about newcomers, and as many about connections that are open.
const AT_ONCE: usize = 256;
/// How long a question about an open connection waits for others at most.
const WAITS: Duration = Duration::from_secs(30);
/// When a connection about which nobody could be asked is asked about again, in milliseconds: not all
/// at the same time.
const AGAIN_AFTER_MS: RangeInclusive<u64> = 30_000..=60_000;
/// Answers that are kept for later HTTP requests.
const CACHED: usize = 1024;
/// How often a connection looks at the time at least: until then a timer remembers it, also when it
/// has gone.
const LOOKS_EVERY: Duration = Duration::from_secs(60);

/// What all cores share.
pub struct Authorizers {
    questions: Semaphore,
    /// Those about open connections: strangers take no place from them.
    renewals: Semaphore,
    cache: Mutex<HashMap<[u8; 32], Cached>>,
    issuers: jwt::Issuers,
}

impl Authorizers {
    /// With these issuers of tokens.
    pub fn new(issuers: &[JwtIssuer]) -> Self {
        Self {
            questions: Semaphore::new(AT_ONCE),
            renewals: Semaphore::new(AT_ONCE),
            cache: Mutex::default(),
            issuers: jwt::Issuers::new(issuers),
        }
    }

    async fn place(&self, turn: Turn) -> Result<SemaphorePermit<'_>, Refusal> {
        match turn {
            Turn::Now => self.questions.try_acquire().ok(),
            Turn::Within(wait) => {
                let place = tokio::time::timeout(wait, self.renewals.acquire()).await;
                place.ok().and_then(Result::ok)
            }
        }
        .ok_or(Refusal::Busy)
    }
}

/// When a question gets its place among those that are asked at once.
#[derive(Clone, Copy)]
enum Turn {
    /// Now or not at all: anybody may cause it.
    Now,
    /// When others about open connections have been asked, if that is so soon.
    Within(Duration),
}

struct Cached {
    grant: Arc<Grant>,
    until_ms: u64,
}

/// Somebody whom a custom authorizer has let in, on a connection.
pub struct Authorized {
    principal_id: String,
    authorizer: AuthorizerName,
    generation: Uuid,
    /// To ask again with, if that is wanted.
    presented: Option<Presented>,
    connection_id: String,
    standing: ArcSwap<Standing>,
}

/// Never what was presented.
impl fmt::Debug for Authorized {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorized").field("authorizer", &self.authorizer).finish_non_exhaustive()
    }
}

/// What the last answer gives a connection.
pub struct Standing {
    /// Its policies.
    pub grant: Grant,
    /// Set when the authorizer, asked again, did not let it stay.
    pub refused: Option<Refusal>,
    disconnect_at_ms: u64,
    refresh_at_ms: Option<u64>,
}

/// What a connection does when it looks at the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It looks again after so long.
    Wait(Duration),
    /// The authorizer is asked again.
    Refresh,
    /// Its time is up.
    End,
}

impl Standing {
    fn new(grant: Grant, now_ms: u64) -> Self {
        let after = |seconds: u64| now_ms.saturating_add(seconds.saturating_mul(1000));
        Self {
            disconnect_at_ms: after(grant.disconnect_after_secs),
            refresh_at_ms: grant.refresh_after_secs.map(after),
            refused: None,
            grant,
        }
    }

    /// What a connection has after it was asked about again. Who was let in may stay for now when
    /// nobody could be asked, but no longer than the first answer said.
    fn renewed(&self, renewed: Result<Grant, Refusal>, now_ms: u64) -> Self {
        let before = self.disconnect_at_ms;
        match renewed {
            Ok(grant) => {
                let renewed = Self::new(grant, now_ms);
                Self { disconnect_at_ms: before.min(renewed.disconnect_at_ms), ..renewed }
            }
            Err(refusal) => {
                let is_open = refusal.is_undecided();
                Self {
                    grant: self.grant.clone(),
                    refused: (!is_open).then_some(refusal),
                    disconnect_at_ms: before,
                    refresh_at_ms: is_open
                        .then(|| now_ms.saturating_add(rand::random_range(AGAIN_AFTER_MS))),
                }
            }
        }
    }

    fn next_step(&self, now_ms: u64) -> Step {
        if now_ms >= self.disconnect_at_ms {
            return Step::End;
        }
        let due = self.refresh_at_ms.unwrap_or(u64::MAX);
        if now_ms >= due {
            return Step::Refresh;
        }
        let wait = due.min(self.disconnect_at_ms) - now_ms;
        Step::Wait(Duration::from_millis(wait).min(LOOKS_EVERY))
    }
}

impl Authorized {
    /// Who the authorizer says that it is.
    pub fn principal_id(&self) -> &str {
        &self.principal_id
    }

    /// The authorizer that has let it in, and which one of that name.
    pub fn authorizer(&self) -> (&AuthorizerName, Uuid) {
        (&self.authorizer, self.generation)
    }

    /// The same, as it is stored with what is published later.
    pub fn admitted(&self) -> Admitted {
        Admitted {
            authorizer: self.authorizer.to_string(),
            generation: Bytes::copy_from_slice(self.generation.as_bytes()),
        }
    }

    /// What the last answer gives it.
    pub fn standing(&self) -> Guard<Arc<Standing>> {
        self.standing.load()
    }

    /// What to do now.
    pub fn next_step(&self, clock: Clock) -> Step {
        self.standing.load().next_step(clock.epoch_ms)
    }

    /// Asks again, and says whether that has decided anything. Who does not get the same answer about
    /// who it is, may not stay; when nobody could be asked, it is asked again a little later. A
    /// connection ends when the first answer said, or earlier if a later one says so.
    pub async fn renew(&self, shared: &Shared) -> bool {
        let Some(presented) = &self.presented else { return false };
        let renewed = self.ask_again(shared, presented).await;
        let is_decided = renewed.as_ref().err().is_none_or(|refusal| !refusal.is_undecided());
        let standing = self.standing.load().renewed(renewed, now_ms());
        self.standing.store(Arc::new(standing));
        is_decided
    }

    async fn ask_again(&self, shared: &Shared, presented: &Presented) -> Result<Grant, Refusal> {
        let (name, generation) = (self.authorizer.clone(), self.generation);
        let found = read_registry(shared, move |registry| {
            let stands = registry.authorizer_stands(&name, generation);
            registry.authorizer(name.as_str()).filter(|_| stands).cloned()
        });
        let found = found
            .await
            .ok_or(Refusal::Unavailable)
            .and_then(|found| found.ok_or(Refusal::Withdrawn));
        let decided = match found {
            Ok(found) => {
                let left_ms = self.standing.load().disconnect_at_ms.saturating_sub(now_ms());
                let turn = Turn::Within(WAITS.min(Duration::from_millis(left_ms)));
                decide(shared, &found, presented, &self.connection_id, turn).await
            }
            Err(refusal) => Err(refusal.into()),
        };
        let decided = decided.and_then(|grant| match grant.principal_id == self.principal_id {
            true => Ok(grant),
            false => Err(Failed {
                refusal: Refusal::InvalidAnswer,
                detail: "principalId: is another one than before".into(),
            }),
        });
        told(decided, Some(self.authorizer.as_str()), true)
    }
}

/// Why there is no grant.
struct Failed {
    refusal: Refusal,
    /// Empty when the refusal says everything.
    detail: String,
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, detail: String::new() }
    }
}

impl From<NoAnswer> for Failed {
    fn from(NoAnswer { refusal, detail }: NoAnswer) -> Self {
        Self { refusal, detail }
    }
}

/// Counts what was decided, and tells of what keeps a client out that is not let in yet, or is.
fn told<T>(
    decided: Result<T, Failed>,
    authorizer: Option<&str>,
    is_in: bool,
) -> Result<T, Refusal> {
    match decided {
        Ok(granted) => {
            metrics::authorizer_asked("allowed");
            Ok(granted)
        }
        Err(Failed { refusal, detail }) => {
            metrics::authorizer_asked(refusal.label());
            let now = Clock::read().now;
            let outcome = match is_in && refusal.is_undecided() {
                true => "not asked again, the connection stays for now",
                false => "not let in",
            };
            denial::tell_unauthorized(authorizer, refusal, &detail, outcome, now);
            Err(refusal)
        }
    }
}

/// Lets a client in that opens a connection; none when no authorizer is meant.
///
/// # Errors
/// Why the client is kept out.
pub async fn admit(
    shared: &Shared,
    presented: Presented,
    only_if_named: bool,
) -> Result<Option<Authorized>, Refusal> {
    let authorizer = match find(shared, &presented, only_if_named).await {
        Ok(Some(authorizer)) => authorizer,
        Ok(None) => return Ok(None),
        Err((refusal, name)) => return told(Err(refusal.into()), name.as_deref(), false),
    };
    let connection_id = Uuid::new_v4().to_string();
    let decided = decide(shared, &authorizer, &presented, &connection_id, Turn::Now).await;
    let grant = told(decided, Some(authorizer.name.as_str()), false)?;
    Ok(Some(Authorized {
        principal_id: grant.principal_id.clone(),
        authorizer: authorizer.name,
        generation: authorizer.generation,
        presented: grant.refresh_after_secs.is_some().then_some(presented),
        connection_id,
        standing: ArcSwap::from_pointee(Standing::new(grant, now_ms())),
    }))
}

/// Who sends an HTTP request, and what that one may do; none when no authorizer is meant.
///
/// # Errors
/// Why the client is kept out.
pub async fn caller(
    shared: &Shared,
    presented: Presented,
    source_ip: Option<IpAddr>,
) -> Result<Option<AuthorizedCaller>, Refusal> {
    let authorizer = match find(shared, &presented, false).await {
        Ok(Some(authorizer)) => authorizer,
        Ok(None) => return Ok(None),
        Err((refusal, name)) => return told(Err(refusal.into()), name.as_deref(), false),
    };
    let decided = cached_or_decided(shared, &authorizer, &presented).await;
    let grant = told(decided, Some(authorizer.name.as_str()), false)?;
    let others = grant.variables.clone();
    let asked = presented.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
    let domain_name = asked.and_then(policy::domain_name);
    let variables = Variables { source_ip, domain_name, others, ..Variables::default() };
    let policy = Arc::new(Compiled::new(&grant.documents, &shared.arns, &variables));
    let (authorizer, principal_id) = (authorizer.name.to_string(), grant.principal_id.clone());
    Ok(Some(AuthorizedCaller { policy, authorizer, principal_id }))
}

/// Asks an authorizer, whatever its status.
pub async fn test(
    shared: &Shared,
    authorizer: &Authorizer,
    presented: &Presented,
) -> Result<Answer, NoAnswer> {
    let id = Uuid::new_v4().to_string();
    let asked = async {
        let token = verified(authorizer, presented)?;
        ask(shared, authorizer, presented, &token, &id, Turn::Now).await
    };
    asked.await.map_err(|Failed { refusal, detail }| NoAnswer { refusal, detail })
}

/// The authorizer that a client means: the one that it names, or the default.
async fn find(
    shared: &Shared,
    presented: &Presented,
    only_if_named: bool,
) -> Result<Option<Authorizer>, (Refusal, Option<String>)> {
    if presented.bytes() > MAX_BYTES {
        return Err((Refusal::Unreadable, None));
    }
    let name = presented.authorizer().map_err(|refusal| (refusal, None))?;
    if name.is_none() && only_if_named {
        return Ok(None);
    }
    let asked = name.clone();
    let found = read_registry(shared, move |registry| match asked {
        None => Ok(registry.default_authorizer().cloned()),
        Some(name) => registry.authorizer(&name).cloned().map(Some).ok_or(Refusal::NotFound),
    });
    found.await.unwrap_or(Err(Refusal::Unavailable)).map_err(|refusal| (refusal, name))
}

/// What an active authorizer gives a client.
async fn decide(
    shared: &Shared,
    authorizer: &Authorizer,
    presented: &Presented,
    connection_id: &str,
    turn: Turn,
) -> Result<Grant, Failed> {
    if authorizer.status != AuthorizerStatus::Active {
        return Err(Refusal::Inactive.into());
    }
    let token = verified(authorizer, presented)?;
    granted(ask(shared, authorizer, presented, &token, connection_id, turn).await?)
}

fn granted(answer: Answer) -> Result<Grant, Failed> {
    match answer {
        // Nobody reads the texts here, and connections last.
        Answer::Granted(grant) => Ok(Grant { texts: Vec::new(), ..grant }),
        Answer::NotAuthenticated => Err(Refusal::NotAuthenticated.into()),
    }
}

/// As [`decide`], for a request that is like an earlier one without asking, if the authorizer wants
/// that.
async fn cached_or_decided(
    shared: &Shared,
    authorizer: &Authorizer,
    presented: &Presented,
) -> Result<Arc<Grant>, Failed> {
    let id = Uuid::new_v4().to_string();
    if !authorizer.caching_for_http || authorizer.status != AuthorizerStatus::Active {
        return Ok(Arc::new(decide(shared, authorizer, presented, &id, Turn::Now).await?));
    }
    // Not before its signature is checked, each time.
    let token = verified(authorizer, presented)?;
    let key = cache_key(authorizer, &question(presented, &token, "").to_string());
    let cache = &shared.authorizers.cache;
    let now = now_ms();
    let known = cache.lock().get(&key).filter(|it| now < it.until_ms).map(|it| it.grant.clone());
    if let Some(grant) = known {
        return Ok(grant);
    }
    let grant = granted(ask(shared, authorizer, presented, &token, &id, Turn::Now).await?)?;
    let after = grant.refresh_after_secs.unwrap_or(grant.disconnect_after_secs);
    let until_ms = now_ms().saturating_add(after.min(grant.disconnect_after_secs) * 1000);
    let grant = Arc::new(grant);
    let mut cache = cache.lock();
    if cache.len() >= CACHED {
        cache.retain(|_, it| now < it.until_ms);
    }
    if cache.len() < CACHED {
        cache.insert(key, Cached { grant: Arc::clone(&grant), until_ms });
    }
    Ok(grant)
}

/// Another one after each change of the authorizer.
fn cache_key(authorizer: &Authorizer, question: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(authorizer.generation.as_bytes());
    hash.update(authorizer.modified.0.to_be_bytes());
    hash.update(question);
    hash.finalize().into()
}

/// The token that a client presents, its signature checked where that is wanted.
fn verified(authorizer: &Authorizer, presented: &Presented) -> Result<Token, Refusal> {
    let keys = authorizer.signing_keys.values().filter_map(|pem| SigningKey::from_pem(pem).ok());
    let keys: Option<Vec<SigningKey>> = (!authorizer.signing_disabled).then(|| keys.collect());
    presented.token(authorizer.token_key.as_deref(), keys.as_deref())
}

/// Asks an authorizer about a client whose token has been checked.
async fn ask(
    shared: &Shared,
    authorizer: &Authorizer,
    presented: &Presented,
    token: &Token,
    connection_id: &str,
    turn: Turn,
) -> Result<Answer, Failed> {
    if let Some(issuer) = authorizer.function.strip_prefix(JWT) {
        let (issuers, token) = (&shared.authorizers.issuers, presented.web_token(token));
        return issuers.grant(issuer, token, now_ms() / 1000).await.map(Answer::Granted);
    }
    let _place = shared.authorizers.place(turn).await?;
    let question = question(presented, token, connection_id).to_string();
    let answered = fetch::post(&authorizer.function, question).await.map_err(|error| {
        let refusal = match error {
            fetch::NoAnswer::Timeout => Refusal::Timeout,
            fetch::NoAnswer::TooLarge => Refusal::InvalidAnswer,
            fetch::NoAnswer::Status(_) | fetch::NoAnswer::Failed(_) => Refusal::Failed,
        };
        Failed { refusal, detail: error.to_string() }
    })?;
    Answer::parse(&answered)
        .map_err(|error| Failed { refusal: Refusal::InvalidAnswer, detail: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(disconnect_after_secs: u64, refresh_after_secs: Option<u64>) -> Grant {
        Grant {
            principal_id: "p".into(),
            documents: Vec::new(),
            texts: Vec::new(),
            variables: Default::default(),
            disconnect_after_secs,
            refresh_after_secs,
        }
    }

    #[test]
    fn a_connection_asks_again_and_ends_when_it_was_told() {
        let wait = |ms| Step::Wait(Duration::from_millis(ms));
        for (disconnect, refresh, now_ms, step) in [
            (300, Some(300), 0, wait(60_000)),
            (300, Some(300), 299_999, wait(1)),
            (300, Some(300), 300_000, Step::End),
            (600, Some(300), 300_000, Step::Refresh),
            (600, Some(300), 600_000, Step::End),
            (600, None, 300_000, wait(60_000)),
            (600, None, 599_000, wait(1_000)),
            (10, None, 9_000, wait(1_000)),
            (u64::MAX, None, 9_000, wait(60_000)),
        ] {
            let standing = Standing::new(grant(disconnect, refresh), 0);
            assert_eq!(standing.next_step(now_ms), step, "{disconnect} {refresh:?} {now_ms}");
        }
    }
    #[test]
    fn who_was_let_in_stays_while_nobody_can_be_asked() {
        let standing = Standing::new(grant(600, Some(300)), 0);
        for refusal in Refusal::ALL {
            let renewed = standing.renewed(Err(refusal), 300_000);
            match refusal {
                Refusal::Busy | Refusal::Timeout | Refusal::Failed | Refusal::Unavailable => {
                    assert_eq!(renewed.refused, None, "{refusal}");
                    assert!(AGAIN_AFTER_MS.contains(&(renewed.refresh_at_ms.unwrap() - 300_000)));
                    assert_eq!(renewed.next_step(360_000), Step::Refresh, "{refusal}");
                }
                _ => {
                    assert_eq!(renewed.refused, Some(refusal));
                    assert_eq!(renewed.refresh_at_ms, None, "{refusal}");
                }
            }
            assert_eq!(renewed.next_step(600_000), Step::End, "{refusal}");
        }
        let renewed = standing.renewed(Ok(grant(600, Some(300))), 300_000);
        assert_eq!(renewed.next_step(599_999), Step::Wait(Duration::from_millis(1)));
        assert_eq!(renewed.next_step(600_000), Step::End, "not later than the first answer said");
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_take_no_place_from_connections_that_are_open() {
        let authorizers = Authorizers::new(&[]);
        let wait = Turn::Within(WAITS);
        let _strangers = authorizers.questions.acquire_many(AT_ONCE as u32).await.unwrap();
        assert_eq!(authorizers.place(Turn::Now).await.unwrap_err(), Refusal::Busy);
        drop(authorizers.place(wait).await.unwrap());
        // Of their own kind they wait for each other, though not for ever.
        let all = authorizers.renewals.acquire_many(AT_ONCE as u32).await.unwrap();
        assert_eq!(authorizers.place(wait).await.unwrap_err(), Refusal::Busy);
        let (place, ()) = tokio::join!(authorizers.place(wait), async { drop(all) });
        assert!(place.is_ok());
    }
    #[test]
    fn what_is_granted_keeps_no_texts() {
        let answer = Answer::Granted(Grant { texts: vec!["{}".into()], ..grant(600, None) });
        assert_eq!(granted(answer).ok().map(|it| it.texts), Some(Vec::new()));
        let refusal = granted(Answer::NotAuthenticated).err().map(|it| it.refusal);
        assert_eq!(refusal, Some(Refusal::NotAuthenticated));
    }
}
