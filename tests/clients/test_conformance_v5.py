"""The normative statements of MQTT 5 that a client can see, each named in a marker."""

import struct
import time

import pytest

import rawmqtt as m
from rawmqtt import Will, options

clause = pytest.mark.clause

MALFORMED, PROTOCOL_ERROR, UNSUPPORTED_VERSION = 0x81, 0x82, 0x84
COUNT = 20


@pytest.fixture
def connected(dial, name):
    """Opens connections that have their CONNACK already."""
    count = 0

    def connected(id=None, **fields):
        nonlocal count
        count += 1
        client = dial(5)
        client.connack = client.connect(id or f"{name}-{count}", **fields)
        return client

    return connected


def expiry(seconds):
    return {"session_expiry_interval": seconds}


# Text, lengths, packet headers, properties


BAD_TEXT = {"bad": b"\xff", "overlong": b"\xc0\x80", "surrogate": b"\xed\xa0\x80", "nul": b"a\0b"}


@clause("MQTT-1.5.4-1", "MQTT-1.5.4-2", "MQTT-3.1.3-4", "MQTT-3.1.3-11", "MQTT-3.1.3-12", "MQTT-3.1.4-1", "MQTT-4.13.1-1")
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


def refused_connect(client, *reasons):
    """The connection ends; a CONNACK, if sent, gives one of these reasons."""
    try:
        answer = client.next()
    except m.Closed:
        return
    assert answer.kind == m.CONNACK and answer.reason in reasons, answer
    assert client.closed() is None, "DISCONNECT after a refusal [MQTT-3.14.0-1]"


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


@clause("MQTT-2.2.1-4")
@pytest.mark.parametrize("qos", [1, 2])
def test_server_uses_free_identifiers(connected, name, qos):
    subscriber, publisher = connected(), connected()
    subscriber.subscribe(name, qos=qos)
    for number in range(10):
        publisher.publish(name, b"%d" % number, qos=qos)
    got = [subscriber.receive(ack_it=False) for _ in range(10)]
    assert len({packet.id for packet in got}) == 10


@clause("MQTT-2.2.1-5", "MQTT-2.2.1-6", "MQTT-3.8.4-1", "MQTT-3.8.4-2", "MQTT-3.10.4-4", "MQTT-3.10.4-5")
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


# CONNECT and CONNACK


@clause("MQTT-3.1.0-1", "MQTT-3.2.0-1", "MQTT-3.14.0-1")
@pytest.mark.parametrize(
    "packet",
    [
        m.packet(m.PINGREQ, 0),
        m.publish("a", b"x"),
        m.subscribe(1, [("a", 0)]),
        m.disconnect(),
        m.auth(0x18, {"authentication_method": "x"}),
        m.packet(m.CONNACK, 0, b"\0\0\0"),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=["ping", "publish", "subscribe", "disconnect", "auth", "connack", "tls"],
)
def test_first_packet_must_be_connect(dial, packet):
    client = dial()
    client.send(packet)
    assert client.closed() is None


@clause("MQTT-3.1.0-2")
def test_second_connect(connected, name):
    client = connected(name)
    client.send(m.connect(name))
    client.refused(PROTOCOL_ERROR)


@clause("MQTT-3.1.2-1")
@pytest.mark.parametrize("protocol", ["MQTX", "mqtt", "", "MQIsdp"])
def test_unknown_protocol_name(dial, protocol):
    client = dial()
    client.send(m.connect("c", protocol=protocol))
    refused_connect(client, UNSUPPORTED_VERSION, 1, MALFORMED, PROTOCOL_ERROR)


@clause("MQTT-3.1.2-2")
@pytest.mark.parametrize("level", [0, 1, 2, 6, 127])
def test_unknown_protocol_version(dial, level):
    # Which form of CONNACK the client reads is unknown, so the old one is as good.
    client = dial(4)
    client.send(m.connect("c", 4, level=level))
    refused_connect(client, UNSUPPORTED_VERSION, 1)


@clause("MQTT-3.1.2-3")
def test_reserved_connect_flag(dial):
    client = dial()
    client.send(m.connect("c", flags=0x03))
    refused_connect(client, MALFORMED, PROTOCOL_ERROR)


@clause("MQTT-3.1.2-11", "MQTT-3.1.2-12", "MQTT-3.1.2-13")
@pytest.mark.parametrize("flags", [0x0A, 0x12, 0x22, 0x1E])
def test_wrong_will_flags(dial, flags):
    will = b"\0" + m.text("will") + m.text("x") if flags & 4 else b""
    client = dial()
    client.send(m.connect("c", flags=flags, tail=will))
    refused_connect(client, MALFORMED, PROTOCOL_ERROR, 0x9B)


@clause("MQTT-3.1.2-9", "MQTT-3.1.2-16", "MQTT-3.1.2-17", "MQTT-3.1.2-18", "MQTT-3.1.2-19", "MQTT-3.1.3-1")
@pytest.mark.parametrize(
    "flags,tail",
    [
        (0x06, b""),
        (0x06, b"\0" + m.text("will")),
        (0x82, b""),
        (0x42, b""),
        (0xC2, m.text("user")),
        (0x02, m.text("user")),
        (0x82, m.text("user") + m.text("password")),
    ],
)
def test_connect_fields_follow_the_flags(dial, flags, tail):
    client = dial()
    client.send(m.connect("c", flags=flags, tail=tail))
    refused_connect(client, MALFORMED, PROTOCOL_ERROR)


@clause("MQTT-3.1.2-19")
def test_password_without_user_is_allowed(dial, name):
    dial().connect(name, password=b"\0\xff")


@clause("MQTT-3.1.3-5", "MQTT-3.1.4-5", "MQTT-3.1.3-3", "MQTT-3.2.0-2")
@pytest.mark.parametrize("id", ["x", "0123456789abcdefghijklm", "ABCDEFGHIJKLMNOPQRSTUVW"])
def test_client_ids_that_must_be_allowed(dial, id):
    client = dial()
    answer = client.connect(id)
    assert answer.reason == 0 and "assigned_client_identifier" not in answer.props
    client.nothing_more()


@clause("MQTT-3.1.3-6", "MQTT-3.1.3-7", "MQTT-3.2.2-16", "MQTT-3.1.3-2")
@pytest.mark.parametrize("clean", [True, False])
def test_assigned_client_id(dial, clean):
    ids = set()
    for _ in range(3):
        client = dial()
        answer = client.connect("", clean=clean, props=expiry(60))
        assert not answer.session_present
        ids.add(answer.props["assigned_client_identifier"])
    assert len(ids) == 3
    # It is an ordinary client id: its session can be resumed by it.
    client.cut()
    assert dial().connect(answer.props["assigned_client_identifier"], clean=False).session_present


@clause("MQTT-3.1.4-3", "MQTT-3.1.3-2")
def test_takeover_tells_the_older_connection(connected, name):
    first = connected(name)
    second = connected(name)
    last = first.closed()
    assert last is not None and last.reason == 0x8E
    second.ping()


@clause("MQTT-3.1.2-22")
@pytest.mark.not_mosquitto("looks at the clock every five seconds")
def test_keep_alive_ends_a_silent_client(connected):
    client = connected(keep_alive=1)
    started = time.monotonic()
    last = client.closed()
    assert 1.3 < time.monotonic() - started < 4
    assert last is not None and last.reason == 0x8D


@clause("MQTT-3.1.2-22", "MQTT-3.1.2-21", "MQTT-3.2.2-21", "MQTT-3.2.2-22")
def test_keep_alive_counts_from_the_last_packet(connected):
    client = connected(keep_alive=2)
    wait = client.connack.props.get("server_keep_alive", 2)
    assert wait <= 65_535
    for _ in range(3):
        time.sleep(min(wait, 2) * 0.6)
        client.ping()


@clause("MQTT-3.1.2-28")
@pytest.mark.parametrize("asked", [{}, {"request_response_information": 0}])
def test_no_response_information_unasked(dial, name, asked):
    assert "response_information" not in dial().connect(name, props=asked).props


@clause("MQTT-3.1.2-29")
def test_no_reason_strings_when_not_wanted(connected, name):
    client = connected(props={"request_problem_information": 0})
    client.subscribe(f"{name}/+", name)
    client.send(m.unsubscribe(9, ["never"]))
    answers = [client.expect(m.UNSUBACK)]
    client.send(m.publish(f"{name}/x/y/z", b"", 1, id=10))
    answers.append(client.expect(m.PUBACK))
    client.send(m.ack(m.PUBREL, 99))
    answers.append(client.expect(m.PUBCOMP))
    for answer in answers:
        assert not {"reason_string", "user_property"} & answer.props.keys(), answer


@clause("MQTT-4.12.0-1", "MQTT-3.1.4-2", "MQTT-4.13.2-1", "MQTT-3.2.2-7", "MQTT-3.2.2-8")
def test_unknown_authentication_method(dial, name):
    client = dial()
    answer = client.connect(name, check=False, props={"authentication_method": "no such method"})
    assert answer.reason == 0x8C and not answer.session_present
    assert client.closed() is None


@clause("MQTT-4.12.0-6", "MQTT-4.12.1-1")
def test_auth_without_a_method(connected):
    client = connected()
    client.send(m.auth(0x19, {"authentication_method": "x"}))
    client.refused(PROTOCOL_ERROR, 0x8C)


@clause("MQTT-3.1.4-6")
def test_nothing_after_a_refusal_is_processed(dial, connected, name):
    watcher = connected()
    watcher.subscribe(name, qos=1)
    refused = dial()
    refused.send(
        m.connect("x", props={"authentication_method": "no such method"}), m.publish(name, b"must not pass")
    )
    assert refused.next().reason == 0x8C
    watcher.nothing_more()


@clause("MQTT-3.2.2-1", "MQTT-3.2.2-9")
def test_connack_announces_no_less_than_it_can(connected):
    props = connected().connack.props
    for name in ("retain_available", "wildcard_subscription_available", "shared_subscription_available"):
        assert props.get(name, 1) == 1, name
    assert props.get("subscription_identifier_available", 1) == 1
    assert "maximum_qos" not in props
    assert props.get("receive_maximum", 65_535) >= 1
    assert props.get("maximum_packet_size", 1) != 0


# Sessions


@clause("MQTT-3.1.2-4", "MQTT-3.1.2-5", "MQTT-3.1.2-6", "MQTT-3.2.2-2", "MQTT-3.2.2-3", "MQTT-3.1.4-4")
def test_session_present(dial, name):
    steps = [
        # clean start, expiry -> present
        (False, 60, False),
        (False, 60, True),
        (True, 60, False),
        (False, 0, True),
        (False, 60, False),
        (False, 0xFFFFFFFF, True),
        (False, None, True),
        (False, None, False),
    ]
    for clean, seconds, present in steps:
        client = dial()
        props = {} if seconds is None else expiry(seconds)
        assert client.connect(name, clean=clean, props=props).session_present == present, (clean, seconds)
        client.disconnect()


@clause("MQTT-3.1.2-23", "MQTT-4.1.0-1", "MQTT-4.5.0-1", "MQTT-3.1.2-5")
@pytest.mark.parametrize("end", ["disconnect", "cut"])
def test_session_keeps_subscriptions_and_messages(connected, dial, name, end):
    client = connected(name, props=expiry(60))
    client.subscribe(f"{name}/#", qos=2)
    getattr(client, end)()
    publisher = connected()
    for qos in (1, 2):
        publisher.publish(f"{name}/{qos}", b"%d" % qos, qos=qos, props={"user_property": [("k", "v")]})
    again = dial()
    assert again.connect(name, clean=False, props=expiry(60)).session_present
    got = [again.receive(), again.receive()]
    assert [(one.topic, one.qos) for one in got] == [(f"{name}/1", 1), (f"{name}/2", 2)]
    assert all(one.props["user_property"] == [("k", "v")] for one in got)


@clause("MQTT-3.1.2-23")
def test_session_ends_when_its_time_is_over(connected, dial, name):
    connected(name, props=expiry(1)).disconnect()
    time.sleep(2.5)
    assert not dial().connect(name, clean=False, props=expiry(1)).session_present


@clause("MQTT-3.1.2-23", "MQTT-3.14.2-2")
def test_disconnect_may_change_the_expiry(connected, dial, name):
    client = connected(name, props=expiry(60))
    client.disconnect(0, expiry(0))
    client = dial()
    assert not client.connect(name, clean=False, props=expiry(1)).session_present
    client.disconnect(0, expiry(60))
    time.sleep(2)
    assert dial().connect(name, clean=False).session_present


@clause("MQTT-3.14.2-2")
def test_disconnect_may_not_start_an_expiry(connected):
    client = connected(props=expiry(0))
    client.send(m.disconnect(0, expiry(60)))
    client.refused(PROTOCOL_ERROR)


@clause("MQTT-4.4.0-1", "MQTT-4.3.3-12", "MQTT-4.3.3-13", "MQTT-3.3.1-1")
@pytest.mark.parametrize("qos", [1, 2])
def test_unacknowledged_are_sent_again_in_order(connected, dial, name, qos):
    client = connected(name, props=expiry(60))
    client.subscribe(f"{name}/t", qos=qos)
    publisher = connected()
    for number in range(5):
        publisher.publish(f"{name}/t", b"%d" % number, qos=qos)
    before = [client.receive(ack_it=False) for _ in range(5)]
    assert not any(one.dup for one in before)
    client.cut()
    again = dial()
    assert again.connect(name, clean=False, props=expiry(60)).session_present
    after = [again.receive(ack_it=False) for _ in range(5)]
    assert [(one.id, one.payload) for one in after] == [(one.id, one.payload) for one in before]
    assert all(one.dup for one in after)


@clause("MQTT-4.4.0-1")
@pytest.mark.parametrize("qos", [1, 2])
def test_nothing_is_sent_again_on_the_same_connection(connected, name, qos):
    client, publisher = connected(), connected()
    client.subscribe(f"{name}/t", qos=qos)
    publisher.publish(f"{name}/t", b"x", qos=qos)
    client.receive(ack_it=False)
    time.sleep(1.5)
    client.nothing_more()


@clause("MQTT-4.4.0-1", "MQTT-4.3.3-5", "MQTT-4.3.3-6", "MQTT-4.6.0-4")
def test_release_is_sent_again(connected, dial, name):
    client = connected(name, props=expiry(60))
    client.subscribe(f"{name}/t", qos=2)
    publisher = connected()
    for number in range(3):
        publisher.publish(f"{name}/t", b"%d" % number, qos=2)
    ids = [client.receive(ack_it=False).id for _ in range(3)]
    for id in ids:
        client.send(m.ack(m.PUBREC, id))
        assert client.expect(m.PUBREL).id == id
    client.cut()
    again = dial()
    assert again.connect(name, clean=False, props=expiry(60)).session_present
    assert [again.expect(m.PUBREL).id for _ in ids] == ids
    for id in ids:
        again.send(m.ack(m.PUBCOMP, id))
    again.nothing_more()


@clause("MQTT-4.4.0-2", "MQTT-4.3.2-5", "MQTT-4.3.3-3", "MQTT-4.3.3-4")
@pytest.mark.parametrize("qos", [1, 2])
def test_refused_delivery_ends_the_exchange(connected, dial, name, qos):
    client = connected(name, props=expiry(60) | {"receive_maximum": 1})
    client.subscribe(f"{name}/t", qos=qos)
    publisher = connected()
    for number in range(2):
        publisher.publish(f"{name}/t", b"%d" % number, qos=qos)
    got = client.receive(ack_it=False)
    client.send(m.ack(m.PUBACK if qos == 1 else m.PUBREC, got.id, 0x80))
    # The refusal frees the only place in the window.
    got = client.receive(ack_it=False)
    assert got.payload == b"1"
    client.send(m.ack(m.PUBACK if qos == 1 else m.PUBREC, got.id, 0x97))
    client.cut()
    again = dial()
    assert again.connect(name, clean=False).session_present
    again.nothing_more()


@clause("MQTT-4.3.3-8", "MQTT-4.3.3-9", "MQTT-4.3.3-10", "MQTT-4.3.3-11")
def test_qos_2_repeated_before_release_is_one_message(connected, dial, name):
    subscriber = connected()
    subscriber.subscribe(f"{name}/t", qos=2)
    publisher = connected(name, props=expiry(60))
    publisher.send(m.publish(f"{name}/t", b"once", 2, id=11))
    publisher.expect(m.PUBREC)
    publisher.cut()
    again = dial()
    assert again.connect(name, clean=False, props=expiry(60)).session_present
    again.send(m.publish(f"{name}/t", b"once", 2, dup=True, id=11))
    assert again.expect(m.PUBREC).reason in (0, 0x10)
    again.send(m.ack(m.PUBREL, 11))
    complete = again.expect(m.PUBCOMP)
    assert (complete.id, complete.reason) == (11, 0)
    again.publish(f"{name}/t", b"second", qos=2, id=11)
    assert subscriber.receive_payloads(2) == [b"once", b"second"]
    subscriber.nothing_more()


@clause("MQTT-3.7.2-1", "MQTT-3.6.2-1")
@pytest.mark.not_mosquitto("answers without a reason code")
def test_release_of_an_unknown_identifier(connected):
    client = connected()
    client.send(m.ack(m.PUBREL, 77))
    answer = client.expect(m.PUBCOMP)
    assert (answer.id, answer.reason) == (77, 0x92)
    client.send(m.ack(m.PUBREC, 78))
    answer = client.expect(m.PUBREL)
    assert (answer.id, answer.reason) == (78, 0x92)


@clause("MQTT-4.3.2-3", "MQTT-4.3.2-4", "MQTT-3.4.2-1", "MQTT-3.5.2-1")
@pytest.mark.parametrize("qos,answer", [(1, m.PUBACK), (2, m.PUBREC)])
def test_answer_says_whether_anybody_matched(connected, name, qos, answer):
    client, subscriber = connected(), connected()
    client.send(m.publish(name, b"x", qos, id=1))
    assert client.expect(answer).reason in (0, 0x10)
    subscriber.subscribe(name)
    client.send(m.publish(name, b"x", qos, id=2))
    assert client.expect(answer).reason == 0


# Wills


@clause("MQTT-3.1.2-7", "MQTT-3.1.2-8", "MQTT-3.1.2-14", "MQTT-3.1.2-15", "MQTT-3.1.3-10")
@pytest.mark.parametrize("retain", [False, True], ids=["plain", "retained"])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_will_is_published_when_the_link_breaks(connected, name, qos, retain):
    watcher = connected()
    watcher.subscribe(name, qos=2)
    props = {
        "payload_format_indicator": 1,
        "content_type": "text/plain",
        "response_topic": "r",
        "correlation_data": b"\0\1",
        "message_expiry_interval": 100,
        "user_property": [("b", "1"), ("a", "2"), ("b", "3")],
    }
    victim = connected(will=Will(name, b"gone", qos, retain, props))
    victim.cut()
    got = watcher.receive()
    assert (got.payload, got.qos, got.retain) == (b"gone", qos, False)
    assert 98 <= got.props.pop("message_expiry_interval") <= 100
    props.pop("message_expiry_interval")
    assert got.props == props
    later = connected()
    later.subscribe(name, qos=2)
    if retain:
        assert later.receive().retain
    later.nothing_more()


@clause("MQTT-3.1.2-10", "MQTT-3.14.4-3", "MQTT-3.1.2-8")
@pytest.mark.parametrize("reason,published", [(None, False), (0, False), (4, True), (0x80, True)])
def test_will_after_a_disconnect(connected, name, reason, published):
    watcher = connected()
    watcher.subscribe(name, qos=1)
    victim = connected(will=Will(name, b"gone", 1))
    victim.disconnect(reason)
    if published:
        assert watcher.receive().payload == b"gone"
    watcher.nothing_more()


@clause("MQTT-3.1.2-8", "MQTT-3.1.3-9")
def test_will_delay(connected, name):
    watcher = connected()
    watcher.subscribe(name, qos=1)
    victim = connected(props=expiry(60), will=Will(name, b"gone", 1, props={"will_delay_interval": 1}))
    started = time.monotonic()
    victim.cut()
    watcher.nothing_more()
    assert watcher.receive().payload == b"gone"
    assert time.monotonic() - started > 0.9


@clause("MQTT-3.1.3-9", "MQTT-3.1.2-8")
def test_will_is_dropped_when_the_client_is_back_in_time(connected, dial, name):
    watcher = connected()
    watcher.subscribe(name, qos=1)
    victim = connected(f"{name}-v", props=expiry(60), will=Will(name, b"gone", 1, props={"will_delay_interval": 2}))
    victim.cut()
    back = dial()
    assert back.connect(f"{name}-v", clean=False, props=expiry(60)).session_present
    time.sleep(3)
    watcher.nothing_more()


@clause("MQTT-3.1.2-8")
def test_will_comes_at_the_end_of_the_session(connected, name):
    watcher = connected()
    watcher.subscribe(name, qos=1)
    victim = connected(props=expiry(1), will=Will(name, b"gone", 1, props={"will_delay_interval": 100}))
    victim.cut()
    assert watcher.receive(timeout=8).payload == b"gone"


@clause("MQTT-3.1.2-8", "MQTT-3.1.2-4")
def test_delayed_will_comes_when_the_session_is_started_anew(connected, dial, name):
    watcher = connected()
    watcher.subscribe(name, qos=1)
    victim = connected(f"{name}-v", props=expiry(60), will=Will(name, b"gone", 1, props={"will_delay_interval": 100}))
    victim.cut()
    dial().connect(f"{name}-v", clean=True)
    assert watcher.receive().payload == b"gone"


@clause("MQTT-3.1.2-8", "MQTT-3.1.4-3")
def test_will_without_delay_is_published_on_takeover(connected, name):
    watcher = connected()
    watcher.subscribe(name, qos=1)
    victim = connected(f"{name}-v", will=Will(name, b"gone", 1))
    connected(f"{name}-v")
    assert victim.closed().reason == 0x8E
    assert watcher.receive().payload == b"gone"


# PUBLISH


@clause("MQTT-3.3.1-4")
def test_qos_3(connected):
    client = connected()
    client.send(m.packet(m.PUBLISH, 0x06, m.text("a") + b"\0\1\0x"))
    client.refused(MALFORMED)


@clause("MQTT-3.3.1-2")
@pytest.mark.not_mosquitto("lets DUP stand with QoS 0")
def test_dup_with_qos_0(connected):
    client = connected()
    client.send(m.packet(m.PUBLISH, 0x08, m.text("a") + b"\0x"))
    client.refused(MALFORMED, PROTOCOL_ERROR)


@clause("MQTT-3.3.1-3")
@pytest.mark.parametrize("qos", [1, 2])
def test_dup_is_not_passed_on(connected, name, qos):
    subscriber, publisher = connected(), connected()
    subscriber.subscribe(name, qos=qos)
    publisher.send(m.publish(name, b"x", qos, dup=True, id=7))
    if qos == 2:
        publisher.expect(m.PUBREC)
        publisher.send(m.ack(m.PUBREL, 7))
    assert not subscriber.receive().dup


@clause("MQTT-3.3.2-2", "MQTT-4.7.0-1", "MQTT-4.7.3-1")
@pytest.mark.parametrize("topic", ["a/+", "#", "a/#", "a+b"])
def test_wrong_topic_names(connected, topic):
    client = connected()
    client.send(m.publish(topic, b"x"))
    client.refused(0x90, MALFORMED, PROTOCOL_ERROR)


@clause("MQTT-4.7.3-1", "MQTT-3.3.2-8")
def test_no_topic_and_no_alias(connected):
    client = connected()
    client.send(m.publish("", b"x"))
    client.refused(PROTOCOL_ERROR, MALFORMED, 0x90)


@clause("MQTT-3.3.2-14")
@pytest.mark.parametrize("topic", ["a/+", "#"])
def test_wildcards_in_the_response_topic(connected, topic):
    client = connected()
    client.send(m.publish("a", b"x", props={"response_topic": topic}))
    client.refused(0x90, MALFORMED, PROTOCOL_ERROR)


@clause("MQTT-3.3.4-6")
@pytest.mark.not_mosquitto("ignores it")
def test_subscription_identifier_from_a_client(connected):
    client = connected()
    client.send(m.publish("a", b"x", props={"subscription_identifier": 1}))
    client.refused(PROTOCOL_ERROR, MALFORMED)


@clause("MQTT-3.3.2-4", "MQTT-3.3.2-15", "MQTT-3.3.2-16", "MQTT-3.3.2-17", "MQTT-3.3.2-18", "MQTT-3.3.2-20")
@pytest.mark.parametrize("how", ["live", "queued", "retained"])
def test_properties_reach_the_subscriber(connected, dial, name, how):
    props = {
        "payload_format_indicator": 1,
        "content_type": "application/json",
        "response_topic": f"{name}/answer",
        "correlation_data": bytes(range(256)),
        "user_property": [("z", "1"), ("a", "ä"), ("z", ""), ("", "2"), ("z", "1")],
    }
    publisher = connected()
    subscriber = connected(f"{name}-s", props=expiry(60))
    if how != "retained":
        subscriber.subscribe(name, qos=1)
    if how == "queued":
        subscriber.cut()
    publisher.publish(name, "grün", qos=1, retain=how == "retained", props=props)
    if how == "queued":
        subscriber = dial()
        subscriber.connect(f"{name}-s", clean=False)
    if how == "retained":
        subscriber.subscribe(name, qos=1)
    got = subscriber.receive()
    assert got.payload == "grün".encode()
    assert got.props == props


@clause("MQTT-3.3.2-5", "MQTT-3.3.2-6")
@pytest.mark.parametrize("how", ["queued", "retained"])
def test_message_expiry(connected, dial, name, how):
    publisher = connected()
    subscriber = connected(f"{name}-s", props=expiry(60))
    if how == "queued":
        subscriber.subscribe(f"{name}/#", qos=1)
    subscriber.cut()
    for topic, seconds in (("short", 1), ("long", 60), ("never", None)):
        props = {} if seconds is None else {"message_expiry_interval": seconds}
        publisher.publish(f"{name}/{topic}", b"x", qos=1, retain=how == "retained", props=props)
    time.sleep(2.5)
    subscriber = dial()
    subscriber.connect(f"{name}-s", clean=False)
    if how == "retained":
        subscriber.subscribe(f"{name}/#", qos=1)
    got = {one.topic: one.props for one in (subscriber.receive(), subscriber.receive())}
    assert set(got) == {f"{name}/long", f"{name}/never"}
    assert 55 <= got[f"{name}/long"]["message_expiry_interval"] <= 58
    assert "message_expiry_interval" not in got[f"{name}/never"]
    subscriber.nothing_more()


@clause("MQTT-3.3.2-10", "MQTT-3.3.2-12", "MQTT-3.2.2-17")
def test_topic_alias_from_the_client(connected, name):
    publisher, subscriber = connected(), connected()
    most = publisher.connack.props.get("topic_alias_maximum", 0)
    assert most > 0
    subscriber.subscribe(f"{name}/#", qos=1)
    for alias in {1, most}:
        publisher.publish(f"{name}/{alias}", b"set", qos=1, props={"topic_alias": alias})
        publisher.publish("", b"used", qos=1, props={"topic_alias": alias})
        publisher.publish(f"{name}/{alias}/other", b"changed", qos=1, props={"topic_alias": alias})
        publisher.publish("", b"used again", qos=1, props={"topic_alias": alias})
        assert [(got.topic, got.payload) for got in (subscriber.receive() for _ in range(4))] == [
            (f"{name}/{alias}", b"set"),
            (f"{name}/{alias}", b"used"),
            (f"{name}/{alias}/other", b"changed"),
            (f"{name}/{alias}/other", b"used again"),
        ]


@clause("MQTT-3.3.2-8", "MQTT-3.3.2-9", "MQTT-3.3.2-7")
@pytest.mark.parametrize("alias", [0, "one too many", "unknown"])
def test_wrong_topic_alias(connected, name, alias):
    client = connected()
    most = client.connack.props.get("topic_alias_maximum", 0)
    number = {"one too many": most + 1, "unknown": most}.get(alias, alias)
    if number > 65_535:
        pytest.skip("every alias is allowed")
    topic = "" if alias == "unknown" else name
    client.send(m.publish(topic, b"x", props={"topic_alias": number}))
    client.refused(0x94, PROTOCOL_ERROR, MALFORMED)


@clause("MQTT-3.3.2-7")
def test_topic_alias_ends_with_the_connection(connected, dial, name):
    client = connected(name, props=expiry(60))
    client.publish(f"{name}/t", b"x", qos=1, props={"topic_alias": 1})
    client.cut()
    again = dial()
    again.connect(name, clean=False, props=expiry(60))
    again.send(m.publish("", b"x", props={"topic_alias": 1}))
    again.refused(PROTOCOL_ERROR, 0x94)


@clause("MQTT-3.1.2-26", "MQTT-3.1.2-27", "MQTT-3.3.2-11")
@pytest.mark.parametrize("most", [0, 2])
def test_topic_alias_to_the_client(connected, name, most):
    publisher = connected()
    subscriber = connected(props={"topic_alias_maximum": most} if most else {})
    subscriber.subscribe(f"{name}/#", qos=1)
    for _ in range(3):
        for topic in "abc":
            publisher.publish(f"{name}/{topic}", topic.encode(), qos=1)
    for _ in range(9):
        got = subscriber.receive()
        assert got.topic == f"{name}/{got.payload.decode()}"
        assert 0 < got.props.get("topic_alias", 1) <= max(most, 1)
        assert most or "topic_alias" not in got.props


@clause("MQTT-3.3.4-9", "MQTT-3.3.4-10", "MQTT-4.9.0-1", "MQTT-4.9.0-2", "MQTT-4.9.0-3")
@pytest.mark.parametrize("qos", [1, 2])
def test_receive_maximum_of_the_client(connected, name, qos):
    publisher = connected()
    subscriber = connected(props={"receive_maximum": 3})
    subscriber.subscribe(f"{name}/#", qos=qos)
    for number in range(8):
        publisher.publish(f"{name}/t", b"%d" % number, qos=qos)
    got = [subscriber.receive(ack_it=False) for _ in range(3)]
    # The window is full: QoS 0 and other packets still pass, QoS 1 and 2 don't.
    publisher.publish(f"{name}/now", b"", qos=0)
    subscriber.ping()
    assert subscriber.receive().topic == f"{name}/now"
    assert not subscriber.kept
    seen = []
    while got:
        one = got.pop(0)
        seen.append(one.payload)
        if qos == 1:
            subscriber.send(m.ack(m.PUBACK, one.id))
        else:
            subscriber.send(m.ack(m.PUBREC, one.id))
            subscriber.expect(m.PUBREL)
            assert not subscriber.kept
            subscriber.send(m.ack(m.PUBCOMP, one.id))
        if len(seen) + len(got) < 8:
            got.append(subscriber.receive(ack_it=False))
    assert seen == [b"%d" % number for number in range(8)]


@clause("MQTT-3.3.4-7", "MQTT-3.3.4-8")
def test_more_than_the_servers_receive_maximum(connected, name):
    client = connected()
    most = client.connack.props.get("receive_maximum", 65_535)
    if most == 65_535:
        pytest.skip("as many as there are identifiers")
    client.send(*(m.publish(name, b"x", 2, id=id) for id in range(1, most + 2)))
    client.refused(0x93)


@clause("MQTT-3.1.2-24", "MQTT-3.1.2-25")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_maximum_packet_size_of_the_client(connected, name, qos):
    publisher = connected()
    small = connected(props={"maximum_packet_size": 200, "receive_maximum": 1})
    small.subscribe(name, qos=qos)
    publisher.publish(name, b"x" * 300, qos=qos)
    publisher.publish(name, b"fits", qos=qos)
    # The big one is dropped as if it had been sent, and holds no place in the window.
    got = small.receive()
    assert got.payload == b"fits"
    small.nothing_more()


@clause("MQTT-3.1.2-24")
def test_maximum_packet_size_is_exact(connected, name):
    publisher = connected()
    overhead = 2 + 2 + len(name) + 1
    small = connected(props={"maximum_packet_size": 100})
    small.subscribe(name)
    publisher.publish(name, b"x" * (100 - overhead + 1))
    publisher.publish(name, b"y" * (100 - overhead))
    assert small.receive().payload[:1] == b"y"


@clause("MQTT-3.2.2-15")
def test_more_than_the_servers_maximum_packet_size(connected, name):
    client = connected()
    most = client.connack.props.get("maximum_packet_size")
    if most is None or most >= 268_435_455:
        pytest.skip("any size is allowed")
    client.send(m.packet(m.PUBLISH, 0, b"", length=m.varint(most)))
    client.refused(0x95)


@clause("MQTT-3.3.4-2", "MQTT-3.3.4-3", "MQTT-3.3.4-4", "MQTT-3.3.4-5")
def test_overlapping_filters_carry_their_identifiers(connected, name):
    subscriber, publisher = connected(), connected()
    subscriber.subscribe(f"{name}/#", qos=1, props={"subscription_identifier": 1})
    subscriber.subscribe(f"{name}/+", qos=2, props={"subscription_identifier": 268_435_455})
    subscriber.subscribe(f"{name}/x", qos=0)
    publisher.publish(f"{name}/x", b"x", qos=2)
    publisher.publish(f"{name}/x", b"end", qos=2)
    got = []
    while not got or got[-1].payload != b"end":
        got.append(subscriber.receive())
    got = [one for one in got if one.payload == b"x"]
    assert max(one.qos for one in got) == 2
    identifiers = sorted(id for one in got for id in one.props.get("subscription_identifier", []))
    assert identifiers == [1, 268_435_455]


@clause("MQTT-3.3.4-3", "MQTT-3.8.4-3")
def test_identifier_is_replaced_with_the_subscription(connected, name):
    subscriber, publisher = connected(), connected()
    for identifier in (5, 6):
        subscriber.subscribe(name, qos=1, props={"subscription_identifier": identifier})
    publisher.publish(name, b"x", qos=1)
    assert subscriber.receive().props["subscription_identifier"] == [6]
    subscriber.subscribe(name, qos=1)
    publisher.publish(name, b"x", qos=1)
    assert "subscription_identifier" not in subscriber.receive().props


@clause("MQTT-4.13.1-1")
def test_subscription_identifier_zero(connected):
    client = connected()
    client.send(m.subscribe(1, [("a", 0)], {"subscription_identifier": 0}))
    client.refused(PROTOCOL_ERROR, MALFORMED)


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


# Shared subscriptions


@clause("MQTT-4.8.2-3")
def test_shared_filter_gives_each_message_to_one(connected, name):
    members = [connected() for _ in range(3)]
    outsider = connected()
    outsider.subscribe(f"{name}/#", qos=1)
    for member in members:
        member.subscribe(f"$share/group/{name}/#", qos=1)
    publisher = connected()
    for number in range(30):
        publisher.publish(f"{name}/t", b"%d" % number, qos=1)
    wanted = [b"%d" % number for number in range(30)]
    assert outsider.receive_payloads(30) == wanted
    got = []
    for member in members:
        member.publish(f"{name}-end-{members.index(member)}", b"")
        member.ping()
        mine = []
        while True:
            try:
                mine.append(member.receive(timeout=0.3).payload)
            except TimeoutError:
                break
        got.append(mine)
    assert sorted(sum(got, [])) == sorted(wanted)
    assert all(got), "a member got nothing"


@clause("MQTT-4.8.2-3")
def test_shared_groups_are_apart(connected, name):
    one, two = connected(), connected()
    one.subscribe(f"$share/one/{name}", qos=1)
    two.subscribe(f"$share/two/{name}", qos=2)
    publisher = connected()
    publisher.publish(name, b"x", qos=2)
    assert one.receive().qos == 1
    assert two.receive().qos == 2


@clause("MQTT-4.8.2-3")
def test_shared_filter_gets_no_retained(connected, name):
    publisher, member = connected(), connected()
    publisher.publish(name, b"retained", qos=1, retain=True)
    member.subscribe(f"$share/group/{name}", qos=1)
    member.nothing_more()


@clause("MQTT-4.8.2-4", "MQTT-4.8.2-5")
def test_member_gets_back_what_it_had_begun(connected, dial, name):
    member = connected(f"{name}-m", props=expiry(60))
    member.subscribe(f"$share/group/{name}", qos=2)
    publisher = connected()
    publisher.publish(name, b"x", qos=2)
    got = member.receive(ack_it=False)
    member.cut()
    other = connected()
    other.subscribe(f"$share/group/{name}", qos=2)
    other.nothing_more()
    again = dial()
    assert again.connect(f"{name}-m", clean=False).session_present
    repeated = again.receive()
    assert (repeated.id, repeated.payload, repeated.dup) == (got.id, b"x", True)


@clause("MQTT-4.8.2-6")
def test_refusal_of_a_member_is_final(connected, name):
    one, publisher = connected(), connected()
    one.subscribe(f"$share/group/{name}", qos=1)
    publisher.publish(name, b"x", qos=1)
    got = one.receive(ack_it=False)
    two = connected()
    two.subscribe(f"$share/group/{name}", qos=1)
    one.send(m.ack(m.PUBACK, got.id, 0x83))
    one.nothing_more()
    two.nothing_more()


@clause("MQTT-3.10.4-1")
def test_leaving_a_shared_group(connected, name):
    one, two, publisher = connected(), connected(), connected()
    for member in (one, two):
        member.subscribe(f"$share/group/{name}", qos=1)
    assert one.unsubscribe(f"$share/group/{name}") == [0]
    for number in range(6):
        publisher.publish(name, b"%d" % number, qos=1)
    assert two.receive_payloads(6) == [b"%d" % number for number in range(6)]
    one.nothing_more()


# Order


@clause("MQTT-4.6.0-1", "MQTT-4.6.0-2", "MQTT-4.6.0-3", "MQTT-4.6.0-4", "MQTT-4.5.0-1", "MQTT-4.5.0-2")
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
