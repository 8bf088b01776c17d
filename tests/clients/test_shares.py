"""Three nodes: shared subscriptions feed members that live, and keep what no member can have now."""

import signal
import time
from itertools import islice

import pytest

import rawmqtt as m
from brokers import SkeinCluster, group_of, settle, wait_until
from parties import LASTING

pytestmark = pytest.mark.skein

COUNT = 40
WINDOW = 6
SLOW = LASTING | {"receive_maximum": WINDOW}


@pytest.fixture(autouse=True)
def ready(cluster):
    """All nodes know that all keep queues of shared subscriptions."""
    for node in cluster.nodes.values():
        wait_until("all read version 2", lambda: node.metrics().get("cluster_data_version") == 2)


def payloads(client, count):
    return [client.receive(timeout=20).payload for _ in range(count)]


def numbers(*range_):
    return [b"%d" % number for number in range(*range_)]


def qos_of(number):
    return 1 + number % 2


def feed(publisher, name, *range_):
    for number in range(*range_):
        publisher.publish(f"{name}/t", b"%d" % number, qos=qos_of(number))


def member(on, node, client_id, name, props=LASTING, **more):
    client = on(node, client_id, props=props, **more)
    client.subscribe(f"$share/group/{name}/#", qos=2)
    return client


def connected(cluster, count):
    """Every node knows that so many clients are connected."""
    gauges = [node.metrics().get("sessions_connected") for node in cluster.nodes.values()]
    return gauges == [count] * len(gauges)


def members_away(cluster, on, name, *nodes):
    """Members with persistent sessions, one of each node, that every node knows to be away."""
    for node in nodes:
        member(on, node, f"{name}-{node}", name).disconnect()
    wait_until("they are away", lambda: connected(cluster, 0))


def queues_are_empty(cluster):
    """What was acknowledged has left the queues: a full one would not take another message."""
    return all(node.metrics()["session_queue_messages"] == 0 for node in cluster.nodes.values())


def waiting(cluster):
    return cluster[1].metrics().get("share_queue_messages")


def applied(cluster):
    return sum(group["applied"] for group in cluster.standing()["groups"].values())


@pytest.mark.parametrize("props", [None, LASTING], ids=["brief", "persistent"])
def test_members_of_all_nodes_have_their_part(on, name, props):
    members = [member(on, node, f"{name}-{node}", name, props) for node in (1, 2, 3)]
    feed(on(1, f"{name}-publisher"), name, 60)
    got = [payloads(client, 20) for client in members]
    assert sorted(sum(got, [])) == sorted(numbers(60))
    for client in members:
        client.nothing_more()


def test_who_is_connected_is_preferred(cluster, on, name):
    members_away(cluster, on, name, 1, 2)
    here = member(on, 3, f"{name}-here", name)
    feed(on(1, f"{name}-publisher"), name, COUNT)
    assert payloads(here, COUNT) == numbers(COUNT)
    away = on(1, f"{name}-1", clean=False, props=LASTING)
    assert away.connack.session_present
    away.nothing_more()


def test_whoever_comes_first_gets_what_came_while_all_were_away(cluster, on, name):
    members_away(cluster, on, name, 1, 2, 3)
    feed(on(1, f"{name}-publisher"), name, COUNT)
    wait_until("they wait on all nodes", lambda: waiting(cluster) == COUNT)
    first = on(3, f"{name}-2", clean=False, props=LASTING)
    assert payloads(first, COUNT) == numbers(COUNT)
    for node in (1, 3):
        late = on(node, f"{name}-{node}", clean=False, props=LASTING)
        late.nothing_more()
    first.nothing_more()
    wait_until("nothing waits", lambda: waiting(cluster) == 0)


def test_a_newcomer_that_keeps_no_session_gets_it_too(cluster, on, name):
    members_away(cluster, on, name, 1)
    feed(on(2, f"{name}-publisher"), name, COUNT)
    newcomer = member(on, 3, f"{name}-newcomer", name, props=None)
    assert payloads(newcomer, COUNT) == numbers(COUNT)
    newcomer.nothing_more()


def test_what_waits_goes_to_nobody_who_does_not_acknowledge_it(cluster, on, name):
    members_away(cluster, on, name, 1)
    feed(on(2, f"{name}-publisher"), name, COUNT)
    wait_until("they wait on all nodes", lambda: waiting(cluster) == COUNT)
    watcher = on(3, f"{name}-watcher", props=LASTING)
    watcher.subscribe(f"$share/group/{name}/#", qos=0)
    watcher.nothing_more()
    back = on(2, f"{name}-1", clean=False, props=LASTING)
    assert payloads(back, COUNT) == numbers(COUNT)
    watcher.nothing_more()


@pytest.mark.parametrize("node", [1, 2, 3])
def test_what_a_newcomer_may_not_receive_waits_on(cluster, on, name, node):
    """The leader of the subscription's queue has given it to whoever keeps none, wherever that is."""
    members_away(cluster, on, name, 1)
    publisher = on(2, f"{name}-publisher")
    publisher.publish(f"{name}/for-all", b"first", qos=1)
    for number in range(COUNT):
        publisher.publish(f"{name}/not-for/{name}-newcomer", b"%d" % number, qos=1)
    newcomer = member(on, node, f"{name}-newcomer", name, props=None)
    assert newcomer.receive().payload == b"first"
    wait_until("they wait again", lambda: waiting(cluster) == COUNT)
    before = applied(cluster)
    # The leader looks ten times for somebody who can have them.
    time.sleep(1)
    assert applied(cluster) - before < 15, "what waits goes round in circles, with three entries each time"
    back = on(3, f"{name}-1", clean=False, props=LASTING)
    assert sorted(payloads(back, COUNT)) == sorted(numbers(COUNT))
    newcomer.nothing_more()
    back.nothing_more()


def test_what_waits_outlives_every_node(cluster, on, name):
    members_away(cluster, on, name, 1, 2)
    feed(on(1, f"{name}-publisher"), name, COUNT)
    for node in cluster.nodes.values():
        node.kill()
    for node in cluster.nodes.values():
        node.start()
    cluster.wait_serving()
    back = on(3, f"{name}-2", clean=False, props=LASTING)
    # Half of it may have been for the other one, as a node that starts knew it last.
    assert sorted(payloads(back, COUNT)) == sorted(numbers(COUNT))
    back.nothing_more()


def test_what_waits_expires(cluster, on, name):
    members_away(cluster, on, name, 1)
    publisher = on(2, f"{name}-publisher")
    for number in range(10):
        props = {"message_expiry_interval": 1} if number % 2 else {}
        publisher.publish(f"{name}/t", b"%d" % number, qos=2, props=props)
    time.sleep(1.2)
    back = on(3, f"{name}-1", clean=False, props=LASTING)
    assert payloads(back, 5) == numbers(0, 10, 2)
    back.nothing_more()


def disconnects(cluster, on, client, name):
    client.disconnect()


def is_cut(cluster, on, client, name):
    client.cut()


def dies_with_its_node(cluster, on, client, name):
    cluster[2].kill()


def ends_its_session(cluster, on, client, name):
    client.disconnect(props={"session_expiry_interval": 0})


def expires(cluster, on, client, name):
    client.disconnect(props={"session_expiry_interval": 1})


def begins_anew(cluster, on, client, name):
    on(1, client.client_id, clean=True).disconnect()


def unsubscribes(cluster, on, client, name):
    client.unsubscribe(f"$share/group/{name}/#")


STAY = (disconnects, is_cut, dies_with_its_node)
GO = (ends_its_session, expires, begins_anew)


@pytest.mark.parametrize("leaves", [*STAY, *GO, unsubscribes], ids=lambda it: it.__name__)
def test_what_a_member_leaves_goes_to_another(cluster, on, name, leaves):
    leaver = member(on, 2, f"{name}-leaver", name, SLOW)
    feed(on(1, f"{name}-publisher"), name, COUNT)
    had = [leaver.receive(ack_it=False) for _ in range(WINDOW)]
    assert [got.payload for got in had] == numbers(WINDOW)
    begun = {got.payload for got in had if got.qos == 2}
    # The rest is still sent to who has unsubscribed.
    sent = {got.payload for got in had} if leaves is unsubscribes else begun
    heir = member(on, 3, f"{name}-heir", name)
    leaves(cluster, on, leaver, name)
    expected = set(numbers(COUNT)) - sent
    got = payloads(heir, len(expected))
    assert set(got) == expected
    later = [payload for payload in got if payload not in numbers(WINDOW)]
    assert later == numbers(WINDOW, COUNT), "in order"
    heir.nothing_more()
    if leaves in STAY:
        back = on(1, leaver.client_id, clean=False, props=LASTING)
        assert back.connack.session_present
        assert set(payloads(back, len(begun))) == begun
        back.nothing_more()


@pytest.mark.parametrize("leaves", [disconnects, is_cut, unsubscribes], ids=lambda it: it.__name__)
def test_what_a_member_without_a_session_leaves_goes_to_another(cluster, on, name, leaves):
    leaver = member(on, 2, f"{name}-leaver", name, {"receive_maximum": WINDOW})
    feed(on(1, f"{name}-publisher"), name, COUNT)
    had = [leaver.receive(ack_it=False) for _ in range(WINDOW)]
    begun = {got.payload for got in had if got.qos == 2}
    sent = {got.payload for got in had} if leaves is unsubscribes else begun
    heir = member(on, 3, f"{name}-heir", name, props=None)
    leaves(cluster, on, leaver, name)
    expected = set(numbers(COUNT)) - sent
    assert set(payloads(heir, len(expected))) == expected
    heir.nothing_more()


def test_what_one_leaves_waits_for_the_next_who_comes(cluster, on, name):
    """Nobody is connected when the member goes; another one comes before it returns."""
    heir = member(on, 1, f"{name}-heir", name)
    heir.disconnect()
    leaver = member(on, 2, f"{name}-leaver", name, SLOW)
    publisher = on(1, f"{name}-publisher")
    feed(publisher, name, COUNT)
    had = [leaver.receive(ack_it=False) for _ in range(WINDOW)]
    leaver.cut()
    begun = {got.payload for got in had if got.qos == 2}
    more = []

    def is_away():
        """One more is published until one waits for the group: nobody is there then."""
        more.append(b"more %d" % len(more))
        publisher.publish(f"{name}/t", more[-1], qos=1)
        return waiting(cluster)

    wait_until("it counts as away", is_away, every=0.3)
    heir = on(3, f"{name}-heir", clean=False, props=LASTING)
    expected = set(numbers(COUNT)) - begun | set(more)
    assert set(payloads(heir, len(expected))) == expected
    heir.nothing_more()


def test_what_was_on_its_way_to_a_dead_node_when_its_leader_died_waits(cluster, on, name):
    """Although the group has seen what came behind it from the same outbox."""
    filter = f"$share/group/{name}/#"
    group = group_of(filter, cluster.shards)
    keys = (f"{name}-{number}" for number in range(1000))
    leaver_id, publisher_id, other_id = islice(
        (key for key in keys if group_of(key, cluster.shards) == group), 3
    )
    leader, near, far = 1, 2, 3
    settle(cluster)
    code, said = cluster.operate("transfer", group, leader)
    assert code == 0, said
    leaver = on(near, leaver_id, props=LASTING | {"receive_maximum": 1})
    leaver.subscribe(filter, qos=2)
    other = on(near, other_id, props=LASTING)
    other.subscribe(f"other/{name}", qos=1)
    publisher = on(near, publisher_id, props=LASTING)
    for number in range(COUNT):
        publisher.publish(f"{name}/t", b"%d" % number, qos=2)
    assert leaver.receive(ack_it=False).payload == b"0"
    member(on, far, f"{name}-newcomer", name, props=None)
    cluster[far].process.send_signal(signal.SIGSTOP)
    leaver.disconnect()
    wait_until("it has gone to the newcomer", lambda: is_given(cluster[leader]))
    publisher.publish(f"other/{name}", b"behind it", qos=2)
    assert other.receive().payload == b"behind it"
    cluster[leader].kill()
    cluster[far].kill()
    cluster[far].start()
    cluster[leader].start()
    cluster.wait_serving()
    back = on(near, leaver_id, clean=False, props=LASTING)
    assert sorted(payloads(back, COUNT)) == sorted(numbers(COUNT))
    back.nothing_more()


def is_given(node):
    """Something that waited for a shared subscription stays on its way to somebody."""
    for _ in range(10):
        if node.metrics()["outbox_messages"] == 0:
            return False
        time.sleep(0.1)
    return True


@pytest.fixture
def cluster(request, tmp_path):
    """Three nodes whose sessions may have as many messages as the test says."""
    cluster = SkeinCluster(tmp_path / "cluster")
    if marker := request.node.get_closest_marker("queue_messages"):
        environment = {"SKEIN__LIMITS__SESSION_QUEUE_MESSAGES": str(marker.args[0])}
        for node in cluster.nodes.values():
            node.environment = lambda: environment
    yield cluster.start()
    cluster.stop()


@pytest.mark.queue_messages(20)
def test_a_member_whose_queue_is_full_leaves_the_rest_to_others(cluster, on, name):
    stuck = member(on, 2, f"{name}-stuck", name, SLOW)
    other = member(on, 3, f"{name}-other", name)
    publisher = on(1, f"{name}-publisher")
    got = set()
    for number in range(2 * COUNT):
        publisher.publish(f"{name}/t", b"%d" % number, qos=1)
        while len(got) < number + 1 - 20:
            got.add(other.receive(timeout=20).payload)
    had = [stuck.receive(ack_it=False) for _ in range(WINDOW)]
    stuck.disconnect()
    while len(got) < 2 * COUNT:
        got.add(other.receive(timeout=20).payload)
    assert got == set(numbers(2 * COUNT)) and {it.payload for it in had} < got
    wait_until("the queues are empty", lambda: queues_are_empty(cluster))
    other.nothing_more()


@pytest.mark.queue_messages(20)
def test_what_waits_is_bounded_and_what_was_taken_before_stays(cluster, on, name):
    members_away(cluster, on, name, 2)
    publisher = on(1, f"{name}-publisher")
    for number in range(COUNT):
        publisher.publish(f"{name}/t", b"%d" % number, qos=1)
    back = on(3, f"{name}-2", clean=False, props=LASTING)
    assert payloads(back, 20) == numbers(20)
    wait_until("the queues are empty", lambda: queues_are_empty(cluster))
    back.nothing_more()
