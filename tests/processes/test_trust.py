"""Whom to believe: real processes of several users, and files that others may write."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from namespaces import needs_root
from privileges import NOBODY, as_nobody

from sentinel.processes import trust

#: Becomes another user in part, and not to be dumped; says so, and waits for the end of its input.
CHANGE = """\
import ctypes, os, sys
os.setresuid({}, {}, {})
ctypes.CDLL(None).prctl(4, 0)  # PR_SET_DUMPABLE
print(flush=True)
sys.stdin.read()
"""


def test_we_are_believed() -> None:
    """Whoever we are."""
    assert trust.runs_as_us(os.getpid())


def test_the_dead_are_not_believed() -> None:
    """A zombie still has its user ids, and a pid of nobody has none."""
    process = subprocess.Popen(["true"])
    process.wait()
    assert not trust.runs_as_us(process.pid)


@needs_root
@pytest.mark.parametrize("ids", [(NOBODY,) * 3, (NOBODY, 0, 0), (0, NOBODY, 0), (0, 0, NOBODY)])
def test_one_other_id_is_enough_for_a_stranger(ids: tuple[int, int, int]) -> None:
    """Also of a process whose files in /proc are root's, because it may not be dumped."""
    argv = (sys.executable, "-c", CHANGE.format(*ids))
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert Path(f"/proc/{process.pid}/status").stat().st_uid == 0
        assert not trust.runs_as_us(process.pid)


@needs_root
def test_root_is_believed_by_everybody() -> None:
    """And so are our own processes."""
    with as_nobody():
        assert trust.runs_as_us(1)


@pytest.mark.parametrize(("mode", "ours"), [(0o755, True), (0o600, True), (0o757, False)])
def test_what_everybody_may_write_is_not_ours(
    tmp_path: Path,
    mode: int,
    ours: bool,  # noqa: FBT001  (a parameter of pytest's)
) -> None:
    """Whoever owns it."""
    file = tmp_path / "file"
    file.touch()
    file.chmod(mode)
    assert trust.is_ours_alone(file.stat()) is ours
    assert trust.leads_to_ours_alone(str(file)) is ours


@needs_root
@pytest.mark.parametrize(
    ("uid", "gid", "ours"), [(0, 0, True), (0, NOBODY, False), (NOBODY, 0, False)]
)
def test_a_group_may_write_too(
    tmp_path: Path,
    uid: int,
    gid: int,
    ours: bool,  # noqa: FBT001  (a parameter of pytest's)
) -> None:
    """Root's own may."""
    os.chown(tmp_path, uid, gid)
    tmp_path.chmod(0o775)
    assert trust.is_ours_alone(tmp_path.stat()) is ours


@needs_root
def test_whoever_owns_a_folder_on_the_way_decides(tmp_path: Path) -> None:
    """He may put another file in the place of root's."""
    file = tmp_path / "file"
    file.touch()
    assert trust.leads_to_ours_alone(str(file))
    os.chown(tmp_path, NOBODY, 0)
    assert trust.is_ours_alone(file.stat())
    assert not trust.leads_to_ours_alone(str(file))


def test_a_folder_for_everybody_keeps_ours_when_it_is_sticky(tmp_path: Path) -> None:
    """As /tmp does; and it is no place to work in."""
    file = tmp_path / "file"
    file.touch()
    tmp_path.chmod(0o1777)
    assert trust.leads_to_ours_alone(str(file))
    assert not trust.leads_to_ours_alone(str(tmp_path))
    tmp_path.chmod(0o777)
    assert not trust.leads_to_ours_alone(str(file))


def test_a_link_may_lead_elsewhere_tomorrow(tmp_path: Path) -> None:
    """And what is not there may be made by anybody."""
    (tmp_path / "link").symlink_to("/etc/hostname")
    assert not trust.leads_to_ours_alone(str(tmp_path / "link"))
    assert not trust.leads_to_ours_alone(str(tmp_path / "none"))


#: Becomes an ordinary user in a user namespace where only that has an id, root's; then asks.
IN_A_USER_NAMESPACE = """\
import ctypes, os
from sentinel.processes import trust
ready, tell = os.pipe()
mapper = os.fork()
if mapper == 0:
    os.close(tell)
    os.read(ready, 1)
    with open(f"/proc/{os.getppid()}/uid_map", "w") as ids:
        ids.write("0 12345 1")
    os._exit(0)
assert ctypes.CDLL(None).unshare(0x10000000) == 0  # CLONE_NEWUSER
os.close(tell)
os.waitpid(mapper, 0)
os.setresuid(0, 0, 0)
print(*(trust.leads_to_ours_alone(path) for path in ("/usr/bin", "/tmp")))
print(trust.runs_as_us(os.getpid()), trust.runs_as_us(1))
"""


@needs_root
def test_the_machines_files_are_trusted_in_a_user_namespace() -> None:
    """There root has no id, and its files look like nobody's; its processes remain strangers."""
    argv = (sys.executable, "-c", IN_A_USER_NAMESPACE)
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("True False\nTrue False\n", "")
