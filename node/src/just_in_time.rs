//! Just-in-time registration: a certificate that nobody knows, but that a registered authority has
//! signed whose certificates register themselves, waits for activation from then on. Each time that
//! its device tries to connect, the template of the authority is carried out, or, where there is none,
//! whoever listens hears of it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use api::Backend as _;
use api::audit::{Actor, Attempt, Intent, Outcome, Watch, Way};
use api::backend::ProposeError;
use api::provisioning::{Given, ProvisionError, Provisioner};
use api::x509;
use bytes::Bytes;
use fleet::registry::{
    Authority, CertificateId, CertificateStatus, CertificateSummary, Check, Command, Registry,
    Rejection, TemplateInUse, Timestamp,
};
use provisioning::{Parameters, Purpose, Template};
use rustls_pki_types::CertificateDer;
use serde_json::json;
use thiserror::Error;
use tracing::{debug, info};

use crate::backend::Backend;
use crate::clock::now_ms;
use crate::denial;
use crate::identity;
use crate::publication::Kept;
use crate::shared::Shared;

/// How many devices a node introduces at a time; others try again.
pub const AT_ONCE: usize = 64;

/// What the registry makes of a certificate that may not connect.
enum Standing {
    /// It was introduced and waits.
    Waits(Box<Authority>, Timestamp),
    /// One of these may have signed it, and beside it stands whether it has taken it back.
    Unknown(Vec<(Authority, bool)>),
    /// Somebody has decided about it, or its authority does not want it.
    Decided,
}

/// A device was refused because its certificate is not known, or not active.
pub fn introduce(
    shared: &Arc<Shared>,
    certificate: &CertificateDer<'static>,
    source: Option<IpAddr>,
) {
    let Ok(permit) = Arc::clone(&shared.introductions).try_acquire_owned() else {
        debug!("too many new devices at once");
        return;
    };
    let (shared, certificate) = (Arc::clone(shared), certificate.clone());
    actix_rt::spawn(async move {
        register(&shared, &certificate, source).await;
        drop(permit);
    });
}

async fn register(
    shared: &Arc<Shared>,
    certificate: &CertificateDer<'static>,
    source: Option<IpAddr>,
) -> Option<()> {
    let inspected = x509::inspect_der(certificate.to_vec()).ok()?;
    let issuer = x509::issuer_of(certificate).ok()?;
    let id = inspected.id.clone();
    let summary = inspected.summary.clone();
    let look = move |registry: &Registry| standing(registry, &id, &issuer, &summary);
    let backend = Backend::new(Arc::clone(shared));
    let new = Given {
        pem: x509::certificate_pem(certificate),
        certificate: inspected.id,
        names: Arc::clone(&inspected.summary.names),
    };
    let (authority, since) = match identity::read_registry(shared, look).await? {
        Standing::Waits(authority, since) => (authority, since),
        Standing::Unknown(authorities) => {
            let has_signed =
                |it: &(Authority, bool)| x509::is_signed_by(certificate, &it.0.pem) == Ok(true);
            let (authority, is_revoked) = authorities.into_iter().find(has_signed)?;
            if is_revoked {
                let (certificate, authority) = (new.certificate.as_str(), authority.id.as_str());
                let why = &"it is on the revocation list of its CA";
                denial::tell_unregistered(certificate, authority, why, Instant::now());
                return None;
            }
            let now = Timestamp(now_ms());
            let way = Way::JustInTimeRegistration;
            let attempt = begin(shared, &new.certificate, source, "RegisterCertificate", way)?;
            let command = Command::RegisterCertificate {
                certificate: new.certificate.clone(),
                pem: new.pem.clone(),
                status: CertificateStatus::PendingActivation,
                mode: authority.mode,
                authority: Some(authority.id.clone()),
                summary: inspected.summary,
                generation: uuid::Uuid::new_v4(),
                at: now,
            };
            let proposed = attempt.watch().propose(&backend, command).await;
            let classify = |error: &ProposeError| match error {
                ProposeError::Rejected(_) => (Outcome::Rejected, "Rejected"),
                ProposeError::Unavailable(_) => (Outcome::Unknown, "ServiceUnavailable"),
            };
            attempt.conclude(&proposed, classify, Timestamp(now_ms())).await.ok()?;
            let (certificate, by) = (new.certificate.as_str(), authority.id.as_str());
            match proposed {
                Ok(_) => info!(certificate, authority = by, "a certificate has registered itself"),
                // By a connection to another node.
                Err(ProposeError::Rejected(Rejection::CertificateExists(_))) => {}
                Err(why) => {
                    denial::tell_unregistered(certificate, by, &why, Instant::now());
                    return None;
                }
            }
            (Box::new(authority), now)
        }
        Standing::Decided => return None,
    };
    if !authority.registration.has_template() {
        return tell(shared, &backend, &new.certificate, &authority.id, since).await;
    }
    let (certificate, by) = (new.certificate.to_string(), authority.id.as_str());
    let way = Way::JustInTimeProvisioning;
    let attempt = begin(shared, &new.certificate, source, "RegisterThing", way)?;
    let provisioned = provision(shared, backend, new, &authority, attempt.watch()).await;
    attempt.conclude(&provisioned, NotProvisioned::classified, Timestamp(now_ms())).await.ok()?;
    match provisioned {
        Ok(thing) => {
            info!(certificate, authority = by, thing, "a device was provisioned just in time")
        }
        Err(why) => denial::tell_unprovisioned(&certificate, by, &why, Instant::now()),
    }
    Some(())
}

/// What a device changes by introducing itself; none while that cannot be recorded.
fn begin(
    shared: &Shared,
    certificate: &CertificateId,
    source: Option<IpAddr>,
    operation: &str,
    by: Way,
) -> Option<Attempt> {
    let ledger = shared.audit.as_ref().map(|audit| &audit.ledger);
    let begun = Attempt::begin(ledger, || Intent {
        actor: Actor::Device { certificate: certificate.to_string(), client_id: None, by },
        source,
        operation: operation.into(),
        resource: Some(format!("{}cert/{certificate}", shared.arns.prefix())),
        request: uuid::Uuid::new_v4().to_string(),
    });
    begun.ok()
}

/// Why a device was not provisioned.
#[derive(Debug, Error)]
enum NotProvisioned {
    #[error("its template is not there")]
    NoTemplate,
    #[error("its template is not enabled")]
    Disabled,
    #[error(transparent)]
    Failed(#[from] ProvisionError),
}

impl NotProvisioned {
    /// What is recorded of it.
    fn classified(&self) -> (Outcome, &'static str) {
        let outcome = match self {
            Self::NoTemplate | Self::Disabled => Outcome::Rejected,
            Self::Failed(error) => error.outcome(),
        };
        let code = match outcome {
            Outcome::Unknown => "ServiceUnavailable",
            Outcome::Failed => "InternalServerError",
            _ => "NotProvisioned",
        };
        (outcome, code)
    }
}

/// Carries out the template of an authority; the answer is the thing's name.
async fn provision(
    shared: &Shared,
    backend: Backend,
    given: Given,
    authority: &Authority,
    watch: Watch,
) -> Result<Option<String>, NotProvisioned> {
    let config = &authority.registration;
    let (body, in_use) = match (&config.template_body, &config.template_name) {
        (Some(body), _) => (body.clone(), None),
        (None, name) => {
            let name = name.clone().unwrap_or_default();
            let look = move |registry: &Registry| match registry.template(&name) {
                None => Err(NotProvisioned::NoTemplate),
                Some(found) if !found.enabled => Err(NotProvisioned::Disabled),
                Some(found) => Ok((found.body().to_owned(), Some(TemplateInUse::of(found)))),
            };
            backend.registry_read(look).await.map_err(ProvisionError::from)??
        }
    };
    let template = Template::parse(&body, Purpose::Registration).map_err(ProvisionError::from)?;
    let provisioner = Provisioner::new(backend, shared.issuing.clone(), watch);
    let now = Timestamp(now_ms());
    let check = Check { shown: None, template: in_use, only_pending: true, line: None };
    let provisioned =
        provisioner.provision(&template, Parameters::new(), Some(given), check, now).await;
    Ok(provisioned?.thing.map(|thing| thing.to_string()))
}

/// Tells whoever decides about new certificates.
async fn tell(
    shared: &Shared,
    backend: &Backend,
    certificate: &CertificateId,
    authority: &CertificateId,
    since: Timestamp,
) -> Option<()> {
    let now = now_ms();
    let event = json!({
        "certificateId": certificate,
        "caCertificateId": authority,
        "timestamp": now,
        "certificateStatus": CertificateStatus::PendingActivation.as_str(),
        "awsAccountId": shared.arns.account,
        "certificateRegistrationTimestamp": since.0.to_string(),
    });
    let told = backend.publish_kept(Kept {
        topic: format!("$aws/events/certificates/registered/{authority}").into(),
        payload: event.to_string().into(),
        properties: Bytes::new(),
        qos: 1,
        retain: false,
        expires_at: None,
        publisher: Bytes::new(),
        published_at: now,
    });
    // Said again when the device tries again.
    told.await.ok()
}

fn standing(
    registry: &Registry,
    id: &CertificateId,
    issuer: &str,
    summary: &CertificateSummary,
) -> Standing {
    let wants = |authority: &&Authority| authority.active && authority.auto_registration;
    let judged =
        |authority: &Authority| (authority.clone(), registry.has_revoked(authority, summary));
    match registry.certificate(id.as_str()) {
        Some(known) if known.status == CertificateStatus::PendingActivation => {
            let authority = known.authority.as_ref();
            let authority = authority.and_then(|id| registry.authority(id.as_str()));
            match authority.filter(wants) {
                Some(authority) => Standing::Waits(Box::new(authority.clone()), known.created),
                None => Standing::Decided,
            }
        }
        Some(_) => Standing::Decided,
        None => Standing::Unknown(
            registry.authorities_of_subject(issuer).filter(wants).map(judged).collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use api::backend::Unavailable;
    use api::x509::CertificateError;

    use super::*;

    #[test]
    fn only_what_has_changed_nothing_is_recorded_as_rejected() {
        for (why, outcome) in [
            (NotProvisioned::NoTemplate, Outcome::Rejected),
            (NotProvisioned::Disabled, Outcome::Rejected),
            (ProvisionError::OtherCertificate.into(), Outcome::Rejected),
            (ProvisionError::Rejected(Rejection::NotTheOwner).into(), Outcome::Rejected),
            (ProvisionError::Unavailable(Unavailable).into(), Outcome::Unknown),
            (ProvisionError::NoIssuer.into(), Outcome::Failed),
            (ProvisionError::Certificate(CertificateError::KeyMismatch).into(), Outcome::Failed),
        ] {
            assert_eq!(why.classified().0, outcome, "{why}");
        }
    }
}
