//! A template: parameters, mappings, resources, and what the device is told.

use std::collections::BTreeMap;

use fleet::registry::{AttachedPolicy, CertificateStatus, Disposition, ThingPlan};
use serde_json::Value;
use strict_json::Strict;

use crate::error::{TemplateError, expected, wrong};
use crate::expression::{Expression, IMPLICIT_PREFIX, Name};
use crate::fields::Fields;
use crate::resources::{CertificateSource, Resources};
use crate::scope::Scope;

/// Bytes of a template.
pub const MAX_TEMPLATE_BYTES: usize = 10_240;

/// What a template is for: not every one has every section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Devices provision themselves with a claim: there may be mappings, and a configuration for the
    /// device.
    Fleet,
    /// Everything else: `RegisterThing`, registration in bulk, and just in time.
    Registration,
}

/// Parameters of a device or a caller, by name.
pub type Parameters = BTreeMap<String, String>;

pub(crate) type Mappings = BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>>;

/// A template that has been checked. Its expressions refer to nothing that is not there.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    /// With their defaults.
    parameters: BTreeMap<String, Option<String>>,
    pub(crate) mappings: Mappings,
    pub(crate) resources: Resources,
    device_configuration: BTreeMap<String, Expression>,
}

/// What a template asks for with certain parameters, beside the certificate itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The thing, if there is one.
    pub thing: Option<ThingPlan>,
    /// The status of the certificate.
    pub status: CertificateStatus,
    /// Whether a certificate that is in use already gets that status.
    pub on_status: Disposition,
    /// The policies of the certificate.
    pub policies: Vec<AttachedPolicy>,
    /// What a device that provisions itself is told.
    pub device_configuration: BTreeMap<String, String>,
}

impl Template {
    /// Reads a template of at most [`MAX_TEMPLATE_BYTES`].
    pub fn parse(body: &str, purpose: Purpose) -> Result<Self, TemplateError> {
        let whole = "template";
        if body.len() > MAX_TEMPLATE_BYTES {
            let problem = format!("{} bytes, at most {MAX_TEMPLATE_BYTES} are allowed", body.len());
            return Err(wrong(whole, problem));
        }
        let Strict(json) =
            serde_json::from_str(body).map_err(|error| wrong(whole, error.to_string()))?;
        let mut fields = Fields::of(whole, &json)?;
        let parameters = fields.take("Parameters").map(parameters).transpose()?;
        let parameters = parameters.unwrap_or_default();
        let (mappings, configuration) = match purpose {
            Purpose::Fleet => (fields.take("Mappings"), fields.take("DeviceConfiguration")),
            Purpose::Registration => (None, None),
        };
        let resources = fields.require("Resources")?;
        fields.end()?;
        if let Some(both) = parameters.keys().find(|name| resources.get(name).is_some()) {
            return Err(wrong("Resources", format!("{both:?} is a parameter as well")));
        }
        let names = |name: &str| match resources.get(name) {
            Some(_) => Some(Name::Resource(name.to_owned())),
            None if parameters.contains_key(name) || Name::is_of_certificate(name) => {
                Some(Name::Parameter(name.to_owned()))
            }
            None => None,
        };
        let mut device_configuration = BTreeMap::new();
        for (key, value) in entries("DeviceConfiguration", configuration)? {
            let at = format!("DeviceConfiguration.{key}");
            device_configuration.insert(key.clone(), Expression::parse(&at, value, &names)?);
        }
        Ok(Self {
            mappings: mappings.map(self::mappings).transpose()?.unwrap_or_default(),
            resources: Resources::parse(resources, &names)?,
            parameters,
            device_configuration,
        })
    }

    /// Whether it declares a parameter of this name.
    pub(crate) fn has_parameter(&self, name: &str) -> bool {
        self.parameters.contains_key(name)
    }

    /// The default of a parameter.
    pub(crate) fn default_of(&self, parameter: &str) -> Option<&String> {
        self.parameters.get(parameter)?.as_ref()
    }

    /// Whether the certificate is the one that is being provisioned, whatever the parameters.
    pub fn is_for_given_certificate(&self) -> bool {
        self.resources.certificate.1.is_given()
    }

    /// Where the certificate comes from. What the node knows of it is among the parameters.
    pub fn certificate(&self, parameters: &Parameters) -> Result<CertificateSource, TemplateError> {
        let (name, certificate) = &self.resources.certificate;
        certificate.source(&format!("Resources.{name}"), &Scope::new(self, parameters))
    }

    /// What else there shall be. [`certificate_parameters`](crate::certificate_parameters) are among the
    /// parameters.
    pub fn evaluate(&self, parameters: &Parameters) -> Result<Plan, TemplateError> {
        let scope = Scope::new(self, parameters);
        let at = |name: &str| format!("Resources.{name}");
        // One that only devices with certain names lack is missed by all.
        for name in self.parameters.keys() {
            scope.value_of("parameters", &Name::Parameter(name.clone()))?;
        }
        let Resources { thing, certificate: (name, certificate), policies } = &self.resources;
        let thing = thing.as_ref().map(|(name, thing)| thing.evaluate(&at(name), &scope));
        let policies = policies.iter().map(|(name, policy)| policy.evaluate(&at(name), &scope));
        let configuration = self.device_configuration.iter().map(|(key, value)| {
            let at = format!("DeviceConfiguration.{key}");
            Ok((key.clone(), value.text(&at, &scope)?))
        });
        Ok(Plan {
            thing: thing.transpose()?,
            status: certificate.status(&at(name), &scope)?,
            on_status: certificate.on_status,
            policies: policies.collect::<Result<_, _>>()?,
            device_configuration: configuration.collect::<Result<_, TemplateError>>()?,
        })
    }

    /// The names that the template gives its resources: the thing, the certificate, the policies in
    /// the order of [`Plan::policies`].
    pub fn resource_names(&self) -> (Option<&str>, &str, impl Iterator<Item = &str>) {
        let Resources { thing, certificate, policies } = &self.resources;
        let thing = thing.as_ref().map(|(name, _)| name.as_str());
        (thing, certificate.0.as_str(), policies.iter().map(|(name, _)| name.as_str()))
    }
}

/// Refuses parameters from outside that only the node may give.
pub fn check_given(parameters: &Parameters) -> Result<(), TemplateError> {
    match parameters.keys().find(|name| name.starts_with(IMPLICIT_PREFIX)) {
        Some(name) => Err(wrong("parameters", format!("{name:?} cannot be given"))),
        None => Ok(()),
    }
}

fn entries<'a>(
    at: &str,
    json: Option<&'a Value>,
) -> Result<impl Iterator<Item = (&'a String, &'a Value)>, TemplateError> {
    let entries = match json {
        Some(json) => Some(json.as_object().ok_or_else(|| expected(at, "an object", json))?),
        None => None,
    };
    Ok(entries.into_iter().flatten())
}

fn parameters(json: &Value) -> Result<BTreeMap<String, Option<String>>, TemplateError> {
    let mut parameters = BTreeMap::new();
    for (name, json) in entries("Parameters", Some(json))? {
        let at = format!("Parameters.{name}");
        let mut fields = Fields::of(&at, json)?;
        let kind = fields.require("Type")?;
        if kind.as_str() != Some("String") {
            return Err(expected(&format!("{at}.Type"), "\"String\"", kind));
        }
        let default = match fields.take("Default") {
            Some(Value::String(text)) => Some(text.clone()),
            Some(other) => return Err(expected(&format!("{at}.Default"), "a text", other)),
            None => None,
        };
        fields.end()?;
        parameters.insert(name.clone(), default);
    }
    Ok(parameters)
}

fn mappings(json: &Value) -> Result<Mappings, TemplateError> {
    let mut mappings = Mappings::new();
    for (name, map) in entries("Mappings", Some(json))? {
        let at = format!("Mappings.{name}");
        for (first, values) in entries(&at, Some(map))? {
            let at = format!("{at}.{first}");
            for (second, value) in entries(&at, Some(values))? {
                let what = || expected(&format!("{at}.{second}"), "a text", value);
                let text = value.as_str().ok_or_else(what)?.to_owned();
                let values = mappings.entry(name.clone()).or_default();
                values.entry(first.clone()).or_default().insert(second.clone(), text);
            }
        }
    }
    Ok(mappings)
}
