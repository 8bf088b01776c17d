"""Of processes with copies of one data folder at most one is let in."""

import shutil
import signal
import socket

import pytest

from brokers import ClusterNode, free_offset, is_settled, settle, start_in_vain, wait_until

pytestmark = pytest.mark.skein


def copy_of(cluster, number, name):
    """A node that comes with a copy of the data folder that another process has, from elsewhere."""
    first = cluster[number]
    cluster.nodes[number] = copy = ClusterNode(cluster, number)
    copy.folder = cluster.folder / name
    copy.data, copy.log = copy.folder / "data", copy.folder / "skein.log"
    copy.folder.mkdir()
    shutil.copytree(first.data, copy.data)
    copy.configure()
    cluster.nodes[number] = first
    return copy


def lives_behind_those_of(node):
    """As many lives as a folder remembers, all behind those of a node: lines of the file `incarnation`."""
    last = int((node.data / "incarnation").read_text().splitlines()[-1].split()[0])
    return "".join(f"{last + number}\n" for number in range(1, 65))


@pytest.fixture
def copies(cluster):
    """Makes copies, of which none goes on after the test."""
    made = []

    def copy(number, name):
        made.append(copy_of(cluster, number, name))
        return made[-1]

    yield copy
    for node in made:
        if node.process is not None and node.process.poll() is None:
            node.kill()


def offer_to_nodes_just_started(cluster, copy, right):
    """Nodes 1 and 2 hear of a copy before they hear of the right one, which goes on then. Gives back how
    often the copy is told something."""
    copy.start()
    said = lambda words: copy.get("/readyz")[1].count(words)
    wait_until("both others refuse it", lambda: said("is linked in its life before") == 2, 10)
    right.process.send_signal(signal.SIGSTOP)
    for node in (1, 2):
        cluster[node].kill()
    for node in (1, 2):
        cluster[node].start()
    wait_until("both still do", lambda: said("was in its life before") == 2, 10)
    right.process.send_signal(signal.SIGCONT)
    return said


def test_a_copy_of_a_data_folder_whose_node_has_gone_on_is_refused(cluster, copies):
    settle(cluster)
    cluster[3].stop()
    copy = copies(3, "copy")
    cluster[3].start()
    wait_until("it serves", cluster[3].is_serving, 20)
    # However often it is started, and whoever judges it was started again meanwhile.
    for restarted in (1, 2):
        start_in_vain(copy)
        said = copy.tail()
        assert "node 3 has gone on at" in said and "skein cluster replace 3" in said, said
        cluster[restarted].kill()
        cluster[restarted].start()
    assert cluster[3].alive()
    wait_until("all are well", lambda: is_settled(cluster), 20)


def test_a_data_folder_that_was_set_back_is_not_let_in(cluster, copies):
    """Nor does it become the right one by being started again while the other is down."""
    settle(cluster)
    cluster[3].stop()
    old = copies(3, "old")
    cluster[3].start()
    wait_until("it serves", cluster[3].is_serving, 20)
    cluster[3].kill()
    said = lambda: old.get("/readyz")[1]
    for _ in range(2):
        old.start()
        wait_until("both others say so", lambda: said().count("node 3 has gone on at") == 2, 20)
        assert not old.is_serving()
        old.kill()
        for node in (1, 2):
            cluster[node].kill()
            cluster[node].start()
    cluster[3].start()
    wait_until("the right one serves", cluster[3].is_serving, 20)
    wait_until("all are well", lambda: is_settled(cluster), 20)


def test_a_copy_of_a_data_folder_in_use_is_not_let_in_before_its_node(cluster, copies):
    """By nodes that have only just been started, and hear of the copy first."""
    settle(cluster)
    copy, first = copies(3, "copy"), cluster[3]
    said = offer_to_nodes_just_started(cluster, copy, first)
    wait_until("all are well", lambda: is_settled(cluster), 20)
    wait_until("both see it", lambda: said("is linked in its life before") == 2, 10)
    wait_until("the right one serves", first.is_serving, 20)
    assert not copy.is_serving()


def test_a_copy_is_not_let_in_because_its_node_has_moved(cluster, copies):
    """Whoever was just started dials where the configuration says that it is, and nobody listens there."""
    moved = cluster[3]
    moved.stop()
    moved.offset = free_offset([node.offset for node in cluster.nodes.values()])
    moved.configure()
    moved.start()
    wait_until("it serves", moved.is_serving, 20)
    settle(cluster)
    copy = copies(3, "copy")
    said = offer_to_nodes_just_started(cluster, copy, moved)
    wait_until("both see it", lambda: said("is linked in its life before") == 2, 20)
    assert moved.alive() and not copy.is_serving()


def test_a_node_is_let_in_by_one_that_was_away_while_it_could_not_start(cluster):
    settle(cluster)
    first, away = cluster[3], cluster[1]
    away.stop()
    first.stop()
    with socket.socket() as busy:
        busy.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        busy.bind(("127.0.0.1", first.port("plain")))
        busy.listen()
        lives = lambda: (first.data / "incarnation").read_text()
        # Each life is let in by node 2, and more of them than its folder remembers.
        (first.data / "incarnation").write_text(lives() + lives_behind_those_of(first))
        for _ in range(2):
            start_in_vain(first)
        assert "listeners.mqtt" in first.tail() and len(lives().splitlines()) == 64
    first.start()
    away.start()
    wait_until("all are well", lambda: is_settled(cluster), 30)


def test_a_copy_is_not_let_in_for_being_started_often(cluster, copies):
    settle(cluster)
    cluster[3].stop()
    copy = copies(3, "copy")
    cluster[3].start()
    wait_until("it serves", cluster[3].is_serving, 20)
    # So often that its folder does not remember any more what it was copied with.
    (copy.data / "incarnation").write_text(lives_behind_those_of(cluster[3]))
    start_in_vain(copy)
    assert "node 3 has gone on at" in copy.tail()
    assert cluster[3].is_serving()


def test_a_copy_of_a_data_folder_in_use_waits_until_its_node_has_ended(cluster, copies):
    settle(cluster)
    copy, first = copies(3, "copy"), cluster[3]
    copy.start()
    said = lambda: copy.get("/readyz")[1]
    wait_until("both others say so", lambda: said().count("is linked in its life before") == 2, 10)
    assert first.is_serving()
    wait_until("all are well", lambda: is_settled(cluster), 20)
    first.kill()
    wait_until("it takes over", copy.is_serving, 20)
    # Now the other folder is the older one.
    start_in_vain(first)
    assert "node 3 has gone on at" in first.tail() and copy.is_serving()
