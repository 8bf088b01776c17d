"""paho-mqtt, the client that most Python devices run, in both versions of the protocol."""

import queue
import time

import paho.mqtt.client as paho
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from brokers import wait_until
from conftest import tls_context

V5 = paho.MQTTv5
VERSIONS = pytest.mark.parametrize("version", [paho.MQTTv311, V5], ids=["3.1.1", "5"])


class Device:
    """A paho client whose callbacks end in queues."""

    def __init__(self, version, client_id, clean=True, **more):
        if version != V5:
            more["clean_session"] = clean
        self.version, self.clean = version, clean
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id, protocol=version, **more)
        self.connects, self.messages, self.subscribed = queue.Queue(), queue.Queue(), queue.Queue()
        self.disconnects, self.published = queue.Queue(), queue.Queue()
        self.client.on_connect = lambda _c, _u, flags, reason, props: self.connects.put((flags, reason, props))
        self.client.on_message = lambda _c, _u, message: self.messages.put(message)
        self.client.on_subscribe = lambda _c, _u, _mid, reasons, _p: self.subscribed.put([r.value for r in reasons])
        self.client.on_disconnect = lambda _c, _u, _f, reason, _p: self.disconnects.put(reason)
        self.client.on_publish = lambda _c, _u, mid, reason, _p: self.published.put((mid, reason))

    def start(self, address, **properties):
        more = {}
        if self.version == V5:
            more = {"clean_start": self.clean, "properties": props(PacketTypes.CONNECT, **properties)}
        self.client.connect(*address, keepalive=more.pop("keepalive", 60), **more)
        self.client.loop_start()
        self.flags, reason, self.connack = self.connects.get(timeout=10)
        assert reason == 0, reason
        return self

    def subscribe(self, topic, qos=0, **more):
        # paho wants the QoS in one place only.
        self.client.subscribe(topic, **more) if "options" in more else self.client.subscribe(topic, qos, **more)
        return self.subscribed.get(timeout=10)

    def publish(self, topic, payload, qos=0, **more):
        info = self.client.publish(topic, payload, qos, **more)
        info.wait_for_publish(10)
        assert info.is_published()
        return info

    def get(self, timeout=10):
        return self.messages.get(timeout=timeout)

    def cut(self):
        """Drops the link and does not come back."""
        self.client.loop_stop()
        self.client._sock_close()

    def stop(self):
        self.client.disconnect()
        self.client.loop_stop()


def props(packet, **values):
    """Properties by the names that paho gives them."""
    out = Properties(packet)
    for name, value in values.items():
        setattr(out, name, value)
    return out


@pytest.fixture
def device(broker, name):
    devices = []

    def device(version=V5, client_id=None, clean=True, listener="plain", setup=None, **properties):
        client_id = client_id or f"{name}-{len(devices)}"
        transport = {"ws": "websockets", "wss": "websockets"}.get(listener, "tcp")
        one = Device(version, client_id, clean, transport=transport)
        if listener == "tls":
            one.client.tls_set_context(tls_context(broker, broker.device))
        if setup:
            setup(one.client)
        devices.append(one)
        address = ("localhost" if listener == "tls" else "127.0.0.1", broker.port(listener))
        return one.start(address, **properties)

    yield device
    for one in devices:
        one.stop()


@VERSIONS
@pytest.mark.parametrize("listener", ["plain", "tls", "ws"])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_round_trip(device, name, version, listener, qos):
    one = device(version, listener=listener)
    assert one.subscribe(f"{name}/+", qos) == [qos]
    one.publish(f"{name}/a", b"hello", qos)
    got = one.get()
    assert (got.topic, got.payload, got.qos, got.retain) == (f"{name}/a", b"hello", qos, False)


@VERSIONS
def test_a_thousand_in_order(device, name, version):
    publisher, subscriber = device(version), device(version)
    subscriber.subscribe(name, 1)
    for number in range(1000):
        publisher.client.publish(name, str(number), 1)
    assert [int(subscriber.get().payload) for _ in range(1000)] == list(range(1000))


@VERSIONS
def test_session_is_resumed(device, name, version):
    lasting = {"SessionExpiryInterval": 60} if version == V5 else {}
    one = device(version, f"{name}-s", clean=False, **lasting)
    assert not one.flags.session_present
    one.subscribe(f"{name}/t", 2)
    one.stop()
    publisher = device(version)
    for qos in (1, 2):
        publisher.publish(f"{name}/t", str(qos), qos)
    again = device(version, f"{name}-s", clean=False, **lasting)
    assert again.flags.session_present
    assert [(got.payload, got.qos) for got in (again.get(), again.get())] == [(b"1", 1), (b"2", 2)]


@VERSIONS
def test_will(device, name, version):
    watcher = device(version)
    watcher.subscribe(name, 1)
    victim = device(version, setup=lambda client: client.will_set(name, b"gone", 1))
    victim.cut()
    assert watcher.get().payload == b"gone"


@VERSIONS
def test_reconnects_by_itself(broker, device, name, version):
    """A client whose id is taken comes back and takes the id again."""
    one = device(version, f"{name}-r", clean=False)
    one.client.reconnect_delay_set(1, 1)
    other = device(version, f"{name}-r", clean=False)
    reason = one.disconnects.get(timeout=10)
    # One of the two has the id, the other is trying.
    one.connects.get(timeout=10)
    other.disconnects.get(timeout=10)
    other.client.loop_stop()
    assert version != V5 or reason.value in (0x8E, 128, 7, 0), reason


@pytest.mark.not_mosquitto("says nothing")
def test_takeover_reason(device, name):
    one = device(client_id=f"{name}-r")
    one.client.reconnect_delay_set(30, 30)
    device(client_id=f"{name}-r")
    assert one.disconnects.get(timeout=10).value == 0x8E


def test_every_publish_property(device, name):
    publisher, subscriber = device(), device()
    subscriber.subscribe(
        name, options=SubscribeOptions(qos=1), properties=props(PacketTypes.SUBSCRIBE, SubscriptionIdentifier=42)
    )
    publisher.publish(
        name,
        "grün",
        1,
        properties=props(
            PacketTypes.PUBLISH,
            PayloadFormatIndicator=1,
            MessageExpiryInterval=60,
            ContentType="text/plain",
            ResponseTopic=f"{name}/answer",
            CorrelationData=b"\0\1\2",
            UserProperty=[("a", "1"), ("a", "2")],
            TopicAlias=1,
        ),
    )
    got = subscriber.get().properties
    assert got.PayloadFormatIndicator == 1
    assert 58 <= got.MessageExpiryInterval <= 60
    assert got.ContentType == "text/plain"
    assert got.ResponseTopic == f"{name}/answer"
    assert got.CorrelationData == b"\0\1\2"
    assert got.UserProperty == [("a", "1"), ("a", "2")]
    assert got.SubscriptionIdentifier == [42]


def test_request_and_response(device, name):
    service, caller = device(), device()
    service.subscribe(f"{name}/ask", 1)
    caller.subscribe(f"{name}/answer/+", 1)
    asked = {b"%d" % number: number * number for number in range(5)}
    for correlation in asked:
        caller.publish(
            f"{name}/ask", correlation, 1,
            properties=props(PacketTypes.PUBLISH, ResponseTopic=f"{name}/answer/me", CorrelationData=correlation),
        )
    for _ in asked:
        request = service.get()
        service.publish(
            request.properties.ResponseTopic, str(int(request.payload) ** 2), 1,
            properties=props(PacketTypes.PUBLISH, CorrelationData=request.properties.CorrelationData),
        )
    answers = [caller.get() for _ in asked]
    assert {got.properties.CorrelationData: int(got.payload) for got in answers} == asked


def test_no_local(device, name):
    one, other = device(), device()
    one.subscribe(name, options=SubscribeOptions(qos=1, noLocal=True))
    one.publish(name, b"own", 1)
    other.publish(name, b"other's", 1)
    assert one.get().payload == b"other's"


@pytest.mark.parametrize("keep", [True, False])
def test_retain_as_published(device, name, keep):
    one, other = device(), device()
    one.subscribe(name, options=SubscribeOptions(qos=1, retainAsPublished=keep))
    other.publish(name, b"x", 1, retain=True)
    assert bool(one.get().retain) == keep


@pytest.mark.parametrize("handling,first,second", [(0, 1, 1), (1, 1, 0), (2, 0, 0)])
def test_retain_handling(device, name, handling, first, second):
    one, other = device(), device()
    other.publish(name, b"kept", 1, retain=True)
    for wanted in (first, second):
        one.subscribe(name, options=SubscribeOptions(qos=1, retainHandling=handling))
        other.publish(name, b"mark", 1)
        got = [one.get().payload]
        while got[-1] != b"mark":
            got.append(one.get().payload)
        assert got == [b"kept"] * wanted + [b"mark"]


def test_assigned_client_id_and_server_keep_alive(broker):
    one = Device(V5, "").start(broker.plain)
    assert one.connack.AssignedClientIdentifier
    one.stop()


@pytest.mark.not_mosquitto("says nothing")
def test_reasons_are_named(device, name):
    one = device()
    assert one.subscribe([(f"{name}/a", 1), (f"$share//{name}", 1)]) == [1, 0x8F]
    info = one.client.publish(f"{name}/nobody", b"x", 1)
    info.wait_for_publish(10)
    mid, reason = one.published.get(timeout=10)
    assert (mid, reason.value) == (info.mid, 0x10)


def test_receive_maximum(device, name):
    one = device(ReceiveMaximum=2)
    one.client.manual_ack_set(True)
    one.subscribe(name, 1)
    publisher = device()
    for number in range(5):
        publisher.publish(name, str(number), 1)
    held = [one.get(), one.get()]
    with pytest.raises(queue.Empty):
        one.get(timeout=0.5)
    for number in range(5):
        message = held.pop(0)
        assert int(message.payload) == number
        one.client.ack(message.mid, 1)
        if number < 3:
            held.append(one.get())


@pytest.mark.not_mosquitto("leaves the place in the window taken")
def test_maximum_packet_size(device, name):
    one, publisher = device(MaximumPacketSize=1000), device()
    one.subscribe(name, 1)
    publisher.publish(name, b"x" * 2000, 1)
    publisher.publish(name, b"fits", 1)
    assert one.get().payload == b"fits"


def test_message_expiry(device, name):
    one = device(client_id=f"{name}-s", clean=False, SessionExpiryInterval=60)
    one.subscribe(name, 1)
    one.stop()
    publisher = device()
    for payload, seconds in (("short", 1), ("long", 60)):
        publisher.publish(name, payload, 1, properties=props(PacketTypes.PUBLISH, MessageExpiryInterval=seconds))
    time.sleep(2.5)
    again = device(client_id=f"{name}-s", clean=False, SessionExpiryInterval=60)
    assert again.get().payload == b"long"


def test_will_delay(device, name):
    watcher = device()
    watcher.subscribe(name, 1)
    delayed = props(PacketTypes.WILLMESSAGE, WillDelayInterval=1)
    victim = device(
        setup=lambda client: client.will_set(name, b"gone", 1, properties=delayed), SessionExpiryInterval=60
    )
    started = time.monotonic()
    victim.cut()
    assert watcher.get().payload == b"gone"
    assert time.monotonic() - started > 0.9


@VERSIONS
def test_shared_subscription(device, name, version):
    members = [device(version) for _ in range(3)]
    for member in members:
        member.subscribe(f"$share/workers/{name}/#", 1)
    publisher = device(version)
    for number in range(60):
        publisher.publish(f"{name}/jobs", str(number), 1)
    wait_until("all jobs are taken", lambda: sum(m.messages.qsize() for m in members) >= 60)
    taken = [[int(m.get().payload) for _ in range(m.messages.qsize())] for m in members]
    assert sorted(sum(taken, [])) == list(range(60))
    assert all(taken)


@VERSIONS
def test_user_and_password_are_accepted(device, name, version):
    """SDKs send metrics about themselves as the user name."""
    device(version, setup=lambda client: client.username_pw_set("?SDK=Test&Version=1", "secret"))
