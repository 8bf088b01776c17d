"""People who log in with an OpenID Connect provider: STS, what their sessions may do, and `skein login`."""

import base64
import contextlib
import hashlib
import http.server
import json
import os
import queue
import re
import ssl
import stat
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path
from types import SimpleNamespace

import boto3
import botocore.config
import botocore.credentials
import pytest
import requests
from awscrt import mqtt5

import brokers
from brokers import ACCOUNT, REGION, skein_binary
from test_authorities import refused
from test_jwt import OTHER, ec_key, encode, es256, hs256, rs256, rsa_key
from test_role_aliases import Socket, presigned, upgrade

pytestmark = pytest.mark.skein
KEYS = ("AKIATESTTESTTEST", "testtesttesttesttest")
AWS = Path(sys.executable).parent / "aws"
POLICY = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}'
CLIENT = "skein"


class Realm(http.server.BaseHTTPRequestHandler):
    """A small provider: whoever comes to its authorization endpoint is logged in at once."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        self.asked.append(url.path)
        if url.path == "/.well-known/openid-configuration":
            self.answer(self.metadata())
        elif url.path == "/keys":
            self.answer({"keys": [rsa_key("rsa"), ec_key("ec")]})
        elif url.path == "/authorize":
            self.redirect(query)
        else:
            self.answer({}, 404)

    def metadata(self):
        url = self.issuer
        return {
            "issuer": url, "jwks_uri": f"{url}/keys", "authorization_endpoint": f"{url}/authorize?tenant=1",
            "token_endpoint": f"{url}/token", "device_authorization_endpoint": f"{url}/device",
        } | self.twist.get("metadata", {})

    def redirect(self, query):
        assert query["client_id"] == CLIENT and query["response_type"] == "code" and query["tenant"] == "1"
        assert query["code_challenge_method"] == "S256" and "openid" in query["scope"].split()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/callback", query["redirect_uri"])
        code = f"code-{len(self.codes)}"
        self.codes[code] = query
        answer = {"code": code, "state": query["state"], "iss": self.issuer} | self.twist.get("callback", {})
        answer = {name: value for name, value in answer.items() if value is not None}
        self.send_response(302)
        self.send_header("Location", f"{query['redirect_uri']}?{urllib.parse.urlencode(answer)}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = dict(urllib.parse.parse_qsl(body, strict_parsing=True))
        self.asked.append(self.path)
        assert form["client_id"] == CLIENT
        if self.path == "/device":
            answer = {
                "device_code": "the-device", "user_code": "WDJB-MJHT", "verification_uri": f"{self.issuer}/enter",
                "expires_in": 60, "interval": 1,
            }
            return self.answer(answer | self.twist.get("device", {}))
        if form["grant_type"] == "authorization_code":
            asked = self.codes.pop(form["code"], None)
            challenge = encode(hashlib.sha256(form["code_verifier"].encode()).digest())
            if not asked or asked["code_challenge"] != challenge or asked["redirect_uri"] != form["redirect_uri"]:
                return self.answer({"error": "invalid_grant"}, 400)
            return self.answer({"id_token": token(self.issuer, **({"nonce": asked["nonce"]} | self.twist.get("claims", {})))})
        assert form["device_code"] == "the-device"
        assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:device_code"
        if self.pending:
            return self.answer({"error": self.pending.pop(0), "error_description": "so it is"}, 400)
        self.answer({"id_token": token(self.issuer)})

    def answer(self, value, status=200):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def log_message(self, *_):
        pass


def serve(tls=None, **more):
    class Own(Realm):
        asked, codes, pending, twist = [], {}, [], {}

    for name, value in more.items():
        setattr(Own, name, value)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Own)
    scheme = "http"
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls / "server.pem", tls / "server.key")
        server.socket, scheme = context.wrap_socket(server.socket, server_side=True), "https"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    Own.issuer = f"{scheme}://127.0.0.1:{server.server_port}"
    Own.stop = staticmethod(lambda: (server.shutdown(), server.server_close()))
    return Own


@pytest.fixture(scope="module")
def realm():
    realm = serve()
    yield realm
    realm.stop()


@pytest.fixture
def twist(realm):
    """What the provider does otherwise in a test."""
    yield realm.twist
    realm.twist.clear()
    realm.pending.clear()


def token(issuer, sign=rs256, alg="RS256", kid="rsa", head={}, **claims):
    now = int(time.time())
    claims = {
        "iss": issuer, "aud": CLIENT, "sub": "person-1", "exp": now + 300, "iat": now, "groups": ["staff", "iot-admins"],
        "email": "ada@example.com",
    } | claims
    parts = ({"alg": alg, "kid": kid} | head, claims)
    message = ".".join(encode({name: value for name, value in part.items() if value is not None}) for part in parts)
    return f"{message}.{encode(sign(message.encode()))}"


CONFIG = """
data = "{data}"
shards = 2
cores = 2
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
[audit]
file = "%(audit)s"
[[access_keys]]
id = "%(id)s"
secret = "%(secret)s"
"""
PROVIDER = """
[oidc.{name}]
issuer = "{issuer}"
audience = "skein"
max_session = "2h"
{jwks}
[[oidc.{name}.roles]]
claim = "groups"
value = "iot-admins"
role = "admin"
[[oidc.{name}.roles]]
claim = "groups"
value = "readers"
role = "read-only"
[[oidc.{name}.roles]]
claim = "realm_access.roles"
value = "lamps"
role = "operator"
things = ["lamp-*"]
"""
# Of a provider whose keys are in a file, and of one whose keys are nowhere.
BY_FILE, BY_NOTHING = "https://id.example/file", "https://id.example/nothing"


@pytest.fixture(scope="module")
def node(tmp_path_factory, realm):
    folder = tmp_path_factory.mktemp("oidc")
    pki = folder / "pki"
    brokers.make_pki(pki)
    (folder / "keys.json").write_text(json.dumps({"keys": [rsa_key("rsa")]}))
    node = brokers.serving(folder, "")
    node.audit = folder / "audit.jsonl"
    ports = {listener: node.port(listener) for listener in ("wss", "http", "admin")}
    text = CONFIG % (ports | {"pki": pki, "audit": node.audit, "id": KEYS[0], "secret": KEYS[1]})
    text += PROVIDER.format(name="staff", issuer=realm.issuer, jwks="")
    text += PROVIDER.format(name="file", issuer=BY_FILE, jwks='jwks = "keys.json"')
    text += PROVIDER.format(name="nothing", issuer=BY_NOTHING, jwks='jwks = "nothing.json"')
    (node.folder / "skein.toml").write_text(text.replace("{data}", str(node.data)))
    node.ca_file = str(pki / "ca.pem")
    node.https_url = f"https://localhost:{node.port('wss')}"
    node.start()
    yield node
    node.stop()


def arn(role="admin", account=ACCOUNT):
    return f"arn:aws:iam::{account}:role/{role}"


def unsigned(node):
    # Tests come faster than people.
    config = botocore.config.Config(signature_version=botocore.UNSIGNED, retries={"total_max_attempts": 8, "mode": "standard"})
    return boto3.client("sts", endpoint_url=node.http_url, region_name=REGION, config=config)


def assume(node, token, role="admin", **more):
    more = {"RoleArn": arn(role), "RoleSessionName": "ada"} | more
    return unsigned(node).assume_role_with_web_identity(WebIdentityToken=token, **more)


def client(node, answer, service="iot", url=None, **more):
    keys = answer["Credentials"]
    keys = {"id": keys["AccessKeyId"], "secret": keys["SecretAccessKey"], "token": keys["SessionToken"]} | more
    return boto3.client(
        service, endpoint_url=url or node.http_url, region_name=REGION, verify=node.ca_file, aws_access_key_id=keys["id"],
        aws_secret_access_key=keys["secret"], aws_session_token=keys["token"],
    )


def by_key(node, service="iot"):
    return boto3.client(
        service, endpoint_url=node.http_url, region_name=REGION, aws_access_key_id=KEYS[0], aws_secret_access_key=KEYS[1]
    )


def code_of(call, *words, **parameters):
    with pytest.raises(Exception) as error:
        call(*words, **parameters)
    return error.value.response["Error"]["Code"], error.value.response["ResponseMetadata"]["HTTPStatusCode"]


def records(node, operation):
    found = [json.loads(line) for line in node.audit.read_text().splitlines()]
    return [record for record in found if record["operation"] == operation]


def test_an_admin_logs_in(node, realm, name):
    before = time.time()
    answer = assume(node, token(realm.issuer))
    assert answer["SubjectFromWebIdentityToken"] == "person-1"
    assert (answer["Provider"], answer["Audience"]) == (realm.issuer, CLIENT)
    assert answer["AssumedRoleUser"]["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/admin/ada"
    assert abs(answer["Credentials"]["Expiration"].timestamp() - before - 3600) < 5
    iot = client(node, answer)
    iot.create_policy(policyName=name, policyDocument=POLICY)
    iot.create_thing(thingName=name)
    data = client(node, answer, "iot-data")
    data.update_thing_shadow(thingName=name, payload=b'{"state":{"desired":{"a":1}}}')
    who = client(node, answer, "sts").get_caller_identity()
    assert (who["Arn"], who["Account"]) == (answer["AssumedRoleUser"]["Arn"], ACCOUNT)
    assert who["UserId"] == answer["AssumedRoleUser"]["AssumedRoleId"]
    person = {
        "type": "person", "issuer": realm.issuer, "subject": "person-1", "name": "ada@example.com", "role": "admin", "session": "ada",
    }
    assert records(node, "CreatePolicy")[-1]["actor"] == person
    (login,) = [it for it in records(node, "AssumeRoleWithWebIdentity") if it["request"] == answer["ResponseMetadata"]["RequestId"]]
    assert (login["actor"], login["resource"], login["outcome"]) == (person, arn(), "done")
    assert login["source"] == "127.0.0.1" and "changes" not in login


def test_what_a_role_gives(node, realm, name):
    reader = assume(node, token(realm.issuer, groups="readers"), "read-only")
    iot = client(node, reader)
    assert iot.list_things()["things"] is not None
    refused(iot.create_thing, "AccessDeniedException", 403, thingName=name)
    assert code_of(client(node, reader, "iot-data").publish, topic="a", payload=b"x")[1] == 403
    lamps = assume(node, token(realm.issuer, realm_access={"roles": ["x", "lamps"]}, email_verified=False), "operator")
    iot = client(node, lamps)
    iot.create_thing(thingName=f"lamp-{name}")
    assert iot.describe_thing(thingName=f"lamp-{name}")["thingName"] == f"lamp-{name}"
    for call, parameters in (
        (iot.create_thing, {"thingName": name}), (iot.list_things, {}), (iot.create_keys_and_certificate, {}),
        (iot.create_policy, {"policyName": name, "policyDocument": POLICY}),
    ):
        refused(call, "AccessDeniedException", 403, **parameters)
    denied = records(node, "CreatePolicy")[-1]
    assert denied["outcome"] == "denied"
    assert denied["actor"]["role"] == "operator" and "name" not in denied["actor"]


def test_tokens_of_other_kinds(node, realm):
    for good in (
        token(realm.issuer, es256, "ES256", "ec"), token(BY_FILE), token(realm.issuer, aud=["other", CLIENT], azp=CLIENT),
        token(realm.issuer, exp=int(time.time()) - 30), token(realm.issuer, iat=int(time.time()) + 30, nbf=int(time.time()) + 30),
    ):
        assert assume(node, good)["Credentials"]["SessionToken"]


NOW = int(time.time())


@pytest.mark.parametrize("code, bad", [
    ("InvalidIdentityToken", dict(sign=lambda _: b"", alg="none")),
    ("InvalidIdentityToken", dict(sign=hs256, alg="HS256")),
    ("InvalidIdentityToken", dict(sign=hs256)),
    ("InvalidIdentityToken", dict(sign=lambda message: rs256(message, OTHER))),
    ("InvalidIdentityToken", dict(head={"jwk": rsa_key("rsa", OTHER)}, sign=lambda message: rs256(message, OTHER))),
    ("InvalidIdentityToken", dict(kid="other")),
    ("InvalidIdentityToken", dict(alg="ES256")),
    ("InvalidIdentityToken", dict(head={"crit": ["exp"]})),
    ("InvalidIdentityToken", dict(iss="https://id.example/other")),
    ("InvalidIdentityToken", dict(iss=None)),
    ("InvalidIdentityToken", dict(iss=BY_FILE, kid="ec", sign=es256, alg="ES256")),
    ("InvalidIdentityToken", dict(aud="other")),
    ("InvalidIdentityToken", dict(aud=None)),
    ("InvalidIdentityToken", dict(aud=[CLIENT, "other"])),
    ("InvalidIdentityToken", dict(aud=[CLIENT, "other"], azp="other")),
    ("ExpiredTokenException", dict(exp=NOW - 3600)),
    ("InvalidIdentityToken", dict(exp=None)),
    ("InvalidIdentityToken", dict(exp="never")),
    ("InvalidIdentityToken", dict(iat=NOW + 3600)),
    ("InvalidIdentityToken", dict(iat=None)),
    ("InvalidIdentityToken", dict(nbf=NOW + 3600)),
    ("InvalidIdentityToken", dict(sub=None)),
    ("InvalidIdentityToken", dict(sub="")),
    ("InvalidIdentityToken", dict(sub="x" * 256)),
    ("InvalidIdentityToken", dict(padding="x" * 13_000)),
    ("IDPCommunicationError", dict(iss=BY_NOTHING)),
])
def test_a_bad_token_gives_nothing(node, realm, code, bad):
    before = len(records(node, "AssumeRoleWithWebIdentity"))
    post = lambda: requests.post(node.http_url, data={
        "Action": "AssumeRoleWithWebIdentity", "Version": "2011-06-15", "RoleArn": arn(), "RoleSessionName": "ada",
        "WebIdentityToken": token(**({"issuer": realm.issuer} | bad)),
    })
    answer = patiently(post)
    assert answer.status_code == 400 and f"<Code>{code}</Code>" in answer.text, answer.text
    assert answer.headers["content-type"] == "text/xml" and "<Type>Sender</Type>" in answer.text
    # Who proves nothing fills no disk.
    assert len(records(node, "AssumeRoleWithWebIdentity")) == before


def patiently(post):
    """Asks again while there is too much of it."""
    for _ in range(50):
        answer = post()
        if "<Code>Throttling</Code>" not in answer.text:
            return answer
        time.sleep(0.1)
    return answer


def test_a_tampered_token(node, realm):
    head, body, signature = token(realm.issuer).split(".")
    other = encode(json.loads(base64.urlsafe_b64decode(body + "==")) | {"groups": ["iot-admins"], "sub": "root"})
    for bad in (f"{head}.{other}.{signature}", f"{head}.{body}.", f"{head}.{body}", "x.y.z", "....", signature):
        assert code_of(assume, node, bad) == ("InvalidIdentityToken", 400), bad


@pytest.mark.parametrize("claims, role", [
    ({"groups": ["staff"]}, "admin"),
    ({"groups": []}, "read-only"),
    ({}, "operator"),
    ({}, "read-only"),
    ({}, "root"),
    ({}, "path/admin"),
    ({"groups": ["IOT-ADMINS"]}, "admin"),
    ({"groups": "iot-admins iot-admins"}, "admin"),
])
def test_a_role_of_others(node, realm, claims, role):
    answer = code_of(assume, node, token(realm.issuer, **claims), role)
    assert answer == ("AccessDenied", 403)
    denied = records(node, "AssumeRoleWithWebIdentity")[-1]
    assert (denied["outcome"], denied["error"], denied["resource"]) == ("denied", "AccessDenied", arn(role))
    assert (denied["actor"]["subject"], denied["actor"]["role"]) == ("person-1", "none")


def test_a_role_of_another_account(node, realm):
    assert code_of(assume, node, token(realm.issuer), RoleArn=arn(account="999999999999")) == ("AccessDenied", 403)


@pytest.mark.parametrize("role, claims, reason", [
    (arn("root"), {}, "there is no such role"),
    (arn(account="999999999999"), {}, "the role is of another account"),
    (arn("operator"), {"groups": []}, "no rule of the provider gives it"),
])
def test_the_log_says_why_a_role_is_refused_and_the_answer_does_not(node, realm, role, claims, reason):
    with pytest.raises(Exception) as error:
        assume(node, token(realm.issuer, **claims), RoleArn=role)
    assert "no rule of" in error.value.response["Error"]["Message"]
    line = [line for line in node.tail().splitlines() if "a person does not get a role" in line][-1]
    assert reason in line and role in line


@pytest.mark.parametrize("wrong", [
    {"RoleArn": "arn:aws:iam::000000000000:user/admin"},
    {"RoleArn": "the role of an administrator"},
    {"DurationSeconds": 7201},
    {"Policy": POLICY},
    {"PolicyArns": [{"arn": "arn:aws:iam::aws:policy/ReadOnlyAccess"}]},
    {"ProviderId": "www.amazon.com"},
    {"RoleSessionName": "a b"},
    {"RoleSessionName": "a/b"},
])
def test_wrong_requests(node, realm, wrong):
    assert code_of(assume, node, token(realm.issuer), **wrong) == ("ValidationError", 400)


@pytest.mark.parametrize("form, status, code", [
    ({}, 400, "MissingAction"),
    ({"Action": "AssumeRole"}, 400, "InvalidAction"),
    ({"Action": "GetCallerIdentity"}, 403, "MissingAuthenticationToken"),
    ({"DurationSeconds": "899"}, 400, "ValidationError"),
    ({"DurationSeconds": "43201"}, 400, "ValidationError"),
    ({"DurationSeconds": "-900"}, 400, "ValidationError"),
    ({"DurationSeconds": "1h"}, 400, "ValidationError"),
    ({"RoleSessionName": "x"}, 400, "ValidationError"),
    ({"WebIdentityToken": ""}, 400, "ValidationError"),
    ({"WebIdentityToken": "x" * 20_001}, 400, "ValidationError"),
    ({"Padding": "x" * 40_000}, 413, "RequestEntityTooLarge"),
    ([("RoleArn", arn("read-only"))], 400, "ValidationError"),
])
def test_wrong_forms(node, realm, form, status, code):
    good = {
        "Action": "AssumeRoleWithWebIdentity", "Version": "2011-06-15", "RoleArn": arn(), "RoleSessionName": "ada",
        "WebIdentityToken": token(realm.issuer),
    }
    data = list(good.items()) + form if isinstance(form, list) else (good | form if form else "Version=2011-06-15")
    headers = {"content-type": "application/x-www-form-urlencoded"}
    answer = patiently(lambda: requests.post(node.http_url, data=data, headers=headers))
    assert (answer.status_code, f"<Code>{code}</Code>" in answer.text) == (status, True), answer.text


def test_how_long_it_lasts(node, realm):
    for seconds in (900, 7200):
        before = time.time()
        answer = assume(node, token(realm.issuer), DurationSeconds=seconds)
        assert abs(answer["Credentials"]["Expiration"].timestamp() - before - seconds) < 5


def test_a_session_that_was_changed(node, realm, name):
    answer = assume(node, token(realm.issuer, groups="readers"), "read-only")
    admin = assume(node, token(realm.issuer))
    given = answer["Credentials"]["SessionToken"]
    # The version byte of devices, a byte of what is sealed, the token of somebody else.
    bytes_ = base64.urlsafe_b64decode(given + "=" * (-len(given) % 4))
    for changed in (
        encode(b"\x01" + bytes_[1:]), encode(bytes_[:40] + bytes([bytes_[40] ^ 1]) + bytes_[41:]), given[:-8],
        admin["Credentials"]["SessionToken"], "x", "x" * 9000,
    ):
        answered = code_of(client(node, answer, token=changed).list_things)
        assert answered == ("UnrecognizedClientException", 403), changed
    assert code_of(client(node, answer, secret="another secret").list_things) == ("InvalidSignatureException", 403)
    assert code_of(client(node, answer, "sts", token=given[:-8]).get_caller_identity) == ("InvalidClientTokenId", 403)
    assert code_of(client(node, answer, "sts", secret="another").get_caller_identity) == ("SignatureDoesNotMatch", 403)


def test_by_tls(node, realm, name):
    """STS and the data plane are on `https`, too; the control plane is not, whoever asks."""
    sts = boto3.client(
        "sts", endpoint_url=node.https_url, region_name=REGION, verify=node.ca_file,
        config=botocore.config.Config(signature_version=botocore.UNSIGNED),
    )
    answer = sts.assume_role_with_web_identity(RoleArn=arn(), RoleSessionName="ada", WebIdentityToken=token(realm.issuer))
    client(node, answer, "iot-data", node.https_url).publish(topic=name, payload=b"x", qos=1)
    assert client(node, answer, "sts", node.https_url).get_caller_identity()["Account"] == ACCOUNT
    with pytest.raises(Exception) as error:
        client(node, answer, "iot", node.https_url).list_things()
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert client(node, answer).list_things()["things"] is not None


def test_mqtt_over_websocket(node, realm, name):
    """As with an access key of the role, by the device SDK."""
    at = SimpleNamespace(port=node.port, ca=node.ca_file)

    def keys(answer):
        given = answer["Credentials"]
        return botocore.credentials.Credentials(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])

    def publish(socket):
        packet = mqtt5.PublishPacket(topic=name, payload=b"x", qos=mqtt5.QoS.AT_LEAST_ONCE)
        return socket.client.publish(packet).result(10).puback.reason_code

    admin = Socket(at, keys(assume(node, token(realm.issuer))), f"{name}-admin")
    reader = Socket(at, keys(assume(node, token(realm.issuer, groups="readers"), "read-only")), f"read-only-{name}")
    try:
        reader.client.subscribe(mqtt5.SubscribePacket([mqtt5.Subscription(name, mqtt5.QoS.AT_LEAST_ONCE)])).result(10)
        assert publish(admin) == mqtt5.PubackReasonCode.SUCCESS
        assert reader.messages.get(timeout=10).topic == name
        assert publish(reader) == mqtt5.PubackReasonCode.NOT_AUTHORIZED
        # What is for others it does not get: messages of a shared subscription, somebody's session.
        shared = mqtt5.SubscribePacket([mqtt5.Subscription(f"$share/g/{name}", mqtt5.QoS.AT_LEAST_ONCE)])
        assert reader.client.subscribe(shared).result(10).reason_codes == [mqtt5.SubackReasonCode.NOT_AUTHORIZED]
        with pytest.raises(AssertionError, match="no connection"):
            Socket(at, keys(assume(node, token(realm.issuer, groups="readers"), "read-only")), f"{name}-admin")
        # Nor does it leave a session behind.
        with pytest.raises(AssertionError, match="NOT_AUTHORIZED"):
            Socket(at, keys(assume(node, token(realm.issuer, groups="readers"), "read-only")), f"read-only-{name}-2", session_expiry_interval_sec=60)
        assert admin.ended.empty()
    finally:
        admin.client.stop()
        reader.client.stop()
    good = keys(assume(node, token(realm.issuer)))
    assert upgrade(at, presigned(at, good)) == 101
    assert upgrade(at, presigned(at, good, after=True).replace(good.token, good.token[:-8])) == 403
    lamps = keys(assume(node, token(realm.issuer, realm_access={"roles": ["lamps"]}), "operator"))
    assert upgrade(at, presigned(at, lamps)) == 403


def test_who_a_key_is(node):
    who = by_key(node, "sts").get_caller_identity()
    assert (who["Arn"], who["UserId"]) == (f"arn:aws:iam::{ACCOUNT}:user/{KEYS[0]}", KEYS[0])
    wrong = boto3.client(
        "sts", endpoint_url=node.http_url, region_name=REGION, aws_access_key_id="AKIAUNKNOWNUNKNOWN", aws_secret_access_key="x"
    )
    assert code_of(wrong.get_caller_identity) == ("InvalidClientTokenId", 403)


def test_unknown_keys_are_looked_for_once_in_a_while(node, realm):
    assume(node, token(realm.issuer))
    before = realm.asked.count("/keys")
    for number in range(5):
        assert code_of(assume, node, token(realm.issuer, kid=f"other-{number}")) == ("InvalidIdentityToken", 400)
    assert realm.asked.count("/keys") <= before + 1
    assert assume(node, token(realm.issuer))


def test_whoever_tries_too_often_waits(node):
    """On the other listener, which counts for itself."""
    session = requests.Session()
    form = {"Action": "GetCallerIdentity"}
    answers = [session.post(f"{node.https_url}/", data=form, verify=node.ca_file).text for _ in range(200)]
    throttled = [answer for answer in answers if "<Code>Throttling</Code>" in answer]
    assert 0 < len(throttled) < 200
    assert node.metrics()['api_logins_total{result="Throttling"}'] >= len(throttled)
    # Other tests shall not wait for this one.
    time.sleep(1)


def aws(node, tmp_path, *words, profile, check=True, **environment):
    """The aws command line with a profile of its own."""
    config = tmp_path / "config"
    config.write_text(f"[default]\nregion = {REGION}\n{profile}\n")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment = clean | {
        "AWS_CONFIG_FILE": str(config), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"), "AWS_PAGER": "",
        "AWS_EC2_METADATA_DISABLED": "true", "AWS_ENDPOINT_URL": node.http_url, "HOME": str(tmp_path),
    } | environment
    command = [str(AWS), "--output", "json", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, start_new_session=True)
    if check:
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)
    assert done.returncode != 0, done.stdout
    return done.stderr


def test_the_aws_command_line_with_a_token_in_a_file(node, realm, tmp_path):
    file = tmp_path / "token"
    file.write_text(token(realm.issuer))
    profile = f"role_arn = {arn()}\nweb_identity_token_file = {file}\nrole_session_name = ci"
    assert "things" in aws(node, tmp_path, "iot", "list-things", profile=profile)
    who = aws(node, tmp_path, "sts", "get-caller-identity", profile=profile)
    assert who["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/admin/ci"
    file.write_text(token(realm.issuer, groups=[]))
    assert "AccessDenied" in aws(node, tmp_path, "iot", "list-things", profile=profile, check=False)


class Login:
    """`skein login`, which waits for a person."""

    def __init__(self, node, realm, *more, home, **options):
        options = {
            "endpoint": node.https_url, "ca": node.ca_file, "issuer": realm.issuer, "client-id": CLIENT, "role": "admin", "timeout": 20,
        } | options
        words = [skein_binary(), "login", *more]
        for name, value in options.items():
            words += [f"--{name}", value]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "XDG_"))}
        self.process = subprocess.Popen(
            [str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env=environment | {"HOME": str(home)},
        )
        self.lines = queue.Queue()
        self.said = []
        self.reader = threading.Thread(target=self.follow, daemon=True)
        self.reader.start()

    def follow(self):
        for line in self.process.stderr:
            self.said.append(line)
            self.lines.put(line)
        self.lines.put(None)

    def find(self, pattern):
        """Waits until it says something."""
        while (line := self.lines.get(timeout=30)) is not None:
            if found := re.search(pattern, line):
                return found[0]
        raise AssertionError("".join(self.said))

    def visit(self):
        """Logs in as a person does with a browser."""
        return requests.get(self.find(r"http\S+/authorize\S+"), timeout=10)

    def end(self):
        out = self.process.stdout.read()
        code = self.process.wait(timeout=30)
        self.reader.join(30)
        return code, out, "".join(self.said)

    def credentials(self):
        code, out, said = self.end()
        assert code == 0, said
        keys = json.loads(out)
        assert keys.pop("Version") == 1
        return {"Credentials": keys}

    def refused(self):
        code, out, said = self.end()
        assert (code, out) == (1, ""), (code, out, said)
        return said


@pytest.fixture
def login(node, realm, tmp_path):
    begun = []

    def login(*more, **options):
        begun.append(Login(node, realm, *more, home=tmp_path, **options))
        return begun[-1]

    yield login
    for each in begun:
        each.process.kill()
        each.process.wait()


def kept(tmp_path):
    return list((tmp_path / ".cache/skein").glob("*"))


def test_login_with_a_browser(node, realm, login, tmp_path):
    first = login()
    assert "close this page" in first.visit().text
    answer = first.credentials()
    assert client(node, answer).list_things()["things"] is not None
    assert client(node, answer, "sts").get_caller_identity()["Arn"].endswith("/admin/ada@example.com")
    (file,) = kept(tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    # What is kept is used, for the same question.
    asked = len(realm.asked)
    assert login().credentials() == answer
    assert len(realm.asked) == asked
    other = login("--no-cache", duration=900)
    other.visit()
    assert other.credentials() != answer
    assert kept(tmp_path) == [file]
    # What is kept is no longer good: it is got anew, and kept.
    renewed = login("--renew")
    renewed.visit()
    answer = renewed.credentials()
    assert login().credentials() == answer


def test_login_as_a_credential_process(node, realm, login, tmp_path):
    words = f"--endpoint {node.https_url} --ca {node.ca_file} --issuer {realm.issuer} --client-id {CLIENT} --role {arn()} --timeout 20"
    profile = f"credential_process = {skein_binary()} login {words}"
    first = login(role=arn())
    first.visit()
    first.credentials()
    who = aws(node, tmp_path, "sts", "get-caller-identity", profile=profile)
    assert who["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/admin/ada@example.com"


def test_login_with_a_code(node, realm, twist, login):
    realm.pending[:] = ["authorization_pending", "authorization_pending"]
    device = login("--device", "--no-cache")
    assert device.find("WDJB-MJHT")
    assert client(node, device.credentials()).list_things()["things"] is not None
    assert any("/enter" in line for line in device.said)


@pytest.mark.parametrize("error", ["access_denied", "expired_token", "invalid_client"])
def test_login_with_a_code_that_nobody_enters(realm, twist, login, error):
    realm.pending[:] = ["authorization_pending", error]
    said = login("--device", "--no-cache").refused()
    assert f"the provider refuses: {error} (so it is)" in said


def test_answers_to_other_questions_are_waited_on(node, login):
    """Somebody who knows the port, and not the state, gets nothing in."""
    waiting = login("--no-cache")
    url = waiting.find(r"http\S+/authorize\S+")
    query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query))
    for wrong in ("", "?code=x", "?code=x&state=x", f"?code=x&state={query['state']}&iss=https://evil.example", "?error=x"):
        assert requests.get(query["redirect_uri"] + wrong, timeout=5).status_code == 400, wrong
    assert requests.get(query["redirect_uri"].replace("/callback", "/"), timeout=5).status_code == 404
    assert requests.get(url, timeout=10).status_code == 200
    assert waiting.credentials()


@pytest.mark.parametrize("otherwise, said", [
    ({"claims": {"nonce": "another"}}, "nonce is another one"),
    ({"claims": {"nonce": None}}, "nonce is another one"),
    ({"claims": {"aud": "another"}}, "for another client"),
    ({"claims": {"iss": "https://evil.example"}}, "of another issuer"),
    ({"claims": {"groups": []}}, "AccessDenied"),
    ({"callback": {"code": "unknown"}}, "the provider refuses: invalid_grant"),
    ({"callback": {"code": None, "error": "access_denied", "error_description": "\x1b[31mno"}}, "refuses: access_denied ([31mno)"),
    ({"callback": {"code": None}}, "sends no code"),
])
def test_a_login_that_fails(twist, login, tmp_path, otherwise, said):
    twist.update(otherwise)
    failing = login()
    failing.visit()
    assert said in failing.refused()
    assert not kept(tmp_path)


@pytest.mark.parametrize("metadata, said", [
    ({"issuer": "https://evil.example"}, "the issuer calls itself"),
    ({"authorization_endpoint": None}, "no authorization_endpoint"),
    ({"jwks_uri": None}, "cannot be read"),
])
def test_a_provider_that_says_strange_things(twist, login, metadata, said):
    twist["metadata"] = metadata
    assert said in login("--no-cache").refused()


def test_what_login_is_told_wrong(node, login, tmp_path):
    for option in ("endpoint", "issuer"):
        for address in ("127.0.0.1:8443", "iot.example.com", "mqtts://iot.example.com"):
            assert f'--{option} "{address}" is not an address that begins with https://' in login("--no-cache", **{option: address}).refused()
    assert "nobody has logged in in 1 s" in login("--no-cache", timeout=1).refused()
    assert "cannot ask" in login("--no-cache", issuer="http://127.0.0.1:1").refused()
    assert "cannot use" in login("--no-cache", ca=tmp_path / "nothing.pem").refused()
    assert "cannot read" in login("--no-cache", **{"client-secret-file": tmp_path / "nothing"}).refused()
    for options, said in (({"role": "root"}, "AccessDenied"), ({"duration": 7201}, "ValidationError"), ({"endpoint": "http://127.0.0.1:1"}, "cannot ask")):
        failing = login("--no-cache", **options)
        failing.visit()
        assert said in failing.refused()


def test_a_session_is_known_on_every_node_and_ends_with_its_rule(tmp_path, realm):
    class Node(brokers.ClusterNode):
        provider = PROVIDER.format(name="staff", issuer=realm.issuer, jwks="")

        def configure(self):
            super().configure()
            file = self.folder / "skein.toml"
            file.write_text(file.read_text() + self.provider)

    cluster = brokers.SkeinCluster(tmp_path / "cluster", node=Node).start()
    try:
        for node in cluster.nodes.values():
            node.ca_file = None
        answer = assume(cluster[1], token(realm.issuer))
        reader = assume(cluster[2], token(realm.issuer, groups="readers"), "read-only")
        client(cluster[1], answer).create_thing(thingName="made-by-ada")
        for node in cluster.nodes.values():
            assert client(node, answer).describe_thing(thingName="made-by-ada")["thingName"] == "made-by-ada"
        node = cluster[3]
        node.stop()
        node.start()
        cluster.wait_serving()
        assert client(node, answer).list_things()["things"]
        # The rule for admins is taken out of the configuration of one node.
        node.stop()
        file = node.folder / "skein.toml"
        file.write_text(file.read_text().replace('value = "iot-admins"\nrole = "admin"', 'value = "iot-admins"\nrole = "read-only"'))
        node.start()
        cluster.wait_serving()
        assert code_of(client(node, answer).list_things) == ("UnrecognizedClientException", 403)
        with pytest.raises(Exception, match="log in again with `skein login --renew`"):
            client(node, answer).list_things()
        assert client(node, reader).list_things()["things"]
        assert client(cluster[1], answer).list_things()["things"]
    finally:
        cluster.stop()


@pytest.mark.parametrize("text, said", [
    ('[oidc.staff]\naudience = "a"', "missing field `issuer`"),
    ('[oidc.staff]\nissuer = "https://id"\naudience = "a"\nroles = "admin"', "oidc.staff.roles|a list"),
    ('[oidc.staff]\nissuer = "https://id"\naudience = "a"\nrole = []', "did you mean `roles`"),
    ('[oidc.staff]\nissuer = "id.example"\naudience = "a"', "oidc.staff.issuer: \"id.example\" is not a URL"),
    ('[oidc.staff]\nissuer = "https://id"\naudience = ""', "oidc.staff.audience: is empty"),
    ('[oidc.staff]\nissuer = "https://id"\naudience = "a"\nmax_session = "13h"', "oidc.staff.max_session: 46800s is not in"),
    ('[oidc.staff]\nissuer = "https://id"\naudience = "a"\nmax_session = 3600', "is not a duration"),
    ('[[oidc.staff.roles]]\nclaim = "groups"\nvalue = "x"\n[oidc.staff]', "duplicate key|missing field"),
    ('[oidc.staff]\nissuer = "https://id"\naudience = "a"\n[[oidc.staff.roles]]\nclaim = "g"\nvalue = "x"', "missing field `role`"),
    ('[oidc.staff]\nissuer = "https://id"\naudience = "a"\n[[oidc.staff.roles]]\nclaim = "g"\nvalue = "x"\nrole = "root"', "unknown variant"),
    ('[oidc.staff]\nissuer = "https://id"\naudience = "a"\n[[oidc.staff.roles]]\nclaim = ""\nvalue = "x"\nrole = "admin"', "oidc.staff.roles[0].claim: is empty"),
])
def test_configurations_that_cannot_be(tmp_path, text, said):
    file = tmp_path / "skein.toml"
    file.write_text(f'data = "{tmp_path}/data"\n{text}\n')
    done = subprocess.run([skein_binary(), "config", "check", file], capture_output=True, text=True, timeout=30)
    assert done.returncode != 0
    assert any(each in done.stdout + done.stderr for each in said.split("|")), done.stdout + done.stderr


def test_a_provider_whose_certificate_is_of_a_private_ca(tmp_path):
    """Its HTTPS is trusted by the CA that the configuration names, and by no other."""
    pki = tmp_path / "pki"
    brokers.make_pki(pki)
    realm = serve(tls=pki)
    node = brokers.serving(tmp_path, "")
    node.audit = tmp_path / "audit.jsonl"
    ports = {listener: node.port(listener) for listener in ("wss", "http", "admin")}
    text = CONFIG % (ports | {"pki": pki, "audit": node.audit, "id": KEYS[0], "secret": KEYS[1]})
    for name, audience, more in (("private", CLIENT, f'ca = "{pki}/ca.pem"'), ("public", "another", "")):
        text += PROVIDER.format(name=name, issuer=realm.issuer, jwks=more).replace('"skein"', f'"{audience}"')
    (node.folder / "skein.toml").write_text(text.replace("{data}", str(node.data)))
    node.start()
    try:
        assert assume(node, token(realm.issuer))["Credentials"]["SessionToken"]
        assert code_of(assume, node, token(realm.issuer, aud="another")) == ("IDPCommunicationError", 400)
        assert "the keys of an issuer cannot be had" in node.tail()
    finally:
        node.stop()
        realm.stop()


def test_a_ca_that_is_none_is_told(tmp_path):
    file = tmp_path / "skein.toml"
    (tmp_path / "ca.pem").write_text("nothing")
    for ca, said in (("ca.pem", "oidc.staff.ca:"), ("none.pem", "oidc.staff.ca:"), ("", "oidc.staff.ca: is empty")):
        file.write_text(f'data = "{tmp_path}/data"\n[oidc.staff]\nissuer = "https://id"\naudience = "a"\nca = "{ca}"\n')
        done = subprocess.run([skein_binary(), "config", "check", file], capture_output=True, text=True, timeout=30)
        assert said in done.stdout + done.stderr, done.stdout + done.stderr


def test_the_documents_say_what_works(tmp_path):
    text = (brokers.REPO / "docs/security.md").read_text()
    (block,) = [block for block in re.findall(r"```toml\n(.*?)```", text, re.S) if "[oidc." in block]
    commented = (brokers.REPO / "docs/configuration.md").read_text()
    (other,) = re.findall(r"(?ms)^#   (\[oidc\.staff\].*?)\n\n", commented)
    other = re.sub(r"(?m)^#   ", "", other).replace('jwks = "…"', "# jwks")
    for each in (block, other):
        file = tmp_path / "skein.toml"
        file.write_text(f'data = "{tmp_path}/data"\n{each}\n')
        done = subprocess.run([skein_binary(), "config", "check", file], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stdout + done.stderr
        assert re.search(r"oidc\.staff +https://id\.example\.com/realms/staff, \d rules? for roles", done.stdout), done.stdout
