"""Which process is ours: pidfiles and the age of what they name."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from haproxies import answering_config, free_port, start_haproxy, wait_until
from namespaces import needs_root
from privileges import NOBODY

from sentinel.config import Haproxy
from sentinel.processes import procfs
from sentinel.processes.identity import Identity, Pidfile, read_pidfile, started_before

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("content", "pids"),
    [
        ("4711\n", (4711,)),
        ("4711\n4712\n", (4711, 4712)),
        ("", ()),
        ("x\n-1\n0\n1.5\n", ()),
        (f"{10**30} 4194305 4194304", (4194304,)),
        ("\0\xff 12", (12,)),
    ],
)
def test_a_pidfile_is_read(tmp_path: Path, content: str, pids: tuple[int, ...]) -> None:
    """One pid a line; what cannot be a pid is passed over."""
    path = tmp_path / "haproxy.pid"
    path.write_text(content, encoding="latin-1")
    os.utime(path, (1, 1_000_000))
    assert read_pidfile(str(path)) == Pidfile(pids=pids, written_s=1_000_000, trusted=True)


def test_no_pidfile(tmp_path: Path) -> None:
    """A missing file and a missing folder are no pidfile."""
    (tmp_path / "file").touch()
    for path in ("none", "none/none", "file/none"):
        assert read_pidfile(str(tmp_path / path)) is None


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """A folder cannot be read; a pipe that nobody writes to holds nobody up."""
    with pytest.raises(IsADirectoryError):
        read_pidfile(str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    pidfile = read_pidfile(str(tmp_path / "pipe"))
    assert pidfile is not None
    assert pidfile.pids == ()


@needs_root
def test_a_pidfile_of_somebody_elses_names_only_root_and_us(tmp_path: Path) -> None:
    """Root's also names a HAProxy that has become another user."""
    path = tmp_path / "haproxy.pid"
    with subprocess.Popen(("sleep", "60"), user=NOBODY) as stranger:
        try:
            path.write_text(f"{os.getpid()}\n{stranger.pid}\n")
            assert named(path, os.getpid(), stranger.pid) == [True, True]
            os.chown(path, NOBODY, 0)
            assert named(path, os.getpid(), stranger.pid) == [True, False]
            os.chown(path, 0, 0)
            path.chmod(0o666)
            assert named(path, os.getpid(), stranger.pid) == [True, False]
            assert named(path, os.getppid()) == [False], "it is not in it"
        finally:
            stranger.kill()


def named(path: Path, *pids: int) -> list[bool]:
    """Ask a pidfile for each of these living processes."""
    pidfile = read_pidfile(str(path))
    assert pidfile is not None
    stats = [procfs.read_stat(pid) for pid in pids]
    return [pidfile.names(stat) for stat in stats if stat is not None]


def test_a_process_younger_than_its_pidfile_did_not_write_it() -> None:
    """A pidfile of this moment may be ours, one of a day ago names somebody who had our pid."""
    stat = procfs.read_stat(os.getpid())
    assert stat is not None
    assert started_before(stat, time.time())
    assert not started_before(stat, time.time() - 86400 * 365)


@pytest.mark.real
@pytest.mark.parametrize(("flags", "ours"), [(("-c",), False), (("-c", "-q"), False), ((), True)])
def test_a_configuration_check_is_no_haproxy_of_ours(
    tmp_path: Path,
    flags: tuple[str, ...],
    ours: bool,  # noqa: FBT001  (a parameter of pytest's)
) -> None:
    """``haproxy -c`` of our own files, held up while it reads them, is never taken for a server."""
    config = tmp_path / "haproxy.cfg"
    config.write_text(answering_config(free_port()))
    os.mkfifo(tmp_path / "more.cfg")  # whoever reads it waits for somebody who writes
    haproxy = start_haproxy(config, flags=(*flags, "-f", str(tmp_path / "more.cfg")))
    try:
        identity = Identity(Haproxy(config=(str(config),)))
        wait_until(lambda: str(config) in procfs.argv(haproxy.process.pid), "haproxy executes")
        stat = procfs.read_stat(haproxy.process.pid)
        assert stat is not None
        assert identity.is_haproxy(stat)
        assert identity.is_ours(stat) is ours
    finally:
        haproxy.kill()
