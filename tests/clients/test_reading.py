"""When a client is read, how much of what it sent is handled, and when it has been silent for too long."""

import socket

import pytest

import rawmqtt as m

pytestmark = pytest.mark.skein
MIB = 1 << 20


def ends(raw, timeout=10):
    """Reads whatever comes until the server has closed the socket."""
    raw.settimeout(timeout)
    try:
        while raw.recv(MIB):
            pass
    except ConnectionResetError:
        pass


def test_a_client_that_stops_reading_is_silent(dial, connected, name):
    watcher = connected()
    watcher.subscribe(f"{name}/will", qos=1)
    deaf = dial()
    # Most of what is sent is to wait in the broker, not in the kernel.
    deaf.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    deaf.connect(f"{name}-deaf", keep_alive=2, will=m.Will(f"{name}/will", b"gone", 1))
    deaf.subscribe(f"{name}/flood")
    publisher = connected()
    publisher.send(*[m.publish(f"{name}/flood", bytes(60_000))] * 150)
    publisher.ping()
    assert watcher.receive(timeout=30).payload == b"gone"
    ends(deaf.socket)


def test_nothing_is_taken_after_disconnect(dial, connected, name):
    watcher = connected()
    watcher.subscribe(name, qos=1)
    # CONNECT and DISCONNECT fill what the broker reads first; the rest is there when it reads again.
    goodbye = m.disconnect()

    def connect(padding):
        return m.connect(f"{name}-hasty", props={"user_property": ("padding", "x" * padding)})

    hello = connect(1900)
    hello = connect(1900 + 2048 - len(hello) - len(goodbye))
    assert len(hello + goodbye) == 2048
    for _ in range(10):
        hasty = dial()
        hasty.send(hello, goodbye, m.publish(name, b"late"))
        ends(hasty.socket)
    watcher.nothing_more()


@pytest.mark.parametrize("large", [3, 5, 9])
def test_what_follows_a_large_publication_arrives(connected, name, large):
    # Several times: the two may be on one core or on two.
    for _ in range(6):
        subscriber, publisher = connected(), connected()
        subscriber.subscribe(f"{name}/#")
        small = [m.publish(f"{name}/small", b"%d" % number) for number in range(100)]
        publisher.send(m.publish(f"{name}/large", bytes(large * MIB)), *small)
        assert len(subscriber.receive().payload) == large * MIB
        assert subscriber.receive_payloads(100) == [b"%d" % number for number in range(100)]
        publisher.ping()
        subscriber.cut()
