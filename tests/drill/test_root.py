"""The root of a node: which paths are its own, and what lies over the machine's files."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from nodes import needs_root

from sentinel.drill import root
from sentinel.drill.plan import Files, Plan, make_plan

CONTRIB = Path(__file__).parents[2] / "contrib"
NAMESPACES = ("-m", "-n", "-p", "--fork", "--kill-child", "--mount-proc")


@pytest.fixture
def plan() -> Plan:
    """Return the plan of the shipped pair."""
    pair = CONTRIB / "keepalived" / "fast"
    return make_plan(
        Files(
            haproxy=CONTRIB / "haproxy" / "haproxy.cfg",
            master=pair / "master.conf",
            backup=pair / "backup.conf",
            sentinel=None,
            hook=None,
        )
    )


@pytest.fixture
def site_path() -> Iterator[Path]:
    """Give a folder without the company of all other tests': each of them would be bound."""
    with TemporaryDirectory() as folder:
        yield Path(folder)


def test_own_are_all_that_is_named_and_what_leads_there(plan: Plan, tmp_path: Path) -> None:
    """A folder before what is in it, and nothing of what every node has afresh.

    A vrrp_script may be a program of PATH, or not be there.
    """
    script = tmp_path / "check.sh"
    script.touch(0o755)
    own = root.own(replace(plan, scripts=(str(script), "true", "/nonexistent/check.sh")))
    assert {"/etc/sentinel", "/usr", "/usr/libexec", "/var/lib/haproxy", "/tmp"} <= set(own)
    assert own.index(str(tmp_path.parent)) < own.index(str(tmp_path)) < own.index(str(script))
    assert str(Path("/bin/true").resolve()) in own
    assert not [path for path in own if path.startswith("/nonexistent")]
    assert "/" not in own
    assert not [path for path in own if path.startswith("/run")]


def test_own_are_the_places_themselves(plan: Plan, tmp_path: Path) -> None:
    """Not the symlinks that lead there, which a node keeps as they are."""
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    own = root.own(replace(plan, folders=(f"{tmp_path}/link/deep",), scripts=()))
    assert f"{tmp_path}/folder/deep" in own
    assert not [path for path in own if "link" in path]


@needs_root
@pytest.mark.parametrize("user", [(), ("--user", "--map-root-user")])
def test_layers_lie_over_folders_with_mounts_in_them(
    plan: Plan, site_path: Path, user: tuple[str, ...]
) -> None:
    """What is mounted stays to be seen, what is written stays inside, a script is the node's."""
    for name in ("site/within", "site/own", "site/mounted"):
        (site_path / name).mkdir(parents=True)
    script = site_path / "site" / "check.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    own = root.own(replace(plan, folders=(f"{site_path}/site/own",), scripts=(str(script),)))
    look = (
        f"cd {site_path}/site && cat mounted/file && echo new >own/new && echo new >within/new"
        " && stat -c '%U %a %n' / check.sh own && ls -d /old /run/* 2>/dev/null; exit 0"
    )
    setup = root.SETUP.replace("sleep infinity &\nwait", look)
    mounts = f"mount -t tmpfs x {site_path}/site/mounted; echo seen >{site_path}/site/mounted/file"
    command = ("unshare", *user, *NAMESPACES, "sh", "-ec", setup, "sh", *own)
    done = subprocess.run(
        ["unshare", "-m", "sh", "-ec", f'{mounts}; exec "$@"', "sh", *command],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout.split("\n")[:5] == [
        "ready",
        "seen",
        "root 755 /",
        "root 755 check.sh",
        "root 755 own",
    ], done.stderr
    assert not list(site_path.glob("site/*/new"))
