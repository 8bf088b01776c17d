"""Certificate authorities through boto3: proof of possession, and what is registered under them."""

import hashlib
import json
import ssl
import subprocess
from types import SimpleNamespace

import botocore.exceptions
import pytest
from cryptography.hazmat.primitives import serialization

import aws
import rawmqtt as m

pytestmark = pytest.mark.skein
NOT_AUTHORIZED = 0x87


@pytest.fixture(scope="module")
def iot(shared_broker):
    return shared_broker.boto("iot")


def openssl(*words):
    done = subprocess.run(["openssl", *map(str, words)], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


class Authority:
    """A CA of somebody's own, and what it signs."""

    def __init__(self, folder, name, like=None, curve="prime256v1", digest="sha256"):
        self.folder, self.name, self.digest = folder, name, f"-{digest}"
        self.key = like.key if like else folder / f"{name}.key"
        if not like:
            openssl("ecparam", "-name", curve, "-genkey", "-noout", "-out", self.key)
        subject = like.subject if like else f"/O=Test/CN={name}"
        self.subject, self.file = subject, folder / f"{name}.pem"
        openssl("req", "-x509", "-new", "-key", self.key, "-subj", subject, "-days", "30", "-out", self.file,
                self.digest, "-addext", "keyUsage=critical,keyCertSign")
        self.pem = self.file.read_text()

    def sign(self, subject, name="signed", key="ec:prime256v1"):
        file = self.folder / f"{self.name}-{name}"
        kind, size = key.split(":")
        kind = ["ec", "-pkeyopt", f"ec_paramgen_curve:{size}"] if kind == "ec" else [key]
        openssl("req", "-new", "-newkey", *kind, "-nodes", "-subj", subject, self.digest,
                "-keyout", f"{file}.key", "-out", f"{file}.csr")
        openssl("x509", "-req", "-in", f"{file}.csr", "-CA", self.file, "-CAkey", self.key, "-CAcreateserial",
                "-days", "20", self.digest, "-out", f"{file}.pem")
        return file.with_name(f"{file.name}.pem").read_text()

    def register(self, iot, **more):
        if more.get("certificateMode") != "SNI_ONLY" and "verificationCertificate" not in more:
            code = iot.get_registration_code()["registrationCode"]
            more["verificationCertificate"] = self.sign(f"/CN={code}", "proof")
        return iot.register_ca_certificate(caCertificate=self.pem, **more)


def refused(call, code, status, **parameters):
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(**parameters)
    answer = error.value.response
    assert (answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]) == (code, status), answer
    return answer


@pytest.fixture
def authority(tmp_path, name):
    return Authority(tmp_path, name)


def test_a_registration_code_stays(iot):
    code = iot.get_registration_code()["registrationCode"]
    assert len(code) == 64 and iot.get_registration_code()["registrationCode"] == code
    iot.delete_registration_code()
    assert iot.get_registration_code()["registrationCode"] != code
    iot.delete_registration_code()
    refused(iot.delete_registration_code, "ResourceNotFoundException", 404)


def test_an_authority_is_described_as_it_was_registered(iot, authority):
    certificate = {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}}}
    body = json.dumps({"Resources": {"certificate": certificate}})
    config = {"templateBody": body, "roleArn": "arn:aws:iam::000000000000:role/r"}
    made = authority.register(
        iot, setAsActive=True, allowAutoRegistration=True, registrationConfig=config, tags=[{"Key": "k", "Value": "v"}],
    )
    id = made["certificateId"]
    found = iot.describe_ca_certificate(certificateId=id)
    description = found["certificateDescription"]
    assert found["registrationConfig"] == config
    assert (description["status"], description["autoRegistrationStatus"]) == ("ACTIVE", "ENABLE")
    assert (description["certificateMode"], description["customerVersion"]) == ("DEFAULT", 1)
    assert description["certificatePem"] == authority.pem
    assert iot.list_tags_for_resource(resourceArn=made["certificateArn"])["tags"] == [{"Key": "k", "Value": "v"}]
    answer = refused(authority.register, "ResourceAlreadyExistsException", 409, iot=iot)
    assert (answer["resourceId"], answer["resourceArn"]) == (id, made["certificateArn"])
    listed = iot.list_ca_certificates(ascendingOrder=False, pageSize=1)["certificates"]
    assert [it["certificateId"] for it in listed] == [id]

    update = lambda **more: iot.update_ca_certificate(certificateId=id, **more)
    update(newAutoRegistrationStatus="DISABLE", removeAutoRegistration=True)
    assert "registrationConfig" not in iot.describe_ca_certificate(certificateId=id)
    refused(update, "InvalidRequestException", 400, registrationConfig=config, removeAutoRegistration=True)
    both = {"templateBody": body, "templateName": "t"}
    refused(update, "InvalidRequestException", 400, registrationConfig=both)
    refused(update, "InvalidRequestException", 400, registrationConfig={"templateBody": "x" * 10_241})
    refused(iot.delete_ca_certificate, "CertificateStateException", 406, certificateId=id)
    update(newStatus="INACTIVE")
    iot.delete_ca_certificate(certificateId=id)
    refused(iot.describe_ca_certificate, "ResourceNotFoundException", 404, certificateId=id)


def test_an_authority_needs_its_proof(iot, authority, tmp_path, name):
    other = Authority(tmp_path, f"{name}-other")
    code = iot.get_registration_code()["registrationCode"]
    register = lambda **more: authority.register(iot, **more)
    wrong = authority.sign(f"/CN={'0' * 64}", "wrong")
    refused(register, "RegistrationCodeValidationException", 400, verificationCertificate=wrong)
    nameless = authority.sign("/O=nobody", "nameless")
    refused(register, "RegistrationCodeValidationException", 400, verificationCertificate=nameless)
    foreign = other.sign(f"/CN={code}", "foreign")
    refused(register, "CertificateValidationException", 400, verificationCertificate=foreign)
    refused(register, "CertificateValidationException", 400, verificationCertificate="no certificate")
    refused(iot.register_ca_certificate, "InvalidRequestException", 400, caCertificate=authority.pem)
    refused(register, "InvalidRequestException", 400, certificateMode="SNI_ONLY", verificationCertificate=wrong)
    device = authority.sign("/CN=device")
    refused(iot.register_ca_certificate, "CertificateValidationException", 400, caCertificate=device)
    register(certificateMode="SNI_ONLY")


@pytest.mark.parametrize("mode", ["DEFAULT", "SNI_ONLY"])
@pytest.mark.parametrize("dates", [(-7200, -3600), (3600, 7200)], ids=["expired", "not yet valid"])
def test_an_authority_out_of_its_dates_is_refused(iot, authority, dates, mode):
    code = iot.get_registration_code()["registrationCode"]
    key = aws.self_signed(authority.file, *dates, is_ca=True)
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    authority.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
    proof = {"verificationCertificate": authority.sign(f"/CN={code}", "proof")} if mode == "DEFAULT" else {}
    pem = authority.file.read_text()
    answer = refused(
        iot.register_ca_certificate, "CertificateValidationException", 400, caCertificate=pem, certificateMode=mode, **proof
    )
    assert "caCertificate: it is not valid now" in answer["Error"]["Message"]
    id = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    refused(iot.describe_ca_certificate, "ResourceNotFoundException", 404, certificateId=id)


def test_certificates_are_registered_under_their_authority(iot, authority, tmp_path, name):
    pem = authority.sign("/CN=device", "device")
    refused(iot.register_certificate, "CertificateValidationException", 400, certificatePem=pem)
    ca = authority.register(iot)["certificateId"]
    refused(iot.register_certificate, "CertificateStateException", 406, certificatePem=pem)
    iot.update_ca_certificate(certificateId=ca, newStatus="ACTIVE")
    made = iot.register_certificate(certificatePem=pem, setAsActive=True)
    found = iot.describe_certificate(certificateId=made["certificateId"])["certificateDescription"]
    assert (found["caCertificateId"], found["status"], found["certificateMode"]) == (ca, "ACTIVE", "DEFAULT")
    refused(iot.register_certificate, "ResourceAlreadyExistsException", 409, certificatePem=pem)
    second = iot.register_certificate(certificatePem=authority.sign("/CN=2", "2"), status="PENDING_ACTIVATION")
    listed = iot.list_certificates_by_ca(caCertificateId=ca, ascendingOrder=True)["certificates"]
    assert [it["certificateId"] for it in listed] == [made["certificateId"], second["certificateId"]]

    # Of the same subject and another key: what it signed is not this one's.
    forger = Authority(tmp_path, f"{name}-forger")
    forger.subject = authority.subject
    openssl("req", "-x509", "-new", "-key", forger.key, "-subj", authority.subject, "-days", "30", "-out", forger.file)
    forged = forger.sign("/CN=device", "forged")
    refused(iot.register_certificate, "CertificateValidationException", 400, certificatePem=forged)
    refused(
        iot.register_certificate, "CertificateValidationException", 400,
        certificatePem=forged, caCertificatePem=authority.pem,
    )


def test_of_several_authorities_alike_one_has_to_be_named(iot, authority, tmp_path, name):
    twin = Authority(tmp_path, f"{name}-twin", like=authority)
    first = authority.register(iot, setAsActive=True)["certificateId"]
    twin.register(iot, setAsActive=True)
    pem = authority.sign("/CN=device", "device")
    refused(iot.register_certificate, "CertificateConflictException", 409, certificatePem=pem)
    made = iot.register_certificate(certificatePem=pem, caCertificatePem=authority.pem)["certificateId"]
    assert iot.describe_certificate(certificateId=made)["certificateDescription"]["caCertificateId"] == first


@pytest.mark.parametrize("key", ["ec:prime256v1", "ec:secp384r1", "rsa:2048"])
@pytest.mark.parametrize("tls", ["1.2", "1.3"])
def test_a_certificate_of_an_authority_connects(iot, authority, tls, key, skein, tmp_path, name):
    """Of X.509 version 1 as well, which is what openssl signs when no extensions are asked for."""
    authority.register(iot, setAsActive=True)
    pem = authority.sign("/CN=device", "device", key)
    made = iot.register_certificate(certificatePem=pem, setAsActive=True)
    document = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}'
    iot.create_policy(policyName=name, policyDocument=document)
    iot.attach_policy(policyName=name, target=made["certificateArn"])
    context = ssl.create_default_context(cafile=skein.ca)
    context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, "TLSv" + tls.replace(".", "_"))
    context.load_cert_chain(f"{tmp_path}/{name}-device.pem", f"{tmp_path}/{name}-device.key")
    wrap = lambda raw: context.wrap_socket(raw, server_hostname="localhost")
    with m.Client(skein.address("tls"), 5, wrap=wrap) as client:
        assert client.connect(name).reason == 0


@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("curve", ["prime256v1", "secp384r1", "secp521r1"])
def test_an_authority_may_have_any_curve_and_hash(iot, curve, digest, tmp_path, name):
    authority = Authority(tmp_path, name, curve=curve, digest=digest)
    id = authority.register(iot, setAsActive=True)["certificateId"]
    made = iot.register_certificate(certificatePem=authority.sign("/CN=device", "device", f"ec:{curve}"))
    assert iot.describe_certificate(certificateId=made["certificateId"])["certificateDescription"]["caCertificateId"] == id
    # Of the same name, curve and hash, and of another key.
    forger = Authority(tmp_path, f"{name}-forger", curve=curve, digest=digest)
    forged = Authority(tmp_path, f"{name}-forged", SimpleNamespace(key=forger.key, subject=authority.subject), digest=digest)
    refused(iot.register_certificate, "CertificateValidationException", 400, certificatePem=forged.sign("/CN=device", "device"))
    request = (tmp_path / f"{name}-device.csr").read_text()
    own = iot.create_certificate_from_csr(certificateSigningRequest=request)
    assert own["certificatePem"].startswith("-----BEGIN CERTIFICATE")


@pytest.fixture
def knock(skein, tmp_path, name):
    """Connects with a certificate that the authority of the test has signed; gives the reason."""

    def knock(device):
        context = ssl.create_default_context(cafile=skein.ca)
        context.load_cert_chain(f"{tmp_path}/{name}-{device}.pem", f"{tmp_path}/{name}-{device}.key")
        wrap = lambda raw: context.wrap_socket(raw, server_hostname="localhost")
        with m.Client(skein.address("tls"), 5, wrap=wrap) as client:
            return client.connect(f"{name}-{device}", check=False).reason

    return knock


def test_a_certificate_registers_itself_just_in_time(iot, authority, knock, dial, tmp_path, name):
    made = authority.register(iot, setAsActive=True, allowAutoRegistration=True)
    ca = made["certificateId"]
    owner = dial()
    owner.connect(f"{name}-owner")
    owner.subscribe(f"$aws/events/certificates/registered/{ca}", qos=1)
    pem = authority.sign("/CN=device", "device")
    id = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    for _ in range(2):
        assert knock("device") == NOT_AUTHORIZED
        event = json.loads(owner.receive().payload)
        registered = event.pop("certificateRegistrationTimestamp")
        assert event.pop("timestamp") >= int(registered) > 0
        assert event == {
            "certificateId": id, "caCertificateId": ca, "certificateStatus": "PENDING_ACTIVATION",
            "awsAccountId": "000000000000",
        }
    found = iot.describe_certificate(certificateId=id)["certificateDescription"]
    assert (found["status"], found["caCertificateId"]) == ("PENDING_ACTIVATION", ca)
    assert found["certificatePem"].split() == pem.split()

    document = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}'
    iot.create_policy(policyName=name, policyDocument=document)
    iot.attach_policy(policyName=name, target=found["certificateArn"])
    iot.update_certificate(certificateId=id, newStatus="ACTIVE")
    assert knock("device") == 0
    iot.update_certificate(certificateId=id, newStatus="INACTIVE")
    assert knock("device") == NOT_AUTHORIZED

    # Who is decided about is no news, nor is what the authority does not want any more.
    iot.update_ca_certificate(certificateId=ca, newAutoRegistrationStatus="DISABLE")
    late = hashlib.sha256(ssl.PEM_cert_to_DER_cert(authority.sign("/CN=late", "late"))).hexdigest()
    assert knock("late") == NOT_AUTHORIZED
    # What becomes of a device is seen to after it was refused: another authority goes on to want it.
    other = Authority(tmp_path, f"{name}-other")
    wanted = other.register(iot, setAsActive=True, allowAutoRegistration=True)["certificateId"]
    owner.subscribe(f"$aws/events/certificates/registered/{wanted}", qos=1)
    other.sign("/CN=next", "next")
    assert knock("other-next") == NOT_AUTHORIZED
    assert json.loads(owner.receive().payload)["caCertificateId"] == wanted
    refused(iot.describe_certificate, "ResourceNotFoundException", 404, certificateId=late)
    owner.nothing_more()


def test_what_another_key_has_signed_does_not_register_itself(iot, authority, knock, dial, tmp_path, name):
    ca = authority.register(iot, setAsActive=True, allowAutoRegistration=True)["certificateId"]
    owner = dial()
    owner.connect(f"{name}-owner")
    owner.subscribe("$aws/events/certificates/registered/#", qos=1)
    genuine, file = authority.key, authority.file
    authority.key, authority.file = tmp_path / "forger.key", tmp_path / "forger.pem"
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
            "-subj", authority.subject, "-keyout", authority.key, "-out", authority.file)
    forged = hashlib.sha256(ssl.PEM_cert_to_DER_cert(authority.sign("/CN=forged", "forged"))).hexdigest()
    assert knock("forged") == NOT_AUTHORIZED
    authority.key, authority.file = genuine, file
    authority.sign("/CN=device", "device")
    assert knock("device") == NOT_AUTHORIZED
    assert json.loads(owner.receive().payload)["caCertificateId"] == ca
    refused(iot.describe_certificate, "ResourceNotFoundException", 404, certificateId=forged)
    owner.nothing_more()


def test_there_is_no_other_account_to_transfer_to(iot, name):
    made = iot.create_keys_and_certificate(setAsActive=True)
    id = made["certificateId"]
    transfer = lambda account, id=id: iot.transfer_certificate(certificateId=id, targetAwsAccount=account)
    refused(transfer, "CertificateStateException", 406, account="123456789012")
    iot.update_certificate(certificateId=id, newStatus="INACTIVE")
    refused(transfer, "InvalidRequestException", 400, account="123456789012")
    refused(transfer, "TransferConflictException", 409, account="000000000000")
    refused(transfer, "ResourceNotFoundException", 404, account="123456789012", id="0" * 64)
    for end in (iot.accept_certificate_transfer, iot.reject_certificate_transfer, iot.cancel_certificate_transfer):
        refused(end, "TransferAlreadyCompletedException", 410, certificateId=id)
        refused(end, "ResourceNotFoundException", 404, certificateId="0" * 64)
    assert iot.list_outgoing_certificates()["outgoingCertificates"] == []
