"""Nodes come and go while a cluster runs, and one that has lost its memory does not vote."""

import contextlib
import shutil
import socket
import subprocess
import threading

import botocore.exceptions
import pytest

import rawmqtt as m
from brokers import ClusterNode, SkeinCluster, free_offset, free_port, is_settled, settle, skein_binary, start_in_vain, wait_until
from parties import LASTING

pytestmark = pytest.mark.skein


def voters(standing):
    return {node for group in standing["groups"].values() for node in group["voters"]}


def add(cluster, number, knows=1, by=1):
    node = cluster.joining(number, knows).start()
    code, said = cluster.operate("add", number, "127.0.0.1:%d" % node.port("peer"), by=by)
    assert code == 0, f"{said}\n{node.tail()}"
    wait_until("it serves", node.is_serving, 20)
    return node


def test_a_node_is_added_and_serves_what_was_there_before(cluster, on, name):
    away = on(1, name, props=LASTING)
    away.subscribe(f"{name}/#", qos=1)
    away.disconnect()
    on(2, f"{name}-publisher").publish(f"{name}/a", b"before", qos=1)

    node = cluster.joining(4).start()
    # Nobody knows it yet, so it serves nobody.
    said = lambda: node.get("/readyz")[1]
    wait_until("it says so", lambda: said().startswith("joining") and "`skein cluster add` makes" in said(), 10)
    with pytest.raises((OSError, m.Closed)):
        m.Client(node.plain, 5).connect(name)
    code, said = cluster.operate("add", 4, "127.0.0.1:%d" % node.port("peer"), by=2)
    assert code == 0 and "node 4 is joining" in said and "node 4 takes part" in said, said
    wait_until("it serves", node.is_serving, 20)

    back = on(4, name, clean=False, props=LASTING)
    assert back.connack.session_present
    assert back.receive().payload == b"before"
    on(4, f"{name}-other").publish(f"{name}/b", b"after", qos=1)
    assert back.receive().payload == b"after"
    standing = settle(cluster)
    assert voters(standing) == {1, 2, 3, 4}
    for group in standing["groups"].values():
        assert len(group["voters"]) == 3 and len(group["learners"]) == 1
    # It is one of them also after it was killed.
    node.kill()
    node.start()
    wait_until("it serves again", node.is_serving, 20)


def leader_of_all(cluster):
    """Who decides about members."""
    return wait_until("group 0 has a leader", lambda: cluster.standing()["groups"]["0"]["leader"])


def test_a_wrong_address_is_corrected_by_a_node_that_knows_only_one_other(cluster):
    """Nobody can dial it where it was said to be, and the one that it dials is not the one that has to send it everything."""
    settle(cluster)
    knows = next(node for node in (1, 2, 3) if node != leader_of_all(cluster))
    wrong = f"127.0.0.1:{free_port()}"
    node = cluster.joining(4, knows)
    code, said = cluster.operate("add", 4, wrong, "--timeout", 1)
    assert code == 1 and "not linked yet" in said and wrong in said and "cannot connect" in said, said
    code, said = cluster.operate("status")
    assert code == 1 and "node 4 is not linked" in said and "cannot connect" in said, said
    node.start()
    wait_until("it serves", node.is_serving, 20)
    right = "127.0.0.1:%d" % node.port("peer")
    wait_until("its address is known", lambda: settle(cluster)["members"]["4"]["address"] == right, 20)


class Door:
    """What a node dials instead of another one, until it is shut."""

    def __init__(self, address):
        self.address, self.sockets = address, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        try:
            while True:
                near = self.listener.accept()[0]
                far = socket.create_connection(self.address)
                self.sockets += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self.pass_on, args=(one, other), daemon=True).start()
        except OSError:
            pass

    def pass_on(self, one, other):
        try:
            while said := one.recv(1 << 16):
                other.sendall(said)
        except OSError:
            pass

    def shut(self):
        # Whoever waits on one of them hears of it.
        for one in [self.listener, *self.sockets]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


def test_a_node_that_hears_the_others_and_cannot_reach_them_is_not_ready(tmp_path):
    """As behind a firewall that lets connections in and none out."""
    cluster = SkeinCluster(tmp_path / "cluster")
    doors = {other: Door(("127.0.0.1", cluster[other].port("peer"))) for other in (1, 2)}
    # Nobody says where it is, so each dials what it was told.
    for number, node in cluster.nodes.items():
        node.configure()
        where = node.folder / "skein.toml"
        text = where.read_text().split("[[cluster.peers]]")[0]
        text = text.replace('listen = "127.0.0.1:', 'founders = [1, 2, 3]\nlisten = "0.0.0.0:')
        for other in {1, 2, 3} - {number}:
            port = doors[other].port if number == 3 else cluster[other].port("peer")
            text += f'[[cluster.peers]]\nnode = {other}\naddress = "127.0.0.1:{port}"\n'
        where.write_text(text)
        node.start()
    try:
        cluster.wait_serving()
        settle(cluster)
        for door in doors.values():
            door.shut()
        said = lambda: cluster[3].get("/readyz")
        wait_until("it is not ready", lambda: said()[0] == 503, 20)
        whole = lambda: "cannot be reached from here" in said()[1] and "cannot connect" in said()[1]
        wait_until("it says why", whole, 10)
        assert cluster[1].is_serving() and cluster[2].is_serving()
    finally:
        cluster.stop()


def test_a_number_is_taken_again_by_a_node_that_is_started_before_it_is_added(cluster):
    settle(cluster)
    code, said = cluster.operate("remove", 3)
    assert code == 0, said
    wait_until("it stops", lambda: not cluster[3].alive(), 20)
    shutil.rmtree(cluster[3].data)
    cluster[3].joins = 1
    cluster[3].configure()
    cluster[3].start()
    wait_until("it says so", lambda: "`skein cluster add` makes" in cluster[3].get("/readyz")[1], 10)
    code, said = cluster.operate("add", 3, "127.0.0.1:%d" % cluster[3].port("peer"))
    assert code == 0, said
    wait_until("it serves", cluster[3].is_serving, 20)


def test_an_election_does_not_end_what_an_operator_wants(cluster):
    settle(cluster)
    leader = leader_of_all(cluster)
    other, asked = [node for node in (1, 2, 3) if node != leader]
    cluster[leader].kill()
    code, said = cluster.operate("drain", other, by=asked)
    assert code == 0 and f"node {other} is drained" in said and "too few" not in said, said
    code, said = cluster.operate("drain", leader, by=asked)
    assert code == 1 and f"node {leader} does not answer" in said, said
    cluster[other].kill()
    code, said = cluster.operate("drain", other, "--undo", by=asked)
    assert code == 1 and "too few of its 3 voters are up" in said and "skein cluster recover" in said, said


def test_a_node_that_never_came_is_removed_at_once(cluster):
    """It was added and has not joined: it leaves without deciding about anything, and nobody waits for it."""
    free = f"127.0.0.1:{free_port()}"
    code, said = cluster.operate("add", 4, f"127.0.0.1:{cluster[2].port('peer')}")
    assert code == 1 and "is the address of node 2" in said, said
    code, said = cluster.operate("add", 4, free, "--timeout", 0)
    assert code == 1 and "node 4 is joining" in said, said
    code, said = cluster.operate("add", 4, "127.0.0.1:1")
    assert code == 1 and f"already a member, joining, at {free}" in said and "skein cluster remove 4" in said, said
    code, said = cluster.operate("remove", 4)
    assert code == 0 and "node 4 is removed" in said, said
    assert voters(settle(cluster)) == {1, 2, 3}


def test_a_node_that_has_just_come_is_removed_and_serves_nobody(cluster):
    node = cluster.joining(4)
    code, said = cluster.operate("add", 4, "127.0.0.1:%d" % node.port("peer"), "--timeout", 0)
    assert code == 1, said
    code, said = cluster.operate("remove", 4)
    assert code == 0, said
    start_in_vain(node)
    assert "serving" not in node.log.read_text()
    assert voters(settle(cluster)) == {1, 2, 3}


def test_a_live_node_is_not_replaced(cluster):
    code, said = cluster.operate("replace", 3)
    assert code == 1 and "node 3 is alive" in said and "--dead" not in said, said


def test_a_node_that_moves_is_followed(cluster, on, name):
    node = add(cluster, 4)
    settle(cluster)
    node.stop()
    text = (node.folder / "skein.toml").read_text()
    old, new = node.port("peer"), node.port("wss")
    (node.folder / "skein.toml").write_text(text.replace(f":{old}", f":{new}"))
    node.start()
    wait_until("it serves", node.is_serving, 20)
    moved = lambda: settle(cluster)["members"]["4"]["address"].endswith(f":{new}")
    wait_until("its address is known", moved, 20)
    # Also by those who are started later and know it from the members alone.
    cluster[2].kill()
    cluster[2].start()
    wait_until("it serves", cluster[2].is_serving, 20)
    settle(cluster, by=2)


def test_all_nodes_have_moved_while_they_were_stopped(cluster):
    """What the members say of them leads nowhere, and the configuration is right."""
    settle(cluster)
    for node in cluster.nodes.values():
        node.kill()
    for node in cluster.nodes.values():
        node.offset = free_offset([other.offset for other in cluster.nodes.values()])
    for node in cluster.nodes.values():
        node.configure()
    for node in cluster.nodes.values():
        node.start()
    cluster.wait_serving(30)
    told = lambda: {number: node["address"] for number, node in settle(cluster)["members"].items()}
    are = {str(node.node): f"127.0.0.1:{node.port('peer')}" for node in cluster.nodes.values()}
    wait_until("all know where they are", lambda: told() == are, 20)


def do_not_say_where(node):
    config, port = node.folder / "skein.toml", node.port("peer")
    own = f'[[cluster.peers]]\nnode = {node.node}\naddress = "127.0.0.1:{port}"\n'
    text = config.read_text()
    assert own in text
    config.write_text(text.replace(own, "").replace(f'listen = "127.0.0.1:{port}"', f'listen = "0.0.0.0:{port}"'))


def test_nodes_that_do_not_say_where_they_are_wait_for_nobody_when_they_come_back(tmp_path):
    cluster = SkeinCluster(tmp_path)
    try:
        for node in cluster.nodes.values():
            node.configure()
            do_not_say_where(node)
        for moved in (False, True):
            if moved:
                # The members go on saying that they are where they were: nobody tells them.
                for node in cluster.nodes.values():
                    node.kill()
                    node.offset = free_offset([other.offset for other in cluster.nodes.values()])
                for node in cluster.nodes.values():
                    node.configure()
                    do_not_say_where(node)
            for node in cluster.nodes.values():
                node.start()
            cluster.wait_serving(40)
            settle(cluster)
            for node in cluster.nodes.values():
                node.kill()
            for node in cluster.nodes.values():
                node.start()
            # Later lives are let in without a sign after twenty seconds.
            cluster.wait_serving(16)
            cluster[3].kill()
            cluster[3].start()
            wait_until("it serves", cluster[3].is_serving, 16)
    finally:
        cluster.stop()


def test_a_node_that_is_not_where_it_says_is_named_and_in_nobodys_way(tmp_path):
    cluster = SkeinCluster(tmp_path)
    wrong = f"127.0.0.1:{free_port()}"
    for node in cluster.nodes.values():
        node.configure()
    config = cluster[3].folder / "skein.toml"
    config.write_text(config.read_text().replace("[cluster]\n", f'[cluster]\naddress = "{wrong}"\n'))
    try:
        for node in cluster.nodes.values():
            node.start()
        cluster.wait_serving(40)
        right = "127.0.0.1:%d" % cluster[3].port("peer")
        for _ in range(2):
            cluster[3].kill()
            cluster[3].start()
            wait_until("it serves", cluster[3].is_serving, 16)
        said = f"node 3 is not where it says (found at {right}: {wrong}: cannot connect"
        wait_until("it is named", lambda: said in cluster.operate("status")[1], 20)
        # Whoever joins is told where it was found, and remembers that.
        node = add(cluster, 4)
        node.kill()
        node.start()
        wait_until("it serves", node.is_serving, 16)
        cluster[3].kill()
        cluster[3].start()
        wait_until("it serves", cluster[3].is_serving, 16)
        wait_until("all are linked", lambda: said in cluster.operate("status", by=4)[1], 20)
    finally:
        cluster.stop()


def test_a_live_node_is_drained_before_it_is_removed_and_refused_when_it_comes_back(cluster, on, name):
    add(cluster, 4)
    settle(cluster)
    subscriber = on(2, name, props=LASTING)
    subscriber.subscribe(f"{name}/#", qos=1)
    publisher = on(1, f"{name}-publisher")
    code, said = cluster.operate("remove", 2, by=3)
    assert code == 0 and "node 2 is removed" in said, said
    assert subscriber.expect(m.DISCONNECT).reason == 0x9C
    publisher.publish(f"{name}/a", b"meanwhile", qos=1)
    assert on(3, name, clean=False, props=LASTING).receive().payload == b"meanwhile"

    standing = settle(cluster, by=3)
    assert voters(standing) == {1, 3, 4}
    assert standing["members"]["2"]["status"] == "removed"
    wait_until("it stops", lambda: not cluster[2].alive(), 20)
    assert cluster[2].process.returncode != 0
    assert "was removed from the cluster" in cluster[2].tail()
    start_in_vain(cluster[2])
    assert "node 2 was removed from the cluster" in cluster[1].log.read_text()


def test_a_dead_node_is_removed_and_another_takes_its_place(cluster, on, name):
    publisher = on(1, f"{name}-publisher", props=LASTING)
    cluster[3].kill()
    code, said = cluster.operate("remove", 3)
    assert code == 1 and "--dead" in said, said
    node = add(cluster, 4)
    code, said = cluster.operate("remove", 3, "--dead")
    assert code == 0, said
    assert voters(settle(cluster)) == {1, 2, 4}
    # Any one of the new three may die.
    cluster[1].kill()
    wait_until("two of three serve", node.is_serving, 20)
    on(4, f"{name}-late").publish(f"{name}/x", b"1", qos=1)


def test_a_node_is_drained_and_put_back(cluster, on, name):
    client = on(3, name)
    code, said = cluster.operate("drain", 3)
    assert code == 0 and "node 3 is drained" in said, said
    assert client.expect(m.DISCONNECT).reason == 0x9C
    status, text = cluster[3].get("/readyz")
    assert (status, text) == (503, "draining\n")
    refused = m.Client(cluster[3].plain, 5)
    assert refused.connect(name, check=False).reason == 0x9C
    assert all(group["leader"] != 3 for group in cluster.standing()["groups"].values())
    assert cluster[3].alive()
    # It still decides with the others.
    cluster[2].kill()
    wait_until("two of three serve", cluster[1].is_serving, 20)
    cluster[2].start()
    wait_until("all are back", cluster[2].is_serving, 20)
    code, said = cluster.operate("drain", 3, "--undo")
    assert code == 0, said
    wait_until("it serves", cluster[3].is_serving, 10)
    on(3, name).ping()


def test_a_lead_goes_where_it_is_wanted_and_stays(cluster):
    settle(cluster)
    before = cluster.standing()["groups"]["1"]["leader"]
    wanted = 1 + before % 3
    code, said = cluster.operate("transfer", 1, wanted)
    assert code == 0 and f"node {wanted} leads group 1" in said, said
    cluster[wanted].kill()
    other = 1 + wanted % 3
    wait_until("another leads", lambda: leads(cluster, other) not in (None, wanted), 20)
    cluster[wanted].start()
    wait_until("it leads again", lambda: leads(cluster, other) == wanted, 30)


def leads(cluster, by, group="1"):
    standing = cluster.standing(by)
    return standing and standing["groups"][group]["leader"]


def test_a_list_goes_on_where_it_was_when_another_leads(cluster, name):
    """The token of a page is good on every node, whoever leads: of the registry, and of retained messages."""
    settle(cluster)
    names = [f"{name}-{number:02}" for number in range(12)]
    for each in names:
        cluster[1].boto("iot").create_thing(thingName=each)
        cluster[2].boto("iot-data").publish(topic=f"{name}/{each}", payload=b"x", qos=1, retain=True)

    def things(node, token):
        page = cluster[node].boto("iot").list_things(maxResults=3, **token)
        return [each["thingName"] for each in page["things"]], page.get("nextToken")

    def retained(node, token):
        page = cluster[node].boto("iot-data").list_retained_messages(maxResults=3, **token)
        return [each["topic"].rpartition("/")[2] for each in page["retainedTopics"]], page.get("nextToken")

    lists = {things: ([], {}), retained: ([], {})}

    def page(node):
        for list, (found, token) in lists.items():
            more, next = wait_until("a page", lambda: answered(list, node, token), 30)
            lists[list] = found + more, {"nextToken": next}

    page(1)
    before = leads(cluster, 1, "0")
    wanted = 1 + before % 3
    for group in cluster.standing()["groups"]:
        code, said = cluster.operate("transfer", group, wanted)
        assert code == 0, said
    other, last = (node for node in (1, 2, 3) if node != wanted)
    page(other)
    cluster[wanted].kill()
    wait_until("another leads", lambda: leads(cluster, other, "0") not in (None, wanted), 20)
    page(last)
    page(other)
    for found, _ in lists.values():
        assert found == names, found


def answered(list, node, token):
    try:
        return list(node, token)
    except botocore.exceptions.ClientError as error:
        # The group is about to have another leader.
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 503, error
        return None


@pytest.mark.parametrize("words, said", [
    (("remove", 9), "node 9 is no member of the cluster"),
    (("drain", 9), "node 9 is no member of the cluster"),
    (("add", 2, "127.0.0.1:7400"), "node 2 is already a member"),
    (("add", 4, "nowhere"), "is not `host:port`"),
    (("transfer", 99, 1), "there is no group 99"),
    (("transfer", 1, 9), "node 9 is no member of the cluster"),
    (("replace", 9), "node 9 is no member of the cluster"),
    (("remove", 2, "--dead"), "node 2 is alive"),
])
def test_what_makes_no_sense_is_refused_with_the_reason(cluster_for_errors, words, said):
    code, text = cluster_for_errors.operate(*words)
    assert code == 1 and said in text, text


@pytest.fixture(scope="module")
def cluster_for_errors(tmp_path_factory):
    cluster = SkeinCluster(tmp_path_factory.mktemp("errors") / "cluster").start()
    settle(cluster)
    yield cluster
    cluster.stop()


def test_without_a_quorum_members_cannot_be_changed(cluster):
    settle(cluster)
    cluster[2].kill()
    cluster[3].kill()
    wait_until("it notices", lambda: not cluster[1].is_serving(), 20)
    code, said = cluster.operate("add", 4, "127.0.0.1:7400")
    assert code == 1 and "quorum" in said, said
    code, said = cluster.operate("remove", 3, "--dead")
    assert code == 1 and "quorum" in said, said


def test_a_node_with_an_empty_disk_does_not_vote_and_is_replaced(cluster, on, name):
    settle(cluster)
    subscriber = on(1, name, props=LASTING)
    subscriber.subscribe(f"{name}/#", qos=1)
    subscriber.disconnect()
    on(1, f"{name}-publisher").publish(f"{name}/a", b"kept", qos=1)
    cluster[2].kill()
    lost = cluster[2].data
    kept = lost.with_name("kept")
    shutil.move(lost, kept)
    start_in_vain(cluster[2])
    assert "is known with another data folder" in cluster[2].tail()
    assert "skein cluster replace 2" in cluster[2].tail()
    # Nor does it when the other two need a third.
    cluster[3].kill()
    shutil.rmtree(lost)
    wait_until("it notices", lambda: not cluster[1].is_serving(), 20)
    start_in_vain(cluster[2])
    assert not cluster[1].is_serving()
    cluster[3].start()
    wait_until("two of three serve", cluster[1].is_serving, 20)

    shutil.rmtree(lost)
    cluster[2].joins = 3
    cluster[2].configure()
    # As long as nobody has replaced it, another empty folder is of no use, whatever it is started as.
    start_in_vain(cluster[2])
    code, said = cluster.operate("replace", 2, "--timeout", 5, by=3)
    assert code == 1 and "start node 2 with an empty data folder" in said and "it goes on" in said, said
    cluster[2].start()
    wait_until("it serves", cluster[2].is_serving, 30)
    assert voters(settle(cluster)) == {1, 2, 3}
    assert on(2, name, clean=False, props=LASTING).receive().payload == b"kept"
    # Its old folder is found again, too late.
    cluster[2].kill()
    shutil.rmtree(lost)
    shutil.move(kept, lost)
    cluster[2].joins = None
    cluster[2].configure()
    start_in_vain(cluster[2])
    assert "was removed from the cluster with this data folder" in cluster[2].tail()


def test_a_survivor_is_recovered_and_the_cluster_grows_again(cluster, on, name):
    settle(cluster)
    subscriber = on(1, name, props=LASTING)
    subscriber.subscribe(f"{name}/#", qos=1)
    subscriber.disconnect()
    # By the node that will be left: it answers what it has, another one what any two have.
    on(1, f"{name}-publisher").publish(f"{name}/a", b"kept", qos=1)
    for node in (1, 2, 3):
        cluster[node].kill()
    code, said = recover(cluster[1])
    assert code == 1 and "--accept-loss" in said, said
    cluster[1].start()
    wait_until("nothing was done", lambda: "leader" in cluster[1].get("/readyz")[1], 10)
    code, said = recover(cluster[1], "--accept-loss")
    assert code == 1 and "in use" in said, said
    assert recover(cluster[1]) == (code, said), "also who has not said that it accepts the loss"
    cluster[1].restart()
    wait_until("nothing was done", lambda: "leader" in cluster[1].get("/readyz")[1], 10)
    cluster[1].kill()
    code, said = recover(cluster[1], "--accept-loss")
    assert code == 0 and "node 1 is the only member" in said, said
    cluster[1].start()
    wait_until("it serves", cluster[1].is_serving, 20)
    back = on(1, name, clean=False, props=LASTING)
    assert back.connack.session_present and back.receive().payload == b"kept"

    # One of the old ones, started against all advice.
    start_in_vain(cluster[2])
    assert "was removed from the cluster" in cluster[2].log.read_text()
    for node in (2, 3):
        shutil.rmtree(cluster[node].data)
        cluster[node].joins = 1
        cluster[node].configure()
        words = ("add", node, "127.0.0.1:%d" % cluster[node].port("peer"), "--timeout", 1)
        code, said = cluster.operate(*words)
        assert code == 1 and "it goes on" in said, said
        cluster[node].start()
        wait_until("it serves", cluster[node].is_serving, 30)
    assert voters(settle(cluster)) == {1, 2, 3}
    on(1, f"{name}-publisher").publish(f"{name}/b", b"again", qos=1)
    cluster[1].restart()
    wait_until("it serves", cluster[1].is_serving, 20)
    assert on(3, name, clean=False, props=LASTING).connack.session_present


def recover(node, *words):
    words = [skein_binary(), "cluster", "recover", "--config", node.folder / "skein.toml", *words]
    done = subprocess.run([str(word) for word in words], capture_output=True, timeout=60)
    return done.returncode, (done.stdout + done.stderr).decode()
