"""What the client tests share: a broker, endpoints, names that no other test uses.

`SKEIN_TEST_BROKER=mosquitto` runs the MQTT tests against mosquitto instead, which checks the tests;
those that need more than MQTT are skipped then, and so are those marked with what mosquitto lacks.
"""

import itertools
import os
import ssl
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import brokers
import rawmqtt

PEER = os.environ.get("SKEIN_TEST_BROKER", "skein")


def pytest_addoption(parser):
    parser.addoption("--clauses", metavar="FILE", help="write which test covers which clause")
    parser.addoption("--tables", action="store_true", help="write the client tests into docs/conformance")
    parser.addoption("--seed", type=int, default=None, help="of the tests that draw lots")
    parser.addoption("--slow", action="store_true", help="also what waits for minutes")
    parser.addoption("--fleet", type=int, default=200, help="devices that provision themselves")
    parser.addoption("--rounds", type=int, default=None, help="of the tests that kill the broker")


def pytest_configure(config):
    for line in (
        "clause(*names): the normative statements of the standard that a test covers",
        "skein: needs more than an MQTT broker",
        "queue_messages(count): how many messages sessions may have",
        "not_mosquitto(why): what mosquitto 2.0.11 does otherwise",
    ):
        config.addinivalue_line("markers", line)


def pytest_collection_modifyitems(config, items):
    if path := config.getoption("--clauses"):
        write_clauses(path, items)
    if PEER != "mosquitto":
        return
    for item in items:
        if "skein" in item.keywords or "skein" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.skip(reason="needs skein"))
        elif marker := item.get_closest_marker("not_mosquitto"):
            item.add_marker(pytest.mark.skip(reason=f"mosquitto: {marker.args[0]}"))


def write_clauses(path, items):
    """One line per clause: the version, the clause, the test."""
    lines = {"\t".join(line) for item in items for line in clauses(item)}
    Path(path).write_text("\n".join(sorted(lines)) + "\n")


def clauses(item):
    """(version, clause, test) for everything that a test says it covers."""
    # A module of no version tests what both have.
    level = getattr(item.module, "VERSION", None)
    versions = [{4: "3.1.1", 5: "5"}[level]] if level else ["3.1.1", "5"]
    test = f"{item.path.stem}::{item.originalname}"
    for marker in item.iter_markers("clause"):
        for name in marker.args:
            only, colon, clause = name.rpartition(":")
            for version in [only] if colon else versions:
                yield version, clause, test


@pytest.hookimpl(tryfirst=True)
def pytest_itemcollected(item):
    """Kept apart, because -k takes tests out of the session's own list."""
    if not hasattr(item.session, "all_items"):
        item.session.all_items = []
    item.session.all_items.append(item)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows the end of the broker's log."""
    outcome = yield
    report = outcome.get_result()
    if report.when != "call" or not report.failed:
        return
    for value in getattr(item, "funcargs", {}).values():
        if isinstance(value, brokers.Broker):
            report.sections.append((f"{value.kind} log", value.tail()))
            break


def make_broker(folder, **more):
    if PEER == "mosquitto":
        return brokers.Mosquitto(folder)
    return brokers.Skein(folder, **more)


@pytest.fixture(scope="session")
def shared_broker(tmp_path_factory):
    broker = make_broker(tmp_path_factory.mktemp("broker")).start()
    yield broker
    broker.stop()


@pytest.fixture
def broker(shared_broker):
    """The broker that most tests share; it must have survived the test."""
    if not shared_broker.alive():
        shared_broker.start()
    yield shared_broker
    assert shared_broker.alive(), f"the broker died in this test\n{shared_broker.tail()}"


@pytest.fixture
def skein(broker):
    """The shared broker, for tests that need more than MQTT."""
    return broker


@pytest.fixture
def fresh_broker(tmp_path):
    """A broker for one test, to kill and restart."""
    broker = make_broker(tmp_path / "broker").start()
    yield broker
    broker.stop()


@pytest.fixture
def cluster(tmp_path):
    """Three nodes that know each other."""
    cluster = brokers.SkeinCluster(tmp_path / "cluster").start()
    yield cluster
    cluster.stop()


@pytest.fixture
def on(cluster):
    """A connection to a node of the cluster."""
    clients = []

    def on(node, client_id, version=5, **more):
        client = rawmqtt.Client(cluster[node].plain, version)
        clients.append(client)
        client.connack = client.connect(client_id, **more)
        return client

    yield on
    for client in clients:
        client.cut()


_numbers = itertools.count(1)


@pytest.fixture
def name(request):
    """A word that no other test uses, for client ids, topics, things and policies."""
    return f"t{next(_numbers)}-{os.getpid()}"


@pytest.fixture
def dial(broker):
    """Opens raw connections to the broker, and closes them after the test."""
    opened = []

    def dial(version=5, listener="plain", address=None, **more):
        wrap = None
        if listener in ("tls", "wss"):
            context = tls_context(broker, more.pop("device", broker.device), more.pop("alpn", None))
            asked = more.pop("server_name", "localhost")
            # The broker's certificate may be of another name than the one that is asked for.
            context.check_hostname = asked == "localhost"

            def wrap(raw):
                return context.wrap_socket(raw, server_hostname=asked)

        client = rawmqtt.Client(address or broker.address(listener), version, wrap=wrap, **more)
        opened.append(client)
        return client

    yield dial
    for client in opened:
        client.cut()


@pytest.fixture
def connected(request, dial, name):
    """Opens connections that have their CONNACK already, of the module's protocol version."""
    numbers = itertools.count(1)

    def connected(id=None, **fields):
        client = dial(getattr(request.module, "VERSION", 5))
        client.connack = client.connect(id or f"{name}-{next(numbers)}", **fields)
        return client

    return connected


def tls_context(broker, device=None, alpn=None):
    """Trusts the broker's CA, strictly, and shows a device certificate."""
    context = ssl.create_default_context(cafile=broker.ca)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    if device:
        context.load_cert_chain(*device)
    if alpn:
        context.set_alpn_protocols([alpn])
    return context


@pytest.fixture
def seed(request):
    """Of a test that draws lots; printed, so that a failure can be repeated with --seed."""
    value = request.config.getoption("--seed")
    value = int.from_bytes(os.urandom(4), "big") if value is None else value
    print(f"--seed {value}")
    return value
