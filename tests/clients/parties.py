"""Clients that live with a broker that dies: they keep what MQTT asks clients to keep, and judge."""

import collections
import json
import threading

import rawmqtt as m

LASTING = {"session_expiry_interval": 3600}
WINDOW = 20
ENDED = (m.Closed, m.Malformed, OSError)


class Party(threading.Thread):
    """One client of the story. It runs until its link breaks or its work is done."""

    def __init__(self, broker, client_id):
        super().__init__(daemon=True)
        self.broker, self.client_id = broker, client_id
        # Whether a CONNACK was seen, after which the session must be there for good.
        self.established = False
        self.wrong = self.end = None

    def run(self):
        try:
            with m.Client(self.broker.plain, 5, timeout=30) as client:
                answer = client.connect(self.client_id, clean=False, props=LASTING | {"receive_maximum": 50})
                if self.established and not answer.session_present:
                    raise AssertionError(f"{self.client_id}: the session is gone")
                self.established = True
                self.work(client)
        except ENDED as end:
            self.end = end
        except BaseException as wrong:  # noqa: BLE001, told to the test
            self.wrong = wrong

    def again(self):
        """The same party on a new connection."""
        thread = threading.Thread(target=self.run, daemon=True)
        thread.start()
        return thread


class Publisher(Party):
    """Sends numbers, QoS 1 and 2 in turn, and keeps what is not acknowledged."""

    def __init__(self, broker, name, number):
        super().__init__(broker, f"{name}-publisher-{number}")
        self.topic, self.next = f"{name}/{number}", 0
        # id -> (number, qos, whether PUBREC has come)
        self.pending = {}
        self.acknowledged = {1: set(), 2: set()}
        self.finishing = False

    def qos(self, number):
        return 1 + number % 2

    def payload(self, number):
        return b"%d" % number

    def work(self, client):
        for id, (number, qos, received) in self.pending.items():
            if received:
                client.send(m.ack(m.PUBREL, id))
            else:
                client.send(m.publish(self.topic, self.payload(number), qos, dup=True, id=id))
        while self.pending or not self.finishing:
            while len(self.pending) < WINDOW and not self.finishing:
                id = client.new_id()
                while id in self.pending:
                    id = client.new_id()
                number, qos = self.next, self.qos(self.next)
                self.pending[id] = (number, qos, False)
                self.next += 1
                client.send(m.publish(self.topic, self.payload(number), qos, id=id))
            self.take(client, client.next())

    def take(self, client, got):
        number, qos, _ = self.pending.get(got.id, (None, None, None))
        if got.kind == m.PUBACK:
            assert got.reason == 0, got
            del self.pending[got.id]
            self.acknowledged[1].add(number)
        elif got.kind == m.PUBREC:
            assert got.reason == 0, got
            # Now the broker owns it.
            self.acknowledged[2].add(number)
            # Releases are repeated in the order of PUBREC.
            del self.pending[got.id]
            self.pending[got.id] = (number, qos, True)
            client.send(m.ack(m.PUBREL, got.id))
        elif got.kind == m.PUBCOMP:
            self.pending.pop(got.id, None)
        else:
            raise AssertionError(f"unexpected {got}")


class ExactPublisher(Publisher):
    """Publishes with QoS 2 only."""

    def qos(self, number):
        return 2


class ShadowWriter(ExactPublisher):
    """Updates one shadow."""

    def __init__(self, broker, name):
        super().__init__(broker, name, 0)
        self.topic = f"$aws/things/{name}/shadow/update"

    def payload(self, number):
        return json.dumps({"state": {"reported": {"n": number}}}).encode()


class Subscriber(Party):
    """Counts what it is given, as a receiver that forgets nothing over its connections."""

    def __init__(self, broker, name, filter=None):
        super().__init__(broker, f"{name}-subscriber")
        self.filter = filter or f"{name}/#"
        self.subscribed = threading.Event()
        self.seen = collections.defaultdict(list)
        self.held = set()

    def work(self, client):
        if not self.subscribed.is_set():
            client.subscribe(self.filter, qos=2)
            self.subscribed.set()
        while True:
            got = client.next(timeout=30)
            if got.kind == m.PUBREL:
                self.held.discard(got.id)
                client.send(m.ack(m.PUBCOMP, got.id))
            elif got.qos == 2:
                if got.id not in self.held:
                    self.held.add(got.id)
                    self.seen[got.topic].append(int(got.payload))
                client.send(m.ack(m.PUBREC, got.id))
            else:
                self.seen[got.topic].append(int(got.payload))
                client.send(m.ack(m.PUBACK, got.id))


def missing(publishers, subscriber):
    """What was acknowledged and not delivered: a few numbers by topic and QoS."""
    return {
        (publisher.topic, qos): sorted(left)[:5]
        for publisher in publishers
        for qos in (1, 2)
        if (left := publisher.acknowledged[qos] - set(subscriber.seen[publisher.topic]))
    }
