"""Watch one process: its death wakes us at once, its state is read for a few microseconds.

The pidfd and the kept descriptor of /proc/PID/stat both mean the process and not its pid, so no
reuse of a pid can fool them. The pidfd is opened first; that the process lives after its stat was
read proves that both are of the same one.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
from contextlib import ExitStack
from itertools import count
from typing import TYPE_CHECKING, Final

from sentinel.processes import procfs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sentinel.processes.procfs import Stat

_DEAD: Final = "XZ"
_STAT_BYTES_MAX: Final = 1024
_serials = count()


class Watch:
    """One process under watch on the running loop, until ``close``.

    *stat* is what it was when the watch began; *serial* grows from watch to watch.
    """

    def __init__(self, pid: int, on_death: Callable[[], None], *, renames: bool = False) -> None:
        """Watch *pid*; *on_death* is called once.

        A process has another name once it executes another program. One that *renames* itself
        does not tell by that.

        Raises ProcessLookupError when it is gone, another OSError when it may not be watched.
        """
        self.serial = next(_serials)
        self._on_death = on_death
        with ExitStack() as opened:
            self._pidfd = os.pidfd_open(pid)
            opened.callback(os.close, self._pidfd)
            try:
                self._stat_fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                self._require_alive()
                raise PermissionError(errno.EACCES, f"/proc hides process {pid}") from None
            opened.callback(os.close, self._stat_fd)
            self.stat = procfs.parse_stat(os.pread(self._stat_fd, _STAT_BYTES_MAX, 0))
            self._require_alive()
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._pidfd, self._fire)
            opened.callback(self._unwatch)
            self._opened = opened.pop_all()
        self.proc = self.stat.proc
        self._before_state = b") " if renames else os.fsencode(f"({self.stat.name}) ")

    def state(self) -> str:
        """Return R, S, D, T, t or Z; X when it is gone or has become another program."""
        try:
            raw = os.pread(self._stat_fd, _STAT_BYTES_MAX, 0)
        except ProcessLookupError:
            return "X"
        at = raw.rfind(self._before_state)
        return "X" if at < 0 else chr(raw[at + len(self._before_state)])

    def close(self) -> None:
        """Stop watching; may be called again."""
        self._opened.close()

    def _fire(self) -> None:
        self._unwatch()  # a pidfd stays readable for ever, and so would call us for ever
        self._on_death()

    def _unwatch(self) -> None:
        if not self._loop.is_closed():
            self._loop.remove_reader(self._pidfd)

    def _require_alive(self) -> None:
        """Raise ProcessLookupError unless the process of the pidfd lives; a zombie does not."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if poll.poll(0):
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))


#: A watched process and its state at this look.
Seen = tuple[Watch, str]


def adopt(
    pid: int,
    on_death: Callable[[], None],
    accept: Callable[[Stat], bool],
    *,
    renames: bool = False,
) -> Watch | None:
    """Watch *pid* first and ask who it is then, so that it cannot be another by now.

    None when it is gone or *accept* refuses it; raises OSError when it may not be watched.
    """
    try:
        watch = Watch(pid, on_death, renames=renames)
    except ProcessLookupError:
        return None
    with ExitStack() as refused:
        refused.callback(watch.close)
        if not accept(watch.stat):
            return None
        refused.pop_all()
        return watch


def living(watches: Iterable[Watch]) -> list[Seen]:
    """Return those that are neither gone nor zombies, and their states."""
    seen = [(watch, watch.state()) for watch in watches]
    return [(watch, state) for watch, state in seen if state not in _DEAD]
