"""A check's turns: how long one may take, and how long it is until the next."""

from __future__ import annotations

import asyncio
from typing import Final

from sentinel.checks import Check
from sentinel.core import Phase, State
from sentinel.model import Code, Observation, Scope, Verdict

#: A check keeps its own deadline; this much later it is no longer believed that it does.
OVERRUN_S: Final = 2.0
#: What is due within the same tenth of a second costs the processor one wake-up, not several.
GRID_S: Final = 0.1
#: While HAProxy is being mended the checks that can prove it hurry.
MENDING_INTER_S: Final = 0.05
_PROOF: Final = frozenset({Scope.PROCESS, Scope.RUNTIME, Scope.FRONTEND})


def interval_s(check: Check, state: State) -> float:
    """Choose inter, fastinter or downinter as HAProxy does."""
    if state.phase is Phase.MENDING and check.scope in _PROOF:
        return min(MENDING_INTER_S, check.pace.fastinter_s)
    known = state.checks.get(check.name)
    if known is None or not known.health.settled or state.phase is Phase.HUNG:
        return check.pace.fastinter_s
    return check.pace.inter_s if known.health.up else check.pace.downinter_s


async def look(check: Check) -> Observation:
    """Run *check* once; one that overruns its own deadline is broken, and so UNKNOWN."""
    try:
        async with asyncio.timeout(check.pace.timeout_s + OVERRUN_S):
            return await check()
    except TimeoutError:
        return Observation(
            check=check.name,
            scope=check.scope,
            verdict=Verdict.UNKNOWN,
            code=Code.UNK,
            detail="the check did not end at its own deadline",
        )


async def wait(wake: asyncio.Event, at_most_s: float) -> None:
    """Wait until *wake* is set, at the longest for so long; all but hurried waits end on the grid.

    A timer alone: a timeout would throw a CancelledError at every interval's end.
    """
    loop = asyncio.get_running_loop()
    due_s = loop.time() + at_most_s
    if at_most_s > GRID_S:
        due_s = round(due_s / GRID_S) * GRID_S
    timer = loop.call_at(due_s, wake.set)
    try:
        await wake.wait()
    finally:
        timer.cancel()
