"""The example runs as its README says, and its clients lose nothing."""

import os
import subprocess

import pytest

from brokers import REPO, skein_binary

pytestmark = pytest.mark.skein


def test_a_node_is_killed():
    done = subprocess.run(
        [REPO / "examples" / "three-nodes" / "run", "--seconds", "2"],
        capture_output=True, text=True, timeout=85, env=os.environ | {"SKEIN_BIN": str(skein_binary())},
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "nothing was lost" in done.stdout, done.stdout
    (collector,) = [line for line in done.stdout.splitlines() if line.startswith("collector")]
    assert "node 2 → node " in collector, done.stdout
