//! From an HTTP request to an operation and back.

mod body;
mod caller;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response, header};
use axum::routing::get;
use bytes::Bytes;
use fleet::registry::{Command, Outcome, Page, Paging, Registry};
use policy::Action;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::arn::Arns;
use crate::audit::{self, Actor, Attempt, Intent, Ledger, Watch};
use crate::backend::{CertificateCaller, Source, Unidentified};
use crate::error::Plane;
use crate::metrics::ApiMetrics;
use crate::paging::Cursor;
use crate::provisioning::{Issuing, Provisioner};
use crate::request::{Call, Caller, parameters};
use crate::routes::{self, Operation};
use crate::sessions::Session;
use crate::sigv4::{self, BodyHash, Verifier};
use crate::throttle::Rates;
use crate::{
    Backend, Clock, Config, Endpoints, Error, authorities, authorizers, billing_groups,
    certificates, connections, credentials, dynamic_groups, effective, endpoint, events, openapi,
    policies, principals, provisioning, publish, registration_tasks, retained, role_aliases,
    shadows, sts, tagging, templates, thing_groups, thing_types, things, transfers,
};

/// The largest body that is read, and hashed, at all.
const BODY_BYTES: usize = 1024 * 1024;
/// Session tokens, and links to reports, whose keys are looked up at the same time; more are told to come
/// again.
const CONCURRENT_LOOK_UPS: usize = 64;
/// Requests that custom authorizers are asked about at the same time; more are told to come again.
const CONCURRENT_STRANGERS: usize = 64;
/// Requests that are carried out at the same time; more are told to come again.
const CONCURRENT: usize = 512;
/// How often a list goes on looking when a filter left its page empty.
const ROUNDS: usize = 20;

/// Control plane and data plane on one port, told apart by the service that a request is signed for.
pub fn router<B: Backend>(backend: B, config: Config) -> Router {
    serve(backend, config, Door::Signed)
}

/// The data plane and the credentials provider, where a request is signed or carries a
/// [`CertificateCaller`] in its extensions, put there by whoever ended its TLS.
pub fn data_plane<B: Backend>(backend: B, config: Config) -> Router {
    serve(backend, config, Door::Data)
}

fn serve<B: Backend>(backend: B, config: Config, door: Door) -> Router {
    let service = Arc::new(Service::new(backend, config));
    // Paths are matched by `routes`, which sees them as they came: axum would decode them first.
    let reports = Arc::clone(&service);
    let router = Router::new()
        .fallback(move |request: Request| async move { service.answer(request, door).await });
    match door {
        Door::Data => router,
        // Their links prove by themselves who may read them.
        Door::Signed => router.route(
            registration_tasks::REPORT_PATH,
            get(async move |wanted, link| registration_tasks::report(&reports, wanted, link).await),
        ),
    }
}

/// Where a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Signed,
    Data,
}

/// The answer of an operation.
#[derive(Debug)]
pub(crate) enum Reply {
    /// A JSON object.
    Json(Value),
    /// JSON that is there as bytes already.
    Raw(Bytes),
    /// Nothing to say.
    Empty,
}

/// What the operations share.
pub(crate) struct Api<B> {
    pub(crate) backend: B,
    pub(crate) arns: Arns,
    pub(crate) endpoints: Endpoints,
    pub(crate) thing_types_deprecated_for: Duration,
    pub(crate) issuing: Issuing,
    pub(crate) provisioner: Provisioner<B>,
    /// Notes what is proposed.
    watch: Watch,
}

/// What takes requests.
pub(crate) struct Service<B> {
    pub(crate) backend: B,
    pub(crate) arns: Arns,
    endpoints: Endpoints,
    thing_types_deprecated_for: Duration,
    issuing: Issuing,
    pub(crate) ledger: Option<Ledger>,
    pub(crate) clock: Clock,
    pub(crate) verifier: Verifier,
    pub(crate) logins: sts::Logins,
    requests: Semaphore,
    large_bodies: Semaphore,
    pub(crate) look_ups: Semaphore,
    pub(crate) reports: Semaphore,
    strangers: Semaphore,
    rates: Rates,
    metrics: ApiMetrics,
}

impl<B: Backend> Service<B> {
    fn new(backend: B, config: Config) -> Self {
        Self {
            backend,
            arns: Arns::new(&config),
            verifier: config.verifier(),
            endpoints: config.endpoints,
            thing_types_deprecated_for: config.thing_types_deprecated_for,
            issuing: config.issuing,
            ledger: config.ledger,
            clock: config.clock,
            logins: sts::Logins::default(),
            requests: Semaphore::new(CONCURRENT),
            large_bodies: Semaphore::new(body::LARGE),
            look_ups: Semaphore::new(CONCURRENT_LOOK_UPS),
            reports: Semaphore::new(registration_tasks::CONCURRENT_REPORTS),
            strangers: Semaphore::new(CONCURRENT_STRANGERS),
            rates: config.rates,
            metrics: ApiMetrics::register(),
        }
    }

    /// What an operation works with whose changes belong to an attempt.
    pub(crate) fn api(&self, attempt: &Attempt) -> Api<B> {
        let (backend, issuing) = (self.backend.clone(), self.issuing.clone());
        let watch = attempt.watch();
        Api {
            provisioner: Provisioner::new(backend.clone(), Some(issuing.clone()), watch.clone()),
            backend,
            watch,
            arns: self.arns.clone(),
            endpoints: self.endpoints.clone(),
            thing_types_deprecated_for: self.thing_types_deprecated_for,
            issuing,
        }
    }

    /// What is recorded of a request.
    fn intent(
        &self,
        matched: (Operation, &[String]),
        actor: Actor,
        source: Option<IpAddr>,
        trace: &str,
    ) -> Intent {
        let (operation, labels) = matched;
        let named = operation.kind().zip(labels.first());
        Intent {
            actor,
            source,
            operation: operation.name().to_owned(),
            resource: named.map(|(kind, name)| self.arns.named(kind, audit::shortened(name))),
            request: trace.to_owned(),
        }
    }

    async fn answer(&self, request: Request, door: Door) -> Response<Body> {
        let trace = Uuid::new_v4().to_string();
        let (parts, body) = request.into_parts();
        let mut unread = Some(body);
        let mut response = if sts::is_meant(&parts) {
            sts::answer(self, &parts, &mut unread, &trace).await
        } else {
            self.answer_api(&parts, &mut unread, door, &trace).await
        };
        if let Ok(id) = HeaderValue::from_str(&trace) {
            response.headers_mut().insert("x-amzn-requestid", id);
        }
        if unread.is_some_and(|body| !body.is_end_stream()) {
            // The connection ends with an answer that did not wait for the body: say so, or its
            // client would send the next request on it.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    async fn answer_api(
        &self,
        parts: &Parts,
        unread: &mut Option<Body>,
        door: Door,
        trace: &str,
    ) -> Response<Body> {
        let mut plane = plane_of_path(door, parts);
        match self.carry_out(parts, unread, door, &mut plane, trace).await {
            Ok(reply) => reply.response(),
            Err(error) => {
                let (status, code) = error.status_and_code(plane);
                if status >= 500 {
                    tracing::warn!(%trace, code, %error, path = parts.uri.path(), "request failed");
                }
                error.response(plane, trace)
            }
        }
    }

    async fn carry_out(
        &self,
        parts: &Parts,
        unread: &mut Option<Body>,
        door: Door,
        plane: &mut Plane,
        trace: &str,
    ) -> Result<Reply, Error> {
        let now = self.clock.now();
        let headers = sigv4::headers(parts);
        let request = sigv4::Request::of(parts, &headers);
        routes::check_segments(request.path)?;
        let certificate = parts.extensions.get::<CertificateCaller>();
        let unidentified = parts.extensions.get::<Unidentified>();
        let unidentified =
            unidentified.filter(|_| door == Door::Data && !request.is_signed_by_key());
        let claim = match certificate {
            None if unidentified.is_some() && *plane == Plane::Data => None,
            Some(_) if door == Door::Data && !request.is_signed() => None,
            _ if *plane == Plane::Credentials => return Err(credentials::not_a_device()),
            _ => Some(self.claim(&request, door, now.0 / 1000, plane)?),
        };
        let (claim, session) = match claim {
            Some(claim) => {
                let (claim, session) = self.resolve(claim, now).await?;
                if *plane == Plane::Control && matches!(session, Some(Session::Device(_))) {
                    let text = "temporary credentials of devices are for the data plane";
                    return Err(Error::AccessDenied(text.into()));
                }
                (Some(claim), session)
            }
            None => (None, None),
        };
        let matched = routes::find(*plane, request.method, request.path)?;
        let source = parts.extensions.get::<Source>().map(|Source(ip)| *ip);
        let authorized = match unidentified {
            // Before its body is read: it has proved nothing yet.
            Some(by) if claim.is_none() && certificate.is_none() => {
                Some(self.ask_authorizer(by, parts, source).await?)
            }
            _ => None,
        };
        let body = self.read_body(parts, unread, BODY_BYTES).await?;
        // It may have taken its time.
        let now = self.clock.now();
        let caller = match (claim, certificate) {
            (Some(claim), _) => {
                let signer = claim.finish(&request, BodyHash::of(&body))?;
                self.caller(signer, session, parts, source)?
            }
            (None, Some(certificate)) => Caller::Certificate(certificate.clone()),
            (None, None) => match authorized {
                Some(authorized) => Caller::Authorized(authorized),
                None => return Err(sigv4::AuthError::Missing.into()),
            },
        };
        self.throttle(&caller, *plane, now)?;
        self.check_rights(&caller, &matched, source, (*plane, trace, now)).await?;
        // Not before: whoever only sends slowly, or has no key, holds nothing that others wait for.
        let _permit = self.requests.try_acquire().map_err(|_| Error::Unavailable)?;
        let call = Call {
            operation: matched.operation,
            labels: matched.labels,
            query: parameters(request.query)?,
            headers: parts.headers.clone(),
            body,
            caller,
            now,
            trace: trace.to_owned(),
        };
        let result = self.carry_out_recorded(&call, source, *plane).await;
        debug_assert_eq!(
            openapi::surprise(call.operation, *plane, &result),
            None,
            "{:?} is not described so",
            call.operation
        );
        let status = result.as_ref().map_or_else(|error| error.status_and_code(*plane).0, |_| 200);
        self.metrics.answered(call.operation, status);
        result
    }

    /// Carries out an operation, and records it if it is a change.
    async fn carry_out_recorded(
        &self,
        call: &Call,
        source: Option<IpAddr>,
        plane: Plane,
    ) -> Result<Reply, Error> {
        let attempt = match call.operation.is_change() {
            true => Attempt::begin(self.ledger.as_ref(), || {
                let matched = (call.operation, &*call.labels);
                let source = source.or(call.caller.source());
                self.intent(matched, call.caller.actor(), source, &call.trace)
            })?,
            false => Attempt::unrecorded(),
        };
        let api = self.api(&attempt);
        let result = api.call(call).await;
        let classify = |error: &Error| {
            let (status, code) = error.status_and_code(plane);
            (audit::Outcome::of_status(status), code)
        };
        attempt.conclude(&result, classify, self.clock.now()).await?;
        result
    }
}

impl<B: Backend> Api<B> {
    async fn call(&self, call: &Call) -> Result<Reply, Error> {
        use Operation as O;
        match call.operation {
            O::CreateThing => things::create(self, call).await,
            O::DescribeThing => things::describe(self, call).await,
            O::UpdateThing => things::update(self, call).await,
            O::DeleteThing => things::delete(self, call).await,
            O::ListThings => things::list(self, call).await,
            O::CreateThingType => thing_types::create(self, call).await,
            O::DescribeThingType => thing_types::describe(self, call).await,
            O::UpdateThingType => thing_types::update(self, call).await,
            O::DeprecateThingType => thing_types::deprecate(self, call).await,
            O::DeleteThingType => thing_types::delete(self, call).await,
            O::ListThingTypes => thing_types::list(self, call).await,
            O::AttachThingPrincipal => principals::attach_thing(self, call).await,
            O::DetachThingPrincipal => principals::detach_thing(self, call).await,
            O::ListThingPrincipals => principals::of_thing(self, call).await,
            O::ListThingPrincipalsV2 => principals::of_thing_v2(self, call).await,
            O::ListPrincipalThings => principals::things(self, call).await,
            O::ListPrincipalThingsV2 => principals::things_v2(self, call).await,
            O::CreateKeysAndCertificate => certificates::create_keys(self, call).await,
            O::CreateCertificateFromCsr => certificates::create_from_csr(self, call).await,
            O::RegisterCertificate => certificates::register(self, call).await,
            O::RegisterCertificateWithoutCA => certificates::register_without_ca(self, call).await,
            O::DescribeCertificate => certificates::describe(self, call).await,
            O::UpdateCertificate => certificates::update(self, call).await,
            O::DeleteCertificate => certificates::delete(self, call).await,
            O::ListCertificates => certificates::list(self, call).await,
            O::CreatePolicy => policies::create(self, call).await,
            O::GetPolicy => policies::get(self, call).await,
            O::DeletePolicy => policies::delete(self, call).await,
            O::ListPolicies => policies::list(self, call).await,
            O::CreatePolicyVersion => policies::create_version(self, call).await,
            O::GetPolicyVersion => policies::get_version(self, call).await,
            O::SetDefaultPolicyVersion => policies::set_default_version(self, call).await,
            O::DeletePolicyVersion => policies::delete_version(self, call).await,
            O::ListPolicyVersions => policies::list_versions(self, call).await,
            O::AttachPolicy => principals::attach_policy(self, call).await,
            O::DetachPolicy => principals::detach_policy(self, call).await,
            O::ListAttachedPolicies => principals::attached_policies(self, call).await,
            O::ListTargetsForPolicy => principals::targets(self, call).await,
            O::AttachPrincipalPolicy => principals::attach_principal_policy(self, call).await,
            O::DetachPrincipalPolicy => principals::detach_principal_policy(self, call).await,
            O::ListPrincipalPolicies => principals::principal_policies(self, call).await,
            O::ListPolicyPrincipals => principals::policy_principals(self, call).await,
            O::GetEffectivePolicies => effective::policies(self, call).await,
            O::TestAuthorization => effective::test(self, call).await,
            O::CreateThingGroup => thing_groups::create(self, call).await,
            O::DescribeThingGroup => thing_groups::describe(self, call).await,
            O::UpdateThingGroup => thing_groups::update(self, call).await,
            O::DeleteThingGroup => thing_groups::delete(self, call).await,
            O::CreateDynamicThingGroup => dynamic_groups::create(self, call).await,
            O::UpdateDynamicThingGroup => dynamic_groups::update(self, call).await,
            O::DeleteDynamicThingGroup => dynamic_groups::delete(self, call).await,
            O::ListThingGroups => thing_groups::list(self, call).await,
            O::ListThingGroupsForThing => thing_groups::of_thing(self, call).await,
            O::ListThingsInThingGroup => thing_groups::things(self, call).await,
            O::AddThingToThingGroup => thing_groups::add(self, call).await,
            O::RemoveThingFromThingGroup => thing_groups::remove(self, call).await,
            O::UpdateThingGroupsForThing => thing_groups::update_of_thing(self, call).await,
            O::CreateBillingGroup => billing_groups::create(self, call).await,
            O::DescribeBillingGroup => billing_groups::describe(self, call).await,
            O::UpdateBillingGroup => billing_groups::update(self, call).await,
            O::DeleteBillingGroup => billing_groups::delete(self, call).await,
            O::ListBillingGroups => billing_groups::list(self, call).await,
            O::AddThingToBillingGroup => billing_groups::add(self, call).await,
            O::RemoveThingFromBillingGroup => billing_groups::remove(self, call).await,
            O::ListThingsInBillingGroup => billing_groups::things(self, call).await,
            O::GetRegistrationCode => authorities::code(self, call).await,
            O::DeleteRegistrationCode => authorities::delete_code(self, call).await,
            O::RegisterCACertificate => authorities::register(self, call).await,
            O::DescribeCACertificate => authorities::describe(self, call).await,
            O::UpdateCACertificate => authorities::update(self, call).await,
            O::DeleteCACertificate => authorities::delete(self, call).await,
            O::ListCACertificates => authorities::list(self, call).await,
            O::ListCertificatesByCA => authorities::certificates(self, call).await,
            O::TransferCertificate => transfers::transfer(self, call).await,
            O::AcceptCertificateTransfer
            | O::RejectCertificateTransfer
            | O::CancelCertificateTransfer => transfers::end(self, call).await,
            O::ListOutgoingCertificates => transfers::outgoing(self, call).await,
            O::DescribeEventConfigurations => events::describe(self, call).await,
            O::UpdateEventConfigurations => events::update(self, call).await,
            O::RegisterThing => provisioning::register_thing(self, call).await,
            O::StartThingRegistrationTask => registration_tasks::start(self, call).await,
            O::ListThingRegistrationTasks => registration_tasks::list(self, call).await,
            O::DescribeThingRegistrationTask => registration_tasks::describe(self, call).await,
            O::StopThingRegistrationTask => registration_tasks::stop(self, call).await,
            O::ListThingRegistrationTaskReports => registration_tasks::reports(self, call).await,
            O::CreateProvisioningTemplate => templates::create(self, call).await,
            O::DescribeProvisioningTemplate => templates::describe(self, call).await,
            O::UpdateProvisioningTemplate => templates::update(self, call).await,
            O::DeleteProvisioningTemplate => templates::delete(self, call).await,
            O::ListProvisioningTemplates => templates::list(self, call).await,
            O::CreateProvisioningTemplateVersion => templates::create_version(self, call).await,
            O::DescribeProvisioningTemplateVersion => templates::describe_version(self, call).await,
            O::DeleteProvisioningTemplateVersion => templates::delete_version(self, call).await,
            O::ListProvisioningTemplateVersions => templates::list_versions(self, call).await,
            O::CreateProvisioningClaim => provisioning::create_claim(self, call).await,
            O::CreateAuthorizer => authorizers::create(self, call).await,
            O::DescribeAuthorizer => authorizers::describe(self, call).await,
            O::UpdateAuthorizer => authorizers::update(self, call).await,
            O::DeleteAuthorizer => authorizers::delete(self, call).await,
            O::ListAuthorizers => authorizers::list(self, call).await,
            O::SetDefaultAuthorizer => authorizers::set_default(self, call).await,
            O::DescribeDefaultAuthorizer => authorizers::describe_default(self, call).await,
            O::ClearDefaultAuthorizer => authorizers::clear_default(self, call).await,
            O::TestInvokeAuthorizer => authorizers::test(self, call).await,
            O::CreateRoleAlias => role_aliases::create(self, call).await,
            O::DescribeRoleAlias => role_aliases::describe(self, call).await,
            O::UpdateRoleAlias => role_aliases::update(self, call).await,
            O::DeleteRoleAlias => role_aliases::delete(self, call).await,
            O::ListRoleAliases => role_aliases::list(self, call).await,
            O::TagResource => tagging::tag(self, call).await,
            O::UntagResource => tagging::untag(self, call).await,
            O::ListTagsForResource => tagging::list(self, call).await,
            O::DescribeEndpoint => endpoint::describe(self, call),
            O::AssumeRoleWithCertificate => credentials::provide(self, call).await,
            O::GetThingShadow => shadows::get(self, call).await,
            O::UpdateThingShadow => shadows::update(self, call).await,
            O::DeleteThingShadow => shadows::delete(self, call).await,
            O::ListNamedShadowsForThing => shadows::list_names(self, call).await,
            O::Publish => publish::publish(self, call).await,
            O::ListRetainedMessages => retained::list(self, call).await,
            O::GetRetainedMessage => retained::get(self, call).await,
            O::GetConnection => connections::get(self, call).await,
            O::DeleteConnection => connections::delete(self, call).await,
            O::ListSubscriptions => connections::subscriptions(self, call).await,
        }
    }

    /// Has the registry change.
    pub(crate) async fn propose(&self, command: Command) -> Result<Outcome, Error> {
        let proposed = self.watch.propose(&self.backend, command).await;
        proposed.map_err(|error| Error::proposed(error, &self.arns))
    }

    /// Reads the registry.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Registry) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.backend.registry_read(read).await?
    }

    /// Answers with a page of a list of the registry, under this name.
    pub(crate) async fn list(
        &self,
        cursor: Cursor,
        member: &str,
        read: impl Fn(&Registry, &Paging) -> Result<Page<Value>, Error> + Clone + Send + 'static,
    ) -> Result<Reply, Error> {
        let mut paging = cursor.paging.clone();
        let mut items = Vec::new();
        for _ in 0..ROUNDS {
            let (read, asked) = (read.clone(), paging.clone());
            let page = self.read(move |registry| read(registry, &asked)).await?;
            items.extend(page.items);
            paging.limit = cursor.paging.limit - items.len();
            paging.after = page.next;
            if paging.limit == 0 || paging.after.is_none() {
                break;
            }
        }
        Ok(cursor.reply(member, items, paging.after))
    }

    /// Whose role allows the operation may do it with everything, a device with what its policies allow.
    pub(crate) async fn authorize(
        &self,
        call: &Call,
        action: Action,
        resource: String,
    ) -> Result<(), Error> {
        let decision = match &call.caller {
            Caller::AccessKey(..) | Caller::Person(_) => return Ok(()),
            Caller::Certificate(caller) => self.backend.authorize(caller, action, resource).await,
            Caller::Authorized(caller) => {
                let now_secs = Some(call.now.0 / 1000);
                let request = policy::Request { now_secs, ..policy::Request::default() };
                caller.policy.decide(action, &resource, &request)
            }
        };
        if decision.is_allowed() { Ok(()) } else { Err(Error::Forbidden) }
    }
}

impl Cursor {
    /// A page under its name, with the token for the next one.
    pub(crate) fn reply(&self, member: &str, items: Vec<Value>, next: Option<String>) -> Reply {
        let mut body = Map::from_iter([(member.to_owned(), Value::Array(items))]);
        if let Some(place) = next {
            body.insert(self.next.to_owned(), self.token(&place).into());
        }
        Reply::Json(Value::Object(body))
    }
}

impl Reply {
    fn response(self) -> Response<Body> {
        let body = match self {
            Self::Json(value) => Body::from(value.to_string()),
            Self::Raw(bytes) => Body::from(bytes),
            Self::Empty => Body::from("{}"),
        };
        let mut response = Response::new(body);
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response
    }
}

/// Which API an answer is for when the request does not get as far as saying so.
fn plane_of_path(door: Door, parts: &Parts) -> Plane {
    if door == Door::Data && routes::has(Plane::Credentials, parts.uri.path()) {
        return Plane::Credentials;
    }
    let is_data = routes::find(Plane::Data, parts.method.as_str(), parts.uri.path()).is_ok();
    if door == Door::Data || is_data { Plane::Data } else { Plane::Control }
}
