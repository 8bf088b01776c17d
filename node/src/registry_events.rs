//! Events of the registry on `$aws/events/…`: how they are written, and their way out of the registry.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use api::Backend as _;
use bytes::Bytes;
use fleet::registry::{
    Command, Event, EventCommand, PropagatedFrom, PropagatingAttribute, Subject, ThingGroupName,
};
use futures_util::future::join_all;
use mqtt::QoS;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tracing::warn;
use uuid::Uuid;

use crate::backend::Backend;
use crate::clock::now_ms;
use crate::core::Core;
use crate::publication::Kept;
use crate::shared::Shared;

/// How long to wait when an event could not be published, or not be forgotten.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Says when the next events may be published, however this ends.
struct Announcing(Arc<Shared>);

impl Drop for Announcing {
    fn drop(&mut self) {
        self.0.announcing.store(false, Ordering::Release);
    }
}

/// Publishes events, and lets the registry forget those that were: the others are published again.
pub fn publish(core: &Rc<Core>, events: Vec<(u64, Event)>) {
    let shared = Arc::clone(&core.shared);
    let announcing = Announcing(Arc::clone(&shared));
    actix_rt::spawn(async move {
        let backend = Backend::new(Arc::clone(&shared));
        let now = now_ms();
        let publishing = events.iter().map(|(number, event)| {
            let (topic, body) = written(*number, event, &shared.arns, now);
            backend.publish_kept(Kept {
                topic: topic.into(),
                payload: Bytes::from(body.to_string()),
                qos: QoS::AtLeastOnce as u32,
                published_at: now,
                ..Kept::default()
            })
        });
        let published = join_all(publishing).await;
        let safe = events.iter().zip(&published).filter(|(_, published)| published.is_ok());
        let numbers: Vec<u64> = safe.map(|((number, _), _)| *number).collect();
        let all = numbers.len() == events.len();
        let command = Command::Event(EventCommand::Published { numbers });
        let forgotten = backend.registry_propose(command).await;
        if !all || forgotten.is_err() {
            warn!(
                "events of the registry are published again: a group that they belong to, or the \
                 registry, stores nothing now"
            );
            tokio::time::sleep(AGAIN_AFTER).await;
        }
        drop(announcing);
    });
}

/// The topic of an event and what is published there.
fn written(number: u64, event: &Event, arns: &policy::Arns, now_ms: u64) -> (String, Value) {
    let (account, prefix) = (&arns.account, arns.prefix());
    let arn = |kind: &str, name: &str| format!("{prefix}{kind}/{name}");
    let group_arn = |name: &ThingGroupName| arn("thinggroup", name.as_str());
    let operation = event.operation.as_str();
    let verb = operation.to_ascii_lowercase();
    let (topic, kind, fields) = match &event.subject {
        Subject::Thing(thing) => (
            format!("thing/{}/{verb}", thing.name),
            "THING_EVENT",
            json!({
                "thingId": thing.id,
                "thingName": thing.name,
                "versionNumber": thing.version,
                "thingTypeName": thing.thing_type,
                "attributes": *thing.attributes,
            }),
        ),
        Subject::ThingType(thing_type) => (
            format!("thingType/{}/{verb}", thing_type.name),
            "THING_TYPE_EVENT",
            json!({
                "thingTypeId": thing_type.id,
                "thingTypeName": thing_type.name,
                "isDeprecated": thing_type.deprecated.is_some(),
                "deprecationDate": thing_type.deprecated,
                "searchableAttributes": thing_type.properties.searchable_attributes,
                "propagatingAttributes":
                    thing_type.properties.propagating_attributes.iter().map(propagating)
                        .collect::<Vec<_>>(),
                "description": thing_type.properties.description,
            }),
        ),
        Subject::Association { thing, thing_id, thing_type } => (
            format!("thingTypeAssociation/thing/{thing}/thingType/{thing_type}/{verb}"),
            "THING_TYPE_ASSOCIATION_EVENT",
            json!({ "thingId": thing_id, "thingName": thing, "thingTypeName": thing_type }),
        ),
        Subject::ThingGroup { group, above } => (
            format!("thingGroup/{}/{verb}", group.name),
            "THING_GROUP_EVENT",
            json!({
                "thingGroupId": group.id,
                "thingGroupName": group.name,
                "versionNumber": group.version,
                "parentGroupName": group.parent,
                "parentGroupId": above.last().map(|(_, id)| id),
                "description": group.properties.description,
                "rootToParentThingGroups": above.iter().map(|(name, id)| json!({
                    "groupArn": group_arn(name),
                    "groupId": id,
                })).collect::<Vec<_>>(),
                "attributes": group.properties.attributes,
                "dynamicGroupMappingId": null,
            }),
        ),
        Subject::Membership { group: (group, group_id), thing: (thing, thing_id), membership } => (
            format!("thingGroupMembership/thingGroup/{group}/thing/{thing}/{verb}"),
            "THING_GROUP_MEMBERSHIP_EVENT",
            json!({
                "groupArn": group_arn(group),
                "groupId": group_id,
                "thingArn": arn("thing", thing.as_str()),
                "thingId": thing_id,
                "membershipId": membership,
            }),
        ),
        Subject::Hierarchy { parent: (parent, parent_id), child: (child, child_id) } => (
            format!("thingGroupHierarchy/thingGroup/{parent}/childThingGroup/{child}/{verb}"),
            "THING_GROUP_HIERARCHY_EVENT",
            json!({
                "thingGroupId": parent_id,
                "thingGroupName": parent,
                "childGroupId": child_id,
                "childGroupName": child,
            }),
        ),
    };
    let mut body = json!({
        "eventType": kind,
        "eventId": event_id(account, number, &topic, &fields),
        "timestamp": now_ms,
        "operation": operation,
    });
    if !matches!(event.subject, Subject::Association { .. }) {
        body["accountId"] = account.as_str().into();
    }
    if let (Value::Object(body), Value::Object(fields)) = (&mut body, fields) {
        body.extend(fields);
    }
    (format!("$aws/events/{topic}"), body)
}

/// The same for an event however often it is published. Numbers begin anew from those of a backup that
/// is restored, so what happened belongs to it.
fn event_id(account: &str, number: u64, topic: &str, fields: &Value) -> Uuid {
    let hash = Sha256::digest(format!("{account}/{number}/{topic}/{fields}"));
    uuid::Builder::from_random_bytes(std::array::from_fn(|at| hash[at])).into_uuid()
}

fn propagating(attribute: &PropagatingAttribute) -> Value {
    let (name, value) = match &attribute.source {
        PropagatedFrom::ThingAttribute(name) => ("thingAttribute", name),
        PropagatedFrom::ConnectionAttribute(name) => ("connectionAttribute", name),
    };
    json!({ "userPropertyKey": attribute.user_property_key, name: value })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fleet::registry::{Operation, Thing, ThingName, Timestamp};

    use super::*;

    fn id(number: u64, name: &str, version: u64, now_ms: u64) -> String {
        let arns = policy::Arns {
            partition: "aws".into(),
            region: "us-east-1".into(),
            account: "000000000000".into(),
        };
        let thing = Thing {
            name: ThingName::new(name).unwrap(),
            id: Uuid::from_u128(1),
            thing_type: None,
            attributes: Arc::new(BTreeMap::new()),
            version,
            billing_group: None,
            created: Timestamp(0),
        };
        let event = Event { operation: Operation::Updated, subject: Subject::Thing(thing) };
        written(number, &event, &arns, now_ms).1["eventId"].as_str().unwrap().to_owned()
    }

    #[test]
    fn an_event_has_an_id_of_its_own_each_time_it_is_published() {
        let first = id(7, "lamp", 2, 1_000);
        assert_eq!(id(7, "lamp", 2, 2_000), first);
        // After a backup was restored, the number is that of another event.
        for other in [id(8, "lamp", 2, 1_000), id(7, "lamp", 3, 1_000), id(7, "door", 2, 1_000)] {
            assert_ne!(other, first);
        }
    }
}
