//! Creating, updating and deleting things.

use std::sync::Arc;

use uuid::Uuid;

use super::command::AttributePatch;
use super::model::{Attributes, Thing, Timestamp};
use super::names::{ThingName, ThingTypeName, check_attribute_name, check_attribute_value};
use super::store::Key;
use super::{Outcome, Registry, Rejection};

const ATTRIBUTES_WITHOUT_TYPE: usize = 3;
const ATTRIBUTES_WITH_TYPE: usize = 50;
const ATTRIBUTE_BYTES: usize = 47 * 1024;

impl Registry {
    pub(super) fn create_thing(
        &mut self,
        name: ThingName,
        id: Uuid,
        thing_type: Option<ThingTypeName>,
        mut attributes: Attributes,
        at: Timestamp,
    ) -> Result<Outcome, Rejection> {
        attributes.retain(|_, value| !value.is_empty());
        check_attributes(&attributes, thing_type.is_some())?;
        if let Some(existing) = self.things.get(&name) {
            if existing.thing_type == thing_type && *existing.attributes == attributes {
                return Ok(Outcome::Thing { id: existing.id, version: existing.version });
            }
            return Err(Rejection::ThingExists { thing: name, id: existing.id });
        }
        self.check_new_type(thing_type.as_ref())?;
        let attributes = Arc::new(attributes);
        self.put_thing(Thing {
            name: name.clone(),
            id,
            thing_type,
            attributes,
            version: 1,
            created: at,
        });
        self.changed_thing(&name);
        Ok(Outcome::Thing { id, version: 1 })
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
        if thing_type != thing.thing_type {
            self.check_new_type(thing_type.as_ref())?;
        }
        let mut updated = thing.clone();
        if remove_thing_type {
            updated.thing_type = None;
        } else if thing_type.is_some() {
            updated.thing_type = thing_type;
        }
        if let Some(patch) = patch {
            updated.attributes = Arc::new(patched(&thing.attributes, patch));
        }
        check_attributes(&updated.attributes, updated.thing_type.is_some())?;
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
        if let Some(Thing { thing_type: Some(thing_type), .. }) = self.things.remove(name) {
            self.unlink_type(&thing_type, name);
        }
        self.dirty.insert(Key::Thing(name.clone()));
        self.changed_thing(name);
        Ok(Outcome::Done)
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

    fn put_thing(&mut self, thing: Thing) {
        let name = thing.name.clone();
        let new_type = thing.thing_type.clone();
        let old = self.things.insert(name.clone(), thing);
        let old_type = old.and_then(|thing| thing.thing_type);
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

/// Optimistic locking: an absent expectation always holds.
fn check_version(expected: Option<u64>, current: u64) -> Result<(), Rejection> {
    match expected {
        Some(expected) if expected != current => {
            Err(Rejection::VersionConflict { expected, current })
        }
        _ => Ok(()),
    }
}

/// An empty value removes its attribute, in either way of updating.
fn patched(current: &Attributes, patch: AttributePatch) -> Attributes {
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
