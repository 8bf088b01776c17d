"""A Skein for this example alone: `skein dev` on free ports, with its data in a folder that goes."""

import os
import random
import socket
import subprocess
import time
import urllib.request

import boto3
import botocore.session

PORTS = (1883, 8883, 8083, 8443, 8080, 9464)


class Node:
    def __init__(self, folder):
        self.folder, self.data = folder, folder / "data"
        self.offset = free_offset()
        self.link = ("localhost", 8883 + self.offset, str(self.data / "pki" / "ca.pem"))

    def __enter__(self):
        self.folder.mkdir(parents=True)
        binary = os.environ.get("SKEIN_BIN")
        if not binary:
            raise SystemExit("SKEIN_BIN does not say where skein is; the `run` of the example builds it")
        log = self.folder / "skein.log"
        with log.open("wb") as out:
            try:
                self.process = subprocess.Popen(
                    [binary, "dev", "--data", str(self.data), "--port-offset", str(self.offset)],
                    stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                )
            except OSError as error:
                raise SystemExit(f"SKEIN_BIN does not name a skein that runs: {error}") from None
        deadline = time.monotonic() + 20
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise SystemExit(f"skein did not start:\n{log.read_text(errors='replace')}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def is_ready(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{9464 + self.offset}/readyz", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def client(self, service):
        """An unmodified AWS client, pointed here."""
        session = botocore.session.Session()
        session.set_config_variable("credentials_file", str(self.data / "aws" / "credentials"))
        session.set_config_variable("config_file", str(self.data / "aws" / "config"))
        url = f"http://127.0.0.1:{8080 + self.offset}"
        return boto3.session.Session(botocore_session=session).client(service, endpoint_url=url)


def free_offset():
    for _ in range(100):
        offset = random.randrange(8_000, 22_000)
        if all(is_free(port + offset) for port in PORTS):
            return offset
    raise SystemExit("no free ports")


def is_free(port):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
