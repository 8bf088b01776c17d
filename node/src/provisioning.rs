//! Devices that provision themselves: requests on `$aws/certificates/…` and
//! `$aws/provisioning-templates/…`, which go to no subscriber, and whose answers go to nobody but the
//! client that asked, for they hold private keys.

mod hook;
mod payload;

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use api::Backend as _;
use api::audit::{Actor, Attempt, Intent, Outcome, Watch, Way};
use api::backend::Unavailable;
use api::provisioning::{Given, Offer, ProvisionError, Provisioned, Provisioner};
use bytes::Bytes;
use fleet::registry::{
    self, CertificateId, Check, ProvisioningTemplate, Rejection, TemplateInUse, TemplateName,
    TemplateType, Timestamp,
};
use mqtt::QoS;
use provisioning::{Parameters, Purpose, Template, check_given};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tracing::{debug, info};

use crate::backend::Backend;
use crate::clock::now_ms;
use crate::core::Core;
use crate::denial;
use crate::endpoint::Terms;
use crate::identity::Principal;
use crate::interest::Live;
use crate::metrics;
use crate::publication::{Kept, Publication};
use crate::shared::Shared;

pub use payload::Format;

/// Requests that a node serves at a time; further ones are told to come again.
pub const AT_ONCE: usize = 256;
/// Bytes of a request, as with AWS.
const REQUEST_BYTES: usize = 128 * 1024;

/// What a device asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    asks: Asks<'a>,
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks<'a> {
    /// A certificate and a key pair.
    Create,
    /// A certificate for its own key.
    CreateFromRequest,
    /// To be provisioned with a template.
    Provision(&'a str),
}

/// What an answer has behind the topic name of its request: `/accepted` or `/rejected`. A topic name has
/// 65,535 bytes at most [v5 MQTT-4.7.3-3].
const OUTCOME: usize = 9;

/// What a request on this topic asks for; none if it is not such a topic, or too long to be answered.
pub fn parse(topic: &str) -> Option<Request<'_>> {
    if topic.len() + OUTCOME > usize::from(u16::MAX) {
        return None;
    }
    let rest = topic.strip_prefix("$aws/")?;
    let (rest, format) = rest.rsplit_once('/')?;
    let format = Format::named(format)?;
    let asks = match rest {
        "certificates/create" => Asks::Create,
        "certificates/create-from-csr" => Asks::CreateFromRequest,
        _ => {
            let name = rest.strip_prefix("provisioning-templates/")?.strip_suffix("/provision")?;
            Asks::Provision(Some(name).filter(|name| !name.contains('/'))?)
        }
    };
    Some(Request { asks, format })
}

/// The client that asks.
struct Claimant {
    client: String,
    /// With whose right; only certificates have any here.
    certificate: Option<CertificateId>,
    /// As it is recorded; none who has proved nothing.
    actor: Option<Actor>,
    /// Where it is.
    source: Option<IpAddr>,
}

impl Core {
    /// Serves a request. Its answer goes to the client if it has subscribed to it.
    pub fn serve_provisioning(self: &Rc<Self>, live: Live, topic: &str, payload: &[u8]) {
        let Some(endpoint) = self.endpoint(live) else { return };
        let certificate = match &endpoint.profile.principal {
            Principal::Certificate(id) => CertificateId::new(id).ok(),
            _ => None,
        };
        let client = endpoint.profile.client.to_string();
        let actor = endpoint.profile.principal.actor(&client, Way::FleetProvisioning);
        let source = endpoint.profile.source_ip;
        let claimant = Claimant { client, certificate, actor, source };
        let topic = topic.to_owned();
        let place = self.place_for(live, payload);
        // Not before it has a place: a request may be as large as a packet.
        let payload = if place.is_ok() { Bytes::copy_from_slice(payload) } else { Bytes::new() };
        let core = Rc::clone(self);
        // Not while the request itself is being handled.
        actix_rt::spawn(async move {
            let Some(request) = parse(&topic) else { return };
            let (place, answer) = match place {
                Ok(place) => {
                    (Some(place), serve_recorded(&core.shared, &claimant, request, &payload).await)
                }
                Err(rejected) => (None, Err(rejected)),
            };
            metrics::provisioning(request.name(), answer.is_ok());
            let (word, body) = match answer {
                Ok(body) => ("accepted", body),
                Err(rejected) => {
                    let Rejected { code, message, .. } = &rejected;
                    let [client, topic, why] =
                        [&*claimant.client, &*topic, &**message].map(denial::shortened);
                    debug!(client, topic, code, why, "not provisioned");
                    ("rejected", rejected.body())
                }
            };
            core.answer_only(live, &format!("{topic}/{word}"), request.format.encode(&body));
            if place.is_some() {
                core.provisioning.borrow_mut().remove(&live.slot);
            }
        });
    }

    /// A place among the requests that are served: one for each connection.
    fn place_for(&self, live: Live, payload: &[u8]) -> Result<OwnedSemaphorePermit, Rejected> {
        if payload.len() > REQUEST_BYTES {
            let message = format!("{} bytes, at most {REQUEST_BYTES} are allowed", payload.len());
            return Err(Rejected::new(400, "InvalidPayload", message));
        }
        let busy = || Rejected::of(&ProvisionError::Busy);
        let mut provisioning = self.provisioning.borrow_mut();
        if provisioning.contains(&live.slot) {
            return Err(busy());
        }
        let places = Arc::clone(&self.shared.provisionings);
        let place = places.try_acquire_owned().map_err(|_| busy())?;
        provisioning.insert(live.slot);
        Ok(place)
    }

    /// Publishes to one client, as far as it has subscribed to the topic.
    fn answer_only(&self, live: Live, topic: &str, payload: Vec<u8>) {
        let clock = self.clock();
        let Some(endpoint) = self.endpoint(live) else { return };
        let own = {
            let endpoints = self.endpoints.borrow();
            self.routes.borrow().own_target(topic, &endpoints, live.slot, clock)
        };
        let Some(own) = own else { return };
        // A queue of the session would store the private key.
        let qos = if endpoint.profile.persistent { QoS::AtMostOnce } else { own.qos };
        let kept = Kept {
            topic: Bytes::copy_from_slice(topic.as_bytes()),
            payload: payload.into(),
            qos: qos as u32,
            published_at: clock.epoch_ms,
            ..Kept::default()
        };
        let (publication, subscription_ids) = (Publication::kept(&kept), &own.subscription_ids);
        let terms = Terms { qos, retain: false, subscription_ids, share: None };
        endpoint.deliver(&publication, terms, clock, &mut self.pool.borrow_mut());
    }
}

impl Request<'_> {
    /// As AWS calls it.
    fn operation(&self) -> &'static str {
        match self.asks {
            Asks::Create => "CreateKeysAndCertificate",
            Asks::CreateFromRequest => "CreateCertificateFromCsr",
            Asks::Provision(_) => "RegisterThing",
        }
    }

    fn name(&self) -> &'static str {
        match self.asks {
            Asks::Create => "create",
            Asks::CreateFromRequest => "create_from_csr",
            Asks::Provision(_) => "provision",
        }
    }
}

/// Why a device was not provisioned, as it is told.
#[derive(Debug, PartialEq, Eq)]
struct Rejected {
    status: u16,
    code: &'static str,
    message: String,
}

impl Rejected {
    fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    fn of(error: &ProvisionError) -> Self {
        use ProvisionError as P;
        let (status, code) = match error {
            P::Certificate(error) if error.is_ours() => (500, "InternalServerError"),
            P::Certificate(_) => (400, "InvalidCertificateSigningRequest"),
            P::Rejected(Rejection::NotTheOwner) => (400, "InvalidCertificateOwnershipToken"),
            P::Rejected(Rejection::TemplateChanged(_)) => (403, "AccessDenied"),
            P::Rejected(Rejection::ResourceConflict { .. }) => (409, "ResourceConflicts"),
            P::Busy | P::Rejected(Rejection::ManyUnclaimedCertificates { .. }) => {
                (429, "Throttled")
            }
            P::Template(_) | P::OtherCertificate | P::Authority(_) | P::Rejected(_) => {
                (400, "InvalidParameters")
            }
            P::Unavailable(_) => (503, "ServiceUnavailable"),
            P::NoIssuer | P::Internal => (500, "InternalServerError"),
        };
        let message = match status {
            // What is wrong with the node is its operator's business.
            500 => "the node could not do it: its log says why".to_owned(),
            _ => error.to_string(),
        };
        Self::new(status, code, message)
    }

    fn body(&self) -> Value {
        json!({
            "statusCode": self.status,
            "errorCode": self.code,
            "errorMessage": self.message,
        })
    }
}

impl From<ProvisionError> for Rejected {
    fn from(error: ProvisionError) -> Self {
        Self::of(&error)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CsrBody {
    certificate_signing_request: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProvisionBody {
    certificate_ownership_token: String,
    #[serde(default)]
    parameters: Parameters,
}

/// Serves a request, and records what it changes.
async fn serve_recorded(
    shared: &Arc<Shared>,
    claimant: &Claimant,
    request: Request<'_>,
    payload: &[u8],
) -> Result<Value, Rejected> {
    let ledger = shared.audit.as_ref().map(|audit| &audit.ledger);
    let attempt = match &claimant.actor {
        Some(actor) => Attempt::begin(ledger, || Intent {
            actor: actor.clone(),
            source: claimant.source,
            operation: request.operation().into(),
            resource: match request.asks {
                Asks::Provision(template) => {
                    Some(format!("{}provisioningtemplate/{template}", shared.arns.prefix()))
                }
                Asks::Create | Asks::CreateFromRequest => None,
            },
            request: uuid::Uuid::new_v4().to_string(),
        })
        .map_err(ProvisionError::Unavailable)?,
        None => Attempt::unrecorded(),
    };
    let answer = serve(shared, claimant, request, payload, attempt.watch()).await;
    let classify = |it: &Rejected| (Outcome::of_status(it.status), it.code);
    let recorded = attempt.conclude(&answer, classify, Timestamp(now_ms())).await;
    recorded.map_err(ProvisionError::Unavailable)?;
    answer
}

async fn serve(
    shared: &Arc<Shared>,
    claimant: &Claimant,
    request: Request<'_>,
    payload: &[u8],
    watch: Watch,
) -> Result<Value, Rejected> {
    let certificate = claimant.certificate.clone().ok_or_else(|| {
        Rejected::new(403, "AccessDenied", "only a client with a certificate can be provisioned")
    })?;
    let invalid = |why: String| Rejected::new(400, "InvalidPayload", why);
    let backend = Backend::new(Arc::clone(shared));
    let provisioner = Provisioner::new(backend.clone(), shared.issuing.clone(), watch);
    let (by, now) = (registry::Principal::Certificate(certificate.clone()), Timestamp(now_ms()));
    match request.asks {
        Asks::Create => {
            request.format.decode::<serde::de::IgnoredAny>(payload).map_err(invalid)?;
            Ok(offered(provisioner.offer_keys(by, now).await?))
        }
        Asks::CreateFromRequest => {
            let body: CsrBody = request.format.decode(payload).map_err(invalid)?;
            let csr = body.certificate_signing_request;
            Ok(offered(provisioner.offer_for_request(&csr, by, now).await?))
        }
        Asks::Provision(name) => {
            let body: ProvisionBody = request.format.decode(payload).map_err(invalid)?;
            check_given(&body.parameters).map_err(ProvisionError::from)?;
            let (kept, template) = template(&backend, name).await?;
            let token = &body.certificate_ownership_token;
            let (given, shown) = provisioner.shown(token, by).await?;
            let asked = Hooked { shared, claimant, certificate: &certificate, given: &given };
            let parameters = asked.parameters(&kept, body.parameters).await?;
            let check = Check {
                shown: Some(shown),
                template: Some(TemplateInUse::of(&kept)),
                only_pending: true,
                line: None,
            };
            let provisioned = provisioner.provision(&template, parameters, Some(given), check, now);
            let Provisioned { certificate, thing, device_configuration, .. } = provisioned.await?;
            let thing = thing.map(|thing| thing.to_string());
            info!(
                client = claimant.client,
                template = name,
                certificate = certificate.as_str(),
                thing,
                "a device has provisioned itself"
            );
            let mut answer = json!({ "deviceConfiguration": device_configuration });
            if let Some(thing) = thing {
                answer["thingName"] = thing.into();
            }
            Ok(answer)
        }
    }
}

fn offered(offer: Offer) -> Value {
    let mut answer = json!({
        "certificateId": offer.certificate,
        "certificatePem": offer.certificate_pem,
        "certificateOwnershipToken": offer.ownership_token,
    });
    if let Some(key) = offer.private_key {
        answer["privateKey"] = key.into();
    }
    answer
}

/// The template of a name, if devices may provision themselves with it.
async fn template(
    backend: &Backend,
    name: &str,
) -> Result<(ProvisioningTemplate, Template), Rejected> {
    let unknown = || Rejected::new(404, "ResourceNotFound", format!("no template {name:?}"));
    let wanted = TemplateName::new(name).map_err(|_| unknown())?;
    let found = backend.registry_read(move |registry| registry.template(wanted.as_str()).cloned());
    let found = found.await.map_err(|Unavailable| ProvisionError::Unavailable(Unavailable))?;
    let found =
        found.filter(|it| it.kind == TemplateType::FleetProvisioning).ok_or_else(unknown)?;
    if !found.enabled {
        return Err(Rejected::new(403, "AccessDenied", "the template is not enabled"));
    }
    let template = Template::parse(found.body(), Purpose::Fleet).map_err(ProvisionError::from)?;
    Ok((found, template))
}

/// What a hook is asked about.
struct Hooked<'a> {
    shared: &'a Shared,
    claimant: &'a Claimant,
    certificate: &'a CertificateId,
    given: &'a Given,
}

impl Hooked<'_> {
    /// The parameters of the device, and over them those of the hook, if there is one and it lets the
    /// device be provisioned. No answer means no.
    async fn parameters(
        &self,
        template: &ProvisioningTemplate,
        mut parameters: Parameters,
    ) -> Result<Parameters, Rejected> {
        let Some(hook) = &template.hook else { return Ok(parameters) };
        let prefix = self.shared.arns.prefix();
        let question = json!({
            "claimCertificateId": self.certificate,
            "certificateId": self.given.certificate,
            "certificatePem": self.given.pem,
            "templateArn": format!("{prefix}provisioningtemplate/{}", template.name),
            "clientId": self.claimant.client,
            "parameters": parameters,
        });
        match hook::ask(&hook.target, &question).await {
            Ok(Some(overrides)) => {
                check_given(&overrides).map_err(ProvisionError::from)?;
                parameters.extend(overrides);
                Ok(parameters)
            }
            Ok(None) => {
                Err(Rejected::new(403, "AccessDenied", "the pre-provisioning hook refused"))
            }
            Err(why) => {
                let (label, told) = why.told();
                metrics::hook_failed(label);
                tracing::warn!(
                    template = template.name.as_str(),
                    %why,
                    "the pre-provisioning hook gave no answer that can be used, so no device is \
                     provisioned with the template"
                );
                Err(Rejected::new(403, "AccessDenied", told))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_say_what_is_asked_for() {
        let request = |asks, format| Some(Request { asks, format });
        for (topic, expected) in [
            ("$aws/certificates/create/json", request(Asks::Create, Format::Json)),
            ("$aws/certificates/create/cbor", request(Asks::Create, Format::Cbor)),
            (
                "$aws/certificates/create-from-csr/json",
                request(Asks::CreateFromRequest, Format::Json),
            ),
            (
                "$aws/provisioning-templates/fleet/provision/cbor",
                request(Asks::Provision("fleet"), Format::Cbor),
            ),
            ("$aws/certificates/create/xml", None),
            ("$aws/certificates/create/json/accepted", None),
            ("$aws/certificates/create", None),
            ("$aws/provisioning-templates/a/b/provision/json", None),
            (
                "$aws/provisioning-templates//provision/json",
                request(Asks::Provision(""), Format::Json),
            ),
            ("aws/certificates/create/json", None),
        ] {
            assert_eq!(parse(topic), expected, "{topic}");
        }
    }

    #[test]
    fn a_request_has_an_answer_that_can_be_sent() {
        let fixed = "$aws/provisioning-templates//provision/json/accepted".len();
        let longest = usize::from(u16::MAX) - fixed;
        for (length, is_request) in [(longest, true), (longest + 1, false)] {
            let name = "n".repeat(length);
            let topic = format!("$aws/provisioning-templates/{name}/provision/json");
            assert_eq!(parse(&topic).is_some(), is_request, "{length}");
        }
    }
}
