//! Billing groups: flat, and a thing is in one of them at most.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::model::{BillingGroup, Tags, Timestamp};
use super::names::{BillingGroupName, ThingName, check_description};
use super::store::Key;
use super::things::check_version;
use super::{Outcome, Registry, Rejection};

/// A change to billing groups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the vocabulary of the AWS operations")]
pub enum BillingGroupCommand {
    Create {
        group: BillingGroupName,
        id: Uuid,
        #[serde(default)]
        description: Option<String>,
        #[serde(default)]
        tags: Tags,
        at: Timestamp,
    },
    Update {
        group: BillingGroupName,
        /// Stays if it is absent.
        #[serde(default)]
        description: Option<String>,
        #[serde(default)]
        expected_version: Option<u64>,
    },
    Delete {
        group: BillingGroupName,
        #[serde(default)]
        expected_version: Option<u64>,
    },
    Add {
        group: BillingGroupName,
        thing: ThingName,
    },
    Remove {
        group: BillingGroupName,
        thing: ThingName,
    },
}

impl Registry {
    pub(super) fn apply_to_billing_groups(
        &mut self,
        command: BillingGroupCommand,
    ) -> Result<Outcome, Rejection> {
        use BillingGroupCommand as C;
        match command {
            C::Create { group, id, description, tags, at } => {
                self.create_billing_group(BillingGroup {
                    name: group,
                    id,
                    description,
                    version: 1,
                    tags,
                    created: at,
                })
            }
            C::Update { group, description, expected_version } => {
                self.update_billing_group(&group, description, expected_version)
            }
            C::Delete { group, expected_version } => {
                self.delete_billing_group(&group, expected_version)
            }
            C::Add { group, thing } => self.add_to_billing_group(group, &thing),
            C::Remove { group, thing } => self.remove_from_billing_group(&group, &thing),
        }
    }

    fn create_billing_group(&mut self, group: BillingGroup) -> Result<Outcome, Rejection> {
        if let Some(description) = &group.description {
            check_description(description)?;
        }
        if let Some(existing) = self.billing_groups.get(&group.name) {
            if existing.description == group.description {
                return Ok(Outcome::Group { id: existing.id, version: existing.version });
            }
            return Err(Rejection::BillingGroupExists { group: group.name, id: existing.id });
        }
        let (name, id) = (group.name.clone(), group.id);
        self.billing_groups.insert(name.clone(), group);
        self.dirty.insert(Key::BillingGroup(name));
        Ok(Outcome::Group { id, version: 1 })
    }

    fn update_billing_group(
        &mut self,
        name: &BillingGroupName,
        description: Option<String>,
        expected_version: Option<u64>,
    ) -> Result<Outcome, Rejection> {
        self.check_billing_group(name)?;
        if let Some(description) = &description {
            check_description(description)?;
        }
        let not_found = || Rejection::BillingGroupNotFound(name.clone());
        let group = self.billing_groups.get_mut(name).ok_or_else(not_found)?;
        check_version(expected_version, group.version)?;
        if description.is_some() {
            group.description = description;
        }
        group.version += 1;
        let outcome = Outcome::Group { id: group.id, version: group.version };
        self.dirty.insert(Key::BillingGroup(name.clone()));
        Ok(outcome)
    }

    /// Deleting what is not there succeeds.
    fn delete_billing_group(
        &mut self,
        name: &BillingGroupName,
        expected_version: Option<u64>,
    ) -> Result<Outcome, Rejection> {
        let Some(group) = self.billing_groups.get(name) else { return Ok(Outcome::Done) };
        check_version(expected_version, group.version)?;
        for thing in self.indexes.things_of_billing_group.remove(name).into_iter().flatten() {
            self.set_billing_group(&thing, None);
        }
        self.billing_groups.remove(name);
        self.dirty.insert(Key::BillingGroup(name.clone()));
        Ok(Outcome::Done)
    }

    fn add_to_billing_group(
        &mut self,
        group: BillingGroupName,
        thing: &ThingName,
    ) -> Result<Outcome, Rejection> {
        self.check_billing_group(&group)?;
        match &self.find_thing(thing)?.billing_group {
            Some(present) if *present == group => return Ok(Outcome::Done),
            Some(other) => {
                return Err(Rejection::ThingInBillingGroup {
                    thing: thing.clone(),
                    group: other.clone(),
                });
            }
            None => {}
        }
        self.set_billing_group(thing, Some(group));
        Ok(Outcome::Done)
    }

    /// Taking out what is not in it succeeds.
    fn remove_from_billing_group(
        &mut self,
        group: &BillingGroupName,
        thing: &ThingName,
    ) -> Result<Outcome, Rejection> {
        self.check_billing_group(group)?;
        if self.find_thing(thing)?.billing_group.as_ref() == Some(group) {
            self.set_billing_group(thing, None);
        }
        Ok(Outcome::Done)
    }

    pub(super) fn check_billing_group(&self, group: &BillingGroupName) -> Result<(), Rejection> {
        match self.billing_groups.contains_key(group) {
            true => Ok(()),
            false => Err(Rejection::BillingGroupNotFound(group.clone())),
        }
    }

    fn set_billing_group(&mut self, name: &ThingName, group: Option<BillingGroupName>) {
        let Some(thing) = self.things.get_mut(name) else { return };
        let before = std::mem::replace(&mut thing.billing_group, group.clone());
        self.dirty.insert(Key::Thing(name.clone()));
        self.relink_billing(name, before.as_ref(), group.as_ref());
    }

    /// Brings the index up to date when the billing group of a thing changes.
    pub(super) fn relink_billing(
        &mut self,
        thing: &ThingName,
        before: Option<&BillingGroupName>,
        after: Option<&BillingGroupName>,
    ) {
        if before == after {
            return;
        }
        let index = &mut self.indexes.things_of_billing_group;
        if let Some(before) = before
            && let Some(things) = index.get_mut(before)
        {
            things.remove(thing);
            if things.is_empty() {
                index.remove(before);
            }
        }
        if let Some(after) = after {
            index.entry(after.clone()).or_default().insert(thing.clone());
        }
    }
}
