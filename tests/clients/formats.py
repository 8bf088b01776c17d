"""Data folders as released formats wrote them, kept as text: `formats/N.txt`.

`python formats.py write N` has the binary in SKEIN_BIN write one, which is done once, with the last
binary that writes format N and before the next format is begun; `test_formats.py` reads all of them.
What is in a folder is said by `furnish`, in three parts: what a checkpoint holds, what only the log
holds, and what was under way when the process was killed. A backup lies beside it.
"""

import base64
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import textwrap
from pathlib import Path

import rawmqtt as m
from brokers import REGION, serving, skein_binary, wait_until

KEPT = Path(__file__).parent / "formats"
FOREVER = {"session_expiry_interval": 0xFFFFFFFF}
POLICY = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}'
CONFIG = f"""
data = "{{folder}}/data"
shards = 2
cores = 1
[listeners.mqtt]
address = "127.0.0.1:%(plain)d"
anonymous_policy = '{POLICY}'
[listeners.http]
address = "127.0.0.1:%(http)d"
[listeners.admin]
address = "127.0.0.1:%(admin)d"
[[access_keys]]
id = "AKIATESTTESTTEST"
secret = "testtesttesttesttest"
[backup]
folder = "{{folder}}/backups"
[tls]
issuer_certificate = "{{folder}}/keys/ca.pem"
issuer_private_key = "{{folder}}/keys/ca.key"
"""


def broker(folder):
    """A node on the folder `data` in a folder, not started."""
    node = serving(folder, "")
    words = [str(skein_binary()), "cluster", "keys", "--out", str(node.folder / "keys"), "1"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    ports = {listener: node.port(listener) for listener in ("plain", "http", "admin")}
    (node.folder / "skein.toml").write_text((CONFIG % ports).replace("{folder}", str(node.folder)))
    return node


def aws(node, service):
    import boto3

    keys = dict(aws_access_key_id="AKIATESTTESTTEST", aws_secret_access_key="testtesttesttesttest")
    return boto3.client(service, endpoint_url=node.http_url, region_name=REGION, **keys)


def connect(node, client_id, clean=False, props=FOREVER, **more):
    client = m.Client(node.plain, 5, timeout=20)
    client.connack = client.connect(client_id, clean=clean, props=props, **more)
    return client


def certificate():
    """Of a device; its key is not kept."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        words += ["-subj", "/CN=kept", "-days", "9000", "-keyout", f"{folder}/key"]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def furnish_checkpoint(node):
    iot, data = aws(node, "iot"), aws(node, "iot-data")
    iot.create_thing_type(thingTypeName="lamps", thingTypeProperties={"searchableAttributes": ["room"]})
    iot.create_thing(thingName="lamp", thingTypeName="lamps", attributePayload={"attributes": {"room": "hall"}})
    iot.create_thing_group(thingGroupName="house", tags=[{"Key": "k", "Value": "v"}])
    iot.create_thing_group(thingGroupName="hall", parentGroupName="house")
    iot.add_thing_to_thing_group(thingGroupName="hall", thingName="lamp")
    iot.create_billing_group(billingGroupName="lights")
    iot.add_thing_to_billing_group(billingGroupName="lights", thingName="lamp")
    iot.create_policy(policyName="kept", policyDocument=POLICY)
    made = iot.register_certificate_without_ca(certificatePem=certificate(), status="ACTIVE")
    iot.attach_policy(policyName="kept", target=made["certificateArn"])
    iot.attach_thing_principal(thingName="lamp", principal=made["certificateArn"])
    data.update_thing_shadow(thingName="lamp", payload=json.dumps({"state": {"desired": {"on": True}}}))
    data.update_thing_shadow(thingName="lamp", shadowName="blue", payload=json.dumps({"state": {"reported": {"n": 1}}}))
    data.update_thing_shadow(thingName="gone", payload=json.dumps({"state": {"desired": {"on": True}}}))
    data.delete_thing_shadow(thingName="gone")

    away = connect(node, "away")
    away.subscribe("queue/#", qos=2, props={"subscription_identifier": 7})
    away.subscribe("shadows/#", qos=1)
    away.disconnect()
    member = connect(node, "member")
    member.subscribe("$share/group/shared/#", qos=2)
    member.disconnect()
    will = m.Will("queue/will", b"last words", 1)
    connect(node, "willing", will=will).ping()
    publisher = connect(node, "publisher", clean=True, props=None)
    for number in range(6):
        props = {"content_type": "text/plain", "user_property": ("part", "checkpoint")}
        publisher.publish("queue/a", b"%d" % number, qos=1 + number % 2, props=props)
        publisher.publish("shared/a", b"%d" % number, qos=1 + number % 2)
    publisher.publish("kept/one", b"one", qos=1, retain=True)
    publisher.publish("kept/two", b"two", qos=0, retain=True)
    publisher.disconnect()
    half = connect(node, "half")
    half.subscribe("half/#", qos=2)
    half.publish("half/a", b"begun", qos=2)
    got = half.expect(m.PUBLISH)
    # Its PUBREL is owed, and so is the client's for the other one.
    half.send(m.ack(m.PUBREC, got.id))
    half.expect(m.PUBREL)
    half.send(m.publish("queue/half", b"unfinished", 2, id=77))
    half.expect(m.PUBREC)
    half.cut()


def furnish_log(node):
    publisher = connect(node, "publisher", clean=True, props=None)
    publisher.publish("kept/two", b"", qos=1, retain=True)
    for number in range(6, 10):
        publisher.publish("queue/a", b"%d" % number, qos=1 + number % 2)
        publisher.publish("shared/a", b"%d" % number, qos=1 + number % 2)
    aws(node, "iot").create_thing(thingName="lantern")
    lasting = connect(node, "lasting")
    for number in range(10, 30):
        lasting.send(m.publish("queue/a", b"%d" % number, 2, id=number))
    for _ in range(20):
        lasting.expect(m.PUBREC)
    # It is killed now: what its outbox had is with its takers, or is not.


def write(version):
    with tempfile.TemporaryDirectory() as folder:
        node = broker(folder).start()
        furnish_checkpoint(node)
        words = [skein_binary(), "cluster", "backup", "--admin", "127.0.0.1:%d" % node.port("admin")]
        wait_until("the backup is taken", lambda: subprocess.run(words, stdout=subprocess.DEVNULL).returncode == 0)
        node.stop()
        node.start()
        furnish_log(node)
        node.kill()
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:xz", format=tarfile.PAX_FORMAT) as tar:
            for name in ("data", "backups"):
                tar.add(node.folder / name, arcname=name)
    text = "\n".join(textwrap.wrap(base64.b64encode(packed.getvalue()).decode(), 120))
    head = f"A data folder and a backup of format {version}: base64 of a .tar.xz, written by formats.py.\n\n"
    KEPT.mkdir(exist_ok=True)
    (KEPT / f"{version}.txt").write_text(head + text + "\n")


def unpack(version, folder):
    """The folder as it was when its node was killed."""
    _, _, text = (KEPT / f"{version}.txt").read_text().partition("\n\n")
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(text)), mode="r:xz") as tar:
        tar.extractall(folder, filter="data")
    return broker(folder)


def versions():
    return sorted(int(path.stem) for path in KEPT.glob("*.txt"))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["write", version]:
            write(int(version))
        case _:
            sys.exit(__doc__)
