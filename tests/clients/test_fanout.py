"""Three nodes: a publication reaches whoever is connected, on whichever node, once."""

import signal
import time

import pytest

import rawmqtt as m
from brokers import wait_until

pytestmark = pytest.mark.skein


def payloads(client, count):
    return [client.receive().payload for _ in range(count)]


def numbers(count):
    return [b"%d" % number for number in range(count)]


def flood_until_slowed(publisher, packet):
    """Publishes to those who read nothing until the broker does not take any more."""
    publisher.socket.settimeout(1)
    sent = 0
    try:
        while sent < 400 << 20:
            publisher.socket.sendall(4 * packet)
            sent += 4 * len(packet)
    except TimeoutError:
        pass
    assert sent < 200 << 20, "the publisher is never slowed down"


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_reaches_clean_sessions_on_other_nodes_once(on, name, qos):
    subscribers = [on(node, f"{name}-{node}-{filter[0]}") for node in (1, 2, 3) for filter in ("a", "b")]
    for subscriber, filter in zip(subscribers, [f"{name}/t", f"{name}/#"] * 3):
        subscriber.subscribe(filter, qos=qos)
    publisher = on(1, f"{name}-publisher")
    for number in range(50):
        publisher.publish(f"{name}/t", b"%d" % number, qos=qos)
    for subscriber in subscribers:
        assert payloads(subscriber, 50) == numbers(50)
        subscriber.nothing_more()


def test_a_suback_is_for_the_whole_cluster(on, name):
    subscriber, publisher = on(2, name), on(1, f"{name}-publisher")
    for number in range(50):
        subscriber.subscribe(f"{name}/{number}", qos=number % 2)
        publisher.publish(f"{name}/{number}", b"%d" % number, qos=1)
        assert subscriber.receive().payload == b"%d" % number
        subscriber.unsubscribe(f"{name}/{number}")


def test_properties_and_flags_go_along(on, name):
    subscriber = on(3, name)
    subscriber.subscribe(f"{name}/#", qos=1, props={"subscription_identifier": 7})
    props = {"content_type": "text/plain", "user_property": ("a", "b"), "message_expiry_interval": 60}
    on(1, f"{name}-publisher").publish(f"{name}/a", b"x", qos=2, props=props)
    publication = subscriber.receive()
    assert publication.qos == 1 and not publication.retain
    assert publication.props["subscription_identifier"] in (7, [7])
    assert publication.props["content_type"] == "text/plain"


def test_what_a_queue_gets_does_not_come_by_the_fan_out_too(cluster, on, name):
    """A persistent session has QoS 1 and 2 from its group, and only QoS 0 from the publisher's node."""
    props = {"session_expiry_interval": 300}
    subscriber, publisher = on(2, name, props=props), on(1, f"{name}-publisher")

    def parcels():
        return cluster[1].metrics()['fanout_parcels_total{direction="out"}']

    def publish(qos, number):
        publisher.publish(f"{name}/t", b"%d" % number, qos=qos)
        got = subscriber.receive()
        return got.qos, got.payload

    subscriber.subscribe(f"{name}/t", qos=1)
    before = parcels()
    assert [publish(qos, number) for number, qos in enumerate([1, 2])] == [(1, b"0"), (1, b"1")]
    assert parcels() == before
    assert publish(0, 2) == (0, b"2")
    assert parcels() == before + 1
    # With QoS 0 granted there is nothing to queue, and the other way round again.
    subscriber.subscribe(f"{name}/t", qos=0)
    assert publish(1, 3) == (0, b"3")
    assert parcels() == before + 2
    subscriber.subscribe(f"{name}/t", qos=2)
    assert publish(2, 4) == (2, b"4")
    assert parcels() == before + 2
    # A session without a queue wants everything.
    brief = on(2, f"{name}-brief")
    brief.subscribe(f"{name}/t", qos=1)
    assert publish(1, 5) == (1, b"5") and brief.receive().payload == b"5"
    assert parcels() == before + 3
    brief.unsubscribe(f"{name}/t")

    def crosses():
        before = parcels()
        assert publish(1, 6) == (1, b"6")
        return parcels() > before

    # UNSUBACK does not wait until the publisher's node knows.
    wait_until("what is queued does not cross", lambda: not crosses())
    subscriber.nothing_more()


def test_a_share_takes_its_members_on_all_nodes(on, name):
    members = [on(node, f"{name}-{node}") for node in (2, 3)]
    for member in members:
        member.subscribe(f"$share/group/{name}/#", qos=1)
    publisher = on(1, f"{name}-publisher")
    for number in range(40):
        publisher.publish(f"{name}/t", b"%d" % number, qos=number % 2)
    got = [payloads(member, 20) for member in members]
    assert sorted(got[0] + got[1]) == sorted(numbers(40))
    for member in members:
        member.nothing_more()
    members[0].disconnect()
    wait_until("the member is gone everywhere", lambda: everything_goes_to(members[1], publisher, name))


def everything_goes_to(member, publisher, name):
    for number in range(4):
        publisher.publish(f"{name}/t", b"%d" % number, qos=1)
    time.sleep(0.1)
    return payloads(member, 4) == numbers(4)


def test_a_killed_node_holds_nobody_up_for_long_and_comes_back(cluster, on, name):
    gone, here = on(2, f"{name}-gone"), on(3, f"{name}-here")
    for subscriber in (gone, here):
        subscriber.subscribe(f"{name}/t", qos=1)
    publisher = on(1, f"{name}-publisher")
    publisher.publish(f"{name}/t", b"0", qos=1)
    assert gone.receive().payload == here.receive().payload == b"0"
    cluster[2].kill()
    # Nobody knows yet whether it lives.
    publisher.send(m.publish(f"{name}/t", b"1", qos=1, id=77))
    assert here.receive().payload == b"1"
    assert publisher.expect(m.PUBACK, timeout=20).id == 77
    publisher.publish(f"{name}/t", b"2", qos=1)
    assert here.receive().payload == b"2"

    cluster[2].start()
    cluster.wait_serving()
    back = on(2, f"{name}-back")
    back.subscribe(f"{name}/t", qos=1)
    for node in (1, 3):
        on(node, f"{name}-again-{node}").publish(f"{name}/t", b"3", qos=1)
        assert back.receive().payload == here.receive().payload == b"3"
    mirror = on(1, f"{name}-mirror")
    mirror.subscribe(f"{name}/back", qos=1)
    back.publish(f"{name}/back", b"4", qos=1)
    assert mirror.receive().payload == b"4"
    back.nothing_more()


def test_a_subscriber_that_reads_nothing_slows_publishers_on_other_nodes(on, name):
    slow = on(2, f"{name}-slow")
    slow.subscribe(f"{name}/much", qos=0)
    other = on(3, f"{name}-other")
    other.subscribe(f"{name}/little", qos=1)
    flood_until_slowed(on(1, f"{name}-publisher"), m.publish(f"{name}/much", b"x" * 60_000))
    on(1, f"{name}-calm").publish(f"{name}/little", b"x", qos=1)
    assert other.receive().payload == b"x"


def test_what_a_silent_node_missed_it_gets_once_when_it_is_back(cluster, on, name):
    subscriber = on(2, name)
    subscriber.subscribe(f"{name}/#", qos=2)
    publisher = on(1, f"{name}-publisher")
    cluster[2].process.send_signal(signal.SIGSTOP)
    for number in range(1, 41):
        publisher.send(m.publish(f"{name}/t", b"%d" % number, qos=1 + number % 2, id=number))
    # Long enough for the links to be given up, not for the lease.
    time.sleep(8.5)
    assert "link down" in cluster[1].log.read_text()
    for number in range(41, 61):
        publisher.send(m.publish(f"{name}/t", b"%d" % number, qos=1, id=number))
    cluster[2].process.send_signal(signal.SIGCONT)
    assert payloads(subscriber, 60) == numbers(61)[1:]
    answers = [publisher.expect(m.PUBACK) for _ in range(40)]
    assert len({answer.id for answer in answers}) == 40
    subscriber.nothing_more()


def test_what_a_member_leaves_waits_for_a_silent_node(cluster, on, name):
    """Its publishers were told that it was taken, so nobody would send it again."""
    filter = f"$share/group/{name}/#"
    leaver = on(1, f"{name}-leaver")
    leaver.subscribe(filter, qos=1)
    publisher = on(3, f"{name}-publisher")
    for number in range(20):
        publisher.publish(f"{name}/t", b"%d" % number, qos=1)
    assert [leaver.receive(ack_it=False).payload for _ in range(20)] == numbers(20)
    heir = on(2, f"{name}-heir")
    heir.subscribe(filter, qos=1)
    cluster[2].process.send_signal(signal.SIGSTOP)
    time.sleep(8.5)
    assert "link down" in cluster[1].log.read_text()
    leaver.disconnect()
    cluster[2].process.send_signal(signal.SIGCONT)
    assert sorted(payloads(heir, 20)) == sorted(numbers(20))
    heir.nothing_more()


def test_what_members_of_a_drained_node_leave_goes_to_another_node(cluster, on, name):
    """Not to one another: all of them are about to end."""
    filter = f"$share/group/{name}/#"
    leavers = [on(2, f"{name}-{number}") for number in range(4)]
    for leaver in leavers:
        leaver.subscribe(filter, qos=1)
    publisher = on(1, f"{name}-publisher")
    for number in range(40):
        publisher.publish(f"{name}/t", b"%d" % number, qos=1)
    for leaver in leavers:
        assert len([leaver.receive(ack_it=False) for _ in range(10)]) == 10
    heir = on(3, f"{name}-heir")
    heir.subscribe(filter, qos=1)
    cluster[2].terminate()
    for number in range(40, 400):
        publisher.publish(f"{name}/t", b"%d" % number, qos=1)
    assert sorted(payloads(heir, 400)) == sorted(numbers(400))
    heir.nothing_more()
    assert cluster[2].stop() == 0
    cluster[2].start()
    cluster.wait_serving()


def test_what_no_member_of_a_node_can_have_goes_to_another_node(cluster, on, name):
    """All there are about to end, on both cores, and none of them reads its last word."""
    filter = f"$share/group/{name}/#"
    leavers = [on(2, f"{name}-{number}") for number in range(8)]
    for leaver in leavers:
        leaver.subscribe(filter, qos=1)
        leaver.subscribe(f"{name}-much", qos=0)
    heir = on(3, f"{name}-heir")
    heir.subscribe(filter, qos=1)
    flood_until_slowed(on(2, f"{name}-flood"), m.publish(f"{name}-much", b"x" * 60_000))
    publisher = on(1, f"{name}-publisher")
    cluster[2].terminate()
    wait_until("they are told", lambda: "no more connections are taken" in cluster[2].log.read_text(), 20)
    for number in range(40):
        publisher.publish(f"{name}/t", b"%d" % number, qos=1)
    assert sorted(payloads(heir, 40)) == sorted(numbers(40))
    heir.nothing_more()
    assert cluster[2].stop() == 0
    cluster[2].start()
    cluster.wait_serving()


def test_a_share_goes_on_without_the_members_of_a_killed_node(cluster, on, name):
    gone, here = on(2, f"{name}-gone"), on(3, f"{name}-here")
    for member in (gone, here):
        member.subscribe(f"$share/group/{name}/#", qos=1)
    publisher = on(1, f"{name}-publisher")
    cluster[2].kill()
    for number in range(20):
        publisher.send(m.publish(f"{name}/t", b"%d" % number, qos=1, id=number + 1))
    assert {publisher.expect(m.PUBACK, timeout=20).id for _ in range(20)} == set(range(1, 21))
    assert sorted(payloads(here, 20)) == sorted(numbers(20))
    here.nothing_more()


def test_a_node_that_starts_lets_nobody_in_before_it_knows_what_others_want(cluster, on, name):
    """What is published as soon as one can be connected reaches whoever is subscribed elsewhere."""
    subscriber = on(1, name)
    filters = [f"{name}/{number}" for number in range(1000)]
    for at in range(0, len(filters), 100):
        subscriber.subscribe(*filters[at : at + 100], qos=1)
    for round in range(3):
        cluster[3].kill()
        cluster[3].start()
        publisher = wait_until("a connection", lambda: connection(cluster[3], f"{name}-publisher"), 20)
        topics = filters[round::10]
        publisher.send(*[m.publish(topic, b"", 1, id=id) for id, topic in enumerate(topics, 1)])
        answers = [publisher.expect(m.PUBACK).reason for _ in topics]
        assert answers == [0] * len(topics)
        assert [subscriber.receive().topic for _ in topics] == topics
        publisher.cut()


def connection(node, client_id):
    """A client of a node, or nothing if it is not let in yet."""
    try:
        client = m.Client(node.plain)
    except ConnectionRefusedError:
        return None
    if client.connect(client_id, check=False).reason == 0:
        return client
    client.cut()
    return None
