//! The registry as its users know it: tables of what is refused, and properties that hold for any
//! sequence of commands.

mod authorities;
mod authorizers;
mod groups;
mod members;
mod principals;
mod properties;
mod provision;
mod registration_tasks;
mod revocations;
mod role_aliases;
mod stored;
mod things;

use std::collections::BTreeMap;

use super::*;

const DAY: Timestamp = Timestamp(86_400_000);
const ALLOW: &str =
    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}"#;

fn thing(name: &str) -> ThingName {
    ThingName::new(name).unwrap()
}

fn thing_type(name: &str) -> ThingTypeName {
    ThingTypeName::new(name).unwrap()
}

fn policy(name: &str) -> PolicyName {
    PolicyName::new(name).unwrap()
}

fn certificate(number: u8) -> CertificateId {
    CertificateId::new(&format!("{number:02x}").repeat(32)).unwrap()
}

fn principal(number: u8) -> Principal {
    Principal::Certificate(certificate(number))
}

fn uuid(number: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(number)
}

fn attributes(pairs: &[(&str, &str)]) -> Attributes {
    pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

fn create(name: &str, of_type: Option<&str>, pairs: &[(&str, &str)]) -> Command {
    Command::CreateThing {
        thing: thing(name),
        id: uuid(1),
        thing_type: of_type.map(thing_type),
        attributes: attributes(pairs),
        billing_group: None,
        at: DAY,
    }
}

fn update(name: &str) -> Command {
    Command::UpdateThing {
        thing: thing(name),
        attributes: None,
        thing_type: None,
        remove_thing_type: false,
        expected_version: None,
    }
}

fn create_type(name: &str) -> Command {
    Command::CreateThingType {
        thing_type: thing_type(name),
        id: uuid(2),
        properties: ThingTypeProperties::default(),
        tags: BTreeMap::new(),
        at: DAY,
    }
}

fn register(number: u8, status: CertificateStatus) -> Command {
    Command::RegisterCertificate {
        certificate: certificate(number),
        pem: "pem".into(),
        status,
        mode: CertificateMode::Default,
        authority: None,
        summary: CertificateSummary { not_after: Timestamp(u64::MAX), ..Default::default() },
        generation: uuid(3),
        at: Timestamp(DAY.0 + u64::from(number)),
    }
}

fn create_policy(name: &str) -> Command {
    Command::CreatePolicy {
        policy: policy(name),
        document: ALLOW.into(),
        tags: BTreeMap::new(),
        generation: uuid(4),
        at: DAY,
    }
}

fn attach(name: &str, number: u8) -> Command {
    Command::AttachPolicy { policy: policy(name), target: principal(number) }
}

fn attach_thing(name: &str, number: u8, kind: ThingPrincipalType) -> Command {
    Command::AttachThingPrincipal { thing: thing(name), principal: principal(number), kind }
}

fn deprecate(name: &str, undo: bool) -> Command {
    Command::DeprecateThingType { thing_type: thing_type(name), undo, at: DAY }
}

fn group(name: &str) -> ThingGroupName {
    ThingGroupName::new(name).unwrap()
}

fn billing(name: &str) -> BillingGroupName {
    BillingGroupName::new(name).unwrap()
}

fn create_group(name: &str, parent: Option<&str>) -> Command {
    Command::ThingGroup(ThingGroupCommand::Create {
        group: group(name),
        id: uuid(5),
        parent: parent.map(group),
        properties: GroupProperties::default(),
        tags: BTreeMap::new(),
        at: DAY,
    })
}

fn delete_group(name: &str) -> Command {
    Command::ThingGroup(ThingGroupCommand::Delete { group: group(name), expected_version: None })
}

/// A thing leaves groups and joins others.
fn move_thing(name: &str, leave: &[&str], join: &[&str]) -> Command {
    Command::ThingGroup(ThingGroupCommand::Move {
        thing: thing(name),
        leave: leave.iter().copied().map(group).collect(),
        join: join.iter().copied().map(group).collect(),
        membership: uuid(6),
    })
}

fn attach_to_group(name: &str, target: &str) -> Command {
    Command::AttachPolicy { policy: policy(name), target: Principal::ThingGroup(group(target)) }
}

fn create_billing(name: &str) -> Command {
    Command::BillingGroup(BillingGroupCommand::Create {
        group: billing(name),
        id: uuid(7),
        description: None,
        tags: BTreeMap::new(),
        at: DAY,
    })
}

fn bill(name: &str, to: &str) -> Command {
    Command::BillingGroup(BillingGroupCommand::Add { group: billing(to), thing: thing(name) })
}

fn template(name: &str) -> TemplateName {
    TemplateName::new(name).unwrap()
}

fn create_template(name: &str, default_version: u32) -> Command {
    let version = TemplateVersion { body: "{}".into(), created: DAY };
    Command::Template(TemplateCommand::Create {
        template: Box::new(ProvisioningTemplate {
            name: template(name),
            kind: TemplateType::FleetProvisioning,
            description: None,
            enabled: true,
            role_arn: String::new(),
            hook: None,
            versions: [(default_version, version)].into(),
            default_version,
            next_version: default_version + 1,
            tags: BTreeMap::new(),
            created: DAY,
            modified: DAY,
            generation: uuid(8),
        }),
    })
}

fn record(number: u8, provisional: Option<Provisional>) -> Certificate {
    Certificate {
        id: certificate(number),
        pem: "pem".into(),
        status: CertificateStatus::PendingActivation,
        mode: CertificateMode::Default,
        authority: None,
        summary: CertificateSummary { not_after: Timestamp(u64::MAX), ..Default::default() },
        created: DAY,
        modified: DAY,
        customer_version: 1,
        generation: uuid(9),
        provisional,
    }
}

fn claim(name: &str) -> ProvisionalRole {
    ProvisionalRole::Claim(template(name))
}

fn shown(token: &str) -> Ownership {
    Ownership { token: token.into(), claimed_by: principal(9) }
}

fn unclaimed(token: &str) -> ProvisionalRole {
    ProvisionalRole::Unclaimed(shown(token))
}

fn offer(number: u8, role: ProvisionalRole, expires: Timestamp) -> Command {
    let certificate = Box::new(record(number, Some(Provisional { role, expires })));
    Command::Provisioning(ProvisioningCommand::Offer { certificate })
}

fn plan(name: &str) -> ThingPlan {
    ThingPlan {
        name: thing(name),
        attributes: Attributes::new(),
        thing_type: None,
        groups: [].into(),
        billing_group: None,
        on_attributes: Disposition::DoNothing,
        on_type: Disposition::DoNothing,
        on_groups: Disposition::DoNothing,
    }
}

fn provision(number: u8) -> Provision {
    Provision {
        certificate: certificate(number),
        registers: None,
        status: CertificateStatus::Active,
        on_status: Disposition::DoNothing,
        thing: None,
        policies: Vec::new(),
        check: Check::default(),
        id: uuid(10),
        at: DAY,
    }
}

fn after(commands: impl IntoIterator<Item = Command>) -> Registry {
    let mut registry = Registry::default();
    for command in commands {
        let shown = format!("{command:?}");
        registry.apply(command).unwrap_or_else(|rejection| panic!("{shown}: {rejection}"));
    }
    registry
}

/// Refused, and nothing has changed.
fn refuse(registry: &mut Registry, command: Command) -> Rejection {
    let before = registry.clone();
    let shown = format!("{command:?}");
    let rejection = registry.apply(command).expect_err(&shown);
    assert_eq!(*registry, before, "{shown}");
    rejection
}
