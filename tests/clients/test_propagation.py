"""What a thing's type adds to what the thing publishes: user properties, for whoever receives it."""

import pytest

import aws
import brokers
import rawmqtt as m
from brokers import policy, wait_until
from conftest import tls_context
from parties import LASTING

pytestmark = pytest.mark.skein
# How long a change may take to reach an open connection.
SOON = 1.0
SITE = {"userPropertyKey": "site", "thingAttribute": "site"}
CLIENT = {"userPropertyKey": "client", "connectionAttribute": "iot:ClientId"}
THING = {"userPropertyKey": "thing", "connectionAttribute": "iot:Thing.ThingName"}


class Fleet:
    """A type that adds user properties, a thing of it and its certificate."""

    def __init__(self, broker, folder, name, *adds, kind="NON_EXCLUSIVE_THING", site="north", of_type=True):
        self.broker, self.name, self.iot = broker, name, broker.boto("iot")
        self.who = aws.Identity(broker, folder, name, policy(("Allow", "iot:*", "*")))
        self.iot.create_thing_type(thingTypeName=name, thingTypeProperties=properties(adds))
        attributes = {"attributes": {"site": site} if site else {}}
        of_type = {"thingTypeName": name} if of_type else {}
        self.iot.create_thing(thingName=name, attributePayload=attributes, **of_type)
        self.attach(kind)

    def attach(self, kind="NON_EXCLUSIVE_THING"):
        self.iot.attach_thing_principal(thingName=self.name, principal=self.who.arn, thingPrincipalType=kind)

    def detach(self):
        self.iot.detach_thing_principal(thingName=self.name, principal=self.who.arn)

    def adds(self, *adds):
        self.iot.update_thing_type(thingTypeName=self.name, thingTypeProperties=properties(adds))

    def move(self, site):
        self.iot.update_thing(thingName=self.name, attributePayload={"attributes": {"site": site}})


def properties(adds):
    return {"mqtt5Configuration": {"propagatingAttributes": list(adds)}}


@pytest.fixture
def fleet(skein, tmp_path, name):
    return lambda *adds, **more: Fleet(skein, tmp_path, name, *adds, **more)


@pytest.fixture
def lamp(dial, name):
    """The device on a connection of its own."""

    def lamp(fleet, client_id=None, version=5, **more):
        client = dial(version, "tls", device=fleet.who.files)
        client.connect(client_id or name, **more)
        return client

    return lamp


@pytest.fixture
def subscriber(connected, name):
    def subscriber(filter=f"{name}/#", **more):
        client = connected(**more)
        client.subscribe(filter, qos=2)
        return client

    return subscriber


def users(got):
    return got.props.get("user_property", [])


def heard(publisher, subscriber, topic, **more):
    """The user properties that a publication of its own arrives with."""
    publisher.publish(topic, b"x", **{"qos": 1, **more})
    got = subscriber.receive()
    assert got.topic == topic and got.payload == b"x"
    return users(got)


def eventually(publisher, subscriber, name, expected):
    """What arrives changes within a second to what is expected, on the same connection."""
    wait_until(f"{expected} arrives", lambda: heard(publisher, subscriber, f"{name}/change") == expected, SOON)


@pytest.mark.parametrize("version", [5, 4])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_attributes_of_thing_and_connection_arrive(fleet, lamp, subscriber, name, qos, version):
    listens = subscriber()
    publisher = lamp(fleet(SITE, CLIENT, THING), version=version)
    expected = [("site", "north"), ("client", name), ("thing", name)]
    for _ in range(2):
        assert heard(publisher, listens, f"{name}/a", qos=qos) == expected


def test_a_thing_attached_exclusively_speaks_with_any_client_id(fleet, lamp, subscriber, name):
    listens = subscriber()
    publisher = lamp(fleet(CLIENT, THING, kind="EXCLUSIVE_THING"), f"{name}-other")
    assert heard(publisher, listens, f"{name}/a") == [("client", f"{name}-other"), ("thing", name)]


def test_they_come_after_what_the_publisher_sent(fleet, lamp, subscriber, name):
    listens = subscriber()
    publisher = lamp(fleet(SITE))
    props = [("user_property", ("site", "own")), ("content_type", "text/plain"), ("user_property", ("z", ""))]
    publisher.publish(f"{name}/a", b"x", qos=1, props=props)
    got = listens.receive()
    assert users(got) == [("site", "own"), ("z", ""), ("site", "north")]
    assert got.props["content_type"] == "text/plain"


@pytest.mark.parametrize("fault", ["no value", "no type", "type adds nothing", "client id of another", "not attached"])
def test_nothing_is_added(fleet, lamp, subscriber, name, fault):
    listens = subscriber()
    adds = () if fault == "type adds nothing" else (SITE,)
    made = fleet(*adds, site=fault != "no value" and "north", of_type=fault != "no type")
    if fault == "not attached":
        made.detach()
    publisher = lamp(made, f"{name}-x" if fault == "client id of another" else name)
    assert heard(publisher, listens, f"{name}/a") == []
    assert heard(publisher, listens, f"{name}/a", props={"user_property": [("a", "1")]}) == [("a", "1")]


def test_who_has_no_certificate_does_not_speak_for_a_thing(fleet, connected, subscriber, name):
    fleet(SITE, THING)
    listens = subscriber()
    assert heard(connected(name), listens, f"{name}/a") == []


def test_changes_reach_an_open_connection(fleet, lamp, subscriber, name):
    listens = subscriber()
    made = fleet()
    publisher = lamp(made)
    eventually(publisher, listens, name, [])
    made.adds(SITE)
    eventually(publisher, listens, name, [("site", "north")])
    made.move("south")
    eventually(publisher, listens, name, [("site", "south")])
    made.adds(SITE, THING)
    eventually(publisher, listens, name, [("site", "south"), ("thing", name)])
    made.detach()
    eventually(publisher, listens, name, [])
    made.attach()
    eventually(publisher, listens, name, [("site", "south"), ("thing", name)])
    made.iot.update_thing(thingName=name, removeThingType=True)
    eventually(publisher, listens, name, [])
    made.iot.update_thing(thingName=name, thingTypeName=name)
    eventually(publisher, listens, name, [("site", "south"), ("thing", name)])
    made.adds()
    eventually(publisher, listens, name, [])


@pytest.mark.parametrize("qos", [1, 2])
def test_retained_and_queued_messages_keep_them(fleet, lamp, subscriber, connected, skein, name, qos):
    made = fleet(SITE)
    subscriber(id=f"{name}-away", clean=False, props=LASTING).disconnect()
    publisher = lamp(made, props=LASTING)
    publisher.publish(f"{name}/kept", b"x", qos=qos, retain=True, props={"user_property": [("a", "1")]})
    made.move("south")
    expected = [("a", "1"), ("site", "north")]
    assert users(subscriber().receive()) == expected
    back = connected(f"{name}-away", clean=False, props=LASTING)
    assert users(back.receive()) == expected
    retained = skein.boto("iot-data").get_retained_message(topic=f"{name}/kept")
    assert b"north" in retained["userProperties"]
    publisher.publish(f"{name}/kept", b"", qos=1, retain=True)


def test_members_of_shared_subscriptions_have_them(fleet, lamp, subscriber, name):
    members = [subscriber(f"$share/group/{name}/#", props=props) for props in (LASTING, None)]
    publisher = lamp(fleet(SITE))
    for _ in range(6):
        publisher.publish(f"{name}/a", b"x", qos=1)
    for member in members:
        assert [users(member.receive()) for _ in range(3)] == [[("site", "north")]] * 3


def test_what_would_be_too_large_arrives_without(fleet, lamp, subscriber, skein, name):
    """AWS's 8 KB of user properties of a packet are for both together; nobody loses a publication."""
    listens = subscriber()
    publisher = lamp(fleet(SITE))
    added = 1 + 2 + len("site") + 2 + len("north")

    def without():
        return skein.metrics().get("gateway_publishes_not_enriched_total", 0)

    before = without()
    for more, expected in ((0, [("site", "north")]), (1, [])):
        own = ("a", "v" * (8192 - added - 6 + more))
        assert heard(publisher, listens, f"{name}/a", props={"user_property": [own]}) == [own] + expected
    wait_until("it is counted", lambda: without() == before + 1)
    # A publication that is stored has its limit too, and what is added shall not have it refused.
    most = (16 << 20) - (256 << 10)
    for payload, expected in ((most - len(f"{name}/a") - added, [("site", "north")]), (most - len(f"{name}/a"), [])):
        publisher.publish(f"{name}/a", bytes(payload), qos=1, retain=True)
        got = listens.receive(timeout=30)
        assert len(got.payload) == payload and users(got) == expected
    publisher.publish(f"{name}/a", b"", qos=1, retain=True)


def test_more_than_fits_into_a_publication_ends_with_the_last_that_does(fleet, lamp, subscriber, name):
    listens = subscriber()
    adds = [{"userPropertyKey": f"{number:02}" + "k" * 98, "thingAttribute": "site"} for number in range(19)]
    made = fleet(*adds, THING, site="v" * 800)
    got = heard(lamp(made), listens, f"{name}/a")
    assert [key[:2] for key, _ in got] == [f"{number:02}" for number in range(9)]


def test_a_subscriber_with_3_1_1_has_the_payload_alone(fleet, lamp, dial, name):
    old = dial(4)
    old.connect(f"{name}-old")
    old.subscribe(f"{name}/#", qos=1)
    lamp(fleet(SITE)).publish(f"{name}/a", b"x", qos=1)
    assert old.receive().payload == b"x"


def test_two_nodes(tmp_path, name):
    cluster = brokers.SkeinCluster(tmp_path / "cluster", node=brokers.SecureNode).start()
    clients = []

    def client(node, client_id, device=None, **more):
        context = device and tls_context(cluster[node], device)
        wrap = context and (lambda raw: context.wrap_socket(raw, server_hostname="localhost"))
        clients.append(m.Client(cluster[node].address("tls") if device else cluster[node].plain, 5, wrap=wrap))
        clients[-1].connect(client_id, **more)
        return clients[-1]

    try:
        made = Fleet(cluster[1], tmp_path, name, SITE, THING)
        here, there = client(1, f"{name}-1"), client(2, f"{name}-2")
        away = client(3, f"{name}-3", props=LASTING)
        for each in (here, there, away):
            each.subscribe(f"{name}/#", qos=1)
        away.disconnect()
        publisher = client(2, name, made.who.files)
        expected = [("site", "north"), ("thing", name)]
        publisher.publish(f"{name}/a", b"x", qos=1)
        assert users(here.receive()) == users(there.receive()) == expected
        assert users(client(1, f"{name}-3", clean=False, props=LASTING).receive()) == expected
        # The registry is changed by way of one node, the connection is on another.
        made.move("south")
        eventually(publisher, here, name, [("site", "south"), ("thing", name)])
    finally:
        for each in clients:
            each.cut()
        cluster.stop()
