//! What commands are about, and how that is described.

use fleet::registry::{
    AuthorityCommand, AuthorizerCommand, AuthorizerName, BillingGroupCommand, BillingGroupName,
    CertificateId, Command, EventCommand, Paging, PolicyName, Principal, ProvisioningCommand,
    RegistrationCommand, RegistrationTaskId, Registry, Resource, RoleAliasCommand, RoleAliasName,
    TemplateCommand, TemplateName, ThingGroupCommand, ThingGroupName, ThingName, ThingTypeName,
};
use serde_json::{Map, Value, json};

use super::object;
use crate::arn::Arns;
use crate::request;
use crate::{
    authorities, authorizers, billing_groups, certificates, events, policies, registration_tasks,
    role_aliases, templates, thing_groups, thing_types, things,
};

/// Entries of a list in a record; there are few where it matters.
const LISTED: usize = 250;

/// Something that a command may change, in one respect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Thing(ThingName),
    /// What is attached to a thing.
    Principals(ThingName),
    /// The groups that a thing is in.
    Groups(ThingName),
    ThingType(ThingTypeName),
    ThingGroup(ThingGroupName),
    BillingGroup(BillingGroupName),
    Certificate(CertificateId),
    /// Only its status: many change together.
    Status(CertificateId),
    Authority(CertificateId),
    /// The revocation list of an authority, and how many are on it.
    Revocations(CertificateId),
    Policy(PolicyName),
    /// The policies that are attached to something.
    Attached(Principal),
    Template(TemplateName),
    RoleAlias(RoleAliasName),
    Authorizer(AuthorizerName),
    DefaultAuthorizer,
    RegistrationTask(RegistrationTaskId),
    Tags(Resource),
    Events,
    /// Whether there is a registration code: the code itself proves something.
    RegistrationCode,
    /// The nodes of the cluster, and who shall lead.
    Members,
}

/// What a command may change, what it is mainly about first; nothing where it changes only what the
/// registry keeps for itself.
pub(super) fn subjects(command: &Command) -> Vec<Subject> {
    use Command as C;
    use Subject as S;
    match command {
        C::CreateThing { thing, .. } | C::UpdateThing { thing, .. } => {
            vec![S::Thing(thing.clone())]
        }
        C::DeleteThing { thing, .. } => vec![S::Thing(thing.clone()), S::Groups(thing.clone())],
        C::CreateThingType { thing_type, .. }
        | C::UpdateThingType { thing_type, .. }
        | C::DeprecateThingType { thing_type, .. }
        | C::DeleteThingType { thing_type, .. } => vec![S::ThingType(thing_type.clone())],
        C::RegisterCertificate { certificate, .. } | C::UpdateCertificate { certificate, .. } => {
            vec![S::Certificate(certificate.clone())]
        }
        C::DeleteCertificate { certificate, .. } => {
            let principal = Principal::Certificate(certificate.clone());
            vec![S::Certificate(certificate.clone()), S::Attached(principal)]
        }
        C::CreatePolicy { policy, .. }
        | C::CreatePolicyVersion { policy, .. }
        | C::SetDefaultPolicyVersion { policy, .. }
        | C::DeletePolicyVersion { policy, .. }
        | C::DeletePolicy { policy } => vec![S::Policy(policy.clone())],
        C::AttachPolicy { target, .. } | C::DetachPolicy { target, .. } => {
            vec![S::Attached(target.clone())]
        }
        C::AttachThingPrincipal { thing, .. } | C::DetachThingPrincipal { thing, .. } => {
            vec![S::Principals(thing.clone())]
        }
        C::ThingGroup(command) => of_group(command),
        C::BillingGroup(command) => vec![match command {
            BillingGroupCommand::Create { group, .. }
            | BillingGroupCommand::Update { group, .. }
            | BillingGroupCommand::Delete { group, .. } => S::BillingGroup(group.clone()),
            BillingGroupCommand::Add { thing, .. } | BillingGroupCommand::Remove { thing, .. } => {
                S::Thing(thing.clone())
            }
        }],
        C::Authority(command) => match command {
            AuthorityCommand::MakeCode { .. } | AuthorityCommand::DeleteCode => {
                vec![S::RegistrationCode]
            }
            AuthorityCommand::Register { authority, .. } => {
                vec![S::Authority(authority.id.clone())]
            }
            AuthorityCommand::Update { authority, .. } => vec![S::Authority(authority.clone())],
            AuthorityCommand::Delete { authority } => {
                vec![S::Authority(authority.clone()), S::Revocations(authority.clone())]
            }
            AuthorityCommand::Revoke { authority, .. } => vec![S::Revocations(authority.clone())],
        },
        C::Template(command) => vec![S::Template(match command {
            TemplateCommand::Create { template } => template.name.clone(),
            TemplateCommand::Update { template, .. }
            | TemplateCommand::Delete { template }
            | TemplateCommand::CreateVersion { template, .. }
            | TemplateCommand::DeleteVersion { template, .. } => template.clone(),
        })],
        C::Provisioning(command) => of_provisioning(command),
        C::Registration(command) => match command {
            RegistrationCommand::Start { task } => vec![S::RegistrationTask(task.id.clone())],
            RegistrationCommand::Stop { task, .. } => vec![S::RegistrationTask(task.clone())],
            // What the lines change is recorded with them.
            RegistrationCommand::Advance { .. }
            | RegistrationCommand::End { .. }
            | RegistrationCommand::Forget { .. } => vec![],
        },
        C::Event(EventCommand::Configure { .. }) => vec![S::Events],
        C::Event(EventCommand::Published { .. }) => vec![],
        C::Authorizer(command) => vec![match command {
            AuthorizerCommand::Create { authorizer } => S::Authorizer(authorizer.name.clone()),
            AuthorizerCommand::Update { authorizer, .. }
            | AuthorizerCommand::Delete { authorizer } => S::Authorizer(authorizer.clone()),
            AuthorizerCommand::SetDefault { .. } | AuthorizerCommand::ClearDefault => {
                S::DefaultAuthorizer
            }
        }],
        C::RoleAlias(command) => match command {
            RoleAliasCommand::Create { alias } => vec![S::RoleAlias(alias.name.clone())],
            RoleAliasCommand::Update { alias, .. } | RoleAliasCommand::Delete { alias } => {
                vec![S::RoleAlias(alias.clone())]
            }
            RoleAliasCommand::MakeKey { .. } => vec![],
        },
        C::Tag { resource, .. } | C::Untag { resource, .. } => vec![S::Tags(resource.clone())],
        C::FoundCluster { .. }
        | C::AddMember { .. }
        | C::AnnounceMember { .. }
        | C::ActivateMember { .. }
        | C::DrainMember { .. }
        | C::RemoveMember { .. }
        | C::RetireMember { .. }
        | C::RecoverMember { .. }
        | C::PreferLeader { .. } => vec![S::Members],
    }
}

fn of_group(command: &ThingGroupCommand) -> Vec<Subject> {
    vec![match command {
        ThingGroupCommand::Create { group, .. }
        | ThingGroupCommand::Update { group, .. }
        | ThingGroupCommand::Delete { group, .. } => Subject::ThingGroup(group.clone()),
        ThingGroupCommand::Move { thing, .. } => Subject::Groups(thing.clone()),
    }]
}

fn of_provisioning(command: &ProvisioningCommand) -> Vec<Subject> {
    match command {
        ProvisioningCommand::Offer { certificate } => {
            vec![Subject::Certificate(certificate.id.clone())]
        }
        ProvisioningCommand::Provision(plan) => {
            let id = &plan.certificate;
            let things = plan.thing.iter().flat_map(|thing| {
                let name = &thing.name;
                [
                    Subject::Thing(name.clone()),
                    Subject::Principals(name.clone()),
                    Subject::Groups(name.clone()),
                ]
            });
            let policies = plan.policies.iter().map(|policy| Subject::Policy(policy.name.clone()));
            let attached = Subject::Attached(Principal::Certificate(id.clone()));
            let certificate = [Subject::Certificate(id.clone())].into_iter();
            certificate.chain(things).chain(policies).chain([attached]).collect()
        }
        ProvisioningCommand::Sweep { .. } => vec![],
    }
}

/// What a command that a node proposes by itself is called.
pub(super) fn name(command: &Command) -> String {
    match command {
        Command::FoundCluster { .. } => "FoundCluster",
        Command::AnnounceMember { .. } => "AnnounceMember",
        Command::ActivateMember { .. } => "ActivateMember",
        Command::DrainMember { .. } => "DrainMember",
        Command::RetireMember { .. } => "RetireMember",
        Command::RecoverMember { .. } => "RecoverMember",
        _ => "ChangeRegistry",
    }
    .to_owned()
}

impl Subject {
    /// Its ARN, or what it is where it has none.
    pub(super) fn resource(&self, arns: &Arns) -> String {
        match self {
            Self::Thing(name) | Self::Principals(name) | Self::Groups(name) => arns.thing(name),
            Self::ThingType(name) => arns.thing_type(name),
            Self::ThingGroup(name) => arns.thing_group(name),
            Self::BillingGroup(name) => arns.billing_group(name),
            Self::Certificate(id) | Self::Status(id) => arns.certificate(id),
            Self::Authority(id) | Self::Revocations(id) => arns.authority(id),
            Self::Policy(name) => arns.policy(name),
            Self::Attached(principal) => arns.principal(principal),
            Self::Template(name) => arns.template(name),
            Self::RoleAlias(name) => arns.role_alias(name),
            Self::Authorizer(name) => arns.authorizer(name),
            Self::DefaultAuthorizer => "default-authorizer".to_owned(),
            Self::RegistrationTask(id) => registration_tasks::task_resource(id),
            Self::Tags(resource) => arns.resource(resource),
            Self::Events => "event-configurations".to_owned(),
            Self::RegistrationCode => "registration-code".to_owned(),
            Self::Members => "cluster".to_owned(),
        }
    }

    /// As its Describe answers, without secrets; none where it is not there.
    pub(super) fn describe(&self, registry: &Registry, arns: &Arns) -> Option<Value> {
        let first = Paging::ascending(None, LISTED);
        Some(match self {
            Self::Thing(name) => things::description(registry.thing(name.as_str())?, arns),
            Self::Principals(name) => {
                registry.thing(name.as_str())?;
                let page = registry.principals_of(name.as_str(), None, &first);
                let written = page.items.into_iter().map(|(principal, kind)| {
                    let principal = arns.principal(principal);
                    json!({ "principal": principal, "thingPrincipalType": kind.as_str() })
                });
                object("thingPrincipalObjects", written.collect())
            }
            Self::Groups(name) => {
                registry.thing(name.as_str())?;
                let page = registry.groups_of(name.as_str(), &first);
                object("thingGroups", page.items.into_iter().map(|it| json!(it)).collect())
            }
            Self::ThingType(name) => {
                thing_types::description(registry.thing_type(name.as_str())?, arns)
            }
            Self::ThingGroup(name) => {
                thing_groups::description(registry, registry.thing_group(name.as_str())?, arns)
            }
            Self::BillingGroup(name) => {
                billing_groups::description(registry.billing_group(name.as_str())?, arns)
            }
            Self::Certificate(id) => {
                certificates::description(registry.certificate(id.as_str())?, arns)
            }
            Self::Status(id) => {
                let status = registry.certificate(id.as_str())?.status.as_str();
                json!({ "certificateId": id, "status": status })
            }
            Self::Authority(id) => authorities::description(registry.authority(id.as_str())?, arns),
            Self::Revocations(id) => {
                authorities::revocations(registry.revocation_list(id.as_str())?)
            }
            Self::Policy(name) => {
                let policy = registry.policy(name.as_str())?;
                let mut described = policies::description(policy, arns);
                let versions = policy.versions.iter();
                let versions = versions.map(|(id, it)| (id.to_string(), json!(&*it.document)));
                described["versions"] = versions.collect::<Map<_, _>>().into();
                described
            }
            Self::Attached(principal) => {
                if !registry.knows(principal) {
                    return None;
                }
                let policies = registry.policies_of(principal);
                object("policies", policies.into_iter().map(|it| json!(it.name)).collect())
            }
            Self::Template(name) => {
                let mut described = templates::description(registry.template(name.as_str())?, arns);
                without_query(&mut described["preProvisioningHook"], "targetArn");
                described
            }
            Self::RoleAlias(name) => {
                role_aliases::description(registry.role_alias(name.as_str())?, arns)
            }
            Self::Authorizer(name) => {
                let authorizer = registry.authorizer(name.as_str())?;
                let mut described = authorizers::description(authorizer, arns);
                without_query(&mut described, "authorizerFunctionArn");
                described
            }
            Self::DefaultAuthorizer => {
                json!({ "authorizerName": registry.default_authorizer()?.name })
            }
            Self::RegistrationTask(id) => {
                registration_tasks::description(registry.registration_task(id.as_str())?)
            }
            Self::Tags(resource) => object("tags", json!(registry.tags_of(resource)?)),
            Self::Events => events::description(registry.event_configurations()),
            Self::RegistrationCode => {
                registry.registration_code()?;
                object("registrationCode", "is there".into())
            }
            Self::Members => json!({
                "members": registry.members(),
                "preferredLeaders": registry.preferred_leaders(),
            }),
        })
    }
}

/// Takes the query from the address of a function: keys are given in such.
fn without_query(of: &mut Value, member: &str) {
    if let Some(address) = of.get(member).and_then(Value::as_str) {
        of[member] = request::without_query(address).into();
    }
}
