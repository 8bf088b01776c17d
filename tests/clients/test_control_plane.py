"""The control plane and the data plane through boto3 and the `aws` CLI, unmodified.

Against a broker that the suite starts, or against what SKEIN_HTTP_ENDPOINT names, with the
credentials that the AWS tools find by themselves (AWS_SHARED_CREDENTIALS_FILE).
"""

import base64
import datetime
import hashlib
import http.client
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
import uuid

import boto3
import botocore.auth
import botocore.awsrequest
import botocore.config
import botocore.exceptions
import botocore.session
import pytest

pytestmark = pytest.mark.skein

REGION = "us-east-1"
ALLOW = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]}
)
_numbers = itertools.count(1)


class Cloud:
    """The endpoint under test, as the AWS tools see it."""

    def __init__(self, endpoint, environment):
        self.endpoint, self.environment = endpoint, environment
        self.session = botocore.session.Session()
        if credentials := environment.get("AWS_SHARED_CREDENTIALS_FILE"):
            self.session.set_config_variable("credentials_file", credentials)
        self.session.set_config_variable("region", REGION)

    def client(self, service, **more):
        config = botocore.config.Config(retries={"max_attempts": 1}, parameter_validation=False)
        session = boto3.Session(botocore_session=self.session, region_name=REGION)
        return session.client(service, endpoint_url=self.endpoint, config=config, **more)

    def cli(self, *words, fails=None):
        command = [sys.executable, "-m", "awscli", "--endpoint-url", self.endpoint, *words]
        environment = {**os.environ, **self.environment, "AWS_DEFAULT_REGION": REGION, "AWS_PAGER": ""}
        done = subprocess.run(command, env=environment, capture_output=True, timeout=180)
        if fails:
            assert done.returncode != 0 and fails in done.stderr.decode(), done
            return None
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout) if done.stdout.strip() else {}


@pytest.fixture(scope="module")
def cloud(request):
    if endpoint := os.environ.get("SKEIN_HTTP_ENDPOINT"):
        return Cloud(endpoint, {})
    skein = request.getfixturevalue("shared_broker")
    if not skein.alive():
        skein.start()
    credentials = skein.data / "aws" / "credentials"
    return Cloud(f"http://localhost:{skein.port('http')}", {"AWS_SHARED_CREDENTIALS_FILE": str(credentials)})


@pytest.fixture(scope="module")
def iot(cloud):
    return cloud.client("iot")


@pytest.fixture(scope="module")
def data(cloud):
    return cloud.client("iot-data")


@pytest.fixture
def fresh():
    """Makes words that nobody has used."""
    return lambda word: f"{word}-{os.getpid()}-{next(_numbers)}"


@pytest.fixture
def certificate(iot):
    return iot.create_keys_and_certificate(setAsActive=True)


class refused:
    """The block fails with this error and status."""

    def __init__(self, code, status):
        self.code, self.status = code, status

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        assert kind is not None, f"{self.code} was expected and nothing happened"
        if not issubclass(kind, botocore.exceptions.ClientError):
            return False
        self.response = error.response
        assert error.response["Error"]["Code"] == self.code, error
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == self.status, error
        assert error.response["Error"]["Message"]
        return True


def openssl(*words, stdin=None):
    done = subprocess.run(["openssl", *words], input=stdin, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def self_signed(folder, *key, subject="/CN=own"):
    """A certificate from elsewhere."""
    key = key or ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    return openssl("req", "-x509", *key, "-nodes", "-subj", subject, "-days", "30", "-keyout", str(folder / "own.key"))


def signed(cloud, method, path, service="iot", body=b"", signer=botocore.auth.SigV4Auth, region=REGION, **headers):
    """A request as no SDK would make it: the status, the headers and the body of the answer."""
    url = cloud.endpoint + path
    request = botocore.awsrequest.AWSRequest(method=method, url=url, data=body, headers=headers)
    signer(cloud.session.get_credentials(), service, region).add_auth(request)
    return answer(method, request.url, dict(request.headers), body)


def answer(method, url, headers, body=b""):
    request = urllib.request.Request(url, data=body or None, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


# Things


def test_a_thing_lives_its_life(iot, fresh):
    name = fresh("thing")
    made = iot.create_thing(thingName=name, attributePayload={"attributes": {"a": "1", "b": "x,y"}})
    assert made["thingName"] == name
    assert re.fullmatch(rf"arn:aws:iot:{REGION}:\d{{12}}:thing/{name}", made["thingArn"])
    assert uuid.UUID(made["thingId"])

    thing = iot.describe_thing(thingName=name)
    del thing["ResponseMetadata"]
    assert thing == {
        "thingName": name,
        "thingArn": made["thingArn"],
        "thingId": made["thingId"],
        "defaultClientId": name,
        "attributes": {"a": "1", "b": "x,y"},
        "version": 1,
    }

    iot.update_thing(thingName=name, attributePayload={"attributes": {"b": "", "c": "3"}, "merge": True})
    thing = iot.describe_thing(thingName=name)
    assert (thing["attributes"], thing["version"]) == ({"a": "1", "c": "3"}, 2)
    iot.update_thing(thingName=name, attributePayload={"attributes": {"d": "4"}}, expectedVersion=2)
    assert iot.describe_thing(thingName=name)["attributes"] == {"d": "4"}

    with refused("VersionConflictException", 409):
        iot.update_thing(thingName=name, attributePayload={"attributes": {}}, expectedVersion=2)
    with refused("VersionConflictException", 409):
        iot.delete_thing(thingName=name, expectedVersion=2)
    iot.delete_thing(thingName=name, expectedVersion=3)
    iot.delete_thing(thingName=name)
    with refused("ResourceNotFoundException", 404):
        iot.describe_thing(thingName=name)
    assert iot.create_thing(thingName=name)["thingId"] != made["thingId"]


def test_creating_a_thing_twice_is_creating_it_once(iot, fresh):
    name = fresh("thing")
    first = iot.create_thing(thingName=name, attributePayload={"attributes": {"a": "1"}})
    again = iot.create_thing(thingName=name, attributePayload={"attributes": {"a": "1"}})
    assert first["thingId"] == again["thingId"]
    with refused("ResourceAlreadyExistsException", 409) as error:
        iot.create_thing(thingName=name, attributePayload={"attributes": {"a": "2"}})
    assert error.response["resourceArn"] == first["thingArn"]
    assert error.response["resourceId"]


@pytest.mark.parametrize(
    "name, attributes",
    [
        ("a b", {}),
        ("a/b", {}),
        ("ä", {}),
        ("x" * 129, {}),
        ("ok", {"a b": "1"}),
        ("ok", {"a": "with space"}),
        ("ok", {"a": "x" * 801}),
        ("ok", {"a": "1", "b": "2", "c": "3", "d": "4"}),
    ],
)
def test_a_thing_outside_the_limits_is_refused(iot, name, attributes):
    with refused("InvalidRequestException", 400):
        iot.create_thing(thingName=name, attributePayload={"attributes": attributes})


def test_names_with_colons_find_their_way(iot, fresh):
    name = fresh("a:b:thing")
    iot.create_thing(thingName=name)
    assert iot.describe_thing(thingName=name)["thingName"] == name
    iot.delete_thing(thingName=name)


def test_things_are_listed_by_page_and_filter(iot, fresh):
    kind, names = fresh("type"), sorted(fresh("listed") for _ in range(7))
    iot.create_thing_type(thingTypeName=kind)
    for at, name in enumerate(names):
        attributes = {"colour": f"red{at % 2}"}
        iot.create_thing(thingName=name, thingTypeName=kind, attributePayload={"attributes": attributes})

    def listed(**filters):
        things, token = [], {}
        while True:
            page = iot.list_things(thingTypeName=kind, maxResults=2, **filters, **token)
            assert len(page["things"]) <= 2
            things += [thing["thingName"] for thing in page["things"]]
            if "nextToken" not in page:
                return things
            token = {"nextToken": page["nextToken"]}

    assert listed() == names
    assert listed(attributeName="colour", attributeValue="red1") == names[1::2]
    assert listed(attributeName="colour", attributeValue="red", usePrefixAttributeValue=True) == names
    assert listed(attributeName="colour", attributeValue="red") == []
    first = iot.list_things(thingTypeName=kind, maxResults=1)
    assert first["things"][0]["thingTypeName"] == kind
    assert first["things"][0]["attributes"] and first["things"][0]["version"] == 1
    for token, filters in [(first["nextToken"], {}), ("bm9uc2Vuc2U=", {}), ("?", {})]:
        with refused("InvalidRequestException", 400):
            iot.list_things(nextToken=token, attributeName="other", **filters)
    for size in (0, 251):
        with refused("InvalidRequestException", 400):
            iot.list_things(maxResults=size)
    found = {thing["thingName"] for page in iot.get_paginator("list_things").paginate() for thing in page["things"]}
    assert found.issuperset(names)


# Thing types


def test_a_thing_type_lives_its_life(iot, fresh):
    name, thing = fresh("type"), fresh("thing")
    properties = {
        "thingTypeDescription": "a kind of thing",
        "searchableAttributes": ["serial"],
        "mqtt5Configuration": {
            "propagatingAttributes": [
                {"userPropertyKey": "serial", "thingAttribute": "serial"},
                {"userPropertyKey": "client", "connectionAttribute": "iot:ClientId"},
            ]
        },
    }
    made = iot.create_thing_type(
        thingTypeName=name, thingTypeProperties=properties, tags=[{"Key": "k", "Value": "v"}]
    )
    assert made["thingTypeArn"].endswith(f":thingtype/{name}")
    assert iot.create_thing_type(thingTypeName=name, thingTypeProperties=properties)["thingTypeId"] == made["thingTypeId"]
    with refused("ResourceAlreadyExistsException", 409):
        iot.create_thing_type(thingTypeName=name)

    described = iot.describe_thing_type(thingTypeName=name)
    assert described["thingTypeProperties"] == properties
    assert described["thingTypeId"] == made["thingTypeId"]
    assert described["thingTypeMetadata"]["deprecated"] is False
    age = datetime.datetime.now(datetime.timezone.utc) - described["thingTypeMetadata"]["creationDate"]
    assert abs(age.total_seconds()) < 60
    iot.update_thing_type(thingTypeName=name, thingTypeProperties={"thingTypeDescription": "better"})
    assert iot.describe_thing_type(thingTypeName=name)["thingTypeProperties"] == {
        **properties,
        "thingTypeDescription": "better",
    }
    only = iot.list_thing_types(thingTypeName=name)["thingTypes"]
    assert [found["thingTypeName"] for found in only] == [name]
    assert name in [found["thingTypeName"] for found in iot.list_thing_types()["thingTypes"]]

    iot.create_thing(thingName=thing, thingTypeName=name, attributePayload={"attributes": dict.fromkeys("abcd", "1")})
    with refused("InvalidRequestException", 400):
        iot.delete_thing_type(thingTypeName=name)
    iot.deprecate_thing_type(thingTypeName=name)
    metadata = iot.describe_thing_type(thingTypeName=name)["thingTypeMetadata"]
    assert metadata["deprecated"] and metadata["deprecationDate"]
    with refused("InvalidRequestException", 400):
        iot.create_thing(thingName=fresh("thing"), thingTypeName=name)
    with refused("InvalidRequestException", 400):
        iot.delete_thing_type(thingTypeName=name)
    iot.deprecate_thing_type(thingTypeName=name, undoDeprecate=True)
    assert "deprecationDate" not in iot.describe_thing_type(thingTypeName=name)["thingTypeMetadata"]

    with refused("InvalidRequestException", 400):
        iot.update_thing(thingName=thing, removeThingType=True)
    with refused("InvalidRequestException", 400):
        iot.update_thing(thingName=thing, removeThingType=True, thingTypeName=name)
    iot.update_thing(thingName=thing, removeThingType=True, attributePayload={"attributes": {"a": "1"}})
    assert "thingTypeName" not in iot.describe_thing(thingName=thing)
    iot.update_thing(thingName=thing, thingTypeName=name)
    assert iot.describe_thing(thingName=thing)["version"] == 3
    with refused("ResourceNotFoundException", 404):
        iot.update_thing(thingName=thing, thingTypeName=fresh("type"))


@pytest.mark.parametrize(
    "properties",
    [
        {"searchableAttributes": ["a", "b", "c", "d"]},
        {"thingTypeDescription": "x" * 2029},
        {"mqtt5Configuration": {"propagatingAttributes": [{"userPropertyKey": "k"}]}},
        {"mqtt5Configuration": {"propagatingAttributes": [{"userPropertyKey": "k", "connectionAttribute": "iot:X"}]}},
    ],
)
def test_a_thing_type_outside_the_limits_is_refused(iot, fresh, properties):
    with refused("InvalidRequestException", 400):
        iot.create_thing_type(thingTypeName=fresh("type"), thingTypeProperties=properties)


# Certificates


def test_keys_and_certificates_are_made(iot, tmp_path):
    made = iot.create_keys_and_certificate()
    pem = made["certificatePem"]
    assert made["keyPair"]["PrivateKey"].startswith("-----BEGIN RSA PRIVATE KEY-----\n")
    assert made["keyPair"]["PublicKey"].startswith("-----BEGIN PUBLIC KEY-----\n")
    der = base64.b64decode("".join(pem.splitlines()[1:-1]))
    assert made["certificateId"] == hashlib.sha256(der).hexdigest()
    assert made["certificateArn"].endswith(":cert/" + made["certificateId"])

    text = openssl("x509", "-text", "-noout", stdin=pem.encode())
    assert "Subject: CN = AWS IoT Certificate" in text
    assert "Not After : Dec 31 23:59:59 2049 GMT" in text
    assert "Public-Key: (2048 bit)" in text
    assert "X509v3 Subject Key Identifier" in text and "X509v3 Authority Key Identifier" in text
    assert re.search(r"X509v3 Key Usage: critical\s+Digital Signature\n", text)
    assert re.search(r"X509v3 Basic Constraints: critical\s+CA:FALSE", text)
    key = openssl("rsa", "-pubout", stdin=made["keyPair"]["PrivateKey"].encode())
    assert key == made["keyPair"]["PublicKey"] == openssl("x509", "-pubkey", "-noout", stdin=pem.encode())

    described = iot.describe_certificate(certificateId=made["certificateId"])["certificateDescription"]
    assert described["certificatePem"] == pem
    assert described["certificateArn"] == made["certificateArn"]
    assert described["status"] == "INACTIVE"
    assert described["certificateMode"] == "DEFAULT"
    assert described["customerVersion"] == 1
    assert described["validity"]["notAfter"].astimezone(datetime.timezone.utc).year == 2049
    assert described["ownedBy"] in made["certificateArn"]
    assert described["generationId"] and described["creationDate"] == described["lastModifiedDate"]


def test_a_signing_request_becomes_a_certificate(iot, tmp_path):
    key = tmp_path / "device.key"
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key))
    subject = "/C=DE/O=One/OU=First/OU=Second/CN=truck 7"
    request = openssl("req", "-new", "-key", str(key), "-subj", subject)
    made = iot.create_certificate_from_csr(certificateSigningRequest=request, setAsActive=True)
    assert "keyPair" not in made
    text = openssl("x509", "-text", "-noout", stdin=made["certificatePem"].encode())
    assert "Subject: C = DE, O = One, OU = First, OU = Second, CN = truck 7" in text
    public = openssl("x509", "-pubkey", "-noout", stdin=made["certificatePem"].encode())
    assert public == openssl("ec", "-in", str(key), "-pubout")
    described = iot.describe_certificate(certificateId=made["certificateId"])["certificateDescription"]
    assert described["status"] == "ACTIVE"

    lines = request.splitlines()
    broken = "\n".join(lines[:1] + [lines[1][:40] + "AAAA" + lines[1][44:]] + lines[2:])
    for wrong in ("", "nonsense", broken, made["certificatePem"]):
        with refused("InvalidRequestException", 400):
            iot.create_certificate_from_csr(certificateSigningRequest=wrong)
    weak = openssl("req", "-new", "-newkey", "rsa:1024", "-nodes", "-subj", "/CN=weak", "-keyout", str(tmp_path / "weak"))
    with refused("InvalidRequestException", 400):
        iot.create_certificate_from_csr(certificateSigningRequest=weak)


def test_a_certificate_is_registered_without_its_authority(iot, tmp_path):
    pem = self_signed(tmp_path)
    made = iot.register_certificate_without_ca(certificatePem=pem, status="ACTIVE")
    described = iot.describe_certificate(certificateId=made["certificateId"])["certificateDescription"]
    assert (described["status"], described["certificateMode"]) == ("ACTIVE", "SNI_ONLY")
    with refused("ResourceAlreadyExistsException", 409) as error:
        iot.register_certificate_without_ca(certificatePem=pem)
    assert error.response["resourceId"] == made["certificateId"]
    assert error.response["resourceArn"] == made["certificateArn"]
    # Told before its authority is looked for.
    with refused("ResourceAlreadyExistsException", 409) as error:
        iot.register_certificate(certificatePem=pem)
    assert error.response["resourceId"] == made["certificateId"]
    with refused("CertificateValidationException", 400):
        iot.register_certificate(certificatePem=self_signed(tmp_path))


def test_what_is_not_supported_is_named(iot, tmp_path):
    for key, said in (
        (("-newkey", "rsa:2048", "-sha1"), "SHA-1 with RSA (1.2.840.113549.1.1.5)"),
        (("-newkey", "ed25519"), "Ed25519 (1.3.101.112)"),
        (("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"), "secp256k1 (1.3.132.0.10)"),
    ):
        with refused("CertificateValidationException", 400) as error:
            iot.register_certificate_without_ca(certificatePem=self_signed(tmp_path, *key))
        assert said in error.response["Error"]["Message"]


def test_a_certificate_with_a_byte_order_mark(iot, tmp_path):
    pem = self_signed(tmp_path)
    made = iot.register_certificate_without_ca(certificatePem="\ufeff" + pem)
    found = iot.describe_certificate(certificateId=made["certificateId"])["certificateDescription"]
    assert found["certificatePem"] == pem


def test_certificates_that_cannot_be_registered_are_refused(iot, tmp_path):
    pem = self_signed(tmp_path)
    key = (tmp_path / "own.key").read_text()
    for wrong in (
        "",
        "nonsense",
        pem + pem,
        pem + key,
        pem.replace("CERTIFICATE", "SOMETHING"),
        pem[:100] + pem[150:],
        self_signed(tmp_path, "-newkey", "rsa:1024"),
        self_signed(tmp_path, "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"),
        self_signed(tmp_path, "-newkey", "ed25519"),
        self_signed(tmp_path, "-newkey", "rsa:2048", "-sha1"),
    ):
        with pytest.raises(botocore.exceptions.ClientError) as error:
            iot.register_certificate_without_ca(certificatePem=wrong)
        code = error.value.response["Error"]["Code"]
        assert code == ("CertificateValidationException" if wrong else "InvalidRequestException"), error
    with refused("InvalidRequestException", 400):
        iot.register_certificate_without_ca(certificatePem=pem, status="SLEEPING")
    with refused("CertificateStateException", 406):
        iot.register_certificate_without_ca(certificatePem=pem, status="PENDING_TRANSFER")


def test_a_certificate_changes_its_status(iot, certificate):
    id = certificate["certificateId"]
    for status in ("INACTIVE", "REVOKED", "ACTIVE", "ACTIVE"):
        iot.update_certificate(certificateId=id, newStatus=status)
        described = iot.describe_certificate(certificateId=id)["certificateDescription"]
        assert described["status"] == status
    assert described["customerVersion"] == 4
    for status in ("PENDING_TRANSFER", "PENDING_ACTIVATION", "REGISTER_INACTIVE", "SLEEPING"):
        with refused("InvalidRequestException", 400):
            iot.update_certificate(certificateId=id, newStatus=status)
    with refused("ResourceNotFoundException", 404):
        iot.update_certificate(certificateId="0" * 64, newStatus="ACTIVE")
    with refused("InvalidRequestException", 400):
        iot.describe_certificate(certificateId="xyz")


def test_a_certificate_is_deleted_when_nothing_needs_it(iot, fresh, certificate):
    id, arn = certificate["certificateId"], certificate["certificateArn"]
    thing, policy = fresh("thing"), fresh("policy")
    iot.create_thing(thingName=thing)
    iot.create_policy(policyName=policy, policyDocument=ALLOW)
    iot.attach_thing_principal(thingName=thing, principal=arn)
    iot.attach_policy(policyName=policy, target=arn)
    with refused("CertificateStateException", 406):
        iot.delete_certificate(certificateId=id, forceDelete=True)
    iot.update_certificate(certificateId=id, newStatus="INACTIVE")
    with refused("DeleteConflictException", 409):
        iot.delete_certificate(certificateId=id, forceDelete=True)
    with refused("InvalidRequestException", 400):
        iot.delete_thing(thingName=thing)
    iot.detach_thing_principal(thingName=thing, principal=arn)
    with refused("DeleteConflictException", 409):
        iot.delete_certificate(certificateId=id)
    iot.delete_certificate(certificateId=id, forceDelete=True)
    with refused("ResourceNotFoundException", 404):
        iot.describe_certificate(certificateId=id)
    assert iot.list_targets_for_policy(policyName=policy)["targets"] == []
    iot.delete_thing(thingName=thing)
    iot.delete_policy(policyName=policy)


def test_certificates_are_listed_by_age(iot, tmp_path):
    made = [iot.register_certificate_without_ca(certificatePem=self_signed(tmp_path))["certificateId"] for _ in range(3)]

    def listed(**order):
        found, marker = [], {}
        while True:
            page = iot.list_certificates(pageSize=2, **order, **marker)
            found += [item["certificateId"] for item in page["certificates"]]
            if "nextMarker" not in page:
                return found
            marker = {"marker": page["nextMarker"]}

    newest = listed()
    assert newest[:3] == made[::-1]
    assert listed(ascendingOrder=True) == newest[::-1]
    item = iot.list_certificates(pageSize=1)["certificates"][0]
    assert set(item) == {"certificateArn", "certificateId", "status", "certificateMode", "creationDate"}
    with refused("InvalidRequestException", 400):
        marker = iot.list_certificates(pageSize=1)["nextMarker"]
        iot.list_certificates(marker=marker, ascendingOrder=True)


# Policies


def test_a_policy_lives_its_life(iot, fresh, certificate):
    name = fresh("policy+=,.@")
    made = iot.create_policy(policyName=name, policyDocument=ALLOW, tags=[{"Key": "k", "Value": "v"}])
    assert (made["policyName"], made["policyDocument"], made["policyVersionId"]) == (name, ALLOW, "1")
    assert made["policyArn"].endswith(f":policy/{name}")
    with refused("ResourceAlreadyExistsException", 409):
        iot.create_policy(policyName=name, policyDocument=ALLOW)

    second = ALLOW.replace("iot:*", "iot:Connect")
    version = iot.create_policy_version(policyName=name, policyDocument=second)
    assert (version["policyVersionId"], version["isDefaultVersion"]) == ("2", False)
    assert iot.get_policy(policyName=name)["defaultVersionId"] == "1"
    version = iot.create_policy_version(policyName=name, policyDocument=second, setAsDefault=True)
    assert (version["policyVersionId"], version["isDefaultVersion"]) == ("3", True)
    policy = iot.get_policy(policyName=name)
    assert (policy["policyDocument"], policy["defaultVersionId"]) == (second, "3")
    assert policy["creationDate"] <= policy["lastModifiedDate"] and policy["generationId"]
    iot.set_default_policy_version(policyName=name, policyVersionId="1")
    first = iot.get_policy_version(policyName=name, policyVersionId="1")
    assert (first["policyDocument"], first["isDefaultVersion"], first["policyName"]) == (ALLOW, True, name)

    with refused("DeleteConflictException", 409):
        iot.delete_policy_version(policyName=name, policyVersionId="1")
    iot.delete_policy_version(policyName=name, policyVersionId="3")
    for _ in range(3):
        last = iot.create_policy_version(policyName=name, policyDocument=second)
    assert last["policyVersionId"] == "6"
    with refused("VersionsLimitExceededException", 409):
        iot.create_policy_version(policyName=name, policyDocument=second)
    versions = iot.list_policy_versions(policyName=name)["policyVersions"]
    assert {(v["versionId"], v["isDefaultVersion"]) for v in versions} == {
        ("1", True), ("2", False), ("4", False), ("5", False), ("6", False)
    }
    assert all(v["createDate"] for v in versions)

    with refused("DeleteConflictException", 409):
        iot.delete_policy(policyName=name)
    for number in ("2", "4", "5", "6"):
        iot.delete_policy_version(policyName=name, policyVersionId=number)
    iot.attach_policy(policyName=name, target=certificate["certificateArn"])
    with refused("DeleteConflictException", 409):
        iot.delete_policy(policyName=name)
    iot.detach_policy(policyName=name, target=certificate["certificateArn"])
    iot.delete_policy(policyName=name)
    for call in (
        lambda: iot.get_policy(policyName=name),
        lambda: iot.delete_policy(policyName=name),
        lambda: iot.list_policy_versions(policyName=name),
        lambda: iot.create_policy_version(policyName=name, policyDocument=ALLOW),
        lambda: iot.attach_policy(policyName=name, target=certificate["certificateArn"]),
    ):
        with refused("ResourceNotFoundException", 404):
            call()


def test_documents_that_are_no_policies_are_refused(iot, fresh):
    for document in (
        "",
        "nonsense",
        "{}",
        '{"Version":"2012-10-17"}',
        ALLOW.replace("Allow", "Perhaps"),
        ALLOW.replace('"iot:*"', json.dumps("iot:" + "x" * 2048)),
    ):
        with refused("MalformedPolicyException", 400):
            iot.create_policy(policyName=fresh("policy"), policyDocument=document)
    with refused("InvalidRequestException", 400):
        iot.create_policy(policyName="a b", policyDocument=ALLOW)
    with refused("InvalidRequestException", 400):
        iot.get_policy_version(policyName=fresh("policy"), policyVersionId="newest")


def test_policies_are_listed_by_age(iot, fresh):
    names = [fresh("policy") for _ in range(3)]
    for name in names:
        iot.create_policy(policyName=name, policyDocument=ALLOW)
    newest = [policy["policyName"] for policy in iot.list_policies(pageSize=3)["policies"]]
    assert newest == names[::-1]
    pages = iot.get_paginator("list_policies").paginate(ascendingOrder=True, PaginationConfig={"PageSize": 2})
    oldest = [policy["policyName"] for page in pages for policy in page["policies"]]
    assert oldest[-3:] == names and len(set(oldest)) == len(oldest)


# Attachments


def test_arns_that_mean_something_else_are_refused(iot, fresh, certificate):
    thing, group, other, arn = fresh("thing"), fresh("group"), fresh("group"), certificate["certificateArn"]
    iot.create_thing(thingName=thing)
    made = [iot.create_thing_group(thingGroupName=name)["thingGroupArn"] for name in (group, other)]
    for call in (iot.add_thing_to_thing_group, iot.remove_thing_from_thing_group):
        with refused("InvalidRequestException", 400) as error:
            call(thingName=thing, thingGroupName=group, thingGroupArn=made[1])
        assert f"is not the ARN of the thinggroup '{group}'" in error.response["Error"]["Message"]
    iot.add_thing_to_thing_group(thingName=thing, thingGroupName=group, thingGroupArn=made[0])
    groups = iot.list_thing_groups_for_thing(thingName=thing)["thingGroups"]
    assert [each["groupName"] for each in groups] == [group]
    for wrong in (arn.replace(REGION, "eu-central-1"), arn.replace(":000000000000:", ":999999999999:")):
        with refused("InvalidRequestException", 400):
            iot.attach_thing_principal(thingName=thing, principal=wrong)
    assert iot.list_thing_principals(thingName=thing)["principals"] == []


def test_a_resource_has_fifty_tags_however_they_come(iot, fresh):
    tags = [{"Key": f"k{number}", "Value": "v"} for number in range(51)]
    group = iot.create_thing_group(thingGroupName=fresh("group"))["thingGroupArn"]
    with refused("LimitExceededException", 410):
        iot.tag_resource(resourceArn=group, tags=tags)
    iot.tag_resource(resourceArn=group, tags=tags[:50])
    with refused("LimitExceededException", 410):
        iot.tag_resource(resourceArn=group, tags=tags[50:])
    # No operation that makes something has that error.
    with refused("InvalidRequestException", 400):
        iot.create_thing_group(thingGroupName=fresh("group"), tags=tags)


def test_policies_are_attached_to_principals(iot, fresh, certificate):
    arn, names = certificate["certificateArn"], [fresh("policy") for _ in range(11)]
    for name in names:
        iot.create_policy(policyName=name, policyDocument=ALLOW)
    for name in names[:10]:
        iot.attach_policy(policyName=name, target=arn)
    iot.attach_policy(policyName=names[0], target=arn)
    with refused("LimitExceededException", 410):
        iot.attach_policy(policyName=names[10], target=arn)

    pages = iot.get_paginator("list_attached_policies").paginate(target=arn, PaginationConfig={"PageSize": 3})
    attached = [policy for page in pages for policy in page["policies"]]
    assert [policy["policyName"] for policy in attached] == names[:10]
    assert all(policy["policyArn"].endswith(policy["policyName"]) for policy in attached)
    newest = iot.list_principal_policies(principal=arn, pageSize=2)
    assert [policy["policyName"] for policy in newest["policies"]] == [names[9], names[8]]
    oldest = iot.list_principal_policies(principal=arn, ascendingOrder=True)
    assert [policy["policyName"] for policy in oldest["policies"]] == names[:10]
    assert iot.list_targets_for_policy(policyName=names[0])["targets"] == [arn]
    assert iot.list_policy_principals(policyName=names[0])["principals"] == [arn]

    identity = f"{REGION}:{uuid.uuid4()}"
    iot.attach_principal_policy(policyName=names[10], principal=identity)
    assert iot.list_targets_for_policy(policyName=names[10])["targets"] == [identity]
    iot.detach_principal_policy(policyName=names[10], principal=identity)
    iot.detach_policy(policyName=names[10], target=identity)
    assert iot.list_attached_policies(target=identity)["policies"] == []
    iot.detach_policy(policyName=fresh("policy"), target=arn)

    missing = arn.rsplit("/", 1)[0] + "/" + "0" * 64
    for call in (
        lambda: iot.attach_policy(policyName=names[0], target=missing),
        lambda: iot.list_attached_policies(target=missing),
        lambda: iot.list_principal_policies(principal=missing),
        lambda: iot.list_targets_for_policy(policyName=fresh("policy")),
        lambda: iot.detach_principal_policy(policyName=fresh("policy"), principal=arn),
    ):
        with refused("ResourceNotFoundException", 404):
            call()
    for target in ("nonsense", "arn:aws:iot:us-east-1:1:thing/x", arn.replace(":cert/", ":thing/")):
        with refused("InvalidRequestException", 400):
            iot.attach_policy(policyName=names[0], target=target)


def test_many_targets_of_a_policy_are_listed_by_page(iot, fresh):
    name, targets = fresh("policy"), sorted(f"{REGION}:{uuid.uuid4()}" for _ in range(5))
    iot.create_policy(policyName=name, policyDocument=ALLOW)
    for target in targets:
        iot.attach_policy(policyName=name, target=target)
    pages = iot.get_paginator("list_targets_for_policy").paginate(policyName=name, PaginationConfig={"PageSize": 2})
    assert [target for page in pages for target in page["targets"]] == targets
    for order in (True, False):
        pages = iot.get_paginator("list_policy_principals").paginate(
            policyName=name, ascendingOrder=order, PaginationConfig={"PageSize": 2}
        )
        found = [target for page in pages for target in page["principals"]]
        assert found == (targets if order else targets[::-1])


def test_principals_are_attached_to_things(iot, fresh, certificate):
    arn, names = certificate["certificateArn"], sorted(fresh("thing") for _ in range(3))
    for name in names:
        iot.create_thing(thingName=name)
        iot.attach_thing_principal(thingName=name, principal=arn)
        iot.attach_thing_principal(thingName=name, principal=arn)
    assert iot.list_thing_principals(thingName=names[0])["principals"] == [arn]
    assert iot.list_thing_principals_v2(thingName=names[0])["thingPrincipalObjects"] == [
        {"principal": arn, "thingPrincipalType": "NON_EXCLUSIVE_THING"}
    ]
    pages = iot.get_paginator("list_principal_things").paginate(principal=arn, PaginationConfig={"PageSize": 2})
    assert [thing for page in pages for thing in page["things"]] == names
    v2 = iot.list_principal_things_v2(principal=arn, thingPrincipalType="NON_EXCLUSIVE_THING")
    assert [item["thingName"] for item in v2["principalThingObjects"]] == names
    v2 = iot.list_principal_things_v2(principal=arn, thingPrincipalType="EXCLUSIVE_THING")
    assert v2["principalThingObjects"] == []

    for kind in ("EXCLUSIVE_THING", "SOMETIMES"):
        with refused("InvalidRequestException", 400):
            iot.attach_thing_principal(thingName=names[0], principal=arn, thingPrincipalType=kind)
    for name in names:
        iot.detach_thing_principal(thingName=name, principal=arn)
    iot.detach_thing_principal(thingName=names[0], principal=arn)
    iot.attach_thing_principal(thingName=names[0], principal=arn, thingPrincipalType="EXCLUSIVE_THING")
    with refused("InvalidRequestException", 400):
        iot.attach_thing_principal(thingName=names[1], principal=arn)
    assert iot.list_thing_principals_v2(thingName=names[0], thingPrincipalType="EXCLUSIVE_THING")[
        "thingPrincipalObjects"
    ] == [{"principal": arn, "thingPrincipalType": "EXCLUSIVE_THING"}]

    missing = arn.rsplit("/", 1)[0] + "/" + "0" * 64
    for call in (
        lambda: iot.attach_thing_principal(thingName=fresh("thing"), principal=arn),
        lambda: iot.attach_thing_principal(thingName=names[1], principal=missing),
        lambda: iot.detach_thing_principal(thingName=fresh("thing"), principal=arn),
        lambda: iot.list_thing_principals(thingName=fresh("thing")),
        lambda: iot.list_principal_things(principal=missing),
    ):
        with refused("ResourceNotFoundException", 404):
            call()


def test_the_policies_of_a_principal_are_tried_out(iot, fresh, certificate):
    arn, account = certificate["certificateArn"], certificate["certificateArn"].split(":")[4]

    def topic(name):
        return f"arn:aws:iot:{REGION}:{account}:topic/{name}"

    def statement(effect, resource):
        document = {"Effect": effect, "Action": "iot:Publish", "Resource": topic(resource)}
        return json.dumps({"Version": "2012-10-17", "Statement": [document]})

    allow, deny, more = fresh("allow"), fresh("deny"), fresh("more")
    iot.create_policy(policyName=allow, policyDocument=statement("Allow", "a/*"))
    iot.create_policy(policyName=deny, policyDocument=statement("Deny", "a/secret"))
    iot.create_policy(policyName=more, policyDocument=statement("Allow", "${iot:ClientId}"))
    for name in (allow, deny):
        iot.attach_policy(policyName=name, target=arn)

    effective = iot.get_effective_policies(principal=arn)["effectivePolicies"]
    assert [policy["policyName"] for policy in effective] == [allow, deny]
    assert effective[0]["policyDocument"] == statement("Allow", "a/*")

    def decisions(resources, **more):
        info = {"actionType": "PUBLISH", "resources": [topic(name) for name in resources]}
        results = iot.test_authorization(principal=arn, authInfos=[info], **more)["authResults"]
        return [result["authDecision"] for result in results]

    assert decisions(["a/b", "a/secret", "b"]) == ["ALLOWED", "EXPLICIT_DENY", "IMPLICIT_DENY"]
    assert decisions(["a/secret"], policyNamesToSkip=[deny]) == ["ALLOWED"]
    assert decisions(["me"], policyNamesToAdd=[more], clientId="me") == ["ALLOWED"]
    assert decisions(["me"], policyNamesToAdd=[more]) == ["IMPLICIT_DENY"]

    def missing(**more):
        info = {"actionType": "PUBLISH", "resources": [topic("me")]}
        (result,) = iot.test_authorization(principal=arn, authInfos=[info], **more)["authResults"]
        return result["missingContextValues"]

    assert missing() == missing(policyNamesToAdd=[more], clientId="me") == []
    assert missing(policyNamesToAdd=[more]) == ["iot:ClientId"]
    result = iot.test_authorization(
        principal=arn, authInfos=[{"actionType": "PUBLISH", "resources": [topic("a/b")]}]
    )["authResults"][0]
    assert [policy["policyName"] for policy in result["allowed"]["policies"]] == [allow]
    assert [policy["policyName"] for policy in result["denied"]["implicitDeny"]["policies"]] == [deny]
    for infos in ([], [{"actionType": "DANCE", "resources": []}]):
        with refused("InvalidRequestException", 400):
            iot.test_authorization(principal=arn, authInfos=infos)


def test_endpoints_are_described(iot):
    for kind in ("iot:Data", "iot:Data-ATS", "iot:Jobs", "iot:CredentialProvider"):
        assert iot.describe_endpoint(endpointType=kind)["endpointAddress"]
    assert iot.describe_endpoint()["endpointAddress"]
    with refused("InvalidRequestException", 400):
        iot.describe_endpoint(endpointType="iot:Nowhere")


# The data plane


def test_shadows_over_rest(data, fresh):
    thing = fresh("a:thing")
    with refused("ResourceNotFoundException", 404):
        data.get_thing_shadow(thingName=thing)
    for name, more in ((None, {}), ("named", {"shadowName": "named"})):
        request = json.dumps({"state": {"desired": {"on": True}}, "clientToken": "t"})
        accepted = json.loads(data.update_thing_shadow(thingName=thing, payload=request, **more)["payload"].read())
        assert (accepted["version"], accepted["state"], accepted["clientToken"]) == (1, {"desired": {"on": True}}, "t")
        document = json.loads(data.get_thing_shadow(thingName=thing, **more)["payload"].read())
        assert document["state"] == {"desired": {"on": True}, "delta": {"on": True}}
    with refused("ConflictException", 409):
        data.update_thing_shadow(thingName=thing, payload='{"state":{},"version":7}')
    with refused("InvalidRequestException", 400):
        data.update_thing_shadow(thingName=thing, payload="nonsense")
    with refused("RequestEntityTooLargeException", 413):
        data.update_thing_shadow(thingName=thing, payload=json.dumps({"state": {"desired": {"x": "y" * 9000}}}))
    for more in ({"thingName": "a b"}, {"thingName": thing, "shadowName": "a/b"}):
        with refused("InvalidRequestException", 400):
            data.get_thing_shadow(**more)
    deleted = json.loads(data.delete_thing_shadow(thingName=thing)["payload"].read())
    assert deleted["version"] == 1
    with refused("ResourceNotFoundException", 404):
        data.delete_thing_shadow(thingName=thing)


def test_updates_of_shadows_may_have_nothing_in_them(data, fresh):
    thing = fresh("thing")
    update = lambda state: json.loads(data.update_thing_shadow(thingName=thing, payload=json.dumps({"state": state}))["payload"].read())
    shown = lambda: json.loads(data.get_thing_shadow(thingName=thing)["payload"].read())
    update({"desired": {"a": {}, "b": {"c": 1}}, "reported": {"b": {"c": 1}}})
    assert shown()["state"] == {"desired": {"a": {}, "b": {"c": 1}}, "reported": {"b": {"c": 1}}, "delta": {"a": {}}}
    update({"desired": {"b": {"c": None}}})
    assert shown()["state"]["desired"] == {"a": {}}
    update({})
    assert shown()["state"]["desired"] == {"a": {}}
    emptied = update(None)
    assert (emptied["state"], emptied["version"]) == (None, 4) and emptied["metadata"] == {"timestamp": emptied["timestamp"]}
    assert (shown()["state"], shown()["metadata"]) == ({}, {})
    for wrong in ('{"state":[]}', '{"state":{"desired":[]}}', "{}"):
        with refused("InvalidRequestException", 400):
            data.update_thing_shadow(thingName=thing, payload=wrong)


def test_named_shadows_are_listed(data, fresh):
    thing, names = fresh("thing"), ["a", "b", "c"]
    for name in names:
        data.update_thing_shadow(thingName=thing, shadowName=name, payload='{"state":{"reported":{"x":1}}}')
    data.update_thing_shadow(thingName=thing, payload='{"state":{"reported":{"x":1}}}')
    assert data.list_named_shadows_for_thing(thingName=thing)["results"] == names
    first = data.list_named_shadows_for_thing(thingName=thing, pageSize=2)
    assert first["results"] == names[:2] and first["timestamp"]
    second = data.list_named_shadows_for_thing(thingName=thing, pageSize=2, nextToken=first["nextToken"])
    assert second["results"] == names[2:] and "nextToken" not in second
    assert data.list_named_shadows_for_thing(thingName=fresh("thing"))["results"] == []
    with refused("InvalidRequestException", 400):
        data.list_named_shadows_for_thing(thingName=thing, pageSize=101)


def test_retained_messages_over_rest(data, fresh):
    topics = sorted(fresh(f"retained/{word}") for word in ("a b", "c%2Fd", "e+f", "ü"))
    topics = [topic.replace("+", "_") for topic in topics]
    for topic in topics:
        data.publish(
            topic=topic,
            qos=1,
            retain=True,
            payload=b"\x00\xffbytes",
            userProperties=json.dumps([{"k": "v"}, {"k": "w"}]),
            contentType="text/plain; x=1",
            responseTopic="answers/here",
            correlationData=base64.b64encode(b"\x01\x02").decode(),
            payloadFormatIndicator="UNSPECIFIED_BYTES",
            messageExpiry=3600,
        )
        message = data.get_retained_message(topic=topic)
        assert (message["topic"], message["payload"], message["qos"]) == (topic, b"\x00\xffbytes", 1)
        assert json.loads(message["userProperties"]) == [{"k": "v"}, {"k": "w"}]
        age = datetime.datetime.now().timestamp() * 1000 - message["lastModifiedTime"]
        assert -5_000 < age < 60_000
    pages = data.get_paginator("list_retained_messages").paginate(PaginationConfig={"PageSize": 2})
    listed = {item["topic"]: item for page in pages for item in page["retainedTopics"]}
    assert set(topics) <= set(listed)
    assert (listed[topics[0]]["payloadSize"], listed[topics[0]]["qos"]) == (7, 1)
    for topic in topics:
        data.publish(topic=topic, retain=True, payload=b"")
        with refused("ResourceNotFoundException", 404):
            data.get_retained_message(topic=topic)
    for size in (0, 201):
        with refused("InvalidRequestException", 400):
            data.list_retained_messages(maxResults=size)


@pytest.mark.parametrize(
    "more",
    [
        {"topic": "a/#"},
        {"topic": "a/+"},
        {"topic": "a\0b"},
        {"qos": 2},
        {"qos": -1},
        {"messageExpiry": -1},
        {"responseTopic": "a/#"},
        {"payloadFormatIndicator": "SOMETHING"},
        {"payloadFormatIndicator": "UTF8_DATA", "payload": b"\xff"},
        {"correlationData": "?"},
        {"userProperties": json.dumps({"k": "v"})},
        {"userProperties": json.dumps([{"k": 1}])},
    ],
)
def test_publications_that_are_none_are_refused(data, fresh, more):
    with refused("InvalidRequestException", 400):
        data.publish(**{"topic": fresh("t"), "payload": b"x", **more})


def test_publishing_answers(cloud, data, fresh):
    data.publish(topic=fresh("a/b"), payload=b"")
    data.publish(topic=fresh("a/b"), payload=b"x", qos=1, payloadFormatIndicator="UTF8_DATA")
    status, headers, body = signed(cloud, "POST", f"/topics/plain/{fresh('x')}?qos=1", "iotdevicegateway", b"hello")
    assert status == 200
    body = json.loads(body)
    assert body["message"] == "OK" and body["traceId"]
    assert headers["x-amzn-requestid"]


def test_clients_that_nobody_knows(data, fresh):
    client = fresh("client")
    with refused("ResourceNotFoundException", 404):
        data.get_connection(clientId=client, includeSocketInformation=True)
    with refused("ResourceNotFoundException", 404):
        data.delete_connection(clientId=client, cleanSession=True, preventWillMessage=True)
    with refused("ResourceNotFoundException", 404):
        data.list_subscriptions(clientId=client)


# Signatures, routes, shapes


def test_requests_must_be_signed_well(cloud):
    iot, key = cloud.client("iot"), cloud.session.get_credentials()
    with refused("UnrecognizedClientException", 403):
        cloud.client("iot", aws_access_key_id="AKIANOBODY", aws_secret_access_key="x").list_things()
    with refused("InvalidSignatureException", 403):
        cloud.client("iot", aws_access_key_id=key.access_key, aws_secret_access_key="x").list_things()
    status, headers, body = answer("GET", cloud.endpoint + "/things", {})
    assert (status, headers["x-amzn-errortype"]) == (403, "MissingAuthenticationTokenException")
    assert json.loads(body)["message"] and headers["x-amzn-requestid"]
    for authorization in ("AWS4-HMAC-SHA256", "Basic eDp5", "AWS4-HMAC-SHA256 Credential=/, SignedHeaders=, Signature="):
        status, headers, _ = answer("GET", cloud.endpoint + "/things", {"Authorization": authorization})
        assert (status, headers["x-amzn-errortype"]) == (403, "IncompleteSignatureException")
    status, headers, _ = signed(cloud, "GET", "/things", "s3")
    assert (status, headers["x-amzn-errortype"]) == (403, "InvalidSignatureException")
    assert iot.list_things(maxResults=1)["ResponseMetadata"]["RequestId"]


def test_a_session_token_beside_a_key_of_the_configuration_is_refused(cloud):
    key = cloud.session.get_credentials()
    for service in ("iot", "sts"):
        client = cloud.client(
            service, aws_access_key_id=key.access_key, aws_secret_access_key=key.secret_key, aws_session_token="of another",
        )
        with refused("InvalidClientTokenId" if service == "sts" else "UnrecognizedClientException", 403):
            client.get_caller_identity() if service == "sts" else client.list_things()


def test_a_wrong_clock_is_told_in_the_format_of_the_request(cloud, monkeypatch):
    now = botocore.auth.get_current_datetime
    for hours, said in (
        (-1, r"Signature expired: (\S+) is now earlier than (\S+) \((\S+) - 5 min\.\)"),
        (1, r"Signature not yet current: (\S+) is still later than (\S+) \((\S+) \+ 5 min\.\)"),
    ):
        monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *words, **more: now(*words, **more) + datetime.timedelta(hours=hours))
        status, headers, body = signed(cloud, "GET", "/things")
        assert (status, headers["x-amzn-errortype"]) == (403, "InvalidSignatureException")
        found = re.fullmatch(said, json.loads(body)["message"])
        assert found and all(re.fullmatch(r"\d{8}T\d{6}Z", time) for time in found.groups()), body


def test_a_body_that_is_far_too_large_is_answered(cloud, fresh):
    """Whoever sends all of it before it reads the answer gets the answer all the same."""
    url = urllib.parse.urlsplit(cloud.endpoint)
    for service, path, chunked in (("iot", f"/things/{fresh('thing')}", False), ("iotdata", "/topics/a", False), ("iotdata", "/topics/a", True)):
        request = botocore.awsrequest.AWSRequest(method="POST", url=cloud.endpoint + path, data=b"", headers={"x-amz-content-sha256": "UNSIGNED-PAYLOAD"})
        botocore.auth.SigV4Auth(cloud.session.get_credentials(), service, REGION).add_auth(request)
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=30)
        body = (b" " * (1 << 20) for _ in range(20))
        headers = dict(request.headers) if chunked else dict(request.headers) | {"Content-Length": str(20 << 20)}
        connection.request("POST", path, body=body, headers=headers, encode_chunked=chunked)
        answered = connection.getresponse()
        assert (answered.status, answered.headers["x-amzn-errortype"]) == (413, "RequestEntityTooLargeException")
        assert "exceeds" in json.loads(answered.read())["message"]
        connection.close()


def test_a_url_can_be_signed_instead(cloud, iot, fresh):
    name = fresh("thing")
    iot.create_thing(thingName=name)
    status, _, body = signed(cloud, "GET", f"/things/{name}?x=%2F%20~", signer=botocore.auth.SigV4QueryAuth)
    assert status == 200 and json.loads(body)["thingName"] == name


def test_the_service_of_the_signature_chooses_the_api(cloud, fresh):
    thing = fresh("thing")
    assert signed(cloud, "GET", f"/things/{thing}/shadow", "iot")[0] == 404
    assert signed(cloud, "GET", f"/things/{thing}/shadow", "iot")[1]["x-amzn-errortype"] == "UnknownOperationException"
    assert signed(cloud, "GET", f"/things/{thing}/shadow", "iotdata")[1]["x-amzn-errortype"] == "ResourceNotFoundException"
    status, headers, body = signed(cloud, "GET", "/things", "iotdata")
    assert (status, headers["x-amzn-errortype"]) == (404, "UnknownOperationException")
    assert json.loads(body)["traceId"]


def test_what_is_no_operation_is_said(cloud):
    for method, path, status, code in [
        ("GET", "/", 404, "UnknownOperationException"),
        ("GET", "/nowhere", 404, "UnknownOperationException"),
        ("GET", "/jobs", 404, "UnknownOperationException"),
        ("POST", "/thing-types", 405, "MethodNotAllowedException"),
        ("PUT", "/things/x", 405, "MethodNotAllowedException"),
        ("DELETE", "/endpoint", 405, "MethodNotAllowedException"),
    ]:
        found, headers, body = signed(cloud, method, path)
        assert (found, headers["x-amzn-errortype"]) == (status, code), path
        assert json.loads(body)["message"]


def test_bodies_are_read_carefully(cloud, fresh):
    path = f"/things/{fresh('thing')}"
    for body in (b"nonsense", b"[]", b'{"attributePayload": 7}', b'{"attributePayload": {"attributes": {"a": 1}}}'):
        status, headers, answer_body = signed(cloud, "POST", path, body=body)
        assert (status, headers["x-amzn-errortype"]) == (400, "InvalidRequestException"), body
        assert "body" in json.loads(answer_body)["message"]
    status, headers, _ = signed(cloud, "POST", path, body=b" " * (1024 * 1024 + 1))
    assert (status, headers["x-amzn-errortype"]) == (413, "RequestEntityTooLargeException")
    assert signed(cloud, "POST", path, body=b'{"unknown": 1, "attributePayload": null}')[0] == 200


def test_many_clients_at_once(cloud, fresh):
    """Whoever wins, the versions are one apart and every loser is told."""
    name, outcomes = fresh("thing"), []
    cloud.client("iot").create_thing(thingName=name)

    def contend(number):
        iot = cloud.client("iot")
        for _ in range(10):
            version = iot.describe_thing(thingName=name)["version"]
            try:
                iot.update_thing(
                    thingName=name, attributePayload={"attributes": {"by": str(number)}}, expectedVersion=version
                )
                outcomes.append("won")
            except iot.exceptions.VersionConflictException:
                outcomes.append("lost")

    threads = [threading.Thread(target=contend, args=(number,)) for number in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(outcomes) == 40
    assert cloud.client("iot").describe_thing(thingName=name)["version"] == 1 + outcomes.count("won")


# The command line


def test_the_command_line(cloud, fresh, tmp_path):
    thing, policy, kind = fresh("cli-thing"), fresh("cli-policy"), fresh("cli-type")
    cloud.cli("iot", "create-thing-type", "--thing-type-name", kind)
    cloud.cli(
        "iot", "create-thing", "--thing-name", thing, "--thing-type-name", kind,
        "--attribute-payload", '{"attributes":{"serial":"7"}}',
    )
    assert cloud.cli("iot", "describe-thing", "--thing-name", thing)["attributes"] == {"serial": "7"}
    listed = cloud.cli("iot", "list-things", "--attribute-name", "serial", "--attribute-value", "7")["things"]
    assert thing in [item["thingName"] for item in listed]
    files = [str(tmp_path / name) for name in ("device.pem", "public.key", "device.key")]
    made = cloud.cli(
        "iot", "create-keys-and-certificate", "--set-as-active", "--certificate-pem-outfile", files[0],
        "--public-key-outfile", files[1], "--private-key-outfile", files[2],
    )
    assert open(files[0]).read() == made["certificatePem"]
    arn, id = made["certificateArn"], made["certificateId"]
    cloud.cli("iot", "create-policy", "--policy-name", policy, "--policy-document", ALLOW)
    cloud.cli("iot", "attach-policy", "--policy-name", policy, "--target", arn)
    cloud.cli("iot", "attach-thing-principal", "--thing-name", thing, "--principal", arn)
    assert cloud.cli("iot", "list-attached-policies", "--target", arn)["policies"][0]["policyName"] == policy
    assert cloud.cli("iot", "list-principal-things", "--principal", arn)["things"] == [thing]
    assert cloud.cli("iot", "list-principal-policies", "--principal", arn)["policies"][0]["policyName"] == policy
    assert cloud.cli("iot", "describe-endpoint", "--endpoint-type", "iot:Data-ATS")["endpointAddress"]
    cloud.cli("iot", "delete-certificate", "--certificate-id", id, fails="CertificateStateException")
    cloud.cli("iot", "describe-thing", "--thing-name", fresh("nothing"), fails="ResourceNotFoundException")

    out = str(tmp_path / "shadow.json")
    request = '{"state":{"desired":{"on":true}}}'
    cloud.cli("iot-data", "update-thing-shadow", "--thing-name", thing, "--payload", request, out)
    assert json.load(open(out))["state"] == {"desired": {"on": True}}
    cloud.cli("iot-data", "get-thing-shadow", "--thing-name", thing, out)
    assert json.load(open(out))["version"] == 1
    cloud.cli("iot-data", "publish", "--topic", f"{thing}/a", "--qos", "1", "--retain", "--payload", "hello")
    assert cloud.cli("iot-data", "get-retained-message", "--topic", f"{thing}/a")["topic"] == f"{thing}/a"
    cloud.cli("iot-data", "publish", "--topic", f"{thing}/a", "--retain")
    cloud.cli("iot-data", "delete-thing-shadow", "--thing-name", thing, out)

    cloud.cli("iot", "update-certificate", "--certificate-id", id, "--new-status", "INACTIVE")
    cloud.cli("iot", "detach-thing-principal", "--thing-name", thing, "--principal", arn)
    cloud.cli("iot", "detach-policy", "--policy-name", policy, "--target", arn)
    cloud.cli("iot", "delete-certificate", "--certificate-id", id)
    cloud.cli("iot", "delete-policy", "--policy-name", policy)
    cloud.cli("iot", "delete-thing", "--thing-name", thing)


@pytest.mark.parametrize("path, body", [
    ("/things/{name}", [None, None, None]), ("/policies/{name}", [ALLOW, None]), ("/thing-groups/{name}", [None] * 4),
])
def test_a_list_is_no_body(cloud, name, path, body):
    """Members have names: a list is not taken in their order, which no document says."""
    status, headers, told = signed(cloud, "POST", path.format(name=name), body=json.dumps(body).encode())
    assert (status, headers["x-amzn-errortype"]) == (400, "InvalidRequestException"), told


def test_a_list_is_no_request_of_a_device(dial, tmp_path, name):
    words = "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=x -keyout key -out csr"
    subprocess.run(words.split(), cwd=tmp_path, check=True, capture_output=True)
    client = dial(listener="tls")
    client.connect(name)
    client.subscribe("$aws/certificates/create-from-csr/json/+", qos=1)
    client.publish("$aws/certificates/create-from-csr/json", json.dumps([(tmp_path / "csr").read_text()]).encode(), qos=1)
    assert client.receive().topic.endswith("/rejected")
