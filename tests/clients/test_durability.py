"""kill -9 at any moment: what was acknowledged is there afterwards, and QoS 2 is exactly once."""

import collections
import json
import random
import threading
import time

import pytest

import rawmqtt as m
from brokers import wait_until
from parties import LASTING, ExactPublisher, Publisher, ShadowWriter, Subscriber, missing



@pytest.mark.not_mosquitto("sends again what was released before it restarted")
@pytest.mark.timeout(240)
def test_killed_at_random_moments(fresh_broker, name, seed, request):
    dice = random.Random(seed)
    subscriber = Subscriber(fresh_broker, name)
    subscriber.start()
    assert subscriber.subscribed.wait(10)
    publishers = [Publisher(fresh_broker, name, number) for number in range(3)]
    parties = [subscriber, *publishers]
    threads = [subscriber] + [publisher.again() for publisher in publishers]
    for _ in range(request.config.getoption("--rounds") or 6):
        time.sleep(dice.uniform(0.05, 0.8))
        fresh_broker.crash()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
        fresh_broker.start()
        for party in parties:
            assert party.wrong is None, party.wrong
        # Sometimes the subscriber stays away for a life of the broker.
        awake = parties if dice.random() < 0.7 else publishers
        threads = [party.again() for party in awake]
    if subscriber not in awake:
        threads.append(subscriber.again())
    for publisher in publishers:
        publisher.finishing = True
    for thread in threads[:3] if subscriber in awake else threads[:-1]:
        thread.join(1)
    wait_until("all is acknowledged", lambda: not any(p.pending for p in publishers), 40)

    try:
        wait_until("all is delivered", lambda: not missing(publishers, subscriber), 30)
    except TimeoutError:
        pass
    assert not missing(publishers, subscriber), f"acknowledged and lost: {missing(publishers, subscriber)}"
    time.sleep(0.3)
    for party in parties:
        assert party.wrong is None, party.wrong
    for publisher in publishers:
        assert publisher.acknowledged[1] and publisher.acknowledged[2]
        counts = collections.Counter(subscriber.seen[publisher.topic])
        twice = {number: count for number, count in counts.items() if count > 1 and number % 2}
        assert not twice, f"QoS 2 more than once: {twice}"
        for qos in (1, 2):
            first = list(dict.fromkeys(n for n in subscriber.seen[publisher.topic] if 1 + n % 2 == qos))
            assert first == sorted(first), f"QoS {qos} out of order on {publisher.topic}"


def test_subscription_is_kept_once_acknowledged(fresh_broker, name):
    client = m.Client(fresh_broker.plain)
    client.connect(name, clean=False, props=LASTING)
    client.subscribe(f"{name}/#", qos=1)
    client.unsubscribe(f"{name}/#")
    client.subscribe(f"{name}/a", qos=1)
    fresh_broker.restart()
    publisher = m.Client(fresh_broker.plain)
    publisher.connect("publisher")
    publisher.publish(f"{name}/b", b"must not come", qos=1)
    assert publisher.publish(f"{name}/a", b"x", qos=1) == 0
    again = m.Client(fresh_broker.plain)
    assert again.connect(name, clean=False, props=LASTING).session_present
    assert again.receive().payload == b"x"
    again.nothing_more()


def test_retained_are_kept_once_acknowledged(fresh_broker, name):
    client = m.Client(fresh_broker.plain)
    client.connect(name)
    props = {"user_property": [("k", "v")], "content_type": "c"}
    for number in range(50):
        client.publish(f"{name}/{number}", b"%d" % number, qos=1 + number % 2, retain=True, props=props)
    client.publish(f"{name}/7", b"", qos=1, retain=True)
    fresh_broker.restart()
    client = m.Client(fresh_broker.plain)
    client.connect(name)
    client.subscribe(f"{name}/#", qos=2)
    got = {}
    for _ in range(49):
        one = client.receive()
        got[one.topic] = (one.payload, one.qos, one.retain, one.props)
    wanted = {f"{name}/{n}": (b"%d" % n, 1 + n % 2, True, props) for n in range(50) if n != 7}
    assert got == wanted
    client.nothing_more()


def test_windows_survive(fresh_broker, name):
    """Half-done exchanges of both directions go on where they were, with the same identifiers."""
    client = m.Client(fresh_broker.plain)
    client.connect(name, clean=False, props=LASTING)
    client.subscribe(f"{name}/in", qos=2)
    publisher = m.Client(fresh_broker.plain)
    publisher.connect("publisher")
    for number in range(4):
        publisher.publish(f"{name}/in", b"%d" % number, qos=2)
    ids = [client.receive(ack_it=False).id for _ in range(4)]
    # The first is received, the second released; the others not even that.
    for id in ids[:2]:
        client.send(m.ack(m.PUBREC, id))
        assert client.expect(m.PUBREL).id == id
    client.send(m.ack(m.PUBCOMP, ids[0]))
    client.send(m.publish("out", b"x", 2, id=500))
    client.expect(m.PUBREC)
    client.ping()
    fresh_broker.restart()
    again = m.Client(fresh_broker.plain)
    assert again.connect(name, clean=False, props=LASTING).session_present
    assert again.expect(m.PUBREL).id in ids[:2]
    repeated = {again.expect(m.PUBLISH).id for _ in range(2)}
    assert repeated == set(ids[2:])
    again.send(m.publish("out", b"x", 2, dup=True, id=500))
    assert again.expect(m.PUBREC).id == 500
    again.send(m.ack(m.PUBREL, 500))
    assert again.expect(m.PUBCOMP).id == 500


@pytest.mark.skein
def test_shadows_and_registry_at_random_moments(fresh_broker, name, seed, request):
    dice = random.Random(seed)
    things, versions = [], {}
    for round in range(request.config.getoption("--rounds") or 4):
        stop = threading.Event()
        made, updated = [], []

        def create():
            iot = fresh_broker.boto("iot")
            number = 0
            while not stop.is_set():
                thing = f"{name}-{round}-{number}"
                iot.create_thing(thingName=thing, attributePayload={"attributes": {"n": str(number)}})
                made.append((thing, str(number)))
                number += 1

        def update():
            data = fresh_broker.boto("iot-data")
            number = 0
            while not stop.is_set():
                payload = json.dumps({"state": {"reported": {"n": number}}})
                answer = data.update_thing_shadow(thingName=name, shadowName=f"s{round}", payload=payload)
                updated.append((json.loads(answer["payload"].read())["version"], number))
                number += 1

        def until_cut(body):
            try:
                body()
            except Exception:  # noqa: BLE001, the broker was killed
                pass

        threads = [threading.Thread(target=until_cut, args=(body,)) for body in (create, update)]
        for thread in threads:
            thread.start()
        wait_until("there is something to lose", lambda: made and updated)
        time.sleep(dice.uniform(0.05, 0.6))
        fresh_broker.crash()
        stop.set()
        for thread in threads:
            thread.join(20)
        fresh_broker.start()
        things += made
        versions[f"s{round}"] = updated[-1]
        iot, data = fresh_broker.boto("iot"), fresh_broker.boto("iot-data")
        for thing, number in things:
            assert iot.describe_thing(thingName=thing)["attributes"] == {"n": number}
        for shadow, (version, number) in versions.items():
            document = json.loads(data.get_thing_shadow(thingName=name, shadowName=shadow)["payload"].read())
            # One more may have been stored without its answer reaching us.
            assert document["version"] in (version, version + 1), shadow
            assert document["state"]["reported"]["n"] == number + document["version"] - version


@pytest.mark.skein
@pytest.mark.timeout(240)
def test_shadow_updates_with_qos_2_are_applied_once(fresh_broker, name, seed, request):
    dice = random.Random(seed)
    writer = ShadowWriter(fresh_broker, name)
    for _ in range(request.config.getoption("--rounds") or 8):
        thread = writer.again()
        time.sleep(dice.uniform(0.05, 0.5))
        fresh_broker.crash()
        thread.join(20)
        fresh_broker.start()
        assert writer.wrong is None, writer.wrong
    writer.finishing = True
    thread = writer.again()
    wait_until("all is acknowledged", lambda: not writer.pending, 40)
    assert writer.wrong is None, writer.wrong

    def version():
        answer = fresh_broker.boto("iot-data").get_thing_shadow(thingName=name)
        return json.loads(answer["payload"].read())["version"]

    wait_until("all is applied", lambda: version() >= writer.next)
    assert version() == writer.next


@pytest.mark.skein
def test_qos_2_waits_for_a_slow_reader(fresh_broker, name):
    """A publisher goes no faster than its subscriber, by way of the outbox as well."""
    count, size = 3000, 16 * 1024
    with m.Client(fresh_broker.plain, 5, timeout=60) as reader, m.Client(fresh_broker.plain, 5, timeout=60) as writer:
        reader.connect(f"{name}-reader")
        reader.subscribe(name, qos=2)
        maximum = writer.connect(f"{name}-writer", clean=False, props=LASTING).props["receive_maximum"]

        def write():
            sent = done = 0
            while done < count:
                while sent < count and sent - done < min(maximum, 500):
                    writer.send(m.publish(name, b"%d" % sent + b"." * size, 2, id=sent + 1))
                    sent += 1
                got = writer.next()
                assert got.kind in (m.PUBREC, m.PUBCOMP), got
                if got.kind == m.PUBREC:
                    writer.send(m.ack(m.PUBREL, got.id))
                else:
                    done += 1

        thread = threading.Thread(target=write, daemon=True)
        thread.start()
        for number in range(count):
            if number % 500 == 0:
                time.sleep(0.3)
            got = reader.receive()
            assert got.payload.rstrip(b".") == b"%d" % number, got.payload[:20]
        thread.join(30)
        assert not thread.is_alive()


@pytest.mark.skein
def test_identity_survives(fresh_broker, tmp_path, name):
    import aws
    from brokers import policy
    from conftest import tls_context

    statements = [("Allow", "iot:Connect", f"client/{name}")]
    who = aws.Identity(fresh_broker, tmp_path, name, policy(*statements), thing=name)
    fresh_broker.restart()
    context = tls_context(fresh_broker, who.files)
    wrap = lambda raw: context.wrap_socket(raw, server_hostname="localhost")  # noqa: E731
    m.Client(fresh_broker.address("tls"), wrap=wrap).connect(name)
    refused = m.Client(fresh_broker.address("tls"), wrap=wrap)
    assert refused.connect("other", check=False).reason == 0x87
    who.iot = fresh_broker.boto("iot")
    who.detach()
    fresh_broker.restart()
    refused = m.Client(fresh_broker.address("tls"), wrap=wrap)
    assert refused.connect(name, check=False).reason == 0x87


@pytest.mark.skein
def test_what_was_routed_before_a_crash_is_not_routed_again(fresh_broker, name):
    """The log still holds it, but who has subscribed since was not meant."""
    with m.Client(fresh_broker.plain, 5) as writer:
        writer.connect(f"{name}-writer", clean=False, props=LASTING)
        for number in range(100):
            writer.publish(f"{name}/{number}", b"old", qos=2)
        wait_until("all is routed", lambda: fresh_broker.metrics()["outbox_messages"] == 0)
    # Clients of different groups.
    for number in range(8):
        with m.Client(fresh_broker.plain, 5) as reader:
            reader.connect(f"{name}-reader-{number}", clean=False, props=LASTING)
            reader.subscribe(f"{name}/#", qos=2)
    fresh_broker.crash()
    fresh_broker.start()
    for number in range(8):
        with m.Client(fresh_broker.plain, 5) as reader:
            assert reader.connect(f"{name}-reader-{number}", clean=False, props=LASTING).session_present
            reader.nothing_more()


@pytest.mark.skein
@pytest.mark.timeout(240)
def test_one_member_of_a_share_gets_it_over_crashes(fresh_broker, name, seed, request):
    """QoS 2 to a shared subscription is for one session, whichever it is [MQTT-4.8.2-4]."""
    dice = random.Random(seed)
    members = [Subscriber(fresh_broker, f"{name}-{number}", f"$share/g/{name}/#") for number in range(4)]
    threads = [member.again() for member in members]
    for member in members:
        assert member.subscribed.wait(10)
    publishers = [ExactPublisher(fresh_broker, name, number) for number in range(3)]
    threads += [publisher.again() for publisher in publishers]
    for _ in range(request.config.getoption("--rounds") or 4):
        time.sleep(dice.uniform(0.1, 0.6))
        fresh_broker.crash()
        for thread in threads:
            thread.join(20)
        fresh_broker.start()
        threads = [party.again() for party in members + publishers]
    for publisher in publishers:
        publisher.finishing = True

    def seen(topic):
        return collections.Counter(number for member in members for number in member.seen[topic])

    wait_until("all is acknowledged", lambda: not any(publisher.pending for publisher in publishers), 40)
    wait_until(
        "all is delivered",
        lambda: all(len(seen(publisher.topic)) == publisher.next for publisher in publishers),
        40,
    )
    for party in members + publishers:
        assert party.wrong is None, party.wrong
    for publisher in publishers:
        twice = {number: count for number, count in seen(publisher.topic).items() if count > 1}
        assert not twice, f"more than once on {publisher.topic}: {twice}"
