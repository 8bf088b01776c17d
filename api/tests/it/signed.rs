//! Requests as the SDKs make them: signed, sent through the router, answered.

use std::time::{Duration, SystemTime};

use api::{CertificateCaller, Clock};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request};
use hmac::{Hmac, Mac};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tower::ServiceExt;

use crate::memory::{ACCESS_KEY, Memory, REGION, SECRET, authority, config};

/// 2026-01-01T00:00:00Z, the time of every request and of the node.
pub(crate) const NOW_SECS: u64 = 1_767_225_600;
const TIMESTAMP: &str = "20260101T000000Z";

/// A node in memory with its two doors.
pub(crate) struct Node {
    pub(crate) memory: Memory,
    pub(crate) control: Router,
    pub(crate) data: Router,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    /// The status and the error code.
    pub(crate) fn error(&self) -> (u16, &str) {
        let code = self.headers.get("x-amzn-errortype").map(|code| code.to_str().unwrap());
        (self.status, code.unwrap_or_default())
    }
}

impl Node {
    pub(crate) fn start() -> Self {
        Self::start_with(api::Rates::default())
    }

    pub(crate) fn start_with(rates: api::Rates) -> Self {
        let memory = Memory::default();
        memory.with(|state| state.now_secs = NOW_SECS);
        let mut config = config(authority().0);
        config.rates = rates;
        let clock = memory.clone();
        let now = move || clock.with(|state| state.now_secs);
        config.clock = Clock::new(move || SystemTime::UNIX_EPOCH + Duration::from_secs(now()));
        let control = api::router(memory.clone(), config.clone());
        let data = api::data_plane(memory.clone(), config);
        Self { memory, control, data }
    }

    /// A signed request of the control plane.
    pub(crate) async fn iot(&self, method: &str, target: &str, body: &str) -> Answer {
        send(&self.control, signed("iot", method, target, &[], body.as_bytes())).await
    }

    /// A signed request of the data plane, on the port of both.
    pub(crate) async fn iot_data(&self, method: &str, target: &str, body: &str) -> Answer {
        send(&self.control, signed("iotdata", method, target, &[], body.as_bytes())).await
    }

    /// A request of a device that the node has identified by its certificate.
    pub(crate) async fn device(
        &self,
        caller: &CertificateCaller,
        method: &str,
        target: &str,
        body: &str,
    ) -> Answer {
        let mut request = unsigned(method, target, body.as_bytes());
        request.extensions_mut().insert(caller.clone());
        send(&self.data, request).await
    }
}

pub(crate) fn unsigned(method: &str, target: &str, body: &[u8]) -> Request<Body> {
    let request = Request::builder().method(method).uri(target).header("host", "localhost");
    request.body(Body::from(body.to_vec())).unwrap()
}

/// What a request is signed with, and when.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    pub(crate) id: String,
    pub(crate) secret: String,
    pub(crate) token: Option<String>,
    pub(crate) timestamp: &'static str,
}

impl Default for Keys {
    fn default() -> Self {
        let (id, secret) = (ACCESS_KEY.into(), SECRET.into());
        Self { id, secret, token: None, timestamp: TIMESTAMP }
    }
}

/// A request signed with the key of the node's configuration.
pub(crate) fn signed(
    service: &str,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Request<Body> {
    signed_with(&Keys::default(), service, method, target, headers, body)
}

/// A signed request; the signing here is written apart from the verifier.
pub(crate) fn signed_with(
    keys: &Keys,
    service: &str,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Request<Body> {
    let Keys { id, secret, token, timestamp } = keys;
    let date = &timestamp[..8];
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut pairs: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty()).collect();
    pairs.sort_unstable();
    let pairs: Vec<_> = pairs
        .iter()
        .map(|pair| if pair.contains('=') { (*pair).to_owned() } else { format!("{pair}=") })
        .collect();
    let canonical = format!(
        "{method}\n{}\n{}\nhost:localhost\nx-amz-date:{timestamp}\n\nhost;x-amz-date\n{}",
        path.replace('%', "%25").replace(':', "%3A"),
        pairs.join("&"),
        hex::encode(Sha256::digest(body)),
    );
    let scope = format!("{date}/{REGION}/{service}/aws4_request");
    let hash = hex::encode(Sha256::digest(&canonical));
    let text = format!("AWS4-HMAC-SHA256\n{timestamp}\n{scope}\n{hash}");
    let key = [date, REGION, service, "aws4_request"]
        .iter()
        .fold(format!("AWS4{secret}").into_bytes(), |key, part| hmac(&key, part));
    let signature = hex::encode(hmac(&key, &text));
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders=host;x-amz-date, \
         Signature={signature}"
    );
    let mut request = Request::builder()
        .method(method)
        .uri(target)
        .header("host", "localhost")
        .header("x-amz-date", *timestamp)
        .header("authorization", authorization);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(token) = token {
        request = request.header("x-amz-security-token", token);
    }
    request.body(Body::from(body.to_vec())).unwrap()
}

pub(crate) async fn send(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    assert!(parts.headers.contains_key("x-amzn-requestid"));
    let body = serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{error}: {body:?}"));
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}
