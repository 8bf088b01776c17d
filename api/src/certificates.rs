//! Certificates: made here, registered from elsewhere, activated, revoked, deleted.

use fleet::registry::{
    Certificate, CertificateId, CertificateMode, CertificateStatus, CertificateSummary, Command,
};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::arn::Arns;
use crate::paging::MARKER;
use crate::request::Call;
use crate::service::{Api, Reply};
use crate::x509::{self, CertificateError, KeyPair};
use crate::{Backend, Error};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    certificate_signing_request: Option<String>,
    certificate_pem: Option<String>,
    status: Option<String>,
}

pub(crate) async fn create_keys<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let status = first_status(call)?;
    // The semaphore is never closed.
    let _permit = api.key_pairs.acquire().await.map_err(|_| Error::Internal)?;
    let key_pair = blocking(KeyPair::generate).await?;
    let issued = api.issuer.issue(&key_pair, call.now).map_err(failed)?;
    let (id, pem) = (issued.id, issued.pem);
    let mode = CertificateMode::Default;
    propose(api, call, id.clone(), pem.clone(), status, mode, issued.summary).await?;
    Ok(Reply::Json(json!({
        "certificateArn": api.arns.certificate(&id),
        "certificateId": id,
        "certificatePem": pem,
        "keyPair": { "PublicKey": key_pair.public_pem, "PrivateKey": key_pair.private_pem },
    })))
}

pub(crate) async fn create_from_csr<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let status = first_status(call)?;
    let request = call.json::<Body>()?.certificate_signing_request;
    let request = required(request, "certificateSigningRequest")?;
    let issued = api.issuer.issue_for_request(&request, call.now).map_err(|error| match error {
        CertificateError::Signing(_) => failed(error),
        _ => Error::Invalid(format!("certificateSigningRequest: {error}")),
    })?;
    let (id, pem) = (issued.id, issued.pem);
    let mode = CertificateMode::Default;
    propose(api, call, id.clone(), pem.clone(), status, mode, issued.summary).await?;
    Ok(Reply::Json(json!({
        "certificateArn": api.arns.certificate(&id),
        "certificateId": id,
        "certificatePem": pem,
    })))
}

/// Registering under an authority needs the authority to be registered, and none is yet.
pub(crate) async fn register<B: Backend>(_api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let pem = required(call.json::<Body>()?.certificate_pem, "certificatePem")?;
    x509::inspect(&pem).map_err(invalid)?;
    Err(Error::CertificateValidation(
        "The certificate authority that signed the certificate is not registered; \
         RegisterCertificateWithoutCA takes the certificate without it"
            .into(),
    ))
}

pub(crate) async fn register_without_ca<B: Backend>(
    api: &Api<B>,
    call: &Call,
) -> Result<Reply, Error> {
    let body: Body = call.json()?;
    let pem = required(body.certificate_pem, "certificatePem")?;
    let status = match body.status.as_deref() {
        None | Some("INACTIVE" | "REGISTER_INACTIVE") => CertificateStatus::Inactive,
        Some("ACTIVE") => CertificateStatus::Active,
        Some("PENDING_ACTIVATION") => CertificateStatus::PendingActivation,
        Some(known @ ("REVOKED" | "PENDING_TRANSFER")) => {
            return Err(Error::CertificateState(format!(
                "A certificate cannot be registered with the status {known}"
            )));
        }
        Some(other) => return Err(unknown_status(other)),
    };
    let inspected = x509::inspect(&pem).map_err(invalid)?;
    let (id, mode) = (inspected.id, CertificateMode::SniOnly);
    propose(api, call, id.clone(), pem, status, mode, inspected.summary).await?;
    Ok(Reply::Json(json!({
        "certificateArn": api.arns.certificate(&id),
        "certificateId": id,
    })))
}

pub(crate) async fn describe<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let id = certificate_id(call.label(0))?;
    let arns = api.arns.clone();
    let described = api.read(move |registry| {
        let certificate = registry.certificate(id.as_str()).ok_or_else(|| not_found(&id))?;
        Ok(description(certificate, &arns))
    });
    Ok(Reply::Json(json!({ "certificateDescription": described.await? })))
}

pub(crate) async fn update<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let certificate = certificate_id(call.label(0))?;
    let status = match call.required_query("newStatus")? {
        "ACTIVE" => CertificateStatus::Active,
        "INACTIVE" => CertificateStatus::Inactive,
        "REVOKED" => CertificateStatus::Revoked,
        "PENDING_TRANSFER" => CertificateStatus::PendingTransfer,
        "PENDING_ACTIVATION" => CertificateStatus::PendingActivation,
        other => return Err(unknown_status(other)),
    };
    api.propose(Command::UpdateCertificate { certificate, status, at: call.now }).await?;
    Ok(Reply::Empty)
}

pub(crate) async fn delete<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let certificate = certificate_id(call.label(0))?;
    let force = call.flag("forceDelete")?;
    api.propose(Command::DeleteCertificate { certificate, force }).await?;
    Ok(Reply::Empty)
}

pub(crate) async fn list<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let cursor = MARKER.read(call)?;
    let arns = api.arns.clone();
    api.list(cursor, "certificates", move |registry, paging| {
        Ok(registry.certificates(paging).map(|certificate| summary(certificate, &arns)))
    })
    .await
}

async fn propose<B: Backend>(
    api: &Api<B>,
    call: &Call,
    certificate: CertificateId,
    pem: String,
    status: CertificateStatus,
    mode: CertificateMode,
    summary: CertificateSummary,
) -> Result<(), Error> {
    let generation = Uuid::new_v4();
    api.propose(Command::RegisterCertificate {
        certificate,
        pem,
        status,
        mode,
        authority: None,
        summary,
        generation,
        at: call.now,
    })
    .await?;
    Ok(())
}

fn summary(certificate: &Certificate, arns: &Arns) -> Value {
    json!({
        "certificateArn": arns.certificate(&certificate.id),
        "certificateId": certificate.id,
        "status": certificate.status.as_str(),
        "certificateMode": certificate.mode.as_str(),
        "creationDate": certificate.created.seconds(),
    })
}

fn description(certificate: &Certificate, arns: &Arns) -> Value {
    let mut description = summary(certificate, arns);
    description["certificatePem"] = (&*certificate.pem).into();
    description["ownedBy"] = arns.account().into();
    description["lastModifiedDate"] = certificate.modified.seconds().into();
    description["customerVersion"] = certificate.customer_version.into();
    description["generationId"] = certificate.generation.to_string().into();
    description["validity"] = json!({
        "notBefore": certificate.summary.not_before.seconds(),
        "notAfter": certificate.summary.not_after.seconds(),
    });
    if let Some(authority) = &certificate.authority {
        description["caCertificateId"] = authority.as_str().into();
    }
    description
}

/// Reads an id in either case.
fn certificate_id(text: &str) -> Result<CertificateId, Error> {
    Ok(CertificateId::new(&text.to_ascii_lowercase())?)
}

pub(crate) fn not_found(id: &CertificateId) -> Error {
    Error::NotFound(format!("The certificate {id} is not found"))
}

fn first_status(call: &Call) -> Result<CertificateStatus, Error> {
    let is_active = call.flag("setAsActive")?;
    Ok(if is_active { CertificateStatus::Active } else { CertificateStatus::Inactive })
}

fn unknown_status(status: &str) -> Error {
    Error::Invalid(format!("'{status}' is not a status that can be given to a certificate"))
}

fn required(member: Option<String>, name: &str) -> Result<String, Error> {
    member
        .filter(|value| !value.is_empty())
        .ok_or_else(|| Error::Invalid(format!("the member {name} is missing")))
}

fn invalid(error: CertificateError) -> Error {
    Error::CertificateValidation(format!("certificatePem: {error}"))
}

fn failed(error: CertificateError) -> Error {
    tracing::error!(%error, "a certificate could not be made");
    Error::Internal
}

/// Key pairs take so long to find that they would hold up a thread of the runtime.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CertificateError> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(failed),
        Err(_) => Err(Error::Internal),
    }
}
