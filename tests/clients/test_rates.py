"""How often callers may ask the REST APIs, where a rate is set."""

import boto3
import botocore.config
import botocore.exceptions
import pytest
import requests

import brokers

pytestmark = pytest.mark.skein
SECRET = "the secret of a test key"


@pytest.fixture(scope="module")
def served(tmp_path_factory, shared_broker):
    """Five requests a second of each caller of a plane; a device that may do everything."""
    served = brokers.Serving(tmp_path_factory.mktemp("rates") / "served")
    pki = shared_broker.pki
    text = f"""
        data = '{served.data}'
        [limits]
        control_plane_rate = 5
        data_plane_rate = 5
        [listeners.admin]
        address = '127.0.0.1:{served.port("admin")}'
        [listeners.http]
        address = '127.0.0.1:{served.port("http")}'
        [listeners.https]
        address = '127.0.0.1:{served.port("wss")}'
        [tls]
        certificate = '{pki}/server.pem'
        private_key = '{pki}/server.key'
        issuer_certificate = '{pki}/ca.pem'
        issuer_private_key = '{pki}/ca.key'
    """
    for id in ("SETUP", "MODES", "FLOOD", "OTHER", "CALLER"):
        text += f"\n[[access_keys]]\nid = '{id}'\nsecret = '{SECRET}'\n"
    (served.folder / "skein.toml").write_text(text)
    served.start()
    yield served
    served.stop()


@pytest.fixture
def client(served):
    def client(key, service="iot", attempts=1, mode="legacy"):
        retries = {"total_max_attempts": attempts, "mode": mode}
        return boto3.client(
            service, endpoint_url=served.http_url, region_name="us-east-1",
            aws_access_key_id=key, aws_secret_access_key=SECRET, config=botocore.config.Config(retries=retries),
        )

    return client


def throttled(call, count, status):
    """How many of so many requests, as fast as they go, are refused, and all of them for being too many."""
    refused = 0
    for _ in range(count):
        try:
            call()
        except botocore.exceptions.ClientError as error:
            answer = error.response
            assert answer["Error"] == {"Code": "ThrottlingException", "Message": "Rate exceeded"}, answer
            assert answer["ResponseMetadata"]["HTTPStatusCode"] == status, answer
            refused += 1
    return refused


@pytest.mark.parametrize("service,plane,status", [("iot", "control", 400), ("iot-data", "data", 429)])
def test_who_asks_too_often_is_throttled(served, client, service, plane, status):
    flood = client("FLOOD", service)
    other = client("OTHER", service)
    ask = {"iot": lambda it: it.list_things, "iot-data": lambda it: it.list_retained_messages}[service]
    metric = f'api_throttled_total{{plane="{plane}"}}'
    before = served.metrics()[metric]
    refused = throttled(ask(flood), 40, status)
    assert refused >= 10
    assert served.metrics()[metric] == before + refused
    # Nobody else is.
    assert throttled(ask(other), 4, status) == 0


def test_who_asks_sts_too_often_is_throttled(client):
    """As a request of the control plane, in the words of STS."""
    sts = client("CALLER", "sts")
    codes = set()
    for _ in range(40):
        try:
            assert sts.get_caller_identity()["Account"]
        except botocore.exceptions.ClientError as error:
            codes.add((error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]))
    assert codes == {("Throttling", 400)}
    # The same caller has one rate for both.
    assert throttled(client("CALLER").list_things, 10, 400) >= 5


@pytest.mark.parametrize("mode", ["legacy", "standard", "adaptive"])
@pytest.mark.parametrize("service", ["iot", "iot-data"])
def test_retries_of_boto3_get_through(client, name, mode, service):
    """Twelve requests at five a second: whoever waits and repeats gets all of them done."""
    patient = client("MODES", service, attempts=10, mode=mode)
    attempts = 0
    for number in range(12):
        if service == "iot":
            answer = patient.create_thing(thingName=f"{name}-{number}".replace("[", "-").replace("]", ""))
        else:
            answer = patient.publish(topic="t", qos=1, payload=b"x")
        attempts += 1 + answer["ResponseMetadata"]["RetryAttempts"]
    assert attempts > 12


def test_a_device_has_a_rate_of_its_own(served, client, shared_broker, tmp_path):
    setup = client("SETUP", attempts=10, mode="standard")
    devices = []
    document = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}'
    setup.create_policy(policyName="all", policyDocument=document)
    for number in range(2):
        made = setup.create_keys_and_certificate(setAsActive=True)
        setup.attach_policy(policyName="all", target=made["certificateArn"])
        files = tmp_path / f"{number}.pem", tmp_path / f"{number}.key"
        files[0].write_text(made["certificatePem"])
        files[1].write_text(made["keyPair"]["PrivateKey"])
        devices.append(files)
    base = f"https://localhost:{served.port('wss')}"

    def answers(files, count):
        with requests.Session() as session:
            session.trust_env = False
            session.verify, session.cert = shared_broker.ca, tuple(map(str, files))
            return [session.post(f"{base}/topics/t", data="x") for _ in range(count)]

    flood = answers(devices[0], 40)
    assert {answer.status_code for answer in flood} == {200, 429}
    refused = next(answer for answer in flood if answer.status_code == 429)
    assert refused.headers["x-amzn-errortype"] == "ThrottlingException"
    assert refused.json()["message"] == "Rate exceeded" and refused.json()["traceId"]
    assert [answer.status_code for answer in answers(devices[1], 4)] == [200] * 4


def test_there_is_no_rate_without_a_number(skein):
    for ask, status in ((skein.boto("iot").list_things, 400), (skein.boto("iot-data").list_retained_messages, 429)):
        assert throttled(ask, 300, status) == 0
