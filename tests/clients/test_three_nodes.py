"""Three nodes: what one has acknowledged all know, and a client that loses its node finds its session."""

import json
import signal
import time

import pytest

import rawmqtt as m
from brokers import wait_until
from parties import LASTING

pytestmark = pytest.mark.skein


def test_a_queue_is_filled_on_one_node_and_emptied_on_another(on, name):
    away = on(1, name, props=LASTING)
    away.subscribe(f"{name}/#", qos=2)
    away.disconnect()
    publisher = on(2, f"{name}-publisher")
    for number in range(20):
        publisher.publish(f"{name}/one", b"%d" % number, qos=1 + number % 2)
    back = on(3, name, clean=False, props=LASTING)
    assert back.connack.session_present
    assert [back.receive().payload for _ in range(20)] == [b"%d" % n for n in range(20)]


def test_a_client_is_taken_over_from_another_node(on, name):
    first = on(1, name, props=LASTING)
    first.subscribe(f"{name}/#", qos=1)
    second = on(2, name, clean=False, props=LASTING)
    assert second.connack.session_present
    assert first.expect(m.DISCONNECT).reason == 0x8E
    first.closed(timeout=5)
    on(3, f"{name}-publisher").publish(f"{name}/a", b"here", qos=1)
    assert second.receive().payload == b"here"


def test_a_clean_client_is_taken_over_too(on, name):
    first = on(1, name)
    second = on(3, name)
    assert first.expect(m.DISCONNECT).reason == 0x8E
    second.ping()


def test_a_will_of_a_client_whose_node_is_killed_is_published_once(cluster, on, name):
    watcher = on(2, f"{name}-watcher", props=LASTING)
    watcher.subscribe(f"{name}/gone", qos=1)
    on(1, name, will=m.Will(f"{name}/gone", b"gone", 1))
    cluster[1].kill()
    assert watcher.receive(timeout=20).payload == b"gone"
    watcher.nothing_more()


def test_retained_and_shadows_are_the_same_everywhere(on, name):
    on(1, f"{name}-1").publish(f"{name}/kept", b"kept", qos=1, retain=True)
    reader = on(2, f"{name}-2")
    reader.subscribe(f"{name}/+", qos=1)
    assert reader.receive().payload == b"kept"
    owner = on(3, f"{name}-3", props=LASTING)
    owner.subscribe(f"$aws/things/{name}/shadow/update/accepted", qos=1)
    body = json.dumps({"state": {"desired": {"on": True}}}).encode()
    reader.publish(f"$aws/things/{name}/shadow/update", body, qos=1)
    assert json.loads(owner.receive().payload)["version"] == 1


@pytest.mark.parametrize("victim", [1, 2, 3])
def test_whatever_node_is_killed_nothing_acknowledged_is_lost(cluster, on, name, victim):
    """The subscriber is on the node that is killed, the publisher is not."""
    other = 1 + victim % 3
    subscriber = on(victim, name, props=LASTING)
    subscriber.subscribe(f"{name}/#", qos=1)
    publisher = on(other, f"{name}-publisher")
    seen = set()
    for number in range(60):
        if number == 20:
            subscriber.cut()
            cluster[victim].kill()
        publisher.publish(f"{name}/n", b"%d" % number, qos=1)
    back = on(other, name, clean=False, props=LASTING)
    assert back.connack.session_present
    while len(seen) < 60:
        seen.add(back.receive(timeout=10).payload)
    cluster[victim].start()
    wait_until("it is back", cluster[victim].is_serving, 20)
    again = on(victim, name, clean=False, props=LASTING)
    assert again.connack.session_present


def test_messages_expire_though_the_node_is_killed_that_took_them(cluster, on, name):
    away = on(1, name, props=LASTING)
    away.subscribe(f"{name}/#", qos=1)
    away.disconnect()
    publisher = on(1, f"{name}-publisher")
    for payload, seconds in [(b"brief", 2), (b"long", 600)]:
        publisher.publish(f"{name}/a", payload, qos=1, props={"message_expiry_interval": seconds})
    sent = time.monotonic()
    cluster[1].kill()
    # What is waited for is that time passes.
    time.sleep(2.5)
    back = on(2, name, clean=False, props=LASTING)
    assert back.connack.session_present
    got = back.receive()
    left = got.props["message_expiry_interval"]
    assert got.payload == b"long" and 598 - (time.monotonic() - sent) <= left <= 598
    back.nothing_more()


def test_without_a_quorum_nothing_is_taken_and_it_recovers_by_itself(cluster, on, name):
    publisher = on(1, f"{name}-publisher")
    publisher.publish(f"{name}/x", b"1", qos=1)
    cluster[2].kill()
    cluster[3].kill()
    wait_until("it is not ready", lambda: not cluster[1].is_serving(), 20)
    status, text = cluster[1].get("/readyz")
    assert status == 503 and "leader" in text, text
    refused = m.Client(cluster[1].plain, 5)
    assert refused.connect(name, check=False).reason == 0x88
    cluster[2].start()
    wait_until("two of three serve", cluster[1].is_serving, 20)
    wait_until("clients connect again", lambda: try_connect(cluster[1], name), 20)


def test_a_rolling_restart_loses_nothing_and_tells_clients_to_go_elsewhere(cluster, on, name):
    subscriber = on(1, name, props=LASTING)
    subscriber.subscribe(f"{name}/#", qos=1)
    publisher = on(2, f"{name}-publisher")
    seen, sent = set(), 0
    for node in (1, 2, 3):
        if node == 2:
            publisher.cut()
            publisher = on(3, f"{name}-publisher")
        elif node == 3:
            publisher.cut()
            publisher = on(1, f"{name}-publisher")
        guest = on(node, f"{name}-guest")
        cluster[node].terminate()
        for _ in range(10):
            publisher.publish(f"{name}/n", b"%d" % sent, qos=1)
            sent += 1
        assert guest.expect(m.DISCONNECT, timeout=10).reason == 0x9C
        assert cluster[node].process.wait(20) == 0
        for _ in range(10):
            publisher.publish(f"{name}/n", b"%d" % sent, qos=1)
            sent += 1
        cluster[node].start()
        wait_until("it is back", cluster[node].is_serving, 20)
    back = on(2, name, clean=False, props=LASTING)
    assert back.connack.session_present
    for kept in subscriber.kept:
        if kept.kind == m.PUBLISH:
            seen.add(kept.payload)
    while len(seen) < sent:
        seen.add(back.receive(timeout=10).payload)


def try_connect(node, name):
    try:
        client = m.Client(node.plain, 5)
        return client.connect(name, check=False).reason == 0
    except (OSError, m.Closed):
        return False


@pytest.mark.parametrize("keeps", [True, False])
def test_any_node_ends_a_connection_wherever_it_is(cluster, on, name, keeps):
    watcher = on(3, f"{name}-watcher")
    watcher.subscribe(f"{name}/gone", qos=1)
    client = on(1, name, props=LASTING, will=m.Will(f"{name}/gone", b"gone", 1))
    ends = {"cleanSession": not keeps, "preventWillMessage": not keeps}
    cluster[2].boto("iot-data").delete_connection(clientId=name, **ends)
    client.refused(0x98)
    if keeps:
        assert watcher.receive().payload == b"gone"
    back = on(2, name, clean=False, props=LASTING)
    assert back.connack.session_present == keeps
    watcher.nothing_more()


@pytest.mark.parametrize("lasts", [True, False])
def test_any_node_tells_of_a_connection_wherever_it_is(cluster, on, name, lasts):
    client = on(1, name, keep_alive=77, props=LASTING if lasts else None)
    filters = [f"{name}/{n}" for n in range(5)]
    client.subscribe(*filters, qos=1)
    for node in (1, 2, 3):
        data = cluster[node].boto("iot-data")
        told = data.get_connection(clientId=name, includeSocketInformation=True)
        assert told["connected"] and told["cleanSession"] == (not lasts)
        assert told["keepAliveDuration"] == 77 and told["connectedSince"] > 0
        assert (told["sourceIp"], told["sourcePort"]) == client.socket.getsockname()
        assert (told["targetIp"], told["targetPort"]) == client.socket.getpeername()
        assert "thingName" not in told
        pages, token = [], {}
        while token is not None:
            page = data.list_subscriptions(clientId=name, maxResults=2, **token)
            pages.append([(each["topicFilter"], each["qos"]) for each in page["subscriptions"]])
            token = {"nextToken": page["nextToken"]} if page.get("nextToken") else None
        assert pages == [[(filter, 1) for filter in filters[at : at + 2]] for at in (0, 2, 4)]


def test_of_a_connection_whose_node_does_not_answer_its_session_tells(cluster, on, name):
    client = on(1, name, keep_alive=77, props=LASTING)
    client.subscribe(f"{name}/a", qos=1)
    cluster[1].process.send_signal(signal.SIGSTOP)
    try:
        data = cluster[2].boto("iot-data")

        def told():
            try:
                return data.get_connection(clientId=name), data.list_subscriptions(clientId=name)
            except data.exceptions.ServiceUnavailableException:
                return None  # The group is about to have another leader.

        connection, listed = wait_until("an answer", told, 30)
    finally:
        cluster[1].process.send_signal(signal.SIGCONT)
    assert "keepAliveDuration" not in connection and not connection["cleanSession"]
    assert [each["topicFilter"] for each in listed["subscriptions"]] == [f"{name}/a"]
