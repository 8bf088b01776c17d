//! Why the registry refuses a command.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use super::members::NotMember;
use super::model::Timestamp;
use super::names::{
    AuthorizerName, BillingGroupName, CertificateId, NameError, PolicyName, Principal,
    RegistrationTaskId, RoleAliasName, TemplateName, ThingGroupName, ThingName, ThingTypeName,
};

/// A refused command; it has changed nothing.
#[derive(Clone, Debug, Error, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the messages say what each variant and value means")]
pub enum Rejection {
    #[error("{0}")]
    Name(#[from] NameError),
    #[error("Thing {0} not found")]
    ThingNotFound(ThingName),
    #[error("Thing {thing} already exists with different attributes or thing type")]
    ThingExists { thing: ThingName, id: Uuid },
    #[error("Cannot delete. Thing {0} is still attached to one or more principals")]
    ThingHasPrincipals(ThingName),
    #[error("The version is {current}, not {expected}")]
    VersionConflict { expected: u64, current: u64 },
    #[error(
        "A thing can have {limit} attributes (3 without a thing type, 50 with one), not {count}"
    )]
    TooManyAttributes { limit: usize, count: usize },
    #[error("The attributes of a thing can have {limit} bytes, not {bytes}")]
    AttributesTooLarge { limit: usize, bytes: usize },
    #[error("thingTypeName and removeThingType cannot be used together")]
    ThingTypeSetAndRemoved,
    #[error("Thing type {0} not found")]
    ThingTypeNotFound(ThingTypeName),
    #[error("Thing type {thing_type} already exists with different properties")]
    ThingTypeExists { thing_type: ThingTypeName, id: Uuid },
    #[error("Thing type {0} is deprecated; new things cannot be associated with it")]
    ThingTypeDeprecated(ThingTypeName),
    #[error("Cannot delete thing type {0}: it must be deprecated first")]
    ThingTypeNotDeprecated(ThingTypeName),
    #[error(
        "Cannot delete thing type {thing_type}: wait {seconds} more seconds after its deprecation"
    )]
    ThingTypeDeprecatedRecently { thing_type: ThingTypeName, seconds: u64 },
    #[error("Cannot delete thing type {0}: things are still associated with it")]
    ThingTypeInUse(ThingTypeName),
    #[error("A thing type can have {limit} {what}, not {count}")]
    ThingTypeTooLarge { what: String, limit: usize, count: usize },
    #[error("{0}")]
    PropagatingAttribute(String),
    #[error("Registration task {0} not found")]
    RegistrationTaskNotFound(RegistrationTaskId),
    #[error("Registration task {0} has not ended, and there can be one at a time")]
    RegistrationTaskRuns(RegistrationTaskId),
    #[error("Registration task {task} has ended: {status}")]
    RegistrationTaskEnded { task: RegistrationTaskId, status: String },
    #[error("Another node has gone on with registration task {0}")]
    RegistrationTaskMoved(RegistrationTaskId),
    #[error("Line {line} has made the device with certificate {certificate} already")]
    RegistrationLineDone { line: u64, certificate: CertificateId },
    #[error("There can be {limit} registration tasks; one is kept for 30 days after its end")]
    TooManyRegistrationTasks { limit: usize },
    #[error("Thing group {0} not found")]
    ThingGroupNotFound(ThingGroupName),
    #[error("Thing Group {group} already exists in current account with different properties")]
    ThingGroupExists { group: ThingGroupName, id: Uuid },
    #[error("Thing group {parent} cannot have groups below it: there are {limit} levels")]
    ThingGroupTooDeep { parent: ThingGroupName, limit: usize },
    #[error("Thing group {parent} already has {limit} groups below it")]
    ThingGroupHasManyChildren { parent: ThingGroupName, limit: usize },
    #[error("Cannot delete thing group : {0} when there are still child groups attached to it.")]
    ThingGroupHasChildren(ThingGroupName),
    #[error("A group can have {limit} attributes, not {count}")]
    GroupHasManyAttributes { limit: usize, count: usize },
    #[error("Thing {thing} can be in {limit} groups")]
    ThingInManyGroups { thing: ThingName, limit: usize },
    #[error("Thing {thing} cannot be in {group} and {other}: they are of the same tree")]
    ThingInTree { thing: ThingName, group: ThingGroupName, other: ThingGroupName },
    #[error("Thing group {0} is no principal that things can have")]
    GroupIsNoPrincipal(ThingGroupName),
    #[error("Billing group {0} not found")]
    BillingGroupNotFound(BillingGroupName),
    #[error("Billing group {group} already exists with different properties")]
    BillingGroupExists { group: BillingGroupName, id: Uuid },
    #[error("Thing {thing} is in billing group {group} already, and can be in one only")]
    ThingInBillingGroup { thing: ThingName, group: BillingGroupName },
    #[error("A resource can have {limit} tags, not {count}")]
    TooManyTags { limit: usize, count: usize },
    #[error("The certificate {0} is not found")]
    CertificateNotFound(CertificateId),
    #[error("The certificate is already provisioned or registered")]
    CertificateExists(CertificateId),
    #[error("Certificate must be deactivated (not ACTIVE) before deletion.")]
    CertificateActive(CertificateId),
    #[error("The certificate is being transferred")]
    CertificateInTransfer(CertificateId),
    #[error("Things must be detached before deletion (arn: cert/{0})")]
    CertificateHasThings(CertificateId),
    #[error("Certificate policies must be detached before deletion (arn: cert/{0})")]
    CertificateHasPolicies(CertificateId),
    #[error("A certificate cannot be given the status {0}")]
    CertificateStatusNotSettable(String),
    #[error("The certificate {0} is on the revocation list of its CA")]
    CertificateRevoked(CertificateId),
    #[error("A newer revocation list of the CA is there already")]
    RevocationListOlder { issued: Timestamp, number: Option<Box<str>> },
    #[error("The CA certificate {0} is not found")]
    AuthorityNotFound(CertificateId),
    #[error("The CA certificate is already registered")]
    AuthorityExists(CertificateId),
    #[error("The CA certificate {0} must be INACTIVE before deletion")]
    AuthorityActive(CertificateId),
    #[error("The CA certificate {0} is INACTIVE")]
    AuthorityInactive(CertificateId),
    #[error("{limit} CA certificates with this subject and public key are registered already")]
    TooManyAuthorities { limit: usize },
    #[error("The common name of the verification certificate is not the registration code")]
    RegistrationCodeIsAnother,
    #[error("There is no registration code")]
    RegistrationCodeNotFound,
    #[error("The provisioning template {0} is not found")]
    TemplateNotFound(TemplateName),
    #[error("The provisioning template {template} has no version {version}")]
    TemplateVersionNotFound { template: TemplateName, version: u32 },
    #[error("The provisioning template {0} already exists")]
    TemplateExists(TemplateName),
    #[error("There are {limit} provisioning templates already")]
    TooManyTemplates { limit: usize },
    #[error("The provisioning template {template} already has {limit} versions")]
    TemplateVersionLimit { template: TemplateName, limit: usize },
    #[error("Cannot delete the default version of the provisioning template {0}")]
    TemplateVersionIsDefault(TemplateName),
    #[error("The provisioning template {template} is used by the CA certificate {authority}")]
    TemplateInUse { template: TemplateName, authority: CertificateId },
    #[error("The {what} of {resource} differ from those of the template")]
    ResourceConflict { resource: String, what: String },
    #[error("The provisioning template {0} has changed or is not enabled")]
    TemplateChanged(TemplateName),
    #[error("A template of type JITP has no preProvisioningHook")]
    TemplateHasNoHook,
    #[error("The certificate ownership token is not valid")]
    NotTheOwner,
    #[error("{limit} certificates wait for their devices already")]
    ManyUnclaimedCertificates { limit: usize },
    #[error("Authorizer {0} not found")]
    AuthorizerNotFound(AuthorizerName),
    #[error("Authorizer {0} already exists")]
    AuthorizerExists(AuthorizerName),
    #[error("There are {limit} authorizers already")]
    TooManyAuthorizers { limit: usize },
    #[error("There are {limit} active authorizers already")]
    TooManyActiveAuthorizers { limit: usize },
    #[error(
        "Authorizer {0} needs tokenKeyName and tokenSigningPublicKeys, as it checks signatures"
    )]
    AuthorizerCannotVerify(AuthorizerName),
    #[error("Cannot delete authorizer {0}: make it INACTIVE first")]
    AuthorizerActive(AuthorizerName),
    #[error("Cannot delete authorizer {0}: it is the default authorizer")]
    AuthorizerIsDefault(AuthorizerName),
    #[error("Authorizer {0} is the default already: clear that first")]
    DefaultAuthorizerExists(AuthorizerName),
    #[error("There is no default authorizer")]
    DefaultAuthorizerNotFound,
    #[error("Role alias {0} not found")]
    RoleAliasNotFound(RoleAliasName),
    #[error("Role alias {0} already exists")]
    RoleAliasExists(RoleAliasName),
    #[error("There are {limit} role aliases already")]
    TooManyRoleAliases { limit: usize },
    #[error("Policy {0} not found")]
    PolicyNotFound(PolicyName),
    #[error("Policy {policy} has no version {version}")]
    PolicyVersionNotFound { policy: PolicyName, version: u64 },
    #[error("Policy cannot be created - name already exists (name={0})")]
    PolicyExists(PolicyName),
    #[error("The policy document is malformed: {0}")]
    PolicyMalformed(String),
    #[error("The policy {policy} already has the maximum number of versions ({limit})")]
    PolicyVersionLimit { policy: PolicyName, limit: usize },
    #[error("Cannot delete the default version of a policy")]
    PolicyVersionIsDefault(PolicyName),
    #[error(
        "The policy cannot be deleted as the policy is attached to one or more principals (name={0})"
    )]
    PolicyAttached(PolicyName),
    #[error(
        "Cannot delete the policy because it has one or more policy versions attached to it (name={0})"
    )]
    PolicyHasVersions(PolicyName),
    #[error("{principal} already has {limit} policies attached")]
    PolicyLimit { principal: Principal, limit: usize },
    #[error("{principal} is exclusively attached to thing {thing}")]
    AttachedExclusively { principal: Principal, thing: ThingName },
    #[error("{principal} is attached to thing {thing} already and cannot be attached exclusively")]
    AttachedElsewhere { principal: Principal, thing: ThingName },
    #[error("node {0} is no member of the cluster")]
    MemberNotFound(u64),
    #[error("node {0} is a member already")]
    MemberExists(u64),
    #[error("node {0} was removed already")]
    MemberRemoved(u64),
    #[error("node {0} is leaving")]
    MemberLeaving(u64),
    #[error("node {0} does not take part yet, or any more")]
    MemberNotActive(u64),
    #[error("node {0} is the last one that takes part")]
    LastMember(u64),
    #[error("node {node} {why}")]
    MemberRefused { node: u64, why: NotMember },
}
