"""Events of the registry on `$aws/events/…`, as far as somebody has switched them on."""

import json
import time

import pytest

import rawmqtt as m
from test_authorities import refused

pytestmark = pytest.mark.skein
KINDS = ["THING", "THING_GROUP", "THING_TYPE", "THING_GROUP_MEMBERSHIP", "THING_GROUP_HIERARCHY", "THING_TYPE_ASSOCIATION"]
ACCOUNT = "000000000000"


@pytest.fixture(scope="module")
def iot(shared_broker):
    return shared_broker.boto("iot")


def configure(iot, kinds, enabled):
    iot.update_event_configurations(eventConfigurations={kind: {"Enabled": enabled} for kind in kinds})


@pytest.fixture
def events(iot, dial, name):
    """Switches events on; gives the next ones about what is called like the test, by topic."""
    listener = dial()
    listener.connect(f"{name}-listener")
    listener.subscribe("$aws/events/#", qos=1)

    def events(count):
        found = {}
        while len(found) < count:
            got = listener.receive()
            topic = got.topic.removeprefix("$aws/events/")
            if name in topic and not topic.startswith(("presence", "subscriptions")):
                assert topic not in found
                found[topic] = json.loads(got.payload)
        for event in found.values():
            assert abs(event.pop("timestamp") / 1000 - time.time()) < 60
            assert event.pop("accountId", ACCOUNT) == ACCOUNT
            assert len(event.pop("eventId")) == 36
        return found

    configure(iot, KINDS, True)
    yield events
    configure(iot, KINDS, False)


def test_events_are_off_until_somebody_wants_them(iot):
    described = iot.describe_event_configurations()
    assert set(KINDS) | {"JOB", "JOB_EXECUTION", "POLICY", "CERTIFICATE", "CA_CERTIFICATE"} == set(described["eventConfigurations"])
    configure(iot, ["THING", "POLICY"], True)
    configure(iot, ["POLICY"], False)
    described = iot.describe_event_configurations()
    assert [kind for kind, it in described["eventConfigurations"].items() if it["Enabled"]] == ["THING"]
    assert described["creationDate"] <= described["lastModifiedDate"]
    configure(iot, ["THING"], False)
    refused(configure, "InvalidRequestException", 400, iot=iot, kinds=["THINGS"], enabled=True)


def test_things_and_types(iot, events, name):
    properties = {"thingTypeDescription": "lamps", "searchableAttributes": ["a"], "mqtt5Configuration": {
        "propagatingAttributes": [{"userPropertyKey": "k", "connectionAttribute": "iot:ClientId"}]}}
    type_id = iot.create_thing_type(thingTypeName=name, thingTypeProperties=properties)["thingTypeId"]
    of_type = {
        "eventType": "THING_TYPE_EVENT", "thingTypeId": type_id, "thingTypeName": name, "isDeprecated": False,
        "deprecationDate": None, "searchableAttributes": ["a"], "description": "lamps",
        "propagatingAttributes": [{"userPropertyKey": "k", "connectionAttribute": "iot:ClientId"}],
    }
    assert events(1) == {f"thingType/{name}/created": {"operation": "CREATED", **of_type}}
    thing_id = iot.create_thing(
        thingName=name, thingTypeName=name, attributePayload={"attributes": {"a": "1"}},
    )["thingId"]
    thing = lambda operation, version, of, **attributes: {
        "eventType": "THING_EVENT", "operation": operation, "thingId": thing_id, "thingName": name,
        "versionNumber": version, "thingTypeName": of, "attributes": attributes,
    }
    association = lambda operation: {
        "eventType": "THING_TYPE_ASSOCIATION_EVENT", "operation": operation, "thingId": thing_id, "thingName": name,
        "thingTypeName": name,
    }
    path = f"thingTypeAssociation/thing/{name}/thingType/{name}"
    assert events(2) == {
        f"thing/{name}/created": thing("CREATED", 1, name, a="1"), f"{path}/added": association("ADDED"),
    }
    iot.update_thing(thingName=name, removeThingType=True)
    assert events(2) == {
        f"thing/{name}/updated": thing("UPDATED", 2, None, a="1"), f"{path}/removed": association("REMOVED"),
    }
    iot.delete_thing(thingName=name)
    assert events(1) == {f"thing/{name}/deleted": thing("DELETED", 2, None, a="1")}
    iot.deprecate_thing_type(thingTypeName=name)
    [(topic, event)] = events(1).items()
    assert topic == f"thingType/{name}/updated"
    assert event["isDeprecated"] and abs(event["deprecationDate"] / 1000 - time.time()) < 60


def test_groups(iot, events, name):
    root, child = f"{name}-root", f"{name}-child"
    arn = lambda kind, name: f"arn:aws:iot:us-east-1:{ACCOUNT}:{kind}/{name}"
    root_id = iot.create_thing_group(thingGroupName=root)["thingGroupId"]
    group = lambda operation, id, name, version=1, **more: {
        "eventType": "THING_GROUP_EVENT", "operation": operation, "thingGroupId": id, "thingGroupName": name,
        "versionNumber": version, "parentGroupName": None, "parentGroupId": None, "description": None,
        "rootToParentThingGroups": [], "attributes": {}, "dynamicGroupMappingId": None, **more,
    }
    assert events(1) == {f"thingGroup/{root}/created": group("CREATED", root_id, root)}
    child_id = iot.create_thing_group(thingGroupName=child, parentGroupName=root)["thingGroupId"]
    below = {
        "parentGroupName": root, "parentGroupId": root_id,
        "rootToParentThingGroups": [{"groupArn": arn("thinggroup", root), "groupId": root_id}],
    }
    hierarchy = lambda operation: {
        "eventType": "THING_GROUP_HIERARCHY_EVENT", "operation": operation, "thingGroupId": root_id,
        "thingGroupName": root, "childGroupId": child_id, "childGroupName": child,
    }
    path = f"thingGroupHierarchy/thingGroup/{root}/childThingGroup/{child}"
    assert events(2) == {
        f"thingGroup/{child}/created": group("CREATED", child_id, child, **below), f"{path}/added": hierarchy("ADDED"),
    }
    iot.update_thing_group(thingGroupName=root, thingGroupProperties={"thingGroupDescription": "all"})
    assert events(1) == {f"thingGroup/{root}/updated": group("UPDATED", root_id, root, 2, description="all")}

    thing_id = iot.create_thing(thingName=name)["thingId"]
    iot.add_thing_to_thing_group(thingName=name, thingGroupName=child)
    path_of_thing = f"thingGroupMembership/thingGroup/{child}/thing/{name}"
    found = events(2)
    added = found[f"{path_of_thing}/added"]
    membership = added.pop("membershipId")
    assert added == {
        "eventType": "THING_GROUP_MEMBERSHIP_EVENT", "operation": "ADDED", "groupArn": arn("thinggroup", child),
        "groupId": child_id, "thingArn": arn("thing", name), "thingId": thing_id,
    }
    # It is there already: nothing happens.
    iot.add_thing_to_thing_group(thingName=name, thingGroupName=child)
    iot.remove_thing_from_thing_group(thingName=name, thingGroupName=child)
    assert events(1) == {f"{path_of_thing}/removed": added | {"operation": "REMOVED", "membershipId": membership}}
    iot.delete_thing_group(thingGroupName=child)
    assert set(events(2)) == {f"thingGroup/{child}/deleted", f"{path}/removed"}


def test_what_a_template_does_is_told(iot, events, name):
    certificate = iot.create_keys_and_certificate()["certificateId"]
    body = {"Resources": {
        "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": name}},
        "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": certificate}},
    }}
    iot.register_thing(templateBody=json.dumps(body))
    assert list(events(1)) == [f"thing/{name}/created"]
    iot.register_thing(templateBody=json.dumps(body))
    iot.delete_thing(thingName=f"{name}-nobody")
    iot.create_thing(thingName=f"{name}-next")
    assert list(events(1)) == [f"thing/{name}-next/created"], "what changes nothing is no event"


def test_many_events_all_arrive(iot, events, name):
    names = {f"{name}-{number}" for number in range(250)}
    for thing in names:
        iot.create_thing(thingName=thing)
    assert set(events(250)) == {f"thing/{thing}/created" for thing in names}


def test_what_waited_is_told_after_a_crash(fresh_broker, name):
    """Killed again and again: each creation that was answered is told to a session that lasts."""
    broker = fresh_broker
    iot = broker.boto("iot")
    configure(iot, ["THING"], True)

    def listen(id=f"{name}-listener"):
        client = m.Client(broker.plain, 5)
        client.connect(id, clean=False, props={"session_expiry_interval": 3600})
        return client

    with listen() as listener:
        listener.subscribe("$aws/events/thing/#", qos=1)
    made = set()
    for round in range(3):
        for number in range(20):
            iot.create_thing(thingName=f"{name}-{round}-{number}")
            made.add(f"{name}-{round}-{number}")
        broker.kill()
        broker.start()
        iot = broker.boto("iot")
    told = set()
    with listen() as listener:
        while told != made:
            told.add(json.loads(listener.receive().payload)["thingName"])
