"""Normative statements of MQTT 5: shared subscriptions."""

import pytest

import rawmqtt as m
from support import expiry

clause = pytest.mark.clause
VERSION = 5


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
@pytest.mark.not_mosquitto("sends them")
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
