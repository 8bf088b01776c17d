//! Tags of what can have them: things and certificates cannot.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::model::Tags;
use super::names::{
    AuthorizerName, BillingGroupName, CertificateId, PolicyName, RoleAliasName, TemplateName,
    ThingGroupName, ThingTypeName,
};
use super::store::Key;
use super::{Outcome, Registry, Rejection};

/// How many tags a resource can have.
pub const TAGS_PER_RESOURCE: usize = 50;

/// What can have tags.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "each is what its name says")]
pub enum Resource {
    ThingType(ThingTypeName),
    ThingGroup(ThingGroupName),
    BillingGroup(BillingGroupName),
    Policy(PolicyName),
    Authority(CertificateId),
    Template(TemplateName),
    RoleAlias(RoleAliasName),
    Authorizer(AuthorizerName),
}

impl Registry {
    /// A tag that is there gets the new value.
    pub(super) fn tag(&mut self, resource: &Resource, new: Tags) -> Result<Outcome, Rejection> {
        self.change_tags(resource, |tags| {
            let mut changed = tags.clone();
            changed.extend(new);
            match changed.len() {
                count if count > TAGS_PER_RESOURCE => {
                    Err(Rejection::TooManyTags { limit: TAGS_PER_RESOURCE, count })
                }
                _ => Ok(changed),
            }
        })
    }

    /// A key that is not there is gone already.
    pub(super) fn untag(
        &mut self,
        resource: &Resource,
        keys: &BTreeSet<String>,
    ) -> Result<Outcome, Rejection> {
        self.change_tags(resource, |tags| {
            let mut changed = tags.clone();
            changed.retain(|key, _| !keys.contains(key));
            Ok(changed)
        })
    }

    fn change_tags(
        &mut self,
        resource: &Resource,
        change: impl FnOnce(&Tags) -> Result<Tags, Rejection>,
    ) -> Result<Outcome, Rejection> {
        let (tags, key) = match resource {
            Resource::ThingType(name) => {
                let found = self.thing_types.get_mut(name);
                let found = found.ok_or_else(|| Rejection::ThingTypeNotFound(name.clone()))?;
                (&mut found.tags, Key::ThingType(name.clone()))
            }
            Resource::ThingGroup(name) => {
                let found = self.thing_groups.get_mut(name);
                let found = found.ok_or_else(|| Rejection::ThingGroupNotFound(name.clone()))?;
                (&mut found.tags, Key::ThingGroup(name.clone()))
            }
            Resource::BillingGroup(name) => {
                let found = self.billing_groups.get_mut(name);
                let found = found.ok_or_else(|| Rejection::BillingGroupNotFound(name.clone()))?;
                (&mut found.tags, Key::BillingGroup(name.clone()))
            }
            Resource::Policy(name) => {
                let found = self.policies.get_mut(name);
                let found = found.ok_or_else(|| Rejection::PolicyNotFound(name.clone()))?;
                (&mut found.tags, Key::Policy(name.clone()))
            }
            Resource::Authority(id) => {
                let found = self.authorities.get_mut(id);
                let found = found.ok_or_else(|| Rejection::AuthorityNotFound(id.clone()))?;
                (&mut found.tags, Key::Authority(id.clone()))
            }
            Resource::Template(name) => {
                let found = self.templates.get_mut(name);
                let found = found.ok_or_else(|| Rejection::TemplateNotFound(name.clone()))?;
                (&mut found.tags, Key::Template(name.clone()))
            }
            Resource::RoleAlias(name) => {
                let found = self.role_aliases.get_mut(name);
                let found = found.ok_or_else(|| Rejection::RoleAliasNotFound(name.clone()))?;
                (&mut found.tags, Key::RoleAlias(name.clone()))
            }
            Resource::Authorizer(name) => {
                let found = self.authorizers.get_mut(name);
                let found = found.ok_or_else(|| Rejection::AuthorizerNotFound(name.clone()))?;
                (&mut found.tags, Key::Authorizer(name.clone()))
            }
        };
        *tags = change(tags)?;
        self.dirty.insert(key);
        Ok(Outcome::Done)
    }

    /// The tags of a resource; none when there is no such resource.
    pub fn tags_of(&self, resource: &Resource) -> Option<&Tags> {
        Some(match resource {
            Resource::ThingType(name) => &self.thing_types.get(name)?.tags,
            Resource::ThingGroup(name) => &self.thing_groups.get(name)?.tags,
            Resource::BillingGroup(name) => &self.billing_groups.get(name)?.tags,
            Resource::Policy(name) => &self.policies.get(name)?.tags,
            Resource::Authority(id) => &self.authorities.get(id)?.tags,
            Resource::Template(name) => &self.templates.get(name)?.tags,
            Resource::RoleAlias(name) => &self.role_aliases.get(name)?.tags,
            Resource::Authorizer(name) => &self.authorizers.get(name)?.tags,
        })
    }
}
