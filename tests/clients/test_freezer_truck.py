"""The example runs as its README says, and everything in its report is in order."""

import os
import subprocess

import pytest

from brokers import REPO, skein_binary

pytestmark = pytest.mark.skein


def test_ten_trucks():
    done = subprocess.run(
        [REPO / "examples" / "freezer-truck" / "run", "--speed", "60"],
        capture_output=True, text=True, timeout=85, env=os.environ | {"SKEIN_BIN": str(skein_binary())},
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "everything is in order" in done.stdout
    assert "truck-10: online → offline → online → parked" in done.stdout, done.stdout
