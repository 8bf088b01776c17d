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

    def respond(self, name="server", status="V"):
        certificate = self.pki / f"{name}.pem"
        serial = openssl("x509", "-in", certificate, "-noout", "-serial").stdout.strip().split("=")[1]
        revoked = "260101000000Z" if status == "R" else ""
        (self.folder / "index.txt").write_text(f"{status}\t491231235959Z\t{revoked}\t{serial}\tunknown\t/CN={name}\n")
        ca = self.pki / "ca.pem"
        openssl("ocsp", "-issuer", ca, "-cert", certificate, "-no_nonce", "-reqout", self.folder / "request.der")
        openssl(
            "ocsp", "-index", self.folder / "index.txt", "-CA", ca, "-rsigner", ca, "-rkey", self.pki / "ca.key",
            "-ndays", 1, "-reqin", self.folder / "request.der", "-respout", self.folder / "new.der",
        )
        os.replace(self.folder / "new.der", self.folder / "server.ocsp")

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
