"""Nodes that find each other by name. Each process has a hosts file of its own, in a mount namespace."""

import os
import subprocess

import pytest

import rawmqtt as m
from brokers import ClusterNode, SkeinCluster, free_port, wait_until

pytestmark = pytest.mark.skein
ALONE = ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "--map-root-user", "--mount"]


class NamedNode(ClusterNode):
    """A node that knows the others by a name only."""

    def __init__(self, cluster, node, joins=None):
        super().__init__(cluster, node, joins)
        self.host = f"127.0.1.{node}"

    def command(self):
        files = (self.cluster.hosts, "/etc/hosts"), (self.cluster.servers, "/etc/resolv.conf")
        within = " && ".join(f"mount --bind {own} {of_all}" for own, of_all in files) + ' && exec "$0" "$@"'
        return [*ALONE, "sh", "-c", within, *super().command()]

    def configure(self):
        super().configure()
        file = self.folder / "skein.toml"
        text, _, _ = file.read_text().partition("[[cluster.peers]]")
        text = text.replace(f'"127.0.0.1:{self.port("peer")}"', f'"{self.host}:{self.cluster.port}"')
        file.write_text(f'{text}dns = "{self.cluster.dns}:{self.cluster.port}"\nfounders = 3\n')

    def waits_for(self):
        return self.get("/readyz")[1]


class NamedCluster(SkeinCluster):
    def __init__(self, folder, dns, count=3):
        self.dns, self.port, self.hosts = dns, free_port(), folder / "hosts"
        super().__init__(folder / "nodes", count, node=NamedNode)
        # What the file does not know, nobody knows.
        self.servers = folder / "resolv.conf"
        self.servers.write_text("nameserver 127.0.1.53\n")
        self.resolve({})

    def resolve(self, names):
        """From now on these names lead to the hosts of these nodes."""
        lines = [f"{self[node].host} {name}" for name, nodes in names.items() for node in nodes]
        # In place: a process sees this very file.
        self.hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{line}\n" for line in lines))

    def is_well(self):
        return self.operate("status")[0] == 0


@pytest.fixture
def named(tmp_path):
    there = subprocess.run([*ALONE, "mount", "--bind", "/etc/hosts", "/etc/hosts"], capture_output=True)
    if there.returncode != 0:
        pytest.skip(f"no mount namespaces here: {there.stderr.decode().strip()}")
    started = []

    def named(dns, count=3):
        cluster = NamedCluster(tmp_path, dns, count)
        started.append(cluster)
        for node in cluster.nodes.values():
            node.configure()
        return cluster

    yield named
    for cluster in started:
        cluster.stop()


def exchange(cluster, name, *nodes):
    """What is published on one node arrives on another."""
    with m.Client(cluster[nodes[0]].plain, 5) as taker, m.Client(cluster[nodes[1]].plain, 5) as giver:
        taker.connect(f"{name}-taker")
        taker.subscribe(name, qos=1)
        giver.connect(f"{name}-giver")
        giver.publish(name, b"on", qos=1)
        assert taker.receive().payload == b"on"


def test_nodes_are_found_by_a_name_of_each(named, name):
    cluster = named("skein-{node}.skein.test", count=4)
    own = {f"skein-{node}.skein.test": [node] for node in cluster.nodes}
    for node in (1, 2):
        cluster[node].start()
    # No name is known yet.
    said = f"node 2 is not linked, skein-2.skein.test:{cluster.port}: cannot resolve its name"
    wait_until("it says what it waits for", lambda: said in cluster[1].waits_for())
    assert "groups have a leader" in cluster[1].waits_for()
    cluster.resolve(own)
    cluster[3].start()
    for node in (1, 2, 3):
        wait_until(f"node {node} serves", cluster[node].is_serving, 20)
    wait_until("the cluster is well", cluster.is_well)
    lines = cluster[1].log.read_text().splitlines()
    lines = [line for line in lines if "cannot resolve" in line and 'peer=2 purpose="raft"' in line]
    assert len(lines) == 1, lines

    # A pod that is somewhere else now.
    cluster[3].kill()
    wait_until("it is missed", lambda: not cluster.is_well())
    cluster[3].host = "127.0.1.33"
    cluster.resolve(own)
    cluster[3].configure()
    cluster[3].start()
    wait_until("it serves again", cluster[3].is_serving, 20)
    wait_until("the cluster is well again", cluster.is_well)
    exchange(cluster, name, 1, 3)

    # One that is none of the founders joins, with the same configuration.
    cluster[4].start()
    wait_until("it joins", lambda: cluster[4].waits_for().startswith("joining"))
    code, said = cluster.operate("add", "4", f"skein-4.skein.test:{cluster.port}")
    assert code == 0, said
    wait_until("it serves", cluster[4].is_serving, 20)
    wait_until("the cluster is well with it", cluster.is_well, 20)
    exchange(cluster, name, 4, 2)


def test_nodes_are_found_behind_a_name_of_all(named, name):
    cluster = named("skein.test")
    cluster.resolve({"skein.test": [1, 2]})
    for node in (1, 2):
        cluster[node].start()
    # A majority is there; that it is all of them is nowhere said.
    for node in (1, 2):
        wait_until(f"node {node} serves", cluster[node].is_serving, 20)
    members = cluster.standing()["members"]
    assert sorted(members) == ["1", "2", "3"]
    assert not cluster.is_well()

    cluster.resolve({"skein.test": [3, 1, 2]})
    cluster[3].start()
    cluster.wait_serving()
    wait_until("the cluster is well", cluster.is_well)
    cluster[2].kill()
    wait_until("it is missed", lambda: not cluster.is_well())
    cluster[2].host = "127.0.1.22"
    cluster.resolve({"skein.test": [3, 1, 2]})
    cluster[2].configure()
    cluster[2].start()
    wait_until("it serves again", cluster[2].is_serving, 20)
    wait_until("the cluster is well again", cluster.is_well)
    exchange(cluster, name, 2, 3)
