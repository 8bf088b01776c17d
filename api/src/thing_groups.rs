//! Static thing groups and what is in them.

use std::collections::BTreeSet;

use fleet::registry::{
    Command, GroupProperties, NameError, Outcome, Registry, ThingGroup, ThingGroupCommand,
    ThingGroupFilter, ThingGroupName, ThingName,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::arn::Arns;
use crate::paging::NEXT_TOKEN;
use crate::request::{Call, Tag, tags};
use crate::service::{Api, Reply};
use crate::things::{self, AttributePayload};
use crate::{Backend, Error};

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Body {
    parent_group_name: Option<String>,
    thing_group_properties: Option<Properties>,
    expected_version: Option<u64>,
    tags: Option<Vec<Tag>>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Properties {
    thing_group_description: Option<String>,
    attribute_payload: Option<AttributePayload>,
}

impl Properties {
    /// Those of a group that is new.
    pub(crate) fn of_new(self) -> GroupProperties {
        let attributes = self.attribute_payload.and_then(AttributePayload::patch);
        GroupProperties {
            description: self.thing_group_description,
            attributes: attributes.map(|patch| patch.attributes).unwrap_or_default(),
        }
    }
}

/// Who is to be where.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Membership {
    thing_group_name: Option<String>,
    thing_group_arn: Option<String>,
    thing_name: Option<String>,
    thing_arn: Option<String>,
    thing_groups_to_add: Option<Vec<String>>,
    thing_groups_to_remove: Option<Vec<String>>,
}

impl Membership {
    fn thing(&mut self, arns: &Arns) -> Result<ThingName, Error> {
        let (name, arn) = (self.thing_name.take(), self.thing_arn.take());
        Ok(ThingName::new(&arns.name_or_arn("thing", name, arn)?)?)
    }

    fn group(&mut self, arns: &Arns) -> Result<BTreeSet<ThingGroupName>, Error> {
        let (name, arn) = (self.thing_group_name.take(), self.thing_group_arn.take());
        let name = arns.name_or_arn("thinggroup", name, arn)?;
        Ok([ThingGroupName::new(&name)?].into())
    }
}

pub(crate) async fn create<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let group = ThingGroupName::new(call.label(0))?;
    let body: Body = call.json()?;
    let outcome = api
        .propose(Command::ThingGroup(ThingGroupCommand::Create {
            group: group.clone(),
            id: Uuid::new_v4(),
            parent: body.parent_group_name.as_deref().map(ThingGroupName::new).transpose()?,
            properties: body.thing_group_properties.unwrap_or_default().of_new(),
            tags: body.tags.map(tags).transpose()?.unwrap_or_default(),
            at: call.now,
        }))
        .await?;
    let Outcome::Group { id, .. } = outcome else { return Err(Error::Internal) };
    Ok(Reply::Json(json!({
        "thingGroupName": group,
        "thingGroupArn": api.arns.thing_group(&group),
        "thingGroupId": id,
    })))
}

pub(crate) async fn describe<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let name = ThingGroupName::new(call.label(0))?;
    let arns = api.arns.clone();
    let described =
        api.read(move |registry| Ok(description(registry, find(registry, &name)?, &arns)));
    Ok(Reply::Json(described.await?))
}

pub(crate) async fn update<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let group = ThingGroupName::new(call.label(0))?;
    let body: Body = call.json()?;
    let missing = || Error::Invalid("the member thingGroupProperties is missing".into());
    let given = body.thing_group_properties.ok_or_else(missing)?;
    let outcome = api
        .propose(Command::ThingGroup(ThingGroupCommand::Update {
            group,
            description: given.thing_group_description,
            attributes: given.attribute_payload.and_then(AttributePayload::patch),
            expected_version: body.expected_version,
        }))
        .await?;
    let Outcome::Group { version, .. } = outcome else { return Err(Error::Internal) };
    Ok(Reply::Json(json!({ "version": version })))
}

pub(crate) async fn delete<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let group = ThingGroupName::new(call.label(0))?;
    let expected_version = call.number("expectedVersion", 0..=u64::MAX)?;
    let command = ThingGroupCommand::Delete { group, expected_version };
    api.propose(Command::ThingGroup(command)).await?;
    Ok(Reply::Empty)
}

pub(crate) async fn list<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let cursor = NEXT_TOKEN.read(call)?;
    let filter = ThingGroupFilter {
        parent: call.query("parentGroup").map(ThingGroupName::new).transpose()?,
        is_recursive: call.flag("recursive")?,
        prefix: call.query("namePrefixFilter").unwrap_or_default().to_owned(),
    };
    let arns = api.arns.clone();
    api.list(cursor, "thingGroups", move |registry, paging| {
        if let Some(parent) = &filter.parent {
            find(registry, parent)?;
        }
        Ok(registry.thing_groups(&filter, paging).map(|group| summary(&group.name, &arns)))
    })
    .await
}

pub(crate) async fn of_thing<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let thing = ThingName::new(call.label(0))?;
    let arns = api.arns.clone();
    api.list(NEXT_TOKEN.read(call)?, "thingGroups", move |registry, paging| {
        registry.thing(thing.as_str()).ok_or_else(|| things::not_found(&thing))?;
        Ok(registry.groups_of(thing.as_str(), paging).map(|group| summary(group, &arns)))
    })
    .await
}

pub(crate) async fn things<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let group = ThingGroupName::new(call.label(0))?;
    let recursive = call.flag("recursive")?;
    api.list(NEXT_TOKEN.read(call)?, "things", move |registry, paging| {
        find(registry, &group)?;
        let things = registry.things_of_group(&group, recursive, paging);
        Ok(things.map(|thing| thing.as_str().into()))
    })
    .await
}

pub(crate) async fn add<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let mut body: Membership = call.json()?;
    let (thing, join) = (body.thing(&api.arns)?, body.group(&api.arns)?);
    move_thing(api, thing, BTreeSet::new(), join).await
}

pub(crate) async fn remove<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let mut body: Membership = call.json()?;
    let (thing, leave) = (body.thing(&api.arns)?, body.group(&api.arns)?);
    move_thing(api, thing, leave, BTreeSet::new()).await
}

pub(crate) async fn update_of_thing<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let mut body: Membership = call.json()?;
    let thing = body.thing(&api.arns)?;
    let names = |names: Option<Vec<String>>| -> Result<BTreeSet<_>, NameError> {
        names.unwrap_or_default().iter().map(|name| ThingGroupName::new(name)).collect()
    };
    let (leave, join) = (names(body.thing_groups_to_remove)?, names(body.thing_groups_to_add)?);
    move_thing(api, thing, leave, join).await
}

async fn move_thing<B: Backend>(
    api: &Api<B>,
    thing: ThingName,
    leave: BTreeSet<ThingGroupName>,
    join: BTreeSet<ThingGroupName>,
) -> Result<Reply, Error> {
    let membership = Uuid::new_v4();
    let command = ThingGroupCommand::Move { thing, leave, join, membership };
    api.propose(Command::ThingGroup(command)).await?;
    Ok(Reply::Empty)
}

pub(crate) fn find<'a>(
    registry: &'a Registry,
    name: &ThingGroupName,
) -> Result<&'a ThingGroup, Error> {
    let missing = || Error::NotFound(format!("Thing group {name} not found"));
    registry.thing_group(name.as_str()).ok_or_else(missing)
}

/// A thing group as DescribeThingGroup answers.
pub(crate) fn description(registry: &Registry, group: &ThingGroup, arns: &Arns) -> Value {
    json!({
        "thingGroupName": group.name,
        "thingGroupId": group.id,
        "thingGroupArn": arns.thing_group(&group.name),
        "version": group.version,
        "thingGroupProperties": properties(&group.properties),
        "thingGroupMetadata": metadata(registry, group, arns),
    })
}

fn summary(group: &ThingGroupName, arns: &Arns) -> Value {
    json!({ "groupName": group, "groupArn": arns.thing_group(group) })
}

fn properties(properties: &GroupProperties) -> Value {
    let mut written = Map::new();
    if let Some(description) = &properties.description {
        written.insert("thingGroupDescription".into(), description.as_str().into());
    }
    if !properties.attributes.is_empty() {
        let payload = json!({ "attributes": properties.attributes });
        written.insert("attributePayload".into(), payload);
    }
    Value::Object(written)
}

fn metadata(registry: &Registry, group: &ThingGroup, arns: &Arns) -> Value {
    let mut metadata = json!({ "creationDate": group.created.seconds() });
    if let Some(parent) = &group.parent {
        let mut path: Vec<_> =
            registry.thing_group_path(parent).map(|above| summary(&above.name, arns)).collect();
        path.reverse();
        metadata["parentGroupName"] = parent.as_str().into();
        metadata["rootToParentThingGroups"] = path.into();
    }
    metadata
}
