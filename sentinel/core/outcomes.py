"""Take in what the service managers say and how our own actions ended."""

from __future__ import annotations

from dataclasses import replace

from sentinel.actions import (
    KillHaproxy,
    RemoveVips,
    Report,
    RestartHaproxy,
    StartKeepalived,
    StopKeepalived,
)
from sentinel.core.manager import unanswered
from sentinel.core.state import Phase, Policy, State
from sentinel.core.views import Absorbed
from sentinel.events import Finished, HaproxyServiceSeen
from sentinel.model import ServiceState


def haproxy_seen(state: State, event: HaproxyServiceSeen, now_s: float) -> State:
    """Know what the service manager says of HAProxy; no answer keeps the age of the last one."""
    heard_s = state.haproxy_heard_s if unanswered(event.service) else now_s
    return replace(
        state, haproxy=event.service, haproxy_seen_s=event.begun_s, haproxy_heard_s=heard_s
    )


def keepalived_seen(state: State, service: ServiceState, now_s: float) -> State:
    """Know what the service manager says of keepalived."""
    return replace(
        state,
        keepalived=service,
        keepalived_stale=False,
        keepalived_asked_s=None,
        keepalived_heard_s=now_s,
    )


def finished(policy: Policy, state: State, event: Finished, now_s: float) -> Absorbed:
    """Note the outcome of an action; what follows from it is decided by the phase."""
    reports: tuple[Report, ...] = ()
    if not event.ok:
        fields = (("action", type(event.action).__name__), ("reason", event.detail))
        reports = (Report(name="action.failed", level="error", fields=fields),)
    match event.action:
        case StopKeepalived() | StartKeepalived() if event.action == state.keepalived_in_flight:
            state, more = _keepalived_finished(policy, state, event.action, now_s, ok=event.ok)
            return state, reports + more
        case KillHaproxy() if event.action == state.in_flight:
            more = (_killed(state, event.action),) if event.ok else ()
            return replace(state, in_flight=None, orphans={}), reports + more
        case RestartHaproxy() if event.action == state.in_flight:
            return _restarted(policy, state, event, now_s), reports
        case RemoveVips() if event.action == state.fencing:
            state, more = _fenced(policy, state, event.action, now_s, ok=event.ok)
            return state, reports + more
        case _:
            return state, reports


def _restarted(policy: Policy, state: State, event: Finished, now_s: float) -> State:
    """From here on HAProxy has verify_s to prove itself, if it has not done so already."""
    state = replace(state, in_flight=None)
    if state.phase is not Phase.MENDING:
        return state
    failed = "" if event.ok else event.detail or "no reason was given"
    return replace(state, verify_by_s=now_s + policy.verify_s, start_failed=failed)


def _killed(state: State, action: KillHaproxy) -> Report:
    orphans = all(proc in state.orphans for proc in action.procs)
    pids = " ".join(str(proc.pid) for proc in action.procs)
    return Report(
        name="haproxy.orphan_killed" if orphans else "haproxy.killed",
        level="warning",
        fields=(("pids", pids), ("reason", action.reason)),
    )


def _keepalived_finished(
    policy: Policy,
    state: State,
    action: StopKeepalived | StartKeepalived,
    now_s: float,
    *,
    ok: bool,
) -> Absorbed:
    """A failed stop leaves Memory.keepalived_stopped set: it may have happened all the same."""
    state = replace(state, keepalived_in_flight=None, keepalived_stale=True)
    if not ok:
        return replace(state, keepalived_retry_s=now_s + policy.backoff_max_s), ()
    state = replace(state, keepalived_retry_s=None)
    fields = (("reason", action.reason),)
    if isinstance(action, StopKeepalived):
        return state, (Report(name="keepalived.stopped", level="critical", fields=fields),)
    memory = replace(state.memory, keepalived_stopped=False)
    started = Report(name="keepalived.started", level="info", fields=fields)
    return replace(state, memory=memory), (started,)


def _fenced(
    policy: Policy, state: State, action: RemoveVips, now_s: float, *, ok: bool
) -> Absorbed:
    """VIPs that stay, or come back, are removed again after a pause."""
    pause_s = policy.backoff_s if ok else policy.backoff_max_s
    state = replace(state, fencing=None, fence_failed=not ok, fence_again_s=now_s + pause_s)
    if not ok:
        return state, ()
    vips = ", ".join(str(vip) for vip in action.vips)
    fields = (("vips", vips), ("reason", action.reason))
    return state, (Report(name="vip.fenced", level="critical", fields=fields),)


def interrupted(policy: Policy, state: State, now_s: float) -> Absorbed:
    """Give up what a predecessor had under way: its looks are asked for again."""
    state = replace(state, haproxy_asked_s=-1.0, keepalived_asked_s=None)
    reports: tuple[Report, ...] = ()
    for action in (state.in_flight, state.keepalived_in_flight, state.fencing):
        if action is not None:
            detail = "sentinel was reloaded before it ended"
            lost = Finished(action=action, ok=False, detail=detail)
            state, more = finished(policy, state, lost, now_s)
            reports += more
    return state, reports
