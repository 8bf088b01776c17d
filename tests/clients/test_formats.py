"""Data that each released format wrote are read by this version: nothing in them is lost or changed."""

import json
import subprocess

import pytest

import formats
import rawmqtt as m
from brokers import skein_binary

pytestmark = pytest.mark.skein


@pytest.fixture(params=formats.versions(), ids=lambda version: f"format {version}")
def node(request, tmp_path):
    node = formats.unpack(request.param, tmp_path)
    yield node.start()
    node.stop()


def received(client, count):
    return [client.receive(timeout=20) for _ in range(count)]


def numbers(*range_):
    return [b"%d" % number for number in range(*range_)]


def test_things_certificates_and_policies(node):
    iot = formats.aws(node, "iot")
    lamp = iot.describe_thing(thingName="lamp")
    assert (lamp["thingTypeName"], lamp["attributes"]) == ("lamps", {"room": "hall"})
    assert iot.describe_thing(thingName="lantern")["version"] == 1
    (principal,) = iot.list_thing_principals(thingName="lamp")["principals"]
    known = iot.describe_certificate(certificateId=principal.split("/")[-1])["certificateDescription"]
    assert known["status"] == "ACTIVE"
    (policy,) = iot.list_attached_policies(target=principal)["policies"]
    assert policy["policyName"] == "kept"
    document = iot.get_policy(policyName="kept")["policyDocument"]
    assert json.loads(document) == json.loads(formats.POLICY)


def test_groups(node, request):
    iot = formats.aws(node, "iot")
    members = lambda: iot.list_things_in_thing_group(thingGroupName="house", recursive=True)["things"]
    if request.node.callspec.params["node"] < 2:
        iot.create_thing_group(thingGroupName="house")
        assert members() == []
        return
    assert members() == ["lamp"]
    assert iot.describe_thing(thingName="lamp")["billingGroupName"] == "lights"


def test_shadows(node):
    data = formats.aws(node, "iot-data")
    classic = json.loads(data.get_thing_shadow(thingName="lamp")["payload"].read())
    assert (classic["state"]["desired"], classic["version"]) == ({"on": True}, 1)
    blue = json.loads(data.get_thing_shadow(thingName="lamp", shadowName="blue")["payload"].read())
    assert blue["state"]["reported"] == {"n": 1}
    with pytest.raises(data.exceptions.ResourceNotFoundException):
        data.get_thing_shadow(thingName="gone")


def test_retained_messages(node):
    reader = formats.connect(node, "reader", clean=True, props=None)
    reader.subscribe("kept/#", qos=1)
    assert [(it.topic, it.payload) for it in received(reader, 1)] == [("kept/one", b"one")]
    reader.nothing_more()


def test_queues_and_what_was_under_way(node):
    """Everything that was acknowledged, once, in the order of each publisher."""
    away = formats.connect(node, "away")
    assert away.connack.session_present
    got = received(away, 32)
    assert [it.payload for it in got if it.topic == "queue/a"] == numbers(30)
    assert sorted(it.payload for it in got if it.topic != "queue/a") == [b"last words", b"unfinished"]
    first = next(it for it in got if it.topic == "queue/a")
    assert first.qos == 1 and first.props["content_type"] == "text/plain"
    assert first.props["user_property"] == [("part", "checkpoint")]
    assert first.props["subscription_identifier"] in (7, [7])
    away.nothing_more()


def test_a_shared_subscription(node):
    member = formats.connect(node, "member")
    assert member.connack.session_present
    assert [it.payload for it in received(member, 10)] == numbers(10)
    member.nothing_more()


def test_exchanges_that_had_begun(node):
    half = formats.connect(node, "half")
    assert half.connack.session_present
    release = half.expect(m.PUBREL)
    half.send(m.ack(m.PUBCOMP, release.id))
    half.send(m.publish("queue/half", b"unfinished", 2, dup=True, id=77))
    assert half.expect(m.PUBREC).reason == 0
    half.send(m.ack(m.PUBREL, 77))
    assert half.expect(m.PUBCOMP).reason == 0
    half.nothing_more()
    away = formats.connect(node, "away")
    assert [it.payload for it in received(away, 32)].count(b"unfinished") == 1


def test_it_goes_on_after_a_restart(node):
    publisher = formats.connect(node, "another", clean=True, props=None)
    publisher.publish("queue/b", b"new", qos=2)
    node.stop()
    node.start()
    away = formats.connect(node, "away")
    assert received(away, 33)[-1].payload == b"new"


@pytest.mark.parametrize("version", formats.versions())
def test_backups(version, tmp_path):
    formats.unpack(version, tmp_path)
    (backup,) = (tmp_path / "backups").iterdir()
    words = [str(skein_binary()), "cluster", "check", str(backup)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
