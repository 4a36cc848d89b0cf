"""The shell around the core, with fakes behind its Protocols and a clock that jumps.

What the core decides is its own tests' business; here it is when and in which order the world is
asked, told and changed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import autojump
import pytest

from sentinel.actions import Outcome, RestartHaproxy
from sentinel.checks import Check
from sentinel.config import Pace
from sentinel.core import CheckPolicy, Memory, Phase, Policy, State
from sentinel.events import InstanceTakenOver
from sentinel.model import (
    Code,
    Instance,
    Observation,
    Proc,
    ProcessView,
    Scope,
    ServiceState,
    Verdict,
)
from sentinel.parts import Parts
from sentinel.supervisor import LAST_ACTION_S, History, Supervisor
from sentinel.turns import OVERRUN_S
from sentinel.vrrp import InstanceView, Vip, VrrpInstance, VrrpView

COMMANDS = ServiceState(known=False, active="unknown", sub="", has_jobs=False)
RENEW_S = 0.5
WELL = Outcome(ok=True)
PACE = Pace(inter_s=1.0, fastinter_s=0.3, downinter_s=3.0, timeout_s=0.5, rise=2, fall=3)


# --- fakes ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Diary:
    """Everything that was done to the world, in order, each with its time."""

    entries: list[tuple[float, str, Any]] = field(default_factory=list)

    def note(self, what: str, detail: object = None) -> None:
        """Write one line."""
        self.entries.append((autojump.now_s(), what, detail))

    def of(self, what: str) -> list[Any]:
        """Return the details of all lines about *what*."""
        return [detail for _, kind, detail in self.entries if kind == what]

    def times(self, what: str) -> list[float]:
        """Return when *what* happened."""
        return [at_s for at_s, kind, _ in self.entries if kind == what]

    def kinds(self) -> list[str]:
        """Return what happened, in order."""
        return [kind for _, kind, _ in self.entries]


@dataclass(slots=True)
class FakeService:
    """A service whose calls take *takes_s* and end with *outcome*."""

    name: str
    diary: Diary
    takes_s: float = 0.01
    outcome: Outcome = WELL
    on_restart: Callable[[], None] = lambda: None
    under_way: int = 0
    under_way_max: int = 0

    async def look(self) -> ServiceState:
        """Say nothing, as plain commands do."""
        self.diary.note(f"look at {self.name}")
        return COMMANDS

    async def start(self) -> Outcome:
        """Take the time, and report."""
        return await self._do("start")

    async def stop(self) -> Outcome:
        """Take the time, and report."""
        return await self._do("stop")

    async def restart(self) -> Outcome:
        """Take the time, and report."""
        outcome = await self._do("restart")
        self.on_restart()
        return outcome

    async def _do(self, verb: str) -> Outcome:
        self.diary.note(f"{verb} {self.name}")
        self.under_way += 1
        self.under_way_max = max(self.under_way, self.under_way_max)
        try:
            await asyncio.sleep(self.takes_s)
        except asyncio.CancelledError:
            self.diary.note(f"{verb} {self.name} cancelled")
            raise
        finally:
            self.under_way -= 1
        self.diary.note(f"{verb} {self.name} ended")
        return self.outcome


@dataclass(slots=True)
class FakeWorld:
    """Claim, log, notifier and memory in one: all they do is to be noted."""

    diary: Diary
    saved: Memory | None = None

    def write(self, *, serving: bool, lowered: int = 0, now_s: float) -> None:
        """Note a lease."""
        assert lowered == 0
        assert now_s == autojump.now_s()
        self.diary.note("lease", serving)

    def called_age_s(self, now_s: float) -> float | None:
        """Note that the hook's sign was looked for."""
        self.diary.note("sign", now_s)
        return 0.5

    def emit(self, name: str, level: str, fields: Mapping[str, str | int | float]) -> None:
        """Note an event."""
        self.diary.note("log", (name, level, dict(fields)))

    def retry(self) -> None:
        """Note that the log had its chance."""
        self.diary.note("retry")

    def watchdog(self) -> None:
        """Note that systemd was fed."""
        self.diary.note("watchdog")

    def save(self, value: Memory) -> None:
        """Note a memory that is new."""
        if value != self.saved:
            self.saved = value
            self.diary.note("memory", value)


@dataclass(slots=True)
class FakeCheck:
    """A check that answers what *answer* gives."""

    name: str
    scope: Scope
    diary: Diary
    answer: Callable[[], Awaitable[Observation]]
    pace: Pace = PACE

    async def __call__(self) -> Observation:
        """Note the run, and answer."""
        self.diary.note(f"run {self.name}")
        return await self.answer()


def observation(
    name: str, scope: Scope, verdict: Verdict = Verdict.PASS, **more: Any
) -> Observation:
    """Return a result of the check *name*."""
    code = Code.L7OK if verdict is Verdict.PASS else Code.L4CON
    return Observation(check=name, scope=scope, verdict=verdict, code=code, **more)


class Stage:
    """A supervisor with all its fakes; HAProxy is process *worker*, dead while that is 0."""

    def __init__(
        self,
        *more: FakeCheck,
        diary: Diary | None = None,
        state: State | None = None,
        history: History | None = None,
        policy: Policy | None = None,
        dry_run: bool = False,
        process_inter_s: float = 0.2,
    ) -> None:
        """Run *more* beside the process check; *diary* is the one that they write in."""
        self.diary = diary or Diary()
        self.worker = 100
        self.found: tuple[FakeCheck, ...] | None = ()
        self.haproxy = FakeService("haproxy", self.diary, on_restart=self._reborn)
        self.keepalived = FakeService("keepalived", self.diary)
        self.world = FakeWorld(self.diary)
        pace = Pace(
            inter_s=process_inter_s, fastinter_s=process_inter_s, downinter_s=process_inter_s
        )
        process = FakeCheck("process", Scope.PROCESS, self.diary, self._process, pace)
        self.supervisor = Supervisor(
            policy or Policy(checks={}, restart_budget=2),
            state or State(),
            Parts(
                haproxy=self.haproxy,
                keepalived=self.keepalived,
                kill=self._kill,
                remove_vip=self._remove,
                files=self.world,
                renew_every_s=RENEW_S,
                log=self.world,
                notifier=self.world,
                memory=self.world,
                clock=autojump.now_s,
                checks=(process, *more),
                discover=self._discover,
                check_policy=_policy_of,
                dry_run=dry_run,
            ),
            deque() if history is None else history,
        )

    def _reborn(self) -> None:
        self.worker += 1 if self.worker else 200

    async def _remove(self, vip: Vip) -> Outcome:
        self.diary.note("remove", vip)
        return WELL

    def _kill(self, procs: tuple[Proc, ...]) -> Outcome:
        self.diary.note("kill", procs)
        self.worker = 0
        return Outcome(ok=True)

    async def _process(self) -> Observation:
        if not self.worker:
            view = ProcessView(instance=None)
            return observation("process", Scope.PROCESS, Verdict.FAIL, detail="it died", view=view)
        proc = Proc(pid=self.worker, start_ticks=1)
        view = ProcessView(instance=Instance(master=None, worker=proc))
        return observation("process", Scope.PROCESS, view=view)

    async def _discover(self, _state: State) -> tuple[Check, ...] | None:
        self.diary.note("discover")
        return self.found

    async def play(self, *scenes: Callable[[], None] | float) -> State:
        """Run the supervisor; scenes are changes of the world, and pauses between them."""
        async with asyncio.TaskGroup() as group:
            run = group.create_task(self.supervisor.run())
            for scene in scenes:
                if callable(scene):
                    scene()
                else:
                    await asyncio.sleep(scene)
            self.supervisor.stop()
            return await run

    def dies(self) -> None:
        """Let HAProxy die."""
        self.worker = 0


def _policy_of(check: Check) -> CheckPolicy:
    """Judge every check alike; the process check at its first word."""
    process = check.scope is Scope.PROCESS
    return CheckPolicy(
        scope=check.scope,
        rise=1 if process else check.pace.rise,
        fall=1 if process else check.pace.fall,
        yields=check.scope is Scope.FRONTEND,
    )


def gaps(times: Sequence[float]) -> list[float]:
    """Return the pauses between *times*."""
    return [round(b - a, 3) for a, b in pairwise(times)]


# --- deciding -------------------------------------------------------------------------------------


@autojump.jumping
async def test_the_world_is_told_before_it_is_changed() -> None:
    """Memory, then keepalived, then the log, then the action; and the restart is remembered."""
    stage = Stage()
    await stage.play(1.0, stage.dies, 2.0)
    kinds = stage.diary.kinds()
    assert stage.diary.of("memory")[-1].attempt == 1
    spent = next(
        index
        for index, (_, kind, detail) in enumerate(stage.diary.entries)
        if kind == "memory" and detail.attempt == 1
    )
    restart = kinds.index("restart haproxy")
    yielded = next(
        index
        for index, (_, kind, detail) in enumerate(stage.diary.entries)
        if (kind, detail) == ("lease", False)
    )
    told = [detail[0] for _, kind, detail in stage.diary.entries[:restart] if kind == "log"]
    assert max(spent, yielded) < restart
    assert {"haproxy.died", "phase.changed"} <= set(told)
    step = kinds[spent : restart + 1]
    assert step.index("log") > step.index("memory")
    assert stage.supervisor.state.phase is Phase.UP


@autojump.jumping
async def test_a_lease_is_renewed_in_time_and_its_word_changes_at_once() -> None:
    """Never later than due, and FAIL in the very step that knows it."""
    stage = Stage()
    stage.haproxy.takes_s = 0.3
    await stage.play(5.0, stage.dies, 3.0)
    times = stage.diary.times("lease")
    assert max(gaps(times)) <= RENEW_S + 0.25
    died_s = next(
        at_s
        for at_s, kind, detail in stage.diary.entries
        if kind == "log" and detail[0] == "haproxy.died"
    )
    leases = zip(times, stage.diary.of("lease"), strict=True)
    assert next(at_s for at_s, serving in leases if not serving) == died_s


@autojump.jumping
async def test_the_watchdog_is_fed_by_steps_once_a_second() -> None:
    """Each meal follows a step; between two there is a second."""
    stage = Stage()
    await stage.play(10.0)
    meals = stage.diary.times("watchdog")
    assert 9 <= len(meals) <= 11
    assert min(gaps(meals)) >= 1.0


@autojump.jumping
async def test_a_bug_is_not_survived() -> None:
    """An exception out of a check is ours, ends everything, and feeds nobody."""

    async def broken() -> Observation:
        raise ZeroDivisionError

    diary = Diary()
    stage = Stage(FakeCheck("odd", Scope.COMMAND, diary, broken), diary=diary)
    with pytest.raises(ExceptionGroup) as raised:
        await stage.supervisor.run()
    assert [type(error) for error in raised.value.exceptions] == [ZeroDivisionError]


@autojump.jumping
async def test_nothing_is_doubled_however_much_comes_at_once() -> None:
    """Thirty checks in the same instant: every result is a step, one action is under way."""

    async def refused() -> Observation:
        await asyncio.sleep(0.01)
        return observation("x", Scope.COMMAND, Verdict.FAIL)

    diary = Diary()
    crowd = tuple(
        FakeCheck(f"c{n}", Scope.COMMAND, diary, refused, Pace(inter_s=0.05, fastinter_s=0.05))
        for n in range(30)
    )
    stage = Stage(*crowd, diary=diary)
    stage.haproxy.takes_s = 3.0
    await stage.play(1.0, stage.dies, 4.0, stage.dies, 4.0)
    assert stage.haproxy.under_way_max == 1
    runs = sum(kind.startswith("run c") for kind in diary.kinds())
    assert runs > 2000
    assert runs - len(crowd) <= stage.supervisor.steps


# --- seeing ---------------------------------------------------------------------------------------


@autojump.jumping
async def test_a_check_that_overruns_its_own_deadline_is_unknown() -> None:
    """It is cut short, moves nothing, and gets its next turn."""

    async def forever() -> Observation:
        await asyncio.sleep(1e6)
        raise AssertionError

    diary = Diary()
    late = FakeCheck("late", Scope.FRONTEND, diary, forever, Pace(timeout_s=0.5))
    stage = Stage(late, diary=diary)
    state = await stage.play(20.0)
    begun = diary.times("run late")
    assert begun[-1] - begun[-2] == pytest.approx(0.5 + OVERRUN_S + late.pace.inter_s)
    last = state.checks["late"].last
    assert (last.verdict, last.code) == (Verdict.UNKNOWN, Code.UNK)
    assert state.checks["late"].health.up
    assert False not in diary.of("lease")


@autojump.jumping
async def test_checks_keep_haproxys_paces() -> None:
    """Inter while fully up, fastinter while changing, downinter while fully down."""
    verdicts = [Verdict.PASS]

    async def answer() -> Observation:
        return observation("web", Scope.FRONTEND, verdicts[-1])

    diary = Diary()
    stage = Stage(FakeCheck("web", Scope.FRONTEND, diary, answer), diary=diary)
    await stage.play(
        5.5,
        lambda: verdicts.append(Verdict.FAIL),
        10.0,
        lambda: verdicts.append(Verdict.PASS),
        10.0,
    )
    pauses = gaps(diary.times("run web"))
    down = pauses.index(0.3)
    assert pauses[down - 1 : down + 4] == [1.0, 0.3, 0.3, 3.0, 3.0]
    back = pauses.index(0.3, down + 2)
    assert pauses[back - 1 : back + 2] == [3.0, 0.3, 1.0]


@autojump.jumping
async def test_a_new_incarnation_is_looked_at_all_round() -> None:
    """Nothing that was said of the last one holds: every check runs at once, and the survey."""

    async def answer() -> Observation:
        return observation("slow", Scope.COMMAND)

    diary = Diary()
    slow = FakeCheck("slow", Scope.COMMAND, diary, answer, Pace(inter_s=3600))
    stage = Stage(slow, diary=diary)

    def reload() -> None:
        stage.worker = 555

    await stage.play(10.0, reload, 1.0)
    seen_s = diary.times("run slow")[-1]
    assert seen_s >= 1010.0
    assert any(at_s >= 1010.0 for at_s in diary.times("discover"))


@autojump.jumping
async def test_a_woken_check_runs_at_once() -> None:
    """By name or all together; a name that nobody has is nobody's."""

    async def answer() -> Observation:
        return observation("slow", Scope.COMMAND)

    diary = Diary()
    slow = FakeCheck("slow", Scope.COMMAND, diary, answer, Pace(inter_s=3600))
    stage = Stage(slow, diary=diary)
    before = 10.0
    await stage.play(
        before,
        lambda: stage.supervisor.wake("nobody"),
        lambda: stage.supervisor.wake("slow"),
        before,
        stage.supervisor.wake_all,
        before,
    )
    assert diary.times("run slow")[-2:] == [1010.0, 1020.0]


@autojump.jumping
async def test_discovered_checks_come_and_go() -> None:
    """They are run beside the fixed ones; one that is gone leaves neither state nor policy."""

    async def answer() -> Observation:
        return observation("fe", Scope.FRONTEND)

    diary = Diary()
    frontend = FakeCheck("fe", Scope.FRONTEND, diary, answer)
    stage = Stage(diary=diary)
    stage.found = (frontend,)
    supervisor = stage.supervisor

    def vanish() -> None:
        assert "fe" in supervisor.state.checks
        assert "fe" in supervisor.policy.checks
        stage.found = ()

    state = await stage.play(10.0, vanish, 6.0, diary.entries.clear, 10.0)
    assert "run fe" not in diary.kinds()
    assert set(state.checks) == set(supervisor.policy.checks) == {"process"}


@autojump.jumping
async def test_a_discovered_check_that_asks_something_else_begins_anew() -> None:
    """The same frontend now speaks TLS: what the old question found says nothing of it."""
    diary = Diary()

    async def plain() -> Observation:
        diary.note("plain")
        return observation("fe", Scope.FRONTEND, Verdict.FAIL)

    async def tls() -> Observation:
        diary.note("tls")
        return observation("fe", Scope.FRONTEND)

    stage = Stage(diary=diary)
    stage.found = (FakeCheck("fe", Scope.FRONTEND, diary, plain),)

    def change() -> None:
        assert not stage.supervisor.state.checks["fe"].health.up
        stage.found = (FakeCheck("fe", Scope.FRONTEND, diary, tls),)

    state = await stage.play(20.0, change, 6.0, diary.entries.clear, 6.0)
    assert "plain" not in diary.kinds()
    assert "tls" in diary.kinds()
    assert state.checks["fe"].health.up
    assert diary.of("lease")[-1] is True


@autojump.jumping
async def test_no_news_from_the_survey_changes_nothing() -> None:
    """None means that everything stays as it is."""

    async def answer() -> Observation:
        return observation("fe", Scope.FRONTEND)

    diary = Diary()
    stage = Stage(diary=diary)
    stage.found = (FakeCheck("fe", Scope.FRONTEND, diary, answer),)

    def no_news() -> None:
        stage.found = None

    await stage.play(1.0, no_news, 20.0, diary.entries.clear, 2.0)
    assert "run fe" in diary.kinds()


@autojump.jumping
async def test_the_hook_is_looked_for_once_a_second_and_the_log_has_its_chance() -> None:
    """Neither waits for anything else to happen."""
    stage = Stage()
    await stage.play(10.0)
    assert 9 <= len(stage.diary.of("sign")) <= 11
    assert len(stage.diary.of("retry")) >= 10


# --- acting ---------------------------------------------------------------------------------------


@autojump.jumping
async def test_a_restart_wakes_the_process_check() -> None:
    """The new one is seen at once, however slow the check's pace is."""
    stage = Stage(process_inter_s=60.0)
    await stage.play(1.0, stage.dies, lambda: stage.supervisor.wake("process"), 1.0)
    ended_s = stage.diary.times("restart haproxy ended")[0]
    assert ended_s in stage.diary.times("run process")


@autojump.jumping
async def test_what_a_dead_keepalived_left_goes_when_the_peer_speaks() -> None:
    """At once, long before its timer; the first address last, as the others may be bound to it."""
    diary = Diary()
    vips = tuple(Vip(address=f"192.0.2.{n}", prefix=24, interface="eth0") for n in (1, 2, 3))
    instance = VrrpInstance(name="VI_1", vips=vips, advert_int_s=10.0)
    pids: tuple[int, ...] = (7,)

    async def look() -> Observation:
        here = InstanceView(instance=instance, present=vips)
        return observation("vrrp", Scope.VRRP, view=VrrpView(instances=(here,), pids=pids))

    stage = Stage(FakeCheck("vrrp", Scope.VRRP, diary, look), diary=diary)

    def dies() -> None:
        nonlocal pids
        pids = ()
        stage.supervisor.wake("vrrp")

    def speaks() -> None:
        stage.supervisor.tell(InstanceTakenOver(instance="VI_1"))

    await stage.play(0.5, dies, 0.5, lambda: diary.note("the peer speaks"), speaks, 0.1)
    assert diary.of("remove") == list(reversed(vips))
    assert diary.times("remove") == diary.times("the peer speaks") * 3


@autojump.jumping
async def test_a_stop_waits_for_what_is_under_way_and_begins_nothing() -> None:
    """A start that is killed half way would leave HAProxy down."""
    stage = Stage()
    stage.haproxy.takes_s = LAST_ACTION_S - 1
    await stage.play(1.0, stage.dies, 0.5)
    assert "restart haproxy ended" in stage.diary.kinds()
    assert "restart haproxy cancelled" not in stage.diary.kinds()
    assert stage.diary.kinds().count("restart haproxy") == 1


@autojump.jumping
async def test_a_stop_does_not_wait_for_ever() -> None:
    """What takes longer is given up."""
    stage = Stage()
    stage.haproxy.takes_s = 600.0
    await stage.play(1.0, stage.dies, 0.5)
    assert "restart haproxy cancelled" in stage.diary.kinds()
    assert autojump.now_s() == pytest.approx(1001.5 + LAST_ACTION_S)


@autojump.jumping
async def test_no_action_begins_after_a_stop() -> None:
    """Not even one that the core asks for while the last one ends."""
    stage = Stage()
    stage.haproxy.takes_s = 2.0
    stage.haproxy.outcome = Outcome(ok=False, detail="no")
    stage.haproxy.on_restart = lambda: None
    await stage.play(1.0, stage.dies, 0.5)
    assert stage.diary.kinds().count("restart haproxy") == 1
    assert stage.supervisor.state.phase is not Phase.UP


@autojump.jumping
async def test_a_successor_gives_up_what_was_under_way() -> None:
    """Nobody performs it any more, so the core is told, and makes its next move."""
    stage = Stage()
    stage.haproxy.takes_s = 600.0
    state = await stage.play(1.0, stage.dies, 0.5)
    assert isinstance(state.in_flight, RestartHaproxy)
    successor = Stage(state=state, history=stage.supervisor.history)
    successor.worker = 0
    after = await successor.play(5.0)
    failures = [fields for name, _, fields in successor.diary.of("log") if name == "action.failed"]
    assert failures[0]["reason"] == "sentinel was reloaded before it ended"
    assert after.phase is Phase.UP
    assert after.in_flight is None
    names = [report.name for _, report in successor.supervisor.history]
    assert names.index("haproxy.died") < names.index("haproxy.restarted")


@autojump.jumping
async def test_a_successor_forgets_checks_that_are_no_more() -> None:
    """Their last word would stand in the status for ever."""

    async def answer() -> Observation:
        return observation("gone", Scope.FRONTEND, Verdict.FAIL)

    diary = Diary()
    stage = Stage(FakeCheck("gone", Scope.FRONTEND, diary, answer), diary=diary)
    state = await stage.play(10.0)
    assert not state.checks["gone"].health.up
    after = await Stage(state=state).play(1.0)
    assert set(after.checks) == {"process"}


@autojump.jumping
async def test_a_dry_run_acts_on_nothing() -> None:
    """It looks, decides and says what it would do; nothing is stored, leased, started or killed."""
    stage = Stage(dry_run=True, policy=Policy(checks={}, restart_budget=1, stop_after_s=1.0))
    await stage.play(1.0, stage.dies, 60.0)
    kinds = set(stage.diary.kinds())
    assert not kinds & {"memory", "lease", "kill"}
    assert not {kind for kind in kinds if kind.startswith(("restart ", "stop ", "start "))}
    assert "look at haproxy" in kinds
    skipped = [
        fields["action"] for name, _, fields in stage.diary.of("log") if name == "action.skipped"
    ]
    assert any(action.startswith("RestartHaproxy(") for action in skipped)
    assert any(action.startswith("StopKeepalived(") for action in skipped)
    assert len(skipped) < 20


@autojump.jumping
async def test_what_is_reported_is_kept_for_the_status() -> None:
    """With its time, as long as there is room."""
    stage = Stage(history=deque(maxlen=3))
    await stage.play(1.0, stage.dies, 5.0)
    assert len(stage.supervisor.history) == 3
    logged = [name for name, _, _ in stage.diary.of("log")]
    assert [report.name for _, report in stage.supervisor.history] == logged[-3:]
    assert stage.supervisor.history[0][0] >= 1001.0
