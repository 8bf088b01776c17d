"""The key of the CA that signs device certificates is in a token: SoftHSM speaks PKCS #11."""

import os
import subprocess

import boto3
import pytest
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives.asymmetric import ec

from brokers import serving, skein_binary, wait_until
from test_bulk import ROLE, csr, line, template

pytestmark = pytest.mark.skein

MODULE = "/usr/lib/softhsm/libsofthsm2.so"
# No time of a log line spells it.
PIN = "no-digits"
KEYS = {
    "P-256": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "P-384": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"],
    "RSA": ["-newkey", "rsa:2048"],
}


def call(*words, **more):
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True, **more)


class Token:
    """A token with a key, and the CA that it is of."""

    label, key = "skein", "issuer"

    def __init__(self, folder, kind="P-256"):
        self.folder, self.tokens = folder, folder / "tokens"
        self.tokens.mkdir(parents=True)
        configuration = folder / "softhsm2.conf"
        configuration.write_text(f"directories.tokendir = {self.tokens}\nlog.level = ERROR\n")
        self.environment = {"SOFTHSM2_CONF": str(configuration)}
        self.ca, self.pin_file = folder / "ca.pem", folder / "pin"
        self.pin_file.write_text(f"{PIN}\n")
        self.pin_file.chmod(0o600)
        self.make_ca(kind)
        self.util("--init-token", "--free", "--label", self.label, "--pin", PIN, "--so-pin", 5678)
        self.put("ca.key", self.key, "01")

    def make_ca(self, kind):
        call("openssl", "req", "-x509", *KEYS[kind], "-nodes", "-subj", "/CN=in a token", "-days", 30,
             "-addext", "keyUsage=critical,keyCertSign,cRLSign",
             "-keyout", self.folder / "ca.key", "-out", self.ca)

    def util(self, *words):
        call("softhsm2-util", *words, env=os.environ | self.environment)

    def put(self, file, label, number):
        self.util("--import", self.folder / file, "--token", self.label, "--label", label, "--id", number,
                  "--pin", PIN)

    def lose_key(self):
        """Ends the sessions that have it, too."""
        self.util("--delete-token", "--token", self.label)
        self.util("--init-token", "--free", "--label", self.label, "--pin", PIN, "--so-pin", 5678)

    def node(self, more="", **other):
        said = {"module": MODULE, "token": self.label, "key": self.key, "pin_file": self.pin_file} | other
        hsm = "\n".join(f"{key} = '{value}'" for key, value in said.items())
        node = serving(self.folder / "node", "")
        (node.folder / "skein.toml").write_text(f"""
data = '{node.data}'
[listeners.admin]
address = '127.0.0.1:{node.port("admin")}'
[listeners.http]
address = '127.0.0.1:{node.port("http")}'
[tls]
issuer_certificate = '{self.ca}'
[tls.issuer_hsm]
{hsm}
[[access_keys]]
id = 'AKIAEXAMPLE'
secret = 'example secret of a test'
{more}
""")
        node.environment = lambda: self.environment
        return node

    def check(self, **other):
        """What `skein config check` says."""
        path = self.node(**other).folder / "skein.toml"
        words = [str(skein_binary()), "config", "check", str(path)]
        return subprocess.run(words, capture_output=True, text=True, env=os.environ | self.environment)


def iot(node):
    return boto3.client(
        "iot", endpoint_url=node.http_url, region_name="us-east-1", aws_access_key_id="AKIAEXAMPLE",
        aws_secret_access_key="example secret of a test",
    )


@pytest.fixture(scope="module")
def token(tmp_path_factory):
    return Token(tmp_path_factory.mktemp("token"))


@pytest.mark.parametrize("kind", KEYS)
def test_certificates_are_signed_in_a_token(tmp_path, kind):
    token = Token(tmp_path, kind)
    (tmp_path / "ca.key").unlink()
    node = token.node().start()
    try:
        client = iot(node)
        request = tmp_path / "device.csr"
        call("openssl", "req", *KEYS["P-256"], "-nodes", "-subj", "/CN=device", "-keyout", tmp_path / "device.key",
             "-out", request)
        for answer in (
            client.create_keys_and_certificate(setAsActive=True),
            client.create_certificate_from_csr(certificateSigningRequest=request.read_text()),
        ):
            certificate = tmp_path / "device.pem"
            certificate.write_text(answer["certificatePem"])
            call("openssl", "verify", "-x509_strict", "-CAfile", token.ca, certificate)
        assert node.metrics()['issuer_hsm_signatures_total{result="ok"}'] >= 2
    finally:
        node.stop()


def test_a_token_that_is_lost_fails_requests_and_is_found_again(tmp_path):
    token = Token(tmp_path)
    node = token.node().start()
    try:
        client = iot(node)
        client.meta.events.register("needs-retry.*", lambda **_: None)
        client.create_keys_and_certificate()
        [place] = token.tokens.iterdir()
        aside = place.rename(tmp_path / "aside")
        with pytest.raises(ClientError) as refused:
            client.create_keys_and_certificate()
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
        assert "tls.issuer_hsm can be reached" in node.tail() and PIN not in node.tail()
        assert not client.list_certificates()["certificates"][1:], "nothing half made is left"
        aside.rename(place)
        wait_until("it signs again", lambda: try_create(client), 10)
    finally:
        node.stop()


def test_a_token_with_another_key_is_not_the_fault_of_clients(tmp_path):
    token, other = Token(tmp_path / "own"), Token(tmp_path / "other")
    node = token.node().start()
    try:
        client = iot(node)
        client.meta.events.register("needs-retry.*", lambda **_: None)
        request = csr(ec.generate_private_key(ec.SECP256R1()))
        [own], [theirs] = token.tokens.iterdir(), other.tokens.iterdir()
        own.rename(tmp_path / "aside")
        assert try_create(client) is None
        theirs.rename(token.tokens / theirs.name)
        with pytest.raises(ClientError) as refused:
            client.create_certificate_from_csr(certificateSigningRequest=request)
        answer = refused.value.response
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 500 and "key" not in answer["Error"]["Message"], answer
        assert "the key in the token is not that of tls.issuer_certificate" in node.tail()
        assert node.metrics()['issuer_hsm_signatures_total{result="wrong_key"}'] >= 1
    finally:
        node.stop()


def test_a_node_starts_while_its_token_is_away(tmp_path):
    token = Token(tmp_path)
    [place] = token.tokens.iterdir()
    aside = place.rename(tmp_path / "aside")
    done = token.check()
    assert done.returncode == 0 and "warning: tls.issuer_hsm: there is no token" in done.stderr, done.stderr
    node = token.node().start()
    try:
        client = iot(node)
        client.meta.events.register("needs-retry.*", lambda **_: None)
        with pytest.raises(ClientError) as refused:
            client.create_keys_and_certificate()
        answer = refused.value.response
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 500 and "token" not in answer["Error"]["Message"], answer
        aside.rename(place)
        wait_until("it signs", lambda: try_create(client), 10)
    finally:
        node.stop()


def test_a_registration_in_bulk_waits_for_a_token_and_can_be_stopped_meanwhile(tmp_path):
    token = Token(tmp_path)
    [place] = token.tokens.iterdir()
    aside = place.rename(tmp_path / "aside")
    bucket, reports = tmp_path / "bucket", tmp_path / "reports"
    bucket.mkdir()
    reports.mkdir()
    node = token.node(f"""
[registration]
reports = '{reports}'
[registration.buckets]
bucket = '{bucket}'
""").start()
    try:
        client = iot(node)
        client.meta.events.register("needs-retry.*", lambda **_: None)
        request = csr(ec.generate_private_key(ec.SECP256R1()))
        (bucket / "lines").write_text("".join(f"{line(number, request)}\n" for number in range(20)))

        def start():
            return client.start_thing_registration_task(
                templateBody=template("hsm"), inputFileBucket="bucket", inputFileKey="lines", roleArn=ROLE,
            )["taskId"]

        def is_now(task, status):
            found = client.describe_thing_registration_task(taskId=task)
            return found if found["status"] == status else None

        task = start()
        wait_until("it has tried", lambda: node.metrics().get('issuer_hsm_signatures_total{result="failed"}'), 10)
        client.stop_thing_registration_task(taskId=task)
        done = wait_until("it is stopped", lambda: is_now(task, "Cancelled"), 10)
        assert (done["successCount"], done["failureCount"]) == (0, 0)
        failed = node.metrics()['issuer_hsm_signatures_total{result="failed"}']
        task = start()
        more = lambda: node.metrics()['issuer_hsm_signatures_total{result="failed"}'] > failed
        wait_until("it has tried", more, 10)
        assert is_now(task, "InProgress")["failureCount"] == 0
        aside.rename(place)
        done = wait_until("it is done", lambda: is_now(task, "Completed"), 30)
        assert (done["successCount"], done["failureCount"]) == (20, 0)
        # What lasts fails the task, not each line.
        token.lose_key()
        task = start()
        done = wait_until("it has failed", lambda: is_now(task, "Failed"), 30)
        assert 'no private key with the label "issuer"' in done["message"] and done["failureCount"] <= 4, done
    finally:
        node.stop()


def try_create(client):
    try:
        return client.create_keys_and_certificate()
    except ClientError:
        return None


def test_a_good_configuration_is_explained(token):
    done = token.check()
    assert done.returncode == 0, done.stderr
    assert "key issuer of token skein" in done.stdout


@pytest.mark.parametrize(
    "other, said",
    [
        ({"module": "/usr/lib/none.so"}, "/usr/lib/none.so is no PKCS #11 library"),
        ({"module": "/etc/passwd"}, "/etc/passwd is no PKCS #11 library"),
        ({"module": ""}, "tls.issuer_hsm.module is missing"),
        ({"key": "other"}, 'token "skein" has no private key with the label "other"'),
        ({"pin_file": "/none"}, "cannot read /none"),
    ],
)
def test_what_is_wrong_is_said_before_the_start(token, other, said):
    done = token.check(**other)
    assert done.returncode != 0 and "tls.issuer_hsm" in done.stderr and said in done.stderr, done.stderr


def test_a_wrong_pin_and_a_key_of_another_ca_are_said(tmp_path):
    token = Token(tmp_path)
    wrong = tmp_path / "wrong"
    wrong.write_text("9999")
    wrong.chmod(0o600)
    done = token.check(pin_file=wrong)
    assert done.returncode != 0 and f"does not take the PIN in {wrong}" in done.stderr, done.stderr
    assert "9999" not in done.stderr
    token.make_ca("P-256")
    done = token.check()
    assert done.returncode != 0 and "does not belong to the certificate" in done.stderr, done.stderr
    token.put("ca.key", token.key, "02")
    done = token.check()
    assert done.returncode != 0 and "has 2 private keys with the label" in done.stderr, done.stderr
