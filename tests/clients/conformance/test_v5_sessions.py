"""Normative statements of MQTT 5: sessions: what they keep, send again and end with; wills."""

import time

import pytest

import rawmqtt as m
from rawmqtt import Will
from support import PROTOCOL_ERROR, expiry

clause = pytest.mark.clause
VERSION = 5


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


@clause("MQTT-3.1.2-23", "MQTT-4.1.0-2")
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
    # What a link loses with its end may be sent again.
    client.ping()
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


@clause("MQTT-4.3.3-7")
@pytest.mark.not_mosquitto("lets it expire")
def test_what_was_sent_does_not_expire(connected, dial, name):
    client = connected(name, props=expiry(60))
    client.subscribe(f"{name}/t", qos=2)
    publisher = connected()
    for number in range(2):
        publisher.publish(f"{name}/t", b"%d" % number, qos=2, props={"message_expiry_interval": 1})
    ids = [client.receive(ack_it=False).id for _ in range(2)]
    client.send(m.ack(m.PUBREC, ids[0]))
    client.expect(m.PUBREL)
    client.cut()
    time.sleep(2.2)
    again = dial()
    assert again.connect(name, clean=False).session_present
    assert again.expect(m.PUBREL).id == ids[0]
    got = again.receive(ack_it=False)
    assert (got.id, got.dup) == (ids[1], True)


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
    if retain:
        # QoS 0 promises nothing about when it is stored, so it is asked for again.
        for _ in range(10):
            later.subscribe(name, qos=2)
            try:
                assert later.receive(timeout=0.5).retain
                break
            except TimeoutError:
                later.unsubscribe(name)
        else:
            pytest.fail("the will was not retained")
    else:
        later.subscribe(name, qos=2)
    later.nothing_more()


@clause("MQTT-3.1.2-10", "MQTT-3.14.4-3", "MQTT-3.1.2-8")
@pytest.mark.parametrize("reason,published", [(None, False), (0, False), (4, True), (0x80, True)])
@pytest.mark.not_mosquitto("forgets the will for every reason but 4")
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
@pytest.mark.not_mosquitto("forgets the will")
def test_delayed_will_comes_when_the_session_is_started_anew(connected, dial, name):
    watcher = connected()
    watcher.subscribe(name, qos=1)
    victim = connected(f"{name}-v", props=expiry(60), will=Will(name, b"gone", 1, props={"will_delay_interval": 100}))
    victim.cut()
    dial().connect(f"{name}-v", clean=True)
    assert watcher.receive().payload == b"gone"


@clause("MQTT-3.1.2-8", "MQTT-3.1.4-3")
@pytest.mark.not_mosquitto("says nothing")
def test_will_without_delay_is_published_on_takeover(connected, name):
    watcher = connected()
    watcher.subscribe(name, qos=1)
    victim = connected(f"{name}-v", will=Will(name, b"gone", 1))
    connected(f"{name}-v")
    assert victim.closed().reason == 0x8E
    assert watcher.receive().payload == b"gone"
