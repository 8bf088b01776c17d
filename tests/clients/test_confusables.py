"""What looks alike and is written otherwise: refused in names, and in topics and client ids something else."""

import json

import pytest

import aws
import rawmqtt as m
from brokers import policy
from test_authorities import refused

pytestmark = pytest.mark.skein
NOT_AUTHORIZED = 0x87
# What a reader takes for `café-lamp`, and for nothing that is not among these.
LOOKS_LIKE = {
    "composed": "caf\u00e9-lamp",
    "decomposed": "cafe\u0301-lamp",
    "Cyrillic": "c\u0430f\u00e9-lamp",
    "full-width": "\uff43af\u00e9-lamp",
    "joined": "caf\u00e9\u200d-lamp",
    "zero-width space": "caf\u00e9-\u200blamp",
    "byte order mark": "\ufeffcaf\u00e9-lamp",
    "soft hyphen": "caf\u00e9\u00ad-lamp",
    "hyphen": "caf\u00e9\u2010lamp",
    "right to left": "caf\u00e9-\u202elamp",
}
ALLOWED = LOOKS_LIKE["composed"]
OTHERS = {what: text for what, text in LOOKS_LIKE.items() if text != ALLOWED}
# Names have no letter but ASCII's: what looks like `lamp`, or is it when case or form are folded.
NO_NAMES = {
    "Cyrillic": "l\u0430mp",
    "Greek": "\u03b9amp",
    "full-width": "\uff4c\uff41\uff4d\uff50",
    "mathematical": "\U0001d425amp",
    "Kelvin sign": "\u212aamp",
    "long s": "\u017flamp",
    "dotless": "l\u0131amp",
    "joined": "la\u200dmp",
    "not joined": "la\u200cmp",
    "zero-width space": "lamp\u200b",
    "byte order mark": "\ufefflamp",
    "composed": "l\u00e1mp",
    "decomposed": "la\u0301mp",
    "soft hyphen": "la\u00admp",
    "right to left": "\u202elamp",
    "Arabic digit": "lamp\u0661",
    "full-width digit": "lamp\uff11",
    "no-break space": "lamp\u00a0",
    "hyphen": "lamp\u20101",
}
TEMPLATE = json.dumps({"Resources": {}})
CREATE = {
    "thing": lambda iot, name: (iot.create_thing, dict(thingName=name)),
    "thing type": lambda iot, name: (iot.create_thing_type, dict(thingTypeName=name)),
    "thing group": lambda iot, name: (iot.create_thing_group, dict(thingGroupName=name)),
    "billing group": lambda iot, name: (iot.create_billing_group, dict(billingGroupName=name)),
    "policy": lambda iot, name: (iot.create_policy, dict(policyName=name, policyDocument=policy(("Allow", "iot:*", "*")))),
    "role alias": lambda iot, name: (iot.create_role_alias, dict(roleAlias=name, roleArn="arn:aws:iam::000000000000:role/r")),
    "template": lambda iot, name: (iot.create_provisioning_template, dict(
        templateName=name, templateBody=TEMPLATE, provisioningRoleArn="arn:aws:iam::000000000000:role/r",
    )),
    "authorizer": lambda iot, name: (iot.create_authorizer, dict(
        authorizerName=name, authorizerFunctionArn="https://auth.example/", signingDisabled=True,
    )),
    "attribute": lambda iot, name: (iot.create_thing, dict(thingName="confused", attributePayload={"attributes": {name: "x"}})),
    "attribute's value": lambda iot, name: (iot.create_thing, dict(thingName="confused", attributePayload={"attributes": {"a": name}})),
}


@pytest.fixture
def iot(skein):
    return skein.boto("iot", parameter_validation=False)


@pytest.mark.parametrize("what", CREATE)
def test_names_are_refused(iot, what):
    for why, name in NO_NAMES.items():
        call, parameters = CREATE[what](iot, name)
        try:
            refused(call, "InvalidRequestException", 400, **parameters)
        except AssertionError as error:
            raise AssertionError(f"{why}: {error}") from None
    refused(iot.describe_thing, "ResourceNotFoundException", 404, thingName="confused")


def test_names_of_shadows_are_refused(skein, name):
    data = skein.boto("iot-data", parameter_validation=False)
    for text in NO_NAMES.values():
        for given in (dict(thingName=text), dict(thingName=name, shadowName=text)):
            refused(data.update_thing_shadow, "InvalidRequestException", 400, **given, payload=b'{"state":{"desired":{"a":1}}}')
            refused(data.get_thing_shadow, "InvalidRequestException", 400, **given)
            refused(data.delete_thing_shadow, "InvalidRequestException", 400, **given)
    assert data.list_named_shadows_for_thing(thingName=name)["results"] == []


def test_keys_of_a_shadow_are_what_was_written(skein, name):
    data = skein.boto("iot-data")
    state = {text: number for number, text in enumerate(LOOKS_LIKE.values())}
    data.update_thing_shadow(thingName=name, payload=json.dumps({"state": {"desired": state}}))
    data.update_thing_shadow(thingName=name, payload=json.dumps({"state": {"desired": {ALLOWED: None}}}))
    del state[ALLOWED]
    assert aws.shadow_state(data.get_thing_shadow(thingName=name))["state"]["desired"] == state


@pytest.fixture
def enter(skein, dial, tmp_path, name):
    """Makes a device with this policy; gives what connects as it."""

    def enter(*statements):
        who = aws.Identity(skein, tmp_path, name, policy(*statements))

        def connect(id, **more):
            client = dial(5, "tls", device=who.files)
            client.connack = client.connect(id, check=False, **more)
            return client

        return connect

    return enter


def test_a_policy_does_not_allow_what_looks_alike(enter, name):
    connect = enter(
        ("Allow", "iot:Connect", [f"client/{name}-{ALLOWED}", f"client/{name}-own"]),
        ("Allow", ["iot:Publish", "iot:Receive", "iot:RetainPublish"], f"topic/{name}/{ALLOWED}"),
        ("Allow", "iot:Subscribe", f"topicfilter/{name}/{ALLOWED}"),
    )
    assert connect(f"{name}-{ALLOWED}").connack.reason == 0
    client = connect(f"{name}-own")
    for what, other in OTHERS.items():
        assert connect(f"{name}-{other}").connack.reason == NOT_AUTHORIZED, what
        assert client.subscribe(f"{name}/{ALLOWED}", f"{name}/{other}", qos=1, check=False) == [1, NOT_AUTHORIZED], what
        for retain in (False, True):
            assert client.publish(f"{name}/{other}", b"x", qos=1, retain=retain, check=False) == NOT_AUTHORIZED, what
        will = m.Will(f"{name}/{other}", b"will", 1, False, {})
        assert connect(f"{name}-{ALLOWED}", will=will).connack.reason == NOT_AUTHORIZED, what
    client.publish(f"{name}/{ALLOWED}", b"x", qos=1)
    assert client.receive().topic == f"{name}/{ALLOWED}"


def test_what_looks_alike_is_not_received(enter, connected, name):
    """Subscribed to with a wildcard: each delivery is decided."""
    client = enter(
        ("Allow", "iot:Connect", "*"), ("Allow", "iot:Subscribe", f"topicfilter/{name}/#"), ("Allow", "iot:Receive", f"topic/{name}/{ALLOWED}"),
    )(name)
    client.subscribe(f"{name}/#", qos=1)
    publisher = connected()
    for other in (*OTHERS.values(), ALLOWED):
        publisher.publish(f"{name}/{other}", b"x", qos=1)
    assert client.receive().topic == f"{name}/{ALLOWED}"
    client.ping()
    assert not client.kept


def test_a_denial_is_of_what_it_says_alone(enter, name):
    """It is text and no meaning, as with AWS: say what is allowed, and do not count what is not."""
    client = enter(("Allow", "iot:*", "*"), ("Deny", "iot:Publish", f"topic/{name}/{ALLOWED}"))(name)
    assert client.publish(f"{name}/{ALLOWED}", b"x", qos=1, check=False) == NOT_AUTHORIZED
    for what, other in OTHERS.items():
        assert client.publish(f"{name}/{other}", b"x", qos=1, check=False) < 0x80, what


def test_client_ids_that_look_alike_are_different_clients(dial, name):
    """None takes over from another, and each has a session of its own."""
    lasting = {"session_expiry_interval": 60}
    clients = []
    for text in LOOKS_LIKE.values():
        client = dial()
        assert not client.connect(f"{name}-{text}", clean=False, props=lasting).session_present
        client.subscribe(f"{name}/{len(clients)}", qos=1)
        clients.append(client)
    for number, client in enumerate(clients):
        client.publish(f"{name}/{number}", b"%d" % number, qos=1)
        assert client.receive().payload == b"%d" % number
        client.nothing_more()


def test_retained_messages_of_topics_that_look_alike(skein, connected, name):
    data, client = skein.boto("iot-data"), connected()
    for number, text in enumerate(LOOKS_LIKE.values()):
        client.publish(f"{name}/{text}", b"%d" % number, qos=1, retain=True)
    client.publish(f"{name}/{ALLOWED}", b"", qos=1, retain=True)
    refused(data.get_retained_message, "ResourceNotFoundException", 404, topic=f"{name}/{ALLOWED}")
    for number, text in list(enumerate(LOOKS_LIKE.values()))[1:]:
        assert data.get_retained_message(topic=f"{name}/{text}")["payload"] == b"%d" % number


def test_who_is_attached_is_who_was_named(skein, dial, tmp_path, name):
    """`iot:Connection.Thing.IsAttached` is of the thing that has the client id, letter by letter."""
    document = json.dumps({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Action": "iot:Connect", "Resource": "*",
        "Condition": {"Bool": {"iot:Connection.Thing.IsAttached": "true"}},
    }]})
    who = aws.Identity(skein, tmp_path, name, document, thing=name)
    for id, reason in ((name, 0), (f"{name}\u200d", NOT_AUTHORIZED), (f"\uff54{name[1:]}", NOT_AUTHORIZED)):
        client = dial(5, "tls", device=who.files)
        assert client.connect(id, check=False).reason == reason


@pytest.mark.parametrize("wrong", [*NO_NAMES.values(), "a b", "x" * 129], ids=ascii)
def test_names_in_shadow_topics_are_refused(skein, connected, name, wrong):
    """By MQTT as by REST. What was made before they were can be read and deleted, where it is there."""
    data = skein.boto("iot-data")
    client = connected()
    for topic in (f"$aws/things/{wrong}/shadow", f"$aws/things/{name}/shadow/name/{wrong}"):
        client.subscribe(f"{topic}/+/+", qos=1)
        for what, payload, code in (("update", b'{"state":{"desired":{"a":1}}}', 400), ("get", b"", 404), ("delete", b"", 404)):
            client.publish(f"{topic}/{what}", payload, qos=1)
            got = client.receive()
            assert got.topic == f"{topic}/{what}/rejected" and json.loads(got.payload)["code"] == code
    assert data.list_named_shadows_for_thing(thingName=name)["results"] == []
