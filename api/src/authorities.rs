//! Certificate authorities: whose certificates may be registered.

use fleet::registry::{
    Authority, AuthorityCommand, CertificateId, CertificateMode, Command, Outcome,
    RegistrationConfig, Registry, RevocationList, TemplateName, TemplateType, Timestamp,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::arn::Arns;
use crate::certificates::{certificate_id, required, required_pem, summary as certificate_summary};
use crate::paging::MARKER;
use crate::request::{Call, Tag, tags};
use crate::service::{Api, Reply};
use crate::templates::{self, check_body};
use crate::x509::{self, CertificateError, Inspected};
use crate::{Backend, Error};

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Body {
    ca_certificate: Option<String>,
    verification_certificate: Option<String>,
    registration_config: Option<Registration>,
    certificate_mode: Option<String>,
    remove_auto_registration: Option<bool>,
    tags: Option<Vec<Tag>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Registration {
    template_body: Option<String>,
    role_arn: Option<String>,
    template_name: Option<String>,
}

impl Registration {
    /// What is kept of it. A template has to be there, and to be one for this.
    async fn checked<B: Backend>(self, api: &Api<B>) -> Result<RegistrationConfig, Error> {
        let Self { template_body, role_arn, template_name } = self;
        if template_body.is_some() && template_name.is_some() {
            return Err(Error::Invalid(
                "registrationConfig has either templateBody or templateName".into(),
            ));
        }
        if let Some(body) = &template_body {
            check_body(body, TemplateType::Jitp)?;
        }
        if let Some(name) = &template_name {
            let name = TemplateName::new(name)?;
            let kind = api.read(move |registry| {
                let found = registry.template(name.as_str());
                Ok(found.ok_or_else(|| templates::not_found(&name))?.kind)
            });
            if kind.await? != TemplateType::Jitp {
                return Err(Error::Invalid("the template is not of type JITP".into()));
            }
        }
        Ok(RegistrationConfig { template_body, role_arn, template_name })
    }
}

pub(crate) async fn code<B: Backend>(api: &Api<B>, _call: &Call) -> Result<Reply, Error> {
    let code = api.read(|registry| Ok(registry.registration_code().map(ToOwned::to_owned))).await?;
    let code = match code {
        Some(code) => code,
        None => {
            let code = hex::encode(rand::random::<[u8; 32]>());
            match api.propose(Command::Authority(AuthorityCommand::MakeCode { code })).await? {
                Outcome::RegistrationCode(code) => code,
                _ => return Err(Error::Internal),
            }
        }
    };
    Ok(Reply::Json(json!({ "registrationCode": code })))
}

pub(crate) async fn delete_code<B: Backend>(api: &Api<B>, _call: &Call) -> Result<Reply, Error> {
    api.propose(Command::Authority(AuthorityCommand::DeleteCode)).await?;
    Ok(Reply::Empty)
}

pub(crate) async fn register<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let body: Body = call.json()?;
    let pem = required_pem(body.ca_certificate, "caCertificate")?;
    let invalid =
        |error: CertificateError| Error::CertificateValidation(format!("caCertificate: {error}"));
    let inspected = x509::inspect_authority(&pem).map_err(invalid)?;
    if call.now < inspected.not_before || call.now > inspected.not_after {
        return Err(Error::CertificateValidation("caCertificate: it is not valid now".into()));
    }
    let mode = match body.certificate_mode.as_deref() {
        None | Some("DEFAULT") => CertificateMode::Default,
        Some("SNI_ONLY") => CertificateMode::SniOnly,
        Some(other) => {
            return Err(Error::Invalid(format!(
                "certificateMode must be DEFAULT or SNI_ONLY, not '{other}'"
            )));
        }
    };
    let proof = match (mode, body.verification_certificate) {
        (CertificateMode::Default, proof) => {
            Some(proved(&required(proof, "verificationCertificate")?, &pem)?)
        }
        (CertificateMode::SniOnly, None) => None,
        (CertificateMode::SniOnly, Some(_)) => {
            return Err(Error::Invalid(
                "verificationCertificate is not for the certificateMode SNI_ONLY".into(),
            ));
        }
    };
    let id = inspected.id;
    let registration = match body.registration_config {
        Some(registration) => registration.checked(api).await?,
        None => RegistrationConfig::default(),
    };
    let authority = Authority {
        id: id.clone(),
        pem: pem.into(),
        active: call.flag("setAsActive")?,
        auto_registration: call.flag("allowAutoRegistration")?,
        mode,
        registration,
        not_before: inspected.not_before,
        not_after: inspected.not_after,
        subject: inspected.subject.into(),
        key: inspected.key.into(),
        tags: body.tags.map(tags).transpose()?.unwrap_or_default(),
        created: call.now,
        modified: call.now,
        customer_version: 1,
        generation: Uuid::new_v4(),
    };
    let authority = Box::new(authority);
    api.propose(Command::Authority(AuthorityCommand::Register { authority, proof })).await?;
    Ok(Reply::Json(json!({ "certificateArn": api.arns.authority(&id), "certificateId": id })))
}

/// The registration code that an authority has signed.
fn proved(verification_pem: &str, authority_pem: &str) -> Result<String, Error> {
    let invalid = |error: CertificateError| {
        Error::CertificateValidation(format!("verificationCertificate: {error}"))
    };
    let Inspected { der, summary, .. } = x509::inspect(verification_pem).map_err(invalid)?;
    if !x509::is_signed_by(&der, authority_pem).map_err(invalid)? {
        return Err(Error::CertificateValidation(
            "verificationCertificate: it is not signed by the CA certificate".into(),
        ));
    }
    let names = summary.names.subject.get("CommonName");
    names.and_then(|names| names.first()).cloned().ok_or_else(|| {
        Error::RegistrationCodeValidation("verificationCertificate has no common name".into())
    })
}

pub(crate) async fn describe<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let id = certificate_id(call.label(0))?;
    let arns = api.arns.clone();
    let described = api.read(move |registry| Ok(description(find(registry, &id)?, &arns)));
    Ok(Reply::Json(described.await?))
}

pub(crate) async fn update<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let authority = certificate_id(call.label(0))?;
    let body: Body = call.json()?;
    let registration = match body.registration_config {
        Some(registration) => Some(registration.checked(api).await?),
        None => None,
    };
    let registration = match body.remove_auto_registration {
        Some(true) if registration.is_some() => {
            return Err(Error::Invalid(
                "registrationConfig and removeAutoRegistration cannot be used together".into(),
            ));
        }
        Some(true) => Some(RegistrationConfig::default()),
        _ => registration,
    };
    api.propose(Command::Authority(AuthorityCommand::Update {
        authority,
        active: either(call, "newStatus", "ACTIVE", "INACTIVE")?,
        auto_registration: either(call, "newAutoRegistrationStatus", "ENABLE", "DISABLE")?,
        registration,
        at: call.now,
    }))
    .await?;
    Ok(Reply::Empty)
}

pub(crate) async fn delete<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let authority = certificate_id(call.label(0))?;
    api.propose(Command::Authority(AuthorityCommand::Delete { authority })).await?;
    Ok(Reply::Empty)
}

pub(crate) async fn list<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let template = call.query("templateName").map(ToOwned::to_owned);
    let arns = api.arns.clone();
    api.list(MARKER.read(call)?, "certificates", move |registry, paging| {
        Ok(registry.authorities(template.as_deref(), paging).map(|found| summary(found, &arns)))
    })
    .await
}

/// What was registered under an authority that is gone is still listed.
pub(crate) async fn certificates<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let id = certificate_id(call.label(0))?;
    let arns = api.arns.clone();
    api.list(MARKER.read(call)?, "certificates", move |registry, paging| {
        let page = registry.certificates_of_authority(id.as_str(), paging);
        Ok(page.map(|certificate| certificate_summary(certificate, &arns)))
    })
    .await
}

/// The registered authority that has signed a certificate; the one that is given, if one is.
pub(crate) async fn of<B: Backend>(
    backend: &B,
    certificate: &[u8],
    given: Option<&str>,
) -> Result<(CertificateId, CertificateMode), Error> {
    let unreadable =
        |error: CertificateError| Error::CertificateValidation(format!("certificatePem: {error}"));
    let issuer = x509::issuer_of(certificate).map_err(unreadable)?;
    let given = given
        .map(x509::inspect_authority)
        .transpose()
        .map_err(|error| Error::CertificateValidation(format!("caCertificatePem: {error}")))?;
    let candidates = backend.registry_read(move |registry| {
        let same = registry.authorities_of_subject(&issuer);
        let same = same.filter(|it| given.as_ref().is_none_or(|given| given.id == it.id));
        same.cloned().collect::<Vec<_>>()
    });
    let mut signers = Vec::new();
    for authority in candidates.await? {
        if x509::is_signed_by(certificate, &authority.pem).map_err(unreadable)? {
            signers.push((authority.id, authority.mode));
        }
    }
    match <[_; 1]>::try_from(signers) {
        Ok([signer]) => Ok(signer),
        Err(signers) if signers.is_empty() => Err(Error::CertificateValidation(
            "The certificate authority that signed the certificate is not registered; \
             RegisterCertificateWithoutCA takes the certificate without it"
                .into(),
        )),
        Err(_) => Err(Error::CertificateConflict(
            "Several registered CA certificates have the subject and the key that signed the \
             certificate; caCertificatePem says which is meant"
                .into(),
        )),
    }
}

/// An authority as DescribeCACertificate answers.
pub(crate) fn description(authority: &Authority, arns: &Arns) -> Value {
    let mut description = summary(authority, arns);
    description["certificatePem"] = (&*authority.pem).into();
    description["ownedBy"] = arns.account().into();
    let auto_registration = if authority.auto_registration { "ENABLE" } else { "DISABLE" };
    description["autoRegistrationStatus"] = auto_registration.into();
    description["lastModifiedDate"] = authority.modified.seconds().into();
    description["customerVersion"] = authority.customer_version.into();
    description["generationId"] = authority.generation.to_string().into();
    description["certificateMode"] = authority.mode.as_str().into();
    description["validity"] = json!({
        "notBefore": authority.not_before.seconds(),
        "notAfter": authority.not_after.seconds(),
    });
    let mut described = json!({ "certificateDescription": description });
    let registration = &authority.registration;
    if !registration.is_empty() {
        let mut written = json!({});
        for (member, value) in [
            ("templateBody", &registration.template_body),
            ("roleArn", &registration.role_arn),
            ("templateName", &registration.template_name),
        ] {
            if let Some(value) = value {
                written[member] = value.as_str().into();
            }
        }
        described["registrationConfig"] = written;
    }
    described
}

/// A revocation list as it is recorded.
pub(crate) fn revocations(list: &RevocationList) -> Value {
    json!({
        "crlNumber": list.number.as_ref().map(|number| format!("0x{number}")),
        "serialNumbers": list.serials.len(),
        "thisUpdate": list.issued.seconds(),
        "nextUpdate": list.next_update.map(Timestamp::seconds),
        "imported": list.imported.seconds(),
    })
}

fn find<'a>(registry: &'a Registry, id: &CertificateId) -> Result<&'a Authority, Error> {
    let missing = || Error::NotFound(format!("The CA certificate {id} is not found"));
    registry.authority(id.as_str()).ok_or_else(missing)
}

fn summary(authority: &Authority, arns: &Arns) -> Value {
    json!({
        "certificateArn": arns.authority(&authority.id),
        "certificateId": authority.id,
        "status": if authority.active { "ACTIVE" } else { "INACTIVE" },
        "creationDate": authority.created.seconds(),
    })
}

/// A parameter that is one of two words.
fn either(call: &Call, name: &str, yes: &str, no: &str) -> Result<Option<bool>, Error> {
    match call.query(name) {
        None => Ok(None),
        Some(found) if found == yes => Ok(Some(true)),
        Some(found) if found == no => Ok(Some(false)),
        Some(other) => Err(Error::Invalid(format!("{name} must be {yes} or {no}, not '{other}'"))),
    }
}
