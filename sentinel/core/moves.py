"""The moves that several phases share: dying, asking why, restarting, failing, recovering."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from sentinel.core import evidence
from sentinel.core.state import Phase, Policy, State
from sentinel.model import (
    Action,
    LookAtHaproxy,
    LookAtKeepalived,
    Recheck,
    Report,
    RestartHaproxy,
    StartKeepalived,
    StopKeepalived,
)

#: An answer of the service manager older than this is asked for again before it is acted on.
LOOK_FRESH_S: Final = 1.0
#: Pause between two looks while somebody else's job runs, and while nothing is urgent.
LOOK_EVERY_S: Final = 0.1
LOOK_SLOWLY_S: Final = 2.0
#: A look without an answer for this long is given up: what is known must do.
LOOK_MAX_S: Final = 12.0
#: Somebody else's job (a stop, a restart by hand) is waited for this long.
JOB_MAX_S: Final = 30.0

Turn = tuple[State, tuple[Action, ...]]


def enter(state: State, phase: Phase, reason: str, now_s: float) -> State:
    """Change the phase; the only place that does."""
    return replace(state, previous=state.phase, phase=phase, phase_since_s=now_s, reason=reason)


def found_fault(policy: Policy, state: State, now_s: float) -> Turn | None:
    """Return the turn of a HAProxy that served until now and cannot any more; None while it can."""
    if not evidence.alive(state):
        return die(state, now_s)
    reason = evidence.hung(policy, state, now_s)
    if reason:
        state = replace(state, killed_s=None, down_since_s=now_s)
        report = Report(name="haproxy.hung", level="error", fields=last_words(state, reason))
        return enter(state, Phase.HUNG, reason, now_s), (report, recheck("runtime"))
    if state.stuck_since_s == now_s:
        return state, (recheck("runtime"),)
    return None


def die(state: State, now_s: float) -> Turn:
    """HAProxy has no worker any more."""
    process = state.checks.get("process")
    reason = process.last.detail if process is not None else "no process"
    report = Report(name="haproxy.died", level="error", fields=last_words(state, reason))
    down_since_s = state.down_since_s if state.phase is Phase.HUNG else now_s
    state = replace(state, down_since_s=down_since_s, unproven=False)
    state, actions = ask_why(enter(state, Phase.DEAD, reason, now_s), now_s)
    return state, (report, *actions)


def ask_why(state: State, now_s: float) -> Turn:
    """Ask the two that know whether a restart is wanted and possible."""
    return replace(state, haproxy_asked_s=now_s), (LookAtHaproxy(), recheck("configuration"))


def restart(policy: Policy, state: State, now_s: float) -> Turn:
    """Spend one restart of the budget; one that lives but proved nothing is killed first."""
    attempt = state.memory.attempt + 1
    pause_s = min(policy.backoff_s * 2.0 ** (attempt - 1), policy.backoff_max_s)
    memory = replace(
        state.memory,
        attempt=attempt,
        next_attempt_s=now_s + pause_s,
        restarts=(*evidence.restarts_in_window(policy, state, now_s), now_s),
    )
    action = RestartHaproxy(
        attempt=attempt, reason=state.reason, kill_first=evidence.condemned(state)
    )
    state = replace(
        state,
        memory=memory,
        in_flight=action,
        verify_by_s=None,
        attempted_incarnation=state.incarnation,
    )
    return enter(state, Phase.MENDING, f"restart {attempt}: {state.reason}", now_s), (action,)


def await_proof(policy: Policy, state: State, reason: str, now_s: float) -> Turn:
    """Somebody else started HAProxy: it has to prove itself all the same."""
    state = replace(
        state,
        verify_by_s=now_s + policy.verify_s,
        attempted_incarnation=state.incarnation - 1,
    )
    return enter(state, Phase.MENDING, reason, now_s), (recheck(*evidence.expected(policy, state)),)


def try_again(state: State, reason: str, now_s: float) -> Turn:
    """A start failed or proved nothing: ask again what is wrong before the next one."""
    state = replace(state, unproven=evidence.alive(state))
    report = Report(name="haproxy.start_failed", level="error", fields=(("reason", reason),))
    state, actions = ask_why(enter(state, Phase.DEAD, reason, now_s), now_s)
    return state, (report, *actions)


def recover(state: State, reason: str, now_s: float) -> Turn:
    """HAProxy answers again; say who did it and how long it took."""
    down_since_s = now_s if state.down_since_s is None else state.down_since_s
    restarted = any(at_s >= down_since_s for at_s in state.memory.restarts)
    down_ms = round((now_s - down_since_s) * 1000)
    fields = (
        ("reason", reason),
        ("down_ms", down_ms),
        ("attempt", state.memory.attempt),
        ("incarnation", state.incarnation),
    )
    name = "haproxy.restarted" if restarted else "haproxy.recovered"
    report = Report(name=name, level="info", fields=fields)
    state = replace(
        state, verify_by_s=None, unproven=False, down_since_s=None, healthy_since_s=now_s
    )
    return serve(state, reason, now_s), (report,)


def serve(state: State, reason: str, now_s: float) -> State:
    """Serve again, or prove for hold_s that the failure is over."""
    if state.memory.failed_since_s is None:
        return enter(state, Phase.UP, reason, now_s)
    return enter(replace(state, healthy_since_s=now_s), Phase.HOLDING, reason, now_s)


def fail(state: State, reason: str, now_s: float) -> Turn:
    """HAProxy cannot be mended now; from here on the failure's clock runs."""
    since_s = state.memory.failed_since_s
    memory = replace(state.memory, failed_since_s=now_s if since_s is None else since_s)
    report = Report(name="haproxy.failed", level="critical", fields=(("reason", reason),))
    again = state.previous is Phase.FAILED and since_s is not None
    state = replace(state, memory=memory, in_flight=None)
    return enter(state, Phase.FAILED, reason, now_s), () if again else (report,)


def stand_down(state: State, reason: str, now_s: float) -> Turn:
    """Leave HAProxy to the administrator who stopped it."""
    reason = f"stopped by an administrator: {reason}"
    report = Report(name="haproxy.stopped", level="warning", fields=(("reason", reason),))
    return enter(state, Phase.MAINT, reason, now_s), (report,)


def climb(policy: Policy, state: State, now_s: float) -> Turn:
    """Climb the last rung: stop keepalived once the failure has lasted, if it runs at all.

    A keepalived that somebody else stopped is not ours to start again, so it is looked at first.
    """
    since_s = state.memory.failed_since_s
    if not policy.stop_keepalived or since_s is None or now_s - since_s < policy.stop_after_s:
        return state, ()
    if state.memory.keepalived_stopped and state.keepalived_retry_s is None:
        return state, ()
    if state.keepalived_asked_s < since_s:
        return replace(state, keepalived_asked_s=now_s, keepalived=None), (LookAtKeepalived(),)
    service = state.keepalived
    if service is None or (service.known and service.active != "active"):
        return state, ()
    return act_on_keepalived(state, StopKeepalived(reason=state.reason), now_s)


def act_on_keepalived(state: State, action: StopKeepalived | StartKeepalived, now_s: float) -> Turn:
    """Begin *action* unless one is under way or has just failed.

    The memory says stopped before the stop is tried: killed in between, sentinel still knows that
    keepalived is its to start again.
    """
    retry_s = state.keepalived_retry_s
    if state.keepalived_in_flight is not None or (retry_s is not None and now_s < retry_s):
        return state, ()
    memory = replace(state.memory, keepalived_stopped=True)
    return replace(state, keepalived_in_flight=action, memory=memory), (action,)


def look_again(state: State, now_s: float, every_s: float) -> Turn:
    """Ask the service manager again, unless an answer is under way or was just given."""
    asked_s, seen_s = state.haproxy_asked_s, state.haproxy_seen_s
    waiting = asked_s > seen_s and now_s - asked_s < LOOK_MAX_S
    if waiting or now_s - asked_s < every_s:
        return state, ()
    return replace(state, haproxy_asked_s=now_s), (LookAtHaproxy(),)


def fresh_look(state: State, now_s: float) -> bool:
    """The service manager has answered a question asked in this phase, not long ago."""
    asked_in_this_phase = state.haproxy_seen_s >= state.phase_since_s
    return asked_in_this_phase and now_s - state.haproxy_heard_s <= LOOK_FRESH_S


def somebody_acts(state: State) -> bool:
    """A job of the service manager is under way that is not the automatic restart's pause."""
    service = state.haproxy
    if service is None or not service.known:
        return False
    if service.sub == "auto-restart":
        return False
    return service.job_pending or service.active in {"activating", "deactivating", "reloading"}


def configuration_rechecked(policy: Policy, state: State) -> bool:
    """The configuration was judged after HAProxy was found dead."""
    if "configuration" not in policy.checks:
        return True
    check = state.checks.get("configuration")
    return check is not None and check.last_begun_s >= state.phase_since_s


def recheck(*names: str) -> Recheck:
    """Ask these checks to run now."""
    return Recheck(checks=names)


def last_words(state: State, reason: str) -> tuple[tuple[str, str | int | float], ...]:
    """Return the last word of every check, so that the log line explains itself."""
    words = tuple(
        (f"check_{name}", f"{check.health} {check.last.code} {check.last.detail}".rstrip())
        for name, check in state.checks.items()
    )
    return (("reason", reason), ("incarnation", state.incarnation), *words)
