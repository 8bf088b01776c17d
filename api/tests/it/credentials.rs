//! Devices that exchange their certificates for credentials, and what they may do with those.

use std::task::Poll;

use api::CertificateCaller;
use axum::body::Body;
use bytes::Bytes;
use fleet::registry::{
    CertificateStatus, Command, Principal, RoleAlias, RoleAliasCommand, RoleAliasName, ThingName,
    Timestamp,
};
use futures_util::stream::poll_fn;
use serde_json::json;
use uuid::Uuid;

use crate::devices::device;
use crate::signed::{Answer, Keys, NOW_SECS, Node, send, signed, signed_with, unsigned};

const ASSUME: (&str, &str) = ("AssumeRoleWithCertificate", "rolealias/reader");
const TARGET: &str = "/role-aliases/reader/credentials";
/// An hour later, when credentials have expired.
const LATER_SECS: u64 = NOW_SECS + 3600;
const LATER: &str = "20260101T010000Z";

fn apply(node: &Node, commands: impl IntoIterator<Item = Command>) {
    node.memory.with(|state| {
        for command in commands {
            state.registry.apply(command).unwrap();
        }
    });
}

fn create_alias(generation: u128) -> Command {
    Command::RoleAlias(RoleAliasCommand::Create {
        alias: Box::new(RoleAlias {
            name: RoleAliasName::new("reader").unwrap(),
            role_arn: "arn:aws:iam::123456789012:role/reader".into(),
            duration_secs: 3600,
            tags: Default::default(),
            created: Timestamp(1),
            modified: Timestamp(1),
            generation: Uuid::from_u128(generation),
        }),
    })
}

fn delete_alias() -> Command {
    let alias = RoleAliasName::new("reader").unwrap();
    Command::RoleAlias(RoleAliasCommand::Delete { alias })
}

fn attach(thing: &str, device: &CertificateCaller) -> Vec<Command> {
    let thing = ThingName::new(thing).unwrap();
    vec![
        Command::CreateThing {
            thing: thing.clone(),
            id: Uuid::nil(),
            thing_type: None,
            attributes: Default::default(),
            billing_group: None,
            at: Timestamp(1),
        },
        Command::AttachThingPrincipal {
            thing,
            principal: Principal::Certificate(device.certificate.clone()),
            kind: Default::default(),
        },
    ]
}

/// Asks the provider, with a certificate unless there is none.
async fn ask(node: &Node, device: Option<&CertificateCaller>, thing: Option<&str>) -> Answer {
    let mut request = unsigned("GET", TARGET, b"");
    if let Some(device) = device {
        request.extensions_mut().insert(device.clone());
    }
    if let Some(thing) = thing {
        request.headers_mut().insert("x-amzn-iot-thingname", thing.parse().unwrap());
    }
    send(&node.data, request).await
}

async fn keys(node: &Node, device: &CertificateCaller, thing: Option<&str>) -> Keys {
    let answer = ask(node, Some(device), thing).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let part = |name: &str| answer.body["credentials"][name].as_str().unwrap().to_owned();
    Keys {
        id: part("accessKeyId"),
        secret: part("secretAccessKey"),
        token: Some(part("sessionToken")),
        timestamp: Keys::default().timestamp,
    }
}

async fn publish(node: &Node, keys: &Keys, topic: &str) -> Answer {
    let target = format!("/topics/{topic}");
    send(&node.data, signed_with(keys, "iotdata", "POST", &target, &[], b"x")).await
}

#[tokio::test]
async fn credentials_mean_what_the_certificate_may_do() {
    let node = Node::start();
    apply(&node, [create_alias(1)]);
    let device = device(&node, &[ASSUME, ("Publish", "topic/a")]);
    let answer = ask(&node, Some(&device), None).await;
    assert_eq!(answer.body["credentials"]["expiration"], "2026-01-01T01:00:00Z");
    let first = keys(&node, &device, None).await;
    let second = keys(&node, &device, None).await;
    assert_ne!((&first.id, &first.token), (&second.id, &second.token));
    for keys in [first, second] {
        assert!(keys.id.starts_with("ASIA"));
        assert_eq!(publish(&node, &keys, "a").await.status, 200);
        assert_eq!(publish(&node, &keys, "b").await.error(), (403, "ForbiddenException"));
        // Also on the port of both APIs.
        let request = signed_with(&keys, "iotdata", "POST", "/topics/a", &[], b"x");
        assert_eq!(send(&node.control, request).await.status, 200);
    }
}

#[tokio::test]
async fn a_thing_that_is_named_is_known_to_policies() {
    let node = Node::start();
    let own = "topic/${credentials-iot:ThingName}/${credentials-iot:AwsCertificateId}";
    let device = device(&node, &[ASSUME, ("Publish", own)]);
    apply(&node, attach("lamp", &device).into_iter().chain([create_alias(1)]));
    let topic = format!("lamp/{}", device.certificate);
    let named = keys(&node, &device, Some("lamp")).await;
    assert_eq!(publish(&node, &named, &topic).await.status, 200);
    let nameless = keys(&node, &device, None).await;
    assert_eq!(publish(&node, &nameless, &topic).await.error(), (403, "ForbiddenException"));
}

#[tokio::test]
async fn who_is_not_to_have_credentials_is_refused_as_by_aws() {
    let node = Node::start();
    let allowed = device(&node, &[ASSUME]);
    let other = device(&node, &[("AssumeRoleWithCertificate", "rolealias/other")]);
    apply(&node, attach("lamp", &allowed));
    let denied = "AccessDeniedException";
    let missing = ask(&node, Some(&allowed), None).await;
    assert_eq!(missing.error(), (404, "ResourceNotFoundException"));
    assert_eq!(missing.body["message"], "Role alias does not exist");
    apply(&node, [create_alias(1)]);
    for (device, thing, message) in [
        (None, None, "Certificate is invalid on this endpoint"),
        (Some(&other), None, "Access Denied"),
        (Some(&other), Some("lamp"), "Invalid thing name passed"),
        (Some(&allowed), Some("nobody"), "Invalid thing name passed"),
        (Some(&allowed), Some("no thing's name"), "Invalid thing name passed"),
    ] {
        let answer = ask(&node, device, thing).await;
        assert_eq!(answer.error(), (403, denied), "{thing:?}");
        assert_eq!(answer.body, json!({ "message": message }));
    }
    assert_eq!(ask(&node, Some(&allowed), Some("lamp")).await.status, 200);
    // Keys, of operators and of others, are not what is asked for here.
    for keys in [Keys::default(), keys(&node, &allowed, None).await] {
        let mut request = signed_with(&keys, "iotdata", "GET", TARGET, &[], b"");
        assert_eq!(send(&node.data, request).await.error(), (403, denied));
        request = signed_with(&keys, "iotdata", "GET", TARGET, &[], b"");
        request.extensions_mut().insert(allowed.clone());
        assert_eq!(send(&node.data, request).await.error(), (403, denied));
    }
    let unknown = node.iot("GET", TARGET, "").await;
    assert_eq!(unknown.error(), (404, "UnknownOperationException"));
    for (method, target, error) in [
        ("POST", TARGET, (405, "MethodNotAllowedException")),
        ("GET", "/role-aliases/a:b/credentials", (400, "InvalidRequestException")),
    ] {
        assert_eq!(node.device(&allowed, method, target, "").await.error(), error, "{target}");
    }
    let revoke = Command::UpdateCertificate {
        certificate: allowed.certificate.clone(),
        status: CertificateStatus::Revoked,
        at: Timestamp(1),
    };
    apply(&node, [revoke]);
    assert_eq!(ask(&node, Some(&allowed), None).await.error(), (403, denied));
    node.memory.with(|state| state.is_unavailable = true);
    let answer = ask(&node, Some(&allowed), None).await;
    assert_eq!(answer.error(), (503, "ServiceUnavailableException"));
}

#[tokio::test]
async fn credentials_end_with_what_they_were_given_for() {
    let status = |device: &CertificateCaller, status| Command::UpdateCertificate {
        certificate: device.certificate.clone(),
        status,
        at: Timestamp(1),
    };
    let detach = |device: &CertificateCaller| Command::DetachThingPrincipal {
        thing: ThingName::new("lamp").unwrap(),
        principal: Principal::Certificate(device.certificate.clone()),
    };
    type End<'a> = &'a dyn Fn(&CertificateCaller) -> Vec<Command>;
    let ends: [(&str, End<'_>); 4] = [
        ("revoked", &|device| vec![status(device, CertificateStatus::Revoked)]),
        ("inactive", &|device| vec![status(device, CertificateStatus::Inactive)]),
        ("detached", &|device| vec![detach(device)]),
        ("another alias of the name", &|_| vec![delete_alias(), create_alias(2)]),
    ];
    for (how, end) in ends {
        let node = Node::start();
        let device = device(&node, &[ASSUME, ("Publish", "topic/a")]);
        apply(&node, attach("lamp", &device).into_iter().chain([create_alias(1)]));
        let keys = keys(&node, &device, Some("lamp")).await;
        assert_eq!(publish(&node, &keys, "a").await.status, 200, "{how}");
        apply(&node, end(&device));
        assert_eq!(publish(&node, &keys, "a").await.error(), (403, "ForbiddenException"), "{how}");
    }
}

#[tokio::test]
async fn credentials_expire() {
    let node = Node::start();
    apply(&node, [create_alias(1)]);
    let device = device(&node, &[ASSUME, ("Publish", "topic/a")]);
    let keys = keys(&node, &device, None).await;
    node.memory.with(|state| state.now_secs = LATER_SECS);
    let late = Keys { timestamp: LATER, ..keys };
    assert_eq!(publish(&node, &late, "a").await.error(), (403, "ExpiredTokenException"));
    node.memory.with(|state| state.now_secs = LATER_SECS - 1);
    assert_eq!(publish(&node, &late, "a").await.status, 200);
    // A key of a day and a half ago opens nothing.
    node.memory.with(|state| state.now_secs = NOW_SECS + 129_600);
    let later = Keys { timestamp: "20260102T120000Z", ..late };
    assert_eq!(publish(&node, &later, "a").await.error(), (403, "UnrecognizedClientException"));
}

#[tokio::test]
async fn credentials_that_were_changed_are_none() {
    let node = Node::start();
    apply(&node, [create_alias(1)]);
    let device = device(&node, &[ASSUME, ("Publish", "topic/a")]);
    let (one, two) = (keys(&node, &device, None).await, keys(&node, &device, None).await);
    let token = one.token.clone().unwrap();
    let middle = token.len() / 2;
    let letter = if &token[middle..=middle] == "A" { "B" } else { "A" };
    let tampered = format!("{}{letter}{}", &token[..middle], &token[middle + 1..]);
    let unknown = "UnrecognizedClientException";
    for (keys, code) in [
        (Keys { token: Some(tampered), ..one.clone() }, unknown),
        (Keys { token: Some(String::new()), ..one.clone() }, unknown),
        (Keys { token: Some("A".repeat(5000)), ..one.clone() }, unknown),
        (Keys { token: None, ..one.clone() }, unknown),
        (Keys { token: two.token.clone(), ..one.clone() }, unknown),
        (Keys { id: two.id.clone(), ..one.clone() }, unknown),
        (Keys { secret: two.secret.clone(), ..one.clone() }, "InvalidSignatureException"),
        (Keys { secret: String::new(), ..one.clone() }, "InvalidSignatureException"),
    ] {
        assert_eq!(publish(&node, &keys, "a").await.error(), (403, code), "{keys:?}");
    }
    assert_eq!(publish(&node, &one, "a").await.status, 200);
    node.memory.with(|state| state.is_unavailable = true);
    assert_eq!(publish(&node, &one, "a").await.error(), (503, "ServiceUnavailableException"));
}

#[tokio::test]
async fn the_body_of_who_has_credentials_of_somebody_else_is_not_read() {
    let (node, elsewhere) = (Node::start(), Node::start());
    for node in [&node, &elsewhere] {
        apply(node, [create_alias(1)]);
        let device = device(node, &[ASSUME]);
        // Both have a key now.
        keys(node, &device, None).await;
    }
    let stranger = device(&elsewhere, &[ASSUME]);
    let keys = keys(&elsewhere, &stranger, None).await;
    for router in [&node.control, &node.data] {
        let mut request = signed_with(&keys, "iotdata", "POST", "/topics/a", &[], b"");
        *request.body_mut() =
            Body::from_stream(poll_fn(|_| -> Poll<Option<Result<Bytes, axum::Error>>> {
                panic!("the body was read")
            }));
        let answer = send(router, request).await;
        assert_eq!(answer.error(), (403, "UnrecognizedClientException"));
    }
}

#[tokio::test]
async fn credentials_open_no_way_into_the_control_plane() {
    let node = Node::start();
    apply(&node, [create_alias(1)]);
    let device = device(&node, &[("*", "*")]);
    let keys = keys(&node, &device, None).await;
    for (router, code) in
        [(&node.control, "AccessDeniedException"), (&node.data, "InvalidSignatureException")]
    {
        for (method, target) in [("GET", "/things"), ("POST", "/keys-and-certificate")] {
            let request = signed_with(&keys, "iot", method, target, &[], b"");
            assert_eq!(send(router, request).await.error(), (403, code), "{target}");
        }
    }
    let certificates = node.memory.with(|state| {
        let paging = fleet::registry::Paging::ascending(None, 250);
        state.registry.certificates(&paging).items.len()
    });
    assert_eq!(certificates, 1);
}

#[tokio::test]
async fn role_aliases_are_made_and_changed() {
    let node = Node::start();
    let body = r#"{"roleArn":"arn:aws:iam::123456789012:role/r","credentialDurationSeconds":900}"#;
    let made = node.iot("POST", "/role-aliases/a", body).await.body;
    let arn = "arn:aws:iot:us-east-1:123456789012:rolealias/a";
    assert_eq!(made, json!({ "roleAlias": "a", "roleAliasArn": arn }));
    let described = node.iot("GET", "/role-aliases/a", "").await.body;
    assert_eq!(
        described["roleAliasDescription"],
        json!({
            "roleAlias": "a",
            "roleAliasArn": arn,
            "roleArn": "arn:aws:iam::123456789012:role/r",
            "owner": "123456789012",
            "credentialDurationSeconds": 900,
            "creationDate": NOW_SECS as f64,
            "lastModifiedDate": NOW_SECS as f64,
        })
    );
    let again = node.iot("POST", "/role-aliases/a", body).await;
    assert_eq!(again.error(), (409, "ResourceAlreadyExistsException"));
    assert_eq!((&again.body["resourceId"], &again.body["resourceArn"]), (&json!("a"), &json!(arn)));
    for (method, target, body, status) in [
        ("POST", "/role-aliases/b", "", 400),
        ("POST", "/role-aliases/b", r#"{"roleArn":"arn:aws:iam::0:r"}"#, 400),
        ("PUT", "/role-aliases/a", r#"{"credentialDurationSeconds":899}"#, 400),
        ("PUT", "/role-aliases/a", r#"{"credentialDurationSeconds":43201}"#, 400),
        ("PUT", "/role-aliases/a", r#"{"credentialDurationSeconds":-1}"#, 400),
        ("PUT", "/role-aliases/a", r#"{"credentialDurationSeconds":9e2}"#, 400),
        ("PUT", "/role-aliases/b", "", 404),
        ("DELETE", "/role-aliases/b", "", 404),
        ("GET", "/role-aliases/b", "", 404),
        ("GET", "/role-aliases/a.b", "", 400),
    ] {
        assert_eq!(node.iot(method, target, body).await.status, status, "{method} {target} {body}");
    }
    let signed_by_device = signed("iotdata", "GET", "/role-aliases/a", &[], b"");
    assert_eq!(send(&node.control, signed_by_device).await.status, 404);
}
