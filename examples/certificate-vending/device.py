"""A meter: it is made with a serial number and a key, and nothing else.

Switched on for the first time it fetches its certificate and where to connect. From then on it is a
plain MQTT client over TLS that both sides prove themselves in.
"""

import json
import os
import queue
import time
import urllib.error
import urllib.request

import paho.mqtt.client as mqtt
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from factory import make_key, signing_request
from vending import question

WAIT = 20
DENIED = "denied"


class Refused(Exception):
    """There is no certificate for this device."""


class Device:
    def __init__(self, serial, folder):
        self.serial, self.key = serial, make_key()
        self.files = [str(folder / f"{serial}.{kind}") for kind in ("pem", "key", "ca.pem")]
        self.link = None

    def line(self, **more):
        """What the factory learns of it: no secret is in it."""
        return {"Serial": self.serial, "CSR": signing_request(self.serial, self.key), **more}

    def fetch_certificate(self, url):
        at = int(time.time())
        signature = self.key.sign(question(self.serial, at), ec.ECDSA(hashes.SHA256())).hex()
        body = json.dumps({"serial": self.serial, "at": at, "signature": signature}).encode()
        try:
            with urllib.request.urlopen(url, body, timeout=WAIT) as answer:
                given = json.load(answer)
        except urllib.error.HTTPError as error:
            raise Refused(json.load(error)["message"]) from None
        form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        key = self.key.private_bytes(serialization.Encoding.PEM, *form).decode()
        for file, text in zip(self.files, (given["certificate"], key, given["ca"])):
            with open(file, "w", opener=private) as out:
                out.write(text)
        self.link = given["host"], given["port"]

    def report(self, reading, about=None):
        """Sends a reading over mTLS and hears it back: both are its policy's business."""
        heard, topic = queue.Queue(), f"meters/{about or self.serial}/reading"
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, self.serial, protocol=mqtt.MQTTv5)
        certificate, key, ca = self.files
        client.tls_set(ca_certs=ca, certfile=certificate, keyfile=key)
        client.on_connect = lambda _c, _d, _f, reason, _p: heard.put(("connected", not reason.is_failure))
        client.on_subscribe = lambda _c, _d, _m, reasons, _p: heard.put(("subscribed", not reasons[0].is_failure))
        client.on_message = lambda _c, _d, message: heard.put(("heard", message.payload.decode()))
        client.connect(*self.link)
        client.loop_start()
        try:
            if heard.get(timeout=WAIT) != ("connected", True):
                return DENIED
            client.subscribe(topic, qos=1)
            if heard.get(timeout=WAIT) != ("subscribed", True):
                return DENIED
            client.publish(topic, reading, qos=1)
            return heard.get(timeout=WAIT)[1]
        finally:
            client.disconnect()
            client.loop_stop()


def private(path, flags):
    """Opens a file that only its owner can read."""
    return os.open(path, flags, 0o600)
