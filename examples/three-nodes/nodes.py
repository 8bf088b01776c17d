"""Three nodes of one cluster on this machine: `skein serve`, each with a configuration of its own."""

import json
import os
import random
import socket
import subprocess
import time
import urllib.request

MQTT, ADMIN, PEER = 1883, 9464, 7400
POLICY = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}'


class Node:
    def __init__(self, cluster, number, offset):
        self.cluster, self.number, self.offset = cluster, number, offset
        self.folder = cluster.folder / f"node-{number}"
        self.mqtt = ("127.0.0.1", MQTT + offset)
        self.process = None

    def configure(self):
        keys = self.cluster.folder / "keys"
        lines = [
            f'data = "{self.folder}/data"', "shards = 4", "cores = 1",
            "[listeners.mqtt]", f'address = "127.0.0.1:{MQTT + self.offset}"', f"anonymous_policy = '{POLICY}'",
            "[listeners.admin]", f'address = "127.0.0.1:{ADMIN + self.offset}"',
            "[cluster]", 'id = "example"', f"node = {self.number}", f'listen = "127.0.0.1:{PEER + self.offset}"',
            f'certificate = "{keys}/node-{self.number}.pem"', f'private_key = "{keys}/node-{self.number}.key"',
            f'ca = "{keys}/ca.pem"', 'drain_delay = "200ms"',
        ]
        for node in self.cluster.nodes:
            lines += ["[[cluster.peers]]", f"node = {node.number}", f'address = "127.0.0.1:{PEER + node.offset}"']
        self.folder.mkdir(parents=True)
        (self.folder / "skein.toml").write_text("\n".join(lines) + "\n")

    def start(self):
        words = [self.cluster.binary, "serve", "--config", str(self.folder / "skein.toml")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)

    def kill(self):
        """As if somebody had pulled the plug, as far as a process can tell."""
        self.process.kill()
        self.process.wait()

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{ADMIN + self.offset}{path}", timeout=2) as answer:
            return answer.read()

    def is_ready(self):
        try:
            self.get("/readyz")
        except OSError:
            return False
        return True

    def leads(self):
        """How many groups it leads."""
        groups = json.loads(self.get("/admin/cluster"))["groups"].values()
        return sum(group["leader"] == self.number for group in groups)


class Cluster:
    def __init__(self, folder):
        self.folder = folder
        self.binary = os.environ.get("SKEIN_BIN")
        if not self.binary:
            raise SystemExit("SKEIN_BIN does not say where skein is; examples/three-nodes/run builds it")
        offsets = free_offsets(3)
        self.nodes = [Node(self, number, offset) for number, offset in enumerate(offsets, 1)]

    def __enter__(self):
        words = [self.binary, "cluster", "keys", "--out", str(self.folder / "keys"), "1", "2", "3"]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        for node in self.nodes:
            node.configure()
        for node in self.nodes:
            node.start()
        self.wait_ready()
        return self

    def __exit__(self, *_):
        for node in self.nodes:
            if node.process and node.process.poll() is None:
                node.kill()

    def wait_ready(self):
        deadline = time.monotonic() + 60
        for node in self.nodes:
            while not node.is_ready():
                if node.process.poll() is not None or time.monotonic() > deadline:
                    log = (node.folder / "log").read_text(errors="replace")
                    self.__exit__()
                    raise SystemExit(f"node {node.number} does not serve:\n{log[-4000:]}")
                time.sleep(0.05)


def free_offsets(count):
    found = []
    while len(found) < count:
        offset = random.randrange(8_000, 22_000)
        ports = [port + offset for port in (MQTT, ADMIN, PEER)]
        taken = {port + other for port in (MQTT, ADMIN, PEER) for other in found}
        if all(port not in taken and is_free(port) for port in ports):
            found.append(offset)
    return found


def is_free(port):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
