//! A node in memory: the registry and the shadows are the real ones, the rest is maps.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use api::backend::{
    AuthorizedCaller, Connection, Ending, Listed, NoAnswer, ProposeError, PublishError,
    PublishRequest, Report, Retained, RetainedSummary, ShadowError, Subscription, Unavailable,
};
use api::people::{self, PersonSession, Provider};
use api::sigv4::AccessKey;
use api::x509::Issuer;
use api::{Backend, CertificateCaller, Clock, Config, Endpoints};
use authorizer::jwt::{Claims, Keys};
use bytes::Bytes;
use fleet::registry::{Authorizer, Command, Outcome, Registry, Timestamp};
use policy::{Action, Compiled, Decision, Variables};

pub(crate) const ACCOUNT: &str = "123456789012";
pub(crate) const REGION: &str = "us-east-1";
pub(crate) const ACCESS_KEY: &str = "AKIATEST";
pub(crate) const SECRET: &str = "test-secret";

/// Clones share one state.
#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<State>>);

#[derive(Default)]
pub(crate) struct State {
    pub(crate) registry: Registry,
    pub(crate) shadows: BTreeMap<(String, Option<String>), shadow::Record>,
    pub(crate) retained: BTreeMap<String, Retained>,
    pub(crate) published: Vec<PublishRequest>,
    pub(crate) connections: BTreeMap<String, (Connection, Vec<Subscription>)>,
    pub(crate) ended: Vec<(String, Ending)>,
    /// With whom people log in.
    pub(crate) providers: Vec<Provider>,
    /// What signs their tokens.
    pub(crate) token_keys: Vec<u8>,
    pub(crate) is_unavailable: bool,
    /// The time of the node.
    pub(crate) now_secs: u64,
}

impl Memory {
    pub(crate) fn with<T>(&self, use_state: impl FnOnce(&mut State) -> T) -> T {
        use_state(&mut self.0.lock().unwrap())
    }

    fn available<T>(&self, use_state: impl FnOnce(&mut State) -> T) -> Result<T, Unavailable> {
        self.with(
            |state| if state.is_unavailable { Err(Unavailable) } else { Ok(use_state(state)) },
        )
    }
}

pub(crate) fn config(issuer: Issuer) -> Config {
    Config {
        account: ACCOUNT.into(),
        region: REGION.into(),
        any_region: false,
        endpoints: Endpoints {
            data: "localhost:8443".into(),
            jobs: "localhost:8444".into(),
            credentials: "localhost:8445".into(),
        },
        access_keys: vec![AccessKey {
            id: ACCESS_KEY.into(),
            secret: SECRET.into(),
            rights: Arc::default(),
        }],
        thing_types_deprecated_for: Duration::from_millis(fleet::registry::DEPRECATED_FOR_MS),
        issuing: api::provisioning::Issuing::new(issuer),
        ledger: None,
        rates: api::Rates::default(),
        clock: Clock::default(),
    }
}

/// An authority made for the occasion.
pub(crate) fn authority() -> (Issuer, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "Skein test CA");
    let certificate = params.self_signed(&key).unwrap();
    let issuer = Issuer::from_pem(&certificate.pem(), &key.serialize_pem()).unwrap();
    (issuer, certificate.pem())
}

fn now_secs() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

fn page<T: Clone>(items: Vec<(String, T)>, after: Option<String>, limit: usize) -> Listed<T> {
    let rest: Vec<_> =
        items.into_iter().filter(|(key, _)| after.as_ref().is_none_or(|at| key > at)).collect();
    let next = (rest.len() > limit).then(|| rest[limit - 1].0.clone());
    Listed { items: rest.into_iter().take(limit).map(|(_, item)| item).collect(), next }
}

impl Backend for Memory {
    async fn registry_propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        // Through its stored form, as a node would.
        let command = Command::decode(&command.encode()).unwrap();
        Ok(self.available(|state| state.registry.apply(command))??)
    }

    async fn registry_read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Registry) -> T + Send + 'static,
    ) -> Result<T, Unavailable> {
        self.available(|state| read(&state.registry))
    }

    async fn shadow_get(&self, thing: String, name: Option<String>) -> Result<Bytes, ShadowError> {
        self.available(|state| {
            let label = name.clone().unwrap_or_else(|| thing.clone());
            let record = state.shadows.get(&(thing, name));
            Ok(shadow::get(record, &label, None, now_secs())?.into())
        })?
    }

    async fn shadow_update(
        &self,
        thing: String,
        name: Option<String>,
        request: Bytes,
    ) -> Result<Bytes, ShadowError> {
        self.available(|state| {
            let limits = shadow::Limits::default();
            let update = shadow::parse_update(&request, &limits)?;
            let key = (thing, name);
            let change = shadow::update(state.shadows.get(&key), &update, now_secs(), &limits)?;
            state.shadows.insert(key, shadow::Record::Present(change.document));
            Ok(change.accepted.into())
        })?
    }

    async fn shadow_delete(
        &self,
        thing: String,
        name: Option<String>,
    ) -> Result<Bytes, ShadowError> {
        self.available(|state| {
            let label = name.clone().unwrap_or_else(|| thing.clone());
            let key = (thing, name);
            let deletion = shadow::delete(state.shadows.get(&key), &label, None, now_secs())?;
            state.shadows.insert(key, shadow::Record::Deleted(deletion.tombstone));
            Ok(deletion.accepted.into())
        })?
    }

    async fn shadow_names(
        &self,
        thing: String,
        after: Option<String>,
        limit: usize,
    ) -> Result<Listed<String>, Unavailable> {
        self.available(|state| {
            let present = state
                .shadows
                .iter()
                .filter(|(_, record)| matches!(record, shadow::Record::Present(_)));
            let names = present.filter_map(|((of, name), _)| {
                name.clone().filter(|_| *of == thing).map(|name| (name.clone(), name))
            });
            page(names.collect(), after, limit)
        })
    }

    async fn publish(&self, publication: PublishRequest) -> Result<(), PublishError> {
        const LIMIT: usize = 128 * 1024;
        if publication.payload.len() > LIMIT {
            return Err(PublishError::TooLarge { size: publication.payload.len(), limit: LIMIT });
        }
        Ok(self.available(|state| {
            if publication.retain {
                let topic = publication.topic.clone();
                if publication.payload.is_empty() {
                    state.retained.remove(&topic);
                } else {
                    let message = Retained {
                        topic: topic.clone(),
                        payload: publication.payload.clone(),
                        qos: publication.qos,
                        stored_at_ms: now_secs() * 1000,
                        properties: publication.properties.clone().into(),
                    };
                    state.retained.insert(topic, message);
                }
            }
            state.published.push(publication);
        })?)
    }

    async fn retained_get(&self, topic: String) -> Result<Option<Retained>, Unavailable> {
        self.available(|state| state.retained.get(&topic).cloned())
    }

    async fn retained_list(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> Result<Listed<RetainedSummary>, Unavailable> {
        self.available(|state| {
            let summary = |(topic, message): (&String, &Retained)| {
                let summary = RetainedSummary {
                    topic: topic.clone(),
                    payload_bytes: message.payload.len(),
                    qos: message.qos,
                    stored_at_ms: message.stored_at_ms,
                };
                (topic.clone(), summary)
            };
            page(state.retained.iter().map(summary).collect(), after, limit)
        })
    }

    async fn connection_get(&self, client_id: String) -> Result<Option<Connection>, Unavailable> {
        self.available(|state| Some(state.connections.get(&client_id)?.0.clone()))
    }

    async fn connection_delete(
        &self,
        client_id: String,
        ending: Ending,
    ) -> Result<bool, Unavailable> {
        self.available(|state| {
            let is_known = state.connections.remove(&client_id).is_some();
            state.ended.push((client_id, ending));
            is_known
        })
    }

    async fn subscriptions(
        &self,
        client_id: String,
        after: Option<String>,
        limit: usize,
    ) -> Result<Option<Listed<Subscription>>, Unavailable> {
        self.available(|state| {
            let (_, subscriptions) = state.connections.get(&client_id)?;
            let items = subscriptions.iter().map(|item| (item.filter.clone(), item.clone()));
            Some(page(items.collect(), after, limit))
        })
    }

    fn registration_bucket(&self, bucket: &str) -> Result<(), String> {
        if bucket == "devices" { Ok(()) } else { Err(format!("there is no bucket {bucket}")) }
    }

    async fn registration_report(&self, report: Report) -> Result<Option<Bytes>, Unavailable> {
        self.available(|_| Some(Bytes::from(report.name())).filter(|_| report.part < 3))
    }

    async fn authorize(
        &self,
        caller: &CertificateCaller,
        action: Action,
        resource: String,
    ) -> Decision {
        self.with(|state| {
            let now = Timestamp(state.now_secs * 1000);
            let others = match &caller.session {
                None => Some(BTreeMap::new()),
                Some(session) => state.registry.session_variables(session, now),
            };
            let identity = state.registry.identity(caller.certificate.as_str(), None);
            let identity = identity.filter(|identity| identity.may_connect(now));
            let (Some(identity), Some(others)) = (identity, others) else {
                return Decision::ImplicitDeny;
            };
            let arns = policy::Arns {
                partition: "aws".into(),
                region: REGION.into(),
                account: ACCOUNT.into(),
            };
            let variables = Variables {
                certificate: Some(identity.certificate_variables()),
                source_ip: caller.source_ip,
                domain_name: caller.domain_name.clone(),
                others,
                ..Variables::default()
            };
            Compiled::new(&identity.documents(), &arns, &variables).decide(
                action,
                &resource,
                &policy::Request::default(),
            )
        })
    }

    async fn ask_authorizer(
        &self,
        _: authorizer::Presented,
        _: Option<std::net::IpAddr>,
    ) -> Result<Option<AuthorizedCaller>, authorizer::Refusal> {
        Ok(None)
    }

    async fn web_identity(
        &self,
        token: String,
    ) -> Result<(Arc<Provider>, Claims), people::Unidentified> {
        self.with(|state| {
            let provider = state.providers.first().cloned();
            let no_provider = || people::Unidentified::NoProvider("the issuer".into());
            let provider = provider.ok_or_else(no_provider)?;
            let keys = Keys::parse(&state.token_keys).map_err(|_| people::Unidentified::NoKeys)?;
            Ok((Arc::new(provider), Claims::verify(&token, &keys)?))
        })
    }

    fn person_stands(&self, session: &PersonSession) -> bool {
        self.with(|state| session.stands(&state.providers))
    }

    async fn test_authorizer(
        &self,
        _: Authorizer,
        _: authorizer::Presented,
    ) -> Result<authorizer::Answer, NoAnswer> {
        Err(NoAnswer { refusal: authorizer::Refusal::Failed, detail: String::new() })
    }
}
