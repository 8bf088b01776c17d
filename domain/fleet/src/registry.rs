//! Things, thing types, certificates, policies and what is attached to what, and the nodes of the
//! cluster: the state of the `meta` group.
//!
//! [`Registry::apply`] takes one committed [`Command`] and answers with its [`Outcome`] or a
//! [`Rejection`]; every limit and every conflict of the AWS operations is decided here, so that two
//! proposals that race are decided by the log. [`Registry::identity`] is what a core needs to decide
//! for a certificate, and [`Registry::take_changes`] says whose decisions have to be made anew.
//!
//! Invariant: what the registry holds is decided by its commands alone, so every collection that is
//! walked is ordered, and the indexes that are not stored follow from what is.

mod attachments;
mod authorities;
mod authorizers;
mod billing_groups;
mod certificates;
mod changes;
mod command;
mod events;
mod groups;
mod identity;
mod members;
mod model;
mod names;
mod policies;
mod provision;
mod registration_tasks;
mod rejection;
mod revocations;
mod role_aliases;
mod store;
mod tags;
mod templates;
mod thing_groups;
mod thing_types;
mod things;
mod view;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

pub use authorities::{Authority, AuthorityCommand, RegistrationConfig};
pub use authorizers::{Authorizer, AuthorizerCommand, AuthorizerStatus};
pub use billing_groups::BillingGroupCommand;
pub use changes::Changes;
pub use command::{AttributePatch, Command, CommandError, Outcome, ThingTypePatch};
pub use events::{Event, EventCommand, EventConfigurations, EventType, Operation, Subject};
pub use groups::ThingGroupFilter;
pub use identity::{ConnectionThing, Identity, NamedDocument};
pub use members::{Drain, Member, MemberStatus, NotMember};
pub use model::{
    Attributes, BillingGroup, Certificate, CertificateMode, CertificateNames, CertificateStatus,
    CertificateSummary, GroupProperties, Policy, PolicyVersion, PropagatedFrom,
    PropagatingAttribute, Tags, Thing, ThingGroup, ThingPrincipalType, ThingType,
    ThingTypeProperties, Timestamp,
};
pub use names::{
    AuthorizerName, BillingGroupName, CertificateId, CognitoIdentity, NameError, PolicyName,
    Principal, RegistrationTaskId, RoleAliasName, TemplateName, ThingGroupName, ThingName,
    ThingTypeName, check_attribute_name, check_attribute_value, check_description,
};
pub use policies::POLICIES_PER_PRINCIPAL;
pub use provision::{
    AttachedPolicy, Check, Disposition, Ownership, Provision, Provisional, ProvisionalRole,
    ProvisioningCommand, TemplateInUse, ThingPlan,
};
pub use registration_tasks::{
    LINES_AT_ONCE, RegistrationCommand, RegistrationProgress, RegistrationStatus, RegistrationTask,
    TaskLine,
};
pub use rejection::Rejection;
pub use revocations::{LONGEST_SERIAL, RevocationList, SerialNumbers};
pub use role_aliases::{
    LONGEST_SESSION_SECS, RoleAlias, RoleAliasCommand, RoleSession, SessionKey, SessionSecret,
};
pub use store::{LoadError, forget_members};
pub use tags::{Resource, TAGS_PER_RESOURCE};
pub use templates::{
    Hook, NewHook, ProvisioningTemplate, TemplateCommand, TemplateType, TemplateVersion,
};
pub use thing_groups::ThingGroupCommand;
pub use thing_types::DEPRECATED_FOR_MS;
pub use view::{Order, Page, Paging, ThingFilter};

use events::Events;
use revocations::Signer;
use store::Key;

/// The registry. Reading is plain field access behind methods; changing goes through
/// [`apply`](Self::apply).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Registry {
    things: BTreeMap<ThingName, Thing>,
    thing_types: BTreeMap<ThingTypeName, ThingType>,
    thing_groups: BTreeMap<ThingGroupName, ThingGroup>,
    /// With the name of each membership.
    groups_of: BTreeMap<ThingName, BTreeMap<ThingGroupName, Uuid>>,
    billing_groups: BTreeMap<BillingGroupName, BillingGroup>,
    certificates: BTreeMap<CertificateId, Certificate>,
    authorities: BTreeMap<CertificateId, Authority>,
    /// Of authorities that were deleted and have certificates here.
    former_authorities: BTreeMap<CertificateId, Signer>,
    revocation_lists: BTreeMap<Signer, RevocationList>,
    registration_code: Option<String>,
    templates: BTreeMap<TemplateName, ProvisioningTemplate>,
    event_configurations: EventConfigurations,
    events: Events,
    authorizers: BTreeMap<AuthorizerName, Authorizer>,
    default_authorizer: Option<AuthorizerName>,
    role_aliases: BTreeMap<RoleAliasName, RoleAlias>,
    registration_tasks: BTreeMap<RegistrationTaskId, RegistrationTask>,
    /// The newest first.
    session_keys: Vec<SessionKey>,
    policies: BTreeMap<PolicyName, Policy>,
    policies_of: BTreeMap<Principal, BTreeSet<PolicyName>>,
    things_of: BTreeMap<Principal, BTreeMap<ThingName, ThingPrincipalType>>,
    members: BTreeMap<u64, Member>,
    preferred_leaders: BTreeMap<u32, u64>,
    indexes: Indexes,
    dirty: BTreeSet<Key>,
    changes: Changes,
}

/// What follows from the stored state and is rebuilt when that has been loaded.
#[derive(Clone, Debug, Default, PartialEq)]
struct Indexes {
    things_of_type: BTreeMap<ThingTypeName, BTreeSet<ThingName>>,
    things_of_group: BTreeMap<ThingGroupName, BTreeSet<ThingName>>,
    things_of_billing_group: BTreeMap<BillingGroupName, BTreeSet<ThingName>>,
    children_of: BTreeMap<ThingGroupName, BTreeSet<ThingGroupName>>,
    certificates_by_age: BTreeSet<(Timestamp, CertificateId)>,
    certificates_of_authority: BTreeMap<CertificateId, BTreeSet<(Timestamp, CertificateId)>>,
    /// Provisional certificates by when they go.
    provisional: BTreeSet<(Timestamp, CertificateId)>,
    /// Those that wait for their devices, by whose claim they were made.
    unclaimed_of: BTreeMap<Principal, BTreeSet<CertificateId>>,
    authorities_by_age: BTreeSet<(Timestamp, CertificateId)>,
    authorities_of_subject: BTreeMap<Box<str>, BTreeSet<CertificateId>>,
    authorizers_by_age: BTreeSet<(Timestamp, AuthorizerName)>,
    role_aliases_by_age: BTreeSet<(Timestamp, RoleAliasName)>,
    registration_tasks_by_age: BTreeSet<(Timestamp, RegistrationTaskId)>,
    /// The one that has not ended.
    running_registration_task: Option<RegistrationTaskId>,
    /// The others, by when they ended.
    ended_registration_tasks: BTreeSet<(Timestamp, RegistrationTaskId)>,
    policies_by_age: BTreeSet<(Timestamp, PolicyName)>,
    targets_of: BTreeMap<PolicyName, BTreeSet<Principal>>,
    principals_of: BTreeMap<ThingName, BTreeMap<Principal, ThingPrincipalType>>,
    /// The default version of each policy, parsed once and shared with every identity.
    documents: BTreeMap<PolicyName, Arc<policy::Document>>,
}

impl Registry {
    /// Applies the next committed command. A rejected command changes nothing, on every node alike.
    pub fn apply(&mut self, command: Command) -> Result<Outcome, Rejection> {
        match command {
            Command::CreateThing { thing, id, thing_type, attributes, billing_group, at } => self
                .create_thing(Thing {
                    name: thing,
                    id,
                    thing_type,
                    attributes: Arc::new(attributes),
                    billing_group,
                    version: 1,
                    created: at,
                }),
            Command::UpdateThing {
                thing,
                attributes,
                thing_type,
                remove_thing_type,
                expected_version,
            } => self.update_thing(
                &thing,
                attributes,
                thing_type,
                remove_thing_type,
                expected_version,
            ),
            Command::DeleteThing { thing, expected_version } => {
                self.delete_thing(&thing, expected_version)
            }
            Command::CreateThingType { thing_type, id, properties, tags, at } => {
                self.create_thing_type(thing_type, id, properties, tags, at)
            }
            Command::UpdateThingType { thing_type, patch } => {
                self.update_thing_type(&thing_type, patch)
            }
            Command::DeprecateThingType { thing_type, undo, at } => {
                self.deprecate_thing_type(&thing_type, undo, at)
            }
            Command::DeleteThingType { thing_type, deprecated_for_ms, at } => {
                self.delete_thing_type(&thing_type, deprecated_for_ms, at)
            }
            Command::RegisterCertificate {
                certificate,
                pem,
                status,
                mode,
                authority,
                summary,
                generation,
                at,
            } => self.register_certificate(Certificate {
                id: certificate,
                pem: pem.into(),
                status,
                mode,
                authority,
                summary,
                created: at,
                modified: at,
                customer_version: 1,
                generation,
                provisional: None,
            }),
            Command::UpdateCertificate { certificate, status, at } => {
                self.update_certificate(&certificate, status, at)
            }
            Command::DeleteCertificate { certificate, force } => {
                self.delete_certificate(&certificate, force)
            }
            Command::CreatePolicy { policy, document, tags, generation, at } => {
                self.create_policy(policy, document, tags, generation, at)
            }
            Command::CreatePolicyVersion { policy, document, set_as_default, at } => {
                self.create_policy_version(&policy, document, set_as_default, at)
            }
            Command::SetDefaultPolicyVersion { policy, version, at } => {
                self.set_default_policy_version(&policy, version, at)
            }
            Command::DeletePolicyVersion { policy, version, at } => {
                self.delete_policy_version(&policy, version, at)
            }
            Command::DeletePolicy { policy } => self.delete_policy(&policy),
            Command::AttachPolicy { policy, target } => self.attach_policy(policy, target),
            Command::DetachPolicy { policy, target } => self.detach_policy(&policy, &target),
            Command::AttachThingPrincipal { thing, principal, kind } => {
                self.attach_thing_principal(thing, principal, kind)
            }
            Command::DetachThingPrincipal { thing, principal } => {
                self.detach_thing_principal(&thing, &principal)
            }
            Command::ThingGroup(command) => self.apply_to_thing_groups(command),
            Command::BillingGroup(command) => self.apply_to_billing_groups(command),
            Command::Authority(command) => self.apply_to_authorities(command),
            Command::Template(command) => self.apply_to_templates(command),
            Command::Provisioning(command) => self.apply_to_provisioning(command),
            Command::Event(command) => Ok(self.apply_to_events(command)),
            Command::Authorizer(command) => self.apply_to_authorizers(command),
            Command::RoleAlias(command) => self.apply_to_role_aliases(command),
            Command::Registration(command) => self.apply_to_registration_tasks(command),
            Command::Tag { resource, tags } => self.tag(&resource, tags),
            Command::Untag { resource, keys } => self.untag(&resource, &keys),
            Command::FoundCluster { nodes } => self.found_cluster(nodes),
            Command::AddMember { node, address } => self.add_member(node, address),
            Command::AnnounceMember { node, folder, address, data_version } => {
                self.announce_member(node, folder, address, data_version)
            }
            Command::ActivateMember { node } => self.activate_member(node),
            Command::DrainMember { node, drain } => self.drain_member(node, drain),
            Command::RemoveMember { node, dead } => self.remove_member(node, dead),
            Command::RetireMember { node } => self.retire_member(node),
            Command::RecoverMember { survivor, folder, address } => {
                self.recover_member(survivor, folder, address)
            }
            Command::PreferLeader { group, node } => self.prefer_leader(group, node),
        }
    }

    /// Whose decisions the commands since the last call have changed.
    pub fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }
}
