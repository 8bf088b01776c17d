//! Role aliases: under which names devices may ask for temporary credentials.

use std::ops::RangeInclusive;

use fleet::registry::{Command, LONGEST_SESSION_SECS, RoleAlias, RoleAliasCommand, RoleAliasName};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::arn::Arns;
use crate::certificates::required;
use crate::paging::MARKER;
use crate::request::{Call, Tag, tags};
use crate::service::{Api, Reply};
use crate::{Backend, Error};

/// How long credentials may be good for, in seconds.
const DURATION_SECS: RangeInclusive<u64> = 900..=LONGEST_SESSION_SECS as u64;
const DEFAULT_DURATION_SECS: u32 = 3600;
/// Characters of the ARN of a role.
const ROLE_ARN: RangeInclusive<usize> = 20..=2048;

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Body {
    role_arn: Option<String>,
    credential_duration_seconds: Option<i64>,
    tags: Option<Vec<Tag>>,
}

impl Body {
    fn duration_secs(&self) -> Result<Option<u32>, Error> {
        let Some(given) = self.credential_duration_seconds else { return Ok(None) };
        let seconds = u64::try_from(given).ok().filter(|given| DURATION_SECS.contains(given));
        let seconds = seconds.and_then(|seconds| u32::try_from(seconds).ok());
        seconds.map(Some).ok_or_else(|| {
            let (min, max) = (DURATION_SECS.start(), DURATION_SECS.end());
            Error::Invalid(format!(
                "credentialDurationSeconds must be a number from {min} to {max}, not {given}"
            ))
        })
    }
}

/// Nobody is asked whether there is such a role: rights are not taken from it.
pub(crate) fn checked(role_arn: String) -> Result<String, Error> {
    let length = role_arn.chars().count();
    if !ROLE_ARN.contains(&length) {
        let (min, max) = (ROLE_ARN.start(), ROLE_ARN.end());
        return Err(Error::Invalid(format!(
            "roleArn must have {min} to {max} characters, not {length}"
        )));
    }
    let parts: Vec<&str> = role_arn.splitn(6, ':').collect();
    match parts[..] {
        ["arn", _, "iam", _, _, resource] if !resource.is_empty() => Ok(role_arn),
        _ => Err(Error::Invalid(format!("roleArn '{role_arn}' is not an ARN of the service iam"))),
    }
}

pub(crate) async fn create<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let name = RoleAliasName::new(call.label(0))?;
    let body: Body = call.json()?;
    let duration_secs = body.duration_secs()?.unwrap_or(DEFAULT_DURATION_SECS);
    let alias = RoleAlias {
        name: name.clone(),
        role_arn: checked(required(body.role_arn, "roleArn")?)?,
        duration_secs,
        tags: body.tags.map(tags).transpose()?.unwrap_or_default(),
        created: call.now,
        modified: call.now,
        generation: Uuid::new_v4(),
    };
    let alias = Box::new(alias);
    api.propose(Command::RoleAlias(RoleAliasCommand::Create { alias })).await?;
    Ok(named(api, &name))
}

pub(crate) async fn describe<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let name = RoleAliasName::new(call.label(0))?;
    let arns = api.arns.clone();
    let described = api.read(move |registry| {
        let not_found = || Error::NotFound(format!("Role alias {name} not found"));
        let alias = registry.role_alias(name.as_str()).ok_or_else(not_found)?;
        Ok(json!({ "roleAliasDescription": description(alias, &arns) }))
    });
    Ok(Reply::Json(described.await?))
}

pub(crate) async fn update<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let alias = RoleAliasName::new(call.label(0))?;
    let body: Body = call.json()?;
    let duration_secs = body.duration_secs()?;
    api.propose(Command::RoleAlias(RoleAliasCommand::Update {
        alias: alias.clone(),
        role_arn: body.role_arn.map(checked).transpose()?,
        duration_secs,
        at: call.now,
    }))
    .await?;
    Ok(named(api, &alias))
}

pub(crate) async fn delete<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let alias = RoleAliasName::new(call.label(0))?;
    api.propose(Command::RoleAlias(RoleAliasCommand::Delete { alias })).await?;
    Ok(Reply::Empty)
}

pub(crate) async fn list<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    api.list(MARKER.read(call)?, "roleAliases", |registry, paging| {
        Ok(registry.role_aliases(paging).map(|alias| alias.name.as_str().into()))
    })
    .await
}

/// A role alias as DescribeRoleAlias answers.
pub(crate) fn description(alias: &RoleAlias, arns: &Arns) -> Value {
    json!({
        "roleAlias": alias.name,
        "roleAliasArn": arns.role_alias(&alias.name),
        "roleArn": alias.role_arn,
        "owner": arns.account(),
        "credentialDurationSeconds": alias.duration_secs,
        "creationDate": alias.created.seconds(),
        "lastModifiedDate": alias.modified.seconds(),
    })
}

fn named<B: Backend>(api: &Api<B>, name: &RoleAliasName) -> Reply {
    Reply::Json(json!({ "roleAlias": name, "roleAliasArn": api.arns.role_alias(name) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arn_of_a_role_is_one() {
        let long = |length: usize| format!("arn:aws:iam::0:role/{}", "x".repeat(length - 20));
        for (arn, valid) in [
            ("arn:aws:iam::123456789012:role/r", true),
            ("arn:aws-cn:iam::123456789012:role/path/r:x", true),
            ("arn:aws:iam::0:role/", true),
            (&long(2048), true),
            (&long(2049), false),
            ("arn:aws:iam::0:role", false),
            ("arn:aws:iot::123456789012:role/r", false),
            ("arn:aws:iam::123456789012:", false),
            ("not at all the arn of a role", false),
            ("", false),
        ] {
            assert_eq!(checked(arn.into()).is_ok(), valid, "{arn}");
        }
    }
}
