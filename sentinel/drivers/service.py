"""The service manager: the one way in which HAProxy and keepalived are started and stopped.

Rules of this file: every call has a deadline of our own and is killed with its group at it; what
goes wrong comes back as an Outcome in words, or as a ServiceState that is not known, never as an
exception. Nothing is ever started beside the manager, so there is never a second HAProxy. An
administrator's pending stop is never overridden.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sentinel.actions import Outcome
from sentinel.config import Haproxy, Keepalived, Manager
from sentinel.model import ServiceState
from sentinel.program import run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: A look decides between waiting and acting: it is worth little later, and systemd answers in
#: milliseconds unless it reloads or is hung.
LOOK_TIMEOUT_S: Final = 2.0
#: Exists exactly where systemd is the init system: sd_booted(3).
SYSTEMD_BOOTED: Final = Path("/run/systemd/system")
_PROPERTIES: Final = "LoadState,ActiveState,SubState,Result,Job,MainPID,NRestarts"
#: What systemctl says of a start job that another job, which can only be a stop, has cancelled.
_CANCELLED: Final = re.compile(r"\bJob for \S+ (?:was )?cancell?ed\b")
_DIGITS_MAX: Final = 20  # no number of systemd's is longer
_UNKNOWN: Final = ServiceState(known=False, active="unknown", sub="", result="")


class SystemdService:
    """One unit of systemd, asked and told through ``systemctl``.

    *main_pid* is the unit's last known main process, 0 when there was none.
    """

    def __init__(self, unit: str, timeout_s: float, systemctl: str = "systemctl") -> None:
        self.unit = unit
        self.main_pid = 0
        self._timeout_s = timeout_s
        self._systemctl = systemctl
        self._seen: ServiceState | None = None  # since the last call that may have changed it
        self._start_cancelled = False

    async def look(self) -> ServiceState:
        """Ask systemd about the unit; one that systemd does not have is not known to us either."""
        self._seen = await self._ask()
        return self._seen

    async def loaded(self) -> bool:
        """Tell whether the unit is systemd's to run; a systemd that cannot answer keeps it."""
        timeout_s = min(self._timeout_s, LOOK_TIMEOUT_S)
        shown = await self._call("show", "--property=LoadState", timeout_s=timeout_s)
        return _properties(shown.detail).get("LoadState") != "not-found"

    async def start(self) -> Outcome:
        """Start the unit; where a start would wait or do nothing it is restarted instead.

        systemd before 254 lets a start wait for the end of RestartSec's pause, and a unit that
        stays active without its processes, as an init script's does, needs none for systemd.
        """
        before = self._seen or await self.look()
        again = before.sub in {"auto-restart", "exited"}
        return await self._bring_up("restart" if again else "start")

    async def restart(self) -> Outcome:
        """Bring the unit up anew, at once: unlike start, this ends an automatic restart's pause.

        A hung main process has to be killed first, or systemd waits for it for TimeoutStopSec.
        """
        return await self._bring_up("restart")

    async def stop(self) -> Outcome:
        """Stop the unit; this replaces a start that is pending."""
        outcome = await self._call("stop")
        return outcome if outcome.ok else await self._explained(outcome)

    async def _bring_up(self, verb: str) -> Outcome:
        """Start or restart; what systemd refuses is started once after ``reset-failed``.

        Once its start limit is hit, systemd refuses every start until then (systemd.unit(5),
        StartLimitBurst=), and after a crash loop Result does not say so: any failed unit is reset.
        How often we try is limited by our own budget. The job mode makes systemd refuse us where
        a stop is pending, instead of cancelling what an administrator asked for.
        """
        before = self._seen or await self.look()
        refused = before.active == "failed"
        if not refused:
            outcome = await self._call(verb, "--job-mode=fail")
            refused = not outcome.ok and (await self.look()).result == "start-limit-hit"
        if refused:
            await self._call("reset-failed")
            outcome = await self._call("start", "--job-mode=fail")
        self._start_cancelled = bool(_CANCELLED.search(outcome.detail)) and not outcome.ok
        if outcome.ok:
            await self._ask()  # who looks for the new main process finds it in main_pid
            return outcome
        return await self._explained(outcome)

    async def _ask(self) -> ServiceState:
        timeout_s = min(self._timeout_s, LOOK_TIMEOUT_S)
        shown = await self._call("show", f"--property={_PROPERTIES}", timeout_s=timeout_s)
        if not shown.ok:
            return replace(_UNKNOWN, detail=shown.detail)
        state = _state(_properties(shown.detail), self.unit)
        if not state.known:
            return state
        self.main_pid = state.main_pid
        if state.active in {"active", "activating", "reloading"}:
            self._start_cancelled = False
        return replace(state, start_cancelled=self._start_cancelled)

    async def _explained(self, outcome: Outcome) -> Outcome:
        """Add what became of the unit: systemctl says much the same of all failures."""
        state = self._seen or await self.look()
        if not state.known:
            return outcome
        job = ", a job is pending" if state.job_pending else ""
        where = f"unit is {state.active} ({state.sub}), result {state.result}{job}"
        return replace(outcome, detail=f"{outcome.detail}; {where}")

    async def _call(self, verb: str, *options: str, timeout_s: float | None = None) -> Outcome:
        if verb != "show":
            self._seen = None
        argv = (self._systemctl, "--no-ask-password", "--no-pager", *options, verb, self.unit)
        name = f"systemctl {verb} {self.unit}"
        return await _perform(name, argv, self._timeout_s if timeout_s is None else timeout_s)


class CommandService:
    """A service run by plain commands, such as ``/etc/init.d/haproxy start|stop|restart``.

    *alive* tells whether the service has a process now: many init scripts refuse to restart what
    does not run. An empty *restart* is a stop and a start.
    """

    main_pid: Final = 0  # commands cannot tell

    def __init__(
        self,
        *,
        start: Sequence[str],
        stop: Sequence[str],
        restart: Sequence[str] = (),
        timeout_s: float,
        alive: Callable[[], bool],
    ) -> None:
        self._start = start
        self._stop = stop
        self._restart = restart
        self._timeout_s = timeout_s
        self._alive = alive

    async def look(self) -> ServiceState:
        """Answer that nothing can be known; no command tells a stop from a crash."""
        return replace(_UNKNOWN, has_jobs=False, detail="plain commands have no state")

    async def start(self) -> Outcome:
        """Run the start command; its exit code is no proof that the service lives."""
        return await self._run(self._start)

    async def stop(self) -> Outcome:
        """Run the stop command."""
        return await self._run(self._stop)

    async def restart(self) -> Outcome:
        """Run the restart command, or the start command when nothing lives to be stopped."""
        if not self._alive():
            return await self.start()
        if self._restart:
            return await self._run(self._restart)
        stopped = await self.stop()
        return await self.start() if stopped.ok else stopped

    async def _run(self, argv: Sequence[str]) -> Outcome:
        return await _perform(" ".join(argv), argv, self._timeout_s)


Service = SystemdService | CommandService


async def choose(
    settings: Haproxy | Keepalived,
    *,
    alive: Callable[[], bool],
    systemctl: str = "systemctl",
    booted: Path = SYSTEMD_BOOTED,
) -> Service:
    """Return the manager that *settings* name; AUTO is systemd wherever it runs the unit.

    The folder *booted* exists exactly where systemd is the init system.
    """
    systemd = SystemdService(settings.unit, settings.command_timeout_s, systemctl)
    commands = CommandService(
        start=settings.start,
        stop=settings.stop,
        restart=settings.restart if isinstance(settings, Haproxy) else (),
        timeout_s=settings.command_timeout_s,
        alive=alive,
    )
    match settings.manager:
        case Manager.SYSTEMD:
            return systemd
        case Manager.COMMANDS:
            return commands
        case Manager.AUTO:
            return systemd if _exists(booted) and await systemd.loaded() else commands


def _exists(folder: Path) -> bool:
    return folder.is_dir()


async def _perform(name: str, argv: Sequence[str], timeout_s: float) -> Outcome:
    """Run one command; *name* is what it is called in words."""
    try:
        done = await run(argv, timeout_s=timeout_s)
    except OSError as error:
        return Outcome(ok=False, detail=f"{name}: {error.strerror}: {argv[0]}")
    said = f": {done.first_line}" if done.first_line else ""
    if done.timed_out:
        return Outcome(ok=False, detail=f"{name}: killed after {timeout_s:g} s{said}")
    if done.returncode != 0:
        return Outcome(ok=False, detail=f"{name}: exit code {done.returncode}{said}")
    return Outcome(ok=True, detail=done.output)


def _properties(shown: str) -> dict[str, str]:
    """Read the ``Key=Value`` lines of ``systemctl show``."""
    return {key: value for key, _, value in (line.partition("=") for line in shown.splitlines())}


def _state(properties: dict[str, str], unit: str) -> ServiceState:
    """Read systemd's answer; it may name no state, or be about a unit that does not exist."""
    load, active = properties.get("LoadState"), properties.get("ActiveState")
    if load == "not-found":
        return replace(_UNKNOWN, detail=f"systemd has no unit {unit}")
    if not load or not active:
        return replace(_UNKNOWN, detail=f"systemctl show {unit}: its answer names no state")
    return ServiceState(
        active=active,
        sub=properties.get("SubState", ""),
        result=properties.get("Result", ""),
        job_pending=_number(properties.get("Job")) != 0,
        masked=load == "masked",
        main_pid=_number(properties.get("MainPID")),
        restarts=_number(properties.get("NRestarts")),
    )


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() and len(text) < _DIGITS_MAX else 0
