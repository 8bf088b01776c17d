"""Damaged files: what is torn is dropped, what is damaged is named, and nothing else is harmed."""

import random

import pytest

import rawmqtt as m

pytestmark = pytest.mark.skein
COUNT = 200


@pytest.fixture
def stored(fresh_broker, name):
    """A broker that was killed with retained messages in its log, and nothing else going on."""
    client = m.Client(fresh_broker.plain)
    client.connect(name)
    for number in range(COUNT):
        client.publish(f"{name}/{number}", b"payload %d" % number, qos=1, retain=True)
    client.cut()
    fresh_broker.kill()
    return fresh_broker


def segments(broker):
    return sorted((broker.data / "log").glob("*.log"))


def used(path):
    """Where the zeros that are written ahead begin."""
    return len(path.read_bytes().rstrip(b"\0"))


def retained(broker, name):
    client = m.Client(broker.plain)
    client.connect(f"{name}-reader")
    client.subscribe(f"{name}/#", qos=1)
    found = {}
    try:
        while got := client.receive(timeout=2):
            found[got.topic] = got.payload
    except TimeoutError:
        # Nothing tells the last one, but all of them together take no second.
        return found


def everything(name):
    return {f"{name}/{n}": b"payload %d" % n for n in range(COUNT)}


def test_untouched(stored, name):
    stored.start()
    assert retained(stored, name) == everything(name)


@pytest.mark.parametrize("what", ["noise", "half a batch"])
def test_torn_tail(stored, name, what):
    """A write that was never finished: what lies behind the last batch is dropped."""
    last = segments(stored)[-1]
    data = bytearray(last.read_bytes())
    end = used(last)
    start = (end + 511) // 512 * 512
    if what == "noise":
        tail = random.Random(1).randbytes(300)
    else:
        # The start of an earlier batch, cut off.
        tail = bytes(data[start - 1024 : start - 1024 + 200])
    data[start : start + len(tail)] = tail
    last.write_bytes(data)
    stored.start()
    assert retained(stored, name) == everything(name)


def test_last_batch_is_cut(stored, name):
    """At worst the one batch that was being written is lost, and the node starts."""
    last = segments(stored)[-1]
    data = bytearray(last.read_bytes())
    end = used(last)
    data[end - 10 : end] = bytes(10)
    last.write_bytes(data)
    stored.start()
    found = retained(stored, name)
    lost = set(everything(name)) - set(found)
    assert len(lost) <= 2, lost
    assert all(everything(name)[topic] == payload for topic, payload in found.items())


def test_bit_flip_is_named_and_nothing_is_overwritten(stored, name):
    """Damage with good batches behind it: the node refuses to start and says where."""
    last = segments(stored)[-1]
    data = bytearray(last.read_bytes())
    at = data.find(b"payload %d" % (COUNT // 2))
    assert at > 0, "payloads lie in the log as they are"
    data[at] ^= 0x40
    last.write_bytes(data)
    with pytest.raises(RuntimeError) as refused:
        stored.start()
    assert stored.process.returncode != 0
    text = str(refused.value)
    assert last.name in text, text
    assert "panicked" not in text, text
    assert last.read_bytes() == bytes(data), "the evidence was changed"
    # Repaired, everything is there again.
    data[at] ^= 0x40
    last.write_bytes(data)
    stored.start()
    assert retained(stored, name) == everything(name)


def test_missing_segment_is_named(stored, name):
    files = segments(stored)
    files[0].rename(files[0].with_suffix(".away"))
    try:
        stored.start()
    except RuntimeError as refused:
        assert "panicked" not in str(refused)
        assert "log" in str(refused)
    else:
        # The only segment: nothing tells an empty log from a lost one, unless the state does.
        pytest.fail("the node started without its log, as if nothing had been stored")


def test_second_process_on_the_same_data(fresh_broker, tmp_path):
    from brokers import Skein

    other = Skein(tmp_path / "other")
    other.data = fresh_broker.data
    with pytest.raises(RuntimeError) as refused:
        other.start()
    assert "panicked" not in str(refused.value)
    assert fresh_broker.is_ready()
