"""Take one event into the state: facts only, no decision. Returns what is worth reporting."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from sentinel.actions import Report
from sentinel.core import fence, intent
from sentinel.core.evidence import alive, answered, saturated, spoke
from sentinel.core.manager import runs
from sentinel.core.outcomes import finished, haproxy_seen, interrupted, keepalived_seen
from sentinel.core.state import CheckPolicy, CheckState, Health, Lost, Policy, State
from sentinel.core.views import Absorbed, address_taken, saturation_over, see
from sentinel.events import (
    AddressTaken,
    CheckRemoved,
    Event,
    Finished,
    HaproxyServiceSeen,
    HookSeen,
    InstanceTakenOver,
    Interrupted,
    KeepalivedServiceSeen,
    Observed,
    Ordered,
    Tick,
)
from sentinel.model import SILENT, Observation, ProbeView, Scope, Verdict

#: A check that has known nothing for this long is reported.
UNKNOWN_REPORT_S: Final = 30.0
#: What an older incarnation of HAProxy answered says nothing about the present one.
_OF_AN_INCARNATION: Final = frozenset(
    {Scope.LISTENER, Scope.RUNTIME, Scope.FRONTEND, Scope.BACKEND}
)
#: Their changes have words of their own: haproxy.died, configuration.invalid.
_SPOKEN_FOR: Final = frozenset({Scope.PROCESS, Scope.CONFIGURATION})


def absorb(  # noqa: C901  (one arm an event)
    policy: Policy, state: State, event: Event, now_s: float
) -> Absorbed:
    """Return the state that knows *event*."""
    match event:
        case Tick():
            state, reports = saturation_over(state, now_s)
            state, more = intent.expire(state, now_s)
            return state, reports + more
        case Observed():
            return _observed(policy, state, event, now_s)
        case CheckRemoved(check=name):
            return _forget(state, name), ()
        case HaproxyServiceSeen():
            return haproxy_seen(state, event, now_s), ()
        case KeepalivedServiceSeen(service=service):
            return keepalived_seen(state, service, now_s), ()
        case Finished():
            return finished(policy, state, event, now_s)
        case Interrupted():
            return interrupted(policy, state, now_s)
        case Ordered(order=order):
            return intent.obey(state, order, now_s)
        case AddressTaken():
            return address_taken(state, event)
        case InstanceTakenOver(instance=name):
            return fence.taken_over(state, name), ()
        case HookSeen(age_s=age_s):
            return _hook(policy, state, age_s, now_s)


# --- checks ---------------------------------------------------------------------------------------


def _observed(policy: Policy, state: State, event: Observed, now_s: float) -> Absorbed:
    seen = event.observation
    known = policy.checks.get(seen.check)
    stale = seen.scope in _OF_AN_INCARNATION and event.incarnation != state.incarnation
    if known is None or stale:
        return state, ()
    state, reports = _count(state, known, event, now_s)
    if seen.verdict is Verdict.UNKNOWN:
        return state, reports
    state, more = see(state, seen, now_s)
    return state, reports + more


def _forget(state: State, name: str) -> State:
    """Know nothing any more of what a check has said that is no longer there."""
    gone = state.checks.get(name)
    checks = {key: check for key, check in state.checks.items() if key != name}
    # another of the same name may ask something else, and has proved nothing yet
    proven = tuple(known for known in state.memory.proven if known != name)
    state = replace(state, checks=checks, memory=replace(state.memory, proven=proven))
    match gone.last.scope if gone is not None else None:
        case Scope.BACKEND:
            return replace(state, pools=(), lost=Lost())
        case Scope.VRRP:
            return replace(state, vrrp=None)
        case Scope.PEER:
            return replace(state, peer=None)
        case Scope.RUNTIME:
            return replace(state, runtime=None)
        case _:
            return state


def _count(state: State, known: CheckPolicy, event: Observed, now_s: float) -> Absorbed:
    """Move the check's counter and report what changed."""
    seen = event.observation
    before = state.checks.get(seen.check) or CheckState(
        health=Health.fresh(known.rise, known.fall),
        last=seen,
        last_begun_s=event.begun_s,
        changed_s=now_s,
    )
    health = _health(state, known, before, event, now_s)
    silences, silent_since_s = _silences(before, event, now_s)
    here = answered(seen)
    told = health.up == before.told_up or _untold(state, seen)
    check = CheckState(
        health=health,
        last=seen,
        last_begun_s=event.begun_s,
        changed_s=before.changed_s if health.up == before.health.up else now_s,
        failed_code=seen.code if seen.verdict is Verdict.FAIL else before.failed_code,
        told_up=before.told_up if told else health.up,
        incarnation=event.incarnation,
        answered_incarnation=event.incarnation if here else before.answered_incarnation,
        spoke_s=event.begun_s if spoke(seen) else before.spoke_s,
        silences=silences,
        silent_since_s=silent_since_s,
        expiring=before.expiring,
    )
    reports = () if told else (_change(seen, up=health.up),)
    check, more = _unknown(before, check, now_s)
    check, still_more = _certificate(before, check)
    state = _suspicion_over(state, event)
    if known.discovered and seen.verdict is Verdict.PASS and seen.check not in state.memory.proven:
        names = tuple(sorted({*state.memory.proven, seen.check}))
        state = replace(state, memory=replace(state.memory, proven=names))
    state = replace(state, checks={**state.checks, seen.check: check})
    return state, reports + more + still_more


def _silences(before: CheckState, event: Observed, now_s: float) -> tuple[int, float]:
    """Count the runs in a row that the present incarnation left without any answer.

    Since when there was none goes beyond it: what was silent before a reload is so of itself.
    """
    counted = before.silences if before.incarnation == event.incarnation else 0
    match event.observation.verdict:
        case Verdict.UNKNOWN:
            return counted, before.silent_since_s
        case Verdict.FAIL if event.observation.code in SILENT:
            return counted + 1, before.silent_since_s if before.silences else now_s
        case _:
            return 0, -1.0


def _suspicion_over(state: State, event: Observed) -> State:
    """A worker that was asked after it was seen stuck, and answered, is not stopped."""
    since_s = state.stuck_since_s
    if since_s is None or event.begun_s < since_s or not spoke(event.observation):
        return state
    return replace(state, stuck_since_s=None)


def _health(
    state: State, known: CheckPolicy, before: CheckState, event: Observed, now_s: float
) -> Health:
    """Count one more result, unless it says nothing of the check.

    Silence while HAProxy is full is no failure of a frontend. The first pass of a new incarnation
    makes up for what another one failed.
    """
    seen = event.observation
    if seen.code in SILENT and saturated(state, now_s):
        return before.health
    new = seen.scope in _OF_AN_INCARNATION and before.answered_incarnation < event.incarnation
    if new and seen.verdict is Verdict.PASS:
        return Health.fresh(known.rise, known.fall)
    return before.health.under(known.rise, known.fall).after(seen.verdict)


def _untold(state: State, seen: Observation) -> bool:
    """Tell whether a change needs no line: it has another one, or HAProxy is dead anyway."""
    if seen.scope in _OF_AN_INCARNATION:
        return not alive(state)
    return seen.scope in _SPOKEN_FOR


def _change(seen: Observation, *, up: bool) -> Report:
    name, level = ("check.up", "info") if up else ("check.down", "warning")
    fields = (
        ("check", seen.check),
        ("scope", seen.scope.value),
        ("check_code", seen.code.value),
        ("last_chk", seen.detail),
        ("check_duration_ms", round(seen.duration_ms, 1)),
    )
    return Report(name=name, level=level, fields=fields)


def _unknown(
    before: CheckState, check: CheckState, now_s: float
) -> tuple[CheckState, tuple[Report, ...]]:
    """Report a long run of UNKNOWN once, and its end."""
    fields = (("check", check.last.check), ("reason", check.last.detail))
    if check.last.verdict is not Verdict.UNKNOWN:
        over = Report(name="check.known_again", level="info", fields=fields)
        return check, (over,) if before.unknown_reported else ()
    since_s = now_s if before.unknown_since_s is None else before.unknown_since_s
    long = now_s - since_s >= UNKNOWN_REPORT_S
    check = replace(check, unknown_since_s=since_s, unknown_reported=long)
    report = Report(name="check.unknown", level="warning", fields=fields)
    return check, (report,) if long and not before.unknown_reported else ()


def _certificate(before: CheckState, check: CheckState) -> tuple[CheckState, tuple[Report, ...]]:
    """Report once that a certificate ends soon; a probe that saw none changes nothing."""
    view = check.last.view
    if not isinstance(view, ProbeView) or view.certificate_left_s is None:
        return check, ()
    check = replace(check, expiring=view.expiring)
    if before.expiring or not view.expiring:
        return check, ()
    left_days = round(view.certificate_left_s / 86400, 1)
    fields = (("check", check.last.check), ("left_days", left_days))
    return check, (Report(name="certificate.expiring", level="warning", fields=fields),)


def _hook(policy: Policy, state: State, age_s: float | None, now_s: float) -> Absorbed:
    """Notice when keepalived does not call the hook: then nobody is listening to us.

    keepalived takes a hook that it cannot execute for a success, so silence is the only sign. One
    that never called is missed only while keepalived is known to run: it may not be there at all.
    """
    waited_s = now_s - (now_s if state.started_s is None else state.started_s)
    lives = runs(state.keepalived) or (state.vrrp is not None and bool(state.vrrp.pids))
    silent_s = age_s if age_s is not None else waited_s if lives else 0.0
    silent = 0 < policy.call_within_s < silent_s and not state.memory.keepalived_stopped
    if silent == state.hook_silent:
        return state, ()
    state = replace(state, hook_silent=silent)
    if not silent:
        return state, (Report(name="hook.called_again", level="info"),)
    age = "never" if age_s is None else round(age_s, 1)
    report = Report(name="hook.not_called", level="error", fields=(("last_call_age_s", age),))
    return replace(state, keepalived_stale=True), (report,)
