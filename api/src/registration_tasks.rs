//! Registration in bulk: the operations, the links to the reports, and what a line does.
//!
//! A task is kept in the registry and carried out by the node that leads it. Its reports are files that
//! every node can read; whoever may list them gets a link to each part, which is signed with a secret of
//! the task and good for an hour, so that no store has to be open to those who read reports.

use std::ops::RangeInclusive;

use axum::body::Body;
use axum::extract::{Path, RawQuery};
use axum::http::{HeaderValue, Response, header};
use bytes::Bytes;
use fleet::registry::{
    CertificateId, Check, Command, RegistrationCommand, RegistrationProgress, RegistrationStatus,
    RegistrationTask, RegistrationTaskId, Rejection, SessionSecret, TaskLine, Timestamp,
};
use provisioning::{Line, Parameters, Purpose, Template, certificate_parameters, check_object_key};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::arn::Arns;
use crate::audit::{Actor, Attempt, Intent, Ledger, Outcome};
use crate::backend::{Report, ReportKind, Unavailable};
use crate::certificates::required;
use crate::error::Plane;
use crate::paging::NEXT_TOKEN;
use crate::provisioning::{Given, Issuing, ProvisionError, Provisioned, Provisioner, answer};
use crate::request::Call;
use crate::service::{Api, Reply, Service};
use crate::sigv4::{decoded_query, hmac};
use crate::x509::{CertificateError, Unsigned};
use crate::{Backend, Error, role_aliases};

/// Where the parts of reports are.
pub(crate) const REPORT_PATH: &str = "/thing-registration-tasks/{task}/reports/{part}";
/// Parts of reports, of some megabytes each, that are read at the same time; others wait.
pub(crate) const CONCURRENT_REPORTS: usize = 8;
/// How long a link to a report is good for.
const LINK_SECS: u64 = 60 * 60;
/// Characters of the name of a bucket.
const BUCKET: RangeInclusive<usize> = 3..=256;
/// Characters of an error that a report repeats.
const MESSAGE_CHARS: usize = 1024;

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StartBody {
    template_body: Option<String>,
    input_file_bucket: Option<String>,
    input_file_key: Option<String>,
    role_arn: Option<String>,
}

fn parsed(body: &str) -> Result<Template, Error> {
    let template = Template::parse(body, Purpose::Registration)
        .map_err(|error| Error::Invalid(format!("templateBody: {error}")))?;
    if template.is_for_given_certificate() {
        return Err(Error::Invalid(
            "templateBody: no certificate is given, so it cannot be \
             {\"Ref\": \"AWS::IoT::Certificate::Id\"}: a parameter says which one it is"
                .into(),
        ));
    }
    Ok(template)
}

fn checked_bucket(bucket: String) -> Result<String, Error> {
    let is_plain = |it: u8| it.is_ascii_alphanumeric() || b"._-".contains(&it);
    if !BUCKET.contains(&bucket.len()) || !bucket.bytes().all(is_plain) {
        let (min, max) = (BUCKET.start(), BUCKET.end());
        return Err(Error::Invalid(format!(
            "inputFileBucket must satisfy the pattern [a-zA-Z0-9._-]+ and have {min} to {max} characters"
        )));
    }
    Ok(bucket)
}

pub(crate) async fn start<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let body: StartBody = call.json()?;
    let template_body = required(body.template_body, "templateBody")?;
    parsed(&template_body)?;
    let bucket = checked_bucket(required(body.input_file_bucket, "inputFileBucket")?)?;
    let key = required(body.input_file_key, "inputFileKey")?;
    check_object_key(&key).map_err(|why| Error::Invalid(format!("inputFileKey {why}")))?;
    let role_arn = role_aliases::checked(required(body.role_arn, "roleArn")?)?;
    api.backend
        .registration_bucket(&bucket)
        .map_err(|why| Error::Invalid(format!("inputFileBucket: {why}")))?;
    let id = RegistrationTaskId::new(&Uuid::new_v4().to_string())?;
    let task = RegistrationTask {
        id: id.clone(),
        template_body,
        bucket,
        key,
        role_arn,
        status: RegistrationStatus::InProgress,
        message: None,
        progress: RegistrationProgress::default(),
        done: Default::default(),
        secret: SessionSecret(rand::random()),
        created: call.now,
        modified: call.now,
    };
    let task = Box::new(task);
    api.propose(Command::Registration(RegistrationCommand::Start { task })).await?;
    Ok(Reply::Json(json!({ "taskId": id })))
}

pub(crate) async fn describe<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let id = RegistrationTaskId::new(call.label(0))?;
    let described = api.read(move |registry| {
        let task = registry.registration_task(id.as_str()).ok_or_else(|| not_found(&id))?;
        Ok(description(task))
    });
    Ok(Reply::Json(described.await?))
}

pub(crate) fn description(task: &RegistrationTask) -> Value {
    let mut described = json!({
        "taskId": task.id,
        "creationDate": task.created.seconds(),
        "lastModifiedDate": task.modified.seconds(),
        "templateBody": task.template_body,
        "inputFileBucket": task.bucket,
        "inputFileKey": task.key,
        "roleArn": task.role_arn,
        "status": task.status.as_str(),
        "successCount": task.progress.succeeded,
        "failureCount": task.progress.failed,
        "percentageProgress": task.percentage(),
    });
    if let Some(message) = &task.message {
        described["message"] = message.as_str().into();
    }
    described
}

pub(crate) async fn stop<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let task = RegistrationTaskId::new(call.label(0))?;
    api.propose(Command::Registration(RegistrationCommand::Stop { task, at: call.now })).await?;
    Ok(Reply::Empty)
}

pub(crate) async fn list<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let status = call.query("status").map(|text| {
        let found = RegistrationStatus::ALL.into_iter().find(|status| status.as_str() == text);
        found.ok_or_else(|| {
            let all = RegistrationStatus::ALL.map(RegistrationStatus::as_str).join(", ");
            Error::Invalid(format!("status must be one of {all}, not '{text}'"))
        })
    });
    let status = status.transpose()?;
    api.list(NEXT_TOKEN.read(call)?, "taskIds", move |registry, paging| {
        Ok(registry.registration_tasks(status, paging).map(|task| task.id.as_str().into()))
    })
    .await
}

pub(crate) async fn reports<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let id = RegistrationTaskId::new(call.label(0))?;
    let kind = call.required_query("reportType")?;
    let report = match kind {
        "RESULTS" => ReportKind::Results,
        "ERRORS" => ReportKind::Errors,
        other => {
            let text = format!("reportType must be ERRORS or RESULTS, not '{other}'");
            return Err(Error::Invalid(text));
        }
    };
    let cursor = NEXT_TOKEN.read(call)?;
    let name = id.clone();
    let (secret, parts) = api
        .read(move |registry| {
            let task = registry.registration_task(name.as_str()).ok_or_else(|| not_found(&name))?;
            let RegistrationProgress { results, errors, .. } = task.progress;
            let parts = if report == ReportKind::Results { results } else { errors };
            Ok((task.secret.clone(), parts))
        })
        .await?;
    // The place is a number that this has written.
    let start: u32 = cursor.paging.after.as_deref().and_then(|it| it.parse().ok()).unwrap_or(0);
    let end =
        parts.min(start.saturating_add(u32::try_from(cursor.paging.limit).unwrap_or(u32::MAX)));
    let host = call.required_header("host")?;
    // Whoever ends TLS in front of this says so.
    let is_secure = call.header("x-forwarded-proto")?.is_some_and(|it| it == "https");
    let scheme = if is_secure { "https" } else { "http" };
    let expires = call.now.0 / 1000 + LINK_SECS;
    let links = (start..end).map(|part| {
        let name = Report { task: id.clone(), kind: report, part }.name();
        let signature = hex::encode(signature(&secret, &id, &name, expires));
        let path = format!("/thing-registration-tasks/{id}/reports/{name}");
        format!("{scheme}://{host}{path}?expires={expires}&signature={signature}").into()
    });
    let next = (end < parts).then(|| end.to_string());
    let Reply::Json(mut body) = cursor.reply("resourceLinks", links.collect(), next) else {
        return Err(Error::Internal);
    };
    body["reportType"] = kind.into();
    Ok(Reply::Json(body))
}

/// What is written where others have an ARN.
pub(crate) fn task_resource(task: &RegistrationTaskId) -> String {
    format!("thing-registration-task/{task}")
}

fn not_found(id: &RegistrationTaskId) -> Error {
    Error::NotFound(Rejection::RegistrationTaskNotFound(id.clone()).to_string())
}

/// What only somebody knows whom the operation has given a link.
fn signature(
    secret: &SessionSecret,
    task: &RegistrationTaskId,
    name: &str,
    expires: u64,
) -> [u8; 32] {
    hmac(&secret.0, format!("{task}/{name} {expires}").as_bytes())
}

/// What a link says beside its path.
#[derive(Default)]
struct Link {
    expires: u64,
    signature: String,
}

impl Link {
    fn read(query: &str) -> Result<Self, Error> {
        let mut link = Self::default();
        for (name, value) in decoded_query(query) {
            match name.as_str() {
                "expires" => {
                    link.expires = value.parse().map_err(|_| {
                        let shown: String = value.chars().take(64).collect();
                        Error::Invalid(format!(
                            "the parameter expires must be a second of the epoch, not '{shown}': \
                             take the link as it was given"
                        ))
                    })?;
                }
                "signature" => link.signature = value,
                _ => {}
            }
        }
        Ok(link)
    }
}

/// Answers who follows a link.
pub(crate) async fn report<B: Backend>(
    service: &Service<B>,
    wanted: Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Response<Body> {
    match part(service, wanted.0, &query.unwrap_or_default()).await {
        Ok(content) => {
            let mut response = Response::new(Body::from(content));
            let lines = HeaderValue::from_static("application/x-ndjson");
            response.headers_mut().insert(header::CONTENT_TYPE, lines);
            let private = HeaderValue::from_static("private");
            response.headers_mut().insert(header::CACHE_CONTROL, private);
            response
        }
        Err(error) => error.response(Plane::Control, &Uuid::new_v4().to_string()),
    }
}

async fn part<B: Backend>(
    service: &Service<B>,
    (task, name): (String, String),
    query: &str,
) -> Result<Bytes, Error> {
    let link = Link::read(query)?;
    let denied = || Error::AccessDenied("the link is not valid, or not any more".into());
    let now = service.clock.now();
    let task = RegistrationTaskId::new(&task).map_err(|_| denied())?;
    let (kind, number) = name.split_once('-').ok_or_else(denied)?;
    let kind = match kind {
        "results" => ReportKind::Results,
        "errors" => ReportKind::Errors,
        _ => return Err(denied()),
    };
    let report = Report { task, kind, part: number.parse().map_err(|_| denied())? };
    if link.expires <= now.0 / 1000 {
        return Err(denied());
    }
    let id = report.task.clone();
    let secret = {
        // Whoever has made up a link has proved nothing yet.
        let _look = service.look_ups.try_acquire().map_err(|_| Error::Unavailable)?;
        let secret = service.backend.registry_read(move |registry| {
            registry.registration_task(id.as_str()).map(|task| task.secret.clone())
        });
        secret.await?.ok_or_else(denied)?
    };
    let expected = hex::encode(signature(&secret, &report.task, &name, link.expires));
    if !bool::from(expected.as_bytes().ct_eq(link.signature.as_bytes())) {
        return Err(denied());
    }
    // The semaphore is never closed.
    let _permit = service.reports.acquire().await.map_err(|_| Error::Internal)?;
    let found = service.backend.registration_report(report).await?;
    found.ok_or_else(|| Error::NotFound("the report is not there any more".into()))
}

/// Carries out the template of a task for its lines.
#[derive(Clone, Debug)]
pub struct Registering<B> {
    backend: B,
    issuing: Option<Issuing>,
    ledger: Option<Ledger>,
    arns: Arns,
}

/// Why the task does not just go on with the next line.
#[derive(Clone, Debug, PartialEq)]
pub enum Interrupted {
    /// The line is to be carried out again.
    Again,
    /// The task has ended, or another node has gone on with it.
    Over,
    /// No line can be carried out until somebody changes something at this node.
    Failed {
        /// What comes of this one.
        line: Registered,
        /// What has to be changed.
        why: String,
    },
}

/// What has come of a line.
#[derive(Clone, Debug, PartialEq)]
pub struct Registered {
    /// Whether it has made a device.
    pub kind: ReportKind,
    /// What the report says of it: JSON in a line.
    pub report: String,
}

impl<B: Backend> Registering<B> {
    /// Over a node, what makes certificates there, and what records changes, if anything does.
    pub fn new(
        backend: B,
        issuing: Option<Issuing>,
        ledger: Option<Ledger>,
        arns: &policy::Arns,
    ) -> Self {
        Self { backend, issuing, ledger, arns: Arns::of(arns) }
    }

    /// Carries out a line, as RegisterThing would; of a line that has made a device already it says what
    /// RegisterThing has said then.
    pub async fn register(
        &self,
        template: &Template,
        task: &RegistrationTaskId,
        line: &Line,
        now: Timestamp,
    ) -> Result<Registered, Interrupted> {
        let begun = Attempt::begin(self.ledger.as_ref(), || Intent {
            actor: Actor::Node,
            source: None,
            operation: "RegisterThing".into(),
            resource: Some(format!("{} line {}", task_resource(task), line.number)),
            request: Uuid::new_v4().to_string(),
        });
        // A line that cannot be recorded waits.
        let attempt = begun.map_err(|Unavailable| Interrupted::Again)?;
        let registered = self.carry_out(&attempt, template, task, line, now).await;
        let (outcome, code) = match &registered {
            Ok(Registered { kind: ReportKind::Results, .. }) => (Outcome::Done, None),
            Ok(Registered { kind: ReportKind::Errors, .. }) => {
                (Outcome::Rejected, Some("NotRegistered".into()))
            }
            Err(Interrupted::Failed { .. }) => (Outcome::Failed, Some("NotRegistered".into())),
            Err(_) => (Outcome::Unknown, None),
        };
        attempt.end(outcome, code, now).await.map_err(|Unavailable| Interrupted::Again)?;
        registered
    }

    async fn carry_out(
        &self,
        attempt: &Attempt,
        template: &Template,
        task: &RegistrationTaskId,
        line: &Line,
        now: Timestamp,
    ) -> Result<Registered, Interrupted> {
        let parameters = match line.parameters(template) {
            Ok(parameters) => parameters,
            Err(error) => return Ok(refused(line, &Error::Invalid(error.to_string()))),
        };
        let of = TaskLine { task: task.clone(), line: line.number };
        let check = Check { line: Some(of), ..Check::default() };
        let given = parameters.clone();
        let (backend, issuing) = (self.backend.clone(), self.issuing.clone());
        let provisioner = Provisioner::new(backend, issuing, attempt.watch());
        let response = match provisioner.provision(template, given, None, check, now).await {
            Ok(provisioned) => answer(&self.arns, template, provisioned),
            Err(ProvisionError::Rejected(rejection)) => match rejection {
                Rejection::RegistrationLineDone { certificate, .. } => {
                    self.recall(template, parameters, certificate).await?
                }
                Rejection::RegistrationTaskMoved(_)
                | Rejection::RegistrationTaskEnded { .. }
                | Rejection::RegistrationTaskNotFound(_) => return Err(Interrupted::Over),
                rejection => {
                    let error = ProvisionError::Rejected(rejection);
                    return Ok(refused(line, &Error::provision(error, &self.arns)));
                }
            },
            Err(error) => {
                let hindrance = Hindrance::of(&error);
                let why = error.to_string();
                let error = Error::provision(error, &self.arns);
                return match hindrance {
                    Hindrance::Passes => Err(Interrupted::Again),
                    Hindrance::Lasts => {
                        Err(Interrupted::Failed { line: refused(line, &error), why })
                    }
                    Hindrance::OfLine => Ok(refused(line, &error)),
                };
            }
        };
        let report = json!({
            "lineNumber": line.number,
            "offset": line.offset,
            "response": response,
        });
        Ok(Registered { kind: ReportKind::Results, report: report.to_string() })
    }

    /// What was said of a line that has made the device with this certificate.
    async fn recall(
        &self,
        template: &Template,
        mut parameters: Parameters,
        certificate: CertificateId,
    ) -> Result<Value, Interrupted> {
        let id = certificate.clone();
        let look = self
            .backend
            .registry_read(move |registry| registry.certificate(id.as_str()).map(Given::of));
        let given = look.await.map_err(|Unavailable| Interrupted::Again)?;
        let plan = given.as_ref().and_then(|given| {
            parameters.extend(certificate_parameters(&given.certificate, &given.names));
            template.evaluate(&parameters).ok()
        });
        let (Some(given), Some(plan)) = (given, plan) else {
            // Somebody has deleted it since.
            let (_, name, _) = template.resource_names();
            let arn = Value::from(self.arns.certificate(&certificate));
            return Ok(json!({ "resourceArns": Map::from_iter([(name.to_owned(), arn)]) }));
        };
        let provisioned = Provisioned {
            certificate,
            certificate_pem: given.pem,
            thing: plan.thing.map(|thing| thing.name),
            policies: plan.policies.into_iter().map(|policy| policy.name).collect(),
            device_configuration: plan.device_configuration,
        };
        Ok(answer(&self.arns, template, provisioned))
    }
}

/// What keeps a line from making a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hindrance {
    /// It goes away without anybody's doing.
    Passes,
    /// Every line meets it until somebody changes something at the node.
    Lasts,
    /// It is the line's own.
    OfLine,
}

impl Hindrance {
    fn of(error: &ProvisionError) -> Self {
        use ProvisionError as P;
        match error {
            P::Unavailable(_)
            | P::Busy
            | P::Certificate(CertificateError::Signing(Unsigned { lasts: false, .. }))
            | P::Authority(Error::Unavailable | Error::Throttled(_)) => Self::Passes,
            P::NoIssuer => Self::Lasts,
            P::Certificate(found) if found.is_ours() => Self::Lasts,
            P::Template(_)
            | P::Certificate(_)
            | P::OtherCertificate
            | P::Authority(_)
            | P::Rejected(_)
            | P::Internal => Self::OfLine,
        }
    }
}

fn refused(line: &Line, error: &Error) -> Registered {
    let (_, code) = error.status_and_code(Plane::Control);
    let message: String = error.to_string().chars().take(MESSAGE_CHARS).collect();
    let report = json!({
        "lineNumber": line.number,
        "offset": line.offset,
        "errorCode": code,
        "errorMessage": message,
    });
    Registered { kind: ReportKind::Errors, report: report.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_every_line_from_a_device_is_not_the_fault_of_one() {
        let unsigned = |lasts| {
            let why = "there is no token".into();
            ProvisionError::Certificate(CertificateError::Signing(Unsigned { why, lasts }))
        };
        for (error, expected) in [
            (unsigned(false), Hindrance::Passes),
            (unsigned(true), Hindrance::Lasts),
            (CertificateError::KeyMismatch.into(), Hindrance::Lasts),
            (ProvisionError::NoIssuer, Hindrance::Lasts),
            (Unavailable.into(), Hindrance::Passes),
            (ProvisionError::Busy, Hindrance::Passes),
            (ProvisionError::Authority(Error::Unavailable), Hindrance::Passes),
            (ProvisionError::Authority(Error::Forbidden), Hindrance::OfLine),
            (CertificateError::RequestSignature.into(), Hindrance::OfLine),
            (ProvisionError::OtherCertificate, Hindrance::OfLine),
            (Rejection::RegistrationCodeNotFound.into(), Hindrance::OfLine),
        ] {
            assert_eq!(Hindrance::of(&error), expected, "{error:?}");
        }
    }
}
