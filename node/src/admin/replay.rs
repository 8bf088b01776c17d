//! What would become of a client's decisions if another version of a policy counted.
//!
//! What is decided is noted on the node that the client is connected to, and asked for there.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use anyhow::bail;
use api::Source;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use fleet::registry::{ConnectionThing, Registry, Timestamp};
use policy::{Decision, Document, Variables};
use serde::{Deserialize, Serialize};

use super::explain::{Speaking, Verdict, named};
use super::{Refused, ask, attempt, ended};
use crate::backend::Backend;
use crate::clock::now_ms;
use crate::decisions::{Noted, Record};
use crate::identity::{self, Principal};
use crate::shared::Shared;

/// The longest that a client is looked at, in minutes.
const MINUTES: u64 = 24 * 60;

/// Whose decisions are to be noted, and for how long.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Watching {
    /// The client id.
    pub client: String,
    /// Minutes from now on; 0 ends it and forgets what was noted.
    pub minutes: u64,
}

/// How that stands.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Watched {
    /// Whether the client is connected to the asked node.
    pub connected: bool,
}

/// Which version is to be tried.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// The client id.
    pub client: String,
    /// The policy.
    pub policy: String,
    /// Its version.
    pub version: u64,
}

/// What would change.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Replay {
    /// How many different decisions were noted.
    pub decisions: usize,
    /// How many were not, for want of room.
    pub left_out: u64,
    /// The version that counts now.
    pub default_version: u64,
    /// What would be decided otherwise.
    pub changes: Vec<Changed>,
}

/// A decision that would be another one.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Changed {
    /// Such as `iot:Publish`.
    pub action: String,
    /// The end of an ARN.
    pub resource: String,
    /// How often it was decided.
    pub count: u64,
    /// When last, in seconds since 1970.
    pub last: u64,
    /// What was decided then.
    pub recorded: String,
    /// By the default versions.
    pub now: Verdict,
    /// With the other version.
    pub then: Verdict,
}

/// `POST /admin/policy/record`.
pub(super) async fn record(
    State(shared): State<Arc<Shared>>,
    source: Option<Extension<Source>>,
    Json(wish): Json<Watching>,
) -> Result<Json<Watched>, Refused> {
    let resource = format!("{}client/{}", shared.arns.prefix(), wish.client);
    let attempt = attempt(&shared, source, "RecordDecisions", &resource)?;
    let watched = watch(&shared, &wish).await;
    ended(attempt, watched.map(Json)).await
}

async fn watch(shared: &Arc<Shared>, wish: &Watching) -> Result<Watched, Refused> {
    let Watching { client, minutes } = wish;
    if client.is_empty() || *minutes > MINUTES {
        let why = format!("a client id is wanted, and at most {MINUTES} minutes\n");
        return Err((StatusCode::BAD_REQUEST, why));
    }
    let backend = Backend::new(Arc::clone(shared));
    if *minutes == 0 {
        return match shared.watches.end(client) {
            true => Ok(Watched { connected: is_here(shared, &backend, client).await? }),
            false => Err((StatusCode::NOT_FOUND, format!("nobody records client {client} here\n"))),
        };
    }
    let connected = is_here(shared, &backend, client).await?;
    let now = now_ms() / 1000;
    let Some(watch) = shared.watches.begin(client, now, now + minutes * 60) else {
        let why = "too many clients are recorded: end one with --minutes 0\n";
        return Err((StatusCode::CONFLICT, why.into()));
    };
    if connected {
        // One that has gone meanwhile is noted when it comes again.
        backend.watch(client, watch).await.map_err(|_| unavailable())?;
    }
    Ok(Watched { connected })
}

/// Whether a client is connected here; a refusal where it is connected to another node.
async fn is_here(shared: &Shared, backend: &Backend, client: &str) -> Result<bool, Refused> {
    match backend.node_of(client).await.map_err(|_| unavailable())? {
        Some(node) if node != shared.mesh.own.node() => {
            let why =
                format!("client {client} is connected to node {node}: ask its admin listener\n");
            Err((StatusCode::CONFLICT, why))
        }
        found => Ok(found.is_some()),
    }
}

fn unavailable() -> Refused {
    (StatusCode::SERVICE_UNAVAILABLE, "the groups do not answer\n".into())
}

/// `POST /admin/policy/replay`.
pub(super) async fn replay(
    State(shared): State<Arc<Shared>>,
    Json(trial): Json<Trial>,
) -> Result<Json<Replay>, Refused> {
    let backend = Backend::new(Arc::clone(&shared));
    let Some(watch) = shared.watches.of(&trial.client) else {
        is_here(&shared, &backend, &trial.client).await?;
        let why = format!(
            "nothing is recorded of client {} here: see `skein policy record`\n",
            trial.client
        );
        return Err((StatusCode::NOT_FOUND, why));
    };
    let record = watch.record();
    let Some((principal, variables)) = record.who.clone() else {
        let why = format!(
            "client {} has not connected to this node since it is recorded\n",
            trial.client
        );
        return Err((StatusCode::NOT_FOUND, why));
    };
    let arns = shared.arns.clone();
    let look = move |registry: &Registry| {
        replayed(registry, &arns, &record, (&principal, variables), &trial)
    };
    let replayed = identity::read_registry(&shared, look).await.ok_or_else(unavailable)?;
    replayed.map(Json)
}

/// Decides again. Whoever has no certificate has no policies of the registry.
fn replayed(
    registry: &Registry,
    arns: &policy::Arns,
    record: &Record,
    (principal, variables): (&Principal, Variables),
    trial: &Trial,
) -> Result<Replay, Refused> {
    let refused = |why: String| Err((StatusCode::CONFLICT, format!("{why}\n")));
    let Trial { client, policy: name, version } = trial;
    let Some(id) = principal.certificate() else {
        return refused(format!(
            "client {client} has no certificate, so that no policy is attached to it"
        ));
    };
    let Some(identity) = registry.identity(id, Some(client)) else {
        return refused(format!(
            "the certificate {id} of client {client} is not registered any more"
        ));
    };
    let Some(policy) = registry.policy(name) else {
        return Err((StatusCode::NOT_FOUND, format!("there is no policy {name}\n")));
    };
    let Some(tried) = policy.versions.get(version) else {
        return Err((StatusCode::NOT_FOUND, format!("policy {name} has no version {version}\n")));
    };
    let Ok(tried) = Document::parse(&tried.document) else {
        return refused(format!("version {version} of policy {name} cannot be read"));
    };
    let now = named(registry, &identity);
    let mut then = now.clone();
    let Some(place) = then.iter_mut().find(|it| it.policy == *name) else {
        return refused(format!(
            "policy {name} is not attached to client {client}: nothing would change"
        ));
    };
    (place.version, place.document) = (*version, Arc::new(tried));
    let others = match principal {
        Principal::Session(session) => {
            registry.session_variables(&session.role, Timestamp(now_ms())).unwrap_or_default()
        }
        _ => Default::default(),
    };
    let variables = Variables {
        others,
        certificate: Some(identity.certificate_variables()),
        thing: identity.thing.as_ref().map(ConnectionThing::variables),
        ..variables
    };
    let mut changes = Vec::new();
    for (action, name, noted) in record.decisions() {
        let resource = action.resource(name);
        let verdict = |policies: &[_]| {
            Verdict::of(policies, (arns, &variables), action, &resource, &noted.request())
        };
        let (now, then) = (verdict(&now), verdict(&then));
        if now.decision != then.decision {
            changes.push(changed(action.name(), &resource, noted, now, then));
        }
    }
    let (decisions, left_out) = (record.decisions().count(), record.left_out);
    Ok(Replay { decisions, left_out, default_version: policy.default_version, changes })
}

fn changed(action: &str, resource: &str, noted: &Noted, now: Verdict, then: Verdict) -> Changed {
    let recorded = match noted.decision {
        Decision::Allowed => "allowed",
        Decision::ExplicitDeny => "explicitly denied",
        Decision::ImplicitDeny => "not allowed",
    };
    Changed {
        action: action.to_owned(),
        resource: resource.to_owned(),
        count: noted.count,
        last: noted.last_secs,
        recorded: recorded.to_owned(),
        now,
        then,
    }
}

impl Watched {
    /// Has a node note the decisions about a client.
    pub fn order(admin: &str, wish: &Watching) -> anyhow::Result<Self> {
        let body = serde_json::to_string(wish)?;
        Ok(serde_json::from_str(&ask(admin, "POST", "/admin/policy/record", &body)?)?)
    }
}

impl Replay {
    /// Has a node try a version of a policy.
    pub fn of(admin: &str, trial: &Trial) -> anyhow::Result<Self> {
        let body = serde_json::to_string(trial)?;
        Ok(serde_json::from_str(&ask(admin, "POST", "/admin/policy/replay", &body)?)?)
    }

    /// An error when something would be decided otherwise.
    pub fn refuse_changes(&self) -> anyhow::Result<()> {
        match self.changes.len() {
            0 => Ok(()),
            1 => bail!("1 decision would be another one"),
            count => bail!("{count} decisions would be other ones"),
        }
    }
}

impl fmt::Display for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Changed { action, resource, count, now, then, .. } in &self.changes {
            let (before, after) = (&now.decision, &then.decision);
            writeln!(
                f,
                "{action} on {resource}, decided {count} times: {before}, would be {after}"
            )?;
            let mut said = String::new();
            for (when, verdict) in [("now", now), ("then", then)] {
                for Speaking { policy, version, statement, sid, says } in &verdict.statements {
                    let called = sid.as_ref().map_or(String::new(), |sid| format!(" ({sid})"));
                    // Writing to a string cannot fail.
                    let _ = writeln!(
                        said,
                        "  {when} {says}: policy {policy}, version {version}, statement {statement}{called}"
                    );
                }
            }
            f.write_str(&said)?;
        }
        let (decisions, left_out) = (self.decisions, self.left_out);
        writeln!(
            f,
            "{decisions} decisions recorded; the default is version {}",
            self.default_version
        )?;
        if left_out > 0 {
            writeln!(f, "{left_out} more were not recorded: there were too many different ones")?;
        }
        Ok(())
    }
}
