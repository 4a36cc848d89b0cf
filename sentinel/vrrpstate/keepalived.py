"""keepalived's processes: the parent, and the child that speaks VRRP and holds the VIPs.

The parent is named by systemd, else by keepalived's pidfile, else searched for, so that none is
held for dead because nobody knows it. It is keepalived by its executable, which may be a versioned
one behind a link (keepalived-2.2.8) or behind a wrapper (.keepalived-wrapped). What nobody vouches
for, a search's find, is believed by such names alone: keepalived_exporter runs as root as well.
Names of processes tell nothing: keepalived.conf may give its own any (process_names in
keepalived.conf(5)), and so may everybody to theirs. A child that executes anything else than its
parent does is a script or a helper of keepalived's, and none of it.

What a pidfile names or a search finds must be run by root or ourselves, be meant to serve (not
``keepalived -t``), and be in our own network namespace, which is what VIPs belong to: a container
with the host's network may hold them, one with its own cannot. Other namespaces say nothing of
that. In another PID namespace a pidfile speaks of other pids, and is not asked who speaks VRRP.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sentinel.processes import arguments, listing, procfs, trust
from sentinel.processes.identity import read_pidfile, started_before
from sentinel.processes.watch import adopt, living

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentinel.model import Proc
    from sentinel.processes.identity import Pidfile
    from sentinel.processes.procfs import Stat
    from sentinel.processes.watch import Watch

PIDFILE: Final = "/run/keepalived.pid"
#: The manual speaks of keepalived_vrrp.pid, the source of every version since 2.0 of this.
VRRP_PIDFILE: Final = "/run/vrrp.pid"
PROGRAM: Final = "keepalived"
_SEARCHED: Final = re.compile(r"\.?keepalived(?:-?[0-9][0-9a-z.~+-]*)?(?:-wrapped)?")
#: Options that only test, calculate or tell something, alone or after others without a value
#: (keepalived(8)).
_NEVER_SERVES: Final = re.compile(
    r"-[BCDGIPRVXadlmnx]*[Thtv].*|--(?:config-test|genhash|help|signum|version)(?:=.*)?", re.DOTALL
)
#: A search through all processes costs some milliseconds, so it is made at most this often.
SEARCH_S: Final = 2.0
#: keepalived has three kinds of children, one process each; more are not its own.
_CHILDREN_MAX: Final = 8
_STOPPED: Final = "Tt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """keepalived as it is now. *vrrp* is its child that speaks VRRP, None while there is none.

    *pids* are all that live, the parent first, then the child; also those whose parent has died.
    *stopped* says that *vrrp* was stopped by a signal or a debugger.
    """

    parent: Proc | None = None
    vrrp: Proc | None = None
    pids: tuple[int, ...] = ()
    stopped: bool = False


class Keepalived:
    """Follows this node's keepalived through restarts and deaths, until ``close``."""

    def __init__(
        self, main_pid: Callable[[], int], on_death: Callable[[], None], pidfile: str = PIDFILE
    ) -> None:
        """Begin with nothing known.

        *main_pid* gives the service manager's main process, 0 when unknown, and must not block.
        *on_death* is called at the death of each of keepalived's processes.
        """
        self._main_pid = main_pid
        self._on_death = on_death
        self._pidfile = pidfile
        self._vrrp_pidfile = VRRP_PIDFILE
        self._parent: Watch | None = None
        self._children: dict[Watch, str] = {}  # with what each executes, as long as it is one
        self._searched_s = -SEARCH_S

    def look(self) -> Processes:
        """Look once; raises OSError for what may not be seen."""
        self._follow_parent()
        self._follow_children()
        states = {watch.proc: state for watch, state in living(self._watches())}
        parent = self._parent.proc if self._parent else None
        if parent not in states:
            parent = None
        children = [watch.proc for watch in self._children if watch.proc in states]
        vrrp = self._vrrp(children)
        ordered = sorted(states, key=lambda proc: (proc != parent, proc != vrrp))
        return Processes(
            parent=parent,
            vrrp=vrrp,
            pids=tuple(proc.pid for proc in ordered),
            stopped=vrrp is not None and states[vrrp] in _STOPPED,
        )

    def close(self) -> None:
        """Stop watching and give all descriptors back."""
        for watch in self._watches():
            watch.close()
        self._children.clear()
        self._parent = None

    def _watches(self) -> tuple[Watch, ...]:
        return (*((self._parent,) if self._parent else ()), *self._children)

    def _adopt(self, pid: int, accept: Callable[[Stat], bool]) -> Watch | None:
        return adopt(pid, self._on_death, accept, renames=True)

    # --- the parent -----------------------------------------------------------------------------

    def _follow_parent(self) -> None:
        """Keep the parent while it lives and the service manager names no other; else find it."""
        pid = self._main_pid()
        alive = self._parent is not None and bool(living([self._parent]))
        if alive and self._parent is not None and pid in {0, self._parent.proc.pid}:
            return
        found = self._adopt(pid, is_keepalived) if pid > 0 else None
        if alive and found is None:
            return
        if alive:
            self.close()  # with its children: they are another keepalived's
        elif self._parent is not None:
            self._parent.close()
        self._parent = found or self._find_by_pidfile() or self._search()
        if self._parent is not None:
            self._vrrp_pidfile = vrrp_pidfile(procfs.argv(self._parent.proc.pid))

    def _find_by_pidfile(self) -> Watch | None:
        pidfile = read_pidfile(self._pidfile)
        if pidfile is None:
            return None
        for pid in pidfile.pids:
            found = self._adopt(pid, lambda stat: pidfile.names(stat) and is_ours(stat))
            if found is not None:
                return found
        return None

    def _search(self) -> Watch | None:
        """Search all processes for the oldest keepalived; a child is never older than its parent.

        One whose parent has died is found as well, and treated as a parent without children.
        """
        now_s = time.monotonic()
        if now_s - self._searched_s < SEARCH_S:
            return None
        self._searched_s = now_s
        followed = {watch.proc.pid for watch in self._children}
        likely = (pid for pid in listing.pids() if pid not in followed and _is_searched(pid))
        stats = map(procfs.read_stat, likely)
        ours = [stat.proc for stat in stats if stat is not None and is_ours(stat)]
        oldest = min(ours, key=lambda proc: (proc.start_ticks, proc.pid), default=None)
        return self._adopt(oldest.pid, is_ours) if oldest else None

    # --- its children ---------------------------------------------------------------------------

    def _follow_children(self) -> None:
        """Let the dead go and watch the new; one that has lost its parent stays while it lives.

        A child that executes another program, keepalived.conf's startup_script, is none any more.
        """
        alive = {watch for watch, _ in living(self._children)}
        for watch, executed in tuple(self._children.items()):
            if watch not in alive or program(watch.proc.pid) != executed:
                del self._children[watch]
                watch.close()
        if self._parent is None:
            return
        parent = self._parent.proc.pid
        if not (executed := program(parent)):
            return
        known = {watch.proc.pid for watch in self._children}
        for pid in _children(parent)[:_CHILDREN_MAX]:
            if pid in known:
                continue
            found = self._adopt(
                pid, lambda stat: stat.parent == parent and program(stat.proc.pid) == executed
            )
            if found is not None:
                self._children[found] = executed

    def _vrrp(self, children: list[Proc]) -> Proc | None:
        """Tell the child that speaks VRRP from the health checker and BFD, by its own pidfile.

        Without one of ours that is newer than the parent, the newest child is taken for it.
        """
        pidfile = read_pidfile(self._vrrp_pidfile)
        if pidfile is None or (self._parent and not _may_name(pidfile, self._parent.stat)):
            return children[-1] if children else None
        return next((child for child in children if child.pid in pidfile.pids), None)


def is_keepalived(stat: Stat) -> bool:
    """Tell whether this is a living process of a program named keepalived, whoever runs it."""
    return stat.alive and _name(stat.proc.pid).removeprefix(".").startswith(PROGRAM)


def is_ours(stat: Stat) -> bool:
    """Tell whether this is a keepalived of this node: root's or ours, and on our network."""
    pid = stat.proc.pid
    return (
        is_keepalived(stat)
        and trust.runs_as_us(pid)
        and _shares(pid, "ns/net")
        and not any(map(_NEVER_SERVES.fullmatch, procfs.argv(pid)[1:]))
    )


def program(pid: int) -> str:
    """Return what *pid* executes; without the right to see, what it was called; else nothing."""
    found = procfs.program(pid)
    return next(iter(arguments.beginning(pid)), "") if found is None else found


def shares_pids(pid: int) -> bool:
    """Tell whether *pid* is in our own PID namespace, as far as is known: not in a container."""
    return _shares(pid, "ns/pid")


def _name(pid: int) -> str:
    return program(pid).rpartition("/")[2]


def _is_searched(pid: int) -> bool:
    return _SEARCHED.fullmatch(_name(pid)) is not None


def _shares(pid: int, namespace: str) -> bool:
    return procfs.link(pid, namespace) in {None, procfs.link(os.getpid(), namespace)}


def _may_name(pidfile: Pidfile, parent: Stat) -> bool:
    """Tell whether a pidfile may speak of a child: it is no older, and of pids as we see them."""
    return shares_pids(parent.proc.pid) and started_before(parent, pidfile.written_s)


def vrrp_pidfile(argv: tuple[str, ...]) -> str:
    """Return the pidfile of the VRRP child as keepalived's arguments name it (keepalived(8))."""
    words = iter(argv[1:])
    for word in words:
        if word in {"-r", "--vrrp_pid"}:
            return next(words, VRRP_PIDFILE)
        if word.startswith("--vrrp_pid="):
            return word.partition("=")[2]
        if word.startswith("-r"):
            return word[2:]
    return VRRP_PIDFILE


def _children(parent: int) -> tuple[int, ...]:
    """Return the children of *parent*, which has one thread, oldest first."""
    try:
        listed = Path(f"/proc/{parent}/task/{parent}/children").read_bytes()
    except procfs.GONE:  # it is gone, or the kernel does not list them (CONFIG_PROC_CHILDREN)
        return listing.children(parent)
    return tuple(map(int, listed.split()))
