//! Static thing groups: a forest, and which things are in which of them.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::command::AttributePatch;
use super::events::Operation;
use super::model::{Attributes, GroupProperties, Tags, ThingGroup, Timestamp};
use super::names::{
    Principal, ThingGroupName, ThingName, check_attribute_name, check_attribute_value,
    check_description,
};
use super::store::Key;
use super::things::{check_version, patched};
use super::{Outcome, Registry, Rejection};

/// How many groups there are from a root to the lowest group.
const DEPTH: usize = 7;
const CHILDREN: usize = 100;
const GROUPS_OF_THING: usize = 10;
const ATTRIBUTES: usize = 50;
/// How many policies a group can have.
pub(super) const POLICIES_PER_GROUP: usize = 2;

/// A change to thing groups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the vocabulary of the AWS operations")]
pub enum ThingGroupCommand {
    Create {
        group: ThingGroupName,
        id: Uuid,
        #[serde(default)]
        parent: Option<ThingGroupName>,
        #[serde(default)]
        properties: GroupProperties,
        #[serde(default)]
        tags: Tags,
        at: Timestamp,
    },
    Update {
        group: ThingGroupName,
        /// What is absent stays.
        #[serde(default)]
        description: Option<String>,
        #[serde(default)]
        attributes: Option<AttributePatch>,
        #[serde(default)]
        expected_version: Option<u64>,
    },
    Delete {
        group: ThingGroupName,
        #[serde(default)]
        expected_version: Option<u64>,
    },
    /// Leaves groups and joins others, all or nothing; in this order, so that a thing can go from
    /// one group of a tree to another.
    Move {
        thing: ThingName,
        #[serde(default)]
        leave: BTreeSet<ThingGroupName>,
        #[serde(default)]
        join: BTreeSet<ThingGroupName>,
        /// Names the memberships that begin.
        membership: Uuid,
    },
}

impl Registry {
    pub(super) fn apply_to_thing_groups(
        &mut self,
        command: ThingGroupCommand,
    ) -> Result<Outcome, Rejection> {
        use ThingGroupCommand as C;
        match command {
            C::Create { group, id, parent, mut properties, tags, at } => {
                properties.attributes.retain(|_, value| !value.is_empty());
                self.create_thing_group(ThingGroup {
                    name: group,
                    id,
                    parent,
                    properties,
                    version: 1,
                    tags,
                    created: at,
                })
            }
            C::Update { group, description, attributes, expected_version } => {
                self.update_thing_group(&group, description, attributes, expected_version)
            }
            C::Delete { group, expected_version } => {
                self.delete_thing_group(&group, expected_version)
            }
            C::Move { thing, leave, join, membership } => {
                self.move_thing(&thing, &leave, join, membership)
            }
        }
    }

    fn create_thing_group(&mut self, group: ThingGroup) -> Result<Outcome, Rejection> {
        group.properties.check()?;
        if let Some(existing) = self.thing_groups.get(&group.name) {
            if existing.parent == group.parent && existing.properties == group.properties {
                return Ok(Outcome::Group { id: existing.id, version: existing.version });
            }
            return Err(Rejection::ThingGroupExists { group: group.name, id: existing.id });
        }
        if let Some(parent) = &group.parent {
            let above = self.thing_group_path(parent).count();
            if above == 0 {
                return Err(Rejection::ThingGroupNotFound(parent.clone()));
            }
            if above >= DEPTH {
                return Err(Rejection::ThingGroupTooDeep { parent: parent.clone(), limit: DEPTH });
            }
            let children = self.indexes.children_of.entry(parent.clone()).or_default();
            if children.len() >= CHILDREN {
                let limit = CHILDREN;
                return Err(Rejection::ThingGroupHasManyChildren { parent: parent.clone(), limit });
            }
            children.insert(group.name.clone());
        }
        let (name, id) = (group.name.clone(), group.id);
        self.thing_groups.insert(name.clone(), group);
        self.group_happened(Operation::Created, &name);
        self.dirty.insert(Key::ThingGroup(name));
        Ok(Outcome::Group { id, version: 1 })
    }

    fn update_thing_group(
        &mut self,
        name: &ThingGroupName,
        description: Option<String>,
        patch: Option<AttributePatch>,
        expected_version: Option<u64>,
    ) -> Result<Outcome, Rejection> {
        let not_found = || Rejection::ThingGroupNotFound(name.clone());
        let group = self.thing_groups.get_mut(name).ok_or_else(not_found)?;
        check_version(expected_version, group.version)?;
        let mut properties = group.properties.clone();
        if description.is_some() {
            properties.description = description;
        }
        if let Some(patch) = patch {
            properties.attributes = patched(&properties.attributes, patch);
        }
        properties.check()?;
        group.properties = properties;
        group.version += 1;
        let outcome = Outcome::Group { id: group.id, version: group.version };
        self.group_happened(Operation::Updated, name);
        self.dirty.insert(Key::ThingGroup(name.clone()));
        Ok(outcome)
    }

    /// Deleting what is not there succeeds.
    fn delete_thing_group(
        &mut self,
        name: &ThingGroupName,
        expected_version: Option<u64>,
    ) -> Result<Outcome, Rejection> {
        let Some(group) = self.thing_groups.get(name) else { return Ok(Outcome::Done) };
        check_version(expected_version, group.version)?;
        if self.indexes.children_of.contains_key(name) {
            return Err(Rejection::ThingGroupHasChildren(name.clone()));
        }
        let parent = group.parent.clone();
        self.changed_group(name);
        self.group_happened(Operation::Deleted, name);
        for thing in self.indexes.things_of_group.remove(name).into_iter().flatten() {
            self.leave(&thing, name);
        }
        let principal = Principal::ThingGroup(name.clone());
        for policy in self.policies_of.get(&principal).cloned().unwrap_or_default() {
            self.unlink_policy(&policy, &principal);
        }
        if let Some(parent) = parent
            && let Some(children) = self.indexes.children_of.get_mut(&parent)
        {
            children.remove(name);
            if children.is_empty() {
                self.indexes.children_of.remove(&parent);
            }
        }
        self.thing_groups.remove(name);
        self.dirty.insert(Key::ThingGroup(name.clone()));
        Ok(Outcome::Done)
    }

    fn move_thing(
        &mut self,
        thing: &ThingName,
        leave: &BTreeSet<ThingGroupName>,
        join: BTreeSet<ThingGroupName>,
        membership: Uuid,
    ) -> Result<Outcome, Rejection> {
        if !self.things.contains_key(thing) {
            return Err(Rejection::ThingNotFound(thing.clone()));
        }
        self.check_move(thing, leave, &join)?;
        self.leave_and_join(thing, leave, join, membership);
        self.changed_thing(thing);
        Ok(Outcome::Done)
    }

    /// Checks which groups a thing would be in, whether it is there yet or not.
    pub(super) fn check_move(
        &self,
        thing: &ThingName,
        leave: &BTreeSet<ThingGroupName>,
        join: &BTreeSet<ThingGroupName>,
    ) -> Result<(), Rejection> {
        let unknown = leave.iter().chain(join).find(|it| !self.thing_groups.contains_key(*it));
        if let Some(group) = unknown {
            return Err(Rejection::ThingGroupNotFound(group.clone()));
        }
        let mut groups: BTreeSet<&ThingGroupName> =
            self.groups_of.get(thing).into_iter().flat_map(|groups| groups.keys()).collect();
        groups.retain(|group| !leave.contains(*group));
        groups.extend(join);
        if groups.len() > GROUPS_OF_THING {
            let limit = GROUPS_OF_THING;
            return Err(Rejection::ThingInManyGroups { thing: thing.clone(), limit });
        }
        self.check_trees(thing, &groups)
    }

    pub(super) fn leave_and_join(
        &mut self,
        thing: &ThingName,
        leave: &BTreeSet<ThingGroupName>,
        join: BTreeSet<ThingGroupName>,
        membership: Uuid,
    ) {
        for group in leave {
            self.leave(thing, group);
        }
        for group in join {
            self.join(thing, group, membership);
        }
    }

    /// A thing can be in one group of a tree.
    fn check_trees(
        &self,
        thing: &ThingName,
        groups: &BTreeSet<&ThingGroupName>,
    ) -> Result<(), Rejection> {
        let mut roots: BTreeMap<&ThingGroupName, &ThingGroupName> = BTreeMap::new();
        for group in groups {
            let Some(root) = self.thing_group_path(group).last() else { continue };
            if let Some(other) = roots.insert(&root.name, group) {
                return Err(Rejection::ThingInTree {
                    thing: thing.clone(),
                    group: (*group).clone(),
                    other: other.clone(),
                });
            }
        }
        Ok(())
    }

    /// A group and those above it, up to its root; nothing when there is no such group.
    pub fn thing_group_path<'a>(
        &'a self,
        group: &'a ThingGroupName,
    ) -> impl Iterator<Item = &'a ThingGroup> {
        let found = |name: &ThingGroupName| self.thing_groups.get(name);
        std::iter::successors(found(group), move |group| found(group.parent.as_ref()?))
    }

    fn join(&mut self, thing: &ThingName, group: ThingGroupName, membership: Uuid) {
        let groups = self.groups_of.entry(thing.clone()).or_default();
        // A membership that goes on keeps its name.
        if let Entry::Vacant(new) = groups.entry(group.clone()) {
            new.insert(membership);
            self.membership_happened(Operation::Added, thing, &group, membership);
        }
        let things = self.indexes.things_of_group.entry(group.clone()).or_default();
        things.insert(thing.clone());
        self.dirty.insert(Key::Membership(thing.clone(), group));
    }

    fn leave(&mut self, thing: &ThingName, group: &ThingGroupName) {
        if let Some(things) = self.indexes.things_of_group.get_mut(group) {
            things.remove(thing);
            if things.is_empty() {
                self.indexes.things_of_group.remove(group);
            }
        }
        let Some(groups) = self.groups_of.get_mut(thing) else { return };
        let Some(membership) = groups.remove(group) else { return };
        if groups.is_empty() {
            self.groups_of.remove(thing);
        }
        self.membership_happened(Operation::Removed, thing, group, membership);
        self.dirty.insert(Key::Membership(thing.clone(), group.clone()));
    }

    /// A thing that is deleted is in no group.
    pub(super) fn leave_all(&mut self, thing: &ThingName) {
        for group in self.groups_of.get(thing).cloned().unwrap_or_default().into_keys() {
            self.leave(thing, &group);
        }
    }

    /// A group, and all groups below it.
    pub(super) fn thing_group_tree<'a>(
        &'a self,
        group: &'a ThingGroupName,
    ) -> impl Iterator<Item = &'a ThingGroupName> {
        let mut next = vec![group];
        std::iter::from_fn(move || {
            let group = next.pop()?;
            let children = self.indexes.children_of.get(group);
            next.extend(children.into_iter().flatten().rev());
            Some(group)
        })
    }
}

impl GroupProperties {
    /// Whether a group may have them.
    pub fn check(&self) -> Result<(), Rejection> {
        if let Some(description) = &self.description {
            check_description(description)?;
        }
        check_attributes(&self.attributes)
    }
}

fn check_attributes(attributes: &Attributes) -> Result<(), Rejection> {
    for (name, value) in attributes {
        check_attribute_name(name)?;
        check_attribute_value(value)?;
    }
    match attributes.len() {
        count if count > ATTRIBUTES => {
            Err(Rejection::GroupHasManyAttributes { limit: ATTRIBUTES, count })
        }
        _ => Ok(()),
    }
}
