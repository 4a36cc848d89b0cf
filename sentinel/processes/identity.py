"""Which process is our HAProxy, among editors, greps, containers and other HAProxys.

Proof is asked for in kind: the program by name and executable, the configuration by ``-f``, the
machine by namespaces. What may not be read proves nothing either way: without ptrace rights a
process is judged by its name and arguments alone.

All of that anybody may pretend to. So a process that nobody but itself names has to be run by root
or by ourselves: HAProxy may have become its ``user``, but then the service manager or a pidfile of
root's names it. Of a stranger no more is read than tells whom he pretends to be, and no path of his
is followed: he might have made it long, and what it leads to slow.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sentinel.processes import arguments, procfs, trust

if TYPE_CHECKING:
    from sentinel.config import Haproxy
    from sentinel.processes.arguments import Arguments
    from sentinel.processes.procfs import Stat

#: A container shares neither, unless it was told to. Mount namespaces say nothing: systemd gives
#: one to HAProxy's unit and another to ours. The configuration file's inode is compared instead.
_NAMESPACES: Final = ("ns/pid", "ns/net")
_CLOCK_SLACK_S: Final = 2.0
_PIDFILE_BYTES_MAX: Final = 4096


class Identity:
    """Recognises the processes of one HAProxy by its executable and configuration files."""

    def __init__(self, settings: Haproxy) -> None:
        executable = Path(settings.executable)
        programs = {executable.name, Path(os.path.realpath(executable)).name}
        self._programs = frozenset(programs)
        self.names = frozenset(name[: procfs.NAME_CHARS_MAX] for name in programs)
        self._config = settings.config
        self._namespaces = {name: procfs.link(os.getpid(), name) for name in _NAMESPACES}

    def is_haproxy(self, stat: Stat) -> bool:
        """Tell whether this is a living process of the program, whatever its configuration."""
        if not stat.alive or stat.name not in self.names:
            return False
        program = procfs.program(stat.proc.pid)
        return program is None or Path(program).name in self._programs

    def is_ours(self, stat: Stat) -> bool:
        """Tell whether this is a living process of our HAProxy, on this machine.

        ``haproxy -c``, which reads our configuration and serves nobody, is none.
        """
        pid = stat.proc.pid
        return self.is_haproxy(stat) and self._in_our_namespaces(pid) and self._runs_our_config(pid)

    def is_claimed(self, stat: Stat) -> bool:
        """Tell whether a stranger's process, in our namespaces, names our configuration as its own.

        By its first arguments (``arguments.beginning``), and by their words alone.
        """
        pid = stat.proc.pid
        if not self.is_haproxy(stat) or not self._in_our_namespaces(pid):
            return False
        given = arguments.parse(arguments.beginning(pid))
        paths = given.paths(procfs.link(pid, "cwd") or "/")
        return not given.checks_only and (
            self._ends_as_ours(pid, given)
            or any(_means(path, ours) for ours in self._config for path in paths)
        )

    def _in_our_namespaces(self, pid: int) -> bool:
        theirs = {name: procfs.link(pid, name) for name in _NAMESPACES}
        return all(theirs[name] in {None, ours} for name, ours in self._namespaces.items())

    def _runs_our_config(self, pid: int) -> bool:
        """Compare the ``-f`` arguments with our configuration files and directories."""
        given = arguments.parse(procfs.argv(pid))
        if given.checks_only:
            return False
        paths = given.paths(procfs.link(pid, "cwd") or "/")
        return self._ends_as_ours(pid, given) or any(
            _means(os.path.realpath(path), os.path.realpath(ours)) and _is_same_file(pid, ours)
            for ours in self._config
            for path in paths
        )

    def _ends_as_ours(self, pid: int, given: Arguments) -> bool:
        """Compare relative names, where it cannot be seen what they were relative to (chroot)."""
        if procfs.link(pid, "cwd") is not None and procfs.link(pid, "root") in {"/", None}:
            return False
        tails = tuple(f"/{file.removeprefix('./')}" for file in given.files if file[:1] != "/")
        return bool(tails) and any(path.endswith(tails) for path in self._config)


def _means(path: str, ours: str) -> bool:
    """Tell whether both are one file or directory, or one is a file in the other."""
    one, other = Path(path), Path(ours)
    return one in {other, other.parent} or one.parent == other


def _is_same_file(pid: int, path: str) -> bool:
    """Tell whether *path* means our file to *pid* as well; in a container it is another inode."""
    try:
        return os.path.samestat(Path(f"/proc/{pid}/root{path}").stat(), Path(path).stat())
    except OSError:
        return True  # one of the two cannot be seen: nothing is proven


@dataclass(frozen=True, slots=True, kw_only=True)
class Pidfile:
    """What a pidfile says. HAProxy never removes it, so its pids may be anyone's by now.

    It is *trusted* when nobody but root or ourselves can have written it.
    """

    pids: tuple[int, ...]
    written_s: float  # seconds of the epoch
    trusted: bool

    def names(self, stat: Stat) -> bool:
        """Tell whether it speaks of this process: an older one, and no stranger's own claim."""
        pid = stat.proc.pid
        known = pid in self.pids and started_before(stat, self.written_s)
        return known and (self.trusted or trust.runs_as_us(pid))


def read_pidfile(path: str) -> Pidfile | None:
    """Read a pidfile, one pid a line; None when there is none. Raises OSError when unreadable."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        words = os.read(descriptor, _PIDFILE_BYTES_MAX).split()
        found = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    pids = (int(word) for word in words if word.isdigit())
    return Pidfile(
        pids=tuple(pid for pid in pids if 0 < pid <= procfs.PID_MAX),
        written_s=found.st_mtime,
        trusted=trust.is_ours_alone(found),
    )


def started_before(stat: Stat, wall_s: float) -> bool:
    """Tell whether a process is older than a file written at *wall_s*, in seconds of the epoch."""
    boot_s = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return boot_s + stat.proc.start_ticks / procfs.TICKS_PER_S <= wall_s + _CLOCK_SLACK_S
