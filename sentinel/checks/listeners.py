"""Who accepts from the addresses HAProxy listens on: the current worker must be the only one.

SO_REUSEPORT lets a second HAProxy, or an old worker too hung to give up, listen on the same
address, and the kernel then shares the connections out among them: some requests work and some
vanish. Its scope is its own: it must not pass for an answer of a frontend, nor for a process.

A Unix socket is foreign only where its name is proven to mean the same file to both: a container
has files of its own, and anybody may make some (user_namespaces(7)). Its connections are shared out
to nobody, since its file leads to one socket, the last that was bound. So whoever holds no more
than that is told of, may be another service, and never is an orphan.

What a busy worker holds is read only when the listening sockets have changed, in a thread, and
everybody else's descriptors only when a foreign listener is there.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sentinel.config import Pace
from sentinel.model import Code, Listener, ListenersView, Observation, Proc, Scope, Verdict
from sentinel.processes import arguments, listing, procfs
from sentinel.processes.identity import Identity

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from sentinel.aside import Aside
    from sentinel.config import Haproxy
    from sentinel.model import Instance
    from sentinel.processes.sockdiag import ListeningSocket

PACE: Final = Pace(inter_s=5.0, fastinter_s=1.0, downinter_s=1.0, timeout_s=2.0)
#: Descriptors can be handed on without a change of the sockets, so what was learned grows old.
LEARNED_S: Final = 60.0
LEARNED_OF_FOREIGN_S: Final = 5.0
#: HAProxy binds a Unix socket under a temporary name and renames it; the kernel keeps the first.
_TEMPORARY_NAME: Final = re.compile(r"\.\d+\.tmp$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """The listening sockets that are *own*, and the *foreign* ones on the same addresses."""

    own: tuple[ListeningSocket, ...]
    foreign: tuple[ListeningSocket, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Learned:
    """Who held what when it was read, and of which worker and sockets that is true.

    *elsewhere* are the Unix sockets of others that only have the name of one of *own*.
    """

    worker: Proc
    inodes: frozenset[int]
    own: frozenset[int]
    elsewhere: frozenset[int]
    holders: Mapping[int, Proc]
    leftovers: frozenset[Proc]
    until_s: float


class ListenersCheck:
    """Finds out who holds the listening sockets on the addresses of the current worker."""

    name: Final = "listeners"
    scope: Final = Scope.LISTENER

    def __init__(
        self, settings: Haproxy, pace: Pace, instance: Callable[[], Instance | None], aside: Aside
    ) -> None:
        """Look at the worker of what *instance* gives at each run, *aside*."""
        self.pace = pace
        self._identity = Identity(settings)
        self._instance = instance
        self._aside = aside
        self._learned: _Learned | None = None

    async def __call__(self) -> Observation:
        """Look once, in a thread: a worker may hold tens of thousands of descriptors."""
        begun_s = time.perf_counter()
        view: ListenersView | None = None
        try:
            verdict, detail, view = await self._look(self._instance())
        except TimeoutError as error:
            verdict, detail = Verdict.UNKNOWN, f"not seen within {self.pace.timeout_s:g} s: {error}"
        except OSError as error:
            verdict, detail = Verdict.UNKNOWN, f"cannot look: {error}"
        return Observation(
            check=self.name,
            scope=self.scope,
            verdict=verdict,
            code=_CODES[verdict],
            detail=detail,
            duration_ms=(time.perf_counter() - begun_s) * 1000,
            view=view,
        )

    async def _look(self, instance: Instance | None) -> tuple[Verdict, str, ListenersView | None]:
        worker = instance.worker if instance else None
        if instance is None or worker is None:
            return Verdict.UNKNOWN, "no worker to look at", None
        see = partial(self._see, instance, worker, self._learned)
        learned, view = await self._aside.run(see, self.pace.timeout_s)
        self._learned = learned
        if not _is(worker):
            return Verdict.UNKNOWN, f"worker {worker.pid} is gone", None
        if not view.listeners:
            return Verdict.FAIL, f"worker {worker.pid} listens on nothing", view
        if view.foreign:
            return Verdict.FAIL, ", ".join(sorted(_complaints(view, instance))), view
        return Verdict.PASS, f"{len(view.listeners)} of worker {worker.pid}", view

    def _see(
        self, instance: Instance, worker: Proc, learned: _Learned | None
    ) -> tuple[_Learned, ListenersView]:
        """Read the sockets, and who holds them where that may have changed."""
        sockets = procfs.listening_sockets(worker.pid)
        inodes = frozenset(socket.inode for socket in sockets)
        if (
            learned is None
            or (learned.worker, learned.inodes) != (worker, inodes)
            or time.monotonic() > learned.until_s
        ):
            learned = self._learn(instance, worker, sockets)
        shared = share(sockets, learned.own)
        family = {instance.master, instance.worker, *instance.old}
        return learned, ListenersView(
            listeners=tuple(_listener(socket, worker) for socket in shared.own),
            foreign=tuple(
                _listener(socket, learned.holders.get(socket.inode))
                for socket in shared.foreign
                if socket.inode not in learned.elsewhere
            ),
            orphans=tuple(sorted(learned.leftovers - family)),
        )

    def _learn(
        self, instance: Instance, worker: Proc, sockets: tuple[ListeningSocket, ...]
    ) -> _Learned:
        """Read who holds *sockets*."""
        inodes = frozenset(socket.inode for socket in sockets)
        own = inodes.intersection(procfs.socket_inodes(worker.pid))
        shared = share(sockets, own).foreign
        foreign = frozenset(socket.inode for socket in shared)
        holders = find_holders(foreign, self._likely_first(instance)) if foreign else {}
        elsewhere = frozenset(
            socket.inode
            for socket in shared
            if not socket.port and not _names_one_file(socket, holders.get(socket.inode), worker)
        )
        by_tcp = {holders[at.inode] for at in shared if at.port and at.inode in holders}
        lifetime_s = LEARNED_OF_FOREIGN_S if foreign - elsewhere else LEARNED_S
        return _Learned(
            worker=worker,
            inodes=inodes,
            own=own,
            elsewhere=elsewhere,
            holders=holders,
            leftovers=frozenset(
                holder for holder in by_tcp if self._is_leftover(holder, instance, worker)
            ),
            until_s=time.monotonic() + lifetime_s,
        )

    def _is_leftover(self, holder: Proc, instance: Instance, worker: Proc) -> bool:
        """Tell whether *holder* is proven to be left over from our HAProxy.

        It runs our configuration, and all of it, for services may have a file in common; no master
        of ours answers for it, and it is older than the worker: a younger one may be a start under
        way or somebody's intent, and is only reported.
        """
        stat = procfs.read_stat(holder.pid)
        return (
            stat is not None
            and stat.proc == holder
            and holder.start_ticks < worker.start_ticks
            and (instance.master is None or stat.parent != instance.master.pid)
            and self._identity.is_ours(stat)
            and _files(holder.pid) == _files(worker.pid)
        )

    def _likely_first(self, instance: Instance) -> Iterator[int]:
        """Yield all pids: old workers, other HAProxys, the rest of the machine."""
        yield from (proc.pid for proc in instance.old)
        others = []
        for pid in listing.pids():
            stat = procfs.read_stat(pid)
            if stat is not None and stat.name in self._identity.names:
                yield pid
            else:
                others.append(pid)
        yield from others


_CODES: Final = {
    Verdict.PASS: Code.PROCOK,
    Verdict.FAIL: Code.PROCERR,
    Verdict.UNKNOWN: Code.UNK,
}


def share(sockets: Iterable[ListeningSocket], own: Collection[int]) -> Shared:
    """Tell the sockets whose inodes are *own* from others that listen on the same addresses."""
    sockets = tuple(sockets)
    mine = tuple(socket for socket in sockets if socket.inode in own)
    addresses = {_address(socket) for socket in mine}
    return Shared(
        own=mine,
        foreign=tuple(
            socket
            for socket in sockets
            if socket.inode not in own and _address(socket) in addresses
        ),
    )


def find_holders(inodes: frozenset[int], pids: Iterable[int]) -> dict[int, Proc]:
    """Find a process that holds each of the sockets *inodes*, asking *pids* in their order.

    Those whose descriptors may not be read are passed over. Costs about 4 us a descriptor.
    """
    holders: dict[int, Proc] = {}
    for pid in pids:
        stat = procfs.read_stat(pid)
        if stat is None or not stat.alive:
            continue
        try:
            held = inodes.intersection(procfs.socket_inodes(pid))
        except PermissionError:
            continue
        for inode in held:
            holders.setdefault(inode, stat.proc)
        if len(holders) == len(inodes):
            break
    return holders


def _files(pid: int) -> tuple[str, ...]:
    """Return the configuration files and folders that a process was started with, in order."""
    return arguments.parse(procfs.argv(pid)).paths(procfs.link(pid, "cwd") or "/")


def _names_one_file(socket: ListeningSocket, holder: Proc | None, worker: Proc) -> bool:
    """Tell whether the socket's name is proven to mean the same file to *holder* and *worker*.

    Either may have gone into a chroot since it was bound, as HAProxy does, and then no more can be
    seen of what it meant than that they were in the same mount namespace.
    """
    if holder is None:
        return False
    theirs, ours = (procfs.link(proc.pid, "root") for proc in (holder, worker))
    if theirs is None or theirs not in {"/", ours}:
        return False
    namespaces = {procfs.link(proc.pid, "ns/mnt") for proc in (holder, worker)}
    if len(namespaces) == 1:
        return None not in namespaces
    path, _ = _address(socket)
    try:
        seen = [Path(f"/proc/{proc.pid}/root{path}").stat() for proc in (holder, worker)]
    except OSError:
        return False
    return os.path.samestat(*seen)


def _address(socket: ListeningSocket) -> tuple[str, int]:
    return _TEMPORARY_NAME.sub(
        "", socket.address
    ) if not socket.port else socket.address, socket.port


def _listener(socket: ListeningSocket, holder: Proc | None) -> Listener:
    address, port = _address(socket)
    return Listener(
        address=address, port=port, inode=socket.inode, backlog=socket.backlog, holder=holder
    )


def _complaints(view: ListenersView, instance: Instance) -> set[str]:
    """Say of each foreign listener where it is and whose."""
    said = set()
    for listener in view.foreign:
        where = listener.address
        if listener.port:
            host = f"[{listener.address}]" if ":" in listener.address else listener.address
            where = f"{host}:{listener.port}"
        who = "an unknown process" if listener.holder is None else f"process {listener.holder.pid}"
        if listener.holder in instance.old:
            who = f"old worker {listener.holder.pid}"
        elif listener.holder in view.orphans:
            who = f"orphan {listener.holder.pid}"
        said.add(f"{where} is also held by {who}")
    return said


def _is(proc: Proc) -> bool:
    """Tell whether *proc* is still the one with its pid."""
    stat = procfs.read_stat(proc.pid)
    return stat is not None and stat.proc == proc
