//! The control plane through the router: what the tables of routes and errors promise.

use serde_json::json;

use crate::memory::{ACCOUNT, REGION};
use crate::signed::{NOW_SECS, Node, send, signed};

#[tokio::test]
async fn a_thing_is_made_and_described() {
    let node = Node::start();
    let body = r#"{"attributePayload":{"attributes":{"a":"1"}}}"#;
    let made = node.iot("POST", "/things/a:b", body).await.body;
    assert_eq!(made["thingArn"], format!("arn:aws:iot:us-east-1:{ACCOUNT}:thing/a:b"));
    let described = node.iot("GET", "/things/a:b", "").await.body;
    let expected = json!({
        "thingName": "a:b",
        "thingArn": made["thingArn"],
        "thingId": made["thingId"],
        "defaultClientId": "a:b",
        "attributes": { "a": "1" },
        "version": 1,
    });
    assert_eq!(described, expected);
    let again = node.iot("POST", "/things/a:b", "").await;
    assert_eq!(again.error(), (409, "ResourceAlreadyExistsException"));
    assert_eq!(again.body["resourceArn"], made["thingArn"]);
    assert_eq!(again.body["resourceId"], made["thingId"]);
}

#[tokio::test]
async fn a_wrong_scope_is_told_the_right_one() {
    let node = Node::start();
    let elsewhere = |mut request: axum::http::Request<axum::body::Body>| {
        let signed = request.headers()["authorization"].to_str().unwrap().replace(REGION, "moon-1");
        request.headers_mut().insert("authorization", signed.parse().unwrap());
        request
    };
    for (router, request, hint) in [
        (&node.data, signed("iot", "GET", "/things", &[], b""), "listeners.http"),
        (&node.control, elsewhere(signed("iot", "GET", "/things", &[], b"")), REGION),
    ] {
        let answer = send(router, request).await;
        assert_eq!(answer.error(), (403, "InvalidSignatureException"));
        assert!(answer.body["message"].as_str().unwrap().contains(hint), "{}", answer.body);
    }
}

#[tokio::test]
async fn timestamps_are_seconds() {
    let node = Node::start();
    node.iot("POST", "/thing-types/t", "").await;
    let described = node.iot("GET", "/thing-types/t", "").await.body;
    assert_eq!(described["thingTypeMetadata"]["creationDate"], NOW_SECS as f64);
}

#[tokio::test]
async fn errors_have_their_status_and_name() {
    let node = Node::start();
    let policy = r#"{"policyDocument":"{}"}"#;
    let zero = "0".repeat(64);
    for (method, target, body, status, code) in [
        ("GET", "/things/none", "", 404, "ResourceNotFoundException"),
        ("POST", "/things/x", "{", 400, "InvalidRequestException"),
        ("POST", "/things/x", r#"{"billingGroupName":"b"}"#, 404, "ResourceNotFoundException"),
        ("POST", "/things/x", r#"{"thingTypeName":"t"}"#, 404, "ResourceNotFoundException"),
        ("DELETE", "/things/x?expectedVersion=no", "", 400, "InvalidRequestException"),
        ("POST", "/policies/p", policy, 400, "MalformedPolicyException"),
        ("POST", "/policies/p", "", 400, "InvalidRequestException"),
        ("PUT", &format!("/certificates/{zero}"), "", 400, "InvalidRequestException"),
        (
            "PUT",
            &format!("/certificates/{zero}?newStatus=ACTIVE"),
            "",
            404,
            "ResourceNotFoundException",
        ),
        ("POST", "/keys-and-certificate?setAsActive=maybe", "", 400, "InvalidRequestException"),
        ("PUT", "/things/x/principals", "", 400, "InvalidRequestException"),
        ("GET", "/jobs", "", 404, "UnknownOperationException"),
        ("PUT", "/endpoint", "", 405, "MethodNotAllowedException"),
    ] {
        let answer = node.iot(method, target, body).await;
        assert_eq!(answer.error(), (status, code), "{method} {target}: {}", answer.body);
        assert!(answer.body["message"].is_string());
        assert!(answer.body.get("traceId").is_none());
    }
    let answer = node.iot("PUT", "/endpoint", "").await;
    assert_eq!(answer.headers["allow"], "GET");
}

#[tokio::test]
async fn a_test_of_policies_knows_the_time() {
    let node = Node::start();
    for (name, operator, decision) in
        [("past", "DateLessThan", "IMPLICIT_DENY"), ("now", "DateGreaterThan", "ALLOWED")]
    {
        let document = json!({
            "Version": "2012-10-17",
            "Statement": [{
                "Effect": "Allow",
                "Action": "iot:Publish",
                "Resource": "*",
                "Condition": { operator: { "aws:CurrentTime": "2025-12-31T00:00:00Z" } },
            }],
        });
        let policy = json!({ "policyDocument": document.to_string() }).to_string();
        node.iot("POST", &format!("/policies/{name}"), &policy).await;
        let resource = format!("arn:aws:iot:us-east-1:{ACCOUNT}:topic/a");
        let question = json!({
            "cognitoIdentityPoolId": "us-east-1:pool",
            "authInfos": [{ "actionType": "PUBLISH", "resources": [resource] }],
            "policyNamesToAdd": [name],
        });
        let answer = node.iot("POST", "/test-authorization", &question.to_string()).await;
        assert_eq!(answer.body["authResults"][0]["authDecision"], decision, "{name}");
    }
}

#[tokio::test]
async fn a_path_that_can_be_read_in_two_ways_is_refused() {
    let node = Node::start();
    for target in ["/things/../things/x", "/./things/x", "/things/x/..", "/things/."] {
        let answer = node.iot("POST", target, "").await;
        assert_eq!(answer.error(), (400, "InvalidRequestException"), "{target}");
    }
    let encoded = node.iot_data("POST", "/topics/a%2F..%2F%2E", "").await;
    assert_eq!(encoded.status, 200, "{}", encoded.body);
}

#[tokio::test]
async fn a_node_without_a_leader_says_so() {
    let node = Node::start();
    node.memory.with(|state| state.is_unavailable = true);
    for answer in [
        node.iot("POST", "/things/x", "").await,
        node.iot("GET", "/things", "").await,
        node.iot_data("POST", "/topics/x", "").await,
        node.iot_data("GET", "/things/x/shadow", "").await,
    ] {
        assert_eq!(answer.error(), (503, "ServiceUnavailableException"));
    }
}
