//! What the REST API asks of the node, answered over its handles.

mod held;

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use api::backend::{
    AuthorizedCaller, CertificateCaller, Connection, Ending, Listed, NoAnswer, ProposeError,
    PublishError, PublishRequest, Report, Retained, RetainedSummary, ShadowError, Subscription,
    Unavailable,
};
use api::people::{self, PersonSession, Provider};
use authorizer::jwt::Claims;
use authorizer::{Answer, Presented, Refusal};
use bytes::Bytes;
use cluster::GroupId;
use fleet::registry::{self, Authorizer, Registry};
use fleet::shard::{self, Shard};
use links::proto::Question;
use policy::{Action, Decision, Variables};
use tokio::sync::oneshot;
use tracing::warn;

use crate::authorizers;
use crate::claims;
use crate::clock::now_ms;
use crate::core::{Core, ToCore, Uses};
use crate::decisions::Watch;
use crate::endpoint::Endpoint;
use crate::host::{Machine, Outcome, Proposal, Reply, Signal};
use crate::identity::{self, Principal};
use crate::interest::Live;
use crate::publication::{Kept, Publication};
use crate::shared::Shared;
use held::{behind, from_peer, holder};

/// How long another node has to end a connection that an operator wants to end.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// How often that is begun anew for a client that comes and goes meanwhile.
const TRIES: u32 = 5;

/// The node as the API sees it.
#[derive(Clone)]
pub struct Backend {
    shared: Arc<Shared>,
}

impl Backend {
    /// Over the handles of a node.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Whether the outbox of a thing's group leaves room for the answers of its shadow; else a
    /// client shall try again later.
    fn has_room(&self, thing: &str) -> Result<(), Unavailable> {
        let outbox = Uses::outbox_bit(self.shared.group_of(thing));
        if self.shared.is_long(outbox) { Err(Unavailable) } else { Ok(()) }
    }

    async fn propose(&self, group: GroupId, command: Bytes) -> Result<Outcome, Unavailable> {
        let (answer, outcome) = oneshot::channel();
        let proposal = Proposal::asked(group, command, Reply::Once(answer));
        let proposed = self.shared.groups.propose_all(vec![proposal]).await;
        proposed.map_err(|_| Unavailable)?;
        outcome.await.map_err(|_| Unavailable)?.map_err(|_| Unavailable)
    }

    fn group_of(&self, key: &str) -> GroupId {
        self.shared.group_of(key).into()
    }

    async fn read_shard<T: Send + 'static>(
        &self,
        group: GroupId,
        look: impl FnOnce(&Shard) -> T + Send + 'static,
    ) -> Result<T, Unavailable> {
        let read = identity::read(&self.shared, group, move |groups| {
            groups.get(group).and_then(Machine::shard).map(look)
        });
        read.await.flatten().ok_or(Unavailable)
    }

    async fn change_shadow(
        &self,
        thing: &str,
        command: shard::Command,
    ) -> Result<Bytes, ShadowError> {
        self.has_room(thing)?;
        match self.propose(self.group_of(thing), command.encoded()).await? {
            Outcome::Shard(shard::Outcome::Shadow(answer)) if answer.accepted() => Ok(answer.body),
            Outcome::Shard(shard::Outcome::Shadow(answer)) => {
                Err(ShadowError::Rejected(rejected(&answer)))
            }
            _ => Err(Unavailable.into()),
        }
    }

    /// Runs something on a core and waits for what it gives back.
    async fn on_core<T: Send + 'static>(
        &self,
        core: u16,
        run: impl FnOnce(&Rc<Core>) -> T + Send + 'static,
    ) -> Result<T, Unavailable> {
        let (answer, result) = oneshot::channel();
        let run = Box::new(move |core: &Rc<Core>| {
            // Whoever asked may have gone away.
            let _ = answer.send(run(core));
        });
        self.shared.send(core, ToCore::Run(run));
        result.await.map_err(|_| Unavailable)
    }

    /// Publishes as the node; resolves when it is safe.
    pub async fn publish_kept(&self, kept: Kept) -> Result<(), Unavailable> {
        if !self.shared.currency.is_current() {
            return Err(Unavailable);
        }
        // One core per topic keeps the order of what is published to it.
        let core = self.shared.home_of(Publication::kept(&kept).topic);
        let (answer, safe) = oneshot::channel();
        let run = Box::new(move |core: &Rc<Core>| core.publish_for(&kept, answer));
        self.shared.send(core, ToCore::Run(run));
        match safe.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Unavailable),
        }
    }

    /// The connection that holds a client id.
    async fn live(&self, client: &str) -> Result<Option<Live>, Unavailable> {
        let name = client.to_owned();
        let home = self.shared.home_of(client);
        self.on_core(home, move |core| core.claims.borrow().holder(&name)).await
    }

    /// The node that a client is connected to, if it is.
    pub async fn node_of(&self, client: &str) -> Result<Option<u64>, Unavailable> {
        if self.live(client).await?.is_some() {
            return Ok(Some(self.shared.mesh.own.node()));
        }
        let name = client.to_owned();
        let look = move |shard: &Shard| shard.session(name.as_bytes()).and_then(holder);
        self.read_shard(self.group_of(client), look).await
    }

    /// Has what is decided about the connection of a client noted, if it is here.
    pub async fn watch(&self, client: &str, watch: Arc<Watch>) -> Result<(), Unavailable> {
        let Some(live) = self.live(client).await? else { return Ok(()) };
        self.on_core(live.core, move |core| {
            if let Some(endpoint) = core.endpoint(live) {
                endpoint.watch(watch);
            }
            // What was decided before is decided again.
            core.routes.borrow_mut().forget();
        })
        .await
    }

    /// Looks at a connection.
    async fn at_endpoint<T: Send + 'static>(
        &self,
        live: Live,
        look: impl FnOnce(&Endpoint) -> T + Send + 'static,
    ) -> Result<Option<T>, Unavailable> {
        self.on_core(live.core, move |core| core.endpoint(live).map(|endpoint| look(&endpoint)))
            .await
    }
}

fn rejected(answer: &shard::ShadowAnswer) -> shadow::Rejected {
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let message = body.get("message").and_then(|message| message.as_str()).unwrap_or_default();
    shadow::Rejected { code: answer.code, message: message.to_owned(), client_token: None }
}

impl api::Backend for Backend {
    async fn registry_propose(
        &self,
        command: registry::Command,
    ) -> Result<registry::Outcome, ProposeError> {
        let (needed, known) = (command.since(), self.shared.known_data_version());
        if needed > known {
            warn!(
                needed,
                known,
                "a change is refused until all nodes of the cluster know how to read it: restart those \
                of the version before"
            );
            return Err(Unavailable.into());
        }
        match self.propose(GroupId::META, command.encode().into()).await? {
            Outcome::Registry(result) => Ok(result?),
            _ => Err(Unavailable.into()),
        }
    }

    async fn registry_read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Registry) -> T + Send + 'static,
    ) -> Result<T, Unavailable> {
        identity::read_registry(&self.shared, read).await.ok_or(Unavailable)
    }

    async fn shadow_get(&self, thing: String, name: Option<String>) -> Result<Bytes, ShadowError> {
        let group = self.group_of(&thing);
        let look = move |shard: &Shard| shard.get_shadow(&thing, name.as_deref(), None, now_ms());
        let answer = self.read_shard(group, look).await?;
        crate::metrics::shadow_operation("get", answer.is_ok());
        Ok(answer?.into())
    }

    async fn shadow_update(
        &self,
        thing: String,
        name: Option<String>,
        request: Bytes,
    ) -> Result<Bytes, ShadowError> {
        shadow::check_size(&request)?;
        let command = shard::UpdateShadow {
            thing: thing.clone(),
            name,
            payload: request,
            at: now_ms(),
            takes_empty: self.shared.takes_empty_shadows(),
            ..shard::UpdateShadow::default()
        };
        self.change_shadow(&thing, command.into()).await
    }

    async fn shadow_delete(
        &self,
        thing: String,
        name: Option<String>,
    ) -> Result<Bytes, ShadowError> {
        let command = shard::DeleteShadow {
            thing: thing.clone(),
            name,
            at: now_ms(),
            ..shard::DeleteShadow::default()
        };
        self.change_shadow(&thing, command.into()).await
    }

    async fn shadow_names(
        &self,
        thing: String,
        after: Option<String>,
        limit: usize,
    ) -> Result<Listed<String>, Unavailable> {
        let group = self.group_of(&thing);
        let look = move |shard: &Shard| {
            let names = shard.named_shadows(&thing, after.as_deref(), limit + 1);
            names.into_iter().map(ToOwned::to_owned).collect::<Vec<_>>()
        };
        Ok(page(self.read_shard(group, look).await?, limit, Clone::clone))
    }

    async fn publish(&self, publication: PublishRequest) -> Result<(), PublishError> {
        let limit = self.shared.limits.maximum_packet_size as usize;
        let size = publication.payload.len() + publication.properties.len();
        if size + publication.topic.len() > limit {
            return Err(PublishError::TooLarge { size, limit });
        }
        // Requests of devices that provision themselves are for connections: whom to answer here?
        if publication.topic.starts_with('$') && !crate::reserved::may_publish(&publication.topic) {
            return Err(PublishError::Topic(publication.topic));
        }
        if let Some(request) = shadow::topic::parse(&publication.topic) {
            self.has_room(request.thing)?;
        }
        let at = now_ms();
        let kept = Kept {
            topic: publication.topic.into(),
            payload: publication.payload,
            properties: publication.properties.into(),
            qos: publication.qos.into(),
            retain: publication.retain,
            expires_at: publication.expiry_secs.map(|secs| at + u64::from(secs.max(1)) * 1000),
            publisher: Bytes::new(),
            published_at: at,
        };
        Ok(self.publish_kept(kept).await?)
    }

    async fn retained_get(&self, topic: String) -> Result<Option<Retained>, Unavailable> {
        let group = self.group_of(&topic);
        let look = move |shard: &Shard| {
            let kept = shard.retained(&topic).filter(|kept| !kept.expired(now_ms()))?;
            Some(Retained {
                topic,
                payload: kept.payload.clone(),
                qos: u8::try_from(kept.qos).unwrap_or(0),
                stored_at_ms: kept.published_at,
                properties: kept.properties.clone(),
            })
        };
        self.read_shard(group, look).await
    }

    async fn retained_list(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> Result<Listed<RetainedSummary>, Unavailable> {
        let summarise = |kept: &Arc<Kept>| {
            Some(RetainedSummary {
                topic: kept.topic_name()?.to_owned(),
                payload_bytes: kept.payload.len(),
                qos: u8::try_from(kept.qos).unwrap_or(0),
                stored_at_ms: kept.published_at,
            })
        };
        let shards = (1..=self.shared.shards).map(GroupId::from);
        let look = identity::read_all(&self.shared, shards, move |groups| {
            let now = now_ms();
            let mut found = Vec::new();
            for group in groups.ids() {
                let Some(shard) = groups.get(group).and_then(Machine::shard) else { continue };
                let kept = shard.retained_after(after.as_deref());
                let kept = kept.filter(|kept| !kept.expired(now)).take(limit + 1);
                found.extend(kept.filter_map(summarise));
            }
            found
        });
        let mut found: Vec<RetainedSummary> = look.await.ok_or(Unavailable)?;
        found.sort_by(|a, b| a.topic.cmp(&b.topic));
        Ok(page(found, limit, |summary| summary.topic.clone()))
    }

    async fn connection_get(&self, client: String) -> Result<Option<Connection>, Unavailable> {
        let name = client.clone();
        let found = self.read_shard(self.group_of(&client), move |shard| {
            let session = shard.session(name.as_bytes())?;
            let told = Connection {
                connected: session.connected(),
                clean_session: session.expiry_secs() == 0,
                disconnected_since_ms: session.disconnected_at(),
                session_expiry_secs: Some(session.expiry_secs()),
                ..Connection::default()
            };
            Some((told, holder(session)))
        });
        let (record, holder) = found.await?.unzip();
        let mut connected = self.held(&client).await?;
        if let (None, Some(node)) = (&connected, holder.flatten()) {
            let told = self.ask(node, Question { client, ..Question::default() }).await;
            connected = told.and_then(|answer| answer.connection).map(from_peer);
        }
        let Some(connected) = connected else { return Ok(record) };
        let session_expiry_secs = record.and_then(|record| record.session_expiry_secs);
        Ok(Some(Connection { session_expiry_secs, ..connected }))
    }

    async fn connection_delete(&self, client: String, ending: Ending) -> Result<bool, Unavailable> {
        let Some(live) = self.live(&client).await? else {
            return self.end_session(client, ending).await;
        };
        self.on_core(live.core, move |core| core.delete_connection(live, ending)).await
    }

    async fn subscriptions(
        &self,
        client: String,
        after: Option<String>,
        limit: usize,
    ) -> Result<Option<Listed<Subscription>>, Unavailable> {
        let more = limit + 1;
        let listed = |all: Vec<Subscription>| Some(page(all, limit, |it| it.filter.clone()));
        if let Some(all) = self.held_subscriptions(&client).await? {
            return Ok(listed(behind(all, after, more)));
        }
        let name = client.clone();
        let look = move |shard: &Shard| {
            let session = shard.session(name.as_bytes())?;
            let all = session.subscriptions().map(|(filter, options)| {
                (filter.to_owned(), u8::try_from(options.qos).unwrap_or(0))
            });
            Some((all.collect::<Vec<_>>(), holder(session)))
        };
        let found = self.read_shard(self.group_of(&client), look).await?;
        let Some((all, holder)) = found else { return Ok(None) };
        let mut told = None;
        if let Some(node) = holder {
            let after = after.clone().unwrap_or_default();
            let subscriptions = u32::try_from(more).unwrap_or(u32::MAX);
            let question = Question { client, subscriptions, after, ..Question::default() };
            told = self.ask(node, question).await.filter(|answer| answer.connection.is_some());
        }
        Ok(listed(match told {
            Some(answer) => {
                let all = answer.subscriptions.into_iter();
                all.map(|it| Subscription { filter: it.filter, qos: it.qos as u8 }).collect()
            }
            None => behind(all, after, more),
        }))
    }

    fn registration_bucket(&self, bucket: &str) -> Result<(), String> {
        self.shared.registrations.check_bucket(bucket)
    }

    async fn registration_report(&self, report: Report) -> Result<Option<Bytes>, Unavailable> {
        self.shared.registrations.report(&report).await.map_err(|error| {
            warn!(
                error = format!("{error:#}"),
                "a report on things registered in bulk is not read"
            );
            Unavailable
        })
    }

    async fn authorize(
        &self,
        caller: &CertificateCaller,
        action: Action,
        resource: String,
    ) -> Decision {
        let principal = match &caller.session {
            Some(session) => Principal::session(Arc::clone(session)),
            None => Principal::Certificate(caller.certificate.as_str().into()),
        };
        let variables = Variables {
            source_ip: caller.source_ip,
            domain_name: caller.domain_name.clone(),
            ..Variables::default()
        };
        match identity::policy_of(&self.shared, &principal, variables).await {
            Ok(policy) => {
                let now_secs = Some(now_ms() / 1000);
                let request = policy::Request { now_secs, ..policy::Request::default() };
                policy.decide(action, &resource, &request)
            }
            Err(_) => Decision::ImplicitDeny,
        }
    }

    async fn ask_authorizer(
        &self,
        presented: Presented,
        source_ip: Option<IpAddr>,
    ) -> Result<Option<AuthorizedCaller>, Refusal> {
        authorizers::caller(&self.shared, presented, source_ip).await
    }

    async fn web_identity(
        &self,
        token: String,
    ) -> Result<(Arc<Provider>, Claims), people::Unidentified> {
        self.shared.people.identify(&token).await
    }

    fn person_stands(&self, session: &PersonSession) -> bool {
        self.shared.people.stands(session)
    }

    async fn test_authorizer(
        &self,
        authorizer: Authorizer,
        presented: Presented,
    ) -> Result<Answer, NoAnswer> {
        authorizers::test(&self.shared, &authorizer, &presented).await
    }
}

impl Backend {
    /// Has the node that holds a client's connection end it, or ends the session of a client that is
    /// not connected; false when there is none.
    async fn end_session(&self, client: String, ending: Ending) -> Result<bool, Unavailable> {
        for tried in 0..TRIES {
            let name = client.clone();
            let look = move |shard: &Shard| {
                let session = shard.session(name.as_bytes())?;
                Some((session.epoch(), session.connected()))
            };
            let found = self.read_shard(self.group_of(&client), look).await?;
            let Some((epoch, connected)) = found else { return Ok(tried > 0) };
            // What has ended or begun in between is looked at again.
            let done = match connected {
                true => self.end_elsewhere(&client, epoch, ending).await?,
                false => self.end_absent(&client, epoch, ending).await?,
            };
            if done {
                return Ok(true);
            }
        }
        Err(Unavailable)
    }

    /// Has a connection of another node ended, and waits until it has; false if it is not there.
    async fn end_elsewhere(
        &self,
        client: &str,
        epoch: u64,
        ending: Ending,
    ) -> Result<bool, Unavailable> {
        if !self.shared.can_ask_holders() {
            return Err(Unavailable);
        }
        let (group, client) = (self.group_of(client), Bytes::copy_from_slice(client.as_bytes()));
        let (vacant, vacancy) = oneshot::channel();
        let wait = Signal::AwaitVacancy { group, client: client.clone(), vacant };
        self.shared.groups.signal(wait).map_err(|_| Unavailable)?;
        let Ending { clean_session, prevent_will } = ending;
        let command = shard::EndConnection { client, epoch, clean_session, prevent_will };
        match self.propose(group, shard::Command::from(command).encoded()).await? {
            Outcome::Shard(shard::Outcome::Due(true)) => {}
            _ => return Ok(false),
        }
        match tokio::time::timeout(ENDS_WITHIN, vacancy).await {
            Ok(Ok(())) => Ok(true),
            _ => Err(Unavailable),
        }
    }

    /// Ends the session of a client that is not connected, if that is wanted; false if it has
    /// connected again.
    async fn end_absent(
        &self,
        client: &str,
        epoch: u64,
        ending: Ending,
    ) -> Result<bool, Unavailable> {
        if !ending.clean_session {
            return Ok(true);
        }
        let command = shard::Disconnect {
            client: Bytes::copy_from_slice(client.as_bytes()),
            epoch,
            at: now_ms(),
            expiry_secs: Some(0),
            will: claims::will_action(ending.prevent_will).into(),
            ..shard::Disconnect::default()
        };
        let command = shard::Command::from(command).encoded();
        let outcome = self.propose(self.group_of(client), command).await?;
        Ok(matches!(outcome, Outcome::Shard(shard::Outcome::Disconnected { .. })))
    }
}

/// The first `limit` of what was asked for one more than.
fn page<T>(mut items: Vec<T>, limit: usize, key: impl Fn(&T) -> String) -> Listed<T> {
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(key);
    Listed { items, next }
}
