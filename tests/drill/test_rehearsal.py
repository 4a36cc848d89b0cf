"""What the first process of the worlds makes sure of before it begins."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from nodes import needs_root

MOUNTS = """
cd "$0" && mkdir bound deep deep/below cover && mkdir cover/below
mount --bind cover bound && mount -o remount,bind,nosuid,nodev bound
mount --bind cover deep/below
mount --bind cover deep
exec "$@"
"""
SEAL = """
from pathlib import Path
from sentinel.drill.rehearsal import seal
seal()
print(Path("/proc/self/mountinfo").read_text())
"""


@needs_root
@pytest.mark.parametrize("user", [(), ("--user", "--map-root-user")])
def test_the_machines_files_are_sealed(tmp_path: Path, user: tuple[str, ...]) -> None:
    """With what a mount forbade before; one that another covers is nobody's to write to."""
    seal = ("unshare", *user, "-m", sys.executable, "-c", SEAL)
    done = subprocess.run(
        ["unshare", "-m", "sh", "-ec", MOUNTS, str(tmp_path), *seal],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    mounts = [line.split()[4:6] for line in done.stdout.splitlines() if line]
    options = {point: set(words.split(",")) for point, words in mounts}
    assert options[f"{tmp_path}/bound"] >= {"ro", "nosuid", "nodev"}
    assert "ro" in options[f"{tmp_path}/deep"]
    assert "ro" not in options[f"{tmp_path}/deep/below"]
