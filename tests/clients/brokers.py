"""Starts and stops the broker under test: `skein dev`, or mosquitto to check the tests themselves."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
PORTS = dict(plain=1883, tls=8883, ws=8083, wss=8443, http=8080, admin=9464, peer=7400)
REGION = "us-east-1"
ACCOUNT = "000000000000"


def skein_binary():
    """The binary to test: SKEIN_BIN, or what cargo built last."""
    if path := os.environ.get("SKEIN_BIN"):
        return Path(path)
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPO / "target"))
    built = [target / profile / "skein" for profile in ("release", "debug")]
    built = [path for path in built if path.is_file()]
    if not built:
        raise FileNotFoundError(f"no skein in {target}: run `cargo build --release`, or set SKEIN_BIN")
    return max(built, key=lambda path: path.stat().st_mtime)


def own_ports():
    """The ports that this process may use: below those of outgoing connections, and none that another process of
    the same test run has, for two would find the same one free."""
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first, end = 3_000, 32_000
    share = (end - first) // count
    return range(first + number * share, first + (number + 1) * share)


def free_offset(taken=()):
    """A port offset at which nobody listens, nor will at these."""
    taken = {port + other for port in PORTS.values() for other in taken}
    own = own_ports()
    for _ in range(200):
        offset = random.randrange(own.start - min(PORTS.values()), own.stop - max(PORTS.values()))
        ports = {port + offset for port in PORTS.values()}
        if not ports & taken and all(is_free(port) for port in ports):
            return offset
    raise RuntimeError("no free ports")


def free_port():
    """A port at which nobody listens."""
    for _ in range(200):
        port = random.choice(own_ports())
        if is_free(port):
            return port
    raise RuntimeError("no free port")


def is_free(port):
    with socket.socket() as probe:
        # A restart listens again on ports whose old connections linger.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def wait_until(what, condition, seconds=10.0, every=0.02):
    """Polls until the condition holds; gives its value."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(every)


class Broker:
    """A broker process, its endpoints and its files."""

    def __init__(self, folder, offset=None):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data = self.folder / "data"
        self.pki = self.data / "pki"
        self.log = self.folder / f"{self.kind}.log"
        self.offset = free_offset() if offset is None else offset
        self.process = None

    def address(self, listener):
        return ("127.0.0.1", PORTS[listener] + self.offset)

    def port(self, listener):
        return PORTS[listener] + self.offset

    plain = property(lambda self: self.address("plain"))
    ca = property(lambda self: str(self.pki / "ca.pem"))
    device = property(lambda self: (str(self.pki / "device.pem"), str(self.pki / "device.key")))

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env=os.environ | self.environment(),
            )
        try:
            wait_until(f"{self.kind} is ready", self.ready_or_ended, self.patience)
        except TimeoutError as error:
            self.stop()
            raise TimeoutError(f"{error}\n{self.tail()}") from None
        return self

    patience = 20.0

    def environment(self):
        return {}

    def ready_or_ended(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.kind} ended with {self.process.returncode}:\n{self.tail()}")
        return self.is_ready()

    def kill(self):
        """As a power cut would, as far as a process can tell."""
        self.process.kill()
        self.process.wait()

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def stop(self):
        """Ends the process; gives its exit code."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
                raise TimeoutError(f"{self.kind} did not end on SIGTERM\n{self.tail()}") from None
        return self.process.returncode

    def crash(self):
        """The hardest end that the broker promises to survive."""
        self.kill()

    def restart(self):
        self.crash()
        return self.start()

    def alive(self):
        return self.process.poll() is None

    def resident_bytes(self):
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("no VmRSS")

    def tail(self, count=60):
        lines = self.log.read_text(errors="replace").splitlines()[-count:]
        return "\n".join(f"  | {line}" for line in lines)


class Skein(Broker):
    kind = "skein"

    def __init__(self, folder, arguments=(), offset=None):
        self.arguments = list(arguments)
        super().__init__(folder, offset)

    def command(self):
        words = [skein_binary(), "dev", "--data", self.data, "--port-offset", self.offset]
        return [str(word) for word in words + self.arguments]

    def is_ready(self):
        status, _ = self.get("/readyz")
        return status == 200

    def get(self, path, timeout=5):
        """GET on the admin port: (status, text), or (None, why)."""
        url = "http://%s:%d%s" % (*self.address("admin"), path)
        try:
            with urllib.request.urlopen(url, timeout=timeout) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")
        except OSError as error:
            return None, str(error)

    def metrics(self):
        """Every sample: name with its labels -> value."""
        _, text = self.get("/metrics")
        lines = [line.rpartition(" ") for line in text.splitlines() if line and line[0] != "#"]
        return {name: float(value) for name, _, value in lines}

    @property
    def http_url(self):
        return "http://%s:%d" % self.address("http")

    def aws_environment(self):
        """What points AWS tools here: the files that the broker wrote, and nothing of the user's."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
        return clean | {
            "AWS_SHARED_CREDENTIALS_FILE": str(self.data / "aws" / "credentials"),
            "AWS_CONFIG_FILE": str(self.data / "aws" / "config"),
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_PAGER": "",
        }

    def boto(self, service, **config):
        """A boto3 client of `iot`, `iot-data`, …, unmodified but for the endpoint and what `config` says."""
        import botocore.config

        config = botocore.config.Config(retries={"total_max_attempts": 1}, **config)
        return self.boto_session().client(service, endpoint_url=self.http_url, config=config)

    def boto_session(self):
        """Reads the files that `skein dev` has written, as any AWS tool would."""
        import boto3
        import botocore.session

        session = botocore.session.Session()
        session.set_config_variable("credentials_file", str(self.data / "aws" / "credentials"))
        session.set_config_variable("config_file", str(self.data / "aws" / "config"))
        return boto3.session.Session(botocore_session=session)


class Serving(Skein):
    """`skein serve` with the certificates that `skein dev` has made."""

    def command(self):
        return [str(skein_binary()), "serve", "--config", str(self.folder / "skein.toml")]

    def environment(self):
        return {"SKEIN__LISTENERS__MQTTS__ADDRESS": f"127.0.0.1:{self.port('tls')}"}


def serving(folder, text, offset=None):
    """`skein serve` with just this configuration; `{data}` is its data folder."""
    broker = Serving(folder, offset=offset)
    (broker.folder / "skein.toml").write_text(text.replace("{data}", str(broker.data)))
    broker.environment = dict
    return broker


class Mosquitto(Broker):
    """The same endpoints served by mosquitto, as far as it has them."""

    kind = "mosquitto"

    def command(self):
        return ["mosquitto", "-c", str(self.folder / "mosquitto.conf")]

    def start(self):
        if not self.pki.exists():
            make_pki(self.pki)
        store = self.folder / "store"
        store.mkdir(exist_ok=True)
        shutil.chown(store, "mosquitto") if os.getuid() == 0 else None
        (self.folder / "mosquitto.conf").write_text(
            f"user root\nper_listener_settings false\nallow_anonymous true\n"
            f"persistence true\npersistence_location {store}/\n"
            f"max_queued_messages 100000\n"
            f"listener {self.port('plain')} 127.0.0.1\n"
            f"listener {self.port('tls')} 127.0.0.1\n"
            f"cafile {self.pki}/ca.pem\ncertfile {self.pki}/server.pem\n"
            f"keyfile {self.pki}/server.key\nrequire_certificate true\n"
            f"listener {self.port('ws')} 127.0.0.1\nprotocol websockets\n"
        )
        return super().start()

    def crash(self):
        """Mosquitto writes its state when it is asked to end, and not before."""
        self.stop()

    def is_ready(self):
        try:
            socket.create_connection(self.plain, 1).close()
        except OSError:
            return False
        return True


def make_pki(folder):
    """A CA, a server and a device, as `skein dev` makes them."""
    folder.mkdir(parents=True)

    def openssl(*words):
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *curve, "-subj", "/CN=test ca", "-days", 30,
            "-addext", "keyUsage=critical,keyCertSign,cRLSign",
            "-keyout", folder / "ca.key", "-out", folder / "ca.pem")
    for name, extension in (
        ("server", "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1"),
        ("device", "extendedKeyUsage=clientAuth"),
    ):
        request, extensions = folder / f"{name}.csr", folder / f"{name}.ext"
        openssl("req", *curve, "-subj", f"/CN={name}", "-keyout", folder / f"{name}.key",
                "-out", request)
        extensions.write_text(
            "basicConstraints=critical,CA:FALSE\nsubjectKeyIdentifier=hash\n"
            f"authorityKeyIdentifier=keyid\n{extension}\n"
        )
        openssl("x509", "-req", "-in", request, "-CA", folder / "ca.pem",
                "-CAkey", folder / "ca.key", "-CAcreateserial", "-days", 30,
                "-extfile", extensions, "-out", folder / f"{name}.pem")


def policy(*statements):
    """A policy document: each statement is (effect, actions, resources)."""
    arn = f"arn:aws:iot:{REGION}:{ACCOUNT}:"

    def resources(names):
        names = [names] if isinstance(names, str) else names
        return [name if name == "*" else arn + name for name in names]

    return json.dumps({
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": effect, "Action": actions, "Resource": resources(names)}
            for effect, actions, names in statements
        ],
    })


class ClusterNode(Skein):
    """A node of a cluster: `skein serve` with a configuration of its own."""

    # Everybody may do everything, but for one thing that a test needs nobody else may not.
    POLICY = (
        '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"},'
        '{"Effect":"Deny","Action":"iot:Receive","Resource":"arn:aws:iot:*:*:topic/*/not-for/${iot:ClientId}"}]}'
    )
    KEYS = ("AKIATESTTESTTEST", "testtesttesttesttest")

    def __init__(self, cluster, node, joins=None):
        self.cluster, self.node, self.joins = cluster, node, joins
        offset = free_offset([other.offset for other in cluster.nodes.values()])
        super().__init__(cluster.folder / f"node-{node}", offset=offset)

    def command(self):
        return [str(skein_binary()), "serve", "--config", str(self.folder / "skein.toml")]

    def is_ready(self):
        # Alone it never is.
        status, _ = self.get("/livez")
        return status == 200

    def is_serving(self):
        return super().is_ready()

    def boto_session(self):
        import boto3

        return boto3.session.Session(*self.KEYS, region_name="us-east-1")

    def configure(self):
        keys = self.cluster.keys
        lines = [
            f'data = "{self.data}"', f"shards = {self.cluster.shards}", "cores = 2",
            "[listeners.mqtt]", f'address = "127.0.0.1:{self.port("plain")}"',
            f"anonymous_policy = '{self.POLICY}'",
            "[listeners.http]", f'address = "127.0.0.1:{self.port("http")}"',
            "[listeners.admin]", f'address = "127.0.0.1:{self.port("admin")}"',
            "[tls]", f'issuer_certificate = "{keys}/ca.pem"', f'issuer_private_key = "{keys}/ca.key"',
            "[[access_keys]]", 'id = "%s"' % self.KEYS[0], 'secret = "%s"' % self.KEYS[1],
            "[log]", 'format = "human"', 'filter = "info"',
            *self.cluster.backup(self.node),
            "[cluster]", 'id = "test"', f"node = {self.node}",
            f'listen = "127.0.0.1:{self.port("peer")}"',
            f'certificate = "{keys}/node-{self.node}.pem"',
            f'private_key = "{keys}/node-{self.node}.key"', f'ca = "{keys}/ca.pem"',
            'drain_delay = "200ms"',
        ]
        if self.cluster.restored_from:
            lines += [f'restored_from = "{self.cluster.restored_from}"']
        known = [other for other in self.cluster.nodes.values() if not other.joins]
        if self.joins:
            # One that is there is enough.
            known = [self.cluster.nodes[self.joins], self]
            lines += ["join = true"]
        for other in known:
            lines += ["[[cluster.peers]]", f"node = {other.node}"]
            lines += [f'address = "127.0.0.1:{other.port("peer")}"']
        (self.folder / "skein.toml").write_text("\n".join(lines) + "\n")


class SecureNode(ClusterNode):
    """A node of a cluster that devices reach by TLS."""

    ca = property(lambda self: str(self.cluster.folder / "pki" / "ca.pem"))

    def configure(self):
        pki = self.cluster.folder / "pki"
        if not pki.exists():
            make_pki(pki)
        super().configure()
        config = self.folder / "skein.toml"
        tls = f'[tls]\ncertificate = "{pki}/server.pem"\nprivate_key = "{pki}/server.key"\n'
        for listener, port in (("mqtts", "tls"), ("https", "wss")):
            tls = f'[listeners.{listener}]\naddress = "127.0.0.1:{self.port(port)}"\n' + tls
        config.write_text(config.read_text().replace("[tls]\n", tls))


class SkeinCluster:
    """Nodes on this machine that know each other."""

    def __init__(self, folder, count=3, shards=4, restored_from=None, node=ClusterNode):
        self.folder, self.shards, self.restored_from = Path(folder), shards, restored_from
        self.backup = lambda node: ["[backup]", f'folder = "{self.folder / "backups"}"']
        self.folder.mkdir(parents=True, exist_ok=True)
        self.keys = self.folder / "keys"
        numbers = range(1, count + 1)
        self.nodes = {}
        for number in numbers:
            self.nodes[number] = node(self, number)
        self.make_keys(*numbers)

    def make_keys(self, *numbers):
        words = [skein_binary(), "cluster", "keys", "--out", self.keys, *numbers]
        subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL)

    def joining(self, number, knows=1):
        """A node more, configured and not started, which knows one of the others."""
        self.make_keys(number)
        self.nodes[number] = node = ClusterNode(self, number, joins=knows)
        node.configure()
        return node

    def operate(self, *words, by=1, timeout=60):
        """`skein cluster …`, asked of a node: (exit code, what it said)."""
        words = [skein_binary(), "cluster", *words, "--admin", "%s:%d" % self[by].address("admin")]
        done = subprocess.run([str(word) for word in words], capture_output=True, timeout=timeout)
        return done.returncode, (done.stdout + done.stderr).decode()

    def standing(self, by=1):
        """What a node says of its cluster; None while it does not answer."""
        status, text = self[by].get("/admin/cluster")
        return json.loads(text) if status == 200 else None

    def start(self):
        for node in self.nodes.values():
            node.configure()
            node.start()
        self.wait_serving()
        return self

    def wait_serving(self, seconds=20):
        for node in self.nodes.values():
            wait_until(f"node {node.node} serves", node.is_serving, seconds)

    def stop(self):
        for node in self.nodes.values():
            if node.process is not None and node.process.poll() is None:
                node.kill()

    def __getitem__(self, number):
        return self.nodes[number]


def group_of(key, shards):
    """As the broker places clients, topics and things."""
    value = 0xCBF29CE484222325
    for byte in key.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return 1 + (value ^ value >> 32) % shards


def leader_of(cluster, key):
    """The node that leads the group of a client, a topic or a thing."""
    group = str(group_of(key, cluster.shards))

    def ask():
        for node in cluster.nodes.values():
            status, text = node.get("/admin/cluster")
            if status == 200 and (leader := json.loads(text)["groups"][group]["leader"]):
                return leader
        return None

    return wait_until(f"group {group} has a leader", ask, 20)


def is_settled(cluster, by=1):
    """Whether every group has a leader and the members that it should have, and nothing is on its way."""
    code, _ = cluster.operate("status", by=by)
    return code == 0


def settle(cluster, by=1, seconds=40):
    wait_until("the cluster is settled", lambda: is_settled(cluster, by), seconds, every=0.3)
    return cluster.standing(by)


def start_in_vain(node):
    """Starts a node that finds out that it does not belong here."""
    try:
        node.start()
    except RuntimeError:
        pass
    wait_until("it stops", lambda: not node.alive(), 20)
    assert node.process.returncode == 1, node.tail()
