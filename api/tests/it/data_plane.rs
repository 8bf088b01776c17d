//! The data plane with an access key.

use api::Properties;
use api::backend::{Connection, Ending, Subscription};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::signed::{NOW_SECS, Node, send, signed};

#[tokio::test]
async fn a_publication_arrives_as_it_was_sent() {
    let node = Node::start();
    let properties = STANDARD.encode(r#"[{"k":"v"},{"k":"w"}]"#);
    let headers = [
        ("x-amz-mqtt5-user-properties", properties.as_str()),
        ("x-amz-mqtt5-payload-format-indicator", "UTF8_DATA"),
        ("x-amz-mqtt5-correlation-data", "AQI="),
    ];
    let target = "/topics/a%2Fb%20%C3%BC?qos=1&retain=true&contentType=text%2Fplain\
                  &responseTopic=c%2Fd&messageExpiry=60";
    let answer = send(&node.control, signed("iotdata", "POST", target, &headers, b"hello")).await;
    assert_eq!((answer.status, &answer.body["message"]), (200, &json!("OK")));

    let published = node.memory.with(|state| state.published.remove(0));
    assert_eq!(published.topic, "a/b ü");
    assert_eq!(published.payload, "hello");
    assert_eq!((published.qos, published.retain, published.expiry_secs), (1, true, Some(60)));
    let expected = Properties {
        is_utf8: Some(true),
        content_type: Some("text/plain".into()),
        response_topic: Some("c/d".into()),
        correlation_data: Some(vec![1, 2]),
        user_properties: vec![("k".into(), "v".into()), ("k".into(), "w".into())],
    };
    assert_eq!(Properties::decode(&published.properties), Ok(expected));
}

#[tokio::test]
async fn a_publication_has_defaults() {
    let node = Node::start();
    for target in ["/topics/a/b", "/topics/a%2Fb?qos=0&messageExpiry=0&retain=false"] {
        assert_eq!(node.iot_data("POST", target, "").await.status, 200);
        let published = node.memory.with(|state| state.published.remove(0));
        assert_eq!((&*published.topic, published.qos, published.retain), ("a/b", 0, false));
        assert_eq!((published.expiry_secs, published.properties.len()), (None, 0));
    }
}

#[tokio::test]
async fn a_publication_that_is_too_large_is_refused() {
    let node = Node::start();
    let answer = node.iot_data("POST", "/topics/a", &"x".repeat(128 * 1024 + 1)).await;
    assert_eq!(answer.error(), (413, "RequestEntityTooLargeException"));
}

#[tokio::test]
async fn a_connection_is_described() {
    let node = Node::start();
    let connection = Connection {
        connected: true,
        thing: Some("lamp".into()),
        source: Some(("10.0.0.7".parse().unwrap(), 40_000)),
        target: Some(("10.0.0.1".parse().unwrap(), 8883)),
        keep_alive_secs: Some(30),
        connected_since_ms: Some(NOW_SECS * 1000),
        session_expiry_secs: Some(3600),
        ..Connection::default()
    };
    node.memory.with(|state| state.connections.insert("a/b".into(), (connection, Vec::new())));
    let mut expected = json!({
        "clientId": "a/b",
        "connected": true,
        "thingName": "lamp",
        "cleanSession": false,
        "keepAliveDuration": 30,
        "connectedSince": NOW_SECS * 1000,
        "sessionExpiry": 3600,
    });
    assert_eq!(node.iot_data("GET", "/connections/a%2Fb", "").await.body, expected);
    expected["sourceIp"] = "10.0.0.7".into();
    expected["sourcePort"] = 40_000.into();
    expected["targetIp"] = "10.0.0.1".into();
    expected["targetPort"] = 8883.into();
    let target = "/connections/a%2Fb?includeSocketInformation=true";
    assert_eq!(node.iot_data("GET", target, "").await.body, expected);
}

#[tokio::test]
async fn a_connection_is_ended() {
    let node = Node::start();
    for (query, ending) in [
        ("", Ending::default()),
        ("?cleanSession=true", Ending { clean_session: true, prevent_will: false }),
        (
            "?cleanSession=false&preventWillMessage=TRUE",
            Ending { clean_session: false, prevent_will: true },
        ),
    ] {
        node.memory.with(|state| state.connections.insert("c".into(), Default::default()));
        let answer = node.iot_data("DELETE", &format!("/connections/c{query}"), "").await;
        assert_eq!(answer.status, 200);
        assert_eq!(node.memory.with(|state| state.ended.pop()), Some(("c".into(), ending)));
    }
    let answer = node.iot_data("DELETE", "/connections/c", "").await;
    assert_eq!(answer.error(), (404, "ResourceNotFoundException"));
}

#[tokio::test]
async fn subscriptions_are_listed_by_page() {
    let node = Node::start();
    let filters = ["a/#", "b", "c/+"];
    let subscriptions = filters.map(|filter| Subscription { filter: filter.into(), qos: 1 });
    let client = (Connection::default(), subscriptions.to_vec());
    node.memory.with(|state| state.connections.insert("c".into(), client));
    let first = node.iot_data("GET", "/connections/c/subscriptions?maxResults=2", "").await.body;
    let page = json!([{ "topicFilter": "a/#", "qos": 1 }, { "topicFilter": "b", "qos": 1 }]);
    assert_eq!(first["subscriptions"], page);
    let token = first["nextToken"].as_str().unwrap();
    let token = token.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    let target = format!("/connections/c/subscriptions?maxResults=2&nextToken={token}");
    let second = node.iot_data("GET", &target, "").await.body;
    assert_eq!(second, json!({ "subscriptions": [{ "topicFilter": "c/+", "qos": 1 }] }));
    let elsewhere = target.replace("/c/", "/d/");
    let answer = node.iot_data("GET", &elsewhere, "").await;
    assert_eq!(answer.error(), (400, "InvalidRequestException"));
}

#[tokio::test]
async fn a_shadow_that_is_refused_says_so_in_its_own_words() {
    let node = Node::start();
    let answer = node.iot_data("GET", "/things/lamp/shadow?name=dim", "").await;
    assert_eq!(answer.error(), (404, "ResourceNotFoundException"));
    assert_eq!(answer.body["code"], 404);
    assert_eq!(answer.body["message"], "No shadow exists with name: 'dim'");
    assert!(answer.body["traceId"].is_string());
    let answer = node.iot_data("POST", "/things/lamp/shadow", "{}").await;
    assert_eq!(answer.body["message"], "Missing required node: state");
}
