"""A keepalived that died: start it again, and never leave its VIPs where they do not belong.

A killed keepalived leaves its VIPs behind, and HAProxy goes on serving on them. The peer takes them
too when it has heard no advert for its down timer (RFC 9568, section 6.1); only then must they go,
and going sooner would leave clients with nobody. It says so with its first advert, and when that is
not heard the timer has run out at the latest after so long. A start of keepalived strips them at
once, so it comes afterwards. No process is left when they are deleted: a living one would put them
back.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from sentinel.actions import RemoveVips, Report, StartKeepalived
from sentinel.core import evidence, intent, keepalived, manager
from sentinel.core.standing import skew_s
from sentinel.core.state import Phase, Policy, State, Turn
from sentinel.model import ServiceState
from sentinel.vrrp import Vip, VrrpInstance, VrrpView

#: A down timer is so many adverts and the skew: RFC 9568, Active_Down_Interval.
DOWN_ADVERTS: Final = 3


def decide(policy: Policy, state: State, now_s: float) -> Turn:
    """Do what is due about a keepalived of which no process is left."""
    view = state.vrrp
    if view is None or not view.instances:
        return state, ()
    if view.pids:
        if state.keepalived_lived and state.keepalived_dead_s is None:
            return state, ()
        return replace(state, keepalived_lived=True, keepalived_dead_s=None), ()
    if state.keepalived_dead_s is None:
        if not state.keepalived_lived and not left(view):
            return state, ()
        died = replace(
            state,
            keepalived_dead_s=now_s,
            keepalived_death_told=False,
            keepalived_left_vips=bool(left(view)),
            taken_over=(),
            fence_failed=False,
            keepalived_stale=True,
            fenced=(),
            fence_again_s=0.0,
        )
        return died, ()
    service, busy = state.keepalived, state.keepalived_in_flight or state.fencing
    if busy is not None or state.keepalived_stale or service is None:
        return state, ()
    awaited = _awaited(service, now_s - state.keepalived_dead_s)
    if manager.unanswered(service) or _starting(service) or awaited:
        new = now_s - state.keepalived_dead_s < manager.LOOK_SLOWLY_S
        every_s = manager.LOOK_EVERY_S if new else manager.LOOK_SLOWLY_S
        stale = now_s - state.keepalived_heard_s >= every_s
        state = replace(state, keepalived_stale=stale)
    if _starting(service):
        return state, ()
    state, reports = (state, ()) if awaited else _tell(state, view)
    if intent.paused(state):
        return state, reports
    ours = _ours_to_start(state) and not awaited
    state, actions = _restore(policy, state, view, now_s, ours=ours)
    return state, (*reports, *actions)


def taken_over(state: State, instance: str) -> State:
    """Know that the peer has taken an instance over, if there is no keepalived to answer it."""
    if state.keepalived_dead_s is None or instance in state.taken_over:
        return state
    return replace(state, taken_over=(*state.taken_over, instance))


def left(view: VrrpView | None) -> tuple[Vip, ...]:
    """Return the VIPs that a keepalived without a process has left on this node."""
    if view is None or view.pids:
        return ()
    return tuple(vip for seen in view.instances for vip in seen.present)


def _restore(policy: Policy, state: State, view: VrrpView, now_s: float, *, ours: bool) -> Turn:
    """Remove what must go, then start what is ours to start, which removes what would not go.

    Where neither we nor a service manager have ever seen keepalived alive, it may be one that we do
    not recognise: then only the peer's own word shows that it does not speak.
    """
    dead_s = now_s if state.keepalived_dead_s is None else state.keepalived_dead_s
    removable = bool(left(view)) and policy.fence
    if ours and (state.fence_failed or not removable):
        started, actions = _start(policy, state, now_s)
        if actions:
            return started, actions
    if not removable:
        return state, ()
    sure = state.keepalived_lived or (state.keepalived is not None and state.keepalived.known)
    tried = state.fenced if now_s < state.fence_again_s else ()
    vips = tuple(
        vip
        for seen in view.instances
        if seen.instance.name in state.taken_over
        or (sure and now_s >= dead_s + _down_timer_s(seen.instance))
        for vip in seen.present
        if vip not in tried
    )
    known = ours or state.keepalived_lived
    if not vips or not known:
        return state, ()
    words = ", ".join(vip.address for vip in vips)
    action = RemoveVips(vips=vips, reason=f"keepalived is dead and has left {words} here")
    return replace(state, fencing=action, fenced=(*tried, *vips)), (action,)


def _starting(service: ServiceState) -> bool:
    """Tell whether the unit is said to run, or about to: then its death is not known there yet."""
    return manager.runs(service) and service.sub not in {"auto-restart", "exited"}


def _awaited(service: ServiceState, dead_for_s: float) -> bool:
    """Tell whether somebody's stop or restart is under way: its end says what it was."""
    return manager.somebody_acts(service) and dead_for_s < manager.JOB_MAX_S


def _ours_to_start(state: State) -> bool:
    """Tell whether keepalived died, and neither somebody nor systemd sees to it already.

    Plain commands cannot tell a death from a stop; a keepalived that is stopped takes its VIPs
    with it.
    """
    service = state.keepalived
    if service is None or state.memory.keepalived_stopped or state.phase is Phase.FAILED:
        return False
    if manager.unanswered(service):
        return False  # what it left is removed all the same
    if not service.known:
        return state.keepalived_left_vips
    return not service.intended_stop and not _starting(service)


def _start(policy: Policy, state: State, now_s: float) -> Turn:
    starts = evidence.lately(state.memory.keepalived_starts, policy.restart_window_s, now_s)
    pause_s = policy.backoff_s * 2.0 ** (len(starts) - 1)
    if len(starts) >= policy.keepalived_budget or (starts and now_s - starts[-1] < pause_s):
        return state, ()
    state, actions = keepalived.act(state, StartKeepalived(reason="keepalived died"), now_s)
    if actions:
        memory = replace(state.memory, keepalived_starts=(*starts, now_s))
        state = replace(state, memory=memory)
    return state, actions


def _down_timer_s(instance: VrrpInstance) -> float:
    """Return Active_Down_Interval for a peer of about our own priority."""
    return DOWN_ADVERTS * instance.advert_int_s + skew_s(instance)


def _tell(state: State, view: VrrpView) -> Turn:
    """Report once what became of keepalived, when the service manager has said why."""
    service = state.keepalived
    if state.keepalived_death_told or service is None or manager.unanswered(service):
        return state, ()
    state = replace(state, keepalived_death_told=True)
    if state.memory.keepalived_stopped:
        return state, ()
    vips = ", ".join(vip.address for vip in left(view)) or "none"
    if service.intended_stop:
        fields = (("reason", service.intended_stop), ("vips_left", vips))
        return state, (Report(name="keepalived.ended", level="warning", fields=fields),)
    if not service.known and not state.keepalived_left_vips:
        fields = (("reason", "it took its VIPs with it"), ("vips_left", vips))
        return state, (Report(name="keepalived.ended", level="warning", fields=fields),)
    unit = f"unit is {service.active} ({service.result})" if service.known else "it was killed"
    fields = (("reason", unit), ("vips_left", vips))
    return state, (Report(name="keepalived.died", level="error", fields=fields),)
