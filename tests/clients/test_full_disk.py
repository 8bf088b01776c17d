"""A disk that is full: what cannot be stored is refused and said so, what was taken is delivered."""

import os
import subprocess
import time

import pytest

import rawmqtt as m
from brokers import Skein, wait_until
from parties import Publisher, Subscriber, missing

MIB = 1 << 20
QUOTA_EXCEEDED = 0x97


class Persevering(Publisher):
    """A publisher that goes on when a publication is refused for want of room."""

    def __init__(self, broker, name, number):
        super().__init__(broker, name, number)
        self.refused = 0

    def payload(self, number):
        return b"%d" % number + b" " * 2000

    def take(self, client, got):
        if got.kind in (m.PUBACK, m.PUBREC) and got.reason == QUOTA_EXCEEDED:
            self.refused += 1
            del self.pending[got.id]
        else:
            super().take(client, got)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, large enough for little."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512m", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a file system can only be mounted by root: {mounted.stderr.decode()}")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def free_bytes(disk):
    stat = os.statvfs(disk)
    return stat.f_bavail * stat.f_frsize


def fill(disk, leave):
    """Takes all room on a disk but so many bytes."""
    with open(disk / "filler", "ab") as filler:
        while (more := free_bytes(disk) - leave) > 0:
            filler.write(bytes(min(more, MIB)))
            filler.flush()


@pytest.mark.skein
@pytest.mark.timeout(180)
def test_what_was_taken_is_delivered_when_there_is_room_again(small_disk, name):
    broker = Skein(small_disk / "broker").start()
    try:
        subscriber = Subscriber(broker, name)
        subscriber.start()
        assert subscriber.subscribed.wait(10)
        publishers = [Persevering(broker, name, number) for number in range(3)]
        threads = [publisher.again() for publisher in publishers]

        def well():
            for party in [subscriber, *publishers]:
                assert party.wrong is None, party.wrong
                assert party.end is None, repr(party.end)

        def all_taken(before):
            well()
            return all(
                len(publisher.acknowledged[1]) > one and len(publisher.acknowledged[2]) > two
                for publisher, (one, two) in zip(publishers, before)
            )

        for leave in (60 * MIB, 80 * MIB, 100 * MIB):
            counts = [tuple(len(publisher.acknowledged[qos]) for qos in (1, 2)) for publisher in publishers]
            wait_until("something is taken", lambda: all_taken(counts), 20)
            fill(small_disk, leave)
            wait_until("the node says so", lambda: broker.get("/readyz")[0] == 503)
            assert "disk" in broker.get("/readyz")[1]
            # What is refused, and what waits, must come to a rest with nothing lost.
            time.sleep(0.5)
            well()
            (small_disk / "filler").unlink()
            wait_until("the node is ready again", broker.is_ready, 20)
        for publisher in publishers:
            publisher.finishing = True
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()

        wait_until("all is delivered", lambda: not missing(publishers, subscriber), 30)
        for publisher in publishers:
            seen = subscriber.seen[publisher.topic]
            for qos in (1, 2):
                of_qos = [number for number in seen if publisher.qos(number) == qos]
                assert of_qos == sorted(set(of_qos)), f"QoS {qos} on {publisher.topic}"
    finally:
        broker.stop()


def checkpoints(broker):
    return broker.metrics().get("storage_checkpoint_seconds_count", 0)


@pytest.mark.skein
@pytest.mark.parametrize("stored", [False, True])
def test_a_node_starts_on_a_disk_that_is_full_to_the_last_byte(small_disk, stored):
    broker = Skein(small_disk / "broker").start()
    try:
        kept = {"session_expiry_interval": 3600}
        with m.Client(broker.plain, 5) as client:
            client.connect("kept", clean=False, props=kept)
            client.subscribe("kept", qos=1)
        with m.Client(broker.plain, 5) as client:
            client.connect("publisher")
            client.publish("kept", b"taken", 1)
        if stored:
            # From then on the state store needs room to open.
            wait_until("a checkpoint is written", lambda: checkpoints(broker) > 0, 60)
        broker.kill()
        fill(small_disk, 0)

        class Full(Skein):
            def is_ready(self):
                return "disk" in self.get("/readyz")[1]

        broker = Full(small_disk / "broker").start()
        (small_disk / "filler").unlink()
        wait_until("the node is ready again", lambda: broker.get("/readyz")[0] == 200, 20)
        with m.Client(broker.plain, 5) as client:
            assert client.connect("kept", clean=False, props=kept).session_present
            assert client.receive().payload == b"taken"
    finally:
        broker.stop()
