"""The moves on keepalived: look at it, stop it as the last rung, start it again.

What sentinel itself stopped is started again (what died is ``fence``'s), and the memory says so
before the stop is tried: killed in between, sentinel still knows that keepalived is its to start.
"""

from __future__ import annotations

from dataclasses import replace

from sentinel.actions import LookAtKeepalived, StartKeepalived, StopKeepalived
from sentinel.core import intent, manager
from sentinel.core.state import Phase, Policy, State, Turn


def look(state: State, now_s: float) -> Turn:
    """Look at keepalived once after something has happened to it, or may have."""
    asked_s = state.keepalived_asked_s
    waiting = asked_s is not None and now_s - asked_s < manager.LOOK_MAX_S
    if not state.keepalived_stale or waiting or state.phase is Phase.LEARNING:
        return state, ()
    return replace(state, keepalived_asked_s=now_s), (LookAtKeepalived(),)


def climb(policy: Policy, state: State, now_s: float) -> Turn:
    """Climb the last rung: stop keepalived once the failure has lasted, if it runs at all.

    A keepalived that somebody else stopped is not ours to start again, so it is looked at first;
    plain commands cannot tell, and are obeyed blindly where no process is known either.
    """
    since_s = state.memory.failed_since_s
    if not policy.stop_keepalived or since_s is None:
        return state, ()
    since_s = max(since_s, state.down_since_s or since_s)  # it may have served in between
    if now_s - since_s < policy.stop_after_s or intent.paused(state):
        return state, ()
    if state.keepalived_dead_s is not None:
        return state, ()
    if state.memory.keepalived_stopped and state.keepalived_retry_s is None:
        return state, ()
    service = state.keepalived
    if state.keepalived_stale or service is None:
        return state, ()
    if manager.unanswered(service):
        stale = now_s - state.keepalived_heard_s >= manager.LOOK_SLOWLY_S
        return replace(state, keepalived_stale=stale), ()
    if service.known and not manager.runs(service):
        return state, ()
    return act(state, StopKeepalived(reason=state.reason), now_s)


def act(state: State, action: StopKeepalived | StartKeepalived, now_s: float) -> Turn:
    """Begin *action* unless one is under way or has just failed."""
    retry_s = state.keepalived_retry_s
    if state.keepalived_in_flight is not None or (retry_s is not None and now_s < retry_s):
        return state, ()
    if isinstance(action, StopKeepalived):
        state = replace(state, memory=replace(state.memory, keepalived_stopped=True))
    return replace(state, keepalived_in_flight=action), (action,)
