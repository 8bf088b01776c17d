"""The AWS IoT device SDKs for JavaScript, v2 (MQTT 3.1.1 and 5) and v1, unmodified: what jssdk.mjs says of them."""

import base64
import json
import subprocess
from pathlib import Path

import pytest

import aws
from brokers import REGION, make_pki, policy
from test_authorizers import SIGNED, function, granted, iot, made, sign  # noqa: F401, fixtures
from test_provisioning import ROLE, template
from test_role_aliases import Device

pytestmark = pytest.mark.skein
HERE = Path(__file__).parent
CLIENTS = ["3.1.1", "5", "v1"]
NOT_AUTHORIZED = 0x87
FAILURE = 0x80
NO_MATCHING_SUBSCRIBERS = 0x10


@pytest.fixture
def node(skein, name):
    """Runs a scenario in Node.js; gives its report."""

    def run(scenario, client=None, how="certificate", files=skein.device, credentials=None, listener="tls", before=(), **more):
        options = dict(name=name, client=client, region=REGION, ca=skein.ca) | more
        if how == "certificate":
            certificate, key = map(str, files)
            options |= dict(port=skein.port(listener), certificate=certificate, key=key)
        elif how == "authorized":
            options |= dict(port=skein.port("wss"))
        else:
            found = credentials or aws.credentials(skein)
            keys = dict(accessKey=found.access_key, secretKey=found.secret_key)
            options |= dict(port=skein.port("wss"), credentials=keys | ({"sessionToken": found.token} if found.token else {}))
        words = [*before, "node", "jssdk.mjs", scenario]
        done = subprocess.run(
            words, cwd=HERE, input=json.dumps(options), capture_output=True, text=True, timeout=40, env=skein.aws_environment()
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        # The SDK v1 may have written lines of its own.
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.fixture
def identity(skein, tmp_path, name):
    """Makes a device with a certificate of its own and this policy."""

    def identity(*statements, **more):
        return aws.Identity(skein, tmp_path, name, policy(*statements), **more)

    return identity


def one_topic(name):
    return [
        ("Allow", "iot:Connect", f"client/{name}"),
        ("Allow", ["iot:Publish", "iot:Receive"], f"topic/{name}/allowed"),
        ("Allow", "iot:Subscribe", f"topicfilter/{name}/allowed"),
    ]


def check_round_trip(report, name, client):
    assert report["subscribed"] == 1 and report["published"] == [0] * 5
    more = dict(contentType="text/plain", userProperties=[{"name": "k", "value": "v"}]) if client == "5" else {}
    assert report["messages"] == [dict(topic=f"{name}/{number}", payload=str(number)) | more for number in range(5)]


@pytest.mark.parametrize("how", ["certificate", "signed"])
@pytest.mark.parametrize("client", CLIENTS)
def test_round_trip(node, name, client, how):
    check_round_trip(node("round_trip", client, how), name, client)


def test_one_port_for_everything(node):
    """The port of WebSockets, with the ALPN name of MQTT."""
    assert node("connect", listener="wss") == dict.fromkeys(CLIENTS, "connected")


# How the SDKs tell of a connection that CONNACK refuses, and of one that is refused before MQTT has begun.
BY_CONNACK = {
    "3.1.1": "Failed to connect: libaws-c-mqtt: AWS_ERROR_MQTT_PROTOCOL_ERROR, Protocol error occurred.",
    "5": "NotAuthorized", "v1": "Connection refused: Not authorized",
}
NO_UPGRADE = "aws-c-http: AWS_ERROR_HTTP_WEBSOCKET_UPGRADE_FAILURE, Failed to upgrade HTTP connection to Websocket."
BY_HANDSHAKE = {"3.1.1": f"Failed to connect: {NO_UPGRADE}", "5": NO_UPGRADE, "v1": "closed"}


@pytest.mark.parametrize("flaw", ["of nobody", "inactive", "client id"])
def test_refused_with_a_certificate(node, identity, tmp_path, name, flaw):
    if flaw == "of nobody":
        make_pki(tmp_path / "pki")
        files = tmp_path / "pki/device.pem", tmp_path / "pki/device.key"
    else:
        files = identity(("Allow", "iot:Connect", f"client/{name}-*"), active=flaw != "inactive").files
    more = dict(name=f"other-{name}") if flaw == "client id" else {}
    assert node("connect", files=files, **more) == BY_CONNACK


@pytest.mark.parametrize("flaw", ["secret", "key", "clock"])
def test_refused_with_a_signature(node, skein, flaw):
    found, before = aws.credentials(skein), []
    if flaw == "secret":
        found.secret_key = found.secret_key[:-1] + ("0" if found.secret_key[-1] != "0" else "1")
    elif flaw == "key":
        found.access_key = "AKIA" + "0" * 16
    else:
        before = ["faketime", "-f", "+1h"]
    assert node("connect", how="signed", credentials=found, before=before) == BY_HANDSHAKE


@pytest.mark.parametrize("client", CLIENTS)
def test_denied_topics(node, identity, name, client):
    report = node("denied", client, files=identity(*one_topic(name)).files)
    if client == "5":
        assert (report["subscribed"], report["published"]) == ([NOT_AUTHORIZED, 1], [NOT_AUTHORIZED, 0])
        assert [message["topic"] for message in report["messages"]] == [f"{name}/allowed"]
    else:
        # MQTT 3.1.1 has no other way to refuse a PUBLISH than to end the connection.
        assert report == {"subscribed": [FAILURE, 1], "ended": True}


@pytest.fixture
def temporary(skein, tmp_path, name):
    """Credentials of a role alias, for a device that may do everything."""
    skein.boto("iot").create_role_alias(roleAlias=name, roleArn=ROLE)
    return Device(skein, tmp_path, name, ("Allow", "iot:*", "*")).credentials()


@pytest.mark.parametrize("client", CLIENTS)
def test_temporary_credentials(node, temporary, name, client):
    check_round_trip(node("round_trip", client, "signed", credentials=temporary), name, client)


def test_temporary_credentials_are_nothing_without_their_token(node, temporary):
    temporary.token = None
    assert node("connect", how="signed", credentials=temporary) == BY_HANDSHAKE


class TestCustomAuthorizer:
    """On one port with everything else: by the ALPN name `mqtt`, and over WebSocket."""

    WAYS = pytest.mark.parametrize("client, how", [
        ("3.1.1", "direct"), ("3.1.1", "websockets"), ("5", "direct"), ("5", "websockets"), ("v1", "websockets"),
    ])

    @pytest.fixture
    def enter(self, node, made, name):  # noqa: F811
        """Runs a scenario of a client that shows a token, with its signature or that of another one."""

        def enter(scenario, client, how, of="t", **more):
            made(**SIGNED)
            given = dict(username="user", password="pw", name=name, keyName="MyToken", token="t", signature=sign(of)) | more
            given["isDirect"] = how == "direct"
            return node(scenario, client, "authorized", authorizer=given)

        return enter

    @WAYS
    def test_round_trip(self, enter, function, name, client, how):  # noqa: F811
        check_round_trip(enter("round_trip", client, how), name, client)
        [asked] = function.asked
        assert asked["signatureVerified"] and asked["token"] == "t"
        assert asked["protocols"] == {"direct": ["tls", "mqtt"], "websockets": ["tls", "http", "mqtt"]}[how]
        if client != "v1":
            # The SDK tells more than the user in the name.
            mqtt = asked["protocolData"]["mqtt"]
            assert mqtt["username"].startswith("user?") and base64.b64decode(mqtt["password"]) == b"pw"

    @WAYS
    def test_denied_topics(self, enter, function, name, client, how):  # noqa: F811
        statements = policy(*one_topic(name))
        function.answer = granted(name, policyDocuments=[statements])
        report = enter("denied", client, how)
        if client == "5":
            assert (report["subscribed"], report["published"]) == ([NOT_AUTHORIZED, 1], [NOT_AUTHORIZED, 0])
        else:
            assert report == {"subscribed": [FAILURE, 1], "ended": True}

    @pytest.mark.parametrize("how", ["direct", "websockets"])
    @pytest.mark.parametrize("flaw", ["of another token", "no base64", "no such authorizer"])
    def test_who_shows_nothing_good_is_shown_to_nobody(self, enter, function, name, flaw, how):  # noqa: F811
        report = enter("connect", None, how, **{
            "of another token": dict(of="u"), "no base64": dict(signature="%%%"), "no such authorizer": dict(name=f"no-{name}"),
        }[flaw])
        assert report == BY_CONNACK and not function.asked

    @pytest.mark.parametrize("how", ["direct", "websockets"])
    @pytest.mark.parametrize("answer", [{"isAuthenticated": False}, (500, {}), b"no JSON"], ids=["no", "500", "noise"])
    def test_anything_but_a_yes_is_a_no(self, enter, function, name, answer, how):  # noqa: F811
        function.answer = granted(name, **answer) if isinstance(answer, dict) else answer
        assert enter("connect", None, how) == BY_CONNACK and function.asked


@pytest.mark.parametrize("shadow", [None, "config"], ids=["classic", "named"])
@pytest.mark.parametrize("client", ["3.1.1", "5"])
def test_shadow(node, name, client, shadow):
    report = node("shadow", client, "certificate" if shadow else "signed", shadow=shadow)
    assert report["subscription"] == 0
    absent = f"No shadow exists with name: '{shadow or name}'"
    for key in ("absent", "gone"):
        assert (report[key]["code"], report[key]["message"]) == (404, absent)
    assert report["updated"]["version"] == 1
    assert report["updated"]["state"] == {"desired": {"on": True}, "reported": {"on": False}}
    assert (report["delta"]["version"], report["delta"]["state"]) == (1, {"on": True})
    assert report["got"]["state"] == {"desired": {"on": True}, "reported": {"on": False}, "delta": {"on": True}}
    assert report["reported"]["version"] == 2
    assert (report["conflict"]["code"], report["conflict"]["message"]) == (409, "Version conflict")
    assert (report["wrong"]["code"], report["wrong"]["message"]) == (400, "Desired node must be an object")
    assert report["deleted"]["version"] == 2


@pytest.mark.parametrize("how", ["certificate", "signed"])
def test_thing_shadow_of_v1(node, name, how):
    report = node("thing_shadow", "v1", how)
    status = {key: (report[key]["status"], report[key]["state"].get("code")) for key in report.keys() - {"foreign", "delta"}}
    assert status == {
        "absent": ("rejected", 404), "updated": ("accepted", None), "reported": ("accepted", None), "got": ("accepted", None),
        "wrong": ("rejected", 400), "deleted": ("accepted", None), "gone": ("rejected", 404),
    }
    assert report["foreign"]["operation"] == "update"
    assert report["foreign"]["state"]["state"] == {"desired": {"on": True}}
    assert (report["delta"]["version"], report["delta"]["state"]) == (2, {"on": True})
    assert report["got"]["state"]["state"] == {"desired": {"on": True}, "reported": {"on": True}}
    assert report["got"]["state"]["version"] == report["deleted"]["state"]["version"] == 3


class TestProvisioning:
    """By a claim that all devices of the template share."""

    @pytest.fixture
    def claim(self, skein, identity, name):
        document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]}
        own = {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": document}}
        body = template(name, resources={"policy": own}, DeviceConfiguration={"url": {"Fn::Sub": "https://${Serial}.example"}})
        skein.boto("iot").create_provisioning_template(
            templateName=name, enabled=True, provisioningRoleArn=ROLE, templateBody=json.dumps(body),
        )
        topics = ["$aws/certificates/*", f"$aws/provisioning-templates/{name}/provision/*"]
        return identity(
            ("Allow", "iot:Connect", f"client/{name}-claim"),
            ("Allow", ["iot:Publish", "iot:Receive"], [f"topic/{topic}" for topic in topics]),
            ("Allow", "iot:Subscribe", [f"topicfilter/{topic}" for topic in topics]),
        )

    @pytest.fixture
    def provision(self, node, claim, name):
        return lambda scenario, client: node(
            scenario, client, files=claim.files, template=name, parameters={"Serial": "7"}
        )

    @pytest.mark.parametrize("client", ["3.1.1", "5"])
    def test_a_device_provisions_itself(self, skein, provision, name, client):
        report = provision("provisioning", client)
        assert report["registered"] == {"thingName": f"{name}-7", "deviceConfiguration": {"url": "https://7.example"}}
        # The token is good once; the certificate is the device's own then.
        assert (report["again"]["statusCode"], report["again"]["errorCode"]) == (400, "InvalidCertificateOwnershipToken")
        assert report["published"] == (NO_MATCHING_SUBSCRIBERS if client == "5" else 0)
        [principal] = skein.boto("iot").list_thing_principals(thingName=f"{name}-7")["principals"]
        assert principal.endswith(f":cert/{report['certificateId']}")

    @pytest.mark.parametrize("client", ["3.1.1", "5"])
    def test_who_is_not_provisioned(self, skein, provision, name, client):
        report = provision("provisioning_refused", client)
        assert {key: (it["statusCode"], it["errorCode"]) for key, it in report.items()} == {
            "token": (400, "InvalidCertificateOwnershipToken"), "parameters": (400, "InvalidParameters"),
            "request": (400, "InvalidCertificateSigningRequest"),
        }
        iot = skein.boto("iot")
        with pytest.raises(iot.exceptions.ResourceNotFoundException):
            iot.describe_thing(thingName=f"{name}-7")
