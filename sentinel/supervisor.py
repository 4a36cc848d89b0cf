"""The shell around the core: one TaskGroup, one bounded queue, one place that performs actions.

Every check runs in a task of its own and puts what it saw on the queue. One loop takes the events
off it in order, lets ``core.step`` decide, and only then, in this order: stores the memory, tells
keepalived through the lease and the track file, logs, and begins the actions. Actions report back
as events. Nothing else acts, and nothing here decides.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final, assert_never

from sentinel.checks import Check
from sentinel.core import Phase, Policy, State, step
from sentinel.core.evidence import standing
from sentinel.model import (
    Action,
    CheckRemoved,
    Code,
    Event,
    Finished,
    HaproxyServiceSeen,
    HookSeen,
    KeepalivedServiceSeen,
    KillHaproxy,
    LookAtHaproxy,
    LookAtKeepalived,
    Observation,
    Observed,
    Recheck,
    Report,
    RestartHaproxy,
    StartKeepalived,
    StopKeepalived,
    Tick,
    Verdict,
)
from sentinel.parts import Parts

TICK_S: Final = 0.2
#: systemd's watchdog is fed at most this often, and only by completed steps.
WATCHDOG_EVERY_S: Final = 1.0
QUEUE_MAX: Final = 1000
HISTORY_MAX: Final = 200
#: At the end, what is under way may take this long: an init script that is killed between its stop
#: and its start would leave HAProxy down.
LAST_ACTION_S: Final = 5.0
SURVEY_EVERY_TICKS: Final = 25
#: A check keeps its own deadline; this much later the supervisor stops believing that it does.
OVERRUN_S: Final = 2.0
#: While HAProxy is being mended every check hurries, so that proof is had at once.
MENDING_INTER_S: Final = 0.05


@dataclass(slots=True, kw_only=True)
class Watch:
    """One check being run again and again."""

    check: Check
    task: asyncio.Task[None]
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class _Stopped(Exception):  # noqa: N818  (not an error: it ends the TaskGroup)
    pass


class Supervisor:
    """Runs the checks, steps the core, performs its actions, until it is told to stop."""

    def __init__(self, policy: Policy, state: State, parts: Parts) -> None:
        self.state = state
        self.policy = policy
        self.history: deque[tuple[float, Report]] = deque(maxlen=HISTORY_MAX)
        self.steps = 0
        self._parts = parts
        self._queue: asyncio.Queue[Event] = asyncio.Queue(QUEUE_MAX)
        self._watches: dict[str, Watch] = {}
        self._group = asyncio.TaskGroup()
        self._stopping = asyncio.Event()
        self._performing: set[asyncio.Task[None]] = set()
        self.lease_written_s = -math.inf
        self._leased: bool | None = None
        self._watchdog_s = -math.inf
        self._surveyed = -1  # the incarnation whose frontends are followed
        self._met = 0  # the newest incarnation that was looked at all round

    def stop(self) -> None:
        """Ask for the end; HAProxy, keepalived and the track file are left as they are."""
        self._stopping.set()

    def wake(self, name: str) -> None:
        """Run the check called *name* now; unknown names are nobody's."""
        if name in self._watches:
            self._watches[name].wake.set()

    def wake_all(self) -> None:
        """Run every check now."""
        for watch in self._watches.values():
            watch.wake.set()

    async def run(self) -> State:
        """Supervise until ``stop``; return the last state for a successor."""
        try:
            async with self._group as group:
                for check in self._parts.checks:
                    self._begin(check)
                group.create_task(self._tick())
                group.create_task(self._survey())
                group.create_task(self._decide())
                await self._stopping.wait()
                if self._performing:
                    await asyncio.wait(self._performing, timeout=LAST_ACTION_S)
                raise _Stopped  # noqa: TRY301  (it cancels whatever is still under way)
        except* _Stopped:
            pass
        return self.state

    # --- seeing ---------------------------------------------------------------------------------

    def _begin(self, check: Check) -> None:
        self.policy = replace(
            self.policy,
            checks={**self.policy.checks, check.name: self._parts.check_policy(check)},
        )
        wake = asyncio.Event()
        task = self._group.create_task(self._watch(check, wake), name=check.name)
        self._watches[check.name] = Watch(check=check, task=task, wake=wake)

    async def _end(self, name: str) -> None:
        self._watches.pop(name).task.cancel()
        checks = {key: known for key, known in self.policy.checks.items() if key != name}
        self.policy = replace(self.policy, checks=checks)
        await self._queue.put(CheckRemoved(check=name))

    async def _watch(self, check: Check, wake: asyncio.Event) -> None:
        """Run *check* at its pace; it is judged before its next interval is chosen."""
        while True:
            wake.clear()
            begun_s, incarnation = self._parts.clock(), self.state.incarnation
            observation = await _look(check)
            await self._queue.put(
                Observed(observation=observation, incarnation=incarnation, begun_s=begun_s)
            )
            await self._queue.join()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval_s(check)):
                    await wake.wait()

    def _interval_s(self, check: Check) -> float:
        """Choose inter, fastinter or downinter as HAProxy does."""
        if self.state.phase is Phase.MENDING:
            return min(MENDING_INTER_S, check.pace.fastinter_s)
        known = self.state.checks.get(check.name)
        if known is None or not known.health.settled or self.state.phase is Phase.HUNG:
            return check.pace.fastinter_s
        return check.pace.inter_s if known.health.up else check.pace.downinter_s

    async def _tick(self) -> None:
        while True:
            now_s = self._parts.clock()
            await self._queue.put(Tick())
            await self._queue.put(HookSeen(age_s=self._parts.claim.called_age_s(now_s)))
            self._parts.log.retry()
            await asyncio.sleep(TICK_S)

    async def _survey(self) -> None:
        """Follow HAProxy's frontends, at every new incarnation and now and then in between.

        What a new one's configuration says (its stats socket) is used at once.
        """
        while True:
            new = self._surveyed != self.state.incarnation
            self._surveyed = self.state.incarnation
            found = await self._parts.discover(self.state)
            if found is not None:
                await self._follow({check.name: check for check in found})
            if new:
                self.wake_all()
            for _ in range(SURVEY_EVERY_TICKS):
                await asyncio.sleep(TICK_S)
                if self._surveyed != self.state.incarnation:
                    break

    async def _follow(self, found: Mapping[str, Check]) -> None:
        """Run exactly the discovered checks that were found, beside the fixed ones."""
        fixed = {check.name for check in self._parts.checks}
        for name in [name for name in self._watches if name not in fixed | found.keys()]:
            await self._end(name)
        for name, check in found.items():
            if name not in self._watches:
                self._begin(check)

    # --- deciding -------------------------------------------------------------------------------

    async def _decide(self) -> None:
        """Take the events in order; the one place where the state changes."""
        parts = self._parts
        while True:
            event = await self._queue.get()
            now_s = parts.clock()
            self.state, actions = step(self.policy, self.state, event, now_s)
            self._publish(now_s)
            for action in actions:
                self._begin_action(action)
            self.steps += 1
            self._queue.task_done()
            if self.state.incarnation != self._met:
                self._met = self.state.incarnation
                self.wake_all()

    def _publish(self, now_s: float) -> None:
        """Let the world know before anything is done: memory, keepalived, our own watchdog."""
        parts = self._parts
        if not parts.dry_run:
            parts.memory.save(self.state.memory)
            self._renew(now_s)
        if now_s - self._watchdog_s >= WATCHDOG_EVERY_S:
            self._watchdog_s = now_s
            parts.notifier.watchdog()

    def _renew(self, now_s: float) -> None:
        """Renew the lease when it is due, or at once when its word changes."""
        verdict = standing(self.policy, self.state, now_s)
        if verdict is None:
            return
        due = now_s - self.lease_written_s >= self._parts.renew_every_s
        if due or verdict.serving is not self._leased:
            self._parts.claim.write(serving=verdict.serving, now_s=now_s)
            self.lease_written_s, self._leased = now_s, verdict.serving

    # --- acting ---------------------------------------------------------------------------------

    def _begin_action(self, action: Action) -> None:
        match action:
            case Report():
                self.history.append((self._parts.clock(), action))
                self._parts.log.emit(action.name, action.level, dict(action.fields))
            case Recheck(checks=names):
                for name in names:
                    self.wake(name)
            case _ if self._parts.dry_run and not isinstance(
                action, LookAtHaproxy | LookAtKeepalived
            ):
                self._parts.log.emit(
                    "action.skipped", "warning", {"action": repr(action), "reason": "dry run"}
                )
                self._group.create_task(
                    self._queue.put(Finished(action=action, ok=False, detail="dry run"))
                )
            case _:
                task = self._group.create_task(self._perform(action))
                self._performing.add(task)
                task.add_done_callback(self._performing.discard)

    async def _perform(self, action: Action) -> None:
        """Carry out one action; whatever comes of it comes back as an event."""
        parts = self._parts
        match action:
            case LookAtHaproxy():
                begun_s = parts.clock()
                service = await parts.haproxy.look()
                await self._queue.put(HaproxyServiceSeen(service=service, begun_s=begun_s))
                self.wake("process")
                return
            case LookAtKeepalived():
                service = await parts.keepalived.look()
                await self._queue.put(KeepalivedServiceSeen(service=service))
                return
            case RestartHaproxy():
                if action.kill_first:
                    parts.kill(action.kill_first)
                outcome = await parts.haproxy.restart()
                self.wake("process")
            case KillHaproxy(procs=procs):
                outcome = parts.kill(procs)
            case StopKeepalived():
                outcome = await parts.keepalived.stop()
            case StartKeepalived():
                outcome = await parts.keepalived.start()
            case Recheck() | Report():
                raise AssertionError(action)
            case _:
                assert_never(action)
        await self._queue.put(Finished(action=action, ok=outcome.ok, detail=outcome.detail))


async def _look(check: Check) -> Observation:
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
