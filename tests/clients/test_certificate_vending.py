"""The example runs as its README says, and everything in it is in order."""

import os
import subprocess

import pytest

from brokers import REPO, skein_binary

pytestmark = pytest.mark.skein


def test_a_fleet_fetches_its_certificates():
    done = subprocess.run(
        [REPO / "examples" / "certificate-vending" / "run", "--devices", "30"],
        capture_output=True, text=True, timeout=85, env=os.environ | {"SKEIN_BIN": str(skein_binary())},
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "everything is in order" in done.stdout
    assert "Completed: 30 registered, 1 refused" in done.stdout and "line 2: " in done.stdout, done.stdout
    assert "meter-00005 reports over mTLS: 4 kWh" in done.stdout, done.stdout
