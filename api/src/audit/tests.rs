use std::collections::BTreeSet;

use fleet::registry::{
    AuthorityCommand, CertificateStatus, Hook, PolicyName, Principal, ProvisioningCommand,
    ProvisioningTemplate, RoleAliasCommand, SessionKey, SessionSecret, TemplateCommand,
    TemplateName, TemplateType, TemplateVersion, ThingGroupCommand, ThingGroupName, ThingName,
};
use serde_json::json;
use uuid::Uuid;

use super::*;

fn ledger(is_strict: bool) -> (Ledger, Receiver<Submission>) {
    let arns = policy::Arns {
        partition: "aws".into(),
        region: "us-east-1".into(),
        account: "123456789012".into(),
    };
    Ledger::new(&arns, is_strict)
}

fn intent() -> Intent {
    Intent {
        actor: Actor::AdminPort,
        source: None,
        operation: "Change".into(),
        resource: None,
        request: "1".into(),
    }
}

fn change(before: i32, after: i32) -> Change {
    Change { resource: format!("r{before}"), before: before.into(), after: Some(after.into()) }
}

#[test]
fn a_status_says_what_came_of_it() {
    for (status, expected) in [
        (200, Outcome::Done),
        (400, Outcome::Rejected),
        (401, Outcome::Denied),
        (403, Outcome::Denied),
        (404, Outcome::Rejected),
        (409, Outcome::Rejected),
        (429, Outcome::Rejected),
        (500, Outcome::Failed),
        (503, Outcome::Unknown),
    ] {
        assert_eq!(Outcome::of_status(status), expected, "{status}");
    }
}

#[tokio::test]
async fn what_has_not_changed_is_left_out() {
    for (outcome, expected) in [
        (Outcome::Done, vec![change(1, 2)]),
        (Outcome::Rejected, vec![]),
        (Outcome::Denied, vec![]),
        (Outcome::Unknown, vec![change(1, 2), change(3, 3)]),
    ] {
        let (ledger, receiver) = ledger(false);
        let attempt = Attempt::begin(Some(&ledger), intent).unwrap();
        attempt.add(change(1, 2));
        attempt.add(change(3, 3));
        attempt.end(outcome, None, Timestamp(5)).await.unwrap();
        let entry = receiver.try_recv().unwrap().entry;
        assert_eq!((entry.outcome, entry.changes), (outcome, expected));
        assert_eq!(entry.resource.as_deref(), Some("r1"), "what it is mainly about");
    }
}

#[test]
fn an_attempt_that_nobody_waits_for_is_recorded() {
    let (ledger, receiver) = ledger(true);
    drop(Attempt::begin(Some(&ledger), intent).unwrap());
    assert_eq!(receiver.try_recv().unwrap().entry.outcome, Outcome::Unknown);
}

#[tokio::test]
async fn a_strict_ledger_refuses_what_it_cannot_record() {
    for (is_strict, refused) in [(true, true), (false, false)] {
        let (ledger, receiver) = ledger(is_strict);
        let attempt = Attempt::begin(Some(&ledger), intent).unwrap();
        let denied = Attempt::refused(&ledger, intent());
        ledger.set_failing(true);
        assert_eq!(Attempt::begin(Some(&ledger), intent).is_err(), refused);
        drop(receiver);
        assert_eq!(attempt.end(Outcome::Done, None, Timestamp(0)).await.is_err(), refused);
        assert_eq!(denied.end(Outcome::Denied, None, Timestamp(0)).await.is_err(), refused);
        assert!(ledger.take_lost() >= 2);
    }
}

#[tokio::test]
async fn without_a_ledger_nothing_is_recorded() {
    let attempt = Attempt::begin(None, intent).unwrap();
    attempt.add(change(1, 2));
    assert_eq!(attempt.end(Outcome::Done, None, Timestamp(0)).await, Ok(()));
}

#[test]
fn commands_are_about_resources() {
    let (ledger, _receiver) = ledger(false);
    let thing = || ThingName::new("lamp").unwrap();
    let group = || ThingGroupName::new("lamps").unwrap();
    let id = CertificateId::new(&"0a".repeat(32)).unwrap();
    let policy = || PolicyName::new("p").unwrap();
    let prefix = "arn:aws:iot:us-east-1:123456789012:";
    let certificate = format!("cert/{id}");
    let at = Timestamp(0);
    let join: BTreeSet<_> = [group()].into();
    for (command, expected) in [
        (Command::DeleteThing { thing: thing(), expected_version: None }, vec!["thing/lamp"; 2]),
        (Command::DeletePolicy { policy: policy() }, vec!["policy/p"]),
        (
            Command::AttachPolicy { policy: policy(), target: Principal::ThingGroup(group()) },
            vec!["thinggroup/lamps"],
        ),
        (
            Command::DetachThingPrincipal {
                thing: thing(),
                principal: Principal::Certificate(id.clone()),
            },
            vec!["thing/lamp"],
        ),
        (
            Command::UpdateCertificate { certificate: id, status: CertificateStatus::Revoked, at },
            vec![&*certificate],
        ),
        (
            Command::ThingGroup(ThingGroupCommand::Move {
                thing: thing(),
                leave: BTreeSet::new(),
                join,
                membership: Uuid::nil(),
            }),
            vec!["thing/lamp"],
        ),
        // What is the registry's own business.
        (Command::Provisioning(ProvisioningCommand::Sweep { at }), vec![]),
    ] {
        let subjects = subject::subjects(&command);
        let found: Vec<String> = ledger
            .described(&Registry::default(), &subjects)
            .into_iter()
            .map(|change| change.resource)
            .collect();
        let expected: Vec<String> = expected.iter().map(|it| format!("{prefix}{it}")).collect();
        assert_eq!(found, expected, "{command:?}");
    }
}

#[test]
fn secrets_are_not_described() {
    const SECRET: &str = "5ec2e7";
    let (ledger, _receiver) = ledger(false);
    let mut registry = Registry::default();
    let at = Timestamp(0);
    let template = ProvisioningTemplate {
        name: TemplateName::new("t").unwrap(),
        kind: TemplateType::FleetProvisioning,
        description: None,
        enabled: true,
        role_arn: "arn:aws:iam::0:role/r".into(),
        hook: Some(Hook {
            target: format!("https://hook.example.com/ask?key={SECRET}"),
            payload_version: "2020-04-01".into(),
        }),
        versions: [(1, TemplateVersion { body: "{}".into(), created: at })].into(),
        default_version: 1,
        next_version: 2,
        tags: Default::default(),
        created: at,
        modified: at,
        generation: Uuid::nil(),
    };
    let key = SessionKey { secret: SessionSecret([0x5e; 32]), created: at };
    for (command, expected) in [
        (Command::Authority(AuthorityCommand::MakeCode { code: SECRET.repeat(10) }), "is there"),
        (
            Command::Template(TemplateCommand::Create { template: Box::new(template) }),
            "https://hook.example.com/ask?redacted",
        ),
        (Command::RoleAlias(RoleAliasCommand::MakeKey { key }), "[]"),
    ] {
        let subjects = subject::subjects(&command);
        let _ = registry.apply(command);
        let described = json!(ledger.described(&registry, &subjects)).to_string();
        assert!(described.contains(expected), "{described}");
        assert!(!described.contains(SECRET), "{described}");
    }
}
