"""Whether HAProxy is alive, which of its processes is which, and whether they can run.

The main process (the master, or the only one) is named by systemd, else by the pidfile, else
found by its executable and configuration file. From then on it and its workers are watched, so
that a death wakes us at once and a look costs some microseconds.

Nothing is read twice that a kept descriptor tells, and all processes are searched only while no
other evidence leads to HAProxy.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import ExitStack
from itertools import islice
from typing import TYPE_CHECKING, Final

from sentinel.model import Code, Instance, Observation, ProcessView, Scope, Verdict
from sentinel.processes import listing, procfs, trust
from sentinel.processes.identity import Identity, read_pidfile
from sentinel.processes.watch import adopt, living
from sentinel.processes.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sentinel.config import Haproxy, Pace
    from sentinel.model import Proc
    from sentinel.processes.procfs import Stat
    from sentinel.processes.watch import Seen, Watch

#: A search through all processes costs 5 to 30 ms, so it is made at most this often.
SEARCH_S: Final = 2.0
#: Strangers that are looked at in one: somebody may start thousands.
STRANGERS_MAX: Final = 4
#: In a reload the old worker is told to finish before the new one is forked (main in haproxy.c),
#: and an idle one is gone at once. A worker that crashes takes its master with it in milliseconds,
#: unless no-exit-on-failure is set: only then is a death believed this much later.
RELOAD_S: Final = 0.3
RELOAD_AGAIN_S: Final = 0.02
_STUCK: Final = {"T": "stopped (T)", "t": "traced (t)", "D": "in uninterruptible sleep (D)"}


class ProcessCheck:
    """Follows one HAProxy through reloads, restarts and deaths."""

    name: Final = "process"
    scope: Final = Scope.PROCESS

    def __init__(
        self,
        settings: Haproxy,
        pace: Pace,
        main_pid: Callable[[], int],
        on_change: Callable[[], None],
    ) -> None:
        """Begin with nothing known.

        *main_pid* gives the service manager's main process, 0 when unknown; it is asked at each
        look and must not block. *on_change* is called at the death of a process of HAProxy.
        """
        self.pace = pace
        self.instance: Instance | None = None
        self._settings = settings
        self._identity = Identity(settings)
        self._main_pid = main_pid
        self._on_change = on_change
        self._main: Watch | None = None
        self._workers: Workers | None = None
        self._former: list[Watch] = []
        self._evidence: tuple[object, ...] = ()
        self._searched_s = -SEARCH_S
        self._lost = ""
        self._stranger = ""

    async def __call__(self) -> Observation:
        """Look once, on the running loop."""
        begun_s = time.perf_counter()
        view: ProcessView | None = None
        try:
            view, verdict, code, detail = self._look()
            self.instance = view.instance if view else self.instance
        except OSError as error:  # not allowed to see, or no descriptors left: nothing is known
            verdict, code, detail = Verdict.UNKNOWN, Code.UNK, f"cannot look: {error}"
        return Observation(
            check=self.name,
            scope=self.scope,
            verdict=verdict,
            code=code,
            detail=detail,
            duration_ms=(time.perf_counter() - begun_s) * 1000,
            view=view,
        )

    def close(self) -> None:
        """Stop watching and give all descriptors back."""
        self._forget_main()
        for watch in self._former:
            watch.close()
        self._former.clear()

    # --- judging --------------------------------------------------------------------------------

    def _look(self) -> tuple[ProcessView | None, Verdict, Code, str]:
        main = self._follow_main()
        if main is None or self._workers is None:
            known = ", ".join(filter(None, (self._lost, self._stranger)))
            detail = known or f"no process runs {' '.join(self._settings.config)}"
            return ProcessView(instance=None), Verdict.FAIL, Code.PROCERR, detail
        members = self._workers.look()
        former = living(self._former)
        self._bury_former(former)
        master, worker = self._main, self._workers.current
        if not self._workers.is_master:
            master, worker = None, self._main
        instance = Instance(
            master=master.proc if master else None,
            worker=worker.proc if worker else None,
            old=tuple(
                watch.proc
                for watch, _ in (*former, *members)
                if worker is None or watch.proc != worker.proc
            ),
        )
        stuck = {
            watch.proc: _STUCK[state]
            for watch, state in (main, *former, *members)
            if state in _STUCK
        }
        if self._reloads(self._workers, instance, stuck):
            asyncio.get_running_loop().call_later(RELOAD_AGAIN_S, self._on_change)
            words = f"{self._workers.lost}, and its master may be about to start another"
            return None, Verdict.UNKNOWN, Code.UNK, words
        view = ProcessView(instance=instance, stuck=tuple(stuck))
        return view, *_judge(instance, stuck, self._workers.lost)

    @staticmethod
    def _reloads(workers: Workers, instance: Instance, stuck: Mapping[Proc, str]) -> bool:
        """Tell whether a living master has lost its worker so lately that it may be reloading."""
        if instance.master is None or instance.worker is not None or instance.master in stuck:
            return False
        return bool(workers.lost) and time.monotonic() - workers.lost_s < RELOAD_S

    def _bury_former(self, alive: list[Seen]) -> None:
        if len(alive) < len(self._former):
            kept = [watch for watch, _ in alive]
            for watch in self._former:
                if watch not in kept:
                    watch.close()
            self._former = kept

    # --- the main process -----------------------------------------------------------------------

    def _follow_main(self) -> Seen | None:
        """Keep the main process while it lives and nothing names another; else find it anew."""
        seen = living([self._main] if self._main else [])
        if self._main and not seen:
            self._lost = self._obituary(self._main, self._workers)
            self._forget_main()
        evidence = (self._main_pid(), _change_mark(self._settings.pidfile))
        if self._main is None or evidence != self._evidence or not self._serves():
            found = self._find()
            self._evidence = evidence
            if found is not None and found is not self._main:
                with ExitStack() as undo:
                    undo.callback(found.close)
                    self._begin_main(found)
                    undo.pop_all()
                seen = [(found, found.stat.state)]
        return seen[0] if seen else None

    def _obituary(self, main: Watch, workers: Workers | None) -> str:
        """Say who died; a worker's crash takes its master with it within milliseconds."""
        words = [f"{self._main_role()} {main.proc.pid} died"]
        if workers is not None:
            workers.bury()
            words.insert(0, workers.lost)
        return ", ".join(filter(None, words))

    def _main_role(self) -> str:
        return "master" if self._workers and self._workers.is_master else "haproxy"

    def _serves(self) -> bool:
        return self._workers is not None and self._workers.serve

    def _begin_main(self, main: Watch) -> None:
        """Follow another main process; the one before may be finishing (haproxy -D -sf PID)."""
        workers = Workers(main, self._identity, self._on_change)
        if self._main is not None and self._main_role() == "haproxy":
            self._former.append(self._main)
            self._main = None
        self._forget_main()
        self._main, self._workers, self._lost = main, workers, ""

    def _forget_main(self) -> None:
        if self._main is not None:
            self._main.close()
        if self._workers is not None:
            self._workers.close()
        self._main = self._workers = None

    def _find(self) -> Watch | None:
        """Find the main process by the surest evidence there is.

        Raises OSError when the pidfile is unreadable and nothing else has ever shown HAProxy.
        """
        blind: OSError | None = None
        found = self._adopt(self._main_pid(), self._identity.is_haproxy)
        try:
            found = found or self._find_by_pidfile()
        except OSError as error:
            blind = error
        if found is None and not self._serves():
            found = self._search()
        if found is None and blind is not None and not self._lost:
            raise blind
        return found

    def _find_by_pidfile(self) -> Watch | None:
        pidfile = read_pidfile(self._settings.pidfile)
        if pidfile is None:
            return None
        for pid in pidfile.pids:
            found = self._adopt(
                pid, lambda stat: pidfile.names(stat) and self._identity.is_ours(stat)
            )
            if found is not None:
                return found
        return None

    def _search(self) -> Watch | None:
        """Search all processes; of several that are nobody's child here, prefer a parent.

        Anybody may start one with our configuration: others' are told of, and not believed. So
        whose it is comes first, and strangers are looked at when there is nobody else.
        """
        now_s = time.monotonic()
        if now_s - self._searched_s < SEARCH_S:
            return None
        self._searched_s = now_s
        named = map(procfs.read_stat, listing.pids_named(self._identity.names))
        stats = [stat for stat in named if stat is not None and stat.alive]
        parents = {stat.parent for stat in stats}
        stats.sort(key=lambda stat: (stat.proc.pid in parents, stat.proc.start_ticks), reverse=True)
        ours = {stat.proc.pid: stat for stat in stats if self._is_ours_unnamed(stat)}
        main = next((pid for pid, stat in ours.items() if stat.parent not in ours), 0)
        found = self._adopt(main, self._is_ours_unnamed)
        self._stranger = "" if ours else self._claimant(stats)
        return found

    def _is_ours_unnamed(self, stat: Stat) -> bool:
        return trust.runs_as_us(stat.proc.pid) and self._identity.is_ours(stat)

    def _claimant(self, named: list[Stat]) -> str:
        """Describe a stranger that claims to be ours, of the first few that are nobody's worker."""
        trusted = {stat.proc.pid for stat in named if trust.runs_as_us(stat.proc.pid)}
        strangers = (stat for stat in named if trusted.isdisjoint((stat.proc.pid, stat.parent)))
        few = filter(self._identity.is_claimed, islice(strangers, STRANGERS_MAX))
        return next(filter(None, map(_describe_stranger, few)), "")

    def _adopt(self, pid: int, accept: Callable[[Stat], bool]) -> Watch | None:
        """Watch *pid* first and ask who it is then, so that it cannot be another by now."""
        if self._main is not None and self._main.proc.pid == pid:
            return self._main
        return adopt(pid, self._on_change, accept) if pid > 0 else None


def _judge(instance: Instance, stuck: Mapping[Proc, str], lost: str) -> tuple[Verdict, Code, str]:
    """Say what is wrong, or who works; *lost* is how the worker was lost."""
    roles = {instance.master: "master", instance.worker: "worker"}
    words = [f"{roles.get(proc, 'old worker')} {proc.pid} is {how}" for proc, how in stuck.items()]
    if instance.worker is None:
        return Verdict.FAIL, Code.PROCERR, ", ".join([lost or "master has no worker", *words])
    if instance.worker in stuck:
        return Verdict.FAIL, Code.PROCTOUT, ", ".join(words)
    master = [f"master {instance.master.pid}"] if instance.master else []
    old = [f"{len(instance.old)} old"] if instance.old else []
    detail = ", ".join([f"worker {instance.worker.pid}", *master, *old, *words])
    return Verdict.PASS, Code.PROCOK, detail


def _describe_stranger(stat: Stat) -> str:
    """Say why it is not followed; nothing when it has gone."""
    others = sorted(procfs.uids(stat.proc.pid))
    if not others:
        return ""
    cure = "neither haproxy.service nor a pidfile of root's (haproxy.pidfile) names it"
    return f"process {stat.proc.pid} of user {others[-1]} runs its configuration, but {cure}"


def _change_mark(path: str) -> tuple[int, int, int] | None:
    """Return what differs whenever the file has been written anew; None while it cannot be seen."""
    try:
        found = os.stat(path)  # noqa: PTH116  (at every look: a Path costs more than the call)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
