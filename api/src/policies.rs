//! Policies and their versions.

use std::collections::BTreeMap;

use fleet::registry::{Command, Outcome, Policy, PolicyName, Registry};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::arn::Arns;
use crate::paging::MARKER;
use crate::request::{Call, Tag, tags};
use crate::service::{Api, Reply};
use crate::{Backend, Error};

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Body {
    policy_document: Option<String>,
    tags: Option<Vec<Tag>>,
}

pub(crate) async fn create<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let policy = PolicyName::new(call.label(0))?;
    let body: Body = call.json()?;
    let document = document(body.policy_document)?;
    let outcome = api
        .propose(Command::CreatePolicy {
            policy: policy.clone(),
            document: document.clone(),
            tags: body.tags.map_or_else(|| Ok(BTreeMap::new()), tags)?,
            generation: Uuid::new_v4(),
            at: call.now,
        })
        .await?;
    let (version, _) = created(outcome)?;
    Ok(Reply::Json(json!({
        "policyName": policy,
        "policyArn": api.arns.policy(&policy),
        "policyDocument": document,
        "policyVersionId": version.to_string(),
    })))
}

pub(crate) async fn get<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let name = PolicyName::new(call.label(0))?;
    let arns = api.arns.clone();
    let policy = api.read(move |registry| Ok(description(find(registry, &name)?, &arns)));
    Ok(Reply::Json(policy.await?))
}

pub(crate) async fn delete<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let policy = PolicyName::new(call.label(0))?;
    api.propose(Command::DeletePolicy { policy }).await?;
    Ok(Reply::Empty)
}

pub(crate) async fn list<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let cursor = MARKER.read(call)?;
    let arns = api.arns.clone();
    api.list(cursor, "policies", move |registry, paging| {
        Ok(registry.policies(paging).map(|policy| summary(policy, &arns)))
    })
    .await
}

pub(crate) async fn create_version<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let policy = PolicyName::new(call.label(0))?;
    let document = document(call.json::<Body>()?.policy_document)?;
    let outcome = api
        .propose(Command::CreatePolicyVersion {
            policy: policy.clone(),
            document: document.clone(),
            set_as_default: call.flag("setAsDefault")?,
            at: call.now,
        })
        .await?;
    let (version, is_default) = created(outcome)?;
    Ok(Reply::Json(json!({
        "policyArn": api.arns.policy(&policy),
        "policyDocument": document,
        "policyVersionId": version.to_string(),
        "isDefaultVersion": is_default,
    })))
}

pub(crate) async fn get_version<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let name = PolicyName::new(call.label(0))?;
    let id = version_id(call)?;
    let arns = api.arns.clone();
    let version = api.read(move |registry| {
        let policy = find(registry, &name)?;
        let missing = || Error::NotFound(format!("Policy {name} has no version {id}"));
        let version = policy.versions.get(&id).ok_or_else(missing)?;
        let mut described = summary(policy, &arns);
        described["policyDocument"] = (&*version.document).into();
        described["policyVersionId"] = id.to_string().into();
        described["isDefaultVersion"] = (id == policy.default_version).into();
        described["creationDate"] = version.created.seconds().into();
        described["lastModifiedDate"] = version.created.seconds().into();
        described["generationId"] = policy.generation.to_string().into();
        Ok(described)
    });
    Ok(Reply::Json(version.await?))
}

pub(crate) async fn set_default_version<B: Backend>(
    api: &Api<B>,
    call: &Call,
) -> Result<Reply, Error> {
    let policy = PolicyName::new(call.label(0))?;
    let version = version_id(call)?;
    api.propose(Command::SetDefaultPolicyVersion { policy, version, at: call.now }).await?;
    Ok(Reply::Empty)
}

pub(crate) async fn delete_version<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let policy = PolicyName::new(call.label(0))?;
    let version = version_id(call)?;
    api.propose(Command::DeletePolicyVersion { policy, version, at: call.now }).await?;
    Ok(Reply::Empty)
}

/// The newest version comes first.
pub(crate) async fn list_versions<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let name = PolicyName::new(call.label(0))?;
    let versions = api.read(move |registry| {
        let policy = find(registry, &name)?;
        let version = |(id, version): (&u64, &fleet::registry::PolicyVersion)| {
            json!({
                "versionId": id.to_string(),
                "isDefaultVersion": *id == policy.default_version,
                "createDate": version.created.seconds(),
            })
        };
        Ok(policy.versions.iter().rev().map(version).collect::<Vec<_>>())
    });
    Ok(Reply::Json(json!({ "policyVersions": versions.await? })))
}

/// A policy as GetPolicy answers.
pub(crate) fn description(policy: &Policy, arns: &Arns) -> Value {
    let mut described = summary(policy, arns);
    described["policyDocument"] = (&**policy.default_document()).into();
    described["defaultVersionId"] = policy.default_version.to_string().into();
    described["creationDate"] = policy.created.seconds().into();
    described["lastModifiedDate"] = policy.modified.seconds().into();
    described["generationId"] = policy.generation.to_string().into();
    described
}

/// A policy in a list.
pub(crate) fn summary(policy: &Policy, arns: &Arns) -> Value {
    json!({ "policyName": policy.name, "policyArn": arns.policy(&policy.name) })
}

pub(crate) fn find<'a>(registry: &'a Registry, name: &PolicyName) -> Result<&'a Policy, Error> {
    let missing = || Error::NotFound(format!("Policy {name} not found"));
    registry.policy(name.as_str()).ok_or_else(missing)
}

fn created(outcome: Outcome) -> Result<(u64, bool), Error> {
    match outcome {
        Outcome::PolicyVersion { version, is_default } => Ok((version, is_default)),
        _ => Err(Error::Internal),
    }
}

fn document(member: Option<String>) -> Result<String, Error> {
    member.ok_or_else(|| Error::Invalid("the member policyDocument is missing".into()))
}

fn version_id(call: &Call) -> Result<u64, Error> {
    let text = call.label(1);
    let invalid = || Error::Invalid(format!("policyVersionId must be a number, not '{text}'"));
    text.parse().map_err(|_| invalid())
}
