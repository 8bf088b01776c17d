"""What a responder says of the node's certificate, shown in the handshake."""

import os
import subprocess

import pytest

from brokers import make_pki, serving, skein_binary, wait_until

pytestmark = pytest.mark.skein


def openssl(*words, check=True, **more):
    return subprocess.run(["openssl", *map(str, words)], check=check, capture_output=True, text=True, **more)


class Responder:
    """Answers for certificates of a CA, into a file."""

    def __init__(self, folder):
        self.pki, self.folder = folder / "pki", folder
        make_pki(self.pki)

    def respond(self, name="server", status="V", ca="ca", signer=None, digest="sha1"):
        """`ca` answers about a certificate, and `signer` signs that for it."""
        certificate, signer = self.pki / f"{name}.pem", signer or ca
        serial = openssl("x509", "-in", certificate, "-noout", "-serial").stdout.strip().split("=")[1]
        revoked = "260101000000Z" if status == "R" else ""
        (self.folder / "index.txt").write_text(f"{status}\t491231235959Z\t{revoked}\t{serial}\tunknown\t/CN={name}\n")
        ca, signer_key = self.pki / f"{ca}.pem", self.pki / f"{signer}.key"
        openssl(
            "ocsp", "-issuer", ca, f"-{digest}", "-serial", f"0x{serial}", "-no_nonce", "-reqout", self.folder / "request.der",
        )
        openssl(
            "ocsp", "-index", self.folder / "index.txt", "-CA", ca, "-rsigner", self.pki / f"{signer}.pem", "-rkey", signer_key,
            "-ndays", 1, "-reqin", self.folder / "request.der", "-respout", self.folder / "new.der",
        )
        os.replace(self.folder / "new.der", self.folder / "server.ocsp")

    def authority(self, name, subject):
        """Another CA."""
        openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", subject, "-days", 30,
            "-keyout", self.pki / f"{name}.key", "-out", self.pki / f"{name}.pem",
        )

    def responder(self, name, ca="ca", usage="OCSPSigning", days=30):
        """A certificate of a CA for signing responses."""
        request, extensions = self.pki / f"{name}.csr", self.pki / f"{name}.ext"
        openssl(
            "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", self.pki / f"{name}.key", "-out", request,
        )
        extensions.write_text(f"extendedKeyUsage={usage}\n")
        openssl(
            "x509", "-req", "-in", request, "-CA", self.pki / f"{ca}.pem", "-CAkey", self.pki / f"{ca}.key", "-CAcreateserial",
            "-days", days, "-extfile", extensions, "-out", self.pki / f"{name}.pem",
        )

    def complete(self):
        """The node's chain has its issuer, as it does where that is an intermediate CA."""
        chain = self.pki / "server.pem"
        chain.write_text(chain.read_text() + (self.pki / "ca.pem").read_text())

    def node(self):
        node = serving(self.folder / "node", "")
        (node.folder / "skein.toml").write_text(f"""
data = '{node.data}'
[listeners.admin]
address = '127.0.0.1:{node.port("admin")}'
[listeners.mqtts]
address = '127.0.0.1:{node.port("tls")}'
[tls]
certificate = '{self.pki}/server.pem'
private_key = '{self.pki}/server.key'
ocsp_response = '{self.folder}/server.ocsp'
""")
        return node

    def shown(self, node):
        """What `openssl s_client` gets to see."""
        words = ["s_client", "-connect", "127.0.0.1:%d" % node.port("tls"), "-status", "-CAfile", self.pki / "ca.pem"]
        return openssl(*words, check=False, stdin=subprocess.DEVNULL, timeout=20).stdout


def check(node):
    words = [str(skein_binary()), "config", "check", str(node.folder / "skein.toml")]
    return subprocess.run(words, capture_output=True, text=True)


def test_a_response_is_shown_and_followed(tmp_path):
    responder = Responder(tmp_path)
    node = responder.node().start()
    try:
        assert "OCSP response: no response sent" in responder.shown(node)
        responder.respond()
        wait_until("it is shown", lambda: "Cert Status: good" in responder.shown(node), 20, every=0.5)
        assert node.metrics()["tls_ocsp_response_expiry_seconds"] > 1_700_000_000
        # What is no response does not take the place of the one that there is.
        (tmp_path / "server.ocsp").write_bytes(b"nonsense")
        wait_until("it is said", lambda: "no OCSP response in DER" in node.tail(), 20)
        assert "Cert Status: good" in responder.shown(node)
    finally:
        node.stop()


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda responder: responder.respond(status="R"), "says that the certificate is revoked"),
        (lambda responder: responder.respond(name="device"), "not about the node's certificate"),
        (lambda responder: (responder.folder / "server.ocsp").write_bytes(b"\x30\x03\x0a\x01\x03"), "TryLater"),
        (lambda responder: (responder.folder / "server.ocsp").write_bytes(b"nonsense"), "no OCSP response in DER"),
        (lambda responder: None, "No such file"),
    ],
)
def test_what_cannot_be_shown_is_a_warning(tmp_path, make, said):
    responder = Responder(tmp_path)
    make(responder)
    done = check(responder.node())
    assert done.returncode == 0, done.stderr
    assert "tls.ocsp_response" in done.stderr and said in done.stderr, done.stderr


def by_another_key(responder, whose):
    responder.authority("other", "/CN=test ca")
    responder.respond(ca=whose, signer="other")


def by_another_name(responder):
    responder.authority("other", "/CN=other ca")
    responder.respond(ca="other")


def by_a_responder(responder, **more):
    responder.authority("other", "/CN=test ca")
    responder.responder("responder", **more)
    responder.respond(signer="responder")


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda responder: responder.respond(), None),
        (lambda responder: responder.respond(digest="sha256"), None),
        (lambda responder: responder.respond(digest="sha384"), None),
        (by_a_responder, None),
        (by_another_name, "not about the node's certificate: the issuer has another name"),
        (lambda responder: by_another_key(responder, "other"), "the issuer has another key"),
        (lambda responder: by_another_key(responder, "ca"), "the responder's certificate is not of the issuer"),
        (lambda responder: by_a_responder(responder, ca="other"), "the responder's certificate is not of the issuer"),
        (lambda responder: by_a_responder(responder, usage="clientAuth"), "not for signing OCSP responses"),
        (lambda responder: by_a_responder(responder, days=-1), "not valid now"),
        (lambda responder: responder.respond(digest="sha224"), "by a hash that is not known here"),
        (lambda responder: responder.respond(name="device"), "the serial number is another one"),
    ],
    ids=lambda value: None if callable(value) else str(value)[:30],
)
def test_who_speaks_is_looked_at_where_the_issuer_is_known(tmp_path, make, said):
    responder = Responder(tmp_path)
    node = responder.node()
    make(responder)
    responder.complete()
    done = check(node)
    assert done.returncode == 0, done.stderr
    assert ("tls.ocsp_response" in done.stderr) == bool(said) and (said or "") in done.stderr, done.stderr


def test_the_issuer_is_named_where_its_key_is_not_known(tmp_path):
    responder = Responder(tmp_path)
    node = responder.node()
    for make, said in (
        (by_another_name, "the issuer has another name"), (lambda responder: by_another_key(responder, "ca"), None),
    ):
        make(responder)
        done = check(node)
        assert ("tls.ocsp_response" in done.stderr) == bool(said) and (said or "") in done.stderr, done.stderr
