"""mqtt.js over WebSocket: plain, over TLS, and signed with SigV4 as browsers do."""

import subprocess
from pathlib import Path

import pytest

import aws

HERE = Path(__file__).parent
SCENARIOS = ["round_trip_4", "round_trip_5", "properties", "sizes", "session", "will"]


def node(scenario, url, name, ca=None):
    command = ["node", "mqttjs.mjs", scenario, url, name, *([ca] if ca else [])]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=40)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


LARGE = pytest.param("sizes", marks=pytest.mark.not_mosquitto("stops amid a large frame"))


@pytest.mark.parametrize("scenario", [LARGE if one == "sizes" else one for one in SCENARIOS])
def test_plain(broker, name, scenario):
    node(scenario, f"ws://localhost:{broker.port('ws')}/mqtt", name)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_signed(skein, name, scenario):
    node(scenario, aws.presigned_url(skein), name, skein.ca)


def test_wrong_path(skein, name):
    node("refused", f"ws://localhost:{skein.port('ws')}/elsewhere", name)


@pytest.mark.parametrize("flaw", ["unsigned", "no signature", "wrong signature", "unknown key", "expired"])
def test_wrongly_signed(skein, name, flaw):
    url = aws.presigned_url(skein, expired=flaw == "expired")
    if flaw == "unsigned":
        url = url.partition("?")[0]
    elif flaw == "no signature":
        url = url.partition("&X-Amz-Signature=")[0]
    elif flaw == "wrong signature":
        url = url[:-4] + ("0000" if not url.endswith("0000") else "1111")
    elif flaw == "unknown key":
        url = url.replace("X-Amz-Credential=", "X-Amz-Credential=UNKNOWN")
    node("refused", url, name, skein.ca)
