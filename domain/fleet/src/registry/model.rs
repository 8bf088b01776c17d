//! What the registry keeps about each thing, thing type, certificate and policy.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::names::{
    BillingGroupName, CertificateId, PolicyName, ThingGroupName, ThingName, ThingTypeName,
};
use super::provision::{Provisional, ProvisionalRole};

/// A moment in milliseconds since 1970, filled in by whoever proposes a command.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Seconds since 1970, as AWS writes timestamps in JSON bodies.
    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1000.0
    }
}

/// Attributes of a thing or a group: name to value.
pub type Attributes = BTreeMap<String, String>;

/// A thing: what an application calls one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thing {
    /// Its name.
    pub name: ThingName,
    /// Differs between a thing and another created later under the same name.
    pub id: Uuid,
    /// Its type, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thing_type: Option<ThingTypeName>,
    /// Shared with the identities that were made from it.
    #[serde(default)]
    pub attributes: Arc<Attributes>,
    /// The one billing group that it may be in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub billing_group: Option<BillingGroupName>,
    /// Starts at 1, one more for each update.
    pub version: u64,
    /// When it was created.
    #[serde(default)]
    pub created: Timestamp,
}

/// Tags of a resource: key to value.
pub type Tags = BTreeMap<String, String>;

/// A static group of things, below another one or a root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThingGroup {
    /// Its name.
    pub name: ThingGroupName,
    /// Differs between a group and another created later under the same name.
    pub id: Uuid,
    /// The group that it is below of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ThingGroupName>,
    /// Free text and attributes.
    #[serde(default)]
    pub properties: GroupProperties,
    /// Starts at 1, one more for each update.
    pub version: u64,
    /// For people.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: Tags,
    /// When it was created.
    pub created: Timestamp,
}

/// What a thing group says about itself; its things and the groups below inherit none of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupProperties {
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// At most fifty.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: Attributes,
}

/// A flat group of things, to which costs are allocated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BillingGroup {
    /// Its name.
    pub name: BillingGroupName,
    /// Differs between a group and another created later under the same name.
    pub id: Uuid,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Starts at 1, one more for each update.
    pub version: u64,
    /// For people.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: Tags,
    /// When it was created.
    pub created: Timestamp,
}

/// What a thing type says about its things; replaced as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ThingTypeProperties {
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// At most three attribute names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub searchable_attributes: Vec<String>,
    /// At most twenty user properties that are added to what the type's things publish.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub propagating_attributes: Vec<PropagatingAttribute>,
}

/// A user property whose value comes from the thing or its connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PropagatingAttribute {
    /// The key of the user property.
    pub user_property_key: String,
    /// Where its value comes from.
    pub source: PropagatedFrom,
}

/// Where the value of a propagated user property comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PropagatedFrom {
    /// An attribute of the thing.
    ThingAttribute(String),
    /// `iot:ClientId` or `iot:Thing.ThingName`.
    ConnectionAttribute(String),
}

/// A thing type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThingType {
    /// Its name.
    pub name: ThingTypeName,
    /// Differs between a type and another created later under the same name.
    pub id: Uuid,
    /// What it says about its things.
    #[serde(default)]
    pub properties: ThingTypeProperties,
    /// For people.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: Tags,
    /// When it was created.
    pub created: Timestamp,
    /// When it was deprecated; none while it is active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecated: Option<Timestamp>,
}

/// Whether devices may use a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CertificateStatus {
    /// Devices may connect with it.
    Active,
    /// Known, but not in use.
    Inactive,
    /// Withdrawn.
    Revoked,
    /// On its way to another account.
    PendingTransfer,
    /// Seen or made, and waiting for somebody to activate it.
    PendingActivation,
}

impl CertificateStatus {
    /// The name AWS gives the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Inactive => "INACTIVE",
            Self::Revoked => "REVOKED",
            Self::PendingTransfer => "PENDING_TRANSFER",
            Self::PendingActivation => "PENDING_ACTIVATION",
        }
    }
}

/// How a certificate came to be trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CertificateMode {
    /// Issued here, or by a registered authority.
    #[default]
    Default,
    /// Registered without its authority.
    SniOnly,
}

impl CertificateMode {
    /// The name AWS gives the mode.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "DEFAULT",
            Self::SniOnly => "SNI_ONLY",
        }
    }
}

/// What was read out of an X.509 certificate before it was registered; the registry itself never
/// parses one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateSummary {
    /// First moment of its validity.
    pub not_before: Timestamp,
    /// Last moment of its validity.
    pub not_after: Timestamp,
    /// What it says about its holder and its issuer.
    #[serde(default)]
    pub names: Arc<CertificateNames>,
}

/// The names in a certificate, as policy variables. A repeated attribute keeps its order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CertificateNames {
    /// `iot:Certificate.SerialNumber`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<String>,
    /// `CommonName`, `Country`, …, `AlternativeName.DNSName`, … of the subject.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub subject: BTreeMap<String, Vec<String>>,
    /// The same of the issuer.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub issuer: BTreeMap<String, Vec<String>>,
}

/// A device certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The SHA-256 of its DER form.
    pub id: CertificateId,
    /// As it was issued or registered.
    pub pem: Box<str>,
    /// Whether devices may use it.
    pub status: CertificateStatus,
    /// How it came to be trusted.
    #[serde(default)]
    pub mode: CertificateMode,
    /// The registered authority that signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<CertificateId>,
    /// Validity and policy variables.
    pub summary: CertificateSummary,
    /// When it was registered.
    pub created: Timestamp,
    /// When its status changed last.
    pub modified: Timestamp,
    /// Starts at 1, one more for each change of status.
    pub customer_version: u64,
    /// Differs between a certificate and the same one registered again.
    pub generation: Uuid,
    /// It goes at a moment if nobody keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provisional: Option<Provisional>,
}

impl Certificate {
    /// Whether devices provision themselves with it, and do nothing else.
    pub fn is_claim(&self) -> bool {
        matches!(self.provisional, Some(Provisional { role: ProvisionalRole::Claim(_), .. }))
    }
}

/// One version of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyVersion {
    /// The JSON document, byte for byte as it came.
    pub document: Arc<str>,
    /// When it was created.
    pub created: Timestamp,
}

/// A policy with its versions; the default version is the one that decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Its name.
    pub name: PolicyName,
    /// Version id to version, one to five of them.
    pub versions: BTreeMap<u64, PolicyVersion>,
    /// The version that decides.
    pub default_version: u64,
    /// The id of the version created next; ids are never used again.
    pub next_version: u64,
    /// For people.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: Tags,
    /// When it was created.
    pub created: Timestamp,
    /// When its versions or its default changed last.
    pub modified: Timestamp,
    /// Differs between a policy and another created later under the same name.
    pub generation: Uuid,
}

impl Policy {
    /// The document that decides.
    pub fn default_document(&self) -> &Arc<str> {
        &self.versions[&self.default_version].document
    }
}

/// Whether a principal may be attached to other things too.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ThingPrincipalType {
    /// The principal has this thing and no other.
    ExclusiveThing,
    /// The principal may have any number of things.
    #[default]
    NonExclusiveThing,
}

impl ThingPrincipalType {
    /// The name AWS gives the kind of attachment.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ExclusiveThing => "EXCLUSIVE_THING",
            Self::NonExclusiveThing => "NON_EXCLUSIVE_THING",
        }
    }
}
