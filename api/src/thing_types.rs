//! Thing types.

use std::collections::BTreeMap;

use fleet::registry::{
    Command, DEPRECATED_FOR_MS, Outcome, PropagatedFrom, PropagatingAttribute, ThingType,
    ThingTypeName, ThingTypePatch, ThingTypeProperties,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::arn::Arns;
use crate::paging::NEXT_TOKEN;
use crate::request::{Call, Tag, tags};
use crate::service::{Api, Reply};
use crate::{Backend, Error};

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Body {
    thing_type_properties: Option<Properties>,
    tags: Option<Vec<Tag>>,
    undo_deprecate: Option<bool>,
}

#[derive(Deserialize, Default, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Properties {
    thing_type_description: Option<String>,
    searchable_attributes: Option<Vec<String>>,
    mqtt5_configuration: Option<Mqtt5Configuration>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Mqtt5Configuration {
    propagating_attributes: Option<Vec<Propagating>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Propagating {
    user_property_key: String,
    thing_attribute: Option<String>,
    connection_attribute: Option<String>,
}

impl Properties {
    fn patch(self) -> Result<ThingTypePatch, Error> {
        let propagating = self.mqtt5_configuration.map(|configuration| {
            configuration.propagating_attributes.unwrap_or_default().into_iter().map(|attribute| {
                let source = match (attribute.thing_attribute, attribute.connection_attribute) {
                    (Some(name), None) => PropagatedFrom::ThingAttribute(name),
                    (None, Some(name)) => PropagatedFrom::ConnectionAttribute(name),
                    _ => {
                        return Err(Error::Invalid(format!(
                            "the propagating attribute '{}' needs either thingAttribute or \
                             connectionAttribute",
                            attribute.user_property_key
                        )));
                    }
                };
                Ok(PropagatingAttribute { user_property_key: attribute.user_property_key, source })
            })
        });
        Ok(ThingTypePatch {
            description: self.thing_type_description,
            searchable_attributes: self.searchable_attributes,
            propagating_attributes: propagating.map(Iterator::collect).transpose()?,
        })
    }
}

pub(crate) async fn create<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let thing_type = ThingTypeName::new(call.label(0))?;
    let body: Body = call.json()?;
    let given = body.thing_type_properties.unwrap_or_default().patch()?;
    let properties = ThingTypeProperties {
        description: given.description,
        searchable_attributes: given.searchable_attributes.unwrap_or_default(),
        propagating_attributes: given.propagating_attributes.unwrap_or_default(),
    };
    let outcome = api
        .propose(Command::CreateThingType {
            thing_type: thing_type.clone(),
            id: Uuid::new_v4(),
            properties,
            tags: body.tags.map_or_else(|| Ok(BTreeMap::new()), tags)?,
            at: call.now,
        })
        .await?;
    let Outcome::ThingType { id } = outcome else {
        return Err(Error::Internal);
    };
    Ok(Reply::Json(json!({
        "thingTypeName": thing_type,
        "thingTypeArn": api.arns.thing_type(&thing_type),
        "thingTypeId": id,
    })))
}

pub(crate) async fn describe<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let name = ThingTypeName::new(call.label(0))?;
    let arns = api.arns.clone();
    let described = api.read(move |registry| {
        let missing = || Error::NotFound(format!("Thing type {name} not found"));
        let found = registry.thing_type(name.as_str()).ok_or_else(missing)?;
        Ok(description(found, &arns))
    });
    Ok(Reply::Json(described.await?))
}

pub(crate) async fn update<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let thing_type = ThingTypeName::new(call.label(0))?;
    let body: Body = call.json()?;
    let patch = body.thing_type_properties.unwrap_or_default().patch()?;
    api.propose(Command::UpdateThingType { thing_type, patch }).await?;
    Ok(Reply::Empty)
}

pub(crate) async fn deprecate<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let thing_type = ThingTypeName::new(call.label(0))?;
    let undo = call.json::<Body>()?.undo_deprecate.unwrap_or(false);
    api.propose(Command::DeprecateThingType { thing_type, undo, at: call.now }).await?;
    Ok(Reply::Empty)
}

pub(crate) async fn delete<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let thing_type = ThingTypeName::new(call.label(0))?;
    let least = u64::try_from(api.thing_types_deprecated_for.as_millis()).unwrap_or(u64::MAX);
    let deprecated_for_ms = Some(least).filter(|least| *least != DEPRECATED_FOR_MS);
    api.propose(Command::DeleteThingType { thing_type, deprecated_for_ms, at: call.now }).await?;
    Ok(Reply::Empty)
}

pub(crate) async fn list<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let cursor = NEXT_TOKEN.read(call)?;
    let only = call.query("thingTypeName").map(ToOwned::to_owned);
    let arns = api.arns.clone();
    api.list(cursor, "thingTypes", move |registry, paging| {
        Ok(registry.thing_types(only.as_deref(), paging).map(|found| definition(found, &arns)))
    })
    .await
}

/// A thing type as DescribeThingType answers.
pub(crate) fn description(thing_type: &ThingType, arns: &Arns) -> Value {
    let mut described = definition(thing_type, arns);
    described["thingTypeId"] = thing_type.id.to_string().into();
    described
}

fn definition(thing_type: &ThingType, arns: &Arns) -> Value {
    let mut metadata = json!({
        "deprecated": thing_type.deprecated.is_some(),
        "creationDate": thing_type.created.seconds(),
    });
    if let Some(deprecated) = thing_type.deprecated {
        metadata["deprecationDate"] = deprecated.seconds().into();
    }
    json!({
        "thingTypeName": thing_type.name,
        "thingTypeArn": arns.thing_type(&thing_type.name),
        "thingTypeProperties": properties(&thing_type.properties),
        "thingTypeMetadata": metadata,
    })
}

fn properties(properties: &ThingTypeProperties) -> Value {
    let mut written = Map::new();
    if let Some(description) = &properties.description {
        written.insert("thingTypeDescription".into(), description.as_str().into());
    }
    written.insert("searchableAttributes".into(), json!(properties.searchable_attributes));
    if !properties.propagating_attributes.is_empty() {
        let attributes = properties.propagating_attributes.iter().map(|attribute| {
            let (kind, name) = match &attribute.source {
                PropagatedFrom::ThingAttribute(name) => ("thingAttribute", name),
                PropagatedFrom::ConnectionAttribute(name) => ("connectionAttribute", name),
            };
            json!({ "userPropertyKey": attribute.user_property_key, kind: name })
        });
        let attributes: Vec<_> = attributes.collect();
        written.insert("mqtt5Configuration".into(), json!({ "propagatingAttributes": attributes }));
    }
    Value::Object(written)
}
