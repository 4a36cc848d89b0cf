"""Names tell the living from the dead, and a killed run is tidied up by the next."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from haproxies import wait_until
from lab.traces import left_by, new_name, sweep

_CHILD: Final = """
import sys
from pathlib import Path
from lab.node import Node
node = Node(Path(sys.argv[1]))
node.power_on()
print(node.name, flush=True)
sys.stdin.read()
"""


def test_names_differ() -> None:
    """Two names of one process are two."""
    assert new_name() != new_name()


@pytest.mark.lab
def test_killed_run_is_swept(lab_image: Path) -> None:
    """SIGKILL of the owner ends its node at once; the sweep removes the rest, and only that."""
    tests = Path(__file__).parents[1]
    child = subprocess.Popen(
        (sys.executable, "-c", _CHILD, str(lab_image)),
        env=os.environ | {"PYTHONPATH": str(tests)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout is not None
        name = child.stdout.readline().strip()
        sweep()
        running = left_by(name)
        child.send_signal(signal.SIGKILL)

    assert running != []
    wait_until(lambda: "populated 0" in _events(name), "the node died with its owner")
    sweep()
    assert left_by(name) == []


def _events(name: str) -> str:
    (cgroup,) = (Path(place) for place in left_by(name) if (Path(place) / "cgroup.events").exists())
    return (cgroup / "cgroup.events").read_text()
