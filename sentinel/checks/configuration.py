"""Would HAProxy start with the configuration as it is on disk now? ``haproxy -c`` is asked.

Rules of this file: HAProxy is asked with its own service's arguments, environment and folder, and
only when a file of its configuration, or the program itself, has changed; in between a run costs a
few stat calls, in a thread, for a disk may hang. A verdict belongs to the files as they were before
``-c`` began to read them. A pass is no promise that a start succeeds (a port may be taken); a
failure is one that it does not, unless there is a doubt how the service starts (``invocation``):
then it says nothing.
"""

from __future__ import annotations

import errno
import os
import re
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sentinel.model import Code, ConfigurationView, Observation, Scope, Verdict
from sentinel.processes.invocation import Invocation, configured, running
from sentinel.processes.standins import with_inherited
from sentinel.program import Completed, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentinel.aside import Aside
    from sentinel.config import Haproxy, Pace

_MESSAGE: Final = re.compile(
    r"^\[(ALERT|WARNING)\][^(]*\(\d+\) : (?:config : )?(.*)$", re.MULTILINE
)
_ERROR_CHARACTERS: Final = 300
#: A disk that needs longer hangs: what it says then is not waited for.
LOOK_TIMEOUT_S: Final = 3.0
#: The dynamic loader's exit status, for a library that is missing; HAProxy has none like it.
_NOT_LOADED: Final = 127

#: HAProxy has judged, and would say the same again while nothing has changed.
_ANSWERED: Final = frozenset({Code.PROCOK, Code.PROCERR})

#: One file as it was: path, mtime, ctime, size, inode; zeros when it was not there.
_Stamp = tuple[str, int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judgement:
    """What was said about the files as they were."""

    invocation: Invocation
    stamps: tuple[_Stamp, ...]
    observation: Observation


class ConfigurationCheck:
    """``haproxy -c`` with the service's own arguments, whenever one of its files has changed.

    *pid* gives HAProxy's main process, 0 while there is none. What it was started with is kept
    beyond its death in *invocation*; given again to a new object, it survives sentinel's too.
    """

    name: Final = "configuration"
    scope: Final = Scope.CONFIGURATION

    def __init__(
        self,
        settings: Haproxy,
        pace: Pace,
        pid: Callable[[], int],
        aside: Aside,
        invocation: Invocation | None = None,
    ) -> None:
        """Judge what *pid* was started with, until then *invocation* or what the settings say.

        What the disk has is looked at *aside*.
        """
        self.pace: Final = pace
        self.invocation = invocation or configured(settings)
        self._settings = settings
        self._pid = pid
        self._aside = aside
        self._read_pid = 0  # whose command line the invocation is
        self._judged: _Judgement | None = None

    async def __call__(self) -> Observation:
        """Judge the files as they are now; without any change since, the last verdict stands."""
        try:
            stamps = await self._look()
        except TimeoutError as error:
            return _unknown(Code.UNK, str(error))
        except OSError as error:
            return _unknown(Code.UNK, f"cannot look: {error}")
        invocation, judged = self.invocation, self._judged
        if judged is not None and (judged.invocation, judged.stamps) == (invocation, stamps):
            return replace(judged.observation, duration_ms=0.0)
        begun_s = time.monotonic()
        observation = await self._ask(invocation, tuple(path for path, *_ in stamps[1:]))
        observation = replace(observation, duration_ms=(time.monotonic() - begun_s) * 1000)
        if observation.code in _ANSWERED:
            self._judged = _Judgement(invocation=invocation, stamps=stamps, observation=observation)
        return observation

    async def _look(self) -> tuple[_Stamp, ...]:
        """Look at the program and the files, of a new main process at those that are its own.

        Its command line is read once: that of a hung process may block its readers.
        """
        pid = self._pid()
        new_pid = 0 if pid == self._read_pid else pid
        look = partial(_look, new_pid, self._settings, self.invocation)
        found, stamps = await self._aside.run(look, LOOK_TIMEOUT_S)
        if found is not self.invocation:
            self.invocation, self._read_pid = found, pid
        return stamps

    async def _ask(self, invocation: Invocation, files: tuple[str, ...]) -> Observation:
        argv = (invocation.executable, "-c", *invocation.argv)
        try:
            done = await run(
                with_inherited(invocation.inherited, argv),
                timeout_s=self.pace.timeout_s,
                env=dict(invocation.env),
                cwd=invocation.cwd,
            )
        except OSError as error:
            cure = "" if error.errno == errno.EBUSY else "; set haproxy.executable"
            return _unknown(Code.UNK, f"{error.strerror}: {error.filename or argv[0]}{cure}")
        if done.returncode is None:
            return _unknown(Code.PROCTOUT, f"haproxy -c: killed after {self.pace.timeout_s:g} s")
        if done.returncode < 0:
            return _unknown(Code.UNK, f"haproxy -c: ended by signal {-done.returncode}")
        if done.returncode == _NOT_LOADED:
            cure = "give sentinel.service the LD_LIBRARY_PATH that haproxy.service has"
            return _unknown(Code.UNK, f"{done.first_line}; {cure}")
        return _judge(done, files, invocation.doubt)


def _judge(done: Completed, files: tuple[str, ...], doubt: str) -> Observation:
    """Read HAProxy's answer; only its exit code decides (management guide, -c)."""
    messages = _MESSAGE.findall(done.output)
    warnings = [text for level, text in messages if level == "WARNING"]
    if done.returncode == 0:
        first = f", {len(warnings)} warnings: {warnings[0]}" if warnings else ""
        view = ConfigurationView(valid=True, files=files)
        return _observation(Verdict.PASS, Code.PROCOK, f"valid{first}", view)
    error = next((text for level, text in messages if level == "ALERT"), "")
    if not error:  # such as "will not start (no listener)"
        error = done.output.rpartition("\n")[2] or f"exit code {done.returncode}"
    elif "zero-warning" in error and warnings:
        error = f"{warnings[0]} ({error})"
    error = error[:_ERROR_CHARACTERS]
    if "Permission denied" in error and os.geteuid() != 0:
        return _excused(Code.UNK, error, "let sentinel read it: HAProxy starts as root")
    if "Read-only file system" in error:  # a ring's backing-file, in the service's sandbox
        cure = "let sentinel write there: ReadWritePaths= in a drop-in of sentinel.service"
        return _excused(Code.UNK, error, cure)
    if doubt:
        return _excused(Code.PROCERR, error, doubt)
    view = ConfigurationView(valid=False, error=error, files=files)
    return _observation(Verdict.FAIL, Code.PROCERR, error, view)


def _excused(code: Code, error: str, cure: str) -> Observation:
    """Say of an error that it may be of our own making, and how to get rid of it."""
    return _unknown(code, f"{error[: _ERROR_CHARACTERS - len(cure) - 2]}; {cure}")


def _unknown(code: Code, detail: str) -> Observation:
    return _observation(Verdict.UNKNOWN, code, detail, None)


def _observation(
    verdict: Verdict, code: Code, detail: str, view: ConfigurationView | None
) -> Observation:
    return Observation(
        check=ConfigurationCheck.name,
        scope=ConfigurationCheck.scope,
        verdict=verdict,
        code=code,
        detail=detail[:_ERROR_CHARACTERS],
        view=view,
    )


def _look(pid: int, settings: Haproxy, known: Invocation) -> tuple[Invocation, tuple[_Stamp, ...]]:
    """Return how *pid* was started, else what is *known*, and what changes with its files."""
    found = (running(pid, settings, known) if pid else None) or known
    return found, tuple(_stamp(path) for path in (found.executable, *found.files))


def _stamp(path: str) -> _Stamp:
    try:
        seen = Path(path).stat()
    except OSError:
        return (path, 0, 0, 0, 0)
    return (path, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size, seen.st_ino)
