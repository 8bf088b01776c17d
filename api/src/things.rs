//! Things.

use fleet::registry::{
    AttributePatch, Attributes, BillingGroupName, Command, Outcome, Thing, ThingFilter, ThingName,
    ThingTypeName,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::arn::Arns;
use crate::paging::NEXT_TOKEN;
use crate::request::Call;
use crate::service::{Api, Reply};
use crate::{Backend, Error};

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Create {
    thing_type_name: Option<String>,
    attribute_payload: Option<AttributePayload>,
    billing_group_name: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct AttributePayload {
    attributes: Option<Attributes>,
    merge: Option<bool>,
}

impl AttributePayload {
    /// What it changes; nothing without attributes.
    pub(crate) fn patch(self) -> Option<AttributePatch> {
        let merge = self.merge.unwrap_or(false);
        Some(AttributePatch { attributes: self.attributes?, merge })
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Update {
    thing_type_name: Option<String>,
    attribute_payload: Option<AttributePayload>,
    expected_version: Option<u64>,
    remove_thing_type: Option<bool>,
}

pub(crate) async fn create<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let thing = ThingName::new(call.label(0))?;
    let body: Create = call.json()?;
    let billing_group =
        body.billing_group_name.as_deref().map(BillingGroupName::new).transpose()?;
    let attributes = body.attribute_payload.and_then(|payload| payload.attributes);
    let outcome = api
        .propose(Command::CreateThing {
            thing: thing.clone(),
            id: Uuid::new_v4(),
            thing_type: type_name(body.thing_type_name)?,
            attributes: attributes.unwrap_or_default(),
            billing_group,
            at: call.now,
        })
        .await?;
    let Outcome::Thing { id, .. } = outcome else {
        return Err(Error::Internal);
    };
    Ok(Reply::Json(json!({
        "thingName": thing,
        "thingArn": api.arns.thing(&thing),
        "thingId": id,
    })))
}

pub(crate) async fn describe<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let name = ThingName::new(call.label(0))?;
    let arns = api.arns.clone();
    let described = api.read(move |registry| {
        let thing = registry.thing(name.as_str()).ok_or_else(|| not_found(&name))?;
        Ok(description(thing, &arns))
    });
    Ok(Reply::Json(described.await?))
}

pub(crate) async fn update<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let body: Update = call.json()?;
    let patch = body.attribute_payload.and_then(AttributePayload::patch);
    api.propose(Command::UpdateThing {
        thing: ThingName::new(call.label(0))?,
        attributes: patch,
        thing_type: type_name(body.thing_type_name)?,
        remove_thing_type: body.remove_thing_type.unwrap_or(false),
        expected_version: body.expected_version,
    })
    .await?;
    Ok(Reply::Empty)
}

pub(crate) async fn delete<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let thing = ThingName::new(call.label(0))?;
    let expected_version = call.number("expectedVersion", 0..=u64::MAX)?;
    api.propose(Command::DeleteThing { thing, expected_version }).await?;
    Ok(Reply::Empty)
}

pub(crate) async fn list<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let cursor = NEXT_TOKEN.read(call)?;
    let text = |name| call.query(name).map(ToOwned::to_owned);
    let filter = ThingFilter {
        thing_type: text("thingTypeName"),
        attribute_name: text("attributeName"),
        attribute_value: text("attributeValue"),
        value_is_prefix: call.flag("usePrefixAttributeValue")?,
    };
    let arns = api.arns.clone();
    api.list(cursor, "things", move |registry, paging| {
        Ok(registry.things(&filter, paging).map(|thing| summary(thing, &arns)))
    })
    .await
}

pub(crate) fn not_found(name: &ThingName) -> Error {
    Error::NotFound(format!("Thing {name} not found"))
}

/// A thing as DescribeThing answers.
pub(crate) fn description(thing: &Thing, arns: &Arns) -> Value {
    let mut described = summary(thing, arns);
    described["thingId"] = thing.id.to_string().into();
    described["defaultClientId"] = thing.name.as_str().into();
    if let Some(group) = &thing.billing_group {
        described["billingGroupName"] = group.as_str().into();
    }
    described
}

fn summary(thing: &Thing, arns: &Arns) -> Value {
    let mut summary = json!({
        "thingName": thing.name,
        "thingArn": arns.thing(&thing.name),
        "attributes": *thing.attributes,
        "version": thing.version,
    });
    if let Some(thing_type) = &thing.thing_type {
        summary["thingTypeName"] = thing_type.as_str().into();
    }
    summary
}

fn type_name(name: Option<String>) -> Result<Option<ThingTypeName>, Error> {
    Ok(name.map(|name| ThingTypeName::new(&name)).transpose()?)
}
