"""A backup of a running cluster: what was acknowledged before it is there in a cluster of another size."""

import json
import shutil
import subprocess

import pytest

import rawmqtt as m
from brokers import SkeinCluster, skein_binary, wait_until
from parties import LASTING, Publisher, Subscriber

pytestmark = pytest.mark.skein


def run(*words):
    words = [str(word) for word in (skein_binary(), "cluster", *words)]
    return subprocess.run(words, capture_output=True, text=True, timeout=60)


def backup(node):
    host, port = node.address("admin")
    done = run("backup", "--admin", f"{host}:{port}")
    assert done.returncode == 0, done.stderr
    folder, _, rest = done.stdout.partition(": ")
    return folder, rest.split()[-1]


def restored(folder, count, source, backup_id):
    """A cluster that begins with a backup, not started yet."""
    cluster = SkeinCluster(folder, count, restored_from=backup_id)
    for node in cluster.nodes.values():
        node.configure()
        done = run("restore", "--config", node.folder / "skein.toml", source)
        assert done.returncode == 0, done.stderr
    return cluster


def connect(node, client_id, **more):
    client = m.Client(node.plain, 5)
    client.connack = client.connect(client_id, **more)
    return client


@pytest.mark.parametrize("count", [1, 5])
def test_a_cluster_of_another_size_goes_on_from_a_backup(cluster, on, name, tmp_path, count):
    away = on(1, name, props=LASTING)
    away.subscribe(f"{name}/#", qos=2)
    away.disconnect()
    publisher = on(2, f"{name}-publisher", props=LASTING)
    for number in range(40):
        publisher.publish(f"{name}/one", b"%d" % number, qos=1)
    publisher.publish("kept", b"kept", qos=1, retain=True)
    shadow = f"$aws/things/{name}/shadow"
    publisher.subscribe(f"{shadow}/+/accepted", qos=1)
    publisher.publish(f"{shadow}/update", b'{"state":{"desired":{"on":true}}}', qos=1)
    assert publisher.receive().topic == f"{shadow}/update/accepted"

    # The cluster works on while it is read.
    gatherer = on(1, f"{name}-gatherer", props=LASTING)
    gatherer.subscribe(f"{name}-busy/#", qos=2)
    gatherer.disconnect()
    busy = Publisher(cluster[3], f"{name}-busy", 0)
    thread = busy.again()
    wait_until("something is taken", lambda: len(busy.acknowledged[2]) > 100, 20)
    before = busy.acknowledged[1] | busy.acknowledged[2]
    folder, backup_id = backup(cluster[2])
    busy.finishing = True
    thread.join(30)
    assert busy.wrong is None, busy.wrong
    assert run("check", folder).returncode == 0
    cluster.stop()

    other = restored(tmp_path / "other", count, folder, backup_id).start()
    try:
        with connect(other[1], name, clean=False, props=LASTING) as back:
            assert back.connack.session_present
            seen = [back.receive().payload for _ in range(40)]
            assert seen == [b"%d" % number for number in range(40)]
        subscriber = Subscriber(other[count], f"{name}", f"{name}-busy/#")
        subscriber.client_id = f"{name}-gatherer"
        subscriber.start()
        wait_until("all is delivered", lambda: before <= set(subscriber.seen[busy.topic]), 30)
        for qos in (1, 2):
            seen = [number for number in subscriber.seen[busy.topic] if busy.qos(number) == qos]
            assert seen == sorted(set(seen)), f"QoS {qos}"
        with connect(other[count], f"{name}-reader") as reader:
            reader.subscribe("kept", qos=1)
            assert reader.receive().payload == b"kept"
            reader.subscribe(f"{shadow}/get/accepted", qos=1)
            reader.publish(f"{shadow}/get", b"", qos=1)
            document = json.loads(reader.receive().payload)
            assert document["state"]["desired"] == {"on": True} and document["version"] == 1
            reader.publish(f"{name}/new", b"new", qos=2)
        # A second start is as any other.
        other[1].kill()
        other[1].start()
        other.wait_serving()
        with connect(other[1], name, clean=False, props=LASTING) as back:
            assert back.receive().payload == b"new"
    finally:
        other.stop()


def test_nothing_is_restored_that_would_go_wrong(cluster, tmp_path):
    folder, backup_id = backup(cluster[1])
    other = SkeinCluster(tmp_path / "other", 1, restored_from=backup_id)
    node = other[1]
    node.configure()
    config = node.folder / "skein.toml"

    def refused(why, *words):
        done = run(*words)
        assert done.returncode == 1 and why in done.stderr, done.stderr

    # A founder that has forgotten everything does not start.
    with pytest.raises(RuntimeError, match="was not restored from it"):
        node.start()

    other.restored_from = None
    node.configure()
    refused(f'set restored_from = "{backup_id}"', "restore", "--config", config, folder)
    other.restored_from, other.shards = backup_id, 8
    node.configure()
    refused("set shards = 4", "restore", "--config", config, folder)
    other.shards = 4
    node.configure()
    damaged = tmp_path / "damaged"
    shutil.copytree(folder, damaged)
    file = damaged / "group-2.skein"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    refused("group-2.skein cannot be used", "check", damaged)
    refused("group-2.skein cannot be used", "restore", "--config", config, damaged)
    refused("is no backup", "check", tmp_path)
    assert run("restore", "--config", config, folder).returncode == 0
    refused("there is state of it already", "restore", "--config", config, folder)


def test_a_node_without_a_place_for_backups_says_so(broker):
    host, port = broker.address("admin")
    done = run("backup", "--admin", f"{host}:{port}")
    assert done.returncode == 1 and "backup.folder" in done.stderr
