//! Tokens that are good, and the many that are not.

use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use serde_json::json;

use super::*;

const NOW: u64 = 1_700_000_000;

static RSA: LazyLock<RsaKeyPair> =
    LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
static OTHER: LazyLock<RsaKeyPair> =
    LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
static EC: LazyLock<EcdsaKeyPair> =
    LazyLock::new(|| EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap());

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn rsa_key(pair: &RsaKeyPair, id: &str) -> Value {
    // DER of a sequence of two integers: 256 bytes behind a zero, and three.
    let der = pair.public_key().as_ref();
    let (n, e) = (encode(&der[9..265]), encode(&der[der.len() - 3..]));
    json!({
        "kty": "RSA", "use": "sig", "alg": "RS256", "kid": id,
        "n": n,
        "e": e,
    })
}

fn ec_key(id: &str) -> Value {
    let point = EC.public_key().as_ref();
    let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
    json!({ "kty": "EC", "crv": "P-256", "kid": id, "x": x, "y": y })
}

fn keys() -> Keys {
    let set = json!({ "keys": [rsa_key(&RSA, "rsa"), ec_key("ec")] });
    Keys::parse(set.to_string().as_bytes()).unwrap()
}

fn rs256(pair: &RsaKeyPair, message: &str) -> Vec<u8> {
    let mut signature = vec![0; pair.public_modulus_len()];
    let random = SystemRandom::new();
    pair.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature).unwrap();
    signature
}

fn es256(message: &str) -> Vec<u8> {
    EC.sign(&SystemRandom::new(), message.as_bytes()).unwrap().as_ref().to_vec()
}

fn token(head: &Value, body: &Value, sign: impl Fn(&str) -> Vec<u8>) -> String {
    let message = format!("{}.{}", encode(head.to_string()), encode(body.to_string()));
    format!("{message}.{}", encode(sign(&message)))
}

fn claims() -> Value {
    json!({ "iss": "https://id.example/", "aud": "skein", "sub": "lamp-1", "exp": NOW + 600 })
}

fn issuer() -> Issuer {
    let text = r#"{"Version":"2012-10-17","Statement":[
        {"Effect":"Allow","Action":"iot:Connect","Resource":"*"}]}"#;
    Issuer {
        issuer: "https://id.example/".into(),
        audience: "skein".into(),
        principal_claim: "sub".into(),
        document: Arc::new(policy::Document::parse(text).unwrap()),
        text: text.into(),
    }
}

#[test]
fn a_token_that_a_key_has_signed_is_good() {
    let by_rsa = |message: &str| rs256(&RSA, message);
    for (head, sign) in [
        (json!({ "alg": "RS256", "kid": "rsa" }), &by_rsa as &dyn Fn(&str) -> Vec<u8>),
        (json!({ "alg": "RS256", "typ": "JWT" }), &by_rsa),
        (json!({ "alg": "ES256", "kid": "ec" }), &|message: &str| es256(message)),
    ] {
        let verified = Claims::verify(&token(&head, &claims(), sign), &keys()).unwrap();
        let grant = verified.grant(&issuer(), NOW).unwrap();
        assert_eq!((grant.principal_id.as_str(), grant.disconnect_after_secs), ("lamp-1", 600));
        assert_eq!(grant.refresh_after_secs, None);
        assert_eq!(grant.variables["jwt:sub"], ["lamp-1"]);
    }
}

#[test]
fn a_token_that_no_key_has_signed_is_refused() {
    use InvalidToken::{Algorithm, Malformed, Signature, UnknownKey};
    let good = token(&json!({ "alg": "RS256" }), &claims(), |message| rs256(&RSA, message));
    let by_rsa = |head: Value| token(&head, &claims(), |message| rs256(&RSA, message));
    let by_other = token(&json!({ "alg": "RS256" }), &claims(), |message| rs256(&OTHER, message));
    let parts: Vec<&str> = good.split('.').collect();
    let mut others = claims();
    others["sub"] = "lamp-2".into();
    // The public key as the secret of a symmetric algorithm is never looked at.
    for (token, error) in [
        (by_rsa(json!({ "alg": "none" })), Algorithm),
        (by_rsa(json!({ "alg": "HS256", "kid": "rsa" })), Algorithm),
        (by_rsa(json!({ "alg": "RS512" })), Algorithm),
        (by_rsa(json!({ "alg": "rs256" })), Algorithm),
        (by_rsa(json!({ "kid": "rsa" })), Algorithm),
        (by_rsa(json!({ "alg": "ES256", "kid": "rsa" })), UnknownKey),
        (by_rsa(json!({ "alg": "RS256", "kid": "ec" })), UnknownKey),
        (by_rsa(json!({ "alg": "RS256", "kid": "other" })), UnknownKey),
        (by_rsa(json!({ "alg": "RS256", "kid": 1 })), Malformed("its kid is no text")),
        (by_rsa(json!({ "alg": "RS256", "crit": ["x"] })), Malformed("its header has crit")),
        (by_rsa(json!({ "alg": "ES256" })), Signature),
        (by_other, Signature),
        (format!("{}.{}.{}", parts[0], encode(others.to_string()), parts[2]), Signature),
        (format!("{}.{}.", parts[0], parts[1]), Signature),
        (format!("{good}="), Signature),
        (format!("{}.{}", parts[0], parts[1]), Malformed("it has not three parts")),
        (format!("{}.{good}", encode("{}")), Algorithm),
        ("token".into(), Malformed("it has no parts")),
        (String::new(), Malformed("it has no parts")),
        ("..".into(), Malformed("its header is no JSON object in base64url")),
        ("x".repeat(20_000), Malformed("it is too long")),
        (
            token(&json!({ "alg": "RS256" }), &json!([]), |message| rs256(&RSA, message)),
            Malformed("its claims are no JSON object in base64url"),
        ),
    ] {
        assert_eq!(Claims::verify(&token, &keys()).unwrap_err(), error, "{token}");
    }
    // Without a name it is not clear which of two keys is meant.
    let set = json!({ "keys": [rsa_key(&RSA, "a"), rsa_key(&OTHER, "b")] });
    let two = Keys::parse(set.to_string().as_bytes()).unwrap();
    assert_eq!(Claims::verify(&good, &two).unwrap_err(), UnknownKey);
}

#[test]
fn claims_are_for_us_and_of_this_time() {
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        claims
    };
    let grant = |claims: &Value| of(claims.clone()).grant(&issuer(), NOW);
    for (claims, seconds) in [
        (claims(), 600),
        (with("aud", json!(["other", "skein"])), 600),
        (with("exp", (NOW + 1).into()), 1),
        (with("exp", json!(NOW as f64 + 600.5)), 600),
        (with("exp", (NOW + 1_000_000).into()), 86_400),
        (with("nbf", (NOW + 60).into()), 600),
        (with("sub", "x".repeat(128).into()), 600),
    ] {
        assert_eq!(grant(&claims).unwrap().disconnect_after_secs, seconds, "{claims}");
    }
    let claim = |name: &str| InvalidToken::Claim(name.into());
    for (claims, error) in [
        (with("iss", "https://id.example".into()), claim("iss")),
        (with("iss", Value::Null), claim("iss")),
        (with("aud", "Skein".into()), claim("aud")),
        (with("aud", json!(["other"])), claim("aud")),
        (with("aud", json!([])), claim("aud")),
        (with("aud", Value::Null), claim("aud")),
        (with("exp", Value::Null), claim("exp")),
        (with("exp", (NOW + 600).to_string().into()), claim("exp")),
        (with("exp", (-1).into()), claim("exp")),
        (with("exp", NOW.into()), InvalidToken::Expired),
        (with("exp", 0.into()), InvalidToken::Expired),
        (with("nbf", (NOW + 61).into()), InvalidToken::NotYet),
        (with("nbf", "now".into()), claim("nbf")),
        (with("sub", Value::Null), claim("sub")),
        (with("sub", "".into()), claim("sub")),
        (with("sub", "a b".into()), claim("sub")),
        (with("sub", "x".repeat(129).into()), claim("sub")),
    ] {
        assert_eq!(grant(&claims).unwrap_err(), error, "{claims}");
    }
    let mut claims = claims();
    claims.as_object_mut().unwrap().shift_remove("exp");
    assert_eq!(grant(&claims).unwrap_err(), claim("exp"));
}

fn of(claims: Value) -> Claims {
    let Value::Object(claims) = claims else { panic!("no object") };
    Claims { members: claims, kind: None }
}

#[test]
fn a_token_is_of_a_person() {
    let good = || json!({ "iss": "i", "aud": "a", "sub": "s 1", "exp": NOW + 600, "iat": NOW });
    let with = |name: &str, value: Value| {
        let mut claims = good();
        claims[name] = value;
        claims
    };
    let two = |azp: Value| {
        let mut claims = with("aud", json!(["a", "b"]));
        claims["azp"] = azp;
        claims
    };
    let named = |more: Value| {
        let mut claims = good();
        claims.as_object_mut().unwrap().append(&mut more.as_object().unwrap().clone());
        claims
    };
    let long = "x".repeat(129);
    let person = |claims: &Value| of(claims.clone()).person("i", "a", NOW);
    for (claims, name) in [
        (good(), None),
        (with("aud", json!(["a"])), None),
        (two("a".into()), None),
        (with("azp", "a".into()), None),
        (with("client_id", "a".into()), None),
        (with("typ", "ID".into()), None),
        (with("exp", (NOW - 59).into()), None),
        (with("iat", (NOW + 60).into()), None),
        (with("nbf", (NOW + 60).into()), None),
        (named(json!({ "email": "e@x", "preferred_username": "p" })), Some("e@x")),
        (named(json!({ "email": "e@x", "email_verified": true })), Some("e@x")),
        (named(json!({ "email": "e@x", "email_verified": false })), None),
        (named(json!({ "email": "e@x", "email_verified": "false" })), None),
        (named(json!({ "email": "", "preferred_username": "p" })), Some("p")),
        (named(json!({ "email": long, "preferred_username": "a\nb", "name": "N" })), Some("N")),
    ] {
        let expected = Person { subject: "s 1".into(), name: name.map(Into::into) };
        assert_eq!(person(&claims), Ok(expected), "{claims}");
    }
    let claim = |name: &str| InvalidToken::Claim(name.into());
    for (kind, is_refused) in
        [("JWT", false), ("jwt", false), ("at+jwt", true), ("logout+jwt", true), ("", true)]
    {
        let found = Claims { kind: Some(kind.into()), ..of(good()) }.person("i", "a", NOW);
        assert_eq!(found.err(), is_refused.then(|| claim("typ")), "{kind}");
    }
    for (claims, error) in [
        (with("iss", "I".into()), claim("iss")),
        (with("aud", "b".into()), claim("aud")),
        (with("aud", json!(["b"])), claim("aud")),
        (two("b".into()), claim("azp")),
        (two(Value::Null), claim("azp")),
        (with("aud", json!(["a", "b"])), claim("azp")),
        (with("azp", "b".into()), claim("azp")),
        (with("client_id", "b".into()), claim("client_id")),
        (with("typ", "Bearer".into()), claim("typ")),
        (with("typ", 7.into()), claim("typ")),
        (with("events", json!({})), claim("events")),
        (with("exp", (NOW - 60).into()), InvalidToken::Expired),
        (with("exp", Value::Null), claim("exp")),
        (with("iat", (NOW + 61).into()), InvalidToken::NotYet),
        (with("iat", "now".into()), claim("iat")),
        (with("nbf", (NOW + 61).into()), InvalidToken::NotYet),
        (with("sub", "".into()), claim("sub")),
        (with("sub", 7.into()), claim("sub")),
        (with("sub", "\u{e4}".into()), claim("sub")),
        (with("sub", "a\tb".into()), claim("sub")),
        (with("sub", "x".repeat(256).into()), claim("sub")),
    ] {
        assert_eq!(person(&claims), Err(error), "{claims}");
    }
    for name in ["iss", "aud", "exp", "iat", "sub"] {
        let mut claims = good();
        claims.as_object_mut().unwrap().shift_remove(name);
        assert_eq!(person(&claims), Err(claim(name)));
    }
}

#[test]
fn a_claim_has_a_value() {
    let claims = of(json!({
        "one": "a", "many": ["a", "b", 7], "number": 7, "https://x.example/roles": ["r"],
        "realm_access": { "roles": ["admins"], "deep": { "er": "d" } }, "no.way": "n",
        "no": { "way": "other" },
    }));
    for (name, value, has) in [
        ("one", "a", true),
        ("one", "A", false),
        ("one", "", false),
        ("many", "b", true),
        ("many", "7", false),
        ("many", "a,b", false),
        ("number", "7", false),
        ("absent", "a", false),
        ("https://x.example/roles", "r", true),
        ("realm_access.roles", "admins", true),
        ("realm_access.roles", "admin", false),
        ("realm_access.deep.er", "d", true),
        ("realm_access", "roles", false),
        ("realm_access.", "admins", false),
        ("realm_access.roles.admins", "admins", false),
        ("many.0", "a", false),
        ("no.way", "n", true),
        ("no.way", "other", false),
    ] {
        assert_eq!(claims.has(name, value), has, "{name} {value}");
    }
}

#[test]
fn an_address_counts_only_if_it_is_verified() {
    for (verified, has) in [
        (json!(true), true),
        (json!("true"), true),
        (json!(false), false),
        (json!("false"), false),
        (json!("yes"), false),
        (json!(1), false),
        (Value::Null, false),
    ] {
        let claims = of(json!({ "email": "e@x", "email_verified": verified }));
        assert_eq!(claims.has("email", "e@x"), has, "{verified}");
    }
    assert!(!of(json!({ "email": "e@x" })).has("email", "e@x"));
}

#[test]
fn what_is_claimed_proves_nothing() {
    let token = token(&json!({ "alg": "none" }), &claims(), |_| Vec::new());
    let claimed = Claimed::read(&token).unwrap();
    assert_eq!(claimed.text("iss"), Some("https://id.example/"));
    assert!(claimed.is_for("skein") && !claimed.is_for("other"));
    assert_eq!(Claims::verify(&token, &keys()).unwrap_err(), InvalidToken::Algorithm);
    for text in ["", "a.b", "a.b.c", &"x".repeat(20_000)] {
        assert!(Claimed::read(text).is_err(), "{text}");
    }
}

#[test]
fn claims_are_variables() {
    let claims = json!({
        "Sub": "s", "n": 7, "b": true, "list": ["a", "b"], "mixed": ["a", 1], "object": {},
        "null": null, "long": "x".repeat(1025),
    });
    let found = of(claims).variables();
    let shown = found.iter().map(|(name, values)| format!("{name}={}", values.join(",")));
    let shown: Vec<String> = shown.collect();
    assert_eq!(shown, ["jwt:b=true", "jwt:list=a,b", "jwt:n=7", "jwt:sub=s"]);
}

#[test]
fn the_claim_that_says_who_it_is_cannot_be_replaced_by_one_in_other_case() {
    for (claims, expected) in [
        (json!({ "sub": "s", "SUB": "other" }), Some("s")),
        (json!({ "SUB": "other", "sub": "s" }), Some("s")),
        (json!({ "Sub": "a", "SUB": "b" }), None),
        (json!({ "sub": {}, "SUB": "other" }), None),
        (json!({ "SUB": "s" }), Some("s")),
    ] {
        let Value::Object(map) = &claims else { panic!("no object") };
        let variables = Claims { members: map.clone(), kind: None }.variables();
        let found = variables.get("jwt:sub").map(|values| values.join(","));
        assert_eq!(found.as_deref(), expected, "{claims}");
    }
}

#[test]
fn a_set_has_a_key_that_can_be_used() {
    let with = |name: &str, value: &str| {
        let mut key = rsa_key(&RSA, "k");
        key[name] = value.into();
        json!({ "keys": [key] }).to_string()
    };
    for set in [
        String::new(),
        "[]".into(),
        "{}".into(),
        r#"{"keys": []}"#.into(),
        r#"{"keys": [1]}"#.into(),
        with("use", "enc"),
        with("alg", "RS512"),
        with("alg", "HS256"),
        with("kty", "oct"),
        with("n", "!"),
        json!({ "keys": [{ "kty": "oct", "k": "AAAA", "kid": "k" }] }).to_string(),
    ] {
        assert_eq!(Keys::parse(set.as_bytes()).unwrap_err(), InvalidKeys, "{set}");
    }
    // One that is too short is in the set, and has signed nothing.
    let short = Keys::parse(with("n", "AQAB").as_bytes()).unwrap();
    let token = token(&json!({ "alg": "RS256" }), &claims(), |message| rs256(&RSA, message));
    assert_eq!(Claims::verify(&token, &short).unwrap_err(), InvalidToken::Signature);
}
