"""Authorizers that need no function: JSON Web Tokens of issuers that the configuration names."""

import base64
import contextlib
import http.server
import json
import ssl
import threading
import time

import pytest
import requests
from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

import brokers
import rawmqtt as m
from brokers import ACCOUNT, REGION, wait_until
from test_authorities import refused

pytestmark = pytest.mark.skein
NAME = "x-amz-customauthorizer-name"
ISSUER = "https://id.example/realms/fleet"
RSA, OTHER = (rsa.generate_private_key(65537, 2048) for _ in range(2))
EC = ec.generate_private_key(ec.SECP256R1())
PUBLIC = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def encode(data):
    data = json.dumps(data).encode() if isinstance(data, dict) else data
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value, size):
    return encode(value.to_bytes(size, "big"))


def rsa_key(kid, key=RSA):
    public = key.public_key().public_numbers()
    return {"kty": "RSA", "use": "sig", "kid": kid, "n": number(public.n, 256), "e": number(public.e, 3)}


def ec_key(kid):
    public = EC.public_key().public_numbers()
    return {"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": kid, "x": number(public.x, 32), "y": number(public.y, 32)}


def rs256(message, key=RSA):
    return key.sign(message, padding.PKCS1v15(), hashes.SHA256())


def es256(message):
    r, s = utils.decode_dss_signature(EC.sign(message, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def hs256(message):
    """The public key, which everybody knows, as the secret."""
    mac = hmac.HMAC(PUBLIC, hashes.SHA256())
    mac.update(message)
    return mac.finalize()


def token(sign=rs256, alg="RS256", kid="rsa", head={}, **claims):
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": "skein", "sub": "lamp-1", "exp": now + 600, "line": "l1"} | claims
    head = {"alg": alg, "kid": kid} | head
    parts = [encode({name: value for name, value in part.items() if value is not None}) for part in (head, claims)]
    message = ".".join(parts)
    return f"{message}.{encode(sign(message.encode()))}"


def policy():
    arn = f"arn:aws:iot:{REGION}:{ACCOUNT}"
    return json.dumps({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "iot:Connect", "Resource": f"{arn}:client/${{jwt:sub}}"},
        {"Effect": "Allow", "Action": ["iot:Publish", "iot:Receive"], "Resource": f"{arn}:topic/${{jwt:line}}/*"},
        {"Effect": "Allow", "Action": "iot:Subscribe", "Resource": f"{arn}:topicfilter/${{jwt:line}}/*"},
        {"Effect": "Allow", "Action": "iot:Receive", "Resource": f"{arn}:topic/$aws/events/presence/*"},
        {"Effect": "Allow", "Action": "iot:Subscribe", "Resource": f"{arn}:topicfilter/$aws/events/presence/*"},
    ]})


class Jwks(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.asked.append(self.path)
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(json.dumps({"keys": self.keys}).encode())

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def jwks():
    class Own(Jwks):
        asked, keys = [], [rsa_key("rsa"), ec_key("ec")]

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Own)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    Own.url = f"http://127.0.0.1:{server.server_port}/keys"
    yield Own
    server.shutdown()
    server.server_close()


CONFIG = """
data = "{data}"
shards = 2
cores = 2
[listeners.mqtt]
address = "127.0.0.1:%(plain)d"
[listeners.https]
address = "127.0.0.1:%(wss)d"
[listeners.http]
address = "127.0.0.1:%(http)d"
[listeners.admin]
address = "127.0.0.1:%(admin)d"
[tls]
certificate = "%(pki)s/server.pem"
private_key = "%(pki)s/server.key"
issuer_certificate = "%(pki)s/ca.pem"
issuer_private_key = "%(pki)s/ca.key"
[[access_keys]]
id = "AKIATESTTESTTEST"
secret = "testtesttesttesttest"
"""
ISSUERS = """
[[jwt_issuers]]
name = "%s"
issuer = "%s"
audience = "skein"
jwks = "%s"
policy = '%s'
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory, jwks):
    """A node that knows an issuer by its address, one by its file, and one whose keys are nowhere."""
    folder = tmp_path_factory.mktemp("jwt")
    pki = folder / "pki"
    brokers.make_pki(pki)
    (folder / "keys.json").write_text(json.dumps({"keys": [rsa_key("rsa")]}))
    node = brokers.serving(folder, "")
    ports = {listener: node.port(listener) for listener in ("plain", "wss", "http", "admin")}
    text = (CONFIG % (ports | {"pki": pki})).replace("{data}", str(node.data))
    for name, where in (("fleet", jwks.url), ("file", folder / "keys.json"), ("nowhere", folder / "nothing.json")):
        text += ISSUERS % (name, ISSUER, where, policy())
    (node.folder / "skein.toml").write_text(text)
    node.ca_file = pki / "ca.pem"
    node.start()
    yield node
    node.stop()


@pytest.fixture(scope="module")
def iot(node):
    import boto3

    keys = dict(aws_access_key_id="AKIATESTTESTTEST", aws_secret_access_key="testtesttesttesttest")
    return boto3.client("iot", endpoint_url=node.http_url, region_name=REGION, **keys)


@pytest.fixture(scope="module")
def authorizers(iot):
    for name in ("fleet", "file", "nowhere", "unknown"):
        iot.create_authorizer(
            authorizerName=name, authorizerFunctionArn=f"jwt:{name}", signingDisabled=True, tokenKeyName="token", status="ACTIVE"
        )


@pytest.fixture
def enter(node, authorizers):
    opened = []

    def enter(token, authorizer="fleet", version=5, client_id="lamp-1", where="password"):
        client = m.Client(node.address("plain"), version)
        opened.append(client)
        more = {"username": f"?{NAME}={authorizer}"}
        if where == "password":
            more["password"] = token.encode()
        else:
            more["username"] += f"&token={token}"
        client.connack = client.connect(client_id, check=False, **more)
        return client

    yield enter
    for client in opened:
        client.cut()


@pytest.mark.parametrize("authorizer", ["fleet", "file"])
@pytest.mark.parametrize("where", ["password", "token"])
@pytest.mark.parametrize("version", [4, 5])
def test_a_good_token_lets_in(enter, authorizer, where, version):
    client = enter(token(), authorizer, version, where=where)
    assert client.connack.reason == 0
    assert client.subscribe("l1/#", qos=1) == [1]
    client.publish("l1/a", b"x", qos=1)
    assert client.receive().payload == b"x"
    assert client.subscribe("l2/#", check=False) == [{4: 0x80, 5: 0x87}[version]]
    client.disconnect()


def test_es256_lists_of_audiences_and_no_name(enter):
    for good in (token(es256, "ES256", "ec"), token(es256, "ES256", None), token(aud=["a", "skein"])):
        assert enter(good).connack.reason == 0


@pytest.mark.parametrize("bad", [
    dict(sign=lambda _: b"", alg="none"),
    dict(sign=lambda _: b"", alg="none", kid=None),
    dict(sign=hs256, alg="HS256"),
    dict(sign=hs256, alg="HS256", kid=None),
    dict(sign=hs256),
    dict(alg="RS512"),
    dict(alg="ES256"),
    dict(sign=es256, alg="RS256", kid="ec"),
    dict(sign=lambda message: rs256(message, OTHER)),
    dict(sign=lambda _: b""),
    dict(head={"crit": ["exp"]}),
    dict(head={"jwk": rsa_key("rsa", OTHER)}, sign=lambda message: rs256(message, OTHER)),
    dict(exp=1),
    dict(exp=None),
    dict(exp="never"),
    dict(nbf=2**40),
    dict(aud="other"),
    dict(aud=None),
    dict(aud=["skein2"]),
    dict(iss="https://id.example/realms/fleet/"),
    dict(iss=None),
    dict(sub=None),
    dict(sub="lamp-2"),
    dict(sub="*"),
    dict(sub="lamp 1"),
    dict(sub="x" * 129),
])
@pytest.mark.parametrize("version", [4, 5])
def test_a_bad_token_does_not(enter, bad, version):
    assert enter(token(**bad), version=version).connack.reason == {4: 5, 5: 0x87}[version]


@pytest.mark.parametrize("text", ["", "x", "..", "a.b.c", "e30.e30.", "x" * 20_000, "\u00e4.b.c"])
def test_what_is_no_token(enter, text):
    assert enter(text).connack.reason == 0x87


def test_a_claim_that_widens_the_policy_does_not(enter):
    client = enter(token(line="#"))
    assert client.connack.reason == 0
    assert client.subscribe("#", "l1/#", check=False) == [0x87] * 2


def test_an_issuer_that_is_not_there(node, enter):
    for authorizer, label in (("nowhere", "no_keys"), ("unknown", "not_configured"), ("none", "not_found")):
        sample = f'authorizer_decisions_total{{result="{label}"}}'
        before = node.metrics()[sample]
        assert enter(token(), authorizer).connack.reason == 0x87
        assert node.metrics()[sample] == before + 1


def test_the_connection_ends_with_its_token(enter):
    watcher = enter(token(sub="watcher"), client_id="watcher")
    watcher.subscribe("$aws/events/presence/disconnected/lamp-1", qos=1)
    client = enter(token(exp=int(time.time()) + 3))
    assert client.connack.reason == 0
    client.refused(0x87, timeout=30)
    told = json.loads(watcher.receive().payload)
    assert (told["principalIdentifier"], told["disconnectReason"]) == ("lamp-1", "CUSTOMAUTH_TTL_EXPIRATION")


def test_unknown_keys_are_looked_for_once_in_a_while(enter, jwks):
    assert enter(token()).connack.reason == 0
    count = len(jwks.asked)
    for number_ in range(20):
        assert enter(token(kid=f"other-{number_}")).connack.reason == 0x87
    assert len(jwks.asked) <= count + 1
    assert enter(token()).connack.reason == 0


def test_https_takes_it_as_a_bearer(node, iot, authorizers):
    iot.create_authorizer(
        authorizerName="bearer", authorizerFunctionArn="jwt:file", signingDisabled=True, tokenKeyName="authorization",
        status="ACTIVE", enableCachingForHttp=True,
    )
    post = lambda topic, token, scheme="Bearer": requests.post(
        f"https://localhost:{node.port('wss')}/topics/{topic}?qos=1", data="x", verify=str(node.ca_file),
        headers={NAME: "bearer", "authorization": f"{scheme} {token}"},
    ).status_code
    good = token()
    assert [post("l1/a", good), post("l1/a", good), post("l2/a", good)] == [200, 200, 403]
    # RFC 9110, 11.1: the case of a scheme does not matter.
    assert [post("l1/a", good, "bearer"), post("l1/a", good, "BEARER"), post("l1/a", good, "Basic")] == [200, 200, 403]
    assert [post("l1/a", token(exp=1)), post("l1/a", good[:-4]), post("l1/a", "")] == [403] * 3


def test_it_is_tried(iot, authorizers):
    answer = iot.test_invoke_authorizer(authorizerName="fleet", token=token())
    assert (answer["isAuthenticated"], answer["principalId"], answer["policyDocuments"]) == (True, "lamp-1", [policy()])
    assert 500 < answer["disconnectAfterInSeconds"] <= 600 and "refreshAfterInSeconds" not in answer
    by_password = iot.test_invoke_authorizer(authorizerName="fleet", mqttContext={"password": token().encode()})
    assert by_password["isAuthenticated"]
    answer = refused(iot.test_invoke_authorizer, "InvalidRequestException", 400, authorizerName="fleet", token=token(aud="x"))
    assert "aud" in answer["message"]
    refused(iot.test_invoke_authorizer, "InvalidRequestException", 400, authorizerName="fleet")


def test_names_of_issuers(iot):
    for function in ("jwt:", "jwt:a b", f"jwt:{'x' * 129}", "JWT:fleet"):
        refused(
            iot.create_authorizer, "InvalidRequestException", 400, authorizerName="wrong", authorizerFunctionArn=function,
            signingDisabled=True,
        )


def test_no_token_is_in_the_log(node, enter):
    bad = token(aud="other")
    # More than once: of what happens often the log tells a part.
    wait_until("it is told", lambda: enter(bad) and "the claim aud" in node.tail(400))
    assert bad.split(".")[2][:20] not in node.tail(1000)
