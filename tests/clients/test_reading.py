"""When a client is read, how much of what it sent is handled, and when it has been silent for too long."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import brokers
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
    deaf.connect(f"{name}-deaf", keep_alive=2, will=m.Will(f"{name}/will", b"gone", 1))
    m.stall(deaf, connected(), f"{name}/flood")
    assert watcher.receive(timeout=30).payload == b"gone"
    ends(deaf.socket)


def test_a_client_returns_while_its_old_connection_is_stalled(dial, connected, name):
    old = dial()
    old.connect(name)
    m.stall(old, connected(), name)
    # Less than a connection may take for its last word.
    dial(timeout=3).connect(name)


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


@pytest.fixture
def patient(tmp_path):
    """A node of one core whose publishers wait for their subscribers as long as it takes."""
    port = brokers.free_offset()
    broker = brokers.serving(
        tmp_path / "patient",
        f"""data = "{{data}}"
        cores = 1
        shards = 1
        [limits]
        pending_bytes = {4 * MIB}
        slow_consumer_patience = "1h"
        [listeners.mqtt]
        address = "127.0.0.1:{brokers.PORTS['plain'] + port}"
        anonymous_policy = '{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":"iot:*","Resource":"*"}}]}}'
        [listeners.admin]
        address = "127.0.0.1:{brokers.PORTS['admin'] + port}"
        """,
        offset=port,
    ).start()
    yield broker
    broker.stop()


@pytest.mark.parametrize("count", [1, 2])
def test_acknowledgements_are_read_of_those_who_publish_to_each_other(patient, name, count):
    # More is under way than publishers wait at (half of `pending_bytes`), less than closes (all of it).
    ahead, total, payload = 200, 400, bytes(16 * 1024)
    clients = [m.Client(patient.plain) for _ in range(count)]
    for number, client in enumerate(clients):
        client.connect(f"{name}-{number}", props={"receive_maximum": 10})
        client.subscribe(f"{name}/{number}", qos=1)

    # What each may still be sent.
    places = [threading.Semaphore(ahead) for _ in clients]

    def talk(number):
        client, to = clients[number], (number + 1) % count
        publications = (m.publish(f"{name}/{to}", b"%06d" % sent + payload, 1, id=sent + 1) for sent in range(total))
        for received in range(total):
            while places[to].acquire(blocking=False):
                client.send(next(publications, b""))
            assert client.receive(timeout=30).payload[:6] == b"%06d" % received
            places[number].release()
        for publication in publications:
            assert places[to].acquire(timeout=30)
            client.send(publication)

    with ThreadPoolExecutor() as pool:
        list(pool.map(talk, range(count)))
    for client in clients:
        client.ping()
        client.cut()


def test_who_acknowledges_nothing_does_not_fill_outboxes(patient, name):
    idle, publisher, slow = (m.Client(patient.plain) for _ in range(3))
    for client in (idle, publisher, slow):
        client.connect(props={"receive_maximum": 1})
    idle.subscribe(name, qos=1)
    slow.subscribe(f"$aws/things/{name}/shadow/update/+", qos=1)

    def flood(client, count):
        topic = f"$aws/things/{name}/shadow/update"
        client.socket.settimeout(60)
        client.send(*[m.publish(topic, b'{"state":{"reported":{"n":%d}}}' % number) for number in range(count)])

    def length():
        return patient.metrics()["outbox_messages"]

    # Of each update it keeps two publications; with 32,768 it is long.
    flood(publisher, 20_000)
    brokers.wait_until("the outbox is long", lambda: length() > 32_768, 30)
    # Publishers wait for a client that leaves half of `pending_bytes` unacknowledged.
    publisher = m.Client(patient.plain)
    publisher.connect()
    publisher.send(*[m.publish(name, bytes(16 * 1024), 1, id=number) for number in range(1, 201)])
    publisher.expect(m.PUBACK)
    with ThreadPoolExecutor() as pool:
        pool.submit(flood, idle, 100_000)
        lengths = []
        brokers.wait_until("it is shorter", lambda: lengths.append(length()) or lengths[-1] < 32_768, 120)
    assert max(lengths) < 50_000
