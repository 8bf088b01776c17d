"""Normative statements of MQTT 3.1.1: CONNECT, sessions and wills."""

import time

import pytest

import rawmqtt as m
from brokers import wait_until
from rawmqtt import Will

clause = pytest.mark.clause
VERSION = 4


# CONNECT


@clause("MQTT-3.1.0-1", "MQTT-3.2.0-1")
@pytest.mark.parametrize(
    "packet",
    [
        m.packet(m.PINGREQ, 0),
        m.publish("a", b"x", version=4),
        m.subscribe(1, [("a", 0)], version=4),
        m.disconnect(),
        m.packet(m.CONNACK, 0, b"\0\0"),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=["ping", "publish", "subscribe", "disconnect", "connack", "http"],
)
def test_first_packet_must_be_connect(dial, packet):
    client = dial(4)
    client.send(packet)
    client.closed()


@clause("MQTT-3.1.0-2")
def test_second_connect(connected, name):
    client = connected(name)
    client.send(m.connect(name, 4))
    client.closed()


@clause("MQTT-3.1.2-1")
@pytest.mark.parametrize("protocol", ["MQTX", "mqtt", "", "MQTT2"])
def test_unknown_protocol_name(dial, protocol):
    client = dial(4)
    client.send(m.connect("c", 4, protocol=protocol))
    client.closed()


@clause("MQTT-3.1.2-2", "MQTT-3.2.2-4", "MQTT-3.2.2-5")
@pytest.mark.parametrize("level", [0, 1, 2])
def test_unknown_protocol_level(dial, level):
    client = dial(4)
    client.send(m.connect("c", 4, level=level))
    answer = client.next()
    assert (answer.kind, answer.reason, answer.session_present) == (m.CONNACK, 1, False)
    client.closed()


@clause("MQTT-3.1.2-3")
def test_reserved_connect_flag(dial):
    client = dial(4)
    client.send(m.connect("c", 4, flags=0x03))
    client.closed()


@clause("MQTT-3.1.2-9", "MQTT-3.1.2-11", "MQTT-3.1.2-13", "MQTT-3.1.2-14", "MQTT-3.1.2-15")
@pytest.mark.parametrize(
    "flags",
    [0x02 | 0x08, 0x02 | 0x10, 0x02 | 0x20, 0x02 | 0x04 | 0x18],
    ids=["qos-1-without-will", "qos-2-without-will", "retain-without-will", "qos-3"],
)
def test_wrong_will_flags(dial, flags):
    will = m.text("will") + m.text("x") if flags & 4 else b""
    client = dial(4)
    client.send(m.connect("c", 4, flags=flags, tail=will))
    client.closed()


@clause("MQTT-3.1.2-9", "MQTT-3.1.2-18", "MQTT-3.1.2-19", "MQTT-3.1.2-20", "MQTT-3.1.2-21", "MQTT-3.1.3-1")
@pytest.mark.parametrize(
    "flags,tail",
    [
        (0x06, b""),
        (0x06, m.text("will")),
        (0x82, b""),
        (0xC2, m.text("user")),
        (0x02, m.text("user")),
        (0x82, m.text("user") + m.text("password")),
    ],
    ids=["no-will", "no-will-message", "no-user", "no-password", "user-too-many", "password-too-many"],
)
def test_connect_fields_follow_the_flags(dial, flags, tail):
    client = dial(4)
    client.send(m.connect("c", 4, flags=flags, tail=tail))
    client.closed()


@clause("MQTT-3.1.2-22")
@pytest.mark.not_mosquitto("lets a password stand alone")
def test_password_without_user(dial):
    client = dial(4)
    client.send(m.connect("c", 4, password=b"secret"))
    client.closed()


@clause("MQTT-3.1.3-5", "MQTT-3.1.4-4", "MQTT-3.1.3-3")
@pytest.mark.parametrize("id", ["x", "0123456789abcdefghijklm", "ABCDEFGHIJKLMNOPQRSTUVW"])
def test_client_ids_that_must_be_allowed(dial, id):
    assert dial(4).connect(id).reason == 0


@clause("MQTT-3.1.3-6", "MQTT-3.1.3-2")
def test_empty_client_ids_are_told_apart(dial):
    first, second = dial(4), dial(4)
    first.connect("")
    second.connect("")
    first.ping()
    second.ping()


@clause("MQTT-3.1.3-7", "MQTT-3.1.3-8", "MQTT-3.1.3-9", "MQTT-3.2.2-4", "MQTT-3.2.2-5")
def test_empty_client_id_needs_a_clean_session(dial):
    client = dial(4)
    answer = client.connect("", clean=False, check=False)
    assert (answer.reason, answer.session_present) == (2, False)
    client.closed()


@clause("MQTT-3.1.4-5")
def test_nothing_after_a_refusal_is_processed(dial, connected, name):
    watcher = connected()
    watcher.subscribe(name, qos=1)
    refused = dial(4)
    refused.send(m.connect("", 4, clean=False), m.publish(name, b"must not pass", version=4))
    refused.closed()
    watcher.nothing_more()


@clause("MQTT-3.1.4-2", "MQTT-3.1.3-2")
def test_takeover_ends_the_older_connection(connected, name):
    first = connected(name)
    second = connected(name)
    first.closed()
    second.ping()


@clause("MQTT-3.1.2-24", "MQTT-3.1.2-23")
@pytest.mark.not_mosquitto("looks at the clock every five seconds")
def test_keep_alive_ends_a_silent_client(connected, name):
    watcher = connected()
    watcher.subscribe(name)
    client = connected(keep_alive=1, will=Will(name, b"gone"))
    started = time.monotonic()
    client.closed()
    assert 1.3 < time.monotonic() - started < 4
    assert watcher.receive().payload == b"gone"


@clause("MQTT-3.1.2-23")
def test_keep_alive_zero_is_off(connected):
    busy, idle = connected(keep_alive=1), connected(keep_alive=0)
    busy.closed()
    idle.ping()


# Sessions


@clause("MQTT-3.2.2-1", "MQTT-3.2.2-2", "MQTT-3.2.2-3", "MQTT-3.1.4-3", "MQTT-3.1.2-6")
def test_session_present(dial, name):
    steps = [(True, False), (False, False), (False, True), (False, True), (True, False), (False, False)]
    for clean, present in steps:
        client = dial(4)
        assert client.connect(name, clean=clean).session_present == present, (clean, present)
        client.disconnect()


@clause("MQTT-3.1.2-4", "MQTT-3.1.2-5", "MQTT-4.1.0-1", "MQTT-4.5.0-1", "MQTT-4.3.2-1")
@pytest.mark.parametrize("end", ["disconnect", "cut"])
def test_session_keeps_subscriptions_and_messages(connected, dial, name, end):
    client = connected(name, clean=False)
    client.subscribe(f"{name}/#", qos=2)
    getattr(client, end)()
    publisher = connected()
    for qos in (1, 2):
        publisher.publish(f"{name}/{qos}", b"%d" % qos, qos=qos)
    again = dial(4)
    assert again.connect(name, clean=False).session_present
    assert [(got.topic, got.qos) for got in (again.receive(), again.receive())] == [
        (f"{name}/1", 1),
        (f"{name}/2", 2),
    ]
    publisher.publish(f"{name}/live", b"x", qos=1)
    assert again.receive().topic == f"{name}/live"


@clause("MQTT-3.1.2-6", "MQTT-4.1.0-2")
def test_clean_session_forgets(connected, dial, name):
    client = connected(name, clean=False)
    client.subscribe(name, qos=1)
    client.disconnect()
    publisher = connected()
    publisher.publish(name, b"for nobody", qos=1)
    fresh = dial(4)
    assert not fresh.connect(name, clean=True).session_present
    publisher.publish(name, b"for nobody", qos=1)
    fresh.nothing_more()


@clause("MQTT-3.1.2-7")
def test_retained_outlives_the_session(connected, name):
    publisher = connected(clean=True)
    publisher.publish(name, b"stays", qos=1, retain=True)
    publisher.disconnect()
    subscriber = connected()
    subscriber.subscribe(name)
    assert subscriber.receive().payload == b"stays"


# Wills


@clause("MQTT-3.1.2-8", "MQTT-3.1.2-9", "MQTT-3.1.2-10", "MQTT-3.1.2-16", "MQTT-3.1.2-17")
@pytest.mark.parametrize("retain", [False, True], ids=["plain", "retained"])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_will_is_published_when_the_link_breaks(connected, name, qos, retain):
    watcher = connected()
    watcher.subscribe(name, qos=2)
    victim = connected(will=Will(name, b"gone", qos, retain))
    victim.cut()
    got = watcher.receive()
    assert (got.payload, got.qos, got.retain) == (b"gone", qos, False)
    later = connected()
    if retain:
        # Subscribers have it at once, and it may be stored after that.
        wait_until("it is retained", lambda: retained(later, name), 10)
    else:
        later.subscribe(name, qos=2)
    later.nothing_more()


def retained(client, topic):
    """What a new subscription brings at once."""
    client.subscribe(topic, qos=2)
    client.ping()
    return [client.receive().retain for _ in range(len(client.kept))]


@clause("MQTT-3.1.2-10", "MQTT-3.14.4-3", "MQTT-3.1.2-8", "MQTT-3.14.4-1", "MQTT-3.14.4-2")
def test_will_is_dropped_on_disconnect(connected, name):
    watcher = connected()
    watcher.subscribe(name, qos=1)
    victim = connected(will=Will(name, b"must not come", 1))
    victim.disconnect()
    watcher.nothing_more()


@clause("MQTT-3.1.2-12")
def test_no_will_without_the_flag(connected, name):
    watcher = connected()
    watcher.subscribe("#", qos=1)

    def seen_until(mark):
        watcher.publish(f"{name}/{mark}", b"", qos=1)
        topics = []
        while (got := watcher.receive()).topic != f"{name}/{mark}":
            # Retained messages of other tests may come at any time.
            topics += [] if got.retain else [got.topic]
        return topics

    seen_until("before")
    victim = connected(f"{name}-v")
    victim.cut()
    connected(f"{name}-v")
    assert seen_until("after") == []


@clause("MQTT-3.1.2-8", "MQTT-4.8.0-1")
def test_will_is_published_after_a_violation(connected, name):
    watcher = connected()
    watcher.subscribe(name, qos=1)
    victim = connected(will=Will(name, b"gone", 1))
    victim.send(m.packet(0, 0))
    victim.closed()
    assert watcher.receive().payload == b"gone"


@clause("MQTT-3.1.2-8", "MQTT-3.1.4-2")
def test_will_is_published_on_takeover(connected, name):
    watcher = connected()
    watcher.subscribe(name, qos=1)
    victim = connected(f"{name}-v", will=Will(name, b"gone", 1))
    connected(f"{name}-v")
    victim.closed()
    assert watcher.receive().payload == b"gone"
