"""keepalived's JSON dump: the state of all its instances, asked for by a signal.

keepalived 2.2 writes /tmp/keepalived.json (or in $TMPDIR) under its final name, bit by bit, each
time as a new file, and says nothing when it is done. So the file that was there before the signal
is remembered, and one is read until it is another and whole. It lies in keepalived's own mount
namespace, which may have a /tmp of its own (PrivateTmp= in systemd.exec(5)), and is reached
through its root.

A signal that a process neither handles nor blocks ends it, and this is one of those. It is sent
by pidfd, to what is proven to be keepalived and waits for exactly this signal. Which it is, the
running program itself is asked, and so executed: only when root or ourselves run it, nobody else
may have written it, and it is no container's, whose root is not to become ours.
"""

from __future__ import annotations

import json
import os
import select
import signal
import stat
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sentinel import program
from sentinel.aside import Aside
from sentinel.processes import procfs, trust
from sentinel.vrrp import VrrpState
from sentinel.vrrpstate.keepalived import is_keepalived, shares_pids

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sentinel.model import Proc

#: How long keepalived may take to write its dump: one instance takes it a millisecond.
ANSWER_S: Final = 0.4
SIGNUM_TIMEOUT_S: Final = 0.5
FILE: Final = "keepalived.json"
#: From here on exit statuses say that a program could not be executed (127 in ld.so).
_NOT_EXECUTED: Final = 126
_POLL_MS: Final = 5
_BYTES_MAX: Final = 4 * 1024 * 1024
#: include/vrrp.h in keepalived's source
_STATES: Final = {
    0: VrrpState.INIT,
    1: VrrpState.BACKUP,
    2: VrrpState.MASTER,
    3: VrrpState.FAULT,
    97: VrrpState.STOP,
    98: VrrpState.STOP,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One instance as keepalived has it; *vips* are the addresses it believes to have set."""

    name: str
    state: VrrpState
    priority: int
    vips: frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dump:
    """All instances, or None and in *detail* why they are not known."""

    levels: tuple[Level, ...] | None
    detail: str = ""


class Dumps:
    """Asks keepalived for its dump, again and again."""

    def __init__(self) -> None:
        self._number = 0
        self._number_of: Proc | None = None
        # it lies in a file system that is not ours
        self._collecting = Aside("reading keepalived's dump")

    async def ask(self, parent: Proc) -> Dump:
        """Ask once, within SIGNUM_TIMEOUT_S and ANSWER_S; *parent* is keepalived's main process."""
        if parent != self._number_of:
            try:
                self._number, self._number_of = await _signal_number(parent), parent
            except OSError as error:
                return Dump(levels=None, detail=f"keepalived --signum: {error.strerror}")
        if not self._number:
            return Dump(levels=None, detail="keepalived was built without JSON")
        collect = partial(_collect, parent, self._number)
        try:
            return await self._collecting.run(collect, ANSWER_S * 2)
        except OSError as error:
            return Dump(levels=None, detail=error.strerror or str(error))


async def _signal_number(parent: Proc) -> int:
    """Ask the very program that runs which signal it is; 0 when it knows of none.

    The numbers of realtime signals vary from build to build (keepalived(8), --signum). Raises
    OSError when it may not be asked or does not answer.
    """
    descriptor = os.open(f"/proc/{parent.pid}/exe", os.O_PATH | os.O_CLOEXEC)
    try:
        if not trust.is_ours_alone(os.fstat(descriptor)):
            raise PermissionError(0, "not executed, others may write it")
        if not shares_pids(parent.pid):
            raise PermissionError(0, "not executed, it is a container's")
        _require_keepalived(parent)  # and so it was its program that has been opened
        argv = (f"/proc/{os.getpid()}/fd/{descriptor}", "--signum=JSON")
        done = await program.run(argv, timeout_s=SIGNUM_TIMEOUT_S)
    finally:
        os.close(descriptor)
    if done.returncode is None or not 0 <= done.returncode < _NOT_EXECUTED:
        raise TimeoutError(0, "did not answer")
    answer = done.first_line
    return int(answer) if done.returncode == 0 and answer.isdigit() else 0


def _collect(parent: Proc, number: int) -> Dump:
    """Send the signal and wait for what it brings about; in a thread of its own."""
    try:
        pidfd = os.pidfd_open(parent.pid)
        try:
            _require_waiting(parent, number)
            path = _path(parent.pid)
            before = _mark(path)
            signal.pidfd_send_signal(pidfd, number)
            return _wait(pidfd, path, before)
        finally:
            os.close(pidfd)
    except OSError as error:
        return Dump(levels=None, detail=f"keepalived's dump: {error.strerror}")


def waits_for(pid: int, number: int) -> bool:
    """Tell whether a process blocks or handles a signal, so that it would not be its end.

    keepalived blocks its signals and reads them from a descriptor (signalfd(2)), from a few
    milliseconds after its start on.
    """
    status = Path(f"/proc/{pid}/status").read_bytes()  # a name in it may be no text
    masks = (line.split()[1] for line in status.splitlines() if line.startswith((b"SigB", b"SigC")))
    return any(int(mask, 16) >> (number - 1) & 1 for mask in masks)


def _require_waiting(parent: Proc, number: int) -> None:
    """Raise OSError unless *parent* is keepalived and has made itself ready for this signal."""
    _require_keepalived(parent)
    if not waits_for(parent.pid, number):
        raise OSError(0, "keepalived is not ready yet")


def _require_keepalived(parent: Proc) -> None:
    """Raise OSError unless *parent* is keepalived, run by root or ourselves."""
    seen = procfs.read_stat(parent.pid)
    if seen is None or seen.proc != parent or not is_keepalived(seen):
        raise ProcessLookupError(0, "keepalived has gone")
    if not trust.runs_as_us(parent.pid):
        raise PermissionError(0, "keepalived runs as another user")


def _path(pid: int) -> str:
    """Return where keepalived writes, as we reach it (set_tmp_dir in its lib/utils.c)."""
    environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    found = (os.fsdecode(value[7:]) for value in environ if value.startswith(b"TMPDIR=/"))
    return f"/proc/{pid}/root{next(found, '/tmp')}/{FILE}"  # noqa: S108  (keepalived's, not ours)


def _mark(path: str) -> tuple[int, int] | None:
    """Return what differs from dump to dump; None while there is none."""
    try:
        found = Path(path).lstat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def _wait(pidfd: int, path: str, before: tuple[int, int] | None) -> Dump:
    """Read until there is a new file and it is whole; raises OSError."""
    death = select.poll()
    death.register(pidfd, select.POLLIN)
    deadline_s = time.monotonic() + ANSWER_S
    detail = "keepalived has written no dump"
    while time.monotonic() < deadline_s:
        if death.poll(_POLL_MS):
            return Dump(levels=None, detail="keepalived died")
        if _mark(path) in {None, before}:
            continue
        try:
            return Dump(levels=tuple(parse(_read(path))))
        except ValueError as error:  # it is being written, or not what it used to be
            detail = f"keepalived's dump is not understood: {error}"
    return Dump(levels=None, detail=detail)


def _read(path: str) -> bytes:
    """Read the file if it is root's; raises OSError when it is not."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if found.st_uid != 0 or not stat.S_ISREG(found.st_mode):
            raise PermissionError(0, "is not a file of root's")
        return file.read(_BYTES_MAX)


def parse(raw: bytes) -> Iterator[Level]:
    """Read a dump of either ``json_version``; raises ValueError when it is not one."""
    whole = json.loads(raw)
    instances = whole.get("vrrp") if isinstance(whole, dict) else whole
    if not isinstance(instances, list):
        raise ValueError("no list of instances")  # noqa: TRY004  (of the text, not of a caller)
    for instance in instances:
        try:
            yield _level(instance["data"])
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(f"an instance without {error}") from error


def _level(data: Mapping[str, object]) -> Level:
    state, priority, name = data["state"], data["effective_priority"], data["iname"]
    if not isinstance(state, int) or state not in _STATES or not isinstance(priority, int):
        raise ValueError(f"state {state!r}, priority {priority!r}")
    listed = [data.get("vips", ()), data.get("evips", ())]
    vips = (vip for vips in listed if isinstance(vips, list) for vip in vips)
    return Level(
        name=str(name),
        state=_STATES[state],
        priority=priority,
        vips=frozenset(_vip(vip.split()) for vip in vips if "set" in vip.split()),
    )


def _vip(words: list[str]) -> tuple[str, str]:
    """Read ``192.0.2.1/24 brd 192.0.2.255 dev eth0@base scope global set``."""
    interface = words[words.index("dev") + 1]
    return words[0].partition("/")[0], interface.partition("@")[0]
