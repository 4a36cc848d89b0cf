"""The service manager: what its answers mean, and when it is asked again."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from sentinel.actions import Action, LookAtHaproxy
from sentinel.core import evidence
from sentinel.core.state import Policy, State
from sentinel.model import Scope, ServiceState

#: An answer older than this is asked for again before it is acted on: an administrator's stop in
#: between would be undone unseen.
FRESH_S: Final = 0.25
#: Pause between two looks while somebody else's job runs, and while nothing is urgent.
LOOK_EVERY_S: Final = 0.1
LOOK_SLOWLY_S: Final = 2.0
#: Pause after a look that was not answered.
LOOK_RETRY_S: Final = 0.5
#: A service manager, or a configuration check, without an answer for this long is given up.
LOOK_MAX_S: Final = 12.0
#: Somebody else's job (a stop, a restart by hand) is waited for this long.
JOB_MAX_S: Final = 30.0


def unanswered(service: ServiceState | None) -> bool:
    """The service manager could not be asked; plain commands never can, and are not waited for."""
    return service is None or (not service.known and service.has_jobs)


def runs(service: ServiceState | None) -> bool:
    """The service manager says that the service runs, or is about to."""
    return (
        service is not None
        and service.known
        and service.active in {"active", "reloading", "activating"}
    )


def outdated(state: State) -> bool:
    """HAProxy serves, but the last answer, given while it was being started, says otherwise."""
    service = state.haproxy
    return service is None or (service.known and service.active != "active")


def look_again(state: State, now_s: float, every_s: float) -> tuple[State, tuple[Action, ...]]:
    """Ask the service manager again, unless an answer is under way or was just given."""
    asked_s, seen_s = state.haproxy_asked_s, state.haproxy_seen_s
    waiting = asked_s > seen_s and now_s - asked_s < LOOK_MAX_S
    if unanswered(state.haproxy):
        every_s = max(every_s, LOOK_RETRY_S)
    if waiting or now_s - max(asked_s, state.haproxy_heard_s) < every_s:
        return state, ()
    return replace(state, haproxy_asked_s=now_s), (LookAtHaproxy(),)


def given_up(state: State, now_s: float) -> bool:
    """The service manager has not answered for so long that no answer is waited for."""
    return now_s - max(state.phase_since_s, state.haproxy_heard_s) >= LOOK_MAX_S


def fresh_look(state: State, now_s: float) -> bool:
    """The service manager has answered a question asked in this phase, not long ago."""
    asked_in_this_phase = state.haproxy_seen_s >= state.phase_since_s
    fresh = asked_in_this_phase and now_s - state.haproxy_heard_s <= FRESH_S
    return fresh and not unanswered(state.haproxy)


def stopped_on_purpose(state: State, now_s: float) -> str:
    """Return why HAProxy is down on purpose, by a fresh look; empty when it is not."""
    if evidence.alive(state) or state.haproxy is None or not fresh_look(state, now_s):
        return ""
    return state.haproxy.intended_stop


def contradicts(policy: Policy, state: State) -> bool:
    """The service manager says that HAProxy runs, and nobody has looked at the processes since.

    Somebody may have started it after the process check saw none; the answer wakes that check.
    """
    service = state.haproxy
    if evidence.alive(state) or service is None or not service.known or service.active != "active":
        return False
    processes = evidence.of_scope(policy, Scope.PROCESS)
    return any(
        name in state.checks and state.checks[name].last_begun_s < state.haproxy_heard_s
        for name in processes
    )


def somebody_acts(service: ServiceState | None) -> bool:
    """A job of the service manager is under way that is not the automatic restart's pause."""
    if service is None or not service.known:
        return False
    changing = service.active in {"activating", "deactivating", "reloading"}
    return service.job_pending or (changing and service.sub != "auto-restart")
