"""Behind a load balancer: its PROXY headers say who connects."""

import pytest

import brokers
import rawmqtt as m
from brokers import wait_until

pytestmark = pytest.mark.skein

HEADER = b"PROXY TCP4 203.0.113.77 192.0.2.1 4711 1883\r\n"


@pytest.fixture
def behind(tmp_path):
    """A node that believes this machine's PROXY headers."""
    offset = brokers.free_offset()
    broker = brokers.serving(
        tmp_path / "behind",
        f"""data = "{{data}}"
        shards = 1
        [listeners.mqtt]
        address = "127.0.0.1:{brokers.PORTS['plain'] + offset}"
        anonymous_policy = '{brokers.ClusterNode.POLICY}'
        proxy_from = ["127.0.0.1"]
        [listeners.admin]
        address = "127.0.0.1:{brokers.PORTS['admin'] + offset}"
        """,
        offset=offset,
    ).start()
    yield broker
    broker.stop()


def logged(node, *words):
    """The lines of its log that have all of some words."""
    return [line for line in node.log.read_text().splitlines() if all(word in line for word in words)]


def test_why_a_device_is_not_connected_is_told_with_its_own_address(behind):
    with m.Client(behind.plain, version=4) as client:
        client.send(HEADER + b"\0\0")
        client.closed()
    wait_until("it says so", lambda: logged(behind, "no connection", "203.0.113.77"))
    assert not logged(behind, "no connection", "127.0.0.1")
    with m.Client(behind.plain, version=4) as client:
        client.send(HEADER + b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01a")
        client.next()


def test_a_load_balancer_that_sends_no_header_is_told_of(behind):
    with m.Client(behind.plain, version=4) as client:
        client.send(b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01a")
        client.closed()
    wait_until("it says so", lambda: logged(behind, "INFO", "no connection", "proxy_from"))
    (line,) = logged(behind, "no connection")
    assert "127.0.0.1" in line and "PROXY header" in line
