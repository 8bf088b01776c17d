"""MQTT over QUIC, with a client that is none of ours: what TCP carries, QUIC carries, also when the client
changes its address."""

import socket
import ssl

import pytest

import rawmqtt as m
from brokers import serving, wait_until
from parties import LASTING
from quictunnel import QuicTunnel, Refused

pytestmark = pytest.mark.skein
VERSION = 5


class Over(m.Client):
    """An MQTT client on a tunnel."""

    def __init__(self, tunnel, version=5, timeout=10):
        super().__init__(None, version, timeout, link=tunnel.socket)
        self.tunnel = tunnel

    def cut(self):
        self.tunnel.kill()


@pytest.fixture
def over(skein):
    opened = []

    def over(client="", version=5, check=True, connect=True, certificate=True, **more):
        tunnel = QuicTunnel(skein.address("tls"), skein.ca, skein.device if certificate else None, **more)
        opened.append(Over(tunnel, version))
        if connect:
            opened[-1].connack = opened[-1].connect(client, check=check)
        return opened[-1]

    yield over
    for client in opened:
        client.cut()


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_publications_come_and_go(over, name, version, qos):
    taker, giver = over(f"{name}-taker", version), over(f"{name}-giver", version)
    taker.subscribe(f"{name}/#", qos=qos)
    for number in range(20):
        giver.publish(f"{name}/{number}", b"x" * number, qos=qos)
    got = [taker.receive() for _ in range(20)]
    assert [packet.topic for packet in got] == [f"{name}/{number}" for number in range(20)]
    assert all(packet.qos == qos for packet in got)
    taker.ping()


def test_large_packets_pass_in_both_directions(over, name):
    client = over(name)
    client.subscribe(name, qos=1)
    payload = bytes(range(256)) * 1024
    for _ in range(8):
        client.publish(name, payload, qos=1)
    for _ in range(8):
        assert client.receive().payload == payload


def test_quic_and_tcp_are_one_broker(over, skein, name):
    with m.Client(skein.plain) as other:
        other.connect(f"{name}-tcp")
        client = over(name)
        client.subscribe(f"{name}/#", qos=1)
        other.publish(f"{name}/a", b"over", qos=1)
        assert client.receive().payload == b"over"
        # The same client id elsewhere ends the connection here, and says why.
        with m.Client(skein.plain) as taker:
            taker.connect(name)
            client.closed()
            assert client.ended.reason == 0x8E


def test_a_client_is_followed_when_it_changes_its_address(over, name):
    """Each new port may belong to another core's socket."""
    client, other = over(name), over(f"{name}-other")
    client.subscribe(f"{name}/#", qos=1)
    for number in range(12):
        client.tunnel.migrate()
        client.publish(f"{name}/own", b"%d" % number, qos=1)
        assert client.receive().payload == b"%d" % number
        other.publish(f"{name}/other", b"%d" % number, qos=2)
        assert client.receive().payload == b"%d" % number
    client.ping()


def test_a_nat_that_forgets_is_followed_too(over, name):
    """The client does not know that its address is another one, and goes on under the same connection id."""
    client = over(name)
    for number in range(8):
        client.tunnel.migrate(forget=False)
        client.ping()


def test_a_session_outlives_its_connection(over, name):
    client = over(name, connect=False)
    client.connect(name, props=LASTING)
    client.subscribe(f"{name}/#", qos=1)
    client.disconnect()
    over(f"{name}-other").publish(f"{name}/a", b"kept", qos=1)
    back = over(connect=False)
    assert back.connect(name, clean=False, props=LASTING).session_present
    assert back.receive().payload == b"kept"


def test_disconnect_ends_the_connection(over, skein, name):
    client = over(name)
    client.disconnect()
    open_ = lambda: skein.metrics()['gateway_connections']
    before = open_()
    over(f"{name}-again").disconnect()
    wait_until("the place is free", lambda: open_() <= before)


def test_a_client_that_vanishes_ends_with_its_keep_alive(over, name):
    watcher = over(f"{name}-watcher")
    watcher.subscribe(f"{name}/will", qos=1)
    client = over(connect=False)
    client.connect(name, keep_alive=1, will=m.Will(f"{name}/will", b"gone"))
    client.tunnel.kill()
    assert watcher.receive(timeout=10).payload == b"gone"


def test_who_has_no_certificate_is_refused(over, name):
    client = over(name, certificate=False, check=False)
    assert client.connack.reason == 0x87


@pytest.mark.parametrize("wrong, why, remedy", [
    ("alpn", "peer doesn't support any known protocol", "the ALPN name of MQTT is mqtt"),
    ("ca", "received fatal alert", "does it trust the CA"),
])
def test_a_handshake_fails_when_sides_do_not_agree_and_the_log_says_why(over, skein, name, wrong, why, remedy):
    said = len(skein.log.read_bytes())
    if wrong == "alpn":
        with pytest.raises(Refused) as refused:
            over(name, alpn="h3")
        # The alert no_application_protocol [RFC 9001 section 8.1].
        assert refused.value.code == 0x178
    else:
        with pytest.raises((Refused, TimeoutError)):
            QuicTunnel(skein.address("tls"), None, skein.device, timeout=3)

    def told():
        lines = skein.log.read_bytes()[said:].decode().splitlines()
        return [line for line in lines if "listeners.quic" in line and why in line and remedy in line]

    wait_until("the log says why", told)


def test_what_is_no_quic_is_not_answered_and_harms_nobody(over, skein, name):
    client = over(name)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.connect(skein.address("tls"))
        for junk in (b"", b"\x00", b"\x40" * 9, b"\xc0" * 1200, b"\xff" * 60000, m.connect("x", version=5)):
            stranger.send(junk)
        stranger.settimeout(0.5)
        with pytest.raises((TimeoutError, ConnectionRefusedError)):
            while True:
                # A version negotiation or a reset, and neither is longer than what was sent.
                assert len(stranger.recv(65536)) < 1200
    client.ping()


def test_something_else_than_mqtt_ends_the_connection(over):
    client = over(connect=False)
    client.socket.sendall(b"GET / HTTP/1.1\r\n\r\n")
    client.closed()


def test_early_data_is_refused_unless_it_is_switched_on(over, name):
    """0-RTT: a client that was there before sends its CONNECT with the first datagram."""
    first = over(name)
    wait_until("there is a ticket", lambda: first.tunnel.tickets)
    ticket = first.tunnel.tickets[-1]
    first.disconnect()
    again = over(connect=False, ticket=ticket)
    assert again.tunnel.session_resumed and not again.tunnel.early_data_accepted
    again.connect(name)


def test_early_data_where_it_is_switched_on(skein, tmp_path, name):
    pki = skein.data / "pki"
    broker = serving(tmp_path / "early", f"""
data = "{{data}}"
[listeners.quic]
address = "127.0.0.1:{{port}}"
early_data = true
anonymous_policy = '{POLICY}'
[listeners.admin]
address = "127.0.0.1:{{admin}}"
[tls]
certificate = "{pki}/server.pem"
private_key = "{pki}/server.key"
""")
    text = (broker.folder / "skein.toml").read_text()
    text = text.replace("{port}", str(broker.port("tls"))).replace("{admin}", str(broker.port("admin")))
    (broker.folder / "skein.toml").write_text(text)
    broker.start()
    try:
        first = Over(QuicTunnel(broker.address("tls"), skein.ca))
        first.connect(name)
        wait_until("there is a ticket", lambda: first.tunnel.tickets)
        ticket = first.tunnel.tickets[-1]
        first.disconnect()
        early = m.connect(name, version=5)
        again = Over(QuicTunnel(broker.address("tls"), skein.ca, ticket=ticket, early=early))
        assert again.tunnel.early_data_accepted
        assert again.next().kind == m.CONNACK
        again.cut()
    finally:
        broker.stop()


def test_clients_hear_of_a_restart_at_once(fresh_broker, name):
    """Their next datagram is answered by a reset, which only the node of the certificate can make."""
    broker = fresh_broker
    client = Over(QuicTunnel(broker.address("tls"), broker.ca, broker.device))
    client.connect(name, keep_alive=600)
    broker.kill()
    broker.start()
    client.send(m.packet(m.PINGREQ, 0))
    client.closed(timeout=5)
    client.cut()


POLICY = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}'
