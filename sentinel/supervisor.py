"""The shell around the core: one TaskGroup, one way in for events, one place that performs actions.

Every check runs in a task of its own and hands what it saw to ``_take``, one event after another.
There ``core.step`` decides, and only then, in this order: the memory is stored, keepalived is told
through the lease and the track file, and the actions begin, the log's lines among them. Actions
report back as events. Nothing else acts, nothing here decides, and nothing can pile up: an event is
done with before the next one comes, and at most one action is under way on each service.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, assert_never

from sentinel import turns
from sentinel.actions import (
    Action,
    KillHaproxy,
    LookAtHaproxy,
    LookAtKeepalived,
    Outcome,
    Recheck,
    RemoveVips,
    Report,
    RestartHaproxy,
    StartKeepalived,
    StopKeepalived,
)
from sentinel.checks import Check
from sentinel.core import Phase, Policy, State, step
from sentinel.core.fence import left
from sentinel.events import (
    CheckRemoved,
    Event,
    Finished,
    HaproxyServiceSeen,
    HookSeen,
    Interrupted,
    KeepalivedServiceSeen,
    Observed,
    Tick,
)
from sentinel.parts import Parts

#: Time passes for the core at this pace while it waits for something; all being well, more slowly,
#: but never so slowly that a lease is not renewed when it is due.
TICK_S: Final = 0.2
TICK_WHILE_UP_S: Final = 1.0
#: A dead keepalived's VIPs have to go when the peer takes them, neither sooner nor later.
TICK_TO_FENCE_S: Final = 0.02
#: systemd's watchdog is fed at most this often, and only by completed steps.
WATCHDOG_EVERY_S: Final = 1.0
#: How often it is looked whether keepalived still calls the hook.
HOOK_EVERY_S: Final = 1.0
HISTORY_MAX: Final = 200
#: At the end, what is under way may take this long: an init script that is killed between its stop
#: and its start would leave HAProxy down.
LAST_ACTION_S: Final = 5.0
SURVEY_EVERY_S: Final = 5.0
#: What was reported, and when (CLOCK_BOOTTIME).
History = deque[tuple[float, Report]]


@dataclass(slots=True, kw_only=True)
class CheckTask:
    """One check being run again and again."""

    check: Check
    task: asyncio.Task[None]
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class _Stopped(Exception):  # noqa: N818  (not an error: it ends the TaskGroup)
    pass


class Supervisor:
    """Runs the checks, steps the core, performs its actions, until it is told to stop."""

    def __init__(self, policy: Policy, state: State, parts: Parts, history: History) -> None:
        """Go on from *state* and *history*, which a predecessor may have left."""
        self.state = state
        self.policy = policy
        self.history = history
        self.steps = 0
        self.lease_written_s = -math.inf
        self._parts = parts
        self._tasks: dict[str, CheckTask] = {}
        self._group = asyncio.TaskGroup()
        self._stopping = asyncio.Event()
        self._performing: set[asyncio.Task[None]] = set()
        self._leased: tuple[bool, int] | None = None
        self._watchdog_s = -math.inf
        self._hurry = asyncio.Event()
        self._incarnation_changed = asyncio.Event()

    def stop(self) -> None:
        """Ask for the end; HAProxy, keepalived and the track file are left as they are."""
        self._stopping.set()

    def wake(self, name: str) -> None:
        """Run the check called *name* now; unknown names are nobody's."""
        if name in self._tasks:
            self._tasks[name].wake.set()

    def tell(self, event: Event) -> None:
        """Take an event from outside: an administrator's order, the kernel's notice."""
        self._take(event)

    def wake_all(self) -> None:
        """Run every check now."""
        for task in self._tasks.values():
            task.wake.set()

    async def run(self) -> State:
        """Supervise until ``stop``; return the last state for a successor."""
        try:
            async with self._group as group:
                for check in self._parts.checks:
                    self._begin(check)
                self._take(Interrupted())
                group.create_task(self._tick())
                group.create_task(self._survey())
                for work in self._parts.beside:
                    group.create_task(work())
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
        self._tasks[check.name] = CheckTask(check=check, task=task, wake=wake)

    def _end(self, name: str) -> None:
        """Forget a check; a predecessor may have known it without its being watched now."""
        if name in self._tasks:
            self._tasks.pop(name).task.cancel()
        checks = {key: known for key, known in self.policy.checks.items() if key != name}
        self.policy = replace(self.policy, checks=checks)
        self._take(CheckRemoved(check=name))

    async def _watch(self, check: Check, wake: asyncio.Event) -> None:
        """Run *check* at its pace; it is judged before its next interval is chosen."""
        while True:
            wake.clear()
            begun_s, incarnation = self._parts.clock(), self.state.incarnation
            observation = await turns.look(check)
            self._take(Observed(observation=observation, incarnation=incarnation, begun_s=begun_s))
            await turns.wait(wake, turns.interval_s(check, self.state))

    async def _tick(self) -> None:
        """Let time pass, and see to what nobody else would."""
        hook_s = -math.inf
        while True:
            self._hurry.clear()
            now_s = self._parts.clock()
            self._take(Tick())
            if now_s - hook_s >= HOOK_EVERY_S:
                hook_s = now_s
                self._take(HookSeen(age_s=self._parts.files.called_age_s(now_s)))
            self._parts.log.retry()
            await turns.wait(self._hurry, self._tick_s())

    def _tick_s(self) -> float:
        if left(self.state.vrrp):
            return TICK_TO_FENCE_S
        if self.state.phase is not Phase.UP:
            return TICK_S
        return max(TICK_S, min(TICK_WHILE_UP_S, self._parts.renew_every_s))

    async def _survey(self) -> None:
        """Follow HAProxy's frontends, at every new incarnation and now and then in between.

        What a new one's configuration says (its stats socket) is used at once.
        """
        surveyed = -1
        while True:
            self._incarnation_changed.clear()
            new, surveyed = surveyed != self.state.incarnation, self.state.incarnation
            found = await self._parts.discover(self.state)
            if found is not None:
                self._follow({check.name: check for check in found})
            if new:
                self.wake_all()
            await turns.wait(self._incarnation_changed, SURVEY_EVERY_S)

    def _follow(self, found: Mapping[str, Check]) -> None:
        """Run exactly the discovered checks that were found, beside the fixed ones.

        One of the same name that is another object asks something else, and begins anew.
        """
        wanted = {**{check.name: check for check in self._parts.checks}, **found}
        for name in self._tasks.keys() | self.state.checks.keys():
            known = self._tasks.get(name)
            if name not in wanted or (known is not None and known.check is not wanted[name]):
                self._end(name)
        for name, check in wanted.items():
            if name not in self._tasks:
                self._begin(check)

    # --- deciding -------------------------------------------------------------------------------

    def _take(self, event: Event) -> None:
        """Take one event; the one place where the state changes."""
        before, now_s = self.state, self._parts.clock()
        self.state, actions = step(self.policy, before, event, now_s)
        self._publish(now_s)
        for action in actions:
            self._begin_action(action)
        self.steps += 1
        if self.state.phase is not before.phase or left(self.state.vrrp) != left(before.vrrp):
            self._hurry.set()
        if self.state.incarnation != before.incarnation:
            self._incarnation_changed.set()
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
        told = self.state.standing
        if told is None:
            return
        due = now_s - self.lease_written_s >= self._parts.renew_every_s
        word = (told.serving, told.lowered)
        if due or word != self._leased:
            self._parts.files.write(serving=told.serving, lowered=told.lowered, now_s=now_s)
            self.lease_written_s, self._leased = now_s, word

    # --- acting ---------------------------------------------------------------------------------

    def _begin_action(self, action: Action) -> None:
        match action:
            case Report():
                self.history.append((self._parts.clock(), action))
                self._parts.log.emit(action.name, action.level, dict(action.fields))
            case Recheck(checks=names):
                for name in names:
                    self.wake(name)
            case _ if self._stopping.is_set():
                pass  # it would be killed half way; a successor hears that it was given up
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
                self._take(HaproxyServiceSeen(service=service, begun_s=begun_s))
                self.wake("process")
                return
            case LookAtKeepalived():
                self._take(KeepalivedServiceSeen(service=await parts.keepalived.look()))
                return
            case Recheck() | Report():
                raise AssertionError(action)
        outcome = self._skip(action) if parts.dry_run else await self._act(action)
        self._take(Finished(action=action, ok=outcome.ok, detail=outcome.detail))

    async def _act(
        self,
        action: RestartHaproxy | KillHaproxy | StopKeepalived | StartKeepalived | RemoveVips,
    ) -> Outcome:
        """Change the world; the one place that does."""
        parts = self._parts
        match action:
            case RestartHaproxy():
                if action.kill_first:
                    parts.kill(action.kill_first)
                outcome = await parts.haproxy.restart()
                self.wake("process")
                return outcome
            case KillHaproxy(procs=procs):
                return parts.kill(procs)
            case StopKeepalived():
                return await parts.keepalived.stop()
            case StartKeepalived():
                outcome = await parts.keepalived.start()
                self.wake("vrrp")
                return outcome
            case RemoveVips(vips=vips):
                # the last first: one that has secondaries is refused while they are here
                outcomes = [await parts.remove_vip(vip) for vip in reversed(vips)]
                self.wake("vrrp")
                failures = [outcome.detail for outcome in outcomes if not outcome.ok]
                return Outcome(ok=not failures, detail="; ".join(failures))
            case _:
                assert_never(action)

    def _skip(self, action: Action) -> Outcome:
        fields = {"action": repr(action), "reason": "dry run"}
        self._parts.log.emit("action.skipped", "warning", fields)
        return Outcome(ok=False, detail="dry run")
