//! What the API asks of the node.
//!
//! The node implements [`Backend`] over its handles; tests implement it in memory. Everything here
//! is a value: no connection, no Raft, no lock leaves the node.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use authorizer::jwt::Claims;
use authorizer::{Answer, Presented, Refusal};
use bytes::Bytes;
use fleet::registry::{
    Authorizer, CertificateId, Command, Outcome, RegistrationTaskId, Registry, Rejection,
    RoleSession,
};
use policy::{Action, Compiled, Decision};
use thiserror::Error;

use crate::people::{self, PersonSession, Provider};

/// The node cannot answer now: it has no leader, its queue is full, or it is stopping.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the node cannot answer now")]
pub struct Unavailable;

/// Why a command did not change the registry.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ProposeError {
    /// The registry refused it.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// It may or may not be applied later.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Why a shadow request was not answered with a document.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ShadowError {
    /// The shadow service refused it.
    #[error("{}", .0.message)]
    Rejected(shadow::Rejected),
    /// Nothing is known about what became of it.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl From<shadow::Rejected> for ShadowError {
    fn from(rejected: shadow::Rejected) -> Self {
        Self::Rejected(rejected)
    }
}

/// Why a publication was not taken.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PublishError {
    /// It is larger than the node accepts.
    #[error("the payload of {size} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// Bytes it has.
        size: usize,
        /// Bytes it may have.
        limit: usize,
    },
    /// Clients may not publish to this topic name.
    #[error("the topic name {0} cannot be published to")]
    Topic(String),
    /// It may have reached some of its takers.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// A device that the node has identified by its certificate before the request came here: the
/// node puts one into the request's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateCaller {
    /// The certificate of the TLS connection, or the one that its credentials were given for;
    /// registered and active.
    pub certificate: CertificateId,
    /// Where the request came from, for `aws:SourceIp`.
    pub source_ip: Option<IpAddr>,
    /// The name that it has asked for, for `iot:DomainName`.
    pub domain_name: Option<String>,
    /// Who its temporary credentials are of, if it has signed with such.
    pub session: Option<Arc<RoleSession>>,
}

/// A client that has shown no certificate, where custom authorizers are asked about such: the node
/// puts one into the request's extensions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unidentified {
    /// What it has said in TLS.
    pub tls: authorizer::Tls,
}

/// A client that a custom authorizer has let in.
#[derive(Clone, Debug)]
pub struct AuthorizedCaller {
    /// What it may do.
    pub policy: Arc<Compiled>,
    /// By which authorizer.
    pub authorizer: String,
    /// Whom that takes it for.
    pub principal_id: String,
}

/// Why an authorizer that is tried has given no answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{refusal}{}{detail}", if detail.is_empty() { "" } else { ": " })]
pub struct NoAnswer {
    /// What a client would be refused for.
    pub refusal: authorizer::Refusal,
    /// What is known beside it; empty when nothing is.
    pub detail: String,
}

/// Where a request came from: who takes it from the network puts one into its extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source(pub IpAddr);

/// What a client has asked for in TLS, as [`policy::domain_name`] gives it: who ends its TLS puts one into
/// the extensions of its requests. Without TLS the header `Host` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerName(pub Option<String>);

/// A publication that came over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishRequest {
    /// A valid topic name.
    pub topic: String,
    /// The body of the request.
    pub payload: Bytes,
    /// 0 or 1.
    pub qos: u8,
    /// Whether it becomes the retained message of its topic.
    pub retain: bool,
    /// The properties that travel with it to subscribers, in the encoding of MQTT 5 without the
    /// length in front: payload format, content type, response topic, correlation data, user
    /// properties. Without the message expiry.
    pub properties: Vec<u8>,
    /// Seconds after which it is not delivered any more.
    pub expiry_secs: Option<u32>,
}

/// A retained message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retained {
    /// Its topic name.
    pub topic: String,
    /// Its payload.
    pub payload: Bytes,
    /// Its quality of service.
    pub qos: u8,
    /// When it was stored, in milliseconds since 1970.
    pub stored_at_ms: u64,
    /// Encoded as [`PublishRequest::properties`].
    pub properties: Bytes,
}

/// A retained message without what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetainedSummary {
    /// Its topic name.
    pub topic: String,
    /// Bytes of its payload.
    pub payload_bytes: usize,
    /// Its quality of service.
    pub qos: u8,
    /// When it was stored, in milliseconds since 1970.
    pub stored_at_ms: u64,
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T> {
    /// The entries, in order.
    pub items: Vec<T>,
    /// What to pass as `after` for the next part; none when this was the last.
    pub next: Option<String>,
}

/// A client: its connection, or what is remembered of its last one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// Whether it is connected now.
    pub connected: bool,
    /// The thing of the connection, as the variables of policies see it.
    pub thing: Option<String>,
    /// Whether the session ends with the connection.
    pub clean_session: bool,
    /// Where it connects from.
    pub source: Option<(IpAddr, u16)>,
    /// Where it connects to: an address of the node, or of a proxy's way there.
    pub target: Option<(IpAddr, u16)>,
    /// Keep-alive in seconds.
    pub keep_alive_secs: Option<u32>,
    /// When it connected, in milliseconds since 1970.
    pub connected_since_ms: Option<u64>,
    /// When it disconnected, in milliseconds since 1970.
    pub disconnected_since_ms: Option<u64>,
    /// How long the session outlives the connection, in seconds.
    pub session_expiry_secs: Option<u32>,
}

/// How a connection is to be ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// The session ends with it.
    pub clean_session: bool,
    /// The will is not published.
    pub prevent_will: bool,
}

/// A subscription of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The topic filter, with `$share/…` if it is shared.
    pub filter: String,
    /// The quality of service granted.
    pub qos: u8,
}

/// A part of a report on a task that registers things in bulk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The task.
    pub task: RegistrationTaskId,
    /// What it reports on.
    pub kind: ReportKind,
    /// Its number; the first is 0.
    pub part: u32,
}

/// What a report on a task is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportKind {
    /// Lines that have made a device.
    Results,
    /// Lines that have not.
    Errors,
}

impl Report {
    /// The last part of its path, and of the name of its file: `results-000000`.
    pub fn name(&self) -> String {
        let kind = match self.kind {
            ReportKind::Results => "results",
            ReportKind::Errors => "errors",
        };
        format!("{kind}-{:06}", self.part)
    }
}

/// The node as the API sees it. Clones share one node.
pub trait Backend: Clone + Send + Sync + 'static {
    /// Has the registry change; answers once the change is committed and readable here.
    fn registry_propose(
        &self,
        command: Command,
    ) -> impl Future<Output = Result<Outcome, ProposeError>> + Send;

    /// Reads the registry. The closure runs on the thread that owns it and must be short.
    fn registry_read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Registry) -> T + Send + 'static,
    ) -> impl Future<Output = Result<T, Unavailable>> + Send;

    /// The document of a shadow; no name means the classic shadow.
    fn shadow_get(
        &self,
        thing: String,
        name: Option<String>,
    ) -> impl Future<Output = Result<Bytes, ShadowError>> + Send;

    /// Merges an update request into a shadow; the answer is what `update/accepted` says.
    fn shadow_update(
        &self,
        thing: String,
        name: Option<String>,
        request: Bytes,
    ) -> impl Future<Output = Result<Bytes, ShadowError>> + Send;

    /// Deletes a shadow; the answer is what `delete/accepted` says.
    fn shadow_delete(
        &self,
        thing: String,
        name: Option<String>,
    ) -> impl Future<Output = Result<Bytes, ShadowError>> + Send;

    /// The names of a thing's named shadows in order, those after `after`.
    fn shadow_names(
        &self,
        thing: String,
        after: Option<String>,
        limit: usize,
    ) -> impl Future<Output = Result<Listed<String>, Unavailable>> + Send;

    /// Publishes as a client would; answers once an acknowledgement would be sent.
    fn publish(
        &self,
        publication: PublishRequest,
    ) -> impl Future<Output = Result<(), PublishError>> + Send;

    /// The retained message of a topic name.
    fn retained_get(
        &self,
        topic: String,
    ) -> impl Future<Output = Result<Option<Retained>, Unavailable>> + Send;

    /// Retained messages by topic name, those after `after`.
    fn retained_list(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> impl Future<Output = Result<Listed<RetainedSummary>, Unavailable>> + Send;

    /// A client that is connected or has a session.
    fn connection_get(
        &self,
        client_id: String,
    ) -> impl Future<Output = Result<Option<Connection>, Unavailable>> + Send;

    /// Ends a connection; false when the client is unknown.
    fn connection_delete(
        &self,
        client_id: String,
        ending: Ending,
    ) -> impl Future<Output = Result<bool, Unavailable>> + Send;

    /// A session's subscriptions by topic filter, those after `after`; none when the client is
    /// unknown.
    fn subscriptions(
        &self,
        client_id: String,
        after: Option<String>,
        limit: usize,
    ) -> impl Future<Output = Result<Option<Listed<Subscription>>, Unavailable>> + Send;

    /// Whether this node knows where the objects of a bucket are that things are registered from; else
    /// what its configuration lacks.
    fn registration_bucket(&self, bucket: &str) -> Result<(), String>;

    /// A part of a report on things that were registered in bulk; none when it is not there.
    fn registration_report(
        &self,
        report: Report,
    ) -> impl Future<Output = Result<Option<Bytes>, Unavailable>> + Send;

    /// Decides by the policies of a device's certificate, with a session only while that stands. The
    /// resource is the end of an ARN: `topic/a/b`, `thing/t/s`, `client/x`, `*`. An error while
    /// deciding is a denial.
    fn authorize(
        &self,
        caller: &CertificateCaller,
        action: Action,
        resource: String,
    ) -> impl Future<Output = Decision> + Send;

    /// Asks the custom authorizer that is meant about who sends a request; none when none is named
    /// and there is no default.
    fn ask_authorizer(
        &self,
        presented: Presented,
        source_ip: Option<IpAddr>,
    ) -> impl Future<Output = Result<Option<AuthorizedCaller>, Refusal>> + Send;

    /// Checks the signature of a token with the keys of the provider that it claims to be of.
    fn web_identity(
        &self,
        token: String,
    ) -> impl Future<Output = Result<(Arc<Provider>, Claims), people::Unidentified>> + Send;

    /// Whether what a person's session was given for is still in the configuration.
    fn person_stands(&self, session: &PersonSession) -> bool;

    /// Asks an authorizer, whatever its status, for whoever wants to see what it says.
    fn test_authorizer(
        &self,
        authorizer: Authorizer,
        presented: Presented,
    ) -> impl Future<Output = Result<Answer, NoAnswer>> + Send;
}
