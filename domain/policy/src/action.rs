//! What a principal can want to do, and sets of it.

use crate::glob;

/// What a principal wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Action {
    /// Open an MQTT connection; on `client/…`.
    Connect,
    /// Publish a message; on `topic/…`.
    Publish,
    /// Publish it with RETAIN, beside [`Action::Publish`]; on `topic/…`.
    RetainPublish,
    /// Subscribe; on `topicfilter/…`.
    Subscribe,
    /// Be sent a message; on `topic/…`.
    Receive,
    /// Read a retained message over HTTP; on `topic/…`.
    GetRetainedMessage,
    /// List retained messages over HTTP; on `*`.
    ListRetainedMessages,
    /// Read a shadow over HTTP; on `thing/…`.
    GetThingShadow,
    /// Update a shadow over HTTP; on `thing/…`.
    UpdateThingShadow,
    /// Delete a shadow over HTTP; on `thing/…`.
    DeleteThingShadow,
    /// List the named shadows of a thing over HTTP; on `thing/…`.
    ListNamedShadowsForThing,
    /// Read a job execution over HTTP; on `thing/…`.
    DescribeJobExecution,
    /// List job executions over HTTP; on `thing/…`.
    GetPendingJobExecutions,
    /// Report on a job execution over HTTP; on `thing/…`.
    UpdateJobExecution,
    /// Begin the next job execution over HTTP; on `thing/…`.
    StartNextPendingJobExecution,
    /// End a connection over HTTP; on `client/…`.
    DeleteConnection,
    /// Look at a connection over HTTP; on `client/…`.
    GetConnection,
    /// Look at a client's subscriptions over HTTP; on `client/…`.
    ListSubscriptions,
    /// Send a message to one client over HTTP; on `client/…`.
    SendDirectMessage,
    /// Get credentials for a role; on `rolealias/…`.
    AssumeRoleWithCertificate,
    /// Discover Greengrass cores; on `thing/…`.
    Discover,
}

use Action::*;

impl Action {
    /// How many there are.
    pub(crate) const COUNT: usize = Self::ALL.len();

    /// All actions, in order.
    pub const ALL: [Self; 21] = [
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
    ];

    /// The name in policies, such as `iot:Publish`.
    pub fn name(self) -> &'static str {
        self.names()[0]
    }

    /// The names in policies. Jobs had another prefix once, which still counts.
    fn names(self) -> &'static [&'static str] {
        match self {
            Connect => &["iot:Connect"],
            Publish => &["iot:Publish"],
            RetainPublish => &["iot:RetainPublish"],
            Subscribe => &["iot:Subscribe"],
            Receive => &["iot:Receive"],
            GetRetainedMessage => &["iot:GetRetainedMessage"],
            ListRetainedMessages => &["iot:ListRetainedMessages"],
            GetThingShadow => &["iot:GetThingShadow"],
            UpdateThingShadow => &["iot:UpdateThingShadow"],
            DeleteThingShadow => &["iot:DeleteThingShadow"],
            ListNamedShadowsForThing => &["iot:ListNamedShadowsForThing"],
            DescribeJobExecution => {
                &["iotjobsdata:DescribeJobExecution", "iot:DescribeJobExecution"]
            }
            GetPendingJobExecutions => {
                &["iotjobsdata:GetPendingJobExecutions", "iot:GetPendingJobExecutions"]
            }
            UpdateJobExecution => &["iotjobsdata:UpdateJobExecution", "iot:UpdateJobExecution"],
            StartNextPendingJobExecution => {
                &["iotjobsdata:StartNextPendingJobExecution", "iot:StartNextPendingJobExecution"]
            }
            DeleteConnection => &["iot:DeleteConnection"],
            GetConnection => &["iot:GetConnection"],
            ListSubscriptions => &["iot:ListSubscriptions"],
            SendDirectMessage => &["iot:SendDirectMessage"],
            AssumeRoleWithCertificate => &["iot:AssumeRoleWithCertificate"],
            Discover => &["greengrass:Discover"],
        }
    }

    /// A resource of this action as policies name it: `topic/a/b`, `client/x`, `topicfilter/a/#`.
    pub fn resource(self, name: &str) -> String {
        format!("{}{name}", self.kind().prefix())
    }

    pub(crate) fn kind(self) -> Kind {
        match self {
            Publish | RetainPublish | Receive | GetRetainedMessage => Kind::Topic,
            Subscribe => Kind::TopicFilter,
            Connect | DeleteConnection | GetConnection | ListSubscriptions | SendDirectMessage => {
                Kind::Client
            }
            ListRetainedMessages => Kind::Everything,
            AssumeRoleWithCertificate => Kind::RoleAlias,
            GetThingShadow
            | UpdateThingShadow
            | DeleteThingShadow
            | ListNamedShadowsForThing
            | DescribeJobExecution
            | GetPendingJobExecutions
            | UpdateJobExecution
            | StartNextPendingJobExecution
            | Discover => Kind::Thing,
        }
    }
}

/// What an action is done to: how the last part of its ARN begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Client,
    Topic,
    TopicFilter,
    Thing,
    RoleAlias,
    /// No single resource: only a policy for `*` speaks of it.
    Everything,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] = [
        Self::Client,
        Self::Topic,
        Self::TopicFilter,
        Self::Thing,
        Self::RoleAlias,
        Self::Everything,
    ];

    /// What stands between the account and the resource's own name.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Client => "client/",
            Self::Topic => "topic/",
            Self::TopicFilter => "topicfilter/",
            Self::Thing => "thing/",
            Self::RoleAlias => "rolealias/",
            Self::Everything => "",
        }
    }
}

/// The actions that a statement speaks of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ActionSet(u32);

impl ActionSet {
    /// The actions whose name a pattern matches, whatever the case.
    pub(crate) fn matching(pattern: &str) -> Self {
        let pattern = glob::from_wildcards(&pattern.to_ascii_lowercase());
        let is_named = |action: &&Action| {
            action.names().iter().any(|name| glob::matches(&pattern, &name.to_ascii_lowercase()))
        };
        Self(Action::ALL.iter().filter(is_named).fold(0, |set, action| set | 1 << *action as u8))
    }

    pub(crate) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn complement(self) -> Self {
        Self(!self.0)
    }

    pub(crate) fn contains(self, action: Action) -> bool {
        self.0 & 1 << action as u8 != 0
    }
}
