//! Dynamic thing groups, whose things a query finds. Without an index there is nothing to ask, so
//! requests for them are checked as any, and then refused.

use fleet::registry::{Rejection, ThingGroupName};
use schemars::JsonSchema;
use serde::Deserialize;
use uuid::Uuid;

use crate::request::{Call, Tag, tags};
use crate::service::{Api, Reply};
use crate::thing_groups::Properties;
use crate::{Backend, Error};

/// The only index that AWS takes queries of groups for, and the only language of these.
const INDEX: &str = "AWS_Things";
const QUERY_VERSION: &str = "2017-09-30";

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Body {
    thing_group_properties: Option<Properties>,
    #[expect(dead_code, reason = "no dynamic group has a version, so that only its form counts")]
    expected_version: Option<u64>,
    index_name: Option<String>,
    query_string: Option<String>,
    query_version: Option<String>,
    tags: Option<Vec<Tag>>,
}

impl Body {
    fn check_query(&self) -> Result<(), Error> {
        let invalid = |message: String| Err(Error::Invalid(message));
        match (self.index_name.as_deref(), self.query_version.as_deref()) {
            (Some(name), _) if name != INDEX => {
                invalid(format!("indexName must be {INDEX}, not '{name}'"))
            }
            (_, Some(version)) if version != QUERY_VERSION => {
                invalid(format!("queryVersion must be {QUERY_VERSION}, not '{version}'"))
            }
            _ if self.query_string.as_deref().is_some_and(str::is_empty) => {
                invalid("queryString is empty".into())
            }
            _ => Ok(()),
        }
    }
}

pub(crate) async fn create<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let name = ThingGroupName::new(call.label(0))?;
    let body: Body = call.json()?;
    if body.query_string.is_none() {
        return Err(missing("queryString"));
    }
    body.check_query()?;
    check(api, body.thing_group_properties.unwrap_or_default())?;
    body.tags.map(tags).transpose()?;
    if let Some(group) = found(api, &name).await? {
        return Err(Error::rejected(
            Rejection::ThingGroupExists { group: name, id: group },
            &api.arns,
        ));
    }
    Err(not_ready(&name))
}

pub(crate) async fn update<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let name = ThingGroupName::new(call.label(0))?;
    let body: Body = call.json()?;
    body.check_query()?;
    check(api, body.thing_group_properties.ok_or_else(|| missing("thingGroupProperties"))?)?;
    match found(api, &name).await? {
        Some(_) => Err(is_static(&name, "UpdateThingGroup")),
        None => Err(not_ready(&name)),
    }
}

/// Deleting what is not there succeeds.
pub(crate) async fn delete<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let name = ThingGroupName::new(call.label(0))?;
    call.number("expectedVersion", 0..=u64::MAX)?;
    match found(api, &name).await? {
        Some(_) => Err(is_static(&name, "DeleteThingGroup")),
        None => Ok(Reply::Empty),
    }
}

/// The id of the group with this name; there are none but static ones.
async fn found<B: Backend>(api: &Api<B>, name: &ThingGroupName) -> Result<Option<Uuid>, Error> {
    let name = name.clone();
    api.read(move |registry| Ok(registry.thing_group(name.as_str()).map(|group| group.id))).await
}

fn check<B: Backend>(api: &Api<B>, given: Properties) -> Result<(), Error> {
    given.of_new().check().map_err(|rejection| Error::rejected(rejection, &api.arns))
}

fn missing(member: &str) -> Error {
    Error::Invalid(format!("the member {member} is missing"))
}

fn is_static(name: &ThingGroupName, operation: &str) -> Error {
    Error::Invalid(format!("the thing group {name} is static, which {operation} is for"))
}

fn not_ready(name: &ThingGroupName) -> Error {
    Error::IndexNotReady(format!(
        "there is no index {INDEX} that the dynamic thing group {name} could ask: fleet indexing \
         is not part of this build"
    ))
}
