//! What the registry is told to do, and what came of it.
//!
//! Commands travel and are stored as a version byte and JSON. A field added later has a default, so
//! a log written by the previous version replays; a field unknown to an older node is ignored.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use super::authorities::AuthorityCommand;
use super::authorizers::AuthorizerCommand;
use super::billing_groups::BillingGroupCommand;
use super::events::EventCommand;
use super::members::Drain;
use super::model::{
    Attributes, CertificateMode, CertificateStatus, CertificateSummary, Tags, ThingPrincipalType,
    ThingTypeProperties, Timestamp,
};
use super::names::{
    BillingGroupName, CertificateId, PolicyName, Principal, ThingName, ThingTypeName,
};
use super::provision::ProvisioningCommand;
use super::registration_tasks::RegistrationCommand;
use super::role_aliases::RoleAliasCommand;
use super::tags::Resource;
use super::templates::TemplateCommand;
use super::thing_groups::ThingGroupCommand;

/// The format of commands and stored records.
pub(super) const FORMAT: u8 = 1;

/// A change to the registry. Times and random ids are filled in by whoever proposes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the vocabulary of the AWS operations, and of `super::members`")]
pub enum Command {
    CreateThing {
        thing: ThingName,
        id: Uuid,
        #[serde(default)]
        thing_type: Option<ThingTypeName>,
        #[serde(default)]
        attributes: Attributes,
        #[serde(default)]
        billing_group: Option<BillingGroupName>,
        at: Timestamp,
    },
    UpdateThing {
        thing: ThingName,
        #[serde(default)]
        attributes: Option<AttributePatch>,
        #[serde(default)]
        thing_type: Option<ThingTypeName>,
        #[serde(default)]
        remove_thing_type: bool,
        #[serde(default)]
        expected_version: Option<u64>,
    },
    DeleteThing {
        thing: ThingName,
        #[serde(default)]
        expected_version: Option<u64>,
    },
    CreateThingType {
        thing_type: ThingTypeName,
        id: Uuid,
        #[serde(default)]
        properties: ThingTypeProperties,
        #[serde(default)]
        tags: Tags,
        at: Timestamp,
    },
    UpdateThingType {
        thing_type: ThingTypeName,
        #[serde(default)]
        patch: ThingTypePatch,
    },
    DeprecateThingType {
        thing_type: ThingTypeName,
        #[serde(default)]
        undo: bool,
        at: Timestamp,
    },
    DeleteThingType {
        thing_type: ThingTypeName,
        /// How long it has to have been deprecated, in milliseconds; [`DEPRECATED_FOR_MS`](super::DEPRECATED_FOR_MS) without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deprecated_for_ms: Option<u64>,
        at: Timestamp,
    },
    RegisterCertificate {
        certificate: CertificateId,
        pem: String,
        status: CertificateStatus,
        #[serde(default)]
        mode: CertificateMode,
        #[serde(default)]
        authority: Option<CertificateId>,
        summary: CertificateSummary,
        generation: Uuid,
        at: Timestamp,
    },
    UpdateCertificate {
        certificate: CertificateId,
        status: CertificateStatus,
        at: Timestamp,
    },
    DeleteCertificate {
        certificate: CertificateId,
        #[serde(default)]
        force: bool,
    },
    CreatePolicy {
        policy: PolicyName,
        document: String,
        #[serde(default)]
        tags: Tags,
        generation: Uuid,
        at: Timestamp,
    },
    CreatePolicyVersion {
        policy: PolicyName,
        document: String,
        #[serde(default)]
        set_as_default: bool,
        at: Timestamp,
    },
    SetDefaultPolicyVersion {
        policy: PolicyName,
        version: u64,
        at: Timestamp,
    },
    DeletePolicyVersion {
        policy: PolicyName,
        version: u64,
        at: Timestamp,
    },
    DeletePolicy {
        policy: PolicyName,
    },
    AttachPolicy {
        policy: PolicyName,
        target: Principal,
    },
    DetachPolicy {
        policy: PolicyName,
        target: Principal,
    },
    AttachThingPrincipal {
        thing: ThingName,
        principal: Principal,
        #[serde(default)]
        kind: ThingPrincipalType,
    },
    DetachThingPrincipal {
        thing: ThingName,
        principal: Principal,
    },
    ThingGroup(ThingGroupCommand),
    BillingGroup(BillingGroupCommand),
    Authority(AuthorityCommand),
    Template(TemplateCommand),
    Provisioning(ProvisioningCommand),
    Event(EventCommand),
    Authorizer(AuthorizerCommand),
    RoleAlias(RoleAliasCommand),
    Registration(RegistrationCommand),
    Tag {
        resource: Resource,
        tags: Tags,
    },
    Untag {
        resource: Resource,
        keys: BTreeSet<String>,
    },
    FoundCluster {
        nodes: BTreeMap<u64, String>,
    },
    AddMember {
        node: u64,
        address: String,
    },
    AnnounceMember {
        node: u64,
        folder: String,
        address: String,
        data_version: u32,
    },
    ActivateMember {
        node: u64,
    },
    DrainMember {
        node: u64,
        drain: Drain,
    },
    RemoveMember {
        node: u64,
        dead: bool,
    },
    RetireMember {
        node: u64,
    },
    RecoverMember {
        survivor: u64,
        folder: String,
        address: String,
    },
    PreferLeader {
        group: u32,
        node: Option<u64>,
    },
}

/// New attributes for a thing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttributePatch {
    /// Name to value; an empty value removes the attribute.
    pub attributes: Attributes,
    /// Keep what the patch does not mention.
    #[serde(default)]
    pub merge: bool,
}

/// New properties for a thing type; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ThingTypePatch {
    /// See [`ThingTypeProperties::description`].
    pub description: Option<String>,
    /// See [`ThingTypeProperties::searchable_attributes`].
    pub searchable_attributes: Option<Vec<String>>,
    /// See [`ThingTypeProperties::propagating_attributes`].
    pub propagating_attributes: Option<Vec<super::model::PropagatingAttribute>>,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Done, and there is nothing more to say.
    Done,
    /// The thing as it is now.
    Thing {
        /// Its id; that of the existing thing when the creation was a repetition.
        id: Uuid,
        /// Its version.
        version: u64,
    },
    /// The thing type was created, or was there already with the same properties.
    ThingType {
        /// Its id.
        id: Uuid,
    },
    /// The group was created, or was there already with the same properties; or it was changed.
    Group {
        /// Its id.
        id: Uuid,
        /// Its version.
        version: u64,
    },
    /// The registration code of the account.
    RegistrationCode(String),
    /// The revocation list was imported.
    Revoked {
        /// How many registered certificates it has revoked.
        certificates: u64,
    },
    /// The policy version was created.
    PolicyVersion {
        /// Its id.
        version: u64,
        /// Whether it decides.
        is_default: bool,
    },
    /// The version of a template was created.
    TemplateVersion {
        /// Its id.
        version: u32,
        /// Whether it is carried out.
        is_default: bool,
    },
}

/// Why bytes are not a command.
#[derive(Debug, Error)]
pub enum CommandError {
    /// There is no version byte.
    #[error("an empty command")]
    Empty,
    /// It was written by a later version of Skein.
    #[error("a command of format {0}, newer than this node understands")]
    Format(u8),
    /// It is not what this version writes.
    #[error("a command that is not valid: {0}")]
    Json(#[from] serde_json::Error),
}

impl Command {
    /// The first version of the data that knows of the command: no node of a cluster is given one that
    /// it does not know, for it would stop.
    pub fn since(&self) -> u32 {
        match self {
            Self::CreateThing { billing_group: Some(_), .. }
            | Self::DeleteThingType { deprecated_for_ms: Some(_), .. }
            | Self::ThingGroup(_)
            | Self::BillingGroup(_)
            | Self::Authority(_)
            | Self::Template(_)
            | Self::Provisioning(_)
            | Self::Event(_)
            | Self::Authorizer(_)
            | Self::RoleAlias(_)
            | Self::Registration(_)
            | Self::RegisterCertificate { authority: Some(_), .. }
            | Self::Tag { .. }
            | Self::Untag { .. }
            | Self::AttachPolicy { target: Principal::ThingGroup(_), .. }
            | Self::DetachPolicy { target: Principal::ThingGroup(_), .. } => 2,
            _ => 1,
        }
    }

    /// The bytes that go into the log.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads the bytes back.
    pub fn decode(bytes: &[u8]) -> Result<Self, CommandError> {
        match bytes.split_first() {
            Some((&FORMAT, json)) => Ok(serde_json::from_slice(json)?),
            Some((&format, _)) => Err(CommandError::Format(format)),
            None => Err(CommandError::Empty),
        }
    }
}

/// A version byte and JSON.
pub(super) fn encode(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = vec![FORMAT];
    serde_json::to_writer(&mut bytes, value)
        .expect("registry values have string keys and write to memory");
    bytes
}
