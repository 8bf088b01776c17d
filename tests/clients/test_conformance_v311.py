"""The normative statements of MQTT 3.1.1 that a client can see, each named in a marker."""

import struct
import time

import pytest

import rawmqtt as m
from rawmqtt import Will

clause = pytest.mark.clause

# Messages at once, without more in flight than every broker takes.
COUNT = 20


@pytest.fixture
def connected(dial, name):
    """Opens connections that have their CONNACK already."""
    count = 0

    def connected(id=None, **fields):
        nonlocal count
        count += 1
        client = dial(4)
        client.connect(id or f"{name}-{count}", **fields)
        return client

    return connected


def wrong(*bytes_or_packets):
    return b"".join(bytes_or_packets)


# Text and packet headers


@clause("MQTT-1.5.3-1", "MQTT-1.5.3-2", "MQTT-3.1.3-4", "MQTT-3.1.4-1", "MQTT-4.8.0-1")
@pytest.mark.parametrize(
    "client_id", [b"\xff\xfe", b"\xc0\x80", b"\xed\xa0\x80", b"a\0b"], ids=["bad", "overlong", "surrogate", "nul"]
)
def test_client_id_that_is_no_text(dial, client_id):
    client = dial(4)
    client.send(m.connect(client_id, 4))
    client.closed()


@clause("MQTT-1.5.3-1", "MQTT-1.5.3-2", "MQTT-3.3.2-1", "MQTT-4.7.3-2")
@pytest.mark.parametrize("topic", [b"a/\xff", b"a/\xed\xbf\xbf", b"a\0b"], ids=["bad", "surrogate", "nul"])
def test_topic_that_is_no_text(connected, topic):
    client = connected()
    client.send(m.publish(topic, b"x", version=4))
    client.closed()


@clause("MQTT-1.5.3-1", "MQTT-3.8.3-1", "MQTT-4.7.3-2")
@pytest.mark.parametrize("filter", [b"a/\xff", b"a\0b"], ids=["bad", "nul"])
def test_filter_that_is_no_text(connected, filter):
    client = connected()
    client.send(m.subscribe(1, [(filter, 0)], version=4))
    client.closed()


@clause("MQTT-3.10.3-1")
def test_unsubscribe_filter_that_is_no_text(connected):
    client = connected()
    client.send(m.unsubscribe(1, [b"a/\xff"], version=4))
    client.closed()


@clause("MQTT-3.1.3-10", "MQTT-3.1.3-11", "MQTT-1.5.3-1")
@pytest.mark.parametrize("field", ["will", "username"])
def test_connect_field_that_is_no_text(dial, field):
    fields = {"will": Will(b"\xff\xff", b"x")} if field == "will" else {"username": b"\xff\xff"}
    client = dial(4)
    client.send(m.connect("c", 4, **fields))
    client.closed()


@clause("MQTT-1.5.3-3", "MQTT-4.7.3-4")
@pytest.mark.not_mosquitto("refuses U+FEFF")
def test_byte_order_mark_is_a_character(connected, name):
    subscriber, publisher = connected(), connected()
    subscriber.subscribe(f"\ufeff{name}", qos=1)
    publisher.publish(name, b"without", qos=1)
    publisher.publish(f"\ufeff{name}", b"with", qos=1)
    got = subscriber.receive()
    assert (got.topic, got.payload) == (f"\ufeff{name}", b"with")


@clause("MQTT-2.2.2-1", "MQTT-2.2.2-2", "MQTT-3.6.1-1", "MQTT-3.8.1-1", "MQTT-3.10.1-1", "MQTT-3.14.1-1")
@pytest.mark.not_mosquitto("looks at the flags of some packets only")
@pytest.mark.parametrize(
    "kind,flags,body",
    [
        (m.PUBACK, 1, b"\0\1"),
        (m.PUBREC, 2, b"\0\1"),
        (m.PUBREL, 0, b"\0\1"),
        (m.PUBREL, 3, b"\0\1"),
        (m.PUBCOMP, 8, b"\0\1"),
        (m.SUBSCRIBE, 0, b"\0\1\0\1a\0"),
        (m.SUBSCRIBE, 3, b"\0\1\0\1a\0"),
        (m.UNSUBSCRIBE, 0, b"\0\1\0\1a"),
        (m.PINGREQ, 1, b""),
        (m.DISCONNECT, 1, b""),
    ],
    ids=lambda value: m.NAMES[value] if isinstance(value, int) and value > 2 else None,
)
def test_reserved_flags(connected, kind, flags, body):
    client = connected()
    client.send(m.packet(kind, flags, body))
    client.closed()


@clause("MQTT-2.2.2-2")
def test_reserved_flags_of_connect(dial):
    client = dial(4)
    good = m.connect("c", 4)
    client.send(bytes([good[0] | 1]) + good[1:])
    client.closed()


@clause("MQTT-2.2.2-2", "MQTT-4.8.0-1")
@pytest.mark.parametrize("kind", [0, 15])
def test_reserved_packet_types(connected, kind):
    client = connected()
    client.send(m.packet(kind, 0))
    client.closed()


@clause("MQTT-4.8.0-1")
@pytest.mark.not_mosquitto("takes a client for a bridge")
@pytest.mark.parametrize("kind", [m.CONNACK, m.SUBACK, m.UNSUBACK, m.PINGRESP])
def test_packets_that_only_a_server_sends(connected, kind):
    client = connected()
    body = {m.CONNACK: b"\0\0", m.SUBACK: b"\0\1\0", m.UNSUBACK: b"\0\1", m.PINGRESP: b""}[kind]
    client.send(m.packet(kind, 0, body))
    client.closed()


@clause("MQTT-4.8.0-1")
def test_remaining_length_of_five_bytes(connected):
    client = connected()
    client.send(b"\x30\xff\xff\xff\xff\x01")
    client.closed()


@clause("MQTT-4.8.0-1")
@pytest.mark.parametrize(
    "packet",
    [
        m.packet(m.PUBACK, 0, b"\0"),
        m.packet(m.SUBSCRIBE, 2, b"\0\1\0\5a"),
        m.packet(m.PUBLISH, 0, b"\0\x09a"),
        m.packet(m.PUBLISH, 2, b"\0\1a"),
        m.packet(m.PUBLISH, 0, b""),
        m.packet(m.UNSUBSCRIBE, 2, b"\0\1\0"),
    ],
    ids=["puback", "subscribe", "publish-topic", "publish-id", "publish-empty", "unsubscribe"],
)
def test_packet_that_breaks_off(connected, packet):
    client = connected()
    client.send(packet)
    client.closed()


@clause("MQTT-2.3.1-1")
@pytest.mark.parametrize(
    "packet",
    [
        m.publish("a", b"x", qos=1, id=0, version=4),
        m.publish("a", b"x", qos=2, id=0, version=4),
        m.subscribe(0, [("a", 0)], version=4),
        m.unsubscribe(0, ["a"], version=4),
    ],
    ids=["publish-1", "publish-2", "subscribe", "unsubscribe"],
)
def test_packet_identifier_zero(connected, packet):
    client = connected()
    client.send(packet)
    client.closed()


@clause("MQTT-2.3.1-2", "MQTT-2.3.1-4", "MQTT-2.3.1-6")
@pytest.mark.parametrize("qos", [1, 2])
def test_server_uses_free_identifiers(connected, name, qos):
    subscriber, publisher = connected(), connected()
    subscriber.subscribe(name, qos=qos)
    for number in range(10):
        publisher.publish(name, b"%d" % number, qos=qos)
    # Nothing is acknowledged, so every identifier is in use.
    got = [subscriber.receive(ack_it=False) for _ in range(10)]
    assert len({packet.id for packet in got}) == 10
    assert all(packet.id for packet in got)


@clause("MQTT-2.3.1-5", "MQTT-4.3.1-1", "MQTT-3.3.1-2")
def test_qos_0_has_no_identifier(connected, name):
    subscriber, publisher = connected(), connected()
    subscriber.subscribe(name, qos=2)
    # An identifier would be taken for payload.
    publisher.send(m.publish(name, b"\0\1xyz", version=4))
    got = subscriber.receive()
    assert (got.payload, got.qos, got.dup) == (b"\0\1xyz", 0, False)


@clause("MQTT-2.3.1-6", "MQTT-2.3.1-7", "MQTT-3.8.4-1", "MQTT-3.8.4-2", "MQTT-3.10.4-4")
@pytest.mark.parametrize("id", [1, 255, 256, 65535])
def test_answers_carry_the_identifier(connected, name, id):
    client = connected()
    client.send(m.subscribe(id, [(name, 0)], version=4))
    assert client.expect(m.SUBACK).id == id
    client.send(m.unsubscribe(id, [name], version=4))
    assert client.expect(m.UNSUBACK).id == id
    client.send(m.publish(name, b"x", qos=1, id=id, version=4))
    assert client.expect(m.PUBACK).id == id
    client.send(m.publish(name, b"x", qos=2, id=id, version=4))
    assert client.expect(m.PUBREC).id == id
    client.send(m.ack(m.PUBREL, id))
    assert client.expect(m.PUBCOMP).id == id


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
@pytest.mark.parametrize("level", [0, 1, 2, 6, 127])
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
    later.subscribe(name, qos=2)
    if retain:
        assert later.receive().retain
    later.nothing_more()


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
        topics = [watcher.receive().topic]
        while topics[-1] != f"{name}/{mark}":
            topics.append(watcher.receive().topic)
        return topics[:-1]

    # Retained messages of other tests come first.
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


# SUBSCRIBE, UNSUBSCRIBE


@clause("MQTT-3.8.3-3", "MQTT-3.10.3-2")
@pytest.mark.parametrize(
    "packet",
    [m.subscribe(1, [], version=4), m.unsubscribe(1, [], version=4)],
    ids=["subscribe", "unsubscribe"],
)
def test_no_filter_at_all(connected, packet):
    client = connected()
    client.send(packet)
    client.closed()


@clause("MQTT-3.8.3-4")
@pytest.mark.parametrize("options", [3, 4, 0x80, 0xFD])
def test_reserved_bits_of_the_requested_qos(connected, options):
    client = connected()
    client.send(m.subscribe(1, [("a", options)], version=4))
    client.closed()


@clause("MQTT-3.8.4-4", "MQTT-3.8.4-5", "MQTT-3.9.3-1", "MQTT-3.9.3-2", "MQTT-3.8.4-6", "MQTT-3.8.3-2")
def test_a_return_code_for_each_filter_in_order(connected, name):
    client = connected()
    filters = [(f"{name}/{number}", (number * 2) % 3) for number in range(40)]
    assert client.subscribe(*filters) == [qos for _, qos in filters]


@clause("MQTT-3.8.4-3")
@pytest.mark.parametrize("filter", ["{}/a", "{}/+"])
def test_identical_filter_replaces(connected, name, filter):
    client, publisher = connected(), connected()
    filter = filter.format(name)
    publisher.publish(f"{name}/a", b"retained", qos=1, retain=True)
    client.subscribe(filter, qos=0)
    assert client.receive().payload == b"retained"
    client.subscribe(filter, qos=1)
    # The retained message comes again, and a new one once.
    assert client.receive().payload == b"retained"
    publisher.publish(f"{name}/a", b"live", qos=1)
    got = client.receive()
    assert (got.payload, got.qos) == (b"live", 1)
    client.nothing_more()


@clause("MQTT-3.10.4-1", "MQTT-3.10.4-2", "MQTT-3.10.4-4", "MQTT-3.10.4-5", "MQTT-3.10.4-6")
def test_unsubscribe_takes_exactly_the_named_filters(connected, name):
    client, publisher = connected(), connected()
    client.subscribe(f"{name}/a", f"{name}/+", f"{name}/b", qos=1)
    client.unsubscribe(f"{name}/+", f"{name}/A", f"{name}/never", f"{name}/b")
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
    client.send(m.ack(m.PUBCOMP, got.id))
    client.ping()


@clause("MQTT-3.12.4-1")
def test_ping(connected):
    client = connected()
    for _ in range(3):
        client.ping()


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
    assert client.next().kind == m.SUBACK
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
