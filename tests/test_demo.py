"""The demo that the README names: every fault ends as it should, and nothing is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from daemons import ROOT

if TYPE_CHECKING:
    from pathlib import Path

DEADLINE_S = 90.0


@pytest.mark.real
def test_the_demo_shows_every_fault_mended(tmp_path: Path) -> None:
    """It ends with 0, tells each fault and its mending, and leaves neither file nor process."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "demo" / "onenode.py")],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    for words in (
        "haproxy.died",
        "haproxy.hung",
        "configuration.invalid",
        "keepalived.stopped",
        "keepalived.started",
        "hook:     exit 1, the VIP goes to the peer",
        "HEALTHY",
        "all faults ended as they should",
    ):
        assert words in done.stdout
    assert done.stdout.count("haproxy.restarted") >= 3
    assert list(tmp_path.iterdir()) == []
    assert left_behind(tmp_path) == []


def left_behind(folder: Path) -> list[str]:
    """Return the command lines that name something in *folder*."""
    shown = subprocess.run(
        ["ps", "-e", "-o", "args="], capture_output=True, text=True, check=True
    ).stdout
    return [line for line in shown.splitlines() if str(folder) in line]
