//! Creating, updating and deleting things.

use std::sync::Arc;

use super::command::AttributePatch;
use super::model::{Attributes, Thing};
use super::names::{ThingName, ThingTypeName, check_attribute_name, check_attribute_value};
use super::store::Key;
use super::{Outcome, Registry, Rejection};

const ATTRIBUTES_WITHOUT_TYPE: usize = 3;
const ATTRIBUTES_WITH_TYPE: usize = 50;
const ATTRIBUTE_BYTES: usize = 47 * 1024;

impl Registry {
    pub(super) fn create_thing(&mut self, mut thing: Thing) -> Result<Outcome, Rejection> {
        tidy(&mut thing)?;
        if let Some(existing) = self.things.get(&thing.name) {
            let is_same = existing.thing_type == thing.thing_type
                && existing.attributes == thing.attributes
                && (thing.billing_group.is_none() || existing.billing_group == thing.billing_group);
            return match is_same {
                true => Ok(Outcome::Thing { id: existing.id, version: existing.version }),
                false => Err(Rejection::ThingExists { thing: thing.name, id: existing.id }),
            };
        }
        self.check_new_thing(&mut thing)?;
        let (name, id, version) = (thing.name.clone(), thing.id, thing.version);
        self.put_thing(thing);
        self.changed_thing(&name);
        Ok(Outcome::Thing { id, version })
    }

    pub(super) fn update_thing(
        &mut self,
        name: &ThingName,
        patch: Option<AttributePatch>,
        thing_type: Option<ThingTypeName>,
        remove_thing_type: bool,
        expected_version: Option<u64>,
    ) -> Result<Outcome, Rejection> {
        if remove_thing_type && thing_type.is_some() {
            return Err(Rejection::ThingTypeSetAndRemoved);
        }
        let Some(thing) = self.things.get(name) else {
            return Err(Rejection::ThingNotFound(name.clone()));
        };
        check_version(expected_version, thing.version)?;
        let mut updated = thing.clone();
        if remove_thing_type {
            updated.thing_type = None;
        } else if thing_type.is_some() {
            updated.thing_type = thing_type;
        }
        if let Some(patch) = patch {
            updated.attributes = Arc::new(patched(&thing.attributes, patch));
        }
        self.check_changed_thing(thing, &updated)?;
        updated.version += 1;
        let outcome = Outcome::Thing { id: updated.id, version: updated.version };
        self.put_thing(updated);
        self.changed_thing(name);
        Ok(outcome)
    }

    /// Deleting what is not there succeeds.
    pub(super) fn delete_thing(
        &mut self,
        name: &ThingName,
        expected_version: Option<u64>,
    ) -> Result<Outcome, Rejection> {
        let Some(thing) = self.things.get(name) else {
            return Ok(Outcome::Done);
        };
        check_version(expected_version, thing.version)?;
        if self.indexes.principals_of.contains_key(name) {
            return Err(Rejection::ThingHasPrincipals(name.clone()));
        }
        self.leave_all(name);
        if let Some(thing) = self.things.remove(name) {
            if let Some(thing_type) = &thing.thing_type {
                self.unlink_type(thing_type, name);
            }
            self.relink_billing(name, thing.billing_group.as_ref(), None);
            self.thing_ended(thing);
        }
        self.dirty.insert(Key::Thing(name.clone()));
        self.changed_thing(name);
        Ok(Outcome::Done)
    }

    pub(super) fn find_thing(&self, name: &ThingName) -> Result<&Thing, Rejection> {
        self.things.get(name).ok_or_else(|| Rejection::ThingNotFound(name.clone()))
    }

    /// Checks a thing that is not there yet.
    pub(super) fn check_new_thing(&self, thing: &mut Thing) -> Result<(), Rejection> {
        tidy(thing)?;
        self.check_new_type(thing.thing_type.as_ref())?;
        match &thing.billing_group {
            Some(group) => self.check_billing_group(group),
            None => Ok(()),
        }
    }

    /// Checks what a thing becomes.
    pub(super) fn check_changed_thing(&self, old: &Thing, new: &Thing) -> Result<(), Rejection> {
        if old.thing_type != new.thing_type {
            self.check_new_type(new.thing_type.as_ref())?;
        }
        check_attributes(&new.attributes, new.thing_type.is_some())
    }

    /// A type that a thing is to be associated with has to exist and to be active.
    fn check_new_type(&self, thing_type: Option<&ThingTypeName>) -> Result<(), Rejection> {
        let Some(name) = thing_type else {
            return Ok(());
        };
        match self.thing_types.get(name) {
            None => Err(Rejection::ThingTypeNotFound(name.clone())),
            Some(found) if found.deprecated.is_some() => {
                Err(Rejection::ThingTypeDeprecated(name.clone()))
            }
            Some(_) => Ok(()),
        }
    }

    pub(super) fn put_thing(&mut self, thing: Thing) {
        let name = thing.name.clone();
        let (new_type, new_billing) = (thing.thing_type.clone(), thing.billing_group.clone());
        let old = self.things.insert(name.clone(), thing);
        self.thing_happened(old.as_ref(), &name);
        let (old_type, old_billing) =
            old.map(|thing| (thing.thing_type, thing.billing_group)).unwrap_or_default();
        self.relink_billing(&name, old_billing.as_ref(), new_billing.as_ref());
        if old_type != new_type {
            if let Some(thing_type) = old_type {
                self.unlink_type(&thing_type, &name);
            }
            if let Some(thing_type) = new_type {
                self.indexes.things_of_type.entry(thing_type).or_default().insert(name.clone());
            }
        }
        self.dirty.insert(Key::Thing(name));
    }

    fn unlink_type(&mut self, thing_type: &ThingTypeName, thing: &ThingName) {
        if let Some(things) = self.indexes.things_of_type.get_mut(thing_type) {
            things.remove(thing);
            if things.is_empty() {
                self.indexes.things_of_type.remove(thing_type);
            }
        }
    }
}

/// An empty value is none.
fn tidy(thing: &mut Thing) -> Result<(), Rejection> {
    let attributes = Arc::make_mut(&mut thing.attributes);
    attributes.retain(|_, value| !value.is_empty());
    check_attributes(attributes, thing.thing_type.is_some())
}

/// Optimistic locking: an absent expectation always holds.
pub(super) fn check_version(expected: Option<u64>, current: u64) -> Result<(), Rejection> {
    match expected {
        Some(expected) if expected != current => {
            Err(Rejection::VersionConflict { expected, current })
        }
        _ => Ok(()),
    }
}

/// An empty value removes its attribute, in either way of updating.
pub(super) fn patched(current: &Attributes, patch: AttributePatch) -> Attributes {
    let mut attributes = if patch.merge { current.clone() } else { Attributes::new() };
    attributes.extend(patch.attributes);
    attributes.retain(|_, value| !value.is_empty());
    attributes
}

fn check_attributes(attributes: &Attributes, typed: bool) -> Result<(), Rejection> {
    for (name, value) in attributes {
        check_attribute_name(name)?;
        check_attribute_value(value)?;
    }
    let limit = if typed { ATTRIBUTES_WITH_TYPE } else { ATTRIBUTES_WITHOUT_TYPE };
    if attributes.len() > limit {
        return Err(Rejection::TooManyAttributes { limit, count: attributes.len() });
    }
    let bytes = attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > ATTRIBUTE_BYTES {
        return Err(Rejection::AttributesTooLarge { limit: ATTRIBUTE_BYTES, bytes });
    }
    Ok(())
}
