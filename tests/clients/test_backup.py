"""A backup of a running cluster: what was acknowledged before it is there in a cluster of another size."""

import json
import os
import shutil
import subprocess

import pytest

import rawmqtt as m
from brokers import SkeinCluster, skein_binary, wait_until
from parties import LASTING, Publisher, Subscriber
from store import Store

pytestmark = pytest.mark.skein


def run(*words, environment=None):
    words = [str(word) for word in (skein_binary(), "cluster", *words)]
    env = os.environ | (environment or {})
    return subprocess.run(words, capture_output=True, text=True, timeout=60, env=env)


def order(node):
    host, port = node.address("admin")
    return run("backup", "--admin", f"{host}:{port}")


def backup(node):
    done = order(node)
    assert done.returncode == 0, done.stderr
    place, _, rest = done.stdout.partition(": ")
    return place, rest.split()[-1]


def restored(folder, count, source, backup_id, backup=None):
    """A cluster that begins with a backup, not started yet."""
    cluster = SkeinCluster(folder, count, restored_from=backup_id)
    cluster.backup = backup or cluster.backup
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


@pytest.fixture
def store(tmp_path, request):
    store = Store(tmp_path / "store", tls=getattr(request, "param", False))
    yield store
    store.stop()


@pytest.fixture
def storing(store, tmp_path):
    """Three nodes: one that may use the store, one with a wrong secret, one with a bucket that is not there."""
    cluster = SkeinCluster(tmp_path / "cluster")
    good, wrong = store.credentials("good"), store.credentials("wrong", "wrong-secret")
    cluster.backup = {
        1: store.configuration(good), 2: store.configuration(wrong),
        3: store.configuration(good, "no-such-bucket"),
    }.get
    yield cluster.start()
    cluster.stop()


@pytest.mark.parametrize("store", [True], indirect=True, ids=["tls"])
def test_a_cluster_of_another_size_goes_on_from_a_backup_in_a_store(storing, store, name, tmp_path):
    with connect(storing[1], name, props=LASTING) as away:
        away.subscribe(f"{name}/#", qos=1)
    # More of one group than one part of an upload has.
    large = [b"%04d" % number + bytes(1 << 20) for number in range(20)]
    with connect(storing[2], f"{name}-publisher") as publisher:
        for payload in large:
            publisher.publish(f"{name}/large", payload, qos=1)
        publisher.publish("kept", b"kept", qos=1, retain=True)
    url, backup_id = backup(storing[1])
    assert url.startswith("s3://backups/of/skein/test-")
    files = [f"group-{number}.skein" for number in range(5)]
    keys = {url.removeprefix("s3://backups/") + f"/{file}" for file in ["backup.json", *files]}
    assert set(store.keys()) == keys
    tags = [store.s3.head_object(Bucket="backups", Key=key)["ETag"] for key in keys]
    assert any(tag.endswith('-2"') for tag in tags), "one has two parts"
    storing.stop()

    config = storing[1].folder / "skein.toml"
    assert run("check", url, "--config", config).returncode == 0
    for count in (1, 5):
        of_1 = lambda _: storing.backup(1)
        other = restored(tmp_path / f"of-{count}", count, url, backup_id, of_1).start()
        try:
            with connect(other[count], name, clean=False, props=LASTING) as back:
                assert back.connack.session_present
                assert [back.receive().payload for _ in large] == large
                back.subscribe("kept", qos=1)
                assert back.receive().payload == b"kept"
        finally:
            other.stop()


def test_what_is_wrong_in_a_store_is_found(storing, store):
    url, _ = backup(storing[1])
    folder = url.removeprefix("s3://backups/")
    config = storing[1].folder / "skein.toml"

    def refused(*whys):
        done = run("check", url, "--config", config)
        assert done.returncode == 1 and all(why in done.stderr for why in whys), done.stderr

    group, manifest = f"{folder}/group-2.skein", f"{folder}/backup.json"
    content, said = store.get(group), store.get(manifest)
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    for altered, why in (
        (bytes(flipped), "checksum"), (content[:-1], "cut off"), (b"", "cut off"), (content + b"x", "its end"),
        (store.get(f"{folder}/group-1.skein"), "of another group"),
    ):
        store.put(group, altered)
        refused(f"{url}: group-2.skein cannot be used", why)
    store.s3.delete_object(Bucket="backups", Key=group)
    refused("group-2.skein cannot be used", "there is no such object")
    store.put(group, content)
    store.put(manifest, said.replace(b'"outbox_end": 1', b'"outbox_end": 2', 1))
    refused("backup.json cannot be used", "checksum")
    store.s3.delete_object(Bucket="backups", Key=manifest)
    refused(f"{url} is no backup", "there is no such object")
    store.put(manifest, said)
    # Without a configuration the environment says where the store is; TLS is not left out for that.
    done = run("check", url, environment=store.environment())
    assert done.returncode == 1 and "has no TLS" in done.stderr, done.stderr
    done = run("check", url)
    assert done.returncode == 1 and "there are no credentials" in done.stderr, done.stderr
    assert run("check", url, "--config", config).returncode == 0


def test_a_backup_that_a_store_does_not_take_fails_and_harms_nothing(storing, store, name):
    def refused(node, place, *whys):
        done = order(storing[node])
        assert done.returncode == 1, done.stdout
        assert f"cannot write group-0.skein to s3://{place}/of/skein/test-" in done.stderr, done.stderr
        assert all(why in done.stderr for why in whys), done.stderr
        return done.stderr

    said = refused(2, "backups", "the store refuses: SignatureDoesNotMatch")
    said += refused(3, "no-such-bucket", "there is no such bucket")
    assert store.keys() == []
    done = run("check", "s3://backups/of/skein/none", "--config", storing[2].folder / "skein.toml")
    assert done.returncode == 1 and "SignatureDoesNotMatch" in done.stderr, done.stderr
    store.stop()
    said += refused(1, "backups", "the store cannot be asked", "Connection refused") + done.stderr
    assert storing[1].metrics()['backup_total{result="failure"}'] == 1
    # The nodes go on, and nobody hears of secrets.
    with connect(storing[1], name) as client:
        client.subscribe(name, qos=1)
        client.publish(name, b"on", qos=1)
        assert client.receive().payload == b"on"
    said += "".join(node.log.read_text() for node in storing.nodes.values())
    assert store.secret not in said and "wrong-secret" not in said and store.id not in said
