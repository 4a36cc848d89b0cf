"""The runtime API check: whether the current worker answers, and whether it is saturated.

Connections to the stats socket do not count against the global maxconn, so a worker that answers
here while probes hang is busy or full, not hung. Silence here alone never proves a hang either
(haproxy/haproxy#2951): the core weighs it with the probes and the process state.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from sentinel import runtimeapi
from sentinel.model import Code, Observation, RuntimeView, Scope, Verdict
from sentinel.runtimeapi import Answer, number

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sentinel.config import Pace

#: Global counters and the frontends alone: 0.1 ms of HAProxy's time whatever the number of servers.
_QUESTION: Final = "show info;show stat -1 1 -1"
_COLUMNS: Final = ("pxname", "scur", "slim")


class RuntimeCheck:
    """Ask the worker about itself: ``show info`` and its frontends.

    *socket* gives the stats socket's address ("" while none is known), *worker_pid* the current
    worker's pid (0 while unknown): the path of a stats socket may be answered by the worker
    before a reload.
    """

    name: Final = "runtime"
    scope: Final = Scope.RUNTIME

    def __init__(
        self, socket: Callable[[], str], pace: Pace, worker_pid: Callable[[], int]
    ) -> None:
        self.pace: Final = pace
        self._socket: Final = socket
        self._worker_pid: Final = worker_pid
        self._maxconn_reached: tuple[int, int] | None = None  # pid, its counter at the last look

    async def __call__(self) -> Observation:
        """Look once, within ``pace.timeout_s``."""
        begun_s = time.monotonic()
        answer = await runtimeapi.ask(self._socket(), _QUESTION, timeout_s=self.pace.timeout_s)
        verdict, code, detail, view = self._judge(answer)
        return Observation(
            check=self.name,
            scope=self.scope,
            verdict=verdict,
            code=code,
            detail=detail,
            duration_ms=(time.monotonic() - begun_s) * 1000,
            view=view,
        )

    def _judge(self, answer: Answer) -> tuple[Verdict, Code, str, RuntimeView | None]:
        if answer.code is Code.UNK:
            return Verdict.UNKNOWN, Code.UNK, answer.text, None
        if answer.code is not Code.L7OK:
            return Verdict.FAIL, answer.code, answer.text, None
        try:
            view = self._view(answer.text)
        except ValueError as error:
            return Verdict.FAIL, Code.L7RSP, str(error), None
        worker_pid = self._worker_pid()
        if worker_pid not in {0, view.pid}:
            detail = f"answered by pid {view.pid}, not by worker {worker_pid}"
            return Verdict.FAIL, Code.L7RSP, detail, None
        detail = "; ".join(filter(None, ("stopping" if view.stopping else "", view.saturated)))
        return Verdict.PASS, Code.L7OK, detail, view

    def _view(self, text: str) -> RuntimeView:
        """Read the answer; raises ValueError when it is none of HAProxy's."""
        blocks = runtimeapi.replies(text)
        info = runtimeapi.info(blocks[0])
        pid = number(info, "Pid")
        if pid <= 0:
            raise ValueError(f"not an answer of HAProxy's: {blocks[0].splitlines()[0][:80]!r}")
        frontends = runtimeapi.stat(blocks[1], _COLUMNS) if len(blocks) > 1 else []
        idle_pct = number(info, "Idle_pct") if "Idle_pct" in info else 100
        return RuntimeView(
            pid=pid,
            version=info.get("Version", ""),
            stopping=number(info, "Stopping") != 0,
            curr_conns=number(info, "CurrConns"),
            maxconn=number(info, "Maxconn"),
            idle_pct=idle_pct,
            saturated=self._saturated(pid, info, frontends),
        )

    def _saturated(self, pid: int, info: Mapping[str, str], frontends: list[runtimeapi.Row]) -> str:
        """Say what is full, globally first; "" when nothing is."""
        curr_conns, maxconn = number(info, "CurrConns"), number(info, "Maxconn")
        reached = number(info, "MaxconnReached")
        before = self._maxconn_reached
        self._maxconn_reached = (pid, reached)
        if 0 < maxconn <= curr_conns:
            return f"CurrConns {curr_conns} of Maxconn {maxconn}"
        for row in frontends:
            scur, slim = number(row, "scur"), number(row, "slim")
            if 0 < slim <= scur:
                return f"frontend {row.get('pxname', '?')} scur {scur} of slim {slim}"
        if before is not None and before[0] == pid and reached > before[1]:
            return f"MaxconnReached rose by {reached - before[1]} to {reached}"
        return ""
