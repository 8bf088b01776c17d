"""Normative statements of MQTT 3.1.1: SUBSCRIBE and UNSUBSCRIBE."""

import pytest

import rawmqtt as m

clause = pytest.mark.clause
VERSION = 4


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


@clause("MQTT-3-8.3-4")
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
