"""Certificate revocation lists: what a registered CA has taken back is out, and does not come in again."""

import datetime
import hashlib
import json
import re
import socket
import ssl
import subprocess
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ReasonFlags, oid

import rawmqtt as m
from brokers import REPO, skein_binary, wait_until
from test_audit import audited  # noqa: F401, fixture
from test_authorities import NOT_AUTHORIZED, refused

pytestmark = pytest.mark.skein
ALLOW = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}'
PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER
DAY, MINUTE = datetime.timedelta(days=1), datetime.timedelta(minutes=1)
LIMIT = 200_000


def now():
    return datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)


def named(name):
    return x509.Name([x509.NameAttribute(oid.NameOID.COMMON_NAME, name)])


class Ca:
    """A CA of somebody's own: what it signs, and what it takes back."""

    def __init__(self, folder, name, key=None, may_sign_lists=True):
        self.folder, self.name, self.key = folder, name, key or ec.generate_private_key(ec.SECP256R1())
        usage = dict.fromkeys(("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"), False)
        usage |= dict(key_agreement=False, encipher_only=False, decipher_only=False)
        usage = x509.KeyUsage(key_cert_sign=True, crl_sign=may_sign_lists, **usage)
        built = self.built(named(name), self.key.public_key(), x509.random_serial_number())
        built = built.add_extension(x509.BasicConstraints(ca=True, path_length=None), True).add_extension(usage, True)
        self.pem = built.sign(self.key, hashes.SHA256()).public_bytes(PEM).decode()

    def built(self, subject, key, serial):
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(named(self.name)).public_key(key)
        return builder.serial_number(serial).not_valid_before(now() - DAY).not_valid_after(now() + 30 * DAY)

    def register(self, iot, **more):
        more = {"setAsActive": True, "certificateMode": "SNI_ONLY"} | more
        return iot.register_ca_certificate(caCertificate=self.pem, **more)["certificateId"]

    def device(self, name, serial=None):
        return Device(self, name, serial or x509.random_serial_number())

    def revoked(self, serial, *extensions):
        builder = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now() - DAY)
        for extension in extensions:
            builder = builder.add_extension(extension, isinstance(extension, x509.CertificateIssuer))
        return builder.build()

    def list(self, *serials, issued=None, until=None, number=None, more=(), entries=(), key=None, issuer=None):
        issued = issued or now() - MINUTE
        builder = x509.CertificateRevocationListBuilder().issuer_name(named(issuer or self.name))
        builder = builder.last_update(issued).next_update(until or now() + 7 * DAY)
        if number is not None:
            builder = builder.add_extension(x509.CRLNumber(number), False)
        for extension in more:
            builder = builder.add_extension(extension, True)
        for entry in [self.revoked(serial) for serial in serials] + list(entries):
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(key or self.key, hashes.SHA256()).public_bytes(PEM)


def tlv(tag, *parts):
    value = b"".join(parts)
    length = len(value).to_bytes(4, "big").lstrip(b"\0") or b"\0"
    if len(value) >= 128:
        length = bytes([128 | len(length)]) + length
    return bytes([tag]) + length + value


def long_list(ca, serials):
    """A list by hand: the builder copies all that it has for each entry."""
    moment = lambda at: tlv(0x17, f"{at:%y%m%d%H%M%SZ}".encode())
    algorithm = tlv(0x30, tlv(6, bytes.fromhex("2a8648ce3d040302")))
    reason = tlv(0x30, tlv(0x30, tlv(6, b"\x55\x1d\x15"), tlv(4, tlv(0x0A, b"\1"))))
    entry = lambda serial: tlv(0x30, tlv(2, serial.to_bytes(20, "big")), moment(now() - DAY), reason)
    name, times = named(ca.name).public_bytes(), moment(now() - MINUTE) + moment(now() + 7 * DAY)
    signed = tlv(0x30, tlv(2, b"\1"), algorithm, name, times, tlv(0x30, *map(entry, serials)))
    signature = ca.key.sign(signed, ec.ECDSA(hashes.SHA256()))
    return tlv(0x30, signed, algorithm, tlv(3, b"\0", signature))


class Device:
    def __init__(self, ca, name, serial):
        self.name, self.serial = f"{ca.name}-{name}", serial
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = ca.built(named(name), key.public_key(), serial).sign(ca.key, hashes.SHA256())
        self.pem = certificate.public_bytes(PEM).decode()
        self.id = hashlib.sha256(certificate.public_bytes(DER)).hexdigest()
        self.file = ca.folder / f"{self.name}.pem"
        words = PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        self.file.write_text(self.pem + key.private_bytes(*words).decode())

    def register(self, iot, **more):
        made = iot.register_certificate(certificatePem=self.pem, **({"setAsActive": True} | more))
        iot.attach_policy(policyName="crl", target=made["certificateArn"])
        return self

    def status(self, iot):
        return iot.describe_certificate(certificateId=self.id)["certificateDescription"]["status"]

    def client(self, broker):
        context = ssl.create_default_context(cafile=broker.ca)
        context.load_cert_chain(self.file)
        wrap = lambda raw: context.wrap_socket(raw, server_hostname="localhost")
        return m.Client(broker.address("tls"), 5, wrap=wrap)

    def knock(self, broker):
        with self.client(broker) as client:
            return client.connect(self.name, check=False).reason


@pytest.fixture(scope="module")
def iot(shared_broker):
    iot = shared_broker.boto("iot")
    iot.create_policy(policyName="crl", policyDocument=ALLOW)
    return iot


@pytest.fixture
def ca(tmp_path, name):
    return Ca(tmp_path, name)


def importing(broker, folder, list):
    file = folder / "list.crl"
    file.write_bytes(list)
    words = [skein_binary(), "crl", "import", file, "--admin", "%s:%d" % broker.address("admin")]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=90)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def take(skein, tmp_path):
    """Imports a list: what is said of it."""

    def take(list, of=skein):
        code, said = importing(of, tmp_path, list)
        assert code == 0, said
        return said

    return take


@pytest.fixture
def refuse(skein, tmp_path):
    """Has a list refused: why."""

    def refuse(list, why):
        code, said = importing(skein, tmp_path, list)
        assert code == 1 and why in said, said

    return refuse


def test_who_sends_a_list_slowly_holds_up_nobody(skein, ca, iot, take):
    ca.register(iot)
    with socket.create_connection(skein.address("admin"), 10) as slow:
        # The node says when it waits for the list.
        slow.sendall(b"POST /admin/crl HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n")
        assert slow.recv(100).startswith(b"HTTP/1.1 100 ")
        slow.sendall(b"x")
        assert "issued" in take(ca.list())


def test_a_list_with_a_byte_order_mark(ca, iot, take, refuse):
    ca.register(iot)
    take(b"\xef\xbb\xbf" + ca.list())
    refuse(b"\xff\xfe" + ca.list().decode().encode("utf-16-le"), "the file is text in UTF-16")


def test_who_is_on_a_list_is_out(skein, iot, ca, take):
    authority = ca.register(iot)
    lost, kept, new = (ca.device(name) for name in ("lost", "kept", "new"))
    waiting = ca.device("waiting").register(iot, setAsActive=False, status="PENDING_ACTIVATION")
    with lost.register(iot).client(skein) as out, kept.register(iot).client(skein) as stays:
        out.connect(lost.name)
        stays.connect(kept.name)
        held = ca.revoked(waiting.serial, x509.CRLReason(ReasonFlags.certificate_hold))
        said = take(ca.list(lost.serial, new.serial, number=10, entries=[held]))
        begun = time.monotonic()
        ended(out)
        assert time.monotonic() - begun < 1
        stays.ping()
    assert f"CA {authority} (CN={ca.name})\nlist 0xa with 3 serial numbers, issued " in said
    assert "2 registered certificates revoked" in said and ", next update " in said
    assert [device.status(iot) for device in (lost, waiting, kept)] == ["REVOKED", "REVOKED", "ACTIVE"]
    assert (lost.knock(skein), kept.knock(skein)) == (NOT_AUTHORIZED, 0)

    activate = lambda device: iot.update_certificate(certificateId=device.id, newStatus="ACTIVE")
    answer = refused(activate, "CertificateStateException", 406, device=lost)
    assert "is on the revocation list of its CA" in answer["Error"]["Message"]
    refused(activate, "CertificateStateException", 406, device=waiting)
    refused(iot.register_certificate, "CertificateStateException", 406, certificatePem=new.pem)
    properties = {"CertificatePem": {"Ref": "Pem"}, "CACertificatePem": {"Ref": "Ca"}}
    template = {
        "Parameters": {"Pem": {"Type": "String"}, "Ca": {"Type": "String"}},
        "Resources": {"certificate": {"Type": "AWS::IoT::Certificate", "Properties": properties}},
    }
    parameters = {"Pem": new.pem, "Ca": ca.pem}
    provision = lambda: iot.register_thing(templateBody=json.dumps(template), parameters=parameters)
    refused(provision, "CertificateStateException", 406)
    refused(iot.describe_certificate, "ResourceNotFoundException", 404, certificateId=new.id)
    wait_until("it is known until when", lambda: now().timestamp() + 6 * 86400 < expiry(skein) <= now().timestamp() + 7 * 86400)


def expiry(broker):
    return broker.metrics()["registry_revocation_list_expiry_seconds"]


def ended(client):
    with pytest.raises((m.Closed, OSError)):
        while True:
            client.next()


def test_a_revoked_certificate_does_not_register_itself(skein, iot, ca, take, dial, name):
    authority = ca.register(iot, allowAutoRegistration=True)
    owner = dial()
    owner.connect(f"{name}-owner")
    owner.subscribe(f"$aws/events/certificates/registered/{authority}", qos=1)
    lost, welcome = ca.device("lost"), ca.device("welcome")
    take(ca.list(lost.serial))
    # What becomes of a device is seen to after it was refused: the second one tells that the first had its turn.
    assert lost.knock(skein) == welcome.knock(skein) == NOT_AUTHORIZED
    assert json.loads(owner.receive().payload)["certificateId"] == welcome.id
    owner.nothing_more()
    said = [line for line in skein.log.read_text().splitlines() if lost.id in line]
    assert any("it is on the revocation list of its CA" in line for line in said), said
    refused(iot.describe_certificate, "ResourceNotFoundException", 404, certificateId=lost.id)
    take(ca.list(issued=now()))
    assert lost.knock(skein) == NOT_AUTHORIZED
    assert json.loads(owner.receive().payload)["certificateId"] == lost.id


def test_the_next_list_decides_and_brings_nobody_back(iot, ca, take, refuse, tmp_path):
    authority = ca.register(iot)
    device = ca.device("device").register(iot)
    take(ca.list(device.serial, number=7, issued=now() - 5 * MINUTE))
    refuse(ca.list(number=6), "409: a newer list of this CA is there already: list 0x7, issued 2")
    refuse(ca.list(issued=now() - 6 * MINUTE), "a newer list of this CA is there already")
    assert "\n0 registered" in take(ca.list(device.serial, number=7, issued=now() - 5 * MINUTE))
    take(ca.list(number=8))
    assert device.status(iot) == "REVOKED"
    iot.update_certificate(certificateId=device.id, newStatus="ACTIVE")
    assert device.status(iot) == "ACTIVE"
    take(ca.list(device.serial, number=9))

    # A certificate of the CA that was renewed with its key has the same list, which stays as long as one does.
    renewed = Ca(tmp_path, ca.name, key=ca.key)
    other = renewed.register(iot)
    for gone in (authority, other):
        activate = lambda: iot.update_certificate(certificateId=device.id, newStatus="INACTIVE")
        activate()
        if gone == authority:
            refused(lambda: iot.update_certificate(certificateId=device.id, newStatus="ACTIVE"), "CertificateStateException", 406)
        iot.update_ca_certificate(certificateId=gone, newStatus="INACTIVE")
        iot.delete_ca_certificate(certificateId=gone)
    ca.register(iot)
    iot.update_certificate(certificateId=device.id, newStatus="ACTIVE")
    take(ca.list(number=1))


def test_a_list_in_der_and_one_of_the_first_version(iot, ca, take, tmp_path):
    ca.register(iot)
    device = ca.device("device").register(iot)
    list = x509.load_pem_x509_crl(ca.list())
    take(list.public_bytes(DER))
    (tmp_path / "index").write_text(f"R\t491231235959Z\t260101000000Z\t{device.serial:040X}\tunknown\t/CN=device\n")
    (tmp_path / "ca.pem").write_text(ca.pem)
    words = PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (tmp_path / "ca.key").write_bytes(ca.key.private_bytes(*words))
    (tmp_path / "conf").write_text(f"[ca]\ndefault_ca=own\n[own]\ndatabase={tmp_path}/index\ndefault_md=sha256\ndefault_crl_days=7\n")
    words = ["openssl", "ca", "-gencrl", "-config", tmp_path / "conf", "-cert", tmp_path / "ca.pem", "-keyfile", tmp_path / "ca.key"]
    made = subprocess.run([str(word) for word in words], capture_output=True, check=True).stdout
    assert b"Version 1" in subprocess.run(["openssl", "crl", "-noout", "-text"], input=made, capture_output=True).stdout
    assert "list with 1 serial numbers" in take(made)
    assert device.status(iot) == "REVOKED"


def distribution_point(**given):
    every = dict(full_name=None, relative_name=None, only_some_reasons=None)
    every |= dict.fromkeys(("only_contains_user_certs", "only_contains_ca_certs", "indirect_crl"), False)
    return x509.IssuingDistributionPoint(**(every | dict(only_contains_attribute_certs=False) | given))


URI = [x509.UniformResourceIdentifier("http://crl.example.com/3.crl")]
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")


@pytest.mark.parametrize(
    "make, why",
    [
        (lambda ca: ca.list(issuer="somebody else"), "404: no CA with the subject \"CN=somebody else\" is registered"),
        (lambda ca: ca.list(key=ec.generate_private_key(ec.SECP256R1())), "is not signed by that CA"),
        (lambda ca: ca.list(more=[x509.DeltaCRLIndicator(1)]), "it is a delta CRL"),
        (lambda ca: ca.list(more=[distribution_point(indirect_crl=True)]), "it is an indirect CRL"),
        (lambda ca: ca.list(more=[distribution_point(full_name=URI)]), "only some of the CA's certificates"),
        (lambda ca: ca.list(more=[distribution_point(only_contains_ca_certs=True)]), "only some of the CA's certificates"),
        (lambda ca: ca.list(more=[UNKNOWN]), "the critical extension 1.2.3.4 is not known"),
        (lambda ca: ca.list(issued=now() - 2 * DAY, until=now() - DAY), "it is outdated since 2"),
        (lambda ca: ca.list(issued=now() + 20 * MINUTE), "which is not yet"),
        (lambda ca: ca.list(entries=[ca.revoked(171, x509.CRLReason(ReasonFlags.remove_from_crl))]), "certificate ab has the reason removeFromCRL"),
        (lambda ca: ca.list(entries=[ca.revoked(5, x509.CertificateIssuer([x509.DirectoryName(named("x"))]))]), "it is an indirect CRL"),
        (lambda ca: ca.pem.encode(), "must hold exactly one X509 CRL, not CERTIFICATE"),
        (lambda ca: ca.list() * 2, "must hold exactly one X509 CRL, not 2 blocks"),
        (lambda ca: b"nonsense", "is not valid DER"),
        (lambda ca: ca.list()[:200], "400: "),
        (lambda ca: b"", "the body is empty"),
        (lambda ca: b"0" * (21 << 20), "too many for a revocation list"),
    ],
)
def test_what_is_no_complete_list_of_a_registered_ca_is_refused(iot, ca, make, why, refuse):
    ca.register(iot)
    device = ca.device("device").register(iot)
    refuse(make(ca), why)
    assert device.status(iot) == "ACTIVE"


def test_a_ca_whose_key_is_not_for_lists_signs_none(iot, tmp_path, name, refuse, take):
    ca = Ca(tmp_path, name, may_sign_lists=False)
    id = ca.register(iot)
    refuse(ca.list(5), f"the key usage of the CA certificate {id} lacks cRLSign")
    for _ in range(4):
        # One of them that may sign is enough, wherever it stands among those with the same key.
        Ca(tmp_path, name, key=ca.key, may_sign_lists=False).register(iot)
    Ca(tmp_path, name, key=ca.key).register(iot)
    assert "list with 1 serial" in take(ca.list(5))


def test_users_alone_are_all_that_matters(iot, ca, take):
    ca.register(iot)
    assert "list with 1 serial" in take(ca.list(5, more=[distribution_point(only_contains_user_certs=True)]))


def test_a_list_as_long_as_can_be_survives(fresh_broker, ca, take):
    iot = fresh_broker.boto("iot")
    iot.create_policy(policyName="crl", policyDocument=ALLOW)
    ca.register(iot)
    device = ca.device("device", 1 << 157 | 1).register(iot)
    late = ca.device("late", 1 << 157 | 2)
    serials = [1 << 158 | number << 100 for number in range(LIMIT)]
    long = long_list(ca, serials[2:] + [device.serial, late.serial])
    with m.Client(fresh_broker.plain, 5) as watch:
        watch.connect("watch")
        begun = time.monotonic()
        assert f"with {LIMIT} serial numbers" in take(long, of=fresh_broker)
        print(f"{len(long)} bytes in {time.monotonic() - begun:.2f} s")
        watch.publish("a", b"", qos=1)
    code, said = importing(fresh_broker, ca.folder, long_list(ca, serials + [5]))
    assert code == 1 and f"the list has {LIMIT + 1} serial numbers; it can have {LIMIT}" in said
    for end in (fresh_broker.kill, fresh_broker.stop):
        end()
        fresh_broker.start()
        assert device.status(iot) == "REVOKED"
        refused(iot.register_certificate, "CertificateStateException", 406, certificatePem=late.pem)


def test_an_import_is_recorded(audited, ca, take):
    iot = audited.who("ADMIN")
    id = ca.register(iot)
    device = Device(ca, "device", 6)
    iot.register_certificate(certificatePem=device.pem, caCertificatePem=ca.pem, setAsActive=True)
    for number in (1, 2):
        take(ca.list(*range(5, 5 + number), number=number), of=audited)
    code, _ = importing(audited, ca.folder, ca.list(number=1))
    assert code == 1
    iot.update_ca_certificate(certificateId=id, newStatus="INACTIVE")
    iot.delete_ca_certificate(certificateId=id)
    records = [it for it in audited.records() if it["operation"] in ("ImportRevocationList", "DeleteCACertificate")]
    first, second, third, deleted = records
    assert [it["outcome"] for it in records] == ["done", "done", "rejected", "done"]
    assert (first["actor"], third["error"]) == ({"type": "admin_port"}, "409")
    change, *revoked = second["changes"]
    as_was, as_is = ({"certificateId": device.id, "status": status} for status in ("ACTIVE", "REVOKED"))
    assert [(it["before"], it["after"]) for it in revoked] == [(as_was, as_is)]
    assert revoked[0]["resource"].endswith(f":cert/{device.id}")
    assert change["resource"].endswith(f":cacert/{id}")
    counted = lambda it: (it["crlNumber"], it["serialNumbers"])
    assert (counted(change["before"]), counted(change["after"])) == (("0x1", 1), ("0x2", 2))
    assert first["changes"][0]["before"] is None and "changes" not in third
    authority, list = deleted["changes"]
    assert list["before"] == change["after"] and authority["after"] is list["after"] is None


def test_all_nodes_of_a_cluster_have_the_list(cluster, ca, take):
    iot = cluster[1].boto("iot")
    iot.create_policy(policyName="crl", policyDocument=ALLOW)
    ca.register(iot)
    device, late = ca.device("device").register(iot), ca.device("late")
    assert "\n1 registered" in take(ca.list(device.serial, late.serial), of=cluster[2])
    for node in (1, 2, 3):
        iot = cluster[node].boto("iot")
        assert device.status(iot) == "REVOKED"
        refused(iot.register_certificate, "CertificateStateException", 406, certificatePem=late.pem)
    cluster[1].kill()
    wait_until("others go on", lambda: cluster[2].is_serving() and cluster[3].is_serving(), 20)
    assert "\n0 registered" in take(ca.list(late.serial, issued=now()), of=cluster[3])


def test_the_example_of_the_document(skein, iot, tmp_path, take):
    """Its blocks: what the import says, the configuration of openssl, and the commands."""
    text = (REPO / "docs/security.md").read_text().partition("## Revocation lists")[2].partition("\n## ")[0]
    _, says, config, commands = re.findall(r"(?ms)^```\w+\n(.*?)^```", text)
    ca = Ca(tmp_path, "devices")
    ca.register(iot)
    device = ca.device("lamp").register(iot)
    words = PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    files = {"ca.pem": ca.pem, "ca.key": ca.key.private_bytes(*words).decode(), "ca.cnf": config}
    for name, content in files.items():
        (tmp_path / f"devices-{name}").write_text(content)
    (tmp_path / "lamp.pem").write_text(device.pem)
    commands = commands.replace("skein crl import", f"{skein_binary()} crl import --admin 127.0.0.1:{skein.port('admin')}")
    done = subprocess.run(["bash", "-ec", commands], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    alike = lambda said: re.sub(r"(CA |^  )\S+", r"\1ID", re.sub(r"2\d{3}-\S+Z", "TIME", said), flags=re.M)
    assert alike(done.stdout).endswith(alike(says)), done.stdout
    assert device.status(iot) == "REVOKED"
