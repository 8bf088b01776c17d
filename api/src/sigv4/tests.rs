//! The published test vectors, and what must not pass.

use super::*;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
/// 2015-08-30T12:36:00Z
const NOW: u64 = 1_440_938_160;
const IOT: &str = "c4e44a89d4947ff77108958a7e460478af26f35964f677563209f67da7498a7a";
const DATA: &str = "0f6a15cba407cb2ec4012f832ba1256a99bda975fc5246fb434f7acda7c538ec";
const SOCKET: &str = "831bea952f1013a6001461d920c04604f0078d423467d5018422a1e311932b16";
const SERVICES: &[&str] = &["iot", "iotdata", "iotdevicegateway"];

fn verifier() -> Verifier {
    let key = AccessKey { id: "AKIDEXAMPLE".into(), secret: SECRET.into(), rights: Arc::default() };
    Verifier::new([key], Some("us-east-1".into()))
}

fn authorization(service: &str, signature: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/{service}/aws4_request, \
         SignedHeaders=host;x-amz-date, Signature={signature}"
    )
}

/// A request whose parts a test can change.
#[derive(Clone, Debug)]
struct Sent {
    method: &'static str,
    path: String,
    query: String,
    headers: Vec<(&'static str, String)>,
    body: &'static [u8],
}

impl Sent {
    fn control() -> Self {
        Self {
            method: "GET",
            path: "/things/a%20b".into(),
            query: "maxResults=10&attributeName=x".into(),
            headers: vec![
                ("Host", "iot.us-east-1.example.com".into()),
                ("X-Amz-Date", "20150830T123600Z".into()),
                ("Authorization", authorization("iot", IOT)),
            ],
            body: b"",
        }
    }

    fn data() -> Self {
        Self {
            method: "POST",
            path: "/topics/a%2Fb".into(),
            query: "qos=1".into(),
            headers: vec![
                ("Host", "data.example.com".into()),
                ("X-Amz-Date", "20150830T123600Z".into()),
                ("Authorization", authorization("iotdata", DATA)),
            ],
            body: b"{\"x\":1}",
        }
    }

    fn socket() -> Self {
        let query = format!(
            "X-Amz-Algorithm=AWS4-HMAC-SHA256\
             &X-Amz-Credential=AKIDEXAMPLE%2F20150830%2Fus-east-1%2Fiotdevicegateway%2Faws4_request\
             &X-Amz-Date=20150830T123600Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
             &X-Amz-Signature={SOCKET}"
        );
        let headers = vec![("host", "data.example.com".into())];
        Self { method: "GET", path: "/mqtt".into(), query, headers, body: b"" }
    }

    fn check_at(&self, now: u64) -> Result<Signer, AuthError> {
        let verifier = verifier();
        let headers: Vec<_> =
            self.headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        let request = Request {
            method: self.method,
            path: &self.path,
            query: &self.query,
            headers: &headers,
        };
        verifier.begin(&request, SERVICES, now)?.finish(&request, BodyHash::of(self.body))
    }

    fn check(&self) -> Result<Signer, AuthError> {
        self.check_at(NOW)
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

#[test]
fn the_published_vectors_verify() {
    for (sent, service) in
        [(Sent::control(), "iot"), (Sent::data(), "iotdata"), (Sent::socket(), "iotdevicegateway")]
    {
        let signer = Signer { access_key: "AKIDEXAMPLE".into(), service: service.into() };
        assert_eq!(sent.check(), Ok(signer));
    }
}

#[test]
fn canonical_requests_hash_as_published() {
    for (sent, hash) in [
        (Sent::control(), "fd01f617e044506736165948e9e85459eb3e8ab438c4cfd4054dfe0fe720d57a"),
        (Sent::data(), "ae41ea83ec3025d5527d874dce733d1e309ed6648cc273cefae532a67a55c7a6"),
        (Sent::socket(), "7cad9aa9ca5e32d8b3cec8b155981772bade84bbd6213984f38ddd6dd435c3b0"),
    ] {
        let headers: Vec<_> =
            sent.headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        let request = Request {
            method: sent.method,
            path: &sent.path,
            query: &sent.query,
            headers: &headers,
        };
        let statement = Statement::read(&request).unwrap();
        let payload = payload_hash(&request, BodyHash::of(sent.body)).unwrap();
        let canonical = canonical::requests(&request, &statement, &payload).next().unwrap();
        assert_eq!(hex::encode(Sha256::digest(&canonical)), hash, "{canonical}");
    }
}

#[test]
fn a_request_that_was_changed_does_not_verify() {
    for (what, sent) in [
        ("method", Sent::control().with(|sent| sent.method = "DELETE")),
        ("path", Sent::control().with(|sent| sent.path = "/things/a%20c".into())),
        ("segment", Sent::control().with(|sent| sent.path = "/things//a%20b".into())),
        ("dot", Sent::control().with(|sent| sent.path = "/things/./a%20b".into())),
        ("dots", Sent::control().with(|sent| sent.path = "/x/../things/a%20b".into())),
        ("slash", Sent::control().with(|sent| sent.path = "/things/a%20b/".into())),
        ("query", Sent::control().with(|sent| sent.query.push_str("&more=1"))),
        ("host", Sent::control().with(|sent| sent.headers[0].1 = "evil.example.com".into())),
        ("body", Sent::data().with(|sent| sent.body = b"{\"x\":2}")),
        ("encoding of the topic", Sent::data().with(|sent| sent.path = "/topics/a/b".into())),
        ("expiry", Sent::socket().with(|sent| sent.query = sent.query.replace("86400", "86401"))),
    ] {
        assert_eq!(sent.check(), Err(AuthError::Signature), "{what}");
    }
}

#[test]
fn the_path_is_signed_as_it_is_routed() {
    for (path, canonical) in [
        ("", "/"),
        ("/", "/"),
        ("/things/a", "/things/a"),
        ("/things/a%20b", "/things/a%2520b"),
        ("/things/a:b", "/things/a%3Ab"),
        ("/topics/a%2Fb", "/topics/a%252Fb"),
        ("/topics/a/b", "/topics/a/b"),
        ("/topics//a/", "/topics//a/"),
        ("/topics/a%2F..%2Fb", "/topics/a%252F..%252Fb"),
        ("/topics/%2E%2E", "/topics/%252E%252E"),
    ] {
        let request = Request { method: "GET", path, query: "", headers: &[] };
        let statement = Statement::read(&Request {
            headers: &[
                ("x-amz-date", b"20150830T123600Z"),
                ("authorization", authorization("iot", IOT).as_bytes()),
            ],
            ..request
        });
        let (statement, payload) = (statement.unwrap(), String::new());
        let all: Vec<_> = canonical::requests(&request, &statement, &payload).collect();
        assert_eq!(all.len(), 1, "{path}");
        assert_eq!(all[0].lines().nth(1), Some(canonical), "{path}");
    }
}

#[test]
fn the_order_and_encoding_of_the_query_do_not_matter() {
    for query in ["attributeName=x&maxResults=10", "&maxResults=1%30&&attributeName=%78"] {
        let sent = Sent::control().with(|sent| sent.query = query.into());
        assert!(sent.check().is_ok(), "{query}");
    }
}

#[test]
fn a_signature_has_its_time() {
    for (sent, now, code) in [
        (Sent::control(), NOW + 300, None),
        (Sent::control(), NOW + 301, Some("InvalidSignatureException")),
        (Sent::control(), NOW - 300, None),
        (Sent::control(), NOW - 301, Some("InvalidSignatureException")),
        (Sent::socket(), NOW + 86_400, None),
        (Sent::socket(), NOW + 86_401, Some("InvalidSignatureException")),
        (Sent::socket(), NOW - 301, Some("InvalidSignatureException")),
    ] {
        let error = sent.check_at(now).err();
        assert_eq!(error.as_ref().map(AuthError::code), code, "{now}: {error:?}");
    }
}

#[test]
fn what_is_wrong_with_a_signature_is_said() {
    let header = |authorization: &str| {
        let authorization = authorization.to_owned();
        Sent::control().with(|sent| sent.headers[2].1 = authorization)
    };
    let credential = |credential: &str| {
        header(&format!(
            "AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host;x-amz-date, \
             Signature={IOT}"
        ))
    };
    let query = |from: &str, to: &str| {
        let (from, to) = (from.to_owned(), to.to_owned());
        Sent::socket().with(|sent| sent.query = sent.query.replace(&from, &to))
    };
    for (sent, code) in [
        (Sent::control().with(|sent| drop(sent.headers.pop())), "MissingAuthenticationToken"),
        (header("Basic YTpi"), "IncompleteSignature"),
        (header("AWS4-HMAC-SHA256"), "IncompleteSignature"),
        (header("AWS4-HMAC-SHA256 "), "IncompleteSignature"),
        (credential("x"), "IncompleteSignature"),
        (credential("NOBODY/20150830/us-east-1/iot/aws4_request"), "UnrecognizedClient"),
        (credential("AKIDEXAMPLE/20150829/us-east-1/iot/aws4_request"), "InvalidSignature"),
        (credential("AKIDEXAMPLE/20150830/eu-west-1/iot/aws4_request"), "InvalidSignature"),
        (credential("AKIDEXAMPLE/20150830/us-east-1/s3/aws4_request"), "InvalidSignature"),
        (
            Sent::control().with(|sent| sent.headers[1].1 = "yesterday".into()),
            "IncompleteSignature",
        ),
        (Sent::control().with(|sent| drop(sent.headers.remove(1))), "IncompleteSignature"),
        (header(&authorization("iot", IOT).replace("host;", "")), "IncompleteSignature"),
        (header(&authorization("iot", "c0ffee")), "InvalidSignature"),
        (query("Expires=86400", "Expires=0"), "IncompleteSignature"),
        (query("Expires=86400", "Expires=604801"), "IncompleteSignature"),
        (query("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1"), "IncompleteSignature"),
    ] {
        let error = sent.check().unwrap_err();
        assert_eq!(error.code(), format!("{code}Exception"), "{error:?}");
    }
}

#[test]
fn a_session_token_is_not_for_a_key_that_is_known() {
    let token = || ("X-Amz-Security-Token", "abc".to_owned());
    for sent in [
        Sent::socket().with(|sent| sent.query.push_str("&X-Amz-Security-Token=abc")),
        Sent::data().with(|sent| sent.headers.push(token())),
    ] {
        assert_eq!(sent.check(), Err(AuthError::Token));
    }
    let empty = Sent::socket().with(|sent| sent.query.push_str("&X-Amz-Security-Token="));
    assert!(empty.check().is_ok());
}

#[test]
fn a_key_that_is_not_known_needs_a_session_token_and_its_secret() {
    let stranger = |sent: Sent| {
        sent.with(|sent| {
            sent.query = sent.query.replace("AKIDEXAMPLE", "ASIAEXAMPLE");
            for (_, value) in &mut sent.headers {
                *value = value.replace("AKIDEXAMPLE", "ASIAEXAMPLE");
            }
        })
    };
    let in_header = |sent: Sent| {
        sent.with(|sent| {
            sent.headers.push(("X-Amz-Security-Token", "abc".into()));
        })
    };
    let in_query = |sent: Sent| sent.with(|sent| sent.query.push_str("&X-Amz-Security-Token=abc"));
    for (sent, token) in [
        (in_header(stranger(Sent::data())), Some("abc")),
        (in_query(stranger(Sent::socket())), Some("abc")),
        // The token is where the signature is.
        (in_query(stranger(Sent::data())), None),
        (in_header(stranger(Sent::socket())), None),
        (stranger(Sent::data()), None),
    ] {
        let headers: Vec<_> =
            sent.headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        let request = Request {
            method: sent.method,
            path: &sent.path,
            query: &sent.query,
            headers: &headers,
        };
        let begun = || {
            verifier().begin(&request, SERVICES, NOW).map(|claim| {
                assert_eq!(claim.access_key(), "ASIAEXAMPLE");
                claim.session_token().map(ToOwned::to_owned)
            })
        };
        let unknown = Err(AuthError::UnknownKey("ASIAEXAMPLE".into()));
        assert_eq!(begun(), token.map_or(unknown, |token| Ok(Some(token.into()))), "{sent:?}");
        if token.is_some() {
            assert_eq!(sent.check(), Err(AuthError::Token));
        }
    }
}

#[test]
fn temporary_credentials_sign_with_their_own_secret() {
    // Added after signing, as clients of the device gateway do; the published signature tells whether the
    // secret counts.
    let sent = Sent::socket().with(|sent| sent.query.push_str("&X-Amz-Security-Token=abc"));
    let headers: Vec<_> =
        sent.headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    let request =
        Request { method: sent.method, path: &sent.path, query: &sent.query, headers: &headers };
    let nobody = Verifier::new([], Some("us-east-1".into()));
    for (secret, signed) in [(SECRET, true), ("another", false)] {
        let claim = nobody.begin(&request, SERVICES, NOW).unwrap().with_secret(secret.into());
        assert_eq!(claim.session_token(), None);
        assert_eq!(claim.finish(&request, BodyHash::of(b"")).is_ok(), signed);
    }
}

#[test]
fn a_body_can_be_declared_by_its_hash() {
    let declared = |hash: &str| {
        let hash = hash.to_owned();
        Sent::data().with(|sent| sent.headers.push(("x-amz-content-sha256", hash)))
    };
    assert!(declared(&hex::encode(BodyHash::of(b"{\"x\":1}").0)).check().is_ok());
    assert_eq!(declared("00").check(), Err(AuthError::BodyHash));
    // Not covered is a different thing to sign, so a signature over the body does not fit.
    assert_eq!(declared(UNSIGNED).check(), Err(AuthError::Signature));
}
