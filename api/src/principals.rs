//! What is attached to what: policies to principals, principals to things.

use fleet::registry::{
    Command, Order, Page, Paging, Policy, PolicyName, Principal, Registry, ThingName,
    ThingPrincipalType,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::arn::Arns;
use crate::paging::{MARKER, NEXT_TOKEN, Style};
use crate::request::Call;
use crate::service::{Api, Reply};
use crate::{Backend, Error, certificates, policies, thing_groups};

const THING_PRINCIPAL: &str = "x-amzn-principal";
const POLICY_PRINCIPAL: &str = "x-amzn-iot-principal";

/// Lists with a marker that cannot be turned around.
pub(crate) const ATTACHED: Style = MARKER.forward();

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Body {
    target: Option<String>,
}

pub(crate) async fn attach_thing<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    api.propose(Command::AttachThingPrincipal {
        thing: ThingName::new(call.label(0))?,
        principal: api.arns.parse_principal(call.required_header(THING_PRINCIPAL)?)?,
        kind: kind(call)?.unwrap_or_default(),
    })
    .await?;
    Ok(Reply::Empty)
}

pub(crate) async fn detach_thing<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    api.propose(Command::DetachThingPrincipal {
        thing: ThingName::new(call.label(0))?,
        principal: api.arns.parse_principal(call.required_header(THING_PRINCIPAL)?)?,
    })
    .await?;
    Ok(Reply::Empty)
}

pub(crate) async fn of_thing<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    list_of_thing(api, call, "principals", |principal, _| principal.into()).await
}

pub(crate) async fn of_thing_v2<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let object = |principal: String, kind: ThingPrincipalType| json!({ "principal": principal, "thingPrincipalType": kind.as_str() });
    list_of_thing(api, call, "thingPrincipalObjects", object).await
}

async fn list_of_thing<B: Backend>(
    api: &Api<B>,
    call: &Call,
    member: &str,
    written: fn(String, ThingPrincipalType) -> Value,
) -> Result<Reply, Error> {
    let thing = ThingName::new(call.label(0))?;
    let only = kind(call)?;
    let arns = api.arns.clone();
    api.list(NEXT_TOKEN.read(call)?, member, move |registry, paging| {
        registry.thing(thing.as_str()).ok_or_else(|| no_thing(&thing))?;
        let page = registry.principals_of(thing.as_str(), only, paging);
        Ok(page.map(|(principal, kind)| written(arns.principal(principal), kind)))
    })
    .await
}

fn no_thing(name: &ThingName) -> Error {
    Error::NotFound(format!(
        "Failed to list principals for thing {name} because the thing does not exist in your account"
    ))
}

pub(crate) async fn things<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    list_things(api, call, "things", |thing, _| thing.as_str().into()).await
}

pub(crate) async fn things_v2<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let object = |thing: &ThingName, kind: ThingPrincipalType| json!({ "thingName": thing, "thingPrincipalType": kind.as_str() });
    list_things(api, call, "principalThingObjects", object).await
}

async fn list_things<B: Backend>(
    api: &Api<B>,
    call: &Call,
    member: &str,
    written: fn(&ThingName, ThingPrincipalType) -> Value,
) -> Result<Reply, Error> {
    let principal = api.arns.parse_principal(call.required_header(THING_PRINCIPAL)?)?;
    let only = kind(call)?;
    api.list(NEXT_TOKEN.read(call)?, member, move |registry, paging| {
        check_known(registry, &principal)?;
        let page = registry.things_of(&principal, only, paging);
        Ok(page.map(|(thing, kind)| written(thing, kind)))
    })
    .await
}

pub(crate) async fn attach_policy<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let policy = PolicyName::new(call.label(0))?;
    let target = target(api, call)?;
    api.propose(Command::AttachPolicy { policy, target }).await?;
    Ok(Reply::Empty)
}

/// Detaching a policy that does not exist succeeds: the operation has no error for it.
pub(crate) async fn detach_policy<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let policy = PolicyName::new(call.label(0))?;
    let target = target(api, call)?;
    match api.propose(Command::DetachPolicy { policy, target }).await {
        Ok(_) | Err(Error::NotFound(_)) => Ok(Reply::Empty),
        Err(error) => Err(error),
    }
}

pub(crate) async fn attach_principal_policy<B: Backend>(
    api: &Api<B>,
    call: &Call,
) -> Result<Reply, Error> {
    let policy = PolicyName::new(call.label(0))?;
    let target = api.arns.parse_principal(call.required_header(POLICY_PRINCIPAL)?)?;
    api.propose(Command::AttachPolicy { policy, target }).await?;
    Ok(Reply::Empty)
}

pub(crate) async fn detach_principal_policy<B: Backend>(
    api: &Api<B>,
    call: &Call,
) -> Result<Reply, Error> {
    let policy = PolicyName::new(call.label(0))?;
    let target = api.arns.parse_principal(call.required_header(POLICY_PRINCIPAL)?)?;
    api.propose(Command::DetachPolicy { policy, target }).await?;
    Ok(Reply::Empty)
}

pub(crate) async fn attached_policies<B: Backend>(
    api: &Api<B>,
    call: &Call,
) -> Result<Reply, Error> {
    let recursive = call.flag("recursive")?;
    let target = api.arns.parse_target(call.label(0))?;
    policies_of(api, call, ATTACHED, target, recursive).await
}

pub(crate) async fn principal_policies<B: Backend>(
    api: &Api<B>,
    call: &Call,
) -> Result<Reply, Error> {
    let principal = api.arns.parse_principal(call.required_header(POLICY_PRINCIPAL)?)?;
    policies_of(api, call, MARKER, principal, false).await
}

async fn policies_of<B: Backend>(
    api: &Api<B>,
    call: &Call,
    style: Style,
    principal: Principal,
    recursive: bool,
) -> Result<Reply, Error> {
    let arns = api.arns.clone();
    api.list(style.read(call)?, "policies", move |registry, paging| {
        check_known(registry, &principal)?;
        let mut policies = registry.policies_of(&principal);
        if let Principal::ThingGroup(group) = &principal
            && recursive
        {
            for above in registry.thing_group_path(group).skip(1) {
                policies.extend(registry.policies_of(&Principal::ThingGroup(above.name.clone())));
            }
        }
        Ok(page_of_policies(policies, paging, &arns))
    })
    .await
}

/// A principal has so few policies that they are put into order for each page.
fn page_of_policies(mut policies: Vec<&Policy>, paging: &Paging, arns: &Arns) -> Page<Value> {
    policies.sort_by_key(|policy| (policy.created, &policy.name));
    policies.dedup_by_key(|policy| &policy.name);
    if paging.order == Order::Descending {
        policies.reverse();
    }
    let place = paging.after.as_deref();
    let start = place.and_then(|place| policies.iter().position(|p| p.name.as_str() == place));
    let rest = &policies[start.map_or(0, |start| start + 1)..];
    let page = &rest[..rest.len().min(paging.limit)];
    let next = page.last().filter(|_| page.len() < rest.len());
    Page {
        items: page.iter().map(|policy| policies::summary(policy, arns)).collect(),
        next: next.map(|policy| policy.name.to_string()),
    }
}

pub(crate) async fn targets<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let policy = PolicyName::new(call.label(0))?;
    list_targets(api, call, ATTACHED, "targets", policy).await
}

pub(crate) async fn policy_principals<B: Backend>(
    api: &Api<B>,
    call: &Call,
) -> Result<Reply, Error> {
    let policy = PolicyName::new(call.required_header("x-amzn-iot-policy")?)?;
    list_targets(api, call, MARKER, "principals", policy).await
}

async fn list_targets<B: Backend>(
    api: &Api<B>,
    call: &Call,
    style: Style,
    member: &str,
    policy: PolicyName,
) -> Result<Reply, Error> {
    let arns = api.arns.clone();
    api.list(style.read(call)?, member, move |registry, paging| {
        policies::find(registry, &policy)?;
        let page = registry.targets_of(policy.as_str(), paging);
        Ok(page.map(|principal| arns.principal(principal).into()))
    })
    .await
}

pub(crate) fn check_known(registry: &Registry, principal: &Principal) -> Result<(), Error> {
    match principal {
        Principal::Certificate(id) if !registry.knows(principal) => {
            Err(certificates::not_found(id))
        }
        Principal::ThingGroup(group) => thing_groups::find(registry, group).map(drop),
        _ => Ok(()),
    }
}

fn target<B: Backend>(api: &Api<B>, call: &Call) -> Result<Principal, Error> {
    let target = call.json::<Body>()?.target;
    let missing = || Error::Invalid("the member target is missing".into());
    api.arns.parse_target(&target.ok_or_else(missing)?)
}

fn kind(call: &Call) -> Result<Option<ThingPrincipalType>, Error> {
    match call.query("thingPrincipalType") {
        None => Ok(None),
        Some("EXCLUSIVE_THING") => Ok(Some(ThingPrincipalType::ExclusiveThing)),
        Some("NON_EXCLUSIVE_THING") => Ok(Some(ThingPrincipalType::NonExclusiveThing)),
        Some(other) => Err(Error::Invalid(format!(
            "thingPrincipalType must be EXCLUSIVE_THING or NON_EXCLUSIVE_THING, not '{other}'"
        ))),
    }
}
