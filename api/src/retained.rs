//! Retained messages over HTTP.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use policy::Action;
use serde_json::json;

use crate::paging::{NEXT_TOKEN, Style};
use crate::properties::Properties;
use crate::request::Call;
use crate::service::{Api, Reply};
use crate::{Backend, Error};

pub(crate) const MESSAGES: Style = NEXT_TOKEN.sized("maxResults", 200, 200);

pub(crate) async fn get<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let topic = call.label(0);
    topic::validate_name(topic).map_err(|error| Error::Invalid(format!("topic: {error}")))?;
    api.authorize(call, Action::GetRetainedMessage, format!("topic/{topic}")).await?;
    let Some(message) = api.backend.retained_get(topic.to_owned()).await? else {
        return Err(Error::NotFound(format!("No retained message exists for topic: {topic}")));
    };
    let mut body = json!({
        "topic": message.topic,
        "payload": STANDARD.encode(&message.payload),
        "qos": message.qos,
        "lastModifiedTime": message.stored_at_ms,
    });
    let properties = Properties::decode(&message.properties).unwrap_or_default();
    if !properties.user_properties.is_empty() {
        let json = properties.user_properties_json().to_string();
        body["userProperties"] = STANDARD.encode(json).into();
    }
    Ok(Reply::Json(body))
}

pub(crate) async fn list<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let cursor = MESSAGES.read(call)?;
    api.authorize(call, Action::ListRetainedMessages, "*".into()).await?;
    let paging = cursor.paging.clone();
    let listed = api.backend.retained_list(paging.after, paging.limit).await?;
    let message = |message: crate::backend::RetainedSummary| {
        json!({
            "topic": message.topic,
            "payloadSize": message.payload_bytes,
            "qos": message.qos,
            "lastModifiedTime": message.stored_at_ms,
        })
    };
    let messages = listed.items.into_iter().map(message).collect();
    Ok(cursor.reply("retainedTopics", messages, listed.next))
}
