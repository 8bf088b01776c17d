//! Provisioning templates and their versions. What a body says is checked before it comes here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::model::{Tags, Timestamp};
use super::names::TemplateName;
use super::store::Key;
use super::view::{Page, Paging, after, page};
use super::{Outcome, Registry, Rejection};

const TEMPLATES: usize = 256;
const VERSIONS: usize = 5;

/// What a template is carried out for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TemplateType {
    /// Devices that provision themselves with a claim.
    #[default]
    FleetProvisioning,
    /// Certificates that a registered authority has signed, just in time.
    Jitp,
}

impl TemplateType {
    /// The name AWS gives the type.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FleetProvisioning => "FLEET_PROVISIONING",
            Self::Jitp => "JITP",
        }
    }
}

/// Who is asked before a device is provisioned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Where: an `http` or `https` address.
    pub target: String,
    /// The version of what it is told.
    pub payload_version: String,
}

/// A version of a template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateVersion {
    /// The JSON, byte for byte as it came.
    pub body: String,
    /// When it was created.
    pub created: Timestamp,
}

/// A provisioning template; its default version is the one that is carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvisioningTemplate {
    /// Its name.
    pub name: TemplateName,
    /// What it is carried out for.
    #[serde(default)]
    pub kind: TemplateType,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether it is carried out.
    pub enabled: bool,
    /// Kept for tools; rights are not taken from it.
    pub role_arn: String,
    /// Who is asked first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<Hook>,
    /// One to five.
    pub versions: BTreeMap<u32, TemplateVersion>,
    /// The version that is carried out.
    pub default_version: u32,
    /// The id of the version created next; ids are never used again.
    pub next_version: u32,
    /// For people.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    /// When it was created.
    pub created: Timestamp,
    /// When it changed last.
    pub modified: Timestamp,
    /// Differs between a template and another created later under the same name.
    pub generation: Uuid,
}

impl ProvisioningTemplate {
    /// The body that is carried out.
    pub fn body(&self) -> &str {
        // One is there, as is checked when a template is loaded.
        self.versions.get(&self.default_version).map_or("", |version| &version.body)
    }
}

/// A change to templates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the vocabulary of the AWS operations")]
pub enum TemplateCommand {
    Create {
        template: Box<ProvisioningTemplate>,
    },
    /// What is absent stays.
    Update {
        template: TemplateName,
        #[serde(default)]
        description: Option<String>,
        #[serde(default)]
        enabled: Option<bool>,
        #[serde(default)]
        default_version: Option<u32>,
        #[serde(default)]
        role_arn: Option<String>,
        /// Replaces the hook, or takes it away.
        #[serde(default)]
        hook: Option<NewHook>,
        at: Timestamp,
    },
    Delete {
        template: TemplateName,
    },
    CreateVersion {
        template: TemplateName,
        body: String,
        #[serde(default)]
        set_as_default: bool,
        at: Timestamp,
    },
    DeleteVersion {
        template: TemplateName,
        version: u32,
        at: Timestamp,
    },
}

/// What becomes of a hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NewHook {
    /// This one is asked.
    Set(Hook),
    /// Nobody is asked.
    Removed,
}

impl Registry {
    pub(super) fn apply_to_templates(
        &mut self,
        command: TemplateCommand,
    ) -> Result<Outcome, Rejection> {
        use TemplateCommand as C;
        match command {
            C::Create { template } => self.create_template(*template),
            C::Update { template, description, enabled, default_version, role_arn, hook, at } => {
                self.change_template(&template, at, |found| {
                    if let Some(version) = default_version {
                        check_version(found, version)?;
                        found.default_version = version;
                    }
                    found.description = description.or(found.description.take());
                    found.enabled = enabled.unwrap_or(found.enabled);
                    found.role_arn = role_arn.unwrap_or(std::mem::take(&mut found.role_arn));
                    match hook {
                        Some(NewHook::Set(_)) if found.kind == TemplateType::Jitp => {
                            return Err(Rejection::TemplateHasNoHook);
                        }
                        Some(NewHook::Set(hook)) => found.hook = Some(hook),
                        Some(NewHook::Removed) => found.hook = None,
                        None => {}
                    }
                    Ok(Outcome::Done)
                })
            }
            C::Delete { template } => self.delete_template(&template),
            C::CreateVersion { template, body, set_as_default, at } => {
                self.change_template(&template, at, |found| {
                    if found.versions.len() >= VERSIONS {
                        let (template, limit) = (found.name.clone(), VERSIONS);
                        return Err(Rejection::TemplateVersionLimit { template, limit });
                    }
                    let version = found.next_version;
                    found.next_version += 1;
                    found.versions.insert(version, TemplateVersion { body, created: at });
                    if set_as_default {
                        found.default_version = version;
                    }
                    Ok(Outcome::TemplateVersion { version, is_default: set_as_default })
                })
            }
            C::DeleteVersion { template, version, at } => {
                self.change_template(&template, at, |found| {
                    check_version(found, version)?;
                    if found.default_version == version {
                        return Err(Rejection::TemplateVersionIsDefault(found.name.clone()));
                    }
                    found.versions.remove(&version);
                    Ok(Outcome::Done)
                })
            }
        }
    }

    fn create_template(&mut self, template: ProvisioningTemplate) -> Result<Outcome, Rejection> {
        if self.templates.contains_key(&template.name) {
            return Err(Rejection::TemplateExists(template.name));
        }
        if self.templates.len() >= TEMPLATES {
            return Err(Rejection::TooManyTemplates { limit: TEMPLATES });
        }
        let version = template.default_version;
        self.dirty.insert(Key::Template(template.name.clone()));
        self.templates.insert(template.name.clone(), template);
        Ok(Outcome::TemplateVersion { version, is_default: true })
    }

    /// Changes a template, or leaves it as it is when the change is refused.
    fn change_template(
        &mut self,
        name: &TemplateName,
        at: Timestamp,
        change: impl FnOnce(&mut ProvisioningTemplate) -> Result<Outcome, Rejection>,
    ) -> Result<Outcome, Rejection> {
        let mut template = self.find_template(name)?.clone();
        let outcome = change(&mut template)?;
        template.modified = at;
        self.templates.insert(name.clone(), template);
        self.dirty.insert(Key::Template(name.clone()));
        Ok(outcome)
    }

    fn delete_template(&mut self, name: &TemplateName) -> Result<Outcome, Rejection> {
        self.find_template(name)?;
        let named = Some(name.as_str());
        let user =
            self.authorities.values().find(|it| it.registration.template_name.as_deref() == named);
        if let Some(authority) = user {
            let (template, authority) = (name.clone(), authority.id.clone());
            return Err(Rejection::TemplateInUse { template, authority });
        }
        self.templates.remove(name);
        self.dirty.insert(Key::Template(name.clone()));
        Ok(Outcome::Done)
    }

    pub(super) fn find_template(
        &self,
        name: &TemplateName,
    ) -> Result<&ProvisioningTemplate, Rejection> {
        self.templates.get(name).ok_or_else(|| Rejection::TemplateNotFound(name.clone()))
    }

    /// A template by its name.
    pub fn template(&self, name: &str) -> Option<&ProvisioningTemplate> {
        self.templates.get(name)
    }

    /// Templates in the order of their names.
    pub fn templates(&self, paging: &Paging) -> Page<&ProvisioningTemplate> {
        let start = (after(paging), std::ops::Bound::Unbounded);
        let templates = self.templates.range::<str, _>(start).map(|(_, template)| template);
        page(templates, paging.limit, |_| true, |template| template.name.to_string())
    }
}

fn check_version(template: &ProvisioningTemplate, version: u32) -> Result<(), Rejection> {
    match template.versions.contains_key(&version) {
        true => Ok(()),
        false => {
            Err(Rejection::TemplateVersionNotFound { template: template.name.clone(), version })
        }
    }
}
