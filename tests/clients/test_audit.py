"""The audit log: who changes what is recorded, once, without secrets, and nothing is done that cannot be."""

import json
import re
import subprocess
import time
import urllib.error
import urllib.request

import boto3
import botocore.config
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

import brokers
import rawmqtt as m
from brokers import skein_binary, wait_until
from conftest import tls_context
from test_authorities import authority, refused  # noqa: F401, fixtures
from test_full_disk import fill, small_disk  # noqa: F401, fixtures
from test_provisioning import ALLOW, GIVEN, ROLE, Claim, csr, written

pytestmark = pytest.mark.skein
SECRET = "the secret of a test key"
KEYS = {"ADMIN": "admin", "OPERATOR": "operator", "READER": "read-only"}
HOOK_KEY = "hook-key-that-nobody-may-see"


class Audited(brokers.Serving):
    """A node that keeps an audit log."""

    def __init__(self, folder, pki, file=None, **settings):
        super().__init__(folder)
        self.file = file or self.folder / "audit.jsonl"
        text = f"""
            data = '{self.data}'
            [listeners.admin]
            address = '127.0.0.1:{self.port("admin")}'
            [listeners.http]
            address = '127.0.0.1:{self.port("http")}'
            [listeners.https]
            address = '127.0.0.1:{self.port("wss")}'
            [tls]
            certificate = '{pki}/server.pem'
            private_key = '{pki}/server.key'
            issuer_certificate = '{pki}/ca.pem'
            issuer_private_key = '{pki}/ca.key'
            [audit]
            file = '{self.file}'
        """
        text += "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
        for id, role in KEYS.items():
            text += f"\n[[access_keys]]\nid = '{id}'\nsecret = '{SECRET}'\nrole = '{role}'\n"
        (self.folder / "skein.toml").write_text(text)
        self.trusts = str(pki / "ca.pem")

    ca = property(lambda self: self.trusts)

    def who(self, key, service="iot", secret=SECRET):
        config = botocore.config.Config(retries={"total_max_attempts": 1})
        return boto3.client(
            service, endpoint_url=self.http_url, region_name="us-east-1", config=config,
            aws_access_key_id=key, aws_secret_access_key=secret,
        )

    def records(self):
        return [json.loads(line) for line in self.file.read_text().splitlines()]

    def of(self, answer):
        """The records of a request."""
        return [it for it in self.records() if it["request"] == answer["ResponseMetadata"]["RequestId"]]

    def verify(self, file=None):
        done = subprocess.run([skein_binary(), "audit", "verify", file or self.file], capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    def put(self, path, body):
        url = "http://%s:%d%s" % (*self.address("admin"), path)
        with urllib.request.urlopen(urllib.request.Request(url, body.encode(), method="PUT"), timeout=5) as answer:
            return answer.status

    def stream(self, query=""):
        url = "http://%s:%d/admin/audit?%s" % (*self.address("admin"), query)
        return urllib.request.urlopen(url, timeout=10)


@pytest.fixture(scope="module")
def audited(tmp_path_factory, shared_broker):
    audited = Audited(tmp_path_factory.mktemp("audit") / "served", shared_broker.pki).start()
    yield audited
    audited.stop()


@pytest.fixture
def iot(audited):
    return audited.who("ADMIN")


def described(answer):
    """What a Describe answers, as JSON has it."""
    answer = {key: value for key, value in answer.items() if key != "ResponseMetadata"}
    return json.loads(json.dumps(answer, default=lambda time: time.timestamp()))


def test_a_change_says_who_what_before_and_after(audited, iot, name):
    made = iot.create_thing(thingName=name, attributePayload={"attributes": {"a": "1"}})
    first = described(iot.describe_thing(thingName=name))
    changed = iot.update_thing(thingName=name, attributePayload={"attributes": {"a": "2"}})
    second = described(iot.describe_thing(thingName=name))
    gone = iot.delete_thing(thingName=name)
    for answer, operation, before, after in (
        (made, "CreateThing", None, first), (changed, "UpdateThing", first, second), (gone, "DeleteThing", second, None),
    ):
        (record,) = audited.of(answer)
        assert record["operation"] == operation
        assert record["actor"] == {"type": "access_key", "id": "ADMIN", "role": "admin"}
        assert record["source"] == "127.0.0.1"
        assert record["outcome"] == "done" and "error" not in record
        assert record["resource"] == made["thingArn"]
        assert record["changes"][0] == {"resource": made["thingArn"], "before": before, "after": after}
        assert record["v"] == 1 and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record["time"])


def test_a_policy_is_recorded_with_its_documents(audited, iot, name):
    other = ALLOW.replace("iot:*", "iot:Connect")
    iot.create_policy(policyName=name, policyDocument=ALLOW)
    version = iot.create_policy_version(policyName=name, policyDocument=other)
    default = iot.set_default_policy_version(policyName=name, policyVersionId="2")
    (record,) = audited.of(version)
    (change,) = record["changes"]
    assert change["before"]["versions"] == {"1": ALLOW} and change["after"]["versions"] == {"1": ALLOW, "2": other}
    assert change["after"]["policyDocument"] == ALLOW
    (record,) = audited.of(default)
    assert record["changes"][0]["after"]["policyDocument"] == other
    made = iot.create_keys_and_certificate()
    (record,) = audited.of(iot.attach_policy(policyName=name, target=made["certificateArn"]))
    assert record["changes"] == [{
        "resource": made["certificateArn"], "before": {"policies": []}, "after": {"policies": [name]},
    }]


def test_what_is_attached_and_grouped_is_recorded(audited, iot, name):
    iot.create_thing(thingName=name)
    iot.create_thing_group(thingGroupName=name)
    iot.create_billing_group(billingGroupName=name)
    principal = iot.create_keys_and_certificate()["certificateArn"]
    (attached,) = audited.of(iot.attach_thing_principal(thingName=name, principal=principal))
    assert attached["changes"][0]["after"]["thingPrincipalObjects"][0]["principal"] == principal
    (grouped,) = audited.of(iot.add_thing_to_thing_group(thingName=name, thingGroupName=name))
    assert grouped["changes"][0]["before"] == {"thingGroups": []}
    assert grouped["changes"][0]["after"] == {"thingGroups": [name]}
    (billed,) = audited.of(iot.add_thing_to_billing_group(thingName=name, billingGroupName=name))
    assert billed["changes"][0]["after"]["billingGroupName"] == name
    arn = iot.describe_thing_group(thingGroupName=name)["thingGroupArn"]
    (tagged,) = audited.of(iot.tag_resource(resourceArn=arn, tags=[{"Key": "k", "Value": "v"}]))
    assert tagged["changes"] == [{"resource": arn, "before": {"tags": {}}, "after": {"tags": {"k": "v"}}}]


def test_who_may_not_is_recorded(audited, iot, name):
    for key, call in (
        ("READER", lambda it: it.create_thing(thingName=name)),
        ("READER", lambda it: it.delete_policy(policyName=name)),
        ("OPERATOR", lambda it: it.create_policy(policyName=name, policyDocument=ALLOW)),
    ):
        with pytest.raises(Exception) as error:
            call(audited.who(key))
        (record,) = audited.of(error.value.response)
        assert (record["outcome"], record["error"]) == ("denied", "AccessDeniedException")
        assert record["actor"] == {"type": "access_key", "id": key, "role": KEYS[key]}
        assert record["resource"].endswith(name) and "changes" not in record


def test_what_is_refused_is_recorded_without_what_was_sent(audited, iot, name):
    for call in (
        lambda: iot.delete_policy(policyName=name),
        lambda: iot.create_policy(policyName=name, policyDocument="a secret by mistake"),
        lambda: iot.update_thing(thingName=name, expectedVersion=7),
    ):
        with pytest.raises(Exception) as error:
            call()
        (record,) = audited.of(error.value.response)
        assert record["outcome"] == "rejected" and record["error"] == error.value.response["Error"]["Code"]
        assert "changes" not in record
    assert "a secret by mistake" not in audited.file.read_text()


def test_what_changes_nothing_says_so(audited, iot, name):
    """Detaching what is not there succeeds."""
    made = iot.create_keys_and_certificate()
    (record,) = audited.of(iot.detach_policy(policyName=name, target=made["certificateArn"]))
    assert record["outcome"] == "done" and "changes" not in record
    assert record["resource"].endswith(f"policy/{name}")


def test_looking_and_publishing_is_not_recorded(audited, iot, name):
    iot.create_thing(thingName=name)
    before = len(audited.records())
    iot.describe_thing(thingName=name)
    iot.list_things()
    audited.who("ADMIN", "iot-data").publish(topic=name, payload=b"x")
    audited.who("ADMIN", "iot-data").update_thing_shadow(thingName=name, payload=b'{"state":{"desired":{"a":1}}}')
    assert len(audited.records()) == before


def test_who_proves_nothing_writes_nothing(audited, name):
    before = len(audited.records())
    for key, secret in (("ADMIN", "another secret"), ("NOBODY", SECRET)):
        with pytest.raises(Exception):
            audited.who(key, secret=secret).create_thing(thingName=name)
    assert len(audited.records()) == before


def test_ended_connections_are_recorded(audited):
    with pytest.raises(Exception) as error:
        audited.who("ADMIN", "iot-data").delete_connection(clientId="nobody")
    (record,) = audited.of(error.value.response)
    assert record["operation"] == "DeleteConnection" and record["resource"].endswith(":client/nobody")


def test_the_admin_port_is_recorded(audited):
    before = audited.get("/admin/log")[1].strip()
    try:
        assert audited.put("/admin/log", "info,node=debug") == 204
        record = audited.records()[-1]
        assert record["operation"] == "SetLogFilter" and record["actor"] == {"type": "admin_port"}
        assert record["source"] == "127.0.0.1"
        assert record["changes"][0]["before"] == before != record["changes"][0]["after"]
        with pytest.raises(urllib.error.HTTPError):
            audited.put("/admin/log", "nonsense of a filter")
        record = audited.records()[-1]
        assert (record["operation"], record["outcome"], record["error"]) == ("SetLogFilter", "rejected", "400")
    finally:
        audited.put("/admin/log", before)


def provisioning(body):
    return json.dumps(body | {"Parameters": {"Serial": {"Type": "String"}}})


def device(audited, files):
    context = tls_context(audited, files)
    client = m.Client(audited.address("tls"), 5, wrap=lambda raw: context.wrap_socket(raw, server_hostname="localhost"))
    return client


def test_a_device_that_provisions_itself_is_recorded(audited, iot, tmp_path, name):
    thing = {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "Serial"}}}
    body = provisioning({"Resources": {"thing": thing, "certificate": GIVEN}})
    iot.create_provisioning_template(templateName=name, templateBody=body, provisioningRoleArn=ROLE, enabled=True)
    claim = iot.create_provisioning_claim(templateName=name)
    files = written(tmp_path, name, claim["certificatePem"], claim["keyPair"]["PrivateKey"])
    with device(audited, files) as client:
        assert client.connect(name).reason == 0
        claimant = Claim(client)
        made = claimant.certificate()
        topic, token = f"$aws/provisioning-templates/{name}/provision", made["certificateOwnershipToken"]
        parameters = {"Serial": name}
        claimant.ask(topic, {"certificateOwnershipToken": "wrong", "parameters": parameters}, check=False)
        answer = claimant.ask(topic, {"certificateOwnershipToken": token, "parameters": parameters})
        assert answer["thingName"] == name
    by = {"type": "device", "certificate": claim["certificateId"], "client_id": name, "by": "fleet_provisioning"}
    create, reject, register = [it for it in audited.records() if it["actor"] == by]
    assert [it["operation"] for it in (create, reject, register)] == ["CreateKeysAndCertificate", "RegisterThing", "RegisterThing"]
    assert [it["outcome"] for it in (create, reject, register)] == ["done", "rejected", "done"]
    assert register["source"] == "127.0.0.1" and register["resource"].endswith(f"provisioningtemplate/{name}")
    resources = {it["resource"].rpartition(":")[2] for it in register["changes"]}
    assert {f"thing/{name}", f"cert/{made['certificateId']}"} <= resources
    text = audited.file.read_text()
    for secret in (made["privateKey"], token, claim["keyPair"]["PrivateKey"]):
        assert secret.strip().splitlines()[-2 if "\n" in secret else 0] not in text


def test_a_certificate_that_introduces_itself_is_recorded(audited, iot, authority, tmp_path, name):  # noqa: F811
    registered = authority.register(iot, setAsActive=True, allowAutoRegistration=True)
    authority.sign("/CN=device", "device")
    with device(audited, (tmp_path / f"{name}-device.pem", tmp_path / f"{name}-device.key")) as client:
        assert client.connect(name, check=False).reason == 0x87

    def introduced():
        return [it for it in audited.records() if it["actor"].get("by") == "just_in_time_registration"]

    (record,) = wait_until("it is recorded", introduced)
    assert record["operation"] == "RegisterCertificate" and record["source"] == "127.0.0.1"
    after = record["changes"][0]["after"]
    assert after["status"] == "PENDING_ACTIVATION" and after["caCertificateId"] == registered["certificateId"]


def test_no_secret_gets_into_the_log(audited, iot, tmp_path, name):
    """Over every kind of change: what is answered once and kept nowhere, keys of signatures, sealed keys."""
    secrets = [SECRET, HOOK_KEY, iot.get_registration_code()["registrationCode"]]
    key = ec.generate_private_key(ec.SECP256R1())
    made = iot.create_keys_and_certificate(setAsActive=True)
    secrets += made["keyPair"]["PrivateKey"].split("\n")[1:-2]
    iot.create_certificate_from_csr(certificateSigningRequest=csr(key))
    body = provisioning({"Resources": {"certificate": GIVEN}})
    hook = {"targetArn": f"https://localhost:1/hook?key={HOOK_KEY}"}
    iot.create_provisioning_template(
        templateName=name, templateBody=body, provisioningRoleArn=ROLE, enabled=True, preProvisioningHook=hook,
    )
    iot.update_provisioning_template(templateName=name, description="changed")
    claim = iot.create_provisioning_claim(templateName=name)
    secrets += claim["keyPair"]["PrivateKey"].split("\n")[1:-2]
    iot.create_role_alias(roleAlias=name, roleArn=ROLE)
    policy = brokers.policy(("Allow", "iot:AssumeRoleWithCertificate", "*"), ("Allow", "iot:DeleteConnection", "*"))
    iot.create_policy(policyName=name, policyDocument=policy)
    iot.attach_policy(policyName=name, target=made["certificateArn"])
    files = written(tmp_path, name, made["certificatePem"], made["keyPair"]["PrivateKey"])
    context = tls_context(audited, files)
    url = f"https://localhost:{audited.port('wss')}/role-aliases/{name}/credentials"
    with urllib.request.urlopen(urllib.request.Request(url), timeout=10, context=context) as answer:
        given = json.load(answer)["credentials"]
    secrets += [given["secretAccessKey"], given["sessionToken"]]
    data = boto3.client(
        "iot-data", endpoint_url=f"https://localhost:{audited.port('wss')}", region_name="us-east-1", verify=audited.ca,
        aws_access_key_id=given["accessKeyId"], aws_secret_access_key=given["secretAccessKey"],
        aws_session_token=given["sessionToken"], config=botocore.config.Config(retries={"total_max_attempts": 1}),
    )
    with pytest.raises(Exception) as error:
        data.delete_connection(clientId=name)
    (record,) = audited.of(error.value.response)
    assert record["actor"] == {
        "type": "temporary_credentials", "certificate": made["certificateId"], "role_alias": name,
    }
    iot.update_event_configurations(eventConfigurations={"THING": {"Enabled": True}})
    iot.delete_registration_code()
    text = audited.file.read_text()
    operations = {it["operation"] for it in audited.records()}
    assert {"GetRegistrationCode", "CreateProvisioningClaim", "CreateRoleAlias", "UpdateEventConfigurations"} <= operations
    assert len(secrets) > 8
    for secret in secrets:
        assert len(secret) > 8 and secret not in text, secret
    assert "PRIVATE KEY" not in text
    assert f"https://localhost:1/hook?redacted" in text


def test_the_stream_tells_what_is_recorded_and_what_comes(audited, iot, name):
    everything = [json.loads(line) for line in audited.stream()]
    assert everything == audited.records()[: len(everything)] and everything[0]["operation"] == "StartNode"
    last = everything[-1]["seq"]
    assert [json.loads(line)["seq"] for line in audited.stream(f"after={last - 2}")][:2] == [last - 1, last]
    with audited.stream(f"after={last}&follow=true") as stream:
        made = iot.create_thing(thingName=name)
        record = json.loads(stream.readline())
        assert record["seq"] == last + 1 and record["request"] == made["ResponseMetadata"]["RequestId"]
        iot.delete_thing(thingName=name)
        assert json.loads(stream.readline())["operation"] == "DeleteThing"
    with pytest.raises(urllib.error.HTTPError) as error:
        audited.stream("since=1")
    assert error.value.code == 400


def test_a_node_without_an_audit_log_says_so(skein):
    assert skein.get("/admin/audit")[0] == 404
    assert "audit.file" in skein.get("/admin/audit")[1]


@pytest.mark.parametrize(
    "query, why",
    [
        ("after=x", "the parameter after must be the number of a record"),
        ("after=-1", "the parameter after must be the number of a record"),
        ("follow=yes", "the parameter follow must be true or false"),
        ("since=1", 'there is no parameter "since"'),
        ("after=1&after=2", 'the parameter "after" is there twice'),
    ],
)
def test_a_stream_says_what_it_is_asked_wrongly(audited, query, why):
    with pytest.raises(urllib.error.HTTPError) as error:
        audited.stream(query)
    assert error.value.code == 400 and why in error.value.read().decode()


def test_a_log_is_whole_until_somebody_changes_it(audited, iot, tmp_path, name):
    iot.create_thing(thingName=name)
    code, said = audited.verify()
    assert code == 0 and "are whole" in said, said
    lines = audited.file.read_text().splitlines(keepends=True)
    copy = tmp_path / "audit.jsonl"
    for tampered, why in (
        (lines[:2] + lines[3:], "line 3: record 3 is missing: record 4 follows record 2"),
        (lines[:2] + [lines[2].replace('"outcome":"', '"outcome": "')] + lines[3:], "line 4: record 4 does not go on"),
        (lines[:1] + ["nothing\n"] + lines[2:], "line 2"),
    ):
        copy.write_text("".join(tampered))
        code, said = audited.verify(copy)
        assert code == 1 and str(copy) in said and why in said, said
    code, said = audited.verify(tmp_path / "missing.jsonl")
    assert code == 1 and "missing.jsonl" in said


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_restart_goes_on_and_files_are_rotated(tmp_path, shared_broker, how):
    node = Audited(tmp_path / "node", shared_broker.pki, max_bytes=65536, keep=2).start()
    try:
        iot = node.who("ADMIN")
        big = {f"a{n}": "x" * 800 for n in range(3)}
        made = 0
        for start in range(2):
            while len(list(node.folder.glob("audit.jsonl.*"))) < 1 + start:
                iot.create_thing(thingName=f"thing-{made}", attributePayload={"attributes": big})
                made += 1
            getattr(node, how)()
            node.start()
        code, said = node.verify()
        assert code == 0, said
        operations = [it["operation"] for file in [*sorted(node.folder.glob("audit.jsonl.*")), node.file]
                      for it in map(json.loads, file.read_text().splitlines())]
        assert operations.count("CreateThing") == made and operations.count("StartNode") == 3
        assert operations.count("StopNode") == (2 if how == "stop" else 0)
        with node.stream() as stream:
            assert len([line for line in stream]) == len(operations)
        # Older files go.
        while len(list(node.folder.glob("audit.jsonl.*"))) <= 2 and made < 200:
            iot.create_thing(thingName=f"thing-{made}", attributePayload={"attributes": big})
            made += 1
        assert len(list(node.folder.glob("audit.jsonl.*"))) == 2
        code, said = node.verify()
        assert code == 0 and "older files were deleted" in said, said
    finally:
        node.stop()


def test_nothing_is_changed_that_cannot_be_recorded(small_disk, shared_broker, tmp_path, name):  # noqa: F811
    node = Audited(tmp_path / "node", shared_broker.pki, file=small_disk / "audit.jsonl").start()
    try:
        iot = node.who("ADMIN")
        iot.create_thing(thingName=f"{name}-before")
        fill(small_disk, 0)
        # The end of a block may have room left.
        attributes = {"attributes": {f"a{n}": "x" * 800 for n in range(3)}}

        def is_refused():
            try:
                iot.create_thing(thingName=f"{name}-{time.monotonic_ns()}", attributePayload=attributes)
            except iot.exceptions.ClientError as error:
                assert error.response["Error"]["Code"] == "ServiceUnavailableException", error.response
                return True

        wait_until("a change is refused", is_refused)
        wait_until("the node says so", lambda: node.metrics()["audit_failing"] == 1)
        # Clients need no audit log.
        assert node.get("/readyz") == (200, "ready; the audit log cannot be written: changes are refused here\n")
        things = {it["thingName"] for it in iot.list_things()["things"]}
        refused(iot.create_thing, "ServiceUnavailableException", 503, thingName=f"{name}-refused")
        with pytest.raises(urllib.error.HTTPError) as error:
            node.put("/admin/log", "info")
        assert error.value.code == 503 and "audit log" in error.value.read().decode()
        assert {it["thingName"] for it in iot.list_things()["things"]} == things
        (small_disk / "filler").unlink()
        wait_until("changes are taken again", lambda: node.metrics()["audit_failing"] == 0)
        assert node.get("/readyz") == (200, "ready\n")
        iot.create_thing(thingName=f"{name}-after")
        code, said = node.verify()
        assert code == 0, said
        # What was done is there, also what was done when the disk became full.
        recorded = {it["resource"].rpartition("/")[2] for it in node.records()
                    if it["operation"] == "CreateThing" and it["outcome"] in ("done", "unknown")}
        assert things | {f"{name}-after"} <= recorded and f"{name}-refused" not in recorded
        assert node.metrics()["audit_lost_total"] == 0
    finally:
        node.stop()


def test_changes_go_on_where_losses_are_counted(small_disk, shared_broker, tmp_path, name):  # noqa: F811
    node = Audited(tmp_path / "node", shared_broker.pki, file=small_disk / "audit.jsonl", on_failure="count").start()
    try:
        iot = node.who("ADMIN")
        fill(small_disk, 0)
        attributes = {"attributes": {f"a{n}": "x" * 800 for n in range(3)}}
        count = 1200
        for number in range(count):
            iot.create_thing(thingName=f"{name}-{number}", attributePayload=attributes)
        assert node.metrics()["audit_failing"] == 1
        wait_until("what has no room in memory is lost", lambda: node.metrics()["audit_lost_total"] > 0)
        (small_disk / "filler").unlink()
        wait_until("it is written again", lambda: node.metrics()["audit_failing"] == 0)
        iot.delete_thing(thingName=f"{name}-0")
        wait_until("all is written", lambda: node.records()[-1]["operation"] == "DeleteThing")
        assert node.verify()[0] == 0
        losses = [it["changes"][0]["after"]["lost"] for it in node.records() if it["operation"] == "LoseRecords"]
        created = [it for it in node.records() if it["operation"] == "CreateThing"]
        assert sum(losses) == node.metrics()["audit_lost_total"]
        assert len(created) + sum(losses) == count
    finally:
        node.stop()


@pytest.mark.parametrize("what", ["missing", "folder", "other", "read-only"])
def test_a_node_whose_log_cannot_be_written_does_not_start(small_disk, shared_broker, tmp_path, what):  # noqa: F811
    folder = tmp_path / "node"
    file = {"missing": tmp_path / "no" / "audit.jsonl", "folder": tmp_path, "other": tmp_path / "other",
            "read-only": small_disk / "audit.jsonl"}[what]
    if what == "other":
        file.write_text("something else\n")
    if what == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    node = Audited(folder, shared_broker.pki, file=file)
    done = subprocess.run(node.command(), capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and "audit.file" in done.stderr, done.stderr
    if what == "other":
        assert file.read_text() == "something else\n" and "no record of an audit log" in done.stderr


@pytest.mark.timeout(120)
def test_a_change_is_recorded_once_in_a_cluster(tmp_path, name):
    class Node(brokers.ClusterNode):
        def configure(self):
            super().configure()
            with (self.folder / "skein.toml").open("a") as config:
                config.write(f"[audit]\nfile = '{self.folder}/audit.jsonl'\n")

        def records(self):
            return [json.loads(line) for line in (self.folder / "audit.jsonl").read_text().splitlines()]

    cluster = brokers.SkeinCluster(tmp_path / "cluster", node=Node).start()
    try:
        for node in (1, 2, 3):
            cluster[node].boto("iot").create_thing(thingName=f"{name}-{node}")
        for node in (1, 2, 3):
            found = [(it["node"], it["resource"].rpartition("/")[2]) for it in cluster[node].records() if it["operation"] == "CreateThing"]
            assert found == [(node, f"{name}-{node}")]
        assert cluster.operate("drain", "3", by=1)[0] == 0
        drained = [(node, it) for node in (1, 2, 3) for it in cluster[node].records() if it["operation"] == "DrainNode"]
        ((node, record),) = drained
        assert node == 1 and record["actor"] == {"type": "admin_port"}
        (change,) = record["changes"]
        assert change["before"]["members"]["3"]["drain"] != change["after"]["members"]["3"]["drain"]
        proposed = [it for it in cluster[3].records() if it["operation"] == "DrainMember"]
        assert len(proposed) == 1 and proposed[0]["actor"] == {"type": "node"} and proposed[0]["outcome"] == "proposed"
        for node in (1, 2, 3):
            done = subprocess.run([skein_binary(), "audit", "verify", cluster[node].folder / "audit.jsonl"], capture_output=True)
            assert done.returncode == 0, done.stderr
    finally:
        cluster.stop()
