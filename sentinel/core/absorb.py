"""Take one event into the state: facts only, no decision. Returns what is worth reporting."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from sentinel.core.evidence import alive, answered, saturated
from sentinel.core.state import CheckPolicy, CheckState, Health, Phase, Policy, State
from sentinel.model import (
    CheckRemoved,
    Code,
    ConfigurationView,
    Event,
    Finished,
    HaproxyServiceSeen,
    HookSeen,
    KeepalivedServiceSeen,
    Observation,
    Observed,
    ProcessView,
    Report,
    RestartHaproxy,
    RuntimeView,
    Scope,
    StopKeepalived,
    Tick,
    Verdict,
)

#: A check that has known nothing for this long is reported.
UNKNOWN_REPORT_S: Final = 30.0
#: What an older incarnation of HAProxy answered says nothing about the present one.
_OF_AN_INCARNATION: Final = frozenset({Scope.RUNTIME, Scope.FRONTEND, Scope.BACKEND})

Absorbed = tuple[State, tuple[Report, ...]]


def absorb(policy: Policy, state: State, event: Event, now_s: float) -> Absorbed:
    """Return the state that knows *event*."""
    match event:
        case Tick():
            return _saturation_over(state, now_s)
        case Observed():
            return _observed(policy, state, event, now_s)
        case CheckRemoved(check=name):
            return replace(state, checks=_without(state, name)), ()
        case HaproxyServiceSeen(service=service, begun_s=begun_s):
            seen = replace(state, haproxy=service, haproxy_seen_s=begun_s, haproxy_heard_s=now_s)
            return seen, ()
        case KeepalivedServiceSeen(service=service):
            return replace(state, keepalived=service), ()
        case Finished():
            return _finished(policy, state, event, now_s)
        case HookSeen(age_s=age_s):
            return _hook(policy, state, age_s)


def _observed(policy: Policy, state: State, event: Observed, now_s: float) -> Absorbed:
    seen = event.observation
    known = policy.checks.get(seen.check)
    stale = seen.scope in _OF_AN_INCARNATION and event.incarnation != state.incarnation
    if known is None or stale:
        return state, ()
    state, reports = _count(state, known, event, now_s)
    if seen.verdict is Verdict.UNKNOWN:
        return state, reports
    state, more = _view(state, seen, now_s)
    return state, reports + more


def _count(state: State, known: CheckPolicy, event: Observed, now_s: float) -> Absorbed:
    """Move the check's counter and report what changed."""
    seen = event.observation
    before = state.checks.get(seen.check) or CheckState(
        health=Health.fresh(known.rise, known.fall),
        last=seen,
        last_begun_s=event.begun_s,
        changed_s=now_s,
    )
    after = before.health.after(seen.verdict)
    here = answered(seen.verdict, seen.code)
    spoke = here and seen.code is not Code.L4OK
    check = CheckState(
        health=after,
        last=seen,
        last_begun_s=event.begun_s,
        changed_s=before.changed_s if after.up == before.health.up else now_s,
        passed_incarnation=state.incarnation if here else before.passed_incarnation,
        answered_begun_s=event.begun_s if spoke else before.answered_begun_s,
        unknown_since_s=_unknown_since(before, seen, now_s),
    )
    reports = _changes(seen, before.health, after) + _unknown_report(before, check, now_s)
    memory = state.memory
    if seen.verdict is Verdict.PASS and seen.check not in memory.proven:
        memory = replace(memory, proven=tuple(sorted({*memory.proven, seen.check})))
    return replace(state, checks={**state.checks, seen.check: check}, memory=memory), reports


def _changes(seen: Observation, before: Health, after: Health) -> tuple[Report, ...]:
    if before.up == after.up:
        return ()
    name, level = ("check.up", "info") if after.up else ("check.down", "warning")
    fields = (
        ("check", seen.check),
        ("scope", seen.scope.value),
        ("check_code", seen.code.value),
        ("last_chk", seen.detail),
        ("check_duration_ms", round(seen.duration_ms, 1)),
    )
    return (Report(name=name, level=level, fields=fields),)


def _unknown_since(before: CheckState, seen: Observation, now_s: float) -> float | None:
    if seen.verdict is not Verdict.UNKNOWN:
        return None
    return now_s if before.unknown_since_s is None else before.unknown_since_s


def _unknown_report(before: CheckState, check: CheckState, now_s: float) -> tuple[Report, ...]:
    """Report a long run of UNKNOWN once, when it crosses UNKNOWN_REPORT_S."""
    since_s = check.unknown_since_s
    if since_s is None or now_s - since_s < UNKNOWN_REPORT_S:
        return ()
    if before.last_begun_s - since_s >= UNKNOWN_REPORT_S:
        return ()
    fields = (("check", check.last.check), ("reason", check.last.detail))
    return (Report(name="check.unknown", level="warning", fields=fields),)


def _view(state: State, seen: Observation, now_s: float) -> Absorbed:
    """Take in what the check saw beyond its verdict."""
    match seen.view:
        case ProcessView():
            return _process(state, seen.view, now_s)
        case RuntimeView():
            return _runtime(state, seen.view, now_s)
        case ConfigurationView():
            return _configuration(state, seen.view)
        case tuple():
            return replace(state, pools=seen.view), ()
        case _:
            return state, ()


def _process(state: State, view: ProcessView, now_s: float) -> Absorbed:
    worker = view.instance.worker if view.instance else None
    stuck = worker is not None and worker in view.stuck
    stuck_since_s = (state.stuck_since_s or now_s) if stuck else None
    incarnation = state.incarnation
    last = state.instance.worker if state.instance else None
    reports: tuple[Report, ...] = ()
    if worker is not None and worker != last:
        incarnation += 1
        reports = (
            Report(
                name="haproxy.seen" if last is None else "haproxy.reloaded",
                level="info",
                fields=(("worker_pid", worker.pid), ("incarnation", incarnation)),
            ),
        )
    state = replace(
        state,
        instance=view.instance,
        incarnation=incarnation,
        process_seen_s=now_s,
        stuck_since_s=stuck_since_s,
        unproven=state.unproven and incarnation == state.incarnation,
    )
    return state, reports


def _runtime(state: State, view: RuntimeView, now_s: float) -> Absorbed:
    state = replace(state, runtime=view)
    if not view.saturated:
        return state, ()
    first = state.saturated_s is None
    report = Report(
        name="haproxy.saturated",
        level="warning",
        fields=(
            ("reason", view.saturated),
            ("curr_conns", view.curr_conns),
            ("maxconn", view.maxconn),
        ),
    )
    return replace(state, saturated_s=now_s), (report,) if first else ()


def _saturation_over(state: State, now_s: float) -> Absorbed:
    if state.saturated_s is None or saturated(state, now_s):
        return state, ()
    return replace(state, saturated_s=None), (Report(name="haproxy.unsaturated", level="info"),)


def _configuration(state: State, view: ConfigurationView) -> Absorbed:
    was_valid = state.configuration is None or state.configuration.valid
    state = replace(state, configuration=view)
    if was_valid == view.valid:
        return state, ()
    if view.valid:
        return state, (Report(name="configuration.valid", level="info"),)
    report = Report(
        name="configuration.invalid",
        level="error" if alive(state) else "critical",
        fields=(("reason", view.error), ("files", " ".join(view.files))),
    )
    return state, (report,)


def _finished(policy: Policy, state: State, event: Finished, now_s: float) -> Absorbed:
    """Note the outcome of an action; what follows from it is decided by the phase."""
    reports: tuple[Report, ...] = ()
    if not event.ok:
        fields = (("action", type(event.action).__name__), ("reason", event.detail))
        reports = (Report(name="action.failed", level="error", fields=fields),)
    if state.keepalived_in_flight == event.action:
        state, more = _keepalived_finished(policy, state, event, now_s)
        return state, reports + more
    if state.in_flight != event.action:
        return state, reports
    state = replace(state, in_flight=None)
    if isinstance(event.action, RestartHaproxy) and state.phase is Phase.MENDING:
        state = replace(state, verify_by_s=now_s + policy.verify_s, unproven=not event.ok)
    return state, reports


def _keepalived_finished(policy: Policy, state: State, event: Finished, now_s: float) -> Absorbed:
    """A failed stop leaves Memory.keepalived_stopped set: it may have happened all the same."""
    state = replace(state, keepalived_in_flight=None)
    if not event.ok:
        return replace(state, keepalived_retry_s=now_s + policy.backoff_max_s), ()
    state = replace(state, keepalived_retry_s=None)
    if isinstance(event.action, StopKeepalived):
        return state, (Report(name="keepalived.stopped", level="critical"),)
    memory = replace(state.memory, keepalived_stopped=False)
    return replace(state, memory=memory), (Report(name="keepalived.started", level="info"),)


def _hook(policy: Policy, state: State, age_s: float | None) -> Absorbed:
    """Notice when keepalived stops calling the hook: then nobody is listening to us.

    keepalived takes a hook that it cannot execute for a success, so silence is the only sign.
    """
    silent = (
        age_s is not None
        and policy.call_within_s > 0
        and age_s > policy.call_within_s
        and not state.memory.keepalived_stopped
    )
    if silent == state.hook_silent:
        return state, ()
    state = replace(state, hook_silent=silent)
    if not silent:
        return state, (Report(name="hook.called_again", level="info"),)
    fields = (("age_s", round(age_s or 0.0, 1)),)
    return state, (Report(name="hook.not_called", level="error", fields=fields),)


def _without(state: State, name: str) -> dict[str, CheckState]:
    return {key: check for key, check in state.checks.items() if key != name}
