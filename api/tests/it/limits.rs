//! Bodies and lists have their ends.

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use bytes::Bytes;
use fleet::registry::{Command, Timestamp};
use futures_util::stream::{self, StreamExt};
use tokio::sync::Semaphore;
use tower::ServiceExt;
use uuid::Uuid;

use crate::devices::device;
use crate::signed::{Keys, NOW_SECS, Node, send, signed, signed_with, unsigned};

/// A node where a caller may do so much in a second.
fn limited(control: u32, data: u32) -> Node {
    Node::start_with(api::Rates::new(NonZeroU32::new(control), NonZeroU32::new(data)))
}

#[tokio::test]
async fn a_caller_has_a_rate_on_each_plane() {
    let node = limited(2, 1);
    let sent = |secs, plane: &'static str| {
        node.memory.with(|state| state.now_secs = NOW_SECS + secs);
        let target = if plane == "iot" { "/things" } else { "/retainedMessage" };
        send(&node.control, signed(plane, "GET", target, &[], b""))
    };
    let throttled = |status| (status, "ThrottlingException");
    for (secs, plane, expected) in [
        (0, "iot", (200, "")),
        (0, "iot", (200, "")),
        (0, "iot", throttled(400)),
        (0, "iotdata", (200, "")),
        (0, "iotdata", throttled(429)),
        (1, "iot", (200, "")),
        (1, "iotdata", (200, "")),
        (1, "iotdata", throttled(429)),
    ] {
        let answer = sent(secs, plane).await;
        assert_eq!(answer.error(), expected, "{secs} {plane}: {}", answer.body);
        if expected.0 != 200 {
            assert_eq!(answer.body["message"], "Rate exceeded");
            assert_eq!(answer.body["traceId"].is_string(), plane == "iotdata");
        }
    }
}

#[tokio::test]
async fn a_slow_body_does_not_set_the_time_of_a_rate_back() {
    let node = limited(2, 0);
    let (memory, control) = (node.memory.clone(), node.control.clone());
    let get = |control: Router| async move {
        send(&control, signed("iot", "GET", "/things", &[], b"")).await.status
    };
    let body = stream::once(async move {
        memory.with(|state| state.now_secs = NOW_SECS + 10);
        for expected in [200, 200, 400] {
            assert_eq!(get(control.clone()).await, expected);
        }
        Ok::<_, axum::Error>(Bytes::new())
    });
    let mut slow = signed("iot", "GET", "/things", &[], b"");
    *slow.body_mut() = Body::from_stream(body);
    let throttled = (400, "ThrottlingException");
    assert_eq!(send(&node.control, slow).await.error(), throttled);
    assert_eq!(node.iot("GET", "/things", "").await.error(), throttled);
}

#[tokio::test]
async fn callers_are_told_apart_and_doors_are_not() {
    let node = limited(0, 1);
    let (one, other) = (device(&node, &[("*", "*")]), device(&node, &[("*", "*")]));
    let request = || signed("iotdata", "POST", "/topics/a", &[], b"");
    assert_eq!(node.device(&one, "POST", "/topics/a", "").await.status, 200);
    assert_eq!(node.device(&one, "POST", "/topics/a", "").await.status, 429);
    assert_eq!(node.device(&other, "POST", "/topics/a", "").await.status, 200);
    assert_eq!(send(&node.control, request()).await.status, 200);
    assert_eq!(send(&node.data, request()).await.status, 429);
    assert_eq!(node.memory.with(|state| state.published.len()), 3);
}

#[tokio::test]
async fn who_proves_nothing_takes_nothing_from_a_rate() {
    let node = limited(1, 1);
    let forger = Keys { secret: "not the secret of that key".into(), ..Keys::default() };
    for _ in 0..3 {
        let forged = signed_with(&forger, "iot", "GET", "/things", &[], b"");
        assert_eq!(send(&node.control, forged).await.status, 403);
    }
    assert_eq!(node.iot("GET", "/things", "").await.status, 200);
    assert_eq!(node.iot("POST", "/things/x", "").await.error(), (400, "ThrottlingException"));
    assert!(node.memory.with(|state| state.registry.thing("x").is_none()));
}

#[tokio::test]
async fn there_is_no_rate_unless_one_is_set() {
    let node = Node::start();
    for _ in 0..200 {
        assert_eq!(node.iot("GET", "/things", "").await.status, 200);
        assert_eq!(node.iot_data("GET", "/retainedMessage", "").await.status, 200);
    }
}

#[tokio::test]
async fn a_body_ends_at_a_mebibyte_announced_or_not() {
    let node = Node::start();
    let body = vec![b' '; 1024 * 1024 + 1];
    let announced = signed("iot", "POST", "/things/x", &[], &body);
    let mut streamed = signed("iot", "POST", "/things/x", &[], &body);
    let chunks = body.chunks(4096).map(|chunk| Ok::<_, axum::Error>(Bytes::copy_from_slice(chunk)));
    *streamed.body_mut() = Body::from_stream(stream::iter(chunks.collect::<Vec<_>>()));
    for request in [announced, streamed] {
        let answer = send(&node.control, request).await;
        assert_eq!(answer.error(), (413, "RequestEntityTooLargeException"));
    }
    let fits = signed("iot", "POST", "/things/x", &[], &body[1..]);
    assert_eq!(send(&node.control, fits).await.status, 200);
}

#[tokio::test]
async fn the_connection_ends_with_an_answer_that_did_not_wait_for_the_body() {
    let node = Node::start();
    for (bytes, ends, closes) in [
        (1000, true, false),
        (1024 * 1024 + 1, false, true),
        (2 * 1024 * 1024, false, true),
        // What is announced as too large is not read: whoever ends the connection does that.
        (1024 * 1024 + 1, true, true),
    ] {
        let body = vec![b' '; bytes];
        let mut request = signed("iot", "POST", "/things/x", &[], &body);
        let chunks: Vec<_> = body.chunks(4096).map(Bytes::copy_from_slice).map(Ok).collect();
        let chunks = stream::iter::<Vec<Result<Bytes, axum::Error>>>(chunks);
        if ends {
            let length = bytes.to_string().parse().unwrap();
            request.headers_mut().insert("content-length", length);
            *request.body_mut() = Body::from_stream(chunks);
        } else {
            *request.body_mut() = Body::from_stream(chunks.chain(stream::pending()));
        }
        let answer = send(&node.control, request).await;
        let says_so = answer.headers.get("connection").is_some_and(|value| value == "close");
        assert_eq!(says_so, closes, "{bytes} {ends}: {}", answer.status);
    }
}

#[tokio::test]
async fn the_body_of_a_stranger_is_not_read() {
    let node = Node::start();
    let mut request = unsigned("POST", "/things/x", b"");
    *request.body_mut() = Body::from_stream(stream::poll_fn(
        |_| -> std::task::Poll<Option<Result<Bytes, axum::Error>>> { panic!("the body was read") },
    ));
    let answer = send(&node.control, request).await;
    assert_eq!(answer.error(), (403, "MissingAuthenticationTokenException"));
}

/// Sends so many bodies that do not end, each with this beginning, and waits until that is read.
async fn stall(node: &Node, count: u32, beginning: usize) {
    let read = Arc::new(Semaphore::new(0));
    for _ in 0..count {
        let read = Arc::clone(&read);
        let mut request = signed("iot", "POST", "/things/x", &[], b"");
        let beginning = Bytes::from(vec![b' '; beginning]);
        let rest = async move {
            read.add_permits(1);
            std::future::pending().await
        };
        let body = stream::iter([Ok::<_, axum::Error>(beginning)]).chain(stream::once(rest));
        *request.body_mut() = Body::from_stream(body);
        let control = node.control.clone();
        tokio::spawn(async move { send(&control, request).await });
    }
    drop(read.acquire_many(count).await.unwrap());
}

#[tokio::test]
async fn clients_that_send_slowly_keep_nobody_out() {
    let node = Node::start();
    stall(&node, 2000, 1).await;
    assert_eq!(node.iot("POST", "/things/y", "").await.status, 200);
}

#[tokio::test]
async fn large_bodies_are_few_at_a_time() {
    let node = Node::start();
    stall(&node, 64, 100_000).await;
    let spaces = " ".repeat(100_000);
    let answer = node.iot("POST", "/things/y", &spaces).await;
    assert_eq!(answer.error(), (503, "ServiceUnavailableException"));
    assert_eq!(node.iot("POST", "/things/y", &spaces[..60_000]).await.status, 200);
}

#[tokio::test]
async fn a_filter_that_few_things_match_still_finds_them() {
    let node = Node::start();
    node.memory.with(|state| {
        for number in 0..25_000 {
            let mut attributes = fleet::registry::Attributes::new();
            if number % 12_000 == 11_999 {
                attributes.insert("rare".into(), "yes".into());
            }
            let thing = fleet::registry::ThingName::new(&format!("t{number:05}")).unwrap();
            let command = Command::CreateThing {
                thing,
                id: Uuid::nil(),
                thing_type: None,
                attributes,
                billing_group: None,
                at: Timestamp(1),
            };
            state.registry.apply(command).unwrap();
        }
    });
    let found = node.iot("GET", "/things?attributeName=rare", "").await.body;
    let names: Vec<_> =
        found["things"].as_array().unwrap().iter().map(|thing| &thing["thingName"]).collect();
    assert_eq!(names, ["t11999", "t23999"]);
    assert!(found.get("nextToken").is_none());
}

#[tokio::test]
async fn a_link_that_is_over_is_not_looked_up() {
    let node = Node::start();
    node.memory.with(|state| state.is_unavailable = true);
    let path =
        "/thing-registration-tasks/00000000-0000-4000-8000-000000000000/reports/results-000000";
    for (expires, expected) in [
        ("0", StatusCode::FORBIDDEN),
        ("1", StatusCode::FORBIDDEN),
        ("99999999999", StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let link = format!("{path}?expires={expires}&signature={}", "0".repeat(64));
        let request = unsigned("GET", &link, b"");
        let answer = node.control.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), expected, "{expires}");
    }
}
