"""Publications that are larger than what the log takes at once: answered, and nobody else suffers."""

import json

import pytest

import rawmqtt as m
from brokers import wait_until

pytestmark = pytest.mark.skein
QUOTA_EXCEEDED = 0x97
LARGE = bytes(17 << 20)
# The largest request to a shadow.
SHADOW_REQUEST = 128 << 10
PERSISTENT = {4: {"clean": False}, 5: {"clean": False, "props": {"session_expiry_interval": 60}}}


@pytest.fixture(params=[4, 5])
def version(request):
    return request.param


@pytest.fixture
def open(dial, version, name):
    def open(id, **fields):
        client = dial(version, timeout=30)
        client.connect(f"{name}-{id}", **fields)
        return client

    return open


def refused(client, packet, answer):
    """The client is told, or its connection ends where there is no way to tell it; gives whether it was told."""
    client.send(packet)
    if client.version == 5:
        got = client.expect(answer)
        assert got.reason == QUOTA_EXCEEDED, got
        return True
    assert client.closed() is None
    return False


@pytest.mark.parametrize("qos", [1, 2])
def test_for_a_persistent_session(open, name, version, qos):
    subscriber = open("subscriber", **PERSISTENT[version])
    subscriber.subscribe(name, qos=2)
    publisher = open("publisher")
    packet = m.publish(name, LARGE, qos, id=9, version=version)
    if not refused(publisher, packet, m.PUBACK if qos == 1 else m.PUBREC):
        publisher = open("publisher")
    publisher.publish(name, b"small", qos=qos)
    assert subscriber.receive().payload == b"small"
    subscriber.nothing_more()


def test_exactly_once_from_a_persistent_session(open, name, version):
    subscriber = open("subscriber")
    subscriber.subscribe(name, qos=2)
    publisher = open("publisher", **PERSISTENT[version])
    if not refused(publisher, m.publish(name, LARGE, 2, id=9, version=version), m.PUBREC):
        publisher = open("publisher", **PERSISTENT[version])
    publisher.publish(name, b"small", qos=2, id=9)
    assert subscriber.receive().payload == b"small"
    subscriber.nothing_more()


def test_retained(open, name, version):
    publisher = open("publisher")
    publisher.publish(name, b"before", qos=1, retain=True)
    if not refused(publisher, m.publish(name, LARGE, 1, True, id=9, version=version), m.PUBACK):
        publisher = open("publisher")
    late = open("late")
    late.subscribe(name, qos=1)
    assert late.receive().payload == b"before"
    publisher.publish(name, b"after", qos=1, retain=True)
    assert late.receive().payload == b"after"


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("operation, by_content", [("get", 404), ("update", 400), ("delete", 404)])
def test_a_shadow_request(open, name, version, operation, by_content, qos):
    """It is refused as shadows refuse, before anybody copies, keeps or reads it."""
    subscriber, publisher = open("subscriber"), open("publisher")
    shadow = f"$aws/things/{name}/shadow"
    subscriber.subscribe(f"{shadow}/{operation}/rejected", qos=1)
    for size, code in ((len(LARGE), 413), (SHADOW_REQUEST + 1, 413), (SHADOW_REQUEST, by_content)):
        publisher.publish(f"{shadow}/{operation}", b"{}".ljust(size), qos=qos)
        answer = json.loads(subscriber.receive().payload)
        assert answer["code"] == code, (size, answer)


@pytest.mark.clause("3.1.1:MQTT-3.3.1-7")
def test_retained_without_an_answer(skein, open, name, version):
    """QoS 0 reaches who is connected; what cannot be stored leaves nothing older behind."""

    def counted():
        return skein.metrics().get("gateway_publishes_too_large_total", 0)

    before = counted()
    subscriber, publisher = open("subscriber"), open("publisher")
    subscriber.subscribe(name, qos=0)
    publisher.publish(name, b"before", qos=1, retain=True)
    assert subscriber.receive().payload == b"before"
    publisher.publish(name, LARGE, retain=True)
    assert subscriber.receive().payload == LARGE
    publisher.publish(f"{name}/end", b"", qos=1, retain=True)
    wait_until("it is counted", lambda: counted() > before)
    late = open("late")
    late.subscribe(name, qos=1)
    late.nothing_more()


def test_for_those_who_are_connected(open, name, version):
    """Whatever size the protocol allows, as long as nobody has to keep it."""
    subscriber, publisher = open("subscriber"), open("publisher")
    subscriber.subscribe(name, qos=1)
    publisher.publish(name, LARGE, qos=1)
    assert subscriber.receive().payload == LARGE
