"""The aws command line, pointed here by the files that `skein dev` writes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from brokers import ACCOUNT, REGION, policy

pytestmark = pytest.mark.skein
AWS = Path(sys.executable).parent / "aws"


@pytest.fixture
def cli(skein):
    def cli(*words, check=True):
        command = [str(AWS), "--endpoint-url", skein.http_url, "--output", "json", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=skein.aws_environment())
        if not check:
            return done
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return json.loads(done.stdout) if done.stdout.strip() else {}

    return cli


def test_control_plane(cli, tmp_path, name):
    assert "dev-thing" in [thing["thingName"] for thing in cli("iot", "list-things")["things"]]
    made = cli("iot", "create-thing", "--thing-name", name, "--attribute-payload", "attributes={colour=red}")
    assert made["thingArn"] == f"arn:aws:iot:{REGION}:{ACCOUNT}:thing/{name}"
    assert cli("iot", "describe-thing", "--thing-name", name)["attributes"] == {"colour": "red"}
    keys = cli("iot", "create-keys-and-certificate", "--set-as-active")
    assert keys["certificatePem"].startswith("-----BEGIN CERTIFICATE-----")
    document = tmp_path / "policy.json"
    document.write_text(policy(("Allow", "iot:*", "*")))
    cli("iot", "create-policy", "--policy-name", name, "--policy-document", f"file://{document}")
    cli("iot", "attach-policy", "--policy-name", name, "--target", keys["certificateArn"])
    cli("iot", "attach-thing-principal", "--thing-name", name, "--principal", keys["certificateArn"])
    listed = cli("iot", "list-thing-principals", "--thing-name", name)
    assert listed["principals"] == [keys["certificateArn"]]
    assert cli("iot", "describe-endpoint", "--endpoint-type", "iot:Data-ATS")["endpointAddress"]


def test_data_plane(cli, connected, tmp_path, name):
    subscriber = connected()
    subscriber.subscribe(name, qos=1)
    cli("iot-data", "publish", "--topic", name, "--qos", "1", "--payload", "hello")
    assert subscriber.receive().payload == b"hello"
    out = tmp_path / "out.json"
    payload = json.dumps({"state": {"desired": {"on": True}}})
    cli("iot-data", "update-thing-shadow", "--thing-name", name, "--payload", payload, str(out))
    assert json.loads(out.read_text())["version"] == 1
    cli("iot-data", "get-thing-shadow", "--thing-name", name, str(out))
    assert json.loads(out.read_text())["state"]["delta"] == {"on": True}


def test_errors_are_named(cli, name):
    done = cli("iot", "describe-thing", "--thing-name", name, check=False)
    assert done.returncode != 0
    assert "(ResourceNotFoundException)" in done.stderr, done.stderr


def test_wrong_key_is_refused(skein, name):
    environment = skein.aws_environment() | {"AWS_ACCESS_KEY_ID": "AKIAUNKNOWN", "AWS_SECRET_ACCESS_KEY": "x"}
    done = subprocess.run(
        [str(AWS), "--endpoint-url", skein.http_url, "iot", "list-things"],
        capture_output=True, text=True, timeout=60, env=environment,
    )
    assert done.returncode != 0
    assert "UnrecognizedClientException" in done.stderr or "InvalidClientTokenId" in done.stderr, done.stderr
