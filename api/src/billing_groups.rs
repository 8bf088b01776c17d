//! Billing groups and what is in them.

use fleet::registry::{
    BillingGroup, BillingGroupCommand, BillingGroupName, Command, Outcome, Registry, ThingName,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::arn::Arns;
use crate::paging::NEXT_TOKEN;
use crate::request::{Call, Tag, tags};
use crate::service::{Api, Reply};
use crate::{Backend, Error};

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Body {
    billing_group_properties: Option<Properties>,
    expected_version: Option<u64>,
    tags: Option<Vec<Tag>>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Properties {
    billing_group_description: Option<String>,
}

/// Who is to be where.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Membership {
    billing_group_name: Option<String>,
    billing_group_arn: Option<String>,
    thing_name: Option<String>,
    thing_arn: Option<String>,
}

impl Membership {
    fn names(self, arns: &Arns) -> Result<(BillingGroupName, ThingName), Error> {
        let (name, arn) = (self.billing_group_name, self.billing_group_arn);
        let group = arns.name_or_arn("billinggroup", name, arn)?;
        let thing = arns.name_or_arn("thing", self.thing_name, self.thing_arn)?;
        Ok((BillingGroupName::new(&group)?, ThingName::new(&thing)?))
    }
}

pub(crate) async fn create<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let group = BillingGroupName::new(call.label(0))?;
    let body: Body = call.json()?;
    let outcome = api
        .propose(Command::BillingGroup(BillingGroupCommand::Create {
            group: group.clone(),
            id: Uuid::new_v4(),
            description: body
                .billing_group_properties
                .unwrap_or_default()
                .billing_group_description,
            tags: body.tags.map(tags).transpose()?.unwrap_or_default(),
            at: call.now,
        }))
        .await?;
    let Outcome::Group { id, .. } = outcome else { return Err(Error::Internal) };
    Ok(Reply::Json(json!({
        "billingGroupName": group,
        "billingGroupArn": api.arns.billing_group(&group),
        "billingGroupId": id,
    })))
}

pub(crate) async fn describe<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let name = BillingGroupName::new(call.label(0))?;
    let arns = api.arns.clone();
    let described = api.read(move |registry| Ok(description(find(registry, &name)?, &arns)));
    Ok(Reply::Json(described.await?))
}

pub(crate) async fn update<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let group = BillingGroupName::new(call.label(0))?;
    let body: Body = call.json()?;
    let missing = || Error::Invalid("the member billingGroupProperties is missing".into());
    let given = body.billing_group_properties.ok_or_else(missing)?;
    let outcome = api
        .propose(Command::BillingGroup(BillingGroupCommand::Update {
            group,
            description: given.billing_group_description,
            expected_version: body.expected_version,
        }))
        .await?;
    let Outcome::Group { version, .. } = outcome else { return Err(Error::Internal) };
    Ok(Reply::Json(json!({ "version": version })))
}

pub(crate) async fn delete<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let group = BillingGroupName::new(call.label(0))?;
    let expected_version = call.number("expectedVersion", 0..=u64::MAX)?;
    let command = BillingGroupCommand::Delete { group, expected_version };
    api.propose(Command::BillingGroup(command)).await?;
    Ok(Reply::Empty)
}

pub(crate) async fn list<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let prefix = call.query("namePrefixFilter").unwrap_or_default().to_owned();
    let arns = api.arns.clone();
    api.list(NEXT_TOKEN.read(call)?, "billingGroups", move |registry, paging| {
        let groups = registry.billing_groups(&prefix, paging);
        Ok(groups.map(
            |group| json!({ "groupName": group.name, "groupArn": arns.billing_group(&group.name) }),
        ))
    })
    .await
}

pub(crate) async fn things<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let group = BillingGroupName::new(call.label(0))?;
    api.list(NEXT_TOKEN.read(call)?, "things", move |registry, paging| {
        find(registry, &group)?;
        let things = registry.things_of_billing_group(group.as_str(), paging);
        Ok(things.map(|thing| thing.as_str().into()))
    })
    .await
}

pub(crate) async fn add<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let (group, thing) = call.json::<Membership>()?.names(&api.arns)?;
    api.propose(Command::BillingGroup(BillingGroupCommand::Add { group, thing })).await?;
    Ok(Reply::Empty)
}

pub(crate) async fn remove<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let (group, thing) = call.json::<Membership>()?.names(&api.arns)?;
    api.propose(Command::BillingGroup(BillingGroupCommand::Remove { group, thing })).await?;
    Ok(Reply::Empty)
}

/// A billing group as DescribeBillingGroup answers.
pub(crate) fn description(group: &BillingGroup, arns: &Arns) -> Value {
    let mut properties = json!({});
    if let Some(description) = &group.description {
        properties["billingGroupDescription"] = description.as_str().into();
    }
    json!({
        "billingGroupName": group.name,
        "billingGroupId": group.id,
        "billingGroupArn": arns.billing_group(&group.name),
        "version": group.version,
        "billingGroupProperties": properties,
        "billingGroupMetadata": { "creationDate": group.created.seconds() },
    })
}

fn find<'a>(registry: &'a Registry, name: &BillingGroupName) -> Result<&'a BillingGroup, Error> {
    let missing = || Error::NotFound(format!("Billing group {name} not found"));
    registry.billing_group(name.as_str()).ok_or_else(missing)
}
