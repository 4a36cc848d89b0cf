"""The workers of one HAProxy main process, and which of them is current.

The current worker is the newest that listens. A reload adds a worker and leaves the old one to
finish its connections without listeners; the worker of a failed reload never listens. Descriptors
are read for this only when the workers have changed, and not many of them.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from sentinel.processes import arguments, listing, procfs
from sentinel.processes.watch import adopt, living

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentinel.processes.identity import Identity
    from sentinel.processes.procfs import Stat
    from sentinel.processes.watch import Seen, Watch

#: How soon a newest worker that does not listen is looked at again: it may still be starting.
PROOF_S: Final = 1.0
#: How often children are searched for where the kernel does not list them (CONFIG_PROC_CHILDREN).
SEARCH_S: Final = 2.0
#: Workers watched; HAProxy itself keeps at most 50 old ones by default (mworker-max-reloads).
WORKERS_MAX: Final = 128
#: Listeners are opened first and have low numbers; connections follow in tens of thousands.
DESCRIPTORS_MAX: Final = 2048
_LIST_BYTES_MAX: Final = 64 * 1024


class Workers:
    """Follows the children of one main process that are workers of HAProxy, until ``close``.

    A main process without ``-W`` is taken for a master once it has a child that listens where it
    does not itself: ``master-worker`` may stand in the configuration as well.
    """

    def __init__(self, main: Watch, identity: Identity, on_death: Callable[[], None]) -> None:
        self._pid = main.proc.pid
        self.is_master = False
        self._arguments_read = False
        self.current: Watch | None = None
        self.lost = ""  # how the last current worker was lost, while there is no other
        self.lost_s = 0.0  # and when, of time.monotonic()
        self._identity = identity
        self._on_death = on_death
        self._members: list[Watch] = []
        self._children = _Children(self._pid)
        self._retired_below = -1  # serials of workers older than the last current one
        self._unsettled = False  # the members have changed since one was chosen
        self._proof_due_s: float | None = None

    @property
    def serve(self) -> bool:
        """Somebody is there to answer requests."""
        return self.current is not None or not self.is_master

    def look(self) -> list[Seen]:
        """Bring everything up to date; return the living workers and their states, oldest first."""
        if not self._arguments_read:
            self._read_arguments()
        seen, died = self.bury()
        newcomers = self._take_newcomers(at_once=died)
        if self._unsettled or self._proof_is_due():
            self._choose()
        return seen + [(watch, watch.stat.state) for watch in newcomers]

    def close(self) -> None:
        """Stop watching; give all descriptors back."""
        self._children.close()
        for watch in self._members:
            watch.close()
        self._members.clear()
        self.current = None

    def _read_arguments(self) -> None:
        """Ask for the process model; a process has no arguments yet at the moment it executes."""
        argv = procfs.argv(self._pid)
        self.is_master = self.is_master or arguments.parse(argv).master_worker
        self._arguments_read = bool(argv)

    def bury(self) -> tuple[list[Seen], bool]:
        """Let the dead go; return those that live, and whether some did not."""
        seen = living(self._members)
        alive = {watch for watch, _ in seen}
        for watch in self._members:
            if watch not in alive:
                watch.close()
        died = len(seen) < len(self._members)
        self._members = [watch for watch, _ in seen]
        self._unsettled = self._unsettled or died
        if self.current is not None and self.current not in alive:
            self.lost = f"worker {self.current.proc.pid} died"
            self.lost_s = time.monotonic()
            self.current = None
        return seen, died

    def _take_newcomers(self, *, at_once: bool) -> list[Watch]:
        """Watch the workers that have come since the last look."""
        known = {watch.proc.pid for watch in self._members}
        newcomers: list[Watch] = []
        try:
            for pid in self._children.changed(at_once=at_once):
                if pid in known:
                    continue
                if watch := adopt(pid, self._on_death, self._is_worker):
                    newcomers.append(watch)
        except OSError:
            self._children.forget()  # so that they are asked for again
            raise
        finally:
            self._members += newcomers
            self._unsettled = self._unsettled or bool(newcomers)
        self.is_master = self.is_master or bool(newcomers)
        return newcomers

    def _is_worker(self, stat: Stat) -> bool:
        """Tell workers from other children: programs, health checks by external commands."""
        return self._identity.is_haproxy(stat) and (self.is_master or self._listens(stat.proc.pid))

    def _listens(self, child: int) -> bool:
        """Tell whether *child* listens on a socket that the main process does not have."""
        with suppress(PermissionError):
            listening = {socket.inode for socket in procfs.listening_sockets(child)}
            inherited = set(procfs.socket_inodes(self._pid, DESCRIPTORS_MAX))
            return any(
                inode in listening and inode not in inherited
                for inode in procfs.socket_inodes(child, DESCRIPTORS_MAX)
            )
        return False

    def _choose(self) -> None:
        """Find the current worker among the members."""
        serving = [watch for watch in self._members if watch.serial >= self._retired_below]
        proof_due_s: float | None = None
        if len(self._members) > len(serving) or len(serving) > 1:
            try:
                current = self._newest_listening() or self.current
            except PermissionError:  # without proof, the newest is the likeliest
                current = self._members[-1]
            if current is not self._members[-1]:
                proof_due_s = time.monotonic() + PROOF_S
            serving = [current] if current else serving
        self.current = serving[-1] if serving else None
        if self.current is not None:
            self._retired_below, self.lost = self.current.serial, ""
        self._proof_due_s, self._unsettled = proof_due_s, False

    def _newest_listening(self) -> Watch | None:
        listening = {socket.inode for socket in procfs.listening_sockets(self._pid)}
        for watch in reversed(self._members):
            inodes = procfs.socket_inodes(watch.proc.pid, DESCRIPTORS_MAX)
            if not listening.isdisjoint(inodes):
                return watch
        return None

    def _proof_is_due(self) -> bool:
        return self._proof_due_s is not None and time.monotonic() >= self._proof_due_s


class _Children:
    """The list of one process's children, told when it has changed."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._told: bytes | None = None
        self._searched_s = -SEARCH_S
        self._descriptor = -1
        # Masters have one thread, so all its children are listed with it.
        with suppress(FileNotFoundError):
            path = f"/proc/{pid}/task/{pid}/children"
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def changed(self, *, at_once: bool) -> tuple[int, ...]:
        """Return the children, oldest first, if they are others than before; else none.

        *at_once* asks for them even where that takes a search that is not due.
        """
        if self._descriptor < 0:
            return self._search(at_once=at_once)
        listed = os.pread(self._descriptor, _LIST_BYTES_MAX, 0)
        if listed == self._told:
            return ()
        self._told = listed
        return tuple(map(int, listed.split()))[-WORKERS_MAX:]

    def forget(self) -> None:
        """Tell all of them again at the next look."""
        self._told, self._searched_s = None, -SEARCH_S

    def _search(self, *, at_once: bool) -> tuple[int, ...]:
        now_s = time.monotonic()
        if not at_once and now_s - self._searched_s < SEARCH_S:
            return ()
        self._searched_s = now_s
        return listing.children(self._pid)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
