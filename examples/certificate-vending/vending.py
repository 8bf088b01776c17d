"""The vending machine: gives a device the certificate that was made for it.

It knows the certificates from the report on the registration. Certificates are no secrets, and private
keys never come here: who asks has to show that it has the key, so that nobody learns which devices
there are. In earnest it stands behind TLS, which `http.server` leaves out here.
"""

import http.server
import json
import threading
import time

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

# How old a question may be.
FRESH_SECONDS = 60
BODY_BYTES = 4096


class VendingMachine:
    def __init__(self, results, endpoint, ca):
        self.certificates = {}
        for line in results:
            serial = line["response"]["resourceArns"]["thing"].rpartition("/")[2]
            self.certificates[serial] = line["response"]["certificatePem"]
        self.link = {"host": endpoint[0], "port": endpoint[1], "ca": ca}
        machine = self

        class Door(http.server.BaseHTTPRequestHandler):
            timeout = 10

            def do_POST(self):
                try:
                    length = min(int(self.headers.get("Content-Length", 0)), BODY_BYTES)
                    status, answer = 200, machine.vend(json.loads(self.rfile.read(length)))
                except (ValueError, KeyError, TypeError, InvalidSignature):
                    # One answer for all that is wrong: it tells nobody which serial numbers there are.
                    status, answer = 403, {"message": "no certificate for you"}
                body = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Door)
        self.url = "http://127.0.0.1:%d/certificate" % self.server.server_address[1]

    def vend(self, asked):
        """The certificate of a device, and where to go with it."""
        serial, at = asked["serial"], asked["at"]
        if abs(time.time() - at) > FRESH_SECONDS:
            raise ValueError("an old question")
        pem = self.certificates[serial]
        key = x509.load_pem_x509_certificate(pem.encode()).public_key()
        key.verify(bytes.fromhex(asked["signature"]), question(serial, at), ec.ECDSA(hashes.SHA256()))
        return {"certificate": pem, **self.link}

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def question(serial, at):
    """What a device signs."""
    return f"certificate of {serial} at {at}".encode()
