//! What is recorded of changes: who wanted which, what it was before and after, and what came of it.
//!
//! An [`Attempt`] begins before a change, sees what is proposed through its [`Watch`], and is recorded
//! when its end is known; one that is dropped before is recorded as `unknown`. Who keeps the records is
//! at the other end of the [`Ledger`]. No secret gets into one: they hold what a Describe answers, and
//! codes of errors, never their texts, which may quote what was sent.

mod subject;
mod watch;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use fleet::registry::{CertificateId, Command, Registry, Timestamp};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use crate::arn::Arns;
use crate::backend::Unavailable;
use crate::people::PersonSession;

pub use watch::{Seen, Watch};

/// Records on their way to who keeps them.
const WAITING: usize = 1024;
/// Characters of a name that somebody chose and that may be no name.
const NAME: usize = 512;

/// Who wants a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Actor {
    /// The holder of an access key.
    AccessKey {
        /// Its public half.
        id: String,
        /// `admin`, `operator` or `read-only`.
        role: &'static str,
    },
    /// Somebody who has logged in with an OpenID Connect provider.
    Person {
        /// The issuer that has said who it is.
        issuer: String,
        /// Whom the issuer means.
        subject: String,
        /// What people call that person.
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// `admin`, `operator` or `read-only`.
        role: &'static str,
        /// What the person calls the session.
        session: String,
    },
    /// A device with temporary credentials.
    TemporaryCredentials {
        /// The certificate that they were given for.
        certificate: String,
        /// The role alias that they were given by.
        role_alias: String,
    },
    /// A device.
    Device {
        /// The certificate that it showed.
        certificate: String,
        /// Its client id, on a connection.
        #[serde(skip_serializing_if = "Option::is_none")]
        client_id: Option<String>,
        /// How it came to ask.
        by: Way,
    },
    /// Somebody whom a custom authorizer has let in.
    Authorized {
        /// The authorizer.
        authorizer: String,
        /// Whom it takes the client for.
        principal_id: String,
    },
    /// Whoever reaches the admin listener.
    AdminPort,
    /// The node itself.
    Node,
}

impl Actor {
    /// Somebody with a session.
    pub fn of_person(session: &PersonSession) -> Self {
        Self::Person {
            issuer: session.issuer.clone(),
            subject: session.subject.clone(),
            name: session.name.clone(),
            role: session.rights.role.as_str(),
            session: session.session.clone(),
        }
    }
}

/// How a device comes to change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// HTTPS with its certificate.
    Https,
    /// Requests by MQTT, with a claim.
    FleetProvisioning,
    /// Its certificate has introduced itself.
    JustInTimeRegistration,
    /// The template of its authority was carried out.
    JustInTimeProvisioning,
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    Done,
    /// Who asked may not.
    Denied,
    /// It makes no sense, or not now: nothing has changed.
    Rejected,
    /// A fault of the node: nothing is said about what has changed.
    Failed,
    /// Nobody knows: no answer came in time, or whoever asked did not wait for it.
    Unknown,
    /// The node has proposed it and looks again at what has come of it.
    Proposed,
}

impl Outcome {
    /// What the status of an HTTP answer says.
    pub fn of_status(status: u16) -> Self {
        match status {
            ..400 => Self::Done,
            401 | 403 => Self::Denied,
            400..500 => Self::Rejected,
            503 | 504 => Self::Unknown,
            _ => Self::Failed,
        }
    }
}

/// A resource before and after.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Its ARN, or what it is where it has none.
    pub resource: String,
    /// As its Describe answered before; `null` where there was none.
    pub before: Value,
    /// The same afterwards; nothing where nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// What is recorded of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// When it ended.
    #[serde(skip)]
    pub at: Timestamp,
    /// Tells it from all others; the one that its answer has.
    pub request: String,
    /// Who.
    pub actor: Actor,
    /// From where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// What: as AWS calls it, where it does.
    pub operation: String,
    /// The ARN of what it is about, as far as that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// What came of it.
    pub outcome: Outcome,
    /// The code that who asked was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What has changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
}

impl Entry {
    /// The same without what has changed.
    pub fn without_changes(&self) -> Self {
        Self {
            at: self.at,
            request: self.request.clone(),
            actor: self.actor.clone(),
            source: self.source,
            operation: self.operation.clone(),
            resource: self.resource.clone(),
            outcome: self.outcome,
            error: self.error.clone(),
            changes: Vec::new(),
        }
    }
}

/// A record on its way.
#[derive(Debug)]
pub struct Submission {
    /// The record.
    pub entry: Entry,
    /// Told when it is stored; dropped when it cannot be now.
    pub stored: Option<oneshot::Sender<()>>,
}

/// The way to who keeps the records. Clones share it.
#[derive(Clone, Debug)]
pub struct Ledger(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    sender: SyncSender<Submission>,
    /// Whether a change waits for its record, and is refused when there can be none.
    is_strict: bool,
    is_failing: AtomicBool,
    lost: AtomicU64,
    arns: Arns,
}

impl Ledger {
    /// A way, and its other end. A strict one refuses changes that it cannot record.
    pub fn new(arns: &policy::Arns, is_strict: bool) -> (Self, Receiver<Submission>) {
        let (sender, receiver) = sync_channel(WAITING);
        let (is_failing, lost) = (AtomicBool::new(false), AtomicU64::new(0));
        let arns = Arns::of(arns);
        (Self(Arc::new(Shared { sender, is_strict, is_failing, lost, arns })), receiver)
    }

    /// Says whether records can be stored now.
    pub fn set_failing(&self, is_failing: bool) {
        self.0.is_failing.store(is_failing, Ordering::Relaxed);
    }

    /// Whether records cannot be stored now.
    pub fn is_failing(&self) -> bool {
        self.0.is_failing.load(Ordering::Relaxed)
    }

    /// Counts records that are lost.
    pub fn lose(&self, count: u64) {
        self.0.lost.fetch_add(count, Ordering::Relaxed);
        metrics::counter!("audit_lost_total").increment(count);
    }

    /// Takes back that lost records were recorded.
    pub fn restore_lost(&self, count: u64) {
        self.0.lost.fetch_add(count, Ordering::Relaxed);
    }

    /// How many were lost since this was asked.
    pub fn take_lost(&self) -> u64 {
        self.0.lost.swap(0, Ordering::Relaxed)
    }

    /// Has something recorded that nobody waits for.
    pub fn note(&self, entry: Entry) {
        if self.submit(entry, None).is_err() {
            self.lose(1);
        }
    }

    /// Sends something on its way; `stored` is told when it is stored, and dropped when it cannot be.
    ///
    /// # Errors
    /// When too much is on its way already.
    pub fn submit(
        &self,
        entry: Entry,
        stored: Option<oneshot::Sender<()>>,
    ) -> Result<(), Unavailable> {
        match self.0.sender.try_send(Submission { entry, stored }) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(Unavailable),
        }
    }

    async fn record(&self, entry: Entry) -> Result<(), Unavailable> {
        if !self.0.is_strict {
            self.note(entry);
            return Ok(());
        }
        let (stored, is_stored) = oneshot::channel();
        if self.submit(entry, Some(stored)).is_err() {
            self.lose(1);
            return Err(Unavailable);
        }
        is_stored.await.map_err(|_| Unavailable)
    }

    /// What is proposed here without anybody who waits for it, as it stands in the registry.
    pub fn note_proposed(&self, registry: &Registry, command: &Command, at: Timestamp) {
        let operation = subject::name(command);
        self.note(Entry { operation, ..self.proposed(registry, &subject::subjects(command), at) });
    }

    fn proposed(&self, registry: &Registry, subjects: &[subject::Subject], at: Timestamp) -> Entry {
        let changes = self.described(registry, subjects);
        Entry {
            at,
            request: uuid::Uuid::new_v4().to_string(),
            actor: Actor::Node,
            source: None,
            operation: String::new(),
            resource: changes.first().map(|change| change.resource.clone()),
            outcome: Outcome::Proposed,
            error: None,
            changes,
        }
    }

    /// Has it recorded that certificates whose time is over are about to be deleted.
    pub fn note_swept(&self, registry: &Registry, ids: Vec<CertificateId>, at: Timestamp) {
        let subjects: Vec<_> = ids.into_iter().map(subject::Subject::Certificate).collect();
        let operation = "DeleteExpiredCertificates".to_owned();
        self.note(Entry { operation, ..self.proposed(registry, &subjects, at) });
    }

    /// How resources stand, as what was before a change.
    fn described(&self, registry: &Registry, subjects: &[subject::Subject]) -> Vec<Change> {
        let arns = &self.0.arns;
        let described = subjects.iter().map(|subject| Change {
            resource: subject.resource(arns),
            before: subject.describe(registry, arns).unwrap_or_default(),
            after: None,
        });
        described.collect()
    }
}

/// What an attempt is at.
#[derive(Clone, Debug)]
pub struct Intent {
    /// Who.
    pub actor: Actor,
    /// From where.
    pub source: Option<IpAddr>,
    /// What.
    pub operation: String,
    /// The ARN of what it is about, as far as that is known.
    pub resource: Option<String>,
    /// Tells it from all others.
    pub request: String,
}

/// An attempt at a change. Without a ledger nothing is recorded of it.
#[derive(Debug)]
pub struct Attempt {
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    ledger: Ledger,
    intent: Intent,
    changes: Changes,
}

/// What was seen to change, shared with who watches.
pub(crate) type Changes = Arc<Mutex<Vec<Change>>>;

impl Attempt {
    /// Begins one.
    ///
    /// # Errors
    /// When changes are refused because they cannot be recorded.
    pub fn begin(
        ledger: Option<&Ledger>,
        intent: impl FnOnce() -> Intent,
    ) -> Result<Self, Unavailable> {
        let Some(ledger) = ledger else { return Ok(Self::unrecorded()) };
        if ledger.0.is_strict && ledger.is_failing() {
            return Err(Unavailable);
        }
        Ok(Self::of(ledger, intent()))
    }

    /// One that is refused already, so that nothing needs to be known before.
    pub fn refused(ledger: &Ledger, intent: Intent) -> Self {
        Self::of(ledger, intent)
    }

    /// One of which nothing is recorded.
    pub fn unrecorded() -> Self {
        Self { open: None }
    }

    fn of(ledger: &Ledger, intent: Intent) -> Self {
        let ledger = ledger.clone();
        Self { open: Some(Open { ledger, intent, changes: Changes::default() }) }
    }

    /// What notes all that is proposed for it.
    pub fn watch(&self) -> Watch {
        let open = self.open.as_ref();
        open.map_or_else(Watch::default, |it| Watch::new(&it.ledger, &it.changes))
    }

    /// Adds what has changed outside of the registry.
    pub fn add(&self, change: Change) {
        if let Some(open) = &self.open {
            open.changes.lock().unwrap_or_else(PoisonError::into_inner).push(change);
        }
    }

    /// Records it.
    ///
    /// # Errors
    /// When a change must not be without its record, and it could not be stored: then it is kept until
    /// it can.
    pub async fn end(
        mut self,
        outcome: Outcome,
        error: Option<String>,
        at: Timestamp,
    ) -> Result<(), Unavailable> {
        match self.open.take() {
            Some(open) => open.ledger.clone().record(open.entry(outcome, error, at)).await,
            None => Ok(()),
        }
    }

    /// Records what came of it: that it was done, or what `classify` says of an error, with the code that
    /// who asked is told.
    ///
    /// # Errors
    /// As [`Self::end`].
    pub async fn conclude<T, E, C: Into<String>>(
        self,
        result: &Result<T, E>,
        classify: impl FnOnce(&E) -> (Outcome, C),
        at: Timestamp,
    ) -> Result<(), Unavailable> {
        let (outcome, code) = match result {
            Ok(_) => (Outcome::Done, None),
            Err(error) => {
                let (outcome, code) = classify(error);
                (outcome, Some(code.into()))
            }
        };
        self.end(outcome, code, at).await
    }
}

impl Drop for Attempt {
    /// Whoever asked has gone away; what was proposed may be done.
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            let ledger = open.ledger.clone();
            ledger.note(open.entry(Outcome::Unknown, None, crate::Clock::default().now()));
        }
    }
}

impl Open {
    fn entry(self, outcome: Outcome, error: Option<String>, at: Timestamp) -> Entry {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changes = std::mem::take(&mut *changes);
        let about = changes.first().map(|change| change.resource.clone());
        match outcome {
            // What a command might have changed and has not.
            Outcome::Done => changes.retain(|change| change.after.as_ref() != Some(&change.before)),
            Outcome::Denied | Outcome::Rejected => changes.clear(),
            Outcome::Failed | Outcome::Unknown | Outcome::Proposed => {}
        }
        let Intent { actor, source, operation, resource, request } = self.intent;
        Entry {
            at,
            request,
            actor,
            source,
            operation,
            resource: resource.or(about),
            outcome,
            error,
            changes,
        }
    }
}

/// As much of a name as is recorded.
pub(crate) fn shortened(name: &str) -> &str {
    &name[..name.floor_char_boundary(NAME)]
}

/// An object of one member.
fn object(member: &str, value: Value) -> Value {
    Value::Object(Map::from_iter([(member.to_owned(), value)]))
}

#[cfg(test)]
mod tests;
