"""Supplementary groups in a user namespace."""

from __future__ import annotations

import subprocess
import sys

from nodes import needs_root

SCRIPT = """
import os, subprocess, sys
from sentinel.drill import groups
assert groups.are_denied()
try:
    os.setgroups([0])
except PermissionError:
    groups.pretend()
os.setgroups([0])
subprocess.run([sys.executable, "-c", "import os; os.setgroups([0]); os.getgroups()"], check=True)
print("pretended")
"""
DENIED = (
    *("unshare", "--user", "--map-root-user"),
    *(sys.executable, "-c", SCRIPT),
)


@needs_root
def test_where_they_are_denied_changing_them_is_pretended() -> None:
    """By this process and those that it starts; nothing else changes."""
    done = subprocess.run(DENIED, capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == "pretended\n", done.stderr
