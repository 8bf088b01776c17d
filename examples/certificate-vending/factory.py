"""The factory: makes devices, and has them all registered before the first one is switched on.

Each device makes its own key and gives away only a signing request. What is registered is a file of
such requests, one line for each device, carried out with one template.
"""

import json
import time
import urllib.request

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

# The bucket of `skein dev`: a folder of this name below `registration` in its data folder.
BUCKET = "dev-bucket"
# Nothing is taken from it; the operation wants one.
ROLE = "arn:aws:iam::000000000000:role/registration"
ME = "${iot:Connection.Thing.ThingName}"


def make_key():
    return ec.generate_private_key(ec.SECP256R1())


def signing_request(serial, key):
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, serial)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def policy(prefix):
    """One policy for all: each device speaks as itself and about itself."""
    def allow(action, *places):
        return {"Effect": "Allow", "Action": action, "Resource": [f"{prefix}:{place}" for place in places]}

    return {
        "Version": "2012-10-17",
        "Statement": [
            allow("iot:Connect", f"client/{ME}"),
            allow(["iot:Publish", "iot:Receive"], f"topic/meters/{ME}/*"),
            allow("iot:Subscribe", f"topicfilter/meters/{ME}/*"),
        ],
    }


def template(policy_name):
    """What each line makes: a thing, an active certificate for its key, and the policy."""
    text = {"Type": "String"}
    return {
        "Parameters": {"Serial": text, "Model": {"Type": "String", "Default": "M1"}, "CSR": text},
        "Resources": {
            "thing": {
                "Type": "AWS::IoT::Thing",
                "Properties": {"ThingName": {"Ref": "Serial"}, "AttributePayload": {"model": {"Ref": "Model"}}},
            },
            "certificate": {
                "Type": "AWS::IoT::Certificate",
                "Properties": {"CertificateSigningRequest": {"Ref": "CSR"}, "Status": "ACTIVE"},
            },
            "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": policy_name}},
        },
    }


def register(iot, bucket, lines, say):
    """Has lines registered in bulk; gives what came of each: the results, the errors."""
    thing_type = iot.create_thing_type(thingTypeName="meter")["thingTypeArn"]
    prefix = thing_type.partition(":thingtype/")[0]
    iot.create_policy(policyName="meters", policyDocument=json.dumps(policy(prefix)))
    (bucket / "meters.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    task = iot.start_thing_registration_task(
        templateBody=json.dumps(template("meters")), inputFileBucket=BUCKET, inputFileKey="meters.json", roleArn=ROLE
    )["taskId"]
    while True:
        now = iot.describe_thing_registration_task(taskId=task)
        if now["status"] not in ("InProgress", "Cancelling"):
            break
        time.sleep(0.2)
    say(f"{now['status']}: {now['successCount']} registered, {now['failureCount']} refused")
    if now["status"] != "Completed":
        raise SystemExit(f"nothing more is registered: {now.get('message')}")
    return report(iot, task, "RESULTS"), report(iot, task, "ERRORS")


def report(iot, task, kind):
    """All lines of a report: its parts are followed page by page."""
    lines = []
    pages = iot.get_paginator("list_thing_registration_task_reports").paginate(taskId=task, reportType=kind)
    for link in (link for page in pages for link in page["resourceLinks"]):
        with urllib.request.urlopen(link, timeout=20) as part:
            lines += [json.loads(line) for line in part]
    return lines
