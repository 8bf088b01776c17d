"""What the holders of access keys may do."""

import boto3
import pytest

import brokers
from test_authorities import refused

pytestmark = pytest.mark.skein
SECRET = "the secret of a test key"
POLICY = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}'


@pytest.fixture(scope="module")
def served(tmp_path_factory, shared_broker):
    folder = tmp_path_factory.mktemp("rights")
    served = brokers.Serving(folder / "served")
    keys = {
        "ADMIN": "", "OPERATOR": "role = 'operator'", "READER": "role = 'read-only'",
        "LAMPS": "role = 'operator'\nthings = ['lamp-*', 'door']",
    }
    pki = shared_broker.pki
    text = f"""
        data = '{served.data}'
        [limits]
        thing_types_deprecated_for = '0s'
        [listeners.admin]
        address = '127.0.0.1:{served.port("admin")}'
        [listeners.http]
        address = '127.0.0.1:{served.port("http")}'
        [tls]
        certificate = '{pki}/server.pem'
        private_key = '{pki}/server.key'
        issuer_certificate = '{pki}/ca.pem'
        issuer_private_key = '{pki}/ca.key'
    """
    for id, more in keys.items():
        text += f"\n[[access_keys]]\nid = '{id}'\nsecret = '{SECRET}'\n{more}\n"
    (served.folder / "skein.toml").write_text(text)
    served.start()
    yield served
    served.stop()


@pytest.fixture
def who(served):
    """Clients with one of the keys."""
    return lambda key, service="iot": boto3.client(
        service, endpoint_url=served.http_url, region_name="us-east-1",
        aws_access_key_id=key, aws_secret_access_key=SECRET,
    )


def denied(call, **parameters):
    with pytest.raises(Exception) as error:
        call(**parameters)
    answer = error.value.response
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 403, answer
    assert answer["Error"]["Code"] in ("AccessDeniedException", "ForbiddenException"), answer


def test_an_admin_may_do_everything(who, name):
    iot = who("ADMIN")
    iot.create_thing(thingName=name)
    iot.create_policy(policyName=name, policyDocument=POLICY)
    who("ADMIN", "iot-data").update_thing_shadow(thingName=name, payload=b'{"state":{"desired":{"a":1}}}')


def test_an_operator_changes_things_but_not_rights(who, name):
    iot = who("OPERATOR")
    who("ADMIN").create_policy(policyName=name, policyDocument=POLICY)
    iot.create_thing(thingName=name)
    iot.create_thing_group(thingGroupName=name)
    iot.add_thing_to_thing_group(thingName=name, thingGroupName=name)
    made = iot.create_keys_and_certificate(setAsActive=True)
    iot.attach_thing_principal(thingName=name, principal=made["certificateArn"])
    iot.update_certificate(certificateId=made["certificateId"], newStatus="REVOKED")
    assert iot.get_policy(policyName=name)["policyName"] == name
    who("OPERATOR", "iot-data").publish(topic=name, payload=b"x")
    denied(iot.create_policy, policyName=f"{name}-2", policyDocument=POLICY)
    denied(iot.create_policy_version, policyName=name, policyDocument=POLICY, setAsDefault=True)
    denied(iot.attach_policy, policyName=name, target=made["certificateArn"])
    denied(iot.detach_policy, policyName=name, target=made["certificateArn"])
    denied(iot.delete_policy, policyName=name)
    denied(iot.register_thing, templateBody="{}")
    lines = {"inputFileBucket": "bucket", "inputFileKey": "key", "roleArn": "arn:aws:iam::000000000000:role/r"}
    denied(iot.start_thing_registration_task, templateBody="{}", **lines)
    denied(iot.stop_thing_registration_task, taskId="t")
    assert iot.list_thing_registration_tasks()["taskIds"] == []
    denied(iot.get_registration_code)
    denied(iot.update_event_configurations, eventConfigurations={"THING": {"Enabled": True}})
    denied(iot.create_provisioning_claim, templateName="t")
    denied(iot.create_role_alias, roleAlias="a", roleArn="arn:aws:iam::000000000000:role/r")
    denied(iot.create_authorizer, authorizerName="a", authorizerFunctionArn="https://auth.example/", signingDisabled=True)
    denied(iot.update_authorizer, authorizerName="a", status="ACTIVE")
    denied(iot.set_default_authorizer, authorizerName="a")
    denied(iot.clear_default_authorizer)


def test_a_reader_looks_only(who, name):
    who("ADMIN").create_thing(thingName=name)
    iot, data = who("READER"), who("READER", "iot-data")
    assert iot.describe_thing(thingName=name)["thingName"] == name
    assert name in [it["thingName"] for it in iot.list_things()["things"]]
    iot.test_authorization(principal="a:b", authInfos=[{"actionType": "PUBLISH", "resources": ["arn:aws:iot:us-east-1:000000000000:topic/a"]}])
    refused(data.get_thing_shadow, "ResourceNotFoundException", 404, thingName=name)
    for change, parameters in (
        (iot.create_thing, {"thingName": f"{name}-2"}), (iot.delete_thing, {"thingName": name}),
        (iot.create_keys_and_certificate, {}), (iot.create_thing_group, {"thingGroupName": name}),
        (data.publish, {"topic": "a", "payload": b"x"}), (data.delete_thing_shadow, {"thingName": name}),
        (data.update_thing_shadow, {"thingName": name, "payload": b"{}"}),
        (iot.test_invoke_authorizer, {"authorizerName": "a"}),
    ):
        denied(change, **parameters)
    assert iot.describe_thing(thingName=name)["version"] == 1


def test_a_refusal_names_role_operation_and_things(who, name):
    for key, service, call, code, said in (
        ("READER", "iot", lambda it: it.delete_thing(thingName=name), "AccessDeniedException",
         "the access key READER has the role read-only, and DeleteThing needs the role operator"),
        ("LAMPS", "iot", lambda it: it.describe_thing(thingName=name), "AccessDeniedException",
         f"the access key LAMPS has the role operator for the things lamp-*, door alone, and is not for DescribeThing of {name}"),
        ("READER", "iot-data", lambda it: it.publish(topic="a", payload=b"x"), "ForbiddenException",
         "the access key READER has the role read-only, and Publish needs the role operator"),
    ):
        with pytest.raises(Exception) as error:
            call(who(key, service))
        assert error.value.response["Error"] == {"Code": code, "Message": said}


def test_a_reader_does_not_see_the_secrets_of_addresses(who, name):
    admin, url = who("ADMIN"), "https://hook.example/path?key=secret"
    template = '{"Resources": {"certificate": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}}}}}'
    admin.create_provisioning_template(
        templateName=name[:36], templateBody=template, provisioningRoleArn="arn:aws:iam::000000000000:role/r", preProvisioningHook={"targetArn": url},
    )
    admin.create_authorizer(authorizerName=name, authorizerFunctionArn=url, signingDisabled=True)
    for key, shown in (("ADMIN", url), ("OPERATOR", url), ("READER", "https://hook.example/path?redacted")):
        iot = who(key)
        assert iot.describe_provisioning_template(templateName=name[:36])["preProvisioningHook"]["targetArn"] == shown
        assert iot.describe_authorizer(authorizerName=name)["authorizerDescription"]["authorizerFunctionArn"] == shown


def test_a_key_for_some_things(who, name):
    iot, data = who("LAMPS"), who("LAMPS", "iot-data")
    lamp = f"lamp-{name}"
    iot.create_thing(thingName=lamp)
    iot.update_thing(thingName=lamp, attributePayload={"attributes": {"a": "1"}})
    data.update_thing_shadow(thingName=lamp, payload=b'{"state":{"desired":{"a":1}}}')
    iot.create_thing(thingName="door")
    who("ADMIN").create_thing(thingName=name)
    for thing in (name, "lamp", "door-2", "Lamp-1"):
        denied(iot.describe_thing, thingName=thing)
        denied(data.get_thing_shadow, thingName=thing)
    denied(iot.list_things)
    denied(iot.create_keys_and_certificate)
    denied(data.publish, topic=lamp, payload=b"x")
    denied(data.list_retained_messages)
    assert data.list_named_shadows_for_thing(thingName=lamp)["results"] == []
    denied(data.list_named_shadows_for_thing, thingName=name)
    # Whose a certificate is says no name of a thing.
    certificate = who("ADMIN").create_keys_and_certificate(setAsActive=True)["certificateArn"]
    denied(iot.attach_thing_principal, thingName=lamp, principal=certificate)
    who("ADMIN").attach_thing_principal(thingName=lamp, principal=certificate)
    assert iot.list_thing_principals(thingName=lamp)["principals"] == [certificate]
    iot.detach_thing_principal(thingName=lamp, principal=certificate)
    iot.delete_thing(thingName=lamp)


def test_a_type_is_deleted_as_soon_as_the_configuration_says(who, name):
    iot = who("ADMIN")
    iot.create_thing_type(thingTypeName=name)
    refused(iot.delete_thing_type, "InvalidRequestException", 400, thingTypeName=name)
    iot.deprecate_thing_type(thingTypeName=name)
    iot.delete_thing_type(thingTypeName=name)
    refused(iot.describe_thing_type, "ResourceNotFoundException", 404, thingTypeName=name)


def test_a_wrong_signature_says_nothing_of_rights(served):
    iot = boto3.client(
        "iot", endpoint_url=served.http_url, region_name="us-east-1",
        aws_access_key_id="READER", aws_secret_access_key="another secret",
    )
    refused(iot.delete_thing, "InvalidSignatureException", 403, thingName="x")
