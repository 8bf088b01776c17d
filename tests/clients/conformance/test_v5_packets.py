"""Normative statements of MQTT 5: the form of packets, lengths, text and properties."""

import pytest

import rawmqtt as m
from rawmqtt import Will
from support import MALFORMED, PROTOCOL_ERROR, refused_connect

clause = pytest.mark.clause
VERSION = 5


BAD_TEXT = {"bad": b"\xff", "overlong": b"\xc0\x80", "surrogate": b"\xed\xa0\x80", "nul": b"a\0b"}


@clause("MQTT-3.1.3-8", "MQTT-1.5.4-1", "MQTT-1.5.4-2", "MQTT-3.1.3-4", "MQTT-3.1.3-11", "MQTT-3.1.3-12", "MQTT-3.1.4-1", "MQTT-4.13.1-1")
@pytest.mark.parametrize("field", ["client", "will", "user"])
@pytest.mark.parametrize("kind", BAD_TEXT)
def test_connect_field_that_is_no_text(dial, field, kind):
    text = BAD_TEXT[kind]
    client = dial()
    client.send(
        m.connect(
            text if field == "client" else "c",
            will=Will(text, b"x") if field == "will" else None,
            username=text if field == "user" else None,
        )
    )
    refused_connect(client, MALFORMED, 0x85, 0x90, PROTOCOL_ERROR)


@clause("MQTT-1.5.4-1", "MQTT-1.5.4-2", "MQTT-3.3.2-1", "MQTT-4.7.3-2", "MQTT-4.13.1-1")
@pytest.mark.parametrize("kind", BAD_TEXT)
def test_topic_that_is_no_text(connected, kind):
    client = connected()
    client.send(m.publish(BAD_TEXT[kind], b"x"))
    client.refused(MALFORMED, PROTOCOL_ERROR, 0x90)


@clause("MQTT-3.8.3-1", "MQTT-3.10.3-1", "MQTT-4.7.3-2")
@pytest.mark.parametrize("kind", BAD_TEXT)
@pytest.mark.parametrize("packet", ["subscribe", "unsubscribe"])
def test_filter_that_is_no_text(connected, kind, packet):
    filter = BAD_TEXT[kind]
    client = connected()
    client.send(m.subscribe(1, [(filter, 0)]) if packet == "subscribe" else m.unsubscribe(1, [filter]))
    client.refused(MALFORMED, PROTOCOL_ERROR, 0x8F)


@clause("MQTT-1.5.7-1", "MQTT-3.3.2-19", "MQTT-3.3.2-13")
@pytest.mark.parametrize(
    "name,value",
    [
        ("user_property", (b"\xff", "v")),
        ("user_property", ("k", b"\xff")),
        ("content_type", b"\xff"),
        ("response_topic", b"\xff"),
    ],
)
def test_property_that_is_no_text(connected, name, value):
    client = connected()
    client.send(m.publish("a", b"x", props=[(name, value)]))
    client.refused(MALFORMED, PROTOCOL_ERROR)


@clause("MQTT-1.5.4-3", "MQTT-4.7.3-4")
@pytest.mark.not_mosquitto("refuses U+FEFF")
def test_byte_order_mark_is_a_character(connected, name):
    subscriber, publisher = connected(), connected()
    subscriber.subscribe(f"\ufeff{name}", qos=1)
    publisher.publish(name, b"without", qos=1)
    publisher.publish(f"\ufeff{name}", b"with", qos=1)
    assert subscriber.receive().topic == f"\ufeff{name}"


@clause("MQTT-1.5.5-1")
@pytest.mark.not_mosquitto("reads longer forms")
@pytest.mark.parametrize(
    "packet",
    [
        m.packet(m.PINGREQ, 0, length=b"\x80\x00"),
        m.packet(m.PUBLISH, 0, m.text("a") + b"\x80\x00x"),
        m.packet(m.SUBSCRIBE, 2, b"\0\1" + b"\x03\x0b\x81\x00" + m.text("a") + b"\0"),
    ],
    ids=["remaining-length", "property-length", "subscription-identifier"],
)
def test_lengths_must_be_shortest(connected, packet):
    client = connected()
    client.send(packet)
    client.refused(MALFORMED)


@clause("MQTT-4.13.1-1")
def test_remaining_length_of_five_bytes(connected):
    client = connected()
    client.send(b"\x30\xff\xff\xff\xff\x01")
    client.refused(MALFORMED)


@clause("MQTT-2.1.3-1", "MQTT-3.6.1-1", "MQTT-3.8.1-1", "MQTT-3.10.1-1", "MQTT-3.14.1-1", "MQTT-3.15.1-1")
@pytest.mark.not_mosquitto("looks at the flags of some packets only")
@pytest.mark.parametrize(
    "kind,flags,body",
    [
        (m.PUBACK, 1, b"\0\1"),
        (m.PUBREC, 2, b"\0\1"),
        (m.PUBREL, 0, b"\0\1"),
        (m.PUBREL, 3, b"\0\1"),
        (m.PUBCOMP, 8, b"\0\1"),
        (m.SUBSCRIBE, 0, b"\0\1\0\0\1a\0"),
        (m.SUBSCRIBE, 3, b"\0\1\0\0\1a\0"),
        (m.UNSUBSCRIBE, 0, b"\0\1\0\0\1a"),
        (m.PINGREQ, 1, b""),
        (m.DISCONNECT, 1, b""),
        (m.AUTH, 1, b""),
        (0, 0, b""),
    ],
)
def test_reserved_flags(connected, kind, flags, body):
    client = connected()
    client.send(m.packet(kind, flags, body))
    client.refused(MALFORMED, PROTOCOL_ERROR)


@clause("MQTT-4.13.1-1")
@pytest.mark.not_mosquitto("takes a client for a bridge")
@pytest.mark.parametrize(
    "kind,body",
    [(m.CONNACK, b"\0\0\0"), (m.SUBACK, b"\0\1\0\0"), (m.UNSUBACK, b"\0\1\0\0"), (m.PINGRESP, b"")],
)
def test_packets_that_only_a_server_sends(connected, kind, body):
    client = connected()
    client.send(m.packet(kind, 0, body))
    client.refused(PROTOCOL_ERROR, MALFORMED)


@clause("MQTT-4.13.1-1", "MQTT-2.2.2-1")
@pytest.mark.parametrize(
    "packet",
    [
        m.packet(m.PUBACK, 0, b"\0"),
        m.packet(m.SUBSCRIBE, 2, b"\0\1\0\0\5a"),
        m.packet(m.PUBLISH, 0, b"\0\x09a"),
        m.packet(m.PUBLISH, 0, b"\0\1a"),
        m.packet(m.PUBLISH, 0, b"\0\1a\5\1"),
        m.packet(m.PUBLISH, 2, b"\0\1a"),
        m.packet(m.UNSUBSCRIBE, 2, b"\0\1\0\0"),
        m.packet(m.SUBSCRIBE, 2, b"\0\1"),
        m.packet(m.DISCONNECT, 0, b"\0\5\x11\0"),
    ],
)
def test_packet_that_breaks_off(connected, packet):
    client = connected()
    client.send(packet)
    client.refused(MALFORMED, PROTOCOL_ERROR)


@clause("MQTT-4.13.1-1")
@pytest.mark.parametrize(
    "props,reasons",
    [
        (b"\x7f\x01", (MALFORMED,)),
        (b"\x01\x02", (PROTOCOL_ERROR, MALFORMED)),
        ([("payload_format_indicator", 1)] * 2, (PROTOCOL_ERROR, MALFORMED)),
        ([("message_expiry_interval", 1)] * 2, (PROTOCOL_ERROR, MALFORMED)),
        ([("content_type", "a")] * 2, (PROTOCOL_ERROR, MALFORMED)),
        ([("response_topic", "a")] * 2, (PROTOCOL_ERROR, MALFORMED)),
        ([("correlation_data", b"a")] * 2, (PROTOCOL_ERROR, MALFORMED)),
        ([("topic_alias", 1)] * 2, (PROTOCOL_ERROR, MALFORMED)),
        ([("receive_maximum", 1)], (PROTOCOL_ERROR, MALFORMED)),
        (b"\x02\x00\x00", (MALFORMED,)),
        (b"\x26\x00\x01", (MALFORMED,)),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, (bytes, list)) else None,
)
@pytest.mark.not_mosquitto("lets a wrong payload format pass")
def test_wrong_properties_of_a_publish(connected, props, reasons):
    client = connected()
    client.send(m.publish("a", b"x", props=props))
    client.refused(*reasons)


@clause("MQTT-4.13.1-1", "MQTT-3.1.4-1")
@pytest.mark.parametrize(
    "props",
    [
        [("session_expiry_interval", 1)] * 2,
        [("receive_maximum", 0)],
        [("receive_maximum", 1)] * 2,
        [("maximum_packet_size", 0)],
        [("topic_alias_maximum", 1)] * 2,
        [("request_problem_information", 2)],
        [("request_response_information", 2)],
        [("authentication_data", b"x")],
        [("topic_alias", 1)],
        [("will_delay_interval", 1)],
        b"\x7f",
    ],
    ids=str,
)
@pytest.mark.not_mosquitto("lets authentication data stand alone")
def test_wrong_properties_of_a_connect(dial, name, props):
    client = dial()
    client.send(m.connect(name, props=props))
    refused_connect(client, PROTOCOL_ERROR, MALFORMED)


@clause("MQTT-4.13.1-1", "MQTT-3.1.2-9")
@pytest.mark.parametrize(
    "props",
    [
        [("will_delay_interval", 1)] * 2,
        [("payload_format_indicator", 2)],
        [("topic_alias", 1)],
        [("subscription_identifier", 1)],
        [("response_topic", "a/+")],
    ],
    ids=str,
)
@pytest.mark.not_mosquitto("lets a wrong response topic of a will pass")
def test_wrong_properties_of_a_will(dial, name, props):
    client = dial()
    client.send(m.connect(name, will=Will(name, b"x", props=props)))
    refused_connect(client, PROTOCOL_ERROR, MALFORMED, 0x90)


@clause("MQTT-2.2.1-3")
@pytest.mark.parametrize(
    "packet",
    [
        m.publish("a", b"x", qos=1, id=0),
        m.publish("a", b"x", qos=2, id=0),
        m.subscribe(0, [("a", 0)]),
        m.unsubscribe(0, ["a"]),
    ],
    ids=["publish-1", "publish-2", "subscribe", "unsubscribe"],
)
def test_packet_identifier_zero(connected, packet):
    client = connected()
    client.send(packet)
    client.refused(MALFORMED, PROTOCOL_ERROR)


@clause("MQTT-2.2.1-4", "MQTT-4.3.2-1", "MQTT-4.3.2-2", "MQTT-4.3.3-1", "MQTT-4.3.3-2")
@pytest.mark.parametrize("qos", [1, 2])
def test_server_uses_free_identifiers(connected, name, qos):
    subscriber, publisher = connected(), connected()
    subscriber.subscribe(name, qos=qos)
    for number in range(10):
        publisher.publish(name, b"%d" % number, qos=qos)
    got = [subscriber.receive(ack_it=False) for _ in range(10)]
    assert len({packet.id for packet in got}) == 10


@clause("MQTT-3.3.4-1", "MQTT-2.2.1-5", "MQTT-2.2.1-6", "MQTT-3.8.4-1", "MQTT-3.8.4-2", "MQTT-3.10.4-4", "MQTT-3.10.4-5")
@pytest.mark.parametrize("id", [1, 255, 256, 65535])
def test_answers_carry_the_identifier(connected, name, id):
    client = connected()
    client.send(m.subscribe(id, [(name, 0)]))
    assert client.expect(m.SUBACK).id == id
    client.send(m.unsubscribe(id, [name]))
    assert client.expect(m.UNSUBACK).id == id
    client.send(m.publish(name, b"x", qos=1, id=id))
    assert client.expect(m.PUBACK).id == id
    client.send(m.publish(name, b"x", qos=2, id=id))
    assert client.expect(m.PUBREC).id == id
    client.send(m.ack(m.PUBREL, id))
    assert client.expect(m.PUBCOMP).id == id


@clause("MQTT-2.2.1-2", "MQTT-4.3.1-1", "MQTT-3.3.1-2")
def test_qos_0_has_no_identifier(connected, name):
    subscriber, publisher = connected(), connected()
    subscriber.subscribe(name, qos=2)
    publisher.publish(name, b"\0\1xyz")
    got = subscriber.receive()
    assert (got.payload, got.qos, got.dup) == (b"\0\1xyz", 0, False)
