//! Provisioning templates and their versions.

use fleet::registry::{
    Command, Hook, NewHook, Outcome, ProvisioningTemplate, TemplateCommand, TemplateName,
    TemplateType, TemplateVersion, check_description,
};
use provisioning::{Purpose, Template};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::arn::Arns;
use crate::certificates::required;
use crate::paging::NEXT_TOKEN;
use crate::request::{Call, Tag, tags, without_query};
use crate::service::{Api, Reply};
use crate::{Backend, Error};

/// What a hook is told has this version.
pub(crate) const PAYLOAD_VERSION: &str = "2020-04-01";

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Body {
    template_name: Option<String>,
    description: Option<String>,
    template_body: Option<String>,
    enabled: Option<bool>,
    provisioning_role_arn: Option<String>,
    pre_provisioning_hook: Option<HookBody>,
    remove_pre_provisioning_hook: Option<bool>,
    default_version_id: Option<u32>,
    r#type: Option<String>,
    tags: Option<Vec<Tag>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct HookBody {
    payload_version: Option<String>,
    target_arn: Option<String>,
}

impl HookBody {
    /// There are no functions here: the target is an address that is asked by HTTP.
    fn checked(self) -> Result<Hook, Error> {
        let target = required(self.target_arn, "preProvisioningHook.targetArn")?;
        let is_address = axum::http::Uri::try_from(&target).is_ok_and(|uri| {
            let has_user = uri.authority().is_some_and(|it| it.as_str().contains('@'));
            matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some() && !has_user
        });
        if !is_address {
            return Err(Error::Invalid(format!(
                "preProvisioningHook.targetArn must be an http or https address that is asked, \
                 without a user, not '{target}'"
            )));
        }
        match self.payload_version.as_deref() {
            None | Some(PAYLOAD_VERSION) => {
                Ok(Hook { target, payload_version: PAYLOAD_VERSION.to_owned() })
            }
            Some(other) => Err(Error::Invalid(format!(
                "preProvisioningHook.payloadVersion must be {PAYLOAD_VERSION}, not '{other}'"
            ))),
        }
    }
}

/// Refuses a template that could never be carried out.
pub(crate) fn check_body(body: &str, kind: TemplateType) -> Result<(), Error> {
    let purpose = match kind {
        TemplateType::FleetProvisioning => Purpose::Fleet,
        TemplateType::Jitp => Purpose::Registration,
    };
    let template = Template::parse(body, purpose)
        .map_err(|error| Error::Invalid(format!("templateBody: {error}")))?;
    if !template.is_for_given_certificate() {
        return Err(Error::Invalid(
            "templateBody: the CertificateId of the certificate must be \
             {\"Ref\": \"AWS::IoT::Certificate::Id\"}"
                .into(),
        ));
    }
    Ok(())
}

pub(crate) async fn create<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let body: Body = call.json()?;
    let name = TemplateName::new(&required(body.template_name, "templateName")?)?;
    let kind = match body.r#type.as_deref() {
        None | Some("FLEET_PROVISIONING") => TemplateType::FleetProvisioning,
        Some("JITP") => TemplateType::Jitp,
        Some(other) => {
            return Err(Error::Invalid(format!(
                "type must be FLEET_PROVISIONING or JITP, not '{other}'"
            )));
        }
    };
    let template_body = required(body.template_body, "templateBody")?;
    check_body(&template_body, kind)?;
    if let Some(description) = &body.description {
        check_description(description)?;
    }
    if kind == TemplateType::Jitp && body.pre_provisioning_hook.is_some() {
        return Err(Error::Invalid("a template of type JITP has no preProvisioningHook".into()));
    }
    let version = TemplateVersion { body: template_body, created: call.now };
    let template = ProvisioningTemplate {
        name: name.clone(),
        kind,
        description: body.description,
        enabled: body.enabled.unwrap_or(false),
        role_arn: required(body.provisioning_role_arn, "provisioningRoleArn")?,
        hook: body.pre_provisioning_hook.map(HookBody::checked).transpose()?,
        versions: [(1, version)].into(),
        default_version: 1,
        next_version: 2,
        tags: body.tags.map(tags).transpose()?.unwrap_or_default(),
        created: call.now,
        modified: call.now,
        generation: Uuid::new_v4(),
    };
    let template = Box::new(template);
    api.propose(Command::Template(TemplateCommand::Create { template })).await?;
    Ok(Reply::Json(json!({
        "templateArn": api.arns.template(&name),
        "templateName": name,
        "defaultVersionId": 1,
    })))
}

pub(crate) async fn describe<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let name = TemplateName::new(call.label(0))?;
    let arns = api.arns.clone();
    let described = api.read(move |registry| {
        let template = registry.template(name.as_str()).ok_or_else(|| not_found(&name))?;
        Ok(description(template, &arns))
    });
    let mut described = described.await?;
    if call.caller.only_looks()
        && let Some(Value::String(target)) = described.pointer_mut("/preProvisioningHook/targetArn")
    {
        *target = without_query(target);
    }
    Ok(Reply::Json(described))
}

pub(crate) async fn update<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let template = TemplateName::new(call.label(0))?;
    let body: Body = call.json()?;
    if let Some(description) = &body.description {
        check_description(description)?;
    }
    let removes = body.remove_pre_provisioning_hook.unwrap_or(false);
    let hook = match (body.pre_provisioning_hook, removes) {
        (Some(_), true) => {
            return Err(Error::Invalid(
                "preProvisioningHook and removePreProvisioningHook cannot be used together".into(),
            ));
        }
        (Some(hook), false) => Some(NewHook::Set(hook.checked()?)),
        (None, true) => Some(NewHook::Removed),
        (None, false) => None,
    };
    api.propose(Command::Template(TemplateCommand::Update {
        template,
        description: body.description,
        enabled: body.enabled,
        default_version: body.default_version_id,
        role_arn: body.provisioning_role_arn,
        hook,
        at: call.now,
    }))
    .await?;
    Ok(Reply::Empty)
}

pub(crate) async fn delete<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let template = TemplateName::new(call.label(0))?;
    api.propose(Command::Template(TemplateCommand::Delete { template })).await?;
    Ok(Reply::Empty)
}

pub(crate) async fn list<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let arns = api.arns.clone();
    api.list(NEXT_TOKEN.read(call)?, "templates", move |registry, paging| {
        Ok(registry.templates(paging).map(|template| summary(template, &arns)))
    })
    .await
}

pub(crate) async fn create_version<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let template = TemplateName::new(call.label(0))?;
    let body = required(call.json::<Body>()?.template_body, "templateBody")?;
    let name = template.clone();
    let kind = api.read(move |registry| {
        Ok(registry.template(name.as_str()).ok_or_else(|| not_found(&name))?.kind)
    });
    check_body(&body, kind.await?)?;
    let (arn, name) = (api.arns.template(&template), template.clone());
    let set_as_default = call.flag("setAsDefault")?;
    let command = TemplateCommand::CreateVersion { template, body, set_as_default, at: call.now };
    match api.propose(Command::Template(command)).await? {
        Outcome::TemplateVersion { version, is_default } => Ok(Reply::Json(json!({
            "templateArn": arn,
            "templateName": name,
            "versionId": version,
            "isDefaultVersion": is_default,
        }))),
        _ => Err(Error::Internal),
    }
}

pub(crate) async fn describe_version<B: Backend>(
    api: &Api<B>,
    call: &Call,
) -> Result<Reply, Error> {
    let (name, version) = (TemplateName::new(call.label(0))?, version_id(call)?);
    let described = api.read(move |registry| {
        let template = registry.template(name.as_str()).ok_or_else(|| not_found(&name))?;
        let missing = || {
            Error::NotFound(format!("The provisioning template {name} has no version {version}"))
        };
        let found = template.versions.get(&version).ok_or_else(missing)?;
        let mut described = version_summary(template, version, found);
        described["templateBody"] = found.body.as_str().into();
        Ok(described)
    });
    Ok(Reply::Json(described.await?))
}

pub(crate) async fn delete_version<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let (template, version) = (TemplateName::new(call.label(0))?, version_id(call)?);
    let command = TemplateCommand::DeleteVersion { template, version, at: call.now };
    api.propose(Command::Template(command)).await?;
    Ok(Reply::Empty)
}

/// There are at most five, so they are one page.
pub(crate) async fn list_versions<B: Backend>(api: &Api<B>, call: &Call) -> Result<Reply, Error> {
    let name = TemplateName::new(call.label(0))?;
    NEXT_TOKEN.read(call)?;
    let versions = api.read(move |registry| {
        let template = registry.template(name.as_str()).ok_or_else(|| not_found(&name))?;
        let versions = template.versions.iter();
        let versions = versions.map(|(id, version)| version_summary(template, *id, version));
        Ok(versions.collect::<Vec<_>>())
    });
    Ok(Reply::Json(json!({ "versions": versions.await? })))
}

fn version_id(call: &Call) -> Result<u32, Error> {
    let text = call.label(1);
    text.parse().map_err(|_| Error::Invalid(format!("versionId must be a number, not '{text}'")))
}

pub(crate) fn not_found(name: &TemplateName) -> Error {
    Error::NotFound(format!("The provisioning template {name} is not found"))
}

/// A template as DescribeProvisioningTemplate answers.
pub(crate) fn description(template: &ProvisioningTemplate, arns: &Arns) -> Value {
    let mut described = summary(template, arns);
    described["defaultVersionId"] = template.default_version.into();
    described["templateBody"] = template.body().into();
    described["provisioningRoleArn"] = template.role_arn.as_str().into();
    if let Some(hook) = &template.hook {
        described["preProvisioningHook"] =
            json!({ "payloadVersion": hook.payload_version, "targetArn": hook.target });
    }
    described
}

fn summary(template: &ProvisioningTemplate, arns: &Arns) -> Value {
    let mut summary = json!({
        "templateArn": arns.template(&template.name),
        "templateName": template.name,
        "creationDate": template.created.seconds(),
        "lastModifiedDate": template.modified.seconds(),
        "enabled": template.enabled,
        "type": template.kind.as_str(),
    });
    if let Some(description) = &template.description {
        summary["description"] = description.as_str().into();
    }
    summary
}

fn version_summary(template: &ProvisioningTemplate, id: u32, version: &TemplateVersion) -> Value {
    json!({
        "versionId": id,
        "creationDate": version.created.seconds(),
        "isDefaultVersion": id == template.default_version,
    })
}
