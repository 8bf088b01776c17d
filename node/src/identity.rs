//! Who a connection is, and what it may do.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use api::Role;
use api::audit::{Actor, Way};
use api::people::PersonSession;
use cluster::{GroupId, GroupsView};
use fleet::registry::{
    AuthorizerName, Changes, ConnectionThing, Registry, RoleSession, ThingName, Timestamp,
};
use fleet::shard::Admitted;
use policy::{Action, Compiled, Variables};
use thiserror::Error;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::info;
use uuid::Uuid;

use crate::authorizers::Authorized;
use crate::clock::{Clock, now_ms};
use crate::core::Core;
use crate::denial::Denial;
use crate::endpoint::{Endpoint, Profile};
use crate::host::{Machine, Signal};
use crate::propagated::Propagated;
use crate::shared::Shared;

/// What client ids begin with that are for looking only, so that none is a device's: whoever connects
/// with the id of a device ends its connection, and has its session.
const LISTENER: &str = "read-only-";

/// Who speaks on a connection.
#[derive(Clone, Debug)]
pub enum Principal {
    /// Somebody who has proved nothing, on a listener that wants proof.
    Unidentified,
    /// Somebody who has proved nothing, on a listener where this policy decides for such clients.
    Anonymous(Arc<policy::Document>),
    /// The holder of the certificate with this id.
    Certificate(Arc<str>),
    /// The holder of this access key, by SigV4, and its role. Keys are of people and applications.
    AccessKey(Arc<str>, Role),
    /// Somebody who has logged in, by SigV4, for as long as the session lasts.
    Person(Arc<Person>),
    /// A device with temporary credentials, by SigV4: acts by the policies of the certificate that
    /// they were given for.
    Session(Arc<Session>),
    /// Somebody whom a custom authorizer has let in: acts by the policies that it gives.
    Authorized(Arc<Authorized>),
}

/// A person's session in use.
#[derive(Debug)]
pub struct Person {
    session: Arc<PersonSession>,
    name: String,
}

impl Person {
    /// As [`Session::next_look`].
    pub fn next_look(&self, clock: Clock) -> Option<std::time::Instant> {
        next_look(self.session.expires, clock)
    }
}

/// When a connection has to look again whether its credentials have expired; none when they have. It
/// looks now and then: until it does, a timer remembers it, also when it has gone.
fn next_look(expires: Timestamp, clock: Clock) -> Option<std::time::Instant> {
    const LOOKS_EVERY: Duration = Duration::from_secs(60);
    let left = Duration::from_millis(expires.0.saturating_sub(clock.epoch_ms));
    (!left.is_zero()).then(|| clock.now + left.min(LOOKS_EVERY))
}

/// Temporary credentials in use.
#[derive(Debug)]
pub struct Session {
    /// What is sealed in their token.
    pub role: Arc<RoleSession>,
    name: String,
}

impl Session {
    /// When a connection has to look again whether they have expired; none when they have.
    pub fn next_look(&self, clock: Clock) -> Option<std::time::Instant> {
        next_look(self.role.expires, clock)
    }
}

impl Principal {
    /// As logs and lifecycle events name it.
    pub fn name(&self) -> &str {
        match self {
            Self::Unidentified | Self::Anonymous(_) => "anonymous",
            Self::Certificate(id) | Self::AccessKey(id, _) => id,
            Self::Person(person) => &person.name,
            Self::Session(session) => &session.name,
            Self::Authorized(authorized) => authorized.principal_id(),
        }
    }

    /// As it is recorded that it changes something, on a connection; nothing of who has proved nothing.
    pub fn actor(&self, client: &str, by: Way) -> Option<Actor> {
        match self {
            Self::Unidentified | Self::Anonymous(_) => None,
            Self::Certificate(id) => Some(Actor::Device {
                certificate: id.to_string(),
                client_id: Some(client.to_owned()),
                by,
            }),
            Self::AccessKey(id, role) => {
                Some(Actor::AccessKey { id: id.to_string(), role: role.as_str() })
            }
            Self::Person(person) => Some(Actor::of_person(&person.session)),
            Self::Session(session) => Some(Actor::TemporaryCredentials {
                certificate: session.role.certificate.to_string(),
                role_alias: session.role.alias.to_string(),
            }),
            Self::Authorized(authorized) => Some(Actor::Authorized {
                authorizer: authorized.authorizer().0.to_string(),
                principal_id: authorized.principal_id().to_owned(),
            }),
        }
    }

    /// A person who has signed.
    pub fn person(session: Arc<PersonSession>) -> Self {
        let name = format!("{}:{}", session.rights.role.as_str(), session.subject);
        Self::Person(Arc::new(Person { session, name }))
    }

    /// A device that has signed with temporary credentials.
    pub fn session(role: Arc<RoleSession>) -> Self {
        // As AWS names who has assumed a role.
        let name = format!("{}:{}", role.alias, role.certificate);
        Self::Session(Arc::new(Session { role, name }))
    }

    /// The certificate that it rests on, itself or through temporary credentials.
    pub fn certificate(&self) -> Option<&str> {
        match self {
            Self::Certificate(id) => Some(id),
            Self::Session(session) => Some(session.role.certificate.as_str()),
            Self::Unidentified
            | Self::Anonymous(_)
            | Self::AccessKey(..)
            | Self::Person(_)
            | Self::Authorized(_) => None,
        }
    }

    /// Whether it has proved nothing.
    pub fn is_nobody(&self) -> bool {
        matches!(self, Self::Unidentified | Self::Anonymous(_))
    }

    /// Whether what it may do follows from the registry, which changes.
    pub fn follows_registry(&self) -> bool {
        matches!(self, Self::Certificate(_) | Self::Session(_) | Self::Authorized(_))
    }
}

/// Why a principal may not connect.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Refused {
    /// No certificate with this id is registered.
    #[error("the certificate is not registered")]
    Unknown,
    /// It is registered, but not active or not valid now.
    #[error("the certificate is not active")]
    Inactive,
    /// They have expired, or what they were given for has gone.
    #[error("the temporary credentials are over")]
    Over,
    /// The state cannot be read now.
    #[error("the registry cannot be read now")]
    Unavailable,
    /// The listener has no policy for clients without a certificate.
    #[error("the listener lets nobody in without a certificate or a signature")]
    Anonymous,
    /// A custom authorizer keeps it out.
    #[error("{0}")]
    Authorizer(authorizer::Refusal),
}

/// Looks at the groups as this node knows them, on the thread that owns them. `None` when the node is
/// stopping, or too busy to take one more question.
pub async fn look<T: Send + 'static>(
    shared: &Shared,
    look: impl FnOnce(&mut GroupsView<'_, Machine>) -> T + Send + 'static,
) -> Option<T> {
    let (answer, result) = oneshot::channel();
    let look = Signal::Read(Box::new(move |groups| {
        // Whoever asked may have gone away.
        let _ = answer.send(look(groups));
    }));
    shared.groups.try_signal(look).ok()?;
    result.await.ok()
}

/// Looks at a group once this node has everything of it that was acknowledged anywhere before. `None`
/// also when no leader can say what that is.
pub async fn read<T: Send + 'static>(
    shared: &Shared,
    group: GroupId,
    read: impl FnOnce(&mut GroupsView<'_, Machine>) -> T + Send + 'static,
) -> Option<T> {
    if !shared.mesh.has_peers() {
        return look(shared, read).await;
    }
    let (answer, result) = oneshot::channel();
    let registry = (group == GroupId::META).then(|| (Arc::clone(&shared.registry), Instant::now()));
    let read = Signal::Read(Box::new(move |groups| {
        if let Some((registry, asked)) = registry {
            registry.seen(asked);
        }
        // Whoever asked may have gone away.
        let _ = answer.send(read(groups));
    }));
    shared.groups.read(group, read).ok()?;
    result.await.ok()
}

/// As [`read`], of several groups.
pub async fn read_all<T: Send + 'static>(
    shared: &Shared,
    groups: impl Iterator<Item = GroupId>,
    read_them: impl FnOnce(&mut GroupsView<'_, Machine>) -> T + Send + 'static,
) -> Option<T> {
    catch_up(shared, groups).await?;
    look(shared, read_them).await
}

/// Waits until this node has everything of several groups that was acknowledged anywhere before; any
/// [`look`] from then on sees it. `None` also when no leader can say what that is.
pub async fn catch_up(shared: &Shared, groups: impl Iterator<Item = GroupId>) -> Option<()> {
    if !shared.mesh.has_peers() {
        return Some(());
    }
    let caught_up = groups.map(|group| read(shared, group, |_| ()));
    futures_util::future::join_all(caught_up).await.into_iter().collect()
}

/// Reads the registry.
pub async fn read_registry<T: Send + 'static>(
    shared: &Shared,
    look: impl FnOnce(&Registry) -> T + Send + 'static,
) -> Option<T> {
    read(shared, GroupId::META, |groups| groups.get(GroupId::META)?.registry().map(look)).await?
}

/// What may be done on a connection that is for looking only, in the account with this prefix of ARNs:
/// nothing that takes anything from somebody else, and nothing that stays behind: what waits for
/// persistent sessions takes room that all share.
fn listens(arns: &str) -> String {
    format!(
        r#"{{"Version": "2012-10-17", "Statement": [
            {{"Effect": "Allow", "Action": "iot:Connect", "Resource": "{arns}client/{LISTENER}*"}},
            {{"Effect": "Deny", "Action": "iot:Connect", "Resource": "*", "Condition":
                {{"ForAnyValue:StringEquals": {{"iot:ConnectAttributes": "PersistentConnect"}}}}}},
            {{"Effect": "Allow", "Action": ["iot:Subscribe", "iot:Receive"], "Resource": "*"}},
            {{"Effect": "Deny", "Action": "iot:Subscribe", "Resource": "{arns}topicfilter/$share/*"}}
        ]}}"#
    )
}

/// What people and applications may do on a connection.
fn policy_of_role(shared: &Shared, role: Role, variables: &Variables) -> Result<Compiled, Refused> {
    match role {
        Role::ReadOnly => {
            let listens = policy::Document::parse(&listens(&shared.arns.prefix()));
            let listens = listens.map_err(|_| Refused::Unavailable)?;
            Ok(Compiled::new(&[Arc::new(listens)], &shared.arns, variables))
        }
        Role::Operator | Role::Admin => Ok(Compiled::allow_all()),
    }
}

/// What a principal may do on a connection, compiled. Of the variables those are given that do not follow
/// from the principal. Without a client id (HTTP) those that need one do not resolve.
pub async fn policy_of(
    shared: &Shared,
    principal: &Principal,
    variables: Variables,
) -> Result<Compiled, Refused> {
    decide(shared, principal, variables).await.map(|decided| decided.policy)
}

/// What is decided about a connection.
pub struct Decided {
    /// What the principal may do.
    pub policy: Compiled,
    /// The thing that the principal is exclusively attached to.
    pub thing: Option<ThingName>,
    /// What the type of its thing adds to its publications.
    pub propagated: Option<Propagated>,
}

impl From<Compiled> for Decided {
    fn from(policy: Compiled) -> Self {
        Self { policy, thing: None, propagated: None }
    }
}

/// As [`policy_of`], with what else follows from the registry.
pub async fn decide(
    shared: &Shared,
    principal: &Principal,
    variables: Variables,
) -> Result<Decided, Refused> {
    let (id, session) = match principal {
        Principal::AccessKey(_, role) => {
            return Ok(policy_of_role(shared, *role, &variables)?.into());
        }
        Principal::Person(person) if now_ms() >= person.session.expires.0 => {
            return Err(Refused::Over);
        }
        Principal::Person(person) => {
            let role = person.session.rights.role;
            return Ok(policy_of_role(shared, role, &variables)?.into());
        }
        Principal::Unidentified => return Err(Refused::Anonymous),
        Principal::Anonymous(document) => {
            let documents = [Arc::clone(document)];
            return Ok(Compiled::new(&documents, &shared.arns, &variables).into());
        }
        Principal::Authorized(authorized) => {
            return Ok(policy_of_authorized(shared, authorized, variables).await?.into());
        }
        Principal::Certificate(id) => (Arc::clone(id), None),
        Principal::Session(session) => {
            (session.role.certificate.as_str().into(), Some(Arc::clone(&session.role)))
        }
    };
    let client = variables.client_id.clone();
    let has_client = client.is_some();
    let now = Timestamp(now_ms());
    let found = read_registry(shared, move |registry| {
        let others = match session {
            None => BTreeMap::new(),
            Some(session) => registry.session_variables(&session, now).ok_or(Refused::Over)?,
        };
        let identity = registry.identity(&id, client.as_deref()).ok_or(Refused::Unknown)?;
        let thing = identity.thing.as_ref().zip(client.as_deref());
        let added = thing.map(|(thing, client)| registry.propagated(thing, client));
        Ok::<_, Refused>((identity, others, added.unwrap_or_default()))
    });
    let (identity, others, added) = found.await.ok_or(Refused::Unavailable)??;
    if !identity.may_connect(now) {
        return Err(Refused::Inactive);
    }
    let variables = Variables {
        others,
        certificate: Some(identity.certificate_variables()),
        thing: identity.thing.as_ref().filter(|_| has_client).map(ConnectionThing::variables),
        ..variables
    };
    let policy = Compiled::new(&identity.documents(), &shared.arns, &variables);
    let exclusive = identity.thing.filter(|thing| thing.exclusive);
    let thing = exclusive.map(|thing| thing.name);
    Ok(Decided { policy, thing, propagated: Propagated::encode(&added) })
}

/// The thing of a connection, as far as this node knows the registry: the one whose name the variables of
/// its policies have. Who acts by no policies of the registry has none.
pub async fn thing_of(
    shared: &Shared,
    principal: &Principal,
    client_id: &str,
) -> Option<ThingName> {
    if !principal.follows_registry() {
        return None;
    }
    let certificate = principal.certificate().map(ToOwned::to_owned);
    let client = client_id.to_owned();
    let found = look(shared, move |groups| {
        let registry = groups.get(GroupId::META)?.registry()?;
        registry.thing_of_connection(certificate.as_deref(), Some(&client))
    });
    found.await?.map(|thing| thing.name)
}

/// What the last answer of a custom authorizer gives, as long as that is active. The thing of the
/// connection is the one that is named like the client id, and gives no rights by itself.
async fn policy_of_authorized(
    shared: &Shared,
    authorized: &Authorized,
    variables: Variables,
) -> Result<Compiled, Refused> {
    let client = variables.client_id.clone();
    let (name, generation) = authorized.authorizer();
    let name = name.clone();
    let found = read_registry(shared, move |registry| {
        let stands = registry.authorizer_stands(&name, generation);
        stands.then(|| registry.thing_of_connection(None, client.as_deref()))
    });
    let found = found.await.ok_or(Refused::Unavailable)?;
    let thing = found.ok_or(Refused::Authorizer(authorizer::Refusal::Withdrawn))?;
    let standing = authorized.standing();
    if let Some(refusal) = standing.refused {
        return Err(Refused::Authorizer(refusal));
    }
    let variables = Variables {
        others: standing.grant.variables.clone(),
        thing: thing.as_ref().map(ConnectionThing::variables),
        ..variables
    };
    Ok(Compiled::new(&standing.grant.documents, &shared.arns, &variables))
}

/// Whether the will that a session has may be published now; `None` where nobody says so, because there
/// is no will, or nobody knows who its client was.
pub fn may_publish_will(
    registry: &Registry,
    arns: &policy::Arns,
    session: &fleet::shard::Session,
) -> Option<bool> {
    let will = session.will()?;
    if let Some(admitted) = &will.admitted {
        return Some(stands(registry, admitted));
    }
    let id = will.certificate.as_deref()?;
    let clock = Clock::read();
    // A denial on error: what is no text names no topic.
    let client = std::str::from_utf8(session.client()).unwrap_or_default();
    let identity = registry.identity(id, Some(client));
    let identity = identity.filter(|it| it.may_connect(Timestamp(clock.epoch_ms)));
    let Some(identity) = identity else { return Some(false) };
    let topic = will.publication.topic_name().unwrap_or_default();
    let variables = Variables {
        client_id: Some(client.into()),
        source_ip: will.source_ip.as_ref().and_then(|ip| ip.parse().ok()),
        domain_name: will.asked.as_ref().map(|asked| asked.domain_name.clone()),
        certificate: Some(identity.certificate_variables()),
        thing: identity.thing.as_ref().map(ConnectionThing::variables),
        ..Variables::default()
    };
    let policy = Compiled::new(&identity.documents(), arns, &variables);
    Some(may_publish(&policy, topic, will.publication.retain, &clock.request()).is_ok())
}

/// Whether nobody has withdrawn what a custom authorizer said of a client. It is not asked again: what it
/// says of the will was looked at as long as there was a connection. Nor does the time matter for which
/// it let the client in: that a client is gone is worth knowing, also where its token has expired since.
fn stands(registry: &Registry, admitted: &Admitted) -> bool {
    let name = AuthorizerName::new(&admitted.authorizer);
    let generation = Uuid::from_slice(&admitted.generation);
    let which = name.ok().zip(generation.ok());
    which.is_some_and(|(name, generation)| registry.authorizer_stands(&name, generation))
}

/// Whether a principal may connect, as the request says, with this client id.
pub fn may_connect<'a>(
    policy: &Compiled,
    client: &'a str,
    request: &policy::Request<'_>,
) -> Result<(), Denial<'a>> {
    let decision = policy.decide_name(Action::Connect, client, request);
    Denial::check(Action::Connect, client, decision)
}

/// Whether a principal may publish this, itself or as its will.
pub fn may_publish<'a>(
    policy: &Compiled,
    topic: &'a str,
    retain: bool,
    request: &policy::Request<'_>,
) -> Result<(), Denial<'a>> {
    let decide = |action| Denial::check(action, topic, policy.decide_topic(action, topic, request));
    decide(Action::Publish)?;
    if retain { decide(Action::RetainPublish) } else { Ok(()) }
}

/// What a policy is asked of an open connection, as if it were made now.
pub fn connect_request(profile: &Profile, clock: Clock) -> policy::Request<'_> {
    policy::Request {
        persistent_connect: profile.persistent_connect,
        last_will_topic: profile.will.as_ref().map(|will| &*will.topic),
        ..clock.request()
    }
}

impl Core {
    /// Decides again for the connections that a change of the registry affects. Those still in their
    /// handshake notice by themselves.
    pub fn principals_changed(self: &Rc<Self>, changes: &Changes) {
        self.registry_changes.set(self.registry_changes.get() + 1);
        let affected = |endpoint: &Endpoint| {
            let principal = &endpoint.profile.principal;
            let is_thing = changes.things.contains(&*endpoint.profile.client);
            if let Principal::Authorized(authorized) = principal {
                let is_withdrawn = changes.authorizers.contains(authorized.authorizer().0);
                return changes.all || is_withdrawn || is_thing;
            }
            let Some(id) = principal.certificate() else { return false };
            let has_lost_role = match principal {
                Principal::Session(session) => changes.role_aliases.contains(&session.role.alias),
                _ => false,
            };
            changes.all || has_lost_role || changes.certificates.contains(id) || is_thing
        };
        let endpoints = self.endpoints.borrow();
        for (_, endpoint) in endpoints.iter().filter(|(_, endpoint)| affected(endpoint)) {
            let (core, endpoint) = (Rc::clone(self), Rc::clone(endpoint));
            actix_rt::spawn(async move { core.decide_again(&endpoint).await });
        }
    }

    /// What is decided about a connection now. Asks again while the groups are too busy to
    /// be asked, though not for long: who cannot be decided about is refused.
    async fn decide_now(&self, endpoint: &Endpoint) -> Result<Decided, Refused> {
        const ATTEMPTS: usize = 4;
        let profile = &endpoint.profile;
        for _ in 1..ATTEMPTS {
            match decide(&self.shared, &profile.principal, profile.variables()).await {
                Err(Refused::Unavailable) => tokio::time::sleep(crate::wheel::TICK).await,
                decided => return decided,
            }
        }
        decide(&self.shared, &profile.principal, profile.variables()).await
    }

    /// Asks the custom authorizer of a connection again, and decides by what it says.
    pub(crate) async fn renew(self: &Rc<Self>, endpoint: &Endpoint) {
        let Principal::Authorized(authorized) = &endpoint.profile.principal else { return };
        if authorized.renew(&self.shared).await {
            self.decide_again(endpoint).await;
        }
    }

    /// Gives a connection the policy its principal has now, and what its thing has it add to
    /// publications, or ends it.
    pub(crate) async fn decide_again(self: &Rc<Self>, endpoint: &Endpoint) {
        let profile = &endpoint.profile;
        let client = &*profile.client;
        match self.decide_now(endpoint).await {
            Ok(Decided { policy, propagated, .. }) => {
                let request = connect_request(profile, self.read_clock());
                if let Err(denial) = may_connect(&policy, client, &request) {
                    denial.tell(profile, self.read_clock().now);
                    endpoint.doom(mqtt::Reason::NotAuthorized);
                }
                if let Some(will) = &profile.will {
                    let allowed = may_publish(&policy, &will.topic, will.retain, &request);
                    endpoint.will_denied.set(allowed.is_err());
                }
                endpoint.set_policy(policy);
                endpoint.set_propagated(propagated);
            }
            Err(refused) => {
                let principal = profile.principal.name();
                info!(client, principal, why = %refused, "connection ended");
                endpoint.will_denied.set(true);
                let nothing = Compiled::new(&[], &self.shared.arns, &Variables::default());
                endpoint.set_policy(nothing);
                endpoint.doom(mqtt::Reason::NotAuthorized);
            }
        }
        // Routes hold what sessions may receive; their numbers also stand for what may be published.
        self.routes.borrow_mut().forget();
    }
}

#[cfg(test)]
mod tests {
    use fleet::registry::{CertificateId, RoleAliasName};

    use super::*;

    #[test]
    fn who_only_looks_leaves_no_session_behind() {
        let arns = policy::Arns {
            partition: "aws".into(),
            region: "us-east-1".into(),
            account: "000000000000".into(),
        };
        let listens = policy::Document::parse(&listens(&arns.prefix())).unwrap();
        let policy = Compiled::new(&[Arc::new(listens)], &arns, &Variables::default());
        for (client, persistent_connect, is_allowed) in [
            ("read-only-1", false, true),
            ("read-only-1", true, false),
            ("lamp", false, false),
            ("lamp", true, false),
        ] {
            let request = policy::Request { persistent_connect, ..policy::Request::default() };
            let decided = may_connect(&policy, client, &request);
            assert_eq!(decided.is_ok(), is_allowed, "{client} {persistent_connect}");
        }
    }

    #[test]
    fn a_session_is_looked_at_until_it_has_expired() {
        let certificate = CertificateId::new(&"0a".repeat(32)).unwrap();
        let principal = Principal::session(Arc::new(RoleSession {
            certificate: certificate.clone(),
            alias: RoleAliasName::new("reader").unwrap(),
            generation: uuid::Uuid::nil(),
            thing: None,
            expires: Timestamp(100_000),
        }));
        assert_eq!(principal.name(), format!("reader:{certificate}"));
        assert_eq!(principal.certificate(), Some(certificate.as_str()));
        let Principal::Session(session) = principal else { panic!("no session") };
        for (epoch_ms, wait_ms) in
            [(0, Some(60_000)), (40_000, Some(60_000)), (99_999, Some(1)), (100_000, None)]
        {
            let clock = Clock { epoch_ms, ..Clock::read() };
            let next = wait_ms.map(|wait| clock.now + Duration::from_millis(wait));
            assert_eq!(session.next_look(clock), next, "{epoch_ms}");
        }
    }
}
