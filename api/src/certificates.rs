//! Certificates: made here, registered from elsewhere, activated, revoked, deleted.

use fleet::registry::{
    Certificate, CertificateId, CertificateMode, CertificateStatus, Command, Rejection,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::arn::Arns;
use crate::paging::MARKER;
use crate::provisioning::ProvisionError;
use crate::request::Call;
use crate::service::{Api, Reply};
use crate::x509::{self, CertificateError, Inspected, Issued};
use crate::{Backend, Error, authorities};

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Body {
    certificate_signing_request: Option<String>,
    certificate_pem: Option<String>,
    ca_certificate_pem: Option<String>,
    status: Option<String>,
}

pub(crate) async fn create_keys<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let status = first_status(call)?;
    let key_pair = api.issuing.key_pair().await;
    let key_pair = key_pair.map_err(|error| Error::provision(error, &api.arns))?;
    let (key, now) = (key_pair.clone(), call.now);
    let issued = api.issuing.issue(move |issuer| issuer.issue(&key, now)).await;
    let issued = issued.map_err(|error| Error::provision(error, &api.arns))?;
    let (id, pem) = (issued.id.clone(), issued.pem.clone());
    propose(api, call, status, issued).await?;
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
    let now = call.now;
    let issued = api.issuing.issue(move |issuer| issuer.issue_for_request(&request, now)).await;
    let issued = issued.map_err(|error| match error {
        ProvisionError::Certificate(error) if !error.is_ours() => {
            Error::Invalid(format!("certificateSigningRequest: {error}"))
        }
        error => Error::provision(error, &api.arns),
    })?;
    let (id, pem) = (issued.id.clone(), issued.pem.clone());
    propose(api, call, status, issued).await?;
    Ok(Reply::Json(json!({
        "certificateArn": api.arns.certificate(&id),
        "certificateId": id,
        "certificatePem": pem,
    })))
}

pub(crate) async fn register<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let body: Body = call.json()?;
    let status = match body.status {
        None => first_status(call)?,
        Some(status) => registered_status(Some(&status))?,
    };
    let pem = required_pem(body.certificate_pem, "certificatePem")?;
    let inspected = x509::inspect(&pem).map_err(invalid)?;
    let (id, arns) = (inspected.id.clone(), api.arns.clone());
    // Told first, as AWS does: whoever registers a certificate again need not know its CA.
    api.read(move |registry| match registry.certificate(id.as_str()) {
        Some(_) => Err(Error::rejected(Rejection::CertificateExists(id), &arns)),
        None => Ok(()),
    })
    .await?;
    let given = body.ca_certificate_pem.as_deref();
    let signer = authorities::of(&api.backend, &inspected.der, given).await?;
    register_inspected(api, call, pem, status, inspected, Some(signer)).await
}

pub(crate) async fn register_without_ca<B: Backend>(
    api: &Api<B>,
    call: &Call,
) -> Result<Reply, Error> {
    let body: Body = call.json()?;
    let pem = required_pem(body.certificate_pem, "certificatePem")?;
    let status = registered_status(body.status.as_deref())?;
    let inspected = x509::inspect(&pem).map_err(invalid)?;
    register_inspected(api, call, pem, status, inspected, None).await
}

async fn register_inspected<B: Backend>(
    api: &Api<B>,
    call: &Call,
    pem: String,
    status: CertificateStatus,
    inspected: Inspected,
    signer: Option<(CertificateId, CertificateMode)>,
) -> Result<Reply, Error> {
    let (authority, mode) = signer.unzip();
    let id = inspected.id;
    api.propose(Command::RegisterCertificate {
        certificate: id.clone(),
        pem,
        status,
        mode: mode.unwrap_or(CertificateMode::SniOnly),
        authority,
        summary: inspected.summary,
        generation: Uuid::new_v4(),
        at: call.now,
    })
    .await?;
    Ok(Reply::Json(json!({
        "certificateArn": api.arns.certificate(&id),
        "certificateId": id,
    })))
}

/// The status that a certificate from elsewhere begins with.
fn registered_status(status: Option<&str>) -> Result<CertificateStatus, Error> {
    match status {
        None | Some("INACTIVE" | "REGISTER_INACTIVE") => Ok(CertificateStatus::Inactive),
        Some("ACTIVE") => Ok(CertificateStatus::Active),
        Some("PENDING_ACTIVATION") => Ok(CertificateStatus::PendingActivation),
        Some(known @ ("REVOKED" | "PENDING_TRANSFER")) => Err(Error::CertificateState(format!(
            "A certificate cannot be registered with the status {known}"
        ))),
        Some(other) => Err(unknown_status(other)),
    }
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
    status: CertificateStatus,
    Issued { id, pem, summary }: Issued,
) -> Result<(), Error> {
    api.propose(Command::RegisterCertificate {
        certificate: id,
        pem,
        status,
        mode: CertificateMode::Default,
        authority: None,
        summary,
        generation: Uuid::new_v4(),
        at: call.now,
    })
    .await?;
    Ok(())
}

pub(crate) fn summary(certificate: &Certificate, arns: &Arns) -> Value {
    json!({
        "certificateArn": arns.certificate(&certificate.id),
        "certificateId": certificate.id,
        "status": certificate.status.as_str(),
        "certificateMode": certificate.mode.as_str(),
        "creationDate": certificate.created.seconds(),
    })
}

/// A certificate as DescribeCertificate answers.
pub(crate) fn description(certificate: &Certificate, arns: &Arns) -> Value {
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
pub(crate) fn certificate_id(text: &str) -> Result<CertificateId, Error> {
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

pub(crate) fn required(member: Option<String>, name: &str) -> Result<String, Error> {
    member
        .filter(|value| !value.is_empty())
        .ok_or_else(|| Error::Invalid(format!("the member {name} is missing")))
}

/// A text in PEM that has to be there.
pub(crate) fn required_pem(member: Option<String>, name: &str) -> Result<String, Error> {
    required(member, name).map(|pem| x509::without_mark(&pem).to_owned())
}

fn invalid(error: CertificateError) -> Error {
    Error::CertificateValidation(format!("certificatePem: {error}"))
}
