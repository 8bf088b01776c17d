//! Custom authorizers: who decides about clients that show no certificate and sign nothing.

use std::collections::BTreeMap;

use authorizer::{Answer, Http, Mqtt, Presented, Refusal, SigningKey, Tls};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fleet::registry::{Authorizer, AuthorizerCommand, AuthorizerName, AuthorizerStatus, Command};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::arn::Arns;
use crate::certificates::required;
use crate::paging::MARKER;
use crate::request::{Call, Caller, Tag, tags, without_query};
use crate::service::{Api, Reply};
use crate::{Backend, Error};

/// What `authorizerFunctionArn` begins with where tokens of an issuer decide, whose name follows.
pub const JWT: &str = "jwt:";

/// Characters of an address.
const FUNCTION_CHARS: usize = 2048;
/// Characters of the name of a token, and of the name of a key.
const NAME_CHARS: usize = 128;
/// Characters of a key.
const KEY_CHARS: usize = 5120;
/// Keys of one authorizer: each is tried for each token.
const KEYS: usize = 10;

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Body {
    authorizer_function_arn: Option<String>,
    token_key_name: Option<String>,
    token_signing_public_keys: Option<BTreeMap<String, String>>,
    status: Option<String>,
    tags: Option<Vec<Tag>>,
    signing_disabled: Option<bool>,
    enable_caching_for_http: Option<bool>,
}

impl Body {
    fn status(&self) -> Result<Option<AuthorizerStatus>, Error> {
        self.status.as_deref().map(status).transpose()
    }

    fn check(&self) -> Result<(), Error> {
        if let Some(function) = &self.authorizer_function_arn {
            check_function(function)?;
        }
        if let Some(name) = &self.token_key_name
            && !is_name(name)
        {
            return Err(Error::Invalid(format!(
                "tokenKeyName must have 1 to {NAME_CHARS} characters of [a-zA-Z0-9_-]"
            )));
        }
        self.token_signing_public_keys.as_ref().map_or(Ok(()), check_keys)
    }
}

fn status(text: &str) -> Result<AuthorizerStatus, Error> {
    let all = [AuthorizerStatus::Active, AuthorizerStatus::Inactive];
    let found = all.into_iter().find(|status| status.as_str() == text);
    found.ok_or_else(|| Error::Invalid(format!("status must be ACTIVE or INACTIVE, not '{text}'")))
}

fn is_name(text: &str) -> bool {
    (1..=NAME_CHARS).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// There are no functions here: it is an address that is asked by HTTP, or names an issuer of the
/// configuration of the nodes.
fn check_function(function: &str) -> Result<(), Error> {
    let is_address = axum::http::Uri::try_from(function).is_ok_and(|uri| {
        let has_user = uri.authority().is_some_and(|it| it.as_str().contains('@'));
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some() && !has_user
    });
    let is_issuer = function.strip_prefix(JWT).is_some_and(is_name);
    if function.len() <= FUNCTION_CHARS && (is_address || is_issuer) {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "authorizerFunctionArn must be an http or https address that is asked, without a user, of at \
         most {FUNCTION_CHARS} characters, or {JWT} and the name of an issuer"
    )))
}

fn check_keys(keys: &BTreeMap<String, String>) -> Result<(), Error> {
    if keys.len() > KEYS {
        let count = keys.len();
        return Err(Error::Invalid(format!(
            "tokenSigningPublicKeys can have {KEYS} keys, not {count}"
        )));
    }
    for (name, pem) in keys {
        if !is_name(name) {
            return Err(Error::Invalid(format!(
                "the names in tokenSigningPublicKeys must have 1 to {NAME_CHARS} characters of \
                 [a-zA-Z0-9_-]"
            )));
        }
        let invalid = |why: &dyn std::fmt::Display| {
            Error::Invalid(format!("the key '{name}' of tokenSigningPublicKeys {why}"))
        };
        if pem.len() > KEY_CHARS {
            return Err(invalid(&format!("has more than {KEY_CHARS} characters")));
        }
        SigningKey::from_pem(pem).map_err(|error| invalid(&error))?;
    }
    Ok(())
}

pub(crate) async fn create<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let name = AuthorizerName::new(call.label(0))?;
    let body: Body = call.json()?;
    body.check()?;
    let authorizer = Box::new(Authorizer {
        name: name.clone(),
        status: body.status()?.unwrap_or_default(),
        function: required(body.authorizer_function_arn, "authorizerFunctionArn")?,
        token_key: body.token_key_name,
        signing_keys: body.token_signing_public_keys.unwrap_or_default(),
        signing_disabled: body.signing_disabled.unwrap_or_default(),
        caching_for_http: body.enable_caching_for_http.unwrap_or_default(),
        tags: body.tags.map(tags).transpose()?.unwrap_or_default(),
        created: call.now,
        modified: call.now,
        generation: Uuid::new_v4(),
    });
    api.propose(Command::Authorizer(AuthorizerCommand::Create { authorizer })).await?;
    Ok(named(api, &name))
}

pub(crate) async fn describe<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let found = find(api, AuthorizerName::new(call.label(0))?).await?;
    Ok(Reply::Json(described(&api.arns, &found, &call.caller)))
}

async fn find<B: Backend>(api: &Api<B>, name: AuthorizerName) -> Result<Authorizer, Error> {
    let found = api.read(move |registry| {
        let not_found = || Error::NotFound(format!("Authorizer {name} not found"));
        registry.authorizer(name.as_str()).cloned().ok_or_else(not_found)
    });
    found.await
}

fn described(arns: &Arns, authorizer: &Authorizer, caller: &Caller) -> Value {
    let mut description = description(authorizer, arns);
    if caller.only_looks() {
        description["authorizerFunctionArn"] = without_query(&authorizer.function).into();
    }
    json!({ "authorizerDescription": description })
}

pub(crate) fn description(authorizer: &Authorizer, arns: &Arns) -> Value {
    let mut description = json!({
        "authorizerName": authorizer.name,
        "authorizerArn": arns.authorizer(&authorizer.name),
        "authorizerFunctionArn": authorizer.function,
        "tokenSigningPublicKeys": authorizer.signing_keys,
        "status": authorizer.status,
        "creationDate": authorizer.created.seconds(),
        "lastModifiedDate": authorizer.modified.seconds(),
        "signingDisabled": authorizer.signing_disabled,
        "enableCachingForHttp": authorizer.caching_for_http,
    });
    if let Some(name) = &authorizer.token_key {
        description["tokenKeyName"] = name.as_str().into();
    }
    description
}

pub(crate) async fn update<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let name = AuthorizerName::new(call.label(0))?;
    let body: Body = call.json()?;
    body.check()?;
    let status = body.status()?;
    api.propose(Command::Authorizer(AuthorizerCommand::Update {
        authorizer: name.clone(),
        function: body.authorizer_function_arn,
        token_key: body.token_key_name,
        signing_keys: body.token_signing_public_keys,
        status,
        caching_for_http: body.enable_caching_for_http,
        at: call.now,
    }))
    .await?;
    Ok(named(api, &name))
}

pub(crate) async fn delete<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let authorizer = AuthorizerName::new(call.label(0))?;
    api.propose(Command::Authorizer(AuthorizerCommand::Delete { authorizer })).await?;
    Ok(Reply::Empty)
}

pub(crate) async fn list<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let status = call.query("status").map(status).transpose()?;
    let arns = api.arns.clone();
    api.list(MARKER.read(call)?, "authorizers", move |registry, paging| {
        let page = registry.authorizers(status, paging);
        Ok(page.map(|found| {
            json!({ "authorizerName": found.name, "authorizerArn": arns.authorizer(&found.name) })
        }))
    })
    .await
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DefaultBody {
    authorizer_name: Option<String>,
}

pub(crate) async fn set_default<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let body: DefaultBody = call.json()?;
    let name = AuthorizerName::new(&required(body.authorizer_name, "authorizerName")?)?;
    let authorizer = name.clone();
    api.propose(Command::Authorizer(AuthorizerCommand::SetDefault { authorizer })).await?;
    Ok(named(api, &name))
}

pub(crate) async fn describe_default<B: Backend>(
    api: &Api<B>,
    call: &Call,
) -> Result<Reply, Error> {
    let found = api.read(|registry| {
        let not_found = || Error::NotFound("There is no default authorizer".into());
        registry.default_authorizer().cloned().ok_or_else(not_found)
    });
    Ok(Reply::Json(described(&api.arns, &found.await?, &call.caller)))
}

pub(crate) async fn clear_default<B: Backend>(api: &Api<B>, _: &Call) -> Result<Reply, Error> {
    api.propose(Command::Authorizer(AuthorizerCommand::ClearDefault)).await?;
    Ok(Reply::Empty)
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TestBody {
    token: Option<String>,
    token_signature: Option<String>,
    http_context: Option<HttpContext>,
    mqtt_context: Option<MqttContext>,
    tls_context: Option<TlsContext>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HttpContext {
    #[serde(default)]
    headers: BTreeMap<String, String>,
    query_string: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MqttContext {
    username: Option<String>,
    /// In base64.
    password: Option<String>,
    client_id: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TlsContext {
    server_name: Option<String>,
}

impl TestBody {
    /// What a client would present. The token and its signature come as a header.
    fn presented(self, token_key: Option<&str>) -> Result<Presented, Error> {
        let mut http = self.http_context.map(|it| Http {
            headers: it.headers.into_iter().collect(),
            query: it.query_string.unwrap_or_default().trim_start_matches('?').to_owned(),
        });
        let mut given = Vec::new();
        if let (Some(name), Some(token)) = (token_key, self.token) {
            given.push((name.to_owned(), token));
        }
        if let Some(signature) = self.token_signature {
            given.push(("x-amz-customauthorizer-signature".to_owned(), signature));
        }
        if !given.is_empty() {
            let http = http.get_or_insert_with(Http::default);
            given.append(&mut http.headers);
            http.headers = given;
        }
        let mqtt = self.mqtt_context.map(|it| {
            let password = it.password.map(|text| STANDARD.decode(text)).transpose();
            let invalid = |_| Error::Invalid("mqttContext.password must be base64".into());
            Ok::<_, Error>(Mqtt {
                username: it.username,
                password: password.map_err(invalid)?,
                client_id: it.client_id.unwrap_or_default(),
            })
        });
        let tls = self.tls_context.map(|it| Tls { server_name: it.server_name });
        Ok(Presented { tls, http, mqtt: mqtt.transpose()? })
    }
}

pub(crate) async fn test<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let found = find(api, AuthorizerName::new(call.label(0))?).await?;
    let body: TestBody = call.json()?;
    let presented = body.presented(found.token_key.as_deref())?;
    let answer =
        api.backend.test_authorizer(found, presented).await.map_err(|no_answer| match no_answer
            .refusal
        {
            Refusal::Busy | Refusal::Unavailable => Error::Unavailable,
            Refusal::NoToken
            | Refusal::NoSignature
            | Refusal::BadSignature
            | Refusal::InvalidToken
            | Refusal::Unreadable => Error::Invalid(no_answer.to_string()),
            _ => Error::InvalidResponse(no_answer.to_string()),
        })?;
    Ok(Reply::Json(match answer {
        Answer::NotAuthenticated => json!({ "isAuthenticated": false }),
        Answer::Granted(grant) => {
            let mut granted = json!({
                "isAuthenticated": true,
                "principalId": grant.principal_id,
                "policyDocuments": grant.texts,
                "disconnectAfterInSeconds": grant.disconnect_after_secs,
            });
            if let Some(seconds) = grant.refresh_after_secs {
                granted["refreshAfterInSeconds"] = seconds.into();
            }
            granted
        }
    }))
}

fn named<B: Backend>(api: &Api<B>, name: &AuthorizerName) -> Reply {
    let arn = api.arns.authorizer(name);
    Reply::Json(json!({ "authorizerName": name, "authorizerArn": arn }))
}
