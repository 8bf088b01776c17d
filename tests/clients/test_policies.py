"""What policies allow and refuse, decided for real clients; changes reach open connections."""

import datetime
import itertools
import json
import socket
import ssl
import subprocess
import time

import pytest

import aws
import rawmqtt as m
from brokers import PORTS, free_offset, policy, serving, skein_binary, wait_until
from conftest import tls_context
from parties import LASTING

pytestmark = pytest.mark.skein
NOT_AUTHORIZED = 0x87
# How long a change may take to reach an open connection.
SOON = 1.0
UPGRADE = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
)


@pytest.fixture
def identity(skein, tmp_path, name):
    count = 0

    def identity(*statements, **more):
        nonlocal count
        count += 1
        return aws.Identity(skein, tmp_path, f"{name}-{count}", policy(*statements), **more)

    return identity


@pytest.fixture
def device(dial):
    """A connection over TLS with an identity's certificate."""

    def device(identity, client_id, version=5, **more):
        client = dial(version, "tls", device=identity.files)
        client.connack = client.connect(client_id, **more)
        return client

    return device


def everything(name):
    return [
        ("Allow", "iot:Connect", "*"),
        ("Allow", ["iot:Publish", "iot:Receive", "iot:RetainPublish"], f"topic/{name}/*"),
        ("Allow", "iot:Subscribe", f"topicfilter/{name}/*"),
    ]


def may_share(name):
    return ("Allow", "iot:Subscribe", f"topicfilter/$share/g/{name}/*")


def test_everything_allowed(identity, device, name):
    client = device(identity(*everything(name)), name)
    client.subscribe(f"{name}/#", qos=1)
    client.publish(f"{name}/a", b"x", qos=1, retain=True)
    assert client.receive().payload == b"x"


@pytest.mark.parametrize("version,reason", [(4, 5), (5, NOT_AUTHORIZED)])
def test_connect_denied(identity, device, name, version, reason):
    who = identity(("Allow", "iot:Connect", f"client/{name}"))
    device(who, name, version).ping()
    refused = device(who, f"{name}-other", version, check=False)
    assert refused.connack.reason == reason
    refused.closed()


def test_no_policy_at_all(identity, device, name):
    who = identity(("Allow", "iot:*", "*"))
    who.detach()
    wait_until("the connection is refused", lambda: device(who, name, check=False).connack.reason == NOT_AUTHORIZED, SOON)


@pytest.mark.clause("3.1.1:MQTT-3.3.5-2")
def test_publish_denied(identity, device, name):
    who = identity(("Allow", "iot:Connect", "*"), ("Allow", "iot:Publish", f"topic/{name}/ok"))
    client = device(who, name)
    assert client.publish(f"{name}/ok", b"x", qos=1) in (0, 0x10)
    client.send(m.publish(f"{name}/other", b"x", 1, id=9))
    got = client.next()
    if got.kind == m.PUBACK:
        assert got.reason == NOT_AUTHORIZED
    else:
        assert got.kind == m.DISCONNECT and got.reason == NOT_AUTHORIZED
    # 3.1.1 has no word for it: the connection ends without PUBACK.
    old = device(who, f"{name}-old", 4)
    old.send(m.publish(f"{name}/other", b"x", 1, id=9, version=4))
    with pytest.raises(m.Closed):
        old.next()


def test_denied_qos_0_ends_the_connection(identity, device, name):
    who = identity(("Allow", "iot:Connect", "*"))
    client = device(who, name)
    client.send(m.publish(f"{name}/other", b"x"))
    client.refused(NOT_AUTHORIZED)


def test_retain_needs_its_own_permission(identity, device, connected, name):
    who = identity(("Allow", "iot:Connect", "*"), ("Allow", "iot:Publish", "*"))
    client = device(who, name)
    client.send(m.publish(f"{name}/t", b"x", 1, retain=True, id=9))
    try:
        assert client.expect(m.PUBACK).reason == NOT_AUTHORIZED
    except m.Closed as end:
        assert end.last.reason == NOT_AUTHORIZED
    late = connected()
    late.subscribe(f"{name}/t", qos=1)
    late.nothing_more()


@pytest.mark.parametrize("version,reason", [(4, 0x80), (5, NOT_AUTHORIZED)])
def test_subscribe_denied(identity, device, name, version, reason):
    who = identity(("Allow", "iot:Connect", "*"), ("Allow", "iot:Subscribe", f"topicfilter/{name}/+/ok"))
    client = device(who, name, version)
    # Wildcards of MQTT are plain characters to a policy.
    reasons = client.subscribe(f"{name}/+/ok", f"{name}/x/ok", f"{name}/#", qos=1, check=False)
    assert reasons == [1, reason, reason]
    client.ping()


def test_receive_denied_is_silent(identity, device, connected, name):
    who = identity(
        ("Allow", "iot:Connect", "*"), ("Allow", "iot:Subscribe", "*"),
        ("Allow", "iot:Receive", f"topic/{name}/*"), ("Deny", "iot:Receive", f"topic/{name}/secret/*"),
    )
    client = device(who, name)
    client.subscribe(f"{name}/#", qos=1)
    publisher = connected()
    publisher.publish(f"{name}/secret/a", b"must not come", qos=1)
    publisher.publish(f"{name}/open", b"x", qos=1)
    assert client.receive().topic == f"{name}/open"


def test_deny_wins(identity, device, name):
    who = identity(("Allow", "iot:*", "*"), ("Deny", "iot:Publish", f"topic/{name}/no"))
    client = device(who, name)
    client.publish(f"{name}/yes", b"x", qos=1)
    client.send(m.publish(f"{name}/no", b"x", 0))
    client.refused(NOT_AUTHORIZED)


def test_will_topic_is_checked_at_connect(identity, device, name):
    who = identity(("Allow", "iot:Connect", "*"), ("Allow", "iot:Publish", f"topic/{name}/will"))
    device(who, name, will=m.Will(f"{name}/will", b"x")).ping()
    refused = device(who, f"{name}-2", will=m.Will(f"{name}/other", b"x"), check=False)
    assert refused.connack.reason in (NOT_AUTHORIZED, 0x90)


def test_variables(identity, device, name):
    who = identity(
        ("Allow", "iot:Connect", "client/${iot:Connection.Thing.ThingName}"),
        ("Allow", ["iot:Publish", "iot:Receive"], [f"topic/{name}/${{iot:ClientId}}/*", "topic/${iot:CertificateId}"]),
        ("Allow", "iot:Subscribe", f"topicfilter/{name}/${{iot:ClientId}}/*"),
        thing=f"{name}-thing",
    )
    stranger = device(who, f"{name}-else", check=False)
    assert stranger.connack.reason == NOT_AUTHORIZED
    client = device(who, f"{name}-thing")
    client.subscribe(f"{name}/{name}-thing/#", qos=1)
    client.publish(f"{name}/{name}-thing/a", b"x", qos=1)
    assert client.receive().payload == b"x"
    client.publish(who.id, b"x", qos=1)
    assert client.subscribe(f"{name}/another/#", check=False) == [NOT_AUTHORIZED]
    client.send(m.publish(f"{name}/another/a", b"x"))
    client.refused(NOT_AUTHORIZED)


def test_thing_attributes_and_attachment(identity, device, skein, name):
    who = identity(
        ("Allow", "iot:Connect", "client/${iot:Connection.Thing.ThingName}"),
        ("Allow", "iot:Publish", "topic/depot/${iot:Connection.Thing.Attributes[depot]}"),
        thing=f"{name}-thing",
    )
    skein.boto("iot").update_thing(
        thingName=f"{name}-thing", attributePayload={"attributes": {"depot": name}}
    )
    client = device(who, f"{name}-thing")
    client.publish(f"depot/{name}", b"x", qos=1)
    client.send(m.publish("depot/elsewhere", b"x"))
    client.refused(NOT_AUTHORIZED)


@pytest.mark.parametrize("listener", ["tls", "wss"])
def test_a_connection_tells_its_thing_and_where_it_came_to(identity, dial, skein, name, listener):
    thing, data = f"{name}-thing", skein.boto("iot-data")
    who = identity(*everything(name), thing=thing)
    alpn = "x-amzn-mqtt-ca" if listener == "wss" else None
    client = dial(5, listener, device=who.files, alpn=alpn)
    client.connect(thing, clean=True, props=LASTING)
    told = data.get_connection(clientId=thing, includeSocketInformation=True)
    assert (told["connected"], told["thingName"]) == (True, thing)
    assert (told["targetIp"], told["targetPort"]) == client.socket.getpeername()[:2]
    assert (told["sourceIp"], told["sourcePort"]) == client.socket.getsockname()[:2]
    told = data.get_connection(clientId=thing)
    assert told["thingName"] == thing and not {"targetIp", "targetPort", "sourceIp", "sourcePort"} & set(told)
    client.disconnect()
    wait_until("the client is gone", lambda: not data.get_connection(clientId=thing)["connected"])
    told = data.get_connection(clientId=thing, includeSocketInformation=True)
    assert told["disconnectedSince"] and not {"thingName", "targetIp", "targetPort", "disconnectReason"} & set(told)


def test_a_connection_without_a_thing_tells_none(identity, device, skein, name):
    skein.boto("iot").create_thing(thingName=f"{name}-thing")
    device(identity(*everything(name)), name)
    assert "thingName" not in skein.boto("iot-data").get_connection(clientId=name)


def test_the_thing_of_a_connection_may_be_named_otherwise(identity, device, skein, name):
    who = identity(*everything(name))
    iot = skein.boto("iot")
    iot.create_thing(thingName=f"{name}-thing")
    device(who, name)
    iot.attach_thing_principal(thingName=f"{name}-thing", principal=who.arn, thingPrincipalType="EXCLUSIVE_THING")
    assert skein.boto("iot-data").get_connection(clientId=name)["thingName"] == f"{name}-thing"


def test_shadow_topics_are_topics(identity, device, name):
    topic = "$aws/things/${iot:Connection.Thing.ThingName}/shadow"
    who = identity(
        ("Allow", "iot:Connect", "*"),
        ("Allow", ["iot:Publish", "iot:Receive"], f"topic/{topic}/*"),
        ("Allow", "iot:Subscribe", f"topicfilter/{topic}/*"),
        thing=f"{name}-thing",
    )
    client = device(who, f"{name}-thing")
    own = f"$aws/things/{name}-thing/shadow"
    client.subscribe(f"{own}/update/accepted", f"{own}/update/rejected", qos=1)
    client.publish(f"{own}/update", b'{"state":{"reported":{"a":1}}}', qos=1)
    assert client.receive().topic == f"{own}/update/accepted"
    client.send(m.publish("$aws/things/other/shadow/update", b"{}"))
    client.refused(NOT_AUTHORIZED)


# Changes reach what is open


def receives_nothing(client, publisher, topic):
    """Publishes until a second has passed, then once more: the last one must not come."""
    deadline = time.monotonic() + SOON
    while time.monotonic() < deadline:
        publisher.publish(topic, b"early", qos=1)
        time.sleep(0.1)
    publisher.publish(topic, b"late", qos=1)
    try:
        while True:
            assert client.receive(timeout=1).payload == b"early"
    except (TimeoutError, m.Closed):
        pass


@pytest.mark.parametrize("change", ["detach", "new version", "deny"])
def test_receiving_ends_when_the_policy_changes(identity, device, connected, name, change):
    who = identity(*everything(name))
    client, publisher = device(who, name), connected()
    client.subscribe(f"{name}/#", qos=1)
    publisher.publish(f"{name}/a", b"before", qos=1)
    assert client.receive().payload == b"before"
    if change == "detach":
        who.detach()
    elif change == "new version":
        who.change_policy(policy(("Allow", "iot:Connect", "*")))
    else:
        who.change_policy(policy(*everything(name), ("Deny", "iot:Receive", f"topic/{name}/*")))
    receives_nothing(client, publisher, f"{name}/a")


def test_publishing_ends_when_the_policy_is_detached(identity, device, name):
    who = identity(*everything(name))
    client = device(who, name)
    client.publish(f"{name}/a", b"x", qos=1)
    who.detach()
    time.sleep(SOON)
    try:
        client.send(m.publish(f"{name}/a", b"x", 1, id=9))
        got = client.next()
        assert got.reason == NOT_AUTHORIZED, got
    except (m.Closed, BrokenPipeError, ConnectionResetError):
        pass


def test_a_wider_policy_counts_at_once(identity, device, name):
    who = identity(("Allow", "iot:Connect", "*"))
    client = device(who, name)
    assert client.subscribe(f"{name}/a", check=False) == [NOT_AUTHORIZED]
    who.change_policy(policy(*everything(name)))
    wait_until("the wider policy counts", lambda: client.subscribe(f"{name}/a", check=False) == [0], SOON)


@pytest.mark.parametrize("status", ["INACTIVE", "REVOKED"])
def test_a_certificate_that_is_no_longer_active(identity, device, dial, name, status):
    who = identity(*everything(name))
    client = device(who, name)
    started = time.monotonic()
    who.status(status)
    client.closed(timeout=5)
    assert time.monotonic() - started < SOON + 0.5
    refused_at_once(dial, who, name)
    who.status("ACTIVE")
    wait_until("it may connect again", lambda: try_connect(dial, who, name), SOON)


def test_a_revoked_device_that_does_not_read(identity, device, connected, name):
    """What waits for it in the broker is not waited for."""
    who = identity(*everything(name))
    watcher = connected()
    watcher.subscribe(f"$aws/events/presence/disconnected/{name}", qos=1)
    m.stall(device(who, name), connected(), f"{name}/flood")
    who.status("REVOKED")
    assert watcher.receive(timeout=SOON + 0.5).topic.endswith(name)


def refused_at_once(dial, who, name):
    assert not try_connect(dial, who, name)


def try_connect(dial, who, name):
    """Whether a connection with this certificate comes to be."""
    try:
        client = dial(5, "tls", device=who.files)
        return client.connect(name, check=False).reason == 0
    except (OSError, m.Closed):
        return False


def test_unknown_inactive_and_foreign_certificates(skein, identity, dial, tmp_path, name):
    inactive = identity(*everything(name), active=False)
    assert not try_connect(dial, inactive, name)
    # Signed by the same CA or not: a certificate that is not registered is nobody's.
    from brokers import make_pki

    make_pki(tmp_path / "foreign")

    class Foreign:
        files = (str(tmp_path / "foreign/device.pem"), str(tmp_path / "foreign/device.key"))

    assert not try_connect(dial, Foreign, name)


DATES = {"expired": (-7200, -3600), "not yet valid": (3600, 7200)}


@pytest.mark.parametrize("tls", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize("listener, alpn", [("tls", None), ("wss", "x-amzn-mqtt-ca"), ("wss", None)])
@pytest.mark.parametrize("when", ["now", *DATES])
def test_a_certificate_counts_within_its_dates_alone(skein, tmp_path, name, when, listener, alpn, tls):
    """Registered, active and with a policy it may be: over MQTT and in a WebSocket's handshake it is refused."""
    begins, ends = DATES.get(when, (-3600, 3600))
    who = aws.Dated(skein, tmp_path, name, policy(*everything(name)), begins=begins, ends=ends)
    context = tls_context(skein, who.files, alpn)
    context.minimum_version = context.maximum_version = ssl.TLSVersion[tls]
    is_mqtt = alpn or listener == "tls"

    def enter(said=b""):
        with socket.create_connection(skein.address(listener), 10) as raw, context.wrap_socket(raw, server_hostname="localhost") as link:
            link.sendall(said)
            return link.recv(4096)

    if when == "now":
        said = m.connect(name) if is_mqtt else b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\n" + UPGRADE
        assert enter(said).startswith(b"\x20" if is_mqtt else b"HTTP/1.1 101 ")
        return
    # The alert is the same for both; who writes before it comes may not see it.
    with pytest.raises(ssl.SSLError, match="certificate expired"):
        enter()
    description = who.iot.describe_certificate(certificateId=who.id)["certificateDescription"]
    now = datetime.datetime.now(datetime.timezone.utc)
    dates = description["validity"]
    assert description["status"] == "ACTIVE" and not dates["notBefore"] <= now <= dates["notAfter"]


def test_deleted_certificate(identity, device, dial, name):
    who = identity(*everything(name))
    client = device(who, name)
    who.status("INACTIVE")
    client.closed(timeout=5)
    who.detach()
    who.iot.delete_certificate(certificateId=who.id)
    assert not try_connect(dial, who, name)


def test_a_will_is_decided_again_when_time_has_passed(skein, device, connected, tmp_path, name):
    """The policy has not changed, but what it says has."""
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=3)
    document = json.loads(policy(*everything(name), ("Deny", "iot:Publish", f"topic/{name}/early")))
    document["Statement"][-1]["Condition"] = {"DateGreaterThan": {"aws:CurrentTime": until.strftime("%Y-%m-%dT%H:%M:%SZ")}}
    who = aws.Identity(skein, tmp_path, name, json.dumps(document))
    watcher = connected()
    watcher.subscribe(f"{name}/#", qos=1)
    early, late = (device(who, f"{name}-{n}", will=m.Will(f"{name}/{n}", b"gone", 1)) for n in ("early", "late"))
    wait_until("the time has passed", lambda: datetime.datetime.now(datetime.UTC) > until + datetime.timedelta(seconds=1))
    early.cut()
    # Has the name only when the older connection has ended.
    device(who, f"{name}-early").ping()
    late.cut()
    assert watcher.receive().topic == f"{name}/late"
    watcher.nothing_more()


@pytest.mark.parametrize("change", ["revoked", "detached"])
def test_a_delayed_will_is_decided_again_when_it_is_due(identity, device, connected, name, change):
    who = identity(*everything(name))
    watcher = connected()
    watcher.subscribe(f"{name}/#", qos=1)
    wills = {
        at: m.Will(f"{name}/{at}", b"gone", 1, props={"will_delay_interval": 2}) for at in ("a", "b")
    }
    lost = device(who, f"{name}-a", will=wills["a"], props=LASTING)
    lost.cut()
    who.status("REVOKED") if change == "revoked" else who.detach()
    # Of a client that still may, for the time.
    other = identity(*everything(name))
    device(other, f"{name}-b", will=wills["b"], props=LASTING).cut()
    assert watcher.receive(timeout=10).topic == f"{name}/b"
    watcher.nothing_more()


def test_queued_messages_are_decided_again(identity, device, connected, name):
    """What was queued while it was allowed is not delivered once it is not."""
    who = identity(*everything(name))
    lasting = {"session_expiry_interval": 60}
    client = device(who, name, props=lasting)
    client.subscribe(f"{name}/#", qos=1)
    client.disconnect()
    publisher = connected()
    publisher.publish(f"{name}/secret", b"must not come", qos=1)
    publisher.publish(f"{name}/open", b"x", qos=1)
    who.change_policy(policy(*everything(name), ("Deny", "iot:Receive", f"topic/{name}/secret")))
    time.sleep(SOON)
    again = device(who, name, clean=False, props=lasting)
    assert again.connack.session_present
    assert again.receive().topic == f"{name}/open"


# The name that clients ask for

ASKED = "iot.example.com"


def under(effect, action, resource, name, operator="StringEquals"):
    """A statement that is for those who ask for this name."""
    resource = resource if resource == "*" else f"arn:aws:iot:us-east-1:000000000000:{resource}"
    return {"Effect": effect, "Action": action, "Resource": resource, "Condition": {operator: {"iot:DomainName": name}}}


@pytest.fixture
def named(skein, tmp_path, name):
    """A device whose policy has these statements."""
    count = itertools.count(1)

    def named(*statements):
        document = json.dumps({"Version": "2012-10-17", "Statement": statements})
        return aws.Identity(skein, tmp_path, f"{name}-n{next(count)}", document)

    return named


@pytest.fixture
def asking(dial):
    """A connection with an identity's certificate that asks for a name."""

    def asking(identity, client_id, server_name, listener="tls", **more):
        alpn = "x-amzn-mqtt-ca" if listener == "wss" else None
        client = dial(5, listener, device=identity.files, alpn=alpn, server_name=server_name)
        client.connack = client.connect(client_id, check=False, **more)
        return client

    return asking


def post(skein, identity, server_name, topic):
    """Publishes over HTTPS, asking for a name in TLS, whatever the header says; gives the status."""
    context = tls_context(skein, identity.files)
    context.check_hostname = False
    with socket.create_connection(skein.address("wss"), 10) as raw, context.wrap_socket(raw, server_hostname=server_name) as tls:
        tls.sendall(f"POST /topics/{topic}?qos=1 HTTP/1.1\r\nHost: {ASKED}\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx".encode())
        answer = b""
        while more := tls.recv(4096):
            answer += more
    return int(answer.split()[1])


FREE = {"Effect": "Allow", "Action": "iot:*", "Resource": "*"}


@pytest.mark.parametrize("listener", ["tls", "wss"])
@pytest.mark.parametrize("operator,kept_out", [("StringEquals", True), ("StringNotEquals", False)])
def test_connecting_by_the_name_that_is_asked_for(named, asking, name, listener, operator, kept_out):
    who = named(FREE, under("Deny", "iot:Connect", "*", ASKED, operator))
    for asked, denied in ((ASKED, kept_out), ("IoT.Example.com", kept_out), ("localhost", not kept_out)):
        client = asking(who, name, asked, listener)
        assert client.connack.reason == (NOT_AUTHORIZED if denied else 0), asked
        client.cut()
    who = named(under("Allow", "iot:Connect", f"client/{name}", ASKED, operator))
    for asked, allowed in ((ASKED, kept_out), ("localhost", not kept_out)):
        client = asking(who, name, asked, listener)
        assert client.connack.reason == (0 if allowed else NOT_AUTHORIZED), asked
        client.cut()


def test_who_asks_for_no_name_has_none(named, asking, name):
    by_name = named(under("Allow", "iot:Connect", "*", "*", "StringLike"))
    assert asking(by_name, name, None).connack.reason == NOT_AUTHORIZED
    assert asking(by_name, name, "localhost").connack.reason == 0
    without = named({"Effect": "Allow", "Action": "iot:Connect", "Resource": "*", "Condition": {"Null": {"iot:DomainName": "true"}}})
    assert asking(without, name, None).connack.reason == 0
    assert asking(without, name, "localhost").connack.reason == NOT_AUTHORIZED


def test_topics_by_the_name_that_is_asked_for(skein, named, asking, connected, name):
    who = named(
        {"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"},
        under("Allow", "iot:Subscribe", f"topicfilter/{name}/*", ASKED),
        under("Allow", ["iot:Publish", "iot:Receive"], f"topic/{name}/*", ASKED),
        under("Allow", "iot:Publish", f"topic/${{iot:DomainName}}/{name}", ASKED),
        under("Deny", "iot:Receive", f"topic/{name}/secret", ASKED),
        # What the test itself looks at.
        under("Allow", "iot:Subscribe", "topicfilter/mark/*", ASKED),
        under("Allow", ["iot:Publish", "iot:Receive"], "topic/mark/*", ASKED),
    )
    client = asking(who, name, ASKED)
    assert client.subscribe(f"{name}/#", qos=1) == [1]
    publisher = connected()
    for topic in ("secret", "open"):
        publisher.publish(f"{name}/{topic}", topic.encode(), qos=1)
    assert client.receive().payload == b"open"
    client.publish(f"{name}/own", b"x", qos=1)
    assert client.receive().payload == b"x"
    client.publish(f"{ASKED}/{name}", b"x", qos=1)
    # What is decided again knows the name, too.
    skein.boto("iot").create_thing(thingName=name)
    time.sleep(SOON)
    client.publish(f"{name}/own", b"y", qos=1)
    assert client.receive().payload == b"y"
    client.publish(f"{name}/secret", b"x", qos=1)
    client.nothing_more()
    other = asking(who, f"{name}-other", "localhost")
    assert other.subscribe(f"{name}/#", check=False) == [NOT_AUTHORIZED]
    other.send(m.publish(f"{name}/own", b"x"))
    other.refused(NOT_AUTHORIZED)


def test_a_delayed_will_knows_the_name_that_was_asked_for(named, asking, connected, name):
    who = named({"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"}, under("Allow", "iot:Publish", f"topic/{name}/*", ASKED))
    watcher = connected()
    watcher.subscribe(f"{name}/#", qos=1)
    will = m.Will(f"{name}/will", b"gone", 1, props={"will_delay_interval": 1})
    refused = asking(who, name, "localhost", will=will)
    assert refused.connack.reason == NOT_AUTHORIZED
    client = asking(who, name, ASKED, will=will, props=LASTING)
    assert client.connack.reason == 0
    client.cut()
    assert watcher.receive().payload == b"gone"


def test_https_by_the_name_that_is_asked_for(skein, named, connected, name):
    watcher = connected()
    watcher.subscribe(f"{name}/#", qos=1)
    denied = named(FREE, under("Deny", "iot:Publish", f"topic/{name}/*", ASKED))
    assert post(skein, denied, ASKED, f"{name}/a") == 403
    # TLS counts, not the header.
    assert post(skein, denied, "localhost", f"{name}/b") == 200
    allowed = named(under("Allow", "iot:Publish", f"topic/{name}/*", ASKED))
    assert post(skein, allowed, ASKED, f"{name}/c") == 200
    assert post(skein, allowed, "localhost", f"{name}/d") == 403
    assert post(skein, allowed, None, f"{name}/e") == 403
    assert [watcher.receive().topic for _ in range(2)] == [f"{name}/b", f"{name}/c"]
    watcher.nothing_more()


def test_without_tls_the_host_of_a_websocket_is_the_name(tmp_path):
    statement = under("Allow", "iot:Connect", "*", ASKED)
    document = json.dumps({"Version": "2012-10-17", "Statement": statement})

    def connack(node, *hosts):
        with socket.create_connection(node.address("ws"), 10) as raw:
            head = "".join(f"Host: {host}\r\n" for host in hosts)
            raw.sendall(
                f"GET /mqtt HTTP/1.1\r\n{head}Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n".encode()
            )
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += raw.recv(4096)
            packet = m.connect("lamp")
            assert len(packet) < 126
            raw.sendall(bytes([0x82, 0x80 | len(packet)]) + bytes(4) + packet)
            return raw.recv(4096)[5]

    offset = free_offset()
    listeners = "".join(
        f'[listeners.{key}]\naddress = "127.0.0.1:{PORTS[port] + offset}"\nanonymous_policy = \'{document}\'\n'
        for key, port in (("mqtt", "plain"), ("ws", "ws"))
    )
    admin = f'[listeners.admin]\naddress = "127.0.0.1:{PORTS["admin"] + offset}"\n'
    node = serving(tmp_path / "node", f'data = "{{data}}"\n{listeners}{admin}', offset=offset).start()
    try:
        assert connack(node, ASKED) == 0
        assert connack(node, f"IoT.Example.com:{node.port('ws')}") == 0
        assert connack(node, "localhost") == NOT_AUTHORIZED
        assert connack(node, ASKED, "localhost") == NOT_AUTHORIZED
        # There is no name in plain MQTT.
        with m.Client(node.plain, 5) as client:
            assert client.connect("lamp", check=False).reason == NOT_AUTHORIZED
    finally:
        node.stop()


def test_a_decision_about_what_a_connect_asks_for_is_explained(skein, tmp_path, name):
    only_wills = {"ForAllValues:StringEquals": {"iot:ConnectAttributes": ["LastWill"]}}
    statement = {"Effect": "Allow", "Action": "iot:Connect", "Resource": "*", "Condition": only_wills}
    device = aws.Identity(skein, tmp_path, name, json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    asked = lambda *words: explain(skein, "--certificate", device.id, *words, "iot:Connect", f"client/{name}")
    assert asked()[0] and asked("--will-topic", f"{name}/gone")[0]
    allowed, said = asked("--persistent")
    assert not allowed and "not allowed" in said


def test_a_decision_about_a_name_is_explained(skein, named, name):
    who = named(FREE, under("Deny", "iot:Connect", "*", ASKED))
    asked = lambda *words: explain(skein, "--certificate", who.id, "--client-id", name, *words, "iot:Connect", f"client/{name}")
    assert asked()[0] and asked("--domain-name", "localhost")[0]
    for other in (ASKED, "IoT.Example.com:8443"):
        allowed, said = asked("--domain-name", other)
        assert not allowed and "explicitly denied" in said
    allowed, said = asked("--domain-name", "no name")
    assert not allowed and "is no domain name" in said


def test_device_certificate_from_dev(skein, dial, name):
    """The device that `skein dev` makes may do everything."""
    client = dial(5, "tls")
    client.connect("dev-thing")
    client.subscribe(f"{name}/#", qos=1)
    client.publish(f"{name}/a", b"x", qos=1)
    assert client.receive().payload == b"x"


@pytest.mark.parametrize("alpn", ["x-amzn-mqtt-ca", "mqtt"])
def test_alpn(skein, dial, name, alpn):
    client = dial(5, "tls", alpn=alpn)
    client.connect(name)
    assert client.socket.selected_alpn_protocol() == alpn


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("members", [None, LASTING], ids=["members", "lasting_members"])
@pytest.mark.parametrize("own", [None, LASTING], ids=["publisher", "lasting_publisher"])
def test_shared_subscriptions_pass_over_who_may_not_receive(
    identity, device, dial, name, qos, members, own
):
    """Connections land on any core, so with several of each kind all ways are taken."""
    props = members
    share = may_share(name)
    may = identity(*everything(name), share)
    may_not = identity(("Allow", "iot:Connect", "*"), share)
    members = [
        device(who, f"{name}-{at}", props=props) for at, who in enumerate([may, may_not] * 4)
    ]
    for member in members:
        member.subscribe(f"$share/g/{name}/+", qos=qos)
    publisher = dial()
    publisher.connect(f"{name}-publisher", props=own)
    for number in range(40):
        publisher.publish(f"{name}/one", b"%d" % number, qos=qos)
    publisher.publish(f"{name}/last", b"last", qos=qos)
    seen = []
    while b"last" not in seen or len(seen) < 41:
        for member in members[::2]:
            try:
                seen.append(member.receive(timeout=0.05).payload)
            except TimeoutError:
                pass
    assert sorted(seen) == sorted([b"%d" % number for number in range(40)] + [b"last"])
    for member in members[1::2]:
        member.ping()
        assert not member.kept


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("props", [None, LASTING], ids=["members", "lasting_members"])
def test_who_may_not_receive_from_a_topic_still_gets_others(identity, device, dial, name, qos, props):
    """Connections land on any core, so with several of each kind all ways are taken."""
    share = may_share(name)
    all_topics = identity(*everything(name), share)
    one_topic = identity(
        ("Allow", "iot:Connect", "*"), ("Allow", "iot:Receive", f"topic/{name}/for-all"), share
    )
    members = [
        device(who, f"{name}-{at}", props=props)
        for at, who in enumerate([all_topics, one_topic] * 4)
    ]
    for member in members:
        member.subscribe(f"$share/g/{name}/+", qos=qos)
    publisher = dial()
    publisher.connect(f"{name}-publisher")
    for topic in ("for-some", "for-all"):
        sent = [b"%s %d" % (topic.encode(), number) for number in range(40)]
        for payload in sent:
            publisher.publish(f"{name}/{topic}", payload, qos=qos)
        seen = [[] for _ in members]
        while sum(map(len, seen)) < len(sent):
            for member, its in zip(members, seen):
                try:
                    its.append(member.receive(timeout=0.05).payload)
                except TimeoutError:
                    pass
        assert sorted(sum(seen, [])) == sorted(sent)
        assert all(seen[0::2])
        assert all(seen[1::2]) if topic == "for-all" else not any(seen[1::2])


@pytest.fixture
def sharers(identity, name):
    """One who may receive what a shared subscription brings, and one who may not."""
    share = may_share(name)
    return identity(*everything(name), share), identity(("Allow", "iot:Connect", "*"), share)


def lasting_member(device, who, client_id, name, qos, **more):
    member = device(who, client_id, clean=False, props=LASTING | more)
    member.subscribe(f"$share/g/{name}/+", qos=qos)
    return member


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("first", ["may", "may_not", "stays"])
def test_what_waits_for_a_shared_subscription_passes_over_who_may_not_receive(
    sharers, device, dial, name, qos, first
):
    """The one who may not receive is back first or second, or was never away."""
    may, may_not = sharers
    for who, client_id in [(may, f"{name}-may"), (may_not, f"{name}-may_not")]:
        member = lasting_member(device, who, client_id, name, qos)
        if first != "stays" or who is may:
            member.disconnect()
    publisher = dial()
    publisher.connect(f"{name}-publisher")
    for number in range(20):
        publisher.publish(f"{name}/t", b"%d" % number, qos=qos)
    if first == "may_not":
        member = lasting_member(device, may_not, f"{name}-may_not", name, qos)
    back = lasting_member(device, may, f"{name}-may", name, qos)
    if first == "may":
        member = lasting_member(device, may_not, f"{name}-may_not", name, qos)
    seen = sorted(back.receive(timeout=20).payload for _ in range(20))
    assert seen == sorted(b"%d" % number for number in range(20))
    for client in (back, member):
        client.ping()
        assert not client.kept


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("kind", [LASTING, {}], ids=["lasting", "brief"])
def test_what_a_member_may_receive_no_more_goes_to_others(
    sharers, identity, device, dial, name, qos, kind
):
    may, _ = sharers
    other = identity(*everything(name), may_share(name))
    slow = device(other, f"{name}-slow", props=kind | {"receive_maximum": 2})
    slow.subscribe(f"$share/g/{name}/+", qos=qos)
    publisher = dial()
    publisher.connect(f"{name}-publisher")
    for number in range(20):
        publisher.publish(f"{name}/t", b"%d" % number, qos=qos)
    held = [slow.receive(ack_it=False) for _ in range(2)]
    other.change_policy(policy(("Allow", "iot:Connect", "*")))
    member = lasting_member(device, may, f"{name}-may", name, qos)
    for publish in held:
        slow.send(m.ack(m.PUBACK if qos == 1 else m.PUBREC, publish.id))
        if qos == 2:
            slow.send(m.ack(m.PUBCOMP, slow.expect(m.PUBREL).id))
    seen = sorted(member.receive(timeout=20).payload for _ in range(18))
    assert seen == sorted(b"%d" % number for number in range(2, 20))


def explain(skein, *words):
    """What `skein policy explain` says, and whether it says yes."""
    words = [str(skein_binary()), "policy", "explain", "--admin", f"127.0.0.1:{skein.port('admin')}", *words]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    return done.returncode == 0, done.stdout + done.stderr


def test_a_decision_is_explained(skein, name):
    iot = skein.boto("iot")
    made = iot.create_keys_and_certificate(setAsActive=True)
    id, arn = made["certificateId"], made["certificateArn"]
    own = "arn:aws:iot:us-east-1:000000000000:topic/${iot:Connection.Thing.ThingName}/*"
    documents = {
        "own": [{"Sid": "OwnTopics", "Effect": "Allow", "Action": "iot:Publish", "Resource": own}],
        "no": [
            {"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"},
            {"Sid": "NoSecrets", "Effect": "Deny", "Action": "iot:*",
             "Resource": "arn:aws:iot:us-east-1:000000000000:topic/*/secret"},
        ],
    }
    for policy, statements in documents.items():
        document = {"Version": "2012-10-17", "Statement": statements}
        iot.create_policy(policyName=f"{name}-{policy}", policyDocument=json.dumps(document))
        iot.attach_policy(policyName=f"{name}-{policy}", target=arn)
    iot.create_thing(thingName=name)
    asked = lambda *words, client=name: explain(skein, "--certificate", id, "--client-id", client, *words)
    allowed, said = asked("iot:Publish", f"topic/{name}/light")
    assert allowed and f"allows: policy {name}-own, version 1, statement 0 (OwnTopics)" in said
    assert f"thing of the connection: {name}" in said
    allowed, said = asked("iot:Publish", f"topic/{name}/secret")
    assert not allowed and said.startswith("explicitly denied")
    assert f"denies: policy {name}-no, version 1, statement 1 (NoSecrets)" in said and "OwnTopics" in said
    allowed, said = asked("iot:Publish", f"topic/{name}/light", client="another")
    assert not allowed and said.startswith("not allowed") and "has no thing" in said
    assert f"policies asked: {name}-no, {name}-own" in said
    allowed, said = asked("iot:Connect", f"client/{name}")
    assert allowed and "statement 0\n" in said
    iot.update_certificate(certificateId=id, newStatus="REVOKED")
    allowed, said = asked("iot:Connect", f"client/{name}")
    assert not allowed and "the certificate is REVOKED" in said
    for words, why in (
        (("iot:Fly", "topic/a"), "there is no action"), (("iot:Publish", "client/a"), "is like"),
    ):
        allowed, said = asked(*words)
        assert not allowed and why in said, said
    assert "not registered" in explain(skein, "--certificate", "0" * 64, "iot:Publish", "topic/a")[1]
    assert "certificateId" in explain(skein, "--certificate", "x", "iot:Publish", "topic/a")[1]
    by_arn = explain(skein, "--certificate", arn, "--client-id", name, "iot:Connect", f"client/{name}")
    assert by_arn == asked("iot:Connect", f"client/{name}")
    for wrong in (arn.replace("000000000000", "111111111111"), arn.replace(":cert/", ":thing/")):
        allowed, said = explain(skein, "--certificate", wrong, "iot:Publish", "topic/a")
        assert not allowed and wrong in said and "arn:aws:iot:us-east-1:000000000000:cert/" in said, said
