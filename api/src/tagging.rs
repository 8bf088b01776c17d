//! Tags of thing types, groups, policies and whatever else can have them.

use fleet::registry::Command;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::request::{Call, Tag, more_tags};
use crate::service::{Api, Reply};
use crate::{Backend, Error};

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Body {
    resource_arn: Option<String>,
    tags: Option<Vec<Tag>>,
    tag_keys: Option<Vec<String>>,
}

fn missing(member: &str) -> Error {
    Error::Invalid(format!("the member {member} is missing"))
}

pub(crate) async fn tag<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let body: Body = call.json()?;
    let arn = body.resource_arn.ok_or_else(|| missing("resourceArn"))?;
    let tags = more_tags(body.tags.ok_or_else(|| missing("tags"))?)?;
    api.propose(Command::Tag { resource: api.arns.parse_resource(&arn)?, tags }).await?;
    Ok(Reply::Empty)
}

pub(crate) async fn untag<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let body: Body = call.json()?;
    let arn = body.resource_arn.ok_or_else(|| missing("resourceArn"))?;
    let keys = body.tag_keys.ok_or_else(|| missing("tagKeys"))?;
    let resource = api.arns.parse_resource(&arn)?;
    api.propose(Command::Untag { resource, keys: keys.into_iter().collect() }).await?;
    Ok(Reply::Empty)
}

/// There are so few tags that they are all on one page.
pub(crate) async fn list<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let arn = call.required_query("resourceArn")?.to_owned();
    let resource = api.arns.parse_resource(&arn)?;
    let tags = api.read(move |registry| {
        let not_found = || Error::NotFound(format!("'{arn}' is not found"));
        let tags = registry.tags_of(&resource).ok_or_else(not_found)?;
        let tags = tags.iter().map(|(key, value)| json!({ "Key": key, "Value": value }));
        Ok(tags.collect::<Vec<Value>>())
    });
    Ok(Reply::Json(json!({ "tags": tags.await? })))
}
