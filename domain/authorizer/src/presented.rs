//! What a client has sent, the token that is in it, and what an authorizer is told of it.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use crate::{Refusal, SigningKey};

const NAME: &str = "x-amz-customauthorizer-name";
const SIGNATURE: &str = "x-amz-customauthorizer-signature";

/// Bytes that a client may present: nobody has proved anything before it is looked at.
pub const MAX_BYTES: usize = 128 * 1024;

/// What a client has sent. What is absent was not spoken. Not shown by `Debug`: it is secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Presented {
    /// Of TLS.
    pub tls: Option<Tls>,
    /// Of HTTP: the request, or the one that opened the WebSocket.
    pub http: Option<Http>,
    /// Of MQTT: CONNECT.
    pub mqtt: Option<Mqtt>,
}

/// What a client says in TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The name of the server that it wants.
    pub server_name: Option<String>,
}

/// The head of an HTTP request.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Http {
    /// In the order sent.
    pub headers: Vec<(String, String)>,
    /// Still percent-encoded, without the question mark.
    pub query: String,
}

/// What a CONNECT packet says.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Mqtt {
    /// The user name, with its query string if it has one.
    pub username: Option<String>,
    /// The password.
    pub password: Option<Vec<u8>>,
    /// The client id.
    pub client_id: String,
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presented").finish_non_exhaustive()
    }
}

/// What is shown to an authorizer after its signature was checked. Not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// As it was presented, if it was.
    pub text: Option<String>,
    /// Whether its signature was checked.
    pub is_verified: bool,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("is_verified", &self.is_verified).finish_non_exhaustive()
    }
}

impl Presented {
    /// The authorizer that the client names: in a header, in the query, or behind its user name.
    pub fn authorizer(&self) -> Result<Option<String>, Refusal> {
        self.value(NAME)
    }

    /// The token under this name, once one of the keys has verified its signature. Without keys,
    /// which is where signing is disabled, it counts as it is.
    pub fn token(
        &self,
        token_key: Option<&str>,
        keys: Option<&[SigningKey]>,
    ) -> Result<Token, Refusal> {
        let text = token_key.map(|name| self.value(name)).transpose()?.flatten();
        let Some(keys) = keys else { return Ok(Token { text, is_verified: false }) };
        let signature = self.value(SIGNATURE)?;
        self.check(text, signature, keys)
    }

    fn check(
        &self,
        text: Option<String>,
        signature: Option<String>,
        keys: &[SigningKey],
    ) -> Result<Token, Refusal> {
        let text = text.filter(|text| !text.is_empty()).ok_or(Refusal::NoToken)?;
        let signature = signature.filter(|it| !it.is_empty()).ok_or(Refusal::NoSignature)?;
        match keys.iter().any(|key| key.verifies(&text, &signature)) {
            true => Ok(Token { text: Some(text), is_verified: true }),
            false => Err(Refusal::BadSignature),
        }
    }

    /// What counts as a JSON Web Token: the token, without `Bearer` in front, or else the password. The
    /// case of schemes does not matter (RFC 9110, 11.1).
    pub fn web_token<'a>(&'a self, token: &'a Token) -> Option<&'a str> {
        let password = || std::str::from_utf8(self.mqtt.as_ref()?.password.as_ref()?).ok();
        let text = token.text.as_deref().or_else(password)?;
        let text = match text.split_once(' ') {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("Bearer") => {
                rest.trim_start_matches(' ')
            }
            _ => text,
        };
        Some(text).filter(|text| !text.is_empty())
    }

    /// Bytes of everything that is in it.
    pub fn bytes(&self) -> usize {
        let http = self.http.as_ref().map_or(0, |http| {
            let headers = http.headers.iter().map(|(name, value)| name.len() + value.len());
            http.query.len() + headers.sum::<usize>()
        });
        let mqtt = self.mqtt.as_ref().map_or(0, |mqtt| {
            let username = mqtt.username.as_ref().map_or(0, String::len);
            username + mqtt.password.as_ref().map_or(0, Vec::len) + mqtt.client_id.len()
        });
        http + mqtt
    }

    /// A value by its name, from the first place that has it.
    fn value(&self, name: &str) -> Result<Option<String>, Refusal> {
        if let Some(http) = &self.http {
            let mut headers = http.headers.iter();
            if let Some((_, value)) = headers.find(|(found, _)| found.eq_ignore_ascii_case(name)) {
                return Ok(Some(value.clone()));
            }
            if let Some(value) = parameter(&http.query, name)? {
                return Ok(Some(value));
            }
        }
        let username = self.mqtt.as_ref().and_then(|mqtt| mqtt.username.as_deref());
        match username.and_then(|username| username.split_once('?')) {
            Some((_, query)) => parameter(query, name),
            None => Ok(None),
        }
    }
}

/// A parameter of a query string. `+` is itself: base64 has it.
fn parameter(query: &str, name: &str) -> Result<Option<String>, Refusal> {
    let decode = |text| -> Result<Cow<'_, str>, Refusal> {
        percent_decode_str(text).decode_utf8().map_err(|_| Refusal::Unreadable)
    };
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if decode(key)?.eq_ignore_ascii_case(name) {
            return Ok(Some(decode(value)?.into_owned()));
        }
    }
    Ok(None)
}

/// What an authorizer is asked about a client; `connection_id` tells one from another.
pub fn question(presented: &Presented, token: &Token, connection_id: &str) -> Value {
    let mut data = Map::new();
    if let Some(tls) = &presented.tls {
        let name = tls.server_name.as_ref();
        data.insert("tls".into(), name.map_or(json!({}), |name| json!({ "serverName": name })));
    }
    if let Some(http) = &presented.http {
        let query = match http.query.as_str() {
            "" => String::new(),
            query => format!("?{query}"),
        };
        data.insert("http".into(), json!({ "headers": headers(http), "queryString": query }));
    }
    if let Some(mqtt) = &presented.mqtt {
        let mut of_mqtt = Map::new();
        if let Some(username) = &mqtt.username {
            of_mqtt.insert("username".into(), username.as_str().into());
        }
        if let Some(password) = &mqtt.password {
            of_mqtt.insert("password".into(), STANDARD.encode(password).into());
        }
        of_mqtt.insert("clientId".into(), mqtt.client_id.as_str().into());
        data.insert("mqtt".into(), of_mqtt.into());
    }
    let protocols: Vec<&String> = data.keys().collect();
    let mut question = json!({
        "signatureVerified": token.is_verified,
        "protocols": protocols,
        "protocolData": data,
        "connectionMetadata": { "id": connection_id },
    });
    if let Some(text) = &token.text {
        question["token"] = text.as_str().into();
    }
    question
}

/// By name; what is there several times is one value with commas.
fn headers(http: &Http) -> Map<String, Value> {
    let mut headers: Map<String, Value> = Map::new();
    for (name, value) in &http.headers {
        let name = name.to_ascii_lowercase();
        let value = match headers.get(&name).and_then(Value::as_str) {
            Some(before) => format!("{before},{value}"),
            None => value.clone(),
        };
        headers.insert(name, value.into());
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_mqtt(username: &str) -> Presented {
        let mqtt = Mqtt {
            username: Some(username.into()),
            password: Some(b"secret".to_vec()),
            client_id: "lamp".into(),
        };
        Presented { mqtt: Some(mqtt), ..Presented::default() }
    }

    fn by_http(headers: &[(&str, &str)], query: &str) -> Presented {
        let headers = headers.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        let http = Http { headers: headers.collect(), query: query.into() };
        Presented { http: Some(http), ..Presented::default() }
    }

    #[test]
    fn a_user_name_may_carry_a_query() {
        for (username, name) in [
            ("user", Ok(None)),
            ("user?SDK=Python&Version=1", Ok(None)),
            ("user?x-amz-customauthorizer-name=A", Ok(Some("A"))),
            ("?x-amz-customauthorizer-name=A&token=t", Ok(Some("A"))),
            ("u?token=t&X-Amz-CustomAuthorizer-Name=A", Ok(Some("A"))),
            ("u?x-amz-customauthorizer-name=A%40b+c", Ok(Some("A@b+c"))),
            ("u?x-amz-customauthorizer-name=", Ok(Some(""))),
            ("u?x-amz-customauthorizer-name", Ok(Some(""))),
            ("u?x-amz-customauthorizer-name=A?b=c", Ok(Some("A?b=c"))),
            ("u?x-amz-customauthorizer-name=A&x-amz-customauthorizer-name=B", Ok(Some("A"))),
            ("x-amz-customauthorizer-name=A", Ok(None)),
            ("u?x-amz-customauthorizer-name=%ff", Err(Refusal::Unreadable)),
            ("u?%ff=1&x-amz-customauthorizer-name=A", Err(Refusal::Unreadable)),
        ] {
            let found = by_mqtt(username).authorizer();
            assert_eq!(found, name.map(|name| name.map(ToOwned::to_owned)), "{username}");
        }
        assert_eq!(Presented::default().authorizer(), Ok(None));
    }

    #[test]
    fn a_header_comes_before_the_query_and_that_before_the_user_name() {
        let name = |presented: &Presented| presented.authorizer().unwrap();
        let header = [("X-Amz-Customauthorizer-Name", "header")];
        let query = "a=1&x-amz-customauthorizer-name=query";
        let mqtt = by_mqtt("u?x-amz-customauthorizer-name=user").mqtt;
        assert_eq!(name(&by_http(&header, query)).as_deref(), Some("header"));
        let both = Presented { mqtt, ..by_http(&[], query) };
        assert_eq!(name(&both).as_deref(), Some("query"));
        let both = Presented { http: by_http(&[], "a=1").http, ..both };
        assert_eq!(name(&both).as_deref(), Some("user"));
    }

    #[test]
    fn a_token_counts_with_its_signature_or_where_none_is_wanted() {
        let presented = by_mqtt("u?token=t&x-amz-customauthorizer-signature=c2ln");
        let token = |key: Option<&str>, text: Option<&str>| {
            let found = presented.token(key, None).unwrap();
            assert_eq!(found, Token { text: text.map(Into::into), is_verified: false });
        };
        token(Some("token"), Some("t"));
        token(Some("other"), None);
        token(None, None);
        for (username, refusal) in [
            ("u", Refusal::NoToken),
            ("u?token=", Refusal::NoToken),
            ("u?x-amz-customauthorizer-signature=c2ln", Refusal::NoToken),
            ("u?token=t", Refusal::NoSignature),
            ("u?token=t&x-amz-customauthorizer-signature=", Refusal::NoSignature),
            ("u?token=t&x-amz-customauthorizer-signature=c2ln", Refusal::BadSignature),
        ] {
            let refused = by_mqtt(username).token(Some("token"), Some(&[]));
            assert_eq!(refused.unwrap_err(), refusal, "{username}");
        }
    }

    #[test]
    fn a_web_token_comes_as_token_or_password() {
        let token = |text: Option<&str>| Token { text: text.map(Into::into), is_verified: false };
        let (mqtt, http) = (by_mqtt("user"), by_http(&[], ""));
        for (presented, given, expected) in [
            (&mqtt, Some("a.b.c"), Some("a.b.c")),
            (&mqtt, Some("Bearer a.b.c"), Some("a.b.c")),
            (&http, Some("bearer a.b.c"), Some("a.b.c")),
            (&http, Some("BEARER  a.b.c"), Some("a.b.c")),
            (&http, Some("Basic a.b.c"), Some("Basic a.b.c")),
            (&http, Some("Bearera.b.c"), Some("Bearera.b.c")),
            (&http, Some("ßearer a.b.c"), Some("ßearer a.b.c")),
            (&http, Some("bearer"), Some("bearer")),
            (&mqtt, None, Some("secret")),
            (&mqtt, Some(""), None),
            (&http, Some("Bearer "), None),
            (&http, None, None),
        ] {
            assert_eq!(presented.web_token(&token(given)), expected, "{given:?}");
        }
    }

    #[test]
    fn an_authorizer_is_told_what_was_spoken() {
        let token = Token { text: Some("t".into()), is_verified: true };
        let none = Token { text: None, is_verified: false };
        let tls = Some(Tls { server_name: Some("iot.example".into()) });
        let http = by_http(&[("Host", "h"), ("X-A", "1"), ("x-a", "2")], "k=v").http;
        let all = Presented { tls, http, ..by_mqtt("user") };
        let expected = json!({
            "signatureVerified": true,
            "protocols": ["tls", "http", "mqtt"],
            "protocolData": {
                "tls": { "serverName": "iot.example" },
                "http": { "headers": { "host": "h", "x-a": "1,2" }, "queryString": "?k=v" },
                "mqtt": { "username": "user", "password": "c2VjcmV0", "clientId": "lamp" },
            },
            "connectionMetadata": { "id": "1" },
            "token": "t",
        });
        assert_eq!(question(&all, &token, "1"), expected);
        let mqtt = Mqtt { client_id: "lamp".into(), ..Mqtt::default() };
        let least = Presented { mqtt: Some(mqtt), ..Presented::default() };
        let expected = json!({
            "signatureVerified": false,
            "protocols": ["mqtt"],
            "protocolData": { "mqtt": { "clientId": "lamp" } },
            "connectionMetadata": { "id": "2" },
        });
        assert_eq!(question(&least, &none, "2"), expected);
        assert_eq!(all.bytes(), 4 + 1 + 4 * 2 + 3 + 4 + 6 + 4);
        for shown in [format!("{all:?}"), format!("{token:?}")] {
            assert!(!shown.contains("secret") && !shown.contains("\"t\""), "{shown}");
        }
    }
}
