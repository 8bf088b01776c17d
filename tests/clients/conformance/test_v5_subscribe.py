"""Normative statements of MQTT 5: matching, retained messages, subscription options, order."""

import struct
import threading
import time

import pytest

import rawmqtt as m
from rawmqtt import Will, options
from support import COUNT, MALFORMED, PROTOCOL_ERROR, expiry

clause = pytest.mark.clause
VERSION = 5


# Matching


@clause("MQTT-3.3.2-3", "MQTT-4.7.1-1", "MQTT-4.7.1-2", "MQTT-4.7.3-4")
@pytest.mark.parametrize(
    "filter,matched,missed",
    [
        ("a", ["a"], ["A", "a/", "/a", "ab"]),
        ("a/#", ["a", "a/", "a/b", "a/b/c"], ["ab", "b"]),
        ("a/+", ["a/", "a/b"], ["a", "a/b/c"]),
        ("+/+", ["/", "a/b", "/b"], ["a", "a/b/c"]),
        ("+", ["a"], ["/a", "a/"]),
        ("a/+/#", ["a/b", "a/b/c", "a//"], ["a"]),
        ("ä", ["ä"], ["a\u0308"]),
    ],
)
def test_matching(connected, name, filter, matched, missed):
    subscriber, publisher = connected(), connected()
    subscriber.subscribe(f"{name}/{filter}", qos=1)
    for topic in missed + matched:
        publisher.publish(f"{name}/{topic}", topic.encode(), qos=1)
    assert [subscriber.receive().payload.decode() for _ in matched] == matched
    subscriber.nothing_more()


@clause("MQTT-4.7.2-1")
def test_wildcards_at_the_front_miss_dollar_topics(connected, name):
    subscriber, publisher = connected(), connected()
    subscriber.subscribe(("#", options(1, retain_handling=2)), ("+/" + name, options(1)))
    publisher.publish(f"x/{name}", b"seen", qos=1)
    got = subscriber.receive()
    while got.topic != f"x/{name}":
        assert not got.topic.startswith("$"), got
        got = subscriber.receive()


@clause("MQTT-4.7.1-1", "MQTT-4.7.1-2", "MQTT-4.7.3-1", "MQTT-4.8.2-1", "MQTT-4.8.2-2")
@pytest.mark.parametrize(
    "filter",
    ["a/#/b", "a#", "a+", "+a", "a/b+/c", "#/", "", "$share//a", "$share/x", "$share/x/", "$share/+/a", "$share/a#/b"],
)
@pytest.mark.not_mosquitto("takes some shared filters for plain ones")
def test_wrong_filters(connected, filter):
    client = connected()
    client.send(m.subscribe(1, [(filter, 0)]))
    try:
        assert client.expect(m.SUBACK).reasons == [0x8F]
    except m.Closed as end:
        assert end.last is None or end.last.reason in (MALFORMED, PROTOCOL_ERROR, 0x8F)


@clause("MQTT-4.7.3-3")
@pytest.mark.not_mosquitto("allows 200 levels")
@pytest.mark.parametrize("letter", ["x", "/"], ids=["one-level", "only-slashes"])
def test_longest_topic(connected, name, letter):
    topic = name + letter * (65_535 - len(name))
    subscriber, publisher = connected(), connected()
    subscriber.subscribe(topic, qos=1)
    publisher.publish(topic, b"x", qos=1)
    assert subscriber.receive().topic == topic


# Retained messages and subscription options


@clause("MQTT-3.3.1-5", "MQTT-3.3.1-6", "MQTT-3.3.1-7", "MQTT-3.3.1-8")
def test_retained_replace_and_remove(connected, name):
    publisher = connected()
    for payload, retain, kept in [
        (b"old", True, b"old"),
        (b"new", True, b"new"),
        (b"passing", False, b"new"),
        (b"", False, b"new"),
        (b"", True, None),
    ]:
        publisher.publish(name, payload, qos=1, retain=retain)
        late = connected()
        late.subscribe(name, qos=1)
        if kept is not None:
            got = late.receive()
            assert (got.payload, got.retain) == (kept, True)
        late.nothing_more()


def test_retained_of_many_topics(connected, name):
    """More than one look at them passes, and each is found once, however few of them match."""
    publisher, subscriber = connected(), connected()
    topics = [f"{name}/{number}/{'odd' if number % 2 else 'even'}" for number in range(4000)]

    def keep(payload):
        for at in range(0, len(topics), 500):
            some = enumerate(topics[at : at + 500], 1)
            publisher.send(*[m.publish(topic, payload(topic), 1, True, id=id) for id, topic in some])
            for _ in range(500):
                publisher.expect(m.PUBACK)

    keep(str)
    for filter, wanted in [
        (f"{name}/+/none", []), (f"{name}/+/odd", topics[1::2]), (f"{name}/#", topics), (topics[7], topics[7:8])
    ]:
        subscriber.subscribe(filter)
        got = [payload.decode() for payload in subscriber.receive_payloads(len(wanted))]
        assert sorted(got) == sorted(wanted), filter
        subscriber.nothing_more()
    keep(lambda _: "")


@clause("MQTT-4.6.0-5", "MQTT-4.6.0-6", "MQTT-3.3.1-9")
def test_retained_never_follows_what_is_newer(connected, name):
    """Whoever takes the last message for the truth must not be left with an old one."""
    publisher, stop = connected(), threading.Event()

    def publish():
        number = 0
        while not stop.is_set():
            number += 1
            publisher.publish(name, b"%d" % number, qos=1, retain=True)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        subscriber = connected()
        for _ in range(100):
            subscriber.subscribe(name, qos=0)
            seen = [int(subscriber.receive().payload) for _ in range(5)]
            assert seen == sorted(seen)
            subscriber.unsubscribe(name)
            # What was under way when the subscription ended.
            subscriber.ping()
            subscriber.kept.clear()
    finally:
        stop.set()
        thread.join()


@clause("MQTT-3.3.1-9", "MQTT-3.3.1-10", "MQTT-3.3.1-11", "MQTT-3.8.4-4", "MQTT-3.8.4-3")
@pytest.mark.parametrize(
    "handling,first,again", [(0, True, True), (1, True, False), (2, False, False)]
)
@pytest.mark.parametrize("filter", ["{}/a", "{}/#"])
def test_retain_handling(connected, name, handling, first, again, filter):
    publisher, subscriber = connected(), connected()
    publisher.publish(f"{name}/a", b"x", qos=1, retain=True)
    for wanted in (first, again):
        subscriber.subscribe(filter.format(name), qos=1, retain_handling=handling)
        if wanted:
            assert subscriber.receive().retain
        subscriber.nothing_more()
    # After UNSUBSCRIBE it is new again.
    subscriber.unsubscribe(filter.format(name))
    subscriber.subscribe(filter.format(name), qos=1, retain_handling=handling)
    if first:
        assert subscriber.receive().retain
    subscriber.nothing_more()


@clause("MQTT-3.3.1-12", "MQTT-3.3.1-13")
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("retain", [False, True])
def test_retain_as_published(connected, name, keep, retain):
    publisher, subscriber = connected(), connected()
    subscriber.subscribe(name, qos=1, retain_as_published=keep)
    publisher.publish(name, b"x", qos=1, retain=retain)
    assert subscriber.receive().retain == (retain and keep)


@clause("MQTT-3.8.3-3")
def test_no_local(connected, name):
    client, other = connected(), connected()
    client.subscribe(name, qos=1, no_local=True)
    client.publish(name, b"own", qos=1)
    other.publish(name, b"other's", qos=1)
    assert client.receive().payload == b"other's"
    client.nothing_more()


@clause("MQTT-3.8.3-3")
@pytest.mark.not_mosquitto("takes the client for another one")
def test_no_local_holds_after_a_reconnection(connected, dial, name):
    client = connected(name, props=expiry(60))
    client.subscribe(f"{name}/t", qos=1, no_local=True)
    client.publish(f"{name}/t", b"own", qos=1)
    client.cut()
    again = dial()
    assert again.connect(name, clean=False).session_present
    again.publish(f"{name}/t", b"own", qos=1)
    again.nothing_more()


@clause("MQTT-3.8.3-4")
@pytest.mark.not_mosquitto("lets it pass")
def test_no_local_on_a_shared_filter(connected):
    client = connected()
    client.send(m.subscribe(1, [("$share/g/a", options(0, no_local=True))]))
    client.refused(PROTOCOL_ERROR)


@clause("MQTT-3.8.3-5")
@pytest.mark.parametrize("byte", [0x03, 0x30, 0x40, 0x80])
def test_reserved_subscription_options(connected, byte):
    client = connected()
    client.send(m.subscribe(1, [("a", byte)]))
    client.refused(MALFORMED, PROTOCOL_ERROR)


@clause("MQTT-3.8.3-2", "MQTT-3.10.3-2")
@pytest.mark.parametrize("packet", [m.subscribe(1, []), m.unsubscribe(1, [])], ids=["subscribe", "unsubscribe"])
def test_no_filter_at_all(connected, packet):
    client = connected()
    client.send(packet)
    client.refused(PROTOCOL_ERROR, MALFORMED)


@clause("MQTT-3.8.4-5", "MQTT-3.8.4-6", "MQTT-3.8.4-7", "MQTT-3.9.3-1", "MQTT-3.9.3-2")
def test_a_reason_for_each_filter_in_order(connected, name):
    client = connected()
    filters = [(f"{name}/{number}", (number * 2) % 3) for number in range(40)]
    assert client.subscribe(*filters) == [qos for _, qos in filters]


@clause("MQTT-3.8.4-8")
@pytest.mark.parametrize("asked", [0, 1, 2])
@pytest.mark.parametrize("sent", [0, 1, 2])
def test_delivered_qos_is_the_lower_one(connected, name, asked, sent):
    subscriber, publisher = connected(), connected()
    subscriber.subscribe(name, qos=asked)
    publisher.publish(name, b"x", qos=sent)
    assert subscriber.receive().qos == min(asked, sent)


@clause(
    "MQTT-3.10.4-1", "MQTT-3.10.4-2", "MQTT-3.10.4-6", "MQTT-3.11.3-1", "MQTT-3.11.3-2", "MQTT-3.10.4-5"
)
def test_unsubscribe_takes_exactly_the_named_filters(connected, name):
    client, publisher = connected(), connected()
    client.subscribe(f"{name}/a", f"{name}/+", f"{name}/b", qos=1)
    reasons = client.unsubscribe(f"{name}/+", f"{name}/A", f"{name}/never", f"{name}/b")
    assert reasons == [0, 0x11, 0x11, 0]
    publisher.publish(f"{name}/b", b"must not come", qos=1)
    publisher.publish(f"{name}/a", b"x", qos=1)
    assert client.receive().topic == f"{name}/a"
    client.nothing_more()


@clause("MQTT-3.10.4-3")
def test_exchanges_are_completed_after_unsubscribe(connected, name):
    client, publisher = connected(), connected()
    client.subscribe(name, qos=2)
    publisher.publish(name, b"x", qos=2)
    got = client.receive(ack_it=False)
    client.unsubscribe(name)
    client.send(m.ack(m.PUBREC, got.id))
    assert client.expect(m.PUBREL).id == got.id


@clause("MQTT-3.12.4-1")
def test_ping(connected):
    connected().ping()


@clause("MQTT-3.14.4-1", "MQTT-3.14.4-2", "MQTT-3.14.2-1")
@pytest.mark.parametrize("reason", [None, 0, 4])
def test_disconnect_closes(connected, reason):
    client = connected()
    client.send(m.disconnect(reason), m.packet(m.PINGREQ, 0))
    with pytest.raises(m.Closed):
        client.next()


@clause("MQTT-3.14.2-1")
@pytest.mark.not_mosquitto("ends without looking at the reason")
@pytest.mark.parametrize("reason", [0x01, 0x8E, 0x7F])
def test_disconnect_reason_of_a_server(connected, name, reason):
    """A reason that no client may give is no normal ending, so the will is published."""
    watcher = connected()
    watcher.subscribe(name, qos=1)
    client = connected(will=Will(name, b"gone", 1))
    client.send(m.disconnect(reason))
    client.refused(MALFORMED, PROTOCOL_ERROR)
    assert watcher.receive().payload == b"gone"


# Order


@clause("MQTT-4.6.0-5", "MQTT-4.6.0-6", "MQTT-4.6.0-1", "MQTT-4.6.0-2", "MQTT-4.6.0-3", "MQTT-4.6.0-4", "MQTT-4.5.0-1", "MQTT-4.5.0-2")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_order_per_topic(connected, name, qos):
    subscriber, publisher = connected(), connected()
    subscriber.subscribe(f"{name}/#", qos=qos)
    publisher.send(
        *(m.publish(f"{name}/{n % 3}", struct.pack(">I", n), qos, id=n + 1 if qos else None) for n in range(COUNT))
    )
    ids = list(range(1, COUNT + 1))
    if qos == 1:
        assert [publisher.expect(m.PUBACK).id for _ in ids] == ids
    if qos == 2:
        assert [publisher.expect(m.PUBREC).id for _ in ids] == ids
        publisher.send(*(m.ack(m.PUBREL, id) for id in ids))
        assert [publisher.expect(m.PUBCOMP).id for _ in ids] == ids
    seen = {}
    for _ in range(COUNT):
        got = subscriber.receive()
        seen.setdefault(got.topic, []).append(struct.unpack(">I", got.payload)[0])
    assert seen == {f"{name}/{t}": list(range(t, COUNT, 3)) for t in range(3)}


@clause("MQTT-4.2.0-1")
def test_both_versions_meet(connected, dial, name):
    old = dial(4)
    old.connect(f"{name}-old")
    new = connected()
    old.subscribe(name, qos=1)
    new.subscribe(name, qos=1)
    new.publish(name, b"from 5", qos=1, props={"user_property": [("k", "v")]})
    assert old.receive().payload == b"from 5"
    assert new.receive().props == {"user_property": [("k", "v")]}
    old.publish(name, b"from 3", qos=1)
    assert new.receive().props == {}
    assert old.receive().payload == b"from 3"


def test_message_expiry_counts_for_old_subscribers(connected, dial, name):
    old = dial(4)
    old.connect(f"{name}-old", clean=False)
    old.subscribe(name, qos=1)
    old.cut()
    publisher = connected()
    publisher.publish(name, b"expires", qos=1, props={"message_expiry_interval": 1})
    publisher.publish(name, b"stays", qos=1)
    time.sleep(2.5)
    old = dial(4)
    assert old.connect(f"{name}-old", clean=False).session_present
    assert old.receive().payload == b"stays"
    old.nothing_more()
