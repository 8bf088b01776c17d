"""Signing, certificates and policies as AWS's own tools do them."""

import datetime
import json

import botocore.auth
import botocore.awsrequest
import botocore.credentials
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

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
        self.certificate, self.key = folder / f"{name}.pem", folder / f"{name}.key"
        made = self.make(active)
        self.arn, self.id = made["certificateArn"], made["certificateId"]
        self.files = (str(self.certificate), str(self.key))
        self.iot.create_policy(policyName=name, policyDocument=document)
        self.iot.attach_policy(policyName=name, target=self.arn)
        if thing:
            self.iot.create_thing(thingName=thing)
            self.iot.attach_thing_principal(thingName=thing, principal=self.arn)

    def make(self, active):
        made = self.iot.create_keys_and_certificate(setAsActive=active)
        self.certificate.write_text(made["certificatePem"])
        self.key.write_text(made["keyPair"]["PrivateKey"])
        return made

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


class Dated(Identity):
    """A device with a certificate of its own, which counts from and until so many seconds from now."""

    def __init__(self, *words, begins, ends, **more):
        self.dates = begins, ends
        super().__init__(*words, **more)

    def make(self, active):
        key = self_signed(self.certificate, *self.dates)
        form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        self.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
        pem = self.certificate.read_text()
        return self.iot.register_certificate_without_ca(certificatePem=pem, status="ACTIVE" if active else "INACTIVE")


def self_signed(file, begins, ends, is_ca=False):
    """Writes a certificate that counts from and until so many seconds from now; gives its key."""
    now, key = datetime.datetime.now(datetime.timezone.utc), ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, file.stem)])
    made = (
        x509.CertificateBuilder(who, who, key.public_key(), x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(seconds=begins))
        .not_valid_after(now + datetime.timedelta(seconds=ends))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return key


def shadow_state(document):
    return json.loads(document["payload"].read())
