"""Normative statements of MQTT 5: PUBLISH: properties, aliases, windows, sizes, expiry."""

import json
import time

import pytest

import brokers
import rawmqtt as m
from support import MALFORMED, PROTOCOL_ERROR, expiry

clause = pytest.mark.clause
VERSION = 5


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
@pytest.mark.not_mosquitto("lets them pass")
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
@pytest.mark.not_mosquitto("counts PUBREC as the end")
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
@pytest.mark.not_mosquitto("counts QoS 1 only")
def test_more_than_the_servers_receive_maximum(connected, name):
    client = connected()
    most = client.connack.props.get("receive_maximum", 65_535)
    if most == 65_535:
        pytest.skip("as many as there are identifiers")
    client.send(*(m.publish(name, b"x", 2, id=id) for id in range(1, most + 2)))
    client.refused(0x93)


@clause("MQTT-3.1.2-24", "MQTT-3.1.2-25")
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.not_mosquitto("leaves the place in the window taken")
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
@pytest.mark.not_mosquitto("counts without the header")
def test_maximum_packet_size_is_exact(connected, name):
    publisher = connected()
    overhead = 2 + 2 + len(name) + 1
    small = connected(props={"maximum_packet_size": 100})
    small.subscribe(name)
    publisher.publish(name, b"x" * (100 - overhead + 1))
    publisher.publish(name, b"y" * (100 - overhead))
    assert small.receive().payload[:1] == b"y"


@clause(
    *("MQTT-3.2.2-19", "MQTT-3.2.2-20", "MQTT-3.4.2-2", "MQTT-3.5.2-2", "MQTT-3.6.2-2", "MQTT-3.7.2-2"),
    *("MQTT-3.9.2-1", "MQTT-3.11.2-1", "MQTT-3.14.2-3", "MQTT-3.1.2-24"),
)
@pytest.mark.not_mosquitto("sends larger ones")
@pytest.mark.parametrize("most", [20, 50])
def test_no_answer_exceeds_the_maximum_packet_size(connected, name, most):
    """Reason strings and user properties are left out where they would not fit."""

    def fits(packet):
        # The header of so small a packet has two bytes.
        assert packet.size + 2 <= most, packet

    client = connected(props={"maximum_packet_size": most})
    fits(client.connack)
    client.send(m.subscribe(1, [("a/#/b", 0)]))
    try:
        fits(client.expect(m.SUBACK))
    except m.Closed as end:
        assert end.last is None or fits(end.last) is None
        client = connected(props={"maximum_packet_size": most})
    client.send(m.unsubscribe(2, ["never"]), m.publish(name, b"", 1, id=3), m.publish(name, b"", 2, id=4))
    client.send(m.ack(m.PUBREL, 77), m.ack(m.PUBREC, 78))
    for kind in (m.UNSUBACK, m.PUBACK, m.PUBREC, m.PUBCOMP, m.PUBREL):
        fits(client.expect(kind))
    client.send(m.connect(name))
    last = client.closed()
    assert last is None or fits(last) is None


@clause("MQTT-3.1.2-24")
@pytest.mark.not_mosquitto("sends larger ones")
@pytest.mark.parametrize("answer", ["suback", "unsuback"])
def test_an_answer_that_cannot_be_made_smaller(connected, name, answer):
    """One code per filter: it is sent when it just fits, and one filter more ends the connection."""
    make = m.unsubscribe if answer == "unsuback" else lambda id, filters: m.subscribe(id, [(f, 0) for f in filters])
    kind = m.UNSUBACK if answer == "unsuback" else m.SUBACK
    filters = [f"{name}/{number}" for number in range(36)]
    client = connected(props={"maximum_packet_size": 40})
    client.send(make(1, filters[:35]))
    assert client.expect(kind).size + 2 == 40
    client.send(make(2, filters))
    last = client.closed()
    assert last is None or last.reason == 0x95


@clause("MQTT-3.1.2-24")
@pytest.mark.not_mosquitto("sends larger ones")
def test_connack_is_no_exception(dial, name):
    for most in range(1, 40):
        client = dial()
        client.send(m.connect("", props={"maximum_packet_size": most, "session_expiry_interval": 0}))
        try:
            connack = client.next()
        except m.Closed:
            continue
        assert connack.size + 2 <= most, connack
        assert connack.reason in (0, 0x95), connack


@clause("MQTT-3.2.2-15")
@pytest.mark.skein
def test_more_than_the_servers_maximum_packet_size(tmp_path, name):
    broker = brokers.Skein(tmp_path / "ports")
    everything = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]})
    broker = brokers.serving(
        tmp_path / "small",
        f"""
        data = '{{data}}'
        [listeners.mqtt]
        address = '127.0.0.1:{broker.port("plain")}'
        anonymous_policy = '{everything}'
        [listeners.admin]
        address = '127.0.0.1:{broker.port("admin")}'
        [limits]
        maximum_packet_size = 2048
        """,
        broker.offset,
    ).start()
    try:
        with m.Client(broker.plain) as client:
            most = client.connect(name).props["maximum_packet_size"]
            assert most == 2048
            just = m.publish(name, b"x" * (most - len(m.publish(name, b"x" * 1000, 1, id=1)) + 1000), 1, id=1)
            assert len(just) == most
            client.send(just)
            assert client.expect(m.PUBACK).id == 1
            client.send(m.publish(name, b"x" * most, 1, id=2)[:10])
            client.refused(0x95)
    finally:
        broker.stop()


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
