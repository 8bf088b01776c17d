//! Who sends a request, and whether its role is for that.

use std::net::IpAddr;

use axum::http::HeaderValue;
use axum::http::header::HOST;
use axum::http::request::Parts;
use fleet::registry::Timestamp;

use super::{Door, Service};
use crate::audit::{self, Attempt};
use crate::backend::{AuthorizedCaller, ServerName, Unidentified};
use crate::error::Plane;
use crate::request::Caller;
use crate::routes::{CONTROL_SERVICES, DATA_SERVICES, Matched};
use crate::sessions::{self, Session};
use crate::sigv4::{self, AuthError, Claim, Signer};
use crate::{Backend, Error};

/// The name that the sender of a request has asked for.
fn domain_name(parts: &Parts) -> Option<String> {
    if let Some(ServerName(name)) = parts.extensions.get::<ServerName>() {
        return name.clone();
    }
    let mut hosts = parts.headers.get_all(HOST).iter();
    let host = hosts.next().filter(|_| hosts.next().is_none())?;
    policy::domain_name(host.to_str().ok()?)
}

impl<B: Backend> Service<B> {
    /// Recognises who signs with temporary credentials.
    pub(crate) async fn resolve<'v>(
        &self,
        claim: Claim<'v>,
        now: Timestamp,
    ) -> Result<(Claim<'v>, Option<Session>), Error> {
        // Whoever has made up a token has proved nothing yet.
        let _look = match claim.session_token() {
            Some(_) => Some(self.look_ups.try_acquire().map_err(|_| Error::Unavailable)?),
            None => None,
        };
        sessions::resolve(&self.backend, claim, now).await
    }

    /// Who has signed a request.
    pub(crate) fn caller(
        &self,
        signer: Signer,
        session: Option<Session>,
        parts: &Parts,
        source: Option<IpAddr>,
    ) -> Result<Caller, Error> {
        match session {
            Some(Session::Device(session)) => {
                Ok(Caller::of_session(session, source, domain_name(parts)))
            }
            Some(Session::Person(session)) => Ok(Caller::Person(session)),
            None => match self.verifier.rights(&signer.access_key) {
                Some(rights) => Ok(Caller::AccessKey(signer.access_key, rights)),
                None => Err(AuthError::UnknownKey(signer.access_key).into()),
            },
        }
    }

    /// Refuses what is more than a caller may ask for now. That is not recorded: whoever asks too often
    /// would fill the audit log. The time is the present one: an older one would forgive what was asked for
    /// since.
    pub(crate) fn throttle(
        &self,
        caller: &Caller,
        plane: Plane,
        now: Timestamp,
    ) -> Result<(), Error> {
        let identity = caller.identity();
        let is_admitted = match plane {
            Plane::Control => self.rates.admit_control(identity, now),
            Plane::Data | Plane::Credentials => self.rates.admit_data(identity, now),
        };
        if is_admitted {
            return Ok(());
        }
        self.metrics.throttled(plane);
        Err(Error::Throttled("Rate exceeded".into()))
    }

    /// Refuses what the role of a caller does not give, if it acts by one, and records that somebody
    /// has wanted to change something.
    pub(super) async fn check_rights(
        &self,
        caller: &Caller,
        matched: &Matched,
        source: Option<IpAddr>,
        (plane, trace, now): (Plane, &str, Timestamp),
    ) -> Result<(), Error> {
        let Matched { operation, labels } = matched;
        let refusal = caller.rights().and_then(|rights| rights.refusal(*operation, labels));
        let Some(refusal) = refusal else { return Ok(()) };
        let error = Error::AccessDenied(match caller {
            Caller::AccessKey(id, _) => format!("the access key {id} {refusal}"),
            _ => format!("the session {refusal}"),
        });
        if let Some(ledger) = self.ledger.as_ref().filter(|_| operation.is_change()) {
            let intent = self.intent((*operation, labels), caller.actor(), source, trace);
            let attempt = Attempt::refused(ledger, intent);
            let code = error.status_and_code(plane).1.to_owned();
            // It is refused either way.
            let _ = attempt.end(audit::Outcome::Denied, Some(code), now).await;
        }
        Err(error)
    }

    /// Who sends a request that is not signed, by what a custom authorizer says.
    pub(super) async fn ask_authorizer(
        &self,
        by: &Unidentified,
        parts: &Parts,
        source: Option<IpAddr>,
    ) -> Result<AuthorizedCaller, Error> {
        let text = |value: &HeaderValue| String::from_utf8(value.as_bytes().to_vec());
        let headers = parts.headers.iter().map(|(name, value)| {
            let text = text(value).map_err(|_| authorizer::Refusal::Unreadable)?;
            Ok((name.as_str().to_owned(), text))
        });
        let headers = headers.collect::<Result<_, authorizer::Refusal>>()?;
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let http = Some(authorizer::Http { headers, query });
        let presented = authorizer::Presented { tls: Some(by.tls.clone()), http, mqtt: None };
        let _permit = self.strangers.try_acquire().map_err(|_| Error::Unavailable)?;
        let found = self.backend.ask_authorizer(presented, source).await?;
        found.ok_or_else(|| AuthError::Missing.into())
    }

    /// Checks what can be checked before the body is read, and learns which API is meant.
    pub(super) fn claim<'a>(
        &'a self,
        request: &sigv4::Request<'_>,
        door: Door,
        now_secs: u64,
        plane: &mut Plane,
    ) -> Result<Claim<'a>, Error> {
        let both = [CONTROL_SERVICES, DATA_SERVICES].concat();
        let services = if door == Door::Data { DATA_SERVICES } else { &both };
        let claim =
            self.verifier.begin(request, services, now_secs).map_err(|error| match error {
                AuthError::Service(service) if CONTROL_SERVICES.contains(&&*service) => {
                    AuthError::ControlPlane(service)
                }
                error => error,
            })?;
        let is_control = CONTROL_SERVICES.contains(&claim.service());
        *plane = if is_control { Plane::Control } else { Plane::Data };
        Ok(claim)
    }
}
