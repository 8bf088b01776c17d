"""The REST API does what its own description says, whatever is asked of it.

schemathesis reads what `skein openapi` prints and makes up requests, right ones and wrong ones, of
every operation. Its choices are the same in each run, but for `--seed`.
"""

import json
import pathlib
import re
import subprocess

import botocore.auth
import botocore.awsrequest
import botocore.session
import hypothesis
import pytest
import requests
import requests.auth
import schemathesis
from hypothesis import strategies
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks as openapi_checks

import aws
import brokers

pytestmark = pytest.mark.skein

EXAMPLES = {GenerationMode.POSITIVE: 12, GenerationMode.NEGATIVE: 8}
CHECKS = [
    schemathesis.checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_schema_conformance,
]
POLICY = brokers.policy(("Allow", "iot:*", "*"))
TEMPLATE = json.dumps({"Resources": {"certificate": {
    "Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}},
}}})


def described():
    done = subprocess.run([brokers.skein_binary(), "openapi"], check=True, capture_output=True, text=True)
    return done.stdout


def operations():
    """operationId -> operation, but for what only a device can ask."""
    try:
        document = json.loads(described())
    except FileNotFoundError:
        # Nothing is built, as where these tests are tried with another broker.
        return {}
    for path in document["paths"].values():
        for operation in path.values():
            # Whoever asks is known by a signature here, and by nothing else.
            operation["security"] = [one for one in operation["security"] if "certificate" not in one and "authorizer" not in one]
    schema = schemathesis.openapi.from_dict(document)
    found = [result.ok() for result in schema.get_all_operations()]
    return {
        operation.definition.raw["operationId"]: operation for operation in found
        if operation.definition.raw["x-skein-service"] != "credentials"
    }


OPERATIONS = operations()
# Plane, method, path and name of each operation that has to be answered.
FILE = pathlib.Path(__file__).parents[2] / "api" / "testdata" / "operations.txt"
LISTED = [line.split() for line in FILE.read_text().splitlines() if line and not line.startswith("#")]
DATA_PATHS = {path for plane, _, path, _ in LISTED if plane == "Data"}


class Signature(requests.auth.AuthBase):
    def __init__(self, credentials, service):
        self.signer = botocore.auth.SigV4Auth(credentials, service, brokers.REGION)

    def __call__(self, request):
        # As all who sign write a space.
        path, mark, query = request.url.partition("?")
        request.url = path + mark + query.replace("+", "%20")
        signed = botocore.awsrequest.AWSRequest(request.method, request.url, data=request.body or b"")
        self.signer.add_auth(signed)
        request.headers.update(signed.headers.items())
        return request


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """One of its own: what is asked of it may leave anything behind."""
    node = brokers.Skein(tmp_path_factory.mktemp("openapi")).start()
    yield node
    node.stop()


def known(node):
    """Label -> what is there under that name. What an earlier test has deleted is made again."""
    iot, data = node.boto("iot"), node.boto("iot-data")

    def make(operation, **words):
        try:
            return operation(**words)
        except iot.exceptions.ResourceAlreadyExistsException:
            return None

    for make_it, words in (
        (iot.create_thing_type, dict(thingTypeName="known")),
        (iot.create_thing, dict(thingName="known")),
        (iot.create_thing_group, dict(thingGroupName="known")),
        (iot.create_billing_group, dict(billingGroupName="known")),
        (iot.create_policy, dict(policyName="known", policyDocument=POLICY)),
        (iot.create_role_alias, dict(roleAlias="known", roleArn="arn:aws:iam::000000000000:role/known")),
        (iot.create_provisioning_template, dict(
            templateName="known", templateBody=TEMPLATE, provisioningRoleArn="arn:aws:iam::000000000000:role/known",
        )),
    ):
        make(make_it, **words)
    certificates = iot.list_certificates()["certificates"]
    certificate = certificates[0] if certificates else iot.create_keys_and_certificate(setAsActive=True)
    data.update_thing_shadow(thingName="known", payload=b'{"state":{"desired":{"on":true}}}')
    data.publish(topic="known", payload=b"1", qos=1, retain=True)
    names = ("thingName", "thingTypeName", "thingGroupName", "billingGroupName", "policyName", "roleAlias", "templateName", "topic")
    role, certificate_arn = "arn:aws:iam::000000000000:role/known", certificate["certificateArn"]
    return dict.fromkeys(names, "known") | {
        "certificateId": certificate["certificateId"], "policyVersionId": "1", "versionId": "1",
        "target": certificate_arn, "principal": certificate_arn, "x-amzn-principal": certificate_arn,
        "x-amzn-iot-principal": certificate_arn, "x-amzn-iot-policy": "known",
        "resourceArn": f"arn:aws:iot:{brokers.REGION}:{brokers.ACCOUNT}:thinggroup/known",
        "policyDocument": POLICY, "templateBody": TEMPLATE, "roleArn": role, "provisioningRoleArn": role,
    }


@pytest.fixture(scope="module")
def there(node):
    return known(node)


def members(operation):
    """Those that the description has for the body."""
    content = operation.definition.raw.get("requestBody", {}).get("content", {})
    return content.get("application/json", {}).get("schema", {}).get("properties", {})


def test_the_description_is_always_the_same():
    assert described() == described()


def asked_of(node, method, path):
    """The code of what an operation answers about something that is not there."""
    url = node.http_url + re.sub(r"\{\w+\+?\}", "nothing", path)
    service = "iotdata" if path in DATA_PATHS else "iot"
    answer = requests.request(method, url, data="{}", auth=Signature(aws.credentials(node), service))
    return answer.headers.get("x-amzn-errortype", ""), answer.text


def test_every_operation_of_the_registry_is_answered(node):
    for plane, method, path, name in LISTED:
        if plane != "Credentials":
            code, text = asked_of(node, method, path)
            assert code not in ("UnknownOperationException", "MethodNotAllowedException"), (name, text)


def test_what_is_not_offered_is_no_wrong_method(node):
    offered = {name for *_, name in LISTED}
    model = botocore.session.get_session().get_service_model("iot")
    others = {name: model.operation_model(name).http for name in set(model.operation_names) - offered}
    assert "CreateJob" in others and "CreateThing" not in others
    for name, http in sorted(others.items()):
        code, text = asked_of(node, http["method"], http["requestUri"].partition("?")[0])
        assert code == "UnknownOperationException", (name, text)


@pytest.mark.parametrize("mode", EXAMPLES, ids=lambda mode: mode.value)
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation(node, there, request, name, mode):
    operation = OPERATIONS[name]
    auth = Signature(aws.credentials(node), operation.definition.raw["x-skein-service"])
    seed = request.config.getoption("--seed")

    @hypothesis.seed(1 if seed is None else seed)
    @hypothesis.settings(
        max_examples=EXAMPLES[mode], deadline=None, database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(operation.as_strategy(generation_mode=mode), strategies.booleans())
    def ask(case, about_what_is_there):
        if about_what_is_there:
            for part in (case.path_parameters, case.query, case.headers):
                part.update({name: there[name] for name in part if name in there})
            if isinstance(case.body, dict):
                case.body |= {name: there[name] for name in members(operation) if name in there}
        response = case.call(base_url=node.http_url, auth=auth)
        case.validate_response(response, checks=CHECKS)
        # The key may do everything: nothing but a signature would be refused.
        assert response.status_code != 403, response.text

    ask()
    assert node.alive(), node.tail()
    if name.startswith("Delete"):
        there.update(known(node))
