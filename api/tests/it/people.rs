//! People who log in with a token, and what their credentials are good for, and until when.

use api::people::{Provider, Rule};
use api::{Rights, Role};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use tower::ServiceExt;

use crate::memory::ACCESS_KEY;
use crate::signed::{Keys, NOW_SECS, Node, send, signed_with, unsigned};

const ISSUER: &str = "https://id.example";
/// An hour later, when credentials have expired.
const LATER_SECS: u64 = NOW_SECS + 3600;
const LATER: &str = "20260101T010000Z";

/// A node that people log in at, and what signs their tokens.
struct Realm {
    node: Node,
    key: EcdsaKeyPair,
}

impl Realm {
    fn start() -> Self {
        let node = Node::start();
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point = key.public_key().as_ref();
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
        let rule = |value: &str, role| Rule {
            claim: "groups".into(),
            value: value.into(),
            rights: Rights { role, things: Vec::new() },
        };
        node.memory.with(|state| {
            let keys = json!({ "keys": [{ "kty": "EC", "crv": "P-256", "x": x, "y": y }] });
            state.token_keys = keys.to_string().into_bytes();
            state.providers = vec![Provider {
                name: "staff".into(),
                issuer: ISSUER.into(),
                audience: "skein".into(),
                max_session_secs: 7200,
                rules: vec![rule("admins", Role::Admin), rule("readers", Role::ReadOnly)],
            }];
        });
        Self { node, key }
    }

    fn token(&self, group: &str) -> String {
        let claims = json!({
            "iss": ISSUER, "aud": "skein", "sub": "ada", "groups": [group],
            "iat": NOW_SECS, "exp": NOW_SECS + 60,
        });
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (head, body) = (encode(br#"{"alg":"ES256"}"#), encode(claims.to_string().as_bytes()));
        let message = format!("{head}.{body}");
        let signature = self.key.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", encode(signature.as_ref()))
    }

    async fn ask(&self, token: &str, role: &str) -> (u16, String) {
        post(&self.node.control, &form(token, role)).await
    }

    async fn keys(&self, group: &str, role: &str) -> Keys {
        let (status, xml) = self.ask(&self.token(group), role).await;
        assert_eq!(status, 200, "{xml}");
        Keys {
            id: part(&xml, "AccessKeyId"),
            secret: part(&xml, "SecretAccessKey"),
            token: Some(part(&xml, "SessionToken")),
            timestamp: Keys::default().timestamp,
        }
    }

    /// What a request for STS by somebody is answered.
    async fn identity(&self, keys: &Keys) -> (u16, String) {
        let body = b"Action=GetCallerIdentity&Version=2011-06-15";
        let mut request = signed_with(keys, "sts", "POST", "/", &[], body);
        as_form(&mut request);
        xml(&self.node.control, request).await
    }
}

fn form(token: &str, role: &str) -> String {
    format!(
        "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleSessionName=me&WebIdentityToken={token}\
         &RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2F{role}"
    )
}

fn as_form(request: &mut Request<Body>) {
    let kind = "application/x-www-form-urlencoded; charset=utf-8";
    request.headers_mut().insert("content-type", kind.parse().unwrap());
}

async fn post(door: &Router, body: &str) -> (u16, String) {
    let mut request = unsigned("POST", "/", body.as_bytes());
    as_form(&mut request);
    xml(door, request).await
}

async fn xml(door: &Router, request: Request<Body>) -> (u16, String) {
    let response = door.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    assert!(parts.headers.contains_key("x-amzn-requestid"));
    assert_eq!(
        (&parts.headers["content-type"], &parts.headers["cache-control"]),
        (&"text/xml".parse().unwrap(), &"no-store".parse().unwrap())
    );
    let body = to_bytes(body, usize::MAX).await.unwrap();
    (parts.status.as_u16(), String::from_utf8(body.to_vec()).unwrap())
}

fn part(xml: &str, name: &str) -> String {
    let found = xml.split_once(&format!("<{name}>")).and_then(|(_, rest)| rest.split_once("</"));
    found.unwrap_or_else(|| panic!("no {name} in {xml}")).0.to_owned()
}

#[tokio::test]
async fn a_session_is_good_for_what_its_role_may_do_until_it_expires() {
    let realm = Realm::start();
    let (admin, reader) =
        (realm.keys("admins", "admin").await, realm.keys("readers", "read-only").await);
    let control = async |keys: &Keys, method: &str, target: &str| {
        let request = signed_with(keys, "iot", method, target, &[], b"{}");
        let answer = send(&realm.node.control, request).await;
        (answer.status, answer.error().1.to_owned())
    };
    assert_eq!(control(&admin, "POST", "/things/a").await.0, 200);
    assert_eq!(control(&reader, "GET", "/things/a").await.0, 200);
    let denied = (403, "AccessDeniedException".to_owned());
    assert_eq!(control(&reader, "DELETE", "/things/a").await, denied);
    for (keys, status) in [(&admin, 200), (&reader, 403)] {
        for door in [&realm.node.control, &realm.node.data] {
            let request = signed_with(keys, "iotdata", "POST", "/topics/a", &[], b"x");
            assert_eq!(send(door, request).await.status, status);
        }
    }
    // On the listener of devices there is no control plane.
    let request = signed_with(&admin, "iot", "GET", "/things/a", &[], b"");
    let error = send(&realm.node.data, request).await;
    assert_eq!(error.error(), (403, "InvalidSignatureException"));
    realm.node.memory.with(|state| state.now_secs = LATER_SECS - 1);
    let last = Keys { timestamp: "20260101T005959Z", ..admin.clone() };
    assert_eq!(control(&last, "GET", "/things/a").await.0, 200);
    realm.node.memory.with(|state| state.now_secs = LATER_SECS);
    let late = Keys { timestamp: LATER, ..admin };
    let expired = (403, "ExpiredTokenException".to_owned());
    assert_eq!(control(&late, "GET", "/things/a").await, expired);
    let (status, xml) = realm.identity(&late).await;
    assert_eq!((status, &*part(&xml, "Code")), (403, "ExpiredToken"));
    // The token that it was given for has expired, too.
    let (status, xml) = realm.ask(&realm.token("admins"), "admin").await;
    assert_eq!((status, &*part(&xml, "Code")), (400, "ExpiredTokenException"));
}

#[tokio::test]
async fn a_session_ends_with_what_it_was_given_for() {
    let realm = Realm::start();
    let (admin, reader) =
        (realm.keys("admins", "admin").await, realm.keys("readers", "read-only").await);
    let status = async |keys: &Keys| realm.identity(keys).await.0;
    assert_eq!((status(&admin).await, status(&reader).await), (200, 200));
    realm.node.memory.with(|state| state.providers[0].rules.retain(|it| it.value == "readers"));
    assert_eq!((status(&admin).await, status(&reader).await), (403, 200));
    realm.node.memory.with(|state| state.providers[0].name = "other".into());
    assert_eq!(status(&reader).await, 403);
}

#[tokio::test]
async fn callers_are_told_who_they_are() {
    let realm = Realm::start();
    for (keys, arn) in [
        (Keys::default(), format!("arn:aws:iam::123456789012:user/{ACCESS_KEY}")),
        (
            realm.keys("admins", "admin").await,
            "arn:aws:sts::123456789012:assumed-role/admin/me".into(),
        ),
    ] {
        let (status, xml) = realm.identity(&keys).await;
        assert_eq!((status, part(&xml, "Arn")), (200, arn));
        assert_eq!(part(&xml, "Account"), "123456789012");
        let wrong = Keys { secret: "another".into(), ..keys };
        let (status, xml) = realm.identity(&wrong).await;
        assert_eq!((status, &*part(&xml, "Code")), (403, "SignatureDoesNotMatch"));
    }
    // Signed for another service.
    let body = b"Action=GetCallerIdentity&Version=2011-06-15";
    let mut request = signed_with(&Keys::default(), "iot", "POST", "/", &[], body);
    as_form(&mut request);
    let (status, xml) = xml(&realm.node.control, request).await;
    assert_eq!((status, &*part(&xml, "Code")), (403, "SignatureDoesNotMatch"));
}

#[tokio::test]
async fn who_may_not_gets_nothing() {
    let realm = Realm::start();
    let (admins, outsiders) = (realm.token("admins"), realm.token("others"));
    let other = Realm::start();
    for (token, role, expected) in [
        (&outsiders, "admin", (403, "AccessDenied")),
        (&admins, "operator", (403, "AccessDenied")),
        (&admins, "root", (403, "AccessDenied")),
        (&other.token("admins"), "admin", (400, "InvalidIdentityToken")),
        (&"x".repeat(17_000), "admin", (400, "InvalidIdentityToken")),
        (&"x".repeat(20_001), "admin", (400, "ValidationError")),
        (&"x".repeat(40_000), "admin", (413, "RequestEntityTooLarge")),
    ] {
        let (status, xml) = realm.ask(token, role).await;
        assert_eq!((status, &*part(&xml, "Code")), expected, "{xml}");
    }
    realm.node.memory.with(|state| state.is_unavailable = true);
    let (status, xml) = realm.ask(&admins, "admin").await;
    assert_eq!(
        (status, &*part(&xml, "Code"), &*part(&xml, "Type")),
        (503, "ServiceUnavailable", "Receiver")
    );
}

#[tokio::test]
async fn strangers_are_throttled_before_their_bodies_are_read() {
    let realm = Realm::start();
    let mut codes = Vec::new();
    for _ in 0..60 {
        let (_, xml) = post(&realm.node.data, "Action=GetCallerIdentity").await;
        codes.push(part(&xml, "Code"));
    }
    assert_eq!(codes[49..51], ["MissingAuthenticationToken", "Throttling"]);
    // The other door counts for itself, and who has a key does not wait.
    let (status, _) = realm.ask(&realm.token("admins"), "admin").await;
    assert_eq!(status, 200);
    // Nothing comes of a body that would never end.
    let mut request = unsigned("POST", "/", b"");
    *request.body_mut() =
        Body::from_stream(futures_util::stream::pending::<Result<String, axum::Error>>());
    as_form(&mut request);
    let (status, xml) = xml(&realm.node.data, request).await;
    assert_eq!((status, &*part(&xml, "Code")), (400, "Throttling"));
}
