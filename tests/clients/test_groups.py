"""Thing groups, billing groups and tags through boto3; policies of groups on real connections."""

import botocore.exceptions
import pytest

import aws
import rawmqtt as m
from brokers import policy, wait_until

pytestmark = pytest.mark.skein
NOT_AUTHORIZED = 0x87
# How long a change may take to reach an open connection.
SOON = 1.0


@pytest.fixture(scope="module")
def iot(shared_broker):
    return shared_broker.boto("iot")


def refused(call, code, status, **parameters):
    """The call fails so; gives the message."""
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(**parameters)
    answer = error.value.response
    assert (answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]) == (code, status)
    return answer


def group(iot, name, **more):
    return iot.create_thing_group(thingGroupName=name, **more)


def names(groups):
    return [group["groupName"] for group in groups]


def test_a_group_is_described_as_it_was_made(iot, name):
    group(iot, f"{name}-root")
    properties = {"thingGroupDescription": "trucks of the north", "attributePayload": {"attributes": {"a": "1"}}}
    made = group(
        iot, name, parentGroupName=f"{name}-root", thingGroupProperties=properties, tags=[{"Key": "k", "Value": "v"}],
    )
    assert made["thingGroupArn"].endswith(f":thinggroup/{name}")
    again = group(iot, name, parentGroupName=f"{name}-root", thingGroupProperties=properties)
    assert again["thingGroupId"] == made["thingGroupId"]
    found = iot.describe_thing_group(thingGroupName=name)
    assert found["version"] == 1 and found["thingGroupProperties"] == properties
    metadata = found["thingGroupMetadata"]
    assert metadata["parentGroupName"] == f"{name}-root"
    assert names(metadata["rootToParentThingGroups"]) == [f"{name}-root"]
    assert metadata["creationDate"].year >= 2024
    answer = refused(group, "ResourceAlreadyExistsException", 409, iot=iot, name=name)
    assert answer["resourceArn"] == made["thingGroupArn"]
    refused(iot.describe_thing_group, "ResourceNotFoundException", 404, thingGroupName=f"{name}-x")
    refused(group, "ResourceNotFoundException", 404, iot=iot, name=f"{name}-y", parentGroupName=f"{name}-x")
    refused(group, "InvalidRequestException", 400, iot=iot, name=f"{name}%20y")


def test_updates_count_versions(iot, name):
    group(iot, name, thingGroupProperties={"attributePayload": {"attributes": {"a": "1", "b": "2"}}})
    update = lambda **more: iot.update_thing_group(thingGroupName=name, **more)
    attributes = {"attributePayload": {"attributes": {"a": "", "c": "3"}, "merge": True}}
    assert update(thingGroupProperties=attributes, expectedVersion=1)["version"] == 2
    found = iot.describe_thing_group(thingGroupName=name)["thingGroupProperties"]
    assert found["attributePayload"]["attributes"] == {"b": "2", "c": "3"}
    refused(update, "VersionConflictException", 409, thingGroupProperties={}, expectedVersion=1)
    many = {f"a{number}": "1" for number in range(51)}
    properties = {"attributePayload": {"attributes": many}}
    refused(update, "InvalidRequestException", 400, thingGroupProperties=properties)
    refused(iot.delete_thing_group, "VersionConflictException", 409, thingGroupName=name, expectedVersion=1)
    iot.delete_thing_group(thingGroupName=name, expectedVersion=2)
    iot.delete_thing_group(thingGroupName=name)


def test_things_join_and_leave(iot, name):
    for child, parent in [("root", None), ("left", "root"), ("right", "root"), ("other", None)]:
        more = {"parentGroupName": f"{name}-{parent}"} if parent else {}
        group(iot, f"{name}-{child}", **more)
    thing = iot.create_thing(thingName=f"{name}-lamp")
    arn = iot.describe_thing_group(thingGroupName=f"{name}-left")["thingGroupArn"]
    for _ in range(2):
        iot.add_thing_to_thing_group(thingGroupArn=arn, thingArn=thing["thingArn"])
    iot.add_thing_to_thing_group(thingGroupName=f"{name}-other", thingName=f"{name}-lamp")
    of_thing = lambda: names(iot.list_thing_groups_for_thing(thingName=f"{name}-lamp")["thingGroups"])
    assert of_thing() == [f"{name}-left", f"{name}-other"]
    both = {"thingGroupName": f"{name}-right", "thingName": f"{name}-lamp"}
    refused(iot.add_thing_to_thing_group, "InvalidRequestException", 400, **both)
    iot.update_thing_groups_for_thing(
        thingName=f"{name}-lamp", thingGroupsToAdd=[f"{name}-right"], thingGroupsToRemove=[f"{name}-left"],
    )
    assert of_thing() == [f"{name}-other", f"{name}-right"]
    members = lambda **more: iot.list_things_in_thing_group(thingGroupName=f"{name}-root", **more)["things"]
    assert members() == [] and members(recursive=True) == [f"{name}-lamp"]
    message = refused(iot.delete_thing_group, "InvalidRequestException", 400, thingGroupName=f"{name}-root")
    assert "still child groups attached" in message["Error"]["Message"]
    iot.remove_thing_from_thing_group(**both)
    iot.remove_thing_from_thing_group(**both)
    assert of_thing() == [f"{name}-other"]
    iot.delete_thing(thingName=f"{name}-lamp")
    assert iot.list_things_in_thing_group(thingGroupName=f"{name}-other")["things"] == []
    for operation in (iot.add_thing_to_thing_group, iot.remove_thing_from_thing_group):
        refused(operation, "ResourceNotFoundException", 404, **both)
        refused(operation, "InvalidRequestException", 400, thingGroupName=f"{name}-right")


def test_lists_have_pages(iot, name):
    for number in range(5):
        group(iot, f"{name}-{number}")
    found, token = [], {}
    while True:
        page = iot.list_thing_groups(namePrefixFilter=f"{name}-", maxResults=2, **token)
        found += names(page["thingGroups"])
        if "nextToken" not in page:
            break
        token = {"nextToken": page["nextToken"]}
    assert found == [f"{name}-{number}" for number in range(5)]
    refused(iot.list_thing_groups, "InvalidRequestException", 400, nextToken=page.get("nextToken", "made-up"))
    refused(iot.list_thing_groups, "ResourceNotFoundException", 404, parentGroup=f"{name}-x")


def test_dynamic_groups_wait_for_an_index(shared_broker, name):
    iot = shared_broker.boto("iot", parameter_validation=False)
    create = lambda **more: iot.create_dynamic_thing_group(**{"thingGroupName": f"{name}-d", "queryString": "*"} | more)
    update = lambda **more: iot.update_dynamic_thing_group(**{"thingGroupName": f"{name}-d", "thingGroupProperties": {}} | more)
    delete = iot.delete_dynamic_thing_group
    whole = {
        "indexName": "AWS_Things", "queryVersion": "2017-09-30",
        "thingGroupProperties": {"thingGroupDescription": "warm", "attributePayload": {"attributes": {"a": "1"}}},
    }
    for call, more in [(create, whole | {"tags": [{"Key": "k", "Value": "v"}]}), (update, whole | {"expectedVersion": 1})]:
        message = refused(call, "IndexNotReadyException", 400, **more)["Error"]["Message"]
        assert "fleet indexing is not part of this build" in message and f"{name}-d" in message
    delete(thingGroupName=f"{name}-d", expectedVersion=1)
    many = {"attributePayload": {"attributes": {f"a{number}": "1" for number in range(51)}}}
    for call, more, why in [
        (create, {"thingGroupName": f"{name} d"}, "thingGroupName"),
        (update, {"thingGroupName": f"{name} d"}, "thingGroupName"),
        (delete, {"thingGroupName": f"{name} d"}, "thingGroupName"),
        (create, {"queryString": None}, "queryString is missing"),
        (create, {"queryString": ""}, "queryString is empty"),
        (update, {"thingGroupProperties": None}, "thingGroupProperties is missing"),
        (update, {"queryString": ""}, "queryString"),
        (create, {"indexName": "AWS_ThingGroups"}, "indexName"),
        (update, {"queryVersion": "2016-01-01"}, "queryVersion"),
        (create, {"thingGroupProperties": many}, "attributes"),
        (update, {"thingGroupProperties": many}, "attributes"),
        (create, {"thingGroupProperties": {"thingGroupDescription": "a\n"}}, "description"),
        (create, {"tags": [{"Key": "k", "Value": "v"}] * 2}, "twice"),
    ]:
        assert why in refused(call, "InvalidRequestException", 400, **more)["Error"]["Message"], more
    missing = iot.describe_thing_group
    refused(missing, "ResourceNotFoundException", 404, thingGroupName=f"{name}-d")


def test_a_static_group_is_no_dynamic_one(iot, name):
    made = group(iot, name)
    before = iot.describe_thing_group(thingGroupName=name)
    answer = refused(
        iot.create_dynamic_thing_group, "ResourceAlreadyExistsException", 409, thingGroupName=name, queryString="*",
    )
    assert answer["resourceArn"] == made["thingGroupArn"]
    properties = {"thingGroupDescription": "other"}
    for call, more, instead in [
        (iot.update_dynamic_thing_group, {"thingGroupProperties": properties}, "UpdateThingGroup"),
        (iot.delete_dynamic_thing_group, {}, "DeleteThingGroup"),
    ]:
        answer = refused(call, "InvalidRequestException", 400, thingGroupName=name, **more)
        assert instead in answer["Error"]["Message"]
    after = iot.describe_thing_group(thingGroupName=name)
    assert {**before, "ResponseMetadata": None} == {**after, "ResponseMetadata": None}


def test_billing_groups(iot, name):
    made = iot.create_billing_group(
        billingGroupName=name, billingGroupProperties={"billingGroupDescription": "north"},
    )
    iot.create_billing_group(billingGroupName=f"{name}-2")
    iot.create_thing(thingName=f"{name}-a", billingGroupName=name)
    iot.create_thing(thingName=f"{name}-b")
    iot.add_thing_to_billing_group(billingGroupArn=made["billingGroupArn"], thingName=f"{name}-b")
    assert iot.list_things_in_billing_group(billingGroupName=name)["things"] == [f"{name}-a", f"{name}-b"]
    assert iot.describe_thing(thingName=f"{name}-b")["billingGroupName"] == name
    second = {"billingGroupName": f"{name}-2", "thingName": f"{name}-b"}
    refused(iot.add_thing_to_billing_group, "InvalidRequestException", 400, **second)
    refused(iot.create_thing, "ResourceNotFoundException", 404, thingName=f"{name}-c", billingGroupName=f"{name}-x")
    iot.remove_thing_from_billing_group(billingGroupName=name, thingName=f"{name}-b")
    iot.add_thing_to_billing_group(**second)
    assert names(iot.list_billing_groups(namePrefixFilter=name)["billingGroups"]) == [name, f"{name}-2"]
    properties = {"billingGroupDescription": "south"}
    update = {"billingGroupName": name, "billingGroupProperties": properties, "expectedVersion": 1}
    assert iot.update_billing_group(**update)["version"] == 2
    refused(iot.update_billing_group, "VersionConflictException", 409, **update)
    found = iot.describe_billing_group(billingGroupName=name)
    assert found["billingGroupProperties"] == properties and found["billingGroupId"] == made["billingGroupId"]
    iot.delete_billing_group(billingGroupName=name)
    assert "billingGroupName" not in iot.describe_thing(thingName=f"{name}-a")
    refused(iot.describe_billing_group, "ResourceNotFoundException", 404, billingGroupName=name)


def test_tags(iot, name):
    arns = [
        group(iot, name)["thingGroupArn"],
        iot.create_billing_group(billingGroupName=name)["billingGroupArn"],
        iot.create_thing_type(thingTypeName=name)["thingTypeArn"],
        iot.create_policy(policyName=name, policyDocument=policy(("Allow", "iot:*", "*")))["policyArn"],
    ]
    tags = lambda arn: {tag["Key"]: tag["Value"] for tag in iot.list_tags_for_resource(resourceArn=arn)["tags"]}
    for arn in arns:
        iot.tag_resource(resourceArn=arn, tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": ""}])
        iot.tag_resource(resourceArn=arn, tags=[{"Key": "a", "Value": "ä 2"}])
        assert tags(arn) == {"a": "ä 2", "b": ""}
        iot.untag_resource(resourceArn=arn, tagKeys=["b", "x"])
        assert tags(arn) == {"a": "ä 2"}
        many = [{"Key": f"k{number}", "Value": ""} for number in range(50)]
        refused(iot.tag_resource, "LimitExceededException", 410, resourceArn=arn, tags=many)
    thing = iot.create_thing(thingName=name)["thingArn"]
    refused(iot.list_tags_for_resource, "InvalidRequestException", 400, resourceArn=thing)
    refused(iot.list_tags_for_resource, "ResourceNotFoundException", 404, resourceArn=f"{arns[0]}-x")


def test_policies_of_groups_reach_open_connections(skein, iot, dial, tmp_path, name):
    """They decide for what is attached to a thing of the group and connects by the thing's name."""
    who = aws.Identity(skein, tmp_path, f"{name}-own", policy(("Allow", "iot:Connect", "*")))
    for child, parent in [("root", None), ("leaf", "root")]:
        more = {"parentGroupName": f"{name}-{parent}"} if parent else {}
        group(iot, f"{name}-{child}", **more)
    iot.create_thing(thingName=name)
    iot.attach_thing_principal(thingName=name, principal=who.arn)
    root = iot.describe_thing_group(thingGroupName=f"{name}-root")["thingGroupArn"]
    leaf = iot.describe_thing_group(thingGroupName=f"{name}-leaf")["thingGroupArn"]
    iot.create_policy(policyName=f"{name}-group", policyDocument=policy(("Allow", "iot:Publish", f"topic/{name}/*")))
    iot.attach_policy(policyName=f"{name}-group", target=root)
    assert names_of(iot.list_attached_policies(target=leaf)) == []
    assert names_of(iot.list_attached_policies(target=leaf, recursive=True)) == [f"{name}-group"]
    assert iot.list_targets_for_policy(policyName=f"{name}-group")["targets"] == [root]

    client = dial(5, "tls", device=who.files)
    client.connect(name)
    may = lambda: client.publish(f"{name}/a", b"", qos=1, check=False) != NOT_AUTHORIZED
    effective = lambda: [
        it["policyName"] for it in iot.get_effective_policies(principal=who.arn, thingName=name)["effectivePolicies"]
    ]
    assert not may() and effective() == [f"{name}-own"]
    iot.add_thing_to_thing_group(thingGroupName=f"{name}-leaf", thingName=name)
    wait_until("the group's policy counts", may, SOON)
    assert effective() == [f"{name}-own", f"{name}-group"]
    other = dial(5, "tls", device=who.files)
    other.connect(f"{name}-other")
    assert other.publish(f"{name}/a", b"", qos=1, check=False) == NOT_AUTHORIZED
    iot.detach_policy(policyName=f"{name}-group", target=root)
    wait_until("it counts no more", lambda: not may(), SOON)
    iot.attach_policy(policyName=f"{name}-group", target=leaf)
    wait_until("it counts again", may, SOON)
    question = {"actionType": "PUBLISH", "resources": [f"arn:aws:iot:us-east-1:000000000000:topic/{name}/a"]}
    test = lambda client: iot.test_authorization(principal=who.arn, authInfos=[question], clientId=client)
    assert test(name)["authResults"][0]["authDecision"] == "ALLOWED"
    assert test(f"{name}-other")["authResults"][0]["authDecision"] == "IMPLICIT_DENY"
    iot.delete_thing_group(thingGroupName=f"{name}-leaf")
    wait_until("it ended with its group", lambda: not may(), SOON)
    iot.delete_policy(policyName=f"{name}-group")
    refused(iot.attach_policy, "ResourceNotFoundException", 404, policyName=f"{name}-own", target=leaf)


def names_of(answer):
    return [policy["policyName"] for policy in answer["policies"]]
