"""A node whose disk does not give back what was written is mended by the others."""

import pytest

from brokers import wait_until
from parties import LASTING

pytestmark = pytest.mark.skein
COUNT = 40


def publish(on, node, name, first):
    publisher = on(node, f"{name}-publisher")
    for number in range(first, first + COUNT):
        publisher.publish(f"{name}/n", b"marked-%03d-" % number + b"x" * 500, qos=1)
    publisher.disconnect()


def harm(paths):
    """Flips a bit in whatever has what was published; tells how often."""
    flipped = 0
    for path in paths:
        data = bytearray(path.read_bytes())
        at = data.find(b"marked-")
        while at >= 0:
            data[at + 100] ^= 1
            flipped += 1
            at = data.find(b"marked-", at + 1)
        path.write_bytes(data)
    return flipped


def check_mended(node):
    """It has found a damage since it was started, and nothing is left of it."""
    metrics = node.metrics()
    assert any(value > 0 for key, value in metrics.items() if key.startswith("storage_damages_total"))
    wait_until("all is mended", lambda: node.metrics()["raft_damaged_groups"] == 0, 10)


def test_damage_is_named_and_mended_and_then_on_another_node(cluster, on, name):
    subscriber = on(1, name, props=LASTING)
    subscriber.subscribe(f"{name}/#", qos=1)
    subscriber.disconnect()
    publish(on, 1, name, 0)

    # In the middle of a segment that another follows, before the state store has what it holds.
    for _ in range(2):
        cluster[2].kill()
        cluster[2].start()
    cluster[2].kill()
    segments = sorted((cluster[2].data / "log").glob("*.log"))
    assert len(segments) > 1 and harm(segments[:-1]) > 0
    cluster[3].kill()
    # Whoever led until now might mend it before anybody looks.
    wait_until("nobody leads", lambda: not cluster[1].is_serving(), 20)
    cluster[2].start()
    # One of three is not enough to go on with, whatever the damaged one has.
    wait_until("it says so", lambda: "groups are damaged here" in cluster[2].get("/readyz")[1], 10)
    code, said = cluster.operate("status", by=2)
    assert code == 1 and "damaged on node 2" in said, said
    said = cluster[2].tail(200)
    assert "the log is damaged" in said and "offset=" in said and str(segments[0].name) in said
    assert "takes no part in it" in said
    wait_until("nobody serves", lambda: not cluster[1].is_serving(), 20)
    cluster[3].start()
    cluster.wait_serving(30)
    check_mended(cluster[2])
    assert list((cluster[2].data / "log").glob("*.log.damaged"))

    # In the stored state of another one, and what is mended is of use at once.
    publish(on, 2, name, COUNT)
    cluster[3].terminate()
    cluster[3].process.wait(30)
    assert harm([cluster[3].data / "state" / "db"]) > 0
    cluster[3].start()
    wait_until("it serves", cluster[3].is_serving, 30)
    check_mended(cluster[3])
    assert (cluster[3].data / "state.damaged").exists()
    wait_until("all is well", lambda: cluster.operate("status", by=3)[0] == 0, 20)

    cluster[1].kill()
    wait_until("two go on", lambda: cluster[2].is_serving() and cluster[3].is_serving(), 20)
    back = on(3, name, clean=False, props=LASTING)
    assert back.connack.session_present
    seen = set()
    while len(seen) < 2 * COUNT:
        seen.add(back.receive(timeout=10).payload[:10])
