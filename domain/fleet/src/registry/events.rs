//! What happened to the registry, for those who listen on `$aws/events/…`, as far as somebody wants it.
//!
//! Events are kept until the leader of the registry has published them: a node's death delays them. Their
//! number is bounded; beyond it the oldest are lost, and counted.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::model::{Attributes, Thing, ThingGroup, ThingType, Timestamp};
use super::names::{ThingGroupName, ThingName, ThingTypeName};
use super::store::Key;
use super::{Outcome, Registry};

/// Events that wait to be published.
const KEPT: usize = 10_000;
/// And their bytes.
const KEPT_BYTES: usize = 32 << 20;

/// A kind of events that can be switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "the names are AWS's")]
pub enum EventType {
    Thing,
    ThingGroup,
    ThingType,
    ThingGroupMembership,
    ThingGroupHierarchy,
    ThingTypeAssociation,
    Job,
    JobExecution,
    Policy,
    Certificate,
    CaCertificate,
}

impl EventType {
    /// All of them, as AWS lists them.
    pub const ALL: [Self; 11] = [
        Self::Thing,
        Self::ThingGroup,
        Self::ThingType,
        Self::ThingGroupMembership,
        Self::ThingGroupHierarchy,
        Self::ThingTypeAssociation,
        Self::Job,
        Self::JobExecution,
        Self::Policy,
        Self::Certificate,
        Self::CaCertificate,
    ];

    /// As AWS calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Thing => "THING",
            Self::ThingGroup => "THING_GROUP",
            Self::ThingType => "THING_TYPE",
            Self::ThingGroupMembership => "THING_GROUP_MEMBERSHIP",
            Self::ThingGroupHierarchy => "THING_GROUP_HIERARCHY",
            Self::ThingTypeAssociation => "THING_TYPE_ASSOCIATION",
            Self::Job => "JOB",
            Self::JobExecution => "JOB_EXECUTION",
            Self::Policy => "POLICY",
            Self::Certificate => "CERTIFICATE",
            Self::CaCertificate => "CA_CERTIFICATE",
        }
    }
}

/// Which events somebody wants; at first none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventConfigurations {
    /// The kinds that are switched on.
    pub enabled: BTreeSet<EventType>,
    /// When that was first said.
    pub created: Timestamp,
    /// When it changed last.
    pub modified: Timestamp,
}

impl EventConfigurations {
    /// Whether nobody has ever said anything.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What was done to a thing, a type or a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "the names are AWS's")]
pub enum Operation {
    Created,
    Updated,
    Deleted,
    Added,
    Removed,
}

impl Operation {
    /// As AWS calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "CREATED",
            Self::Updated => "UPDATED",
            Self::Deleted => "DELETED",
            Self::Added => "ADDED",
            Self::Removed => "REMOVED",
        }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What was done.
    pub operation: Operation,
    /// To what, as it is now, or was last.
    pub subject: Subject,
}

/// What something was done to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A thing.
    Thing(Thing),
    /// A thing type.
    ThingType(ThingType),
    /// A thing and its type.
    Association {
        /// The thing.
        thing: ThingName,
        /// Its id.
        thing_id: Uuid,
        /// The type.
        thing_type: ThingTypeName,
    },
    /// A thing group.
    ThingGroup {
        /// The group.
        group: Box<ThingGroup>,
        /// Those above it, from the root, with their ids.
        above: Vec<(ThingGroupName, Uuid)>,
    },
    /// A thing in a group.
    Membership {
        /// The group, and its id.
        group: (ThingGroupName, Uuid),
        /// The thing, and its id.
        thing: (ThingName, Uuid),
        /// The name of the membership.
        membership: Uuid,
    },
    /// A group below another.
    Hierarchy {
        /// The upper one, and its id.
        parent: (ThingGroupName, Uuid),
        /// The lower one, and its id.
        child: (ThingGroupName, Uuid),
    },
}

impl Subject {
    fn kind(&self) -> EventType {
        match self {
            Self::Thing(_) => EventType::Thing,
            Self::ThingType(_) => EventType::ThingType,
            Self::Association { .. } => EventType::ThingTypeAssociation,
            Self::ThingGroup { .. } => EventType::ThingGroup,
            Self::Membership { .. } => EventType::ThingGroupMembership,
            Self::Hierarchy { .. } => EventType::ThingGroupHierarchy,
        }
    }
}

/// Events that wait, by their numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Events {
    waiting: BTreeMap<u64, Event>,
    pub(super) count: EventCount,
    /// Of what waits.
    bytes: usize,
}

impl Events {
    pub(super) fn put(&mut self, number: u64, event: Event) {
        self.bytes += event.bytes();
        self.waiting.insert(number, event);
    }

    pub(super) fn get(&self, number: u64) -> Option<&Event> {
        self.waiting.get(&number)
    }

    /// False if it does not wait.
    fn take(&mut self, number: u64) -> bool {
        let taken = self.waiting.remove(&number);
        self.bytes -= taken.as_ref().map_or(0, Event::bytes);
        taken.is_some()
    }
}

impl Event {
    /// About as many as it takes: names are short, attributes may be long.
    fn bytes(&self) -> usize {
        const NAMES: usize = 512;
        let of = |attributes: &Attributes| {
            attributes.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
        };
        let more = match &self.subject {
            Subject::Thing(thing) => of(&thing.attributes),
            Subject::ThingGroup { group, .. } => {
                let description = group.properties.description.as_ref();
                of(&group.properties.attributes) + description.map_or(0, String::len)
            }
            Subject::ThingType(it) => it.properties.description.as_ref().map_or(0, String::len),
            Subject::Association { .. }
            | Subject::Membership { .. }
            | Subject::Hierarchy { .. } => 0,
        };
        NAMES + more
    }
}

/// How many events there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EventCount {
    /// The number of the next one; a number means one event for ever.
    pub(super) next: u64,
    /// How many were lost.
    pub(super) lost: u64,
}

/// A change to which events there are, or to those that wait.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventCommand {
    /// Switches kinds of events on and off; what is not named stays.
    Configure {
        /// Whether each is wanted.
        enabled: BTreeMap<EventType, bool>,
        /// When.
        at: Timestamp,
    },
    /// These events were published.
    Published {
        /// Their numbers.
        numbers: Vec<u64>,
    },
}

impl Registry {
    pub(super) fn apply_to_events(&mut self, command: EventCommand) -> Outcome {
        match command {
            EventCommand::Configure { enabled, at } => {
                let configurations = &mut self.event_configurations;
                for (kind, is_enabled) in enabled {
                    match is_enabled {
                        true => configurations.enabled.insert(kind),
                        false => configurations.enabled.remove(&kind),
                    };
                }
                if configurations.created == Timestamp::default() {
                    configurations.created = at;
                }
                configurations.modified = at;
                self.dirty.insert(Key::EventConfigurations);
            }
            EventCommand::Published { numbers } => {
                for number in numbers {
                    if self.events.take(number) {
                        self.dirty.insert(Key::Event(number));
                    }
                }
            }
        }
        Outcome::Done
    }

    /// Remembers what happened, if somebody wants to hear of it.
    pub(super) fn happened(&mut self, operation: Operation, subject: Subject) {
        if !self.event_configurations.enabled.contains(&subject.kind()) {
            return;
        }
        let events = &mut self.events;
        let number = events.count.next;
        events.count.next += 1;
        events.put(number, Event { operation, subject });
        while events.waiting.len() > KEPT || events.bytes > KEPT_BYTES {
            let Some(lost) = events.waiting.first_key_value().map(|(number, _)| *number) else {
                break;
            };
            events.take(lost);
            events.count.lost += 1;
            self.dirty.insert(Key::Event(lost));
        }
        self.dirty.extend([Key::Event(number), Key::EventCount]);
    }

    /// Which events somebody wants.
    pub fn event_configurations(&self) -> &EventConfigurations {
        &self.event_configurations
    }

    /// The first events that wait, with their numbers.
    pub fn waiting_events(&self, limit: usize) -> Vec<(u64, Event)> {
        let first = self.events.waiting.iter().take(limit);
        first.map(|(number, event)| (*number, event.clone())).collect()
    }

    /// Whether any waits.
    pub fn has_events(&self) -> bool {
        !self.events.waiting.is_empty()
    }

    /// How many events were lost because too many waited.
    pub fn lost_events(&self) -> u64 {
        self.events.count.lost
    }

    /// A thing was created or has changed.
    pub(super) fn thing_happened(&mut self, old: Option<&Thing>, name: &ThingName) {
        if self.event_configurations.enabled.is_empty() {
            return;
        }
        let Some(new) = self.things.get(name).cloned() else { return };
        let (operation, old_type) = match old {
            Some(old) => (Operation::Updated, old.thing_type.clone()),
            None => (Operation::Created, None),
        };
        self.happened(operation, Subject::Thing(new.clone()));
        if old_type != new.thing_type {
            self.association_happened(Operation::Removed, &new, old_type);
            self.association_happened(Operation::Added, &new, new.thing_type.clone());
        }
    }

    /// A thing was deleted.
    pub(super) fn thing_ended(&mut self, thing: Thing) {
        self.association_happened(Operation::Removed, &thing, thing.thing_type.clone());
        self.happened(Operation::Deleted, Subject::Thing(thing));
    }

    fn association_happened(
        &mut self,
        operation: Operation,
        thing: &Thing,
        thing_type: Option<ThingTypeName>,
    ) {
        if let Some(thing_type) = thing_type {
            let (thing, thing_id) = (thing.name.clone(), thing.id);
            self.happened(operation, Subject::Association { thing, thing_id, thing_type });
        }
    }

    /// A thing group was created, has changed or is about to be deleted.
    pub(super) fn group_happened(&mut self, operation: Operation, name: &ThingGroupName) {
        let mut path = self.thing_group_path(name);
        let Some(group) = path.next().cloned() else { return };
        let mut above: Vec<_> = path.map(|group| (group.name.clone(), group.id)).collect();
        let parent = above.first().cloned();
        above.reverse();
        let child = (group.name.clone(), group.id);
        let group = Box::new(group);
        self.happened(operation, Subject::ThingGroup { group, above });
        let operation = match operation {
            Operation::Created => Operation::Added,
            Operation::Deleted => Operation::Removed,
            _ => return,
        };
        if let Some(parent) = parent {
            self.happened(operation, Subject::Hierarchy { parent, child });
        }
    }

    /// A thing has joined or left a group. Both are there.
    pub(super) fn membership_happened(
        &mut self,
        operation: Operation,
        thing: &ThingName,
        group: &ThingGroupName,
        membership: Uuid,
    ) {
        let ids =
            (self.things.get(thing).map(|it| it.id), self.thing_groups.get(group).map(|it| it.id));
        if let (Some(thing_id), Some(group_id)) = ids {
            let (group, thing) = ((group.clone(), group_id), (thing.clone(), thing_id));
            self.happened(operation, Subject::Membership { group, thing, membership });
        }
    }
}
