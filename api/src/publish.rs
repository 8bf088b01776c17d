//! Publishing over HTTP.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use policy::Action;
use serde_json::{Value, json};

use crate::backend::PublishRequest;
use crate::properties::Properties;
use crate::request::Call;
use crate::service::{Api, Reply};
use crate::{Backend, Error};

const USER_PROPERTIES: &str = "x-amz-mqtt5-user-properties";
const PAYLOAD_FORMAT: &str = "x-amz-mqtt5-payload-format-indicator";
const CORRELATION_DATA: &str = "x-amz-mqtt5-correlation-data";

pub(crate) async fn publish<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let publication = read(call)?;
    let resource = format!("topic/{}", publication.topic);
    api.authorize(call, Action::Publish, resource.clone()).await?;
    if publication.retain {
        api.authorize(call, Action::RetainPublish, resource).await?;
    }
    api.backend.publish(publication).await?;
    Ok(Reply::Json(json!({ "message": "OK", "traceId": call.trace })))
}

fn read(call: &Call) -> Result<PublishRequest, Error> {
    let topic = call.label(0);
    check_topic("topic", topic)?;
    let qos = call.number("qos", 0..=1)?.unwrap_or(0);
    let properties = properties(call)?;
    let encoded = properties.encode().map_err(|error| Error::Invalid(error.to_string()))?;
    let expiry = call.number("messageExpiry", 0..=u64::from(u32::MAX))?;
    Ok(PublishRequest {
        topic: topic.to_owned(),
        payload: call.body.clone(),
        qos: u8::from(qos == 1),
        retain: call.flag("retain")?,
        properties: encoded,
        // Some SDKs write 0 for "not given".
        expiry_secs: expiry.and_then(|seconds| u32::try_from(seconds).ok()).filter(|s| *s > 0),
    })
}

fn properties(call: &Call) -> Result<Properties, Error> {
    let response_topic = call.query("responseTopic");
    if let Some(topic) = response_topic {
        check_topic("responseTopic", topic)?;
    }
    let is_utf8 = match call.header(PAYLOAD_FORMAT)? {
        None => None,
        Some("UNSPECIFIED_BYTES") => Some(false),
        Some("UTF8_DATA") if std::str::from_utf8(&call.body).is_err() => {
            return Err(Error::Invalid("the payload is said to be UTF8_DATA and is not".into()));
        }
        Some("UTF8_DATA") => Some(true),
        Some(other) => {
            return Err(Error::Invalid(format!(
                "{PAYLOAD_FORMAT} must be UNSPECIFIED_BYTES or UTF8_DATA, not '{other}'"
            )));
        }
    };
    Ok(Properties {
        is_utf8,
        content_type: call.query("contentType").map(ToOwned::to_owned),
        response_topic: response_topic.map(ToOwned::to_owned),
        correlation_data: base64_header(call, CORRELATION_DATA)?,
        user_properties: match base64_header(call, USER_PROPERTIES)? {
            Some(json) => user_properties(&json)?,
            None => Vec::new(),
        },
    })
}

/// The SDKs encode a JSON value; when it was given to them as text, that is JSON within JSON.
fn user_properties(json: &[u8]) -> Result<Vec<(String, String)>, Error> {
    let inner = match serde_json::from_slice(json) {
        Ok(Value::String(inner)) => inner.into_bytes(),
        _ => json.to_vec(),
    };
    Properties::parse_user_properties(&inner)
        .map_err(|error| Error::Invalid(format!("{USER_PROPERTIES}: {error}")))
}

fn base64_header(call: &Call, name: &str) -> Result<Option<Vec<u8>>, Error> {
    let Some(text) = call.header(name)? else {
        return Ok(None);
    };
    let decoded = STANDARD.decode(text);
    decoded.map(Some).map_err(|_| Error::Invalid(format!("the header {name} is not base64")))
}

fn check_topic(what: &str, name: &str) -> Result<(), Error> {
    topic::validate_name(name).map_err(|error| Error::Invalid(format!("{what}: {error}")))
}
