//! The resources of a template: a thing, a certificate and policies.

use std::collections::{BTreeMap, BTreeSet};

use fleet::registry::{
    AttachedPolicy, BillingGroupName, CertificateId, CertificateStatus, Disposition, NameError,
    POLICIES_PER_PRINCIPAL, PolicyName, ThingGroupName, ThingName, ThingPlan, ThingTypeName,
};
use serde_json::Value;

use crate::document::Document;
use crate::error::{TemplateError, expected, wrong};
use crate::expression::{Expression, Name, Names};
use crate::fields::Fields;
use crate::scope::Scope;

/// The resources by their names in the template.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Resources {
    pub(crate) thing: Option<(String, Thing)>,
    pub(crate) certificate: (String, Certificate),
    pub(crate) policies: Vec<(String, Policy)>,
}

impl Resources {
    pub(crate) fn parse(json: &Value, names: Names<'_>) -> Result<Self, TemplateError> {
        let what = || expected("Resources", "an object of resources", json);
        let (mut thing, mut certificate, mut policies) = (None, None, Vec::new());
        for (name, json) in json.as_object().ok_or_else(what)? {
            let at = format!("Resources.{name}");
            let mut fields = Fields::of(&at, json)?;
            let kind = fields.require("Type")?;
            let properties = fields.require("Properties")?;
            let settings = fields.take("OverrideSettings");
            fields.end()?;
            let parts = Parts { at: &at, properties, settings, names };
            let is_first = match kind.as_str() {
                Some("AWS::IoT::Thing") => {
                    thing.replace((name.clone(), Thing::parse(&parts)?)).is_none()
                }
                Some("AWS::IoT::Certificate") => {
                    certificate.replace((name.clone(), Certificate::parse(&parts)?)).is_none()
                }
                Some("AWS::IoT::Policy") => {
                    policies.push((name.clone(), Policy::parse(&parts)?));
                    true
                }
                _ => {
                    let what = "AWS::IoT::Thing, AWS::IoT::Certificate or AWS::IoT::Policy";
                    return Err(expected(&format!("{at}.Type"), what, kind));
                }
            };
            if !is_first {
                return Err(wrong(&at, "there is another resource of this type"));
            }
        }
        if policies.len() > POLICIES_PER_PRINCIPAL {
            let problem = format!(
                "{} policies, at most {POLICIES_PER_PRINCIPAL} are allowed",
                policies.len()
            );
            return Err(wrong("Resources", problem));
        }
        let missing = || wrong("Resources", "there is no AWS::IoT::Certificate");
        Ok(Self { thing, certificate: certificate.ok_or_else(missing)?, policies })
    }

    /// What `Ref` to a resource stands for: the name of the thing or the policy, the certificate's id.
    pub(crate) fn name_of(
        &self,
        resource: &str,
        scope: &Scope<'_>,
    ) -> Result<String, TemplateError> {
        let at = format!("Resources.{resource}");
        if let Some((name, thing)) = &self.thing
            && name == resource
        {
            return thing.name.text(&at, scope);
        }
        match self.policies.iter().find(|(name, _)| name == resource) {
            Some((_, policy)) => Ok(policy.evaluate(&at, scope)?.name.to_string()),
            None => scope.value_of(&at, &Name::certificate_id()),
        }
    }
}

/// What a resource is made from.
struct Parts<'a> {
    at: &'a str,
    properties: &'a Value,
    settings: Option<&'a Value>,
    names: Names<'a>,
}

impl<'a> Parts<'a> {
    fn properties(&self) -> Result<Properties<'a>, TemplateError> {
        let at = format!("{}.Properties", self.at);
        Ok(Properties { fields: Fields::of(&at, self.properties)?, at, names: self.names })
    }

    /// What to do about the properties of what is there already.
    fn dispositions<const N: usize>(
        &self,
        properties: [(&'static str, bool); N],
    ) -> Result<[Disposition; N], TemplateError> {
        let at = format!("{}.OverrideSettings", self.at);
        let mut dispositions = [Disposition::DoNothing; N];
        let Some(json) = self.settings else { return Ok(dispositions) };
        let mut fields = Fields::of(&at, json)?;
        for (disposition, (property, can_merge)) in dispositions.iter_mut().zip(properties) {
            let Some(json) = fields.take(property) else { continue };
            *disposition = match json.as_str() {
                Some("DO_NOTHING") => Disposition::DoNothing,
                Some("REPLACE") => Disposition::Replace,
                Some("MERGE") if can_merge => Disposition::Merge,
                Some("FAIL") => Disposition::Fail,
                _ => {
                    let merge = if can_merge { ", MERGE" } else { "" };
                    let what = format!("DO_NOTHING, REPLACE{merge} or FAIL");
                    return Err(expected(&format!("{at}.{property}"), &what, json));
                }
            };
        }
        fields.end()?;
        Ok(dispositions)
    }
}

/// The properties of a resource, as expressions.
struct Properties<'a> {
    at: String,
    fields: Fields<'a>,
    names: Names<'a>,
}

impl Properties<'_> {
    fn take(&mut self, name: &'static str) -> Result<Option<Expression>, TemplateError> {
        let at = format!("{}.{name}", self.at);
        let json = self.fields.take(name);
        json.map(|json| Expression::parse(&at, json, self.names)).transpose()
    }
}

/// A thing that shall be there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Thing {
    pub(crate) name: Expression,
    attributes: BTreeMap<String, Expression>,
    thing_type: Option<Expression>,
    groups: Option<Expression>,
    billing_group: Option<Expression>,
    on_attributes: Disposition,
    on_type: Disposition,
    on_groups: Disposition,
}

impl Thing {
    fn parse(parts: &Parts<'_>) -> Result<Self, TemplateError> {
        let mut properties = parts.properties()?;
        let mut attributes = BTreeMap::new();
        if let Some(json) = properties.fields.take("AttributePayload") {
            let at = format!("{}.AttributePayload", properties.at);
            for (name, value) in json.as_object().ok_or_else(|| expected(&at, "an object", json))? {
                let value = Expression::parse(&format!("{at}.{name}"), value, parts.names)?;
                attributes.insert(name.clone(), value);
            }
        }
        let name = properties.take("ThingName")?;
        let name = name.ok_or_else(|| wrong(&properties.at, "ThingName is missing"))?;
        let thing_type = properties.take("ThingTypeName")?;
        let groups = properties.take("ThingGroups")?;
        let billing_group = properties.take("BillingGroup")?;
        properties.fields.end()?;
        let [on_attributes, on_type, on_groups] = parts.dispositions([
            ("AttributePayload", true),
            ("ThingTypeName", false),
            ("ThingGroups", true),
        ])?;
        Ok(Self {
            name,
            attributes,
            thing_type,
            groups,
            billing_group,
            on_attributes,
            on_type,
            on_groups,
        })
    }

    pub(crate) fn evaluate(&self, at: &str, scope: &Scope<'_>) -> Result<ThingPlan, TemplateError> {
        let at = |property: &str| format!("{at}.Properties.{property}");
        let mut attributes = BTreeMap::new();
        for (name, value) in &self.attributes {
            let value = value.text(&at(&format!("AttributePayload.{name}")), scope)?;
            attributes.insert(name.clone(), value);
        }
        let groups_at = at("ThingGroups");
        let groups = match &self.groups {
            Some(groups) => groups.list(&groups_at, scope)?,
            None => Vec::new(),
        };
        let groups = groups.iter().map(|group| named(&groups_at, ThingGroupName::new(group)));
        Ok(ThingPlan {
            name: name(&at("ThingName"), &self.name, scope, ThingName::new)?,
            attributes,
            thing_type: optional(
                &at("ThingTypeName"),
                &self.thing_type,
                scope,
                ThingTypeName::new,
            )?,
            groups: groups.collect::<Result<BTreeSet<_>, _>>()?,
            billing_group: optional(
                &at("BillingGroup"),
                &self.billing_group,
                scope,
                BillingGroupName::new,
            )?,
            on_attributes: self.on_attributes,
            on_type: self.on_type,
            on_groups: self.on_groups,
        })
    }
}

/// A certificate that shall be there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Certificate {
    source: Source,
    pub(crate) status: Expression,
    pub(crate) on_status: Disposition,
}

#[derive(Clone, Debug, PartialEq)]
enum Source {
    Id(Expression),
    Request(Expression),
    Pem(Expression, Option<Expression>),
}

/// Where the certificate of a device comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// The registry has it.
    Known(CertificateId),
    /// It is issued for a certificate signing request, which is in PEM.
    Request(String),
    /// It is registered.
    Pem {
        /// The certificate.
        pem: String,
        /// The authority that has signed it; none to register it without.
        authority_pem: Option<String>,
    },
}

impl Certificate {
    fn parse(parts: &Parts<'_>) -> Result<Self, TemplateError> {
        let mut properties = parts.properties()?;
        let sources = [
            properties.take("CertificateId")?,
            properties.take("CertificateSigningRequest")?,
            properties.take("CertificatePem")?,
        ];
        let authority = properties.take("CACertificatePem")?;
        let status = properties.take("Status")?;
        let source = match (sources, authority) {
            ([Some(id), None, None], None) => Source::Id(id),
            ([None, Some(request), None], None) => Source::Request(request),
            ([None, None, Some(pem)], authority) => Source::Pem(pem, authority),
            _ => {
                let problem = "it has either CertificateId, or CertificateSigningRequest, or \
                               CertificatePem with or without CACertificatePem";
                return Err(wrong(&properties.at, problem));
            }
        };
        properties.fields.end()?;
        let [on_status] = parts.dispositions([("Status", false)])?;
        let status = status.unwrap_or_else(|| Expression::Text("ACTIVE".to_owned()));
        Ok(Self { source, status, on_status })
    }

    pub(crate) fn is_given(&self) -> bool {
        self.source == Source::Id(Expression::Ref(Name::certificate_id()))
    }

    pub(crate) fn source(
        &self,
        at: &str,
        scope: &Scope<'_>,
    ) -> Result<CertificateSource, TemplateError> {
        let at = |property: &str| format!("{at}.Properties.{property}");
        Ok(match &self.source {
            Source::Id(id) => {
                let new = |id: &str| CertificateId::new(&id.to_ascii_lowercase());
                CertificateSource::Known(name(&at("CertificateId"), id, scope, new)?)
            }
            Source::Request(request) => {
                let at = at("CertificateSigningRequest");
                CertificateSource::Request(request.text(&at, scope)?)
            }
            Source::Pem(pem, authority) => CertificateSource::Pem {
                pem: pem.text(&at("CertificatePem"), scope)?,
                authority_pem: match authority {
                    Some(authority) => Some(authority.text(&at("CACertificatePem"), scope)?),
                    None => None,
                },
            },
        })
    }

    pub(crate) fn status(
        &self,
        at: &str,
        scope: &Scope<'_>,
    ) -> Result<CertificateStatus, TemplateError> {
        let at = format!("{at}.Properties.Status");
        // Examples of AWS write it either way.
        match self.status.text(&at, scope)?.to_ascii_uppercase().as_str() {
            "ACTIVE" => Ok(CertificateStatus::Active),
            "INACTIVE" => Ok(CertificateStatus::Inactive),
            other => Err(expected(&at, "ACTIVE or INACTIVE", &other.into())),
        }
    }
}

/// A policy that the certificate shall have.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Policy {
    /// One that is there.
    Named(Expression),
    /// One that is made, unless an equal one was.
    Document(Document),
}

impl Policy {
    fn parse(parts: &Parts<'_>) -> Result<Self, TemplateError> {
        let mut properties = parts.properties()?;
        let name = properties.take("PolicyName")?;
        let document = properties.fields.take("PolicyDocument");
        let at = format!("{}.PolicyDocument", properties.at);
        let policy = match (name, document) {
            (Some(name), None) => Self::Named(name),
            (None, Some(json)) => Self::Document(Document::parse(&at, json, parts.names)?),
            _ => {
                let problem = "it has either PolicyName or PolicyDocument";
                return Err(wrong(&properties.at, problem));
            }
        };
        properties.fields.end()?;
        let [] = parts.dispositions([])?;
        Ok(policy)
    }

    pub(crate) fn evaluate(
        &self,
        at: &str,
        scope: &Scope<'_>,
    ) -> Result<AttachedPolicy, TemplateError> {
        match self {
            Self::Named(it) => {
                let at = format!("{at}.Properties.PolicyName");
                let name = name(&at, it, scope, PolicyName::new)?;
                Ok(AttachedPolicy { name, document: None })
            }
            Self::Document(document) => {
                let at = format!("{at}.Properties.PolicyDocument");
                let text = document.evaluate(&at, scope)?;
                let name = named(&at, PolicyName::new(&Document::name_of(&text)))?;
                Ok(AttachedPolicy { name, document: Some(text) })
            }
        }
    }
}

fn named<T>(at: &str, name: Result<T, NameError>) -> Result<T, TemplateError> {
    name.map_err(|error| wrong(at, error.to_string()))
}

fn name<T>(
    at: &str,
    expression: &Expression,
    scope: &Scope<'_>,
    new: impl FnOnce(&str) -> Result<T, NameError>,
) -> Result<T, TemplateError> {
    named(at, new(&expression.text(at, scope)?))
}

fn optional<T>(
    at: &str,
    expression: &Option<Expression>,
    scope: &Scope<'_>,
    new: impl FnOnce(&str) -> Result<T, NameError>,
) -> Result<Option<T>, TemplateError> {
    expression.as_ref().map(|expression| name(at, expression, scope, new)).transpose()
}
