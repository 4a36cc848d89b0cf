"""Fixtures of the lab. Where it cannot run, its tests are skipped with the reason in plain words.

SENTINEL_REQUIRE_LAB=1 turns that skip into a failure, so that no machine that is meant to run
these tests passes without them.
"""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

import pytest
from lab.image import held_image, lab_folder, project_recipe
from lab.node import Node
from lab.traces import hierarchies, sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PROGRAMS: Final = (
    "debootstrap",
    "systemd-nspawn",
    "ip",
    "nsenter",
    "unshare",
    "setpriv",
    "mount",
    "umount",
    "chroot",
    "apt-get",
)


class MakeNode(Protocol):
    """Makes a node that is switched on, and is removed at the end of the test."""

    def __call__(self, hostname: str = ...) -> Node:
        """Boot a node named *hostname*."""
        ...


def why_no_lab() -> str | None:
    """Return why this machine cannot run the lab, None when it can."""
    if os.geteuid() != 0:
        return "the lab boots whole systems and needs root"
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        return f"not installed: {', '.join(missing)}"
    if not hierarchies():
        return "no cgroup v2 hierarchy is mounted"
    return None


@pytest.fixture(scope="session")
def lab() -> Path:
    """Folder of the lab, which can run here and has been tidied up after killed runs."""
    if reason := why_no_lab():
        if os.environ.get("SENTINEL_REQUIRE_LAB") == "1":
            pytest.fail(f"SENTINEL_REQUIRE_LAB=1, but {reason}")
        pytest.skip(reason)
    sweep()
    return lab_folder()


@pytest.fixture(scope="session")
def lab_image(lab: Path) -> Iterator[Path]:
    """Root of the image, made on first use: a minute and a half, then kept."""
    with held_image(lab, project_recipe()) as root:
        yield root


@pytest.fixture(scope="session")
def image(lab: Path) -> Iterator[Callable[[str], Path]]:
    """Hold the image of a Debian release, made if need be, from when it is asked for."""
    held: dict[str, Path] = {}
    with ExitStack() as stack:

        def hold(suite: str) -> Path:
            if suite not in held:
                recipe = replace(project_recipe(), suite=suite)
                held[suite] = stack.enter_context(held_image(lab, recipe))
            return held[suite]

        yield hold


@pytest.fixture
def make_node(lab_image: Path) -> Iterator[MakeNode]:
    """Boot as many nodes as a test needs; their journals are shown when it fails."""
    with ExitStack() as nodes:

        def make(hostname: str = "lb1") -> Node:
            node = nodes.enter_context(Node(lab_image, hostname))
            node.power_on()
            nodes.callback(_show_journal, node)
            return node

        yield make


@pytest.fixture
def node(make_node: MakeNode) -> Node:
    """One node, switched on, in which nothing runs but systemd, dbus and rsyslog."""
    return make_node()


def _show_journal(node: Node) -> None:
    """Print the journal: pytest keeps what a teardown prints to itself unless the test failed."""
    if node.is_on:
        sys.stdout.write(f"--- journal of {node.hostname}\n{node.journal()}")
