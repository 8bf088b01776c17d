"""Custom authorizers: boto3 for what there is, and clients of all kinds that one lets in or keeps out."""

import base64
import contextlib
import datetime
import http.server
import json
import queue
import socket
import threading
import urllib.parse
from functools import partial

import awscrt.http
import awscrt.mqtt
import paho.mqtt.client as paho
import pytest
import requests
from awsiot import mqtt5_client_builder, mqtt_connection_builder
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

import rawmqtt as m
from brokers import ACCOUNT, REGION, wait_until
from test_authorities import refused

pytestmark = pytest.mark.skein
WAIT = 15
NAME, SIGNATURE = "x-amz-customauthorizer-name", "x-amz-customauthorizer-signature"
NOT_AUTHORIZED = {4: 5, 5: 0x87}
KEY = rsa.generate_private_key(65537, 2048)


def public_pem(key):
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


def sign(token, key=KEY, hash=hashes.SHA256()):
    return base64.b64encode(key.sign(token.encode(), padding.PKCS1v15(), hash)).decode()


def arn(kind, name):
    return f"arn:aws:iot:{REGION}:{ACCOUNT}:{kind}/{name}"


def document(name):
    """Everything under the name of the test."""
    return {"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "iot:Connect", "Resource": arn("client", "${iot:ClientId}")},
        {"Effect": "Allow", "Action": ["iot:Publish", "iot:Receive", "iot:RetainPublish"], "Resource": arn("topic", f"{name}/*")},
        {"Effect": "Allow", "Action": "iot:Subscribe", "Resource": arn("topicfilter", f"{name}/*")},
        {"Effect": "Allow", "Action": ["iot:GetThingShadow", "iot:UpdateThingShadow"], "Resource": arn("thing", name)},
    ]}


def granted(name, **more):
    return {
        "isAuthenticated": True, "principalId": "Principal1", "disconnectAfterInSeconds": 86_400,
        "refreshAfterInSeconds": 300, "policyDocuments": [json.dumps(document(name))],
    } | more


class Function(http.server.BaseHTTPRequestHandler):
    """Who is asked; `answer` is what it says."""

    def do_POST(self):
        self.asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        if self.go_on:
            self.go_on.wait(WAIT)
        answer = type(self).__dict__["answer"]
        answer = answer(self.asked[-1]) if callable(answer) else answer
        status, answer = answer if isinstance(answer, tuple) else (self.status, answer)
        self.send_response(status)
        self.send_header("location", "http://127.0.0.1:1/")
        self.end_headers()
        answer = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        with contextlib.suppress(OSError):
            self.wfile.write(answer)

    def log_message(self, *_):
        pass


@pytest.fixture
def function(name):
    class Own(Function):
        asked, answer, status, go_on = [], granted(name), 200, None

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Own)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    Own.url = f"http://127.0.0.1:{server.server_port}/decide?secret=SecretOfAddress"
    yield Own
    if Own.go_on:
        Own.go_on.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def iot(skein):
    """Says what it is told, also what boto3 knows to be wrong."""
    return skein.boto("iot", parameter_validation=False)


@pytest.fixture
def made(iot, function, name):
    """Makes authorizers that go with the test: active ones without signatures, if nothing else is said."""
    names = []

    def make(name=name, **more):
        names.append(name)
        given = {"authorizerFunctionArn": function.url, "status": "ACTIVE", "signingDisabled": True} | more
        return iot.create_authorizer(authorizerName=name, **given)

    yield make
    with contextlib.suppress(iot.exceptions.ResourceNotFoundException):
        iot.clear_default_authorizer()
    for name in names:
        with contextlib.suppress(iot.exceptions.ResourceNotFoundException):
            iot.update_authorizer(authorizerName=name, status="INACTIVE")
            iot.delete_authorizer(authorizerName=name)


SIGNED = {"signingDisabled": False, "tokenKeyName": "MyToken", "tokenSigningPublicKeys": {"first": public_pem(KEY)}}


@pytest.fixture
def enter(dial, name):
    """CONNECT over TLS without a certificate; gives the client with its CONNACK."""

    def enter(username=f"user?{NAME}={name}", version=5, alpn="mqtt", listener="wss", **more):
        client = dial(version, listener, device=None, alpn=alpn) if listener == "wss" else dial(version, listener)
        more = {"password": username and b"SecretOfUser"} | more
        client.connack = client.connect(more.pop("client_id", name), check=False, username=username, **more)
        return client

    return enter


def test_an_authorizer_is_described_as_it_was_made(iot, function, made, name):
    tags = [{"Key": "k", "Value": "v"}]
    answer = made(**SIGNED, status="INACTIVE", tags=tags, enableCachingForHttp=True)
    assert (answer["authorizerName"], answer["authorizerArn"]) == (name, arn("authorizer", name))
    found = iot.describe_authorizer(authorizerName=name)["authorizerDescription"]
    created = found.pop("creationDate")
    assert found.pop("lastModifiedDate") == created
    assert abs(created - datetime.datetime.now(datetime.timezone.utc)) < datetime.timedelta(minutes=5)
    assert found == SIGNED | {
        "authorizerName": name, "authorizerArn": arn("authorizer", name), "authorizerFunctionArn": function.url,
        "status": "INACTIVE", "enableCachingForHttp": True,
    }
    assert iot.list_tags_for_resource(resourceArn=answer["authorizerArn"])["tags"] == tags
    plain = f"{name}-plain"
    iot.create_authorizer(authorizerName=plain, authorizerFunctionArn=function.url, signingDisabled=True)
    found = iot.describe_authorizer(authorizerName=plain)["authorizerDescription"]
    assert (found["status"], found["enableCachingForHttp"], "tokenKeyName" in found) == ("INACTIVE", False, False)
    iot.delete_authorizer(authorizerName=plain)


def test_an_authorizer_changes_and_goes(iot, made, name):
    made(**SIGNED)
    other = {"second": public_pem(rsa.generate_private_key(65537, 3072))}
    iot.update_authorizer(
        authorizerName=name, authorizerFunctionArn="https://auth.example/", tokenKeyName="t", tokenSigningPublicKeys=other,
        enableCachingForHttp=True,
    )
    found = iot.describe_authorizer(authorizerName=name)["authorizerDescription"]
    assert (found["authorizerFunctionArn"], found["tokenKeyName"]) == ("https://auth.example/", "t")
    assert (found["tokenSigningPublicKeys"], found["enableCachingForHttp"], found["status"]) == (other, True, "ACTIVE")
    assert found["lastModifiedDate"] > found["creationDate"]
    refused(iot.delete_authorizer, "DeleteConflictException", 409, authorizerName=name)
    iot.update_authorizer(authorizerName=name, status="INACTIVE")
    iot.delete_authorizer(authorizerName=name)
    for call in (iot.describe_authorizer, iot.update_authorizer, iot.delete_authorizer, iot.set_default_authorizer):
        refused(call, "ResourceNotFoundException", 404, authorizerName=name)
    refused(iot.test_invoke_authorizer, "ResourceNotFoundException", 404, authorizerName=name)


def test_an_authorizer_is_there_once(iot, function, made, name):
    made()
    given = dict(authorizerName=name, authorizerFunctionArn=function.url, signingDisabled=True)
    answer = refused(iot.create_authorizer, "ResourceAlreadyExistsException", 409, **given)
    assert (answer["resourceId"], answer["resourceArn"]) == (name, arn("authorizer", name))


WEAK = (
    "-----BEGIN PUBLIC KEY-----\n"
    "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDPDeI2fNJ/Sqq/Dku3w4VA60Zo4jGcg7l/OOiFsKeU5mm53zzEy8wMFPNwBquKkB27Hq0+JfRM"
    "aPLtwGyllRe+bSCzkaBucLycsh6tLvFFmPRiX4juyswPGzWWUZj2J1kEre1oAaj9c2Zs6a+wMcGbvWBMhMWbbtgHYe/bV6a6NwIDAQAB\n"
    "-----END PUBLIC KEY-----\n"
)


@pytest.mark.parametrize("wrong", [
    {"authorizerFunctionArn": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:f"},
    {"authorizerFunctionArn": "https://user:secret@auth.example/"},
    {"authorizerFunctionArn": "ftp://auth.example/"},
    {"authorizerFunctionArn": f"https://auth.example/{'x' * 2048}"},
    {"authorizerFunctionArn": ""},
    {"authorizerName": "x" * 129},
    {"authorizerName": "a.b"},
    {"status": "active"},
    {"tokenKeyName": ""},
    {"tokenKeyName": "a b"},
    {"tokenKeyName": "x" * 129},
    {"tokenSigningPublicKeys": {}},
    {"tokenSigningPublicKeys": {"a b": public_pem(KEY)}},
    {"tokenSigningPublicKeys": {"first": "key"}},
    {"tokenSigningPublicKeys": {"first": WEAK}},
    {"tokenSigningPublicKeys": {"first": public_pem(ec.generate_private_key(ec.SECP256R1()))}},
    {"tokenSigningPublicKeys": {f"k{number}": public_pem(KEY) for number in range(11)}},
])
def test_wrong_authorizers_are_refused(iot, made, name, wrong):
    given = {"authorizerName": name, "authorizerFunctionArn": "https://auth.example/"} | SIGNED
    refused(partial(iot.create_authorizer, **(given | wrong)), "InvalidRequestException", 400)
    made(**SIGNED)
    before = iot.describe_authorizer(authorizerName=name)["authorizerDescription"]
    refused(partial(iot.update_authorizer, **({"authorizerName": name} | wrong)), "InvalidRequestException", 400)
    assert iot.describe_authorizer(authorizerName=name)["authorizerDescription"] == before


@pytest.mark.parametrize("missing", ["authorizerFunctionArn", "tokenKeyName", "tokenSigningPublicKeys"])
def test_what_an_authorizer_needs(iot, name, missing):
    given = {"authorizerName": name, "authorizerFunctionArn": "https://auth.example/"} | SIGNED
    del given[missing]
    refused(iot.create_authorizer, "InvalidRequestException", 400, **given)


def test_the_default_authorizer(iot, made, name):
    refused(iot.describe_default_authorizer, "ResourceNotFoundException", 404)
    refused(iot.clear_default_authorizer, "ResourceNotFoundException", 404)
    made()
    made(f"{name}-other")
    answer = iot.set_default_authorizer(authorizerName=name)
    assert (answer["authorizerName"], answer["authorizerArn"]) == (name, arn("authorizer", name))
    assert iot.describe_default_authorizer()["authorizerDescription"]["authorizerName"] == name
    refused(iot.set_default_authorizer, "ResourceAlreadyExistsException", 409, authorizerName=f"{name}-other")
    iot.update_authorizer(authorizerName=name, status="INACTIVE")
    refused(iot.delete_authorizer, "DeleteConflictException", 409, authorizerName=name)
    iot.clear_default_authorizer()
    iot.delete_authorizer(authorizerName=name)


def test_authorizers_are_listed(iot, made, name):
    names = [f"{name}-{number}" for number in range(5)]
    for number, each in enumerate(names):
        made(each, status="ACTIVE" if number % 2 else "INACTIVE")
    pages = iot.get_paginator("list_authorizers").paginate(ascendingOrder=True, PaginationConfig={"PageSize": 2})
    found = [one for one in pages.search("authorizers[]") if one["authorizerName"].startswith(name)]
    assert found == [{"authorizerName": each, "authorizerArn": arn("authorizer", each)} for each in names]
    active = iot.list_authorizers(status="ACTIVE")["authorizers"]
    assert [one["authorizerName"] for one in active if one["authorizerName"].startswith(name)] == [names[3], names[1]]
    refused(partial(iot.list_authorizers, status="active"), "InvalidRequestException", 400)


def test_nobody_reaches_the_admin_listener_by_a_function(skein, iot, made, name):
    address = "http://%s:%d/admin/backup" % skein.address("admin")
    made(authorizerFunctionArn=address, signingDisabled=True, status="INACTIVE")
    answer = refused(iot.test_invoke_authorizer, "InvalidResponseException", 400, authorizerName=name)
    assert "status 403" in answer["Error"]["Message"], answer


def test_an_authorizer_is_tried(iot, function, made, name):
    made(**SIGNED, status="INACTIVE")
    answer = iot.test_invoke_authorizer(
        authorizerName=name, token="t", tokenSignature=sign("t"), tlsContext={"serverName": "iot.example"},
        httpContext={"headers": {"a": "1"}, "queryString": "?k=v"},
        mqttContext={"username": "user", "password": b"pw", "clientId": "c"},
    )
    assert answer.pop("ResponseMetadata") and answer == granted(name)
    [asked] = function.asked
    assert asked.pop("connectionMetadata")["id"]
    headers = {"mytoken": "t", SIGNATURE: sign("t"), "a": "1"}
    assert asked == {
        "token": "t", "signatureVerified": True, "protocols": ["tls", "http", "mqtt"], "protocolData": {
            "tls": {"serverName": "iot.example"}, "http": {"headers": headers, "queryString": "?k=v"},
            "mqtt": {"username": "user", "password": base64.b64encode(b"pw").decode(), "clientId": "c"},
        },
    }
    function.answer = {"isAuthenticated": False}
    answer = iot.test_invoke_authorizer(authorizerName=name, token="t", tokenSignature=sign("t"))
    assert (answer["isAuthenticated"], "principalId" in answer) == (False, False)
    function.answer = granted(name, principalId="a b")
    answer = refused(
        iot.test_invoke_authorizer, "InvalidResponseException", 400, authorizerName=name, token="t", tokenSignature=sign("t")
    )
    assert "principalId" in answer["message"]
    count = len(function.asked)
    for wrong in ({}, {"token": "t"}, {"token": "t", "tokenSignature": sign("u")}, {"tokenSignature": sign("t")}):
        refused(iot.test_invoke_authorizer, "InvalidRequestException", 400, authorizerName=name, **wrong)
    assert len(function.asked) == count


@pytest.mark.parametrize("version", [4, 5])
def test_who_is_let_in_does_what_it_may(skein, function, made, enter, name, version):
    made()
    client = enter(version=version)
    assert client.connack.reason == 0
    [asked] = function.asked
    assert asked.pop("connectionMetadata")["id"]
    assert asked == {"signatureVerified": False, "protocols": ["tls", "mqtt"], "protocolData": {
        "tls": {"serverName": "localhost"},
        "mqtt": {
            "username": f"user?{NAME}={name}", "password": base64.b64encode(b"SecretOfUser").decode(), "clientId": name,
        },
    }}
    assert client.subscribe(f"{name}/#", qos=1) == [1]
    client.publish(f"{name}/a", b"x", qos=1)
    assert client.receive().payload == b"x"
    assert client.subscribe("elsewhere/#", check=False) == [{4: 0x80, 5: 0x87}[version]]
    client.send(m.publish("elsewhere/a", b"x", 0, version=version))
    client.refused(NOT_AUTHORIZED[5])
    assert len(function.asked) == 1


def test_it_is_known_by_its_principal_id(skein, made, enter, connected, name):
    watcher = connected()
    watcher.subscribe(f"$aws/events/presence/+/{name}", qos=1)
    made()
    client = enter(version=5)
    told = json.loads(watcher.receive().payload)
    assert (told["eventType"], told["principalIdentifier"]) == ("connected", "Principal1")
    assert skein.boto("iot-data").get_connection(clientId=name)["connected"]
    client.disconnect()
    told = json.loads(watcher.receive().payload)
    assert (told["principalIdentifier"], told["disconnectReason"]) == ("Principal1", "CLIENT_INITIATED_DISCONNECT")


def test_a_will_is_checked(made, function, enter, connected, name):
    made()
    assert enter(will=m.Will("elsewhere/will")).connack.reason == 0x87
    watcher = connected()
    watcher.subscribe(f"{name}/will", qos=1)
    client = enter(will=m.Will(f"{name}/will", b"gone"))
    assert client.connack.reason == 0
    client.cut()
    assert watcher.receive().payload == b"gone"


def test_a_will_that_waits_needs_the_authorizer(iot, made, function, enter, connected, name):
    watcher = connected()
    watcher.subscribe(f"{name}/#", qos=1)
    for authorizer in (f"{name}-withdrawn", f"{name}-other"):
        made(authorizer)
        client = enter(
            f"user?{NAME}={authorizer}", client_id=authorizer, props={"session_expiry_interval": 60},
            will=m.Will(f"{name}/{authorizer}", b"gone", 1, props={"will_delay_interval": 2}),
        )
        assert client.connack.reason == 0
        client.cut()
    iot.update_authorizer(authorizerName=f"{name}-withdrawn", status="INACTIVE")
    # That of the other one comes, and alone.
    assert watcher.receive(timeout=10).topic == f"{name}/{name}-other"
    watcher.nothing_more()


def test_a_signed_token(made, function, enter, name):
    made(**SIGNED | {"tokenSigningPublicKeys": {"other": public_pem(rsa.generate_private_key(65537, 2048)), "mine": public_pem(KEY)}})
    quoted = urllib.parse.quote(sign("the token"), safe="")
    client = enter(f"?{NAME}={name}&MyToken=the%20token&{SIGNATURE}={quoted}")
    assert client.connack.reason == 0
    [asked] = function.asked
    assert (asked["token"], asked["signatureVerified"]) == ("the token", True)


@pytest.mark.parametrize("parameters", [
    {},
    {"MyToken": "t"},
    {SIGNATURE: sign("t")},
    {"MyToken": "", SIGNATURE: sign("")},
    {"MyToken": "T", SIGNATURE: sign("t")},
    {"MyToken": "t", SIGNATURE: sign("t", rsa.generate_private_key(65537, 2048))},
    {"MyToken": "t", SIGNATURE: sign("t", hash=hashes.SHA512())},
    {"MyToken": "t", SIGNATURE: "no base64"},
    {"MyToken": "t", SIGNATURE: sign("t").rstrip("=")},
    {"Other": "t", SIGNATURE: sign("t")},
])
@pytest.mark.parametrize("version", [4, 5])
def test_a_token_that_is_not_signed_is_shown_to_nobody(made, function, enter, name, parameters, version):
    made(**SIGNED)
    client = enter("?" + urllib.parse.urlencode({NAME: name} | parameters, quote_via=urllib.parse.quote), version)
    assert client.connack.reason == NOT_AUTHORIZED[version]
    client.closed()
    assert function.asked == []


@pytest.mark.parametrize("status, answer, label", [
    (500, None, "failed"),
    (302, None, "failed"),
    (200, b"", "invalid_answer"),
    (200, b"no", "invalid_answer"),
    (200, b"[]", "invalid_answer"),
    (200, b"[" * 60_000, "invalid_answer"),
    (200, b'{"isAuthenticated": true, "padding": "' + b"x" * 70_000 + b'"}', "invalid_answer"),
    (200, json.dumps(granted("x")).encode().replace(b"{", b'{"isAuthenticated": false, ', 1), "invalid_answer"),
    (200, json.dumps(granted("x", policyDocuments=[document("x")])).encode().replace(b'"Effect": "Allow"', b'"Effect": "Deny", "Effect": "Allow"'), "invalid_answer"),
    (200, {"isAuthenticated": False}, "not_authenticated"),
    (200, {"isAuthenticated": "true"}, "invalid_answer"),
    (200, {"principalId": ""}, "invalid_answer"),
    (200, {"principalId": "a-b"}, "invalid_answer"),
    (200, {"principalId": "x" * 129}, "invalid_answer"),
    (200, {"disconnectAfterInSeconds": 299}, "invalid_answer"),
    (200, {"refreshAfterInSeconds": 86_401}, "invalid_answer"),
    (200, {"refreshAfterInSeconds": None}, "invalid_answer"),
    (200, {"policyDocuments": ["{}"]}, "invalid_answer"),
    (200, {"policyDocuments": [json.dumps(document("x"))] * 11}, "invalid_answer"),
    (200, {"policyDocuments": [json.dumps(document("x" * 2048))]}, "invalid_answer"),
])
def test_anything_but_a_yes_is_a_no(skein, made, function, enter, name, status, answer, label):
    made()
    function.status = status
    function.answer = answer if isinstance(answer, bytes) else granted(name) | (answer or {})
    sample = f'authorizer_decisions_total{{result="{label}"}}'
    before = skein.metrics()[sample]
    client = enter()
    assert client.connack.reason == 0x87
    client.closed()
    assert len(function.asked) == 1
    assert skein.metrics()[sample] == before + 1


def test_what_keeps_a_client_out_is_told_and_no_secret(skein, made, function, enter, name):
    made(**SIGNED)
    function.answer = granted(name, principalId="Secret Principal")
    token = "SecretOfToken"
    enter(f"?{NAME}={name}&MyToken={token}&{SIGNATURE}={urllib.parse.quote(sign(token), safe='')}")
    wait_until("it is told", lambda: 'outcome="not let in"' in skein.tail(200))
    [line, *_] = [line for line in skein.tail(200).splitlines() if "not let in" in line and name in line]
    assert "principalId" in line and "remedy" in line
    assert "Secret" not in skein.tail(200)


def test_a_function_that_is_not_there_or_too_slow(skein, made, iot, function, enter, name):
    made()
    iot.update_authorizer(authorizerName=name, authorizerFunctionArn="http://127.0.0.1:1/")
    assert enter().connack.reason == 0x87
    function.go_on = threading.Event()
    iot.update_authorizer(authorizerName=name, authorizerFunctionArn=function.url)
    assert enter().connack.reason == 0x87
    samples = skein.metrics()
    assert samples['authorizer_decisions_total{result="timeout"}'] >= 1


@pytest.mark.parametrize("version", [4, 5])
def test_who_means_no_authorizer_or_none_that_is_active(made, function, enter, name, version):
    reason = NOT_AUTHORIZED[version]
    made(status="INACTIVE")
    for username in (
        f"?{NAME}={name}", f"?{NAME}={name}-other", f"?{NAME}=", f"?{NAME}=%ff", "user", "?SDK=Python&Version=1", None,
    ):
        assert enter(username, version).connack.reason == reason, username
    assert function.asked == []


def test_the_default_is_asked_when_none_is_named(made, iot, function, enter, name):
    made()
    iot.set_default_authorizer(authorizerName=name)
    assert enter("user").connack.reason == 0
    assert enter(None, password=None, client_id=f"{name}-2").connack.reason == 0
    assert enter(f"?{NAME}={name}-other").connack.reason == 0x87
    # This listener has a policy for clients that prove nothing.
    assert enter("user", listener="plain", client_id=f"{name}-3").connack.reason == 0
    assert len(function.asked) == 2
    iot.clear_default_authorizer()
    assert enter("user").connack.reason == 0x87


def test_a_listener_with_a_policy_asks_whom_the_client_names(made, function, enter, name):
    made()
    client = enter(listener="plain")
    assert client.connack.reason == 0
    assert client.subscribe("elsewhere/#", check=False) == [0x87]
    function.answer = {"isAuthenticated": False}
    assert enter(listener="plain").connack.reason == 0x87
    assert function.asked[0]["protocols"] == ["mqtt"]


def test_a_certificate_needs_no_authorizer(skein, made, iot, function, dial, name):
    made()
    iot.set_default_authorizer(authorizerName=name)
    for listener, alpn in (("tls", None), ("wss", "mqtt"), ("wss", "x-amzn-mqtt-ca")):
        client = dial(5, listener, alpn=alpn)
        client.connect("dev-thing", username=f"?{NAME}={name}", password=b"p")
        client.disconnect()
    assert function.asked == []


def test_the_protocol_of_certificates_asks_no_authorizer(made, function, enter):
    made()
    assert enter(alpn="x-amzn-mqtt-ca").connack.reason == 0x87
    assert function.asked == []


def test_too_much_is_not_looked_at(made, function, enter, name):
    made()
    assert enter(username=f"{'u' * 60_000}?{NAME}={name}", password=b"p" * 65_000).connack.reason == 0
    assert enter(username=f"{'u' * 65_000}?{NAME}={name}", password=b"p" * 65_535, client_id=f"{name}{'c' * 2000}").connack.reason == 0x87
    assert len(function.asked) == 1


def test_whom_it_has_let_in_goes_with_it(made, iot, function, enter, name):
    made()
    first = enter()
    assert first.connack.reason == 0
    iot.update_authorizer(authorizerName=name, authorizerFunctionArn=function.url, enableCachingForHttp=True)
    first.ping()
    iot.update_authorizer(authorizerName=name, status="INACTIVE")
    first.refused(0x87)
    assert enter().connack.reason == 0x87
    iot.update_authorizer(authorizerName=name, status="ACTIVE")
    assert enter().connack.reason == 0


@pytest.mark.timeout(600)
def test_it_is_asked_again_and_connections_end(request, made, function, enter, connected, name):
    """The shortest times that an authorizer can give are five minutes."""
    if not request.config.getoption("--slow"):
        pytest.skip("waits for five minutes: --slow")
    made()
    watcher = connected()
    watcher.subscribe(f"$aws/events/presence/disconnected/{name}-over", qos=1)
    stays, goes = enter(client_id=f"{name}-stays", keep_alive=0), enter(client_id=f"{name}-goes", keep_alive=0)
    waits = enter(client_id=f"{name}-waits", keep_alive=0)
    function.answer = granted(name, disconnectAfterInSeconds=300, refreshAfterInSeconds=86_400)
    over = enter(client_id=f"{name}-over", keep_alive=0)
    assert [it.connack.reason for it in (stays, goes, waits, over)] == [0] * 4
    assert stays.subscribe(f"{name}-2/#", check=False) == [0x87]

    def asked_about(client):
        return [it for it in function.asked if it["protocolData"]["mqtt"]["clientId"] == f"{name}-{client}"]

    def answer(asked):
        client = asked["protocolData"]["mqtt"]["clientId"]
        if client.endswith("-goes"):
            return {"isAuthenticated": False}
        if client.endswith("-waits") and len(asked_about("waits")) == 2:
            return 500, {}
        return granted(f"{name}-2")

    function.answer = answer
    over.refused(0x87, timeout=400)
    told = json.loads(watcher.receive().payload)
    assert told["disconnectReason"] == "CUSTOMAUTH_TTL_EXPIRATION"
    goes.refused(0x87, timeout=400)
    wait_until("the policy is another", lambda: stays.subscribe(f"{name}-2/#", check=False) == [0], seconds=60, every=1)
    assert stays.subscribe(f"{name}/#", check=False) == [0x87]
    first, again = asked_about("stays")
    assert first == again
    # A function that fails decides nothing: it is asked again.
    assert waits.subscribe(f"{name}/#", check=False) == [0]
    wait_until("it was asked once more", lambda: len(asked_about("waits")) == 3, seconds=90, every=1)
    wait_until("the policy is another", lambda: waits.subscribe(f"{name}-2/#", check=False) == [0], seconds=10, every=1)


@pytest.fixture
def tunnel(skein):
    """A proxy that leads to the broker: builders of the SDK insist on port 443."""
    server = socket.create_server(("127.0.0.1", 0))
    ends = []

    def copy(one, other):
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve():
        with contextlib.suppress(OSError):
            while True:
                one, _ = server.accept()
                head = b""
                while b"\r\n\r\n" not in head:
                    head += one.recv(4096)
                assert head.startswith(b"CONNECT localhost:443 ")
                other = socket.create_connection(("127.0.0.1", skein.port("wss")))
                ends.extend((one, other))
                one.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                for pair in ((one, other), (other, one)):
                    threading.Thread(target=copy, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield awscrt.http.HttpProxyOptions(
        "127.0.0.1", server.getsockname()[1], connection_type=awscrt.http.HttpProxyConnectionType.Tunneling
    )
    server.close()
    for end in ends:
        end.close()


@pytest.mark.parametrize("how", ["direct", "websockets"])
def test_the_sdk_311(skein, made, function, tunnel, name, how):
    made(**SIGNED)
    more = dict(
        endpoint="localhost", client_id=name, ca_filepath=skein.ca, auth_username="user", auth_password="pw",
        auth_authorizer_name=name, auth_token_key_name="MyToken", auth_token_value="t", auth_authorizer_signature=sign("t"),
    )
    if how == "direct":
        connection = mqtt_connection_builder.direct_with_custom_authorizer(http_proxy_options=tunnel, **more)
    else:
        connection = mqtt_connection_builder.websockets_with_custom_authorizer(port=skein.port("wss"), **more)
    connection.connect().result(WAIT)
    got = queue.Queue()
    done, _ = connection.subscribe(
        f"{name}/a", awscrt.mqtt.QoS.AT_LEAST_ONCE, lambda topic, payload, **_: got.put(payload)
    )
    done.result(WAIT)
    done, _ = connection.publish(f"{name}/a", "x", awscrt.mqtt.QoS.AT_LEAST_ONCE)
    done.result(WAIT)
    assert got.get(timeout=WAIT) == b"x"
    connection.disconnect().result(WAIT)
    [asked] = function.asked
    assert asked["signatureVerified"] and asked["token"] == "t"
    assert asked["protocols"] == {"direct": ["tls", "mqtt"], "websockets": ["tls", "http", "mqtt"]}[how]


@pytest.mark.parametrize("how", ["direct", "websockets"])
@pytest.mark.parametrize("is_good", [True, False])
def test_the_sdk_5(skein, made, function, tunnel, name, how, is_good):
    made(**SIGNED)
    ended = queue.Queue()
    more = dict(
        endpoint="localhost", client_id=name, ca_filepath=skein.ca, auth_username="user", auth_password=b"pw",
        auth_authorizer_name=name, auth_token_key_name="MyToken", auth_token_value="t",
        auth_authorizer_signature=sign("t" if is_good else "u"),
        on_lifecycle_connection_success=lambda event: ended.put(event.connack_packet.reason_code),
        on_lifecycle_connection_failure=lambda event: ended.put(event.connack_packet and event.connack_packet.reason_code),
    )
    if how == "direct":
        client = mqtt5_client_builder.direct_with_custom_authorizer(http_proxy_options=tunnel, **more)
    else:
        client = mqtt5_client_builder.websockets_with_custom_authorizer(port=skein.port("wss"), **more)
    client.start()
    assert ended.get(timeout=WAIT) == (0 if is_good else 0x87)
    client.stop()
    assert bool(function.asked) == is_good


@pytest.mark.parametrize("where", ["header", "query"])
def test_a_websocket_names_it_in_its_request(skein, made, function, name, where):
    made(**SIGNED)
    given = {NAME: name, "MyToken": "t", SIGNATURE: sign("t")}
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=name, transport="websockets")
    path = "/mqtt" if where == "header" else f"/mqtt?{urllib.parse.urlencode(given)}"
    client.ws_set_options(path=path, headers=given if where == "header" else None)
    client.tls_set(skein.ca)
    reasons = queue.Queue()
    client.on_connect = lambda client, data, flags, reason, props: reasons.put(reason)
    client.connect("localhost", skein.port("wss"))
    client.loop_start()
    assert reasons.get(timeout=WAIT) == 0
    client.disconnect()
    client.loop_stop()
    [asked] = function.asked
    assert (asked["token"], asked["protocols"]) == ("t", ["tls", "http", "mqtt"])
    assert asked["protocolData"]["http"]["headers"]["upgrade"].lower() == "websocket"


@pytest.fixture
def https(skein):
    """Requests without a certificate."""
    with requests.Session() as session:
        session.trust_env = False
        session.verify = skein.ca
        session.base = f"https://localhost:{skein.port('wss')}"
        yield session


@pytest.mark.parametrize("where", ["header", "query"])
def test_https(made, function, https, connected, name, where):
    made(**SIGNED)
    subscriber = connected()
    subscriber.subscribe(f"{name}/a", qos=1)
    given = {NAME: name, "MyToken": "t", SIGNATURE: sign("t")}
    more = {"headers": given} if where == "header" else {"params": given}
    answer = https.post(f"{https.base}/topics/{name}/a?qos=1", data="x", **more)
    assert answer.status_code == 200, answer.text
    assert subscriber.receive().payload == b"x"
    [asked] = function.asked
    assert (asked["protocols"], asked["token"], asked["signatureVerified"]) == (["tls", "http"], "t", True)
    assert asked["protocolData"]["http"]["queryString"].startswith("?qos=1")
    assert https.post(f"{https.base}/topics/elsewhere?qos=1", data="x", **more).status_code == 403
    shadow = f"{https.base}/things/{name}/shadow"
    assert https.post(shadow, json={"state": {"desired": {"a": 1}}}, **more).status_code == 200
    assert https.get(shadow, **more).json()["state"] == {"desired": {"a": 1}, "delta": {"a": 1}}
    assert https.delete(shadow, **more).status_code == 403
    # Without caching each one is asked about.
    assert len(function.asked) == 5


@pytest.mark.parametrize("wrong", [
    {NAME: "no-such"}, {SIGNATURE: ""}, {SIGNATURE: sign("u")}, {"MyToken": ""}, {"MyToken": "u"},
])
def test_https_without_a_good_token(made, function, https, name, wrong):
    made(**SIGNED)
    given = {NAME: name, "MyToken": "t", SIGNATURE: sign("t")} | wrong
    answer = https.post(f"{https.base}/topics/{name}/a?qos=1", data="x", headers=given)
    assert (answer.status_code, function.asked) == (403, [])
    assert answer.json()["message"] == "Forbidden" and answer.json()["traceId"]


def test_https_asks_nobody_without_need(made, function, https, name):
    made()
    for path in ("/nowhere", f"/role-aliases/{name}/credentials"):
        assert https.get(https.base + path, headers={NAME: name}).status_code in (403, 404)
    assert https.post(f"{https.base}/topics/{name}/a", data="x").status_code == 403
    assert function.asked == []
    function.answer = {"isAuthenticated": False}
    assert https.post(f"{https.base}/topics/{name}/a", data="x", headers={NAME: name}).status_code == 403
    assert len(function.asked) == 1


def test_https_answers_are_kept_for_the_same_request(made, iot, function, https, name):
    made(enableCachingForHttp=True)
    publish = lambda **more: https.post(f"{https.base}/topics/{name}/a", data="x", headers={NAME: name} | more).status_code
    assert [publish() for _ in range(3)] == [200] * 3
    assert len(function.asked) == 1
    assert publish(other="1") == 200
    assert len(function.asked) == 2
    iot.update_authorizer(authorizerName=name, enableCachingForHttp=True)
    function.answer = {"isAuthenticated": False}
    # No answer is kept that lets nobody in.
    assert [publish() for _ in range(2)] == [403] * 2
    assert len(function.asked) == 4
    function.answer = granted(name)
    assert publish() == 200
    iot.update_authorizer(authorizerName=name, status="INACTIVE")
    assert publish() == 403
    assert len(function.asked) == 5
