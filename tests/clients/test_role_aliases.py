"""Role aliases through boto3, and the temporary credentials that devices get for their certificates."""

import base64
import concurrent.futures
import contextlib
import datetime
import http.client
import json
import queue
import ssl

import awscrt.auth
import boto3
import botocore.awsrequest
import botocore.config
import botocore.credentials
import pytest
import requests
from awscrt import mqtt5
from awsiot import mqtt5_client_builder

import aws
import brokers
from brokers import ACCOUNT, REGION, policy
from test_authorities import refused

pytestmark = pytest.mark.skein
ROLE = f"arn:aws:iam::{ACCOUNT}:role/devices"
WAIT = 15


@pytest.fixture
def iot(skein):
    """Says what it is told, also what boto3 knows to be wrong."""
    return skein.boto("iot", parameter_validation=False)


@pytest.fixture
def made(iot):
    """Makes role aliases that go with the test."""
    names = []

    def make(name, **more):
        names.append(name)
        return iot.create_role_alias(roleAlias=name, roleArn=ROLE, **more)

    yield make
    for name in names:
        with contextlib.suppress(iot.exceptions.ResourceNotFoundException):
            iot.delete_role_alias(roleAlias=name)


def test_a_role_alias_is_described_as_it_was_made(iot, made, name):
    tags = [{"Key": "k", "Value": "v"}]
    arn = f"arn:aws:iot:{REGION}:{ACCOUNT}:rolealias/{name}"
    answer = made(name, tags=tags)
    assert (answer["roleAlias"], answer["roleAliasArn"]) == (name, arn)
    found = iot.describe_role_alias(roleAlias=name)["roleAliasDescription"]
    created = found.pop("creationDate")
    assert found.pop("lastModifiedDate") == created
    assert abs(created - datetime.datetime.now(datetime.timezone.utc)) < datetime.timedelta(minutes=5)
    assert found == {
        "roleAlias": name, "roleAliasArn": arn, "roleArn": ROLE, "owner": ACCOUNT, "credentialDurationSeconds": 3600,
    }
    assert iot.list_tags_for_resource(resourceArn=arn)["tags"] == tags
    iot.tag_resource(resourceArn=arn, tags=[{"Key": "l", "Value": "w"}])
    iot.untag_resource(resourceArn=arn, tagKeys=["k"])
    assert iot.list_tags_for_resource(resourceArn=arn)["tags"] == [{"Key": "l", "Value": "w"}]


def test_a_role_alias_changes_and_goes(iot, made, name):
    made(name, credentialDurationSeconds=900)
    iot.update_role_alias(roleAlias=name, credentialDurationSeconds=43_200)
    found = iot.describe_role_alias(roleAlias=name)["roleAliasDescription"]
    assert (found["credentialDurationSeconds"], found["roleArn"]) == (43_200, ROLE)
    assert found["lastModifiedDate"] > found["creationDate"]
    answer = iot.update_role_alias(roleAlias=name, roleArn=f"{ROLE}-2")
    assert answer["roleAliasArn"] == found["roleAliasArn"]
    found = iot.describe_role_alias(roleAlias=name)["roleAliasDescription"]
    assert (found["credentialDurationSeconds"], found["roleArn"]) == (43_200, f"{ROLE}-2")
    iot.delete_role_alias(roleAlias=name)
    for call in (iot.delete_role_alias, iot.describe_role_alias, iot.update_role_alias):
        refused(call, "ResourceNotFoundException", 404, roleAlias=name)
    for call, more in ((iot.list_tags_for_resource, {}), (iot.untag_resource, {"tagKeys": ["k"]})):
        refused(call, "ResourceNotFoundException", 404, resourceArn=found["roleAliasArn"], **more)


def test_a_role_alias_is_there_once(iot, made, name):
    first = made(name)
    answer = refused(iot.create_role_alias, "ResourceAlreadyExistsException", 409, roleAlias=name, roleArn=ROLE)
    assert (answer["resourceId"], answer["resourceArn"]) == (name, first["roleAliasArn"])


@pytest.mark.parametrize("wrong", [
    {"credentialDurationSeconds": 899},
    {"credentialDurationSeconds": 43_201},
    {"credentialDurationSeconds": 0},
    {"credentialDurationSeconds": -900},
    {"credentialDurationSeconds": 2**70},
    {"credentialDurationSeconds": "900"},
    {"roleArn": "role"},
    {"roleArn": f"arn:aws:iot:{REGION}:{ACCOUNT}:rolealias/x"},
    {"roleArn": f"{ROLE}{'x' * 2048}"},
    {"roleArn": ""},
    {"roleAlias": "x" * 129},
    {"roleAlias": "a.b"},
    {"roleAlias": "ä"},
])
def test_wrong_role_aliases_are_refused(iot, made, name, wrong):
    refused(iot.create_role_alias, "InvalidRequestException", 400, **({"roleAlias": name, "roleArn": ROLE} | wrong))
    made(name)
    refused(iot.update_role_alias, "InvalidRequestException", 400, **({"roleAlias": name} | wrong))
    found = iot.describe_role_alias(roleAlias=name)["roleAliasDescription"]
    assert (found["roleArn"], found["credentialDurationSeconds"]) == (ROLE, 3600)


def test_tags_that_cannot_be(iot, made, name):
    many = [{"Key": f"k{number}", "Value": "v"} for number in range(51)]
    for tags in (many, [{"Key": "", "Value": "v"}], [{"Key": "k", "Value": "v"}] * 2, [{"Key": "k", "Value": "v" * 257}]):
        refused(iot.create_role_alias, "InvalidRequestException", 400, roleAlias=name, roleArn=ROLE, tags=tags)
    arn = made(name, tags=many[:50])["roleAliasArn"]
    refused(iot.tag_resource, "LimitExceededException", 410, resourceArn=arn, tags=[{"Key": "one", "Value": "more"}])


def test_lists_go_page_by_page(iot, made, name):
    names = [f"{name}-{number}" for number in range(5)]
    for one in names:
        made(one)

    def walk(**more):
        found, more = [], {"pageSize": 2} | more
        while True:
            page = iot.list_role_aliases(**more)
            assert len(page["roleAliases"]) <= 2
            found += page["roleAliases"]
            if "nextMarker" not in page:
                return [one for one in found if one in names]
            more["marker"] = page["nextMarker"]

    assert walk(ascendingOrder=True) == names
    assert walk() == names[::-1]
    pages = iot.get_paginator("list_role_aliases").paginate(PaginationConfig={"PageSize": 3})
    assert [one for page in pages for one in page["roleAliases"] if one in names] == names[::-1]
    marker = iot.list_role_aliases(pageSize=2)["nextMarker"]
    swapped = base64.b64encode(base64.b64decode(marker)[::-1]).decode()
    for wrong in (
        {"pageSize": 0}, {"pageSize": 251}, {"marker": "x"}, {"marker": swapped}, {"marker": marker, "ascendingOrder": True},
    ):
        refused(iot.list_role_aliases, "InvalidRequestException", 400, **wrong)
    # A list goes on behind what has gone.
    iot.delete_role_alias(roleAlias=names[3])
    rest = iot.list_role_aliases(pageSize=250, marker=marker)["roleAliases"]
    assert [one for one in rest if one in names] == names[2::-1]


# The credentials provider.


class Device(aws.Identity):
    """A device that may ask for credentials of one role alias, and do what else is said."""

    def __init__(self, skein, folder, name, *statements, thing=None):
        self.skein, self.alias = skein, name
        may = ("Allow", "iot:AssumeRoleWithCertificate", f"rolealias/{name}")
        super().__init__(skein, folder, name, policy(may, *statements), thing)

    def ask(self, thing=None, node=None, files=None, method="GET", alias=None):
        url = f"https://localhost:{(node or self.skein).port('wss')}/role-aliases/{alias or self.alias}/credentials"
        headers = {"x-amzn-iot-thingname": thing} if thing else {}
        return requests.request(method, url, verify=self.skein.ca, cert=files or self.files, headers=headers, timeout=WAIT)

    def credentials(self, **more):
        answer = self.ask(**more)
        assert answer.status_code == 200, answer.text
        found = answer.json()["credentials"]
        return botocore.credentials.Credentials(found["accessKeyId"], found["secretAccessKey"], found["sessionToken"])


def client(skein, service, keys, endpoint=None):
    """A boto3 client that uses temporary credentials, over TLS unless it is told where else."""
    return boto3.client(
        service, endpoint_url=endpoint or f"https://localhost:{skein.port('wss')}", verify=skein.ca, region_name=REGION,
        aws_access_key_id=keys.access_key, aws_secret_access_key=keys.secret_key, aws_session_token=keys.token,
        config=botocore.config.Config(retries={"total_max_attempts": 1}),
    )


@pytest.fixture
def device(skein, tmp_path, made, name):
    """A device with a role alias and a thing, which may publish to one topic and has the thing's shadow."""
    made(name)
    return Device(
        skein, tmp_path, name,
        ("Allow", ["iot:Connect"], f"client/{name}*"),
        ("Allow", ["iot:Publish", "iot:Subscribe", "iot:Receive"], [f"topic/{name}/ok", f"topicfilter/{name}/ok"]),
        ("Allow", ["iot:GetThingShadow", "iot:UpdateThingShadow"], f"thing/{name}"),
        thing=name,
    )


def test_credentials_mean_what_the_certificate_may_do(skein, device, connected, name):
    subscriber = connected()
    subscriber.subscribe(f"{name}/#", qos=1)
    asked = datetime.datetime.now(datetime.timezone.utc)
    answer = device.ask(thing=name).json()["credentials"]
    assert set(answer) == {"accessKeyId", "secretAccessKey", "sessionToken", "expiration"}
    expires = datetime.datetime.fromisoformat(answer["expiration"].replace("Z", "+00:00"))
    assert datetime.timedelta(seconds=3590) < expires - asked < datetime.timedelta(seconds=3700)
    keys = device.credentials(thing=name)
    for endpoint in (None, skein.http_url):
        data = client(skein, "iot-data", keys, endpoint)
        data.publish(topic=f"{name}/ok", qos=1, payload=b"x")
        assert subscriber.receive().payload == b"x"
        refused(data.publish, "ForbiddenException", 403, topic=f"{name}/other", qos=1, payload=b"x")
        refused(data.publish, "ForbiddenException", 403, topic=f"{name}/ok", qos=1, payload=b"x", retain=True)
        data.update_thing_shadow(thingName=name, payload=json.dumps({"state": {"reported": {"v": 1}}}))
        assert aws.shadow_state(data.get_thing_shadow(thingName=name))["state"] == {"reported": {"v": 1}}
        refused(data.get_thing_shadow, "ForbiddenException", 403, thingName="dev-thing")
        refused(data.delete_thing_shadow, "ForbiddenException", 403, thingName=name)
    subscriber.nothing_more()
    # A change of its policy counts at once.
    device.change_policy(policy(("Allow", "iot:Publish", f"topic/{name}/other")))
    data.publish(topic=f"{name}/other", qos=1, payload=b"y")
    refused(data.publish, "ForbiddenException", 403, topic=f"{name}/ok", qos=1, payload=b"y")


def test_policies_know_the_thing_of_the_credentials(skein, tmp_path, made, name):
    made(name)
    device = Device(skein, tmp_path, name)
    device.iot.create_thing_type(thingTypeName=name)
    device.iot.create_thing(thingName=f"{name}-thing", thingTypeName=name)
    device.iot.attach_thing_principal(thingName=f"{name}-thing", principal=device.arn)
    device.change_policy(policy(
        ("Allow", "iot:AssumeRoleWithCertificate", "rolealias/${credentials-iot:ThingTypeName}"),
        ("Allow", "iot:Publish", ["topic/${credentials-iot:ThingName}/ok", "topic/${iot:CertificateId}"]),
        ("Allow", "iot:Publish", "topic/${credentials-iot:AwsCertificateId}/own"),
    ))
    # Without the name of a thing the variable of the first statement has no value.
    assert device.ask().status_code == 403
    data = client(skein, "iot-data", device.credentials(thing=f"{name}-thing"))
    for topic in (f"{name}-thing/ok", device.id, f"{device.id}/own"):
        data.publish(topic=topic, qos=1, payload=b"x")
    refused(data.publish, "ForbiddenException", 403, topic="dev-thing/ok", qos=1, payload=b"x")


def test_policies_know_the_name_that_is_asked_for(skein, tmp_path, made, name):
    made(name)
    device = Device(skein, tmp_path, name)
    arn = f"arn:aws:iot:{REGION}:{ACCOUNT}"
    device.change_policy(json.dumps({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "iot:AssumeRoleWithCertificate", "Resource": "*",
         "Condition": {"StringEquals": {"iot:DomainName": "localhost"}}},
        {"Effect": "Allow", "Action": "iot:Publish", "Resource": f"{arn}:topic/${{iot:DomainName}}/{name}"},
    ]}))
    keys = device.credentials()
    # With TLS the name of the handshake, without it the host of the request.
    for endpoint, own, other in ((None, "localhost", "127.0.0.1"), (skein.http_url, "127.0.0.1", "localhost")):
        data = client(skein, "iot-data", keys, endpoint)
        data.publish(topic=f"{own}/{name}", qos=1, payload=b"x")
        refused(data.publish, "ForbiddenException", 403, topic=f"{other}/{name}", qos=1, payload=b"x")


def test_who_gets_no_credentials(skein, device, tmp_path, name):
    other = aws.Identity(skein, tmp_path, f"{name}-other", policy(("Allow", "iot:Publish", "*")), thing=f"{name}-other")
    inactive = aws.Identity(skein, tmp_path, f"{name}-off", policy(("Allow", "iot:*", "*")), active=False)
    brokers.make_pki(tmp_path / "foreign")
    foreign = tuple(str(tmp_path / "foreign" / f"device.{kind}") for kind in ("pem", "key"))
    for asked, status, message in [
        ({"thing": f"{name}-other"}, 403, "Invalid thing name passed"),
        ({"thing": "no such thing"}, 403, "Invalid thing name passed"),
        ({"thing": name, "files": other.files}, 403, "Invalid thing name passed"),
        ({"files": other.files}, 403, "Access Denied"),
        ({"thing": f"{name}-other", "files": other.files}, 403, "Access Denied"),
        ({"alias": f"{name}-none"}, 403, "Access Denied"),
        ({"files": skein.device, "alias": f"{name}-none"}, 404, "Role alias does not exist"),
        ({"files": inactive.files}, 403, "Certificate is invalid on this endpoint"),
        ({"files": foreign}, 403, "Certificate is invalid on this endpoint"),
        ({"alias": "a:b"}, 400, None),
        ({"method": "POST"}, 405, None),
    ]:
        answer = device.ask(**asked)
        assert answer.status_code == status, (asked, answer.text)
        assert message in (None, answer.json()["message"]), asked
        assert set(answer.json()) == {"message"}
    url = f"https://localhost:{skein.port('wss')}/role-aliases/{name}/credentials"
    assert requests.get(url, verify=skein.ca, timeout=WAIT).status_code == 403
    # Nor does anybody on the port that asks for no certificate.
    answer = requests.get(f"{skein.http_url}/role-aliases/{name}/credentials", timeout=WAIT)
    assert answer.status_code == 403, answer.text
    # An explicit denial wins.
    document = json.loads(skein.boto("iot").get_policy(policyName=name)["policyDocument"])
    document["Statement"].append({"Effect": "Deny", "Action": "iot:AssumeRoleWithCertificate", "Resource": "*"})
    device.change_policy(json.dumps(document))
    assert device.ask().json() == {"message": "Access Denied"}


@pytest.mark.parametrize("end", ["REVOKED", "INACTIVE", "alias", "thing"])
def test_credentials_end_with_what_they_were_given_for(skein, iot, device, made, name, end):
    keys = device.credentials(thing=name)
    data = client(skein, "iot-data", keys)
    publish = dict(topic=f"{name}/ok", qos=1, payload=b"x")
    data.publish(**publish)
    if end == "alias":
        iot.delete_role_alias(roleAlias=name)
        refused(data.publish, "ForbiddenException", 403, **publish)
        # Another one of the same name is another one.
        made(name)
    elif end == "thing":
        iot.detach_thing_principal(thingName=name, principal=device.arn)
    else:
        device.status(end)
    refused(data.publish, "ForbiddenException", 403, **publish)
    if end in ("REVOKED", "INACTIVE"):
        assert device.ask().status_code == 403
    else:
        client(skein, "iot-data", device.credentials()).publish(**publish)


def tampered(token):
    """With another letter in its middle."""
    middle = len(token) // 2
    return token[:middle] + ("B" if token[middle] == "A" else "A") + token[middle + 1:]


def test_credentials_that_were_changed_are_none(skein, device, name):
    keys, other = device.credentials(), device.credentials()
    assert len({keys.access_key, other.access_key}) == len({keys.token, other.token}) == 2
    make = botocore.credentials.Credentials
    for wrong, code in [
        (make(keys.access_key, keys.secret_key, tampered(keys.token)), "UnrecognizedClientException"),
        (make(keys.access_key, keys.secret_key, keys.token[:-4]), "UnrecognizedClientException"),
        (make(keys.access_key, keys.secret_key, "x" * 3000), "UnrecognizedClientException"),
        (make(keys.access_key, keys.secret_key, None), "UnrecognizedClientException"),
        (make(keys.access_key, keys.secret_key, other.token), "UnrecognizedClientException"),
        (make(other.access_key, keys.secret_key, keys.token), "UnrecognizedClientException"),
        (make(keys.access_key, other.secret_key, keys.token), "InvalidSignatureException"),
    ]:
        for endpoint in (None, skein.http_url):
            data = client(skein, "iot-data", wrong, endpoint)
            refused(data.publish, code, 403, topic=f"{name}/ok", qos=1, payload=b"x")
        assert upgrade(skein, presigned(skein, wrong)) == 403
    client(skein, "iot-data", keys).publish(topic=f"{name}/ok", qos=1, payload=b"x")


def test_credentials_open_no_way_into_the_control_plane(skein, tmp_path, made, name):
    made(name)
    device = Device(skein, tmp_path, name, ("Allow", ["iot:*", "*"], "*"))
    control = client(skein, "iot", device.credentials(), skein.http_url)
    for call, parameters in [
        (control.list_things, {}), (control.describe_role_alias, {"roleAlias": name}),
        (control.create_keys_and_certificate, {"setAsActive": True}), (control.delete_role_alias, {"roleAlias": name}),
    ]:
        refused(call, "AccessDeniedException", 403, **parameters)
    refused(client(skein, "iot", device.credentials()).list_things, "InvalidSignatureException", 403)


def presigned(skein, keys, after=False):
    """A WebSocket URL; the token is signed as well, or added after signing, as the device SDKs do."""
    url = f"https://localhost:{skein.port('wss')}/mqtt"
    request = botocore.awsrequest.AWSRequest(method="GET", url=url)
    signer = botocore.credentials.Credentials(keys.access_key, keys.secret_key, None if after else keys.token)
    aws.EmptyBodyQueryAuth(signer, "iotdevicegateway", REGION, expires=300).add_auth(request)
    return request.url + (f"&X-Amz-Security-Token={keys.token}" if after else "")


def upgrade(skein, url, **headers):
    """The status of a WebSocket handshake."""
    context = ssl.create_default_context(cafile=skein.ca)
    connection = http.client.HTTPSConnection("localhost", skein.port("wss"), timeout=WAIT, context=context)
    connection.request("GET", url.partition(f"localhost:{skein.port('wss')}")[2], headers={
        "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": "mqtt", **headers,
    })
    try:
        return connection.getresponse().status
    finally:
        connection.close()


def test_the_token_of_a_websocket_is_signed_or_added_later(skein, device):
    keys, other = device.credentials(), device.credentials()
    assert upgrade(skein, presigned(skein, keys)) == 101
    assert upgrade(skein, presigned(skein, keys, after=True)) == 101
    late = presigned(skein, keys, after=True)
    for wrong in (late.replace(keys.token, tampered(keys.token)), late.replace(keys.token, other.token), late.partition("&X-Amz-Sec")[0]):
        assert upgrade(skein, wrong) == 403


class Socket:
    """The device SDK for Python v2 over WebSocket, signed with temporary credentials."""

    def __init__(self, skein, keys, client_id, **more):
        self.messages, self.failures, self.ended = queue.Queue(), queue.Queue(), queue.Queue()
        success = concurrent.futures.Future()
        self.client = mqtt5_client_builder.websockets_with_default_aws_signing(
            REGION, awscrt.auth.AwsCredentialsProvider.new_static(keys.access_key, keys.secret_key, keys.token),
            endpoint="localhost", port=skein.port("wss"), client_id=client_id, ca_filepath=skein.ca,
            on_publish_received=lambda event: self.messages.put(event.publish_packet),
            on_lifecycle_connection_success=lambda event: success.done() or success.set_result(event),
            on_lifecycle_connection_failure=self.failures.put,
            on_lifecycle_disconnection=lambda event: self.ended.put(event.disconnect_packet), **more,
        )
        self.client.start()
        try:
            success.result(WAIT)
        except concurrent.futures.TimeoutError:
            raise AssertionError(f"no connection: {list(self.failures.queue)}") from None


@pytest.mark.parametrize("end", ["certificate", "alias"])
def test_a_websocket_with_credentials_lasts_as_long_as_they_do(skein, iot, device, connected, name, end):
    watcher = connected()
    watcher.subscribe(f"$aws/events/presence/connected/{name}", qos=1)
    socket = Socket(skein, device.credentials(thing=name), name)
    try:
        told = json.loads(watcher.receive(timeout=WAIT).payload)
        assert told["principalIdentifier"] == f"{name}:{device.id}"
        subscription = mqtt5.Subscription(f"{name}/ok", mqtt5.QoS.AT_LEAST_ONCE)
        granted = socket.client.subscribe(mqtt5.SubscribePacket([subscription])).result(WAIT)
        assert granted.reason_codes == [mqtt5.SubackReasonCode.GRANTED_QOS_1]
        for topic, reason in [
            (f"{name}/ok", mqtt5.PubackReasonCode.SUCCESS), (f"{name}/other", mqtt5.PubackReasonCode.NOT_AUTHORIZED),
        ]:
            packet = mqtt5.PublishPacket(topic=topic, payload=b"x", qos=mqtt5.QoS.AT_LEAST_ONCE)
            assert socket.client.publish(packet).result(WAIT).puback.reason_code == reason
        assert socket.messages.get(timeout=WAIT).topic == f"{name}/ok"
        if end == "alias":
            iot.delete_role_alias(roleAlias=name)
        else:
            device.status("REVOKED")
        assert socket.ended.get(timeout=WAIT).reason_code == mqtt5.DisconnectReasonCode.NOT_AUTHORIZED
        # The SDK tries again.
        refusal = socket.failures.get(timeout=WAIT).connack_packet
        assert refusal.reason_code == mqtt5.ConnectReasonCode.NOT_AUTHORIZED
    finally:
        socket.client.stop()


@pytest.fixture
def secure_cluster(tmp_path):
    cluster = brokers.SkeinCluster(tmp_path / "cluster", node=brokers.SecureNode).start()
    yield cluster
    cluster.stop()


def test_credentials_of_one_node_are_known_to_all(secure_cluster, tmp_path, name):
    first, second, third = (secure_cluster[number] for number in (1, 2, 3))
    first.boto("iot").create_role_alias(roleAlias=name, roleArn=ROLE)
    device = Device(first, tmp_path, name, ("Allow", "iot:UpdateThingShadow", f"thing/{name}"))
    update = dict(thingName=name, payload=json.dumps({"state": {"reported": {"v": 1}}}))
    # Each node makes some: the key was made by whichever was asked first.
    every = [(node, device.credentials(node=node)) for node in (first, second, third)]
    for _, keys in every:
        for node in (first, second, third):
            for endpoint in (None, node.http_url):
                client(node, "iot-data", keys, endpoint).update_thing_shadow(**update)
    third.boto("iot").delete_role_alias(roleAlias=name)
    for _, keys in every:
        for node in (first, second, third):
            refused(client(node, "iot-data", keys).update_thing_shadow, "ForbiddenException", 403, **update)


def test_credentials_outlive_a_restart(fresh_broker, tmp_path, name):
    fresh_broker.boto("iot").create_role_alias(roleAlias=name, roleArn=ROLE)
    device = Device(fresh_broker, tmp_path, name, ("Allow", "iot:Publish", f"topic/{name}"))
    keys = device.credentials()
    fresh_broker.restart()
    publish = dict(topic=name, qos=1, payload=b"x")
    client(fresh_broker, "iot-data", keys).publish(**publish)
    logged = fresh_broker.log.read_text()
    assert keys.secret_key not in logged and keys.token not in logged
    assert device.ask().status_code == 200
