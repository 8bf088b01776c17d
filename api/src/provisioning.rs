//! Carrying out provisioning templates: for an operator, for a device that provisions itself with a
//! claim, and just in time.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fleet::registry::{
    Certificate, CertificateId, CertificateMode, CertificateNames, CertificateStatus, Check,
    Command, Ownership, PolicyName, Principal, Provision, Provisional, ProvisionalRole,
    ProvisioningCommand, Registry, Rejection, TemplateName, TemplateType, ThingName, Timestamp,
};
use provisioning::{
    CertificateSource, Parameters, Purpose, Template, TemplateError, certificate_parameters,
    check_given,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::arn::Arns;
use crate::audit::{Outcome, Watch};
use crate::backend::{ProposeError, Unavailable};
use crate::certificates::required;
use crate::error::Plane;
use crate::request::Call;
use crate::service::{Api, Reply};
use crate::templates;
use crate::x509::{self, CertificateError, Issued, Issuer, KeyPair};
use crate::{Backend, Error, authorities};

/// How long a device has to provision itself once it has its certificate, as with AWS.
const OWNED_MS: u64 = 60 * 60 * 1000;
/// How long the claim of a trusted user lasts, as with AWS.
const CLAIM_MS: u64 = 5 * 60 * 1000;
/// Certificates that are signed at the same time: a device that keeps a key does one after the other.
const CONCURRENT_SIGNATURES: usize = 4;
/// Key pairs that are made at the same time.
const CONCURRENT_KEY_PAIRS: usize = 2;
/// An ownership token begins with the id of its certificate.
const CERTIFICATE_ID_CHARS: usize = 64;
/// Devices that wait for a key pair to be made for them; more are told to come again.
const WAITING_FOR_KEYS: usize = 256;

/// Why nothing was provisioned.
#[derive(Debug, Error)]
pub enum ProvisionError {
    /// The template cannot be carried out with these parameters.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The certificate, or the request for one, cannot be used.
    #[error("the certificate: {0}")]
    Certificate(#[from] CertificateError),
    /// It is not the certificate that is provisioned.
    #[error("the template is for another certificate than that of the device")]
    OtherCertificate,
    /// The authority that signed the certificate cannot be told.
    #[error("{0}")]
    Authority(Error),
    /// The registry refuses it.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The node makes no certificates.
    #[error("this node has no issuer of certificates")]
    NoIssuer,
    /// Too many ask at once.
    #[error("too many devices ask for a certificate at once")]
    Busy,
    /// The node cannot answer now.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// A fault of ours; the log says more.
    #[error("internal failure")]
    Internal,
}

impl ProvisionError {
    /// What is recorded of it.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Unavailable(_) => Outcome::Unknown,
            Self::NoIssuer | Self::Internal => Outcome::Failed,
            Self::Certificate(error) if error.is_ours() => Outcome::Failed,
            Self::Authority(error) => Outcome::of_status(error.status_and_code(Plane::Control).0),
            Self::Template(_)
            | Self::Certificate(_)
            | Self::OtherCertificate
            | Self::Rejected(_)
            | Self::Busy => Outcome::Rejected,
        }
    }
}

impl From<ProposeError> for ProvisionError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::Rejected(rejection) => Self::Rejected(rejection),
            ProposeError::Unavailable(unavailable) => Self::Unavailable(unavailable),
        }
    }
}

/// What there is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provisioned {
    /// The certificate.
    pub certificate: CertificateId,
    /// The same in PEM.
    pub certificate_pem: String,
    /// The thing, if the template has one.
    pub thing: Option<ThingName>,
    /// The policies, in the order of the template.
    pub policies: Vec<PolicyName>,
    /// What the device is told.
    pub device_configuration: BTreeMap<String, String>,
}

/// A certificate for a device that provisions itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Offer {
    /// Its id.
    pub certificate: CertificateId,
    /// The same in PEM.
    pub certificate_pem: String,
    /// The private key, if it was made here; in PEM. It is kept nowhere.
    pub private_key: Option<String>,
    /// Whoever has it may provision the certificate.
    pub ownership_token: String,
}

/// The certificate that is to be provisioned, when it is given.
#[derive(Clone, Debug)]
pub struct Given {
    /// Its id.
    pub certificate: CertificateId,
    /// Its PEM form.
    pub pem: String,
    /// What it says.
    pub names: Arc<CertificateNames>,
}

/// Makes key pairs and certificates. Clones share its bounds.
#[derive(Clone, Debug)]
pub struct Issuing {
    issuer: Issuer,
    /// Certificates that are signed at the same time.
    signatures: Arc<Semaphore>,
    /// Key pairs that are made at the same time.
    key_pairs: Arc<Semaphore>,
    /// Those, and who waits for one.
    waiting: Arc<Semaphore>,
    /// Devices among them: operators find a place besides.
    devices: Arc<Semaphore>,
}

impl Issuing {
    /// With an issuer that signs.
    pub fn new(issuer: Issuer) -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self {
            issuer,
            signatures: semaphore(CONCURRENT_SIGNATURES),
            key_pairs: semaphore(CONCURRENT_KEY_PAIRS),
            waiting: semaphore(WAITING_FOR_KEYS),
            devices: semaphore(WAITING_FOR_KEYS / 2),
        }
    }

    /// Has the issuer sign where a thread may wait: its key may be in a device of its own.
    pub(crate) async fn issue(
        &self,
        sign: impl FnOnce(&Issuer) -> Result<Issued, CertificateError> + Send + 'static,
    ) -> Result<Issued, ProvisionError> {
        // The semaphore is never closed.
        let _permit = self.signatures.acquire().await.map_err(|_| ProvisionError::Internal)?;
        let issuer = self.issuer.clone();
        match tokio::task::spawn_blocking(move || sign(&issuer)).await {
            Ok(issued) => Ok(issued?),
            Err(error) => {
                tracing::error!(%error, "a certificate could not be signed");
                Err(ProvisionError::Internal)
            }
        }
    }

    /// Makes a key pair, which takes so long that it would hold up a thread of the runtime.
    pub(crate) async fn key_pair(&self) -> Result<KeyPair, ProvisionError> {
        let _place = self.waiting.try_acquire().map_err(|_| ProvisionError::Busy)?;
        // The semaphore is never closed.
        let _permit = self.key_pairs.acquire().await.map_err(|_| ProvisionError::Internal)?;
        match tokio::task::spawn_blocking(KeyPair::generate).await {
            Ok(made) => Ok(made?),
            Err(error) => {
                tracing::error!(%error, "a key pair could not be made");
                Err(ProvisionError::Internal)
            }
        }
    }
}

/// Carries out templates.
#[derive(Clone, Debug)]
pub struct Provisioner<B> {
    backend: B,
    /// None on a node that makes no certificates.
    issuing: Option<Issuing>,
    watch: Watch,
}

impl<B: Backend> Provisioner<B> {
    /// Over a node, and what makes certificates there, if anything does; `watch` notes what is changed.
    pub fn new(backend: B, issuing: Option<Issuing>, watch: Watch) -> Self {
        Self { backend, issuing, watch }
    }

    fn issuing(&self) -> Result<&Issuing, ProvisionError> {
        self.issuing.as_ref().ok_or(ProvisionError::NoIssuer)
    }

    /// Makes a certificate, and a key pair, for a device that provisions itself.
    ///
    /// # Errors
    /// [`ProvisionError::Busy`] when too many wait for key pairs, or the registry holds too many
    /// certificates that nobody has taken.
    pub async fn offer_keys(&self, by: Principal, now: Timestamp) -> Result<Offer, ProvisionError> {
        let issuing = self.issuing()?;
        let _place = issuing.devices.try_acquire().map_err(|_| ProvisionError::Busy)?;
        // Before a key is made that nobody could have.
        let claim = by.clone();
        self.backend.registry_read(move |registry| registry.check_unclaimed(&claim)).await??;
        let key_pair = issuing.key_pair().await?;
        let key = key_pair.clone();
        let issued = issuing.issue(move |issuer| issuer.issue(&key, now)).await?;
        self.offer(issued, Some(key_pair.private_pem), by, now).await
    }

    /// Makes a certificate for the signing request of a device that provisions itself.
    pub async fn offer_for_request(
        &self,
        request: &str,
        by: Principal,
        now: Timestamp,
    ) -> Result<Offer, ProvisionError> {
        let request = request.to_owned();
        let sign = move |issuer: &Issuer| issuer.issue_for_request(&request, now);
        let issued = self.issuing()?.issue(sign).await?;
        self.offer(issued, None, by, now).await
    }

    async fn offer(
        &self,
        issued: Issued,
        private_key: Option<String>,
        by: Principal,
        now: Timestamp,
    ) -> Result<Offer, ProvisionError> {
        let secret = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        let ownership_token = format!("{}{secret}", issued.id);
        let role = ProvisionalRole::Unclaimed(ownership(&ownership_token, by));
        let provisional = Provisional { role, expires: Timestamp(now.0 + OWNED_MS) };
        let (certificate, certificate_pem) = (issued.id.clone(), issued.pem.clone());
        let record = record(issued, CertificateStatus::PendingActivation, Some(provisional), now);
        self.propose(ProvisioningCommand::Offer { certificate: Box::new(record) }).await?;
        Ok(Offer { certificate, certificate_pem, private_key, ownership_token })
    }

    /// Makes a claim: a certificate with which devices may provision themselves for five minutes.
    pub async fn claim(
        &self,
        template: TemplateName,
        now: Timestamp,
    ) -> Result<(CertificateId, String, KeyPair, Timestamp), ProvisionError> {
        let issuing = self.issuing()?;
        let key_pair = issuing.key_pair().await?;
        let key = key_pair.clone();
        let issued = issuing.issue(move |issuer| issuer.issue_for(&key, now, CLAIM_MS)).await?;
        let expires = Timestamp(now.0 + CLAIM_MS);
        let (id, pem) = (issued.id.clone(), issued.pem.clone());
        let provisional = Provisional { role: ProvisionalRole::Claim(template), expires };
        let record = record(issued, CertificateStatus::Active, Some(provisional), now);
        self.propose(ProvisioningCommand::Offer { certificate: Box::new(record) }).await?;
        Ok((id, pem, key_pair, expires))
    }

    /// The certificate that a device shows to be its own.
    pub async fn shown(
        &self,
        ownership_token: &str,
        by: Principal,
    ) -> Result<(Given, Ownership), ProvisionError> {
        let shown = ownership(ownership_token, by);
        let id = ownership_token.get(..CERTIFICATE_ID_CHARS).unwrap_or_default().to_owned();
        let role = ProvisionalRole::Unclaimed(shown.clone());
        let look = move |registry: &Registry| {
            let found = registry.certificate(&id)?;
            let is_shown = found.provisional.as_ref().is_some_and(|it| it.role == role);
            is_shown.then(|| Given::of(found))
        };
        let given = self.backend.registry_read(look).await?;
        Ok((given.ok_or(Rejection::NotTheOwner)?, shown))
    }

    /// Provisions what a template asks for: all of it, or nothing.
    ///
    /// With a certificate that is `given`, the template must be for that one. What was looked at before is
    /// checked again when it is done.
    pub async fn provision(
        &self,
        template: &Template,
        mut parameters: Parameters,
        given: Option<Given>,
        check: Check,
        now: Timestamp,
    ) -> Result<Provisioned, ProvisionError> {
        let is_given = given.is_some();
        let (given, registers) = match given {
            Some(given) => (given, None),
            None => self.certificate(template, &parameters, now).await?,
        };
        parameters.extend(certificate_parameters(&given.certificate, &given.names));
        let known = CertificateSource::Known(given.certificate.clone());
        if is_given && template.certificate(&parameters)? != known {
            return Err(ProvisionError::OtherCertificate);
        }
        let plan = template.evaluate(&parameters)?;
        let registers = registers
            .map(|certificate| Box::new(Certificate { status: plan.status, ..certificate }));
        let thing = plan.thing.as_ref().map(|thing| thing.name.clone());
        let policies = plan.policies.iter().map(|policy| policy.name.clone()).collect();
        self.propose(ProvisioningCommand::Provision(Box::new(Provision {
            certificate: given.certificate.clone(),
            registers,
            status: plan.status,
            on_status: plan.on_status,
            thing: plan.thing,
            policies: plan.policies,
            check,
            id: Uuid::new_v4(),
            at: now,
        })))
        .await?;
        Ok(Provisioned {
            certificate: given.certificate,
            certificate_pem: given.pem,
            thing,
            policies,
            device_configuration: plan.device_configuration,
        })
    }

    /// The certificate that a template names, and how to register it if that is to be done.
    async fn certificate(
        &self,
        template: &Template,
        parameters: &Parameters,
        now: Timestamp,
    ) -> Result<(Given, Option<Certificate>), ProvisionError> {
        let record = match template.certificate(parameters)? {
            CertificateSource::Known(id) => {
                let wanted = id.clone();
                let look =
                    move |registry: &Registry| registry.certificate(wanted.as_str()).map(Given::of);
                let given = self.backend.registry_read(look).await?;
                let given = given.ok_or(Rejection::CertificateNotFound(id))?;
                return Ok((given, None));
            }
            CertificateSource::Request(request) => {
                let sign = move |issuer: &Issuer| issuer.issue_for_request(&request, now);
                let issued = self.issuing()?.issue(sign).await?;
                record(issued, CertificateStatus::Inactive, None, now)
            }
            CertificateSource::Pem { pem, authority_pem } => {
                let pem = x509::without_mark(&pem).to_owned();
                let inspected = x509::inspect(&pem)?;
                let signer = match authority_pem {
                    Some(authority) => {
                        let signer =
                            authorities::of(&self.backend, &inspected.der, Some(&authority));
                        Some(signer.await.map_err(ProvisionError::Authority)?)
                    }
                    None => None,
                };
                let (authority, mode) = signer.unzip();
                let issued = Issued { id: inspected.id, pem, summary: inspected.summary };
                let record = record(issued, CertificateStatus::Inactive, None, now);
                Certificate { authority, mode: mode.unwrap_or(CertificateMode::SniOnly), ..record }
            }
        };
        Ok((Given::of(&record), Some(record)))
    }

    async fn propose(&self, command: ProvisioningCommand) -> Result<(), ProvisionError> {
        self.watch.propose(&self.backend, Command::Provisioning(command)).await?;
        Ok(())
    }
}

impl Given {
    /// One of the registry.
    pub fn of(certificate: &Certificate) -> Self {
        Self {
            certificate: certificate.id.clone(),
            pem: certificate.pem.to_string(),
            names: Arc::clone(&certificate.summary.names),
        }
    }
}

/// What the registry keeps of an ownership token.
fn ownership(token: &str, claimed_by: Principal) -> Ownership {
    Ownership { token: hex::encode(Sha256::digest(token)), claimed_by }
}

fn record(
    Issued { id, pem, summary }: Issued,
    status: CertificateStatus,
    provisional: Option<Provisional>,
    now: Timestamp,
) -> Certificate {
    Certificate {
        id,
        pem: pem.into(),
        status,
        mode: CertificateMode::Default,
        authority: None,
        summary,
        created: now,
        modified: now,
        customer_version: 1,
        generation: Uuid::new_v4(),
        provisional,
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Body {
    template_body: Option<String>,
    #[serde(default)]
    parameters: BTreeMap<String, String>,
}

pub(crate) async fn register_thing<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let Body { template_body, parameters } = call.json()?;
    let body = required(template_body, "templateBody")?;
    let template = Template::parse(&body, Purpose::Registration)
        .map_err(|error| Error::Invalid(format!("templateBody: {error}")))?;
    check_given(&parameters).map_err(|error| Error::Invalid(error.to_string()))?;
    let provisioned =
        api.provisioner.provision(&template, parameters, None, Check::default(), call.now).await;
    let provisioned = provisioned.map_err(|error| Error::provision(error, &api.arns))?;
    Ok(Reply::Json(answer(&api.arns, &template, provisioned)))
}

/// What RegisterThing answers: ARNs by the names that the template gives its resources.
pub(crate) fn answer(arns: &Arns, template: &Template, provisioned: Provisioned) -> Value {
    let (thing, certificate, policies) = template.resource_names();
    let mut named = Map::new();
    named.insert(certificate.into(), arns.certificate(&provisioned.certificate).into());
    if let (Some(resource), Some(name)) = (thing, &provisioned.thing) {
        named.insert(resource.into(), arns.thing(name).into());
    }
    for (resource, name) in policies.zip(&provisioned.policies) {
        named.insert(resource.into(), arns.policy(name).into());
    }
    json!({ "certificatePem": provisioned.certificate_pem, "resourceArns": named })
}

pub(crate) async fn create_claim<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let template = TemplateName::new(call.label(0))?;
    let name = template.clone();
    let found = api.read(move |registry| {
        Ok(registry.template(name.as_str()).ok_or_else(|| templates::not_found(&name))?.kind)
    });
    if found.await? != TemplateType::FleetProvisioning {
        return Err(Error::Invalid("the template is not of type FLEET_PROVISIONING".into()));
    }
    let made = api.provisioner.claim(template, call.now).await;
    let (id, pem, keys, expires) = made.map_err(|error| Error::provision(error, &api.arns))?;
    Ok(Reply::Json(json!({
        "certificateId": id,
        "certificatePem": pem,
        "keyPair": { "PublicKey": keys.public_pem, "PrivateKey": keys.private_pem },
        "expiration": expires.seconds(),
    })))
}
