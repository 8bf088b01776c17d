//! The data plane for devices that their certificates identify: their policies decide.

use api::CertificateCaller;
use api::x509::KeyPair;
use fleet::registry::{CertificateStatus, Command, Principal, Timestamp};
use uuid::Uuid;

use crate::memory::{ACCOUNT, REGION, authority};
use crate::signed::{Node, send, signed, unsigned};

/// A device whose policy allows what is said, e.g. `("Publish", "topic/a")`.
pub(crate) fn device(node: &Node, allowed: &[(&str, &str)]) -> CertificateCaller {
    let statements: Vec<_> = allowed
        .iter()
        .map(|(action, resource)| {
            serde_json::json!({
                "Effect": "Allow",
                "Action": format!("iot:{action}"),
                "Resource": format!("arn:aws:iot:{REGION}:{ACCOUNT}:{resource}"),
            })
        })
        .collect();
    let document = serde_json::json!({ "Version": "2012-10-17", "Statement": statements });
    let at = Timestamp(1);
    let key = KeyPair::generate().unwrap();
    let issued = authority().0.issue(&key, at).unwrap();
    let policy = fleet::registry::PolicyName::new(&issued.id.as_str()[..16]).unwrap();
    let target = Principal::Certificate(issued.id.clone());
    node.memory.with(|state| {
        for command in [
            Command::RegisterCertificate {
                certificate: issued.id.clone(),
                pem: issued.pem,
                status: CertificateStatus::Active,
                mode: Default::default(),
                authority: None,
                summary: issued.summary,
                generation: Uuid::nil(),
                at,
            },
            Command::CreatePolicy {
                policy: policy.clone(),
                document: document.to_string(),
                tags: Default::default(),
                generation: Uuid::nil(),
                at,
            },
            Command::AttachPolicy { policy, target },
        ] {
            state.registry.apply(command).unwrap();
        }
    });
    CertificateCaller { certificate: issued.id, source_ip: None, domain_name: None, session: None }
}

#[tokio::test]
async fn a_device_may_do_what_its_policies_allow() {
    let node = Node::start();
    let client = (api::backend::Connection::default(), Vec::new());
    node.memory.with(|state| state.connections.insert("c".into(), client));
    node.iot_data("POST", "/topics/r?retain=true", "x").await;
    let update = r#"{"state":{"reported":{"x":1}}}"#;
    for (action, resource, method, target, body) in [
        ("Publish", "topic/a/b", "POST", "/topics/a%2Fb", "x"),
        ("GetRetainedMessage", "topic/r", "GET", "/retainedMessage/r", ""),
        ("UpdateThingShadow", "thing/t", "POST", "/things/t/shadow", update),
        ("UpdateThingShadow", "thing/t/n", "POST", "/things/t/shadow?name=n", update),
        ("GetThingShadow", "thing/t", "GET", "/things/t/shadow", ""),
        ("GetThingShadow", "thing/t/n", "GET", "/things/t/shadow?name=n", ""),
        ("DeleteThingShadow", "thing/t/n", "DELETE", "/things/t/shadow?name=n", ""),
        (
            "ListNamedShadowsForThing",
            "thing/t",
            "GET",
            "/api/things/shadow/ListNamedShadowsForThing/t",
            "",
        ),
        ("GetConnection", "client/c", "GET", "/connections/c", ""),
        ("ListSubscriptions", "client/c", "GET", "/connections/c/subscriptions", ""),
        ("DeleteConnection", "client/c", "DELETE", "/connections/c", ""),
    ] {
        let denied = device(&node, &[(action, "topic/other"), ("Connect", "client/c")]);
        let answer = node.device(&denied, method, target, body).await;
        assert_eq!(answer.error(), (403, "ForbiddenException"), "{action} {target}");
        let allowed = device(&node, &[(action, resource)]);
        let answer = node.device(&allowed, method, target, body).await;
        assert_eq!(answer.status, 200, "{action} {target}: {answer:?}");
    }
}

#[tokio::test]
async fn retaining_needs_its_own_permission() {
    let node = Node::start();
    let publisher = device(&node, &[("Publish", "topic/a")]);
    let target = "/topics/a?retain=true";
    let answer = node.device(&publisher, "POST", target, "x").await;
    assert_eq!(answer.error(), (403, "ForbiddenException"));
    let retainer = device(&node, &[("Publish", "topic/a"), ("RetainPublish", "topic/a")]);
    assert_eq!(node.device(&retainer, "POST", target, "x").await.status, 200);
    assert_eq!(node.memory.with(|state| state.published.len()), 1);
}

#[tokio::test]
async fn a_device_has_no_way_into_the_control_plane() {
    let node = Node::start();
    let caller = device(&node, &[("*", "*")]);
    let answer = node.device(&caller, "GET", "/things", "").await;
    assert_eq!(answer.error(), (404, "UnknownOperationException"));
    let request = signed("iot", "GET", "/things", &[], b"");
    assert_eq!(send(&node.data, request).await.error(), (403, "InvalidSignatureException"));
    // On the signed port a certificate counts for nothing.
    let mut request = unsigned("POST", "/topics/a", b"x");
    request.extensions_mut().insert(caller);
    let answer = send(&node.control, request).await;
    assert_eq!(answer.error(), (403, "MissingAuthenticationTokenException"));
}

#[tokio::test]
async fn a_signature_is_checked_even_when_there_is_a_certificate() {
    let node = Node::start();
    let caller = device(&node, &[("Publish", "topic/a")]);
    let mut request = signed("iotdata", "POST", "/topics/elsewhere", &[], b"x");
    request.extensions_mut().insert(caller.clone());
    assert_eq!(send(&node.data, request).await.status, 200);
    let mut request = signed("iotdata", "POST", "/topics/a", &[], b"x");
    request.headers_mut().insert("x-amz-date", "20260101T000001Z".parse().unwrap());
    request.extensions_mut().insert(caller);
    assert_eq!(send(&node.data, request).await.error(), (403, "InvalidSignatureException"));
}

#[tokio::test]
async fn nobody_comes_in_without_credentials() {
    let node = Node::start();
    for router in [&node.control, &node.data] {
        let answer = send(router, unsigned("POST", "/topics/a", b"x")).await;
        assert_eq!(answer.error(), (403, "MissingAuthenticationTokenException"));
    }
}
