"""Normative statements of MQTT 3.1.1: PUBLISH, matching, retained messages, delivery."""

import struct

import pytest

import rawmqtt as m
from support import COUNT

clause = pytest.mark.clause
VERSION = 4


# PUBLISH


@clause("MQTT-3.3.1-4")
def test_qos_3(connected):
    client = connected()
    client.send(m.packet(m.PUBLISH, 0x06, m.text("a") + b"\0\1x"))
    client.closed()


@clause("MQTT-3.3.1-2")
@pytest.mark.not_mosquitto("lets DUP stand with QoS 0")
def test_dup_with_qos_0(connected):
    client = connected()
    client.send(m.packet(m.PUBLISH, 0x08, m.text("a") + b"x"))
    client.closed()


@clause("MQTT-3.3.2-2", "MQTT-4.7.1-1", "MQTT-4.7.3-1")
@pytest.mark.parametrize("topic", ["a/+", "#", "a/#", "a+b", ""])
def test_wrong_topic_names(connected, topic):
    client = connected()
    client.send(m.publish(topic, b"x", version=4))
    client.closed()


@clause("MQTT-3.3.1-3", "MQTT-3.3.1-1")
@pytest.mark.parametrize("qos", [1, 2])
def test_dup_is_not_passed_on(connected, name, qos):
    subscriber, publisher = connected(), connected()
    subscriber.subscribe(name, qos=qos)
    publisher.send(m.publish(name, b"x", qos, dup=True, id=7, version=4))
    if qos == 2:
        publisher.expect(m.PUBREC)
        publisher.send(m.ack(m.PUBREL, 7))
    assert not subscriber.receive().dup


@clause("MQTT-3.3.4-1", "MQTT-4.3.2-2", "MQTT-4.3.3-2")
@pytest.mark.parametrize("qos,answer", [(0, None), (1, m.PUBACK), (2, m.PUBREC)])
def test_answer_to_a_publish(connected, name, qos, answer):
    client = connected()
    client.send(m.publish(name, b"x", qos, id=9 if qos else None, version=4), m.packet(m.PINGREQ, 0))
    got = {client.next().kind for _ in range(2 if answer else 1)}
    assert got == {answer, m.PINGRESP} - {None}


@clause("MQTT-3.3.2-3", "MQTT-4.7.3-4", "MQTT-4.7.1-2", "MQTT-4.7.1-3")
@pytest.mark.parametrize(
    "filter,matched,missed",
    [
        ("a", ["a"], ["A", "a/", "/a", "ab"]),
        ("a/#", ["a", "a/", "a/b", "a/b/c"], ["ab", "b"]),
        ("a/+", ["a/", "a/b"], ["a", "a/b/c"]),
        ("+/+", ["/", "a/b", "/b"], ["a", "a/b/c"]),
        ("/+", ["/a", "/"], ["a/b", "a"]),
        ("+", ["a"], ["/a", "a/"]),
        ("a/+/c", ["a/b/c", "a//c"], ["a/b/b/c"]),
        ("a/+/#", ["a/b", "a/b/c", "a//"], ["a"]),
        ("#", ["a", "/", "a/b"], []),
        ("ä/ö", ["ä/ö"], ["a\u0308/ö"]),
        ("a b", ["a b"], ["a  b"]),
    ],
)
def test_matching(connected, name, filter, matched, missed):
    # Under a level of this test's own, so that no other test's topics come in.
    subscriber, publisher = connected(), connected()
    subscriber.subscribe(f"{name}/{filter}", qos=1)
    for topic in missed + matched:
        publisher.publish(f"{name}/{topic}", topic.encode(), qos=1)
    got = [subscriber.receive().payload.decode() for _ in matched]
    assert got == matched
    subscriber.nothing_more()


@clause("MQTT-4.7.2-1")
def test_wildcards_at_the_front_miss_dollar_topics(connected, name):
    subscriber, publisher = connected(), connected()
    subscriber.subscribe("#", "+/" + name, qos=1)
    publisher.publish(f"x/{name}", b"seen", qos=1)
    got = subscriber.receive()
    while got.topic != f"x/{name}":
        assert not got.topic.startswith("$"), got
        got = subscriber.receive()


@clause("MQTT-4.7.1-2", "MQTT-4.7.1-3", "MQTT-4.7.3-1", "MQTT-4.8.0-1")
@pytest.mark.parametrize("filter", ["a/#/b", "a#", "a+", "+a", "a/b+/c", "#/", ""])
def test_wrong_filters(connected, filter):
    client = connected()
    client.send(m.subscribe(1, [(filter, 0)], version=4))
    try:
        assert client.expect(m.SUBACK).reasons == [0x80]
    except m.Closed:
        pass


@clause("MQTT-4.7.3-3", "MQTT-4.7.3-1")
@pytest.mark.not_mosquitto("allows 200 levels")
@pytest.mark.parametrize("letter", ["x", "/"], ids=["one-level", "only-slashes"])
def test_longest_topic(connected, name, letter):
    topic = name + letter * (65_535 - len(name))
    subscriber, publisher = connected(), connected()
    subscriber.subscribe(topic, qos=1)
    publisher.publish(topic, b"x", qos=1)
    assert subscriber.receive().topic == topic


@clause("MQTT-3.3.5-1")
@pytest.mark.parametrize("asked,sent", [((0, 1, 2), 2), ((0, 2), 1), ((0, 0), 2)])
def test_overlapping_filters_deliver_at_the_highest_qos(connected, name, asked, sent):
    subscriber, publisher = connected(), connected()
    filters = [f"{name}/#", f"{name}/+", f"{name}/x"]
    for filter, qos in zip(filters, asked):
        subscriber.subscribe(filter, qos=qos)
    publisher.publish(f"{name}/x", b"x", qos=sent)
    # One for each, or one for all: either way none below and one at the highest that applies.
    publisher.publish(f"{name}/x", b"end", qos=sent)
    got = []
    while not got or got[-1].payload != b"end":
        got.append(subscriber.receive())
    assert max(one.qos for one in got if one.payload == b"x") == min(max(asked), sent)


@clause("MQTT-4.3.1-1", "MQTT-3.8.4-6")
@pytest.mark.parametrize("asked", [0, 1, 2])
@pytest.mark.parametrize("sent", [0, 1, 2])
def test_delivered_qos_is_the_lower_one(connected, name, asked, sent):
    subscriber, publisher = connected(), connected()
    assert subscriber.subscribe(name, qos=asked) == [asked]
    publisher.publish(name, b"x", qos=sent)
    assert subscriber.receive().qos == min(asked, sent)


# Retained messages


@clause("MQTT-3.3.1-5", "MQTT-3.3.1-6", "MQTT-3.3.1-8", "MQTT-3.3.1-9")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_retained_for_new_and_established(connected, name, qos):
    early, publisher = connected(), connected()
    early.subscribe(f"{name}/#", qos=2)
    publisher.publish(f"{name}/a", b"old", qos=qos, retain=True)
    publisher.publish(f"{name}/a", b"new", qos=qos, retain=True)
    assert [(got.payload, got.retain) for got in (early.receive(), early.receive())] == [
        (b"old", False),
        (b"new", False),
    ]
    for filter in (f"{name}/a", f"{name}/+", f"{name}/#"):
        late = connected()
        late.subscribe(filter, qos=2)
        got = late.receive()
        assert (got.topic, got.payload, got.qos, got.retain) == (f"{name}/a", b"new", qos, True)
        late.nothing_more()


@clause("MQTT-3.3.1-10", "MQTT-3.3.1-11")
def test_empty_retained_removes(connected, name):
    early, publisher = connected(), connected()
    publisher.publish(name, b"x", qos=1, retain=True)
    early.subscribe(name, qos=1)
    assert early.receive().retain
    publisher.publish(name, b"", qos=1, retain=True)
    got = early.receive()
    assert (got.payload, got.retain) == (b"", False)
    late = connected()
    late.subscribe(name, qos=1)
    late.nothing_more()


@clause("MQTT-3.3.1-12")
def test_plain_publish_leaves_the_retained(connected, name):
    publisher = connected()
    publisher.publish(name, b"kept", qos=1, retain=True)
    publisher.publish(name, b"passing", qos=1)
    publisher.publish(name, b"", qos=1)
    late = connected()
    late.subscribe(name, qos=1)
    assert late.receive().payload == b"kept"
    late.nothing_more()


@clause("MQTT-3.3.1-7", "MQTT-3.3.1-5")
def test_qos_0_replaces_the_retained(connected, name):
    publisher = connected()
    publisher.publish(name, b"old", qos=1, retain=True)
    publisher.publish(name, b"new", qos=0, retain=True)
    publisher.publish(f"{name}/end", b"x", qos=1)
    late = connected()
    late.subscribe(name, qos=1)
    # QoS 0 may be dropped altogether, but the old one is gone.
    late.publish(f"{name}/mark", b"", qos=1)
    assert late.receive().payload == b"new"


# Delivery


@clause("MQTT-4.3.3-2", "MQTT-4.3.3-1")
def test_qos_2_repeated_before_release_is_one_message(connected, name):
    subscriber, publisher = connected(), connected()
    subscriber.subscribe(name, qos=2)
    for dup in (False, True):
        publisher.send(m.publish(name, b"once", 2, dup=dup, id=5, version=4))
        assert publisher.expect(m.PUBREC).id == 5
    publisher.send(m.ack(m.PUBREL, 5))
    assert publisher.expect(m.PUBCOMP).id == 5
    # The identifier is free again, so this is a new message.
    publisher.publish(name, b"second", qos=2, id=5)
    assert subscriber.receive_payloads(2) == [b"once", b"second"]
    subscriber.nothing_more()


@clause("MQTT-4.3.3-2")
def test_release_of_an_unknown_identifier_is_completed(connected):
    client = connected()
    client.send(m.ack(m.PUBREL, 77))
    assert client.expect(m.PUBCOMP).id == 77


@clause("MQTT-4.3.3-1", "MQTT-4.4.0-1", "MQTT-2.3.1-3", "MQTT-3.3.1-1", "MQTT-4.6.0-1")
@pytest.mark.parametrize("qos", [1, 2])
def test_unacknowledged_are_sent_again_in_order(connected, dial, name, qos):
    client = connected(name, clean=False)
    client.subscribe(f"{name}/t", qos=qos)
    publisher = connected()
    for number in range(5):
        publisher.publish(f"{name}/t", b"%d" % number, qos=qos)
    before = [client.receive(ack_it=False) for _ in range(5)]
    client.cut()
    again = dial(4)
    assert again.connect(name, clean=False).session_present
    after = [again.receive(ack_it=False) for _ in range(5)]
    assert [(one.id, one.payload) for one in after] == [(one.id, one.payload) for one in before]
    assert all(one.dup for one in after)


@clause("MQTT-4.3.3-1", "MQTT-4.4.0-1", "MQTT-4.6.0-4")
def test_release_is_sent_again(connected, dial, name):
    client = connected(name, clean=False)
    client.subscribe(f"{name}/t", qos=2)
    publisher = connected()
    for number in range(3):
        publisher.publish(f"{name}/t", b"%d" % number, qos=2)
    ids = [client.receive(ack_it=False).id for _ in range(3)]
    for id in ids:
        client.send(m.ack(m.PUBREC, id))
        assert client.expect(m.PUBREL).id == id
    client.cut()
    again = dial(4)
    assert again.connect(name, clean=False).session_present
    assert [again.expect(m.PUBREL).id for _ in ids] == ids
    for id in ids:
        again.send(m.ack(m.PUBCOMP, id))
    again.nothing_more()


@clause("MQTT-4.3.3-2", "MQTT-4.1.0-1")
def test_receiver_state_of_qos_2_survives_the_link(connected, dial, name):
    subscriber = connected()
    subscriber.subscribe(f"{name}/t", qos=2)
    publisher = connected(name, clean=False)
    publisher.send(m.publish(f"{name}/t", b"once", 2, id=11, version=4))
    publisher.expect(m.PUBREC)
    publisher.cut()
    again = dial(4)
    assert again.connect(name, clean=False).session_present
    again.send(m.publish(f"{name}/t", b"once", 2, dup=True, id=11, version=4))
    assert again.expect(m.PUBREC).id == 11
    again.send(m.ack(m.PUBREL, 11))
    assert again.expect(m.PUBCOMP).id == 11
    assert subscriber.receive().payload == b"once"
    subscriber.nothing_more()


@clause("MQTT-4.6.0-5", "MQTT-4.6.0-6", "MQTT-4.6.0-2", "MQTT-4.6.0-3", "MQTT-4.5.0-1", "MQTT-4.5.0-2")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_order_per_topic(connected, name, qos):
    subscriber, publisher = connected(), connected()
    subscriber.subscribe(f"{name}/#", qos=qos)
    burst = b"".join(
        m.publish(f"{name}/{n % 3}", struct.pack(">I", n), qos, id=n + 1 if qos else None, version=4)
        for n in range(COUNT)
    )
    publisher.send(burst)
    if qos == 2:
        ids = [publisher.expect(m.PUBREC).id for _ in range(COUNT)]
        assert ids == list(range(1, COUNT + 1))
        publisher.send(*(m.ack(m.PUBREL, id) for id in ids))
        assert [publisher.expect(m.PUBCOMP).id for _ in ids] == ids
    elif qos == 1:
        assert [publisher.expect(m.PUBACK).id for _ in range(COUNT)] == list(range(1, COUNT + 1))
    seen = {}
    for _ in range(COUNT):
        got = subscriber.receive()
        seen.setdefault(got.topic, []).append(struct.unpack(">I", got.payload)[0])
    assert seen == {f"{name}/{t}": list(range(t, COUNT, 3)) for t in range(3)}


@clause("MQTT-4.5.0-1")
def test_every_matching_client_gets_it(connected, name):
    subscribers = [connected() for _ in range(10)]
    for subscriber in subscribers:
        subscriber.subscribe(name, qos=1)
    publisher = connected()
    publisher.subscribe(name)
    publisher.publish(name, b"x", qos=1)
    for client in [*subscribers, publisher]:
        assert client.receive().payload == b"x"


@clause("MQTT-4.3.2-1")
@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 2_097_152])
def test_payload_of_any_size(connected, name, size):
    subscriber, publisher = connected(), connected()
    subscriber.subscribe(name, qos=1)
    payload = bytes(n * 7 % 251 for n in range(min(size, 251))) * (size // 251 + 1)
    publisher.publish(name, payload[:size], qos=1)
    assert subscriber.receive().payload == payload[:size]


def test_packets_in_single_bytes(dial, name):
    client = dial(4)
    for packet in (m.connect(name, 4), m.subscribe(1, [(name, 1)], version=4), m.publish(name, b"slow", version=4)):
        for byte in packet:
            client.send(bytes([byte]))
    assert client.next().kind == m.CONNACK
    # The first deliveries may come before it.
    assert client.expect(m.SUBACK).reasons == [1]
    assert client.receive().payload == b"slow"


def test_packets_in_one_write(dial, name):
    client = dial(4)
    client.send(
        m.connect(name, 4),
        m.subscribe(1, [(name, 1)], version=4),
        *(m.publish(name, b"%d" % n, 1, id=n + 1, version=4) for n in range(20)),
        m.packet(m.PINGREQ, 0),
    )
    assert client.next().kind == m.CONNACK
    assert client.expect(m.SUBACK).reasons == [1]
    assert client.receive_payloads(20) == [b"%d" % n for n in range(20)]
    client.expect(m.PINGRESP)
