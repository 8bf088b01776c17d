//! Creating, updating, deprecating and deleting thing types.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::command::ThingTypePatch;
use super::events::{Operation, Subject};
use super::model::{PropagatedFrom, ThingType, ThingTypeProperties, Timestamp};
use super::names::{ThingTypeName, check_attribute_name, check_description};
use super::store::Key;
use super::{Outcome, Registry, Rejection};

const SEARCHABLE_ATTRIBUTES: usize = 3;
const PROPAGATING_ATTRIBUTES: usize = 20;
/// How long a type stays deprecated before it can be deleted, in milliseconds, unless whoever deletes it
/// says otherwise.
pub const DEPRECATED_FOR_MS: u64 = 5 * 60 * 1000;
/// What a connection can contribute to the messages of a thing type's things.
const CONNECTION_ATTRIBUTES: [&str; 2] = [CLIENT_ID, THING_NAME];
/// The client id of the connection.
pub(super) const CLIENT_ID: &str = "iot:ClientId";
/// The name of the connection's thing.
pub(super) const THING_NAME: &str = "iot:Thing.ThingName";

impl Registry {
    pub(super) fn create_thing_type(
        &mut self,
        name: ThingTypeName,
        id: Uuid,
        properties: ThingTypeProperties,
        tags: BTreeMap<String, String>,
        at: Timestamp,
    ) -> Result<Outcome, Rejection> {
        check_properties(&properties)?;
        if let Some(existing) = self.thing_types.get(&name) {
            let id = existing.id;
            if existing.properties == properties {
                return Ok(Outcome::ThingType { id });
            }
            return Err(Rejection::ThingTypeExists { thing_type: name, id });
        }
        self.dirty.insert(Key::ThingType(name.clone()));
        let thing_type =
            ThingType { name: name.clone(), id, properties, tags, created: at, deprecated: None };
        self.thing_types.insert(name, thing_type.clone());
        self.happened(Operation::Created, Subject::ThingType(thing_type));
        Ok(Outcome::ThingType { id })
    }

    pub(super) fn update_thing_type(
        &mut self,
        name: &ThingTypeName,
        patch: ThingTypePatch,
    ) -> Result<Outcome, Rejection> {
        let thing_type = find(&mut self.thing_types, name)?;
        let mut properties = thing_type.properties.clone();
        if let Some(description) = patch.description {
            properties.description = Some(description);
        }
        if let Some(searchable) = patch.searchable_attributes {
            properties.searchable_attributes = searchable;
        }
        if let Some(propagating) = patch.propagating_attributes {
            properties.propagating_attributes = propagating;
        }
        check_properties(&properties)?;
        let propagates =
            thing_type.properties.propagating_attributes != properties.propagating_attributes;
        thing_type.properties = properties;
        let updated = thing_type.clone();
        self.happened(Operation::Updated, Subject::ThingType(updated));
        self.dirty.insert(Key::ThingType(name.clone()));
        if propagates {
            self.changed_thing_type(name);
        }
        Ok(Outcome::Done)
    }

    pub(super) fn deprecate_thing_type(
        &mut self,
        name: &ThingTypeName,
        undo: bool,
        at: Timestamp,
    ) -> Result<Outcome, Rejection> {
        let thing_type = find(&mut self.thing_types, name)?;
        // Deprecating again keeps the first date: the grace period has started already.
        thing_type.deprecated = if undo { None } else { thing_type.deprecated.or(Some(at)) };
        let updated = thing_type.clone();
        self.happened(Operation::Updated, Subject::ThingType(updated));
        self.dirty.insert(Key::ThingType(name.clone()));
        Ok(Outcome::Done)
    }

    pub(super) fn delete_thing_type(
        &mut self,
        name: &ThingTypeName,
        deprecated_for_ms: Option<u64>,
        at: Timestamp,
    ) -> Result<Outcome, Rejection> {
        let Some(deprecated) = find(&mut self.thing_types, name)?.deprecated else {
            return Err(Rejection::ThingTypeNotDeprecated(name.clone()));
        };
        if self.indexes.things_of_type.contains_key(name) {
            return Err(Rejection::ThingTypeInUse(name.clone()));
        }
        let waited = at.0.saturating_sub(deprecated.0);
        let least = deprecated_for_ms.unwrap_or(DEPRECATED_FOR_MS);
        if waited < least {
            let seconds = (least - waited).div_ceil(1000);
            let thing_type = name.clone();
            return Err(Rejection::ThingTypeDeprecatedRecently { thing_type, seconds });
        }
        if let Some(thing_type) = self.thing_types.remove(name) {
            self.happened(Operation::Deleted, Subject::ThingType(thing_type));
        }
        self.dirty.insert(Key::ThingType(name.clone()));
        Ok(Outcome::Done)
    }
}

fn find<'a>(
    types: &'a mut BTreeMap<ThingTypeName, ThingType>,
    name: &ThingTypeName,
) -> Result<&'a mut ThingType, Rejection> {
    types.get_mut(name).ok_or_else(|| Rejection::ThingTypeNotFound(name.clone()))
}

fn check_properties(properties: &ThingTypeProperties) -> Result<(), Rejection> {
    if let Some(description) = &properties.description {
        check_description(description)?;
    }
    for (what, limit, count) in [
        ("searchable attributes", SEARCHABLE_ATTRIBUTES, properties.searchable_attributes.len()),
        ("propagating attributes", PROPAGATING_ATTRIBUTES, properties.propagating_attributes.len()),
    ] {
        if count > limit {
            return Err(Rejection::ThingTypeTooLarge { what: what.into(), limit, count });
        }
    }
    for name in &properties.searchable_attributes {
        check_attribute_name(name)?;
    }
    for attribute in &properties.propagating_attributes {
        let key = &attribute.user_property_key;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":$.".contains(&byte);
        if key.is_empty() || key.len() > 128 || !key.bytes().all(allowed) {
            return Err(Rejection::PropagatingAttribute(format!(
                "userPropertyKey '{key}' must satisfy the pattern [a-zA-Z0-9:$.]+ and have 1 to 128 characters"
            )));
        }
        match &attribute.source {
            PropagatedFrom::ThingAttribute(name) => check_attribute_name(name)?,
            PropagatedFrom::ConnectionAttribute(name)
                if CONNECTION_ATTRIBUTES.contains(&name.as_str()) => {}
            PropagatedFrom::ConnectionAttribute(name) => {
                return Err(Rejection::PropagatingAttribute(format!(
                    "connectionAttribute '{name}' is neither iot:ClientId nor iot:Thing.ThingName"
                )));
            }
        }
    }
    Ok(())
}
