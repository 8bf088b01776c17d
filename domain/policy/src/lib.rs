//! AWS IoT policy documents: variables, conditions, evaluation.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Characters of a document, white space not counted.
pub const MAX_DOCUMENT_CHARS: usize = 2048;

/// Why a text is not a policy document: what is wrong and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{location}: {problem}")]
pub struct MalformedPolicy {
    /// Such as `Statement[1].Effect`.
    pub location: String,
    /// Such as `expected Allow or Deny, found "Alow"`.
    pub problem: String,
}

/// A parsed policy document.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {}

impl Document {
    /// Parses a document of at most [`MAX_DOCUMENT_CHARS`].
    pub fn parse(_json: &str) -> Result<Document, MalformedPolicy> {
        unimplemented!()
    }

    /// Whether decisions depend on [`Variables`]; when no document of a set does, one [`Compiled`] serves every connection.
    pub fn uses_variables(&self) -> bool {
        unimplemented!()
    }
}

/// What a principal wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Action {
    Connect,
    Publish,
    RetainPublish,
    Subscribe,
    Receive,
    GetRetainedMessage,
    ListRetainedMessages,
    GetThingShadow,
    UpdateThingShadow,
    DeleteThingShadow,
    ListNamedShadowsForThing,
    DescribeJobExecution,
    GetPendingJobExecutions,
    UpdateJobExecution,
    StartNextPendingJobExecution,
    DeleteConnection,
    GetConnection,
    ListSubscriptions,
    SendDirectMessage,
    AssumeRoleWithCertificate,
    Discover,
}

/// What ARNs of this installation begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arns {
    /// `aws`, `aws-cn`, …
    pub partition: String,
    /// `us-east-1`, …
    pub region: String,
    /// Twelve digits.
    pub account: String,
}

/// What the variables of a policy stand for, for one connection or request. What is absent does not match.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Variables {
    /// `iot:ClientId`; MQTT only.
    pub client_id: Option<String>,
    /// `aws:SourceIp`.
    pub source_ip: Option<IpAddr>,
    /// `iot:DomainName`.
    pub domain_name: Option<String>,
    /// `iot:Certificate.*` and `iot:CertificateId`.
    pub certificate: Option<CertificateVariables>,
    /// `iot:Connection.Thing.*`.
    pub thing: Option<ThingVariables>,
    /// Further keys by their full name, such as `cognito-identity.amazonaws.com:sub`.
    pub others: BTreeMap<String, Vec<String>>,
}

/// The certificate of the connection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CertificateVariables {
    /// 64 hexadecimal digits.
    pub id: String,
    /// `iot:Certificate.SerialNumber`.
    pub serial_number: Option<String>,
    /// By name: `CommonName`, `Country`, …, `AlternativeName.DNSName`, …; repeated attributes in order.
    pub subject: BTreeMap<String, Vec<String>>,
    /// As `subject`.
    pub issuer: BTreeMap<String, Vec<String>>,
}

/// The registry's thing of the connection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ThingVariables {
    /// Its name.
    pub name: String,
    /// Its type's name.
    pub type_name: Option<String>,
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
    /// Whether the connection's principal is attached to it.
    pub is_attached: bool,
}

/// What is known only per request. `Default` is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request<'a> {
    /// CONNECT asks for a session that outlives the connection.
    pub persistent_connect: bool,
    /// CONNECT carries a will for this topic name.
    pub last_will_topic: Option<&'a str>,
    /// Unix seconds, for `aws:CurrentTime` and `aws:EpochTime`.
    pub now_secs: Option<u64>,
}

/// What the policies say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A statement allows it and none denies it.
    Allowed,
    /// A statement denies it.
    ExplicitDeny,
    /// No statement speaks of it.
    ImplicitDeny,
}

impl Decision {
    /// Whether the principal may go on.
    pub fn is_allowed(self) -> bool {
        self == Self::Allowed
    }
}

/// The policies of one principal with the variables of one connection put in; decides in memory.
#[derive(Clone, Debug)]
pub struct Compiled {}

impl Compiled {
    /// Compiles the union of the documents.
    pub fn new(_documents: &[Arc<Document>], _arns: &Arns, _variables: &Variables) -> Compiled {
        unimplemented!()
    }

    /// Allows everything: for development.
    pub fn allow_all() -> Compiled {
        unimplemented!()
    }

    /// Decides on a resource given as the end of its ARN: `topic/a/b`, `client/x`, `topicfilter/a/#`, `thing/t/s`;
    /// [`Action::ListRetainedMessages`] takes `*`.
    pub fn decide(&self, _action: Action, _resource: &str, _request: &Request<'_>) -> Decision {
        unimplemented!()
    }

    /// As [`Compiled::decide`] for an action on topics, without the `topic/` in front: the way of each publication.
    pub fn decide_topic(&self, _action: Action, _topic: &str, _request: &Request<'_>) -> Decision {
        unimplemented!()
    }
}
