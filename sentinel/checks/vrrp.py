"""Whether the VIPs are where keepalived claims they are: its word beside the kernel's.

keepalived's notify FIFO tells when its state changes, its JSON dump how it is (at the start, after
a restart or a reload, in doubt, and now and then), the kernel which addresses this node has, and
pidfds that keepalived dies. A claim and the addresses change some milliseconds apart: only what
disagrees for DISAGREEMENT_S, and after another look at the dump, is a failure. VIPs that a dead
keepalived has left behind need no such patience: nobody will take them away. A claim known from a
dump alone may be old, and keepalived busy: it gets UNCONFIRMED_S to be confirmed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sentinel.model import Code, Observation, Scope, Verdict
from sentinel.processes.procfs import TICKS_PER_S
from sentinel.vrrp import InstanceView, VrrpState, VrrpView
from sentinel.vrrpstate.claims import Claims
from sentinel.vrrpstate.dump import Dumps
from sentinel.vrrpstate.fifo import Fifo, Notice
from sentinel.vrrpstate.keepalived import PIDFILE, Keepalived

if TYPE_CHECKING:
    from sentinel.config import Vrrp
    from sentinel.model import Proc
    from sentinel.vrrp import Vip, VrrpInstance
    from sentinel.vrrpstate.keepalived import Processes

#: Every address of this node with its interface; None when it cannot be told.
Present = Callable[[], Awaitable[frozenset[tuple[str, str]] | None]]

DISAGREEMENT_S: Final = 1.0
UNCONFIRMED_S: Final = 3.0
#: For what was missed: a change of the VIPs is doubt enough for a dump of its own.
DUMP_EVERY_S: Final = 120.0
#: keepalived logs a line for each dump, and writes it while it ought to send its adverts.
DUMP_AT_MOST_EVERY_S: Final = 1.0
#: Instances that are named one by one in the detail of an observation.
NAMED_MAX: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trouble:
    """What does not fit, of one instance or (without a *name*) of keepalived itself.

    *after_s* is how long it must last to be a failure; *began_s* the earliest it can have begun.
    """

    name: str
    words: str
    code: Code
    after_s: float = DISAGREEMENT_S
    began_s: float = 0.0


class VrrpCheck:
    """Follows keepalived's instances and their VIPs on this node, until ``close``."""

    name: Final = "vrrp"
    scope: Final = Scope.VRRP

    def __init__(
        self,
        settings: Vrrp,
        conf: Callable[[], tuple[VrrpInstance, ...] | None],
        present: Present,
        main_pid: Callable[[], int],
        on_change: Callable[[], None],
        pidfile: str = PIDFILE,
    ) -> None:
        """Begin with nothing known.

        *conf* gives the configured instances, None before they are known, and *main_pid* the main
        process of keepalived's unit, 0 when unknown; both are asked at each look and must not
        block. *on_change* says that another look is worth it: keepalived spoke or died, or a
        disagreement has lasted.
        """
        self.pace = settings.pace
        self._conf = conf
        self._file = settings.file
        self._present = present
        self._on_change = on_change
        self._fifo = Fifo(settings.fifo, self._hear)
        self._keepalived = Keepalived(main_pid, on_change, pidfile)
        self._dumps = Dumps()
        self._claims = Claims()
        self._lived = False
        self._dumped: tuple[object, ...] = ()
        self._dumped_s = self._learnt_s = -DUMP_EVERY_S
        self._dump_error = ""
        self._troubled_s: dict[str, float] = {}
        self._patience: asyncio.TimerHandle | None = None

    async def __call__(self) -> Observation:
        """Look once, within ``pace.timeout_s``."""
        begun_s = time.perf_counter()
        view: VrrpView | None = None
        try:
            async with asyncio.timeout(self.pace.timeout_s):
                view, verdict, code, detail = await self._look()
        except TimeoutError:
            detail = f"keepalived could not be looked at within {self.pace.timeout_s} s"
            verdict, code = Verdict.UNKNOWN, Code.UNK
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
        """Stop watching and give all descriptors back; the FIFO stays for keepalived."""
        self._fifo.close()
        self._keepalived.close()
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    # --- seeing ---------------------------------------------------------------------------------

    async def _look(self) -> tuple[VrrpView | None, Verdict, Code, str]:
        """See all of it; the processes first, for what the dead have left will not change."""
        instances = self._conf()
        if instances is None:
            return None, Verdict.UNKNOWN, Code.UNK, "keepalived.conf has not been read yet"
        processes = self._keepalived.look()
        if not instances and not processes.pids:
            return VrrpView(), Verdict.PASS, Code.PROCOK, "no keepalived"
        if not instances:
            words = f"keepalived runs, but {self._file} has no instance: correct vrrp.file"
            return VrrpView(pids=processes.pids), Verdict.FAIL, Code.PROCERR, words
        self._fifo.attend()
        self._lived = self._lived or bool(processes.pids)
        await self._dump_if_due(processes, instances)
        addresses = await self._present()
        if addresses is None:
            return None, Verdict.UNKNOWN, Code.UNK, "this node's addresses cannot be read"
        born_s = _born_s(processes.vrrp)
        view = VrrpView(
            instances=tuple(
                InstanceView(
                    instance=instance,
                    claim=self._claims.of(instance.name, born_s) if processes.vrrp else None,
                    present=tuple(
                        vip for vip in instance.vips if (vip.address, vip.interface) in addresses
                    ),
                )
                for instance in instances
            ),
            pids=processes.pids,
        )
        return view, *self._judge(view, processes)

    def _hear(self, notice: Notice) -> None:
        self._claims.hear(notice, self._conf() or (), _now_s())
        self._on_change()

    async def _dump_if_due(self, processes: Processes, instances: tuple[VrrpInstance, ...]) -> None:
        """Ask keepalived for a dump when something is new, in doubt, or the last one is old."""
        now_s = _now_s()
        grounds = (processes.vrrp, instances, self._fifo.opened)
        new = grounds != self._dumped or now_s - self._dumped_s >= DUMP_EVERY_S
        doubt = any(
            now_s - since_s >= DISAGREEMENT_S and self._learnt_s < since_s
            for since_s in self._troubled_s.values()
        )
        rested = now_s - self._dumped_s >= DUMP_AT_MOST_EVERY_S
        if processes.parent is None or processes.vrrp is None or not rested or not (new or doubt):
            return
        self._dumped_s = now_s
        dump = await self._dumps.ask(processes.parent)
        self._dump_error = dump.detail
        if dump.levels is not None:
            self._dumped, self._learnt_s = grounds, now_s
            self._claims.learn(dump.levels, now_s)

    # --- judging --------------------------------------------------------------------------------

    def _judge(self, view: VrrpView, processes: Processes) -> tuple[Verdict, Code, str]:
        """Say what does not fit, or how things are; wait for what may still come to fit."""
        now_s = _now_s()
        troubles = self._troubles(view, processes)
        self._troubled_s = {
            trouble.name: max(self._troubled_s.get(trouble.name, now_s), trouble.began_s)
            for trouble in troubles
        }
        left_s = {
            trouble: self._troubled_s[trouble.name] + trouble.after_s - now_s
            for trouble in troubles
        }
        doubt_s = (since_s + DISAGREEMENT_S - now_s for since_s in self._troubled_s.values())
        self._wait(min((left for left in (*doubt_s, *left_s.values()) if left > 0), default=None))
        failed = [trouble for trouble, left in left_s.items() if left <= 0]
        if failed:
            return Verdict.FAIL, failed[0].code, _several([trouble.words for trouble in failed])
        return Verdict.PASS, Code.PROCOK, self._describe(view, troubles)

    def _troubles(self, view: VrrpView, processes: Processes) -> list[_Trouble]:
        left = _left_behind(view)
        if not processes.pids:
            words = f"keepalived {'is dead' if self._lived else 'is not running'}{left}"
            after_s = 0.0 if left else DISAGREEMENT_S
            return [_Trouble(name="", words=words, code=Code.PROCERR, after_s=after_s)]
        if processes.vrrp is None:
            words = f"keepalived's VRRP process is dead{left}"
            return [_Trouble(name="", words=words, code=Code.PROCERR)]
        if processes.stopped:
            words = f"keepalived's VRRP process {processes.vrrp.pid} is stopped{left}"
            return [_Trouble(name="", words=words, code=Code.PROCTOUT)]
        return [
            _Trouble(
                name=seen.instance.name,
                words=words,
                code=Code.L7STS,
                after_s=self._patience_s(seen),
                began_s=seen.claim.since_s if seen.claim else 0.0,
            )
            for seen in view.instances
            if (words := _disagreement(seen))
        ]

    def _patience_s(self, seen: InstanceView) -> float:
        """Return how long a disagreement is borne: longer while only an old dump is its witness."""
        began_s = self._troubled_s.get(seen.instance.name, _now_s())
        heard = seen.claim is None or seen.claim.source != "JSON" or self._learnt_s >= began_s
        return DISAGREEMENT_S if heard else UNCONFIRMED_S

    def _wait(self, left_s: float | None) -> None:
        """Look again as soon as a disagreement has lasted long enough."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if left_s is not None:
            self._patience = asyncio.get_running_loop().call_later(left_s, self._on_change)

    def _describe(self, view: VrrpView, troubles: list[_Trouble]) -> str:
        words = [trouble.words for trouble in troubles] or [_words(seen) for seen in view.instances]
        unheard = any(seen.claim is None for seen in view.instances)
        why = [error for error in (self._dump_error, self._fifo.error) if error and unheard]
        return ", ".join([_several(words), *why])


def _disagreement(seen: InstanceView) -> str:
    """Say in words what of an instance does not fit, or nothing."""
    if seen.claim is None:
        if not seen.present or not seen.absent:
            return ""
        return f"{seen.instance.name}: {_vips(seen.present)} here, {_vips(seen.absent)} absent"
    claimed = f"{seen.instance.name}: {seen.claim.state} (claimed)"
    if seen.claim.state is VrrpState.MASTER:
        return f"{claimed}, {_vips(seen.absent)} absent" if seen.absent else ""
    return f"{claimed}, {_vips(seen.present)} here" if seen.present else ""


def _words(seen: InstanceView) -> str:
    """Describe an instance of which everything fits."""
    claim = seen.claim
    state = "not heard" if claim is None else str(claim.state)
    if claim is not None and claim.priority is not None:
        state = f"{state} {claim.priority}"
    here = f", {_vips(seen.present)} here" if seen.present else ""
    return f"{seen.instance.name}: {state}{here}"


def _left_behind(view: VrrpView) -> str:
    left = [vip for seen in view.instances for vip in seen.present]
    return f", {_vips(left)} still here" if left else ""


def _vips(vips: tuple[Vip, ...] | list[Vip]) -> str:
    return f"VIP {_several([vip.address for vip in vips])}"


def _several(words: list[str]) -> str:
    """Join a few of *words*, and count the rest."""
    more = [f"{len(words) - NAMED_MAX} more"] if len(words) > NAMED_MAX else []
    return ", ".join([*words[:NAMED_MAX], *more])


def _born_s(proc: Proc | None) -> float:
    """Return when a process began; before that, nothing it says was said."""
    return proc.start_ticks / TICKS_PER_S if proc is not None else 0.0


def _now_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
