"""Runs the IoT tests of moto, a mock of AWS in Python, against Skein: `cargo xtask moto FOLDER`.

A pytest plugin. In place of `moto.mock_aws`, that mocks AWS in the process, it puts an account of its
own: what runs in one has nodes of `skein serve`, one per region that it asks, with empty data folders.
The tests are moto's and are not kept here. `docs/conformance/moto.md` says which of them fail and why;
one that is not in its table, and one that is and passes, fails the run.
"""

import contextlib
import functools
import json
import re
import shutil
import tempfile
from pathlib import Path

import boto3
import moto
import moto.settings
import pytest

import brokers

ACCOUNT = "123456789012"
KEY = dict(aws_access_key_id="AKIATESTTESTTEST", aws_secret_access_key="testtesttesttesttest")
# They test moto's own server, and CloudFormation.
LEFT_OUT = ("test_server.py", "test_iot_cloudformation.py")
REASONS = brokers.REPO / "docs/conformance/moto.md"
CONFIG = """
data = "{data}"
cores = 1
shards = 1
account = { id = "%(account)s", region = "%(region)s" }
listeners.http.address = "127.0.0.1:%(http)d"
listeners.admin.address = "127.0.0.1:%(admin)d"
tls.issuer_certificate = "%(pki)s/ca.pem"
tls.issuer_private_key = "%(pki)s/ca.key"
[[access_keys]]
id = "%(aws_access_key_id)s"
secret = "%(aws_secret_access_key)s"
"""


class Account(contextlib.ContextDecorator):
    """An account that lasts as long as the outermost of the contexts around what runs."""

    folder = Path(tempfile.mkdtemp(prefix="skein-moto-"))
    depth = 0
    # Region -> its node.
    nodes = {}

    def __enter__(self):
        Account.depth += 1

    def __exit__(self, *_):
        Account.depth -= 1
        if Account.depth == 0:
            for node in Account.nodes.values():
                node.kill()
                shutil.rmtree(node.folder)
            Account.nodes.clear()

    @classmethod
    def node(cls, region):
        assert cls.depth, "a client outside of mock_aws would ask AWS"
        if region not in cls.nodes:
            node = brokers.serving(cls.folder / region, "")
            words = KEY | dict(
                account=ACCOUNT, region=region, pki=cls.folder / "pki", http=node.port("http"), admin=node.port("admin"),
            )
            text = (CONFIG % words).replace("{data}", str(node.data))
            (node.folder / "skein.toml").write_text(text)
            cls.nodes[region] = node.start()
        return cls.nodes[region]


def mock_aws(function=None, config=None):
    return Account() if function is None else Account()(function)


@functools.wraps(boto3.client)
def client(service, region_name="us-east-1", *, original=boto3.client):
    if service not in ("iot", "iot-data"):
        pytest.fail(f"asks the service {service}")
    made = original(service, region_name, endpoint_url=Account.node(region_name).http_url, **KEY)
    made.meta.events.register("provide-client-params.iot.*", write_document)
    made.meta.events.register("after-call.iot.*", read_document)
    return made


def write_document(params, **_):
    """Tests of policies have words in place of documents, which AWS refuses as Skein does."""
    words = params.get("policyDocument")
    if words is None or "Statement" in words and "iot: *" not in words:
        return None
    statement = {"Sid": words.encode().hex(), "Effect": "Allow", "Action": "iot:*", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    return params | {"policyDocument": document}


def read_document(parsed, **_):
    if found := re.search(r'"Sid": "([0-9a-f]+)"', parsed.get("policyDocument", "")):
        parsed["policyDocument"] = bytes.fromhex(found[1]).decode()


moto.mock_aws = mock_aws
boto3.client = client
# Tests leave out then what looks into the mock.
moto.settings.TEST_SERVER_MODE = True


def reasons():
    """Test, or file -> why it fails."""
    rows = re.findall(r"(?m)^\| `(test_[^`]+)` \| (.+) \|$", REASONS.read_text())
    return dict(rows)


def pytest_configure(config):
    config.addinivalue_line("markers", "aws_verified: what moto has tried with AWS itself")
    brokers.make_pki(Account.folder / "pki")


def pytest_unconfigure():
    shutil.rmtree(Account.folder)


def pytest_ignore_collect(collection_path):
    return True if collection_path.name in LEFT_OUT else None


def pytest_collection_modifyitems(items):
    known = reasons()
    for item in items:
        test = f"{item.path.name}::{item.nodeid.partition('::')[2]}"
        of_all_values = test.partition("[")[0]
        for name in (test, of_all_values, item.path.name):
            if name in known:
                item.add_marker(pytest.mark.xfail(reason=known[name], strict=True))
                break
