"""Normative statements of MQTT 3.1.1: the form of packets."""

import pytest

import rawmqtt as m
from rawmqtt import Will

clause = pytest.mark.clause
VERSION = 4


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
