"""Scenarios: timed events in, what the core does out; readable by whoever is on call.

A file begins with what is configured and remembered:

    standard node            the checks process, configuration, runtime, and web, which yields
    healthy node             the same, seen well at 0 s
    policy hold_s 5
    check app frontend yields rise 2 fall 3
    without runtime
    memory keepalived_stopped true
    instance nopreempt true

Then come events, each ``TIME NAME WORDS``, and below every event after which anything happened
what that was: ``PHASE STANDING: actions, !reports -- why the phase changed``. STANDING is what
keepalived is told: OK, FAIL, or ``-`` while the lease is left to run out. Later outcomes of one
line carry their own time, and a lowered priority is ``OK-253``. The events:

    process worker 100 [master 99] [old 97,98] [stuck 99,100]   process dead WORDS
    configuration valid | invalid WORDS         runtime PASS [saturated WORDS]
    CHECK PASS [CODE [certificate DAYS [expiring]]]
    CHECK FAIL CODE [WORDS] | UNKNOWN [WORDS]
    listeners PASS | orphan PID | held-by PID   backends PASS | FAIL POOL UP/TOTAL
    haproxy-service ACTIVE SUB RESULT [job] [masked] | unknown | commands   (keepalived-service too)
    finished restart|kill|stop-keepalived|start-keepalived ok|failed [WORDS]
    hook called AGE_S | never                   removed CHECK
    vrrp [dead] [CLAIM] [vip]                   peer serving UP/TOTAL | failing
    order pause|stepdown|resume [for S] [drain] [until-start] [by NAME]  taken ADDRESS by NAME
    sentinel restarted                          ticks UNTIL [blind]           claimed INSTANCE

``ticks`` lets time pass in steps of 0.2 s, and ``TIME..UNTIL/STEP`` repeats an event; meanwhile
the process check goes on seeing what it saw last, unless it is blind. A check begins when it ends,
under the present incarnation, unless its line ends in ``(begun TIME)`` or ``(incarnation N)``.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from sentinel.actions import (
    Action,
    KillHaproxy,
    LookAtHaproxy,
    LookAtKeepalived,
    Recheck,
    RemoveVips,
    Report,
    RestartHaproxy,
    StartKeepalived,
    StopKeepalived,
)
from sentinel.core import CheckPolicy, Memory, Phase, Policy, State, step
from sentinel.core.standing import standing
from sentinel.events import (
    AddressTaken,
    CheckRemoved,
    Event,
    Finished,
    HaproxyServiceSeen,
    HookSeen,
    InstanceTakenOver,
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
    Listener,
    ListenersView,
    Observation,
    PeerView,
    PoolView,
    ProbeView,
    Proc,
    ProcessView,
    RuntimeView,
    Scope,
    ServiceState,
    Verdict,
    View,
)
from sentinel.vrrp import Claim, InstanceView, Tracker, Vip, VrrpInstance, VrrpState, VrrpView

TICK_S = 0.2
_STANDARD = """\
check process process
check configuration configuration
check runtime runtime discovered rise 1 fall 3
check web frontend yields rise 2 fall 3
memory proven runtime"""
_HEALTHY = """\
0.000 process worker 100 master 99
0.000 configuration valid
0.000 runtime PASS
0.000 web PASS
0.000 haproxy-service active running success
0.000 keepalived-service active running success"""
_EVENT = re.compile(r"^(?P<at>[\d.]+?)(?:\.\.(?P<until>[\d.]+)/(?P<step>[\d.]+))? +(?P<words>.+)$")
_BRACKETS = re.compile(r" \((begun|incarnation) ([\d.]+)\)")
_KINDS = {
    "restart": RestartHaproxy,
    "kill": KillHaproxy,
    "stop-keepalived": StopKeepalived,
    "start-keepalived": StartKeepalived,
    "remove-vips": RemoveVips,
}
_PRIORITY_FILE = "/run/sentinel/track-priority"
_VIP = Vip(address="192.0.2.1", prefix=32, interface="eth0")
#: The fast pair of contrib, with the priority file.
_INSTANCE = VrrpInstance(
    name="VI_1",
    interface="eth0",
    version=3,
    priority=254,
    advert_int_s=0.1,
    vips=(_VIP,),
    track_files=(Tracker(name="priority", path=_PRIORITY_FILE, weight=1),),
)


def transcript(path: Path) -> str:
    """Return the file as it should be: its own lines, with what really happened below them."""
    play = _Play()
    lines: list[str] = []
    for line in path.read_text().splitlines():
        if line.startswith("    "):
            continue
        lines.append(line)
        if line and not line.startswith("#"):
            lines += play.line(line)
    return "\n".join(lines) + "\n"


@dataclass(slots=True, kw_only=True)
class _Play:
    """One scenario being played."""

    policy: Policy = field(default_factory=lambda: Policy(checks={}))
    state: State = field(default_factory=State)
    now_s: float = 0.0
    process: Observation | None = None
    stood: str = "-"
    instance: VrrpInstance = _INSTANCE

    def line(self, line: str) -> list[str]:
        """Play one line of the file; return the lines that belong below it."""
        if line[0].isdigit():
            return list(self._events(line))
        kind, *words = line.split()
        match kind:
            case "standard":
                _ = [self.line(standard) for standard in _STANDARD.splitlines()]
            case "healthy":
                played = (_STANDARD + "\n" + _HEALTHY).splitlines()
                _ = [self.line(standard) for standard in played]
            case "without":
                checks = {n: c for n, c in self.policy.checks.items() if n not in words}
                self.policy = replace(self.policy, checks=checks)
            case "policy":
                setting: Any = {words[0]: _value(words[1])}
                self.policy = replace(self.policy, **setting)
            case "check":
                checks = {**self.policy.checks, words[0]: _check_policy(words[1:])}
                self.policy = replace(self.policy, checks=checks)
            case "instance":
                fact: Any = _value(words[1]) if words[1:] else ()
                self.instance = replace(self.instance, **{words[0]: fact})
            case "memory":
                value: Any = _value(words[1]) if words[1:] else ()
                if isinstance(getattr(Memory(), words[0]), tuple):
                    value = tuple(_value(word) for word in words[1:])
                memory = replace(self.state.memory, **{words[0]: value})
                self.state = replace(self.state, memory=memory)
            case _:
                raise ValueError(line)
        return []

    def _events(self, line: str) -> Iterator[str]:
        found = _EVENT.match(line)
        assert found is not None, line
        begin_s = float(found["at"])
        assert begin_s >= self.now_s, f"time runs backwards: {line}"
        words = found["words"]
        kind, *rest = words.split()
        if words == "sentinel restarted":
            self.state = State(memory=self.state.memory)
            self.process = None
            return
        until_s, step_s = float(found["until"] or begin_s), float(found["step"] or 1)
        if kind == "ticks":
            until_s, step_s = float(rest[0]), TICK_S
        for number in range(round((until_s - begin_s) / step_s) + 1):
            self.now_s = round(begin_s + number * step_s, 3)
            late = f"{self.now_s:.3f} " if number else ""
            sees = (number or kind == "ticks") and kind != "process" and "blind" not in rest
            if sees and self.process is not None:
                yield from self._step(self._observed(self.process), late)
            yield from self._step(Tick() if kind == "ticks" else self._event(words), late)

    def _step(self, event: Event, late: str) -> Iterator[str]:
        """Take one step; yield what happened, in one line, if anything did."""
        before = self.state
        self.state, actions = step(self.policy, before, event, self.now_s)
        stands = standing(self.policy, self.state, self.now_s)
        changed = self.state.phase is not before.phase
        names = [action.name for action in actions if isinstance(action, Report)]
        assert ("phase.changed" in names) == changed
        told = [_told(action) for action in actions]
        told = [words for words in told if words != "!phase.changed"]
        word = "-" if stands is None else "OK" if stands.serving else "FAIL"
        if stands is not None and stands.lowered:
            word = f"OK-{stands.lowered}"
        if not (told or changed or self.stood != word):
            return
        self.stood = word
        why = f" -- {self.state.reason}" if changed else ""
        if not changed and stands and self.state.phase is Phase.UP and word != "OK":
            why = f" -- {stands.reason}"
        said = f": {', '.join(told)}" if told else ""
        yield f"    {late}{self.state.phase.value} {word}{said}{why}"

    # --- reading events --------------------------------------------------------------------------

    def _event(self, words: str) -> Event:
        brackets = dict(_BRACKETS.findall(words))
        name, _, rest = _BRACKETS.sub("", words).partition(" ")
        match name:
            case "process":
                self.process = _process(rest)
                return self._observed(self.process)
            case "haproxy-service":
                return HaproxyServiceSeen(service=_service(rest), begun_s=self.now_s)
            case "keepalived-service":
                return KeepalivedServiceSeen(service=_service(rest))
            case "finished":
                return self._finished(rest)
            case "hook":
                age_s = None if rest == "never" else float(rest.removeprefix("called "))
                return HookSeen(age_s=age_s)
            case "taken":
                address, _, by = rest.partition(" by ")
                return AddressTaken(address=address, by=by)
            case "claimed":
                return InstanceTakenOver(instance=rest)
            case "order":
                return Ordered(order=_order(rest))
            case "removed":
                self.line(f"without {rest}")
                return CheckRemoved(check=rest)
            case _:
                return self._observed(self._observation(name, rest), brackets)

    def _observed(self, seen: Observation, brackets: dict[str, str] | None = None) -> Observed:
        given = brackets or {}
        return Observed(
            observation=seen,
            incarnation=int(given.get("incarnation", self.state.incarnation)),
            begun_s=float(given.get("begun", self.now_s)),
        )

    def _finished(self, words: str) -> Finished:
        kind, outcome, *detail = words.split(" ", 2)
        state = self.state
        candidates = (state.in_flight, state.keepalived_in_flight, state.fencing)
        action = next((a for a in candidates if isinstance(a, _KINDS[kind])), None)
        if action is None:
            raise ValueError(f"no {kind} is under way at {self.now_s}")
        return Finished(action=action, ok=outcome == "ok", detail="".join(detail))

    def _observation(self, name: str, words: str) -> Observation:
        known = self.policy.checks.get(name)
        scope = known.scope if known is not None else Scope.FRONTEND
        word, _, rest = words.partition(" ")
        view: View | None = None
        code, detail = Code.UNK, rest
        if scope is Scope.CONFIGURATION and word in {"valid", "invalid"}:
            view = ConfigurationView(valid=word == "valid", error=rest, files=("haproxy.cfg",))
            word, code = ("PASS", Code.PROCOK) if view.valid else ("FAIL", Code.PROCERR)
        elif scope is Scope.LISTENER:
            view, code = _listeners(words), Code.PROCERR
            word = "PASS" if words == "PASS" else "FAIL"
        elif scope is Scope.VRRP:
            view, code = _vrrp(self.instance, words, self.now_s), Code.L7OK
            word = "FAIL" if "dead" in words else "PASS"
        elif scope is Scope.PEER and word in {"serving", "failing"}:
            view, code, word = _peer(words), Code.L7OK, "PASS"
        elif scope is Scope.BACKEND and word == "FAIL":
            pool, _, counts = rest.partition(" ")
            up, _, total = counts.partition("/")
            view, code = (PoolView(name=pool, up=int(up), total=int(total)),), Code.L4CON
        elif scope is Scope.RUNTIME and word == "PASS":
            saturated = rest.removeprefix("saturated ") if rest else ""
            view, code = RuntimeView(pid=1, saturated=saturated), Code.L7OK
        elif word == "FAIL":
            code_word, _, detail = rest.partition(" ")
            code = Code(code_word)
        elif word == "PASS":
            code_word, _, detail = rest.partition(" ")
            code, view = Code(code_word or "L7OK"), _certificate(detail)
        verdict = Verdict(word)
        return Observation(
            check=name, scope=scope, verdict=verdict, code=code, detail=detail, view=view
        )


def _told(action: Action) -> str:
    match action:
        case Report(name=name):
            return f"!{name}"
        case Recheck(checks=names):
            return f"recheck {' '.join(names)}"
        case RestartHaproxy(attempt=attempt, kill_first=procs):
            return f"restart {attempt}" + (f" after killing {_pids(procs)}" if procs else "")
        case KillHaproxy(procs=procs):
            return f"kill {_pids(procs)}"
        case LookAtHaproxy():
            return "look at haproxy"
        case LookAtKeepalived():
            return "look at keepalived"
        case StopKeepalived():
            return "STOP KEEPALIVED"
        case StartKeepalived():
            return "START KEEPALIVED"
        case RemoveVips(vips=vips):
            return f"REMOVE {' '.join(vip.address for vip in vips)}"


def _order(words: str) -> Order:
    verb, *more = words.split()
    given = dict(pairwise(more))
    return Order(
        verb=Verb(verb),
        for_s=float(given["for"]) if "for" in given else None,
        by=given.get("by", ""),
        drain="drain" in more,
        until_start="until-start" in more,
    )


def _vrrp(instance: VrrpInstance, words: str, now_s: float) -> VrrpView:
    states = [VrrpState[word.upper()] for word in words.split() if word not in {"dead", "vip"}]
    claim = Claim(state=states[0], since_s=now_s) if states else None
    present = instance.vips if "vip" in words.split() else ()
    seen = InstanceView(instance=instance, claim=claim, present=present)
    return VrrpView(instances=(seen,), pids=() if "dead" in words.split() else (7, 8))


def _peer(words: str) -> PeerView:
    word, _, counts = words.partition(" ")
    up, _, total = counts.partition("/")
    return PeerView(
        node="lb2",
        overall="healthy",
        serving=word == "serving",
        servers_up=int(up or 0),
        servers_total=int(total or 0),
    )


def _pids(procs: tuple[Proc, ...]) -> str:
    return ",".join(str(proc.pid) for proc in procs)


def _procs(pids: str) -> tuple[Proc, ...]:
    return tuple(Proc(pid=int(pid), start_ticks=int(pid)) for pid in pids.split(",") if pid)


def _value(word: str) -> bool | float | str | None:
    words = {"true": True, "false": False, "none": None}
    if word in words:
        return words[word]
    try:
        return int(word) if word.isdigit() else float(word)
    except ValueError:
        return word


def _check_policy(words: list[str]) -> CheckPolicy:
    numbers = dict(pairwise(words))
    return CheckPolicy(
        scope=Scope(words[0]),
        rise=int(numbers.get("rise", 1)),
        fall=int(numbers.get("fall", 1)),
        yields="yields" in words,
        discovered="discovered" in words,
    )


def _process(words: str) -> Observation:
    given = dict(pairwise(words.split()))
    verdict, code, view = Verdict.PASS, Code.PROCOK, ProcessView(instance=None)
    if words.startswith("UNKNOWN"):
        verdict, code = Verdict.UNKNOWN, Code.UNK
    elif words.startswith("dead"):
        verdict, code = Verdict.FAIL, Code.PROCERR
        words = words.removeprefix("dead").strip() or "no process"
        master, stuck = _procs(given.get("master", "")), _procs(given.get("stuck", ""))
        if master:
            instance = Instance(master=master[0], worker=None)
            view = ProcessView(instance=instance, stuck=stuck)
    else:
        worker, master = _procs(given["worker"])[0], _procs(given.get("master", ""))
        stuck = _procs(given.get("stuck", ""))
        instance = Instance(
            master=master[0] if master else None,
            worker=worker,
            old=_procs(given.get("old", "")),
        )
        view = ProcessView(instance=instance, stuck=stuck)
        if worker in stuck:
            verdict, code = Verdict.FAIL, Code.PROCTOUT
    return Observation(
        check="process",
        scope=Scope.PROCESS,
        verdict=verdict,
        code=code,
        detail=words,
        view=view if verdict is not Verdict.UNKNOWN else None,
    )


def _certificate(words: str) -> ProbeView | None:
    """Read ``certificate DAYS [expiring]``."""
    if not words:
        return None
    _, days, *expiring = words.split()
    return ProbeView(certificate_left_s=float(days) * 86400, expiring=bool(expiring))


def _listeners(words: str) -> ListenersView:
    kind, _, pids = words.partition(" ")
    holders = _procs(pids)
    foreign = tuple(
        Listener(address="127.0.0.1", port=80, inode=proc.pid, backlog=0, holder=proc)
        for proc in holders
    )
    orphans = holders if kind == "orphan" else ()
    return ListenersView(listeners=(), foreign=foreign, orphans=orphans)


def _service(words: str) -> ServiceState:
    if words == "unknown":
        return ServiceState(known=False, active="unknown", sub="", result="")
    if words == "commands":
        return ServiceState(known=False, active="unknown", sub="", result="", has_jobs=False)
    active, sub, result, *flags = words.split()
    return ServiceState(
        active=active,
        sub=sub,
        result=result,
        job_pending="job" in flags,
        masked="masked" in flags,
    )
