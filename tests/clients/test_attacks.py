"""What hostile clients are known to have broken brokers with: it lives, and its memory is bounded."""

import json
import os
import random
import socket
import struct
import threading
import time

import botocore.auth
import botocore.awsrequest
import pytest
import requests

import rawmqtt as m
from brokers import REGION, Skein
from conftest import make_broker, tls_context
from test_control_plane import Cloud, refused, signed

MIB = 1 << 20


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    broker = make_broker(tmp_path_factory.mktemp("attacked")).start()
    # Touch what is allocated once.
    for number in range(20):
        m.Client(broker.plain).connect(f"warm-{number}")
    yield broker
    broker.stop()


@pytest.fixture
def attacked(target):
    """Lives through the test, still serves, and holds little more than before."""
    if not target.alive():
        target.start()
    before = target.resident_bytes()
    target.most = 32 * MIB
    yield target
    assert target.alive(), f"the broker died\n{target.tail()}"
    with m.Client(target.plain) as client:
        client.connect("control")
        client.nothing_more()
    grown = target.resident_bytes() - before
    assert grown < target.most, f"resident memory grew by {grown / MIB:.1f} MiB"
    assert "panicked" not in target.log.read_text(errors="replace"), target.tail()


@pytest.fixture
def clients(attacked):
    """Connections that are cut after the test."""
    opened = []

    def clients(count, version=5, **connect):
        new = [m.Client(attacked.plain, version) for _ in range(count)]
        opened.extend(new)
        if connect.pop("connected", True):
            for number, client in enumerate(new):
                client.connect(f"attacker-{len(opened)}-{number}", **connect)
        return new

    yield clients
    for client in opened:
        client.cut()


def push(client, data):
    """Sends as much as the broker takes; gives whether it took all."""
    client.socket.settimeout(2)
    try:
        client.socket.sendall(data)
        return True
    except OSError:
        return False


HUGE = b"\xff\xff\xff\x7f"


@pytest.mark.parametrize("kind", [m.CONNECT, m.PUBLISH, m.SUBSCRIBE], ids=["connect", "publish", "subscribe"])
def test_huge_announced_lengths(attacked, clients, kind):
    """268 MB are announced on 100 connections; only what has come may be held."""
    before = attacked.resident_bytes()
    sent = 64 * 1024
    many = clients(100, connected=kind != m.CONNECT)
    flags = 2 if kind == m.SUBSCRIBE else 0
    for client in many:
        push(client, m.packet(kind, flags, length=HUGE) + m.text("a") + bytes(sent))
    time.sleep(0.5)
    grown = attacked.resident_bytes() - before
    assert grown < 100 * sent * 2 + 16 * MIB, f"{grown / MIB:.1f} MiB for {100 * sent / MIB:.1f} MiB sent"


def test_huge_lengths_inside_a_packet(attacked, clients):
    for body in (b"\xff\xff", b"\0\1a" + HUGE, b"\0\1a\x05\x26\xff\xffxx", b"\0\1a\x03\x09\xff\xff"):
        (client,) = clients(1)
        client.send(m.packet(m.PUBLISH, 0, body))
        client.refused(0x81, 0x82)


@pytest.mark.parametrize("listener", ["plain", "tls", "ws", "wss"])
def test_noise_instead_of_connect(attacked, listener, seed):
    dice = random.Random(seed)
    for _ in range(100):
        if listener == "wss" and not isinstance(attacked, Skein):
            pytest.skip("no such listener")
        with socket.create_connection(attacked.address(listener), 5) as raw:
            try:
                raw.sendall(dice.randbytes(dice.choice([1, 2, 10, 100, 4096])))
                raw.shutdown(socket.SHUT_WR)
                raw.settimeout(5)
                while raw.recv(4096):
                    pass
            except OSError:
                pass


@pytest.mark.parametrize("version", [4, 5])
def test_unfinished_qos_2_flood(attacked, clients, version):
    """Every identifier is begun and none is released, with payloads to hold on to."""
    payload = bytes(1000)
    burst = b"".join(m.publish("flood", payload, 2, id=id, version=version) for id in range(1, 3001))

    def flood(client):
        push(client, burst)

    threads = [threading.Thread(target=flood, args=(client,)) for client in clients(20, version)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_unfinished_qos_2_of_a_subscriber(attacked, clients):
    """A subscriber that never completes makes its session hold at most its window and its queue."""
    (lazy,) = clients(1)
    lazy.subscribe("lazy", qos=2)
    (publisher,) = clients(1)
    for _ in range(500):
        publisher.publish("lazy", bytes(1000), qos=2)


@pytest.mark.not_mosquitto("keeps all that waits")
def test_subscriber_that_does_not_read(attacked, clients):
    (deaf,) = clients(1)
    deaf.subscribe("deaf", qos=0)
    (publisher,) = clients(1)
    payload = m.publish("deaf", bytes(60_000))
    deadline = time.monotonic() + 20
    for _ in range(100):
        assert push(publisher, payload * 20) or time.monotonic() < deadline
    publisher.ping()


@pytest.mark.not_mosquitto("keeps all that waits")
@pytest.mark.parametrize("packet", [m.packet(m.PINGREQ, 0), m.ack(m.PUBREL, 7), m.subscribe(1, [("x", 0)])], ids=["ping", "pubrel", "subscribe"])
def test_answers_that_nobody_reads(attacked, clients, packet):
    (client,) = clients(1)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    block = packet * (MIB // len(packet))
    for _ in range(16):
        if not push(client, block):
            break


ODD = [
    "$", "$/", "$$", "$SYS", "$SYS/", "$SYS/broker/uptime", "$share", "$share/", "$share//", "$share/a", "$share/a/",
    "$queue/a", "$exclusive/a", "$delayed/1/a", "$aws", "$aws/", "$aws/things", "$aws/things/", "$aws/things//shadow",
    "$aws/things//shadow/update", "$aws/things/a/shadow", "$aws/things/a/shadow/", "$aws/things/a/shadow/name",
    "$aws/things/a/shadow/name//update", "$aws/things/a/shadow/name/b", "$aws/things/a/shadow/update/accepted",
    "$aws/rules", "$aws/rules/", "$aws/rules//", "$aws/events/presence/connected/x", "$AWS/things/a/shadow/update",
    "$aws/things/" + "a" * 60_000 + "/shadow/update", "$aws/things/ä\U0001f69a/shadow/get", "$aws/things/a/jobs/get",
]


@pytest.mark.parametrize("version", [4, 5])
def test_dollar_topics(attacked, clients, version):
    for topic in ODD:
        for packet in (
            m.publish(topic, b"x", 1, id=1, version=version),
            m.publish(topic, b"x", 1, id=1, retain=True, version=version),
            m.publish(topic, b"", 0, version=version),
            m.subscribe(1, [(topic, 1)], version=version),
            m.subscribe(1, [(topic + "/#", 1)], version=version),
            m.unsubscribe(1, [topic], version=version),
        ):
            with m.Client(attacked.plain, version) as client:
                client.connect("")
                try:
                    client.send(packet, m.packet(m.PINGREQ, 0))
                    while client.next().kind != m.PINGRESP:
                        pass
                except (m.Closed, OSError):
                    pass


@pytest.mark.parametrize("where", ["connect", "will", "publish", "subscribe"])
def test_user_property_flood(attacked, clients, where):
    """Tens of thousands of empty properties cost more to hold than to send."""
    flood = b"\x26\0\0\0\0" * 50_000
    for _ in range(20):
        client = m.Client(attacked.plain)
        try:
            if where in ("connect", "will"):
                will = m.Will("w", b"x", props=flood) if where == "will" else None
                client.send(m.connect("flood", will=will, props=flood if where == "connect" else None))
                client.next()
            else:
                client.connect("flood")
                packet = m.publish("flood", b"x", 1, retain=True, props=flood) if where == "publish" else m.subscribe(1, [("a", 0)], flood)
                client.send(packet)
                client.next()
        except (m.Closed, OSError):
            pass
        client.cut()


@pytest.mark.not_mosquitto("waits longer")
def test_connections_that_never_say_connect(attacked):
    """They are closed when their time is over, whether they say nothing or something slowly."""
    silent = [socket.create_connection(attacked.plain, 5) for _ in range(200)]
    for raw in silent[100:]:
        raw.sendall(b"\x10")
    deadline = time.monotonic() + 15
    for number, raw in enumerate(silent):
        raw.settimeout(max(0.1, deadline - time.monotonic()))
        try:
            assert raw.recv(10) == b"", number
        except ConnectionResetError:
            pass
        raw.close()


@pytest.mark.not_mosquitto("does not count")
def test_silent_connections_of_one_address_keep_nobody_else_out(attacked):
    """More than may be in their handshake at once, for longer than anybody would wait."""
    silent = [socket.create_connection(attacked.plain, 5) for _ in range(256 * os.cpu_count() + 100)]
    started = time.monotonic()
    with m.Client(attacked.plain, source="127.0.0.2") as client:
        client.connect("elsewhere")
    assert time.monotonic() - started < 5, "before the first of them is given up"
    for raw in silent:
        raw.close()


def test_a_slow_connect_is_no_way_around(attacked):
    if not isinstance(attacked, Skein):
        pytest.skip("needs skein")
    packet = m.connect("slow", username="x" * 100)
    with socket.create_connection(attacked.plain, 5) as raw:
        started = time.monotonic()
        for byte in packet:
            try:
                raw.sendall(bytes([byte]))
            except OSError:
                break
            time.sleep(0.2)
            if time.monotonic() - started > 20:
                pytest.fail("CONNECT may take for ever")


@pytest.mark.parametrize("levels", [100, 32_000])
def test_very_deep_topics(attacked, clients, levels):
    """Deep recursion ends the process; deep matching must not take its time either."""
    if levels > 200 and not isinstance(attacked, Skein):
        pytest.skip("mosquitto: allows 200 levels")
    (client,) = clients(1)
    started = time.monotonic()
    topic = "/".join("a" * levels)
    # The broker may refuse filters with that many wildcards, but must not fall over them.
    for filter in (topic, "/".join("+" * levels), "/".join("a" * (levels - 1)) + "/#", "/".join("+a"[n % 2] for n in range(levels))):
        client.subscribe(filter, qos=0, check=filter == topic)
    client.publish(topic, b"x", qos=1)
    client.publish(topic, b"", qos=1, retain=True)
    assert client.receive().payload == b"x"
    assert time.monotonic() - started < 10


def test_filters_that_branch_at_every_level(attacked, clients):
    """{a,+}^12: a topic matches them all, and one that almost matches must not cost 2^n steps each."""
    (client,) = clients(1)
    filters = ["/".join("+" if number >> bit & 1 else "a" for bit in range(12)) for number in range(4096)]
    for at in range(0, 4096, 256):
        client.subscribe(*filters[at : at + 256], qos=0)
    started = time.monotonic()
    for _ in range(50):
        client.publish("/".join("a" * 11) + "/b/c", b"almost", qos=1)
    assert time.monotonic() - started < 10
    client.unsubscribe(*filters)


def test_mutated_packets(attacked, seed):
    """Valid packets with bytes changed, dropped and repeated: every end of a connection is fine."""
    dice = random.Random(seed)
    will = m.Will("w", b"x", 1, True, {"will_delay_interval": 1, "user_property": [("k", "v")], "content_type": "c"})
    props = {"user_property": [("k", "v")], "topic_alias": 1, "correlation_data": b"c", "message_expiry_interval": 5}
    packets = [
        m.publish("a/b", b"payload", 1, id=5, props=props),
        m.publish("a/b", b"payload", 2, id=6, props=props),
        m.subscribe(7, [("a/+", 1), ("$share/g/a/#", 2)], {"subscription_identifier": 3}),
        m.unsubscribe(8, ["a/+", "b"]),
        m.ack(m.PUBREL, 6, 0, {"reason_string": "r"}),
        m.ack(m.PUBACK, 1, 0),
        m.packet(m.PINGREQ, 0),
        m.auth(0x18, {"authentication_method": "m", "authentication_data": b"d"}),
        m.disconnect(0, {"session_expiry_interval": 1}),
    ]

    def mutate(data):
        data = bytearray(data)
        for _ in range(dice.choice([1, 1, 2, 4])):
            at = dice.randrange(len(data))
            how = dice.randrange(4)
            if how == 0:
                data[at] = dice.randrange(256)
            elif how == 1:
                data[at] ^= 1 << dice.randrange(8)
            elif how == 2 and len(data) > 1:
                del data[at]
            else:
                data[at:at] = dice.randbytes(dice.randrange(1, 4))
        return bytes(data)

    for number in range(3000):
        version = dice.choice([4, 5])
        first = m.connect("mutant", dice.choice([4, 5]), will=will, username="u", password=b"p")
        try:
            with socket.create_connection(attacked.plain, 5) as raw:
                raw.sendall(mutate(first) if dice.random() < 0.3 else m.connect(f"mutant-{number % 7}", version))
                for _ in range(dice.randrange(1, 6)):
                    raw.sendall(mutate(dice.choice(packets)))
                if dice.random() < 0.3:
                    # Resets what is under way.
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    continue
                raw.shutdown(socket.SHUT_WR)
                raw.settimeout(5)
                while raw.recv(4096):
                    pass
        except OSError as error:
            assert not isinstance(error, TimeoutError), "neither an answer nor an end"


# WebSocket


def upgrade(broker, path="/mqtt", protocol="mqtt", extra=""):
    raw = socket.create_connection(broker.address("ws"), 5)
    raw.sendall(
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {'A' * 22}==\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Protocol: {protocol}\r\n{extra}\r\n".encode()
    )
    return raw


def frame(opcode, payload, fin=True, masked=True, length=None):
    head = bytes([(0x80 if fin else 0) | opcode])
    mask = 0x80 if masked else 0
    size = len(payload) if length is None else length
    if size < 126:
        head += bytes([mask | size])
    elif size < 65_536:
        head += bytes([mask | 126]) + struct.pack(">H", size)
    else:
        head += bytes([mask | 127]) + struct.pack(">Q", size)
    key = os.urandom(4) if masked else b""
    return head + key + bytes(byte ^ key[at % 4] for at, byte in enumerate(payload)) if masked else head + payload


def answer(raw):
    raw.settimeout(10)
    data = b""
    try:
        while chunk := raw.recv(65_536):
            data += chunk
    except ConnectionResetError:
        pass
    return data


@pytest.mark.clause("MQTT-6.0.0-1")
@pytest.mark.not_mosquitto("leaves framing to libwebsockets")
@pytest.mark.parametrize(
    "bad",
    [
        frame(2, m.connect("ws"), masked=False),
        frame(1, m.connect("ws")),
        frame(3, b"x"),
        frame(11, b"x"),
        frame(9, b"x" * 126),
        frame(9, b"x", fin=False),
        frame(0, b"x"),
        frame(2, b"", length=1 << 63),
        bytes([0xC2]) + frame(2, b"x")[1:],
        frame(2, b"\x10", fin=False) + frame(2, b"x"),
    ],
    ids=["unmasked", "text", "opcode-3", "opcode-11", "long-ping", "split-ping", "continuation-of-nothing", "2^63-bytes", "reserved-bit", "interleaved"],
)
def test_wrong_frames(attacked, bad):
    with upgrade(attacked) as raw:
        raw.sendall(bad)
        data = answer(raw)
        assert b"101 Switching Protocols" in data


@pytest.mark.not_mosquitto("leaves framing to libwebsockets")
def test_many_huge_frames_announced(attacked):
    opened = [upgrade(attacked) for _ in range(100)]
    for raw in opened:
        raw.sendall(frame(2, b"x" * 1000, length=0x7FFF_FFFF))
    time.sleep(0.5)
    for raw in opened:
        raw.close()


def test_endless_request_head(attacked):
    opened = []
    for _ in range(50):
        raw = socket.create_connection(attacked.address("ws"), 5)
        raw.settimeout(2)
        opened.append(raw)
        try:
            raw.sendall(b"GET /mqtt HTTP/1.1\r\n")
            for number in range(200):
                raw.sendall(b"X-%d: " % number + b"y" * 4000 + b"\r\n")
        except OSError:
            pass
    for raw in opened:
        raw.close()


@pytest.mark.clause("MQTT-6.0.0-2", "MQTT-6.0.0-3", "MQTT-6.0.0-4")
def test_packets_need_not_align_with_frames(attacked):
    with upgrade(attacked) as raw:
        stream = m.connect("ws-split", 4) + m.packet(m.PINGREQ, 0) * 3
        for byte in stream[:-3]:
            raw.sendall(frame(2, bytes([byte])))
        raw.sendall(frame(2, stream[-3:]))
        raw.settimeout(10)
        data = b""
        while data.count(b"\xd0\x00") < 3:
            chunk = raw.recv(4096)
            assert chunk, data
            data += chunk
        head, _, rest = data.partition(b"\r\n\r\n")
        assert b"sec-websocket-protocol: mqtt" in head.lower()
        assert rest[:1] == b"\x82", "a binary frame"


# TLS


@pytest.mark.skein
def test_handshakes_that_stall(attacked):
    opened = [socket.create_connection(attacked.address("tls"), 5) for _ in range(100)]
    for raw in opened:
        raw.sendall(b"\x16\x03\x01\x40\x00" + bytes(1000))
    time.sleep(0.5)
    for raw in opened:
        raw.close()


# Bodies of REST, and what MQTT carries in their place


@pytest.fixture
def cloud(attacked):
    return Cloud(attacked.http_url, attacked.aws_environment())


# A body that is too large is read on to here for its answer to arrive.
READ_ON = 8 * MIB
LARGE = {
    "thing": lambda text: ("POST", "/things/large", "iot", {"attributePayload": {"attributes": {"a": text}}}),
    "policy": lambda text: ("POST", "/policies/large", "iot", {"policyDocument": text}),
    "group": lambda text: ("PATCH", "/thing-groups/large", "iot", {"thingGroupProperties": {"thingGroupDescription": text}}),
    "publication": lambda text: ("POST", "/topics/large?qos=1", "iotdata", {"a": text}),
    "shadow": lambda text: ("POST", "/things/large/shadow", "iotdata", {"state": {"desired": {"a": text}}}),
    "named shadow": lambda text: ("POST", "/things/large/shadow?name=n", "iotdata", {"state": {"desired": {"a": text}}}),
}


@pytest.mark.skein
@pytest.mark.parametrize("what", LARGE)
def test_large_bodies_are_refused(attacked, clients, cloud, what):
    (watcher,) = clients(1)
    watcher.subscribe("large/#", "large", "$aws/things/large/#", qos=1)
    method, path, service, body = LARGE[what]("x" * (READ_ON - 200))
    for _ in range(5):
        status, headers, told = signed(cloud, method, path, service, json.dumps(body).encode())
        assert (status, headers["x-amzn-errortype"]) == (413, "RequestEntityTooLargeException")
        assert "1048576 bytes" in json.loads(told)["message"]
    watcher.nothing_more()
    iot = cloud.client("iot")
    for describe, name in ((iot.describe_thing, "thingName"), (iot.get_policy, "policyName")):
        with refused("ResourceNotFoundException", 404):
            describe(**{name: "large"})


@pytest.mark.skein
@pytest.mark.parametrize("path", ["/topics/large?qos=1", "/things/large/shadow"])
def test_large_bodies_with_a_certificate_are_refused(attacked, clients, path):
    (watcher,) = clients(1)
    watcher.subscribe("large/#", "large", "$aws/things/large/#", qos=1)
    url = f"https://localhost:{attacked.port('wss')}{path}"
    for _ in range(5):
        answer = requests.post(url, verify=attacked.ca, cert=attacked.device, data=bytes(READ_ON))
        assert answer.status_code == 413 and "1048576 bytes" in answer.json()["message"]
    watcher.nothing_more()


@pytest.mark.skein
@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
@pytest.mark.parametrize("how", ["signed", "with a certificate"])
def test_many_bodies_of_ten_megabytes(attacked, clients, cloud, how, announced):
    """More than is read on: some see the connection end instead of the answer. Others are served all the while."""
    (watcher,) = clients(1)
    watcher.subscribe("large/#", "large", qos=1)
    # 64 large bodies of a mebibyte are read at once, and the allocator keeps what they leave for a while.
    attacked.most = 96 * MIB
    part, parts, told = bytes(100_000), 100, []
    if how == "signed":
        url = f"{attacked.http_url}/topics/large?qos=1"
        request = botocore.awsrequest.AWSRequest(method="POST", url=url, data=part * parts)
        botocore.auth.SigV4Auth(cloud.session.get_credentials(), "iotdata", REGION).add_auth(request)
        more = {"headers": dict(request.headers)}
    else:
        url, more = f"https://localhost:{attacked.port('wss')}/topics/large?qos=1", {"verify": attacked.ca, "cert": attacked.device}

    def post():
        data = part * parts if announced else iter([part] * parts)
        try:
            told.append(requests.post(url, data=data, timeout=30, **more).status_code)
        except requests.exceptions.ConnectionError:
            told.append(None)

    threads = [threading.Thread(target=post) for _ in range(32)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        watcher.ping()
        time.sleep(0.02)
    assert len(told) == 32 and set(told) <= {413, 503, None}, told
    watcher.nothing_more()
    answer = signed(cloud, "POST", "/topics/large?qos=1", "iotdata", b"small")
    assert answer[0] == 200 and watcher.receive().payload == b"small"


LEVELS = 100_000
DEEP = {
    "open lists": b"[" * LEVELS,
    "open objects": b'{"a":' * LEVELS,
    "lists": b"[" * LEVELS + b"]" * LEVELS,
    "a member": b'{"%s":' + b"[" * LEVELS + b"]" * LEVELS + b"}",
}


@pytest.mark.skein
@pytest.mark.parametrize("path, member", [
    ("/things/deep", "attributePayload"), ("/policies/deep", "policyDocument"), ("/thing-groups/deep", "thingGroupProperties"),
    ("/tags", "tags"), ("/test-authorization", "authInfos"), ("/cacertificate", "registrationConfig"),
    ("/provisioning-templates", "templateBody"), ("/thing-registration-tasks", "templateBody"), ("/authorizer/deep", "tags"),
])
@pytest.mark.parametrize("shape", DEEP)
def test_deep_bodies_are_refused(cloud, shape, path, member):
    body = DEEP[shape].replace(b"%s", member.encode())
    status, headers, told = signed(cloud, "POST", path, body=body)
    assert (status, headers["x-amzn-errortype"]) == (400, "InvalidRequestException"), told
    assert "the body cannot be read" in json.loads(told)["message"]


@pytest.mark.skein
def test_deep_documents_in_a_body_are_refused(cloud):
    iot = cloud.client("iot")
    for document in ("[" * 2000, '{"Statement":' + "[" * 1000 + "]" * 1000 + "}", '{"a":' * 400):
        with refused("MalformedPolicyException", 400):
            iot.create_policy(policyName="deep", policyDocument=document)


# The largest request has 128 KiB.
DEEP_SHADOWS = {
    "open lists": (b"[" * LEVELS, 400),
    "open lists in the state": (b'{"state":{"desired":{"a":' + b"[" * LEVELS, 400),
    "lists": (b'{"state":{"desired":{"a":' + b"[" * 60_000 + b"]" * 60_000 + b"}}}", 400),
    "objects": (b'{"state":{"reported":' + b'{"a":' * 20_000 + b"1" + b"}" * 20_000 + b"}}", 400),
    "beside the state": (b'{"state":{},"a":' + b"[" * 60_000 + b"]" * 60_000 + b"}", 400),
    "more than a request": (b'{"state":{"desired":{"a":' + b"[" * LEVELS + b"]" * LEVELS + b"}}}", 413),
}


@pytest.mark.skein
@pytest.mark.parametrize("shape", DEEP_SHADOWS)
def test_deep_shadows_are_refused(clients, cloud, shape):
    body, code = DEEP_SHADOWS[shape]
    message, error = {
        400: ("JSON contains too many levels of nesting; maximum is 6", "InvalidRequestException"),
        413: ("The payload exceeds the maximum size allowed", "RequestEntityTooLargeException"),
    }[code]
    (client,) = clients(1)
    for shadow, query in (("shadow", ""), ("shadow/name/n", "?name=n")):
        status, headers, told = signed(cloud, "POST", f"/things/deep/shadow{query}", "iotdata", body)
        assert (status, headers["x-amzn-errortype"], json.loads(told)["message"]) == (code, error, message)
        client.subscribe(f"$aws/things/deep/{shadow}/update/+", qos=1)
        for qos in (0, 1, 2):
            client.publish(f"$aws/things/deep/{shadow}/update", body, qos=qos)
            got = client.receive()
            assert got.topic.endswith("/rejected")
            told = json.loads(got.payload)
            assert (told["code"], told["message"]) == (code, message)
        status, headers, _ = signed(cloud, "GET", f"/things/deep/shadow{query}", "iotdata")
        assert (status, headers["x-amzn-errortype"]) == (404, "ResourceNotFoundException")


@pytest.mark.skein
@pytest.mark.parametrize("topic", [
    "$aws/certificates/create-from-csr", "$aws/provisioning-templates/deep/provision", "$aws/certificates/create",
])
@pytest.mark.parametrize("format, payload", [
    ("json", b"[" * LEVELS), ("json", b'{"a":' * 20_000), ("json", b'{"certificateSigningRequest":' * 4_000), ("cbor", b"\x81" * LEVELS),
    ("cbor", b"\x9f" * LEVELS), ("cbor", b"\xa1\x61a" * 30_000), ("cbor", b"\xc1" * LEVELS), ("cbor", b"\x9b" + b"\xff" * 8),
], ids=["lists", "objects", "members", "cbor lists", "cbor open lists", "cbor maps", "cbor tags", "2^64 cbor items"])
def test_deep_requests_of_devices_are_refused(attacked, topic, format, payload):
    context = tls_context(attacked, attacked.device)
    with m.Client(attacked.address("tls"), wrap=lambda raw: context.wrap_socket(raw, server_hostname="localhost")) as client:
        client.connect("deep")
        client.subscribe(f"{topic}/+/+", qos=1)
        client.publish(f"{topic}/{format}", payload, qos=1)
        got = client.receive()
        assert got.topic == f"{topic}/{format}/rejected"
        assert b"InvalidPayload" in got.payload
