"""Signing, certificates and policies as AWS's own tools do them."""

import datetime
import json

import botocore.auth
import botocore.awsrequest
import botocore.credentials

from brokers import REGION


def credentials(skein):
    """The key that `skein dev` wrote for AWS tools."""
    import configparser

    parser = configparser.ConfigParser()
    parser.read(skein.data / "aws" / "credentials")
    section = parser["default"]
    return botocore.credentials.Credentials(section["aws_access_key_id"], section["aws_secret_access_key"])


def presigned_url(skein, expired=False, expires=300):
    """A WebSocket URL whose query is signed, as the browser SDKs build it."""
    url = f"https://localhost:{skein.port('wss')}/mqtt"
    request = botocore.awsrequest.AWSRequest(method="GET", url=url)
    signer = PastQueryAuth if expired else EmptyBodyQueryAuth
    signer(credentials(skein), "iotdevicegateway", REGION, expires=expires).add_auth(request)
    return request.url.replace("https://", "wss://")


class EmptyBodyQueryAuth(botocore.auth.SigV4QueryAuth):
    """Device SDKs sign the hash of an empty body."""

    def payload(self, request):
        return botocore.auth.EMPTY_SHA256_HASH


class PastQueryAuth(EmptyBodyQueryAuth):
    """Signed long before it is used."""

    def add_auth(self, request):
        original = botocore.auth.get_current_datetime

        def past(*words, **more):
            return original(*words, **more) - datetime.timedelta(hours=1)

        botocore.auth.get_current_datetime = past
        try:
            super().add_auth(request)
        finally:
            botocore.auth.get_current_datetime = original


class Identity:
    """A device made through the control plane: certificate, policy, perhaps a thing."""

    def __init__(self, skein, folder, name, document, thing=None, active=True):
        self.iot, self.name = skein.boto("iot"), name
        made = self.iot.create_keys_and_certificate(setAsActive=active)
        self.arn, self.id = made["certificateArn"], made["certificateId"]
        self.certificate, self.key = folder / f"{name}.pem", folder / f"{name}.key"
        self.certificate.write_text(made["certificatePem"])
        self.key.write_text(made["keyPair"]["PrivateKey"])
        self.files = (str(self.certificate), str(self.key))
        self.iot.create_policy(policyName=name, policyDocument=document)
        self.iot.attach_policy(policyName=name, target=self.arn)
        if thing:
            self.iot.create_thing(thingName=thing)
            self.iot.attach_thing_principal(thingName=thing, principal=self.arn)

    def change_policy(self, document):
        """A new default version."""
        versions = self.iot.list_policy_versions(policyName=self.name)["policyVersions"]
        if len(versions) == 5:
            oldest = min((v for v in versions if not v["isDefaultVersion"]), key=lambda v: int(v["versionId"]))
            self.iot.delete_policy_version(policyName=self.name, policyVersionId=oldest["versionId"])
        self.iot.create_policy_version(policyName=self.name, policyDocument=document, setAsDefault=True)

    def detach(self):
        self.iot.detach_policy(policyName=self.name, target=self.arn)

    def status(self, status):
        self.iot.update_certificate(certificateId=self.id, newStatus=status)


def shadow_state(document):
    return json.loads(document["payload"].read())
