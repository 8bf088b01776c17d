//! What AWS tools ask of STS: temporary credentials for a token of an OpenID Connect provider
//! (`AssumeRoleWithWebIdentity`), and who a caller is (`GetCallerIdentity`).
//!
//! Requests are forms that are posted to `/`, answers and errors are XML. The first operation is not
//! signed, as nobody has a key yet: it is throttled ([`throttle`]) before its body is read.

mod form;
mod throttle;
mod xml;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use authorizer::jwt::{InvalidToken, Person};
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Response, StatusCode, header};
use fleet::registry::{LONGEST_SESSION_SECS, Timestamp};
use metrics::counter;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::audit::{self, Actor, Attempt, Intent};
use crate::backend::Source;
use crate::error::Plane;
use crate::people::{PersonSession, Provider, Unidentified};
use crate::request::Caller;
use crate::rights::{Rights, Role};
use crate::service::Service;
use crate::sessions::{Session, seal};
use crate::sigv4::{self, AuthError, BodyHash};
use crate::{Backend, Error, credentials};

use form::Form;
use throttle::Throttle;
use xml::{element, text};

/// The service that requests are signed for.
const SERVICE: &str = "sts";
/// The version of its API.
const VERSION: &str = "2011-06-15";
/// Bytes of a body: that of a token with all that is asked beside it.
const BODY_BYTES: usize = 32 * 1024;
/// Tokens that are checked at the same time; more are told to come again.
const CONCURRENT: usize = 64;
/// How long credentials last when nobody says it, in seconds, if they may.
const USUAL_SECS: u32 = 3600;
/// The shortest time that may be asked for, in seconds.
const SHORTEST_SECS: u32 = 900;
/// What operations are called that people log in with.
const ASSUME_ROLE: &str = "AssumeRoleWithWebIdentity";

/// What bounds logging in.
pub(crate) struct Logins {
    throttle: Mutex<Throttle>,
    checks: Semaphore,
}

impl Default for Logins {
    fn default() -> Self {
        Self { throttle: Mutex::default(), checks: Semaphore::new(CONCURRENT) }
    }
}

impl Logins {
    fn admit(&self, source: Option<IpAddr>, now: Timestamp) -> bool {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner).admit(source, now)
    }
}

/// A refusal as STS words it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Failure {
    status: u16,
    code: &'static str,
    message: String,
}

impl Failure {
    fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "ValidationError", message)
    }

    fn throttled() -> Self {
        Self::new(400, "Throttling", "Rate exceeded")
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (status, code) = match &error {
            Error::Auth(error) => (403, code_of(error)),
            Error::Invalid(_) => (400, "ValidationError"),
            Error::TooLarge(_) => (413, "RequestEntityTooLarge"),
            Error::BodyTimeout => (408, "RequestTimeout"),
            Error::Throttled(_) => (400, "Throttling"),
            Error::Unavailable => (503, "ServiceUnavailable"),
            _ => (500, "InternalFailure"),
        };
        let message = if status == 500 { Error::Internal.to_string() } else { error.to_string() };
        Self::new(status, code, message)
    }
}

impl From<AuthError> for Failure {
    fn from(error: AuthError) -> Self {
        Error::from(error).into()
    }
}

/// As STS calls what is wrong with a signature.
fn code_of(error: &AuthError) -> &'static str {
    match error.code() {
        "MissingAuthenticationTokenException" => "MissingAuthenticationToken",
        "UnrecognizedClientException" => "InvalidClientTokenId",
        "ExpiredTokenException" => "ExpiredToken",
        "IncompleteSignatureException" => "IncompleteSignature",
        _ => "SignatureDoesNotMatch",
    }
}

impl From<Unidentified> for Failure {
    fn from(error: Unidentified) -> Self {
        match error {
            Unidentified::Token(error) => error.into(),
            Unidentified::NoProvider(_) => {
                Self::new(400, "InvalidIdentityToken", error.to_string())
            }
            Unidentified::NoKeys => Self::new(400, "IDPCommunicationError", error.to_string()),
        }
    }
}

impl From<InvalidToken> for Failure {
    fn from(error: InvalidToken) -> Self {
        let code = match error {
            InvalidToken::Expired => "ExpiredTokenException",
            _ => "InvalidIdentityToken",
        };
        Self::new(400, code, format!("The web identity token is not valid: {error}"))
    }
}

/// Whether a request is for STS.
pub(crate) fn is_meant(parts: &Parts) -> bool {
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
    let kind = kind.and_then(|it| it.split(';').next()).unwrap_or_default().trim();
    parts.method == Method::POST
        && parts.uri.path() == "/"
        && kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// Answers a request for STS.
pub(crate) async fn answer<B: Backend>(
    service: &Service<B>,
    parts: &Parts,
    unread: &mut Option<Body>,
    trace: &str,
) -> Response<Body> {
    let (status, xml) = match carry_out(service, parts, unread, trace).await {
        Ok((action, result)) => (200, xml::answer(action, &result, trace)),
        Err(failure) => {
            let Failure { status, code, message } = &failure;
            if *status >= 500 {
                tracing::warn!(%trace, code, why = message, "a request for STS failed");
            }
            (*status, xml::error(*status, code, message, trace))
        }
    };
    let mut response = Response::new(Body::from(xml));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/xml"));
    // There are credentials in it.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The operation, and its result in XML.
async fn carry_out<B: Backend>(
    service: &Service<B>,
    parts: &Parts,
    unread: &mut Option<Body>,
    trace: &str,
) -> Result<(&'static str, String), Failure> {
    let now = service.clock.now();
    let source = parts.extensions.get::<Source>().map(|Source(ip)| *ip);
    let headers = sigv4::headers(parts);
    let request = sigv4::Request::of(parts, &headers);
    let claim = if request.is_signed() {
        let claim = service.verifier.begin(&request, &[SERVICE], now.0 / 1000)?;
        Some(service.resolve(claim, now).await?)
    } else if service.logins.admit(source, now) {
        None
    } else {
        counter!("api_logins_total", "result" => "Throttling").increment(1);
        return Err(Failure::throttled());
    };
    let body = service.read_body(parts, unread, BODY_BYTES).await?;
    // It may have taken its time.
    let now = service.clock.now();
    let caller = match claim {
        Some((claim, session)) => {
            let signer = claim.finish(&request, BodyHash::of(&body))?;
            let caller = service.caller(signer, session, parts, source)?;
            service.throttle(&caller, Plane::Control, now)?;
            Some(caller)
        }
        None => None,
    };
    let form = Form::read(&body)?;
    match (form.operation()?, caller) {
        (ASSUME_ROLE, _) => {
            let result = assume_role(service, &form, (source, now), trace).await;
            let code = result.as_ref().map_or_else(|failure| failure.code, |_| "ok");
            counter!("api_logins_total", "result" => code).increment(1);
            Ok((ASSUME_ROLE, result?))
        }
        ("GetCallerIdentity", Some(caller)) => {
            Ok(("GetCallerIdentity", identity(service.arns.account(), &caller)))
        }
        ("GetCallerIdentity", None) => Err(AuthError::Missing.into()),
        (other, _) => {
            let text = format!("Could not find operation {other} for version {VERSION}");
            Err(Failure::new(400, "InvalidAction", text))
        }
    }
}

/// What somebody asks for who logs in.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    role_arn: String,
    session: String,
    token: String,
    duration_secs: Option<u32>,
}

impl Asked {
    fn read(form: &Form) -> Result<Self, Failure> {
        // A session that may do less than its role is not offered: giving all of it would be wrong.
        if let Some(name) = form.names().find(|it| it.starts_with("Policy") || *it == "ProviderId")
        {
            return Err(Failure::invalid(format!("{name} is not offered here")));
        }
        let role_arn = form.text("RoleArn", 20..=2048)?;
        let session = form.text("RoleSessionName", 2..=64)?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
        if !session.bytes().all(is_plain) {
            let text = "RoleSessionName has other characters than A-Z, a-z, 0-9 and _+=,.@-";
            return Err(Failure::invalid(text));
        }
        let token = form.text("WebIdentityToken", 4..=20_000)?;
        let duration_secs = match form.get("DurationSeconds") {
            None => None,
            Some(text) => match text.parse() {
                Ok(seconds @ SHORTEST_SECS..=LONGEST_SESSION_SECS) => Some(seconds),
                _ => {
                    return Err(Failure::invalid(format!(
                        "DurationSeconds must be a number from {SHORTEST_SECS} to \
                         {LONGEST_SESSION_SECS}"
                    )));
                }
            },
        };
        let own = |text: &str| text.to_owned();
        Ok(Self {
            role_arn: own(role_arn),
            session: own(session),
            token: own(token),
            duration_secs,
        })
    }

    /// How long the credentials last that a provider gives.
    fn duration_secs(&self, provider: &Provider) -> Result<u32, Failure> {
        let longest = provider.max_session_secs;
        match self.duration_secs {
            None => Ok(USUAL_SECS.min(longest)),
            Some(seconds) if seconds <= longest => Ok(seconds),
            Some(_) => Err(Failure::invalid(format!(
                "The requested DurationSeconds exceeds the MaxSessionDuration set for this role: \
                 {longest}, max_session of the provider"
            ))),
        }
    }
}

/// The account and the role that an ARN names.
fn parse_role_arn(arn: &str) -> Result<(&str, &str), Failure> {
    let invalid =
        || Failure::invalid(format!("{arn} is invalid: not arn:aws:iam::ACCOUNT:role/ROLE"));
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let ["arn", partition, "iam", "", account, resource] = parts[..] else { return Err(invalid()) };
    let role = resource.strip_prefix("role/").filter(|role| !role.is_empty());
    match role.filter(|_| partition.starts_with("aws")) {
        Some(role) => Ok((account, role)),
        None => Err(invalid()),
    }
}

async fn assume_role<B: Backend>(
    service: &Service<B>,
    form: &Form,
    (source, now): (Option<IpAddr>, Timestamp),
    trace: &str,
) -> Result<String, Failure> {
    let asked = Asked::read(form)?;
    let (account, role_name) = parse_role_arn(&asked.role_arn)?;
    let (provider, claims) = {
        let _place = service.logins.checks.try_acquire().map_err(|_| Failure::throttled())?;
        service.backend.web_identity(asked.token.clone()).await?
    };
    let person = claims.person(&provider.issuer, &provider.audience, now.0 / 1000)?;
    // From here on it is known who asks.
    let role = Role::named(role_name);
    let of_account = role.filter(|_| account == service.arns.account());
    let rights = of_account.and_then(|role| provider.rights(&claims, role));
    let intent = |rights: Option<&Rights>| Intent {
        actor: Actor::Person {
            issuer: provider.issuer.clone(),
            subject: person.subject.clone(),
            name: person.name.clone(),
            role: rights.map_or("none", |rights| rights.role.as_str()),
            session: asked.session.clone(),
        },
        source,
        operation: ASSUME_ROLE.to_owned(),
        resource: Some(audit::shortened(&asked.role_arn).to_owned()),
        request: trace.to_owned(),
    };
    let Some(rights) = rights else {
        let reason = if account != service.arns.account() {
            "the role is of another account"
        } else if role.is_none() {
            "there is no such role: there are admin, operator and read-only"
        } else {
            "no rule of the provider gives it to this person"
        };
        let (provider, subject) = (&provider.name, &person.subject);
        let asked = audit::shortened(&asked.role_arn);
        tracing::info!(provider, subject, role = asked, reason, "a person does not get a role");
        let failure = Failure::new(
            403,
            "AccessDenied",
            format!(
                "Not authorized to perform sts:{ASSUME_ROLE}: no rule of {provider} gives you this role"
            ),
        );
        if let Some(ledger) = &service.ledger {
            let attempt = Attempt::refused(ledger, intent(None));
            // It is refused either way.
            let _ = attempt.end(audit::Outcome::Denied, Some(failure.code.into()), now).await;
        }
        return Err(failure);
    };
    let duration_secs = asked.duration_secs(&provider)?;
    let attempt = Attempt::begin(service.ledger.as_ref(), || intent(Some(&rights)));
    let attempt = attempt.map_err(Error::from)?;
    let session = PersonSession {
        provider: provider.name.clone(),
        issuer: provider.issuer.clone(),
        subject: person.subject.clone(),
        name: person.name.clone(),
        session: asked.session.clone(),
        rights,
        // In whole seconds, as it is told.
        expires: Timestamp((now.0 / 1000 + u64::from(duration_secs)) * 1000),
    };
    let given = give(service, &attempt, session, &person, &provider, now).await;
    let classify = |failure: &Failure| (audit::Outcome::of_status(failure.status), failure.code);
    attempt.conclude(&given, classify, service.clock.now()).await.map_err(Error::from)?;
    given
}

/// Makes the credentials of a session.
async fn give<B: Backend>(
    service: &Service<B>,
    attempt: &Attempt,
    session: PersonSession,
    person: &Person,
    provider: &Provider,
    now: Timestamp,
) -> Result<String, Failure> {
    let api = service.api(attempt);
    let key = credentials::sealing_key(&api, now).await?;
    let session = Arc::new(session);
    let made = seal(&Session::Person(Arc::clone(&session)), &key, rand::random());
    let made = made.ok_or(Error::Internal)?;
    let role = session.rights.role.as_str();
    tracing::info!(
        provider = provider.name,
        subject = person.subject,
        role,
        key = made.access_key_id,
        "a person has logged in"
    );
    let account = service.arns.account();
    Ok([
        text("SubjectFromWebIdentityToken", &person.subject),
        text("Audience", &provider.audience),
        text("Provider", &provider.issuer),
        element(
            "AssumedRoleUser",
            &[
                text("Arn", &assumed(account, role, &session.session)),
                text("AssumedRoleId", &assumed_id(account, role, &session.session)),
            ],
        ),
        element(
            "Credentials",
            &[
                text("AccessKeyId", &made.access_key_id),
                text("SecretAccessKey", &made.secret_access_key),
                text("SessionToken", &made.session_token),
                text("Expiration", &credentials::written(session.expires)?),
            ],
        ),
    ]
    .concat())
}

/// Who somebody is.
fn identity(account: &str, caller: &Caller) -> String {
    let (arn, id) = match caller {
        Caller::AccessKey(id, _) => (format!("arn:aws:iam::{account}:user/{id}"), id.clone()),
        Caller::Person(session) => {
            let role = session.rights.role.as_str();
            (assumed(account, role, &session.session), assumed_id(account, role, &session.session))
        }
        Caller::Certificate(device) => {
            let alias = device.session.as_ref().map_or("", |session| session.alias.as_str());
            let certificate = device.certificate.as_str();
            (assumed(account, alias, certificate), assumed_id(account, alias, certificate))
        }
        Caller::Authorized(client) => {
            let (by, who) = (&client.authorizer, &client.principal_id);
            (assumed(account, by, who), assumed_id(account, by, who))
        }
    };
    [text("UserId", &id), text("Account", account), text("Arn", &arn)].concat()
}

/// The ARN of a session.
fn assumed(account: &str, role: &str, session: &str) -> String {
    format!("arn:aws:sts::{account}:assumed-role/{role}/{session}")
}

/// What AWS calls the unique id of a session: that of its role, and its name.
fn assumed_id(account: &str, role: &str, session: &str) -> String {
    let hash = hex::encode_upper(Sha256::digest(format!("{account}/{role}")));
    format!("AROA{}:{session}", &hash[..16])
}
