"""What is commonly done wrong is named, with what to do instead."""

import os
import socket
import subprocess
import urllib.error
import urllib.request

import pytest

from brokers import SkeinCluster, free_port, make_pki, skein_binary

pytestmark = pytest.mark.skein


def skein(*words, env={}):
    """(exit code, what it said)."""
    words = [str(word) for word in (skein_binary(), *words)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, env=os.environ | env)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def nodes(tmp_path):
    """A cluster whose nodes are configured and not started."""
    nodes = SkeinCluster(tmp_path / "cluster")
    for node in nodes.nodes.values():
        node.configure()
    yield nodes
    nodes.stop()


def edit(node, *changes):
    path = node.folder / "skein.toml"
    text = path.read_text()
    for old, new in changes:
        assert old in text, text
        text = text.replace(old, new)
    path.write_text(text)
    return path


@pytest.mark.parametrize("listener", ["plain", "admin", "http", "peer"])
def test_a_node_of_a_cluster_whose_port_is_taken_says_so(nodes, listener):
    node = nodes[1]
    with socket.create_server(node.address(listener)):
        code, said = skein("serve", "--config", node.folder / "skein.toml")
    assert code == 1, said
    key = {"plain": "listeners.mqtt", "peer": "cluster.listen"}.get(listener, f"listeners.{listener}")
    assert f"skein: {key}" in said and f"cannot listen on 127.0.0.1:{node.port(listener)}" in said, said
    assert "Address already in use" in said and "ss -ltnp" in said, said
    assert "panicked" not in said, said


def test_a_configuration_of_a_cluster_that_can_start_is_summed_up(nodes):
    code, said = skein("config", "check", "--config", nodes[2].folder / "skein.toml")
    assert code == 0 and "\nok\n" in said, said
    for line in (
        "cluster test, node 2", f"cluster.listen 127.0.0.1:{nodes[2].port('peer')}",
        f"cluster.peers 1 at 127.0.0.1:{nodes[1].port('peer')}, 2 at", f"cluster.certificate {nodes.keys}/node-2.pem",
        f"backups {nodes.folder}/backups", "public_host none", f"tls.issuer_certificate {nodes.keys}/ca.pem",
    ):
        assert line in " ".join(said.split()), said


@pytest.mark.parametrize("old, new, said", [
    ("/ca.pem\"\ndrain", "/no.pem\"\ndrain", "cluster.ca: cannot read {keys}/no.pem: No such file"),
    ("/ca.pem\"\ndrain", "/node-1.key\"\ndrain", "cluster.ca: {keys}/node-1.key cannot be used: it holds no certificate in PEM"),
    ("node-1.key", "node-2.key", "cluster.private_key: {keys}/node-2.key cannot be used: it does not belong to the certificate"),
    ("/node-1.", "/node-2.", "cluster.certificate: {keys}/node-2.pem cannot be used: it is not valid for the name node-1.skein"),
    ("/ca.pem\"\ndrain", "/../other/ca.pem\"\ndrain", "cluster.certificate: {keys}/node-1.pem cannot be used: the CA has not signed it"),
    ('id = "test"', 'id = "test"\nrestored_from = "1f2e"', "cluster.restored_from: names backup 1f2e, and"),
])
def test_a_configuration_of_a_cluster_that_cannot_start(nodes, old, new, said):
    skein("cluster", "keys", "--out", nodes.folder / "other", 1)
    path = edit(nodes[1], (old, new))
    code, found = skein("config", "check", path)
    said = said.format(keys=nodes.keys)
    assert code == 1 and found.count(said) == 1, found
    code, found = skein("serve", path)
    assert code == 1 and found.count(said) == 1, found


def test_founders_that_nobody_knows_the_way_to_are_warned_of(nodes):
    path = edit(nodes[1], ('id = "test"', 'id = "test"\nfounders = [1, 2, 9]'))
    code, said = skein("config", "check", path)
    assert code == 0 and "warning: cluster.founders: node 9 is none of the peers" in said, said


def test_an_address_that_cannot_be_had(nodes):
    # Of the documentation's own network: no machine has it.
    path = edit(nodes[1], (f'"127.0.0.1:{nodes[1].port("plain")}"', '"192.0.2.1:1883"'))
    code, said = skein("config", "check", path)
    assert code == 1 and "listeners.mqtt.address: cannot listen on 192.0.2.1:1883" in said, said


def test_places_where_no_backup_can_be(nodes, tmp_path):
    node = nodes[1]
    file = tmp_path / "file"
    file.write_text("")
    was = f'"{nodes.folder / "backups"}"'
    for place, why in ((file, "not a directory"), (file / "below", "not a directory"), (node.data / "backups", "is in the data folder")):
        path = edit(node, (was, f'"{place}"'))
        was = f'"{place}"'
        code, said = skein("config", "check", path)
        assert code == 0 and "warning: backup: none can be taken" in said and why in said, said


def test_a_key_with_a_passphrase_is_told_from_none(tmp_path):
    make_pki(tmp_path / "pki")
    for options in (["pkcs8", "-topk8"], ["ec", "-aes128"]):
        words = ["openssl", *options, "-in", tmp_path / "pki/server.key", "-out", tmp_path / "server.key", "-passout", "pass:secret"]
        subprocess.run([str(word) for word in words], check=True, capture_output=True)
        path = tmp_path / "skein.toml"
        path.write_text(
            f'data = "{tmp_path}/data"\n[tls]\ncertificate = "pki/server.pem"\nprivate_key = "server.key"\n'
            'issuer_certificate = "pki/server.pem"\nissuer_private_key = "server.key"\n'
        )
        code, said = skein("config", "check", path)
        assert code == 1, said
        for key in ("tls.private_key", "tls.issuer_private_key"):
            assert f"{key}: the private key in {tmp_path}/server.key has a passphrase" in said, said
        assert "openssl pkey -in" in said


def test_the_admin_listener_is_not_just_any(broker):
    host, port = broker.address("admin")
    for admin, why in (
        (f"http://{host}:{port}", "is not HOST:PORT, without http://"),
        ("localhost", "is not HOST:PORT, without http://"),
        ("%s:%d" % broker.address("tls"), "is it the admin listener?"),
        ("%s:%d" % broker.plain, "is it the admin listener?"),
        ("%s:%d" % broker.address("http"), "is it the admin listener?"),
        (f"{host}:{free_port()}", "cannot ask the node at"),
    ):
        code, said = skein("cluster", "status", "--admin", admin)
        assert code == 1 and why in said, f"{admin}: {said}"


def test_a_node_alone_is_no_cluster(broker):
    code, said = skein("cluster", "drain", 1, "--admin", "%s:%d" % broker.address("admin"))
    assert code == 1 and "this node is alone: its configuration has no [cluster]" in said, said
    code, said = skein("cluster", "status", "--admin", "%s:%d" % broker.address("admin"))
    assert code == 0 and said.endswith("all is well\n"), said


def test_a_log_filter_that_is_not_there_is_refused(broker):
    url = "http://%s:%d/admin/log" % broker.address("admin")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(url, method="PUT", data=b""))
    assert refused.value.code == 400 and b"the body is empty" in refused.value.read()


def test_what_has_not_happened_yet_has_a_metric(broker):
    assert broker.metrics()["http_connections_refused_total"] == 0


def test_skein_dev_says_what_it_ignores(tmp_path):
    data = tmp_path / "data"
    data.write_text("")
    code, said = skein("dev", "--data", data, env={"SKEIN__SHARDS": "4"})
    assert code == 1 and "`skein dev` reads no configuration: SKEIN__SHARDS has no effect" in said, said


def test_a_mistyped_access_key_is_not_shown(tmp_path):
    path = tmp_path / "skein.toml"
    path.write_text(f'data = "{tmp_path}/data"\n')
    mistyped = {"SKEIN__ACCESS_KEYS": '[{ id = "AKIA1234", secret = "hidden-hidden-hidden" }'}
    for words in (("config", "check", path), ("serve", path)):
        code, said = skein(*words, env=mistyped)
        assert code == 1 and "hidden" not in said, said
        assert 'SKEIN__ACCESS_KEYS: character' in said and 'it is TOML: [{ id = "…", secret = "…" }]' in said, said


def test_folders_of_dev_and_of_production_are_told_apart(tmp_path):
    """What `skein dev` registers may do everything."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (data / "shards").write_text("16")
    own_key = data / "pki" / "ca.key"
    for there_are_own_keys in (False, True):
        if there_are_own_keys:
            own_key.parent.mkdir()
            own_key.write_text("its own")
        code, said = skein("dev", "--data", data)
        assert code == 1 and "`skein dev` has not made it" in said, said
        assert sorted(file.name for file in data.iterdir()) == ["pki", "shards"][not there_are_own_keys:]
    (data / "shards").unlink()
    code, said = skein("dev", "--data", data)
    assert code == 1 and "use another --data" in said, said
    (data / "shards").write_text("16")
    assert own_key.read_text() == "its own"
    path = tmp_path / "skein.toml"
    path.write_text(f'data = "{data}"\n')
    code, said = skein("config", "check", path)
    assert code == 0 and "skein dev" not in said, said
    (data / "pki" / "device.key").write_text("")
    code, said = skein("config", "check", path)
    assert code == 0 and "`skein dev` has made" in said, said
