"""HTTPS on 8443: publishing, retained messages and shadows, with a certificate and with SigV4."""

import base64
import http.client
import json
import socket
import subprocess

import pytest
import requests

import aws
import rawmqtt as m
from brokers import policy, wait_until

pytestmark = pytest.mark.skein


@pytest.fixture
def https(skein):
    """Requests with the device's certificate."""
    with requests.Session() as session:
        # An environment variable of the machine would win over `verify`.
        session.trust_env = False
        session.verify, session.cert = skein.ca, skein.device
        session.base = f"https://localhost:{skein.port('wss')}"
        yield session


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("encoded", [True, False])
def test_publish(https, connected, name, qos, encoded):
    subscriber = connected()
    subscriber.subscribe(f"{name}/a b/#", qos=1)
    topic = f"{name}%2Fa%20b%2Fc" if encoded else f"{name}/a%20b/c"
    answer = https.post(f"{https.base}/topics/{topic}?qos={qos}", data=b"\0binary\xff")
    assert answer.status_code == 200, answer.text
    assert answer.json()["message"] == "OK"
    got = subscriber.receive()
    assert (got.topic, got.payload, got.qos) == (f"{name}/a b/c", b"\0binary\xff", qos)


def test_publish_with_properties(https, connected, name):
    subscriber = connected()
    subscriber.subscribe(name, qos=1)
    answer = https.post(
        f"{https.base}/topics/{name}",
        params={"qos": 1, "contentType": "text/plain", "responseTopic": "r", "messageExpiry": 60},
        headers={
            "x-amz-mqtt5-user-properties": base64.b64encode(b'[{"k":"v"},{"k":"w"}]').decode(),
            "x-amz-mqtt5-payload-format-indicator": "UTF8_DATA",
            "x-amz-mqtt5-correlation-data": base64.b64encode(b"\0\1").decode(),
        },
        data="x",
    )
    assert answer.status_code == 200, answer.text
    props = subscriber.receive().props
    assert 55 <= props.pop("message_expiry_interval") <= 60
    assert props == {
        "content_type": "text/plain", "response_topic": "r", "correlation_data": b"\0\1",
        "payload_format_indicator": 1, "user_property": [("k", "v"), ("k", "w")],
    }


@pytest.mark.parametrize("first", [True, False])
def test_publish_with_as_many_properties_as_there_may_be(https, connected, name, first):
    """Whether the request is the first of its connection or not."""
    subscriber = connected()
    subscriber.subscribe(name, qos=1)
    if not first:
        assert https.post(f"{https.base}/topics/{name}/x", data="x").status_code == 200
    properties = [{f"k{number}": "v" * 900} for number in range(8)]
    headers = {f"X-Other-{number}": "x" for number in range(80)}
    headers["x-amz-mqtt5-user-properties"] = base64.b64encode(json.dumps(properties).encode()).decode()
    answer = https.post(f"{https.base}/topics/{name}?qos=1", headers=headers, data="x")
    assert answer.status_code == 200, answer.text
    assert len(subscriber.receive().props["user_property"]) == 8


def test_publish_retained(https, connected, name):
    answer = https.post(f"{https.base}/topics/{name}?qos=1&retain=true", data="kept")
    assert answer.status_code == 200, answer.text
    subscriber = connected()
    subscriber.subscribe(name, qos=1)
    got = subscriber.receive()
    assert (got.payload, got.retain) == (b"kept", True)


@pytest.mark.parametrize("query", ["contentType=%FF", "responseTopic=%C3%28", "%FF=1", "qos=1&contentType=text%2F%ED%A0%80"])
def test_a_query_that_is_not_utf8_is_refused(https, connected, name, query):
    subscriber = connected()
    subscriber.subscribe(name, qos=1)
    answer = https.post(f"{https.base}/topics/{name}?{query}", data="x")
    assert answer.status_code == 400, answer.text
    assert answer.headers["x-amzn-errortype"] == "InvalidRequestException"
    assert "is not UTF-8" in answer.json()["message"]
    # Nothing was published.
    assert https.post(f"{https.base}/topics/{name}?qos=1&contentType=%C3%BC", data="y").status_code == 200
    got = subscriber.receive()
    assert (got.payload, got.props["content_type"]) == (b"y", "ü")


@pytest.mark.parametrize(
    "path,status",
    [("/topics/a%2F%23?qos=1", 400), ("/topics/a?qos=2", 400), ("/topics/a?qos=x", 400), ("/topics/", 400), ("/nowhere", 404)],
)
def test_wrong_requests(https, path, status):
    answer = https.post(https.base + path, data="x")
    assert answer.status_code in (status, 400, 403, 404), answer.text
    assert answer.json()["message"]


def test_a_head_that_is_too_large_is_answered_like_the_rest(https, skein):
    for answered in (
        https.post(f"{https.base}/topics/a", headers={"X-Long": "x" * 1_000_000}, data=b"x"),
        https.get(f"{https.base}/mqtt", headers={"Upgrade": "websocket", "X-Long": "x" * 20_000}),
        https.get(f"{https.base}/mqtt?X-Amz-Signature=a&t={'x' * 9_000}", headers={"Upgrade": "websocket"}),
        requests.get(f"{skein.http_url}/things", headers={"X-Long": "x" * 1_000_000}, timeout=10),
        requests.get(f"{skein.http_url}/things", headers={f"X-{number}": "x" for number in range(200)}, timeout=10),
    ):
        assert (answered.status_code, answered.headers["x-amzn-errortype"]) == (431, "RequestHeaderFieldsTooLargeException")
        assert answered.json()["message"]
    answered = requests.get(f"{skein.http_url}/things?a={'x' * 70_000}", timeout=10)
    assert (answered.status_code, answered.headers["x-amzn-errortype"]) == (414, "RequestUriTooLongException")


WEBSOCKET = (
    "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
)
REFUSED = {
    "head": ("GET / HTTP/1.1\r\na b: c\r\n\r\n", 400, "InvalidRequestException"),
    "no websocket": ("GET /mqtt HTTP/1.1\r\nHost: localhost\r\n\r\n", 404, "UnknownOperationException"),
    "path": (WEBSOCKET.replace("/mqtt", "/other"), 404, "UnknownOperationException"),
    "method": (WEBSOCKET.replace("GET", "POST"), 405, "MethodNotAllowedException"),
    "version": (WEBSOCKET.replace("Version: 13", "Version: 8"), 426, "InvalidRequestException"),
    "subprotocol": (WEBSOCKET.replace(": mqtt", ": amqp"), 400, "InvalidRequestException"),
    "signature": (WEBSOCKET.replace("/mqtt", "/mqtt?X-Amz-Signature=1"), 403, "MissingAuthenticationTokenException"),
}
MORE = {405: ("allow", "GET"), 426: ("sec-websocket-version", "13")}


@pytest.mark.parametrize("what", REFUSED)
def test_who_gets_no_websocket_is_answered_like_the_rest_and_counted_at_once(skein, what):
    request, status, code = REFUSED[what]
    counted = lambda: skein.metrics().get('gateway_connects_total{result="http"}', 0)
    before = counted()
    with socket.create_connection(skein.address("ws"), 10) as client:
        client.sendall(request.encode())
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert (answer.status, answer.headers["x-amzn-errortype"]) == (status, code)
        assert json.loads(answer.read())["message"]
        name, value = MORE.get(status, ("connection", "close"))
        assert answer.headers[name] == value

        def is_counted():
            # The connection lingers meanwhile: whoever goes on sending is not reset.
            client.sendall(b"x")
            return counted() > before

        wait_until("it is counted", is_counted)
        client.sendall(b"x")


def test_no_certificate(skein):
    answer = requests.post(f"https://localhost:{skein.port('wss')}/topics/a", verify=skein.ca, data="x")
    assert answer.status_code in (401, 403), answer.text


def test_curl(skein, connected, name):
    subscriber = connected()
    subscriber.subscribe(name, qos=1)
    certificate, key = skein.device
    done = subprocess.run(
        ["curl", "--silent", "--show-error", "--fail", "--cacert", skein.ca, "--cert", certificate, "--key", key,
         "--data", "hello", f"https://localhost:{skein.port('wss')}/topics/{name}?qos=1"],
        capture_output=True, text=True, timeout=20,
    )
    assert done.returncode == 0, done.stderr
    assert subscriber.receive().payload == b"hello"


def test_publish_is_decided_by_the_policy(skein, tmp_path, name):
    document = policy(("Allow", "iot:Publish", f"topic/{name}/ok"))
    identity = aws.Identity(skein, tmp_path, name, document)
    for topic, status in ((f"{name}/ok", 200), (f"{name}/other", 403)):
        answer = requests.post(
            f"https://localhost:{skein.port('wss')}/topics/{topic}?qos=1", verify=skein.ca, cert=identity.files, data="x"
        )
        assert answer.status_code == status, answer.text
    retained = requests.post(
        f"https://localhost:{skein.port('wss')}/topics/{name}/ok?qos=1&retain=true",
        verify=skein.ca, cert=identity.files, data="x",
    )
    assert retained.status_code == 403, retained.text


@pytest.mark.parametrize("dates", [(-7200, -3600), (3600, 7200)], ids=["expired", "not yet valid"])
def test_a_certificate_out_of_its_dates_publishes_nothing(skein, connected, tmp_path, name, dates):
    subscriber = connected()
    subscriber.subscribe(f"{name}/#", qos=1)
    document = policy(("Allow", "iot:Publish", f"topic/{name}/*"))

    def post(which, begins, ends):
        who = aws.Dated(skein, tmp_path, f"{name}-{which}", document, begins=begins, ends=ends)
        url = f"https://localhost:{skein.port('wss')}/topics/{name}/{which}?qos=1"
        return requests.post(url, verify=skein.ca, cert=who.files, data="x")

    with pytest.raises(requests.exceptions.ConnectionError):
        post("wrong", *dates)
    assert post("right", -3600, 3600).status_code == 200
    assert subscriber.receive().topic == f"{name}/right"
    subscriber.nothing_more()


@pytest.mark.parametrize("shadow", [None, "config"])
def test_shadow(https, skein, connected, shadow):
    thing = "dev-thing"
    url = f"{https.base}/things/{thing}/shadow" + (f"?name={shadow}" if shadow else "")
    https.delete(url)
    missing = https.get(url)
    assert missing.status_code == 404
    assert missing.json()["message"] == f"No shadow exists with name: '{shadow or thing}'"
    watcher = connected()
    prefix = f"$aws/things/{thing}/shadow" + (f"/name/{shadow}" if shadow else "")
    watcher.subscribe(f"{prefix}/update/#", qos=1)
    made = https.post(url, json={"state": {"desired": {"a": 1}}, "clientToken": "t"})
    assert made.status_code == 200, made.text
    assert made.json()["state"] == {"desired": {"a": 1}}
    assert made.json()["clientToken"] == "t"
    seen = {}
    for _ in range(3):
        got = watcher.receive()
        seen[got.topic.removeprefix(f"{prefix}/update/")] = json.loads(got.payload)
    assert set(seen) == {"accepted", "delta", "documents"}
    assert seen["delta"]["state"] == {"a": 1}
    whole = https.get(url).json()
    assert whole["state"] == {"desired": {"a": 1}, "delta": {"a": 1}}
    conflict = https.post(url, json={"state": {"desired": {"a": 2}}, "version": 999})
    assert conflict.status_code == 409, conflict.text
    assert https.post(url, data="{no json").status_code == 400
    assert https.delete(url).json()["version"] == whole["version"]


@pytest.mark.parametrize("service", ["iot-data"])
def test_boto_data_plane(skein, connected, name, service):
    client = skein.boto(service)
    subscriber = connected()
    subscriber.subscribe(f"{name}/#", qos=1)
    client.publish(topic=f"{name}/a", qos=1, payload=b"x", contentType="c", retain=True)
    got = subscriber.receive()
    assert (got.payload, got.props["content_type"]) == (b"x", "c")
    retained = client.get_retained_message(topic=f"{name}/a")
    assert (retained["payload"], retained["qos"]) == (b"x", 1)
    topics = [
        row["topic"]
        for page in client.get_paginator("list_retained_messages").paginate()
        for row in page["retainedTopics"]
    ]
    assert f"{name}/a" in topics
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.get_retained_message(topic=f"{name}/none")

    client.update_thing_shadow(thingName=name, payload=json.dumps({"state": {"reported": {"v": 1}}}))
    client.update_thing_shadow(thingName=name, shadowName="s", payload=json.dumps({"state": {"reported": {"v": 2}}}))
    assert aws.shadow_state(client.get_thing_shadow(thingName=name))["state"] == {"reported": {"v": 1}}
    assert aws.shadow_state(client.get_thing_shadow(thingName=name, shadowName="s"))["state"]["reported"] == {"v": 2}
    with pytest.raises(client.exceptions.ConflictException):
        client.update_thing_shadow(thingName=name, payload=json.dumps({"state": {"reported": {}}, "version": 77}))
    client.delete_thing_shadow(thingName=name)
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.get_thing_shadow(thingName=name)


def test_health_and_metrics(skein):
    assert skein.get("/livez")[0] == 200
    assert skein.get("/readyz")[0] == 200
    status, text = skein.get("/metrics")
    assert status == 200
    assert "# TYPE" in text


def test_what_is_logged_is_changed_while_the_node_runs(fresh_broker):
    def put(text):
        return requests.put("http://%s:%d/admin/log" % fresh_broker.address("admin"), text, timeout=5)

    refused = put("info,node=loud")
    assert refused.status_code == 400 and "info,node=loud" in refused.text
    assert fresh_broker.get("/admin/log") == (200, "info\n")
    assert "no connection" not in fresh_broker.tail()
    assert put("info,node=debug\n").status_code == 204
    assert "node=debug" in fresh_broker.get("/admin/log")[1]
    with m.Client(fresh_broker.plain) as client:
        client.send(b"\0\0")
        client.closed()
    wait_until("it says why", lambda: "no connection" in fresh_broker.tail())


def test_an_answer_that_did_not_wait_for_the_body_ends_the_connection_openly(skein):
    with socket.create_connection(skein.address("http"), 10) as client:
        client.sendall(b"POST /things/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert b"\r\nconnection: close\r\n" in answer.lower()
    # One that was read whole keeps its connection.
    with socket.create_connection(skein.address("http"), 10) as client:
        for _ in range(2):
            client.sendall(b"GET /things HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while b"}" not in answer:
                answer += client.recv(4096)
            assert answer.startswith(b"HTTP/1.1 403") and b"connection: close" not in answer.lower()
