"""Lifecycle events, and what else a shard's outbox holds when the node dies that would have sent it."""

import json
import re
import time

import pytest

import brokers
import rawmqtt as m
from aws import Identity
from brokers import group_of, leader_of, wait_until
from parties import LASTING

pytestmark = pytest.mark.skein

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def presence(name):
    return f"$aws/events/presence/+/{name}"


def subscriptions(name):
    return f"$aws/events/subscriptions/+/{name}"


def event(client, timeout=None):
    """The next event: its topic's last levels and its body."""
    got = client.receive(timeout=timeout)
    body = json.loads(got.payload)
    family, kind, who = got.topic.removeprefix("$aws/events/").split("/", 2)
    assert (kind, who) == (body["eventType"], body["clientId"]), got
    assert abs(body["timestamp"] / 1000 - time.time()) < 60, body
    assert UUID.fullmatch(body["sessionIdentifier"]), body
    return kind, body


@pytest.fixture
def watcher(connected, name):
    """Somebody who listens for one client."""

    def watcher(*filters, qos=1, **fields):
        client = connected(f"{name}-watcher", **fields)
        client.subscribe(*filters, qos=qos)
        return client

    return watcher


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("lasting", [False, True])
def test_a_connection_is_told_from_its_beginning_to_its_end(dial, watcher, name, version, lasting):
    listens = watcher(presence(name))
    seen = []
    for number in range(2):
        client = dial(version)
        props = LASTING if lasting and version == 5 else None
        client.connect(name, clean=not lasting, props=props)
        kind, began = event(listens)
        session = began["sessionIdentifier"]
        assert kind == "connected"
        assert list(began) == [
            "clientId", "timestamp", "eventType", "sessionIdentifier", "principalIdentifier",
            "ipAddress", "versionNumber",
        ]
        assert (began["principalIdentifier"], began["ipAddress"]) == ("anonymous", "127.0.0.1")
        client.disconnect()
        kind, ended = event(listens)
        assert kind == "disconnected"
        assert list(ended) == [
            "clientId", "timestamp", "eventType", "sessionIdentifier", "principalIdentifier",
            "clientInitiatedDisconnect", "disconnectReason", "versionNumber",
        ]
        assert ended["clientInitiatedDisconnect"] is True
        assert ended["disconnectReason"] == "CLIENT_INITIATED_DISCONNECT"
        assert ended["sessionIdentifier"] == session
        assert began["versionNumber"] == ended["versionNumber"] == number
        seen.append(session)
    assert (seen[0] == seen[1]) == lasting
    listens.nothing_more()


def cut(client, name, skein):
    client.cut()


def take_over(client, name, skein):
    with m.Client(skein.plain, 5) as other:
        other.connect(name)
        client.closed()


def connect_again(client, name, skein):
    client.send(m.connect(name))
    client.closed()


def publish_where_nobody_may(client, name, skein):
    client.publish(f"$aws/events/presence/connected/{name}", b"{}")
    client.closed()


def fall_silent(client, name, skein):
    client.closed(timeout=10)


def be_deleted(client, name, skein):
    skein.boto("iot-data").delete_connection(clientId=name)
    client.closed()


@pytest.mark.parametrize("known", ["from the start", "at its end"])
@pytest.mark.parametrize(
    "end,reason",
    [
        (cut, "CONNECTION_LOST"),
        (take_over, "DUPLICATE_CLIENTID"),
        (connect_again, "CLIENT_ERROR"),
        (publish_where_nobody_may, "FORBIDDEN_ACCESS"),
        (fall_silent, "MQTT_KEEP_ALIVE_TIMEOUT"),
        (be_deleted, "API_INITIATED_DISCONNECT"),
    ],
)
def test_why_a_connection_has_ended(skein, dial, watcher, name, end, reason, known):
    listens = None
    if known == "from the start":
        listens = watcher(presence(name))
    client = dial()
    client.connect(name, keep_alive=1 if end is fall_silent else 0)
    if listens:
        began = event(listens)[1]["sessionIdentifier"]
    else:
        listens = watcher(presence(name))
        began = None
    end(client, name, skein)
    kind, body = event(listens)
    assert kind == "disconnected"
    assert (body["disconnectReason"], body["clientInitiatedDisconnect"]) == (reason, False)
    assert body["versionNumber"] == 0
    assert began in (None, body["sessionIdentifier"])
    if end is take_over:
        kind, body = event(listens)
        assert (kind, body["versionNumber"]) == ("connected", 1)


def test_a_client_may_not_publish_an_event(dial, name):
    for topic in (f"$aws/events/presence/connected/{name}", f"$aws/events/subscriptions/subscribed/{name}"):
        client = dial()
        client.connect(name)
        assert client.publish(topic, b"{}", qos=1, check=False) == 0x87


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("lasting", [False, True])
def test_subscriptions_are_told(dial, watcher, name, version, lasting):
    listens = watcher(subscriptions(name), presence(name))
    client = dial(version)
    client.connect(name, clean=not lasting, props=LASTING if lasting and version == 5 else None)
    session = event(listens)[1]["sessionIdentifier"]
    client.subscribe(f"{name}/a", f"$share/g/{name}/#", qos=1)
    kind, body = event(listens)
    assert kind == "subscribed"
    assert list(body) == [
        "clientId", "timestamp", "eventType", "sessionIdentifier", "principalIdentifier", "topics",
    ]
    assert (body["sessionIdentifier"], body["principalIdentifier"]) == (session, "anonymous")
    assert body["topics"] == [f"{name}/a", f"$share/g/{name}/#"]
    client.unsubscribe(f"{name}/a", f"{name}/never")
    kind, body = event(listens)
    assert (kind, body["topics"]) == ("unsubscribed", [f"{name}/a"])
    client.disconnect()
    assert event(listens)[0] == "disconnected"
    listens.nothing_more()


def test_subscriptions_of_a_client_that_was_there_before_its_listener(connected, watcher, name):
    client = connected(name)
    listens = watcher(subscriptions(name))
    client.subscribe(f"{name}/a")
    kind, body = event(listens)
    assert (kind, body["topics"]) == ("subscribed", [f"{name}/a"])
    client.subscribe(f"{name}/b")
    assert event(listens)[1]["sessionIdentifier"] == body["sessionIdentifier"]


def test_many_filters_are_told_in_several_events(connected, watcher, name):
    listens = watcher(subscriptions(name))
    client = connected(name)
    filters = [f"{name}/{number}/{'x' * 1000}" for number in range(100)]
    client.subscribe(*filters)
    told = []
    while len(told) < len(filters):
        told += event(listens)[1]["topics"]
    assert told == filters


def test_a_name_that_is_a_filter_has_no_events(connected, watcher, name):
    listens = watcher("$aws/events/#")
    connected(f"{name}+").subscribe("a")
    connected(f"{name}/b").disconnect()
    told = []
    # Clients of earlier tests may still be ending.
    while ("disconnected", f"{name}/b") not in told:
        kind, body = event(listens)
        if body["clientId"].startswith(name):
            told.append((kind, body["clientId"]))
    assert told == [
        ("subscribed", f"{name}-watcher"), ("connected", f"{name}/b"), ("disconnected", f"{name}/b"),
    ]


def test_a_certificate_and_its_thing_are_named(skein, dial, watcher, name, tmp_path):
    device = Identity(skein, tmp_path, name, brokers.policy(("Allow", "iot:*", "*")))
    listens = watcher(presence(name))
    for thing in (None, f"{name}-thing"):
        if thing:
            device.iot.create_thing(thingName=thing)
            device.iot.attach_thing_principal(
                thingName=thing, principal=device.arn, thingPrincipalType="EXCLUSIVE_THING"
            )
        client = dial(listener="tls", device=device.files)
        client.connect(name)
        client.disconnect()
        for _ in range(2):
            _, body = event(listens)
            assert body["principalIdentifier"] == device.id
            assert body.get("thingName") == thing
    client = dial(listener="tls", device=device.files)
    client.connect(name)
    assert event(listens)[0] == "connected"
    device.status("INACTIVE")
    client.closed()
    assert event(listens)[1]["disconnectReason"] == "AUTH_ERROR"


def test_a_will_on_a_reserved_topic_is_told(dial, watcher, name):
    listens = watcher(presence(name))
    assert dial().connect(name, will=m.Will("$SYS/x", b""), check=False).reason == 0x90
    kind, body = event(listens)
    assert (kind, body["connectFailureReason"]) == ("connect_failed", "AUTHORIZATION_FAILED")


def test_an_answer_that_the_client_does_not_take_is_its_own_doing(dial, watcher, name):
    listens = watcher(presence(name))
    client = dial()
    client.connect(name, props={"maximum_packet_size": 64})
    assert event(listens)[0] == "connected"
    client.send(m.subscribe(1, [(f"{name}/{number}", 0) for number in range(64)]))
    client.refused(0x95)
    assert event(listens)[1]["disconnectReason"] == "CLIENT_ERROR"


def test_a_refused_connection_is_told(skein, dial, watcher, name, tmp_path):
    document = brokers.policy(("Allow", "iot:Connect", f"client/{name}"))
    device = Identity(skein, tmp_path, name, document)
    listens = watcher(presence(f"{name}-other"))
    client = dial(listener="tls", device=device.files)
    assert client.connect(f"{name}-other", check=False).reason == 0x87
    kind, body = event(listens)
    assert kind == "connect_failed"
    assert body["connectFailureReason"] == "AUTHORIZATION_FAILED"
    assert (body["principalIdentifier"], body["ipAddress"]) == (device.id, "127.0.0.1")


def ended(listens):
    """Why and with which number a connection ended."""
    kind, body = event(listens)
    if kind == "connected":
        # Told before, and the acknowledgement had not arrived when the node ended.
        kind, body = event(listens)
    assert kind == "disconnected"
    return body["disconnectReason"], body["versionNumber"]


def test_a_restart_is_told_and_numbers_go_on(fresh_broker, name):
    with m.Client(fresh_broker.plain, 5) as listens:
        listens.connect(f"{name}-watcher", clean=False, props=LASTING)
        listens.subscribe(presence(name), qos=1)
        with m.Client(fresh_broker.plain, 5) as client:
            client.connect(name)
            assert event(listens)[1]["versionNumber"] == 0
            fresh_broker.restart()
    with m.Client(fresh_broker.plain, 5) as listens:
        assert listens.connect(f"{name}-watcher", clean=False, props=LASTING).session_present
        assert ended(listens) == ("SERVER_ERROR", 0)
        with m.Client(fresh_broker.plain, 5) as client:
            client.connect(name)
            assert event(listens)[1]["versionNumber"] == 1
            fresh_broker.stop()
    fresh_broker.start()
    with m.Client(fresh_broker.plain, 5) as listens:
        assert listens.connect(f"{name}-watcher", clean=False, props=LASTING).session_present
        assert ended(listens) == ("SERVER_INITIATED_DISCONNECT", 1)
        listens.nothing_more()


def test_events_can_be_switched_off(tmp_path, name):
    offset = brokers.free_offset()
    broker = brokers.serving(
        tmp_path / "broker",
        'data = "{data}"\nlifecycle_events = false\n'
        f'[listeners.mqtt]\naddress = "127.0.0.1:{brokers.PORTS["plain"] + offset}"\n'
        f"anonymous_policy = '{brokers.ClusterNode.POLICY}'\n"
        f'[listeners.admin]\naddress = "127.0.0.1:{brokers.PORTS["admin"] + offset}"\n',
        offset=offset,
    ).start()
    try:
        with m.Client(broker.plain, 5) as listens, m.Client(broker.plain, 5) as client:
            listens.connect(f"{name}-watcher")
            listens.subscribe("$aws/events/#", qos=1)
            client.connect(name, props=LASTING)
            client.subscribe("a")
            client.disconnect()
            listens.nothing_more()
    finally:
        broker.stop()


# In a cluster


def others(cluster, *nodes):
    return [node for node in cluster.nodes if node not in nodes]


def test_a_node_that_dies_tells_the_end_of_its_connections(cluster, on, name):
    listens = on(2, f"{name}-watcher", props=LASTING)
    listens.subscribe(*(presence(f"{name}-{kind}") for kind in ("clean", "lasting")), qos=1)
    on(1, f"{name}-clean")
    on(1, f"{name}-lasting", props=LASTING)
    for _ in range(2):
        kind, body = event(listens)
        assert (kind, body["versionNumber"]) == ("connected", 0)
    cluster[1].kill()
    ended = [event(listens, timeout=20) for _ in range(2)]
    assert {body["clientId"] for _, body in ended} == {f"{name}-clean", f"{name}-lasting"}
    for kind, body in ended:
        assert (kind, body["disconnectReason"], body["versionNumber"]) == ("disconnected", "SERVER_ERROR", 0)
    for kind in ("clean", "lasting"):
        on(3, f"{name}-{kind}", clean=kind == "clean", props=LASTING)
        assert event(listens)[1]["versionNumber"] == 1
    listens.nothing_more()


def test_a_takeover_between_nodes_is_told(cluster, on, name):
    listens = on(3, f"{name}-watcher")
    listens.subscribe(presence(name), subscriptions(name), qos=1)
    first = on(1, name)
    first.subscribe(f"{name}/a")
    second = on(2, name)
    told = [event(listens) for _ in range(4)]
    # What was applied in order by one group; its outbox keeps that.
    assert [kind for kind, _ in told] == ["connected", "subscribed", "disconnected", "connected"]
    assert told[2][1]["disconnectReason"] == "DUPLICATE_CLIENTID"
    assert [told[at][1]["versionNumber"] for at in (0, 2, 3)] == [0, 0, 1]
    second.disconnect()
    assert event(listens)[1]["versionNumber"] == 1
    listens.nothing_more()


def test_events_outlive_the_leader_that_made_them(cluster, on, name):
    """Clients come and go while the leader of their group is killed; who heard CONNACK is told of."""
    keys = [f"{name}-{number}" for number in range(400)]
    victim = leader_of(cluster, keys[0])
    near, far = others(cluster, victim)
    group = group_of(keys[0], cluster.shards)
    keys = [key for key in keys if group_of(key, cluster.shards) == group][:60]
    listens = on(far, f"{name}-watcher", props=LASTING)
    listens.subscribe("$aws/events/presence/#", qos=1)
    expected = set()
    for number, key in enumerate(keys):
        if number == 20:
            cluster[victim].kill()
        client = on_when_it_can(cluster[near], key)
        expected.add(("connected", key))
        client.disconnect()
        expected.add(("disconnected", key))
    told = []
    while set(told) < expected:
        kind, body = event(listens, timeout=20)
        if body["clientId"] in keys:
            assert body["versionNumber"] == 0, body
            told.append((kind, body["clientId"]))
    listens.nothing_more()
    assert len(told) == len(expected), "a persistent subscriber gets each once"


def on_when_it_can(node, client_id):
    """A connection as soon as the node takes it."""

    def connect():
        client = m.Client(node.plain, 5)
        if client.connect(client_id, check=False).reason == 0:
            return client
        client.cut()
        return None

    return wait_until(f"{client_id} connects", connect, 20)


@pytest.mark.parametrize("round", range(3))
def test_what_a_shadow_update_tells_outlives_the_leader_that_accepted_it(cluster, on, name, round):
    """Updates are on their way when the leader of the thing is killed: each one that was accepted is
    documented, once, and in order, to a persistent subscriber on another node."""
    victim = leader_of(cluster, name)
    near, far = others(cluster, victim)
    shadow = f"$aws/things/{name}/shadow/update"
    listens = on(far, f"{name}-watcher", props=LASTING)
    listens.subscribe(f"{shadow}/+", qos=1)
    publisher = on(near, f"{name}-publisher", props=LASTING)
    updates = 40
    for number in range(updates):
        body = json.dumps({"state": {"desired": {"n": number}, "reported": {"n": -1}}}).encode()
        publisher.send(m.publish(shadow, body, 1, id=number + 1, version=5))
    publisher.expect(m.PUBACK)
    cluster[victim].kill()
    for _ in range(updates - 1):
        assert publisher.expect(m.PUBACK, timeout=20).reason == 0
    told = {"accepted": [], "delta": [], "documents": []}
    while any(len(heard) < updates for heard in told.values()):
        got = listens.receive(timeout=20)
        body = json.loads(got.payload)
        kind = got.topic.rsplit("/", 1)[1]
        told[kind].append(body["current"]["version"] if kind == "documents" else body["version"])
    versions = list(range(1, updates + 1))
    assert told == {"accepted": versions, "delta": versions, "documents": versions}
    time.sleep(0.5)
    listens.ping()
    assert not listens.kept, "each once"
