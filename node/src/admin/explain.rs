//! Why a client may do something, or may not: which statement of which policy says so.

use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fleet::registry::{CertificateId, ConnectionThing, Identity, Registry};
use policy::{Action, Decision, Document, Request, Variables};
use serde::{Deserialize, Serialize};

use super::ask;
use crate::clock::now_ms;
use crate::identity;
use crate::shared::Shared;

/// A request that somebody makes, or might make.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The id of the certificate, or its ARN.
    pub certificate: String,
    /// The client id of the connection; none for HTTP. Of `iot:Connect` the one that the resource names, unless
    /// it is given.
    #[serde(default)]
    pub client_id: Option<String>,
    /// Where the client is.
    #[serde(default)]
    pub source_ip: Option<IpAddr>,
    /// The name that the client asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain_name: Option<String>,
    /// CONNECT asks for a session that outlives the connection.
    #[serde(default)]
    pub persistent: bool,
    /// CONNECT brings a will for this topic name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub will_topic: Option<String>,
    /// Such as `iot:Publish`.
    pub action: String,
    /// The end of an ARN, such as `topic/a/b`.
    pub resource: String,
}

/// What is decided, and why.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Explanation {
    /// `allowed`, `explicitly denied` or `not allowed`.
    pub decision: String,
    /// The status of the certificate: only an active one may do anything.
    pub certificate_status: String,
    /// The thing of the connection.
    pub thing: Option<String>,
    /// What speaks of the request.
    pub statements: Vec<Speaking>,
    /// The policies that were asked.
    pub policies: Vec<String>,
}

/// A statement that speaks of a request.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Speaking {
    /// Its policy.
    pub policy: String,
    /// The version that decides.
    pub version: u64,
    /// Its place in the document, from 0.
    pub statement: usize,
    /// What its author calls it.
    pub sid: Option<String>,
    /// `allows` or `denies`.
    pub says: String,
}

/// Answers a question; the body of a refusal says what is wrong with it.
pub(super) async fn explain(
    State(shared): State<Arc<Shared>>,
    Json(mut question): Json<Question>,
) -> Result<Json<Explanation>, (StatusCode, String)> {
    let wrong = |why: String| (StatusCode::BAD_REQUEST, format!("{why}\n"));
    let named = Action::ALL.into_iter().find(|action| action.name() == question.action);
    let action = named.ok_or_else(|| {
        let known: Vec<_> = Action::ALL.iter().map(|action| action.name()).collect();
        wrong(format!("there is no action {:?}; there are {}", question.action, known.join(", ")))
    })?;
    if !question.resource.starts_with(action.resource("").as_str()) {
        let expected = action.resource("…");
        return Err(wrong(format!("the resource of {} is like {expected:?}", question.action)));
    }
    if action == Action::Connect && question.client_id.is_none() {
        let named = question.resource.strip_prefix(action.resource("").as_str());
        question.client_id = named.map(str::to_owned);
    }
    let id = certificate(&question.certificate, &shared.arns).map_err(wrong)?;
    if let Some(asked) = &question.domain_name {
        let name = policy::domain_name(asked);
        let name = name.ok_or_else(|| wrong(format!("{asked:?} is no domain name")))?;
        question.domain_name = Some(name);
    }
    let arns = shared.arns.clone();
    let look = move |registry: &Registry| explained(registry, &arns, &id, action, &question);
    match identity::read_registry(&shared, look).await {
        Some(Some(explanation)) => Ok(Json(explanation)),
        Some(None) => Err((StatusCode::NOT_FOUND, "the certificate is not registered\n".into())),
        None => Err((StatusCode::SERVICE_UNAVAILABLE, "the registry cannot be read now\n".into())),
    }
}

/// Which certificate an id or an ARN names.
fn certificate(named: &str, arns: &policy::Arns) -> Result<CertificateId, String> {
    let prefix = arns.prefix() + "cert/";
    let id = match named.starts_with("arn:") {
        true => named.strip_prefix(&prefix).ok_or_else(|| {
            format!("{named:?} is no certificate's ARN here; such one begins with {prefix:?}")
        })?,
        false => named,
    };
    CertificateId::new(&id.to_ascii_lowercase()).map_err(|error| error.to_string())
}

fn explained(
    registry: &Registry,
    arns: &policy::Arns,
    id: &CertificateId,
    action: Action,
    question: &Question,
) -> Option<Explanation> {
    let identity = registry.identity(id.as_str(), question.client_id.as_deref())?;
    let has_client = question.client_id.is_some();
    let variables = Variables {
        client_id: question.client_id.clone(),
        source_ip: question.source_ip,
        domain_name: question.domain_name.clone(),
        certificate: Some(identity.certificate_variables()),
        thing: identity.thing.as_ref().filter(|_| has_client).map(ConnectionThing::variables),
        ..Variables::default()
    };
    let request = Request {
        persistent_connect: question.persistent,
        last_will_topic: question.will_topic.as_deref(),
        now_secs: Some(now_ms() / 1000),
    };
    let policies = named(registry, &identity);
    let Verdict { decision, statements } =
        Verdict::of(&policies, (arns, &variables), action, &question.resource, &request);
    Some(Explanation {
        decision,
        certificate_status: identity.status.as_str().to_owned(),
        thing: identity.thing.as_ref().map(|thing| thing.name.to_string()),
        statements,
        policies: identity.policies.iter().map(|named| named.policy.to_string()).collect(),
    })
}

/// A version of a policy.
#[derive(Clone, Debug)]
pub(super) struct Versioned {
    pub(super) policy: String,
    pub(super) version: u64,
    pub(super) document: Arc<Document>,
}

/// The policies of somebody, in the versions that decide.
pub(super) fn named(registry: &Registry, identity: &Identity) -> Vec<Versioned> {
    let versioned = identity.policies.iter().map(|named| Versioned {
        policy: named.policy.to_string(),
        version: registry.policy(named.policy.as_str()).map_or(0, |it| it.default_version),
        document: Arc::clone(&named.document),
    });
    versioned.collect()
}

/// What policies say together.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Verdict {
    /// `allowed`, `explicitly denied` or `not allowed`.
    pub decision: String,
    /// What speaks of the request.
    pub statements: Vec<Speaking>,
}

impl Verdict {
    pub(super) fn of(
        policies: &[Versioned],
        (arns, variables): (&policy::Arns, &Variables),
        action: Action,
        resource: &str,
        request: &Request<'_>,
    ) -> Self {
        let mut statements = Vec::new();
        let (mut is_allowed, mut is_denied) = (false, false);
        for Versioned { policy, version, document } in policies {
            for spoken in document.explain((arns, variables), action, resource, request) {
                let allows = spoken.decision == Decision::Allowed;
                is_allowed |= allows;
                is_denied |= !allows;
                statements.push(Speaking {
                    policy: policy.clone(),
                    version: *version,
                    statement: spoken.statement,
                    sid: spoken.sid,
                    says: if allows { "allows" } else { "denies" }.to_owned(),
                });
            }
        }
        let decision = match (is_allowed, is_denied) {
            (_, true) => "explicitly denied",
            (true, false) => "allowed",
            (false, false) => "not allowed",
        };
        Self { decision: decision.to_owned(), statements }
    }
}

impl Explanation {
    /// Asks a node.
    pub fn of(admin: &str, question: &Question) -> anyhow::Result<Self> {
        let body = serde_json::to_string(question)?;
        Ok(serde_json::from_str(&ask(admin, "POST", "/admin/policy/explain", &body)?)?)
    }

    /// Whether the client may do it.
    pub fn is_allowed(&self) -> bool {
        self.decision == "allowed" && self.certificate_status == "ACTIVE"
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.decision)?;
        if self.certificate_status != "ACTIVE" {
            writeln!(
                f,
                "  but the certificate is {}: it may not connect",
                self.certificate_status
            )?;
        }
        for Speaking { policy, version, statement, sid, says } in &self.statements {
            let mut called = String::new();
            if let Some(sid) = sid {
                write!(called, " ({sid})")?;
            }
            writeln!(
                f,
                "  {says}: policy {policy}, version {version}, statement {statement}{called}"
            )?;
        }
        match &self.thing {
            Some(thing) => writeln!(f, "  thing of the connection: {thing}")?,
            None => writeln!(f, "  the connection has no thing")?,
        }
        writeln!(f, "  policies asked: {}", self.policies.join(", "))
    }
}
