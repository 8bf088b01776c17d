"""Normative statements of MQTT 5: CONNECT, CONNACK, keep alive and authentication."""

import time

import pytest

import rawmqtt as m
from support import MALFORMED, PROTOCOL_ERROR, UNSUPPORTED_VERSION, expiry, refused_connect

clause = pytest.mark.clause
VERSION = 5


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
@pytest.mark.parametrize("protocol", ["MQTX", "mqtt", ""])
def test_unknown_protocol_name(dial, protocol):
    client = dial()
    client.send(m.connect("c", protocol=protocol))
    refused_connect(client, UNSUPPORTED_VERSION, 1, MALFORMED, PROTOCOL_ERROR)


@clause("MQTT-3.1.2-2")
@pytest.mark.parametrize("level", [0, 1, 2, 6, 127])
def test_unknown_protocol_version(dial, level):
    # Which form of CONNACK the client reads is unknown: the one that is nearest.
    version = 4 if level < 5 else 5
    client = dial(version)
    client.send(m.connect("c", version, level=level))
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
@pytest.mark.not_mosquitto("says nothing")
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


@clause("MQTT-3.1.2-22")
def test_keep_alive_counts_packets_not_bytes(connected, name):
    """Who never finishes a packet is as silent as who says nothing."""
    client = connected(keep_alive=1)
    client.send(m.packet(m.PUBLISH, 0, m.text(name), length=m.varint(1000)))
    deadline = time.monotonic() + 20
    with pytest.raises(m.Closed):
        while time.monotonic() < deadline:
            try:
                client.send(b"x")
                client.next(timeout=0.1)
            except TimeoutError:
                continue
            except OSError:
                raise m.Closed from None
    assert client.ended is None or client.ended.reason == 0x8D


@clause("MQTT-3.1.2-22")
def test_keep_alive_lets_a_slow_packet_arrive(connected, name):
    client = connected(keep_alive=1)
    packet = m.publish(name, bytes(20_000), 1, id=7)
    for at in range(0, len(packet), 4000):
        time.sleep(0.5)
        client.send(packet[at : at + 4000])
    assert client.expect(m.PUBACK).id == 7


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


@clause("MQTT-4.12.0-4", "MQTT-4.12.0-1", "MQTT-3.1.4-2", "MQTT-4.13.2-1", "MQTT-3.2.2-7", "MQTT-3.2.2-8")
def test_unknown_authentication_method(dial, name):
    client = dial()
    answer = client.connect(name, check=False, props={"authentication_method": "no such method"})
    assert answer.reason == 0x8C and not answer.session_present
    assert client.closed() is None


@clause("MQTT-4.12.0-7", "MQTT-4.12.0-6", "MQTT-4.12.1-1")
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
