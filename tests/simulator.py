"""A seeded world around the core: HAProxy, its service manager, keepalived, people and faults.

Everything happens on an agenda in simulated time, and all chance comes from one seed, so that a
history replays exactly. Each participant knows only what it would know in life: the shell sees
HAProxy through checks that take their time, and the service manager goes on with its jobs when
sentinel is killed. A Node is one machine; a second one, and VRRP between them, can join the same
Agenda and read ``Shell.lease`` and ``Keepalived.running``.
"""

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from random import Random
from typing import Final

from sentinel.actions import (
    Action,
    KillHaproxy,
    LookAtHaproxy,
    LookAtKeepalived,
    Outcome,
    Recheck,
    Report,
    RestartHaproxy,
    StartKeepalived,
    StopKeepalived,
)
from sentinel.config import CONFIGURATION_PACE, PROCESS_PACE, RUNTIME_PACE, Pace
from sentinel.core import CheckPolicy, Memory, Phase, Policy, State, step
from sentinel.core.standing import standing
from sentinel.events import (
    Event,
    Finished,
    HaproxyServiceSeen,
    KeepalivedServiceSeen,
    Observed,
    Order,
    Ordered,
    Tick,
    Verb,
)
from sentinel.model import (
    Code,
    ConfigurationView,
    Instance,
    Observation,
    Proc,
    ProcessView,
    RuntimeView,
    Scope,
    ServiceState,
    Verdict,
    View,
)

DONE: Final = Outcome(ok=True)
REFUSED: Final = Outcome(ok=False, detail="it failed")
TICK_S: Final = 0.2
COMMAND_TIMEOUT_S: Final = 20.0
LOOK_TIMEOUT_S: Final = 2.0
PACES: Final = {
    "process": PROCESS_PACE,
    "configuration": CONFIGURATION_PACE,
    "runtime": RUNTIME_PACE,
    "web": Pace(),
    "backends": Pace(inter_s=2.0, fastinter_s=1.0, downinter_s=5.0),
}
CHECKS: Final = {
    "process": CheckPolicy(scope=Scope.PROCESS, rise=1, fall=1),
    "configuration": CheckPolicy(scope=Scope.CONFIGURATION, rise=1, fall=1),
    "runtime": CheckPolicy(scope=Scope.RUNTIME, rise=1, fall=3, discovered=True),
    "web": CheckPolicy(scope=Scope.FRONTEND, rise=2, fall=3, yields=True),
    "backends": CheckPolicy(scope=Scope.BACKEND, rise=2, fall=3),
}


class Agenda:
    """What is to happen when; nothing else makes time pass."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now_s = 1000.0
        self._entries: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    def after(self, delay_s: float, act: Callable[[], None]) -> None:
        """Let *act* happen in *delay_s*."""
        self._number += 1
        heapq.heappush(self._entries, (self.now_s + delay_s, self._number, act))

    def run(self, until_s: float, enough: Callable[[], bool] = lambda: False) -> None:
        """Let time pass until *until_s*, or until it is enough."""
        while self._entries and self._entries[0][0] <= until_s and not enough():
            self.now_s, _, act = heapq.heappop(self._entries)
            act()
        if not enough():
            self.now_s = until_s


@dataclass(slots=True)
class Haproxy:
    """The processes of HAProxy, and what is wrong with them and around them."""

    agenda: Agenda
    worker: Proc | None = None
    master: Proc | None = None
    stopped: bool = False  # SIGSTOP: only SIGKILL or SIGCONT end it
    frozen: bool = False  # uninterruptible sleep: SIGKILL waits for its end
    doomed: bool = False  # was killed while frozen
    spinning: bool = False
    saturated: bool = False
    api_hangs: bool = False
    stillborn: int = 0  # so many starts to come die at once
    configuration_valid: bool = True
    backends: str = "up"  # up, down, hanging
    pids: int = 100
    dead_since_s: float | None = None
    deaf_since_s: float | None = None  # stopped, frozen or spinning

    @property
    def listens(self) -> bool:
        """It can answer anything at all."""
        stuck = self.stopped or self.frozen or self.spinning
        return self.worker is not None and not stuck

    @property
    def probes_wait(self) -> bool:
        """Nothing is wrong with it, and frontends do not answer all the same."""
        return self.saturated or self.backends == "hanging"

    def start(self) -> bool:
        """Fork a master and a worker."""
        if not self.configuration_valid or self.worker is not None:
            return self.worker is not None
        self.pids += 2
        self.master = Proc(pid=self.pids, start_ticks=self.pids)
        self.worker = Proc(pid=self.pids + 1, start_ticks=self.pids + 1)
        self.stopped = self.spinning = self.doomed = False
        self.dead_since_s = self.deaf_since_s = None
        return True

    def reload(self) -> None:
        """Replace the worker."""
        if self.listens and self.configuration_valid:
            self.pids += 1
            self.worker = Proc(pid=self.pids, start_ticks=self.pids)

    def kill(self) -> None:
        """SIGKILL everything."""
        if self.frozen:
            self.doomed = True
        elif self.worker is not None:
            self.master = self.worker = None
            self.dead_since_s, self.deaf_since_s = self.agenda.now_s, None

    def thaw(self) -> None:
        """End the uninterruptible sleep."""
        self.frozen = False
        if self.doomed:
            self.kill()
        elif self.listens:
            self.deaf_since_s = None

    def deafen(self, **how: bool) -> None:
        """Stop, freeze or spin a living HAProxy."""
        if self.worker is None:
            return
        for name, value in how.items():
            setattr(self, name, value)
        if self.deaf_since_s is None:
            self.deaf_since_s = self.agenda.now_s


@dataclass(slots=True)
class Manager:
    """A service manager that behaves like systemd about HAProxy's unit, when it answers at all."""

    agenda: Agenda
    haproxy: Haproxy
    restarts_itself: bool
    active: str = "active"
    sub: str = "running"
    result: str = "success"
    job: bool = False
    wanted: bool = True  # by the administrator
    unwanted_since_s: float = 0.0
    stop_ended_haproxy: bool = False
    hangs: bool = False
    latency_s: float = 0.01
    starts: list[float] = field(default_factory=list)

    def look(self) -> ServiceState:
        """Answer as ``systemctl show`` does."""
        return ServiceState(
            active=self.active, sub=self.sub, result=self.result, job_pending=self.job
        )

    def notice_death(self) -> None:
        """See the main process die: restart it after RestartSec, or remember a failure."""
        if self.job or self.active != "active" or self.haproxy.worker is not None:
            return
        self.result = "signal"
        if self.restarts_itself:
            self.active, self.sub = "activating", "auto-restart"
            self.agenda.after(0.1, self._auto_restart)
        else:
            self.active, self.sub = "failed", "failed"

    def _auto_restart(self) -> None:
        if self.sub == "auto-restart" and not self.job:
            self._begin_start(lambda _: None)

    def start(self, done: Callable[[Outcome], None]) -> None:
        """Start or restart the unit; another's job is never cancelled."""
        if self.job:
            done(REFUSED)
            return
        if self.active == "failed":
            self.starts.clear()  # reset-failed
        if self.haproxy.worker is not None and not self.haproxy.frozen:
            self.haproxy.kill()
        self._begin_start(done)

    def _begin_start(self, done: Callable[[Outcome], None]) -> None:
        now_s = self.agenda.now_s
        self.starts = [at_s for at_s in self.starts if now_s - at_s < 10.0]
        if len(self.starts) >= 5:
            self.active, self.sub, self.result = "failed", "failed", "start-limit-hit"
            done(REFUSED)
            return
        self.starts.append(now_s)
        self.active, self.sub, self.job = "activating", "start", True
        delay_s = self.agenda.random.uniform(0.05, 0.4)
        self.agenda.after(delay_s, lambda: self._end_start(done))

    def _end_start(self, done: Callable[[Outcome], None]) -> None:
        self.job = False
        if not self.haproxy.start():
            self.active, self.sub, self.result = "failed", "failed", "exit-code"
            done(REFUSED)
            return
        self.active, self.sub, self.result = "active", "running", "success"
        if self.haproxy.stillborn:
            self.haproxy.stillborn -= 1
            self.agenda.after(self.agenda.random.uniform(0.01, 0.3), self._kill)
        done(DONE)

    def _kill(self) -> None:
        self.haproxy.kill()
        self.agenda.after(0.005, self.notice_death)

    def stop_by_hand(self) -> None:
        """Run an administrator's ``systemctl stop haproxy``."""
        if self.job or self.haproxy.frozen:
            return
        self.wanted, self.unwanted_since_s, self.job = False, self.agenda.now_s, True
        self.active, self.sub = "deactivating", "stop-sigterm"
        self.agenda.after(0.03, self._end_stop)

    def _end_stop(self) -> None:
        self.stop_ended_haproxy = self.haproxy.worker is not None
        self.haproxy.kill()
        self.job, self.unwanted_since_s = False, self.agenda.now_s
        self.active, self.sub, self.result = "inactive", "dead", "success"

    def start_by_hand(self) -> None:
        """Run an administrator's ``systemctl restart haproxy``."""
        self.wanted = True
        if self.job:
            self.agenda.after(0.1, self.start_by_hand)
        else:
            self.start(lambda _: None)


@dataclass(slots=True)
class Keepalived:
    """keepalived's unit; *stubborn* lets every call fail."""

    running: bool = True
    stubborn: bool = False
    hangs: bool = False


class Shell:
    """Sentinel's shell around the real ``step``: paces, deadlines, one memory file, one lease."""

    def __init__(self, node: "Node") -> None:
        self.node = node
        self.agenda = node.agenda
        self.memory = Memory(proven=("runtime",))
        self.state = State()
        self.policy = node.policy
        self.life = 0  # which run of sentinel this is; 0 while it does not run
        self.lives = 0
        self.lease: bool | None = None
        self.under_way: list[Action] = []
        self._turns: dict[str, int] = {}
        self._running: set[str] = set()
        self._woken: set[str] = set()

    def begin(self) -> None:
        """Start sentinel with what its predecessor stored."""
        if self.life:
            return
        self.lives += 1
        self.life = self.lives
        self.state = State(memory=self.memory)
        self.under_way.clear()
        self._turns, self._running, self._woken = dict.fromkeys(self.policy.checks, 0), set(), set()
        for name in self.policy.checks:
            self._look(name)
        self._tick()

    def die(self) -> None:
        """Kill sentinel, whatever it is doing; systemd starts it again."""
        self.life = 0
        self.agenda.after(self.agenda.random.uniform(0.1, 2.0), self.begin)

    def obey(self, verb: Verb) -> None:
        """Take an administrator's order; without a running sentinel there is nobody to take it."""
        if self.life:
            self.take(Ordered(order=Order(verb=verb)))

    def wake(self, name: str) -> None:
        """Run a check now, or once more when it is just running."""
        if not self.life or name not in self._turns:
            return
        if name in self._running:
            self._woken.add(name)
        else:
            self._look(name)

    def _later(self, delay_s: float, act: Callable[[], None]) -> None:
        """Let *act* happen unless sentinel dies before."""
        life = self.life
        self.agenda.after(delay_s, lambda: act() if self.life == life else None)

    def _tick(self) -> None:
        self.take(Tick())
        self._later(TICK_S, self._tick)

    # --- checks -----------------------------------------------------------------------------------

    def _look(self, name: str) -> None:
        self._turns[name] += 1
        self._running.add(name)
        self._woken.discard(name)
        begun_s, incarnation = self.agenda.now_s, self.state.incarnation
        pace = PACES[name]

        def end(observation: Observation) -> None:
            self._running.discard(name)
            self.take(Observed(observation=observation, incarnation=incarnation, begun_s=begun_s))
            if name in self._woken:
                self._look(name)
                return
            turn = self._turns[name]
            self._later(
                self._interval_s(name, pace),
                lambda: self._look(name) if self._turns[name] == turn else None,
            )

        held_up = self.agenda.random.random() < self.node.held_up
        swift_s = self.agenda.random.uniform(0.2, 0.5) if held_up else 0.01
        deadline_s = begun_s + pace.timeout_s

        def wait() -> None:
            """An answer, and the reset that a death sends, come as soon as they can."""
            late = self.agenda.now_s >= deadline_s
            observation = self.node.observe(name, late=late)
            if observation is not None:
                end(observation)
            else:
                self._later(min(0.05, deadline_s - self.agenda.now_s), wait)

        self._later(swift_s, wait)

    def _interval_s(self, name: str, pace: Pace) -> float:
        """Choose as the supervisor does."""
        if self.state.phase is Phase.MENDING:
            return min(0.05, pace.fastinter_s)
        known = self.state.checks.get(name)
        if known is None or not known.health.settled or self.state.phase is Phase.HUNG:
            return pace.fastinter_s
        return pace.inter_s if known.health.up else pace.downinter_s

    # --- steps ------------------------------------------------------------------------------------

    def take(self, event: Event) -> None:
        """Take one event: decide, store, tell keepalived, act."""
        now_s, before = self.agenda.now_s, self.state
        self.state, actions = step(self.policy, before, event, now_s)
        self.memory = self.state.memory
        verdict = standing(self.policy, self.state, now_s)
        if verdict is not None:
            self.lease = verdict.serving
        self.node.judge(before, self.state, actions)
        for action in actions:
            self._begin(action)

    def _begin(self, action: Action) -> None:
        match action:
            case Report():
                pass
            case Recheck(checks=names):
                for name in names:
                    self._later(0.0, partial(self.wake, name))
            case LookAtHaproxy():
                self._look_at_haproxy(self.agenda.now_s)
            case LookAtKeepalived():
                answer = self.node.look_at_keepalived
                self._later(self.node.manager.latency_s, lambda: self.take(answer()))
            case RestartHaproxy() | KillHaproxy():
                self.under_way.append(action)
                self._act_on_haproxy(action)
            case StopKeepalived() | StartKeepalived():
                self.under_way.append(action)
                self._act_on_keepalived(action)

    def _look_at_haproxy(self, begun_s: float) -> None:
        manager = self.node.manager
        unknown = ServiceState(known=False, active="unknown", sub="", result="")

        def answer() -> None:
            service = unknown if manager.hangs else manager.look()
            self.take(HaproxyServiceSeen(service=service, begun_s=begun_s))
            self.wake("process")

        self._later(LOOK_TIMEOUT_S if manager.hangs else manager.latency_s, answer)

    def _act_on_haproxy(self, action: RestartHaproxy | KillHaproxy) -> None:
        node, done = self.node, self._finisher(action)
        procs = action.kill_first if isinstance(action, RestartHaproxy) else action.procs
        if node.haproxy.worker in procs:
            node.crash()
        if isinstance(action, KillHaproxy):
            done(DONE)
        elif node.manager.hangs:
            self._later(COMMAND_TIMEOUT_S, lambda: done(REFUSED))
        else:
            node.manager.start(done)

    def _act_on_keepalived(self, action: StopKeepalived | StartKeepalived) -> None:
        keepalived, done = self.node.keepalived, self._finisher(action)
        if keepalived.hangs or keepalived.stubborn:
            self._later(COMMAND_TIMEOUT_S if keepalived.hangs else 0.1, lambda: done(REFUSED))
            return
        keepalived.running = isinstance(action, StartKeepalived)
        done(DONE)

    def _finisher(self, action: Action) -> Callable[[Outcome], None]:
        life = self.life

        def done(outcome: Outcome) -> None:
            if self.life != life:
                return

            def finish() -> None:
                self.under_way.remove(action)
                self.wake("process")
                self.take(Finished(action=action, ok=outcome.ok, detail=outcome.detail))

            self._later(0.002, finish)

        return done


def _observation(name: str, verdict: Verdict, code: Code, view: View | None = None) -> Observation:
    scope = CHECKS[name].scope
    return Observation(check=name, scope=scope, verdict=verdict, code=code, view=view)


class Node:
    """One machine with HAProxy, keepalived, a service manager and sentinel."""

    def __init__(
        self,
        agenda: Agenda,
        policy: Policy,
        judge: Callable[["Node", State, State, tuple[Action, ...]], None],
        *,
        restarts_itself: bool,
        held_up: float = 0.0,
    ) -> None:
        """Start HAProxy; a check is *held_up* so often by a machine that is busy."""
        self.agenda = agenda
        self.policy = replace(policy, checks=CHECKS)
        self.held_up = held_up
        self.haproxy = Haproxy(agenda)
        self.manager = Manager(agenda, self.haproxy, restarts_itself)
        self.keepalived = Keepalived()
        self.shell = Shell(self)
        self._judge = judge
        self.haproxy.start()

    def judge(self, before: State, after: State, actions: tuple[Action, ...]) -> None:
        """Show one step to whoever watches."""
        self._judge(self, before, after, actions)

    def crash(self) -> None:
        """SIGKILL all of HAProxy; its pidfd wakes the process check."""
        self.haproxy.kill()
        self.agenda.after(0.005, self.manager.notice_death)
        self.agenda.after(0.001, lambda: self.shell.wake("process"))

    def thaw(self) -> None:
        """End an uninterruptible sleep; a kill that waited for it happens now."""
        self.haproxy.thaw()
        self.agenda.after(0.005, self.manager.notice_death)

    def look_at_keepalived(self) -> KeepalivedServiceSeen:
        """Answer for keepalived's unit."""
        active = "active" if self.keepalived.running else "inactive"
        return KeepalivedServiceSeen(service=ServiceState(active=active))

    def observe(self, name: str, *, late: bool) -> Observation | None:
        """Let a check look now; None while it has to wait, which it does until it is *late*."""
        haproxy = self.haproxy
        match name:
            case "process":
                return self._see_processes()
            case "configuration":
                return self._judge_configuration()
        if haproxy.worker is None:
            return _observation(name, Verdict.FAIL, Code.L4CON)
        deaf = haproxy.probes_wait if name == "web" else haproxy.api_hangs
        if deaf or not haproxy.listens:
            return _observation(name, Verdict.FAIL, Code.L7TOUT) if late else None
        if name == "runtime":
            full = "CurrConns 9 of Maxconn 9" if haproxy.saturated else ""
            runtime = RuntimeView(pid=haproxy.worker.pid, saturated=full)
            return _observation(name, Verdict.PASS, Code.L7OK, runtime)
        if haproxy.backends == "up":
            return _observation(name, Verdict.PASS, Code.L7OK)
        return _observation(name, Verdict.FAIL, Code.L7STS)

    def _judge_configuration(self) -> Observation:
        valid = self.haproxy.configuration_valid
        view = ConfigurationView(valid=valid, error="" if valid else "bad")
        verdict, code = (Verdict.PASS, Code.PROCOK) if valid else (Verdict.FAIL, Code.PROCERR)
        return _observation("configuration", verdict, code, view)

    def _see_processes(self) -> Observation:
        haproxy = self.haproxy
        worker, master = haproxy.worker, haproxy.master
        if worker is None:
            view = ProcessView(instance=None)
            return _observation("process", Verdict.FAIL, Code.PROCERR, view)
        stuck = (worker,) if haproxy.stopped or haproxy.frozen else ()
        view = ProcessView(instance=Instance(master=master, worker=worker), stuck=stuck)
        verdict, code = (Verdict.FAIL, Code.PROCTOUT) if stuck else (Verdict.PASS, Code.PROCOK)
        return _observation("process", verdict, code, view)


# --- faults ---------------------------------------------------------------------------------------

Fault = Callable[[Node, float], None]


def _set(who: str, **how: object) -> Fault:
    """Make a fault that sets something of one participant for a while."""

    def fault(node: Node, while_s: float) -> None:
        thing = getattr(node, who)
        well = {field.name: field.default for field in fields(thing)}
        for name, value in how.items():
            setattr(thing, name, value)
            node.agenda.after(while_s, partial(setattr, thing, name, well[name]))

    return fault


def _flicker(node: Node, _while_s: float) -> None:
    node.haproxy.deafen(frozen=True)
    node.agenda.after(node.agenda.random.uniform(0.01, 0.08), node.thaw)


def _freeze(node: Node, while_s: float) -> None:
    node.haproxy.deafen(frozen=True)
    node.agenda.after(while_s, node.thaw)


def _crash_loop(node: Node, _while_s: float) -> None:
    node.haproxy.stillborn = node.agenda.random.randrange(1, 8)
    node.crash()


def _stop_by_hand(node: Node, while_s: float) -> None:
    node.manager.stop_by_hand()
    node.agenda.after(while_s, node.manager.start_by_hand)


#: What is no fault of HAProxy's, and must not cost it anything.
def _pause(node: Node, while_s: float) -> None:
    node.shell.obey(Verb.PAUSE)
    node.agenda.after(while_s, lambda: node.shell.obey(Verb.RESUME))


BENIGN: Final[Mapping[str, Fault]] = {
    "servers are down": _set("haproxy", backends="down"),
    "servers hang": _set("haproxy", backends="hanging"),
    "HAProxy is full": _set("haproxy", saturated=True),
    "the runtime API hangs": _set("haproxy", api_hangs=True),
    "HAProxy is reloaded": lambda node, _: node.haproxy.reload(),
    "HAProxy sleeps for a moment": _flicker,
    "sentinel is killed": lambda node, _: node.shell.die(),
    "the service manager is slow": _set("manager", latency_s=0.9),
    "the service manager is very slow": _set("manager", latency_s=1.9),
}
ALL: Final[Mapping[str, Fault]] = {
    **BENIGN,
    "HAProxy is killed": lambda node, _: node.crash(),
    "HAProxy dies again and again": _crash_loop,
    "HAProxy is stopped": lambda node, _: node.haproxy.deafen(stopped=True),
    "HAProxy spins": lambda node, _: node.haproxy.deafen(spinning=True),
    "HAProxy cannot be killed": _freeze,
    "the configuration is invalid": _set("haproxy", configuration_valid=False),
    "an administrator stops HAProxy": _stop_by_hand,
    "an administrator restarts HAProxy": lambda node, _: node.manager.start_by_hand(),
    "the service manager hangs": _set("manager", hangs=True),
    "sentinel is paused": _pause,
    "keepalived is stubborn": _set("keepalived", stubborn=True),
    "calls about keepalived hang": _set("keepalived", hangs=True),
}


def heal(node: Node) -> None:
    """End every fault that does not end without sentinel; a hung HAProxy stays as it is."""
    node.shell.obey(Verb.RESUME)
    haproxy, manager = node.haproxy, node.manager
    haproxy.backends, haproxy.configuration_valid, haproxy.stillborn = "up", True, 0
    haproxy.saturated = haproxy.api_hangs = manager.hangs = False
    manager.latency_s = 0.01
    node.keepalived.stubborn = node.keepalived.hangs = False
    if haproxy.frozen:
        node.thaw()
    if not manager.wanted:
        manager.start_by_hand()
