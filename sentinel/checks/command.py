"""The command check: any program of the user's; exit code 0 passes, everything else fails.

As with HAProxy's ``option external-check`` the program is trusted with nothing: at its deadline it
is killed with all it started, and what it prints is bounded.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from sentinel.model import Code, Observation, Scope, Verdict
from sentinel.program import Completed, run

if TYPE_CHECKING:
    from sentinel.config import Command

_DETAIL_CHARACTERS: Final = 300


class CommandCheck:
    """Run one configured program and judge it by its exit code."""

    scope: Final = Scope.COMMAND

    def __init__(self, settings: Command) -> None:
        self.name: Final = settings.name
        self.pace: Final = settings.pace
        self._argv: Final = settings.argv

    async def __call__(self) -> Observation:
        """Run the program once, within ``pace.timeout_s``; UNKNOWN when it cannot be started."""
        begun_s = time.monotonic()
        try:
            verdict, code, detail = self._judge(
                await run(self._argv, timeout_s=self.pace.timeout_s)
            )
        except OSError as error:
            verdict, code = Verdict.UNKNOWN, Code.UNK
            detail = f"{error.strerror}: {error.filename or self._argv[0]}"
        return Observation(
            check=self.name,
            scope=self.scope,
            verdict=verdict,
            code=code,
            detail=detail[:_DETAIL_CHARACTERS],
            duration_ms=(time.monotonic() - begun_s) * 1000,
        )

    def _judge(self, done: Completed) -> tuple[Verdict, Code, str]:
        if done.returncode is None:
            detail = f"killed after {self.pace.timeout_s:g} s: {done.first_line}".removesuffix(": ")
            return Verdict.FAIL, Code.PROCTOUT, detail
        if done.returncode == 0:
            return Verdict.PASS, Code.PROCOK, done.first_line
        ended = "exit code" if done.returncode > 0 else "ended by signal"
        detail = f"{ended} {abs(done.returncode)}: {done.first_line}".removesuffix(": ")
        return Verdict.FAIL, Code.PROCERR, detail
