"""Onboarding with templates: RegisterThing, fleet provisioning by claim and by trusted user, just in time."""

import concurrent.futures
import contextlib
import datetime
import hashlib
import http.server
import json
import ssl
import threading
import time

import awscrt.mqtt
import cbor2
import pytest
from awsiot import iotidentity, mqtt_connection_builder
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import rawmqtt as m
from brokers import wait_until
from test_authorities import authority, knock, refused  # noqa: F401, fixtures

pytestmark = pytest.mark.skein
NOT_AUTHORIZED = 0x87
ROLE = "arn:aws:iam::000000000000:role/r"
WAIT = 20
ALLOW = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}'
GIVEN = {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}}}


@pytest.fixture(scope="module")
def iot(shared_broker):
    return shared_broker.boto("iot")


@pytest.fixture(scope="module")
def key():
    return ec.generate_private_key(ec.SECP256R1())


def csr(key, name="device"):
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def written(folder, name, pem, key):
    """The files of a certificate and its key."""
    if not isinstance(key, str):
        form = serialization.PrivateFormat.TraditionalOpenSSL
        key = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()
    files = folder / f"{name}.pem", folder / f"{name}.key"
    files[0].write_text(pem)
    files[1].write_text(key)
    return files


def template(name, **more):
    """A thing that is called as the device says, its certificate, and a policy."""
    thing = {
        "Type": "AWS::IoT::Thing",
        "Properties": {
            "ThingName": {"Fn::Join": ["-", [name, {"Ref": "Serial"}]]},
            "AttributePayload": {"serial": {"Ref": "Serial"}},
            **more.pop("thing", {}),
        },
        **more.pop("settings", {}),
    }
    resources = {"thing": thing, "certificate": GIVEN, **more.pop("resources", {})}
    return {"Parameters": {"Serial": {"Type": "String"}}, "Resources": resources, **more}


class TestRegisterThing:
    @staticmethod
    def body(name, **more):
        by_request = {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateSigningRequest": {"Ref": "CSR"}}}
        body = template(name, **more)
        body["Parameters"]["CSR"] = {"Type": "String"}
        body["Resources"]["certificate"] = by_request
        return body

    def test_everything_is_there_at_once(self, iot, key, skein, dial, tmp_path, name):
        iot.create_thing_type(thingTypeName=name)
        iot.create_thing_group(thingGroupName=name)
        iot.create_billing_group(billingGroupName=name)
        document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]}
        body = self.body(
            name, thing={"ThingTypeName": name, "ThingGroups": [name], "BillingGroup": name},
            resources={"policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": document}}},
        )
        parameters = {"Serial": "7", "CSR": csr(key)}
        made = iot.register_thing(templateBody=json.dumps(body), parameters=parameters)
        arns = made["resourceArns"]
        assert set(arns) == {"thing", "certificate", "policy"}
        thing = iot.describe_thing(thingName=f"{name}-7")
        assert (thing["thingTypeName"], thing["attributes"], thing["version"]) == (name, {"serial": "7"}, 1)
        assert thing["billingGroupName"] == name and thing["thingArn"] == arns["thing"]
        assert iot.list_things_in_thing_group(thingGroupName=name)["things"] == [f"{name}-7"]
        assert iot.list_thing_principals(thingName=f"{name}-7")["principals"] == [arns["certificate"]]
        policies = iot.list_attached_policies(target=arns["certificate"])["policies"]
        assert [it["policyArn"] for it in policies] == [arns["policy"]]
        with dial(listener="tls", device=written(tmp_path, name, made["certificatePem"], key)) as client:
            assert client.connect(f"{name}-7").reason == 0
        # The same document is the same policy.
        again = iot.register_thing(templateBody=json.dumps(body), parameters=parameters | {"Serial": "8"})
        assert again["resourceArns"]["policy"] == arns["policy"]

    def test_what_is_there_is_treated_as_the_template_says(self, iot, key, name):
        def register(settings, **thing):
            body = self.body(name, thing=thing, settings={"OverrideSettings": settings})
            iot.register_thing(templateBody=json.dumps(body), parameters={"Serial": "1", "CSR": csr(key)})
            return iot.describe_thing(thingName=f"{name}-1")

        for group in ("a", "b"):
            iot.create_thing_group(thingGroupName=f"{name}-{group}")
        groups = lambda: {it["groupName"] for it in iot.list_thing_groups_for_thing(thingName=f"{name}-1")["thingGroups"]}
        assert register({}, ThingGroups=[f"{name}-a"])["attributes"] == {"serial": "1"}
        found = register({}, AttributePayload={"other": "x"}, ThingGroups=[f"{name}-b"])
        assert (found["attributes"], found["version"], groups()) == ({"serial": "1"}, 1, {f"{name}-a"})
        merge = {"AttributePayload": "MERGE", "ThingGroups": "MERGE"}
        found = register(merge, AttributePayload={"other": "x"}, ThingGroups=[f"{name}-b"])
        assert found["attributes"] == {"serial": "1", "other": "x"} and found["version"] == 2
        assert groups() == {f"{name}-a", f"{name}-b"}
        replace = {"AttributePayload": "REPLACE", "ThingGroups": "REPLACE"}
        found = register(replace, AttributePayload={"other": "y"}, ThingGroups=[f"{name}-b"])
        assert found["attributes"] == {"other": "y"} and groups() == {f"{name}-b"}
        fail = {"AttributePayload": "FAIL"}
        assert register(fail, AttributePayload={"other": "y"})["version"] == found["version"]
        conflict = lambda: register(fail, AttributePayload={"other": "z"})
        refused(conflict, "ConflictingResourceUpdateException", 409)

    @pytest.mark.parametrize("what", ["type", "group", "policy", "name", "parameter", "csr", "document", "attributes"])
    def test_all_or_nothing(self, iot, key, what, name):
        parameters = {"Serial": "7", "CSR": csr(key)}
        thing = {"ThingGroups": [f"{name}-there"]}
        policy = {"PolicyDocument": json.loads(ALLOW)}
        iot.create_thing_group(thingGroupName=f"{name}-there")
        match what:
            case "type":
                thing["ThingTypeName"] = "nobody-made-it"
            case "group":
                thing["ThingGroups"].append("nobody-made-it")
            case "policy":
                policy = {"PolicyName": "nobody-made-it"}
            case "name":
                parameters["Serial"] = "no name/"
            case "parameter":
                del parameters["Serial"]
            case "csr":
                parameters["CSR"] = "no request"
            case "document":
                policy = {"PolicyDocument": {"Version": "1999-01-01"}}
            case "attributes":
                thing["AttributePayload"] = {str(number): "x" for number in range(4)}
        body = self.body(name, thing=thing, resources={"policy": {"Type": "AWS::IoT::Policy", "Properties": policy}})
        count = lambda: len(list(iot.get_paginator("list_certificates").paginate().search("certificates")))
        before = count()
        refused(
            iot.register_thing, "ResourceRegistrationFailureException", 400,
            templateBody=json.dumps(body), parameters=parameters,
        )
        assert count() == before
        refused(iot.describe_thing, "ResourceNotFoundException", 404, thingName=f"{name}-7")

    def test_bad_templates_are_refused_with_their_place(self, iot, name):
        register = lambda body, **parameters: refused(
            iot.register_thing, "InvalidRequestException", 400, templateBody=body, parameters=parameters,
        )["Error"]["Message"]
        assert "EOF" in register("{")
        assert "there is no AWS::IoT::Certificate" in register('{"Resources": {}}')
        assert "is there twice" in register('{"Resources": {}, "Resources": {}}')
        assert "10240" in register(" " * 10_241)
        deep = '{"Ref":' * 2_000 + '"x"' + "}" * 2_000
        assert "recursion limit" in register('{"Resources": %s}' % deep[:9_000])
        loop = template(name)
        loop["Resources"]["thing"]["Properties"]["ThingName"] = {"Ref": "thing"}
        answer = refused(
            iot.register_thing, "ResourceRegistrationFailureException", 400,
            templateBody=json.dumps(loop), parameters={"Serial": "1"},
        )
        assert "not found" in answer["Error"]["Message"] or "refers to itself" in answer["Error"]["Message"] \
            or "no value" in answer["Error"]["Message"]
        implicit = {"AWS::IoT::Certificate::Id": "0" * 64}
        assert "cannot be given" in register(json.dumps(template(name)), **implicit)

    def test_a_parameter_cannot_widen_a_policy(self, iot, key, name):
        document = {"Fn::Sub": ALLOW.replace("*\"}", "arn:aws:iot:us-east-1:000000000000:topic/${Serial}\"}")}
        policy = {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": document}}
        body = self.body(name, resources={"policy": policy})
        body["Resources"]["thing"]["Properties"]["ThingName"] = name
        del body["Resources"]["thing"]["Properties"]["AttributePayload"]
        register = lambda serial: iot.register_thing(
            templateBody=json.dumps(body), parameters={"Serial": serial, "CSR": csr(key)},
        )
        for serial in ("*", "a?", "${iot:ClientId}", 'x","Resource":"*', "\\u0022"):
            answer = refused(register, "ResourceRegistrationFailureException", 400, serial=serial)
            assert "means something in a policy" in answer["Error"]["Message"]
        register("7")


class TestTemplates:
    def create(self, iot, name, **more):
        more = {"provisioningRoleArn": ROLE, "templateBody": json.dumps(template(name)), **more}
        return iot.create_provisioning_template(templateName=name, **more)

    def test_a_template_is_described_as_it_was_created(self, iot, name):
        tags = [{"Key": "k", "Value": "v"}]
        made = self.create(iot, name, description="for lamps", enabled=True, tags=tags)
        assert made["defaultVersionId"] == 1
        found = iot.describe_provisioning_template(templateName=name)
        assert (found["description"], found["enabled"], found["type"]) == ("for lamps", True, "FLEET_PROVISIONING")
        assert found["provisioningRoleArn"] == ROLE and json.loads(found["templateBody"]) == template(name)
        assert found["templateArn"] == made["templateArn"]
        assert iot.list_tags_for_resource(resourceArn=made["templateArn"])["tags"] == tags
        listed = list(iot.get_paginator("list_provisioning_templates").paginate(PaginationConfig={"PageSize": 1}))
        assert name in [it["templateName"] for page in listed for it in page["templates"]]
        refused(self.create, "ResourceAlreadyExistsException", 409, iot=iot, name=name)
        hook = {"targetArn": "http://127.0.0.1:1/"}
        iot.update_provisioning_template(templateName=name, enabled=False, preProvisioningHook=hook, description="x")
        found = iot.describe_provisioning_template(templateName=name)
        assert found["preProvisioningHook"] == {"payloadVersion": "2020-04-01", **hook}
        assert (found["enabled"], found["description"]) == (False, "x")
        iot.update_provisioning_template(templateName=name, removePreProvisioningHook=True)
        assert "preProvisioningHook" not in iot.describe_provisioning_template(templateName=name)
        iot.delete_provisioning_template(templateName=name)
        refused(iot.describe_provisioning_template, "ResourceNotFoundException", 404, templateName=name)
        refused(iot.delete_provisioning_template, "ResourceNotFoundException", 404, templateName=name)

    def test_versions(self, iot, name):
        self.create(iot, name)
        other = json.dumps(template(f"{name}-other"))
        add = lambda **more: iot.create_provisioning_template_version(templateName=name, templateBody=other, **more)
        made = add()
        assert (made["versionId"], made["isDefaultVersion"]) == (2, False)
        assert add(setAsDefault=True)["isDefaultVersion"]
        assert iot.describe_provisioning_template(templateName=name)["defaultVersionId"] == 3
        add(), add()
        refused(add, "VersionsLimitExceededException", 409)
        delete = lambda version: iot.delete_provisioning_template_version(templateName=name, versionId=version)
        refused(delete, "DeleteConflictException", 409, version=3)
        refused(delete, "ResourceNotFoundException", 404, version=9)
        delete(5)
        assert add()["versionId"] == 6, "ids are never used again"
        versions = iot.list_provisioning_template_versions(templateName=name)["versions"]
        assert [(it["versionId"], it["isDefaultVersion"]) for it in versions] \
            == [(1, False), (2, False), (3, True), (4, False), (6, False)]
        found = iot.describe_provisioning_template_version(templateName=name, versionId=1)
        assert json.loads(found["templateBody"]) == template(name)
        iot.update_provisioning_template(templateName=name, defaultVersionId=1)
        update = lambda: iot.update_provisioning_template(templateName=name, defaultVersionId=5)
        refused(update, "ResourceNotFoundException", 404)

    @pytest.mark.parametrize("body", [
        {"Resources": {"certificate": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": "0" * 64}}}},
        {"Resources": {"certificate": GIVEN, "another": GIVEN}},
        {"Resources": {"certificate": GIVEN}, "DeviceConfiguration": {"x": {"Ref": "nothing"}}},
    ])
    def test_a_template_that_could_never_be_carried_out_is_refused(self, iot, name, body):
        refused(self.create, "InvalidRequestException", 400, iot=iot, name=name, templateBody=json.dumps(body))

    def test_bad_members(self, iot, name):
        bad = lambda **more: refused(self.create, "InvalidRequestException", 400, iot=iot, name=name, **more)
        for target in ("arn:aws:lambda:us-east-1:000000000000:function:f", "ftp://a/", "http:"):
            bad(preProvisioningHook={"targetArn": target})
        bad(preProvisioningHook={"targetArn": "http://a/", "payloadVersion": "2019-01-01"})
        fleet_only = json.dumps(template(name, DeviceConfiguration={}))
        bad(type="JITP", templateBody=fleet_only)
        bad(type="JITP", preProvisioningHook={"targetArn": "http://a/"})
        bad(preProvisioningHook={"targetArn": "http://user:secret@a/"})
        self.create(iot, name, type="JITP")
        update = lambda: iot.update_provisioning_template(templateName=name, preProvisioningHook={"targetArn": "http://a/"})
        refused(update, "InvalidRequestException", 400)
        refused(iot.create_provisioning_claim, "InvalidRequestException", 400, templateName=name)


class Claim:
    """A device that provisions itself over a raw connection."""

    def __init__(self, client, encoding="json"):
        self.client, self.encoding = client, encoding
        self.coding = json if encoding == "json" else cbor2

    def ask(self, topic, request, check=True):
        topic = f"{topic}/{self.encoding}"
        self.client.subscribe(f"{topic}/accepted", f"{topic}/rejected", qos=1)
        payload = self.coding.dumps(request) if request is not None else b""
        self.client.publish(topic, payload if isinstance(payload, bytes) else payload.encode(), qos=1)
        got = self.client.receive()
        answer = self.coding.loads(got.payload)
        assert got.topic in (f"{topic}/accepted", f"{topic}/rejected")
        assert got.topic.endswith("accepted") is check, answer
        return answer

    def certificate(self, key=None, **more):
        if key is None:
            return self.ask("$aws/certificates/create", None, **more)
        return self.ask("$aws/certificates/create-from-csr", {"certificateSigningRequest": csr(key)}, **more)

    def provision(self, name, token, parameters, **more):
        request = {"certificateOwnershipToken": token, "parameters": parameters}
        return self.ask(f"$aws/provisioning-templates/{name}/provision", request, **more)


@pytest.fixture
def claim(iot, dial, tmp_path, name):
    """Opens connections with the claim of a trusted user."""
    made = []

    def claim(template=name, id=None, encoding="json"):
        if not made:
            made.append(iot.create_provisioning_claim(templateName=template))
        files = written(tmp_path, "claim", made[0]["certificatePem"], made[0]["keyPair"]["PrivateKey"])
        client = dial(listener="tls", device=files)
        client.connect(id or f"{name}-claim-{len(made)}")
        return Claim(client, encoding)

    claim.made = made
    return claim


@pytest.fixture
def fleet(iot, name):
    """A template that is enabled."""
    policy = {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": json.loads(ALLOW)}}

    def fleet(**more):
        body = template(name, resources={"policy": policy}, **more.pop("body", {}))
        iot.create_provisioning_template(
            templateName=name, enabled=True, provisioningRoleArn=ROLE, templateBody=json.dumps(body), **more,
        )
        return name

    return fleet


class TestFleet:
    @pytest.mark.parametrize("encoding", ["json", "cbor"])
    @pytest.mark.parametrize("own_key", [True, False])
    def test_a_device_provisions_itself(self, iot, fleet, claim, key, dial, tmp_path, encoding, own_key, name):
        fleet(body={"DeviceConfiguration": {"url": {"Fn::Sub": "https://${Serial}.example"}}})
        device = claim(encoding=encoding)
        made = device.certificate(key if own_key else None)
        found = iot.describe_certificate(certificateId=made["certificateId"])["certificateDescription"]
        assert found["status"] == "PENDING_ACTIVATION"
        answer = device.provision(name, made["certificateOwnershipToken"], {"Serial": "7"})
        assert answer == {"deviceConfiguration": {"url": "https://7.example"}, "thingName": f"{name}-7"}
        found = iot.describe_certificate(certificateId=made["certificateId"])["certificateDescription"]
        assert found["status"] == "ACTIVE"
        assert iot.list_thing_principals(thingName=f"{name}-7")["principals"] == [found["certificateArn"]]
        files = written(tmp_path, name, made["certificatePem"], key if own_key else made["privateKey"])
        assert dial(listener="tls", device=files).connect(f"{name}-7").reason == 0
        # Once only.
        again = device.provision(name, made["certificateOwnershipToken"], {"Serial": "8"}, check=False)
        assert (again["statusCode"], again["errorCode"]) == (400, "InvalidCertificateOwnershipToken")
        refused(iot.describe_thing, "ResourceNotFoundException", 404, thingName=f"{name}-8")

    def test_answers_go_to_the_device_alone(self, fleet, claim, dial, key, name):
        fleet()
        listener = dial()
        listener.connect(f"{name}-listener")
        listener.subscribe("$aws/certificates/#", "$aws/provisioning-templates/#", qos=1)
        device, other = claim(), claim(id=f"{name}-other")
        other.client.subscribe("$aws/certificates/create-from-csr/json/accepted", qos=1)
        device.certificate(key)
        # What was sent to it would have come first.
        other.client.ping()
        assert not other.client.kept
        listener.nothing_more()

    def test_a_token_is_of_whom_it_was_given_to(self, iot, fleet, claim, key, dial, tmp_path, name):
        fleet()
        token = claim().certificate(key)["certificateOwnershipToken"]
        thief = iot.create_keys_and_certificate(setAsActive=True)
        iot.create_policy(policyName=name, policyDocument=ALLOW)
        iot.attach_policy(policyName=name, target=thief["certificateArn"])
        client = dial(listener="tls", device=written(tmp_path, "thief", thief["certificatePem"],
                                                     thief["keyPair"]["PrivateKey"]))
        client.connect(f"{name}-thief")
        for shown in (token, token[:-1] + "?", token[:64], "", "é" * 70):
            answer = Claim(client).provision(name, shown, {"Serial": "1"}, check=False)
            assert answer["errorCode"] == "InvalidCertificateOwnershipToken", shown
        claim(id=f"{name}-back").provision(name, token, {"Serial": "1"})

    def test_what_is_wrong_is_said(self, iot, fleet, claim, key, name):
        fleet()
        device = claim()
        made = device.certificate(key)
        token = made["certificateOwnershipToken"]
        wrong = lambda *words: device.provision(*words, check=False)
        answer = wrong(name, token, {})
        assert (answer["statusCode"], answer["errorCode"]) == (400, "InvalidParameters")
        assert "Serial" in answer["errorMessage"]
        assert wrong(name, token, {"Serial": "a/b"})["errorCode"] == "InvalidParameters"
        assert wrong(name, token, {"Serial": "1", "AWS::IoT::Certificate::Id": "x"})["errorCode"] == "InvalidParameters"
        bad = lambda request: device.ask(f"$aws/provisioning-templates/{name}/provision", request, check=False)
        for request in ([], {}, {"certificateOwnershipToken": 5}, {"certificateOwnershipToken": token, "parameters": 1}):
            assert bad(request)["errorCode"] == "InvalidPayload"
        answer = device.ask("$aws/certificates/create-from-csr", {"certificateSigningRequest": "x"}, check=False)
        assert answer["errorCode"] == "InvalidCertificateSigningRequest"
        iot.update_provisioning_template(templateName=name, enabled=False)
        answer = wrong(name, token, {"Serial": "1"})
        assert (answer["statusCode"], answer["errorCode"]) == (403, "AccessDenied")
        # Nothing of all that has used the token up.
        iot.update_provisioning_template(templateName=name, enabled=True)
        device.provision(name, token, {"Serial": "1"})

    def test_large_requests_are_refused_and_so_is_a_second_one_at_a_time(self, fleet, claim, key, hook, name):
        fleet(preProvisioningHook={"targetArn": hook.url})
        device = claim()
        token = device.certificate(key)["certificateOwnershipToken"]
        answer = device.provision(name, token, {"Serial": "x" * 140_000}, check=False)
        assert (answer["statusCode"], answer["errorCode"]) == (400, "InvalidPayload")
        # The hook keeps the first one waiting until the second has been refused.
        hook.answer, hook.go_on = b'{"allowProvisioning": true}', threading.Event()
        topic = f"$aws/provisioning-templates/{name}/provision/json"
        request = json.dumps({"certificateOwnershipToken": token, "parameters": {"Serial": "7"}}).encode()
        for _ in range(2):
            device.client.publish(topic, request, qos=1)
        refused_one = device.client.receive()
        assert (refused_one.topic, json.loads(refused_one.payload)["statusCode"]) == (f"{topic}/rejected", 429)
        hook.go_on.set()
        assert json.loads(device.client.receive().payload)["thingName"] == f"{name}-7"

    def test_a_claim_that_is_revoked_provisions_nothing(self, iot, fleet, claim, key, hook, name):
        fleet(preProvisioningHook={"targetArn": hook.url})
        device = claim()
        token = device.certificate(key)["certificateOwnershipToken"]
        hook.answer, hook.go_on = b'{"allowProvisioning": true}', threading.Event()
        request = json.dumps({"certificateOwnershipToken": token, "parameters": {"Serial": "7"}}).encode()
        device.client.publish(f"$aws/provisioning-templates/{name}/provision/json", request, qos=1)
        wait_until("the hook is asked", lambda: hook.asked)
        iot.update_certificate(certificateId=claim.made[0]["certificateId"], newStatus="REVOKED")
        hook.go_on.set()
        device.client.closed()
        refused(iot.describe_thing, "ResourceNotFoundException", 404, thingName=f"{name}-7")

    def test_a_conflict_is_said(self, iot, fleet, claim, key, name):
        fleet(body={"settings": {"OverrideSettings": {"AttributePayload": "FAIL"}}})
        iot.create_thing(thingName=f"{name}-1", attributePayload={"attributes": {"serial": "other"}})
        device = claim()
        token = device.certificate(key)["certificateOwnershipToken"]
        answer = device.provision(name, token, {"Serial": "1"}, check=False)
        assert (answer["statusCode"], answer["errorCode"]) == (409, "ResourceConflicts")
        assert iot.describe_thing(thingName=f"{name}-1")["attributes"] == {"serial": "other"}

    def test_a_claim_is_for_one_template_and_nothing_else(self, iot, fleet, claim, name):
        fleet()
        iot.create_provisioning_template(
            templateName=f"{name}-2", enabled=True, provisioningRoleArn=ROLE, templateBody=json.dumps(template(name)),
        )
        device = claim().client
        for topic in ("a", "$aws/things/x/shadow/update", f"$aws/provisioning-templates/{name}-2/provision/json"):
            assert device.publish(topic, b"{}", qos=1, check=False) == NOT_AUTHORIZED
        for filter in ("#", "a", "$aws/things/+/shadow/#", "$aws/certificates/#"):
            assert device.subscribe(filter, check=False) == [NOT_AUTHORIZED]
        made = claim.made[0]
        left = made["expiration"] - datetime.datetime.now(datetime.timezone.utc)
        assert datetime.timedelta(minutes=4) < left <= datetime.timedelta(minutes=5)
        listed = iot.get_paginator("list_certificates").paginate().search("certificates[].certificateId")
        assert made["certificateId"] not in list(listed)
        refused(iot.create_provisioning_claim, "ResourceNotFoundException", 404, templateName="nobody-made-it")

    def test_requests_are_no_publications(self, skein, fleet, claim, dial, name):
        """Who has no certificate, and who publishes over HTTP, cannot ask."""
        fleet()
        anonymous = dial()
        anonymous.connect(name)
        answer = Claim(anonymous).certificate(check=False)
        assert (answer["statusCode"], answer["errorCode"]) == (403, "AccessDenied")
        data = skein.boto("iot-data")
        refused(data.publish, "InvalidRequestException", 400, topic="$aws/certificates/create/json", payload=b"{}")

    def test_the_sdk_provisions(self, iot, fleet, skein, tmp_path, name):
        """The client of the AWS IoT device SDK, with a claim certificate of one's own and its policy."""
        fleet()
        document = {"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"},
            {"Effect": "Allow", "Action": ["iot:Publish", "iot:Receive"], "Resource": [
                "arn:aws:iot:us-east-1:000000000000:topic/$aws/certificates/create/*",
                f"arn:aws:iot:us-east-1:000000000000:topic/$aws/provisioning-templates/{name}/provision/*"]},
            {"Effect": "Allow", "Action": "iot:Subscribe", "Resource": [
                "arn:aws:iot:us-east-1:000000000000:topicfilter/$aws/certificates/create/*",
                f"arn:aws:iot:us-east-1:000000000000:topicfilter/$aws/provisioning-templates/{name}/provision/*"]},
        ]}
        shared = iot.create_keys_and_certificate(setAsActive=True)
        iot.create_policy(policyName=name, policyDocument=json.dumps(document))
        iot.attach_policy(policyName=name, target=shared["certificateArn"])
        files = written(tmp_path, "shared", shared["certificatePem"], shared["keyPair"]["PrivateKey"])
        connection = mqtt_connection_builder.mtls_from_path(
            *map(str, files), endpoint="localhost", port=skein.port("tls"), client_id=name, ca_filepath=skein.ca,
        )
        connection.connect().result(WAIT)
        client, qos = iotidentity.IotIdentityClient(connection), awscrt.mqtt.QoS.AT_LEAST_ONCE

        def ask(request, subscribe, publish):
            answer = concurrent.futures.Future()
            for name, take in (("accepted", answer.set_result),
                               ("rejected", lambda it: answer.set_exception(AssertionError(it.error_message)))):
                getattr(client, f"subscribe_to_{subscribe}_{name}")(request, qos, take)[0].result(WAIT)
            publish(request, qos).result(WAIT)
            return answer.result(WAIT)

        made = ask(iotidentity.CreateKeysAndCertificateRequest(), "create_keys_and_certificate",
                   client.publish_create_keys_and_certificate)
        request = iotidentity.RegisterThingRequest(
            template_name=name, certificate_ownership_token=made.certificate_ownership_token, parameters={"Serial": "7"},
        )
        answer = ask(request, "register_thing", client.publish_register_thing)
        assert answer.thing_name == f"{name}-7"
        connection.disconnect().result(WAIT)


def test_a_fleet_provisions_itself(iot, skein, key, request, tmp_path, name):
    """Each device comes with the claim that all share, and its own key; `--fleet 10000` for a large one."""
    count, workers = request.config.getoption("fleet"), 8
    shared = iot.create_keys_and_certificate(setAsActive=True)
    iot.create_policy(policyName=name, policyDocument=ALLOW)
    iot.attach_policy(policyName=name, target=shared["certificateArn"])
    body = template(name, resources={"policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": name}}})
    iot.create_provisioning_template(
        templateName=name, enabled=True, provisioningRoleArn=ROLE, templateBody=json.dumps(body),
    )
    files = written(tmp_path, "shared", shared["certificatePem"], shared["keyPair"]["PrivateKey"])
    context = ssl.create_default_context(cafile=skein.ca)
    context.load_cert_chain(*files)

    def provision(number):
        wrap = lambda raw: context.wrap_socket(raw, server_hostname="localhost")
        with m.Client(skein.address("tls"), 5, wrap=wrap, timeout=30) as client:
            client.connect(f"{name}-device-{number}")
            device = Claim(client)
            token = device.certificate(key)["certificateOwnershipToken"]
            assert device.provision(name, token, {"Serial": str(number)})["thingName"] == f"{name}-{number}"

    begun = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        list(pool.map(provision, range(count)))
    took = time.monotonic() - begun
    print(f"{count} devices provisioned in {took:.1f} s: {count / took:.0f}/s")
    things = iot.get_paginator("list_things").paginate().search("things[].thingName")
    assert sum(thing.startswith(f"{name}-") for thing in things) == count
    targets = iot.get_paginator("list_targets_for_policy").paginate(policyName=name).search("targets")
    assert len(list(targets)) == count + 1


class Hook(http.server.BaseHTTPRequestHandler):
    """What is asked before a device is provisioned; `answer` is what it says."""

    asked, answer, status, go_on = [], b"", 200, None

    def do_POST(self):
        self.asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        if self.go_on:
            self.go_on.wait(4)
        self.send_response(self.status)
        self.send_header("location", "http://127.0.0.1:1/")
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(self.answer)

    def log_message(self, *_):
        pass


@pytest.fixture
def hook():
    class Own(Hook):
        asked = []

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Own)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Own.url = f"http://127.0.0.1:{server.server_port}/hook"
    yield Own
    server.shutdown()
    server.server_close()


class TestHook:
    def test_it_is_asked_and_its_parameters_win(self, fleet, claim, key, hook, name):
        fleet(preProvisioningHook={"targetArn": hook.url})
        device = claim(id=f"{name}-client")
        made = device.certificate(key)
        hook.answer = json.dumps({"allowProvisioning": True, "parameterOverrides": {"Serial": "hooked"}}).encode()
        answer = device.provision(name, made["certificateOwnershipToken"], {"Serial": "7", "extra": "x"})
        assert answer["thingName"] == f"{name}-hooked"
        [asked] = hook.asked
        assert asked.pop("templateArn").endswith(f":provisioningtemplate/{name}")
        assert asked.pop("certificatePem").split() == made["certificatePem"].split()
        assert asked == {
            "claimCertificateId": claim.made[0]["certificateId"], "certificateId": made["certificateId"],
            "clientId": f"{name}-client", "parameters": {"Serial": "7", "extra": "x"},
        }

    @pytest.mark.parametrize("status, answer", [
        (200, b'{"allowProvisioning": false}'), (200, b"{}"), (200, b"no"), (200, b""),
        (500, b'{"allowProvisioning": true}'), (302, b'{"allowProvisioning": true}'),
        (200, b'{"allowProvisioning": true, "parameterOverrides": {"Serial": 5}}'),
        (200, b'{"allowProvisioning": true, "padding": "' + b"x" * 70_000 + b'"}'),
    ])
    def test_anything_but_a_yes_is_a_no(self, iot, fleet, claim, key, hook, status, answer, name):
        fleet(preProvisioningHook={"targetArn": hook.url})
        hook.status, hook.answer = status, answer
        device = claim()
        token = device.certificate(key)["certificateOwnershipToken"]
        rejected = device.provision(name, token, {"Serial": "7"}, check=False)
        assert (rejected["statusCode"], rejected["errorCode"]) == (403, "AccessDenied")
        refused(iot.describe_thing, "ResourceNotFoundException", 404, thingName=f"{name}-7")

    @pytest.mark.parametrize("status, answer, result, said", [
        (200, b"no", "invalid_answer", "gave an answer that cannot be used"),
        (500, b"", "failed", "could not be asked, or failed"),
    ])
    def test_a_bad_answer_is_told_from_none(self, skein, fleet, claim, key, hook, status, answer, result, said, name):
        counted = lambda: skein.metrics()[f'provisioning_hook_failures_total{{result="{result}"}}']
        fleet(preProvisioningHook={"targetArn": hook.url})
        hook.status, hook.answer = status, answer
        device, before = claim(), counted()
        token = device.certificate(key)["certificateOwnershipToken"]
        rejected = device.provision(name, token, {"Serial": "7"}, check=False)
        assert said in rejected["errorMessage"]
        assert counted() == before + 1

    def test_nobody_there_is_a_no(self, fleet, claim, key, name):
        fleet(preProvisioningHook={"targetArn": "http://127.0.0.1:1/"})
        device = claim()
        token = device.certificate(key)["certificateOwnershipToken"]
        assert device.provision(name, token, {"Serial": "7"}, check=False)["errorCode"] == "AccessDenied"


class TestJustInTime:
    """Just-in-time provisioning: the template of the authority is carried out when its device comes."""

    def body(self, name):
        common = "AWS::IoT::Certificate::CommonName"
        policy = {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": ALLOW}}
        thing = {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Fn::Sub": "%s-${%s}" % (name, common)}}}
        return json.dumps({
            "Parameters": {common: {"Type": "String"}, "AWS::IoT::Certificate::Id": {"Type": "String"}},
            "Resources": {"thing": thing, "certificate": GIVEN, "policy": policy},
        })

    @pytest.mark.parametrize("by_name", [False, True])
    def test_a_device_is_provisioned_when_it_first_comes(self, iot, authority, knock, by_name, name):
        config = {"templateBody": self.body(name), "roleArn": ROLE}
        if by_name:
            iot.create_provisioning_template(
                templateName=name, type="JITP", enabled=True, provisioningRoleArn=ROLE, templateBody=self.body(name),
            )
            config = {"templateName": name}
        authority.register(iot, setAsActive=True, allowAutoRegistration=True, registrationConfig=config)
        pem = authority.sign("/CN=lamp", "device")
        id = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
        assert knock("device") == NOT_AUTHORIZED
        wait_until("the device is let in", lambda: knock("device") == 0)
        found = iot.describe_certificate(certificateId=id)["certificateDescription"]
        assert found["status"] == "ACTIVE"
        assert iot.list_thing_principals(thingName=f"{name}-lamp")["principals"] == [found["certificateArn"]]
        if by_name:
            delete = lambda: iot.delete_provisioning_template(templateName=name)
            refused(delete, "DeleteConflictException", 409)

    def test_a_subject_without_a_parameter_provisions_nothing(self, iot, authority, knock, skein, name):
        config = {"templateBody": self.body(name), "roleArn": ROLE}
        authority.register(iot, setAsActive=True, allowAutoRegistration=True, registrationConfig=config)
        pem = authority.sign("/O=nameless", "device")
        id = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
        assert knock("device") == NOT_AUTHORIZED
        said = lambda: any(id in line and "not provisioned just in time" in line for line in skein.log.read_text().splitlines())
        wait_until("the log says so", said)
        found = iot.describe_certificate(certificateId=id)["certificateDescription"]
        assert found["status"] == "PENDING_ACTIVATION"
        assert iot.list_principal_things(principal=found["certificateArn"])["things"] == []

    def test_a_template_has_to_be_one_for_this(self, iot, authority, name):
        iot.create_provisioning_template(
            templateName=name, provisioningRoleArn=ROLE, templateBody=json.dumps(template(name)),
        )
        register = lambda **config: authority.register(iot, registrationConfig=config)
        refused(register, "InvalidRequestException", 400, templateName=name)
        refused(register, "ResourceNotFoundException", 404, templateName="nobody-made-it")
        refused(register, "InvalidRequestException", 400, templateBody="{}")
